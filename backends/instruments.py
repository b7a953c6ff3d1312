"""What a device tells of itself beside its name: versions, bytes held, time by its own clock.

For reports and benchmarks; no computation needs any of it. A library that tells nothing has the
defaults of `Instruments`.
"""

import re
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from backends.base import Backend


class Instruments:
    """The clock of the host, and nothing else."""

    def __init__(self, backend: Backend):
        self.backend = backend

    def facts(self) -> dict[str, str]:
        """Name and value of what a report of this device should say."""
        return {}

    def held(self) -> int | None:
        """Bytes that the library's arrays hold on the device; None where it does not tell."""
        return None

    def seconds(self, call: Callable[[], Any], times: int = 1) -> float:
        """Seconds of one call, made so many times in a row: from an idle device to an idle one.

        >>> from backends import get_backend
        >>> instruments(get_backend("numpy")).seconds(lambda: time.sleep(0.001), 3) >= 0.001
        True
        """
        self.backend.synchronize()
        start = time.perf_counter()
        for _ in range(times):
            call()
        self.backend.synchronize()
        return (time.perf_counter() - start) / times

    def _between(self, start: Any, end: Any, call: Callable[[], Any], times: int) -> None:
        """The calls, on an idle device, with one of its events recorded before and one after."""
        self.backend.synchronize()
        start.record()
        for _ in range(times):
            call()
        end.record()
        end.synchronize()


class NumpyInstruments(Instruments):
    """NumPy tells of its arrays while `tracemalloc` traces."""

    def facts(self) -> dict[str, str]:
        from backends import numba_kernel

        blas = np.__config__.CONFIG.get("Build Dependencies", {}).get("blas", {})
        jit = getattr(self.backend, "jit", False) and numba_kernel.available()
        return {
            "BLAS": f"{blas.get('name', '?')} {blas.get('version', '')}".strip(),
            "formulas": "compiled by numba" if jit else "NumPy's loops on blocks",
        }

    def held(self) -> int | None:
        if not tracemalloc.is_tracing():
            return None
        ours = tracemalloc.DomainFilter(True, np.lib.tracemalloc_domain)
        traces = tracemalloc.take_snapshot().filter_traces([ours]).traces
        return sum(trace.size for trace in traces)


class CupyInstruments(Instruments):
    """CuPy's memory pool and CUDA's events. Times hold within the backend's `scope`."""

    def __init__(self, backend: Any):
        super().__init__(backend)
        self.cupy, self.device = backend.cupy, backend.device

    def facts(self) -> dict[str, str]:
        from backends.cupy_backend import cuda_version

        runtime = self.cupy.cuda.runtime
        capability = str(self.device.compute_capability)
        facts = {
            "compute capability": f"{capability[:-1]}.{capability[-1]}",
            "CUDA runtime": cuda_version(runtime.runtimeGetVersion()),
            "CUDA of the driver": cuda_version(runtime.driverGetVersion()),
            "NVRTC": ".".join(map(str, self.cupy.cuda.nvrtc.getVersion())),
        }
        kernel_module = Path("/proc/driver/nvidia/version")
        if kernel_module.exists():
            found = re.search(r"\d+\.\d[\d.]*", kernel_module.read_text())
            facts["NVIDIA driver"] = found[0] if found else "?"
        return facts

    def held(self) -> int | None:
        with self.device:
            return int(self.cupy.get_default_memory_pool().used_bytes())

    def seconds(self, call: Callable[[], Any], times: int = 1) -> float:
        start, end = self.cupy.cuda.Event(), self.cupy.cuda.Event()
        self._between(start, end, call, times)
        return float(self.cupy.cuda.get_elapsed_time(start, end)) / 1e3 / times


class TorchInstruments(Instruments):
    """PyTorch's allocator and events on a CUDA device; of its other devices the host's clock."""

    def __init__(self, backend: Any):
        super().__init__(backend)
        self.torch, self.device = backend.torch, backend.device
        self.on_cuda = self.device.type == "cuda"

    def facts(self) -> dict[str, str]:
        if not self.on_cuda:
            return {"threads": str(self.torch.get_num_threads())}
        capability = self.torch.cuda.get_device_capability(self.device)
        return {
            "compute capability": ".".join(map(str, capability)),
            "CUDA runtime": str(self.torch.version.cuda),
        }

    def held(self) -> int | None:
        return int(self.torch.cuda.memory_allocated(self.device)) if self.on_cuda else None

    def seconds(self, call: Callable[[], Any], times: int = 1) -> float:
        if not self.on_cuda:
            return super().seconds(call, times)
        with self.torch.cuda.device(self.device):
            start, end = (self.torch.cuda.Event(enable_timing=True) for _ in range(2))
            self._between(start, end, call, times)
        return float(start.elapsed_time(end)) / 1e3 / times


def instruments(backend: Backend) -> Instruments:
    """The instruments of the backend's library."""
    return INSTRUMENTS.get(backend.name.partition(":")[0], Instruments)(backend)


INSTRUMENTS: dict[str, type[Instruments]] = {
    "numpy": NumpyInstruments,
    "cupy": CupyInstruments,
    "torch": TorchInstruments,
}
