"""NumPy on the CPU: products by BLAS into their place, formulas in one pass over memory.

Formulas are compiled loops where numba is installed (`backends.numba_kernel`), else ufuncs on
blocks that stay in the cache (`backends.block_kernel`).
"""

import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import lru_cache, partial
from typing import Any

import array_api_compat.numpy as xp
import numpy as np

from backends import numba_kernel
from backends.base import Backend, BackendError, Kernel, Memory, Native, TracedKernel
from backends.block_kernel import BlockKernel
from backends.formula import Formula, Program
from backends.host_memory import host_memory
from backends.philox import Clock, fill

# Elements below which OpenBLAS multiplies a vector and a matrix in one thread. It is then 2 to 7
# times faster than NumPy's sum of rows; in two threads it may be 50 times slower.
SERIAL = 1 << 18

FEW = 256  # classes up to which rows of a unit matrix are faster than comparing every column


@lru_cache(maxsize=8)
def _unit_rows(classes: int, dtype: np.dtype) -> np.ndarray:
    return np.eye(classes, dtype=dtype)


class NumpyBackend(Backend):
    """Arrays in host memory."""

    name = "numpy"
    xp = xp
    device = "cpu"

    def __init__(self, device: str = "", jit: bool | None = None):
        """jit: compile formulas by numba; None: where it is installed and MLP_JIT is not 0."""
        if device not in ("", "cpu"):
            raise BackendError(f"backend 'numpy:{device}': NumPy has one device; write 'numpy'")
        self.jit = numba_kernel.available() if jit is None else jit

    def owns(self, x: Any) -> bool:
        return isinstance(x, np.ndarray)

    def asarray(self, x: Any, dtype: str | None = None) -> Native:
        if not isinstance(x, np.ndarray) and hasattr(x, "__dlpack__"):
            try:
                x = np.from_dlpack(x)
            except (BufferError, RuntimeError, TypeError, ValueError):
                from array_api_compat import to_device

                x = to_device(x, "cpu")
        return np.asarray(x, dtype=dtype)

    def to_numpy(self, x: Native) -> np.ndarray:
        return np.asarray(x)

    def empty(self, shape: Sequence[int], dtype: Any) -> Native:
        return np.empty(shape, dtype)

    def copy(self, source: Native, out: Native) -> None:
        np.copyto(out, source, "unsafe")  # casts without a second array

    def product(
        self, a: Native, b: Native, out: Native, precision: str = "float32"
    ) -> Callable[[], None]:
        return partial(np.dot, a, b, out)

    def stack(
        self, a: Native, b: Native, out: Native, precision: str = "float32"
    ) -> Callable[[], None]:
        return partial(np.matmul, a, b, out)

    def total(self, x: Native, out: Native) -> Callable[[], None]:
        if x.ndim == 1:
            return partial(np.add.reduce, x, 0, None, out, True)
        blas = x.flags.c_contiguous and out.flags.c_contiguous and x.dtype == out.dtype
        if blas and x.dtype.kind == "f" and x.size < SERIAL:
            return partial(np.dot, np.ones(len(x), x.dtype), x, out)
        return partial(np.add.reduce, x, 0, None, out)

    def take(self, x: Native, index: Native, out: Native) -> None:
        if x.dtype == out.dtype:
            x.take(index, 0, out, "clip")  # "raise" buffers; index is a permutation of ours
        else:
            out[...] = x[index]

    def scatter(self, x: Native, index: Native, out: Native) -> Callable[[], None]:
        columns = np.arange(out.shape[1])

        def run() -> None:
            # Of vectors this is fast, and the sums are taken in the order of the rows.
            places = (index[:, None] * len(columns) + columns).reshape(-1)
            out[...] = 0.0
            np.add.at(out.reshape(-1), places, np.asarray(x, out.dtype).reshape(-1))

        return run

    def one_hot(self, labels: Native, out: Native, rows: Native | None = None) -> None:
        labels = labels if rows is None else labels.take(rows)
        if out.shape[1] <= FEW:
            self.take(_unit_rows(out.shape[1], out.dtype), labels, out)
            return
        np.equal(labels[:, None], np.arange(out.shape[1]), out=out, casting="unsafe")

    def fuse(self, formula: Formula, into: Sequence[int] = (0,)) -> Kernel:
        return HostKernel(formula, into, self.jit)

    def uniform(
        self,
        clock: Clock,
        stream: int,
        shape: tuple[int, int],
        samples: int,
        room: Callable[[], Native],
    ) -> tuple[Native, Callable[[], None]]:
        out = room()
        return out, partial(fill, out, clock, stream, samples)

    def workers(self, most: int) -> int:
        return most

    def memory(self) -> Memory:
        return host_memory()

    def scope(self) -> AbstractContextManager[Any]:
        # A loss that is no longer finite is found by looking at it, once an epoch.
        return np.errstate(over="ignore", under="ignore", invalid="ignore", divide="ignore")

    def device_name(self) -> str:
        return f"CPU, {os.cpu_count()} cores"

    def version(self) -> str:
        return f"numpy {np.__version__}"


class HostKernel(TracedKernel):
    """A formula as compiled loops where that is worthwhile, else as ufuncs on blocks."""

    def __init__(self, formula: Formula, into: Sequence[int], jit: bool):
        super().__init__(xp, formula, into)
        self.jit = jit

    def write(
        self, program: Program, arrays: Sequence[Native], shape: tuple[int, ...]
    ) -> Callable[..., None]:
        if self.jit and numba_kernel.worthwhile(program, len(arrays), shape):
            return numba_kernel.bind(program, arrays, shape)
        return BlockKernel(program, arrays, shape).function()
