"""Forward and backward through the graph.

Rows of every array are samples. With a_0 = X, for the layers l = 1..L

    z_l = Σ_{k in sources[l]} a_k W_kl + b_l                                              (1)
    a_l = f_l(z_l)                                                                        (2)

and, with δ_l = ∂E/∂z_l, from the last layer to the first,

    δ_L = f_L'ᵀ(z_L) · ∂E/∂y                                                              (3)
    δ_l = f_l'ᵀ(z_l) · Σ_{m in targets[l]} δ_m W_lmᵀ                                      (4)
    ∂E/∂W_kl = a_kᵀ δ_l                                                                   (5)
    ∂E/∂b_l  = Σ_rows δ_l                                                                 (6)

In plain NumPy, on a net with a skip from its input to its output, E = ½ Σ (y - t)²:

>>> import mlp, numpy as np
>>> rng = np.random.default_rng(0)
>>> X, t = rng.normal(size=(5, 3)), rng.normal(size=(5, 2))
>>> net = mlp.Network(3, [mlp.Dense(4, "tanh"), mlp.Dense(2, "tanh", sources=(0, 1))])
>>> model = mlp.Model(net, "half_squared_error", dtype="float64")
>>> W, b, sources = model.W, model.b, net.sources
>>> z, a, δ, dW, db, v = {}, {0: X}, {}, {}, {}, {1: 0.0}
>>> for l in (1, 2):
...     z[l] = sum(a[k] @ W[k, l] for k in sources[l]) + b[l]       # (1)
...     a[l] = np.tanh(z[l])                                        # (2)
>>> v[2] = a[2] - t                                                 # ∂E/∂y
>>> for l in (2, 1):
...     δ[l] = (1 - np.tanh(z[l]) ** 2) * v[l]                      # (3), (4)
...     for k in sources[l]:
...         dW[k, l] = a[k].T @ δ[l]                                # (5)
...         v[k] = v.get(k, 0.0) + δ[l] @ W[k, l].T                 # (4), the sum over targets
...     db[l] = δ[l].sum(axis=0)                                    # (6)
>>> E, g = model.value_and_gradient(X, t)
>>> bool(abs(g - net.pack(dW, db)).max() < 1e-12 and abs(E - ((a[2] - t) ** 2).sum() / 2) < 1e-12)
True

The library's lines are those: (1), (2), (4), (5) and (6) of a dense layer in `mlp.layers.dense`,
other layers' in theirs, (3) in `mlp.network.objective`, and here the order in which layers are
asked and the sum over targets. What differs is that nothing is computed here: the calls are written
down once, on fixed buffers, and run for every batch.

Where the equations stand in the derivations: (1) 001 eq. 1, 004 z; (2) 002 eq. 2; (3) 002 eq. 10,
003 case 1; (4) 000, 001 eq. 9, 002 eq. 5 and 9, 003 case 2 ("the deltas come from any units to
which the current unit is connected"), 004; (5) 001 eq. 6 and 9, 002 eq. 6, 003 Δ_p w_tu = δ_t o_u;
(6) 001 eq. 5 and 9. Here δ is ∂E/∂z, of the sign in 001, 002 and 004; 000 and 003 write minus that.
"""

from typing import Any

from backends import Array
from mlp.layers.layer import Place
from mlp.layers.noise import Noise
from mlp.layers.tape import Arena, Slot, Tape
from mlp.network.graph import Network


class Pass:
    """Forward and backward on n rows: a place for each layer, and the calls on the tape.

    ``places[l]`` is that of layer l, ``inputs`` (n, inputs) the buffer of X. After `forward`
    ``places[L].y`` is the output; whoever holds the loss sets ``places[L].delta`` before
    `backward`. What layers draw in training is ``arena.noise``'s.

    weights: of the samples, (n, 1), for layers that take the mean over a batch.

    slot: the first layers read X wherever it lies, if products alone read it (`Slot`). keeps: every
    quantity of eq. (1)-(4) has an array of its own. whole: the samples of the batch of which these
    n are a shard.

    With mixed precision the products read a copy of the weights in the storage's dtype, made anew
    in each run unless it is given: ``narrow`` (parameters,), which then follows w. δ_L goes there
    too; to float16 multiplied by ``scale``, since small deltas would vanish, and the
    gradient is divided by it (Micikevicius et al., arXiv:1710.03740, sections 3.1 and 3.2).
    bfloat16 has float32's range and needs none (Kalamkar et al., arXiv:1905.12322).
    """

    def __init__(
        self,
        network: Network,
        tape: Tape,
        arena: Arena,
        n: int,
        w: Array,
        statistics: Array | None = None,
        *,
        weights: Array | None = None,
        slot: bool = False,
        keeps: bool = False,
        whole: int | None = None,
        narrow: Array | None = None,
    ):
        self.network, self.tape, self.arena, self.n = network, tape, arena, n
        self.mixed = arena.storage != arena.dtype
        layers = network.layers
        integers = any(layer.integers for layer in layers)
        wide = arena.dtype if integers else arena.storage
        self.inputs = arena.get(("a", 0), n, network.inputs, wide)
        readers = [network.layer(m) for m in network.targets[0]]
        plain = slot and not integers and all(layer.by_products for layer in readers)
        self.slot = Slot(self.inputs) if plain else None
        x0: Any = self.slot or self.inputs
        if integers and self.mixed:
            x0 = arena.get(("a narrow", 0), n, network.inputs, arena.storage)
            tape.copy(self.inputs, x0)
        self.x: dict[int, Any] = {0: x0}
        p = self._parameters(w, narrow)
        s = self._statistics(statistics)
        self.places: dict[int, Place] = {}
        for l in network.numbers():
            self.places[l] = Place(
                tape=tape,
                arena=arena,
                number=l,
                samples=n,
                members=network.members[l],
                width=network.units[l],
                x={},
                p=p[l],
                s=s[l],
                behind={k: self.places[k] for k in network.sources[l] if k > 0},
                training=False,
                last=l == network.depth,
                whole=whole,
                keeps=keeps,
                wide_inputs=self.inputs if 0 in network.sources[l] else None,
                weights=weights,
            )

    def _parameters(self, w: Array, narrow: Array | None) -> dict[int, dict[Any, Array]]:
        """Each layer's parameters; the weights are a copy in the storage's dtype if that is
        narrow."""
        found = _by_layer(self.network, w)
        if self.mixed:
            if narrow is None:
                weights = slice(0, self.network.weights)
                narrow = self.arena.vector(("w",), w.shape[0])
                self.tape.copy(w[weights], narrow[weights])
            copied = _by_layer(self.network, narrow)
            for entry in self.network.layout:
                if entry.parameter.role == "weight":
                    key = _key(entry.parameter)
                    found[entry.layer][key] = copied[entry.layer][key]
        return found

    def _statistics(self, statistics: Array | None) -> dict[int, dict[str, Array]]:
        found: dict[int, dict[str, Array]] = {l: {} for l in self.network.numbers()}
        for l, statistic, part in self.network.statistic_layout:
            assert statistics is not None
            shape = statistic.shape
            found[l][statistic.name] = self.tape.backend.xp.reshape(statistics[part], shape)
        return found

    @property
    def last(self) -> Place:
        """The place of the output."""
        return self.places[self.network.depth]

    def forward(self, training: bool = False) -> None:
        """Eq. (1) and (2), layer after layer."""
        drawing = self.network.drawing
        if training and drawing and self.arena.noise is None:
            self.arena.noise = Noise(self.tape.backend, drawing, self.arena.dtype)
        for l, place in self.places.items():
            place.training = training
            place.x = {k: self.x[k] for k in self.network.sources[l]}
            self.network.layer(l).forward(place)
            self.x[l] = place.y

    def backward(self, g: Array, scale: Array | None = None, unscales: bool = True) -> None:
        """Eq. (4), (5) and (6), from the last layer's delta; the gradient goes into g.

        scale: (1,), by which the deltas are multiplied where they are float16. unscales: whether g
        is divided by it again; else that is left to who reads it.
        """
        last, tape = self.last, self.tape
        if self.mixed:
            wide, last.delta = last.delta, last.buffer("delta", wide=False)
            if scale is None:
                tape.copy(wide, last.delta)
            else:
                tape.apply(scaled, (0,), last.delta, wide, scale)
        parts = _by_layer(self.network, g)
        for l in reversed(self.places):
            self.places[l].g = parts[l]
            self.network.layer(l).backward(self.places[l])
        tape.end()  # (6)
        if scale is not None and unscales:
            tape.apply(unscaled, (0,), g, scale)


def _key(parameter: Any) -> Any:
    """What a place calls it."""
    name, source = parameter.name, parameter.source
    return name if source is None else (name, source)


def _by_layer(network: Network, w: Array) -> dict[int, dict[Any, Array]]:
    """{layer: {a place's name of a parameter: its view of w}}."""
    views = network.views(w)
    found: dict[int, dict[Any, Array]] = {l: {} for l in network.numbers()}
    for entry in network.layout:
        found[entry.layer][_key(entry.parameter)] = views[entry.parameter.name][entry.key]
    return found


def scaled(xp: Any, narrow: Array, delta: Array, scale: Array) -> Array:
    """Deltas on their way into float16."""
    return delta * scale


def unscaled(xp: Any, g: Array, scale: Array) -> Array:
    """The gradient of deltas that were scaled."""
    return g / scale
