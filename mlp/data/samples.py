"""Rows as they travel inside: checked once, at the public door, and trusted after it.

X are n rows of d inputs, t their targets and s their weights, all in the units and in the dtype in
which they were given. `checked` is the door: it searches what it is given once for what cannot be
used. What has passed is a `Samples`, and a `Samples` is not searched again.
"""

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from decimal import Decimal
from hashlib import blake2b
from numbers import Real
from typing import Any, TypeGuard

import numpy as np

from backends import Array, Backend
from mlp.data.finite import all_finite, as_array, check_finite, is_gap, unmasked
from mlp.data.labels import are_shares, targets_of, typed
from mlp.data.readers import Dataset, targets_for
from mlp.data.row_files import Part, RowFile, of_others, some
from mlp.data.stored import StoredDataset
from mlp.errors import InputError, shown
from mlp.network.objective import Objective
from mlp.parallel.group import ALONE, Group


@dataclass(frozen=True, eq=False)
class Samples:
    """n checked rows, as `checked` returns them.

    X : (n, d) a host array, a SciPy sparse matrix, an array of the model's backend, rows on disk.
    t : (n, c) numbers in the user's units, or (n,) int64 class numbers, on the host; or None.
    s : (n,) float64 sample weights on the host; or None. With X on disk t and s may be there too.
    fits : the kind and the number of targets that t was checked for.
    columns : names of the inputs, for messages.
    """

    X: Array
    t: np.ndarray | Part | None = None
    s: np.ndarray | Part | None = None
    fits: tuple[str, int] | None = field(default=None, repr=False)
    columns: tuple[str, ...] | None = field(default=None, repr=False)

    def __repr__(self) -> str:
        """How many rows and columns, and what belongs to them."""
        about = f"{self.n} rows of {self.X.shape[1]} inputs"
        if self.t is not None:
            kind = "class numbers" if self.t.ndim == 1 else f"{self.t.shape[1]} targets"
            about += f" with {kind}" + (" and weights" if self.s is not None else "")
        return f"Samples({about})"

    @property
    def n(self) -> int:
        """How many."""
        return int(self.X.shape[0])

    def own(self) -> "Samples":
        """The same; rows on disk for this reader alone, who asks for them in an order."""
        X, t, s = of_others((self.X, self.t, self.s), RowFile.own)
        return Samples(X, t, s, self.fits)

    def rows(self, index: np.ndarray, backend: Backend) -> "Samples":
        """Those of these numbers, (k,) int64 on the host; X stays where it is."""
        X = self.X
        if isinstance(X, Part):
            raise InputError("rows on disk are held out in blocks: give what open_rows(...) gave")
        if is_sparse(X):
            X = X.tocsr()[index]
        elif isinstance(X, np.ndarray):
            X = X[index]
        else:
            X = backend.xp.take(X, backend.asarray(index), axis=0)
        t, s = (None if x is None else x[index] for x in (self.t, self.s))
        return Samples(X, t, s, self.fits, self.columns)


def checked(
    backend: Backend,
    objective: Objective,
    X: Any,
    t: Any = None,
    sample_weight: Any = None,
    *,
    columns: tuple[str, ...] | None = None,
    classes: np.ndarray | None = None,
    what: str = "",
    group: Group = ALONE,
) -> Samples:
    """The rows of a user as `Samples`, or InputError naming what does not fit, and where.

    X : (n, inputs) numbers of any library; `Samples`; or a `Dataset` or `StoredDataset`, of which
        the columns are chosen by name.
    t : labels of ``classes``, or what else `Objective.check_targets` takes; of a data set its own
        if no other is given.
    sample_weight : (n,), 0 or above.
    columns : names of the inputs.  what : stands before X and t in messages, as "validation ".
    group : processes that call this together, each of which looks through a part of rows on disk.
    Nothing that is on the host is copied, nor sent to the device.
    """
    network, fits = objective.network, objective.asked
    name, of_t, searched = f"{what}X", f"{what}t", False
    if isinstance(X, Samples):
        if t is not None or sample_weight is not None:
            raise InputError(f"{name} holds its targets and weights already; give it alone")
        _check_width(X.X, network.inputs, name)
        check_codes(backend, X.X, network.codes, columns, name, group)
        if X.t is None or X.fits == fits:
            return X
        fitted = _each(X.t, lambda t: objective.check_targets(t, of_t), group)
        return replace(X, t=fitted, fits=fits)
    if isinstance(X, StoredDataset):
        name, of_t = X.source, X.source if t is None else of_t
        t, sample_weight = X.t if t is None else t, X.s if sample_weight is None else sample_weight
        X = X.inputs(columns)
    elif isinstance(X, Dataset):
        name, of_t = X.source, X.source if t is None else of_t
        if t is None and X.t is not None:
            t = targets_for(X.t, objective.targets, classes)
        searched = X.checked
        sample_weight = X.s if sample_weight is None else sample_weight
        X = X.inputs(columns)
    X = check_inputs(backend, X, network.inputs, columns, name, searched)
    check_codes(backend, X, network.codes, columns, name, group)
    n = X.shape[0]

    def fitting(t: Any) -> np.ndarray:
        t = targets_of(t, classes, objective.targets, network.outputs, of_t)
        return objective.check_targets(t, of_t)

    if t is not None:
        t = unmasked(t, of_t)
        t = backend.to_numpy(t) if backend.owns(t) else t
        kind = objective.targets
        if isinstance(t, Part) and kind != "classes" and some(t, are_shares, group):
            classes = None  # numbers, though some pieces of them may look like labels
        t = _each(t, fitting, group)
        if len(t) != n:
            raise InputError(f"{what}X has {n} rows, {what}t has {len(t)}")
    return Samples(X, t, check_sample_weight(sample_weight, n, group), fits, columns)


def constant(t: np.ndarray | Part, group: Group = ALONE) -> bool:
    """Whether all targets are as the first one."""
    if isinstance(t, Part):
        first = t[0]
        return not some(t, lambda rows: bool((rows != first).any()), group)
    return bool((t == t[0]).all())


def _each(t: Any, make: Callable[[Any], np.ndarray], group: Group) -> np.ndarray | Part:
    """What a function makes of the targets. It is tried on all of those on disk: what it refuses
    is refused here, and not in the middle of training."""
    if not isinstance(t, Part):
        return make(t)
    made = t.map(make)
    with group.together():
        for _ in made.pieces(group):
            pass
    return made


def check_sample_weight(s: Any, n: int, group: Group = ALONE) -> np.ndarray | Part | None:
    """Sample weights as (n,) float64 on the host or on disk, or None; InputError if they cannot be
    weights."""
    if s is None:
        return None
    s = s if isinstance(s, Part) else typed(s, "sample_weight")
    if s.dtype.kind not in "biuf":
        raise InputError(f"sample_weight must be numbers, not {s.dtype}")
    if isinstance(s, Part):
        s = s.map(lambda rows: rows.astype(np.float64))
    else:
        s = s.astype(np.float64).reshape(-1)
    if len(s) != n:
        raise InputError(f"X has {n} rows, sample_weight has {len(s)}")

    def bad(rows: np.ndarray) -> bool:
        return not bool(np.isfinite(rows).all() and (rows >= 0).all())

    if isinstance(s, Part):
        fine = not some(s, bad, group) and some(s, lambda rows: bool(rows.any()), group)
    else:
        fine = not bad(s) and bool(s.any())
    if not fine:
        raise InputError("sample_weight must be finite, 0 or above, and not all 0")
    return s


def check_inputs(
    backend: Backend,
    X: Any,
    inputs: int,
    columns: tuple[str, ...] | None = None,
    what: str = "X",
    searched: bool = False,
) -> Any:
    """X as it may be fed: a host array, a sparse matrix, one of the backend's arrays or rows on
    disk, (n, inputs) finite numbers, n > 0. Nothing that is on the host is copied, nor sent to the
    device.

    searched: whether it is known already that all values are finite.
    Raises InputError naming the column and the count of what is not finite.
    """
    X = unmasked(X, what)
    if not backend.owns(X) and not is_sparse(X) and not isinstance(X, Part):
        X = _where_it_is(backend, X, what)
    if X.ndim != 2:
        one = f"; one row is {what}[None, :]" if X.ndim == 1 else ""
        raise InputError(
            f"{what} has shape {tuple(X.shape)}, expected (rows, {inputs} columns){one}"
        )
    if X.shape[0] == 0:
        raise InputError(f"{what} has no rows")
    _check_width(X, inputs, what)
    if isinstance(X, Part):
        return X  # searched where it was opened
    if is_sparse(X):
        if not np.isfinite(X.data).all():
            raise InputError(f"{what}: {int((~np.isfinite(X.data)).sum())} values are not finite")
    elif isinstance(X, np.ndarray):
        if X.dtype == np.bool_:
            X = X.view(np.uint8)
        if X.dtype.kind == "O":
            X = _numbers(X, what)
        if X.dtype.kind not in "iuf":
            raise InputError(f"{what}: inputs must be numbers, not {X.dtype}")
        if not searched:
            check_finite(X, columns, what)
    elif not all_finite(backend, X):
        check_finite(backend.to_numpy(X), columns, what)
    return X


def check_codes(
    backend: Backend,
    X: Any,
    codes: Mapping[int, int],
    columns: tuple[str, ...] | None = None,
    what: str = "X",
    group: Group = ALONE,
) -> None:
    """InputError for the first value of a column of codes that is no whole number from 0 on, below
    as many as the column has. X as `check_inputs` gives it; of a device's, these columns alone
    come to the host.

    >>> from backends import get_backend
    >>> X = np.array([[0.5, 1.0], [0.5, 3.0]])
    >>> check_codes(get_backend("numpy"), X, {1: 3}, ("age", "town"))
    Traceback (most recent call last):
    ...
    mlp.errors.InputError: X: 3.0 in row 1, column 'town' is no index from 0 to 2
    """
    if not codes:
        return
    if not isinstance(X, Part):
        _check_codes(backend, X, 0, codes, columns, what)
        return
    with group.together():
        rows = X.rows_of_a_piece
        for i in group.share(-(-len(X) // rows)):
            piece = X[rows * i : rows * (i + 1)]
            _check_codes(backend, piece, rows * i, codes, columns, what)


def _check_codes(
    backend: Backend,
    rows: Any,
    start: int,
    codes: Mapping[int, int],
    columns: tuple[str, ...] | None,
    what: str,
) -> None:
    """The same of rows that the row ``start`` is the first of."""
    for k, values in codes.items():
        x = rows.tocsc()[:, [k]].toarray() if is_sparse(rows) else rows[:, k]
        x = np.reshape(x if isinstance(x, np.ndarray) else backend.to_numpy(x), -1)
        bad = (x < 0) | (x >= values) | (x != np.floor(x))
        if bad.any():
            row, column = int(bad.argmax()), k if columns is None else repr(columns[k])
            raise InputError(
                f"{what}: {shown(x[row].item())} in row {start + row}, column {column} is no index "
                f"from 0 to {values - 1}"
            )


def _numbers(X: np.ndarray, what: str) -> np.ndarray:
    """The cells of an array of objects (n, d) as float64, a gap as NaN; as frames give them that
    have columns of several kinds, or such as may have gaps."""
    kinds = set(map(type, X.flat))
    number = {kind: issubclass(kind, (Real, Decimal, np.bool_)) for kind in kinds}
    if not all(number.values()):
        X = X.copy()
        for at, cell in np.ndenumerate(X):
            if not number[type(cell)]:
                if not is_gap(cell):
                    row, k = at
                    raise InputError(
                        f"{what}: inputs must be numbers, not {shown(cell)} in row {row}, column "
                        f"{k}"
                    )
                X[at] = np.nan
    try:
        return X.astype(np.float64)
    except OverflowError as error:
        raise InputError(f"{what}: a whole number is beyond the range of float64") from error


def _check_width(X: Array, inputs: int, what: str) -> None:
    if X.shape[1] != inputs:
        raise InputError(f"layer 1 expects {inputs} inputs, {what} has {X.shape[1]} columns")


HOST = 1  # DLPack's number for it


def _where_it_is(backend: Backend, X: Any, what: str) -> Array:
    """X for NumPy if it is on the host, else for the backend; without a copy where one can do."""
    if not hasattr(X, "__dlpack_device__") or int(X.__dlpack_device__()[0]) == HOST:
        with suppress(RuntimeError):  # array-api-strict's devices only say that they are the host
            return as_array(X, what)
    return backend.asarray(X)


def checksum(*arrays: Array | Part | None) -> str:
    """Of rows on the host, sparse or on disk: dtypes, shapes and values.

    >>> checksum(np.ones((2, 2))) == checksum(np.ones((2, 2))[:, ::-1]) != checksum(np.ones(4))
    True
    """
    digest = blake2b(digest_size=32)
    for x in arrays:
        if x is None:
            continue
        x = x.tocsr() if is_sparse(x) else x
        parts: Any = (x.data, x.indices, x.indptr) if is_sparse(x) else (x,)
        digest.update(f"{x.shape} {x.dtype} ".encode())
        for part in parts:
            for piece in part.pieces() if isinstance(part, Part) else _pieces(np.asarray(part)):
                digest.update(np.ascontiguousarray(piece).data)
    return digest.hexdigest()


def _pieces(x: np.ndarray) -> list[np.ndarray]:
    """Some rows at a time, so that a copy of what does not lie in one piece is small."""
    rows = max(1, (1 << 24) // max(1, x[:1].nbytes))
    return [x[start : start + rows] for start in range(0, len(x), rows)]


def is_sparse(X: Any) -> TypeGuard[Any]:
    """Whether X is a SciPy sparse matrix or array."""
    return not isinstance(X, np.ndarray) and hasattr(X, "tocsr")
