"""The estimators' numbers are scikit-learn's: weights, losses, scores, warnings, printed lines.

`test_weights_and_records_are_scikit_learns` covers every task x solver mode x activation, with
early stopping and sample weights in every combination with each of them. The whole product, 624
configurations, is run by ``python -m tests.test_estimators``.
"""

import itertools
import warnings

import numpy as np
import pytest
import sklearn.neural_network as theirs
from sklearn.datasets import make_classification, make_multilabel_classification, make_regression
from sklearn.preprocessing import scale

import mlp as ours

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

N = 120


def _tasks():
    X, y = make_regression(N, 5, random_state=0)
    Xs, ys = make_regression(N, 5, n_targets=3, random_state=0)
    Xl, yl = make_multilabel_classification(N, 7, n_classes=3, random_state=0)
    return {
        "binary": ("MLPClassifier", *make_classification(N, 6, random_state=0), {}),
        "multi-class": (
            "MLPClassifier",
            *make_classification(N, 8, n_classes=3, n_informative=5, random_state=1),
            {},
        ),
        "multi-label": ("MLPClassifier", scale(Xl), yl, {}),
        "regression": ("MLPRegressor", X, scale(y), {}),
        "multi-output": ("MLPRegressor", Xs, scale(ys), {}),
        "poisson": ("MLPRegressor", X, np.exp(scale(y)), {"loss": "poisson"}),
    }


TASKS = _tasks()
MODES = {
    "lbfgs": {"solver": "lbfgs"},
    "adam": {"solver": "adam"},
    "sgd": {"solver": "sgd"},
    "sgd-plain": {"solver": "sgd", "nesterovs_momentum": False},
    "sgd-invscaling": {"solver": "sgd", "learning_rate": "invscaling"},
    "sgd-adaptive": {"solver": "sgd", "learning_rate": "adaptive"},
    "adam-invscaling": {"solver": "adam", "learning_rate": "invscaling"},
}
ACTIVATIONS = ("identity", "logistic", "tanh", "relu")
WEIGHTS = np.random.default_rng(0).uniform(0.2, 2.0, N)


def pair(name, **settings):
    """scikit-learn's estimator and ours, with the same settings."""
    return getattr(theirs, name)(**settings), getattr(ours, name)(**settings)


def class_count(y):
    return y.shape[1] if y.ndim > 1 else len(np.unique(y))


def outcome(estimator, X, y, **options):
    """The fitted estimator, or the text of the ValueError."""
    try:
        return estimator.fit(X, y, **options)
    except ValueError as error:
        return str(error)


def difference(a, b):
    """The largest relative difference of weights and records; infinite if they differ in kind."""
    if isinstance(a, str) or isinstance(b, str):
        return 0.0 if a == b else np.inf
    if (a.n_iter_, a.t_, a.n_layers_, a.n_outputs_) != (b.n_iter_, b.t_, b.n_layers_, b.n_outputs_):
        return np.inf
    if a.out_activation_ != b.out_activation_:
        return np.inf
    worst = [abs(a.loss_ / b.loss_ - 1)]
    for p, q in zip((*a.coefs_, *a.intercepts_), (*b.coefs_, *b.intercepts_), strict=True):
        worst.append(np.abs(p - q).max() / np.abs(p).max())
    for name in ("loss_curve_", "validation_scores_", "best_loss_", "best_validation_score_"):
        p, q = getattr(a, name, None), getattr(b, name, None)
        if (p is None) != (q is None):
            return np.inf
        if p is not None:
            worst.append(np.max(np.abs(np.subtract(p, q)) / np.maximum(np.abs(p), 1e-3)))
    return max(worst)


def compare(task, mode, activation, early, weighted):
    name, X, y, extra = TASKS[task]
    settings = {
        **{
            "hidden_layer_sizes": (9, 7),
            "batch_size": 32,
            "learning_rate_init": 0.01,
            "max_iter": 20,
        },
        **{"max_iter": 20, "random_state": 3, "activation": activation, "early_stopping": early},
        **MODES[mode],
        **extra,
    }
    options = {"sample_weight": WEIGHTS} if weighted else {}
    return difference(*(outcome(e, X, y, **options) for e in pair(name, **settings)))


def chosen():
    """Every task x mode x activation; (early, weighted) turn with them. Every second activation of
    a task is thorough, in every mode."""
    for i, task in enumerate(TASKS):
        for j, mode in enumerate(MODES):
            for k, activation in enumerate(ACTIVATIONS):
                early, weighted = divmod((i + j + k) % 4, 2)
                case = task, mode, activation, bool(early) and mode != "lbfgs", bool(weighted)
                yield pytest.param(*case, marks=[pytest.mark.thorough] * ((i + k) % 2))


@pytest.mark.parametrize(("task", "mode", "activation", "early", "weighted"), list(chosen()))
def test_weights_and_records_are_scikit_learns(task, mode, activation, early, weighted):
    assert compare(task, mode, activation, early, weighted) < 1e-8


@pytest.mark.parametrize("solver", ["lbfgs", "sgd", "adam"])
@pytest.mark.parametrize("task", TASKS)
def test_float32_stays_float32(task, solver):
    """Ours keeps float32 with L-BFGS too, where scikit-learn's weights become float64."""
    name, X, y, extra = TASKS[task]
    settings = dict(solver=solver, max_iter=5, random_state=0, hidden_layer_sizes=(8,), **extra)
    a, b = (e.fit(X.astype(np.float32), y) for e in pair(name, **settings))
    assert {x.dtype for x in (*b.coefs_, *b.intercepts_)} == {np.dtype(np.float32)}
    outputs = b.predict_proba if name == "MLPClassifier" else b.predict
    expected = (a.predict_proba if name == "MLPClassifier" else a.predict)(X.astype(np.float32))
    assert outputs(X.astype(np.float32)).dtype == np.float32
    np.testing.assert_allclose(outputs(X.astype(np.float32)), expected, rtol=2e-3, atol=2e-4)
    assert getattr(ours, name)(dtype="float64", **settings).fit(X.astype(np.float32), y).coefs_[
        0
    ].dtype == np.dtype(np.float64)


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("mode", ["adam", "sgd", "sgd-invscaling"])
def test_partial_fit_goes_on_as_scikit_learns(task, mode):
    """The solver's state lives on, over changed settings, sizes and sample weights."""
    name, X, y, extra = TASKS[task]
    a, b = pair(name, random_state=1, hidden_layer_sizes=(6,), **MODES[mode], **extra)
    classes = {} if name == "MLPRegressor" else {"classes": np.arange(class_count(y))}
    parts = [slice(0, 80), slice(80, 120), slice(0, 120)]
    for i, rows in enumerate(parts * 2):
        options = {**(classes if i == 0 else {}), "sample_weight": WEIGHTS[rows] if i > 3 else None}
        for estimator in (a, b):
            estimator.partial_fit(X[rows], y[rows], **options)
        if i == 2:
            for estimator in (a, b):
                estimator.set_params(alpha=0.1)
        assert difference(a, b) < 1e-10


@pytest.mark.parametrize("mode", ["lbfgs", "adam", "sgd-invscaling", "sgd-adaptive"])
@pytest.mark.parametrize("early", [False, True])
def test_warm_start_goes_on_as_scikit_learns(mode, early):
    name, X, y, _ = TASKS["multi-class"]
    settings = {"warm_start": True, "max_iter": 4, "random_state": 0, "early_stopping": early}
    a, b = pair(name, **settings, **MODES[mode])
    for _ in range(3):
        assert difference(a.fit(X, y), b.fit(X, y)) < 1e-9


def test_partial_fit_after_fit_and_fit_after_partial_fit():
    name, X, y, _ = TASKS["binary"]
    a, b = pair(name, max_iter=3, random_state=0)
    for step in ("fit", "partial_fit", "partial_fit", "fit", "partial_fit"):
        for estimator in (a, b):
            getattr(estimator, step)(X, y)
        assert difference(a, b) < 1e-10


@pytest.mark.parametrize("settings", [{"shuffle": False}, {"batch_size": 1}, {"batch_size": 500}])
@pytest.mark.parametrize("early", [False, True])
@pytest.mark.filterwarnings("ignore:Got `batch_size`")
def test_batches_are_scikit_learns(settings, early):
    name, X, y, _ = TASKS["multi-class"]
    a, b = pair(name, max_iter=3, random_state=2, early_stopping=early, **settings)
    assert difference(a.fit(X, y), b.fit(X, y)) < 1e-9


@pytest.mark.parametrize("hidden", [(), 4, np.int64(4), [3, 2, 5], np.array([3, 2])])
def test_any_form_of_hidden_layer_sizes(hidden):
    name, X, y, _ = TASKS["binary"]
    a, b = pair(name, max_iter=3, random_state=2, hidden_layer_sizes=hidden)
    assert difference(a.fit(X, y), b.fit(X, y)) < 1e-10


def test_momentum_of_one_is_taken():
    name, X, y, _ = TASKS["binary"]
    a, b = pair(name, solver="sgd", momentum=1.0, max_iter=3, random_state=2)
    assert difference(a.fit(X, y), b.fit(X, y)) < 1e-10


@pytest.mark.parametrize("mode", ["adam", "sgd-adaptive", "lbfgs"])
@pytest.mark.parametrize("early", [False, True])
def test_what_is_printed_and_warned_is_scikit_learns(mode, early, capsys):
    name, X, y, _ = TASKS["multi-class"]
    settings = {
        "verbose": True,
        "max_iter": 60,
        "tol": 0.05,
        "n_iter_no_change": 2,
        "random_state": 0,
    }
    settings |= {"early_stopping": early, "learning_rate_init": 0.01}
    said = []
    for estimator in pair(name, **settings, **MODES[mode]):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            estimator.fit(X, y)
            estimator.set_params(max_iter=2, tol=1e-9, batch_size=N + 1).fit(X, y)
        said.append((capsys.readouterr().out, [(w.category, str(w.message)) for w in caught]))
    assert said[0] == said[1]
    assert bool(said[0][0]) == (mode != "lbfgs")


def bad_inputs():
    X, y = TASKS["binary"][1:3]
    with_nan = X.copy()
    with_nan[3, 2] = np.nan
    one = {"max_iter": 1}
    return {
        "nan": (one, lambda e: e.fit(with_nan, y)),
        "rows": (one, lambda e: e.fit(X, y[:-1])),
        "vector": (one, lambda e: e.fit(X[0], y)),
        "empty": (one, lambda e: e.fit(X[:0], y[:0])),
        "text": (one, lambda e: e.fit([["a", "b"]] * 3, [0, 1, 0])),
        "weights": (one, lambda e: e.fit(X, y, sample_weight=np.ones(3))),
        "columns": (one, lambda e: e.fit(X, y).predict(X[:, :3])),
        "unfitted": (one, lambda e: e.predict(X)),
        "huge": ({"solver": "sgd", "max_iter": 5}, lambda e: e.fit(X * 1e200, y)),
        "hidden": ({"hidden_layer_sizes": (3, -1)}, lambda e: e.fit(X, y)),
        "hidden 0": ({"hidden_layer_sizes": 0}, lambda e: e.fit(X, y)),
        "alpha": ({"alpha": -1}, lambda e: e.fit(X, y)),
        "momentum": ({"momentum": 2}, lambda e: e.fit(X, y)),
        "max_iter": ({"max_iter": 0.5}, lambda e: e.fit(X, y)),
        "classes": (one, lambda e: e.partial_fit(X, y)),
        "new class": (one, lambda e: e.partial_fit(X, y, classes=[0, 1]).partial_fit(X, y + 1)),
        "partial early": (
            {"early_stopping": True},
            lambda e: e.partial_fit(X, y, classes=[0, 1]),
        ),
        "partial lbfgs": ({"solver": "lbfgs"}, lambda e: e.partial_fit(X, y, classes=[0, 1])),
        "warm classes": (
            {"warm_start": True, "max_iter": 1},
            lambda e: e.fit(X, y).fit(X, y + 1),
        ),
        "small validation": (
            {"early_stopping": True, "validation_fraction": 0.1},
            lambda e: e.fit(X[:10], y[:10]),
        ),
        "regression targets": (one, lambda e: e.fit(X, X[:, 0])),
    }


@pytest.mark.parametrize("case", bad_inputs())
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_errors_are_scikit_learns(case):
    settings, use = bad_inputs()[case]
    caught = []
    for estimator in pair("MLPClassifier", **settings):
        with pytest.raises((ValueError, AttributeError, TypeError)) as info:
            use(estimator)
        caught.append((type(info.value), str(info.value)))
    assert issubclass(caught[1][0], caught[0][0])
    assert caught[1][1] == caught[0][1]


def test_a_column_of_targets_is_warned_of_as_in_scikit_learn():
    name, X, y, _ = TASKS["regression"]
    for estimator in pair(name, max_iter=1):
        with pytest.warns(UserWarning, match="A column-vector y was passed"):
            estimator.fit(X, y[:, None])


def test_interrupted_training_keeps_what_was_learned():
    name, X, y, _ = TASKS["binary"]
    fitted = []

    def interrupt(estimator):
        if estimator.n_iter_ == 3:
            raise KeyboardInterrupt

    for max_iter, callbacks in ((50, [interrupt]), (3, None)):
        estimator = getattr(ours, name)(max_iter=max_iter, random_state=0, callbacks=callbacks)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            fitted.append(estimator.fit(X, y))
        if callbacks:
            assert [str(w.message) for w in caught] == ["Training interrupted by user."]
    assert difference(*fitted) == 0.0


def test_log_loss_is_exact_at_huge_logits():
    """scikit-learn clips probabilities at eps: it reports 36.04 for a row that costs 1e4."""
    X, y = np.array([[1e4], [-1e4]]), np.array([0, 1])
    settings = {
        "hidden_layer_sizes": (),
        "solver": "sgd",
        "learning_rate_init": 1e-30,
        "alpha": 0.0,
    }
    a, b = pair("MLPClassifier", max_iter=1, random_state=0, **settings)
    a.fit(X, y), b.fit(X, y)
    z = X @ b.coefs_[0] + b.intercepts_[0]
    exact = np.mean(np.logaddexp(0, z[:, 0]) - z[:, 0] * y)
    assert exact > 100
    assert b.loss_ == pytest.approx(exact, rel=1e-12)
    assert a.loss_ < 40


def test_edited_weights_take_effect():
    name, X, y, _ = TASKS["multi-class"]
    a, b = (e.fit(X, y) for e in pair(name, max_iter=3, random_state=0))
    for estimator in (a, b):
        estimator.predict(X)
        estimator.coefs_[0][:, 2] = 0.0  # in place
        estimator.intercepts_[1] = estimator.intercepts_[1] + 1.0  # replaced
    np.testing.assert_allclose(b.predict_proba(X), a.predict_proba(X), rtol=1e-12)
    for estimator in (a, b):
        estimator.partial_fit(X, y)
    assert difference(a, b) < 1e-10


def main():
    """The whole product of the factors: how many, and the largest difference."""
    warnings.simplefilter("ignore")
    cases = [
        (task, mode, activation, early, weighted)
        for task, mode, activation, early, weighted in itertools.product(
            TASKS, MODES, ACTIVATIONS, (False, True), (False, True)
        )
        if not (mode == "lbfgs" and early)
    ]
    worst = {case: compare(*case) for case in cases}
    last = max(worst, key=worst.get)
    print(f"{len(cases)} configurations, largest difference {worst[last]:.2e} in {last}")


if __name__ == "__main__":
    main()
