"""A run as its callbacks see it, what it leaves, and what interrupts it."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from mlp.errors import InputError, check_takes, shown
from mlp.model import Model
from mlp.training.memory_plan import Plan
from mlp.training.settings import Settings
from mlp.training.state import State

INTERRUPTED = "interrupted"  # how the reason begins, whoever did it
_SHOWN = ("loss", "validation_loss", "validation_accuracy", "validation_r2")


@dataclass(frozen=True)
class Result:
    """What training leaves: the trained model, the history, why it stopped, and its state.

    history: a list for each quantity, one entry an epoch. diverged: the loss became non-finite and
    the model has the last finite weights. out_of_memory: memory ran out in the middle; the state
    can be gone on from.
    """

    model: Model
    history: dict[str, list[float]]
    stopped: str
    state: State
    diverged: bool = False
    out_of_memory: bool = False

    def __repr__(self) -> str:
        last = {name: values[-1] for name, values in self.history.items() if values}
        shown = ", ".join(f"{name} {last[name]:.4g}" for name in _SHOWN if name in last)
        epochs = f"{self.state.epoch} epochs" + (f", {shown}" if shown else "")
        return f"Result({epochs}; {self.stopped}; {self.model!r})"


class Run:
    """A run under way, as callbacks see it.

    A callback is any object with some of the methods ``on_run_start``, ``on_epoch_start``,
    ``on_batch_start``, ``on_batch_end``, ``on_epoch_end``, ``on_run_end``, each taking the run; a
    plain function is called when an epoch ends. It may change weights; one with ``only_looks =
    True`` does not, which with mixed precision spares a copy of them after each batch. `stop` ends
    the run after the batch under way.
    ``plan``: what the run takes of the device's memory; ``threads``: of its products, or shards.
    """

    def __init__(
        self,
        model: Model,
        settings: Settings,
        state: State,
        samples: int,
        batches: int,
        plan: Plan,
        threads: int,
    ):
        self.model, self.settings, self.state = model, settings, state
        self.samples, self.batches, self.plan = samples, batches, plan
        self.threads = threads
        self.stopping = ""
        self.over = False  # nothing is left to be stopped
        self.last: dict[str, float] = {}

    def stop(self, reason: str) -> None:
        """End the run; the reason is what `Result.stopped` says."""
        self.stopping = self.stopping or reason

    def __repr__(self) -> str:
        return f"Run(epoch {self.state.epoch} of {self.settings.epochs}; {self.model!r})"


EVENTS = (
    "on_run_start",
    "on_epoch_start",
    "on_batch_start",
    "on_batch_end",
    "on_epoch_end",
    "on_run_end",
)


def hooks_of(callbacks: list[Any], event: str) -> list[Callable[[Run], None]]:
    found = []
    for callback in callbacks:
        if hasattr(callback, event):
            found.append(getattr(callback, event))
        elif not any(hasattr(callback, name) for name in EVENTS):
            if not callable(callback):
                raise InputError(
                    f"a callback is a function or has one of {', '.join(EVENTS)}: {shown(callback)}"
                )
            if event == "on_epoch_end":
                found.append(callback)
    for hook in found:
        check_takes("a callback", hook, "run")
    return found


def only_looks(hook: Callable[[Run], None]) -> bool:
    """Whether the callback that a hook is of says that it leaves weights alone."""
    return bool(getattr(getattr(hook, "__self__", None), "only_looks", False))


class Stoppable(Protocol):
    """What Ctrl-C can end: `stop` asks for it, ``over`` says that nothing is left to be stopped."""

    over: bool

    def stop(self, reason: str) -> None: ...


@contextmanager
def interruptible(run: Stoppable) -> Iterator[None]:
    """The first Ctrl-C asks the run to stop after its batch, the second one raises. Where Ctrl-C is
    ignored it stays so."""
    before = signal.getsignal(signal.SIGINT)
    main = threading.current_thread() is threading.main_thread()
    if not main or before is signal.SIG_IGN:
        yield
        return
    asked = False  # by Ctrl-C: others may stop a run too

    def ask(number: int, frame: Any) -> None:
        nonlocal asked
        if asked and not run.over:
            raise KeyboardInterrupt
        asked = True
        run.stop(f"{INTERRUPTED}; what was learned so far is kept")

    signal.signal(signal.SIGINT, ask)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
