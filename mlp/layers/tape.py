"""What layers write on: a tape of calls on fixed buffers, and the arena those buffers are from.

A pass is not run when it is written down. It is written once, as calls on fixed arrays, which
training then runs for every batch.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from backends import PRECISIONS, Array, Backend
from backends.formula import Formula
from mlp.errors import InputError, shown


@dataclass
class Slot:
    """A place for the left factor of products, which may hold another array in each run."""

    array: Array


class Tape:
    """A list of calls on fixed arrays: what a pass does, in order, to be run any number of times.

    Everything that depends on names, shapes or dtypes is settled when a call is written; running
    the tape reads nothing back from the device.
    """

    def __init__(self, backend: Backend, precision: str = "float32"):
        self.backend, self.precision = backend, precision
        self.calls: list[Callable[[], None]] = []
        self.sums: list[tuple[int, Array]] = []  # before which call, and of what
        self.late: list[tuple[Array, Array]] = []  # totals that are still to be taken

    def product(self, a: Array | Slot, b: Array, out: Array) -> None:
        """out <- a b. Factors may be transposed views."""
        if isinstance(a, Slot):
            product, slot, precision = self.backend.product, a, self.precision
            self.calls.append(lambda: product(slot.array, b, out, precision)())
            return
        self.calls.append(self.backend.product(a, b, out, self.precision))

    def products(
        self, pairs: Iterable[tuple[Array | Slot, Array]], out: Array, part: Callable[[], Array]
    ) -> None:
        """out <- Σ a b. part: a buffer like out, asked for if there is more than one term."""
        for term, (a, b) in enumerate(pairs):
            if term == 0:
                self.product(a, b, out)
            else:
                self.product(a, b, part())
                self.apply(add, (0,), out, part())

    def stack(self, a: Array, b: Array, out: Array, exact: bool = False) -> None:
        """out[i] <- a[i] b[i], stacks of matrices (k, n, m); (n, m) is the same for all i. exact:
        in the loss's dtype, in which all three are, whatever the precision."""
        precision = "float32" if exact else self.precision
        self.calls.append(self.backend.stack(a, b, out, precision))

    def total(self, x: Array, out: Array) -> None:
        """out <- the sum of the rows of x: (n, m) -> (m,)."""
        self.calls.append(self.backend.total(x, out))

    def total_late(self, x: Array, out: Array) -> None:
        """The same at the end of the pass, until which x stays as it is and nobody reads out: a
        device then takes all such sums at once."""
        self.late.append((x, out))

    def end(self) -> None:
        """Of a pass: what was put off."""
        if self.late:
            self.calls.append(self.backend.totals(self.late))
            self.late = []

    def sum_shards(self, x: Array) -> None:
        """x (k,), contiguous, <- its sum over the shards of the batch, where it is cut into some
        that are passes of their own (`mlp.parallel.shards`); else it is the sum already."""
        self.sums.append((len(self.calls), x))

    def copy(self, source: Array, out: Array) -> None:
        """out <- source, in out's dtype."""
        self.calls.append(partial(self.backend.copy, source, out))

    def take(self, x: Array, index: Array, out: Array) -> None:
        """out <- the rows of x at index, (k,) int64."""
        self.calls.append(partial(self.backend.take, x, index, out))

    def scatter(self, x: Array, index: Array, out: Array) -> None:
        """out[k] <- the sum of the rows of x whose index, (n,) int64, is k."""
        self.calls.append(self.backend.scatter(x, index, out))

    def one_hot(self, labels: Array, out: Array) -> None:
        """out[i, k] <- 1 where labels[i] == k, else 0; labels (n,) int64."""
        self.calls.append(partial(self.backend.one_hot, labels, out))

    def apply(
        self,
        formula: Formula,
        into: Sequence[int],
        *arrays: Array,
        scalars: Sequence[float] = (),
    ) -> None:
        """The formula as one kernel; its results go into the arrays at the positions ``into``.

        The arrays broadcast as rows and columns do; see `backends.formula` for what a formula is.
        """
        kernel = self.backend.fuse(formula, into).bind(*arrays, scalars=len(scalars))
        self.calls.append(partial(kernel, *scalars) if scalars else kernel)

    def run(self) -> None:
        """Every call, in the order in which they were written."""
        for call in self.calls:
            call()


def add(xp: Any, x: Array, more: Array) -> Array:
    """One more term of a sum over sources or targets."""
    return x + more


def times(xp: Any, out: Array, x: Array, factor: Array) -> Array:
    """x ⊙ factor."""
    return x * factor


def repeated(tape: Tape, x: Array, members: int) -> Array:
    """Each row of x (n, c) once for each member, (n · members, c), members of a row next to each
    other; one row for all stays as it is."""
    if members == 1 or x.shape[0] == 1:
        return x
    n = x.shape[0]
    tall = tape.backend.empty((n * members, x.shape[1]), x.dtype)
    tape.take(x, tape.backend.asarray(np.repeat(np.arange(n), members)), tall)
    return tall


def check_precision(precision: str) -> None:
    """InputError if it is not the name of one; `mlp.Model` says what they are."""
    if not isinstance(precision, str) or precision not in PRECISIONS:
        raise InputError(
            f"precision must be one of {', '.join(PRECISIONS)}, not {shown(precision)}"
        )


class Arena:
    """Buffers of up to ``rows`` rows, made when first asked for; fewer rows are a view of them.

    ``dtype`` is that of the outputs and the loss, ``storage`` that of the activations and deltas of
    the hidden layers: half as wide where the precision is mixed.
    """

    def __init__(self, backend: Backend, precision: str, rows: int):
        self.backend, self.precision, self.rows = backend, precision, rows
        self.dtype = PRECISIONS[precision].dtype
        self.storage = PRECISIONS[precision].storage
        self.buffers: dict[tuple[Any, ...], Any] = {}
        self.noise: Any = None  # what its passes draw (`mlp.layers.noise`), if they do

    def get(
        self,
        name: tuple[Any, ...],
        n: int,
        columns: int,
        dtype: str | None = None,
        members: int = 1,
    ) -> Array:
        """(n · members, columns): the same memory whatever n is, up to ``rows``."""
        if name not in self.buffers:
            shape = (self.rows * members, columns)
            self.buffers[name] = self.backend.empty(shape, dtype or self.dtype)
        return self.buffers[name][: n * members, :]

    @property
    def layer_bytes(self) -> int:
        """Of the buffers that belong to layers, (name, number of the layer) by their name."""
        return sum(x.nbytes for name, x in self.buffers.items() if len(name) > 1)

    def vector(self, name: tuple[Any, ...], size: int, dtype: str | None = None) -> Array:
        """A buffer that does not depend on the rows, (size,) in the storage's dtype."""
        if name not in self.buffers:
            self.buffers[name] = self.backend.empty((size,), dtype or self.storage)
        return self.buffers[name]
