"""To and from this library's models and their files.

A file of an estimator is a file of its model, with what the estimator needs besides in the header:
its parameters and records as JSON. So `mlp.load_model` reads it as a model, and `load` makes an
estimator of any model file whose net one can have.

The weights are taken as they are, and so are the scalings of the model: they stay beside the
weights, as `input_scaling_` and `target_scaling_`, and are applied in float64 before X is rounded
to the weights' dtype. Folded into the first and the last layer,

    W' = W / scale        b' = b - (shift / scale) W                                      (1)

they would be the same algebra, but X would be rounded before the shift is taken off: of time
stamps or prices nothing is left in float32.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from sklearn.base import is_classifier
from sklearn.preprocessing import LabelBinarizer
from sklearn.utils.validation import check_is_fitted

from backends import get_backend
from mlp.data.labels import as_labels
from mlp.errors import InputError, is_finite, shown
from mlp.files import MOST, PathLike, content_of
from mlp.formulas.activations import ACTIVATIONS, get_activation, learned
from mlp.formulas.losses import LOSSES, get_loss
from mlp.formulas.optimizers import OPTIMIZERS
from mlp.formulas.schedules import SCHEDULES
from mlp.layers.dense import Dense
from mlp.model import Model, load_model, save_model
from mlp.model_file import load_beside, model_file
from mlp.names import spec
from mlp.network.graph import Network

# scikit-learn's names for what has another name in this library.
ACTIVATION_NAMES = {"logistic": "sigmoid"}
RATE_MODES = ("constant", "invscaling", "adaptive")  # its learning_rate
LOSS_NAMES = {"squared_error": "half_squared_error"}

ELSEWHERE = ("backend", "checkpoint")  # parameters that no file has a say in

LABELS = "biufUO"  # the kinds of dtypes of labels that a file can hold


def _is_number(value: Any) -> bool:
    return isinstance(value, float) or (isinstance(value, int) and is_finite(value))


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63


def _are_numbers(value: Any) -> bool:
    return isinstance(value, list) and all(map(_is_number, value))


def _or_none(fits: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: value is None or fits(value)


# What a fit has noted, and what it can be.
RECORDS: dict[str, Callable[[Any], bool]] = {
    "loss_": _is_number,
    "best_loss_": _or_none(_is_number),
    "loss_curve_": _are_numbers,
    "validation_losses_": _or_none(_are_numbers),
    "validation_scores_": _or_none(_are_numbers),
    "best_validation_score_": _or_none(_is_number),
    "n_iter_": _is_count,
    "t_": _is_count,
    "_no_improvement_count": _is_count,
}


# ------------------------------------------------------------------------------------ files


def save(estimator: Any, path: PathLike) -> None:
    """The fitted estimator as a model file; see `BaseMLP.save`."""
    check_is_fitted(estimator)
    about: dict[str, Any] = {
        "estimator": _kind(is_classifier(estimator)),
        "parameters": _parameters(estimator),
        "records": {
            name: plain(vars(estimator)[name]) for name in RECORDS if name in vars(estimator)
        },
    }
    classes = None
    if is_classifier(estimator):
        values = _plain_classes(estimator.classes_)
        kind = estimator._label_binarizer.y_type_
        about["classes"] = {"dtype": estimator.classes_.dtype.str, "values": values, "kind": kind}
        if not kind.startswith("multilabel"):
            classes = values * 2 if len(values) == 1 else values  # one class, whatever the output
    model = estimator._build(get_backend("numpy"), estimator.alpha)
    model.classes = None if classes is None else as_labels(classes, "classes_")
    names = getattr(estimator, "feature_names_in_", None)
    model.columns = None if names is None else tuple(map(str, names))
    save_model(model, path, about)


def load(cls: Any, path: PathLike, backend: Any = None) -> Any:
    """The estimator of a model file; see `BaseMLP.load`."""
    path = model_file(path)
    model, about = load_model(path, "numpy"), load_beside(path)
    with content_of(path):
        if about is None:
            return from_model(cls, model, backend)
        kind, parameters = about["estimator"], about["parameters"]
        if kind != _kind(is_classifier(cls())):
            raise InputError(f"the file holds an {kind}: {kind}.load reads it")
        estimator = cls(**{name: unplain(value) for name, value in parameters.items()})
        for name in ELSEWHERE:
            if name in parameters:
                raise InputError(f"{name} is not for a file to say")
        estimator._validate_params()
        _take_weights(estimator, model)
        for name in RECORDS:
            if name in about["records"]:
                value = unplain(about["records"][name])
                if not RECORDS[name](value):
                    raise InputError(f"record {name} cannot be {shown(value, 60)}")
                setattr(estimator, name, value)
        if is_classifier(estimator):
            found = about["classes"]
            dtype = np.dtype(found["dtype"])
            if dtype.kind not in LABELS or dtype.itemsize * len(found["values"]) > MOST:
                raise InputError(f"classes cannot be of dtype {dtype}")
            classes = np.array(found["values"], dtype)
            kept = classes.tolist() == found["values"]
            if classes.ndim != 1 or not kept or not np.array_equal(np.unique(classes), classes):
                raise InputError("the classes are not those of a fit: distinct, and in order")
            _take_classes(estimator, classes, found["kind"], model.network.outputs)
        network, loss = estimator._design(estimator.alpha)
        if network.layers != model.network.layers or get_loss(loss) != model.objective.loss:
            raise InputError("the parameters of the estimator are not those of the net")
        return estimator.set_params(backend=backend)


def _kind(classifies: bool) -> str:
    return "MLPClassifier" if classifies else "MLPRegressor"


def _parameters(estimator: Any) -> dict[str, Any]:
    """The parameters that are data. A function, an object of the user's own or a generator has a
    say in training alone and is left out; so are the backend, which `load` chooses, and the folder
    of checkpoints: what is written where is not for a file to say."""
    found = {}
    for name, value in estimator.get_params(deep=False).items():
        if name == "activation":
            each = value if isinstance(value, (list, tuple)) else [value]
            named = [spec(ACTIVATIONS, a, "activation") for a in each]
            value = named if isinstance(value, (list, tuple)) else named[0]
        elif name == "loss":
            value = spec(LOSSES, value, "loss")
        elif name in ("solver", "learning_rate"):
            try:
                value = spec(OPTIMIZERS if name == "solver" else SCHEDULES, value, name)
            except InputError:
                continue
        if name not in ELSEWHERE:
            try:
                found[name] = plain(value)
            except TypeError:
                continue
    return found


def plain(value: Any) -> Any:
    """A value as JSON can hold it, so that `unplain` gives it back; TypeError if it is no data.

    >>> plain((np.int64(3), math.inf, {0: [0.5]}))
    {'tuple': [3, {'float': 'inf'}, {'pairs': [[0, [0.5]]]}]}
    >>> unplain(plain((3, math.inf, {0: [0.5]})))
    (3, inf, {0: [0.5]})
    """
    if isinstance(value, (np.generic, np.ndarray)):
        value = value.tolist()
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else {"float": repr(value)}
    if isinstance(value, list):
        return [plain(item) for item in value]
    if isinstance(value, tuple):
        return {"tuple": [plain(item) for item in value]}
    if isinstance(value, Mapping):
        return {"pairs": [[plain(key), plain(item)] for key, item in value.items()]}
    raise TypeError(f"{shown(value)} is not plain data")


def unplain(value: Any) -> Any:
    """What `plain` was given."""
    if isinstance(value, list):
        return [unplain(item) for item in value]
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind == "float":
        return float(content)
    if kind == "tuple":
        return tuple(unplain(item) for item in content)
    return {unplain(key): unplain(item) for key, item in content}


def _plain_classes(classes: np.ndarray) -> list[Any]:
    """The labels as JSON has them."""
    values = classes.tolist()
    for value in values:
        if classes.dtype.kind not in LABELS or not isinstance(value, (bool, int, float, str)):
            raise InputError(
                f"save: the class {shown(value)} is of dtype {classes.dtype}, which the file "
                "cannot hold; fit with labels that are text or numbers"
            )
    return values


# ----------------------------------------------------------------------------------- models


def classifies(model: Model) -> bool:
    """Whether a model is one of classes or labels, rather than of numbers."""
    return model.classes is not None or model.objective.targets in ("classes", "labels")


def from_model(cls: Any, model: Model, backend: Any = None) -> Any:
    """An estimator that predicts what the model does; InputError for a net that none can have."""
    if model.objective.heads > 1:
        raise InputError(
            f"loss {shown(model.loss)} has several outputs for a target; an estimator predicts "
            "what y is"
        )
    layers = _chain(model.network)
    hidden = layers[:-1]
    settings: dict[str, Any] = {
        "hidden_layer_sizes": tuple(layer.units for layer in hidden),
        "backend": backend,
    }
    if hidden:
        settings["activation"] = _once([_activation(layer.activation) for layer in hidden])
        settings["dropout"] = _once([layer.dropout for layer in hidden])
    penalties = {layer.l2 for layer in layers}
    if len(penalties) == 1 and (model.objective.shared_penalties or penalties == {0.0}):
        settings["alpha"] = penalties.pop()
    loss = _named(LOSSES, model.loss, "loss")
    estimator = cls(**settings)
    if is_classifier(estimator):
        _take_classes(estimator, *_classes_of(model), model.network.outputs)
        if loss not in ("cross_entropy", "binary_cross_entropy"):
            estimator.loss = loss  # else the usual one, which is either
    else:
        estimator.loss = "squared_error" if loss == LOSS_NAMES["squared_error"] else loss
    _take_weights(estimator, model)
    return estimator


def _chain(network: Network) -> list[Dense]:
    """The layers, each dense, with a bias, and fed by the one before."""
    layers = []
    for l, layer in enumerate(network.layers, start=1):
        if not isinstance(layer, Dense):
            fault = f"is a {type(layer).__name__}"
        elif network.sources[l] != (l - 1,):
            fault = f"is fed by {' and '.join(f'layer {k}' for k in network.sources[l])}"
        elif not layer.bias:
            fault = "has no bias"
        elif learned(get_activation(layer.activation), layer.units):
            fault = "has an activation that learns"
        else:
            layers.append(layer)
            continue
        raise InputError(
            f"layer {l} {fault}; an estimator's net is a chain of dense layers with biases"
        )
    return layers


def _once(values: list[Any]) -> Any:
    """One for all where they are all alike."""
    return values[0] if all(value == values[0] for value in values) else values


def _named(table: Mapping[str, Any], thing: Any, kind: str) -> Any:
    try:
        return spec(table, thing, kind)
    except InputError as error:
        raise InputError(
            f"{kind} {shown(thing)} is an object of your own; an estimator is made of a model "
            f"whose {kind} has a name"
        ) from error


def _activation(thing: Any) -> Any:
    """An activation by its name, scikit-learn's where it has one."""
    name = _named(ACTIVATIONS, thing, "activation")
    return "logistic" if name == "sigmoid" else name


def _classes_of(model: Model) -> tuple[np.ndarray, str]:
    """The classes, and what kind of labels they are, in scikit-learn's words."""
    kind, outputs = model.objective.targets, model.network.outputs
    if kind == "labels" and outputs > 1:
        return np.arange(outputs), "multilabel-indicator"
    if not classifies(model):
        raise InputError("the model's outputs are numbers, not classes: MLPRegressor.load reads it")
    classes = np.arange(max(outputs, 2)) if model.classes is None else model.classes
    return classes, "binary" if outputs == 1 else "multiclass"


def _take_classes(estimator: Any, classes: np.ndarray, kind: str, outputs: int) -> None:
    """The labels; binary: one output for two, of which one may be all that there are."""
    fitting = {"binary": (1, 2), "multiclass": (outputs,), "multilabel-indicator": (outputs,)}[kind]
    if len(classes) not in fitting or (kind == "binary") != (outputs == 1):
        raise InputError(f"the model has {outputs} outputs for {len(classes)} classes")
    binarizer = LabelBinarizer()
    binarizer.classes_, binarizer.y_type_, binarizer.sparse_input_ = classes, kind, False
    estimator.classes_, estimator._label_binarizer = classes, binarizer


def _take_weights(estimator: Any, model: Model) -> None:
    """What `fit` leaves, from a model: weights, shapes, scalings, names; its records are empty."""
    network = model.network
    W, b = network.unpack(np.array(model.backend.to_numpy(model.w)))
    estimator._begin_records()
    estimator.coefs_ = [W[l - 1, l] for l in network.numbers()]
    estimator.intercepts_ = [b[l] for l in network.numbers()]
    estimator.n_features_in_ = network.inputs
    estimator.n_layers_, estimator.n_outputs_ = network.depth + 1, network.outputs
    estimator.out_activation_ = _activation(model.objective.unit)
    if model.columns is not None:
        estimator.feature_names_in_ = np.array(model.columns, dtype=object)
    if model.input_scaling is not None:
        estimator.input_scaling_ = model.input_scaling
    if model.target_scaling is not None:
        estimator.target_scaling_ = model.target_scaling
