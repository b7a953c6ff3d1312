"""PyTorch on any of its devices: "torch" (CPU), "torch:cuda:0", "torch:mps"."""

import re
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

import numpy as np

from backends.base import Backend, BackendError, Memory, Native
from backends.host_memory import host_memory

INSTALL = "pip install 'array-mlp[torch]'"
NO_MEMORY = re.compile("you tried to allocate|out of memory", re.IGNORECASE)  # host, Apple GPU


class TorchBackend(Backend):
    """Tensors on one device. Nothing of autograd is used: derivatives are the library's own."""

    def __init__(self, device: str = ""):
        self.name = f"torch:{device}" if device else "torch"
        try:
            import array_api_compat.torch as xp
            import torch
        except ImportError as error:
            raise BackendError(
                f"backend '{self.name}' needs the package torch ({error}): {INSTALL}"
            ) from error
        self.xp, self.torch = xp, torch
        try:
            self.device = torch.empty(1, device=device or "cpu").device
        except (RuntimeError, AssertionError) as error:
            cause = str(error).splitlines()[0]
            raise BackendError(
                f"backend '{self.name}': PyTorch {torch.__version__} cannot use device "
                f"'{device}' ({cause}); 'torch' is its CPU"
            ) from error
        own = torch.OutOfMemoryError
        self.out_of_memory = (own,) if self.device.type == "cuda" else (MemoryError, own)

    def owns(self, x: Any) -> bool:
        return isinstance(x, self.torch.Tensor) and x.device == self.device

    def asarray(self, x: Any, dtype: str | None = None) -> Native:
        if not isinstance(x, (self.torch.Tensor, np.ndarray)):
            x = self.torch.from_dlpack(x) if hasattr(x, "__dlpack__") else np.asarray(x)
        if isinstance(x, np.ndarray) and not (x.flags.writeable and min(x.strides, default=0) >= 0):
            x = x.copy()  # PyTorch has no read-only tensors and no negative strides
        wanted = getattr(self.torch, dtype) if dtype else None
        return self.torch.as_tensor(x, dtype=wanted, device=self.device).detach()

    def to_numpy(self, x: Native) -> np.ndarray:
        return x.detach().cpu().numpy()

    def empty(self, shape: Sequence[int], dtype: Any) -> Native:
        try:
            return super().empty(shape, dtype)
        except RuntimeError as error:  # of no kind of its own, but on a CUDA device
            if isinstance(error, self.out_of_memory) or not NO_MEMORY.search(str(error)):
                raise
            raise MemoryError(str(error).splitlines()[0]) from error

    def product(
        self, a: Native, b: Native, out: Native, precision: str = "float32"
    ) -> Callable[[], Any]:
        return partial(self.torch.matmul, a, b, out=out)

    def stack(
        self, a: Native, b: Native, out: Native, precision: str = "float32"
    ) -> Callable[[], Any]:
        if out.is_contiguous():
            return partial(self.torch.matmul, a, b, out=out)
        return lambda: out.copy_(a @ b)

    def total(self, x: Native, out: Native) -> Callable[[], Any]:
        return partial(self.torch.sum, x, 0, keepdim=x.ndim == 1, out=out)

    def take(self, x: Native, index: Native, out: Native) -> None:
        if x.dtype == out.dtype:
            self.torch.index_select(x, 0, index, out=out)
        else:
            out.copy_(x[index])

    def scatter(self, x: Native, index: Native, out: Native) -> Callable[[], None]:
        if self.device.type != "cpu":  # there the order of the sums is not fixed
            return super().scatter(x, index, out)

        def run() -> None:
            out.zero_()
            out.index_add_(0, index, x.to(out.dtype))

        return run

    def copy(self, source: Native, out: Native) -> None:
        out.copy_(source)

    def synchronize(self) -> None:
        if self.device.type == "cuda":
            self.torch.cuda.synchronize(self.device)
        elif self.device.type == "mps":
            self.torch.mps.synchronize()

    def lost(self, error: BaseException) -> bool:
        return isinstance(error, RuntimeError) and self.fails((RuntimeError,))

    def memory(self) -> Memory:
        if self.device.type == "cuda":
            return Memory(*self.torch.cuda.mem_get_info(self.device))
        return host_memory()  # an Apple GPU shares it

    def scope(self) -> AbstractContextManager[Any]:
        return self.torch.no_grad()

    def device_name(self) -> str:
        if self.device.type == "cuda":
            return str(self.torch.cuda.get_device_name(self.device))
        return str(self.device).upper()

    def version(self) -> str:
        return f"torch {self.torch.__version__}"
