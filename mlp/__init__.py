"""Multi-layer perceptrons whose backpropagation is written once, on NumPy or CuPy by one flag.

>>> import numpy as np
>>> import mlp
>>> rng = np.random.default_rng(0)
>>> X = rng.normal(size=(200, 2))
>>> t = (X[:, 0] * X[:, 1] > 0).astype(int)
>>> net = mlp.Network(2, [mlp.Dense(16, "tanh"), mlp.Dense(2, "softmax")])
>>> model = mlp.Model(net, "cross_entropy", seed=0)        # backend="cupy" for the GPU
>>> result = mlp.train(model, X, t, optimizer="adam", learning_rate=0.02, epochs=100)
>>> result.model.evaluate(X, t)["accuracy"] > 0.97
True
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from backends import BackendError, available, get_backend
    from mlp.accelerate import patch_sklearn, unpatch_sklearn
    from mlp.check_gradient import GradientCheck, gradient_check
    from mlp.data.labels import class_labels
    from mlp.data.order import split
    from mlp.data.preprocessing import ColumnPlan, Preprocessing
    from mlp.data.readers import Dataset, read
    from mlp.data.scaling import Scaling
    from mlp.data.stored import StoredDataset, open_rows
    from mlp.data.table_files import read_table, write_table
    from mlp.data.tables import Column, Table
    from mlp.errors import InputError
    from mlp.estimators import MLPClassifier, MLPRegressor, from_sklearn, to_estimator
    from mlp.layers import (
        Activation,
        Add,
        BatchNorm,
        Dense,
        Dropout,
        Embedding,
        Ensemble,
        Gated,
        GaussianNoise,
        LayerNorm,
        Maxout,
        Periodic,
        PiecewiseLinear,
        RMSNorm,
        Scale,
    )
    from mlp.model import Model, load, load_model, save_model
    from mlp.network.graph import Network
    from mlp.tabular import TabularClassifier, TabularRegressor
    from mlp.training.checkpoint import load_state, save_state
    from mlp.training.checkpoints import Checkpoints
    from mlp.training.loop import train
    from mlp.training.memory_plan import Plan, plan
    from mlp.training.range_test import RateSearch, find_learning_rate
    from mlp.training.run import Result, Run
    from mlp.training.settings import Settings
    from mlp.training.state import State

__version__ = "0.1.0"

__all__ = [
    "Activation",
    "Add",
    "BackendError",
    "BatchNorm",
    "Checkpoints",
    "Column",
    "ColumnPlan",
    "Dataset",
    "Dense",
    "Dropout",
    "Embedding",
    "Ensemble",
    "Gated",
    "GaussianNoise",
    "GradientCheck",
    "InputError",
    "LayerNorm",
    "MLPClassifier",
    "MLPRegressor",
    "Maxout",
    "Model",
    "Network",
    "Periodic",
    "PiecewiseLinear",
    "Plan",
    "Preprocessing",
    "RMSNorm",
    "RateSearch",
    "Result",
    "Run",
    "Scale",
    "Scaling",
    "Settings",
    "State",
    "StoredDataset",
    "Table",
    "TabularClassifier",
    "TabularRegressor",
    "available",
    "class_labels",
    "find_learning_rate",
    "from_sklearn",
    "get_backend",
    "gradient_check",
    "load",
    "load_model",
    "load_state",
    "open_rows",
    "patch_sklearn",
    "plan",
    "read",
    "read_table",
    "save_model",
    "save_state",
    "split",
    "to_estimator",
    "train",
    "unpatch_sklearn",
    "write_table",
]

# Names are imported when first used, so that the command line answers at once (PEP 562).
_HOME = {
    "backends": ("BackendError", "available", "get_backend"),
    "mlp.accelerate": ("patch_sklearn", "unpatch_sklearn"),
    "mlp.check_gradient": ("GradientCheck", "gradient_check"),
    "mlp.training.checkpoint": ("load_state", "save_state"),
    "mlp.training.checkpoints": ("Checkpoints",),
    "mlp.data.labels": ("class_labels",),
    "mlp.data.order": ("split",),
    "mlp.data.scaling": ("Scaling",),
    "mlp.data.stored": ("StoredDataset", "open_rows"),
    "mlp.errors": ("InputError",),
    "mlp.estimators": ("MLPClassifier", "MLPRegressor", "from_sklearn", "to_estimator"),
    "mlp.layers": (
        *("Activation", "Add", "BatchNorm", "Dense", "Dropout"),
        *("Embedding", "Ensemble", "Gated", "GaussianNoise"),
        *("LayerNorm", "Maxout", "Periodic", "PiecewiseLinear", "RMSNorm", "Scale"),
    ),
    "mlp.model": ("Model", "load", "load_model", "save_model"),
    "mlp.network.graph": ("Network",),
    "mlp.training.memory_plan": ("Plan", "plan"),
    "mlp.data.preprocessing": ("ColumnPlan", "Preprocessing"),
    "mlp.data.readers": ("Dataset", "read"),
    "mlp.data.table_files": ("read_table", "write_table"),
    "mlp.data.tables": ("Column", "Table"),
    "mlp.tabular": ("TabularClassifier", "TabularRegressor"),
    "mlp.training.loop": ("train",),
    "mlp.training.range_test": ("RateSearch", "find_learning_rate"),
    "mlp.training.run": ("Result", "Run"),
    "mlp.training.settings": ("Settings",),
    "mlp.training.state": ("State",),
}
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names}
_MODULES = (
    "accelerate",
    "errors",
    "estimators",
    "formulas",
    "layers",
    "parallel",
    "readers",
    "tabular",
    "threads",
)


def __getattr__(name: str) -> Any:
    if name in _MODULE_OF:
        value = getattr(import_module(_MODULE_OF[name]), name)
    elif name in _MODULES:
        value = import_module(f"mlp.{name}")
    else:
        raise AttributeError(f"module 'mlp' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_MODULES})
