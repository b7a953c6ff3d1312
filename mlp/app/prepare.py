"""From the settings of a run to its data and its untrained model.

The classes are learned, rows are held out (the test rows first, each class keeping its share), and
the scalings are fitted on the rows that are left to train on, so that nothing of the held-out rows
is known in training.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from backends import Backend, BackendError, choose
from mlp.app.config import Config
from mlp.data.labels import learned_classes
from mlp.data.order import split
from mlp.data.readers import Dataset, read
from mlp.data.samples import Samples
from mlp.data.scaling import Scaling
from mlp.errors import InputError
from mlp.formulas.losses import get_loss
from mlp.model import Model


@dataclass(frozen=True, eq=False)
class Parts:
    """The rows to train on and those held out; ``classes`` in the order of the outputs."""

    train: Dataset
    validation: Dataset | None
    test: Dataset | None
    columns: tuple[str, ...]
    classes: np.ndarray | None
    outputs: int

    def by_name(self) -> dict[str, Dataset]:
        """The parts that are there."""
        named = {"train": self.train, "validation": self.validation, "test": self.test}
        return {name: part for name, part in named.items() if part is not None}


# ------------------------------------------------------------------------------ data


def read_parts(config: Config) -> Parts:
    """The data of a run: read and split, with the classes of its labels."""
    about = config.data
    whole = read(
        about.file, inputs=about.inputs, target=about.target, targets_file=about.targets_file
    )
    kind = getattr(get_loss(config.training.loss), "targets", "numbers")
    source = target_source(config)
    assert whole.t is not None  # they were asked for
    classes = learned_classes(whole.t, kind, source, about.target)
    parts: dict[str, Dataset | None] = {"train": replace(whole, source=source)}
    for name in ("test", "validation"):
        file = getattr(about, f"{name}_file")
        if file is None:
            parts[name] = _held_out(config, parts, name, len(whole), classes)
            continue
        targets_file = getattr(about, f"{name}_targets_file")
        more = read_more(config, file, whole.columns, targets_file)
        parts[name] = replace(more, source=str(targets_file or file))
    assert parts["train"] is not None
    return Parts(
        train=parts["train"],
        validation=parts["validation"],
        test=parts["test"],
        columns=whole.columns,
        classes=classes,
        outputs=len(classes) if kind == "classes" and classes is not None else _width(whole.t),
    )


def _held_out(
    config: Config, parts: dict[str, Dataset | None], name: str, n: int, classes: np.ndarray | None
) -> Dataset | None:
    """A share of all n rows, taken from those that are left to train on."""
    share, left = getattr(config.data, name), parts["train"]
    if share is None or left is None or left.t is None:
        return None
    labels = left.t if classes is not None and left.t.ndim == 1 else None
    try:
        kept, held = split(len(left), share * n / len(left), config.seed, labels=labels)
    except InputError as error:
        raise InputError(f"{config.path}: data.{name}: {error}") from error
    parts["train"] = replace(left, X=left.X[kept], t=left.t[kept])
    return replace(left, X=left.X[held], t=left.t[held])


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
    assert t is not None
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
    return model


def samples_of(model: Model, parts: Parts) -> dict[str, Samples]:
    """The parts as the model takes them, by name; InputError for what does not fit it."""
    return {name: model.samples(part) for name, part in parts.by_name().items()}


def _width(t: np.ndarray) -> int:
    """Columns of the targets."""
    return 1 if t.ndim == 1 else t.shape[1]


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
