"""Contenders in processes of their own, driven over a pipe, one at a time.

Two thread pools slow each other down (OpenBLAS's threads spin for milliseconds after a product),
so each contender lives alone in a fresh process that stays alive, and the parent alternates them:
a pause in which threads fall asleep, a call that wakes this contender's, and then the calls that
are timed. A measurement during which other processes used the machine is taken again.

A module's CONTENDERS names functions; what they take is sent as JSON. A function that returns a
`Contender` is asked for timings; one that returns anything else has done its work, and that is the
answer. A library that is not installed is an ImportError, one that cannot run on this device is
Absent; either leaves the contender out, aloud.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent


class Absent(Exception):
    """A contender that cannot run here, and why."""


@dataclass(frozen=True)
class Contender:
    """What is timed: ``run()`` does ``steps`` units of work, ``wait()`` returns once it is done.

    clock: seconds of one of so many runs by the device's own events, where it has them; else the
    host's clock around the runs and a wait. check: a number that contenders doing the same work
    share, taken after ``WARM_UP`` runs; by it the parent sees that they do. note: what a reader of
    the times should know.
    """

    run: Callable[[], Any]
    wait: Callable[[], Any] = lambda: None
    steps: int = 1
    check: Callable[[], float] | None = None
    clock: Callable[[Callable[[], Any], int], float] | None = None
    note: str = ""

    def seconds(self, runs: int, cpu: bool = False) -> float:
        """Seconds of one run among so many in a row; cpu: of the process's own CPU time."""
        if self.clock and not cpu:
            return self.clock(self.run, runs)
        now = time.process_time if cpu else time.perf_counter
        start = now()
        for _ in range(runs):
            self.run()
        self.wait()
        return (now() - start) / runs


@dataclass(frozen=True)
class Timing:
    """rounds: measurements of a contender. seconds: of each. pause: seconds before each. patience:
    seconds to wait for a quiet machine, each time; then the least disturbed measurement counts.
    cpu: count the CPU time of a contender's process in place of the clock's, which other programs
    do not lengthen: for contenders of one thread each."""

    rounds: int = 15
    seconds: float = 0.2
    pause: float = 0.1
    patience: float = 20.0
    cpu: bool = False


WARM_UP = 4  # runs, compilation included
TICK = 0.01  # seconds by which the system counts CPU time
QUIET = 0.08  # the others' share of the machine up to which a measurement counts


# ---------------------------------------------------------------------------- in the contender


def serve(module: str, name: str, arguments: str) -> None:
    """Make the contender and answer, one JSON object a line, until the parent hangs up."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print must not get between the answers

    def answer(**values: Any) -> None:
        answers.write(json.dumps(values) + "\n")
        answers.flush()

    others = Others()
    try:
        made = import_module(module).CONTENDERS[name](**json.loads(arguments))
    except (ImportError, Absent) as error:
        return answer(absent=str(error))
    if not isinstance(made, Contender):
        return answer(result=made, others=others.share())
    for _ in range(WARM_UP):
        made.run()
    made.wait()
    answer(check=made.check() if made.check else None, note=made.note)
    for line in sys.stdin:
        others = Others()
        seconds = _timed(made, **json.loads(line))
        answer(seconds=seconds, others=others.share())


class Others:
    """What other processes use of the machine, from now on; Linux tells, elsewhere it is 0."""

    def __init__(self) -> None:
        self.start = self._now()

    def share(self) -> float:
        """Their share of all cores' time since the start."""
        wall, busy, own = (b - a for a, b in zip(self.start, self._now(), strict=True))
        return max(0.0, busy - own - 2 * TICK) / (wall * (os.cpu_count() or 1))

    @staticmethod
    def _now() -> tuple[float, float, float]:
        """Seconds: of the clock, of CPU used by all processes, by this one."""
        wall, own, path = time.perf_counter(), time.process_time(), Path("/proc/stat")
        if not path.exists():
            return wall, own, own
        with path.open() as file:
            ticks = [int(number) for number in file.readline().split()[1:9]]
        return wall, (sum(ticks) - ticks[3] - ticks[4]) * TICK, own


def _timed(contender: Contender, seconds: float, cpu: bool = False) -> float:
    """Seconds for one unit of work, from as many calls as fit into the given time."""
    contender.run()  # the threads wake
    contender.wait()
    runs = max(1, round(seconds / max(contender.seconds(1, cpu), 1e-7)))
    return contender.seconds(runs, cpu) / contender.steps


# ---------------------------------------------------------------------------- in the parent


class Worker:
    """A contender's process, run by the code of the checkout ``root``. Raises Absent if it does
    not come up."""

    def __init__(self, module: str, name: str, arguments: dict[str, Any], root: Path = ROOT):
        self.errors = tempfile.TemporaryFile("w+")  # noqa: SIM115, open as long as the process
        start = "import sys; from benchmarks.worker import serve; serve(*sys.argv[1:])"
        command = [sys.executable, "-c", start, module, name, json.dumps(arguments)]
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            text=True,
            cwd=root,  # python -c looks here first, before whatever is installed
        )
        self.first = self._answer()
        if "absent" in self.first:
            self.close()
            raise Absent(self.first["absent"])

    def seconds(self, timing: "Timing") -> tuple[float, float]:
        """Seconds for one unit of work, and the others' share of the machine meanwhile."""
        end = time.perf_counter() + timing.patience
        found: list[tuple[float, float]] = []
        while True:
            time.sleep(timing.pause)
            asked = {"seconds": timing.seconds, "cpu": timing.cpu}
            print(json.dumps(asked), file=self.process.stdin, flush=True)
            answer = self._answer()
            found.append((answer["others"], answer["seconds"]))
            if timing.cpu or found[-1][0] < QUIET or time.perf_counter() > end:
                others, seconds = min(found)
                return seconds, others
            time.sleep(10 * timing.pause)

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


def once(module: str, name: str, arguments: dict[str, Any], tries: int = 1) -> Any:
    """What the contender's function returns, from a fresh process: the first try on a quiet
    machine, or the least disturbed one. Raises Absent."""
    found = []
    for _ in range(tries):
        worker = Worker(module, name, arguments)
        worker.close()
        found.append(worker.first)
        if worker.first["others"] < QUIET:
            break
    return min(found, key=lambda answer: answer["others"])["result"]


def alternate(
    module: str,
    names: Sequence[str],
    arguments: dict[str, Any],
    timing: Timing,
    needed: Sequence[str] = (),
    elsewhere: Mapping[str, tuple[str, Path]] | None = None,
) -> dict[str, list[float]]:
    """{contender: seconds for one unit of work, once a round}, all of them in turn each round.

    Those in ``needed`` must be there; another one that cannot run is left out aloud. elsewhere:
    {name: (contender, checkout)} of those that another checkout's code runs.
    """
    workers: dict[str, Worker] = {}
    try:
        for name in names:
            contender, root = (elsewhere or {}).get(name, (name, ROOT))
            try:
                workers[name] = Worker(module, contender, arguments, root)
            except Absent as reason:
                if name in needed:
                    raise
                print(f"  {name} is left out: {reason}", flush=True)
        for name, worker in workers.items():
            if worker.first["note"]:
                print(f"  {name}: {worker.first['note']}", flush=True)
        _same_work({name: worker.first["check"] for name, worker in workers.items()})
        times: dict[str, list[float]] = {name: [] for name in workers}
        worst = 0.0
        for _ in range(timing.rounds):
            for name, worker in workers.items():
                seconds, others = worker.seconds(timing)
                times[name].append(seconds)
                worst = max(worst, others)
        if worst >= QUIET and timing.patience and not timing.cpu:
            print(f"  disturbed: other processes used up to {worst:.0%} of the machine")
        return times
    finally:
        for worker in workers.values():
            if worker.process.poll() is None:
                worker.close()


def _same_work(checks: dict[str, float | None]) -> None:
    """Raise RuntimeError unless all that have a number to check have the same, to 2 %."""
    given = {name: value for name, value in checks.items() if value is not None}
    for name, value in given.items():
        expected = next(iter(given.values()))
        if not abs(value - expected) <= 0.02 * abs(expected):
            raise RuntimeError(f"{name} does not do the same work as {next(iter(given))}: {given}")
