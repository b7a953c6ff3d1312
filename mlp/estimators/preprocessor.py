"""`mlp.Preprocessing` as a step of a scikit-learn pipeline."""

from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from mlp.data.preprocessing import Preprocessing
from mlp.data.tables import Table


class TablePreprocessor(TransformerMixin, BaseEstimator):
    """Code and scale the columns of a data frame: kinds, gaps and categories as
    `mlp.Preprocessing` takes them.

    columns : by name or pattern, a kind or a `ColumnPlan`.  scaling : of the numbers.  gaps :
    "fill", or "error" to refuse them; all as of `Preprocessing.fit`, which `preprocessing_` is.

    >>> import pandas as pd
    >>> from sklearn.pipeline import make_pipeline
    >>> from mlp.estimators import MLPClassifier, TablePreprocessor
    >>> X = pd.DataFrame({"age": [20, None, 40, 50] * 5, "sex": ["m", "f", "m", "f"] * 5})
    >>> net = MLPClassifier(hidden_layer_sizes=4, solver="lbfgs", random_state=0)
    >>> pipeline = make_pipeline(TablePreprocessor(), net).fit(X, X["sex"])
    >>> pipeline[0].get_feature_names_out().tolist(), pipeline.score(X, X["sex"])
    (['age', 'age is missing', 'sex'], 1.0)
    """

    def __init__(self, columns: Any = None, scaling: Any = "standard", gaps: Any = "fill"):
        self.columns = columns
        self.scaling = scaling
        self.gaps = gaps

    def fit(self, X: Any, y: Any = None) -> "TablePreprocessor":
        """Fit it on the rows to train on: a data frame, a `Table` or an array (n, d)."""
        self.preprocessing_ = Preprocessing.fit(
            X, self.columns, scaling=self.scaling, gaps=self.gaps
        )
        self.n_features_in_ = len(self.preprocessing_.codes)
        self.feature_names_in_ = np.array([c.name for c in self.preprocessing_.codes], object)
        return self

    def transform(self, X: Any) -> np.ndarray:
        """The columns as numbers, scaled: (n, outputs) float64."""
        check_is_fitted(self, "preprocessing_")
        return self.preprocessing_.apply(X)

    def inverse_transform(self, X: np.ndarray) -> Table:
        """The table that these numbers are of, as near as they tell."""
        check_is_fitted(self, "preprocessing_")
        return self.preprocessing_.undo(X)

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        """The names of the columns that `transform` makes."""
        check_is_fitted(self, "preprocessing_")
        return np.array(self.preprocessing_.names, object)
