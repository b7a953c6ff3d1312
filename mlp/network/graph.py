"""The network: which layer feeds which, and the layout of the parameters.

All parameters are one flat vector w, the weights of layer 1, 2, ... first, then the biases; the
layers are reshaped slices of it, and the gradient g has the same layout.

>>> net = Network(2, [Dense(3, "tanh"), Dense(1, "sigmoid", sources=(0, 1))])
>>> net.sources, net.parameters
({1: (0,), 2: (0, 1)}, 15)
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from backends import Array
from backends.counting_backend import Count, shaped
from mlp.errors import InputError, check_whole
from mlp.formulas.activations import get_activation
from mlp.formulas.initializers import get_initializer
from mlp.formulas.optimizers import OPTIMIZERS, Optimizer
from mlp.layers.dense import Dense
from mlp.layers.tape import Arena, Tape, check_precision
from mlp.memory import megabytes
from mlp.names import make
from mlp.seeds import generator


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
        from mlp.network.backpropagation import Pass

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
