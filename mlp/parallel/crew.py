"""A crew of threads: what makes several calls at once on the cores of one machine.

The calls of a round are dealt to whichever thread is free, the caller's own among them, and a
round is over when all of them are done. Who makes a call is left open, so what is computed must not
depend on it: each call works on arrays of its own. NumPy's calls let other threads run while they
compute, and each multiplies in one thread of BLAS (`mlp.threads.limited`), so no two pools of
threads want the same core, and none keeps one busy while it waits.

>>> from backends import get_backend
>>> found = []
>>> with crew_of(get_backend("numpy"), 2) as crew:
...     crew([lambda: found.append("a"), lambda: found.append("b")])
>>> sorted(found)
['a', 'b']
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from threading import Lock, Thread

from backends import Backend
from mlp.threads import as_pays, limited, one_each, threads_there

Call = Callable[[], None]
Crew = Callable[[Sequence[Call]], None]


def one_by_one(calls: Sequence[Call]) -> None:
    """The crew of one thread."""
    for call in calls:
        call()


@contextmanager
def crew_of(backend: Backend, most: int) -> Iterator[Crew]:
    """A crew of up to ``most`` threads: as many as BLAS has here, where the backend computes on the
    host's cores, else of one. Within, BLAS multiplies in one thread, whatever the crew."""
    threads = backend.workers(min(most, threads_there()))
    with one_each() if backend.workers(2) > 1 else limited():
        if threads == 1:
            yield one_by_one
            return
        crew = Threads(backend, threads - 1)
        try:
            yield crew
        finally:
            crew.end()


@contextmanager
def crew_for(backend: Backend, shards: int | None, products: Iterable[int]) -> Iterator[Crew]:
    """Who runs so many shards of a batch; without shards its products, of so many multiply-adds,
    have the threads that pay (`mlp.threads.paying`)."""
    if shards is not None:
        with crew_of(backend, max(shards, 1)) as crew:
            yield crew
    elif backend.workers(2) == 1:
        yield one_by_one
    else:
        with as_pays(products):
            yield one_by_one


class Threads:
    """So many threads and the caller's, which make calls together. `end` lets the threads go.

    An error in a call is raised by the caller, that of the first call which has one, once all calls
    are done; so is Ctrl-C, which comes to the caller alone.
    """

    def __init__(self, backend: Backend, others: int):
        self.backend, self.size = backend, others + 1
        self.round: Iterator[tuple[int, Call]] | None = None
        self.errors: list[tuple[int, BaseException]] = []
        self.members = [(Lock(), Lock()) for _ in range(others)]  # it may begin, it is done
        self.threads = [Thread(target=self._member, args=x, daemon=True) for x in self.members]
        for member, thread in zip(self.members, self.threads, strict=True):
            for lock in member:
                lock.acquire()
            thread.start()

    def __call__(self, calls: Sequence[Call]) -> None:
        self.errors.clear()
        self.round = iter(list(enumerate(calls)))
        for begin, _ in self.members[: len(calls) - 1]:
            begin.release()
        waiting = [done for _, done in self.members[: len(calls) - 1]]
        try:
            self._work()
        finally:
            interrupt: BaseException | None = None
            while waiting:
                try:  # nothing may go on, nor an array be let go, while a thread is at work
                    waiting[-1].acquire()
                    waiting.pop()
                except BaseException as error:
                    interrupt = error
            if interrupt is not None:
                raise interrupt
        if self.errors:
            raise min(self.errors, key=lambda found: found[0])[1]

    def _work(self) -> None:
        """Calls of this round, as long as there are some."""
        assert self.round is not None
        for number, call in self.round:
            try:
                call()
            except BaseException as error:  # also what interrupts: the round ends first
                self.errors.append((number, error))

    def _member(self, begin: Lock, done: Lock) -> None:
        with self.backend.scope():  # which NumPy keeps for each thread
            while True:
                begin.acquire()
                if self.round is None:
                    return
                self._work()
                done.release()

    def end(self) -> None:
        """Let the threads go."""
        self.round = None
        for begin, _ in self.members:
            begin.release()
        for thread in self.threads:
            thread.join()
