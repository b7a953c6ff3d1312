"""Losses: cost never negative, derivative its derivative, exact where logits are huge."""

import re
from decimal import Decimal, localcontext
from functools import cache

import numpy as np
import pytest

from mlp.errors import InputError
from mlp.formulas.activations import ACTIVATIONS
from mlp.formulas.losses import LOSSES, fits, fitting, get_loss
from mlp.formulas.target_kinds import TARGET_KINDS
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


# ------------------------------------------------------------------ to the rounding of the inputs


def wide(kind, dtype, n):
    """(y, t), (n, 3): targets over the kind's whole range, up to 1e9 and down to 1e-9; outputs at
    the optimum as it rounds, about it by 1e-9 to 10, and anywhere else."""
    rng, shape = np.random.default_rng(4), (n, 3)

    def sizes(low, high):
        return 10.0 ** rng.uniform(low, high, shape)

    def one_of(a, b):
        return np.where(rng.random(shape) < 0.5, a, b)

    sign, hard = one_of(-1.0, 1.0), rng.random((n, 1)) < 0.4
    if kind == "numbers":
        t = sign * sizes(-9, 9)
        best = t
    elif kind == "counts":
        t = one_of(np.floor(sizes(0, 9)), sizes(-9, 9))
        t[0] = 1e9
        best = np.log(t)
        t = np.where(hard, 0.0, t)
    elif kind == "labels":
        t = one_of(sizes(-9, -1), 1.0 - sizes(-9, -1))
        best = np.log(t) - np.log1p(-t)
        t = np.where(hard, one_of(0.0, 1.0), t)
    else:
        t = rng.dirichlet(np.full(3, 0.3), n) + 1e-9
        t /= t.sum(axis=1, keepdims=True)
        best = np.log(t) + sign[:, :1] * sizes(0, 1)[:, :1]
        t = np.where(hard, np.eye(3)[rng.integers(0, 3, n)], t)
        best[: n // 20] = best[: n // 20, :1]  # ties
    y = best + sign * one_of(0.0, sizes(-9, 1))
    y = np.where(rng.random((n, 1)) < 0.2, sign * sizes(-3, 1.94), y)
    t = t.astype(dtype)  # a share that rounds to 1 is a 1
    return y.astype(dtype), t


def on(backend, formula, *arrays):
    """What the backend's kernel of the formula gives, as training runs it."""
    on_device = [backend.asarray(x.copy()) for x in arrays]
    backend.fuse(formula, into=(0,)).bind(*on_device)()
    return backend.to_numpy(on_device[0])


@losses
def test_no_cost_is_below_zero(backend, dtype, name):
    y, t = wide(kind_of(name), dtype, 20_000)
    low, high = TARGET_KINDS[kind_of(name)]
    assert low <= t.min()
    assert t.max() <= high
    cost = on(backend, LOSSES[name].cost, y, t)
    assert cost.dtype == dtype
    assert (cost >= 0.0).all()


def squared(factor):
    """(cost, derivative) of each output of a row."""
    factor = Decimal(factor)
    return (
        lambda y, t: [factor * (z - b) ** 2 for z, b in zip(y, t, strict=True)],
        lambda y, t: [2 * factor * (z - b) for z, b in zip(y, t, strict=True)],
    )


def softmax(y):
    e = [(z - max(y)).exp() for z in y]
    return [x / sum(e) for x in e]


# (cost, derivative) as they stand on paper, of numbers of 80 digits.
PAPER = {
    "half_squared_error": squared(0.5),
    "half_mean_squared_error": squared(0.5),
    "mean_squared_error": squared(1.0),
    "binary_cross_entropy": (
        lambda y, t: [(1 + z.exp()).ln() - b * z for z, b in zip(y, t, strict=True)],
        lambda y, t: [1 / (1 + (-z).exp()) - b for z, b in zip(y, t, strict=True)],
    ),
    "cross_entropy": (
        lambda y, t: [-b * o.ln() for o, b in zip(softmax(y), t, strict=True)],
        lambda y, t: [o - b for o, b in zip(softmax(y), t, strict=True)],
    ),
    "poisson": (
        lambda y, t: [
            z.exp() - b + (b * (b.ln() - z) if b else 0) for z, b in zip(y, t, strict=True)
        ],
        lambda y, t: [z.exp() - b for z, b in zip(y, t, strict=True)],
    ),
}
ULPS = 4  # units of rounding


@cache
def on_paper(name, dtype, which):
    """The values for `wide` inputs, and how far they move if inputs move by ULPS.

    A cost is convex and a derivative monotonous in each input: the ends of the moves are enough.
    """
    formula, (y, t) = PAPER[name][which], wide(kind_of(name), dtype, 150)
    move = ULPS * Decimal(float(np.finfo(dtype).eps))
    values, moved = np.empty(y.shape), np.zeros(y.shape)
    with localcontext(prec=80):
        for row, pair in enumerate(zip(y.tolist(), t.tolist(), strict=True)):
            z, b = ([Decimal(x) for x in part] for part in pair)
            for k, value in enumerate(formula(z, b)):
                values[row, k] = value
                against = [x if j == k else -x for j, x in enumerate(z)]
                for by in (move, -move):
                    of_y = formula([x + by * d for x, d in zip(z, against, strict=True)], b)[k]
                    of_t = formula(z, [x + by * x for x in b])[k]
                    both = float(abs(of_y - value) + abs(of_t - value))
                    moved[row, k] = max(moved[row, k], both)
    return values, moved


@losses
@pytest.mark.parametrize("which", ["cost", "derivative"])
def test_is_exact_for_inputs_a_few_units_of_rounding_away(backend, dtype, name, which):
    """To as many units: so no formula loses digits that its inputs have.

    One exception: a softmax's sum, which is 1 or more, swallows what is below its rounding, so the
    cost of a confident right answer is exact to the rounding of 1. (A second sum, without the 1,
    keeps it; that made a step of 64-32-10 on 32 rows 13% longer.)
    """
    y, t = wide(kind_of(name), dtype, 150)
    found = on(backend, getattr(LOSSES[name], which), y, t).astype("float64")
    values, moved = on_paper(name, dtype, which == "derivative")
    one = t if name == "cross_entropy" else 0.0
    allowed = moved + ULPS * np.finfo(dtype).eps * (abs(values) + one) + np.finfo(dtype).tiny
    assert (abs(found - values) <= allowed).all()


@losses
def test_what_is_not_a_number_stays_so(backend, dtype, name):
    """An output that is NaN is seen in the row's cost, whatever the target."""
    t = wide(kind_of(name), dtype, 150)[1]
    cost = on(backend, LOSSES[name].cost, np.full_like(t, np.nan), t)
    assert np.isnan(cost.sum(axis=1)).all()


# ------------------------------------------------------------------ derivative and least


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
    assert kind_of(name) in TARGET_KINDS


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        ("cross_entrop", "unknown loss 'cross_entrop'; did you mean 'cross_entropy'?"),
        ({"name": "cross_entropy", "x": 1}, "loss 'cross_entropy' has no setting 'x'"),
        (np.square, "a loss is a name or an object with methods cost and derivative"),
        (type(LOSSES["poisson"]), "a loss is a name or an object with methods cost and derivative"),
    ],
)
def test_what_is_no_loss(loss, message):
    with pytest.raises(InputError, match=re.escape(message)):
        get_loss(loss)


@losses
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_which_losses_go_with_an_output(name, activation):
    """Any without a unit of its own; else that unit, or none."""
    unit = getattr(LOSSES[name], "unit", None)
    expected = unit is None or activation in (unit, "identity")
    assert fits(LOSSES[name], ACTIVATIONS[activation]) == expected
    assert (name in fitting(ACTIVATIONS[activation])) == expected


def test_targets_of_an_unknown_kind():
    class Mistaken:
        targets = "clases"
        cost = derivative = staticmethod(lambda xp, y, t: y - t)

    with pytest.raises(InputError, match=r"unknown targets 'clases'; did you mean 'classes'\?"):
        get_loss(Mistaken())


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
