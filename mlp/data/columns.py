"""Columns of a table from values of any dtype, from Python objects, and which of them cannot be.

What the kinds of `mlp.data.tables` leave open is decided here, for every format alike:

    NaN, NaT, None             a gap; infinity is a value
    whole numbers with gaps    float64 if that keeps every digit, else the text of the digits
    points in time             rounded down to microseconds, in UTC; without a time zone as they are
    Python's objects           numbers if all are (True among them is 1), and so on; else none
    no value at all            numbers, all of them gaps, whatever the type
"""

from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from numbers import Integral, Real
from typing import Any

import numpy as np

from mlp.data.finite import is_gap
from mlp.data.tables import Column, Table
from mlp.errors import InputError, shown

YEARS = 290_000  # before and after 1970, that int64 counts microseconds of
EXACT = 2**53  # whole numbers up to here are float64 without loss
NumberLike = (Real, Decimal)  # True and False beside numbers are 1 and 0


class NoColumn(Exception):
    """Values that no column of a table can hold: what they are, and a cure, without the name."""


def column(name: str, values: np.ndarray, gaps: np.ndarray | None = None) -> Column:
    """The column of values (n,) of any dtype; gaps : (n,) bool, beside those that values show.

    Raises NoColumn.

    >>> column("age", np.array([31, 0, 25]), np.array([False, True, False]))
    Column(name='age', values=array([31., nan, 25.]), gaps=array([False,  True, False]))
    """
    kind = values.dtype.kind
    if kind == "O":
        return of_cells(name, values.tolist(), gaps)
    if kind in "SUT":
        return _text(name, values, gaps)
    if kind not in "biufM":
        raise NoColumn(f"holds {values.dtype}, which no column is; leave it out or convert it")
    values = native(values)
    if kind == "M":
        values = _microseconds(values)
    if kind in "fM":
        missing = np.isnan(values) if kind == "f" else np.isnat(values)
        gaps = missing if gaps is None else gaps | missing
    if gaps is None or not gaps.any():
        return Column(name, values)
    if kind != "f" and gaps.all():
        return without_value(name, len(gaps))
    if kind in "iu":
        there = values[~gaps]
        if there.max() > EXACT or there.min() < -EXACT:
            return of_text(name, values.astype(str), gaps)
        values = values.astype(np.float64)
    blank = {"b": False, "M": np.datetime64("NaT", "us")}.get(kind, np.nan)
    return Column(name, np.where(gaps, np.array(blank, values.dtype), values), gaps)


def without_value(name: str, n: int) -> Column:
    """The column of n cells none of which has a value."""
    return column(name, np.full(n, np.nan))


def native(array: np.ndarray) -> np.ndarray:
    """The array in the order of bytes of this machine."""
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def of_text(name: str, values: Any, gaps: np.ndarray | None = None) -> Column:
    """The column of texts (n,), an array of str or of objects that are."""
    texts = np.array(values, object)
    if gaps is None or not gaps.any():
        return Column(name, texts)
    if gaps.all():
        return without_value(name, len(gaps))
    texts[gaps] = ""
    return Column(name, texts, gaps)


def of_cells(name: str, cells: Sequence[Any], gaps: np.ndarray | None = None) -> Column:
    """The column of Python objects (n,), of one kind all of them. Raises NoColumn for a mixture.

    >>> of_cells("price", [Decimal("0.1"), None, 3])
    Column(name='price', values=array([0.1, nan, 3. ]), gaps=array([False,  True, False]))
    """
    missing = np.fromiter((is_gap(cell) for cell in cells), bool, len(cells))
    gaps = missing if gaps is None else gaps | missing
    there = [cell for cell, gap in zip(cells, gaps, strict=True) if not gap]
    return spread(Column(name, _of_one_kind(there)), gaps)


def spread(there: Column, gaps: np.ndarray) -> Column:
    """The column of n cells where `there` has those alone that are no gaps; gaps : (n,) bool.

    >>> spread(Column("age", np.array([31, 25])), np.array([False, True, False])).values
    array([31., nan, 25.])
    """
    if not gaps.any():
        return there
    values = np.zeros(len(gaps), there.values.dtype)
    values[~gaps] = there.values
    whole = gaps.copy()
    whole[~gaps] = there.gaps if there.gaps is not None else False
    make = of_text if values.dtype == object else column
    return make(there.name, values, whole)


def _of_one_kind(cells: Sequence[Any]) -> np.ndarray:
    """Objects (n,) none of which is a gap, as an array of the kind that all of them have."""
    kinds = set(map(type, cells))
    if not kinds:
        return np.empty(0)
    if all(issubclass(kind, str) for kind in kinds):
        return np.array([str(cell) for cell in cells], object)
    if all(issubclass(kind, (bool, np.bool_)) for kind in kinds):
        return np.array(cells, bool)
    if all(issubclass(kind, (Integral, np.bool_)) for kind in kinds):
        return _whole([int(cell) for cell in cells])
    if all(issubclass(kind, (*NumberLike, np.bool_)) for kind in kinds):
        return _floats([int(cell) if isinstance(cell, np.bool_) else cell for cell in cells])
    if all(issubclass(kind, (date, np.datetime64)) for kind in kinds):
        return _times(cells)
    raise NoColumn(
        f"holds cells of the types {', '.join(sorted(kind.__name__ for kind in kinds))}; make them "
        "all numbers or all text, or leave it out"
        if len(kinds) > 1
        else f"holds cells of the type {kinds.pop().__name__}, which no column is; leave it out or "
        "convert it"
    )


def _whole(numbers: list[int]) -> np.ndarray:
    """int64, or uint64, or the text of the digits: what holds them all."""
    if min(numbers) >= -(2**63) and max(numbers) < 2**63:
        return np.array(numbers, np.int64)
    if min(numbers) >= 0 and max(numbers) < 2**64:
        return np.array(numbers, np.uint64)
    return np.array([str(number) for number in numbers], object)


def _floats(cells: Sequence[Any]) -> np.ndarray:
    """float64 of numbers of several types; whole ones and finite ones must stay what they are."""
    try:
        values = np.array([float(cell) for cell in cells])
    except OverflowError as error:
        raise NoColumn("holds numbers beyond 1.8e308; leave it out") from error
    for cell, value in zip(cells, values.tolist(), strict=True):
        if isinstance(cell, Integral) and int(cell) != value:
            raise NoColumn(f"holds {cell} among fractions, which float64 would round; split it")
        if isinstance(cell, Decimal) and cell.is_finite() and not np.isfinite(value):
            raise NoColumn("holds numbers beyond 1.8e308; leave it out")
    return values


def _times(cells: Sequence[Any]) -> np.ndarray:
    """Points in time: with a time zone in UTC; some with and some without cannot be compared."""
    zoned = {isinstance(cell, datetime) and cell.tzinfo is not None for cell in cells}
    if len(zoned) > 1:
        raise NoColumn("holds times with and without a time zone; give all of them one")
    if zoned == {True}:
        cells = [cell.astimezone(UTC).replace(tzinfo=None) for cell in cells]
    return np.array([np.datetime64(cell).astype("M8[us]") for cell in cells])


def _text(name: str, values: np.ndarray, gaps: np.ndarray | None) -> Column:
    if values.dtype.kind == "S":
        try:
            return of_text(name, np.char.decode(values, "utf-8"), gaps)
        except UnicodeDecodeError as error:
            raise NoColumn("holds bytes that are not UTF-8 text; leave it out") from error
    if values.dtype.kind == "U" and values.dtype.itemsize and len(values):
        codes = np.ascontiguousarray(native(values)).view(np.uint32)
        if codes.max() > 0x10FFFF or (codes & 0xFFFFF800 == 0xD800).any():
            raise NoColumn("holds codes that are no characters; write it again")
    return of_cells(name, values.tolist(), gaps)


def _microseconds(values: np.ndarray) -> np.ndarray:
    """datetime64[us], rounded down; a unit of more than that may reach further than it can."""
    unit, _ = np.datetime_data(values.dtype)
    if unit in ("Y", "M", "W", "D", "h", "m", "s", "ms"):
        years = values.astype("M8[Y]")
        beyond = (np.abs(years.astype(np.int64)) > YEARS) & ~np.isnat(values)
        if beyond.any():
            year = years[beyond][0]
            raise NoColumn(f"holds the year {year}, from which microseconds cannot be counted")
    return values.astype("M8[us]")


# ------------------------------------------------------------------------------ tables


Makers = Iterable[tuple[Any, Callable[[], Column]]]


def table_of_columns(
    makers: Makers, source: str, wanted: Iterable[str] = (), notes: Sequence[str] = ()
) -> Table:
    """The table of columns, each by its name, which may be any object, and how it is made.

    What no column can hold is left out with a note, or refused if its name is `wanted`.
    Raises InputError for this, for two columns of one name and for columns of several lengths.
    """
    columns: dict[str, Column] = {}
    notes, seen, wanted = list(notes), set(), set(wanted)
    for spelling, make in makers:
        name = str(spelling)
        if name in seen:
            raise InputError(f"{source}: two columns are named {shown(name)}; rename one")
        seen.add(name)
        try:
            columns[name] = make()
        except NoColumn as error:
            if name in wanted:
                raise InputError(f"{source}: column {shown(name)} {error}") from error
            notes.append(f"column {name!r} is left out: it {error}")
    lengths = {len(column): name for name, column in columns.items()}
    if len(lengths) > 1:
        (n, first), (m, second) = list(lengths.items())[:2]
        raise InputError(
            f"{source}: column {shown(first)} has {n} rows, column {shown(second)} has {m}; they "
            "must agree"
        )
    return Table(columns, source, notes=tuple(notes))
