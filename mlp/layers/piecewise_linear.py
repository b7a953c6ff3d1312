"""Piecewise-linear embedding: each number as a learned curve of straight pieces.

With the edges b_0 < ... < b_T of a column, quantiles of the rows to train on, a number x of it is

    ε_i = (x - b_{i-1}) / (b_i - b_{i-1})        i = 1..T                                    (1)

cut off at 0 below (not ε_1) and at 1 above (not ε_T), which counts the pieces up to x. For each of
the columns j, with the other columns x',

    e_j = x_j T_j0 + Σ_i ε_ji T_ji + c_j         y = (x', e_1, e_2, ...)                     (2)
    ∂E/∂T_j0 = Σ x_j G_j     ∂E/∂T_ji = Σ ε_ji G_j     ∂E/∂c_j = Σ G_j      G = ∂E/∂e        (3)
    ∂E/∂x_j = G_j·T_j0 + Σ_i G_j·T_ji / (b_i - b_{i-1}), where ε_ji is not cut off           (4)

with sums over the rows. T_ji is 0 at first, so that e begins as linear functions of x. All columns
are one stack; one with fewer pieces than another has rows of T that stay 0.

Sources: Gorishniy et al., arXiv:2203.05556, eq. 1; the form (2), "B", is that of TabM,
arXiv:2410.24210, and of the package rtdl_num_embeddings.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from backends import Array
from mlp.errors import InputError, check_whole, is_finite, shown
from mlp.layers.layer import Columns, Layer, Parameter, Place, check_columns, check_sources
from mlp.layers.numbers import in_a_row, number_columns, numbers_of, places, stacked, taken, turned

LEAST = 1e-30  # between two edges: float32 has its reciprocal


@dataclass(frozen=True)
class PiecewiseLinear(Layer):
    """``size`` learned curves of straight pieces of each number, in place of it.

    size: numbers that a column becomes. bins: pieces, at most; where quantiles are equal there are
    fewer. columns: of the source; None is all of them, and in a file those of numbers, not codes of
    categories. edges: of each of these columns, rising, in the units in which it reaches the layer
    (scaled, where inputs are); a column of one value has one. None: from the data, in a file by
    itself, in Python by `fit`. They are kept with the model. sources: one layer; None is the one
    before. T and c of eq. (2) begin as U(±1/√size) and 0; their roles are "table" and "bias".

    >>> import numpy as np
    >>> from mlp import Dense, Network, PiecewiseLinear
    >>> layer = PiecewiseLinear(4, bins=2).fit(np.array([[0.0, 1.0], [1.0, 1.0], [4.0, 1.0]]))
    >>> layer.edges
    ((0.0, 1.0, 4.0), (1.0,))
    >>> Network(2, [layer, Dense(1)]).units
    (2, 8, 1)
    """

    size: int = 12
    bins: int = 48
    columns: tuple[int, ...] | None = None
    edges: tuple[tuple[float, ...], ...] | None = None
    sources: tuple[int, ...] | None = None

    reads_rows = True

    def __post_init__(self) -> None:
        check_whole("PiecewiseLinear: size", self.size, 1)
        check_whole("PiecewiseLinear: bins", self.bins, 2)
        object.__setattr__(self, "columns", check_columns("PiecewiseLinear", self.columns))
        object.__setattr__(self, "edges", _checked(self.edges))
        if None not in (self.columns, self.edges) and len(self.columns) != len(self.edges):  # type: ignore[arg-type]
            raise InputError(
                f"PiecewiseLinear: edges of {len(self.edges or ())} columns, but there are "
                f"{len(self.columns or ())} columns"
            )
        object.__setattr__(self, "sources", check_sources("PiecewiseLinear", self.sources, most=1))

    # ------------------------------------------------------------------ what it takes of the data

    def fit(self, X: Any) -> "PiecewiseLinear":
        """The layer with its edges from rows (n, columns), as they are to reach it: of each column
        the distinct ones of bins + 1 quantiles, equally far apart, with linear interpolation."""
        try:
            X = np.asarray(X)
        except (ValueError, TypeError) as error:  # rows of other lengths, an array of a device
            raise InputError(f"PiecewiseLinear: fit needs rows on the host: {error}") from error
        if X.ndim != 2 or not len(X) or X.dtype.kind not in "fiub" or not np.isfinite(X).all():
            raise InputError(
                "PiecewiseLinear: fit needs rows and columns of finite numbers, not "
                f"{X.dtype} of shape {X.shape}"
            )
        columns = taken(self.label, self.columns, X.shape[1])
        return replace(self, edges=tuple(_edges(X[:, j], self.bins) for j in columns))

    def fitted(self, columns: Columns) -> tuple[Layer, Columns]:
        layer, known = self, len(columns.inputs)
        if layer.columns is None:
            layer = replace(layer, columns=number_columns(self.label, columns))
        if layer.edges is None:
            if columns.rows is None or layer.columns is None or max(layer.columns) >= known:
                raise InputError(
                    "piecewise_linear: what reaches it are no columns of the data, whose quantiles "
                    "are its edges; put it first, or behind an embedding"
                )
            layer = layer.fit(columns.rows[:, columns.inputs])
        others = [k for j, k in enumerate(columns.inputs) if j not in (layer.columns or ())]
        return layer, replace(columns, inputs=tuple(others), codes={})

    # ------------------------------------------------------------------ what it holds

    def width(self, inputs: Mapping[int, int]) -> int:
        (width,) = inputs.values()
        if self.edges is None:
            raise InputError(
                "piecewise_linear: it has no edges; take them from the rows to train on, scaled as "
                "they will be: PiecewiseLinear(...).fit(X)"
            )
        d = len(taken(self.label, self.columns, width))
        if len(self.edges) != d:
            raise InputError(
                f"piecewise_linear: edges of {len(self.edges)} columns, but {d} reach it"
            )
        return width + d * (self.size - 1)

    def parameters(self, inputs: Mapping[int, int]) -> Iterator[Parameter]:
        """T (d, 1 + pieces, size), of which a column has its first ones, and c (d, size)."""
        assert self.edges is not None
        most, shape = 1.0 / math.sqrt(self.size), (len(self.edges), self._rows, self.size)

        def linear(rng: np.random.Generator) -> np.ndarray:
            T = np.zeros(shape)
            T[:, 0] = rng.uniform(-most, most, (shape[0], self.size))
            return T

        yield Parameter("T", shape, "table", linear)
        yield Parameter("c", (shape[0], self.size), "bias")

    @property
    def _rows(self) -> int:
        """1 and the pieces of the column that has most."""
        return max(map(len, self.edges or ()))

    def _bounds(self, at: Place) -> tuple[Array, Array, Array, Array]:
        """b_{i-1}, 1 / (b_i - b_{i-1}), and where ε is cut off, each (d (1 + pieces),): x itself
        has 0, 1 and no bounds, a piece that is not there has none but 0."""
        edges, count = self.edges or (), self._rows
        first, factor, low, high = np.zeros((4, len(edges), count))
        factor[:, 0], low[:, 0], high[:, 0] = 1.0, -np.inf, np.inf
        for j, b in enumerate(edges):
            pieces = slice(1, len(b))
            first[j, pieces], factor[j, pieces] = b[:-1], 1.0 / np.diff(b)
            high[j, pieces] = 1.0
            if len(b) > 1:
                low[j, 1], high[j, len(b) - 1] = -np.inf, np.inf
        backend, dtype = at.tape.backend, at.arena.dtype
        found = [backend.asarray(x.reshape(-1).astype(dtype)) for x in (first, factor, low, high)]
        return found[0], found[1], found[2], found[3]

    # ------------------------------------------------------------------ its calls

    def _parted(self, width: int) -> tuple[tuple[int, ...], list[int]]:
        """The columns, and the others."""
        columns = taken(self.label, self.columns, width)
        return columns, sorted({*range(width)} - {*columns})

    def forward(self, at: Place) -> None:
        """Eq. (1) and (2)."""
        (given,), y = at.x.values(), at.output()
        columns, others = self._parted(given.shape[1])
        d, count = len(columns), self._rows
        x, codes = numbers_of(at, columns), at.buffer("codes", d * count, wide=True)
        ones = at.tape.backend.asarray(np.ones((1, count), at.arena.dtype))
        at.tape.stack(stacked(x, d), ones, stacked(codes, d), exact=True)

        def pieces(
            xp: Any, out: Array, x: Array, first: Array, factor: Array, low: Array, high: Array
        ) -> Array:
            return xp.minimum(xp.maximum((x - first) * factor, low), high)

        at.tape.apply(pieces, (0,), codes, codes, *self._bounds(at))
        e = at.buffer("e", d * self.size, wide=True)
        at.tape.stack(stacked(codes, d), at.p["T"], stacked(e, d), exact=True)
        for there, here in places(others):
            at.tape.copy(given[:, there], y[:, here])
        room, c = y[:, at.width - d * self.size :], in_a_row(at.p["c"])
        at.tape.apply(lambda xp, y, e, c: e + c, (0,), room, e, c)

    def backward(self, at: Place) -> None:
        """Eq. (3) and (4)."""
        (given,) = at.x.values()
        columns, others = self._parted(given.shape[1])
        d, count, size = len(columns), self._rows, self.size
        codes, G = at.buffer("codes", d * count, wide=True), at.buffer("e", d * size, wide=True)
        at.tape.copy(at.delta[:, at.width - d * self.size :], G)
        at.tape.total(G, in_a_row(at.g["c"]))
        at.tape.stack(turned(stacked(codes, d)), stacked(G, d), at.g["T"], exact=True)

        def slopes(
            xp: Any, out: Array, e: Array, code: Array, factor: Array, low: Array, high: Array
        ) -> Array:
            return xp.where(code > low, xp.where(code < high, e * factor, 0.0), 0.0)

        for _, out in at.back():
            back = at.buffer("back", d * count, wide=True)
            at.tape.stack(stacked(G, d), turned(at.p["T"]), stacked(back, d), exact=True)
            at.tape.apply(slopes, (0,), back, back, codes, *self._bounds(at)[1:])
            ones = at.tape.backend.asarray(np.ones((count, 1), at.arena.dtype))
            x = at.buffer("numbers", d, wide=True)
            at.tape.stack(stacked(back, d), ones, stacked(x, d), exact=True)
            for there, here in places(columns):
                at.tape.copy(x[:, here], out[:, there])
            for there, here in places(others):
                at.tape.copy(at.delta[:, here], out[:, there])


def _edges(x: np.ndarray, bins: int) -> tuple[float, ...]:
    """Distinct quantiles, in float32, so that they are distinct in each precision."""
    found = np.quantile(x.astype(float), np.linspace(0.0, 1.0, bins + 1)).astype(np.float32)
    edges = np.unique(found).astype(float)
    apart = np.diff(edges, prepend=-np.inf) >= LEAST
    return tuple(edges[apart].tolist())


def _checked(given: Any) -> tuple[tuple[float, ...], ...] | None:
    """Edges as tuples of floats; InputError for what are none."""
    if given is None:
        return None
    listed = isinstance(given, Sequence) and not isinstance(given, str)
    if not (listed or np.ndim(given) > 0) or not len(given):
        raise InputError(
            "PiecewiseLinear: edges must list those of each column, as ((0.0, 1.0),), not "
            f"{shown(given)}"
        )
    for j, edges in enumerate(given):
        edges = edges.tolist() if isinstance(edges, np.ndarray) else edges
        listed = isinstance(edges, Sequence) and not isinstance(edges, str)
        if not listed or not len(edges) or not all(map(is_finite, edges)):
            raise InputError(f"PiecewiseLinear: edges of column {j} are no numbers: {shown(edges)}")
        if min(np.diff(edges), default=1.0) < LEAST:
            raise InputError(f"PiecewiseLinear: edges of column {j} must rise, not {shown(edges)}")
    return tuple(tuple(map(float, edges)) for edges in given)
