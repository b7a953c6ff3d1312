"""Loss scaling: what keeps float16 deltas from vanishing or overflowing (mixed precision).

Deltas are stored times a scale S, a power of two, and the gradient is divided by it
(`mlp.network.backpropagation.Pass`). S adapts itself, on the device:

    some value of g is not finite:      S <- S / 2, and the step is left out                 (1)
    GROWS_AFTER steps in a row are fine:  S <- 2 S                                           (2)

A step that is left out changes neither weights nor state vectors; it counts as a step.

Source: Micikevicius et al., "Mixed precision training", arXiv:1710.03740, section 3.2.
"""

from collections.abc import Callable
from typing import Any

from backends import Array

START, LEAST, MOST = 2.0**16, 1.0, 2.0**24
GROWS_AFTER = 2000.0


def judge(xp: Any, fine: Array, scale: Array, good: Array, total: Array) -> Any:
    """(fine, scale, good) after a step whose gradient sums to ``total``; all (1,).

    fine: 1 if the gradient is finite, else 0. good: fine steps since the scale last changed. A sum
    of finite numbers that overflows counts as not finite.

    >>> import numpy as np
    >>> one = np.ones(1)
    >>> with np.errstate(invalid="ignore"):
    ...     [float(x[0]) for x in judge(np, one, 8 * one, 5 * one, np.inf * one)]
    [0.0, 4.0, 0.0]
    """
    finite = total - total == 0.0
    fine = xp.where(finite, 0.0 * good + 1.0, 0.0)
    good = xp.where(finite, good + 1.0, 0.0)
    larger = xp.where(good >= GROWS_AFTER, 2.0 * scale, scale)  # (2)
    wanted = xp.where(finite, larger, 0.5 * scale)  # (1)
    scale = xp.minimum(xp.maximum(wanted, LEAST), MOST)
    return fine, scale, xp.where(good >= GROWS_AFTER, 0.0, good)


def judge_and_divide(
    xp: Any, fine: Array, scale: Array, good: Array, inverse: Array, total: Array
) -> Any:
    """The same, and 1 / S of this step, by which the update multiplies a gradient that is still
    times S: exactly, S being a power of two."""
    return (*judge(xp, fine, scale, good, total), 1.0 / scale)


def guarded(update: Callable[..., Any], vectors: int) -> Callable[..., Any]:
    """An optimizer's update, which leaves everything as it is where ``fine`` is 0.

    Its arguments: w, g, so many state vectors, fine (1,), what else the update takes.
    """

    def guarded_update(xp: Any, w: Array, g: Array, *rest: Array) -> Any:
        state, fine, constants = rest[:vectors], rest[vectors], rest[vectors + 1 :]
        alive = fine + 0.0 * g  # of g's shape, and NaN where g is not finite
        new = update(xp, w, g, *state, *constants)
        new = new if isinstance(new, tuple) else (new,)
        return tuple(xp.where(alive > 0.0, n, o) for n, o in zip(new, (w, *state), strict=True))

    return guarded_update
