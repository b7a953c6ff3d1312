"""Where the data are: on the device or streamed from the host, the numbers are the same."""

import tracemalloc
import warnings
from contextlib import contextmanager

import numpy as np
import pytest
import scipy.sparse
from sklearn.exceptions import ConvergenceWarning

from backends.base import Backend, Staging
from backends.counting_backend import Count
from mlp import (
    Dense,
    InputError,
    MLPClassifier,
    Model,
    Network,
    Scaling,
    gradient_check,
    save_state,
    train,
)
from mlp.data.feed import Feed, Stream
from mlp.data.samples import Samples, check_inputs
from mlp.layers.tape import Arena
from mlp.training.checkpoint import load_state

N = 45  # batches of 8: five and a shorter one


def inputs(n=N, kind="float64", seed=0):
    rng = np.random.default_rng(seed)
    if kind == "uint8":
        return rng.integers(0, 256, (n, 6)).astype("uint8")
    return rng.normal(size=(n, 6)).astype(kind)


def numbers(n=N, seed=1):
    return np.random.default_rng(seed).normal(size=(n, 3))


def classes(n=N, seed=2):
    return np.random.default_rng(seed).integers(0, 3, n)


def model(backend, loss="mean_squared_error", dropout=0.0, dtype="float32", **options):
    net = Network(6, [Dense(5, "tanh", dropout=dropout, l2=0.01), Dense(3)])
    return Model(net, loss, seed=1, backend=backend, dtype=dtype, **options)


@contextmanager
def streaming(backend):
    """The backend while it keeps no data set; gives the buffers that are made."""
    made, before = [], backend.staging

    def staging(shape, dtype):
        made.append(before(shape, dtype))
        return made[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(backend, "keeps", lambda size: False)
        patch.setattr(backend, "staging", staging)
        yield made


def same(one, other):
    """Bit for bit."""
    assert one.dtype == other.dtype
    np.testing.assert_array_equal(one, other)


def assert_same_run(one, other, backend):
    same(backend.to_numpy(one.model.w), backend.to_numpy(other.model.w))
    assert one.history.keys() == other.history.keys()
    for name in one.history.keys() - {"seconds"}:
        assert one.history[name] == other.history[name], name
    for name, vector in one.state.vectors.items():
        same(backend.to_numpy(vector), backend.to_numpy(other.state.vectors[name]))


SCALING = Scaling(np.linspace(-1, 1, 6), np.linspace(0.5, 3, 6))
CASES = {
    "plain": {},
    "float64 throughout": {"dtype": "float64"},
    "float32 data": {"kind": "float32"},
    "bytes, scaled": {"kind": "uint8", "input_scaling": SCALING},
    "numbers, scaled": {"input_scaling": SCALING},
    "dropout": {"dropout": 0.4},
    "class numbers": {"loss": "cross_entropy", "t": classes()},
    "class shares": {"loss": "cross_entropy", "t": np.eye(3)[classes()]},
    "sample weights": {"sample_weight": np.linspace(0, 2, N)},
    "not shuffled": {"shuffle": False},
    "one row a batch": {"batch_size": 1},
    "full batch": {"batch_size": None},
    "all that is measured": {"target_loss": 1e-9, "validation": (inputs(9), numbers(9))},
    "held out rows": {"validation": 0.2, "patience": 1},
}
MODEL = {"loss", "dropout", "dtype", "input_scaling"}


@pytest.mark.parametrize("case", CASES)
def test_streamed_is_resident(backend, case):
    """Weights, state and history of a run, whatever a batch consists of."""
    given = {"t": numbers(), "kind": "float64", "batch_size": 8, "epochs": 3} | CASES[case]
    about = {name: given.pop(name) for name in MODEL & given.keys()}
    X, t = inputs(kind=given.pop("kind")), given.pop("t")
    resident = train(model(backend, **about), X, t, **given)
    with streaming(backend) as made:
        streamed = train(model(backend, **about), X, t, **given)
    assert made
    assert_same_run(streamed, resident, backend)


def test_streamed_is_resident_also_gone_on_with(backend, tmp_path):
    """Stopped in the middle of an epoch while streaming, gone on with on the device, and back."""
    X, t = inputs(), classes()

    class Stop:
        def __init__(self, step):
            self.step = step

        def on_batch_end(self, run):
            if run.state.step == self.step:
                run.stop("here")

    def some(state, *callbacks):
        one = model(backend, "cross_entropy", dropout=0.3)
        return train(one, X, t, batch_size=8, epochs=3, state=state, callbacks=callbacks)

    expected = some(None)
    with streaming(backend):
        first = some(None, Stop(8))
    save_state(first.state, tmp_path / "state", backend)
    second = some(load_state(tmp_path / "state"), Stop(15))
    with streaming(backend):
        last = some(second.state)
    assert (first.state.step, second.state.step) == (8, 15)
    assert_same_run(last, expected, backend)


def test_nobody_has_to_say_what_comes_next(backend, monkeypatch):
    options = {"batch_size": 8, "epochs": 2}
    with streaming(backend):
        told = train(model(backend), inputs(), numbers(), **options)
        monkeypatch.setattr(Feed, "ahead", lambda feed, rows: None)
        untold = train(model(backend), inputs(), numbers(), **options)
    assert_same_run(untold, told, backend)


@pytest.mark.parametrize("kind", ["uint8", "float64"])
def test_predictions_and_measures_of_a_streamed_data_set(backend, kind, monkeypatch):
    """predict, evaluate, value_and_gradient and gradient_check."""
    monkeypatch.setattr(Model, "_chunk", lambda model: 16)
    scaled = {"target_scaling": Scaling(np.arange(3.0), np.full(3, 0.7)), "input_scaling": SCALING}
    X, t, s = inputs(kind=kind), numbers(), np.linspace(0, 2, N)
    one = model(backend, dtype="float64", **scaled)

    def found():
        E, g = one.value_and_gradient(X, t, s)
        check = gradient_check(one, X[:9], t[:9])
        return one.predict(X), one.evaluate(X, t, s), E, backend.to_numpy(g), check

    resident = found()
    with streaming(backend) as made:
        streamed = found()
    assert len(made) >= 4
    assert isinstance(streamed[0], np.ndarray)
    for a, b in zip(streamed, resident, strict=True):
        same(a, b) if isinstance(a, np.ndarray) else None
        assert isinstance(a, np.ndarray) or a == b


def test_a_sparse_matrix_streams(backend):
    X = inputs() * (inputs(seed=5) > 0)
    weights = np.linspace(1, 2, N)
    options = {"batch_size": 8, "epochs": 2, "validation": 0.2, "sample_weight": weights}
    one = model(backend, "cross_entropy")
    dense = train(one, X, classes(), **options)
    for kind in (scipy.sparse.csr_array, scipy.sparse.csc_matrix):
        assert_same_run(train(one, kind(X), classes(), **options), dense, backend)
        same(backend.to_numpy(backend.asarray(one.predict(kind(X)))), one.predict(X))


def noted(call, seen):
    """The call, which puts its arguments into ``seen``."""

    def noting(*arguments):
        seen.append(arguments)
        return call(*arguments)

    return noting


def test_the_solvers_of_the_estimators_stream(backend):
    def coefs(solver):
        one = MLPClassifier((4,), solver=solver, max_iter=3, random_state=0, batch_size=8)
        one.set_params(backend=backend.name, early_stopping=solver == "adam", tol=0.0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            one.fit(inputs(), classes())
        return one.coefs_

    for solver in ("adam", "lbfgs"):
        resident = coefs(solver)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(type(backend), "keeps", lambda self, size: False)
            patch.setattr(Stream, "send", noted(Stream.send, sent := []))
            streamed = coefs(solver)
        assert sent
        for a, b in zip(streamed, resident, strict=True):
            same(a, b)


# ------------------------------------------------------------------------ digits of the inputs

OFFSETS, SPREADS = (0.0, 1e3, 1e6, 1.7e9, 1e12, 1e15), (1e-3, 1.0, 1e3, 1e6)
WIDE = ("int32", "int64", "uint64", "float32", "float64")


def columns(kind, n=40):
    """One column for each offset and spread that the dtype has room for, as (n, d)."""
    rng = np.random.default_rng(3)
    values = [
        offset + spread * rng.uniform(-1, 1, n)
        for offset in OFFSETS
        for spread in SPREADS
        if not kind.startswith("uint") or offset >= 1e6
    ]
    most = np.iinfo(kind).max if kind[0] in "iu" else np.inf
    return np.stack([x for x in values if abs(x).max() < most], axis=1).astype(kind)


def reaching(feed, one, n):
    """What the network is given for n rows in an order of their own, (n, d), and the order."""
    e = evaluation(one, n)
    order = np.random.default_rng(4).permutation(n)
    feed.bind(e)(feed.rows(order))
    return one.backend.to_numpy(e.x), order


@pytest.mark.parametrize("place", ["host", "streamed", "sparse", "on its device"])
@pytest.mark.parametrize("kind", WIDE)
def test_inputs_are_scaled_before_they_are_rounded(backend, dtype, kind, place):
    """(x - shift) / scale in float64, rounded once, wherever the rows are and whatever they are."""
    X = columns(kind)
    if place == "on its device" and kind == "uint64" and hasattr(backend, "torch"):
        pytest.skip("PyTorch computes nothing in uint64")
    scaling = Scaling.standard(X)
    expected = ((X.astype("float64") - scaling.shift) / scaling.scale).astype(dtype)
    net = Network(X.shape[1], [Dense(1)])
    one = Model(net, "mean_squared_error", backend=backend, dtype=dtype, input_scaling=scaling)
    given = {"sparse": scipy.sparse.csr_array, "on its device": backend.asarray}.get(place, np.copy)
    feed = one.feed(Samples(given(X)), streamed=place == "streamed")
    assert (feed.stream is not None) == (place in ("streamed", "sparse"))
    found, order = reaching(feed, one, len(X))
    same(found, expected[order])


@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("kind", ["uint8", "int8", "uint16", "int16", "float16", *WIDE])
def test_rows_reach_the_network_alike_on_every_way(backend, kind, scaled, monkeypatch):
    """Resident, streamed, sparse, on their device and in `predict`, alone and among others: bit for
    bit, whatever the dtype."""
    X = np.random.default_rng(0).uniform(0, 100, (23, 4)).astype(kind)
    scaling = Scaling.standard(X.astype("float64")) if scaled else None
    net = Network(4, [Dense(4, bias=False)])
    one = Model(
        net, "mean_squared_error", w=np.eye(4).ravel(), backend=backend, input_scaling=scaling
    )
    monkeypatch.setattr(one, "_chunk", lambda: 10)
    ways = [one.feed(Samples(X), streamed) for streamed in (False, True)]
    if kind != "float16":  # which SciPy does not have
        ways.append(one.feed(Samples(scipy.sparse.csr_array(X))))
    if hasattr(backend.xp, kind) and not (
        hasattr(backend, "torch") and kind in ("uint16", "uint64")
    ):
        ways.append(one.feed(Samples(backend.asarray(X))))
    first, order = reaching(ways[0], one, len(X))
    for feed in ways[1:]:
        same(reaching(feed, one, len(X))[0], first)
    predicted = one.predict(X)  # the net gives what it is given
    same(predicted[order], first)
    for i in (0, 22):
        same(one.predict(X[i : i + 1]), predicted[i : i + 1])


def test_an_hour_of_time_stamps_is_told_apart(backend):
    """2,000 distinct inputs, 1.7e9 and more, give 2,000 distinct predictions; and prices."""
    rng = np.random.default_rng(0)
    for X in (
        1.7e9 + np.sort(rng.choice(3_600_000, 2000, replace=False))[:, None] / 1000,
        500_000 + np.unique(rng.uniform(-1, 1, 3000).round(3))[:, None],
    ):
        one = Model(
            Network(1, [Dense(1)]), "mean_squared_error", w=[1.0, 0.0], backend=backend,
            input_scaling=Scaling.standard(X), target_scaling=Scaling.standard(X),
        )  # fmt: skip
        y = one.predict(X)
        assert len(np.unique(y)) == len(X)
        assert y.dtype == "float64"
        np.testing.assert_allclose(y, X, rtol=0, atol=4 * np.finfo("float32").eps * X.std())
        on_device = backend.to_numpy(one.predict(backend.asarray(X)))
        np.testing.assert_array_equal(on_device, y)


def test_targets_keep_their_digits(backend):
    """They are scaled in float64, and metrics compare with them as they were given."""
    t = 1.7e9 + np.random.default_rng(0).uniform(0, 3600, (50, 1))
    one = Model(
        Network(1, [Dense(1)]), "mean_squared_error", w=[1.0, 0.0], backend=backend,
        input_scaling=Scaling.standard(t), target_scaling=Scaling.standard(t),
    )  # fmt: skip
    for streamed in (False, True):
        e = one.objective.measure(backend, one.w, Arena(backend, "float32", 50), 50)
        one.feed(Samples(t, t), streamed).bind(e)(slice(0, 50))
        same(backend.to_numpy(e.t), one.target_scaling.apply(t, "float32"))
    found = one.evaluate(t, t)
    assert found["mse"] < 1e-7  # of 1.7e9 float32 would keep every 128th second
    assert found["r2"] > 1 - 1e-12


@pytest.mark.parametrize("place", ["host", "streamed", "sparse", "on its device"])
def test_what_the_dtype_cannot_hold_is_said(backend, place):
    """A value beyond float32, given or once scaled, is an error that names its column."""
    X = np.ones((9, 2))
    X[4, 1] = 1e39
    given = {"sparse": scipy.sparse.csr_array, "on its device": backend.asarray}.get(place, np.copy)
    for scaling, values, says in (
        (None, X, "1 values are beyond the range of float32, 3.4e"),
        (Scaling(np.zeros(2), np.array([1, 1e-3])), X / 100, "1 values are once scaled beyond the"),
    ):
        net = Network(2, [Dense(1)])
        one = Model(net, "mean_squared_error", backend=backend, input_scaling=scaling)
        with pytest.raises(InputError, match=f"X: {says}") as raised:
            reaching(one.feed(Samples(given(values)), streamed=place == "streamed"), one, 9)
        assert "column 1; correct them, or use a model of dtype float64" in str(raised.value)
        with pytest.raises(InputError, match=says):
            one.predict(given(values))
        with pytest.raises(InputError, match=says):
            one.evaluate(given(values), np.ones(9))
        one.to(dtype="float64").predict(given(values))


def test_predictions_bind_nothing(backend, monkeypatch):
    """From the second call on, whatever X is: no kernel is bound, and no evaluation made."""
    rng = np.random.default_rng(0)
    one = model(backend, input_scaling=SCALING, target_scaling=Scaling(np.ones(3), np.ones(3)))
    sets = [
        rng.uniform(0, 50, (n, 6)).astype(kind)
        for n in (1, 7)
        for kind in ("float64", "float32", "int64", "uint8")
    ]
    sets += [scipy.sparse.csr_array(X) for X in sets] + [backend.asarray(X) for X in sets]
    before = [one.predict(X) for X in sets]
    for name in ("fuse", "product", "total"):
        monkeypatch.setattr(backend, name, None)
    for X, y in zip(sets, before, strict=True):
        same(
            backend.to_numpy(backend.asarray(one.predict(X))), backend.to_numpy(backend.asarray(y))
        )


# ------------------------------------------------------------------------------- two buffers


class Noted(Staging):
    """A buffer that notes what happens to it."""

    events: list

    def __init__(self, backend, shape, dtype):
        super().__init__(backend, shape, dtype)
        self.number = sum(event == "made" for event, _ in self.events)
        self.note("made")

    def note(self, event):
        self.events.append((event, getattr(self, "number", None)))

    def wait(self):
        self.note("wait")

    def send(self, rows):
        self.note(f"send {rows}")
        super().send(rows)

    def receive(self):
        self.note("receive")

    def release(self):
        self.note("release")


def evaluation(one, n):
    """The predictions of n rows, to be filled by a feed."""
    return one.objective.predict(one.backend, one.w, Arena(one.backend, one.precision, n), n)


def test_while_the_device_computes_the_next_rows_are_sent(backend, monkeypatch):
    """Two buffers in turn, used as `Staging` asks for; a shorter batch is a part of the same."""
    events = Noted.events = []
    monkeypatch.setattr(backend, "staging", lambda *about: Noted(backend, *about))
    monkeypatch.setattr(backend, "keeps", lambda size: False)
    feed = Feed(backend, "float32", Samples(inputs(20, "float32")))
    network = Network(6, [Dense(1)])
    one = Model(network, "mean_squared_error", backend=backend)
    fills, evaluations = {}, {}
    for n in (8, 4):
        evaluations[n] = evaluation(one, n)
        fills[n] = feed.bind(evaluations[n])
    batches = [feed.rows(np.arange(20)[i : i + 8]) for i in (0, 8, 16)]
    for i, rows in enumerate(batches):
        fills[len(rows)](rows)
        events.append(("computes", None))
        if i + 1 < len(batches):
            feed.ahead(batches[i + 1])
        same(
            backend.to_numpy(evaluations[len(rows)].x),
            inputs(20, "float32")[np.asarray(rows)],
        )
    assert events == [
        ("made", 0), ("made", 1),
        ("wait", 1), ("send 8", 1), ("receive", 1), ("release", 1), ("computes", None),
        ("wait", 0), ("send 8", 0), ("receive", 0), ("release", 0), ("computes", None),
        ("wait", 1), ("send 4", 1), ("receive", 1), ("release", 1), ("computes", None),
    ]  # fmt: skip


@pytest.mark.parametrize("precision", ["float32", "mixed"])
def test_fewer_rows_ask_for_no_memory(precision):
    """The buffers of the larger evaluation, of inputs to scale, serve."""
    one, count = model("numpy", "cross_entropy"), Count()
    feed = Feed(count, "float32", Samples(inputs(kind="uint8"), classes()), SCALING)
    arena = Arena(count, precision, 8)
    g, asked = count.empty(one.w.shape, "float32"), []
    for n in (8, 5):
        e = one.objective.gradient(count, one.w, g, arena, n, scale=count.empty((1,), "float32"))
        given = count.asked
        feed.bind(e)
        asked.append(count.asked - given)
    assert asked == [8 * 6 * 4 if precision == "mixed" else 0, 0]


def test_rows_announced_and_not_asked_for(backend):
    """What was sent in vain is not mistaken for what is asked for."""
    with streaming(backend):
        one = model(backend)
        feed = Feed(backend, "float32", Samples(inputs(20, "float32")))
        four = evaluation(one, 4)
        fill = feed.bind(four)
        rows = [slice(0, 4), slice(4, 8), slice(8, 12)]
        feed.ahead(rows[1])
        for chosen in (rows[2], rows[1], rows[1], rows[0]):
            fill(chosen)
            same(backend.to_numpy(four.x), inputs(20, "float32")[chosen])


# ------------------------------------------------------------------- transfers and allocations


class Transfers:
    """Counts the calls that go to the device or come from it, between two events of a run."""

    NAMES = ("asarray", "to_numpy", "upload", "staging", "empty")

    def __init__(self, backend, patch):
        self.counts, self.epochs = dict.fromkeys((*self.NAMES, "send"), 0), []
        for name in self.NAMES:
            patch.setattr(backend, name, self.counting(name, getattr(backend, name)))
        counted, self.kind = backend.staging, None

        def staging(shape, dtype):
            made = counted(shape, dtype)
            self.kind, made.send = type(made), self.counting("send", made.send)
            return made

        patch.setattr(backend, "staging", staging)

    def counting(self, name, call):
        def counted(*arguments, **options):
            self.counts[name] += 1
            return call(*arguments, **options)

        return counted

    def on_batch_start(self, run):
        if run.state.batch == 0:
            self.before = dict(self.counts)

    def on_batch_end(self, run):
        if run.state.batch == run.batches:
            self.epochs.append({k: n - self.before[k] for k, n in self.counts.items()})


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_no_transfers_in_an_epoch(backend, monkeypatch, dropout, streamed):
    """From its first batch to its last nothing comes back and nobody asks for an array. What is
    sent is X and t of each batch of a streamed data set, and where the host draws the numbers of
    dropout for a device, one array a batch."""
    monkeypatch.setattr(backend, "keeps", lambda size: not streamed)
    seen = Transfers(backend, monkeypatch)
    one = model(backend, "cross_entropy", dropout, input_scaling=SCALING)
    train(one, inputs(), classes(), batch_size=8, epochs=3, callbacks=[seen])
    plain_upload = type(backend).upload is Backend.upload  # these two use the others
    plain_staging = seen.kind is Staging
    assert len(seen.epochs) == 3
    for epoch in seen.epochs:
        assert epoch["to_numpy"] == epoch["staging"] == epoch["empty"] == 0
        assert epoch["send"] == (12 if streamed else 0)
        drawn = 6 if dropout and type(backend).uniform is Backend.uniform else 0
        assert epoch["upload"] == drawn + (epoch["send"] if plain_staging else 0)
        assert epoch["asarray"] == (epoch["upload"] if plain_upload else 0)


@pytest.mark.parametrize("backend", ["cupy"], indirect=True)
def test_an_epoch_takes_no_memory_of_a_cuda_device(backend, monkeypatch):
    """From the second epoch on CuPy's pool is asked for nothing while batches run, and its used
    bytes stay where they are."""
    import cupy

    class Hook(cupy.cuda.MemoryHook):
        name = "counts"
        mallocs = 0

        def malloc_preprocess(self, **about):
            Hook.mallocs += 1

    class Watch:
        used, taken = [], []

        def on_batch_start(self, run):
            if run.state.batch == 0:
                self.before = Hook.mallocs

        def on_batch_end(self, run):
            if run.state.batch == run.batches:
                self.taken.append(Hook.mallocs - self.before)
                self.used.append(cupy.get_default_memory_pool().used_bytes())

    for streamed in (False, True):
        monkeypatch.setattr(backend, "keeps", lambda size, streamed=streamed: not streamed)
        watch = Watch()
        watch.used, watch.taken = [], []
        with Hook():
            train(
                model(backend, "cross_entropy", 0.2, input_scaling=SCALING), inputs(kind="uint8"),
                classes(), batch_size=8, epochs=5, validation=(inputs(9), classes(9)),
                callbacks=[watch],
            )  # fmt: skip
        assert watch.taken[1:] == [0] * 4
        assert len(set(watch.used[1:])) == 1


# ------------------------------------------------------------------------------ check_inputs


def test_checking_neither_copies_nor_sends(backend, monkeypatch):
    X = np.zeros((20_000, 50), np.float32)
    monkeypatch.setattr(backend, "asarray", None)
    tracemalloc.start()
    checked = check_inputs(backend, X, 50)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert np.shares_memory(checked, X)
    assert peak < X.nbytes / 100


def test_an_array_of_another_library_on_the_host_is_not_sent(backend, monkeypatch):
    torch = pytest.importorskip("torch")
    if hasattr(backend, "torch"):
        pytest.skip("its own")
    monkeypatch.setattr(backend, "asarray", None)
    assert isinstance(check_inputs(backend, torch.zeros(4, 2), 2), np.ndarray)
