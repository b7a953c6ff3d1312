"""TabularRegressor."""

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.base import RegressorMixin, _fit_context
from sklearn.utils import check_consistent_length
from sklearn.utils.validation import _check_y

from mlp.data.scaling import Scaling, ScalingName
from mlp.errors import InputError, is_finite, shown
from mlp.estimators.arrays import to_host
from mlp.estimators.base import keep_arguments
from mlp.estimators.checks import sayable
from mlp.formulas.metrics import MeanAbsoluteError, Metric, Pinball
from mlp.layers import PiecewiseLinear
from mlp.model import Model
from mlp.tabular.base import BaseTabular
from mlp.tabular.calibration import order_statistics
from mlp.tabular.documentation import ANSWERS, PARAMETERS
from mlp.tabular.members import Member, Rows
from mlp.tabular.recipe import Recipe

SKEWED = 1.0  # skewness from which on the logarithm of a target is tried


class TabularRegressor(RegressorMixin, BaseTabular):
    __doc__ = f"""Numbers from a table, without a setting: members of a strong plain net.

    `mlp.tabular` says what is done; `fit` takes a data frame as it is.

    Parameters
    ----------
    metric : str or mapping, default='rmse'
        By what the best epoch is found: a metric of numbers of `mlp.formulas.metrics.METRICS`.
        With 'mae' the absolute error is learned, with 'pinball' the median, with
        {{"name": "pinball", "q": 0.9}} that quantile, with any other the squared error.
{PARAMETERS}
    Attributes
    ----------
    target_log_ : bool
        Whether the logarithm of y was learned: tried where y is 0 or above and skewed, taken where
        the first member was better by it.
{ANSWERS}
    Examples
    --------
    >>> import numpy as np
    >>> from mlp import TabularRegressor
    >>> rng = np.random.default_rng(0)
    >>> X = rng.normal(size=(300, 3))
    >>> y = X[:, 0] * X[:, 1] + 0.1 * rng.normal(size=300)
    >>> reg = TabularRegressor(n_members=2, epochs=50, random_state=0).fit(X, y)
    >>> reg.score(X, y) > 0.8, reg.predict_interval(X[:1]).shape
    (True, (1, 2))
    """

    _task = "numbers"
    _reported = ("rmse", "mae", "r2")

    def __init__(
        self,
        *,
        metric: Any = "rmse",
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
        columns: Any = None,
        backend: Any = None,
        n_jobs: int | None = None,
        random_state: Any = None,
        verbose: Any = False,
    ):
        keep_arguments(self, locals())

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(
        self, X: Any, y: Any, sample_weight: Any = None, *, groups: Any = None
    ) -> "TabularRegressor":
        """Fit to the columns of X, a data frame or an array (n, columns), and numbers y (n,).

        sample_weight: (n,); a row of weight 0 is as good as not there. groups: (n,) of rows that
        must not be parted, as those of one patient. Raises InputError for columns or numbers that
        cannot be used.
        """
        self._begun = time.monotonic()
        X = self._checked(X, fitting=True)
        with sayable("y"):
            y = _check_y(to_host(y), y_numeric=True, estimator=self)
        if y.dtype.kind not in "biuf":
            raise InputError(f"y is of {y.dtype}; give numbers, as days since some date")
        y = y.astype(np.float64)
        check_consistent_length(X, y)
        self._fit(X, y, self._weights(X, sample_weight), groups)
        return self

    def predict(self, X: Any) -> np.ndarray:
        """The number of each row, (n,): the members' mean, within the range of y in `fit`."""
        return np.clip(np.mean(self._numbers(X), axis=0), *self._range)

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """R² on X and y."""
        with sayable("y or sample_weight"):
            return float(super().score(X, y, sample_weight))

    def predict_interval(self, X: Any, coverage: float = 0.9) -> np.ndarray:
        """From where to where the number of each row lies so often, (n, 2).

        coverage: between 0 and 1. By the residuals of rows held out, `mlp.tabular.calibration` eq.
        (2): for rows like those of `fit`, whatever they are like. Where these are too few for it,
        an end is infinite.
        """
        _check_level("coverage", coverage)
        found, of_size = self._numbers(X), [np.abs(r) for r in self._residuals]
        low, high = (
            sign * self._ranked([sign * y for y in found], of_size, [coverage])
            for sign in (-1.0, 1.0)
        )
        return np.concatenate([low, high], axis=1)

    def predict_quantiles(self, X: Any, q: Sequence[float] = (0.1, 0.5, 0.9)) -> np.ndarray:
        """The number that each row stays below with these probabilities, (n, len(q)), by the
        residuals of rows held out (`mlp.tabular.calibration`)."""
        if not hasattr(q, "__len__") or np.shape(q) in ((), (0,)):
            raise InputError(f"q must be one level or more, as [0.5], not {shown(q)}")
        for level in q:
            _check_level("q", level)
        return self._ranked(self._numbers(X), self._residuals, q)

    # ------------------------------------------------------------------ what is asked of it

    def _ranked(
        self, y: list[np.ndarray], residuals: list[np.ndarray], levels: Sequence[float]
    ) -> np.ndarray:
        ranks = [level * (sum(map(len, residuals)) + 1) for level in levels]
        return order_statistics(y, residuals, ranks, self._residual_weights)

    def _numbers(self, X: Any) -> list[np.ndarray]:
        return [y[:, 0].astype(np.float64) for y in self._of_members(X)]

    def _choices(self, t: np.ndarray) -> tuple[str, ...]:
        spread = t.std()
        if t.min() < 0 or not spread or (((t - t.mean()) / spread) ** 3).mean() < SKEWED:
            return ("as it is",)
        return ("as it is", "its logarithm")

    def _model(
        self,
        choice: str,
        recipe: Recipe,
        seed: int,
        t: np.ndarray,
        curves: PiecewiseLinear | None,
    ) -> Model:
        scaling: ScalingName = "log1p" if choice == "its logarithm" else "standard"
        return Model(
            recipe.network(self._inputs, 1, "numbers", curves),
            _loss_of(self._metric()),
            seed=seed,
            backend=self.backend,
            dtype="float32",
            target_scaling=Scaling.fit(t[:, None], [scaling]),
        )

    def _calibrated(self, members: list[Member], rows: Rows) -> list[Member]:
        scaling = members[0].model.target_scaling
        assert scaling is not None  # `_model` gives one
        self.target_log_ = scaling.logs is not None
        self._range = float(rows.t.min()), float(rows.t.max())
        self._residuals = [rows.t[m.held_out] - m.outputs[:, 0] for m in members]
        chosen = np.concatenate([m.held_out for m in members])
        self._residual_weights = None if rows.s is None else rows.s[chosen]
        return members

    def _about(self) -> dict[str, str]:
        if not self.tried_:
            return {"target": "standardised"}
        tried = ", ".join(f"{name} {score:.4g}" for name, score in self.tried_.items())
        learned = "its logarithm" if self.target_log_ else "as it is"
        return {"target": f"standardised; {learned} is learned ({tried})"}


def _loss_of(metric: Metric) -> Any:
    """The loss that is least where the metric is."""
    if isinstance(metric, Pinball):
        return {"name": "quantile", "q": metric.q}
    return "mean_absolute_error" if isinstance(metric, MeanAbsoluteError) else "mean_squared_error"


def _check_level(name: str, level: Any) -> None:
    if not (is_finite(level) and 0 < level < 1):
        raise InputError(f"{name} must be between 0 and 1, not {shown(level)}")


TabularRegressor.__module__ = "mlp.tabular"
