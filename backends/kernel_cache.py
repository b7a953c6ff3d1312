"""Kernels that numba compiled, kept on disk for the next process.

Such a file is code: whoever can write it decides what the process runs. So files lie only where no
one but the user (and the administrator) can write: $XDG_CACHE_HOME/array-mlp/kernels, else
~/.cache/array-mlp/kernels, if that folder is the user's own and no one else can change it or put
another in its place; otherwise in a folder of this process, which is removed when it ends. What is
damaged, or finds no room, is compiled as if it had never been there.
"""

import hashlib
import os
import pickle
import secrets
import stat
import sys
import tempfile
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

DIGEST = 32  # bytes of the checksum before each kernel


def cached(kernel: Any, name: str) -> Any:
    """The function that numba will compile, with its compiled forms from and to files of a name,
    which is another one for another source."""
    with suppress(OSError):  # there is no room at all: it is compiled anew
        kernel._cache = KernelCache(str(folder() / name))
    return kernel


class KernelCache:
    """What numba's dispatchers ask of their cache; a file for each signature."""

    def __init__(self, stem: str):
        self.stem = stem

    def load_overload(self, signature: Any, context: Any) -> Any:
        """The compiled kernel, or None."""
        from numba.core.compiler import CompileResult

        context.refresh()
        try:
            content = self._path(signature, context.codegen()).read_bytes()
        except OSError:
            return None
        made = content[DIGEST:]
        if content[:DIGEST] != _digest(made):
            return None
        return CompileResult._rebuild(context, *pickle.loads(made))

    def save_overload(self, signature: Any, compiled: Any) -> None:
        """Keep it, unless there is no room."""
        from numba.core.serialize import dumps

        made = dumps(compiled._reduce())
        path = self._path(signature, compiled.codegen)
        partial = path.with_name(f"{secrets.token_hex(8)}.partial")
        try:
            with open(partial, "xb") as file:
                file.write(_digest(made) + made)
            os.replace(partial, path)
        except OSError:
            with suppress(OSError):
                partial.unlink()

    def _path(self, signature: Any, codegen: Any) -> Path:
        """A name for this signature, processor, Python and numba."""
        from numba import __version__

        about = repr((signature, codegen.magic_tuple(), sys.implementation.cache_tag, __version__))
        return Path(f"{self.stem}.{_digest(about.encode()).hex()}")


def _digest(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=DIGEST).digest()


# ------------------------------------------------------------------------------ where


@cache
def folder() -> Path:
    """Where kernels are kept. OSError if there is no place at all."""
    with suppress(OSError, RuntimeError):  # RuntimeError: there is no home
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        for place in (base / "array-mlp", base / "array-mlp" / "kernels"):
            place.mkdir(mode=0o700, parents=True, exist_ok=True)
        usual = (base / "array-mlp" / "kernels").resolve()  # what is asked about, and then used
        if is_own(usual) and os.access(usual, os.W_OK | os.X_OK):
            return usual
    return Path(_of_this_process().name)


@cache
def _of_this_process() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="array-mlp-", ignore_cleanup_errors=True)


def is_own(place: Path) -> bool:
    """Whether a folder, (without links in its path), is the user's and no one else's to write.

    A folder above may be one that others write to if it is sticky, as /tmp: there they cannot
    rename what is not theirs. Windows' profiles are their user's own.

    >>> with tempfile.TemporaryDirectory() as made:
    ...     found = is_own(Path(made).resolve())
    ...     os.chmod(made, 0o777)
    ...     (found, is_own(Path(made).resolve()))
    (True, False)
    """
    if not hasattr(os, "getuid"):
        return True
    about = place.stat()
    if about.st_uid != os.getuid() or _others_write(about):
        return False
    above = [parent.stat() for parent in place.parents]
    return all(
        x.st_uid in (0, os.getuid()) and (x.st_mode & stat.S_ISVTX or not _others_write(x))
        for x in above
    )


def _others_write(about: os.stat_result) -> bool:
    by_group = about.st_mode & stat.S_IWGRP and not _is_own_group(about.st_gid)
    return bool(about.st_mode & stat.S_IWOTH or by_group)


def _is_own_group(number: int) -> bool:
    """Whether it is the group that many systems make for each user, with no one else in it."""
    import grp
    import pwd

    try:
        group, user = grp.getgrgid(number), pwd.getpwuid(os.getuid())
    except KeyError:
        return False
    return group.gr_name == user.pw_name and set(group.gr_mem) <= {user.pw_name}
