"""Checkpoints: whatever ends a run, it goes on from the last whole one as if it had not stopped."""

import errno
import os
import threading
import warnings
from pathlib import Path

import numpy as np
import pytest

import mlp
from mlp import Checkpoints, Dense, InputError, Model, Network, train
from mlp.formulas.optimizers import OPTIMIZERS
from mlp.sealed import MANIFEST, damages, read_manifest, write_folder
from mlp.training.checkpoints import STATE_FILE, parsed
from tests.plants import damage

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


def wait(run):
    """Until what is under way is written: these runs are faster than the disk."""
    for thread in threading.enumerate():
        if thread.name == "checkpoint":
            thread.join()


waits = type("Waits", (), {"on_batch_end": staticmethod(wait)})()


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
        state = mlp.load_state(path / STATE_FILE)
        found = train(model(hidden=hidden), X, t, state=state, **options)
        same_run(found, expected, expected.model.backend)


def test_the_last_ones_and_the_best_stay(tmp_path):
    kept = Checkpoints(tmp_path, "1 epoch", keep=2)
    options = RUN | {"learning_rate": 3.0, "epochs": 9, "optimizer": "sgd"}
    train(model(), X, t, checkpoint=kept, callbacks=[waits], **options)
    found = kept.found()
    assert 2 <= len(found) <= 3
    assert not any(damages(path) for path in found)
    assert read_manifest(found[0])["about"]["epoch"] == 9


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


def test_every_damage_is_named_and_the_checkpoint_before_is_used(tmp_path):
    names = [STATE_FILE, MANIFEST]
    kept = Checkpoints(tmp_path / "kept", "1 step")
    train(model(), X, t, checkpoint=kept, **RUN)
    state = mlp.load_state(kept.found()[0] / STATE_FILE)
    contents = {STATE_FILE: (kept.found()[0] / STATE_FILE).read_bytes()}
    for number in range(60):
        folder = tmp_path / str(number)
        folder.mkdir()
        for k in (1, 2):
            write_folder(folder / f"00000{k}-epoch-{k}", contents, {"epoch": k})
        damage(folder / "000002-epoch-2" / names[number % 2], number)
        assert len(damages(folder / "000002-epoch-2")) == 1
        with pytest.warns(UserWarning, match="000002-epoch-2.*the checkpoint before it is used"):
            assert Checkpoints(folder).newest().step == state.step
        damage(folder / "000001-epoch-1" / names[number % 2], number)
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            assert Checkpoints(folder).newest() is None
        assert ["00000" in str(w.message) for w in said] == [True, True]


# --- disks -----------------------------------------------------------------------------------


@pytest.mark.parametrize("call", ["mkdir", "open", "fsync", "rename"])
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
    assert not [path for path in Path(kept.folder).iterdir() if path.name.startswith(".")]


def test_a_folder_that_goes_away_is_not_made_again(tmp_path):
    kept = Checkpoints(tmp_path / "kept", "1 step")

    def remove(run):
        os.rename(kept.folder, tmp_path / "moved")

    with pytest.warns(UserWarning, match="no checkpoint could be written"):
        result = train(model(), X, t, checkpoint=kept, callbacks=[waits, at_step(5, remove)], **RUN)
    assert result.state.epoch == 6
    assert not Path(kept.folder).exists()
