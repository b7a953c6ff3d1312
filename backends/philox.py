"""Uniform numbers that are a function of their place: Philox4x64-10.

A block of 8 numbers comes from a key of 2 words and a counter of 4 (Salmon et al., SC 2011, section
3.3; words are of 64 bits), each number from half a word h, the low half first:

    u = floor(h / 2^8) 2^-24                                                              (1)

as in NumPy's ``Generator(Philox(...)).random(dtype=float32)``. The counter of block j of a row is

    (row · blocks + j, member, step, stream)      blocks = ceil(columns / 8)              (2)

so that a row's numbers depend on nothing but the key, the step, the stream and the row's number:
any run of rows can be drawn on its own, on any device, and the whole array is NumPy's generator
read from counter (row of the first · blocks, member, step, stream) on, without each row's numbers
beyond the last column.

>>> clock = Clock()
>>> clock.set((5, 6), step=7)
>>> u = np.empty((2, 3), np.float32)
>>> fill(u, clock, stream=1)
>>> plain = np.random.Generator(np.random.Philox(key=[5, 6], counter=[0, 0, 7, 1]))
>>> bool((u == plain.random((2, 8), np.float32)[:, :3]).all())
True
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

BLOCK = 8  # numbers of a block
AT_ONCE = 1 << 15  # numbers that the host draws before it turns to the next: they stay in the cache


class Clock:
    """Which numbers it is the turn of: the key, the step, and the number of the first row."""

    def __init__(self) -> None:
        self.now = (0, 0, 0, 0)

    def set(self, key: Sequence[int], step: int, first_row: int = 0) -> None:
        """From here on. key: two words. first_row: of the first row drawn, among all of the step,
        where others draw those before it."""
        self.now = (int(key[0]), int(key[1]), int(step), int(first_row))


@dataclass(frozen=True)
class Uniform:
    """An array (n, m) of uniform numbers that is nowhere stored: a kernel that reads it draws them.

    now: the four numbers of a `Clock`, on the device. stream: which of the step's arrays it is.
    samples: rows of a member; n is a multiple.
    """

    now: Any
    stream: int
    samples: int
    shape: tuple[int, int]
    dtype = np.dtype("float32")


def fill(out: np.ndarray, clock: Clock, stream: int, samples: int | None = None) -> None:
    """out (n, m) <- eq. (1), on the host. samples: rows of a member, None is all of them."""
    key, (step, first) = clock.now[:2], clock.now[2:]
    columns = out.shape[1]
    blocks = -(-columns // BLOCK)
    rows = samples or len(out)
    chunk = max(1, AT_ONCE // (blocks * BLOCK))
    for member in range(len(out) // rows):
        counter = np.array([first * blocks, member, step, stream], np.uint64)
        bits = np.random.Philox(key=np.array(key, np.uint64), counter=counter)
        mine = out[member * rows : (member + 1) * rows]
        for start in range(0, rows, chunk):
            part = mine[start : start + chunk]
            words = bits.random_raw(len(part) * blocks * BLOCK // 2).astype("<u8", copy=False)
            halves = words.view("<u4").reshape(len(part), -1)
            np.right_shift(halves, 8, out=halves)
            np.copyto(part, halves.view("<i4")[:, :columns], "unsafe")  # faster than unsigned
            np.multiply(part, 2.0**-24, out=part)
