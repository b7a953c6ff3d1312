"""CuPy on a CUDA device: products by cuBLAS, every formula one kernel (`backends.cuda_kernel`)."""

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import cached_property, partial
from typing import Any

import numpy as np

from backends import cuda_rows
from backends.base import Backend, BackendError, Kernel, Memory, Native, Staging, check_known
from backends.cuda_blas import Blas
from backends.cuda_kernel import CudaKernel
from backends.cuda_random import CudaClock
from backends.cuda_stream import BUFFER, CudaStaging, after, page_locked, record, send, send_rows
from backends.formula import Formula
from backends.philox import Clock, Uniform

INSTALL = "pip install 'array-mlp[cuda12]' (CUDA 12 driver) or 'array-mlp[cuda13]' (CUDA 13 driver)"
ON_DEVICE = 3  # cudaMemcpyDeviceToDevice
RESIDENT_SHARE = 0.5  # of the free memory, that a data set may take and stay


class CupyBackend(Backend):
    """Arrays on one CUDA device, counted among the visible ones: "cupy" is the first."""

    def __init__(self, device: str = ""):
        self.name = f"cupy:{device}" if device else "cupy"
        try:
            import array_api_compat.cupy as xp
            import cupy
        except ModuleNotFoundError as error:
            raise BackendError(
                f"backend '{self.name}' needs the package CuPy ({error}): {INSTALL}"
            ) from error
        except ImportError as error:  # what CuPy says has many lines; the cause has the last word
            lines = [line for line in str(error.__cause__ or error).splitlines() if line.strip()]
            raise BackendError(
                f"backend '{self.name}': CuPy is installed and cannot be imported "
                f"({lines[0].strip() if lines else 'no reason given'}); install it again: {INSTALL}"
            ) from error
        if getattr(cupy.cuda.runtime, "is_hip", False):
            raise BackendError(
                f"backend '{self.name}': this CuPy is built for ROCm; its kernels and products "
                f"here are CUDA's. On an AMD GPU use backend 'torch:cuda' with PyTorch for ROCm, "
                f"on an NVIDIA GPU {INSTALL}"
            )
        if device and not device.isdecimal():
            raise BackendError(f"backend '{self.name}': devices are numbers, as in 'cupy:1'")
        self.xp, self.cupy = xp, cupy
        self.index = int(device or 0)
        self._check_driver()
        self.device = cupy.cuda.Device(self.index)

    def _check_driver(self) -> None:
        """A driver or a device that is missing is told apart here, not at the first array."""
        runtime = self.cupy.cuda.runtime
        try:
            count = runtime.getDeviceCount()
        except runtime.CUDARuntimeError as error:
            raise BackendError(f"backend '{self.name}': {self._diagnosis(str(error))}") from error
        if count == 0:
            raise BackendError(f"backend '{self.name}': {self._diagnosis('0 devices')}")
        if self.index >= count:
            seen = f"{count} CUDA device{'s' if count != 1 else ''} visible"
            raise BackendError(
                f"backend '{self.name}': there is no device {self.index}, {seen} (counting from "
                f"0{self._visible()}); choose one below {count}"
            )

    def _diagnosis(self, error: str) -> str:
        runtime = self.cupy.cuda.runtime
        try:
            driver = runtime.driverGetVersion()
        except runtime.CUDARuntimeError:
            driver = 0
        wheel = runtime.runtimeGetVersion()
        if driver == 0:
            return f"no CUDA driver ({error}): install NVIDIA's driver, or use backend 'numpy'"
        if "insufficient" in error.lower():
            fitting = f", or take the CuPy for it: {INSTALL}" if driver >= 12000 else ""
            if 12000 <= driver < 13000:
                fitting = ", or take the CuPy for it: pip install 'array-mlp[cuda12]'"
            return (
                f"the driver supports CUDA {cuda_version(driver)}, this CuPy is built for CUDA "
                f"{cuda_version(wheel)}: update the driver{fitting}"
            )
        if "mismatch" in error.lower():
            return (
                f"the driver was updated and its old version is still running ({error}): restart "
                "the machine"
            )
        return (
            f"no CUDA device is visible ({error}{self._visible()}): check `nvidia-smi` and "
            f"CUDA_VISIBLE_DEVICES, or use backend 'numpy'"
        )

    @staticmethod
    def _visible() -> str:
        import os

        value = os.environ.get("CUDA_VISIBLE_DEVICES")
        return "" if value is None else f"; CUDA_VISIBLE_DEVICES={value!r}"

    def owns(self, x: Any) -> bool:
        return isinstance(x, self.cupy.ndarray) and x.device.id == self.index

    def asarray(self, x: Any, dtype: str | None = None) -> Native:
        with self.device:
            if not isinstance(x, (self.cupy.ndarray, np.ndarray)) and _on_cuda(x):
                x = self.cupy.from_dlpack(x)
            elif not isinstance(x, self.cupy.ndarray) and hasattr(x, "__dlpack__"):
                x = np.asarray(x)
            if isinstance(x, np.ndarray):
                kind = x.dtype if dtype is None else np.dtype(dtype)
                if x.size * kind.itemsize > BUFFER:
                    send(self.cupy, x, there := self.empty(x.shape, kind))
                    return there
            return self.cupy.asarray(x, dtype=dtype)

    def filled(
        self, shape: Sequence[int], dtype: str, write: Callable[[slice, np.ndarray], None]
    ) -> Native:
        if math.prod(shape) * np.dtype(dtype).itemsize <= BUFFER:
            return super().filled(shape, dtype, write)
        with self.device:
            send_rows(self.cupy, write, there := self.empty(shape, dtype))
            return there

    def to_numpy(self, x: Native) -> np.ndarray:
        with self.device:
            return self.cupy.asnumpy(x)

    def empty(self, shape: Sequence[int], dtype: Any) -> Native:
        with self.device:
            return self.cupy.empty(tuple(shape), dtype=dtype)

    def require(self, precision: str) -> None:
        least = {"tf32": 80, "mixed": 70, "mixed_bfloat16": 80}.get(precision)
        if least is None:
            return super().require(precision)
        has = int(self.device.compute_capability)
        if has < least:
            raise BackendError(
                f"precision {precision!r}: {self.device_name()} (backend '{self.name}') has "
                f"compute capability {has // 10}.{has % 10}, it needs {least // 10}.{least % 10} "
                "or above; use 'float32'"
            )
        check_known(precision)

    def product(
        self, a: Native, b: Native, out: Native, precision: str = "float32"
    ) -> Callable[[], None]:
        if 0 in (*a.shape, *b.shape):
            return partial(out.fill, 0.0)
        return self._multiply(self.blas.product, a, b, out, precision)

    def stack(
        self, a: Native, b: Native, out: Native, precision: str = "float32"
    ) -> Callable[[], None]:
        if 0 in (*a.shape, *b.shape):
            return partial(out.fill, 0.0)
        return self._multiply(self.blas.stack, a, b, out, precision)

    def _multiply(
        self, bind: Callable[..., Any], a: Native, b: Native, out: Native, precision: str
    ) -> Callable[[], None]:
        """The product bound; by way of copies where cuBLAS does not take the strides."""
        if bound := bind(a, b, out, precision):
            return bound
        one, other, result = (self.empty(x.shape, x.dtype) for x in (a, b, out))
        multiply = bind(one, other, result, precision)

        def run() -> None:
            self.copy(a, one)
            self.copy(b, other)
            multiply()
            self.copy(result, out)

        return run

    def total(self, x: Native, out: Native) -> Callable[[], None]:
        return self.totals([(x, out)])

    def totals(self, pairs: Sequence[tuple[Native, Native]]) -> Callable[[], None]:
        return cuda_rows.totals(pairs, self.empty)

    def take(self, x: Native, index: Native, out: Native) -> None:
        cuda_rows.take(x, index, out)

    def scatter(self, x: Native, index: Native, out: Native) -> Callable[[], None]:
        return cuda_rows.scatter(x, index, out)

    def turn(
        self,
        found: Native,
        kept: Native,
        tables: Sequence[Native],
        places: Sequence[Native],
        counter: Native,
        count: int,
    ) -> Callable[[], None]:
        return cuda_rows.turn(found, kept, tables, places, counter, count)

    def one_hot(self, labels: Native, out: Native, rows: Native | None = None) -> None:
        cuda_rows.one_hot(labels, out, rows)

    def gathering(self, pairs: Sequence[tuple[Native, Native]]) -> Callable[[Native], None]:
        return cuda_rows.gathering(pairs)

    def copy(self, source: Native, out: Native) -> None:
        alike = source.dtype == out.dtype and source.shape == out.shape
        if alike and source.flags.c_contiguous and out.flags.c_contiguous and out.size:
            out.data.copy_from_device_async(source.data, out.nbytes)
        else:
            out[...] = source

    def copying(self, source: Native) -> Callable[[Native], None]:
        runtime, current = self.cupy.cuda.runtime, self.cupy.cuda.get_current_stream
        start, size = source.data.ptr, source.nbytes

        def run(out: Native, kept: Native = source) -> None:  # holds it: its memory stays its own
            runtime.memcpyAsync(out.data.ptr, start, size, ON_DEVICE, current().ptr)

        return run

    def upload(self, x: np.ndarray, out: Native) -> None:
        if x.nbytes > BUFFER:
            send(self.cupy, x, out)
        else:
            out.set(x)

    def download(self, x: Native, out: np.ndarray) -> None:
        x.get(out=out)

    def host(self, shape: Sequence[int], dtype: Any) -> np.ndarray:
        with self.device:
            return page_locked(self.cupy, shape, dtype)

    def fuse(self, formula: Formula, into: Sequence[int] = (0,)) -> Kernel:
        return CudaKernel(self.xp, formula, into)

    def clock(self) -> Clock:
        return CudaClock(self)

    def uniform(
        self,
        clock: Clock,
        stream: int,
        shape: tuple[int, int],
        samples: int,
        room: Callable[[], Native],
    ) -> tuple[Uniform, None]:
        assert isinstance(clock, CudaClock)
        return Uniform(clock.there, stream, samples, shape), None

    def keeps(self, size: int) -> bool:
        free = self.memory().free
        return free is None or size <= RESIDENT_SHARE * free

    def locks(self, size: int, stays: bool = False) -> int:
        if stays:
            return BUFFER if size > BUFFER else 0
        return size

    def staging(self, shape: Sequence[int], dtype: str) -> Staging:
        return CudaStaging(self, shape, dtype)

    @cached_property
    def copies(self) -> Any:
        """The stream on which staged rows are copied, beside what the current stream computes."""
        with self.device:
            return self.cupy.cuda.Stream(non_blocking=True)

    @cached_property
    def blas(self) -> Blas:
        with self.device:
            return Blas(self.cupy)

    @property
    def recording_bytes(self) -> int:  # type: ignore[override]
        return self.blas.workspace

    def record(self, call: Callable[[], None]) -> Callable[[], None]:
        with self.device:
            return record(self.cupy, self.blas, self.name, call)

    def mark(self) -> Callable[[], None]:
        with self.device:
            return after(self.cupy)

    def synchronize(self) -> None:
        self.device.synchronize()

    @property
    def out_of_memory(self) -> tuple[type[BaseException], ...]:  # type: ignore[override]
        return (self.cupy.cuda.memory.OutOfMemoryError,)

    @property
    def _failures(self) -> dict[type[BaseException], int]:
        """What CUDA raises beside CuPy's pool, and the status by which each says so: streams,
        recordings and kernels, their loading, handles of cuBLAS take memory of their own."""
        cuda = self.cupy.cuda
        return {
            cuda.runtime.CUDARuntimeError: 2,  # cudaErrorMemoryAllocation
            cuda.driver.CUDADriverError: 2,  # CUDA_ERROR_OUT_OF_MEMORY
            cuda.cublas.CUBLASError: 3,  # CUBLAS_STATUS_ALLOC_FAILED
        }

    def exhausted(self, error: Any) -> bool:
        status = self._failures.get(type(error))
        return super().exhausted(error) or (status is not None and error.status == status)

    def lost(self, error: BaseException) -> bool:
        kinds = tuple(self._failures)
        return isinstance(error, kinds) and self.fails(kinds)  # it stays, whatever is asked

    def memory(self) -> Memory:
        """What is free counts what CuPy's pool holds and has not given out, and no more than its
        limit leaves (CUPY_GPU_MEMORY_LIMIT)."""
        with self.device:
            free, total = self.cupy.cuda.runtime.memGetInfo()
            pool = self.cupy.get_default_memory_pool()
            free, limit = free + pool.free_bytes(), pool.get_limit()
            if limit > 0:
                free = min(free, max(0, limit - pool.used_bytes()))
            return Memory(free, total)

    def scope(self) -> AbstractContextManager[Any]:
        # Only the device: work stays on the caller's current stream, so that it is in order with
        # what the caller does to the arrays that go in and come out.
        return self.device

    def devices(self) -> int:
        return int(self.cupy.cuda.runtime.getDeviceCount())

    def device_name(self) -> str:
        name = self.cupy.cuda.runtime.getDeviceProperties(self.index)["name"]
        return name.decode() if isinstance(name, bytes) else str(name)

    def version(self) -> str:
        cuda = cuda_version(self.cupy.cuda.runtime.runtimeGetVersion())
        return f"cupy {self.cupy.__version__} (CUDA {cuda})"


def _on_cuda(x: Any) -> bool:
    # DLPack's number for CUDA memory is 2.
    return hasattr(x, "__dlpack_device__") and int(x.__dlpack_device__()[0]) == 2


def cuda_version(number: int) -> str:
    """CUDA's 12090 as 12.9."""
    return f"{number // 1000}.{number % 1000 // 10}"
