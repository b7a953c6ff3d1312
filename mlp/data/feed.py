"""Rows of a data set into the buffers of an evaluation, in the units of the network.

The data set lives on the device where it fits (`Backend.keeps`), scaled and in the working dtype.
Else it stays on the host as it was given, and batches stream through two buffers in turn: while the
device computes on one batch, the rows of the next are gathered on the host, scaled, and sent. A
SciPy sparse matrix always streams; the rows of a batch become dense when they are gathered. Rows on
disk (`mlp.data.row_files`) stream too: the order given to `Feed.rows` says what to read ahead.

Small integers and halves (uint8 images) stay as they are in either case, a quarter of the memory,
and are cast and scaled on the device when they are in a batch. What is scaled where is said in
`mlp.data.scaling`; each value goes one way, so a streamed data set gives the numbers of a resident
one bit for bit.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from backends import Array, Backend
from backends.base import spreads
from mlp.data.order import BlockOrder
from mlp.data.row_files import Part
from mlp.data.samples import Samples, is_sparse
from mlp.data.scaling import (
    Cast,
    Scaling,
    cast_on_device,
    constants,
    dtype_name,
    rescale,
    rescale_to,
)
from mlp.network.objective import Evaluation

Make = Callable[[int], Evaluation]
Bound = list[Callable[[Array], None]]
Rows = Any  # a slice, or int64 row numbers: on the device, of a streamed data set on the host


def slices(n: int, size: int) -> list[slice]:
    """n rows cut into runs of so many; the last may be shorter.

    >>> slices(5, 2)
    [slice(0, 2, None), slice(2, 4, None), slice(4, 5, None)]
    """
    return [slice(i, min(i + size, n)) for i in range(0, n, size)]


KEPT = ("uint8", "int8", "uint16", "int16", "float16")  # what stays as it is until its batch


@dataclass(frozen=True)
class Kind:
    """What has to be alike for samples to take the place of others in a feed: whether they stream,
    the dtype in which X comes to the device, whether that is its own, and whether there are class
    numbers and weights."""

    streamed: bool
    x_dtype: str
    kept: bool
    labels: bool
    weighted: bool


def kind_of(
    backend: Backend,
    dtype: str,
    samples: Samples,
    streamed: bool | None = None,
    storage: str | None = None,
    scaling: Scaling | None = None,
) -> Kind:
    """The kind of these samples, for a feed of the same arguments."""
    X, t, s = samples.X, samples.t, samples.s
    given = dtype_name(X)
    kept = given in KEPT and hasattr(backend.xp, given) and (scaling is None or scaling.affine)
    x_dtype = given if kept else storage or dtype
    if not isinstance(X, np.ndarray):
        streamed = is_sparse(X) or isinstance(X, Part)
    elif streamed is None:
        size = X.size * np.dtype(x_dtype).itemsize
        for x, of in ((t, "int64" if t is not None and t.ndim == 1 else dtype), (s, dtype)):
            size += 0 if x is None else x.size * np.dtype(of).itemsize
        streamed = not backend.keeps(size)
    return Kind(bool(streamed), x_dtype, kept, t is not None and t.ndim == 1, s is not None)


class Feed:
    """Samples for evaluations, in the units of the network.

    dtype: of t and s, and of X unless ``storage`` is another one that evaluations have theirs in.
    input_scaling, target_scaling: from the user's units. streamed: whether the rows stay on the
    host until their batch; None asks the backend whether it keeps the data set. What lives on the
    device already is read there, what is sparse streams.
    """

    def __init__(
        self,
        backend: Backend,
        dtype: str,
        samples: Samples,
        input_scaling: Scaling | None = None,
        target_scaling: Scaling | None = None,
        streamed: bool | None = None,
        storage: str | None = None,
    ):
        self.backend, self.dtype = backend, dtype
        self.input_scaling, self.target_scaling = input_scaling, target_scaling
        self.stream: Stream | None = None
        self.data: dict[str, Array] = {}
        self.order: Any = None
        self.buffers: dict[str, Array] = {}
        self.bound: list[Bound] = []  # the gathers of the samples of now, once bound
        self.kind = kind_of(backend, dtype, samples, streamed, storage, input_scaling)
        self.labels, self.weighted = self.kind.labels, self.kind.weighted
        self.constants = None  # of what is scaled when it is in a batch
        if self.kind.kept and input_scaling is not None:
            self.constants = constants(backend, input_scaling, dtype)
        self.load(samples)

    def load(self, samples: Samples) -> None:
        """These samples, of the kind of those before, in their place: what was bound reads them."""
        self.n, X, x_dtype = samples.n, samples.X, self.kind.x_dtype
        self._let_go()
        scaling = None if self.kind.kept else self.input_scaling
        if self.order is not None and self.order.shape[0] < self.n:
            self.order = None
        parts: dict[str, Any] = {}
        if isinstance(X, (np.ndarray, Part)) or is_sparse(X):
            X = X.tocsr() if is_sparse(X) else X
            parts["x"] = self._host(X, x_dtype, scaling, "X", samples.columns)
        if samples.t is not None:
            dtype = "int64" if self.labels else self.dtype
            parts["t"] = self._host(samples.t, dtype, self.target_scaling, "t")
        if samples.s is not None:
            parts["s"] = self._host(samples.s.reshape(-1, 1), self.dtype, None, "sample_weight")
        if self.kind.streamed:
            if self.stream is None:
                self.stream = Stream(self.backend)
            self.stream.load(parts)
            return
        self.data = {name: self._there(x) for name, x in parts.items()}
        if "x" not in parts:
            self.data["x"] = cast_on_device(self.backend, X, x_dtype, scaling, "X", samples.columns)

    @staticmethod
    def _host(x: Any, dtype: str, scaling: Scaling | None, what: str, columns: Any = None) -> Any:
        """A host array as it is if that is how the network takes it, else to be cast."""
        as_it_is = scaling is None and x.dtype == dtype and isinstance(x, np.ndarray)
        return x if as_it_is else Cast(x, dtype, scaling, what, columns)

    def _there(self, x: np.ndarray | Cast) -> Array:
        """All of a host array on the device; what is cast is not held twice on the host."""
        if isinstance(x, Cast):
            return self.backend.filled(x.shape, str(x.dtype), x.rows_to)
        return self.backend.asarray(x, str(x.dtype))

    def unload(self) -> None:
        """Let go of the samples; what is bound waits for others."""
        self.data = {}
        self._let_go()
        if self.stream is not None:
            self.stream.load({})

    def _let_go(self) -> None:
        for gathers in self.bound:
            gathers.clear()

    @property
    def X(self) -> Array | None:
        """The inputs on the device, if they live there."""
        return self.data.get("x")

    @property
    def in_place(self) -> bool:
        """Whether X is what an evaluation of all rows reads, so that it need not be gathered."""
        if self.X is None or self.kind.kept:
            return False
        return not isinstance(self.X, np.ndarray) or bool(self.X.flags.c_contiguous)

    def rows(self, index: np.ndarray | BlockOrder) -> Rows:
        """Row numbers, (k,) int64 on the host with k <= n, as `bind`'s function takes them: valid
        until the next call, which uses the same place on the device."""
        if self.stream is not None:
            self.stream.expect(index)
            return index
        rows = self.make_order()[: len(index)]
        self.backend.upload(np.asarray(index), rows)
        return rows

    def make_order(self) -> Array:
        """The place for row numbers, where the data set lives on the device."""
        if self.stream is None and self.order is None:
            self.order = self.backend.empty((self.n,), "int64")
        return self.order

    def bind(self, evaluation: Evaluation, place: int = 0) -> Callable[[Rows], None]:
        """A function that fills the evaluation's x, t and s with given rows.

        Of several evaluations the one with most rows comes first: its buffers serve the others of
        its place. They hold nothing from one call to the next.
        """
        backend, e = self.backend, evaluation
        rescaled, x = None, e.x
        if self.constants is not None and dtype_name(e.x) == self.dtype:
            rescaled = backend.fuse(rescale).bind(e.x, *self.constants)
        elif self.constants is not None:
            x = self._buffer(f"x {place}", e.x.shape, self.dtype)
            rescaled = backend.fuse(rescale_to).bind(e.x, x, *self.constants)
        self.make_room(e.n)
        bound: Bound = []
        self.bound.append(bound)
        given = {"x": x, "t": e.t, "s": e.s}
        outs = {name: out for name, out in given.items() if out is not None}

        def gather(data: Mapping[str, Array], rows: Array) -> None:
            if not bound:
                bound.append(backend.gathering([(data[name], out) for name, out in outs.items()]))
            bound[0](rows)

        def copy(data: Mapping[str, Array], rows: slice) -> None:
            for name, out in outs.items():
                if spreads(data[name], out):
                    backend.one_hot(data[name][rows], out)
                else:
                    backend.copy(data[name][rows, ...], out)

        def fill(rows: Rows) -> None:
            data = self.data
            if self.stream is not None:
                data, rows = self.stream.receive(rows), slice(0, e.n)
            (copy if isinstance(rows, slice) else gather)(data, rows)
            if rescaled is not None:
                rescaled()
            if self.stream is not None:
                self.stream.release()

        return fill

    def _buffer(self, name: str, shape: tuple[int, ...], dtype: str) -> Array:
        if name not in self.buffers or self.buffers[name].shape[0] < shape[0]:
            self.buffers[name] = self.backend.empty(shape, dtype)
        return self.buffers[name][: shape[0], ...]

    def make_room(self, rows: int) -> None:
        """Buffers for so many rows at once, where the data set streams."""
        if self.stream is not None:
            self.stream.make_room(rows)

    def ahead(self, rows: Rows) -> None:
        """These rows, this very object, are the next that will be asked for: a streamed data set
        gathers and sends them now, while the device is at work. Nobody has to say so."""
        if self.stream is not None and self.stream._count(rows):
            self.stream.send(rows)

    def room(self, columns: int) -> Array:
        """Where `keep` gathers results for all rows, (n, columns): beside the data, on the device
        or on the host."""
        if self.stream is not None:
            return np.empty((self.n, columns), self.dtype)
        return self.backend.empty((self.n, columns), self.dtype)

    def keep(self, y: Array, rows: slice, room: Array) -> None:
        """room[rows] <- y."""
        if self.stream is not None:
            room[rows] = self.backend.to_numpy(y)
        else:
            self.backend.copy(y, room[rows, :])


class Evaluations:
    """An evaluation for each number of rows that occurs, and what fills it from a feed.

    make: the evaluation of so many rows. The one with most is made first: its buffers serve the
    others. Without a feed they are filled by their user.
    """

    def __init__(self, feed: Feed | None, sizes: Iterable[int], make: Make):
        self.feed = feed
        self.of: dict[int, Evaluation] = {}
        self.fill: dict[int, Callable[[Rows], None]] = {}
        self.add(sizes, make)

    def add(self, sizes: Iterable[int], make: Make) -> None:
        """Evaluations of further sizes too."""
        for n in sorted(set(sizes) - self.of.keys(), reverse=True):
            self.of[n] = make(n)
            if self.feed is not None:
                self.fill[n] = self.feed.bind(self.of[n])

    def __getitem__(self, n: int) -> Evaluation:
        return self.of[n]

    def through(self, chunks: list[slice]) -> Iterator[tuple[int, slice, Evaluation]]:
        """Each chunk with its number and its evaluation, which has been run on it; the rows of the
        next are on their way by then."""
        for i, rows in enumerate(chunks):
            n = rows.stop - rows.start
            self.fill[n](rows)
            self.of[n].run()
            if self.feed is not None and i + 1 < len(chunks):
                self.feed.ahead(chunks[i + 1])
            yield i, rows, self.of[n]


def sizes_of(chunks: Iterable[slice]) -> set[int]:
    """The numbers of rows that occur among chunks."""
    return {rows.stop - rows.start for rows in chunks}


class Stream:
    """Rows of host arrays on their way to the device, through two buffers in turn.

    source: the arrays by name, of n rows each, in the dtypes that they have on the device.
    """

    def __init__(self, backend: Backend):
        self.backend = backend
        self.source: Mapping[str, Any] = {}
        self.n = self.size = 0
        self.buffers: list[dict[str, Any]] = []
        self.sent: Rows | None = None  # what is on its way in the first of the buffers

    def load(self, source: Mapping[str, Any]) -> None:
        """These arrays, as many as before and of their columns, in place of those before."""
        self.source, self.sent = source, None
        self.n = source["x"].shape[0] if source else 0
        if len(self.buffers) == 1 and self.size < self.n:
            size, self.size = self.size, 0
            self.make_room(size)

    def expect(self, order: Any) -> None:
        """Rows will be asked for in this order: those on disk are read ahead if it is in blocks."""
        for x in self.source.values():
            if isinstance(x, Cast) and isinstance(x.x, Part):
                x.x.file.expect(order if isinstance(order, BlockOrder) else None)

    def make_room(self, size: int) -> None:
        """Buffers of so many rows; one is enough where all rows are one batch."""
        if size <= self.size:
            return
        self.size, self.sent, self.buffers = size, None, []  # the old ones go first
        self.buffers = [
            {
                name: self.backend.staging((size, *x.shape[1:]), str(x.dtype))
                for name, x in self.source.items()
            }
            for _ in range(2 if size < self.n else 1)
        ]

    def send(self, rows: Rows) -> None:
        """Gather these rows and start their copy."""
        self.buffers.reverse()
        self.sent, self.count = None, self._count(rows)
        for name, staging in self.buffers[0].items():
            staging.wait()
            _gather_on_host(self.source[name], rows, staging.host[: self.count])
            staging.send(self.count)
        self.sent = rows  # all of them

    def receive(self, rows: Rows) -> dict[str, Array]:
        """The rows on the device, by name; sent now if they were not announced."""
        if self.sent is not rows:
            self.send(rows)
        self.sent = None
        arrived = {}
        for name, staging in self.buffers[0].items():
            staging.receive()
            arrived[name] = staging.device[: self.count, ...]
        return arrived

    def release(self) -> None:
        """What `receive` gave has been read."""
        for staging in self.buffers[0].values():
            staging.release()

    def _count(self, rows: Rows) -> int:
        return len(range(*rows.indices(self.n))) if isinstance(rows, slice) else len(rows)


def _gather_on_host(x: Any, rows: Rows, out: np.ndarray) -> None:
    if isinstance(x, Cast):
        x.rows_to(rows, out)
    elif isinstance(rows, slice):
        out[...] = x[rows]
    else:
        np.take(x, rows, 0, out, "clip")  # "raise" buffers; rows are numbers of ours
