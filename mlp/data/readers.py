"""Data sets: the rows of a table with what is to be predicted of them.

A data set is n rows of inputs and their targets t: n labels, n numbers or (n, c) numbers. Where
they stand is said by names: of columns, or of arrays in an .npz file.
"""

import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from mlp.data.array_files import arrays_in
from mlp.data.finite import check_finite
from mlp.data.table_files import read_table
from mlp.data.tables import Column, Names, Table, known, made_up, matching
from mlp.data.text_columns import BOOLEANS, is_number
from mlp.errors import InputError, Note, check_is, check_names, check_switch, shown
from mlp.files import check_stamp, checked_path, open_regular, reading, stamp_of

Given = str | Sequence[str] | None
PathLike = str | os.PathLike[str]
ARRAYS = (".npz", ".npy")  # files without names of columns, as IDX files are


@dataclass(frozen=True, eq=False)
class Dataset:
    """n samples on the host.

    X : the inputs, (n, d) numbers in the dtype of the file (uint8 images stay uint8; CSV gives
        float64); or a `Table`, where not all of them are numbers.
    t : (n,) labels (int or str) or numbers, or (n, c) numbers; None where there are none.
    columns : names of the inputs.  source : the file, for messages.
    checked : whether the values have been searched for what is not finite, as `read` does.
    s : (n,) sample weights, or None.  beside : further columns that were asked for.

    `mlp.train` and the methods of a model take it in place of X and t.
    """

    X: Any
    t: np.ndarray | None
    columns: Names
    source: str
    checked: bool = False
    s: np.ndarray | None = None
    beside: Table | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        for name, x in (("t", self.t), ("s", self.s)):
            if x is not None and not isinstance(x, np.ndarray):
                raise InputError(f"Dataset: {name} must be an array (n,), not {shown(x, 60)}")
        check_switch("Dataset: checked", self.checked)

    def __repr__(self) -> str:
        """How many rows and columns, and of what."""
        n, d = len(self), len(self.columns)
        about = f"{n} rows of {d} inputs ({', '.join(self.columns[:4])}{', ...' * (d > 4)})"
        if self.t is not None:
            columns = f"{self.t.shape[1]} columns of " if self.t.ndim == 2 else ""
            kind = "labels" if self.t.dtype.kind == "U" else "numbers"
            about += f" with {columns}{kind}"
        return f"Dataset({about}, {self.source})"

    def inputs(self, columns: Names | None) -> Any:
        """X with these columns in their order; None is X as it is.

        Names that `read` made up, x_0, x_1, ..., give way to as many others. Raises InputError for
        a column that is not there.
        """
        if columns is None or columns == self.columns:
            return self.X
        other = set(columns) != set(self.columns)
        if other and made_up(self.columns) and len(columns) == len(self.columns):
            return self.X
        return numbers(self.table().select(columns))

    def table(self) -> Table:
        """X as a table."""
        if isinstance(self.X, Table):
            return self.X
        return Table.of_array(self.X, self.columns, self.source)

    def take(self, rows: np.ndarray) -> "Dataset":
        """These rows, by number."""
        X = self.X.take(rows) if isinstance(self.X, Table) else self.X[rows]
        t, s = (None if x is None else x[rows] for x in (self.t, self.s))
        beside = None if self.beside is None else self.beside.take(rows)
        return replace(self, X=X, t=t, s=s, beside=beside)

    def __len__(self) -> int:
        return len(self.X)


def read(
    path: PathLike,
    *,
    inputs: Given = None,
    target: Given = None,
    targets_file: PathLike | None = None,
    need_targets: bool = True,
    exclude: Given = None,
    header: bool | None = None,
    missing: Sequence[str] | None = None,
    drop_rows_without_target: bool = False,
    sample_weight: str | None = None,
) -> Dataset:
    """The data set in a file of a kind that `mlp.read_table` reads.

    inputs : the columns to use, in this order, by name or by pattern ("lab_*"); default: all but
        the targets. .npz: the name of the array (default X). Arrays have no column names: they take
        these names in order, or x_0, x_1, ... (images x_0_0, x_0_1, ...), by which columns can be
        picked too.
    target : the column of targets, or several. .npz: the name of the array (default t or y).
    targets_file : a second file that holds the targets, in any of the formats; `target` then names
        a column or array there (default: all of it).
    need_targets : False reads the inputs only; a target column, if there, is left out of X.
    exclude : columns that are no inputs, by name or pattern.
    header, missing : as of `mlp.read_table`.
    drop_rows_without_target : leave out rows whose target is a gap, which is refused otherwise.
    sample_weight : the column of the rows' weights.

    A label is the text that stands in a text file where a number in its place would be written
    otherwise: 007, 1_1. Every row has its target; anything else is an InputError. X is an array if
    all its columns are numbers, or True and False, without gaps; then every value is finite.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     file = Path(folder) / "plants.csv"
    ...     _ = file.write_text("height,width,kind\\n1.5,2,fern\\n2.5,3,moss\\n")
    ...     plants = read(file, target="kind")
    >>> plants.columns, plants.X.tolist(), plants.t.tolist()
    (('height', 'width'), [[1.5, 2.0], [2.5, 3.0]], ['fern', 'moss'])
    """
    data = read_rows(
        path,
        inputs=inputs,
        target=target,
        targets_file=targets_file,
        need_targets=need_targets,
        exclude=exclude,
        header=header,
        missing=missing,
        drop_rows_without_target=drop_rows_without_target,
        sample_weight=sample_weight,
    )
    table = data.X
    if any(c.gaps is not None or c.values.dtype.kind not in "fiub" for c in table.columns.values()):
        return data
    return replace(data, X=numbers(table), checked=True)


def read_rows(
    path: PathLike,
    *,
    inputs: Given = None,
    target: Given = None,
    targets_file: PathLike | None = None,
    need_targets: bool = True,
    exclude: Given = None,
    header: bool | None = None,
    missing: Sequence[str] | None = None,
    drop_rows_without_target: bool = False,
    sample_weight: str | None = None,
    as_text: Sequence[str] = (),
    wanted: Sequence[str] = (),
    beside: Sequence[str] = (),
    weights_needed: bool = True,
) -> Dataset:
    """`read`, with X a table whatever it holds. as_text, wanted: as of `mlp.read_table`. beside:
    columns that are no inputs and are kept. weights_needed: whether the column of weights must be
    there."""
    path = checked_path(path)
    check_switch("need_targets", need_targets)
    check_switch("drop_rows_without_target", drop_rows_without_target)
    if sample_weight is not None:
        check_is("sample_weight, a column,", sample_weight, str)
    given, targets, left_out = map(names_of, (inputs, target, exclude))
    own = () if targets_file is not None else targets
    others = (*beside, *([sample_weight] if sample_weight else []))
    said = (*given, *(own if need_targets else ()), *others) if not is_arrays(path) else ()
    said = said if weights_needed else tuple(name for name in said if name != sample_weight)
    plain = [name for name in said if "*" not in name and "?" not in name]
    with reading(path):
        stamp = stamp_of(path)
    table = read_table(
        path,
        header=header,
        missing=missing,
        as_text=(*targets, *as_text, *beside),
        wanted=(*plain, *wanted),
        array=_array_name(path, (*given, "X") if len(given) == 1 else ("X",)),
    )
    if missing is not None and table.lines is None:  # of text the reader has done it
        table = table.with_gaps(missing)
    notes = [*table.notes]
    if is_arrays(path) and not _has_fields(table):
        named = len(given) == 1 and path.suffix.lower() == ".npz" and table.names != given
        table = _of_array(table, () if named else given)
        given = () if named or not given else table.names
    names = chosen(table.names, str(path), given, (*own, *others), left_out)
    if not names:
        raise InputError(f"{path} has no column of inputs beside {', '.join(own)}; add one")
    X = table.select(names)
    found: list[Column] = []
    source = path
    if not need_targets:
        _check_places("there is to be a prediction for each row", table)
    if need_targets and targets_file is not None:
        source = checked_path(targets_file)
        of_targets = _read_targets(source, targets, header, missing)
        why = "its rows are paired with those of another file by their place"
        _check_places(why, table, of_targets)
        unnamed = of_targets.array is not None and not targets
        found = _numbered(of_targets) if unnamed else list(of_targets.columns.values())
        notes += of_targets.notes
    elif need_targets:
        found = _own_targets(path, table, targets)
    if path.suffix.lower() == ".npz":  # opened for each array
        check_stamp(path, stamp, str(path))
    if found and len(found[0]) != len(X):
        raise InputError(
            f"{path} has {len(X)} rows of inputs, {source} has {len(found[0])} targets; each row "
            "needs one"
        )
    s = None
    needed = need_targets and weights_needed
    if sample_weight is not None and (needed or sample_weight in table.columns):
        s = _weights(table[sample_weight], str(path))
    kept = table.select(beside) if beside else None
    _check_infinite(X)
    data = Dataset(X, None, X.names, str(path), s=s, beside=kept)
    if found:
        data = _with_targets(data, found, str(source), drop_rows_without_target, notes)
    for note in notes:
        warnings.warn(note, Note, stacklevel=3)
    return data


def _check_infinite(table: Table) -> None:
    """InputError for numbers that are infinite; what is NaN is a gap."""
    if table.array is not None:
        check_finite(table.array, table.names, table.source)
        return
    for column in table.columns.values():
        if column.values.dtype.kind == "f" and np.isinf(column.values).any():
            infinite = np.where(np.isinf(column.values), np.inf, 0.0)
            check_finite(infinite[:, None], [column.name], table.source)


def is_arrays(path: Path) -> bool:
    """Whether a file is of arrays by its name."""
    return path.suffix.lower() in ARRAYS


def _array_name(path: Path, wanted: Names, only: bool = False) -> str | None:
    """The first of these names that an array of an .npz file has; of another file None. only: where
    it holds a single array, this one will do."""
    if path.suffix.lower() != ".npz":
        return None
    with reading(path), open_regular(path) as file:
        names = arrays_in(file, str(path))
    for name in names if only and len(names) == 1 else wanted:
        if name in names:
            return name
    raise InputError(
        f"{path} has no array {shown(wanted[0])}{known(wanted[0], names)} (`inputs` and `target` "
        "name arrays)"
    )


def names_of(given: Given) -> Names:
    """What is given by name: one name, several, or none."""
    return check_names("what names columns", given)


def chosen(
    names: Names, source: str, inputs: Sequence[str], others: Sequence[str], exclude: Sequence[str]
) -> list[str]:
    """Of these names those of the inputs: what is asked for, by name or pattern, or all that are
    nothing else; less what is excluded."""
    known_names = dict.fromkeys(names)
    no_inputs = {name for given in exclude for name in matching(given, known_names, source)}
    if inputs:
        asked = [name for given in inputs for name in matching(given, known_names, source)]
        return [name for name in dict.fromkeys(asked) if name not in no_inputs]
    return [name for name in names if name not in no_inputs.union(others)]


def _has_fields(table: Table) -> bool:
    """Whether an array has names of its own, as a structured one has."""
    return not made_up(table.names)


def _of_array(table: Table, names: Names) -> Table:
    """The inputs of an array: the columns of these names, or all of them under these names."""
    if not names or set(names) <= set(table.names):
        return table.select(names or table.names)
    if len(names) != len(table.names):
        asked = ", ".join(names[:4]) + (", ..." if len(names) > 4 else "")
        raise InputError(
            f"{table.source} has {len(table.names)} columns without names, but {len(names)} inputs "
            f"are asked for ({asked}); it must have as many"
        )
    if table.array is not None:
        return Table.of_array(table.array, names, table.source)
    columns = zip(names, table.columns.values(), strict=True)
    return replace(table, columns={name: replace(column, name=name) for name, column in columns})


# ------------------------------------------------------------------------------ targets


def _own_targets(path: Path, table: Table, names: Names) -> list[Column]:
    """The targets that are in the file of the inputs."""
    if path.suffix.lower() == ".npz":
        if len(names) > 1:
            raise InputError(f"{path}: name one array of targets, not {len(names)}; it can be 2-d")
        array = _array_name(path, names or ("t", "y"))
        return _numbered(read_table(path, array=array))
    unnamed = is_arrays(path) or table.array is not None
    if (is_arrays(path) and not names) or (unnamed and not set(names) <= set(table.names)):
        raise InputError(f"{path} holds the inputs alone; name the file of targets: `targets_file`")
    if not names:
        raise InputError(f"{path}: name the column to predict in `target`{known('', table.names)}")
    return [table[name] for name in names]


def _read_targets(
    path: Path, names: Names, header: bool | None, missing: Sequence[str] | None
) -> Table:
    """The targets in a file of their own."""
    if is_arrays(path) and len(names) > 1:
        raise InputError(f"{path}: name one array of targets, not {len(names)}; it can be 2-d")
    array = _array_name(path, names or ("t", "y"), only=not names)
    table = read_table(path, header=header, missing=missing, as_text="*", wanted=names, array=array)
    if missing is not None and table.lines is None:
        table = table.with_gaps(missing)
    return table if is_arrays(path) or not names else table.select(names)


def _check_places(why: str, *tables: Table) -> None:
    """InputError where rows that are known by their place were passed over."""
    for table in tables:
        if table.passed_over:
            raise InputError(
                f"{table.source}: {table.passed_over} blank rows lie between others, and {why}; "
                "remove them"
            )


def _numbered(table: Table) -> list[Column]:
    """The columns of an array of targets, which have no names."""
    return [replace(c, name=f"target {k}") for k, c in enumerate(table.columns.values())]


def _with_targets(
    data: Dataset, columns: list[Column], source: str, drop: bool, notes: list[str]
) -> Dataset:
    """The data set with these targets, less the rows that have none."""
    without = [column.gaps for column in columns if column.gaps is not None]
    if without:
        gaps = np.logical_or.reduce(without)
        many, name = int(gaps.sum()), next(c.name for c in columns if c.gaps is not None)
        if not drop:
            raise InputError(
                f"{source}: {many} of {len(gaps)} rows have no value in the target column "
                f"{shown(name)}; fill them in, remove these rows, or let "
                "`drop_rows_without_target` leave them out"
            )
        if many == len(gaps):
            raise InputError(f"{source}: no row has a value in the target column {shown(name)}")
        notes.append(f"{source}: {many} rows without a target are left out")
        rows = np.flatnonzero(~gaps)
        data, columns = data.take(rows), [_whole_again(column.take(rows)) for column in columns]
    parts = [_target(column, len(columns), source) for column in columns]
    names = tuple(column.name for column in columns)
    t = parts[0] if len(parts) == 1 else np.column_stack(parts)
    check_finite(t.reshape(len(t), -1), names, source)
    return replace(data, t=t)


def _whole_again(column: Column) -> Column:
    """Whole numbers that were floats beside gaps."""
    values = column.values
    if values.dtype.kind != "f" or not _whole(values):
        return column
    return Column(column.name, values.astype(np.int64))


def _target(column: Column, many: int, source: str) -> np.ndarray:
    """One of so many columns of targets: numbers or text; of several True and False are 1, 0."""
    values = column.values
    if many > 1 and values.dtype.kind == "O":
        if not set(values) <= set(BOOLEANS):
            first = next(value for value in values if value not in BOOLEANS)
            raise InputError(
                f"{source}: of {many} columns of targets all must be numbers, not text "
                f"({shown(first)} in column {shown(column.name)})"
            )
        values = np.array([BOOLEANS[value] for value in values])
    if many > 1 and values.dtype.kind == "b":
        return values.astype(np.uint8)
    if values.dtype.kind == "M":
        return np.datetime_as_string(values)
    return values.astype(str) if values.dtype.kind == "O" else values


def targets_for(t: np.ndarray, kind: str, classes: np.ndarray | None = None) -> np.ndarray:
    """Targets that were read, as a loss of this kind and a model of these classes take them.

    Text that was kept for its spelling is numbers for a loss of numbers. Labels are of the kind
    that the classes have, whatever the others in their file made of them.

    >>> targets_for(np.array(["1.50", "+2"]), "numbers").tolist()
    [1.5, 2.0]
    >>> targets_for(np.array([11, 12]), "classes", np.array(["11", "1_1"])).tolist()
    ['11', '12']
    """
    if t.ndim != 1:
        return t
    text = t.dtype.kind == "U"
    numbers = kind in ("numbers", "counts") if classes is None else classes.dtype.kind in "iuf"
    if text and numbers and all(map(is_number, t)):
        found = t.astype(np.float64)
        return found.astype(np.int64) if classes is not None and _whole(found) else found
    if classes is not None and classes.dtype.kind == "U" and t.dtype.kind in "iuf":
        return np.array([str(label) for label in t.tolist()])
    return t


def _whole(x: np.ndarray) -> bool:
    return bool((x == np.rint(x)).all() and (np.abs(x) <= 2.0**53).all())


def _weights(column: Column, source: str) -> np.ndarray:
    if not column.numeric or column.gaps is not None:
        what = "has gaps" if column.gaps is not None else "is not of numbers"
        raise InputError(f"{source}: the column of weights, {shown(column.name)}, {what}")
    return column.values.astype(np.float64)


# ------------------------------------------------------------------------------ numbers


def numbers(table: Table) -> np.ndarray:
    """The columns of a table as an array (n, d): in their own dtype if that is a narrow one that
    all of them have, else float64; True and False are 1 and 0.

    Raises InputError for the first column of another kind, or with gaps.
    """
    if table.array is not None:
        return table.array
    for column in table.columns.values():
        if column.values.dtype.kind not in "fiub":
            what = "dates" if column.values.dtype.kind == "M" else f"text ({column.values[0]!r})"
            raise InputError(
                f"{table.source}: column {shown(column.name)} is of {what}, this needs numbers; "
                "leave it out, or give the model an mlp.Preprocessing that codes it"
            )
    columns = table.columns.values()
    if not columns:
        raise InputError(f"{table.source} has no columns")
    dtype = np.result_type(*{column.values.dtype for column in columns})
    if dtype.itemsize == 8 or any(column.gaps is not None for column in columns):
        dtype = np.dtype(np.float64)
    X = np.empty((len(table), len(columns)), np.uint8 if dtype.kind == "b" else dtype)
    for k, column in enumerate(columns):
        X[:, k] = column.values
        if column.gaps is not None:
            X[column.gaps, k] = np.nan
    check_finite(X, table.names, table.source)
    return X
