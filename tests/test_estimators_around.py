"""What is done around an estimator's rule: decay, factors, clipping, averages, time."""

import pickle
import re

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.datasets import make_classification

import mlp
from mlp.estimators import stochastic

X, Y = make_classification(120, 5, random_state=0)
KW = {
    "hidden_layer_sizes": 6,
    "max_iter": 5,
    "random_state": 1,
    "batch_size": 30,
    "learning_rate_init": 0.01,
    "tol": 0.0,
}
pytestmark = pytest.mark.filterwarnings("ignore:Stochastic Optimizer")


def flat(clf):
    return np.concatenate([x.reshape(-1) for x in (*clf.coefs_, *clf.intercepts_)])


def fitted(cls=mlp.MLPClassifier, **options):
    return cls(**KW | options).fit(X, Y)


AROUND = [
    {"weight_decay": 0.1},
    {"rate_factors": {"bias": 0, "weight": 0.5}},
    {"clip_norm": 0.05},
    {"clip_value": 0.01},
    {"weight_decay": 0.1, "clip_norm": 0.05, "average": {"name": "ema", "decay": 0.5}},
    {"average": {"name": "swa", "start": 2}},
]


@pytest.mark.parametrize("options", AROUND, ids=str)
@pytest.mark.parametrize("solver", ["adam", "sgd"])
def test_it_is_mlp_train_s(solver, options):
    """The same steps as `mlp.train` takes from the same weights, on rows in their order."""
    options = options | {"solver": solver, "shuffle": False, "alpha": 0.01}
    first = mlp.MLPClassifier(**KW | options | {"max_iter": 1})
    start = first.fit(X, Y)._engine.model  # for its network; the weights are drawn anew below
    begun = mlp.MLPClassifier(**KW | options)
    begun._random_state = np.random.RandomState(1)
    begun.n_outputs_ = 1
    begun._label_binarizer = first._label_binarizer
    begun._initialize([5, 6, 1], "float64")
    model = mlp.Model(
        start.network,
        "binary_cross_entropy",
        shared_penalties=True,
        w=flat(begun),
        dtype="float64",
    )
    around = stochastic.around(begun)
    settings = {name: getattr(around, name) for name in stochastic.AROUND}
    result = mlp.train(
        model, X, Y[:, None].astype(float), batch_size=30, epochs=5, shuffle=False,
        optimizer=stochastic._alone(begun), learning_rate=0.01, **settings,
    )  # fmt: skip
    np.testing.assert_allclose(flat(fitted(**options)), result.model.w, rtol=1e-12, atol=1e-15)


def test_none_is_the_fit_without(monkeypatch):
    plain = fitted()
    named = fitted(**dict.fromkeys(stochastic.AROUND))
    np.testing.assert_array_equal(flat(named), flat(plain))


@pytest.mark.parametrize("average", ["ema", {"name": "swa", "start": 2}])
def test_the_average_is_what_is_watched_and_kept(average):
    """`coefs_` in a callback and at the end, the validation score, and the best epoch."""
    seen = []

    def note(clf):
        held = clf.score(X[:40], Y[:40])
        seen.append((flat(clf).copy(), held, clf.validation_scores_[-1]))

    clf = mlp.MLPClassifier(**KW | {"average": average, "callbacks": [note]})
    clf.fit(X, Y, X_val=X[:40], y_val=Y[:40])
    assert [score for _, _, score in seen] == [held for _, held, _ in seen]
    np.testing.assert_array_equal(flat(clf), seen[-1][0])
    early = fitted(average=average, early_stopping=True, callbacks=[note])
    best = int(np.argmax(early.validation_scores_))
    np.testing.assert_array_equal(flat(early), seen[5 + best][0])
    assert len(early.to_sklearn()._optimizer.ms) == 4


@pytest.mark.parametrize("options", AROUND, ids=str)
def test_partial_fit_copies_pickles_and_files(options, tmp_path):
    clf = fitted(**options)
    again = pickle.loads(pickle.dumps(clf))
    clf.save(tmp_path / "net")
    loaded = mlp.MLPClassifier.load(tmp_path / "net")
    for other in (again, loaded, clone(clf).fit(X, Y)):
        np.testing.assert_array_equal(flat(other), flat(clf))
        assert {k: getattr(other, k) for k in options} == options
    if "average" in options:
        with pytest.raises(mlp.InputError, match="average is of a whole fit, partial_fit is one"):
            clf.partial_fit(X, Y)
        return
    clf.partial_fit(X, Y)
    again.partial_fit(X, Y)
    np.testing.assert_array_equal(flat(again), flat(clf))


@pytest.mark.parametrize("average", ["ema", {"name": "swa", "start": 2}])
def test_a_fit_that_was_ended_goes_on_with_its_average(average, tmp_path):
    class Ended(Exception):
        pass

    def end(clf):
        if clf.n_iter_ == 3:
            raise Ended

    options = KW | {"average": average, "clip_norm": 1.0}
    kept = {"checkpoint": mlp.Checkpoints(tmp_path, every="1 epoch")}
    with pytest.raises(Ended):
        mlp.MLPClassifier(**options, **kept, callbacks=[end]).fit(X, Y)
    gone_on = mlp.MLPClassifier(**options, **kept).fit(X, Y)
    whole = mlp.MLPClassifier(**options).fit(X, Y)
    np.testing.assert_array_equal(flat(gone_on), flat(whole))
    assert gone_on.loss_curve_ == whole.loss_curve_


def test_time_ends_a_fit_between_epochs():
    clf = fitted(time=1e-9)
    assert clf.n_iter_ == len(clf.loss_curve_) == 1
    assert fitted(time="10 min").n_iter_ == 5


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"clip_norm": 1.0, "clip_value": 1.0}, "are two ways to one end: give one"),
        ({"clip_norm": 1.0, "solver": "rprop"}, "takes steps whatever the gradient's size"),
        ({"weight_decay": 0.1, "solver": "lbfgs"}, "weight_decay needs a stochastic solver"),
        ({"average": "ema", "solver": "lbfgs"}, "average needs a stochastic solver"),
        ({"time": 3.0, "solver": "lbfgs"}, "time needs a stochastic solver"),
        ({"average": "swa"}, "average 'swa' needs a value for 'start'"),
        ({"rate_factors": {"wieght": 2}}, "no role 'wieght'; did you mean 'weight'?"),
        ({"rate_factors": {"gain": 2}}, "this network has no parameters 'gain'"),
        ({"clip_norm": 0.0}, "The 'clip_norm' parameter of MLP"),
        ({"time": "10 weeks"}, "time is '90 s', '10 min', '1.5 h' or seconds above 0"),
        ({"weight_decay": -1.0}, "The 'weight_decay' parameter of MLP"),
    ],
)
@pytest.mark.parametrize("cls", [mlp.MLPClassifier, mlp.MLPRegressor])
def test_what_is_refused(cls, options, said):
    with pytest.raises(ValueError, match=re.escape(said)):
        fitted(cls, **options)
