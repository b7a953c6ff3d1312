"""What the estimators have beyond scikit-learn's, and what must hold when something fails."""

import gc
import subprocess
import sys
import threading
import weakref

import numpy as np
import pytest
import sklearn.neural_network as theirs
from sklearn.datasets import load_iris, make_classification, make_multilabel_classification
from sklearn.metrics import f1_score, log_loss
from sklearn.utils import compute_class_weight, compute_sample_weight

import mlp
from backends.numpy_backend import NumpyBackend
from mlp.formulas.activations import ACTIVATIONS, LeakyRelu, Tanh, learned
from mlp.formulas.losses import LOSSES
from mlp.formulas.optimizers import OPTIMIZERS
from mlp.formulas.schedules import SCHEDULES

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

X, Y = load_iris(return_X_y=True)
X = (X - X.mean(axis=0)) / X.std(axis=0)
KW = {"hidden_layer_sizes": (8, 6), "max_iter": 5, "random_state": 0, "batch_size": 32}


def same(a, b):
    """Whether two fitted estimators have the same weights, bit for bit."""
    pairs = zip((*a.coefs_, *a.intercepts_), (*b.coefs_, *b.intercepts_), strict=True)
    return all(np.array_equal(p, q) for p, q in pairs)


# ------------------------------------------------------------------------------- class weights


@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
@pytest.mark.parametrize("given", ["balanced", {0: 1.0, 1: 3.0, 2: 0.5}], ids=str)
def test_class_weights_are_sample_weights(solver, given):
    rows = np.r_[0:20, 50:100, 110:150]
    settings = {**KW, "solver": solver}
    by_class = mlp.MLPClassifier(class_weight=given, **settings).fit(X[rows], Y[rows])
    weights = compute_sample_weight(given, Y[rows])
    assert same(by_class, mlp.MLPClassifier(**settings).fit(X[rows], Y[rows], weights))
    twice = mlp.MLPClassifier(class_weight=given, **settings).fit(X[rows], Y[rows], weights)
    assert same(twice, mlp.MLPClassifier(**settings).fit(X[rows], Y[rows], weights**2))


def test_balanced_cannot_be_known_from_a_part():
    clf = mlp.MLPClassifier(class_weight="balanced", **KW)
    with pytest.raises(ValueError, match="class_weight='balanced' cannot be known from a part"):
        clf.partial_fit(X, Y, classes=[0, 1, 2])
    found = compute_class_weight("balanced", classes=np.unique(Y), y=Y)
    clf.set_params(class_weight=dict(enumerate(found))).partial_fit(X, Y, classes=[0, 1, 2])


# ------------------------------------------------------------------------------------- dropout


def test_dropout_changes_training_only():
    plain = mlp.MLPClassifier(**KW).fit(X, Y)
    dropped = mlp.MLPClassifier(dropout=0.3, **KW).fit(X, Y)
    assert same(dropped, mlp.MLPClassifier(dropout=[0.3, 0.3], **KW).fit(X, Y))
    assert not same(plain, dropped)
    assert same(plain, mlp.MLPClassifier(dropout=[0.0, 0.0], **KW).fit(X, Y))
    by_hand = dropped.to_sklearn()  # knows no dropout
    np.testing.assert_allclose(dropped.predict_proba(X), by_hand.predict_proba(X), rtol=1e-12)
    on_device = mlp.MLPClassifier(dropout=0.3, backend="strict:device1", **KW).fit(X, Y)
    np.testing.assert_allclose(on_device.coefs_[0], dropped.coefs_[0], rtol=1e-9)


def test_dropout_goes_on_in_partial_fit():
    clf = mlp.MLPClassifier(dropout=0.5, solver="sgd", learning_rate_init=1.0, **KW)
    steps = [clf.partial_fit(X, Y, classes=[0, 1, 2]).coefs_[0].copy() for _ in range(3)]
    assert not np.allclose(steps[1] - steps[0], steps[2] - steps[1])


@pytest.mark.parametrize("name", ["dropout", "activation"])
def test_lists_are_of_the_length_of_the_hidden_layers(name):
    given = {"dropout": [0.1], "activation": ["relu", "tanh", "relu"]}[name]
    with pytest.raises(ValueError, match=rf"{name} has {len(given)} entries for 2 hidden layers"):
        mlp.MLPClassifier(**{name: given}, **KW).fit(X, Y)


# ----------------------------------------------------- names and objects of the whole library


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_every_activation_trains(name):
    clf = mlp.MLPClassifier(activation=name, **KW)
    if learned(ACTIVATIONS[name], 1):
        with pytest.raises(ValueError, match=f"activation '{name}' learns numbers of its own"):
            clf.fit(X, Y)
        return
    clf.fit(X, Y)
    assert clf.loss_curve_[-1] < clf.loss_curve_[0]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_solver_trains(name):
    clf = mlp.MLPClassifier(solver=name, learning_rate_init=0.002, **KW).fit(X, Y)
    assert clf.loss_curve_[-1] < clf.loss_curve_[0]
    clf.partial_fit(X, Y)
    assert clf.loss_curve_[-1] < clf.loss_curve_[0]


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("solver", ["adam", "momentum"])
def test_every_schedule_is_followed(name, solver):
    fitted = [
        mlp.MLPClassifier(learning_rate=schedule, solver=solver, **KW).fit(X, Y)
        for schedule in (name, "constant", lambda step, steps_per_epoch: 1.0)
    ]
    assert same(fitted[1], fitted[2])
    # The step schedule halves after ten epochs, of which there are none here; nor is a plateau.
    assert same(fitted[0], fitted[1]) == (name in ("constant", "step", "plateau"))


def test_adam_does_not_follow_scikit_learns_schedules_and_momentum_does():
    for solver, follows in (("adam", False), ("momentum", True)):
        a, b = (
            mlp.MLPClassifier(solver=solver, learning_rate=rate, **KW).fit(X, Y)
            for rate in ("constant", "invscaling")
        )
        assert same(a, b) != follows


@pytest.mark.parametrize("name", LOSSES)
def test_every_loss_trains_a_regressor(name):
    y = np.abs(X[:, :2]) / np.abs(X[:, :2]).sum(axis=1, keepdims=True)  # fits all of them
    if name in ("gaussian", "ordinal"):
        with pytest.raises(mlp.InputError, match="has several outputs for a target, an estimator"):
            mlp.MLPRegressor(loss=name, **KW).fit(X, y)
        return
    reg = mlp.MLPRegressor(loss=name, **KW).fit(X, y)
    assert reg.loss_curve_[-1] < reg.loss_curve_[0]
    assert reg.out_activation_ == (getattr(LOSSES[name], "unit", None) or "identity")


@pytest.mark.parametrize("name", ["cross_entropy", "mean_squared_error", "half_squared_error"])
def test_other_losses_train_a_classifier(name):
    clf = mlp.MLPClassifier(loss=name, **{**KW, "max_iter": 100}).fit(X, Y)
    assert clf.score(X, Y) > 0.7
    if name == "cross_entropy":
        assert same(clf, mlp.MLPClassifier(**{**KW, "max_iter": 100}).fit(X, Y))


class OwnTanh:
    """An activation of the user's: what `mlp.formulas.activations.Tanh` computes."""

    def f(self, xp, z):
        return xp.tanh(z)

    def df(self, xp, v, z, a):
        return v * (1.0 - a * a)


class OwnLoss:
    def cost(self, xp, y, t):
        return (y - t) * (y - t)

    def derivative(self, xp, y, t):
        return 2.0 * (y - t)


def test_objects_mappings_and_lists_stand_for_names():
    named = mlp.MLPClassifier(activation="tanh", **KW).fit(X, Y)
    for activation in (Tanh(), ["tanh", Tanh()], {"name": "tanh"}):
        assert same(named, mlp.MLPClassifier(activation=activation, **KW).fit(X, Y))
    own = mlp.MLPClassifier(activation=OwnTanh(), **KW).fit(X, Y)
    np.testing.assert_allclose(own.coefs_[0], named.coefs_[0], rtol=1e-9)
    mixed = mlp.MLPClassifier(activation=["tanh", LeakyRelu(0.2)], **KW).fit(X, Y)
    hidden = mixed.activations(X)
    np.testing.assert_allclose(hidden[0], np.tanh(X @ mixed.coefs_[0] + mixed.intercepts_[0]))
    z = hidden[0] @ mixed.coefs_[1] + mixed.intercepts_[1]
    np.testing.assert_allclose(hidden[1], np.where(z > 0, z, 0.2 * z))
    a = mlp.MLPRegressor(loss=OwnLoss(), **KW).fit(X, X[:, 0])
    assert same(a, mlp.MLPRegressor(loss={"name": "mean_squared_error"}, **KW).fit(X, X[:, 0]))
    b = mlp.MLPClassifier(solver={"name": "momentum", "momentum": 0.5}, **KW).fit(X, Y)
    c = mlp.MLPClassifier(solver="sgd", nesterovs_momentum=False, momentum=0.5, **KW).fit(X, Y)
    assert same(b, c)


class RowSum(OwnTanh):
    def f(self, xp, z):
        return z.sum(axis=1)


class Doubling(OwnTanh):
    def df(self, xp, v, z, a):
        return np.float64(2.0) * v.astype("float64")


class Scalar(OwnLoss):
    def cost(self, xp, y, t):
        return ((y - t) ** 2).sum()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"activation": RowSum()}, r"activation <.*RowSum.*f gives float32 of shape \(2,\)"),
        ({"activation": ["relu", Doubling()]}, r"df gives float64 of shape \(2, 3\)"),
        ({"loss": Scalar()}, r"loss <.*cost gives float32 of shape \(\)"),
        ({"activation": {"name": "tanhh"}}, "unknown activation 'tanhh'; did you mean 'tanh'"),
        ({"activation": {"name": "elu", "alfa": 1}}, "no setting 'alfa'; did you mean 'alpha'"),
        ({"solver": {"name": "adam", "beta": 1}}, "has no setting 'beta'"),
        (
            {"activation": "tanhh"},
            "The 'activation' parameter of MLPClassifier must be a str among",
        ),
        ({"backend": "cupi"}, "unknown backend 'cupi'; did you mean 'cupy'"),
        ({"callbacks": [3]}, "callbacks are functions of the estimator, not 3"),
        ({"scoring": "f1_macro"}, "scoring watches a validation set: set early_stopping=True"),
        ({"solver": "lbfgs", "dropout": 0.5}, "dropout needs a stochastic solver"),
        ({"dropout": 1.0}, "dropout"),
    ],
)
def test_wrong_settings_name_value_and_cure(settings, said):
    with pytest.raises((ValueError, RuntimeError), match=said):
        mlp.MLPClassifier(**{**KW, **settings}).fit(X, Y)


def test_a_warm_start_with_other_layers_says_so():
    clf = mlp.MLPClassifier(warm_start=True, **KW).fit(X, Y)
    with pytest.raises(ValueError, match=r"hidden_layer_sizes is \[3\], the fitted weights are of"):
        clf.set_params(hidden_layer_sizes=3).fit(X, Y)


# ------------------------------------------------------------------- validation and scoring


def test_validation_losses_are_those_of_the_rows_given():
    seen = []
    clf = mlp.MLPClassifier(callbacks=[lambda e: seen.append(e.predict_proba(X[1::2]))], **KW)
    clf.fit(X[::2], Y[::2], X_val=X[1::2], y_val=Y[1::2])
    expected = [log_loss(Y[1::2], p) for p in seen]
    np.testing.assert_allclose(clf.validation_losses_, expected, rtol=1e-9)
    accuracies = [np.mean(p.argmax(axis=1) == Y[1::2]) for p in seen]
    np.testing.assert_allclose(clf.validation_scores_, accuracies)
    assert clf.best_validation_score_ == max(accuracies)
    assert same(clf, mlp.MLPClassifier(**KW).fit(X[::2], Y[::2]))  # only watched
    assert mlp.MLPClassifier(**KW).fit(X, Y).validation_losses_ is None


@pytest.mark.parametrize("outputs", [1, 3])
def test_validation_losses_of_a_regressor_are_on_the_scale_of_its_loss(outputs):
    y = X[:, 0] if outputs == 1 else X[:, :outputs]
    reg = mlp.MLPRegressor(alpha=0.0, batch_size=75, **{k: KW[k] for k in ("max_iter",)})
    reg.set_params(learning_rate_init=1e-12).fit(X[:75], y[:75], X_val=X[:75], y_val=y[:75])
    np.testing.assert_allclose(reg.validation_losses_, reg.loss_curve_, rtol=1e-6)


def test_own_validation_rows_stop_early():
    settings = {**KW, "max_iter": 200, "n_iter_no_change": 3}
    clf = mlp.MLPClassifier(early_stopping=True, **settings)
    clf.fit(X[::2], Y[::2], X_val=X[1::2], y_val=Y[1::2])
    assert clf.n_iter_ < 200
    assert clf.best_validation_score_ == clf.score(X[1::2], Y[1::2])


@pytest.mark.parametrize("warm_start", [False, True])
@pytest.mark.parametrize("labels", [[0, 1, 2], ["ant", "bee", "cat"], [True, False]])
def test_validation_labels_are_those_of_the_model(labels, warm_start):
    """Some of them, in any order; one that is not in y is refused by name."""
    y = np.array(labels)[np.arange(len(X)) % len(labels)]
    clf = mlp.MLPClassifier(warm_start=warm_start, **KW)
    for some in ([0], [1], [1, 0], list(range(len(labels)))):
        rows = np.isin(y, np.array(labels)[some])
        clf.fit(X, y, X_val=X[rows], y_val=y[rows])
        assert clf.validation_scores_[-1] == clf.score(X[rows], y[rows])
    if len(labels) == 3:
        known = y != labels[2]
        with pytest.raises(ValueError, match=f"y_val has the label {labels[2]!r}, which is not"):
            mlp.MLPClassifier(**KW).fit(X[known], y[known], X_val=X, y_val=y)


@pytest.mark.parametrize("estimator", [mlp.MLPClassifier, mlp.MLPRegressor])
def test_half_a_validation_set_is_refused(estimator):
    for given, missing in (({"X_val": X}, "y_val"), ({"y_val": Y}, "X_val")):
        with pytest.raises(mlp.InputError, match=f"X_val and y_val .*: give {missing} too"):
            estimator(max_iter=1).fit(X, Y, **given)


def test_masked_values_are_refused():
    masked = np.ma.masked_equal(np.arange(len(X)) % 3, 0)
    holes = np.ma.masked_less(X, X.min() + 1e-9)
    clf = mlp.MLPClassifier(**KW)
    for arguments, options, name in (
        ((holes, Y), {}, "X"),
        ((X, masked), {}, "y"),
        ((X, Y, masked), {}, "sample_weight"),
        ((X, Y), {"X_val": holes, "y_val": Y}, "X_val"),
        ((X, Y), {"X_val": X, "y_val": masked}, "y_val"),
    ):
        with pytest.raises(mlp.InputError, match=rf"^{name} has \d+ masked values"):
            clf.fit(*arguments, **options)
    clf.fit(np.ma.array(X), np.ma.array(Y))  # nothing is masked
    with pytest.raises(mlp.InputError, match=r"^X has 1 masked values"):
        clf.predict(holes)


@pytest.mark.parametrize(
    "scoring", ["f1_macro", lambda e, X, y: f1_score(y, e.predict(X), average="macro")]
)
def test_any_scorer_is_watched(scoring):
    clf = mlp.MLPClassifier(scoring=scoring, early_stopping=True, **KW)
    clf.fit(X[::2], Y[::2], X_val=X[1::2], y_val=Y[1::2])
    assert len(clf.validation_scores_) == clf.n_iter_
    found = f1_score(Y[1::2], clf.predict(X[1::2]), average="macro")
    assert clf.best_validation_score_ == found


def test_a_frame_is_scored_with_its_names():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(X, columns=list("abcd"))
    clf = mlp.MLPClassifier(scoring="f1_macro", early_stopping=True, **KW)
    clf.fit(frame, Y)  # no warning about missing names, which would be an error here
    clf.fit(frame, Y, X_val=frame, y_val=Y)


# --------------------------------------------------------------------------------- callbacks


@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
@pytest.mark.parametrize("backend", ["numpy", "strict:device1"])
def test_callbacks_see_the_estimator_of_the_moment_and_may_stop(solver, backend):
    seen = []

    def watch(estimator):
        seen.append((estimator.n_iter_, estimator.loss_, estimator.score(X, Y)))
        return len(seen) == 3

    settings = {**KW, "max_iter": 50, "solver": solver, "backend": backend}
    clf = mlp.MLPClassifier(callbacks=[watch], **settings).fit(X, Y)
    assert [n for n, *_ in seen] == [1, 2, 3]
    assert clf.n_iter_ == 3
    assert seen[-1][1:] == (clf.loss_, clf.score(X, Y))
    assert len({loss for _, loss, _ in seen}) == 3


@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
@pytest.mark.parametrize("early", [False, True])
def test_scikit_learns_callbacks_work(solver, early):
    callback = pytest.importorskip("sklearn.callback")
    settings = {**KW, "solver": solver, "early_stopping": early}
    monitor = callback.ScoringMonitor(scoring="neg_log_loss")
    clf = mlp.MLPClassifier(**settings).set_callbacks(monitor).fit(X, Y)
    rows = [row for row in monitor.get_logs().data if row["task_name"] == "epoch"]
    scores = [row["neg_log_loss"] for row in rows if "neg_log_loss" in row]
    assert len(scores) == clf.n_iter_
    assert scores[-1] > scores[0]
    assert same(clf, mlp.MLPClassifier(**settings).fit(X, Y))


def test_scikit_learns_progress_bar_works(capsys):
    pytest.importorskip("rich", reason="scikit-learn's ProgressBar needs rich: NOT TESTED")
    from sklearn.callback import ProgressBar

    clf = mlp.MLPClassifier(**KW).set_callbacks(ProgressBar()).fit(X, Y)
    assert clf.n_iter_ == 5


def test_a_callback_of_scikit_learn_may_stop():
    class Stop:
        def setup(self, estimator, context): ...
        def teardown(self, estimator, context): ...
        def on_fit_task_begin(self, estimator, context): ...
        def on_fit_task_end(self, estimator, context, *, fitted_estimator=None):
            if context.task_name == "epoch":
                fitted_estimator.predict(X)
            return context.task_name == "epoch" and context.task_id == 1

    assert mlp.MLPClassifier(**KW).set_callbacks(Stop()).fit(X, Y).n_iter_ == 2


# -------------------------------------------------------------------------- when things fail


class Failing(NumpyBackend):
    """A backend whose products fail after so many."""

    def __init__(self, products):
        super().__init__()
        self.products = products

    def product(self, a, b, out, precision="float32"):
        def run():
            if self.products == 0:
                raise RuntimeError("the device is gone")
            self.products -= 1
            np.dot(a, b, out)

        return run


def snapshot(estimator):
    kept = {}
    for name, value in vars(estimator).items():
        if name in ("backend", "_engine", "_solver_state"):
            continue
        kept[name] = [np.array(v) for v in value] if isinstance(value, list) else np.array(value)
    kept["predictions"] = estimator.set_params(backend=None).predict_proba(X)
    return kept


@pytest.mark.parametrize("how", ["fit", "warm", "partial_fit", "early", "lbfgs", "data"])
def test_a_fit_that_fails_leaves_the_estimator_as_it_was(how):
    settings = {**KW, "early_stopping": how == "early", "warm_start": how == "warm"}
    settings["solver"] = "lbfgs" if how == "lbfgs" else "adam"
    clf, other = (mlp.MLPClassifier(**settings).fit(X, Y) for _ in range(2))
    before = snapshot(clf)
    if how == "data":
        with pytest.raises(ValueError, match="NaN"):
            clf.fit(np.where(X > 1, np.nan, X), Y)
    else:
        use = clf.partial_fit if how == "partial_fit" else clf.fit
        if how == "partial_fit":
            clf.set_params(backend=Failing(products=40))  # enough for one
            use(X, Y)
            before = snapshot(clf)
            other.partial_fit(X, Y)
        clf.set_params(backend=Failing(products=20))
        with pytest.raises(RuntimeError, match="the device is gone"):
            use(X, Y)
    after = snapshot(clf)
    assert before.keys() == after.keys()
    for name, value in before.items():
        np.testing.assert_equal(after[name], value, err_msg=name)
    if how not in ("early", "lbfgs"):  # and training goes on from there
        assert same(clf.partial_fit(X, Y), other.partial_fit(X, Y))


def test_an_unfitted_estimator_stays_unfitted():
    for use in ("fit", "partial_fit"):
        clf = mlp.MLPClassifier(backend=Failing(products=3), **KW)
        before = dict(vars(clf))
        options = {"classes": [0, 1, 2]} if use == "partial_fit" else {}
        with pytest.raises(RuntimeError, match="the device is gone"):
            getattr(clf, use)(X, Y, **options)
        assert vars(clf) == before


def test_threads_may_predict_at_once():
    clf = mlp.MLPClassifier(**KW).fit(X, Y)
    parts = [np.ascontiguousarray(X[i : i + 64] * (i + 1)) for i in range(8)]
    expected = [clf.predict_proba(part) for part in parts]
    wrong = []

    def work(i):
        found = [clf.predict_proba(parts[i]) for _ in range(200)]
        wrong.extend(i for x in found if not np.array_equal(x, expected[i]))

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


# -------------------------------------------------------------- to and from scikit-learn's own


def cases():
    Xl, yl = make_multilabel_classification(80, 6, n_classes=3, random_state=0)
    Xb, yb = make_classification(80, 6, random_state=0)
    return {
        "binary": ("MLPClassifier", Xb, yb),
        "multi-class": ("MLPClassifier", X, Y),
        "multi-label": ("MLPClassifier", Xl, yl),
        "strings": ("MLPClassifier", X, np.array(["a", "b", "c"])[Y]),
        "regression": ("MLPRegressor", X[:, :3], X[:, 3]),
        "multi-output": ("MLPRegressor", X[:, :2], X[:, 2:]),
    }


@pytest.mark.parametrize("solver", ["adam", "sgd", "lbfgs"])
@pytest.mark.parametrize("early", [False, True])
@pytest.mark.parametrize("case", cases())
def test_weights_go_both_ways(case, solver, early):
    name, X, y = cases()[case]
    settings = {"solver": solver, "early_stopping": early, "activation": "logistic", **KW}
    first = getattr(theirs, name)(**settings).fit(X, y)
    ours = mlp.from_sklearn(first)
    back = ours.to_sklearn()
    assert type(ours) is getattr(mlp, name)
    assert type(back) is getattr(theirs, name)
    assert back.get_params() == first.get_params()
    assert set(vars(back)) - set(vars(first)) <= {"_callback_fit_ctx"}
    for method in ("predict", "predict_proba"):
        if hasattr(first, method):
            expected = getattr(first, method)(X)
            if expected.dtype.kind == "U":
                assert (getattr(ours, method)(X) == expected).all()
            else:
                np.testing.assert_allclose(getattr(ours, method)(X), expected, rtol=1e-9)
            assert (getattr(back, method)(X) == expected).all()
    ours.coefs_[0][0, 0] += 1.0
    assert first.coefs_[0][0, 0] != ours.coefs_[0][0, 0] != back.coefs_[0][0, 0]
    ours.coefs_[0][0, 0] = first.coefs_[0][0, 0]
    if solver != "lbfgs" and not early:  # the solver's state came along
        for estimator in (first, ours, back):
            for _ in range(3):
                estimator.partial_fit(X, y)
        np.testing.assert_allclose(ours.coefs_[0], first.coefs_[0], rtol=1e-8)
        np.testing.assert_allclose(back.coefs_[0], first.coefs_[0], rtol=1e-12)


def test_what_scikit_learn_cannot_have_is_refused_or_left_out():
    clf = mlp.MLPClassifier(solver="rmsprop", dropout=0.1, activation=["tanh"] * 2, **KW).fit(X, Y)
    there = clf.to_sklearn()
    assert (there.solver, there.activation) == ("adam", "tanh")
    np.testing.assert_allclose(there.predict_proba(X), clf.predict_proba(X), rtol=1e-12)
    for activation in ("gelu", ["tanh", "relu"], OwnTanh()):
        clf = mlp.MLPClassifier(activation=activation, **KW).fit(X, Y)
        with pytest.raises(ValueError, match="scikit-learn's estimators cannot have activation="):
            clf.to_sklearn()
    with pytest.raises(ValueError, match="from_sklearn takes scikit-learn's MLPClassifier"):
        mlp.from_sklearn(clf)
    assert mlp.from_sklearn(theirs.MLPRegressor(alpha=3), backend="strict").alpha == 3
    assert not hasattr(mlp.MLPClassifier().to_sklearn(), "coefs_")


# --------------------------------------------------------------------- scikit-learn is optional

NO_SKLEARN = """
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "sklearn":
            raise ModuleNotFoundError("No module named 'sklearn'", name="sklearn")
sys.meta_path.insert(0, Blocked())
"""


def run(code, *arguments):
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    "ask",
    ["mlp.MLPClassifier", "mlp.MLPRegressor", "mlp.from_sklearn", "mlp.patch_sklearn()"],
)
def test_without_scikit_learn_it_says_what_to_install(ask):
    done = run(f"{NO_SKLEARN}\nimport mlp\nmlp.Model, mlp.train\n{ask}")
    last = done.stderr.strip().splitlines()[-1]
    assert done.returncode == 1
    assert last.startswith("ImportError: mlp.MLPClassifier and mlp.MLPRegressor need scikit-learn")
    assert "pip install 'array-mlp[sklearn]'" in last


def test_the_command_line_does_without_scikit_learn():
    done = run(
        "import sys, mlp, mlp.app.cli; print('sklearn' in sys.modules, 'scipy' in sys.modules)"
    )
    assert done.stdout.split() == ["False", "False"]


@pytest.mark.parametrize("backend", ["numpy", "strict:device1"])
def test_partial_fit_lets_go_of_the_data_before(backend):
    """The estimator keeps its buffers and not the rows: on a GPU that would be device memory."""
    pytest.importorskip("array_api_strict")
    rng = np.random.default_rng(0)
    clf = mlp.MLPClassifier((5,), backend=backend, random_state=0)
    rows, y = rng.normal(size=(40, 3)).astype("float32"), rng.integers(0, 2, 40)
    clf.partial_fit(rows, y, classes=[0, 1])
    before = weakref.ref(rows)
    for _ in range(2):
        rows, y = rng.normal(size=(40, 3)).astype("float32"), rng.integers(0, 2, 40)
        clf.partial_fit(rows, y)
    gc.collect()
    assert before() is None
