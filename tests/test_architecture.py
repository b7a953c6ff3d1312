"""Imports point one way, and `import mlp` brings no library that it does not need."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import backends
import mlp
from backends import BACKENDS
from mlp.formulas.activations import ACTIVATIONS
from mlp.formulas.averages import AVERAGES
from mlp.formulas.initializers import INITIALIZERS
from mlp.formulas.losses import LOSSES
from mlp.formulas.optimizers import OPTIMIZERS
from mlp.formulas.schedules import SCHEDULES

MLP, ADAPTERS = (Path(package.__file__).parent for package in (mlp, backends))
README = MLP.parent / "README.md"

# The rooms, each with its files, from the ground up: a file may import what stands above its row,
# and in its own row what stands left of it. A new file has to find its place here: it fails the
# test until then. "" is mlp/ itself; ARCHITECTURE and README say the same sentence.
OTHER_LAYERS = [
    "activation",
    "add",
    "batch_norm",
    "embedding",
    "numbers",
    "periodic",
    "piecewise_linear",
    "gaussian_noise",
    "layer_norm",
    "scale",
    "ensemble",
    "gated",
    "maxout",
]
HOUSE = [
    ("", ["spellings", "errors", "durations", "seeds", "names", "files", "locks"]),
    ("", ["sealed", "memory", "threads"]),
    (
        "formulas",
        [
            *("target_kinds", "output_units", "special", "activations", "losses", "metrics"),
            *(
                "initializers",
                "schedules",
                "averages",
                "optimizers",
                "searches",
                "clipping",
                "loss_scaling",
            ),
        ],
    ),
    ("layers", ["tape", "layer", "noise", "affine", "dropout", "dense", *OTHER_LAYERS]),
    ("network", ["graph", "backpropagation", "objective"]),
    ("parallel", ["group", "nccl", "mpi", "launch", "cost", "crew"]),
    (
        "data",
        [
            *("finite", "labels", "order", "scaling", "tables", "packed", "columns"),
            *(
                "array_files",
                "text_columns",
                "text_tables",
                "columnar_files",
                "sparse_files",
                "frames",
            ),
            *("table_files", "readers", "row_files", "stored", "preprocessing", "parts"),
            *("stored_tables", "samples", "feed"),
        ],
    ),
    ("", ["readers", "model_file", "model", "check_gradient"]),
    ("parallel", ["shards"]),
    (
        "training",
        [
            *("settings", "state", "checkpoint", "checkpoints", "search"),
            *(
                "mixup",
                "step",
                "setup",
                "memory_plan",
                "ranks",
                "run",
                "initial",
                "pace",
                "loop",
                "range_test",
            ),
        ],
    ),
    (
        "estimators",
        [
            *("arrays", "checks", "exchange", "engine", "callbacks", "models", "kept", "lbfgs"),
            *("stochastic", "documentation", "base", "classifier", "regressor"),
            *("conversion", "preprocessor"),
        ],
    ),
    (
        "tabular",
        [
            *("recipe", "folds", "members", "calibration", "columns", "documentation"),
            *("base", "classifier", "regressor"),
        ],
    ),
    ("", ["accelerate"]),
    (
        "app",
        [
            *("terminal", "plots", "progress", "presets", "config", "prepare"),
            *("run_folder", "endings", "fingerprint", "standing", "runs", "run_list"),
            *("prediction_table", "table_report"),
            *("backend_times", "backend_report", "backend_ranks", "cli"),
        ],
    ),
    ("", ["__init__", "__main__"]),
]
# The one import upwards: `Network.summary` says what a step takes, written where steps are made.
UPWARDS = {"network.graph": {"training.setup"}}
# Formulas do not know of each other, but for those that are made of others.
MADE_OF = {
    "activations": {"output_units", "special"},
    "losses": {"output_units", "activations", "target_kinds"},
    "initializers": {"activations"},  # "auto" asks the activation
}

# Libraries beside NumPy and array-api-compat, and the modules that may import them.
LIBRARIES = {
    "cupy": {"cupy_backend", "cuda_kernel", "parallel.nccl"},
    "cupy_backends": {"cuda_blas"},
    "ml_dtypes": {"base"},
    "torch": {"torch_backend"},
    "array_api_strict": {"strict_backend"},
    "numba": {"numba_kernel", "kernel_cache"},
    "safetensors": {"files"},
    "narwhals": {"data.frames"},
    "mpi4py": {"parallel.mpi"},
    "pyarrow": {"data.packed", "data.columnar_files", "data.stored"},
    "pydantic": {"app.config"},
    "threadpoolctl": {"threads"},
    "scipy": {"estimators", "tabular"},
    "sklearn": {"estimators", "tabular", "accelerate"},
    "joblib": {"tabular.base"},
    "matplotlib": {"app.plots"},
    "rich": {"app.progress", "app.cli"},
    "typer": {"app.cli", "app.terminal"},
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


def place(room, file):
    """The dotted name below mlp of a file of a room."""
    return ".".join(part for part in (room, file) if part and part != "__init__")


PLACES = [place(room, file) for room, files in HOUSE for file in files]
ROOMS = {room for room, _ in HOUSE if room}


def own_imports(path):
    """The files of mlp that a file imports, by dotted name; a room alone is its door."""
    found = set()
    for module, name in imports(path):
        package, _, rest = module.partition(".")
        if package == "mlp":
            inside = place(rest, name or "")
            found.add(inside if inside in PLACES or inside in ROOMS else rest)
    return found


def module_of(path):
    """The dotted name of a file, within its package."""
    package = MLP if MLP in path.parents else ADAPTERS
    parts = path.relative_to(package).with_suffix("").parts
    return place(".".join(parts[:-1]), parts[-1])


FILES = sorted([*MLP.rglob("*.py"), *ADAPTERS.rglob("*.py")])
INSIDE = [path for path in FILES if MLP in path.parents and module_of(path) not in ROOMS]


@pytest.mark.parametrize("path", INSIDE, ids=module_of)
def test_a_file_imports_only_what_is_below_it(path):
    module = module_of(path)
    assert module in PLACES, f"mlp.{module} has no place in the order of imports yet"
    below = set(PLACES[: PLACES.index(module)])
    if "" in own_imports(path):
        assert module.startswith("app.")  # the door, for the version
    rooms = {name.partition(".")[0] for name in below if "." in name}
    complete = {
        room for room in rooms if not {p for p in PLACES if p.startswith(f"{room}.")} - below
    }
    assert own_imports(path) - {""} - UPWARDS.get(module, set()) <= below | complete


@pytest.mark.parametrize("room", sorted(ROOMS))
def test_the_door_of_a_room_opens_into_that_room_alone(room):
    path = MLP / room / "__init__.py"
    assert {name.partition(".")[0] for name in own_imports(path)} <= {room}


def test_formulas_do_not_import_each_other():
    formulas = {
        place("formulas", file): file
        for room, files in HOUSE
        if room == "formulas"
        for file in files
    }
    for module, file in formulas.items():
        allowed = {place("formulas", other) for other in MADE_OF.get(file, ())}
        assert own_imports(MLP / "formulas" / f"{file}.py") & set(formulas) <= allowed, module


@pytest.mark.parametrize("path", sorted(ADAPTERS.glob("*.py")), ids=lambda path: path.stem)
def test_backends_know_nothing_of_mlp(path):
    assert not own_imports(path)


BELOW_MODELS = PLACES[: PLACES.index("model")]


@pytest.mark.parametrize("path", [p for p in INSIDE if module_of(p) in BELOW_MODELS], ids=module_of)
def test_a_backend_is_an_argument(path):
    """Only the model and what stands above it find one by name."""
    used = {name for found, name in imports(path) if found == "backends"}
    assert used <= {"Array", "Backend", "BackendError", "Memory", "PRECISIONS"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}.{path.stem}")
def test_libraries_are_imported_where_they_are_needed(path):
    for module, _ in imports(path):
        library = module.removeprefix("array_api_compat.").partition(".")[0]
        if library not in OURS and library not in sys.stdlib_module_names:
            places = {module_of(path), module_of(path).partition(".")[0]}
            assert places & LIBRARIES.get(library, set()), f"{path.name} imports {module}"


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
    "averages": AVERAGES,
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


@pytest.mark.parametrize("path", INSIDE, ids=module_of)
def test_a_value_in_an_error_is_shown_and_not_written_by_python(path):
    """Its own repr may be an error of another kind: of an integer of 4,300 digits, of a user's
    object; and as long as it likes. `mlp.errors.shown` is neither."""
    for found in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(found, ast.Raise) and "InputError" in ast.dump(found):
            written = [
                ast.unparse(part.value)
                for part in ast.walk(found)
                if isinstance(part, ast.FormattedValue) and part.conversion == ord("r")
            ]
            assert written == [], f"line {found.lineno}: {{shown({written[0]})}}"
