"""The public functions use every odd argument, or answer by InputError: none ends deep inside."""

import inspect
import warnings

import numpy as np
import pytest

import mlp
from backends import BackendError, get_backend
from mlp import Dense, InputError, Model, Network, State
from mlp.training.settings import Options

X = np.random.default_rng(0).normal(size=(12, 2))
T = X[:, :1] * 2.0


def small():
    return Model(Network(2, [Dense(3, "tanh"), Dense(1)]), "mean_squared_error")


ODD = [
    *(None, True, 3, -1, 0, 2.5, float("nan"), float("inf"), 10**400, 2**63, 1j, np.float32(3)),
    *("", "x", "\0", "relu", b"b", (), [], [1], [[]], ["a"], {}, {"name": {}}, {1: 2}, set()),
    *(object(), int, len, lambda: 1, lambda *given: None, range(3), Dense(2), small()),
    *(X, X[:3], np.array(2), np.array(["a"]), np.zeros((2, 2, 2)), np.zeros(0), X.astype(object)),
]

# A call of each that works; one argument after the other is odd.
WHOLE = {
    "Checkpoints": {"folder": "kept"},
    "Column": {"name": "a", "values": np.ones(3)},
    "ColumnPlan": {},
    "Dense": {"units": 3},
    "Dropout": {"rate": 0.1},
    "Model": {"network": small().network, "loss": "mean_squared_error"},
    "Network": {"inputs": 2, "layers": [Dense(3), Dense(1)]},
    "Scaling": {"shift": np.zeros(2), "scale": np.ones(2)},
    "Settings": {},
    "class_labels": {"t": ["a", "b"]},
    "get_backend": {"name": "numpy"},
    "gradient_check": {"model": small(), "X": X, "t": T},
    "load": {"path": "m.safetensors"},
    "load_model": {"path": "m.safetensors"},
    "load_state": {"path": "s.safetensors"},
    "open_rows": {"path": "r.npy"},
    "plan": {"model": small(), "samples": 10},
    "read": {"path": "d.csv", "target": "y"},
    "read_table": {"path": "d.csv"},
    "save_state": {
        "state": State(np.ones(3), {}, 0.1), "path": "o", "backend": get_backend("numpy"),
    },
    "split": {"n": 10, "fraction": 0.3, "seed": 0},
    "train": {"model": small(), "X": X, "t": T, "epochs": 1},
}  # fmt: skip


def arguments(name):
    """The names of a function's arguments, of `train` the settings too."""
    found = inspect.signature(getattr(mlp, name)).parameters.values()
    names = [x.name for x in found if x.kind not in (x.VAR_KEYWORD, x.VAR_POSITIONAL)]
    return [*names, *(Options.__annotations__ if name == "train" else ())]


@pytest.mark.parametrize(
    ("name", "argument"), [(name, argument) for name in WHOLE for argument in arguments(name)]
)
def test_an_odd_argument_is_used_or_answered(name, argument, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    small().save("m.safetensors")
    mlp.save_state(State(np.ones(3), {}, 0.1), "s.safetensors", get_backend("numpy"))
    np.save("r.npy", X)
    (tmp_path / "d.csv").write_text("a,b,y\n1,2,3\n4,5,6\n")
    assert set(WHOLE[name]) <= set(arguments(name))
    for odd in ODD:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            try:
                getattr(mlp, name)(**{**WHOLE[name], argument: odd})
            except (InputError, BackendError):
                continue
            except Exception as error:
                raise AssertionError(f"{name}({argument}={odd!r:.60}): {error!r:.300}") from error


def test_names_may_come_in_whatever_holds_texts(tmp_path):
    (tmp_path / "d.csv").write_text("a,b,y\n1,2,3\n4,5,6\n")
    for names in (["a"], ("a",), np.array(["a"]), {"a": 1}.keys(), iter(["a"]), "a"):
        assert mlp.read(tmp_path / "d.csv", inputs=names, target="y").columns == ("a",)
