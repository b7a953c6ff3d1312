"""Progress of a run as a callback of `mlp.training`: a bar on a terminal, else plain lines; before
them what the run takes of the device's memory, and its threads.

Losses and metrics are shown when an epoch has ended and they are on the host anyway; within an
epoch only batches are counted.
"""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO

from mlp.formulas.metrics import METRICS
from mlp.training.run import Run

LINES = 20  # of plain text for a whole run, about


@contextmanager
def progress(quiet: bool = False, stream: TextIO | None = None) -> Iterator[list[Any]]:
    """The callbacks that show progress on the stream, standard output if none is given."""
    lossy: Any = Unfailing(stream or sys.stdout)
    if quiet or lossy.stream is None:  # a program without a terminal may have no output at all
        yield []
    elif lossy.isatty():
        with bar(lossy) as shown:
            yield [shown]
    else:
        yield [Lines(lossy)]


def takes(run: Run) -> str:
    """What a run takes of the machine, in one line."""
    return f"{run.plan.line()}, {run.threads} thread{'s' * (run.threads != 1)}"


def describe(run: Run, short: bool = False) -> str:
    """Losses, the watched or first metric of validation, and samples per second of the epoch that
    has ended."""
    last, digits = run.last, 3 if short else 4
    speed = run.samples / max(last["seconds"], 1e-9)
    text = f"loss {last['loss']:.{digits}g}"
    if "validation_loss" in last:
        text += f"  validation {last['validation_loss']:.{digits}g}"
        scores = [m.name for m in METRICS.values() if m.greater_is_better]
        scores = [*(m.name for m in run.settings.watched), *scores]
        first = next((name for name in scores if f"validation_{name}" in last), None)
        if first is not None:
            text += f" ({first} {last[f'validation_{first}']:.{digits}f})"
    return f"{text}  {speed / 1e3:,.0f}k/s" if short else f"{text}  {speed:,.0f} samples/s"


LOST = OSError, ValueError  # of a stream that takes nothing, and of one that is closed


class Unfailing:
    """A stream whose loss is no error: a closed pipe, a full disk or a lost terminal must not end
    the run."""

    def __init__(self, stream: TextIO):
        self.stream = stream

    def isatty(self) -> bool:
        with suppress(*LOST):
            return self.stream.isatty()
        return False

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    def write(self, text: str) -> int:
        with suppress(*LOST):
            self.stream.write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(*LOST):
            self.stream.flush()


class Lines:
    """A line an epoch; in a long run for every so many epochs, and for the last one."""

    def __init__(self, stream: Any):
        self.stream = stream
        self.shown = 0
        self.epochs = 0

    def on_run_start(self, run: Run) -> None:
        self.shown, self.epochs = run.state.epoch, run.settings.epochs
        self.every = max(1, -(-(self.epochs - self.shown) // LINES))
        self._print(takes(run))

    def on_epoch_end(self, run: Run) -> None:
        if run.state.epoch >= min(self.shown + self.every, self.epochs):
            self._write(run)

    def on_run_end(self, run: Run) -> None:
        if run.last and run.last["epoch"] > self.shown:
            self._write(run)

    def _write(self, run: Run) -> None:
        self.shown = int(run.last["epoch"])
        width = len(str(self.epochs))
        head = f"epoch {self.shown:{width}}/{self.epochs}"
        self._print(f"{head}  {describe(run)}")

    def _print(self, line: str) -> None:
        print(line, file=self.stream, flush=True)


@contextmanager
def bar(stream: Any) -> Iterator["Bar"]:
    """A bar over all batches of the run, taken down properly however the run ends."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(file=stream)
    wide = console.width >= 110
    columns = (
        TextColumn("epoch {task.fields[epoch]}" if wide else "{task.fields[epoch]}"),
        BarColumn(bar_width=20 if wide else 6),
        TimeRemainingColumn(compact=True),
        TextColumn("left  {task.fields[numbers]}" if wide else "{task.fields[numbers]}"),
    )
    with Progress(*columns, console=console, auto_refresh=False) as shown:
        yield Bar(shown, short=not wide)


class Bar:
    """Epoch, bar, numbers of the last whole epoch, time left; redrawn ten times a second."""

    PAUSE = 0.1
    only_looks = True

    def __init__(self, shown: Any, short: bool = False):
        self.shown, self.short = shown, short
        self.drawn = 0.0

    def on_run_start(self, run: Run) -> None:
        self.shown.console.print(takes(run), markup=False, highlight=False)
        self.epochs = run.settings.epochs
        self.done = run.state.epoch * run.batches + run.state.batch
        self.task = self.shown.add_task(
            "",
            total=self.epochs * run.batches,
            completed=self.done,
            epoch=f"{run.state.epoch}/{self.epochs}",
            numbers="",
        )

    def on_batch_end(self, run: Run) -> None:
        self.done += 1
        if time.perf_counter() - self.drawn >= self.PAUSE:
            self._draw(epoch=f"{run.state.epoch + 1}/{self.epochs}")

    def on_epoch_end(self, run: Run) -> None:
        self.shown.update(self.task, numbers=describe(run, self.short))

    def on_run_end(self, run: Run) -> None:
        self._draw(epoch=f"{run.state.epoch}/{self.epochs}", total=max(self.done, 1))

    def _draw(self, **fields: Any) -> None:
        self.drawn = time.perf_counter()
        self.shown.update(self.task, completed=self.done, refresh=True, **fields)
