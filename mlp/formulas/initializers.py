"""Initial weights, drawn on the host in float64 from one `numpy.random.Generator`.

With fan_in inputs to a layer (of all its sources together) and fan_out units:

    Glorot: variance 2 / (fan_in + fan_out)                                               (1)
    He:     variance 2 / fan_in                                                           (2)
    LeCun:  variance 1 / fan_in                                                           (3)

A uniform distribution on (-r, r) has variance r²/3. Biases start at zero.

Your own is a function of (rng, fan_in, fan_out, shape); one with a name is a row of `INITIALIZERS`
and of `InitializerName`.

Sources: (1) Glorot, Bengio, AISTATS 2010, eq. (16); (2) He et al., arXiv:1502.01852, eq. (10); (3)
LeCun et al., "Efficient BackProp", 1998, eq. (16).

>>> import numpy as np
>>> INITIALIZERS["glorot_uniform"](np.random.default_rng(0), 64, 10, (64, 10)).shape
(64, 10)
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
from numpy.random import Generator

from mlp.errors import InputError, check_takes, shown
from mlp.formulas.activations import ACTIVATIONS, Activation, Learning
from mlp.names import check_settings, make

Distribution = Literal["uniform", "normal"]
Shape = tuple[int, int]


class Initializer(Protocol):
    """Draws one weight matrix of ``shape`` for a layer with these fans, in float64."""

    def __call__(self, rng: Generator, fan_in: int, fan_out: int, shape: Shape) -> np.ndarray: ...


def _draw(rng: Generator, distribution: Distribution, deviation: float, shape: Shape) -> np.ndarray:
    if distribution == "normal":
        return rng.normal(0.0, deviation, shape)
    limit = math.sqrt(3.0) * deviation
    return rng.uniform(-limit, limit, shape)


@dataclass(frozen=True)
class Glorot:
    """Variance 2 / (fan_in + fan_out), eq. (1): for units about linear at zero."""

    distribution: Distribution = "uniform"

    def __post_init__(self) -> None:
        check_settings(self, "initializer glorot")

    def __call__(self, rng: Generator, fan_in: int, fan_out: int, shape: Shape) -> np.ndarray:
        return _draw(rng, self.distribution, math.sqrt(2.0 / (fan_in + fan_out)), shape)


@dataclass(frozen=True)
class He:
    """Variance 2 / fan_in, eq. (2): for rectifiers, which pass half of their inputs."""

    distribution: Distribution = "uniform"

    def __post_init__(self) -> None:
        check_settings(self, "initializer he")

    def __call__(self, rng: Generator, fan_in: int, fan_out: int, shape: Shape) -> np.ndarray:
        return _draw(rng, self.distribution, math.sqrt(2.0 / fan_in), shape)


@dataclass(frozen=True)
class LeCun:
    """Variance 1 / fan_in, eq. (3): for units that keep it, as selu does."""

    distribution: Distribution = "uniform"

    def __post_init__(self) -> None:
        check_settings(self, "initializer lecun")

    def __call__(self, rng: Generator, fan_in: int, fan_out: int, shape: Shape) -> np.ndarray:
        return _draw(rng, self.distribution, math.sqrt(1.0 / fan_in), shape)


@dataclass(frozen=True)
class Orthogonal:
    """gain Q, with the shorter side of Q orthonormal, uniform among all such: Q of the QR
    decomposition of normal numbers, its columns with the signs of R's diagonal. What a layer has
    of each source is drawn by itself.

    Source: Saxe, McClelland, Ganguli, arXiv:1312.6120; Mezzadri, arXiv:math-ph/0609050, section 5.
    """

    gain: float = 1.0

    def __post_init__(self) -> None:
        check_settings(self, "initializer 'orthogonal'", gain="[0, inf)")

    def __call__(self, rng: Generator, fan_in: int, fan_out: int, shape: Shape) -> np.ndarray:
        tall = shape[0] >= shape[1]
        Q, R = np.linalg.qr(rng.normal(size=shape if tall else shape[::-1]))
        Q = self.gain * Q * np.where(np.diag(R) < 0.0, -1.0, 1.0)
        return Q if tall else Q.T


@dataclass(frozen=True)
class Uniform:
    """Uniform on (-limit, limit)."""

    limit: float = 0.5

    def __post_init__(self) -> None:
        check_settings(self, "initializer 'uniform'", limit="[0, inf)")

    def __call__(self, rng: Generator, fan_in: int, fan_out: int, shape: Shape) -> np.ndarray:
        return rng.uniform(-self.limit, self.limit, shape)


@dataclass(frozen=True)
class Normal:
    """Normal with mean 0 and this standard deviation."""

    deviation: float = 0.05

    def __post_init__(self) -> None:
        check_settings(self, "initializer 'normal'", deviation="[0, inf)")

    def __call__(self, rng: Generator, fan_in: int, fan_out: int, shape: Shape) -> np.ndarray:
        return rng.normal(0.0, self.deviation, shape)


@dataclass(frozen=True)
class TruncatedNormal:
    """Normal with mean 0 and this standard deviation, drawn again while beyond twice of it: what is
    left has 0.88 of the deviation."""

    deviation: float = 0.05

    def __post_init__(self) -> None:
        check_settings(self, "initializer 'truncated_normal'", deviation="[0, inf)")

    def __call__(self, rng: Generator, fan_in: int, fan_out: int, shape: Shape) -> np.ndarray:
        W = rng.normal(size=shape)
        while (beyond := abs(W) > 2.0).any():
            W[beyond] = rng.normal(size=int(beyond.sum()))
        return self.deviation * W


@dataclass(frozen=True)
class Constant:
    """All of this value. Hidden units that start equal stay equal."""

    value: float = 0.0

    def __post_init__(self) -> None:
        check_settings(self, "initializer 'constant'")

    def __call__(self, rng: Generator, fan_in: int, fan_out: int, shape: Shape) -> np.ndarray:
        return np.full(shape, float(self.value))


@dataclass(frozen=True)
class Zeros:
    """All zero. Hidden units that start equal stay equal: for nets without hidden layers."""

    def __call__(self, rng: Generator, fan_in: int, fan_out: int, shape: Shape) -> np.ndarray:
        return np.zeros(shape)


INITIALIZERS: dict[str, Initializer] = {
    "glorot_uniform": Glorot("uniform"),
    "glorot_normal": Glorot("normal"),
    "he_uniform": He("uniform"),
    "he_normal": He("normal"),
    "lecun_uniform": LeCun("uniform"),
    "lecun_normal": LeCun("normal"),
    "orthogonal": Orthogonal(),
    "uniform": Uniform(),
    "normal": Normal(),
    "truncated_normal": TruncatedNormal(),
    "constant": Constant(),
    "zeros": Zeros(),
}
InitializerName = Literal[
    "auto",
    "glorot_uniform",
    "glorot_normal",
    "he_uniform",
    "he_normal",
    "lecun_uniform",
    "lecun_normal",
    "orthogonal",
    "uniform",
    "normal",
    "truncated_normal",
    "constant",
    "zeros",
]


def get_initializer(
    initializer: str | Mapping[str, Any] | Initializer,
    activation: str | Mapping[str, Any] | Activation | Learning,
) -> Initializer:
    """The initializer of a name or a mapping (`mlp.names`), or the function itself; "auto" is the
    ``initializer`` that the activation names, He where it is a ``rectifier``, else Glorot.

    >>> get_initializer("auto", {"name": "relu"})
    He(distribution='uniform')
    """
    if isinstance(initializer, str) and initializer == "auto":
        made = make(ACTIVATIONS, activation, "activation")
        usual = "he_uniform" if getattr(made, "rectifier", False) else "glorot_uniform"
        return INITIALIZERS[getattr(made, "initializer", None) or usual]
    made = make({"auto": None} | INITIALIZERS, initializer, "initializer")
    if isinstance(made, type) or not callable(made):
        raise InputError(
            "an initializer is a name or a function of (rng, fan_in, fan_out, shape), "
            f"not {shown(initializer)}"
        )
    check_takes("an initializer", made, "rng", "fan_in", "fan_out", "shape")
    return made
