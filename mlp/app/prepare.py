"""From the settings of a run to its data and its untrained model.

The classes are learned, rows are held out (the test rows first, each class keeping its share), and
the preprocessing is fitted on the rows that are left to train on, so that nothing of the held-out
rows is known in training.
"""

import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from backends import Backend, BackendError, choose
from mlp.app.config import Arrays, Config, Where, alike, share_of
from mlp.data.labels import class_weights, encode, learned_classes
from mlp.data.order import BLOCK, BUFFER
from mlp.data.parts import Rows, last_rows, row_keys, rows_where, split_rows, trained_on
from mlp.data.preprocessing import Preprocessing, refuse_gaps
from mlp.data.readers import Dataset, chosen, is_arrays, numbers, read_rows, targets_for
from mlp.data.row_files import Part
from mlp.data.samples import Samples, check_sample_weight
from mlp.data.scaling import Scaling
from mlp.data.stored import StoredDataset, kept_on_disk, labels_of, larger_than, opened
from mlp.data.stored_tables import code_stored, fit_stored, scaled
from mlp.data.tables import Column, Table
from mlp.errors import InputError, Note, shown
from mlp.files import check_stamp, reading, stamp_of
from mlp.formulas.losses import get_loss, heads_of, outputs_for
from mlp.layers import Columns
from mlp.memory import check_host
from mlp.model import UNORDERED, Model
from mlp.parallel.group import ALONE, Group

READ_BY_LAYERS = 1 << 17  # rows that say where quantiles are: the rank of each is right to 0.14 %
LOOKED_AT = 4096  # rows of a part on disk that are looked for among those to train on


@dataclass(frozen=True, eq=False)
class Parts:
    """The rows to train on and those held out; ``classes`` in the order of the outputs;
    ``preprocessing`` where it is fitted already."""

    train: Dataset | StoredDataset
    validation: Dataset | StoredDataset | None
    test: Dataset | StoredDataset | None
    classes: np.ndarray | None
    outputs: int
    preprocessing: Preprocessing | None = None

    def by_name(self) -> dict[str, Dataset | StoredDataset]:
        """The parts that are there."""
        named = {"train": self.train, "validation": self.validation, "test": self.test}
        return {name: part for name, part in named.items() if part is not None}


# ------------------------------------------------------------------------------ data


def read_parts(config: Config, group: Group = ALONE) -> Parts:
    """The data of a run: read and split, with the classes of its labels. group: processes that do
    it together."""
    about = config.data
    if about.memory is not None and larger_than(about.file, about.memory):
        return _stored_parts(config, group)
    with reading(Path(about.file)):
        stamp = stamp_of(about.file)
    whole = read_rows(
        about.file,
        inputs=about.array_inputs,
        target=about.array_target,
        targets_file=about.targets_file,
        exclude=about.exclude,
        drop_rows_without_target=about.drop_rows_without_target,
        sample_weight=about.sample_weight,
        beside=_beside(config),
        **as_read(config),
    )
    if about.missing == "error":
        refuse_gaps(whole.X, whole.columns)
    if not about.columns:
        whole = replace(whole, X=_compact(whole.X))
    kind = _kind(config)
    source = target_source(config)
    assert whole.t is not None  # they were asked for
    t = targets_for(whole.t, kind)
    whole = replace(whole, source=source, t=t)
    classes = learned_classes(t, kind, source, about.target)
    parts: dict[str, Dataset] = {"train": whole}
    _check_room(config, whole)
    for name in ("test", "validation"):
        part, file = getattr(about, name), getattr(about, f"{name}_file")
        targets_file = getattr(about, f"{name}_targets_file")
        if file is not None:
            _check_other_file(config, name, file)
            texts = whole.table().columns.values()
            categories = [c.name for c in texts if c.values.dtype.kind == "O"]
            more = read_more(config, file, whole.columns, targets_file, categories=categories)
            parts[name] = replace(more, source=str(targets_file or file))
        elif isinstance(part, Arrays):
            more = read_rows(about.file, inputs=[part.inputs], target=[part.target])
            parts[name] = replace(more, source=f"{about.file}, {part.target}")
        elif part is not None:
            _hold_out(config, parts, name, len(whole), classes)
        if isinstance(part, Arrays) or file is not None:
            more_t = parts[name].t
            assert more_t is not None
            parts[name] = replace(parts[name], t=targets_for(more_t, kind, classes))
            _check_rows(parts, name)
    if any(isinstance(part, Arrays) for part in (about.test, about.validation)):
        check_stamp(about.file, stamp, about.file)
    if isinstance(about.train, Where):
        _, kept = _asked(config, "train", lambda: rows_where_is(parts["train"], about.train))
        parts["train"] = parts["train"].take(kept)
    parts = {name: _as_array(part) for name, part in parts.items()}
    return Parts(
        train=parts["train"],
        validation=parts.get("validation"),
        test=parts.get("test"),
        classes=classes,
        outputs=_outputs(config, classes, _width(t)),
    )


def _check_room(config: Config, whole: Dataset) -> None:
    """InputError if there is no memory to hold rows out: those of each part are a copy."""
    about = config.data
    if any(isinstance(x, (float, str, Where)) for x in (about.train, about.validation, about.test)):
        columns = whole.table().columns.values()
        size = sum(column.values.nbytes for column in columns)
        check_host(size, f"{about.file}: holding out some of its rows")


def _stored_parts(config: Config, group: Group) -> Parts:
    """The data of a run whose rows stay on disk: held out in whole blocks of rows, which are drawn
    at random, or are the last."""
    about, kind = config.data, _kind(config)
    with group.together():
        _check_stored(config)
        table = opened(about.file)
    # What is asked of all ranks from here on follows from these.
    group.same({"the file": (table.n, table.names), **alike(config)})
    targets = tuple(about.target or ())
    aside = (*targets, *([about.sample_weight] if about.sample_weight else []))
    names = chosen(table.names, about.file, about.inputs or (), aside, about.exclude or ())
    blocks = {"train": np.arange(-(-table.n // BLOCK))}
    for name in ("test", "validation"):
        part, left = getattr(about, name), blocks["train"]
        if part is not None:
            share = share_of(part) * table.n / BLOCK / len(left)
            split_blocks = last_rows if isinstance(part, str) else split_rows
            more = () if isinstance(part, str) else (config.seed,)
            kept, held = _asked(config, name, lambda: split_blocks(len(left), share, *more))  # noqa: B023
            blocks["train"], blocks[name] = left[kept], left[held]
    strict = "error" if about.missing == "error" else "fill"
    found = fit_stored(
        table,
        tuple(names),
        blocks["train"],
        about.plans,
        seed=config.seed,
        gaps=strict,
        embeds=config.embeds,
        group=group,
    )
    whole = code_stored(table, found, targets, about.sample_weight, group)
    assert whole.t is not None
    parts = {name: whole.only(some) for name, some in blocks.items()}
    for name in ("test", "validation"):
        file = getattr(about, f"{name}_file")
        if file is not None:
            _check_other_file(config, name, file)
            other = code_stored(opened(file), found, targets, about.sample_weight, group)
            parts[name] = other
            _check_stored_rows(parts["train"], other, name, group)
    labelled = kind == "classes" or (kind == "labels" and len(targets) == 1)
    classes = labels_of(whole.t, target_source(config), group) if labelled else None
    return Parts(
        train=parts["train"],
        validation=parts.get("validation"),
        test=parts.get("test"),
        classes=classes,
        outputs=_outputs(config, classes, len(targets)),
        preprocessing=scaled(found, parts["train"].X, about.scale_inputs, group),
    )


def _check_stored(config: Config) -> None:
    """InputError for what cannot be done with rows that stay on disk."""
    about = config.data
    refused: dict[str, Any] = {
        "data.groups": about.groups,
        "data.targets_file": about.targets_file,
        "data.missing, as a list,": about.missing if isinstance(about.missing, list) else None,
        "data.drop_rows_without_target": about.drop_rows_without_target or None,
        "training.class_weight": config.training.class_weight,
        "a scaling in data.columns": any(plan.scaling for plan in about.plans.values()) or None,
    }
    for name in ("train", "validation", "test"):
        part = getattr(about, name)
        refused[f"data.{name}"] = part if isinstance(part, (Where, Arrays)) else None
    for name, given in refused.items():
        if given is not None:
            raise InputError(
                f"{config.path}: {name} takes all rows in memory, and {about.file} is larger than "
                f"data.memory, {shown(about.memory)}; leave it out or allow more"
            )
    if not about.target:
        raise InputError(f"{about.file}: name the column to predict in `target`")


def _kind(config: Config) -> str:
    return str(getattr(get_loss(config.training.loss), "targets", "numbers"))


def _outputs(config: Config, classes: np.ndarray | None, columns: int) -> int:
    """Units of the last layer, for these classes, or else columns of targets."""
    loss = get_loss(config.training.loss)
    by_class = _kind(config) == "classes" and classes is not None
    if getattr(loss, "ordered", False) and classes is not None and classes.dtype.kind == "U":
        shown = ", ".join(map(repr, classes[:5].tolist()))
        raise InputError(f"{target_source(config)} holds labels in words ({shown}): {UNORDERED}")
    return outputs_for(loss, len(classes) if by_class and classes is not None else columns)


def _beside(config: Config) -> list[str]:
    """The columns that say to which part a row belongs."""
    about = config.data
    parts = (about.train, about.validation, about.test)
    names = [part.column for part in parts if isinstance(part, Where)]
    return list(dict.fromkeys([*names, *([about.groups] if about.groups else [])]))


def as_read(config: Config | None) -> dict[str, Any]:
    """How the cells of a table are to be read, whichever file it is in."""
    if config is None:
        return {}
    about = config.data
    return {
        "header": about.header,
        "missing": None if about.missing == "error" else about.missing,
        "as_text": [name for name, plan in about.plans.items() if plan.kind == "category"],
    }


def _compact(table: Table) -> Table:
    """A table of plain numbers as one array."""
    if any(c.gaps is not None or not c.numeric for c in table.columns.values()):
        return table
    return replace(Table.of_array(numbers(table), table.names, table.source), lines=table.lines)


def _as_array(data: Dataset) -> Dataset:
    """A data set of plain numbers with X as an array; its values have been searched."""
    if not isinstance(data.X, Table) or data.X.array is None:
        return data
    return replace(data, X=data.X.array, checked=True)


def _hold_out(
    config: Config, parts: dict[str, Dataset], name: str, n: int, classes: np.ndarray | None
) -> None:
    """Rows of a part, taken from those that are left to train on; a share is of all n rows."""
    left, part = parts["train"], getattr(config.data, name)
    groups = config.data.groups

    def rows() -> Rows:
        share = share_of(part) * n / len(left)
        if isinstance(part, Where):
            return rows_where_is(left, part)
        if isinstance(part, str):
            return last_rows(len(left), share)
        by_class = classes is not None and left.t is not None and left.t.ndim == 1
        column = left.beside[groups] if groups and left.beside is not None else None
        return split_rows(len(left), share, config.seed, left.t if by_class else None, column)

    kept, held = _asked(config, name, rows)
    parts["train"], parts[name] = left.take(kept), left.take(held)


def rows_where_is(data: Dataset, part: Any) -> Rows:
    """The rows of a part that a column says."""
    assert data.beside is not None  # it was asked for
    return rows_where(data.beside[part.column], part.value)


def _asked(config: Config, name: str, rows: Any) -> Rows:
    try:
        return rows()
    except InputError as error:
        raise InputError(f"{config.path}: data.{name}: {error}") from error


def _check_other_file(config: Config, name: str, file: str) -> None:
    """InputError if the rows to train on and those of a part are in one file."""
    if is_file_of(config, file):
        cure = f"hold out a share of the rows by data.{name}"
        if Path(file).suffix.lower() == ".npz":
            cure = f'name its arrays: {name} = {{inputs = "x_{name}", target = "y_{name}"}}'
        raise InputError(
            f"{config.path}: data.{name}_file is data.file, the rows that are trained on; {cure}"
        )


def _check_rows(parts: dict[str, Dataset], name: str) -> None:
    """InputError if all rows of a part are rows to train on; some of them are said."""
    of, part = parts["train"], parts[name]
    names = [column for column in of.columns if column in part.table().columns]
    own, other = (
        [*map(data.table().columns.__getitem__, names), *_target_columns(data)]
        for data in (of, part)
    )
    if len(own) != len(other):
        return  # of other targets: found out when they are encoded
    often, different = trained_on(own, other)
    _say_trained_on(part.source, name, often, len(part), different)


def _target_columns(data: Dataset) -> list[Column]:
    """The targets as columns."""
    t = np.empty((len(data), 0)) if data.t is None else data.t.reshape(len(data), -1)
    t = t.astype(object) if t.dtype.kind == "U" else t
    return [Column("t", column) for column in t.T]


def _check_stored_rows(train: StoredDataset, part: StoredDataset, name: str, group: Group) -> None:
    """The same of rows on disk, by the first rows of the part."""
    keys = row_keys(part.X[slice(0, LOOKED_AT)])

    def own() -> np.ndarray:
        found = np.zeros(len(keys), bool)
        for rows in train.X.pieces(group):
            found |= np.isin(keys, row_keys(rows))
        return found

    found = np.any(group.every(own), axis=0)
    different = 2 * len(np.unique(keys)) > len(keys)
    _say_trained_on(part.source, name, int(found.sum()), len(keys), different)


def _say_trained_on(source: str, name: str, often: int, n: int, different: bool) -> None:
    if often == n and different:
        raise InputError(
            f"{source}: all {often} rows of data.{name} are rows that are trained on; a model is "
            "measured on others"
        )
    if often > n / 10:
        warnings.warn(
            f"{source}: {often} of {n} rows of data.{name} are trained on too", stacklevel=2
        )


def read_more(
    config: Config | None,
    file: str | Path,
    columns: Sequence[str],
    targets_file: str | Path | None = None,
    need_targets: bool = True,
    target: Sequence[str] | None = None,
    inputs: str | None = None,
    categories: Sequence[str] = (),
) -> Dataset:
    """Another data set with the columns of the first, among others and in any order.

    target: as the settings say, if it is not given. inputs: the name of the array in an .npz file.
    categories: columns of the first that are text, whatever stands in them here.
    Without settings, as of a model that came from elsewhere, the columns are those of the model,
    else all that are no target.
    """
    names: Sequence[str] | None = None
    read = as_read(config)
    if config is not None:
        target = target or config.data.array_target
    if inputs is not None:
        names = [inputs]
    elif Path(file).suffix.lower() == ".npz":
        same_kind = config is not None and Path(config.data.file).suffix.lower() == ".npz"
        names = config.data.array_inputs if config is not None and same_kind else None
    elif is_arrays(Path(file)):
        names = columns
    return read_rows(
        file,
        inputs=names,
        target=target if need_targets or targets_file is None else None,
        targets_file=targets_file,
        need_targets=need_targets,
        drop_rows_without_target=config is not None and config.data.drop_rows_without_target,
        sample_weight=config.data.sample_weight if config is not None and need_targets else None,
        weights_needed=False,
        wanted=columns,
        **{**read, "as_text": [*read.get("as_text", ()), *categories]},
    )


def read_evaluated(
    config: Config | None,
    file: Path,
    model: Model,
    targets_file: Path | None,
    target: Sequence[str] | None,
    inputs: str | None,
) -> Dataset | StoredDataset:
    """Rows to measure a model on, with their targets; arrays that it was trained on are refused."""
    own = config is not None and is_file_of(config, file)
    if own and config is not None and inputs is None and file.suffix.lower() == ".npz":
        part = config.data.test
        if not isinstance(part, Arrays):
            raise InputError(
                f"{file}: its array {config.data.array_inputs or 'X'} was trained on; name others "
                "by --inputs NAME and --target NAME"
            )
        inputs, target = part.inputs, [part.target]
    if targets_file is None and _stays_on_disk(config, file, model) and config is not None:
        assert model.preprocessing is not None
        names = target or config.data.target or ()
        weight = config.data.sample_weight
        return code_stored(opened(file), model.preprocessing, names, weight)
    return read_more(
        config,
        file,
        model.given_columns,
        targets_file,
        target=target,
        inputs=inputs,
        categories=_categories(model),
    )


def read_new(
    config: Config | None, file: Path, model: Model, inputs: str | None
) -> Dataset | StoredDataset:
    """Rows to predict for."""
    if _stays_on_disk(config, file, model):
        assert model.preprocessing is not None
        return code_stored(opened(file), model.preprocessing)
    return read_more(
        config,
        file,
        model.given_columns,
        need_targets=False,
        inputs=inputs,
        categories=_categories(model),
    )


def _categories(model: Model) -> list[str]:
    """The columns that a model takes for text."""
    codes = model.preprocessing.codes if model.preprocessing is not None else ()
    return [code.name for code in codes if code.kind == "category"]


def _stays_on_disk(config: Config | None, file: Path, model: Model) -> bool:
    """Whether a file is larger than the memory that the run was given for its rows."""
    memory = config.data.memory if config is not None else None
    if memory is None or model.preprocessing is None:
        return False
    return kept_on_disk(file) and larger_than(file, memory, model.preprocessing.columns)


def is_file_of(config: Config, file: str | Path) -> bool:
    """Whether this is the file that a run was trained on."""
    there = os.path.exists(file) and os.path.exists(config.data.file)
    return there and os.path.samefile(file, config.data.file)


def target_source(config: Config) -> str:
    """Where the targets are, for messages."""
    about = config.data
    names = about.array_target
    columns = f", column {', '.join(map(repr, names))}" if names else ""
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


def on_own_device(chosen: Backend, group: Group) -> Backend:
    """The backend of this rank: of several on a machine each takes a CUDA device of its own, in
    turn, unless one is named."""
    if group.size == 1 or chosen.name != "cupy":
        return chosen
    return choose(f"cupy:{group.local % chosen.devices()}")


def new_model(config: Config, parts: Parts, backend: Backend, group: Group = ALONE) -> Model:
    """The model with fresh weights, its preprocessing fitted on the rows to train on."""
    _check_outputs(config, parts)
    about, t, preprocessing = config.data, parts.train.t, parts.preprocessing
    assert t is not None
    if preprocessing is None:
        assert isinstance(parts.train, Dataset)
        preprocessing = Preprocessing.fit(
            parts.train.table(),
            about.plans,
            scaling=about.scale_inputs,
            gaps="error" if about.missing == "error" else "fill",
            missing=about.missing if isinstance(about.missing, list) else None,
            embeds=config.embeds,
        )
    for code in preprocessing.codes:
        if code.rare:
            warnings.warn(f"{about.file}: column {code.name!r}: {code.why}", Note, stacklevel=2)
        if code.kind == "leave out" and code.name not in about.columns:
            warnings.warn(
                f"{about.file}: column {code.name!r} is left out: {code.why}; data.columns can say "
                "what it is",
                Note,
                stacklevel=2,
            )
    try:
        columns = columns_of(
            preprocessing, _some_rows(parts, preprocessing, config.reads_rows, group)
        )
        network = config.network(len(preprocessing.names), parts.outputs, columns)
    except InputError as error:
        raise InputError(f"{config.path}: layers: {error}") from error
    model = Model(
        network,
        config.training.loss,
        reduction=config.training.reduction,
        seed=config.seed,
        backend=backend,
        precision=config.precision,
        classes=parts.classes,
        preprocessing=preprocessing,
    )
    if about.scale_targets != "none":
        if model.objective.targets != "numbers":
            raise InputError(
                f"{config.path}: data.scale_targets: {shown(about.scale_targets)} is for numbers "
                f"of any size, not for the {model.objective.targets} of this loss; write 'none'"
            )
        numbers_of_t = t if t.ndim == 2 else t.reshape(-1, 1)
        names = [about.scale_targets] * numbers_of_t.shape[1]
        if isinstance(numbers_of_t, Part) and about.scale_targets != "standard":
            raise InputError(
                f"{config.path}: data.scale_targets: {shown(about.scale_targets)} needs all "
                "targets at once, these rows stay on disk; use 'standard'"
            )
        model.target_scaling = Scaling.fit(numbers_of_t, names, group)
    return model


def columns_of(preprocessing: Preprocessing, rows: np.ndarray | None = None) -> Columns:
    """What layers are told of their inputs."""
    codes = preprocessing.embedded
    inputs = tuple(k for k in range(len(preprocessing.names)) if k not in codes)
    return Columns(inputs, tuple(preprocessing.of_numbers), codes, rows)


def _some_rows(
    parts: Parts, preprocessing: Preprocessing, asked: bool, group: Group
) -> np.ndarray | None:
    """Rows to train on as layers get them, if one wants some: all, or so many evenly far apart."""
    if not asked:
        return None
    train = parts.train
    rows = np.linspace(0, len(train) - 1, min(len(train), READ_BY_LAYERS)).astype(np.intp)
    if isinstance(train, Dataset):
        return preprocessing.apply(train.take(rows).table())
    # A buffer of blocks at a time, as a block is read for each of them.
    some = [rows[i : i + BUFFER] for i in range(0, len(rows), BUFFER)]
    read = group.dealt(len(some), lambda i: np.asarray(train.X[some[i]], dtype=float))
    found, scaling = np.concatenate(list(read)), preprocessing.scaling
    return found if scaling is None else scaling.apply(found, "float64")


def samples_of(
    model: Model, parts: Parts, config: Config, group: Group = ALONE
) -> dict[str, Samples]:
    """The parts as the model takes them, by name, those to train on with the weights of their
    classes; InputError for what does not fit it."""
    samples = {name: model.samples(part, group=group) for name, part in parts.by_name().items()}
    weights = config.training.class_weight
    if weights is not None:
        train = samples["train"]
        if parts.classes is None or train.t is None or parts.train.t is None:
            raise InputError(
                f"{config.path}: training.class_weight is for classes; this loss is for numbers"
            )
        assert isinstance(parts.train, Dataset)  # of rows on disk it is refused
        t = targets_for(parts.train.t, model.objective.targets, parts.classes)
        indices = encode(t, parts.classes, parts.train.source)
        of_classes = class_weights(parts.classes, indices, weights)
        own = np.ones(train.n) if train.s is None else np.asarray(train.s)
        s = check_sample_weight(of_classes * own, train.n)
        samples["train"] = replace(train, s=s)
    return samples


def _width(t: np.ndarray) -> int:
    """Columns of the targets."""
    return 1 if t.ndim == 1 else t.shape[1]


def _check_outputs(config: Config, parts: Parts) -> None:
    units = getattr(config.layers[config.output], "units", None)
    if units in (None, parts.outputs):
        return
    loss = get_loss(config.training.loss)
    if heads_of(loss, 2) > 1:
        what = "for the targets" if parts.classes is None else f"for {len(parts.classes)} classes"
        raise InputError(
            f"{config.path}: layers.{config.output}.units: {units}, but this loss needs "
            f"{parts.outputs} {what} of {target_source(config)}; leave the last layer's units out"
        )
    what = "columns of targets" if parts.classes is None else "classes"
    if parts.classes is not None and parts.outputs == 1:
        what = "output for its two classes"
    raise InputError(
        f"{config.path}: layers.{config.output}.units: {units}, but "
        f"{target_source(config)} has {parts.outputs} {what}; leave the last layer's units out"
    )
