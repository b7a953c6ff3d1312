"""A run: from the settings of one file to a trained model in a folder of its own, and back.

The folder is there from the first minute (`mlp.app.run_folder`). When training has ended, by
whatever cause (all epochs, patience, a signal, divergence, memory that ran out), it holds

    model.safetensors   network, weights, scaling, class names: all that predicting needs
    state.safetensors   where training stands, to go on from
    settings.json       the settings as they were resolved; `mlp train settings.json` does it again
    history.csv         one row an epoch
    metrics.json        how good the model is on each part of the data, and how the run went
    loss.png            the history as a picture, where matplotlib is installed

Model and state are written first. If the folder does not take them they are left elsewhere, and it
is said where.
"""

import csv
import io
import json
import math
import platform
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import numpy as np

import mlp
from backends import BackendError
from mlp.app.config import Config, alike, load
from mlp.app.endings import asked, code_of
from mlp.app.fingerprint import fingerprint
from mlp.app.plots import plot_history
from mlp.app.prepare import choose_backend, new_model, on_own_device, read_parts, samples_of
from mlp.app.run_folder import (
    METRICS,
    SETTINGS,
    RunFolder,
    begin,
    check_free,
    check_room,
    held,
    take,
)
from mlp.app.standing import Over, in_run, resolved, standing
from mlp.data.row_files import Part
from mlp.data.samples import Samples
from mlp.errors import InputError
from mlp.files import write_atomically
from mlp.locks import LOCK
from mlp.memory import is_short, shortage
from mlp.model import Model, load_model, measure, save_model
from mlp.model_file import MODEL_FILE
from mlp.parallel.group import ALONE, Group, OfAnotherRank, agreed
from mlp.threads import limited
from mlp.training.checkpoint import save_state
from mlp.training.checkpoints import STATE_FILE, Checkpoints
from mlp.training.loop import plan_training, train
from mlp.training.memory_plan import Plan
from mlp.training.range_test import RateSearch, find_learning_rate
from mlp.training.run import INTERRUPTED, Result, Run
from mlp.training.state import State

HISTORY, PICTURE = "history.csv", "loss.png"
OUT_OF_MEMORY = "out of memory"  # a status


@dataclass(frozen=True)
class Finished:
    """A run that has ended: its folder, what training gave, and what metrics.json says.

    fault: what stood in the way of the folder; ``folder`` is then where model and state are. code:
    what the program ends with, `mlp.app.endings`.
    """

    folder: Path
    result: Result
    metrics: dict[str, Any]
    fault: str = ""
    code: int = 0

    @property
    def interrupted(self) -> bool:
        """Whether Ctrl-C or another signal ended it."""
        return self.result.stopped.startswith(INTERRUPTED)


# ------------------------------------------------------------------------------ a run


def train_run(
    config: Config,
    *,
    out: Path | None = None,
    backend: str | None = None,
    resume: Path | None = None,
    callbacks: Iterable[Any] = (),
    group: Group = ALONE,
) -> Finished | None:
    """Train as the settings say, in the run's folder.

    out: a new folder; None is runs/NAME for NAME.toml, or the next free runs/NAME-2, ... backend: a
    name that takes precedence over the file's. resume: a run to go on from, in its own folder, or
    if ``out`` is given in that one. Everything that can be refused is refused before training.
    group: the processes that train together; rank 0 alone has the folder, the others return None.
    """
    with group.together():
        chosen = on_own_device(choose_backend(backend, config), group)
        if out is not None and group.rank == 0:
            check_free(out)
            out = out if out.name else out.absolute()  # of "." a neighbour can be named
        if resume is not None and group.rank == 0:
            in_run(resume, SETTINGS)
        parts = read_parts(config, group)
        with _naming(config):
            model = new_model(config, parts, chosen, group)
            samples = samples_of(model, parts, config, group)
        data = fingerprint(config, samples, group)
    if group.size > 1:
        group.same(alike(config))
    if group.rank:
        _take_part(config, model, samples, group)
        return None
    measured = dict(samples)
    if config.training.class_weight is not None:  # which is for training, not for measuring
        measured["train"] = model.samples(parts.train)
    if resume is not None and out is None:
        folder = take(resume)
    else:
        folder = begin(out or Path("runs") / run_name(config.path), numbered=out is None)
    with held(folder), asked() as ending, limited(config.threads):
        with group.together():
            check_room(folder, _size(model, config))
            rows = samples["train"].n
            state: Any = None
            try:
                state = None if resume is None else standing(resume, config, model, data, rows)
            except Over as over:
                state = over
            as_resolved = resolved(config, model)
            settings = _json_bytes(as_resolved)
            if not isinstance(state, Over):
                folder.start({SETTINGS: settings}, data=data)
        if isinstance(group.broadcast(state), Over):
            raise agreed(state)
        kept = Checkpoints(
            folder.checkpoints,
            config.training.checkpoint,
            config.training.keep,
            at_end=False,
            of={"settings": as_resolved, "data": data},  # each vouches for itself
        )
        started = time.perf_counter()
        with warnings.catch_warnings(), _naming(config), _History(folder) as history:
            warnings.simplefilter("ignore", RuntimeWarning)  # a divergence is in the result
            result = train(
                model,
                samples["train"],
                validation=samples.get("validation"),
                callbacks=[*callbacks, history, ending],
                state=state,
                checkpoint=kept if config.training.checkpoint != "none" else None,
                group=group,
                settings=config.settings(),
            )
        folder.trained, seconds = True, time.perf_counter() - started
        files = {SETTINGS: settings, HISTORY: _history_csv(result.history).encode()}
        where, fault = _save(folder, result, files)
        metrics: dict[str, Any] = {}
        try:
            metrics = _metrics(result, measured, seconds, state, config, group)
        except InputError as error:  # of rows on disk that are no longer there
            fault = fault or str(error)
        if not fault:
            fault = _complete(folder, result, metrics)
    return Finished(where, result, metrics, fault, code_of(result.stopped))


def _take_part(config: Config, model: Model, samples: dict[str, Samples], group: Group) -> None:
    """What the other ranks do: they train with rank 0, and measure with it on rows that are on
    disk, and write nothing."""
    with asked() as ending, limited(config.threads), warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        with group.together():  # rank 0 makes the folder ready
            pass
        state = group.broadcast(None)
        if isinstance(state, Over):
            raise agreed(state) from OfAnotherRank(str(state))
        result = train(
            model,
            samples["train"],
            validation=samples.get("validation"),
            callbacks=[ending],
            state=state,
            group=group,
            settings=config.settings(),
        )
        group.wait()  # while rank 0 writes
        with suppress(InputError):  # which rank 0 says
            for part in samples.values():
                if isinstance(part.X, Part):
                    _measured(result, part, config, group)


def plan_run(config: Config, backend: str | None = None) -> Plan:
    """What `train_run` would ask of the device's memory."""
    chosen = choose_backend(backend, config)
    parts = read_parts(config)
    with _naming(config):
        model = new_model(config, parts, chosen)
        samples = samples_of(model, parts, config)
        return plan_training(
            model,
            samples["train"],
            validation=samples.get("validation"),
            settings=config.settings(),
            copies=config.training.checkpoint != "none",
        )


def find_rate(config: Config, backend: str | None = None) -> RateSearch:
    """A range test of the learning rate on the rows that `train_run` would train on."""
    chosen = choose_backend(backend, config)
    parts = read_parts(config)
    with _naming(config), limited(config.threads):
        model = new_model(config, parts, chosen)
        rows = samples_of(model, parts, config)["train"]
        return find_learning_rate(model, rows, settings=config.settings())


def run_name(path: Path) -> str:
    """What a run of this file is called; the settings of a run are called as the run."""
    return path.resolve().parent.name if path.name == SETTINGS else path.stem


@contextmanager
def _naming(config: Config) -> Iterator[None]:
    """Put the name of the file before what the library says about its settings."""
    try:
        yield
    except InputError as error:
        text = str(error)
        raise InputError(
            text if text.startswith(str(config.path)) else f"{config.path}: {text}"
        ) from error


def _size(model: Model, config: Config) -> int:
    """Bytes the folder will need: the model, its state and the checkpoints."""
    itemsize = 8 if model.dtype == "float64" else 4
    states = 1 + (config.training.keep + 2 if config.training.checkpoint != "none" else 0)
    of_a_state = 2 + len(config.settings().make_optimizer().state)  # the weights, the best ones
    return (1 + states * of_a_state) * model.network.parameters * itemsize + 1_000_000


class _History:
    """The history as a file that grows by a row an epoch; a callback of the run.

    The file stays open: it is written to wherever the folder is moved. What the disk does not take
    is left out; the history is written again, whole, when training has ended.
    """

    def __init__(self, folder: RunFolder):
        self.path = folder.path / HISTORY
        self.file: TextIO | None = None

    def __enter__(self) -> "_History":
        return self

    def __exit__(self, *_: object) -> None:
        if self.file is not None:
            with suppress(OSError):
                self.file.close()

    def on_run_start(self, run: Run) -> None:
        with suppress(OSError):
            self.file = open(self.path, "w", encoding="utf-8", newline="")  # noqa: SIM115
            self._add(run.state.history)

    def on_epoch_end(self, run: Run) -> None:
        self._add({name: values[-1:] for name, values in run.state.history.items()})

    def _add(self, rows: dict[str, list[float]]) -> None:
        with suppress(OSError):
            if self.file is not None and rows:
                text = _history_csv(rows)
                self.file.write(text.partition("\n")[2] if self.file.tell() else text)
                self.file.flush()


# ------------------------------------------------------------------------------ what is written


def _metrics(
    result: Result,
    parts: dict[str, Samples],
    seconds: float,
    gone_on: State | None,
    config: Config,
    group: Group,
) -> dict[str, Any]:
    """What metrics.json holds; gone_on: the state that the run went on from."""
    model, state, before = result.model, result.state, gone_on.epoch if gone_on else 0
    group.wait()
    measured = {
        name: {"rows": part.n}
        | _measured(result, part, config, group if isinstance(part.X, Part) else ALONE)
        for name, part in parts.items()
    }
    in_epochs = sum(result.history.get("seconds", [])[before:])
    samples = parts["train"].n * (state.epoch - before)
    return {
        **measured,
        "stopped": result.stopped,
        "diverged": result.diverged,
        "out_of_memory": result.out_of_memory,
        "epochs": state.epoch,
        "epochs_before": before,
        "steps": state.step,
        "parameters": model.network.parameters,
        "seconds": round(seconds, 3),
        "samples_per_second": round(samples / in_epochs) if in_epochs else None,
        "backend": model.backend.name,
        "device": model.backend.device_name(),
        "precision": model.precision,
        "versions": {
            "array-mlp": mlp.__version__,
            "python": platform.python_version(),
            "numpy": np.__version__,
            "backend": model.backend.version(),
        },
    }


def _measured(result: Result, part: Samples, config: Config, group: Group) -> dict[str, float]:
    """How good the model is on these rows; nothing where memory does not suffice to find out."""
    if result.out_of_memory:
        return {}
    try:
        settings = config.training.settings(config.seed)
        return measure(result.model, part, settings.metrics, settings.watched, group)[0]
    except InputError as error:
        if is_short(result.model.backend, error.__cause__):
            return {}  # what was learned is written all the same
        raise


def _save(folder: RunFolder, result: Result, files: dict[str, bytes]) -> tuple[Path, str]:
    """Model, state and what belongs to them: where they are, and what stood in the way of the
    folder. InputError if they could be written nowhere."""
    try:
        folder.move()
        written, short = _write(folder.path, result, files)
        folder.say(written, **({"status": OUT_OF_MEMORY, "stopped": short} if short else {}))
        return folder.path, _left_by(folder, written, short) if short else ""
    except InputError as error:
        fault = str(error)
    try:
        elsewhere = Path(tempfile.mkdtemp(prefix=f"{folder.path.name}-"))
        _, short = _write(elsewhere, result, files)
    except (InputError, OSError) as error:
        raise InputError(
            f"{fault}; nor could {tempfile.gettempdir()} take the model ({error}); go on from the "
            f"last checkpoint by `mlp train --resume {folder.path}`, when there is room again"
        ) from error
    return elsewhere, f"{fault}; {short}" if short else fault


def _write(path: Path, result: Result, files: dict[str, bytes]) -> tuple[list[str], str]:
    """The names of what is written, and what was not because memory ran out."""
    backend = result.model.backend
    large: dict[str, Callable[[], None]] = {
        STATE_FILE: lambda: save_state(result.state, path / STATE_FILE, backend),
        MODEL_FILE: lambda: save_model(result.model, path / MODEL_FILE),
    }
    written, short = list(files), []
    for name, write in large.items():
        try:
            write()
            written.append(name)
        except Exception as error:
            if not is_short(backend, error):
                raise
            where, cause = shortage(backend, error)
            short.append(f"out of memory on {where} while {name} was written ({cause})")
    for name, data in files.items():
        write_atomically(path / name, data)
    return written, "; ".join(short)


def _left_by(folder: RunFolder, written: list[str], short: str) -> str:
    """What memory was short for, and what to go on from."""
    if STATE_FILE in written or Checkpoints(folder.checkpoints).found():
        again = f"go on by `mlp train --resume {folder.path}`, which writes them"
        return f"{short}; when there is more memory, {again}"
    return f"{short}; nothing is left to go on from"


def _complete(folder: RunFolder, result: Result, metrics: dict[str, Any]) -> str:
    """Metrics and picture, and how the run ended; what stood in their way."""
    files = [MODEL_FILE, STATE_FILE, SETTINGS, HISTORY, METRICS]
    try:
        folder.write(METRICS, _json_bytes(metrics))
        if _picture(folder, result):
            files.append(PICTURE)
        with suppress(OSError):
            (folder.checkpoints / LOCK).unlink(missing_ok=True)  # the run has one
            folder.checkpoints.rmdir()  # if there were none
        folder.say(files, status=_status(result), stopped=result.stopped)
    except InputError as error:
        return str(error)
    return ""


def _status(result: Result) -> str:
    """A run's ending in a word or two."""
    if result.diverged:
        return "diverged"
    if result.out_of_memory:
        return OUT_OF_MEMORY
    return INTERRUPTED if result.stopped.startswith(INTERRUPTED) else "finished"


def _picture(folder: RunFolder, result: Result) -> bool:
    """Whether there is one. It is the least of a run: whatever fails in drawing it is a warning."""
    picture = io.BytesIO()
    try:
        if not plot_history(result.history, picture):
            return False
        folder.write(PICTURE, picture.getvalue())
    except Exception as error:  # of a library that reads fonts and settings of the user's
        warnings.warn(f"{folder.path / PICTURE} is left out: {error}", stacklevel=2)
        return False
    return True


def _json_bytes(values: dict[str, Any]) -> bytes:
    text = json.dumps(_finite(values), indent=2, ensure_ascii=False, allow_nan=False)
    return (text + "\n").encode()


def _finite(value: Any) -> Any:
    """The value with null for what JSON cannot hold, NaN and infinity."""
    if isinstance(value, dict):
        return {key: _finite(entry) for key, entry in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _history_csv(history: dict[str, list[float]]) -> str:
    """One row an epoch; a quantity that was not measured in one is blank there."""
    columns = [["" if math.isnan(x) else x for x in values] for values in history.values()]
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(history)
    rows.writerows(zip(*columns, strict=True))
    return text.getvalue()


# ------------------------------------------------------------------------------ an earlier run


def load_run(folder: Path, backend: str | None = None) -> tuple[Model, Config | None]:
    """The model of a run on this backend (else the run's own), and the run's settings.

    A model file, as `Model.save` or an estimator writes it, has no settings.
    """
    if folder.is_file():
        return load_model(folder, choose_backend(backend, None)), None
    path = in_run(folder, MODEL_FILE)
    config = load(in_run(folder, SETTINGS))
    try:
        chosen = choose_backend(backend, config)
    except BackendError as error:
        if backend is None:
            raise BackendError(f"{error}; or choose another one by --backend") from error
        raise
    return load_model(path, chosen), config
