"""Class labels: from the text or whole numbers that people write to class numbers, and back.

What a loss takes in their place follows from the kind of its targets (`mlp.formulas.target_kinds`)
and the number c of outputs:

    classes                     class numbers, (n,)
    labels, numbers, c = 1      0 for the first class and 1 for the second
    labels, numbers, c > 1      rows of the unit matrix, (n, c)

A class is text, a whole number, or True or False, and no two are merged: text is not cut, integers
are compared as integers, and floats from where they no longer tell whole numbers apart are refused.
What is missing is never a class.
"""

import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from decimal import Decimal
from numbers import Integral, Real
from typing import Any, Literal

import numpy as np

from mlp.data.finite import as_array, is_gap, unmasked
from mlp.errors import InputError, did_you_mean, shown

MANY, FEW = 50, 5  # classes, and rows for each, from where numbers seem to be no labels


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
        alike = t
        if t.dtype.kind != "U":  # of one dtype: two would meet in float64, which merges integers
            with np.errstate(invalid="ignore"):
                alike = t.astype(classes.dtype)
        order = np.argsort(classes, kind="stable")
        places = np.minimum(np.searchsorted(classes, alike, sorter=order), len(classes) - 1)
        indices = order[places].astype(np.int64, copy=False)
        unknown = t[(classes[indices] != alike) | (alike != t)]
    else:  # text among numbers or numbers among text: none of them can be known
        indices, unknown = np.zeros(len(t), np.int64), t
    if len(unknown):
        known = ", ".join(repr(label) for label in classes[:10].tolist())
        raise InputError(
            f"{source}: label {shown(unknown[0].item())} ({len(unknown)} of {len(t)} rows have an "
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
    t = typed(t, source)
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
    Raises InputError for labels that the loss cannot tell apart. Warns where they seem to be
    numbers that were meant to be predicted as such: more than 50 different ones, and fewer than 5
    rows for each.
    """
    t = typed(t, source)
    if t.ndim == 2:
        named = kind == "classes" and names is not None and len(names) == t.shape[1]
        return np.asarray(names) if named else None
    if kind == "classes":
        classes, _ = class_labels(t, source)
        if t.dtype.kind in "iuf" and len(classes) > MANY and len(t) < FEW * len(classes):
            warnings.warn(
                f"{source} holds {len(classes)} classes for {len(t)} rows, and all are numbers; to "
                "predict numbers use loss 'mean_squared_error'",
                stacklevel=2,
            )
        return classes
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
            f"{source} holds text ({shown(t[0].item())}), this loss is for numbers; to tell "
            "classes apart use loss 'cross_entropy', or name another target"
        )
    return None


def class_weights(
    classes: np.ndarray, indices: np.ndarray, spec: Mapping[Any, float] | Literal["balanced"]
) -> np.ndarray:
    """A weight for each row by its class, (n,) float64: with the sample weights a product.

    classes : (k,).  indices : (n,) int64, of each row's class.
    spec : "balanced", so that the rows of each class that is there weigh as much in all:
    n / (classes that are there · rows of this class); or the weights by class, 1 where there is
    none. A class is named as it is or by its text, as TOML writes keys.

    Raises InputError for a class that is not there, and for a weight that is not a number from 0
    on. Source: scikit-learn's `compute_sample_weight`, which this agrees with.

    >>> class_weights(np.array(["ant", "bee"]), np.array([0, 0, 0, 1]), "balanced")
    array([0.66666667, 0.66666667, 0.66666667, 2.        ])
    >>> class_weights(np.array([3, 5]), np.array([0, 1]), {"5": 2.5})
    array([1. , 2.5])
    """
    weights = np.ones(len(classes))
    if isinstance(spec, str):
        if spec != "balanced":
            raise InputError(
                f"class_weight must be 'balanced' or a weight for each class, not {shown(spec)}"
            )
        counts = np.bincount(indices, minlength=len(classes))
        there = counts > 0
        weights[there] = len(indices) / (there.sum() * counts[there])
        return weights[indices]
    places = {name: k for k, name in enumerate(classes.tolist())}
    by_text = {str(name): k for name, k in places.items()}
    for name, weight in spec.items():
        place = places.get(name, by_text.get(str(name)))
        if place is None:
            raise InputError(f"class_weight: no class {shown(name)}{did_you_mean(name, by_text)}")
        number = isinstance(weight, Real) and not isinstance(weight, (bool, np.bool_))
        if not (number and 0 <= weight < np.inf):
            raise InputError(
                f"class_weight: {shown(name)} must be a number from 0 on, not {shown(weight)}"
            )
        weights[place] = weight
    return weights[indices]


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


def as_labels(t: Any, source: str) -> np.ndarray:
    """t as one column of text, of whole numbers or of True and False; InputError if it is none."""
    t = typed(t, source)
    if t.ndim != 1:
        raise InputError(f"{source}: labels must be one column, these have shape {t.shape}")
    if t.dtype.kind == "O":
        kinds = sorted({type(label).__name__ for label in t})
        if len(kinds) > 1:
            raise InputError(
                f"{source}: labels are of mixed kinds ({', '.join(kinds)}); "
                "make them all text or all whole numbers"
            )
    if t.dtype.kind not in "Ubiuf" and len(t):
        raise InputError(
            f"{source}: {shown(t[0])} is no class label; a class is text, a whole number, or True "
            "or False, as str() of these"
        )
    if t.dtype.kind == "f":
        if gaps := int(np.isnan(t).sum()):
            raise _missing(gaps, len(t), source)
        if (fractions := t[t != np.round(t)]).size:
            raise InputError(
                f"{source}: {shown(fractions[0].item())} is not a class label; "
                "use whole numbers or text, or a regression"
            )
        exact = 2.0 ** (np.finfo(t.dtype).nmant + 1)  # from here on some are left out
        if (large := t[np.abs(t) >= exact]).size:
            raise InputError(
                f"{source}: {shown(large[0].item())} is not a class label: {t.dtype} does not tell "
                "whole numbers of this size apart; give labels as integers or as text"
            )
    return t


def typed(t: Any, source: str) -> np.ndarray:
    """t as an array whose dtype says what its cells are: text, whole numbers, numbers, True and
    False; of cells that are neither of them, or of mixed kinds, an array of objects.

    Raises InputError where cells of objects are missing, or masked.

    >>> typed(np.array([3, np.int64(2)], object), "t")
    array([3, 2])
    >>> typed(["moss", None], "t")
    Traceback (most recent call last):
    ...
    mlp.errors.InputError: t: 1 of 2 values are missing; fill them in or leave these rows out
    """
    array = as_array(unmasked(t, source), source)
    if isinstance(t, (list, tuple)) and array.ndim == 1 and len(t):
        # NumPy makes text of 1 beside "a".
        if any(hasattr(cell, "__dlpack__") for cell in t):  # numbers of other libraries
            return array
        array = np.fromiter(t, object, len(t))
    if array.dtype.kind == "T":  # NumPy's text of any length
        array = array.astype(object)
    if array.dtype.kind != "O":
        return array
    cells = array.ravel().tolist()
    if gaps := sum(map(is_gap, cells)):
        raise _missing(gaps, len(cells), source)
    made = _of_one_kind(cells, array.ndim > 1)
    return array if made is None else made.reshape(array.shape)


def _of_one_kind(cells: list[Any], columns: bool) -> np.ndarray | None:
    """The cells as an array of text, bool, int64, uint64 or float64, if they can be one. In columns
    True and False may stand beside numbers, as 1 and 0."""
    kinds = set(map(type, cells))

    def all_are(*wanted: type) -> bool:
        return all(issubclass(kind, wanted) for kind in kinds)

    if all_are(str):
        plain = list(map(str.__str__, cells))  # a member of an Enum as its value
        return None if any(text.endswith("\0") for text in plain) else np.array(plain, str)
    if all_are(bool, np.bool_):
        return np.array(cells, bool)
    if any(issubclass(kind, (bool, np.bool_)) for kind in kinds) and not columns:
        return None
    if all_are(Integral, np.bool_):
        for dtype in (np.int64, np.uint64):
            with suppress(OverflowError):
                return np.array(list(map(int, cells)), dtype)
    if all_are(Real, Decimal, np.bool_):
        with suppress(OverflowError):
            return np.array(cells, object).astype(np.float64)
    return None


def _missing(gaps: int, n: int, source: str) -> InputError:
    return InputError(
        f"{source}: {gaps} of {n} values are missing; fill them in or leave these rows out"
    )
