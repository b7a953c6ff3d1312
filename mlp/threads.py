"""How many threads the matrix products of a run may use.

On the CPU the BLAS behind NumPy and PyTorch multiplies in threads of its own, as many as there are
cores. Small products gain nothing by that, and training takes no more than pay (`paying`). Where
several processes share the cores, each should have its part of them: OpenBLAS's idle threads keep a
core busy while they wait, and two processes that use the same cores slow each other several times.

>>> from threadpoolctl import threadpool_info
>>> with limited(1):
...     {pool["num_threads"] for pool in threadpool_info()}
{1}
"""

import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache, partial
from numbers import Integral
from threading import RLock, get_ident
from typing import Any

from mlp.errors import InputError, check_whole, shown

# How many processes of an MPI job run on this node: Open MPI, MPICH and Intel MPI, MVAPICH, Cray;
# of a step started by Slurm's srun, as in "4" or "4(x2),3". (SLURM_NTASKS_PER_NODE says what was
# asked for, also where one process runs alone.)
RANKS = (
    "OMPI_COMM_WORLD_LOCAL_SIZE",
    "MPI_LOCALNRANKS",
    "MV2_COMM_WORLD_LOCAL_SIZE",
    "PMI_LOCAL_SIZE",
    "SLURM_STEP_TASKS_PER_NODE",
)
# Variables that say it already, read by the libraries themselves.
SAID = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "BLIS_NUM_THREADS")


# Multiply-adds of a product for which one more thread pays, and of a batch for which one more shard
# does (docs/parallel.md): two threads gained nothing or little up to 2 million, and as much as they
# ever do from 7 million on; two shards did so from 80 million on, and did not at 48. And the fewest
# rows of a shard: each reads all weights and adds a whole gradient, which takes as long as a pass
# of some 20 or 30 rows (`mlp.parallel.cost`, eq. 3): two of 128 rows took 1.02 to 1.07 of the whole
# batch's time on a quiet machine, two of 256 rows and more took 0.93 to 0.98.
PAYS = 3_000_000
CUT_PAYS = 32_000_000
ROWS_PAY = 256
MOST = 1 << 20  # threads; no system has more, and libraries take the number as an int of 32 bits


class _Limit:
    """A limit that holds, and the Python thread that set it. given: by somebody, not by a rule of
    this module; there: the threads that a rule may use within it."""

    def __init__(self, given: bool, there: int) -> None:
        self.thread, self.given, self.there = get_ident(), given, there


# The limits that hold, oldest first, each with what takes it back. The numbers of threads belong to
# the process, and so does this account of them: a module variable that changes.
_limits: dict[_Limit, list[Callable[[], None]]] = {}
_lock = RLock()  # a signal's handler may fork


@contextmanager
def limited(threads: int | None = None) -> Iterator[None]:
    """Within, products use so many threads; afterwards as many as before.

    None leaves things as they are, but for an MPI job with several processes on this node, none of
    the usual variables set (OMP_NUM_THREADS, ...) and no other limit: each then uses no more than
    its share of the cores. The limit holds for the whole process, not for one Python thread. Of
    limits that overlap, the last one set counts; the number from before them comes back when the
    last one ends. Raises InputError if threads is not a whole number from 1 to 2^20; more than
    there are cores is allowed, and slow.
    """
    if threads is not None:
        check_threads(threads)
        with _limited(int(threads), True):
            yield
        return
    share = None if _limits else share_of_cores(os.environ)
    if share is None:
        yield
        return
    with _limited(min(share, blas_threads()), False):
        yield


@contextmanager
def as_pays(products: Iterable[int]) -> Iterator[None]:
    """Within, these products, of so many multiply-adds each, use no more threads than gain by it
    (`paying`), unless somebody has said how many: by `limited` or a variable."""
    said = any(name in os.environ for name in SAID) or any(limit.given for limit in _limits)
    if said:
        yield
        return
    there = threads_there()
    with _limited(min(there, paying(products)), False, there):
        yield


@contextmanager
def one_each() -> Iterator[None]:
    """Within, products are in one thread: threads of Python have the others."""
    with _limited(1, False, threads_there()):
        yield


def threads_there() -> int:
    """How many threads a rule may use: as many as somebody has said, or as BLAS has. What other
    runs in this process limit by a rule of theirs does not count."""
    with _lock:  # not between a limit that another thread sets and the account of it
        limits = list(_limits)
        said = [limit for limit in limits if limit.given]
        if said:
            return said[-1].there
        return limits[0].there if limits else blas_threads()


def paying(products: Iterable[int]) -> int:
    """From how many threads on these products, of f_i multiply-adds each, gain nothing more:

        max(1, floor(Σ f_i² / Σ f_i / 3,000,000))

    one for each three million of a product, of all of them by their share of the work. It depends
    on sizes alone, so that the bits of a run do not depend on what else the machine does.

    >>> paying([200 * 64 * 100, 200 * 100 * 10]), paying([256 * 784 * 512, 256 * 512 * 512])
    (1, 29)
    """
    sizes = [float(f) for f in products]
    return max(1, int(sum(f * f for f in sizes) / max(sum(sizes), 1.0) / PAYS))


def shards_paying(rows: int, products: Iterable[int]) -> int:
    """In how many shards a batch of these products, of f_i multiply-adds each, is trained as fast
    by threads that take a shard each as by products in threads: of the threads that there are,
    the largest power of two up to

        min(Σ f_i / 32,000,000, rows / 256)                         and 1 where none is above 1

    It depends on sizes and on that number of threads alone, for the reason of `paying`.

    >>> with limited(4):
    ...     shards_paying(2048, [2048 * 256 * 1024, 2048 * 1024 * 1024])
    ...     shards_paying(200, [200 * 784 * 100]), shards_paying(8, [8 * 4096 * 4096])
    4
    (1, 1)
    """
    most = max(1, min(threads_there(), sum(products) // CUT_PAYS, rows // ROWS_PAY))
    return 1 << (most.bit_length() - 1)


@contextmanager
def _limited(threads: int, given: bool, there: int | None = None) -> Iterator[None]:
    """`limited`, of a number that is right."""
    this = _Limit(given, there or threads)
    torch = sys.modules.get("torch")  # sets OpenMP's number anew where a thread first uses it
    with _lock:  # an import and a search of libraries hold locks too, which no fork may copy
        pools = _pools(len(sys.modules))
        undo: list[Callable[[], None]] = []
        if torch:
            undo.append(partial(torch.set_num_threads, torch.get_num_threads()))
        blas = pools.select(user_api="blas")
        undo.append(partial(_release, blas.limit()))  # remembers, and sets nothing
        openmp = pools.select(user_api="openmp").limit(limits=threads)  # of this Python thread
        blas.limit(limits=threads)
        _release(blas.limit())
        if torch:
            torch.set_num_threads(threads)
        _limits[this] = undo
    try:
        yield
    finally:
        with _lock:
            _leave(this)
            openmp.restore_original_limits()


@lru_cache(maxsize=1)
def _pools(modules: int) -> Any:
    """The libraries that have threads: looked for again when more modules are imported, since it
    takes milliseconds."""
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()


def _release(numbers: Any) -> None:
    """Set the numbers remembered, and let other Python threads set others: from version 3.8 on,
    threadpoolctl keeps OpenBLAS's number for the thread that set it, until its `with` ends."""
    with numbers:
        pass


def _leave(limit: _Limit) -> None:
    """Take a limit back; if a later one still holds, that one will take both back."""
    later = list(_limits)
    later = later[later.index(limit) + 1 :]
    undo = _limits.pop(limit)
    if later:
        _limits[later[0]] = undo
        undo = undo[:-1]  # PyTorch's number alone is this thread's own
    for back in undo:
        back()


def _after_fork() -> None:
    """In the new process, which has the thread alone that forked: the limits of others end."""
    for limit in list(_limits):
        if limit.thread != get_ident():
            _leave(limit)
    _lock.release()


if hasattr(os, "register_at_fork"):  # else processes are not forked
    # A fork waits until no thread is within, or the new process would wait for one it has not.
    os.register_at_fork(
        before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_after_fork
    )


def check_threads(threads: object) -> None:
    """InputError if it is not a whole number from 1 to 2^20."""
    if isinstance(threads, Integral) and int(threads) > MOST:
        raise InputError(
            f"threads must be at most 2^20, not {shown(threads)}; the cores are enough"
        )
    check_whole("threads", threads, 1)


def blas_threads() -> int:
    """The threads that products use now.

    >>> with limited(1):
    ...     blas_threads()
    1
    """
    with _lock:
        pools = _pools(len(sys.modules)).select(user_api="blas").info()
    return max((pool["num_threads"] for pool in pools), default=1)


def usable_cores() -> int:
    """The cores this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def share_of_cores(environment: Mapping[str, str]) -> int | None:
    """The threads for each of several processes of an MPI job on this node; None if there is one
    process, if the environment says a number itself, or if the launcher gave each its own cores.

    >>> share_of_cores({"OMPI_COMM_WORLD_LOCAL_SIZE": "1000"})
    1
    >>> share_of_cores({"OMPI_COMM_WORLD_LOCAL_SIZE": "4", "OMP_NUM_THREADS": "2"})
    """
    if any(name in environment for name in SAID) or usable_cores() < (os.cpu_count() or 1):
        return None
    given = next((environment[name] for name in RANKS if name in environment), "")
    ranks = max(map(int, re.findall(r"(?<![\dx])\d+", given)), default=1)  # not the 2 of "(x2)"
    return max(1, usable_cores() // ranks) if ranks > 1 else None
