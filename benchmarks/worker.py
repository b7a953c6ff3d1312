"""Contenders in processes of their own, driven over a pipe, one at a time.

Two thread pools slow each other down (OpenBLAS's threads spin for milliseconds after a product),
so each contender lives alone in a fresh process that stays alive, and the parent alternates them:
a pause in which threads fall asleep, a call that wakes this contender's, and then the calls that
are timed.

A module's CONTENDERS names functions; what they take is sent as JSON. A function that returns a
`Contender` is asked for timings; one that returns anything else has done its work, and that is the
answer. A library that is not installed is an ImportError, which leaves the contender out, aloud.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Contender:
    """What is timed: ``run()`` does ``steps`` units of work, ``wait()`` returns once it is done.

    check: a number that contenders doing the same work share, taken after ``WARM_UP`` runs; by it
    the parent sees that they do.
    """

    run: Callable[[], Any]
    wait: Callable[[], Any] = lambda: None
    steps: int = 1
    check: Callable[[], float] | None = None


WARM_UP = 4  # runs, compilation included


# ---------------------------------------------------------------------------- in the contender


def serve(module: str, name: str, arguments: str) -> None:
    """Make the contender and answer, one JSON object a line, until the parent hangs up."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print must not get between the answers

    def answer(**values: Any) -> None:
        answers.write(json.dumps(values) + "\n")
        answers.flush()

    try:
        made = import_module(module).CONTENDERS[name](**json.loads(arguments))
    except ImportError as error:
        return answer(absent=str(error))
    if not isinstance(made, Contender):
        return answer(result=made)
    for _ in range(WARM_UP):
        made.run()
    made.wait()
    answer(check=made.check() if made.check else None)
    for line in sys.stdin:
        answer(seconds=_timed(made, **json.loads(line)))


def _timed(contender: Contender, seconds: float) -> float:
    """Seconds for one unit of work, from as many calls as fit into the given time."""
    contender.run()  # the threads wake
    contender.wait()
    start = time.perf_counter()
    contender.run()
    contender.wait()
    calls = max(1, round(seconds / (time.perf_counter() - start)))
    start = time.perf_counter()
    for _ in range(calls):
        contender.run()
    contender.wait()
    return (time.perf_counter() - start) / calls / contender.steps


# ---------------------------------------------------------------------------- in the parent


class Absent(Exception):
    """A contender that cannot run here, and why."""


class Worker:
    """A contender's process. Raises Absent if it does not come up."""

    def __init__(self, module: str, name: str, arguments: dict[str, Any]):
        self.name = name
        self.errors = tempfile.TemporaryFile("w+")  # noqa: SIM115, open as long as the process
        start = "import sys; from benchmarks.worker import serve; serve(*sys.argv[1:])"
        command = [sys.executable, "-c", start, module, name, json.dumps(arguments)]
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            text=True,
            cwd=ROOT,
        )
        self.first = self._answer()
        if "absent" in self.first:
            self.close()
            raise Absent(self.first["absent"])

    def seconds(self, aim: float) -> float:
        """Seconds for one unit of work, measured for about the given time."""
        print(json.dumps({"seconds": aim}), file=self.process.stdin, flush=True)
        return self._answer()["seconds"]

    def _answer(self) -> dict[str, Any]:
        line = self.process.stdout.readline()
        if line:
            return json.loads(line)
        self.errors.seek(0)
        lines = self.errors.read().strip().splitlines() or [f"exit {self.process.wait()}"]
        self.close()
        raise Absent(f"it failed: {lines[-1]}")

    def close(self) -> None:
        """End the process: it stops when its pipe is closed."""
        self.process.stdin.close()
        self.process.stdout.close()
        self.errors.close()
        self.process.wait()


def once(module: str, name: str, arguments: dict[str, Any]) -> Any:
    """What the contender's function returns, from a fresh process. Raises Absent."""
    worker = Worker(module, name, arguments)
    worker.close()
    return worker.first["result"]


def alternate(
    module: str,
    names: Sequence[str],
    arguments: dict[str, Any],
    rounds: int,
    seconds: float,
    pause: float,
    needed: Sequence[str] = (),
) -> dict[str, list[float]]:
    """{contender: seconds for one unit of work, once a round}, all of them in turn each round.

    Those in ``needed`` must be there; another one that cannot run is left out aloud.
    """
    workers: list[Worker] = []
    try:
        for name in names:
            try:
                workers.append(Worker(module, name, arguments))
            except Absent as reason:
                if name in needed:
                    raise
                print(f"  {name} is left out: {reason}", flush=True)
        _same_work({worker.name: worker.first["check"] for worker in workers})
        times: dict[str, list[float]] = {worker.name: [] for worker in workers}
        for _ in range(rounds):
            for worker in workers:
                time.sleep(pause)
                times[worker.name].append(worker.seconds(seconds))
        return times
    finally:
        for worker in workers:
            if worker.process.poll() is None:
                worker.close()


def _same_work(checks: dict[str, float | None]) -> None:
    """Raise RuntimeError unless all that have a number to check have the same, to 2 %."""
    given = {name: value for name, value in checks.items() if value is not None}
    for name, value in given.items():
        expected = next(iter(given.values()))
        if not abs(value - expected) <= 0.02 * abs(expected):
            raise RuntimeError(f"{name} does not do the same work as {next(iter(given))}: {given}")
