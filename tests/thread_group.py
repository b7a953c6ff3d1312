"""Ranks that are threads of one process: what is asked of a `Group`, where there is no MPI."""

import pickle
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from mlp.parallel.group import Group


class Shared:
    def __init__(self, size):
        self.barrier, self.slots = threading.Barrier(size, timeout=60), [None] * size


class ThreadGroup(Group):
    def __init__(self, rank, size, shared):
        self.rank, self.size, self.shared = rank, size, shared
        self.host = f"thread {rank}"

    def gather(self, value):
        self.shared.barrier.wait()
        self.shared.slots[self.rank] = pickle.dumps(value)
        self.shared.barrier.wait()
        return [pickle.loads(x) for x in self.shared.slots]

    def broadcast(self, value):
        return self.gather(value)[0]

    def agree(self, reason):
        return next((x for x in self.gather(reason) if x), "")

    def sum(self, backend, x, fixed=False):
        def run():
            parts = self.gather(backend.to_numpy(x).copy())
            backend.copy(backend.asarray(added(parts)), x)

        return run


def added(parts):
    """((0 + 1) + (2 + 3)) + ...; of other numbers than 2^k the rest is added first."""
    power = 1 << (len(parts).bit_length() - 1)
    parts = [
        x if i + power >= len(parts) else x + parts[i + power] for i, x in enumerate(parts[:power])
    ]
    while len(parts) > 1:
        parts = [a + b for a, b in zip(parts[::2], parts[1::2], strict=True)]
    return np.asarray(parts[0])


def on_ranks(size, job):
    """[job(group) of each rank]; the first error is raised, once all have ended."""
    shared = Shared(size)

    def run(rank):
        try:
            return job(ThreadGroup(rank, size, shared))
        except BaseException:
            shared.barrier.abort()
            raise

    with ThreadPoolExecutor(size) as pool:
        found = [pool.submit(run, rank) for rank in range(size)]
    return [x.result() for x in found]
