"""Tables: `TabularClassifier` and `TabularRegressor`, the answer without a setting.

A data frame goes in as it is. Kinds of columns, gaps and categories are found out
(`mlp.data.preprocessing`); members of a strong plain net, each judged by rows that it has not
learned from, predict together.

    recipe.py       the net and its training
    folds.py        which rows a member is judged by
    members.py      members side by side, in time
    calibration.py  temperature, intervals, quantiles
    columns.py      where weights begin; importances and attributions
    base.py         what both estimators share
    classifier.py   regressor.py

`mlp.MLPClassifier` and `mlp.MLPRegressor` are scikit-learn's, with its numbers; these are for those
who want the best answer.

>>> from sklearn.datasets import load_diabetes
>>> X, y = load_diabetes(return_X_y=True, as_frame=True)
>>> from mlp import TabularRegressor
>>> reg = TabularRegressor(n_members=2, epochs=40, random_state=0).fit(X, y)
>>> sorted(X.columns[reg.feature_importances_.argsort()[-2:]])
['bmi', 's5']
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlp.tabular.classifier import TabularClassifier
    from mlp.tabular.recipe import Recipe
    from mlp.tabular.regressor import TabularRegressor

__all__ = ["Recipe", "TabularClassifier", "TabularRegressor"]

_HOME = {"Recipe": "recipe", "TabularClassifier": "classifier", "TabularRegressor": "regressor"}


def __getattr__(name: str) -> Any:
    """The recipe without scikit-learn, which the estimators need: each when it is first used."""
    if name not in _HOME:
        raise AttributeError(f"module 'mlp.tabular' has no attribute {name!r}")
    try:
        value = getattr(import_module(f"mlp.tabular.{_HOME[name]}"), name)
    except ModuleNotFoundError as error:
        if str(error.name).partition(".")[0] not in ("sklearn", "scipy", "joblib"):
            raise
        raise ImportError(
            f"mlp.{name} needs scikit-learn ({error}): pip install 'array-mlp[sklearn]'"
        ) from error
    globals()[name] = value
    return value
