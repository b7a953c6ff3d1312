"""Parquet and Arrow files as tables, and back, by pyarrow; it is imported when one is met.

Arrow's types become the kinds of a table:

    integers, floats, bool, date, timestamp    as they are; nulls are gaps
    decimal                                    the nearest float64
    string, dictionary                         text; numbers of a dictionary are categories, so text
    null                                       numbers, all of them gaps
    lists, structs, binary, times, durations   left out with a note, or refused if they are wanted
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, BinaryIO

import numpy as np

from mlp.data.columns import Makers, NoColumn, column, of_text, table_of_columns, without_value
from mlp.data.packed import believable, beyond_belief, size_of, start_of
from mlp.data.tables import Column, Table
from mlp.errors import InputError, shown

# The suffixes of the files, by kind.
PARQUET = (".parquet", ".pq")
ARROW = (".feather", ".arrow", ".ipc")


def read_parquet(file: BinaryIO, source: str, wanted: Iterable[str] = ()) -> Table:
    """The table in a Parquet file. InputError for what is damaged or beyond belief."""
    need_pyarrow("reading .parquet")
    from pyarrow import parquet

    with _arrow_file(source, "Parquet"):
        # Text is read as a dictionary: a text that is repeated is kept once.
        schema = parquet.read_schema(file)
        text = [field.name for field in schema if _is_text(field.type)]
        file.seek(0)
        opened = parquet.ParquetFile(file, read_dictionary=text)
        about = opened.metadata
        groups = map(about.row_group, range(about.num_row_groups))
        unpacked = sum(group.total_byte_size for group in groups)
        if max(unpacked, 8 * about.num_rows * about.num_columns) > believable(size_of(file)):
            raise beyond_belief(source, believable(size_of(file)))
        table = opened.read()
        table.validate(full=True)
        return arrow_table(table, source, wanted)


def read_arrow(file: BinaryIO, source: str, wanted: Iterable[str] = ()) -> Table:
    """The table in an Arrow file or stream, which Feather is too."""
    pa = need_pyarrow("reading .feather and .arrow")
    with _arrow_file(source, "Arrow"):
        limit, batches = believable(size_of(file)), []
        opened = pa.ipc.open_file if start_of(file) == b"ARROW1" else pa.ipc.open_stream
        with opened(file) as reader:
            for batch in _batches(reader):
                batch.validate(full=True)  # before anything looks into it
                batches.append(batch)
                limit -= sum(b.size for c in batch.columns for b in c.buffers() if b is not None)
                if limit < 0:
                    raise beyond_belief(source, believable(size_of(file)))
            table = pa.Table.from_batches(batches, reader.schema)
        return arrow_table(table, source, wanted)


def _batches(reader: Any) -> Iterable[Any]:
    """The record batches of an Arrow file, which are found by number, or of a stream."""
    if not hasattr(reader, "num_record_batches"):
        return reader
    return map(reader.get_batch, range(reader.num_record_batches))


def arrow_table(table: Any, source: str, wanted: Iterable[str] = ()) -> Table:
    """The table of a pyarrow.Table, or of anything that hands Arrow's columns over.

    >>> import pyarrow
    >>> arrow_table(pyarrow.table({"age": [31, None], "name": ["Ada", "Bo"]}), "people")
    Table(2 rows, age: numbers, name: text, people)
    """
    pa = need_pyarrow(f"{source}: a {type(table).__name__}")
    try:
        table = pa.table(table)
    except (pa.ArrowException, TypeError, ValueError) as error:
        raise InputError(f"{source}: a {type(table).__name__} is no table ({error})") from error
    index = tuple(name for name in table.column_names if name.startswith("__index_level_"))
    notes = [f"column {name!r} is left out: it is pandas' index" for name in index]
    makers: Makers = (
        (name, partial(arrow_column, name, values))
        for name, values in zip(table.column_names, table.columns, strict=True)
        if name not in index
    )
    return table_of_columns(makers, source, wanted, notes)


def arrow_column(name: str, values: Any) -> Column:
    """The column of a pyarrow.ChunkedArray (n,). Raises NoColumn for what no column can hold."""
    import pyarrow as pa

    kinds, kind = pa.types, values.type
    if kinds.is_dictionary(kind):
        return _dictionary(name, values)
    gaps = values.is_null().to_numpy() if values.null_count else None
    if kinds.is_null(kind):
        return without_value(name, len(values))
    if _is_text(kind):
        return of_text(name, values.cast(pa.large_string()).to_numpy(), gaps)
    if kinds.is_decimal(kind):  # by its digits, which are rounded once
        values = values.cast(pa.string()).cast(pa.float64())
    elif kinds.is_date32(kind):
        return column(name, _filled(values.cast(pa.int32())).astype("M8[D]"), gaps)
    elif kinds.is_date64(kind) or kinds.is_timestamp(kind):
        unit = "ms" if kinds.is_date64(kind) else kind.unit
        return column(name, _filled(values.cast(pa.int64())).view(f"M8[{unit}]"), gaps)
    elif not (kinds.is_integer(kind) or kinds.is_floating(kind) or kinds.is_boolean(kind)):
        raise NoColumn(f"holds {kind}, which no column is; convert it to numbers or to text")
    return column(name, _filled(values), gaps)


def _filled(values: Any) -> np.ndarray:
    """Numbers as an array of their own dtype, with 0 or NaN for nulls."""
    import pyarrow as pa

    if values.null_count and not pa.types.is_floating(values.type):
        values = values.fill_null(pa.scalar(0).cast(values.type))
    return values.to_numpy()


def _is_text(kind: Any) -> bool:
    import pyarrow as pa

    kinds = pa.types
    return kinds.is_string(kind) or kinds.is_large_string(kind) or kinds.is_string_view(kind)


def _dictionary(name: str, values: Any) -> Column:
    """A column of categories: what each of them is, is converted once."""
    import pyarrow as pa

    if any(chunk.dictionary.null_count for chunk in values.chunks):  # they go among the indices
        values = values.cast(values.type.value_type).dictionary_encode()
    values = values.unify_dictionaries().combine_chunks()
    words = as_categories(arrow_column(name, pa.chunked_array([values.dictionary])))
    gaps = values.is_null().to_numpy(zero_copy_only=False)
    places = _filled(values.indices).astype(np.int64)
    if words.gaps is not None:
        gaps = gaps | words.gaps[places]
    if not len(words):
        return of_text(name, [""] * len(values), gaps)
    chosen = words.values[places]
    return of_text(name, chosen, gaps) if chosen.dtype == object else column(name, chosen, gaps)


def as_categories(words: Column) -> Column:
    """Categories that are numbers, as text: they are the names of kinds, not quantities."""
    if not words.numeric:
        return words
    return of_text(words.name, [str(value) for value in words.values.tolist()], words.gaps)


# ------------------------------------------------------------------------------ writing


def write_arrow(table: Table, file: BinaryIO, *, as_parquet: bool) -> None:
    """A table as a Parquet or Arrow file, from which the same table is read.

    Raises InputError for a column that Arrow has no type for.

    >>> import io
    >>> file = io.BytesIO()
    >>> write_arrow(Table.of_array(np.eye(2), ["a", "b"]), file, as_parquet=True)
    >>> read_parquet(file, "t.parquet")
    Table(2 rows, a: numbers, b: numbers, t.parquet)
    """
    pa = need_pyarrow("writing .parquet and .feather")
    arrays = {
        name: _arrow_array(pa, table.source, column) for name, column in table.columns.items()
    }
    whole = pa.table(arrays)
    if as_parquet:
        from pyarrow import parquet

        parquet.write_table(whole, file, compression="zstd")
    else:
        with pa.ipc.new_file(file, whole.schema) as batches:
            batches.write_table(whole)


def _arrow_array(pa: Any, source: str, column: Column) -> Any:
    kind = pa.string() if column.values.dtype == object else None
    try:
        return pa.array(column.values, kind, mask=column.gaps)
    except (pa.ArrowException, UnicodeEncodeError) as error:
        raise InputError(
            f"{source}: column {shown(column.name)} of {column.values.dtype} cannot be written "
            f"({error})"
        ) from error


# ------------------------------------------------------------------------------ pyarrow


def need_pyarrow(purpose: str) -> Any:
    """The library, or an InputError that says how to install it."""
    try:
        import pyarrow
    except ImportError as error:
        raise InputError(
            f"{purpose} needs pyarrow: pip install 'array-mlp[tables]' ({error})"
        ) from error
    return pyarrow


@contextmanager
def _arrow_file(source: str, kind: str) -> Iterator[None]:
    """What pyarrow says of a damaged file, as an InputError."""
    import pyarrow as pa

    try:
        yield
    except InputError:
        raise
    except MemoryError as error:
        raise InputError(
            f"{source} asks for more memory than there is; it is damaged, or too large to be read"
        ) from error
    except (pa.ArrowException, OSError, ValueError, TypeError, KeyError, OverflowError) as error:
        raise InputError(
            f"{source} is damaged or no {kind} file ({' '.join(str(error).split())}); write it "
            "again"
        ) from error
