"""Units of several members: nets side by side, on adapters of shared weights or on their own.

Member m of M reads x_m, its own rows or those that all share. With adapters r, s and biases c of
its own, and weights W that all share,

    z_m = ((x_m ⊙ r_m) W) ⊙ s_m + c_m        a_m = f(z_m)                                   (1)

and back, with δ_m = f'ᵀ(z_m) Δ_m, u_m = x_m ⊙ r_m, v_m = u_m W and d_m = δ_m ⊙ s_m,

    ∂E/∂c_m = Σ δ_m        ∂E/∂s_m = Σ δ_m ⊙ v_m        ∂E/∂W = Σ_m u_mᵀ d_m                (2)
    e_m = d_m Wᵀ           ∂E/∂r_m = Σ e_m ⊙ x_m        ∂E/∂x_m = e_m ⊙ r_m                 (3)

Without adapters each member has weights of its own,

    z_m = x_m W_m + c_m    ∂E/∂W_m = x_mᵀ δ_m           ∂E/∂x_m = δ_m W_mᵀ                  (4)

A sample's members are rows next to each other, so that a number for each member and unit is a row
of (samples, M · units), and the products of (1) are one; those of (4) are a stack, one call. What
feeds all members gets the sum of theirs.

Sources: Wen et al., arXiv:2002.06715, eq. 1 (BatchEnsemble); Gorishniy et al., arXiv:2410.24210,
section 3 (TabM): signs at random in the first layer, every other r and s 1.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from array_api_compat import array_namespace

from backends import Array
from mlp.errors import InputError, check_switch, check_whole, shown
from mlp.formulas.activations import Activation, ActivationName, get_activation, learned
from mlp.formulas.initializers import Initializer, InitializerName, get_initializer
from mlp.layers.layer import (
    Layer,
    Parameter,
    Place,
    Widths,
    check_penalties,
    check_sources,
)
from mlp.layers.tape import add, times


@dataclass(frozen=True)
class Ensemble(Layer):
    """A layer of units of several members, whose mean the network predicts.

    units: of each member. count: how many members; None is as many as its sources have. adapters:
    whether members share their weights and have factors of their own (BatchEnsemble, TabM), else
    each has its own weights. The loss is the mean over rows and members of each member's loss;
    `predict` gives the mean of their predictions, ``predict(X, members=True)`` each one's. What is
    no ensemble, behind one, is shared by its members. activation, sources, bias, l1, l2 and
    initializer: as of `Dense`. Factors have the role "adapter".

    TabM has one head for each member:

    >>> import numpy as np
    >>> from mlp import Ensemble, Model, Network
    >>> net = Network(3, [Ensemble(16, 4, "relu"), Ensemble(16, activation="relu"),
    ...                   Ensemble(1, adapters=False)])
    >>> model = Model(net, "mean_squared_error")
    >>> model.predict(np.ones((5, 3)), members=True).shape
    (5, 4, 1)
    """

    units: int
    count: int | None = None
    activation: ActivationName | Mapping[str, Any] | Activation = "identity"
    adapters: bool = True
    sources: tuple[int, ...] | None = None
    bias: bool = True
    l1: float = 0.0
    l2: float = 0.0
    initializer: InitializerName | Mapping[str, Any] | Initializer = "auto"

    def __post_init__(self) -> None:
        check_whole("Ensemble: units", self.units, 1)
        if self.count is not None:
            check_whole("Ensemble: count", self.count, 2)
        check_penalties("Ensemble", self.l1, self.l2)
        for name in ("adapters", "bias"):
            check_switch(f"Ensemble: {name}", getattr(self, name))
        if learned(get_activation(self.activation), 1):
            raise InputError(
                f"Ensemble: the activation {shown(self.activation)} learns; put it behind, in a "
                "layer of its own"
            )
        object.__setattr__(self, "sources", check_sources("Ensemble", self.sources))

    # ------------------------------------------------------------------ what it holds

    def width(self, inputs: Mapping[int, int]) -> int:
        return self.units

    def members(self, inputs: Mapping[int, int]) -> int:
        found = {*inputs.values()} - {1}
        if self.count is not None:
            found.add(self.count)
        if not found:
            raise InputError("ensemble: say how many members it has, as count = 8")
        if len(found) > 1:
            listed = ", ".join(f"{m} of layer {k}" for k, m in inputs.items())
            raise InputError(f"ensemble: it has {self.count} members, its sources {listed}")
        return found.pop()

    def parameters(self, inputs: Mapping[int, int]) -> Iterator[Parameter]:
        """W[k, l], (units_k, units), or (M, units_k, units) without adapters, and r[k, l], (M,
        units_k), for each source k; s[l] and c[l], (M, units)."""
        assert isinstance(inputs, Widths)
        count, fan_in = self.members(inputs.members), sum(inputs.values())
        draw = get_initializer(self.initializer, self.activation)
        for k, width in inputs.items():
            one = (width, self.units)
            shape = one if self.adapters else (count, *one)

            def start(
                rng: np.random.Generator,
                one: tuple[int, int] = one,
                shape: tuple[int, ...] = shape,
            ) -> np.ndarray:
                each = [draw(rng, fan_in, self.units, one) for _ in range(math.prod(shape[:-2]))]
                return np.reshape(each, shape)

            def signs(rng: np.random.Generator, width: int = width) -> np.ndarray:
                return rng.choice([-1.0, 1.0], (count, width))

            yield Parameter("W", shape, "weight", start, source=k)
            if self.adapters:
                first = signs if inputs.members[k] == 1 else 1.0
                yield Parameter("r", (count, width), "adapter", first, source=k)
        if self.adapters:
            yield Parameter("s", (count, self.units), "adapter", 1.0)
        if self.bias:
            yield Parameter("c", (count, self.units), "bias")

    # ------------------------------------------------------------------ its calls

    def forward(self, at: Place) -> None:
        """Eq. (1) or (4); of the last layer without the activation."""
        f, z = get_activation(self.activation), at.buffer("z")
        c = [_row(at.p["c"])] if self.bias else []
        s, added = [_row(at.p["s"])] if self.adapters else [], len(c)
        v = at.buffer("v") if self.adapters else z
        for term, (k, x) in enumerate(at.x.items()):
            out = at.buffer("part") if term else v
            if self.adapters:
                u, d = at.buffer(f"u {k}", x.shape[1], wide=False), x.shape[1]
                arrays = at.flat(u), at.flat(self._each(at, x, at.buffer(f"x {k}", d, wide=False)))
                at.tape.apply(times, (0,), *arrays, _row(at.p["r", k]))
                at.tape.product(u, at.p["W", k], out)
            else:
                at.tape.stack(at.stack(x), at.p["W", k], at.stack(out))
            if term:
                at.tape.apply(add, (0,), v, out)

        def affine(xp: Any, z: Array, v: Array, *rest: Array) -> Array:
            v = v * rest[0] if s else v
            return v + rest[-1] if added else v

        def activate(xp: Any, a: Array, z: Array, v: Array, *rest: Array) -> Any:
            z = affine(xp, z, v, *rest)
            return f.f(xp, z), z

        if at.last:
            at.y, at.ending = z, ()
            at.tape.apply(affine, (0,), *map(at.flat, (z, v)), *s, *c)
        else:
            at.y = at.buffer("a")
            at.tape.apply(activate, (0, 1), *map(at.flat, (at.y, z, v)), *s, *c)

    def backward(self, at: Place) -> None:
        """Eq. (2) and (3), or (4)."""
        f, delta = get_activation(self.activation), at.delta

        def chain(xp: Any, d: Array, z: Array, a: Array) -> Array:
            return f.df(xp, d, z, a)

        if not at.last:
            at.tape.apply(chain, (0,), delta, at.buffer("z"), at.y)
        if self.bias:
            at.tape.total_late(at.flat(delta), _row(at.g["c"]))
        if self.adapters:
            self._back(at)
            return
        for k, x in at.x.items():
            at.tape.stack(_turned(at.stack(x)), at.stack(delta), at.g["W", k])
        for k, out in at.back():
            e = out if self._own(at, out) else at.buffer(f"x {k}", out.shape[1], wide=False)
            at.tape.stack(at.stack(delta), _turned(at.p["W", k]), at.stack(e))
            self._gather(at, e, out)

    def _back(self, at: Place) -> None:
        delta, v, wide = at.delta, at.buffer("v"), at.buffer("wide", wide=True)
        at.tape.apply(times, (0,), wide, delta, v)
        at.tape.total_late(at.flat(wide), _row(at.g["s"]))
        d = at.buffer("d", wide=False)
        at.tape.apply(times, (0,), at.flat(d), at.flat(delta), _row(at.p["s"]))
        sent: dict[int, Array] = {}
        for k, x in at.x.items():
            u, width = at.buffer(f"u {k}", x.shape[1], wide=False), x.shape[1]
            at.tape.product(u.T, d, at.g["W", k])
            e, both = (
                at.buffer(f"e {k}", width, wide=False),
                at.buffer(f"wide {k}", width, wide=True),
            )
            at.tape.product(d, at.p["W", k].T, e)
            own = self._each(at, x, at.buffer(f"x {k}", width, wide=False), made=True)
            at.tape.apply(times, (0,), both, e, own)
            at.tape.total_late(at.flat(both), _row(at.g["r", k]))
            sent[k] = e
        for k, out in at.back():
            e = sent[k]
            at.tape.apply(times, (0,), at.flat(e), at.flat(e), _row(at.p["r", k]))
            self._gather(at, e, out)

    def _each(self, at: Place, x: Array, room: Array, made: bool = False) -> Array:
        """x with a row for each member; in that room, where all share theirs."""
        if self._own(at, x):
            return x
        if not made:
            copied_rows(at, x, room)
        return room

    def _own(self, at: Place, x: Array) -> bool:
        return x.shape[0] == at.n

    def _gather(self, at: Place, e: Array, out: Array) -> None:
        """out <- the members' derivatives e, or the sum of them where out is of what all share."""
        if self._own(at, out):
            if e is not out:
                at.tape.copy(e, out)
            return
        m = out.shape[1]
        for j in range(at.members):
            part = at.flat(e)[:, j * m : (j + 1) * m]
            at.tape.apply(add, (0,), out, part) if j else at.tape.copy(part, out)


def copied_rows(at: Place, x: Array, out: Array) -> None:
    """out (n, m) <- each row of x (samples, m) once for each member."""
    index = np.repeat(np.arange(at.samples), at.members)
    at.tape.take(x, at.tape.backend.asarray(index), out)


def _row(p: Array) -> Array:
    """(M, m) as (M · m,)."""
    return array_namespace(p).reshape(p, (-1,))


def _turned(x: Array) -> Array:
    """A stack of matrices, or one, transposed."""
    return x.T if x.ndim == 2 else array_namespace(x).permute_dims(x, (0, 2, 1))
