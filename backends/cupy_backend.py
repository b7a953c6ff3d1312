"""CuPy on a CUDA device: products by cuBLAS, every formula one kernel (`backends.cuda_kernel`)."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

import numpy as np

from backends.base import Array, Backend, BackendError, Kernel, Memory
from backends.cuda_kernel import CudaKernel
from backends.formula import Formula

INSTALL = "pip install 'array-mlp[cuda12]' (CUDA 12 driver) or 'array-mlp[cuda13]' (CUDA 13 driver)"


class CupyBackend(Backend):
    """Arrays on one CUDA device, counted among the visible ones: "cupy" is the first."""

    def __init__(self, device: str = ""):
        self.name = f"cupy:{device}" if device else "cupy"
        try:
            import array_api_compat.cupy as xp
            import cupy
        except ImportError as error:
            raise BackendError(
                f"backend '{self.name}' needs the package CuPy ({error}): {INSTALL}"
            ) from error
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
            return (
                f"the driver supports CUDA {_version(driver)}, this CuPy is built for CUDA "
                f"{_version(wheel)}: update the driver, or {INSTALL}"
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

    def asarray(self, x: Any, dtype: str | None = None) -> Array:
        with self.device:
            if not isinstance(x, (self.cupy.ndarray, np.ndarray)) and _on_cuda(x):
                x = self.cupy.from_dlpack(x)
            elif not isinstance(x, self.cupy.ndarray) and hasattr(x, "__dlpack__"):
                x = np.asarray(x)
            return self.cupy.asarray(x, dtype=dtype)

    def to_numpy(self, x: Array) -> np.ndarray:
        with self.device:
            return self.cupy.asnumpy(x)

    def empty(self, shape: Sequence[int], dtype: Any) -> Array:
        with self.device:
            return self.cupy.empty(tuple(shape), dtype=dtype)

    def matmul(self, a: Array, b: Array, out: Array) -> None:
        self.cupy.matmul(a, b, out=out)

    def sum(self, x: Array, out: Array) -> None:
        self.cupy.sum(x, axis=0, out=out if x.ndim > 1 else out.reshape(()))

    def take(self, x: Array, index: Array, out: Array) -> None:
        if x.dtype == out.dtype:
            self.cupy.take(x, index, axis=0, out=out)
        else:
            out[...] = self.cupy.take(x, index, axis=0)

    def copy(self, source: Array, out: Array) -> None:
        out[...] = source

    def one_hot(self, labels: Array, out: Array) -> None:
        cupy = self.cupy
        cupy.equal(labels[:, None], cupy.arange(out.shape[1]), out=out, casting="unsafe")

    def fuse(self, formula: Formula, into: Sequence[str]) -> Kernel:
        return CudaKernel(self.xp, formula, into)

    def synchronize(self) -> None:
        self.device.synchronize()

    def memory(self) -> Memory:
        with self.device:
            free, total = self.cupy.cuda.runtime.memGetInfo()
        return Memory(free, total)

    def scope(self) -> AbstractContextManager[Any]:
        return self.device

    def device_name(self) -> str:
        name = self.cupy.cuda.runtime.getDeviceProperties(self.index)["name"]
        return name.decode() if isinstance(name, bytes) else str(name)

    def version(self) -> str:
        cuda = _version(self.cupy.cuda.runtime.runtimeGetVersion())
        return f"cupy {self.cupy.__version__} (CUDA {cuda})"


def _on_cuda(x: Any) -> bool:
    # DLPack's number for CUDA memory is 2.
    return hasattr(x, "__dlpack_device__") and int(x.__dlpack_device__()[0]) == 2


def _version(number: int) -> str:
    return f"{number // 1000}.{number % 1000 // 10}"
