"""What is measured and watched while training: any metric, and the best epoch by it."""

import csv
import json

import numpy as np
import pytest

import mlp
from mlp import Checkpoints, Dense, InputError, Model, Network, train
from mlp.formulas.metrics import METRICS, evaluate
from mlp.training.checkpoint import load_state, save_state
from tests.plants import settle

rng = np.random.default_rng(0)
X = rng.normal(size=(60, 3))
NOISY = X @ rng.normal(size=(3, 3)) + rng.normal(size=(60, 3))
TARGETS = {
    "classes": ("cross_entropy", NOISY.argmax(axis=1)),
    "labels": ("binary_cross_entropy", (NOISY > 0.0).astype(float)),
    "numbers": ("mean_squared_error", NOISY),
    "counts": ("poisson", np.round(np.exp(0.3 * NOISY)) + 1.0),
}
CASES = [(name, kind) for name, metric in METRICS.items() for kind in metric.targets]


def asked(name):
    return {"name": "top_k", "k": 2} if name == "top_k" else name


def model_of(kind, backend="numpy"):
    net = Network(3, [Dense(5, "tanh"), Dense(3)])
    return Model(net, TARGETS[kind][0], seed=1, backend=backend, dtype="float64")


def watched(kind, name, state=None, backend="numpy", **options):
    t = TARGETS[kind][1]
    given = {"epochs": 8, "patience": 3, "learning_rate": 0.05, "batch_size": 16, "watch": name}
    return train(
        model_of(kind, backend), X[:40], t[:40], validation=(X[40:], t[40:]), state=state,
        **given | options,
    )  # fmt: skip


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_the_best_epoch_is_that_of_the_metric(name, kind):
    """Its value is in the history, and the model that is left has it."""
    result = watched(kind, asked(name), metrics=())
    metric = METRICS[name]
    _, column = (c for c in result.history if c.startswith("validation_"))
    values = np.asarray(result.history[column])
    best = values.argmax() if metric.greater_is_better else values.argmin()
    assert result.state.best_epoch == best + 1
    t = TARGETS[kind][1][40:]
    (found,) = evaluate(kind, result.model.predict(X[40:]), t, metrics=[asked(name)]).values()
    assert found == pytest.approx(values[best], rel=1e-12)
    assert column == "validation_top_2" or column.startswith(f"validation_{name}")


def test_metrics_are_the_columns_of_the_history():
    result = watched("classes", "roc_auc", metrics=["f1", {"name": "top_k", "k": 2}])
    columns = [c for c in result.history if c.startswith("validation_")]
    assert columns == [f"validation_{c}" for c in ("loss", "f1", "top_2", "roc_auc")]
    usual = watched("classes", "roc_auc")
    columns = [c for c in usual.history if c.startswith("validation_")]
    expected = ("loss", "accuracy", "balanced_accuracy", "roc_auc")
    assert columns == [f"validation_{c}" for c in expected]
    assert usual.history["loss"] == result.history["loss"]


@pytest.mark.parametrize("name", ["roc_auc", "log_loss", "accuracy"])
def test_a_run_goes_on_as_if_never_stopped(backend, name, tmp_path):
    options = {"metrics": ["mcc", "average_precision"], "backend": backend, "best": "last"}
    whole = watched("classes", name, patience=20, **options)
    half = watched("classes", name, patience=20, epochs=3, **options)
    save_state(half.state, tmp_path / "state", backend)
    again = watched("classes", name, load_state(tmp_path / "state"), patience=20, **options)
    for column in whole.history.keys() - {"seconds"}:
        assert again.history[column] == whole.history[column], column
    for key in ("best_loss", "best_epoch", "waited"):
        assert getattr(again.state, key) == getattr(whole.state, key)
    np.testing.assert_array_equal(again.model.predict(X), whole.model.predict(X))


def test_rows_on_disk_are_measured_as_those_in_memory(tmp_path):
    t = TARGETS["numbers"][1]
    found = []
    for part in (slice(0, 40), slice(40, 60)):
        np.save(tmp_path / "part.npy", np.hstack([X[part], t[part]]))
        rows = mlp.open_rows(tmp_path / "part.npy", target=["x_3", "x_4", "x_5"])
        model = model_of("numbers")
        names = [name for name, metric in METRICS.items() if "numbers" in metric.targets]
        on_disk = model.evaluate(rows, metrics=names)
        in_memory = model.evaluate(X[part], t[part], metrics=names)
        assert on_disk == pytest.approx(in_memory, rel=1e-12)
        found.append(on_disk)
    assert list(found[0]) == ["loss", *(METRICS[name].name for name in names)]


class Scripted:
    """A metric that is what was said, a value a call; what comes before the first epoch is thrown
    away."""

    label, targets = "scripted", ("numbers",)

    def __init__(self, values, greater_is_better=True):
        self.name, self.greater_is_better = "scripted", greater_is_better
        self.values, self.calls = values, 0

    def __call__(self, y, t, s=None):
        if len(y) != 20:  # it is tried on a few rows
            return 0.5
        self.calls += 1
        return self.values[self.calls - 2] if self.calls > 1 else 0.0


VALUES = [0.2, 0.8, 0.8, 0.5, 0.8, 0.1, 0.1, 0.1]


@pytest.mark.parametrize(("best", "expected"), [("first", 2), ("last", 5)])
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_first_or_last_of_epochs_that_are_as_good(best, expected, sign):
    """Patience counts from the first either way."""
    metric = Scripted([sign * x for x in VALUES], sign > 0)
    result = watched("numbers", metric, patience=4, best=best)
    assert result.state.best_epoch == expected
    assert result.state.epoch == 6
    assert result.state.best_loss == -0.8
    assert "no better validation scripted for 4 epochs" in result.stopped


@pytest.mark.parametrize("greater", [True, False])
def test_plateau_falls_where_the_metric_gets_no_better(greater):
    rising = Scripted(list(range(8)), greater)
    schedule = {"name": "plateau", "patience": 1, "factor": 0.5}
    rates = watched("numbers", rising, patience=None, schedule=schedule).history["learning_rate"]
    assert (min(rates) == max(rates)) == greater


@pytest.mark.parametrize("greater", [True, False])
def test_the_best_checkpoint_is_kept(greater, tmp_path):
    metric = Scripted([0.5, 0.1, 0.9, 0.4, 0.4, 0.4, 0.4, 0.4], greater)
    kept = Checkpoints(tmp_path, "1 epoch", keep=1)

    callbacks = [type("Waits", (), {"on_batch_end": staticmethod(settle)})()]
    watched("numbers", metric, patience=None, checkpoint=kept, callbacks=callbacks)
    epochs = {mlp.load_state(path).epoch for path in kept.found()}
    assert epochs == {3 if greater else 2, 8}


def test_a_metric_that_is_not_defined_is_refused_before_training():
    t = TARGETS["classes"][1]
    two = X[40:][t[40:] != 2], t[40:][t[40:] != 2]
    seen = []
    with pytest.raises(InputError, match="'roc_auc' is not a number on the validation data"):
        train(
            model_of("classes"), X[:40], t[:40], validation=two, watch="roc_auc",
            callbacks=[seen.append],
        )  # fmt: skip
    assert seen == []
    history = train(
        model_of("classes"), X[:40], t[:40], validation=two, epochs=2, metrics=["roc_auc"]
    ).history
    assert np.isnan(history["validation_roc_auc"]).all()


def test_what_is_measured_are_the_predictions_whatever_the_outputs():
    """Shares of ordered classes, one more than the outputs; of several outputs a target its own."""
    t = TARGETS["classes"][1]
    ordered = Model(Network(3, [Dense(2)]), "ordinal", dtype="float64")
    names = ["log_loss", {"name": "top_k", "k": 2}, "roc_auc"]
    found = ordered.evaluate(X, t, metrics=names)
    found.pop("loss")
    assert found == pytest.approx(evaluate("classes", ordered.predict(X), t, metrics=names))
    with pytest.raises(InputError, match="all rows are right with k = 3 of 3 classes"):
        ordered.evaluate(X, t, metrics=[{"name": "top_k", "k": 3}])
    spread = Model(Network(3, [Dense(2)]), "gaussian", dtype="float64")
    found = spread.evaluate(X, NOISY[:, 0], metrics=["mae", "median_error"])
    expected = evaluate("numbers", spread.predict(X)[:, :1], NOISY[:, 0], metrics=["mae"])
    assert found["mae"] == pytest.approx(expected["mae"])


def test_weights_of_rows_count():
    model, t = model_of("classes"), TARGETS["classes"][1]
    s = rng.integers(0, 3, 60)
    names = [name for name, metric in METRICS.items() if "classes" in metric.targets]
    names = [asked(name) for name in names]
    rows = np.repeat(np.arange(60), s)
    weighted = model.evaluate(X, t, s, metrics=names)
    assert weighted == pytest.approx(model.evaluate(X[rows], t[rows], metrics=names), rel=1e-9)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"watch": "rmse"},
            "metric 'rmse' is for numbers and counts, and the targets of this",
        ),
        ({"watch": "validation_accuracy"}, "not 'validation_accuracy'; write 'accuracy'"),
        ({"watch": "val_loss"}, "not 'val_loss'; did you mean 'validation_loss'"),
        ({"watch": 3}, "a metric is a name or an object with"),
        ({"metrics": "f1"}, r"metrics must be a list, as \['roc_auc'\], not 'f1'"),
        ({"metrics": ["f2"]}, "unknown metric 'f2'"),
        ({"best": "newest"}, "best must be 'first' or 'last', not 'newest'"),
        (
            {"best": "last", "patience": None},
            "best = 'last' is of the epochs that patience",
        ),
        ({"best": "last", "restore_best": False}, "best = 'last' is of the epochs that patience"),
    ],
)
def test_what_cannot_be_watched(options, message):
    with pytest.raises(InputError, match=message):
        watched("classes", "accuracy", **options)


def test_without_validation_data_nothing_is_measured():
    t = TARGETS["classes"][1]
    with pytest.raises(InputError, match="watch = 'roc_auc' needs validation data"):
        train(model_of("classes"), X, t, watch="roc_auc")
    with pytest.raises(InputError, match="metrics are of validation data, and there are none"):
        train(model_of("classes"), X, t, metrics=["roc_auc"])


def test_the_command_line_measures_what_the_file_says(tmp_path, monkeypatch, capsys):
    from mlp.app.cli import app
    from mlp.app.config import load
    from mlp.app.runs import train_run

    monkeypatch.chdir(tmp_path)
    t = TARGETS["classes"][1]
    lines = [f"{a:.4f},{b:.4f},{c:.4f},{'uvw'[k]}" for (a, b, c), k in zip(X, t, strict=True)]
    (tmp_path / "d.csv").write_text("\n".join(["a,b,c,kind", *lines]) + "\n")
    (tmp_path / "d.toml").write_text(
        """
        [data]
        file = "d.csv"
        target = "kind"
        validation = 0.3
        [[layers]]
        activation = "softmax"
        [training]
        loss = "cross_entropy"
        epochs = 4
        patience = 2
        metrics = ["f1", {name = "top_k", k = 2}]
        watch = "roc_auc"
        best = "last"
        """
    )
    run = train_run(load("d.toml"))
    with open(run.folder / "history.csv", encoding="utf-8") as file:
        header = next(csv.reader(file))
    columns = ["f1", "top_2", "roc_auc"]
    assert [f"validation_{c}" for c in columns] == [c for c in header if c[11:] in columns]
    found = json.loads((run.folder / "metrics.json").read_text())
    for part in ("train", "validation"):
        assert [c for c in found[part] if c not in ("rows", "loss")] == columns
    for flags, names in (([], ["f1", "top_2"]), (["--metric", "mcc"], ["mcc"])):
        app(["evaluate", str(run.folder), "d.csv", *flags], standalone_mode=False)
        assert capsys.readouterr().out.split("\n")[0].split() == ["rows", "loss", *names]
    (tmp_path / "d.toml").write_text((tmp_path / "d.toml").read_text().replace("validation", "#"))
    with pytest.raises(InputError, match=r"training.watch: 'roc_auc' needs data.validation"):
        load("d.toml")
    assert load("d.toml", ["training.watch=loss"]).settings().metrics is None
