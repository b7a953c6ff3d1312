"""Models and states on disk: tensors by safetensors, everything else as JSON in its header.

Files are data, never code: nothing is pickled, and reading a file runs nothing. A file is written
beside its place and then moved there, so that a full disk or a crash leaves the old file or none.

>>> import tempfile, pathlib
>>> from mlp.layers.dense import Dense
>>> from mlp.model import Model
>>> from mlp.network.graph import Network
>>> model = Model(Network(2, [Dense(3, "tanh"), Dense(1)]), "mean_squared_error")
>>> with tempfile.TemporaryDirectory() as folder:
...     path = pathlib.Path(folder) / "model.safetensors"
...     save_model(model, path)
...     bool((load_model(path).w == model.w).all())
True
"""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from backends import Array, Backend
from mlp.data.scaling import Scaling
from mlp.errors import InputError
from mlp.formulas.activations import ACTIVATIONS
from mlp.formulas.initializers import INITIALIZERS
from mlp.formulas.losses import LOSSES
from mlp.layers import LAYERS, Layer
from mlp.model import Model
from mlp.names import spec
from mlp.network.graph import Network
from mlp.training.state import State

PathLike = str | os.PathLike[str]

MODEL, STATE = "array-mlp model 1", "array-mlp state 1"  # formats
MODEL_FILE = "model.safetensors"  # in the folder of a run


# --------------------------------------------------------------------------------------- models


def save_model(model: Model, path: PathLike, beside: Any = None) -> None:
    """Network, loss, weights, scaling and labels into one file.

    beside: what JSON can hold, kept in the same file for `load_beside`; a model does without it.
    Raises InputError for an activation, loss or initializer that is an object of the user's own,
    or if the file cannot be written.
    """
    about = {
        "inputs": model.network.inputs,
        "layers": [_layer_to_json(layer) for layer in model.network.layers],
        "loss": spec(LOSSES, model.loss, "loss"),
        "reduction": model.objective.reduction,
        "shared_penalties": model.objective.shared_penalties,
        "dtype": model.dtype,
        "columns": model.columns,
        "classes": None if model.classes is None else model.classes.tolist(),
    }
    if beside is not None:
        about["beside"] = beside
    tensors = {"w": model.backend.to_numpy(model.w)}
    if model.network.statistics:
        tensors["statistics"] = model.backend.to_numpy(model.statistics)
    for name, scaling in (("input", model.input_scaling), ("target", model.target_scaling)):
        if scaling is not None:
            tensors[f"{name}_shift"], tensors[f"{name}_scale"] = scaling.shift, scaling.scale
    _write(path, MODEL, about, tensors)


def load_model(path: PathLike, backend: str | Backend | None = None) -> Model:
    """The model of a file, on this backend. Raises InputError if it is no such file."""
    about, tensors = _read(path, MODEL)
    with content_of(path):
        network = Network(about["inputs"], [_layer_from_json(layer) for layer in about["layers"]])
        return Model(
            network,
            about["loss"],
            reduction=about["reduction"],
            shared_penalties=about["shared_penalties"],
            w=tensors["w"],
            statistics=tensors.get("statistics"),
            backend=backend,
            dtype=about["dtype"],
            classes=about["classes"],
            columns=None if about["columns"] is None else tuple(about["columns"]),
            input_scaling=_scaling(tensors, "input"),
            target_scaling=_scaling(tensors, "target"),
        )


def model_file(path: PathLike) -> Path:
    """The model file of a run's folder; any other path is the file itself."""
    return Path(path) / MODEL_FILE if os.path.isdir(path) else Path(path)


def load(path: PathLike, backend: str | Backend | None = None) -> Model:
    """The trained model of a run's folder, or of a model file, on this backend.

    A run of the command line, `Model.save` and an estimator's `save` write such files. backend: as
    for `Model`, whatever the run was trained on. Raises InputError if there is no such file.

    >>> from mlp import Dense, Network
    >>> import tempfile
    >>> model = Model(Network(2, [Dense(1)]), "mean_squared_error")
    >>> with tempfile.TemporaryDirectory() as run:
    ...     save_model(model, f"{run}/model.safetensors")
    ...     bool((load(run).w == model.w).all())
    True
    """
    return load_model(model_file(path), backend)


def load_beside(path: PathLike) -> Any:
    """What `save_model` was given to keep beside the model; None if there was nothing."""
    return _read(path, MODEL)[0].get("beside")


def _scaling(tensors: Mapping[str, np.ndarray], name: str) -> Scaling | None:
    if f"{name}_shift" not in tensors:
        return None
    return Scaling(tensors[f"{name}_shift"], tensors[f"{name}_scale"])


def _layer_to_json(layer: Layer) -> dict[str, Any]:
    """The settings of a layer that is listed; a dense one goes without its kind."""
    kind = next((name for name, cls in LAYERS.items() if cls is type(layer)), None)
    if kind is None:
        raise InputError(
            f"layer {layer!r} is of your own and cannot be written to a file (files hold data, "
            "never code); keep the weights, `model.w`, and build the network in your program"
        )
    about = {field.name: getattr(layer, field.name) for field in fields(layer)}  # type: ignore[arg-type]
    about = {name: x.item() if isinstance(x, np.generic) else x for name, x in about.items()}
    for name, table in (("activation", ACTIVATIONS), ("initializer", INITIALIZERS)):
        if name in about:
            about[name] = spec(table, about[name], name)
    return about if kind == "dense" else {"kind": kind, **about}


def _layer_from_json(about: dict[str, Any]) -> Layer:
    sources = about["sources"]
    about = about | {"sources": None if sources is None else tuple(sources)}
    return LAYERS[about.pop("kind", "dense")](**about)


# --------------------------------------------------------------------------------------- states

OPTIONAL = ("best_w", "batch_losses", "loss_scale", "statistics", "best_statistics")
COUNTS = ("learning_rate", "step", "epoch", "batch", "best_epoch", "waited")


def save_state(state: State, path: PathLike, backend: Backend) -> None:
    """The whole progress of a run; ``backend`` is the one its arrays are on.

    >>> from mlp import Dense, Network, train
    >>> import tempfile
    >>> model, X = Model(Network(2, [Dense(1)]), "mean_squared_error"), np.ones((4, 2))
    >>> state = train(model, X, X[:, 0], epochs=2).state
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_state(state, f"{folder}/state.safetensors", model.backend)
    ...     later = load_state(f"{folder}/state.safetensors")
    >>> len(train(model, X, X[:, 0], epochs=5, state=later).history["loss"])
    5
    """
    about = {name: getattr(state, name) for name in COUNTS}
    about["best_loss"] = repr(state.best_loss)  # JSON has no infinity
    about["history"] = {
        name: [repr(float(x)) for x in values] for name, values in state.history.items()
    }
    tensors = {"w": backend.to_numpy(state.w)}
    tensors |= {f"vector_{name}": backend.to_numpy(x) for name, x in state.vectors.items()}
    for name in OPTIONAL:
        x = getattr(state, name)
        if x is not None and x.shape[0]:  # a net without statistics has none of them
            tensors[name] = backend.to_numpy(x)
    _write(path, STATE, about, tensors)


def load_state(path: PathLike) -> State:
    """The state of a file, on the host: `train(..., state=...)` takes it to the model's backend."""
    about, tensors = _read(path, STATE)
    with content_of(path):
        vectors: dict[str, Array] = {
            name.removeprefix("vector_"): x
            for name, x in tensors.items()
            if name.startswith("vector_")
        }
        history = {name: [float(x) for x in column] for name, column in about["history"].items()}
        if "epoch" in history:
            history["epoch"] = [int(x) for x in history["epoch"]]
        rest: dict[str, Any] = {name: tensors.get(name) for name in OPTIONAL}
        rest |= {name: about[name] for name in COUNTS}
        best_loss = float(about["best_loss"])
        return State(tensors["w"], vectors, history=history, best_loss=best_loss, **rest)


# ---------------------------------------------------------------------------------------- files


def _write(
    path: PathLike, kind: str, about: dict[str, Any], tensors: Mapping[str, np.ndarray]
) -> None:
    from safetensors.numpy import save

    flat = {name: np.ascontiguousarray(x) for name, x in tensors.items()}
    data = save(flat, metadata={"format": kind, "about": json.dumps(about)})
    write_atomically(path, data)


def write_atomically(path: PathLike, data: bytes) -> None:
    """All of it or nothing: InputError if the file cannot be written, the old one untouched."""
    path = Path(path)
    partial = path.with_name(path.name + ".partial")
    try:
        with open(partial, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except OSError as error:
        with suppress(OSError):  # it may be the folder that is not there
            partial.unlink()
        raise InputError(f"{path} cannot be written: {error.strerror or error}") from error


def _read(path: PathLike, kind: str) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(os.fspath(path), framework="numpy") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != kind:
                raise InputError(
                    f"{path} is {metadata.get('format', 'no file of ours')}, not {kind}"
                )
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            return json.loads(metadata["about"]), tensors
    except FileNotFoundError as error:
        raise InputError(f"{path} is not there") from error
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path} is damaged or no safetensors file ({error})") from error


@contextmanager
def content_of(path: PathLike) -> Iterator[None]:
    """A header that does not fit what it is read for: one InputError that names the file."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(
            f"{path} is damaged or of another version of the library ({error!r})"
        ) from error
