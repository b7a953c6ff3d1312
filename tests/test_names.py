"""Name tables: their types are their names, and a setting is refused, or taken as it is meant."""

import json
from dataclasses import fields
from typing import Literal, get_args, get_origin

import numpy as np
import pytest

from mlp.errors import InputError
from mlp.formulas.activations import ACTIVATIONS, ActivationName
from mlp.formulas.initializers import INITIALIZERS, InitializerName
from mlp.formulas.losses import LOSSES, LossName
from mlp.formulas.metrics import METRICS, MetricName
from mlp.formulas.optimizers import OPTIMIZERS, OptimizerName
from mlp.formulas.schedules import SCHEDULES, ScheduleName
from mlp.formulas.target_kinds import TARGET_KINDS, TargetKind
from mlp.names import make, settings_of, spec

TABLES = {
    "activation": ACTIVATIONS,
    "initializer": INITIALIZERS,
    "loss": LOSSES,
    "optimizer": OPTIMIZERS,
    "schedule": SCHEDULES,
}
NEEDED = {("schedule", "cosine"): {"epochs": 3}}
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
        (INITIALIZERS | {"auto": None}, InitializerName),
        (LOSSES, LossName),
        (METRICS, MetricName),
        (OPTIMIZERS, OptimizerName),
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
    for value in WRONG[get_origin(field.type) or field.type]:
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
