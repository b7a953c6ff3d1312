"""MLPRegressor."""

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from sklearn.base import RegressorMixin, _fit_context
from sklearn.metrics import r2_score
from sklearn.utils._param_validation import HasMethods, StrOptions
from sklearn.utils.metaestimators import available_if

from mlp.estimators.arrays import like, to_host
from mlp.estimators.base import BaseMLP, keep_arguments
from mlp.estimators.checks import sayable
from mlp.estimators.documentation import ATTRIBUTES, OWN_PARAMETERS, PARAMETERS
from mlp.estimators.models import LOSS_NAMES
from mlp.formulas.losses import LOSSES
from mlp.parallel.group import ALONE, Group


class MLPRegressor(RegressorMixin, BaseMLP):
    __doc__ = f"""Multi-layer perceptron regressor: scikit-learn's, on any backend.

    The parameters up to `max_fun` are those of `sklearn.neural_network.MLPRegressor`, in the same
    order, with the same defaults and meanings; the others are keyword-only additions. For the same
    `random_state` the results are the same; `mlp.estimators` says what differs.

    Parameters
    ----------
    loss : str, mapping or object, default='squared_error'
        'squared_error' (half of it, the mean over outputs), 'poisson', or any other name of
        `mlp.formulas.losses.LOSSES`, or an object with methods cost and derivative.

{PARAMETERS}
{OWN_PARAMETERS.format(class_weight="", score="R²")}
    Attributes
    ----------
{ATTRIBUTES}
    Examples
    --------
    >>> from sklearn.datasets import make_regression
    >>> X, y = make_regression(200, 5, random_state=1)
    >>> reg = MLPRegressor(max_iter=2000, tol=0.1, random_state=1).fit(X, y)
    >>> reg.score(X, y) > 0.9
    True
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **BaseMLP._parameter_constraints,
        "loss": [
            StrOptions({"squared_error", "poisson", *LOSSES}),
            dict,
            HasMethods(["cost", "derivative"]),
        ],
    }

    def __init__(
        self,
        loss: Any = "squared_error",
        hidden_layer_sizes: Any = (100,),
        activation: Any = "relu",
        *,
        solver: Any = "adam",
        alpha: float = 0.0001,
        batch_size: Any = "auto",
        learning_rate: Any = "constant",
        learning_rate_init: float = 0.001,
        power_t: float = 0.5,
        max_iter: int = 200,
        shuffle: bool = True,
        random_state: Any = None,
        tol: float = 1e-4,
        verbose: Any = False,
        warm_start: bool = False,
        momentum: float = 0.9,
        nesterovs_momentum: bool = True,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        n_iter_no_change: Any = 10,
        max_fun: int = 15000,
        backend: Any = None,
        dtype: Any = None,
        dropout: Any = 0.0,
        callbacks: Any = None,
        scoring: Any = None,
        checkpoint: Any = None,
        weight_decay: float | None = None,
        rate_factors: Any = None,
        clip_norm: float | None = None,
        clip_value: float | None = None,
        average: Any = None,
        time: Any = None,
    ):
        keep_arguments(self, locals())

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(
        self,
        X: Any,
        y: Any,
        sample_weight: Any = None,
        *,
        X_val: Any = None,
        y_val: Any = None,
        group: Group = ALONE,
    ) -> "MLPRegressor":
        """Fit to X (n, features) and y (n,) or (n, outputs).

        sample_weight: (n,). X_val, y_val: an own validation set, in place of a share of X, whose
        rows all weigh alike; without early stopping it is only watched. group: the processes that
        fit together, all of them by this call with the same arguments, as `mlp.parallel.world()`:
        each computes its part of every batch, and all end with the weights that one process comes
        to, to rounding. Rank 0 alone prints, warns and calls callbacks; random_state is its.
        """
        return self._fit_task(X, y, sample_weight, X_val, y_val, group)

    @available_if(lambda estimator: estimator._check_solver())
    @_fit_context(prefer_skip_nested_validation=True)
    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None) -> "MLPRegressor":
        """One epoch on X and y, going on from the weights and the solver's state as they are."""
        with self._all_or_nothing():
            return self._fit(X, y, sample_weight, incremental=True)

    def predict(self, X: Any) -> Any:
        """The predicted values, (n,), or (n, outputs) for several, where X lives."""
        answers = self._answers(self._outputs(X, "predict"))
        return like(X, answers) if isinstance(answers, np.ndarray) else answers

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """R² on X and y, found on the host."""
        answers = to_host(self._answers(self._outputs(X, "score")))
        with sayable("y or sample_weight"):
            return float(r2_score(to_host(y), answers, sample_weight=to_host(sample_weight)))

    # ------------------------------------------------------------------ what is asked of it

    def _targets(self, y: np.ndarray, incremental: bool, watched: bool = False) -> np.ndarray:
        return y.reshape(-1, 1) if y.ndim == 1 else y

    def _answers(self, outputs: Any) -> Any:
        """Values from the network's outputs."""
        return outputs[:, 0] if self.n_outputs_ == 1 else outputs

    def _out_activation(self) -> str:
        name = self.loss.get("name") if isinstance(self.loss, Mapping) else self.loss
        loss = LOSSES.get(LOSS_NAMES.get(name, name), name) if isinstance(name, str) else name
        return getattr(loss, "unit", None) or "identity"

    def _loss(self) -> Any:
        return LOSS_NAMES.get(self.loss, self.loss) if isinstance(self.loss, str) else self.loss


MLPRegressor.__module__ = "mlp.estimators"  # where pickles and skops find it
