"""Losses: cost never negative, derivative its derivative, exact where logits are huge."""

import re
from decimal import Decimal, localcontext
from functools import cache

import numpy as np
import pytest

from mlp.errors import InputError
from mlp.formulas.activations import ACTIVATIONS
from mlp.formulas.losses import LOSSES, fits, fitting, get_loss, rows_of
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


def positive(name):
    return getattr(LOSSES[name], "positive", False)


def targets(name):
    """Targets of the kind that the loss takes, with the extremes of their range among them."""
    rng = np.random.default_rng(2)
    kind = kind_of(name)
    if kind == "numbers":
        return rng.standard_normal((N, C))
    if kind == "counts":
        t = np.where(rng.random((N, C)) < 0.5, rng.poisson(2.0, (N, C)), 3.0 * rng.random((N, C)))
        return t + 0.01 if positive(name) else t
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


def wide(name, dtype, n):
    """(y, t), (n, 3): targets over their kind's whole range, up to 1e9 and down to 1e-9; outputs at
    the optimum as it rounds, about it by 1e-9 to 10, and anywhere else."""
    rng, shape, kind = np.random.default_rng(4), (n, 3), kind_of(name)

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
    t = t.astype(dtype)  # a share that rounds to 1 is a 1
    return y.astype(dtype), t


def on(backend, name, y, t):
    """(cost, derivative) by the backend's kernel, as training runs it."""
    loss = LOSSES[name]

    def both(xp, y, t):
        return loss.cost(xp, y, t), loss.derivative(xp, y, t)

    arrays = [backend.asarray(x.copy()) for x in (y, t)]
    backend.fuse(both, into=(0, 1)).bind(*arrays)()
    return [backend.to_numpy(x) for x in arrays]


@losses
def test_no_cost_is_below_zero(backend, dtype, name):
    y, t = wide(name, dtype, 20_000)
    low, high = TARGET_KINDS[kind_of(name)]
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
def on_paper(name, dtype, which):
    """The values for `wide` inputs, and how far they move if inputs move by ULPS.

    A cost is convex and a derivative monotonous in each input: the ends of the moves are enough.
    """
    formula, (y, t) = PAPER[name][which], wide(name, dtype, ROWS)
    move = ULPS * Decimal(float(np.finfo(dtype).eps))
    values, moved = np.empty(y.shape), np.zeros(y.shape)
    apart = kind_of(name) != "classes" and name != "cosine_distance"  # each output for itself
    with localcontext(prec=80):
        for row, pair in enumerate(zip(y.tolist(), t.tolist(), strict=True)):
            z, b = ([Decimal(x) for x in part] for part in pair)
            found = formula(z, b)
            values[row] = [float(x) for x in found]
            for some in [range(3)] if apart else [[0], [1], [2]]:
                against = [x if k in some else -x for k, x in enumerate(z)]
                for by in (move, -move):
                    of_y = formula([x + by * d for x, d in zip(z, against, strict=True)], b)
                    of_t = formula(z, [x + by * x for x in b])
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
def test_is_exact_for_inputs_a_few_units_of_rounding_away(backend, dtype, name):
    """To as many units: so no formula loses digits that its inputs have."""
    y, t = wide(name, dtype, ROWS)
    eps, tiny = np.finfo(dtype).eps, np.finfo(dtype).tiny
    lost = swallowed(name, *(x.astype("float64") for x in (y, t)), on_paper(name, dtype, 0)[0])
    for which, found in enumerate(on(backend, name, y, t)):
        values, moved = on_paper(name, dtype, which)
        allowed = moved + ULPS * eps * (abs(values) + lost[which] + eps) + tiny
        assert (abs(found.astype("float64") - values) <= allowed).all()


@losses
def test_what_is_not_a_number_stays_so(backend, dtype, name):
    """An output that is NaN is seen in the row's cost, whatever the target."""
    t = wide(name, dtype, ROWS)[1]
    cost, _ = on(backend, name, np.full_like(t, np.nan), t)
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


@pytest.mark.parametrize("name", [n for n, x in LOSSES.items() if getattr(x, "proper", True)])
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
        network = Network(2, [Dense(3, activation)])
        if activation in (unit, "identity"):
            objective = Objective(network, name)
            assert objective.unit == ACTIVATIONS[unit]
            assert objective.inner == ACTIVATIONS["identity"]
        else:
            with pytest.raises(InputError, match=f"must be '{unit}' or 'identity', not"):
                Objective(network, name)
