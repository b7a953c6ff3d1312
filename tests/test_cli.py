"""The command line as a user meets it: what it prints, what it leaves, how it ends."""

import csv
import errno
import gzip
import io
import itertools
import json
import os
import re
import signal
import struct
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits
from typer.testing import CliRunner

import mlp
from backends import BackendInfo, Memory, available
from backends.numpy_backend import NumpyBackend
from mlp.app.cli import app
from mlp.app.config import load
from mlp.app.runs import load_run, train_run
from mlp.app.terminal import printable
from mlp.check_gradient import gradient_check
from mlp.model import Evaluator, Model
from tests.plants import run

EXAMPLES = Path(__file__).parent.parent / "examples"

PLANTS = """
[data]
file = "plants.csv"
target = "kind"
test = 0.2
validation = 0.2
[[layers]]
units = 6
activation = "tanh"
[[layers]]
activation = "softmax"
[training]
loss = "cross_entropy"
epochs = 3
learning_rate = 0.02
"""

PRICES = """
[data]
file = "prices.csv"
target = "price"
scale_targets = "standard"
[[layers]]
units = 6
activation = "tanh"
[[layers]]
[training]
loss = "mean_squared_error"
epochs = 200
learning_rate = 0.02
"""

IMAGES = """
[data]
file = "images.idx.gz"
targets_file = "labels.idx"
scale_inputs = "range"
[[layers]]
activation = "softmax"
[training]
loss = "cross_entropy"
epochs = 2
"""


def idx(array):
    """An array of bytes as an IDX file."""
    head = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
    return head + array.astype(np.uint8).tobytes()


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder to be in, with data and settings of three kinds."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(60, 2))
    kinds = np.where(X[:, 0] > 0, "fern", np.where(X[:, 1] > 0, "moss", "oak tree"))
    rows = [f"{a:.4f},{b:.4f},{kind}" for (a, b), kind in zip(X, kinds, strict=True)]
    (tmp_path / "plants.csv").write_text("\n".join(["a,b,kind", *rows]) + "\n")
    rows = [f"{a:.4f},{b:.4f},{1e6 + 1e5 * a:.1f}" for a, b in X]
    (tmp_path / "prices.csv").write_text("\n".join(["a,b,price", *rows]) + "\n")
    images = rng.integers(0, 256, (30, 2, 2))
    (tmp_path / "images.idx.gz").write_bytes(gzip.compress(idx(images)))
    (tmp_path / "labels.idx").write_bytes(idx(images[:, 0, 0] > 127))
    (tmp_path / "plants.toml").write_text(PLANTS)
    (tmp_path / "prices.toml").write_text(PRICES)
    (tmp_path / "images.toml").write_text(IMAGES)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLP_BACKEND", raising=False)
    return tmp_path


def everything(folder):
    """All files below, and when they were changed."""
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


# --- train -----------------------------------------------------------------------------------


def test_threads(here, monkeypatch):
    """The flag, else the file's, else that of the run: every command's products use so many."""
    seen = []

    def counting(method):
        def look(*arguments, **options):
            pools = threadpool_info()
            seen.append(max(p["num_threads"] for p in pools if p["user_api"] == "blas"))
            return method(*arguments, **options)

        return look

    for name in ("predict", "evaluate", "value_and_gradient"):
        monkeypatch.setattr(Model, name, counting(getattr(Model, name)))
    monkeypatch.setattr("mlp.check_gradient.gradient_check", counting(gradient_check))
    with threadpool_limits(2):
        run("train", "plants.toml", "--threads", 1, "--out", "one")
        run("evaluate", "one", "plants.csv")
        run("predict", "one", "plants.csv")
        run("check", "plants.toml", "--set", "threads=1")
        assert seen
        assert set(seen) == {1}
        seen.clear()
        run("predict", "one", "plants.csv", "--threads", 2)
        run("evaluate", "one", "plants.csv", "--threads", 2)
        run("check", "plants.toml")
        assert set(seen) == {2}
    assert json.loads((here / "one" / "settings.json").read_text())["threads"] == 1
    error = run("train", "plants.toml", "--set", "threads=0", code=2)
    assert "threads" in error
    assert "1" in error


def test_train_prints_progress_and_a_summary(here):
    memory, *lines = run("train", "plants.toml").splitlines()
    assert memory.startswith("memory: ")
    assert [line[:9] for line in lines[:3]] == ["epoch 1/3", "epoch 2/3", "epoch 3/3"]
    summary = "\n".join(lines[3:])
    assert lines[4].split() == ["rows", "loss", "accuracy", "balanced_accuracy"]
    assert [line.split()[:2] for line in lines[5:8]] == [
        ["train", "36"],
        ["validation", "12"],
        ["test", "12"],
    ]
    for part in (
        "stopped  all 3 epochs are done",
        "s for 3 epochs, ",
        "on numpy (CPU",
        "folder   runs/plants",
        "next     mlp predict runs/plants plants.csv",
    ):
        assert part in summary
    run(*lines[-1].split()[2:])  # the next command works


def test_the_memory_plan_is_printed_and_nothing_else_is_done(here, monkeypatch):
    lines = run("train", "plants.toml", "--plan").splitlines()
    assert [line.split()[0] for line in lines] == [
        *("weights", "optimizer", "data", "step", "validation", "checkpoint", "needed", "free"),
    ]
    assert not (here / "runs").exists()
    monkeypatch.setattr(NumpyBackend, "memory", lambda backend: Memory(1000, 1000))
    said = r"mlp: error: (plants\.toml: )?this training needs [\d.]+ kB even at batch_size 1, .*\n"
    for arguments in (["--plan"], []):
        assert re.fullmatch(said, run("train", "plants.toml", *arguments, code=2))
    assert not (here / "runs").exists()


def test_a_warning_is_one_line(here):
    """Here: steps that NumPy cannot record."""
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        result = CliRunner().invoke(
            app, ["train", "plants.toml", "--set", "training.record_steps=true", "--quiet"]
        )
    assert result.exit_code == 0
    assert re.fullmatch(r"mlp: warning: steps are not recorded, .* 'numpy' .*\n", result.stderr)


def test_out_of_memory_writes_the_run_to_go_on_from(here, monkeypatch):
    """One message, code 2, and a folder; gone on with, it is the run that never stopped."""
    expected = train_run(load("plants.toml")).result
    take, calls = NumpyBackend.take, []

    def fails(backend, x, *arguments):
        if x.dtype.kind == "f" and x.shape[0] == 36:  # the inputs, in each of two batches an epoch
            calls.append(x)
            if len(calls) == 4:
                raise MemoryError("no room for 12 bytes")
        take(backend, x, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(NumpyBackend, "take", fails)
        result = CliRunner().invoke(app, ["train", "plants.toml", "--out", "o"])
    assert result.exit_code == 2
    assert re.fullmatch(
        r"mlp: error: out of memory on CPU, .* in epoch 2 \(no room for 12 bytes; .*\); use a "
        r"batch_size below 32, .*; what was learned is kept; the run is in o; go on by mlp train "
        r"--resume o --set training\.batch_size=N\n",
        result.stderr,
    )
    metrics = json.loads((here / "o" / "metrics.json").read_text())
    assert metrics["out_of_memory"]
    assert metrics["train"] == {"rows": 36}  # measuring takes memory too
    load_run(Path("o"))
    run("train", "--resume", "o", "--out", "same")
    assert (load_run(Path("same"))[0].w == expected.model.w).all()
    smaller = run("train", "--resume", "o", "--set", "training.batch_size=5")
    assert "stopped  all 3 epochs are done" in smaller


def test_out_of_memory_in_predictions_is_one_message(here, monkeypatch):
    run("train", "plants.toml")

    def fails(*arguments):
        raise MemoryError

    monkeypatch.setattr(NumpyBackend, "copy", fails)
    said = r"mlp: error: .*: out of memory on CPU, .* \(MemoryError\); use .*\n"
    assert re.fullmatch(said, run("predict", "runs/plants", "plants.csv", code=2))


def test_a_run_that_cannot_be_measured_is_written_all_the_same(here, monkeypatch):
    def fails(*arguments):
        raise MemoryError

    monkeypatch.setattr(Evaluator, "__call__", fails)
    monkeypatch.setattr("mlp.training.setup.Evaluator", lambda *_: lambda **_: {"loss": 1.0})
    out = run("train", "plants.toml")
    assert "stopped  all 3 epochs are done" in out
    assert [line.split() for line in out.splitlines() if line.startswith("test")] == [
        ["test", "12"]
    ]
    assert "note     memory did not suffice to measure all" in out
    load_run(Path("runs/plants"))


def test_quiet_prints_nothing(here):
    result = CliRunner().invoke(app, ["train", "plants.toml", "--quiet"])
    assert (result.exit_code, result.output) == (0, "")
    assert (here / "runs" / "plants" / "model.safetensors").is_file()


def test_set_and_out(here):
    out = run("train", "plants.toml", "--set", "training.epochs=1", "--set", "seed=4", "--out", "o")
    assert "epoch 1/1" in out
    settings = json.loads(Path("o/settings.json").read_text())
    assert (settings["training"]["epochs"], settings["seed"]) == (1, 4)


def test_resume_goes_on_in_the_same_folder_or_in_the_one_that_is_named(here):
    run("train", "plants.toml", "--set", "training.epochs=5", "--out", "whole")
    run("train", "plants.toml", "--out", "part")
    before = everything(here / "part")
    more = "--set", "training.epochs=5"
    for name, where in (("other", ("--out", "other")), ("part", ())):
        assert everything(here / "part") == before
        out = run("train", "--resume", "part", *more, *where)
        assert f"folder   {name}\n" in out
        assert "s for 2 epochs" in out
        np.testing.assert_array_equal(load_run(Path(name))[0].w, load_run(Path("whole"))[0].w)


def test_divergence_keeps_the_run_and_says_what_to_try(here):
    sets = ["--set", "training.learning_rate=1e30", "--set", "training.optimizer=sgd"]
    message = run("train", "prices.toml", *sets, code=2)
    assert message.startswith("mlp: error: the loss became non-finite in epoch 1")
    assert "try a learning rate of 1e+29" in message
    assert "the run is in runs/prices" in message
    assert np.isfinite(load_run(Path("runs/prices"))[0].w).all()


def test_the_digits_reach_97_percent(here):
    run("train", EXAMPLES / "digits.toml", "--quiet")
    metrics = json.loads(Path("runs/digits/metrics.json").read_text())
    assert metrics["test"]["rows"] == 359
    assert metrics["test"]["accuracy"] >= 0.97


# --- which backend ---------------------------------------------------------------------------


def backend_of(run_folder):
    return json.loads((Path(run_folder) / "settings.json").read_text())["backend"]


def test_the_flag_precedes_the_file_precedes_the_environment_precedes_numpy(here, monkeypatch):
    """Each is told apart by its name; all compute with array-api-strict or NumPy."""
    pytest.importorskip("array_api_strict")
    in_file = Path("plants.toml").read_text()
    Path("named.toml").write_text("backend = 'strict:device1'\n" + in_file)
    run("train", "plants.toml", "--out", "r1", "-q")
    monkeypatch.setenv("MLP_BACKEND", "strict")
    run("train", "plants.toml", "--out", "r2", "-q")
    run("train", "named.toml", "--out", "r3", "-q")
    run("train", "named.toml", "--out", "r4", "-q", "--backend", "numpy")
    run("train", "plants.toml", "--out", "r5", "-q", "--set", "backend=numpy")
    backends = [backend_of(f"r{k}") for k in (1, 2, 3, 4, 5)]
    assert backends == ["numpy", "strict", "strict:device1", "numpy", "numpy"]
    w = [load_run(Path(f"r{k}"), "numpy")[0].w for k in (1, 3)]
    np.testing.assert_allclose(*w, rtol=1e-3, atol=1e-4)


def test_the_whole_command_line_on_a_backend(here, backend):
    """Every command there, and a run that goes on on NumPy and then there again is the run that
    stayed on NumPy."""
    on = "--backend", backend.name
    run("train", "plants.toml", "-q", "--out", "first", *on, "--set", "training.epochs=2")
    run("train", "--resume", "first", "-q", "--out", "second", "--set", "training.epochs=4")
    run("train", "--resume", "second", "-q", "--out", "third", *on, "--set", "training.epochs=6")
    run("train", "plants.toml", "-q", "--out", "whole", "--set", "training.epochs=6")
    w = [load_run(Path(name), "numpy")[0].w for name in ("third", "whole")]
    np.testing.assert_allclose(*w, rtol=1e-3, atol=1e-5)
    shares = [
        run("predict", "third", "plants.csv", *where) for where in (on, ("--backend", "numpy"))
    ]
    labels, others = (
        [row["label"] for row in csv.DictReader(io.StringIO(text))] for text in shares
    )
    assert labels == others
    assert "accuracy" in run("evaluate", "third", "plants.csv", *on)
    assert "needed" in run("train", "plants.toml", "--plan", *on)
    assert "agrees" in run("check", "plants.toml", *on)


def test_a_run_is_used_on_its_own_backend_or_on_another(here, monkeypatch):
    run("train", "plants.toml", "-q")
    settings = Path("runs/plants/settings.json")
    settings.write_text(settings.read_text().replace('"backend": "numpy"', '"backend": "cupy:99"'))
    message = run("predict", "runs/plants", "plants.csv", code=2)
    assert message.startswith("mlp: error: runs/plants/settings.json: backend: backend 'cupy:99'")
    assert "by --backend" in message
    assert run("predict", "runs/plants", "plants.csv", "--backend", "numpy").startswith("label,")


# --- predict and evaluate --------------------------------------------------------------------


def test_predictions_of_classes_have_labels_and_probabilities(here):
    run("train", "plants.toml", "-q", "--set", "training.epochs=60")
    rows = list(csv.DictReader(io.StringIO(run("predict", "runs/plants", "plants.csv"))))
    names = ["probability_fern", "probability_moss", "probability_oak tree"]
    assert list(rows[0]) == ["label", *names]
    with open("plants.csv", newline="") as file:
        truth = [row["kind"] for row in csv.DictReader(file)]
    for row in rows:
        shares = [float(row[name]) for name in names]
        assert sum(shares) == pytest.approx(1.0, abs=1e-5)
        assert row["label"] == names[int(np.argmax(shares))].removeprefix("probability_")
    right = np.mean([row["label"] == kind for row, kind in zip(rows, truth, strict=True)])
    table = run("evaluate", "runs/plants", "plants.csv").split()
    assert table[:6] == ["rows", "loss", "accuracy", "balanced_accuracy", "plants.csv", "60"]
    assert float(table[-2]) == pytest.approx(right, abs=1e-4)
    assert right > 0.8


def test_predictions_need_no_target_and_take_columns_by_name(here):
    run("train", "plants.toml", "-q")
    expected = run("predict", "runs/plants", "plants.csv")
    with open("plants.csv", newline="") as file:
        rows = [f"x,{row['b']},{row['a']}" for row in csv.DictReader(file)]
    Path("new.csv").write_text("\n".join(["note,b,a", *rows]) + "\n")
    assert run("predict", "runs/plants", "new.csv") == expected


def test_predictions_of_numbers_are_in_the_units_of_the_target(here):
    run("train", "prices.toml", "-q")
    assert run("predict", "runs/prices", "prices.csv", "--out", "p.csv").startswith("60 predic")
    run("predict", "runs/prices", "prices.csv", "--out", "p.npy")
    with open("p.csv", newline="") as file:
        y = [float(row["price"]) for row in csv.DictReader(file)]
    with open("prices.csv", newline="") as file:
        t = [float(row["price"]) for row in csv.DictReader(file)]
    outputs = np.load("p.npy")[:, 0]
    np.testing.assert_array_equal(outputs, np.array(y, outputs.dtype))
    assert np.abs(np.array(y) - t).max() < 5e4
    table = run("evaluate", "runs/prices", "prices.csv").split()
    assert table[:4] == ["rows", "loss", "mse", "r2"]
    assert float(table[-2]) == pytest.approx(np.mean((np.array(y) - t) ** 2), rel=1e-3)


def test_images_and_labels_in_files_of_their_own(here):
    run("train", "images.toml", "-q")
    assert run("predict", "runs/images", "images.idx.gz").startswith("label,probability_0,prob")
    out = run("evaluate", "runs/images", "images.idx.gz", "--targets-file", "labels.idx")
    assert "accuracy" in out
    message = run("evaluate", "runs/images", "images.idx.gz", code=2)
    assert "name them by --targets-file FILE" in message


def test_a_model_file_stands_for_a_run(here):
    """It has no settings: the columns are those of the model, the target is named."""
    run("train", "plants.toml", "-q")
    model = Path("runs/plants/model.safetensors")
    assert run("predict", model, "plants.csv") == run("predict", "runs/plants", "plants.csv")
    expected = run("evaluate", "runs/plants", "plants.csv")
    assert run("evaluate", model, "plants.csv", "--target", "kind") == expected
    message = run("evaluate", model, "plants.csv", code=2)
    assert "is a model alone: name the column to predict by --target NAME" in message
    message = run("predict", "runs/plants/state.safetensors", "plants.csv", code=2)
    assert "array-mlp state 2, not array-mlp model 2" in message
    message = run("train", "--resume", model, code=2)
    assert "is a file; a run is a folder" in message
    message = run("predict", "plants.csv", "plants.csv", code=2)
    assert "plants.csv is damaged or no safetensors file" in message
    message = run("evaluate", "runs/plants", "plants.csv", "--target", "knid", code=2)
    assert "did you mean 'kind'?" in message


# --- check, backends, init -------------------------------------------------------------------


def test_check_compares_with_central_differences(here, monkeypatch):
    out = run("check", "plants.toml", "--set", "layers.0.dropout=0.5")
    assert out.startswith("backpropagation agrees with central differences on 39 parameters")
    assert not (here / "runs").exists()
    df = "mlp.formulas.activations.Tanh.df"
    monkeypatch.setattr(df, lambda self, xp, v, z, a: v * (1.0 - 0.9 * a * a))
    result = CliRunner().invoke(app, ["check", "plants.toml"])
    assert result.exit_code == 1
    assert "DIFFERS" in result.stdout


def test_backends_are_listed_with_reasons_in_full(here):
    out = run("backends")
    table, _, reasons = out.partition("\n\n")
    lines = {line.split()[0]: line for line in table.splitlines()}
    assert lines["backend"].split() == ["backend", "usable", "device", "free", "total", "version"]
    assert " yes " in lines["numpy"]
    assert f"numpy {np.__version__}" in lines["numpy"]
    assert re.search(r"\d GB", lines["numpy"])
    for info in available(("cupy", "torch", "strict")):
        assert info.usable == (" yes " in lines[info.name])
        assert info.usable or f"{info.name}: {info.reason}" in reasons


def test_backends_on_a_terminal_keep_the_reasons_whole(here, monkeypatch, capsys):
    from mlp.app import cli

    reason = "backend 'cupy' needs " + " ".join(f"word{k}" for k in range(60))
    rows = [BackendInfo("cupy", reason=reason), *available(("numpy",))]
    monkeypatch.setattr("backends.available", lambda: rows)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "60")
    cli.backends()
    assert " ".join(reason.split()) in " ".join(capsys.readouterr().out.split())


def test_init_writes_a_file_that_trains_on_the_named_data(here):
    assert "mlp train my.toml" in run("init", "my.toml")
    before = Path("my.toml").read_text()
    out = run(
        *("train", "my.toml", "--set", "data.file=plants.csv", "--set", "data.target=kind"),
        *("--set", "training.epochs=2"),
    )
    assert "folder   runs/my" in out
    assert "my.toml is there already" in run("init", "my.toml", code=2)
    assert Path("my.toml").read_text() == before
    assert "mlp.toml is written" in run("init")
    assert "cannot be written" in run("init", "nowhere/my.toml", code=2)


def test_version_and_help():
    assert run("--version") == f"array-mlp {mlp.__version__}\n"
    out = run("--help")
    for command in (
        "train",
        "predict",
        "evaluate",
        "check",
        "find-lr",
        "backends",
        "init",
        "--debug",
    ):
        assert command in out
    result = CliRunner().invoke(app, ["trian"])
    assert result.exit_code == 2
    assert "'train'" in result.stderr


# --- bad input: one message, exit code 2, nothing left -----------------------------------------

HEAD = "a,b,kind\n1,2,fern\n3,4,moss\n"

BAD = {
    # name: (arguments, files that are replaced, parts of the message)
    "no such file": (["train", "x.toml"], {}, ["no file x.toml", "mlp init"]),
    "no file named": (["train"], {}, ["name the TOML file"]),
    "not TOML": ([], {"plants.toml": "a b\n"}, ["plants.toml is not TOML", "line 1"]),
    "unknown key": (
        [],
        {"plants.toml": PLANTS.replace("epochs", "epoch")},
        ["plants.toml: training.epoch: unknown key; did you mean 'epochs'?"],
    ),
    "wrong type": (
        ["--set", "training.epochs=five"],
        {},
        ["plants.toml: training.epochs (given by --set): expected a whole number, not 'five'"],
    ),
    "bad value": (["--set", "layers.0.dropout=1.5"], {}, ["layers.0.dropout", "[0, 1)", "1.5"]),
    "unknown name": (
        ["--set", "training.optimizer=adan"],
        {},
        ["training.optimizer (given by --set)", "'adan'; did you mean 'adam'?"],
    ),
    "loss does not fit the output": (
        ["--set", "layers.1.activation=sigmoid"],
        {},
        ["training.loss", "'softmax'", "binary_cross_entropy"],
    ),
    "no data file": (["--set", "data.file=x.csv"], {}, ["no file", "x.csv"]),
    "empty data": ([], {"plants.csv": ""}, ["plants.csv"]),
    "a header alone": ([], {"plants.csv": "a,b,kind\n"}, ["plants.csv"]),
    "NaN": (
        ["--set", "data.missing=error"],
        {"plants.csv": HEAD + "nan,1,fern\n,1,fern\n"},
        ["plants.csv: 2 of 4 rows", "'a' (2)"],
    ),
    "infinity": ([], {"plants.csv": HEAD + "1,inf,fern\n"}, ["plants.csv", "'b' (1)"]),
    "text among numbers": (
        ["--set", "data.columns.b=number"],
        {"plants.csv": HEAD + "1,x,fern\n"},
        ["line 4", "'b'", "'x'"],
    ),
    "a row too short": ([], {"plants.csv": HEAD + "1,fern\n"}, ["line 4 has 2 cells"]),
    "the target among the inputs": (
        ["--set", "data.inputs=['a', 'kind']"],
        {},
        ["plants.toml: data: 'kind' is in inputs and is the target"],
    ),
    "no target column": (
        ["--set", "data.target=kidn"],
        {},
        ["plants.csv has no column 'kidn'; did you mean 'kind'?"],
    ),
    "one class only": (
        [],
        {"plants.csv": HEAD.replace("moss", "fern")},
        ["plants.csv, column 'kind' holds only one class, 'fern'", "at least two"],
    ),
    "three classes on one output": (
        ["--set", "training.loss=binary_cross_entropy", "--set", "layers.1.activation=sigmoid"],
        {},
        ["column 'kind' holds 3 classes", "cross_entropy"],
    ),
    "text for a loss for numbers": (
        ["--set", "training.loss=mean_squared_error"],
        {},
        ["column 'kind' holds text ('", "cross_entropy"],
    ),
    "units against classes": (
        ["--set", "layers.1.units=7"],
        {},
        ["plants.toml: layers.1.units: 7, but ", "has 3 classes"],
    ),
    "labels outside the range": (
        ["train", "prices.toml"],
        {
            "prices.toml": PRICES.replace("mean_squared_error", "binary_cross_entropy").replace(
                'scale_targets = "standard"', ""
            ),
            "prices.csv": "a,b,price\n1,2,0.5\n3,4,1.5\n",
        },
        ["prices.csv, column 'price'", "1.5 is not a label from 0 to 1", "mean_squared_error"],
    ),
    "too few rows to split": (
        ["--set", "data.test=0.01"],
        {"plants.csv": HEAD},
        ["plants.toml: data.test", "2 rows"],
    ),
    "targets that are scaled but classes": (
        ["--set", "data.scale_targets=standard"],
        {},
        ["data.scale_targets"],
    ),
    "truncated IDX": (
        ["train", "images.toml"],
        {"images.idx.gz": idx(np.zeros((30, 2, 2)))[:-5]},
        ["images.idx.gz is damaged: 136 bytes are expected", "131 are there"],
    ),
    "as many labels as images": (
        ["train", "images.toml"],
        {"labels.idx": idx(np.arange(29) % 2)},
        ["30 rows of inputs", "29 targets"],
    ),
    "a pickle": (
        ["--set", "data.file=evil.npy"],
        {"evil.npy": b"\x93NUMPY\x01\x00v\x00{'descr': '|O', 'fortran_order': False, "},
        ["evil.npy"],
    ),
    "unknown backend": (
        ["--backend", "nunpy"],
        {},
        ["--backend: unknown backend 'nunpy'; did you mean 'numpy'?"],
    ),
    "unknown backend in the file": (
        [],
        {"plants.toml": "backend = 'nunpy'\n" + PLANTS},
        ["plants.toml: backend: unknown backend 'nunpy'"],
    ),
    "CUDA device that is not there": (["--backend", "cupy:99"], {}, ["--backend: ", "'cupy:99'"]),
    "a folder that is not empty": (["--out", "."], {}, [". is there already and is not empty"]),
    "a run that is none": (["--resume", "nix"], {}, ["no run nix"]),
    "predict with no run": (["predict", "nix", "plants.csv"], {}, ["no run nix"]),
    "predict into .txt": (["predict", "a", "b", "--out", "p.txt"], {}, ["p.txt", ".csv or .npy"]),
    "evaluate with no run": (["evaluate", ".", "plants.csv"], {}, ["is no folder of a run"]),
    "check with a mistake": (["check", "plants.toml", "--set", "seed=x"], {}, ["seed", "'x'"]),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_message_and_leaves_nothing(here, case):
    arguments, files, parts = BAD[case]
    for name, content in files.items():
        Path(name).write_bytes(content if isinstance(content, bytes) else content.encode())
    before = everything(here)
    if not arguments or arguments[0].startswith("--"):
        arguments = ["train", "plants.toml", *arguments]
    message = run(*arguments, code=2)
    assert message.startswith("mlp: error: ")
    assert "Traceback" not in message
    for part in parts:
        assert part in message
    assert everything(here) == before


def test_bad_data_for_a_run(here):
    run("train", "plants.toml", "-q")
    Path("new.csv").write_text("a,c\n1,2\n")
    assert "new.csv has no column 'b'" in run("predict", "runs/plants", "new.csv", code=2)
    Path("new.csv").write_text("a,b\n1,nan\n")
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        said = CliRunner().invoke(app, ["predict", "runs/plants", "new.csv"]).stderr
    assert said.startswith("mlp: warning: new.csv: 1 gaps in 'b', which had none in training")
    np.save("new.npy", np.zeros((3, 5)))
    assert "5 columns" in run("predict", "runs/plants", "new.npy", code=2)
    Path("new.csv").write_text("a,b,kind\n1,2,fir\n")
    assert "label 'fir'" in run("evaluate", "runs/plants", "new.csv", code=2)
    message = run("predict", "runs/plants", "plants.csv", "--out", "no/p.csv", code=2)
    assert "no/p.csv cannot be written" in message


def test_debug_shows_the_traceback(here):
    result = CliRunner().invoke(app, ["--debug", "train", "x.toml"])
    assert type(result.exception) is mlp.InputError


@pytest.mark.parametrize("what", ["os.replace", "os.mkdir"])
def test_a_full_disk(here, monkeypatch, what):
    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    before = everything(here)
    monkeypatch.setattr(what, full)
    message = run("train", "plants.toml", code=2)
    assert message == (
        "mlp: error: runs/plants cannot be written: No space left on device; nothing of it is "
        "left. Free some space, or name another folder by --out\n"
    )
    assert everything(here) == before


# --- as a program of its own -------------------------------------------------------------------


def program(*arguments, **options):
    return subprocess.Popen(
        [sys.executable, "-m", "mlp", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def test_a_mistake_ends_the_program_with_2_and_no_traceback(here):
    process = program("train", "x.toml")
    out, message = process.communicate(timeout=60)
    assert (process.returncode, out) == (2, "")
    assert message == "mlp: error: no file x.toml; `mlp init x.toml` writes a first one\n"


def test_ctrl_c_writes_the_run(here):
    process = program("train", "plants.toml", "--set", "training.epochs=10000")
    assert process.stdout is not None
    assert process.stdout.readline().startswith("memory: ")
    assert process.stdout.readline().startswith("epoch   500/10000")
    process.send_signal(signal.SIGINT)
    out, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (130, "")
    assert "stopped  interrupted; what was learned so far is kept" in out
    assert "next     mlp train --resume runs/plants" in out
    assert [path.name for path in Path("runs").iterdir()] == ["plants"]
    model, _ = load_run(Path("runs/plants"))
    epochs = json.loads(Path("runs/plants/metrics.json").read_text())["epochs"]
    assert 500 <= epochs < 10000
    more = f"training.epochs={epochs + 2}"
    assert "s for 2 epochs" in run("train", "--resume", "runs/plants", "--set", more)
    assert model.network.outputs == 3


def test_a_shutdown_writes_the_run(here):
    process = program("train", "plants.toml", "--set", "training.epochs=10000")
    assert process.stdout is not None
    for _ in range(2):
        process.stdout.readline()
    process.terminate()
    _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (143, "")
    load_run(Path("runs/plants"))


def test_output_that_nobody_reads_does_not_end_the_run(here):
    process = program("train", "plants.toml")
    assert process.stdout is not None
    process.stdout.close()
    assert process.wait(timeout=60) == 0
    assert process.stderr is not None
    assert "the run is in runs/plants" in process.stderr.read()
    process.stderr.close()
    load_run(Path("runs/plants"))


def test_predictions_replace_no_file(here):
    run("train", "plants.toml")
    before = Path("plants.csv").read_bytes()
    message = run("predict", "runs/plants", "plants.csv", "--out", "plants.csv", code=2)
    assert "plants.csv is there already and stays as it is; name another --out" in message
    assert Path("plants.csv").read_bytes() == before


def test_help_imports_nothing_heavy():
    code = "import sys, mlp.app.cli; print(sorted(sys.modules))"
    names = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout
    for heavy in ("numpy", "pydantic", "safetensors", "rich.progress", "mlp.training"):
        assert f"'{heavy}'" not in names


# --- names that a terminal would obey --------------------------------------------------------

CODES = ("\x1b[31m", "\x1b]0;title\x07", "\r", "\x9b2J", "\x7f", "\u202e", "\u2028")


def test_what_is_printable_stays_and_everything_else_is_escaped():
    planes = range(0x30000), range(0x30000, 0x110000, 251), range(0xE0000, 0xE0200)
    for code in itertools.chain(*planes):  # all that is assigned, and some of what is not
        character = chr(code)
        shown = printable(character)
        assert shown.isprintable()
        assert shown == character if character.isprintable() else shown.isascii()


@pytest.mark.parametrize("code", CODES, ids=ascii)
def test_control_codes_in_names_never_reach_the_terminal(code, tmp_path, monkeypatch):
    """Of columns, labels, files and settings; in errors, warnings, tables, and predictions where
    they are read by eye; a program that reads them gets them as they are."""
    monkeypatch.chdir(tmp_path)
    name, label = f"a{code}b", f"l{code}m"
    rows = [[str(i % 3), "1", label if i % 2 else "n"] for i in range(40)]
    with open(f"{name}.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([[name, "other", "kind"], *rows])
    text = PLANTS.replace('"plants.csv"', json.dumps("t.csv"))
    Path("t.csv").write_bytes(Path(f"{name}.csv").read_bytes())
    Path("t.toml").write_text(text)

    def shown(*arguments, code):
        result = CliRunner().invoke(app, list(arguments))
        assert result.exit_code == code, result.output
        assert all(c.isprintable() or c == "\n" for c in result.output), ascii(result.output)
        return result.output

    assert "stopped" in shown("train", "t.toml", "--out", f"run{code}", code=0)
    shown("train", "t.toml", "--set", f"data.target={name}x", code=2)
    shown("train", "t.toml", "--set", f"data.inputs={name}x", code=2)
    shown("train", f"{name}.toml", code=2)
    shown("train", "t.toml", "--set", f"training.{name}=1", code=2)
    assert "accuracy" in shown("evaluate", f"run{code}", f"{name}.csv", code=0)
    Path("bad.csv").write_text(f"{name},other\n1,2\n", newline="")
    shown("evaluate", f"run{code}", "bad.csv", code=2)
    plain = CliRunner().invoke(app, ["predict", f"run{code}", f"{name}.csv"])
    assert f"probability_{label}" in plain.stdout
    monkeypatch.setattr("mlp.app.cli._on_a_terminal", lambda: True)
    assert "probability" in shown("predict", f"run{code}", f"{name}.csv", code=0)


def test_warnings_are_escaped_too(capsys):
    from mlp.app.cli import _say_warning

    _say_warning("column 'a\x1b[31m'", UserWarning, "f", 1)
    assert capsys.readouterr().err == "mlp: warning: column 'a\\x1b[31m'\n"


def test_all_that_is_said_goes_one_way():
    sources = {path: path.read_text() for path in (Path(mlp.__file__).parent / "app").glob("*.py")}
    count = {path.name: text.count("typer.echo(") for path, text in sources.items()}
    assert {name: n for name, n in count.items() if n} == {"terminal.py": 1}
