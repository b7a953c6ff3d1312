"""The memory plan of a training: set up on a device that only counts (`mlp.memory`).

>>> from mlp.model import Dense, Model, Network
>>> model = Model(Network(784, [Dense(512, "relu"), Dense(10, "softmax")]), "cross_entropy")
>>> found = plan(model, 60_000, batch_size=256, data_dtype="uint8", patience=True)
>>> {part: megabytes(size) for part, size in found.parts.items()}
{'weights': '5.3 MB', 'optimizer': '3.3 MB', 'data': '481.9 kB', 'step': '3.5 MB'}
"""

import copy
from collections.abc import Mapping
from typing import Any

import numpy as np

from backends import Array
from mlp.errors import InputError, check_whole
from mlp.feed import Feed, slices
from mlp.memory import Count, Plan, megabytes, shaped
from mlp.model import Evaluator, Model
from mlp.optimizers import OPTIMIZERS, Optimizer
from mlp.step import Recorded, Step
from mlp.tables import make

__all__ = ["Plan", "megabytes", "plan", "plan_for"]

HeldOut = tuple[Array, np.ndarray, np.ndarray | None]  # X, t, s


def plan(
    model: Model,
    samples: int,
    *,
    batch_size: int | None = 32,
    optimizer: str | Mapping[str, Any] | Optimizer = "adam",
    validation: int = 0,
    patience: bool = False,
    target_loss: bool = False,
    shuffle: bool = True,
    sample_weight: bool = False,
    data_dtype: str = "float64",
    cuda_graphs: bool = False,
) -> Plan:
    """What `mlp.train` would ask of the device for so many samples that are on the host.

    Settings as in `mlp.training.Settings`; validation: rows, beside the samples; data_dtype: of X.
    Nothing is allocated, nothing is refused for its size: see `Plan.fits`, `Plan.check`,
    `str(plan)`.
    """
    check_whole("samples", samples, 1)
    check_whole("validation", validation, 0)
    if batch_size is not None:
        check_whole("batch_size", batch_size, 1)
    try:
        numbers = np.dtype(data_dtype).kind in "biuf"
    except TypeError:  # no dtype at all
        numbers = False
    if not numbers:
        raise InputError(f"data_dtype must be a dtype of numbers, as 'uint8', not {data_dtype!r}")

    def rows(n: int) -> tuple[Array, np.ndarray, np.ndarray | None]:
        classes = model.objective.targets == "classes"
        t = shaped((n,), "int64") if classes else shaped((n, model.network.outputs), "float64")
        s = shaped((n,), "float64") if sample_weight else None
        return shaped((n, model.network.inputs), data_dtype), t, s

    held_out = (*rows(validation)[:2], None) if validation else None
    return plan_for(
        model, *rows(samples), held_out, batch_size=batch_size,
        optimizer=make(OPTIMIZERS, optimizer, "optimizer"), patience=patience,
        target_loss=target_loss, shuffle=shuffle, cuda_graphs=cuda_graphs,
    )  # fmt: skip


def plan_for(
    model: Model,
    X: Array,
    t: np.ndarray,
    s: np.ndarray | None,
    held_out: HeldOut | None,
    *,
    batch_size: int | None,
    optimizer: Optimizer,
    patience: bool,
    target_loss: bool,
    shuffle: bool,
    cuda_graphs: bool,
) -> Plan:
    """The plan for these rows. Data that the backend would keep on the device, but that leave no
    room for the rest there, are streamed."""
    memory, device = model.backend.memory(), model.backend.device_name()

    def at(size: int) -> Plan:
        found = with_data(size, None)
        if not found.fits and isinstance(X, np.ndarray) and not found.streamed[0]:
            streamed = with_data(size, True)
            found = streamed if streamed.fits else found
        return found

    def with_data(size: int, streamed: bool | None) -> Plan:
        count = Count(model.backend)
        counted = copy.copy(model)
        counted.backend = count
        arguments = count, model.dtype
        with count.under("weights"):
            counted._w = count.empty(model.w.shape, model.dtype)
            count.empty(model.w.shape, model.dtype)  # the last finite ones
            if patience:
                count.empty(model.w.shape, model.dtype)  # the best ones
            count.empty(model.w.shape, "bool")  # whether they are finite
        with count.under("optimizer"):
            vectors = [count.empty(model.w.shape, model.dtype) for _ in optimizer.state]
        n, size = X.shape[0], min(size, X.shape[0])
        sizes = {size, n % size or size}
        with count.under("data"):
            feed = Feed(*arguments, X, t, s, model.input_scaling, streamed)
            if shuffle and size < n and not cuda_graphs:  # recorded steps have it in a table
                feed.rows(shaped((n,), "int64"))
            feed.make_room(max(size, min(model._chunk(), n) if target_loss else 0))
            count.empty((-(-n // size), 2), model.dtype)  # the losses of the batches
        with count.under("step"):
            mixed = model.precision == "mixed"
            scale = count.empty((2,), model.dtype) if mixed else None
            step = Step(counted, feed, sizes, optimizer, vectors, scale)
            if cuda_graphs:
                for tape in Recorded(step, feed, slices(n, size)).tapes.values():
                    count.record(tape.run)
        if target_loss:
            with count.under("evaluation"):
                Evaluator(counted, feed, t, s)
        watched = None
        if held_out is not None:
            with count.under("validation"):
                watched = Feed(*arguments, *held_out, model.input_scaling, streamed)
                Evaluator(counted, watched, *held_out[1:])
        places = feed.stream is not None, watched is not None and watched.stream is not None
        parts = {name: found for name, found in count.bytes.items() if found}
        return Plan(parts, size, n, places, device, memory, at)

    return at(batch_size or X.shape[0])
