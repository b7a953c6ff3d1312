"""How good predictions are, on the host in float64.

y are predictions (n, c) in the user's units; t their targets, (n,) class numbers or (n, c); s are
sample weights (n,), not all of them 0, or None. A mean over rows is weighted by s.

Of classes and labels, from the largest output, or from outputs above 1/2:

    accuracy   share of rows whose class, or whose labels all, are right
    balanced_accuracy   mean over the classes that occur of the share of their rows that are right
    top_k      share of rows whose class is among the k largest outputs
    f1         2 TP / (2 TP + FP + FN), of each class or output, and their mean
    mcc        Matthews' correlation of predictions and targets

from the order of the outputs, NaN where a class has no rows or all of them:

    roc_auc    how often a row of the class has a larger output than another row, ties half
    average_precision   Σ (R_i - R_i-1) P_i over thresholds, with recall R and precision P

from probabilities, of losses that make them:

    log_loss   mean of -log y of the class that it is
    brier      mean of Σ (y - t)² over the classes; half of it where there are two
    calibration_error   Σ share of a bin |mean of y - share that is right| over bins of y

Of numbers and counts, the mean over outputs:

    mse, rmse, mae, median_error    of y - t: mean square, its root, mean size, median size
    r2         1 - Σ (y - t)² / Σ (t - mean t)²
    pinball    mean of q (t - y) where t > y, else (1 - q)(y - t)
    poisson_deviance, gamma_deviance, tweedie_deviance    of counts, amounts, both

Each is scikit-learn's where it has one. Your own is any object with the attributes and the call of
a `Metric`; one with a name is a row of `METRICS` and of `MetricName`. One that is made of `terms`
of some rows at a time does not need all rows in memory (`Measures`).

>>> class Bias:
...     name, label, targets = "bias", "mean error", ("numbers", "counts")
...     greater_is_better = False
...     def __call__(self, y, t, s=None):
...         return float(abs(np.average(y - t, axis=0, weights=s)).mean())
>>> evaluate("numbers", np.array([[1.0], [5.0]]), np.array([2, 2]), metrics=[Bias(), "mae"])
{'bias': 1.0, 'mae': 2.0}
>>> evaluate("classes", np.array([[0.9, 0.1], [0.2, 0.8]]), np.array([0, 0]))
{'accuracy': 0.5, 'balanced_accuracy': 0.5}
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np

from mlp.errors import InputError, check_takes, shown
from mlp.names import check_settings, make


class Metric(Protocol):
    """What is asked of a metric.

    Optional attributes, False where they are missing: ``usual`` (it is measured where no others are
    asked for) and ``probabilities`` (its y must be some).
    """

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
    """A metric of terms that are taken of some rows at a time."""

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


def _added(a: Terms, b: Terms) -> Terms:
    """Sums over rows."""
    return tuple(x + y for x, y in zip(a, b, strict=True))


class _OfTerms(ABC):
    """A metric that is made of terms, which are sums over rows."""

    join = staticmethod(_added)

    @abstractmethod
    def terms(self, y: np.ndarray, t: np.ndarray, s: np.ndarray | None = None) -> Terms:
        """As of `Summed`."""

    @abstractmethod
    def of(self, terms: Terms) -> float:
        """As of `Summed`."""

    def __call__(self, y: np.ndarray, t: np.ndarray, s: np.ndarray | None = None) -> float:
        return self.of(self.terms(y, t, s))


class _Mean(_OfTerms):
    """A metric that is the weighted mean over rows of a number for each, or for each output."""

    join = staticmethod(_joined_mean)

    @abstractmethod
    def each(self, y: np.ndarray, t: np.ndarray) -> np.ndarray:
        """(n,) or (n, c)."""

    def terms(self, y: np.ndarray, t: np.ndarray, s: np.ndarray | None = None) -> Terms:
        return _weight(len(t), s), _mean(self.each(y, t), s)

    def of(self, terms: Terms) -> float:
        return float(terms[1].mean())


# ------------------------------------------------------------------ what is decided


@dataclass(frozen=True)
class Accuracy(_Mean):
    """The share of rows whose largest output is their class; of labels, an output above 1/2 being
    a 1, the share of rows that are right in all."""

    name, label, targets = "accuracy", "accuracy", ("classes", "labels")
    greater_is_better = usual = True

    def each(self, y: np.ndarray, t: np.ndarray) -> np.ndarray:
        return y.argmax(axis=1) == t if t.ndim == 1 else ((y > 0.5) == (t > 0.5)).all(axis=1)


class BalancedAccuracy(_OfTerms):
    """The mean, over the classes that occur, of the share of their rows that are right: 1 over
    their number for a net that always answers the same; of labels the mean over outputs. Source:
    K. H. Brodersen et al., "The balanced accuracy and its posterior distribution", ICPR 2010."""

    name, label, targets = "balanced_accuracy", "balanced accuracy", ("classes", "labels")
    greater_is_better = usual = True

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

    def of(self, terms: Terms) -> float:
        _, whole, right = terms
        there = whole > 0.0
        recall = np.divide(right, whole, out=np.zeros(there.shape), where=there)
        return float((recall.sum(axis=0) / there.sum(axis=0)).mean())


@dataclass(frozen=True)
class TopK(_Mean):
    """The share of rows whose class is among the k largest outputs; of equal ones the later counts
    as larger, as in scikit-learn."""

    k: float = 5
    targets, greater_is_better = ("classes",), True

    def __post_init__(self) -> None:
        check_settings(self, "top_k", k="[1, inf)")
        if self.k != int(self.k):
            raise InputError(f"top_k: k must be a whole number, not {shown(self.k)}")

    @property
    def name(self) -> str:
        return f"top_{self.k:g}"

    @property
    def label(self) -> str:
        return f"class among the {self.k:g} largest"

    def each(self, y: np.ndarray, t: np.ndarray) -> np.ndarray:
        if self.k >= y.shape[1]:
            raise InputError(
                f"top_k: all rows are right with k = {self.k:g} of {y.shape[1]} classes"
            )
        largest = np.argsort(y, axis=1, kind="stable")[:, -int(self.k) :]
        return (largest == t[:, None]).any(axis=1)


@dataclass(frozen=True)
class F1(_OfTerms):
    """2 TP / (2 TP + FP + FN), the harmonic mean of precision and recall, of each class that occurs
    in targets or predictions (of one output both its classes), or of each output of several labels.

    average: "macro" is their mean, "weighted" that with the classes' rows as weights, "micro" that
    of their sums; "binary" is that of the second of two classes.
    """

    average: Literal["macro", "micro", "weighted", "binary"] = "macro"
    label, targets, greater_is_better = "F1", ("classes", "labels"), True

    def __post_init__(self) -> None:
        check_settings(self, "f1")

    @property
    def name(self) -> str:
        return "f1" if self.average == "macro" else f"f1_{self.average}"

    def terms(self, y: np.ndarray, t: np.ndarray, s: np.ndarray | None = None) -> Terms:
        """Weights of what is right, is predicted and is there, (c,) each, and which may count."""
        if self.average == "binary" and y.shape[1] > (2 if t.ndim == 1 else 1):
            raise InputError(f"f1: average 'binary' is for two classes, not {y.shape[1]} outputs")
        said, there = _decisions(y, t)
        s = np.ones(len(t)) if s is None else s
        counts = s @ (said & there), s @ said, s @ there
        return *counts, np.full(said.shape[1], float(t.ndim > 1 and t.shape[1] > 1))

    def of(self, terms: Terms) -> float:
        right, said, there, always = terms
        if self.average == "micro":
            right, said, there = (np.asarray([x.sum()]) for x in (right, said, there))
        either = said + there
        f1 = 2.0 * right / np.where(either > 0.0, either, 1.0)
        if self.average == "binary":
            return float(f1[-1])
        if self.average == "weighted":
            return float((f1 * there).sum() / (there.sum() or 1.0))
        counts = (either > 0.0) | (always > 0.0) if self.average == "macro" else either >= 0.0
        return float(f1[counts].mean())


@dataclass(frozen=True)
class MatthewsCorrelation(_OfTerms):
    """The correlation of predictions and targets, 0 where either is always the same; of labels the
    mean over outputs. Source: Gorodkin, "Comparing two K-category assignments by a K-category
    correlation coefficient", Comput. Biol. Chem. 28, 2004, eq. (8)."""

    name, label, targets = "mcc", "Matthews' correlation", ("classes", "labels")
    greater_is_better = True

    def terms(self, y: np.ndarray, t: np.ndarray, s: np.ndarray | None = None) -> Terms:
        """The weight of the rows of each class that are taken for each, (k, k), a table a column
        of labels."""
        s = np.ones(len(t)) if s is None else s
        pairs = [(t, y.argmax(axis=1), y.shape[1])]
        if t.ndim > 1:
            pairs = [(a > 0.5, b > 0.5, 2) for a, b in zip(t.T, y.T, strict=True)]
        tables = [np.bincount(a * k + b, s, k * k).reshape(k, k) for a, b, k in pairs]
        return (np.stack(tables),)

    def of(self, terms: Terms) -> float:
        found = []
        for table in terms[0]:
            there, said, whole = table.sum(axis=1), table.sum(axis=0), table.sum()
            both = np.trace(table) * whole - there @ said
            spread = (whole**2 - there @ there) * (whole**2 - said @ said)
            found.append(both / np.sqrt(spread) if spread > 0.0 else 0.0)
        return float(np.mean(found))


# ------------------------------------------------------------------ the order of the outputs


@dataclass(frozen=True)
class RocAuc:
    """The share of pairs, of a row of the class and one of another, in which the first has the
    larger output, ties half: the area under the curve of true against false positives. The mean
    over the classes, each against all others, or over the outputs of labels; of two classes the
    second's, which is both's. NaN where one has no rows, or all."""

    name, label, targets = "roc_auc", "area under the ROC curve", ("classes", "labels")
    greater_is_better = True

    def __call__(self, y: np.ndarray, t: np.ndarray, s: np.ndarray | None = None) -> float:
        return float(np.mean([_roc_auc(*column) for column in _against_others(y, t, s)]))


def _roc_auc(score: np.ndarray, there: np.ndarray, s: np.ndarray) -> float:
    of, others = _by_score(score, there, s)
    below = np.cumsum(others) - 0.5 * others
    pairs = of.sum() * others.sum()
    return float(of @ below / pairs) if pairs > 0.0 else np.nan


@dataclass(frozen=True)
class AveragePrecision:
    """Σ (R_i - R_i-1) P_i over the outputs as thresholds from the largest on: the precision P_i at
    each step of the recall R_i. The mean over the classes or outputs, and NaN, as of `RocAuc`."""

    name, label = "average_precision", "average precision"
    targets, greater_is_better = ("classes", "labels"), True

    def __call__(self, y: np.ndarray, t: np.ndarray, s: np.ndarray | None = None) -> float:
        return float(np.mean([_precision(*column) for column in _against_others(y, t, s)]))


def _precision(score: np.ndarray, there: np.ndarray, s: np.ndarray) -> float:
    of, others = (x[::-1] for x in _by_score(score, there, s))
    right, said = np.cumsum(of), np.cumsum(of + others)
    precision = right / np.where(said > 0.0, said, 1.0)
    return float(of @ precision / of.sum()) if of.sum() > 0.0 else np.nan


def _against_others(
    y: np.ndarray, t: np.ndarray, s: np.ndarray | None
) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """(scores, whether it is the class, weights) of each class or output; of two classes of the
    second alone."""
    s = np.ones(len(t)) if s is None else s
    which = [1] if t.ndim == 1 and y.shape[1] == 2 else range(y.shape[1])
    return [(y[:, k], t == k if t.ndim == 1 else t[:, k] > 0.5, s) for k in which]


def _by_score(score: np.ndarray, there: np.ndarray, s: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The weights of the class and of all others at each score, from the lowest on."""
    if np.isnan(score).any():
        return np.zeros(1), np.zeros(1)  # no order, so that what follows is NaN
    scores, place = np.unique(score, return_inverse=True)
    return tuple(np.bincount(place, s * x, len(scores)) for x in (there, ~there))  # type: ignore[return-value]


# ------------------------------------------------------------------ probabilities


@dataclass(frozen=True)
class LogLoss(_Mean):
    """The mean of -log y of the class that it is; of labels of -t log y - (1 - t) log(1 - y). y is
    held to its dtype's eps from 0 and 1, as in scikit-learn."""

    name, label, targets = "log_loss", "log-loss", ("classes", "labels")
    greater_is_better, probabilities = False, True

    def each(self, y: np.ndarray, t: np.ndarray) -> np.ndarray:
        eps = float(np.finfo(y.dtype).eps)
        y = np.clip(y.astype(np.float64), eps, 1.0 - eps)
        if t.ndim == 1:
            return -np.log(y[np.arange(len(t)), t])
        return -(t * np.log(y) + (1.0 - t) * np.log1p(-y))


@dataclass(frozen=True)
class Brier(_Mean):
    """The mean of Σ_k (y_k - t_k)² with t_k 1 for the class that it is, else 0; of two classes half
    of it, which is either's; of labels (y - t)²."""

    name, label, targets = "brier", "Brier score", ("classes", "labels")
    greater_is_better, probabilities = False, True

    def each(self, y: np.ndarray, t: np.ndarray) -> np.ndarray:
        y = y.astype(np.float64)
        if t.ndim > 1:
            return (y - t) ** 2
        y[np.arange(len(t)), t] -= 1.0
        return (y**2).sum(axis=1) * (0.5 if y.shape[1] == 2 else 1.0)


@dataclass(frozen=True)
class CalibrationError(_OfTerms):
    """Σ_b share of rows in bin b · |mean of y - share that is right|, over equal bins of the
    largest y, right where its class is it; of labels of y, right where it is 1, the mean over
    outputs.

    Source: Guo et al., arXiv:1706.04599, eq. (3).
    """

    bins: float = 15
    name, label, targets = "calibration_error", "calibration error", ("classes", "labels")
    greater_is_better, probabilities = False, True

    def __post_init__(self) -> None:
        check_settings(self, "calibration_error", bins="[1, inf)")
        if self.bins != int(self.bins):
            raise InputError(
                f"calibration_error: bins must be a whole number, not {shown(self.bins)}"
            )

    def terms(self, y: np.ndarray, t: np.ndarray, s: np.ndarray | None = None) -> Terms:
        """Weight, and weighted sums of y - what is right, of each bin and output, (bins, c)."""
        y, bins = y.astype(np.float64), int(self.bins)
        if t.ndim == 1:
            y, t = y.max(axis=1)[:, None], (y.argmax(axis=1) == t)[:, None]
        s = np.ones(len(t)) if s is None else s
        place = np.clip(np.ceil(np.nan_to_num(y) * bins).astype(np.int64) - 1, 0, bins - 1)
        columns = list(zip(place.T, (y - t).T, strict=True))
        weights = [np.bincount(b, s, bins) for b, _ in columns]
        return np.stack(weights, 1), np.stack([np.bincount(b, s * d, bins) for b, d in columns], 1)

    def of(self, terms: Terms) -> float:
        weight, apart = terms
        return float((abs(apart).sum(axis=0) / weight.sum(axis=0)).mean())


# ------------------------------------------------------------------ numbers and counts


@dataclass(frozen=True)
class MeanSquaredError(_Mean):
    """The mean squared error over rows and outputs."""

    name, label, targets = "mse", "mean squared error", ("numbers", "counts")
    greater_is_better, usual = False, True

    def each(self, y: np.ndarray, t: np.ndarray) -> np.ndarray:
        return (y - t) ** 2


@dataclass(frozen=True)
class RootMeanSquaredError(_Mean):
    """The root of the mean squared error of each output, the mean over outputs."""

    name, label, targets = "rmse", "root mean squared error", ("numbers", "counts")
    greater_is_better = False

    def each(self, y: np.ndarray, t: np.ndarray) -> np.ndarray:
        return (y - t) ** 2

    def of(self, terms: Terms) -> float:
        return float(np.sqrt(terms[1]).mean())


@dataclass(frozen=True)
class MeanAbsoluteError(_Mean):
    """The mean size of the error over rows and outputs."""

    name, label, targets = "mae", "mean absolute error", ("numbers", "counts")
    greater_is_better = False

    def each(self, y: np.ndarray, t: np.ndarray) -> np.ndarray:
        return abs(y - t)


@dataclass(frozen=True)
class MedianError:
    """The median size of the error of each output, the mean over outputs; between two rows their
    mean."""

    name, label, targets = "median_error", "median absolute error", ("numbers", "counts")
    greater_is_better = False

    def __call__(self, y: np.ndarray, t: np.ndarray, s: np.ndarray | None = None) -> float:
        apart = abs(y - t)
        if s is None:
            return float(np.median(apart, axis=0).mean())
        order = np.argsort(apart, axis=0)
        apart, below = np.take_along_axis(apart, order, axis=0), np.cumsum(s[order], axis=0)
        half, medians = 0.5 * s.sum(), []
        for size, weight in zip(apart.T, below.T, strict=True):
            low, high = (np.searchsorted(weight, half, side) for side in ("left", "right"))
            medians.append(0.5 * (size[low] + size[min(high, len(size) - 1)]))
        return float(np.mean(medians))


class R2(_OfTerms):
    """The share of the targets' variance that is explained, the mean over outputs; of a constant
    target 1 if all of it is right, else 0, as in scikit-learn."""

    name, label, targets = "r2", "R²", ("numbers", "counts")
    greater_is_better = usual = True

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


@dataclass(frozen=True)
class Pinball(_Mean):
    """The mean of q (t - y) where t is above y, else (1 - q) (y - t): least at the q-quantile."""

    q: float = 0.5
    targets, greater_is_better = ("numbers", "counts"), False

    def __post_init__(self) -> None:
        check_settings(self, "pinball", q="(0, 1)")

    @property
    def name(self) -> str:
        return f"pinball_{self.q:g}"

    @property
    def label(self) -> str:
        return f"pinball loss of the {self.q:g}-quantile"

    def each(self, y: np.ndarray, t: np.ndarray) -> np.ndarray:
        return np.maximum(self.q * (t - y), (1.0 - self.q) * (y - t))


@dataclass(frozen=True)
class Deviance(_Mean):
    """The mean unit deviance of Tweedie's distribution of a power from 1 to 2, Poisson's at 1 and
    the gamma distribution's at 2; y must be above 0, and t = 0 is infinitely far off at 2.

    Source: Jorgensen, "The Theory of Dispersion Models", 1997, section 4.1; scikit-learn's
    mean_tweedie_deviance.
    """

    power: float = 1.5
    targets, greater_is_better = ("counts",), False

    def __post_init__(self) -> None:
        check_settings(self, "deviance", power="[1, 2]")

    @property
    def name(self) -> str:
        known = {1.0: "poisson_deviance", 2.0: "gamma_deviance"}
        return known.get(self.power, f"tweedie_deviance_{self.power:g}")

    @property
    def label(self) -> str:
        return self.name.replace("_", " ")

    def each(self, y: np.ndarray, t: np.ndarray) -> np.ndarray:
        y, p = y.astype(np.float64), float(self.power)
        with np.errstate(all="ignore"):
            if p == 1.0:
                return 2.0 * (np.where(t > 0.0, t * np.log(t / y), 0.0) - t + y)
            if p == 2.0:
                return 2.0 * (np.log(y / t) + t / y - 1.0)
            first = t ** (2.0 - p) / ((1.0 - p) * (2.0 - p))
            return 2.0 * (first - t * y ** (1.0 - p) / (1.0 - p) + y ** (2.0 - p) / (2.0 - p))


# ------------------------------------------------------------------ by name


METRICS: dict[str, Metric] = {
    "accuracy": Accuracy(),
    "balanced_accuracy": BalancedAccuracy(),
    "top_k": TopK(),
    "f1": F1(),
    "mcc": MatthewsCorrelation(),
    "roc_auc": RocAuc(),
    "average_precision": AveragePrecision(),
    "log_loss": LogLoss(),
    "brier": Brier(),
    "calibration_error": CalibrationError(),
    "mse": MeanSquaredError(),
    "rmse": RootMeanSquaredError(),
    "mae": MeanAbsoluteError(),
    "median_error": MedianError(),
    "r2": R2(),
    "pinball": Pinball(),
    "poisson_deviance": Deviance(1.0),
    "gamma_deviance": Deviance(2.0),
    "tweedie_deviance": Deviance(),
}
MetricName = Literal[
    "accuracy",
    "balanced_accuracy",
    "top_k",
    "f1",
    "mcc",
    "roc_auc",
    "average_precision",
    "log_loss",
    "brier",
    "calibration_error",
    "mse",
    "rmse",
    "mae",
    "median_error",
    "r2",
    "pinball",
    "poisson_deviance",
    "gamma_deviance",
    "tweedie_deviance",
]
MetricSpec = MetricName | Mapping[str, Any] | Metric


def get_metric(metric: MetricSpec) -> Metric:
    """The metric of a name or a mapping (`mlp.names`), or the object itself."""
    made: Any = make(METRICS, metric, "metric")
    wanted = ("name", "label", "targets", "greater_is_better")
    if isinstance(made, type) or not callable(made) or not all(hasattr(made, w) for w in wanted):
        raise InputError(
            f"a metric is a name or an object with {', '.join(wanted)} that is called with "
            f"(y, t, s), not {shown(metric)}"
        )
    check_takes(f"the metric {made.name}", made, "y", "t", "s")
    return made


def fitting(
    kinds: Sequence[str],
    outputs: int,
    metrics: Iterable[MetricSpec] | None = None,
    also: Iterable[MetricSpec] = (),
    proper: bool = True,
) -> dict[str, list[Metric]]:
    """{kind of targets: what is measured of it}: those that are usual for these kinds, or the ones
    that are asked for, and also those. proper: whether the predictions of the first kind are
    probabilities, where it is classes or labels.

    InputError for one that is for other targets or other predictions, and for two of one name.
    """
    try:
        asked = [] if metrics is None else [*([metrics] if isinstance(metrics, str) else metrics)]
    except TypeError as error:
        raise InputError(f"metrics must be a list, as ['roc_auc'], not {shown(metrics)}") from error
    usual = [m for m in METRICS.values() if getattr(m, "usual", False)]
    chosen: list[Metric] = [m for m in usual if metrics is None and not _no_kind(m, kinds)]
    chosen += map(get_metric, asked)
    named = {metric.name: metric for metric in chosen}
    if len(named) < len(chosen):
        raise InputError(f"metrics must have a name each, not {[m.name for m in chosen]}")
    named |= {m.name: m for m in map(get_metric, also) if m.name not in named}
    found: dict[str, list[Metric]] = {kind: [] for kind in kinds}
    for metric in named.values():
        if _no_kind(metric, kinds):
            raise InputError(
                f"metric {shown(metric.name)} is for {' and '.join(metric.targets)}, and the "
                f"targets of this loss are {kinds[0]}{_others(kinds)}"
            )
        kind = next(kind for kind in kinds if kind in metric.targets)
        if getattr(metric, "probabilities", False) and not (proper and kind == kinds[0]):
            raise InputError(
                f"metric {shown(metric.name)} is of probabilities, and what this loss predicts are "
                "none; use 'roc_auc' or 'accuracy', or a loss of likelihoods, as 'cross_entropy'"
            )
        _try(metric, kind, outputs)
        found[kind].append(metric)
    return found


def _no_kind(metric: Metric, kinds: Sequence[str]) -> bool:
    return not any(kind in metric.targets for kind in kinds)


def _others(kinds: Sequence[str]) -> str:
    known = [m.name for m in METRICS.values() if not _no_kind(m, kinds)]
    return f": {', '.join(known)}"


def _try(metric: Metric, kind: str, outputs: int) -> None:
    """InputError for a metric that does not take so many outputs, or fails or gives no number."""
    rows = 2 * max(outputs, 2)
    t: Any = np.arange(rows) % outputs
    y = np.full((rows, outputs), 1.0 / outputs)
    if kind != "classes":
        t = (np.arange(rows) % 2)[:, None] + np.zeros(outputs)
    try:
        float(metric(y, t, np.ones(rows)))
    except InputError:
        raise
    except Exception as error:  # of the user's code, whatever it is
        raise InputError(f"the metric {metric.name} fails on {rows} rows: {error}") from error


def evaluate(
    targets: str,
    y: np.ndarray,
    t: np.ndarray,
    s: np.ndarray | None = None,
    metrics: Iterable[MetricSpec] | None = None,
) -> dict[str, float]:
    """The metrics for a kind of targets, by name: the usual ones, or those that are asked for.

    t : (n, c), one axis where c is 1, or (n,) class numbers.
    """
    t = _as_measured(targets, t)
    chosen = fitting([targets], y.shape[1], metrics)[targets]
    return {metric.name: metric(y, t, s) for metric in chosen}


class Measures:
    """`evaluate` for rows that come some at a time. Of a metric without `Summed.terms` all rows are
    kept until the end.

    >>> found = Measures("numbers", [METRICS["mse"], METRICS["median_error"]])
    >>> found.add(np.array([[1.0], [2.0]]), np.array([1.0, 2.0]))
    >>> found.add(np.array([[3.0]]), np.array([4.0]))
    >>> found.end()["mse"] == evaluate("numbers", np.array([[1.0], [2], [3]]), [1, 2, 4])["mse"]
    True
    """

    def __init__(self, targets: str, metrics: Sequence[Metric]):
        self.targets, self.metrics = targets, metrics
        self.summed: list[Any] = [metric for metric in metrics if hasattr(metric, "terms")]
        self.terms: list[Terms] = []
        self.rows: list[tuple[np.ndarray, np.ndarray, np.ndarray | None]] = []

    def add(self, y: np.ndarray, t: np.ndarray, s: np.ndarray | None = None) -> None:
        """These rows too."""
        t = _as_measured(self.targets, t)
        terms = [metric.terms(y, t, s) for metric in self.summed]
        before = zip(self.summed, self.terms, terms, strict=True) if self.terms else ()
        self.terms = [metric.join(a, b) for metric, a, b in before] or terms
        if len(self.summed) < len(self.metrics):
            self.rows.append((np.array(y), t, s))  # y may be a buffer of the evaluation

    def end(self) -> dict[str, float]:
        """The metrics by name."""
        terms: Any = {id(m): of for m, of in zip(self.summed, self.terms, strict=True)}
        rows: Any = [_joined(parts) for parts in zip(*self.rows, strict=True)]
        chosen: Sequence[Any] = self.metrics
        return {m.name: m.of(terms[id(m)]) if id(m) in terms else m(*rows) for m in chosen}


def _joined(parts: Sequence[Any]) -> Any:
    """The rows of all pieces; None for none."""
    if parts[0] is None or len(parts) == 1:
        return parts[0]
    return np.concatenate(parts)


def _as_measured(targets: str, t: np.ndarray) -> np.ndarray:
    """t as metrics take it: (n,) class numbers, else (n, c) in float64."""
    t = np.asarray(t)
    if targets == "classes":
        return t if t.ndim == 1 else t.argmax(axis=1)
    return (t[:, None] if t.ndim == 1 else t).astype(np.float64)


def _decisions(y: np.ndarray, t: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What is predicted and what is there, (n, c) of True and False; of one label whether it is not
    and whether it is."""
    if t.ndim > 1:
        said, there = y > 0.5, t > 0.5
        if t.shape[1] > 1:
            return said, there
        return np.hstack([~said, said]), np.hstack([~there, there])
    classes = np.arange(y.shape[1])
    return y.argmax(axis=1)[:, None] == classes, t[:, None] == classes
