"""The forward pass and backpropagation.

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
"""

from collections.abc import Iterator
from typing import Any

import numpy as np

from backends import Array
from backends.formula import Formula
from mlp.formulas.activations import Activation
from mlp.layers.tape import Arena, Tape
from mlp.network.graph import Network
from mlp.seeds import generator


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
