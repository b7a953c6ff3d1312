"""Which rows each member is judged by: folds that take turns.

Rows in the order of y are dealt out a handful at a time, one of it to each fold, so that each fold
has its share of every class, and of small and large numbers; rows of one group stay together. No
class is in one fold alone, since a member would have to predict what it has never seen: the only
row of a class is in no fold, so that all members learn from it.
"""

import numpy as np

from mlp.errors import InputError

FEWEST = 5  # folds: a member learns from 4/5 of the rows or more


def folds(y: np.ndarray, members: int, seed: int, groups: np.ndarray | None = None) -> np.ndarray:
    """(n,) the number of each row's fold, from 0 on, -1 for one that is in none: ``members`` folds,
    but at least 5, and no more than there are rows, or groups.

    y: (n,) class numbers, or numbers. groups: (n,) of the rows that must not be parted. Raises
    InputError for a single group, if no class has two rows, and if the groups part the classes so
    that all rows but one fold's are of one class.

    >>> y = np.array([0, 0, 0, 0, 0, 1, 1, 1, 1, 1])
    >>> found = folds(y, members=5, seed=0)
    >>> sorted(found[y == 0].tolist()), sorted(found[y == 1].tolist())
    ([0, 1, 2, 3, 4], [0, 1, 2, 3, 4])
    """
    rng, many = np.random.default_rng(seed), max(members, FEWEST)
    of_classes = y.dtype.kind in "iu"
    if groups is None:
        found, dealt = np.full(len(y), -1), np.arange(len(y))
        if of_classes:
            _, of_row, sizes = np.unique(y, return_inverse=True, return_counts=True)
            dealt = np.flatnonzero(sizes[of_row] > 1)
            if not len(dealt):
                raise InputError(
                    f"y: {len(y)} classes have one row each; a class is learned from some rows and "
                    "judged by others"
                )
        many, n = min(many, len(dealt)), len(dealt)
        turns = rng.permuted(np.tile(np.arange(many), (-(-n // many), 1)), axis=1).ravel()[:n]
        order = dealt[np.lexsort((rng.random(n), y[dealt]))]
        found[order] = turns
        if of_classes:
            for rows in np.split(order, np.flatnonzero(np.diff(y[order])) + 1):
                if np.ptp(found[rows]) == 0:
                    found[rows[0]] = (found[rows[0]] + 1) % many
        return found
    _, of_row, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    if len(sizes) < 2:
        raise InputError(
            f"groups: {len(sizes)} groups; a member learns from some and is judged by others"
        )
    many = min(many, len(sizes))
    filled = np.zeros(many, np.int64)
    of_group = np.empty(len(sizes), np.int64)
    for group in np.lexsort((rng.random(len(sizes)), -sizes)):  # the largest first
        of_group[group] = filled.argmin()
        filled[of_group[group]] += sizes[group]
    found = of_group[of_row]
    if of_classes and any(np.ptp(y[found != fold]) == 0 for fold in range(many)):
        raise InputError(
            "groups: nearly all rows of a class are of few groups, so that a member would learn "
            "from one class; give smaller groups"
        )
    return found
