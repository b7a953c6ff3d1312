"""What a layer is: the parameters it has, and its calls forward and backward.

A layer is a frozen record of settings. It says what it holds, by name, shape and role, and writes
down, on a tape, how its output y comes from the outputs x_k of its sources, and how the derivatives
come back. With Δ = ∂E/∂y, which is there when `backward` is asked,

    forward     y <- f(x_k, ...; p)                                                         (1)
    backward    ∂E/∂p <- (∂y/∂p)ᵀ Δ      ∂E/∂x_k gets + (∂y/∂x_k)ᵀ Δ                         (2)

where the layer stands in the graph is not its business: a `Place` hands it the arrays. A layer of
your own is a subclass of `Layer`; nothing else has to know of it. A scale for each column:

>>> class Scale(Layer):
...     def parameters(self, inputs):
...         (width,) = inputs.values()
...         return (Parameter("s", (width,), "scale", 1.0),)
...     def forward(self, at):
...         (x,) = at.x.values()
...         at.tape.apply(lambda xp, y, x, s: x * s, (0,), at.output(), x, at.p["s"])
...     def backward(self, at):
...         (x,) = at.x.values()
...         product = at.buffer("product")
...         at.tape.apply(lambda xp, out, x, d: x * d, (0,), product, x, at.delta)
...         at.tape.total(product, at.g["s"])
...         for _, out in at.back():
...             at.tape.apply(lambda xp, out, d, s: d * s, (0,), out, at.delta, at.p["s"])
>>> import mlp
>>> net = mlp.Network(3, [mlp.Dense(4, "tanh"), Scale(), mlp.Dense(1)])
>>> model = mlp.Model(net, "mean_squared_error")
>>> net.views(model.w)["s"][2].tolist()
[1.0, 1.0, 1.0, 1.0]
>>> import numpy as np
>>> mlp.gradient_check(model, np.ones((5, 3)), np.zeros(5)).passed
True
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from numbers import Real
from typing import Any

import numpy as np

from backends import Array
from mlp.errors import InputError, check_whole, is_finite, shown
from mlp.formulas.activations import get_activation, learned
from mlp.layers.tape import Arena, Tape, add, repeated

# ------------------------------------------------------------------ what a layer holds


@dataclass(frozen=True)
class Role:
    """What holds for all parameters of a kind. penalised: they enter the L1 and L2 terms of the
    objective. decayed: a rule with weight decay decays them."""

    penalised: bool = False
    decayed: bool = False


# In the order in which they lie in w.
ROLES: dict[str, Role] = {
    "weight": Role(penalised=True, decayed=True),  # a factor of products
    "table": Role(penalised=True, decayed=True),  # a row for each value of an integer
    "bias": Role(),  # added
    "gain": Role(),  # multiplied, after a normalisation
    "shift": Role(),  # added, after a normalisation
    "slope": Role(),  # of an activation
    "scale": Role(),  # multiplied, a number for each column
    "adapter": Role(),  # multiplied, a number for each column and member
    "periodic": Role(penalised=True, decayed=True),  # frequencies and what is of them
}

Start = float | Callable[[np.random.Generator], np.ndarray]


@dataclass(frozen=True)
class Parameter:
    """A part of w. start: the value of all entries, or a function that draws them, of its shape, in
    float64. source: the layer it belongs to beside its own, as k does to W[k, l]."""

    name: str
    shape: tuple[int, ...]
    role: str
    start: Start = 0.0
    source: int | None = None


@dataclass(frozen=True)
class Statistic:
    """State of a layer that is no parameter and has no gradient, as a running mean: its calls
    change it in training and read it in predictions. start: the value of all entries."""

    name: str
    shape: tuple[int, ...]
    start: float = 0.0


class Widths(dict[int, int]):
    """The columns of a layer's sources, by their numbers; and their members, in the same way."""

    members: Mapping[int, int]


@dataclass(frozen=True)
class Columns:
    """What the data say of the columns that reach a layer. inputs: the columns of the input, in
    the order in which they come first there. numbers: those of them that are numbers, not codes of
    categories. codes: those of whole numbers, and how many there are. rows: of the input, (n,
    inputs), scaled, to train on, if a layer ``reads_rows``. After other layers nothing is known.
    """

    inputs: tuple[int, ...] = ()
    numbers: tuple[int, ...] = ()
    codes: Mapping[int, int] = field(default_factory=dict)
    rows: np.ndarray | None = None


# ------------------------------------------------------------------ where a layer stands


Key = Any  # the name of a parameter, or (name, source) where it has a source


@dataclass
class Place:
    """A layer's place in a pass: what feeds it, what it holds, and where its results go.

    number: of the layer. n: rows, samples x members. ``whole``: samples of the batch, where these
    are a shard of it (`over_batch`); else None. width: columns of its output. x: the outputs
    of its sources, (n, width_k), by their numbers; one that is a `Slot` is a factor of products
    only. p, g: its parameters and their places in the gradient, by name, or (name, source). s: its
    statistics. y: its output. delta: ∂E/∂y, which may be overwritten. drawn: what `draw` gave.
    weights: of the samples, (samples, 1), where they have some, in training. training: not a
    prediction. last: the objective follows; ``ending``: arrays that are still to be
    added to y, if the layer leaves that and its activation to the objective's kernel, which
    overwrites y then; None: y is whole, and stays.
    """

    tape: Tape
    arena: Arena
    number: int
    samples: int
    members: int
    width: int
    x: dict[int, Any]
    p: dict[Key, Array]
    s: dict[str, Array]
    behind: "dict[int, Place]"  # the places of its sources but the input
    training: bool
    last: bool
    whole: int | None = None
    keeps: bool = False  # every quantity has an array of its own, for whoever looks at them
    wide_inputs: Array | None = None
    weights: Array | None = None
    g: dict[Key, Array] = field(default_factory=dict)
    drawn: tuple[Array, ...] = ()
    ending: tuple[Array, ...] | None = None
    y: Any = None
    delta: Any = None
    _shares: tuple[Array, Array] | None = None

    @property
    def n(self) -> int:
        return self.samples * self.members

    def buffer(self, name: str, columns: int | None = None, wide: bool | None = None) -> Array:
        """An array of the layer's own, (n, columns or width): the same one whenever it has this
        name. It holds nothing from one run to the next. wide: in the dtype of the loss, as all of
        the last layer is; else in that of activations, float16 where the precision is mixed."""
        wide = self.last if wide is None else wide
        dtype = self.arena.dtype if wide else self.arena.storage
        key, columns = (name, self.number), columns or self.width
        return self.arena.get(key, self.samples, columns, dtype, self.members)

    def vector(self, name: str, columns: int | None = None) -> Array:
        """An array of the layer's own without rows, (columns or width,), in the loss's dtype."""
        return self.arena.vector((name, self.number), columns or self.width, self.arena.dtype)

    def output(self) -> Array:
        """The array of y, in one of its own."""
        self.y = self.buffer("y")
        return self.y

    def draw(self) -> tuple[Array, ...]:
        """Uniform numbers in [0, 1) for kernels, (n, width), others in each step, and the layer's
        `Layer.strengths`, each (1,). Once a layer, in training."""
        noise, room = self.arena.noise, partial(self.buffer, "u", wide=True)
        shape = (self.n, self.width)
        backend = self.tape.backend
        u, call = backend.uniform(noise.clock, self.number, shape, self.samples, room)
        if call is not None:
            self.tape.calls.append(call)
        self.drawn = (u, *noise.of(self.number))
        return self.drawn

    @property
    def rows_of_batch(self) -> int:
        """Rows of the whole batch: n, or more where these are a shard."""
        return (self.samples if self.whole is None else self.whole) * self.members

    def over_batch(self, name: str, x: Array) -> Array:
        """x (width,), a sum over these rows, over those of the whole batch: itself, or a vector of
        this name where these are a shard."""
        if self.whole is None:
            return x
        total = self.vector(name)
        self.tape.copy(x, total)
        self.tape.sum_shards(total)
        return total

    def shares(self) -> tuple[Array, Array] | None:
        """Of samples with weights, in training: each row's share of their sum, (n, 1), and a 1, or
        a 0 where all weights are 0, as the shares are then, (1,). None: each row's share is 1/n."""
        if self.weights is None or self._shares is not None:
            return self._shares

        def guarded(xp: Any, total: Array, there: Array) -> Any:
            return xp.where(total == 0.0, 1.0, total), xp.sign(total)

        rho = self.buffer("shares", 1, wide=True)
        total, there = self.vector("weight", 1), self.vector("there", 1)
        weights = repeated(self.tape, self.weights, self.members)
        self.tape.total(weights, total)
        self.tape.sum_shards(total)
        self.tape.apply(guarded, (0, 1), total, there)
        self.tape.apply(lambda xp, rho, s, total: s / total, (0,), rho, weights, total)
        self._shares = rho, there
        return self._shares

    def flat(self, x: Array) -> Array:
        """x (n, m) as (samples, members · m), of which a number a member and column is a row."""
        return self.tape.backend.xp.reshape(x, (self.samples, self.members * x.shape[1]))

    def stack(self, x: Array) -> Array:
        """x (n, m) as (members, samples, m), of a source with one member the same for all."""
        if x.shape[0] == self.samples and self.members > 1:
            return x
        xp = self.tape.backend.xp
        apart = xp.reshape(x, (self.samples, self.members, x.shape[1]))
        return xp.permute_dims(apart, (1, 0, 2))

    def integers(self, column: int) -> Array:
        """A column of the input as whole numbers, (n,) int64. The layer says ``integers = True``.

        Whole numbers below 2^24 arrive as they are; they must not be scaled.
        """
        if self.wide_inputs is None:
            raise InputError(f"layer {self.number} reads integers and has no source 0, the input")
        index = self.arena.vector(("integers", self.number, column), self.arena.rows, "int64")
        index = index[: self.samples]
        self.tape.copy(self.wide_inputs[:, column], index)
        return index

    def sum_into(self, out: Array, terms: Array) -> None:
        """out <- Σ of terms (n, width) over the rows, (width,); where out is (1,), over all. terms
        stay as they are until the end of the pass."""
        if out.shape[0] == self.width:
            self.tape.total_late(terms, out)
            return
        of_rows = self.arena.vector(("sum", self.number), self.width, self.arena.dtype)
        self.tape.total(terms, of_rows)
        self.tape.total(of_rows, out)

    def back(self) -> Iterator[tuple[int, Array]]:
        """(k, out) for each source but the input: write (∂y/∂x_k)ᵀ Δ into out, all of it.

        Where source k feeds other layers too, what they sent is added (`network` eq. 4).
        """
        for k, source in self.behind.items():
            first = source.delta is None
            if first:
                source.delta = source.buffer("delta")
            out = source.delta if first else source.buffer("part")
            yield k, out
            if not first:
                self.tape.apply(add, (0,), source.delta, out)


# ------------------------------------------------------------------ a layer


class Layer:
    """What the graph asks of a layer; see the module for one of your own.

    sources: numbers of the layers that feed it, 0 the input; None is the layer before. Class
    attributes: ``by_products``: its inputs are factors of products and nothing else; ``integers``:
    it reads columns of the input as whole numbers; ``least_rows``: that a batch must have;
    ``reads_rows``: `fitted` wants rows.
    """

    sources: tuple[int, ...] | None = None
    by_products = False
    integers = False
    least_rows = 1
    reads_rows = False

    @property
    def codes(self) -> Mapping[int, int]:
        """The columns of the input that it reads as whole numbers, from 0 on, and how many."""
        return {}

    def fitted(self, columns: Columns) -> tuple["Layer", Columns]:
        """The layer with what it leaves to the data, and what is known of its own columns."""
        return self, Columns()

    def width(self, inputs: Mapping[int, int]) -> int:
        """Columns of the output, from those of its sources. This one: as many as each of them."""
        widths = set(inputs.values())
        if len(widths) > 1:
            listed = ", ".join(f"{width} of layer {k}" for k, width in inputs.items())
            raise InputError(
                f"{self.label}: its sources must be as wide as each other, not {listed}"
            )
        return widths.pop()

    def members(self, inputs: Mapping[int, int]) -> int:
        """Rows for each sample, from those of its sources. This one: as many as each of them."""
        found = set(inputs.values())
        if len(found) > 1:
            listed = ", ".join(f"{m} of layer {k}" for k, m in inputs.items())
            raise InputError(f"{self.label}: its sources must have as many members, not {listed}")
        return found.pop()

    def parameters(self, inputs: Mapping[int, int]) -> Iterable[Parameter]:
        """What it learns; inputs: the columns of its sources, by their numbers."""
        return ()

    def statistics(self, inputs: Mapping[int, int]) -> Iterable[Statistic]:
        """What it keeps beside that."""
        return ()

    def strengths(self, factor: float) -> tuple[float, ...]:
        """How strong the noise is that it draws in training (`Place.draw`), multiplied by a factor;
        at 0 there is none. Nothing for a layer that draws none."""
        return ()

    def forward(self, at: Place) -> None:
        """Write eq. (1) on ``at.tape`` and set ``at.y``."""
        raise NotImplementedError

    def backward(self, at: Place) -> None:
        """Write eq. (2): fill each of ``at.g``, and each array that `Place.back` gives."""
        raise NotImplementedError

    @property
    def label(self) -> str:
        """What a table of layers calls it: its name as a file has it, RMSNorm as rms_norm."""
        name = type(self).__name__
        return re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()


def slopes(activation: Any, units: int) -> Iterator[Parameter]:
    """What the activation of so many units learns, by its names."""
    for name, (size, first) in learned(get_activation(activation), units).items():
        yield Parameter(name, (size,), "slope", first)


def label_of(activation: Any) -> str:
    """What a table of layers calls an activation."""
    named = isinstance(activation, str)
    return activation if named else type(get_activation(activation)).__name__


def check_sources(name: str, sources: Any, most: int | None = None) -> tuple[int, ...] | None:
    """The numbers of the layers that feed one, as whole numbers, at most so many; InputError if
    they are not."""
    if sources is None:
        return None
    sources = sources.tolist() if isinstance(sources, np.ndarray) else sources
    listed = isinstance(sources, Iterable) and not isinstance(sources, str)
    if not listed or not all(isinstance(k, (int, np.integer)) for k in sources):
        raise InputError(
            f"{name}: sources must list numbers of layers, as (0, 1), not {shown(sources)}"
        )
    found = tuple(int(k) for k in sources)
    if most is not None and len(found) > most:
        raise InputError(
            f"{name}: sources {shown(found)}: it has one; layers of the same width are added by "
            "`add`, and a dense layer takes any number"
        )
    return found


def check_columns(name: str, given: Any) -> tuple[int, ...] | None:
    """Numbers of columns, each once, from 0 on; or None. InputError if they are not."""
    found = check_list(f"{name}: columns", given, 0)
    if found is not None and len(set(found)) < len(found):
        raise InputError(f"{name}: columns {shown(found)} must name each column once")
    return found


def check_list(what: str, given: Any, least: int) -> tuple[int, ...] | None:
    """A list of whole numbers, or None."""
    if given is None:
        return None
    given = given.tolist() if isinstance(given, np.ndarray) else given
    if not isinstance(given, (list, tuple)) or not given:
        raise InputError(f"{what} must list whole numbers, as (0, 3), not {shown(given)}")
    for number in given:
        check_whole(what, number, least)
    return tuple(int(number) for number in given)


def runs(columns: Sequence[int]) -> Iterator[slice]:
    """Columns as runs of neighbours that rise."""
    start = 0
    for i in range(1, len(columns) + 1):
        if i == len(columns) or columns[i] != columns[i - 1] + 1:
            yield slice(columns[start], columns[i - 1] + 1)
            start = i


def check_epsilon(name: str, epsilon: object) -> None:
    """InputError if what is added below a root is no number above 0."""
    if not (is_finite(epsilon) and epsilon > 0):  # type: ignore[operator]
        raise InputError(f"{name}: epsilon must be a number above 0, not {shown(epsilon)}")


def check_penalties(name: str, l1: object, l2: object) -> None:
    """InputError if these are no numbers from 0 on."""
    for what, value in (("l1", l1), ("l2", l2)):
        if isinstance(value, bool) or not isinstance(value, Real):
            raise InputError(f"{name}: {what} must be a number, not {shown(value)}")
        if not (is_finite(value) and value >= 0):  # type: ignore[operator]
            raise InputError(f"{name}: {what} must be 0 or above, not {shown(value)}")
