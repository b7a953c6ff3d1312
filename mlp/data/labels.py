"""Class labels: from the text or whole numbers that people write to class numbers, and back.

What a loss takes in their place follows from the kind of its targets (`mlp.formulas.target_kinds`)
and the number c of outputs:

    classes                     class numbers, (n,)
    labels, numbers, c = 1      0 for the first class and 1 for the second
    labels, numbers, c > 1      rows of the unit matrix, (n, c)
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from mlp.errors import InputError


def class_labels(t: np.ndarray, source: str = "t") -> tuple[np.ndarray, np.ndarray]:
    """The sorted classes (k,) of the labels t (n,), and the index of each row's class, (n,) int64.

    >>> class_labels(np.array(["cat", "ant", "cat"]))
    (array(['ant', 'cat'], dtype='<U3'), array([1, 0, 1]))
    """
    classes, indices = np.unique(as_labels(t, source), return_inverse=True)
    if len(classes) < 2:
        only = f"only one class, {classes[0].item()!r}" if len(classes) else "no labels"
        raise InputError(f"{source} holds {only}; a classifier needs at least two classes")
    return classes, indices.astype(np.int64, copy=False)


def encode(t: np.ndarray, classes: np.ndarray, source: str) -> np.ndarray:
    """The index (n,) int64 in the classes (k,), in any order, of each label of t (n,).

    >>> encode(np.array([7, 3, 7]), np.array([3, 5, 7]), "test.csv")
    array([2, 0, 2])
    """
    t = as_labels(t, source)
    if (t.dtype.kind == "U") == (classes.dtype.kind == "U"):
        order = np.argsort(classes, kind="stable")
        places = np.minimum(np.searchsorted(classes, t, sorter=order), len(classes) - 1)
        indices = order[places].astype(np.int64, copy=False)
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


def targets_of(
    t: Any, classes: np.ndarray | None, kind: str, outputs: int, source: str = "t"
) -> np.ndarray:
    """The targets for a loss of this kind and so many outputs, of labels (n,) of these classes.

    What are no labels stays as it is: columns (n, c), numbers that are not whole for a loss of
    numbers, and numbers where the classes are text, which are class numbers or targets already.

    >>> targets_of(["b", "a"], np.array(["a", "b"]), "classes", 2)
    array([1, 0])
    >>> targets_of([5, 7], np.array([5, 7]), "numbers", 2).tolist()
    [[1.0, 0.0], [0.0, 1.0]]
    """
    t = np.asarray(t)
    if classes is None or t.ndim != 1 or not len(t):
        return t
    if t.dtype.kind in "biuf" and (
        classes.dtype.kind == "U" or (kind != "classes" and are_shares(t))
    ):
        return t
    indices = encode(t, classes, source)
    if kind == "classes" or outputs == 1:
        return indices
    return np.eye(outputs)[indices]


def learned_classes(
    t: Any, kind: str, source: str = "t", names: Sequence[str] | None = None
) -> np.ndarray | None:
    """The classes that labels t (n,) name, for a loss of this kind; None where it has no classes.

    names : of the columns, if t has a column for each class, (n, c).
    Raises InputError for labels that the loss cannot tell apart.
    """
    t = np.asarray(t)
    if t.ndim == 2:
        named = kind == "classes" and names is not None and len(names) == t.shape[1]
        return np.asarray(names) if named else None
    if kind == "classes":
        return class_labels(t, source)[0]
    if kind == "labels" and not are_shares(t):
        classes, _ = class_labels(t, source)
        if len(classes) > 2:
            raise InputError(
                f"{source} holds {len(classes)} classes, binary_cross_entropy is for two on one "
                "output; use loss 'cross_entropy', with one unit a class in the last layer"
            )
        return classes
    if t.dtype.kind == "U":
        raise InputError(
            f"{source} holds text ({t[0].item()!r}), this loss is for numbers; to tell classes "
            "apart use loss 'cross_entropy', or name another target"
        )
    return None


def are_text(t: Any) -> bool:
    """Whether these are labels in words; as an array of objects, if the first of them is."""
    t = np.asarray(t)
    return t.dtype.kind in "UT" or (
        t.dtype.kind == "O" and t.size > 0 and isinstance(t.flat[0], str)
    )


def are_numbers(t: np.ndarray, classes: int) -> bool:
    """Whether these are class numbers, whole ones from 0 to classes - 1."""
    return t.dtype.kind in "biuf" and bool(np.isin(t, np.arange(classes)).all())


def are_shares(t: np.ndarray) -> bool:
    """Whether these are numbers that are not all whole, so no labels."""
    return t.dtype.kind == "f" and bool((t != np.round(t)).any())


def as_labels(t: np.ndarray, source: str) -> np.ndarray:
    """t as one column of text or of whole numbers."""
    t = np.asarray(t)
    if t.ndim != 1:
        raise InputError(f"{source}: labels must be one column, these have shape {t.shape}")
    if t.dtype.kind == "T":  # NumPy's text of any length
        t = t.astype(str)
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
