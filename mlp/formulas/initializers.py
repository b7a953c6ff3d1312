"""Initial weights, drawn on the host in float64 from one `numpy.random.Generator`.

With fan_in inputs to a layer (of all its sources together) and fan_out units:

    Glorot: variance 2 / (fan_in + fan_out)                                               (1)
    He:     variance 2 / fan_in                                                           (2)

A uniform distribution on (-r, r) has variance r²/3. Biases start at zero.

Your own is a function of (rng, fan_in, fan_out, shape); one with a name is a row of `INITIALIZERS`
and of `InitializerName`.

Sources: (1) Glorot, Bengio, AISTATS 2010, eq. (16); (2) He et al., arXiv:1502.01852, eq. (10).

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

from mlp.errors import InputError, check_takes
from mlp.formulas.activations import ACTIVATIONS, Activation
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
class Zeros:
    """All zero. Hidden units that start equal stay equal: for nets without hidden layers."""

    def __call__(self, rng: Generator, fan_in: int, fan_out: int, shape: Shape) -> np.ndarray:
        return np.zeros(shape)


INITIALIZERS: dict[str, Initializer] = {
    "glorot_uniform": Glorot("uniform"),
    "glorot_normal": Glorot("normal"),
    "he_uniform": He("uniform"),
    "he_normal": He("normal"),
    "uniform": Uniform(),
    "normal": Normal(),
    "zeros": Zeros(),
}
InitializerName = Literal[
    "auto",
    "glorot_uniform",
    "glorot_normal",
    "he_uniform",
    "he_normal",
    "uniform",
    "normal",
    "zeros",
]


def get_initializer(
    initializer: str | Mapping[str, Any] | Initializer,
    activation: str | Mapping[str, Any] | Activation,
) -> Initializer:
    """The initializer of a name or a mapping (`mlp.names`), or the function itself; "auto" is He
    where the activation is a ``rectifier``, else Glorot.

    >>> get_initializer("auto", {"name": "relu"})
    He(distribution='uniform')
    """
    if isinstance(initializer, str) and initializer == "auto":
        made = make(ACTIVATIONS, activation, "activation")
        return INITIALIZERS["he_uniform" if getattr(made, "rectifier", False) else "glorot_uniform"]
    made = make({"auto": None} | INITIALIZERS, initializer, "initializer")
    if isinstance(made, type) or not callable(made):
        raise InputError(
            "an initializer is a name or a function of (rng, fan_in, fan_out, shape), "
            f"not {initializer!r}"
        )
    check_takes("an initializer", made, "rng", "fan_in", "fan_out", "shape")
    return made
