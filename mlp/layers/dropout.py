"""Dropout: a share of the units is set to zero in training.

    y = x ⊙ m        ∂E/∂x = Δ ⊙ m                                                          (1)
    m = 1/(1 - rate) where u >= rate, else 0                                              (2)

with uniform numbers u, so that the mean of y is x (inverted dropout). They are multiples of 2^-24
in [0, 1); the rate is rounded up to one, so that exactly that share of them is below it, in every
precision. In predictions y = x. Source: Srivastava et al., JMLR 15, 2014, section 10.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from backends import Array
from mlp.errors import InputError, shown
from mlp.layers.layer import Layer, Place, check_sources


def drop(xp: Any, y: Array, x: Array, u: Array, rate: Array, scale: Array) -> Array:
    """Eq. (1) and (2), either way; scale = 1/(1 - rate)."""
    return xp.where(u >= rate, x * scale, 0.0)


def strengths(rate: float) -> tuple[float, ...]:
    """The rate of eq. (2) as the numbers u have it, and the scale of what is kept."""
    rate = min(math.ceil(rate * 2.0**24), 2**24 - 1) * 2.0**-24
    return rate, 1.0 / (1.0 - rate)


def check_rate(rate: object, place: str) -> float:
    """The share, as Python's number. InputError if it is none below 1."""
    if isinstance(rate, bool) or not isinstance(rate, (int, float, np.number)):
        raise InputError(f"{place} must be a number, not {shown(rate)}")
    if not 0.0 <= rate < 1.0:
        raise InputError(f"{place} must be in [0, 1), not {shown(rate)}")
    return float(rate)


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
        object.__setattr__(self, "sources", check_sources("Dropout", self.sources, most=1))

    def strengths(self, factor: float) -> tuple[float, ...]:
        return strengths(factor * self.rate) if self.rate else ()

    def forward(self, at: Place) -> None:
        (x,) = at.x.values()
        at.y = x
        if at.training and self.rate:
            at.tape.apply(drop, (0,), at.output(), x, *at.draw())

    def backward(self, at: Place) -> None:
        for _, out in at.back():
            if at.drawn:
                at.tape.apply(drop, (0,), out, at.delta, *at.drawn)
            else:
                at.tape.copy(at.delta, out)
