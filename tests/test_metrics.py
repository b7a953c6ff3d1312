"""Metrics: each is scikit-learn's, and obeys what every metric must."""

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, balanced_accuracy_score, mean_squared_error, r2_score

from mlp.formulas.metrics import METRICS, evaluate
from mlp.formulas.target_kinds import TARGET_KINDS

N, C = 40, 3
CASES = [(name, kind) for name, metric in METRICS.items() for kind in metric.targets]
cases = pytest.mark.parametrize(("name", "kind"), CASES)


def data(kind, seed=0):
    """Targets, predictions that are somewhat right, and whole sample weights, some of them 0."""
    rng = np.random.default_rng(seed)
    noise, s = rng.standard_normal((N, C)), rng.integers(0, 4, N)
    if kind == "classes":
        t = rng.integers(0, C, N)
        return t, np.eye(C)[t] + noise, s
    if kind == "labels":
        t = rng.integers(0, 2, (N, C))
        return t, t + 0.3 * noise, s
    t = 1e3 * rng.standard_normal((N, C)) if kind == "numbers" else rng.poisson(3.0, (N, C))
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


PEERS = {
    "accuracy": lambda kind, y, t, s: accuracy_score(t, decided(kind, y), sample_weight=s),
    "balanced_accuracy": lambda kind, y, t, s: np.mean(
        [balanced_accuracy_score(a, b, sample_weight=s) for a, b in columns(kind, y, t)]
    ),
    "mse": lambda kind, y, t, s: mean_squared_error(t, y, sample_weight=s),
    "r2": lambda kind, y, t, s: r2_score(t, y, sample_weight=s),
}


@cases
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_equals_scikit_learn(name, kind, weighted, dtype):
    t, y, s = data(kind)
    y, s = y.astype(dtype), s if weighted else None
    expected = PEERS[name](kind, y.astype("float64"), t, s)
    assert evaluate(kind, y, t, s)[name] == pytest.approx(expected, rel=1e-12)


@cases
def test_a_weight_is_so_many_rows(name, kind):
    t, y, s = data(kind)
    repeated = np.repeat(np.arange(N), s)
    found = evaluate(kind, y, t, s)[name]
    assert found == pytest.approx(evaluate(kind, y[repeated], t[repeated])[name], rel=1e-12)


@cases
def test_the_order_of_rows_does_not_matter(name, kind):
    t, y, s = data(kind)
    order = np.random.default_rng(1).permutation(N)
    found = evaluate(kind, y[order], t[order], s[order])[name]
    assert found == pytest.approx(evaluate(kind, y, t, s)[name], rel=1e-12)


def constant(t):
    """The targets with one column that is the same in all rows, though its mean is not: 0.1."""
    return t if t.ndim == 1 else np.concatenate([t[:, :2], np.full((N, 1), 0.1)], axis=1)


@cases
def test_nothing_is_better_than_to_be_right(name, kind):
    """And to be right is as good for all targets, constant ones among them."""
    better = max if METRICS[name].greater_is_better else min
    best = set()
    for seed in range(5):
        t, y, _ = data(kind, seed)
        for targets in (t, constant(t)):
            right = evaluate(kind, perfect(kind, targets), targets)[name]
            best.add(right)
            found = evaluate(kind, y, targets)[name]
            assert better(found, right) == right != found
            if name == "r2":
                assert found > -1e6  # as little where a constant's mean rounds to another number
    assert len(best) == 1


@pytest.mark.parametrize("kind", TARGET_KINDS)
def test_every_kind_of_targets_is_measured(kind):
    """By its metrics, in the order of the table. One output may come as one axis, classes as
    shares."""
    t, y, _ = data(kind)
    found = evaluate(kind, y, t)
    assert list(found) == [name for name, metric in METRICS.items() if kind in metric.targets]
    assert found
    assert all(type(value) is float for value in found.values())
    if kind == "classes":
        assert evaluate(kind, y, np.eye(C)[t]) == found
    else:
        assert evaluate(kind, y[:, :1], t[:, 0]) == evaluate(kind, y[:, :1], t[:, :1])


@pytest.mark.parametrize("name", METRICS)
def test_facts(name):
    metric = METRICS[name]
    assert metric.name == name
    assert metric.label
    assert set(metric.targets) <= set(TARGET_KINDS)
    assert metric.greater_is_better in (True, False)
