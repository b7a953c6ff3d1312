"""What is done around the update rule: decay, factors, clipping, several batches a step, averages
of the weights, sharpness-aware steps, matrices made orthogonal, a limit on time. Each equals its
equations, written anew here on the gradient that the model gives."""

import math
import re
from itertools import pairwise

import numpy as np
import pytest

import mlp
from backends import get_backend
from mlp import BatchNorm, Dense, InputError, Model, Network, Settings, train
from mlp.formulas.optimizers import OPTIMIZERS, Orthogonal
from mlp.formulas.schedules import get_schedule
from mlp.layers.noise import Noise
from mlp.training.loop import plan_training

rng = np.random.default_rng(3)
X = rng.normal(size=(40, 3))
T = np.tanh(X[:, :1] - X[:, 1:2] * X[:, 2:])
S = rng.uniform(0.5, 2.0, 40)
FULL = {"batch_size": "full", "shuffle": False, "optimizer": "sgd", "learning_rate": 0.1}


def model(backend="numpy", loss="mean_squared_error", dtype="float64", **options):
    layers = [Dense(4, "tanh", **options), Dense(5, "tanh"), Dense(1)]
    return Model(Network(3, layers), loss, seed=1, dtype=dtype, backend=backend)


def trained(model, **options):
    """w after training, on the host in float64."""
    return model.backend.to_numpy(train(model, X, T, **options).model.w).astype(float)


def gradient(model, w, X=X, t=T, s=None):
    moved = model.to()
    moved.w = w
    return np.asarray(moved.value_and_gradient(X, t, s)[1]).copy()


# --- decay --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [n for n in OPTIMIZERS if n not in ("rprop", "quickprop")])
def test_decay_goes_with_any_rule(name):
    """w <- (1 - eta weight_decay) w on the weights, then the rule's own first step."""
    one, eta, decay = model(), 0.01, 0.3
    shorter = one.w.copy()
    shorter[: one.network.weights] *= 1.0 - eta * decay
    options = FULL | {"optimizer": name, "learning_rate": eta, "epochs": 1}
    if name == "adamw":  # its own, which is set to the same
        with_none = trained(one, **options | {"weight_decay": 0.0})
    else:
        with_none = trained(one, **options)
    moved = with_none - one.w
    np.testing.assert_allclose(trained(one, **options, weight_decay=decay), shorter + moved, 1e-12)


def test_weight_decay_is_adamw_s():
    options = FULL | {"epochs": 5, "learning_rate": 0.02, "weight_decay": 0.2}
    np.testing.assert_array_equal(
        trained(model(), **options | {"optimizer": "adam"}),
        trained(model(), **options | {"optimizer": "adamw"}),
    )


@pytest.mark.parametrize("recorded", [False, True])
@pytest.mark.filterwarnings("ignore:steps are not recorded")
def test_decay_has_a_schedule_and_factors_of_its_own(recorded):
    """p <- p (1 - λ(t) η(t) φ_p²), then the step with η(t) φ_p: the recipe whose factors on rate
    and decay are the same; biases have none. By SGD, in two batches an epoch."""
    factors = {"weight": 1.0, "W[1, 2]": 6.0, "bias": 0.1}
    decayed = {"weight": 1.0, "W[1, 2]": 6.0}
    one, w = model(), model().w.copy()
    eta, decay = get_schedule("coslog4", 4), get_schedule("flat_cosine", 4)
    rate, kept = np.full(w.shape, 0.1), np.zeros(w.shape)
    rate[: one.network.weights] = kept[: one.network.weights] = 1.0
    inner = one.network.weight_slices[1, 2]
    rate[inner] = kept[inner] = 6.0
    for step in range(8):
        half = slice(0, 20) if step % 2 == 0 else slice(20, 40)
        now, lam = 0.05 * eta(step, 2), 0.3 * decay(step, 2)
        g = gradient(one, w, X[half], T[half])
        w = w * (1.0 - lam * kept * now * rate) - now * rate * g
    found = trained(
        one, optimizer="sgd", learning_rate=0.05, batch_size=20, shuffle=False, epochs=4,
        schedule="coslog4", weight_decay=0.3, weight_decay_schedule="flat_cosine",
        rate_factors=factors, decay_factors=decayed, record_steps=recorded,
    )  # fmt: skip
    np.testing.assert_allclose(found, w, rtol=1e-11)


def test_the_very_first_step_of_coslog4_has_rate_0():
    np.testing.assert_array_equal(trained(model(), **FULL, epochs=1, schedule="coslog4"), model().w)


# --- factors ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("factors", "named"),
    [
        ({"bias": 0.5}, {"b[1]": 0.5, "b[2]": 0.5, "b[3]": 0.5}),
        ({2: 0.0}, {"W[1, 2]": 0.0, "b[2]": 0.0}),
        ({"2": 3.0, "weight": 2.0}, {"W[0, 1]": 2.0, "W[1, 2]": 6.0, "b[2]": 3.0, "W[2, 3]": 2.0}),
        ({"W[1,2]": 0.25, "b[3]": 4.0}, {"W[1, 2]": 0.25, "b[3]": 4.0}),
        (
            {"weight": "ntk"},
            {"W[0, 1]": 3**-0.5, "W[1, 2]": 4**-0.5, "W[2, 3]": 5**-0.5},
        ),
    ],
)
def test_a_factor_goes_by_role_name_or_layer(factors, named):
    """And what several of them name has their product: the step of SGD times it."""
    one = model()
    moved = trained(one, **FULL, epochs=1) - one.w
    found = trained(one, **FULL, epochs=1, rate_factors=factors) - one.w
    for entry in one.network.layout:
        expected = named.get(entry.describe(), 1.0) * moved[entry.part]
        np.testing.assert_allclose(found[entry.part], expected, rtol=1e-9, atol=1e-15)


def test_ntk_factors_are_the_ntk_form():
    """Adam on V with the factor 1/√d, its decay's √d, is Adam on W = V √d in z = x W / √d (with an
    epsilon that makes no difference), whose decay has no factor."""
    one = model()
    options = {"optimizer": {"name": "adam", "epsilon": 1e-30}, "learning_rate": 0.01}
    found = trained(
        one, **FULL | options, epochs=6, weight_decay=0.5,
        rate_factors={"weight": "ntk"}, decay_factors={"weight": "ntk"},
    )  # fmt: skip
    gamma = np.ones(one.w.shape)
    for (k, _), part in one.network.weight_slices.items():
        gamma[part] = one.network.units[k] ** -0.5
    is_weight = gamma < 1.0
    w, m, v = one.w / gamma, 0.0, 0.0
    for t in range(1, 7):
        g = gamma * gradient(one, gamma * w)
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        w = w - 0.01 * 0.5 * is_weight * w
        w = w - 0.01 * (m / (1 - 0.9**t)) / np.sqrt(v / (1 - 0.999**t))
    np.testing.assert_allclose(found, gamma * w, rtol=1e-9)


# --- clipping -----------------------------------------------------------------------------------


@pytest.mark.parametrize("most", [1e-3, 0.05, 1e6])
def test_clipping(backend, most):
    """By the norm over all that is trained, or number by number."""
    one = model(backend)
    w = backend.to_numpy(one.w)
    g = gradient(model(), w)
    norm = g * min(1.0, most / np.linalg.norm(g))
    options = FULL | {"epochs": 1}
    np.testing.assert_allclose(trained(one, **options, clip_norm=most), w - 0.1 * norm, 1e-12)
    value = np.clip(g, -most, most)
    np.testing.assert_allclose(trained(one, **options, clip_value=most), w - 0.1 * value, 1e-12)
    weights = one.network.weights
    g[weights:] = 0.0  # frozen: no part of the norm
    norm = g * min(1.0, most / np.linalg.norm(g))
    found = trained(one, **options, clip_norm=most, rate_factors={"bias": 0})
    np.testing.assert_allclose(found, w - 0.1 * norm, rtol=1e-12)


def test_a_norm_beyond_the_dtype_is_no_step_of_zero():
    """The run diverges, and says so."""
    one = model(dtype="float32")
    with pytest.warns(RuntimeWarning, match="the loss became non-finite"):
        result = train(one, X, 1e20 * T, **FULL, epochs=3, clip_norm=1.0)
    assert result.diverged


# --- several batches a step ---------------------------------------------------------------------


@pytest.mark.parametrize("weights", [None, S])
@pytest.mark.parametrize("loss", ["mean_squared_error", "half_squared_error"])
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_accumulated_batches_are_the_large_batch(backend, optimizer, loss, weights):
    """40 rows in batches of 6, three a step: 18, 18 and 4 rows, as in batches of 18."""
    one = model(backend, loss, l2=0.1 if loss == "mean_squared_error" else 0.0)
    options = {"optimizer": optimizer, "learning_rate": 0.01, "epochs": 4, "shuffle": True}
    options |= {"sample_weight": weights, "clip_norm": 5.0, "schedule": "cosine"}
    large = train(one, X, T, batch_size=18, **options)
    small = train(one, X, T, batch_size=6, accumulate=3, **options)
    assert small.state.step == large.state.step == 12
    found, expected = (backend.to_numpy(x.model.w) for x in (small, large))
    np.testing.assert_allclose(found, expected, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("batch", range(1, 8))
def test_stopped_between_the_batches_of_a_step_and_gone_on_with(batch):
    class Stop:
        def on_batch_end(self, run):
            if (run.state.epoch, run.state.batch) == (1, batch):
                run.stop("here")

    options = {"batch_size": 6, "accumulate": 3, "epochs": 3, "average": "ema"}
    one = model(dropout=0.3)
    whole = train(one, X, T, **options)
    part = train(one, X, T, **options, callbacks=[Stop()])
    assert part.state.batch in (batch, 0)
    again = train(one, X, T, **options, state=part.state)
    np.testing.assert_array_equal(again.model.w, whole.model.w)
    assert again.history["loss"] == whole.history["loss"]


def test_each_batch_of_a_step_has_masks_of_its_own(monkeypatch):
    drawn, begin = [], Noise.begin

    def noted(self, seed, step, **more):
        drawn.append(step)
        begin(self, seed, step, **more)

    monkeypatch.setattr(Noise, "begin", noted)
    train(model(dropout=0.5), X, T, batch_size=10, accumulate=3, epochs=2)
    assert len(set(drawn)) == len(drawn) == 8


# --- sharpness-aware minimisation ---------------------------------------------------------------


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_sam(backend, optimizer):
    """Foret et al., Algorithm 1: the gradient at w + radius g/|g|, the step from w; the loss that
    is said is the one at w."""
    one, radius = model(backend), 0.3
    w, rule, state = backend.to_numpy(one.w).copy(), OPTIMIZERS[optimizer](), None
    losses = []
    for step in range(1, 4):
        state = state or [np.full(w.shape, x) for x in rule.initial(0.1)]
        moved = model()
        moved.w = w
        losses.append(moved.evaluate(X, T)["loss"])
        g = gradient(model(), w)
        g = gradient(model(), w + radius * g / np.linalg.norm(g))
        new = rule.update(np, w, g, *state, *rule.constants(0.1, step))
        w, *state = new if isinstance(new, tuple) else (new,)
    result = train(one, X, T, **FULL | {"optimizer": optimizer}, epochs=3, sam_radius=radius)
    np.testing.assert_allclose(backend.to_numpy(result.model.w), w, rtol=1e-9)
    np.testing.assert_allclose(result.history["loss"], losses, rtol=1e-9)


def test_sam_from_a_gradient_of_zero():
    one = Model(Network(3, [Dense(1)]), "mean_squared_error", w=np.zeros(4), dtype="float64")
    found = train(one, X, np.zeros_like(T), **FULL, epochs=2, sam_radius=0.1)
    np.testing.assert_array_equal(found.model.w, np.zeros(4))


# --- statistics of a batch ----------------------------------------------------------------------


def normalised(backend="numpy"):
    layers = [Dense(4, "tanh"), BatchNorm(0.5), Dense(1)]
    return Model(Network(3, layers), "mean_squared_error", seed=1, dtype="float64", backend=backend)


def moved_by(statistics, one, w, X):
    """Running statistics after a batch at w: half of what they were, half of the batch's."""
    views = one.network.views(w)
    a = np.tanh(X @ views["W"][0, 1] + views["b"][1])
    return 0.5 * statistics + 0.5 * np.concatenate([a.mean(axis=0), a.var(axis=0)])


def test_batch_norm_under_sam(backend):
    """Each of the two gradients by the batch's own statistics; the running ones are of the weights
    themselves, once a step, not of the worst point near them."""
    one, radius = normalised(backend), 0.3
    w, seen = backend.to_numpy(one.w).copy(), backend.to_numpy(one.statistics).copy()
    for _ in range(3):
        seen = moved_by(seen, one, w, X)
        g = gradient(normalised(), w)
        w = w - 0.1 * gradient(normalised(), w + radius * g / np.linalg.norm(g))
    found = train(one, X, T, **FULL, epochs=3, sam_radius=radius).model
    np.testing.assert_allclose(backend.to_numpy(found.w), w, rtol=1e-9)
    np.testing.assert_allclose(backend.to_numpy(found.statistics), seen, rtol=1e-9)


def test_batch_norm_under_accumulation(backend):
    """The mean over each batch, whose gradients are added up; running statistics go with each."""
    one, halves = normalised(backend), (slice(0, 20), slice(20, 40))
    w, seen = backend.to_numpy(one.w).copy(), backend.to_numpy(one.statistics).copy()
    for _ in range(2):
        for half in halves:
            seen = moved_by(seen, one, w, X[half])
        w = w - 0.1 * np.mean([gradient(normalised(), w, X[h], T[h]) for h in halves], axis=0)
    options = FULL | {"batch_size": 20, "accumulate": 2, "epochs": 2}
    found = train(one, X, T, **options).model
    np.testing.assert_allclose(backend.to_numpy(found.w), w, rtol=1e-10)
    np.testing.assert_allclose(backend.to_numpy(found.statistics), seen, rtol=1e-10)


# --- averages of the weights --------------------------------------------------------------------


class Weights:
    """The weights after each step and at the end of each epoch."""

    def __init__(self):
        self.steps, self.epochs = [], []

    def on_batch_end(self, run):
        self.steps.append(run.model.backend.to_numpy(run.state.w).copy())

    def on_epoch_end(self, run):
        self.epochs.append(run.model.backend.to_numpy(run.state.w).copy())


def exponential(seen, w):
    """The mean at the end of each epoch of two steps."""
    means = []
    for after in seen.steps:
        w = 0.9 * w + 0.1 * after
        means.append(w)
    return means[1::2]


def stochastic(seen, w):
    return [np.mean(seen.epochs[min(e, 2) : e + 1], axis=0) for e in range(len(seen.epochs))]


@pytest.mark.parametrize("patience", [None, 3])
@pytest.mark.parametrize(
    ("average", "means"),
    [({"name": "ema", "decay": 0.9}, exponential), ({"name": "swa", "start": 3}, stochastic)],
)
def test_the_average_is_predicted_with_watched_and_kept(backend, average, means, patience):
    """Its validation loss is the one in the history; the best epoch is the average's. Training goes
    on from the weights themselves, which the state has."""
    one, seen = model(backend), Weights()
    options = {"batch_size": 20, "epochs": 9, "learning_rate": 0.2, "optimizer": "momentum"}
    options |= {"validation": (X[:15], T[:15]), "patience": patience}
    result = train(one, X, T, **options, average=average, callbacks=[seen])
    plain = train(one, X, T, **options)
    done = min(result.state.epoch, plain.state.epoch)
    assert result.history["loss"][:done] == plain.history["loss"][:done]
    expected = means(seen, backend.to_numpy(one.w))
    losses = []
    for w in expected:
        moved = model()
        moved.w = w
        losses.append(moved.evaluate(X[:15], T[:15])["loss"])
    np.testing.assert_allclose(result.history["validation_loss"], losses, rtol=1e-9)
    chosen = int(np.argmin(losses)) if patience else -1
    np.testing.assert_allclose(backend.to_numpy(result.model.w), expected[chosen], rtol=1e-10)
    np.testing.assert_array_equal(backend.to_numpy(result.state.w), seen.steps[-1])
    np.testing.assert_allclose(
        backend.to_numpy(result.state.vectors["average"]), expected[-1], rtol=1e-10
    )


@pytest.mark.parametrize("average", ["ema", {"name": "swa", "start": 1}])
def test_a_run_that_diverges_ends_with_the_last_finite_average(average):
    class Explode:
        def on_epoch_start(self, run):
            if run.state.epoch == 3:
                run.state.learning_rate = 1e300

    options = {"optimizer": "sgd", "learning_rate": 0.01, "average": average, "epochs": 5}
    before = train(model(), X, T, **options | {"epochs": 3})
    with pytest.warns(RuntimeWarning), np.errstate(all="ignore"):
        found = train(model(), X, T, **options, callbacks=[Explode()])
    assert found.diverged
    np.testing.assert_array_equal(found.model.w, before.model.w)


def test_an_average_survives_that_memory_runs_out_while_an_epoch_is_closed(monkeypatch):
    """The epoch is closed again, once."""
    options = {"average": {"name": "swa", "start": 2}, "epochs": 6, "validation": (X[:9], T[:9])}
    whole, calls = train(model(), X, T, **options), []
    from mlp.training import setup

    measure = setup.Evaluator.__call__

    def full(self, *given, **named):
        calls.append(self)
        if len(calls) == 4:
            raise MemoryError("full")
        return measure(self, *given, **named)

    monkeypatch.setattr(setup.Evaluator, "__call__", full)
    part = train(model(), X, T, **options)
    assert part.out_of_memory
    again = train(model(), X, T, **options, state=part.state)
    np.testing.assert_array_equal(again.model.w, whole.model.w)


# --- matrices -----------------------------------------------------------------------------------


def orthogonalised(N):
    """By the singular value decomposition: the polynomial on each singular value, five times."""
    a, b, c = Orthogonal.coefficients
    U, s, Vt = np.linalg.svd(N, full_matrices=False)
    s = s / (np.linalg.norm(s) + 1e-7)
    for _ in range(5):
        s = a * s + b * s**3 + c * s**5
    return U * s @ Vt


@pytest.mark.parametrize("decay", [None, 0.1])
@pytest.mark.parametrize("widths", [(4, 7), (7, 4), (5, 5)])
def test_muon(backend, widths, decay):
    """Hidden matrices by the polynomial of their singular values, all else by Adam."""
    layers = [Dense(widths[0], "tanh"), Dense(widths[1], "tanh"), Dense(1)]
    one = Model(Network(3, layers), "mean_squared_error", dtype="float64", backend=backend)
    twin = one.to("numpy")
    options = FULL | {"optimizer": "muon", "learning_rate": 0.02, "epochs": 4}
    found = trained(one, **options, weight_decay=decay)
    part, shape, w = one.network.weight_slices[1, 2], widths, np.asarray(twin.w).copy()
    m = v = 0.0
    keep = np.ones(w.shape)
    keep[: one.network.weights] = 1.0 - 0.02 * (decay or 0.0)
    for t in range(1, 5):
        g = gradient(twin, w)
        before = np.zeros(w.shape) + m
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        M = 0.95 * before[part] + 0.05 * g[part]
        m[part] = M
        step = 1e-3 * m / (1 - 0.9**t) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
        O = orthogonalised((0.95 * M + 0.05 * g[part]).reshape(shape))
        step[part] = 0.02 * math.sqrt(max(1.0, shape[1] / shape[0])) * O.ravel()
        w = keep * w - step
    np.testing.assert_allclose(found, w, rtol=1e-8)


def test_orthogonal_brings_singular_values_near_to_one():
    s = np.linalg.svd(orthogonalised(rng.normal(size=(6, 9))))[1]
    assert (s > 0.5).all()
    assert (s < 1.3).all()


# --- time ---------------------------------------------------------------------------------------


class Clock:
    """time.monotonic() that goes by a second a step, and by a day between runs."""

    def __init__(self, monkeypatch):
        self.now = 0.0
        monkeypatch.setattr("mlp.training.loop.time.monotonic", lambda: self.now)

    def on_run_start(self, run):
        pass

    def on_batch_end(self, run):
        self.now += 1.0


def test_time_ends_a_run_within_a_step_and_counts_what_a_run_before_took(monkeypatch, tmp_path):
    clock = Clock(monkeypatch)
    options = {"batch_size": 10, "epochs": 100, "callbacks": [clock]}
    first = train(model(), X, T, **options, time=7)
    assert first.state.step == 7
    assert first.state.seconds == 7.0
    assert first.stopped == "the time is over (7)"
    mlp.save_state(first.state, tmp_path / "state", first.model.backend)
    clock.now += 86400.0
    state = mlp.load_state(tmp_path / "state")
    again = train(model(), X, T, **options, time="10 s", state=state)
    assert again.state.step == 10
    assert again.stopped == "the time is over (10 s)"
    over = train(model(), X, T, **options, time=5, state=state)
    assert over.state.step == 7


def test_without_a_limit_time_is_counted_too(monkeypatch):
    clock = Clock(monkeypatch)
    state = train(model(), X, T, batch_size=20, epochs=3, callbacks=[clock]).state
    assert state.seconds == 6.0


# --- what it takes ------------------------------------------------------------------------------

EXTRAS = {  # vectors of w's length, beside those of the rule
    "clip_norm": ({"clip_norm": 1.0}, 1),  # the squares
    "clip_value": ({"clip_value": 1.0}, 0),
    "sam": ({"sam_radius": 0.1}, 2),  # the squares, and w as it was
    "ema": ({"average": "ema"}, 2),  # the average, and the last finite one
    "swa": ({"average": {"name": "swa", "start": 1}}, 2),
    "accumulate": ({"accumulate": 2}, 1),
    "decay": ({"weight_decay": 0.1}, 0),
}


@pytest.mark.parametrize("name", EXTRAS)
def test_what_it_takes_is_in_the_plan(name):
    """Of data, and of sizes alone."""
    options, vectors = EXTRAS[name]
    one = model()
    if name != "decay":
        by_sizes = [mlp.plan(one, 40, batch_size=10, **given).needed for given in (options, {})]
        assert 0 <= by_sizes[0] - by_sizes[1] - 8 * vectors * one.network.parameters < 64
    with_it, without = (
        plan_training(one, X, T, settings=Settings(batch_size=10, **given)).needed
        for given in (options, {})
    )
    assert 0 <= with_it - without - 8 * vectors * one.network.parameters < 64


class Counted(type(get_backend("numpy"))):
    """NumPy that counts the runs of kernels whose first argument has so many numbers or more."""

    def __init__(self):
        super().__init__()
        self.kernels = 0

    def fuse(self, formula, into=(0,)):
        kernel = super().fuse(formula, into)
        bind = kernel.bind

        def counted(*arrays, scalars=0):
            run = bind(*arrays, scalars=scalars)

            def call(*numbers):
                self.kernels += 1
                run(*numbers)

            return call

        kernel.bind = counted
        return kernel


@pytest.mark.parametrize(
    ("options", "more"),
    [
        ({}, 0),
        ({"clip_value": 1.0}, 0),
        ({"weight_decay": 0.1}, 1),  # weights and biases are two parts
        ({"average": "ema"}, 0),
        ({"clip_norm": 1.0}, 2),  # the squares, and the factor
        ({"rate_factors": {"bias": 0}}, 0),
        ({"accumulate": 2}, None),
    ],
)
def test_kernels_of_a_step(options, more):
    """Decay, averages and clipping are in the update's kernel."""

    def count(**options):
        backend = Counted()
        seen = []

        class Note:
            def on_batch_end(self, run):
                seen.append(backend.kernels)

        train(model(backend), X, T, batch_size=10, epochs=2, callbacks=[Note()], **options)
        return [b - a for a, b in pairwise(seen[4:])]

    plain, found = count(), count(**options)
    if more is not None:
        assert found == [plain[0] + more] * 3
    else:  # one that adds up, and every second time no update
        assert found == [plain[0] + 1, plain[0], plain[0] + 1][: len(found)] or sorted(
            found
        ) == sorted([plain[0], plain[0] + 1, plain[0] + 1])


# --- max_norm -----------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:steps are not recorded")
@pytest.mark.parametrize("recorded", [False, True])
def test_max_norm_shortens_the_weights_of_a_unit(backend, recorded):
    """W_·k c / max(|W_·k|, c) over all sources, after each update; biases and others stay."""
    c, layers = 0.7, [Dense(4, "tanh", max_norm=0.7), Dense(2, sources=(0, 1), max_norm=0.7)]
    one = Model(Network(3, layers), "mean_squared_error", seed=1, dtype="float64", backend=backend)
    T2, w, host = np.hstack([T, -T]), backend.to_numpy(one.w), one.to("numpy")
    for _ in range(3):
        w = w - 0.1 * gradient(host, w, t=T2)
        views = one.network.views(w)["W"]
        for matrices in ([views[0, 1]], [views[0, 2], views[1, 2]]):
            norms = np.sqrt(sum((W**2).sum(axis=0) for W in matrices))
            for W in matrices:
                W *= c / np.maximum(norms, c)
    options = FULL | {"epochs": 3, "record_steps": recorded}
    found = train(one, X, T2, **options).model
    np.testing.assert_allclose(backend.to_numpy(found.w), w, rtol=1e-12, atol=1e-15)
    again = train(one, X, T2, **options | {"epochs": 1}).state
    on = train(one, X, T2, **options, state=again).model
    np.testing.assert_array_equal(backend.to_numpy(on.w), backend.to_numpy(found.w))


def test_max_norm_is_torch_s():
    torch = pytest.importorskip("torch")
    one = model(max_norm=0.3)
    first, last = (trained(m, **FULL, epochs=1) for m in (one, model()))
    W, before = (one.network.views(w)["W"][0, 1] for w in (first, last))
    expected = torch.renorm(torch.from_numpy(before.copy()), 2, 1, 0.3).numpy()
    np.testing.assert_allclose(W, expected, rtol=1e-6)


def test_max_norm_that_cannot_be():
    with pytest.raises(InputError, match="Dense: max_norm must be above 0, not 0"):
        Dense(3, max_norm=0)
    for options, said in (
        (
            {"rate_factors": {"W[0, 1]": 0}},
            r"layer 1: max_norm would change W\[0, 1\], which is",
        ),
        ({"average": "ema"}, "layer 1: max_norm comes after each step"),
    ):
        with pytest.raises(InputError, match=said):
            train(model(max_norm=1.0), X, T, epochs=1, **options)


# --- what is refused ----------------------------------------------------------------------------

REFUSED = {
    "weight_decay=-1": "weight_decay must be 0 or above, not -1",
    "weight_decay='a'": "weight_decay must be 0 or above, not 'a'",
    "weight_decay=0.1, optimizer='rprop'": "optimizer 'rprop' cannot have weight_decay",
    "weight_decay=0.1, optimizer='quickprop'": "optimizer 'quickprop' cannot have weight_decay",
    "weight_decay=0.1, optimizer={'name': 'adamw', 'weight_decay': 0.2}": (
        "weight_decay is 0.1 and that of the optimizer 0.2: give one of them"
    ),
    "weight_decay_schedule='cosine'": "weight_decay_schedule has no effect without weight_decay",
    "decay_factors={'weight': 2}": "decay_factors has no effect without weight_decay",
    "weight_decay_schedule='cosin', weight_decay=1": (
        "unknown weight_decay_schedule 'cosin'; did you mean 'cosine'?"
    ),
    "weight_decay=0.1, decay_factors={'weights': 2}": "decay_factors: no role 'weights'",
    "rate_factors={'wieght': 2}": "rate_factors: no role 'wieght'; did you mean 'weight'?",
    "rate_factors={'weight': 'ntq'}": "weight must be a number or 'ntk', not 'ntq'",
    "rate_factors={'bias': 'ntk'}": "the factor 'ntk' is for weights, not b[1]",
    "rate_factors={'W[1, 3]': 2}": (
        "rate_factors: this network has no parameters 'W[1, 3]'; did you mean 'W[2, 3]'?"
    ),
    "rate_factors={'gain': 2}": "this network has no parameters 'gain'",
    "rate_factors={4: 2}": "this network has no parameters 4",
    "rate_factors={0: 2}": "rate_factors: no role 0",
    "rate_factors={'weight': 0, 'bias': 0}": "rate_factors freeze all parameters",
    "clip_norm=0": "clip_norm must be above 0, not 0",
    "clip_value=-1.0": "clip_value must be above 0, not -1.0",
    "clip_norm=1, clip_value=1": "clip_norm and clip_value are two ways to one end: give one",
    "clip_norm=1, optimizer='rprop'": (
        "optimizer 'rprop' takes steps whatever the gradient's size: remove clip_norm"
    ),
    "clip_norm=1, optimizer='muon'": "takes steps whatever the gradient's size",
    "accumulate=0": "accumulate must be a whole number from 1 on, not 0",
    "accumulate=2, batch_size='full'": "accumulate has no effect on full batches",
    "accumulate=2, sam_radius=0.1": "accumulate and sam_radius do not go together",
    "accumulate=2, record_steps=True": "accumulate and record_steps do not go together",
    "sam_radius=0.1, parallel={'shards': 2}": "is for one process without shards",
    "sam_radius=0": "sam_radius must be above 0, not 0",
    "average='emma'": "unknown average 'emma'; did you mean 'ema'?",
    "average='swa'": "average 'swa' needs a value for 'start'",
    "average={'name': 'ema', 'decay': 1.0}": "decay must lie between 0 and 1, not 1.0",
    "average=3": "an average is a name or an object with share and share_of_epoch, not 3",
    "time='10 weeks'": "time is '90 s', '10 min', '1.5 h' or seconds above 0, not '10 weeks'",
    "time=0": "time is '90 s', '10 min', '1.5 h' or seconds above 0, not 0",
}


@pytest.mark.parametrize("options", REFUSED)
def test_what_is_refused_before_training(options):
    with pytest.raises(InputError, match=re.escape(REFUSED[options])):
        train(model(), X, T, **eval(f"dict({options})"))


def test_what_fits_no_network():
    with pytest.raises(
        InputError, match="between hidden layers, of which this network trains none"
    ):
        train(Model(Network(3, [Dense(4), Dense(1)]), "mean_squared_error"), X, T, optimizer="muon")
    for loss, options in (("half_squared_error", {}), ("mean_squared_error", {"shared": True})):
        one = Model(
            Network(3, [Dense(1, l2=0.1)]), loss, shared_penalties=bool(options), dtype="float64"
        )
        with pytest.raises(InputError, match=r"penalties .* would count once a batch"):
            train(one, X, T, accumulate=2, batch_size=5)


def test_a_state_of_other_settings_is_refused():
    state = train(model(), X, T, epochs=1).state
    with pytest.raises(InputError, match=r"has optimizer vectors \['m', 'v'\], .*'average'"):
        train(model(), X, T, epochs=2, state=state, average="ema")
