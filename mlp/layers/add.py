"""The sum of earlier layers' outputs: a residual connection.

    y = Σ_{k in sources} x_k        ∂E/∂x_k = Δ                                             (1)

Source: He et al., arXiv:1512.03385, eq. 1.
"""

from dataclasses import dataclass
from typing import Any

from backends import Array
from mlp.errors import InputError, shown
from mlp.layers.layer import Layer, Place, check_sources


@dataclass(frozen=True)
class Add(Layer):
    """The addition of earlier layers of the same width, two or more: a residual connection.

    sources: their numbers. After an activation, as here, or before one, which is then a layer of
    its own (`mlp.layers.Activation`).

    >>> from mlp import Dense, Network
    >>> from mlp.layers import Add
    >>> net = Network(4, [Dense(8, "relu"), Dense(8, "relu"), Add((1, 2)), Dense(1)])
    >>> net.targets[1]
    (2, 3)
    """

    sources: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        sources = check_sources("Add", self.sources)
        if sources is None or len(sources) < 2:
            raise InputError(
                f"Add: sources must name the layers that are added, as (1, 2), not {shown(sources)}"
            )
        object.__setattr__(self, "sources", sources)

    def forward(self, at: Place) -> None:
        def add(xp: Any, y: Array, first: Array, *more: Array) -> Array:
            for x in more:
                first = first + x
            return first

        at.tape.apply(add, (0,), at.output(), *at.x.values())

    def backward(self, at: Place) -> None:
        for _, out in at.back():
            at.tape.copy(at.delta, out)
