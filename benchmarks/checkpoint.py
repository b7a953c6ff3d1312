"""What checkpoints add to a run: training with them and without, in pairs, in turn.

digits: 64-128-10 on the digits of `examples/`, batch 32, a checkpoint at every epoch. As in
`examples/digits.toml`, so without a pause: training that is done before the writer is waits for it.
The nets of `nets.WORKLOADS`: so many steps with one checkpoint in the middle, whose time is held
against the 60 seconds that are between two by default.
"""

import os
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import nets
from benchmarks.report import Options, Table, spread, summary

DIGITS = Path(__file__).parent.parent / "examples" / "data" / "digits.csv"
BETWEEN = 60.0  # seconds, of the default
EPOCHS = 60
NETS = {"medium": 200, "large": 8}  # steps of a run


def digits(backend: str, epochs: int) -> Any:
    """A function of an optional folder that trains on the digits; at every epoch a checkpoint."""
    import mlp

    data = mlp.read(DIGITS, target="digit")
    layers = [mlp.Dense(128, "relu", dropout=0.3), mlp.Dense(10, "softmax")]
    model = mlp.Model(mlp.Network(64, layers), "cross_entropy", seed=0, backend=backend)
    X, t = np.float32(data.X) / 16, data.t.astype(int)

    def train(folder: str | None) -> None:
        kept = None if folder is None else mlp.Checkpoints(folder, "1 epoch", at_end=False)
        mlp.train(model, X, t, epochs=epochs, batch_size=32, validation=0.1, checkpoint=kept)

    return train


def steps(units: list[int], batch: int, backend: str, many: int) -> Any:
    """The same of so many steps of a net, with one checkpoint in their middle."""
    import mlp

    X, t = nets.data(units, many * batch)
    model = nets.our_model(units, backend)

    def train(folder: str | None) -> None:
        kept = None
        if folder is not None:
            kept = mlp.Checkpoints(folder, f"{many // 2 + 1} steps", at_end=False)
        mlp.train(model, X, t, epochs=1, batch_size=batch, checkpoint=kept)

    return train


def pairs(train: Any, rounds: int) -> dict[str, list[float]]:
    """Seconds of each of so many runs without and with checkpoints, of the clock and of processors,
    and how many were written; which comes first alternates."""
    train(None)
    times: dict[str, list[float]] = {
        name: [] for name in ("without", "with", "without, CPU", "with, CPU", "written")
    }
    for number in range(rounds):
        for name in ("without", "with")[:: 1 if number % 2 else -1]:
            with tempfile.TemporaryDirectory() as folder:
                began, used = time.perf_counter(), time.process_time()
                train(folder if name == "with" else None)
                times[name].append(time.perf_counter() - began)
                times[f"{name}, CPU"].append(time.process_time() - used)
                if name == "with":
                    times["written"].append(max(map(number_of, os.listdir(folder))))
    return times


def number_of(name: str) -> int:
    """Of a checkpoint, the first is 1; 0 for the lock beside them."""
    return int(name.partition("-")[0]) if name[0].isdigit() else 0


def run(options: Options) -> dict[str, Any]:
    """Measure and print."""
    print("\ncheckpoint: array-mlp with checkpoints and without", flush=True)
    rounds = options.timing.rounds
    found = {"digits": pairs(digits(options.backend, 3 if options.quick else EPOCHS), rounds)}
    workloads = {n: (*nets.WORKLOADS[n], many) for n, many in NETS.items()}
    if options.quick:
        workloads = {name: (*about, 4) for name, about in nets.QUICK.items()}
    for name, (units, batch, many) in workloads.items():
        if not options.workloads or name in options.workloads:
            found[name] = pairs(steps(units, batch, options.backend, many), rounds)
    made = Table(
        [
            *("array-mlp", "s without", "quartiles", "added", "quartiles", "share", "quartiles"),
            "written",
        ]
    )
    for name, times in found.items():
        for kind in ("", ", CPU"):
            without, shares = summary(times[f"without{kind}"]), summary(share(name, times, kind))
            more = summary(added(times, kind))
            made.rows.append(
                [
                    f"{name}, every {'epoch' if name == 'digits' else '60 s'}{kind}",
                    f"{without['median']:.3f}",
                    spread(without, 3),
                    f"{more['median']:+.3f}",
                    spread(more, 3),
                    f"{shares['median']:.1%}",
                    f"{shares['q1']:.1%} to {shares['q3']:.1%}",
                    f"{summary(times['written'])['median']:.0f}",
                ]
            )
    print(made)
    return found


def added(times: dict[str, list[float]], kind: str = "") -> list[float]:
    """Seconds that checkpoints take, pair by pair."""
    return [b - a for a, b in zip(times[f"without{kind}"], times[f"with{kind}"], strict=True)]


def share(name: str, times: dict[str, list[float]], kind: str = "") -> list[float]:
    """What they add to a run, pair by pair: of the digits as it was, else one in 60 s."""
    more = added(times, kind)
    base = times[f"without{kind}"] if name == "digits" else [BETWEEN] * len(more)
    return [extra / seconds for extra, seconds in zip(more, base, strict=True)]


def draw(result: dict[str, Any], figure: Any) -> None:
    """Bars: what checkpoints add, in percent."""
    measured = result["results"]
    figure.set_size_inches(6, 1.2 + 0.3 * len(measured))
    axes = figure.subplots()
    for row, (name, times) in enumerate(measured.items()):
        shares = summary([100 * part for part in share(name, times)])
        axes.barh(row, shares["median"], color="#c1272d")
        axes.plot([shares["q1"], shares["q3"]], [row, row], color="#222", linewidth=1)
    axes.set_yticks(range(len(measured)), list(measured))
    axes.set_xlabel("what checkpoints add, % of a run")
