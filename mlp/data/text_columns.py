"""Columns from cells of text: of which kind they are, and what is in them.

A column is whole numbers as long as its cells are, then numbers, else text; of text it is True and
False or ISO dates if all cells are. What is a number in a table is written with ASCII digits, and
is what Python's int and float make of it.
"""

import re
from collections.abc import Iterable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from itertools import repeat
from typing import Any, cast

import numpy as np

from mlp.data.tables import Column

EXACT = 1 << 53  # float64 holds every whole number up to it
BOOLEANS = {"True": True, "TRUE": True, "true": True, "False": False, "FALSE": False}
BOOLEANS["false"] = False
COMMA_NUMBER = re.compile(r"[+-]?(\d+(,\d*)?|,\d+)([eE][+-]?\d+)?", re.ASCII)
ISO_DATE = re.compile(r"\d{4}-\d\d-\d\d([T ]\d\d:\d\d.*)?", re.ASCII)

Cells = Sequence[str]


def is_among(name: str, patterns: Sequence[str]) -> bool:
    """Whether the name is one of these, or of the form of one."""
    return any(name == pattern or fnmatchcase(name, pattern) for pattern in patterns)


class ColumnOfText:
    """A column while it is read: whole numbers, then numbers, then text.

    spelled: numbers must be spelled as Python does.  text: it is known to be no column of numbers.
    """

    def __init__(self, name: str, spelled: bool, gaps: frozenset[str], text: bool = False):
        self.name, self.spelled, self.gaps, self.text = name, spelled, gaps, text
        self.parts: list[np.ndarray] = []
        self.masks: list[np.ndarray | None] = []
        self.words: set[str] = set()  # of a column of labels those that stand for gaps
        self.eager = any(is_number(word) for word in gaps)  # whether a gap may look like a number
        self.whole = True  # all numbers so far
        self.numbers = False  # whether some cells were taken for numbers
        self.seen: dict[str, str] = {}

    @property
    def fallen(self) -> bool:
        """Whether it began as numbers and is text, as whole numbers are that a float would round
        where there are gaps."""
        if self.text or not (self.numbers and self.whole):
            return self.numbers and self.text
        return any(mask is not None for mask in self.masks) and any(map(_beyond, self.parts))

    @property
    def kind(self) -> str:
        """The dtype of its values so far; "" where that is not known yet."""
        if self.text or self.spelled or self.eager:
            return "O"
        return "" if not self.parts else "i8" if self.whole else "f8"

    def add(self, cells: Cells | np.ndarray) -> None:
        """Further cells, or numbers of its kind."""
        if not len(cells):
            return
        if isinstance(cells, np.ndarray) and cells.dtype.kind != "O":
            self._keep(cells.copy() if cells.base is not None else cells, None)
            return
        cells = cast(Cells, cells)
        if not self.text:
            found = self._numbers(cells)
            if found is not None:
                self.whole &= found[0].dtype.kind in "iu"
                self._note_gaps(cells, found[1])
                self._keep(*found)
                return
            self.text = True
        if self.numbers:
            return  # another pass will read it
        texts = [cell.strip() for cell in cells]
        mask = np.array([cell in self.gaps for cell in texts])
        keep = self.seen
        part = np.empty(len(texts), object)
        part[:] = [keep.setdefault(cell, cell) for cell in texts]
        part[mask] = ""
        self._note_gaps(texts, mask)
        self._keep(part, mask if mask.any() else None)

    def _note_gaps(self, cells: Cells, mask: np.ndarray | None) -> None:
        """Remember the words that were taken for gaps, of a column of labels."""
        if self.spelled and mask is not None:
            self.words |= {cells[int(i)].strip() for i in np.flatnonzero(mask)}

    def _keep(self, part: np.ndarray, mask: np.ndarray | None) -> None:
        self.numbers |= part.dtype.kind != "O"
        self.parts.append(part)
        self.masks.append(mask)

    def _numbers(self, cells: Cells) -> tuple[np.ndarray, np.ndarray | None] | None:
        """The cells as numbers, and where the gaps are among them; None if one is text."""
        found = self._spelled_numbers(cells)
        if found is None or not self.eager:
            return found
        values, marks = found
        equal = np.isin(values, [float(word) for word in self.gaps if is_number(word)])
        marks = equal if marks is None else equal | marks
        return values, marks if marks.any() else None

    def _spelled_numbers(self, cells: Cells) -> tuple[np.ndarray, np.ndarray | None] | None:
        """The same before gaps that are numbers of another spelling."""
        if self.whole and (found := ints(cells, self.gaps, self.eager)) is not None:
            if not self.spelled or _same(map(str, found[0].tolist()), cells, found[1]):
                return found
            return None
        found = floats(cells, self.gaps, self.eager)
        if found is None or not self.spelled:
            return found
        return found if self._as_python_spells(found, cells) else None

    def _as_python_spells(self, found: tuple[np.ndarray, np.ndarray | None], cells: Cells) -> bool:
        """Whether each cell is a float or a whole number as Python writes it."""
        values = found[0].tolist()
        spellings = (
            str(int(x)) if x == x and abs(x) < EXACT and x == int(x) and "." not in cell else str(x)
            for x, cell in zip(values, cells, strict=True)
        )
        return _same(spellings, cells, found[1])

    def column(self) -> Column:
        """The column, of the kind that all its cells have."""
        n = sum(map(len, self.parts))
        gaps: np.ndarray | None = None
        if any(mask is not None for mask in self.masks):
            pairs = zip(self.parts, self.masks, strict=True)
            gaps = np.concatenate(
                [np.zeros(len(part), bool) if mask is None else mask for part, mask in pairs]
            )
        if not n:
            return Column(self.name, np.empty(0))
        if self.text:
            column = Column(self.name, np.concatenate(self.parts), gaps)
            return column if self.spelled and not _no_values(column) else typed(column)
        if self.whole and (gaps is None or self.spelled):  # labels stay whole beside gaps
            kinds = {part.dtype for part in self.parts}
            if len(kinds) == 1:
                return Column(self.name, np.concatenate(self.parts), gaps)
            if min(int(part.min()) for part in self.parts) >= 0:
                values = np.concatenate([part.astype(np.uint64) for part in self.parts])
                return Column(self.name, values, gaps)
        values = np.concatenate([part.astype(np.float64) for part in self.parts])
        if gaps is not None:
            values[gaps] = np.nan
        return Column(self.name, values, gaps)


def _beyond(values: np.ndarray) -> bool:
    """Whether a whole number is beyond those that float64 holds."""
    return int(values.max()) > EXACT or int(values.min()) < -EXACT


def _same(spellings: Iterable[str], cells: Cells, gaps: np.ndarray | None) -> bool:
    """Whether the cells that are no gaps are these texts."""
    marks: Iterable[bool] = repeat(False) if gaps is None else gaps.tolist()
    return all(gap or a == b.strip() for a, b, gap in zip(spellings, cells, marks))  # noqa: B905


def _plain(cells: Cells) -> bool:
    """Whether Python reads a number in these cells only where a table has one."""
    joined = "".join(cells)
    return "_" not in joined and joined.isascii()


def _filled(cells: Cells, gaps: frozenset[str], fill: str) -> tuple[Cells, np.ndarray | None]:
    """The cells with a number in place of gaps, and where these are."""
    marks = [cell.strip() in gaps for cell in cells]
    if not any(marks):
        return cells, None
    filled = [fill if gap else cell for cell, gap in zip(cells, marks, strict=True)]
    return filled, np.array(marks)


def ints(
    cells: Cells, gaps: frozenset[str], eager: bool = False
) -> tuple[np.ndarray, np.ndarray | None] | None:
    """Whole numbers of 64 bits, with 0 in the gaps; None if a cell is none. eager: gaps are looked
    for first, as they may be numbers."""
    marks = None
    try:
        if eager:
            raise ValueError
        values = list(map(int, cells))
    except ValueError:
        cells, marks = _filled(cells, gaps, "0")
        try:
            values = list(map(int, cells))
        except ValueError:
            return None
    if not _plain(cells):
        return None
    for dtype in (np.int64, np.uint64):
        with suppress(OverflowError):
            return np.array(values, dtype), marks
    return None


def floats(
    cells: Cells, gaps: frozenset[str], eager: bool = False
) -> tuple[np.ndarray, np.ndarray | None] | None:
    """Numbers, with NaN in the gaps; None if a cell is none."""
    marks = None
    try:
        if eager:
            raise ValueError
        values = np.array(list(map(float, cells)))
        odd = not np.isfinite(values).all()
    except ValueError:
        odd = True
    if odd:
        cells, marks = _filled(cells, gaps, "nan")
        try:
            values = np.array(list(map(float, cells)))
        except ValueError:
            return None
        unknown = np.isnan(values) if marks is None else np.isnan(values) & ~marks
        if unknown.any():  # a NaN that is not among the words for a gap
            return None
    if not _plain(cells):
        return None
    return values, marks


def is_number(cell: str) -> bool:
    """Whether the text is a number as a table has it."""
    return bool(floats([cell], frozenset()))


def decimal_commas(columns: list[Column], as_text: Sequence[str], notes: list[str]) -> list[Column]:
    """Columns of text that are numbers with a decimal comma, as numbers."""
    found = []
    points = [c.name for c in columns if c.values.dtype.kind == "f" and _has_fractions(c)]
    for k, column in enumerate(columns):
        if column.values.dtype.kind != "O" or is_among(column.name, as_text):
            continue
        present = column.values if column.gaps is None else column.values[~column.gaps]
        if len(present) and all(map(COMMA_NUMBER.fullmatch, present)):
            if points:
                notes.append(
                    f"{column.name!r} has commas in its numbers and {points[0]!r} has points; "
                    f"{column.name!r} is taken as text"
                )
                continue
            values = np.full(len(column), np.nan)
            numbers = [float(cell.replace(",", ".")) for cell in present]
            values[slice(None) if column.gaps is None else ~column.gaps] = numbers
            columns[k] = Column(column.name, values, column.gaps)
            found.append(column.name)
    if found:
        more = ", ..." * (len(found) > 3)
        notes.append(f"numbers have a decimal comma in {', '.join(map(repr, found[:3]))}{more}")
    return columns


def _has_fractions(column: Column) -> bool:
    values = column.values
    return bool((values[np.isfinite(values)] % 1 != 0).any())


def _no_values(column: Column) -> bool:
    return column.gaps is not None and bool(column.gaps.all())


def typed(column: Column) -> Column:
    """A column of text as True and False or as points in time, if all its cells are."""
    present = column.values if column.gaps is None else column.values[~column.gaps]
    if not len(present):
        return Column(column.name, np.full(len(column), np.nan), column.gaps)
    first = present[0]
    if first in BOOLEANS and all(cell in BOOLEANS for cell in present):
        values: np.ndarray = np.zeros(len(column), bool)
        found: Any = [BOOLEANS[cell] for cell in present]
    elif ISO_DATE.fullmatch(first) and all(map(ISO_DATE.fullmatch, present)):
        values = np.full(len(column), np.datetime64("NaT", "us"), "datetime64[us]")
        try:
            times = list(map(datetime.fromisoformat, present))
            found = list(map(_utc, times))
        except (ValueError, OverflowError):
            return column
        if len({time.tzinfo is None for time in times}) > 1:
            return column  # with a time zone and without: they cannot be compared
    else:
        return column
    values[slice(None) if column.gaps is None else ~column.gaps] = found
    return Column(column.name, values, column.gaps)


def _utc(time: datetime) -> datetime:
    """The point in time, in UTC, without a time zone."""
    return time.astimezone(UTC).replace(tzinfo=None) if time.tzinfo else time
