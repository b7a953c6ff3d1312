"""Full-batch rules that look where they step: L-BFGS and Levenberg-Marquardt. Each equals its
equations, written anew, goes on with bit for bit, and refuses what it is not for."""

import math
import re

import numpy as np
import pytest

import mlp
from backends import Memory, get_backend
from mlp import BatchNorm, Dense, InputError, Model, Network, Scale, train
from mlp.formulas.searches import LBFGS, SEARCHES, direction, wolfe
from mlp.training.loop import plan_training

rng = np.random.default_rng(3)
X = rng.normal(size=(60, 3))
T = np.stack([np.tanh(X[:, 0] - X[:, 1] * X[:, 2]), np.sin(X[:, 0])], axis=1)
S = rng.uniform(0.5, 2.0, 60)
rules = pytest.mark.parametrize("name", SEARCHES)


def model(backend="numpy", loss="mean_squared_error", dtype="float64", l2=1e-3, **options):
    layers = [Dense(4, "tanh", l2=l2), Dense(3, "gelu"), Dense(2, sources=(0, 2))]
    return Model(Network(3, layers), loss, seed=1, dtype=dtype, backend=backend, **options)


def trained(one, name, **options):
    return train(one, X, T, **{"optimizer": name, "batch_size": "full", "epochs": 6} | options)


def value(one, w, s=None):
    moved = one.to("numpy")
    moved.w = w
    E, g = moved.value_and_gradient(X, T, s)
    return float(E), np.asarray(g).copy()


# ------------------------------------------------------------------ L-BFGS


def test_the_direction_is_the_two_loops_of_the_book():
    """Nocedal, Wright, Algorithm 7.4, on vectors; empty places and pairs of no use are left out."""
    rng = np.random.default_rng(0)
    A = rng.normal(size=(9, 9))
    A = A @ A.T + np.eye(9)
    s, g = rng.normal(size=(4, 9)), rng.normal(size=9)
    y = s @ A
    s[2] = y[2] = 0.0  # never used
    y[1] = -s[1]  # no curvature
    rows = np.stack([*(x for pair in zip(s, y, strict=True) for x in pair), g])
    c, used = direction(rows @ rows.T, (0, 3, 2, 1))
    q, alphas = g, {}
    for i in (0, 3):
        alphas[i] = s[i] @ q / (y[i] @ s[i])
        q = q - alphas[i] * y[i]
    r = s[0] @ y[0] / (y[0] @ y[0]) * q
    for i in (3, 0):
        r = r + s[i] * (alphas[i] - y[i] @ r / (y[i] @ s[i]))
    assert used
    np.testing.assert_allclose(c @ rows, -r, rtol=1e-12)
    c, used = direction(np.diag([0.0, 0.0, 4.0]), (0,))
    assert (c.tolist(), used) == ([-0.0, -0.0, -1.0], False)


@pytest.mark.parametrize(
    "f",
    [
        lambda a: ((a - 3.0) ** 2, 2.0 * (a - 3.0)),
        lambda a: (-a / (a * a + 2.0), (a * a - 2.0) / (a * a + 2.0) ** 2),  # Moré, Thuente, (5.1)
        lambda a: (-math.sin(a), -math.cos(a)),
        lambda a: (math.nan,) * 2 if a >= 1 else (-a - 0.1 * math.log(1 - a), -1 + 0.1 / (1 - a)),
        lambda a: (-math.log(a + 1e-9) + a, 1.0 - 1.0 / (a + 1e-9)) if a < 1e6 else (math.inf,) * 2,
    ],
)
@pytest.mark.parametrize("first", [1e-6, 0.3, 1.0, 700.0])
def test_a_line_search_meets_the_wolfe_conditions(f, first):
    asked, rule = [], LBFGS()

    def phi(a):
        asked.append(a)
        return f(a)

    E, slope = f(0.0)
    alpha = wolfe(phi, (0.0, E, slope), first, rule, 0.0)
    assert asked[-1] == alpha > 0.0
    assert len(asked) <= rule.tries
    value, there = f(alpha)
    assert value <= E + rule.c1 * alpha * slope
    assert abs(there) <= rule.c2 * abs(slope)


@pytest.mark.parametrize("weights", [None, S])
def test_lbfgs_ends_where_scipy_s_does(backend, weights):
    """On a convex problem, in about as many steps."""
    scipy = pytest.importorskip("scipy.optimize")
    one = Model(
        Network(3, [Dense(2, l2=0.1)]), "mean_squared_error", dtype="float64", backend=backend
    )
    found = train(one, X, T, sample_weight=weights, optimizer="lbfgs", batch_size="full", epochs=50)
    host = one.to("numpy")

    def E(w):
        host.w = w
        return tuple(np.asarray(x) for x in host.value_and_gradient(X, T, weights))

    best = scipy.minimize(E, backend.to_numpy(one.w), jac=True, options={"gtol": 1e-9})
    np.testing.assert_allclose(backend.to_numpy(found.model.w), best.x, atol=1e-6)
    assert "as low as its digits tell" in found.stopped
    assert len(found.history["loss"]) < 40


# ------------------------------------------------------------------ Levenberg-Marquardt


def jacobian(one, w):
    """∂y/∂w by central differences, (rows, outputs, parameters)."""
    moved, J = one.to("numpy"), np.empty((len(X), 2, len(w)))
    for i in range(len(w)):
        ends = []
        for h in (1e-6, -1e-6):
            moved.w = w + h * (np.arange(len(w)) == i)
            ends.append(moved.predict(X))
        J[:, :, i] = (ends[0] - ends[1]) / 2e-6
    return J


@pytest.mark.parametrize("loss", ["mean_squared_error", "half_squared_error"])
@pytest.mark.parametrize("weights", [None, S])
def test_a_step_solves_the_damped_equations(backend, monkeypatch, loss, weights):
    """(H + I/η) d = g with H = Jᵀ diag(r) J and the penalties', in chunks of rows."""
    monkeypatch.setattr("mlp.training.search.AT_ONCE", 1500)
    one, eta = model(backend, loss), 10.0
    w = backend.to_numpy(one.w).copy()
    E, g = value(one, w, weights)
    r = np.ones(60) if weights is None else weights
    r = 2.0 * r / r.sum() / 2 if loss == "mean_squared_error" else r  # over two outputs
    J = jacobian(one, w)
    H = np.einsum("poi,p,poj->ij", J, r, J)
    l2 = np.zeros(len(w))
    l2[one.network.weight_slices[0, 1]] = 1e-3
    while True:
        expected = w - np.linalg.solve(H + np.diag(l2 + 1.0 / eta), g)
        if value(one, expected, weights)[0] < E:
            break
        eta /= 10.0
    options = {"learning_rate": 10.0, "epochs": 1, "sample_weight": weights}
    found = trained(one, "levenberg_marquardt", **options)
    np.testing.assert_allclose(backend.to_numpy(found.model.w), expected, rtol=1e-5, atol=1e-7)
    assert found.state.learning_rate == pytest.approx(10.0 * eta)


def test_on_a_linear_net_one_step_is_the_least_squares():
    one = Model(Network(3, [Dense(2)]), "mean_squared_error", dtype="float64")
    found = trained(one, "levenberg_marquardt", epochs=1, learning_rate=1e12).model
    A = np.column_stack([X, np.ones(60)])
    expected = np.linalg.lstsq(A, T, rcond=None)[0]
    np.testing.assert_allclose(np.vstack([found.W[0, 1], found.b[1]]), expected, rtol=1e-8)


# ------------------------------------------------------------------ both


@rules
def test_the_loss_gets_lower_in_each_epoch(backend, dtype, name):
    found = trained(model(backend, dtype=dtype), name, epochs=15)
    losses = found.history["loss"]
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < 0.2 * losses[0]
    assert not found.diverged
    assert str(found.model.w.dtype).endswith(dtype)


@rules
def test_a_run_that_is_gone_on_with_is_the_run(name, tmp_path):
    """Bit for bit: pairs and damping are in the state."""
    whole = trained(model(), name, epochs=14)
    half = trained(model(), name, epochs=5)
    mlp.save_state(half.state, tmp_path / "state", get_backend("numpy"))
    again = trained(model(), name, epochs=14, state=mlp.load_state(tmp_path / "state"))
    assert again.history["loss"] == whole.history["loss"]
    assert again.history["learning_rate"] == whole.history["learning_rate"]
    np.testing.assert_array_equal(again.model.w, whole.model.w)


@rules
def test_weights_that_a_callback_moves_count(name):
    """What is known of the old ones does not."""

    def move(run):
        run.model.w[0] += 0.5

    found = trained(model(), name, epochs=2, callbacks=[move])
    once = trained(model(), name, epochs=1).model.w.copy()
    once[0] += 0.5
    assert found.history["loss"][1] == pytest.approx(value(model(), once)[0], rel=1e-12)


@rules
def test_what_is_frozen_stays(name):
    one = model()
    found = trained(one, name, rate_factors={"bias": 0, "W[0, 1]": 0}).model
    moved = {e.describe(): bool((found.w != one.w)[e.part].any()) for e in one.network.layout}
    frozen = {n for n in moved if n.startswith("b") or n == "W[0, 1]"}
    assert {n for n, m in moved.items() if not m} == frozen


@rules
def test_at_the_lowest_point_a_run_ends(name):
    one = Model(Network(1, [Dense(1)]), "mean_squared_error", dtype="float64")
    x = np.arange(4.0)[:, None]
    found = train(one, x, 3 * x + 1, optimizer=name, batch_size="full", epochs=200)
    assert len(found.history["loss"]) < 60
    assert found.history["loss"][-1] < 1e-20
    assert "no lower loss" in found.stopped or "gradient is 0" in found.stopped


@rules
def test_what_it_takes_is_in_the_plan(name):
    one = model()
    P, memory = one.network.parameters, 2 * 10 + 1 if name == "lbfgs" else 1
    options = {"batch_size": "full", "optimizer": name}
    needed = plan_training(one, X, T, settings=mlp.Settings(**options)).parts
    assert needed["optimizer"] == 8 * P * memory
    if name == "levenberg_marquardt":
        assert needed["step"] > 3 * 8 * P * P
    assert mlp.plan(one, 60, **options).needed > 8 * P * memory


@rules
def test_what_does_not_fit_is_refused_whole(monkeypatch, name):
    """No smaller batch is a cure."""
    one = model()
    monkeypatch.setattr(one.backend, "memory", lambda: Memory(10_000, None))
    with pytest.raises(InputError, match=r"needs .* kB, .* has all 60 rows in one batch"):
        trained(one, name)


REFUSED = {
    "batch_size=10": "takes all rows in one batch: batch_size = 'full', not 10",
    "schedule='cosine'": "finds its own step sizes: remove the schedule",
    "sam_radius=0.1": "takes its steps by itself: remove sam_radius",
    "record_steps=True": "takes its steps by itself: remove record_steps",
    "parallel={'shards': 2}": "takes its steps by itself: remove parallel",
    "average='ema'": "takes its steps by itself: remove the average, or use 'swa'",
    "clip_norm=1.0": "takes steps whatever the gradient's size: remove clip_norm",
    "weight_decay=0.1": "cannot have weight_decay; use l2 of the layers",
    "rate_factors={'bias': 0.5}": "rate_factors can only freeze, bias = 0",
}


@rules
@pytest.mark.parametrize("options", REFUSED)
def test_settings_that_are_refused(name, options):
    with pytest.raises(InputError, match=re.escape(REFUSED[options])):
        trained(model(), name, **eval(f"dict({options})"))


@pytest.mark.parametrize(
    ("names", "layers", "loss", "said"),
    [
        (SEARCHES, [Dense(3, dropout=0.1), Dense(2)], "mean_squared_error", "what layer 1 draws"),
        (SEARCHES, [Dense(3), BatchNorm(), Dense(2)], "mean_squared_error", "use layer_norm, or"),
        (SEARCHES, [Dense(3, max_norm=1.0), Dense(2)], "mean_squared_error", "max_norm would"),
        (["levenberg_marquardt"], [Dense(2)], "huber", "is for squared errors, as 'mean_squared"),
        (["levenberg_marquardt"], [Scale(), Dense(2)], "mean_squared_error", "layer 1 is scale"),
        (["levenberg_marquardt"], [Dense(3, "prelu"), Dense(2)], "mean_squared_error", "is prelu"),
        (["levenberg_marquardt"], [Dense(2, l1=0.1)], "mean_squared_error", "l1, which is no squa"),
    ],
)
def test_nets_that_are_refused(names, layers, loss, said):
    for name in names:
        with pytest.raises(InputError, match=re.escape(said)):
            trained(Model(Network(3, layers), loss), name)


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ({"name": "lbfgs", "memory": 0}, "optimizer 'lbfgs': memory must"),
        ({"name": "lbfgs", "c2": 1.0}, "optimizer 'lbfgs': c2 must"),
        ({"name": "levenberg_marquardt", "grow": 1.0}, "'levenberg_marquardt': grow must"),
        ("lbgfs", "unknown optimizer 'lbgfs'; did you mean 'lbfgs'?"),
        ("trainlm", "unknown optimizer 'trainlm'; did you mean 'levenberg_marquardt'?"),
    ],
)
def test_searches_that_are_refused(spec, said):
    with pytest.raises(InputError, match=re.escape(said)):
        mlp.Settings(optimizer=spec)
