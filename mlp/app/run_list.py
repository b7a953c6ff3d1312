"""The runs of a folder, and whether one is whole: `mlp runs` and `mlp verify`."""

import csv
import math
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from backends import get_backend
from mlp.app.run_folder import CHECKPOINTS, is_run
from mlp.app.runs import HISTORY
from mlp.errors import InputError
from mlp.locks import is_held
from mlp.model import load_model
from mlp.model_file import MODEL_FILE
from mlp.sealed import MANIFEST, check, read_manifest
from mlp.training.checkpoint import load_state
from mlp.training.checkpoints import STATE_FILE, Checkpoints, damage, epoch_of

HEAD = ["run", "status", "epochs", "best", "began"]


def runs_in(folder: Path) -> list[list[str]]:
    """A row for each run in a folder, or for the folder if it is one, by `HEAD`; the oldest first.
    InputError if there is no folder."""
    if not folder.is_dir():
        raise InputError(f"no folder {folder}; name the one that the runs are in")
    found = [folder] if is_run(folder) else [x for x in sorted(folder.iterdir()) if is_run(x)]
    return sorted(([str(run), *_row(run)] for run in found), key=lambda row: (row[-1], row[0]))


def _row(run: Path) -> list[str]:
    about: dict[str, Any] = {}
    try:
        about = read_manifest(run)["about"]
        status = _status(run, about)
    except InputError:
        is_there, kept = (run / MANIFEST).exists(), Checkpoints(run / CHECKPOINTS).found()
        status = "made by an earlier version"
        if is_there or kept:
            what = "damaged" if is_there else "missing"
            status = f"{MANIFEST} is {what}; {_goes_on(run)}"
    epochs, best = _history(run / HISTORY)
    return [status, epochs, best, str(about.get("began", ""))[:19].replace("T", " ")]


def _status(run: Path, about: dict[str, Any]) -> str:
    """How a run ended, or whether it is under way."""
    status = str(about.get("status", ""))
    if status != "running":
        return status
    if is_held(run):
        return f"running (process {about['pid']} on {about['host']})"
    return f"ended without a word; {_goes_on(run)}"


def _goes_on(run: Path) -> str:
    """From where it can be gone on with."""
    whole = (x for x in Checkpoints(run / CHECKPOINTS).found() if not damage(x))
    newest = next(whole, None)
    return "begins anew" if newest is None else f"goes on from epoch {epoch_of(newest)}"


def _history(path: Path) -> tuple[str, str]:
    """The number of epochs, and the lowest loss with its epoch, as far as the file says."""
    rows: list[dict[str, str]] = []
    with suppress(OSError, ValueError, csv.Error), open(path, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    name = "validation_loss" if rows and "validation_loss" in rows[0] else "loss"
    values = [(_number(row.get(name)), row.get("epoch", "")) for row in rows]
    loss, epoch = min(values, default=(math.inf, ""))
    return str(len(rows)), f"{name} {loss:.4g} (epoch {epoch})" if loss < math.inf else ""


def _number(text: str | None) -> float:
    with suppress(ValueError, TypeError):
        number = float(text or "")
        return math.inf if math.isnan(number) else number
    return math.inf


def verified(run: Path) -> Iterator[tuple[str, str]]:
    """What there is of a run, and for each "" or what is wrong with it: the files that its manifest
    lists, model and state read, and each checkpoint. InputError if it is no run."""
    if not is_run(run):
        raise InputError(f"{run} is no folder of a run that `mlp train` writes")
    try:
        marks = read_manifest(run)["files"]
        yield MANIFEST, ""
    except InputError as error:
        marks = {}
        yield MANIFEST, str(error)
    for name, mark in marks.items():
        yield name, _wrong(run / name, mark)
    for path in sorted(Checkpoints(run / CHECKPOINTS).found()):
        yield str(path.relative_to(run)), damage(path)


def _wrong(path: Path, mark: dict[str, Any]) -> str:
    try:
        check(path, mark)
    except InputError as error:
        return str(error)
    return _unreadable(path)


def _unreadable(path: Path) -> str:
    """What stands in the way of reading a model or a state; "" if nothing, or if it is neither."""
    try:
        if path.name == MODEL_FILE:
            load_model(path, get_backend("numpy"))
        elif path.name == STATE_FILE:
            load_state(path)
    except InputError as error:
        return str(error)
    return ""
