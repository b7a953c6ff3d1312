"""LIBSVM files (SVMlight): a label a line, and the values of a row that are not 0, by their number.

1 3:0.5 7:2    # label 1; columns 3 and 7; all others are 0
"""

import re
from collections.abc import Iterable
from contextlib import suppress

import numpy as np

from mlp.data.columns import column, of_cells
from mlp.data.packed import believable
from mlp.data.tables import Column, Table
from mlp.errors import InputError, shown
from mlp.memory import megabytes

TARGET = "target"


def read_libsvm(content: bytes, source: str, wanted: Iterable[str] = ()) -> Table:
    """The table of a LIBSVM file: columns x_1, x_2, ... as the file numbers them, and `target`.

    A file that numbers from 0 has an x_0 too, so that one number means one column in every file.
    wanted : columns x_k beyond the file's last are columns of 0, as if it had said so.
    Raises InputError, with the line, for what is not of the format, and for a table that would take
    more memory than the file makes believable.

    >>> table = read_libsvm(b"1 1:0.5 3:2\\n-1 2:4\\n", "t.libsvm")
    >>> table.names, table["target"].values.tolist(), table["x_3"].values.tolist()
    (('x_1', 'x_2', 'x_3', 'target'), [1, -1], [2.0, 0.0])
    """
    lines, labels, counts, pairs = [], [], [], []
    for line, text in enumerate(content.split(b"\n"), start=1):
        label, *values = text.partition(b"#")[0].split() or [b""]
        if not label:
            continue
        parts = b" ".join(values).replace(b":", b" : ").split()
        if b":" in label or parts[1::3] != [b":"] * len(values) or len(parts) != 3 * len(values):
            raise _no_form(source, line)
        lines.append(line)
        labels.append(label)
        counts.append(len(values))
        pairs += parts
    if not lines:
        raise InputError(f"{source} has no rows; it needs some, as `1 3:0.5 7:2`")
    rows, at_line = np.repeat([np.arange(len(lines)), lines], counts, axis=1)
    at = _numbers(pairs[0::3], int, at_line, source)
    first = 0 if 0 in at else 1
    width = max(int(at.max(initial=0)), _last(wanted)) - first + 1
    if 8 * len(lines) * width > believable(len(content)):
        raise InputError(
            f"{source} has {len(lines)} rows of {width} columns, which would take "
            f"{megabytes(8 * len(lines) * width)} with all their zeros; read it by scikit-learn's "
            "load_svmlight_file, and give the sparse X to MLPClassifier or MLPRegressor"
        )
    _check_once(rows * width + at, at_line, source)
    X = np.zeros((len(lines), width))
    X[rows, at - first] = _numbers(pairs[2::3], float, at_line, source)
    names = [f"x_{first + k}" for k in range(width)]
    columns = {name: column(name, X[:, k]) for k, name in enumerate(names)}
    return Table({**columns, TARGET: _targets(labels, source)}, source, lines=np.array(lines))


def _no_form(source: str, line: int) -> InputError:
    return InputError(
        f"{source}, line {line} is not of LIBSVM's form, as `1 3:0.5 7:2`, a label and then "
        "column:value; correct it, or name the file .csv if it is CSV"
    )


def _numbers(texts: list[bytes], kind: type, lines: np.ndarray, source: str) -> np.ndarray:
    """Column numbers, whole and not negative, or values; InputError with the line of another."""
    numbers = []
    for text, line in zip(texts, lines, strict=True):
        if (kind is int and not (text.isdigit() and len(text) < 19)) or b"_" in text:
            raise _no_form(source, line)
        try:
            numbers.append(kind(text))
        except ValueError as error:
            raise _no_form(source, line) from error
    return np.array(numbers, kind)


def _last(wanted: Iterable[str]) -> int:
    """The largest k of the names x_k."""
    found = (re.fullmatch(r"x_(\d{1,9})", name, re.ASCII) for name in wanted)
    return max((int(match[1]) for match in found if match), default=0)


def _check_once(places: np.ndarray, lines: np.ndarray, source: str) -> None:
    """InputError if a row has two values for one column."""
    order = np.argsort(places, kind="stable")
    twice = np.flatnonzero(np.diff(places[order]) == 0)
    if len(twice):
        raise InputError(
            f"{source}, line {lines[order[twice[0]]]} has two values for one column; keep one"
        )


def _targets(labels: list[bytes], source: str) -> Column:
    """The labels as whole numbers if all are, else as numbers, else as text."""
    for kind in (int, float):
        with suppress(ValueError):
            if not any(b"_" in label for label in labels):
                return of_cells(TARGET, [kind(label) for label in labels])
    if several := [label for label in labels if b"," in label]:
        raise InputError(
            f"{source}: {shown(several[0].decode(errors='replace'))} is several labels in a row; "
            "give each label a column of 0 and 1, in CSV"
        )
    return column(TARGET, np.array([label.decode(errors="replace") for label in labels]))
