"""Streams of a CUDA device: copies beside the computation, and calls recorded as graphs."""

import gc
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np

from backends.base import BackendError, Native, Staging
from backends.cuda_blas import PER_THREAD, Blas

NO_MEMORY = 2  # cudaErrorMemoryAllocation
BUFFER = 1 << 26  # bytes of page-locked memory through which a larger array is sent


class CudaStaging(Staging):
    """Rows copied by the device's copy engine from page-locked host memory.

    The copy runs on the backend's copy stream. It starts after the event that `release` records
    among what was asked of the device, and `receive` makes what comes next wait for its end.
    """

    def __init__(self, backend: Any, shape: Sequence[int], dtype: str):
        cupy = backend.cupy
        with backend.device:
            self.sent, self.read = (cupy.cuda.Event(disable_timing=True) for _ in range(2))
            self.device: Native = backend.empty(shape, dtype)
            self.host = page_locked(cupy, shape, dtype)
            self.current, self.copies = cupy.cuda.get_current_stream, backend.copies
        self.release()  # the memory of `device` may still be in use by what had it before

    def wait(self) -> None:
        self.sent.synchronize()

    def send(self, rows: int) -> None:
        self.copies.wait_event(self.read)
        self.device[:rows].set(self.host[:rows], stream=self.copies)
        self.sent.record(self.copies)

    def receive(self) -> None:
        self.current().wait_event(self.sent)

    def release(self) -> None:
        self.read.record(self.current())

    def __del__(self) -> None:
        if hasattr(self, "host") and not sys.is_finalizing():
            self.wait()  # a copy under way ends before others get the memory


def page_locked(cupy: Any, shape: Sequence[int], dtype: Any) -> np.ndarray:
    """A host array for copies beside the computation; MemoryError if there is no memory for it.

    Of its very size and given back when it goes: CuPy's pool takes the next power of two, and keeps
    it until the program ends."""
    size = math.prod(shape) * np.dtype(dtype).itemsize
    try:
        memory = cupy.cuda.PinnedMemoryPointer(cupy.cuda.PinnedMemory(size), 0)
    except cupy.cuda.runtime.CUDARuntimeError as error:
        if error.status != NO_MEMORY:
            raise
        raise MemoryError(f"no page-locked memory for {size} bytes: {error}") from error
    return np.frombuffer(memory, dtype, math.prod(shape)).reshape(tuple(shape))  # holds the memory


def send(cupy: Any, x: np.ndarray, out: Native) -> None:
    """out <- a host array of its shape, cast, through a bounded buffer."""
    if x.flags.c_contiguous and out.flags.c_contiguous:
        x, out = x.reshape(-1), out.reshape(-1)
    send_rows(cupy, lambda rows, place: np.copyto(place, x[rows], "unsafe"), out)


def send_rows(cupy: Any, write: Callable[[slice, np.ndarray], None], out: Native) -> None:
    """out <- rows that ``write`` writes on the host, some at a time into two halves of a buffer in
    turn: one is written while the other is copied, on the current stream."""
    size = max(1, BUFFER // 2 // max(1, out[:1].nbytes))
    stream = cupy.cuda.get_current_stream()
    halves = [page_locked(cupy, (size, *out.shape[1:]), out.dtype) for _ in range(2)]
    copied = [cupy.cuda.Event(disable_timing=True) for _ in halves]
    try:
        for i, start in enumerate(range(0, len(out), size)):
            rows = slice(start, min(start + size, len(out)))
            half = halves[i % 2][: rows.stop - start]
            copied[i % 2].synchronize()
            write(rows, half)
            out[rows].set(half, stream=stream)
            copied[i % 2].record(stream)
    finally:
        for event in copied:
            event.synchronize()  # before the halves go


def after(cupy: Any) -> Callable[[], None]:
    """A call that makes the current stream wait for what was asked of this one until now."""
    current, event = cupy.cuda.get_current_stream, cupy.cuda.Event(disable_timing=True)
    own = current()  # held, so that no other gets its number
    event.record(own)

    def wait() -> None:
        now = current()
        if now.ptr != own.ptr or own.ptr == PER_THREAD:  # one stream is in order with itself
            now.wait_event(event)

    return wait


def record(cupy: Any, blas: Blas, name: str, call: Callable[[], None]) -> Callable[[], None]:
    """The device's work in the call as a CUDA graph, replayed on the current stream.

    The call is recorded on a stream of its own, with a cuBLAS workspace and a memory pool that
    live as long as the recording: what it allocates on the way stays as it was.
    """
    stream, pool = cupy.cuda.Stream(non_blocking=True), cupy.cuda.MemoryPool()
    try:
        with stream:
            handle = blas.handle()
        graph = _capture(cupy, stream, pool, call)
    except Exception as error:
        raise BackendError(
            f"backend '{name}' cannot record this call: {type(error).__name__}: {error}"
        ) from error
    finally:
        blas.handles.pop(stream.ptr, None)
    return Recording(graph, (call, stream, pool, handle))


def _capture(cupy: Any, stream: Any, pool: Any, call: Callable[[], None]) -> Any:
    with stream, cupy.cuda.using_allocator(pool.malloc), _nothing_collected():
        stream.begin_capture()
        try:
            call()
        except BaseException:
            # Ends the recording, which the first error may have spoilt: that one is the cause.
            with suppress(cupy.cuda.runtime.CUDARuntimeError):
                stream.end_capture()
            raise
        return stream.end_capture()


@contextmanager
def _nothing_collected() -> Iterator[None]:
    """No cycle of references goes within: what frees a handle or page-locked memory waits for the
    device, and that would spoil a recording."""
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()


class Recording:
    """A graph and what it works with."""

    def __init__(self, graph: Any, kept: tuple[Any, ...]):
        self.graph, self.kept = graph, kept

    def __call__(self) -> None:
        self.graph.launch()
