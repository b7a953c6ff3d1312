"""One training step, built once: gather a batch, gradient, update (derivation 003, Algorithm 1).

Names, shapes and kernels are settled here; a running step is calls on fixed buffers and reads
nothing back from the device. A shorter last batch runs on views of the same buffers.

A step may also be recorded once and replayed (`Recorded`), where the backend can: then the device
itself looks up which batch it is, in tables that are sent once an epoch.
"""

import math
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial

import numpy as np

from backends import Array, BackendError
from mlp.data.feed import Feed, Rows
from mlp.data.order import BlockOrder
from mlp.formulas.loss_scaling import guarded, judge
from mlp.formulas.optimizers import Optimizer
from mlp.layers.tape import Arena, Tape
from mlp.model import Model
from mlp.parallel.group import ALONE, Group
from mlp.parallel.shards import Shards


class Step:
    """The steps of a model on a data set, for batches of the given sizes.

    The model's w is updated in place, and so are the optimizer's state vectors, one an entry of
    ``optimizer.state``, and with mixed precision ``loss_scale``, (2,): the scale and the good steps
    (`mlp.formulas.loss_scaling`). rate_factors: by role of parameters, on the learning rate.
    ``g`` is the gradient of the last step; ``parts``: (part of w, whether it is decayed, factor).
    With several ranks in the group, or shards, each batch is cut into such (`mlp.parallel.shards`).
    """

    def __init__(
        self,
        model: Model,
        feed: Feed,
        sizes: Iterable[int],
        optimizer: Optimizer,
        vectors: Sequence[Array],
        loss_scale: Array | None = None,
        rate_factors: Mapping[str, float] | None = None,
        group: Group = ALONE,
        shards: int | None = None,
    ):
        self.model, self.optimizer, self.backend = model, optimizer, model.backend
        self.vectors, self.constants = vectors, optimizer.constants
        backend, network, weighted = model.backend, model.network, feed.weighted
        sizes = sorted(set(sizes), reverse=True)
        scale = None if loss_scale is None else loss_scale[:1]
        self.evaluations, self.fill, self.shards = {}, {}, None
        if group.size > 1 or shards is not None:
            self.shards = Shards(model, feed, sizes, group, shards, scale)
            self.g, self.arena = self.shards.g, self.shards.arenas[0]
        else:
            self.g = backend.full((network.parameters,), 0.0, model.dtype)
            self.arena = Arena(backend, model.precision, sizes[0])
            for n in sizes:
                self.evaluations[n] = model.objective.gradient(
                    backend, model.w, self.g, self.arena, n, weighted, scale, model.statistics
                )
                self.fill[n] = feed.bind(self.evaluations[n])

        self.guards: list[Callable[[], None]] = []
        self.fine: list[Array] = []
        if loss_scale is not None:
            self._guard(loss_scale)
        decays = getattr(optimizer, "decays", False)
        self.parts = network.update_parts(decays, rate_factors or {})
        self.updates = [
            (self.bind_update(part), decay, factor) for part, decay, factor in self.parts
        ]

    def rows_of(self, batch: slice, index: Rows | None) -> Rows:
        """What a call takes as the rows of a batch, of an order, or of the samples as they are."""
        if self.shards is None:
            return batch if index is None else index[batch]
        parts = self.shards.rows_of(batch)
        return parts if index is None else [index[part] for part in parts]

    def ahead(self, feed: Feed, rows: Rows) -> None:
        """These are the next rows that a call will be given."""
        if self.shards is not None:
            rows = rows[0]  # the others follow when they are asked for
        feed.ahead(rows)

    def load(self, batch: slice) -> None:
        """The rows of a batch that stays where it is."""
        n, rows = batch.stop - batch.start, self.rows_of(batch, None)
        if self.shards is None:
            self.fill[n](rows)
        else:
            self.shards.of[n].load(rows)

    def _guard(self, loss_scale: Array) -> None:
        """With mixed precision: whether the gradient is finite, and the next loss scale."""
        backend, dtype = self.backend, self.model.dtype
        total, fine = backend.empty((1,), dtype), backend.empty((1,), dtype)
        self.guards.append(backend.total(self.g, total))
        kernel = backend.fuse(judge, into=(0, 1, 2))
        self.guards.append(kernel.bind(fine, loss_scale[:1], loss_scale[1:], total))
        self.fine = [fine]

    def bind_update(self, part: slice, *constants: Array) -> Callable[..., None]:
        """The optimizer's kernel on a part of the weights. Its constants are arrays of shape (1,),
        or else the arguments of what is returned."""
        update = guarded(self.optimizer) if self.fine else self.optimizer.update
        vectors = len(self.optimizer.state)
        kernel = self.backend.fuse(update, into=(0, *range(2, 2 + vectors)))
        scalars = 0 if constants else len(self.optimizer.constants(1.0, 1))
        arrays = self.model.w[part], self.g[part], *(v[part] for v in self.vectors), *self.fine
        return kernel.bind(*arrays, *constants, scalars=scalars)

    def __call__(
        self, n: int, rows: Rows | None, eta: float, number: int, seed: int, losses: Array
    ) -> None:
        """Step ``number`` (from 1) on n rows, or on what the buffers hold if rows is None.

        eta: the learning rate. seed: of what layers draw. losses: (1, 2), gets loss and penalty.
        """
        if self.shards is not None:
            self.shards.run(n, rows, seed, number)  # loop eq. (2), of all ranks together
            self.backend.copy(self.shards.sums, losses)
        else:
            evaluation = self.evaluations[n]
            if rows is not None:
                self.fill[n](rows)
            if evaluation.noise is not None:
                evaluation.noise.begin(seed, number)
            evaluation.run()  # loop eq. (2)
            self.backend.copy(evaluation.sums, losses)
        for guard in self.guards:
            guard()
        for update, decay, factor in self.updates:
            update(*self.constants(factor * eta, number, decay))  # loop eq. (3)


class Recorded:
    """A step whose device work is recorded once for each batch size, and replayed.

    What changes from step to step lies in tables on the device, sent by `begin`: the order of the
    samples, the constants of the update, and a counter that says which batch is on. So a replay
    takes no arguments. Where the backend cannot record, there is one warning, and the same calls
    are made one by one; the numbers are those of `Step` in either case.
    """

    def __init__(self, step: Step, feed: Feed, slices: Sequence[slice]):
        self.step, self.backend, self.samples = step, step.backend, feed.n
        backend, dtype = step.backend, step.model.dtype
        batches, size = len(slices), slices[0].stop - slices[0].start
        # Whether the rows are gathered by the device's own order; else they are filled in before.
        self.gathers = batches > 1 and feed.stream is None
        self.order = backend.asarray(np.zeros((batches if self.gathers else 1, size), np.int64))
        index = backend.asarray(np.zeros((1, size), np.int64))
        self.batch, following = (backend.asarray(np.zeros(1, np.int64)) for _ in range(2))
        successor = backend.asarray(np.roll(np.arange(batches), -1).astype(np.int64))
        widths = [len(step.optimizer.constants(1.0, 1)) for _ in step.parts]
        self.table = backend.full((batches, sum(widths)), 0.0, dtype)
        now = backend.full((1, sum(widths)), 0.0, dtype)

        constants = [now[0, i : i + 1] for i in range(sum(widths))]
        updates = []
        for (part, *_), width in zip(step.parts, widths, strict=True):
            updates.append(step.bind_update(part, *constants[:width]))
            constants = constants[width:]
        # What `Step` does, with the numbers of the tables. Nothing here refers to this object:
        # recordings hold the calls, and all of it is to go when the run does.
        self.tapes: dict[int, Tape] = {}
        for n, evaluation in step.evaluations.items():
            tape = self.tapes[n] = Tape(backend)
            tape.calls.append(partial(backend.take, self.table, self.batch, now))
            if self.gathers:
                tape.calls.append(partial(backend.take, self.order, self.batch, index))
                tape.calls.append(partial(step.fill[n], index[0, :n]))
            tape.calls += [evaluation.run, *step.guards, *updates]
            tape.calls.append(partial(backend.take, successor, self.batch, following))
            tape.copy(following, self.batch)
        self.replays: dict[int, Callable[[], None]] = {}
        self.made: set[int] = set()

    def rows_of(self, batch: slice, index: Rows | None) -> Rows:
        """As `Step`."""
        return self.step.rows_of(batch, index)

    def ahead(self, feed: Feed, rows: Rows) -> None:
        """As `Step`."""
        feed.ahead(rows)

    def begin(
        self, order: np.ndarray | BlockOrder | None, batch: int, number: int, rates: list[float]
    ) -> None:
        """What the epoch's batches from ``batch`` on need; step ``number`` is the last one done.

        order: of the samples, (n,), None as they are. rates: the learning rate of each step.
        """
        backend, optimizer = self.backend, self.step.optimizer
        table = np.zeros(self.table.shape)
        for i, eta in enumerate(rates):
            row: list[float] = []
            for _, decay, factor in self.step.parts:
                row += optimizer.constants(factor * eta, number + 1 + i, decay)
            table[batch + i] = row
        backend.upload(table.astype(self.step.model.dtype), self.table)
        if self.gathers:
            places = np.zeros(math.prod(self.order.shape), np.int64)
            places[: self.samples] = np.arange(self.samples) if order is None else order
            backend.upload(places.reshape(self.order.shape), self.order)
        backend.upload(np.array([batch], np.int64), self.batch)

    def __call__(
        self, n: int, rows: Rows | None, eta: float, number: int, seed: int, losses: Array
    ) -> None:
        """As `Step`, but that eta, and where it gathers the rows, are in the tables already."""
        evaluation = self.step.evaluations[n]
        if rows is not None and not self.gathers:
            self.step.fill[n](rows)
        if evaluation.noise is not None:
            evaluation.noise.begin(seed, number)
        if n in self.replays:
            self.replays[n]()
        elif n not in self.made:
            self.made.add(n)  # the first time compiles the kernels
            self.tapes[n].run()
        else:
            self._record(n)
        self.backend.copy(evaluation.sums, losses)

    def _record(self, n: int) -> None:
        try:
            self.replays[n] = self.backend.record(self.tapes[n].run)
        except BackendError as error:
            cause = f"steps are not recorded, and run one call at a time: {error}"
            warnings.warn(cause, stacklevel=5)
            self.replays = {size: tape.run for size, tape in self.tapes.items()}
        self.replays[n]()
