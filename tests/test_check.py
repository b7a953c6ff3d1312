"""The gradient check: it passes where backpropagation is right and names what is wrong."""

import re
from dataclasses import dataclass

import numpy as np
import pytest

from mlp import Dense, GradientCheck, InputError, Model, Network, gradient_check
from mlp.data.scaling import Scaling

rng = np.random.default_rng(0)
X, T = rng.normal(size=(8, 3)), rng.normal(size=(8, 2))


def net(activation="tanh", **options):
    return Network(
        3,
        [
            Dense(5, activation, dropout=0.3, l1=0.01, l2=0.02),
            Dense(4, "sigmoid", sources=(0, 1), **options),
            Dense(2, sources=(0, 2)),
        ],
    )


def test_it_passes(backend, dtype):
    """Dropout masks held fixed, penalties, skips, sample weights, scaling; float64 whatever the
    model's dtype."""
    scaling = {"input_scaling": Scaling.standard(X), "target_scaling": Scaling.standard(T)}
    model = Model(net(), "mean_squared_error", backend=backend, dtype=dtype, **scaling)
    before = backend.to_numpy(model.w).copy()
    check = gradient_check(model, X, T, sample_weight=np.arange(8.0), tolerance=1e-7, most=20)
    assert check.passed, str(check)
    assert check.parameters == 20
    assert check.error < 1e-7
    assert (backend.to_numpy(model.w) == before).all()
    assert "agrees with central differences on 20 parameters" in str(check)


def test_all_or_so_many_parameters():
    model = Model(net(), "mean_squared_error")
    assert gradient_check(model, X, T, most=None).parameters == model.network.parameters == 72
    assert gradient_check(model, X, T).parameters == 72
    few = [gradient_check(model, X, T, most=5, seed=seed) for seed in (1, 1, 2)]
    assert few[0] == few[1] != few[2]


@dataclass(frozen=True)
class WrongTanh:
    """tanh with the derivative of the sigmoid."""

    def f(self, xp, z):
        return xp.tanh(z)

    def df(self, xp, v, z, a):
        return v * (a * (1.0 - a))


def test_it_names_the_worst_parameter(backend):
    """A wrong df in the first layer: a parameter of that layer is named, with both numbers, and
    they are the gradient's and the difference quotient's."""
    model = Model(net(WrongTanh()), "mean_squared_error", backend=backend, dtype="float64")
    check = gradient_check(model, X, T)
    assert not check.passed
    assert check.error > 1e-3
    named = re.fullmatch(r"W\[0, 1\]\[(\d), (\d)\]|b\[1\]\[(\d)\]", check.worst)
    assert named, check.worst
    assert "DIFFERS from central differences on 72 parameters: largest error" in str(check)
    assert f"at {check.worst}: {check.backpropagation:.10g} against" in str(check)

    _, g = model.value_and_gradient(X, T, dropout_seed=0)
    gW, gb = model.network.unpack(backend.to_numpy(g))
    i, j, k = named.groups()
    at = gb[1][int(k)] if k else gW[0, 1][int(i), int(j)]
    assert check.backpropagation == pytest.approx(at, rel=1e-12)
    right = Model(net(), "mean_squared_error", w=model.w, backend=backend, dtype="float64")
    _, g = right.value_and_gradient(X, T, dropout_seed=0)
    gW, gb = right.network.unpack(backend.to_numpy(g))
    at = gb[1][int(k)] if k else gW[0, 1][int(i), int(j)]
    assert check.difference == pytest.approx(at, rel=1e-6)


class WrongSign:
    """½ (y - t)² with its derivative turned round: every parameter is wrong."""

    def cost(self, xp, y, t):
        return 0.5 * (y - t) * (y - t)

    def derivative(self, xp, y, t):
        return t - y


def test_a_wrong_loss_is_found():
    model = Model(Network(3, [Dense(2)]), WrongSign())
    check = gradient_check(model, X, T)
    assert not check.passed
    assert check.error == pytest.approx(2.0, rel=1e-6)
    assert check.backpropagation == pytest.approx(-check.difference, rel=1e-6)


def test_a_gradient_that_is_not_a_number_does_not_pass():
    class Broken(WrongSign):
        def derivative(self, xp, y, t):
            return (y - y) / (y - y)

    check = gradient_check(Model(Network(3, [Dense(2)]), Broken()), X, T)
    assert not check.passed


def test_tolerance():
    assert GradientCheck(1e-6, 1e-6, "b[1][0]", 1.0, 1.0, 3).passed
    assert not GradientCheck(2e-6, 1e-6, "b[1][0]", 1.0, 1.0, 3).passed


@pytest.mark.parametrize("options", [{"h": 0.0}, {"tolerance": -1.0}])
def test_settings(options):
    with pytest.raises(InputError, match="h and tolerance must be above 0"):
        gradient_check(Model(net(), "mean_squared_error"), X, T, **options)


def test_data():
    model = Model(net(), "mean_squared_error")
    with pytest.raises(InputError, match="layer 1 expects 3 inputs, X has 2 columns"):
        gradient_check(model, X[:, :2], T)
    with pytest.raises(InputError, match="X has 8 rows, t has 5"):
        gradient_check(model, X, T[:5])
    with pytest.raises(InputError, match="sample_weight must be finite"):
        gradient_check(model, X, T, sample_weight=-np.ones(8))
