"""What tests of runs share: a small table with the settings for it, a command, and damages."""

import threading
from pathlib import Path

import numpy as np
from typer.testing import CliRunner

from mlp.app.cli import app

PLANTS = """
[data]
file = "plants.csv"
target = "kind"
test = 0.2
validation = 0.2
[[layers]]
units = 8
activation = "tanh"
dropout = 0.1
[[layers]]
activation = "softmax"
[training]
loss = "cross_entropy"
learning_rate = 0.02
"""


def write_plants(folder: Path, training: str) -> np.ndarray:
    """plants.csv, 120 rows of three kinds, and plants.toml, with these lines of [training] more;
    the inputs, (120, 2)."""
    X = np.random.default_rng(0).normal(size=(120, 2))
    kinds = np.array(["fern", "moss", "oak"])[(X[:, 0] > 0).astype(int) + (X[:, 1] > 0.5)]
    rows = [f"{a:.4f},{b:.4f},{kind}" for (a, b), kind in zip(X, kinds, strict=True)]
    (folder / "plants.csv").write_text("\n".join(["a,b,kind", *rows]) + "\n")
    (folder / "plants.toml").write_text(PLANTS + training)
    return X


def at_step(number, do):
    """A callback that does it to the run after a step."""

    def look(run):
        if run.state.step == number:
            do(run)

    return type("At", (), {"on_batch_end": staticmethod(look)})()


def settle(run: object) -> None:
    """A callback: until the checkpoint under way is written, for tiny runs are faster than the
    disk."""
    for thread in threading.enumerate():
        if thread.name == "checkpoint":
            thread.settle()  # type: ignore[attr-defined]


def run(*arguments: object, code: int = 0) -> str:
    """What a command prints on standard output, or for a code above 0 on standard error."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    return result.stderr if code else result.stdout


def damage(path: Path, number: int) -> None:
    """One damage of a file, of a kind and at a place drawn by the number."""
    draw = np.random.default_rng(number)
    data = bytearray(path.read_bytes())
    kind = draw.integers(4)
    if kind == 0:
        data[draw.integers(len(data))] ^= 1 << draw.integers(8)
    elif kind == 1:
        del data[draw.integers(len(data)) :]
    elif kind == 2:
        data += bytes([draw.integers(256)])
    else:
        path.unlink()
        return
    path.write_bytes(data)
