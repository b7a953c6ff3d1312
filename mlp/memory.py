"""Memory in words: sizes for people, and one message where it does not suffice."""

from collections.abc import Iterator
from contextlib import contextmanager

from backends import Backend
from mlp.errors import InputError


def shortages(backend: Backend) -> tuple[type[BaseException], ...]:
    """What is raised if the device or the host has no memory left."""
    return (MemoryError, *backend.out_of_memory)


@contextmanager
def enough_memory(backend: Backend, what: str) -> Iterator[None]:
    """InputError if memory runs out in what is done."""
    try:
        yield
    except shortages(backend) as error:
        where, cause = shortage(backend, error)
        less = "less data" if where == HOST else "smaller batches or a smaller net"
        raise InputError(
            f"{what}: out of memory on {where} ({cause}); use {less}, or end what else uses the "
            "memory"
        ) from error


HOST = "the host"


def shortage(backend: Backend, error: BaseException) -> tuple[str, str]:
    """Where memory ran out, on the backend's device or on the host, and what the error says."""
    where = backend.device_name() if isinstance(error, backend.out_of_memory) else HOST
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
