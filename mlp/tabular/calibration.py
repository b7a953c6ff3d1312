"""Probabilities that are as often right as they say, and intervals that hold as often.

A member's shares p are those of its logits divided by a temperature T,

    p_k(T) = p_k^{1/T} / Σ_j p_j^{1/T}                                                    (1)

the one with the least log-loss on the rows that were held out from their members (C. Guo, G.
Pleiss, Y. Sun, K. Weinberger, "On calibration of modern neural networks", ICML 2017, section 4.2).
It goes into the last layer: W / T and b / T.

With r_i = y_i - y_{m(i)}(x_i), the residual of row i by the member m(i) that has not learned from
it, and R_i = |r_i|, the interval of coverage 1 - α is

    from the ⌊α (n + 1)⌋-th smallest y_{m(i)}(x) - R_i to the ⌈(1 - α)(n + 1)⌉-th smallest
    y_{m(i)}(x) + R_i                                                                     (2)

of new rows like these it holds at least 1 - 2α, and in nearly all cases 1 - α (R. F. Barber, E. J.
Candès, A. Ramdas, R. J. Tibshirani, "Predictive inference with the jackknife+", Annals of
Statistics 49 (2021), CV+ in section 3, theorem 4). The quantile q is the ⌈q (n + 1)⌉-th smallest
y_{m(i)}(x) + r_i. With sample weights, of mean 1, a row counts for its weight and a new one for 1:
the k-th smallest is the first with which the weights up to there add up to k (R. J. Tibshirani, R.
F. Barber, E. J. Candès, A. Ramdas, "Conformal prediction under covariate shift", NeurIPS 2019).
"""

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from scipy.optimize import minimize_scalar

from mlp.formulas.output_units import softmax
from mlp.model import Model
from mlp.tabular.members import Member

COOLEST, HOTTEST = 0.05, 20.0  # temperatures that are looked at
AT_ONCE = 1 << 24  # numbers that are sorted together
ROUNDED = 1e-12  # of a rank, by which a product of floats may be above it
LEAST = 1e-15  # a share that is taken for this, if it is less


def temperature(p: np.ndarray, t: np.ndarray, s: np.ndarray | None) -> float:
    """The T of the least log-loss (1): of shares p (n, classes), of class numbers t (n,).

    >>> p = np.array([[0.99, 0.01]] * 4)
    >>> t = np.array([0, 0, 0, 1])
    >>> round(float(tempered(p, temperature(p, t, None))[0, 0]), 2)
    0.75
    """

    def log_loss(log_t: float) -> float:
        of_class = tempered(p, math.exp(log_t))[np.arange(len(t)), t]
        return float(np.average(-np.log(np.maximum(of_class, LEAST)), weights=s))

    bounds = math.log(COOLEST), math.log(HOTTEST)
    return math.exp(minimize_scalar(log_loss, bounds=bounds, method="bounded").x)


def tempered(p: np.ndarray, T: float) -> np.ndarray:
    """(1), (n, classes)."""
    return np.asarray(softmax(np, np.log(np.maximum(np.asarray(p, np.float64), LEAST)) / T))


def cooled(member: Member, T: float) -> Member:
    """The member whose logits are divided by T."""
    model = member.model
    w = model.backend.to_numpy(model.w).copy()
    views, last = model.network.views(w), model.network.depth
    for name in ("W", "b"):
        for key, values in views[name].items():
            if (key[1] if isinstance(key, tuple) else key) == last:
                values /= T
    made: Model = model.to(model.backend)
    made.w = w
    return replace(member, model=made, outputs=tempered(member.outputs, T))


def order_statistics(
    y: Sequence[np.ndarray],
    residuals: Sequence[np.ndarray],
    ranks: Sequence[float],
    s: np.ndarray | None = None,
) -> np.ndarray:
    """The ⌈ranks⌉-th smallest, from 1 on, of y_m + r_i over all members m and their residuals r_i:
    (n, len(ranks)). y: each member's predictions (n,); s: weights of all residuals, above 0, or
    None; a rank of none is -∞ or ∞.

    >>> order_statistics([np.array([1.0])], [np.array([-0.5, 0.5, 0.0])], [1, 3, 4])
    array([[0.5, 1.5, inf]])
    """
    many = sum(map(len, residuals))
    found = np.empty((len(y[0]), len(ranks)))
    ranks = [rank - ROUNDED * many for rank in ranks]  # 0.55 * 100 is above 55
    inside = [min(max(math.ceil(rank), 1), many) - 1 for rank in ranks]
    for start in range(0, len(found), max(1, AT_ONCE // many)):
        rows = slice(start, start + max(1, AT_ONCE // many))
        sums = [of[rows, None] + r for of, r in zip(y, residuals, strict=True)]
        every = np.concatenate(sums, axis=1)
        if s is None:
            found[rows] = np.partition(every, inside, axis=1)[:, inside]
            continue
        order = every.argsort(axis=1)
        below = (s / s.mean())[order].cumsum(axis=1)
        at = np.stack([(below < rank).sum(axis=1) for rank in ranks], axis=1)
        found[rows] = np.take_along_axis(
            np.take_along_axis(every, order, axis=1), np.minimum(at, many - 1), axis=1
        )
    for k, rank in enumerate(ranks):
        if not 0 < rank <= many:
            found[:, k] = math.copysign(math.inf, rank)
    return found
