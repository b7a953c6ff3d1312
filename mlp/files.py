"""Files of arrays with a header: tensors by safetensors, everything else as JSON beside them.

Files are data, never code: nothing is pickled, and reading a file runs nothing. A file is written
beside its place under a name that nobody can guess, flushed, moved there, and the folder flushed: a
full disk, a crash or a power cut leaves the old file or the new one, whole.

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
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from mlp.errors import InputError

PathLike = str | os.PathLike[str]


def write(
    path: PathLike, kind: str, about: Mapping[str, Any], tensors: Mapping[str, np.ndarray]
) -> None:
    """Arrays by name, and what JSON can hold, as a file of this kind. InputError if it cannot be
    written; what was there before stays then."""
    write_atomically(path, packed(kind, about, tensors))


def packed(kind: str, about: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> bytes:
    """What `write` writes."""
    from safetensors.numpy import save

    flat = {name: np.ascontiguousarray(x) for name, x in tensors.items()}
    return save(flat, metadata={"format": kind, "about": json.dumps(about)})


def read(path: PathLike, kind: str) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """(about, tensors) of a file of this kind. InputError if it is missing, damaged, or another."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(os.fspath(path), framework="numpy") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != kind:
                raise InputError(
                    f"{path} is {metadata.get('format', 'no file of ours')}, not {kind}"
                )
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            return json.loads(metadata["about"]), tensors
    except FileNotFoundError as error:
        raise InputError(f"{path} is not there") from error
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path} is damaged or no safetensors file ({error})") from error


def write_atomically(path: PathLike, data: bytes) -> None:
    """All of it or nothing: InputError if the file cannot be written, the old one untouched."""
    path = Path(path)
    partial = beside(path)
    try:
        write_new(partial, data)
        os.replace(partial, path)
        flush_folder(path.parent)
    except OSError as error:
        with suppress(OSError):  # it may be the folder that is not there
            partial.unlink()
        raise InputError(f"{path} cannot be written: {error.strerror or error}") from error


PARTIAL = ".partial"  # how the names end of what is under way, or was when its writer died


def beside(path: Path) -> Path:
    """A new name in the same folder that nobody can guess."""
    return path.with_name(f".{path.name}.{secrets.token_hex(8)}{PARTIAL}")


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
    try:
        yield
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(
            f"{path} is damaged or of another version of the library ({error!r})"
        ) from error


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """What the disk refuses when a file is read, as an InputError that names it."""
    try:
        yield
    except FileNotFoundError as error:
        raise InputError(f"no file {path.absolute()}; check the name") from error
    except OSError as error:
        if path.is_dir():
            raise InputError(f"{path} is a directory; name a file in it") from error
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error
