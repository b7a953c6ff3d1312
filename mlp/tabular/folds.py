"""Which rows each member is judged by: folds that take turns.

Rows in the order of y are dealt out a handful at a time, one of it to each fold, so that each fold
has its share of every class, and of small and large numbers; rows of one group stay together.
"""

import numpy as np

from mlp.errors import InputError

FEWEST = 5  # folds: a member learns from 4/5 of the rows or more


def folds(y: np.ndarray, members: int, seed: int, groups: np.ndarray | None = None) -> np.ndarray:
    """(n,) the number of each row's fold, from 0 on: ``members`` of them, but at least 5.

    y: (n,) class numbers, or numbers. groups: (n,) of the rows that must not be parted. Raises
    InputError if there are fewer groups than members.

    >>> y = np.array([0, 0, 0, 0, 0, 1, 1, 1, 1, 1])
    >>> found = folds(y, members=5, seed=0)
    >>> sorted(found[y == 0].tolist()), sorted(found[y == 1].tolist())
    ([0, 1, 2, 3, 4], [0, 1, 2, 3, 4])
    """
    rng, many = np.random.default_rng(seed), max(members, FEWEST)
    found = np.empty(len(y), np.int64)
    if groups is None:
        many = min(many, len(y))
        turns = np.tile(np.arange(many), (-(-len(y) // many), 1))
        found[np.lexsort((rng.random(len(y)), y))] = rng.permuted(turns, axis=1).ravel()[: len(y)]
        return found
    _, of_row, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    if len(sizes) < min(members, FEWEST):
        raise InputError(
            f"groups: {len(sizes)} groups cannot be dealt to {members} members; give n_members="
            f"{max(1, len(sizes))}"
        )
    many = min(many, len(sizes))
    filled = np.zeros(many, np.int64)
    of_group = np.empty(len(sizes), np.int64)
    for group in np.lexsort((rng.random(len(sizes)), -sizes)):  # the largest first
        of_group[group] = filled.argmin()
        filled[of_group[group]] += sizes[group]
    return of_group[of_row]
