"""Schedules: their formulas at known points, with and without warm-up."""

import math
from dataclasses import fields

import pytest

from mlp.errors import InputError
from mlp.formulas.schedules import SCHEDULES, Warmup

S = 4  # steps of an epoch
SETTINGS = {
    "constant": {},
    "step": {"every": 2.0, "factor": 0.5},
    "exponential": {"factor": 0.9},
    "cosine": {"epochs": 10.0, "floor": 0.2},
}
# epoch -> factor
POINTS = {
    "constant": {0.0: 1.0, 7.25: 1.0, 1e6: 1.0},
    "step": {0.0: 1.0, 1.75: 1.0, 2.0: 0.5, 3.75: 0.5, 4.0: 0.25, 20.0: 0.5**10},
    "exponential": {0.0: 1.0, 0.5: 0.9**0.5, 1.0: 0.9, 10.0: 0.9**10},
    "cosine": {
        0.0: 1.0,
        2.5: 0.2 + 0.4 * (1.0 + math.sqrt(0.5)),
        5.0: 0.6,
        10.0: 0.2,
        10.25: 0.2,
        500.0: 0.2,
    },
}
schedules = pytest.mark.parametrize("name", SCHEDULES)


def made(name, **changes):
    return SCHEDULES[name](**(SETTINGS[name] | changes))


@schedules
def test_known_points(name):
    for epoch, factor in POINTS[name].items():
        assert made(name)(round(epoch * S), S) == pytest.approx(factor, rel=1e-12)


@schedules
def test_starts_at_one_and_never_rises(name):
    factors = [made(name)(step, S) for step in range(20 * S)]
    assert factors[0] == 1.0
    assert factors == sorted(factors, reverse=True)
    assert min(factors) >= 0.0
    assert all(type(factor) is float for factor in factors)


@schedules
def test_time_is_counted_in_epochs(name):
    for epoch in range(12):
        assert made(name)(epoch * 3, 3) == made(name)(epoch * 7, 7)


@schedules
@pytest.mark.parametrize("epochs", [1.0, 2.5, 0.01])
def test_warm_up_comes_before(name, epochs):
    """Linear from 1/steps to 1, then the schedule as if it began there."""
    warm, steps = Warmup(epochs, then=made(name)), max(1, round(epochs * S))
    expected = [(step + 1) / steps for step in range(steps)]
    assert [warm(step, S) for step in range(steps)] == pytest.approx(expected)
    assert warm(steps - 1, S) == 1.0
    for step in range(10 * S):
        assert warm(steps + step, S) == made(name)(step, S)


def test_warm_up_alone_stays_at_one():
    assert Warmup(1.0)(100, S) == 1.0


CASES = [(name, field.name) for name, made in SCHEDULES.items() for field in fields(made)]


@pytest.mark.parametrize(("name", "setting"), [*CASES, ("warm-up", "epochs")])
@pytest.mark.parametrize("value", [-1.0, math.nan])
def test_bad_settings_are_named(name, setting, value):
    build = Warmup if name == "warm-up" else SCHEDULES[name]
    with pytest.raises(InputError, match=rf"{name}.*{setting}.*{value}"):
        build(**(SETTINGS.get(name, {}) | {setting: value}))


@pytest.mark.parametrize(
    ("name", "setting", "value"),
    [
        ("step", "every", 0.0),
        ("step", "factor", 0.0),
        ("step", "factor", 1.1),
        ("exponential", "factor", 0.0),
        ("exponential", "factor", 1.1),
        ("cosine", "epochs", 0.0),
        ("cosine", "floor", 1.1),
    ],
)
def test_settings_beyond_their_range(name, setting, value):
    with pytest.raises(InputError, match=setting):
        made(name, **{setting: value})
