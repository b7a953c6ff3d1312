"""Arrays in and out: where X lives, its way to the host, and answers in the caller's kind.

What is on a device, and any PyTorch or array-api-strict array, has a backend of its own and is
trained there. Everything else (NumPy, frames, lists, SciPy sparse, other libraries) is a host array
after scikit-learn's validation.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.utils import _safe_indexing

from backends import choose


def home(X: Any) -> str | None:
    """The name of the backend on whose device X lives; None for what is on the host.

    >>> home(np.ones(2)) is None
    True
    """
    library = type(X).__module__.partition(".")[0]
    if library == "cupy":
        return f"cupy:{X.device.id}"
    if library == "torch":
        return f"torch:{X.device}"
    if library == "array_api_strict":
        device = str(X.device).partition("'")[2].rstrip("')")
        return "strict" if device == "CPU_DEVICE" else f"strict:{device}"
    return None


def to_host(X: Any) -> Any:
    """X as scikit-learn's own validation takes it; an array with a home is copied to NumPy."""
    name = home(X)
    return X if name is None else choose(name).to_numpy(X)


def like(X: Any, answer: np.ndarray) -> Any:
    """A host array in the namespace and on the device of X; for frames, lists and sparse matrices,
    and for answers that are not numbers, it stays NumPy."""
    if isinstance(X, np.ndarray) or answer.dtype.kind not in "biuf":
        return answer
    name = home(X)
    if name is not None:
        return choose(name).asarray(answer)
    if hasattr(X, "__array_namespace__"):
        return X.__array_namespace__().asarray(answer, device=X.device)
    return answer


def take_rows(X: Any, index: np.ndarray) -> Any:
    """The rows of X with these numbers, where X lives."""
    name = home(X)
    if name is None:
        return X[index]
    backend = choose(name)
    with backend.scope():
        return backend.xp.take(X, backend.asarray(index), axis=0)


def dtype_name(X: Any) -> str:
    """The name of an array's dtype in any library.

    >>> dtype_name(np.ones(2, np.float32))
    'float32'
    """
    return str(getattr(X, "dtype", "")).rpartition(".")[2]


def is_sparse(X: Any) -> bool:
    """Whether X is a SciPy sparse matrix or array."""
    return hasattr(X, "tocsr")


@dataclass(frozen=True)
class Data:
    """Checked rows: X on its backend, on the host, or sparse; y as given, and as targets
    (n, outputs); weights (n,) or None; the frame that X came in, if it was one."""

    X: Any
    y: np.ndarray
    targets: np.ndarray
    weights: np.ndarray | None = None
    frame: Any = None

    @property
    def n(self) -> int:
        return int(self.X.shape[0])

    @property
    def named_X(self) -> Any:
        """X with its feature names, for what calls the estimator again."""
        return self.X if self.frame is None else self.frame

    def rows(self, index: np.ndarray) -> "Data":
        """The rows with these numbers."""
        return Data(
            take_rows(self.X, index),
            self.y[index],
            self.targets[index],
            None if self.weights is None else self.weights[index],
            None if self.frame is None else _safe_indexing(self.frame, index),
        )
