"""Memory in words: sizes for people, and one message where it does not suffice, or where the device
is lost."""

import re
from contextlib import AbstractContextManager
from numbers import Integral
from typing import Any

from backends import Backend, BackendError
from backends.host_memory import host_memory
from mlp.errors import InputError, shown


def is_short(backend: Backend, error: BaseException | None) -> bool:
    """Whether an error says that the device or the host has no memory left."""
    return isinstance(error, MemoryError) or (error is not None and backend.exhausted(error))


def enough_memory(backend: Backend, what: str) -> AbstractContextManager[None]:
    """InputError if memory runs out in what is done; BackendError if the device is lost. What the
    backend's scope raises when it is left counts too: this one stands before it."""
    return _Enough(backend, what)


class _Enough(AbstractContextManager[None]):  # a generator would take a tenth of a small `predict`
    def __init__(self, backend: Backend, what: str):
        self.backend, self.what = backend, what

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if error is None:
            return
        if not is_short(self.backend, error):
            if self.backend.lost(error):
                raise device_lost(self.backend, self.what, error) from error
            return
        where, cause = shortage(self.backend, error)
        less = "less data" if where.startswith(HOST) else "smaller batches or a smaller net"
        raise InputError(
            f"{self.what}: out of memory on {where} ({cause}); use {less}, or end what else uses "
            "the memory"
        ) from error


def device_lost(backend: Backend, what: str, error: BaseException, then: str = "") -> BackendError:
    """That the device computes no more, what it said, and what to do then."""
    cause = (str(error).splitlines() or [type(error).__name__])[0]
    return BackendError(
        f"{what}: the device of backend '{backend.name}' is lost ({cause}); "
        f"{then or 'start the program again, or use another device'}"
    )


HOST = "the host"
ON_DISK = (
    "leave its rows on disk (in settings data.memory, as '1GB'; in Python mlp.open_rows), or end "
    "what else uses the memory"
)


def check_host(size: int, what: str, instead: str = ON_DISK) -> None:
    """InputError if so many bytes more cannot be had of the host's memory."""
    most = host_memory().limit
    if most is not None and size > most:
        raise InputError(
            f"{what} takes {megabytes(size)} of memory, at most {megabytes(most)} can be had; "
            f"{instead}"
        )


class OutOfMemory(MemoryError):
    """Memory that ran out in another process, ``where`` and by what ``cause``, as of `shortage`."""

    def __init__(self, cause: str, where: str):
        super().__init__(f"out of memory on {where} ({cause})")
        self.where, self.cause = where, cause


def shortage(backend: Backend, error: BaseException) -> tuple[str, str]:
    """Where memory ran out, on the backend's device or on the host, and what the error says."""
    if isinstance(error, OutOfMemory):
        return error.where, error.cause
    where = backend.device_name() if backend.exhausted(error) else HOST
    return where, (str(error).splitlines() or [type(error).__name__])[0]


def megabytes(size: int | None) -> str:
    """Bytes for people, 1 MB = 10^6; "?" for None.

    >>> megabytes(900), megabytes(12_345_678), megabytes(2_500_000_000)
    ('0.9 kB', '12.3 MB', '2.5 GB')
    """
    if size is None:
        return "?"
    for unit, name in ((1e9, "GB"), (1e6, "MB")):
        if size >= unit:
            return f"{size / unit:.1f} {name}"
    return f"{size / 1e3:.1f} kB"


UNITS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}


def size_of(text: str | int, name: str = "memory") -> int:
    """Bytes as people write them: "2GB" is 2·10^9, "1.5 GiB" is 1.5·2^30, a number is bytes.

    >>> size_of("500MB"), size_of("1.5 GiB"), size_of(4096)
    (500000000, 1610612736, 4096)
    """
    plain = int(text) if isinstance(text, Integral) else text
    said = text if isinstance(text, str) else shown(plain)
    parts = re.fullmatch(r"\s*(\d+\.?\d*|\.\d+)\s*([kmgt]?)(i?)b?\s*", said.lower())
    unit = "" if parts is None else parts[2]
    wrong = parts is None or isinstance(text, bool) or (parts[3] and not unit)
    if parts is None or wrong or not 0.0 < float(parts[1]) < 1e15:
        raise InputError(f"{name} is a size as '500MB', '2GB' or '1.5 GiB', not {shown(text)}")
    return int(float(parts[1]) * (1024 if parts[3] else 1000) ** UNITS[unit])
