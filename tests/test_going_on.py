"""Runs that are ended and go on: in their folder, from the last checkpoint, to the same end."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import pytest
from typer.testing import CliRunner

import mlp.app.runs
from mlp.app.cli import app
from mlp.app.config import load
from mlp.app.run_folder import take
from mlp.app.runs import load_run, train_run
from mlp.errors import InputError
from mlp.locks import is_held
from mlp.sealed import MANIFEST, damages, read_manifest
from mlp.training.checkpoints import STATE_FILE, Checkpoints
from tests.kill import content
from tests.plants import at_step, damage, run, settle, write_plants


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder to be in, with a table and the settings for it."""
    write_plants(tmp_path, 'epochs = 6\npatience = 20\ncheckpoint = "1 step"\n')
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLP_BACKEND", raising=False)
    return tmp_path


def fail(run):
    settle(run)
    raise KeyError("mine")


def ended(settings=(), out="part", step=10):
    """A run that an error of a callback's ended after so many steps."""
    config = load("plants.toml", settings)
    with pytest.raises(KeyError, match="mine"):
        train_run(config, out=Path(out), callbacks=[at_step(step, fail)])
    return Path(out)


@pytest.fixture
def whole(here):
    """What an unbroken run comes to."""
    return content(train_run(load("plants.toml"), out=Path("whole")).folder)


# --- going on ----------------------------------------------------------------------------------


@pytest.mark.parametrize("step", [1, 3, 4, 10, 17])
def test_in_its_own_folder_to_the_same_end(here, whole, step):
    part = ended(step=step)
    assert read_manifest(part)["about"]["status"] == "failed"
    out = run("train", "--resume", part)
    assert "folder   part\n" in out
    assert content(part) == whole
    assert read_manifest(part)["about"]["status"] == "finished"
    assert not damages(part)
    assert {path.name for path in here.iterdir()} == {"plants.csv", "plants.toml", "whole", "part"}


def test_before_its_first_checkpoint_a_run_begins_again(here, whole):
    part = ended()
    shutil.rmtree(part / "checkpoints")
    run("train", "--resume", part)
    assert content(part) == whole


def test_auto_begins_or_goes_on_or_says_that_all_is_done(here, whole):
    ended(out="runs/plants")
    auto = "train", "plants.toml", "--resume", "auto"
    assert "folder   runs/plants\n" in run(*auto)
    assert content(Path("runs/plants")) == whole
    assert "has 6 epochs and" in run(*auto)  # code 0
    assert "folder   other\n" in run(*auto, "--out", "other")
    assert content(Path("other")) == whole
    assert [path.name for path in Path("runs").iterdir()] == ["plants"]


@pytest.mark.parametrize("step", [1, 2, 5, 10, 12])
def test_a_run_is_not_taken_for_one_of_fewer_steps(here, step):
    """What was trained beyond the epochs asked for is never in a model that claims so many."""
    part = ended(step=step)
    state = Checkpoints(part / "checkpoints").newest()
    for epochs in range(state.epoch + 2):
        settings = load("plants.toml", [f"training.epochs={epochs}"])
        if (epochs, 0) < (state.epoch, state.batch):
            with pytest.raises(InputError, match=f"has {state.done()} and .* {epochs} epochs in "):
                train_run(settings, resume=part)
            assert Checkpoints(part / "checkpoints").newest().step == step
    train_run(settings, resume=part)
    anew = train_run(settings, out=Path("anew"))
    assert content(part) == content(anew.folder)


@pytest.mark.parametrize("setting", [
    "layers.0.units=9", "training.optimizer=sgd", "training.loss={name='cross_entropy'}", "seed=1",
    "data.validation=0.1", "training.schedule=cosine", "layers.0.dropout=0", "precision=float64",
])  # fmt: skip
def test_other_settings_are_named(here, setting):
    part = ended()
    key = setting.partition("=")[0]
    before = (part / MANIFEST).read_bytes()
    message = run("train", "--resume", part, "--set", setting, code=2)
    assert f"part was trained with other settings: {key}" in message
    assert (part / MANIFEST).read_bytes() == before


@pytest.mark.parametrize("setting", [
    "training.epochs=7", "training.patience=30", "training.learning_rate=0.1",
    "training.batch_size=7", "backend=numpy", "threads=1", "training.keep=1",
])  # fmt: skip
def test_these_settings_may_be_other(here, setting):
    run("train", "--resume", ended(), "--set", setting)
    epochs = json.loads(Path("part/metrics.json").read_text())["epochs"]
    assert epochs == (7 if "epochs" in setting else 6)


def test_other_data_are_named_and_moved_ones_are_not_other(here, whole):
    part = ended()
    Path("moved").mkdir()
    Path("plants.csv").rename("moved/plants.csv")
    assert "no file" in run("train", "--resume", part, code=2)
    rows = Path("moved/plants.csv").read_text()
    Path("other.csv").write_text(rows.replace("1", "2"))
    message = run("train", "--resume", part, "--set", "data.file=other.csv", code=2)
    assert "part was trained on other data: the test rows have other values; " in message
    assert "other.csv" in message
    Path("less.csv").write_text("\n".join(rows.splitlines()[:-20]) + "\n")
    message = run("train", "--resume", part, "--set", "data.file=less.csv", code=2)
    assert "72 train rows then, 60 now" in message
    run("train", "--resume", part, "--set", "data.file=moved/plants.csv")
    assert content(part) == whole


def test_a_run_that_ended_on_patience_says_so(here):
    sets = "training.patience=1", "training.learning_rate=30", "training.optimizer=sgd"
    done = train_run(load("plants.toml", sets), out=Path("done"))
    assert "no better validation loss" in done.result.stopped
    message = run("train", "--resume", "done", "--set", "training.epochs=99", code=2)
    assert "done ended on patience" in message
    assert "--set training.patience=2" in message


def test_the_last_whole_checkpoint_is_used_and_the_damaged_one_named(here, whole):
    part = ended()
    newest = Checkpoints(part / "checkpoints").found()[0]
    with open(newest, "r+b") as file:
        file.seek(-5, 2)
        file.write(b"x")
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        said = CliRunner().invoke(app, ["train", "--resume", "part"]).stderr.splitlines()
    assert f"{newest.name} is damaged or no safetensors file (its checksum is not" in said[0]
    assert said[0].endswith("; the checkpoint before it is used")
    assert "part had come to epoch 3; it goes on from epoch " in said[-1] or len(said) == 1
    assert content(part) == whole


@pytest.mark.filterwarnings("default:.*the run goes on by what its checkpoints say")
@pytest.mark.parametrize("kind", ["ended by an error", "finished"])
def test_with_a_damaged_manifest_the_checkpoints_say_what_the_run_was(here, whole, kind):
    """The manifest of the run is named; settings and data are held against what the newest whole
    checkpoint says; the run comes to the same end, and its manifest is whole again."""
    part = ended() if kind != "finished" else train_run(load("plants.toml"), out=Path("p")).folder
    for is_ in ("missing", "damaged"):
        (part / MANIFEST).unlink()
        if is_ == "damaged":
            (part / MANIFEST).write_text("{}")
        assert f"manifest.json is {is_}; goes on from epoch " in run("runs", part)
        message = run("train", "--resume", part, "--set", "seed=3", code=2)
        assert f"manifest.json is {is_}; the run goes on by what its checkpoints say" in message
        assert "was trained with other settings: seed = 0 there, 3 in" in message
        rows = Path("plants.csv").read_text()
        Path("plants.csv").write_text(rows.replace("1", "2"))
        message = run("train", "--resume", part, code=2)
        assert "was trained on other data" in message
        Path("plants.csv").write_text(rows)
        run("train", "--resume", part)
        assert content(part) == whole
        assert not damages(part)


def test_with_a_damaged_manifest_and_no_checkpoint_nobody_knows_what_the_run_was(here):
    part = ended()
    shutil.rmtree(part / "checkpoints")
    (part / MANIFEST).write_text("{}")
    message = run("train", "--resume", part, code=2)
    assert "manifest.json is damaged, and no whole checkpoint says what the run was" in message


# --- one writer ---------------------------------------------------------------------------------


def test_a_second_writer_is_refused_and_the_lock_goes_with_the_process(here, whole):
    part = ended()
    code = "import sys, time; from mlp.app.run_folder import take; from pathlib import Path;"
    code += "held = take(Path('part')); print('held', flush=True); time.sleep(60)"
    other = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert other.stdout is not None
    assert other.stdout.readline() == b"held\n"
    assert is_held(part)
    assert "part is written to by another program" in run("train", "--resume", part, code=2)
    other.kill()
    other.communicate()
    assert not is_held(part)
    run("train", "--resume", part)
    assert content(part) == whole


# --- signals -----------------------------------------------------------------------------------


def program(*arguments, begin=lambda: None):
    """A long run that has come to its first epochs."""
    process = subprocess.Popen(
        [sys.executable, "-m", "mlp", "train", "plants.toml", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=begin,
    )
    assert process.stdout is not None
    for _ in range(2):
        process.stdout.readline()
    return process


LONG = "--set", "training.epochs=8000", "--set", "training.patience=99999", "--set"


@pytest.mark.parametrize("names", [["TERM"], ["HUP"], ["USR1"], ["TERM", "HUP"], ["INT", "TERM"]])
def test_signals_end_a_run_gently(here, names):
    """Also two at once; the code is 128 and the number of one that came."""
    process = program(*LONG, "training.checkpoint=60s")
    numbers = [getattr(signal, f"SIG{name}") for name in names]
    for number in numbers:
        process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert errors == ""
    assert process.returncode in {128 + number for number in numbers}
    load_run(Path("runs/plants"))
    assert read_manifest(Path("runs/plants"))["about"]["status"] == "interrupted"
    epochs = json.loads(Path("runs/plants/metrics.json").read_text())["epochs"]
    run("train", "--resume", "runs/plants", "--set", f"training.epochs={epochs + 2}")


@pytest.mark.parametrize("name", ["HUP", "INT", "TERM", "USR1"])
def test_an_ignored_signal_stays_ignored(here, name):
    number = getattr(signal, f"SIG{name}")
    begin = lambda: signal.signal(number, signal.SIG_IGN)  # noqa: E731
    process = program("--set", "training.epochs=600", begin=begin)
    process.send_signal(number)
    out, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (0, "")
    assert "interrupted" not in out


def test_even_the_second_ctrl_c_keeps_the_last_checkpoint(here, whole):
    def twice(run):
        with pytest.raises(KeyError):
            fail(run)  # until the last one is written
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        train_run(load("plants.toml"), out=Path("part"), callbacks=[at_step(10, twice)])
    assert 1 <= Checkpoints("part/checkpoints").newest().step <= 9
    run("train", "--resume", "part")
    assert content(Path("part")) == whole


# --- once training has ended -----------------------------------------------------------------


def refuses(*args, **kwargs):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


class AtEnd:
    """Does something when training has ended."""

    def __init__(self, do):
        self.on_run_end = lambda run: do()


def test_a_full_disk_leaves_the_model_elsewhere_and_says_where(here, whole, monkeypatch):
    """The run's folder takes nothing more; the folder for temporary files does."""
    replace, safe = os.replace, here / "temporary"
    safe.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(safe))

    def full(a, b):
        (replace if safe in Path(b).absolute().parents else refuses)(a, b)

    finished = train_run(
        load("plants.toml"),
        out=Path("full"),
        callbacks=[AtEnd(lambda: monkeypatch.setattr(os, "replace", full))],
    )
    assert "No space left on device" in finished.fault
    assert finished.folder.parent == safe
    monkeypatch.setattr(os, "replace", replace)
    model, _ = load_run(finished.folder)
    assert model.w.tobytes() == whole[0]
    assert mlp.load_state(finished.folder / STATE_FILE).epoch == 6
    monkeypatch.undo()
    os.chdir(here)
    run("train", "--resume", "full")  # the checkpoints are there as well
    assert content(Path("full")) == whole


@pytest.mark.parametrize("failing", [("model",), ("state",), ("model", "state")], ids="+".join)
@pytest.mark.parametrize("setting", ["1 step", "none"])
def test_memory_that_runs_out_in_the_last_writing_is_one_message(
    here, whole, monkeypatch, failing, setting
):
    """What can be written is; the run goes on from it, or from a checkpoint, to the same end."""

    def short(*given):
        raise MemoryError("12 bytes")

    for name in failing:
        monkeypatch.setattr(mlp.app.runs, f"save_{name}", short)
    every = "--set", f"training.checkpoint={setting}"
    message = run("train", "plants.toml", "--out", "part", *every, code=2)
    for name in failing:
        assert f" while {name}.safetensors was written (12 bytes)" in message
    assert "out of memory on " in message
    monkeypatch.undo()
    os.chdir(here)
    part = Path("part")
    assert [(part / f"{name}.safetensors").exists() for name in ("model", "state")] == [
        name not in failing for name in ("model", "state")
    ]
    if setting == "none" and "state" in failing:
        assert "nothing is left to go on from" in message
        return
    assert "go on by `mlp train --resume part`" in message
    assert read_manifest(part)["about"]["status"] == "out of memory"
    assert not damages(part)
    run("train", "--resume", part)
    assert content(part) == whole


@pytest.mark.parametrize("step", [2, 17, 18])  # the last is the last
def test_a_folder_that_goes_away_is_made_again(here, whole, step):
    remove = at_step(step, lambda run: shutil.rmtree("gone", ignore_errors=True))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "gone/checkpoints: no checkpoint could be written")
        finished = train_run(load("plants.toml"), out=Path("gone"), callbacks=[remove])
    assert not finished.fault
    assert content(finished.folder) == whole


@pytest.mark.parametrize("setting", ["60s", "none"])
def test_whatever_fails_after_training_the_model_is_there(here, whole, monkeypatch, setting):
    """Here the measuring, by an error that nobody foresees, and by one that is explained."""
    config = load("plants.toml", [f"training.checkpoint={setting}"])
    for error in (ZeroDivisionError("mine"), InputError("test.csv is gone")):

        def fails(*arguments, error=error):
            raise error

        out = Path(type(error).__name__)
        with monkeypatch.context() as patch:
            patch.setattr(mlp.app.runs, "measure", fails)
            if isinstance(error, InputError):
                assert train_run(config, out=out).fault == "test.csv is gone"
            else:
                with pytest.raises(ZeroDivisionError):
                    train_run(config, out=out)
        assert load_run(out)[0].w.tobytes() == whole[0]
        assert mlp.load_state(out / STATE_FILE).epoch == 6


def test_a_place_below_a_file_is_refused(here):
    Path("runs").write_text("a file")
    assert "runs/plants cannot be written" in run("train", "plants.toml", code=2)
    assert "cannot be written" in run("train", "plants.toml", "--out", "runs/a/b", code=2)


@pytest.mark.parametrize("out", [".", ""])
def test_the_folder_one_is_in_may_be_the_runs(here, whole, out, monkeypatch):
    Path("empty").mkdir()
    monkeypatch.chdir("empty")
    finished = train_run(load("../plants.toml"), out=Path(out))
    assert content(finished.folder) == whole
    with pytest.raises(InputError, match="is there already and is not empty"):
        train_run(load("../plants.toml"), out=Path(out))


# --- kills and power cuts ----------------------------------------------------------------------


@pytest.mark.parametrize("how", [
    ["--runs", 1, "--operations", "--every", 300, "--power", 2, "--damages", 4],
    pytest.param(["--runs", 6], marks=pytest.mark.thorough),
    pytest.param(["--operations", "--every", 97], marks=pytest.mark.thorough),
    pytest.param(["--power", 5], marks=pytest.mark.thorough),
    pytest.param(["--damages", 8], marks=pytest.mark.thorough),
])  # fmt: skip
def test_no_run_is_lost(how):
    """A part of what `tests/kill.py` does when it is asked for all."""
    if not hasattr(os, "fork"):
        pytest.skip("runs are killed in forks of a process")
    root = Path(__file__).parent.parent
    command = [sys.executable, "-m", "tests.kill", *map(str, how)]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith(", 0 lost\n")


# --- runs, verify ------------------------------------------------------------------------------


def test_runs_are_listed(here):
    train_run(load("plants.toml"), out=Path("runs/a"))
    ended(out="runs/b")
    with open(Path("runs/b") / MANIFEST) as file:
        assert json.load(file)["about"]["status"] == "failed"
    lines = run("runs").splitlines()
    assert lines[0].split() == ["run", "status", "epochs", "best", "began"]
    assert [line.split()[:3] for line in lines[1:]] == [
        ["runs/a", "finished", "6"],
        ["runs/b", "failed", "3"],
    ]
    assert "no folder nowhere" in run("runs", "nowhere", code=2)


def test_a_run_that_is_under_way_or_was_killed(here, whole):
    process = program(*LONG, "training.checkpoint=1 epoch", "--set", "training.keep=1")
    while (
        not Path("runs/plants/checkpoints").exists()
        or not Checkpoints("runs/plants/checkpoints").found()
    ):
        assert process.poll() is None
        time.sleep(0.01)
    assert f"running (process {process.pid} on " in run("runs")
    process.kill()
    process.communicate()
    assert "ended without a word; goes on from epoch " in run("runs")
    state = Checkpoints("runs/plants/checkpoints").newest()
    run("train", "--resume", "runs/plants", "--set", f"training.epochs={state.epoch + 1}")
    assert "finished" in run("runs")


@pytest.mark.pictures
def test_every_damage_of_a_run_is_named(here):
    finished = train_run(load("plants.toml"), out=Path("good")).folder
    assert all(line.endswith(": whole") for line in run("verify", "good").splitlines())
    names = [x.relative_to(finished) for x in finished.rglob("*") if x.is_file()]
    names = sorted(name for name in names if name.name != ".lock")
    assert len(names) == 7 + len(Checkpoints("good/checkpoints").found())
    for number in range(100):
        shutil.rmtree("bad", ignore_errors=True)
        shutil.copytree(finished, "bad")
        name = names[number % len(names)]
        damage(Path("bad") / name, number)
        if name.parent.name == "checkpoints" and not (Path("bad") / name).exists():
            continue  # nothing is read of it
        result = CliRunner().invoke(app, ["verify", "bad"])
        assert result.exit_code == 1, name
        wrong = [line for line in result.stdout.splitlines() if not line.endswith(": whole")]
        assert len(wrong) == 1
        assert name.name in wrong[0]
    assert take(Path("good")).lock.is_there()
