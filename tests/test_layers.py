"""A layer has a door: those defined in this file alone pass the laws of the library's own.

What a layer must be able to have, each by one of them: parameters other than weights and biases
(`OwnNorm`, `OwnScale`), an addition of an earlier layer's output (`Residual`), statistics
that are state and another behaviour in predictions (`RunningCentre`), integer inputs (`OwnTable`),
rows for several members (`Members`). A new one is tested by being listed in `NETS`.
"""

import copy
import pickle
import re
from dataclasses import dataclass

import numpy as np
import pytest

import mlp
from backends import BackendError, get_backend
from mlp import Dense, InputError, Model, Network, gradient_check, train
from mlp.layers import (
    ROLES,
    Activation,
    Add,
    BatchNorm,
    Dropout,
    Embedding,
    Ensemble,
    Gated,
    GaussianNoise,
    Layer,
    LayerNorm,
    Maxout,
    Parameter,
    Periodic,
    PiecewiseLinear,
    RMSNorm,
    Scale,
    Statistic,
)
from mlp.model import draw

# ------------------------------------------------------------------ toy layers


@dataclass(frozen=True)
class OwnNorm(Layer):
    """y = gain ⊙ x̂ + shift, x̂ = (x - mean) / sqrt(variance + epsilon), over the units of a row.

    ∂E/∂x = (v - mean v - x̂ mean(v ⊙ x̂)) / sqrt(...), v = Δ ⊙ gain (Ba et al., arXiv:1607.06450).
    """

    sources: tuple[int, ...] | None = None
    epsilon: float = 1e-3

    def parameters(self, inputs):
        (m,) = inputs.values()
        return Parameter("gain", (m,), "gain", 1.0), Parameter("shift", (m,), "shift")

    def forward(self, at):
        (x,), share = at.x.values(), 1.0 / at.width

        def normalise(xp, y, hat, deviation, x, gain, shift):
            centred = x - xp.sum(x, axis=1, keepdims=True) * share
            variance = xp.sum(centred * centred, axis=1, keepdims=True) * share
            deviation = xp.sqrt(variance + self.epsilon)
            hat = centred / deviation
            return gain * hat + shift, hat, deviation

        arrays = at.output(), at.buffer("hat"), at.buffer("deviation", 1), x
        at.tape.apply(normalise, (0, 1, 2), *arrays, at.p["gain"], at.p["shift"])

    def backward(self, at):
        hat, product, share = at.buffer("hat"), at.buffer("product"), 1.0 / at.width
        at.tape.apply(lambda xp, out, d, hat: d * hat, (0,), product, at.delta, hat)
        at.tape.total(product, at.g["gain"])
        at.tape.total(at.delta, at.g["shift"])

        def back(xp, out, d, gain, hat, deviation):
            v = d * gain
            mean = xp.sum(v, axis=1, keepdims=True) * share
            along = xp.sum(v * hat, axis=1, keepdims=True) * share
            return (v - mean - hat * along) / deviation

        for _, out in at.back():
            arrays = at.delta, at.p["gain"], hat, at.buffer("deviation", 1)
            at.tape.apply(back, (0,), out, *arrays)


@dataclass(frozen=True)
class OwnScale(Layer):
    """y = s ⊙ x, a number for each column."""

    sources: tuple[int, ...] | None = None

    def parameters(self, inputs):
        (m,) = inputs.values()
        return (Parameter("s", (m,), "scale", lambda rng: rng.uniform(0.5, 1.5, m)),)

    def forward(self, at):
        (x,) = at.x.values()
        at.tape.apply(lambda xp, y, x, s: x * s, (0,), at.output(), x, at.p["s"])

    def backward(self, at):
        (x,), product = at.x.values(), at.buffer("product")
        at.tape.apply(lambda xp, out, x, d: x * d, (0,), product, x, at.delta)
        at.tape.total(product, at.g["s"])
        for _, out in at.back():
            at.tape.apply(lambda xp, out, d, s: d * s, (0,), out, at.delta, at.p["s"])


@dataclass(frozen=True)
class Residual(Layer):
    """y = Σ x_k: the addition of earlier layers' outputs."""

    sources: tuple[int, ...] | None = None

    def forward(self, at):
        def add(xp, y, *x):
            total = x[0]
            for more in x[1:]:
                total = total + more
            return total

        at.tape.apply(add, (0,), at.output(), *at.x.values())

    def backward(self, at):
        for _, out in at.back():
            at.tape.copy(at.delta, out)


@dataclass(frozen=True)
class RunningCentre(Layer):
    """y = x - mean, over the batch in training, by a running mean in predictions."""

    sources: tuple[int, ...] | None = None
    keep: float = 0.9

    def statistics(self, inputs):
        (m,) = inputs.values()
        return (Statistic("mean", (m,), 0.0),)

    def forward(self, at):
        (x,), mean = at.x.values(), at.s["mean"]
        if not at.training:
            at.tape.apply(lambda xp, y, x, mean: x - mean, (0,), at.output(), x, mean)
            return
        total = self._total(at, "total", x)

        def run(xp, mean, total, share):
            return self.keep * mean + (1.0 - self.keep) * (share * total)

        at.tape.apply(run, (0,), mean, total, scalars=(1.0 / at.n,))
        self._centre(at, at.output(), x, total)

    def backward(self, at):
        total = self._total(at, "back", at.delta)
        for _, out in at.back():
            self._centre(at, out, at.delta, total)

    def _total(self, at, name, x):
        total = at.arena.vector((name, at.number), at.width, at.arena.dtype)
        at.tape.total(x, total)
        return total

    def _centre(self, at, out, x, total):
        def centre(xp, out, x, total, share):
            return x - share * total

        at.tape.apply(centre, (0,), out, x, total, scalars=(1.0 / at.n,))


@dataclass(frozen=True)
class OwnTable(Layer):
    """y = T[c]: a row of a table for each value of one integer column of the input."""

    values: int = 4
    units: int = 3
    column: int = 0
    sources: tuple[int, ...] | None = (0,)
    integers = True

    def width(self, inputs):
        return self.units

    def parameters(self, inputs):
        shape = self.values, self.units
        return (Parameter("T", shape, "table", lambda rng: rng.normal(size=shape)),)

    def forward(self, at):
        at.tape.take(at.p["T"], at.integers(self.column), at.output())

    def backward(self, at):
        """∂E/∂T = onehotᵀ Δ."""
        one_hot = at.buffer("one hot", self.values)
        at.tape.one_hot(at.integers(self.column), one_hot)
        at.tape.product(one_hot.T, at.delta, at.g["T"])


@dataclass(frozen=True)
class Members(Layer):
    """Rows below each other for several members, y_m = r_m ⊙ x: from here on the net is many."""

    count: int = 3
    sources: tuple[int, ...] | None = None

    def members(self, inputs):
        return self.count

    def parameters(self, inputs):
        (m,) = inputs.values()
        shape = self.count, m
        return (Parameter("r", shape, "scale", lambda rng: rng.choice([-1.0, 1.0], shape)),)

    def forward(self, at):
        (x,), y = at.x.values(), at.output()
        for m, rows in self._each(at):
            at.tape.apply(lambda xp, y, x, r: x * r, (0,), y[rows, :], x, at.p["r"][m, :])

    def backward(self, at):
        (x,) = at.x.values()
        product = at.buffer("product")
        for m, rows in self._each(at):
            part = product[rows, :]
            at.tape.apply(lambda xp, out, x, d: x * d, (0,), part, x, at.delta[rows, :])
            at.tape.total(part, at.g["r"][m, :])
        for _, out in at.back():
            for m, rows in self._each(at):
                arrays = out, at.delta[rows, :], at.p["r"][m, :]
                first = m == 0
                at.tape.apply((lambda xp, out, d, r: d * r) if first else _more, (0,), *arrays)

    def _each(self, at):
        return [(m, slice(m, None, self.count)) for m in range(self.count)]


def _more(xp, out, d, r):
    return out + d * r


# ------------------------------------------------------------------ the nets they stand in

HIDDEN, OUT = Dense(4, "tanh", l2=0.01), Dense(3)
EDGES = ((-1.0, -0.3, 0.2, 0.9), (-0.5, 0.5))
NETS = {
    "batch norm": [HIDDEN, BatchNorm(), Dense(5, "gelu"), OUT],
    "batch norm before the activation": [
        Dense(4, bias=False),
        BatchNorm(),
        Activation("silu"),
        Dense(3),
        BatchNorm(0.5),
    ],
    "batch norm of the input": [BatchNorm(), HIDDEN, OUT],
    "layer norm": [HIDDEN, LayerNorm(), Dense(4, "silu"), LayerNorm(), OUT],
    "layer norm of the input": [LayerNorm(), HIDDEN, OUT, LayerNorm()],
    "rms norm": [RMSNorm(), HIDDEN, RMSNorm(), Dense(4, "silu"), OUT, RMSNorm()],
    "scales": [Scale(), HIDDEN, Scale(), OUT, Scale()],
    "residual connections": [
        HIDDEN,
        Dense(4, "tanh"),
        Add((1, 2)),
        Dense(4),
        Add((1, 3, 4)),
        Activation("gelu"),
        OUT,
    ],
    "embedding": [Embedding(3, (0,), (4,)), HIDDEN, OUT],
    "embedding at the end": [Embedding(1, (0,), (5,))],
    "piecewise linear": [PiecewiseLinear(3, columns=(2, 1), edges=EDGES), HIDDEN, OUT],
    "piecewise linear of hidden units": [
        HIDDEN,
        Dense(2),
        PiecewiseLinear(2, edges=EDGES),
        Dense(3, sources=(1, 3)),
        PiecewiseLinear(1, columns=(2,), edges=EDGES[:1]),
    ],
    "periodic": [Periodic(deviation=0.5), HIDDEN, OUT],
    "periodic of hidden units": [
        HIDDEN,
        Periodic(2, 5, 0.3, (3, 0)),
        Dense(4, "tanh", sources=(1, 2)),
        OUT,
        Periodic(1, 3, columns=(1,)),
        Dense(3),
    ],
    "periodic behind an embedding": [Embedding(2, (0,), (4,)), Periodic(2, 4, 0.5, (0, 1)), OUT],
    "periodic members": [Ensemble(4, 2), Periodic(2, 3), PiecewiseLinear(2, 2, (5, 1), EDGES), OUT],
    "ensemble": [Ensemble(4, 3, "tanh", l2=0.01), Ensemble(3, activation="silu"), Ensemble(3)],
    "ensemble with heads": [
        HIDDEN,
        Ensemble(4, 2, "tanh", bias=False),
        Dropout(0.3),
        Ensemble(3, adapters=False),
    ],
    "nets side by side": [
        Ensemble(4, 3, "tanh", False),
        Ensemble(4, None, "gelu", False, (0, 1)),
        Ensemble(3, adapters=False),
    ],
    "nets on a shared layer": [HIDDEN, Ensemble(4, 2, "tanh", False), BatchNorm(), OUT],
    "ensemble of two sources": [
        HIDDEN,
        Ensemble(4, 2, "tanh"),
        Ensemble(3, sources=(0, 1, 2)),
        Scale(),
    ],
    "gated": [
        Gated(4, l2=0.01),
        Gated(5, "silu", (0, 1), bias=False),
        Gated(4, "tanh", (1, 2)),
        Add((1, 3)),
        OUT,
    ],
    "gated at the end": [HIDDEN, Gated(3, "gelu_tanh")],
    "maxout": [Maxout(4), Maxout(5, 3, (0, 1), bias=False), OUT, Maxout(3)],
    "members with gates": [Ensemble(4, 2), Gated(4, "tanh"), Maxout(3, 3)],
    "an activation at the end": [HIDDEN, OUT, Activation("identity")],
    "dropout": [HIDDEN, Dropout(0.4), Dense(5, "gelu"), OUT],
    "dropout of the input": [Dropout(0.2), HIDDEN, OUT],
    "noise": [GaussianNoise(0.1), HIDDEN, GaussianNoise(0.3), Dense(5, "gelu", dropout=0.2), OUT],
    "own normalisation": [HIDDEN, OwnNorm(), Dense(4, "silu"), OUT],
    "own normalisation of the input": [OwnNorm(), HIDDEN, OUT],
    "own scale": [OwnScale(), HIDDEN, OwnScale(), OUT],
    "residual": [HIDDEN, Dense(4, "relu"), Residual(sources=(1, 2)), OUT],
    "residual at the end": [Dense(3, "tanh"), Dense(3), Residual(sources=(0, 1, 2))],
    "running centre": [HIDDEN, RunningCentre(), Dense(4, "tanh", dropout=0.3), OUT],
    "own table": [OwnTable(), Dense(4, "tanh", sources=(0, 1)), OUT],
    "members": [Members(), HIDDEN, OwnScale(), OUT],
    "members of hidden units": [HIDDEN, Members(2), OwnNorm(), OUT],
    "all of them": [
        OwnScale(),
        Dense(4, "tanh", dropout=0.2),
        OwnNorm(),
        Dense(4, "gelu", sources=(0, 3)),
        Residual(sources=(2, 4)),
        RunningCentre(),
        OwnTable(units=4),
        Residual(sources=(6, 7)),
        Members(2),
        Dense(3, sources=(9,)),
    ],
}
nets = pytest.mark.parametrize("name", NETS)
N, INPUTS = 12, 3


def network(name):
    return Network(INPUTS, NETS[name])


def rows(n=N, seed=0):
    """A column of whole numbers from 0 to 3 among numbers, and targets."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, INPUTS))
    X[:, 0] = rng.integers(0, 4, n)
    return X, rng.normal(size=(n, 3))


def model_of(name, backend="numpy", loss="mean_squared_error", **options):
    return Model(network(name), loss, seed=3, backend=backend, **options)


# ------------------------------------------------------------------ the laws


@nets
@pytest.mark.parametrize("loss", ["mean_squared_error", "cross_entropy"])
def test_the_gradient_is_the_derivative(backend, name, loss):
    X, t = rows()
    t = t if loss == "mean_squared_error" else t.argmax(axis=1)
    weights = np.random.default_rng(1).uniform(0.5, 2.0, N)
    most = None if backend.name == "numpy" else 12
    found = gradient_check(model_of(name, backend, loss), X, t, sample_weight=weights, most=most)
    assert found.passed, str(found)
    assert found.parameters == min(network(name).parameters, most or 10_000)
    assert found.difference != 0.0


@nets
def test_backends_agree(backend, dtype, name):
    (X, t), tolerance = rows(), {"float64": 1e-11, "float32": 1e-4}[dtype]
    found = []
    for where in (backend, get_backend("numpy")):
        one = model_of(name, where, dtype=dtype if where is backend else "float64")
        E, g = one.value_and_gradient(X, t, dropout_seed=1)
        assert str(g.dtype).endswith(dtype if where is backend else "float64")
        y = one.predict(X)
        assert y.dtype == (dtype if where is backend else "float64")
        found.append((np.asarray(E), where.to_numpy(g), y))
    for a, b in zip(*found, strict=True):
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


@nets
def test_a_short_batch_is_a_view(name):
    """Buffers are of the largest batch; fewer rows in them are those rows alone."""
    backend, one = get_backend("numpy"), model_of(name, dtype="float64")
    X, t = rows()
    E, g = one.value_and_gradient(X[:5], t[:5])
    from mlp.layers.tape import Arena

    arena, found = Arena(backend, "float64", N), backend.empty(g.shape, "float64")
    for n in (N, 5):
        arguments = one.w.copy(), found, arena, n
        s = network(name).initial_statistics()
        evaluation = one.objective.gradient(backend, *arguments, statistics=s)
        evaluation.x[...], evaluation.t[...] = X[:n], t[:n]
        draw(evaluation, None)
        evaluation.run()
    np.testing.assert_array_equal(found, g)
    assert evaluation.sums.sum() == pytest.approx(E, rel=1e-14)


@pytest.mark.thorough_on("strict:device1")
@nets
def test_training_learns_and_goes_on_as_if_never_stopped(backend, name, tmp_path):
    """In files too: weights, statistics, and the bits of the history."""
    X, t = rows(40)
    options = {"batch_size": 16, "learning_rate": 0.02, "seed": 5, "validation": rows(10, seed=1)}
    epochs = 12 if backend.name == "numpy" else 4
    whole = train(model_of(name, backend), X, t, epochs=epochs, patience=20, **options)
    assert whole.history["loss"][-1] < whole.history["loss"][0]
    half = train(model_of(name, backend), X, t, epochs=2, patience=20, **options)
    mlp.save_state(half.state, tmp_path / "state", backend)
    state = mlp.load_state(tmp_path / "state")
    again = train(model_of(name, backend), X, t, epochs=epochs, patience=20, state=state, **options)
    assert again.history["loss"] == whole.history["loss"]
    assert again.history["validation_loss"] == whole.history["validation_loss"]
    np.testing.assert_array_equal(again.model.predict(X), whole.model.predict(X))


@nets
def test_precisions(name):
    """float16 activations where a device has them; the double of tests/test_mixed.py here."""
    from test_mixed import Halves

    (X, t), half = rows(), Halves()
    exact, h = model_of(name, half, precision="float64").value_and_gradient(X, t)
    E, g = model_of(name, half, precision="mixed").value_and_gradient(X, t)
    assert abs(E - exact) < 1e-2 * exact
    assert np.linalg.norm(g - h) < 2e-2 * np.linalg.norm(h)


@nets
def test_recorded_steps_are_the_same(name, monkeypatch):
    backend = get_backend("numpy")
    monkeypatch.setattr(backend, "record", lambda call: call)
    X, t = rows(40)
    found = [
        train(model_of(name), X, t, epochs=3, batch_size=16, record_steps=record).state
        for record in (False, True)
    ]
    np.testing.assert_array_equal(found[0].w, found[1].w)


@nets
def test_the_plan_is_what_it_takes(name):
    from test_memory import Living

    X, t = rows(40)
    backend, found = Living(), {}
    one = model_of(name, backend)
    before = backend.bytes

    def note(run):
        found["used"], found["plan"] = backend.bytes - before, run.plan

    noted = type("Note", (), {"on_batch_end": staticmethod(note)})()
    train(one, X, t, epochs=1, batch_size=16, patience=2, callbacks=[noted])
    assert found["plan"].needed == found["used"] + one.network.parameters


# ------------------------------------------------------------------ what each of them is for


def test_statistics_are_state_and_not_parameters():
    """A running mean is moved by training alone, kept by copies, and read by predict."""
    X, t = rows(64)
    one = model_of("running centre")
    assert one.network.statistics == 4
    assert backend_zeros(one.statistics)
    one.value_and_gradient(X, t)
    assert backend_zeros(one.statistics)
    trained = train(one, X, t, epochs=3, batch_size=16).model
    assert not backend_zeros(trained.statistics)
    assert backend_zeros(one.statistics)
    for other in (copy.deepcopy(trained), pickle.loads(pickle.dumps(trained)), trained.to()):
        np.testing.assert_array_equal(other.statistics, trained.statistics)
        np.testing.assert_array_equal(other.predict(X), trained.predict(X))
    one.w = trained.w
    assert not np.array_equal(one.predict(X), trained.predict(X))


BATCH = {name: net for name, net in NETS.items() if any(isinstance(l, BatchNorm) for l in net)}
batches = pytest.mark.parametrize("name", BATCH)


def evaluated(one, X, t, weights=None, often=1):
    """(E, g, statistics after) of a model in float64, evaluated so often on the same rows."""
    from mlp.layers.tape import Arena

    backend, s = get_backend("numpy"), one.statistics.copy()
    g, arena = np.empty(one.network.parameters), Arena(get_backend("numpy"), "float64", len(X))
    arguments = backend, one.w, g, arena, len(X), weights is not None
    evaluation = one.objective.gradient(*arguments, statistics=s)
    for _ in range(often):
        evaluation.x[...], evaluation.t[...] = X, t
        if weights is not None:
            evaluation.s[...] = weights[:, None]
        evaluation.run()
    return evaluation.sums.sum(), g, s


@batches
def test_a_row_of_weight_two_counts_as_two_rows_in_a_batch(name):
    """And one of weight 0 is not there; a batch of nothing moves no statistic."""
    (X, t), one = rows(), model_of(name, dtype="float64")
    often = np.array([2, 1, 0, 1, 3, 1, 1, 0, 1, 2, 1, 1])
    found = evaluated(one, X, t, often.astype(float))
    expected = evaluated(one, X.repeat(often, axis=0), t.repeat(often, axis=0))
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-13)
    _, g, s = evaluated(one, X, t, np.zeros(N))
    penalised = [l for l in one.network.numbers() if one.network.layer(l) is HIDDEN]
    for entry in one.network.layout:  # of the others nothing is left
        if entry.layer not in penalised:
            assert not g[entry.part].any()
    assert np.isfinite(g).all()
    np.testing.assert_array_equal(s, one.statistics)


@batches
def test_predictions_are_those_of_training_in_the_limit(name):
    """On the same rows again and again the running statistics become the batch's."""
    (X, t), one = rows(), model_of(name, dtype="float64")
    E, _, s = evaluated(one, X, t, often=400)
    one.statistics = s
    hidden = [W for (_, l), W in one.W.items() if one.network.layer(l) is HIDDEN]
    penalty = 0.005 * sum((W**2).sum() for W in hidden)
    several = one.network.members[-1] > 1  # whose losses are averaged, not their outputs
    y = np.moveaxis(one.predict(X, members=True), 1, 0) if several else one.predict(X)
    assert ((y - t) ** 2).mean() == pytest.approx(E - penalty, rel=1e-12)


def test_a_batch_norm_needs_two_rows_and_says_so_before_training():
    (X, t), one = rows(33), model_of("batch norm")
    said = "layer 2, batch_norm, takes the mean over a batch: it needs 2 rows or more, "
    ask = {
        "the last batch of 33 rows at batch_size 16 has 1; use batch_size 17": {"batch_size": 16},
        "a batch of batch_size 1 has 1; use batch_size 3": {"batch_size": 1},
    }
    for more, options in ask.items():
        with pytest.raises(InputError) as error:
            train(one, X, t, epochs=1, **options)
        assert str(error.value) == said + more
    with pytest.raises(InputError, match="a batch of batch_size 1 has 1; train on more rows"):
        train(one, X[:1], t[:1], epochs=1)
    for ask in (one.value_and_gradient, one.trace, lambda X, t: gradient_check(one, X, t)):
        with pytest.raises(InputError, match=f"{said}X has 1"):
            ask(X[:1], t[:1])
    assert one.predict(X[:1]).shape == (1, 3)
    assert mlp.plan(one, 33, batch_size=16).batch_size == 16  # its memory can be planned


def peers():
    """What PyTorch says of a layer: (layer, module)."""
    torch = pytest.importorskip("torch")
    return torch, {
        BatchNorm(): lambda m: torch.nn.BatchNorm1d(m),
        LayerNorm(1e-3): lambda m: torch.nn.LayerNorm(m, eps=1e-3),
        RMSNorm(1e-5): lambda m: torch.nn.RMSNorm(m, eps=1e-5),
    }


@pytest.mark.parametrize("which", range(3))
def test_normalisations_are_those_of_pytorch(which):
    """Outputs, gradients, running statistics; its running variance is over n - 1."""
    torch, table = peers()
    layer, module = list(table.items())[which]
    (X, t), rng = rows(), np.random.default_rng(7)
    one = Model(Network(3, [layer]), "half_squared_error", dtype="float64", reduction="sum")
    w = rng.uniform(0.5, 1.5, one.network.parameters)
    one.w = w
    E, g, s = evaluated(one, X, t)
    theirs = module(3).double()
    with torch.no_grad():
        for parameter, part in zip(theirs.parameters(), np.split(w, len(w) // 3), strict=True):
            parameter.copy_(torch.from_numpy(part))
    y = theirs(torch.from_numpy(X))
    (0.5 * ((y - torch.from_numpy(t)) ** 2).sum()).backward()
    expected = np.concatenate([p.grad.numpy() for p in theirs.parameters()])
    np.testing.assert_allclose(g, expected, rtol=1e-12)
    assert pytest.approx(0.5 * ((y.detach().numpy() - t) ** 2).sum(), rel=1e-13) == E
    if one.network.statistics:
        variance = theirs.running_var.numpy() - 0.9
        np.testing.assert_allclose(s[:3], theirs.running_mean.numpy(), rtol=1e-12)
        np.testing.assert_allclose(s[3:] - 0.9, variance * (N - 1) / N, rtol=1e-12)
        one.statistics = np.concatenate([s[:3], theirs.running_var.numpy()])
    y = theirs.eval()(torch.from_numpy(X)).detach().numpy()
    np.testing.assert_allclose(one.predict(X), y, rtol=1e-12)


@pytest.mark.parametrize("name", [name for name in NETS if Network(3, NETS[name]).members[-1] > 1])
def test_the_prediction_is_the_mean_of_the_members_and_the_loss_that_of_theirs(backend, name):
    """In scaled units and in the user's, of probabilities too."""
    X, t = rows()
    for loss in ("mean_squared_error", "cross_entropy"):
        one = model_of(name, backend, loss, dtype="float64")
        each = one.predict(X, members=True)
        count = one.network.members[-1]
        assert each.shape == (N, count, 3)
        assert (each.std(axis=1) > 0).any()
        np.testing.assert_allclose(one.predict(X), each.mean(axis=1), rtol=1e-12, atol=1e-14)
    one = model_of(name, backend, dtype="float64")
    found = one.evaluate(X, t)["loss"]
    each = one.predict(X, members=True)
    assert found == pytest.approx(((each - t[:, None]) ** 2).mean(), rel=1e-12)
    one.target_scaling = mlp.Scaling.standard(10.0 + t)
    expected = one.target_scaling.invert(each.reshape(-1, 3)).reshape(each.shape)
    np.testing.assert_allclose(one.predict(X, members=True), expected, rtol=1e-12)
    given = backend.asarray(X, "float64")
    on_device = backend.to_numpy(one.predict(given, members=True))
    np.testing.assert_allclose(on_device, expected, rtol=1e-12)


def test_gated_and_maxout_units_are_as_the_papers_have_them():
    (X, _), sigmoid = rows(), lambda v: 1.0 / (1.0 + np.exp(-v))
    gates = {"sigmoid": sigmoid, "silu": lambda v: v * sigmoid(v), "identity": lambda v: v}
    for gate, f in gates.items():
        one = Model(Network(3, [Gated(4, gate)]), "mean_squared_error", dtype="float64", seed=1)
        one.w = np.random.default_rng(0).normal(size=one.network.parameters)
        z = X @ one.W[0, 1] + one.b[1]
        np.testing.assert_allclose(one.predict(X), z[:, :4] * f(z[:, 4:]), rtol=1e-12)
    one = Model(Network(3, [Maxout(4, 3)]), "mean_squared_error", dtype="float64", seed=1)
    z = (X @ one.W[0, 1] + one.b[1]).reshape(N, 3, 4)
    np.testing.assert_allclose(one.predict(X), z.max(axis=1), rtol=1e-12)
    for made, said in (
        (lambda: Maxout(4, 1), "Maxout: pieces must be a whole number from 2 on, not 1"),
        (lambda: Gated(4, "prelu"), "Gated: the gate 'prelu' is one that learns"),
        (lambda: Gated(0), "Gated: units must be a whole number from 1 on, not 0"),
    ):
        with pytest.raises(InputError, match=said):
            made()


def test_nets_side_by_side_are_nets():
    """Each member without adapters is a dense net of its own, and learns as it would alone."""
    (X, t), one = rows(), model_of("nets side by side", dtype="float64")
    views, alone = one.network.views(one.w), []
    chain = [Dense(4, "tanh"), Dense(4, "gelu", sources=(0, 1)), Dense(3)]
    for m in range(3):
        net = Network(3, chain)
        w = net.pack(
            {key: W[m] for key, W in views["W"].items()}, {l: c[m] for l, c in views["c"].items()}
        )
        alone.append(Model(net, "mean_squared_error", w=w, dtype="float64"))
    each = one.predict(X, members=True)
    E, g = one.value_and_gradient(X, t)
    found, total = one.network.views(g), 0.0
    for m, net in enumerate(alone):
        np.testing.assert_allclose(each[:, m], net.predict(X), rtol=1e-12)
        E_m, g_m = net.value_and_gradient(X, t)
        W, b = net.network.unpack(g_m)
        for key, value in W.items():
            np.testing.assert_allclose(3 * found["W"][key][m], value, rtol=1e-10, atol=1e-14)
        for l, value in b.items():
            np.testing.assert_allclose(3 * found["c"][l][m], value, rtol=1e-10, atol=1e-14)
        total += E_m
    assert pytest.approx(total / 3, rel=1e-12) == E


def test_adapters_are_as_the_paper_has_them():
    """((x ⊙ r) W) ⊙ s + c; signs where the ensemble begins, and members that differ."""
    (X, _), one = rows(), model_of("ensemble", dtype="float64")
    views = one.network.views(one.w)
    assert set(np.unique(views["r"][0, 1])) == {-1.0, 1.0}
    assert (views["r"][1, 2] == 1.0).all()
    assert (views["s"][1] == 1.0).all()
    rng = np.random.default_rng(3)
    one.w = rng.normal(size=one.network.parameters)
    views, units = one.network.views(one.w), [np.tanh, lambda z: z / (1 + np.exp(-z)), lambda z: z]
    for m in range(3):
        a = X
        for l, f in enumerate(units, start=1):
            r, s, c = views["r"][l - 1, l][m], views["s"][l][m], views["c"][l][m]
            a = f(((a * r) @ views["W"][l - 1, l]) * s + c)
        np.testing.assert_allclose(one.predict(X, members=True)[:, m], a, rtol=1e-11)


@pytest.mark.parametrize(
    ("layers", "said"),
    [
        ([Ensemble(3)], "layer 1: ensemble: say how many members it has, as count = 8"),
        (
            [Ensemble(3, 2), Ensemble(3, 4)],
            "layer 2: ensemble: it has 4 members, its sources 2 of layer 1",
        ),
        ([Ensemble(3, 2), Dense(3, sources=(0, 1))], "layer 2: identity: its sources must have as"),
    ],
)
def test_members_that_do_not_fit(layers, said):
    with pytest.raises(InputError, match=re.escape(said)):
        Network(3, [*layers])


def test_ensembles_that_are_refused():
    for settings, said in (
        ({"count": 1}, "Ensemble: count must be a whole number from 2 on, not 1"),
        ({"adapters": "yes"}, "Ensemble: adapters must be True or False, not 'yes'"),
        ({"activation": "prelu"}, "the activation 'prelu' learns; put it behind"),
        ({"l2": -1.0}, "Ensemble: l2 must be 0 or above, not -1.0"),
    ):
        with pytest.raises(InputError, match=re.escape(said)):
            Ensemble(3, **settings)
    with pytest.raises(InputError, match="predict: members are those of an ensemble"):
        model_of("dropout").predict(rows()[0], members=True)


def test_an_embedding_is_rows_of_tables_in_place_of_its_columns():
    """Columns in any order; tables below each other; the rest first; large codes in float16 too."""
    from test_mixed import Halves

    net = Network(5, [Embedding(2, columns=(3, 0), values=(4000, 3)), Dense(1)])
    rng = np.random.default_rng(0)
    X = rng.normal(size=(9, 5)).astype(np.float32)
    X[:, 3], X[:, 0] = rng.integers(2048, 4000, 9), rng.integers(0, 3, 9)
    one = Model(net, "mean_squared_error", dtype="float64", seed=2)
    T, W, b = net.views(one.w)["T"][1], one.W[1, 2], one.b[2]
    tables = T[:4000][X[:, 3].astype(int)], T[4000:][X[:, 0].astype(int)]
    y = np.concatenate([X[:, [1, 2, 4]], *tables], axis=1)
    np.testing.assert_allclose(one.predict(X), y @ W + b, rtol=1e-12)
    half = Model(net, "mean_squared_error", w=one.w, backend=Halves(), precision="mixed")
    np.testing.assert_allclose(half.predict(X), y @ W + b, atol=2e-2)
    assert half.evaluate(X, y @ W + b)["loss"] < 1e-4
    E, _ = half.value_and_gradient(X, y @ W + b)
    assert E < 1e-4


def test_embeddings_of_numbers_are_their_formulas():
    """In float64, all weights drawn; the other columns stay in their order."""
    net = Network(3, [PiecewiseLinear(2, columns=(2, 0), edges=EDGES), Dense(1)])
    one = Model(net, "mean_squared_error", dtype="float64")
    rng = np.random.default_rng(0)
    one.w, X = rng.normal(size=net.parameters), rng.normal(size=(50, 3))
    y = [X[:, 1:2]]
    for j, (column, b) in enumerate(zip((2, 0), EDGES, strict=True)):
        x, b, T = X[:, column], np.array(b), net.views(one.w)["T"][1][j, :, :]
        e = (x[:, None] - b[:-1]) / np.diff(b)
        e[:, 1:] = np.maximum(e[:, 1:], 0)
        e[:, :-1] = np.minimum(e[:, :-1], 1)
        y.append(np.column_stack([x, e]) @ T[: 1 + e.shape[1]] + net.views(one.w)["c"][1][j])
    np.testing.assert_allclose(one.predict(X), np.hstack(y) @ one.W[1, 2] + one.b[2], rtol=1e-12)
    net = Network(3, [Periodic(2, 5, columns=(1, 2)), Dense(1)])
    one = Model(net, "mean_squared_error", dtype="float64", seed=4)
    f, phase, A, c = (
        net.views(one.w)[name][1] for name in ("frequency", "phase", "amplitude", "offset")
    )
    e = [
        np.cos(2 * np.pi * X[:, [k]] * f[j] + phase[j]) @ A[j] + c[j] for j, k in enumerate((1, 2))
    ]
    y = np.hstack([X, *e]) @ one.W[1, 2] + one.b[2]
    np.testing.assert_allclose(one.predict(X), y, rtol=1e-12)


def test_derivatives_of_embeddings_of_numbers_go_on_below_them(backend):
    """Of hidden units, with curves that are not linear, as they are at first."""
    rng, (X, t) = np.random.default_rng(3), rows()
    for name in ("piecewise linear of hidden units", "periodic members"):
        one = model_of(name, backend)
        one.w = rng.normal(size=one.network.parameters)
        assert gradient_check(one, X, t, most=40).passed


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: PiecewiseLinear(bins=1), "PiecewiseLinear: bins must be a whole number from 2 on"),
        (lambda: PiecewiseLinear(edges=()), "edges must list those of each column"),
        (lambda: PiecewiseLinear(edges=((1.0, 0.0),)), "edges of column 0 must rise"),
        (lambda: PiecewiseLinear(edges=((0.0, np.nan),)), "edges of column 0 are no numbers"),
        (lambda: PiecewiseLinear(columns=(0, 1), edges=((0.0,),)), "edges of 1 columns, but there"),
        (lambda: PiecewiseLinear().fit([[np.inf]]), "fit needs rows and columns of finite numbers"),
        (lambda: PiecewiseLinear().fit([[1.0], [2.0, 3.0]]), "fit needs rows on the host: "),
        (
            lambda: Network(3, [PiecewiseLinear(), OUT]),
            "piecewise_linear: it has no edges",
        ),
        (
            lambda: Network(1, [PiecewiseLinear(edges=EDGES), OUT]),
            "of 2 columns, but 1 reach it",
        ),
        (lambda: Network(2, [Periodic(columns=(2,)), OUT]), "there is no column 2 in the 2 that"),
        (lambda: Periodic(deviation=0.0), "Periodic: deviation must be above 0, not 0.0"),
        (lambda: Periodic(columns=(0, 0)), "Periodic: columns (0, 0) must name each column once"),
    ],
)
def test_embeddings_of_numbers_that_are_refused(make, said):
    with pytest.raises(InputError, match=re.escape(said)):
        make()


BAD = {"2.5 in row 2, column 'c'": 2.5, "4.0 in row 2": 4.0, "-1.0 in row 2": -1.0}


@pytest.mark.parametrize("said", BAD)
def test_an_index_beyond_its_table_is_refused_where_rows_come_in(backend, said):
    X, t = rows()
    X[2, 0] = BAD[said]
    net = Network(3, [Embedding(3, (0,), (4,)), OUT])
    one = Model(net, "mean_squared_error", backend=backend, columns=("c", "x", "y"))
    for given in (X, backend.asarray(X, "float32")):
        for ask in (lambda X: one.predict(X), lambda X: train(one, X, t, epochs=1)):
            with pytest.raises(InputError, match=f"X: {said}.* is no index from 0 to 3"):
                ask(given)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"size": 0}, "Embedding: size must be a whole number from 1 on, not 0"),
        ({"columns": (0,)}, "values must say how many each of the columns (0,) has, not None"),
        ({"columns": (0, 0), "values": (2, 2)}, "columns (0, 0) must name each column once"),
        ({"values": (2,)}, "values (2,) are of no columns; name these too"),
        ({"columns": (0,), "values": (2**25,)}, "33554432 values, more than 16777216"),
        ({"columns": (3,), "values": (2,)}, "layer 1: embedding: there is no column 3 in 3 inputs"),
        ({}, "layer 1: embedding: name its columns and how many values each has"),
        ({"columns": (0,), "values": (2,), "sources": (1,)}, "it reads the input, sources = (0,)"),
        ({"columns": 1, "values": (2,)}, "Embedding: columns must list whole numbers, as (0, 3)"),
    ],
)
def test_embeddings_that_are_refused(settings, said):
    with pytest.raises(InputError, match=re.escape(said)):
        Network(3, [Embedding(**settings), Dense(1)])


def test_codes_must_not_be_scaled():
    net, (X, _) = Network(3, [Embedding(3, (0,), (4,)), OUT]), rows()
    with pytest.raises(InputError, match="input_scaling changes column 0, whose codes"):
        Model(net, "mean_squared_error", input_scaling=mlp.Scaling.standard(X))
    fine = mlp.Scaling.fit(X, ["none", "standard", "robust"])
    assert Model(net, "mean_squared_error", input_scaling=fine).predict(X).shape == (N, 3)


def backend_zeros(x):
    return not np.asarray(x).any()


def test_a_diverged_run_has_the_last_finite_statistics():
    X, t = rows(64)
    with pytest.warns(RuntimeWarning, match="non-finite"):
        ended = train(
            model_of("running centre"), X, t, epochs=9, batch_size=16, optimizer="sgd",
            learning_rate=1e30,
        )  # fmt: skip
    assert ended.diverged
    assert np.isfinite(ended.model.statistics).all()


def test_members_are_averaged():
    """The loss is the mean of the members' losses, the prediction the mean of their outputs."""
    net = network("members")
    one = Model(net, "mean_squared_error", seed=3, dtype="float64")
    X, t = rows()
    views = net.views(one.w)
    outputs = []
    for r in views["r"][1]:
        a = np.tanh((X * r) @ views["W"][1, 2] + views["b"][2])
        outputs.append((a * views["s"][3]) @ views["W"][3, 4] + views["b"][4])
    np.testing.assert_allclose(one.predict(X), np.mean(outputs, axis=0), rtol=1e-13)
    E, _ = one.value_and_gradient(X, t)
    penalty = 0.005 * (views["W"][1, 2] ** 2).sum()
    losses = [((y - t) ** 2).mean() for y in outputs]
    assert pytest.approx(np.mean(losses) + penalty, rel=1e-13) == E


def test_parameters_lie_by_role():
    net = network("all of them")
    roles = [entry.parameter.role for entry in net.layout]
    assert roles == sorted(roles, key=list(ROLES).index)
    parts = [entry.part for entry in net.layout]
    assert [part.start for part in parts] == [0, *(part.stop for part in parts[:-1])]
    assert parts[-1].stop == net.parameters
    w = np.arange(float(net.parameters))
    for index in range(net.parameters):
        assert eval(net.describe(index), net.views(w)) == index


@pytest.mark.parametrize("rule", ["adamw", "sgd", "adam"])
def test_decay_and_factors_go_by_role(rule):
    """AdamW decays weights and tables alone; a factor of 0 freezes a role, 1 changes nothing."""
    X, t = rows(32)
    one = model_of("all of them", dtype="float64")
    net, before = one.network, one.w.copy()

    def trained(**factors):
        options = {"epochs": 1, "batch_size": 32, "optimizer": rule, "shuffle": False}
        return np.asarray(train(one, X, t, rate_factors=factors, **options).model.w)

    plain = trained()
    np.testing.assert_array_equal(trained(weight=1.0, gain=1.0), plain)
    frozen = trained(table=0.0, scale=0.0)
    for entry in net.layout:
        same = entry.parameter.role in ("table", "scale")
        assert np.array_equal(frozen[entry.part], before[entry.part]) == same
    if rule == "sgd":
        half = trained(bias=0.5)
        for entry in net.layout:
            factor = 0.5 if entry.parameter.role == "bias" else 1.0
            moved = (plain - before)[entry.part]
            np.testing.assert_allclose((half - before)[entry.part], factor * moved, rtol=1e-9)


def test_what_does_not_fit_is_refused_by_name():
    with pytest.raises(InputError, match="layer 2: residual: its sources must be as wide"):
        Network(3, [Dense(4), Residual(sources=(0, 1)), Dense(1)])
    with pytest.raises(
        InputError, match=r"layer 3: residual: its sources must have as many members"
    ):
        Network(3, [Members(2), Dense(3, sources=(0,)), Residual(sources=(1, 2)), Dense(1)])

    class Odd(OwnScale):
        def parameters(self, inputs):
            return (Parameter("s", (3,), "knob"),)

    with pytest.raises(InputError, match="layer 1: parameter 's' has the role 'knob', which is"):
        Network(3, [Odd(), Dense(1)])
    with pytest.raises(InputError, match="Dropout: rate must be in"):
        Dropout(1.0)
    with pytest.raises(InputError, match="the last layer is the output: its dropout must be 0"):
        Network(3, [Dense(3), Dropout(0.5)])


def test_a_pass_keeps_every_quantity_if_asked():
    """z, a and δ of a graph with a skip, as the equations give them."""
    net = Network(3, [Dense(4, "tanh"), Dense(5, "relu", dropout=0.5), Dense(2, sources=(0, 2))])
    one = Model(net, "half_squared_error", dtype="float64")
    (X, _), t = rows(), np.ones((N, 2))
    found, W, b = one.trace(X, t), one.W, one.b
    z1 = X @ W[0, 1] + b[1]
    z2 = np.tanh(z1) @ W[1, 2] + b[2]
    a2 = np.maximum(z2, 0.0)
    z3 = X @ W[0, 3] + a2 @ W[2, 3] + b[3]
    delta3 = z3 - t
    delta2 = (z2 > 0) * (delta3 @ W[2, 3].T)
    delta1 = (1 - np.tanh(z1) ** 2) * (delta2 @ W[1, 2].T)
    expected = {
        "z": {1: z1, 2: z2, 3: z3},
        "a": {0: X, 1: np.tanh(z1), 2: a2, 3: z3},
        "delta": {1: delta1, 2: delta2, 3: delta3},
    }
    for name, layers in expected.items():
        assert list(getattr(found, name)) == list(layers)
        for l, value in layers.items():
            np.testing.assert_allclose(getattr(found, name)[l], value, rtol=1e-12, atol=1e-14)


def test_an_emulated_device_has_them_too():
    """Kernels of layers are traced as any formula: one CUDA kernel each."""
    try:
        backend = get_backend("cupy")
    except BackendError as error:
        pytest.skip(str(error))
    with backend.scope():
        one = model_of("all of them", backend)
        assert gradient_check(one, *rows()).passed
