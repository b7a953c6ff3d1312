"""Estimators of what is none yet: scikit-learn's own, a trained model, a file, a run."""

import copy
import os
from typing import Any

from mlp.errors import InputError, shown
from mlp.estimators.classifier import MLPClassifier
from mlp.estimators.exchange import SKLEARN
from mlp.estimators.models import classifies, from_model
from mlp.estimators.regressor import MLPRegressor
from mlp.files import PathLike
from mlp.model import Model, load_model
from mlp.model_file import load_beside, model_file
from mlp.training.run import Result

CLASSES: dict[str, Any] = {"MLPClassifier": MLPClassifier, "MLPRegressor": MLPRegressor}


def from_sklearn(fitted: Any, **settings: Any) -> Any:
    """This library's estimator for scikit-learn's MLPClassifier or MLPRegressor.

    The same settings, weights and records, and a solver's state to go on with by `partial_fit`.
    settings: of this library, as ``backend="cupy"``.

    >>> from sklearn.neural_network import MLPRegressor
    >>> import numpy as np
    >>> X = np.random.default_rng(0).normal(size=(20, 3))
    >>> theirs = MLPRegressor(max_iter=500, random_state=0).fit(X, X[:, 0])
    >>> bool(np.allclose(from_sklearn(theirs).predict(X), theirs.predict(X)))
    True
    """
    for name, cls in SKLEARN.items():
        if isinstance(fitted, cls):
            ours = CLASSES[name]()
            ours.__setstate__(copy.deepcopy(fitted.__getstate__()))
            return ours.set_params(**settings)
    raise InputError(
        f"from_sklearn takes scikit-learn's MLPClassifier or MLPRegressor, not {shown(fitted)}"
    )


def to_estimator(source: Model | Result | PathLike, backend: Any = None) -> Any:
    """An estimator that predicts what a trained model does, for scikit-learn's tools.

    source: a `Model`, the `Result` of `mlp.train`, a model file, or the folder of a run. backend:
    the parameter; of a model on another one than NumPy it is the model's.

    A model with classes, or whose loss is for classes or labels, becomes an `MLPClassifier`, any
    other an `MLPRegressor`. Weights, activations, dropout, names of columns and scalings come
    along: `input_scaling_` and `target_scaling_` are applied within, so that X and y stay in their
    own units, until another `fit` starts afresh. The settings of the training do not.

    Raises InputError, naming it, for what no estimator can have: a layer that is not `Dense`, has
    no bias or is fed by others than the one before; an activation or a loss that is an object of
    your own.

    >>> import mlp
    >>> import numpy as np
    >>> X = np.random.default_rng(0).normal(size=(40, 2))
    >>> net = mlp.Network(2, [mlp.Dense(4, "tanh"), mlp.Dense(1)])
    >>> result = mlp.train(mlp.Model(net, "mean_squared_error"), X, X[:, 0] * X[:, 1], epochs=2)
    >>> reg = to_estimator(result)
    >>> reg, bool((reg.predict(X) == result.model.predict(X)[:, 0]).all())
    (MLPRegressor(activation='tanh', alpha=0.0, hidden_layer_sizes=(4,),
                 loss='mean_squared_error'), True)
    """
    if isinstance(source, (str, os.PathLike)):
        path = model_file(source)
        about, model = load_beside(path), load_model(path, "numpy")
        kind = str(about.get("estimator")) if isinstance(about, dict) else ""
        return CLASSES.get(kind, _class_for(model)).load(path, backend)
    model = source.model if isinstance(source, Result) else source
    if not isinstance(model, Model):
        raise InputError(
            "to_estimator takes a Model, a Result, a model file or a run's folder, "
            f"not {type(source).__name__}"
        )
    if backend is None and model.backend.name != "numpy":
        backend = model.backend.name
    return from_model(_class_for(model), model, backend)


def _class_for(model: Model) -> Any:
    return MLPClassifier if classifies(model) else MLPRegressor
