"""What layers draw: numbers by their place, the same everywhere, and how strong they are."""

import numpy as np
import pytest

from backends.philox import Clock, fill
from mlp import Dense, Network
from mlp.layers import Dropout
from mlp.layers.tape import Arena
from mlp.model import Model
from mlp.seeds import key

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
