"""Metrics: each is scikit-learn's, and obeys what every metric must."""

import re
import warnings

import numpy as np
import pytest
from sklearn import metrics as sk

import mlp
from mlp import InputError
from mlp.formulas.metrics import METRICS, Measures, evaluate, fitting, get_metric
from mlp.formulas.target_kinds import TARGET_KINDS

N, C = 40, 3
CASES = [(name, kind) for name, metric in METRICS.items() for kind in metric.targets]
cases = pytest.mark.parametrize(("name", "kind"), CASES)


def data(kind, seed=0, c=C):
    """Targets, predictions that are somewhat right and have ties, as a loss of their kind makes
    them, and whole sample weights, some of them 0."""
    rng = np.random.default_rng(seed)
    noise, s = rng.standard_normal((N, c)), rng.integers(0, 4, N)
    if kind == "classes":
        t = rng.integers(0, c, N)
        e = np.exp(np.round(2.0 * np.eye(c)[t] + 1.5 * noise))
        return t, e / e.sum(axis=1, keepdims=True), s
    if kind == "labels":
        t = rng.integers(0, 2, (N, c))
        return t, np.round(1.0 / (1.0 + np.exp(2.0 - 4.0 * t - 2.0 * noise)), 1), s
    if kind == "counts":
        t = rng.poisson(3.0, (N, c)) + 1.0
        return t, t * np.exp(0.3 * noise), s
    t = 1e3 * rng.standard_normal((N, c))
    return t, t + noise, s


def perfect(kind, t):
    return np.eye(C)[t] if kind == "classes" else t.astype(float)


def decided(kind, y):
    """What scikit-learn takes for the predictions."""
    return y.argmax(axis=1) if kind == "classes" else (y > 0.5).astype(int)


def columns(kind, y, t):
    """(targets, decisions) of each output of labels, or of the classes."""
    decisions = decided(kind, y)
    return [(t, decisions)] if kind == "classes" else zip(t.T, decisions.T, strict=True)


def of_each(score, kind, y, t, s):
    """The mean of a score of probabilities over the columns of labels; of classes as they are."""
    if kind == "classes":
        return score(t, y[:, 1] if y.shape[1] == 2 else y, sample_weight=s)
    return np.mean([score(a, b, sample_weight=s) for a, b in zip(t.T, y.T, strict=True)])


def one_by_one(score, kind, y, t, s):
    """The mean of a score of one class against the others; of two classes the second's."""
    which = [1] if kind == "classes" and y.shape[1] == 2 else range(y.shape[1])
    there = [t == k if kind == "classes" else t[:, k] for k in which]
    return np.mean([score(a, y[:, k], sample_weight=s) for a, k in zip(there, which, strict=True)])


def log_loss(t, y, sample_weight):
    return sk.log_loss(t, y, sample_weight=sample_weight, labels=np.unique(t))


def calibration(kind, y, t, s):
    """By its definition, a bin at a time."""
    s = np.ones(len(t)) if s is None else s
    if kind == "classes":
        y, t = y.max(axis=1)[:, None], (y.argmax(axis=1) == t)[:, None]
    found = []
    for p, right in zip(y.T, t.T, strict=True):
        for low in np.arange(15):
            inside = (p > low / 15) & (p <= (low + 1) / 15) | (p == 0.0) & (low == 0)
            if s[inside].any():
                apart = np.average((p - right)[inside], weights=s[inside])
                found.append(s[inside].sum() / s.sum() * abs(apart))
    return sum(found) / y.shape[1]


def numbers(name, **options):
    score = getattr(sk, name)
    return lambda kind, y, t, s: score(t, y, sample_weight=s, **options)


def deviance(power):
    return lambda kind, y, t, s: np.mean(
        [
            sk.mean_tweedie_deviance(a, b, sample_weight=s, power=power)
            for a, b in zip(t.T, y.T, strict=True)
        ]
    )


PEERS = {
    "accuracy": lambda kind, y, t, s: sk.accuracy_score(t, decided(kind, y), sample_weight=s),
    "balanced_accuracy": lambda kind, y, t, s: np.mean(
        [sk.balanced_accuracy_score(a, b, sample_weight=s) for a, b in columns(kind, y, t)]
    ),
    "top_k": lambda kind, y, t, s: sk.top_k_accuracy_score(
        t, y, k=2, sample_weight=s, labels=range(C)
    ),
    "f1": lambda kind, y, t, s: sk.f1_score(t, decided(kind, y), average="macro", sample_weight=s),
    "mcc": lambda kind, y, t, s: np.mean(
        [sk.matthews_corrcoef(a, b, sample_weight=s) for a, b in columns(kind, y, t)]
    ),
    "roc_auc": lambda *given: one_by_one(sk.roc_auc_score, *given),
    "average_precision": lambda *given: one_by_one(sk.average_precision_score, *given),
    "log_loss": lambda *given: of_each(log_loss, *given),
    "brier": lambda *given: of_each(sk.brier_score_loss, *given),
    "calibration_error": calibration,
    "mse": numbers("mean_squared_error"),
    "rmse": numbers("root_mean_squared_error"),
    "mae": numbers("mean_absolute_error"),
    "median_error": numbers("median_absolute_error"),
    "r2": numbers("r2_score"),
    "pinball": numbers("mean_pinball_loss", alpha=0.5),
    "poisson_deviance": deviance(1.0),
    "gamma_deviance": deviance(2.0),
    "tweedie_deviance": deviance(1.5),
}


def asked(name):
    """What to ask for so that it has a sense for three classes."""
    return {"name": "top_k", "k": 2} if name == "top_k" else name


def measured(kind, y, t, s=None, name="accuracy"):
    """One metric."""
    (value,) = evaluate(kind, y, t, s, metrics=[asked(name)]).values()
    return value


@cases
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_equals_scikit_learn(name, kind, weighted, dtype):
    t, y, s = data(kind)
    y, s = y.astype(dtype), s.astype(float) if weighted else None
    exact = y if name == "log_loss" else y.astype("float64")  # whose eps goes by the dtype
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of shares in float32 whose sum is not quite 1
        expected = PEERS[name](kind, exact, t, s)
    close = 1e-6 if dtype == "float32" and name in ("log_loss", "brier") else 1e-12
    assert measured(kind, y, t, s, name) == pytest.approx(expected, rel=close)


@pytest.mark.parametrize("name", ["roc_auc", "average_precision", "log_loss", "brier", "mcc", "f1"])
@pytest.mark.parametrize("kind", ["classes", "labels"])
def test_two_classes_and_one_label_equal_scikit_learn(name, kind):
    """Either as two outputs or as one."""
    t, y, s = data(kind, c=2 if kind == "classes" else 1)
    assert measured(kind, y, t, s, name) == pytest.approx(PEERS[name](kind, y, t, s), rel=1e-12)


def test_roc_auc_of_many_classes_is_scikit_learn_s_one_versus_rest():
    t, y, _ = data("classes", seed=2)
    expected = sk.roc_auc_score(t, y, multi_class="ovr", average="macro")
    assert measured("classes", y, t, name="roc_auc") == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("average", ["macro", "micro", "weighted", "binary"])
@pytest.mark.parametrize(
    ("kind", "c"), [("classes", 3), ("classes", 2), ("labels", 3), ("labels", 1)]
)
def test_every_average_of_f1_is_scikit_learn_s(average, kind, c):
    t, y, s = data(kind, c=c)
    metric = get_metric({"name": "f1", "average": average})
    said = decided(kind, y)
    if average == "binary" and c == 3:
        with pytest.raises(InputError, match="average 'binary' is for two classes, not 3 outputs"):
            metric(y, t, s)
        return
    flat = (t[:, 0], said[:, 0]) if c == 1 else (t, said)
    expected = sk.f1_score(*flat, average=average, sample_weight=s)
    assert metric(y, t, s) == pytest.approx(expected, rel=1e-12)


def test_a_class_without_rows():
    """F1's mean is over the classes that occur; the order of a class that has no rows is none."""
    t, y, _ = data("classes")
    y, t = y[t != 2], t[t != 2]
    found = evaluate("classes", y, t, metrics=["f1", "mcc", "roc_auc", "average_precision"])
    said = y.argmax(axis=1)
    assert found["f1"] == pytest.approx(sk.f1_score(t, said, average="macro"), rel=1e-12)
    assert found["mcc"] == pytest.approx(sk.matthews_corrcoef(t, said), rel=1e-12)
    assert np.isnan(found["roc_auc"])
    assert np.isnan(found["average_precision"])
    never = np.where(np.arange(3) == 2, 0.0, y)
    assert evaluate("classes", never, t, metrics=["f1"])["f1"] == pytest.approx(
        sk.f1_score(t, never.argmax(axis=1), average="macro"), rel=1e-12
    )


@cases
def test_a_weight_is_so_many_rows(name, kind):
    t, y, s = data(kind)
    repeated = np.repeat(np.arange(N), s)
    found = measured(kind, y, t, s, name)
    assert found == pytest.approx(measured(kind, y[repeated], t[repeated], name=name), rel=1e-12)


@cases
def test_the_order_of_rows_does_not_matter(name, kind):
    t, y, s = data(kind)
    order = np.random.default_rng(1).permutation(N)
    found = measured(kind, y[order], t[order], s[order], name)
    assert found == pytest.approx(measured(kind, y, t, s, name), rel=1e-12)


@cases
@pytest.mark.parametrize("weighted", [False, True])
def test_rows_that_come_some_at_a_time(name, kind, weighted):
    """In a buffer that is used again, some pieces with no weight at all."""
    t, y, s = data(kind)
    s = np.where(np.arange(N) < 7, 0.0, s) if weighted else None
    found, buffer = Measures(kind, [get_metric(asked(name))]), np.empty((7, y.shape[1]))
    for start in range(0, N, 7):
        rows = slice(start, min(start + 7, N))
        part = buffer[: rows.stop - start]
        part[...] = y[rows]
        found.add(part, t[rows], None if s is None else s[rows])
    (value,) = found.end().values()
    assert value == pytest.approx(measured(kind, y, t, s, name), rel=1e-12)


def constant(t):
    """The targets with one column that is the same in all rows, though its mean is not: 0.1."""
    return t if t.ndim == 1 else np.concatenate([t[:, :2], np.full((N, 1), 0.1)], axis=1)


@cases
def test_nothing_is_better_than_to_be_right(name, kind):
    """And to be right is as good for all targets, constant ones of numbers among them."""
    better = max if METRICS[name].greater_is_better else min
    best = set()
    for seed in range(5):
        t, y, _ = data(kind, seed)
        for targets in (t, constant(t) if kind in ("numbers", "counts") else t):
            right = measured(kind, perfect(kind, targets), targets, name=name)
            best.add(round(right, 12))
            found = measured(kind, y, targets, name=name)
            assert better(found, right) == right != found
            if name == "r2":
                assert found > -1e6  # as little where a constant's mean rounds to another number
    assert len(best) == 1


@pytest.mark.parametrize("kind", TARGET_KINDS)
def test_every_kind_of_targets_is_measured(kind):
    """By its usual metrics, in the order of the table. One output may come as one axis, classes as
    shares."""
    t, y, _ = data(kind)
    found = evaluate(kind, y, t)
    usual = {name for name, metric in METRICS.items() if getattr(metric, "usual", False)}
    expected = [n for n, metric in METRICS.items() if n in usual and kind in metric.targets]
    assert list(found) == expected
    assert found
    assert all(type(value) is float for value in found.values())
    if kind == "classes":
        assert evaluate(kind, y, np.eye(C)[t]) == found
    else:
        assert evaluate(kind, y[:, :1], t[:, 0]) == evaluate(kind, y[:, :1], t[:, :1])


@pytest.mark.parametrize("name", METRICS)
def test_facts(name):
    metric = METRICS[name]
    assert metric.name.startswith({"top_k": "top_5", "pinball": "pinball_0.5"}.get(name, name))
    assert metric.label
    assert set(metric.targets) <= set(TARGET_KINDS)
    assert metric.greater_is_better in (True, False)


class Own:
    name, label, targets, greater_is_better = "own", "own", ("numbers",), False

    def __call__(self, y, t, s=None):
        return abs(y - t).max()


def test_what_is_chosen():
    kinds = ["numbers", "classes"]
    assert list(fitting(kinds, 3)) == kinds
    found = fitting(kinds, 3, ["mae", Own(), "f1"], also=["mae", "r2"])
    assert {k: [m.name for m in chosen] for k, chosen in found.items()} == {
        "numbers": ["mae", "own", "r2"],
        "classes": ["f1"],
    }
    assert [m.name for m in fitting(["classes"], 3, (), ["roc_auc"])["classes"]] == ["roc_auc"]


@pytest.mark.parametrize(
    ("kinds", "metrics", "message"),
    [
        (["numbers"], ["roc_auc"], "'roc_auc' is for classes and labels, and the targets of this "
         "loss are numbers: mse, rmse, mae, median_error, r2, pinball"),
        (["classes"], ["acuracy"], "unknown metric 'acuracy'; did you mean 'accuracy'?"),
        (["classes"], ["auc"], "unknown metric 'auc'; did you mean 'roc_auc'?"),
        (["classes"], ["f1", "f1"], "metrics must have a name each, not ['f1', 'f1']"),
        (["classes"], [{"name": "top_k", "k": 3}], "all rows are right with k = 3 of 3 classes"),
        (["classes"], [{"name": "top_k", "k": 1.5}], "top_k: k must be a whole number, not 1.5"),
        (["numbers"], [{"name": "pinball", "q": 1.0}], "pinball: q must lie between 0 and 1"),
        (["numbers", "classes"], ["log_loss"], "'log_loss' is of probabilities, and what this"),
        (["numbers"], [np.mean], "a metric is a name or an object with name, label, targets"),
        (["numbers"], [3], "a metric is a name or an object with"),
    ],
)  # fmt: skip
def test_what_cannot_be_measured(kinds, metrics, message):
    with pytest.raises(InputError, match=re.escape(message)):
        fitting(kinds, 3, metrics)


def test_a_metric_of_ones_own_that_fails_is_named():
    class Broken(Own):
        def __call__(self, y, t, s=None):
            return y[99]

    with pytest.raises(InputError, match="the metric own fails on 6 rows: index 99"):
        fitting(["numbers"], 3, [Broken()])
    with pytest.raises(InputError, match="is of probabilities"):
        fitting(["labels"], 1, ["brier"], proper=False)


@pytest.mark.parametrize("loss", ["hinge", "squared_hinge", "binary_focal", "multiclass_hinge"])
@pytest.mark.parametrize("metric", ["log_loss", "brier", "calibration_error"])
def test_probabilities_of_a_loss_that_makes_none_are_refused_before_training(loss, metric):
    net = mlp.Network(2, [mlp.Dense(1 + (loss == "multiclass_hinge"))])
    X, t = np.arange(8.0).reshape(4, 2), np.array([0, 1, 0, 1])
    model = mlp.Model(net, loss)
    for asked in ({"metrics": [metric]}, {"watch": metric, "patience": 1}):
        with pytest.raises(InputError, match="is of probabilities, and what this loss predicts"):
            mlp.train(model, X, t, validation=(X, t), callbacks=[pytest.fail], **asked)
    with pytest.raises(InputError, match="is of probabilities, and what this loss predicts"):
        model.evaluate(X, t, metrics=[metric])
