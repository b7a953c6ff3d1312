"""Randomness: one stream of `numpy.random` for each purpose, from one seed.

A stream is a function of (seed, purpose, numbers) alone, so nothing of it has to be saved: epoch 7
has the same order of samples in a resumed run, on any backend, whatever else was drawn before.
"""

from functools import lru_cache
from typing import Literal

import numpy as np

Purpose = Literal[
    "weights", "order", "split", "dropout", "blocks", "data weights", "mixup", "balance"
]
_KEYS: dict[Purpose, int] = {
    "weights": 1,
    "order": 2,
    "split": 3,
    "dropout": 4,
    "blocks": 5,
    "data weights": 6,
    "mixup": 7,
    "balance": 8,
}


def generator(seed: int, purpose: Purpose, *numbers: int) -> np.random.Generator:
    """The generator for a purpose; numbers tell apart epochs or steps.

    >>> bool(generator(0, "order", 3).random() == generator(0, "order", 3).random())
    True
    """
    sequence = np.random.SeedSequence(seed, spawn_key=(_KEYS[purpose], *numbers))
    return np.random.Generator(np.random.PCG64(sequence))


@lru_cache(maxsize=64)
def key(seed: int, purpose: Purpose) -> tuple[int, int]:
    """The key of a purpose, two words, for numbers that are drawn by their place
    (`backends.philox`)."""
    first, second = np.random.SeedSequence(seed, spawn_key=(_KEYS[purpose],)).generate_state(
        2, np.uint64
    )
    return int(first), int(second)
