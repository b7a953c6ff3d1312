"""Arrays in and out: where X lives, its way to the host, and answers in the caller's kind.

What is on a device, and any PyTorch or array-api-strict array, has a backend of its own and is
trained there. Everything else (NumPy, frames, lists, SciPy sparse, other libraries) is a host array
after scikit-learn's validation.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from sklearn.utils import _safe_indexing

from backends import Backend, choose
from mlp.data.feed import Feed
from mlp.data.samples import Samples
from mlp.data.scaling import widest
from mlp.model import Model


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
        backend = choose(name)
        return backend.asarray(answer, widest(backend) if answer.dtype == np.float64 else None)
    if hasattr(X, "__array_namespace__"):
        return X.__array_namespace__().asarray(answer, device=X.device)
    return answer


@dataclass(frozen=True)
class FitRows:
    """Rows given to `fit`, checked.

    samples: X on its backend, on the host, or sparse; the targets (n, outputs); the weights. y: as
    given. frame: what X came in, if it was a data frame.
    """

    samples: Samples
    y: np.ndarray
    frame: Any = None

    @property
    def X(self) -> Any:
        return self.samples.X

    @property
    def targets(self) -> np.ndarray:
        assert isinstance(self.samples.t, np.ndarray)  # there are targets in a fit, in memory
        return self.samples.t

    @property
    def weights(self) -> np.ndarray | None:
        assert self.samples.s is None or isinstance(self.samples.s, np.ndarray)
        return self.samples.s

    @property
    def named_X(self) -> Any:
        """X with its feature names, for what calls the estimator again."""
        return self.X if self.frame is None else self.frame

    def rows(self, index: np.ndarray, backend: Backend) -> "FitRows":
        """The rows with these numbers."""
        frame = None if self.frame is None else _safe_indexing(self.frame, index)
        return FitRows(self.samples.rows(index, backend), self.y[index], frame)

    def fed_to(self, model: Model, name: str = "y") -> tuple[Samples, Feed]:
        """The samples with targets that the model's loss can have, and their way into the model.

        name: of the targets, for messages.
        """
        targets = model.objective.check_targets(self.targets, name)
        samples = replace(self.samples, t=targets)
        return samples, model.feed(samples)
