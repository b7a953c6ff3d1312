"""The search for values that are missing or not finite: one pass, no second array, and the columns
by name."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from backends import Array, Backend
from mlp.errors import InputError
from mlp.parallel.group import ALONE, Group

CHECKED = 1 << 22  # elements that are looked at together on a device
SMALL = 1 << 12  # elements of which a copy costs nothing


def check_finite(X: np.ndarray, columns: Sequence[str] | None, source: str) -> None:
    """InputError if a value of X (n, d) is NaN or infinite; an array of integers cannot be.

    Without names the columns are counted from 0.

    >>> check_finite(np.array([[1.0, np.nan], [2.0, 3.0]]), ["age", "rooms"], "homes.csv")
    Traceback (most recent call last):
    ...
    mlp.errors.InputError: homes.csv: 1 of 2 rows has a missing, NaN or infinite value, in column \
'rooms' (1); fill in these values or leave the rows or columns out
    """
    if X.dtype.kind != "f" or is_finite(X):
        return
    search = Search(columns, source)
    search.add(X)
    search.end()


class Search:
    """The same of rows that come in pieces, (k, d) each."""

    def __init__(self, columns: Sequence[str] | None, source: str):
        self.columns, self.source = columns, source
        self.rows = self.bad = 0
        self.per_column: np.ndarray | int = 0

    def add(self, X: np.ndarray) -> None:
        """Look through these rows too."""
        self.rows += len(X)
        if X.dtype.kind != "f":
            return
        if math.isfinite(_sum_of_all(X)):  # one pass, no second array
            return
        if (finite := np.isfinite(X)).all():  # large numbers may have a sum that is not finite
            return
        self.per_column = self.per_column + len(X) - finite.sum(axis=0)
        self.bad += len(X) - int(finite.all(axis=1).sum())

    def end(self, group: Group = ALONE) -> None:
        """InputError if a value was not finite, in the rows of all ranks."""
        found = group.gather((self.rows, self.bad, self.per_column))
        self.rows, self.bad, self.per_column = map(sum, zip(*found, strict=True))
        if not self.bad:
            return
        per_column = np.asarray(self.per_column)
        bad = np.flatnonzero(per_column)
        columns = self.columns
        names = {k: f"column {k}" if columns is None else columns[k] for k in bad[:5]}
        where = ", ".join(f"{name!r} ({per_column[k]})" for k, name in names.items())
        more = f" and {len(bad) - 5} more" if len(bad) > 5 else ""
        raise InputError(
            f"{self.source}: {self.bad} of {self.rows} rows {'has' if self.bad == 1 else 'have'} "
            f"a missing, NaN or infinite value, in column{'s' if len(bad) > 1 else ''} "
            f"{where}{more}; fill in these values or leave the rows or columns out"
        )


def has_nan(X: np.ndarray) -> bool:
    """Whether a number of X is NaN; an array of integers has none.

    >>> has_nan(np.array([1.0, np.inf])), has_nan(np.array([1.0, np.nan]))
    (False, True)
    """
    if X.dtype.kind != "f" or math.isfinite(_sum_of_all(X)):
        return False
    return bool(np.isnan(X).any())


def unmasked(x: Any, what: str) -> Any:
    """x, of a NumPy masked array its data; InputError if something is masked there.

    >>> unmasked(np.ma.masked_equal([1, 2, 2], 2), "X")
    Traceback (most recent call last):
    ...
    mlp.errors.InputError: X has 2 masked values; fill them, X.filled(...), or leave their rows out
    """
    if not isinstance(x, np.ma.MaskedArray):
        return x
    if masked := int(np.ma.count_masked(x)):
        raise InputError(
            f"{what} has {masked} masked values; fill them, {what}.filled(...), or leave their "
            "rows out"
        )
    return np.asarray(x.data)


def as_array(x: Any, what: str) -> np.ndarray:
    """x as a host array; InputError for lists that are none.

    >>> as_array([[1, 2], [3]], "X")
    Traceback (most recent call last):
    ...
    mlp.errors.InputError: X is no array: its rows differ in length, or lists are nested too deep
    """
    try:
        return np.asarray(x)
    except ValueError as error:
        raise InputError(
            f"{what} is no array: its rows differ in length, or lists are nested too deep"
        ) from error


def is_gap(cell: Any) -> bool:
    """Whether a cell of an array of objects has no value: None, NaN, NaT, or NA of pandas.

    >>> [is_gap(cell) for cell in (None, float("nan"), np.datetime64("NaT", "us"), 0, "", (1, 2))]
    [True, True, True, False, False, False]
    """
    if cell is None or type(cell).__name__ == "NAType":
        return True
    unequal = cell != cell
    return isinstance(unequal, (bool, np.bool_)) and bool(unequal)


def all_finite(backend: Backend, x: Array) -> bool:
    """Whether no value of an array of the backend's is NaN or infinite; x : (n, d) numbers."""
    xp = backend.xp
    if not xp.isdtype(x.dtype, "real floating"):
        return True
    rows = max(1, CHECKED // x.shape[1])
    with backend.scope():
        return all(
            bool(backend.to_numpy(xp.all(xp.isfinite(x[i : min(i + rows, x.shape[0]), :]))))
            for i in range(0, x.shape[0], rows)
        )


def is_finite(y: np.ndarray) -> bool:
    """Whether no value of a host array is NaN or infinite; of a small one in half a microsecond."""
    return math.isfinite(_sum_of_all(y)) or bool(np.isfinite(y).all())


def _sum_of_all(X: np.ndarray) -> float:
    """The sum of all values, or of their squares where X is small or BLAS takes it as it is."""
    if X.size <= SMALL:
        return float(np.vdot(X, X))  # which copies what is no row of memory, and never warns
    with np.errstate(over="ignore", invalid="ignore"):
        if X.dtype.char in "fd" and X.flags.c_contiguous:
            flat = X.reshape(-1)
            return float(np.dot(flat, flat))
        return float(X.sum())
