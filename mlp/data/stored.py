"""Data sets on disk that need not fit into memory: NPY, Parquet, Arrow and Feather files.

The rows of an NPY file are read where they are. Those of the other formats are packed and cannot be
read in blocks at random: of a group of a million rows all would be unpacked for 256 of them. They
are unpacked once, in the pass that searches them, into a file of their own (`row_files.spool`).

Text in the column of targets is a label; any other column must hold numbers.
"""

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from math import prod
from mmap import mmap
from pathlib import Path
from typing import Any

import numpy as np

from mlp.data.array_files import npy_header
from mlp.data.columnar_files import need_pyarrow
from mlp.data.finite import Search
from mlp.data.labels import as_labels
from mlp.data.order import BLOCK, BUFFER, split
from mlp.data.readers import Dataset, names_of
from mlp.data.row_files import PIECE, OpenFile, Part, RowFile, of_others, spool, spool_groups
from mlp.data.tables import Names, known, made_up
from mlp.errors import InputError, check_is, shown
from mlp.files import check_stamp, checked_path, open_regular, reading, stamp_of
from mlp.memory import megabytes, size_of
from mlp.parallel.group import ALONE, Group

MOST_LABELS = 1 << 16
BUFFERS = 3  # that are held: the two that a batch may lie in, and the one that is read ahead
PAGES = 4 << 20  # bytes that PyArrow holds of a Parquet column while it unpacks it, at most


@dataclass(frozen=True, eq=False)
class StoredDataset:
    """n samples on disk, as `open_rows` gives them: what `Dataset` is in memory.

    X : inputs, (n, d), t : labels or numbers, (n,), or (n, c) numbers, s : sample weights, (n,), or
    None; each is read like an array, by slices and by numbers of rows.
    columns : d names of the inputs.  source : the file, for messages.

    `mlp.train` and the methods of a model take it in place of X and t.
    """

    X: Part
    t: Part | None
    s: Part | None
    columns: Names
    source: str

    def __len__(self) -> int:
        return len(self.X)

    def __repr__(self) -> str:
        """How many rows and columns."""
        n, d = self.X.shape
        names = f"{', '.join(self.columns[:4])}{', ...' * (d > 4)}"
        return f"StoredDataset({n} rows of {d} inputs ({names}), {self.source})"

    def inputs(self, columns: Names | None) -> Part:
        """X with these columns in their order; as `Dataset.inputs`."""
        if columns is None or columns == self.columns:
            return self.X
        other = set(columns) != set(self.columns)
        if other and made_up(self.columns) and len(columns) == len(self.columns):
            return self.X
        places = _places(columns, self.columns, self.source)
        return self.X.map(lambda rows: rows[:, places])

    def split(self, fraction: float, seed: int) -> tuple["StoredDataset", "StoredDataset"]:
        """The rows to train on and the fraction held out, in whole blocks of 256 rows that are
        drawn at random: rows that follow each other in the file stay together."""
        kept, held_out = split(-(-len(self) // BLOCK), fraction, seed)
        return self.only(kept), self.only(held_out)

    def only(self, blocks: np.ndarray) -> "StoredDataset":
        """The rows of these blocks alone, (k,) in ascending order."""
        X, t, s = of_others((self.X, self.t, self.s), lambda file: file.only(blocks))
        return replace(self, X=X, t=t, s=s)

    def pieces(self) -> Iterator[Dataset]:
        """The rows in their order, some megabytes at a time, as data sets in memory."""
        rows = self.X.rows_of_a_piece
        for start in range(0, len(self), rows):
            at = slice(start, start + rows)
            t = None if self.t is None else self.t[at]
            yield Dataset(self.X[at], t, self.columns, self.source, checked=True)


def labels_of(t: Part, source: str, group: Group = ALONE) -> np.ndarray:
    """The different labels among targets on disk, sorted; each rank looks through its share of
    them. Raises InputError for what is no label, and for more than 65,536 of them."""

    def own() -> np.ndarray | None:
        return _different(as_labels(rows, source) for rows in t.pieces(group))

    def _different(pieces: Iterable[np.ndarray]) -> np.ndarray | None:
        found: np.ndarray | None = None
        for rows in pieces:
            here = np.unique(rows)
            found = here if found is None else np.union1d(found, here)
            if len(found) > MOST_LABELS:
                raise InputError(
                    f"{source} holds more than {MOST_LABELS} different labels; for numbers use the "
                    "loss 'mean_squared_error'"
                )
        return found

    found = _different(x for x in group.every(own) if x is not None)
    assert found is not None  # no data set is without rows
    return found


def open_rows(
    path: str | os.PathLike[str] | np.memmap,
    *,
    inputs: str | Sequence[str] | None = None,
    target: str | Sequence[str] | None = None,
    targets_file: str | os.PathLike[str] | None = None,
    sample_weight: str | None = None,
    memory: str | int | None = None,
    group: Group = ALONE,
) -> StoredDataset:
    """The data set in a .npy, .parquet, .arrow or .feather file, its rows left on disk.

    path : or a memory map, whose file is read then.
    inputs : the columns to use (default: all that are nothing else). Those of an array are called
        x_0, x_1, ..., or x_0_0, ... where a row has more axes.
    target : the column of targets, or several.
    targets_file : a second file that holds the targets, row by row; `target` names columns there
        (default: all).
    sample_weight : the column of weights.
    memory : what the rows may take of memory, as "2GB": the buffers they are read into must fit.

    group : processes that call it together, as `mlp.parallel.world()`: each reads its part of an
        NPY file.

    Every value is looked at once, here. Raises InputError for a file that is missing, damaged, of
    another format, or without such columns; for a value that is missing, NaN or infinite, naming
    its column; and where `memory` does not suffice.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     np.save(f"{folder}/a.npy", np.arange(12.0).reshape(4, 3))
    ...     rows = open_rows(f"{folder}/a.npy", target="x_2")
    >>> rows.X.shape, rows.columns, rows.t[:2].tolist()
    ((4, 2), ('x_0', 'x_1'), [2.0, 5.0])
    """
    check_is("open_rows: group", group, Group)
    table = opened(path)
    names = names_of(inputs)
    targets = names_of(target)
    weights = names_of(sample_weight)
    aside = () if targets_file is not None else targets
    chosen = names or tuple(n for n in table.names if n not in (*aside, *weights))
    if not chosen:
        raise InputError(f"{table.name} has no column of inputs beside {', '.join(aside)}; add one")
    beside = table
    if targets_file is not None:
        beside = opened(targets_file)
        targets = targets or beside.names
        if beside.n != table.n:
            raise InputError(
                f"{table.name} has {table.n} rows of inputs, {beside.name} has {beside.n} "
                "targets; each row needs one"
            )
    used = {table: (*chosen, *weights), beside: targets}
    if beside is table:
        used = {table: (*chosen, *weights, *targets)}
    _check_memory(used, memory)
    return StoredDataset(
        table.part(chosen, group),
        beside.targets(targets, group) if targets else None,
        table.targets(weights, group) if weights else None,
        chosen,
        table.name,
    )


def larger_than(
    path: str | os.PathLike[str], memory: str | int, inputs: str | Sequence[str] | None = None
) -> bool:
    """Whether the inputs in this file, (n, d) in memory, would take more than that, each column as
    one of numbers.

    A file of another format, whose rows cannot be left on disk, is taken for what it has on disk;
    raises InputError if that is more.
    """
    path = checked_path(path)
    with reading(path):
        size = os.stat(path).st_size
    if not kept_on_disk(path) and size <= size_of(memory):
        return False
    table = opened(path)
    names = names_of(inputs) or table.names
    return table.room(names) > size_of(memory)


def kept_on_disk(path: str | os.PathLike[str]) -> bool:
    """Whether rows of this file, by its name, can be left on disk."""
    return Path(path).suffix.lower() in FORMATS


def _check_memory(tables: Mapping["Npy | Packed", Names], memory: str | int | None) -> None:
    """InputError if what reading these columns of each file takes is more than that."""
    needed = 2 * PIECE + sum(table.held(names) for table, names in tables.items())
    if memory is not None and needed > size_of(memory):
        raise InputError(
            f"{' and '.join(table.name for table in tables)}: reading in blocks takes "
            f"{megabytes(needed)}, memory is {shown(memory)}; give more, or name fewer columns in "
            "`inputs`"
        )


def _places(names: Names, among: Names, source: str) -> list[int]:
    """Where the names are among others; InputError for one that is not there."""
    place = {name: k for k, name in enumerate(among)}
    for name in names:
        if name not in place:
            raise InputError(f"{source} has no column {shown(name)}{known(name, among)}")
    return [place[name] for name in names]


# ------------------------------------------------------------------------------ the formats


def opened(path: str | os.PathLike[str] | np.memmap) -> "Npy | Packed":
    """The file, opened."""
    if isinstance(path, np.memmap):
        return _mapped(path)
    path = checked_path(path)
    kind = path.suffix.lower()
    if kind not in FORMATS:
        raise InputError(
            f"{path}: rows are read in blocks from {', '.join(FORMATS)}, not from "
            f"{kind or 'a file without an ending'}; convert it: `mlp convert {path.name} "
            f"{path.stem}.parquet`"
        )
    return FORMATS[kind](path)


class Npy:
    """An array in a file, from byte ``offset`` on; its columns are the numbers of a row.

    columns_first : whether the values of a column stand one after the other, not those of a row.
    """

    def __init__(
        self,
        file: OpenFile,
        shape: tuple[int, ...],
        dtype: np.dtype,
        offset: int,
        columns_first: bool = False,
    ):
        self.name = file.name
        if dtype.kind not in "buif" or not shape or min(shape) < 1:
            raise InputError(
                f"{self.name} holds a {dtype} array of shape {shape}; save rows of numbers"
            )
        self.n, self.width = shape[0], prod(shape[1:])
        expected = offset + self.n * self.width * dtype.itemsize
        if file.size < expected:
            raise InputError(
                f"{self.name} is damaged: {expected} bytes are expected, {file.size} are there; "
                "write it again"
            )
        axes = shape[1:] or (1,)
        self.names: Names = tuple("_".join(("x", *map(str, at))) for at in np.ndindex(axes))
        self.stored = np.dtype(np.uint8) if dtype.kind == "b" else dtype
        self.opened, self.offset = file, offset
        self.columns_first = columns_first and self.width > 1

    @cached_property
    def file(self) -> RowFile:
        """Its rows, one after the other."""
        if not self.columns_first:
            return RowFile(self.opened, self.stored, self.width, self.n, self.offset)
        pieces = _by_columns(self.opened, self.stored, self.n, self.width, self.offset)
        return spool(pieces, self.name)

    @property
    def itemsize(self) -> int:
        """Bytes of a value in memory."""
        return self.stored.itemsize

    def room(self, names: Names) -> int:
        """Bytes that these columns take in memory."""
        return self.n * len(names) * self.itemsize

    def held(self, names: Names) -> int:
        """Bytes in memory while rows are read: they are read whole."""
        return BUFFERS * BUFFER * BLOCK * self.width * self.itemsize

    def part(self, names: Names, group: Group = ALONE) -> Part:
        """These columns, (n, d), searched, each rank its share of the rows."""
        return self._searched(self.unsearched(names), names, group)

    def targets(self, names: Names, group: Group = ALONE) -> Part:
        """The same, one column as (n,)."""
        one = _places(names, self.names, self.name)[0] if len(names) == 1 else None
        return self._searched(self.unsearched(names, one), names, group)

    def unsearched(self, names: Names, columns: Any = None) -> Part:
        """These columns, of which no value has been looked at."""
        columns = _run(_places(names, self.names, self.name)) if columns is None else columns
        native = self.stored.newbyteorder("=")
        then = () if self.stored == native else (lambda rows: rows.astype(native),)
        return Part(self.file, columns, then)

    def _searched(self, part: Part, names: Names, group: Group) -> Part:
        if part.dtype.kind == "f":
            search = Search(names, self.name)
            with group.together():
                for rows in part.pieces(group):
                    search.add(rows.reshape(-1, len(names)))
            search.end(group)
        return part


def _npy(path: Path) -> Npy:
    """The array of an .npy file."""
    name = str(path)
    with reading(path):
        file = OpenFile(open_regular(path, buffering=0), name)
        try:
            shape, columns_first, dtype = npy_header(file.file)
        except OSError:
            raise
        except Exception as error:  # a damaged header can end in almost any of them
            raise InputError(
                f"{name} is damaged or not a plain array of NumPy ({error}); write it again"
            ) from error
        return Npy(file, shape, dtype, file.file.tell(), columns_first)


def _mapped(x: np.memmap) -> Npy:
    """The array of a memory map, which is read from its file."""
    if x.filename is None or not isinstance(x.base, mmap):
        raise InputError("a part of a memory map cannot be read from its file; give all of it")
    path = Path(x.filename)
    with reading(Path(path)):
        file = OpenFile(open_regular(path, buffering=0), str(path))
    return Npy(file, x.shape, x.dtype, x.offset, not x.flags.c_contiguous)


def _run(places: list[int]) -> slice | list[int]:
    """Places that follow each other as a slice, which copies nothing."""
    run = slice(places[0], places[0] + len(places))
    return run if places == list(range(run.start, run.stop)) else places


def _by_columns(
    file: OpenFile, dtype: np.dtype, n: int, width: int, offset: int
) -> Iterator[np.ndarray]:
    """The rows of an array whose columns stand one after the other, some megabytes at a time."""
    rows = max(1, PIECE // (width * dtype.itemsize))
    for start in range(0, n, rows):
        piece = np.empty((width, min(rows, n - start)), dtype)
        for k, column in enumerate(piece):
            file.read_into(offset + (k * n + start) * dtype.itemsize, column)
        yield piece.T


class Packed:
    """A table in a file that PyArrow unpacks, Parquet or Arrow (Feather)."""

    def __init__(self, path: Path):
        self.path, self.name = path, str(path)
        with self._pyarrow():
            self.stamp = stamp_of(path)
            self.schema, self.sizes, self.unpacking = self._about()
        self.n = sum(self.sizes)
        self.names: Names = tuple(self.schema.names)
        twice = [name for name, times in Counter(self.names).items() if times > 1]
        if twice:
            raise InputError(f"{path}: two columns are named {shown(twice[0])}; rename one")
        if not self.n:
            raise InputError(f"{path} has no rows")

    @contextmanager
    def _pyarrow(self) -> Iterator[None]:
        """What PyArrow and the disk refuse, as an InputError, and a file that has changed: it is
        opened for each pass over it."""
        pyarrow = need_pyarrow(f"{self.name}: reading this format")
        with reading(self.path):
            try:
                yield
                check_stamp(self.path, self.stamp, self.name)
            except (pyarrow.ArrowException, EOFError) as error:
                check_stamp(self.path, self.stamp, self.name)
                what = (str(error).splitlines() or [""])[0]
                raise InputError(f"{self.name} is damaged ({what}); write it again") from error

    def _about(self) -> tuple[Any, list[int], dict[str, int]]:
        """The schema, the rows of each group, which is unpacked by itself, and the bytes that
        unpacking takes of each column."""
        open_regular(self.path).close()  # PyArrow would wait at a pipe
        if self.path.suffix.lower() == ".parquet":
            from pyarrow.parquet import ParquetFile

            with ParquetFile(self.path) as file:
                about, schema, sizes = file.metadata, file.schema_arrow, dict[str, int]()
                for group in map(about.row_group, range(about.num_row_groups)):
                    for column in map(group.column, range(about.num_columns)):
                        name, size = column.path_in_schema, column.total_uncompressed_size
                        sizes[name] = max(sizes.get(name, 0), size)
                groups = map(about.row_group, range(about.num_row_groups))
                return (
                    schema,
                    [group.num_rows for group in groups],
                    {n: min(PAGES, sizes.get(n, PAGES)) for n in schema.names},
                )
        with self._arrow() as file:
            schema = file.schema
        with self._arrow([0]) as file:  # how many rows is nowhere in the file but in its batches
            rows = [file.get_batch(i).num_rows for i in range(file.num_record_batches)]
            return schema, rows, dict.fromkeys(schema.names, 2 * 8 * max(rows, default=0))

    def _arrow(self, places: Sequence[int] = ()) -> Any:
        """An Arrow file of which only these columns, or all, are read. It is read, not mapped."""
        import pyarrow

        options = pyarrow.ipc.IpcReadOptions(included_fields=list(places))
        return pyarrow.ipc.open_file(pyarrow.OSFile(self.name), options=options)

    def batches(self, names: Names, groups: Iterable[int] | None = None) -> Iterator[Any]:
        """Record batches of these columns, one after the other in memory; of these groups of rows,
        None is all of them."""
        import pyarrow

        with self._pyarrow():
            if self.path.suffix.lower() == ".parquet":
                from pyarrow.parquet import ParquetFile

                # Read through small buffers: else whole groups of rows lie in memory, packed.
                with ParquetFile(self.path, buffer_size=1 << 16, pre_buffer=False) as file:
                    about = {"columns": list(names), "use_threads": False}
                    if groups is not None:
                        about["row_groups"] = list(groups)
                    yield from file.iter_batches(1 << 14, **about)
            else:
                with self._arrow(_places(names, self.names, self.name)) as file:
                    every = range(file.num_record_batches)
                    yield from map(file.get_batch, every if groups is None else groups)
        pyarrow.default_memory_pool().release_unused()

    itemsize = 8  # of a value in memory, whatever it is

    def held(self, names: Names) -> int:
        """Bytes in memory, at most: of unpacking these columns, or later of their rows."""
        _places(names, self.names, self.name)
        unpacking = sum(self.unpacking[name] for name in names)
        return max(unpacking, BUFFERS * BUFFER * BLOCK * self.itemsize * len(names))

    def dtype(self, names: Names) -> np.dtype:
        """Of these columns together."""
        return np.result_type(*(self._dtype(name) for name in names))

    def _dtype(self, name: str) -> np.dtype:
        """In which a column is unpacked. Raises InputError for what are no numbers."""
        from pyarrow import types

        kind = self.schema.field(name).type
        if types.is_boolean(kind):
            return np.dtype(np.uint8)
        if types.is_decimal(kind):
            return np.dtype(np.float64)
        if types.is_integer(kind) or types.is_floating(kind):
            return np.dtype(kind.to_pandas_dtype())
        raise InputError(
            f"{self.name}, column {shown(name)} holds {kind}, not numbers; code it as numbers, or "
            "name only the other columns in `inputs`"
        )

    def room(self, names: Names) -> int:
        """Bytes that these columns take in memory: of text a pointer a row."""
        from pyarrow import types

        kinds = [self.schema.field(name).type for name in names]
        widths = [max(1, k.bit_width // 8) if types.is_primitive(k) else 8 for k in kinds]
        return self.n * sum(widths)

    def part(self, names: Names, group: Group = ALONE) -> Part:
        """These columns, (n, d), searched; each rank unpacks its share of the groups, and later
        those that its rows are in."""
        _places(names, self.names, self.name)
        return Part(self._spooled(names, group), slice(0, len(names)))

    def targets(self, names: Names, group: Group = ALONE) -> Part:
        """These columns, one as (n,), of labels if it is text."""
        _places(names, self.names, self.name)
        if len(names) > 1:
            return self.part(names, group)
        if self._text(names[0]):
            return self._labels(names[0], group)
        part = Part(self._spooled(names, group), 0)
        from pyarrow import types

        flags = types.is_boolean(self.schema.field(names[0]).type)
        return part.map(lambda rows: rows.astype(bool)) if flags else part

    def _spooled(self, names: Names, group: Group) -> RowFile:
        """The numbers of these columns, searched."""
        search, dtype, width = Search(names, self.name), self.dtype(names), len(names)
        if group.size == 1:
            return spool(self._numbers(names, search), self.name)

        def unpacked(number: int) -> Iterator[np.ndarray]:
            return self._numbers(names, search, number)

        file = self.by_groups(unpacked, dtype, width, group)
        search.end(group)
        return file

    def by_groups(
        self, unpacked: Callable[[int], Iterator[np.ndarray]], dtype: Any, width: int, group: Group
    ) -> RowFile:
        """The rows of which a function gives those of a group, in pieces (k, width); each rank has
        unpacked its share of the groups."""
        with group.together():
            file = spool_groups(self.sizes, unpacked, dtype, width, self.name)
            for number in group.share(len(self.sizes)):
                file.fill(number)
        return RowFile(file, dtype, width, self.n)

    def _numbers(
        self, names: Names, search: Search, group: int | None = None
    ) -> Iterator[np.ndarray]:
        """The rows of a group in pieces, whatever is missing; or all rows, as long as nothing is,
        and at the end InputError if it is."""
        import pyarrow

        dtype = self.dtype(names)
        for batch in self.batches(names, None if group is None else [group]):
            columns = [batch.column(name) for name in names]
            missing = any(column.null_count for column in columns)
            piece = np.empty((len(batch), len(names)), np.float64 if missing else dtype)
            for k, column in enumerate(columns):
                if pyarrow.types.is_boolean(column.type):
                    column = column.cast(pyarrow.uint8())
                elif pyarrow.types.is_decimal(column.type):
                    column = column.cast(pyarrow.float64())
                piece[:, k] = column.to_numpy(zero_copy_only=False)
            search.add(piece)
            if group is not None and missing:  # another rank may have to hear of it first
                yield np.zeros(piece.shape, dtype)
            elif group is not None or not search.bad:
                yield piece
        if group is None:
            search.end()

    def _text(self, name: str) -> bool:
        from pyarrow import types

        kind = self.schema.field(name).type
        kind = kind.value_type if types.is_dictionary(kind) else kind
        return bool(types.is_string(kind) or types.is_large_string(kind))

    def _labels(self, name: str, group: Group) -> Part:
        """A column of text as labels: on disk are their numbers."""
        import pyarrow
        from pyarrow import compute

        def texts(groups: Iterable[int] | None = None) -> Iterator[Any]:
            for batch in self.batches((name,), groups):
                yield batch.column(name).cast(pyarrow.large_string())

        def own() -> tuple[set[str], int]:
            found: set[str] = set()
            empty = 0
            for column in texts(group.share(len(self.sizes))):
                empty += column.null_count
                found |= set(column.drop_null().unique().to_pylist())
                check(found)
            return found, empty

        def check(found: set[str]) -> None:
            if len(found) > MOST_LABELS:
                raise InputError(
                    f"{self.name}, column {shown(name)} holds more than {MOST_LABELS} different "
                    "texts; name a column of labels or of numbers in `target`"
                )

        sets, gaps = zip(*group.every(own), strict=True)
        found, empty = set[str]().union(*sets), sum(gaps)
        check(found)
        if empty:
            raise InputError(
                f"{self.name}: {empty} of {self.n} rows have no value in the target column "
                f"{shown(name)}; fill them in or remove these rows"
            )
        labels = np.array(sorted(found))
        known_labels = pyarrow.array(labels.tolist(), pyarrow.large_string())

        def codes(groups: Iterable[int] | None = None) -> Iterator[np.ndarray]:
            for column in texts(groups):
                numbers = compute.index_in(column, value_set=known_labels)
                yield numbers.to_numpy(zero_copy_only=False).reshape(-1, 1)

        if group.size == 1:
            file = spool(codes(), self.name)
        else:
            file = self.by_groups(lambda number: codes([number]), np.int32, 1, group)
        return Part(file, 0, (lambda rows: labels[rows],))


FORMATS: dict[str, Callable[[Path], Npy | Packed]] = {
    ".npy": _npy,
    ".parquet": Packed,
    ".arrow": Packed,
    ".feather": Packed,
}
