"""Streams of a CUDA device: copies beside the computation, and calls recorded as graphs."""

import math
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import numpy as np

from backends.base import BackendError, Native, Staging
from backends.cuda_blas import Blas

NO_MEMORY = 2  # cudaErrorMemoryAllocation


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
    """A host array for copies beside the computation; MemoryError if there is no memory for it."""
    size = math.prod(shape) * np.dtype(dtype).itemsize
    try:
        memory = cupy.cuda.alloc_pinned_memory(size)
    except cupy.cuda.runtime.CUDARuntimeError as error:
        if error.status != NO_MEMORY:
            raise
        raise MemoryError(f"no page-locked memory for {size} bytes: {error}") from error
    return np.frombuffer(memory, dtype, math.prod(shape)).reshape(tuple(shape))  # holds the memory


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
    with stream, cupy.cuda.using_allocator(pool.malloc):
        stream.begin_capture()
        try:
            call()
        except BaseException:
            # Ends the recording, which the first error may have spoilt: that one is the cause.
            with suppress(cupy.cuda.runtime.CUDARuntimeError):
                stream.end_capture()
            raise
        return stream.end_capture()


class Recording:
    """A graph and what it works with."""

    def __init__(self, graph: Any, kept: tuple[Any, ...]):
        self.graph, self.kept = graph, kept

    def __call__(self) -> None:
        self.graph.launch()
