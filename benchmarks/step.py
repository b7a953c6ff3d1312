"""Time of one training step against its floor: the step's own matrix products, nothing else.

    python -m benchmarks.step [--backend numpy] [WORKLOAD ...]

Step and products alternate within one run, after a warm-up; medians and the spread are printed.
A net n_0-...-n_L at batch n has the products a_k W_kl, a_kᵀ δ_l and, but for the input, δ_l W_klᵀ.
"""

import argparse
import itertools
import statistics
import time
from collections.abc import Callable

import numpy as np

import mlp
from backends import Backend, get_backend
from mlp.feed import Feed
from mlp.optimizers import Adam
from mlp.step import Step

# units of each layer, batch
WORKLOADS = {
    "small": ([64, 32, 10], 32),
    "deep": ([64, *[64] * 16, 10], 128),
    "tabular": ([28, 300, 300, 300, 1], 1024),
    "medium": ([784, 512, 512, 10], 256),
    "large": ([1024, 2048, 2048, 2048, 10], 1024),
    "wide": ([4096, 4096, 10], 64),
}


def products(backend: Backend, units: list[int], batch: int) -> Callable[[], None]:
    """The step's matrix products on arrays of their own."""
    a = [backend.full((batch, m), 0.01, "float32") for m in units]
    W = [backend.full((m, k), 0.01, "float32") for m, k in itertools.pairwise(units)]
    out = [backend.full((batch, m), 0.0, "float32") for m in units]
    gW = [backend.full((m, k), 0.0, "float32") for m, k in itertools.pairwise(units)]

    def run() -> None:
        for l in range(len(W)):
            backend.matmul(a[l], W[l], out[l + 1])
        for l in reversed(range(len(W))):
            backend.matmul(a[l].T, a[l + 1], gW[l])
            if l:
                backend.matmul(a[l + 1], W[l].T, out[l])

    return run


def step(backend: Backend, units: list[int], batch: int) -> Callable[[], None]:
    """A whole training step: gather, forward, backward, Adam."""
    rng = np.random.default_rng(0)
    n, outputs = 4 * batch, units[-1]
    X = rng.standard_normal((n, units[0]), dtype=np.float32)
    hidden = [mlp.Dense(m, "relu") for m in units[1:-1]]
    if outputs == 1:
        network = mlp.Network(units[0], [*hidden, mlp.Dense(1)])
        model = mlp.Model(network, "mean_squared_error", backend=backend)
        t = rng.standard_normal((n, 1))
    else:
        network = mlp.Network(units[0], [*hidden, mlp.Dense(outputs, "softmax")])
        model = mlp.Model(network, "cross_entropy", backend=backend)
        t = rng.integers(0, outputs, n)
    feed = Feed(backend, "float32", X, model.scaled_targets(t, n))
    vectors = [backend.full((network.parameters,), 0.0, "float32") for _ in Adam.state]
    built = Step(model, feed, [batch], Adam(), vectors)
    rows = backend.asarray(rng.permutation(n)[:batch])
    losses = backend.full((1, 2), 0.0, "float32")
    number = 0

    def run() -> None:
        nonlocal number
        number += 1
        built(batch, rows, 1e-3, number, 0, losses)

    return run


def compare(
    backend: Backend, units: list[int], batch: int, rounds: int, seconds: float
) -> list[tuple[float, float]]:
    """(step, floor) in seconds, once a round."""
    contenders = [step(backend, units, batch), products(backend, units, batch)]

    def timed(run: Callable[[], None], times: int) -> float:
        start = time.perf_counter()
        for _ in range(times):
            run()
        backend.synchronize()
        return (time.perf_counter() - start) / times

    with backend.scope():
        once = max(timed(run, 3) for run in contenders)  # and the warm-up
        times = max(1, round(seconds / once))
        rows = [tuple(timed(run, times) for run in contenders) for _ in range(rounds)]
    return rows  # type: ignore[return-value]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("workloads", nargs="*", metavar="WORKLOAD", help=", ".join(WORKLOADS))
    parser.add_argument("--backend", default="numpy")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--seconds", type=float, default=0.2, help="of each round")
    options = parser.parse_args()
    if unknown := set(options.workloads) - set(WORKLOADS):
        parser.error(f"unknown workload {unknown.pop()!r}; known: {', '.join(WORKLOADS)}")
    backend = get_backend(options.backend)
    print(f"{backend.version()} on {backend.device_name()}, float32, Adam")
    print(f"{'workload':<9}{'step us':>10}{'floor us':>10}{'ratio':>7}   lowest-highest ratio")
    for name in options.workloads or WORKLOADS:
        rows = compare(backend, *WORKLOADS[name], options.rounds, options.seconds)
        ratios = sorted(s / f for s, f in rows)
        medians = [statistics.median(column) * 1e6 for column in zip(*rows, strict=True)]
        print(
            f"{name:<9}{medians[0]:>10.0f}{medians[1]:>10.0f}{statistics.median(ratios):>7.2f}"
            f"   {ratios[0]:.2f}-{ratios[-1]:.2f}"
        )


if __name__ == "__main__":
    main()
