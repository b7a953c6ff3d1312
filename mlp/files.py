"""Files of arrays with a header: tensors by safetensors, everything else as JSON beside them.

Files are data, never code: nothing is pickled, and reading a file runs nothing. What a file says
of itself is held against its size, the kinds of its numbers and its checksum before anything is
made of it. A file is written beside its place under a name that nobody can guess, flushed, moved
there, and the folder flushed: a full disk, a crash or a power cut leaves the old file or the new
one, whole.

>>> import tempfile
>>> with tempfile.TemporaryDirectory() as folder:
...     path = f"{folder}/steps.safetensors"
...     write(path, "steps 1", {"unit": "mm"}, {"x": np.array([1.0, 2.0])})
...     about, tensors = read(path, "steps 1")
>>> about["unit"], tensors["x"].tolist()
('mm', [1.0, 2.0])
"""

import errno
import json
import os
import secrets
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np

from mlp.errors import InputError, shown

PathLike = str | os.PathLike[str]
MOST = 1 << 25  # bytes of JSON beside the tensors; as objects they may take 50 times as much
DTYPES = {"F32", "F64", "I32", "I64", "U8"}  # of safetensors, as far as files of ours have them
CHECKSUM = "blake2b"  # its place in the metadata; files of earlier versions have none


def write(
    path: PathLike, kind: str, about: Mapping[str, Any], tensors: Mapping[str, np.ndarray]
) -> None:
    """Arrays by name, and what JSON can hold, as a file of this kind, with a checksum of both.
    InputError if it cannot be written; what was there before stays then."""
    write_atomically(path, packed(kind, about, tensors))


def packed(kind: str, about: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> bytes:
    """What `write` writes. InputError for more JSON than `read` takes, or what is none."""
    from safetensors.numpy import save

    flat = {name: np.ascontiguousarray(x) for name, x in tensors.items()}
    try:
        text = json.dumps(about, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError(
            f"what stands beside the tensors of a file is what JSON can hold: {error}"
        ) from error
    if len(text) > MOST:
        raise InputError(
            f"what stands beside its tensors would take {len(text) >> 20} MB of text, at most "
            f"{MOST >> 20} MB are read; keep less there"
        )
    metadata = {"format": kind, "about": text, CHECKSUM: _checksum(kind, text, flat)}
    return save(flat, metadata=metadata)


def read(
    path: PathLike, kind: str, earlier: Mapping[str, Callable[[Any], Any]] | None = None
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """(about, tensors) of a file of this kind. InputError if it is missing, damaged, or another.

    earlier: kinds of before, and what makes of their ``about`` one of this kind.
    """
    from safetensors import SafetensorError, safe_open

    path = checked_path(path)
    try:
        open_regular(path).close()
        with safe_open(path, framework="numpy") as file:  # holds offsets against the file's size
            metadata = file.metadata() or {}
            found = metadata.get("format", "no file of ours")
            if found != kind and found not in (earlier or {}):
                raise InputError(f"{path} is {found}, not {kind}")
            about = _parsed(metadata)
            tensors = {name: _tensor(file, name) for name in file.keys()}  # noqa: SIM118
        said = metadata.get(CHECKSUM)
        if said not in (None, _checksum(found, metadata["about"], tensors)):
            raise ValueError("its checksum is not that of its content")
        return about if found == kind or not earlier else earlier[found](about), tensors
    except FileNotFoundError as error:
        raise InputError(f"{path} is not there") from error
    except PermissionError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    except (SafetensorError, OSError, ValueError, KeyError, RecursionError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path} is damaged or no safetensors file ({error})") from error


def _parsed(metadata: Mapping[str, str]) -> dict[str, Any]:
    """The JSON of a file's metadata; ValueError if it is not what `write` writes."""
    if unknown := set(metadata) - {"format", "about", CHECKSUM}:
        raise ValueError(f"unknown metadata {shown(min(unknown))}")
    if len(metadata["about"]) > MOST:
        raise ValueError(f"{len(metadata['about'])} bytes of JSON, at most {MOST} are read")
    about = json.loads(metadata["about"], parse_constant=_no_number)
    if not isinstance(about, dict):
        raise ValueError("its JSON is no object")
    return about


def _no_number(text: str) -> None:
    raise ValueError(f"{text} is no number of JSON")


def _tensor(file: Any, name: str) -> np.ndarray:
    if (dtype := file.get_slice(name).get_dtype()) not in DTYPES:
        raise ValueError(f"tensor {shown(name)} is of {dtype}, none of {', '.join(sorted(DTYPES))}")
    return np.asarray(file.get_tensor(name))


def _checksum(kind: str, about: str, tensors: Mapping[str, np.ndarray]) -> str:
    """Of all that a file holds: each piece with its name, dtype and shape before it."""
    found = blake2b(json.dumps([kind, about]).encode(), digest_size=32)
    for name, x in sorted(tensors.items()):
        found.update(json.dumps([name, x.dtype.str, x.shape]).encode())
        found.update(x.reshape(-1).view(np.uint8).data)
    return found.hexdigest()


def checked_path(path: Any) -> Path:
    """A path as an object; InputError for what is none.

    >>> checked_path(3)
    Traceback (most recent call last):
    ...
    mlp.errors.InputError: a path is text or a pathlib.Path, not 3
    """
    if not isinstance(path, (str, os.PathLike)) or not isinstance(os.fspath(path), str):
        raise InputError(f"a path is text or a pathlib.Path, not {shown(path)}")
    if "\0" in os.fspath(path):
        raise InputError(f"a path holds no NUL character, as {shown(os.fspath(path))} does")
    return Path(path)


def open_regular(path: Path, buffering: int = -1) -> Any:
    """A file to read bytes from, as `open` gives it, with its errors. InputError for a pipe or a
    device, at which reading may wait for ever."""

    def at_once(name: str, flags: int) -> int:
        return os.open(name, flags | getattr(os, "O_NONBLOCK", 0))  # Windows has no such pipes

    file = open(path, "rb", buffering, opener=at_once)  # noqa: SIM115
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise InputError(f"{path} is a pipe or a device; write its content to a file and name that")
    return file


def write_atomically(path: PathLike, data: bytes) -> None:
    """All of it or nothing: InputError if the file cannot be written, the old one untouched."""
    path = checked_path(path)
    try:
        put(path, data)
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror or error}") from error


def put(path: Path, data: bytes) -> None:
    """All of it or nothing at a place: OSError if it cannot be written, the old file untouched."""
    partial = beside(path)
    try:
        write_new(partial, data)
        os.replace(partial, path)
        flush_folder(path.parent)
    except OSError:
        with suppress(OSError):  # it may be the folder that is not there
            partial.unlink()
        raise


PARTIAL = ".partial"  # how the names end of what is under way, or was when its writer died


def beside(path: Path) -> Path:
    """A new name in the same folder that nobody can guess."""
    name = path.name[:50]  # names have an end, of 255 bytes
    return path.parent / f".{name}.{secrets.token_hex(8)}{PARTIAL}"


def write_new(path: Path, data: bytes) -> None:
    """A file that is not there yet, on the disk when this returns; OSError if it cannot be."""
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
    with open(file, "wb") as out:
        out.write(data)
        out.flush()
        os.fsync(out.fileno())


def flush_folder(folder: Path) -> None:
    """The names in a folder are on the disk when this returns, where the system can promise it."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(opened)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # a file system without it
            raise
    finally:
        os.close(opened)


@contextmanager
def content_of(path: PathLike) -> Iterator[None]:
    """A header that does not fit what it is read for: one InputError that names the file."""
    misfits = KeyError, TypeError, ValueError, AttributeError, OverflowError, RecursionError
    try:
        yield
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    except misfits as error:
        raise InputError(
            f"{path} is damaged or of another version of the library ({shown(error)})"
        ) from error


def stamp_of(file: PathLike | int) -> tuple[int, ...]:
    """What tells whether a file is another one or was written to: device, number, size and time.
    file: a path, or the number of an open file. OSError if it is not there."""
    found = os.stat(file)
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def check_stamp(file: PathLike | int, stamp: tuple[int, ...], source: str) -> None:
    """InputError for a file that is no longer as it was: what was read of it may be of two."""
    with reading(Path(source)):
        if stamp_of(file) != stamp:
            raise InputError(f"{source} has changed since it was opened; open it again")


@contextmanager
def unchanged(file: PathLike | int, source: str) -> Iterator[None]:
    """InputError if a file changes within, also for what seemed damaged in it."""
    with reading(Path(source)):
        stamp = stamp_of(file)
    try:
        yield
    except Exception:
        check_stamp(file, stamp, source)
        raise
    check_stamp(file, stamp, source)


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """What the disk refuses when a file is read, as an InputError that names it."""
    try:
        yield
    except FileNotFoundError as error:
        raise InputError(f"no file {path.absolute()}; check the name") from error
    except OSError as error:
        if os.path.isdir(path):
            raise InputError(f"{path} is a directory; name a file in it") from error
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error
