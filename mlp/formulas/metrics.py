"""How good predictions are: accuracy, mean squared error and R², on the host in float64.

y are predictions (n, c) in the user's units; t their targets, (n,) class numbers or (n, c); s are
sample weights (n,), not all of them 0, or None. A mean over rows is weighted by s.

    accuracy   share of rows whose class, or whose labels all, are right
    balanced_accuracy   mean over the classes that occur of the share of their rows that are right
    mse        1/(cN) ΣΣ (y - t)²
    r2         1 - Σ (y - t)² / Σ (t - mean t)², the mean over outputs

Your own is any object with the attributes and the call of a `Metric`; one that is measured in every
run is a row of `METRICS` and of `MetricName`. Those are made of `terms` of some rows at a time
(`Measures`), so that not all rows have to be in memory.

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


Terms = tuple[np.ndarray, ...]


class Summed(Metric, Protocol):
    """A metric of terms that are taken of some rows at a time. The first term is their weight."""

    def terms(self, y: np.ndarray, t: np.ndarray, s: np.ndarray | None = None) -> Terms:
        """Of some rows."""

    def join(self, a: Terms, b: Terms) -> Terms:
        """Of two sets of rows, of the terms of each."""

    def of(self, terms: Terms) -> float:
        """The metric, of the terms of all rows."""


def _weight(n: int, s: np.ndarray | None) -> np.ndarray:
    return np.asarray(n if s is None else s.sum(), np.float64)


def _mean(x: np.ndarray, s: np.ndarray | None) -> np.ndarray:
    """The weighted mean over rows; 0 where all weights are."""
    if s is not None and not s.any():
        return np.zeros(x.shape[1:])
    return np.asarray(np.average(x, axis=0, weights=s))


def _joined_mean(a: Terms, b: Terms) -> Terms:
    """Weight and mean of two sets of rows."""
    weight = a[0] + b[0]
    return weight, a[1] + (b[1] - a[1]) * (b[0] / (weight or 1.0))


class Accuracy:
    """The share of rows whose largest output is their class; of labels, an output above 1/2 being
    a 1, the share of rows that are right in all."""

    name, label, targets = "accuracy", "accuracy", ("classes", "labels")
    greater_is_better = True
    join = staticmethod(_joined_mean)

    def __call__(self, y: np.ndarray, t: np.ndarray, s: np.ndarray | None = None) -> float:
        return self.of(self.terms(y, t, s))

    def terms(self, y: np.ndarray, t: np.ndarray, s: np.ndarray | None = None) -> Terms:
        right = y.argmax(axis=1) == t if t.ndim == 1 else ((y > 0.5) == (t > 0.5)).all(axis=1)
        return _weight(len(t), s), _mean(right, s)

    def of(self, terms: Terms) -> float:
        return float(terms[1])


class BalancedAccuracy:
    """The mean, over the classes that occur, of the share of their rows that are right: 1 over
    their number for a net that always answers the same; of labels the mean over outputs. Source:
    K. H. Brodersen et al., "The balanced accuracy and its posterior distribution", ICPR 2010."""

    name, label, targets = "balanced_accuracy", "balanced accuracy", ("classes", "labels")
    greater_is_better = True

    def __call__(self, y: np.ndarray, t: np.ndarray, s: np.ndarray | None = None) -> float:
        return self.of(self.terms(y, t, s))

    def terms(self, y: np.ndarray, t: np.ndarray, s: np.ndarray | None = None) -> Terms:
        """Weight, the weight of each class's rows, and of those that are right."""
        s = np.ones(len(t)) if s is None else s
        if t.ndim == 1:
            right, classes = y.argmax(axis=1) == t, y.shape[1]
            counts = [np.bincount(t, x, classes)[:, None] for x in (s, s * right)]
            return _weight(len(t), s), *counts
        label, right = t > 0.5, (y > 0.5) == (t > 0.5)
        whole, kept = (np.stack([s @ (x & ~label), s @ (x & label)]) for x in (True, right))
        return _weight(len(t), s), whole, kept

    def join(self, a: Terms, b: Terms) -> Terms:
        """All of them are sums."""
        return tuple(x + y for x, y in zip(a, b, strict=True))

    def of(self, terms: Terms) -> float:
        _, whole, right = terms
        there = whole > 0.0
        recall = np.divide(right, whole, out=np.zeros(there.shape), where=there)
        return float((recall.sum(axis=0) / there.sum(axis=0)).mean())


class MeanSquaredError:
    """The mean squared error over rows and outputs."""

    name, label, targets = "mse", "mean squared error", ("numbers", "counts")
    greater_is_better = False
    join = staticmethod(_joined_mean)

    def __call__(self, y: np.ndarray, t: np.ndarray, s: np.ndarray | None = None) -> float:
        return self.of(self.terms(y, t, s))

    def terms(self, y: np.ndarray, t: np.ndarray, s: np.ndarray | None = None) -> Terms:
        return _weight(len(t), s), _mean((y - t) ** 2, s)

    def of(self, terms: Terms) -> float:
        return float(terms[1].mean())


class R2:
    """The share of the targets' variance that is explained, the mean over outputs; of a constant
    target 1 if all of it is right, else 0, as in scikit-learn."""

    name, label, targets = "r2", "R²", ("numbers", "counts")
    greater_is_better = True

    def __call__(self, y: np.ndarray, t: np.ndarray, s: np.ndarray | None = None) -> float:
        return self.of(self.terms(y, t, s))

    def terms(self, y: np.ndarray, t: np.ndarray, s: np.ndarray | None = None) -> Terms:
        """Weight, mean squared error, the first target, and from there the mean of the targets and
        their variance: of a constant both are 0, to the last digit."""
        first = t[0]
        far = t - first
        mean = _mean(far, s)
        return _weight(len(t), s), _mean((y - t) ** 2, s), first, mean, _mean((far - mean) ** 2, s)

    def join(self, a: Terms, b: Terms) -> Terms:
        """Chan, Golub and LeVeque (1983), eq. (1.5)."""
        weight, left = _joined_mean(a, b)
        of_b = b[0] / (weight or 1.0)
        apart = (b[2] - a[2]) + (b[3] - a[3])
        variance = a[4] + (b[4] - a[4]) * of_b + apart**2 * of_b * (1.0 - of_b)
        return weight, left, a[2], a[3] + apart * of_b, variance

    def of(self, terms: Terms) -> float:
        _, left, _, _, whole = terms
        share = 1.0 - left / np.where(whole > 0.0, whole, 1.0)
        return float(np.mean(np.where(whole > 0.0, share, left == 0.0)))


METRICS: dict[str, Summed] = {
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
    t = _as_measured(targets, t)
    chosen: Iterable[Metric] = METRICS.values() if metrics is None else metrics
    return {metric.name: metric(y, t, s) for metric in chosen if targets in metric.targets}


class Measures:
    """`evaluate` for rows that come some at a time.

    >>> found = Measures("numbers")
    >>> found.add(np.array([[1.0], [2.0]]), np.array([1.0, 2.0]))
    >>> found.add(np.array([[3.0]]), np.array([4.0]))
    >>> found.end()["mse"] == evaluate("numbers", np.array([[1.0], [2], [3]]), [1, 2, 4])["mse"]
    True
    """

    def __init__(self, targets: str):
        self.targets = targets
        self.metrics = [metric for metric in METRICS.values() if targets in metric.targets]
        self.terms: list[Terms] = []

    def add(self, y: np.ndarray, t: np.ndarray, s: np.ndarray | None = None) -> None:
        """These rows too."""
        t = _as_measured(self.targets, t)
        terms = [metric.terms(y, t, s) for metric in self.metrics]
        before = zip(self.metrics, self.terms, terms, strict=True) if self.terms else ()
        self.terms = [metric.join(a, b) for metric, a, b in before] or terms

    def end(self) -> dict[str, float]:
        """The metrics by name."""
        found = zip(self.metrics, self.terms, strict=True)
        return {metric.name: metric.of(terms) for metric, terms in found}


def _as_measured(targets: str, t: np.ndarray) -> np.ndarray:
    """t as metrics take it: (n,) class numbers, else (n, c) in float64."""
    t = np.asarray(t)
    if targets == "classes":
        return t if t.ndim == 1 else t.argmax(axis=1)
    return (t[:, None] if t.ndim == 1 else t).astype(np.float64)
