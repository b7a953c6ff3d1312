"""Full-batch rules that look where they step: E at several points before the weights are moved.

They are no update of (w, g) alone, so they have a table of their own, `SEARCHES`; what they need of
the device is in `mlp.training.search`. Here is what is done with single numbers, on the host.

L-BFGS: with the last pairs s = w' - w and y = g' - g, the direction is d = -H g, H the inverse
Hessian that they give by the recursion

    q <- g;  newest to oldest: α_i = s_i·q / y_i·s_i,  q <- q - α_i y_i;  q <- γ q
    oldest to newest: β = y_i·q / y_i·s_i,  q <- q + (α_i - β) s_i;   d = -q                  (1)

with γ = s·y / y·y of the newest. All products are entries of one Gram matrix of the pairs and g, so
that (1) is a recursion of coefficients. The step α along d has to meet the strong Wolfe conditions

    E(w + α d) <= E + c1 α g·d        |g(w + α d)·d| <= c2 |g·d|                              (2)

Levenberg-Marquardt, for squared errors: with J the derivatives of the outputs by w and r the
weights of their squares, H = Jᵀ diag(r) J and the penalties' part of it,

    w <- w - (H + I/η)⁻¹ g                                                                   (3)

where E gets lower, and η is then ``grow`` times as large; else η is ``shrink`` times as large and
(3) is tried again. 1/η is the damping λ (μ): the learning rate η is what small steps have.

Sources: (1) Nocedal, Wright, Numerical Optimization, 2006, Algorithm 7.4, by coefficients as in
Chen, Wang, Zhou, NIPS 2014; (2) Algorithms 3.5 and 3.6; (3) Marquardt, SIAM 11, 1963; Hagan,
Menhaj, IEEE Trans. Neural Networks 5, 1994, eq. (10).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from mlp.errors import InputError, check_whole
from mlp.names import check_settings


@dataclass(frozen=True)
class LBFGS:
    """Limited-memory BFGS with a line search, eq. (1) and (2).

    memory: how many pairs are kept. c1, c2: of (2). tries: evaluations of a line search, at most.
    learning_rate: the step that is tried first along a direction, 1 as usual.

    >>> import numpy as np
    >>> import mlp
    >>> X = np.linspace(-2, 2, 50)[:, None]
    >>> net = mlp.Network(1, [mlp.Dense(5, "tanh"), mlp.Dense(1)])
    >>> model = mlp.Model(net, "mean_squared_error", dtype="float64")
    >>> result = mlp.train(model, X, np.sin(2 * X), optimizer="lbfgs", batch_size="full")
    >>> result.history["loss"][-1] < 1e-3
    True
    """

    memory: int = 10
    c1: float = 1e-4
    c2: float = 0.9
    tries: int = 25
    learning_rate = 1.0
    own_rate = True

    def __post_init__(self) -> None:
        check_settings(self, "optimizer 'lbfgs'", c1="(0, 1)", c2="(0, 1)")
        for name in ("memory", "tries"):
            check_whole(f"optimizer 'lbfgs': {name}", getattr(self, name), 1)
        if not self.c1 < self.c2:
            raise InputError(f"optimizer 'lbfgs': c1, {self.c1}, must be below c2, {self.c2}")

    @property
    def state(self) -> tuple[str, ...]:
        return tuple(f"{name}_{i}" for i in range(self.memory) for name in ("s", "y"))

    def initial(self, eta: float) -> tuple[float, ...]:
        return (0.0,) * len(self.state)


@dataclass(frozen=True)
class LevenbergMarquardt:
    """Damped Gauss-Newton steps for small nets, eq. (3), whose matrix has parameters² numbers.

    grow, shrink: of η. smallest: below it the run ends. learning_rate: η at first, 1000: a damping
    λ of 0.001. It is part of the state, and what the history has as learning rate.

    >>> import numpy as np
    >>> import mlp
    >>> X = np.linspace(-2, 2, 50)[:, None]
    >>> net = mlp.Network(1, [mlp.Dense(5, "tanh"), mlp.Dense(1)])
    >>> model = mlp.Model(net, "mean_squared_error", dtype="float64")
    >>> options = {"optimizer": "levenberg_marquardt", "batch_size": "full", "epochs": 60}
    >>> mlp.train(model, X, np.sin(2 * X), **options).history["loss"][-1] < 1e-3
    True
    """

    grow: float = 10.0
    shrink: float = 0.1
    smallest: float = 1e-10
    learning_rate = 1000.0
    own_rate = True
    state = ()

    def __post_init__(self) -> None:
        ranges = {"grow": "(1, inf)", "shrink": "(0, 1)", "smallest": "(0, inf)"}
        check_settings(self, "optimizer 'levenberg_marquardt'", **ranges)

    def initial(self, eta: float) -> tuple[float, ...]:
        return ()


def direction(gram: np.ndarray, order: Sequence[int]) -> tuple[np.ndarray, bool]:
    """Eq. (1): d as coefficients of the rows (s_0, y_0, s_1, ..., g) whose products are the Gram
    matrix; order: the pairs, the newest first. And whether a pair was used: one whose y·s is not
    above 0, as of a place that is still empty, is none."""
    last = len(gram) - 1
    tiny = np.finfo(np.float64).eps
    used = []
    for i in order:
        s, y = 2 * i, 2 * i + 1
        if gram[s, y] > tiny * math.sqrt(gram[s, s] * gram[y, y]) > 0.0:
            used.append((s, y))
    q, alphas = np.zeros(len(gram)), []
    q[last] = 1.0
    for s, y in used:
        alphas.append(gram[s] @ q / gram[s, y])
        q[y] -= alphas[-1]
    if used:
        s, y = used[0]
        q *= gram[s, y] / gram[y, y]
    for (s, y), alpha in zip(reversed(used), reversed(alphas), strict=True):
        q[s] += alpha - gram[y] @ q / gram[s, y]
    return -q, bool(used)


Phi = Callable[[float], tuple[float, float]]
Point = tuple[float, float, float]  # α, E and the slope there


def wolfe(phi: Phi, start: Point, first: float, rule: LBFGS, slack: float) -> float:
    """α of eq. (2), at which phi, (E, slope) of α, was asked last; 0 if there is none. start: at 0.
    slack: by how much E is rounded."""
    _, value, slope = start
    left = rule.tries

    def ask(alpha: float) -> Point:
        nonlocal left
        left -= 1
        return (alpha, *phi(alpha))

    def too_high(point: Point) -> bool:
        alpha, E, _ = point
        return not value + rule.c1 * alpha * slope + slack >= E  # also of a NaN

    def flat(point: Point) -> bool:
        return abs(point[2]) <= -rule.c2 * slope

    low, here = start, ask(first)
    high: Point | None = None
    while left > 0:  # Algorithm 3.5: until the two are on the sides of a lowest point
        if too_high(here) or (low[0] > 0.0 and here[1] >= low[1] + slack):
            high = here
            break
        if flat(here):
            return here[0]
        if here[2] >= 0.0:
            low, high = here, low
            break
        low, here = here, ask(2.0 * here[0])
    while high is not None and left > 0:  # Algorithm 3.6
        here = ask(_between(low, high))
        if too_high(here) or here[1] >= low[1] + slack:
            high = here
            continue
        if flat(here):
            return here[0]
        if here[2] * (high[0] - low[0]) >= 0.0:
            high = low
        low = here
    if low[0] > 0.0 and here[0] != low[0]:
        phi(low[0])
    return low[0]


def _between(low: Point, high: Point) -> float:
    """The lowest point of the cubic through both, at least a tenth of the way from either."""
    (a, value_a, slope_a), (b, value_b, slope_b) = low, high
    found = math.nan
    if all(map(math.isfinite, (value_b, slope_b))):
        d1 = slope_a + slope_b - 3.0 * (value_a - value_b) / (a - b)
        root = d1 * d1 - slope_a * slope_b
        if root >= 0.0:
            d2 = math.copysign(math.sqrt(root), b - a)
            below = slope_b - slope_a + 2.0 * d2
            found = b - (b - a) * (slope_b + d2 - d1) / below if below else math.nan
    margin = 0.1 * abs(b - a)
    if not min(a, b) + margin <= found <= max(a, b) - margin:
        return 0.5 * (a + b)
    return found


SearchName = Literal["lbfgs", "levenberg_marquardt"]

SEARCHES: dict[str, Callable[..., Any]] = {
    "lbfgs": LBFGS,
    "levenberg_marquardt": LevenbergMarquardt,
}
