"""A run's folder: a place that is free before training, and whole or not there after it.

Everything is written into a folder beside the place and moved there at the end. A folder that is
there already is never written to.
"""

import errno
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from mlp.errors import InputError


def next_free(place: Path) -> Path:
    """The place, or the first of place-2, place-3, ... that is not there."""
    number, free = 1, place
    while os.path.lexists(free):
        number += 1
        free = place.with_name(f"{place.name}-{number}")
    return free


def check_free(place: Path) -> None:
    """InputError if there is anything at the place but an empty folder."""
    if place.is_dir() and not any(place.iterdir()):
        return
    if os.path.lexists(place):
        what = "is there already and is not empty" if place.is_dir() else "is a file"
        raise InputError(f"{place} {what}; name another folder, or remove it first")


class NewFolder:
    """A folder under way: write into ``path``, then `finish`."""

    def __init__(self, place: Path, path: Path):
        self.place, self.path = place, path
        self.finished = False

    def finish(self) -> Path:
        """Move it to its place, or the next free one if that was taken meanwhile; where it is."""
        place = self.place
        while True:
            with suppress(OSError):  # an empty folder in the place makes room
                place.rmdir()
            if not os.path.lexists(place):
                break
            place = next_free(place)
        os.rename(self.path, place)
        self.finished = True
        return place


@contextmanager
def new_folder(place: Path, size: int) -> Iterator[NewFolder]:
    """A new folder beside the place, gone again unless it is finished.

    size: bytes that will be needed. Raises InputError if the place cannot be written to or the
    disk has less left.
    """
    made = [folder for folder in (place.parent, *place.parent.parents) if not folder.exists()]
    path = place.parent / f".{place.name}.{secrets.token_hex(4)}.partial"
    try:
        path.mkdir(parents=True)
        left = shutil.disk_usage(path).free
    except OSError as error:
        _remove(path, made)
        raise cannot_write(place, error) from error
    folder = NewFolder(place, path)
    try:
        if left < size:
            raise InputError(
                f"{place} needs about {size / 1e6:.0f} MB, the disk has {left / 1e6:.0f} MB left; "
                "free some space, or name a folder on another disk by --out"
            )
        yield folder
    finally:
        if not folder.finished:
            _remove(path, made)


def cannot_write(place: Path, error: OSError) -> InputError:
    """What the disk refuses, as a message."""
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    return InputError(
        f"{place} cannot be written: {error.strerror or error}; nothing of it is left. "
        f"{'Free some space, or name' if full else 'Name'} another folder by --out"
    )


def _remove(path: Path, made: list[Path]) -> None:
    """The folder with all that is in it, and the folders above that were made for it."""
    shutil.rmtree(path, ignore_errors=True)
    for folder in made:
        with suppress(OSError):
            folder.rmdir()
