"""Checkpoints: where a run stands, written beside training, so that what ends it costs little.

At any step the state is copied on its device into room that is kept for it; a thread writes the
copy while training goes on. A checkpoint is a folder of its own in ``Checkpoints.folder``, whole or
not there (`mlp.sealed`): a kill, a power cut or a full disk leaves the ones before it as they were.

    000007-epoch-137/state.safetensors    as `mlp.save_state` writes it
    000007-epoch-137/manifest.json        its length and checksum, and where the run stood
"""

import errno
import math
import os
import re
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import Any

from backends import Backend
from mlp.durations import SECONDS
from mlp.errors import InputError, check_is, check_whole
from mlp.files import PathLike, checked_path
from mlp.memory import is_short
from mlp.sealed import damages, read_manifest, remove_folder, remove_partial, write_folder
from mlp.training.checkpoint import is_finite, load_state, on_host, state_bytes
from mlp.training.state import State

STATE_FILE = "state.safetensors"
NAME = re.compile(r"(\d+)-epoch-(\d+)")
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
                f"Checkpoints: name a folder that is theirs alone, as 'kept', not {self.folder!r}"
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
        return sorted((x for x in folder.iterdir() if NAME.fullmatch(x.name)), reverse=True)

    def whole(self) -> Iterator[Path]:
        """Those that are not damaged, the newest first; a warning for each that is."""
        for path in self.found():
            if damaged := damages(path):
                warnings.warn(f"{damaged[0]}; the checkpoint before it is used", stacklevel=3)
            else:
                yield path

    def said(self) -> dict[str, Any] | None:
        """What they are of, by the newest whole one; None if there is none or it does not say."""
        path = next(self.whole(), None)
        return None if path is None else read_manifest(path)["about"].get("of")

    def newest(self) -> State | None:
        """Where the last whole checkpoint stood, to go on from; None if there is none."""
        path = next(self.whole(), None)
        return None if path is None else load_state(path / STATE_FILE)

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
        before, as far as they are known; this one is added. OSError if it cannot be written."""
        state = on_host(state, backend)
        if not is_finite(state):
            return
        before = self.found()
        number = int(before[0].name.partition("-")[0]) + 1 if before else 1
        about: dict[str, Any] = {"epoch": state.epoch, "batch": state.batch, "step": state.step}
        loss = sign * (state.history.get(watch) or [math.inf])[-1]
        about |= {"watch": watch, "loss": repr(loss)}
        about |= {} if self.of is None else {"of": dict(self.of)}
        place = Path(self.folder) / f"{number:06d}-epoch-{state.epoch}"
        write_folder(place, {STATE_FILE: state_bytes(state)}, about)
        losses = {} if losses is None else losses
        losses[place] = math.inf if math.isnan(loss) else loss
        self._prune([place, *before], losses)

    def _prune(self, found: list[Path], losses: dict[Path, float]) -> None:
        """Remove all but the last ones and the best of those found, the newest first."""
        for path in found:
            if path not in losses:
                losses[path] = _loss(path)
        stay = {*found[: self.keep], min(reversed(found), key=losses.__getitem__)}
        for path in found:
            if path not in stay:
                remove_folder(path)


def epoch_of(path: Path) -> int:
    """The epochs that a checkpoint had done, by its name."""
    return int(path.name.rpartition("-")[2])


def _loss(path: Path) -> float:
    """The watched loss of a checkpoint; infinite where it is not known."""
    with suppress(InputError, KeyError, ValueError):
        loss = float(read_manifest(path)["about"]["loss"])
        return math.inf if math.isnan(loss) else loss
    return math.inf


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
            f"checkpoint is '60s', '10 min', '5 epochs', '1000 steps' or 'none', not {every!r}"
        )
    return (number * SECONDS[unit], "s") if unit in SECONDS else (number, unit)


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
        self.every, self.watch, self.sign = parsed(checkpoints.every), watch, sign
        self.thread: Thread | None = None
        self.fault: Exception | None = None
        self.warned = False
        self.losses: dict[Path, float] = {}

    def begin(self, state: State) -> None:
        """Make the folder ready; from here on time, epochs and steps count."""
        folder = Path(self.checkpoints.folder)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            remove_partial(folder)
            for path in self.checkpoints.found():
                if damages(path):
                    remove_folder(path)
        except OSError as error:
            raise InputError(f"{folder} cannot be written: {error.strerror or error}") from error
        if not state.step and self.checkpoints.found():
            raise InputError(
                f"{folder} holds the checkpoints of another run: name another folder, or go on "
                "from them by state=mlp.Checkpoints(folder).newest()"
            )
        self.folder = os.stat(folder)
        self.last = self._now(state.epoch, state.step)

    def is_due(self, epoch: int, step: int) -> bool:
        """Whether there should be a checkpoint of this epoch and step, and the last is written."""
        if self.every is None or self._now(epoch, step) - self.last < self.every[0]:
            return False
        return self.thread is None or not self.thread.is_alive()

    def look(self, state: State) -> None:
        """A checkpoint if one is due and the last one is written."""
        if not self.is_due(state.epoch, state.step):
            return
        self._warn()
        self.last = self._now(state.epoch, state.step)
        copy = self.copied(state)
        self.backend.synchronize()  # the thread may ask the device on a stream of its own
        self.thread = Thread(target=self._write, args=(copy,), name="checkpoint")
        try:
            self.thread.start()
        except RuntimeError:  # no room for a thread
            self.thread = None
            self._write(copy)

    def wait(self) -> None:
        """Until what is under way is written."""
        if self.thread is not None:
            self.thread.join()
        self._warn()

    def end(self, state: State) -> None:
        """A last checkpoint, written when this returns."""
        self.wait()
        self._write(state)
        self._warn()

    def _now(self, epoch: int, step: int) -> float:
        if self.every is None or self.every[1] == "s":
            return time.monotonic()
        return epoch if self.every[1] == "epoch" else step

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
