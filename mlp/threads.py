"""How many threads the matrix products of a run may use.

On the CPU the BLAS behind NumPy and PyTorch multiplies in threads of its own, as many as there are
cores. Where several processes share the cores, each should have its part of them: OpenBLAS's idle
threads keep a core busy while they wait, and two processes that use the same cores slow each other
several times.

>>> from threadpoolctl import threadpool_info
>>> with limited(1):
...     {pool["num_threads"] for pool in threadpool_info()}
{1}
"""

import os
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from mlp.errors import InputError

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


@contextmanager
def limited(threads: int | None = None) -> Iterator[None]:
    """Within, products use so many threads; afterwards as many as before.

    None leaves things as they are, but for an MPI job with several processes on this node and none
    of the usual variables set (OMP_NUM_THREADS, ...): each then uses no more than its share of the
    cores. The limit holds for the whole process, not for one Python thread. Raises InputError if
    threads is not a whole number from 1 on; more than there are cores is allowed, and slow.
    """
    share = share_of_cores(os.environ) if threads is None else None
    if threads is None and share is None:
        yield
        return
    from threadpoolctl import threadpool_info, threadpool_limits

    if share is not None:
        threads = min([share, *(pool["num_threads"] for pool in threadpool_info())])
    check_threads(threads)
    torch = sys.modules.get("torch")  # it has a setting of its own
    before = torch.get_num_threads() if torch else None
    with threadpool_limits(threads):
        if torch:
            torch.set_num_threads(threads)
        try:
            yield
        finally:
            if torch:
                torch.set_num_threads(before)


def check_threads(threads: object) -> None:
    """InputError if it is not a whole number from 1 on."""
    if isinstance(threads, bool) or not isinstance(threads, int) or threads < 1:
        raise InputError(f"threads must be a whole number from 1 on, not {threads!r}")


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
