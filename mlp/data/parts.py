"""Which rows are held out: a share at random, the last ones, those of a value, whole groups.

All are functions of the rows and the seed; each gives two sorted arrays of row numbers, those
to train on and those held out, that have no row in common.
"""

from collections.abc import Sequence

import numpy as np

from mlp.data.order import split
from mlp.data.preprocessing import texts_of
from mlp.data.tables import Column
from mlp.errors import InputError, did_you_mean, shown
from mlp.seeds import generator

Rows = tuple[np.ndarray, np.ndarray]


def last_rows(n: int, fraction: float) -> Rows:
    """The last rows held out, as many as the fraction says: what comes later, in series in time.

    >>> [rows.tolist() for rows in last_rows(5, 0.4)]
    [[0, 1, 2], [3, 4]]
    """
    size = round(n * fraction)
    if not 0 < size < n:
        raise InputError(
            f"the last {fraction:.4g} of {n} rows leaves {n - size} to train on and {size} held "
            "out; each needs at least 1: change the fraction or give more rows"
        )
    return np.arange(n - size), np.arange(n - size, n)


def rows_where(column: Column, value: str) -> Rows:
    """The rows held out whose cell in the column is this text.

    >>> column = Column("split", np.array(["a", "b", "a"], object))
    >>> [rows.tolist() for rows in rows_where(column, "b")]
    [[0, 2], [1]]
    """
    texts = texts_of(column)
    held = texts == value
    if not held.any():
        known = sorted(set(texts.tolist()))
        raise InputError(
            f"no row has {shown(value)} in column {shown(column.name)}{did_you_mean(value, known)}"
        )
    if held.all():
        raise InputError(
            f"all rows have {shown(value)} in column {shown(column.name)}; none is left"
        )
    return np.flatnonzero(~held), np.flatnonzero(held)


def split_groups(column: Column, fraction: float, seed: int) -> Rows:
    """Whole groups held out, in a random order as long as they come nearer to the fraction of the
    rows: no group has rows on both sides. Rows without a group are refused.

    >>> patients = Column("patient", np.array([1, 1, 2, 2, 3, 3]))
    >>> train, held_out = split_groups(patients, 0.3, seed=0)
    >>> len(held_out), set(patients.values[train]) & set(patients.values[held_out])
    (2, set())
    """
    if column.gaps is not None:
        many = np.count_nonzero(column.gaps)
        raise InputError(f"{many} rows have no value in the column of groups, {shown(column.name)}")
    _, group, counts = np.unique(texts_of(column), return_inverse=True, return_counts=True)
    if len(counts) < 2:
        raise InputError(f"column {shown(column.name)} has one group alone; two are needed")
    wanted, held, rows = len(group) * fraction, np.zeros(len(counts), bool), 0
    for one in generator(seed, "split").permutation(len(counts)):
        if abs(rows + counts[one] - wanted) < abs(rows - wanted):
            held[one], rows = True, rows + counts[one]
    if not held.any():
        held[counts.argmin()] = True
    if held.all():
        held[counts.argmin()] = False
    mask = held[group]
    return np.flatnonzero(~mask), np.flatnonzero(mask)


def split_rows(
    n: int,
    fraction: float,
    seed: int,
    labels: np.ndarray | None = None,
    groups: Column | None = None,
) -> Rows:
    """A share of the rows at random: of each class its share, or whole groups."""
    if groups is not None:
        return split_groups(groups, fraction, seed)
    return split(n, fraction, seed, labels=labels)


def trained_on(train: Sequence[Column], part: Sequence[Column]) -> tuple[int, bool]:
    """How many rows of a part are rows to train on too, by all of these columns; and whether rows
    can be told apart, most of those to train on being different.

    >>> one, other = Column("a", np.array([1.0, 2.0])), Column("a", np.array([2.0, 7.0]))
    >>> trained_on([one], [other])
    (1, True)
    """
    pairs = [_coded(a, b) for a, b in zip(train, part, strict=True)]
    of, keys = (row_keys(np.column_stack(x)) for x in zip(*pairs, strict=True))
    return int(np.isin(keys, of).sum()), 2 * len(np.unique(of)) > len(of)


def _coded(a: Column, b: Column) -> tuple[np.ndarray, np.ndarray]:
    """The values of two columns as numbers that are equal where the values are."""
    if a.values.dtype.kind in "biuf" and b.values.dtype.kind in "biuf":
        return _floats(a), _floats(b)
    _, codes = np.unique(np.concatenate([texts_of(a), texts_of(b)]), return_inverse=True)
    return codes[: len(a)].astype(np.float64), codes[len(a) :].astype(np.float64)


def _floats(column: Column) -> np.ndarray:
    values = column.values.astype(np.float64)
    return values if column.gaps is None else np.where(column.gaps, np.nan, values)


def row_keys(X: np.ndarray) -> np.ndarray:
    """A number for each row of X (n, d), (n,) uint64, that is the same for the same row, and for
    two others with a chance of 2^-64: Σ m(x_k) r_k with random odd r and a mixing m.

    >>> keys = row_keys(np.array([[1.0, 2.0], [2.0, 1.0], [1.0, 2.0]]))
    >>> bool(keys[0] == keys[2]), bool(keys[0] == keys[1])
    (True, False)
    """
    r = generator(0, "split").integers(0, 2**64, X.shape[1], np.uint64) | np.uint64(1)
    keys = np.empty(len(X), np.uint64)
    rows = max(1, (1 << 20) // X.shape[1])
    for start in range(0, len(X), rows):
        x = X[start : start + rows].astype(np.float64) + 0.0  # -0 is 0
        x[np.isnan(x)] = np.nan
        bits = np.ascontiguousarray(x).view(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        bits ^= bits >> np.uint64(32)
        keys[start : start + rows] = (bits * r).sum(axis=1, dtype=np.uint64)
    return keys
