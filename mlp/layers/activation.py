"""An activation as a layer of its own, as after a normalisation or an addition.

    y = f(x)        ∂E/∂x = f'ᵀ(x) · Δ                                                      (1)

Source: derivation 002 eq. 2 and 5, with nothing between z and x.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from backends import Array
from mlp.formulas.activations import Activation as Formula
from mlp.formulas.activations import ActivationName, check_activation, get_activation
from mlp.layers.layer import Layer, Place, check_sources


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

    activation: ActivationName | Mapping[str, Any] | Formula = "relu"
    sources: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        check_activation(self.activation)
        object.__setattr__(self, "sources", check_sources("Activation", self.sources, most=1))

    @property
    def label(self) -> str:
        name = self.activation
        return name if isinstance(name, str) else type(get_activation(name)).__name__

    def forward(self, at: Place) -> None:
        """Eq. (1); that of the last layer is the objective's."""
        (x,), f = at.x.values(), get_activation(self.activation)
        if at.last:
            at.tape.copy(x, at.output())
        else:
            at.tape.apply(lambda xp, y, x: f.f(xp, x), (0,), at.output(), x)

    def backward(self, at: Place) -> None:
        """Eq. (1); of the last layer Δ is ∂E/∂x already."""
        (x,), f = at.x.values(), get_activation(self.activation)

        def back(xp: Any, out: Array, d: Array, x: Array, y: Array) -> Array:
            return f.df(xp, d, x, y)

        for _, out in at.back():
            if at.last:
                at.tape.copy(at.delta, out)
            else:
                at.tape.apply(back, (0,), out, at.delta, x, at.y)
