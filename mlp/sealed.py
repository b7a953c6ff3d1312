"""Folders whose files are known by length and checksum.

A manifest beside the files says, for each, how long it is and its blake2b, and what the folder is
about; it carries the checksum of itself. What is read is checked first.

>>> import tempfile
>>> with tempfile.TemporaryDirectory() as here:
...     folder = Path(here)
...     _ = (folder / "a.bin").write_bytes(b"12345")
...     seal(folder, ["a.bin"], {"unit": "mm"})
...     before = damages(folder)
...     _ = (folder / "a.bin").write_bytes(b"12344")
...     read_manifest(folder)["about"], before, [str(found)[-35:] for found in damages(folder)]
({'unit': 'mm'}, [], ['a.bin is damaged (checksum differs)'])
"""

import json
import os
import shutil
from collections.abc import Iterable, Mapping
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path
from typing import Any

from mlp.errors import InputError
from mlp.files import PARTIAL, beside, reading, write_atomically

MANIFEST, SEAL = "manifest.json", "blake2b of the above"
LONGEST = 1 << 24  # bytes of a manifest


def seal(folder: Path, names: Iterable[str], about: Mapping[str, Any]) -> None:
    """Put a manifest of these files of a folder there. InputError if it cannot be written."""
    marks = {name: _mark_of(folder / name) for name in names}
    write_atomically(folder / MANIFEST, _sealed(marks, about))


def remove_folder(folder: Path) -> None:
    """It is gone at once, by one rename, and then file by file."""
    partial = beside(folder)
    os.rename(folder, partial)
    shutil.rmtree(partial, ignore_errors=True)


def remove_partial(folder: Path) -> None:
    """What writers that died have left half-written in a folder."""
    for path in folder.glob(f".*{PARTIAL}"):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            with suppress(OSError):
                path.unlink()


def read_manifest(folder: Path) -> dict[str, Any]:
    """{"files": ..., "about": ...} of a folder. InputError if it is missing or damaged."""
    path = folder / MANIFEST
    with reading(path), open(path, "rb") as file:
        text = file.read(LONGEST)
    try:
        values = json.loads(text)
        marks = values["files"].items()
        whole = text == _sealed(values["files"], values["about"]) and all(
            Path(name).name == name and set(mark) == {"length", "blake2b"} for name, mark in marks
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        whole = False
    if not whole:
        raise InputError(f"{path} is damaged")
    return dict(values)


def damages(folder: Path) -> list[InputError]:
    """What of the files in its manifest is not as it was written; empty if all is whole."""
    try:
        marks = read_manifest(folder)["files"]
    except InputError as error:
        return [error]
    found = []
    for name, mark in marks.items():
        try:
            check(folder / name, mark)
        except InputError as error:
            found.append(error)
    return found


def check(path: Path, mark: Mapping[str, Any]) -> None:
    """InputError unless the file is as its mark in a manifest says."""
    if not path.is_file():
        raise InputError(f"{path} is missing")
    if path.stat().st_size != mark["length"]:
        was, now = mark["length"], path.stat().st_size
        raise InputError(f"{path} is damaged ({was} bytes were written, {now} are there)")
    if _mark_of(path) != mark:
        raise InputError(f"{path} is damaged (checksum differs)")


def _mark_of(path: Path) -> dict[str, Any]:
    with reading(path), open(path, "rb") as file:
        digest, length = blake2b(), 0
        while piece := file.read(1 << 20):
            digest.update(piece)
            length += len(piece)
    return _mark(length, digest)


def _mark(length: int, digest: Any) -> dict[str, Any]:
    return {"length": length, "blake2b": digest.hexdigest()}


def _sealed(marks: Mapping[str, Any], about: Mapping[str, Any]) -> bytes:
    """The text of a manifest: any other text with the same content is a damaged one."""
    values = {"files": dict(marks), "about": dict(about)}
    digest = blake2b(json.dumps(values, allow_nan=False).encode()).hexdigest()
    return (json.dumps(values | {SEAL: digest}, indent=2, allow_nan=False) + "\n").encode()
