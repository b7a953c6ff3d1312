"""Embedding: a row of a learned table for each whole number of some input columns.

With codes c_j of the columns j, each with a table T_j, and x' the other columns,

    y = (x', T_1[c_1], T_2[c_2], ...)        ∂E/∂T_j[k] = Σ_{rows: c_j = k} Δ_j              (1)

All tables are one, below each other, so that (1) is one gather and one sum by rows, whose order is
fixed on every backend. Source: Bengio et al., JMLR 3, 2003, section 2; ∂E/∂T is one-hotᵀ Δ.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np

from backends import Array
from mlp.errors import InputError, check_whole, shown
from mlp.layers.layer import (
    Columns,
    Layer,
    Parameter,
    Place,
    check_columns,
    check_list,
    check_sources,
    runs,
)

MOST = 1 << 24  # whole numbers that float32 tells apart


@dataclass(frozen=True)
class Embedding(Layer):
    """A learned row of ``size`` numbers for each value of some columns of codes, in their place.

    columns: of the input, which hold whole numbers from 0 on; values: how many, of each. The output
    is the other columns, in their order, then the rows of each of these. Entries begin as N(0, 1);
    their role is "table". In a file columns and values follow from the data: they are categories
    with ``coding = "embedding"``, and those of more than 8 values, whose coding is not said.

    An index that its table has not is refused where the data come in, with row and column.

    >>> from mlp import Dense, Network
    >>> from mlp.layers import Embedding
    >>> net = Network(4, [Embedding(3, columns=(1,), values=(10,)), Dense(1)])
    >>> net.units, net.parameters
    ((4, 6, 1), 37)
    """

    size: int = 8
    columns: tuple[int, ...] | None = None
    values: tuple[int, ...] | None = None
    sources: tuple[int, ...] | None = (0,)

    integers = True

    def __post_init__(self) -> None:
        check_whole("Embedding: size", self.size, 1)
        object.__setattr__(self, "sources", check_sources("Embedding", self.sources) or (0,))
        if self.sources != (0,):
            raise InputError(
                f"Embedding: it reads the input, sources = (0,), not {shown(self.sources)}"
            )
        object.__setattr__(self, "columns", check_columns("Embedding", self.columns))
        object.__setattr__(self, "values", check_list("Embedding: values", self.values, 1))
        columns, values = self.columns, self.values
        if columns is not None and (values is None or len(values) != len(columns)):
            raise InputError(
                f"Embedding: values must say how many each of the columns {columns} has, not "
                f"{shown(values)}"
            )
        if values is not None and columns is None:
            raise InputError(f"Embedding: values {values} are of no columns; name these too")
        if values is not None and sum(values) > MOST:
            raise InputError(f"Embedding: {sum(values)} values, more than {MOST}")

    @property
    def codes(self) -> Mapping[int, int]:
        return dict(zip(self.columns or (), self.values or (), strict=True))

    def fitted(self, columns: Columns) -> tuple[Layer, Columns]:
        layer = self
        if self.columns is None:
            if not columns.codes:
                raise InputError(
                    "embedding: no category has more than 8 values; name those it is for under "
                    "[data.columns], as city = {coding = 'embedding'}, or leave the layer out"
                )
            layer = replace(self, columns=(*columns.codes,), values=(*columns.codes.values(),))
        others = tuple(k for k in columns.inputs if k not in layer.codes)
        return layer, replace(columns, inputs=others, codes={})

    def width(self, inputs: Mapping[int, int]) -> int:
        (width,) = inputs.values()
        if not self.columns:
            raise InputError("embedding: name its columns and how many values each has")
        if max(self.columns) >= width:
            raise InputError(
                f"embedding: there is no column {max(self.columns)} in {width} inputs; they count "
                "from 0"
            )
        return width + len(self.columns) * (self.size - 1)

    def parameters(self, inputs: Mapping[int, int]) -> Iterator[Parameter]:
        shape = sum(self.values or ()), self.size
        yield Parameter("T", shape, "table", lambda rng: rng.normal(size=shape))

    def forward(self, at: Place) -> None:
        """Eq. (1)."""
        (x,), y, rest = at.x.values(), at.output(), 0
        assert at.wide_inputs is not None
        for run in runs([k for k in range(x.shape[1]) if k not in self.codes]):
            place = slice(rest, rest + run.stop - run.start)
            at.tape.copy(x[:, run], y[:, place])
            rest = place.stop
        columns, values = self.columns or (), self.values or ()
        offsets = np.concatenate([[0], np.cumsum(values)[:-1]])
        backend, count = at.tape.backend, len(columns)
        first = backend.asarray(offsets.astype(at.arena.dtype))
        codes = at.buffer("codes", count, wide=True)
        for j, k in enumerate(columns):
            arrays = codes[:, j : j + 1], at.wide_inputs[:, k : k + 1], first[j : j + 1]
            at.tape.apply(lambda xp, code, x, first: x + first, (0,), *arrays)
        index = self._index(at)
        at.tape.copy(backend.xp.reshape(codes, (at.n * count,)), index)
        rows = at.buffer("rows", count * self.size)
        at.tape.take(at.p["T"], index, backend.xp.reshape(rows, (at.n * count, self.size)))
        at.tape.copy(rows, y[:, rest:])

    def backward(self, at: Place) -> None:
        """Eq. (1): the sum by rows of the table."""
        count, reshape = len(self.columns or ()), at.tape.backend.xp.reshape
        rows = at.buffer("rows", count * self.size)
        at.tape.copy(at.delta[:, at.width - count * self.size :], rows)
        rows = reshape(rows, (at.n * count, self.size))
        at.tape.scatter(rows, self._index(at), at.g["T"])

    def _index(self, at: Place) -> Array:
        """The rows of the table, (n · columns,) int64."""
        count = len(self.columns or ())
        index = at.arena.vector(("index", at.number), at.arena.rows * count, "int64")
        return index[: at.n * count]
