"""The functions of output units that activations and losses share.

A unit here is what a layer's output goes through; the number of a layer's units is its width.

    sigmoid  σ(z) = 1 / (1 + exp(-z)), computed from exp(-|z|) <= 1           (1)
    softmax  o_k = exp(z_k - max z) / Σ_j exp(z_j - max z)                              (2)
    softplus log(1 + exp(z)) = max(z, 0) + log(1 + exp(-|z|)) = -log σ(-z)               (3)

>>> import numpy as np
>>> softmax(np, np.array([[0.0, np.log(3.0)]]))
array([[0.25, 0.75]])
"""

from typing import Any

from backends import Array


def sigmoid(xp: Any, z: Array) -> Array:
    """Eq. (1), of each unit, accurate at any z."""
    e = xp.exp(-xp.abs(z))
    return xp.where(z < 0.0, e, 1.0) / (1.0 + e)


def softmax(xp: Any, z: Array) -> Array:
    """Eq. (2), over the units of each row."""
    e = xp.exp(z - xp.max(z, axis=1, keepdims=True))
    return e / xp.sum(e, axis=1, keepdims=True)


def log_shares(xp: Any, z: Array) -> tuple[Array, Array]:
    """(s, log Σ_j exp s_j) with s = z - max z: the logarithm of eq. (2) is their difference."""
    s = z - xp.max(z, axis=1, keepdims=True)
    return s, xp.log(xp.sum(xp.exp(s), axis=1, keepdims=True))


def softplus(xp: Any, z: Array) -> Array:
    """Eq. (3), of each unit, accurate at any z."""
    return xp.maximum(z, 0.0) + xp.log1p(xp.exp(-xp.abs(z)))
