"""The order of the samples in an epoch and the rows held out: functions of the seed alone.

Rows in memory are permuted, all of them (`order`). Rows on disk are read in blocks (`BlockOrder`),
as CorgiPile does (Xu et al., arXiv 2206.05830, Algorithm 1): the blocks are permuted, a buffer is
filled with the next of them, and its rows are permuted. On a file that is sorted by label it trains
as well as a full permutation, where a window of as many rows, all of one label, does not. Here both
draws are stratified: a buffer has a block of each 64th of the file, a batch as many rows of each.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from backends.philox import Clock, fill
from mlp.data.labels import as_labels
from mlp.errors import InputError, check_whole, is_finite, shown
from mlp.seeds import generator, key


def order(seed: int, epoch: int, n: int) -> np.ndarray:
    """The order of the n samples in one epoch, (n,) int64: a function of (seed, epoch) alone.

    >>> bool((order(1, 2, 9) == order(1, 2, 9)).all()), sorted(order(1, 2, 3).tolist())
    (True, [0, 1, 2])
    """
    return generator(seed, "order", epoch).permutation(n).astype(np.int64, copy=False)


def classes_of(t: Any) -> list[np.ndarray]:
    """The rows of each class that occurs, (k,) int64, from targets on the host: class numbers (n,),
    or (n, c) of 0 and 1, one 1 a row or a single column. InputError if they are anything else."""
    t = np.asarray(t)
    if t.ndim == 2:
        one = (t.sum(axis=1) == 1.0).all() or t.shape[1] == 1
        if not (one and np.isin(t, (0, 1)).all()):
            raise InputError(
                "shuffle = 'balanced' needs one class a row: class numbers, labels, or targets of "
                "0 and 1 with a single 1 a row"
            )
        t = t[:, 0] if t.shape[1] == 1 else t.argmax(axis=1)
    found, numbers = np.unique(t, return_inverse=True)
    rows = np.argsort(numbers, kind="stable")
    return np.split(rows, np.cumsum(np.bincount(numbers, minlength=len(found)))[:-1])


def balanced(seed: int, epoch: int, classes: list[np.ndarray]) -> np.ndarray:
    """An order in which the k classes come equally often, (n,) int64: a function of (seed, epoch).

    classes: the n rows, by class. Rounds of one row a class, in random order, follow each other
    through all epochs, n rows to an epoch; each class goes through its rows in random order, again
    and again. So of any k rows in a batch each class has one, but for the two rounds at its ends,
    and no row comes a second time more often than another of its class.

    >>> classes = [np.arange(6), np.array([6, 7])]
    >>> balanced(0, 0, classes).tolist()
    [4, 7, 6, 0, 5, 7, 2, 6]
    """
    k, n = len(classes), sum(map(len, classes))
    first, last = epoch * n // k, -(-(epoch + 1) * n // k)  # rounds
    clock = Clock()
    clock.set(key(seed, "balance"), 0, first)
    who = _permutations(clock, 0, last - first, k)
    rows = np.empty((last - first, k), np.int64)
    for c, own in enumerate(classes):
        size = len(own)
        turns = range(first // size, -(-last // size))
        clock.set(key(seed, "balance"), 0, turns.start)
        drawn = own[_permutations(clock, c + 1, len(turns), size)].ravel()
        start = turns.start * size
        rows[:, c] = drawn[first - start : last - start]
    start = epoch * n - first * k
    return np.take_along_axis(rows, who, axis=1).ravel()[start : start + n]


def _permutations(clock: Clock, stream: int, count: int, size: int) -> np.ndarray:
    """(count, size): a permutation a row, each a function of its number."""
    u = np.empty((count, size), np.float32)
    fill(u, clock, stream)
    return np.argsort(u, axis=1, kind="stable")


BLOCK, BUFFER = 256, 64  # rows of a block, blocks of a buffer


class BlockOrder:
    """The order of n rows in one epoch, in blocks: a function of (seed, epoch) and the batch size.

    The blocks of BLOCK consecutive rows are cut into BUFFER sections of blocks that follow each
    other, each section is permuted, and a buffer has the next block of each: ``blocks`` are those
    of all buffers, of a buffer in the order of the sections; the last block in the file may be
    shorter. A buffer is gone through in rounds, in random order of one row of each of its blocks,
    drawn without replacement. So a batch has rows of all sections, as many of one as of another to
    one or two; and what is read for a part of each batch, as of a rank, is a part of the file.

    size: rows of a batch, which are then put in the order of the file; None leaves them. own: which
    part of a batch, both given as places in the order, will be asked for here; None is all of it.

    Read like the array that `order` gives, by slices, of which only the buffers that they touch
    are made.

    >>> once = BlockOrder(1, 2, 1000)
    >>> len(once), sorted(np.asarray(once).tolist()) == list(range(1000))
    (1000, True)
    >>> bool((once[200:300] == np.asarray(once)[200:300]).all())
    True
    >>> in_batches = BlockOrder(1, 2, 1000, size=100)
    >>> bool((in_batches[200:300] == np.sort(once[200:300])).all())
    True
    """

    def __init__(
        self,
        seed: int,
        epoch: int,
        n: int,
        size: int | None = None,
        own: Callable[[slice], slice] | None = None,
    ):
        self.seed, self.epoch, self.n, self.size, self.own = seed, epoch, n, size, own
        count = -(-n // BLOCK)
        drawn = generator(seed, "blocks", epoch).permutation(count)
        section = np.searchsorted(np.arange(1, BUFFER + 1) * count // BUFFER, drawn, "right")
        drawn, section = (x[np.argsort(section, kind="stable")] for x in (drawn, section))
        turn = np.arange(count) - np.searchsorted(section, section)  # of a block in its section
        self.blocks = drawn[np.lexsort((section, turn))]
        sizes = np.where(self.blocks == n // BLOCK, n % BLOCK, BLOCK)
        self.ends = np.cumsum(np.add.reduceat(sizes, np.arange(0, len(sizes), BUFFER)))
        self._made: dict[int, np.ndarray] = {}  # of the buffers that were read last
        self._batch = slice(0, 0), np.empty(0, np.int64)  # and the batch

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, places: slice) -> np.ndarray:
        """The rows at these places of the order, (k,) int64."""
        start, stop, _ = places.indices(self.n)
        if stop <= start:
            return np.empty(0, np.int64)
        if self.size is None:
            return self._drawn(start, stop)
        held, rows = self._batch
        if not (held.start <= start and stop <= held.stop):  # its parts are asked for in turn
            first, end = start // self.size * self.size, -(-stop // self.size) * self.size
            held = slice(first, min(end, self.n))
            batch = np.arange(held.start, held.stop) // self.size * self.n
            rows = np.sort(batch + self._drawn(held.start, held.stop)) - batch
            self._batch = held, rows
        return rows[start - held.start : stop - held.start]

    def _drawn(self, start: int, stop: int) -> np.ndarray:
        """The same before batches are sorted."""
        first, last = np.searchsorted(self.ends, [start, stop - 1], "right").tolist()
        before = int(self.ends[first - 1]) if first else 0
        made = self._made
        self._made = {j: made[j] if j in made else self.buffer(j) for j in range(first, last + 1)}
        rows = list(self._made.values())
        return (rows[0] if len(rows) == 1 else np.concatenate(rows))[start - before : stop - before]

    def buffer(self, number: int) -> np.ndarray:
        """The rows of one buffer in the order in which batches take them, (k,) int64."""
        blocks = self.blocks[number * BUFFER : (number + 1) * BUFFER]
        rng = generator(self.seed, "blocks", self.epoch, number)
        rows = blocks[:, None] * BLOCK + np.arange(BLOCK)
        rounds = rng.permuted(rng.permuted(rows, axis=1).T, axis=1).ravel()
        return rounds[rounds < self.n]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        rows = self[: self.n]
        self._made, self._batch = {}, (slice(0, 0), np.empty(0, np.int64))
        return rows if dtype is None else rows.astype(dtype, copy=False)


class Wanted:
    """Which blocks of each buffer of an order have rows that will be asked for here, one buffer
    after the other."""

    def __init__(self, order: BlockOrder):
        self.order = BlockOrder(order.seed, order.epoch, order.n, order.size, order.own)
        self.begin(0)

    def begin(self, number: int) -> None:
        """The next one to be asked for is that buffer."""
        start = int(self.order.ends[number - 1]) if number else 0
        size = self.order.size or 1
        self.place, self.next = start // size * size, number
        self.found: list[np.ndarray] = []  # numbers of blocks that are of no buffer asked for yet

    def of(self, number: int) -> np.ndarray:
        """The blocks of a buffer, (k,) in their order there."""
        order = self.order
        blocks = order.blocks[number * BUFFER : (number + 1) * BUFFER]
        if order.own is None or order.size is None or number == len(order.ends):
            return blocks
        if number < self.next:
            self.begin(number)
        self.next = number + 1
        while self.place < order.ends[number]:
            batch = slice(self.place, min(self.place + order.size, order.n))
            self.found.append(np.unique(order[order.own(batch)] // BLOCK))
            self.place = batch.stop
        found = np.concatenate([np.empty(0, np.int64), *self.found])
        self.found = [found[~np.isin(found, blocks)]]
        return blocks[np.isin(blocks, found)]


def split(
    n: int, fraction: float, seed: int, *, labels: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Indices of the rows to train on and of the `fraction` held out, each sorted, int64.

    labels : (n,); each class then keeps its share among the held-out rows, to less than one row.

    >>> train, held_out = split(10, 0.3, seed=0)
    >>> len(train), len(held_out), sorted([*train.tolist(), *held_out.tolist()]) == list(range(10))
    (7, 3, True)
    """
    check_whole("split: n", n, 1)
    check_whole("split: seed", seed, 0)
    if not (is_finite(fraction) and 0 < fraction < 1):
        raise InputError(
            f"the held-out fraction must lie between 0 and 1, not be {shown(fraction, 60)}"
        )
    size = round(n * fraction)
    if not 0 < size < n:
        raise InputError(
            f"fraction {fraction} of {n} rows leaves {n - size} to train on and {size} held out; "
            "each needs at least 1: change the fraction or give more rows"
        )
    group = np.zeros(n, np.int64) if labels is None else as_labels(labels, "the labels of a split")
    if len(group) != n:
        raise InputError(f"a split of {n} rows needs {n} labels, not {len(group)}")
    _, group, counts = np.unique(group, return_inverse=True, return_counts=True)

    # Whole shares first; then one row more for the classes that are missing most of one.
    share = counts * fraction
    take = np.floor(share).astype(np.int64)
    take[np.argsort(take - share, kind="stable")[: size - take.sum()]] += 1

    shuffled = generator(seed, "split").permutation(n).astype(np.int64, copy=False)
    by_class = shuffled[np.argsort(group[shuffled], kind="stable")]
    rank = np.arange(n) - np.repeat(np.cumsum(counts) - counts, counts)  # of a row in its class
    held = rank < np.repeat(take, counts)
    return np.sort(by_class[~held]), np.sort(by_class[held])
