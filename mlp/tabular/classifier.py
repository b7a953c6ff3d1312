"""TabularClassifier."""

import time
import warnings
from dataclasses import replace
from numbers import Real
from typing import Any, ClassVar

import numpy as np
from sklearn.base import ClassifierMixin, _fit_context
from sklearn.utils import (
    assert_all_finite,
    check_consistent_length,
    column_or_1d,
    compute_sample_weight,
)
from sklearn.utils._missing import is_pandas_na
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.multiclass import check_classification_targets

from mlp.errors import InputError
from mlp.estimators.arrays import to_host
from mlp.estimators.base import keep_arguments
from mlp.estimators.checks import sayable
from mlp.formulas.metrics import Metric, get_metric
from mlp.layers import PiecewiseLinear
from mlp.model import Model
from mlp.tabular.base import BaseTabular
from mlp.tabular.calibration import cooled, temperature
from mlp.tabular.documentation import ANSWERS, PARAMETERS
from mlp.tabular.members import Member, Rows
from mlp.tabular.recipe import Recipe

SMOOTHED = 0.1  # the label smoothing where wrong classes are counted


class TabularClassifier(ClassifierMixin, BaseTabular):
    __doc__ = f"""Classes from a table, without a setting: members of a strong plain net.

    `mlp.tabular` says what is done; `fit` takes a data frame as it is.

    Parameters
    ----------
    metric : str or mapping, default='log_loss'
        By what the best epoch is found: a metric of classes of `mlp.formulas.metrics.METRICS`, as
        'accuracy' or 'roc_auc'. Where it is not defined on the rows of some member, as 'roc_auc'
        without a class, `fit` says so and takes 'log_loss'.
{PARAMETERS}
    label_smoothing : float or None, default=None
        The share of a label that all classes have; None is 0.1 for the metric 'accuracy', else 0.

    class_weight : dict, 'balanced' or None, default=None
        Weights of the classes, multiplied with the sample weights.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        The labels.

    temperature_ : float
        By which the members' logits are divided.
{ANSWERS}
    Examples
    --------
    >>> import pandas as pd
    >>> from mlp import TabularClassifier
    >>> X = pd.DataFrame({{"size": [1, 2, 3, 4] * 20, "colour": ["red", "red", "blue", None] * 20}})
    >>> y = ["small", "small", "large", "large"] * 20
    >>> clf = TabularClassifier(n_members=2, epochs=20, random_state=0).fit(X, y)
    >>> clf.score(X, y), clf.predict_proba(X).shape
    (1.0, (80, 2))
    """

    _task = "classes"
    _reported = ("log_loss", "accuracy")
    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **BaseTabular._parameter_constraints,
        "label_smoothing": [None, Interval(Real, 0, 1, closed="left")],
        "class_weight": [None, dict, StrOptions({"balanced"})],
    }
    classes_: np.ndarray

    def __init__(
        self,
        *,
        metric: Any = "log_loss",
        n_members: int = 8,
        time_limit: Any = None,
        hidden_layer_sizes: Any = (128, 128, 128),
        activation: Any = None,
        learning_rate: float | None = None,
        batch_size: int | None = None,
        epochs: int | None = None,
        dropout: float = 0.15,
        weight_decay: float = 0.02,
        embedding: int = 12,
        bins: int | None = None,
        label_smoothing: float | None = None,
        columns: Any = None,
        class_weight: Any = None,
        backend: Any = None,
        n_jobs: int | None = None,
        random_state: Any = None,
        verbose: Any = False,
    ):
        keep_arguments(self, locals())

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(
        self, X: Any, y: Any, sample_weight: Any = None, *, groups: Any = None
    ) -> "TabularClassifier":
        """Fit to the columns of X, a data frame or an array (n, columns), and labels y (n,).

        sample_weight: (n,); a row of weight 0 is as good as not there. groups: (n,) of rows that
        must not be parted, as those of one patient. Raises InputError for columns or labels that
        cannot be used.
        """
        self._begun = time.monotonic()
        X, y = self._checked(X, fitting=True), column_or_1d(to_host(y), warn=True)
        if y.dtype.kind == "O" and any(x is None or is_pandas_na(x) for x in y):
            raise InputError("y has rows without a label; leave them out")
        check_classification_targets(y)
        assert_all_finite(y, input_name="y")
        check_consistent_length(X, y)
        self.classes_, t = np.unique(y, return_inverse=True)
        weights = self._weights(X, sample_weight)
        if self.class_weight is not None:
            of_classes = compute_sample_weight(self.class_weight, y)
            weights = of_classes if weights is None else weights * of_classes
        there = np.unique(t if weights is None else t[weights > 0])
        if len(there) < 2:
            only = "".join(f", {label!r}" for label in self.classes_[there].tolist())
            weighted = " of a weight above 0" if len(self.classes_) > 1 else ""
            raise InputError(
                f"y holds only one class{only}{weighted}; a classifier needs at least two"
            )
        self._fit(X, t.astype(np.int64), weights, groups)
        return self

    def predict(self, X: Any) -> np.ndarray:
        """The most probable label of each row, (n,)."""
        shares = self.predict_proba(X)
        return self.classes_[shares.argmax(axis=1)]

    def predict_proba(self, X: Any) -> np.ndarray:
        """The probability of each class, (n, classes) in the order of `classes_`: the members'
        mean."""
        return np.mean(self._of_members(X), axis=0)

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """The share of the labels that are right on X and y."""
        with sayable("y or sample_weight"):
            return float(super().score(X, y, sample_weight))

    def predict_log_proba(self, X: Any) -> np.ndarray:
        """The logarithm of `predict_proba`."""
        with np.errstate(divide="ignore"):
            return np.log(self.predict_proba(X))

    # ------------------------------------------------------------------ what is asked of it

    def _recipe(self) -> Recipe:
        smoothing = self.label_smoothing
        if smoothing is None:
            smoothing = SMOOTHED if self._metric().name == "accuracy" else 0.0
        return replace(super()._recipe(), label_smoothing=float(smoothing))

    def _model(
        self,
        choice: str,
        recipe: Recipe,
        seed: int,
        t: np.ndarray,
        curves: PiecewiseLinear | None,
    ) -> Model:
        many, smoothing = len(self.classes_), recipe.label_smoothing
        loss: Any = {"name": "cross_entropy", "label_smoothing": smoothing}
        return Model(
            recipe.network(self._inputs, many, "classes", curves),
            loss if smoothing else "cross_entropy",
            seed=seed,
            backend=self.backend,
            dtype="float32",
            classes=np.arange(many),
        )

    def _watched(self, rows: Rows, members: int, metric: Metric) -> tuple[Any, Metric]:
        """Log-loss where the metric is not defined on the rows of some member: all of them are to
        be judged by one."""
        for fold in range(members):
            t, s = rows.judged(np.flatnonzero(rows.fold == fold))
            alike = np.full((len(t), len(self.classes_)), 1 / len(self.classes_))
            if np.isnan(metric(alike, t, s)):
                warnings.warn(
                    f"fit: {metric.name} is not defined on the {len(t)} rows that a member is "
                    "judged by, where a class is missing; all are judged by log_loss",
                    stacklevel=5,
                )
                return "log_loss", get_metric("log_loss")
        return self.metric, metric

    def _calibrated(self, members: list[Member], rows: Rows) -> list[Member]:
        chosen = np.concatenate([member.held_out for member in members])
        t, s = rows.judged(chosen)
        self.temperature_ = temperature(np.concatenate([m.outputs for m in members]), t, s)
        found = [cooled(member, self.temperature_) for member in members]
        shares = np.concatenate([member.outputs for member in found])
        metrics = [get_metric(name) for name in ("log_loss", "calibration_error")]
        self._after = {m.name: float(m(shares, t, s)) for m in metrics}
        return found

    def _about(self) -> dict[str, str]:
        after = ", ".join(f"{name} {value:.4g}" for name, value in self._after.items())
        return {"temperature": f"{self.temperature_:.3g}, and with it {after} on held-out rows"}


TabularClassifier.__module__ = "mlp.tabular"
