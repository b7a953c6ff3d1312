"""The estimators for tables: what must not change them, what must not break them, and whether what
they say of themselves holds."""

import pickle
import signal
import sys
import time
import warnings

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.metrics import log_loss
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

import mlp
from mlp import InputError, TabularClassifier, TabularRegressor
from mlp.tabular.calibration import order_statistics, temperature, tempered
from mlp.tabular.columns import places
from mlp.tabular.folds import folds

QUICK = {"n_members": 2, "epochs": 12, "hidden_layer_sizes": (16,), "random_state": 0}
BOTH = pytest.mark.parametrize("made", [TabularClassifier, TabularRegressor])


def table(n=120, seed=0):
    """A frame with numbers, a category, gaps, and both kinds of targets."""
    rng = np.random.default_rng(seed)
    X = pd.DataFrame(
        {
            "size": rng.normal(size=n),
            "price": rng.lognormal(size=n),
            "colour": rng.choice(["red", "green", "blue"], n),
            "old": rng.choice(["y", "n"], n),
        }
    )
    y = X["size"] * 2 + (X["colour"] == "red") + np.log(X["price"]) + 0.1 * rng.normal(size=n)
    X.loc[rng.random(n) < 0.1, "price"] = np.nan
    X.loc[rng.random(n) < 0.1, "colour"] = None
    return X, y.to_numpy(), np.where(y > 1, "high", "low")


def fitted(made, X=None, **more):
    frame, numbers, classes = table()
    X = frame if X is None else X
    y = numbers if made is TabularRegressor else classes
    return made(**{**QUICK, **more}).fit(X, y)


def answers(estimator, X):
    of_classes = isinstance(estimator, TabularClassifier)
    return estimator.predict_proba(X) if of_classes else estimator.predict(X)


# ------------------------------------------------------------------ what changes nothing


@BOTH
def test_same_seed_same_bits_whatever_the_threads(made):
    X, *_ = table()
    one, two, other = (fitted(made, n_jobs=n, random_state=s) for n, s in ((1, 0), (2, 0), (1, 1)))
    assert np.array_equal(answers(one, X), answers(two, X))
    assert not np.array_equal(answers(one, X), answers(other, X))


CHANGES = {
    "order": lambda X: X[X.columns[::-1]],
    "names": lambda X: X.rename(columns=dict(zip(X.columns, "zyxw", strict=True))),
    "units": lambda X: X.assign(size=X["size"] * 1000.0 + 7.0, price=X["price"] * 0.01 - 3.0),
    "categories": lambda X: X.assign(
        colour=X["colour"].map({"red": "zinnober", "green": "aqua", "blue": "marine"}),
        old=X["old"].map({"y": "jung", "n": "alt"}),
    ),
}


@BOTH
@pytest.mark.parametrize("change", CHANGES)
def test_order_names_units_and_categories_change_nothing(made, change):
    X, *_ = table()
    other = CHANGES[change](X)
    usual = answers(fitted(made), X)
    np.testing.assert_allclose(
        answers(fitted(made, X=other), other), usual, rtol=0, atol=2e-3 * np.ptp(usual)
    )


def test_places_follow_the_values():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(30, 6))
    place, sign = places(X)
    assert sorted(place) == list(range(6))
    order, signs = rng.permutation(6), rng.choice([-1.0, 1.0], 6)
    other_place, other_sign = places(X[:, order] * signs)
    assert (other_place == place[order]).all()
    assert (other_sign * signs == sign[order]).all()


@BOTH
def test_a_constant_column_and_a_copy_do_no_harm(made):
    X, numbers, classes = table(400)
    y = numbers if made is TabularRegressor else classes
    train, test = slice(0, 250), slice(250, 400)
    scores = []
    for other in (X, X.assign(one=1.0, again=X["size"])):
        estimator = made(**{**QUICK, "epochs": 30}).fit(other[train], y[train])
        scores.append(estimator.score(other[test], y[test]))
    assert scores[1] > scores[0] - 0.05


# ------------------------------------------------------------------ whatever comes


def test_frames_of_any_library_are_one_frame():
    import polars as pl
    import pyarrow as pa

    X, *_ = table()
    estimator = fitted(TabularRegressor)
    usual = estimator.predict(X)
    for other in (pl.from_pandas(X), pa.Table.from_pandas(X)):
        assert np.array_equal(fitted(TabularRegressor, X=other).predict(other), usual)


def test_gaps_in_an_array_are_gaps_and_infinity_is_refused():
    X, y, _ = table()
    X = X[["size", "price"]].to_numpy().copy()
    assert np.isnan(X).any()
    estimator = TabularRegressor(**QUICK).fit(X, y)
    assert np.isfinite(estimator.predict(X)).all()
    X[3, 1] = np.inf
    with pytest.raises(ValueError, match="infinit"):
        estimator.predict(X)


def test_new_values_and_new_gaps_are_predicted_with_a_word():
    X, *_ = table()
    estimator = fitted(TabularClassifier)
    X.loc[5, "colour"], X.loc[6, "old"] = "mauve", None
    with pytest.warns(UserWarning, match="not there in training"):
        shares = estimator.predict_proba(X)
    np.testing.assert_allclose(shares.sum(axis=1), 1, rtol=1e-6)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"metric": "rmse"}, "TabularClassifier predicts classes: accuracy"),
        ({"metric": "acuracy"}, "did you mean 'accuracy'"),
        ({"hidden_layer_sizes": ()}, "whole numbers from 1 on"),
        ({"hidden_layer_sizes": (4, 2.5)}, "whole numbers from 1 on"),
        ({"columns": {"siize": "category"}}, "siize"),
        ({"n_members": 0}, "n_members"),
        ({"time_limit": "soon"}, "soon"),
        ({"activation": "mush"}, "activation"),
        ({"embedding": 0, "bins": 8}, "give one of them"),
    ],
)
def test_settings_that_cannot_be_are_refused_by_name(more, message):
    with pytest.raises(ValueError, match=message):
        fitted(TabularClassifier, **more)


def test_one_class_and_too_few_groups_are_refused():
    X, y, _ = table()
    with pytest.raises(InputError, match="only one class, 'low'"):
        TabularClassifier(**QUICK).fit(X, np.full(len(X), "low"))
    with pytest.raises(InputError, match="1 groups"):
        TabularRegressor(**QUICK).fit(X, y, groups=np.zeros(len(X)))


def test_a_class_of_one_row_and_a_table_of_few():
    X, _, classes = table()
    classes = classes.astype(object)
    classes[7] = "never"
    estimator = TabularClassifier(**QUICK).fit(X, classes)
    assert estimator.predict_proba(X).shape == (len(X), 3)
    few = TabularClassifier(**QUICK).fit(X[:6], ["a", "b"] * 3)
    with pytest.warns(UserWarning, match="not there in training"):
        assert np.isfinite(few.predict_proba(X)).all()


# ------------------------------------------------------------------ folds, weights, members


@pytest.mark.parametrize("members", [1, 2, 5, 8])
def test_folds_share_classes_and_keep_groups_together(members):
    rng = np.random.default_rng(members)
    y = rng.choice(3, 200, p=[0.6, 0.3, 0.1])
    found = folds(y, members, seed=1)
    many = max(members, 5)
    counts = np.array([[np.sum((found == k) & (y == c)) for c in range(3)] for k in range(many)])
    assert (np.ptp(counts, axis=0) <= 2).all()
    groups = rng.integers(20, size=200)
    found = folds(y, members, seed=1, groups=groups)
    assert all(len(set(found[groups == group])) == 1 for group in range(20))
    assert len(set(found)) == many


def test_a_weight_of_two_is_a_row_twice_in_what_is_learned():
    """Rows of weight 0 are learned from as if they were not there: their targets do not count."""
    X, y, _ = table()
    s = np.ones(len(y))
    s[::4] = 0.0
    other = np.where(s == 0, y[::-1], y)
    seen = [TabularRegressor(**QUICK).fit(X, t, sample_weight=s).predict(X) for t in (y, other)]
    weighted, plain = (TabularRegressor(**QUICK).fit(X, y, sample_weight=w) for w in (s, None))
    assert not np.allclose(weighted.predict(X), plain.predict(X), atol=1e-3)
    assert np.corrcoef(*seen)[0, 1] > 0.9


@BOTH
def test_every_row_is_held_out_once(made):
    estimator = fitted(made, n_members=5)
    held = np.concatenate([member.held_out for member in estimator.members_])
    assert sorted(held) == list(range(120))


def test_the_time_limit_is_kept():
    X, y, _ = table(600)
    TabularRegressor(**QUICK).fit(X, y)  # what is compiled, is
    for limit in (0.5, "1.5 s"):
        seconds = 0.5 if limit == 0.5 else 1.5
        begun = time.monotonic()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            estimator = TabularRegressor(time_limit=limit, epochs=100_000, random_state=0)
            estimator.fit(X, y)
        assert time.monotonic() - begun < 1.1 * seconds + 0.5
        assert np.isfinite(estimator.predict(X)).all()


def test_ctrl_c_keeps_what_is_there(monkeypatch):
    class Terminal:
        """Where Ctrl-C is typed when the first member is done."""

        def write(self, text):
            if "member 1" in text:
                asked = signal.getsignal(signal.SIGINT)
                assert asked is not signal.default_int_handler, "Ctrl-C would end the process"
                asked(signal.SIGINT, None)

        def flush(self):
            pass

    X, y, _ = table(200)
    with monkeypatch.context() as replaced, warnings.catch_warnings():
        replaced.setattr(sys, "stdout", Terminal())
        warnings.simplefilter("ignore")
        estimator = TabularRegressor(epochs=60, random_state=0, verbose=True, n_jobs=1).fit(X, y)
    assert estimator.stopped_.startswith("interrupted")
    assert 1 <= len(estimator.members_) < 8
    assert estimator.score(X, y) > 0.5


# ------------------------------------------------------------------ what is said of the answer


def test_intervals_hold_as_often_as_they_say():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(900, 3))
    y = X[:, 0] + rng.normal(size=900) * 0.5
    estimator = TabularRegressor(**{**QUICK, "n_members": 5, "epochs": 25}).fit(X[:400], y[:400])
    low, high = estimator.predict_interval(X[400:], coverage=0.8).T
    inside = np.mean((low <= y[400:]) & (y[400:] <= high))
    assert 0.74 < inside < 0.88
    q = estimator.predict_quantiles(X[400:], [0.1, 0.5, 0.9])
    assert (np.diff(q, axis=1) >= 0).all()
    np.testing.assert_allclose(np.mean(y[400:, None] <= q, axis=0), [0.1, 0.5, 0.9], atol=0.06)


def test_order_statistics_are_those_of_all_sums():
    rng = np.random.default_rng(1)
    y, r = [rng.normal(size=4) for _ in range(3)], [rng.normal(size=n) for n in (2, 5, 3)]
    every = np.sort(np.concatenate([a[:, None] + b for a, b in zip(y, r, strict=True)], 1), 1)
    found = order_statistics(y, r, [0, 1, 4, 10, 11])
    np.testing.assert_array_equal(found[:, 1:4], every[:, [0, 3, 9]])
    assert (found[:, 0] == -np.inf).all()
    assert (found[:, 4] == np.inf).all()


def test_the_temperature_has_the_least_log_loss():
    rng = np.random.default_rng(2)
    z = rng.normal(size=(400, 3))
    p = np.exp(z) / np.exp(z).sum(1, keepdims=True)
    t = np.array([rng.choice(3, p=row) for row in p])
    sharp = tempered(p, 1 / 3)
    T = temperature(sharp, t, None)
    assert 2 < T < 4.5
    losses = [log_loss(t, tempered(sharp, x)) for x in (T * 0.9, T, T * 1.1)]
    assert losses[1] == min(losses)


@BOTH
def test_attributions_add_up_to_the_prediction(made):
    """Completeness (Sundararajan et al., proposition 1)."""
    X, *_ = table()
    estimator = fitted(made)
    found = estimator.explain(X[:5], points=2000)
    base = np.mean([m.model.predict(estimator._x0[None]) for m in estimator.members_], axis=0)
    usual = np.mean(estimator._of_members(X[:5]), axis=0)
    total = found.sum(axis=1).reshape(5, -1)
    np.testing.assert_allclose(total, usual - base, atol=2e-3 * np.abs(usual).max())


def test_attributions_of_a_logarithm_are_in_the_users_units():
    X, *_ = table(300)
    y = np.exp(2 * X["size"]).to_numpy()
    estimator = TabularRegressor(**{**QUICK, "epochs": 40}).fit(X, y)
    assert estimator.target_log_
    found = estimator.explain(X[:4], points=2000).sum(axis=1)
    base = np.mean([m.model.predict(estimator._x0[None]) for m in estimator.members_])
    usual = np.mean(estimator._of_members(X[:4]), axis=0)[:, 0]
    np.testing.assert_allclose(found, usual - base, rtol=0.02, atol=0.02)


@BOTH
def test_importances_find_the_column_that_counts(made):
    estimator = fitted(made, epochs=40)
    assert estimator.feature_importances_.argmax() in (0, 1)
    assert abs(estimator.feature_importances_[3]) < estimator.feature_importances_.max() / 4


@BOTH
def test_noise_is_not_learned(made):
    """Not worse than the constant prediction by more than its standard error."""
    rng = np.random.default_rng(0)
    X, X_test = rng.normal(size=(2, 300, 5))
    y, y_test = rng.normal(size=(2, 300))
    if made is TabularRegressor:
        found = TabularRegressor(random_state=0, n_members=5).fit(X, y).predict(X_test)
        losses = np.stack([(found - y_test) ** 2, (y.mean() - y_test) ** 2])
    else:
        t, t_test = (y > 0).astype(int), (y_test > 0).astype(int)
        p = TabularClassifier(random_state=0, n_members=5).fit(X, t).predict_proba(X_test)
        share = np.bincount(t) / len(t)
        losses = -np.log(np.stack([p[np.arange(300), t_test], share[t_test]]))
    worse = losses[0] - losses[1]
    assert worse.mean() < np.std(losses[1]) / np.sqrt(300)


# ------------------------------------------------------------------ scikit-learn's contract


@BOTH
def test_clone_pickle_pipeline_and_search(made):
    X, numbers, classes = table()
    y = numbers if made is TabularRegressor else classes
    estimator = fitted(made)
    copied = pickle.loads(pickle.dumps(estimator))
    assert np.array_equal(answers(copied, X), answers(estimator, X))
    assert clone(estimator).get_params() == estimator.get_params()
    pipeline = make_pipeline(FunctionTransformer(), made(**QUICK)).fit(X, y)
    assert np.array_equal(pipeline.predict(X), estimator.predict(X))
    search = GridSearchCV(made(**QUICK), {"dropout": [0.0, 0.3]}, cv=2).fit(X, y)
    assert search.best_params_["dropout"] in (0.0, 0.3)


@BOTH
def test_scikit_learns_checks(made):
    from sklearn.utils.estimator_checks import check_estimator

    expected = {
        "check_sample_weight_equivalence_on_dense_data": "rows are dealt to folds at random",
    }
    quick = made(n_members=1, hidden_layer_sizes=(16,), epochs=60, dropout=0.0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        check_estimator(quick, expected_failed_checks=expected)


@BOTH
def test_the_report_says_what_came_of_it(made, capsys):
    estimator = fitted(made, verbose=True)
    said = capsys.readouterr().out
    assert "member 2 of 2" in said
    assert "left" in said
    text = estimator.report()
    for word in ("2 members", "1 yes/no", "recipe", "held-out rows", "size"):
        assert word in text or word == "1 yes/no"
    assert str(estimator.recipe_.epochs) in text


@pytest.mark.parametrize("metric", ["accuracy", "roc_auc", "f1"])
def test_any_metric_of_classes(metric):
    X, _, classes = table()
    estimator = fitted(TabularClassifier, metric=metric)
    assert estimator.recipe_.label_smoothing == (0.1 if metric == "accuracy" else 0.0)
    assert set(estimator.predict(X)) <= set(classes)


def test_a_quantile_is_learned_by_the_metric_pinball():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(600, 2))
    y = X[:, 0] + rng.exponential(size=600)
    metric = {"name": "pinball", "q": 0.9}
    estimator = TabularRegressor(**{**QUICK, "epochs": 40, "metric": metric}).fit(X, y)
    assert 0.82 < np.mean(y <= estimator.predict(X)) < 0.97
    assert mlp.TabularRegressor is TabularRegressor


def test_every_backend_gives_the_same_numbers(backend):
    X, y, _ = table()
    few = {**QUICK, "epochs": 4}
    usual, other = (TabularRegressor(**few, backend=b).fit(X, y) for b in ("numpy", backend))
    near = {"rtol": 0, "atol": 1e-3 * np.ptp(y)}
    np.testing.assert_allclose(other.predict(X), usual.predict(X), **near)
    np.testing.assert_allclose(other.explain(X[:3]), usual.explain(X[:3]), **near)
    assert np.array_equal(pickle.loads(pickle.dumps(other)).predict(X), other.predict(X))


# ------------------------------------------------------------------ what people bring


@BOTH
def test_rows_of_weight_zero_are_as_good_as_not_there(made):
    """Whatever is in them: to the last bit."""
    X, numbers, classes = table()
    y = (numbers if made is TabularRegressor else classes).astype(object)
    s = np.where(np.arange(len(y)) % 3, 1.5, 0.0)
    X.loc[s == 0, "price"] = 1e9
    y[s == 0] = 1e9 if made is TabularRegressor else "low"
    there = np.flatnonzero(s)
    weighted = made(**QUICK).fit(X, y, sample_weight=s)
    other = made(**QUICK).fit(X.iloc[there], y[there], sample_weight=s[there])
    assert np.array_equal(answers(weighted, X), answers(other, X))
    assert np.array_equal(weighted.feature_importances_, other.feature_importances_)
    if made is TabularRegressor:
        assert np.array_equal(weighted.predict_interval(X), other.predict_interval(X))
        assert weighted.predict(X).max() < 20


def test_weights_that_leave_nothing_to_learn_are_refused():
    X, numbers, classes = table()
    with pytest.raises(InputError, match="only one class, 'low' of a weight above 0"):
        TabularClassifier(**QUICK).fit(X, classes, sample_weight=1.0 * (classes == "low"))
    with pytest.raises(InputError, match="1 rows of a weight above 0"):
        TabularRegressor(**QUICK).fit(X, numbers, sample_weight=np.eye(len(X))[0])


@BOTH
@pytest.mark.parametrize("n", [3, 5, 7])
def test_more_members_than_rows(made, n):
    X, numbers, _ = table()
    y = numbers[:n] if made is TabularRegressor else (["a", "b", "a", "b"] * 2)[:n]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        estimator = made(**{**QUICK, "n_members": 8, "epochs": 2}).fit(X[["size"]][:n], y)
    assert len(estimator.members_) <= n
    assert all(len(member.held_out) for member in estimator.members_)


@BOTH
@pytest.mark.parametrize("many", [2, 6])
def test_more_members_than_groups(made, many):
    X, numbers, classes = table()
    y = numbers if made is TabularRegressor else classes
    groups = np.arange(len(y)) % many
    estimator = made(**{**QUICK, "n_members": 8, "epochs": 2}).fit(X, y, groups=groups)
    assert [len(set(groups[m.held_out])) for m in estimator.members_] == [1] * many


@pytest.mark.parametrize("rows", [1, 2, 3])
@pytest.mark.parametrize("metric", ["log_loss", "roc_auc", "average_precision"])
def test_a_rare_class_is_learned_by_all_members_and_judged_where_it_can_be(rows, metric):
    X, *_ = table()
    y = np.where(np.arange(len(X)) < rows, "rare", "usual")
    made = TabularClassifier(**{**QUICK, "n_members": 8, "epochs": 2, "metric": metric})
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        made.fit(X, y)
    if metric == "roc_auc":
        assert any("roc_auc is not defined" in str(w.message) for w in said)
    for member in made.members_:
        assert len(set(np.delete(y, member.held_out))) == 2
    assert np.isfinite(made.feature_importances_).all()
    assert "nan" not in made.report()


@pytest.mark.parametrize("seed", range(20))
def test_no_class_is_in_one_fold_alone(seed):
    rng = np.random.default_rng(seed)
    y = rng.permutation(np.repeat(np.arange(6), [1, 1, 2, 2, 3, 40]))
    found = folds(y, 8, seed)
    assert sorted(set(found[found >= 0])) == list(range(8))
    for k in range(6):
        of_class = found[y == k]
        assert (of_class == -1).all() if len(of_class) == 1 else np.ptp(of_class) > 0


def test_classes_of_one_row_each_and_a_class_of_one_group_are_refused():
    X, _, classes = table()
    with pytest.raises(InputError, match="one row each"):
        TabularClassifier(**QUICK).fit(X[:2], ["a", "b"])
    groups = np.where(classes == "high", 0, 1 + np.arange(len(X)) % 7)
    with pytest.raises(InputError, match="groups: nearly all rows"):
        TabularClassifier(**QUICK).fit(X, classes, groups=groups)


@pytest.mark.parametrize("n", [9, 19, 99, 199])
def test_intervals_and_quantiles_are_of_the_ranks_they_say(n):
    """Against all sums, sorted, with ranks of whole numbers: floats are not the ranks' undoing."""
    rng = np.random.default_rng(n)
    estimator = TabularRegressor()
    y, r = [rng.normal(size=3), rng.normal(size=3)], np.split(rng.normal(size=n), [n // 3])
    estimator._residuals, estimator._residual_weights = r, None
    estimator._numbers = lambda X: y

    def add(R):
        return np.sort(np.concatenate([a[:, None] + b for a, b in zip(y, R, strict=True)], 1), 1)

    for percent in range(10, 100, 10):
        low, high = estimator.predict_interval(None, percent / 100).T
        rank = (100 - percent) * (n + 1) // 100
        assert np.array_equal(low, add([-np.abs(x) for x in r])[:, rank - 1])
        assert np.array_equal(high, add([np.abs(x) for x in r])[:, n - rank])
        q = estimator.predict_quantiles(None, [percent / 100])[:, 0]
        assert np.array_equal(q, add(r)[:, -(-percent * (n + 1) // 100) - 1])


def test_a_residual_of_weight_two_is_there_twice():
    rng = np.random.default_rng(0)
    y, r = [rng.normal(size=5), rng.normal(size=5)], [rng.normal(size=4), rng.normal(size=6)]
    ranks = [0.0, 0.3, 1.0, 4.5, 7.0, 10.0, 10.5]
    usual = order_statistics(y, r, ranks)
    assert np.array_equal(order_statistics(y, r, ranks, np.full(10, 7.0)), usual)
    s = np.array([1, 2, 1, 3, 1, 1, 2, 2, 1, 1])
    of = np.split(np.repeat(np.concatenate(r), s), [s[:4].sum()])
    twice = order_statistics(y, of, [k * s.mean() for k in ranks])
    assert np.array_equal(order_statistics(y, r, ranks, s), twice)


def test_the_filters_of_warnings_are_as_before():
    X, y, _ = table()
    before = list(warnings.filters)
    for _ in range(3):
        TabularRegressor(**{**QUICK, "epochs": 1, "n_members": 8}, n_jobs=8).fit(X, y)
        assert warnings.filters == before


def test_what_is_left_out_is_said_and_a_report_is_of_the_fit():
    X, y, _ = table()
    X["width"] = X["size"].astype(str)
    with pytest.warns(UserWarning, match=r"column 'width' is left out: text"):
        estimator = TabularRegressor(**QUICK).fit(X, y)
    usual = estimator.report()
    assert estimator.set_params(metric="mae").report() == usual
    fitted(TabularRegressor, X=X, columns={"width": "number"})  # no word


@pytest.mark.parametrize(
    ("made", "X", "y", "message"),
    [
        (TabularRegressor, {"a": [1.0, 2.0, 3.0]}, [1, 2, 3], "X is a dict; give a data frame"),
        (TabularRegressor, [[1], [2]], np.array(["2020", "2021"], "M8[D]"), "give numbers"),
        (TabularClassifier, [[1], [2], [3]], np.array(["a", None, "b"], object), "without a label"),
        (TabularClassifier, [[1], [2]], pd.Series(["a", None], dtype="string"), "without a label"),
    ],
)
def test_what_cannot_be_learned_is_refused_in_words(made, X, y, message):
    with pytest.raises(InputError, match=message):
        made(**QUICK).fit(X, y)


def test_accuracy_smooths_labels_however_it_is_written():
    X, *_ = table()
    of = [fitted(TabularClassifier, metric=m) for m in ("accuracy", {"name": "accuracy"})]
    assert np.array_equal(of[0].predict_proba(X), of[1].predict_proba(X))


def test_members_that_diverge_are_told_of():
    with pytest.warns(UserWarning, match="2 of 2 members diverged"):
        estimator = fitted(TabularRegressor, learning_rate=1e20)
    assert np.isfinite(estimator.predict(table()[0])).all()


@pytest.mark.parametrize(
    "names", [list("abcd"), range(4), pd.MultiIndex.from_product([[1, 2]] * 2)]
)
def test_importances_and_attributions_are_of_the_columns_as_they_came(names):
    """Also where no kind of column can hold one of them, as a span of time."""
    X, y, _ = table()
    X = X[["old", "colour", "price", "size"]].assign(colour=pd.to_timedelta(np.arange(len(X)), "h"))
    X.columns = names
    with pytest.warns(UserWarning, match="left out: it holds Duration"):
        estimator = TabularRegressor(**{**QUICK, "epochs": 30}).fit(X, y)
    assert estimator.feature_importances_.shape == (estimator.n_features_in_,) == (4,)
    assert estimator.feature_importances_.argmax() >= 2
    assert estimator.feature_importances_[1] == 0
    assert estimator.explain(X[:3]).shape == (3, 4)
