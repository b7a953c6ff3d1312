"""What data goes through before training: checked, coded, ordered, split and scaled, on the host.

X are n rows of d inputs, t their targets (`mlp.readers` reads both from files).

    x' = (x - shift) / scale                                            (1)  scaling, per column
    mean = x_0 + Σ (x - x_0) / n        scale² = Σ (x - mean)² / n      (2)  the standard scaling

In (2) x_0 is the first row: a constant column then has deviations of exactly zero.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import DTypeLike

from mlp.errors import InputError
from mlp.seeds import generator


def check_finite(X: np.ndarray, columns: Sequence[str] | None, source: str) -> None:
    """InputError if a value of X (n, d) is NaN or infinite; an array of integers cannot be.

    Without names the columns are counted from 0.

    >>> check_finite(np.array([[1.0, np.nan], [2.0, 3.0]]), ["age", "rooms"], "homes.csv")
    Traceback (most recent call last):
    ...
    mlp.errors.InputError: homes.csv: 1 of 2 rows has a missing, NaN or infinite value, in column \
'rooms' (1); fill in these values or leave the rows or columns out
    """
    if X.dtype.kind != "f":
        return
    if X.size > 1 << 12 and math.isfinite(_sum_of_all(X)):  # one pass, no second array
        return
    if (finite := np.isfinite(X)).all():  # large numbers may have a sum that is not finite
        return
    per_column = len(X) - finite.sum(axis=0)
    bad = np.flatnonzero(per_column)
    names = {k: f"column {k}" if columns is None else columns[k] for k in bad[:5]}
    where = ", ".join(f"{name!r} ({per_column[k]})" for k, name in names.items())
    more = f" and {len(bad) - 5} more" if len(bad) > 5 else ""
    rows = len(X) - int(finite.all(axis=1).sum())
    raise InputError(
        f"{source}: {rows} of {len(X)} rows {'has' if rows == 1 else 'have'} a missing, NaN or "
        f"infinite value, in column{'s' if len(bad) > 1 else ''} {where}{more}; "
        "fill in these values or leave the rows or columns out"
    )


def _sum_of_all(X: np.ndarray) -> float:
    """The sum of all values, or of their squares where BLAS takes X as it is."""
    with np.errstate(over="ignore", invalid="ignore"):
        if X.dtype.char in "fd" and X.flags.c_contiguous:
            flat = X.reshape(-1)
            return float(np.dot(flat, flat))
        return float(X.sum())


# --- labels ----------------------------------------------------------------------------------


def class_labels(t: np.ndarray, source: str = "t") -> tuple[np.ndarray, np.ndarray]:
    """The sorted classes (k,) of the labels t (n,), and the index of each row's class, (n,) int64.

    >>> class_labels(np.array(["cat", "ant", "cat"]))
    (array(['ant', 'cat'], dtype='<U3'), array([1, 0, 1]))
    """
    classes, indices = np.unique(_labels(t, source), return_inverse=True)
    if len(classes) < 2:
        only = f"only one class, {classes[0].item()!r}" if len(classes) else "no labels"
        raise InputError(f"{source} holds {only}; a classifier needs at least two classes")
    return classes, indices.astype(np.int64, copy=False)


def encode(t: np.ndarray, classes: np.ndarray, source: str) -> np.ndarray:
    """The index (n,) int64 in the sorted classes (k,) of each label of t (n,).

    >>> encode(np.array([7, 3, 7]), np.array([3, 5, 7]), "test.csv")
    array([2, 0, 2])
    """
    t = _labels(t, source)
    if (t.dtype.kind == "U") == (classes.dtype.kind == "U"):
        indices = np.minimum(np.searchsorted(classes, t), len(classes) - 1).astype(np.int64)
        unknown = t[classes[indices] != t]
    else:  # text among numbers or numbers among text: none of them can be known
        indices, unknown = np.zeros(len(t), np.int64), t
    if len(unknown):
        known = ", ".join(repr(label) for label in classes[:10].tolist())
        raise InputError(
            f"{source}: label {unknown[0].item()!r} ({len(unknown)} of {len(t)} rows have an "
            f"unknown label) is not one of the {len(classes)} classes {known}"
            f"{', ...' if len(classes) > 10 else ''}; remove these rows or train with them"
        )
    return indices


def _labels(t: np.ndarray, source: str) -> np.ndarray:
    """t as one column of text or of whole numbers."""
    t = np.asarray(t)
    if t.ndim != 1:
        raise InputError(f"{source}: labels must be one column, these have shape {t.shape}")
    if t.dtype.kind == "O":  # as pandas gives text
        if all(isinstance(label, str) for label in t):
            t = t.astype(str)
        elif all(isinstance(label, (int, float, np.number)) for label in t):
            t = np.array(t.tolist())
        else:
            kinds = ", ".join(sorted({type(label).__name__ for label in t}))
            raise InputError(
                f"{source}: labels are of mixed kinds ({kinds}); "
                "make them all text or all whole numbers"
            )
    if t.dtype.kind == "f" and (fractions := t[t != np.round(t)]).size:  # NaN is unequal too
        raise InputError(
            f"{source}: {fractions[0].item()!r} is not a class label; "
            "use whole numbers or text, or a regression"
        )
    return t


# --- order and split -------------------------------------------------------------------------


def order(seed: int, epoch: int, n: int) -> np.ndarray:
    """The order of the n samples in one epoch, (n,) int64: a function of (seed, epoch) alone.

    >>> bool((order(1, 2, 9) == order(1, 2, 9)).all()), sorted(order(1, 2, 3).tolist())
    (True, [0, 1, 2])
    """
    return generator(seed, "order", epoch).permutation(n).astype(np.int64, copy=False)


def split(
    n: int, fraction: float, seed: int, *, labels: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Indices of the rows to train on and of the `fraction` held out, each sorted, int64.

    labels : (n,); each class then keeps its share among the held-out rows, to less than one row.

    >>> train, held_out = split(10, 0.3, seed=0)
    >>> len(train), len(held_out), sorted([*train.tolist(), *held_out.tolist()]) == list(range(10))
    (7, 3, True)
    """
    if not 0 < fraction < 1:
        raise InputError(f"the held-out fraction must lie between 0 and 1, not be {fraction}")
    size = round(n * fraction)
    if not 0 < size < n:
        raise InputError(
            f"fraction {fraction} of {n} rows leaves {n - size} to train on and {size} held out; "
            "each needs at least 1: change the fraction or give more rows"
        )
    group = np.zeros(n, np.int64) if labels is None else _labels(labels, "the labels of a split")
    if len(group) != n:
        raise InputError(f"a split of {n} rows needs {n} labels, not {len(group)}")
    _, group, counts = np.unique(group, return_inverse=True, return_counts=True)

    # Whole shares first; then one row more for the classes that are missing most of one.
    share = counts * fraction
    take = np.floor(share).astype(np.int64)
    take[np.argsort(take - share, kind="stable")[: size - take.sum()]] += 1

    shuffled = generator(seed, "split").permutation(n).astype(np.int64, copy=False)
    by_class = shuffled[np.argsort(group[shuffled], kind="stable")]
    rank = np.arange(n) - np.repeat(np.cumsum(counts) - counts, counts)  # of a row in its class
    held = rank < np.repeat(take, counts)
    return np.sort(by_class[~held]), np.sort(by_class[held])


# --- scaling ---------------------------------------------------------------------------------


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
