"""Class labels: from the text or whole numbers that people write to class numbers, and back."""

import numpy as np

from mlp.errors import InputError


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
