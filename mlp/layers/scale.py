"""A learned factor for each column.

    y = x ⊙ s        ∂E/∂s = Σ_rows Δ ⊙ x        ∂E/∂x = Δ ⊙ s                              (1)

Source: Holzmüller et al., arXiv:2407.04491, section 3 (the scaling layer of RealMLP).
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from mlp.layers.layer import Layer, Parameter, Place, check_sources
from mlp.layers.tape import times


@dataclass(frozen=True)
class Scale(Layer):
    """A learned factor for each column, 1 at first; as the first layer, of each input.

    sources: one layer; None is the one before. Its role is "scale": RealMLP multiplies its learning
    rate by 6, which here is ``rate_factors={"scale": 6.0}``.

    >>> from mlp import Dense, Network
    >>> from mlp.layers import Scale
    >>> Network(4, [Scale(), Dense(8, "relu"), Dense(1)]).parameters
    53
    """

    sources: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "sources", check_sources("Scale", self.sources, most=1))

    def parameters(self, inputs: Mapping[int, int]) -> Iterator[Parameter]:
        (width,) = inputs.values()
        yield Parameter("s", (width,), "scale", 1.0)

    def forward(self, at: Place) -> None:
        (x,) = at.x.values()
        at.tape.apply(times, (0,), at.output(), x, at.p["s"])

    def backward(self, at: Place) -> None:
        (x,) = at.x.values()
        product = at.buffer("product", wide=True)
        at.tape.apply(times, (0,), product, x, at.delta)
        at.tape.total_late(product, at.g["s"])
        for _, out in at.back():
            at.tape.apply(times, (0,), out, at.delta, at.p["s"])
