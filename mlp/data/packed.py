"""Packed files: what .gz, .bz2, .xz and .zst hold, and never more of it than is believable.

A file of a few bytes can unpack to any size. What a file says of itself is believed up to 200 times
its size, or 200 MB if that is more; tables of numbers as text reach 20 times.

>>> import gzip, io
>>> file = io.BytesIO(gzip.compress(b"a,b\\n1,2\\n"))
>>> unpacked(file, "t.csv.gz").read()
b'a,b\\n1,2\\n'
"""

import bz2
import gzip
import lzma
import os
import zlib
from typing import Any, BinaryIO

from mlp.errors import InputError
from mlp.memory import megabytes

# How the bytes of a packed file begin, and how it is packed.
PACKED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ\x00": "xz", b"\x28\xb5\x2f\xfd": "zstd"}
# What a damaged one raises.
DAMAGE: tuple[type[Exception], ...] = (EOFError, OSError, zlib.error, lzma.LZMAError)
CHUNK = 1 << 16


def packing(start: bytes) -> str | None:
    """How a file that starts with these bytes is packed, or None."""
    return next((kind for magic, kind in PACKED.items() if start.startswith(magic)), None)


def start_of(file: BinaryIO, length: int = 6) -> bytes:
    """The first bytes of a file, which is at its start again then."""
    file.seek(0)
    start = file.read(length)
    file.seek(0)
    return start


def unpacked(file: BinaryIO, source: str) -> Any:
    """What a packed file holds, as a stream of bytes; the file itself if it is not packed.

    Raises InputError for .zst where no library can read it.
    """
    kind = packing(start_of(file))
    if kind == "gzip":
        return gzip.GzipFile(fileobj=file)
    if kind == "bzip2":
        return bz2.BZ2File(file)
    if kind == "xz":
        return lzma.LZMAFile(file)
    return file if kind is None else _zstandard(file, source)


def _zstandard(file: BinaryIO, source: str) -> Any:
    try:
        import pyarrow
    except ImportError as error:
        raise InputError(
            f"{source}: reading .zst needs pyarrow: pip install 'array-mlp[tables]'"
        ) from error
    return pyarrow.CompressedInputStream(pyarrow.BufferReader(file.read()), "zstd")


def believable(size: int) -> int:
    """How many bytes a file of this size may hold unpacked.

    >>> believable(1000), believable(10**9)
    (200000000, 200000000000)
    """
    return max(200_000_000, 200 * size)


def beyond_belief(source: str, limit: int) -> InputError:
    """That a file unpacks to more than this."""
    return InputError(
        f"{source} is small and unpacks to more than {megabytes(limit)}; if that is right, save it "
        "unpacked, or in parts"
    )


def size_of(file: BinaryIO) -> int:
    """How many bytes a file has that can be searched."""
    place = file.tell()
    size = file.seek(0, os.SEEK_END)
    file.seek(place)
    return size


def fill(content: bytearray, stream: Any, size: int) -> Exception | None:
    """Add what a stream holds until there are `size` bytes; gives the damage that ends it before.

    The memory that is asked for grows with what comes, not with the size.
    """
    try:
        while len(content) < size and (some := stream.read1(min(CHUNK, size - len(content)))):
            content += some
    except DAMAGE as error:
        return error
    return None


def unpack(file: BinaryIO, source: str) -> bytes:
    """All that a packed file holds. InputError if it is damaged or unpacks beyond belief."""
    limit = believable(size_of(file))
    content = bytearray()
    damage = fill(content, unpacked(file, source), limit + 1)
    if len(content) > limit:
        raise beyond_belief(source, limit)
    if damage is not None:
        raise InputError(f"{source} is damaged ({damage}); fetch the file again") from damage
    return bytes(content)
