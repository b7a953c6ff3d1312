"""Losses: the cost of each output unit and its derivative with respect to the network's output.

A loss is a cost c(y, t) for each unit and sample, summed over both (derivation 001 eq. 2):

    E = Σ_p Σ_k c(y_pk, t_pk)                                                             (1)

Backpropagation starts from δ_L = f'ᵀ(z_L) · ∂c/∂y (derivation 002 eq. 10). A loss may absorb its
natural output unit: it then names it in ``unit`` and takes the raw output z in place of y, the
product collapses to

    δ_L = prediction - target                                                             (2)

and is exact at any z (derivation 001 eq. 12-13, whose c is a log-likelihood to ascend; as a cost
to descend its sign is turned, so y - h there is h - y here). `predict` applies the unit.

``average`` divides by the number of outputs, ``reduction`` is what is usual over samples.

No cost is below zero, and cost and derivative are those of inputs at most a few units of rounding
away: terms that would cancel further are not subtracted. Where a cost has a kink its derivative is
0 there, which is one of its subgradients.

A loss whose settings hold a number for each output gets them as ``rows``: further arguments (m,) of
`cost` and `derivative`, that stand beside the columns of y.

A loss may need several outputs for each target, its *heads* (levels of a quantile, a mean and a
deviation). Its formulas then see y (rows, heads) and t (rows, 1), a row for each target of each
sample, and ``rows`` has a number for each head. `answer` makes of the outputs what is predicted.

A loss for labels or classes predicts shares. Those of a *proper* loss are probabilities: its mean
is least where they are the true ones (Gneiting and Raftery, JASA 102 (2007) 359, section 2). Of the
others (``proper = False``) the order counts, and the side of 1/2: they are scores.

Your own loss is any object with `cost` and `derivative`, in the language of `backends.formula`; one
with a name is a row of `LOSSES` and of `LossName`:

>>> class Huber:
...     def cost(self, xp, y, t):
...         d = xp.abs(y - t)
...         return xp.where(d < 1.0, 0.5 * d * d, d - 0.5)
...     def derivative(self, xp, y, t):
...         return xp.minimum(xp.maximum(y - t, -1.0), 1.0)
>>> import numpy as np
>>> LOSSES["half_squared_error"].cost(np, np.array([[3.0]]), np.array([[1.0]]))
array([[2.]])
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal, Protocol

import numpy as np

from backends import Array
from mlp.errors import InputError, did_you_mean, shown
from mlp.formulas.activations import Activation, Identity, get_activation, try_formula
from mlp.formulas.output_units import log_shares, sigmoid, softmax, softplus
from mlp.formulas.target_kinds import TARGET_KINDS
from mlp.names import Numbers, check_settings, make

Reduction = Literal["sum", "mean"]
Rows = tuple[Sequence[float], ...]  # arguments with a number for each output


class Loss(Protocol):
    """What the objective asks of a loss. y and t are (n, c) of one dtype, and so are the results.

    Optional attributes: ``unit`` (name of the output activation it absorbs, default none),
    ``average`` (over outputs, default False), ``reduction`` (over samples, default "mean"),
    ``targets`` (a name of `mlp.formulas.target_kinds`, default "numbers"), ``positive`` (t must be
    above 0, default False), ``proper`` (its shares are probabilities, default True), ``fewest``
    (outputs that it needs, default 1), and a method ``rows(outputs)``: for each further argument of
    the formulas a number for each output.

    Of a loss with heads: ``heads`` (how many, or "all" outputs, default 1), ``names`` of them,
    ``point`` (the number of the head that metrics of numbers measure, default 0), ``spreads``
    (whether each is a width, which a shift of the targets leaves as it is), ``ordered`` (t are
    numbers of classes in their order, one more than heads), and a method ``answer(xp, y)``: the
    predictions (n, columns) of the outputs (n, outputs), by functions of the array standard.
    """

    @property
    def cost(self) -> Callable[..., Array]:
        """cost(xp, y, t, *rows): c(y, t) of each unit, eq. (1)."""

    @property
    def derivative(self) -> Callable[..., Array]:
        """derivative(xp, y, t, *rows): ∂/∂y of the sum of `cost` over the row."""


@dataclass(frozen=True)
class SquaredError:
    """c = factor (y - t)², derivative 2 factor (y - t).

    With factor ½, summed over outputs and samples, it is the E_tot of derivation 003, whose deltas
    carry the other sign, and the L of 004; with the mean over both, 000's E = 1/(2cN) ΣΣ (y - t)².
    """

    factor: float = 1.0
    average: bool = True
    reduction: Reduction = "mean"
    targets = "numbers"

    def __post_init__(self) -> None:
        check_settings(self, "squared error", factor="(0, inf)")

    @property
    def curvature(self) -> float:
        """The second derivative, of losses in which it is a number."""
        return 2.0 * self.factor

    def cost(self, xp: Any, y: Array, t: Array) -> Array:
        d = y - t
        return self.factor * d * d

    def derivative(self, xp: Any, y: Array, t: Array) -> Array:
        return 2.0 * self.factor * (y - t)


@dataclass(frozen=True)
class MeanAbsoluteError:
    """c = |y - t|, derivative sign(y - t): its least is at the median of t."""

    average = True
    targets = "numbers"
    targets = "numbers"

    def cost(self, xp: Any, y: Array, t: Array) -> Array:
        return xp.abs(y - t)

    def derivative(self, xp: Any, y: Array, t: Array) -> Array:
        return xp.sign(y - t)


@dataclass(frozen=True)
class Huber:
    """c = ½ d² where |d| <= delta, else delta (|d| - ½ delta), with d = y - t.

    The derivative is d, held to ±delta, which has the units of t (scaled ones, if t is scaled).
    Source: P. J. Huber, "Robust estimation of a location parameter", Annals of Mathematical
    Statistics 35 (1964) 73, eq. (1.7) ff.
    """

    delta: float = 1.0
    average = True
    targets = "numbers"

    def __post_init__(self) -> None:
        check_settings(self, "huber", delta="(0, inf)")

    def cost(self, xp: Any, y: Array, t: Array) -> Array:
        d = xp.abs(y - t)
        near = xp.minimum(d, self.delta)
        return near * (d - 0.5 * near)

    def derivative(self, xp: Any, y: Array, t: Array) -> Array:
        return xp.minimum(xp.maximum(y - t, -self.delta), self.delta)


@dataclass(frozen=True)
class LogCosh:
    """c = log cosh d, derivative tanh(d), with d = y - t: ½ d² near 0, |d| - log 2 far away.

    Near 0 from cosh d - 1 = expm1(|d|)² / (2 exp(|d|)), which does not cancel; beyond |d| = 1 from
    |d| + log1p(exp(-2|d|)) - log 2, which does not overflow. Source: the algebra of cosh.
    """

    average = True
    targets = "numbers"

    def cost(self, xp: Any, y: Array, t: Array) -> Array:
        d = xp.abs(y - t)
        e = xp.expm1(xp.minimum(d, 1.0))
        near = xp.log1p(0.5 * e * (e / (1.0 + e)))
        return xp.where(d < 1.0, near, d + xp.log1p(xp.exp(-2.0 * d)) - math.log(2.0))

    def derivative(self, xp: Any, y: Array, t: Array) -> Array:
        return xp.tanh(y - t)


@dataclass(frozen=True)
class Quantile:
    """c = max(q (t - y), (q - 1) (t - y)): its least is at the quantile q of t, 0 < q < 1.

    The derivative is 1 - q where y > t, -q where y < t. q: a level, or several that rise, each with
    an output of its own (c is their mean); predictions are called q0.1, q0.5 and so on.
    non_crossing: predictions of several levels are put in rising order in each row, which brings
    none of them further from the true quantiles (Chernozhukov, Fernández-Val and Galichon,
    Econometrica 78 (2010) 1093, section 2.2). Metrics measure the level nearest to ½.

    Source: Koenker and Bassett, "Regression quantiles", Econometrica 46 (1978) 33, eq. (3.1);
    scikit-learn's `mean_pinball_loss`.
    """

    q: Numbers = 0.5
    non_crossing: bool = True
    average = True
    targets = "numbers"

    def __post_init__(self) -> None:
        check_settings(self, "quantile", q="(0, 1)")
        if any(a >= b for a, b in pairwise(self._levels)):
            raise InputError(f"quantile: q must rise, as [0.1, 0.5, 0.9], not {shown(self.q)}")
        if self.heads == 1 and not self.non_crossing:
            raise InputError("quantile: non_crossing = False is for several q; leave it out")

    @property
    def _levels(self) -> tuple[float, ...]:
        return self.q if isinstance(self.q, tuple) else (self.q,)

    @property
    def heads(self) -> int:
        return len(self._levels)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(f"q{q:g}" for q in self._levels)

    @property
    def unit(self) -> str | None:
        return None if self.heads == 1 else "identity"  # no unit may mix levels

    @property
    def point(self) -> int:
        return min(range(self.heads), key=lambda k: abs(self._levels[k] - 0.5))

    def rows(self, outputs: int) -> Rows:
        return (self.q,) if isinstance(self.q, tuple) else ()

    def cost(self, xp: Any, y: Array, t: Array, *q: Array) -> Array:
        d, level = t - y, self._level(*q)
        return xp.maximum(level * d, (level - 1.0) * d) / self.heads

    def derivative(self, xp: Any, y: Array, t: Array, *q: Array) -> Array:
        side, level = xp.sign(y - t), self._level(*q)
        return (0.5 * side + (0.5 - level) * xp.abs(side)) / self.heads

    def _level(self, *q: Array) -> Any:
        return q[0] if q else self._levels[0]

    def answer(self, xp: Any, y: Array) -> Array:
        if self.heads == 1 or not self.non_crossing:
            return y
        return xp.reshape(xp.sort(xp.reshape(y, (-1, self.heads)), axis=1), y.shape)


@dataclass(frozen=True)
class Gaussian:
    """c = ½ (s + (t - μ)² exp(-s)), the outputs μ and s = log σ² of each target: minus the log
    of a normal density, but for ½ log 2π. Half of c is each head's.

    ∂c/∂μ = -(t - μ) exp(-s), ∂c/∂s = ½ - ½ (t - μ)² exp(-s). Predictions are the mean μ and the
    standard deviation σ = exp(s/2), both in the units of t; metrics measure the mean. c may be
    below 0, and has no least where all t are met exactly: then σ goes to 0.

    Source: Nix and Weigend, "Estimating the mean and variance of the target probability
    distribution", ICNN 1994, eq. (5); s in place of σ²: Kendall and Gal, arXiv:1703.04977, eq. (8).
    """

    average = True
    targets = "numbers"
    unit = "identity"
    heads = 2
    names = ("mean", "deviation")
    spreads = (False, True)

    def rows(self, outputs: int) -> Rows:
        return ((1.0, 0.0),)

    def cost(self, xp: Any, y: Array, t: Array, of_mean: Array) -> Array:
        d, s = self._parts(xp, y, t, of_mean)
        return xp.where(of_mean > 0.0, 0.5 * d * (d * xp.exp(-s)), 0.5 * s)

    def derivative(self, xp: Any, y: Array, t: Array, of_mean: Array) -> Array:
        d, s = self._parts(xp, y, t, of_mean)
        pull = d * xp.exp(-s)
        return xp.where(of_mean > 0.0, -pull, 0.5 - 0.5 * d * pull)

    def _parts(self, xp: Any, y: Array, t: Array, of_mean: Array) -> tuple[Array, Array]:
        mean = xp.sum(y * of_mean, axis=1, keepdims=True)
        return t - mean, xp.sum(y * (1.0 - of_mean), axis=1, keepdims=True)

    def answer(self, xp: Any, y: Array) -> Array:
        pairs = xp.reshape(y, (-1, 2))
        mean, deviation = pairs[:, :1], xp.exp(0.5 * pairs[:, 1:])
        return xp.reshape(xp.concat([mean, deviation], axis=1), y.shape)


@dataclass(frozen=True)
class BinaryCrossEntropy:
    """c = -[p t log h + (1 - t) log(1 - h)] with h = σ(z), for one output or many; t from 0 to 1.

    From z with p = 1: c = max(z, 0) - z t + log(1 + exp(-|z|)), and ∂c/∂z = h - t (derivation 001
    eq. 12-13 with the sign of a cost; 002: sigmoid with the Bernoulli likelihood).

    label_smoothing: t is drawn towards ½ by this share, t (1 - ε) + ε/2 (Szegedy et al.,
    arXiv:1512.00567, section 7). pos_weight: p, how much a yes weighs, one number or one for each
    output: c = p t log(1 + exp(-z)) + (1 - t) log(1 + exp(z)). With either the least of the mean is
    not at the true probability, and predictions are scores.
    """

    label_smoothing: float = 0.0
    pos_weight: Numbers = 1.0
    unit = "sigmoid"
    targets = "labels"

    def __post_init__(self) -> None:
        ranges = {"label_smoothing": "[0, 1)", "pos_weight": "(0, inf)"}
        check_settings(self, "binary_cross_entropy", **ranges)

    @property
    def proper(self) -> bool:
        return self.label_smoothing == 0.0 and self.pos_weight == 1.0

    def rows(self, outputs: int) -> Rows:
        return () if isinstance(self.pos_weight, (int, float)) else (self.pos_weight,)

    def cost(self, xp: Any, y: Array, t: Array, *p: Array) -> Array:
        t, weight = self._smooth(t), p[0] if p else self.pos_weight
        if self.pos_weight == 1.0:
            return xp.maximum(y, 0.0) - y * t + xp.log1p(xp.exp(-xp.abs(y)))
        return weight * t * softplus(xp, -y) + (1.0 - t) * softplus(xp, y)

    def derivative(self, xp: Any, y: Array, t: Array, *p: Array) -> Array:
        t, weight = self._smooth(t), p[0] if p else self.pos_weight
        if self.pos_weight == 1.0:
            return sigmoid(xp, y) - t  # (2)
        return (1.0 - t) * sigmoid(xp, y) - weight * t * sigmoid(xp, -y)

    def _smooth(self, t: Array) -> Array:
        by = self.label_smoothing
        return (1.0 - by) * t + 0.5 * by if by else t


@dataclass(frozen=True)
class BinaryFocal:
    """c = -[α t (1 - h)^γ log h + (1 - α) (1 - t) h^γ log(1 - h)] with h = σ(z), t from 0 to 1.

    From z, with s₁ = -log h = log(1 + exp(-z)) and s₀ = -log(1 - h) = log(1 + exp(z)):

        c = α t exp(-γ s₀) s₁ + (1 - α) (1 - t) exp(-γ s₁) s₀
        ∂c/∂z = (1 - α) (1 - t) exp(-γ s₁) (γ (1 - h) s₀ + h)
                - α t exp(-γ s₀) (γ h s₁ + 1 - h)

    gamma: how much less what is easily told apart counts; 0 is cross-entropy. alpha: the weight of
    a yes, 1 - alpha that of a no. Source: Lin et al., arXiv:1708.02002, eq. (5).
    """

    gamma: float = 2.0
    alpha: float = 0.25
    unit = "sigmoid"
    targets = "labels"
    proper = False

    def __post_init__(self) -> None:
        check_settings(self, "binary_focal", gamma="[0, inf)", alpha="(0, 1)")

    def cost(self, xp: Any, y: Array, t: Array) -> Array:
        yes, no = softplus(xp, -y), softplus(xp, y)
        of_yes = self.alpha * t * xp.exp(-self.gamma * no) * yes
        return of_yes + (1.0 - self.alpha) * (1.0 - t) * xp.exp(-self.gamma * yes) * no

    def derivative(self, xp: Any, y: Array, t: Array) -> Array:
        yes, no = softplus(xp, -y), softplus(xp, y)
        h, rest = sigmoid(xp, y), sigmoid(xp, -y)
        of_yes = self.alpha * t * xp.exp(-self.gamma * no) * (self.gamma * h * yes + rest)
        of_no = xp.exp(-self.gamma * yes) * (self.gamma * rest * no + h)
        return (1.0 - self.alpha) * (1.0 - t) * of_no - of_yes


@dataclass(frozen=True)
class Hinge:
    """c = t max(0, 1 - z) + (1 - t) max(0, 1 + z), of each output; t from 0 to 1. With squared,
    both maxima squared.

    For t of 0 or 1 it is max(0, 1 ∓ z), scikit-learn's `hinge_loss`; a t between is their mean. The
    prediction is σ(z): above ½ where the margin z is above 0, and in its order, but no probability.
    Source: Cortes and Vapnik, "Support-vector networks", Machine Learning 20 (1995) 273, section 3.
    """

    squared: bool = False
    unit = "sigmoid"
    targets = "labels"
    proper = False

    def __post_init__(self) -> None:
        check_settings(self, "hinge")

    def cost(self, xp: Any, y: Array, t: Array) -> Array:
        yes, no = xp.maximum(1.0 - y, 0.0), xp.maximum(1.0 + y, 0.0)
        return t * yes * yes + (1.0 - t) * no * no if self.squared else t * yes + (1.0 - t) * no

    def derivative(self, xp: Any, y: Array, t: Array) -> Array:
        yes, no = xp.maximum(1.0 - y, 0.0), xp.maximum(1.0 + y, 0.0)
        if self.squared:
            return 2.0 * ((1.0 - t) * no - t * yes)
        return xp.where(no > 0.0, 1.0 - t, 0.0) - xp.where(yes > 0.0, t, 0.0)


@dataclass(frozen=True)
class CrossEntropy:
    """c = -t_k log o_k with o = softmax(z), Σ_k t_k = 1: one of c classes.

    From z: log o_k = z_k - max z - log Σ_j exp(z_j - max z), and ∂/∂z Σ_k c = o - t (derivation
    002 eq. 10: softmax with the categorical likelihood).

    label_smoothing: t is drawn towards equal shares, t (1 - ε) + ε/c (Szegedy et al.,
    arXiv:1512.00567, section 7); predictions then are scores.
    """

    label_smoothing: float = 0.0
    unit = "softmax"
    targets = "classes"

    def __post_init__(self) -> None:
        check_settings(self, "cross_entropy", label_smoothing="[0, 1)")

    @property
    def proper(self) -> bool:
        return self.label_smoothing == 0.0

    def rows(self, outputs: int) -> Rows:
        by = self.label_smoothing
        return ((by / outputs,) * outputs,) if by else ()

    def cost(self, xp: Any, y: Array, t: Array, *least: Array) -> Array:
        t = self._smooth(t, *least)
        s, log_sum = log_shares(xp, y)
        return xp.where(t != 0.0, t * (log_sum - s), 0.0)  # s may be -∞

    def derivative(self, xp: Any, y: Array, t: Array, *least: Array) -> Array:
        return softmax(xp, y) - self._smooth(t, *least)  # (2)

    def _smooth(self, t: Array, *least: Array) -> Array:
        return (1.0 - self.label_smoothing) * t + least[0] if least else t


@dataclass(frozen=True)
class Focal:
    """c = -t_k (1 - o_k)^γ log o_k with o = softmax(z), Σ_k t_k = 1: one of c classes.

    From L_k = log o_k, with q_k = 1 - o_k = -expm1(L_k):

        d_k = ∂c_k/∂L_k = -t_k q_k^γ (1 - γ o_k L_k / q_k)        ∂/∂z_j Σ_k c_k = d_j - o_j Σ_k d_k

    gamma: how much less what is easily told apart counts; 0 is cross-entropy. Weights of classes
    are training's. Source: Lin et al., arXiv:1708.02002, eq. 4, for softmax.
    """

    gamma: float = 2.0
    unit = "softmax"
    targets = "classes"
    proper = False

    def __post_init__(self) -> None:
        check_settings(self, "focal", gamma="[0, inf)")

    def cost(self, xp: Any, y: Array, t: Array) -> Array:
        s, log_sum = log_shares(xp, y)
        rest = xp.maximum(-xp.expm1(s - log_sum), 1e-37)
        return xp.where(t != 0.0, t * self._power(xp, rest) * (log_sum - s), 0.0)

    def derivative(self, xp: Any, y: Array, t: Array) -> Array:
        s, log_sum = log_shares(xp, y)
        o, rest = xp.exp(s - log_sum), xp.maximum(-xp.expm1(s - log_sum), 1e-37)
        slope = 1.0 + self.gamma * o * (log_sum - s) / rest
        d = xp.where(t != 0.0, -t * self._power(xp, rest) * slope, 0.0)
        return d - o * xp.sum(d, axis=1, keepdims=True)

    def _power(self, xp: Any, rest: Array) -> Array:
        return xp.exp(self.gamma * xp.log(rest))


@dataclass(frozen=True)
class MulticlassHinge:
    """c_k = (1 - t_k) max(0, 1 + z_k - Σ_j t_j z_j), Weston and Watkins' hinge of c classes. With
    squared, the maximum squared.

    For the class i it is Σ_{k≠i} max(0, 1 + z_k - z_i); averaged over the outputs it equals
    `torch.nn.MultiMarginLoss` (p = 1, squared p = 2). With v_k = (1 - t_k) [z_k + 1 > z_i], squared
    v_k = 2 (1 - t_k) max(...), ∂/∂z_k Σ c = v_k - t_k Σ_j v_j. The prediction is softmax(z): the
    class is the largest score's, but it is no probability.

    Source: Weston and Watkins, "Support vector machines for multi-class pattern recognition", ESANN
    1999, eq. (4).
    """

    squared: bool = False
    average = True
    unit = "softmax"
    targets = "classes"
    proper = False

    def __post_init__(self) -> None:
        check_settings(self, "multiclass_hinge")

    def cost(self, xp: Any, y: Array, t: Array) -> Array:
        over = self._over(xp, y, t)
        return (1.0 - t) * over * over if self.squared else (1.0 - t) * over

    def derivative(self, xp: Any, y: Array, t: Array) -> Array:
        over = self._over(xp, y, t)
        v = 2.0 * (1.0 - t) * over if self.squared else xp.where(over > 0.0, 1.0 - t, 0.0)
        return v - t * xp.sum(v, axis=1, keepdims=True)

    def _over(self, xp: Any, y: Array, t: Array) -> Array:
        return xp.maximum(1.0 + (y - xp.sum(t * y, axis=1, keepdims=True)), 0.0)


@dataclass(frozen=True)
class Ordinal:
    """Ordered classes 0..K: c_k = -log P(t > k | t >= k) or -log P(t = k | t >= k), for k <= t.

    K outputs for K + 1 classes, P(t > k | t >= k) = σ(z_k): a class is passed or not, one after
    another. The sum of c over the row is -log P(t), with

        P(t = k) = σ(-z_k) Π_{j<k} σ(z_j)        ∂c_k/∂z_k = σ(z_k) - [t > k] where k <= t, else 0

    so P(t > k) falls with k whatever the net is, without ordered cut points. Predictions are the
    shares of the K + 1 classes, `classify` gives the most likely one. t are class numbers, or
    labels that are numbers; labels in words have no order.

    Source: Shi, Cao and Raschka, "Deep neural networks for rank-consistent ordinal regression based
    on conditional probabilities" (CORN), arXiv:2111.08851, section 3; the continuation-ratio logits
    of Agresti, "Analysis of Ordinal Categorical Data", 2nd edition, section 4.2.
    """

    targets = "classes"
    unit = "identity"
    heads = "all"
    ordered = True

    def rows(self, outputs: int) -> Rows:
        return (tuple(map(float, range(outputs))),)

    def cost(self, xp: Any, y: Array, t: Array, k: Array) -> Array:
        of_one = xp.where(t > k, softplus(xp, -y), softplus(xp, y))
        return xp.where(t >= k, of_one, 0.0)

    def derivative(self, xp: Any, y: Array, t: Array, k: Array) -> Array:
        of_one = xp.where(t > k, -sigmoid(xp, -y), sigmoid(xp, y))
        return xp.where(t >= k, of_one, 0.0)

    def answer(self, xp: Any, y: Array) -> Array:
        passed, stopped = sigmoid(xp, y), sigmoid(xp, -y)
        reached, shares = xp.ones_like(y[:, :1]), []
        for k in range(y.shape[1]):
            shares.append(reached * stopped[:, k : k + 1])
            reached = reached * passed[:, k : k + 1]
        return xp.concat([*shares, reached], axis=1)


@dataclass(frozen=True)
class Poisson:
    """c = t log(t/h) - t + h with h = exp(z), for counts and other t >= 0: half the deviance.

    From z, with d = z - log t: c = t (exp(d) - 1 - d), which does not cancel near its least, d = 0;
    far above it, where exp(d) would overflow for small t, c = h - t (1 + d). ∂c/∂z = h - t.

    Source: McCullagh, Nelder, "Generalized Linear Models", 2nd edition, section 2.3.
    """

    unit = "exp"
    targets = "counts"

    def cost(self, xp: Any, y: Array, t: Array) -> Array:
        h = xp.exp(y)
        d = y - xp.log(xp.maximum(t, 1e-37))  # at t = 0 it is multiplied by 0
        curve = xp.maximum(xp.expm1(xp.minimum(d, 2.0)) - d, 0.0)  # some expm1 round below d
        return xp.where(h <= 3.0 * t, t * curve, h - t * (1.0 + d))

    def derivative(self, xp: Any, y: Array, t: Array) -> Array:
        return xp.exp(y) - t  # (2)


@dataclass(frozen=True)
class Gamma:
    """c = t/h - 1 - log(t/h) with h = exp(z), for t > 0: half the deviance, of relative errors.

    From z, with d = log t - z: c = exp(d) - 1 - d, which does not cancel near its least, d = 0; far
    below it exp(d) is t exp(-z), with fewer roundings. ∂c/∂z = 1 - t exp(-z). Twice the mean is
    scikit-learn's `mean_gamma_deviance`. Source: McCullagh, Nelder, "Generalized Linear Models",
    2nd edition, section 2.3.
    """

    unit = "exp"
    targets = "counts"
    positive = True

    def cost(self, xp: Any, y: Array, t: Array) -> Array:
        d = xp.log(t) - y
        curve = xp.maximum(xp.expm1(xp.minimum(d, 2.0)) - d, 0.0)  # some expm1 round below d
        return xp.where(d < 2.0, curve, t * xp.exp(-y) - (1.0 + d))

    def derivative(self, xp: Any, y: Array, t: Array) -> Array:
        return 1.0 - t * xp.exp(-y)


@dataclass(frozen=True)
class Tweedie:
    """Half the deviance of variance ∝ meanᵖ with h = exp(z), for t >= 0; 1 < power p < 2.

    c = t^(2-p) / ((1-p)(2-p)) - t h^(1-p) / (1-p) + h^(2-p) / (2-p), where all digits may cancel.
    With a = 2 - p, b = p - 1, m = |z - log t|, A = (1 - exp(-a m))/a and B = (1 - exp(-b m))/b,

        c = h^a (A - exp(-a m) B) where h >= t        c = t h^(-b) (B - exp(-b m) A) where h < t
        ∂c/∂z = h^a - t h^(-b)

    Between p = 1 (poisson) and 2 (gamma): sums of a random number of gamma variables, as amounts
    claimed in a year, of which many are 0. Source: Jørgensen, "The Theory of Dispersion Models",
    1997, section 4.1; twice the mean is scikit-learn's `mean_tweedie_deviance`.
    """

    power: float = 1.5
    unit = "exp"
    targets = "counts"

    def __post_init__(self) -> None:
        check_settings(self, "tweedie", power="(1, 2)")

    def cost(self, xp: Any, y: Array, t: Array) -> Array:
        a, b = 2.0 - self.power, self.power - 1.0
        d = xp.where(t > 0.0, y - xp.log(xp.maximum(t, 1e-37)), 1.0)
        above, m = d >= 0.0, xp.abs(d)
        A, B = xp.expm1(-a * m) / -a, xp.expm1(-b * m) / -b
        size = xp.where(above, 1.0, t) * xp.exp(xp.where(above, a * y, -b * y))
        near, far = xp.where(above, A, B), xp.where(above, B, A)
        curve = near - xp.exp(xp.where(above, -a * m, -b * m)) * far
        return size * xp.where(t > 0.0, xp.maximum(curve, 0.0), 1.0 / a)

    def derivative(self, xp: Any, y: Array, t: Array) -> Array:
        a, b = 2.0 - self.power, self.power - 1.0
        return xp.exp(a * y) - t * xp.exp(-b * y)


@dataclass(frozen=True)
class CosineDistance:
    """Σ_k c = 1 - cos(y, t) over the outputs of a row, with c = ½ (ŷ_k - t̂_k)², ŷ = y / |y|.

    ∂/∂y Σ c = (cos ŷ - t̂) / |y|. Only directions count: the length of a prediction means nothing.
    A row of zeros has no direction: its cost is 1 and its derivative 0. Source: the algebra of
    |ŷ - t̂|² = 2 - 2 cos, which does not cancel.
    """

    fewest = 2
    targets = "numbers"

    def cost(self, xp: Any, y: Array, t: Array) -> Array:
        (u, of_y, _), (v, of_t, _) = direction(xp, y), direction(xp, t)
        return xp.where(of_y * of_t > 0.0, 0.5 * (u - v) * (u - v), u * u + v * v)

    def derivative(self, xp: Any, y: Array, t: Array) -> Array:
        (u, length, largest), (v, _, _) = direction(xp, y), direction(xp, t)
        cosine = xp.sum(u * v, axis=1, keepdims=True)
        there = length > 0.0
        return xp.where(there, (cosine * u - v) / xp.where(there, length, 1.0) / largest, 0.0)


def direction(xp: Any, y: Array) -> tuple[Array, Array, Array]:
    """(y / |y|, |y| / m, m) of each row, with m its largest |y_k|, so that nothing overflows; of a
    row of zeros (0, 0, 1)."""
    largest = xp.max(xp.abs(y), axis=1, keepdims=True)
    largest = xp.where(largest == 0.0, 1.0, largest)
    u = y / largest
    length = xp.sqrt(xp.sum(u * u, axis=1, keepdims=True))
    return u / xp.where(length == 0.0, 1.0, length), length, largest


LOSSES: dict[str, Loss] = {
    "half_squared_error": SquaredError(0.5, average=False, reduction="sum"),
    "half_mean_squared_error": SquaredError(0.5),
    "mean_squared_error": SquaredError(),
    "mean_absolute_error": MeanAbsoluteError(),
    "huber": Huber(),
    "log_cosh": LogCosh(),
    "quantile": Quantile(),
    "gaussian": Gaussian(),
    "cosine_distance": CosineDistance(),
    "binary_cross_entropy": BinaryCrossEntropy(),
    "binary_focal": BinaryFocal(),
    "hinge": Hinge(),
    "squared_hinge": Hinge(squared=True),
    "cross_entropy": CrossEntropy(),
    "focal": Focal(),
    "multiclass_hinge": MulticlassHinge(),
    "multiclass_squared_hinge": MulticlassHinge(squared=True),
    "ordinal": Ordinal(),
    "poisson": Poisson(),
    "gamma": Gamma(),
    "tweedie": Tweedie(),
}
LossName = Literal[
    "half_squared_error",
    "half_mean_squared_error",
    "mean_squared_error",
    "mean_absolute_error",
    "huber",
    "log_cosh",
    "quantile",
    "gaussian",
    "cosine_distance",
    "binary_cross_entropy",
    "binary_focal",
    "hinge",
    "squared_hinge",
    "cross_entropy",
    "focal",
    "multiclass_hinge",
    "multiclass_squared_hinge",
    "ordinal",
    "poisson",
    "gamma",
    "tweedie",
]


def get_loss(loss: str | Mapping[str, Any] | Loss) -> Loss:
    """The loss of a name or a mapping (`mlp.names`), or the object itself."""
    made = make(LOSSES, loss, "loss")
    if isinstance(made, type) or not (hasattr(made, "cost") and hasattr(made, "derivative")):
        raise InputError(
            f"a loss is a name or an object with methods cost and derivative, not {shown(loss)}"
        )
    kind = getattr(made, "targets", "numbers")
    if kind not in TARGET_KINDS:
        raise InputError(
            f"loss {shown(loss)}: unknown targets {shown(kind)}{did_you_mean(kind, TARGET_KINDS)}"
        )
    if type(made) not in map(type, LOSSES.values()):
        y, t = np.array([[0.25, 0.25, 0.5], [0.5, 0.25, 0.25]]), np.array([[0.0, 0, 1], [1, 0, 0]])
        y, t = (y, t[:, :1]) if heads_of(made, 3) > 1 else (y, t)
        rows = [np.asarray(row) for row in rows_of(made, 3)]
        said = "xp, y, t" + "".join(f", row {k}" for k in range(len(rows)))
        try_formula(made, "cost", (np, y, t, *rows), said, of_rows=True)
        try_formula(made, "derivative", (np, y, t, *rows), said)
    return made


def rows_of(loss: Loss, outputs: int) -> Rows:
    """The further arguments of a loss's formulas, for so many outputs; () for most losses.

    >>> rows_of(BinaryCrossEntropy(pos_weight=[1.0, 3.0]), outputs=2)
    ((1.0, 3.0),)
    """
    made: Rows = loss.rows(outputs) if hasattr(loss, "rows") else ()
    for row in made:
        if len(row) != outputs:
            raise InputError(
                f"loss {shown(loss)} has {len(row)} numbers for {outputs} outputs; give one for "
                "each, or one for all"
            )
    return made


def heads_of(loss: Loss, outputs: int) -> int:
    """How many of so many outputs belong to one target."""
    heads = getattr(loss, "heads", 1)
    return outputs if heads == "all" else int(heads)


def outputs_for(loss: Loss, targets: int) -> int:
    """The outputs that a net needs for so many columns of targets, or classes.

    >>> outputs_for(Quantile([0.1, 0.9]), 3), outputs_for(Ordinal(), 5), outputs_for(Poisson(), 3)
    (6, 4, 3)
    """
    if getattr(loss, "ordered", False):
        return max(targets - 1, 1)
    return targets * heads_of(loss, targets)


def fits(loss: Loss, output: Activation) -> bool:
    """Whether a net with this output activation can be trained by the loss: by one that absorbs a
    unit, if the output is that unit or none."""
    unit = getattr(loss, "unit", None)
    return unit is None or output in (Identity(), get_activation(unit))


def fitting(output: Activation) -> list[str]:
    """The names of the losses that fit an output activation.

    >>> from mlp.formulas.activations import Softmax
    >>> fitting(Softmax())[-2:]
    ['multiclass_hinge', 'multiclass_squared_hinge']
    """
    return [name for name, loss in LOSSES.items() if fits(loss, output)]
