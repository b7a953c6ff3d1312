"""Time of one training step: ours, its peers' and its floor, the step's own matrix products.

A step is: gather a batch by row numbers, forward, backward, Adam. All contenders start from the
same weights and see the same batches. The floor is a_k W_kl, a_kᵀ δ_l and, but for the input,
δ_l W_klᵀ, by the same BLAS on arrays that exist already.
"""

import itertools
from functools import partial
from typing import Any

import numpy as np

from benchmarks import nets
from benchmarks.report import FLOOR, Options, Table, ratios, spread, style, summary
from benchmarks.worker import Contender, alternate

BATCHES = 4  # that the steps go round
ETA, B1, B2, EPSILON = 1e-3, 0.9, 0.999, 1e-8


def moved(units: list[int], W: np.ndarray) -> float:
    """How far the first layer's weights have gone, by which contenders are seen to agree."""
    return float(np.abs(W - nets.weights(units)[0][0]).sum())


def floor(units: list[int], batch: int, backend: str) -> Contender:
    """The products alone."""
    from backends import get_backend

    chosen = get_backend(backend)
    pairs = list(itertools.pairwise(units))
    a = [chosen.full((batch, m), 0.01, "float32") for m in units]
    W = [chosen.full((m, k), 0.01, "float32") for m, k in pairs]
    out = [chosen.full((batch, m), 0.0, "float32") for m in units]
    gW = [chosen.full((m, k), 0.0, "float32") for m, k in pairs]

    def run() -> None:
        for l in range(len(W)):
            chosen.matmul(a[l], W[l], out[l + 1])
        for l in reversed(range(len(W))):
            chosen.matmul(a[l].T, a[l + 1], gW[l])
            if l:
                chosen.matmul(a[l + 1], W[l].T, out[l])

    return Contender(run, chosen.synchronize)


def ours(units: list[int], batch: int, backend: str, jit: bool | None = None) -> Contender:
    """A built `mlp.step.Step`, as `mlp.train` runs it for every batch."""
    from mlp.feed import Feed
    from mlp.optimizers import Adam
    from mlp.step import Step

    n = BATCHES * batch
    X, t = nets.data(units, n)
    model = nets.our_model(units, backend, jit)
    chosen = model.backend
    chosen.scope().__enter__()  # for as long as the process lives
    feed = Feed(chosen, "float32", X, model.scaled_targets(t, n))
    vectors = [chosen.full(model.w.shape, 0.0, "float32") for _ in Adam.state]
    step = Step(model, feed, [batch], Adam(), vectors)
    losses = chosen.full((1, 2), 0.0, "float32")
    rows = itertools.cycle([chosen.asarray(r) for r in nets.orders(n, batch)])
    numbers = itertools.count(1)

    def run() -> None:
        step(batch, next(rows), ETA, next(numbers), 0, losses)

    def check() -> float:
        return moved(units, chosen.to_numpy(model.W[0, 1]))

    return Contender(run, chosen.synchronize, check=check)


def sklearn(units: list[int], batch: int, backend: str) -> Contender:
    """`partial_fit`: one pass over enough batches that what it does once does not count."""
    estimator = nets.sklearn_estimator(units, batch)
    steps = max(BATCHES, min(256, 2_000_000 // (batch * units[0])))
    X, t = nets.data(units, steps * batch)
    classes = {} if units[-1] == 1 else {"classes": np.arange(units[-1])}

    def run() -> None:
        estimator.partial_fit(X, t.ravel(), **classes)

    return Contender(run, steps=steps)


def torch(units: list[int], batch: int, backend: str, compiled: bool = False) -> Contender:
    """PyTorch with fused Adam, batches by hand from a tensor; ``compiled``: net and loss through
    torch.compile."""
    import torch

    device, n = nets.torch_device(backend), BATCHES * batch
    X, t = (torch.from_numpy(x).to(device) for x in nets.data(units, n))
    net, cost = nets.torch_net(units, device)
    optimizer = torch.optim.Adam(net.parameters(), lr=ETA, fused=True)
    rows = itertools.cycle([torch.from_numpy(r).to(device) for r in nets.orders(n, batch)])

    def objective(x: Any, t: Any) -> Any:
        return cost(net(x), t)

    if compiled:
        objective = torch.compile(objective)

    def run() -> None:
        r = next(rows)
        optimizer.zero_grad()
        objective(X[r], t[r]).backward()
        optimizer.step()

    def check() -> float:
        return moved(units, net[0].weight.detach().cpu().numpy().T)

    return Contender(run, nets.torch_wait(device), check=check)


def jax(units: list[int], batch: int, backend: str) -> Contender:
    """JAX: one jitted step, its state donated, Adam by hand."""
    import jax
    from jax import numpy as jnp

    n = BATCHES * batch
    X, t = (jnp.asarray(x) for x in nets.data(units, n))
    rows = itertools.cycle([jnp.asarray(r) for r in nets.orders(n, batch)])

    def objective(w: Any, x: Any, t: Any) -> Any:
        for W, b in w[:-1]:
            x = jax.nn.relu(x @ W + b)
        z = x @ w[-1][0] + w[-1][1]
        if units[-1] == 1:
            return ((z - t) ** 2).mean()
        shares = jax.nn.log_softmax(z)
        return -jnp.take_along_axis(shares, t[:, None], axis=1).mean()

    def update(state: Any, g: Any) -> Any:
        w, m, v, k = state
        k = k + 1
        m = jax.tree.map(lambda m, g: B1 * m + (1 - B1) * g, m, g)
        v = jax.tree.map(lambda v, g: B2 * v + (1 - B2) * g * g, v, g)

        def move(w: Any, m: Any, v: Any) -> Any:
            return w - ETA * (m / (1 - B1**k)) / (jnp.sqrt(v / (1 - B2**k)) + EPSILON)

        return jax.tree.map(move, w, m, v), m, v, k

    def step(state: Any, X: Any, t: Any, r: Any) -> Any:
        return update(state, jax.grad(objective)(state[0], X[r], t[r]))

    step = jax.jit(step, donate_argnums=0)
    w = jax.tree.map(jnp.array, nets.weights(units))
    state = (w, jax.tree.map(jnp.zeros_like, w), jax.tree.map(jnp.zeros_like, w), jnp.float32(0.0))

    def run() -> None:
        nonlocal state
        state = step(state, X, t, next(rows))

    def check() -> float:
        return moved(units, np.asarray(state[0][0][0]))

    return Contender(run, lambda: jax.block_until_ready(state), check=check)


CONTENDERS = {
    FLOOR: floor,
    "array-mlp[jit]": partial(ours, jit=True),
    "array-mlp": partial(ours, jit=False),
    "PyTorch compiled": partial(torch, compiled=True),
    "PyTorch": torch,
    "JAX": jax,
    "scikit-learn": sklearn,
}
NEEDED = (FLOOR, "array-mlp")


def run(options: Options) -> dict[str, Any]:
    """Measure and print the chosen workloads."""
    known = nets.QUICK if options.quick else nets.WORKLOADS
    results = {}
    for workload in options.workloads or known:
        units, batch = known[workload]
        shape = f"{'-'.join(map(str, units))} at batch {batch}"
        print(f"\nstep, {workload}: {shape}", flush=True)
        arguments = {"units": units, "batch": batch, "backend": options.backend}
        names = options.chosen(list(CONTENDERS), NEEDED)
        times = alternate("benchmarks.step", names, arguments, options.timing, NEEDED)
        results[workload] = {
            "units": units,
            "batch": batch,
            "seconds": times,
            "over_floor": {n: summary(ratios(times[n], times[FLOOR])) for n in times},
        }
        print(table(times), flush=True)
    return results


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
