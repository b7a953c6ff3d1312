"""exp and its like, of compiled loops: against a wider dtype, in units in the last place."""

import numpy as np
import pytest

from backends.elementary import FUNCTIONS
from backends.numpy_backend import NumpyBackend

MOST = {"exp": 1.1, "expm1": 2.0, "log": 1.0, "log1p": 2.0, "tanh": 2.5}
# Where exp, expm1, tanh, log1p and log were furthest off in a sweep over float32.
WORST = [-5.888854, 0.34856933, 0.031193009, -8.9407024e-08, 0.70385236]
SPECIAL = [0.0, -0.0, 1.0, -1.0, np.inf, -np.inf, np.nan, 2e3, -2e3, 1e30, 1e-45, 5e-324, -1e-30]

on_both = pytest.mark.parametrize("name", FUNCTIONS)


def computed(name, x):
    """What a compiled loop makes of x."""
    pytest.importorskip("numba")
    out = np.empty_like(x)
    NumpyBackend(jit=True).fuse(lambda xp, out, x: getattr(xp, name)(x)).bind(out, x)()
    return out


def points(name, dtype):
    """Where the function is neither 0 nor infinite: even, about 0 and about 1, and far out."""
    rng, wide = np.random.default_rng(0), dtype == "float64"
    least, most = {"exp": (-745, 709) if wide else (-103, 88), "tanh": (-25, 25)}.get(
        name, (-40, 709 if wide else 88)
    )
    small = 10.0 ** rng.uniform(-300 if wide else -37, 0, 40_000)
    x = [rng.uniform(least, most, 40_000), rng.uniform(-1, 1, 40_000), small, -small]
    x += [rng.uniform(0.5, 2.0, 40_000), 1.0 / small, WORST]
    x = np.concatenate(x).astype(dtype)
    lowest = {"log": 0.0, "log1p": -1.0}.get(name, -np.inf)
    return x[(x > lowest) & (x < (np.inf if name.startswith("log") else most))]


@on_both
def test_last_places(name, dtype):
    wide = {"float32": "float64", "float64": "longdouble"}[dtype]
    if np.finfo(wide).eps >= np.finfo(dtype).eps:
        pytest.skip("no dtype here is wider than float64")
    x = points(name, dtype)
    exact = getattr(np, name)(x.astype(wide))
    unit = np.spacing(abs(exact).astype(dtype)).astype(wide)
    off = abs(computed(name, x).astype(wide) - exact) / unit
    assert off.max() <= MOST[name]


@on_both
def test_ends(name, dtype):
    """NaN, infinities, zeros with their signs, what is out of range and the smallest numbers."""
    with np.errstate(all="ignore"):
        x = np.resize(np.array(SPECIAL).astype(dtype), 1000)
        expected = getattr(np, name)(x)
    found = computed(name, x)
    np.testing.assert_allclose(found, expected, rtol=4 * np.finfo(dtype).eps)
    there = ~np.isnan(expected)
    np.testing.assert_array_equal(np.signbit(found[there]), np.signbit(expected[there]))
