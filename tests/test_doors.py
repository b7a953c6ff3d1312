"""What is public is named in README, and what README names is there: names, modules, places."""

import ast
import inspect
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import mlp

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def section(heading):
    """What stands below a heading, up to the next one."""
    found = re.search(rf"^#+ {re.escape(heading)}$(.*?)(?=^#|\Z)", README, re.DOTALL | re.MULTILINE)
    assert found, heading
    return found[1]


def cells(text):
    """The rows of the tables in a text, without their heads."""
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in text.splitlines()
        if line.startswith("|")
    ]
    heads = {i - 1 for i, row in enumerate(rows) if set("".join(row)) <= {"-"}}
    return [row for i, row in enumerate(rows) if i not in heads and i - 1 not in heads]


def code(text):
    """What stands between backticks."""
    return re.findall(r"`([^`]+)`", text)


def found(path):
    """The object of a dotted path, which may be a module, or an attribute of one."""
    parts = path.split(".")
    for end in range(len(parts), 0, -1):
        try:
            thing = import_module(".".join(parts[:end]))
        except ModuleNotFoundError:
            continue
        for name in parts[end:]:
            thing = getattr(thing, name)
        return thing
    raise ModuleNotFoundError(path)


PUBLIC = cells(section("What may be imported"))
NAMES = [name for of_mlp, _ in PUBLIC for name in code(of_mlp) if "." not in name]
MODULES = {path: about for of_mlp, about in PUBLIC for path in code(of_mlp) if "." in path}


# --- names of mlp ------------------------------------------------------------------------------


def test_the_table_names_what_mlp_gives_and_nothing_else():
    assert sorted(NAMES) == sorted(mlp.__all__)
    assert len(set(NAMES)) == len(NAMES)


def test_what_an_editor_is_told_is_what_is_imported():
    """The imports for type checkers and the table of the lazy ones say the same."""
    tree = ast.parse(Path(mlp.__file__).read_text(encoding="utf-8"))
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    told = {alias.name: node.module for node in block.body for alias in node.names}
    assert told == mlp._MODULE_OF
    assert sorted(told) == mlp.__all__ == sorted(mlp.__all__)
    assert set(mlp.__all__) <= set(dir(mlp))


def test_only_the_modules_of_the_table_are_found_below_mlp():
    assert set(mlp._MODULES) == {path.split(".")[1] for path in MODULES if path.startswith("mlp.")}


def methods(thing):
    """The public methods and properties that a class has from us, and what they belong to."""
    for cls in thing.__mro__:
        if cls.__module__.partition(".")[0] in ("mlp", "backends"):
            for name, value in vars(cls).items():
                if not name.startswith("_") and (callable(value) or isinstance(value, property)):
                    yield name, getattr(cls, name)


@pytest.mark.parametrize("name", mlp.__all__)
def test_a_public_name_says_what_it_is(name):
    thing = getattr(mlp, name)
    said = inspect.getdoc(thing)
    assert said
    assert not said.startswith(f"{name}("), "the signature that a dataclass writes by itself"
    for method, value in methods(thing) if inspect.isclass(thing) else ():
        assert inspect.getdoc(value), f"{name}.{method}"


# What functions give and raise, and what `load` and `Model.save` call: their examples show it
# without its name.
GIVEN = {
    *("Dataset", "StoredDataset", "GradientCheck", "Plan", "RateSearch", "Result", "Run"),
    "State",
    *("InputError", "BackendError", "load_model", "save_model"),
}


def test_a_public_name_is_used_in_an_example_that_runs():
    """In a doctest, in README or in the examples."""
    shown = list(re.findall(r"```python\n(.*?)```", README, re.DOTALL))
    shown += [path.read_text(encoding="utf-8") for path in (ROOT / "examples").glob("*.py")]
    for path in [*ROOT.glob("mlp/**/*.py"), *ROOT.glob("backends/*.py")]:
        lines = path.read_text(encoding="utf-8").splitlines()
        shown += [line for line in lines if re.match(r"\s*(>>>|\.\.\.) ", line)]
    text = "\n".join(shown)
    names = set(mlp.__all__) - GIVEN
    assert [name for name in sorted(names) if not re.search(rf"\b{name}\b", text)] == []


# --- modules and paths -------------------------------------------------------------------------


@pytest.mark.parametrize("path", MODULES)
def test_a_module_of_the_table_has_what_is_named_there(path):
    module = import_module(path)
    assert module.__doc__
    for name in code(MODULES[path]):
        if name.isidentifier():
            assert hasattr(module, name), name


def test_every_dotted_path_in_the_pages_is_there():
    for page in ("README.md", "CONTRIBUTING.md", "docs/on_a_gpu.md"):
        text = (ROOT / page).read_text(encoding="utf-8")
        for path in re.findall(r"(?<![\w/.-])(?:mlp|backends)(?:\.[A-Za-z_]\w*)+", text):
            if not path.endswith((".toml", ".py")):
                assert found(path) is not None, f"{page}: {path}"


def test_every_file_that_the_pages_point_to_is_there():
    for page in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs/on_a_gpu.md"):
        text = (ROOT / page).read_text(encoding="utf-8")
        folder = (ROOT / page).parent
        links = re.findall(r"\]\((?!https?:)([^)#]+)", text)
        paths = re.findall(
            r"(?<![\w./])(?:mlp|backends|tests|benchmarks|examples)/[\w/.]+\.\w+", text
        )
        for link, base in [*((link, folder) for link in links), *((path, ROOT) for path in paths)]:
            assert (base / link).exists(), f"{page}: {link}"


# --- from the equations to the code ------------------------------------------------------------


PLACES = cells(section("From the equations to the code"))


@pytest.mark.parametrize(("equation", "place", "tests"), PLACES, ids=[row[0] for row in PLACES])
def test_an_equation_is_where_the_table_says(equation, place, tests):
    """Modules and functions are there, a module's docstring has the numbers, the tests exist."""
    for path, numbers in re.findall(r"`([\w.]+\.[\w.]+)`(?: eq\. ([()\d, –]+))?", place):
        if path.endswith(".py"):
            continue
        thing = found(f"mlp.{path}")
        assert thing is not None
        for number in re.findall(r"\(\d\)", numbers):
            assert number in thing.__doc__, f"{path} has no eq. {number}"
    derivations = (ROOT / "tests" / "test_derivations.py").read_text(encoding="utf-8")
    for test in code(tests):
        if not test.endswith(".py"):
            assert f"def {test}(" in derivations, test


# --- how it is built ---------------------------------------------------------------------------


def test_the_listing_of_rooms_is_the_house():
    """README's rooms are those that the architecture test orders, in that order."""
    from tests.test_architecture import HOUSE

    listed = [code(room)[0] for room, _ in cells(section("How it is built"))]
    assert [path for path in listed if not (ROOT / path).exists()] == []
    rooms = list(dict.fromkeys(room for room, _ in HOUSE if room))
    assert [path.removeprefix("mlp/").rstrip("/") for path in listed if path.endswith("/")] == [
        "backends",
        *rooms,
    ]
    sentence = " ← ".join(rooms).replace("data", "data ← model")
    flat = " ".join(section("How it is built").split())
    assert f"backends ← {sentence}" in flat
    contributing = " ".join((ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").split())
    assert f"`backends` ← {sentence}" in contributing


def test_every_room_is_there_after_import_mlp_alone():
    """As in docs/parallel.md: mlp.parallel.world()."""
    code = "import mlp; print(mlp.parallel.world().size, [getattr(mlp, n) for n in dir(mlp)] != [])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert done.stdout == "1 True\n", done.stderr
