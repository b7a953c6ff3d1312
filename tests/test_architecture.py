"""Imports point one way, and `import mlp` brings no library that it does not need."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import backends
import mlp
from backends import BACKENDS
from mlp.activations import ACTIVATIONS
from mlp.initializers import INITIALIZERS
from mlp.losses import LOSSES
from mlp.optimizers import OPTIMIZERS
from mlp.schedules import SCHEDULES

MLP, ADAPTERS = (Path(package.__file__).parent for package in (mlp, backends))
README = MLP.parent / "README.md"

FORMULAS = {"activations", "losses", "initializers", "schedules", "optimizers"}
GROUND = {"errors", "seeds", "tables", "units"}
BEFORE = None  # any module that stands above it in the table

# Module -> what it may import of mlp. A new module has to find its place here: it fails the test
# until then. Below `objective` the places are fixed; above, the order of the rows is the rule.
ALLOWED = {
    "errors": set(),
    "seeds": set(),
    "metrics": set(),
    "units": set(),  # the formulas that activations and losses share
    "tables": {"errors"},
    "data": {"errors", "seeds"},
    "readers": {"errors", "data"},
    "folder": {"errors"},
    "memory": {"errors"},
    "threads": {"errors"},
    **dict.fromkeys(sorted(FORMULAS), GROUND),
    "network": {"memory"} | FORMULAS | GROUND,
    "objective": {"network"} | FORMULAS | GROUND,
    "feed": BEFORE,
    "mixed": {"optimizers"},
    "model": BEFORE,
    "step": BEFORE,
    "planning": BEFORE,
    "check": BEFORE,
    "training": BEFORE,
    "checkpoint": BEFORE,
    "estimators": BEFORE,
    "accelerate": BEFORE,
    "config": BEFORE,
    "__init__": BEFORE,  # the door: names of the modules above
    "backend_times": BEFORE,
    "backend_check": BEFORE,
    "plots": {"errors"},
    "progress": {"training"},
    "prepare": BEFORE,
    "predictions": BEFORE,
    "runs": BEFORE,
    "cli": BEFORE,
    "__main__": {"cli"},
}

# Libraries beside NumPy and array-api-compat, and the modules that may import them.
LIBRARIES = {
    "cupy": {"cupy_backend", "cuda_kernel"},
    "cupy_backends": {"cuda_blas"},
    "torch": {"torch_backend"},
    "array_api_strict": {"strict_backend"},
    "numba": {"numba_kernel"},
    "safetensors": {"checkpoint"},
    "pydantic": {"config"},
    "threadpoolctl": {"threads"},
    "scipy": {"estimators"},
    "sklearn": {"estimators", "accelerate"},
    "matplotlib": {"plots"},
    "rich": {"progress", "cli"},
    "typer": {"cli"},
}

OURS = {"mlp", "backends", "numpy", "array_api_compat"}


def imports(path):
    """(module, name) of every import in a file, inside functions too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {(alias.name, None) for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}: imports are absolute"
            found |= {(node.module, alias.name) for alias in node.names}
    return found


def own_imports(path):
    """The modules of mlp that a file imports."""
    found = set()
    for module, name in imports(path):
        package, _, rest = module.partition(".")
        if package == "mlp":
            inside = rest or (name if (MLP / f"{name}.py").exists() else "__init__")
            found.add(inside.partition(".")[0])
    return found


def module_of(path):
    """The module a file belongs to: a folder is one module."""
    package = MLP if MLP in path.parents else ADAPTERS
    return path.relative_to(package).parts[0].removesuffix(".py")


FILES = sorted([*MLP.rglob("*.py"), *ADAPTERS.rglob("*.py")])


@pytest.mark.parametrize("path", sorted(MLP.rglob("*.py")), ids=lambda path: path.stem)
def test_a_module_imports_only_what_is_below_it(path):
    module = module_of(path)
    assert module in ALLOWED, f"mlp/{module}.py has no place in the order of imports yet"
    allowed = ALLOWED[module]
    if allowed is BEFORE:
        names = list(ALLOWED)
        allowed = set(names[: names.index(module)])
    assert own_imports(path) - {module} <= allowed


def test_formulas_do_not_import_each_other():
    for module in FORMULAS:
        assert not own_imports(MLP / f"{module}.py") & FORMULAS


@pytest.mark.parametrize("path", sorted(ADAPTERS.glob("*.py")), ids=lambda path: path.stem)
def test_backends_know_nothing_of_mlp(path):
    assert not own_imports(path)


@pytest.mark.parametrize("module", ["network", "objective", "feed", "step", *sorted(FORMULAS)])
def test_a_backend_is_an_argument(module):
    """Only the model and what stands above it find one by name."""
    used = {name for found, name in imports(MLP / f"{module}.py") if found == "backends"}
    assert used <= {"Array", "Backend", "BackendError"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}.{path.stem}")
def test_libraries_are_imported_where_they_are_needed(path):
    for module, _ in imports(path):
        library = module.removeprefix("array_api_compat.").partition(".")[0]
        if library not in OURS and library not in sys.stdlib_module_names:
            assert module_of(path) in LIBRARIES.get(library, ()), f"{path.name} imports {module}"


@pytest.mark.parametrize(
    "statement",
    ["import mlp", "import mlp; mlp.Model, mlp.train, mlp.read, mlp.save_model, mlp.get_backend"],
)
def test_import_loads_no_library_that_is_not_needed(statement):
    code = f"import sys; {statement}; print(*sorted({{m.partition('.')[0] for m in sys.modules}}))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=MLP.parent
    )
    unneeded = {*LIBRARIES, "pandas", "jax", "dask"} - {"safetensors"}
    assert not set(done.stdout.split()) & unneeded


TABLES = {
    "activations": ACTIVATIONS,
    "losses": LOSSES,
    "initializers": INITIALIZERS,
    "schedules": SCHEDULES,
    "optimizers": OPTIMIZERS,
    "backends": BACKENDS,
}


@pytest.mark.parametrize("table", TABLES)
def test_readme_lists_every_name(table):
    if not README.exists():
        pytest.skip("there is no README.md yet, which lists the names of the tables")
    text = README.read_text(encoding="utf-8")
    assert [name for name in TABLES[table] if f"`{name}`" not in text] == []
