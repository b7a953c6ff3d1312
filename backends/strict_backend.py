"""array-api-strict, for tests: only what the standard has, on fake devices that behave as a GPU.

"strict" is its CPU; "strict:device1" and "strict:device2" refuse to be turned into NumPy arrays
implicitly and to be mixed with arrays of another device.
"""

from contextlib import AbstractContextManager
from typing import Any

import numpy as np

from backends.base import Backend, BackendError, Memory, Native
from backends.host_memory import host_memory

INSTALL = "pip install array-api-strict"


class StrictBackend(Backend):
    """Arrays of the reference implementation of the standard."""

    def __init__(self, device: str = ""):
        self.name = f"strict:{device}" if device else "strict"
        try:
            import array_api_strict as xp
        except ImportError as error:
            raise BackendError(
                f"backend '{self.name}' needs the package array-api-strict ({error}): {INSTALL}"
            ) from error
        self.xp = xp
        try:
            self.device = xp.Device(device or "CPU_DEVICE")
        except ValueError as error:
            raise BackendError(
                f"backend '{self.name}': array-api-strict has no device '{device}'; it has "
                "device1 and device2"
            ) from error

    def owns(self, x: Any) -> bool:
        return type(x).__module__.startswith("array_api_strict") and x.device == self.device

    def asarray(self, x: Any, dtype: str | None = None) -> Native:
        wanted = getattr(self.xp, dtype) if dtype else None
        if type(x).__module__.startswith("array_api_strict"):
            x = x.to_device(self.device)
            return x if wanted in (None, x.dtype) else self.xp.astype(x, wanted)
        return self.xp.asarray(np.asarray(x), dtype=wanted, device=self.device)

    def to_numpy(self, x: Native) -> np.ndarray:
        return np.asarray(x.to_device(self.xp.Device("CPU_DEVICE")))

    def scope(self) -> AbstractContextManager[Any]:
        # NumPy computes below; what is not finite is found as on a GPU, by looking at it.
        return np.errstate(over="ignore", under="ignore", invalid="ignore", divide="ignore")

    def memory(self) -> Memory:
        return host_memory()

    def device_name(self) -> str:
        return str(self.device).partition("'")[2].rstrip("')")
