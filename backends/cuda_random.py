"""Uniform numbers of a CUDA device, drawn by the kernels that use them (`backends.philox`)."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from backends.cuda_kernel import Launch, compiled
from backends.cuda_source import translation_unit
from backends.philox import Clock

NAME = "mlp_clock"
SOURCE = f"""\
extern "C" __global__ void __launch_bounds__(1)
{NAME}(unsigned long long* now, unsigned long long key0, unsigned long long key1,
    unsigned long long step, unsigned long long first) {{
  now[0] = key0; now[1] = key1; now[2] = step; now[3] = first;
}}
"""


class CudaClock(Clock):
    """The four numbers on the device, written there by a kernel that has them by value: nothing is
    sent, nothing waits, and what was recorded reads them when it is replayed."""

    def __init__(self, backend: Any):
        super().__init__()
        self.there = backend.empty((4,), "uint64")
        self.launch: Launch | None = None  # compiled when it is first set

    def set(self, key: Sequence[int], step: int, first_row: int = 0) -> None:
        super().set(key, step, first_row)
        if self.launch is None:
            function = compiled(translation_unit(SOURCE), NAME)
            self.launch = Launch(function, (1,), 1, [self.there, *[np.uint64(0)] * 4])
        self.launch(*self.now)
