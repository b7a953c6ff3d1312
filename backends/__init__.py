"""Array backends: one small adapter a library, chosen by name.

=====================  ==========================================================
name                   arrays
=====================  ==========================================================
numpy                  NumPy on the CPU
cupy, cupy:1           CuPy on the first, the second CUDA device (also cuda, cuda:1)
torch, torch:cuda:0    PyTorch on the CPU, on a CUDA device (torch:mps on a Mac)
strict, strict:device1 array-api-strict, for tests
auto                   CuPy if a CUDA device really computes, else NumPy
=====================  ==========================================================

Where the memory of the CUDA device is taken, ``auto`` warns that it computes on the CPU.

A library is imported when its backend is asked for. A backend that is named and cannot run is a
`BackendError` that says why and what to do; only ``auto`` chooses. One more adapter is not chosen
by name: `backends.counting_backend.Count`, which only counts the bytes that are asked for.

base          what an adapter must and may give
formula       the language of formulas, and the programs that kernels are written from
precision     dtypes of what is held and multiplied
*_backend     the adapters
*_kernel      programs on arrays: ufuncs on blocks, numba's loops, CUDA's kernels; *_source: as text
kernel_cache  where loops that numba compiled are kept
cuda_*        products, rows and streams of a CUDA device
instruments   versions, memory and clocks, for reports
"""

import os
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cache
from typing import Any

from backends.base import Array, Backend, BackendError, BackendFull, Kernel, Memory
from backends.precision import PRECISIONS, Precision

__all__ = [
    "PRECISIONS",
    "Array",
    "Backend",
    "BackendError",
    "BackendInfo",
    "Kernel",
    "Memory",
    "Precision",
    "available",
    "choose",
    "get_backend",
]


def _numpy(device: str) -> Backend:
    from backends.numpy_backend import NumpyBackend

    return NumpyBackend(device)


def _cupy(device: str) -> Backend:
    from backends.cupy_backend import CupyBackend

    return CupyBackend(device)


def _cuda(device: str) -> Backend:
    return get_backend(f"cupy:{device}" if device else "cupy")


def _torch(device: str) -> Backend:
    from backends.torch_backend import TorchBackend

    return TorchBackend(device)


def _strict(device: str) -> Backend:
    from backends.strict_backend import StrictBackend

    return StrictBackend(device)


def _auto(device: str) -> Backend:
    if device:
        raise BackendError(f"backend 'auto:{device}': auto takes no device; name it, as 'cupy:1'")
    try:
        return get_backend("cupy")
    except BackendFull as error:
        warnings.warn(f"backend 'auto' computes on the CPU: {error}", RuntimeWarning, stacklevel=4)
        return get_backend("numpy")
    except BackendError:  # auto's whole meaning: whatever keeps CUDA from computing
        return get_backend("numpy")


def _kind(name: object) -> str:
    return "None" if name is None else f"a {type(name).__name__}"


def get_backend(name: "str | Backend" = "numpy") -> Backend:
    """The backend of a name, or the backend itself if it is one already.

    Raises BackendError naming cause and cure if it is unknown or cannot be used here.

    >>> get_backend("numpy").device_name()[:3]
    'CPU'
    >>> get_backend("nunpy")
    Traceback (most recent call last):
    ...
    backends.base.BackendError: unknown backend 'nunpy'; did you mean 'numpy'?
    """
    if isinstance(name, Backend):
        return name
    if not isinstance(name, str):
        raise BackendError(
            f"a backend is named by text, as 'numpy' or 'cupy:1', not by {_kind(name)}"
        )
    return _made(name)


@cache
def _made(name: str) -> Backend:
    library, _, device = name.partition(":")
    if library not in BACKENDS:
        asked = library.lower()
        near = get_close_matches(MEANT.get(asked, asked), BACKENDS, n=1)
        hint = f"did you mean '{near[0]}'?" if near else f"known: {', '.join(BACKENDS)}"
        raise BackendError(f"unknown backend {name!r}; {hint}")
    backend = BACKENDS[library](device)
    try:
        _try_out(backend)
    except BackendError:
        raise
    except Exception as error:  # whatever a library raises that is there and does not work
        lines = str(error).strip().splitlines() or ["no message"]
        cause = f"({type(error).__name__}: {lines[0]})"
        if isinstance(error, MemoryError) or NO_MEMORY.search(cause):
            raise BackendFull(
                f"backend '{name}': no memory for a small product {cause}{_free(backend)}: end "
                "what else uses the device (nvidia-smi lists it), or use another backend"
            ) from error
        raise BackendError(
            f"backend '{name}' is installed and does not compute {cause}; reinstall it, or use "
            "backend 'numpy'"
        ) from error
    return backend


# What CUDA's runtime, cuBLAS and PyTorch say, each with an error of its own.
NO_MEMORY = re.compile("out of memory|ALLOC_FAILED", re.IGNORECASE)


def _free(backend: Backend) -> str:
    """What a full device has free, where it still answers."""
    try:
        memory = backend.memory()
    except Exception:  # without the memory to say so; the first error is the cause
        return ""
    if memory.free is None or memory.total is None:
        return ""
    return f"; {memory.free / 1e6:.0f} MB of {memory.total / 1e6:.0f} MB are free"


def choose(*names: "str | Backend | None") -> Backend:
    """The first of these that is not None, else $MLP_BACKEND, else NumPy.

    Give them in order of precedence: the command line's flag, then the file's or the argument's.
    """
    for name in (*names, os.environ.get("MLP_BACKEND") or None):
        if name is not None:
            return get_backend(name)
    return get_backend("numpy")


@dataclass(frozen=True)
class BackendInfo:
    """A row of the table that `mlp backends` prints. Without a reason the backend is usable."""

    name: str
    reason: str = ""
    device: str = ""
    memory: Memory = field(default_factory=Memory)
    version: str = ""

    @property
    def usable(self) -> bool:
        return not self.reason


def available(names: "tuple[str, ...] | None" = None) -> list[BackendInfo]:
    """What is here: each backend tried out with a small kernel and a small product.

    >>> available(("numpy",))[0].usable
    True
    """
    if names is not None and not isinstance(names, (tuple, list)):
        raise BackendError(f"available: names must be a tuple, as ('numpy',), not {type(names)}")
    rows = []
    for name in names or ("numpy", "cupy", "torch", "strict"):
        try:
            backend = get_backend(name)
        except BackendError as error:
            rows.append(BackendInfo(name, reason=str(error)))
        else:
            rows.append(
                BackendInfo(
                    name,
                    device=backend.device_name(),
                    memory=backend.memory(),
                    version=backend.version(),
                )
            )
    return rows


def _try_out(backend: Backend) -> None:
    """A small kernel and a small product, looked at on the host."""

    def twice(xp: Any, x: Any) -> Any:
        return x + x

    with backend.scope():
        x = backend.full((2, 3), 1.0, "float32")
        backend.fuse(twice, into=(0,))(x)
        y = backend.empty((2, 2), "float32")
        backend.product(x, x.T, y)()
        if backend.to_numpy(y).tolist() != [[12.0, 12.0], [12.0, 12.0]]:
            raise BackendError(f"backend '{backend.name}' computes a wrong product")


# What is written for some of them.
MEANT = {"np": "numpy", "cpu": "numpy", "cp": "cupy", "gpu": "cuda", "pytorch": "torch"}
BACKENDS: dict[str, Callable[[str], Backend]] = {
    "numpy": _numpy,
    "cupy": _cupy,
    "cuda": _cuda,
    "torch": _torch,
    "strict": _strict,
    "auto": _auto,
}
