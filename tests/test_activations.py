"""Activations: finite and right at any input, and df is the derivative of f."""

import math
import re

import numpy as np
import pytest

from mlp.errors import InputError
from mlp.formulas.activations import ACTIVATIONS, LeakyRelu, Softmax, get_activation

activations = pytest.mark.parametrize("name", ACTIVATIONS)
HUGE = {"float32": 1e38, "float64": 1e300}
OVERFLOWS = {"exp": {"float32": 88.0, "float64": 700.0}}  # further out they are infinite, rightly

# f(-∞), f(∞), f'(-∞), f'(∞), where "z" stands for growth like z.
LIMITS = {
    "identity": ("z", "z", 1.0, 1.0),
    "sigmoid": (0.0, 1.0, 0.0, 0.0),
    "tanh": (-1.0, 1.0, 0.0, 0.0),
    "relu": (0.0, "z", 0.0, 1.0),
    "leaky_relu": ("0.01 z", "z", 0.01, 1.0),
    "elu": (-1.0, "z", 0.0, 1.0),
    "gelu": (0.0, "z", 0.0, 1.0),
    "silu": (0.0, "z", 0.0, 1.0),
    "softplus": (0.0, "z", 0.0, 1.0),
}


def grid(name, dtype):
    """Inputs of every size and both signs, zeros included; one row, so softmax sees all of them."""
    largest = math.log10(HUGE[dtype])
    sizes = np.append(10.0 ** np.linspace(-largest, largest, 200), [0.0, 1.0, 20.0, 88.8, 709.9])
    z = np.append(sizes, -sizes)
    if name in OVERFLOWS:
        z = z[z <= OVERFLOWS[name][dtype]]
    return z.astype(dtype)[None, :]


@activations
def test_finite_for_every_finite_input(name, dtype):
    """And nothing overflows, divides by zero or is invalid on the way."""
    activation = ACTIVATIONS[name]
    for z in (grid(name, dtype), grid(name, dtype).T):
        with np.errstate(all="raise", under="ignore"):
            a = activation.f(np, z)
            v = activation.df(np, np.ones_like(z), z, a)
        for x in (a, v):
            assert x.dtype == dtype
            assert np.isfinite(x).all()


@pytest.mark.parametrize("name", LIMITS)
@pytest.mark.parametrize("size", [100.0, 1e4, "huge"])
def test_limits(name, dtype, size):
    far = HUGE[dtype] if size == "huge" else size
    z = np.array([[-far], [far]], dtype)
    activation = ACTIVATIONS[name]
    a = activation.f(np, z)
    slope = activation.df(np, np.ones_like(z), z, a)
    growth = {"z": 1.0, "0.01 z": 0.01}
    for row, (value, derivative) in enumerate(zip(LIMITS[name][:2], LIMITS[name][2:], strict=True)):
        expected = growth[value] * z[row, 0] if value in growth else value
        close = {"rel": 1e-6, "abs": 1e-30}
        assert float(a[row, 0]) == pytest.approx(float(expected), **close)
        assert float(slope[row, 0]) == pytest.approx(derivative, rel=1e-5, abs=1e-30)


def points():
    """Inputs where the kinks at 0 are further away than the differences reach."""
    z = 2.5 * np.random.default_rng(1).standard_normal((40, 4))
    return np.where(abs(z) < 1e-3, 0.5, z)


@activations
def test_df_equals_central_differences(name):
    """v · f'(z) against the derivative of Σ_k v_k f_k(z), by each unit's z."""
    activation = ACTIVATIONS[name]
    z, h = points(), 1e-5
    v = np.random.default_rng(2).standard_normal(z.shape)
    expected = np.empty_like(z)
    for unit in range(z.shape[1]):
        step = h * (np.arange(z.shape[1]) == unit)
        up, down = activation.f(np, z + step), activation.f(np, z - step)
        expected[:, unit] = (v * (up - down)).sum(axis=1) / (2.0 * h)
    actual = activation.df(np, v, z, activation.f(np, z))
    np.testing.assert_allclose(actual, expected, rtol=1e-6, atol=1e-6 * abs(expected).max())


@activations
def test_from_output_needs_no_z(name):
    activation = ACTIVATIONS[name]
    z = points()
    a = activation.f(np, z)
    if getattr(activation, "from_output", False):
        without = activation.df(np, z, None, a)
        np.testing.assert_array_equal(without, activation.df(np, z, z, a))
    else:
        with pytest.raises(TypeError):
            activation.df(np, z, None, a)


@activations
def test_elementwise_unless_softmax(name):
    """A unit's output depends on its own z alone; softmax's rows sum to one."""
    f = ACTIVATIONS[name].f
    z = points()
    if isinstance(ACTIVATIONS[name], Softmax):
        np.testing.assert_allclose(f(np, z).sum(axis=1), 1.0, rtol=1e-15)
        np.testing.assert_allclose(f(np, z + 1e3), f(np, z), rtol=1e-10)
    else:
        np.testing.assert_array_equal(f(np, z)[:, :1], f(np, np.ascontiguousarray(z[:, :1])))


def test_softmax_df_is_its_jacobian_times_v():
    z = points()
    v = np.random.default_rng(3).standard_normal(z.shape)
    softmax = ACTIVATIONS["softmax"]
    a = softmax.f(np, z)
    for row in range(len(z)):
        jacobian = np.diag(a[row]) - np.outer(a[row], a[row])
        np.testing.assert_allclose(softmax.df(np, v, z, a)[row], v[row] @ jacobian, atol=1e-15)


# What each is, written anew: the naive expressions, which overflow further out.
DEFINITIONS = {
    "identity": lambda z: z,
    "sigmoid": lambda z: 1.0 / (1.0 + math.exp(-z)),
    "tanh": lambda z: (math.exp(z) - math.exp(-z)) / (math.exp(z) + math.exp(-z)),
    "relu": lambda z: z if z > 0.0 else 0.0,
    "leaky_relu": lambda z: z if z > 0.0 else 0.01 * z,
    "elu": lambda z: z if z > 0.0 else math.exp(z) - 1.0,
    "gelu": lambda z: 0.5 * z * (1.0 + math.tanh(math.sqrt(2.0 / math.pi) * (z + 0.044715 * z**3))),
    "silu": lambda z: z / (1.0 + math.exp(-z)),
    "softplus": lambda z: math.log(1.0 + math.exp(z)),
    "exp": lambda z: math.e**z,
}


@pytest.mark.parametrize("name", DEFINITIONS)
def test_definition(name):
    z = np.append(points().reshape(-1), [0.0, 1e-8, -1e-8, 30.0, -30.0])
    expected = [DEFINITIONS[name](float(x)) for x in z]
    np.testing.assert_allclose(ACTIVATIONS[name].f(np, z), expected, rtol=1e-9, atol=1e-15)


@activations
def test_every_activation_has_a_definition_here(name):
    assert name == "softmax" or name in DEFINITIONS
    assert name == "softmax" or (name in LIMITS) != (name in OVERFLOWS)


@pytest.mark.parametrize("name", ["sigmoid", "softplus", "exp"])
def test_small_outputs_are_relatively_accurate(name, dtype):
    """At large negative z they are exp(z) to a relative exp(z), down to the smallest numbers."""
    lowest = -80.0 if dtype == "float32" else -700.0
    z = np.linspace(lowest, -40.0, 500).astype(dtype)
    expected = np.exp(z.astype("float64"))
    a = ACTIVATIONS[name].f(np, z)
    units = 4.0 * np.finfo(dtype).eps
    np.testing.assert_allclose(a.astype("float64"), expected, rtol=units)
    slope = ACTIVATIONS[name].df(np, np.ones_like(z), z, a)
    np.testing.assert_allclose(slope.astype("float64"), expected, rtol=2.0 * units)


# ------------------------------------------------------------------ names and settings


def test_settings():
    assert get_activation({"name": "leaky_relu", "slope": 0.2}) == LeakyRelu(0.2)
    assert get_activation({"name": "leaky_relu"}) is ACTIVATIONS["leaky_relu"]
    assert get_activation("tanh") is ACTIVATIONS["tanh"]
    assert get_activation(LeakyRelu(0.3)) == LeakyRelu(0.3)
    z = np.array([[-2.0, 3.0]])
    assert LeakyRelu(0.25).f(np, z).tolist() == [[-0.5, 3.0]]
    elu = get_activation({"name": "elu", "alpha": 2.0})
    np.testing.assert_allclose(elu.f(np, z), [[2.0 * math.expm1(-2.0), 3.0]])


@pytest.mark.parametrize(
    ("activation", "message"),
    [
        ("tanhh", "unknown activation 'tanhh'; did you mean 'tanh'?"),
        ({"name": "leaky_relu", "slope": 1.0}, "leaky_relu: slope must lie between 0 and 1"),
        ({"name": "leaky_relu", "slope": 0.0}, "leaky_relu: slope must lie between 0 and 1"),
        ({"name": "elu", "alpha": 0.0}, "elu: alpha must be above 0, not 0.0"),
        ({"name": "elu", "alfa": 1.0}, "activation 'elu' has no setting 'alfa'; did you mean"),
        ({"name": "tanh", "alpha": 1.0}, "activation 'tanh' has no setting 'alpha'; it has none"),
        ({"slope": 0.1}, "lacks its name"),
        (np.tanh, "an activation is a name or an object with methods f and df"),
        (LeakyRelu, "an activation is a name or an object with methods f and df, not <class"),
    ],
)
def test_what_is_no_activation(activation, message):
    with pytest.raises(InputError, match=re.escape(message)):
        get_activation(activation)
