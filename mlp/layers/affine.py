"""Affine in each source: what dense, gated and maxout layers begin with.

    z = Σ_{k in sources} x_k W_k + b                                                        (1)
    ∂E/∂W_k = x_kᵀ δ        ∂E/∂b = Σ_rows δ        ∂E/∂x_k = δ W_kᵀ                        (2)

Source: `mlp.layers.dense`, eq. (1) and (4)-(6).
"""

from collections.abc import Iterator, Mapping
from functools import partial

import numpy as np

from backends import Array
from mlp.formulas.initializers import Initializer
from mlp.layers.layer import Parameter, Place


def affine_parameters(
    inputs: Mapping[int, int], units: int, draw: Initializer, bias: bool, parts: int = 1
) -> Iterator[Parameter]:
    """W[k, l], (units_k, parts · units), for each source k, each part drawn as for so many units;
    and b[l], (parts · units,)."""
    fan_in = sum(inputs.values())
    for k, width in inputs.items():

        def start(rng: np.random.Generator, width: int = width) -> np.ndarray:
            each = [draw(rng, fan_in, units, (width, units)) for _ in range(parts)]
            if parts == 1 or any(np.shape(part) != (width, units) for part in each):
                return each[0]  # a wrong shape is named by who asked for it
            return np.concatenate(each, axis=1)

        yield Parameter("W", (width, parts * units), "weight", start, source=k)
    if bias:
        yield Parameter("b", (parts * units,), "bias")


def products(at: Place, z: Array) -> None:
    """z <- Σ x_k W_k, eq. (1) without b."""
    terms = [(x, at.p["W", k]) for k, x in at.x.items()]
    at.tape.products(terms, z, partial(at.buffer, "term", z.shape[1]))


def products_back(at: Place, delta: Array) -> None:
    """Eq. (2), with δ like z."""
    for k, x in at.x.items():
        at.tape.product(x.T, delta, at.g["W", k])
    for k, out in at.back():
        at.tape.product(delta, at.p["W", k].T, out)
    if "b" in at.g:
        at.tape.total_late(delta, at.g["b"])
