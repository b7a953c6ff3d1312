"""Schedules: their formulas at known points, with and without warm-up."""

import math
from dataclasses import fields

import pytest

from mlp.errors import InputError
from mlp.formulas.schedules import SCHEDULES, Cosine, Warmup, following, get_schedule

S = 4  # steps of an epoch
SETTINGS = {
    "constant": {},
    "step": {"every": 2.0, "factor": 0.5},
    "exponential": {"factor": 0.9},
    "cosine": {"epochs": 10.0, "floor": 0.2},
    "inverse_scaling": {"power": 0.5, "rate": 3.0},
    "polynomial": {"epochs": 10.0, "power": 2.0, "floor": 0.2},
    "cosine_restarts": {"epochs": 2.0, "growth": 2.0, "floor": 0.2},
    "flat_cosine": {"epochs": 10.0},
    "one_cycle": {"epochs": 10.0, "rise": 0.2, "start": 0.1, "end": 0.01},
    "coslog4": {"epochs": 15.0},
    "plateau": {},
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
    "inverse_scaling": {0.0: 1.0, 1.0: 0.5, 5.0: 0.25, 0.25: 1.75**-0.5},
    "polynomial": {0.0: 1.0, 2.5: 0.2 + 0.8 * 0.75**2, 5.0: 0.4, 10.0: 0.2, 99.0: 0.2},
    # Cycles of 2, 4, 8, ... epochs.
    "cosine_restarts": {
        **{0.0: 1.0, 1.0: 0.6, 2.0: 1.0, 4.0: 0.6, 6.0: 1.0, 10.0: 0.6, 14.0: 1.0},
        **{0.5: 0.6 + 0.4 * math.sqrt(0.5), 3.0: 0.6 + 0.4 * math.sqrt(0.5)},
    },
    "flat_cosine": {0.0: 1.0, 4.75: 1.0, 5.0: 1.0, 7.5: 0.5, 10.0: 0.0, 99.0: 0.0},
    "one_cycle": {0.0: 0.1, 1.0: 0.55, 2.0: 1.0, 6.0: 0.505, 10.0: 0.01, 99.0: 0.01},
    # log2(1 + 15 t) is 0, 1, ... 4 where t is 0, 1/15, 3/15, 7/15, 1.
    "coslog4": {
        **{0.0: 0.0, 1.0: 0.0, 3.0: 0.0, 7.0: 0.0, 15.0: 0.0},
        **{math.sqrt(2.0) * k - 1.0: 1.0 for k in (1, 2, 4, 8)},
    },
    "plateau": {0.0: 1.0, 1e6: 1.0},
}
# Those that never rise, from 1 at the start.
FALLING = {"constant", "step", "exponential", "cosine", "inverse_scaling", "polynomial"}
FALLING |= {"flat_cosine", "plateau"}
schedules = pytest.mark.parametrize("name", SCHEDULES)


def made(name, **changes):
    return SCHEDULES[name](**(SETTINGS[name] | changes))


FINE = 10_000  # steps of an epoch, where a point lies between those of S


@schedules
def test_known_points(name):
    for epoch, factor in POINTS[name].items():
        steps = S if epoch * S == round(epoch * S) else FINE
        tolerance = 1e-12 if steps == S else 1e-3
        found = made(name)(round(epoch * steps), steps)
        assert found == pytest.approx(factor, rel=tolerance, abs=tolerance)


@schedules
def test_a_factor_is_from_0_to_1(name):
    factors = [made(name)(step, S) for step in range(20 * S)]
    assert all(type(factor) is float for factor in factors)
    assert -1e-15 < min(factors) <= max(factors) == pytest.approx(1.0, abs=0.02)
    assert (factors[0] == 1.0 and factors == sorted(factors, reverse=True)) == (name in FALLING)


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
        ("inverse_scaling", "power", 0.0),
        ("polynomial", "power", 0.0),
        ("cosine_restarts", "growth", 0.9),
        ("one_cycle", "rise", 1.0),
        ("flat_cosine", "flat", 1.0),
        ("plateau", "factor", 1.0),
    ],
)
def test_settings_beyond_their_range(name, setting, value):
    with pytest.raises(InputError, match=setting):
        made(name, **{setting: value})


# ------------------------------------------------------------------ what falls over the whole run


@schedules
def test_without_epochs_it_is_over_the_whole_run(name):
    """By its name or in a mapping, where they are needed; elsewhere what is asked for is made."""
    whole = get_schedule(name, 12)
    changes = {"floor": 0.1} if "floor" in {x.name for x in fields(SCHEDULES[name])} else {}
    part = get_schedule({"name": name} | changes, 12)
    expected = {"epochs": 12} if name not in ("cosine_restarts",) else {}
    known = {x.name for x in fields(SCHEDULES[name])}
    assert whole == SCHEDULES[name](**{k: v for k, v in expected.items() if k in known})
    assert part == SCHEDULES[name](**{k: v for k, v in expected.items() if k in known}, **changes)
    assert get_schedule(whole, 99) is whole


def test_epochs_that_are_given_are_kept():
    assert get_schedule({"name": "cosine", "epochs": 3}, 12) == Cosine(3)


# ------------------------------------------------------------------ PyTorch's


def in_torch(make, steps, losses=None):
    """The factor of each step by a torch.optim.lr_scheduler."""
    torch = pytest.importorskip("torch")
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    scheduler = make(torch.optim.lr_scheduler, optimizer)
    found = []
    for step in range(steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step(*(() if losses is None else (losses[step],)))
    return found


# name: our settings, an epoch of one step; theirs
IN_TORCH = {
    "constant": ({}, lambda m, o: m.ConstantLR(o, factor=1.0)),
    "step": ({"every": 7.0, "factor": 0.3}, lambda m, o: m.StepLR(o, 7, 0.3)),
    "exponential": ({"factor": 0.9}, lambda m, o: m.ExponentialLR(o, 0.9)),
    "cosine": ({"epochs": 40.0, "floor": 0.1}, lambda m, o: m.CosineAnnealingLR(o, 40, 0.1)),
    "polynomial": ({"epochs": 30.0, "power": 2.0}, lambda m, o: m.PolynomialLR(o, 30, 2.0)),
    "cosine_restarts": (
        {"epochs": 3.0, "growth": 2.0, "floor": 0.1},
        lambda m, o: m.CosineAnnealingWarmRestarts(o, 3, 2, 0.1),
    ),
    # Its last step is where ours ends, and its peak is a step before the share's.
    "one_cycle": (
        {"epochs": 39.0, "rise": 11.0 / 39.0},
        lambda m, o: m.OneCycleLR(o, 1.0, total_steps=40, cycle_momentum=False),
    ),
}


@pytest.mark.parametrize("name", IN_TORCH)
def test_equals_torch(name):
    settings, theirs = IN_TORCH[name]
    found = [SCHEDULES[name](**settings)(step, 1) for step in range(40)]
    assert found == pytest.approx(in_torch(theirs, 40), rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("patience", [0, 1, 3])
@pytest.mark.parametrize("warmup", [0.0, 2.0])
def test_plateau_equals_torch_s_whatever_is_watched(patience, warmup):
    losses = [abs(math.sin(1.7 * e)) + 30.0 / (1 + e) ** 2 for e in range(60)]
    schedule = SCHEDULES["plateau"](factor=0.5, patience=patience, floor=1e-3, threshold=0.01)
    theirs = in_torch(
        lambda m, o: m.ReduceLROnPlateau(
            o, factor=0.5, patience=patience, threshold=0.01, min_lr=1e-3, eps=0.0
        ),
        60,
        losses,
    )
    warm = Warmup(warmup, schedule) if warmup else schedule
    for e in range(60):
        ours = following(warm, losses[:e])
        assert ours(S * e, S) == (theirs[e] if e >= warmup else (S * e + 1) / (warmup * S))
    assert len(set(theirs)) > 2


def test_inverse_scaling_is_scikit_learn_s_with_the_samples_as_rate():
    """Its invscaling: learning_rate_init / (t + 1)^power_t after the epoch, t samples seen."""
    n, schedule = 150, SCHEDULES["inverse_scaling"](power=0.4, rate=150.0)
    for epoch in range(5):
        assert schedule(S * epoch, S) == pytest.approx(1.0 / (n * epoch + 1.0) ** 0.4, rel=1e-12)
