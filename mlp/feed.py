"""Rows of a data set into the buffers of an evaluation.

The data set lives on the device in a dtype of its own: uint8 images stay uint8 and are cast when a
batch is gathered; float64 is taken over in the working dtype. Scaling of the inputs,
x' = (x - shift) / scale, is one kernel on the gathered batch, so the data are held once, as read.
A SciPy sparse matrix stays on the host; the rows of a batch become dense when it is gathered.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from backends import Array, Backend
from mlp.data import Scaling, check_finite
from mlp.errors import InputError
from mlp.objective import Evaluation

Rows = Any  # a slice, or an int64 array of row numbers on the device


def rescale(xp: Any, x: Array, shift: Array, factor: Array) -> Array:
    """(x - shift) / scale, with factor = 1 / scale."""
    return (x - shift) * factor


class Feed:
    """A data set on the device: X (n, d), and where given t and sample weights s.

    t: (n, c) numbers or (n,) class numbers, as `Objective.check_targets` returns them.
    """

    def __init__(
        self,
        backend: Backend,
        dtype: str,
        X: Array,
        t: np.ndarray | None = None,
        s: np.ndarray | None = None,
        scaling: Scaling | None = None,
    ):
        self.backend, self.dtype = backend, dtype
        self.n = X.shape[0]
        self.sparse = X.tocsr() if _is_sparse(X) else None
        self.X = None
        if self.sparse is None:
            self.X = backend.asarray(X, None if _stays(X) else dtype)
        self.labels = t is not None and t.ndim == 1
        self.t = None if t is None else backend.asarray(t, "int64" if self.labels else dtype)
        self.s = None if s is None else backend.asarray(s.reshape(-1, 1), dtype)
        self.scaling = None
        if scaling is not None:
            self.scaling = (
                backend.asarray(scaling.shift, dtype),
                backend.asarray(1.0 / scaling.scale, dtype),
            )

    @property
    def in_place(self) -> bool:
        """Whether X is what an evaluation of all rows reads, so that it need not be gathered."""
        if self.X is None or self.scaling is not None:
            return False
        contiguous = not isinstance(self.X, np.ndarray) or self.X.flags.c_contiguous
        return contiguous and str(self.X.dtype).rpartition(".")[2] == self.dtype

    def rows(self, index: np.ndarray) -> Rows:
        """Row numbers, (k,) int64 on the host, as `bind`'s function takes them."""
        return index if self.sparse is not None else self.backend.asarray(index)

    def bind(self, evaluation: Evaluation) -> Callable[[Rows], None]:
        """A function that fills the evaluation's x, t and s with given rows."""
        backend, e = self.backend, evaluation
        labels = backend.empty((e.n,), "int64") if self.labels and e.t is not None else None
        rescaled = None
        if self.scaling is not None:
            rescaled = backend.fuse(rescale, into=("x",)).bind(e.x, *self.scaling)

        def fill(rows: Rows) -> None:
            if self.sparse is None:
                self._gather(self.X, rows, e.x)
            else:
                backend.copy(backend.asarray(self.sparse[rows].toarray(), self.dtype), e.x)
                rows = rows if isinstance(rows, slice) else backend.asarray(rows)
            if rescaled is not None:
                rescaled()
            if labels is not None:
                self._gather(self.t, rows, labels)
                backend.one_hot(labels, e.t)
            elif e.t is not None:
                self._gather(self.t, rows, e.t)
            if e.s is not None:
                self._gather(self.s, rows, e.s)

        return fill

    def _gather(self, x: Array, rows: Rows, out: Array) -> None:
        if isinstance(rows, slice):
            self.backend.copy(x[rows, ...], out)
        else:
            self.backend.take(x, rows, out)


def _stays(X: Array) -> bool:
    """Whether X is kept in its dtype: small integers and half precision."""
    return str(X.dtype).rsplit(".", 1)[-1] in ("uint8", "int8", "uint16", "int16", "float16")


def _is_sparse(X: Any) -> bool:
    return not isinstance(X, np.ndarray) and hasattr(X, "tocsr")


def check_inputs(
    backend: Backend, X: Any, inputs: int, columns: tuple[str, ...] | None = None, what: str = "X"
) -> Array:
    """X as it may be fed: a host array, a sparse matrix or one of the backend's arrays, (n, inputs)
    finite numbers, n > 0.

    Raises InputError naming the column and the count of what is not finite.
    """
    if not backend.owns(X) and not _is_sparse(X):
        X = backend.asarray(X) if hasattr(X, "__dlpack__") and not _host(X) else np.asarray(X)
    if X.ndim != 2:
        one = f"; one row is {what}[None, :]" if X.ndim == 1 else ""
        raise InputError(
            f"{what} has shape {tuple(X.shape)}, expected (rows, {inputs} columns){one}"
        )
    if X.shape[0] == 0:
        raise InputError(f"{what} has no rows")
    if X.shape[1] != inputs:
        raise InputError(f"layer 1 expects {inputs} inputs, {what} has {X.shape[1]} columns")
    if _is_sparse(X):
        if not np.isfinite(X.data).all():
            raise InputError(f"{what}: {int((~np.isfinite(X.data)).sum())} values are not finite")
    elif isinstance(X, np.ndarray):
        if X.dtype == np.bool_:
            X = X.view(np.uint8)
        if X.dtype.kind not in "iuf":
            raise InputError(f"{what}: inputs must be numbers, not {X.dtype}")
        check_finite(X, columns, what)
    elif backend.xp.isdtype(X.dtype, "real floating"):
        with backend.scope():
            finite = bool(backend.to_numpy(backend.xp.all(backend.xp.isfinite(X))))
        if not finite:
            check_finite(backend.to_numpy(X), columns, what)
    return X


def _host(X: Any) -> bool:
    return isinstance(X, np.ndarray)
