"""Losses: cost never negative, derivative its derivative, exact where logits are huge."""

import re
from decimal import Decimal, localcontext
from functools import cache

import numpy as np
import pytest

from mlp import Ensemble, Model, Scaling, load, train
from mlp.errors import InputError
from mlp.formulas.activations import ACTIVATIONS
from mlp.formulas.losses import LOSSES, fits, fitting, get_loss, outputs_for, rows_of
from mlp.formulas.target_kinds import TARGET_KINDS
from mlp.layers.dense import Dense
from mlp.network.graph import Network
from mlp.network.objective import Objective

losses = pytest.mark.parametrize("name", LOSSES)
bounded = pytest.mark.parametrize("name", [name for name in LOSSES if name != "gaussian"])
alone = [name for name, x in LOSSES.items() if getattr(x, "heads", 1) == 1]  # outputs with targets
N, C = 30, 4


def rows_for(name, outputs=None, dtype="float64"):
    """The further arguments of a formula."""
    return [np.array(row, dtype) for row in rows_of(LOSSES[name], outputs or width(name))]


def outputs(scale=3.0, columns=C):
    return scale * np.random.default_rng(1).standard_normal((N, columns))


def width(name):
    """Outputs of a formula's row."""
    return 2 if name == "gaussian" else C


def kind_of(name):
    return getattr(LOSSES[name], "targets", "numbers")


def positive(name):
    return getattr(LOSSES[name], "positive", False)


def targets(name):
    """Targets of the kind that the loss takes, with the extremes of their range among them."""
    rng = np.random.default_rng(2)
    kind = kind_of(name)
    if name == "ordinal":
        return rng.integers(0, C + 1, (N, 1)).astype(float)
    if kind == "numbers":
        return rng.standard_normal((N, 1 if name == "gaussian" else C))
    if kind == "counts":
        t = np.where(rng.random((N, C)) < 0.5, rng.poisson(2.0, (N, C)), 3.0 * rng.random((N, C)))
        return t + 0.01 if positive(name) else t
    if kind == "labels":
        return np.where(rng.random((N, C)) < 0.6, rng.integers(0, 2, (N, C)), rng.random((N, C)))
    shares = rng.random((N, C))
    shares /= shares.sum(axis=1, keepdims=True)
    return np.where(np.arange(N)[:, None] % 2, shares, np.eye(C)[rng.integers(0, C, N)])


@bounded
def test_cost_is_not_negative(name, dtype):
    for scale in (1e-3, 1.0, 10.0) if kind_of(name) == "counts" else (1e-3, 1.0, 30.0, 1e4):
        y, t = outputs(scale, width(name)).astype(dtype), targets(name).astype(dtype)
        cost = LOSSES[name].cost(np, y, t, *rows_for(name, dtype=dtype))
        assert cost.dtype == dtype
        assert (cost >= 0.0).all()


# ------------------------------------------------------------------ to the rounding of the inputs


def wide(name, dtype, n):
    """(y, t), (n, 3); targets (n, 1) of a loss that has a row for each. Targets are over their
    kind's whole range, up to 1e9 and down to 1e-9; outputs at
    the optimum as it rounds, about it by 1e-9 to 10, and anywhere else."""
    rng, shape, kind = np.random.default_rng(4), (n, 3), kind_of(name)

    def sizes(low, high):
        return 10.0 ** rng.uniform(low, high, shape)

    def one_of(a, b):
        return np.where(rng.random(shape) < 0.5, a, b)

    sign, hard = one_of(-1.0, 1.0), rng.random((n, 1)) < 0.4
    if name == "ordinal":
        y = sign * np.where(rng.random((n, 1)) < 0.2, sizes(-3, 1.94), sizes(-9, 1))
        return y.astype(dtype), rng.integers(0, 4, (n, 1)).astype(dtype)
    if kind == "numbers":
        t = sign * sizes(-9, 9)
        best = t
    elif kind == "counts":
        t = one_of(np.floor(sizes(0, 9)), sizes(-9, 9))
        t[0] = 1e9
        best = np.log(t)
        t = t if positive(name) else np.where(hard, 0.0, t)
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
    if name == "gaussian":  # a mean and the logarithm of a variance
        y, t = np.stack([y[:, 0], rng.uniform(-20.0, 20.0, n)], axis=1), t[:, :1]
    t = t.astype(dtype)  # a share that rounds to 1 is a 1
    return y.astype(dtype), t


def on(backend, name, y, t):
    """(cost, derivative) by the backend's kernel, as training runs it."""
    loss, rows = LOSSES[name], rows_for(name, y.shape[1], y.dtype)

    def both(xp, y, slope, t, *rows):
        return loss.cost(xp, y, t, *rows), loss.derivative(xp, y, t, *rows)

    arrays = [backend.asarray(x.copy()) for x in (y, y, t, *rows)]
    backend.fuse(both, into=(0, 1)).bind(*arrays)()
    return [backend.to_numpy(x) for x in arrays[:2]]


@bounded
def test_no_cost_is_below_zero(backend, dtype, name):
    y, t = wide(name, dtype, 20_000)
    low, high = (0, 3) if name == "ordinal" else TARGET_KINDS[kind_of(name)]
    assert low <= t.min()
    assert t.max() <= high
    cost, derivative = on(backend, name, y, t)
    assert cost.dtype == derivative.dtype == dtype
    assert (cost >= 0.0).all()


def each(cost, derivative):
    """(cost, derivative) of a row, of those of one output."""
    return tuple(
        lambda y, t, f=f: [f(z, b) for z, b in zip(y, t, strict=True)] for f in (cost, derivative)
    )


def squared(factor):
    factor = Decimal(factor)
    return each(lambda z, b: factor * (z - b) ** 2, lambda z, b: 2 * factor * (z - b))


def softmax(y):
    e = [(z - max(y)).exp() for z in y]
    return [x / sum(e) for x in e]


def softplus(z):
    return (1 + z.exp()).ln()


def sigmoid(z):
    return 1 / (1 + (-z).exp())


def sign(x):
    return Decimal((x > 0) - (x < 0))


def binary(cost, slope):
    """(cost, derivative) of t times the cost of a yes at z, and 1 - t times that of a no at -z."""
    return each(
        lambda z, b: b * cost(z) + (1 - b) * cost(-z),
        lambda z, b: b * slope(z) - (1 - b) * slope(-z),
    )


def binary_focal():
    def cost(z):
        return (1 - sigmoid(z)) ** 2 * softplus(-z)

    def slope(z):
        h = sigmoid(z)
        return -((1 - h) ** 2) * (2 * h * softplus(-z) + 1 - h)

    yes, no = Decimal("0.25"), Decimal("0.75")
    return each(
        lambda z, b: yes * b * cost(z) + no * (1 - b) * cost(-z),
        lambda z, b: yes * b * slope(z) - no * (1 - b) * slope(-z),
    )


def focal():
    def cost(y, t):
        return [-b * (1 - o) ** 2 * o.ln() for o, b in zip(softmax(y), t, strict=True)]

    def derivative(y, t):
        shares = softmax(y)
        d = [-b * ((1 - o) ** 2 - 2 * o * (1 - o) * o.ln()) for o, b in zip(shares, t, strict=True)]
        return [x - o * sum(d) for x, o in zip(d, shares, strict=True)]

    return cost, derivative


def multiclass_hinge(power):
    def over(y, t):
        right = sum(b * z for z, b in zip(y, t, strict=True))
        return [max(1 + z - right, Decimal(0)) for z in y]

    def cost(y, t):
        return [(1 - b) * x**power for x, b in zip(over(y, t), t, strict=True)]

    def derivative(y, t):
        v = [
            (1 - b) * (2 * x if power == 2 else sign(x)) for x, b in zip(over(y, t), t, strict=True)
        ]
        return [x - b * sum(v) for x, b in zip(v, t, strict=True)]

    return cost, derivative


def gaussian():
    def cost(y, t):
        return [(t[0] - y[0]) ** 2 * (-y[1]).exp() / 2, y[1] / 2]

    def derivative(y, t):
        d = t[0] - y[0]
        return [-d * (-y[1]).exp(), (1 - d**2 * (-y[1]).exp()) / 2]

    return cost, derivative


def ordinal():
    def cost(y, t):
        return [softplus(-z if t[0] > k else z) if t[0] >= k else 0 for k, z in enumerate(y)]

    def derivative(y, t):
        return [
            (-sigmoid(-z) if t[0] > k else sigmoid(z)) if t[0] >= k else 0 for k, z in enumerate(y)
        ]

    return cost, derivative


def cosine_distance():
    def unit(y):
        return [z / sum(x * x for x in y).sqrt() for z in y]

    def cost(y, t):
        return [(u - v) ** 2 / 2 for u, v in zip(unit(y), unit(t), strict=True)]

    def derivative(y, t):
        u, v = unit(y), unit(t)
        cosine = sum(a * b for a, b in zip(u, v, strict=True))
        length = sum(x * x for x in y).sqrt()
        return [(cosine * a - b) / length for a, b in zip(u, v, strict=True)]

    return cost, derivative


# (cost, derivative) as they stand on paper, of numbers of 80 digits.
PAPER = {
    "half_squared_error": squared(0.5),
    "half_mean_squared_error": squared(0.5),
    "mean_squared_error": squared(1.0),
    "mean_absolute_error": each(lambda z, b: abs(z - b), lambda z, b: sign(z - b)),
    "huber": each(
        lambda z, b: (z - b) ** 2 / 2 if abs(z - b) < 1 else abs(z - b) - Decimal("0.5"),
        lambda z, b: max(min(z - b, Decimal(1)), Decimal(-1)),
    ),
    "log_cosh": each(
        lambda z, b: abs(z - b) + ((1 + (-2 * abs(z - b)).exp()) / 2).ln(),
        lambda z, b: sign(z - b) * (2 / (1 + (-2 * abs(z - b)).exp()) - 1),
    ),
    "quantile": each(lambda z, b: abs(z - b) / 2, lambda z, b: sign(z - b) / 2),
    "gaussian": gaussian(),
    "ordinal": ordinal(),
    "cosine_distance": cosine_distance(),
    "binary_cross_entropy": each(lambda z, b: softplus(z) - b * z, lambda z, b: sigmoid(z) - b),
    "binary_focal": binary_focal(),
    "hinge": binary(lambda z: max(1 - z, Decimal(0)), lambda z: Decimal(-1 if z < 1 else 0)),
    "squared_hinge": binary(
        lambda z: max(1 - z, Decimal(0)) ** 2, lambda z: -2 * max(1 - z, Decimal(0))
    ),
    "cross_entropy": (
        lambda y, t: [-b * o.ln() for o, b in zip(softmax(y), t, strict=True)],
        lambda y, t: [o - b for o, b in zip(softmax(y), t, strict=True)],
    ),
    "focal": focal(),
    "multiclass_hinge": multiclass_hinge(1),
    "multiclass_squared_hinge": multiclass_hinge(2),
    "poisson": each(
        lambda z, b: z.exp() - b + (b * (b.ln() - z) if b else 0), lambda z, b: z.exp() - b
    ),
    "gamma": each(lambda z, b: b / z.exp() - 1 - b.ln() + z, lambda z, b: 1 - b / z.exp()),
    "tweedie": each(
        lambda z, b: 2 * ((z / 2).exp() + b * (-z / 2).exp() - 2 * b.sqrt()),
        lambda z, b: (z / 2).exp() - b * (-z / 2).exp(),
    ),
}
ULPS = 4  # units of rounding
ROWS = 100


@cache
def on_paper(name, dtype, which, rows):
    """The values for `wide` inputs, and how far they move if inputs move by ULPS.

    A cost is convex and a derivative monotonous in each input: the ends of the moves are enough.
    """
    formula, (y, t) = PAPER[name][which], wide(name, dtype, rows)
    move = ULPS * Decimal(float(np.finfo(dtype).eps))
    values, moved = np.empty(y.shape), np.zeros(y.shape)
    apart = kind_of(name) != "classes" and name not in ("cosine_distance", "gaussian")
    columns = range(y.shape[1])
    with localcontext(prec=80):
        for row, pair in enumerate(zip(y.tolist(), t.tolist(), strict=True)):
            z, b = ([Decimal(x) for x in part] for part in pair)
            found = formula(z, b)
            values[row] = [float(x) for x in found]
            for some in [columns] if apart else [[k] for k in columns]:
                against = [x if k in some else -x for k, x in enumerate(z)]
                for by in (move, -move):
                    of_y = formula([x + by * d for x, d in zip(z, against, strict=True)], b)
                    of_t = formula(z, b if name == "ordinal" else [x + by * x for x in b])
                    for k in some:
                        both = float(abs(of_y[k] - found[k]) + abs(of_t[k] - found[k]))
                        moved[row, k] = max(moved[row, k], both)
    return values, moved


def swallowed(name, y, t, value):
    """(of the cost, of the derivative) what two losses lose beyond that, in units of rounding.

    A softmax's sum, which is 1 or more, swallows what is below its rounding, so the cost of a
    confident right answer is exact to the rounding of 1. (A second sum, without the 1, keeps it;
    that made a step of 64-32-10 on 32 rows 13% longer.) The shares of others, 1 - o, are as exact,
    which a focal loss's derivative needs. A direction is exact to the rounding of 1.
    """
    if name == "cross_entropy":
        return t, 0.0
    if name == "focal":
        return t, ACTIVATIONS["softmax"].f(np, y)
    if name == "cosine_distance":
        return np.sqrt(2.0 * value), 1.0 / np.linalg.norm(y, axis=1, keepdims=True)
    return 0.0, 0.0


@losses
@pytest.mark.parametrize("rows", [30, pytest.param(ROWS, marks=pytest.mark.thorough)])
def test_is_exact_for_inputs_a_few_units_of_rounding_away(backend, dtype, name, rows):
    """To as many units: so no formula loses digits that its inputs have."""
    y, t = wide(name, dtype, rows)
    eps, tiny = np.finfo(dtype).eps, np.finfo(dtype).tiny
    lost = swallowed(
        name, *(x.astype("float64") for x in (y, t)), on_paper(name, dtype, 0, rows)[0]
    )
    for which, found in enumerate(on(backend, name, y, t)):
        values, moved = on_paper(name, dtype, which, rows)
        allowed = moved + ULPS * eps * (abs(values) + lost[which] + eps) + tiny
        assert (abs(found.astype("float64") - values) <= allowed).all()


@losses
def test_what_is_not_a_number_stays_so(backend, dtype, name):
    """An output that is NaN is seen in the row's cost, whatever the target."""
    y, t = wide(name, dtype, ROWS)
    cost, _ = on(backend, name, np.full_like(y, np.nan), t)
    assert np.isnan(cost.sum(axis=1)).all()


# ------------------------------------------------------------------ derivative and least


@losses
def test_derivative_equals_central_differences(name):
    """Of the cost summed over the row, by each output."""
    loss, y, t, h = LOSSES[name], outputs(columns=width(name)), targets(name), 1e-5
    expected, rows = np.empty_like(y), rows_for(name)
    for k in range(y.shape[1]):
        step = h * (np.arange(y.shape[1]) == k)
        up, down = (loss.cost(np, y + s, t, *rows).sum(axis=1) for s in (step, -step))
        expected[:, k] = (up - down) / (2.0 * h)
    actual = loss.derivative(np, y, t, *rows)
    np.testing.assert_allclose(actual, expected, rtol=1e-6, atol=1e-6 * abs(expected).max())


RAW = {
    None: lambda t: t,
    "sigmoid": lambda t: np.log(t / (1.0 - t)),
    "softmax": np.log,
    "exp": np.log,
}


@pytest.mark.parametrize("name", [n for n in alone if getattr(LOSSES[n], "proper", True)])
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
canonical = pytest.mark.parametrize("name", ["binary_cross_entropy", "cross_entropy", "poisson"])

# The cost as a function of the prediction, and its derivative.
NAIVE = {
    "binary_cross_entropy": (
        lambda h, t: -(t * np.log(h) + (1.0 - t) * np.log(1.0 - h)),
        lambda h, t: (h - t) / (h * (1.0 - h)),
    ),
    "cross_entropy": (lambda o, t: -t * np.log(o), lambda o, t: -t / o),
    "binary_focal": (
        lambda h, t: (
            -0.25 * t * (1.0 - h) ** 2 * np.log(h) - 0.75 * (1.0 - t) * h**2 * np.log(1.0 - h)
        ),
        lambda h, t: (
            0.25 * t * (2.0 * (1.0 - h) * np.log(h) - (1.0 - h) ** 2 / h)
            - 0.75 * (1.0 - t) * (2.0 * h * np.log(1.0 - h) - h**2 / (1.0 - h))
        ),
    ),
    "focal": (
        lambda o, t: -t * (1.0 - o) ** 2 * np.log(o),
        lambda o, t: t * (2.0 * (1.0 - o) * np.log(o) - (1.0 - o) ** 2 / o),
    ),
    "poisson": (
        lambda h, t: np.where(t == 0.0, h, t * np.log(np.where(t == 0.0, 1.0, t) / h) - t + h),
        lambda h, t: 1.0 - t / h,
    ),
    "gamma": (lambda h, t: np.log(h / t) + t / h - 1.0, lambda h, t: 1.0 / h - t / h**2),
    "tweedie": (
        lambda h, t: 2.0 * (np.sqrt(h) + t / np.sqrt(h) - 2.0 * np.sqrt(t)),
        lambda h, t: h**-0.5 - t * h**-1.5,
    ),
}
naive = pytest.mark.parametrize("name", NAIVE)


@naive
def test_cost_equals_the_naive_formula_at_moderate_logits(name):
    z, t = outputs(), targets(name)
    prediction = ACTIVATIONS[UNITS[name]].f(np, z)
    expected = NAIVE[name][0](prediction, t)
    np.testing.assert_allclose(LOSSES[name].cost(np, z, t), expected, rtol=1e-10, atol=1e-14)


@canonical
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


@naive
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


# ------------------------------------------------------------------ what others compute


def in_torch(loss, y, t):
    """(E, ∂E/∂y) by torch, of its mean over all."""
    torch = pytest.importorskip("torch")
    z = torch.tensor(y, requires_grad=True)
    E = loss(torch, z, torch.tensor(t))
    E.backward()
    return E.item(), z.grad.numpy()


def with_weights(torch):
    return torch.nn.BCEWithLogitsLoss(pos_weight=torch.tensor([1.0, 2.0, 0.5, 4.0]).double())


# Each loss by its mapping, and the same in torch with the mean over rows and outputs.
IN_TORCH = [
    ("mean_absolute_error", lambda torch, y, t: torch.nn.L1Loss()(y, t)),
    (
        {"name": "huber", "delta": 0.7},
        lambda torch, y, t: torch.nn.HuberLoss(delta=0.7)(y, t),
    ),
    (
        "cosine_distance",
        lambda torch, y, t: (1 - torch.nn.CosineSimilarity()(y, t)).mean() / C,
    ),
    (
        {"name": "binary_cross_entropy", "pos_weight": 3},
        lambda torch, y, t: torch.nn.BCEWithLogitsLoss(pos_weight=torch.tensor(3.0).double())(y, t),
    ),
    (
        {"name": "binary_cross_entropy", "pos_weight": [1, 2, 0.5, 4]},
        lambda torch, y, t: with_weights(torch)(y, t),
    ),
    (
        {"name": "cross_entropy", "label_smoothing": 0.2},
        lambda torch, y, t: torch.nn.CrossEntropyLoss(label_smoothing=0.2)(y, t) / C,
    ),
    ("multiclass_hinge", lambda torch, y, t: torch.nn.MultiMarginLoss()(y, t.argmax(1))),
    (
        "multiclass_squared_hinge",
        lambda torch, y, t: torch.nn.MultiMarginLoss(p=2)(y, t.argmax(1)),
    ),
    (
        {"name": "focal", "gamma": 1.5},
        lambda torch, y, t: (-t * (1 - y.softmax(1)) ** 1.5 * y.log_softmax(1)).mean(),
    ),
]


@pytest.mark.parametrize(("loss", "theirs"), IN_TORCH, ids=[str(loss) for loss, _ in IN_TORCH])
def test_is_what_torch_computes(loss, theirs):
    made, y = get_loss(loss), outputs(1.0)
    t = targets(loss if isinstance(loss, str) else loss["name"])
    t = np.eye(C)[t.argmax(axis=1)] if "multiclass" in str(loss) else t
    rows = [np.array(row) for row in rows_of(made, C)]
    E, slope = in_torch(theirs, y, t)
    assert made.cost(np, y, t, *rows).mean() == pytest.approx(E, rel=1e-12)
    np.testing.assert_allclose(made.derivative(np, y, t, *rows) / y.size, slope, atol=1e-14)


def test_is_what_scikit_learn_computes():
    metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(3)
    z, t = rng.normal(size=50), rng.gamma(2.0, 1.0, 50)

    def ours(loss, t):
        return get_loss(loss).cost(np, z[:, None], t[:, None]).mean()

    deviance = metrics.mean_tweedie_deviance
    assert 2 * ours("gamma", t) == pytest.approx(metrics.mean_gamma_deviance(t, np.exp(z)))
    t[:10] = 0.0
    for power in (1.01, 1.3, 1.5, 1.9, 1.99):
        expected = deviance(t, np.exp(z), power=power)
        assert 2 * ours({"name": "tweedie", "power": power}, t) == pytest.approx(expected)
    label = (t > 1.0).astype(float)
    assert ours("hinge", label) == pytest.approx(metrics.hinge_loss(label, z))


def test_label_smoothing_draws_the_targets_towards_equal_shares():
    y, t = outputs(), targets("binary_cross_entropy")
    smooth = get_loss({"name": "binary_cross_entropy", "label_smoothing": 0.2})
    plain = LOSSES["binary_cross_entropy"]
    np.testing.assert_allclose(smooth.cost(np, y, t), plain.cost(np, y, 0.8 * t + 0.1), atol=1e-14)
    np.testing.assert_allclose(
        smooth.derivative(np, y, t), plain.derivative(np, y, 0.8 * t + 0.1), atol=1e-14
    )


@pytest.mark.parametrize("name", ["binary_focal", "focal"])
def test_a_focal_loss_of_gamma_0_is_cross_entropy(name):
    y, t = outputs(), targets(name)
    focal = get_loss({"name": name, "gamma": 0} | ({"alpha": 0.5} if "binary" in name else {}))
    plain = LOSSES[name.replace("focal", "cross_entropy")]
    half = 0.5 if "binary" in name else 1.0
    for formula in ("cost", "derivative"):
        expected = half * getattr(plain, formula)(np, y, t)
        np.testing.assert_allclose(getattr(focal, formula)(np, y, t), expected, atol=1e-13)


# ------------------------------------------------------------------ several outputs for a target


def test_quantiles_are_scikit_learns_pinball_loss():
    metrics = pytest.importorskip("sklearn.metrics")
    y, t, levels = outputs(columns=3), targets("mean_squared_error")[:, :1], (0.1, 0.5, 0.95)
    cost = get_loss({"name": "quantile", "q": levels}).cost(np, y, t, np.array(levels))
    for k, q in enumerate(levels):
        one = get_loss({"name": "quantile", "q": q}).cost(np, y[:, k : k + 1], t).mean()
        assert one == pytest.approx(metrics.mean_pinball_loss(t, y[:, k], alpha=q))
        assert 3 * cost[:, k].mean() == pytest.approx(one)


def test_gaussian_is_torchs_likelihood_of_a_variance():
    torch = pytest.importorskip("torch")
    y, t = outputs(columns=2), targets("gaussian")
    mean, variance, of_t = (torch.tensor(x) for x in (y[:, :1], np.exp(y[:, 1:]), t))
    expected = torch.nn.GaussianNLLLoss(reduction="none", eps=1e-12)(mean, of_t, variance)
    found = LOSSES["gaussian"].cost(np, y, t, *rows_for("gaussian")).sum(axis=1)
    np.testing.assert_allclose(found, expected.numpy()[:, 0], rtol=1e-12)


def test_ordinal_is_the_log_likelihood_of_its_shares():
    z, loss = outputs(), LOSSES["ordinal"]
    shares = loss.answer(np, z)
    assert shares.shape == (N, C + 1)
    np.testing.assert_allclose(shares.sum(axis=1), 1.0, rtol=1e-14)
    for k in range(C + 1):
        cost = loss.cost(np, z, np.full((N, 1), float(k)), *rows_for("ordinal")).sum(axis=1)
        np.testing.assert_allclose(cost, -np.log(shares[:, k]), rtol=1e-12)


LEVELS = {"name": "quantile", "q": [0.1, 0.5, 0.9]}


def of_targets(loss, targets=2, **options):
    """A net of no hidden layer whose weights are 0 and whose biases are -2, -1.9, ..."""
    outputs = outputs_for(get_loss(loss), targets)
    w = np.append(np.zeros(2 * outputs), -2.0 + 0.1 * np.arange(outputs))
    return Model(Network(2, [Dense(outputs)]), loss, w=w, dtype="float64", **options)


def test_predictions_are_in_the_units_of_the_targets(backend):
    scaling = Scaling(np.array([10.0, 0.0]), np.array([2.0, 5.0]))
    X = np.zeros((3, 2))
    levels = of_targets(LEVELS, target_scaling=scaling, backend=backend)
    expected = [10 - 4.0, 10 - 3.8, 10 - 3.6, 5 * -1.7, 5 * -1.6, 5 * -1.5]
    np.testing.assert_allclose(levels.predict(X), [expected] * 3, rtol=1e-14)
    normal = of_targets("gaussian", target_scaling=scaling, backend=backend)
    expected = [10 - 4.0, 2 * np.exp(-0.95), 5 * -1.8, 5 * np.exp(-0.85)]
    np.testing.assert_allclose(normal.predict(X), [expected] * 3, rtol=1e-14)
    if backend.name != "numpy":
        on_device = normal.predict(backend.asarray(X))
        np.testing.assert_allclose(backend.to_numpy(on_device), [expected] * 3, rtol=1e-14)


def test_metrics_measure_the_level_nearest_to_one_half_and_the_mean():
    X, t = np.zeros((4, 2)), np.arange(8.0).reshape(4, 2)
    for loss, point in ((LEVELS, [-1.9, -1.6]), ("gaussian", [-2.0, -1.8])):
        found = of_targets(loss).evaluate(X, t)
        assert found["mse"] == pytest.approx(((t - point) ** 2).mean(), rel=1e-12)


def test_quantiles_do_not_cross():
    """Unless it is asked for; each target's for itself."""
    y = np.array([[3.0, 1.0, 2.0, 0.0, 5.0, 4.0]])
    assert get_loss(LEVELS).answer(np, y).tolist() == [[1.0, 2.0, 3.0, 0.0, 4.0, 5.0]]
    assert get_loss(LEVELS | {"non_crossing": False}).answer(np, y) is y


@pytest.mark.parametrize("loss", [LEVELS, "gaussian", "ordinal"])
def test_losses_with_heads_are_trained_saved_and_loaded(loss, tmp_path):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(60, 2))
    t = X + 0.1 * rng.normal(size=(60, 2))
    t = np.digitize(t[:, 0], [-0.5, 0.5]) if loss == "ordinal" else t
    model = Model(Network(2, [Dense(outputs_for(get_loss(loss), 3 if t.ndim == 1 else 2))]), loss)
    result = train(model, X, t, epochs=20, learning_rate=0.05, validation=0.2)
    assert result.history["loss"][-1] < result.history["loss"][0]
    result.model.save(tmp_path / "net")
    found = load(tmp_path / "net")
    assert found.objective.loss == get_loss(loss)
    np.testing.assert_array_equal(found.predict(X), result.model.predict(X))
    if loss == "ordinal":
        assert (found.classify(X) == t).mean() > 0.7


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: of_targets(LEVELS | {"q": [0.5, 0.1]}), "q must rise, as [0.1, 0.5, 0.9], not"),
        (lambda: of_targets({"name": "quantile", "q": 1.0}), "q must lie between 0 and 1"),
        (lambda: of_targets({"name": "quantile", "non_crossing": False}), "is for several q"),
        (lambda: of_targets("gaussian", classes=["a", "b"]), "is for numbers: no classes"),
        (lambda: of_targets("ordinal", classes=["a", "b"], targets=4), "3 outputs; name one more"),
        (
            lambda: Objective(Network(2, [Dense(3)]), "gaussian"),
            "needs 2 outputs for each target (mean, deviation), the last layer has 3 units",
        ),
        (
            lambda: Objective(Network(2, [Dense(6, "softmax")]), LEVELS),
            "the last layer's activation must be 'identity'",
        ),
        (
            lambda: Objective(Network(2, [Ensemble(2, 4)]), "gaussian"),
            "use it on a network without an ensemble",
        ),
        (
            lambda: of_targets("gaussian").evaluate(np.zeros((3, 2)), np.zeros((3, 4))),
            "has 4 columns, the last layer has 4 units, 2 for each target",
        ),
        (
            lambda: of_targets("ordinal", 3).evaluate(np.zeros((2, 2)), [0, 3]),
            "3 is not a class number from 0 to 2 (the last layer has 2 units, one less than",
        ),
        (
            lambda: of_targets("ordinal", 3).learns(np.zeros((3, 2)), ["low", "mid", "high"]),
            "labels in words: their order is not known",
        ),
        (
            lambda: of_targets(
                "gaussian", target_scaling=Scaling.fit(np.ones((3, 2)), ["log1p", "log1p"])
            ),
            "a deviation has no scale of its own here",
        ),
    ],
)
def test_heads_that_do_not_fit_are_refused(make, message):
    with pytest.raises(InputError, match=re.escape(message)):
        make()


def test_samples_are_checked_again_by_a_loss_that_asks_for_others():
    X, t = np.zeros((3, 2)), np.zeros((3, 2))
    found = of_targets("poisson").samples(X, t)
    assert of_targets("poisson").samples(found) is found
    with pytest.raises(InputError, match="is not above 0"):
        of_targets("gamma").samples(found)
    found = of_targets("gaussian").samples(X, t)
    with pytest.raises(InputError, match="has 2 columns, the last layer has 4 units"):
        of_targets("mean_squared_error", 4).samples(found)


def test_words_have_the_order_of_the_model_s_classes():
    model = of_targets("ordinal", 3, classes=["low", "mid", "high"])
    assert model.samples(np.zeros((3, 2)), ["mid", "high", "low"]).t.ravel().tolist() == [1, 2, 0]
    assert model.classify(np.zeros((1, 2))).tolist() == ["low"]


# ------------------------------------------------------------------ names and what fits


@pytest.mark.parametrize(
    ("loss", "outputs", "message"),
    [
        ({"name": "binary_cross_entropy", "pos_weight": [1, 2]}, 3, "has 2 numbers for 3 outputs"),
        ("cosine_distance", 1, "needs at least 2, the last layer has 1"),
        ({"name": "tweedie", "power": 2}, 1, "tweedie: power must be in (1, 2), not 2"),
        ({"name": "huber", "delta": 0}, 1, "huber: delta must be above 0, not 0"),
    ],
)
def test_settings_that_cannot_be_are_refused_before_training(loss, outputs, message):
    with pytest.raises(InputError, match=re.escape(message)):
        Objective(Network(2, [Dense(outputs)]), loss)


@pytest.mark.parametrize("t", [0.0, 1e-40])
def test_gamma_asks_for_targets_above_0(t):
    objective = Objective(Network(2, [Dense(1)]), "gamma")
    with pytest.raises(InputError, match="row 1, column 0 is not above 0, as this loss needs"):
        objective.check_targets(np.array([1.0, t]))


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
        network = Network(2, [Dense(outputs_for(LOSSES[name], 3), activation)])
        if activation in (unit, "identity"):
            objective = Objective(network, name)
            assert objective.unit == ACTIVATIONS[unit]
            assert objective.inner == ACTIVATIONS["identity"]
        else:
            with pytest.raises(InputError, match=f"must be '{unit}' or 'identity', not"):
                Objective(network, name)
