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
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from mlp.data.tables import GAPS, Column, Table
from mlp.data.text_columns import ColumnOfText, decimal_commas, floats, ints, is_among, is_number
from mlp.errors import InputError, shown

DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
SNIFFED = 1 << 16  # characters by which delimiter and header are found
ROWS = 4096  # that are converted together
FIRST = 64  # that tell of which kind the columns may be

THOUSANDS = {mark: rf"[+-]?[1-9]\d{{0,2}}(\{mark}\d{{3}})+" for mark in ".,"}

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
    quoted = all(line.startswith('"') for line in islice(io.StringIO(text), 2))
    names, skip = _header(path, first, header, wanted, quoted, notes)
    gaps = frozenset(("", *(GAPS if missing is None else missing)))
    columns, lines, blank = _read(rows, names, skip, gaps, as_text, notes)
    columns = _named(path, columns, names, notes)
    if delimiter != ",":
        notes += _thousands(path, names, [row for _, row in first[1:]])
    if delimiter != ",":
        columns = decimal_commas(columns, as_text, notes)
    if not columns or not len(columns[0]):
        raise InputError(f"{path} is too short; it needs a row of column names and rows of values")
    between = 0 if blank.kept else blank.inside
    named = {column.name: column for column in columns}
    return Table(named, str(path), None, lines, notes, between)


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
    if best[0] < 0:
        _refuse_blanks(path, some)
    return text, chosen, 0


def _refuse_blanks(path: Path, some: str) -> None:
    """InputError where the columns are separated by blanks."""
    rows = [line.split() for line in some.splitlines()[1:30] if line.strip()]
    if len(rows) > 1 and len({len(row) for row in rows}) == 1 and len(rows[0]) > 1:
        numbers = sum(all(map(is_number, row[1:])) for row in rows)
        if numbers > len(rows) / 2:
            raise InputError(
                f"{path}: the columns seem to be separated by blanks; separate them by commas, as "
                f"by python -c \"import pandas; pandas.read_csv('{path}', sep=r'\\s+')"
                f".to_csv('{path.stem}.csv', index=False)\""
            )


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
                    cure = "a quote inside a quoted cell is doubled"
                    if "field larger" in str(error):
                        cure = "shorten that cell, or close a quote before it"
                    raise InputError(
                        f"{self.path}, line {where} is not CSV: {error}; {cure}"
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
    quoted: bool,
    notes: list[str],
) -> tuple[list[str], int]:
    """The names of the columns, and the line after which the values begin. quoted: whether the
    first two lines begin with a quote."""
    line, cells = first[0]
    names = [cell.strip() for cell in cells]
    if names[0].startswith("# ") and len(names) > 1:
        names[0] = names[0][2:].strip()  # as np.savetxt writes them
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
            f"{path}, line {line} names {known} of {len(names)} columns ({shown(title)}): it looks "
            "like a title; remove the lines above the row of column names"
        )
    row = _trimmed(below[0])
    if len(row) > len(names):
        widths = {len(_trimmed(row)) for row in below}
        numbered = [row[0] for row in below] == [str(k + 1) for k in range(len(below))]
        if len(names) > 1 and widths == {len(names) + 1} and (numbered or quoted):
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
            f"{path}: the first row looks like values, not names ({shown(again[0])} stands below "
            f"it too); put a header above it, or {cure}"
        )
    notes.append(
        f"{path}: the first row, {', '.join(names[:4])}{', ...' * (len(names) > 4)}, looks like "
        f"values and is taken as names; if it is none, say data.header = false"
    )
    return True


def _are_positions(names: Cells, below: list[list[str]]) -> bool:
    """Whether numbers name columns, as wavelengths and years do: each is above the one before, and
    the values below are not like that, or have fractions where the names have none."""
    if not _rises(names):
        return False
    whole = ints(names, frozenset()) is not None
    return not all(_rises(row) for row in below) or (
        whole and all(ints(row, frozenset()) is None for row in below)
    )


def _rises(cells: Cells) -> bool:
    """Whether there are two numbers or more, each above the one before."""
    found = floats(cells, frozenset())
    return found is not None and len(cells) > 1 and bool((np.diff(found[0]) > 0).all())


def _thousands(path: Path, names: list[str], rows: list[list[str]]) -> list[str]:
    """What to say of columns in which points or commas may separate thousands."""
    found = []
    for k, name in enumerate(names):
        cells = [row[k].strip() for row in rows if len(row) > k]
        for mark, what in ((".", "points"), (",", "commas")):
            marked = [cell for cell in cells if mark in cell]
            if len(marked) > 1 and all(re.fullmatch(THOUSANDS[mark], cell) for cell in marked):
                found.append(
                    f"{path}: {what} in {name!r} ({marked[0]}) are taken as decimal {what}; if "
                    "they separate thousands, remove them"
                )
    return found


def _named(path: Path, columns: list[Column], names: list[str], notes: list[str]) -> list[Column]:
    """The columns that have a name, each a different one; what is left out is said."""
    kept = [column for column in columns if column.name]
    twice = [name for name, often in Counter(c.name for c in kept).items() if often > 1]
    if twice:
        raise InputError(f"{path}: two columns are named {shown(twice[0])}; rename one")
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
) -> tuple[list[Column], np.ndarray, "_Blank"]:
    """All columns, in one pass; those that begin as numbers and go on as text take another."""
    states = [ColumnOfText(name, is_among(name, as_text), gaps) for name in names]
    found: list[np.ndarray] = []
    blank = _Blank(len(names) == 1, '""' in rows.text)
    for lines, columns in _blocks(rows, states, after, blank):
        found.append(lines)
        for state, column in zip(states, columns, strict=True):
            state.add(column)
    again = [k for k, state in enumerate(states) if state.fallen]
    for k in again:
        states[k] = ColumnOfText(names[k], states[k].spelled, gaps, text=True)
    if again:
        for _, columns in _blocks(rows, states, after, _Blank(blank.kept, blank.quoted)):
            for k in again:
                states[k].add(columns[k])
    words = {state.name: sorted(state.words - {""}) for state in states}
    notes += [
        f"{rows.path}: in {name!r} {', '.join(map(repr, of_gaps))} stands for a gap; data.missing "
        "can name other words"
        for name, of_gaps in words.items()
        if of_gaps
    ]
    if blank.said:
        are = "s are" if blank.said > 1 else " is"
        notes.append(f"{rows.path}: {blank.said} blank row{are} passed over")
    lines = np.concatenate(found) if found else np.empty(0, np.int64)
    made = [state.column() for state in states]
    if blank.kept and blank.pending:  # the file's end
        rest = slice(0, len(lines) - blank.pending)
        return [column.take(rest) for column in made], lines[rest], blank
    return made, lines, blank


@dataclass
class _Blank:
    """The blank rows of a file, which are passed over; a line without any cell is none. kept: of a
    file of one column those between others are gaps. quoted: there a row of \"\" is a gap too.

    said : how many had cells.  inside : how many lie between others.  pending : since the last row.
    """

    kept: bool
    quoted: bool
    said: int = 0
    inside: int = 0
    pending: int = 0

    def none(self) -> None:
        """Rows follow of which none is blank."""
        self.inside, self.pending = self.inside + self.pending, 0

    def sort(self, rows: list[list[str]]) -> list[int]:
        """The places of the rows that are kept."""
        blank = [not any(map(str.strip, row)) for row in rows]
        if self.kept and self.quoted:
            blank = [not row for row in rows]
        last = max((i for i, nothing in enumerate(blank) if not nothing), default=-1)
        counted = [
            nothing and (self.kept or row != []) for row, nothing in zip(rows, blank, strict=True)
        ]
        if last >= 0:
            self.none()
            self.inside += sum(counted[:last])
        self.pending += sum(counted[last + 1 :])
        if self.kept:
            return list(range(len(rows)))
        self.said += sum(counted)
        return [i for i, nothing in enumerate(blank) if not nothing]


def _blocks(
    rows: _Rows, states: list[ColumnOfText], after: int, blank: _Blank
) -> Iterator[tuple[np.ndarray, Sequence[Any]]]:
    """(lines, columns) for some rows at a time; a column is an array of numbers, or cells."""
    width = len(states)
    size = max(16, min(ROWS, (1 << 20) // max(1, width)))
    if not rows.simple:
        for numbers, some in rows.chunks(size, after):
            yield _columns(rows, numbers, some, width, blank)
        return
    for first, lines in rows.lines(size, after):
        columns = _at_once(lines, states, rows.delimiter)
        if columns is not None:
            blank.none()
            yield np.arange(first, first + len(lines)), columns
        else:
            some = list(_reader("".join(lines), rows.delimiter))
            yield _columns(rows, range(first, first + len(some)), some, width, blank)


def _at_once(lines: list[str], states: list[ColumnOfText], delimiter: str) -> Sequence[Any] | None:
    """The columns of these lines by NumPy's own parser, where each is as it was so far: it takes
    the numbers that `ColumnOfText` takes. None where a line or a cell is another."""
    kinds = [state.kind for state in states]
    if "" in kinds:
        return None
    same = len(set(kinds)) == 1 and kinds[0] != "O"
    dtype: Any = kinds[0] if same else [(f"f{k}", kind) for k, kind in enumerate(kinds)]
    try:
        found = np.loadtxt(lines, dtype, None, delimiter, ndmin=2 if same else 1)
    except (ValueError, OverflowError):
        return None
    if len(found) != len(lines) or (same and found.shape[1] != len(kinds)):
        return None  # blank lines were passed over, or all have too many cells
    columns = list(found.T) if same else [found[f"f{k}"] for k in range(len(kinds))]
    if set(kinds) == {"O"} and not all(map(str.strip, columns[0])):
        return None  # a row may be blank
    infinite = same and kinds[0] == "f8" and not np.isfinite(found).all()
    return None if infinite or not (same or _finite(columns)) else columns


def _finite(columns: Sequence[np.ndarray]) -> bool:
    return all(x.dtype.kind != "f" or np.isfinite(x).all() for x in columns)


def _columns(
    rows: _Rows, lines: Sequence[int], some: list[list[str]], width: int, blank: _Blank
) -> tuple[np.ndarray, Sequence[Any]]:
    """The same of rows of cells."""
    if set(map(len, some)) == {width} and all(row[0].strip() for row in some):
        blank.none()
    else:
        kept = blank.sort(some)
        lines = [lines[i] for i in kept]
        some = [_fitted(rows, n, some[i] or [""], width) for n, i in zip(lines, kept, strict=True)]
    columns: Sequence[Any] = list(zip(*some, strict=True)) or [()] * width
    return np.asarray(lines, np.int64), columns


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
