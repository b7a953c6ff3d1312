"""How good predictions are: accuracy, mean squared error and R², on the host in float64.

y are predictions (n, c), t targets, (n, c) or class numbers (n,).

    accuracy   share of rows whose class, or whose labels all, are right
    mse        1/(cN) ΣΣ (y - t)²
    r2         1 - Σ (y - t)² / Σ (t - mean t)², the mean over outputs (a constant target: 0)

>>> evaluate("classes", np.array([[0.9, 0.1], [0.2, 0.8]]), np.array([0, 0]))
{'accuracy': 0.5}
"""

import numpy as np


def accuracy(y: np.ndarray, t: np.ndarray) -> float:
    """The share of rows whose largest output is the class in t."""
    classes = t if t.ndim == 1 else t.argmax(axis=1)
    return float(np.mean(y.argmax(axis=1) == classes))


def label_accuracy(y: np.ndarray, t: np.ndarray) -> float:
    """The share of rows all of whose labels are right, an output above 1/2 being a 1."""
    t = t[:, None] if t.ndim == 1 else t
    return float(np.mean(((y > 0.5) == (t > 0.5)).all(axis=1)))


def mse(y: np.ndarray, t: np.ndarray) -> float:
    """The mean squared error over rows and outputs."""
    t = t[:, None] if t.ndim == 1 else t
    return float(np.mean((y.astype(np.float64) - t) ** 2))


def r2(y: np.ndarray, t: np.ndarray) -> float:
    """The share of the targets' variance that is explained, the mean over outputs."""
    t = (t[:, None] if t.ndim == 1 else t).astype(np.float64)
    left = ((y.astype(np.float64) - t) ** 2).sum(axis=0)
    whole = ((t - t.mean(axis=0)) ** 2).sum(axis=0)
    return float(np.mean(np.where(whole > 0, 1.0 - left / np.where(whole > 0, whole, 1.0), 0.0)))


def evaluate(targets: str, y: np.ndarray, t: np.ndarray) -> dict[str, float]:
    """The metrics for a kind of targets (`mlp.formulas.losses`): "classes", "labels" or "numbers"."""
    if targets == "classes":
        return {"accuracy": accuracy(y, t)}
    if targets == "labels":
        return {"accuracy": label_accuracy(y, t)}
    return {"mse": mse(y, t), "r2": r2(y, t)}
