"""Rows of a data set into the buffers of an evaluation.

The data set lives on the device where it fits (`Backend.keeps`), in a dtype of its own: uint8
images stay uint8 and are cast when a batch is gathered; float64 is taken over in the working dtype.
Else it stays on the host as it was given, and batches stream through two buffers in turn: while the
device computes on one batch, the rows of the next are gathered on the host and sent. A SciPy sparse
matrix always streams; the rows of a batch become dense when they are gathered.

Either way the rows are cast and scaled, x' = (x - shift) / scale, by the same kernels on the
device, so that a streamed data set gives the numbers of a resident one bit for bit.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from backends import Array, Backend
from mlp.data.samples import Samples, dtype_name, is_sparse
from mlp.data.scaling import Scaling
from mlp.network.objective import Evaluation

Rows = Any  # a slice, or int64 row numbers: on the device, of a streamed data set on the host


def slices(n: int, size: int) -> list[slice]:
    """n rows cut into runs of so many; the last may be shorter.

    >>> slices(5, 2)
    [slice(0, 2, None), slice(2, 4, None), slice(4, 5, None)]
    """
    return [slice(i, min(i + size, n)) for i in range(0, n, size)]


def rescale(xp: Any, x: Array, shift: Array, factor: Array) -> Array:
    """(x - shift) / scale, with factor = 1 / scale."""
    return (x - shift) * factor


def rescale_to(xp: Any, narrow: Array, x: Array, shift: Array, factor: Array) -> Array:
    """The same into float16, for which numbers may be too large before they are scaled."""
    return (x - shift) * factor


class Feed:
    """Samples for evaluations, in the units of the network.

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
    ):
        X, t, s = samples.X, samples.t, samples.s
        self.backend, self.dtype, self.n = backend, dtype, samples.n
        self.labels = t is not None and t.ndim == 1
        self.weighted = s is not None
        if t is not None and target_scaling is not None:
            t = target_scaling.apply(t, dtype)
        given = {"x": X.tocsr() if is_sparse(X) else X, "t": t}
        given["s"] = None if s is None else s.reshape(-1, 1)
        given = {name: x for name, x in given.items() if x is not None}
        dtypes = {"x": dtype_name(X) if _stays(X) else dtype, "t": dtype, "s": dtype}
        if self.labels:
            dtypes["t"] = "int64"
        if not isinstance(X, np.ndarray):
            streamed = is_sparse(X)
        elif streamed is None:
            size = sum(x.size * np.dtype(dtypes[name]).itemsize for name, x in given.items())
            streamed = not backend.keeps(size)
        self.stream = Stream(backend, given, dtypes) if streamed else None
        self.data = {}
        if not streamed:
            self.data = {name: backend.asarray(x, dtypes[name]) for name, x in given.items()}
        self.order: Array | None = None
        self.buffers: dict[str, Array] = {}
        self.scaling = None
        if input_scaling is not None:
            self.scaling = (
                backend.asarray(input_scaling.shift, dtype),
                backend.asarray(1.0 / input_scaling.scale, dtype),
            )

    @property
    def X(self) -> Array | None:
        """The inputs on the device, if they live there."""
        return self.data.get("x")

    @property
    def in_place(self) -> bool:
        """Whether X is what an evaluation of all rows reads, so that it need not be gathered."""
        if self.X is None or self.scaling is not None:
            return False
        contiguous = not isinstance(self.X, np.ndarray) or self.X.flags.c_contiguous
        return contiguous and dtype_name(self.X) == self.dtype

    def rows(self, index: np.ndarray) -> Rows:
        """Row numbers, (k,) int64 on the host with k <= n, as `bind`'s function takes them: valid
        until the next call, which uses the same place on the device."""
        if self.stream is not None:
            return index
        if self.order is None:
            self.order = self.backend.empty((self.n,), "int64")
        rows = self.order[: len(index)]
        self.backend.upload(index, rows)
        return rows

    def bind(self, evaluation: Evaluation) -> Callable[[Rows], None]:
        """A function that fills the evaluation's x, t and s with given rows.

        Of several evaluations the one with most rows comes first: its buffers serve the others.
        They hold nothing from one call to the next.
        """
        backend, e = self.backend, evaluation
        labels = None
        if self.labels and e.t is not None:
            labels = self._buffer("labels", (e.n,), "int64")
        rescaled, x = None, e.x
        if self.scaling is not None and dtype_name(e.x) == self.dtype:
            rescaled = backend.fuse(rescale, into=(0,)).bind(e.x, *self.scaling)
        elif self.scaling is not None:
            x = self._buffer("x", e.x.shape, self.dtype)
            rescaled = backend.fuse(rescale_to, into=(0,)).bind(e.x, x, *self.scaling)
        self.make_room(e.n)

        def fill(rows: Rows) -> None:
            data = self.data
            if self.stream is not None:
                data, rows = self.stream.receive(rows), slice(0, e.n)
            self._gather(data["x"], rows, x)
            if rescaled is not None:
                rescaled()
            if labels is not None:
                self._gather(data["t"], rows, labels)
                backend.one_hot(labels, e.t)
            elif e.t is not None:
                self._gather(data["t"], rows, e.t)
            if e.s is not None:
                self._gather(data["s"], rows, e.s)
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
        if self.stream is not None:
            self.stream.send(rows)

    def through(
        self, chunks: list[slice], runs: Mapping[int, tuple[Evaluation, Callable[[Rows], None]]]
    ) -> Iterator[tuple[int, slice, Evaluation]]:
        """Each chunk with its number and its evaluation, which has been run on it; the rows of the
        next are on their way by then. runs: an evaluation for so many rows, and what fills it."""
        for i, rows in enumerate(chunks):
            evaluation, fill = runs[rows.stop - rows.start]
            fill(rows)
            evaluation.run()
            if i + 1 < len(chunks):
                self.ahead(chunks[i + 1])
            yield i, rows, evaluation

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

    def _gather(self, x: Array, rows: Rows, out: Array) -> None:
        if isinstance(rows, slice):
            self.backend.copy(x[rows, ...], out)
        else:
            self.backend.take(x, rows, out)


class Stream:
    """Rows of host arrays on their way to the device, through two buffers in turn.

    source: the arrays by name, of n rows each. dtypes: what they are on the device.
    """

    def __init__(self, backend: Backend, source: Mapping[str, Any], dtypes: Mapping[str, str]):
        self.backend, self.source, self.dtypes = backend, source, dtypes
        self.n = source["x"].shape[0]
        self.size = 0
        self.buffers: list[dict[str, Any]] = []
        self.sent: Rows | None = None  # what is on its way in the first of the buffers

    def make_room(self, size: int) -> None:
        """Buffers of so many rows; one is enough where all rows are one batch."""
        if size <= self.size:
            return
        self.size, self.sent, self.buffers = size, None, []  # the old ones go first
        self.buffers = [
            {
                name: self.backend.staging((size, *x.shape[1:]), self.dtypes[name])
                for name, x in self.source.items()
            }
            for _ in range(2 if size < self.n else 1)
        ]

    def send(self, rows: Rows) -> None:
        """Gather these rows and start their copy."""
        self.buffers.reverse()
        self.sent, self.count = rows, self._count(rows)
        for name, staging in self.buffers[0].items():
            staging.wait()
            _gather_on_host(self.source[name], rows, staging.host[: self.count])
            staging.send(self.count)

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
    if is_sparse(x):
        out[...] = x[rows].toarray()
    elif isinstance(rows, slice) or x.dtype != out.dtype:
        out[...] = x[rows]
    else:
        np.take(x, rows, 0, out, "clip")  # "raise" buffers; rows are numbers of ours


def _stays(X: Array) -> bool:
    """Whether X is kept in its dtype: small integers and half precision."""
    return dtype_name(X) in ("uint8", "int8", "uint16", "int16", "float16")
