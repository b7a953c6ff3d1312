"""Tables: the error of estimators as they come, and what they cost.

    python -m benchmarks tabular --tables DIR [--rows 10000 2000] [--repeats 3]
        [--without members embeddings dropout decay]

DIR holds CSV files and manifest.json, a list of {name, file, target, task: "classification" or
"regression", categorical: [columns]}; without it scikit-learn's own small tables are taken. Of each
table so many rows at most are drawn, 80 % of them to fit and 20 % to test, once a seed, the same
for all contenders. Each fits in a fresh process with one thread of BLAS and OpenMP; its seconds are
CPU time.

Everybody gets a frame in which categories are of that dtype and gaps are gaps, and what it needs
and does not do itself is done for it as its documentation advises: for scikit-learn's MLP one-hot
columns, medians for gaps, standard scaling, of a target too. No setting is tuned.

    nRMSE      root mean squared error over the standard deviation of the test rows' target
    error      share of wrong classes;  log-loss; AUC (one against the rest)

Printed: geometric means over tables of the ratio to scikit-learn's MLP, of medians over seeds; the
mean rank by nRMSE and log-loss; CPU seconds. --without: this library's estimators for tables again,
each time without one part.
"""

import json
import os
import statistics
import time
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np

from benchmarks.report import Options
from benchmarks.report import Table as Printed
from benchmarks.worker import Absent, once

BASE, OURS = "scikit-learn MLP", "array-mlp Tabular"
# Of the estimators for tables, what --without leaves out, and the setting that does.
PARTS: dict[str, dict[str, Any]] = {
    "members": {"n_members": 1},
    "embeddings": {"embedding": 0},
    "dropout": {"dropout": 0.0},
    "decay": {"weight_decay": 0.0},
}
MEASURES = {"regression": ("nRMSE",), "classification": ("error", "log-loss", "AUC")}
RANKED = {"regression": "nRMSE", "classification": "log-loss"}
THREADS = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")


# ---------------------------------------------------------------------------- tables


@cache
def tables(folder: str | None) -> dict[str, dict[str, Any]]:
    """{name: its entry of the manifest}."""
    if folder is None:
        kinds = {"diabetes": "regression", "wine": "classification"}
        kinds["breast_cancer"] = "classification"
        return {name: {"name": name, "task": task} for name, task in kinds.items()}
    entries = json.loads((Path(folder) / "manifest.json").read_text(encoding="utf-8"))
    return {entry["name"]: entry for entry in entries}


def frame(folder: str | None, name: str) -> tuple[Any, np.ndarray]:
    """The columns as a data frame, and the target: numbers, or class numbers."""
    import pandas as pd

    entry = tables(folder)[name]
    if folder is None:
        from sklearn import datasets

        return getattr(datasets, f"load_{name}")(return_X_y=True, as_frame=True)
    X = pd.read_csv(Path(folder) / entry["file"])
    y = X.pop(entry["target"])
    for column in entry["categorical"]:
        cells = X[column]
        X[column] = pd.Categorical(cells.map(str).astype(object).where(cells.notna(), np.nan))
    if entry["task"] == "classification":
        return X, pd.factorize(y, sort=True)[0]
    return X, y.to_numpy(np.float64)


def parts(folder: str | None, name: str, rows: int, seed: int) -> tuple[Any, Any, Any, Any]:
    """X, y to fit and to test: ``rows`` drawn rows at most, 80 and 20 %."""
    from sklearn.model_selection import train_test_split

    X, y = frame(folder, name)
    stratify = y if tables(folder)[name]["task"] == "classification" else None
    if len(y) > rows:
        X, _, y, _ = train_test_split(X, y, train_size=rows, random_state=seed, stratify=stratify)
        stratify = y if stratify is not None else None
    X, X_test, y, y_test = train_test_split(
        X, y, test_size=0.2, random_state=seed, stratify=stratify
    )
    return X.reset_index(drop=True), np.asarray(y), X_test.reset_index(drop=True), y_test


# ---------------------------------------------------------------------------- contenders


def tabular(task: str, seed: int, backend: str, **settings: Any) -> Any:
    """This library's estimators for tables, as they come or with these settings."""
    import mlp

    made = mlp.TabularRegressor if task == "regression" else mlp.TabularClassifier
    return made(random_state=seed, backend=backend, n_jobs=1, **settings)


def drop_in(task: str, seed: int, backend: str) -> Any:
    """This library's estimators with scikit-learn's defaults."""
    import mlp

    estimator = mlp.MLPRegressor if task == "regression" else mlp.MLPClassifier
    return _scaled(task, estimator(random_state=seed, backend=backend))


def sklearn_mlp(task: str, seed: int, backend: str) -> Any:
    from sklearn.neural_network import MLPClassifier, MLPRegressor

    estimator = MLPRegressor if task == "regression" else MLPClassifier
    return _scaled(task, estimator(random_state=seed))


def _scaled(task: str, estimator: Any) -> Any:
    """One-hot categories, medians in gaps, standard scaling of the inputs and of a target."""
    from sklearn.compose import ColumnTransformer, TransformedTargetRegressor, make_column_selector
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    of_numbers = make_pipeline(SimpleImputer(strategy="median", add_indicator=True))
    of_categories = OneHotEncoder(handle_unknown="ignore", sparse_output=False, drop="if_binary")
    columns = ColumnTransformer(
        [
            ("numbers", of_numbers, make_column_selector(dtype_exclude="category")),
            ("categories", of_categories, make_column_selector(dtype_include="category")),
        ]
    )
    pipeline = make_pipeline(columns, StandardScaler(), estimator)
    if task == "classification":
        return pipeline
    return TransformedTargetRegressor(pipeline, transformer=StandardScaler())


def hist_gradient_boosting(task: str, seed: int, backend: str) -> Any:
    from sklearn.ensemble import HistGradientBoostingClassifier as Classifier
    from sklearn.ensemble import HistGradientBoostingRegressor as Regressor

    made = Regressor if task == "regression" else Classifier
    return made(random_state=seed, categorical_features="from_dtype")


def lightgbm(task: str, seed: int, backend: str) -> Any:
    import lightgbm

    made = lightgbm.LGBMRegressor if task == "regression" else lightgbm.LGBMClassifier
    return made(random_state=seed, n_jobs=1, verbose=-1)


def xgboost(task: str, seed: int, backend: str) -> Any:
    import xgboost

    made = xgboost.XGBRegressor if task == "regression" else xgboost.XGBClassifier
    return made(random_state=seed, n_jobs=1, enable_categorical=True)


class CatBoost:
    """CatBoost, told which columns are categories, whose gaps are a value."""

    def __init__(self, task: str, seed: int, backend: str):
        import catboost

        made = catboost.CatBoostRegressor
        made = made if task == "regression" else catboost.CatBoostClassifier
        self.made = partial(
            made, random_seed=seed, thread_count=1, verbose=False, allow_writing_files=False
        )

    def fit(self, X: Any, y: np.ndarray) -> "CatBoost":
        categories = list(X.select_dtypes("category"))
        self.model = self.made(cat_features=categories).fit(self._texts(X), y)
        return self

    def predict(self, X: Any) -> np.ndarray:
        return self.model.predict(self._texts(X))

    def predict_proba(self, X: Any) -> np.ndarray:
        return self.model.predict_proba(self._texts(X))

    @staticmethod
    def _texts(X: Any) -> Any:
        names = list(X.select_dtypes("category"))
        return X.assign(**{name: X[name].astype(object).fillna("missing") for name in names})


class RealMLP:
    """pytabkit's RealMLP; numbers that are missing, which it refuses, as its wrapper in TabArena
    treats them: the mean, and a category that says so."""

    def __init__(self, name: str, task: str, seed: int, backend: str):
        import pytabkit

        kind = "Regressor" if task == "regression" else "Classifier"
        self.model = getattr(pytabkit, f"{name}_{kind}")(
            random_state=seed, n_threads=1, device="cpu", verbosity=0
        )

    def fit(self, X: Any, y: np.ndarray) -> "RealMLP":
        numbers = X.select_dtypes("number")
        self.means = numbers.mean()
        self.gaps = list(numbers.columns[numbers.isna().any()])
        self.model.fit(self._filled(X), y)
        return self

    def predict(self, X: Any) -> np.ndarray:
        return np.ravel(self.model.predict(self._filled(X)))

    def predict_proba(self, X: Any) -> np.ndarray:
        return self.model.predict_proba(self._filled(X))

    def _filled(self, X: Any) -> Any:
        words = {True: "missing", False: "there"}
        marks = {
            f"{name} is missing": X[name].isna().map(words).astype("category") for name in self.gaps
        }
        return X.fillna(self.means).assign(**marks)


FITS: dict[str, Callable[..., Any]] = {
    OURS: tabular,
    f"{OURS}, 1 member": partial(tabular, n_members=1),
    "array-mlp": drop_in,
    BASE: sklearn_mlp,
    "HistGradientBoosting": hist_gradient_boosting,
    "LightGBM": lightgbm,
    "XGBoost": xgboost,
    "CatBoost": CatBoost,
    "RealMLP-TD-S": partial(RealMLP, "RealMLP_TD_S"),
    "RealMLP-TD": partial(RealMLP, "RealMLP_TD"),
}


# The estimators for tables without a part.
ABLATIONS = {f"{OURS} without {part}": partial(tabular, **how) for part, how in PARTS.items()}


def measure(
    contender: str,
    folder: str | None,
    name: str,
    rows: int,
    seed: int,
    backend: str,
) -> dict[str, float]:
    """Fit, predict, and what came of it."""
    import warnings

    warnings.simplefilter("ignore")  # scikit-learn's MLP says at every table that it could go on
    task = tables(folder)[name]["task"]
    X, y, X_test, y_test = parts(folder, name, rows, seed)
    estimator = (FITS | ABLATIONS)[contender](task=task, seed=seed, backend=backend)
    start = time.process_time()
    estimator.fit(X, y)
    fitted = time.process_time()
    answers = estimator.predict if task == "regression" else estimator.predict_proba
    y_found = np.asarray(answers(X_test), np.float64)
    seconds = {"fit": fitted - start, "predict": time.process_time() - fitted}
    return {**seconds, **scores(task, y_test, y_found)}


def scores(task: str, y: np.ndarray, found: np.ndarray) -> dict[str, float]:
    """The measures of a task, by scikit-learn."""
    from sklearn.metrics import log_loss, roc_auc_score

    if task == "regression":
        return {"nRMSE": float(np.sqrt(np.mean((found - y) ** 2)) / np.std(y))}
    found = found / found.sum(axis=1, keepdims=True)
    classes = np.arange(found.shape[1])
    of_one = found[:, 1] if len(classes) == 2 else found
    return {
        "error": float(np.mean(found.argmax(axis=1) != y)),
        "log-loss": float(log_loss(y, found, labels=classes)),
        "AUC": float(roc_auc_score(y, of_one, multi_class="ovr", labels=classes)),
    }


CONTENDERS = {name: partial(measure, name) for name in FITS | ABLATIONS}  # of benchmarks.worker


# ---------------------------------------------------------------------------- the benchmark


def run(options: Options) -> dict[str, Any]:
    """All contenders on all tables; one that is not installed is left out aloud."""
    with patch.dict(os.environ, dict.fromkeys(THREADS, "1")):  # of the contenders' processes
        return compared(options)


def compared(options: Options) -> dict[str, Any]:
    """The results by numbers of rows, each printed when it is there."""
    folder = str(options.tables) if options.tables else None
    sizes = (120,) if options.quick else options.rows
    seeds = range(1 if options.quick else options.repeats)
    entries = tables(folder)
    if options.quick:
        entries = dict(list(entries.items())[:2])
    without = [f"{OURS} without {part}" for part in options.without]
    chosen = [*options.chosen(list(FITS), needed=[BASE, *([OURS] if without else [])]), *without]
    results: dict[str, Any] = {}
    for rows in sizes:
        found: dict[str, dict[str, list[dict[str, float]]]] = {}
        left_out: set[str] = set()
        for name in entries:
            for seed in seeds:
                for contender in chosen:
                    if contender in left_out:
                        continue
                    arguments = {"folder": folder, "name": name, "rows": rows, "seed": seed}
                    arguments |= {"backend": options.backend}

                    try:
                        figures = once("benchmarks.tabular", contender, arguments)
                    except Absent as reason:
                        if contender == BASE:
                            raise
                        print(f"  {contender} is left out: {reason}", flush=True)
                        left_out.add(contender)
                        found.pop(contender, None)
                        continue
                    found.setdefault(contender, {}).setdefault(name, []).append(figures)
        print(f"\nat most {rows} rows, {len(entries)} tables, {len(seeds)} seeds")
        results[str(rows)] = {"of tables": found, "in all": summarised(found, entries)}
        print(printed(results[str(rows)]["in all"]))
    return results


def summarised(
    found: dict[str, dict[str, list[dict[str, float]]]], entries: dict[str, dict[str, Any]]
) -> dict[str, dict[str, float]]:
    """{contender: {measure: geometric mean of its ratio to the base's, ...}}."""

    def median(contender: str, name: str, what: str) -> float:
        return statistics.median(figures[what] for figures in found[contender][name])

    answer: dict[str, dict[str, float]] = {}
    for contender in found:
        row = answer[contender] = {}
        for task, measures in MEASURES.items():
            of_task = [name for name, entry in entries.items() if entry["task"] == task]
            for what in measures if of_task else ():
                missing = what == "AUC"  # of it what is missing to 1
                ratios = []
                for name in of_task:
                    a, b = (median(c, name, what) for c in (contender, BASE))
                    a, b = (1 - a, 1 - b) if missing else (a, b)
                    ratios.append(max(a, 1e-4) / max(b, 1e-4))
                row["1 - AUC" if missing else what] = statistics.geometric_mean(ratios)
        for what in ("fit", "predict"):
            row[what] = statistics.fmean(median(contender, name, what) for name in entries)
    for name, entry in entries.items():
        measured = {c: median(c, name, RANKED[entry["task"]]) for c in found}
        for contender, value in measured.items():
            below = sum(other < value for other in measured.values())
            level = sum(other == value for other in measured.values())
            rank = below + (level + 1) / 2
            row = answer[contender]
            row["rank"] = row.get("rank", 0.0) + rank / len(entries)
    return answer


def printed(of_all: dict[str, dict[str, float]]) -> Printed:
    """The table, the best rank first."""
    names = sorted(of_all, key=lambda contender: of_all[contender]["rank"])
    columns = list(of_all[names[0]])
    digits = {"fit": 2, "predict": 3, "rank": 1}
    headers = ["", *(f"{c} (CPU s)" if c in ("fit", "predict") else c for c in columns)]
    rows = [[name, *(f"{of_all[name][c]:.{digits.get(c, 3)}f}" for c in columns)] for name in names]
    return Printed(headers, rows)


def draw(result: dict[str, Any], figure: Any) -> None:
    """Error over CPU time, relative to scikit-learn's MLP."""
    of_sizes = result["results"]
    measures = [
        m for m in ("nRMSE", "log-loss") if m in next(iter(of_sizes.values()))["in all"][BASE]
    ]
    axes = figure.subplots(len(of_sizes), len(measures), squeeze=False)
    for row, (rows, found) in zip(axes, of_sizes.items(), strict=True):
        for axis, what in zip(row, measures, strict=True):
            order = sorted(found["in all"].items(), key=lambda item: item[1][what])
            for k, (contender, values) in enumerate(order):
                place = values["fit"], values[what]
                colour = "#d1495b" if contender.startswith("array-mlp") else "#6c757d"
                axis.plot(*place, "o", color=colour)
                apart = (5, 3 if k % 2 else -7)  # neighbours above and below their marks
                axis.annotate(
                    contender, place, apart, textcoords="offset points", fontsize=6, color=colour
                )
            axis.margins(0.35, 0.15)
            axis.set(xscale="log", xlabel="CPU seconds of fit", ylabel=f"{what}, ratio")
            axis.set_title(f"at most {rows} rows", fontsize=8)
