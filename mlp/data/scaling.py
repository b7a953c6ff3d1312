"""Scaling of columns, before the network and undone after it.

X are n rows of d columns.

    x' = (x - shift) / scale                                            (1)  scaling, per column
    mean = x_0 + Σ (x - x_0) / n        scale² = Σ (x - mean)² / n      (2)  the standard scaling

In (2) x_0 is the first row: a constant column then has deviations of exactly zero.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import DTypeLike

from mlp.errors import InputError


@dataclass(frozen=True, eq=False)
class Scaling:
    """x' = (x - shift) / scale per column (1); shift and scale : (d,) float64.

    >>> X = np.array([[0, 7], [10, 7]], np.uint8)
    >>> Scaling.standard(X).apply(X, np.float32)
    array([[-1.,  0.],
           [ 1.,  0.]], dtype=float32)
    """

    shift: np.ndarray
    scale: np.ndarray

    @classmethod
    def standard(cls, X: np.ndarray) -> "Scaling":
        """Mean 0 and standard deviation 1 per column (2); a constant column is only shifted."""
        n, first = len(X), X[0].astype(np.float64)
        mean = first + sum((X[rows] - first).sum(axis=0) for rows in _chunks(X)) / n
        variance = sum(np.square(X[rows] - mean).sum(axis=0) for rows in _chunks(X)) / n
        deviation = np.sqrt(variance)
        return cls(mean, np.where(deviation > 0, deviation, 1.0))

    @classmethod
    def unit_range(cls, X: np.ndarray) -> "Scaling":
        """The one minimum and maximum of all of X become 0 and 1 (images)."""
        low, high = float(X.min()), float(X.max())
        width = X.shape[1:]
        return cls(np.full(width, low), np.full(width, (high - low) or 1.0))

    def apply(self, X: np.ndarray, dtype: DTypeLike) -> np.ndarray:
        """X (n, d) scaled, in `dtype`. Computed in float64: years or prices keep their digits."""
        if X.shape[1:] != self.shift.shape:
            raise InputError(f"the scaling is of {self.shift.shape} columns, X of {X.shape[1:]}")
        scaled = np.empty(X.shape, dtype)
        for rows in _chunks(X):
            scaled[rows] = (X[rows] - self.shift) / self.scale
        return scaled

    def invert(self, Y: np.ndarray) -> np.ndarray:
        """x = x' · scale + shift, in the dtype of Y (n, d)."""
        return (Y * self.scale + self.shift).astype(np.result_type(Y, np.float32), copy=False)


def _chunks(X: np.ndarray, values: int = 2**18) -> Iterator[slice]:
    """Slices of about 2 MB of float64 each, so that no large array is widened at once."""
    rows = max(1, values // max(1, math.prod(X.shape[1:])))
    return (slice(start, start + rows) for start in range(0, len(X), rows))
