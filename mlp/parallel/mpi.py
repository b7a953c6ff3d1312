"""Ranks that MPI connects, through mpi4py.

A sum is taken by halving and doubling over a binary tree of the ranks (Rabenseifner's algorithm;
Thakur, Rabenseifner, Gropp, IJHPCA 19, 2005, section 4.5): with N = 2^k, in step j = 0, ..., k - 1
each rank and its partner, r xor 2^j, hold partial sums of the same slice; they send each other one
half of it, and each adds what it gets to the half that it keeps,

    x[own half] <- x[own half] + x'[own half]                                             (1)

and then the halves are sent back the same way. Every element is added once, by one rank, in the
tree ((0 + 1) + (2 + 3)) + ..., so all ranks have the same bits, and they are those of a process
that adds the same parts in this tree. A rank sends and receives 2 (N - 1)/N of x in all. Of other
numbers of ranks those above the largest 2^k give theirs to rank r - 2^k first and get the sum last.

Arrays on a device go through host memory, page-locked where the backend has such.
"""

import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from backends import Array, Backend
from mlp.parallel.group import Group


def comm_world() -> Any:
    """The communicator of all ranks. From here on an error that ends one of them ends them all,
    since the others would wait for it: as `python -m mpi4py` does."""
    from mpi4py import MPI

    before = sys.excepthook

    def hook(kind: Any, error: Any, trace: Any) -> None:
        before(kind, error, trace)
        sys.stderr.flush()
        MPI.COMM_WORLD.Abort(130 if issubclass(kind, KeyboardInterrupt) else 1)

    sys.excepthook = hook
    return MPI.COMM_WORLD.Dup()


class MpiGroup(Group):
    """The ranks of a communicator."""

    def __init__(self, comm: Any):
        from mpi4py import MPI

        self.comm, self.rank, self.size = comm, comm.rank, comm.size
        self.host = MPI.Get_processor_name()
        neighbours = comm.Split_type(MPI.COMM_TYPE_SHARED)
        self.local = neighbours.rank
        neighbours.Free()
        self.lowest = MPI.MIN
        self.mine, self.least = np.empty(1, np.int64), np.empty(1, np.int64)

    def on(self, backend: Backend) -> Group:
        from mlp.parallel.nccl import nccl_of

        return nccl_of(self, backend) or self

    def sum(self, backend: Backend, x: Array, fixed: bool = False) -> Callable[[], None]:
        if isinstance(x, np.ndarray):
            return self._tree(x)
        host = backend.host(x.shape, x.dtype)
        add = self._tree(host)

        def run() -> None:
            backend.download(x, host)
            add()
            backend.upload(host, x)

        return run

    def broadcast(self, value: Any) -> Any:
        return self.comm.bcast(value)

    def gather(self, value: Any) -> list[Any]:
        return self.comm.allgather(value)

    def agree(self, reason: str) -> str:
        self.mine[0] = self.rank if reason else self.size
        self.comm.Allreduce(self.mine, self.least, self.lowest)
        first = int(self.least[0])
        return self.comm.bcast(reason, first) if first < self.size else ""

    def wait(self) -> None:
        here = self.comm.Ibarrier()
        while not here.Test():
            time.sleep(0.005)

    def abort(self, code: int) -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        self.comm.Abort(code)

    # ------------------------------------------------------------------ the tree

    def _tree(self, x: np.ndarray) -> Callable[[], None]:
        """Eq. (1) and its way back, on a host array."""
        flat, rank = x.reshape(-1), self.rank
        assert np.shares_memory(flat, x)
        power = 1 << (self.size.bit_length() - 1)  # the largest 2^k that is not above size
        room = np.empty_like(flat)
        send, receive = self.comm.Send, self.comm.Recv
        if rank >= power:
            return _all([partial(send, flat, rank - power), partial(receive, flat, rank - power)])
        calls: list[Callable[[], Any]] = []
        extra = rank + power if rank + power < self.size else None
        if extra is not None:
            calls += [partial(receive, room, extra), partial(np.add, flat, room, flat)]
        back: list[Callable[[], Any]] = []
        start, stop, distance = 0, len(flat), 1
        while distance < power:
            partner, middle = rank ^ distance, (start + stop) // 2
            halves = flat[start:middle], flat[middle:stop]
            upper = bool(rank & distance)
            own, other = (halves[1], halves[0]) if upper else halves
            start, stop = (middle, stop) if upper else (start, middle)
            calls.append(partial(self._exchange, other, partner, room[: len(own)]))
            calls.append(partial(np.add, own, room[: len(own)], own))
            back.insert(0, partial(self._exchange, own, partner, other))
            distance *= 2
        if extra is not None:
            back.append(partial(send, flat, extra))
        return _all([*calls, *back])

    def _exchange(self, mine: np.ndarray, partner: int, theirs: np.ndarray) -> None:
        self.comm.Sendrecv(mine, partner, recvbuf=theirs, source=partner)


def _all(calls: list[Callable[[], Any]]) -> Callable[[], None]:
    def run() -> None:
        for call in calls:
            call()

    return run
