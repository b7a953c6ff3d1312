"""The public functions use every odd argument, or answer by InputError: none ends deep inside."""

import copy
import inspect
import os
import traceback
import warnings
from functools import lru_cache, partial
from operator import attrgetter

import numpy as np
import pytest

import mlp
from backends import BackendError, get_backend
from mlp import Column, Dense, InputError, Model, Network, State, Table, train
from mlp.errors import shown
from mlp.training.settings import Options

X = np.random.default_rng(0).normal(size=(12, 2))
T = X[:, :1] * 2.0


def small():
    return Model(Network(2, [Dense(3, "tanh"), Dense(1)]), "mean_squared_error")


ODD = [
    *(None, True, 3, -1, 0, 2.5, float("nan"), float("inf"), 10**400, 2**63, 1j, np.float32(3)),
    *("", "x", "\0", "relu", b"b", (), [], [1], [[]], ["a"], {}, {"name": {}}, {1: 2}, set()),
    *(object(), int, len, lambda: 1, lambda *given: None, range(3), Dense(2), small()),
    *(10**5000, -(10**5000), [10**5000], {"a": 10**5000}, {10**5000: 1}, (1, 10**5000)),
    *(X, X[:3], np.array(2), np.array(["a"]), np.zeros((2, 2, 2)), np.zeros(0), X.astype(object)),
]

# What no one calls with arguments of his own, and why.
NO_DOORS = {
    "BackendError": "an error",
    "InputError": "an error",
    "GradientCheck": "what gradient_check gives",
    "Plan": "what plan gives",
    "RateSearch": "what find_learning_rate gives",
    "Result": "what train gives",
    "Run": "what train gives its callbacks",
    "StoredDataset": "what open_rows gives",
    "patch_sklearn": "takes no argument",
    "unpatch_sklearn": "takes no argument",
}
NUMPY = get_backend("numpy")
KEPT = {"t": Column("t", T[:, 0]), "a": Column("a", X[:, 0])}
SHORT = {"hidden_layer_sizes": (3,), "max_iter": 2, "tol": 9.0, "n_iter_no_change": 1}
TABULAR = {"hidden_layer_sizes": (3,), "n_members": 2, "epochs": 2, "batch_size": 6}
C = np.array(["n", "y"])[(T[:, 0] > 0).astype(int)]


def fitted(kind, **settings):
    """An estimator of these settings that has learned."""
    short = TABULAR if "Tabular" in kind else SHORT
    return getattr(mlp, kind)(**{**short, **settings}).fit(X, C if "Class" in kind else T[:, 0])


def layer(kind):
    """Such a layer in a net whose answers are asked for."""

    def use(**settings):
        made = getattr(mlp, kind)(**settings)
        layers = [made, Dense(1)] if kind != "Add" else [Dense(2), made, Dense(1)]
        return Model(Network(2, layers), "mean_squared_error").predict(X)

    return use


def learned(name, kind):
    """The method of an estimator that has learned."""
    return lambda **given: getattr(copy.deepcopy(LEARNED[kind]()), name)(**given)


def method(name):
    """The method of a model."""
    return lambda **given: getattr(small(), name)(**given)


LEARNED = {
    kind: lru_cache(maxsize=None)(partial(fitted, kind))
    for kind in ("MLPClassifier", "MLPRegressor", "TabularClassifier", "TabularRegressor")
}

# A call of each that works; one argument after the other is odd.
WHOLE = {
    **{name: {} for name in mlp.layers.__all__ if name in mlp.__all__},
    **{name: {"units": 3} for name in ("Dense", "Ensemble", "Gated", "Maxout")},
    "Embedding": {"columns": (0,), "values": (2,)},
    "Periodic": {"columns": (0, 1)},
    "PiecewiseLinear": {"columns": (0,), "edges": ((0.0, 0.5, 1.0),)},
    "Checkpoints": {"folder": "kept"},
    "Column": {"name": "a", "values": np.ones(3)},
    "ColumnPlan": {},
    "Dataset": {"X": X, "t": T, "columns": ("a", "b"), "source": "mine"},
    "Model": {"network": small().network, "loss": "mean_squared_error"},
    "Network": {"inputs": 2, "layers": [Dense(3), Dense(1)]},
    "Preprocessing": {"codes": ()},
    "Scaling": {"shift": np.zeros(2), "scale": np.ones(2)},
    "Settings": {},
    "State": {"w": np.ones(13), "vectors": {}, "learning_rate": 0.1},
    "Table": {"columns": KEPT},
    "available": {},
    "class_labels": {"t": ["a", "b"]},
    "find_learning_rate": {"model": small(), "X": X, "t": T, "steps": 20, "batch_size": 4},
    "get_backend": {"name": "numpy"},
    "gradient_check": {"model": small(), "X": X, "t": T},
    "load": {"path": "m.safetensors"},
    "load_model": {"path": "m.safetensors"},
    "load_state": {"path": "s.safetensors"},
    "open_rows": {"path": "r.npy"},
    "plan": {"model": small(), "samples": 10},
    "read": {"path": "d.csv", "target": "y"},
    "read_table": {"path": "d.csv"},
    "save_model": {"model": small(), "path": "o"},
    "save_state": {"state": State(np.ones(3), {}, 0.1), "path": "o", "backend": NUMPY},
    "split": {"n": 10, "fraction": 0.3, "seed": 0},
    "to_estimator": {"source": small()},
    "train": {"model": small(), "X": X, "t": T, "epochs": 1},
    "write_table": {"table": Table(KEPT), "path": "o.csv"},
    "Model.classify": {"X": X},
    "Model.evaluate": {"X": X, "t": T},
    "Model.predict": {"X": X},
    "Model.save": {"path": "o"},
    "Preprocessing.fit": {"table": X},
    "Scaling.fit": {"X": X, "names": ["standard", "range"]},
    "Scaling.standard": {"X": X},
    "Scaling.unit_range": {"X": X},
    "Table.of_array": {"X": X, "names": ["a", "b"]},
}  # fmt: skip
METHODS = {
    "MLPClassifier": {
        "fit": {"X": X, "y": C}, "partial_fit": {"X": X, "y": C, "classes": ["n", "y"]},
        "predict": {"X": X}, "predict_proba": {"X": X}, "score": {"X": X, "y": C},
        "activations": {"X": X}, "save": {"path": "o"}, "load": {"path": "c.safetensors"},
    },
    "MLPRegressor": {
        "fit": {"X": X, "y": T}, "partial_fit": {"X": X, "y": T[:, 0]},
        "predict": {"X": X}, "score": {"X": X, "y": T}, "load": {"path": "c.safetensors"},
    },
    "TabularClassifier": {
        "fit": {"X": X, "y": C}, "predict": {"X": X}, "predict_proba": {"X": X},
        "score": {"X": X, "y": C}, "explain": {"X": X},
    },
    "TabularRegressor": {
        "fit": {"X": X, "y": T[:, 0]}, "predict": {"X": X}, "score": {"X": X, "y": T[:, 0]},
        "explain": {"X": X}, "predict_interval": {"X": X}, "predict_quantiles": {"X": X},
    },
}  # fmt: skip
OF_ALL = {f"{kind}.{name}": x for kind, found in METHODS.items() for name, x in found.items()}
# What is called in place of the name alone: what is made of the arguments is used too.
CALLS = {
    **{name: layer(name) for name in WHOLE if name in mlp.layers.__all__},
    "Dataset": lambda **given: train(small(), mlp.Dataset(**given), epochs=1),
    "State": lambda **given: train(small(), X, T, epochs=1, state=State(**given)),
    "Table": lambda **given: mlp.write_table(Table(**given), "o.csv"),
    "Preprocessing": lambda **given: mlp.Preprocessing(**given).apply(X),
    "from_sklearn": lambda fitted: mlp.from_sklearn(fitted),
    **{kind: partial(fitted, kind) for kind in METHODS},
    **{f"{kind}.{name}": learned(name, kind) for kind in METHODS for name in METHODS[kind]},
    **{f"Model.{name}": method(name) for name in ("classify", "evaluate", "predict", "save")},
}
DOORS = {**WHOLE, **{kind: {} for kind in METHODS}, **OF_ALL, "from_sklearn": {"fitted": None}}


def named(name):
    """What a dotted name of mlp stands for."""
    return attrgetter(name)(mlp)


def arguments(name):
    """The names of a function's arguments, of `train` the settings too."""
    found = inspect.signature(named(name)).parameters.values()
    names = [x.name for x in found if x.kind not in (x.VAR_KEYWORD, x.VAR_POSITIONAL)]
    return [
        *(argument for argument in names if argument != "self"),
        *(Options.__annotations__ if name in ("train", "find_learning_rate") else ()),
    ]


def test_every_public_name_is_walked_or_is_no_door():
    walked = {name.partition(".")[0] for name in DOORS}
    assert walked.isdisjoint(NO_DOORS)
    assert walked | set(NO_DOORS) == set(mlp.__all__)


def is_said(error):
    """Whether an error is an answer: one of ours; or, of an estimator, one of scikit-learn's checks
    or in its words (their contract), and not one of what was done with the argument."""
    if isinstance(error, (InputError, BackendError)):
        return True
    frames = traceback.extract_tb(error.__traceback__)
    checked = any(f"sklearn{os.sep}utils" in frame.filename for frame in frames)
    place, line = frames[-1].filename, str(frames[-1].line)
    raised = ("estimators" in place or "sklearn" in place) and line.startswith("raise ")
    written = "int_max_str_digits" not in str(error)
    return isinstance(error, (ValueError, TypeError)) and (checked or raised) and written


LONG = {"Dataset", "State", "Table", "find_learning_rate", *METHODS, *OF_ALL}  # train each time


@pytest.mark.parametrize(
    ("name", "argument"),
    [
        pytest.param(name, argument, marks=[pytest.mark.thorough] * (name in LONG))
        for name in DOORS
        for argument in arguments(name)
    ],
)
def test_an_odd_argument_is_used_or_answered(name, argument, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    small().save("m.safetensors")
    mlp.save_state(State(np.ones(3), {}, 0.1), "s.safetensors", NUMPY)
    np.save("r.npy", X)
    (tmp_path / "d.csv").write_text("a,b,y\n1,2,3\n4,5,6\n")
    assert set(DOORS[name]) <= set(arguments(name))
    if ".load" in name:
        LEARNED[name.partition(".")[0]]().save("c.safetensors")
    call = CALLS.get(name, named(name))
    for odd in ODD:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            try:
                call(**{**DOORS[name], argument: odd})
            except Exception as error:
                if not is_said(error):
                    said = f"{name}({argument}={shown(odd, 60)}): {error!r:.300}"
                    raise AssertionError(said) from error


def test_names_may_come_in_whatever_holds_texts(tmp_path):
    (tmp_path / "d.csv").write_text("a,b,y\n1,2,3\n4,5,6\n")
    for names in (["a"], ("a",), np.array(["a"]), {"a": 1}.keys(), iter(["a"]), "a"):
        assert mlp.read(tmp_path / "d.csv", inputs=names, target="y").columns == ("a",)
