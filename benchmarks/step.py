"""Time of one training step: ours, its peers' and its floor, the step's own matrix products.

A step is: gather a batch by row numbers, forward, backward, Adam. All contenders start from the
same weights and see the same batches. The floor is a_k W_kl, a_kᵀ δ_l and, but for the input,
δ_l W_klᵀ, by the same BLAS on arrays that exist already; on a GPU recorded as one graph.

Nets with relu in float32 (`nets.WORKLOADS`) come first, then other activations, dtypes and layers
(`nets.KINDS`). What a step takes beside its products is the work of one core on NumPy; its share
of a step on the cores of this machine is given, where the batch is not cut into shards, and what
follows for 8 and 16 by Amdahl's law, as if products gained all that cores can give: a model, with
s the share on c cores, on k of them

    (s + (1 - s) c / k)                                                                   (1)

With --against DIR this library runs from that checkout too, in the same rounds: before and after
a change, side by side.
"""

import itertools
from functools import partial
from typing import Any

import numpy as np

from benchmarks import nets, peers
from benchmarks.report import FLOOR, Options, Table, ratios, spread, style, summary
from benchmarks.worker import Contender, alternate
from mlp.threads import shards_paying, usable_cores

BATCHES = 4  # that the steps go round
ETA = 1e-3


def moved(units: list[int], W: np.ndarray) -> float:
    """How far the first layer's weights have gone, by which contenders are seen to agree."""
    return float(np.abs(W - nets.weights(units)[0][0]).sum())


def floor(units: list[int], batch: int, backend: str, **about: Any) -> Contender:
    """The products alone."""
    from mlp.app.backend_times import step_products

    chosen, kind = nets.our_backend(backend), nets.Kind(**about)
    return nets.products_alone(chosen, step_products(chosen, units, batch, kind.dtype))


def ours(
    units: list[int],
    batch: int,
    backend: str,
    jit: bool | None = None,
    graphs: bool = False,
    in_threads: bool = False,
    **about: Any,
) -> Contender:
    """A built training step, as `mlp.train` runs it for every batch; graphs: recorded; in_threads:
    in those that it takes by itself, for as long as the process lives."""
    from backends import BackendError
    from backends.instruments import instruments
    from mlp.app.backend_times import trained_step

    n, kind = BATCHES * batch, nets.Kind(**about)
    X, t = nets.data(units, n, kind.dtype)
    model = nets.our_model(units, backend, jit, kind)
    given = model.samples(X, t, nets.sample_weights(n, kind.dtype) if kind.weights else None)
    try:
        orders = nets.orders(n, batch)
        how = nets.shards_of_run(model, batch) if in_threads else {}
        run, trained = trained_step(model, given, None, orders, ETA, record_steps=graphs, **how)
    except BackendError as error:
        raise peers.Absent(str(error)) from error

    def check() -> float:
        return moved(units, model.backend.to_numpy(trained.W[0, 1]))

    wait, clock = model.backend.synchronize, instruments(model.backend).seconds
    return Contender(run, wait, check=check if kind.plain else None, clock=clock)


def sklearn(units: list[int], batch: int, backend: str, **about: Any) -> Contender:
    """`partial_fit`: one pass over enough batches that what it does once does not count."""
    kind = nets.Kind(**about)
    estimator = peers.sklearn_estimator(units, batch, backend, kind)
    steps = max(BATCHES, min(256, 2_000_000 // (batch * units[0])))
    X, t = nets.data(units, steps * batch, kind.dtype)
    classes = {} if units[-1] == 1 else {"classes": np.arange(units[-1])}

    def run() -> None:
        estimator.partial_fit(X, t.ravel(), **classes)

    return Contender(run, steps=steps)


def torch(
    units: list[int], batch: int, backend: str, how: str = "eager", **about: Any
) -> Contender:
    """PyTorch with fused Adam, batches by hand from a tensor; how: see `peers.torch_step`."""
    import torch

    device, n, kind = peers.torch_device(backend), BATCHES * batch, nets.Kind(**about)
    X, t = (torch.from_numpy(x).to(device) for x in nets.data(units, n, kind.dtype))
    net, cost = peers.torch_net(units, device, kind)
    rows = itertools.cycle([torch.from_numpy(r).to(device) for r in nets.orders(n, batch)])
    step = peers.torch_step(net, cost, X, t, ETA, how, batch)

    def check() -> float:
        return moved(units, net[0].weight.detach().cpu().numpy().T)

    wait, clock = peers.torch_wait(device), peers.torch_clock(device)
    agreed = check if kind.plain else None
    return Contender(lambda: step(next(rows)), wait, check=agreed, clock=clock)


def jax(units: list[int], batch: int, backend: str, **about: Any) -> Contender:
    """JAX: one jitted step, its state donated, Adam by hand."""
    kind = nets.Kind(**about)
    jax, n = peers.jax_on(backend, kind), BATCHES * batch
    X, t = (jax.numpy.asarray(x) for x in nets.data(units, n, kind.dtype))
    rows = itertools.cycle([jax.numpy.asarray(r) for r in nets.orders(n, batch)])
    layers = [(W.astype(kind.dtype), b.astype(kind.dtype)) for W, b in nets.weights(units)]
    step, state = peers.jax_step(jax, layers, ETA, kind.activation)

    def run() -> None:
        nonlocal state
        state = step(state, X, t, next(rows))

    def check() -> float:
        return moved(units, np.asarray(state[0][0][0]))

    return Contender(run, lambda: jax.block_until_ready(state), check=check)


CONTENDERS = {
    FLOOR: floor,
    "array-mlp[jit]": partial(ours, jit=True, in_threads=True),
    "array-mlp": partial(ours, jit=False, in_threads=True),
    "array-mlp recorded": partial(ours, graphs=True),
    "PyTorch CUDA graph": partial(torch, how="graph"),
    "PyTorch compiled": partial(torch, how="compiled"),
    "PyTorch": torch,
    "JAX": jax,
    "scikit-learn": sklearn,
}
NEEDED = (FLOOR, "array-mlp")
BEFORE = "{} before"  # the same contender, run by the other checkout's code


def run(options: Options) -> dict[str, Any]:
    """Measure and print the chosen workloads."""
    usual = nets.QUICK if options.quick else nets.WORKLOADS
    known = {name: (*about, {}) for name, about in usual.items()} | nets.KINDS
    results = {}
    for workload in options.workloads or (usual if options.quick else known):
        units, batch, about = known[workload]
        shape = f"{'-'.join(map(str, units))} at batch {batch}"
        print(f"\nstep, {workload}: {shape}", flush=True)
        arguments = {"units": units, "batch": batch, "backend": options.backend, **about}
        names = options.chosen(list(CONTENDERS), NEEDED)
        both = [n for n in names if options.against and n.startswith("array-mlp")]
        before = {BEFORE.format(name): (name, options.against) for name in both}
        for name in both:
            names.insert(names.index(name) + 1, BEFORE.format(name))
        times = alternate("benchmarks.step", names, arguments, options.timing, NEEDED, before)
        results[workload] = {
            "units": units,
            "batch": batch,
            "seconds": times,
            "over_floor": {n: summary(ratios(times[n], times[FLOOR])) for n in times},
            "serial": {n: serial(times, n) for n in times if n.startswith("array-mlp")},
        }
        print(table(times), flush=True)
        shards = shards_paying(batch, [batch * m * k for m, k in itertools.pairwise(units)])
        if options.backend == "numpy" and shards > 1:
            print(f"{shards} shards: all cores work beside the products too", flush=True)
        elif options.backend == "numpy":
            print(modelled(results[workload]["serial"]), flush=True)
        if before:
            results[workload]["after_over_before"] = compared(times)
            print(f"\n{comparison(times)}", flush=True)
    return results


def serial(times: dict[str, list[float]], name: str) -> float:
    """The share of a step that is not its products."""
    return max(0.0, 1.0 - 1.0 / summary(ratios(times[name], times[FLOOR]))["median"])


def modelled(shares: dict[str, float]) -> str:
    """Eq. (1) for the serial shares of contenders, in a line."""
    cores = usable_cores()
    parts = []
    for name, s in shares.items():
        on = ", ".join(f"{k}: {s + (1 - s) * cores / k:.2f}" for k in (8, 16) if k > cores)
        parts.append(f"{name} {s:.0%} in one core; MODEL, of this time on cores {on}")
    return "beside the products: " + "\n  ".join(parts)


def compared(times: dict[str, list[float]]) -> dict[str, dict[str, float]]:
    """after / before, round by round, of each contender that both checkouts ran."""
    pairs = [(name, BEFORE.format(name)) for name in times if BEFORE.format(name) in times]
    return {name: summary(ratios(times[name], times[before])) for name, before in pairs}


def comparison(times: dict[str, list[float]]) -> Table:
    """A row a contender: after / before, beside what before's own times spread."""
    made = Table(["", "after / before", "quartiles", "before's own"])
    for name, ratio in compared(times).items():
        before = times[BEFORE.format(name)]
        own = summary(ratios(before, [summary(before)["median"]] * len(before)))
        made.rows.append([name, f"{ratio['median']:.3f}", spread(ratio, 3), spread(own, 3)])
    return made


def table(times: dict[str, list[float]]) -> Table:
    """A row a contender: time, ratio to the floor, and ours to it."""
    best = next(n for n in ("array-mlp[jit]", "array-mlp") if n in times)
    made = Table(["", "us", "quartiles", "/ floor", "quartiles", f"/ {best}"])
    for name, seconds in times.items():
        time, ratio = summary([s * 1e6 for s in seconds]), summary(ratios(seconds, times[FLOOR]))
        to_ours = summary(ratios(seconds, times[best]))["median"]
        made.rows.append(
            [
                name,
                f"{time['median']:.0f}",
                spread(time, 0),
                f"{ratio['median']:.2f}",
                spread(ratio),
                f"{to_ours:.2f}",
            ]
        )
    return made


def draw(result: dict[str, Any], figure: Any) -> None:
    """A row a workload, a mark a contender, at its multiple of the floor."""
    workloads = result["results"]
    figure.set_size_inches(8, 1.4 + 0.6 * len(workloads))
    axes = figure.add_subplot()
    axes.axvline(1.0, color="#555", linewidth=1)
    axes.annotate("products alone", (1.0, -0.5), xytext=(3, 0), textcoords="offset points", size=7)
    seen = set()
    for row, measured in enumerate(workloads.values()):
        axes.axhline(row, color="#eee", zorder=0)
        names = [name for name in measured["over_floor"] if name != FLOOR]
        for place, name in enumerate(names):
            stats, look = measured["over_floor"][name], style(name)
            y = row + 0.1 * (place - (len(names) - 1) / 2)  # so that equals do not hide each other
            axes.plot([stats["q1"], stats["q3"]], [y, y], color=look["color"], linewidth=2)
            label = None if name in seen else name
            axes.plot(stats["median"], y, label=label, linestyle="", markersize=6, **look)
            seen.add(name)
    axes.set_xscale("log")
    ticks = [1, 1.5, 2, 3, 5, 10, 20, 50]
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
    axes.set_yticks(
        range(len(workloads)),
        [f"{n}\n{_shape(m['units'])}, {m['batch']}" for n, m in workloads.items()],
        fontsize=8,
    )
    axes.set_ylim(len(workloads) - 0.4, -0.6)
    axes.set_xlabel("time of a training step / time of its matrix products (bars: quartiles)")
    figure.legend(
        *axes.get_legend_handles_labels(), loc="outside upper center", ncols=6, frameon=False
    )


def _shape(units: list[int]) -> str:
    """Units as text, a run of equal layers as 64x17."""
    groups = [(m, len(list(group))) for m, group in itertools.groupby(units)]
    return "-".join(str(m) if k == 1 else f"{m}x{k}" for m, k in groups)
