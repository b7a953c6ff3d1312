"""What the two estimators for tables share: columns in, members, time, answers about columns."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np
from joblib import cpu_count, effective_n_jobs
from joblib.parallel import get_active_backend
from sklearn.utils import _safe_indexing, check_random_state, column_or_1d
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import (
    _check_sample_weight,
    _num_samples,
    check_consistent_length,
    check_is_fitted,
    validate_data,
)

from backends import Backend, choose
from mlp.data.frames import is_frame
from mlp.data.preprocessing import Preprocessing, as_table
from mlp.durations import seconds_of
from mlp.errors import InputError, check_whole, shown
from mlp.estimators.arrays import to_host
from mlp.estimators.checks import SayableSettings, sayable
from mlp.formulas.activations import ACTIVATIONS
from mlp.formulas.metrics import METRICS, Metric, get_metric
from mlp.layers import PiecewiseLinear
from mlp.model import Model
from mlp.tabular.columns import attributions, importances, of_table, placed, places
from mlp.tabular.folds import folds
from mlp.tabular.members import TRAINING, Member, Rows, Team
from mlp.tabular.recipe import Recipe, Task
from mlp.threads import limited

COUNT = Interval(Integral, 1, None, closed="left")
OF_RECIPE = (
    *("activation", "learning_rate", "batch_size", "epochs"),
    *("dropout", "weight_decay", "embedding", "bins"),
)


MOST_POINTS = 10_000  # of a path, each of which takes a pass over all rows


class BaseTabular(SayableSettings):
    """What classifier and regressor share."""

    _task: ClassVar[Task]
    _parameter_constraints: ClassVar[dict[str, Any]] = {
        "metric": [str, dict],
        "n_members": [COUNT],
        "time_limit": [None, str, Interval(Real, 0, None, closed="neither")],
        "hidden_layer_sizes": ["array-like", COUNT],
        "activation": [None, StrOptions({*ACTIVATIONS}), dict],
        "learning_rate": [None, Interval(Real, 0, None, closed="neither")],
        "batch_size": [None, COUNT],
        "epochs": [None, COUNT],
        "dropout": [Interval(Real, 0, 1, closed="left")],
        "weight_decay": [Interval(Real, 0, None, closed="left")],
        "embedding": [Interval(Integral, 0, None, closed="left")],
        "bins": [None, Interval(Integral, 2, None, closed="left")],
        "columns": [None, Mapping],
        "backend": [None, str, Backend],
        "n_jobs": [None, Integral],
        "random_state": ["random_state"],
        "verbose": ["verbose"],
    }

    n_features_in_: int

    # ------------------------------------------------------------------ fitting

    def _fit(self, X: Any, t: np.ndarray, weights: np.ndarray | None, groups: Any) -> None:
        """Members that learn t (n,), class numbers or numbers, from checked rows, of which those of
        weight 0 are as good as not there."""
        limit = None if self.time_limit is None else seconds_of(self.time_limit)
        deadline = None if limit is None else self._begun + TRAINING * limit
        metric = self._metric()
        seed = int(check_random_state(self.random_state).randint(2**31 - 1000))
        if groups is not None:
            groups = column_or_1d(to_host(groups))
            check_consistent_length(t, groups)
        if weights is not None and not weights.all():
            there = np.flatnonzero(weights)
            if len(there) < 2:
                raise InputError(
                    f"sample_weight: {len(there)} rows of a weight above 0; 2 are needed"
                )
            X, t, weights = _safe_indexing(X, there), t[there], weights[there]
            groups = None if groups is None else groups[there]
        table = as_table(X)
        self.preprocessing_ = Preprocessing.fit(table, self.columns, scaling="robust")
        coded = self.preprocessing_.apply(table).astype(np.float32)
        rows = Rows(coded, t, weights, folds(t, self.n_members, seed, groups))
        members = min(self.n_members, int(rows.fold.max()) + 1)
        watch, self._by = self._watched(rows, members, metric)
        self._inputs = coded.shape[1]
        left_out = [c for c in self.preprocessing_.codes if c.kind == "leave out"]
        notes = [  # the table's are on what no kind of column can hold
            *table.notes,
            *(
                f"column {code.name!r} is left out: {code.why}; `columns` can keep it"
                for code in left_out
                if code.why != "as asked"
            ),
        ]
        if notes:
            warnings.warn(f"fit: {'; '.join(notes)}", stacklevel=4)
        self._say(f"{self.preprocessing_.summary()}; {len(t)} rows")
        recipe, placing = self._recipe().of(self._task, len(t)), places(coded)
        curves = recipe.curves(coded, self.preprocessing_.of_numbers)

        def untrained(choice: str, recipe: Recipe, m: int, seed: int, t: np.ndarray) -> Model:
            return placed(self._model(choice, recipe, seed, t, curves if m % 2 else None), *placing)

        team = Team(
            rows,
            recipe,
            {choice: partial(untrained, choice) for choice in self._choices(t)},
            watch,
            seed,
            deadline,
            self._workers(),
            self._say,
        )
        found = team.train(team.in_time(members))
        self.recipe_, self.tried_, self.stopped_ = team.recipe, team.tried, team.stopped
        if team.stopped:
            warnings.warn(
                f"fit: {team.stopped}; it has {len(found)} of {members} members",
                stacklevel=4,
            )
        if diverged := sum(member.diverged for member in found):
            warnings.warn(
                f"fit: {diverged} of {len(found)} members diverged, and are as they were before; a "
                "lower learning_rate may help",
                stacklevel=4,
            )
        self._scores = self._judged(found, rows, metric)
        self.members_ = self._calibrated(found, rows)
        names = getattr(self, "feature_names_in_", getattr(X, "columns", None))
        self._columns = of_table(self.preprocessing_, names)
        self._x0 = np.median(coded, axis=0)
        with limited(1):  # small products
            self.feature_importances_ = importances(
                self.members_, rows, [*self._columns.values()], self._by, seed
            )

    def _calibrated(self, members: list[Member], rows: Rows) -> list[Member]:
        """The members as they are kept."""
        raise NotImplementedError

    def _choices(self, t: np.ndarray) -> tuple[str, ...]:
        """What is tried on the first member, the best of which the others are made by."""
        return ("",)

    def _model(
        self,
        choice: str,
        recipe: Recipe,
        seed: int,
        t: np.ndarray,
        curves: PiecewiseLinear | None,
    ) -> Model:
        """An untrained model for targets t."""
        raise NotImplementedError

    def _recipe(self) -> Recipe:
        sizes = self.hidden_layer_sizes
        sizes = tuple(np.ravel(sizes)) if isinstance(sizes, np.ndarray) else sizes
        sizes = tuple(sizes) if hasattr(sizes, "__iter__") else (sizes,)
        if not sizes or any(not isinstance(n, Integral) or n < 1 for n in sizes):
            raise InputError(
                f"hidden_layer_sizes must be whole numbers from 1 on, not {shown(sizes)}"
            )
        if self.bins is not None and not self.embedding:
            raise InputError(
                "bins are of the curves that embedding = 0 leaves out; give one of them"
            )
        given = {name: getattr(self, name) for name in OF_RECIPE}
        return Recipe(hidden_layer_sizes=tuple(map(int, sizes)), **given)

    def _metric(self) -> Metric:
        """The metric that members are judged by. InputError for one of other targets."""
        found = get_metric(self.metric)
        if self._task not in found.targets:
            known = [name for name, m in METRICS.items() if self._task in m.targets]
            raise InputError(
                f"metric {shown(self.metric)} is for {' and '.join(found.targets)}, "
                f"{type(self).__name__} predicts {self._task}: {', '.join(known)}"
            )
        return found

    def _watched(self, rows: Rows, members: int, metric: Metric) -> tuple[Any, Metric]:
        """What the members are judged by, and its metric."""
        return self.metric, metric

    def _workers(self) -> int:
        """How many members learn at once."""
        if choose(self.backend).name != "numpy":
            return 1
        if self.n_jobs is None:
            within = get_active_backend()[0].nesting_level
            return 1 if within else min(cpu_count(), self.n_members)
        if self.n_jobs == 0:
            raise InputError("n_jobs must be a number of threads, or -1 for all cores, not 0")
        return int(min(effective_n_jobs(self.n_jobs), self.n_members))

    def _say(self, text: str) -> None:
        if self.verbose:
            print(text, flush=True)

    # ------------------------------------------------------------------ rows

    def _checked(self, X: Any, fitting: bool) -> Any:
        """X as `Preprocessing` takes it, with the columns that were fitted."""
        if is_frame(X):
            if not hasattr(X, "shape"):
                raise InputError(
                    f"X is a {type(X).__name__}; give a data frame in memory, or an array "
                    "(n, columns)"
                )
            validate_data(self, X, skip_check_array=True, reset=fitting)
            if _num_samples(X) < 1 + fitting:
                raise InputError(
                    f"X has {_num_samples(X)} sample(s); a minimum of {1 + fitting} is required"
                )
            return X
        with sayable("X"):
            X = validate_data(
                self,
                to_host(X),
                dtype=None,
                ensure_all_finite="allow-nan",
                ensure_min_samples=1 + fitting,
                reset=fitting,
            )
        return np.ma.masked_array(X, np.isnan(X)) if X.dtype.kind == "f" else X

    def _weights(self, X: Any, sample_weight: Any) -> np.ndarray | None:
        if sample_weight is None:
            return None
        rows = np.empty((_num_samples(X), 0))
        with sayable("sample_weight"):
            found = _check_sample_weight(
                to_host(sample_weight), rows, dtype=np.float64, ensure_non_negative=True
            )
        return np.asarray(found)

    def _coded(self, X: Any) -> np.ndarray:
        """New rows as the members take them, (n, d) float32."""
        check_is_fitted(self)
        X = self._checked(X, fitting=False)
        return self.preprocessing_.apply(X).astype(np.float32)

    def _of_members(self, X: Any) -> list[np.ndarray]:
        """Each member's prediction, (n, outputs)."""
        coded = self._coded(X)
        return [member.model.predict(coded) for member in self.members_]

    # ------------------------------------------------------------------ answers about columns

    def explain(self, X: Any, points: int = 32) -> np.ndarray:
        """What each column has to do with each prediction, in the prediction's units.

        (n, columns) of numbers, (n, columns, classes) of probabilities: integrated gradients from
        the row of all medians to this one, `mlp.tabular.columns` eq. (2), by so many points. Their
        sum over the columns is the prediction less that of the medians, up to the integral's error.
        """
        check_whole("explain: points", points, 1)
        if points > MOST_POINTS:
            raise InputError(f"explain: points must be at most {MOST_POINTS}, not {points}")
        coded, columns = self._coded(X), [*self._columns.values()]
        found = [attributions(m.model, coded, self._x0, columns, points) for m in self.members_]
        answer = np.mean(found, axis=0)
        return answer if self._task == "classes" else answer[:, :, 0]

    def report(self) -> str:
        """What came of `fit`, to be read: columns, recipe, scores on held-out rows with their
        spread over members, and the columns that count most."""
        check_is_fitted(self)
        names, order = [*self._columns], np.argsort(-self.feature_importances_)
        most = [f"{names[k]} {self.feature_importances_[k]:.3g}" for k in order[:10]]
        recipe = ", ".join(f"{name}={value}" for name, value in asdict(self.recipe_).items())
        epochs = [member.best + 1 for member in self.members_]
        lines = [
            f"{type(self).__name__}: {len(self.members_)} members"
            + (f" ({self.stopped_})" if self.stopped_ else ""),
            f"columns     {self.preprocessing_.summary()}",
            f"recipe      {recipe}",
            f"best epochs {min(epochs)} to {max(epochs)}",
            *(f"{name:<11} {text}" for name, text in self._about().items()),
            *(
                f"{name:<11} {np.mean(x):.4g} ± {np.std(x):.2g} on held-out rows"
                for name, x in self._scores.items()
                if np.isfinite(x).all()
            ),
            f"importances of the columns, by {self._by.name}: {', '.join(most)}",
        ]
        return "\n".join(lines)

    def _about(self) -> dict[str, str]:
        """What else the report says."""
        return {}

    def _judged(
        self, members: Sequence[Member], rows: Rows, metric: Metric
    ) -> dict[str, list[float]]:
        """{metric: of each member on the rows held out from it}."""
        metrics = {m.name: m for m in (*(METRICS[name] for name in self._reported), metric)}
        found: dict[str, list[float]] = {name: [] for name in metrics}
        for member in members:
            t, s = rows.judged(member.held_out)
            for name, measure in metrics.items():
                found[name].append(float(measure(member.outputs, t, s)))
        return found

    _reported: ClassVar[tuple[str, ...]]

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = tags.input_tags.categorical = tags.input_tags.string = True
        return tags
