"""Periodic embedding: beside each number, what learned cosines of it give.

For each number x_j of some columns, with frequencies, phases, amplitudes and an offset of its own,

    p_jh = 2π f_jh x_j + φ_jh        e_jo = Σ_h cos(p_jh) A_jho + c_jo        y = (x, e)      (1)

and back, with G = ∂E/∂e and q_jh = -sin(p_jh) Σ_o G_jo A_jho,

    ∂E/∂A_jho = Σ cos(p_jh) G_jo     ∂E/∂c_jo = Σ G_jo
    ∂E/∂φ_jh = Σ q_jh                ∂E/∂f_jh = 2π Σ x_j q_jh                                 (2)
    ∂E/∂x_j = Δ_j + 2π Σ_h f_jh q_jh                                                          (3)

with sums over the rows. Nothing is shared between columns; each line is one call for all of them.

Source: Holzmüller et al., arXiv:2407.04491, appendix A ("PBLD": periodic, bias, linear, densely
connected), after Gorishniy et al., arXiv:2203.05556, section 3.3.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from backends import Array
from mlp.errors import InputError, check_whole, is_finite, shown
from mlp.layers.layer import Columns, Layer, Parameter, Place, check_columns, check_sources
from mlp.layers.numbers import in_a_row, number_columns, numbers_of, places, stacked, taken, turned
from mlp.layers.tape import add

TURN = 2.0 * math.pi


@dataclass(frozen=True)
class Periodic(Layer):
    """Learned cosines of numbers: each column gets ``size`` more, behind all that there are.

    size: numbers that are added for each column. frequencies: cosines that they are sums of.
    deviation: that of the frequencies at first, N(0, deviation²), in turns for each unit of the
    column; larger ones follow finer detail of it. columns: of the source; None is all of them, and
    in a file those of numbers, not codes of categories. sources: one layer; None is the one before.

    Amplitudes and offsets begin as U(±1/√frequencies), phases as U(-π, π). All have the role
    "periodic": RealMLP multiplies their learning rate by 0.1, ``rate_factors={"periodic": 0.1}``.

    >>> from mlp import Dense, Network, Periodic
    >>> net = Network(5, [Periodic(columns=(0, 3)), Dense(1)])
    >>> net.units, net.parameters - 12
    ((5, 11, 1), 166)
    """

    size: int = 3
    frequencies: int = 16
    deviation: float = 0.1
    columns: tuple[int, ...] | None = None
    sources: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        check_whole("Periodic: size", self.size, 1)
        check_whole("Periodic: frequencies", self.frequencies, 1)
        if not (is_finite(self.deviation) and self.deviation > 0):
            raise InputError(f"Periodic: deviation must be above 0, not {shown(self.deviation)}")
        object.__setattr__(self, "columns", check_columns("Periodic", self.columns))
        object.__setattr__(self, "sources", check_sources("Periodic", self.sources, most=1))

    def fitted(self, columns: Columns) -> tuple[Layer, Columns]:
        layer = self
        if self.columns is None:
            layer = replace(self, columns=number_columns(self.label, columns))
        return layer, replace(columns, codes={})

    def width(self, inputs: Mapping[int, int]) -> int:
        (width,) = inputs.values()
        return width + self.size * len(taken(self.label, self.columns, width))

    def parameters(self, inputs: Mapping[int, int]) -> Iterator[Parameter]:
        """f, φ (d, frequencies), A (d, frequencies, size) and c (d, size)."""
        d, h = len(taken(self.label, self.columns, *inputs.values())), self.frequencies
        most = 1.0 / math.sqrt(h)

        def uniform(most: float, *shape: int) -> Any:
            return lambda rng: rng.uniform(-most, most, shape)

        def normal(rng: np.random.Generator) -> np.ndarray:
            return rng.normal(0.0, self.deviation, (d, h))

        yield Parameter("frequency", (d, h), "periodic", normal)
        yield Parameter("phase", (d, h), "periodic", uniform(math.pi, d, h))
        amplitudes = d, h, self.size
        yield Parameter("amplitude", amplitudes, "periodic", uniform(most, *amplitudes))
        yield Parameter("offset", (d, self.size), "periodic", uniform(most, d, self.size))

    def forward(self, at: Place) -> None:
        """Eq. (1)."""
        (given,), y, xp = at.x.values(), at.output(), at.tape.backend.xp
        columns = taken(self.label, self.columns, given.shape[1])
        d, h = len(columns), self.frequencies
        x, angle = numbers_of(at, columns), at.buffer("angle", d * h, wide=True)
        cosine, e = at.buffer("cosine", d * h, wide=True), at.buffer("e", d * self.size, wide=True)
        frequency = xp.reshape(at.p["frequency"], (d, 1, h))
        at.tape.stack(stacked(x, d), frequency, stacked(angle, d), exact=True)

        def wave(xp: Any, p: Array, c: Array, turns: Array, phase: Array) -> Any:
            p = TURN * turns + phase
            return p, xp.cos(p)

        at.tape.apply(wave, (0, 1), angle, cosine, angle, in_a_row(at.p["phase"]))
        at.tape.stack(stacked(cosine, d), at.p["amplitude"], stacked(e, d), exact=True)
        at.tape.copy(given, y[:, : given.shape[1]])
        offset = in_a_row(at.p["offset"])
        at.tape.apply(lambda xp, y, e, c: e + c, (0,), y[:, given.shape[1] :], e, offset)

    def backward(self, at: Place) -> None:
        """Eq. (2) and (3)."""
        (given,), xp = at.x.values(), at.tape.backend.xp
        columns = taken(self.label, self.columns, given.shape[1])
        d, h, rest = len(columns), self.frequencies, given.shape[1]
        x, angle = at.buffer("numbers", d, wide=True), at.buffer("angle", d * h, wide=True)
        cosine, G = at.buffer("cosine", d * h, wide=True), at.buffer("e", d * self.size, wide=True)
        at.tape.copy(at.delta[:, rest:], G)
        at.tape.total(G, in_a_row(at.g["offset"]))
        at.tape.stack(turned(stacked(cosine, d)), stacked(G, d), at.g["amplitude"], exact=True)
        at.tape.stack(stacked(G, d), turned(at.p["amplitude"]), stacked(cosine, d), exact=True)
        q = cosine  # the room of what is read no more
        at.tape.apply(lambda xp, q, back, p: -xp.sin(p) * back, (0,), q, q, angle)
        at.tape.total(q, in_a_row(at.g["phase"]))
        at.tape.apply(lambda xp, q, old: TURN * old, (0,), q, q)
        frequency = xp.reshape(at.g["frequency"], (d, 1, h))
        at.tape.stack(turned(stacked(x, d)), stacked(q, d), frequency, exact=True)
        for _, out in at.back():
            at.tape.copy(at.delta[:, :rest], out)
            frequency = xp.reshape(at.p["frequency"], (d, h, 1))
            at.tape.stack(stacked(q, d), frequency, stacked(x, d), exact=True)
            for there, here in places(columns):
                at.tape.apply(add, (0,), out[:, there], x[:, here])
