"""`TablePreprocessor`: the preprocessing of tables as a step of scikit-learn's pipelines."""

import pickle

import numpy as np
import pandas as pd
import polars as pl
import pytest
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline

import mlp
from mlp.errors import InputError
from mlp.estimators import MLPClassifier, TablePreprocessor


def frame(n=120):
    r = np.random.default_rng(0)
    age = r.normal(40, 10, n)
    sex = r.choice(["m", "f"], n)
    X = pd.DataFrame({"age": np.where(r.random(n) < 0.1, np.nan, age), "sex": sex, "ok": age > 40})
    return X, np.where((sex == "m") & (age > 35), "yes", "no")


def pipeline(**settings):
    net = MLPClassifier(
        hidden_layer_sizes=8, solver="lbfgs", alpha=1.0, max_iter=5_000, random_state=0
    )
    return make_pipeline(TablePreprocessor(**settings), net)


def test_it_is_the_preprocessing_of_the_rows_it_is_fitted_on():
    X, _ = frame()
    plans = {"age": mlp.ColumnPlan(scaling="robust")}
    fitted = TablePreprocessor({"age": mlp.ColumnPlan(scaling="robust")}, scaling="none").fit(
        X[:60]
    )
    expected = mlp.Preprocessing.fit(X[:60], plans, scaling="none")
    np.testing.assert_array_equal(fitted.transform(X), expected.apply(X))
    assert fitted.get_feature_names_out().tolist() == list(expected.names)
    assert fitted.inverse_transform(fitted.transform(X))["sex"].values.tolist() == X["sex"].tolist()
    np.testing.assert_array_equal(
        clone(fitted).fit(X[:60]).transform(pl.from_pandas(X)), fitted.transform(X[X.columns[::-1]])
    )


def test_in_a_pipeline_a_search_and_a_pickle():
    X, y = frame()
    scalings = {"tablepreprocessor__scaling": ["standard", "robust"]}
    search = GridSearchCV(pipeline(), scalings, cv=3, error_score="raise")
    search.fit(X, y)
    assert search.best_score_ > 0.8
    assert (
        cross_val_score(pipeline(scaling="quantile"), X, y, cv=3, error_score="raise").min() > 0.7
    )
    again = pickle.loads(pickle.dumps(search.best_estimator_))
    assert (again.predict(X) == search.predict(X)).all()


def test_mistakes_are_those_of_the_preprocessing():
    X, _ = frame()
    with pytest.raises(InputError, match="scaling: unknown 'log'"):
        TablePreprocessor(scaling="log").fit(X)
    with pytest.raises(InputError, match="no column 'sex', which the model was trained with"):
        TablePreprocessor().fit(X).transform(X[["age", "ok"]])
    with pytest.raises(InputError, match=r"rows have a gap, in column 'age'"):
        TablePreprocessor(gaps="error").fit(X)
