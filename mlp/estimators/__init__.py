"""scikit-learn's MLPClassifier and MLPRegressor, with its parameters, attributes and numbers, on
any backend.

For the same ``random_state`` the draws come in scikit-learn's order (initial weights layer by
layer, the split for early stopping, one shuffle an epoch), and its conventions hold: with samples
of weight s_p (1 if none is given) in a batch,

    E = (Σ s_p c_p + alpha/2 ΣW²) / Σ s_p                                                 (1)

penalties never on biases; the squared error is halved, averaged over outputs where the loss is
reported and summed over them in the gradient; Adam's epsilon is not corrected for bias; patience
ends when the loss has failed to fall by tol more than ``n_iter_no_change`` times in a row.

What differs: at huge logits scikit-learn clips the log-loss it reports, here it is exact; so with
lbfgs a trial point of the line search where a probability is 0 or 1 has another loss, and the next
step may differ (10 of 616 fits of a grid pass such a point, 1 ends elsewhere). scikit-learn's
L-BFGS turns float32 into float64, here weights keep their dtype; predictions have the dtype of the
weights, whatever X has; a fit that fails leaves the estimator as it was.

    base.py         what both estimators share: input, weights, answers, pickling
    classifier.py   regressor.py
    stochastic.py   the epochs
    kept.py         a fit that goes on when it is called again
    lbfgs.py        full-batch descent
    arrays.py       arrays in and out
    checks.py       scikit-learn's checks, of whatever is given
    exchange.py     scikit-learn's own estimators
    models.py       this library's models and their files
    conversion.py   from_sklearn, to_estimator
    preprocessor.py tables, as a step of a pipeline

>>> from sklearn.datasets import load_iris
>>> X, y = load_iris(return_X_y=True)
>>> clf = MLPClassifier(max_iter=500, random_state=0).fit(X, y)      # backend="cupy" for the GPU
>>> clf.score(X, y) > 0.95
True
"""

try:
    import sklearn.callback  # noqa: F401, new in scikit-learn 1.9
except ImportError as error:
    raise ImportError(
        f"mlp.MLPClassifier and mlp.MLPRegressor need scikit-learn 1.9 or newer ({error}): "
        "pip install 'array-mlp[sklearn]'"
    ) from error

from mlp.estimators.classifier import MLPClassifier
from mlp.estimators.conversion import from_sklearn, to_estimator
from mlp.estimators.preprocessor import TablePreprocessor
from mlp.estimators.regressor import MLPRegressor

__all__ = ["MLPClassifier", "MLPRegressor", "TablePreprocessor", "from_sklearn", "to_estimator"]
