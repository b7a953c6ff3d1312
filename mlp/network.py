"""The network: layers in a feed-forward graph, its forward pass, and backpropagation.

Layer 0 is the input; layers 1..L are `Dense`. ``sources[l]`` lists the layers that feed layer l
(the one before, unless it says otherwise), ``targets[k]`` the layers that k feeds. Rows of every
array are samples. With a_0 = X:

    z_l = Σ_{k in sources[l]} a_k W_kl + b_l                                              (1)
    a_l = f_l(z_l)                                                                        (2)

and, with δ_l = ∂E/∂z_l, from the last layer to the first,

    δ_L = f_L'ᵀ(z_L) · ∂E/∂y                                                              (3)
    δ_l = f_l'ᵀ(z_l) · Σ_{m in targets[l]} δ_m W_lmᵀ                                      (4)
    ∂E/∂W_kl = a_kᵀ δ_l                                                                   (5)
    ∂E/∂b_l  = Σ_rows δ_l                                                                 (6)

Where each stands in the derivations: (1) 001 eq. 1, 004 z; (2) 002 eq. 2; (3) 002 eq. 10, 003 case
1; (4) 000, 001 eq. 9, 002 eq. 5 and 9, 003 case 2 ("the deltas come from any units to which the
current unit is connected"), 004; (5) 001 eq. 6 and 9, 002 eq. 6, 003 Δ_p w_tu = δ_t o_u; (6) 001
eq. 5 and 9. Here δ is ∂E/∂z, of the sign in 001, 002 and 004; 000 and 003 write minus that.

All parameters are one flat vector w, the weights of layer 1, 2, ... first, then the biases; the
layers are reshaped slices of it, and the gradient g has the same layout.

The passes are not run here but written down, once, on a `Tape`: calls on fixed buffers, which
training then runs for every batch.

>>> net = Network(2, [Dense(3, "tanh"), Dense(1, "sigmoid", sources=(0, 1))])
>>> net.sources, net.parameters
({1: (0,), 2: (0, 1)}, 15)
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from backends import Array, Backend
from backends.formula import Formula
from mlp.activations import Activation, get_activation
from mlp.errors import InputError, check_whole
from mlp.initializers import Initializer, get_initializer
from mlp.memory import Count, megabytes, shaped
from mlp.optimizers import OPTIMIZERS, Optimizer
from mlp.seeds import generator
from mlp.tables import make


@dataclass(frozen=True)
class Dense:
    """A layer of units, each connected to all units of its sources: affine, activation, dropout.

    units: number of units. activation: a name of `mlp.activations.ACTIVATIONS` or an own object.
    sources: numbers of the layers that feed it, 0 the input; None is the layer before. bias:
    whether z has b added. dropout: share of units set to zero in training, the others divided by
    1 - dropout (inverted dropout; Srivastava et al., JMLR 15, 2014, section 10). l1, l2: the
    objective gets l1 Σ|W| + ½ l2 ΣW² for this layer's weights, never its biases. initializer: a
    name of `mlp.initializers.INITIALIZERS`, "auto" (He for rectifiers, else Glorot), or a function.
    """

    units: int
    activation: str | Mapping[str, Any] | Activation = "identity"
    sources: tuple[int, ...] | None = None
    bias: bool = True
    dropout: float = 0.0
    l1: float = 0.0
    l2: float = 0.0
    initializer: str | Mapping[str, Any] | Initializer = "auto"

    def __post_init__(self) -> None:
        if isinstance(self.units, bool) or not isinstance(self.units, int) or self.units < 1:
            raise InputError(f"Dense: units must be a whole number from 1 on, not {self.units!r}")
        for name, value in (("dropout", self.dropout), ("l1", self.l1), ("l2", self.l2)):
            if isinstance(value, bool) or not isinstance(value, (int, float, np.number)):
                raise InputError(f"Dense: {name} must be a number, not {value!r}")
        if not 0.0 <= self.dropout < 1.0:
            raise InputError(f"Dense: dropout must be in [0, 1), not {self.dropout!r}")
        for name, value in (("l1", self.l1), ("l2", self.l2)):
            if not (value >= 0.0 and np.isfinite(value)):
                raise InputError(f"Dense: {name} must be 0 or above, not {value!r}")
        if not isinstance(self.bias, (bool, np.bool_)):
            raise InputError(f"Dense: bias must be True or False, not {self.bias!r}")
        if self.sources is not None:
            whole = isinstance(self.sources, Iterable) and not isinstance(self.sources, str)
            if not whole or not all(isinstance(k, (int, np.integer)) for k in self.sources):
                raise InputError(
                    f"Dense: sources must list numbers of layers, as (0, 1), not {self.sources!r}"
                )
            object.__setattr__(self, "sources", tuple(int(k) for k in self.sources))


class Network:
    """The graph and the layout of its parameters; no weights and no backend of its own.

    inputs: number of input columns. layers: one `Dense` or more, the last one is the output.

    Attributes: ``units[l]`` (units[0] = inputs), ``sources``, ``targets``, ``activations[l]``,
    ``weights`` and ``parameters``, the lengths of the weights' part and of the whole of w.
    """

    def __init__(self, inputs: int, layers: Sequence[Dense]):
        if isinstance(inputs, bool) or not isinstance(inputs, int) or inputs < 1:
            raise InputError(f"Network: inputs must be a whole number from 1 on, not {inputs!r}")
        if not layers:
            raise InputError("Network: give at least one layer, the output: Dense(units)")
        self.inputs, self.layers = inputs, tuple(layers)
        self.depth = len(self.layers)
        self.units = (inputs, *(layer.units for layer in self.layers))
        self.sources = {number: self._sources_of(number) for number in self.numbers()}
        self.targets = {
            k: tuple(m for m in self.numbers() if k in self.sources[m])
            for k in range(self.depth + 1)
        }
        for number in range(1, self.depth):
            if not self.targets[number]:
                raise InputError(
                    f"layer {number} feeds no other layer; name it in the sources of a later one"
                )
        if self.layers[-1].dropout:
            raise InputError("the last layer is the output: its dropout must be 0")
        self.activations = {n: get_activation(self.layer(n).activation) for n in self.numbers()}

        offset = 0
        self.weight_slices: dict[tuple[int, int], slice] = {}
        for number in self.numbers():
            for k in self.sources[number]:
                size = self.units[k] * self.units[number]
                self.weight_slices[k, number] = slice(offset, offset + size)
                offset += size
        self.weights = offset
        self.bias_slices: dict[int, slice] = {}
        for number in self.numbers():
            if self.layer(number).bias:
                self.bias_slices[number] = slice(offset, offset + self.units[number])
                offset += self.units[number]
        self.parameters = offset

    def _sources_of(self, number: int) -> tuple[int, ...]:
        sources = self.layer(number).sources
        if sources is None:
            return (number - 1,)
        if not sources or len(set(sources)) < len(sources):
            raise InputError(f"layer {number}: sources {sources} must name each layer once")
        for k in sources:
            if not 0 <= k < number:
                raise InputError(
                    f"layer {number}: source {k} is not a layer before it; 0 (the input) to "
                    f"{number - 1} are"
                )
        return tuple(sorted(sources))

    def numbers(self) -> range:
        """The numbers of the layers, 1..L."""
        return range(1, self.depth + 1)

    def layer(self, number: int) -> Dense:
        """Layer l, counted from 1."""
        return self.layers[number - 1]

    @property
    def outputs(self) -> int:
        """Units of the last layer."""
        return self.units[-1]

    # ------------------------------------------------------------------ parameters

    def initial_weights(self, seed: int | np.random.Generator = 0) -> np.ndarray:
        """A fresh w, (parameters,) float64 on the host: drawn by each layer's initializer in the
        order of the layout, biases zero. One seed is one w, whatever the backend."""
        if isinstance(seed, np.random.Generator):
            rng = seed
        elif isinstance(seed, (int, np.integer)) and seed >= 0:
            rng = generator(int(seed), "weights")
        else:
            raise InputError(f"seed must be a whole number from 0 on, not {seed!r}")
        w = np.zeros(self.parameters)
        for (k, number), part in self.weight_slices.items():
            layer = self.layer(number)
            draw = get_initializer(layer.initializer, layer.activation)
            fan_in = sum(self.units[source] for source in self.sources[number])
            shape = (self.units[k], self.units[number])
            w[part] = np.asarray(draw(rng, fan_in, layer.units, shape)).reshape(-1)
        return w

    def unpack(self, w: Array) -> tuple[dict[tuple[int, int], Array], dict[int, Array]]:
        """(W, b): W[k, l] of shape (units_k, units_l) and b[l] of shape (units_l,).

        They are views: writing into them writes into w, which may be weights or a gradient.

        >>> import numpy as np
        >>> net = Network(2, [Dense(3), Dense(1)])
        >>> W, b = net.unpack(np.arange(13.0))
        >>> W[1, 2].shape, b[2]
        ((3, 1), array([12.]))
        """
        if w.shape != (self.parameters,):
            raise InputError(
                f"w has shape {tuple(w.shape)}, this network has {self.parameters} parameters"
            )
        from array_api_compat import array_namespace

        xp = array_namespace(w)
        W = {
            (k, number): xp.reshape(w[part], (self.units[k], self.units[number]))
            for (k, number), part in self.weight_slices.items()
        }
        return W, {number: w[part] for number, part in self.bias_slices.items()}

    def pack(
        self, W: Mapping[tuple[int, int], Any], b: Mapping[int, Any] | None = None
    ) -> np.ndarray:
        """The flat w, float64 on the host, of weights W[k, l] and biases b[l] (missing: zero)."""
        w = np.zeros(self.parameters)
        W_views, b_views = self.unpack(w)
        named: list[tuple[str, Any, Any, Any]]
        named = [("W", key, x, W_views.get(key)) for key, x in W.items()]
        named += [("b", key, x, b_views.get(key)) for key, x in (b or {}).items()]
        for what, key, value, view in named:
            if view is None:
                raise InputError(f"this network has no {what}[{key}]")
            value = np.asarray(value, dtype=float)
            if value.shape != view.shape:
                raise InputError(f"{what}[{key}] has shape {value.shape}, expected {view.shape}")
            view[...] = value
        missing = [key for key in W_views if key not in W]
        if missing:
            raise InputError(f"no weights given for W[{missing[0]}]")
        return w

    def describe(self, index: int) -> str:
        """Which parameter w[index] is, in words.

        >>> Network(2, [Dense(3)]).describe(4)
        'W[0, 1][1, 1]'
        """
        for (k, number), part in self.weight_slices.items():
            if part.start <= index < part.stop:
                row, column = divmod(index - part.start, self.units[number])
                return f"W[{k}, {number}][{row}, {column}]"
        for number, part in self.bias_slices.items():
            if part.start <= index < part.stop:
                return f"b[{number}][{index - part.start}]"
        raise InputError(f"parameter {index} of {self.parameters}")

    def summary(
        self,
        batch_size: int | None = None,
        precision: str = "float32",
        optimizer: str | Mapping[str, Any] | Optimizer = "adam",
    ) -> str:
        """The layers as a table; with a batch_size, also the memory that a step of training takes.

        That is what the network alone knows of. The data, the loss and what is measured come to it:
        `mlp.plan` has it all, for a model on its backend.

        >>> print(Network(64, [Dense(32, "relu"), Dense(10, "softmax")]).summary())
        layer   units  activation      from  parameters
            0      64  (input)
            1      32  relu               0        2080
            2      10  softmax            1         330
        total                                      2410
        """
        lines = [f"{'layer':>5} {'units':>7}  {'activation':<12} {'from':>7} {'parameters':>11}"]
        lines.append(f"{0:>5} {self.inputs:>7}  (input)")
        for number in self.numbers():
            parts = [s for (_, m), s in self.weight_slices.items() if m == number]
            parts += [s for m, s in self.bias_slices.items() if m == number]
            count = sum(part.stop - part.start for part in parts)
            activation = self.layer(number).activation
            name = activation if isinstance(activation, str) else type(activation).__name__
            origin = ",".join(str(k) for k in self.sources[number])
            lines.append(f"{number:>5} {self.units[number]:>7}  {name:<12} {origin:>7} {count:>11}")
        lines.append(f"{'total':>5} {'':>7}  {'':<12} {'':>7} {self.parameters:>11}")
        if batch_size is not None:
            memory = self.step_memory(batch_size, precision, optimizer)
            listed = ", ".join(f"{name} {megabytes(size)}" for name, size in memory.items())
            lines.append(f"memory of a step on {batch_size} rows: {listed}")
        return "\n".join(line.rstrip() for line in lines)

    def step_memory(
        self, batch_size: int, precision: str, optimizer: str | Mapping[str, Any] | Optimizer
    ) -> dict[str, int]:
        """Bytes of a step of training on so many rows, by what they are for."""
        check_whole("batch_size", batch_size, 1)
        check_precision(precision)
        count, shape = Count(), (self.parameters,)
        arena = Arena(count, precision, batch_size)
        dtype = arena.dtype
        with count.under("weights"):
            w = count.empty(shape, dtype)
        with count.under("gradient"):
            g = count.empty(shape, dtype)
        with count.under("optimizer"):
            for _ in make(OPTIMIZERS, optimizer, "optimizer").state:
                count.empty(shape, dtype)
        with count.under("activations and deltas"):
            network = Pass(self, Tape(count), arena, batch_size, w)
            network.forward(dropout=True)
            network.backward(g, shaped((1,), dtype))
        return count.bytes

    def penalties(self) -> list[tuple[slice, float, float]]:
        """(part of w, l1, l2) for each run of weights with the same penalties, none left out that
        has one."""
        found: list[tuple[slice, float, float]] = []
        for (_, number), part in self.weight_slices.items():
            layer = self.layer(number)
            if layer.l1 == 0.0 and layer.l2 == 0.0:
                continue
            if found and found[-1][1:] == (layer.l1, layer.l2) and found[-1][0].stop == part.start:
                part = slice(found.pop()[0].start, part.stop)
            found.append((part, layer.l1, layer.l2))
        return found


# ------------------------------------------------------------------- the passes, written down


@dataclass
class Slot:
    """A place for the left factor of products, which may hold another array in each run."""

    array: Array


class Tape:
    """A list of calls on fixed arrays: what a pass does, in order, to be run any number of times.

    Everything that depends on names, shapes or dtypes is settled when a call is written; running
    the tape reads nothing back from the device.
    """

    def __init__(self, backend: Backend, precision: str = "float32"):
        self.backend, self.precision = backend, precision
        self.calls: list[Callable[[], None]] = []

    def product(self, a: Array | Slot, b: Array, out: Array) -> None:
        """out <- a b."""
        if isinstance(a, Slot):
            matmul, slot = self.backend.matmul, a
            self.calls.append(lambda: matmul(slot.array, b, out))
            return
        self.calls.append(self.backend.product(a, b, out, self.precision))

    def total(self, x: Array, out: Array) -> None:
        """out <- the sum of the rows of x."""
        self.calls.append(self.backend.total(x, out))

    def copy(self, source: Array, out: Array) -> None:
        """out <- source, in out's dtype."""
        self.calls.append(partial(self.backend.copy, source, out))

    def apply(
        self,
        formula: Formula,
        into: Sequence[str],
        *arrays: Array,
        scalars: Sequence[float] = (),
    ) -> None:
        """The formula as one kernel; its results go into the arguments named by ``into``."""
        kernel = self.backend.fuse(formula, into).bind(*arrays)
        self.calls.append(partial(kernel, *scalars) if scalars else kernel)

    def run(self) -> None:
        for call in self.calls:
            call()


PRECISIONS = ("float32", "tf32", "float64", "mixed")


def check_precision(precision: str) -> None:
    """InputError if it is not the name of one; `mlp.model.Model` says what they are."""
    if precision not in PRECISIONS:
        raise InputError(f"precision must be one of {', '.join(PRECISIONS)}, not {precision!r}")


class Arena:
    """Buffers of up to ``rows`` rows, made when first asked for; fewer rows are a view of them.

    ``dtype`` is that of the outputs and the loss, ``storage`` that of the activations and deltas of
    the hidden layers: half as wide where the precision is mixed.
    """

    def __init__(self, backend: Backend, precision: str, rows: int):
        self.backend, self.precision, self.rows = backend, precision, rows
        self.dtype = "float64" if precision == "float64" else "float32"
        self.storage = "float16" if precision == "mixed" else self.dtype
        self.buffers: dict[tuple[Any, ...], Array] = {}

    def get(self, name: tuple[Any, ...], n: int, columns: int, dtype: str | None = None) -> Array:
        if name not in self.buffers:
            shape = (self.rows, columns)
            self.buffers[name] = self.backend.empty(shape, dtype or self.dtype)
        return self.buffers[name][:n, :]

    def vector(self, name: tuple[Any, ...], size: int) -> Array:
        """A buffer that does not depend on the rows, (size,) in the storage's dtype."""
        if name not in self.buffers:
            self.buffers[name] = self.backend.empty((size,), self.storage)
        return self.buffers[name]


def add(xp: Any, x: Array, more: Array) -> Array:
    """One more term of a sum over sources or targets."""
    return x + more


def scaled(xp: Any, narrow: Array, delta: Array, scale: Array) -> Array:
    """Deltas on their way into float16."""
    return delta * scale


def unscaled(xp: Any, g: Array, scale: Array) -> Array:
    """The gradient of deltas that were scaled."""
    return g / scale


class Pass:
    """Forward and backward on n rows: the arrays of eq. (1)-(6), and the calls that fill them.

    ``a[0]`` is the input buffer, ``z[L]`` holds the last product, without bias, after `forward`;
    whoever holds the loss turns it into δ_L in place (eq. 3) before `backward`. ``masks[l]`` is to
    be filled with 0 or 1/(1 - dropout) before each run where layer l has dropout.

    With mixed precision the products read a copy of the weights in the storage's dtype, and δ_L
    goes there multiplied by ``scale``, since small deltas would vanish in float16; the gradient is
    divided by it (Micikevicius et al., arXiv:1710.03740, sections 3.1 and 3.2).
    """

    def __init__(self, network: Network, tape: Tape, arena: Arena, n: int, w: Array):
        self.network, self.tape, self.n = network, tape, n
        self.mixed = arena.storage != arena.dtype
        self.W, self.b = network.unpack(w)
        if self.mixed:
            self._read_weights_from(arena.vector(("w",), network.parameters), w)
        last = network.depth

        def buffer(name: str, l: int) -> Array:
            # The outputs, and what is added to them, are numbers of the loss; masks are exact.
            wide = name == "mask" or (l == last and name != "delta")
            dtype = arena.dtype if wide else arena.storage
            return arena.get((name, l), n, network.units[l], dtype)

        self.buffer = buffer
        self.z = {l: self.buffer("z", l) for l in network.numbers()}
        self.a: dict[int, Array] = {0: self.buffer("a", 0)}  # what f gave
        self.h: dict[int, Array] = dict(self.a)  # what feeds the next layers: a, after dropout
        self.delta: dict[int, Array] = {}
        self.masks: dict[int, Array] = {}

    def _read_weights_from(self, narrow: Array, w: Array) -> None:
        """Let the products read a copy of the weights, made anew in each run."""
        weights = slice(0, self.network.weights)
        self.tape.copy(w[weights], narrow[weights])
        self.W, _ = self.network.unpack(narrow)

    def forward(self, dropout: bool = False) -> None:
        """Eq. (1) and (2), up to the last layer's product."""
        last = self.network.depth
        for l in self.network.numbers():
            for i, k in enumerate(self.network.sources[l]):
                self._sum(i, self.h[k], self.W[k, l], self.z[l], l)  # (1)
            if l < last:
                self._activate(l)  # (2)
                rate = self.network.layer(l).dropout
                self.h[l] = self._drop(l) if dropout and rate else self.a[l]

    def backward(self, g: Array, scale: Array | None = None) -> None:
        """Eq. (4), (5) and (6), from δ_L in z[L]; the gradient goes into g.

        scale: (1,), by which the deltas are multiplied where the precision is mixed.
        """
        network, tape = self.network, self.tape
        gW, gb = network.unpack(g)
        self.delta[network.depth] = self.z[network.depth]
        if self.mixed:
            self.delta[network.depth] = self.buffer("delta", network.depth)
            tape.apply(scaled, ("narrow",), self.delta[network.depth], self.z[network.depth], scale)
        terms = dict.fromkeys(network.numbers(), 0)
        for l in reversed(network.numbers()):
            if l < network.depth:
                self._chain_rule(l)  # (4), f'ᵀ
            for k in network.sources[l]:
                tape.product(self.h[k].T, self.delta[l], gW[k, l])  # (5)
                if k > 0:
                    self.delta[k] = self.buffer("delta", k)
                    self._sum(terms[k], self.delta[l], self.W[k, l].T, self.delta[k], k)  # (4), Σ
                    terms[k] += 1
            if l in gb:
                tape.total(self.delta[l], gb[l])  # (6)
        if self.mixed:
            tape.apply(unscaled, ("g",), g, scale)

    def _sum(self, term: int, a: Array, b: Array, out: Array, l: int) -> None:
        """out <- a b for the first term of a sum, out <- out + a b for the others."""
        if term == 0:
            self.tape.product(a, b, out)
        else:
            part = self.buffer("part", l)
            self.tape.product(a, b, part)
            self.tape.apply(add, ("x",), out, part)

    def _activate(self, l: int) -> None:
        """a <- f(z + b), over z where the derivative can do without it.

        A normalisation of z would stand here, between eq. (1) and (2): its own calls on the tape,
        then f of what it gives; its parameters would follow the biases in w.
        """
        f = self.network.activations[l].f
        z, b = self.z[l], [self.b[l]] if l in self.b else []

        def unit_with_bias(xp: Any, z: Array, b: Array) -> Array:
            return f(xp, z + b)

        def unit_keeping_z(xp: Any, a: Array, z: Array, b: Array) -> Any:
            z = z + b
            return f(xp, z), z

        def unit_of_kept_z(xp: Any, a: Array, z: Array) -> Array:
            return f(xp, z)

        def unit_without_bias(xp: Any, z: Array) -> Array:
            return f(xp, z)

        if _from_output(self.network.activations[l]):
            self.a[l] = z
            self.tape.apply(unit_with_bias if b else unit_without_bias, ("z",), z, *b)
        else:
            self.a[l] = self.buffer("a", l)
            formula, into = (unit_keeping_z, ("a", "z")) if b else (unit_of_kept_z, ("a",))
            self.tape.apply(formula, into, self.a[l], z, *b)

    def _drop(self, l: int) -> Array:
        """h <- a ⊙ mask."""

        def drop(xp: Any, h: Array, a: Array, mask: Array) -> Array:
            return a * mask

        h, self.masks[l] = self.buffer("h", l), self.buffer("mask", l)
        self.tape.apply(drop, ("h",), h, self.a[l], self.masks[l])
        return h

    def _chain_rule(self, l: int) -> None:
        """δ <- f'ᵀ(z) · v, with v = Σ δ_m W_lmᵀ already in δ's buffer."""
        df = self.network.activations[l].df

        def delta(xp: Any, v: Array, a: Array) -> Array:
            return df(xp, v, None, a)

        def delta_from_z(xp: Any, v: Array, a: Array, z: Array) -> Array:
            return df(xp, v, z, a)

        def delta_dropped(xp: Any, v: Array, a: Array, mask: Array) -> Array:
            return df(xp, v * mask, None, a)

        def delta_dropped_from_z(xp: Any, v: Array, a: Array, z: Array, mask: Array) -> Array:
            return df(xp, v * mask, z, a)

        mask = [self.masks[l]] if l in self.masks else []
        formula: Formula
        if _from_output(self.network.activations[l]):
            formula, z = (delta_dropped if mask else delta), []
        else:
            formula, z = (delta_dropped_from_z if mask else delta_from_z), [self.z[l]]
        self.tape.apply(formula, ("v",), self.delta[l], self.a[l], *z, *mask)


def _from_output(activation: Activation) -> bool:
    return getattr(activation, "from_output", False)


def dropout_masks(
    network: Network, n: int, seed: int, step: int
) -> Iterator[tuple[int, np.ndarray]]:
    """(l, mask) for each layer with dropout: (n, units) float32 on the host, 0 or 1/(1 - rate).

    A function of (seed, step), so that every backend and every resumed run sees the same masks.
    """
    rng = generator(seed, "dropout", step)
    for number in network.numbers():
        rate = network.layer(number).dropout
        if rate:
            kept = rng.random((n, network.units[number]), dtype=np.float32) >= rate
            yield number, kept.astype(np.float32) / np.float32(1.0 - rate)
