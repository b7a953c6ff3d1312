"""What the columns of a table have to do with a net: where it begins, and what it makes of them.

Initial weights are drawn for places; which column has which place follows from the values in it,
and so does its sign (`places`). Then the order of the columns, their names, the unit of a number
and what categories are called change nothing.

    importance of column j = error with the values of j shuffled - error                 (1)

over rows that were held out (L. Breiman, "Random forests", Machine Learning 45 (2001), section 10).
The attribution of f(x), a number or the probability of a class, to column j is

    A_j(x) = (x_j - x0_j) ∫_0^1 ∂f/∂x_j (x0 + τ (x - x0)) dτ                              (2)

with the median of each column as x0, by the midpoint rule; Σ_j A_j = f(x) - f(x0) (M. Sundararajan,
A. Taly, Q. Yan, "Axiomatic attribution for deep networks", ICML 2017, eq. 1 and proposition 1). A
column of the table has the sum over the columns that it becomes.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from mlp.data.preprocessing import Preprocessing
from mlp.formulas.metrics import Metric
from mlp.layers import PiecewiseLinear, Scale
from mlp.model import Model
from mlp.network.graph import Network
from mlp.tabular.members import Member, Rows

LOOKED_AT = 1000  # rows by which columns are told apart
MOST_ROWS = 2000  # held-out rows of all members that importances are found by, fewer where there
MOST_PREDICTED = 400_000  # are many columns: so many rows in all, but no fewer than
LEAST_ROWS = 200
AT_ONCE = 1 << 14  # rows that are predicted together


def places(X: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The place of each column, (d,), and its sign, (d,), by its values: coded and scaled X (n, d).

    >>> X = np.array([[0.5, -1.0, 0.5], [2.0, 0.0, -3.0]])
    >>> places(X)[0].tolist(), places(-X[:, ::-1])[0].tolist()
    ([1, 2, 0], [0, 2, 1])
    """
    X = np.round(np.asarray(X[:LOOKED_AT], np.float64), 6)
    first = X[(X != 0).argmax(axis=0), np.arange(X.shape[1])]
    sign = np.where(first < 0, -1.0, 1.0)
    place = np.empty(X.shape[1], np.int64)
    place[np.lexsort((X * sign)[::-1])] = np.arange(X.shape[1])
    return place, sign


def placed(model: Model, place: np.ndarray, sign: np.ndarray) -> Model:
    """An untrained model whose initial weights, drawn for columns in the order of their places, are
    those of its columns; of `mlp.tabular.recipe.Recipe.network`."""
    w = model.backend.to_numpy(model.w).copy()
    views, curves = model.network.views(w), model.network.layer(1)
    if not isinstance(curves, PiecewiseLinear):
        first = views["W"][1, 2]
        first[:] = first[place] * sign[:, None]
    else:
        embedded = np.array(curves.columns)
        T = views["T"][1]
        T[:] = T[np.argsort(np.argsort(place[embedded]))]
        others = np.setdiff1d(np.arange(len(place)), embedded)
        column = np.concatenate([others, np.repeat(embedded, curves.size)])  # of each row of W
        drawn = np.empty(len(column), np.int64)
        drawn[np.argsort(place[column], kind="stable")] = np.arange(len(column))
        sign = np.where(np.isin(column, embedded), 1.0, sign[column])
        first = views["W"][2, 3]
        first[:] = first[drawn] * sign[:, None]
    model.w = w
    return model


def of_table(found: Preprocessing, names: Iterable[Any] | None = None) -> dict[str, slice]:
    """Which of the coded columns each column of the table has become; one left out has none.

    names: of all columns in their order, where there are some that no kind of column can hold.
    """
    answer, start = {}, 0
    for code in found.codes:
        answer[code.name] = slice(start, start + len(code.names))
        start += len(code.names)
    if names is None:
        return answer
    return {str(name): answer.get(str(name), slice(0, 0)) for name in names}


def importances(
    members: Sequence[Member],
    rows: Rows,
    columns: Sequence[slice],
    metric: Metric,
    seed: int,
) -> np.ndarray:
    """(1) for each of the columns, (len(columns),), the mean over members by their rows."""
    rng, sign = np.random.default_rng(seed), -1.0 if metric.greater_is_better else 1.0
    found, total = np.zeros(len(columns)), 0
    of_all = min(MOST_ROWS, max(LEAST_ROWS, MOST_PREDICTED // len(columns)))
    for member in members:
        chosen = member.held_out
        most = max(2, of_all // len(members))
        chosen = chosen if len(chosen) <= most else np.sort(rng.choice(chosen, most, replace=False))
        X, (t, s) = rows.X[chosen], rows.judged(chosen)
        before = metric(member.model.predict(X), t, s)
        if not np.isfinite(before):  # of too few rows
            continue
        for k, column in enumerate(columns):
            if column.start == column.stop:
                continue
            other = X.copy()
            other[:, column] = X[rng.permutation(len(X)), column]
            change = sign * (metric(member.model.predict(other), t, s) - before)
            found[k] += len(chosen) * (change if np.isfinite(change) else 0.0)
        total += len(chosen)
    return found / max(total, 1)


def attributions(
    model: Model, X: np.ndarray, x0: np.ndarray, columns: Sequence[slice], points: int
) -> np.ndarray:
    """(2) of each row of X (n, d) for each output, (n, len(columns), outputs), by so many points.

    model: of inputs as X. A first layer of factors 1 is put before its own, so that ∂f/∂x = δ_1; of
    classes δ is that of -log p_k, and ∂p_k/∂x = p_k ∂log p_k/∂x.
    """
    of_classes, outputs = model.objective.targets == "classes", model.network.outputs
    network = Network(model.network.inputs, [Scale(), *model.network.layers])
    w, own = np.ones(network.parameters), model.network.views(model.backend.to_numpy(model.w))
    for name, views in network.views(w).items():
        for key, view in views.items():
            before = key - 1 if isinstance(key, int) else (key[0] - 1, key[1] - 1)
            if before in own[name]:
                view[:] = own[name][before]
    plain = Model(
        network,
        "cross_entropy" if of_classes else "half_squared_error",
        reduction="sum",
        w=w,
        backend=model.backend,
        dtype=model.dtype,
    )
    steps = (np.arange(points) + 0.5) / points
    found = np.empty((len(X), len(columns), outputs))
    for start in range(0, len(X), max(1, AT_ONCE // points)):
        rows = X[start : start + max(1, AT_ONCE // points)]
        on_path = x0 + steps[:, None, None] * (rows - x0)
        on_path = on_path.reshape(-1, X.shape[1]).astype(X.dtype)
        y = plain.predict(on_path).astype(np.float64)
        for k in range(outputs):
            t = np.full(len(on_path), k) if of_classes else y - 1.0  # E has the slope 1
            slopes = plain.trace(on_path, t).delta[1].astype(np.float64)
            slopes *= -y[:, [k]] if of_classes else _slope(model, y)
            mean = slopes.reshape(points, len(rows), -1).mean(axis=0) * (rows - x0)
            for j, column in enumerate(columns):
                found[start : start + len(rows), j, k] = mean[:, column].sum(axis=1)
    return found


def _slope(model: Model, y: np.ndarray) -> np.ndarray:
    """d(prediction in the user's units) / d(output), (n, 1), at outputs y (n, 1)."""
    scaling = model.target_scaling
    assert scaling is not None  # numbers are always scaled here
    if scaling.logs is None or not scaling.logs[0]:
        return np.full((len(y), 1), scaling.scale[0])
    return scaling.scale * (1.0 + np.abs(scaling.invert(y)))
