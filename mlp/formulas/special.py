"""Functions that the array standard does not have, for formulas.

The error function erf(x) = 2/√π ∫₀ˣ exp(-u²) du, as in W. J. Cody, "Rational Chebyshev
approximations for the error function", Math. Comp. 23, 1969: a rational function of x² about 0, and
exp(-x²) times one of |x| beyond, each without cancellation,

    erf(x) = x + x P(x²) / Q(x²)                      |x| < 1                             (1)
    erf(x) = sign(x) (1 - exp(-x²) R(|x|) / S(|x|))   else                                (2)

The four polynomials are the best (Remez' second algorithm in 50 digits) to 7e-19 of erf in (1) and
to 1.2e-18 in (2), up to |x| = 5.93, from where on erf is 1 in float64. Computed, erf is within 1.5
units in the last place of float64 and 2 of float32 (tests/test_activations.py).

>>> import numpy as np
>>> erf(np, np.array([0.5, -3.0])).tolist() == [0.5204998778130465, -0.9999779095030014]
True
"""

import math
from typing import Any

from backends import Array

_P = (
    0.1283791670955126,
    -0.31700617542090287,
    -0.048329367305486,
    -0.008815653684541075,
    -0.0004956112626345778,
    -2.0732435085935705e-05,
)
_Q = (
    1.0,
    0.4605125188804983,
    0.09381293778352409,
    0.010693053052378745,
    0.0006924955319999395,
    2.0810134525989532e-05,
)
_R = (
    0.9999998869897996,
    1.3905905804147023,
    0.949536704423128,
    0.3736085591601074,
    0.08435176759844767,
    0.008930730420788912,
)
_S = (
    1.0,
    2.5189685569667657,
    2.791894327586329,
    1.7571890299193,
    0.6701780991838492,
    0.14950571018111644,
    0.01582942998355239,
)


def erf(xp: Any, x: Array) -> Array:
    """The error function: the library's own where it has one, else eq. (1) and (2)."""
    if hasattr(xp, "erf"):
        return xp.erf(x)
    a = xp.minimum(xp.abs(x), 5.93)
    square = xp.minimum(a * a, 1.0)
    near = x + x * (_polynomial(_P, square) / _polynomial(_Q, square))
    far = 1.0 - xp.exp(-a * a) * (_polynomial(_R, a) / _polynomial(_S, a))
    return xp.where(a < 1.0, near, xp.where(x < 0.0, -far, far))


def normal_distribution(xp: Any, x: Array) -> Array:
    """Φ(x) = (1 + erf(x/√2)) / 2, the share of a standard normal variable that is below x; right to
    a unit of rounding of 1, not relative to itself where it is small."""
    return 0.5 * (1.0 + erf(xp, x * math.sqrt(0.5)))


def _polynomial(coefficients: tuple[float, ...], x: Array) -> Array:
    """Σ c_i x^i, by Horner's rule."""
    *lower, second, first = coefficients
    total = first * x + second
    for c in reversed(lower):
        total = total * x + c
    return total
