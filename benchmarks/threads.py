"""A step in the threads that pay, in one, in all; and its batch cut into shards, each in a thread.

The threads that pay are those of `mlp.threads.paying`, which `mlp.train` takes for whole batches
where nobody says a number. Shards, the largest power of two up to the cores, are what `parallel =
{shards = N}` and large nets train with, each multiplying in one thread. Each is timed twice: alone,
and beside one process that keeps a core busy. Alone is as quiet as the machine is, so other jobs
count in both.
"""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

from threadpoolctl import threadpool_limits

from benchmarks import nets
from benchmarks.report import Options, Table, ratios, spread, summary
from benchmarks.worker import Contender, alternate
from mlp.threads import paying, usable_cores

NETS: dict[str, tuple[list[int], int, dict[str, Any]]] = {  # from small to large products
    "26-64-64-1": ([26, 64, 64, 1], 128, {}),
    "64-100-10": ([64, 100, 10], 200, {}),
    "100-100-100-10": ([100, 100, 100, 10], 200, {}),
    "128-256-256-10": ([128, 256, 256, 10], 128, {}),
    "tabular": (*nets.WORKLOADS["tabular"], {}),
    "tanh": nets.KINDS["tanh"],
    "medium": (*nets.WORKLOADS["medium"], {}),
    "silu": nets.KINDS["silu"],
}
WORKLOADS = NETS | {
    f"{name}, float64": (units, batch, about | {"dtype": "float64"})
    for name, (units, batch, about) in NETS.items()
}
SHARDS = "shards in threads"


def ours(
    units: list[int],
    batch: int,
    backend: str,
    threads: int | None = None,
    shards: bool = False,
    **about: Any,
) -> Contender:
    """A step in so many threads; None: in those that pay. shards: one for each core, or fewer."""
    from mlp.app.backend_times import trained_step
    from mlp.parallel.crew import crew_of, one_by_one

    kind = nets.Kind(**about)
    model = nets.our_model(units, backend, kind=kind)
    sizes = model.network.matrices
    threads = threads or min(paying(batch * size for size in sizes), usable_cores())
    threadpool_limits(threads)  # as long as the process lives
    number = 1 << (usable_cores().bit_length() - 1) if shards else None  # a power of two
    crew = nets.HELD.enter_context(crew_of(model.backend, number)) if number else one_by_one
    X, t = nets.data(units, 4 * batch, kind.dtype)
    orders = nets.orders(4 * batch, batch)
    run, _ = trained_step(model, X, t, orders, shards=number, crew=crew)
    note = f"{number} shards, " * shards + f"{threads} thread{'s' * (threads != 1)}"
    return Contender(run, note=note)


PAYING = "those that pay"
CONTENDERS = {
    PAYING: ours,
    "one thread": partial(ours, threads=1),
    "all threads": partial(ours, threads=usable_cores()),
    SHARDS: partial(ours, threads=usable_cores(), shards=True),
}


@contextmanager
def busy() -> Iterator[None]:
    """Within, a process keeps a core busy."""
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        yield
    finally:
        process.kill()
        process.wait()


def run(options: Options) -> dict[str, Any]:
    """Measure and print."""
    if options.backend != "numpy":
        print("threads is left out: threads are a matter of NumPy")
        return {}
    results = {}
    timing = replace(options.timing, patience=0.0)
    known = {"small": (*nets.QUICK["small"], {})} if options.quick else WORKLOADS
    for name, (units, batch, about) in known.items():
        arguments = {"units": units, "batch": batch, "backend": options.backend, **about}
        print(f"\nthreads, {name}: {'-'.join(map(str, units))} at batch {batch}", flush=True)
        alone = alternate("benchmarks.threads", list(CONTENDERS), arguments, timing)
        with busy():
            beside = alternate("benchmarks.threads", list(CONTENDERS), arguments, timing)
        results[name] = {"units": units, "batch": batch, "alone": alone, "beside": beside}
        print(table(batch, alone, beside), flush=True)
    return results


def table(batch: int, alone: dict[str, list[float]], beside: dict[str, list[float]]) -> Table:
    """A row a contender: rows a second alone and beside, and the time over that in one thread."""
    both = [x for when in ("alone", "beside") for x in (f"{when}: rows/s", "/ one thread")]
    made = Table(["array-mlp", *both, "quartiles"])
    for name in alone:
        row: list[Any] = [name]
        for times in (alone, beside):
            to_one = summary(ratios(times[name], times["one thread"]))
            row += [f"{batch / summary(times[name])['median']:,.0f}", f"{to_one['median']:.2f}"]
        made.rows.append([*row, spread(to_one)])
    return made


def draw(result: dict[str, Any], figure: Any) -> None:
    """A panel a net: rows a second, alone and beside a busy process."""
    panels = figure.subplots(1, len(result["results"]), squeeze=False)
    for panel, (name, found) in zip(panels.flat, result["results"].items(), strict=True):
        for place, what in enumerate(("alone", "beside")):
            speeds = [found["batch"] / summary(x)["median"] for x in found[what].values()]
            places = [i + 0.4 * place for i in range(len(speeds))]
            panel.bar(places, speeds, width=0.35, label=what)
        panel.set_xticks(range(len(CONTENDERS)), list(CONTENDERS), fontsize=7)
        panel.set_title(name, fontsize=8)
        panel.set_ylabel("rows a second")
        panel.legend(frameon=False, fontsize=7)
