"""Layers that are made for columns of tables, from a file of settings to predictions."""

import re

import numpy as np
import pandas as pd
import pytest

import mlp
from mlp.app.config import load
from mlp.app.prepare import new_model, read_parts
from mlp.app.runs import train_run
from mlp.errors import InputError

SETTINGS = """
[data]
file = "{file}"
target = "y"
validation = 0.2
{data}
{layers}
[[layers]]
units = 6
activation = "tanh"

[[layers]]

[training]
loss = "mean_squared_error"
epochs = 3
"""


def frame(n=300, towns=40):
    """Numbers, a category of few and one of many values."""
    r = np.random.default_rng(0)
    town = r.integers(0, towns, n)
    X = pd.DataFrame(
        {
            "size": r.normal(50, 10, n).round(2),
            "town": [f"t{k:05}" for k in town],
            "sort": r.choice(["a", "b", "c"], n),
        }
    )
    return X, (np.sin(town) + X["size"] / 100).round(4)


@pytest.fixture
def settings(tmp_path):
    """Writes a table and the settings for it: some layers before the two dense ones."""

    def write(layers, data="", **options):
        X, y = frame(**options)
        X.assign(y=y).to_csv(tmp_path / "t.csv", index=False)
        text = SETTINGS.format(file="t.csv", layers=layers, data=data)
        (tmp_path / "t.toml").write_text(text)
        return load(tmp_path / "t.toml")

    return write


def model_of(config):
    return new_model(config, read_parts(config), mlp.get_backend("numpy"))


EMBEDDING = '[[layers]]\nkind = "embedding"\nsize = 3\n'


def test_a_category_of_many_values_is_embedded_by_one_word(settings, tmp_path):
    """Those of few stay one-hot; what is saved predicts the same, also for new values."""
    config = settings(EMBEDDING)
    train_run(config, out=tmp_path / "run")
    model = mlp.load(tmp_path / "run")
    net = model.network
    assert net.layers[0] == mlp.Embedding(3, columns=(1,), values=(41,))
    assert net.units[:2] == (5, 7)
    X, _ = frame()
    X.loc[0, "town"] = "elsewhere"
    with pytest.warns(UserWarning, match="1 values of 'town' were not there in training"):
        y = model.predict(X)
    x = model.preprocessing.apply(X[1:])
    assert x[:, 1].tolist() == [1.0 + int(town[1:]) for town in X["town"][1:]]
    T, (W, W2) = net.views(model.w)["T"][1], model.W.values()
    rows = np.concatenate([x[:, [0, 2, 3, 4]], T[x[:, 1].astype(int)]], axis=1)
    expected = np.tanh(rows @ W + model.b[2]) @ W2 + model.b[3]
    np.testing.assert_allclose(y[1:], expected, rtol=1e-4)
    found = model.preprocessing.undo(model.preprocessing.apply(X[1:]))
    assert found["town"].values.tolist() == X["town"][1:].tolist()


def test_what_is_embedded_can_be_said_by_column(settings):
    named = '[data.columns]\nsort = {coding = "embedding"}\ntown = {coding = "one-hot"}\n'
    assert model_of(settings(EMBEDDING, named)).network.layers[0].columns == (41,)
    few = settings(EMBEDDING, '[data.columns]\ntown = {coding = "one-hot"}')
    with pytest.raises(InputError, match="no category has more than 8 values; name those"):
        model_of(few)
    codes = settings("", '[data.columns]\ntown = {coding = "embedding"}')
    said = "layer 1, tanh, reads the codes of column 'town' as a number; begin with an embedding"
    with pytest.raises(InputError, match=re.escape(said)):
        model_of(codes)


def test_many_more_values_are_kept_than_one_hot(settings):
    config = settings(EMBEDDING, "", n=700, towns=320)
    layer = model_of(config).network.layers[0]
    assert 257 < layer.values[0] <= 321


NUMBERS = """
[[layers]]
kind = "periodic"
frequencies = 4

[[layers]]
kind = "piecewise_linear"
size = 2
bins = 4
"""


def test_embeddings_of_numbers_take_the_columns_that_are_numbers(settings, tmp_path):
    """Not codes of categories; behind an embedding too. Edges are quantiles of the rows that are
    trained on, as they are scaled, and are there again in the file."""
    config = settings(EMBEDDING + NUMBERS)
    run = train_run(config, out=tmp_path / "run")
    model = mlp.load(tmp_path / "run")
    table, periodic, pieces = model.network.layers[:3]
    assert (table.columns, periodic.columns, pieces.columns) == ((1,), (0,), (0,))
    assert model.network.units[:4] == (5, 7, 10, 11)
    kept = read_parts(config).train
    x = model.preprocessing.apply(kept.table())[:, 0]
    np.testing.assert_allclose(pieces.edges[0], np.quantile(x, np.linspace(0, 1, 5)), rtol=1e-6)
    assert pieces == run.result.model.network.layers[2]


def test_what_has_no_numbers_is_refused(settings):
    left = '[data.columns]\nsize = "leave out"\n'
    for kind in ("periodic", "piecewise_linear"):
        with pytest.raises(InputError, match=f"layers: {kind}: no column that reaches it is a num"):
            model_of(settings(f'[[layers]]\nkind = "{kind}"\n', left))
    with pytest.raises(InputError, match="layers: piecewise_linear: what reaches it are no column"):
        settings('[[layers]]\nkind = "scale"\n[[layers]]\nkind = "piecewise_linear"\n')
