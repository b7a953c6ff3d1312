"""From the settings of a run to its data and its untrained model.

Labels become class numbers, rows are held out (the test rows first, each class keeping its share),
and the scalings are fitted on the rows that are left to train on, so that nothing of the held-out
rows is known in training.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from backends import Backend, BackendError, choose
from mlp.app.config import Config
from mlp.data.labels import class_labels, encode
from mlp.data.order import split
from mlp.data.readers import Dataset, read
from mlp.data.scaling import Scaling
from mlp.errors import InputError
from mlp.formulas.losses import get_loss
from mlp.model import Model


@dataclass(frozen=True, eq=False)
class Part:
    """Rows for one purpose: X (n, d), and t (n,) class numbers or (n, c) numbers."""

    X: np.ndarray
    t: np.ndarray
    source: str

    def __len__(self) -> int:
        return len(self.X)


@dataclass(frozen=True, eq=False)
class Parts:
    """The rows to train on and those held out; ``classes`` in the order of the outputs."""

    train: Part
    validation: Part | None
    test: Part | None
    columns: tuple[str, ...]
    classes: np.ndarray | None
    outputs: int

    def by_name(self) -> dict[str, Part]:
        """The parts that are there."""
        named = {"train": self.train, "validation": self.validation, "test": self.test}
        return {name: part for name, part in named.items() if part is not None}


# ------------------------------------------------------------------------------ data


def read_parts(config: Config) -> Parts:
    """The data of a run: read, coded, split."""
    about = config.data
    whole = read(
        about.file, inputs=about.inputs, target=about.target, targets_file=about.targets_file
    )
    kind = getattr(get_loss(config.training.loss), "targets", "numbers")
    source = target_source(config)
    t, classes = code_targets(_given(whole), kind, source, about.target)
    parts: dict[str, Part | None] = {"train": Part(whole.X, t, source)}
    for name in ("test", "validation"):
        file = getattr(about, f"{name}_file")
        if file is None:
            parts[name] = _held_out(config, parts, name, len(whole), classes)
            continue
        targets_file = getattr(about, f"{name}_targets_file")
        more = read_more(config, file, whole.columns, targets_file)
        parts[name] = Part(more.X, encoded(more, classes), targets_file or file)
    assert parts["train"] is not None
    return Parts(
        train=parts["train"],
        validation=parts["validation"],
        test=parts["test"],
        columns=whole.columns,
        classes=classes,
        outputs=len(classes) if kind == "classes" and classes is not None else width(t),
    )


def _held_out(
    config: Config, parts: dict[str, Part | None], name: str, n: int, classes: np.ndarray | None
) -> Part | None:
    """A share of all n rows, taken from those that are left to train on."""
    share, left = getattr(config.data, name), parts["train"]
    if share is None or left is None:
        return None
    labels = left.t if classes is not None and left.t.ndim == 1 else None
    try:
        kept, held = split(len(left), share * n / len(left), config.seed, labels=labels)
    except InputError as error:
        raise InputError(f"{config.path}: data.{name}: {error}") from error
    parts["train"] = Part(left.X[kept], left.t[kept], left.source)
    return Part(left.X[held], left.t[held], left.source)


def read_more(
    config: Config | None,
    file: str | Path,
    columns: Sequence[str],
    targets_file: str | Path | None = None,
    need_targets: bool = True,
    target: Sequence[str] | None = None,
) -> Dataset:
    """Another data set with the columns of the first, in its order.

    target: as the settings say, if it is not given. Without settings, as of a model that came from
    elsewhere, the columns are those of the model, else all that are no target.
    """
    inputs: Sequence[str] | None = columns
    if config is not None:
        about, target = config.data, target or config.data.target
        if about.inputs and Path(file).suffix == ".npz" == Path(about.file).suffix:
            inputs = about.inputs  # the name of the array
    return read(
        file,
        inputs=inputs,
        target=target,
        targets_file=targets_file,
        need_targets=need_targets,
    )


def target_source(config: Config) -> str:
    """Where the targets are, for messages."""
    about = config.data
    columns = f", column {', '.join(map(repr, about.target))}" if about.target else ""
    return f"{about.targets_file or about.file}{columns}"


# ------------------------------------------------------------------------------ targets


def code_targets(
    t: np.ndarray, kind: str, source: str, names: Sequence[str] | None
) -> tuple[np.ndarray, np.ndarray | None]:
    """(t, classes): labels as class numbers, anything else as it is, for a loss of this kind."""
    if t.ndim == 2:  # one column an output
        named = kind == "classes" and names is not None and len(names) == t.shape[1]
        return t, np.asarray(names) if named else None
    if kind == "classes":
        classes, t = class_labels(t, source)
        return t, classes
    if kind == "labels" and not _shares(t):
        classes, t = class_labels(t, source)
        if len(classes) > 2:
            raise InputError(
                f"{source} holds {len(classes)} classes, binary_cross_entropy is for two on one "
                "output; use loss 'cross_entropy', with one unit a class in the last layer"
            )
        return t, classes
    if t.dtype.kind == "U":
        raise InputError(
            f"{source} holds text ({t[0].item()!r}), this loss is for numbers; to tell classes "
            "apart use loss 'cross_entropy', or name another target"
        )
    return t, None


def encoded(data: Dataset, classes: np.ndarray | None) -> np.ndarray:
    """The targets of a further data set, coded by the classes of the first."""
    t = _given(data)
    return t if classes is None or t.ndim == 2 else encode(t, classes, data.source)


def width(t: np.ndarray) -> int:
    """Columns of the targets."""
    return 1 if t.ndim == 1 else t.shape[1]


def _given(data: Dataset) -> np.ndarray:
    assert data.t is not None  # they were asked for
    return data.t


def _shares(t: np.ndarray) -> bool:
    """Whether these are numbers between 0 and 1, not labels."""
    return t.dtype.kind == "f" and bool((t != np.round(t)).any())


# ------------------------------------------------------------------------------ the model


def choose_backend(flag: str | None, config: Config | None) -> Backend:
    """The backend of --backend, of the file, of $MLP_BACKEND, or NumPy: the first that is given."""
    named = config.backend if config is not None else None
    try:
        return choose(flag, named)
    except BackendError as error:
        place = f"{config.path}: backend" if config is not None and named else "$MLP_BACKEND"
        place = "--backend" if flag is not None else place
        raise BackendError(f"{place}: {error}") from error


def new_model(config: Config, parts: Parts, backend: Backend) -> Model:
    """The model with fresh weights, its scalings fitted on the rows to train on."""
    _check_outputs(config, parts)
    X, t = parts.train.X, parts.train.t
    scale_inputs, scale_targets = config.data.scale_inputs, config.data.scale_targets
    fit = {"standard": Scaling.standard, "range": Scaling.unit_range}
    model = Model(
        config.network(X.shape[1], parts.outputs),
        config.training.loss,
        reduction=config.training.reduction,
        seed=config.seed,
        backend=backend,
        precision=config.precision,
        classes=parts.classes,
        columns=parts.columns,
        input_scaling=fit[scale_inputs](X) if scale_inputs != "none" else None,
    )
    if scale_targets == "standard":
        if model.objective.targets != "numbers":
            raise InputError(
                f"{config.path}: data.scale_targets: 'standard' is for numbers of any size, not "
                f"for the {model.objective.targets} of this loss; write 'none'"
            )
        model.target_scaling = Scaling.standard(t.reshape(len(t), -1))
    for part in parts.by_name().values():
        model.objective.check_targets(part.t, part.source)
    return model


def _check_outputs(config: Config, parts: Parts) -> None:
    units = getattr(config.layers[-1], "units", None)
    if units in (None, parts.outputs):
        return
    what = "columns of targets" if parts.classes is None else "classes"
    if parts.classes is not None and parts.outputs == 1:
        what = "output for its two classes"
    raise InputError(
        f"{config.path}: layers.{len(config.layers) - 1}.units: {units}, but "
        f"{target_source(config)} has {parts.outputs} {what}; leave the last layer's units out"
    )
