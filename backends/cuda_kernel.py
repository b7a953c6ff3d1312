"""CUDA kernels made ready to be launched, for the CuPy backend.

The text of a kernel (`backends.cuda_source`) is compiled by CuPy, once for each device, and its
arguments are laid out in memory when it is bound, not each time as `cupy.RawKernel` does; a launch
then writes the scalars and starts it.
"""

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np

from backends.base import Native, TracedKernel
from backends.cuda_source import formula_source, translation_unit
from backends.formula import OWN, Program
from backends.philox import Uniform


class CudaKernel(TracedKernel):
    """A formula as one CUDA kernel.

    A scalar may be a number, passed by value, or an array of one element, read from the device
    when the kernel runs; both give the same bits.
    """

    own = OWN

    def write(
        self, program: Program, arrays: Sequence[Native], shape: tuple[int, ...]
    ) -> Callable[..., None]:
        found = formula_source(program, arrays, shape)
        function = compiled(translation_unit(found.text), found.name)
        scalars = [np.dtype(found.real).type(0)] * (program.arguments - len(arrays))
        stored = [x.now if isinstance(x, Uniform) else x for x in arrays]
        arguments = [*stored, *scalars, *found.numbers]
        return Launch(function, (found.blocks,), found.threads, arguments)

    def unfused(self, arrays: Sequence[Native], scalars: int) -> Callable[..., None]:
        """Numbers that a kernel would draw are stored first."""
        dtype = np.result_type(*(x.dtype for x in arrays))
        draws: list[Callable[..., None]] = []
        stored: list[Native] = []
        for x in arrays:
            drawn = isinstance(x, Uniform)
            stored.append(self.xp.empty(x.shape, dtype=dtype) if drawn else x)
            if drawn:
                draws.append(CudaKernel(self.xp, _drawn).bind(stored[-1], x))
        formula = super().unfused(stored, scalars)

        def run(*scalars: float) -> None:
            for draw in draws:
                draw()
            formula(*scalars)

        return run


def _drawn(xp: Any, out: Native, u: Native) -> Native:
    return u


def compiled(source: str, name: str) -> Any:
    """The kernel of a complete source, for the current device; CuPy keeps it on disk."""
    import cupy

    return _compiled(cupy.cuda.runtime.getDevice(), source, name)


@cache
def _compiled(device: int, source: str, name: str) -> Any:
    import cupy

    return cupy.RawKernel(source, name).kernel


class Launch:
    """A kernel on its arguments, as a function of its scalars; runs on the current stream.

    arguments: arrays of the device, NumPy numbers (the scalars, next to each other, of one type)
    and Python whole numbers. It holds the arrays, so that their memory stays theirs.
    """

    def __init__(
        self, function: Any, blocks: tuple[int, ...], threads: int, arguments: Sequence[Any]
    ):
        from cupy.cuda.function import CPointer

        self.function, self.blocks, self.threads = function, blocks, (threads,)
        self.arguments = tuple(arguments)
        self.slots = np.zeros(len(arguments), np.int64)  # 8 bytes for each, whatever its type
        scalars = [i for i, x in enumerate(arguments) if isinstance(x, np.number)]
        for i, x in enumerate(arguments):
            if i not in scalars:
                self.slots[i] = x if isinstance(x, int) else x.data.ptr
        if scalars:
            kind = arguments[scalars[0]].dtype
            place = slice(scalars[0], scalars[-1] + 1)
            self.scalars = self.slots[place].view(kind)[:: 8 // kind.itemsize]
        address = self.slots.ctypes.data
        self.pointers = tuple(CPointer(address + 8 * i) for i in range(len(arguments)))

    def __call__(self, *values: float) -> None:
        if values:
            self.scalars[:] = values
        self.function(self.blocks, self.threads, self.pointers)
