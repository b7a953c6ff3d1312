"""Data sets read from files: CSV tables, NumPy's .npy and .npz, and IDX (the format of MNIST).

A data set is n rows of d inputs, X (n, d), and their targets t: n labels, n numbers or (n, c)
numbers. No file is ever unpickled.
"""

import csv
import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from mlp.data.array_files import described, image_columns, native, read_idx, read_npy, read_npz
from mlp.data.finite import check_finite
from mlp.data.tables import Names, known
from mlp.errors import InputError
from mlp.files import reading


@dataclass(frozen=True, eq=False)
class Dataset:
    """n samples on the host.

    X : (n, d) inputs in the dtype of the file (uint8 images stay uint8; CSV gives float64).
    t : (n,) labels (int or str) or numbers, or (n, c) numbers; None where there are none.
    columns : d names of the inputs.  source : the file, for messages.
    checked : whether the values have been searched for what is not finite, as `read` does.

    `mlp.train` and the methods of a model take it in place of X and t.
    """

    X: np.ndarray
    t: np.ndarray | None
    columns: Names
    source: str
    checked: bool = False

    def __repr__(self) -> str:
        """How many rows and columns, and of what."""
        n, d = self.X.shape
        about = f"{n} rows of {d} inputs ({', '.join(self.columns[:4])}{', ...' * (d > 4)})"
        if self.t is not None:
            columns = f"{self.t.shape[1]} columns of " if self.t.ndim == 2 else ""
            kind = "labels" if self.t.dtype.kind == "U" else "numbers"
            about += f" with {columns}{kind}"
        return f"Dataset({about}, {self.source})"

    def inputs(self, columns: Names | None) -> np.ndarray:
        """X with these columns in their order; None is X as it is.

        Names that `read` made up, x_0, x_1, ..., give way to as many others. Raises InputError for
        a column that is not there.
        """
        if columns is None or columns == self.columns:
            return self.X
        made_up = all(name.replace("_", "").removeprefix("x").isdigit() for name in self.columns)
        if made_up and len(columns) == len(self.columns):
            return self.X
        for name in columns:
            if name not in self.columns:
                raise InputError(f"{self.source} has no column {name!r}{known(name, self.columns)}")
        return self.X[:, [self.columns.index(name) for name in columns]]

    def __len__(self) -> int:
        return len(self.X)


def read(
    path: str | os.PathLike[str],
    *,
    inputs: str | Sequence[str] | None = None,
    target: str | Sequence[str] | None = None,
    targets_file: str | os.PathLike[str] | None = None,
    need_targets: bool = True,
) -> Dataset:
    """The data set in a .csv, .npz, .npy or IDX file.

    inputs : CSV: the columns to use, in this order (default: all but the targets). .npz: the name
        of the array (default X). Arrays have no column names: they take these names in order, or
        x_0, x_1, ... (images x_0_0, x_0_1, ...), by which columns can be picked too.
    target : CSV: the column of targets, or several. .npz: the name of the array (default t or y).
    targets_file : a second file that holds the targets, in any of the formats; `target` then names
        a column or array there (default: all of it).
    need_targets : False reads the inputs only; a target column, if there, is left out of X.

    Every value read is finite and every row has its target; anything else is an InputError.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     file = Path(folder) / "plants.csv"
    ...     _ = file.write_text("height,width,kind\\n1.5,2,fern\\n2.5,3,moss\\n")
    ...     plants = read(file, target="kind")
    >>> plants.columns, plants.X.tolist(), plants.t.tolist()
    (('height', 'width'), [[1.5, 2.0], [2.5, 3.0]], ['fern', 'moss'])
    """
    path, t = Path(path), None
    columns, names = ((n,) if isinstance(n, str) else tuple(n or ()) for n in (inputs, target))
    with reading(path), path.open("rb"):
        pass  # whether it is there comes before what it should hold
    if path.suffix.lower() in (".tsv", ".xlsx", ".parquet"):
        raise InputError(f"{path}: a table is read from .csv, with commas; save it so")
    if need_targets:
        source = path if targets_file is None else Path(targets_file)
        with reading(source):
            t = _targets(source, names, whole=targets_file is not None)
    with reading(path):
        X, columns = _inputs(path, columns, without=names)
    if t is not None and len(t) != len(X):
        raise InputError(
            f"{path} has {len(X)} rows of inputs, {source} has {len(t)} targets; each row needs one"
        )
    return Dataset(X, t, columns, str(path), checked=True)


def _inputs(path: Path, names: Names, without: Names) -> tuple[np.ndarray, Names]:
    """X (n, d) and the names of its columns: those named, or all but the targets."""
    if path.suffix.lower() == ".csv":
        names = names or tuple(name for name in _csv_header(path) if name not in without)
        if not names:
            raise InputError(f"{path} has no column of inputs beside {', '.join(without)}; add one")
        X = np.vstack([_numbers(path, names, *rows) for rows in _csv_cells(path, names)])
    else:
        X, names = _array_inputs(path, names)
    check_finite(X, names, str(path))
    return X, names


def _targets(path: Path, names: Names, whole: bool) -> np.ndarray:
    """The targets called `names`, a single column as (n,), more as (n, c).

    whole : without names take all of the file.
    """
    if path.suffix.lower() == ".csv":
        header = _csv_header(path)
        if not (names or whole):
            raise InputError(f"{path}: name the column to predict in `target`{known('', header)}")
        names = names or header
        cells = np.vstack([cells for _, cells in _csv_cells(path, names)])
        t = np.column_stack([_target(path, *column) for column in zip(names, cells.T, strict=True)])
    elif len(names) > 1:
        raise InputError(f"{path}: name one array of targets, not {len(names)}; it can be 2-d")
    elif not whole and path.suffix.lower() != ".npz":
        raise InputError(f"{path} holds the inputs alone; name the file of targets: `targets_file`")
    else:
        t, _ = _array(path, names or ("t", "y"), only=whole and not names)
    t = t.reshape(len(t), -1)
    width = t.shape[1]
    if t.dtype.kind == "U" and width > 1:
        raise InputError(f"{path}: of {width} columns of targets all must be numbers, not text")
    columns = names if len(names) == width else [f"target {k}" for k in range(width)]
    check_finite(t, columns, str(path))
    return t[:, 0] if width == 1 else t


def _csv_rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """The rows that are not blank, each with the number of its line."""
    with path.open(encoding="utf-8-sig", newline="") as text:
        rows = csv.reader(text)
        try:
            yield from ((rows.line_num, row) for row in rows if row)
        except UnicodeDecodeError as error:
            raise InputError(f"{path} is not UTF-8 text; save it as CSV in UTF-8") from error
        except csv.Error as error:
            raise InputError(f"{path}, line {rows.line_num} is not CSV: {error}") from error


def _csv_header(path: Path) -> Names:
    """The names of the columns: the first row that is not blank; a row of values must follow."""
    rows = [row for _, row in islice(_csv_rows(path), 2)]
    if len(rows) < 2:
        raise InputError(f"{path} is too short; it needs a row of column names and rows of values")
    header = tuple(name.strip() for name in rows[0])
    if _typed(header).dtype.kind != "U":
        raise InputError(f"{path}: the first row is all numbers; put a row of column names above")
    if twice := [name for name in header if header.count(name) > 1]:
        raise InputError(f"{path}: two columns are named {twice[0]!r}; rename one")
    return header


def _csv_cells(path: Path, names: Names) -> Iterator[tuple[Sequence[int], np.ndarray]]:
    """Some lines at a time, the cells (lines, len(names)) of the named columns in them."""
    header = _csv_header(path)
    for name in names:
        if name not in header:
            raise InputError(f"{path} has no column {name!r}{known(name, header)}")
    at = [header.index(name) for name in names]
    rows = islice(_csv_rows(path), 1, None)
    while chunk := list(islice(rows, 4096)):
        for line, row in chunk:
            if len(row) != len(header):
                raise InputError(
                    f"{path}, line {line} has {len(row)} cells, the header has {len(header)}; "
                    "complete the row, or quote a cell that contains a comma"
                )
        lines, cells = zip(*chunk, strict=True)
        yield lines, np.array(cells, object)[:, at]


def _numbers(path: Path, names: Names, lines: Sequence[int], cells: np.ndarray) -> np.ndarray:
    """The cells as float64, an empty one as NaN; a text is refused by its place."""
    with suppress(ValueError):
        return cells.astype(np.float64)
    for (i, k), cell in np.ndenumerate(cells):
        try:
            cells[i, k] = float(cell.strip() or "nan")
        except ValueError as error:
            raise InputError(
                f"{path}, line {lines[i]}, column {names[k]!r}: {cell!r} is not a number; correct "
                "it, code the column as numbers, or name only the other columns in `inputs`"
            ) from error
    return cells.astype(np.float64)


def _target(path: Path, name: str, cells: np.ndarray) -> np.ndarray:
    """A column of targets, none of them empty."""
    texts = [cell.strip() for cell in cells]
    if empty := texts.count(""):
        raise InputError(
            f"{path}: {empty} of {len(texts)} rows have no value in the target column {name!r}; "
            "fill them in or remove these rows"
        )
    return _typed(texts)


def _typed(texts: Sequence[str]) -> np.ndarray:
    """An array of int64 if all texts can be, else of float64, else of text."""
    for number in (np.int64, np.float64):
        with suppress(ValueError, OverflowError):
            return np.array(texts, object).astype(number)
    return np.array(texts)


def _array_inputs(path: Path, names: Names) -> tuple[np.ndarray, Names]:
    """X (n, d), images flattened, and its columns.

    names : of the array in an .npz; or of columns x_0, ... to pick; or new names for all of them.
    """
    images, key = _array(path, (*names, "X") if len(names) == 1 else ("X",))
    if images.ndim < 2 or images.dtype.kind == "U":
        raise InputError(
            f"{path}: inputs must be rows x columns of numbers, not {described(images)}; "
            "X.reshape(-1, 1) makes one column"
        )
    X = images.reshape(len(images), -1)
    columns = image_columns(images.shape[1:])
    if names in ((), (key,), columns):
        return X, columns
    place = {name: k for k, name in enumerate(columns)}
    if all(name in place for name in names):
        X = X[:, [place[name] for name in names]]
    elif len(names) != len(columns):
        asked = ", ".join(names[:4]) + (", ..." if len(names) > 4 else "")
        raise InputError(
            f"{path} has {len(columns)} columns without names, but {len(names)} inputs are asked "
            f"for ({asked}); it must have as many"
        )
    return X, names


def _array(path: Path, wanted: Names, only: bool = False) -> tuple[np.ndarray, str | None]:
    """The first wanted array in an .npz and its name, or the array of another file; native bytes.

    only : where an .npz holds a single array, this one will do.
    """
    key: str | None = None
    with path.open("rb") as file:
        if path.suffix.lower() == ".npy":
            array = read_npy(file, str(path))
        elif path.suffix.lower() == ".npz":
            array, key = read_npz(file, str(path), wanted, only)
        else:
            array = read_idx(file, str(path))
    if array.dtype.kind not in "buifU" or not array.ndim or not array.size:
        raise InputError(f"{path} holds {described(array)}; save rows of real numbers or of text")
    return native(array), key
