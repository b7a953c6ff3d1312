"""What a computation will ask of a device's memory, counted without asking for it.

`Count` is a backend whose arrays have a shape and a dtype and no memory, and whose kernels and
products do nothing. What is set up on it is set up by the very code that runs later on the device,
so the bytes that it counts are the bytes that will be asked for. What a library takes in passing is
not counted: a copy while data are sent, work space of a product (but that of recorded steps is),
and, with backends that have no kernels of their own (torch, array-api-strict), the intermediate
results of a formula.

>>> count = Count()
>>> with count.under("batch"):
...     x = count.empty((256, 784), "float32")
>>> x.shape, count.bytes, megabytes(count.asked)
((256, 784), {'batch': 802816}, '802.8 kB')
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import array_api_compat.numpy as xp
import numpy as np

from backends import Array, Backend, Kernel, Memory
from backends.base import Staging
from mlp.errors import InputError


class Count(Backend):
    """The shapes of another backend, and none of its memory; with none, of a device that owns
    nothing yet.

    ``bytes``: what was asked for, by the heading of the moment (`under`).
    """

    xp = xp
    device = "cpu"

    def __init__(self, real: Backend | None = None):
        self.real, self.name = real, "count"
        self.bytes: dict[str, int] = {}
        self.heading, self.kept = "", 0

    @contextmanager
    def under(self, heading: str) -> Iterator[None]:
        """What is asked for within counts under this heading."""
        before, self.heading = self.heading, heading
        try:
            yield
        finally:
            self.heading = before

    @property
    def asked(self) -> int:
        """All bytes that were asked for."""
        return sum(self.bytes.values())

    def owns(self, x: Any) -> bool:
        return self.real is not None and self.real.owns(x)

    def asarray(self, x: Any, dtype: str | None = None) -> Array:
        given = str(x.dtype).rpartition(".")[2]
        if self.owns(x) and dtype in (None, given):
            return shaped(x.shape, given)  # it is there already
        return self.empty(x.shape, dtype or given)

    def to_numpy(self, x: Array) -> np.ndarray:
        raise NotImplementedError("what is only counted has no values")

    def empty(self, shape: Sequence[int], dtype: Any) -> Array:
        x = shaped(shape, dtype)
        self.bytes[self.heading] = self.bytes.get(self.heading, 0) + x.nbytes
        return x

    def keeps(self, size: int) -> bool:
        """Beside the data sets that it keeps already."""
        if self.real is not None and not self.real.keeps(self.kept + size):
            return False
        self.kept += size
        return True

    def staging(self, shape: Sequence[int], dtype: str) -> Staging:
        return _CountedStaging(self, shape, dtype)

    def memory(self) -> Memory:
        return Memory() if self.real is None else self.real.memory()

    def require(self, precision: str) -> None:
        """Any: the backend itself is asked."""

    def fuse(self, formula: Any, into: Sequence[str]) -> Kernel:
        return _CountedKernel(self.xp, formula, into)

    def record(self, call: Callable[[], None]) -> Callable[[], None]:
        self.empty((0 if self.real is None else self.real.recording_bytes,), "uint8")
        return _nothing

    def product(
        self, a: Array, b: Array, out: Array, precision: str = "float32"
    ) -> Callable[[], None]:
        return _nothing

    def total(self, x: Array, out: Array) -> Callable[[], None]:
        return _nothing

    # What writes into arrays has nothing to write to.

    def fill(self, x: Array, value: float) -> None: ...

    def copy(self, source: Array, out: Array) -> None: ...

    def upload(self, x: np.ndarray, out: Array) -> None: ...

    def matmul(self, a: Array, b: Array, out: Array) -> None: ...

    def sum(self, x: Array, out: Array) -> None: ...

    def take(self, x: Array, index: Array, out: Array) -> None: ...

    def one_hot(self, labels: Array, out: Array) -> None: ...


class _CountedKernel(Kernel):
    def bind(self, *arrays: Array) -> Callable[..., None]:
        return _nothing


class _CountedStaging(Staging):
    def __init__(self, count: Count, shape: Sequence[int], dtype: str):
        self.device = self.host = count.empty(shape, dtype)
        if count.memory().shared:
            count.empty(shape, dtype)  # the host's buffer is in the same memory


def _nothing(*scalars: float) -> None:
    """A call that does nothing."""


def shaped(shape: Sequence[int], dtype: Any) -> np.ndarray:
    """An array of this shape that takes the memory of one number; not to be written to."""
    return np.broadcast_to(np.zeros((), dtype), tuple(shape))


# ------------------------------------------------------------------------------ out of memory


def shortages(backend: Backend) -> tuple[type[BaseException], ...]:
    """What is raised if the device or the host has no memory left."""
    return (MemoryError, *backend.out_of_memory)


@contextmanager
def enough_memory(backend: Backend, what: str) -> Iterator[None]:
    """InputError if memory runs out in what is done."""
    try:
        yield
    except shortages(backend) as error:
        where, cause = shortage(backend, error)
        less = "less data" if where == HOST else "smaller batches or a smaller net"
        raise InputError(
            f"{what}: out of memory on {where} ({cause}); use {less}, or end what else uses the "
            "memory"
        ) from error


HOST = "the host"


def shortage(backend: Backend, error: BaseException) -> tuple[str, str]:
    """Where memory ran out, on the backend's device or on the host, and what the error says."""
    where = backend.device_name() if isinstance(error, backend.out_of_memory) else HOST
    return where, (str(error).splitlines() or [type(error).__name__])[0]


# ------------------------------------------------------------------------------ a plan


@dataclass(frozen=True)
class Plan:
    """What a training will ask of the device that is not taken yet, against what there is.

    ``parts``: bytes by heading; "weights" are those that are trained, their last finite values and
    with patience the best ones. streamed: whether the rows to train on, and the validation rows,
    stay on the host and are sent batch by batch. at: the plan with another batch_size.
    """

    parts: dict[str, int]
    batch_size: int
    rows: int
    streamed: tuple[bool, bool]
    device: str
    memory: Memory
    at: Callable[[int], "Plan"] = field(repr=False, compare=False)

    @property
    def needed(self) -> int:
        """Bytes in all."""
        return sum(self.parts.values())

    @property
    def fits(self) -> bool:
        """Whether there is as much. Of shared memory all of it counts (see `backends.Memory`);
        where nobody knows, it fits."""
        return self.memory.limit is None or self.needed <= self.memory.limit

    def largest(self) -> int:
        """The largest batch_size that fits, at most all rows; 0 if none does."""
        if self.at(self.rows).fits:
            return self.rows
        fits, too_large = 0, self.rows
        while too_large - fits > 1:
            middle = (fits + too_large) // 2
            fits, too_large = (middle, too_large) if self.at(middle).fits else (fits, middle)
        return fits

    def check(self) -> None:
        """InputError if it does not fit: what is needed, what there is, and what would fit."""
        if self.fits:
            return
        limit = megabytes(self.memory.limit or 0)
        there = f"has {limit} in all" if self.memory.shared else f"has {limit} free"
        if largest := self.largest():
            raise InputError(
                f"this training needs {megabytes(self.needed)}, {self.device} {there}: the largest "
                f"batch_size that fits is {largest}, not {self.batch_size}"
            )
        least = self.at(1)
        part, size = max(least.parts.items(), key=lambda entry: entry[1])
        raise InputError(
            f"this training needs {megabytes(least.needed)} even at batch_size 1, {self.device} "
            f"{there}: the {part} {_alone(part)} {megabytes(size)}; {_CURES.get(part, _CURES[''])}"
        )

    def line(self) -> str:
        """In one line: "memory: 12 MB of 8.0 GB free on DEVICE (data 3.1 MB, ...)"."""
        free = "" if self.memory.free is None else f" of {megabytes(self.memory.free)} free"
        parts = ", ".join(
            f"{name}{' streamed' if name == 'data' and self.streamed[0] else ''} {megabytes(size)}"
            for name, size in self.parts.items()
        )
        return f"memory: {megabytes(self.needed)}{free} on {self.device} ({parts})"

    def __str__(self) -> str:
        """A table: a line for each part, what is needed in all, and what is free."""
        notes = {
            "weights": "and copies of them: the last finite, with patience the best",
            "data": _where(self.streamed[0]),
            "validation": _where(self.streamed[1]),
            "step": f"gradient, activations and deltas of {self.batch_size} rows",
        }
        lines = [(name, size, notes.get(name, "")) for name, size in self.parts.items()]
        lines.append(("needed", self.needed, ""))
        if self.memory.free is not None:
            lines.append(("free", self.memory.free, self.device))
        return "\n".join(
            f"{name:<11}{megabytes(size):>9}  {note}".rstrip() for name, size, note in lines
        )


_CURES = {
    "weights": "make the net smaller, or use precision 'float32'",
    "optimizer": "use an optimizer with fewer vectors ('momentum' has one, 'sgd' none)",
    "": "make the net smaller, or use a device with more memory",
}


def _alone(part: str) -> str:
    return "take" if part in ("weights", "data") else "takes"


def _where(streamed: bool) -> str:
    return "streamed from the host batch by batch" if streamed else "on the device"


def megabytes(size: int | None) -> str:
    """Bytes for people, 1 MB = 10^6; "?" for None.

    >>> megabytes(900), megabytes(12_345_678), megabytes(2_500_000_000)
    ('0.9 kB', '12.3 MB', '2.5 GB')
    """
    if size is None:
        return "?"
    for unit, name in ((1e9, "GB"), (1e6, "MB")):
        if size >= unit:
            return f"{size / unit:.1f} {name}"
    return f"{size / 1e3:.1f} kB"
