"""MLPClassifier."""

from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
from array_api_compat import array_namespace
from sklearn.base import ClassifierMixin, _fit_context
from sklearn.metrics import accuracy_score
from sklearn.preprocessing import LabelBinarizer
from sklearn.utils._param_validation import HasMethods, StrOptions
from sklearn.utils.metaestimators import available_if
from sklearn.utils.multiclass import _check_partial_fit_first_call, type_of_target, unique_labels

from backends import choose
from mlp.errors import InputError, shown
from mlp.estimators.arrays import home, like, to_host
from mlp.estimators.base import BaseMLP, keep_arguments
from mlp.estimators.checks import sayable
from mlp.estimators.documentation import ATTRIBUTES, OWN_PARAMETERS, PARAMETERS
from mlp.formulas.losses import LOSSES
from mlp.parallel.group import ALONE, Group


class MLPClassifier(ClassifierMixin, BaseMLP):
    __doc__ = f"""Multi-layer perceptron classifier: scikit-learn's, on any backend.

    The parameters up to `max_fun` are those of `sklearn.neural_network.MLPClassifier`, in the same
    order, with the same defaults and meanings; the others are keyword-only additions. For the same
    `random_state` the results are the same; `mlp.estimators` says what differs.

    Parameters
    ----------
{PARAMETERS}
    loss : str, mapping or object, default='log_loss'
        'log_loss', or any name of `mlp.formulas.losses.LOSSES`, or an object with methods cost and
        derivative.

{
        OWN_PARAMETERS.format(
            class_weight='''
    class_weight : dict, 'balanced' or None, default=None
        Weights of the classes, multiplied with the sample weights.
''',
            score="the accuracy",
        )
    }
    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        The labels.

{ATTRIBUTES}
    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> X, y = load_digits(return_X_y=True)
    >>> def good_enough(clf):
    ...     return clf.loss_ < 0.1
    >>> clf = MLPClassifier(hidden_layer_sizes=50, random_state=0, callbacks=[good_enough])
    >>> clf = clf.fit(X, y)
    >>> clf.score(X, y) > 0.95
    True
    """

    classes_: np.ndarray

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **BaseMLP._parameter_constraints,
        "loss": [StrOptions({"log_loss", *LOSSES}), dict, HasMethods(["cost", "derivative"])],
        "class_weight": [None, dict, StrOptions({"balanced"})],
    }

    def __init__(
        self,
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
        loss: Any = "log_loss",
        backend: Any = None,
        dtype: Any = None,
        dropout: Any = 0.0,
        class_weight: Any = None,
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
    ) -> "MLPClassifier":
        """Fit to X (n, features) and y: labels (n,), or 0 and 1 for each of several labels.

        sample_weight: (n,). X_val, y_val: an own validation set, in place of a share of X, with
        labels that are in y; it has no sample weights, but the class weights, "balanced" by its own
        labels. Without early stopping it is only watched. group: as in the regressor's `fit`.
        """
        return self._fit_task(X, y, sample_weight, X_val, y_val, group)

    @available_if(lambda estimator: estimator._check_solver())
    @_fit_context(prefer_skip_nested_validation=True)
    def partial_fit(
        self, X: Any, y: Any, sample_weight: Any = None, classes: Any = None
    ) -> "MLPClassifier":
        """One epoch on X and y, going on from the weights and the solver's state as they are.

        classes: all labels that will ever come, needed in the first call.
        """
        if self.class_weight == "balanced":
            raise InputError(
                "class_weight='balanced' cannot be known from a part of the data: give "
                "partial_fit the class weights of all of them, "
                "dict(zip(classes, compute_class_weight('balanced', classes=classes, y=y)))"
            )
        with self._all_or_nothing():
            with sayable("classes"):
                first = _check_partial_fit_first_call(self, classes)
            if first:
                multilabel = type_of_target(to_host(y)).startswith("multilabel")
                self._label_binarizer = LabelBinarizer().fit(y if multilabel else classes)
            return self._fit(X, y, sample_weight, incremental=True)

    def predict(self, X: Any) -> Any:
        """The label of each row, (n,); with several labels a row (n, labels) of 0 and 1.

        Where X lives, if labels are numbers.
        """
        return like(X, self._answers(to_host(self._outputs(X, "predict"))))

    def predict_proba(self, X: Any) -> Any:
        """The probability of each class, (n, classes) in the order of `classes_`, where X lives."""
        return self._shares(X, "predict_proba")

    def predict_log_proba(self, X: Any) -> Any:
        """The logarithm of `predict_proba`."""
        return _apply(lambda xp, p: xp.log(p), self._shares(X, "predict_log_proba"))

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """The accuracy on X and y, found on the host."""
        answers = self._answers(to_host(self._outputs(X, "score")))
        with sayable("y or sample_weight"):
            return float(accuracy_score(to_host(y), answers, sample_weight=to_host(sample_weight)))

    # ------------------------------------------------------------------ what is asked of it

    def _targets(self, y: np.ndarray, incremental: bool, watched: bool = False) -> np.ndarray:
        if watched:
            unknown = np.setdiff1d(unique_labels(y), self.classes_)
            if len(unknown):
                raise InputError(
                    f"y_val has the label {shown(unknown.tolist()[0])}, which is not one of the "
                    f"classes {', '.join(map(repr, self.classes_[:10].tolist()))}"
                    f"{', ...' * (len(self.classes_) > 10)} of the model"
                )
        elif not hasattr(self, "classes_") or (not self.warm_start and not incremental):
            self._label_binarizer = LabelBinarizer().fit(y)
            self.classes_ = self._label_binarizer.classes_
        else:
            self._check_classes(unique_labels(y))
        targets = self._label_binarizer.transform(y)
        if targets.shape[1] == 1 and self._label_binarizer.y_type_ == "multiclass":
            targets = np.hstack([1 - targets, targets])  # two outputs for two classes: of a model
        return targets.astype(np.uint8)

    def _shares(self, X: Any, method: str) -> Any:
        """(n, classes), where X lives."""
        shares = self._outputs(X, method)
        if self.n_outputs_ == 1:
            shares = _apply(lambda xp, p: xp.concat([1 - p, p], axis=1), shares)
        return like(X, shares) if isinstance(shares, np.ndarray) else shares

    def _check_classes(self, classes: np.ndarray) -> None:
        """Labels of a later fit against those of the first one."""
        if self.warm_start and set(classes) != set(self.classes_):
            raise ValueError(
                "warm_start can only be used where `y` has the same classes as in the previous "
                f"call to fit. Previously got {self.classes_}, `y` has {classes}"
            )
        if len(np.setdiff1d(classes, self.classes_, assume_unique=True)):
            raise ValueError(
                "`y` has classes not in `self.classes_`. "
                f"`self.classes_` has {self.classes_}. 'y' has {classes}."
            )

    def _answers(self, outputs: np.ndarray) -> np.ndarray:
        """Labels from the network's outputs."""
        outputs = outputs.ravel() if self.n_outputs_ == 1 else outputs
        return self._label_binarizer.inverse_transform(outputs)

    def _out_activation(self) -> str:
        return "softmax" if self._label_binarizer.y_type_ == "multiclass" else "logistic"

    def _loss(self) -> Any:
        if self.loss != "log_loss":
            return self.loss
        return "cross_entropy" if self.out_activation_ == "softmax" else "binary_cross_entropy"

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags


def _apply(formula: Callable[[Any, Any], Any], shares: Any) -> Any:
    """The formula with the namespace of the shares, where they are."""
    name = home(shares)
    if name is None:
        return formula(array_namespace(shares), shares)
    backend = choose(name)
    with backend.scope():
        return formula(backend.xp, shares)


MLPClassifier.__module__ = "mlp.estimators"  # where pickles and skops find it
