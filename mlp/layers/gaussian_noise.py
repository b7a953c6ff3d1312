"""Normal noise added in training.

    y = x + deviation ξ        ∂E/∂x = Δ        ξ = Φ⁻¹(u + 2^-25)                            (1)

with the standard normal distribution Φ and uniform numbers u (`Place.draw`), multiples of 2^-24: so
|ξ| < 5.43. Its quantile is a quotient of polynomials, right to 1e-7 of itself (2e-6 in float32):
with q = u + 2^-25 - 1/2

    Φ⁻¹ = q A(r) / B(r)          r = 0.425² - q²                     for |q| <= 0.425         (2)
    Φ⁻¹ = ± C(r) / D(r)          r = √(-log(1/2 - |q|)) - 1.6        beyond, r <= 3.4         (3)

u is the same on every backend to the last bit; ξ to the rounding of log and √. In predictions y =
x. Sources: Bishop, Neural Computation 7(1), 1995; (2), (3) Wichura, Applied Statistics 37(3), 1988,
algorithm AS 241, PPND7.
"""

from dataclasses import dataclass
from typing import Any

from backends import Array
from mlp.layers.layer import Layer, Place, check_sources
from mlp.names import check_settings


def normal(xp: Any, u: Array) -> Array:
    """ξ of eq. (1): standard normal numbers from uniform ones.

    >>> import numpy as np
    >>> normal(np, np.array([0.0, 0.025, 0.5, 0.975])).round(3).tolist()
    [-5.42, -1.96, 0.0, 1.96]
    """
    q = u - 0.5 + 2.0**-25
    r = 0.180625 - q * q
    above = ((59.10937472 * r + 159.29113202) * r + 50.434271938) * r + 3.3871327179
    below = ((67.1875636 * r + 78.757757664) * r + 17.895169469) * r + 1.0
    middle = q * above / below  # (2)
    r = xp.sqrt(-xp.log(0.5 - xp.abs(q))) - 1.6
    above = ((0.17023821103 * r + 1.3067284816) * r + 2.75681539) * r + 1.4234372777
    below = (0.12021132975 * r + 0.7370016425) * r + 1.0
    return xp.where(xp.abs(q) <= 0.425, middle, xp.sign(q) * above / below)  # (3)


def disturbed(xp: Any, y: Array, x: Array, u: Array, deviation: Array) -> Array:
    """Eq. (1)."""
    return x + deviation * normal(xp, u)


@dataclass(frozen=True)
class GaussianNoise(Layer):
    """Adds normal numbers in training, others in each step; predictions are of x itself.

    deviation: their standard deviation, in the units of x; of inputs that are scaled, 0.1 is a
    tenth of theirs. sources: one layer; None is the one before.

    >>> from mlp import Dense, Network
    >>> from mlp.layers import GaussianNoise
    >>> Network(4, [GaussianNoise(0.1), Dense(8, "relu"), Dense(1)]).units
    (4, 4, 8, 1)
    """

    deviation: float = 0.1
    sources: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        check_settings(self, "GaussianNoise", deviation="(0, inf)")
        object.__setattr__(self, "sources", check_sources("GaussianNoise", self.sources, most=1))

    def strengths(self, factor: float) -> tuple[float, ...]:
        return (factor * self.deviation,)

    def forward(self, at: Place) -> None:
        (x,) = at.x.values()
        at.y = x
        if at.training:
            at.tape.apply(disturbed, (0,), at.output(), x, *at.draw())

    def backward(self, at: Place) -> None:
        for _, out in at.back():
            at.tape.copy(at.delta, out)
