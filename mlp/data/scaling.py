"""Scaling of columns, before the network and undone after it.

X are n rows of d columns.

    x' = (x - shift) / scale                                            (1)  scaling, per column
    x = x' · scale + shift                                              (2)  and back
    mean = x_0 + Σ (x - x_0) / n        scale² = Σ (x - mean)² / n      (3)  the standard scaling

In (3) x_0 is the first row: a constant column then has deviations of exactly zero.

A user's numbers are float64, or integers of their own: the seconds of an hour, 1.7e9 ± 1800, or
prices, 500,000 ± 1. float32 tells 29 of such seconds apart, and all of them once they are scaled.
So (1) and (2) are computed in float64, on the host by `cast`, on a device by `cast_on_device`, and
x' is rounded to the network's dtype afterwards. Small integers and halves lose nothing in float32:
they go to the device as they are, where (1) is a kernel in the network's dtype, `rescale`.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from backends import Array, Backend
from mlp.data.finite import all_finite
from mlp.errors import InputError

AT_ONCE = 1 << 15  # values that are scaled together on the host: 256 kB, which stay in its cache
ON_DEVICE = 1 << 20  # and on a device


def dtype_name(x: Array) -> str:
    """The dtype of an array of any library, as "float32"."""
    return str(x.dtype).rpartition(".")[2]


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
        """Mean 0 and standard deviation 1 per column (3); a constant column is only shifted.

        Raises InputError naming a column whose squares are beyond the range of float64.
        """
        n, first = len(X), X[0].astype(np.float64)
        with np.errstate(over="ignore", invalid="ignore"):
            mean = first + sum((X[rows] - first).sum(axis=0) for rows in _chunks(X)) / n
            variance = sum(np.square(X[rows] - mean).sum(axis=0) for rows in _chunks(X)) / n
            deviation = np.sqrt(variance)
        if not np.isfinite(deviation).all():
            k = int((~np.isfinite(deviation)).argmax())
            largest = X[np.abs(X[:, k]).argmax(), k]
            raise InputError(
                f"column {k} has values too large to be scaled, as {largest:.3g}; correct them or "
                "leave the column out"
            )
        return cls(mean, np.where(deviation > 0, deviation, 1.0))

    @classmethod
    def unit_range(cls, X: np.ndarray) -> "Scaling":
        """The one minimum and maximum of all of X become 0 and 1 (images)."""
        low, high = float(X.min()), float(X.max())
        width = X.shape[1:]
        return cls(np.full(width, low), np.full(width, (high - low) or 1.0))

    def __repr__(self) -> str:
        """How many columns, and the range of what they are shifted and divided by."""
        low, high, narrow, wide = (
            f"{x:.4g}" for v in (self.shift, self.scale) for x in (np.min(v), np.max(v))
        )
        return (
            f"Scaling({len(self.shift)} columns, shift {low} to {high}, scale {narrow} to {wide})"
        )

    def apply(self, X: np.ndarray, dtype: DTypeLike) -> np.ndarray:
        """X (n, d) scaled (1), in `dtype`. Computed in float64: years or prices keep their digits.

        Raises InputError for X of other columns, and for values that are beyond the dtype's range.
        """
        if X.shape[1:] != self.shift.shape:
            raise InputError(f"the scaling is of {self.shift.shape} columns, X of {X.shape[1:]}")
        scaled = np.empty(X.shape, dtype)
        cast(X, scaled, self)
        return scaled

    def invert(self, Y: np.ndarray) -> np.ndarray:
        """x = x' · scale + shift (2), in the dtype of Y (n, d)."""
        return (Y * self.scale + self.shift).astype(np.result_type(Y, np.float32), copy=False)


# ------------------------------------------------------------------------------ on the host


def cast(x: np.ndarray, out: np.ndarray, scaling: Scaling | None = None, what: str = "X") -> None:
    """out <- x in the dtype of out, scaled before it is rounded (1): in float64, some rows at a
    time, so that no second array of its size is made.

    Raises InputError if a value is beyond the range of out's dtype, naming its column.

    >>> seconds, out = np.array([[1.7e9], [1.7e9 + 1.0]]), np.empty((2, 1), np.float32)
    >>> cast(seconds, out, Scaling(np.array([1.7e9]), np.array([2.0])))
    >>> out.tolist()
    [[0.0], [0.5]]
    """
    try:
        with np.errstate(over="raise", under="ignore"):
            if scaling is None:
                np.copyto(out, x, "unsafe")
                return
            for rows in _chunks(x, AT_ONCE) if x.size > AT_ONCE else (slice(None),):
                shifted = x[rows] - scaling.shift
                np.divide(shifted, scaling.scale, out=out[rows], casting="unsafe")
    except FloatingPointError as error:
        raise _too_large(x, scaling, out.dtype, what) from error


def _too_large(x: np.ndarray, scaling: Scaling | None, dtype: np.dtype, what: str) -> InputError:
    """What to say of values that the dtype cannot hold."""
    largest = float(np.finfo(dtype).max)
    with np.errstate(over="ignore"):
        units = x if scaling is None else (x - scaling.shift) / scaling.scale
        beyond = ~(np.abs(units) <= largest)
    scaled = "" if scaling is None else "once scaled "
    cure = "correct them" + ", or use a model of dtype float64" * (dtype != np.float64)
    if dtype == np.float16:
        cure = "scale the inputs, or use precision 'float32'"
    return InputError(
        f"{what}: {int(beyond.sum())} values are {scaled}beyond the range of {dtype.name}, "
        f"{largest:.2g}, the first of them in column {int(beyond.any(axis=0).argmax())}; {cure}"
    )


class Cast:
    """A host array or sparse matrix as the network takes it: `cast` of those rows that are asked
    for, and of all of them where an array is asked for."""

    def __init__(self, x: Any, dtype: str, scaling: Scaling | None, what: str):
        self.x, self.scaling, self.what = x, scaling, what
        self.shape, self.dtype = x.shape, np.dtype(dtype)

    def rows_to(self, rows: slice | np.ndarray, out: np.ndarray) -> None:
        """out <- these rows."""
        x = self.x[rows]
        cast(x if isinstance(x, np.ndarray) else x.toarray(), out, self.scaling, self.what)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        made = np.empty(self.shape, self.dtype)
        cast(self.x, made, self.scaling, self.what)
        return made if dtype is None else made.astype(dtype, copy=False)


def _chunks(X: np.ndarray, values: int = 2**18) -> Iterator[slice]:
    """Slices of about 2 MB of float64 each, so that no large array is widened at once."""
    rows = max(1, values // max(1, math.prod(X.shape[1:])))
    return (slice(start, start + rows) for start in range(0, len(X), rows))


# ------------------------------------------------------------------------------ on a device


def cast_on_device(
    backend: Backend, x: Array, dtype: str, scaling: Scaling | None = None, what: str = "X"
) -> Array:
    """x, an array of the backend's, in the dtype, scaled before it is rounded (1): in float64 where
    the device has it, some rows at a time; where it has not, of the float32 that x is or becomes.

    Raises InputError if a value is beyond the range of the dtype, naming its column.
    """
    given = dtype_name(x)
    exact = given == dtype or (dtype != "float16" and given != "float64")
    if scaling is None and exact:  # nothing can be out of range, nothing is scaled
        return backend.asarray(x, dtype)
    out = backend.empty(x.shape, dtype)
    if not backend.owns(out):  # a device that only counts has no values
        return out
    xp, wide = backend.xp, widest(backend)
    if scaling is not None:
        near = scaling.shift.astype(wide)
        shifts = [near] if wide == "float64" else [near, scaling.shift - near]
        shifts = [backend.asarray(shift, wide) for shift in shifts]
        scale = backend.asarray(scaling.scale, wide)
    rows = max(1, ON_DEVICE // x.shape[1])
    for i in range(0, x.shape[0], rows):
        part = slice(i, min(i + rows, x.shape[0]))
        values = x[part, :]
        if scaling is not None:
            values = xp.astype(values, getattr(xp, wide))
            for shift in shifts:
                values = values - shift
            values = values / scale
        backend.copy(values, out[part, :])
    if not all_finite(backend, out):
        raise _too_large(backend.to_numpy(x), scaling, np.dtype(dtype), what)
    return out


def invert_on_device(backend: Backend, y: Array, scaling: Scaling) -> Array:
    """x = x' · scale + shift (2) of a backend's array, in float64 where the device has it."""
    wide = widest(backend)
    scale, shift = (backend.asarray(v, wide) for v in (scaling.scale, scaling.shift))
    return backend.xp.astype(y, getattr(backend.xp, wide)) * scale + shift


@lru_cache(maxsize=16)
def widest(backend: Backend) -> str:
    """The dtype of most digits that the backend's device has: "float64", or "float32"."""
    known = backend.xp.__array_namespace_info__().dtypes(device=backend.device)
    return "float64" if "float64" in known else "float32"


def constants(backend: Backend, scaling: Scaling, dtype: str) -> tuple[Array, Array]:
    """The shift and the factor, 1 / scale, of `rescale`."""
    return backend.asarray(scaling.shift, dtype), backend.asarray(1.0 / scaling.scale, dtype)


def rescale(xp: Any, x: Array, shift: Array, factor: Array) -> Array:
    """(1) in the network's dtype, with factor = 1 / scale."""
    return (x - shift) * factor


def rescale_to(xp: Any, narrow: Array, x: Array, shift: Array, factor: Array) -> Array:
    """The same into float16, for which numbers may be too large before they are scaled."""
    return (x - shift) * factor
