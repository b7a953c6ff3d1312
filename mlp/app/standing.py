"""Where an earlier run stands, and whether it may be gone on with under these settings and data."""

import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from mlp.app.config import FILES, VERSION, Config, flat, load
from mlp.app.fingerprint import differences
from mlp.app.run_folder import CHECKPOINTS, METRICS, SETTINGS
from mlp.errors import InputError, did_you_mean, shown
from mlp.model import Model
from mlp.sealed import MANIFEST, check, read_manifest
from mlp.training.checkpoint import is_finite, load_state
from mlp.training.checkpoints import STATE_FILE, Checkpoints, epoch_of
from mlp.training.state import State

# What may be other when a run goes on. Files may move: it is their rows that are compared.
FREE = {
    *("backend", "threads"),
    *(f"data.{name}" for name in FILES),
    *(f"training.{name}" for name in ("epochs", "patience", "learning_rate", "batch_size")),
    *("training.checkpoint", "training.keep"),
}


class Over(InputError):
    """A run that has ended as its settings say: there is nothing to go on with."""


def standing(
    run: Path, config: Config, model: Model, data: dict[str, Any], rows: int
) -> State | None:
    """Where a run stands, at the settings' learning rate; None before its first checkpoint.

    model: untrained. data: the fingerprint of the data now. rows: to train on. Raises InputError
    for other settings or data, and if it cannot be gone on with.
    """
    manifest = _manifest(run)
    about, now = manifest.get("about", {}), resolved(config, model)
    before = about.get("settings") or resolved(load(in_run(run, SETTINGS)), model)
    _check_settings(run, before, now, config.path)
    if "data" in about:
        _check_data(run, about["data"], data)
    state = newest_state(run, manifest)
    if state is None:
        return None
    training = config.training
    # One that was ended in its last writing has no ending in its manifest: it is written now.
    is_over = not manifest or METRICS in manifest.get("files", ())
    if state.is_past(training.epochs) or (is_over and state.epoch == training.epochs):
        raise (Over if is_over else InputError)(
            f"{run} has {state.done()} and {config.path} asks for {training.epochs} epochs in all; "
            f"to go on set more, as in --set training.epochs={2 * max(state.epoch, 1)}"
        )
    if is_over and training.patience and state.waited >= training.patience:
        raise Over(
            f"{run} ended on patience: {state.waited} epochs without anything better than epoch "
            f"{state.best_epoch}; to go on set more, as in --set training.patience="
            f"{2 * state.waited}"
        )
    size = config.settings().rows_of_a_batch(rows)
    other_cut = state.batch_losses is not None and state.batch_losses.shape[0] != -(-rows // size)
    before_size, now_size = (x["training"].get("batch_size") for x in (before, now))
    if before_size != now_size or other_cut:
        state = replace(state, batch=0, batch_losses=None)  # the epoch under way begins again
    return replace(state, learning_rate=config.settings().rate())


def newest_state(run: Path, manifest: dict[str, Any]) -> State | None:
    """The newest whole state of a run: that of its ending, or of a checkpoint; None if it has not
    got so far. A warning names each that is damaged."""
    states = list(_states(run, manifest))
    if not states:
        return None
    finite = [state for state in states if is_finite(state)]
    if not finite:
        raise InputError(
            f"{run} diverged, its optimizer's state is not finite and cannot be gone on from; "
            "train anew with a smaller learning rate"
        )
    state = max(finite, key=lambda state: state.step)
    reached = max((epoch_of(path) for path in Checkpoints(run / CHECKPOINTS).found()), default=0)
    if reached > state.epoch:
        warnings.warn(
            f"{run} had come to epoch {reached}; it goes on from epoch {state.epoch}, what came "
            "after is trained again",
            stacklevel=2,
        )
    return state


def _states(run: Path, manifest: dict[str, Any]) -> Iterator[State]:
    path = run / STATE_FILE
    kept = Checkpoints(run / CHECKPOINTS)
    mark = manifest.get("files", {}).get(STATE_FILE)
    try:
        if mark is not None:
            check(path, mark)
        if mark is not None or ("files" not in manifest and path.exists()):
            yield load_state(path)
    except InputError as error:
        if not kept.found():
            raise
        warnings.warn(f"{error}; the checkpoint before it is used", stacklevel=2)
    state = kept.newest()
    if state is not None:
        yield state


def _manifest(run: Path) -> dict[str, Any]:
    """What the manifest of a run says, whose settings are as it says; else what its checkpoints
    say; empty for a run that was made before there were manifests."""
    try:
        manifest = read_manifest(run)
    except InputError as error:
        is_there = (run / MANIFEST).exists()
        return _of_checkpoints(run, str(error) if is_there else f"{run / MANIFEST} is missing")
    if SETTINGS in manifest["files"]:
        check(run / SETTINGS, manifest["files"][SETTINGS])
    return manifest


def _of_checkpoints(run: Path, damage: str) -> dict[str, Any]:
    """What the checkpoints say in place of a damaged manifest: settings and data of the run. If it
    ended is not known, so its ending is written again."""
    about = Checkpoints(run / CHECKPOINTS).said()
    if about is not None:
        warnings.warn(f"{damage}; the run goes on by what its checkpoints say of it", stacklevel=2)
        return {"about": about}
    if (run / MANIFEST).exists():
        raise InputError(
            f"{damage}, and no whole checkpoint says what the run was; train anew without --resume"
        )
    return {}


def _check_settings(run: Path, before: dict[str, Any], now: dict[str, Any], path: Path) -> None:
    old, new = dict(flat(before)), dict(flat(now))
    other = [
        f"{key} = {shown(old.get(key, 'none'))} there, {shown(new.get(key, 'none'))} in {path}"
        for key in sorted(old.keys() | new.keys())
        if key not in FREE and old.get(key) != new.get(key)
    ]
    if other:
        raise InputError(
            f"{run} was trained with other settings: {'; '.join(other)}; go on by `mlp train "
            f"--resume {run}` alone, or train anew without --resume"
        )


def _check_data(run: Path, then: dict[str, Any], now: dict[str, Any]) -> None:
    other = differences(then, now)
    if other:
        raise InputError(
            f"{run} was trained on other data: {'; '.join(other)}; name those that it was trained "
            "on by --set data.file=, or train anew without --resume"
        )


def resolved(config: Config, model: Model) -> dict[str, Any]:
    """The settings with nothing left open: the backend in use, all units, absolute paths."""
    values: dict[str, Any] = {"version": VERSION, "seed": config.seed, "backend": None}
    values |= config.model_dump(mode="json", exclude_none=True, by_alias=True)
    values["backend"] = model.backend.name
    if "kind" not in values["layers"][-1]:  # a dense layer
        values["layers"][-1] = {"units": model.network.outputs} | values["layers"][-1]
    values["training"]["learning_rate"] = config.settings().rate()
    for name in FILES:
        if name in values["data"]:
            values["data"][name] = str(Path(values["data"][name]).resolve())
    return values


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
