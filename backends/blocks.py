"""Rows in blocks that stay in the cache, for the kernels of the NumPy backend."""

from collections.abc import Iterator, Sequence

import numpy as np

from backends.base import Native
from backends.formula import FULL, Extent, Program

BLOCK = 1 << 14  # elements of one block: with its scratch about a quarter megabyte of float32
LONG_ROW = 128  # columns from which NumPy reduces a row at full speed


class Blocks:
    """The blocks of a kernel's arrays, which broadcast to ``shape``, as slices of rows.

    flat: the kernel runs over the arrays as over vectors, a row of one element each.

    >>> from backends.formula import FULL, trace
    >>> x = np.zeros((5, 3))
    >>> blocks = Blocks(trace(lambda xp, x: x * x, [FULL]), [x], x.shape, size=6)
    >>> blocks.flat, [(rows.start, rows.stop) for rows in blocks]
    (True, [(0, 6), (6, 12), (12, 15)])
    """

    def __init__(
        self,
        program: Program,
        arrays: Sequence[Native],
        shape: tuple[int, ...],
        size: int | None = BLOCK,
    ):
        """size: elements of a block, None for one block of all."""
        self.flat = is_flat(program, arrays, shape)
        self.arrays = [x.reshape(-1) if self.flat else np.atleast_2d(x) for x in arrays]
        self.width = 1 if self.flat else shape[-1]
        self.rows = int(np.prod(shape)) if self.flat else shape[0]
        self.height = self.rows if size is None else min(self.rows, size // max(self.width, 1))
        self.height = max(1, self.height)

    def __iter__(self) -> Iterator[slice]:
        for start in range(0, self.rows, self.height):
            yield slice(start, min(start + self.height, self.rows))

    def scratch(self, extent: Extent, dtype: np.dtype) -> np.ndarray:
        """Room for what has this extent, in any one block."""
        rows, columns = self.height if extent[0] else 1, self.width if extent[1] else 1
        return np.empty(rows if self.flat else (rows, columns), dtype)

    def argument(self, position: int, extent: Extent, rows: slice) -> np.ndarray:
        """The part of an argument that is in a block."""
        x = self.arrays[position]
        return x[rows] if extent[0] else x


def is_flat(program: Program, arrays: Sequence[Native], shape: tuple[int, ...]) -> bool:
    """Whether a kernel may run over the arrays as over vectors."""
    whole = all(
        x.shape == shape and x.flags.c_contiguous and program.code[n].extent == FULL
        for n, x in enumerate(arrays)  # of a single row, a row that all share has the same shape
    )
    return len(shape) < 2 or (whole and not program.reduces)
