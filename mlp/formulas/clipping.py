"""Clipping: gradients that are too large are made smaller before the update.

    by value   g_i <- min(max(g_i, -c), c)                                                (1)
    by norm    g <- g c / max(|g|, c),   |g|² = Σ_i g_i² over all that is trained         (2)

and the step of sharpness-aware minimisation, whose gradient is that of the worst point near w,

    g = dE/dw at w + radius g_0 / |g_0|,   g_0 = dE/dw at w                               (3)

Weights too are kept short, after the update, where a layer has a max_norm c: of each unit k

    W_·k <- W_·k c / max(|W_·k|, c)                                                       (4)

|g| stays on the device: it is an array of one number that the update reads. Where it is too large
for the dtype the step is NaN, not zero, so that the run is seen to have diverged.

Sources: (2) Pascanu, Mikolov, Bengio, arXiv:1211.5063, Algorithm 1; (3) Foret et al.,
arXiv:2010.01412, eq. (2) and Algorithm 1; (4) Srivastava et al., JMLR 15, 2014, section 5.1.
"""

from collections.abc import Callable
from typing import Any

from backends import Array

Update = Callable[..., Any]


def square(xp: Any, squares: Array, g: Array) -> Array:
    """g_i², whose total is |g|²."""
    return g * g


def shrinkage(xp: Any, factor: Array, total: Array, most: Array) -> Array:
    """c / max(|g|, c) of eq. (2), from |g|²; (1,).

    >>> import numpy as np
    >>> [float(shrinkage(np, None, np.array([x]), 2.0)[0]) for x in (1.0, 16.0)]
    [1.0, 0.5]
    """
    return most / xp.maximum(xp.sqrt(total), most) + 0.0 * total


def clipped_by_value(update: Update, most: float) -> Update:
    """The update on g of eq. (1)."""

    def clipped(xp: Any, w: Array, g: Array, *rest: Array) -> Any:
        return update(xp, w, xp.minimum(xp.maximum(g, -most), most), *rest)

    return clipped


def clipped_by_norm(update: Update, vectors: int) -> Update:
    """The update on g of eq. (2); the factor, (1,), comes after so many state vectors."""

    def clipped(xp: Any, w: Array, g: Array, *rest: Array) -> Any:
        state, factor, constants = rest[:vectors], rest[vectors], rest[vectors + 1 :]
        return update(xp, w, factor * g, *state, *constants)

    return clipped


def shortened(xp: Any, W: Array, total: Array, most: Array) -> Array:
    """Eq. (4), from the units' |W_·k|², (units,)."""
    return W * shrinkage(xp, W, total, most)


def reach(xp: Any, factor: Array, total: Array, radius: Array) -> Array:
    """radius / |g| of eq. (3), from |g|²; (1,)."""
    return radius / xp.sqrt(xp.where(total == 0.0, 1.0, total))


def ascended(xp: Any, w: Array, kept: Array, g: Array, factor: Array) -> Any:
    """The point of eq. (3), and w, to be kept; factor is the `reach`."""
    return w + factor * g, w


def from_kept(update: Update, vectors: int) -> Update:
    """The update from the w that was kept, (parameters,), after so many state vectors."""

    def kept_update(xp: Any, w: Array, g: Array, *rest: Array) -> Any:
        state, kept, constants = rest[:vectors], rest[vectors], rest[vectors + 1 :]
        return update(xp, kept, g, *state, *constants)

    return kept_update
