"""Maxout units: the largest of several affine functions.

    y = max_p z_p        z_p = x W_p + b_p        p = 1..P                                  (1)
    ∂E/∂z_p = Δ where z_p is the first that is the largest, else 0                          (2)

All W_p lie side by side in one matrix, so that (1) has one product.

Source: Goodfellow et al., arXiv:1302.4389, section 3.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from backends import Array
from mlp.errors import check_switch, check_whole
from mlp.formulas.initializers import Initializer, InitializerName, get_initializer
from mlp.layers.affine import affine_parameters, products, products_back
from mlp.layers.layer import Layer, Parameter, Place, check_penalties, check_sources


@dataclass(frozen=True)
class Maxout(Layer):
    """Units that are each the largest of so many affine functions: an activation that is learned.

    pieces: how many, from 2 on. units, sources, bias, l1, l2, initializer: as of `Dense`.

    >>> from mlp import Dense, Maxout, Network
    >>> Network(4, [Maxout(8, pieces=3), Dense(1)]).parameters
    129
    """

    units: int
    pieces: int = 2
    sources: tuple[int, ...] | None = None
    bias: bool = True
    l1: float = 0.0
    l2: float = 0.0
    initializer: InitializerName | Mapping[str, Any] | Initializer = "auto"

    by_products = True

    def __post_init__(self) -> None:
        check_whole("Maxout: units", self.units, 1)
        check_whole("Maxout: pieces", self.pieces, 2)
        check_penalties("Maxout", self.l1, self.l2)
        check_switch("Maxout: bias", self.bias)
        object.__setattr__(self, "sources", check_sources("Maxout", self.sources))

    def width(self, inputs: Mapping[int, int]) -> int:
        return self.units

    def parameters(self, inputs: Mapping[int, int]) -> Iterator[Parameter]:
        """All W_p side by side, (units_k, P units), for each source k; all b_p, (P units,)."""
        draw = get_initializer(self.initializer, "identity")
        return affine_parameters(inputs, self.units, draw, self.bias, self.pieces)

    def _apart(self, x: Array) -> list[Array]:
        """The pieces of what has all of them."""
        m = self.units
        return [x[..., p * m : (p + 1) * m] for p in range(self.pieces)]

    def forward(self, at: Place) -> None:
        """Eq. (1)."""
        z, pieces = at.buffer("z", self.pieces * self.units), self.pieces
        products(at, z)

        def largest(xp: Any, y: Array, *z: Array) -> Any:
            z, b = z[:pieces], z[pieces:]
            z = tuple(z + b for z, b in zip(z, b, strict=True)) if b else z
            y = z[0]
            for more in z[1:]:
                y = xp.maximum(y, more)
            return (y, *z) if b else y

        b = self._apart(at.p["b"]) if self.bias else []
        into = tuple(range(pieces + 1)) if b else (0,)
        at.tape.apply(largest, into, at.output(), *self._apart(z), *b)

    def backward(self, at: Place) -> None:
        """Eq. (2)."""
        z, pieces = at.buffer("z", self.pieces * self.units), self.pieces

        def back(xp: Any, *arrays: Array) -> Any:
            d, y, *z = arrays[pieces:]
            found = []
            for piece in z:
                found.append(xp.where(piece == y, d, 0.0))
                d = xp.where(piece == y, 0.0, d)
            return tuple(found)

        delta = at.buffer("deltas", self.pieces * self.units, wide=False)
        arrays = *self._apart(delta), at.delta, at.y, *self._apart(z)
        at.tape.apply(back, tuple(range(pieces)), *arrays)
        products_back(at, delta)
