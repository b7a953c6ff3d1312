"""The order of the samples in an epoch and the rows held out: functions of the seed alone."""

import numpy as np

from mlp.data.labels import as_labels
from mlp.errors import InputError
from mlp.seeds import generator


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
    group = np.zeros(n, np.int64) if labels is None else as_labels(labels, "the labels of a split")
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
