"""The processes of a run, its ranks: what each of them may do together with the others.

    sum         x <- Σ over ranks of x, in place, the same bits on each                     (1)
    broadcast   what rank 0 has, to all
    agree       one answer for all: the reason of the lowest rank that has one
    gather      what every rank has, in their order, to all

Everything else is made of these four. This module has the group of one process, which has nobody to
ask; `mlp.parallel.world` gives that of all the processes that `mpiexec` or `srun` started.

>>> alone = Group()
>>> alone.rank, alone.size, alone.agree("enough"), alone.gather(3)
(0, 1, 'enough', [3])
"""

import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

from backends import Array, Backend
from mlp.errors import InputError, shown
from mlp.memory import HOST, OutOfMemory, is_short, shortage

T = TypeVar("T")


class OfAnotherRank(InputError):
    """What ends this rank because of another one; rank 0 says it."""


class Group:
    """One process alone.

    rank: the number of this process, from 0 on; size: how many there are. local: its number among
    those of this machine. host: the machine's name.
    """

    rank, size, local, host = 0, 1, 0, ""

    def on(self, backend: Backend) -> "Group":
        """The same processes for arrays of this backend, by the fastest way there is between its
        devices."""
        return self

    def sum(self, backend: Backend, x: Array, fixed: bool = False) -> Callable[[], None]:
        """x <- its sum over the ranks, eq. (1), as a call to be made again and again; x is
        contiguous. fixed: added in a binary tree over the ranks, whatever the devices."""
        return _nothing

    def broadcast(self, value: Any) -> Any:
        """What rank 0 has: a host array, or what can be pickled."""
        return value

    def gather(self, value: Any) -> list[Any]:
        """What each rank has, in their order."""
        return [value]

    def agree(self, reason: str) -> str:
        """The reason of the lowest rank that has one, on all of them; "" if none has."""
        return reason

    def wait(self) -> None:
        """Until all ranks are here, without keeping a core busy."""

    def abort(self, code: int) -> None:
        """End all ranks now, this one too. One alone goes on to its own end."""

    # ------------------------------------------------------------------ what is made of them

    @contextmanager
    def together(self) -> Iterator[None]:
        """What each rank does within, no rank goes on from if another one fails: an error of one is
        raised by all, at the end of the block, and rank 0's names whose it is. Within, the group
        is asked only for what settles errors first, as `together` and `every` do: a rank that
        fails in between comes to the end of its block, and the others hear of it there."""
        error: Exception | None = None
        try:
            yield
        except Exception as found:
            if is_agreed(found):  # all ranks are on their way out of the block
                raise
            error = found
        self.settle(error)

    def every(self, make: Callable[[], T]) -> list[T]:
        """What each rank makes, in their order, on all of them; an error of one is raised by all.

        >>> Group().every(lambda: 3)
        [3]
        """
        with self.together():
            mine = make()
        return self.gather(mine)

    def share(self, n: int) -> range:
        """This rank's numbers of 0, ..., n - 1: a run of them, as long as the others' but for one.

        >>> Group().share(3)
        range(0, 3)
        """
        return range(n * self.rank // self.size, n * (self.rank + 1) // self.size)

    def dealt(self, n: int, make: Callable[[int], T]) -> Iterator[T]:
        """make(0), ..., make(n - 1), on all ranks; each is made by the rank whose `share` it is. So
        what is added up in this order has the same bits on any number of ranks."""
        if self.size == 1:
            return map(make, range(n))
        return (x for part in self.every(lambda: list(map(make, self.share(n)))) for x in part)

    def settle(self, error: Exception | None, backend: Backend | None = None) -> None:
        """Raise on every rank what one of them has found; nothing if none has. Where memory ran out
        on one, be it that of the backend's device, it is a MemoryError on all others."""
        if self.size == 1:
            if error is not None:
                raise error
            return
        if not self.agree("" if error is None else "failed"):
            return
        if error is not None:
            error.add_note(AGREED)
        mine = None if error is None else _about(error, backend)
        found = {rank: x for rank, x in enumerate(self.gather((self.host, mine))) if x[1]}
        alike = len(found) == self.size and len({said for _, (_, said) in found.values()}) == 1
        if alike and self.rank == 0 and error is not None:
            raise error
        rank, (host, (short, said)) = next(iter(found.items()))
        if self.rank == rank and error is not None and not isinstance(error, InputError):
            raise error  # with all that it carries, as where it happened
        if short:
            raise agreed(OutOfMemory(said, f"{short} of rank {rank}, on {host}")) from error
        kind = InputError if self.rank == 0 else OfAnotherRank
        raise agreed(kind(f"rank {rank} of {self.size}, on {host}: {said}")) from error

    def same(self, about: Mapping[str, Any]) -> None:
        """InputError on every rank unless all have the same; by rank 0 naming what, and whose."""
        if self.size == 1:
            return
        everyones = self.gather((self.host, dict(about)))
        here = everyones[0][1]
        for rank, (host, there) in enumerate(everyones):
            for name in {**here, **there}:
                old, new = here.get(name), there.get(name)
                if old != new:
                    kind = InputError if self.rank == 0 else OfAnotherRank
                    raise agreed(
                        kind(
                            f"rank {rank} of {self.size}, on {host}: {name} is {shown(new)} there "
                            "and "
                            f"{shown(old)} on rank 0, on {everyones[0][0]}; all ranks need the same"
                        )
                    )


ALONE = Group()


AGREED = "(all ranks end by it)"  # a note on an error


def agreed(error: Exception) -> Exception:
    """The error, as one that all ranks know of."""
    error.add_note(AGREED)
    return error


def is_agreed(error: BaseException | None) -> bool:
    """Whether all ranks know of an error, so that none waits for another."""
    while error is not None:
        if AGREED in getattr(error, "__notes__", ()):
            return True
        error = error.__cause__
    return False


def said_elsewhere(error: BaseException | None) -> bool:
    """Whether another rank says it."""
    while error is not None:
        if isinstance(error, OfAnotherRank):
            return True
        error = error.__cause__
    return False


@contextmanager
def ending_all(group: Group) -> Iterator[None]:
    """An error within that this rank alone knows of ends all of them, once it has been said."""
    try:
        yield
    except BaseException as error:
        if group.size > 1 and not is_agreed(error):
            name = f"{type(error).__name__}: {error}"
            text = str(error) if isinstance(error, InputError) else name
            if not isinstance(error, (InputError, KeyboardInterrupt)):
                traceback.print_exc()
            print(f"mlp: error: rank {group.rank}, on {group.host}: {text}", file=sys.stderr)
            group.abort(130 if isinstance(error, KeyboardInterrupt) else 2)
        raise


def _about(error: Exception, backend: Backend | None) -> tuple[str, str]:
    """Where memory ran out, "" if it did not, and what the error says."""
    if backend is not None and is_short(backend, error):
        return shortage(backend, error)
    where = HOST if isinstance(error, MemoryError) else ""
    if where or isinstance(error, InputError):
        return where, str(error)
    return "", f"{type(error).__name__}: {error}"


def _nothing() -> None:
    """The sum over one rank."""
