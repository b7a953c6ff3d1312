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
from typing import Any

from backends import Array, Backend
from mlp.errors import InputError


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
        raised by all, at the end of the block, and rank 0's names whose it is. Nothing that others
        wait for is asked of the group within."""
        error: Exception | None = None
        try:
            yield
        except Exception as found:
            error = found
        self.settle(error)

    def settle(self, error: Exception | None) -> None:
        """Raise on every rank what one of them has found; nothing if none has."""
        if self.size == 1:
            if error is not None:
                raise error
            return
        if not self.agree("" if error is None else "failed"):
            return
        if error is not None:
            error.add_note(AGREED)
        mine = None if error is None else (isinstance(error, MemoryError), _said(error))
        found = {rank: x for rank, x in enumerate(self.gather((self.host, mine))) if x[1]}
        alike = len(found) == self.size and len({said for _, (_, said) in found.values()}) == 1
        if alike and self.rank == 0 and error is not None:
            raise error
        rank, (host, (short, said)) = next(iter(found.items()))
        if self.rank == rank and error is not None and not isinstance(error, InputError):
            raise error  # with all that it carries, as where it happened
        if short:
            raise agreed(MemoryError(f"rank {rank} on {host}: {said}"))
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
                            f"rank {rank} of {self.size}, on {host}: {name} is {new!r} there and "
                            f"{old!r} on rank 0, on {everyones[0][0]}; all ranks need the same"
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


def _said(error: Exception) -> str:
    if isinstance(error, (InputError, MemoryError)):
        return str(error)
    return f"{type(error).__name__}: {error}"


def _nothing() -> None:
    """The sum over one rank."""
