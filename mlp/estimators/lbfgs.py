"""Full-batch descent by SciPy's L-BFGS-B; the value and the gradient come from the backend.

The rows of a sparse X become dense a chunk at a time. With S_c the samples (their weights' sum) of
chunk c out of C, S = Σ S_c, and alpha/C as the penalty of each, eq. (1) of `mlp.estimators` is

    E = Σ_c (S_c/S) E_c            g = Σ_c (S_c/S) g_c                                    (1)
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import scipy.optimize
from sklearn.utils.fixes import _get_additional_lbfgs_options_dict
from sklearn.utils.optimize import _check_optimize_result

from backends import Backend
from mlp.data.feed import Evaluations, sizes_of, slices
from mlp.data.samples import is_sparse
from mlp.estimators.arrays import FitRows
from mlp.estimators.callbacks import Tasks
from mlp.layers.tape import Arena
from mlp.model import Model, shares
from mlp.network.objective import Evaluation

CHUNK_BYTES = 1 << 28  # of dense rows at a time, if X is sparse
STOPPED = 99  # SciPy's status after StopIteration


def chunks_of(data: FitRows, backend: Backend, dtype: str) -> tuple[FitRows, list[slice]]:
    """The data and the rows to evaluate at once; of a sparse X those of weight 0 are left out."""
    size = data.samples.n
    if is_sparse(data.X):
        if data.weights is not None and data.weights.any():
            data = data.rows(np.flatnonzero(data.weights), backend)
        size = max(1, CHUNK_BYTES // (data.X.shape[1] * np.dtype(dtype).itemsize))
    return data, slices(data.samples.n, size)


class Descent:
    """Value and gradient over all rows, as SciPy asks for them: in float64 on the host."""

    def __init__(self, model: Model, data: FitRows, chunks: list[slice], averaged: int):
        self.model, self.backend, self.averaged = model, model.backend, averaged
        samples, feed = data.fed_to(model)
        self.g = self.backend.empty((model.network.parameters,), model.dtype)
        arena = Arena(self.backend, model.precision, chunks[0].stop)
        if len(chunks) == 1 and feed.in_place:
            arena.buffers["a", 0] = feed.X  # what is never written to need not be copied
        weighted, weights = data.weights is not None, shares(chunks, data.weights)
        self.shares = weights / (weights.sum() or 1.0)
        self.chunks = chunks

        def make(n: int) -> Evaluation:
            return model.objective.gradient(self.backend, model.w, self.g, arena, n, weighted)

        self.evaluations = Evaluations(feed, sizes_of(chunks), make)
        if len(chunks) == 1:
            self.evaluations.fill[samples.n](chunks[0])  # and stay there

    def __call__(self, w: np.ndarray) -> tuple[float, np.ndarray]:
        """(E, g), eq. (1)."""
        to_numpy = self.backend.to_numpy
        self.model.w = w
        value, gradient = 0.0, np.zeros(len(w))
        for i, evaluation in self._evaluated():
            loss, penalty = to_numpy(evaluation.sums)[0].astype(np.float64)
            value += self.shares[i] * (loss / self.averaged + penalty)
            gradient += self.shares[i] * to_numpy(self.g)
        return float(value), gradient

    def _evaluated(self) -> Iterator[tuple[int, Evaluation]]:
        """Each chunk's number and its evaluation, which has been run on it."""
        if len(self.chunks) == 1:
            only = self.evaluations[self.chunks[0].stop]
            only.run()
            yield 0, only
            return
        for i, _, evaluation in self.evaluations.through(self.chunks):
            yield i, evaluation


def fit_lbfgs(estimator: Any, model: Model, data: FitRows, chunks: list[slice]) -> None:
    """Descend from the model's weights, whose penalty is alpha / C; sets n_iter_ and loss_."""
    averaged = estimator.n_outputs_ if estimator._is_squared_error() else 1
    tasks = Tasks(estimator, model, data)

    def iterated(intermediate_result: Any) -> None:
        model.w = intermediate_result.x
        estimator.n_iter_ += 1
        estimator.loss_ = float(intermediate_result.fun)
        if tasks.end():
            raise StopIteration
        if estimator.n_iter_ < estimator.max_iter:
            tasks.begin()

    estimator.n_iter_ = 0
    tasks.begin()
    found = scipy.optimize.minimize(
        Descent(model, data, chunks, averaged),
        model.backend.to_numpy(model.w).astype(np.float64),
        method="L-BFGS-B",
        jac=True,
        callback=iterated if tasks.wanted else None,
        options={
            "maxfun": estimator.max_fun,
            "maxiter": estimator.max_iter,
            "gtol": estimator.tol,
            **_get_additional_lbfgs_options_dict("iprint", 1 if estimator.verbose else -1),
        },
    )
    if found.status == STOPPED:
        estimator.n_iter_ = int(found.nit)
    else:
        estimator.n_iter_ = _check_optimize_result("lbfgs", found, estimator.max_iter)
    estimator.loss_ = float(found.fun)
    model.w = found.x
