"""Tables from text: CSV as people and their programs write it.

    delimiter       , ; tab or |, the one by which the first rows fall into columns alike; or as a
                    line "sep=;" says
    encoding        UTF-8, UTF-16 with its mark, and, said aloud, Latin-1 (Windows-1252)
    names           the first row; whether it is one is said by `header`, else by the names that
                    are asked for, else by its cells
    rows            blank ones, and cells beyond the last name that are all blank, are passed over
    quotes          "a ""b"" c", after blanks and before them too

The kind of a column is that of all its cells: whole numbers, numbers, True and False, ISO dates,
else text. Cells lose the blanks around them. A number is written with ASCII digits: 1_1 is text.
Where the delimiter is no comma, numbers may have a decimal comma, if no column has a decimal point.
"""

import csv
import io
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from itertools import islice, repeat
from pathlib import Path
from typing import Any, cast

import numpy as np

from mlp.data.tables import GAPS, Column, Table
from mlp.errors import InputError

DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
SNIFFED = 1 << 16  # characters by which delimiter and header are found
ROWS = 4096  # that are converted together
FIRST = 64  # that tell of which kind the columns may be
EXACT = 1 << 53  # float64 holds every whole number up to it
BOOLEANS = {"True": True, "TRUE": True, "true": True, "False": False, "FALSE": False}
BOOLEANS["false"] = False
COMMA_NUMBER = re.compile(r"[+-]?(\d+(,\d*)?|,\d+)([eE][+-]?\d+)?", re.ASCII)
ISO_DATE = re.compile(r"\d{4}-\d\d-\d\d([T ]\d\d:\d\d.*)?", re.ASCII)

Cells = Sequence[str]


def read_text_table(
    path: Path,
    content: bytes,
    *,
    header: bool | None = None,
    missing: Sequence[str] | None = None,
    as_text: Sequence[str] = (),
    wanted: Sequence[str] = (),
) -> Table:
    """The table in a text file.

    path : for messages, and .tsv has tabs.  header : whether the first row holds the names; None
        finds out.  missing : the cells that are gaps, beside empty ones; None is `GAPS`.
    as_text : columns, by name or pattern, that are numbers only if every cell is spelled as Python
        spells that number, so that 007 and 1e3 stay what they are, and else text.
    wanted : names that are known to be in the header, if there is one.

    Raises InputError with the file, the line and the cure.

    >>> t = read_text_table(Path("t.csv"), b"kind;width\\nfern;1,5\\nmoss;NA\\n")
    >>> t.names, t["kind"].values.tolist(), t["width"].values.tolist()
    (('kind', 'width'), ['fern', 'moss'], [1.5, nan])
    """
    notes: list[str] = []
    text = _decoded(path, content, notes)
    text, delimiter, skipped = _delimiter(path, text)
    rows = _Rows(path, text, delimiter, skipped)
    first = rows.first()
    names, skip = _header(path, first, header, wanted, notes)
    gaps = frozenset(("", *(GAPS if missing is None else missing)))
    columns, lines = _read(rows, names, skip, gaps, as_text, notes)
    columns = _named(path, columns, names, notes)
    if delimiter != ",":
        columns = _decimal_commas(columns, as_text, notes)
    if not columns or not len(columns[0]):
        raise InputError(f"{path} is too short; it needs a row of column names and rows of values")
    return Table({column.name: column for column in columns}, str(path), None, lines, notes)


# ------------------------------------------------------------------------------ bytes to cells


def _decoded(path: Path, content: bytes, notes: list[str]) -> str:
    if content[:2] in (b"\xff\xfe", b"\xfe\xff"):
        with suppress(UnicodeDecodeError):
            return content.decode("utf-16")
    if b"\0" in content:
        raise InputError(f"{path} is not text: it holds bytes that are 0; save it as CSV in UTF-8")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        notes.append(
            f"{path} is not UTF-8 (byte {error.start}); it is read as Latin-1 (Windows-1252)"
        )
        return content.decode("cp1252", "replace")


def _delimiter(path: Path, text: str) -> tuple[str, str, int]:
    """The text without what stands above its table, the delimiter, and the lines left out."""
    line = text[:16].splitlines()[:1]
    found = re.fullmatch(r'"?sep=(.)"?', line[0], re.IGNORECASE) if line else None
    if found:
        rest = text[len(line[0]) :]
        end = 2 if rest.startswith("\r\n") else 1
        return rest[end:], found[1], 1
    some, whole = text[:SNIFFED], len(text) <= SNIFFED
    best: tuple[Any, ...] = (-1.0, 0)
    chosen = "\t" if path.suffix.lower() in (".tsv", ".tab") else ","
    for delimiter in DELIMITERS:
        rows = [_trimmed(row) for row in _sample(some, delimiter, whole)]
        widths = Counter(len(row) for row in rows if any(row))
        if not widths:
            continue
        width, often = max(widths.items(), key=lambda pair: (pair[1], pair[0]))
        if width < 2:
            continue
        inside = sum(other in cell for row in rows for cell in row for other in ";\t|")
        score = (often / widths.total(), delimiter == chosen and not inside, -inside)
        if score > best:
            best, chosen = score, delimiter
    return text, chosen, 0


def _sample(some: str, delimiter: str, whole: bool) -> list[list[str]]:
    """The first rows, as far as they can be read; without the last where it may be cut off."""
    rows: list[list[str]] = []
    with suppress(csv.Error):
        rows.extend(_reader(some, delimiter))
    return rows if whole or len(rows) < 2 else rows[:-1]


def _reader(text: str, delimiter: str) -> Any:
    lines = io.StringIO(text, newline="")
    return csv.reader(lines, delimiter=delimiter, skipinitialspace=True, strict=True)


def _trimmed(row: Cells) -> list[str]:
    """The row without blank cells at its end."""
    row = [cell.strip() for cell in row]
    while row and not row[-1]:
        row.pop()
    return row


@dataclass
class _Rows:
    """The rows of a text, some at a time."""

    path: Path
    text: str
    delimiter: str
    skipped: int

    def __post_init__(self) -> None:
        # Without quotes a line is a row, and a delimiter always one.
        self.simple = '"' not in self.text and self.text.count("\r") == self.text.count("\r\n")

    def lines(self, size: int, after: int) -> Iterator[tuple[int, list[str]]]:
        """Of a simple text: so many lines at a time after one of them, and the number of the first
        of them."""
        text = io.StringIO(self.text)
        line = self.skipped + sum(1 for _ in islice(text, after - self.skipped))
        some = list(islice(text, FIRST))
        while some:
            yield line + 1, some
            line += len(some)
            some = list(islice(text, size))

    def first(self) -> list[tuple[int, list[str]]]:
        """The first rows that are not blank, each with its line; the first one is the header."""
        found = []
        for lines, rows in self.chunks(64):
            cells = zip(lines, rows, strict=True)
            found += [(line, row) for line, row in cells if any(map(str.strip, row))]
            if len(found) > 64:
                break
        if not found:
            raise InputError(
                f"{self.path} is too short; it needs a row of column names and rows of values"
            )
        while len(found) > 1 and found[0][1][0].startswith("#"):
            if len(_trimmed(found[0][1])) == len(_trimmed(found[1][1])):
                break  # a name that begins so
            found.pop(0)
        return found

    def chunks(self, size: int = ROWS, after: int = 0) -> Iterator[tuple[Sequence[int], list]]:
        """(lines, rows): so many rows at a time, of those that begin after a line."""
        text = self.text
        for tidy in (False, True):
            if tidy:  # blanks between a quote and the delimiter
                end = re.escape(self.delimiter)
                text = re.sub(rf'"[ \t]+(?={end}|[\r\n]|$)', '"', text)
            reader = _reader(text, self.delimiter)
            line = self.skipped
            try:
                while True:
                    before = reader.line_num
                    rows = list(islice(reader, size))
                    if not rows:
                        return
                    count = reader.line_num - before
                    lines: Sequence[int] = range(line + 1, line + 1 + count)
                    if count != len(rows):  # cells with line breaks
                        lines = _starts(line, rows)
                    line += count
                    if lines[-1] <= after:
                        continue
                    if lines[0] <= after:
                        keep = sum(one <= after for one in lines)
                        lines, rows = lines[keep:], rows[keep:]
                    after = max(after, lines[-1])
                    yield lines, rows
            except csv.Error as error:
                where = self.skipped + reader.line_num
                if "end of data" in str(error):
                    raise InputError(
                        f"{self.path}: a quote that is opened in line {line + 1} or after it is "
                        "never closed; close it, or double a quote that belongs to a cell"
                    ) from error
                if tidy or "expected after" not in str(error):
                    raise InputError(
                        f"{self.path}, line {where} is not CSV: {error}; a quote inside a quoted "
                        "cell is doubled"
                    ) from error


def _starts(line: int, rows: list[list[str]]) -> list[int]:
    """The line on which each row begins."""
    starts = []
    for row in rows:
        starts.append(line + 1)
        line += 1 + sum(len(cell.splitlines()) - 1 for cell in row if "\n" in cell or "\r" in cell)
    return starts


# ------------------------------------------------------------------------------ the names


def _header(
    path: Path,
    first: list[tuple[int, list[str]]],
    header: bool | None,
    wanted: Sequence[str],
    notes: list[str],
) -> tuple[list[str], int]:
    """The names of the columns, and the line after which the values begin."""
    line, cells = first[0]
    names = [cell.strip() for cell in cells]
    below = [[cell.strip() for cell in row] for _, row in first[1:]]
    asked = bool(wanted) and set(wanted) <= set(names)
    made_up = bool(wanted) and all(re.fullmatch(r"x_\d+", name) for name in wanted) and not asked
    if header is None:
        header = not made_up and _is_header(path, line, names, below, asked, notes)
    if not header:
        width = len(_trimmed(cells))
        if below:
            width = max(width, len(_trimmed(below[0])))
        return [f"x_{k}" for k in range(width)], line - 1
    if not below:
        raise InputError(f"{path} is too short; it needs a row of column names and rows of values")
    known = sum(map(bool, names))
    values = any(any(row[known:]) for row in below)  # where there are no names
    if len(names) > 2 and known <= len(names) // 2 and values:
        title = next(filter(None, names), "")
        raise InputError(
            f"{path}, line {line} names {known} of {len(names)} columns ({title!r}): it looks like "
            "a title; remove the lines above the row of column names"
        )
    row = _trimmed(below[0])
    if len(row) > len(names):
        labels, widths = {row[0] for row in below}, {len(_trimmed(row)) for row in below}
        if len(names) > 1 and len(labels) == len(below) and widths == {len(names) + 1}:
            return ["", *names], line  # R writes no name above the names of its rows
        raise InputError(
            f"{path}, line {first[1][0]} has {len(row)} cells, the header has {len(names)} (line "
            f"{line}); remove what stands above the header, complete the row, or quote a cell that "
            "contains the delimiter"
        )
    return names, line


def _is_header(
    path: Path, line: int, names: list[str], below: list[list[str]], asked: bool, notes: list[str]
) -> bool:
    """Whether the first row holds names, not values; InputError where that cannot be told."""
    kinds = [is_number(cell) for cell in names]
    cure = "say data.header = true if these are the names, data.header = false if there are none"
    if kinds and all(kinds):
        if asked or _are_positions(names, below):
            return True
        raise InputError(
            f"{path}: the first row is all numbers; put a row of column names above, or {cure}"
        )
    full = [row for row in below[:32] if all(row)]
    alike = any(kinds) and all(list(map(is_number, row)) == kinds for row in full)
    if not alike or not full:
        return True
    again = [
        name
        for k, name in enumerate(names)
        if name and not kinds[k] and any(row[k : k + 1] == [name] for row in below)
    ]
    if again:
        raise InputError(
            f"{path}: the first row looks like values, not names ({again[0]!r} stands below it "
            f"too); put a header above it, or {cure}"
        )
    notes.append(
        f"{path}: the first row, {', '.join(names[:4])}{', ...' * (len(names) > 4)}, looks like "
        f"values and is taken as names; if it is none, say data.header = false"
    )
    return True


def is_number(cell: str) -> bool:
    """Whether the text is a number as a table has it."""
    return bool(_floats([cell], frozenset()))


def _are_positions(names: Cells, below: list[list[str]]) -> bool:
    """Whether numbers name columns, as wavelengths and years do: each is above the one before, and
    the values below are not like that, or have fractions where the names have none."""
    if not _rises(names):
        return False
    whole = _ints(names, frozenset()) is not None
    return not all(_rises(row) for row in below) or (
        whole and all(_ints(row, frozenset()) is None for row in below)
    )


def _rises(cells: Cells) -> bool:
    """Whether there are two numbers or more, each above the one before."""
    found = _floats(cells, frozenset())
    return found is not None and len(cells) > 1 and bool((np.diff(found[0]) > 0).all())


def _named(path: Path, columns: list[Column], names: list[str], notes: list[str]) -> list[Column]:
    """The columns that have a name, each a different one; what is left out is said."""
    kept = [column for column in columns if column.name]
    twice = [name for name, often in Counter(c.name for c in kept).items() if often > 1]
    if twice:
        raise InputError(f"{path}: two columns are named {twice[0]!r}; rename one")
    for k, column in enumerate(columns):
        if column.name or (column.gaps is not None and column.gaps.all()):
            continue
        which = "the first column" if k == 0 else f"column {k + 1}"
        counts = " and counts the rows" * (k == 0 and _counts(column))
        notes.append(f"{path}: {which} has no name{counts}; it is left out")
    return kept


def _counts(column: Column) -> bool:
    """Whether these are row numbers, one more from row to row, or all different as in a sample."""
    values = column.values
    if values.dtype.kind not in "iu" or column.gaps is not None:
        return False
    return len(np.unique(values)) == len(values)


# ------------------------------------------------------------------------------ cells to values


def _read(
    rows: _Rows,
    names: list[str],
    after: int,
    gaps: frozenset[str],
    as_text: Sequence[str],
    notes: list[str],
) -> tuple[list[Column], np.ndarray]:
    """All columns, in one pass; those that begin as numbers and go on as text take another."""
    states = [_State(name, _is_among(name, as_text), gaps) for name in names]
    found: list[np.ndarray] = []
    blank = 0
    for lines, columns, passed_over in _blocks(rows, states, after):
        found.append(lines)
        blank += passed_over
        for state, column in zip(states, columns, strict=True):
            state.add(column)
    again = [k for k, state in enumerate(states) if state.fallen]
    for k in again:
        states[k] = _State(names[k], False, gaps, text=True)
    if again:
        for _, columns, _ in _blocks(rows, states, after):
            for k in again:
                states[k].add(columns[k])
    if blank:
        notes.append(f"{rows.path}: {blank} blank row{'s are' if blank > 1 else ' is'} passed over")
    lines = np.concatenate(found) if found else np.empty(0, np.int64)
    return [state.column() for state in states], lines


def _is_among(name: str, patterns: Sequence[str]) -> bool:
    return any(name == pattern or fnmatchcase(name, pattern) for pattern in patterns)


def _blocks(
    rows: _Rows, states: "list[_State]", after: int
) -> Iterator[tuple[np.ndarray, Sequence[Any], int]]:
    """(lines, columns, blank rows) for some rows at a time; a column is an array of numbers, or
    cells."""
    width = len(states)
    size = max(16, min(ROWS, (1 << 20) // max(1, width)))
    if not rows.simple:
        for numbers, some in rows.chunks(size, after):
            yield _columns(rows, numbers, some, width)
        return
    for first, lines in rows.lines(size, after):
        columns = _at_once(lines, states, rows.delimiter)
        if columns is not None:
            yield np.arange(first, first + len(lines)), columns, 0
        else:
            some = list(_reader("".join(lines), rows.delimiter))
            yield _columns(rows, range(first, first + len(some)), some, width)


def _at_once(lines: list[str], states: "list[_State]", delimiter: str) -> Sequence[Any] | None:
    """The columns of these lines by NumPy's own parser, where each is as it was so far: it takes
    the numbers that `_State` takes. None where a line or a cell is another."""
    kinds = [state.kind for state in states]
    if "" in kinds:
        return None
    same = len(set(kinds)) == 1 and kinds[0] != "O"
    dtype: Any = kinds[0] if same else [(f"f{k}", kind) for k, kind in enumerate(kinds)]
    try:
        found = np.loadtxt(lines, dtype, None, delimiter, ndmin=2 if same else 1)
    except (ValueError, OverflowError):
        return None
    if len(found) != len(lines):  # blank ones were passed over
        return None
    columns = list(found.T) if same else [found[f"f{k}"] for k in range(len(kinds))]
    infinite = same and kinds[0] == "f8" and not np.isfinite(found).all()
    return None if infinite or not (same or _finite(columns)) else columns


def _finite(columns: Sequence[np.ndarray]) -> bool:
    return all(x.dtype.kind != "f" or np.isfinite(x).all() for x in columns)


def _columns(
    rows: _Rows, lines: Sequence[int], some: list[list[str]], width: int
) -> tuple[np.ndarray, Sequence[Any], int]:
    """The same of rows of cells."""
    blank = 0
    if set(map(len, some)) != {width} or _has_blank(some):
        kept = [(n, row) for n, row in zip(lines, some, strict=True) if any(map(str.strip, row))]
        blank = sum(map(bool, some)) - len(kept)
        lines, some = [n for n, _ in kept], [_fitted(rows, n, row, width) for n, row in kept]
    columns: Sequence[Any] = list(zip(*some, strict=True)) or [()] * width
    return np.asarray(lines, np.int64), columns, blank


def _has_blank(rows: list[list[str]]) -> bool:
    """Whether a row may be blank: its first cell is."""
    return any(not row[0].strip() for row in rows)


def _fitted(rows: _Rows, line: int, row: list[str], width: int) -> list[str]:
    """The row with as many cells as there are names."""
    if len(row) == width:
        return row
    if len(row) > width and not any(map(str.strip, row[width:])):
        return row[:width]
    raise InputError(
        f"{rows.path}, line {line} has {len(row)} cells, the header has {width}; complete the row, "
        f"or quote a cell that contains a {DELIMITERS.get(rows.delimiter, 'delimiter').rstrip('s')}"
    )


class _State:
    """A column while it is read: whole numbers, then numbers, then text.

    spelled: numbers must be spelled as Python does.  text: it is known to be no column of numbers.
    """

    def __init__(self, name: str, spelled: bool, gaps: frozenset[str], text: bool = False):
        self.name, self.spelled, self.gaps, self.text = name, spelled, gaps, text
        self.parts: list[np.ndarray] = []
        self.masks: list[np.ndarray | None] = []
        self.whole = True  # all numbers so far
        self.seen: dict[str, str] = {}

    @property
    def fallen(self) -> bool:
        """Whether it began as numbers and is text, as whole numbers are that a float would round
        where there are gaps."""
        numbers = any(part.dtype.kind != "O" for part in self.parts)
        gaps = any(mask is not None for mask in self.masks)
        return numbers and (self.text or (self.whole and gaps and any(map(_beyond, self.parts))))

    @property
    def kind(self) -> str:
        """The dtype of its values so far; "" where that is not known yet."""
        if self.text or self.spelled:
            return "O"
        return "" if not self.parts else "i8" if self.whole else "f8"

    def add(self, cells: Cells | np.ndarray) -> None:
        """Further cells, or numbers of its kind."""
        if not len(cells):
            return
        if isinstance(cells, np.ndarray) and cells.dtype.kind != "O":
            self.parts.append(cells.copy() if cells.base is not None else cells)
            self.masks.append(None)
            return
        cells = cast(Cells, cells)
        if not self.text:
            found = self._numbers(cells)
            if found is not None:
                self.parts.append(found[0])
                self.masks.append(found[1])
                self.whole &= found[0].dtype.kind in "iu"
                return
            self.text = True
        if self.fallen:
            return  # another pass will read it
        texts = [cell.strip() for cell in cells]
        mask = np.array([cell in self.gaps for cell in texts])
        keep = self.seen
        part = np.empty(len(texts), object)
        part[:] = [keep.setdefault(cell, cell) for cell in texts]
        part[mask] = ""
        self.parts.append(part)
        self.masks.append(mask if mask.any() else None)

    def _numbers(self, cells: Cells) -> tuple[np.ndarray, np.ndarray | None] | None:
        """The cells as numbers, and where the gaps are among them; None if one is text."""
        if self.whole and (found := _ints(cells, self.gaps)) is not None:
            if not self.spelled or _same(map(str, found[0].tolist()), cells, found[1]):
                return found
            return None
        found = _floats(cells, self.gaps)
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
        if gaps is None and self.whole:
            kinds = {part.dtype for part in self.parts}
            if len(kinds) == 1:
                return Column(self.name, np.concatenate(self.parts))
            low = min(int(part.min()) for part in self.parts)
            if low >= 0:
                return Column(self.name, np.concatenate([p.astype(np.uint64) for p in self.parts]))
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


def _ints(cells: Cells, gaps: frozenset[str]) -> tuple[np.ndarray, np.ndarray | None] | None:
    """Whole numbers of 64 bits, with 0 in the gaps; None if a cell is none."""
    marks = None
    try:
        values = list(map(int, cells))
    except ValueError:
        cells, marks = _filled(cells, gaps, "0")
        try:
            if marks is None:
                return None
            values = list(map(int, cells))
        except ValueError:
            return None
    if not _plain(cells):
        return None
    for dtype in (np.int64, np.uint64):
        with suppress(OverflowError):
            return np.array(values, dtype), marks
    return None


def _floats(cells: Cells, gaps: frozenset[str]) -> tuple[np.ndarray, np.ndarray | None] | None:
    """Numbers, with NaN in the gaps; None if a cell is none, or a whole one beyond 64 bits."""
    marks = None
    try:
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
    if (np.abs(values) >= 2.0**63).any() and any(_long(cell) for cell in cells):
        return None
    return values, marks


def _long(cell: str) -> bool:
    """Whether this is a whole number of more digits than 64 bits hold: an identifier."""
    digits = cell.strip().lstrip("+-")
    return digits.isdigit() and int(digits) >= 1 << 64


def _decimal_commas(
    columns: list[Column], as_text: Sequence[str], notes: list[str]
) -> list[Column]:
    """Columns of text that are numbers with a decimal comma, as numbers."""
    found = []
    points = [c.name for c in columns if c.values.dtype.kind == "f" and _has_fractions(c)]
    for k, column in enumerate(columns):
        if column.values.dtype.kind != "O" or _is_among(column.name, as_text):
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
        values = np.full(len(column), np.datetime64("NaT"), "datetime64[us]")
        try:
            found = [_utc(cell) for cell in present]
        except ValueError:
            return column
    else:
        return column
    values[slice(None) if column.gaps is None else ~column.gaps] = found
    return Column(column.name, values, column.gaps)


def _utc(cell: str) -> datetime:
    """The point in time, in UTC, without a time zone."""
    found = datetime.fromisoformat(cell)
    return found.astimezone(UTC).replace(tzinfo=None) if found.tzinfo else found
