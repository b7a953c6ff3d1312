"""The model: given weights, views of them, predictions, metrics, gradients, other backends."""

import copy
import pickle
import re
import sys
import threading
import tracemalloc

import numpy as np
import pytest
from conftest import present

from backends import BackendError, get_backend
from backends.numpy_backend import NumpyBackend
from mlp import Dense, InputError, Model, Network, gradient_check, load, read, train
from mlp.data.scaling import Scaling
from mlp.formulas.losses import LOSSES, outputs_for
from mlp.model import Evaluator


def three_classes(backend="numpy", **options):
    net = Network(4, [Dense(6, "tanh"), Dense(3, "softmax")])
    return Model(net, "cross_entropy", seed=2, backend=backend, **options)


def rows(n=12, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, 4)), rng.integers(0, 3, n)


def by_hand(model, X):
    """softmax(tanh(X W01 + b1) W12 + b2), in plain NumPy."""
    W, b = model.network.unpack(np.asarray(model.backend.to_numpy(model.w), dtype=float))
    z = np.tanh(X @ W[0, 1] + b[1]) @ W[1, 2] + b[2]
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


# ------------------------------------------------------------------------------------ weights


def test_given_weights(backend, dtype):
    """Weights given as matrices by `pack`, or as a flat vector, are the model's, in its dtype."""
    net = Network(2, [Dense(2, "sigmoid"), Dense(1)])
    w = net.pack(
        {(0, 1): [[1.0, 2.0], [3.0, 4.0]], (1, 2): [[5.0], [6.0]]}, {1: [7.0, 8.0], 2: [9.0]}
    )
    assert w.tolist() == [1, 2, 3, 4, 5, 6, 7, 8, 9]
    for given in (w, w.tolist(), backend.asarray(w)):
        model = Model(net, "mean_squared_error", w=given, backend=backend, dtype=dtype)
        found = backend.to_numpy(model.w)
        assert (found == w).all()
        assert found.dtype == dtype
    assert backend.to_numpy(model.W[0, 1]).tolist() == [[1, 2], [3, 4]]
    assert backend.to_numpy(model.b[2]).tolist() == [9]


def test_the_given_vector_is_copied():
    w = np.zeros(51)
    Model(three_classes().network, "cross_entropy", w=w, dtype="float64").w[:] = 1.0
    assert (w == 0.0).all()


def test_W_and_b_are_views(backend):
    """Writing into W[k, l] or b[l] writes into w, and predictions follow."""
    model, (X, _) = three_classes(backend), rows()
    before = model.predict(X)
    model.W[1, 2][...] = backend.full((6, 3), 0.0, "float32")
    model.b[2][...] = backend.asarray([0.0, 50.0, 0.0], "float32")
    assert backend.to_numpy(model.w)[24:42].tolist() == [0.0] * 18
    assert abs(model.predict(X) - before).max() > 0.1
    np.testing.assert_allclose(model.predict(X), [[0.0, 1.0, 0.0]] * 12, atol=1e-6)


def test_assigning_w_copies(backend):
    model, other = three_classes(backend), three_classes(backend)
    other.w = other.network.initial_weights(9)
    at = model.w
    model.w = other.w
    assert model.w is at
    assert (backend.to_numpy(model.w) == backend.to_numpy(other.w)).all()
    with pytest.raises(InputError, match=r"w has shape \(2,\), this network has 51 parameters"):
        model.w = np.zeros(2)


def test_to_another_backend_and_dtype(backend):
    """A copy of its own, with the same predictions to the rounding of its dtype."""
    model, (X, _) = three_classes("numpy"), rows()
    there = model.to(backend, "float64")
    assert (there.backend.name, there.dtype) == (backend.name, "float64")
    assert backend.owns(there.w)
    np.testing.assert_allclose(there.predict(X), model.predict(X), rtol=1e-5)
    np.testing.assert_allclose(there.predict(X), by_hand(model, X), rtol=1e-12)
    back = there.to("numpy", "float32")
    assert (back.w == model.w).all()
    there.w = np.zeros(51)
    assert (back.w == model.w).all()


# -------------------------------------------------------------------------------- predictions


def test_predict(backend, dtype):
    model, (X, _) = three_classes(backend, dtype=dtype), rows()
    y = model.predict(X)
    assert isinstance(y, np.ndarray)
    assert (y.shape, y.dtype) == ((12, 3), dtype)
    rtol = 1e-12 if dtype == "float64" else 1e-5
    np.testing.assert_allclose(y, by_hand(model, X), rtol=rtol)
    np.testing.assert_allclose(model.predict(X.tolist()), y, rtol=rtol)


def test_device_arrays_in_device_arrays_out(backend):
    """An array of the backend stays on its device all the way; one of the host comes back."""
    model, (X, t) = three_classes(backend), rows()
    y = model.predict(backend.asarray(X, "float32"))
    assert backend.owns(y)
    np.testing.assert_allclose(backend.to_numpy(y), model.predict(X), rtol=1e-6)
    assert (model.classify(backend.asarray(X)) == model.classify(X)).all()
    on_device = model.evaluate(backend.asarray(X), backend.asarray(t))
    assert on_device == pytest.approx(model.evaluate(X, t), rel=1e-6)
    E, g = model.value_and_gradient(backend.asarray(X), backend.asarray(t))
    assert backend.owns(g)
    assert pytest.approx(model.value_and_gradient(X, t)[0], rel=1e-6) == E
    result = train(model, backend.asarray(X), backend.asarray(t), epochs=1)
    assert backend.owns(result.model.w)


def test_chunks_are_the_whole():
    """More rows than are predicted at once: as each row on its own, also in loss and metrics."""
    net = Network(4, [Dense(300, "relu"), Dense(3, "softmax")])
    model = Model(net, "cross_entropy", dtype="float64")
    X, t = rows(2500)
    assert model._chunk() < 1250  # so that there are three chunks or more
    whole = model.predict(X)
    one_by_one = np.vstack([model.predict(X[i : i + 1]) for i in range(0, 2500, 50)])
    np.testing.assert_allclose(whole[::50], one_by_one, rtol=1e-10)
    E, _ = model.value_and_gradient(X, t)
    assert model.evaluate(X, t)["loss"] == pytest.approx(E, rel=1e-12)
    s = np.random.default_rng(1).uniform(size=2500)
    E, _ = model.value_and_gradient(X, t, s)
    assert model.evaluate(X, t, s)["loss"] == pytest.approx(E, rel=1e-12)
    total = Model(net, "cross_entropy", reduction="sum", w=model.w, dtype="float64")
    E, _ = total.value_and_gradient(X, t, s)
    assert total.evaluate(X, t, s)["loss"] == pytest.approx(E, rel=1e-12)


def test_predictions_follow_the_weights():
    """What is kept between calls is no copy of the weights."""
    model, (X, _) = three_classes(), rows()
    model.predict(X)
    model.w = model.network.initial_weights(7)
    np.testing.assert_allclose(model.predict(X), by_hand(model, X), rtol=1e-5)
    for n in range(1, 9):  # more sizes than are kept
        assert model.predict(X[:n]).shape == (n, 3)


def test_layouts_of_X_are_one(backend):
    """Rows that products can read where they are, and rows that have to be copied or cast."""
    model, (X, _) = three_classes(backend), rows(40)
    X = X.astype("float32").astype("float64")  # the same numbers in both
    expected = model.predict(X)
    wide = np.zeros((40, 9), "float32")
    wide[:, 1::2] = X
    for given in (X.astype("float32"), np.asfortranarray(X, "float32"), wide[:, 1::2], X.tolist()):
        assert (model.predict(given) == expected).all()
    assert (model.predict(X[::-2]) == expected[::-2]).all()


def test_predictions_leave_X_alone():
    """The rows are neither written to nor kept."""
    model, X = three_classes(), rows()[0].astype("float32")
    given, references = X.copy(), sys.getrefcount(X)
    y = model.predict(X)
    np.testing.assert_array_equal(X, given)
    assert sys.getrefcount(X) == references
    first = y.copy()
    model.predict(2.0 * X)
    assert (y == first).all()  # and what was returned is the caller's


def test_predictions_allocate_their_result_alone(monkeypatch):
    """From the second call on nothing is made for a chunk."""
    model = three_classes()
    monkeypatch.setattr(model, "_chunk", lambda: 100)
    X = np.random.default_rng(0).normal(size=(10_050, 4)).astype("float32")
    model.predict(X)
    made = []
    empty = model.backend.empty
    monkeypatch.setattr(model.backend, "empty", lambda *a: made.append(a) or empty(*a))
    tracemalloc.start()
    y = model.predict(X)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert made == [((10_050, 3), "float32")]
    assert peak < y.nbytes + X.nbytes // 4 + 20_000  # the check for NaN sums each row


@pytest.fixture
def short_turns():
    """Threads that take turns as often as the interpreter lets them."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def test_threads_predict_at_once(backend, short_turns):
    """Each thread gets the predictions of its own rows."""
    model = three_classes(backend)
    sets = [rows(3000, seed=k)[0].astype("float32") for k in range(4)]
    expected = [model.predict(X) for X in sets]
    start, wrong = threading.Barrier(4), []

    def work(k):
        start.wait()
        for _ in range(20):
            y = model.predict(sets[k])
            wrong.extend([] if (y == expected[k]).all() else [k])

    threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_copies_have_predictors_of_their_own(backend):
    """A copy by pickle, deepcopy or `to` has its own weights, and predicts with them."""
    model, (X, _) = three_classes(backend), rows()
    expected = model.predict(X)
    for other in (pickle.loads(pickle.dumps(model)), copy.deepcopy(model), model.to()):
        assert (other.backend.name, other.backend.device) == (backend.name, backend.device)
        assert backend.owns(other.w)
        assert (other.predict(X) == expected).all()
        other.w = 2.0 * backend.to_numpy(other.w)
        assert not np.allclose(other.predict(X), expected)
        assert (model.predict(X) == expected).all()


@pytest.mark.parametrize("name", present("cupy:1", "strict:device1"))
def test_a_pickle_returns_to_its_device(name):
    """Also where another device is the current one."""
    model = three_classes(name)
    for other in (pickle.loads(pickle.dumps(model)), copy.deepcopy(model)):
        assert other.backend is model.backend
        assert other.backend.owns(other.w)


def test_a_backend_out_of_the_table_is_pickled_as_an_object():
    for jit in (False, True):
        other = pickle.loads(pickle.dumps(NumpyBackend(jit=jit)))
        assert (type(other), other.jit) == (NumpyBackend, jit)
    assert pickle.loads(pickle.dumps(get_backend("numpy"))) is get_backend("numpy")


def test_classify():
    X, _ = rows()
    model = three_classes()
    best = model.predict(X).argmax(axis=1)
    assert (model.classify(X) == best).all()
    named = three_classes(classes=["ant", "bee", "cat"])
    assert named.classify(X).tolist() == [["ant", "bee", "cat"][k] for k in best]

    one = Model(Network(4, [Dense(1, "sigmoid")]), "binary_cross_entropy", classes=["no", "yes"])
    assert one.classify(X).tolist() == ["yes" if y > 0.5 else "no" for y in one.predict(X)[:, 0]]
    several = Model(Network(4, [Dense(3, "sigmoid")]), "binary_cross_entropy")
    assert (several.classify(X) == (several.predict(X) > 0.5)).all()
    numbers = Model(Network(4, [Dense(3)]), "mean_squared_error")
    with pytest.raises(InputError, match="classify: this model's loss is for numbers; use predict"):
        numbers.classify(X)


def test_classify_with_classes_whatever_the_loss():
    """A net of the course, with half the squared error, has labels and an accuracy too."""
    X, t = rows(40)
    names = np.array(["cat", "ant", "bee"])  # in an order of their own
    net = Network(4, [Dense(6, "tanh"), Dense(3, "sigmoid")])
    model = Model(net, "half_squared_error", classes=names, dtype="float64")
    y = model.predict(X)
    assert (model.classify(X) == names[y.argmax(axis=1)]).all()
    found = model.evaluate(X, names[t])
    assert found == model.evaluate(X, np.eye(3)[t])
    assert found["accuracy"] == (y.argmax(axis=1) == t).mean()
    assert found["mse"] == pytest.approx(((y - np.eye(3)[t]) ** 2).mean())

    one = Model(Network(4, [Dense(1, "sigmoid")]), "half_squared_error", classes=["no", "yes"])
    yes = one.predict(X)[:, 0] > 0.5
    assert (one.classify(X) == np.where(yes, "yes", "no")).all()
    given = np.where(t > 0, "yes", "no")
    assert one.evaluate(X, given) == one.evaluate(X, (t > 0).astype(float))
    assert one.evaluate(X, given)["accuracy"] == (yes == (t > 0)).mean()
    with pytest.raises(InputError, match=r"there are 2 classes for 3 outputs; name one for each"):
        Model(net, "half_squared_error", classes=["no", "yes"])


# -------------------------------------------------------------------------------------- labels

LABELS = {
    "words": np.array(["bee", "ant", "cat"]),
    "words as objects": np.array(["bee", "ant", "cat"], object),
    "whole numbers": np.array([7, 3, 5]),
    "numbers that look like class numbers": np.array([1, 2, 3]),
    "yes and no": np.array([True, False]),
}


@pytest.mark.parametrize("loss", ["cross_entropy", "binary_cross_entropy", "mean_squared_error"])
@pytest.mark.parametrize("kind", LABELS)
def test_labels_are_what_a_model_with_classes_takes_and_gives(backend, kind, loss):
    """evaluate, value_and_gradient, gradient_check and train code them by the model's classes."""
    classes, (X, t) = LABELS[kind], rows(30)
    if loss == "binary_cross_entropy":
        classes = classes[:2]
    t %= len(classes)
    outputs = 1 if loss == "binary_cross_entropy" else len(classes)
    net = Network(4, [Dense(5, "tanh"), Dense(outputs)])
    model = Model(net, loss, classes=classes, backend=backend, dtype="float64")
    coded = model.samples(X, classes[t])
    expected = t if loss == "cross_entropy" else np.eye(outputs)[t] if outputs > 1 else t[:, None]
    assert (coded.t == expected).all()
    right = (model.classify(X) == classes[t]).mean()
    assert model.evaluate(X, classes[t])["accuracy"] == right
    assert model.evaluate(X, classes[t].tolist()) == model.evaluate(coded)
    assert model.value_and_gradient(X, classes[t])[0] == model.value_and_gradient(coded)[0]
    checked = [gradient_check(model, *data, most=9) for data in ((X, classes[t]), (coded,))]
    assert checked[0] == checked[1]
    one, other = train(model, X, classes[t], epochs=2), train(model, coded, epochs=2)
    assert one.history["loss"] == other.history["loss"]
    assert set(one.model.classify(X).tolist()) <= set(classes.tolist())
    with pytest.raises(InputError, match=r"t: label 'dog' \(30 of 30 rows .* is not one of the"):
        model.evaluate(X, ["dog"] * 30)


def test_text_classes_take_class_numbers_too():
    model, (X, t) = three_classes(classes=["ant", "bee", "cat"]), rows()
    assert model.evaluate(X, t) == model.evaluate(X, np.array(["ant", "bee", "cat"])[t])
    assert model.evaluate(X, np.eye(3)[t]) == model.evaluate(X, t)


def test_training_learns_the_classes_of_labels(backend):
    """The model that is given has none afterwards either; without words numbers stay numbers."""
    X, t = rows(30)
    names = np.array(["ant", "bee", "cat"])
    model = three_classes(backend)
    result = train(model, X, names[t], epochs=3, validation=(X[:5], names[t[:5]]))
    assert (model.classes, result.model.classes.tolist()) == (None, names.tolist())
    assert result.history["loss"] == train(model, X, t, epochs=3).history["loss"]
    assert set(result.model.classify(X).tolist()) <= set(names.tolist())
    assert train(model, X, t, epochs=1).model.classes is None
    with pytest.raises(
        InputError, match="t holds 2 classes, the last layer has 3 units: give it one"
    ):
        train(model, X, names[t % 2], epochs=1)


def test_samples_are_checked_once(backend, monkeypatch):
    """What has passed the door is not searched again, nor copied."""
    model, (X, t) = three_classes(backend, dtype="float64"), rows(30)
    s = np.linspace(0, 1, 30)
    samples = model.samples(X, t, s)
    expected = [
        model.evaluate(X, t, s), model.value_and_gradient(X, t, s)[0], model.predict(X),
        gradient_check(model, X, t, sample_weight=s), train(model, X, t, sample_weight=s, epochs=2),
    ]  # fmt: skip
    for name in ("check_finite", "check_sample_weight", "targets_of", "check_inputs"):
        monkeypatch.setattr(f"mlp.data.samples.{name}", None)
    monkeypatch.setattr("mlp.network.objective.Objective.check_targets", None)
    assert model.samples(samples) is samples
    assert model.evaluate(samples) == expected[0]
    assert model.value_and_gradient(samples)[0] == expected[1]
    assert (model.predict(samples) == expected[2]).all()
    assert gradient_check(model, samples) == expected[3]
    result = train(model, samples, epochs=2, validation=samples)
    assert result.history["loss"] == expected[4].history["loss"]


def test_samples_of_another_net_are_refused():
    model, (X, t) = three_classes(), rows()
    samples = model.samples(X, t)
    smaller = Model(Network(4, [Dense(2)]), "cross_entropy")
    with pytest.raises(InputError, match=r"t: 2 is not a class number from 0 to 1"):
        smaller.evaluate(samples)
    with pytest.raises(InputError, match="layer 1 expects 5 inputs, X has 4 columns"):
        Model(Network(5, [Dense(3)]), "cross_entropy").evaluate(samples)
    with pytest.raises(InputError, match="X holds its targets and weights already"):
        model.evaluate(samples, t)
    with pytest.raises(InputError, match=r"t is missing: give the targets, \(n, 3\)"):
        model.evaluate(X)


@pytest.fixture
def animals(tmp_path):
    """A table, read: its columns, and a model that knows them in another order."""
    X, t = rows(30)
    names = np.array(["ant", "bee", "cat"])
    lines = [",".join([*map(repr, x.tolist()), names[k]]) for x, k in zip(X, t, strict=True)]
    (tmp_path / "animals.csv").write_text("a,b,c,d,kind\n" + "\n".join(lines) + "\n")
    model = three_classes(columns=("d", "a", "b", "c"), classes=names)
    return read(tmp_path / "animals.csv", target="kind"), model, X[:, [3, 0, 1, 2]], t


def test_what_is_read_is_taken_with_its_labels(animals, monkeypatch):
    """Its targets are coded by the model's classes, its columns chosen by the model's names."""
    data, model, X, t = animals
    assert model.evaluate(data) == model.evaluate(X, t)
    assert (model.predict(data) == model.predict(X)).all()
    assert (model.classify(data) == model.classify(X)).all()
    assert model.value_and_gradient(data)[0] == model.value_and_gradient(X, t)[0]
    assert gradient_check(model, data) == gradient_check(model, X, t)
    monkeypatch.setattr("mlp.data.samples.check_finite", None)  # it was searched when it was read
    trained = train(model, data, epochs=2, validation=data)
    monkeypatch.undo()
    expected = train(model, X, t, epochs=2, validation=(X, t))
    assert trained.history["validation_loss"] == expected.history["validation_loss"]
    learned = train(three_classes(columns=model.columns), data, epochs=2).model
    assert learned.classes.tolist() == ["ant", "bee", "cat"]
    with pytest.raises(InputError, match=r"animals.csv has no column 'e'; known: a, b, c, d"):
        three_classes(columns=("a", "b", "c", "e")).evaluate(data)


def test_labels_of_a_file_that_are_numbers_are_learned(tmp_path):
    X, t = rows(30)
    np.savez(tmp_path / "x.npz", X=X, t=t + 1)
    data = read(tmp_path / "x.npz")
    model = train(three_classes(columns=("a", "b", "c", "d")), data, epochs=1).model
    assert model.classes.tolist() == [1, 2, 3]
    assert 0.0 <= model.evaluate(data)["accuracy"] == (model.classify(X) == t + 1).mean()
    np.savez(tmp_path / "y.npz", X=X, t=t)
    assert train(three_classes(), read(tmp_path / "y.npz"), epochs=1).model.classes is None


# ------------------------------------------------------------------------ metrics and gradients


def test_evaluate(backend):
    """The loss without penalties and the metrics, each as its formula says."""
    X, t = rows()
    model = three_classes(backend, dtype="float64")
    y = by_hand(model, X)
    assert model.evaluate(X, t) == pytest.approx(
        {
            "loss": -np.log(y[np.arange(12), t]).mean(),
            "accuracy": (y.argmax(axis=1) == t).mean(),
            "balanced_accuracy": np.mean([(y.argmax(axis=1) == k)[t == k].mean() for k in set(t)]),
        },
        rel=1e-12,
    )
    assert model.evaluate(X, np.eye(3)[t]) == pytest.approx(model.evaluate(X, t), rel=1e-12)

    net = Network(4, [Dense(3, "tanh", l2=5.0), Dense(2)])
    T = np.random.default_rng(1).normal(size=(12, 2))
    model = Model(net, "mean_squared_error", backend=backend, dtype="float64")
    y = model.predict(X)
    r2 = 1 - ((y - T) ** 2).sum(axis=0) / ((T - T.mean(axis=0)) ** 2).sum(axis=0)
    mse = ((y - T) ** 2).mean()
    assert model.evaluate(X, T) == pytest.approx({"loss": mse, "mse": mse, "r2": r2.mean()})

    model = Model(Network(4, [Dense(2)]), "binary_cross_entropy", backend=backend, dtype="float64")
    y, labels = model.predict(X), (T > 0).astype(int)
    loss = -np.log(np.where(labels, y, 1 - y)).sum(axis=1).mean()
    right = ((y > 0.5) == labels).all(axis=1).mean()
    recalls = [((y > 0.5) == labels)[labels[:, k] == c, k].mean() for k in (0, 1) for c in (0, 1)]
    assert model.evaluate(X, labels) == pytest.approx(
        {"loss": loss, "accuracy": right, "balanced_accuracy": np.mean(recalls)}
    )


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("weights", ["none", "some", "a chunk of zeros"])
@pytest.mark.parametrize(("n", "chunk"), [(5, 100), (7, 3), (100, 33), (64, 16), (65, 16), (9, 1)])
def test_penalties_do_not_depend_on_the_chunks(n, chunk, weights, shared, reduction, monkeypatch):
    """E over all rows, penalties included, is that of one evaluation of them all."""
    net = Network(4, [Dense(5, "tanh", l1=0.3, l2=0.7), Dense(3, "softmax")])
    options = {"shared_penalties": shared, "reduction": reduction, "dtype": "float64"}
    model, (X, t) = Model(net, "cross_entropy", **options), rows(n)
    s = None if weights == "none" else np.random.default_rng(1).uniform(0, 2, n)
    if weights == "a chunk of zeros" and chunk < n:
        s[:chunk] = 0.0
    samples = model.samples(X, t, s)
    E, _ = model.value_and_gradient(samples)
    monkeypatch.setattr(model, "_chunk", lambda: chunk)
    found = Evaluator(model, model.feed(samples), samples)(penalty=True)
    assert found["loss"] == pytest.approx(E, rel=1e-12)


def test_value_and_gradient(backend):
    """E with penalties; g in the layout of w, of the given rows, masks drawn by the seed alone."""
    net = Network(4, [Dense(5, "tanh", dropout=0.4, l1=0.1, l2=0.2), Dense(2)])
    model = Model(net, "half_squared_error", seed=1, backend=backend, dtype="float64")
    X, T = rows()[0], np.random.default_rng(1).normal(size=(12, 2))
    E, g = model.value_and_gradient(X, T)
    assert isinstance(E, float)
    W = backend.to_numpy(model.W[0, 1])
    penalty = 0.1 * abs(W).sum() + 0.1 * (W**2).sum()
    assert pytest.approx(model.evaluate(X, T)["loss"] + penalty, rel=1e-12) == E
    gW, gb = net.unpack(backend.to_numpy(g))
    y = model.predict(X)
    a = np.tanh(X @ W + backend.to_numpy(model.b[1]))
    np.testing.assert_allclose(gb[2], (y - T).sum(axis=0), rtol=1e-12)
    np.testing.assert_allclose(gW[1, 2], a.T @ (y - T), rtol=1e-12, atol=1e-13)

    dropped = [model.value_and_gradient(X, T, dropout_seed=seed)[0] for seed in (1, 1, 2)]
    assert dropped[0] == dropped[1] != dropped[2] != E
    weighted, _ = model.value_and_gradient(X, T, np.full(12, 2.0))
    assert pytest.approx(2 * (E - penalty) + penalty, rel=1e-12) == weighted


# -------------------------------------------------------------------------------- standardisation


def test_standardisation_round_trip(backend):
    """Inputs and targets in the user's units in and out: the same as scaling them by hand."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(30, 4)) * [1.0, 100.0, 0.01, 1.0] + [0.0, 1e3, -5.0, 2.0]
    T = (X @ [[1.0], [0.02], [3.0], [1.0]]) * 50.0 + 700.0
    ins, outs = Scaling.standard(X), Scaling.standard(T)
    net = Network(4, [Dense(6, "tanh"), Dense(1)])
    options = {"seed": 3, "backend": backend, "dtype": "float64"}
    scaled = Model(net, "mean_squared_error", input_scaling=ins, target_scaling=outs, **options)
    plain = Model(net, "mean_squared_error", **options)
    Xs, Ts = ins.apply(X, "float64"), outs.apply(T, "float64")
    np.testing.assert_allclose(scaled.predict(X), outs.invert(plain.predict(Xs)), rtol=1e-11)
    settings = {"epochs": 30, "learning_rate": 0.05, "batch_size": 10, "validation": 0.2}
    a, b = train(scaled, X, T, **settings), train(plain, Xs, Ts, **settings)
    np.testing.assert_allclose(a.history["loss"], b.history["loss"], rtol=1e-9)  # scaled units
    np.testing.assert_allclose(a.model.predict(X), outs.invert(b.model.predict(Xs)), rtol=1e-9)
    metrics = a.model.evaluate(X, T)  # in the user's units
    assert metrics["mse"] == pytest.approx(((a.model.predict(X) - T) ** 2).mean(), rel=1e-9)
    assert metrics["r2"] == pytest.approx(b.model.evaluate(Xs, Ts)["r2"], rel=1e-9)
    assert metrics["r2"] > 0.9
    X32 = a.model.to(dtype="float32").predict(backend.asarray(X))
    np.testing.assert_allclose(backend.to_numpy(X32), a.model.predict(X), rtol=1e-4)


def test_small_integers_stay_small(backend):
    """Images as uint8 give what the same numbers as floats give."""
    X = np.random.default_rng(0).integers(0, 256, (20, 4)).astype(np.uint8)
    t = rows(20)[1]
    for scaling in (None, Scaling.unit_range(X)):
        model = three_classes(backend, dtype="float64", input_scaling=scaling)
        np.testing.assert_allclose(
            model.predict(X), model.predict(X.astype(float)), rtol=1e-12, atol=1e-300
        )
        assert model.evaluate(X, t) == pytest.approx(model.evaluate(X.astype(float), t), rel=1e-12)
        trained = train(model, X, t, epochs=2, batch_size=6).history["loss"]
        np.testing.assert_allclose(
            trained, train(model, X.astype(float), t, epochs=2, batch_size=6).history["loss"],
            rtol=1e-12,
        )  # fmt: skip


# ----------------------------------------------------------------------------- numbers of NumPy


def test_whole_numbers_of_numpy(backend):
    """They are taken wherever whole numbers are, and mean the same."""
    X, t = rows()
    net = Network(np.int64(4), [Dense(np.int32(6), "tanh", dropout=0.5), Dense(np.uint8(3))])
    one = Model(net, "cross_entropy", seed=np.int64(2), backend=backend)
    same = Model(Network(4, [Dense(6, "tanh", dropout=0.5), Dense(3)]), "cross_entropy", seed=2)
    assert (backend.to_numpy(one.w) == same.w).all()
    for seed in (np.int64(3), np.uint8(3)):
        E, _ = one.value_and_gradient(X, t, dropout_seed=seed)
        assert pytest.approx(one.value_and_gradient(X, t, dropout_seed=3)[0]) == E
        assert gradient_check(one, X, t, most=np.int64(5), seed=seed) == gradient_check(
            one, X, t, most=5, seed=3
        )


# ------------------------------------------------------------------------------- files and words


def test_a_model_is_saved_and_loaded(backend, tmp_path):
    """By a file's name, or of a folder that holds model.safetensors, as that of a run does."""
    model, (X, _) = three_classes(backend, classes=["ant", "bee", "cat"]), rows()
    model.save(tmp_path / "model.safetensors")
    for place in (tmp_path, tmp_path / "model.safetensors", str(tmp_path)):
        found = load(place, backend)
        assert (found.predict(X) == model.predict(X)).all()
        assert (found.classify(X) == model.classify(X)).all()


def test_what_is_no_model_is_named(tmp_path):
    with pytest.raises(InputError, match=r"is no folder of a run: it has no model.safetensors"):
        load(tmp_path)
    with pytest.raises(InputError, match="gone is not there"):
        load(tmp_path / "gone")
    (tmp_path / "text").write_text("hello")
    with pytest.raises(InputError, match="text is damaged or no safetensors file"):
        load(tmp_path / "text")
    with pytest.raises(InputError, match="cannot be written"):
        three_classes().save(tmp_path)


def test_what_a_model_and_its_data_look_like(animals):
    data, model, _, _ = animals
    text = "Model(4-6-3 tanh, cross_entropy, 51 parameters, 3 classes, float32 on numpy)"
    assert repr(model) == text
    rows, source = "Dataset(30 rows of 4 inputs (a, b, c, d) with labels, ", "animals.csv)"
    assert repr(data).startswith(rows)
    assert repr(data).endswith(source)
    assert repr(model.samples(data)) == "Samples(30 rows of 4 inputs with class numbers)"
    scaling = Scaling(np.array([1.0, 2.0]), np.array([0.5, 3.0]))
    assert repr(scaling) == "Scaling(2 columns, shift 1 to 2, scale 0.5 to 3)"


# ---------------------------------------------------------------------------------- bad settings


BAD_MODELS = {
    "dtype='float16'": (InputError, r"dtype must be one of float32, float64, not 'float16'"),
    "w=np.zeros(3)": (InputError, r"w has shape \(3,\), this network has 51 parameters"),
    "reduction='avg'": (InputError, r"reduction must be 'sum' or 'mean', not 'avg'"),
    "loss='cross_entropi'": (InputError, r"unknown loss 'cross_entropi'; did you mean 'cross_ent"),
    "loss=3": (
        InputError,
        r"a loss is a name or an object with methods cost and derivative, not 3",
    ),
    "backend='numpi'": (BackendError, r"unknown backend 'numpi'; did you mean 'numpy'\?"),
    "seed=-1": (InputError, r"seed must be a whole number from 0 on, not -1"),
    "seed=0.5": (InputError, r"seed must be a whole number from 0 on, not 0.5"),
}


@pytest.mark.parametrize("options", BAD_MODELS)
def test_bad_models(options):
    error, message = BAD_MODELS[options]
    made = {"loss": "cross_entropy"} | eval(f"dict({options})")
    with pytest.raises(error, match=message):
        Model(three_classes().network, made.pop("loss"), **made)


def test_to_refuses_a_wrong_dtype():
    with pytest.raises(InputError, match="dtype must be one of float32, float64, not 'int8'"):
        three_classes().to(dtype="int8")


def test_the_backend_is_chosen_by_argument_then_environment(monkeypatch):
    monkeypatch.setenv("MLP_BACKEND", "strict")
    assert three_classes(None).backend.name == "strict"
    assert three_classes("numpy").backend.name == "numpy"
    assert three_classes(get_backend("strict:device1")).backend.name == "strict:device1"
    monkeypatch.delenv("MLP_BACKEND")
    assert three_classes(None).backend.name == "numpy"


def test_weights_that_are_not_finite_are_refused():
    net = Network(1, [Dense(1)])
    with pytest.raises(InputError, match="w has values that are NaN or infinite"):
        Model(net, "mean_squared_error", w=[np.nan, 0.0])


# --- beyond the range of the dtype -----------------------------------------------------------

UNITS = {name: loss.unit for name, loss in LOSSES.items() if getattr(loss, "unit", None)}


def overflowing(loss, dtype, columns=None, scaled=False):
    """A model that predicts small inputs and overflows on large ones."""
    outputs = outputs_for(LOSSES[loss], 2)
    net = Network(3, [Dense(8, "relu"), Dense(outputs, UNITS.get(loss, "identity"))])
    w = np.ones(net.parameters)
    scaling = Scaling(np.zeros(3), np.full(3, 0.5)) if scaled else None
    return Model(net, loss, w=w, dtype=dtype, columns=columns, input_scaling=scaling)


@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("given", [np.float32, np.float64])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("loss", LOSSES)
def test_what_is_predicted_is_finite_or_an_error_that_names_the_place(loss, dtype, given, scaled):
    model = overflowing(loss, dtype, ("a", "b", "c"), scaled)
    t = np.ones((4, 2)) if UNITS.get(loss) == "exp" else np.zeros((4, 2))
    t = np.array([0, 1, 0, 1]) if LOSSES[loss].targets == "classes" else t
    X = np.zeros((4, 3), given)
    for value in (1.0, 1e30, *(float(np.finfo(given).max) / share for share in (9.0, 3.0, 1.0))):
        X[2, 1] = value
        for answer in (model.predict, lambda X: model.evaluate(X, t)["loss"]):
            try:
                found, said = answer(X), ""
            except InputError as error:
                found, said = 0.0, str(error)
            assert np.isfinite(found).all()
            if said:
                assert re.search(r"row 2.* column 'b'|e\+[0-9]* in column 'b';|t: the loss", said)
                assert ("dtype float64" in said) == (dtype == "float32")
                assert value > 10 or UNITS.get(loss) == "exp"


def test_a_row_on_which_the_network_overflows_is_named(backend):
    model = overflowing("mean_squared_error", "float32").to(backend)
    X = np.zeros((9, 3), np.float32)
    X[4:6, 1] = 3e38
    said = r"X: the network overflows float32 on 2 of 9 rows, .* row 4, .* 3e\+38 in column 1;"
    for answer in (model.predict, lambda X: model.evaluate(X, np.zeros((9, 2)))):
        with pytest.raises(InputError, match=said):
            answer(X)


def test_targets_whose_loss_overflows_are_named():
    model = overflowing("mean_squared_error", "float32")
    t = np.zeros((4, 2))
    t[3, 1] = -1e30
    with pytest.raises(
        InputError, match=r"t: the loss .* row 3, column 1: -1e\+30, predicted as 9;"
    ):
        model.evaluate(np.zeros((4, 3)), t)


def test_a_column_too_large_to_be_scaled_is_named():
    with pytest.raises(InputError, match=r"column 1 has values too large to be scaled, as 1e\+300"):
        Scaling.standard(np.array([[1.0, 1e300], [2.0, 0.0]]))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("given", ["float32", "float64", "int64", "longdouble"])
def test_predictions_of_scaled_rows_have_the_bits_of_rows_that_were_scaled_before(dtype, given):
    """However many rows at once, and in whatever order the numbers of rows come."""
    X = (1e6 * np.random.default_rng(0).random((3000, 3))).astype(given)
    scaling, net = Scaling.standard(X), Network(3, [Dense(4, "tanh"), Dense(1)])
    model = Model(net, "mean_squared_error", dtype=dtype, seed=1, input_scaling=scaling)
    plain = Model(net, "mean_squared_error", dtype=dtype, seed=1)
    scaled = scaling.apply(X, dtype)
    for n in (1, 3000, 7, 1):
        assert (model.predict(X[:n]) == plain.predict(scaled[:n])).all()
        model.predict(np.zeros((n, 3), np.uint8))  # which goes another way, in the same place


def test_a_value_beyond_the_dtype_once_scaled_is_named_for_any_number_of_rows():
    scaling = Scaling(np.zeros(2), np.full(2, 1e-30))
    model = Model(Network(2, [Dense(1)]), "mean_squared_error", input_scaling=scaling)
    for n in (1, 5, 1):
        X = np.zeros((n, 2))
        assert model.predict(X).shape == (n, 1)
        X[-1, 1] = 1e10
        with pytest.raises(InputError, match=r"beyond the range of float32.* 1e\+10 in column 1"):
            model.predict(X)
