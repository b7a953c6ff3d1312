"""Activations: finite and right at any input, and df is the derivative of f."""

import math
import re

import numpy as np
import pytest
from conftest import numbers_of

from mlp import Dense, Model, Network, gradient_check
from mlp.errors import InputError
from mlp.formulas.activations import (
    ACTIVATIONS,
    LeakyRelu,
    LogSoftmax,
    Parametric,
    Prelu,
    Softmax,
    get_activation,
    learned,
)
from mlp.formulas.special import erf
from mlp.layers import Activation

activations = pytest.mark.parametrize("name", ACTIVATIONS)
HUGE = {"float32": 1e38, "float64": 1e300}
OVERFLOWS = {  # further out they are infinite, rightly
    "exp": {"float32": (-np.inf, 88.0), "float64": (-np.inf, 700.0)},
    "square": {"float32": (-1e19, 1e19), "float64": (-1e150, 1e150)},
}
ACROSS = (Softmax, LogSoftmax)  # over the units of a row

# f(-∞), f(∞), f'(-∞), f'(∞), where "z" stands for growth like z.
LIMITS = {
    "identity": ("z", "z", 1.0, 1.0),
    "sigmoid": (0.0, 1.0, 0.0, 0.0),
    "tanh": (-1.0, 1.0, 0.0, 0.0),
    "relu": (0.0, "z", 0.0, 1.0),
    "leaky_relu": ("0.01 z", "z", 0.01, 1.0),
    "elu": (-1.0, "z", 0.0, 1.0),
    "celu": (-1.0, "z", 0.0, 1.0),
    "selu": (-1.7580993408473766, "1.0507009873554805 z", 0.0, 1.0507009873554805),
    "gelu": (0.0, "z", 0.0, 1.0),
    "gelu_tanh": (0.0, "z", 0.0, 1.0),
    "silu": (0.0, "z", 0.0, 1.0),
    "mish": (0.0, "z", 0.0, 1.0),
    "hard_sigmoid": (0.0, 1.0, 0.0, 0.0),
    "hard_swish": (0.0, "z", 0.0, 1.0),
    "hard_tanh": (-1.0, 1.0, 0.0, 0.0),
    "softplus": (0.0, "z", 0.0, 1.0),
}
NO_LIMITS = {"softsign", "sine", "square", "exp", "softmax", "log_softmax", "prelu", "parametric"}


def of(name, units):
    """f, df and dp of an activation with values for what it learns."""
    activation = ACTIVATIONS[name]
    p = numbers_of(activation, units)

    def bound(method):
        def call(z, *more):
            return getattr(activation, method)(np, z, *more, *(x.astype(z.dtype) for x in p))

        return call

    return bound("f"), bound("df"), bound("dp")


def grid(name, dtype):
    """Inputs of every size and both signs, zeros included; one row, so softmax sees all of them."""
    largest = math.log10(HUGE[dtype])
    sizes = np.append(10.0 ** np.linspace(-largest, largest, 200), [0.0, 1.0, 20.0, 88.8, 709.9])
    z = np.append(sizes, -sizes)
    if name in OVERFLOWS:
        low, high = OVERFLOWS[name][dtype]
        z = z[(z >= low) & (z <= high)]
    return z.astype(dtype)[None, :]


@activations
def test_finite_for_every_finite_input(name, dtype):
    """And nothing overflows, divides by zero or is invalid on the way."""
    for z in (grid(name, dtype), grid(name, dtype).T):
        z = 0.5 * z if name == "log_softmax" else z  # the farthest two are that far apart
        f, df, dp = of(name, z.shape[1])
        with np.errstate(all="raise", under="ignore"):
            a = f(z)
            v = df(np.ones_like(z), z, a)
            more = dp(np.ones_like(z), z) if learned(ACTIVATIONS[name], 1) else ()
        for x in (a, v, *more):
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
    growth = {s: float(s.removesuffix("z") or 1.0) for s in LIMITS[name] if isinstance(s, str)}
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
    z, h = points(), 1e-5
    f, df, _ = of(name, z.shape[1])
    v = np.random.default_rng(2).standard_normal(z.shape)
    expected = np.empty_like(z)
    for unit in range(z.shape[1]):
        step = h * (np.arange(z.shape[1]) == unit)
        up, down = f(z + step), f(z - step)
        expected[:, unit] = (v * (up - down)).sum(axis=1) / (2.0 * h)
    actual = df(v, z, f(z))
    np.testing.assert_allclose(actual, expected, rtol=1e-6, atol=1e-6 * abs(expected).max())


@pytest.mark.parametrize("name", [name for name, f in ACTIVATIONS.items() if learned(f, 1)])
def test_dp_equals_central_differences(name):
    """v · ∂f/∂p for each number that is learned."""
    activation, z, h = ACTIVATIONS[name], points(), 1e-6
    v = np.random.default_rng(2).standard_normal(z.shape)
    p = numbers_of(activation, z.shape[1])
    found = activation.dp(np, v, z, *p)
    assert len(found) == len(p)
    for i, actual in enumerate(found):
        up, down = (
            activation.f(np, z, *(x + s * h * (i == j) for j, x in enumerate(p))) for s in (1, -1)
        )
        np.testing.assert_allclose(actual, v * (up - down) / (2.0 * h), rtol=1e-7, atol=1e-8)


@activations
def test_from_output_needs_no_z(name):
    activation, z = ACTIVATIONS[name], points()
    f, df, _ = of(name, z.shape[1])
    a = f(z)
    if getattr(activation, "from_output", False):
        without = activation.df(np, z, None, a)
        np.testing.assert_array_equal(without, df(z, z, a))
    else:
        with pytest.raises(TypeError):
            activation.df(np, z, None, a, *numbers_of(activation, z.shape[1]))


@activations
def test_elementwise_unless_softmax(name):
    """A unit's output depends on its own z alone; softmax's rows sum to one."""
    f, z = ACTIVATIONS[name].f, points()
    p = numbers_of(ACTIVATIONS[name], z.shape[1])
    if isinstance(ACTIVATIONS[name], ACROSS):
        a = np.exp(f(np, z)) if name == "log_softmax" else f(np, z)
        np.testing.assert_allclose(a.sum(axis=1), 1.0, rtol=1e-15)
        np.testing.assert_allclose(f(np, z + 1e3), f(np, z), rtol=1e-10)
    else:
        alone = f(np, np.ascontiguousarray(z[:, :1]), *(x[:1] for x in p))
        np.testing.assert_array_equal(f(np, z, *p)[:, :1], alone)


def test_softmax_df_is_its_jacobian_times_v():
    z = points()
    v = np.random.default_rng(3).standard_normal(z.shape)
    softmax, log_softmax = ACTIVATIONS["softmax"], ACTIVATIONS["log_softmax"]
    a = softmax.f(np, z)
    for row in range(len(z)):
        jacobian = np.diag(a[row]) - np.outer(a[row], a[row])
        np.testing.assert_allclose(softmax.df(np, v, z, a)[row], v[row] @ jacobian, atol=1e-15)
        of_log = log_softmax.df(np, v, z, np.log(a))[row]
        np.testing.assert_allclose(of_log, v[row] @ (np.eye(4) - a[row]), atol=1e-14)


# What each is, written anew: the naive expressions, which overflow further out.
DEFINITIONS = {
    "identity": lambda z: z,
    "sigmoid": lambda z: 1.0 / (1.0 + math.exp(-z)),
    "tanh": lambda z: (math.exp(z) - math.exp(-z)) / (math.exp(z) + math.exp(-z)),
    "relu": lambda z: z if z > 0.0 else 0.0,
    "leaky_relu": lambda z: z if z > 0.0 else 0.01 * z,
    "elu": lambda z: z if z > 0.0 else math.exp(z) - 1.0,
    "celu": lambda z: max(0.0, z) + min(0.0, math.exp(z) - 1.0),
    "selu": lambda z: 1.0507009873554805 * (z if z > 0 else 1.6732632423543772 * (math.exp(z) - 1)),
    "gelu": lambda z: 0.5 * z * (1.0 + math.erf(z / math.sqrt(2.0))),
    "gelu_tanh": lambda z: (
        0.5 * z * (1.0 + math.tanh(math.sqrt(2.0 / math.pi) * (z + 0.044715 * z**3)))
    ),
    "silu": lambda z: z / (1.0 + math.exp(-z)),
    "mish": lambda z: z * math.tanh(math.log1p(math.exp(z))),
    "hard_sigmoid": lambda z: min(max(z + 3.0, 0.0), 6.0) / 6.0,
    "hard_swish": lambda z: z * min(max(z + 3.0, 0.0), 6.0) / 6.0,
    "hard_tanh": lambda z: -1.0 if z < -1.0 else 1.0 if z > 1.0 else z,
    "softsign": lambda z: z / (1.0 + abs(z)),
    "sine": math.sin,
    "square": lambda z: z**2,
    "softplus": lambda z: math.log(1.0 + math.exp(z)),
    "exp": lambda z: math.e**z,
    "prelu": lambda z: z if z > 0.0 else 0.25 * z,
    "parametric": lambda z: DEFINITIONS["selu"](z),
}


@pytest.mark.parametrize("name", DEFINITIONS)
def test_definition(name):
    z = np.append(points().reshape(-1), [0.0, 1e-8, -1e-8, 30.0, -30.0])
    expected = [DEFINITIONS[name](float(x)) for x in z]
    activation = ACTIVATIONS[name]
    p = [np.full(size, start) for size, start in learned(activation, len(z)).values()]
    np.testing.assert_allclose(activation.f(np, z, *p), expected, rtol=1e-9, atol=1e-15)


@activations
def test_every_activation_has_a_definition_here(name):
    assert isinstance(ACTIVATIONS[name], ACROSS) or name in DEFINITIONS
    assert (name in LIMITS) != (name in NO_LIMITS)


# Names of the same functions in PyTorch.
TORCH = {
    "relu": "relu",
    "leaky_relu": "leaky_relu",
    "elu": "elu",
    "celu": "celu",
    "selu": "selu",
    "gelu": "gelu",
    "silu": "silu",
    "mish": "mish",
    "hard_sigmoid": "hardsigmoid",
    "hard_swish": "hardswish",
    "hard_tanh": "hardtanh",
    "softsign": "softsign",
    "softplus": "softplus",
}


@pytest.mark.parametrize("name", TORCH)
def test_value_and_derivative_are_pytorch_s(name):
    """Kinks included."""
    torch = pytest.importorskip("torch")
    z = np.append(points().reshape(-1), [0.0, -1.0, 1.0, -3.0, 3.0, 19.0, -25.0])
    x = torch.tensor(z, requires_grad=True)
    y = getattr(torch.nn.functional, TORCH[name])(x)
    y.sum().backward()
    activation = ACTIVATIONS[name]
    a = activation.f(np, z)
    np.testing.assert_allclose(a, y.detach().numpy(), rtol=1e-13, atol=1e-15)
    slope = activation.df(np, np.ones_like(z), z, a)
    # 1/6 is a number of float32 there, and softplus far out the exponential.
    tolerance = 1e-7 if name in ("softplus", "hard_sigmoid") else 1e-12
    np.testing.assert_allclose(slope, x.grad.numpy(), rtol=tolerance, atol=1e-15)


# ------------------------------------------------------------------ the error function


def test_erf_is_right_to_the_last_digits():
    """Against the host's own, in units in the last place of the exact value; odd, and 1 far out."""
    rng = np.random.default_rng(0)
    x = np.concatenate(
        [rng.uniform(-7, 7, 20_000), rng.standard_normal(20_000), 10.0 ** np.arange(-300, 3)]
    )
    for kind, most in (("float32", 2.0), ("float64", 2.5)):  # the host's is off by half a unit too
        given = x.astype(kind)
        exact = np.array([math.erf(float(a)) for a in given])
        found = erf(np, given)
        assert found.dtype == kind
        off = abs(found.astype(float) - exact) / np.spacing(abs(exact).astype(kind))
        assert off[given != 0.0].max() <= most
        np.testing.assert_array_equal(erf(np, -given), -found)
        assert erf(np, np.asarray([40.0, -1e30], kind)).tolist() == [1.0, -1.0]


def test_erf_is_the_library_s_own_where_it_has_one(backend, dtype):
    """And where it has none it is written out, so that it is fused all the same."""
    x = np.random.default_rng(1).uniform(-6, 6, (50, 7)).astype(dtype)
    out = backend.asarray(np.zeros_like(x))
    backend.fuse(lambda xp, out, x: erf(xp, x)).bind(out, backend.asarray(x))()
    np.testing.assert_allclose(backend.to_numpy(out), erf(np, x), rtol=4 * np.finfo(dtype).eps)


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


# ------------------------------------------------------------------ what is learned


def test_what_is_learned_is_part_of_the_network():
    """By its role "slope", a number for each unit or one for all."""
    net = Network(2, [Dense(3, "prelu"), Dense(4, Prelu(0.1, shared=True)), Dense(1)])
    views = net.views(net.initial_weights())
    assert views["slope"][1].tolist() == [0.25] * 3
    assert views["slope"][2].tolist() == [0.1]
    assert {e.parameter.role for e in net.layout if e.parameter.name == "slope"} == {"slope"}
    alphas = Network(2, [Dense(3, Parametric("mish")), Dense(1)])
    assert alphas.views(alphas.initial_weights())["alpha"][1].tolist() == [1.0] * 3


LEARNING = [Prelu(), Prelu(shared=True), Parametric("mish"), Parametric("softmax")]


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("activation", LEARNING, ids=repr)
def test_the_derivative_by_what_is_learned(backend, activation, bias):
    layers = [Dense(4, activation, bias=bias), Dense(3, activation, sources=(0, 1)), Dense(1)]
    model = Model(Network(2, layers), "mean_squared_error", backend=backend)
    rng = np.random.default_rng(0)
    model.w = model.network.initial_weights() + 0.3 * rng.standard_normal(model.network.parameters)
    found = gradient_check(model, rng.standard_normal((9, 2)), rng.standard_normal(9))
    assert found.passed, str(found)


@pytest.mark.parametrize("activation", LEARNING, ids=repr)
def test_the_derivative_by_what_a_layer_of_its_own_learns(backend, activation):
    """Of the input too, from which nothing goes further down."""
    layers = [Activation(activation), Dense(3), Activation(activation), Dense(1)]
    model = Model(Network(2, layers), "mean_squared_error", backend=backend)
    rng = np.random.default_rng(0)
    model.w = model.network.initial_weights() + 0.3 * rng.standard_normal(model.network.parameters)
    found = gradient_check(model, rng.standard_normal((9, 2)), rng.standard_normal(9))
    assert found.passed, str(found)


def test_a_parametric_activation_starts_as_what_it_is_of():
    for of_name in ("selu", "mish", "softmax"):
        nets = [Network(2, [Dense(3, a), Dense(1)]) for a in (of_name, Parametric(of_name))]
        plain, ours = (Model(net, "mean_squared_error", dtype="float64") for net in nets)
        X = points()[:, :2]
        np.testing.assert_allclose(ours.predict(X), plain.predict(X), rtol=1e-13)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Parametric("prelu"), "of must learn nothing itself, as 'prelu' does"),
        (lambda: Parametric({"name": "parametric"}), "of must learn nothing itself"),
        (lambda: Parametric("mishh"), "unknown activation 'mishh'; did you mean 'mish'?"),
        (lambda: Parametric(Prelu()), "of must be the name of an activation"),
        (lambda: Prelu(slope=math.nan), "prelu: slope must be a finite number"),
    ],
)
def test_what_cannot_be_learned(make, message):
    with pytest.raises(InputError, match=re.escape(message)):
        make()


def test_the_last_layer_learns_no_activation():
    with pytest.raises(InputError, match="activation, 'prelu', is one that learns"):
        Model(Network(2, [Dense(1, "prelu")]), "mean_squared_error")
