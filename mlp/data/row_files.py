"""Rows of numbers on disk, of which only some are ever in memory, read as an array is read.

A `RowFile` is n rows of one width and dtype, one after the other in a file. It is read in blocks of
`mlp.data.order.BLOCK` rows, in place of a memory map: what is in memory is known, and a disk that
fails is an error of ours. A `Part` is some of its columns: it has a shape and a dtype, and its rows
are asked for by slices or by numbers, as those of an array are. Whatever goes through an array in
pieces goes through a part as well, and gives the same numbers bit for bit.

Where an epoch's order is announced (`expect`), all that will be asked for of a buffer is read when
the first of its rows is, and that of the next buffer meanwhile, by a thread. Of a slice no more is
read than its rows.

>>> rows = spool(iter([np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([[5.0, 6.0]])]), "three rows")
>>> X = Part(rows, slice(0, 2))
>>> X.shape, X[1:].tolist(), X[np.array([2, 0])].tolist()
((3, 2), [[3.0, 4.0], [5.0, 6.0]], [[5.0, 6.0], [1.0, 2.0]])
"""

import copy
import itertools
import os
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryFile, gettempdir
from threading import Lock
from typing import Any

import numpy as np

from mlp.data.order import BLOCK, BUFFER, BlockOrder, Wanted
from mlp.errors import InputError
from mlp.files import check_stamp, reading, stamp_of
from mlp.parallel.group import ALONE, Group

PIECE = 1 << 22  # bytes of rows that are read at once where all of them are gone through


class OpenFile:
    """A binary file that several threads read, closed when nobody holds it any more.

    name : for messages.  fixed : whether nobody else can write to it.  ``done`` :
    bytes read so far.
    """

    def __init__(self, file: Any, name: str, fixed: bool = False):
        self.file, self.name, self.done = file, name, 0
        self.lock = Lock()  # of the file's position
        self.stamp = None if fixed else stamp_of(file.fileno())
        weakref.finalize(self, file.close)

    def read_into(self, start: int, out: np.ndarray) -> None:
        """out <- the bytes from here on. Raises InputError for a file that cannot be read, that has
        become shorter or has been written to since it was opened."""
        room, done = _bytes(out), 0
        with self.lock, reading(Path(self.name)):
            self.file.seek(start)
            while done < len(room) and (count := self.file.readinto(room[done:])):
                done += count
            self.done += done
            if self.stamp is not None:
                check_stamp(self.file.fileno(), self.stamp, self.name)
        if done < len(room):
            raise InputError(f"{self.name} has changed since it was opened; open it again")

    def announce(self, start: int, size: int) -> None:
        """So many bytes from here on will be read soon: the system may bring them from the disk."""
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(self.file.fileno(), start, size, os.POSIX_FADV_WILLNEED)

    @property
    def size(self) -> int:
        """Bytes of the file."""
        return os.fstat(self.file.fileno()).st_size


class RowFile:
    """n rows of ``width`` numbers of one dtype, from byte ``offset`` on in a file."""

    def __init__(self, file: OpenFile, dtype: Any, width: int, n: int, offset: int = 0):
        self.file, self.offset = file, offset
        self.dtype, self.width, self.n = np.dtype(dtype), width, n
        self.blocks: np.ndarray | None = None  # those of the file that are taken, None is all
        self.order: BlockOrder | None = None
        self.last: tuple[Any, np.ndarray] | None = None  # what was asked for, and given
        self.shared = True  # whether what is given may be written to
        self.expect(None)

    @property
    def row(self) -> int:
        """Bytes of a row."""
        return self.width * self.dtype.itemsize

    def own(self) -> "RowFile":
        """The same rows for another reader, to be asked for in an order of its own."""
        other = copy.copy(self)
        other.shared = False
        other.expect(None)
        return other

    def only(self, blocks: np.ndarray) -> "RowFile":
        """The rows of these blocks alone, (k,) in ascending order."""
        other = copy.copy(self)
        other.expect(None)
        other.blocks = blocks if self.blocks is None else self.blocks[blocks]
        other.n = int(np.minimum(BLOCK, self.n - blocks * BLOCK).sum())
        return other

    # ------------------------------------------------------------------ rows

    def rows(self, rows: slice | np.ndarray) -> np.ndarray:
        """These rows, (k, width): a slice, or numbers of rows, (k,) int64. Of one reader's own rows
        those that were given last are kept, as their inputs, targets and weights are asked for in
        turn."""
        if isinstance(rows, slice):
            start, stop, _ = rows.indices(self.n)
            place = slice(start, max(start, stop))
            if self.last and isinstance(self.last[0], slice) and self.last[0] == place:
                return self.last[1]
            found = self._slice(start, place.stop)
            if not self.shared and found.nbytes <= PIECE:
                self.last = place, found
            return found
        if self.order is None:
            blocks, at = np.unique(rows // BLOCK, return_inverse=True)
            return self.read(blocks).take(at * BLOCK + rows % BLOCK, 0)
        if self.last is None or self.last[0] is not rows:
            self.last = rows, self._in_order(rows)
        return self.last[1]

    def _slice(self, start: int, stop: int) -> np.ndarray:
        first = start // BLOCK
        start, stop = start - first * BLOCK, stop - first * BLOCK
        found = np.empty((stop - start, self.width), self.dtype)
        for place, run in self._runs(np.arange(first, first + -(-stop // BLOCK))):
            low, high = max(run.start, start), min(run.stop, stop)
            self.file.read_into(
                place + (low - run.start) * self.row, found[low - start : high - start]
            )
        return found

    def read(self, blocks: np.ndarray) -> np.ndarray:
        """Whole blocks, (BLOCK len(blocks), width); where the last one is shorter anything may
        stand in the rest."""
        found = np.empty((len(blocks) * BLOCK, self.width), self.dtype)
        for place, rows in self._runs(blocks):
            self.file.read_into(place, found[rows])
        return found

    def _runs(self, blocks: np.ndarray) -> Iterator[tuple[int, slice]]:
        """Where in the file runs of blocks begin that follow each other there, and which of the
        blocks' rows they are."""
        numbers = blocks if self.blocks is None else self.blocks[blocks]
        ends = [*np.flatnonzero(np.diff(numbers) != 1) + 1, len(blocks)] if len(blocks) else []
        for first, end in itertools.pairwise([0, *ends]):
            short = max(0, (int(blocks[end - 1]) + 1) * BLOCK - self.n)  # of the last block
            place = self.offset + int(numbers[first]) * BLOCK * self.row
            yield place, slice(first * BLOCK, end * BLOCK - short)

    # ------------------------------------------------------------------ a buffer ahead

    def expect(self, order: BlockOrder | None) -> None:
        """Numbers of rows will be asked for in this order from now on; None: in no order."""
        if order is not None and order is self.order:
            return
        self.order = order
        self.window: dict[int, np.ndarray] = {}
        self.last = None
        self.ahead: tuple[int, Future[np.ndarray]] | None = None
        if order is not None:
            self.wanted: dict[int, np.ndarray] = {}
            self.asked = Wanted(order)
            self.buffer = np.empty(len(order.blocks), np.int64)  # of each block
            self.buffer[order.blocks] = np.arange(len(order.blocks)) // BUFFER
            self.place = np.full(len(order.blocks), -1)  # in what is read of its buffer

    def _in_order(self, rows: np.ndarray) -> np.ndarray:
        """Rows of the buffers, by their numbers."""
        if not len(rows):  # of a rank, or a shard, that has none of a batch
            return np.empty((0, self.width), self.dtype)
        block, at = np.divmod(rows, BLOCK)
        buffer = self.buffer[block]
        one = bool((buffer == buffer[0]).all())
        self._bring([int(buffer[0])] if one else np.unique(buffer).tolist())
        place = self.place[block]
        if (place < 0).any():
            raise RuntimeError(f"{self.file.name}: rows are asked for that were not announced")
        at += place * BLOCK
        if one:
            return self.window[int(buffer[0])].take(at, 0)
        found = np.empty((len(rows), self.width), self.dtype)
        for number, window in self.window.items():
            here = np.flatnonzero(buffer == number)
            found[here] = window.take(at[here], 0)
        return found

    def _bring(self, numbers: list[int]) -> None:
        """These buffers into the window, no others; the next one is on its way then."""
        assert self.order is not None  # where there are buffers
        self.window = {j: self.window[j] for j in numbers if j in self.window}
        for j in numbers:
            if j not in self.window:
                ahead, self.ahead = self.ahead, None
                there = ahead is not None and ahead[0] == j
                self.window[j] = ahead[1].result() if ahead and there else self._buffer(j)()
        following = numbers[-1] + 1
        if self.ahead is None and following < len(self.order.ends):
            # A thread for one buffer: it ends when that is read, whatever becomes of the run.
            thread = ThreadPoolExecutor(1, "rows ahead")
            with suppress(RuntimeError):  # no room for a thread: then it is read when it is due
                self.ahead = following, thread.submit(self._buffer(following))
            thread.shutdown(wait=False)

    def _buffer(self, number: int) -> Callable[[], np.ndarray]:
        """What reads the rows of a buffer; the system is told of those of the next, which come from
        the disk meanwhile, all at once."""
        blocks, following = map(self._of_buffer, (number, number + 1))

        def read() -> np.ndarray:
            for place, rows in self._runs(following):
                self.file.announce(place, (rows.stop - rows.start) * self.row)
            return self.read(blocks)

        return read

    def _of_buffer(self, number: int) -> np.ndarray:
        """The blocks of a buffer whose rows will be asked for."""
        if number not in self.wanted:
            self.wanted = {j: x for j, x in self.wanted.items() if number - 3 < j < number}
            self.wanted[number] = blocks = self.asked.of(number)
            self.place[blocks] = np.arange(len(blocks))
        return self.wanted[number]


class Part:
    """Some columns of a `RowFile`, read as an array (n, d) is, or (n,) if `columns` is a number.

    then : what is made of the rows once they are read, a function of them as an array.
    """

    def __init__(
        self,
        file: RowFile,
        columns: slice | list[int] | int,
        then: Sequence[Callable[[np.ndarray], np.ndarray]] = (),
    ):
        self.file, self.columns, self.then = file, columns, tuple(then)
        first = self[:1]
        self.shape, self.dtype = (file.n, *first.shape[1:]), first.dtype
        self.ndim = first.ndim
        self.size = file.n * first.size

    def __len__(self) -> int:
        return self.file.n

    def __repr__(self) -> str:
        return f"Part({self.shape}, {self.dtype}, {self.file.file.name})"

    def __getitem__(self, rows: Any) -> np.ndarray:
        """The row of a number, or the rows of a slice or of numbers, (k,) int64."""
        if isinstance(rows, (int, np.integer)):
            return self[rows : rows + 1][0]
        found = self.file.rows(rows)[:, self.columns]
        for make in self.then:
            found = make(found)
        return found

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self[:] if dtype is None else self[:].astype(dtype, copy=False)

    def map(self, make: Callable[[np.ndarray], np.ndarray]) -> "Part":
        """What a function makes of the rows, whichever are read together."""
        return Part(self.file, self.columns, (*self.then, make))

    def reshape(self, *shape: int) -> "Part":
        """The rows in another shape, as (-1, 1)."""
        return self.map(lambda rows: rows.reshape(shape))

    @property
    def rows_of_a_piece(self) -> int:
        """Rows of some megabytes, in whole blocks."""
        return max(1, PIECE // (BLOCK * self.file.row)) * BLOCK

    def pieces(self, group: Group = ALONE) -> Iterator[np.ndarray]:
        """All rows in their order, some megabytes at a time; of several ranks each has a share of
        them, a part of the file."""
        rows = self.rows_of_a_piece
        share = group.share(-(-self.file.n // rows))
        return (self[rows * i : rows * (i + 1)] for i in share)


def some(x: Part, fits: Callable[[np.ndarray], bool], group: Group = ALONE) -> bool:
    """Whether any piece of the rows fits; each rank looks through its share of them."""
    return any(group.every(lambda: any(map(fits, x.pieces(group)))))


def of_others(parts: Iterable[Any], make: Callable[[RowFile], RowFile]) -> list[Any]:
    """The same of other files, one made for each that the parts are of; what is no part is as it
    was."""
    files: dict[RowFile, RowFile] = {}
    found = []
    for part in parts:
        if isinstance(part, Part):
            if part.file not in files:
                files[part.file] = make(part.file)
            part = Part(files[part.file], part.columns, part.then)
        found.append(part)
    return found


class GroupFile(OpenFile):
    """A temporary file of rows in groups, each of which is written when one of its rows is asked
    for first.

    starts : bytes before each group, and of all.  make : the rows of a group, in pieces of `dtype`.
    ``there`` : which groups have been written.
    """

    def __init__(
        self,
        file: Any,
        name: str,
        starts: np.ndarray,
        make: Callable[[int], Iterator[np.ndarray]],
        dtype: Any,
    ):
        super().__init__(file, name, fixed=True)
        self.starts, self.make, self.dtype_of_rows = starts, make, dtype
        self.there = np.zeros(len(starts) - 1, bool)
        self.filling = Lock()

    def read_into(self, start: int, out: np.ndarray) -> None:
        first = int(np.searchsorted(self.starts, start, "right")) - 1
        for number in range(first, int(np.searchsorted(self.starts, start + out.nbytes))):
            self.fill(number)
        super().read_into(start, out)

    def fill(self, number: int) -> None:
        """Write this group, if it is not there."""
        with self.filling:
            if self.there[number]:
                return
            place, end = self.starts[number : number + 2].tolist()
            for piece in self.make(number):
                rest = _bytes(np.ascontiguousarray(piece, self.dtype_of_rows))
                with self.lock, room_for(self.name):
                    self.file.seek(place)
                    place += len(rest)
                    while len(rest):
                        rest = rest[self.file.write(rest) :]
            if place != end:
                raise InputError(f"{self.name} has changed since it was opened; open it again")
            self.there[number] = True


def spool_groups(
    sizes: Sequence[int],
    make: Callable[[int], Iterator[np.ndarray]],
    dtype: Any,
    width: int,
    name: str,
) -> GroupFile:
    """As of `spool`, rows in groups of these sizes, of which only those are made that are asked
    for; the others take no room."""
    starts = np.cumsum([0, *sizes]) * (np.dtype(dtype).itemsize * width)
    with room_for(name):
        temporary = TemporaryFile(buffering=0, dir=folder_of_spools())  # noqa: SIM115
        temporary.truncate(int(starts[-1]))
    return GroupFile(temporary, name, starts, make, dtype)


def folder_of_spools() -> str:
    """Where $TMPDIR says; else /var/tmp, as /tmp may be in memory."""
    return os.environ.get("TMPDIR") or ("/var/tmp" if os.path.isdir("/var/tmp") else gettempdir())


@contextmanager
def room_for(name: str) -> Iterator[None]:
    """What the system says of a temporary file, as an InputError."""
    try:
        yield
    except OSError as error:
        raise InputError(
            f"{name}: its rows cannot be written to {folder_of_spools()} "
            f"({error.strerror or error}), from where they are read in blocks; name a folder with "
            "more room in $TMPDIR"
        ) from error


def spool(pieces: Iterator[np.ndarray], name: str) -> RowFile:
    """Rows that come in pieces, (k, d) of one dtype, in a file of their own that goes when nobody
    reads it any more.

    It is in the folder that $TMPDIR names; else in /var/tmp, as /tmp may be in memory. Raises
    InputError if there is no room for it.
    """
    n, first = 0, None
    with room_for(name):
        temporary = TemporaryFile(buffering=0, dir=folder_of_spools())  # noqa: SIM115, OpenFile
        file = OpenFile(temporary, name, fixed=True)  # closes it
        for piece in pieces:
            first = piece[:0] if first is None else first
            rest = _bytes(np.ascontiguousarray(piece, first.dtype))
            while len(rest):
                rest = rest[file.file.write(rest) :]
            n += len(piece)
    if first is None or not n:
        raise InputError(f"{name} has no rows")
    return RowFile(file, first.dtype, first.shape[1], n)


def _bytes(x: np.ndarray) -> memoryview:
    """The bytes of a contiguous array, to read or to write."""
    return x.reshape(-1).view(np.uint8).data
