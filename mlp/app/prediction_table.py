"""Predictions as a table: a label and the share of each class, or numbers in the targets' units.

The share of a class is a probability, or a score where the loss does not make it one.
"""

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mlp.errors import InputError
from mlp.files import write_atomically
from mlp.model import Model


def table(model: Model, X: Any, target: Sequence[str] | None) -> tuple[list[str], list[list[str]]]:
    """(header, rows) for X (n, d), as text; ``target`` are the names of the targets, if known.

    Numbers have as many digits as tell them apart.
    """
    y = model.predict(X)
    if model.objective.targets in ("numbers", "counts"):
        return _columns(model, target), [[str(value) for value in row] for row in y]
    share = "probability" if getattr(model.objective.loss, "proper", True) else "score"
    if model.objective.targets == "labels" and y.shape[1] > 1:
        names = _names(target, y.shape[1])
        header = [*names, *(f"{share}_{name}" for name in names)]
        labels = (y > 0.5).astype(np.int64)
    else:
        if y.shape[1] == 1:  # the share of the second class
            y = np.concatenate([1.0 - y, y], axis=1).astype(y.dtype)
        classes = np.arange(y.shape[1]) if model.classes is None else model.classes
        header = ["label", *(f"{share}_{name}" for name in classes.tolist())]
        labels = classes[y.argmax(axis=1)][:, None]
    rows = zip(labels.tolist(), y, strict=True)
    return header, [[*map(str, label), *map(str, shares)] for label, shares in rows]


def as_csv(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """The table as CSV text."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue()


def write(model: Model, X: Any, target: Sequence[str] | None, path: Path) -> None:
    """The table into a .csv file, or the outputs alone, (n, outputs), into an .npy file."""
    if path.suffix.lower() == ".csv":
        write_atomically(path, as_csv(*table(model, X, target)).encode())
    else:
        array = io.BytesIO()
        np.save(array, np.asarray(model.predict(X)), allow_pickle=False)
        write_atomically(path, array.getvalue())


def check_new(path: Path) -> None:
    """InputError unless `write` knows this kind of file and it is not there yet."""
    if path.exists():
        raise InputError(f"{path} is there already and stays as it is; name another --out")
    if path.suffix.lower() not in (".csv", ".npy"):
        raise InputError(f"{path}: predictions are written as .csv or .npy; name it so")


def _columns(model: Model, target: Sequence[str] | None) -> list[str]:
    """Names of predictions of numbers: of the targets, and of the heads of each."""
    names, loss = _names(target, model.objective.columns), model.objective.loss
    heads = getattr(loss, "names", None) if model.objective.heads > 1 else None
    return [f"{name}_{head}" for name in names for head in heads] if heads else names


def _names(target: Sequence[str] | None, outputs: int) -> list[str]:
    if target is not None and len(target) == outputs:
        return list(target)
    return ["target"] if outputs == 1 else [f"target_{k}" for k in range(outputs)]
