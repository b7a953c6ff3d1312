"""Models and states on disk: what is saved comes back; what cannot be is refused and says why."""

import errno
import json
import math
import os
import pickle
import warnings

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

import mlp
from backends import get_backend
from mlp import (
    Dense,
    InputError,
    Model,
    Network,
    State,
    load_model,
    load_state,
    save_model,
    save_state,
    train,
)
from mlp.data.scaling import Scaling
from mlp.formulas import losses
from mlp.formulas.activations import ACTIVATIONS, Elu, LeakyRelu
from mlp.formulas.initializers import INITIALIZERS, Normal
from mlp.formulas.losses import LOSSES
from mlp.layers import Dropout, Layer
from mlp.names import settings_of

rng = np.random.default_rng(0)
X = rng.normal(size=(10, 3))


def outputs_for(loss):
    return losses.outputs_for(LOSSES[loss], 3 if LOSSES[loss].targets == "classes" else 2)


def small_model(backend="numpy", **options):
    net = Network(3, [Dense(4, "tanh"), Dense(2)])
    return Model(net, "mean_squared_error", seed=1, backend=backend, **options)


def same_model(found, expected):
    """The same layers, weights bit for bit, settings and predictions."""
    assert found.network.layers == expected.network.layers
    assert found.network.sources == expected.network.sources
    assert (found.w == expected.w).all()
    assert found.dtype == expected.dtype
    assert found.objective.loss == expected.objective.loss
    assert found.objective.reduction == expected.objective.reduction
    assert found.objective.shared_penalties == expected.objective.shared_penalties
    assert found.columns == expected.columns
    assert (found.classes is None) == (expected.classes is None)
    assert found.classes is None or found.classes.tolist() == expected.classes.tolist()
    assert (found.predict(X) == expected.predict(X)).all()


def settings_of_table(table):
    """Each name of a table, and each with its settings spelled out."""
    for name, entry in table.items():
        yield name
        keys = settings_of(entry)
        if keys:
            yield {"name": name} | {key: getattr(entry, key) for key in keys}


# --------------------------------------------------------------------------------- models


@pytest.mark.parametrize("activation", [*settings_of_table(ACTIVATIONS), LeakyRelu(0.3), Elu(2.0)])
def test_every_activation(activation, tmp_path):
    net = Network(3, [Dense(4, activation), Dense(2, "tanh")])
    model = Model(net, "mean_squared_error", seed=1)
    save_model(model, tmp_path / "m")
    found = load_model(tmp_path / "m")
    assert found.network.activations == net.activations
    assert (found.predict(X) == model.predict(X)).all()


def made_before(path):
    """The file as it was written when the activation "gelu" was its tanh form."""
    with safe_open(path, framework="numpy") as file:
        about = file.metadata()["about"].replace("gelu_tanh", "gelu")
    save_file(load_file(path), path, {"format": "array-mlp model 1", "about": about})


def test_a_model_of_before_predicts_what_it_did(tmp_path):
    """Its "gelu" is what is now gelu_tanh, in files and in pickles."""
    net = Network(3, [Dense(4, "gelu_tanh"), Dense(4, {"name": "gelu_tanh"}), Dense(2)])
    model = Model(net, "mean_squared_error", seed=1)
    exact = Model(Network(3, [Dense(4, "gelu"), *net.layers[1:]]), model.loss, w=model.w)
    assert (exact.predict(X) != model.predict(X)).any()
    save_model(model, tmp_path / "m")
    made_before(tmp_path / "m")
    assert load_model(tmp_path / "m").network.layers == net.layers
    assert (load_model(tmp_path / "m").predict(X) == model.predict(X)).all()
    for layer in (*net.layers, Dense(3, "gelu")):  # what pickles of now hold
        assert pickle.loads(pickle.dumps(layer)) == layer
    before = object.__new__(Dense)
    before.__setstate__({**net.layers[0].__dict__, "activation": "gelu"})
    assert before == net.layers[0]


@pytest.mark.parametrize(
    "activation", ["gelu_tanh", ["gelu_tanh", "tanh"], ({"name": "gelu_tanh"},) * 2]
)
def test_an_estimator_of_before_predicts_what_it_did(activation, tmp_path):
    sizes = (3, 2) if not isinstance(activation, str) else (3,)
    made = mlp.MLPRegressor(
        hidden_layer_sizes=sizes, activation=activation, solver="lbfgs", max_iter=2
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made.fit(X, X[:, 0])
    made.save(tmp_path / "m")
    made_before(tmp_path / "m")
    found = mlp.MLPRegressor.load(tmp_path / "m")
    assert list(found.activation) == list(activation)
    assert (found.predict(X) == made.predict(X)).all()
    state = made.__getstate__()
    assert state.pop("_names") == 2
    text = repr(state["activation"]).replace("gelu_tanh", "gelu")
    found = mlp.MLPRegressor()
    found.__setstate__({**state, "activation": eval(text)})
    assert found.activation == activation


@pytest.mark.parametrize("loss", [*settings_of_table(LOSSES), LOSSES["cross_entropy"]])
def test_every_loss(loss, tmp_path):
    name = loss["name"] if isinstance(loss, dict) else loss
    outputs = outputs_for(name) if isinstance(name, str) else 3
    for reduction in (None, "sum", "mean"):
        model = Model(Network(3, [Dense(4, "relu"), Dense(outputs)]), loss, reduction=reduction)
        save_model(model, tmp_path / "m")
        same_model(load_model(tmp_path / "m"), model)


@pytest.mark.parametrize("initializer", ["auto", *settings_of_table(INITIALIZERS), Normal(0.2)])
def test_every_initializer(initializer, tmp_path):
    """A model that is loaded can be drawn anew as it was first."""
    model = Model(Network(3, [Dense(2, initializer=initializer)]), "mean_squared_error")
    save_model(model, tmp_path / "m")
    found = load_model(tmp_path / "m")
    assert (found.w == model.w).all()
    assert (found.network.initial_weights(5) == model.network.initial_weights(5)).all()


def test_everything_a_model_has(tmp_path):
    layers = [
        Dense(4, {"name": "leaky_relu", "slope": 0.2}, dropout=0.25, l1=0.1, l2=0.2),
        Dense(3, "gelu", sources=(0, 1), bias=False),
        Dense(2, "softmax", sources=(0, 2)),
    ]
    model = Model(
        Network(3, layers), "cross_entropy", reduction="sum", seed=4, dtype="float64",
        classes=["yes", "no"], columns=("age", "rooms", "rent"),
        input_scaling=Scaling.standard(X * 1e6 + 2e9),
    )  # fmt: skip
    save_model(model, tmp_path / "m")
    found = load_model(tmp_path / "m")
    same_model(found, model)
    assert found.classify(X).tolist() == model.classify(X).tolist()
    assert (found.input_scaling.shift == model.input_scaling.shift).all()
    for classes in ([3, 5], np.array(["a", "b"])):
        model = Model(Network(3, [Dense(2)]), "cross_entropy", classes=classes)
        model.objective.shared_penalties = True
        save_model(model, tmp_path / "m")
        same_model(load_model(tmp_path / "m"), model)
    scaled = small_model(target_scaling=Scaling.standard(X[:, :2]))
    save_model(scaled, tmp_path / "m")
    same_model(load_model(tmp_path / "m"), scaled)


def test_from_one_backend_to_another(backend, dtype, tmp_path):
    model = small_model(backend, dtype=dtype)
    save_model(model, tmp_path / "m")
    here = load_model(tmp_path / "m", "numpy")
    assert (here.w == backend.to_numpy(model.w)).all()
    there = load_model(tmp_path / "m", backend)
    assert there.backend is backend
    assert (backend.to_numpy(there.w) == here.w).all()


class Own:
    """An activation, a loss and an initializer of the user's own, in one."""

    def f(self, xp, z):
        return z

    def df(self, xp, v, z, a):
        return v

    def cost(self, xp, y, t):
        return y - t

    def derivative(self, xp, y, t):
        return y

    def __call__(self, rng, fan_in, fan_out, shape):
        return np.zeros(shape)


@pytest.mark.parametrize("kind", ["activation", "initializer", "loss"])
def test_an_object_of_ones_own_is_refused(kind, tmp_path):
    """Files hold data, never code: the message says what to keep; nothing is written."""
    layer = Dense(2) if kind == "loss" else Dense(2, **{kind: Own()})
    model = Model(Network(3, [layer]), Own() if kind == "loss" else "mean_squared_error")
    with pytest.raises(InputError, match=f"{kind} .* is an object of your own .* `model.w`"):
        save_model(model, tmp_path / "m")
    assert list(tmp_path.iterdir()) == []


class Same(Layer):
    """A layer of the user's own."""

    def forward(self, at):
        (at.y,) = at.x.values()


def test_a_layer_of_ones_own_is_refused(tmp_path):
    model = Model(Network(3, [Same(), Dense(2)]), "mean_squared_error")
    with pytest.raises(InputError, match=r"layer .*Same.* is of your own .* `model\.w`"):
        save_model(model, tmp_path / "m")
    assert list(tmp_path.iterdir()) == []


def test_numbers_of_numpy_are_numbers_in_the_file(tmp_path):
    layers = [Dropout(np.float32(0.25)), Dense(np.int64(2), bias=np.bool_(False), l2=np.float32(2))]
    save_model(Model(Network(3, layers), "mean_squared_error"), tmp_path / "m")
    assert load_model(tmp_path / "m").network.layers == tuple(layers)


# --------------------------------------------------------------------------------- states


def run_for_state(**options):
    return train(
        small_model(), X, X[:, :2], batch_size=4, epochs=5, validation=0.3, patience=3, **options
    )


def test_state_round_trip(tmp_path):
    numpy = get_backend("numpy")

    class Stop:
        def on_batch_end(self, run):
            if run.state.step == 5:
                run.stop("here")

    for options in ({}, {"callbacks": [Stop()]}, {"optimizer": "sgd"}, {"target_loss": 0.01}):
        state = run_for_state(**options).state
        save_state(state, tmp_path / "s", numpy)
        found = load_state(tmp_path / "s")
        for name in State.__dataclass_fields__:
            a, b = getattr(found, name), getattr(state, name)
            if name == "vectors":
                assert a.keys() == b.keys()
                assert all((a[key] == b[key]).all() and a[key].dtype == b[key].dtype for key in b)
            elif isinstance(b, np.ndarray):
                assert (a == b).all(), name
                assert a.dtype == b.dtype, name
            else:
                assert repr(a) == repr(b), name


def test_state_of_a_run_not_begun(tmp_path):
    state = train(small_model(), X, X[:, :2], epochs=0).state
    assert state.best_loss == math.inf
    save_state(state, tmp_path / "s", get_backend("numpy"))
    assert load_state(tmp_path / "s").best_loss == math.inf
    assert load_state(tmp_path / "s").history == {}


# ----------------------------------------------------------------------------- bad files


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "model.safetensors"
    save_model(small_model(), path)
    return path


def test_not_there(tmp_path):
    for load in (load_model, load_state):
        with pytest.raises(InputError, match=r"nothing is not there"):
            load(tmp_path / "nothing")


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.9, 0.999])
def test_truncated(saved, share):
    data = saved.read_bytes()
    saved.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(InputError, match=r"model.safetensors is damaged or no safetensors file"):
        load_model(saved)


def test_not_a_safetensors_file(saved):
    for data in (b"PK\x03\x04 a zip", b"\xff" * 1000, b'{"json": true}', b"\x80\x04\x95pickle."):
        saved.write_bytes(data)
        with pytest.raises(InputError, match=r"is damaged or no safetensors file"):
            load_model(saved)
    with pytest.raises(InputError, match=str(saved.parent)):
        load_model(saved.parent)  # a folder


def test_a_safetensors_file_of_another_program(saved):
    save_file({"weight": np.zeros(3)}, saved)
    with pytest.raises(InputError, match=r"is no file of ours, not array-mlp model 2"):
        load_model(saved)


def test_a_model_is_no_state(saved, tmp_path):
    with pytest.raises(InputError, match=r"is array-mlp model 2, not array-mlp state 2"):
        load_state(saved)
    save_state(run_for_state().state, tmp_path / "s", get_backend("numpy"))
    with pytest.raises(InputError, match=r"is array-mlp state 2, not array-mlp model 2"):
        load_model(tmp_path / "s")


def change(path, by):
    """Another content in the file, as of a writer that adds no checksum."""
    with safe_open(path, framework="numpy") as file:
        metadata = file.metadata()
    about, tensors = json.loads(metadata["about"]), load_file(path)
    by(about, tensors)
    save_file(tensors, path, {"format": metadata["format"], "about": json.dumps(about)})


DAMAGE = {
    "no_layers": lambda about, tensors: about.pop("layers"),
    "unknown_key": lambda about, tensors: about["layers"][0].update(colour="red"),
    "wrong_type": lambda about, tensors: about.update(layers=7),
    "no_weights": lambda about, tensors: tensors.pop("w"),
    "short_weights": lambda about, tensors: tensors.update(w=tensors["w"][:-1]),
    "unknown_loss": lambda about, tensors: about.update(loss="cross_entropi"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_file_whose_content_does_not_fit(saved, kind):
    """A header that was edited, or is of a later version: one message that names the file."""
    change(saved, DAMAGE[kind])
    with pytest.raises(InputError, match=r"model\.safetensors"):
        load_model(saved)


def test_a_state_whose_content_does_not_fit(tmp_path):
    path = tmp_path / "run.state"
    for key in ("history", "best_loss", "step"):
        save_state(run_for_state().state, path, get_backend("numpy"))
        change(path, lambda about, tensors, key=key: about.pop(key))
        with pytest.raises(InputError, match=r"run\.state"):
            load_state(path)


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_full_disk_leaves_the_old_file(saved, call, monkeypatch):
    before = saved.read_bytes()

    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, call, full)
    other = small_model()
    other.w = np.zeros(other.network.parameters)
    with pytest.raises(InputError, match=r"model.safetensors cannot be written: No space left on"):
        save_model(other, saved)
    with pytest.raises(InputError, match=r"cannot be written: No space left on device"):
        save_state(run_for_state().state, saved, get_backend("numpy"))
    monkeypatch.undo()
    assert saved.read_bytes() == before
    assert list(saved.parent.iterdir()) == [saved]  # nothing half-written lies about


def test_places_that_cannot_be_written(saved):
    for path in (saved.parent / "no" / "such" / "folder", saved / "below_a_file"):
        with pytest.raises(InputError, match=r"cannot be written: (No such|Not a dir)"):
            save_model(small_model(), path)
    with pytest.raises(InputError, match=r"cannot be written: Is a directory"):
        save_model(small_model(), saved.parent)


def test_a_state_may_hold_numbers_of_numpy(tmp_path):
    """As a callback sets a learning rate."""
    state = train(small_model(), X, X[:, :2], epochs=2).state
    state.learning_rate, state.step, state.seconds = np.float32(0.5), np.int64(7), np.float32(0.25)
    save_state(state, tmp_path / "s", get_backend("numpy"))
    found = load_state(tmp_path / "s")
    assert (found.learning_rate, found.step, found.seconds) == (0.5, 7, 0.25)
