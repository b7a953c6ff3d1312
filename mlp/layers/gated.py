"""Gated units: one affine function times an activation of another.

    y = z ⊙ f(v)        z = x W + b        v = x V + c                                       (1)
    ∂E/∂z = Δ ⊙ f(v)    ∂E/∂v = f'ᵀ(v) · (Δ ⊙ z)                                             (2)

W and V lie side by side in one matrix, so that (1) has one product. With f the sigmoid these are
gated linear units (GLU), with silu SwiGLU, with gelu GEGLU, with the identity bilinear ones.

Sources: Dauphin et al., arXiv:1612.08083, eq. 1; Shazeer, arXiv:2002.05202, eq. 5.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from backends import Array
from mlp.errors import InputError, check_switch, check_whole, shown
from mlp.formulas.activations import Activation, ActivationName, get_activation, learned
from mlp.formulas.initializers import Initializer, InitializerName, get_initializer
from mlp.layers.affine import affine_parameters, products, products_back
from mlp.layers.layer import Layer, Parameter, Place, check_penalties, check_sources


@dataclass(frozen=True)
class Gated(Layer):
    """Units with a gate each: GLU with gate "sigmoid", SwiGLU with "silu".

    gate: the activation f of the gate. units, sources, bias, l1, l2, initializer: as of `Dense`.

    >>> from mlp import Dense, Gated, Network
    >>> Network(4, [Gated(8, "silu"), Dense(1)]).parameters
    89
    """

    units: int
    gate: ActivationName | Mapping[str, Any] | Activation = "sigmoid"
    sources: tuple[int, ...] | None = None
    bias: bool = True
    l1: float = 0.0
    l2: float = 0.0
    initializer: InitializerName | Mapping[str, Any] | Initializer = "auto"

    by_products = True

    def __post_init__(self) -> None:
        check_whole("Gated: units", self.units, 1)
        check_penalties("Gated", self.l1, self.l2)
        check_switch("Gated: bias", self.bias)
        if learned(get_activation(self.gate), 1):
            raise InputError(
                f"Gated: the gate {shown(self.gate)} is one that learns; use another one"
            )
        object.__setattr__(self, "sources", check_sources("Gated", self.sources))

    def width(self, inputs: Mapping[int, int]) -> int:
        return self.units

    def parameters(self, inputs: Mapping[int, int]) -> Iterator[Parameter]:
        """W and V side by side, (units_k, 2 units), for each source k; b and c, (2 units,)."""
        draw = get_initializer(self.initializer, self.gate)
        return affine_parameters(inputs, self.units, draw, self.bias, parts=2)

    def forward(self, at: Place) -> None:
        """Eq. (1)."""
        f, m, both = get_activation(self.gate), self.units, at.buffer("z", 2 * self.units)
        products(at, both)

        def gate(xp: Any, y: Array, z: Array, v: Array, *b: Array) -> Any:
            if b:
                z, v = z + b[0], v + b[1]
            return (z * f.f(xp, v), z, v) if b else z * f.f(xp, v)

        b = [at.p["b"][:m], at.p["b"][m:]] if self.bias else []
        into = (0, 1, 2) if b else (0,)
        at.tape.apply(gate, into, at.output(), both[:, :m], both[:, m:], *b)

    def backward(self, at: Place) -> None:
        """Eq. (2)."""
        f, m, both = get_activation(self.gate), self.units, at.buffer("z", 2 * self.units)

        def back(xp: Any, dz: Array, dv: Array, d: Array, z: Array, v: Array) -> Any:
            gate = f.f(xp, v)
            return d * gate, f.df(xp, d * z, v, gate)

        delta = at.buffer("both deltas", 2 * m, wide=False)
        arrays = delta[:, :m], delta[:, m:], at.delta, both[:, :m], both[:, m:]
        at.tape.apply(back, (0, 1), *arrays)
        products_back(at, delta)
