"""One writer a folder: the lock that it holds and that ends with it, whatever ends it.

Where the system has locks of files (flock, on Windows those of msvcrt) it lets go of them itself:
``.lock``. Where it has none, as on some network file systems, everyone who would write says so in a
file of his own, ``.writer-...``: host, process, and when that process began; and then looks whether
another one is there, so that of two who come at once none or one goes on. A file holds while there
is its process. Only its own host can tell: on another it holds until it is removed.

>>> import tempfile
>>> with tempfile.TemporaryDirectory() as folder:
...     lock = take(Path(folder))
...     held = is_held(Path(folder))
...     lock.let_go()
...     held, is_held(Path(folder))
(True, False)
"""

import json
import os
import random
import secrets
import socket
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from mlp.errors import InputError
from mlp.files import beside, write_new

LOCK, WRITER = ".lock", ".writer-"
PATIENCE = 0.2  # seconds in which one who looks lets go of the lock
MOST = 1 << 12  # bytes that are read of who writes


class Lock:
    """A folder that this program alone writes to, until `let_go`.

    file: open and locked by the system; writer: where the system has no locks. Children that are
    forked meanwhile have the file open too: they neither hold the lock after `let_go`, nor let go.
    """

    def __init__(self, folder: Path, file: int | None, writer: Path | None = None):
        self.folder, self.file, self.writer = folder, file, writer
        self.process = os.getpid()

    def is_there(self) -> bool:
        """Whether the folder is the one that was locked, neither gone nor replaced."""
        if self.file is None:
            return self.writer is not None and self.writer.exists()
        with suppress(OSError):
            return os.path.samestat(os.fstat(self.file), os.stat(self.folder / LOCK))
        return False

    def let_go(self) -> None:
        """Others may write to it."""
        ours = self.process == os.getpid()
        if self.file is not None:
            if ours:
                _unlock(self.file)
            os.close(self.file)
        if self.writer is not None and ours:
            with suppress(OSError):
                self.writer.unlink()
        self.file = self.writer = None


def take(
    folder: Path, cure: str = "name another folder", who: Callable[[Path], str] = lambda _: ""
) -> Lock:
    """The lock of a folder. InputError if another program has it, or if it cannot be written.

    cure: what else to do, for the message; who: the other program in words, as far as is known.
    """
    try:
        if not (other := _other(folder)):  # also one that the system's locks do not reach
            file = _locked_by_the_system(folder)
            if file is not None:
                return Lock(folder, file)
            writer, other = _written(folder)
            if writer is not None:
                return Lock(folder, None, writer)
    except BlockingIOError:
        other = who(folder)
    except OSError as error:
        raise InputError(f"{folder} cannot be written: {error.strerror or error}") from error
    raise InputError(
        f"{folder} is written to by another program{other}; wait until it ends, or {cure}"
    )


def is_held(folder: Path) -> bool:
    """Whether a program writes to the folder."""
    try:
        file = _locked_by_the_system(folder, look=True)
        if file is not None:
            os.close(file)
    except BlockingIOError:
        return True
    except OSError:
        pass  # there is no such file, or it may not be read
    return bool(_other(folder))


# ------------------------------------------------------------------------------ of the system


def _locked_by_the_system(folder: Path, look: bool = False) -> int | None:
    """The lock's file, open; None where there are no such locks. BlockingIOError if another program
    has it. look: only to see whether one has."""
    lock = _system_lock(look)
    if lock is None:
        return None
    file = os.open(folder / LOCK, os.O_RDONLY if look else os.O_RDWR | os.O_CREAT, 0o666)
    until = time.monotonic() + (0.0 if look else PATIENCE)
    while True:
        try:
            lock(file)
            return file
        except BlockingIOError:
            if time.monotonic() < until:
                time.sleep(PATIENCE / 10)
                continue
            os.close(file)
            raise
        except OSError:  # a file system without locks
            os.close(file)
            return None


def _system_lock(look: bool) -> Callable[[int], None] | None:
    """What locks an open file at once or raises BlockingIOError; None if there is none."""
    with suppress(ImportError):
        import fcntl

        kind = fcntl.LOCK_SH if look else fcntl.LOCK_EX
        return lambda file: fcntl.flock(file, kind | fcntl.LOCK_NB)
    with suppress(ImportError):  # Windows
        import msvcrt

        def lock(file: int) -> None:
            try:
                msvcrt.locking(file, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
            except PermissionError as error:  # another has it
                raise BlockingIOError(error.errno, str(error)) from error

        return lock
    return None


def _unlock(file: int) -> None:
    """Let go of it for all who have the file open; on Windows to close it is enough."""
    with suppress(ImportError, OSError):
        import fcntl

        fcntl.flock(file, fcntl.LOCK_UN)


# ------------------------------------------------------------------------------ by files


def _written(folder: Path) -> tuple[Path | None, str]:
    """Our file, or None and who writes."""
    us = {"host": socket.gethostname(), "pid": os.getpid(), "began": began(os.getpid())}
    until = time.monotonic() + PATIENCE
    while True:
        ours = folder / f"{WRITER}{secrets.token_hex(8)}"
        partial = beside(ours)
        write_new(partial, json.dumps(us).encode())
        os.rename(partial, ours)
        if not (other := _other(folder, ours)):
            return ours, ""
        ours.unlink()
        if time.monotonic() > until:
            return None, other
        time.sleep(PATIENCE / 10 * random.random())  # two who came at once come one by one


def _other(folder: Path, ours: Path | None = None) -> str:
    """Who else writes, by the files, in words; "" if nobody does. Those of the dead go."""
    for path in folder.glob(f"{WRITER}*"):
        if path == ours:
            continue
        try:
            with open(path, "rb") as file:
                about = json.loads(file.read(MOST))
            host, pid, start = str(about["host"]), int(about["pid"]), str(about["began"])
        except FileNotFoundError:
            continue
        except (ValueError, KeyError, TypeError, RecursionError):  # no program writes such a file
            host, pid, start = socket.gethostname(), 0, "never"
        if host != socket.gethostname() or began(pid) == start:
            return f" (process {pid} on {host}; if it has ended remove {path})"
        with suppress(OSError):
            path.unlink()
    return ""


def began(pid: int) -> str:
    """When a process of this machine began, so that another one of its number is not taken for it;
    "" if there is none, or nobody can tell.

    >>> began(os.getpid()) == began(os.getpid()) != ""
    True
    """
    if pid <= 0:
        return ""
    with suppress(OSError, IndexError):
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {stat.rpartition(')')[2].split()[19]}"
    with suppress(OSError, subprocess.SubprocessError):  # other systems of Unix's kind
        command = ["ps", "-o", "lstart=", "-p", str(pid)]
        return subprocess.run(command, capture_output=True, text=True, timeout=5).stdout.strip()
    return ""
