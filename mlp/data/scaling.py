"""Scaling of columns, before the network and undone after it.

X are n rows of d columns.

    x' = (x - shift) / scale                                            (1)  scaling, per column
    x = x' · scale + shift                                              (2)  and back
    mean = x_0 + Σ (x - x_0) / n        scale² = Σ (x - mean)² / n      (3)  the standard scaling

In (3) x_0 is the first row: a constant column then has deviations of exactly zero. The other
scalings are, with q_p the quantile p of the column (linear between the values),

    range       shift = min, scale = max - min
    robust      shift = q_½, scale = q_¾ - q_¼, or half of max - min where that is 0; then the
                smooth clip v = u / sqrt(1 + (u / 3)²), which lies in (-3, 3)            (4)
    log1p       u = sign(x) log(1 + |x|), then standard                                  (5)
    quantile    z with Φ(z) = the share of the values below x: linear between 256 of them (6)

and a constant column is only shifted. Source of (4): D. Holzmüller, L. Grinsztajn, I. Steinwart,
"Better by default" (RealMLP), NeurIPS 2024. Each has an inverse, (2) being that of (1).

A user's numbers are float64, or integers of their own: the seconds of an hour, 1.7e9 ± 1800, or
prices, 500,000 ± 1. float32 tells 29 of such seconds apart, and all of them once they are scaled.
So (1) and (2) are computed in float64, on the host by `cast`, on a device by `cast_on_device`, and
x' is rounded to the network's dtype afterwards. Small integers and halves lose nothing in float32:
they go to the device as they are, where (1) is a kernel in the network's dtype, `rescale`.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from numbers import Integral
from statistics import NormalDist
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import DTypeLike

from backends import Array, Backend
from mlp.data.finite import all_finite
from mlp.errors import InputError, check_is, check_names, did_you_mean, shown
from mlp.parallel.group import ALONE, Group

AT_ONCE = 1 << 15  # values that are scaled together on the host: 256 kB, which stay in its cache
ON_DEVICE = 1 << 20  # and on a device


def dtype_name(x: Array) -> str:
    """The dtype of an array of any library, as "float32"."""
    return str(x.dtype).rpartition(".")[2]


ScalingName = Literal["standard", "range", "robust", "log1p", "quantile", "none"]
SCALINGS: tuple[ScalingName, ...] = get_args(ScalingName)
CLIP = 3.0  # of (4)
KNOTS = 256  # of (6)


@dataclass(frozen=True, eq=False)
class Scaling:
    """x' = (x - shift) / scale per column (1); shift and scale : (d,) float64.

    logs : (d,) bool, the columns that go through (5) first, or None.
    limits : (d,) of (4), infinity for none, or None.
    knots : by column the values and their z (6), (2, k), in place of (1).

    Raises InputError where these do not fit together, are not finite, or divide by 0.

    >>> X = np.array([[0, 7], [10, 7]], np.uint8)
    >>> Scaling.standard(X).apply(X, np.float32)
    array([[-1.,  0.],
           [ 1.,  0.]], dtype=float32)
    """

    shift: np.ndarray
    scale: np.ndarray
    logs: np.ndarray | None = None
    limits: np.ndarray | None = None
    knots: Mapping[int, np.ndarray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, kinds in (("shift", "fiu"), ("scale", "fiu"), ("logs", "b"), ("limits", "f")):
            x = getattr(self, name)
            if x is None and name in ("logs", "limits"):
                continue
            if not isinstance(x, np.ndarray) or x.dtype.kind not in kinds or x.ndim != 1:
                raise InputError(f"scaling: {name} must be an array (columns,), not {shown(x, 60)}")
            if len(x) != len(self.shift):
                raise InputError(
                    f"scaling: {name} is of {len(x)} columns, shift of {len(self.shift)}"
                )
        for name, good, must in (
            ("shift", np.isfinite(self.shift), "finite"),
            ("scale", np.isfinite(self.scale) & (self.scale != 0), "finite and not 0"),
            ("limits", True if self.limits is None else self.limits > 0, "above 0"),
        ):
            if not np.all(good):
                k = int(np.argmin(good))
                x = getattr(self, name)[k]
                raise InputError(f"scaling: {name} must be {must}, not {x} as in column {k}")
        check_is("scaling: knots", self.knots, Mapping)
        for k, knots in self.knots.items():
            if not (isinstance(k, Integral) and 0 <= k < len(self.shift) and _are_knots(knots)):
                raise InputError(f"scaling: the quantiles of column {shown(k)} are none that rise")

    @classmethod
    def standard(cls, X: Any, group: Group = ALONE) -> "Scaling":
        """Mean 0 and standard deviation 1 per column (3); a constant column is only shifted.

        X : (n, d), an array, or rows on disk (`mlp.open_rows`), which are read twice.  group :
        processes that call it together: each reads a part of the rows, and all get the bits that
        one alone gets. Raises InputError naming a column whose squares are beyond the range of
        float64.
        """
        _check_rows(X)
        check_is("scaling: group", group, Group)
        n, first = len(X), X[0].astype(np.float64)
        chunks = _chunks(X)

        def over(make: Callable[[np.ndarray], Any]) -> Iterator[Any]:
            return group.dealt(len(chunks), lambda i: make(X[chunks[i]]))

        with np.errstate(over="ignore", invalid="ignore"):
            mean = first + sum(over(lambda rows: (rows - first).sum(axis=0))) / n
            variance = sum(over(lambda rows: np.square(rows - mean).sum(axis=0))) / n
            deviation = np.sqrt(variance)
        if not np.isfinite(deviation).all():
            k = int((~np.isfinite(deviation)).argmax())
            largest = max(over(lambda rows: float(np.abs(rows[:, k]).max())))
            raise InputError(
                f"column {k} has values too large to be scaled, as {largest:.3g}; correct them or "
                "leave the column out"
            )
        return cls(mean, np.where(deviation > 0, deviation, 1.0))

    @classmethod
    def unit_range(cls, X: np.ndarray) -> "Scaling":
        """The one minimum and maximum of all of X become 0 and 1 (images)."""
        _check_rows(X)
        low = min(float(X[rows].min()) for rows in _chunks(X))
        high = max(float(X[rows].max()) for rows in _chunks(X))
        width = X.shape[1:]
        return cls(np.full(width, low), np.full(width, (high - low) or 1.0))

    @classmethod
    def fit(cls, X: Any, names: Sequence[ScalingName], group: Group = ALONE) -> "Scaling":
        """Each column of X (n, d) by the scaling of its name; group: as for `standard`.

        >>> X = np.array([[0.0, 1.0], [1.0, 1.0], [2.0, 1.0], [1000.0, 1.0]])
        >>> Scaling.fit(X, ["robust", "range"]).apply(X, np.float64).round(2).tolist()
        [[-0.01, 0.0], [-0.0, 0.0], [0.0, 0.0], [2.4, 0.0]]
        """
        _check_rows(X)
        d, many = X.shape[1], len(check_names("scaling: names", names))
        if many != d:
            raise InputError(f"X has {d} columns, {many} scalings are named")
        shift, scale, knots = np.zeros(d), np.ones(d), {}
        if standard := [k for k, name in enumerate(names) if name == "standard"]:
            found = cls.standard(X if len(standard) == d else X[:, standard], group)
            shift[standard], scale[standard] = found.shift, found.scale
        for k, name in enumerate(names):
            if name in ("none", "standard"):
                continue
            if name not in SCALINGS:
                raise InputError(f"scaling: unknown {shown(name)}{did_you_mean(name, SCALINGS)}")
            x = X[:, k].astype(np.float64)
            if name == "quantile":
                knots[k] = _knots(x)
                continue
            shift[k], scale[k] = FITTED[name](x)
        logs = np.array([name == "log1p" for name in names])
        clipped = np.array([name == "robust" for name in names])
        limits = np.where(clipped, CLIP, np.inf) if clipped.any() else None
        return cls(shift, scale, logs if logs.any() else None, limits, knots)

    @property
    def affine(self) -> bool:
        """Whether it is (1) alone."""
        return self.logs is None and self.limits is None and not self.knots

    def leaves(self, k: int) -> bool:
        """Whether column k stays as it is."""
        plain = self.shift[k] == 0 and self.scale[k] == 1 and k not in self.knots
        logs = self.logs is not None and self.logs[k]
        return bool(plain and not logs and (self.limits is None or np.isinf(self.limits[k])))

    def repeated(self, spreads: Sequence[bool]) -> "Scaling":
        """Each column once for each of ``spreads``, without its shift where that is True: of
        widths, which a shift leaves as they are. InputError where widths have no scale.

        >>> of_both = Scaling(np.array([5.0]), np.array([2.0])).repeated([False, True])
        >>> of_both.invert(np.ones((1, 2)))
        array([[7., 2.]])
        """
        if any(spreads) and not self.affine:
            raise InputError("a deviation has no scale of its own here: use 'standard' or 'range'")
        k = len(spreads)
        shift, scale = np.repeat(self.shift, k), np.repeat(self.scale, k)
        shift = np.where(np.tile(spreads, len(self.shift)), 0.0, shift)
        logs, limits = (None if x is None else np.repeat(x, k) for x in (self.logs, self.limits))
        knots = {k * j + i: x for j, x in self.knots.items() for i in range(k)}
        return Scaling(shift, scale, logs, limits, knots)

    def __repr__(self) -> str:
        """How many columns, and the range of what they are shifted and divided by."""
        low, high, narrow, wide = (
            f"{x:.4g}" for v in (self.shift, self.scale) for x in (np.min(v), np.max(v))
        )
        return (
            f"Scaling({len(self.shift)} columns, shift {low} to {high}, scale {narrow} to {wide})"
        )

    def apply(self, X: np.ndarray, dtype: DTypeLike) -> np.ndarray:
        """X (n, d) scaled, in `dtype`. Computed in float64: years or prices keep their digits.

        Raises InputError for X of other columns, and for values that are beyond the dtype's range.
        """
        if X.shape[1:] != self.shift.shape:
            raise InputError(f"the scaling is of {self.shift.shape} columns, X of {X.shape[1:]}")
        scaled = np.empty(X.shape, dtype)
        cast(X, scaled, self)
        return scaled

    def forward(self, X: np.ndarray) -> np.ndarray:
        """X (n, d) scaled, in float64, whatever is in it."""
        X = X.astype(np.float64)
        u = X if self.logs is None else np.where(self.logs, log1p(np, X), X)
        u = (u - self.shift) / self.scale
        if self.limits is not None:
            u = clip(np, u, self.limits)
        for k, (values, z) in self.knots.items():
            u[:, k] = np.interp(X[:, k], values, z)
        return u

    def invert(self, Y: np.ndarray) -> np.ndarray:
        """The inverse, (2) for (1), in the dtype of Y (n, d). What (4) and (6) cannot give, as a
        net's output may be, is the nearest value that they can."""
        u = Y
        if self.limits is not None:
            near = np.clip(Y / self.limits, -INSIDE, INSIDE)
            u = Y / np.sqrt(1.0 - np.square(near))
        u = u * self.scale + self.shift
        if self.logs is not None:
            u = np.where(self.logs, np.sign(u) * np.expm1(np.abs(u)), u)
        for k, (values, z) in self.knots.items():
            u[:, k] = np.interp(Y[:, k], z, values)
        return u.astype(np.result_type(Y, np.float32), copy=False)

    # ------------------------------------------------------------------ in a file

    def tensors(self) -> dict[str, np.ndarray]:
        """All of it as arrays, by name."""
        found: dict[str, np.ndarray] = {"shift": self.shift, "scale": self.scale}
        if self.logs is not None:
            found["logs"] = self.logs.astype(np.uint8)
        if self.limits is not None:
            found["limits"] = self.limits
        if self.knots:
            found["knots_of"] = np.array(list(self.knots), np.int64)
            found["knots_at"] = np.cumsum([x.shape[1] for x in self.knots.values()])
            found["knots"] = np.concatenate(list(self.knots.values()), axis=1)
        return found

    @classmethod
    def from_tensors(cls, found: Mapping[str, np.ndarray]) -> "Scaling":
        """The scaling of `tensors`. Raises InputError where they do not fit together."""
        logs, knots = found.get("logs"), {}
        if "knots" in found:
            ends, of = found["knots_at"], found["knots_of"]
            whole = ends.dtype.kind == of.dtype.kind == "i" and len(set(of.tolist())) == len(of)
            if not whole or not len(ends) or ends[-1] != found["knots"].shape[-1]:
                raise InputError("scaling: its quantiles are not as many as it says")
            parts = np.split(found["knots"], ends[:-1], axis=1)
            knots = dict(zip(of.tolist(), parts, strict=True))
        logs = None if logs is None else logs.astype(bool)
        return cls(found["shift"], found["scale"], logs, found.get("limits"), knots)


INSIDE = 1.0 - 2.0**-40  # of (4), where its inverse begins to have no digits


def log1p(xp: Any, x: Any) -> Any:
    """(5), without what comes after it."""
    return xp.sign(x) * xp.log1p(xp.abs(x))


def clip(xp: Any, u: Any, limits: Any) -> Any:
    """(4); what has no limit stays as it is."""
    r = u / limits
    return u / xp.sqrt(1.0 + r * r)


def _standard(x: np.ndarray) -> tuple[float, float]:
    found = Scaling.standard(x[:, None])
    return float(found.shift[0]), float(found.scale[0])


def _range(x: np.ndarray) -> tuple[float, float]:
    return float(x.min()), float(x.max() - x.min()) or 1.0


def _robust(x: np.ndarray) -> tuple[float, float]:
    low, middle, high = np.quantile(x, [0.25, 0.5, 0.75])
    return float(middle), float(high - low) or float(x.max() - x.min()) / 2 or 1.0


def _log1p(x: np.ndarray) -> tuple[float, float]:
    return _standard(log1p(np, x))


FITTED: dict[str, Callable[[np.ndarray], tuple[float, float]]] = {
    "range": _range,
    "robust": _robust,
    "log1p": _log1p,
}


def _are_knots(x: object) -> bool:
    """Whether these are what `_knots` gives."""
    if not isinstance(x, np.ndarray):
        return False
    table = x.dtype.kind == "f" and x.ndim == 2 and x.shape[0] == 2 and x.shape[1] > 0
    return table and bool(np.isfinite(x).all() and (np.diff(x[0]) > 0).all())


def _knots(x: np.ndarray) -> np.ndarray:
    """The values and their z of (6), (2, k): both rise, equal values have the mean of their z."""
    k = min(KNOTS, len(x))
    share = (np.arange(k) + 0.5) / k
    z = np.array([NormalDist().inv_cdf(p) for p in share])
    values, place, often = np.unique(np.quantile(x, share), return_inverse=True, return_counts=True)
    return np.stack([values, np.bincount(place, z) / often])


# ------------------------------------------------------------------------------ on the host


def cast(
    x: np.ndarray,
    out: np.ndarray,
    scaling: Scaling | None = None,
    what: str = "X",
    columns: Sequence[str] | None = None,
) -> None:
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
                if scaling.affine:
                    shifted = x[rows] - scaling.shift
                    np.divide(shifted, scaling.scale, out=out[rows], casting="unsafe")
                else:
                    np.copyto(out[rows], scaling.forward(x[rows]), "unsafe")
    except FloatingPointError as error:
        raise _too_large(x, scaling, out.dtype, what, columns) from error


def _too_large(
    x: np.ndarray,
    scaling: Scaling | None,
    dtype: np.dtype,
    what: str,
    columns: Sequence[str] | None,
) -> InputError:
    """What to say of values that the dtype cannot hold."""
    largest = _largest(dtype)
    with np.errstate(over="ignore"):
        units = x if scaling is None else scaling.forward(x)
        beyond = ~(np.abs(units) <= largest)
    scaled = "" if scaling is None else "once scaled "
    cure = "correct them" + ", or use a model of dtype float64" * (dtype != np.float64)
    if dtype == np.float16:
        cure = "scale the inputs, or use precision 'float32'"
    first = int(beyond.argmax())
    k = first % math.prod(x.shape[1:])
    column = k if columns is None else repr(columns[k])
    return InputError(
        f"{what}: {int(beyond.sum())} values are {scaled}beyond the range of {dtype.name}, "
        f"{largest:.2g}, the first of them {x.reshape(-1)[first]:.3g} in column {column}; "
        f"{cure}"
    )


def _largest(dtype: np.dtype) -> float:
    """The largest number of a dtype; NumPy knows no more of bfloat16 than its name."""
    if dtype.name != "bfloat16":
        return float(np.finfo(dtype).max)
    return (2.0 - 2.0**-7) * 2.0**127


class Cast:
    """A host array, sparse matrix or rows on disk as the network takes them: `cast` of those that
    are asked for, and of all of them where an array is asked for."""

    def __init__(
        self,
        x: Any,
        dtype: str,
        scaling: Scaling | None,
        what: str,
        columns: Sequence[str] | None = None,
    ):
        self.x, self.scaling, self.about = x, scaling, (what, columns)
        self.shape, self.dtype = x.shape, np.dtype(dtype)

    def rows_to(self, rows: slice | np.ndarray, out: np.ndarray) -> None:
        """out <- these rows."""
        x = self.x[rows]
        cast(x if isinstance(x, np.ndarray) else x.toarray(), out, self.scaling, *self.about)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        made = np.empty(self.shape, self.dtype)
        cast(self.x, made, self.scaling, *self.about)
        return made if dtype is None else made.astype(dtype, copy=False)


def _check_rows(X: Any) -> None:
    """InputError for what has no rows and columns of numbers."""
    if len(getattr(X, "shape", ())) < 2 or not len(X):
        raise InputError(f"a scaling needs rows and columns, (n, d), not {shown(X, 60)}")
    kind = getattr(getattr(X, "dtype", None), "kind", "f")
    if kind not in "biuf":
        raise InputError(f"a scaling is of numbers, not of {X.dtype}")


def _chunks(X: np.ndarray, values: int = 2**18) -> list[slice]:
    """Slices of about 2 MB of float64 each, so that no large array is widened at once."""
    rows = max(1, values // max(1, math.prod(X.shape[1:])))
    return [slice(start, start + rows) for start in range(0, len(X), rows)]


# ------------------------------------------------------------------------------ on a device


NARROW = ("float16", "bfloat16")  # whose range ends before float32's


def cast_on_device(
    backend: Backend,
    x: Array,
    dtype: str,
    scaling: Scaling | None = None,
    what: str = "X",
    columns: Sequence[str] | None = None,
) -> Array:
    """x, an array of the backend's, in the dtype, scaled before it is rounded (1): in float64 where
    the device has it, some rows at a time; where it has not, of the float32 that x is or becomes.

    Raises InputError if a value is beyond the range of the dtype, naming its column.
    """
    given = dtype_name(x)
    exact = given == dtype or (dtype not in NARROW and given != "float64")
    if scaling is None and exact:  # nothing can be out of range, nothing is scaled
        return backend.asarray(x, dtype)
    out = backend.empty(x.shape, dtype)
    if not backend.owns(out):  # a device that only counts has no values
        return out
    if scaling is not None and scaling.knots:
        cast(backend.to_numpy(x), made := np.empty(x.shape, dtype), scaling, what, columns)
        return backend.asarray(made, dtype)
    xp, wide = backend.xp, widest(backend)
    if scaling is not None:
        near = scaling.shift.astype(wide)
        shifts = [near] if wide == "float64" else [near, scaling.shift - near]
        shifts = [backend.asarray(shift, wide) for shift in shifts]
        scale = backend.asarray(scaling.scale, wide)
        logs = None if scaling.logs is None else backend.asarray(scaling.logs)
        limits = None if scaling.limits is None else backend.asarray(scaling.limits, wide)
    rows = max(1, ON_DEVICE // x.shape[1])
    for i in range(0, x.shape[0], rows):
        part = slice(i, min(i + rows, x.shape[0]))
        values = x[part, :]
        if scaling is not None:
            values = xp.astype(values, getattr(xp, wide))
            if logs is not None:
                values = xp.where(logs, log1p(xp, values), values)
            for shift in shifts:
                values = values - shift
            values = values / scale
            if limits is not None:
                values = clip(xp, values, limits)
        backend.copy(values, out[part, :])
    if not all_finite(backend, out):
        raise _too_large(backend.to_numpy(x), scaling, np.dtype(dtype), what, columns)
    return out


def invert_on_device(backend: Backend, y: Array, scaling: Scaling) -> Array:
    """x = x' · scale + shift (2) of a backend's array, in float64 where the device has it."""
    wide = widest(backend)
    if not scaling.affine:
        return backend.asarray(scaling.invert(backend.to_numpy(y).astype(np.float64)), wide)
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


def scale_to(xp: Any, out: Array, x: Array, shift: Array, scale: Array) -> Array:
    """(1) in float64, rounded as it is written: the bits of `cast`."""
    return (x - shift) / scale


def rescale(xp: Any, x: Array, shift: Array, factor: Array) -> Array:
    """(1) in the network's dtype, with factor = 1 / scale."""
    return (x - shift) * factor


def rescale_to(xp: Any, narrow: Array, x: Array, shift: Array, factor: Array) -> Array:
    """The same into a narrower dtype, for which numbers may be too large before they are scaled."""
    return (x - shift) * factor
