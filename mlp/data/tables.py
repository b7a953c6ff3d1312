"""A table: columns by name, each with its values as they were read and with its gaps.

The kinds that values can be of, by dtype:

    f i u     numbers, in the dtype of the file; of a text file int64 or float64
    b         True or False
    M         points in time, datetime64[us], in UTC
    O         text: Python's str

A gap is a cell that has no value. In `values` there stands NaN, False, NaT or "" for it, and a
column of whole numbers with gaps is float64.
"""

import math
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from functools import cached_property

import numpy as np

from mlp.errors import InputError, check_is, check_names, did_you_mean, shown

Names = tuple[str, ...]

# What stands for a gap in a text file, beside a cell that is empty or blank: in inputs and targets.
GAPS = (
    *("NA", "N/A", "n/a", "na", "#N/A", "<NA>", "null", "NULL", "Null", "None", "nan", "NaN"),
    *("NAN", "?", "-"),
)
WORDS = {"f": "numbers", "i": "numbers", "u": "numbers", "b": "true or false", "M": "dates"}


@dataclass(frozen=True, eq=False)
class Column:
    """One column of n cells.

    values : (n,) of one of the kinds above.  gaps : (n,) bool, or None where there is none.
    """

    name: str
    values: np.ndarray
    gaps: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.values)

    @property
    def numeric(self) -> bool:
        """Whether its values are numbers."""
        return self.values.dtype.kind in "fiu"

    def take(self, rows: np.ndarray | slice) -> "Column":
        """These rows of it."""
        gaps = None if self.gaps is None else self.gaps[rows]
        if gaps is not None and not gaps.any():
            gaps = None
        return Column(self.name, self.values[rows], gaps)


@dataclass(frozen=True, eq=False)
class Table:
    """n rows of named columns, as `mlp.read_table` gives them.

    columns : by name, in their order.  source : the file, for messages.
    array : (n, d), where all of it is one array of numbers without gaps; its columns are views.
    lines : (n,) of a text file the line of each row, for messages.
    notes : what was understood and should be said aloud, a sentence each.
    passed_over : blank rows between others, of a text file.
    """

    columns: Mapping[str, Column]
    source: str = "the table"
    array: np.ndarray | None = None
    lines: np.ndarray | None = field(default=None, repr=False)
    notes: Sequence[str] = ()
    passed_over: int = field(default=0, repr=False)

    def __post_init__(self) -> None:
        check_is("Table: columns", self.columns, Mapping)
        for name, column in self.columns.items():
            if not (isinstance(name, str) and isinstance(column, Column)):
                raise InputError(
                    "Table: columns must be each an mlp.Column under its name, not "
                    f"{shown(name, 60)}: {shown(column, 60)}"
                )

    @classmethod
    def of_array(cls, X: np.ndarray, names: Sequence[str], source: str = "the table") -> "Table":
        """The table of an array (n, d)."""
        names = check_names("Table.of_array: names", names)
        if len(shape := np.shape(X)) != 2 or shape[1] != len(names):
            raise InputError(
                f"Table.of_array: X must be an array (n, {len(names)}), as {len(names)} names are "
                f"given, not {shown(X, 60)}"
            )
        columns = {name: Column(name, X[:, k]) for k, name in enumerate(names)}
        return cls(columns, source, X)

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()))) if self.columns else 0

    def __repr__(self) -> str:
        """How many rows, and the names and kinds of the first columns."""
        kinds = [
            f"{name}: {WORDS.get(column.values.dtype.kind, 'text')}"
            for name, column in list(self.columns.items())[:4]
        ]
        more = ", ..." * (len(self.columns) > 4)
        return f"Table({len(self)} rows, {', '.join(kinds)}{more}, {self.source})"

    @cached_property
    def names(self) -> Names:
        """Of all columns."""
        return tuple(self.columns)

    def __getitem__(self, name: str) -> Column:
        if name not in self.columns:
            start = f"column {name!r} is left out"
            for note in self.notes:
                if note.startswith(start):
                    raise InputError(f"{self.source}: {note}")
            raise InputError(f"{self.source} has no column {shown(name)}{known(name, self.names)}")
        return self.columns[name]

    def select(self, names: Iterable[str]) -> "Table":
        """These columns, in this order. Raises InputError for a name that is not there."""
        names = tuple(names)
        if names == self.names:
            return self
        columns = {name: self[name] for name in names}
        array = self.array
        if array is not None:
            place = {name: k for k, name in enumerate(self.names)}
            array = array[:, [place[name] for name in columns]]
            return replace(Table.of_array(array, names, self.source), lines=self.lines)
        return replace(self, columns=columns)

    def with_gaps(self, words: Iterable[str]) -> "Table":
        """The table where cells of these texts are gaps: of numbers those that are equal to one.

        >>> table = Table({"a": Column("a", np.array([1, 99]))}).with_gaps(["99"])
        >>> table["a"].values, table["a"].gaps
        (array([ 1., nan]), array([False,  True]))
        """
        texts = list(check_names("missing", words))
        numbers = [float(word) for word in texts if _is_float(word)]
        columns = {name: _with_gaps(c, texts, numbers) for name, c in self.columns.items()}
        if all(columns[name] is column for name, column in self.columns.items()):
            return self
        return replace(self, columns=columns, array=None)

    def take(self, rows: np.ndarray | slice) -> "Table":
        """These rows, by number or as a slice."""
        lines = None if self.lines is None else self.lines[rows]
        if self.array is not None:
            of_rows = Table.of_array(self.array[rows], self.names, self.source)
            return replace(of_rows, lines=lines, notes=self.notes)
        columns = {name: column.take(rows) for name, column in self.columns.items()}
        return replace(self, columns=columns, lines=lines)


def _with_gaps(column: Column, texts: Sequence[str], numbers: Sequence[float]) -> Column:
    values = column.values
    if not column.numeric and values.dtype.kind != "O":
        return column
    gaps = np.isin(values, texts if values.dtype.kind == "O" else numbers)
    if not gaps.any():
        return column
    if column.numeric:
        return Column(column.name, np.where(gaps, np.nan, values), _either(column.gaps, gaps))
    return Column(column.name, np.where(gaps, "", values), _either(column.gaps, gaps))


def _either(a: np.ndarray | None, b: np.ndarray) -> np.ndarray:
    return b if a is None else a | b


def _is_float(word: str) -> bool:
    try:
        return math.isfinite(float(word))
    except ValueError:
        return False


def made_up(names: Iterable[str]) -> bool:
    """Whether these are the names of an array's columns, x_0, x_1, ..., or x_0_0, ..."""
    return all(re.fullmatch(r"x(_\d+)+", name) for name in names)


def known(name: str, names: Sequence[str]) -> str:
    """The nearest name; where there is none, the names, or of many the first and last."""
    near = did_you_mean(name, names)
    if len(names) <= 12 or "did you mean" in near:
        return near
    return f"; known: {', '.join(names[:4])}, ..., {', '.join(names[-4:])}"


def matching(pattern: str, names: Collection[str], source: str) -> list[str]:
    """The names that a name or a pattern with * or ? means; of many names a mapping is searched at
    once. InputError if there are none.

    >>> matching("lab_*", ["lab_a", "age", "lab_b"], "t.csv")
    ['lab_a', 'lab_b']
    """
    if pattern in names:
        return [pattern]
    found = [name for name in names if fnmatchcase(name, pattern)]
    if not found:
        raise InputError(f"{source} has no column {shown(pattern)}{known(pattern, list(names))}")
    return found
