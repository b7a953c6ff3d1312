"""Tables that are in memory: data frames of any library that narwhals knows, structured and masked
arrays, dictionaries of columns.

narwhals is imported when a data frame is given, the library of the frame never.
"""

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

import numpy as np

from mlp.data.array_files import array_column, array_table
from mlp.data.columnar_files import arrow_table, as_categories
from mlp.data.columns import NoColumn, column, of_cells, of_text, spread, table_of_columns
from mlp.data.tables import Column, Table
from mlp.errors import InputError, shown

# What the class of a data frame has, of whatever library; no array and no list has any of them.
SIGNS = ("__dataframe__", "__narwhals_dataframe__", "__narwhals_lazyframe__", "collect_schema")
NO_FRAMES = ("builtins", "numpy", "scipy", "torch", "cupy", "mlp")


def is_frame(x: Any) -> bool:
    """Whether `table_of` should read this: columns that have names or gaps of their own.

    >>> is_frame({"age": [31, 25]}), is_frame(np.ma.masked_equal([1, 0], 0))
    (True, True)
    >>> is_frame(np.eye(3)), is_frame([[1, 2], [3, 4]])
    (False, False)
    """
    if isinstance(x, np.ndarray):
        return isinstance(x, np.ma.MaskedArray) or x.dtype.names is not None
    kind = type(x)
    if isinstance(x, Mapping | Table):
        return not kind.__module__.startswith("scipy.")  # a dok_array is a dictionary of places
    if kind.__module__.partition(".")[0] in NO_FRAMES:
        return False
    return any(hasattr(kind, sign) for sign in SIGNS) or _is_relation(kind)


def _is_relation(kind: type) -> bool:
    """Whether it hands over Arrow's columns and has names for them, as a query of DuckDB."""
    return hasattr(kind, "__arrow_c_stream__") and hasattr(kind, "columns")


def _text(name: Any) -> str:
    try:
        return str(name)
    except Exception as error:
        raise InputError(f"the name of a column is text, not {shown(name)}") from error


def table_of(frame: Any, source: str = "X", wanted: Iterable[str] = ()) -> Table:
    """The table of a data frame, a structured or masked array, or a dictionary of columns (n,).

    Missing values of every kind are gaps: None, NaN, NaT, pandas.NA, nulls, masks. Categories are
    text, also where numbers name them; cells that are Python's numbers are numbers, Decimal too.
    Names are texts; an index is no column. What no column can hold is left out with a note, or
    refused if it is `wanted`. Raises InputError for this and for two columns of one name.

    >>> table_of({"age": [31, None, 25], "name": ["Ada", "Bo", None]}, "people")
    Table(3 rows, age: numbers, name: text, people)
    """
    if isinstance(frame, Table):
        return frame
    if isinstance(frame, np.ndarray):
        return array_table(frame, source, wanted)
    if isinstance(frame, Mapping):
        makers = [(name, partial(_listed, _text(name), cells)) for name, cells in frame.items()]
        return table_of_columns(makers, source, wanted)
    import narwhals as nw
    from narwhals.exceptions import DuplicateError

    try:
        known = nw.from_native(frame, pass_through=True)
        if isinstance(known, nw.LazyFrame):
            known = known.collect()
        if not isinstance(known, nw.DataFrame) or known.implementation.is_pyarrow():
            return arrow_table(nw.to_native(known, pass_through=True), source, wanted)
        series = zip(known.columns, known.iter_columns(), strict=True)
        makers = [(name, partial(_series_column, str(name), cells)) for name, cells in series]
    except DuplicateError as error:
        raise InputError(f"{source}: {' '.join(str(error).split())}; rename one") from error
    return table_of_columns(makers, source, wanted)


def _listed(name: str, cells: Any) -> Column:
    """A column of a dictionary: an array, a list, or a series of a library's own."""
    if isinstance(cells, list | tuple):
        return of_cells(name, cells)
    if not isinstance(cells, np.ndarray):
        import narwhals as nw

        try:
            return _series_column(name, nw.from_native(cells, series_only=True))
        except TypeError as error:
            raise NoColumn(f"is a {type(cells).__name__}; give an array or a list") from error
    if cells.ndim != 1:
        raise NoColumn(f"has the shape {cells.shape}; give one column a name")
    return array_column(name, cells)


def _series_column(name: str, series: Any) -> Column:
    """The column of a narwhals Series. Raises NoColumn for what no column can hold."""
    import narwhals as nw

    null = series.is_null()
    gaps = np.asarray(null.to_numpy(), bool)
    if gaps.any():
        series = series.filter(~null)
    kind = series.dtype
    if kind in (nw.Decimal, nw.Object, nw.Int128, nw.UInt128):
        cells = of_cells(name, series.to_list())
    elif kind == nw.String:
        cells = of_text(name, series.to_list())
    elif kind in (nw.Datetime, nw.Date):
        cells = column(name, _times(series))
    elif kind in (nw.Categorical, nw.Enum):
        cells = as_categories(column(name, series.to_numpy()))
    elif kind == nw.Unknown and not len(series):  # polars' column of nulls
        cells = Column(name, np.empty(0))
    elif kind.is_numeric() or kind in (nw.Boolean, nw.Unknown):
        cells = column(name, series.to_numpy())
    else:
        raise NoColumn(f"holds {kind}, which no column is; convert it to numbers or to text")
    return spread(cells, gaps)


def _times(series: Any) -> np.ndarray:
    """Points in time in UTC, in a unit that keeps them, as datetime64."""
    unit = getattr(series.dtype, "time_unit", "ms")
    unit = "ms" if unit == "s" else unit
    return np.asarray(series.dt.timestamp(unit).to_numpy(), np.int64).view(f"M8[{unit}]")
