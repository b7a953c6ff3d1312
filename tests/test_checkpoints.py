"""Checkpoints: whatever ends a run, it goes on from the last whole one as if it had not stopped."""

import errno
import json
import os
import warnings
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

import mlp
from backends import get_backend
from mlp import Checkpoints, Dense, InputError, Model, Network, train
from mlp.formulas.optimizers import OPTIMIZERS
from mlp.sealed import MANIFEST, seal
from mlp.training.checkpoints import STATE_FILE, parsed
from tests.plants import damage, settle

rng = np.random.default_rng(0)
X = rng.normal(size=(40, 3))
t = (X[:, 0] > 0).astype(int)
RUN = {"batch_size": 8, "epochs": 6, "validation": (X[:9], t[:9]), "patience": 20}


def model(backend="numpy", dropout=0.3, hidden=1):
    net = Network(3, [*[Dense(4, "tanh", dropout=dropout)] * hidden, Dense(2, "softmax")])
    return Model(net, "cross_entropy", seed=1, backend=backend)


def same_run(found, expected, backend):
    """Weights and history, bit for bit, but for the seconds."""
    for name in ("w", "best_w"):
        a, b = (backend.to_numpy(getattr(x.state, name)) for x in (found, expected))
        np.testing.assert_array_equal(a, b)
    for name in set(expected.history) - {"seconds"}:
        assert found.history[name] == expected.history[name]


class Stop(Exception):
    """Of a callback."""


def at_step(number, do):
    """A callback."""

    def look(run):
        if run.state.step == number:
            do(run)

    return type("At", (), {"on_batch_end": staticmethod(look)})()


def fail(run):
    raise Stop


waits = type("Waits", (), {"on_batch_end": staticmethod(settle)})()


# --- when ------------------------------------------------------------------------------------


@pytest.mark.thorough_on("strict:device1")
@pytest.mark.parametrize("every", ["1 epoch", "2 epochs", "1 step", "7 steps", "0.001s", "none"])
@pytest.mark.parametrize("step", [3, 10, 21])
def test_after_an_end_at_any_step_the_run_goes_on_bit_for_bit(backend, tmp_path, every, step):
    """Here an error of a callback's: the state up to that batch is kept."""
    expected = train(model(backend), X, t, **RUN)
    kept = Checkpoints(tmp_path, every)
    with pytest.raises(Stop):
        train(model(backend), X, t, checkpoint=kept, callbacks=[at_step(step, fail)], **RUN)
    state = kept.newest()
    assert state is not None
    assert state.step == step
    same_run(train(model(backend), X, t, state=state, checkpoint=kept, **RUN), expected, backend)
    assert kept.newest().epoch == 6


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_every_checkpoint_on_the_way_leads_to_the_same_end(tmp_path, optimizer):
    options, hidden = RUN | {"optimizer": optimizer}, 2
    expected = train(model(hidden=hidden), X, t, **options)
    kept = Checkpoints(tmp_path, "4 steps", keep=100)
    with_them = train(model(hidden=hidden), X, t, checkpoint=kept, **options)
    same_run(with_them, expected, expected.model.backend)
    seen = {path.name for path in kept.found()}
    assert len(seen) > 1
    for path in kept.found():
        state = mlp.load_state(path)
        found = train(model(hidden=hidden), X, t, state=state, **options)
        same_run(found, expected, expected.model.backend)


def test_the_last_ones_and_the_best_stay(tmp_path):
    kept = Checkpoints(tmp_path, "1 epoch", keep=2)
    options = RUN | {"learning_rate": 3.0, "epochs": 9, "optimizer": "sgd"}
    train(model(), X, t, checkpoint=kept, callbacks=[waits], **options)
    found = kept.found()
    assert 2 <= len(found) <= 3
    assert mlp.load_state(found[0]).epoch == 9


def test_before_anything_was_watched_no_checkpoint_is_the_best(tmp_path):
    """Also where greater is better: of the first epoch's checkpoints none stays for that."""
    kept = Checkpoints(tmp_path, "2 steps", keep=1)
    about = RUN | {"watch": "accuracy", "metrics": ("accuracy",)}
    result = train(model(), X, t, checkpoint=kept, callbacks=[waits], **about)
    found = [mlp.load_state(path) for path in kept.found()]
    best = max(result.history["validation_accuracy"])
    assert all(state.epoch > 0 for state in found)
    assert best in [state.history["validation_accuracy"][-1] for state in found]


@pytest.mark.parametrize(
    ("text", "expected"),
    [("60s", (60, "s")), ("1.5 min", (90, "s")), ("2h", (7200, "s")), ("1 epoch", (1, "epoch"))],
)
def test_how_often(text, expected):
    assert parsed(text) == expected


@pytest.mark.parametrize("every", ["", "5", "0 epochs", "-3s", "5 weeks", "all", 5, None, True])
def test_how_often_must_be_said(every):
    with pytest.raises(InputError, match=r"^checkpoint is '60s', .* or 'none', not "):
        Checkpoints("somewhere", every)


@pytest.mark.parametrize("folder", ["", ".", "/", 3, None, "a\0b"])
def test_a_folder_that_cannot_be_theirs_alone_is_refused(folder):
    with pytest.raises(InputError, match=r"theirs alone|path (is|holds)"):
        Checkpoints(folder)


def test_the_folder_of_another_run_is_refused(tmp_path):
    train(model(), X, t, checkpoint=tmp_path, **RUN)
    with pytest.raises(InputError, match=r"holds the checkpoints of another run: name another"):
        train(model(), X, t, checkpoint=tmp_path, **RUN)


# --- damages ---------------------------------------------------------------------------------


def folder_of_before(place, state):
    """A checkpoint as earlier versions wrote it, and the files that it is of."""
    place.mkdir()
    mlp.save_state(state, place / STATE_FILE, get_backend("numpy"))
    seal(
        place, [STATE_FILE], {"epoch": state.epoch, "watch": "loss", "loss": "0.5", "of": {"a": 1}}
    )
    return [place / STATE_FILE, place / MANIFEST]


@pytest.mark.parametrize("before", [False, True])
def test_every_damage_is_named_and_the_checkpoint_before_is_used(tmp_path, before):
    kept = Checkpoints(tmp_path / "kept", "1 step")
    train(model(), X, t, checkpoint=kept, **RUN)
    state = kept.newest()
    for number in range(60):
        folder, files = tmp_path / str(number), []
        folder.mkdir()
        for k in (1, 2):
            if before:
                files.append(folder_of_before(folder / f"00000{k}-epoch-{k}", state)[number % 2])
            else:
                files.append(folder / f"00000{k}-epoch-{k}.safetensors")
                files[-1].write_bytes(kept.found()[0].read_bytes())
        damage(files[1], number)
        if not before and not files[1].exists():
            continue  # nothing is read of it
        with pytest.warns(UserWarning, match="000002-epoch-2.*the checkpoint before it is used"):
            assert Checkpoints(folder).newest().step == state.step
        damage(files[0], number)
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            assert Checkpoints(folder).newest() is None
        assert ["00000" in str(w.message) for w in said] == [True, True]


def test_what_cannot_be_read_is_set_aside_and_not_lost(tmp_path):
    """It may be of a later version, whole, or for other users' eyes."""
    kept = Checkpoints(tmp_path, "1 epoch")
    state = train(model(), X, t, checkpoint=kept, **RUN).state
    newest, before = kept.found()[:2]
    tensors = load_file(newest)
    with safe_open(newest, framework="numpy") as file:
        about = file.metadata() | {"format": "array-mlp state 3"}
    save_file(tensors, newest, about)
    later = newest.read_bytes()
    with pytest.warns(UserWarning, match="is array-mlp state 3, not .*the checkpoint before it"):
        state = kept.newest()
    assert state.epoch == mlp.load_state(before).epoch
    train(model(), X, t, checkpoint=kept, state=state, **RUN)
    assert newest.with_name(f"{newest.name}.damaged").read_bytes() == later
    assert kept.newest().epoch == 6


def test_a_run_goes_on_from_a_folder_of_before(tmp_path):
    """Earlier versions wrote a checkpoint as a folder of two files, and the history as JSON."""
    expected = train(model(), X, t, **RUN)
    kept = Checkpoints(tmp_path / "now", "1 step")
    with pytest.raises(Stop):
        train(model(), X, t, checkpoint=kept, callbacks=[waits, at_step(14, fail)], **RUN)
    kept = Checkpoints(tmp_path / "before", "1 step", keep=2)
    Path(kept.folder).mkdir()
    for k, path in enumerate(reversed(Checkpoints(tmp_path / "now").found()), start=1):
        state = mlp.load_state(path)
        file, _ = folder_of_before(tmp_path / f"before/00000{k}-epoch-{state.epoch}", state)
        history_as_json(file)
        seal(file.parent, [file.name], {"loss": "0.5", "of": {"a": 1}})
    assert kept.said() == {"a": 1}
    assert kept.newest().step == 14
    assert kept.newest().history == state.history
    found = train(model(), X, t, state=kept.newest(), checkpoint=kept, callbacks=[waits], **RUN)
    same_run(found, expected, expected.model.backend)
    assert len([path for path in kept.found() if path.is_file()]) >= 2  # those of before went


def history_as_json(path):
    """A state's file as earlier versions wrote it."""
    with safe_open(path, framework="numpy") as file:
        about = json.loads(file.metadata()["about"])
    tensors = load_file(path)
    names = about["history"]
    columns = {name: tensors.pop(f"history_{name}") for name in names}
    about["history"] = {name: [repr(float(x)) for x in values] for name, values in columns.items()}
    save_file(tensors, path, {"format": "array-mlp state 1", "about": json.dumps(about)})


def test_the_file_is_as_the_library_of_the_format_writes_it(tmp_path):
    """Header and tensors, but for the order of what the header says."""
    path = tmp_path / "s"
    mlp.save_state(train(model(), X, t, **RUN).state, path, get_backend("numpy"))
    with safe_open(path, framework="numpy") as file:
        metadata = file.metadata()
    ours = path.read_bytes()
    save_file(load_file(path), path, metadata)
    theirs = path.read_bytes()
    assert len(ours) == len(theirs)
    at = 8 + int.from_bytes(ours[:8], "little")
    assert ours[:8] == theirs[:8]
    assert json.loads(ours[8:at]) == json.loads(theirs[8:at])
    assert ours[at:] == theirs[at:]


def test_the_number_counts_and_not_its_letters(tmp_path):
    state = train(model(), X, t, **RUN).state
    for name in ("999999-epoch-1", "1000000-epoch-2"):
        mlp.save_state(state, tmp_path / f"{name}.safetensors", get_backend("numpy"))
    kept = Checkpoints(tmp_path, keep=1)
    kept.write(state, get_backend("numpy"), "loss")
    assert [path.name[:7] for path in kept.found()][:1] == ["1000001"]


# --- one writer ------------------------------------------------------------------------------


def test_a_second_writer_of_the_folder_is_refused(tmp_path):
    """Also by a thread of the same program; when the first has ended the folder is free."""
    said = []

    def second(run):
        with pytest.raises(InputError, match=r"is written to by another program.*name another"):
            train(model(), X, t, checkpoint=tmp_path / "kept", **RUN)
        said.append(run.state.step)

    train(model(), X, t, checkpoint=tmp_path / "kept", callbacks=[at_step(3, second)], **RUN)
    assert said == [3]
    with pytest.raises(InputError, match="another run"):  # and no longer by another program
        train(model(), X, t, checkpoint=tmp_path / "kept", **RUN)
    state = Checkpoints(tmp_path / "kept").newest()
    for ends in (fail, second):  # whatever ended the one before
        with suppress(Stop):
            at = at_step(35, ends)
            options = RUN | {"epochs": 9}
            train(
                model(), X, t, checkpoint=tmp_path / "kept", state=state, callbacks=[at], **options
            )
        state = Checkpoints(tmp_path / "kept").newest()
    assert state.epoch == 9


# --- disks -----------------------------------------------------------------------------------


@pytest.mark.parametrize("call", ["open", "fsync", "replace", "unlink"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EDQUOT, errno.EROFS])
def test_what_the_disk_refuses_is_one_warning_and_training_goes_on(
    tmp_path, monkeypatch, call, code
):
    """From step 5 to step 20 nothing can be written; the checkpoint after that is."""

    def refuses(*args, **kwargs):
        raise OSError(code, os.strerror(code))

    whole = getattr(os, call)
    begins = at_step(5, lambda run: setattr(os, call, refuses))
    ends = at_step(20, lambda run: setattr(os, call, whole))
    kept = Checkpoints(tmp_path / "kept", "1 step")
    try:
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            result = train(model(), X, t, checkpoint=kept, callbacks=[waits, begins, ends], **RUN)
    finally:
        setattr(os, call, whole)
    assert [str(w.message) for w in said if os.strerror(code) in str(w.message)] != []
    assert len(said) == 1
    assert kept.newest().step == result.state.step
    train(model(), X, t, checkpoint=kept, state=kept.newest(), **RUN)  # what is left is removed
    assert not [path for path in Path(kept.folder).iterdir() if path.name.endswith(".partial")]


def test_a_folder_that_goes_away_is_not_made_again(tmp_path):
    kept = Checkpoints(tmp_path / "kept", "1 step")

    def remove(run):
        os.rename(kept.folder, tmp_path / "moved")

    with pytest.warns(UserWarning, match="no checkpoint could be written"):
        result = train(model(), X, t, checkpoint=kept, callbacks=[waits, at_step(5, remove)], **RUN)
    assert result.state.epoch == 6
    assert not Path(kept.folder).exists()
