"""Weights that start from the data: each unit varies alike over the rows, on every backend."""

import numpy as np
import pytest

import mlp
from mlp import Dense, InputError, Model, Network, train
from mlp.formulas.activations import Prelu
from mlp.layers import BatchNorm, Dropout

rng = np.random.default_rng(0)
X = rng.normal(size=(300, 4)) * [1.0, 50.0, 0.02, 3.0] + [0.0, 7.0, 1.0, -2.0]
T = rng.normal(size=(300, 2))


def begun(layers, X=X, backend="numpy", **options):
    """The net as a run finds it before its first step."""
    model = Model(Network(4, layers), "mean_squared_error", backend=backend, dtype="float64")
    return train(model, X, T, epochs=0, initialize="data", **options).model


NETS = {
    "chain": [Dense(20, "relu"), Dense(7, Prelu()), Dense(2)],
    "skips": [Dense(6, "selu"), Dense(5, "tanh", sources=(0, 1), bias=False), Dense(2)],
    "normalised": [Dense(6), BatchNorm(), Dense(5, "mish"), Dense(2)],
}


@pytest.mark.parametrize("name", NETS)
def test_every_unit_has_deviation_one_and_its_kink_among_the_data(name):
    model = begun(NETS[name])
    found = model.trace(X, T)  # of all rows, which are those that were looked at
    for l, layer in enumerate(model.network.layers, start=1):
        if isinstance(layer, Dense):
            z = found.z[l]
            np.testing.assert_allclose(z.std(axis=0), 1.0, rtol=1e-9)
            assert (z.min(axis=0) <= 0.0).all() or not layer.bias
            assert (z.max(axis=0) >= 0.0).all() or not layer.bias


def test_every_backend_starts_alike(backend):
    layers = [Dense(9, "relu", dropout=0.5), Dropout(0.2), Dense(2)]
    expected = begun(layers).w
    found = backend.to_numpy(begun(layers, backend=backend).w)
    np.testing.assert_array_equal(found, expected)


def test_rows_that_are_few_of_many_do():
    """2,048 of them are looked at, in whatever order they come."""
    rows = np.random.default_rng(1).normal(size=(5000, 4))
    model = Model(Network(4, [Dense(9, "relu"), Dense(2)]), "mean_squared_error", dtype="float64")
    found = train(model, rows, rows[:, :2], epochs=0, initialize="data").model
    deviation = found.trace(rows, rows[:, :2]).z[1].std(axis=0)
    assert abs(deviation - 1.0).max() < 0.1
    assert (deviation != 1.0).all()


def test_rows_on_disk_are_taken_as_those_in_memory(tmp_path):
    np.save(tmp_path / "x.npy", np.hstack([X, T]).astype("float32"))
    rows = mlp.open_rows(tmp_path / "x.npy", target=["x_4", "x_5"])
    model = Model(Network(4, NETS["chain"]), "mean_squared_error", dtype="float64")
    stored = train(model, rows, epochs=0, initialize="data").model
    assert np.isfinite(stored.w).all()
    z = stored.trace(X.astype("float32"), T).z[1]
    np.testing.assert_allclose(z.std(axis=0), 1.0, rtol=1e-5)


def test_a_unit_that_does_not_vary_is_left_finite():
    for rows in (np.ones((50, 4)), np.full((50, 4), 0.1), np.zeros((50, 4))):
        model = Model(Network(4, NETS["chain"]), "mean_squared_error", dtype="float64")
        w = train(model, rows, T[:50], epochs=0, initialize="data").model.w
        assert np.isfinite(w).all()
        assert abs(w).max() < 10.0


def test_a_run_that_goes_on_starts_where_it_was():
    layers = [Dense(6, "relu", dropout=0.2), Dense(2)]
    model = Model(Network(4, layers), "mean_squared_error", dtype="float64")
    options = {"initialize": "data", "seed": 3, "batch_size": 64}
    whole = train(model, X, T, epochs=6, **options)
    half = train(model, X, T, epochs=2, **options)
    again = train(model, X, T, epochs=6, state=half.state, **options)
    np.testing.assert_array_equal(again.model.w, whole.model.w)
    assert (begun(layers, seed=4).w != begun(layers, seed=5).w).any()


def test_a_layer_that_names_its_initializer_keeps_it():
    model = begun([Dense(6, "relu"), Dense(2, initializer="zeros")])
    assert not model.W[1, 2].any()
    assert not model.b[2].any()
    for layers in ([Dense(2, initializer="zeros")], [Dense(2, initializer="he_normal")]):
        with pytest.raises(InputError, match="initialize = 'data' would have no effect: every"):
            begun(layers)
    with pytest.raises(InputError, match="initialize must be 'data' or None, not 'dta'"):
        mlp.Settings(initialize="dta")
