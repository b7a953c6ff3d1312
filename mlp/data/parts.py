"""Which rows are held out: a share at random, the last ones, those of a value, whole groups.

All are functions of the rows and the seed; each gives two sorted arrays of row numbers, those
to train on and those held out, that have no row in common.
"""

import numpy as np

from mlp.data.order import split
from mlp.data.preprocessing import texts_of
from mlp.data.tables import Column
from mlp.errors import InputError, did_you_mean
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
            f"no row has {value!r} in column {column.name!r}{did_you_mean(value, known)}"
        )
    if held.all():
        raise InputError(f"all rows have {value!r} in column {column.name!r}; none is left")
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
        raise InputError(f"{many} rows have no value in the column of groups, {column.name!r}")
    _, group, counts = np.unique(texts_of(column), return_inverse=True, return_counts=True)
    if len(counts) < 2:
        raise InputError(f"column {column.name!r} has one group alone; two are needed")
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


def common_rows(
    X: np.ndarray, t: np.ndarray | None, of: np.ndarray, of_t: np.ndarray | None
) -> int:
    """How many rows of ``of`` (n, d), with their targets, are rows of X too.

    >>> X = np.array([[1.0, 2.0], [3.0, 4.0]])
    >>> common_rows(X, None, np.array([[3.0, 4.0], [3.0, 5.0]]), None)
    1
    """
    return int(np.isin(_keys(of, of_t), _keys(X, t)).sum())


def _keys(X: np.ndarray, t: np.ndarray | None) -> np.ndarray:
    """A value for each row that is the same for the same row."""
    parts = [np.ascontiguousarray(X.astype(np.float64) + 0.0)]
    if t is not None and t.dtype.kind in "biuf":
        parts.append(t.reshape(len(t), -1).astype(np.float64) + 0.0)
    rows = np.ascontiguousarray(np.concatenate(parts, axis=1))
    return rows.view(np.dtype((np.void, rows.dtype.itemsize * rows.shape[1])))[:, 0]
