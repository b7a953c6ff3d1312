"""A run's folder, from its first minute on and in its place, written by one program at a time.

    manifest.json    status, host and process; what the data were; length and checksum of the files
    settings.json    from the start; the other files of a run come when training has ended
    history.csv      grows by a row an epoch
    checkpoints/     see `mlp.training.checkpoints`
    .lock            held by the program that writes, until that one ends (`mlp.locks`)

The manifest is replaced whole. What it does not list is not yet whole, or of an earlier ending.
"""

import errno
import os
import shutil
import socket
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from mlp import locks
from mlp.errors import InputError
from mlp.files import PARTIAL, write_atomically
from mlp.locks import LOCK, WRITER, Lock
from mlp.sealed import MANIFEST, read_manifest, remove_partial, seal
from mlp.training.checkpoints import Checkpoints

SETTINGS, METRICS, CHECKPOINTS = "settings.json", "metrics.json", "checkpoints"


def next_free(place: Path) -> Path:
    """The place, or the first of place-2, place-3, ... that is not there."""
    number, free = 1, place
    while os.path.lexists(free):
        number += 1
        free = place.with_name(f"{place.name}-{number}")
    return free


def check_free(place: Path) -> None:
    """InputError if there is anything at the place but an empty folder, or one whose run was ended
    before it had written a file."""
    if place.is_dir() and all(
        entry.name.startswith((LOCK, WRITER)) or entry.name.endswith(PARTIAL)
        for entry in place.iterdir()
    ):
        return
    if os.path.lexists(place):
        what = "is there already and is not empty" if place.is_dir() else "is a file"
        raise InputError(f"{place} {what}; name another folder, or remove it first")


def cannot_write(place: Path, error: OSError) -> InputError:
    """What the disk refuses, as a message."""
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    return InputError(
        f"{place} cannot be written: {error.strerror or error}; nothing of it is left. "
        f"{'Free some space, or name' if full else 'Name'} another folder by --out"
    )


class RunFolder:
    """A run's folder that this program alone writes to.

    lock: see `mlp.locks`. is_new: whether the run began in it. made: what was not there before it,
    the folder and those above. trained: whether training has ended: then it stays, whatever
    happens.
    """

    def __init__(self, path: Path, lock: Lock, is_new: bool = False, made: Iterable[Path] = ()):
        self.path, self.lock, self.is_new, self.made = path, lock, is_new, list(made)
        self.about: dict[str, Any] = {}
        self.trained = False

    @property
    def checkpoints(self) -> Path:
        """The folder of its checkpoints."""
        return self.path / CHECKPOINTS

    def start(self, files: Mapping[str, bytes], **about: Any) -> None:
        """From now on the run is running, with these files. InputError if they cannot be
        written."""
        now = datetime.now().astimezone().isoformat(timespec="seconds")
        here = {"host": socket.gethostname(), "pid": os.getpid(), "began": now}
        try:
            self.about |= {"status": "running", "stopped": "", **here, **about}
            if not self.is_new:
                self.say(())  # what is of the ending before, or replaced now
            for name, data in files.items():
                self.write(name, data)
            self.say(files)
        except InputError as error:
            if self.is_new and isinstance(error.__cause__, OSError):
                raise cannot_write(self.path, error.__cause__) from error
            raise

    def say(self, files: Iterable[str], **about: Any) -> None:
        """What the manifest says from now on: of the run, and which files are whole. InputError if
        it cannot be written."""
        self.about |= about
        seal(self.path, files, self.about)

    def write(self, name: str, data: bytes) -> None:
        """A file of the run, whole or as it was. InputError if it cannot be written."""
        write_atomically(self.path / name, data)

    def is_there(self) -> bool:
        """Whether the folder is the one that was begun, neither gone nor replaced."""
        return self.lock.is_there()

    def move(self) -> None:
        """To the next free place, if the folder is no longer there."""
        if not self.is_there():
            self.let_go()
            begun = begin(next_free(self.path))
            self.path, self.lock, self.made = begun.path, begun.lock, begun.made

    def let_go(self) -> None:
        """Others may write to it."""
        self.lock.let_go()

    def remove(self) -> None:
        """All that is in it, and the folders that were made for it."""
        for entry in self.path.iterdir() if self.is_there() else ():
            if entry.is_dir():
                shutil.rmtree(entry, ignore_errors=True)
            else:
                entry.unlink(missing_ok=True)
        for folder in self.made:
            with suppress(OSError):
                folder.rmdir()


def begin(place: Path, numbered: bool = False) -> RunFolder:
    """A new run's folder; numbered: at the next free place if this one is taken. InputError if it
    cannot be made, or is there and not empty."""
    while True:
        made = [folder for folder in (place, *place.parents) if not folder.exists()]
        try:
            with suppress(FileExistsError):  # a file, of which the next line says so
                place.parent.mkdir(parents=True, exist_ok=True)
            with suppress(FileExistsError):
                os.mkdir(place)
                numbered = False
        except OSError as error:
            raise cannot_write(place, error) from error
        if numbered:
            place = next_free(place)
            continue
        check_free(place)
        lock = _lock(place)
        remove_partial(place)
        return RunFolder(place, lock, True, made)


def take(path: Path) -> RunFolder:
    """The folder of a run to go on with. InputError if another program writes to it."""
    folder = RunFolder(path, _lock(path))
    remove_partial(path)
    return folder


@contextmanager
def held(folder: RunFolder) -> Iterator[RunFolder]:
    """The folder within; if an error ends it, a new one goes again unless something was learned."""
    try:
        yield folder
    except BaseException as error:
        learned = folder.trained or bool(Checkpoints(folder.checkpoints).found())
        if folder.is_new and not learned:
            folder.remove()
        elif folder.about:
            status = "failed" if isinstance(error, Exception) else "interrupted"
            with suppress(InputError):
                files = read_manifest(folder.path)["files"]
                folder.say(files, status=status, stopped=str(error) or type(error).__name__)
        raise
    finally:
        folder.let_go()


def check_room(folder: RunFolder, size: int) -> None:
    """InputError if the disk has fewer bytes left than the run will need."""
    try:
        left = shutil.disk_usage(folder.path).free
    except OSError as error:
        raise cannot_write(folder.path, error) from error
    if left < size:
        raise InputError(
            f"{folder.path} needs about {size / 1e6:.0f} MB, the disk has {left / 1e6:.0f} MB "
            "left; free some space, or name a folder on another disk by --out"
        )


def _lock(folder: Path) -> Lock:
    return locks.take(folder, "name another folder by --out", _who)


def _who(folder: Path) -> str:
    with suppress(InputError, KeyError):
        about = read_manifest(folder)["about"]
        return f" (process {about['pid']} on {about['host']}, since {about['began']})"
    return ""


def is_run(folder: Path) -> bool:
    """Whether it is the folder of a run, also of one before there were manifests, or of one that
    has lost its settings."""
    without = (folder / MANIFEST).is_file() and (folder / LOCK).is_file()
    return without or (folder / SETTINGS).is_file()
