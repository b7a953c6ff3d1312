"""A batch as shards: each a pass of its own on its rows, their gradients added in a fixed tree.

A batch of n rows is cut into S shards of consecutive rows, the first n mod S of them one row
larger. With the shares r_p of the whole batch (`mlp.network.objective`), each shard's pass gives
its part of value and gradient, without penalties, and

    E, g = Σ_s E_s, g_s    added as ((0 + 1) + (2 + 3)) + ...                               (1)

So S alone fixes the sum to the last bit, whoever runs the passes. S and the number of ranks N are
powers of two: rank r runs the shards r S/N, ..., (r + 1) S/N - 1 and adds those, the lower levels
of the tree; the group adds the upper ones. Where a pass needs a sum over the whole batch on its
way, as of sample weights or of a batch's mean (`Tape.sum_shards`), all shards come so far, and the
sum is taken as in (1).

Within a rank a ``crew`` (`mlp.parallel.crew`) runs the shards: a function that makes given calls,
in any order or at once. Nothing here knows which; each shard has buffers of its own. Rows are
gathered by the call that reads them, and (1) is cut into as many slices of w as a rank has shards.
"""

from collections.abc import Iterable, Sequence
from functools import partial
from itertools import pairwise

from backends import Array, Backend
from mlp.data.feed import Feed, Rows
from mlp.errors import InputError
from mlp.layers.tape import Arena, Tape, add
from mlp.model import Model
from mlp.network.objective import Evaluation
from mlp.parallel.crew import Call, Crew, one_by_one
from mlp.parallel.group import Group


def cut(n: int, shards: int) -> list[slice]:
    """n rows as so many runs, the first ones a row larger where it does not go even.

    >>> cut(5, 4)
    [slice(0, 2, None), slice(2, 3, None), slice(3, 4, None), slice(4, 5, None)]
    """
    size, more = divmod(n, shards)
    starts = [i * size + min(i, more) for i in range(shards + 1)]
    return [slice(start, stop) for start, stop in pairwise(starts)]


def check_shards(shards: int | None, size: int) -> int:
    """How many shards a batch has on so many ranks: as many as there are, if it is left open.
    InputError for a number that these ranks cannot share."""
    if shards is None:
        return size
    if size & (size - 1) or size > shards:
        fitting = [str(1 << k) for k in range(shards.bit_length())]
        raise InputError(
            f"parallel: {shards} shards are for {' or '.join(fitting)} ranks, not for {size}; "
            f"start as many, or leave `shards` out"
        )
    return shards


def tree(backend: Backend, arrays: Sequence[Array]) -> list[Call]:
    """Calls that leave the sum of the arrays in the first of them, eq. (1)."""
    kernel = backend.fuse(add, (0,))
    calls: list[Call] = []
    step = 1
    while step < len(arrays):
        pairs = range(0, len(arrays) - step, 2 * step)
        calls += [kernel.bind(arrays[i], arrays[i + step]) for i in pairs]
        step *= 2
    return calls


class Shards:
    """This rank's shards of the batches of a model on a feed, of each of the given sizes.

    ``g`` is the gradient of the last batch, penalties included, and ``sums`` (1, 2) its loss and
    penalty, after `run`: the same on all ranks. count: of shards, in all; fixed: whether their
    number fixes the bits. loss_scale: (1,), for mixed precision.
    """

    def __init__(
        self,
        model: Model,
        feed: Feed,
        sizes: Iterable[int],
        group: Group,
        count: int | None = None,
        loss_scale: Array | None = None,
        crew: Crew = one_by_one,
    ):
        self.model, self.group, self.crew = model, group, crew
        self.count, fixed = check_shards(count, group.size), count is not None
        own = self.count // group.size
        self.own = slice(group.rank * own, (group.rank + 1) * own)
        self.fixed = fixed
        self.gathers = feed.stream is None  # else rows come through buffers that shards share
        backend, network = model.backend, model.network
        sizes = sorted(set(sizes), reverse=True)
        self.room = max(-(-sizes[0] // self.count), 1)
        # A row for each shard: its gradient and the two terms of its value.
        self.vectors = backend.full((own, network.parameters + 2), 0.0, model.dtype)
        self.g = self.vectors[0, : network.parameters]
        self.sums = self.vectors[:1, network.parameters :]
        self.arenas = [Arena(backend, model.precision, self.room) for _ in range(own)]
        # All shards change a layer's statistics alike; those of the first are the model's.
        self.statistics = [model.statistics, *(model._scratch() for _ in range(own - 1))]
        self.of = {n: Batch(self, feed, n, loss_scale) for n in sizes}

    def rows_of(self, batch: slice) -> list[slice]:
        """Where in an epoch's order this rank's shards of a batch are."""
        start = batch.start
        parts = cut(batch.stop - start, self.count)[self.own]
        return [slice(start + part.start, start + part.stop) for part in parts]

    def part_of(self, batch: slice) -> slice:
        """The same as one run of places."""
        parts = self.rows_of(batch)
        return slice(parts[0].start, parts[-1].stop)

    def run(
        self, n: int, rows: Sequence[Rows] | None, seed: int, number: int, factor: float = 1.0
    ) -> None:
        """A batch of n rows, of which these are this rank's shards; None: those that are loaded.
        seed, number: of what layers draw, and of the step; factor: on its strength."""
        self.of[n].run(rows, seed, number, factor)


class Batch:
    """This rank's shards of a batch of n rows, ready to be run."""

    def __init__(self, shards: Shards, feed: Feed, n: int, loss_scale: Array | None):
        self.shards, self.n, model = shards, n, shards.model
        self.backend, self.group = model.backend, shards.group
        parts = cut(n, shards.count)[shards.own]
        self.parts = parts
        # A shard without rows is never run; it has one for the arrays that it adds.
        self.busy = [part.stop > part.start for part in parts]
        parameters = model.network.parameters
        self.evaluations: list[Evaluation] = []
        for i, part in enumerate(parts):
            self.evaluations.append(
                model.objective.gradient(
                    model.backend,
                    model.w,
                    shards.vectors[i, :parameters],
                    shards.arenas[i],
                    max(part.stop - part.start, 1),
                    feed.weighted,
                    loss_scale,
                    shards.statistics[i],
                    whole=n,
                )
            )
        self.fill = [feed.bind(e, place=i) for i, e in enumerate(self.evaluations)]
        tapes = [e.tape for e in self.evaluations]
        self.segments = [_segments(tape) for tape in tapes if tape is not None]
        self.meetings = [
            self._sum([tape.sums[k][1] for tape in tapes if tape is not None])
            for k in range(len(self.segments[0]) - 1)
        ]
        for i, e in enumerate(self.evaluations):
            value = partial(self.backend.copy, e.sums, shards.vectors[i : i + 1, parameters:])
            self.segments[i][-1].append(value)
        self.passes: list[list[Call]] = [
            [partial(one_by_one, calls) for calls, busy in zip(k, self.busy, strict=True) if busy]
            for k in zip(*self.segments, strict=True)
        ]
        # Eq. (1) of this rank's shards, a slice of all of them at a time; then of all ranks.
        self.slices = [
            partial(one_by_one, self._tree([shards.vectors[i, part] for i in range(len(parts))]))
            for part in cut(parameters + 2, len(parts))
        ]
        self.total = [self.group.sum(self.backend, shards.vectors[0, :], shards.fixed)]
        tape = Tape(self.backend, model.precision)
        weight = self.evaluations[0].weight
        model.objective.penalty(tape, model.w, n, weight, shards.sums, shards.g)
        self.total += tape.calls

    def _tree(self, arrays: list[Array]) -> list[Call]:
        """Eq. (1) of an array of each of this rank's shards, into the first of them."""
        calls: list[Call] = [
            partial(_clear, x) for x, busy in zip(arrays, self.busy, strict=True) if not busy
        ]
        return calls + tree(self.backend, arrays)

    def _sum(self, arrays: list[Array]) -> list[Call]:
        """Eq. (1) of an array of each shard, into all of them."""
        calls = self._tree(arrays)
        calls.append(self.group.sum(self.backend, arrays[0], self.shards.fixed))
        return calls + [partial(self.backend.copy, arrays[0], x) for x in arrays[1:]]

    def loads(self, rows: Sequence[Rows]) -> list[Call]:
        """What brings the rows of each shard into its buffers."""
        there = zip(self.fill, rows, self.busy, strict=True)
        return [partial(fill, part) for fill, part, busy in there if busy]

    def run(self, rows: Sequence[Rows] | None, seed: int, number: int, factor: float = 1.0) -> None:
        """The passes, and eq. (1). What goes wrong in a shard goes wrong on all ranks: each comes
        to every meeting, and the error is raised by all before anything has changed."""
        crew, error = self.shards.crew, None
        loads: list[Call] = []
        try:
            loads = [] if rows is None else self.loads(rows)
            if not self.shards.gathers:
                one_by_one(loads)
                loads = []
            for part, e in zip(self.parts, self.evaluations, strict=True):
                if e.noise is not None:
                    e.noise.begin(seed, number, part.start, factor)
        except Exception as found:
            error = found
        for k, passes in enumerate(self.passes):
            if k:
                one_by_one(self.meetings[k - 1])
            if error is None:
                try:
                    if loads and k == 0:
                        both = zip(loads, passes, strict=True)
                        passes = [partial(one_by_one, pair) for pair in both]
                    crew(passes)
                except Exception as found:
                    error = found
        self.group.settle(error, self.backend)
        crew(self.slices)
        one_by_one(self.total)


def _segments(tape: Tape) -> list[list[Call]]:
    """The calls of a tape, cut where it sums over shards."""
    ends = [place for place, _ in tape.sums]
    return [
        tape.calls[start:stop]
        for start, stop in zip([0, *ends], [*ends, len(tape.calls)], strict=True)
    ]


def _clear(x: Array) -> None:
    x[...] = 0.0
