"""Dropout: a share of the units is set to zero in training.

    y = x ⊙ m        ∂E/∂x = Δ ⊙ m                                                          (1)

with masks m of 0 and 1/(1 - rate), so that the mean of y is x (inverted dropout). In predictions
y = x. Source: Srivastava et al., JMLR 15, 2014, section 10.

>>> import numpy as np
>>> draw_mask(np.random.default_rng(0), 1, 4, 0.5).tolist()
[[2.0, 2.0, 2.0, 0.0]]
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from backends import Array
from mlp.errors import InputError
from mlp.layers.layer import Layer, Place, check_sources


def drop(xp: Any, y: Array, x: Array, mask: Array) -> Array:
    """Eq. (1), either way."""
    return x * mask


def draw_mask(rng: np.random.Generator, n: int, units: int, rate: float) -> np.ndarray:
    """(n, units) float32 on the host: 0 with probability ``rate``, else 1/(1 - rate)."""
    kept = rng.random((n, units), dtype=np.float32) >= rate
    return kept.astype(np.float32) / np.float32(1.0 - rate)


def check_rate(rate: object, place: str) -> None:
    """InputError if it is no share below 1."""
    if isinstance(rate, bool) or not isinstance(rate, (int, float, np.number)):
        raise InputError(f"{place} must be a number, not {rate!r}")
    if not 0.0 <= rate < 1.0:
        raise InputError(f"{place} must be in [0, 1), not {rate!r}")


@dataclass(frozen=True)
class Dropout(Layer):
    """Dropout as a layer of its own, as after the input or an addition; `Dense` has it built in.

    rate: the share of the units that is set to zero. sources: one layer; None is the one before.

    >>> from mlp import Dense, Network
    >>> net = Network(4, [Dropout(0.1), Dense(8, "relu"), Dense(1)])
    >>> net.units, net.parameters
    ((4, 4, 8, 1), 49)
    """

    rate: float = 0.5
    sources: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        check_rate(self.rate, "Dropout: rate")
        object.__setattr__(self, "dropout", self.rate)
        object.__setattr__(self, "sources", check_sources("Dropout", self.sources, most=1))

    def forward(self, at: Place) -> None:
        (x,) = at.x.values()
        at.y = x
        if at.training and self.rate:
            at.tape.apply(drop, (0,), at.output(), x, at.mask())

    def backward(self, at: Place) -> None:
        for _, out in at.back():
            if at.masks:
                at.tape.apply(drop, (0,), out, at.delta, at.masks[0])
            else:
                at.tape.copy(at.delta, out)
