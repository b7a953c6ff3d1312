"""Memory and descriptors of a process that trains for long, or often:

    python -m tests.growth --epochs 3000 --repeats 20

A run of so many epochs, with a checkpoint every fifth of them; then so many whole runs one after
the other, each with its folder, its measuring and its picture. Past its first third neither may
take more memory, but for a MB and the history, a kB an epoch, nor more open files or threads. Exit
code 1 if one does.
"""

import argparse
import gc
import os
import sys
import tempfile
import threading
from pathlib import Path

from mlp.app.config import load
from mlp.app.runs import train_run
from tests.plants import settle, write_plants

MB = 1 << 20


def taken() -> tuple[int, int, int]:
    """Bytes in memory, open files and threads of this process; as Linux tells."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE"), len(os.listdir("/proc/self/fd")), threads()


def threads() -> int:
    """Those of this process but for the writer of a checkpoint, which comes and goes."""
    return sum(thread.name != "checkpoint" for thread in threading.enumerate())


class Watch:
    """A callback that looks every so many epochs, when no checkpoint is being written."""

    def __init__(self, every: int):
        self.every = every
        self.seen: list[tuple[int, int, int]] = []

    def on_epoch_end(self, run: object) -> None:
        if run.state.epoch % self.every == 0:  # type: ignore[attr-defined]
            settle(run)
            self.seen.append(taken())


def grown(seen: list[tuple[int, int, int]], what: str, kept: int) -> bool:
    """Whether the last two thirds of what was seen grow by more than what is kept."""
    later = seen[len(seen) // 3 :]
    (memory, files, threads), last = later[0], later[-1]
    print(
        f"{what}: memory {memory / MB:.1f} MB after a third, {last[0] / MB:.1f} MB at the end; "
        f"open files {files} and {last[1]}, threads {threads} and {last[2]}",
        flush=True,
    )
    return last[0] > memory + MB + kept or last[1] > files or last[2] > threads


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m tests.growth", description=__doc__)
    parser.add_argument("--epochs", type=int, default=3000)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--backend", default="numpy")
    given = parser.parse_args()
    os.environ["MLP_BACKEND"] = given.backend
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        write_plants(Path(folder), 'checkpoint = "5 epochs"\n')
        watch = Watch(max(1, given.epochs // 30))
        train_run(load("plants.toml", [f"training.epochs={given.epochs}"]), callbacks=[watch])
        found = grown(watch.seen, f"{given.epochs} epochs", 1000 * given.epochs)
        seen = []
        for _ in range(given.repeats):
            train_run(load("plants.toml", ["training.epochs=20"]))
            seen.append(taken())
        found = grown(seen, f"{given.repeats} runs", 0) or found
        os.chdir("/")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
