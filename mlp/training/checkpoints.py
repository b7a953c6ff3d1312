"""Checkpoints: where a run stands, written beside training, so that what ends it costs little.

At any step the state is copied on its device into room that is kept for it; a thread writes the
copy while training goes on. A checkpoint is one file in ``Checkpoints.folder``, whole or not there
(`mlp.files`): a kill, a power cut or a full disk leaves the ones before it as they were.

    000007-epoch-137.safetensors    as `mlp.save_state` writes it, and beside the state: which loss
                                    is watched, how low it was, and what the checkpoint is of

One of before is a folder of that name: the state, and a manifest that says the rest.
"""

import errno
import math
import os
import re
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from queue import Queue
from threading import ExceptHookArgs, Thread, excepthook
from typing import Any

from backends import Backend
from mlp.durations import SECONDS
from mlp.errors import InputError, check_is, check_whole, shown
from mlp.files import PathLike, checked_path, put
from mlp.locks import take
from mlp.memory import is_short
from mlp.sealed import damages, read_manifest, remove_folder, remove_partial
from mlp.training.checkpoint import is_finite, load_with, on_host, packed_state
from mlp.training.state import State

STATE_FILE = "state.safetensors"
NAME = re.compile(r"(\d+)-epoch-(\d+)(\.safetensors)?")
EVERY = re.compile(r"(\d+(?:\.\d+)?) ?(s|min|h|epochs?|steps?)")


@dataclass(frozen=True)
class Checkpoints:
    """Where checkpoints are written, how often, and how many stay.

    folder: theirs alone. every: "60s", "10 min", "2 h", "5 epochs", "1000 steps"; or "none". keep:
    so many of the last ones stay, and the one with the lowest watched loss. at_end: whether the end
    of training is a checkpoint too. of: what they are of, as JSON can hold it, written into each.
    What cannot be written is one warning, and tried again when the next one is due.

    >>> import tempfile
    >>> import numpy as np
    >>> from mlp import Dense, Model, Network, train
    >>> model, X = Model(Network(2, [Dense(1)]), "mean_squared_error"), np.ones((4, 2))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     kept = Checkpoints(folder, "1 epoch")
    ...     _ = train(model, X, X[:, 0], epochs=3, checkpoint=kept)
    ...     state = kept.newest()
    >>> state.epoch, len(train(model, X, X[:, 0], epochs=5, state=state).history["loss"])
    (3, 5)
    """

    folder: PathLike
    every: str = "60s"
    keep: int = 2
    at_end: bool = True
    of: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        if not checked_path(self.folder).name:
            raise InputError(
                "Checkpoints: name a folder that is theirs alone, as 'kept', not "
                f"{shown(self.folder)}"
            )
        parsed(self.every)
        check_whole("keep", self.keep, 1)
        check_is("Checkpoints: at_end", self.at_end, bool)
        if self.of is not None:
            check_is("Checkpoints: of", self.of, Mapping)

    def found(self) -> list[Path]:
        """The checkpoints that are there, the newest first; they may be damaged."""
        folder = Path(self.folder)
        if not folder.is_dir():
            return []
        there = (x for x in folder.iterdir() if NAME.fullmatch(x.name))
        return sorted(there, key=_number, reverse=True)

    def whole(self) -> Iterator[tuple[State, dict[str, Any]]]:
        """Those that are not damaged, the newest first, as `content` gives them; a warning for each
        that is."""
        for path in self.found():
            try:
                yield content(path)
            except InputError as error:
                warnings.warn(f"{error}; the checkpoint before it is used", stacklevel=3)

    def said(self) -> dict[str, Any] | None:
        """What they are of, by the newest whole one; None if there is none or it does not say."""
        return next(self.whole(), (None, {}))[1].get("of")

    def newest(self) -> State | None:
        """Where the last whole checkpoint stood, to go on from; None if there is none."""
        return next(self.whole(), (None, {}))[0]

    @contextmanager
    def alone(self, cure: str = "name another folder") -> Iterator[None]:
        """The folder within, for this one writer. InputError if it has another, or cannot be
        made; cure: what else to do, for the message."""
        folder = Path(self.folder)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"{folder} cannot be written: {error.strerror or error}") from error
        lock = take(folder, cure)
        try:
            yield
        finally:
            lock.let_go()

    def write(
        self,
        state: State,
        backend: Backend,
        watch: str,
        sign: float = 1.0,
        losses: dict[Path, float] | None = None,
    ) -> None:
        """One more, of arrays on this backend; then those are removed that do not stay. Weights
        that are not finite are no checkpoint. sign: -1 where greater is better. losses: of those
        that are there, the oldest first, where they are known; this one is added. OSError if it
        cannot be written."""
        state = on_host(state, backend)
        if not is_finite(state):
            return
        if losses is None:
            losses = {path: _loss(path) for path in reversed(self.found())}
        number = _number(next(reversed(losses))) + 1 if losses else 1
        watched = state.history.get(watch)
        loss = _known(sign * watched[-1]) if watched else math.inf
        beside: dict[str, Any] = {"watch": watch, "loss": repr(loss)}
        beside |= {} if self.of is None else {"of": dict(self.of)}
        place = Path(self.folder, f"{number:06d}-epoch-{state.epoch}.safetensors")
        put(place, packed_state(state, beside))
        losses[place] = loss
        self._prune(losses)

    def _prune(self, losses: dict[Path, float]) -> None:
        """Remove all but the last ones and the best."""
        stay = {*list(losses)[-self.keep :], min(losses, key=losses.__getitem__)}
        for path in [path for path in losses if path not in stay]:
            del losses[path]
            remove(path)


def content(path: Path) -> tuple[State, dict[str, Any]]:
    """The state of a checkpoint, and what is said beside it. InputError if it is damaged."""
    if path.suffix:
        return load_with(path)
    for damaged in damages(path):
        raise damaged
    return load_with(path / STATE_FILE)[0], dict(read_manifest(path)["about"])


def damage(path: Path) -> str:
    """What is wrong with a checkpoint; "" if nothing."""
    try:
        content(path)
    except InputError as error:
        return str(error)
    return ""


def remove(path: Path) -> None:
    """A checkpoint is gone, at once."""
    if path.suffix:
        path.unlink(missing_ok=True)
    else:
        remove_folder(path)


def epoch_of(path: Path) -> int:
    """The epochs that a checkpoint had done, by its name."""
    return int(NAME.fullmatch(path.name)[2])  # type: ignore[index]


def _number(path: Path) -> int:
    return int(path.name.partition("-")[0])


def _loss(path: Path) -> float:
    """The watched loss of a checkpoint; infinite where it is damaged."""
    with suppress(InputError):
        return _watched(content(path)[1])
    return math.inf


def _watched(beside: Mapping[str, Any]) -> float:
    """The watched loss that stands beside a state; infinite where none does."""
    with suppress(KeyError, TypeError, ValueError):
        return _known(float(beside["loss"]))
    return math.inf


def _known(loss: float) -> float:
    """A loss, infinite where it is no number: such a checkpoint is not the best one. -inf stands in
    files of before, where nothing had been watched yet."""
    return loss if math.isfinite(loss) else math.inf


def parsed(every: object) -> tuple[float, str] | None:
    """(number, "s", "epoch" or "step"); None for "none". InputError for what is none of them.

    >>> parsed("10 min"), parsed("5 epochs"), parsed("none")
    ((600.0, 's'), (5.0, 'epoch'), None)
    """
    if isinstance(every, str) and every == "none":
        return None
    parts = EVERY.fullmatch(every) if isinstance(every, str) else None
    number, unit = (float(parts[1]), parts[2].removesuffix("s") or "s") if parts else (0.0, "")
    if not number:
        raise InputError(
            f"checkpoint is '60s', '10 min', '5 epochs', '1000 steps' or 'none', not {shown(every)}"
        )
    return (number * SECONDS[unit], "s") if unit in SECONDS else (number, unit)


class Beside(Thread):
    """Does with one state after another what is to be done, beside training. It is started once:
    to start a thread for each takes longer than a small state, and waits until it has a core."""

    def __init__(self, do: Callable[[State], None]):
        super().__init__(name="checkpoint", daemon=True)
        self.do, self.given = do, Queue[State | None]()
        self.start()

    def give(self, state: State) -> None:
        """One more."""
        self.given.put(state)

    def is_busy(self) -> bool:
        """Whether something that was given is not done."""
        return self.given.unfinished_tasks > 0

    def settle(self) -> None:
        """Until all that was given is done."""
        self.given.join()

    def end(self) -> None:
        """The thread is gone, when all that was given is done."""
        self.given.put(None)
        self.join()

    def run(self) -> None:
        while (state := self.given.get()) is not None:
            try:
                self.do(state)
            except Exception as error:
                excepthook(ExceptHookArgs((type(error), error, error.__traceback__, self)))
            finally:
                del state
                self.given.task_done()


class Writer:
    """Writes the checkpoints of one run, of a state that the run changes in place.

    copied: gives a copy of that state, in room that the next copy may take again. watch: the
    history's column that says which one is the best.
    """

    def __init__(
        self,
        checkpoints: Checkpoints,
        backend: Backend,
        copied: Callable[[State], State],
        watch: str,
        sign: float = 1.0,
    ):
        self.checkpoints, self.backend, self.copied = checkpoints, backend, copied
        self.every, self.unit = parsed(checkpoints.every) or (math.inf, "s")
        self.due, self.watch, self.sign = math.inf, watch, sign
        self.thread: Beside | None = None
        self.fault: Exception | None = None
        self.warned = False
        self.losses: dict[Path, float] = {}

    def begin(self, state: State) -> None:
        """Make the folder ready, which is this one's alone; from here time, epochs and steps
        count."""
        folder = Path(self.checkpoints.folder)
        try:
            remove_partial(folder)
            for path in reversed(self.checkpoints.found()):
                try:
                    self.losses[path] = _watched(content(path)[1])
                except InputError:  # or of a later version, or not for our eyes: nothing is lost
                    os.replace(path, path.with_name(f"{path.name}.damaged"))
        except OSError as error:
            raise InputError(f"{folder} cannot be written: {error.strerror or error}") from error
        if not state.step and self.losses:
            raise InputError(
                f"{folder} holds the checkpoints of another run: name another folder, or go on "
                "from them by state=mlp.Checkpoints(folder).newest()"
            )
        self.folder = os.stat(folder)
        self.due = self._now(state.epoch, state.step) + self.every

    def is_due(self, epoch: int, step: int) -> bool:
        """Whether there should be a checkpoint of this epoch and step, and the last is written."""
        if self._now(epoch, step) < self.due:
            return False
        return self.thread is None or not self.thread.is_busy()

    def look(self, state: State) -> None:
        """A checkpoint if one is due and the last one is written."""
        if not self.is_due(state.epoch, state.step):
            return
        self._warn()
        self.due = self._now(state.epoch, state.step) + self.every
        copy = self.copied(state)
        self.backend.synchronize()  # the thread may ask the device on a stream of its own
        try:
            if self.thread is None:
                self.thread = Beside(self._write)
            self.thread.give(copy)
        except RuntimeError:  # no room for a thread
            self._write(copy)

    def wait(self) -> None:
        """Until what is under way is written."""
        if self.thread is not None:
            self.thread.end()
            self.thread = None
        self._warn()

    def end(self, state: State) -> None:
        """A last checkpoint, written when this returns."""
        self.wait()
        self._write(state)
        self._warn()

    def _now(self, epoch: int, step: int) -> float:
        if self.unit == "s":
            return time.monotonic()
        return epoch if self.unit == "epoch" else step

    def _write(self, state: State) -> None:
        try:
            with self.backend.scope():
                folder = self.checkpoints.folder
                if not os.path.samestat(os.stat(folder), self.folder):
                    raise OSError(errno.ESTALE, "another folder stands in its place")
                self.checkpoints.write(state, self.backend, self.watch, self.sign, self.losses)
        except (OSError, InputError) as error:
            self.fault = error
        except Exception as error:
            if is_short(self.backend, error):
                self.fault = RuntimeError(f"out of memory: {error}")
            elif not self.backend.lost(error):  # who trains hears of it too, and says so
                raise

    def _warn(self) -> None:
        """Once, and in the thread that trains."""
        if self.fault is not None and not self.warned:
            self.warned = True
            what = getattr(self.fault, "strerror", None) or self.fault
            warnings.warn(
                f"{self.checkpoints.folder}: no checkpoint could be written ({what}); training "
                "goes on, and the next one is tried when it is due",
                stacklevel=2,
            )
