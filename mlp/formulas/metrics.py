"""How good predictions are: accuracy, mean squared error and R², on the host in float64.

y are predictions (n, c) in the user's units; t their targets, (n,) class numbers or (n, c); s are
sample weights (n,), not all of them 0, or None. A mean over rows is weighted by s.

    accuracy   share of rows whose class, or whose labels all, are right
    balanced_accuracy   mean over the classes that occur of the share of their rows that are right
    mse        1/(cN) ΣΣ (y - t)²
    r2         1 - Σ (y - t)² / Σ (t - mean t)², the mean over outputs

Your own is any object with the attributes and the call of a `Metric`; one that is measured in every
run is a row of `METRICS` and of `MetricName`.

>>> class MeanAbsoluteError:
...     name, label, targets = "mae", "mean absolute error", ("numbers", "counts")
...     greater_is_better = False
...     def __call__(self, y, t, s=None):
...         return float(np.average(abs(y - t), axis=0, weights=s).mean())
>>> evaluate("numbers", np.array([[1.0], [5.0]]), np.array([2, 2]), metrics=[MeanAbsoluteError()])
{'mae': 2.0}
>>> evaluate("classes", np.array([[0.9, 0.1], [0.2, 0.8]]), np.array([0, 0]))
{'accuracy': 0.5, 'balanced_accuracy': 0.5}
"""

from collections.abc import Iterable
from typing import Literal, Protocol

import numpy as np


class Metric(Protocol):
    """What is asked of a metric."""

    @property
    def name(self) -> str:
        """Its key in what `evaluate` returns."""

    @property
    def label(self) -> str:
        """What a reader sees."""

    @property
    def targets(self) -> tuple[str, ...]:
        """The kinds of targets that it is for (`mlp.formulas.target_kinds`)."""

    @property
    def greater_is_better(self) -> bool:
        """A score is better if it is greater, an error if it is smaller."""

    def __call__(self, y: np.ndarray, t: np.ndarray, s: np.ndarray | None = None) -> float:
        """The metric; t is (n,) for classes, for all others (n, c) in float64."""


class Accuracy:
    """The share of rows whose largest output is their class; of labels, an output above 1/2 being
    a 1, the share of rows that are right in all."""

    name, label, targets = "accuracy", "accuracy", ("classes", "labels")
    greater_is_better = True

    def __call__(self, y: np.ndarray, t: np.ndarray, s: np.ndarray | None = None) -> float:
        right = y.argmax(axis=1) == t if t.ndim == 1 else ((y > 0.5) == (t > 0.5)).all(axis=1)
        return float(np.average(right, weights=s))


class BalancedAccuracy:
    """The mean, over the classes that occur, of the share of their rows that are right: 1 over
    their number for a net that always answers the same; of labels the mean over outputs. Source:
    K. H. Brodersen et al., "The balanced accuracy and its posterior distribution", ICPR 2010."""

    name, label, targets = "balanced_accuracy", "balanced accuracy", ("classes", "labels")
    greater_is_better = True

    def __call__(self, y: np.ndarray, t: np.ndarray, s: np.ndarray | None = None) -> float:
        if t.ndim == 1:
            return _mean_recall(y.argmax(axis=1) == t, t, s)
        pairs = zip((y > 0.5).T, (t > 0.5).T, strict=True)
        return float(np.mean([_mean_recall(a == b, b.astype(np.int64), s) for a, b in pairs]))


def _mean_recall(right: np.ndarray, t: np.ndarray, s: np.ndarray | None) -> float:
    """The mean over the classes of their share of right rows, weighted by s."""
    s = np.ones(len(t)) if s is None else s
    whole = np.bincount(t, s)
    there = whole > 0.0
    return float((np.bincount(t, s * right)[there] / whole[there]).mean())


class MeanSquaredError:
    """The mean squared error over rows and outputs."""

    name, label, targets = "mse", "mean squared error", ("numbers", "counts")
    greater_is_better = False

    def __call__(self, y: np.ndarray, t: np.ndarray, s: np.ndarray | None = None) -> float:
        return float(np.average((y - t) ** 2, axis=0, weights=s).mean())


class R2:
    """The share of the targets' variance that is explained, the mean over outputs; of a constant
    target 1 if all of it is right, else 0, as in scikit-learn."""

    name, label, targets = "r2", "R²", ("numbers", "counts")
    greater_is_better = True

    def __call__(self, y: np.ndarray, t: np.ndarray, s: np.ndarray | None = None) -> float:
        left = np.average((y - t) ** 2, axis=0, weights=s)
        t = t - t[0]  # a constant is 0 then, and so is its mean, to the last digit
        whole = np.average((t - np.average(t, axis=0, weights=s)) ** 2, axis=0, weights=s)
        share = 1.0 - left / np.where(whole > 0.0, whole, 1.0)
        return float(np.mean(np.where(whole > 0.0, share, left == 0.0)))


METRICS: dict[str, Metric] = {
    metric.name: metric for metric in (Accuracy(), BalancedAccuracy(), MeanSquaredError(), R2())
}
MetricName = Literal["accuracy", "balanced_accuracy", "mse", "r2"]


def evaluate(
    targets: str,
    y: np.ndarray,
    t: np.ndarray,
    s: np.ndarray | None = None,
    metrics: Iterable[Metric] | None = None,
) -> dict[str, float]:
    """The metrics for a kind of targets, by name; of `METRICS` if no others are given.

    t : (n, c), one axis where c is 1, or (n,) class numbers.
    """
    if targets == "classes":
        t = t if t.ndim == 1 else t.argmax(axis=1)
    else:
        t = (t[:, None] if t.ndim == 1 else t).astype(np.float64)
    chosen = METRICS.values() if metrics is None else metrics
    return {metric.name: metric(y, t, s) for metric in chosen if targets in metric.targets}
