"""One TOML file that says how to train: read, checked, and turned into the objects it names.

The defaults and the rules of a setting stand where the setting is used, in `Dense`, `Settings` and
the name tables; here they are only looked up, so that a mistake is found before any data are read.
Each is answered with the file, the dotted key, what is expected there, and the nearest valid name;
all mistakes of a file come in one message.

>>> from tempfile import TemporaryDirectory
>>> with TemporaryDirectory() as folder:
...     file = Path(folder) / "plants.toml"
...     _ = file.write_text('''
...         [data]
...         file = "plants.csv"
...         target = "kind"
...         [[layers]]
...         activation = "softmax"
...         [training]
...         loss = "cross_entropy"
...     ''')
...     config = load(file, ["training.epochs=5", "training.optimizer.name=sgd"])
>>> config.training.epochs, config.training.optimizer, config.network(inputs=4, outputs=3).units
(5, {'name': 'sgd'}, (4, 3))
"""

import copy
import datetime
import json
import os
import re
import sys
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import MISSING, fields, is_dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal, get_type_hints

import numpy as np
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
    TypeAdapter,
    ValidationError,
    ValidationInfo,
    create_model,
    field_validator,
    model_validator,
)

from mlp.app.presets import of_preset, with_preset
from mlp.data.preprocessing import KINDS, Coding, ColumnPlan, Kind
from mlp.data.scaling import ScalingName
from mlp.errors import InputError, did_you_mean, shown
from mlp.files import checked_path, open_regular
from mlp.formulas.activations import ACTIVATIONS, get_activation, meant_before
from mlp.formulas.initializers import INITIALIZERS, get_initializer
from mlp.formulas.losses import LOSSES, LossName, Reduction, get_loss, outputs_for
from mlp.formulas.schedules import SCHEDULES, get_schedule
from mlp.layers import LAYERS, Columns, Dense, Embedding, Layer
from mlp.memory import size_of
from mlp.names import Numbers, make
from mlp.network.graph import Network
from mlp.network.objective import Objective
from mlp.spellings import ours
from mlp.threads import check_threads
from mlp.training.checkpoints import Checkpoints
from mlp.training.settings import RENAMED, RULES, Settings

VERSION = 2  # of the names in settings that are JSON, as those of a run
STRICT = ConfigDict(strict=True, allow_inf_nan=False)


class Section(BaseModel):
    """A table of the file: unknown keys are refused, nothing is converted, nothing changes."""

    model_config = ConfigDict(extra="forbid", frozen=True) | STRICT


# ------------------------------------------------------------------------------ kinds of values


def named(table: Mapping[str, Any], make_it: Callable[[Any], Any]) -> PlainValidator:
    """A name of the table, or a name with settings: ``make_it`` must be able to make the object."""

    def check(value: Any) -> Any:
        if not isinstance(value, (str, dict)):
            raise InputError(f"expected a name or a table with a name, not {shown(value)}")
        settings = value if isinstance(value, dict) else {"name": value}
        entry = table.get(str(settings.get("name")))
        for field in fields(entry) if is_dataclass(entry) else ():
            if field.name in settings:
                kind = float | list[float] if field.type == Numbers else field.type
                _check_type(kind, field.name, settings[field.name])
        make_it(value)
        return value

    return PlainValidator(check)


def _check_type(kind: Any, name: str, value: Any) -> None:
    """InputError unless the value is of the annotated type."""
    try:
        TypeAdapter(kind, config=STRICT).validate_python(value)
    except ValidationError as error:
        raise InputError(f"{name}: {_explain(error.errors()[0])}") from error


def _one_or_more(value: Any) -> Any:
    """A list of names; one name stands for a list of it."""
    names = [value] if isinstance(value, str) else value
    if not (isinstance(names, list) and names and all(isinstance(name, str) for name in names)):
        raise InputError(f"expected a name or a list of names, not {shown(value)}")
    return names


def _missing(value: Any) -> Any:
    """The cells that are gaps, or whether there may be none."""
    words = isinstance(value, list) and all(isinstance(word, str) for word in value)
    if value is not None and value != "error" and not words:
        raise InputError(
            f"expected a list of the texts that stand for a gap, or 'error', not {shown(value)}"
        )
    return value


def _class_weight(value: Any) -> Any:
    """Weights of classes by name, or those that give each class the same weight."""
    if value is None or value == "balanced":
        return value
    if not isinstance(value, dict) or not value:
        raise InputError(f"expected 'balanced' or a table of weights by class, not {shown(value)}")
    for name, weight in value.items():
        number = isinstance(weight, (int, float)) and not isinstance(weight, bool)
        if not number or not 0 <= weight <= sys.float_info.max:
            raise InputError(
                f"the weight of {shown(name)} must be a number from 0 on, not {shown(weight)}"
            )
    return {name: float(weight) for name, weight in value.items()}


def _cell(value: Any) -> Any:
    """What may stand in a cell, as text."""
    if isinstance(value, (str, int, float, datetime.date)):
        return str(value)
    raise InputError(f"expected the text of a cell, not {shown(value)}")


def _batch_size(value: Any) -> Any:
    if value != "full" and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
        raise InputError(f"expected a whole number from 1 on, or 'full', not {shown(value)}")
    return value


Shuffle = bool | Literal["blocks", "balanced"]


def _shuffle(value: Any) -> Any:
    if not isinstance(value, bool) and value not in ("blocks", "balanced"):
        raise InputError(f"expected true, false, 'blocks' or 'balanced', not {shown(value)}")
    return value


def _optimizer(spec: Any) -> Any:
    return make(RULES, spec, "optimizer")


def _schedule(spec: Any) -> Any:
    return get_schedule(spec, 1.0)


def _average(spec: Any) -> Any:
    if spec is not None:
        Settings(average=spec)
    return spec


def _as_it_is(value: Any) -> Any:
    """Whatever `Settings` has to say of it."""
    return value


def _initializer(spec: Any) -> Any:
    return get_initializer(spec, "identity")


def _threads(number: int) -> int:
    check_threads(number)
    return number


def _memory(text: str) -> str:
    size_of(text)
    return text


Names = Annotated[list[str], BeforeValidator(_one_or_more)]
Spec = str | dict[str, Any]


# ------------------------------------------------------------------------------ the file's tables


class ColumnSettings(Section):
    """As `ColumnPlan`: what a column is taken for."""

    kind: Kind | None = None
    scaling: ScalingName | None = None
    coding: Coding | None = ColumnPlan.coding


def _column(value: Any) -> Any:
    """A kind, or a table of settings."""
    if isinstance(value, str):
        value = {"kind": value}
    if not isinstance(value, dict):
        raise InputError(
            f"expected a kind of column ({', '.join(KINDS)}) or a table, not {shown(value)}"
        )
    return value


class Where(Section):
    """The rows whose cell in a column is this."""

    column: str
    value: Annotated[str, BeforeValidator(_cell)] = Field(alias="is")


class Arrays(Section):
    """Arrays of an .npz file, by name."""

    inputs: str
    target: str


Share = Annotated[float, Field(gt=0.0, lt=1.0)]
LAST = re.compile(r"last (\d+(?:\.\d+)?) ?%")


def _part(value: Any) -> Any:
    """A share of the rows, the last ones, those of a column's value, or arrays."""
    if isinstance(value, dict):
        return (Where if "column" in value or "is" in value else Arrays).model_validate(value)
    if isinstance(value, str):
        found = LAST.fullmatch(value)
        if not found or not 0.0 < float(found[1]) < 100.0:
            raise InputError(f"expected a share of the rows or 'last 20%', not {shown(value)}")
        return value
    try:
        return TypeAdapter(Share, config=STRICT).validate_python(value)
    except ValidationError as error:
        raise InputError(_explain(error.errors()[0])) from error


def share_of(part: Any) -> float:
    """The share of the rows that a part takes, as far as it is known before they are read."""
    if isinstance(part, str) and (found := LAST.fullmatch(part)):
        return float(found[1]) / 100.0
    return part if isinstance(part, float) else 0.0


Part = Annotated[Any, PlainValidator(_part)]


class Data(Section):
    """Where the data are, what is held out, and how columns are coded and scaled."""

    file: str
    inputs: Names | None = None
    exclude: Names | None = None
    target: Names | None = None
    targets_file: str | None = None
    header: bool | None = None
    missing: Annotated[list[str] | Literal["error"] | None, PlainValidator(_missing)] = None
    drop_rows_without_target: bool = False
    columns: dict[str, Annotated[ColumnSettings, BeforeValidator(_column)]] = {}
    groups: str | None = None
    sample_weight: str | None = None
    train: Part | None = None
    validation: Part | None = None
    validation_file: str | None = None
    validation_targets_file: str | None = None
    test: Part | None = None
    test_file: str | None = None
    test_targets_file: str | None = None
    memory: Annotated[str, AfterValidator(_memory)] | None = None
    scale_inputs: ScalingName = "standard"
    scale_targets: ScalingName = "none"

    @model_validator(mode="after")
    def _target_is_no_input(self) -> "Data":
        inputs = set(self.inputs or [])
        both = [name for name in self.target or [] if name in inputs]
        if both and set(self.target or []) != set(self.inputs or []):  # an autoencoder's are equal
            raise InputError(
                f"{shown(both[0])} is in inputs and is the target; leave it in one of them"
            )
        if coded := [name for name in self.target or [] if name in self.columns]:
            raise InputError(
                f"columns: {shown(coded[0])} is the target; its labels are what stands in the file"
            )
        out = [name for name in self.exclude or [] if name in inputs]
        if out:
            raise InputError(
                f"{shown(out[0])} is in inputs and in exclude; leave it in one of them"
            )
        if self.scale_targets == "robust":
            raise InputError(
                "scale_targets: 'robust' has a smooth clip, beyond which no number can be "
                "predicted; write 'standard' or 'quantile'"
            )
        return self

    @model_validator(mode="after")
    def _one_source_each(self) -> "Data":
        if isinstance(self.train, (float, str)):
            raise InputError("train is {column = ..., is = ...} or {inputs = ..., target = ...}")
        for part in ("validation", "test"):
            given, file = getattr(self, part), getattr(self, f"{part}_file")
            if given is not None and file is not None:
                raise InputError(f"give {part} (a share of the rows) or {part}_file, not both")
            targets = getattr(self, f"{part}_targets_file")
            if targets is not None and file is None:
                raise InputError(f"{part}_targets_file needs {part}_file, the inputs")
            if file is not None and targets is None and self.targets_file is not None:
                raise InputError(f"give {part}_targets_file too, as targets_file is given")
            if isinstance(given, str) and self.groups is not None:
                raise InputError(
                    f"{part} = {shown(given)} cuts through groups; give a share of the rows"
                )
        held_out = share_of(self.validation) + share_of(self.test)
        if held_out >= 1.0:
            raise InputError(
                f"validation and test together hold out {held_out:g} of the rows; it must be below "
                "1, so that some are left to train on"
            )
        return self

    @property
    def array_inputs(self) -> list[str] | None:
        """The inputs, of an .npz file the array of the rows to train on."""
        return [self.train.inputs] if isinstance(self.train, Arrays) else self.inputs

    @property
    def array_target(self) -> list[str] | None:
        """The target, of an .npz file the array of the rows to train on."""
        return [self.train.target] if isinstance(self.train, Arrays) else self.target

    @property
    def plans(self) -> dict[str, ColumnPlan]:
        """What the columns are to be taken for, by name or pattern."""
        return {name: ColumnPlan(**about.model_dump()) for name, about in self.columns.items()}


FILES = ("file", *(name for name in Data.model_fields if name.endswith("_file")))


class DenseLayer(Section):
    """As `Dense`; the last layer's units may be left to the data."""

    kind: Literal["dense"] = Field("dense", exclude=True)
    units: int | None = None
    activation: Annotated[Spec, named(ACTIVATIONS, get_activation)] = "identity"
    sources: list[int] | None = None
    bias: bool = Dense.bias
    dropout: float = Dense.dropout
    l1: float = Dense.l1
    l2: float = Dense.l2
    initializer: Annotated[Spec, named(INITIALIZERS, _initializer)] = "auto"
    max_norm: float | None = None

    @field_validator("units", "dropout", "l1", "l2", "max_norm")
    @classmethod
    def _as_dense_says(cls, value: Any, info: ValidationInfo) -> Any:
        if value is not None:
            _ask(Dense, {"units": 1, info.field_name: value}, f"Dense: {info.field_name}")
        return value

    def layer(self, outputs: int) -> Layer:
        """The layer, with so many units if the file leaves them open."""
        values = self.model_dump()
        if self.units is None:
            values["units"] = outputs
        return Dense(**values)


class OtherLayer(Section):
    """A layer of another kind: its own settings, as its class says; the last layer's units may be
    left to the data."""

    kind: str

    @model_validator(mode="after")
    def _as_its_class_says(self) -> "OtherLayer":
        self.layer(outputs=1)
        return self

    def layer(self, outputs: int) -> Layer:
        """The layer, with so many units if the file leaves them open."""
        values = self.model_dump(exclude={"kind"})
        if values.get("units", 1) is None:
            values["units"] = outputs
        return LAYERS[self.kind](**values)


# Types of settings that layers of several kinds have, where a file's are others than Python's.
LAYER_TYPES: dict[str, Any] = {
    "activation": Annotated[Spec, named(ACTIVATIONS, get_activation)],
    "gate": Annotated[Spec, named(ACTIVATIONS, get_activation)],
    "initializer": Annotated[Spec, named(INITIALIZERS, _initializer)],
    "units": int | None,
    "edges": list[list[float]] | None,
}


WHOLE = tuple[int, ...] | None


def _section_of(kind: str, cls: type[Layer]) -> type[OtherLayer]:
    """The section whose keys are the fields of a layer's class."""
    hints = get_type_hints(cls)
    lists = {name: list[int] | None for name, hint in hints.items() if hint == WHOLE}
    types = {**hints, **lists, **LAYER_TYPES}
    settings: Any = {}
    for field in fields(cls):  # type: ignore[arg-type]
        usual = list(field.default) if isinstance(field.default, tuple) else field.default
        settings[field.name] = types[field.name], ... if usual is MISSING else usual
    if "units" in settings:
        settings["units"] = (types["units"], None)
    settings["kind"] = (Literal[kind], ...)
    return create_model(kind, __base__=OtherLayer, **settings)


LAYER_SECTIONS: dict[str, type[Section]] = {
    "dense": DenseLayer,
    **{kind: _section_of(kind, cls) for kind, cls in LAYERS.items() if cls is not Dense},
}


def _layer(value: Any) -> Any:
    """A table of [[layers]], read by its kind."""
    if not isinstance(value, dict):
        return DenseLayer.model_validate(value)
    kind = value.get("kind", "dense")
    if not isinstance(kind, str) or kind not in LAYER_SECTIONS:
        raise InputError(f"kind: unknown layer {shown(kind)}{did_you_mean(kind, LAYER_SECTIONS)}")
    return LAYER_SECTIONS[kind].model_validate(value)


class Training(Section):
    """Loss and reduction, and everything else as `Settings` says."""

    loss: Annotated[LossName | dict[str, Any], named(LOSSES, get_loss)]
    reduction: Reduction | None = None
    epochs: int = Settings.epochs
    batch_size: Annotated[int | Literal["full"], PlainValidator(_batch_size)] = 32
    optimizer: Annotated[Spec, named(RULES, _optimizer)] = "adam"
    learning_rate: float | None = Settings.learning_rate
    schedule: Annotated[Spec, named(SCHEDULES, _schedule)] = "constant"
    warmup: float = Settings.warmup
    dropout_schedule: Annotated[Spec, named(SCHEDULES, _schedule)] = "constant"
    mixup: float | None = Settings.mixup
    shuffle: Annotated[Shuffle, PlainValidator(_shuffle)] = Settings.shuffle
    target_loss: float | None = Settings.target_loss
    patience: int | None = Settings.patience
    min_delta: float = Settings.min_delta
    restore_best: bool = Settings.restore_best
    best: Literal["first", "last"] = Settings.best
    watch: Annotated[Spec | None, PlainValidator(_as_it_is)] = None
    metrics: Annotated[list[Spec] | None, PlainValidator(_as_it_is)] = None
    record_steps: bool = Settings.record_steps
    initialize: Literal["data"] | None = Settings.initialize
    parallel: dict[str, int | Literal["none"]] = {}
    rate_factors: dict[str, float | Literal["ntk"]] = {}
    weight_decay: float | None = None
    weight_decay_schedule: Annotated[Spec, named(SCHEDULES, _schedule)] = "constant"
    decay_factors: dict[str, float | Literal["ntk"]] = {}
    clip_norm: float | None = None
    clip_value: float | None = None
    accumulate: int = Settings.accumulate
    sam_radius: float | None = None
    average: Annotated[Spec | None, PlainValidator(_average)] = None
    time: str | float | None = None
    class_weight: Annotated[
        dict[str, float] | Literal["balanced"] | None, PlainValidator(_class_weight)
    ] = None
    checkpoint: str = Checkpoints.every
    keep: int = Checkpoints.keep

    @field_validator("checkpoint", "keep")
    @classmethod
    def _as_checkpoints_say(cls, value: Any, info: ValidationInfo) -> Any:
        given = {"every" if info.field_name == "checkpoint" else "keep": value}
        _ask(Checkpoints, {"folder": "checkpoints", **given}, str(info.field_name))
        return value

    @field_validator(
        *("epochs", "learning_rate", "warmup", "patience", "min_delta", "rate_factors", "parallel"),
        *("mixup", "clip_norm", "clip_value", "accumulate", "sam_radius", "time"),
        *("watch", "metrics"),
    )
    @classmethod
    def _as_settings_say(cls, value: Any, info: ValidationInfo) -> Any:
        _ask(Settings, {info.field_name: value}, str(info.field_name))
        return value

    @model_validator(mode="after")
    def _together(self) -> "Training":
        self.settings(seed=0)
        return self

    def settings(self, seed: int) -> Settings:
        """How to train."""
        others = {"loss", "reduction", "class_weight", "checkpoint", "keep"}
        return Settings(seed=seed, **self.model_dump(exclude=others))


class ModelSection(Section):
    """``preset``: the name of a recipe for what the file leaves out (`mlp.app.presets`)."""

    preset: str | None = None


class Config(Section):
    """A whole file. ``path`` is the file it was read from."""

    seed: Annotated[int, Field(ge=0)] = 0
    backend: str | None = None
    threads: Annotated[int, AfterValidator(_threads)] | None = None
    precision: Literal["float32", "tf32", "float64", "mixed", "mixed_bfloat16"] = "float32"
    model: ModelSection = ModelSection()
    data: Data
    layers: Annotated[list[Annotated[Any, PlainValidator(_layer)]], Field(min_length=1)]
    training: Training

    _path: Path = Path("settings")

    @property
    def path(self) -> Path:
        return self._path

    @model_validator(mode="after")
    def _fit(self) -> "Config":
        """Layers and loss must go together, whatever the data are."""
        for index, layer in enumerate(self.layers):
            if getattr(layer, "units", 1) is None and index != self.output:
                raise InputError(
                    f"layers.{index}.units: missing; only the last layer's units may be left out"
                )
        watch = self.training.watch
        if watch not in (None, "loss") and not self.validates:
            raise InputError(
                f"training.watch: {shown(watch)} needs data.validation or data.validation_file"
            )
        with _under("layers"):
            made = [layer.layer(2) for layer in self.layers]
            named = [k for layer in made for k in getattr(layer, "columns", None) or ()]
            outputs = outputs_for(get_loss(self.training.loss), 2)
            network = self.network(inputs=2 + max(named, default=0), outputs=outputs)
        with _under("training.loss"):
            Objective(network, self.training.loss, self.training.reduction)
        return self

    @property
    def validates(self) -> bool:
        """Whether there are validation data."""
        return self.data.validation is not None or self.data.validation_file is not None

    @property
    def output(self) -> int:
        """The index of the layer whose units are the outputs: the last one that has any."""
        with_units = [i for i, layer in enumerate(self.layers) if hasattr(layer, "units")]
        return with_units[-1] if with_units else len(self.layers) - 1

    @property
    def embeds(self) -> bool:
        """Whether there is an embedding that leaves its columns to the data."""
        made = (layer.layer(1) for layer in self.layers)
        return any(isinstance(layer, Embedding) and layer.columns is None for layer in made)

    @property
    def reads_rows(self) -> bool:
        """Whether a layer wants rows to be fitted to."""
        return any(layer.layer(1).reads_rows for layer in self.layers)

    def network(self, inputs: int, outputs: int, columns: Columns | None = None) -> Network:
        """The layers on so many inputs; ``outputs`` units last if the file leaves them open.
        columns: what the data say of the inputs; without them, they are as they may be."""
        if columns is None:
            every, rows = tuple(range(inputs)), np.repeat([[0.0], [1.0]], inputs, axis=1)
            columns = Columns(every, every, {inputs - 1: 2}, rows)
        layers = []
        for section in self.layers:
            layer, columns = section.layer(outputs).fitted(columns)
            layers.append(layer)
        return Network(inputs, layers)

    def settings(self) -> Settings:
        """How to train. Without validation data the metrics are those of the other parts."""
        settings = self.training.settings(self.seed)
        return settings if self.validates else replace(settings, metrics=None)


SECTIONS: dict[str, type[Section]] = {
    "model": ModelSection,
    "data": Data,
    "layers": DenseLayer,
    "training": Training,
}


def _ask(cls: Callable[..., Any], values: dict[Any, Any], prefix: str) -> None:
    """What the class has to say against a value, without the name, which the key gives already."""
    try:
        cls(**values)
    except InputError as error:
        raise InputError(str(error).removeprefix(prefix).lstrip(": ")) from error


@contextmanager
def _under(key: str) -> Iterator[None]:
    """What is said against several settings at once, with the key to look at."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{key}: {error}") from error


# ------------------------------------------------------------------------------ reading


def load(path: str | os.PathLike[str], overrides: Sequence[str] = ()) -> Config:
    """The settings in a .toml file, or a .json file of the same layout.

    overrides: "training.epochs=5", "layers.0.units=32" (layers count from 0 here): each value is
    read as TOML, a bare word as text. Paths in the file are relative to its folder, paths in
    overrides to the current one. Raises InputError that lists every mistake.
    """
    path = checked_path(path)
    values = _parse(path)
    if isinstance(values.get("data"), dict):
        for name in FILES:
            value = values["data"].get(name)
            if isinstance(value, str):
                values["data"][name] = str(path.parent / os.path.expanduser(value))
    asked = copy.deepcopy(values)
    for text in of_preset(overrides):
        _override(asked, text)
    values = with_preset(values, asked)
    given = [_override(values, text) for text in overrides]
    _check_paths(values.get("data"), path, "data")
    try:
        config = Config.model_validate(values)
    except ValidationError as error:
        problems = [_problem(details, given, values) for details in error.errors()]
        head = f"{path}: " if len(problems) == 1 else f"{path} has {len(problems)} mistakes:\n  "
        raise InputError(head + "\n  ".join(problems)) from error
    config._path = path
    return config


MOST_TEXT = 1 << 24  # bytes that are read of settings


def _parse(path: Path) -> dict[str, Any]:
    try:
        with open_regular(path) as file:
            text = file.read(MOST_TEXT).decode("utf-8-sig")
        values = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
    except FileNotFoundError as error:
        raise InputError(f"no file {path}; `mlp init {path}` writes a first one") from error
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text; it should be a TOML file") from error
    except InputError:
        raise
    except RecursionError as error:
        raise InputError(f"{path} is nested too deep for settings") from error
    except ValueError as error:  # of either kind, or of an integer of thousands of digits
        kind = "JSON" if path.suffix == ".json" else "TOML"
        raise InputError(f"{path} is not {kind}: {error}{_slip(text, str(error), kind)}") from error
    if not isinstance(values, dict):
        raise InputError(f"{path} holds no settings, but {type(values).__name__}")
    if path.suffix == ".json" and isinstance(values.get("training"), dict):
        training = values["training"]  # of a run that was made when it had the old name
        values["training"] = {RENAMED.get(name, name): x for name, x in training.items()}
    if path.suffix == ".json" and values.pop("version", None) != VERSION:
        _as_meant_before(values, path)
    return values


def _as_meant_before(values: dict[str, Any], path: Path) -> None:
    """The activations of a run's settings by the names of now; in JSON that someone wrote, whose
    age is unknown, InputError for one that had another meaning."""
    layers = values.get("layers")
    for index, layer in enumerate(layers if isinstance(layers, list) else ()):
        name = layer.get("activation") if isinstance(layer, dict) else None
        if name != (now := meant_before(name)):
            if path.name != "settings.json":
                raise InputError(
                    f"{path}: layers.{index}.activation: before version {VERSION} {shown(name)} "
                    f'was what is {shown(now)} now; write that, or "version": {VERSION} at the top '
                    "of the file"
                )
            layer["activation"] = now


BACKSLASHES = {
    "TOML": (
        "in double quotes a backslash begins an escape, as \\n or \\t: write a path in single "
        "quotes, 'C:\\data\\t.csv', or with forward slashes"
    ),
    "JSON": "a backslash begins an escape: write it twice, or write forward slashes",
}
# The usual slips in a line of TOML, and what to write.
SLIPS = {
    r"\s*\[+\s*layers\s*\]": "each layer begins with [[layers]], in double brackets",
    r'.*"[^"]*\\': BACKSLASHES["TOML"],
    r".*[“”„‘’]": "write plain quotes",
    r"[^=]*=\s*(?i:true|false|yes|no|on|off)\b": "write true or false, in small letters",
    r"[^=]*=\s*(?i:none|null|nil)\b": "there is no such value; leave the line out",
    r"[^=]*=\s*[+-]?(\.\d|\d+\.(?!\d))": "write digits on both sides of the point, as in 0.5",
    r"[^=]*=\s*[+-]?\d+,\d": "write a decimal point, as in 0.5",
    r"[^=]*=\s*[^\W\d]": "text stands in quotes",
    r"\s*[\w.]+\s*:": "write key = value",
}


def _slip(text: str, error: str, kind: str) -> str:
    """The usual slip in the line that the error names, if it is one."""
    found = re.search(r"line (\d+)", error)
    line = text.split("\n")[int(found[1]) - 1] if found else ""
    if kind == "JSON":
        return f"; {BACKSLASHES[kind]}" if "\\" in line else ""
    return next((f"; {cure}" for slip, cure in SLIPS.items() if re.match(slip, line)), "")


def _check_paths(values: Any, path: Path, key: str = "") -> None:
    """InputError for a file name with control characters: its backslashes were read as escapes."""
    if isinstance(values, dict):
        for name, value in values.items():
            _check_paths(value, path, f"{key}.{name}" if key else str(name))
    elif isinstance(values, str) and key.endswith("file") and re.search(r"[\x00-\x1f\x7f]", values):
        cure = BACKSLASHES["JSON" if path.suffix == ".json" else "TOML"]
        raise InputError(f"{path}: {key}: {shown(values)} has control characters; {cure}")


# ------------------------------------------------------------------------------ --set key=value


def _override(values: dict[str, Any], text: str) -> str:
    """Put one key=value into the values; returns the key."""
    key, equals, value = text.partition("=")
    key = key.strip()
    if not equals or not key:
        raise InputError(f"--set {text}: expected key=value, as in training.epochs=5")
    *way, last = key.split(".")
    place: Any = values
    for depth, step in enumerate(way):
        so_far = ".".join(way[: depth + 1])
        if isinstance(place, list):
            place = place[_index(place, step, so_far, text)]
        else:
            if isinstance(place.get(step), str):  # activation = "elu" is {name = "elu"} in short
                place[step] = {"name": place[step]}
            place = place.setdefault(step, {})
        if not isinstance(place, (dict, list)):
            raise InputError(f"--set {text}: {so_far} is {shown(place)}, it holds no further keys")
    parsed = _value(value.strip())
    if way == ["data"] and last in FILES and isinstance(parsed, str):
        parsed = os.path.abspath(os.path.expanduser(parsed))
    if isinstance(place, list):
        place[_index(place, last, key, text)] = parsed
    else:
        place[last] = parsed
    return key


def _index(items: list[Any], step: str, key: str, text: str) -> int:
    if not (step.isdecimal() and int(step) < len(items)):
        raise InputError(
            f"--set {text}: there is no {key}; there are 0 to {len(items) - 1}, the first is 0"
        )
    return int(step)


def _value(text: str) -> Any:
    """A value in TOML; a number as Python writes it; else the text itself."""
    try:
        values = tomllib.loads(f"value = {text}")
        if list(values) == ["value"]:
            return values["value"]
    except (ValueError, RecursionError):
        pass
    try:
        return float(text)  # .5 and 1. are no TOML
    except ValueError:
        return text


# ------------------------------------------------------------------------------ explaining


def _problem(details: Any, given: Sequence[str], values: Mapping[str, Any]) -> str:
    """One mistake, as "key: what is expected, not what is there"."""
    location = details["loc"]
    key = ".".join(map(str, location))
    place = f"{key} (given by --set)" if key in given else key
    if details["type"] == "extra_forbidden":
        return f"{place}: unknown key{_nearest_key(location, values)}"
    message = _explain(details)
    return f"{place}: {message}" if place else message


def _nearest_key(location: tuple[Any, ...], values: Mapping[str, Any]) -> str:
    name, section = location[-1], location[0] if len(location) > 1 else ""
    if name in RENAMED:
        return f"; it is now {RENAMED[name]}"
    known = SECTIONS.get(section, Config)
    if section == "layers":
        known = LAYER_SECTIONS[values["layers"][location[1]].get("kind", "dense")]
    if ours(name, known.model_fields) is None:
        for other, cls in SECTIONS.items():
            place = "[[layers]]" if other == "layers" else f"[{other}]"
            if other != section and name in cls.model_fields:
                return f"; it belongs under {place}"
            if other != section and (same := ours(name, cls.model_fields)):
                return f"; did you mean '{same}' under {place}?"
    return did_you_mean(name, known.model_fields)


EXPECTED = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "string_type": "text",
    "dict_type": "a table",
    "list_type": "a list (of tables: [[layers]] in double brackets)",
    "model_type": "a table of settings (one: [...] in single brackets)",
    "model_attributes_type": "a table of settings",
    "greater_than": "a number above {gt:g}",
    "greater_than_equal": "a number from {ge:g} on",
    "less_than": "a number below {lt:g}",
}


def _explain(details: Any) -> str:
    """What pydantic found, in our words."""
    kind, context = details["type"], details.get("ctx", {})
    value = _shortened(details["input"])
    if kind == "missing":
        return "missing; it has no default"
    if kind == "too_short":
        return "at least one is needed, the output layer"
    if kind == "value_error":  # an InputError of ours
        return str(context["error"])
    if kind == "literal_error":
        expected = context["expected"]
        near = did_you_mean(
            details["input"], expected.replace(" or ", ", ").replace("'", "").split(", ")
        )
        return f"expected {expected}, not {value}{'' if near.startswith('; known') else near}"
    if kind in EXPECTED:
        return f"expected {EXPECTED[kind].format(**context)}, not {value}"
    return f"{details['msg']}, not {value}"


def _shortened(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:56]} ..."


# ------------------------------------------------------------------------------ compared


def alike(config: Config) -> dict[str, Any]:
    """The settings by key that all ranks of a run must have; files may lie elsewhere for each."""
    free = {"backend", "threads", *(f"data.{name}" for name in FILES)}
    settings = flat(config.model_dump(mode="json"))
    return {key: value for key, value in settings if key not in free}


def flat(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """The settings by dotted key."""
    entries = value.items() if isinstance(value, dict) else enumerate(value)
    for name, entry in entries:
        path = f"{key}.{name}" if key else str(name)
        if isinstance(entry, (dict, list)):
            yield from flat(entry, path)
        else:
            yield path, entry
