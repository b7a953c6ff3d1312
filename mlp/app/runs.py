"""A run: from the settings of one file to a trained model in a folder of its own, and back.

The folder holds

    model.safetensors   network, weights, scaling, class names: all that predicting needs
    state.safetensors   where training stands, to go on from
    settings.json       the settings as they were resolved; `mlp train settings.json` does it again
    history.csv         one row an epoch
    metrics.json        how good the model is on each part of the data, and how the run went
    loss.png            the history as a picture, where matplotlib is installed

It is written when training has ended, by whatever cause: all epochs, patience, Ctrl-C, divergence,
memory that ran out.
"""

import csv
import io
import json
import math
import platform
import signal
import threading
import time
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

import mlp
from backends import BackendError
from mlp.app.config import FILES, Config, load
from mlp.app.plots import plot_history
from mlp.app.prepare import choose_backend, new_model, read_parts, samples_of
from mlp.app.run_folder import NewFolder, cannot_write, check_free, new_folder, next_free
from mlp.data.samples import Samples
from mlp.errors import InputError, did_you_mean
from mlp.memory import shortages
from mlp.model import Model, load_model, measure, save_model
from mlp.model_file import MODEL_FILE
from mlp.threads import limited
from mlp.training.checkpoint import load_state, save_state
from mlp.training.loop import plan_training, train
from mlp.training.memory_plan import Plan
from mlp.training.run import Result
from mlp.training.state import State

STATE_FILE, SETTINGS = "state.safetensors", "settings.json"


@dataclass(frozen=True)
class Finished:
    """A run that has ended: its folder, what training gave, and what metrics.json says."""

    folder: Path
    result: Result
    metrics: dict[str, Any]

    @property
    def interrupted(self) -> bool:
        """Whether Ctrl-C ended it."""
        return self.result.stopped.startswith("interrupted")


# ------------------------------------------------------------------------------ a new run


def train_run(
    config: Config,
    *,
    out: Path | None = None,
    backend: str | None = None,
    resume: Path | None = None,
    callbacks: Iterable[Any] = (),
) -> Finished:
    """Train as the settings say and write the run's folder.

    out: the folder, which must not be there yet; None is runs/NAME for NAME.toml, or the next free
    runs/NAME-2, ... backend: a name that takes precedence over the file's. resume: a run to go on
    from. Everything that can be refused is refused before training.
    """
    chosen = choose_backend(backend, config)
    if out is not None:
        check_free(out)
    place = out if out is not None else next_free(Path("runs") / _name(config.path))
    parts = read_parts(config)
    with _naming(config):
        model = new_model(config, parts, chosen)
        samples = samples_of(model, parts, config)
    settings = config.settings()
    state = None if resume is None else _state_of(resume, config)
    size = _size(model, settings.make_optimizer().state)
    with new_folder(place, size) as folder, limited(config.threads):
        started = time.perf_counter()
        with warnings.catch_warnings(), _naming(config):
            warnings.simplefilter("ignore", RuntimeWarning)  # a divergence is in the result
            result = train(
                model,
                samples["train"],
                validation=samples.get("validation"),
                callbacks=callbacks,
                state=state,
                settings=settings,
            )
        seconds = time.perf_counter() - started
        with _undisturbed():
            metrics = _metrics(result, samples, seconds, state.epoch if state else 0)
            where = _write(folder, result, config, metrics)
    picture = io.BytesIO()
    if plot_history(result.history, picture):
        _try_write(where / "loss.png", picture.getvalue())
    return Finished(where, result, metrics)


def plan_run(config: Config, backend: str | None = None) -> Plan:
    """What `train_run` would ask of the device's memory."""
    chosen = choose_backend(backend, config)
    parts = read_parts(config)
    with _naming(config):
        model = new_model(config, parts, chosen)
        samples = samples_of(model, parts, config)
        watched, settings = samples.get("validation"), config.settings()
        return plan_training(model, samples["train"], validation=watched, settings=settings)


def _name(path: Path) -> str:
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


def _size(model: Model, vectors: tuple[str, ...]) -> int:
    """Bytes the folder will need: the weights, those of the state, its best ones and vectors."""
    itemsize = 8 if model.dtype == "float64" else 4
    return (3 + len(vectors)) * model.network.parameters * itemsize + 1_000_000


def _state_of(run: Path, config: Config) -> State:
    """Where an earlier run stood, for this one to go on from at its own learning rate."""
    state = load_state(in_run(run, STATE_FILE))
    epochs = config.training.epochs
    if state.epoch >= epochs:
        raise InputError(
            f"{run} has {state.epoch} epochs and {config.path} asks for {epochs} in all; to go on "
            f"set more, as in --set training.epochs={2 * max(state.epoch, 1)}"
        )
    if not all(np.isfinite(np.asarray(x)).all() for x in state.vectors.values()):
        raise InputError(
            f"{run} diverged, its optimizer's state is not finite and cannot be gone on from; "
            "train anew with a smaller learning rate"
        )
    if load(in_run(run, SETTINGS)).training.batch_size != config.training.batch_size:
        state = replace(state, batch=0, batch_losses=None)  # the epoch under way begins again
    return replace(state, learning_rate=config.settings().rate())


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Ctrl-C waits: what is being written is what it is meant to keep."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


# ------------------------------------------------------------------------------ what is written


def _metrics(
    result: Result, parts: dict[str, Samples], seconds: float, before: int
) -> dict[str, Any]:
    """What metrics.json holds; ``before``: epochs of the run that this one went on from."""
    model, state = result.model, result.state
    measured = {name: {"rows": part.n} | _measured(result, part) for name, part in parts.items()}
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


def _measured(result: Result, part: Samples) -> dict[str, float]:
    """How good the model is on these rows; nothing where memory does not suffice to find out."""
    if result.out_of_memory:
        return {}
    try:
        return measure(result.model, part)[0]
    except InputError as error:
        if isinstance(error.__cause__, shortages(result.model.backend)):
            return {}  # what was learned is written all the same
        raise


def _write(folder: NewFolder, result: Result, config: Config, metrics: dict[str, Any]) -> Path:
    """All files but the picture; where they are in the end."""
    model, path = result.model, folder.path
    try:
        save_model(model, path / MODEL_FILE)
        save_state(result.state, path / STATE_FILE, model.backend)
        _write_json(path / SETTINGS, resolved(config, model))
        _write_json(path / "metrics.json", metrics)
        (path / "history.csv").write_text(_history_csv(result.history), encoding="utf-8")
        return folder.finish()
    except OSError as error:
        raise cannot_write(folder.place, error) from error
    except InputError as error:
        if isinstance(error.__cause__, OSError):
            raise cannot_write(folder.place, error.__cause__) from error
        raise


def resolved(config: Config, model: Model) -> dict[str, Any]:
    """The settings with nothing left open: the backend in use, all units, absolute paths."""
    values: dict[str, Any] = {"seed": config.seed, "backend": None}
    values |= config.model_dump(mode="json", exclude_none=True, by_alias=True)
    values["backend"] = model.backend.name
    if "kind" not in values["layers"][-1]:  # a dense layer
        values["layers"][-1] = {"units": model.network.outputs} | values["layers"][-1]
    values["training"]["learning_rate"] = config.settings().rate()
    for name in FILES:
        if name in values["data"]:
            values["data"][name] = str(Path(values["data"][name]).resolve())
    return values


def _write_json(path: Path, values: dict[str, Any]) -> None:
    text = json.dumps(_finite(values), indent=2, ensure_ascii=False, allow_nan=False)
    path.write_text(text + "\n", encoding="utf-8")


def _finite(value: Any) -> Any:
    """The value with null for what JSON cannot hold, NaN and infinity."""
    if isinstance(value, dict):
        return {key: _finite(entry) for key, entry in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _history_csv(history: dict[str, list[float]]) -> str:
    """One row an epoch; a quantity that was not measured from the start begins with blanks."""
    epochs = len(history.get("epoch", []))
    columns = [[""] * (epochs - len(values)) + list(values) for values in history.values()]
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(history)
    rows.writerows(zip(*columns, strict=True))
    return text.getvalue()


def _try_write(path: Path, data: bytes) -> None:
    """A picture that finds no room is left out; the run is safe already."""
    try:
        path.write_bytes(data)
    except OSError:
        path.unlink(missing_ok=True)


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


def in_run(folder: Path, name: str) -> Path:
    """A file of a run's folder; InputError if it is no such folder."""
    if (folder / name).is_file():
        return folder / name
    if folder.is_file():
        raise InputError(f"{folder} is a file; a run is a folder that `mlp train` writes")
    if not folder.is_dir():
        known = [str(file.parent) for file in Path().glob(f"runs/*/{name}")]
        hint = did_you_mean(folder, sorted(known)) if known else ""
        raise InputError(f"no run {folder}{hint or '; it is a folder that `mlp train` writes'}")
    raise InputError(f"{folder} is no folder of a run: it has no {name}")
