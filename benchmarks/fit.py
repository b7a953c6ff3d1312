"""MNIST by 784-512-512-10, batch 256, Adam: time to 98 % test accuracy, and epochs a second.

Each contender is trained from its library's own initial weights in a fresh process, once a seed;
within a seed they take turns. Time is that of training alone, from its start: imports, reading and
the measuring of accuracy after each epoch are not counted.
"""

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import nets, peers
from benchmarks.report import Options, Table, spread, style, summary
from benchmarks.worker import Absent, once

UNITS, BATCH, TARGET, EPOCHS = [784, 512, 512, 10], 256, 0.98, 20
QUICK_UNITS, QUICK_BATCH, QUICK_TARGET = [64, 16, 10], 64, 0.9
ETA = 1e-3

Sets = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def digits(mnist: str | None) -> Sets:
    """X, t to train on and to test: float32 from 0 to 1 and class numbers. Without a folder some
    points around ten centres."""
    if mnist is None:
        rng = np.random.default_rng(0)
        centres = rng.random((10, QUICK_UNITS[0]), dtype=np.float32)
        t = rng.integers(0, 10, 1200)
        X = centres[t] + rng.normal(0.0, 0.1, (1200, QUICK_UNITS[0])).astype(np.float32)
        return X[:1000], t[:1000], X[1000:], t[1000:]
    import mlp

    sets: list[np.ndarray] = []
    for name in ("train", "t10k"):
        found = [_idx(mnist, f"{name}-{kind}") for kind in ("images-idx3", "labels-idx1")]
        read = mlp.read(found[0], targets_file=found[1])
        X = (read.X / np.float32(255)).reshape(len(read.X), -1).astype(np.float32)
        sets += [X, read.t.astype(np.int64)]
    return tuple(sets)


def _idx(folder: str, start: str) -> Path:
    found = sorted(Path(folder).glob(f"{start}*"))
    if not found:
        raise FileNotFoundError(
            f"--mnist {folder}: no file {start}-ubyte or {start}-ubyte.gz there"
        )
    return found[0]


class Clock:
    """Seconds of training by epochs, stopped while the accuracy is measured."""

    def __init__(self, predict: Callable[[], np.ndarray], t: np.ndarray, target: float):
        self.predict, self.t, self.target = predict, t, target
        self.seconds: list[float] = []
        self.accuracy: list[float] = []
        self.start = time.perf_counter()

    def epoch(self) -> bool:
        """Note the end of an epoch; whether the target is reached."""
        self.seconds.append(time.perf_counter() - self.start)
        self.accuracy.append(float((self.predict() == self.t).mean()))
        self.start = time.perf_counter()
        return self.accuracy[-1] >= self.target

    def answer(self) -> dict[str, list[float]]:
        return {"seconds": self.seconds, "accuracy": self.accuracy}


def ours(
    units: list[int],
    batch: int,
    target: float,
    seed: int,
    mnist: str | None,
    backend: str,
    jit: bool = False,
    graphs: bool = False,
) -> dict[str, list[float]]:
    """`mlp.train`; graphs: with recorded steps."""
    import mlp
    from mlp.app.backend_times import can_record

    X, t, X_test, t_test = digits(mnist)
    layers = [*(mlp.Dense(m, "relu") for m in units[1:-1]), mlp.Dense(units[-1], "softmax")]
    chosen = nets.our_backend(backend, jit)
    if graphs and not can_record(chosen):
        raise Absent(f"backend '{chosen.name}' cannot record steps")
    model = mlp.Model(mlp.Network(units[0], layers), "cross_entropy", seed=seed, backend=chosen)
    trained = [model]
    clock = Clock(lambda: trained[0].classify(X_test), t_test, target)

    def epoch_ends(run: Any) -> None:
        trained[0] = run.model
        chosen.synchronize()
        if clock.epoch():
            run.stop("the accuracy is reached")

    options = {"batch_size": batch, "learning_rate": ETA, "epochs": EPOCHS, "seed": seed}
    mlp.train(model, X, t, callbacks=[epoch_ends], record_steps=graphs, **options)
    return clock.answer()


def sklearn(
    units: list[int], batch: int, target: float, seed: int, mnist: str | None, backend: str
) -> dict[str, list[float]]:
    """`MLPClassifier.partial_fit`, which is an epoch."""
    X, t, X_test, t_test = digits(mnist)
    estimator = peers.sklearn_estimator(units, batch, backend).set_params(random_state=seed)
    clock = Clock(lambda: estimator.predict(X_test), t_test, target)
    for _ in range(EPOCHS):
        estimator.partial_fit(X, t, classes=np.arange(units[-1]))
        if clock.epoch():
            break
    return clock.answer()


def torch(
    units: list[int],
    batch: int,
    target: float,
    seed: int,
    mnist: str | None,
    backend: str,
    how: str = "eager",
    loader: bool = False,
) -> dict[str, list[float]]:
    """PyTorch with fused Adam, its own initial weights; batches by hand or by its DataLoader. how:
    see `peers.torch_step`."""
    import torch
    from torch.utils.data import DataLoader, TensorDataset

    torch.manual_seed(seed)
    device = peers.torch_device(backend)
    X, t, X_test, t_test = (torch.from_numpy(x) for x in digits(mnist))
    net, cost = peers.torch_net(units, device)
    for layer in net:
        if hasattr(layer, "reset_parameters"):
            layer.reset_parameters()
    X_test = X_test.to(device)

    def predict() -> np.ndarray:
        with torch.inference_mode():
            return net(X_test).argmax(dim=1).cpu().numpy()

    if loader:
        optimizer = torch.optim.Adam(net.parameters(), lr=ETA, fused=True)
        batches = DataLoader(TensorDataset(X, t), batch_size=batch, shuffle=True)
    else:
        X, t = X.to(device), t.to(device)
        step = peers.torch_step(net, cost, X, t, ETA, how, batch)

    def epoch() -> None:
        if not loader:
            for rows in torch.randperm(len(X), device=device).split(batch):
                step(rows)
            return
        for x, y in batches:
            optimizer.zero_grad()
            cost(net(x.to(device)), y.to(device)).backward()
            optimizer.step()

    clock = Clock(predict, t_test.numpy(), target)
    for _ in range(EPOCHS):
        epoch()
        peers.torch_wait(device)()
        if clock.epoch():
            break
    return clock.answer()


def jax(
    units: list[int], batch: int, target: float, seed: int, mnist: str | None, backend: str
) -> dict[str, list[float]]:
    """JAX: a jitted step; it has no initial weights of its own, He's are drawn."""
    jax = peers.jax_on(backend)
    X, t, X_test, t_test = (jax.numpy.asarray(x) for x in digits(mnist))
    step, state = peers.jax_step(jax, nets.weights(units, seed), ETA)
    outputs = jax.jit(lambda w, x: peers.jax_outputs(jax, w, x).argmax(axis=1))
    rng = np.random.default_rng(seed)
    clock = Clock(lambda: np.asarray(outputs(state[0], X_test)), np.asarray(t_test), target)
    for _ in range(EPOCHS):
        order = jax.numpy.asarray(rng.permutation(len(X)))
        for start in range(0, len(X), batch):
            state = step(state, X, t, order[start : start + batch])
        jax.block_until_ready(state)
        if clock.epoch():
            break
    return clock.answer()


CONTENDERS = {
    "array-mlp[jit]": partial(ours, jit=True),
    "array-mlp": ours,
    "array-mlp recorded": partial(ours, graphs=True),
    "PyTorch CUDA graph": partial(torch, how="graph"),
    "PyTorch compiled": partial(torch, how="compiled"),
    "PyTorch": torch,
    "PyTorch DataLoader": partial(torch, loader=True),
    "JAX": jax,
    "scikit-learn": sklearn,
}


def run(options: Options) -> dict[str, Any]:
    """Train and print; empty without --mnist."""
    if options.quick:
        setting = {"units": QUICK_UNITS, "batch": QUICK_BATCH, "target": QUICK_TARGET}
    elif options.mnist is None:
        print("\nfit is left out: --mnist DIR names the folder of MNIST's four IDX files")
        return {}
    else:
        setting = {"units": UNITS, "batch": BATCH, "target": TARGET}
    folder = None if options.quick else str(Path(options.mnist).resolve())
    print(f"\nfit: {setting}", flush=True)
    runs: dict[str, list[Any]] = {name: [] for name in options.chosen(list(CONTENDERS))}
    tries = 1 if options.quick else 5
    for seed in range(options.repeats):
        for name in list(runs):
            arguments = setting | {"seed": seed, "mnist": folder, "backend": options.backend}
            try:
                runs[name].append(once("benchmarks.fit", name, arguments, tries))
            except Absent as reason:
                if name == "array-mlp":
                    raise
                print(f"  {name} is left out: {reason}", flush=True)
                del runs[name]
    print(table(runs, setting["target"]), flush=True)
    return setting | {"runs": runs}


def to_target(fit: dict[str, list[float]], target: float) -> float:
    """Seconds until the accuracy was there; infinite if it never was."""
    return sum(fit["seconds"]) if fit["accuracy"][-1] >= target else float("inf")


def table(runs: dict[str, list[Any]], target: float) -> Table:
    """A row a contender: time to the accuracy, epochs that took, epochs a second, ours to it."""
    best = next(n for n in ("array-mlp[jit]", "array-mlp") if n in runs)
    ours_to_target = summary([to_target(fit, target) for fit in runs[best]])["median"]
    headers = ["", f"s to {target:.0%}", "quartiles", "epochs, each seed", "epochs/s", "quartiles"]
    made = Table([*headers, f"{best} / it", "per epoch"])
    ours_speed = _speed(runs[best])["median"]
    for name, fits in runs.items():
        seconds, speed = summary([to_target(fit, target) for fit in fits]), _speed(fits)
        made.rows.append(
            [
                name,
                f"{seconds['median']:.2f}",
                spread(seconds),
                " ".join(str(len(fit["seconds"])) for fit in fits),
                f"{speed['median']:.3f}",
                spread(speed, 3),
                f"{ours_to_target / seconds['median']:.2f}",
                f"{speed['median'] / ours_speed:.2f}",
            ]
        )
    return made


def _speed(fits: list[Any]) -> dict[str, float]:
    """Epochs a second, over all epochs of all seeds."""
    return summary([1.0 / s for fit in fits for s in fit["seconds"]])


def draw(result: dict[str, Any], figure: Any) -> None:
    """Test accuracy against seconds of training, a line a seed."""
    measured = result["results"]
    figure.set_size_inches(7.5, 4.0)
    axes = figure.add_subplot()
    for name, fits in measured["runs"].items():
        for seed, fit in enumerate(fits):
            axes.plot(
                np.cumsum(fit["seconds"]),
                [100 * a for a in fit["accuracy"]],
                label=None if seed else name,
                linewidth=1,
                markersize=4,
                **style(name),
            )
    axes.axhline(100 * measured["target"], color="#555", linewidth=0.8, linestyle="--")
    axes.set_xlabel("seconds of training (one mark an epoch, one line a seed)")
    axes.set_ylabel("test accuracy, %")
    axes.set_xlim(left=0)
    axes.grid(alpha=0.25)
    figure.legend(
        *axes.get_legend_handles_labels(), loc="outside upper center", ncols=5, frameon=False
    )
