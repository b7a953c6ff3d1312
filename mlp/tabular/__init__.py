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
>>> reg = TabularRegressor(n_members=2, epochs=40, random_state=0).fit(X, y)
>>> sorted(X.columns[reg.feature_importances_.argsort()[-2:]])
['bmi', 's5']
"""

from mlp.tabular.classifier import TabularClassifier
from mlp.tabular.recipe import Recipe
from mlp.tabular.regressor import TabularRegressor

__all__ = ["Recipe", "TabularClassifier", "TabularRegressor"]
