"""An activation as a layer of its own, as after a normalisation or an addition.

    y = f(x)        ∂E/∂x = f'ᵀ(x) · Δ                                                      (1)
    ∂E/∂p = Σ_rows Δ ⊙ ∂f/∂p        for what f learns                                       (2)

Source: derivation 002 eq. 2 and 5, with nothing between z and x.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from backends import Array
from mlp.formulas.activations import Activation as Formula
from mlp.formulas.activations import (
    ActivationName,
    Learning,
    check_activation,
    get_activation,
)
from mlp.layers.layer import Layer, Parameter, Place, check_sources, label_of, slopes


@dataclass(frozen=True)
class Activation(Layer):
    """An activation as a layer; `Dense` has it built in.

    activation: a name of `mlp.formulas.activations.ACTIVATIONS`, a mapping or an own object.
    sources: one layer; None is the one before. A normalisation before the activation is

    >>> from mlp import Dense, Network
    >>> from mlp.layers import Activation, BatchNorm
    >>> net = Network(4, [Dense(8, bias=False), BatchNorm(), Activation("relu"), Dense(1)])
    >>> net.units, net.parameters
    ((4, 8, 8, 8, 1), 57)
    """

    activation: ActivationName | Mapping[str, Any] | Formula | Learning = "relu"
    sources: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        check_activation(self.activation)
        object.__setattr__(self, "sources", check_sources("Activation", self.sources, most=1))

    def parameters(self, inputs: Mapping[int, int]) -> Iterator[Parameter]:
        """What the activation learns, by its names."""
        (width,) = inputs.values()
        return slopes(self.activation, width)

    @property
    def label(self) -> str:
        return label_of(self.activation)

    def forward(self, at: Place) -> None:
        """Eq. (1); that of the last layer is the objective's."""
        (x,), f, p = at.x.values(), self._formula(), at.p.values()
        if at.last:
            at.tape.copy(x, at.output())
        else:
            at.tape.apply(lambda xp, y, x, *p: f.f(xp, x, *p), (0,), at.output(), x, *p)

    def backward(self, at: Place) -> None:
        """Eq. (1) and (2); of the last layer Δ is ∂E/∂x already."""
        (x,), f, p = at.x.values(), self._formula(), at.p.values()
        terms = [at.buffer(name) for name in at.p]  # of eq. (2)

        def back(xp: Any, out: Array, d: Array, x: Array, y: Array, *p: Array) -> Array:
            return f.df(xp, d, x, y, *p)

        def of_learned(xp: Any, d: Array, x: Array, *rest: Array) -> tuple[Array, ...]:
            return f.dp(xp, d, x, *rest[: len(terms)])

        if terms:
            into = range(2 + len(terms), 2 + 2 * len(terms))
            at.tape.apply(of_learned, into, at.delta, x, *p, *terms)
        for name, term in zip(at.p, terms, strict=True):
            at.sum_into(at.g[name], term)
        for _, out in at.back():
            if at.last:
                at.tape.copy(at.delta, out)
            else:
                at.tape.apply(back, (0,), out, at.delta, x, at.y, *p)

    def _formula(self) -> Any:
        return get_activation(self.activation)
