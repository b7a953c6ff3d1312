"""One library under four faces: command line, `mlp.train`, estimators, and the run folder.

A small net is trained through each, and goes from each to each: the same predictions, to the bit.
"""

import csv
import inspect
import io
import warnings
from dataclasses import fields
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import typer
from typer.testing import CliRunner

import mlp
from mlp.app.cli import app
from mlp.app.config import LAYER_SECTIONS, Config, Data, DenseLayer, Training, load
from mlp.layers import LAYERS
from tests.test_doors import README, cells, code

HIDDEN, ROWS = 5, 60


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with tables of plants, by kind, and of prices."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(ROWS, 2)).round(4)
    kinds = np.where(X[:, 0] > 0, "fern", np.where(X[:, 1] > 0, "moss", "oak tree"))
    sexes = np.where(X[:, 0] > 0, "f", "m")
    prices = (1e6 + 1e5 * X[:, 0]).round(1)
    for name, t in (("kind", kinds), ("sex", sexes), ("price", prices)):
        lines = [f"{a},{b},{y}" for (a, b), y in zip(X, t, strict=True)]
        (tmp_path / f"{name}.csv").write_text("\n".join([f"a,b,{name}", *lines]) + "\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLP_BACKEND", raising=False)
    return tmp_path


# what is learned: (column, loss, activation of the output, units of the output)
TASKS = {
    "classes": ("kind", "cross_entropy", "softmax", 3),
    "two classes": ("sex", "binary_cross_entropy", "sigmoid", 1),
    "numbers": ("price", "half_mean_squared_error", "identity", 1),
}


def command(*arguments):
    """What `mlp` prints."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output
    return result.stdout


def settings_file(task):
    """A TOML file for the task."""
    column, loss, output, _ = TASKS[task]
    scaled = '"standard"' if task == "numbers" else '"none"'
    Path(f"{column}.toml").write_text(
        f"""
        [data]
        file = "{column}.csv"
        target = "{column}"
        scale_targets = {scaled}
        [[layers]]
        units = {HIDDEN}
        activation = "tanh"
        [[layers]]
        activation = "{output}"
        [training]
        loss = "{loss}"
        epochs = 3
        learning_rate = 0.02
        """
    )
    return Path(f"{column}.toml")


def by_command_line(task):
    """The folder of a run."""
    command("train", settings_file(task), "--quiet", "--out", "run")
    return Path("run")


def by_python(task):
    """The model of a result."""
    column, loss, output, units = TASKS[task]
    data = mlp.read(f"{column}.csv", target=column)
    net = mlp.Network(2, [mlp.Dense(HIDDEN, "tanh"), mlp.Dense(units, output)])
    classes, t = (None, data.t) if task == "numbers" else mlp.class_labels(data.t)
    model = mlp.Model(
        net,
        loss,
        classes=classes,
        columns=data.columns,
        input_scaling=mlp.Scaling.standard(data.X),
        target_scaling=mlp.Scaling.standard(data.t[:, None]) if task == "numbers" else None,
    )
    return mlp.train(model, data.X, t, epochs=3, learning_rate=0.02).model


def by_estimator(task):
    """A fitted estimator."""
    column, *_ = TASKS[task]
    data = mlp.read(f"{column}.csv", target=column)
    cls = mlp.MLPRegressor if task == "numbers" else mlp.MLPClassifier
    learner = cls(hidden_layer_sizes=HIDDEN, activation="tanh", max_iter=3, tol=0.0, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # three epochs are few
        return learner.fit(data.X, data.t / 1e6 if task == "numbers" else data.t)


# --- the answers of each face: labels or numbers, and for classes their shares --------------------


def of_command_line(run, task):
    column, *_ = TASKS[task]
    rows = list(csv.DictReader(io.StringIO(command("predict", run, f"{column}.csv"))))
    if task == "numbers":
        (name,) = rows[0]
        return np.array([float(row[name]) for row in rows]), None
    shares = [name for name in rows[0] if name.startswith("probability_")]
    labels = np.array([row["label"] for row in rows])
    return labels, np.array([[float(row[name]) for name in shares] for row in rows])


def of_python(model, task):
    X = inputs(task)
    y = model.predict(X)
    if task == "numbers":
        return y[:, 0], None
    shares = np.concatenate([1 - y, y], axis=1) if y.shape[1] == 1 else y
    return model.classify(X), shares


def of_estimator(learner, task):
    X = inputs(task)
    if hasattr(learner, "feature_names_in_"):
        X = pd.DataFrame(X, columns=["a", "b"])
    if task == "numbers":
        return learner.predict(X), None
    return learner.predict(X), learner.predict_proba(X)


def inputs(task):
    column, *_ = TASKS[task]
    return mlp.read(f"{column}.csv", target=column).X


def assert_same(found, expected):
    for a, b in zip(found, expected, strict=True):
        if b is None or b.dtype.kind == "U":
            assert (a is None and b is None) or (a == b).all()
        else:
            np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("task", TASKS)
def test_from_the_command_line_to_each(here, task):
    run = by_command_line(task)
    expected = of_command_line(run, task)
    for place in (run, run / "model.safetensors"):
        model, learner = mlp.load(place), mlp.to_estimator(place)
        assert_same(of_python(model, task), expected)
        assert_same(of_estimator(learner, task), expected)
        assert_same(of_estimator(mlp.to_estimator(model), task), expected)
    assert_same(of_command_line(run / "model.safetensors", task), expected)


@pytest.mark.parametrize("task", TASKS)
def test_from_python_to_each(here, task):
    model = by_python(task)
    expected = of_python(model, task)
    model.save("model.safetensors")
    assert_same(of_python(mlp.load("model.safetensors"), task), expected)
    assert_same(of_command_line("model.safetensors", task), expected)
    assert_same(of_estimator(mlp.to_estimator(model), task), expected)
    assert_same(of_estimator(mlp.to_estimator("model.safetensors"), task), expected)


@pytest.mark.parametrize("task", TASKS)
def test_from_an_estimator_to_each(here, task):
    learner = by_estimator(task)
    expected = of_estimator(learner, task)
    learner.save("learner.safetensors")
    again = type(learner).load("learner.safetensors")
    assert again.get_params() == learner.get_params()
    assert_same(of_estimator(again, task), expected)
    assert_same(of_python(mlp.load("learner.safetensors"), task), expected)
    assert_same(of_estimator(mlp.to_estimator("learner.safetensors"), task), expected)
    found = of_command_line_without_names("learner.safetensors", task)
    assert_same(found, expected)
    assert_same(of_estimator(mlp.from_sklearn(learner.to_sklearn()), task), expected)


def of_command_line_without_names(run, task):
    """The net of an estimator that was fitted on arrays knows no names of columns."""
    column, *_ = TASKS[task]
    lines = Path(f"{column}.csv").read_text().splitlines()
    Path(f"{column}.csv").write_text("\n".join(line.rpartition(",")[0] for line in lines) + "\n")
    answers = of_command_line(run, task)
    Path(f"{column}.csv").write_text("\n".join(lines) + "\n")
    return answers


@pytest.mark.parametrize("task", TASKS)
def test_each_face_measures_the_same(here, task):
    """What `mlp.read` gives is measured by `evaluate` as by the command line."""
    model = by_python(task)
    column, *_ = TASKS[task]
    data = mlp.read(f"{column}.csv", target=column)
    t = data.t if task == "numbers" else mlp.class_labels(data.t)[1]
    measured = model.evaluate(data.X, t)
    model.save("model.safetensors")
    lines = command("evaluate", "model.safetensors", f"{column}.csv", "--target", column)
    names, numbers = (line.split() for line in lines.splitlines())
    found = dict(zip(names[1:], map(float, numbers[2:]), strict=True))
    assert found == pytest.approx(measured, rel=1e-3)
    if task != "numbers":
        learner = mlp.to_estimator("model.safetensors")
        table = pd.DataFrame(data.X, columns=["a", "b"])
        assert learner.score(table, data.t) == pytest.approx(measured["accuracy"])


@pytest.mark.parametrize("task", ["classes", "two classes"])
def test_labels_as_they_were_read_are_trained_on_and_measured(here, task):
    """A model that knows its classes takes labels where it takes their numbers."""
    model, numbered = by_python(task), by_python(task)
    column, *_ = TASKS[task]
    data = mlp.read(f"{column}.csv", target=column)
    t = mlp.class_labels(data.t)[1]
    assert model.evaluate(data.X, data.t) == numbered.evaluate(data.X, t)
    runs = [
        mlp.train(model, data.X, labels, epochs=2, validation=(data.X, labels))
        for labels in (data.t, t)
    ]
    assert (runs[0].model.w == runs[1].model.w).all()
    assert np.mean(model.classify(data.X) == data.t) == model.evaluate(data.X, t)["accuracy"]


# --- one table of all settings -------------------------------------------------------------------

FACES = cells(README.partition("<!-- faces -->")[2].partition("<!-- /faces -->")[0])


def names_in(column):
    """The names of a column: keys, parameters and flags, without what stands around them."""
    found = set()
    for row in FACES:
        for name in code(row[column]):
            if name.startswith("fit("):
                found |= {part.strip().rstrip("=") for part in name[4:-1].split(",")}
            elif not name.startswith("mlp."):
                found.add(name)
    return found


def parameters(function):
    """Names of what a function takes."""
    listed = inspect.signature(function).parameters.values()
    return {p.name for p in listed if p.name != "self" and p.kind is not p.VAR_KEYWORD}


def test_the_table_has_every_key_of_the_file_and_flag_of_train():
    keys = {"kind"}
    for table in (Config, Data, DenseLayer, Training, *LAYER_SECTIONS.values()):
        keys |= set(table.model_fields)
    flags = {
        option
        for parameter in typer.main.get_command(app).commands["train"].params
        for option in parameter.opts
        if option.startswith("--")
    }
    assert names_in(1) == keys | flags


def test_the_table_has_every_setting_in_python():
    settings = {field.name for cls in LAYERS.values() for field in fields(cls)}
    settings |= {field.name for field in fields(mlp.Settings)}
    for function in (mlp.Network, mlp.Model, mlp.train):
        settings |= parameters(function)
    settings -= {"network", "model"}  # what they are made of
    assert names_in(2) == settings


def test_the_table_has_every_parameter_of_the_estimators():
    settings = set(mlp.MLPClassifier().get_params()) | set(mlp.MLPRegressor().get_params())
    settings |= parameters(mlp.MLPClassifier.fit)
    assert names_in(3) - {"partial_fit", "set_params"} == settings


# --- the same values -----------------------------------------------------------------------------

VALUES = {  # as in the file, as in Python
    "batch_size": [("full", "full"), ("7", 7)],
    "optimizer": [("rprop", "rprop"), ("{name = 'sgd'}", {"name": "sgd"})],
    "schedule": [
        ("cosine", "cosine"),
        ("{name = 'step', every = 2}", {"name": "step", "every": 2}),
    ],
    "watch": [("loss", "loss")],
    "metrics": [("['f1']", ["f1"])],
    "best": [("last", "last")],
    "initialize": [("data", "data")],
    "parallel": [("{shards = 4}", {"shards": 4})],
    "rate_factors": [
        ("{bias = 0.5}", {"bias": 0.5}),
        ("{weight = 'ntk', 'W[0, 1]' = 6, 2 = 0}", {"weight": "ntk", "W[0, 1]": 6.0, "2": 0.0}),
    ],
    "weight_decay": [("0.01", 0.01)],
    "clip_norm": [("1", 1)],
    "clip_value": [("0.5", 0.5)],
    "accumulate": [("4", 4)],
    "sam_radius": [("0.05", 0.05)],
    "average": [("ema", "ema"), ("{name = 'swa', start = 2}", {"name": "swa", "start": 2})],
    "time": [("'10 min'", "10 min"), ("2.5", 2.5)],
    "patience": [("3", 3)],
    "target_loss": [("0.5", 0.5)],
    "learning_rate": [("0.5", 0.5)],
    "epochs": [("0", 0)],
    "warmup": [("1.5", 1.5)],
    "dropout_schedule": [("flat_cosine", "flat_cosine")],
    "mixup": [("0.2", 0.2)],
    "min_delta": [("0.1", 0.1)],
    "shuffle": [("false", False), ("balanced", "balanced")],
    "restore_best": [("false", False)],
    "record_steps": [("true", True)],
}


def test_every_setting_of_training_is_compared():
    compared = {"weight_decay_schedule", "decay_factors"}  # below, with what they need
    assert set(VALUES) == {field.name for field in fields(mlp.Settings)} - {"seed", *compared}


def test_the_course_of_weight_decay_is_the_same_in_the_file_and_in_python(here):
    given = {"weight_decay": 0.1, "weight_decay_schedule": "cosine", "decay_factors": {"bias": 2.0}}
    texts = ["weight_decay=0.1", "weight_decay_schedule=cosine", "decay_factors={bias = 2}"]
    config = load(settings_file("classes"), [f"training.{text}" for text in texts])
    assert config.settings() == mlp.Settings(epochs=3, learning_rate=0.02, **given)


@pytest.mark.parametrize(
    ("name", "text", "value"), [(name, *pair) for name, pairs in VALUES.items() for pair in pairs]
)
def test_a_value_is_the_same_in_the_file_and_in_python(here, name, text, value):
    path = settings_file("classes")
    given = {"epochs": 3, "learning_rate": 0.02}
    assert load(path).settings() == mlp.Settings(**given)
    needed = {"best": ["training.patience=5"], "metrics": ["data.validation=0.2"]}.get(name, [])
    given |= {"patience": 5} if name == "best" else {}
    config = load(path, [f"training.{name}={text}", *needed])
    assert config.settings() == mlp.Settings(**given | {name: value}) != mlp.Settings(**given)
