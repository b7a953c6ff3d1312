"""Backpropagation is the derivative of the objective.

The objective is written here a second time, plainly: eq. (1)-(2) of `mlp.network` as sums of
products, E as its definition. Its central differences are what the library's gradient must be, to
1e-6 of the largest entry in float64, on every backend.
"""

from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import pytest

from backends import get_backend
from mlp.formulas.activations import ACTIVATIONS, learned
from mlp.formulas.losses import LOSSES, get_loss, outputs_for
from mlp.layers.dense import Dense
from mlp.layers.tape import Arena
from mlp.network.graph import Network
from mlp.network.objective import Objective
from mlp.seeds import key

N = 5
KINKS = {
    **dict.fromkeys(("relu", "leaky_relu", "selu", "prelu", "parametric"), (0.0,)),
    **dict.fromkeys(("hard_sigmoid", "hard_swish"), (-3.0, 3.0)),
    "hard_tanh": (-1.0, 1.0),
}
CLEAR = 1e-4  # how far z stays from a kink, and w from that of |w|
STEP = 1e-6


@dataclass(frozen=True)
class Case:
    """An objective, and the seed of the numbers it is evaluated on."""

    network: Network
    loss: str
    reduction: str | None = None
    weighted: bool = False
    shared_penalties: bool = False
    seed: int = 0

    @property
    def objective(self):
        return Objective(self.network, self.loss, self.reduction, self.shared_penalties)


@dataclass(frozen=True)
class Numbers:
    """Weights, inputs, targets, sample weights and dropout masks, on the host in float64."""

    w: np.ndarray
    X: np.ndarray
    t: np.ndarray
    s: np.ndarray | None
    masks: dict[int, np.ndarray]


def draw(case):
    """Numbers at which the objective has a derivative: no z and no penalised w is near a kink."""
    for seed in range(1000):
        rng = np.random.default_rng([case.seed, seed])
        network = case.network
        w = network.initial_weights(rng) + 0.1 * rng.standard_normal(network.parameters)
        numbers = Numbers(
            w,
            rng.standard_normal((N, network.inputs)),
            draw_targets(rng, get_loss(case.loss), case.objective),
            rng.uniform(0.0, 2.0, N) if case.weighted else None,
            dict(masks(network, case.seed)),
        )
        if plain(case, numbers).clear > CLEAR:
            return numbers
    raise AssertionError("every draw is near a kink")


def masks(network, seed):
    """Of the first step, (number of the layer, mask), from NumPy's own generator."""
    for l, layer in network.drawing.items():
        blocks = -(-layer.units // 8)
        words = np.array(key(seed, "dropout"), np.uint64)
        philox = np.random.Philox(key=words, counter=[0, 0, 0, l])
        u = np.random.Generator(philox).random((N, 8 * blocks), dtype=np.float32)
        rate = np.ceil(layer.dropout * 2.0**24) * 2.0**-24  # of the numbers u, which are multiples
        yield l, (u[:, : layer.units] >= rate) / (1.0 - rate)


def width(loss):
    """Of the last layer, for three targets or classes."""
    return outputs_for(LOSSES[loss], 3)


def draw_targets(rng, loss, objective):
    kind, c = loss.targets, objective.columns
    if objective.ordered:
        return rng.integers(0, objective.classes, (N, 1)).astype(float)
    if kind == "numbers":
        return rng.standard_normal((N, c))
    if kind == "counts":
        return rng.poisson(1.5, (N, c)) + (0.5 if getattr(loss, "positive", False) else 0.0)
    t = rng.random((N, c))
    return t / t.sum(axis=1, keepdims=True) if kind == "classes" else np.round(t, 1)


@dataclass(frozen=True)
class Plain:
    """What the plain objective gives: its two terms, the network's output, the nearest kink."""

    value: float
    penalty: float
    y: np.ndarray
    clear: float


def plain(case, numbers, w=None, dropout=True):
    """E by its definition, one sample, source and layer after another."""
    network, loss, objective = case.network, get_loss(case.loss), case.objective
    views = network.views(numbers.w if w is None else w)
    W, b = views["W"], views.get("b", {})
    h, clear, penalty = {0: numbers.X}, np.inf, 0.0
    for l in network.numbers():
        layer = network.layer(l)
        z = sum(h[k] @ W[k, l] for k in network.sources[l]) + b.get(l, 0.0)
        f = objective.inner if l == network.depth else ACTIVATIONS[layer.activation]
        p = [views[name][l] for name in learned(f, layer.units)]
        h[l] = f.f(np, z, *p)
        if dropout and l in numbers.masks:
            h[l] = h[l] * numbers.masks[l]
        for kink in KINKS.get(layer.activation, ()):
            # A z of exactly 0 has no bias and only zeros from below, and stays 0.
            clear = min(clear, abs(z[z != 0.0] - kink).min(initial=np.inf))
        for k in network.sources[l]:
            penalty += layer.l1 * abs(W[k, l]).sum() + 0.5 * layer.l2 * (W[k, l] ** 2).sum()
            if layer.l1:
                clear = min(clear, abs(W[k, l]).min())
    y = h[network.depth]
    s = np.ones(N) if numbers.s is None else numbers.s
    r = s / s.sum() if objective.reduction == "mean" else s
    pairs, rows = (y, numbers.t), [np.array(row) for row in objective.rows]
    if objective.heads > 1:  # a row for each target
        pairs = (y.reshape(-1, objective.heads), numbers.t.reshape(-1, 1))
    cost = loss.cost(np, *pairs, *rows).reshape(N, -1).sum(axis=1)
    if getattr(loss, "average", False):
        cost /= objective.columns
    if case.shared_penalties and objective.reduction == "mean":
        penalty /= s.sum()
    return Plain(float((r * cost).sum()), float(penalty), y, clear)


def differences(case, numbers):
    """dE/dw by central differences of the plain objective."""
    g = np.empty_like(numbers.w)
    for i in range(len(g)):
        ends = []
        for sign in (1.0, -1.0):
            w = numbers.w.copy()
            w[i] += sign * STEP
            found = plain(case, numbers, w)
            ends.append(found.value + found.penalty)
        g[i] = (ends[0] - ends[1]) / (2.0 * STEP)
    return g


def library(backend, dtype, case, numbers, kind="gradient"):
    """(value, penalty, gradient or None, y) by the library."""
    network, weighted = case.network, numbers.s is not None
    w = backend.asarray(numbers.w, dtype)
    g = backend.full(w.shape, float("nan"), dtype) if kind == "gradient" else None
    arena = Arena(backend, dtype, N + 3)  # a batch is a view of larger buffers
    arguments = (w, g, arena, N, weighted) if g is not None else (w, arena, N, weighted)
    run = getattr(case.objective, kind)(backend, *arguments)
    backend.copy(backend.asarray(numbers.X, dtype), run.x)
    backend.copy(backend.asarray(numbers.t, dtype), run.t)
    if weighted:
        backend.copy(backend.asarray(numbers.s[:, None], dtype), run.s)
    assert (run.noise is not None) == (bool(numbers.masks) and g is not None)
    if run.noise is not None:
        run.noise.begin(case.seed, 0)
    for _ in range(2):  # a second run finds its buffers used
        run.run()
    value, penalty = backend.to_numpy(run.sums)[0].tolist()
    assert network.parameters == w.shape[0]
    return value, penalty, None if g is None else backend.to_numpy(g), backend.to_numpy(run.y)


def assert_is_the_derivative(case):
    numbers = draw(case)
    expected = plain(case, numbers)
    value, penalty, g, _ = library(get_backend("numpy"), "float64", case, numbers)
    assert value == pytest.approx(expected.value, rel=1e-12)
    assert penalty == pytest.approx(expected.penalty, rel=1e-12)
    slopes = differences(case, numbers)
    assert abs(g - slopes).max() <= 1e-6 * abs(slopes).max()


# ------------------------------------------------------------------ every formula

# Each activation in the hidden layers with a loss of each natural output, and each as an output
# with a loss that leaves the output unit open; every other loss with one of either.
ONE_OF_EACH = ("half_squared_error", "binary_cross_entropy", "cross_entropy", "poisson")
PAIRS = [
    (hidden, loss, getattr(LOSSES[loss], "unit", None) or "identity")
    for loss in LOSSES
    for hidden in ACTIVATIONS
    if loss in ONE_OF_EACH or hidden == "tanh"
] + [
    ("tanh", loss, output)
    for loss in LOSSES
    if getattr(LOSSES[loss], "unit", None) is None
    for output in ACTIVATIONS
    if output == "softmax"
    or (loss in ONE_OF_EACH and output != "identity" and not learned(ACTIVATIONS[output], 1))
]


@pytest.mark.parametrize(("hidden", "loss", "output"), PAIRS)
def test_every_activation_and_loss(hidden, loss, output):
    last = Dense(width(loss), output, sources=(1, 2))
    layers = [Dense(4, hidden), Dense(3, hidden, sources=(0, 1)), last]
    assert_is_the_derivative(Case(Network(2, layers), loss))


# ------------------------------------------------------------------ every graph

# These, of themselves a few times, are infinite.
HIDDEN = [name for name in ACTIVATIONS if name not in ("exp", "square")]


def random_case(depth, seed):
    """Layers fed by any earlier ones, each with or without bias, dropout and penalties."""
    rng = np.random.default_rng([depth, seed])
    loss = list(LOSSES)[(5 * depth + seed) % len(LOSSES)]
    output = getattr(LOSSES[loss], "unit", None) or str(rng.choice(["identity", "tanh"]))
    layers, fed = [], {0}
    for l in range(1, depth + 2):
        last = l == depth + 1
        sources = {k for k in range(l) if rng.random() < 0.4} or {l - 1}
        if last:
            sources |= set(range(l)) - fed  # what feeds no other layer yet
        fed |= sources
        layers.append(
            Dense(
                outputs_for(LOSSES[loss], int(rng.integers(2, 4)))
                if last
                else int(rng.integers(2, 4)),
                output if last else str(rng.choice(HIDDEN)),
                sources=tuple(sorted(sources)),
                bias=bool(rng.random() < 0.7),
                dropout=0.0 if last or rng.random() < 0.6 else 0.3,
                l1=float(rng.choice([0.0, 0.01])),
                l2=float(rng.choice([0.0, 0.02])),
            )
        )
    return Case(
        Network(int(rng.integers(1, 4)), layers),
        loss,
        reduction=str(rng.choice(["sum", "mean"])),
        weighted=bool(rng.random() < 0.5),
        shared_penalties=bool(rng.random() < 0.5),
        seed=seed,
    )


@pytest.mark.parametrize("depth", range(7))
@pytest.mark.parametrize("seed", range(5))
def test_random_graphs(depth, seed):
    assert_is_the_derivative(random_case(depth, seed))


def test_random_graphs_meet_every_option():
    cases = [random_case(depth, seed) for depth in range(7) for seed in range(5)]
    layers = [layer for case in cases for layer in case.network.layers]
    assert {case.loss for case in cases} == set(LOSSES)
    for name in ("reduction", "weighted", "shared_penalties"):
        assert len({getattr(case, name) for case in cases}) == 2
    for name in ("bias", "dropout", "l1", "l2"):
        assert len({getattr(layer, name) for layer in layers}) == 2
    assert {layer.activation for layer in layers} >= set(HIDDEN)


# ------------------------------------------------------------------ every option

SKIPS = [
    Dense(4, "gelu", dropout=0.3, l2=0.1, l1=0.05),
    Dense(3, "leaky_relu", bias=False, sources=(0, 1), dropout=0.5),
    Dense(3, "softmax", sources=(0, 2), l2=0.1),
    Dense(2, sources=(0, 1, 3), l1=0.02),
]
OPTIONS = {
    "linear": Case(Network(3, [Dense(2)]), "half_squared_error"),
    "no bias": Case(Network(3, [Dense(3, bias=False)]), "cross_entropy"),
    "one unit": Case(Network(1, [Dense(1, "relu"), Dense(1)]), "binary_cross_entropy"),
    "skips": Case(Network(2, SKIPS), "mean_squared_error"),
    "weights": Case(Network(2, SKIPS), "cross_entropy", weighted=True),
    "weighted sum": Case(Network(2, SKIPS), "half_squared_error", weighted=True),
    "sum": Case(Network(2, SKIPS), "binary_cross_entropy", "sum"),
    "mean": Case(Network(2, SKIPS), "half_squared_error", "mean"),
    "shared penalties": Case(Network(2, SKIPS), "poisson", shared_penalties=True),
    "levels": Case(
        Network(2, [Dense(3, "tanh"), Dense(6)]), {"name": "quantile", "q": [0.1, 0.5, 0.8]}
    ),
    "mean and deviation": Case(Network(2, [*SKIPS[:3], Dense(4)]), "gaussian", weighted=True),
    "ordered": Case(Network(2, [Dense(3, "tanh"), Dense(4)]), "ordinal", "sum", weighted=True),
    "weighted shared": Case(Network(2, SKIPS), "poisson", weighted=True, shared_penalties=True),
}
options = pytest.mark.parametrize("name", OPTIONS)
TOLERANCE = {"float64": 1e-12, "float32": 2e-5}


@cache
def worked(name):
    """An option's numbers and differences; they do not depend on the backend."""
    numbers = draw(OPTIONS[name])
    return numbers, differences(OPTIONS[name], numbers)


@options
def test_every_backend(backend, dtype, name):
    """The gradient is the derivative in float64, and in float32 it to that precision."""
    case, (numbers, slopes) = OPTIONS[name], worked(name)
    expected, allowed = plain(case, numbers), TOLERANCE[dtype]
    value, penalty, g, _ = library(backend, dtype, case, numbers)
    assert value == pytest.approx(expected.value, rel=allowed)
    assert penalty == pytest.approx(expected.penalty, rel=allowed)
    assert g.dtype == dtype
    largest = abs(slopes).max()
    assert abs(g - slopes).max() <= max(1e-6, allowed) * largest
    reference = library(get_backend("numpy"), "float64", case, numbers)[2]
    assert abs(g - reference).max() <= allowed * largest


@options
def test_measure_has_no_dropout(backend, dtype, name):
    """Value and penalty, and the predictions: the loss's own unit is applied."""
    case, numbers = OPTIONS[name], worked(name)[0]
    expected, allowed = plain(case, numbers, dropout=False), TOLERANCE[dtype]
    value, penalty, _, y = library(backend, dtype, case, numbers, "measure")
    assert value == pytest.approx(expected.value, rel=allowed)
    assert penalty == pytest.approx(expected.penalty, rel=allowed)
    unit = case.objective.unit if case.objective.unit != case.objective.inner else None
    prediction = unit.f(np, expected.y) if unit else expected.y  # before it is answered
    np.testing.assert_allclose(y, prediction, rtol=allowed, atol=allowed)


@options
def test_predictions_are_those_of_measure(backend, dtype, name):
    case, numbers = OPTIONS[name], worked(name)[0]
    w = backend.asarray(numbers.w, dtype)
    run = case.objective.predict(backend, w, Arena(backend, dtype, N + 3), N)
    backend.copy(backend.asarray(numbers.X, dtype), run.x)
    run.run()
    y = library(backend, dtype, case, numbers, "measure")[3]
    np.testing.assert_allclose(
        backend.to_numpy(run.y), y, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype]
    )


# ------------------------------------------------------------------ identities


@pytest.mark.parametrize("loss", [name for name in LOSSES if getattr(LOSSES[name], "unit", None)])
def test_the_output_unit_may_be_written_or_not(loss):
    """Softmax with cross-entropy is the raw output with cross-entropy, bit for bit."""
    found = []
    for output in (LOSSES[loss].unit, "identity"):
        case = Case(Network(2, [Dense(4, "tanh"), Dense(width(loss), output)]), loss)
        found.append(library(get_backend("numpy"), "float64", case, draw(case)))
    for a, b in zip(*found, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("loss", LOSSES)
def test_whole_sample_weights_repeat_samples(loss):
    """A weight of 2 counts as the sample twice, a weight of 0 as its absence."""
    network = Network(2, [Dense(4, "tanh", l2=0.1), Dense(width(loss))])
    case = Case(network, loss, "mean", shared_penalties=True)
    numbers = draw(case)
    weighted = replace(numbers, s=np.array([2.0, 0.0, 1.0, 1.0, 1.0]))
    rows = [0, 0, 2, 3, 4]
    repeated = replace(numbers, X=numbers.X[rows], t=numbers.t[rows])
    found = [library(get_backend("numpy"), "float64", case, x)[:3] for x in (weighted, repeated)]
    for a, b in zip(*found, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("reduction", ["sum", "mean"])
@pytest.mark.parametrize("shared", [False, True])
def test_a_batch_whose_weights_are_all_zero(backend, reduction, shared):
    """Has no loss and no gradient but that of the penalties, and is finite."""
    layers = [Dense(4, "tanh", l2=0.1), Dense(3)]
    case = Case(Network(2, layers), "cross_entropy", reduction, True, shared)
    numbers = replace(draw(case), s=np.zeros(N))
    value, penalty, g, _ = library(backend, "float64", case, numbers)
    assert value == 0.0
    assert np.isfinite(penalty)
    part = case.network.weight_slices[0, 1]
    np.testing.assert_allclose(g[part], 0.1 * numbers.w[part], rtol=1e-12)
    assert not np.delete(g, np.arange(part.start, part.stop)).any()


def test_sum_is_the_mean_times_the_samples():
    for loss in LOSSES:
        network = Network(2, [Dense(4, "tanh"), Dense(width(loss))])
        total, mean = (Case(network, loss, reduction) for reduction in ("sum", "mean"))
        numbers = draw(total)
        (E, _, g, _), (e, _, h, _) = (
            library(get_backend("numpy"), "float64", case, numbers) for case in (total, mean)
        )
        assert pytest.approx(N * e, rel=1e-13) == E
        np.testing.assert_allclose(g, N * h, rtol=1e-12, atol=1e-15)
