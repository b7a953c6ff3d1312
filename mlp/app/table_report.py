"""What is made of a table: a line for each column, with its kind and why, its values and gaps, and
what may be wrong with it."""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from mlp.data.preprocessing import kind_of_column, odd_cell, texts_of
from mlp.data.tables import Column, Table

SHOWN = 4  # values of a category


def report(table: Table, target: Sequence[str] = ()) -> tuple[list[list[str]], list[str]]:
    """(rows of text, the first of them the heads; warnings).

    >>> table = Table({"a": Column("a", np.array([1.5, 2.0])), "b": Column("b", np.array([7, 7]))})
    >>> rows, warnings = report(table)
    >>> rows[1], warnings
    (['a', 'number', 'all numbers', '1.5 ... 1.75 ... 2', ''], ["column 'b' is constant"])
    """
    rows = [["column", "kind", "why", "values", "gaps"]]
    warnings = list(table.notes)
    seen: dict[bytes, str] = {}
    for column in table.columns.values():
        kind, why = kind_of_column(column)
        if column.name in target:
            kind, why = "target", ""  # type: ignore[assignment]
        gaps = 0 if column.gaps is None else int(np.count_nonzero(column.gaps))
        share = f"{gaps} ({gaps / len(column):.1%})" if gaps else ""
        rows.append([column.name, kind, why, _values(column), share])
        warnings += [f"column {column.name!r} {text}" for text in _doubts(column, seen)]
    return rows, warnings


def _values(column: Column) -> str:
    """The range of numbers and dates, and the most frequent texts."""
    present = column.values if column.gaps is None else column.values[~column.gaps]
    if not len(present):
        return ""
    if column.numeric:
        low, middle, high = present.min(), np.median(present), present.max()
        return " ... ".join(f"{float(x):.6g}" for x in (low, middle, high))
    if present.dtype.kind == "M":
        unit = "D" if (present == present.astype("M8[D]")).all() else "s"
        return f"{present.min().astype(f'M8[{unit}]')} ... {present.max().astype(f'M8[{unit}]')}"
    often = Counter(texts_of(Column(column.name, present)).tolist()).most_common()
    more = f", ... {len(often)} values" if len(often) > SHOWN else ""
    return ", ".join(f"{_short(text)} ({count})" for text, count in often[:SHOWN]) + more


def _short(text: str) -> str:
    return text if len(text) <= 20 else f"{text[:17]}..."


def _doubts(column: Column, seen: dict[bytes, str]) -> list[str]:
    """What may be wrong with a column, in words."""
    values, found = column.values, []
    if values.dtype.kind == "O":
        odd = odd_cell(column)
        if odd is not None:
            found.append(f"seems to be of numbers, but row {odd} holds {values[odd]!r}")
        return found
    if len(values) > 1 and (values == values[0]).all():
        found.append("is constant")
    elif column.numeric and column.gaps is None and _counts_rows(values):
        found.append("counts the rows; leave it out by data.exclude if it is no measurement")
    key = values.tobytes()
    if len(values) > 1 and key in seen and "is constant" not in found:
        found.append(f"is a copy of {seen[key]!r}")
    seen.setdefault(key, column.name)
    return found


def _counts_rows(values: np.ndarray) -> bool:
    """Whether each is one more than the one before."""
    return len(values) > 2 and values.dtype.kind in "iu" and bool((np.diff(values) == 1).all())
