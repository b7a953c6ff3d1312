"""Initializers: means, variances and limits as the papers have them, the same draw for one seed."""

import math
import re

import numpy as np
import pytest

from mlp import Dense, Network
from mlp.errors import InputError
from mlp.formulas.activations import ACTIVATIONS, get_activation
from mlp.formulas.initializers import INITIALIZERS, get_initializer

FAN_IN, FAN_OUT = 500, 300
SHAPE = (400, 300)  # of one source among several: its rows are not the fan_in

# Variance, and the largest size if there is one.
EXPECTED = {
    "glorot_uniform": (2.0 / 800.0, math.sqrt(6.0 / 800.0)),
    "glorot_normal": (2.0 / 800.0, None),
    "he_uniform": (2.0 / 500.0, math.sqrt(6.0 / 500.0)),
    "he_normal": (2.0 / 500.0, None),
    "lecun_uniform": (1.0 / 500.0, math.sqrt(3.0 / 500.0)),
    "lecun_normal": (1.0 / 500.0, None),
    "orthogonal": (1.0 / 400.0, None),
    "uniform": (0.25 / 3.0, 0.5),
    "normal": (0.0025, None),
    "truncated_normal": (0.0025 * 0.7737413035499232, 0.1),
    "constant": (0.0, 0.0),
    "zeros": (0.0, 0.0),
}

initializers = pytest.mark.parametrize("name", INITIALIZERS)


def drawn(initializer, seed=0):
    return initializer(np.random.default_rng(seed), FAN_IN, FAN_OUT, SHAPE)


@initializers
def test_mean_variance_and_limit(name):
    variance, limit = EXPECTED[name]
    W = drawn(INITIALIZERS[name])
    assert (W.shape, W.dtype) == (SHAPE, np.float64)
    assert abs(W.mean()) <= 5.0 * math.sqrt(variance / W.size)
    # The relative deviation of a sample's variance is sqrt(2/n) for the normal distribution.
    assert W.var() == pytest.approx(variance, rel=5.0 * math.sqrt(2.0 / W.size))
    if limit is None:
        assert abs(W).max() > 3.5 * math.sqrt(variance)
    else:
        assert 0.999 * limit <= abs(W).max() <= limit


@initializers
def test_one_seed_is_one_draw(name):
    first = drawn(INITIALIZERS[name], seed=7)
    np.testing.assert_array_equal(first, drawn(INITIALIZERS[name], seed=7))
    assert name in ("zeros", "constant") or not np.array_equal(
        first, drawn(INITIALIZERS[name], seed=8)
    )


USUAL = {
    **dict.fromkeys(("relu", "leaky_relu", "prelu", "elu", "celu", "softplus"), "he_uniform"),
    **dict.fromkeys(("gelu", "gelu_tanh", "silu", "mish", "hard_swish"), "he_uniform"),
    **dict.fromkeys(("selu", "parametric"), "lecun_normal"),
}


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_auto_is_what_the_activation_wants(activation):
    """Given by name, mapping or object."""
    expected = USUAL.get(activation, "glorot_uniform")
    for given in (activation, {"name": activation}, get_activation(activation)):
        assert get_initializer("auto", given) is INITIALIZERS[expected]


def test_auto_for_an_activation_of_ones_own_is_glorot():
    assert get_initializer("auto", object()) is INITIALIZERS["glorot_uniform"]


class Step:
    """An activation of the user's that says that it is one."""

    rectifier = True

    def f(self, xp, z):
        return xp.maximum(z, 0.0)

    def df(self, xp, v, z, a):
        return xp.where(z > 0.0, v, 0.0)


@pytest.mark.parametrize("activation", [{"name": "relu"}, ACTIVATIONS["relu"], Step()])
def test_one_activation_is_one_draw_however_it_is_given(activation):
    expected = Network(5, [Dense(32, "relu"), Dense(1)]).initial_weights(seed=3)
    found = Network(5, [Dense(32, activation), Dense(1)]).initial_weights(seed=3)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("bad", [{"distribution": "nomal"}, {"limit": -1.0}, {"deviation": "wide"}])
def test_bad_settings_are_named(bad):
    """A distribution that does not exist was taken for the uniform one."""
    ((setting, value),) = bad.items()
    name = {"limit": "uniform", "deviation": "normal"}.get(setting, "he_normal")
    with pytest.raises(InputError, match=rf"initializer .*: {setting} must .*{value}"):
        get_initializer({"name": name} | bad, "tanh")


@pytest.mark.parametrize("shape", [(7, 7), (9, 4), (4, 9), (1, 5)])
def test_orthogonal_is_orthonormal_along_the_shorter_side(shape):
    W = get_initializer({"name": "orthogonal", "gain": 2.0}, "tanh")(
        np.random.default_rng(0), *shape, shape
    )
    product = W.T @ W if shape[0] >= shape[1] else W @ W.T
    np.testing.assert_allclose(product, 4.0 * np.eye(min(shape)), atol=1e-14)


def test_orthogonal_is_uniform_among_the_rotations():
    """The determinant and each entry have either sign as often: QR alone would not."""
    rng = np.random.default_rng(0)
    drawn = np.array([INITIALIZERS["orthogonal"](rng, 3, 3, (3, 3)) for _ in range(400)])
    for share in ((np.linalg.det(drawn) > 0).mean(), *(drawn > 0).mean(axis=0).ravel()):
        assert abs(share - 0.5) < 0.1


def test_a_constant_may_be_any_number():
    assert (drawn(get_initializer({"name": "constant", "value": -2}, "tanh")) == -2.0).all()


def test_settings_and_functions():
    assert abs(drawn(get_initializer({"name": "uniform", "limit": 0.1}, "tanh"))).max() < 0.1
    assert drawn(get_initializer({"name": "normal", "deviation": 2.0}, "tanh")).std() > 1.9

    def ones(rng, fan_in, fan_out, shape):
        return np.ones(shape)

    assert get_initializer(ones, "tanh") is ones


@pytest.mark.parametrize(
    ("initializer", "message"),
    [
        ("he_unifrm", "unknown initializer 'he_unifrm'; did you mean 'he_uniform'?"),
        ("autto", "unknown initializer 'autto'; did you mean 'auto'?"),
        ({"name": "normal", "sigma": 1.0}, "initializer 'normal' has no setting 'sigma'"),
        (type(INITIALIZERS["zeros"]), "an initializer is a name or a function of"),
        (3.0, "an initializer is a name or a function of (rng, fan_in, fan_out, shape), not 3.0"),
    ],
)
def test_what_is_no_initializer(initializer, message):
    with pytest.raises(InputError, match=re.escape(message)):
        get_initializer(initializer, "tanh")
