"""The file of a model: what stands in it, and what it says of each layer.

`mlp.Model.save` writes such files, and so do a run and an estimator; `mlp.load` reads them.

    w, statistics                           flat, in the order that the layers declare
    input_shift, input_scale, target_...    the scalings, where there are any
    about                                   network, loss, dtype, columns with their codings,
                                            classes, as JSON
"""

import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from mlp.data.preprocessing import Preprocessing
from mlp.data.scaling import Scaling
from mlp.errors import InputError, shown
from mlp.files import PathLike, checked_path, content_of, read, write
from mlp.formulas.activations import ACTIVATIONS, meant_before
from mlp.formulas.initializers import INITIALIZERS
from mlp.formulas.losses import LOSSES
from mlp.layers import LAYERS, Layer
from mlp.names import spec
from mlp.network.graph import Network

MODEL = "array-mlp model 2"  # the format
BEFORE = "array-mlp model 1"  # when the activation "gelu" was its tanh form
MODEL_FILE = "model.safetensors"  # in the folder of a run
MOST_LAYERS = 10_000  # in a file


@dataclass(frozen=True, eq=False)
class Content:
    """What a model file holds: the arguments of `mlp.Model`, arrays on the host, and ``beside``:
    what its writer keeps there for itself, as JSON can hold it."""

    network: Network
    loss: Any
    reduction: Any
    shared_penalties: bool
    dtype: str
    columns: tuple[str, ...] | None
    classes: Any
    w: np.ndarray
    statistics: np.ndarray | None
    input_scaling: Scaling | None
    target_scaling: Scaling | None
    preprocessing: Preprocessing | None = None
    beside: Any = None

    def write(self, path: PathLike) -> None:
        """InputError for a layer, activation, loss or initializer that is an object of the user's
        own, or if the file cannot be written."""
        about = {
            "inputs": self.network.inputs,
            "layers": [_layer_to_json(layer) for layer in self.network.layers],
            "loss": spec(LOSSES, self.loss, "loss"),
            "reduction": self.reduction,
            "shared_penalties": self.shared_penalties,
            "dtype": self.dtype,
            "columns": self.columns,
            "classes": self.classes,
        }
        if self.preprocessing is not None:
            about["preprocessing"] = self.preprocessing.about()
        if self.beside is not None:
            about["beside"] = self.beside
        tensors = {"w": self.w}
        if self.statistics is not None:
            tensors["statistics"] = self.statistics
        for name, scaling in (("input", self.input_scaling), ("target", self.target_scaling)):
            if scaling is not None:
                tensors |= {f"{name}_{key}": x for key, x in scaling.tensors().items()}
        write(path, MODEL, about, tensors)


def content(path: PathLike) -> Content:
    """What a file holds. Raises InputError if it is no such file, or does not fit together: arrays
    are as long as the network says, and what it says is told before anything is made of it."""
    about, tensors = read(path, MODEL, {BEFORE: _renamed})
    with content_of(path):
        scaling = _scaling(tensors, "input")
        if len(about["layers"]) > MOST_LAYERS:
            raise InputError(
                f"it has {len(about['layers'])} layers, at most {MOST_LAYERS} are read"
            )
        network = Network(about["inputs"], [_layer_from_json(layer) for layer in about["layers"]])
        _check_vector("w", tensors["w"], network.parameters, about["dtype"])
        if network.statistics:
            _check_vector("statistics", tensors["statistics"], network.statistics, about["dtype"])
        return Content(
            network,
            about["loss"],
            about["reduction"],
            about["shared_penalties"],
            about["dtype"],
            None if about["columns"] is None else tuple(about["columns"]),
            about["classes"],
            tensors["w"],
            tensors.get("statistics"),
            scaling,
            _scaling(tensors, "target"),
            _preprocessing(about.get("preprocessing"), scaling),
            about.get("beside"),
        )


def _check_vector(name: str, x: np.ndarray, length: int, dtype: str) -> None:
    """InputError if an array of the file is not what the network makes of it."""
    if x.shape != (length,) or x.dtype.name != dtype:
        raise InputError(
            f"{name} is of {x.dtype} and shape {x.shape}, this network's of {dtype} and ({length},)"
        )
    if not np.isfinite(x).all():
        raise InputError(f"{name} has values that are NaN or infinite")


def load_beside(path: PathLike) -> Any:
    """What `mlp.save_model` was given to keep beside the model; None if there was nothing."""
    return read(path, MODEL, {BEFORE: _renamed})[0].get("beside")


def _renamed(about: Any) -> Any:
    """What a file of the format before says, in the names of now."""
    with suppress(KeyError, TypeError):  # which `content` names
        for layer in about["layers"]:
            if "activation" in layer:
                layer["activation"] = meant_before(layer["activation"])
        parameters = about["beside"]["parameters"]  # of an estimator
        parameters["activation"] = meant_before(parameters["activation"])
    return about


def model_file(path: PathLike) -> Path:
    """The model file of a run's folder; any other path is the file itself."""
    path = checked_path(path)
    if not path.is_dir():
        return path
    if not os.path.lexists(path / MODEL_FILE):
        raise InputError(f"{path} is no folder of a run: it has no {MODEL_FILE}")
    return path / MODEL_FILE


def _scaling(tensors: Mapping[str, np.ndarray], name: str) -> Scaling | None:
    if f"{name}_shift" not in tensors:
        return None
    head = f"{name}_"
    found = {key.removeprefix(head): x for key, x in tensors.items() if key.startswith(head)}
    return Scaling.from_tensors(found)


def _preprocessing(about: Any, scaling: Scaling | None) -> Preprocessing | None:
    return None if about is None else Preprocessing.of_about(about, scaling)


def _layer_to_json(layer: Layer) -> dict[str, Any]:
    """The settings of a layer that is listed; a dense one goes without its kind."""
    kind = next((name for name, cls in LAYERS.items() if cls is type(layer)), None)
    if kind is None:
        raise InputError(
            f"layer {shown(layer)} is of your own and cannot be written to a file (files hold "
            "data, never code); keep the weights, `model.w`, and build the network in your program"
        )
    about = {field.name: getattr(layer, field.name) for field in fields(layer)}  # type: ignore[arg-type]
    about = {name: x.item() if isinstance(x, np.generic) else x for name, x in about.items()}
    for name, table in (
        ("activation", ACTIVATIONS),
        ("gate", ACTIVATIONS),
        ("initializer", INITIALIZERS),
    ):
        if name in about:
            about[name] = spec(table, about[name], name)
    return about if kind == "dense" else {"kind": kind, **about}


def _layer_from_json(about: dict[str, Any]) -> Layer:
    sources = about["sources"]
    about = about | {"sources": None if sources is None else tuple(sources)}
    return LAYERS[about.pop("kind", "dense")](**about)
