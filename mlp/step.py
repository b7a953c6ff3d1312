"""One training step, built once: gather a batch, gradient, update (derivation 003, Algorithm 1).

Names, shapes and kernels are settled here; a running step is calls on fixed buffers and reads
nothing back from the device. A shorter last batch runs on views of the same buffers.

A step may also be recorded once and replayed (`Recorded`), where the backend can: then the device
itself looks up which batch it is, in tables that are sent once an epoch.
"""

import math
import warnings
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import numpy as np

from backends import Array, BackendError
from mlp.feed import Feed, Rows
from mlp.mixed import guarded, judge
from mlp.model import Model, fill_masks
from mlp.network import Arena
from mlp.optimizers import Optimizer


class Step:
    """The steps of a model on a data set, for batches of the given sizes.

    The model's w is updated in place, and so are the optimizer's state vectors, one an entry of
    ``optimizer.state``, and with mixed precision ``loss_scale``, (2,): the scale and the good steps
    (`mlp.mixed`). ``g`` is the gradient of the last step.
    """

    def __init__(
        self,
        model: Model,
        feed: Feed,
        sizes: Iterable[int],
        optimizer: Optimizer,
        vectors: Sequence[Array],
        loss_scale: Array | None = None,
    ):
        self.model, self.optimizer, self.backend = model, optimizer, model.backend
        self.feed, self.vectors = feed, vectors
        backend, network, weighted = model.backend, model.network, feed.weighted
        sizes = sorted(set(sizes), reverse=True)
        self.g = backend.full((network.parameters,), 0.0, model.dtype)
        arena = Arena(backend, model.precision, sizes[0])
        scale = None if loss_scale is None else loss_scale[:1]
        self.evaluations, self.fill = {}, {}
        for n in sizes:
            self.evaluations[n] = model.objective.gradient(
                backend, model.w, self.g, arena, n, weighted, scale
            )
            self.fill[n] = feed.bind(self.evaluations[n])

        self.guards: list[Callable[[], None]] = []
        self.fine: list[Array] = []
        if loss_scale is not None:
            self._guard(loss_scale)
        self.parts = [(slice(0, network.parameters), False)]
        if getattr(optimizer, "spares_biases", False):
            self.parts = [
                (slice(0, network.weights), False),
                (slice(network.weights, network.parameters), True),
            ]
        self.parts = [(part, bias) for part, bias in self.parts if part.stop > part.start]
        self.updates = [(self.bind_update(part), bias) for part, bias in self.parts]

    def _guard(self, loss_scale: Array) -> None:
        """With mixed precision: whether the gradient is finite, and the next loss scale."""
        backend, dtype = self.backend, self.model.dtype
        total, fine = backend.empty((1,), dtype), backend.empty((1,), dtype)
        self.guards.append(backend.total(self.g, total))
        kernel = backend.fuse(judge, into=("fine", "scale", "good"))
        self.guards.append(kernel.bind(fine, loss_scale[:1], loss_scale[1:], total))
        self.fine = [fine]

    def bind_update(self, part: slice, *constants: Array) -> Callable[..., None]:
        """The optimizer's kernel on a part of the weights. Its constants are arrays of shape (1,),
        or else the arguments of what is returned."""
        update = guarded(self.optimizer) if self.fine else self.optimizer.update
        kernel = self.backend.fuse(update, into=("w", *self.optimizer.state))
        vectors = (v[part] for v in self.vectors)
        return kernel.bind(self.model.w[part], self.g[part], *vectors, *self.fine, *constants)

    def __call__(
        self, n: int, rows: Rows | None, eta: float, number: int, seed: int, losses: Array
    ) -> None:
        """Step ``number`` (from 1) on n rows, or on what the buffers hold if rows is None.

        eta: the learning rate. seed: of the dropout masks. losses: (1, 2), gets loss and penalty.
        """
        evaluation = self.evaluations[n]
        if rows is not None:
            self.fill[n](rows)
        if evaluation.masks:
            fill_masks(self.backend, self.model.network, evaluation, seed, number)
        evaluation.run()  # training eq. (2)
        self.backend.copy(evaluation.sums, losses)
        for guard in self.guards:
            guard()
        for update, bias in self.updates:
            update(*self.optimizer.constants(eta, number, bias))  # training eq. (3)


def note(xp: Any, losses: Array, number: Array, now: Array, sums: Array) -> Array:
    """The losses with those of the batch that is on now: (batches, 2), number (batches, 1)."""
    return xp.where(number == now, sums, losses)


class Recorded:
    """A step whose device work is recorded once for each batch size, and replayed.

    What changes from step to step lies in tables on the device, sent by `begin`: the order of the
    samples, the constants of the update, and a counter that says which batch is on. So a replay
    takes no arguments. Where the backend cannot record, there is one warning, and the same calls
    are made one by one; the numbers are those of `Step` in either case.
    """

    def __init__(self, step: Step, rows: Sequence[slice], losses: Array):
        self.step, self.backend = step, step.backend
        backend, dtype = step.backend, step.model.dtype
        batches, self.size = len(rows), rows[0].stop - rows[0].start
        self.gathers = batches > 1 and step.feed.stream is None
        self.order = backend.asarray(np.zeros((batches, self.size), np.int64))
        self.index = backend.asarray(np.zeros((1, self.size), np.int64))
        self.batch = backend.asarray(np.zeros(1, np.int64))
        self.following = backend.asarray(np.zeros(1, np.int64))
        self.successor = backend.asarray(np.roll(np.arange(batches), -1).astype(np.int64))
        constants = [step.optimizer.constants(1.0, 1, bias) for _, bias in step.parts]
        width = 1 + sum(len(c) for c in constants)
        self.table = backend.full((batches, width), 0.0, dtype)
        self.now = backend.full((1, width), 0.0, dtype)
        number = backend.asarray(np.arange(batches).reshape(-1, 1), dtype)

        self.updates, column = [], 1
        for (part, _), numbers in zip(step.parts, constants, strict=True):
            columns = range(column, column + len(numbers))
            self.updates.append(step.bind_update(part, *(self.now[0, i : i + 1] for i in columns)))
            column += len(numbers)
        self.notes = {
            n: backend.fuse(note, into=("losses",)).bind(losses, number, self.now[:, :1], e.sums)
            for n, e in step.evaluations.items()
        }
        self.steps = {n: partial(self._run, n) for n in step.evaluations}
        self.replays: dict[int, Callable[[], None]] = {}
        self.made: set[int] = set()

    def begin(self, order: np.ndarray | None, batch: int, number: int, rates: list[float]) -> None:
        """What the epoch's batches from ``batch`` on need; step ``number`` is the last one done.

        order: of the samples, (n,), None as they are. rates: the learning rate of each step.
        """
        backend, optimizer = self.backend, self.step.optimizer
        table = np.zeros(self.table.shape)
        for i, eta in enumerate(rates):
            row = [float(batch + i)]
            for _, bias in self.step.parts:
                row += optimizer.constants(eta, number + 1 + i, bias)
            table[batch + i] = row
        backend.upload(table.astype(self.step.model.dtype), self.table)
        places = np.zeros(math.prod(self.order.shape), np.int64)
        places[: self.step.feed.n] = np.arange(self.step.feed.n) if order is None else order
        backend.upload(places.reshape(self.order.shape), self.order)
        backend.upload(np.array([batch], np.int64), self.batch)

    def __call__(
        self, n: int, rows: Rows | None, eta: float, number: int, seed: int, losses: Array
    ) -> None:
        """As `Step`; eta and the place of the losses are in the tables already."""
        evaluation = self.step.evaluations[n]
        if rows is not None and not self.gathers:
            self.step.fill[n](rows)
        if evaluation.masks:
            fill_masks(self.backend, self.step.model.network, evaluation, seed, number)
        if n in self.replays:
            self.replays[n]()
        elif n not in self.made:
            self.made.add(n)  # the first time compiles the kernels
            self.steps[n]()
        else:
            self._record(n)

    def _record(self, n: int) -> None:
        try:
            self.replays[n] = self.backend.record(self.steps[n])
        except BackendError as error:
            cause = f"steps are not recorded, and run one call at a time: {error}"
            warnings.warn(cause, stacklevel=5)
            self.replays = dict(self.steps)
        self.replays[n]()

    def _run(self, n: int) -> None:
        """The step's work on the device: what `Step` does, with the numbers of the tables."""
        backend, step = self.backend, self.step
        backend.take(self.table, self.batch, self.now)
        if self.gathers:
            backend.take(self.order, self.batch, self.index)
            step.fill[n](self.index[0, :n])
        step.evaluations[n].run()
        self.notes[n]()
        for guard in step.guards:
            guard()
        for update in self.updates:
            update()
        backend.take(self.successor, self.batch, self.following)
        backend.copy(self.following, self.batch)
