"""Files of arrays: NumPy's .npy and .npz, and IDX (the format of MNIST); and arrays as tables.

Nothing is unpickled. What a header claims is compared with what is there before any memory is asked
for, and no more is unpacked than the header says.
"""

import math
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from threading import Lock
from typing import Any, BinaryIO

import numpy as np

from mlp.data.columns import Makers, column, native, table_of_columns
from mlp.data.finite import has_nan
from mlp.data.packed import (
    believable,
    beyond_belief,
    fill,
    packing,
    size_of,
    start_of,
    unpacked,
)
from mlp.data.tables import Column, Names, Table
from mlp.errors import InputError
from mlp.memory import ON_DISK, check_host

IDX_TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}


# A header is parsed by `ast`, of which several threads at once fail now and then on Python 3.11
# ("AST constructor recursion depth mismatch").
_parsing = Lock()


# ------------------------------------------------------------------------------ NPY, NPZ


def read_npy(file: BinaryIO, source: str) -> np.ndarray:
    """The array of an .npy file. InputError if it is damaged, or holds more or less than it says.

    >>> import io
    >>> file = io.BytesIO()
    >>> np.save(file, np.arange(3))
    >>> read_npy(file, "X.npy")
    array([0, 1, 2])
    """
    file.seek(0)
    with _numpy_file(source):
        check_host(_check_header(file, size_of(file)), f"{source}: reading it")
        file.seek(0)
        return np.lib.format.read_array(file, allow_pickle=False)


def read_npz(file: BinaryIO, source: str, name: str) -> np.ndarray:
    """The array of this name in an .npz file, as `arrays_in` lists it.

    >>> import io
    >>> file = io.BytesIO()
    >>> np.savez(file, x_train=np.arange(3), x_test=np.ones(2))
    >>> arrays_in(file, "a.npz"), read_npz(file, "a.npz", "x_test")
    (('x_train', 'x_test'), array([1., 1.]))
    """
    limit = believable(size_of(file))
    with _numpy_file(source), zipfile.ZipFile(file) as archive:
        member = _members(archive)[name]
        if member.file_size > limit:
            raise beyond_belief(source, limit)
        with archive.open(member) as stream:
            size = _check_header(stream, member.file_size)
        check_host(size, f"{source}: reading {name!r}", "save it as .npy, and " + ON_DISK)
        with archive.open(member) as stream:
            return np.lib.format.read_array(stream, allow_pickle=False)


def arrays_in(file: BinaryIO, source: str) -> Names:
    """The names of the arrays in an .npz file."""
    with _numpy_file(source), zipfile.ZipFile(file) as archive:
        return tuple(_members(archive))


def _members(archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    files = archive.infolist()
    return {f.filename.removesuffix(".npy"): f for f in files if f.filename.endswith(".npy")}


def npy_header(stream: Any) -> tuple[tuple[int, ...], bool, np.dtype]:
    """(shape, whether columns come first, dtype) of an .npy file, read up to its values. Raises
    almost any error for one that is damaged."""
    form = np.lib.format
    version = form.read_magic(stream)
    # Version 3.0 differs from 2.0 in how the names of fields are written, which no size is in.
    read = form.read_array_header_1_0 if version == (1, 0) else form.read_array_header_2_0
    with _parsing:
        return read(stream)


def _check_header(stream: Any, size: int) -> int:
    """The bytes of the values of an .npy file; ValueError unless header and values make up its
    size."""
    shape, _, dtype = npy_header(stream)
    values = math.prod(shape) * dtype.itemsize
    expected = stream.tell() + values
    if not dtype.hasobject and size != expected:
        raise ValueError(
            f"{expected} bytes are expected (header: {' x '.join(map(str, shape))} of {dtype}), "
            f"{size} are there"
        )
    return values


@contextmanager
def _numpy_file(source: str) -> Iterator[None]:
    """What NumPy and zip say of a damaged file, as an InputError."""
    try:
        yield
    except (MemoryError, InputError):  # the file may be whole
        raise
    except Exception as error:  # a damaged header or zip can end in almost any of them
        said = " ".join(str(error).split())
        what = f"is damaged or not a file of NumPy ({said}); write it again"
        if "Object arrays" in said:
            what = "holds Python objects, which could run code; save it again with a plain dtype"
        raise InputError(f"{source} {what}") from error


# ------------------------------------------------------------------------------ IDX


def is_idx(start: bytes | bytearray) -> bool:
    """Whether a file that starts with these bytes can be an IDX file.

    >>> is_idx(bytes([0, 0, 8, 3])), is_idx(b"a,b\\n")
    (True, False)
    """
    return len(start) >= 4 and not any(start[:2]) and start[2] in IDX_TYPES and start[3] <= 64


def read_idx(file: BinaryIO, source: str) -> np.ndarray:
    """The array of an IDX file, as `is_idx` knows it, packed or not.

    The format: two bytes 0, a type, the number of dimensions, each dimension as a big-endian
    uint32, then the values, big-endian and row by row. Source: yann.lecun.com/exdb/mnist.
    Raises InputError if there are more or fewer values than the header says.

    >>> import io
    >>> read_idx(io.BytesIO(bytes([0, 0, 8, 1, 0, 0, 0, 2, 40, 41])), "a.idx")
    array([40, 41], dtype=uint8)
    """
    limit, stream, content = believable(size_of(file)), unpacked(file, source), bytearray()
    damage = fill(content, stream, 4)
    expected = start = 4 + 4 * content[3]
    header, shape = " for its header alone", ()
    damage = damage or fill(content, stream, start)
    if len(content) == start:
        shape = tuple(np.frombuffer(bytes(content), ">u4", content[3], offset=4).tolist())
        dtype = np.dtype(IDX_TYPES[content[2]])
        expected += math.prod(shape) * dtype.itemsize
        header = f" (header: {' x '.join(map(str, shape))} of {dtype.name})"
        damage = damage or fill(content, stream, min(expected, limit) + 1)
        if len(content) > limit:
            raise beyond_belief(source, limit)
    if damage is not None or len(content) != expected:
        raise InputError(
            f"{source} is damaged: {expected} bytes are expected{header}, {len(content)} are there"
            f"{f' ({packing(start_of(file))}: {damage})' if damage else ''}; fetch the file again"
        ) from damage
    if 0 in shape:  # NumPy refuses some of these
        raise InputError(f"{source} holds no values{header}; it needs some")
    return np.frombuffer(content, dtype, offset=start).reshape(shape)


# ------------------------------------------------------------------------------ tables


def array_table(array: np.ndarray, source: str, wanted: Iterable[str] = ()) -> Table:
    """The table of an array (n,), (n, d), or (n, ...), which is flattened.

    Columns are x_0, x_1, ..., of images x_0_0, x_0_1, ...; those of a structured array are its
    fields. What is masked, NaN or NaT is a gap. Raises InputError where it has no rows of values.

    >>> array_table(np.arange(6.0).reshape(3, 2), "X.npy")
    Table(3 rows, x_0: numbers, x_1: numbers, X.npy)
    >>> array_table(np.ma.masked_equal([1, 0, 3], 0), "X")["x_0"].values
    array([ 1., nan,  3.])
    """
    if not array.ndim or not array.size or not array.dtype.itemsize:
        raise InputError(f"{source} holds {described(array)}; save rows of real numbers or of text")
    if array.dtype.names is not None and array.ndim == 1:
        return table_of_columns(_fields(array), source, wanted)
    if array.dtype.kind not in "biufMOSTU":
        raise InputError(f"{source} holds {described(array)}; save rows of real numbers or of text")
    names = image_columns(array.shape[1:] or (1,))
    X = array.reshape(len(array), -1)
    if X.dtype.kind in "biuf" and not _masked(X) and not has_nan(X):
        return Table.of_array(np.asarray(native(X)), names, source)
    return table_of_columns(_columns(names, X), source, wanted)


def image_columns(shape: Sequence[int]) -> Names:
    """The names of the columns of flattened rows of this shape.

    >>> image_columns((3,)), image_columns((1, 2))
    (('x_0', 'x_1', 'x_2'), ('x_0_0', 'x_0_1'))
    """
    return tuple("_".join(("x", *map(str, at))) for at in np.ndindex(*shape))


def described(array: np.ndarray) -> str:
    """An array in words."""
    return f"a {array.dtype} array of shape {array.shape}"


def array_column(name: str, values: np.ndarray) -> Column:
    """The column of an array (n,), which may be masked. Raises NoColumn."""
    mask = np.ma.getmaskarray(values) if _masked(values) else None
    return column(name, np.ma.getdata(values), mask)


def _masked(values: np.ndarray) -> bool:
    return np.ma.is_masked(values)


def _columns(names: Sequence[str], X: np.ndarray) -> Makers:
    return ((name, partial(array_column, name, X[:, k])) for k, name in enumerate(names))


def _fields(array: np.ndarray) -> Makers:
    """The fields of a structured array; one that is an array of its own has a column for each."""
    for field in array.dtype.names or ():
        values = array[field]
        if values.ndim == 1:
            yield field, partial(array_column, field, values)
        else:
            parts = image_columns(values.shape[1:])
            names = [field + part.removeprefix("x") for part in parts]
            yield from _columns(names, values.reshape(len(values), -1))
