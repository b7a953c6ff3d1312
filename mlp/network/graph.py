"""The network: which layer feeds which, and the layout of what they hold.

Layer 0 is the input; layers 1..L are what the user lists. ``sources[l]`` are the layers that feed
layer l (the one before, unless it says otherwise), ``targets[k]`` those that k feeds.

All parameters are one flat vector w, laid out by what the layers declare: by role in the order of
`mlp.layers.ROLES`, the weights first, and within a role layer after layer. The layers see reshaped
slices of it, and the gradient g has the same layout; so penalties, decay and factors on the rate,
which go by role, are kernels over runs of w. Statistics are one flat vector of their own.

>>> from mlp.layers import Dense
>>> net = Network(2, [Dense(3, "tanh"), Dense(1, "sigmoid", sources=(0, 1))])
>>> net.sources, net.parameters
({1: (0,), 2: (0, 1)}, 15)
>>> [(entry.describe(), entry.part.start) for entry in net.layout]
[('W[0, 1]', 0), ('W[0, 2]', 6), ('W[1, 2]', 8), ('b[1]', 11), ('b[2]', 14)]
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from numbers import Integral
from typing import Any

import numpy as np
from array_api_compat import array_namespace

from backends import Array
from mlp.errors import InputError, check_is, check_whole, did_you_mean, shown
from mlp.formulas.activations import Activation, Identity, check_activation, get_activation
from mlp.formulas.optimizers import Optimizer, OptimizerName
from mlp.layers.layer import ROLES, Layer, Parameter, Widths
from mlp.memory import megabytes
from mlp.seeds import generator

Key = int | tuple[int, int]  # a layer, or (source, layer)
MOST = 1 << 44  # parameters


@dataclass(frozen=True)
class Entry:
    """A parameter's place in w."""

    layer: int
    parameter: Parameter
    part: slice

    @property
    def key(self) -> Key:
        source = self.parameter.source
        return self.layer if source is None else (source, self.layer)

    def describe(self) -> str:
        key = self.key if isinstance(self.key, tuple) else (self.key,)
        return f"{self.parameter.name}[{', '.join(map(str, key))}]"


@dataclass(frozen=True)
class UpdatePart:
    """A part of w that is updated alike: factors on its learning rate and on its decay, and the
    shape, if it is a matrix of its own."""

    part: slice
    rate: float
    decay: float
    shape: tuple[int, int] | None = None


def _names(key: Any, entry: Entry) -> bool:
    """Whether a key of factors names the parameter: its role, itself, or its layer."""
    text = key if isinstance(key, str) else shown(int(key) if isinstance(key, Integral) else key)
    name = text.replace(" ", "")
    return name in (entry.parameter.role, entry.describe().replace(" ", ""), str(entry.layer))


class Network:
    """The graph and the layout of its parameters; no weights and no backend of its own.

    inputs: number of input columns. layers: one or more, `mlp.Dense` or any `mlp.layers.Layer`; the
    last one is the output.

    Attributes: ``units[l]``, the columns of each layer's output (units[0] = inputs);
    ``members[l]``, its rows for each sample; ``sources``, ``targets``; ``layout`` (`Entry` for each
    parameter); ``weights`` and ``parameters``, the lengths of the weights' part and of the whole of
    w; ``statistics``, that of the vector of statistics.
    """

    def __init__(self, inputs: int, layers: Sequence[Layer]):
        check_whole("Network: inputs", inputs, 1)
        if not isinstance(layers, Sequence) or isinstance(layers, str):
            raise InputError(
                "Network: layers must be a list of them, as [Dense(3), Dense(1)], not "
                f"{shown(layers)}"
            )
        if not layers:
            raise InputError("Network: give at least one layer, the output: Dense(units)")
        for number, layer in enumerate(layers, start=1):
            if not isinstance(layer, Layer):
                cure = f": write Dense({shown(layer)})" if isinstance(layer, Integral) else ""
                raise InputError(
                    f"Network: layer {number} must be a Dense or another Layer, not "
                    f"{shown(layer)}{cure}"
                )
        self.inputs, self.layers = int(inputs), tuple(layers)
        self.depth = len(self.layers)
        self.sources = {number: self._sources_of(number) for number in self.numbers()}
        fed: dict[int, list[int]] = {k: [] for k in range(self.depth + 1)}
        for number, sources in self.sources.items():
            for k in sources:
                fed[k].append(number)
        self.targets = {k: tuple(numbers) for k, numbers in fed.items()}
        for number in range(1, self.depth):
            if not self.targets[number]:
                raise InputError(
                    f"layer {number} feeds no other layer; name it in the sources of a later one"
                )
        self.drawing = {
            number: self.layer(number)
            for number in self.numbers()
            if self.layer(number).strengths(1.0)
        }
        if self.depth in self.drawing:
            raise InputError(
                "the last layer is the output: its dropout must be 0, and no noise is added to it"
            )
        units, members = [self.inputs], [1]
        for number in self.numbers():
            layer, sources = self.layer(number), self.sources[number]
            try:
                units.append(int(layer.width({k: units[k] for k in sources})))
                members.append(int(layer.members({k: members[k] for k in sources})))
            except InputError as error:
                raise InputError(f"layer {number}: {error}") from error
        self.units, self.members = tuple(units), tuple(members)
        self._lay_out()

    def _sources_of(self, number: int) -> tuple[int, ...]:
        sources = self.layer(number).sources
        if sources is None:
            return (number - 1,)
        if not sources or len(set(sources)) < len(sources):
            raise InputError(f"layer {number}: sources {shown(sources)} must name each layer once")
        for k in sources:
            if not 0 <= k < number:
                raise InputError(
                    f"layer {number}: source {shown(k)} is not a layer before it; 0 (the input) to "
                    f"{number - 1} are"
                )
        return tuple(sorted(sources))

    def _activation_of(self, number: int) -> Activation:
        return get_activation(getattr(self.layer(number), "activation", Identity()))

    def _lay_out(self) -> None:
        """Every layer's parameters and statistics get their places."""
        declared: list[tuple[int, Parameter]] = []
        self.statistics, self.statistic_layout = 0, []
        for number in self.numbers():
            inputs = Widths(self.widths_into(number))
            inputs.members = {k: self.members[k] for k in inputs}
            check_activation(getattr(self.layer(number), "activation", "identity"))
            for parameter in self.layer(number).parameters(inputs):
                if parameter.role not in ROLES:
                    raise InputError(
                        f"layer {number}: parameter {shown(parameter.name)} has the role "
                        f"{shown(parameter.role)}, which is none of {', '.join(ROLES)}"
                    )
                declared.append((number, parameter))
            for statistic in self.layer(number).statistics(inputs):
                end = self.statistics + math.prod(statistic.shape)
                self.statistic_layout.append((number, statistic, slice(self.statistics, end)))
                self.statistics = end
        roles = list(ROLES)
        declared.sort(key=lambda entry: roles.index(entry[1].role))  # stable: layer after layer
        self.layout: list[Entry] = []
        self.parameters = self.weights = 0
        for number, parameter in declared:
            end = self.parameters + math.prod(parameter.shape)
            self.layout.append(Entry(number, parameter, slice(self.parameters, end)))
            self.parameters = end
            if parameter.role == "weight":
                self.weights = end
        if self.parameters > MOST:
            raise InputError(
                f"Network: it would have {self.parameters:.3g} parameters, more than any machine "
                "holds; use layers of fewer units"
            )

    def widths_into(self, number: int) -> dict[int, int]:
        """The columns of each source of a layer."""
        return {k: self.units[k] for k in self.sources[number]}

    def numbers(self) -> range:
        """The numbers of the layers, 1..L."""
        return range(1, self.depth + 1)

    def layer(self, number: int) -> Layer:
        """Layer l, counted from 1."""
        return self.layers[number - 1]

    @property
    def outputs(self) -> int:
        """Units of the last layer."""
        return self.units[-1]

    @property
    def activations(self) -> dict[int, Activation]:
        """f_l of each layer; the identity where a layer has none."""
        return {number: self._activation_of(number) for number in self.numbers()}

    def __reduce__(self) -> Any:
        """Pickled as what it was made of."""
        return Network, (self.inputs, self.layers)

    def __repr__(self) -> str:
        layers = ", ".join(f"{n} {self.layer(n).label}" for n in self.numbers())
        return f"Network({'-'.join(map(str, self.units))}: {layers}; {self.parameters} parameters)"

    # ------------------------------------------------------------------ parameters

    def initial_weights(self, seed: int | np.random.Generator = 0) -> np.ndarray:
        """A fresh w, (parameters,) float64 on the host: drawn by each layer's initializer in the
        order of the layout, biases zero. One seed is one w, whatever the backend."""
        if isinstance(seed, np.random.Generator):
            rng = seed
        elif isinstance(seed, (int, np.integer)) and seed >= 0:
            rng = generator(int(seed), "weights")
        else:
            raise InputError(f"seed must be a whole number from 0 on, not {shown(seed)}")
        w = np.zeros(self.parameters)
        for entry in self.layout:
            start = entry.parameter.start
            w[entry.part] = _drawn(entry, start(rng)) if callable(start) else start
        return w

    def initial_statistics(self) -> np.ndarray:
        """What the statistics start from, (statistics,) float64 on the host."""
        found = np.zeros(self.statistics)
        for _, statistic, part in self.statistic_layout:
            found[part] = statistic.start
        return found

    def views(self, w: Array) -> dict[str, dict[Any, Array]]:
        """{name: {l or (k, l): a reshaped slice of w}} for all parameters.

        They are views: writing into them writes into w, which may be weights or a gradient.

        >>> from mlp.layers import Dense
        >>> net = Network(2, [Dense(3), Dense(1)])
        >>> views = net.views(np.arange(13.0))
        >>> list(views), views["W"][1, 2].shape, views["b"][2]
        (['W', 'b'], (3, 1), array([12.]))
        """
        shape = getattr(w, "shape", None)
        if shape != (self.parameters,):
            raise InputError(f"w has shape {shape}, this network has {self.parameters} parameters")
        xp = array_namespace(w)
        found: dict[str, dict[Any, Array]] = {}
        for entry in self.layout:
            view = xp.reshape(w[entry.part], entry.parameter.shape)
            found.setdefault(entry.parameter.name, {})[entry.key] = view
        return found

    def unpack(self, w: Array) -> tuple[dict[tuple[int, int], Array], dict[int, Array]]:
        """(W, b) of the dense layers: W[k, l] of shape (units_k, units_l) and b[l] of shape
        (units_l,), views of w; `views` has all parameters.

        >>> from mlp.layers import Dense
        >>> net = Network(2, [Dense(3), Dense(1)])
        >>> W, b = net.unpack(np.arange(13.0))
        >>> W[1, 2].shape, b[2]
        ((3, 1), array([12.]))
        """
        views = self.views(w)
        return views.get("W", {}), views.get("b", {})

    def pack(
        self,
        W: Mapping[Any, Any],
        b: Mapping[Any, Any] | None = None,
        **others: Mapping[Any, Any],
    ) -> np.ndarray:
        """The flat w, float64 on the host, of weights W[k, l] and biases b[l] (missing: zero), and
        of other parameters by their name (missing: as they start, where that is a number)."""
        w = np.zeros(self.parameters)
        for entry in self.layout:
            start = entry.parameter.start
            w[entry.part] = 0.0 if callable(start) else start
        views, given = self.views(w), {"W": W, "b": b or {}, **others}
        for name, values in given.items():
            check_is(f"pack: {name}", values, Mapping)
            for key, value in values.items():
                view = views.get(name, {}).get(key)
                if view is None:
                    raise InputError(f"this network has no {name}[{key}]")
                value = np.asarray(value, dtype=float)
                if value.shape != view.shape:
                    raise InputError(
                        f"{name}[{key}] has shape {value.shape}, expected {view.shape}"
                    )
                view[...] = value
        missing = [key for key in views.get("W", {}) if key not in W]
        if missing:
            raise InputError(f"no weights given for W[{missing[0]}]")
        return w

    def slices(self, name: str) -> dict[Any, slice]:
        """{l or (k, l): its part of w} for the parameters of a name, as "W" or "b"."""
        return {e.key: e.part for e in self.layout if e.parameter.name == name}

    @property
    def weight_slices(self) -> dict[tuple[int, int], slice]:
        """W[k, l]'s parts of w."""
        return self.slices("W")

    @property
    def bias_slices(self) -> dict[int, slice]:
        """b[l]'s parts of w."""
        return self.slices("b")

    def describe(self, index: int) -> str:
        """Which parameter w[index] is, in words.

        >>> from mlp.layers import Dense
        >>> Network(2, [Dense(3)]).describe(4)
        'W[0, 1][1, 1]'
        """
        if not isinstance(index, Integral):
            raise InputError(f"describe: index must be a whole number, not {shown(index)}")
        for entry in self.layout:
            if entry.part.start <= index < entry.part.stop:
                place = np.unravel_index(index - entry.part.start, entry.parameter.shape)
                return f"{entry.describe()}[{', '.join(str(int(i)) for i in place)}]"
        raise InputError(f"parameter {index} of {self.parameters}")

    # ------------------------------------------------------------------ what layers ask for

    @cached_property  # asked for at every call of `predict`
    def codes(self) -> dict[int, int]:
        """The columns of the input that are read as whole numbers, from 0 on, and how many."""
        found: dict[int, int] = {}
        for layer in self.layers:
            for column, values in layer.codes.items():
                found[column] = min(values, found.get(column, values))
        return found

    def check_rows(self, n: int, what: str = "a batch") -> None:
        """InputError if a layer needs more rows to train on at once."""
        for number in self.numbers():
            layer = self.layer(number)
            if n < layer.least_rows:
                raise InputError(
                    f"layer {number}, {layer.label}, takes the mean over a batch: it needs "
                    f"{layer.least_rows} rows or more, {what} has {n}"
                )

    # ------------------------------------------------------------------ what goes by role

    def penalties(self) -> list[tuple[slice, float, float]]:
        """(part of w, l1, l2) for each run of parameters with the same penalties, none left out
        that has one."""
        return [
            (part, l1, l2)
            for part, (l1, l2) in self._runs(lambda entry: _penalties_of(self, entry))
            if l1 or l2
        ]

    def constraints(self) -> dict[int, tuple[float, list[Entry]]]:
        """{layer: (max_norm, its weights)} of each layer that has one."""
        found = {}
        for number in self.numbers():
            most = getattr(self.layer(number), "max_norm", None)
            if most is not None:
                own = [entry for entry in self.layout if entry.layer == number]
                found[number] = float(most), [e for e in own if e.parameter.role == "weight"]
        return found

    def update_parts(
        self,
        decays: bool,
        rate_factors: Mapping[Any, Any],
        decay_factors: Mapping[Any, Any] | None = None,
        matrices: bool = False,
    ) -> "list[UpdatePart]":
        """The runs of w that are updated alike; what is frozen is left out.

        decays: whether the rule decays weights. Factors by role ("bias"), parameter ("W[1, 2]") or
        number of a layer; one that is named several times has their product. "ntk" is 1/√d of the
        rate and √d of the decay for weights of a layer with d inputs. What decay_factors do not
        name has 1, if its role is decayed, else 0. matrices: whether each `hidden_matrix` is a part
        of its own. InputError for a factor on what is not there, and if everything is frozen.
        """
        decay_factors = decay_factors or {}
        for name, given in (("rate_factors", rate_factors), ("decay_factors", decay_factors)):
            self._check_named(name, given)

        def treated(entry: Entry) -> tuple[float, float, Any]:
            rate = self._factor(entry, rate_factors, -0.5)
            decay = self._factor(entry, decay_factors, 0.5)
            if decay is None:
                decay = float(ROLES[entry.parameter.role].decayed)
            matrix = entry if matrices and self.hidden_matrix(entry) else None
            return 1.0 if rate is None else rate, decay if decays else 0.0, matrix

        parts = [
            UpdatePart(part, rate, decay, matrix and matrix.parameter.shape)
            for part, (rate, decay, matrix) in self._runs(treated)
            if rate
        ]
        if not parts and self.parameters:
            raise InputError(
                "rate_factors freeze all parameters: leave some of them a factor above 0"
            )
        return parts

    @property
    def matrices(self) -> list[int]:
        """The size of each factor of products: with n rows, the multiply-adds of one are n times
        that."""
        weights = (e.parameter for e in self.layout if e.parameter.role == "weight")
        return [math.prod(parameter.shape) for parameter in weights]

    def hidden_matrix(self, entry: Entry) -> bool:
        """Whether it is a matrix of weights between hidden layers."""
        parameter, inside = entry.parameter, entry.layer < self.depth and entry.parameter.source
        return bool(parameter.role == "weight" and len(parameter.shape) == 2 and inside)

    def _check_named(self, what: str, factors: Mapping[Any, Any]) -> None:
        for key in factors:
            if not any(_names(key, entry) for entry in self.layout):
                there = {entry.parameter.role for entry in self.layout}
                known = sorted({*there, *(entry.describe() for entry in self.layout)})
                raise InputError(
                    f"{what}: this network has no parameters {shown(key)}{did_you_mean(key, known)}"
                )

    def _factor(self, entry: Entry, factors: Mapping[Any, Any], power: float) -> float | None:
        """The product of the factors that name it; None if none does."""
        given = [factor for key, factor in factors.items() if _names(key, entry)]
        for i, factor in enumerate(given):
            if factor == "ntk":
                if entry.parameter.role != "weight":
                    raise InputError(f"the factor 'ntk' is for weights, not {entry.describe()}")
                given[i] = sum(self.widths_into(entry.layer).values()) ** power
        return float(math.prod(given)) if given else None

    def _runs(self, of: Any) -> list[tuple[slice, Any]]:
        """The longest parts of w for whose entries ``of`` gives the same."""
        found: list[tuple[slice, Any]] = []
        for entry in self.layout:
            part, value = entry.part, of(entry)
            if found and found[-1][1] == value:
                part = slice(found.pop()[0].start, part.stop)
            found.append((part, value))
        return found

    def summary(
        self,
        batch_size: int | None = None,
        precision: str = "float32",
        optimizer: OptimizerName | Mapping[str, Any] | Optimizer = "adam",
    ) -> str:
        """The layers as a table; with a batch_size, also the memory that a step of training takes.

        That is what the network alone knows of. The data, the loss and what is measured come to it:
        `mlp.plan` has it all, for a model on its backend.

        >>> from mlp.layers import Dense
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
            parts = [entry.part for entry in self.layout if entry.layer == number]
            count = sum(part.stop - part.start for part in parts)
            origin = ",".join(str(k) for k in self.sources[number])
            lines.append(
                f"{number:>5} {self.units[number]:>7}  {self.layer(number).label:<12} {origin:>7} "
                f"{count:>11}"
            )
        lines.append(f"{'total':>5} {'':>7}  {'':<12} {'':>7} {self.parameters:>11}")
        if batch_size is not None:
            # The one import upwards (see tests/test_architecture.py): what a step holds is written
            # once, where steps are made, and people ask for it here.
            from mlp.training.setup import step_memory

            memory = step_memory(self, batch_size, precision, optimizer)
            listed = ", ".join(f"{name} {megabytes(size)}" for name, size in memory.items())
            lines.append(f"memory of a step on {batch_size} rows: {listed}")
        return "\n".join(line.rstrip() for line in lines)


def _drawn(entry: Entry, values: Any) -> np.ndarray:
    """What an initializer gave, (size,); InputError if it is of another shape."""
    if np.shape(values) != entry.parameter.shape:
        raise InputError(
            f"the initializer of {entry.describe()} gives shape {np.shape(values)}, expected "
            f"{entry.parameter.shape}"
        )
    return np.reshape(values, -1)


def _penalties_of(network: Network, entry: Entry) -> tuple[float, float]:
    layer = network.layer(entry.layer)
    if not ROLES[entry.parameter.role].penalised:
        return 0.0, 0.0
    return float(getattr(layer, "l1", 0.0)), float(getattr(layer, "l2", 0.0))
