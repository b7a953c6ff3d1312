"""Ends runs of `mlp train` without a word, and looks whether each goes on to the end that an unbroken
one has: weights, state, history and metrics, bit for bit.

    python -m tests.kill --runs 200          kill -9 at random instants, up to three times a run
    python -m tests.kill --operations        kill -9 before and after every operation on a file
    python -m tests.kill --power             power cuts: what was not flushed is lost

Each run is a child of this process, so that a kill costs milliseconds. Exit code 1 if one is lost.
"""

import argparse
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

import mlp
from mlp.app.config import load
from mlp.app.run_folder import is_run
from mlp.app.runs import load_run, train_run
from mlp.app.standing import Over
from mlp.sealed import damages
from mlp.training.checkpoints import STATE_FILE

SETTINGS = """
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
epochs = 8
patience = 20
learning_rate = 0.02
checkpoint = "1 step"
"""
OPERATIONS = ("open", "fsync", "replace", "rename", "mkdir", "unlink", "rmdir")


def prepare(folder: Path) -> None:
    """A table and the settings for it."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(120, 2))
    kinds = np.array(["fern", "moss", "oak"])[(X[:, 0] > 0).astype(int) + (X[:, 1] > 0.5)]
    rows = [f"{a:.4f},{b:.4f},{kind}" for (a, b), kind in zip(X, kinds, strict=True)]
    (folder / "plants.csv").write_text("\n".join(["a,b,kind", *rows]) + "\n")
    (folder / "plants.toml").write_text(SETTINGS)


def settle(run: object) -> None:
    """Until the checkpoint under way is written: a tiny run is faster than the disk."""
    for thread in threading.enumerate():
        if thread.name == "checkpoint":
            thread.join()


class Settled:
    """A callback that waits for each checkpoint."""

    on_batch_end = staticmethod(settle)


def begin_or_go_on(place: Path) -> None:
    """As `mlp train plants.toml --resume auto --out PLACE`, without a picture."""
    config = load("plants.toml")
    try:
        if is_run(place):
            train_run(config, resume=place, callbacks=[Settled])
        else:
            train_run(config, out=place, callbacks=[Settled])
    except Over:
        pass


def content(folder: Path) -> tuple[object, ...]:
    """All that the end of a run is, but for times and where it was gone on from."""
    model, state = load_run(folder)[0], mlp.load_state(folder / STATE_FILE)
    metrics = json.loads((folder / "metrics.json").read_text())
    for name in ("seconds", "samples_per_second", "epochs_before"):
        del metrics[name]
    lines = [line.split(",") for line in (folder / "history.csv").read_text().splitlines()]
    seconds = lines[0].index("seconds")
    history = [line[:seconds] + line[seconds + 1 :] for line in lines]
    vectors = [x.tobytes() for x in (state.w, state.best_w, *state.vectors.values())]
    return model.w.tobytes(), vectors, metrics, history


def child(do: Callable[[], None]) -> int:
    """The process that does it, and then ends with code 0; with 1 if there is an error."""
    pid = os.fork()
    if pid:
        return pid
    try:
        do()
    except BaseException:
        import traceback

        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def outcome(pid: int) -> int:
    """What the process ended with; below 0: the signal."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def compared(place: Path, whole: tuple[object, ...], what: str) -> bool:
    """Go on to the end; whether it is that of the unbroken run."""
    if outcome(child(lambda: begin_or_go_on(place))) != 0:
        print(f"{what}: does not go on", flush=True)
        return False
    if damages(place) or content(place) != whole:
        print(f"{what}: another end", flush=True)
        return False
    return True


# --- at random instants ------------------------------------------------------------------------


def at_random(runs: int, whole: tuple[object, ...], seconds: float, seed: int) -> int:
    """How many of so many runs are lost; each is killed up to three times."""
    draw, lost = random.Random(seed), 0
    for number in range(runs):
        place, kills = Path(f"random-{number}"), 0
        for _ in range(draw.randint(1, 3)):
            pid = child(lambda place=place: begin_or_go_on(place))
            time.sleep(draw.uniform(0.0, seconds))
            os.kill(pid, signal.SIGKILL)
            kills += outcome(pid) < 0
        lost += not compared(place, whole, f"run {number}, {kills} kills, seed {seed}")
        shutil.rmtree(place)
    return lost


# --- at every operation --------------------------------------------------------------------------


@contextmanager
def killed_at(number: int, after: bool) -> Iterator[list[int]]:
    """Operations on files are counted; the process ends at this one."""
    counted, originals = [0], {name: getattr(os, name) for name in OPERATIONS}

    def wrapped(original: Callable[..., object]) -> Callable[..., object]:
        def call(*arguments: object, **options: object) -> object:
            counted[0] += 1
            here = counted[0] == number
            if here and not after:
                os.kill(os.getpid(), signal.SIGKILL)
            result = original(*arguments, **options)
            if here:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        return call

    try:
        for name, original in originals.items():
            setattr(os, name, wrapped(original))
        yield counted
    finally:
        for name, original in originals.items():
            setattr(os, name, original)


def operations() -> int:
    """How many operations on files an unbroken run makes."""

    def count() -> None:
        with killed_at(0, False) as counted:
            begin_or_go_on(Path("counted"))
        Path("count").write_text(str(counted[0]))

    assert outcome(child(count)) == 0
    return int(Path("count").read_text())


def at_operations(every: int, whole: tuple[object, ...]) -> tuple[int, int]:
    """How many of how many runs are lost, each killed at one operation, every so many of them."""
    numbers = range(1, operations() + 1, every)
    lost = 0
    for number in numbers:
        for after in (False, True):
            place = Path(f"operation-{number}-{after}")

            def die(place: Path = place, number: int = number, after: bool = after) -> None:
                with killed_at(number, after):
                    begin_or_go_on(place)

            outcome(child(die))
            lost += not compared(place, whole, f"operation {number}, {'after' if after else 'before'}")
            shutil.rmtree(place, ignore_errors=True)
    return lost, 2 * len(numbers)


# --- power cuts ----------------------------------------------------------------------------------


class Disk:
    """What operations on files below a folder leave after a power cut.

    Two trees are kept: what the programs see is the real one; this is what is on the disk for sure:
    the content of a file since its last fsync, the names in a folder since that folder's last one.
    A cut draws for each folder how many of the changes since then have come through, in their
    order, and for each file that was not flushed, how much of its content.
    """

    def __init__(self, root: Path, draw: random.Random):
        self.root, self.draw = root, draw
        self.flushed: dict[int, bytes] = {}  # by inode
        self.names: dict[Path, dict[str, int]] = {}  # of each folder: what is flushed
        self.changes: dict[Path, list[dict[str, int]]] = {}  # and what it looked like since
        self.kinds: dict[int, bool] = {}  # whether it is a folder

    def saw(self, folder: Path) -> None:
        """A folder has other names than before."""
        if folder != self.root and self.root not in folder.parents or not folder.is_dir():
            return
        seen = {entry.name: entry.inode() for entry in os.scandir(folder)}
        for entry in os.scandir(folder):
            self.kinds[entry.inode()] = entry.is_dir(follow_symlinks=False)
        self.changes.setdefault(folder, []).append(seen)

    def fsync(self, path: Path) -> None:
        """A file or a folder is on the disk."""
        if path.is_dir():
            self.saw(path)
            self.names[self.inode(path)] = self.changes.pop(path)[-1] if path in self.changes else {}
        elif path.is_file():
            self.flushed[path.stat().st_ino] = path.read_bytes()

    def inode(self, path: Path) -> int:
        return path.stat().st_ino
