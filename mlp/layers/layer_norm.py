"""Normalisation of each row, by its own mean and variance or by its root mean square.

Layer normalisation, over the m units of a row,

    x̂ = (x - μ) r        μ = mean x        r = 1 / sqrt(mean (x - μ)² + ε)
    y = g ⊙ x̂ + c                                                                           (1)

and back, with v = Δ ⊙ g and means over the units of a row,

    ∂E/∂x = r (v - mean v - x̂ mean(v ⊙ x̂))                                                  (2)
    ∂E/∂g = Σ_rows Δ ⊙ x̂        ∂E/∂c = Σ_rows Δ                                            (3)

RMS normalisation has μ = 0 and no c; without μ, (2) has no mean v. Rows are on their own, so there
is nothing else in predictions, and sample weights change nothing. Sums are taken in float32 or
above, whatever the rows are kept in.

Sources: Ba et al., arXiv:1607.06450, eq. 3 and 4; Zhang and Sennrich, arXiv:1910.07467, eq. 4.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from backends import Array
from mlp.errors import InputError
from mlp.layers.layer import Layer, Parameter, Place, check_epsilon, check_sources
from mlp.layers.tape import times


@dataclass(frozen=True)
class LayerNorm(Layer):
    """Layer normalisation: each row to mean 0 and variance 1 over its units, then a gain and a
    shift for each unit.

    epsilon: added to the variance. sources: one layer; None is the one before.

    >>> from mlp import Dense, Network
    >>> from mlp.layers import LayerNorm
    >>> Network(4, [Dense(8, "relu"), LayerNorm(), Dense(1)]).parameters
    65
    """

    epsilon: float = 1e-5
    sources: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        _check(self)

    def width(self, inputs: Mapping[int, int]) -> int:
        return _width(self, inputs)

    def parameters(self, inputs: Mapping[int, int]) -> Iterator[Parameter]:
        (width,) = inputs.values()
        yield Parameter("gain", (width,), "gain", 1.0)
        yield Parameter("shift", (width,), "shift")

    def forward(self, at: Place) -> None:
        """Eq. (1)."""
        (x,), share, epsilon = at.x.values(), 1.0 / at.width, self.epsilon

        def normalise(
            xp: Any, y: Array, hat: Array, r: Array, x: Array, gain: Array, shift: Array
        ) -> Any:
            centred = x - xp.sum(x, axis=1, keepdims=True) * share
            variance = xp.sum(centred * centred, axis=1, keepdims=True) * share
            r = 1.0 / xp.sqrt(variance + epsilon)
            hat = centred * r
            return gain * hat + shift, hat, r

        arrays = at.output(), at.buffer("hat"), at.buffer("r", 1, wide=True), x
        at.tape.apply(normalise, (0, 1, 2), *arrays, at.p["gain"], at.p["shift"])

    def backward(self, at: Place) -> None:
        """Eq. (3), then (2)."""
        share = 1.0 / at.width

        def back(xp: Any, out: Array, d: Array, gain: Array, hat: Array, r: Array) -> Array:
            v = d * gain
            mean = xp.sum(v, axis=1, keepdims=True) * share
            along = xp.sum(v * hat, axis=1, keepdims=True) * share
            return (v - mean - hat * along) * r

        at.tape.total_late(at.delta, at.g["shift"])
        _back(at, back)


@dataclass(frozen=True)
class RMSNorm(Layer):
    """RMS normalisation: each row over the root of its mean square, then a gain for each unit.

    epsilon: added to the mean square. sources: one layer; None is the one before.

    >>> from mlp import Dense, Network
    >>> from mlp.layers import RMSNorm
    >>> Network(4, [Dense(8, "relu"), RMSNorm(), Dense(1)]).parameters
    57
    """

    epsilon: float = 1e-6
    sources: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        _check(self)

    def width(self, inputs: Mapping[int, int]) -> int:
        return _width(self, inputs)

    def parameters(self, inputs: Mapping[int, int]) -> Iterator[Parameter]:
        (width,) = inputs.values()
        yield Parameter("gain", (width,), "gain", 1.0)

    def forward(self, at: Place) -> None:
        """Eq. (1) with μ = c = 0."""
        (x,), share, epsilon = at.x.values(), 1.0 / at.width, self.epsilon

        def normalise(xp: Any, y: Array, hat: Array, r: Array, x: Array, gain: Array) -> Any:
            r = 1.0 / xp.sqrt(xp.sum(x * x, axis=1, keepdims=True) * share + epsilon)
            hat = x * r
            return gain * hat, hat, r

        arrays = at.output(), at.buffer("hat"), at.buffer("r", 1, wide=True), x
        at.tape.apply(normalise, (0, 1, 2), *arrays, at.p["gain"])

    def backward(self, at: Place) -> None:
        """Eq. (3), then (2) without mean v."""
        share = 1.0 / at.width

        def back(xp: Any, out: Array, d: Array, gain: Array, hat: Array, r: Array) -> Array:
            v = d * gain
            return (v - hat * (xp.sum(v * hat, axis=1, keepdims=True) * share)) * r

        _back(at, back)


def _check(layer: LayerNorm | RMSNorm) -> None:
    name = type(layer).__name__
    check_epsilon(name, layer.epsilon)
    object.__setattr__(layer, "sources", check_sources(name, layer.sources, most=1))


def _width(layer: Layer, inputs: Mapping[int, int]) -> int:
    """As many units as come; InputError for one, of which nothing is left."""
    (width,) = inputs.values()
    if width < 2:
        raise InputError(
            f"{layer.label}: it normalises over the units of a row and needs two or more, not "
            f"{width}; batch_norm normalises each unit over the rows"
        )
    return width


def _back(at: Place, formula: Any) -> None:
    """Eq. (3) of the gain, and eq. (2) by its formula."""
    hat, product = at.buffer("hat"), at.buffer("product", wide=True)
    at.tape.apply(times, (0,), product, at.delta, hat)
    at.tape.total_late(product, at.g["gain"])
    for _, out in at.back():
        arrays = at.delta, at.p["gain"], hat, at.buffer("r", 1, wide=True)
        at.tape.apply(formula, (0,), out, *arrays)
