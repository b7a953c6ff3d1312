"""Losses: cost never negative, derivative its derivative, exact where logits are huge."""

import re

import numpy as np
import pytest

from mlp.errors import InputError
from mlp.formulas.activations import ACTIVATIONS
from mlp.formulas.losses import LOSSES, get_loss
from mlp.layers.dense import Dense
from mlp.network.graph import Network
from mlp.network.objective import Objective

losses = pytest.mark.parametrize("name", LOSSES)
N, C = 30, 4


def outputs(scale=3.0):
    return scale * np.random.default_rng(1).standard_normal((N, C))


def kind_of(name):
    return getattr(LOSSES[name], "targets", "numbers")


def targets(name):
    """Targets of the kind that the loss takes, with the extremes of their range among them."""
    rng = np.random.default_rng(2)
    kind = kind_of(name)
    if kind == "numbers":
        return rng.standard_normal((N, C))
    if kind == "counts":
        return np.where(
            rng.random((N, C)) < 0.5, rng.poisson(2.0, (N, C)), 3.0 * rng.random((N, C))
        )
    if kind == "labels":
        return np.where(rng.random((N, C)) < 0.6, rng.integers(0, 2, (N, C)), rng.random((N, C)))
    shares = rng.random((N, C))
    shares /= shares.sum(axis=1, keepdims=True)
    return np.where(np.arange(N)[:, None] % 2, shares, np.eye(C)[rng.integers(0, C, N)])


@losses
def test_cost_is_not_negative(name, dtype):
    for scale in (1e-3, 1.0, 10.0) if kind_of(name) == "counts" else (1e-3, 1.0, 30.0, 1e4):
        y, t = outputs(scale).astype(dtype), targets(name).astype(dtype)
        cost = LOSSES[name].cost(np, y, t)
        assert cost.dtype == dtype
        assert (cost >= 0.0).all()


@losses
def test_derivative_equals_central_differences(name):
    """Of the cost summed over the row, by each output."""
    loss, y, t, h = LOSSES[name], outputs(), targets(name), 1e-5
    expected = np.empty_like(y)
    for k in range(C):
        step = h * (np.arange(C) == k)
        up, down = (loss.cost(np, y + s, t).sum(axis=1) for s in (step, -step))
        expected[:, k] = (up - down) / (2.0 * h)
    actual = loss.derivative(np, y, t)
    np.testing.assert_allclose(actual, expected, rtol=1e-6, atol=1e-6 * abs(expected).max())


RAW = {
    None: lambda t: t,
    "sigmoid": lambda t: np.log(t / (1.0 - t)),
    "softmax": np.log,
    "exp": np.log,
}


@losses
def test_cost_is_least_at_the_target(name):
    """Where the prediction is the target the derivative vanishes, and moving away costs."""
    loss = LOSSES[name]
    inside = {"labels": 0.05, "classes": 0.1 / C, "counts": 0.1}.get(kind_of(name), 0.0)
    t = (1.0 - 2.0 * inside) * targets(name) + inside
    t = t / t.sum(axis=1, keepdims=True) if kind_of(name) == "classes" else t
    y = RAW[getattr(loss, "unit", None)](t)
    np.testing.assert_allclose(loss.derivative(np, y, t), 0.0, atol=1e-14)
    best = loss.cost(np, y, t).sum(axis=1)
    assert (loss.cost(np, y + 0.1 * outputs(), t).sum(axis=1) > best).all()


def test_squared_errors_are_their_definitions():
    y, t = outputs(), targets("mean_squared_error")
    squares = ((y - t) ** 2).sum()
    expected = {
        "half_squared_error": squares / 2.0,
        "half_mean_squared_error": squares / (2.0 * C * N),
        "mean_squared_error": squares / (C * N),
    }
    for name, value in expected.items():
        loss = LOSSES[name]
        total = loss.cost(np, y, t).sum()
        total /= C if loss.average else 1
        total /= N if loss.reduction == "mean" else 1
        assert total == pytest.approx(value, rel=1e-14)


# ------------------------------------------------------------------ losses with their own unit

UNITS = {name: loss.unit for name, loss in LOSSES.items() if getattr(loss, "unit", None)}
with_unit = pytest.mark.parametrize("name", UNITS)

# The cost as a function of the prediction, and its derivative.
NAIVE = {
    "binary_cross_entropy": (
        lambda h, t: -(t * np.log(h) + (1.0 - t) * np.log(1.0 - h)),
        lambda h, t: (h - t) / (h * (1.0 - h)),
    ),
    "cross_entropy": (lambda o, t: -t * np.log(o), lambda o, t: -t / o),
    "poisson": (
        lambda h, t: np.where(t == 0.0, h, t * np.log(np.where(t == 0.0, 1.0, t) / h) - t + h),
        lambda h, t: 1.0 - t / h,
    ),
}


@with_unit
def test_cost_equals_the_naive_formula_at_moderate_logits(name):
    z, t = outputs(), targets(name)
    prediction = ACTIVATIONS[UNITS[name]].f(np, z)
    expected = NAIVE[name][0](prediction, t)
    np.testing.assert_allclose(LOSSES[name].cost(np, z, t), expected, rtol=1e-10, atol=1e-14)


@with_unit
@pytest.mark.parametrize("scale", [1.0, 100.0, "huge"])
def test_delta_is_prediction_minus_target(name, dtype, scale):
    """Exactly, at any z: h - t and o - t (the exp of the Poisson loss is finite up to 88)."""
    if kind_of(name) == "counts" and scale != 1.0:
        scale = 20.0
    scale = {"float32": 1e37, "float64": 1e299}[dtype] if scale == "huge" else scale
    z, t = outputs(scale).astype(dtype), targets(name).astype(dtype)
    with np.errstate(all="raise", under="ignore"):
        delta = LOSSES[name].derivative(np, z, t)
    np.testing.assert_array_equal(delta, ACTIVATIONS[UNITS[name]].f(np, z) - t)


@with_unit
def test_delta_is_the_chain_rule_through_the_unit(name):
    """f'ᵀ(z) applied to the derivative of the naive cost by the prediction."""
    z, t = outputs(1.0), targets(name)
    unit = ACTIVATIONS[UNITS[name]]
    a = unit.f(np, z)
    expected = unit.df(np, NAIVE[name][1](a, t), z, a)
    np.testing.assert_allclose(LOSSES[name].derivative(np, z, t), expected, atol=1e-13)


def test_cross_entropy_is_exact_at_huge_logits(dtype):
    big = {"float32": 1e37, "float64": 1e299}[dtype]
    z = np.array([[big, 0.0, -big], [big, big, -big], [-big, -big, -big]], dtype)
    t = np.eye(3, dtype=dtype)
    with np.errstate(all="raise", under="ignore"):
        cost = LOSSES["cross_entropy"].cost(np, z, t).sum(axis=1)
        wrong = LOSSES["cross_entropy"].cost(np, z, t[:, ::-1].copy()).sum(axis=1)
    np.testing.assert_allclose(cost, [0.0, np.log(2.0), np.log(3.0)], rtol=1e-6)
    np.testing.assert_allclose(wrong, [2.0 * big, np.log(2.0), np.log(3.0)], rtol=1e-6)


def test_cross_entropy_of_logits_infinitely_far_apart(dtype):
    """Their difference overflows; a class of no share still costs nothing."""
    largest = np.finfo(dtype).max
    z = np.array([[largest, -largest]], dtype)
    with np.errstate(over="ignore", invalid="ignore"):
        cost = LOSSES["cross_entropy"].cost(np, z, np.array([[1.0, 0.0]], dtype))
        delta = LOSSES["cross_entropy"].derivative(np, z, np.array([[1.0, 0.0]], dtype))
    assert cost.tolist() == [[0.0, 0.0]]
    assert delta.tolist() == [[0.0, 0.0]]


def test_binary_cross_entropy_is_exact_at_huge_logits(dtype):
    big = {"float32": 1e37, "float64": 1e299}[dtype]
    z = np.array([[big], [-big], [big], [-big]], dtype)
    t = np.array([[1.0], [0.0], [0.0], [1.0]], dtype)
    with np.errstate(all="raise", under="ignore"):
        cost = LOSSES["binary_cross_entropy"].cost(np, z, t)
    assert cost[:, 0].tolist() == [0.0, 0.0, float(z[0, 0]), float(z[0, 0])]


def test_small_costs_are_relatively_accurate(dtype):
    """A confident right answer costs exp(-z), not the rounding of 1."""
    z = np.linspace(20.0, 80.0, 50).astype(dtype)[:, None]
    expected = np.log1p(np.exp(-z.astype("float64")))
    cost = LOSSES["binary_cross_entropy"].cost(np, z, np.ones_like(z))
    np.testing.assert_allclose(cost, expected, rtol=1e-5 if dtype == "float32" else 1e-13)


# ------------------------------------------------------------------ names and what fits


@losses
def test_own_settings_are_of_the_known_kinds(name):
    loss = LOSSES[name]
    assert getattr(loss, "unit", None) in (None, *ACTIVATIONS)
    assert getattr(loss, "reduction", "mean") in ("sum", "mean")
    assert kind_of(name) in ("numbers", "counts", "labels", "classes")


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        ("cross_entrop", "unknown loss 'cross_entrop'; did you mean 'cross_entropy'?"),
        ({"name": "cross_entropy", "x": 1}, "loss 'cross_entropy' has no setting 'x'"),
        (np.square, "a loss is a name or an object with methods cost and derivative"),
    ],
)
def test_what_is_no_loss(loss, message):
    with pytest.raises(InputError, match=re.escape(message)):
        get_loss(loss)


@with_unit
def test_a_loss_with_a_unit_takes_no_other(name):
    unit = UNITS[name]
    for activation in ACTIVATIONS:
        network = Network(2, [Dense(3, activation)])
        if activation in (unit, "identity"):
            objective = Objective(network, name)
            assert objective.unit == ACTIVATIONS[unit]
            assert objective.inner == ACTIVATIONS["identity"]
        else:
            with pytest.raises(InputError, match=f"must be '{unit}' or 'identity', not"):
                Objective(network, name)
