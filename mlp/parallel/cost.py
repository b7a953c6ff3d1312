"""What ranks cost and save: the time of a pass, of a sum, and from how many rows on ranks pay.

With P parameters, n rows a rank, R flop/s of a rank's pass and BW bytes/s through a rank in a sum,

    a pass      T_p = 6 P n / R         2 P forward, 4 P back, for each row                 (1)
    a sum       T_s = 8 P / BW          float32: 4 P bytes leave and 4 P come, at 2 ranks   (2)

and N ranks take T_p + T_s for the N n rows for which one takes N T_p. Two of them are even where
T_p = T_s, at

    n = 8 R / (6 BW) = 1.33 R / BW                                                          (3)

rows a rank, whatever P is; from there on they gain. Of other numbers of ranks a rank sends and
receives 2 (N - 1)/N of 4 P bytes each in 2 log2 N messages of latency α (`mlp.parallel.mpi`):

    T_s(N) = 2 α log2 N + 16 (N - 1)/N P / BW                                               (4)

which is (2) at N = 2 but for α.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from backends import Backend
from mlp.parallel.group import Group


@dataclass(frozen=True)
class Costs:
    """Measured of a net: parameters, rows of a pass, seconds of a pass and of a sum over ``ranks``,
    and of a sum of one number.

    >>> found = Costs(parameters=670_000, rows=1024, ranks=2, pass_s=0.040, sum_s=0.002, one_s=5e-6)
    >>> found.fewest_rows, round(found.flops / 1e9), round(found.bandwidth / 1e9, 2)
    (52, 103, 2.69)
    >>> [round(found.efficiency(n), 2) for n in (2, 16, 1024)]
    [0.95, 0.91, 0.91]
    """

    parameters: int
    rows: int
    ranks: int
    pass_s: float
    sum_s: float
    one_s: float

    @property
    def flops(self) -> float:
        """R of eq. (1), flop/s."""
        return 6.0 * self.parameters * self.rows / self.pass_s

    @property
    def bandwidth(self) -> float:
        """BW of eq. (4), bytes/s: through a rank, both ways."""
        share = 2.0 * (self.ranks - 1) / self.ranks
        return 8.0 * share * self.parameters / max(self.sum_s - self.one_s, 1e-9)

    @property
    def fewest_rows(self) -> int:
        """Rows a rank from which on these ranks gain over one: T_p + T_s = N T_p, eq. (3)."""
        return math.ceil(self.rows * self.sum_s / ((self.ranks - 1) * self.pass_s))

    def sum_over(self, ranks: int) -> float:
        """Seconds of a sum over so many ranks, eq. (4): a model."""
        if ranks == 1:
            return 0.0
        latency = self.one_s / (2.0 * math.log2(self.ranks))
        moved = 16.0 * (ranks - 1) / ranks * self.parameters
        return 2.0 * latency * math.log2(ranks) + moved / self.bandwidth

    def efficiency(self, ranks: int) -> float:
        """T_p / (T_p + T_s), with as many rows a rank as were measured: a model."""
        return self.pass_s / (self.pass_s + self.sum_over(ranks))


def sum_seconds(group: Group, backend: Backend, n: int, rounds: int = 20) -> float:
    """The median time of a sum of n float32 over the ranks, that of the slowest of them."""
    x = backend.full((n,), 0.0, "float32")
    add = group.sum(backend, x)
    return together(group, backend, add, rounds)


def together(group: Group, backend: Backend, call: Callable[[], None], rounds: int) -> float:
    """The median time of a call that all ranks make at once, that of the slowest of them."""
    call()
    found = []
    for _ in range(rounds):
        group.agree("")  # all are here
        began = time.perf_counter()
        call()
        backend.synchronize()
        found.append(time.perf_counter() - began)
    return float(np.max(group.gather(np.median(found))))
