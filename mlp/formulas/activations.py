"""Activation functions: f and its vector-Jacobian product.

Each unit computes a = f(z) (derivation 001 above eq. 1, 002 eq. 2). Backpropagation needs only the
product of a row vector v with the derivative,

    df(v, z, a) = f'ᵀ(z) · v                                                              (1)

which for a function of one unit is v · f'(z), elementwise, and for softmax, whose outputs depend
on all units of the row, is the full Jacobian applied to v (derivation 002 eq. 10 writes the
elementwise product only, which does not hold for softmax).

Where f' can be written in terms of the unit's output a = f(z) (derivation 000: y(1-y) for the
sigmoid) the object says so with ``from_output = True`` and z need not be kept.

An activation may have numbers p that are learned with the weights, one for each unit or one for
all: `learned` names them, f and df take them after z and a, and

    dp(v, z, p) = v · ∂f/∂p                                                               (2)

is what the layer sums over the rows, and where one is for all over the units, to ∂E/∂p.

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
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np

from backends import Array
from mlp.errors import InputError, check_takes, shown
from mlp.formulas.output_units import sigmoid, softmax, softplus
from mlp.formulas.special import normal_distribution
from mlp.names import check_settings, make


class Activation(Protocol):
    """What the network asks of an activation.

    Optional attributes, False where they are missing: ``from_output`` (df needs no z) and
    ``rectifier`` (about half of its inputs pass, so "auto" draws its weights by He);
    ``initializer``: the name of another one that "auto" is.
    """

    def f(self, xp: Any, z: Array) -> Array:
        """a = f(z), shape (n, units)."""

    def df(self, xp: Any, v: Array, z: Array, a: Array) -> Array:
        """v · f'(z), eq. (1); a = f(z) is passed so that it is not computed twice. An activation
        with ``from_output`` gets ``z=None`` and must not read it."""


class Learning(Protocol):
    """What the network asks of an activation with numbers p that are learned."""

    def learned(self, units: int) -> dict[str, tuple[int, float]]:
        """{name: (how many, what all of them start from)}: ``units``, or 1 for all units."""

    @property
    def f(self) -> Callable[..., Array]:
        """f(xp, z, *p) as of an `Activation`; p are (units,) or (1,), in the order of `learned`."""

    @property
    def df(self) -> Callable[..., Array]:
        """df(xp, v, z, a, *p) as of an `Activation`."""

    @property
    def dp(self) -> Callable[..., tuple[Array, ...]]:
        """dp(xp, v, z, *p), eq. (2) for each of p, (n, units)."""


def learned(activation: Any, units: int) -> dict[str, tuple[int, float]]:
    """What an activation learns, as `Learning.learned` says; nothing, where it has no such method.

    >>> learned(Prelu(), 3), learned(Prelu(shared=True), 3), learned(Relu(), 3)
    ({'slope': (3, 0.25)}, {'slope': (1, 0.25)}, {})
    """
    return activation.learned(units) if hasattr(activation, "learned") else {}


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
class Celu:
    """f(z) = z where z > 0, else alpha (exp(z/alpha) - 1); f' = 1, else a/alpha + 1.

    Source: Barron, arXiv:1704.07483, eq. (2).
    """

    alpha: float = 1.0
    from_output = True
    rectifier = True

    def __post_init__(self) -> None:
        check_settings(self, "celu", alpha="(0, inf)")

    def f(self, xp: Any, z: Array) -> Array:
        return xp.where(z > 0.0, z, self.alpha * xp.expm1(xp.minimum(z, 0.0) / self.alpha))

    def df(self, xp: Any, v: Array, z: Array, a: Array) -> Array:
        return v * xp.where(a > 0.0, 1.0, a / self.alpha + 1.0)


SELU_SCALE, SELU_ALPHA = 1.0507009873554805, 1.6732632423543772


@dataclass(frozen=True)
class Selu:
    """f(z) = λ z where z > 0, else λ α (exp(z) - 1); f' = λ, else a + λ α.

    With λ = 1.0507 and α = 1.6733, means 0 and variances 1 of z stay what they are from layer to
    layer, if weights start by LeCun's normal initializer, which "auto" is here.

    Source: Klambauer et al., arXiv:1706.02515, eq. (2), (14).
    """

    from_output = True
    initializer = "lecun_normal"

    def f(self, xp: Any, z: Array) -> Array:
        below = SELU_SCALE * SELU_ALPHA * xp.expm1(xp.minimum(z, 0.0))
        return xp.where(z > 0.0, SELU_SCALE * z, below)

    def df(self, xp: Any, v: Array, z: Array, a: Array) -> Array:
        return v * xp.where(a > 0.0, SELU_SCALE, a + SELU_SCALE * SELU_ALPHA)


@dataclass(frozen=True)
class Gelu:
    """f(z) = z Φ(z), f' = Φ + z φ, with Φ(z) = (1 + erf(z/√2)) / 2 and φ = exp(-z²/2) / √(2π).

    The exact form, of any backend's own erf or of `mlp.formulas.special`; `GeluTanh` is the faster
    one that is near it. In f' Φ is a / z, which costs no second erf, but within |z| < 2⁻¹⁰, where
    a may have lost digits, Φ = 1/2 + z φ (1 + z²/3 + z⁴/15 + ...), right to 2⁻⁶⁶ there.

    Source: Hendrycks, Gimpel, arXiv:1606.08415, eq. (1).
    """

    rectifier = True

    def f(self, xp: Any, z: Array) -> Array:
        return z * normal_distribution(xp, z)

    def df(self, xp: Any, v: Array, z: Array, a: Array) -> Array:
        s = xp.minimum(xp.maximum(z, -40.0), 40.0)  # z² does not overflow, and φ is 0
        square = s * s
        part = s * (xp.exp(-0.5 * square) * (1.0 / math.sqrt(2.0 * math.pi)))
        near = square < 2.0**-20
        series = 0.5 + part * (1.0 + square * (1.0 / 3.0 + square * (1.0 / 15.0)))
        ratio = xp.where(s < 40.0, a / xp.where(near, 1.0 + square, z), 1.0 + 0.0 * s)
        return v * (xp.where(near, series, ratio) + part)


@dataclass(frozen=True)
class GeluTanh:
    """f(z) = z (1 + tanh u) / 2, u = sqrt(2/π) (z + 0.044715 z³), within 5e-4 of `Gelu`.

    Beyond |z| = 10 it equals max(z, 0) in float64 too, so u is computed from z held to that range
    and never overflows.

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
class Mish:
    """f(z) = z ω with ω = tanh(log(1 + exp(z))), f' = ω + z σ(z) (1 - ω²).

    From n = exp(-|z|), so that nothing overflows: ω = (1 + 2n) / (1 + 2n + 2n²) where z > 0, else
    (n² + 2n) / (n² + 2n + 2).

    Source: Misra, arXiv:1908.08681, eq. (1).
    """

    rectifier = True

    def _tanh_softplus(self, xp: Any, z: Array) -> Array:
        n = xp.exp(-xp.abs(z))
        top = xp.where(z > 0.0, 1.0 + 2.0 * n, n * (n + 2.0))
        return top / (top + xp.where(z > 0.0, 2.0 * n * n, 2.0))

    def f(self, xp: Any, z: Array) -> Array:
        return z * self._tanh_softplus(xp, z)

    def df(self, xp: Any, v: Array, z: Array, a: Array) -> Array:
        omega = self._tanh_softplus(xp, z)
        return v * (omega + z * sigmoid(xp, z) * (1.0 - omega * omega))


@dataclass(frozen=True)
class HardSigmoid:
    """f(z) = min(max(z/6 + 1/2, 0), 1), f' = 1/6 where 0 < a < 1, else 0.

    As in PyTorch and Keras 3; in Keras 2 it was z/5 + 1/2.

    Source: Howard et al., arXiv:1905.02244, section 5.2, relu6(z + 3) / 6.
    """

    from_output = True

    def f(self, xp: Any, z: Array) -> Array:
        return xp.minimum(xp.maximum(z * (1.0 / 6.0) + 0.5, 0.0), 1.0)

    def df(self, xp: Any, v: Array, z: Array, a: Array) -> Array:
        return xp.where(a > 0.0, xp.where(a < 1.0, v * (1.0 / 6.0), 0.0), 0.0)


@dataclass(frozen=True)
class HardSwish:
    """f(z) = z h(z) with the h of `HardSigmoid`; f' = h + z/6 where 0 < h < 1, else h.

    Source: Howard et al., arXiv:1905.02244, section 5.2.
    """

    rectifier = True

    def f(self, xp: Any, z: Array) -> Array:
        return z * HardSigmoid().f(xp, z)

    def df(self, xp: Any, v: Array, z: Array, a: Array) -> Array:
        slope = xp.where(xp.abs(z) < 3.0, z * (1.0 / 6.0), 0.0)
        return v * (HardSigmoid().f(xp, z) + slope)


@dataclass(frozen=True)
class HardTanh:
    """f(z) = min(max(z, -1), 1), f' = 1 where -1 < a < 1, else 0.

    Source: Collobert, "Large scale machine learning", 2004, section 5.
    """

    from_output = True

    def f(self, xp: Any, z: Array) -> Array:
        return xp.minimum(xp.maximum(z, -1.0), 1.0)

    def df(self, xp: Any, v: Array, z: Array, a: Array) -> Array:
        return xp.where(xp.abs(a) < 1.0, v, 0.0)


@dataclass(frozen=True)
class Softsign:
    """f(z) = z / (1 + |z|), f' = (1 - |a|)².

    Source: Glorot, Bengio, AISTATS 2010, section 3.
    """

    from_output = True

    def f(self, xp: Any, z: Array) -> Array:
        return z / (1.0 + xp.abs(z))

    def df(self, xp: Any, v: Array, z: Array, a: Array) -> Array:
        rest = 1.0 - xp.abs(a)
        return v * (rest * rest)


@dataclass(frozen=True)
class Sine:
    """f(z) = sin(z), f' = cos(z).

    Source: Sitzmann et al., arXiv:2006.09661, eq. (3), whose ω0 is in the weights here.
    """

    def f(self, xp: Any, z: Array) -> Array:
        return xp.sin(z)

    def df(self, xp: Any, v: Array, z: Array, a: Array) -> Array:
        return v * xp.cos(z)


@dataclass(frozen=True)
class Square:
    """f(z) = z², f' = 2 z. Infinite where z² is beyond the dtype's range."""

    def f(self, xp: Any, z: Array) -> Array:
        return z * z

    def df(self, xp: Any, v: Array, z: Array, a: Array) -> Array:
        return v * (2.0 * z)


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


@dataclass(frozen=True)
class LogSoftmax:
    """f(z)_k = z_k - log Σ_j exp(z_j), over the units of a row; f'ᵀ·v = v - exp(a) Σ_k v_k."""

    from_output = True

    def f(self, xp: Any, z: Array) -> Array:
        s = z - xp.max(z, axis=1, keepdims=True)
        return s - xp.log(xp.sum(xp.exp(s), axis=1, keepdims=True))

    def df(self, xp: Any, v: Array, z: Array, a: Array) -> Array:
        return v - xp.exp(a) * xp.sum(v, axis=1, keepdims=True)


# ------------------------------------------------------------------ with numbers that are learned


@dataclass(frozen=True)
class Prelu:
    """f(z) = z where z > 0, else slope · z, with a slope for each unit, or ``shared`` by all, that
    starts from ``slope`` and is learned: ∂f/∂slope = min(z, 0).

    Source: He et al., arXiv:1502.01852, eq. (1), (7), (8).
    """

    slope: float = 0.25
    shared: bool = False
    rectifier = True

    def __post_init__(self) -> None:
        check_settings(self, "prelu")

    def learned(self, units: int) -> dict[str, tuple[int, float]]:
        return {"slope": (1 if self.shared else units, self.slope)}

    def f(self, xp: Any, z: Array, slope: Array) -> Array:
        return xp.where(z > 0.0, z, slope * z)

    def df(self, xp: Any, v: Array, z: Array, a: Array, slope: Array) -> Array:
        return xp.where(z > 0.0, v, slope * v)

    def dp(self, xp: Any, v: Array, z: Array, slope: Array) -> tuple[Array]:
        return (v * xp.minimum(z, 0.0),)


@dataclass(frozen=True)
class Parametric:
    """a = z + alpha (f(z) - z) for another activation f, with an alpha for each unit that starts
    from 1, where it is f, and is learned: ∂a/∂alpha = f(z) - z.

    of: f, by name or mapping; one that learns nothing itself.

    Source: Holzmüller et al., arXiv:2407.04491 (RealMLP), appendix A.

    >>> import numpy as np
    >>> Parametric("relu").f(np, np.array([-2.0, 2.0]), np.array([0.5, 0.5]))
    array([-1.,  2.])
    """

    of: str | Mapping[str, Any] = "selu"

    def __post_init__(self) -> None:
        if not isinstance(self.of, (str, Mapping)):
            raise InputError(
                f"parametric: of must be the name of an activation, not {shown(self.of)}"
            )
        if isinstance(self.of, str):
            object.__setattr__(self, "of", str(self.of))  # NumPy's text is Python's
        if learned(self._of, 1):
            raise InputError(f"parametric: of must learn nothing itself, as {shown(self.of)} does")

    @property
    def _of(self) -> Activation:
        return get_activation(self.of)

    @property
    def rectifier(self) -> bool:
        """As of f, which it starts from."""
        return bool(getattr(self._of, "rectifier", False))

    @property
    def initializer(self) -> str | None:
        """As of f."""
        return getattr(self._of, "initializer", None)

    def learned(self, units: int) -> dict[str, tuple[int, float]]:
        return {"alpha": (units, 1.0)}

    def f(self, xp: Any, z: Array, alpha: Array) -> Array:
        return z + alpha * (self._of.f(xp, z) - z)

    def df(self, xp: Any, v: Array, z: Array, a: Array, alpha: Array) -> Array:
        part = v * alpha
        return v - part + self._of.df(xp, part, z, self._of.f(xp, z))

    def dp(self, xp: Any, v: Array, z: Array, alpha: Array) -> tuple[Array]:
        return (v * (self._of.f(xp, z) - z),)


ACTIVATIONS: dict[str, Activation | Learning] = {
    "identity": Identity(),
    "sigmoid": Sigmoid(),
    "tanh": Tanh(),
    "relu": Relu(),
    "leaky_relu": LeakyRelu(),
    "elu": Elu(),
    "celu": Celu(),
    "selu": Selu(),
    "gelu": Gelu(),
    "gelu_tanh": GeluTanh(),
    "silu": Silu(),
    "mish": Mish(),
    "hard_sigmoid": HardSigmoid(),
    "hard_swish": HardSwish(),
    "hard_tanh": HardTanh(),
    "softsign": Softsign(),
    "sine": Sine(),
    "square": Square(),
    "softplus": Softplus(),
    "exp": Exp(),
    "softmax": Softmax(),
    "log_softmax": LogSoftmax(),
    "prelu": Prelu(),
}
ActivationName = Literal[
    "identity",
    "sigmoid",
    "tanh",
    "relu",
    "leaky_relu",
    "elu",
    "celu",
    "selu",
    "gelu",
    "gelu_tanh",
    "silu",
    "mish",
    "hard_sigmoid",
    "hard_swish",
    "hard_tanh",
    "softsign",
    "sine",
    "square",
    "softplus",
    "exp",
    "softmax",
    "log_softmax",
    "prelu",
    "parametric",
]


def check_activation(activation: str | Mapping[str, Any] | Activation) -> None:
    """InputError for what `get_activation` refuses, and for one of the user's own whose f or df
    does not take its arguments, fails, or gives another shape."""
    made: Any = get_activation(activation)
    if type(made) in map(type, ACTIVATIONS.values()):
        return
    z = np.array([[-1.0, 0.25, 0.5], [0.75, 1.0, -0.5]])
    own = learned(made, z.shape[1])
    p = [np.full(size, start) for size, start in own.values()]
    said = ", ".join(["", *own])
    a = try_formula(made, "f", (np, z, *p), f"xp, z{said}")
    try_formula(made, "df", (np, z, z, np.broadcast_to(a, z.shape), *p), f"xp, v, z, a{said}")
    if own:
        check_takes(f"dp of {shown(made)}", made.dp, "xp", "v", "z", *own)


def try_formula(
    owner: Any, name: str, arguments: tuple[Any, ...], said: str, of_rows: bool = False
) -> Any:
    """What a formula of the user's own gives on arrays (2, 3): of their shape, or a number; one
    number a row, (2, 1), where it is ``of_rows``. InputError if it gives anything else, or fails.
    """
    what = f"{name} of {shown(owner)}"
    check_takes(what, getattr(owner, name), *said.split(", "))
    try:
        with np.errstate(all="ignore"):
            found = getattr(owner, name)(*arguments)
    except Exception as error:  # of the user's code, whatever it is
        raise InputError(f"{what} fails on arrays of shape (2, 3): {error}") from error
    shapes = [(2, 3), (2, 1)] if of_rows else [(2, 3), ()]
    if np.asarray(found).dtype.kind not in "fiu" or np.shape(found) not in shapes:
        raise InputError(
            f"{what} gives {shown(found, 60)} on arrays of shape (2, 3); it must give one of this "
            "shape"
        )
    return found


# Names in files that were written when they meant another formula, and what that is called now.
BEFORE = {"gelu": "gelu_tanh"}


def meant_before(activation: Any) -> Any:
    """What a file of before names an activation, or several, by the names that these have now.

    >>> meant_before(["gelu", {"name": "elu", "alpha": 0.5}])
    ['gelu_tanh', {'name': 'elu', 'alpha': 0.5}]
    """
    if isinstance(activation, (list, tuple)):
        return type(activation)(meant_before(each) for each in activation)
    if isinstance(activation, Mapping):
        return {key: meant_before(each) for key, each in activation.items()}
    return BEFORE.get(activation, activation) if isinstance(activation, str) else activation


def get_activation(activation: str | Mapping[str, Any] | Activation) -> Activation:
    """The activation of a name or a mapping (`mlp.names`), or the object itself."""
    made = make(ACTIVATIONS, activation, "activation")
    if isinstance(made, type) or not (hasattr(made, "f") and hasattr(made, "df")):
        raise InputError(
            f"an activation is a name or an object with methods f and df, not {shown(activation)}"
        )
    return made


ACTIVATIONS["parametric"] = Parametric()  # which asks the table for another one
