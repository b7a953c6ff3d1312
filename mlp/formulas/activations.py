"""Activation functions: f and its vector-Jacobian product.

Each unit computes a = f(z) (derivation 001 above eq. 1, 002 eq. 2). Backpropagation needs only the
product of a row vector v with the derivative,

    df(v, z, a) = f'ᵀ(z) · v                                                              (1)

which for a function of one unit is v · f'(z), elementwise, and for softmax, whose outputs depend
on all units of the row, is the full Jacobian applied to v (derivation 002 eq. 10 writes the
elementwise product only, which does not hold for softmax).

Where f' can be written in terms of the unit's output a = f(z) (derivation 000: y(1-y) for the
sigmoid) the object says so with ``from_output = True`` and z need not be kept.

Formulas keep to the language of `backends.formula`; z, v, a are (n, units) arrays of one dtype and
so is the result. Your own activation is any object with these two methods; one with a name is a row
of `ACTIVATIONS` and of `ActivationName`:

>>> class Cube:
...     def f(self, xp, z):
...         return z * z * z
...     def df(self, xp, v, z, a):
...         return v * (3.0 * z * z)
>>> import numpy as np
>>> ACTIVATIONS["tanh"].df(np, v=np.ones(1), z=np.zeros(1), a=np.zeros(1))
array([1.])
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np

from backends import Array
from mlp.errors import InputError, check_takes
from mlp.formulas.output_units import sigmoid, softmax, softplus
from mlp.names import check_settings, make


class Activation(Protocol):
    """What the network asks of an activation.

    Optional attributes, False where they are missing: ``from_output`` (df needs no z) and
    ``rectifier`` (about half of its inputs pass, so "auto" draws its weights by He).
    """

    def f(self, xp: Any, z: Array) -> Array:
        """a = f(z), shape (n, units)."""

    def df(self, xp: Any, v: Array, z: Array, a: Array) -> Array:
        """v · f'(z), eq. (1); a = f(z) is passed so that it is not computed twice. An activation
        with ``from_output`` gets ``z=None`` and must not read it."""


@dataclass(frozen=True)
class Identity:
    """f(z) = z, f' = 1. Derivation 001 section 4 (the input layer), 002 (Gaussian outputs)."""

    from_output = True

    def f(self, xp: Any, z: Array) -> Array:
        return z

    def df(self, xp: Any, v: Array, z: Array, a: Array) -> Array:
        return v


@dataclass(frozen=True)
class Sigmoid:
    """f(z) = 1 / (1 + exp(-z)), f' = a (1 - a). Derivations 000 (the deltas), 001 section 3."""

    from_output = True

    def f(self, xp: Any, z: Array) -> Array:
        return sigmoid(xp, z)

    def df(self, xp: Any, v: Array, z: Array, a: Array) -> Array:
        return v * (a * (1.0 - a))


@dataclass(frozen=True)
class Tanh:
    """f(z) = tanh(z), f' = 1 - a²."""

    from_output = True

    def f(self, xp: Any, z: Array) -> Array:
        return xp.tanh(z)

    def df(self, xp: Any, v: Array, z: Array, a: Array) -> Array:
        return v * (1.0 - a * a)


@dataclass(frozen=True)
class Relu:
    """f(z) = max(z, 0), f' = 1 where z > 0, else 0 (also at 0)."""

    from_output = True
    rectifier = True

    def f(self, xp: Any, z: Array) -> Array:
        return xp.maximum(z, 0.0)

    def df(self, xp: Any, v: Array, z: Array, a: Array) -> Array:
        return xp.where(a > 0.0, v, 0.0)


@dataclass(frozen=True)
class LeakyRelu:
    """f(z) = z where z > 0, else slope · z; 0 < slope < 1."""

    slope: float = 0.01
    from_output = True
    rectifier = True

    def __post_init__(self) -> None:
        # From the output one can tell the sides only within this range.
        check_settings(self, "leaky_relu", slope="(0, 1)")

    def f(self, xp: Any, z: Array) -> Array:
        return xp.maximum(z, self.slope * z)

    def df(self, xp: Any, v: Array, z: Array, a: Array) -> Array:
        return xp.where(a > 0.0, v, self.slope * v)


@dataclass(frozen=True)
class Elu:
    """f(z) = z where z > 0, else alpha (exp(z) - 1); f' = 1, else a + alpha.

    Source: Clevert, Unterthiner, Hochreiter, arXiv:1511.07289, eq. (15).
    """

    alpha: float = 1.0
    from_output = True
    rectifier = True

    def __post_init__(self) -> None:
        check_settings(self, "elu", alpha="(0, inf)")

    def f(self, xp: Any, z: Array) -> Array:
        return xp.where(z > 0.0, z, self.alpha * xp.expm1(xp.minimum(z, 0.0)))

    def df(self, xp: Any, v: Array, z: Array, a: Array) -> Array:
        return v * xp.where(a > 0.0, 1.0, a + self.alpha)


@dataclass(frozen=True)
class Gelu:
    """f(z) = z (1 + tanh u) / 2, u = sqrt(2/π) (z + 0.044715 z³).

    The tanh form; the array standard has no erf. Beyond |z| = 10 it equals max(z, 0) in float64
    too, so u is computed from z held to that range and never overflows.

    Source: Hendrycks, Gimpel, arXiv:1606.08415, section 2.
    """

    rectifier = True

    def _inner(self, xp: Any, z: Array) -> tuple[Array, Array]:
        s = xp.minimum(xp.maximum(z, -10.0), 10.0)
        square = s * s
        scale = math.sqrt(2.0 / math.pi)
        u = scale * s * (1.0 + 0.044715 * square)
        du = scale * (1.0 + 3.0 * 0.044715 * square)
        return xp.tanh(u), s * du

    def f(self, xp: Any, z: Array) -> Array:
        th, _ = self._inner(xp, z)
        return 0.5 * z * (1.0 + th)

    def df(self, xp: Any, v: Array, z: Array, a: Array) -> Array:
        th, s_du = self._inner(xp, z)
        return v * (0.5 * (1.0 + th) + 0.5 * (1.0 - th * th) * s_du)


@dataclass(frozen=True)
class Silu:
    """f(z) = z σ(z), f' = σ + a (1 - σ).

    Source: Elfwing, Uchibe, Doya, arXiv:1702.03118, eq. (9)-(10).
    """

    rectifier = True

    def f(self, xp: Any, z: Array) -> Array:
        return z * sigmoid(xp, z)

    def df(self, xp: Any, v: Array, z: Array, a: Array) -> Array:
        sigma = sigmoid(xp, z)
        return v * (sigma + a * (1.0 - sigma))


@dataclass(frozen=True)
class Softplus:
    """f(z) = log(1 + exp(z)), f' = σ(z) = 1 - exp(-a)."""

    from_output = True
    rectifier = True

    def f(self, xp: Any, z: Array) -> Array:
        return softplus(xp, z)

    def df(self, xp: Any, v: Array, z: Array, a: Array) -> Array:
        return v * -xp.expm1(-a)


@dataclass(frozen=True)
class Exp:
    """f(z) = exp(z), f' = a: the unit of the Poisson loss. Infinite beyond the dtype's range."""

    from_output = True

    def f(self, xp: Any, z: Array) -> Array:
        return xp.exp(z)

    def df(self, xp: Any, v: Array, z: Array, a: Array) -> Array:
        return v * a


@dataclass(frozen=True)
class Softmax:
    """f(z)_k = exp(z_k) / Σ_j exp(z_j), over the units of a row.

    The Jacobian is ∂a_k/∂z_j = a_k (1[j=k] - a_j); applied to v it is a ⊙ (v - Σ_k v_k a_k), with
    no n x n matrix (derivation 002 eq. 10, with the note in its conventions).
    """

    from_output = True

    def f(self, xp: Any, z: Array) -> Array:
        return softmax(xp, z)

    def df(self, xp: Any, v: Array, z: Array, a: Array) -> Array:
        return a * (v - xp.sum(v * a, axis=1, keepdims=True))


ACTIVATIONS: dict[str, Activation] = {
    "identity": Identity(),
    "sigmoid": Sigmoid(),
    "tanh": Tanh(),
    "relu": Relu(),
    "leaky_relu": LeakyRelu(),
    "elu": Elu(),
    "gelu": Gelu(),
    "silu": Silu(),
    "softplus": Softplus(),
    "exp": Exp(),
    "softmax": Softmax(),
}
ActivationName = Literal[
    "identity",
    "sigmoid",
    "tanh",
    "relu",
    "leaky_relu",
    "elu",
    "gelu",
    "silu",
    "softplus",
    "exp",
    "softmax",
]


def check_activation(activation: str | Mapping[str, Any] | Activation) -> None:
    """InputError for what `get_activation` refuses, and for one of the user's own whose f or df
    does not take its arguments, fails, or gives another shape."""
    made = get_activation(activation)
    if type(made) in map(type, ACTIVATIONS.values()):
        return
    z = np.array([[-1.0, 0.25, 0.5], [0.75, 1.0, -0.5]])
    a = try_formula(made, "f", (np, z), "xp, z")
    try_formula(made, "df", (np, z, z, np.broadcast_to(a, z.shape)), "xp, v, z, a")


def try_formula(
    owner: Any, name: str, arguments: tuple[Any, ...], said: str, of_rows: bool = False
) -> Any:
    """What a formula of the user's own gives on arrays (2, 3): of their shape, or a number; one
    number a row, (2, 1), where it is ``of_rows``. InputError if it gives anything else, or fails.
    """
    what = f"{name} of {owner!r}"
    check_takes(what, getattr(owner, name), *said.split(", "))
    try:
        with np.errstate(all="ignore"):
            found = getattr(owner, name)(*arguments)
    except Exception as error:  # of the user's code, whatever it is
        raise InputError(f"{what} fails on arrays of shape (2, 3): {error}") from error
    shapes = [(2, 3), (2, 1)] if of_rows else [(2, 3), ()]
    if np.asarray(found).dtype.kind not in "fiu" or np.shape(found) not in shapes:
        raise InputError(
            f"{what} gives {found!r:.60} on arrays of shape (2, 3); it must give one of this shape"
        )
    return found


def get_activation(activation: str | Mapping[str, Any] | Activation) -> Activation:
    """The activation of a name or a mapping (`mlp.names`), or the object itself."""
    made = make(ACTIVATIONS, activation, "activation")
    if isinstance(made, type) or not (hasattr(made, "f") and hasattr(made, "df")):
        raise InputError(
            f"an activation is a name or an object with methods f and df, not {activation!r}"
        )
    return made
