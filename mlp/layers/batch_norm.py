"""Normalisation of each unit over the rows of a batch.

With shares ρ_p of the rows, 1/n, or with sample weights s_p / Σ s, so that a row of weight 2 counts
as two rows and one of weight 0 is not there,

    μ = Σ_p ρ_p x_p        σ² = Σ_p ρ_p (x_p - μ)²        x̂_p = (x_p - μ) / sqrt(σ² + ε)
    y_p = g ⊙ x̂_p + c                                                                       (1)

and back, through μ and σ² too,

    ∂E/∂c = Σ_p Δ_p        ∂E/∂g = Σ_p Δ_p ⊙ x̂_p                                            (2)
    ∂E/∂x_p = g / sqrt(σ² + ε) ⊙ (Δ_p - ρ_p (∂E/∂c + x̂_p ⊙ ∂E/∂g))                          (3)

Statistics, which predictions read in place of μ and σ², go after each batch to

    μ̄ <- m μ̄ + (1 - m) μ        σ̄² <- m σ̄² + (1 - m) σ²                                     (4)

but for a batch whose weights are all 0. σ² is the mean square, as in (1), not over n - 1. A last
batch that is shorter counts as any other. Sums are taken in float32 or above.

Source: Ioffe and Szegedy, arXiv:1502.03167, algorithm 1 and the derivatives after it.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from backends import Array
from mlp.errors import InputError, is_finite, shown
from mlp.layers.layer import Layer, Parameter, Place, Statistic, check_epsilon, check_sources
from mlp.layers.tape import times


@dataclass(frozen=True)
class BatchNorm(Layer):
    """Batch normalisation: each unit to mean 0 and variance 1 over the batch, then a gain and a
    shift for each unit; in predictions by running statistics.

    momentum: m of eq. (4), the share of a running statistic that is kept at each batch, as in Keras
    (PyTorch's momentum is 1 - m). epsilon: added to the variance. sources: one layer; None is the
    one before. A batch needs two rows or more.

    >>> from mlp import Dense, Network
    >>> from mlp.layers import BatchNorm
    >>> net = Network(4, [Dense(8, "relu"), BatchNorm(), Dense(1)])
    >>> net.parameters, net.statistics
    (65, 16)
    """

    momentum: float = 0.9
    epsilon: float = 1e-5
    sources: tuple[int, ...] | None = None

    least_rows = 2

    def __post_init__(self) -> None:
        if not (is_finite(self.momentum) and 0 <= self.momentum < 1):
            raise InputError(f"BatchNorm: momentum must be in [0, 1), not {shown(self.momentum)}")
        check_epsilon("BatchNorm", self.epsilon)
        object.__setattr__(self, "sources", check_sources("BatchNorm", self.sources, most=1))

    def parameters(self, inputs: Mapping[int, int]) -> Iterator[Parameter]:
        (width,) = inputs.values()
        yield Parameter("gain", (width,), "gain", 1.0)
        yield Parameter("shift", (width,), "shift")

    def statistics(self, inputs: Mapping[int, int]) -> Iterator[Statistic]:
        (width,) = inputs.values()
        yield Statistic("mean", (width,))
        yield Statistic("variance", (width,), 1.0)

    def forward(self, at: Place) -> None:
        """Eq. (1), and in training (4)."""
        (x,), mean, variance = at.x.values(), at.s["mean"], at.s["variance"]
        gain, shift = at.p["gain"], at.p["shift"]
        r = at.vector("r")
        if not at.training:
            at.tape.apply(self._root, (0,), r, variance)
            at.tape.apply(_normalise, (0,), at.output(), x, mean, r, gain, shift)
            return
        mu, sigma2 = at.vector("mean"), at.vector("variance")
        squares = at.buffer("squares", wide=True)
        self._mean(at, x, mu)
        at.tape.apply(lambda xp, out, x, mu: (x - mu) * (x - mu), (0,), squares, x, mu)
        self._mean(at, squares, sigma2)
        at.tape.apply(self._root, (0,), r, sigma2)
        arrays = at.output(), at.buffer("hat"), x, mu, r, gain, shift
        at.tape.apply(_normalise_and_keep, (0, 1), *arrays)
        there = (at.shares() or ())[1:]
        at.tape.apply(self._run, (0, 1), mean, variance, mu, sigma2, *there)

    def backward(self, at: Place) -> None:
        """Eq. (2), then (3)."""
        hat, product = at.buffer("hat"), at.buffer("squares", wide=True)
        at.tape.apply(times, (0,), product, at.delta, hat)
        at.tape.total(product, at.g["gain"])
        at.tape.total(at.delta, at.g["shift"])
        dc, dg = (at.over_batch(f"d{name}", at.g[name]) for name in ("shift", "gain"))

        def back(
            xp: Any, out: Array, d: Array, hat: Array, r: Array, g: Array, dc: Array, dg: Array,
            rho: Array,
        ) -> Array:  # fmt: skip
            return g * r * (d - rho * (dc + hat * dg))

        for _, out in at.back():
            arrays = out, at.delta, hat, at.vector("r"), at.p["gain"], dc, dg
            if shares := at.shares():
                at.tape.apply(back, (0,), *arrays, shares[0])
            else:
                at.tape.apply(back, (0,), *arrays, scalars=(1.0 / at.rows_of_batch,))

    def _mean(self, at: Place, x: Array, out: Array) -> None:
        """out <- Σ_p ρ_p x_p."""
        if shares := at.shares():
            part = at.buffer("squares", wide=True)
            at.tape.apply(times, (0,), part, x, shares[0])
            at.tape.total(part, out)
            at.tape.sum_shards(out)
        else:
            at.tape.total(x, out)
            at.tape.sum_shards(out)
            rho = 1.0 / at.rows_of_batch
            at.tape.apply(lambda xp, total, rho: total * rho, (0,), out, scalars=(rho,))

    def _root(self, xp: Any, r: Array, variance: Array) -> Array:
        return 1.0 / xp.sqrt(variance + self.epsilon)

    def _run(
        self, xp: Any, mean: Array, variance: Array, mu: Array, sigma2: Array, *there: Array
    ) -> Any:
        """Eq. (4)."""

        def moved(old: Array, new: Array) -> Array:
            step = (1.0 - self.momentum) * (new - old)
            return old + (step * there[0] if there else step)

        return moved(mean, mu), moved(variance, sigma2)


def _normalise(
    xp: Any, y: Array, x: Array, mean: Array, r: Array, gain: Array, shift: Array
) -> Array:
    return gain * ((x - mean) * r) + shift


def _normalise_and_keep(
    xp: Any, y: Array, hat: Array, x: Array, mean: Array, r: Array, gain: Array, shift: Array
) -> Any:
    hat = (x - mean) * r
    return gain * hat + shift, hat
