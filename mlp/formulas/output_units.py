"""The two functions of output units that activations and losses share.

A unit here is what a layer's output goes through; the number of a layer's units is its width.

    sigmoid  σ(z) = 1 / (1 + exp(-z)), computed from exp(-|z|) <= 1           (1)
    softmax  o_k = exp(z_k - max z) / Σ_j exp(z_j - max z)                              (2)

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
