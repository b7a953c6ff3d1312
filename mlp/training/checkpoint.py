"""The state of a run on disk, to go on from; see `mlp.files` for what such a file is."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from backends import Array, Backend
from mlp.errors import check_is
from mlp.files import PathLike, content_of, packed, read, write_atomically
from mlp.training.state import COUNTS, State

STATE = "array-mlp state 2"  # the format
BEFORE = "array-mlp state 1"  # when the history stood in the JSON
OPTIONAL = ("best_w", "batch_losses", "loss_scale", "statistics", "best_statistics")
NUMBERS = ("learning_rate", *COUNTS)
LATER = {"seconds": 0.0}  # numbers that files of before do not have


def save_state(state: State, path: PathLike, backend: Backend) -> None:
    """The whole progress of a run; ``backend`` is the one its arrays are on.

    >>> from mlp import Dense, Model, Network, train
    >>> import numpy as np
    >>> import tempfile
    >>> model, X = Model(Network(2, [Dense(1)]), "mean_squared_error"), np.ones((4, 2))
    >>> state = train(model, X, X[:, 0], epochs=2).state
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_state(state, f"{folder}/state.safetensors", model.backend)
    ...     later = load_state(f"{folder}/state.safetensors")
    >>> len(train(model, X, X[:, 0], epochs=5, state=later).history["loss"])
    5
    """
    check_is("save_state: state", state, State)
    check_is("save_state: backend", backend, Backend)
    write_atomically(path, packed_state(on_host(state, backend)))


def on_host(state: State, backend: Backend) -> State:
    """The state with its arrays on the host."""

    def fetched(x: Array | None) -> Any:
        """None for nothing: a net without statistics has none of them."""
        return None if x is None or not x.shape[0] else backend.to_numpy(x)

    rest: dict[str, Any] = {name: fetched(getattr(state, name)) for name in OPTIONAL}
    vectors: dict[str, Any] = {name: backend.to_numpy(x) for name, x in state.vectors.items()}
    w: Any = backend.to_numpy(state.w)
    return replace(state, w=w, vectors=vectors, **rest)


def is_finite(state: State) -> bool:
    """Whether the weights and vectors of a state on the host are finite: it can be gone on from."""
    return all(np.isfinite(np.asarray(x)).all() for x in (state.w, *state.vectors.values()))


def packed_state(state: State, beside: Mapping[str, Any] | None = None) -> bytes:
    """What `save_state` writes, of a state on the host; ``beside`` is kept with it."""
    about: dict[str, Any] = {name: int(getattr(state, name)) for name in COUNTS}  # NumPy's too
    about |= {name: float(getattr(state, name)) for name in ("learning_rate", *LATER)}
    about["best_loss"] = repr(float(state.best_loss))  # JSON has no infinity
    about["history"] = list(state.history)
    if beside is not None:
        about["beside"] = dict(beside)
    tensors: dict[str, Any] = {"w": state.w}
    tensors |= {f"vector_{name}": x for name, x in state.vectors.items()}
    tensors |= {f"history_{name}": np.asarray(x, np.float64) for name, x in state.history.items()}
    rest = {name: getattr(state, name) for name in OPTIONAL}
    tensors |= {name: x for name, x in rest.items() if x is not None}
    return packed(STATE, about, tensors)


def load_state(path: PathLike) -> State:
    """The state of a file, on the host: `train(..., state=...)` takes it to the model's backend.

    Raises InputError if it is no such file, or its parts do not fit together.
    """
    return load_with(path)[0]


def load_with(path: PathLike) -> tuple[State, dict[str, Any]]:
    """The state of a file, and what is kept beside it."""
    about, tensors = read(path, STATE, {BEFORE: dict})
    with content_of(path):
        vectors: dict[str, Array] = {
            name.removeprefix("vector_"): x
            for name, x in tensors.items()
            if name.startswith("vector_")
        }
        columns = about["history"]
        if isinstance(columns, list):
            columns = {name: tensors[f"history_{name}"].tolist() for name in columns}
        history = {name: [float(x) for x in column] for name, column in columns.items()}
        if "epoch" in history:
            history["epoch"] = [int(x) for x in history["epoch"]]
        rest: dict[str, Any] = {name: tensors.get(name) for name in OPTIONAL}
        rest |= {name: about[name] for name in NUMBERS}
        rest |= {name: about.get(name, usual) for name, usual in LATER.items()}
        best_loss = float(about["best_loss"])
        state = State(tensors["w"], vectors, history=history, best_loss=best_loss, **rest)
        state.check()
        return state, dict(about.get("beside", {}))
