"""exp, expm1, log, log1p and tanh as plain arithmetic, for loops that a compiler vectorises.

A call of the C library keeps a loop from being vectorised, and NumPy's ufuncs have these functions
vectorised on some processors and for some dtypes only. So compiled loops have their own, without
branches. With n = rint(x / ln 2), r = x - n ln 2, |r| <= 0.35, and q the Taylor polynomial of
(e^r - 1 - r) / r²,

    exp x   = 2^n (1 + (r + r² q(r)))                                                       (1)
    expm1 x = 2^n (r + r² q(r)) + (2^n - 1)                                                 (2)
    tanh x  = e / (e + 2),  e = expm1 2|x|,  with the sign of x                             (3)

and with x = 2^k (1 + f), 1 + f within [√½, √2), s = f / (2 + f), and R the terms of s² and higher
in the series log(1 + f) = s (2 + R(s²)),

    log x   = k ln 2 + (f - (½ f² - s (½ f² + R(s²))))                                      (4)
    log1p x = log u + (x - (u - 1)) / u,  u = 1 + x                                         (5)

ln 2 is the sum of two numbers, of which n times the first is exact. 2^n is written into the bits of
a number: the last bits of n + M, where M is so large that sums with it are whole numbers, shifted
to where the exponent is. Within 1.1 units in the last place of the exact value for (1), 1 for (4),
2 for (2) and (5), 2.5 for (3), in both dtypes (tests/test_elementary.py); NumPy's: 0.6 to 4.

Sources: (1), (2) W. J. Cody, W. Waite, "Software Manual for the Elementary Functions", 1980,
chapter 6; (4), (5) K. C. Ng, FDLIBM, e_log.c and s_log1p.c, for the order of the terms.
"""

import math
from dataclasses import dataclass
from functools import cache

import numpy as np


@dataclass(frozen=True)
class _Format:
    """A dtype: the integer of its width, its bits after the point, its exponent's bias, ln 2 as the
    sum of two, how many terms (1) and (4) take, and from where on exp is 0, exp infinite, tanh 1.
    """

    integer: str
    fraction: int
    bias: int
    ln2: tuple[float, float]
    powers: int
    odd_powers: int
    ends: tuple[float, float, float]


_FORMATS = {
    "float32": _Format(
        "int32", 23, 127, (0.693359375, -2.1219444005469057e-4), 6, 4, (-104.0, 89.0, 10.0)
    ),
    "float64": _Format(
        "int64",
        52,
        1023,
        (0.6931471803691238, 1.9082149292705877e-10),
        12,
        9,
        (-746.0, 710.0, 20.0),
    ),
}

# {name} is a number of the dtype, {F} and {I} the dtype and the integer of its width.
_REDUCED = """\
    h = c * {per_ln2} + {M}
    n = h - {M}
    r = (c - n * {ln2}) - n * {ln2_rest}
    e = r + (r * r) * {q}
"""
# 2^n may be out of range where the result is not: it is the product of two.
_EXPONENTIAL = (
    """\
    c = {infinite} if x > {infinite} else x
    c = {nothing} if c < {nothing} else c
"""
    + _REDUCED
    + """\
    h = {half} * n + {M}
    half = h - {M}
    first = {two_to_h}
    h = (n - half) + {M}
    rest = {two_to_h}
"""
)
_BODIES = {
    "exp": _EXPONENTIAL
    + """\
    return ((e + {one}) * first) * rest
""",
    "expm1": _EXPONENTIAL
    + """\
    h = {M} - half
    v = (e * rest + (rest - {two_to_h})) * first
    return x if x == {zero} else v
""",
    "tanh": """\
    a = -x if x < {zero} else x
    c = a + a
    c = {flat} if c > {flat} else c
"""
    + _REDUCED
    + """\
    power = {two_to_h}
    e = power * e + (power - {one})
    v = e / (e + {two})
    v = -v if x < {zero} else v
    return x if x == {zero} else v
""",
    "log": """\
    tiny = x < {normal}
    y = x * {up} if tiny else x
    b = np.{I}(np.{F}(y).view(np.{I}) - {root})
    k = np.{I}(b >> {fraction})
    m = np.{I}(b - np.{I}(k << {fraction}) + {root})
    n = np.{F}(k) - ({ups} if tiny else {zero})
    f = np.{I}(m).view(np.{F}) - {one}
    s = f / ({two} + f)
    z = s * s
    h = {half} * f * f
    v = n * {ln2} - ((h - (s * (h + z * {R}) + n * {ln2_rest})) - f)
    v = v if x < {infinity} else x
    w = -{infinity} if x == {zero} else {nan}
    v = v if x > {zero} else w
    return v if x == x else x
""",
    "log1p": """\
    u = {one} + x
    lost = (x - (u - {one})) / u
    lost = lost if u < {infinity} else {zero}
    lost = lost if u > {zero} else {zero}
    v = log(u) + lost
    return x if x == {zero} else v
""",
}
FUNCTIONS = tuple(_BODIES)
CALLS = {"log1p": ("log",)}  # which others a function calls


@cache
def source(name: str, dtype: str) -> str:
    """Python source of one of the functions, of one number of the dtype.

    >>> print(source("log1p", "float32").splitlines()[1])
        u = np.float32(1.0) + x
    """
    about, number = _FORMATS[dtype], f"np.{dtype}".__add__
    nothing, infinite, flat = about.ends
    root = int(np.asarray(math.sqrt(0.5), dtype).view(about.integer))
    constants = {
        "per_ln2": 1.0 / math.log(2.0),
        "M": 1.5 * 2.0**about.fraction,
        "ln2": about.ln2[0],
        "ln2_rest": about.ln2[1],
        "nothing": nothing,
        "infinite": infinite,
        "flat": 2.0 * flat,
        "normal": 2.0 ** (1 - about.bias),
        "up": 2.0 ** (about.fraction + 2),
        "ups": about.fraction + 2.0,
        "zero": 0.0,
        "half": 0.5,
        "one": 1.0,
        "two": 2.0,
    }
    q = [1.0 / math.factorial(k + 2) for k in range(about.powers)]
    R = [2.0 / (2 * k + 3) for k in range(about.odd_powers)]
    words = {name: number(f"({value!r})") for name, value in constants.items()}
    words |= {"q": _polynomial(q, "r", dtype), "R": _polynomial(R, "z", dtype)}
    words |= {"infinity": number("(np.inf)"), "nan": number("(np.nan)")}
    words |= {"F": dtype, "I": about.integer, "fraction": str(about.fraction), "root": str(root)}
    shifted = f"(np.{dtype}(h).view(np.{about.integer}) + {about.bias}) << {about.fraction}"
    words["two_to_h"] = f"np.{about.integer}({shifted}).view(np.{dtype})"
    return f"def {name}(x):\n{_BODIES[name].format(**words)}"


def _polynomial(coefficients: list[float], x: str, dtype: str) -> str:
    """Σ c_i x^i by Horner's rule, as text."""
    *lower, last = (f"np.{dtype}({c!r})" for c in coefficients)
    text = last
    for c in reversed(lower):
        text = f"({text} * {x} + {c})"
    return text
