"""A dense layer: affine in each of its sources, an activation, dropout.

    z_l = Σ_{k in sources[l]} a_k W_kl + b_l                                              (1)
    a_l = f_l(z_l)                                                                        (2)

and, numbered as in `mlp.network.backpropagation`, with v_l the sum that arrives and δ_l = ∂E/∂z_l,

    δ_l = f_l'ᵀ(z_l) · v_l        v_k gets + δ_l W_klᵀ                                     (4)
    ∂E/∂W_kl = a_kᵀ δ_l                                                                   (5)
    ∂E/∂b_l  = Σ_rows δ_l                                                                 (6)

Sources: (1) 001 eq. 1, 004 z; (2) 002 eq. 2; (4) 000, 001 eq. 9, 002 eq. 5 and 9, 003 case 2, 004;
(5) 001 eq. 6 and 9, 002 eq. 6, 003 Δ_p w_tu = δ_t o_u; (6) 001 eq. 5 and 9.

What an activation learns (`mlp.formulas.activations` eq. 2) are parameters of the layer beside W
and b, of the role "slope"; their derivatives come from the kernel that makes δ.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any

from backends import Array
from mlp.errors import InputError, check_switch, check_whole, is_finite, shown
from mlp.formulas.activations import (
    Activation,
    ActivationName,
    Learning,
    get_activation,
    learned,
    meant_before,
)
from mlp.formulas.initializers import Initializer, InitializerName, get_initializer
from mlp.layers.affine import affine_parameters, products, products_back
from mlp.layers.dropout import check_rate, drop, strengths
from mlp.layers.layer import (
    Layer,
    Parameter,
    Place,
    check_penalties,
    check_sources,
    label_of,
    slopes,
)


@dataclass(frozen=True)
class Dense(Layer):
    """A layer of units, each connected to all units of its sources: affine, activation, dropout.

    units: number of units. activation: a name of `mlp.formulas.activations.ACTIVATIONS`, a mapping
    or an own object. sources: numbers of the layers that feed it, 0 the input; None is the layer
    before. bias: whether z has b added. dropout: share of units set to zero in training, see
    `mlp.layers.dropout`. l1, l2: the objective gets l1 Σ|W| + ½ l2 ΣW² for this layer's weights,
    never its biases. max_norm: after each update each unit's incoming weights, of all sources, are
    shortened to this norm where they are longer (`mlp.formulas.clipping` eq. 4). initializer: a
    name of `mlp.formulas.initializers.INITIALIZERS`, "auto" (He for rectifiers, else Glorot), a
    mapping, or a function.
    """

    units: int
    activation: ActivationName | Mapping[str, Any] | Activation | Learning = "identity"
    sources: tuple[int, ...] | None = None
    bias: bool = True
    dropout: float = 0.0
    l1: float = 0.0
    l2: float = 0.0
    initializer: InitializerName | Mapping[str, Any] | Initializer = "auto"
    max_norm: float | None = None

    by_products = True

    def __post_init__(self) -> None:
        check_whole("Dense: units", self.units, 1)
        check_rate(self.dropout, "Dense: dropout")
        check_penalties("Dense", self.l1, self.l2)
        check_switch("Dense: bias", self.bias)
        if self.max_norm is not None and not (is_finite(self.max_norm) and self.max_norm > 0):
            raise InputError(f"Dense: max_norm must be above 0, not {shown(self.max_norm)}")
        object.__setattr__(self, "units", int(self.units))
        object.__setattr__(self, "sources", check_sources("Dense", self.sources))

    def __reduce__(self) -> Any:
        """Pickled as what it was made of."""
        return Dense, tuple(getattr(self, field.name) for field in fields(self))

    def __setstate__(self, state: dict[str, Any]) -> None:
        """From a pickle of when the activation "gelu" was its tanh form."""
        self.__dict__.update(state, activation=meant_before(state["activation"]))

    # ------------------------------------------------------------------ what it holds

    def width(self, inputs: Mapping[int, int]) -> int:
        return self.units

    def parameters(self, inputs: Mapping[int, int]) -> Iterator[Parameter]:
        """W[k, l], (units_k, units_l) for each source k, b[l], (units_l,), and what the activation
        learns, by its names."""
        draw = get_initializer(self.initializer, self.activation)
        yield from affine_parameters(inputs, self.units, draw, self.bias)
        yield from slopes(self.activation, self.units)

    def _learned(self) -> dict[str, tuple[int, float]]:
        return learned(get_activation(self.activation), self.units)

    def strengths(self, factor: float) -> tuple[float, ...]:
        return strengths(factor * self.dropout) if self.dropout else ()

    @property
    def label(self) -> str:
        return label_of(self.activation)

    # ------------------------------------------------------------------ its calls

    def forward(self, at: Place) -> None:
        """Eq. (1) and (2); of the last layer the products alone."""
        z, b = at.buffer("z"), [at.p["b"]] if self.bias else []
        products(at, z)  # (1)
        if at.last:
            at.y, at.ending = z, tuple(b)
            return
        f, from_output = _unit(self.activation)
        p = [at.p[name] for name in self._learned()]
        drawn = at.draw() if at.training and self.dropout else ()
        # Where activations are narrow, what is left of one is that of what was stored.
        inside = drawn if at.arena.storage == at.arena.dtype else ()
        keeps = not from_output or at.keeps  # z; else a goes over it
        written = [z]
        if keeps:
            written.insert(0, at.buffer("a"))
        if inside:
            written.insert(0, at.buffer("h"))
        count, added, own = len(written), len(b), len(b) + len(p)

        def activate(xp: Any, *arrays: Array) -> Any:
            z, rest = arrays[count - 1], arrays[count:]
            z = shifted(z, *rest[:added])
            a = f.f(xp, z, *rest[added:own])  # (2)
            left = (drop(xp, a, a, *rest[own:]),) if inside else ()
            return (*left, a, z) if keeps and added else (*left, a)

        results = count if added or not keeps else count - 1
        at.tape.apply(activate, tuple(range(results)), *written, *b, *p, *inside)
        at.y = written[0]
        if drawn and not inside:
            at.y = at.buffer("h")
            at.tape.apply(drop, (0,), at.y, written[0], *drawn)

    def backward(self, at: Place) -> None:
        """Eq. (4), (5) and (6); of the last layer Δ is δ already, by the objective's kernel."""
        if not at.last:
            self._chain_rule(at)
        products_back(at, at.delta)  # (5), (4), (6)

    def _chain_rule(self, at: Place) -> None:
        """δ <- f'ᵀ(z) · (v ⊙ m), over v, with the mask m of dropout; and the derivatives by what f
        learns."""
        f, from_output = _unit(self.activation)
        z = at.buffer("z")
        a = z if from_output and not at.keeps else at.buffer("a")

        def delta(xp: Any, v: Array, a: Array, *drawn: Array) -> Array:
            return f.df(xp, dropped(xp, v, *drawn), None, a)  # z is not read

        names, count = list(self._learned()), len(at.drawn)
        p, first = [at.p[name] for name in names], 3 + count + len(names)
        terms = [at.buffer(name) for name in names]  # of ∂E/∂p, one for each row and unit

        def delta_from_z(xp: Any, v: Array, a: Array, z: Array, *rest: Array) -> Any:
            v, p = dropped(xp, v, *rest[:count]), rest[count : count + len(names)]
            return (f.df(xp, v, z, a, *p), *(f.dp(xp, v, z, *p) if p else ()))

        if from_output:
            at.tape.apply(delta, (0,), at.delta, a, *at.drawn)
            return
        into = (0, *range(first, first + len(terms)))
        at.tape.apply(delta_from_z, into, at.delta, a, z, *at.drawn, *p, *terms)
        for name, term in zip(names, terms, strict=True):
            at.sum_into(at.g[name], term)


def _unit(activation: Any) -> tuple[Any, bool]:
    """The activation, and whether its derivatives are found from its output alone."""
    made = get_activation(activation)
    return made, getattr(made, "from_output", False) and not hasattr(made, "learned")


def shifted(z: Array, *b: Array) -> Array:
    """z, with the bias where there is one."""
    return z + b[0] if b else z


def dropped(xp: Any, v: Array, *drawn: Array) -> Array:
    """v, of what was not dropped where something was."""
    return drop(xp, v, v, *drawn) if drawn else v
