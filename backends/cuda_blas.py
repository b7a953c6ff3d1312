"""Products of matrices by cuBLAS, everything about a call settled before it is made.

CuPy's own handle takes a new stream, and with it a new workspace, at every call, and refuses to
work while a stream is recorded. So each stream gets a handle of our own here, with a workspace
that is ours and stays where it is: nothing is allocated when a product runs, and with one stream
and one workspace to a handle cuBLAS gives the same bits from run to run.

Sums stay in the type that is asked for: a product of float16 that cuBLAS cuts along its inner side
may be added up in float16 unless the handle's math mode forbids it (NVIDIA, cuBLAS, cublasMath_t).
"""

import ctypes
import os
import sys
import threading
from collections.abc import Callable
from typing import Any

import numpy as np

from backends.base import Native
from backends.precision import PRECISIONS

# cuBLAS's numbers: cudaDataType_t, cublasComputeType_t, cublasGemmAlgo_t.
TYPES = {"float16": 2, "bfloat16": 14, "float32": 0, "float64": 1}
COMPUTE_32F, COMPUTE_32F_FAST_TF32, COMPUTE_64F = 68, 77, 70
DEFAULT = -1
SUMS_AS_ASKED = 16  # CUBLAS_MATH_DISALLOW_REDUCED_PRECISION_REDUCTION, beside the default mode
PER_THREAD = 2  # cudaStreamPerThread: one number, another stream in each thread
# Bytes that NVIDIA recommends for cublasSetWorkspace, from compute capability 9.0 on and before.
WORKSPACE, WORKSPACE_BEFORE_90 = 32 << 20, 4 << 20
HANDLES = 8  # are kept; a stream that lost its own gets another at its next product


class Blas:
    """cuBLAS on one device; `product` binds a call."""

    def __init__(self, cupy: Any):
        from cupy_backends.cuda.libs import cublas  # loads the library that CuPy uses

        self.cupy, self.cublas = cupy, cublas
        library = _library(cupy, cublas)
        self.gemm, self.gemms = library.cublasGemmEx, library.cublasGemmStridedBatchedEx
        self.set_workspace = library.cublasSetWorkspace_v2
        self.handles: dict[int, Handle] = {}
        self.of_thread = threading.local()
        before = int(cupy.cuda.Device().compute_capability) < 90
        self.workspace = WORKSPACE_BEFORE_90 if before else WORKSPACE  # bytes, of each handle

    def handle(self) -> "Handle":
        """The handle of the current stream. The oldest goes where there are too many: cuBLAS waits
        for its products, and CuPy's pool gives its workspace to the same stream alone. That of a
        thread's own default stream goes with the thread."""
        stream = self.cupy.cuda.get_current_stream()
        if stream.ptr == PER_THREAD:
            own: Handle | None = getattr(self.of_thread, "handle", None)
            if own is None:
                own = self.of_thread.handle = Handle(self, stream)
            return own
        handle = self.handles.get(stream.ptr)
        if handle is None:
            handle = Handle(self, stream)
            while len(self.handles) >= HANDLES:
                self.handles.pop(next(iter(self.handles)), None)
            self.handles[stream.ptr] = handle
        return handle

    def product(
        self, a: Native, b: Native, out: Native, precision: str
    ) -> Callable[[], None] | None:
        """out <- a b as a call, or None where strides are not what cuBLAS takes.

        cuBLAS reads columns first: what it calls A is our b, what it calls B our a, and the result
        is the transpose of its own.
        """
        if not out.flags.c_contiguous:
            return None
        return self._bound(a, b, out, precision, None)

    def stack(self, a: Native, b: Native, out: Native, precision: str) -> Callable[[], None] | None:
        """out[i] <- a[i] b[i] as one call; a factor (n, m) is the same for all i."""
        return self._bound(a, b, out, precision, len(out))

    def _bound(
        self, a: Native, b: Native, out: Native, precision: str, count: int | None
    ) -> Callable[[], None] | None:
        one = [x[0] if x.ndim == 3 else x for x in (a, b, out)]
        second, first, third = map(_layout, one)
        if first is None or second is None or third is None or third[0]:
            return None
        double = out.dtype == np.float64
        compute = COMPUTE_64F if double else COMPUTE_32F
        if PRECISIONS[precision].rounded and a.dtype == np.float32:
            compute = COMPUTE_32F_FAST_TF32
        real = ctypes.c_double if double else ctypes.c_float
        whole, address = ctypes.c_int, ctypes.c_void_p

        def matrix(x: Native, apart: int) -> list[Any]:
            steps = [] if count is None else [_apart(x)]
            return [address(x.data.ptr), whole(TYPES[x.dtype.name]), whole(apart), *steps]

        arguments = [
            whole(first[0]),
            whole(second[0]),
            *map(whole, (out.shape[-1], out.shape[-2], a.shape[-1])),
            ctypes.byref(real(1.0)),
            *matrix(b, first[1]),
            *matrix(a, second[1]),
            ctypes.byref(real(0.0)),
            *matrix(out, third[1]),
            *([] if count is None else [whole(count)]),
            whole(compute),
            whole(DEFAULT),
        ]
        gemm = self.gemm if count is None else self.gemms
        handles, check = self.handles, self.cublas.check_status
        current, kept = self.cupy.cuda.get_current_stream, (a, b, out)

        def run(kept: Any = kept) -> None:  # holds the arrays, so that their memory stays theirs
            handle = handles.get(current().ptr) or self.handle()
            status = gemm(handle.pointer, *arguments)
            if status:
                check(status)

        return run


def _library(cupy: Any, cublas: Any) -> Any:
    """The library that CuPy's binding calls, not another one of its name: symbols are looked up in
    what the binding was linked with. Windows looks them up in no library but the one it is asked;
    there a name finds the one that is loaded."""
    if os.name != "nt":
        return ctypes.CDLL(cublas.__file__)
    return ctypes.CDLL(f"cublas64_{cupy.cuda.runtime.runtimeGetVersion() // 1000}.dll")


class Handle:
    """A cuBLAS handle of one stream, with a workspace of its own. It holds the stream, which so
    lasts as long, and goes on the device that it is of, whichever is current then."""

    def __init__(self, blas: Blas, stream: Any):
        self.cublas, self.stream, size = blas.cublas, stream, blas.workspace
        self.device = blas.cupy.cuda.Device()
        self.workspace = blas.cupy.cuda.alloc(size)
        self.address = self.cublas.create()
        self.pointer = ctypes.c_void_p(self.address)
        self.cublas.setMathMode(self.address, SUMS_AS_ASKED)
        self.cublas.setStream(self.address, stream.ptr)  # also takes any workspace away
        workspace = ctypes.c_void_p(self.workspace.ptr)
        self.cublas.check_status(blas.set_workspace(self.pointer, workspace, ctypes.c_size_t(size)))

    def __del__(self) -> None:
        if hasattr(self, "address") and not sys.is_finalizing():
            with self.device:
                self.cublas.destroy(self.address)


def _apart(x: Native) -> ctypes.c_longlong:
    """Elements from one matrix of a stack to the next; 0 for one matrix."""
    return ctypes.c_longlong(x.strides[0] // x.itemsize if x.ndim == 3 else 0)


def _layout(x: Native) -> tuple[bool, int] | None:
    """(rows are apart by one element, what the other axis is apart by): cuBLAS's transposition
    flag and leading dimension for a row-major factor. None where neither axis is dense."""
    rows, columns = x.shape
    down, along = (stride // x.itemsize for stride in x.strides)
    if (along == 1 or columns == 1) and (down >= columns or rows == 1):
        return False, max(columns, down if rows > 1 else 1)
    if (down == 1 or rows == 1) and (along >= rows or columns == 1):
        return True, max(rows, along if columns > 1 else 1)
    return None
