"""Peak memory of a fit, over what the interpreter and its libraries hold before it.

Measured in a fresh process that has run a small fit and a product, and then makes the data and
fits them. To compare with: data + 6 parameters + 3 activations of a batch, in bytes.
"""

import gc
import resource
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import nets, peers
from benchmarks.report import Options, Table, style
from benchmarks.worker import Absent, once

ROWS = {"small": 100_000, "deep": 100_000, "tabular": 400_000, "medium": 20_000, "large": 16_384}
ROWS |= {"wide": 4_096}
QUICK_ROWS = 2_000


def peak(reset: bool = False) -> int:
    """The most bytes this process has held; ``reset``: forget what was before (Linux)."""
    status = Path("/proc/self/status")
    if not status.exists():
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    line = next(x for x in status.read_text().splitlines() if x.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def measured(fit: Any, units: list[int], batch: int, rows: int) -> dict[str, int]:
    """Bytes over the start: ``fit(units, X, t, batch)`` trains one epoch."""
    fit([min(m, 16) for m in units], *nets.data([min(m, 16) for m in units], 64), 16)
    large = np.ones((1024, 1024), np.float32)
    large @ large  # BLAS allocates its buffers
    del large
    gc.collect()
    before = peak(reset=True)
    X, t = nets.data(units, rows)
    fit(units, X, t, batch)
    return {"peak": peak() - before, "data": X.nbytes + t.nbytes, "start": before}


def ours(units: list[int], batch: int, rows: int, backend: str, jit: bool = False) -> dict:
    """`mlp.train`."""
    import mlp

    def fit(units: list[int], X: Any, t: Any, batch: int) -> None:
        model = nets.our_model(units, backend, jit)
        mlp.train(model, X, t, batch_size=batch, epochs=1)

    return measured(fit, units, batch, rows)


def sklearn(units: list[int], batch: int, rows: int, backend: str) -> dict:
    """`fit` with max_iter=1."""
    import warnings

    from sklearn.exceptions import ConvergenceWarning

    warnings.simplefilter("ignore", ConvergenceWarning)

    def fit(units: list[int], X: Any, t: Any, batch: int) -> None:
        peers.sklearn_estimator(units, batch).fit(X, t.ravel())

    return measured(fit, units, batch, rows)


def torch(units: list[int], batch: int, rows: int, backend: str) -> dict:
    """PyTorch with fused Adam, batches by hand."""
    import torch

    def fit(units: list[int], X: Any, t: Any, batch: int) -> None:
        X, t = torch.from_numpy(X), torch.from_numpy(t)
        net, cost = peers.torch_net(units, "cpu")
        optimizer = torch.optim.Adam(net.parameters(), fused=True)
        for r in torch.randperm(len(X)).split(batch):
            optimizer.zero_grad()
            cost(net(X[r]), t[r]).backward()
            optimizer.step()

    return measured(fit, units, batch, rows)


CONTENDERS = {
    "array-mlp[jit]": partial(ours, jit=True),
    "array-mlp": ours,
    "PyTorch": torch,
    "scikit-learn": sklearn,
}


def run(options: Options) -> dict[str, Any]:
    """Measure and print the chosen workloads. Host memory is what counts, on NumPy."""
    known = nets.QUICK if options.quick else nets.WORKLOADS
    headers = ["MB over the start", "peak", "data", "parameters", "activations", "bound"]
    made, results = Table([*headers, "peak / bound"]), {}
    print("\nmemory, the bound: data + 6 parameters + 3 activations of a batch", flush=True)
    for workload in options.workloads or known:
        units, batch = known[workload]
        rows = QUICK_ROWS if options.quick else ROWS[workload]
        parameters = 4 * sum(W.size + b.size for W, b in nets.weights(units))
        activations = 4 * batch * sum(units)
        results[workload] = {"parameters": parameters, "activations": activations, "peaks": {}}
        for name in options.chosen(list(CONTENDERS)):
            arguments = {"units": units, "batch": batch, "rows": rows, "backend": options.backend}
            try:
                found = once("benchmarks.memory", name, arguments)
            except Absent as reason:
                if name == "array-mlp":
                    raise
                print(f"  {workload}: {name} is left out: {reason}", flush=True)
                continue
            bound = found["data"] + 6 * parameters + 3 * activations
            results[workload]["peaks"][name] = found | {"bound": bound}
            sizes = [found["peak"], found["data"], parameters, activations, bound]
            cells = [f"{size / 1e6:.1f}" for size in sizes]
            made.rows.append([f"{workload}, {name}", *cells, f"{found['peak'] / bound:.2f}"])
    print(made, flush=True)
    return results


def draw(result: dict[str, Any], figure: Any) -> None:
    """A group of bars a workload: the peak as a multiple of the bound."""
    workloads = result["results"]
    figure.set_size_inches(7.5, 3.4)
    axes = figure.add_subplot()
    names = list(dict.fromkeys(n for m in workloads.values() for n in m["peaks"]))
    width = 0.8 / len(names)
    for place, name in enumerate(names):
        at = [i + (place - (len(names) - 1) / 2) * width for i in range(len(workloads))]
        there = [m["peaks"].get(name) for m in workloads.values()]
        heights = [p["peak"] / p["bound"] if p else 0.0 for p in there]
        axes.bar(at, heights, width, label=name, color=style(name)["color"])
    axes.axhline(1.0, color="#222", linewidth=0.8, linestyle="--")
    axes.set_xticks(range(len(workloads)), workloads)
    axes.set_ylabel("peak / bound")
    axes.set_xlabel("bound: data + 6 parameters + 3 activations of a batch")
    figure.legend(
        *axes.get_legend_handles_labels(), loc="outside upper center", ncols=4, frameon=False
    )
