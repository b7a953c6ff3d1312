"""Runs: the folder says what was done, whatever ends the run, and nothing is half-written."""

import csv
import errno
import json
import os
from dataclasses import MISSING, fields
from pathlib import Path

import numpy as np
import pytest

from mlp.app.config import load
from mlp.app.plots import plot_history
from mlp.app.prediction_table import as_csv, table
from mlp.app.prepare import read_parts
from mlp.app.run_folder import begin, held, next_free
from mlp.app.runs import load_run, train_run
from mlp.data.readers import read
from mlp.data.scaling import Scaling
from mlp.data.table_files import read_table
from mlp.errors import InputError
from mlp.layers import LAYERS
from mlp.training.checkpoint import load_state
from tests.plants import write_plants

FILES = {
    *("model.safetensors", "state.safetensors", "settings.json", "history.csv", "metrics.json"),
    *("loss.png", "manifest.json", ".lock"),
}

PRICES = """
[data]
file = "prices.csv"
target = ["low", "high"]
test = 0.2
scale_targets = "standard"
[[layers]]
units = 8
activation = "tanh"
[[layers]]
[training]
loss = "mean_squared_error"
epochs = 100
learning_rate = 0.02
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder to be in, with two tables and the settings for them."""
    X = write_plants(tmp_path, "epochs = 4\n")
    low = 1e5 + 2e4 * X[:, 0]
    rows = [f"{a:.4f},{b:.4f},{t:.1f},{3 * t:.1f}" for (a, b), t in zip(X, low, strict=True)]
    (tmp_path / "prices.csv").write_text("\n".join(["a,b,low,high", *rows]) + "\n")
    (tmp_path / "prices.toml").write_text(PRICES)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLP_BACKEND", raising=False)
    return tmp_path


def left_over(folder):
    """What is in a folder beside the four files of the fixture."""
    given = {"plants.csv", "prices.csv", "plants.toml", "prices.toml"}
    return {path.name for path in folder.iterdir()} - given


# --- the folder ------------------------------------------------------------------------------


@pytest.mark.pictures
def test_a_run_leaves_a_whole_folder(here):
    finished = train_run(load("plants.toml"))
    folder = here / "runs" / "plants"
    assert finished.folder.resolve() == folder
    assert {path.name for path in folder.iterdir()} == FILES
    assert (folder / "loss.png").read_bytes().startswith(b"\x89PNG")
    assert [path.name for path in (here / "runs").iterdir()] == ["plants"]

    metrics = json.loads((folder / "metrics.json").read_text())
    assert [metrics[name]["rows"] for name in ("train", "validation", "test")] == [72, 24, 24]
    assert {"loss", "accuracy"} <= set(metrics["test"])
    assert (metrics["epochs"], metrics["backend"]) == (4, "numpy")
    assert metrics["stopped"] == "all 4 epochs are done"
    assert {"array-mlp", "python", "numpy", "backend"} == set(metrics["versions"])

    with open(folder / "history.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(float(row["epoch"])) for row in rows] == [1, 2, 3, 4]
    assert [float(row["loss"]) for row in rows] == finished.result.history["loss"]


def test_settings_are_written_as_resolved_and_do_the_same_run_again(here):
    first = train_run(load("plants.toml"), backend="auto")
    settings = json.loads((first.folder / "settings.json").read_text())
    assert settings["backend"] == first.result.model.backend.name
    assert settings["layers"][-1]["units"] == 3
    assert settings["data"]["file"] == str(here / "plants.csv")
    second = train_run(load(first.folder / "settings.json"))
    assert second.folder == Path("runs/plants-2")
    assert second.result.history["loss"] == first.result.history["loss"]


def test_a_run_is_never_overwritten(here):
    config = load("plants.toml")
    assert [train_run(config).folder.name for _ in range(3)] == ["plants", "plants-2", "plants-3"]
    (here / "mine").mkdir()
    assert train_run(config, out=Path("mine")).folder == Path("mine")  # it was empty
    with pytest.raises(InputError, match="mine is there already and is not empty; name another"):
        train_run(config, out=Path("mine"))
    with pytest.raises(InputError, match=r"plants\.csv is a file; name another"):
        train_run(config, out=Path("plants.csv"))


@pytest.mark.pictures
def test_a_place_that_was_taken_meanwhile_is_not_overwritten(here):
    def take(run):
        if run.state.epoch == 1:
            Path("mine").rename("elsewhere")
            Path("mine").mkdir()
            Path("mine", "note").write_text("here first")

    finished = train_run(load("plants.toml"), out=Path("mine"), callbacks=[take])
    assert finished.folder == Path("mine-2")
    assert [path.name for path in Path("mine").iterdir()] == ["note"]
    assert {path.name for path in Path("mine-2").iterdir()} == FILES


@pytest.mark.pictures
def test_out_may_lie_in_folders_that_are_not_there_yet(here):
    assert train_run(load("plants.toml"), out=Path("a/b/c")).folder == Path("a/b/c")
    assert {path.name for path in Path("a/b/c").iterdir()} == FILES


def test_the_rows_to_train_on_alone_fit_the_scaling(here):
    config = load("plants.toml")
    parts = read_parts(config)
    model = train_run(config).result.model
    expected = Scaling.standard(parts.train.X)
    np.testing.assert_array_equal(model.input_scaling.shift, expected.shift)
    rows = np.concatenate([part.X for part in parts.by_name().values()])
    everything = read("plants.csv", target="kind").X
    assert sorted(map(tuple, rows)) == sorted(map(tuple, everything))


# --- what ends a run -------------------------------------------------------------------------


def test_a_diverged_run_is_written_with_finite_weights(here):
    config = load("prices.toml", ["training.learning_rate=1e30", "training.optimizer=sgd"])
    finished = train_run(config)
    assert finished.result.diverged
    assert {path.name for path in finished.folder.iterdir()} >= FILES - {"loss.png"}
    model, _ = load_run(finished.folder)
    assert np.isfinite(model.w).all()
    metrics = json.loads((finished.folder / "metrics.json").read_text())
    assert metrics["diverged"] is True
    assert "learning rate" in metrics["stopped"]


def test_an_interrupted_run_is_written_and_can_be_gone_on_with(here):
    config = load("plants.toml", ["training.epochs=6"])
    whole = train_run(config, out=Path("whole"))

    def interrupt(run):
        if run.state.epoch == 3:
            os.kill(os.getpid(), 2)  # as Ctrl-C

    part = train_run(config, out=Path("part"), callbacks=[interrupt])
    assert part.interrupted
    assert part.metrics["epochs"] < 6
    rest = train_run(config, out=Path("rest"), resume=Path("part"))
    np.testing.assert_array_equal(rest.result.model.w, whole.result.model.w)
    assert rest.result.history["loss"] == whole.result.history["loss"]


@pytest.mark.parametrize("optimizer", ["adam", "rprop"])
def test_going_on_equals_never_having_stopped(here, optimizer):
    sets = [f"training.optimizer={optimizer}", "training.patience=50"]
    whole = train_run(load("plants.toml", [*sets, "training.epochs=6"]))
    train_run(load("plants.toml", [*sets, "training.epochs=2"]), out=Path("first"))
    rest = train_run(
        load("first/settings.json", ["training.epochs=6"]), out=Path("rest"), resume=Path("first")
    )
    np.testing.assert_array_equal(rest.result.model.w, whole.result.model.w)
    assert rest.result.history["validation_loss"] == whole.result.history["validation_loss"]
    assert rest.metrics["test"] == whole.metrics["test"]
    assert (rest.metrics["epochs"], rest.metrics["epochs_before"]) == (6, 2)
    before, after = load_state("first/state.safetensors"), load_state("rest/state.safetensors")
    assert (before.epoch, after.epoch) == (2, 6)


def test_going_on_takes_the_learning_rate_that_is_asked_for(here):
    train_run(load("plants.toml"), out=Path("first"))
    config = load("plants.toml", ["training.epochs=5", "training.learning_rate=0.25"])
    rest = train_run(config, resume=Path("first"))
    assert rest.result.history["learning_rate"] == [0.02] * 4 + [0.25]


def test_a_run_that_cannot_be_gone_on_with_is_refused(here):
    config = load("plants.toml")
    done = train_run(config).folder
    with pytest.raises(InputError, match=r"has 4 epochs .* --set training.epochs=8"):
        train_run(config, resume=done)
    with pytest.raises(InputError, match=r"no run runs/plant; did you mean 'runs/plants'\?"):
        train_run(config, resume=Path("runs/plant"))
    with pytest.raises(InputError, match=r"it has no settings\.json"):
        train_run(config, resume=Path("runs"))
    larger = load("plants.toml", ["training.epochs=5", "layers.0.units=9"])
    with pytest.raises(InputError, match=r"settings: layers\.0\.units = 8 there, 9 in plants"):
        train_run(larger, resume=done)
    wild = load("prices.toml", ["training.learning_rate=1e30", "training.optimizer=momentum"])
    spoilt = train_run(wild)
    assert spoilt.result.diverged
    with pytest.raises(InputError, match="diverged, its optimizer's state is not finite"):
        train_run(wild, resume=spoilt.folder)
    assert left_over(here) == {"runs"}


# --- disks -----------------------------------------------------------------------------------


def full(*args, **kwargs):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("what", ["os.replace", "os.fsync", "os.mkdir"])
def test_a_full_disk_is_one_message_and_leaves_nothing(here, monkeypatch, what):
    monkeypatch.setattr(what, full)
    with pytest.raises(InputError) as caught:
        train_run(load("plants.toml"))
    message = str(caught.value)
    assert message.startswith("runs/plants cannot be written: No space left on device;")
    assert "Free some space" in message
    assert not left_over(here)


def test_a_disk_with_too_little_room_is_found_out_before_training(here, monkeypatch):
    monkeypatch.setattr("mlp.app.runs.train", lambda *_, **__: pytest.fail("trained"))
    usage = type("usage", (), {"free": 1000})
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage)
    with pytest.raises(InputError, match=r"runs/plants needs about 1 MB, the disk has 0 MB left"):
        train_run(load("plants.toml"))
    assert not left_over(here)


def test_a_place_that_cannot_be_written_to_is_refused_before_training(here, monkeypatch):
    monkeypatch.setattr("mlp.app.runs.train", lambda *_, **__: pytest.fail("trained"))
    with pytest.raises(InputError, match="cannot be written: Not a directory"):
        train_run(load("plants.toml"), out=Path("plants.csv/below"))
    assert not left_over(here)


def test_an_error_in_training_leaves_nothing(here):
    def fail(run):
        raise KeyboardInterrupt  # as a second Ctrl-C

    with pytest.raises(KeyboardInterrupt):
        train_run(load("plants.toml"), callbacks=[fail])
    assert not left_over(here)


def test_a_new_folder_keeps_the_folders_that_were_there(here):
    (here / "old").mkdir()
    with pytest.raises(ValueError, match="stop"), held(begin(Path("old/new/run"))):
        raise ValueError("stop")
    assert (here / "old").is_dir()
    assert not any((here / "old").iterdir())
    assert next_free(Path("old")) == Path("old-2")


# --- data of all kinds -----------------------------------------------------------------------


def test_binary_labels_on_one_output_are_two_classes(here):
    text = Path("plants.csv").read_text().replace("oak", "moss")
    Path("plants.csv").write_text(text)
    sets = ["training.loss=binary_cross_entropy", "layers.1.activation=sigmoid"]
    finished = train_run(load("plants.toml", sets))
    model, _ = load_run(finished.folder)
    assert model.classes.tolist() == ["fern", "moss"]
    data = read("plants.csv", target="kind")
    header, rows = table(model, data.X, ["kind"])
    assert header == ["label", "probability_fern", "probability_moss"]
    for label, fern, moss in rows:
        assert float(fern) + float(moss) == pytest.approx(1.0, abs=1e-6)
        assert label == ("fern" if float(fern) > float(moss) else "moss")


@pytest.mark.parametrize(
    ("loss", "heads"),
    [
        ('{name = "quantile", q = [0.1, 0.5, 0.9]}', ["q0.1", "q0.5", "q0.9"]),
        ('"gaussian"', ["mean", "deviation"]),
    ],
)
def test_several_outputs_for_each_target_have_columns_with_their_names(here, loss, heads):
    text = PRICES.replace('"mean_squared_error"', loss).replace("epochs = 100", "epochs = 5")
    Path("prices.toml").write_text(text)
    model, config = load_run(train_run(load("prices.toml")).folder)
    assert model.network.outputs == 2 * len(heads)
    header, rows = table(model, read("prices.csv", target=["low", "high"]).X, config.data.target)
    assert header == [f"{name}_{head}" for name in ("low", "high") for head in heads]
    values = np.array(rows, float)
    assert (values > 0.0).all()  # thousands, and deviations
    if len(heads) == 3:
        assert (np.diff(values.reshape(-1, 3), axis=1) >= 0.0).all()
    Path("prices.toml").write_text(text.replace("[[layers]]\n[", "[[layers]]\nunits = 12\n["))
    with pytest.raises(InputError, match=f"units: 12, but this loss needs {2 * len(heads)} for"):
        train_run(load("prices.toml"))


def test_ordered_classes(here):
    Path("prices.toml").write_text(
        PRICES.replace('["low", "high"]', '"rank"')
        .replace('"mean_squared_error"', '"ordinal"')
        .replace("standard", "none")
        .replace("epochs = 100", "epochs = 5")
    )
    lines = Path("prices.csv").read_text().splitlines()[1:]
    X = [line.split(",")[:2] for line in lines]
    rows = [f"{a},{b},{1 + (float(a) > -0.5) + (float(a) > 0.5)}" for a, b in X]
    Path("prices.csv").write_text("\n".join(["a,b,rank", *rows]))
    model, _ = load_run(train_run(load("prices.toml")).folder)
    assert (model.network.outputs, model.classes.tolist()) == (2, [1, 2, 3])
    header, found = table(model, read("prices.csv", target="rank").X, ["rank"])
    assert header == ["label", "probability_1", "probability_2", "probability_3"]
    assert {row[0] for row in found} <= {"1", "2", "3"}
    Path("prices.csv").write_text("\n".join(["a,b,rank", *(f"{row}st" for row in rows)]))
    with pytest.raises(InputError, match=r"labels in words .'1st', '2st', .* order is not known"):
        train_run(load("prices.toml"))


def test_several_labels_a_row(here):
    rng = np.random.default_rng(1)
    X = rng.normal(size=(60, 3))
    np.savez("tags.npz", X=X, t=(X[:, :2] > 0).astype(np.int64))
    sets = ["data.file=tags.npz", "training.loss=binary_cross_entropy"]
    config = load("plants.toml", [*sets, "data.target=t", "layers.1.activation=sigmoid"])
    model, config = load_run(train_run(config).folder)
    assert model.network.outputs == 2
    header, rows = table(model, X, config.data.target)
    assert header == ["target_0", "target_1", "probability_target_0", "probability_target_1"]
    assert set(rows[0][:2]) <= {"0", "1"}


def test_files_of_their_own_for_validation_test_and_targets(here):
    rng = np.random.default_rng(2)
    for name, n in (("train", 50), ("valid", 20), ("test", 30)):
        X = rng.integers(0, 256, (n, 2, 2), dtype=np.uint8)
        np.save(f"{name}.npy", X)
        np.save(f"{name}_t.npy", (X[:, 0, 0] > 127).astype(np.uint8) + 5)
    Path("images.toml").write_text(
        """
        [data]
        file = "train.npy"
        targets_file = "train_t.npy"
        validation_file = "valid.npy"
        validation_targets_file = "valid_t.npy"
        test_file = "test.npy"
        test_targets_file = "test_t.npy"
        scale_inputs = "range"
        [[layers]]
        activation = "softmax"
        [training]
        loss = "cross_entropy"
        epochs = 2
        """
    )
    finished = train_run(load("images.toml"))
    sizes = [finished.metrics[name]["rows"] for name in ("train", "validation", "test")]
    assert sizes == [50, 20, 30]
    assert finished.result.model.classes.tolist() == [5, 6]
    np.save("test_t.npy", np.full(30, 7, np.uint8))
    with pytest.raises(InputError, match=r"label 7 .* is not one of the 2 classes 5, 6"):
        train_run(load("images.toml"))


# What a layer of a kind needs beside what has no default: settings, or layers before it.
NEEDED = {
    "add": ("[[layers]]\nkind = 'scale'\n", "sources = [0, 1]\n"),
    "ensemble": ("", "count = 3\n"),
}


@pytest.mark.parametrize("kind", LAYERS)
def test_a_layer_of_every_kind_is_written_and_gone_on_with(here, kind):
    required = [field.name for field in fields(LAYERS[kind]) if field.default is MISSING]
    settings = "".join(f"{name} = 3\n" for name in required)
    before, more = NEEDED.get(kind, ("", ""))
    layer = f"{before}[[layers]]\nkind = '{kind}'\n{settings}{more}"
    if kind == "embedding":
        head, *rows = Path("plants.csv").read_text().splitlines()
        towns = [f"{row},town {i % 12}" for i, row in enumerate(rows)]
        Path("plants.csv").write_text("\n".join([f"{head},town", *towns]) + "\n")
    text = Path("plants.toml").read_text().replace("[[layers]]", layer + "[[layers]]", 1)
    Path("more.toml").write_text(text)
    first = train_run(load("more.toml"))
    model, _ = load_run(first.folder)
    assert model.network.layers == first.result.model.network.layers
    assert LAYERS[kind] in map(type, model.network.layers)
    X = read_table("plants.csv")
    np.testing.assert_array_equal(model.predict(X), first.result.model.predict(X))
    more = load(first.folder / "settings.json", ["training.epochs=6"])
    assert train_run(more, resume=first.folder).metrics["epochs"] == 6


# --- an earlier run --------------------------------------------------------------------------


def test_predictions_are_in_the_units_of_the_targets(here):
    finished = train_run(load("prices.toml"))
    assert finished.metrics["test"]["r2"] > 0.9
    model, config = load_run(finished.folder)
    data = read("prices.csv", target=["low", "high"])
    header, rows = table(model, data.X, config.data.target)
    assert header == ["low", "high"]
    expected = model.predict(data.X)
    y = np.array(rows, dtype=expected.dtype)
    np.testing.assert_array_equal(y, expected)  # all digits are there
    assert abs(y.mean(axis=0) / data.t.mean(axis=0) - 1).max() < 0.05
    assert as_csv(header, rows).startswith("low,high\n")


def test_the_predictions_of_a_loaded_run_are_those_of_the_trained_model(here):
    finished = train_run(load("plants.toml"))
    model, _ = load_run(finished.folder)
    X = read("plants.csv", target="kind").X
    np.testing.assert_array_equal(model.predict(X), finished.result.model.predict(X))
    assert model.classes.tolist() == ["fern", "moss", "oak"]
    assert model.columns == ("a", "b")


def test_a_damaged_run_is_answered(here):
    folder = train_run(load("plants.toml")).folder
    (folder / "model.safetensors").write_bytes(b"12345678901234567890")
    with pytest.raises(InputError, match=r"model.safetensors is damaged or no safetensors file"):
        load_run(folder)
    with pytest.raises(InputError, match=r"no folder of a run: it has no model\.safetensors"):
        load_run(here)


# --- the picture -----------------------------------------------------------------------------


@pytest.mark.pictures
def test_the_history_becomes_a_picture(tmp_path):
    history = {"epoch": [1, 2, 3], "loss": [3.0, 0.1, 0.01], "validation_loss": [3.0, 0.2, 0.3]}
    for more in ({}, {"validation_accuracy": [0.1, 0.9, 1.0]}, {"validation_r2": [-90, 0.5, 0.4]}):
        assert plot_history(history | more, tmp_path / "loss.png")
        assert (tmp_path / "loss.png").read_bytes().startswith(b"\x89PNG")
    assert plot_history({"epoch": [1], "loss": [-2.0]}, tmp_path / "one.png")
    assert not plot_history({}, tmp_path / "none.png")


def test_without_matplotlib_there_is_no_picture(here, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "matplotlib.figure", None)
    folder = train_run(load("plants.toml")).folder
    assert {path.name for path in folder.iterdir()} == FILES - {"loss.png"}


@pytest.mark.parametrize("error", [OSError("full"), RuntimeError("no font"), KeyError("axes")])
def test_a_picture_that_fails_is_left_out(here, monkeypatch, error):
    def fails(*arguments):
        raise error

    monkeypatch.setattr("mlp.app.runs.plot_history", fails)
    with pytest.warns(UserWarning, match=r"loss\.png is left out: "):
        folder = train_run(load("plants.toml")).folder
    assert {path.name for path in folder.iterdir()} == FILES - {"loss.png"}
