"""What an adapter must give, and the defaults it may better.

An adapter wraps one array library on one device. It has a ``name``, the Array API namespace ``xp``
and the ``device``, and it must give three methods:

==========================  ======================================================================
``owns``                    tells arrays of this library on this device from all others
``asarray``, ``to_numpy``   the way there and the way back
==========================  ======================================================================

Everything else has a plain default written against the standard, so that a new backend is right at
once and fast later. What may be given, and what for:

==========================  ======================================================================
``empty``                   an allocation of the library's own
``copy``, ``upload``        no second array on the device, for a cast or for what is sent;
                            ``copying``: bound once
``filled``                  nor on the host, for rows that are cast on their way
``download``, ``host``      results to a host array, page-locked where that is faster
``product``, ``stack``,     BLAS and reductions into their place, bound once and called many times
``total``, ``totals``
``take``, ``scatter``,      no array in between; ``gathering``: several, bound once
``one_hot``, ``turn``
``fuse``                    formulas as kernels of one pass over memory
``clock``, ``uniform``      numbers drawn by the kernels that use them
``require``                 precisions beyond float32 and float64
``keeps``, ``staging``      data sets larger than the device, sent while it computes
``locks``                   what of the host's memory is page-locked for that
``mark``                    an order among streams that do not wait for each other
``record``                  steps replayed by the device; ``recording_bytes`` is what each keeps
``synchronize``             a device that computes behind the host's back
``scope``                   what must hold around a run
``workers``                 how many threads may make its calls at once
``memory``                  what is free; ``out_of_memory`` is what is raised when nothing is,
                            ``exhausted`` whether an error says so
``fails``, ``lost``         whether an error is of the device, and says that it computes no more
``device_name``,            what reports and saved runs say
``version``, ``devices``
==========================  ======================================================================
"""

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from backends.formula import SCALAR, Formula, NotFusable, Program, extent_of, trace
from backends.philox import Clock, fill
from backends.precision import PRECISIONS


class Array(Protocol):
    """An array of whichever library: what is used of the Array API's attributes and operators."""

    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def dtype(self) -> Any: ...
    @property
    def ndim(self) -> int: ...
    @property
    def T(self) -> "Array": ...

    def __getitem__(self, key: Any, /) -> "Array": ...
    def __setitem__(self, key: Any, value: Any, /) -> None: ...
    def __neg__(self) -> "Array": ...
    def __add__(self, other: Any, /) -> "Array": ...
    def __radd__(self, other: Any, /) -> "Array": ...
    def __sub__(self, other: Any, /) -> "Array": ...
    def __rsub__(self, other: Any, /) -> "Array": ...
    def __mul__(self, other: Any, /) -> "Array": ...
    def __rmul__(self, other: Any, /) -> "Array": ...
    def __truediv__(self, other: Any, /) -> "Array": ...
    def __rtruediv__(self, other: Any, /) -> "Array": ...
    def __matmul__(self, other: Any, /) -> "Array": ...
    def __lt__(self, other: Any, /) -> "Array": ...
    def __le__(self, other: Any, /) -> "Array": ...
    def __gt__(self, other: Any, /) -> "Array": ...
    def __ge__(self, other: Any, /) -> "Array": ...


Native = Any  # in an adapter: an array of its own library, with what that has beyond the standard


class BackendError(RuntimeError):
    """A backend that cannot be used; the message names the cause and the cure."""


def check_known(precision: str) -> None:
    """BackendError if NumPy has no name for what the precision stores: it has none of its own for
    bfloat16, but that of the package ml_dtypes."""
    if PRECISIONS[precision].storage == "bfloat16":
        try:
            import ml_dtypes  # noqa: F401, from then on the name is known
        except ModuleNotFoundError as error:
            raise BackendError(
                f"precision {precision!r} needs the package ml_dtypes ({error}): "
                "pip install ml_dtypes"
            ) from error


class BackendFull(BackendError):
    """A backend that would compute, on a device whose memory is taken."""


@dataclass(frozen=True)
class Memory:
    """Bytes on a device. What a library cannot tell is None.

    shared: with all programs of the machine. What is free there is a guess, since the page cache
    gives way and there may be a swap; only more than ``total`` is surely too much, or than what is
    ``left`` to this process within limits of its own (`backends.host_memory`).
    """

    free: int | None = None
    total: int | None = None
    shared: bool = False
    left: int | None = None

    @property
    def limit(self) -> int | None:
        """What no run can get more of: what is free, of shared memory all there is, or is left."""
        most = self.total if self.shared else self.free
        return min((size for size in (most, self.left) if size is not None), default=None)


class Kernel:
    """A formula whose results are written into some of its own arguments.

    ``into`` are their positions, one a result. Arrays come first among the arguments, scalars after
    them. `kernel(*arrays, *scalars)` runs at once; `kernel.bind(*arrays, scalars=k)` resolves
    everything that depends on the arrays and returns a function of k numbers, for use in a loop.

    This one computes, then assigns. The results of `f(xp, ...)` are all computed before the first
    assignment, so an argument may be read and overwritten.

    >>> from backends import get_backend
    >>> import numpy as np
    >>> def decay(xp, w, v, eta):
    ...     v = 0.5 * v
    ...     return w - eta * v, v
    >>> w, v = np.ones(2), np.full(2, 4.0)
    >>> step = get_backend("numpy").fuse(decay, into=(0, 1)).bind(w, v, scalars=1)
    >>> step(0.25)
    >>> w, v
    (array([0.5, 0.5]), array([2., 2.]))
    """

    def __init__(self, xp: Any, formula: Formula, into: Sequence[int] = (0,)):
        self.xp, self.formula, self.into = xp, formula, tuple(into)

    def bind(self, *arrays: Array, scalars: int = 0) -> Callable[..., None]:
        """The kernel on these arrays, as a function of so many scalars."""

        def run(*scalars: float) -> None:
            results = self.formula(self.xp, *arrays, *scalars)
            results = results if isinstance(results, tuple) else (results,)
            if len(results) > 1:  # a result that is an argument may be overwritten by another
                results = tuple(self._own(result, arrays) for result in results)
            for position, result in zip(self.into, results, strict=True):
                arrays[position][...] = result

        return run

    def _own(self, result: Any, arrays: Sequence[Array]) -> Any:
        given = any(result is x for x in arrays)
        return self.xp.asarray(result, copy=True) if given else result

    def __call__(self, *arguments: Any) -> None:
        arrays = [x for x in arguments if hasattr(x, "shape")]
        scalars = arguments[len(arrays) :]
        self.bind(*arrays, scalars=len(scalars))(*scalars)


class TracedKernel(Kernel, ABC):
    """A formula that is traced and written anew in the backend's own terms.

    What leaves the language of `backends.formula` runs plainly, and says so. ``own``: those of
    `backends.formula.OWN` that its kernels have.
    """

    own: tuple[str, ...] = ()

    def bind(self, *arrays: Array, scalars: int = 0) -> Callable[..., None]:
        shape = np.broadcast_shapes(*(x.shape for x in arrays))
        extents = [extent_of(x.shape, shape) for x in arrays] + [SCALAR] * scalars
        try:
            program = trace(self.formula, extents, self.into, self.own)
        except NotFusable as reason:
            warnings.warn(f"runs unfused, with temporary arrays: {reason}", stacklevel=3)
            return self.unfused(arrays, scalars)
        return self.write(program, arrays, shape)

    def unfused(self, arrays: Sequence[Array], scalars: int) -> Callable[..., None]:
        """The formula as it stands."""
        return super().bind(*arrays, scalars=scalars)

    @abstractmethod
    def write(
        self, program: Program, arrays: Sequence[Array], shape: tuple[int, ...]
    ) -> Callable[..., None]:
        """The program on these arrays, which broadcast to ``shape``, as a function of the
        scalars."""


class Staging:
    """Rows on their way to the device: ``host`` (a NumPy array to write into) and ``device``.

    In turn: `wait`, write into ``host``, `send`; then `receive` before the first kernel that reads
    ``device``, and `release` after the last. This one copies at once; a device's own copies beside
    what it computes, and the four calls say what has to wait for what.
    """

    def __init__(self, backend: "Backend", shape: Sequence[int], dtype: str):
        self.backend = backend
        self.host = np.empty(tuple(shape), dtype)
        self.device = backend.empty(shape, dtype)

    def wait(self) -> None:
        """Until ``host`` may be written: its last copy has left."""

    def send(self, rows: int) -> None:
        """Start the copy of the first ``rows`` rows, once the last reader of ``device`` is done."""
        self.backend.upload(self.host[:rows], self.device[:rows, ...])

    def receive(self) -> None:
        """What is asked of the device from now on waits for the copy."""

    def release(self) -> None:
        """What was asked of the device until now is the last that reads this copy."""


class Backend(ABC):
    """One array library on one device.

    Attributes: ``name`` as the user wrote it, ``xp`` the Array API namespace, ``device`` what
    ``xp`` takes as ``device=``.
    """

    name: str
    xp: Any
    device: Any = None

    # ------------------------------------------------------------------ what must be given

    @abstractmethod
    def owns(self, x: Any) -> bool:
        """Whether x is an array of this library that already lives on this device."""

    @abstractmethod
    def asarray(self, x: Any, dtype: str | None = None) -> Array:
        """x on this device, without a copy where it is there already in this dtype."""

    @abstractmethod
    def to_numpy(self, x: Array) -> np.ndarray:
        """x as a host array; the one way back from the device."""

    # ------------------------------------------------------------------ copies

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Pickled as its name, if that gives this very backend; else as any object."""
        from backends import get_backend

        with suppress(BackendError):
            if get_backend(self.name) is self:
                return get_backend, (self.name,)
        return super().__reduce_ex__(protocol)

    def __deepcopy__(self, memo: Any) -> "Backend":
        return self

    # ------------------------------------------------------------------ arrays

    def full(self, shape: Sequence[int], value: float, dtype: Any) -> Array:
        """An array of one value. ``dtype`` is a name or one of ``xp``'s dtypes."""
        x = self.empty(shape, dtype)
        x[...] = value
        return x

    def empty(self, shape: Sequence[int], dtype: Any) -> Array:
        """An array not yet written to."""
        dtype = getattr(self.xp, dtype) if isinstance(dtype, str) else dtype
        return self.xp.empty(tuple(shape), dtype=dtype, device=self.device)

    def copy(self, source: Array, out: Array) -> None:
        """out <- source, both on this device; the dtype is out's."""
        out[...] = source if source.dtype == out.dtype else self.xp.astype(source, out.dtype)

    def copying(self, source: Array) -> Callable[[Array], None]:
        """`copy` of this array as a function of where to, for use in a loop: out is contiguous and
        of its dtype, as source is."""
        return lambda out: self.copy(source, out)

    def upload(self, x: np.ndarray, out: Array) -> None:
        """out <- a host array of its shape and dtype."""
        self.copy(self.asarray(x), out)

    def filled(
        self, shape: Sequence[int], dtype: str, write: Callable[[slice, np.ndarray], None]
    ) -> Array:
        """An array whose rows ``write`` puts into host arrays that it is given."""
        x = np.empty(tuple(shape), dtype)
        write(slice(0, len(x)), x)
        return self.asarray(x, dtype)

    def download(self, x: Array, out: np.ndarray) -> None:
        """out, a host array of its shape and dtype, <- x."""
        out[...] = self.to_numpy(x)

    def host(self, shape: Sequence[int], dtype: Any) -> np.ndarray:
        """A host array not yet written to, from and to which the device copies as fast as it
        can."""
        return np.empty(tuple(shape), str(dtype).rpartition(".")[2])

    # ------------------------------------------------------------------ what it computes

    def require(self, precision: str) -> None:
        """BackendError if this backend cannot compute in the precision (`backends.precision`)."""
        has = [name for name, found in PRECISIONS.items() if found.everywhere]
        if precision not in has:
            others = [name for name in PRECISIONS if name not in has]
            raise BackendError(
                f"precision {precision!r}: backend '{self.name}' has {' and '.join(has)}; "
                f"{', '.join(others[:-1])} and {others[-1]} are for backend 'cupy'"
            )

    def product(
        self, a: Array, b: Array, out: Array, precision: str = "float32"
    ) -> Callable[[], None]:
        """out <- a @ b, as a call to be made again and again. Factors may be transposed views and
        have the dtype of the precision's storage; out is contiguous, in its dtype or storage."""

        def run() -> None:
            out[...] = a @ b

        return run

    def stack(
        self, a: Array, b: Array, out: Array, precision: str = "float32"
    ) -> Callable[[], None]:
        """out[i] <- a[i] @ b[i] for each i, as a call to be made again and again: (k, n, m) each,
        or (n, m) for a factor that is the same for all. Factors may be transposed views, and rows
        of a matrix may be apart, also in out."""

        def run() -> None:
            out[...] = a @ b

        return run

    def total(self, x: Array, out: Array) -> Callable[[], None]:
        """out <- the sum over the first axis of x, (n, m) -> (m,) or (n,) -> (1,), as a call to be
        made again and again."""

        def run() -> None:
            out[...] = self.xp.sum(x, axis=0)

        return run

    def totals(self, pairs: Sequence[tuple[Array, Array]]) -> Callable[[], None]:
        """`total` of each pair (x, out), as one call. No x is an out."""
        calls = [self.total(x, out) for x, out in pairs]

        def run() -> None:
            for call in calls:
                call()

        return run

    def take(self, x: Array, index: Array, out: Array) -> None:
        """out <- the rows of x at index, cast to out's dtype."""
        self.copy(self.xp.take(x, index, axis=0), out)

    def scatter(self, x: Array, index: Array, out: Array) -> Callable[[], None]:
        """out[k] <- the sum of the rows x[i] with index[i] = k, 0 where there is none, as a call to
        be made again and again: (n, m) and (n,) int64 -> (classes, m). Two runs give the same bits.
        This one is a product with the one-hot rows."""

        def run() -> None:
            one_hot = self.empty((index.shape[0], out.shape[0]), out.dtype)
            self.one_hot(index, one_hot)
            out[...] = one_hot.T @ (x if x.dtype == out.dtype else self.xp.astype(x, out.dtype))

        return run

    def turn(
        self,
        found: Array,
        kept: Array,
        tables: Sequence[Array],
        places: Sequence[Array],
        counter: Array,
        count: int,
    ) -> Callable[[], None]:
        """kept[b] <- found, with b = counter[0]; counter <- b' = (b + 1) mod count; places[i] <-
        tables[i][b'] for each i: as a call to be made again and again. kept and tables (count, m),
        found and places (1, m) of the same dtype, contiguous, counter (1,) int64. This one looks at
        the counter, for which a device would have to be waited for."""

        def run() -> None:
            b = int(self.to_numpy(counter)[0])
            self.copy(found, kept[b : b + 1, :])
            b = (b + 1) % count
            for table, place in zip(tables, places, strict=True):
                self.copy(table[b : b + 1, :], place)
            counter[...] = b

        return run

    def one_hot(self, labels: Array, out: Array, rows: Array | None = None) -> None:
        """out[i, k] <- 1 where labels[i] == k, else 0. labels (n,) of integers, out (n, c). rows,
        (n,) int64: of labels[rows[i]] in place of labels[i]."""
        xp = self.xp
        labels = labels if rows is None else xp.take(labels, rows, axis=0)
        classes = xp.arange(out.shape[1], dtype=labels.dtype, device=self.device)
        out[...] = xp.astype(labels[:, None] == classes[None, :], out.dtype)

    def gathering(self, pairs: Sequence[tuple[Array, Array]]) -> Callable[[Array], None]:
        """`take` of each pair (x, out), or `one_hot` where x are class numbers, (n,), of an out (k,
        c), as a function of the rows, for use in a loop."""

        def run(rows: Array) -> None:
            for x, out in pairs:
                if spreads(x, out):
                    self.one_hot(x, out, rows)
                else:
                    self.take(x, rows, out)

        return run

    def fuse(self, formula: Formula, into: Sequence[int] = (0,)) -> Kernel:
        """The formula as the fastest thing this backend has; equal to the plain one in value and
        dtype. See `Kernel` and `backends.formula`."""
        return Kernel(self.xp, formula, into)

    # ------------------------------------------------------------------ what it draws

    def clock(self) -> Clock:
        """What says which numbers `uniform` gives: set before each step."""
        return Clock()

    def uniform(
        self,
        clock: Clock,
        stream: int,
        shape: tuple[int, int],
        samples: int,
        room: Callable[[], Array],
    ) -> tuple[Any, Callable[[], None] | None]:
        """Uniform numbers of a shape as an argument of kernels, and the call that has to be made
        before they are read, if there is one. See `backends.philox`.

        room: asked for an array of the shape, where they are to be stored. This one draws them on
        the host.
        """
        out = room()
        made: list[np.ndarray] = []  # in the first call

        def draw() -> None:
            if not made:
                made.append(np.empty(shape, str(out.dtype).rpartition(".")[2]))
            fill(made[0], clock, stream, samples)
            self.upload(made[0], out)

        return out, draw

    # ------------------------------------------------------------------ how it runs

    def keeps(self, size: int) -> bool:
        """Whether a data set of so many bytes should be sent to the device once and stay there,
        rather than stream through `staging` batch by batch. Host libraries keep everything."""
        return True

    def staging(self, shape: Sequence[int], dtype: str) -> "Staging":
        """A host buffer and its copy on the device, for data that are sent while the device
        computes."""
        return Staging(self, shape, dtype)

    def locks(self, size: int, stays: bool = False) -> int:
        """Bytes of the host's memory that are page-locked for an array of so many that `host` or
        `staging` has, or else that is sent at once, to stay there."""
        return 0

    def mark(self) -> Callable[[], None]:
        """A call after which what is asked of the device waits for all that was asked until now:
        for buffers that work of another stream may still be reading."""
        return _no_wait

    recording_bytes = 0  # of the device, that each recording keeps for itself

    def record(self, call: Callable[[], None]) -> Callable[[], None]:
        """The device's work in the call, recorded once, as something to be replayed on the same
        arrays. The call has been made before, so that all its kernels are compiled. BackendError
        where there is no such thing, or if something in the call cannot be recorded."""
        raise BackendError(f"backend '{self.name}' cannot record steps; it is for backend 'cupy'")

    def synchronize(self) -> None:  # noqa: B027, a host library has nothing to wait for
        """Wait until the device has done what was asked of it."""

    def workers(self, most: int) -> int:
        """How many of so many threads may make a run's calls at once: one, where the library has
        threads or a queue of its own for them."""
        return 1

    def scope(self) -> AbstractContextManager[Any]:
        """What must hold around a run: the current device, error state, no autograd."""
        return nullcontext()

    # ------------------------------------------------------------------ what it says of itself

    out_of_memory: tuple[type[BaseException], ...] = (MemoryError,)  # what `empty` raises then

    def exhausted(self, error: BaseException) -> bool:
        """Whether an error says that the device has no memory left."""
        return isinstance(error, self.out_of_memory)

    def lost(self, error: BaseException) -> bool:
        """Whether an error says that the device is gone or computes no more, so that whatever is
        asked of it from now on fails."""
        return False

    def fails(self, kinds: tuple[type[BaseException], ...]) -> bool:
        """Whether the device cannot even be waited for."""
        try:
            self.synchronize()
        except kinds:
            return True
        return False

    def memory(self) -> Memory:
        """Free and total memory of the device."""
        return Memory()

    def devices(self) -> int:
        """How many devices of this kind are visible."""
        return 1

    def device_name(self) -> str:
        """The device in words, for tables."""
        return str(self.device)

    def version(self) -> str:
        """Name and version of the library."""
        module = getattr(self.xp, "__name__", "").rsplit(".", 1)[-1]
        return f"{module} {getattr(self.xp, '__version__', '?')}"


def spreads(x: Array, out: Array) -> bool:
    """Whether `Backend.gathering` spreads class numbers out, rather than take rows as they are."""
    return x.ndim == 1 and out.ndim == 2


def _no_wait() -> None:
    """A host library has done what it was asked."""
