"""To and from scikit-learn's own estimators: weights, records, and the solver's state.

scikit-learn's two classes are taken when this module is imported, which is before
`mlp.patch_sklearn` replaces their names.
"""

import copy
import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from sklearn.base import is_classifier
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.neural_network._stochastic_optimizers import AdamOptimizer, SGDOptimizer

from mlp.errors import InputError, shown
from mlp.estimators.arrays import to_host

SKLEARN: dict[str, type] = {"MLPClassifier": MLPClassifier, "MLPRegressor": MLPRegressor}

# What scikit-learn knows of the settings that take more here.
_ACTIVATIONS = {"sigmoid": "logistic"} | {f: f for f in ("identity", "logistic", "tanh", "relu")}
_KNOWN = {
    "solver": ("lbfgs", "sgd", "adam"),
    "learning_rate": ("constant", "invscaling", "adaptive"),
    "loss": ("squared_error", "poisson"),
}


def adopted(cls: type, state: Mapping[str, Any]) -> dict[str, Any]:
    """The state of one of scikit-learn's estimators as the state of ours."""
    state = {k: v for k, v in state.items() if k not in _THEIRS}
    parameters = inspect.signature(cls.__init__).parameters  # type: ignore[misc]
    for name, parameter in parameters.items():
        if name != "self" and not (name == "loss" and "loss" in state):
            state.setdefault(name, parameter.default)
    optimizer = state.pop("_optimizer", None)
    if "loss_curve_" in state:
        state.setdefault("validation_losses_", None)
    if optimizer is not None:
        adam = hasattr(optimizer, "ms")
        moments = [optimizer.ms, optimizer.vs] if adam else [optimizer.velocities]
        state["_solver_state"] = {
            "vectors": [_flat(arrays) for arrays in moments],
            # Adam's attribute holds the rate with its corrections for bias.
            "learning_rate": float(
                optimizer.learning_rate_init if adam else optimizer.learning_rate
            ),
            "step": int(optimizer.t) if adam else 0,
        }
    return state


# Theirs alone: slices for L-BFGS, the weights of the best epoch, which a fit ends with and no other
# begins with, and the version, which only their class checks.
_THEIRS = (
    *("_coef_indptr", "_intercept_indptr", "_best_coefs", "_best_intercepts"),
    "_sklearn_version",
)


def to_sklearn(ours: Any) -> Any:
    """scikit-learn's own estimator with the same weights, records and predictions.

    What it does not know and predictions do not depend on (solvers, schedules, losses, dropout,
    class weights, backend, dtype) is left out, or at scikit-learn's default: it would matter to
    further training only. Raises InputError for activations that it does not have, and for an
    estimator made of a model with scalings.
    """
    if ours.input_scaling_ is not None or ours.target_scaling_ is not None:
        raise InputError(
            "scikit-learn's estimators do not scale, and this one has the input_scaling_ or "
            "target_scaling_ of a model; fit one on scaled data, behind a StandardScaler"
        )
    cls = SKLEARN["MLPClassifier" if is_classifier(ours) else "MLPRegressor"]
    settings = {}
    for name in cls().get_params():
        value = getattr(ours, name)
        if name == "activation":
            value = _their_activation(ours)
        elif name in _KNOWN and not (isinstance(value, str) and value in _KNOWN[name]):
            continue
        settings[name] = value
    theirs = cls(**settings)
    state = {
        name: value
        for name, value in copy.deepcopy(ours.__getstate__()).items()
        if name.endswith("_") and not name.endswith("__")
    }
    if not state:
        return theirs
    state.pop("validation_losses_", None)
    theirs.__dict__ |= state
    for name in ("_label_binarizer", "_no_improvement_count", "_random_state"):
        if hasattr(ours, name):
            setattr(theirs, name, copy.deepcopy(getattr(ours, name)))
    if hasattr(ours, "loss_curve_"):
        theirs._best_coefs, theirs._best_intercepts = theirs.coefs_, theirs.intercepts_
    if ours._solver_state is not None and ours.solver in ("sgd", "adam"):
        theirs._optimizer = _their_optimizer(ours, [*theirs.coefs_, *theirs.intercepts_])
    return theirs


def _their_activation(ours: Any) -> str:
    given = ours.activation
    each = list(given) if isinstance(given, (list, tuple)) else [given]
    names = {_ACTIVATIONS.get(a) if isinstance(a, str) else None for a in each}
    if len(names) > 1 or None in names:
        raise InputError(
            f"scikit-learn's estimators cannot have activation={shown(given)}: they know "
            "'identity', 'logistic', 'tanh' and 'relu', one for all hidden layers"
        )
    return names.pop() or "relu"


def _their_optimizer(ours: Any, parameters: list[np.ndarray]) -> Any:
    state = ours._solver_state
    moments = [_like_parts(to_host(v), ours) for v in state.vectors]
    if ours.solver == "adam":
        optimizer = AdamOptimizer(
            parameters, ours.learning_rate_init, ours.beta_1, ours.beta_2, ours.epsilon
        )
        optimizer.t, optimizer.ms, optimizer.vs = state.step, *moments
        return optimizer
    optimizer = SGDOptimizer(
        parameters,
        ours.learning_rate_init,
        ours.learning_rate if ours.learning_rate in _KNOWN["learning_rate"] else "constant",
        ours.momentum,
        ours.nesterovs_momentum,
        ours.power_t,
    )
    optimizer.learning_rate, optimizer.velocities = state.learning_rate, *moments
    return optimizer


def _flat(arrays: Sequence[Any]) -> np.ndarray:
    return np.concatenate([np.asarray(x).reshape(-1) for x in arrays])


def _like_parts(flat: np.ndarray, ours: Any) -> list[np.ndarray]:
    """A flat vector cut as coefs_ and intercepts_ are."""
    shapes = [tuple(x.shape) for x in (*ours.coefs_, *ours.intercepts_)]
    ends = np.cumsum([int(np.prod(shape)) for shape in shapes])
    cut = np.split(np.array(flat), ends[:-1])
    return [part.reshape(shape) for part, shape in zip(cut, shapes, strict=True)]
