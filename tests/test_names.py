"""Name tables: their types are their names, and a setting is refused, or taken as it is meant."""

import json
from collections.abc import Mapping
from dataclasses import fields
from types import UnionType
from typing import Any, Literal, get_args, get_origin

import numpy as np
import pytest

from mlp.app.config import Config, Data, DenseLayer, Training
from mlp.errors import InputError, did_you_mean
from mlp.formulas.activations import ACTIVATIONS, ActivationName
from mlp.formulas.averages import AVERAGES, AverageName
from mlp.formulas.initializers import INITIALIZERS, InitializerName
from mlp.formulas.losses import LOSSES, LossName
from mlp.formulas.metrics import METRICS, MetricName
from mlp.formulas.optimizers import OPTIMIZERS, OptimizerName
from mlp.formulas.schedules import SCHEDULES, ScheduleName
from mlp.formulas.searches import SEARCHES, SearchName
from mlp.formulas.target_kinds import TARGET_KINDS, TargetKind
from mlp.layers import LAYERS, Dense
from mlp.names import Numbers, make, settings_of, spec
from mlp.network.graph import Network
from mlp.spellings import NEAR, SAME
from mlp.training.settings import RULES, Settings

TABLES = {
    "activation": ACTIVATIONS,
    "average": AVERAGES,
    "metric": METRICS,
    "initializer": INITIALIZERS,
    "loss": LOSSES,
    "optimizer": OPTIMIZERS,
    "schedule": SCHEDULES,
}
OVER_THE_RUN = ("cosine", "polynomial", "flat_cosine", "one_cycle", "coslog4")
NEEDED = {("schedule", name): {"epochs": 3} for name in OVER_THE_RUN}
NEEDED[("average", "swa")] = {"start": 3}
ENTRIES = [(kind, name) for kind, table in TABLES.items() for name in table]
entries = pytest.mark.parametrize(("kind", "name"), ENTRIES)


def mapping(kind, name, **settings):
    return {"name": name} | NEEDED.get((kind, name), {}) | settings


def made(kind, name, **settings):
    return make(TABLES[kind], mapping(kind, name, **settings), kind)


@pytest.mark.parametrize(
    ("table", "names"),
    [
        (ACTIVATIONS, ActivationName),
        (AVERAGES, AverageName),
        (INITIALIZERS | {"auto": None}, InitializerName),
        (LOSSES, LossName),
        (METRICS, MetricName),
        (OPTIMIZERS, OptimizerName),
        (SEARCHES, SearchName),
        (SCHEDULES, ScheduleName),
        (TARGET_KINDS, TargetKind),
    ],
)
def test_the_type_of_its_names_is_the_table(table, names):
    assert set(get_args(names)) == set(table)


# A value of each type that a setting may have, and values that it may not.
WRONG = {
    float: ["0.5", None, True, [0.5], np.array([0.5, 0.5]), np.nan, -np.inf, 1j],
    bool: ["yes", None, 1, 0.0, np.array([True, False])],
    Literal: ["nomal", None, 1, ["uniform"]],
    UnionType: ["0.5", None, True, [], ["0.5"], [0.5, np.nan], -np.inf, 1j],  # Numbers
    str | Mapping[str, Any]: [3, None, 0.5, ["tanh"]],  # another entry of the table
}
SETTINGS = [
    (kind, name, field)
    for kind, name in ENTRIES
    for field in (fields(made(kind, name)) if settings_of(made(kind, name)) else ())
]
settings = pytest.mark.parametrize(
    ("kind", "name", "field"), SETTINGS, ids=[f"{k}-{n}-{f.name}" for k, n, f in SETTINGS]
)


@settings
def test_a_setting_of_another_type_is_named(kind, name, field):
    for value in WRONG.get(field.type) or WRONG[get_origin(field.type) or field.type]:
        with pytest.raises(InputError) as error:
            made(kind, name, **{field.name: value})
        assert f"{field.name} must " in str(error.value)
        assert str(error.value).endswith(f", not {value!r}")


@settings
def test_numpy_s_numbers_are_taken_and_become_python_s(kind, name, field):
    """In a formula on float32 a float64 of NumPy's would make the result float64."""
    value = getattr(made(kind, name), field.name)
    if field.type is bool:
        alike = [np.bool_(value)]
    elif field.type is float:
        alike = [np.float64(value), np.float32(value)]
        alike += [np.int64(value), np.uint8(value)] if value == int(value) else []
    elif field.type == Numbers:
        alike = [np.float64(value), np.float32(value)] if isinstance(value, float) else []
    else:
        alike = [np.str_(value)]
    for given in alike:
        thing = made(kind, name, **{field.name: given})
        found = getattr(thing, field.name)
        assert type(found) in (bool, int, float, str)
        assert found == given
        for written in (thing, mapping(kind, name, **{field.name: given})):
            json.dumps(spec(TABLES[kind], written, kind))


@entries
def test_what_is_written_makes_the_same_thing(kind, name):
    """And a mapping is written as it is."""
    thing = made(kind, name)
    written = json.loads(json.dumps(spec(TABLES[kind], thing, kind)))
    assert make(TABLES[kind], written, kind) == thing
    assert spec(TABLES[kind], mapping(kind, name), kind) == mapping(kind, name)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"name": 3}, "unknown schedule 3; known: constant, step"),
        ({"name": ["step"]}, r"unknown schedule \['step'\]; did you mean 'step'\?"),
        ({"name": "cosine"}, "schedule 'cosine' needs a value for 'epochs'"),
        ({"epochs": 3}, "schedule {'epochs': 3} lacks its name, as in name = 'constant'"),
    ],
)
def test_what_is_not_a_specification(given, message):
    with pytest.raises(InputError, match=message):
        make(SCHEDULES, given, "schedule")


# --- what others call it ---------------------------------------------------------------------

# Every list of names that a user may choose from.
CHOICES = {
    **{kind: list(table) for kind, table in TABLES.items()},
    "layer": list(LAYERS),
    "top level": list(Config.model_fields),
    "[data]": list(Data.model_fields),
    "[[layers]]": list(DenseLayer.model_fields),
    "[training]": list(Training.model_fields),
    "Settings": [field.name for field in fields(Settings)],
    **{
        f"Literal {key}": list(names)
        for key, names in {
            "precision": get_args(Config.model_fields["precision"].annotation),
            "reduction": ("sum", "mean"),
            "watch": ("loss", "validation_loss"),
            "scale_inputs": ("standard", "range", "none"),
        }.items()
    },
    "optimizer in files": RULES,
    **{f"settings of {kind} {name}": settings_of(TABLES[kind][name]) for kind, name in ENTRIES},
    **{f"settings of {kind}": settings_of(cls) for kind, cls in LAYERS.items()},
}
FOREIGN = [
    (own, other, answer)
    for table, answer in (
        (SAME, "; did you mean '{}'?"),
        (NEAR, "; there is none here, the nearest is '{}'"),
    )
    for own, others in table.items()
    for other in others.split(", ")
]


@pytest.mark.parametrize(("own", "other", "answer"), FOREIGN, ids=[o for _, o, _ in FOREIGN])
def test_a_name_from_elsewhere_is_answered_with_ours(own, other, answer):
    """In every list that has it, unless the name is ours there too; however it is written."""
    lists = [known for known in CHOICES.values() if own in known and other not in known]
    assert lists, f"{own} is no name of ours"
    for known in lists:
        for written in (other, other.upper(), f"torch.nn.{other}"):
            assert did_you_mean(written, known) == answer.format(own)


@pytest.mark.parametrize("kind", CHOICES)
def test_our_names_in_other_letters_are_recognised(kind):
    for name in CHOICES[kind]:
        camel = "".join(word.capitalize() for word in name.split("_"))
        for written in (name.upper(), camel, name.replace("_", "-"), f"keras.{camel}"):
            assert did_you_mean(written, CHOICES[kind]) == f"; did you mean '{name}'?"


def test_names_from_elsewhere_are_answered_wherever_a_name_is_looked_up():
    for kind, table in TABLES.items():
        for own, other, answer in FOREIGN:
            if own in table and other not in table:
                with pytest.raises(InputError) as error:
                    make(table, other, kind)
                assert str(error.value) == f"unknown {kind} {other!r}{answer.format(own)}"
    with pytest.raises(InputError, match="no setting 'lr'; did you mean 'learning_rate'"):
        Settings.check_names(["lr"])
    with pytest.raises(InputError, match="unknown activation 'ReLU'; did you mean 'relu'"):
        Network(2, [Dense(3, "ReLU")])
    with pytest.raises(InputError, match="unknown initializer 'kaiming'; did you mean 'he_unif"):
        Network(2, [Dense(3, initializer="kaiming")])
