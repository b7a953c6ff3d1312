"""One training step, built once: gather a batch, gradient, update (derivation 003, Algorithm 1).

Names, shapes and kernels are settled here; a running step is calls on fixed buffers and reads
nothing back from the device. A shorter last batch runs on views of the same buffers.

A step may also be recorded once and replayed (`Recorded`), where the backend can: then the device
itself looks up which batch it is, in tables that are sent once an epoch.
"""

import math
import warnings
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from backends import PRECISIONS, Array, BackendError
from mlp.data.feed import Feed, Rows
from mlp.data.order import BlockOrder
from mlp.errors import InputError, shown
from mlp.formulas.clipping import (
    ascended,
    clipped_by_norm,
    clipped_by_value,
    from_kept,
    reach,
    shortened,
    shrinkage,
    square,
)
from mlp.formulas.loss_scaling import guarded, judge, judge_and_divide
from mlp.formulas.optimizers import Optimizer
from mlp.layers.tape import Arena, Tape
from mlp.model import Model
from mlp.network.graph import UpdatePart
from mlp.network.objective import Evaluation
from mlp.parallel.crew import Crew, one_by_one
from mlp.parallel.group import ALONE, Group
from mlp.parallel.shards import Shards, cut
from mlp.training.mixup import Mixup
from mlp.training.settings import Settings


class Turn(NamedTuple):
    """What a batch is of its step: one of several whose gradients are added up, or all of it.

    before: how many of them came before. share: of its gradient in the step's. last: then the
    weights are updated.
    """

    before: int = 0
    share: float = 1.0
    last: bool = True


WHOLE = Turn()


class Step:
    """The steps of a model on a data set, for batches of the given sizes.

    The model's w is updated in place, and so are the optimizer's state vectors, one an entry of
    ``optimizer.state``, and with mixed precision ``loss_scale``, (2,): the scale and the good steps
    (`mlp.formulas.loss_scaling`). settings: factors, clipping, `sam_radius`, `accumulate`, `mixup`;
    for `accumulate` ``accumulated`` is the sum so far. strength: the factor on noise in a step,
    counted from 0. ``g`` is the gradient of the last step; ``parts``: of w.
    With several ranks in the group, or shards, each batch is cut into such (`mlp.parallel.shards`),
    which the crew runs; it updates as many slices of w.
    """

    def __init__(
        self,
        model: Model,
        feed: Feed,
        sizes: Iterable[int],
        optimizer: Optimizer,
        vectors: Sequence[Array],
        loss_scale: Array | None = None,
        settings: Settings | None = None,
        accumulated: Array | None = None,
        group: Group = ALONE,
        strength: Callable[[int], float] | None = None,
        crew: Crew = one_by_one,
    ):
        self.strength, self.mixup, self.crew = strength, None, crew
        self.model, self.optimizer, self.backend = model, optimizer, model.backend
        self.vectors = dict(zip(optimizer.state, vectors, strict=True))
        self.settings = settings = settings or Settings()
        backend, network, weighted = model.backend, model.network, feed.weighted
        decays, matrices = (getattr(optimizer, name, False) for name in ("decays", "matrices"))
        factors = settings.rate_factors, settings.decay_factors
        self.parts = network.update_parts(decays, *factors, matrices)
        if matrices and not any(part.shape for part in self.parts):
            raise InputError(
                f"optimizer {shown(optimizer, 60)} is for matrices between hidden layers, of which "
                "this network trains none: use 'adamw'"
            )
        rule: Any = optimizer
        self.rules = [rule.matrix(p.shape) if p.shape else rule for p in self.parts]
        sizes = sorted(set(sizes), reverse=True)
        empty = partial(backend.full, (network.parameters,), 0.0, model.dtype)
        scale = None if loss_scale is None else loss_scale[:1]
        self.kept = [] if settings.sam_radius is None else [empty()]
        self.squares = empty() if self.kept or settings.clip_norm is not None else None
        # Whether nothing but the update reads the gradient, which may then undo the scale itself.
        whole = group.size == 1 and settings.shards is None
        alone = (
            whole
            and accumulated is None
            and self.squares is None
            and not any(part.shape for part in self.parts)
        )
        self.unscales = not alone or bool(network.penalties())
        # With mixed precision, what products read of w: the update writes it, where nothing moves w
        # between the update and the next gradient.
        self.narrow, storage = None, PRECISIONS[model.precision].storage
        if storage != model.dtype and whole and not self.kept and not network.constraints():
            self.narrow = backend.empty((network.parameters,), storage)
        self.evaluations, self.fill, self.sums, self.shards = {}, {}, {}, None
        self.gradients: dict[int, list[Callable[[], None]]] = {}
        if group.size > 1 or settings.shards is not None:
            if self.kept:
                raise InputError(
                    "sam_radius takes two passes a step, which is for one process without shards; "
                    "leave it out, or start one"
                )
            if settings.record_steps:
                raise InputError(
                    "record_steps records the steps of one process; leave it out, or start one"
                )
            self.shards = Shards(model, feed, sizes, group, settings.shards, scale, crew)
            self.batch_g = self.shards.g
            self.g = self.batch_g if accumulated is None else accumulated
            self.arena = self.shards.arenas[0]
        else:
            self.g = empty() if accumulated is None else accumulated
            self.batch_g = self.g if accumulated is None else empty()
            self.arena = Arena(backend, model.precision, sizes[0])
            if settings.mixup is not None:
                self.mixup = Mixup(backend, model.dtype, settings.mixup)
            for n in sizes:
                arguments = backend, model.w, self.batch_g, self.arena, n, weighted, scale
                about: Any = {"unscales": self.unscales, "narrow": self.narrow}
                evaluation = model.objective.gradient(*arguments, model.statistics, **about)
                self.evaluations[n], self.fill[n] = evaluation, feed.bind(evaluation)
                if self.mixup is not None:
                    mixing = self.mixup.bind(evaluation, self.arena)
                    self.fill[n] = partial(_filled, self.fill[n], mixing)
                self.gradients[n], self.sums[n] = [evaluation.run], evaluation.sums
                if self.kept:
                    again = model.objective.gradient(*arguments, model._scratch())
                    self._ascend(n, again.run)

        # Each step's loss and penalty to their place.
        found = {0: self.shards.sums} if self.shards is not None else self.sums
        self.tell = {n: backend.copying(sums) for n, sums in found.items()}
        self.add = None
        if accumulated is not None:
            kernel = backend.fuse(added)
            self.add = kernel.bind(self.g, self.batch_g, scalars=2)
        self.guards: list[Callable[[], None]] = []
        self.fine: list[Array] = []
        self.shrink: list[Array] = []
        if loss_scale is not None:
            self._guard(loss_scale)
        if settings.clip_norm is not None:
            self._clip(float(settings.clip_norm))
        for part, rule in zip(self.parts, self.rules, strict=True):
            if part.shape:
                self._direct(part, rule)
        self.constants = [
            _constants(part, rule) for part, rule in zip(self.parts, self.rules, strict=True)
        ]
        self.updates = [
            [
                (self.bind_update(i, within=w), self.constants[i])
                for i, w in enumerate(slices)
                if w.stop > w.start
            ]
            for slices in zip(*(self._slices(part) for part in self.parts), strict=True)
        ]
        self.constraints = [call for l in network.constraints() for call in self._shorten(l)]

    def _slices(self, part: UpdatePart) -> list[slice]:
        """A part of w in as many slices as this process has shards."""
        start, stop = part.part.start, part.part.stop
        count = 1 if self.shards is None else len(self.shards.arenas)
        return [slice(start + x.start, start + x.stop) for x in cut(stop - start, count)]

    def rows_of(self, batch: slice, index: Rows | None) -> Rows:
        """What a call takes as the rows of a batch, of an order, or of the samples as they are."""
        if self.shards is None:
            return batch if index is None else index[batch]
        parts = self.shards.rows_of(batch)
        return parts if index is None else [index[part] for part in parts]

    def ahead(self, feed: Feed, rows: Rows) -> None:
        """These are the next rows that a call will be given."""
        if self.shards is None:
            feed.ahead(rows)
            return
        with suppress(Exception):  # of this rank: said to all when the rows are asked for
            feed.ahead(rows[0])  # as the other shards' are then

    def follow(self) -> None:
        """Others than these steps may have changed w: what products read of it is made anew."""
        if self.narrow is not None:
            self.backend.copy(self.model.w, self.narrow)

    def load(self, batch: slice) -> None:
        """The rows of a batch that stays where it is."""
        n, rows = batch.stop - batch.start, self.rows_of(batch, None)
        if self.shards is None:
            self.fill[n](rows)
        else:
            one_by_one(self.shards.of[n].loads(rows))

    def _ascend(self, n: int, again: Callable[[], None]) -> None:
        """The gradient of sharpness-aware minimisation: at w, then at the worst point near it."""
        backend, radius = self.backend, float(self.settings.sam_radius)  # type: ignore[arg-type]
        total, norm = self._norm()
        first, self.sums[n] = self.sums[n], backend.empty((1, 2), self.model.dtype)
        far = partial(backend.fuse(reach).bind(total, total, scalars=1), radius)
        calls: list[Callable[[], None]] = [*self.gradients[n]]
        calls += [partial(backend.copy, first, self.sums[n]), *norm, far]
        for part in self.parts:
            w, kept, g = (x[part.part] for x in (self.model.w, self.kept[0], self.batch_g))
            calls.append(backend.fuse(ascended, into=(0, 1)).bind(w, kept, g, total))
        self.gradients[n] = [*calls, again]

    def _norm(self) -> tuple[Array, list[Callable[[], None]]]:
        """Room for |g|² over what is trained, (1,), and the calls that compute it."""
        backend, total = self.backend, self.backend.empty((1,), self.model.dtype)
        assert self.squares is not None
        calls = [
            backend.fuse(square).bind(self.squares[part], self.g[part])
            for part in joined([part.part for part in self.parts])
        ]
        return total, [*calls, backend.total(self.squares, total)]

    def _guard(self, loss_scale: Array) -> None:
        """With mixed precision: whether the gradient is finite, and the next loss scale."""
        backend, dtype = self.backend, self.model.dtype
        total, fine = backend.empty((1,), dtype), backend.empty((1,), dtype)
        self.guards.append(backend.total(self.g, total))
        found = [fine, loss_scale[:1], loss_scale[1:]]
        if self.unscales:
            self.guards.append(backend.fuse(judge, into=(0, 1, 2)).bind(*found, total))
        else:
            self.shrink = [backend.empty((1,), dtype)]
            kernel = backend.fuse(judge_and_divide, into=(0, 1, 2, 3))
            self.guards.append(kernel.bind(*found, *self.shrink, total))
        self.fine = [fine]

    def _clip(self, most: float) -> None:
        """The factor that makes the gradient's norm no larger than that."""
        factor = self.backend.empty((1,), self.model.dtype)
        total, norm = self._norm()
        kernel = self.backend.fuse(shrinkage).bind(factor, total, scalars=1)
        self.guards += [*norm, partial(kernel, most)]
        self.shrink = [factor]

    def _direct(self, part: UpdatePart, rule: Any) -> None:
        """What a rule of matrices does before its update."""
        tape = Tape(self.backend, self.model.dtype)
        m, v = (self.vectors[name] for name in ("m", "v"))
        reshape = self.backend.xp.reshape
        rule.direct(tape, *(reshape(x[part.part], part.shape) for x in (self.g, m, v)))
        self.guards.append(tape.run)

    def _shorten(self, number: int) -> list[Callable[[], None]]:
        """What a layer's max_norm does after the update."""
        backend, network, dtype = self.backend, self.model.network, self.model.dtype
        most, entries = network.constraints()[number]
        trained = joined([part.part for part in self.parts])
        for entry in entries:
            if not any(p.start <= entry.part.start < p.stop for p in trained):
                raise InputError(
                    f"layer {number}: max_norm would change {entry.describe()}, which is frozen by "
                    "rate_factors; leave one of them out"
                )
        if getattr(self.optimizer, "share", None):
            raise InputError(
                f"layer {number}: max_norm comes after each step, whose weights the average "
                f"{shown(self.settings.average)} has taken already; use 'swa'"
            )
        units, calls = network.units[number], []
        squares = backend.empty((sum(network.widths_into(number).values()), units), dtype)
        total = backend.empty((units,), dtype)
        matrices, start = [], 0
        for entry in entries:
            W = backend.xp.reshape(self.model.w[entry.part], entry.parameter.shape)
            room = squares[start : start + W.shape[0], :]
            calls.append(backend.fuse(square).bind(room, W))
            matrices.append(W)
            start += W.shape[0]
        calls.append(backend.total(squares, total))
        for W in matrices:
            shorten = backend.fuse(shortened).bind(W, total, scalars=1)
            calls.append(partial(shorten, most))
        return calls

    def bind_update(
        self, i: int, *constants: Array, within: slice | None = None
    ) -> Callable[..., None]:
        """The optimizer's kernel on the i-th part of the weights, or on a slice of it. Its
        constants are arrays of shape (1,), or else the arguments of what is returned."""
        part, rule = within or self.parts[i].part, self.rules[i]
        update, vectors = rule.update, len(rule.state)
        if self.settings.clip_value is not None:
            update = clipped_by_value(update, float(self.settings.clip_value))
        if self.shrink:
            update = clipped_by_norm(update, vectors)
        if self.fine:
            update = guarded(update, vectors)
        if self.kept:
            update = from_kept(update, vectors)
        beside, written = self.kept, 2 + vectors
        if self.narrow is not None:
            update, beside, written = copied(update, vectors), [self.narrow], 3 + vectors
        kernel = self.backend.fuse(update, into=(0, *range(2, written)))
        scalars = 0 if constants else len(rule.constants(1.0, 1))
        arrays = [x[part] for x in (self.model.w, self.g, *self.vectors.values(), *beside)]
        return kernel.bind(*arrays, *self.fine, *self.shrink, *constants, scalars=scalars)

    def __call__(
        self,
        n: int,
        rows: Rows | None,
        eta: float,
        number: int,
        seed: int,
        losses: Array,
        decay: float = 1.0,
        turn: Turn = WHOLE,
    ) -> None:
        """Step ``number`` (from 1) on n rows, or on what the buffers hold if rows is None.

        eta: the learning rate. seed: of what layers draw. losses: (1, 2), gets loss and penalty.
        decay: the factor on the weight decay.
        """
        drawn = (number - 1) * self.settings.accumulate + turn.before + 1
        if self.shards is not None:
            factor = self.factor(number)
            self.shards.run(n, rows, seed, drawn, factor)  # loop eq. (2), of all ranks together
            self.tell[0](losses)
        else:
            evaluation = self.evaluations[n]
            self.begin(evaluation, number, drawn, seed)
            if rows is not None:
                self.fill[n](rows)
            for call in self.gradients[n]:  # loop eq. (2)
                call()
            self.tell[n](losses)
        if self.add is not None:
            self.add(float(turn.before > 0), turn.share)
        if not turn.last:
            return
        for guard in self.guards:
            guard()
        about = eta, number, decay
        if len(self.updates) == 1:
            _update(self.updates[0], *about)  # loop eq. (3)
        else:
            self.crew([partial(_update, slices, *about) for slices in self.updates])
        for call in self.constraints:
            call()

    def begin(self, evaluation: Evaluation, number: int, drawn: int, seed: int) -> None:
        """What is drawn for a batch of step ``number``, the batch by the number ``drawn``, on its
        way to the device by value."""
        if self.mixup is not None:
            self.mixup.begin(seed, drawn)
        if evaluation.noise is not None:
            evaluation.noise.begin(seed, drawn, factor=self.factor(number))

    def factor(self, number: int) -> float:
        """On the strength of noise in step ``number``."""
        return 1.0 if self.strength is None else self.strength(number - 1)


def _constants(part: UpdatePart, rule: Any) -> Callable[[float, int, float], tuple[float, ...]]:
    """What a part's kernel takes in a step, of its learning rate, number and factor on decay."""

    def constants(eta: float, number: int, decay: float) -> tuple[float, ...]:
        found: tuple[float, ...] = rule.constants(part.rate * eta, number, part.decay * decay)
        return found

    return constants


def _update(
    slices: list[tuple[Callable[..., None], Callable[..., tuple[float, ...]]]],
    eta: float,
    number: int,
    decay: float,
) -> None:
    """A slice of each part of w."""
    for update, constants in slices:
        update(*constants(eta, number, decay))


def copied(update: Callable[..., Any], vectors: int) -> Callable[..., Any]:
    """The update that leaves its w in a narrower array too, after so many state vectors."""

    def copied_update(xp: Any, w: Array, g: Array, *rest: Array) -> Any:
        state, constants = rest[:vectors], rest[vectors + 1 :]
        new = update(xp, w, g, *state, *constants)
        new = new if isinstance(new, tuple) else (new,)
        return (*new, new[0])

    return copied_update


def added(xp: Any, g: Array, more: Array, begun: Array, share: Array) -> Array:
    """One more batch's gradient; the first one begins the sum anew."""
    return xp.where(begun + 0.0 * more > 0.0, g + share * more, share * more)


def joined(parts: Sequence[slice]) -> list[slice]:
    """Neighbouring parts as one."""
    found: list[slice] = []
    for part in parts:
        if found and found[-1].stop == part.start:
            part = slice(found.pop().start, part.stop)
        found.append(part)
    return found


def _filled(fill: Callable[[Rows], None], then: list[Callable[[], None]], rows: Rows) -> None:
    fill(rows)
    for call in then:
        call()


class Recorded:
    """A step whose device work is recorded once for each batch size, and replayed.

    What changes from step to step lies in tables on the device, sent by `begin`: the order of the
    samples, the constants of the update, and a counter that says which batch is on. At the end of a
    step its loss goes into ``losses`` (batches, 2), and what the next one needs to its place. So a
    replay takes no arguments. Where the backend cannot record, there is one warning, and the same
    calls are made one by one; the numbers are those of `Step` in either case.
    """

    def __init__(self, step: Step, feed: Feed, slices: Sequence[slice], losses: Array):
        self.step, self.backend, self.samples = step, step.backend, feed.n
        backend, dtype = step.backend, step.model.dtype
        batches, size = len(slices), slices[0].stop - slices[0].start
        # Whether the rows are gathered by the device's own order; else they are filled in before.
        self.gathers = batches > 1 and feed.stream is None
        self.order = backend.asarray(np.zeros((batches if self.gathers else 1, size), np.int64))
        index = backend.asarray(np.zeros((1, size), np.int64))
        self.batch = backend.asarray(np.zeros(1, np.int64))
        widths = [len(constants(1.0, 1, 1.0)) for constants in step.constants]
        self.table = backend.full((batches, sum(widths)), 0.0, dtype)
        now = backend.full((1, sum(widths)), 0.0, dtype)
        self.tables, self.places = [self.table], [now]
        if self.gathers:
            self.tables, self.places = [self.table, self.order], [now, index]
        tables = self.tables, self.places, self.batch, batches

        constants = [now[0, i : i + 1] for i in range(sum(widths))]
        updates = []
        for i, width in enumerate(widths):
            updates.append(step.bind_update(i, *constants[:width]))
            constants = constants[width:]
        # What `Step` does, with the numbers of the tables. Nothing here refers to this object:
        # recordings hold the calls, and all of it is to go when the run does.
        self.tapes: dict[int, Tape] = {}
        for n in step.evaluations:
            tape = self.tapes[n] = Tape(backend)
            if self.gathers:
                tape.calls.append(partial(step.fill[n], index[0, :n]))
            tape.calls += [*step.gradients[n], *step.guards, *updates, *step.constraints]
            tape.calls.append(backend.turn(step.sums[n], losses, *tables))
        self.replays: dict[int, Callable[[], None]] = {}
        self.made: set[int] = set()

    def rows_of(self, batch: slice, index: Rows | None) -> Rows:
        """As `Step`."""
        return self.step.rows_of(batch, index)

    def ahead(self, feed: Feed, rows: Rows) -> None:
        """As `Step`."""
        feed.ahead(rows)

    def follow(self) -> None:
        """As `Step`."""
        self.step.follow()

    def begin(
        self,
        order: np.ndarray | BlockOrder | None,
        batch: int,
        number: int,
        rates: list[tuple[float, float]],
    ) -> None:
        """What the epoch's batches from ``batch`` on need; step ``number`` is the last one done.

        order: of the samples, (n,), None as they are. rates: the learning rate of each step, and
        the factor on the weight decay.
        """
        backend = self.backend
        table = np.zeros(self.table.shape)
        for k, (eta, decay) in enumerate(rates):
            row: list[float] = []
            for constants in self.step.constants:
                row += constants(eta, number + 1 + k, decay)
            table[batch + k] = row
        backend.upload(table.astype(self.step.model.dtype), self.table)
        if self.gathers:
            places = np.zeros(math.prod(self.order.shape), np.int64)
            places[: self.samples] = np.arange(self.samples) if order is None else order
            backend.upload(places.reshape(self.order.shape), self.order)
        backend.upload(np.array([batch], np.int64), self.batch)
        for there, place in zip(self.tables, self.places, strict=True):
            backend.copy(there[batch : batch + 1, :], place)

    def __call__(
        self,
        n: int,
        rows: Rows | None,
        eta: float,
        number: int,
        seed: int,
        losses: Array,
        decay: float = 1.0,
        turn: Turn = WHOLE,
    ) -> None:
        """As `Step`, but that rates, where it gathers the rows, and the place of losses are in the
        tables already."""
        evaluation = self.step.evaluations[n]
        self.step.begin(evaluation, number, number, seed)
        if rows is not None and not self.gathers:
            self.step.fill[n](rows)
        if n in self.replays:
            self.replays[n]()
        elif n not in self.made:
            self.made.add(n)  # the first time compiles the kernels
            self.tapes[n].run()
        else:
            self._record(n)

    def _record(self, n: int) -> None:
        try:
            self.replays[n] = self.backend.record(self.tapes[n].run)
        except BackendError as error:
            cause = f"steps are not recorded, and run one call at a time: {error}"
            warnings.warn(cause, stacklevel=5)
            self.replays = {size: tape.run for size, tape in self.tapes.items()}
        self.replays[n]()
