"""No library, for plans: arrays of a shape and a dtype, and no memory, whose bytes are counted.

What is set up on it is set up by the very code that runs later on the device, so the bytes that it
counts are the bytes that will be asked for; products and kernels do nothing. What a library takes
in passing is not counted: a copy while data are sent, work space of a product (but that of recorded
steps is), and, with backends that have no kernels of their own (torch, array-api-strict), the
intermediate results of a formula.

>>> count = Count()
>>> with count.under("batch"):
...     x = count.empty((256, 784), "float32")
>>> x.shape, count.bytes, count.asked
((256, 784), {'batch': 802816}, 802816)
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import array_api_compat.numpy as xp
import numpy as np

from backends.base import Backend, Kernel, Memory, Native, Staging, check_known
from backends.formula import Formula
from backends.philox import Clock


class Count(Backend):
    """The shapes of another backend, and none of its memory; without one, of a device that owns
    nothing yet.

    ``bytes``: what was asked for, by the heading of the moment (`under`).
    """

    name = "count"
    xp = xp
    device = "cpu"

    def __init__(self, real: Backend | None = None):
        self.real = real
        self.bytes: dict[str, int] = {}
        self.heading, self.kept = "", 0
        self.staged = self.sending = 0  # of the host's memory, locked for good and for a while

    @contextmanager
    def under(self, heading: str) -> Iterator[None]:
        """What is asked for within counts under this heading."""
        before, self.heading = self.heading, heading
        try:
            yield
        finally:
            self.heading = before

    @property
    def locked(self) -> int:
        """Bytes of the host's memory that are page-locked for copies, at most."""
        return self.staged + self.sending

    @property
    def asked(self) -> int:
        """All bytes that were asked for."""
        return sum(self.bytes.values())

    def owns(self, x: Any) -> bool:
        return self.real is not None and self.real.owns(x)

    def asarray(self, x: Any, dtype: str | None = None) -> Native:
        given = str(x.dtype).rpartition(".")[2]
        if self.owns(x) and dtype in (None, given):
            return shaped(x.shape, given)  # it is there already
        there = self.empty(x.shape, dtype or given)
        if self.real is not None:
            self.sending = max(self.sending, self.real.locks(there.nbytes, stays=True))
        return there

    def filled(
        self, shape: Sequence[int], dtype: str, write: Callable[[slice, np.ndarray], None]
    ) -> Native:
        return self.asarray(shaped(shape, dtype))

    def to_numpy(self, x: Native) -> np.ndarray:
        raise NotImplementedError("what is only counted has no values")

    def empty(self, shape: Sequence[int], dtype: Any) -> Native:
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

    def host(self, shape: Sequence[int], dtype: Any) -> np.ndarray:
        x = shaped(shape, dtype)  # of the host's memory
        self.staged += 0 if self.real is None else self.real.locks(x.nbytes)
        return x

    def memory(self) -> Memory:
        return Memory() if self.real is None else self.real.memory()

    def require(self, precision: str) -> None:
        """Any that has a name: the backend itself is asked."""
        check_known(precision)

    def full(self, shape: Sequence[int], value: float, dtype: Any) -> Native:
        return self.empty(shape, dtype)

    def fuse(self, formula: Formula, into: Sequence[int] = (0,)) -> Kernel:
        return _CountedKernel(self.xp, formula, into)

    def clock(self) -> Clock:
        return super().clock() if self.real is None else type(self.real).clock(self)

    def uniform(
        self,
        clock: Clock,
        stream: int,
        shape: tuple[int, int],
        samples: int,
        room: Callable[[], Native],
    ) -> tuple[Native, Callable[[], None] | None]:
        """Stored where the other backend stores them."""
        if self.real is None:
            return room(), _nothing
        return type(self.real).uniform(self, clock, stream, shape, samples, room)

    def record(self, call: Callable[[], None]) -> Callable[[], None]:
        self.empty((0 if self.real is None else self.real.recording_bytes,), "uint8")
        return _nothing

    def product(
        self, a: Native, b: Native, out: Native, precision: str = "float32"
    ) -> Callable[[], None]:
        return _nothing

    def stack(
        self, a: Native, b: Native, out: Native, precision: str = "float32"
    ) -> Callable[[], None]:
        return _nothing

    def total(self, x: Native, out: Native) -> Callable[[], None]:
        return _nothing

    def totals(self, pairs: Sequence[tuple[Native, Native]]) -> Callable[[], None]:
        return _nothing

    def turn(
        self,
        found: Native,
        kept: Native,
        tables: Sequence[Native],
        places: Sequence[Native],
        counter: Native,
        count: int,
    ) -> Callable[[], None]:
        return _nothing

    def scatter(self, x: Native, index: Native, out: Native) -> Callable[[], None]:
        return _nothing

    # What writes into arrays has nothing to write to.

    def copy(self, source: Native, out: Native) -> None: ...

    def upload(self, x: np.ndarray, out: Native) -> None: ...

    def download(self, x: Native, out: np.ndarray) -> None: ...

    def take(self, x: Native, index: Native, out: Native) -> None: ...

    def one_hot(self, labels: Native, out: Native, rows: Native | None = None) -> None: ...


class _CountedKernel(Kernel):
    def bind(self, *arrays: Native, scalars: int = 0) -> Callable[..., None]:
        return _nothing


class _CountedStaging(Staging):
    def __init__(self, count: Count, shape: Sequence[int], dtype: str):
        self.device = self.host = count.empty(shape, dtype)
        if count.memory().shared:
            count.empty(shape, dtype)  # the host's buffer is in the same memory
        count.host(shape, dtype)


def _nothing(*scalars: float) -> None:
    """A call that does nothing."""


def shaped(shape: Sequence[int], dtype: Any) -> np.ndarray:
    """An array of this shape that takes the memory of one number; not to be written to."""
    return np.broadcast_to(np.zeros((), dtype), tuple(shape))
