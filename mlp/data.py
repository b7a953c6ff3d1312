"""Data sets: read from files, checked, coded, shuffled, split and scaled, all on the host.

A data set is n rows of d inputs, X (n, d), and their targets t: n labels, n numbers or (n, c)
numbers. `read` makes one from a CSV table, from NumPy's .npy and .npz, or from IDX (the format of
MNIST). No file is ever unpickled.

    x' = (x - shift) / scale                                            (1)  scaling, per column
    mean = x_0 + Σ (x - x_0) / n        scale² = Σ (x - mean)² / n      (2)  the standard scaling

In (2) x_0 is the first row: a constant column then has deviations of exactly zero.
"""

import csv
import gzip
import math
import os
import re
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import DTypeLike

from mlp.errors import InputError, did_you_mean

# --- data sets and their files ---------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Dataset:
    """n samples on the host.

    X : (n, d) inputs in the dtype of the file (uint8 images stay uint8; CSV gives float64).
    t : (n,) labels (int or str) or numbers, or (n, c) numbers; None where there are none.
    columns : d names of the inputs.  source : the file, for messages.
    """

    X: np.ndarray
    t: np.ndarray | None
    columns: tuple[str, ...]
    source: str

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
    path, names = Path(path), _as_tuple(target)
    t = None
    if need_targets:
        source = path if targets_file is None else Path(targets_file)
        t = _targets(source, names, whole=targets_file is not None)
    X, columns = _inputs(path, _as_tuple(inputs), without=names)
    if t is not None and len(t) != len(X):
        raise InputError(
            f"{path} has {len(X)} rows of inputs, {source} has {len(t)} targets; each row needs one"
        )
    return Dataset(X, t, columns, str(path))


def check_finite(X: np.ndarray, columns: Sequence[str], source: str) -> None:
    """InputError if a value of X (n, d) is NaN or infinite; an array of integers cannot be.

    >>> check_finite(np.array([[1.0, np.nan], [2.0, 3.0]]), ["age", "rooms"], "homes.csv")
    Traceback (most recent call last):
    ...
    mlp.errors.InputError: homes.csv: 1 of 2 rows has a missing, NaN or infinite value, in column \
'rooms' (1); fill in these values or leave the rows or columns out
    """
    if X.dtype.kind != "f" or (finite := np.isfinite(X)).all():
        return
    per_column = len(X) - finite.sum(axis=0)
    bad = np.flatnonzero(per_column)
    where = ", ".join(f"{columns[k]!r} ({per_column[k]})" for k in bad[:5])
    more = f" and {len(bad) - 5} more" if len(bad) > 5 else ""
    rows = len(X) - int(finite.all(axis=1).sum())
    raise InputError(
        f"{source}: {rows} of {len(X)} rows {'has' if rows == 1 else 'have'} a missing, NaN or "
        f"infinite value, in column{'s' if len(bad) > 1 else ''} {where}{more}; "
        "fill in these values or leave the rows or columns out"
    )


# --- labels ----------------------------------------------------------------------------------


def class_labels(t: np.ndarray, source: str = "t") -> tuple[np.ndarray, np.ndarray]:
    """The sorted classes (k,) of the labels t (n,), and the index of each row's class, (n,) int64.

    >>> class_labels(np.array(["cat", "ant", "cat"]))
    (array(['ant', 'cat'], dtype='<U3'), array([1, 0, 1]))
    """
    classes, indices = np.unique(_labels(t, source), return_inverse=True)
    if len(classes) < 2:
        only = f"only one class, {classes[0].item()!r}" if len(classes) else "no labels"
        raise InputError(f"{source} holds {only}; a classifier needs at least two classes")
    return classes, indices.astype(np.int64, copy=False)


def encode(t: np.ndarray, classes: np.ndarray, source: str) -> np.ndarray:
    """The index (n,) int64 in the sorted classes (k,) of each label of t (n,).

    >>> encode(np.array([7, 3, 7]), np.array([3, 5, 7]), "test.csv")
    array([2, 0, 2])
    """
    t = _labels(t, source)
    if (t.dtype.kind == "U") == (classes.dtype.kind == "U"):
        indices = np.minimum(np.searchsorted(classes, t), len(classes) - 1).astype(np.int64)
        unknown = t[classes[indices] != t]
    else:  # text among numbers or numbers among text: none of them can be known
        indices, unknown = np.zeros(len(t), np.int64), t
    if len(unknown):
        known = ", ".join(repr(label) for label in classes[:10].tolist())
        raise InputError(
            f"{source}: label {unknown[0].item()!r} ({len(unknown)} of {len(t)} rows have an "
            f"unknown label) is not one of the {len(classes)} classes {known}"
            f"{', ...' if len(classes) > 10 else ''}; remove these rows or train with them"
        )
    return indices


def _labels(t: np.ndarray, source: str) -> np.ndarray:
    """t as one column of text or of whole numbers."""
    t = np.asarray(t)
    if t.ndim != 1:
        raise InputError(f"{source}: labels must be one column, these have shape {t.shape}")
    if t.dtype.kind == "O":  # as pandas gives text
        if kinds := {type(label).__name__ for label in t if not isinstance(label, str)}:
            if not all(isinstance(label, (int, float, np.number)) for label in t):
                raise InputError(
                    f"{source}: labels are of mixed kinds ({', '.join(sorted(kinds))}); "
                    "make them all text or all whole numbers"
                )
            t = np.array(t.tolist())
        else:
            t = t.astype(str)
    if t.dtype.kind == "f" and (fractions := t[t != np.round(t)]).size:  # NaN is unequal too
        raise InputError(
            f"{source}: {fractions[0].item()!r} is not a class label; "
            "use whole numbers or text, or a regression"
        )
    return t


# --- order and split -------------------------------------------------------------------------


def order(seed: int, epoch: int, n: int) -> np.ndarray:
    """The order of the n samples in one epoch, (n,) int64: a function of (seed, epoch) alone.

    >>> bool((order(1, 2, 9) == order(1, 2, 9)).all()), sorted(order(1, 2, 3).tolist())
    (True, [0, 1, 2])
    """
    return np.random.default_rng([seed, epoch]).permutation(n).astype(np.int64, copy=False)


def split(
    n: int, fraction: float, seed: int, *, labels: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Indices of the rows to train on and of the `fraction` held out, each sorted, int64.

    labels : (n,); each class then keeps its share among the held-out rows, to less than one row.

    >>> train, held_out = split(10, 0.3, seed=0)
    >>> len(train), len(held_out), sorted([*train.tolist(), *held_out.tolist()]) == list(range(10))
    (7, 3, True)
    """
    if not 0 < fraction < 1:
        raise InputError(f"the held-out fraction must lie between 0 and 1, not be {fraction}")
    size = round(n * fraction)
    if not 0 < size < n:
        raise InputError(
            f"fraction {fraction} of {n} rows leaves {n - size} to train on and {size} held out; "
            "each needs at least 1: change the fraction or give more rows"
        )
    group = np.zeros(n, np.int64) if labels is None else _labels(labels, "the labels of a split")
    if len(group) != n:
        raise InputError(f"a split of {n} rows needs {n} labels, not {len(group)}")
    _, group, counts = np.unique(group, return_inverse=True, return_counts=True)

    # Whole shares first; then one row more for the classes that are missing most of one.
    share = counts * fraction
    take = np.floor(share).astype(np.int64)
    take[np.argsort(take - share, kind="stable")[: size - take.sum()]] += 1

    # A spawn key makes this a stream of its own, unlike any order(seed, epoch, n).
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(1,)))
    shuffled = rng.permutation(n).astype(np.int64, copy=False)
    by_class = shuffled[np.argsort(group[shuffled], kind="stable")]
    rank = np.arange(n) - np.repeat(np.cumsum(counts) - counts, counts)  # of a row in its class
    held = rank < np.repeat(take, counts)
    return np.sort(by_class[~held]), np.sort(by_class[held])


# --- scaling ---------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Scaling:
    """x' = (x - shift) / scale per column (1); shift and scale : (d,) float64.

    >>> X = np.array([[0, 7], [10, 7]], np.uint8)
    >>> Scaling.standard(X).apply(X, np.float32)
    array([[-1.,  0.],
           [ 1.,  0.]], dtype=float32)
    """

    shift: np.ndarray
    scale: np.ndarray

    @classmethod
    def standard(cls, X: np.ndarray) -> "Scaling":
        """Mean 0 and standard deviation 1 per column (2); a constant column is only shifted."""
        n, first = len(X), X[0].astype(np.float64)
        mean = first + sum((X[rows] - first).sum(axis=0) for rows in _chunks(X)) / n
        variance = sum(np.square(X[rows] - mean).sum(axis=0) for rows in _chunks(X)) / n
        deviation = np.sqrt(variance)
        return cls(mean, np.where(deviation > 0, deviation, 1.0))

    @classmethod
    def unit_range(cls, X: np.ndarray) -> "Scaling":
        """The one minimum and maximum of all of X become 0 and 1 (images)."""
        low, high = float(X.min()), float(X.max())
        width = X.shape[1:]
        return cls(np.full(width, low), np.full(width, (high - low) or 1.0))

    def apply(self, X: np.ndarray, dtype: DTypeLike) -> np.ndarray:
        """X (n, d) scaled, in `dtype`. Computed in float64: years or prices keep their digits."""
        if X.shape[1:] != self.shift.shape:
            raise InputError(f"the scaling is of {self.shift.shape} columns, X of {X.shape[1:]}")
        scaled = np.empty(X.shape, dtype)
        for rows in _chunks(X):
            scaled[rows] = (X[rows] - self.shift) / self.scale
        return scaled

    def invert(self, Y: np.ndarray) -> np.ndarray:
        """x = x' · scale + shift, in the dtype of Y (n, d)."""
        return (Y * self.scale + self.shift).astype(np.result_type(Y, np.float32), copy=False)


def _chunks(X: np.ndarray, values: int = 2**18) -> Iterator[slice]:
    """Slices of about 2 MB of float64 each, so that no large array is widened at once."""
    rows = max(1, values // max(1, math.prod(X.shape[1:])))
    return (slice(start, start + rows) for start in range(0, len(X), rows))


# --- the two halves of a data set ------------------------------------------------------------


def _inputs(
    path: Path, names: tuple[str, ...], without: tuple[str, ...]
) -> tuple[np.ndarray, tuple[str, ...]]:
    """X (n, d) and the names of its columns: those named, or all but the targets."""
    with _disk(path):
        if _format(path) == ".csv":
            columns = names or tuple(name for name in _csv_header(path) if name not in without)
            X = np.vstack([_numbers(path, columns, *rows) for rows in _csv_cells(path, columns)])
        else:
            X, columns = _array_columns(path, names)
    if not X.size:
        raise InputError(f"{path} has {len(X)} rows of {len(columns)} inputs; it needs some")
    check_finite(X, columns, str(path))
    return X, columns


def _targets(path: Path, names: tuple[str, ...], whole: bool) -> np.ndarray:
    """The targets called `names`, a single column as (n,), more as (n, c).

    whole : without names take all of the file.
    """
    with _disk(path):
        if _format(path) == ".csv":
            if not (names or whole):
                header = _csv_header(path)
                raise InputError(
                    f"{path}: name the column to predict in `target`{_known('', header)}"
                )
            names = names or _csv_header(path)
            cells = np.vstack([cells for _, cells in _csv_cells(path, names)])
            parts = [_typed(path, name, cells[:, k]) for k, name in enumerate(names)]
            t = np.column_stack(parts)
        else:
            t = _array_of_targets(path, names, whole)
    t = t.reshape(len(t), math.prod(t.shape[1:]))
    width = t.shape[1]
    if not t.size:
        raise InputError(f"{path} has {len(t)} rows of {width} targets; it needs some")
    if t.dtype.kind == "U" and width > 1:
        raise InputError(f"{path}: of {width} columns of targets all must be numbers, not text")
    labels = names if len(names) == width else [f"target {k}" for k in range(width)]
    check_finite(t, labels, str(path))
    return t[:, 0] if width == 1 else t


# --- CSV -------------------------------------------------------------------------------------


def _csv_header(path: Path) -> tuple[str, ...]:
    """The names of the columns: the first row that is not blank."""
    with _csv_rows(path) as rows:
        header = tuple(name.strip() for name in next(rows, (0, []))[1])
    if not header:
        raise InputError(f"{path} is empty; it needs a row of column names and rows of values")
    if all(_is_number(name) for name in header):
        raise InputError(f"{path}: the first row is all numbers; put a row of column names above")
    if twice := [name for name in header if header.count(name) > 1]:
        raise InputError(f"{path}: two columns are named {twice[0]!r}; rename one")
    return header


def _csv_cells(path: Path, names: Sequence[str]) -> Iterator[tuple[list[int], np.ndarray]]:
    """The cells (m, len(names)) of the named columns, some rows at a time, and their m lines."""
    header = _csv_header(path)
    for name in names:
        if name not in header:
            raise InputError(f"{path} has no column {name!r}{_known(name, header)}")
    at = [header.index(name) for name in names]
    with _csv_rows(path) as rows:
        next(rows)
        yield [], np.empty((0, len(names)), object)
        while chunk := list(islice(rows, 4096)):
            for line, row in chunk:
                if len(row) != len(header):
                    raise InputError(
                        f"{path}, line {line} has {len(row)} cells, the header has {len(header)}; "
                        "complete the row, or quote a cell that contains a comma"
                    )
            yield [line for line, _ in chunk], np.array([row for _, row in chunk], object)[:, at]


def _numbers(path: Path, names: Sequence[str], lines: list[int], cells: np.ndarray) -> np.ndarray:
    """The cells as float64, an empty one as NaN; a text is refused by its place."""
    try:
        return cells.astype(np.float64)
    except ValueError:  # not all are numbers: look at each
        numbers = np.full(cells.shape, np.nan)
    for line, row, out in zip(lines, cells, numbers, strict=True):
        for k, cell in enumerate(row):
            if _is_number(cell):
                out[k] = float(cell)
            elif cell.strip():
                raise InputError(
                    f"{path}, line {line}, column {names[k]!r}: {cell!r} is not a number; correct "
                    "it, code the column as numbers, or name only the other columns in `inputs`"
                )
    return numbers


def _typed(path: Path, name: str, cells: np.ndarray) -> np.ndarray:
    """A column of targets: int64 if all of it can be, else float64, else text."""
    texts = np.array([cell.strip() for cell in cells], object)
    if empty := np.count_nonzero(texts == ""):
        raise InputError(
            f"{path}: {empty} of {len(texts)} rows have no value in the target column {name!r}; "
            "fill them in or remove these rows"
        )
    for number in (np.int64, np.float64):
        with suppress(ValueError, OverflowError):
            return texts.astype(number)
    return texts.astype(str)


@contextmanager
def _csv_rows(path: Path) -> Iterator[Iterator[tuple[int, list[str]]]]:
    """The rows that are not blank, each with the number of its line."""
    with path.open(encoding="utf-8-sig", newline="") as text:
        rows = csv.reader(text)
        try:
            yield ((rows.line_num, row) for row in rows if row)
        except UnicodeDecodeError as error:
            raise InputError(f"{path} is not UTF-8 text; save it as CSV in UTF-8") from error
        except csv.Error as error:
            raise InputError(f"{path}, line {rows.line_num} is not CSV: {error}") from error


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


# --- arrays: .npy, .npz, IDX -----------------------------------------------------------------


def _array_columns(path: Path, names: tuple[str, ...]) -> tuple[np.ndarray, tuple[str, ...]]:
    """X (n, d), images flattened, and its columns.

    names : of the array in an .npz; or of columns x_0, ... to pick; or new names for all of them.
    """
    key = "X"
    if len(names) == 1 and names[0] in _keys(path):
        (key,), names = names, ()
    images = _array(path, key)
    if images.ndim < 2 or images.dtype.kind == "U":
        raise InputError(
            f"{path}: inputs must be rows x columns of numbers, not {_described(images)}; "
            "X.reshape(-1, 1) makes one column"
        )
    X = images.reshape(len(images), math.prod(images.shape[1:]))
    columns = tuple("_".join(("x", *map(str, at))) for at in np.ndindex(images.shape[1:]))
    place = {name: k for k, name in enumerate(columns)}
    if not names or names == columns:
        return X, columns
    if all(name in place for name in names):
        return X[:, [place[name] for name in names]], names
    if len(names) == len(columns):
        return X, names
    raise InputError(
        f"{path} has {len(columns)} columns without names, but {len(names)} inputs are asked for "
        f"({', '.join(names[:4])}{', ...' if len(names) > 4 else ''}); it must have as many"
    )


def _array_of_targets(path: Path, names: tuple[str, ...], whole: bool) -> np.ndarray:
    """The array of targets in an .npz, by name or as t or y; or, if `whole`, in a file of one."""
    keys = _keys(path)
    if len(names) > 1:
        raise InputError(f"{path}: name one array of targets, not {len(names)}; it can be 2-d")
    if not (keys or whole):
        raise InputError(f"{path} holds the inputs alone; name the file of targets: `targets_file`")
    usual = [key for key in ("t", "y") if key in keys] + (keys if whole and len(keys) == 1 else [])
    t = _array(path, *names or (usual or ["t"])[:1])
    if t.ndim == 0:
        raise InputError(f"{path}: targets must be one for each row, not {_described(t)}")
    return t


def _keys(path: Path) -> list[str]:
    """The names of the arrays in an .npz; none in a file of one array."""
    if _format(path) != ".npz":
        return []
    with path.open("rb") as file, _numpy_file(path), np.lib.npyio.NpzFile(file) as arrays:
        return list(arrays.files)


def _array(path: Path, key: str) -> np.ndarray:
    """The array of an .npy or IDX file, or the one called `key` in an .npz; in native bytes."""
    if (keys := _keys(path)) and key not in keys:
        raise InputError(
            f"{path} has no array {key!r}{_known(key, keys)} (`inputs` and `target` name arrays)"
        )
    if _format(path) == ".idx":
        array = _read_idx(path)
    else:
        with path.open("rb") as file, _numpy_file(path):
            if keys:
                with np.lib.npyio.NpzFile(file, allow_pickle=False) as arrays:
                    array = np.asarray(arrays[key])
            else:
                array = np.lib.format.read_array(file, allow_pickle=False)
    if array.dtype.kind not in "buifU":
        raise InputError(f"{path} holds {_described(array)}; save real numbers, or text as labels")
    return array.astype(array.dtype.newbyteorder("="), copy=False)


@contextmanager
def _numpy_file(path: Path) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # a damaged header or zip can end in almost any of them
        if "Object arrays" in str(error):
            raise InputError(
                f"{path} holds Python objects, which could run code when read; save it again with "
                "a plain dtype, as np.asarray(X, dtype=np.float32)"
            ) from error
        raise InputError(
            f"{path} is damaged or not a file of NumPy ({error}); write it again with np.save "
            "or np.savez"
        ) from error


def _described(array: np.ndarray) -> str:
    return f"a {array.dtype} array of shape {array.shape}"


IDX_TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}


def _read_idx(path: Path) -> np.ndarray:
    """The array of an IDX file, gzipped or not.

    The format: two bytes 0, a type, the number of dimensions, each dimension as a big-endian
    uint32, then the values, big-endian and row by row. Source: yann.lecun.com/exdb/mnist.
    """
    content, damage = _unzipped(path)
    if len(content) >= 4 and (content[:2] != b"\0\0" or content[2] not in IDX_TYPES):
        raise InputError(
            f"{path} is not an IDX file: it starts with the bytes {content[:4].hex(' ')}, not with "
            "00 00, a type of 08 to 0e and the number of dimensions"
        )
    start = 4 + 4 * content[3] if len(content) >= 4 else 4
    expected, header = start, " for its header alone"
    if len(content) >= start:
        shape = tuple(np.frombuffer(content, ">u4", content[3], offset=4).tolist())
        dtype = np.dtype(IDX_TYPES[content[2]])
        expected = start + math.prod(shape) * dtype.itemsize
        header = f" (header: {' x '.join(map(str, shape))} of {dtype.name})"
    if damage or len(content) != expected:
        raise InputError(
            f"{path} is damaged: {expected} bytes are expected{header}, {len(content)} are there"
            f"{f' (gzip: {damage})' if damage else ''}; fetch the file again"
        ) from damage
    return np.frombuffer(content, dtype, offset=start).reshape(shape)


def _unzipped(path: Path, most: int | None = None) -> tuple[bytearray, Exception | None]:
    """The (first `most`) bytes of a file, unzipped if it is gzip, and what ended them early."""
    content = bytearray()
    with path.open("rb") as file:
        zipped = file.read(2) == b"\x1f\x8b"
    with gzip.open(path) if zipped else path.open("rb") as stream:
        try:
            while (most is None or len(content) < most) and (some := stream.read1(2**16)):
                content += some
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            return content, error
    return content[:most], None


# --- files and names -------------------------------------------------------------------------


def _format(path: Path) -> str:
    """.csv, .npy or .npz by the name of the file; .idx by its name or its first bytes."""
    ending = path.suffix.lower()
    if ending in (".csv", ".npy", ".npz"):
        return ending
    if re.search(r"(ubyte|\.idx\d?)(\.gz)?$", path.name):
        return ".idx"
    start, _ = _unzipped(path, 4)
    if len(start) == 4 and start[:2] == b"\0\0" and start[2] in IDX_TYPES:
        return ".idx"
    raise InputError(
        f"{path} has the unknown ending {ending!r}; .csv, .npy, .npz and IDX (-ubyte, .idx, "
        "also .gz) can be read"
    )


@contextmanager
def _disk(path: Path) -> Iterator[None]:
    """What the disk refuses, as an InputError."""
    try:
        yield
    except FileNotFoundError as error:
        place = "" if path.is_absolute() else f" in {Path.cwd()}"
        raise InputError(f"no file {path}{place}; check the name") from error
    except OSError as error:
        if path.is_dir():
            raise InputError(f"{path} is a directory; name a file in it") from error
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error


def _as_tuple(names: str | Sequence[str] | None) -> tuple[str, ...]:
    return (names,) if isinstance(names, str) else tuple(names or ())


def _known(name: str, names: Sequence[str]) -> str:
    """The nearest name; where there is none, the names, or of many the first and last."""
    some = [*names[:4], "...", *names[-4:]] if len(names) > 12 else names
    near = did_you_mean(name, names)
    return near if "did you mean" in near else did_you_mean(name, some)
