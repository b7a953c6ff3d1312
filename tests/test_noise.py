"""What layers draw: numbers by their place, the same everywhere, and how strong they are."""

import math

import numpy as np
import pytest

import mlp
from backends.philox import Clock, fill
from mlp import Dense, InputError, Network, train
from mlp.data.order import balanced, classes_of, order
from mlp.layers import Dropout, Embedding, GaussianNoise
from mlp.layers.gaussian_noise import normal
from mlp.layers.tape import Arena
from mlp.model import Model
from mlp.seeds import generator, key

WORDS = (3, 2**64 - 1), (0, 0), (2**63, 1)
SHAPES = ((1, 1), (5, 3), (4, 8), (7, 13), (3, 64), (1, 300), (300, 1), (40, 1200))


def by_numpy(key, step, stream, first, rows, columns, member=0):
    """Each row from a generator of its own."""
    blocks = -(-columns // 8)
    for row in range(first, first + rows):
        counter = np.array([row * blocks, member, step, stream], np.uint64)
        philox = np.random.Philox(key=np.array(key, np.uint64), counter=counter)
        yield np.random.Generator(philox).random(blocks * 8, np.float32)[:columns]


def drawn(backend, clock, stream, shape, samples, dtype="float32"):
    """What a kernel reads, from an elementwise one and from one that reduces rows."""

    def as_it_is(xp, out, u):
        return u

    def with_sum(xp, out, u):
        return u + 0.0 * xp.sum(u, axis=1, keepdims=True)

    out = backend.full(shape, -1.0, dtype)
    u, call = backend.uniform(clock, stream, shape, samples, lambda: backend.empty(shape, dtype))
    for formula in (as_it_is, with_sum):
        if call is not None:
            call()
        backend.fuse(formula, into=(0,))(out, u)
        yield backend.to_numpy(out)


@pytest.mark.parametrize("shape", SHAPES)
def test_they_are_numpys_bit_for_bit(backend, dtype, shape):
    """Every row as NumPy's generator draws it from the row's own counter, whatever rows are
    before it; in float64 too."""
    clock = backend.clock()
    for words, step, stream, first in zip(
        WORDS, (0, 9, 2**40), (1, 5, 2), (0, 3, 2**33), strict=True
    ):
        clock.set(words, step, first)
        expected = np.stack(list(by_numpy(words, step, stream, first, *shape)))
        for found in drawn(backend, clock, stream, shape, shape[0], dtype):
            np.testing.assert_array_equal(found, expected.astype(dtype))


def test_members_have_their_own(backend):
    """Rows of a member after another's; those of a shard are those of the whole."""
    clock = backend.clock()
    clock.set((1, 2), 3, 4)
    expected = [row for m in range(3) for row in by_numpy((1, 2), 3, 1, 4, 5, 11, m)]
    for found in drawn(backend, clock, 1, (15, 11), 5):
        np.testing.assert_array_equal(found, np.stack(expected))


def test_in_bulk_it_is_one_generator():
    """Rows whose width is a multiple of a block are one call of NumPy's."""
    clock, u = Clock(), np.empty((300, 512), np.float32)
    clock.set((7, 8), 9)
    fill(u, clock, 2)
    plain = np.random.Generator(np.random.Philox(key=[7, 8], counter=[0, 0, 9, 2]))
    np.testing.assert_array_equal(u, plain.random((300, 512), np.float32))


# ------------------------------------------------------------------ dropout

RATES = (0.5, 0.25, 0.3, 1e-9, 0.999, 1 - 2**-30)


@pytest.mark.parametrize("rate", RATES)
def test_the_share_kept_is_exact_to_a_bit_of_u(rate):
    """Of the 2^24 values that u has, those that are dropped are ceil(2^24 rate), in every dtype,
    and the mean of the mask over them is 1."""
    lowered, scale = Dropout(rate).strengths(1.0)
    lost = min(int(np.ceil(rate * 2**24)), 2**24 - 1)
    assert lowered * 2**24 == lost
    assert np.float32(lowered) == lowered
    assert (2**24 - lost) * scale == pytest.approx(2**24, rel=1e-15)
    values = np.array([lost - 1, lost]) * 2.0**-24
    assert [(values.astype(d) >= d(lowered)).tolist() for d in (np.float32, np.float64)] == [
        [False, True]
    ] * 2


def outputs(backend, network, X, seed, step, first_row=0):
    """Of the first layer in training."""
    model = Model(network, "half_squared_error", backend=backend, seed=1)
    arena, g = Arena(backend, "float32", len(X)), backend.full(model.w.shape, 0.0, "float32")
    run = model.objective.gradient(backend, model.w, g, arena, len(X))
    backend.copy(backend.asarray(X, "float32"), run.x)
    backend.copy(backend.full(run.t.shape, 0.0, "float32"), run.t)
    run.noise.begin(seed, step, first_row)
    run.run()
    return backend.to_numpy(run.places[1].y).copy()


@pytest.mark.parametrize("layers", [[Dropout(0.3), Dense(1)], [Dense(4, dropout=0.3), Dense(1)]])
def test_a_mask_is_a_function_of_seed_step_layer_and_row(backend, layers):
    """A shard of a batch drops what the batch does there; what is kept is divided by 1 - rate."""
    network = Network(4, layers)
    X = np.random.default_rng(0).uniform(1.0, 2.0, (12, 4))
    W, _ = network.unpack(network.initial_weights(1))
    plain = X if isinstance(layers[0], Dropout) else X @ W[0, 1]
    with backend.scope():
        whole = outputs(backend, network, X, 5, 7)
        kept = whole != 0.0
        u = np.stack(list(by_numpy(key(5, "dropout"), 7, 1, 0, 12, 4)))
        np.testing.assert_array_equal(kept, u >= 0.3)
        np.testing.assert_allclose(whole, kept * plain / 0.7, rtol=1e-5)
        np.testing.assert_array_equal(outputs(backend, network, X[3:8], 5, 7, 3), whole[3:8])
        for seed, step in ((5, 8), (6, 7)):
            assert ((outputs(backend, network, X, seed, step) != 0.0) != kept).any()


@pytest.mark.filterwarnings("ignore:runs unfused")
def test_an_unfused_formula_gets_them_too(backend):
    """An activation that no kernel can be written from, below dropout."""

    class Odd:
        def f(self, xp, z):
            return z * float(z.shape[-1] or 1)

        def df(self, xp, v, z, a):
            return v * float(z.shape[-1] or 1)

    network = Network(3, [Dense(4, Odd(), dropout=0.5), Dense(1)])
    X, t = np.random.default_rng(0).normal(size=(2, 6, 3)), np.zeros((6, 1))
    model = Model(network, "mean_squared_error", backend=backend, seed=1, dtype="float64")
    expected = Model(network, "mean_squared_error", backend="numpy", seed=1, dtype="float64")
    E, g = model.value_and_gradient(X[0], t, dropout_seed=3)
    E_numpy, g_numpy = expected.value_and_gradient(X[0], t, dropout_seed=3)
    assert pytest.approx(E_numpy, rel=1e-12) == E
    np.testing.assert_allclose(backend.to_numpy(g), g_numpy, rtol=1e-10, atol=1e-14)


# ------------------------------------------------------------------ normal noise


def test_normal_numbers_are_the_quantiles(backend, dtype):
    """Of every u near the ends, and of many between."""
    erfc = np.vectorize(math.erfc)
    u = np.unique(np.concatenate([np.arange(300), 2**24 - 1 - np.arange(300)])) * 2.0**-24
    u = np.concatenate([u, np.linspace(0, 1, 999, endpoint=False).astype(np.float32)])[:, None]
    out, given = backend.full(u.shape, 0.0, dtype), backend.asarray(u.astype(dtype))
    backend.fuse(lambda xp, out, u: normal(xp, u), into=(0,))(out, given)
    found = backend.to_numpy(out).astype(float)
    p = u.astype(np.float32).astype(float) + 2.0**-25
    back = np.where(
        p < 0.5, 0.5 * erfc(-found / math.sqrt(2)), 1 - 0.5 * erfc(found / math.sqrt(2))
    )
    density = np.exp(-(found**2) / 2) / math.sqrt(2 * math.pi)
    assert (abs(back - p) / density).max() < (2e-6 if dtype == "float64" else 8e-6)


def test_noise_has_its_deviation_and_predictions_have_none(backend):
    network = Network(40, [GaussianNoise(0.5), Dense(1)])
    X = np.zeros((500, 40))
    found = outputs(backend, network, X, 1, 2)
    assert abs(found.mean()) < 5 * 0.5 / found.size**0.5
    assert found.std() == pytest.approx(0.5, rel=5 / found.size**0.5)
    model = Model(network, "mean_squared_error", backend=backend)
    np.testing.assert_array_equal(model.predict(X), model.predict(X))
    np.testing.assert_array_equal(outputs(backend, network, X[5:], 1, 2, 5), found[5:])


# ------------------------------------------------------------------ how strong

X, T = np.random.default_rng(0).normal(size=(2, 40, 4))
DRAWING = [Dense(5, "tanh", dropout=0.5), GaussianNoise(0.2), Dense(4)]
RUN = {"batch_size": 16, "epochs": 4, "seed": 2, "learning_rate": 0.05}


def trained(backend="numpy", layers=DRAWING, loss="mean_squared_error", data=(X, T), **options):
    model = Model(Network(4, layers), loss, backend=backend, seed=1, dtype="float64")
    return train(model, *data, **RUN | options)


def test_a_schedule_is_the_factor_on_rate_and_deviation(backend):
    """Each epoch is one of a net with that rate and deviation; at 0 there is nothing drawn."""

    def falls(step, steps_per_epoch):
        return (1.0, 0.5, 0.0, 0.25)[step // steps_per_epoch]

    whole, state = trained(backend, dropout_schedule=falls), None
    for epoch, factor in enumerate((1.0, 0.5, 0.0, 0.25)):
        layers = [Dense(5, "tanh", dropout=0.5 * factor), Dense(4)]
        if factor:
            layers.insert(1, GaussianNoise(0.2 * factor))
        else:
            layers.insert(1, Dropout(0.0))
        ended = trained(backend, layers, state=state, epochs=epoch + 1)
        state = ended.state
    tolerance = {"rtol": 1e-12, "atol": 1e-14}
    host = backend.to_numpy
    np.testing.assert_allclose(host(whole.state.w), host(state.w), **tolerance)


@pytest.mark.parametrize("options", [
    {"dropout_schedule": "flat_cosine"}, {"mixup": 0.4}, {"shuffle": "balanced"},
    {"mixup": 0.4, "dropout_schedule": "cosine", "accumulate": 2},
])  # fmt: skip
def test_a_run_goes_on_as_if_never_stopped_recorded_or_not(backend, monkeypatch, options):
    options = {**options, "loss": "cross_entropy", "data": (X, T.argmax(axis=1)), "epochs": 3}
    settings = {name: options[name] for name in ("dropout_schedule",) if name in options}
    if settings:  # over the whole run, which is as long for both
        options["dropout_schedule"] = {"name": settings["dropout_schedule"], "epochs": 3}
    whole = trained(backend, **options)

    class Stop:
        def on_batch_end(self, run):
            if run.state.step == 4:
                run.stop("here")

    part = trained(backend, callbacks=[Stop()], **options)
    assert part.state.step == 4
    host = backend.to_numpy
    again = trained(backend, state=part.state, **options)
    np.testing.assert_array_equal(host(again.state.w), host(whole.state.w))
    if not hasattr(backend, "cupy"):
        monkeypatch.setattr(type(backend), "record", lambda self, call: call)
    if "accumulate" in options:
        return
    recorded = trained(backend, record_steps=True, **options)
    np.testing.assert_allclose(host(recorded.state.w), host(whole.state.w), rtol=1e-12, atol=1e-15)
    plain = trained("numpy", **options)
    np.testing.assert_allclose(plain.state.w, host(whole.state.w), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(("given", "match"), [
    ({"layers": [Dense(4)], "dropout_schedule": "cosine"}, "dropout_schedule has no effect"),
    ({"dropout_schedule": "plateau"}, "'plateau' depends on how training goes"),
    ({"dropout_schedule": "cosinus"}, "unknown dropout_schedule 'cosinus'; did you mean 'cosine'"),
    ({"dropout_schedule": lambda step, steps_per_epoch: 2.0}, "gives 2.0 in step 0; a factor on"),
    ({"mixup": 0.0}, "mixup must be above 0, as 0.2, or None"),
    ({"mixup": True}, "mixup must be above 0"),
    ({"mixup": 0.2, "shuffle": False}, "mixup without shuffle mixes the same rows"),
    ({"mixup": 0.2, "batch_size": "full"}, "use a smaller batch_size"),
    ({"mixup": 0.2, "sample_weight": np.ones(40)}, "mixup takes no weights of rows"),
    ({"mixup": 0.2, "parallel": {"shards": 2}}, "it is not for shards"),
    ({"mixup": 0.2, "loss": "ordinal", "data": (X, T.argmax(axis=1))}, "no mixes"),
    ({"shuffle": "balanced"}, "needs one class a row"),
    ({"shuffle": "balanced", "batch_size": "full"}, "has no effect with all rows in one batch"),
    ({"shuffle": "balance"}, "shuffle must be True, False, 'blocks' or 'balanced'"),
])  # fmt: skip
def test_what_has_no_effect_or_cannot_be_is_refused(given, match):
    with pytest.raises(InputError, match=match):
        trained(**given)


def test_codes_of_categories_cannot_be_mixed():
    layers = [Embedding(2, columns=(0,), values=(3,)), Dense(4)]
    with pytest.raises(InputError, match="mixup: layer 1 reads whole numbers"):
        trained(layers=layers, data=(np.abs(X.round()) % 3, T), mixup=0.2)


# ------------------------------------------------------------------ mixes of rows


@pytest.mark.parametrize("loss", ["mean_squared_error", "cross_entropy", "binary_cross_entropy"])
def test_a_step_of_mixup_is_one_on_mixed_rows(backend, loss):
    """Of x and of t, class numbers as shares; λ is Beta(α, α) once a batch."""
    t = {"mean_squared_error": T, "cross_entropy": T.argmax(axis=1)}.get(loss, (T > 0) * 1.0)
    shares_of = np.eye(4)[t] if t.ndim == 1 else t
    layers, once = [Dense(3, "tanh"), Dense(4)], {"optimizer": "sgd", "epochs": 1, "batch_size": 25}
    found = trained(backend, layers, loss, (X, t), mixup=0.7, **once)
    rows, mixes = order(RUN["seed"], 0, 40), []
    for step, batch in ((1, rows[:25]), (2, rows[25:])):
        share = generator(RUN["seed"], "mixup", step).beta(0.7, 0.7)
        after = np.roll(batch, -1)
        mixes.append([share * x[batch] + (1 - share) * x[after] for x in (X, shares_of)])
    mixed = [np.concatenate(parts) for parts in zip(*mixes, strict=True)]
    expected = trained("numpy", layers, loss, mixed, shuffle=False, **once)
    np.testing.assert_allclose(backend.to_numpy(found.state.w), expected.state.w, rtol=1e-9)


# ------------------------------------------------------------------ classes equally often


@pytest.mark.parametrize("sizes", [(6, 2), (1, 50), (3, 3, 3), (100, 7, 13, 1), (40,), (255, 17)])
def test_classes_and_the_rows_of_each_come_equally_often(sizes):
    """Through all epochs, and in any run of places; an epoch has as many as there are rows."""
    n, k = sum(sizes), len(sizes)
    t = np.random.default_rng(0).permutation(np.repeat(np.arange(k), sizes))
    classes = classes_of(t)
    assert [t[own].tolist() for own in classes] == [[c] * size for c, size in enumerate(sizes)]
    epochs = [balanced(3, epoch, classes) for epoch in range(5)]
    assert {len(rows) for rows in epochs} == {n}
    rows = np.concatenate(epochs)
    for start, stop in ((0, n), (0, 5 * n), (n // 2, 2 * n), (7, 7 + 4 * k)):
        counts = np.bincount(t[rows[start:stop]], minlength=k)
        assert np.ptp(counts) <= (1 if start == 0 else 2)
    for own in classes:
        counts = np.bincount(rows, minlength=n)[own]
        assert np.ptp(counts) <= 1
    np.testing.assert_array_equal(balanced(3, 4, classes), epochs[4])
    if min(sizes) > 2:
        assert not np.array_equal(balanced(4, 4, classes), epochs[4])


def test_classes_in_every_form_they_have():
    numbers = np.random.default_rng(0).integers(0, 2, 30)
    expected = [own.tolist() for own in classes_of(numbers)]
    for t in (numbers[:, None], numbers[:, None].astype(float), np.eye(2)[numbers]):
        assert [own.tolist() for own in classes_of(t)] == expected
    for t in (np.eye(2)[numbers] * 0.5, np.full((3, 1), 2.0), np.ones((3, 2))):
        with pytest.raises(InputError, match="needs one class a row"):
            classes_of(t)


def test_rows_on_disk_are_not_balanced(tmp_path):
    np.save(tmp_path / "X.npy", X), np.save(tmp_path / "t.npy", T.argmax(axis=1))
    stored = mlp.open_rows(tmp_path / "X.npy", targets_file=tmp_path / "t.npy")
    with pytest.raises(InputError, match="'balanced' is for rows in memory"):
        trained(loss="cross_entropy", data=(stored,), shuffle="balanced")
