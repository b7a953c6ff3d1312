"""The estimators inside what people build around them."""

import json
import pickle
from contextlib import contextmanager

import joblib
import numpy as np
import pytest
import sklearn
from sklearn import config_context
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import TransformedTargetRegressor
from sklearn.datasets import load_iris
from sklearn.ensemble import BaggingClassifier, StackingClassifier, VotingClassifier
from sklearn.inspection import partial_dependence, permutation_importance
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import get_scorer
from sklearn.model_selection import (
    GridSearchCV,
    RandomizedSearchCV,
    cross_val_predict,
    cross_val_score,
    cross_validate,
    learning_curve,
)
from sklearn.multiclass import OneVsRestClassifier
from sklearn.neural_network import MLPClassifier as Theirs
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.validation import check_is_fitted

import mlp

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

X, Y = load_iris(return_X_y=True)
KW = {"hidden_layer_sizes": (8,), "max_iter": 20, "random_state": 0}


def both(use):
    """What a use gives with scikit-learn's estimator and with ours."""
    return use(Theirs(**KW)), use(mlp.MLPClassifier(**KW))


USES = {
    "pipeline": lambda e: make_pipeline(StandardScaler(), e).fit(X, Y).predict_proba(X),
    "cross_val_score": lambda e: cross_val_score(e, X, Y, cv=3),
    "cross_val_predict": lambda e: cross_val_predict(e, X, Y, cv=3, method="predict_proba"),
    "calibrated": lambda e: CalibratedClassifierCV(e, cv=2).fit(X, Y).predict_proba(X),
    "calibrated isotonic": lambda e: (
        CalibratedClassifierCV(e, cv=2, method="isotonic").fit(X, Y).predict_proba(X)
    ),
    "voting": lambda e: (
        VotingClassifier([("net", e), ("line", LogisticRegression())], voting="soft")
        .fit(X, Y)
        .predict_proba(X)
    ),
    "stacking": lambda e: StackingClassifier([("net", e)], cv=2).fit(X, Y).predict_proba(X),
    "bagging": lambda e: BaggingClassifier(e, 2, random_state=0).fit(X, Y).predict_proba(X),
    "one against the rest": lambda e: OneVsRestClassifier(e).fit(X, Y).predict_proba(X),
    "learning_curve": lambda e: learning_curve(
        e, X, Y, train_sizes=[0.5, 1.0], cv=3, shuffle=True, random_state=0
    )[2],
    "incremental learning_curve": lambda e: learning_curve(
        e,
        *(X, Y),
        train_sizes=[0.5, 1.0],
        cv=3,
        shuffle=True,
        random_state=0,
        exploit_incremental_learning=True,
    )[2],
    "permutation_importance": lambda e: (
        permutation_importance(e.fit(X, Y), X, Y, n_repeats=2, random_state=0).importances
    ),
    "partial_dependence": lambda e: partial_dependence(e.fit(X, Y), X, [0]).average,
    "scorer": lambda e: get_scorer("roc_auc_ovr")(e.fit(X, Y), X, Y),
}


@pytest.mark.parametrize("name", USES)
def test_results_are_those_with_scikit_learns_estimator(name):
    expected, found = both(USES[name])
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-9)


def test_grid_search_in_two_processes_over_plain_numbers():
    grid = {"mlpclassifier__hidden_layer_sizes": [4, 8, (6, 3)], "mlpclassifier__alpha": [1e-3, 1]}
    expected, found = both(
        lambda e: GridSearchCV(make_pipeline(StandardScaler(), e), grid, cv=2, n_jobs=2).fit(X, Y)
    )
    assert found.best_params_ == expected.best_params_
    np.testing.assert_allclose(
        found.cv_results_["mean_test_score"], expected.cv_results_["mean_test_score"], rtol=1e-9
    )


@contextmanager
def on_dask():
    distributed = pytest.importorskip("distributed", reason="pip install dask distributed")
    about = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": None}
    with distributed.LocalCluster(**about) as cluster, distributed.Client(cluster):
        yield


@contextmanager
def on_ray():
    ray = pytest.importorskip("ray", reason="pip install ray")
    from ray.util.joblib import register_ray

    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    register_ray()
    try:
        yield
    finally:
        ray.shutdown()


@pytest.mark.thorough
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize(("name", "cluster"), [("dask", on_dask), ("ray", on_ray)])
def test_a_search_on_several_processes_is_that_of_one(name, cluster):
    """By joblib, as docs/parallel.md has it."""
    grid = {"hidden_layer_sizes": [(5,), (3, 2)], "alpha": [1e-3, 1]}

    def search():
        return GridSearchCV(mlp.MLPClassifier(**KW), grid, cv=2, error_score="raise").fit(X, Y)

    one = search()
    with cluster(), joblib.parallel_config(name, n_jobs=2):
        several = search()
    assert several.best_params_ == one.best_params_
    np.testing.assert_allclose(
        several.cv_results_["mean_test_score"], one.cv_results_["mean_test_score"], rtol=1e-9
    )


def test_random_search_draws_plain_numbers():
    from scipy.stats import loguniform, randint

    space = {"hidden_layer_sizes": randint(2, 9), "learning_rate_init": loguniform(1e-3, 1e-1)}
    search = RandomizedSearchCV(mlp.MLPClassifier(**KW), space, n_iter=3, cv=2, random_state=0)
    assert search.fit(X, Y).best_estimator_.coefs_[0].shape[1] in range(2, 9)


def test_targets_may_be_transformed():
    reg = mlp.MLPRegressor(**KW)
    model = TransformedTargetRegressor(reg, transformer=StandardScaler()).fit(X[:, :3], X[:, 3])
    assert model.predict(X[:, :3]).shape == (150,)


def test_set_output_leaves_predictions_as_they_are():
    pytest.importorskip("pandas")
    pipe = make_pipeline(StandardScaler(), mlp.MLPClassifier(**KW)).set_output(transform="pandas")
    pipe.fit(X, Y)  # the net gets frames, with names
    assert isinstance(pipe.predict(X), np.ndarray)
    assert pipe[-1].n_features_in_ == 4
    assert list(pipe[-1].feature_names_in_) == ["x0", "x1", "x2", "x3"]


def test_metadata_is_routed():
    weights = np.where(Y == 1, 3.0, 1.0)
    with config_context(enable_metadata_routing=True):
        for cls in (Theirs, mlp.MLPClassifier):
            clf = cls(**KW).set_fit_request(sample_weight=True)
            clf.set_score_request(sample_weight=True)
            scaler = StandardScaler().set_fit_request(sample_weight=False)
            pipe = make_pipeline(scaler, clf).fit(X, Y, sample_weight=weights)
            scores = cross_validate(pipe, X, Y, cv=2, params={"sample_weight": weights})
            if cls is Theirs:
                expected = pipe.predict_proba(X), scores["test_score"]
        clf = mlp.MLPClassifier(early_stopping=True, **KW).set_fit_request(X_val=True, y_val=True)
        pipe = make_pipeline(StandardScaler(), clf)
        pipe.fit(X, Y, X_val=StandardScaler().fit_transform(X), y_val=Y)
    np.testing.assert_allclose(scores["test_score"], expected[1], rtol=1e-9)


def test_html_shows_the_settings():
    html = mlp.MLPClassifier(alpha=0.25, backend="cupy")._repr_html_()
    assert "MLPClassifier" in html
    assert "0.25" in html
    assert "cupy" in html
    assert "L2 penalty" in html  # the parameter's description, from the docstring
    assert repr(mlp.MLPRegressor(alpha=1.0)) == "MLPRegressor(alpha=1.0)"


def test_parameters_are_scikit_learns_and_then_ours():
    import inspect

    for name in ("MLPClassifier", "MLPRegressor"):
        theirs, ours = (
            inspect.signature(getattr(library, name)).parameters
            for library in (sklearn.neural_network, mlp)
        )
        assert list(ours)[: len(theirs)] == list(theirs)
        for key, parameter in theirs.items():
            assert (ours[key].kind, ours[key].default) == (parameter.kind, parameter.default)
        assert all(p.kind is p.KEYWORD_ONLY for p in list(ours.values())[len(theirs) :])
        documented = getattr(mlp, name).__doc__
        assert [key for key in ours if f"\n    {key} : " not in documented] == []


def test_documented_attributes_are_there():
    clf = mlp.MLPClassifier(early_stopping=True, **KW).fit(X, Y)
    reg = mlp.MLPRegressor(**KW).fit(X, Y)
    for estimator in (clf, reg):
        check_is_fitted(estimator)
        section = estimator.__doc__.split("Attributes\n")[1].split("Examples\n")[0]
        names = [line.split(" : ")[0].strip() for line in section.splitlines() if " : " in line]
        assert len(names) > 14
        for name in names:
            assert hasattr(estimator, name) or name == "feature_names_in_"


# What skops has to be told to trust: our own classes, nothing else.
TRUSTED = {"mlp.estimators.MLPClassifier", "mlp.estimators.MLPRegressor"}


@pytest.mark.parametrize("cls", [mlp.MLPClassifier, mlp.MLPRegressor])
@pytest.mark.parametrize("solver", ["adam", "sgd", "rmsprop", "lbfgs"])
def test_skops_stores_them(cls, solver):
    skops = pytest.importorskip("skops.io", reason="skops is not installed: NOT TESTED")
    estimator = cls(solver=solver, early_stopping=solver == "adam", **KW)
    if cls is mlp.MLPClassifier:
        estimator.set_params(class_weight={0: 1.0, 1: 2.0, 2: 3.0})
    estimator.fit(X, Y)
    data = skops.dumps(make_pipeline(StandardScaler(), estimator))
    untrusted = skops.get_untrusted_types(data=data)
    assert set(untrusted) <= TRUSTED
    loaded = skops.loads(data, trusted=untrusted)[-1]
    np.testing.assert_array_equal(loaded.predict(X), estimator.predict(X))
    if solver != "lbfgs":
        loaded.set_params(early_stopping=False).partial_fit(X, Y)
        estimator.set_params(early_stopping=False).partial_fit(X, Y)
        np.testing.assert_array_equal(loaded.coefs_[0], estimator.coefs_[0])


def test_pickles_hold_the_net_and_not_the_machinery():
    clf = mlp.MLPClassifier(hidden_layer_sizes=500, max_iter=2).fit(X, Y)
    clf.predict(X)
    theirs = Theirs(hidden_layer_sizes=500, max_iter=2).fit(X, Y)
    assert len(pickle.dumps(clf)) < 1.05 * len(pickle.dumps(theirs))
    assert b"estimators.base" not in pickle.dumps(clf)  # only the door is named


def test_parameters_go_through_json():
    clf = mlp.MLPClassifier(activation=["relu"], solver={"name": "adamw"}, **KW)
    again = mlp.MLPClassifier(**json.loads(json.dumps(clf.get_params())))
    np.testing.assert_array_equal(again.fit(X, Y).predict(X), clf.fit(X, Y).predict(X))
