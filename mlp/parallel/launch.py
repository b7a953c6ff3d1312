"""The processes that a launcher started together: `mpiexec`, `srun`.

>>> world().size
1
"""

import os
from collections.abc import Mapping

from mlp.errors import InputError
from mlp.parallel.group import ALONE, Group, OfAnotherRank
from mlp.parallel.mpi import MpiGroup, comm_world

# Processes of a job and the number of this one, as the launchers say them: Open MPI; MPICH, Intel
# MPI, Cray; MVAPICH; a step that Slurm's srun started.
LAUNCHERS = (
    ("OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK"),
    ("PMI_SIZE", "PMI_RANK"),
    ("MV2_COMM_WORLD_SIZE", "MV2_COMM_WORLD_RANK"),
    ("SLURM_STEP_NUM_TASKS", "SLURM_PROCID"),
)


def launched(environment: Mapping[str, str]) -> tuple[int, int]:
    """(processes, the number of this one) that an MPI launcher says; (1, 0) without one.

    >>> launched({"OMPI_COMM_WORLD_SIZE": "4", "OMPI_COMM_WORLD_RANK": "3"})
    (4, 3)
    """
    for size, rank in LAUNCHERS:
        if environment.get(size, "").isdecimal() and environment.get(rank, "").isdecimal():
            return int(environment[size]), int(environment[rank])
    return 1, 0


def world() -> Group:
    """All processes that `mpiexec` or `srun` started; this one alone if it was started without.

    With several, mpi4py is imported; an error that nobody catches in one of them ends all from then
    on. Raises InputError if mpi4py is not there, or belongs to another MPI than the launcher.
    """
    size, rank = launched(os.environ)
    if size == 1:
        return ALONE
    kind = InputError if rank == 0 else OfAnotherRank
    try:
        comm = comm_world()
    except (ImportError, RuntimeError) as error:  # without MPI's own library the latter
        raise kind(
            f"{size} processes were started together, and they need mpi4py to train one net "
            f"({error}): pip install 'array-mlp[mpi]', or start one process"
        ) from error
    if comm.size != size:
        raise kind(
            f"{size} processes were started together and mpi4py sees {comm.size}: it belongs to "
            "another MPI than the launcher; start them by the mpiexec of mpi4py's MPI (`python -m "
            "mpi4py --mpi-lib-version` names it), or install mpi4py for yours"
        )
    return MpiGroup(comm)
