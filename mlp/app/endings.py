"""What asks a run to end: signals, each with the code that the program then ends with.

SIGTERM, SIGHUP (a lost terminal) and SIGUSR1 (a scheduler's warning) end a run after the batch
under way, as the first Ctrl-C does, however many come and in whatever order. Only a second Ctrl-C
ends it at once, see `mlp.training.run`. What the parent told to ignore stays ignored, as under
nohup. The code is 128 and the number of the signal, as in a shell: 130 for Ctrl-C, 143 for SIGTERM.
"""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from mlp.training.run import INTERRUPTED, Run

GENTLE = [
    getattr(signal, name) for name in ("SIGTERM", "SIGHUP", "SIGUSR1") if hasattr(signal, name)
]


class Asked:
    """Who asked a run to end, if somebody did; a callback of the run, on every rank of it."""

    every_rank = True

    def __init__(self) -> None:
        self.run: Run | None = None
        self.reason = ""
        self.over = False

    def on_run_start(self, run: Run) -> None:
        self.run = run
        if self.reason:
            run.stop(self.reason)

    def on_run_end(self, run: Run) -> None:
        self.over = True

    def gently(self, number: int, frame: Any) -> None:
        """After the batch under way."""
        if not self.reason:
            self.reason = f"{INTERRUPTED} by {signal.Signals(number).name}; {KEPT}"
        if self.run is not None:
            self.run.stop(self.reason)

    def interrupted(self, number: int, frame: Any) -> None:
        """Ctrl-C outside training: what is being written is what it is meant to keep."""
        if not self.over:
            raise KeyboardInterrupt


KEPT = "what was learned so far is kept"


def code_of(stopped: str) -> int:
    """What the program ends with, by why the run stopped, which all ranks of it know.

    >>> code_of(f"interrupted by SIGTERM; {KEPT}"), code_of(f"interrupted; {KEPT}"), code_of("")
    (143, 130, 0)
    """
    if not stopped.startswith(INTERRUPTED):
        return 0
    by = [number for number in GENTLE if f"by {number.name};" in stopped]
    return 128 + (by[0] if by else signal.SIGINT)


@contextmanager
def asked() -> Iterator[Asked]:
    """Within, signals end a run gently; what they did before comes back."""
    found = Asked()
    if threading.current_thread() is not threading.main_thread():
        yield found
        return
    handlers = dict.fromkeys(GENTLE, found.gently) | {signal.SIGINT: found.interrupted}
    before = {number: signal.getsignal(number) for number in handlers}
    heard = {number: old for number, old in before.items() if old is not signal.SIG_IGN}
    try:
        for number in heard:
            signal.signal(number, handlers[number])
        yield found
    finally:
        for number, old in heard.items():
            signal.signal(number, old)
