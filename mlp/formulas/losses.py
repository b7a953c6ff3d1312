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
away: terms that would cancel further are not subtracted.

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

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np

from backends import Array
from mlp.errors import InputError, did_you_mean
from mlp.formulas.activations import Activation, Identity, get_activation, try_formula
from mlp.formulas.output_units import sigmoid, softmax
from mlp.formulas.target_kinds import TARGET_KINDS
from mlp.names import check_settings, make

Reduction = Literal["sum", "mean"]


class Loss(Protocol):
    """What the objective asks of a loss. y and t are (n, c) of one dtype, and so are the results.

    Optional attributes: ``unit`` (name of the output activation it absorbs, default none),
    ``average`` (over outputs, default False), ``reduction`` (over samples, default "mean"),
    ``targets`` (a name of `mlp.formulas.target_kinds`, default "numbers").
    """

    def cost(self, xp: Any, y: Array, t: Array) -> Array:
        """c(y, t) of each unit, eq. (1)."""

    def derivative(self, xp: Any, y: Array, t: Array) -> Array:
        """∂/∂y of the sum of `cost` over the row."""


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

    def cost(self, xp: Any, y: Array, t: Array) -> Array:
        d = y - t
        return self.factor * d * d

    def derivative(self, xp: Any, y: Array, t: Array) -> Array:
        return 2.0 * self.factor * (y - t)


@dataclass(frozen=True)
class BinaryCrossEntropy:
    """c = -[t log h + (1 - t) log(1 - h)] with h = σ(z), for one output or many; t from 0 to 1.

    From z: c = max(z, 0) - z t + log(1 + exp(-|z|)), and ∂c/∂z = h - t (derivation 001 eq. 12-13
    with the sign of a cost; 002: sigmoid with the Bernoulli likelihood).
    """

    unit = "sigmoid"
    targets = "labels"

    def cost(self, xp: Any, y: Array, t: Array) -> Array:
        return xp.maximum(y, 0.0) - y * t + xp.log1p(xp.exp(-xp.abs(y)))

    def derivative(self, xp: Any, y: Array, t: Array) -> Array:
        return sigmoid(xp, y) - t  # (2)


@dataclass(frozen=True)
class CrossEntropy:
    """c = -t_k log o_k with o = softmax(z), Σ_k t_k = 1: one of c classes.

    From z: log o_k = z_k - max z - log Σ_j exp(z_j - max z), and ∂/∂z Σ_k c = o - t (derivation
    002 eq. 10: softmax with the categorical likelihood).
    """

    unit = "softmax"
    targets = "classes"

    def cost(self, xp: Any, y: Array, t: Array) -> Array:
        s = y - xp.max(y, axis=1, keepdims=True)
        log_sum = xp.log(xp.sum(xp.exp(s), axis=1, keepdims=True))
        return xp.where(t != 0.0, t * (log_sum - s), 0.0)  # s may be -∞

    def derivative(self, xp: Any, y: Array, t: Array) -> Array:
        return softmax(xp, y) - t  # (2)


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


LOSSES: dict[str, Loss] = {
    "half_squared_error": SquaredError(0.5, average=False, reduction="sum"),
    "half_mean_squared_error": SquaredError(0.5),
    "mean_squared_error": SquaredError(),
    "binary_cross_entropy": BinaryCrossEntropy(),
    "cross_entropy": CrossEntropy(),
    "poisson": Poisson(),
}
LossName = Literal[
    "half_squared_error",
    "half_mean_squared_error",
    "mean_squared_error",
    "binary_cross_entropy",
    "cross_entropy",
    "poisson",
]


def get_loss(loss: str | Mapping[str, Any] | Loss) -> Loss:
    """The loss of a name or a mapping (`mlp.names`), or the object itself."""
    made = make(LOSSES, loss, "loss")
    if isinstance(made, type) or not (hasattr(made, "cost") and hasattr(made, "derivative")):
        raise InputError(
            f"a loss is a name or an object with methods cost and derivative, not {loss!r}"
        )
    kind = getattr(made, "targets", "numbers")
    if kind not in TARGET_KINDS:
        raise InputError(
            f"loss {loss!r}: unknown targets {kind!r}{did_you_mean(kind, TARGET_KINDS)}"
        )
    if type(made) not in map(type, LOSSES.values()):
        y, t = np.array([[0.25, 0.25, 0.5], [0.5, 0.25, 0.25]]), np.array([[0.0, 0, 1], [1, 0, 0]])
        try_formula(made, "cost", (np, y, t), "xp, y, t", of_rows=True)
        try_formula(made, "derivative", (np, y, t), "xp, y, t")
    return made


def fits(loss: Loss, output: Activation) -> bool:
    """Whether a net with this output activation can be trained by the loss: by one that absorbs a
    unit, if the output is that unit or none."""
    unit = getattr(loss, "unit", None)
    return unit is None or output in (Identity(), get_activation(unit))


def fitting(output: Activation) -> list[str]:
    """The names of the losses that fit an output activation.

    >>> from mlp.formulas.activations import Softmax
    >>> fitting(Softmax())[-2:]
    ['mean_squared_error', 'cross_entropy']
    """
    return [name for name, loss in LOSSES.items() if fits(loss, output)]
