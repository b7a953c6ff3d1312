"""Estimators and models are one thing: each becomes the other, by a file or without."""

import json
import math
import pickle

import numpy as np
import pytest
from conftest import present
from safetensors import safe_open
from safetensors.numpy import save_file
from sklearn.base import is_classifier
from sklearn.datasets import load_iris, make_multilabel_classification

import mlp
from backends import get_backend
from mlp.estimators.models import RECORDS, plain, unplain
from mlp.formulas.activations import ACTIVATIONS, Elu, LeakyRelu, learned
from mlp.formulas.losses import LOSSES
from mlp.formulas.optimizers import OPTIMIZERS
from mlp.formulas.schedules import SCHEDULES

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

X, Y = load_iris(return_X_y=True)
XL, YL = make_multilabel_classification(80, 6, n_classes=3, random_state=0)
KW = {"hidden_layer_sizes": (8, 6), "max_iter": 4, "random_state": 0, "batch_size": 32}
C, R = "MLPClassifier", "MLPRegressor"
TASKS = {
    "binary": (C, X, Y > 0),
    "multi-class": (C, X, Y),
    "multi-label": (C, XL, YL),
    "one class": (C, X, np.zeros(len(X), int)),
    "text": (C, X, np.array(["setosa", "versicolor", "virginica"])[Y]),
    "objects": (C, X, np.array(["a", "b", "c"], dtype=object)[Y]),
    "float labels": (C, X, Y.astype(np.float32)),
    "small integers": (C, X, (Y - 1).astype(np.int8)),
    "regression": (R, X[:, :3], X[:, 3]),
    "multi-output": (R, X[:, :2], X[:, 2:]),
}


def answers(estimator, rows):
    """Everything it says about the rows."""
    methods = ("predict", "predict_proba", "activations")
    return [getattr(estimator, m)(rows) for m in methods if hasattr(estimator, m)]


def assert_same(found, expected, rows, but=()):
    """The same parameters, records and answers, bit for bit."""
    given, wanted = found.get_params(), expected.get_params()
    assert {k: v for k, v in given.items() if k not in but} == {
        k: v for k, v in wanted.items() if k not in but
    }
    for a, b in zip(answers(found, rows), answers(expected, rows), strict=True):
        for p, q in zip(a, b, strict=True):
            np.testing.assert_array_equal(p, q)
            assert np.asarray(p).dtype == np.asarray(q).dtype
    public = {k for k in vars(expected) if k.endswith("_") and not k.endswith("__")}
    assert public == {k for k in vars(found) if k.endswith("_") and not k.endswith("__")}
    for name in public - {"coefs_", "intercepts_"}:
        a, b = getattr(found, name), getattr(expected, name)
        if isinstance(b, mlp.Scaling):
            a, b = (np.stack([scaling.shift, scaling.scale]) for scaling in (a, b))
        np.testing.assert_array_equal(a, b, err_msg=name)
        assert type(a) is type(b), name
        assert getattr(a, "dtype", None) == getattr(b, "dtype", None), name


# ------------------------------------------------------------------------- there and back again


@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
@pytest.mark.parametrize("dtype", [None, "float32"])
@pytest.mark.parametrize("task", TASKS)
def test_a_file_gives_the_estimator_back(task, dtype, solver, tmp_path):
    name, rows, y = TASKS[task]
    early = task == "binary" and solver == "adam"
    estimator = getattr(mlp, name)(solver=solver, dtype=dtype, early_stopping=early, **KW)
    estimator.fit(rows, y).save(tmp_path / "net")
    loaded = getattr(mlp, name).load(tmp_path / "net")
    assert_same(loaded, estimator, rows)
    assert_same(mlp.to_estimator(tmp_path / "net"), estimator, rows)
    assert_same(pickle.loads(pickle.dumps(loaded)), estimator, rows)
    assert repr(loaded) == repr(estimator)
    if solver == "adam":
        loaded.set_params(early_stopping=False).partial_fit(rows, y)
        assert loaded.t_ == estimator.t_ + len(rows)
    loaded.set_params(warm_start=True, early_stopping=False).fit(rows, y)
    assert_same(loaded.set_params(**estimator.get_params()).fit(rows, y), estimator, rows)


@pytest.mark.parametrize("task", TASKS)
def test_the_file_is_a_model_that_predicts_the_same(task, tmp_path):
    name, rows, y = TASKS[task]
    estimator = getattr(mlp, name)(**KW).fit(rows, y)
    estimator.save(tmp_path / "net")
    model = mlp.load_model(tmp_path / "net")
    outputs = model.predict(rows)
    if name == R:
        np.testing.assert_array_equal(np.squeeze(outputs), estimator.predict(rows))
        return
    np.testing.assert_array_equal(outputs, estimator.predict_proba(rows)[:, -outputs.shape[1] :])
    np.testing.assert_array_equal(model.classify(rows), estimator.predict(rows))


@pytest.mark.parametrize("name", present("strict:device1", "torch", "cupy"))
def test_from_one_backend_to_another(name, tmp_path):
    put = get_backend(name).asarray
    estimator = mlp.MLPClassifier(**KW).fit(put(X), Y)
    estimator.save(tmp_path / "net")
    here = mlp.MLPClassifier.load(tmp_path / "net")
    assert isinstance(here.coefs_[0], np.ndarray)
    np.testing.assert_allclose(here.predict_proba(X), estimator.predict_proba(X), rtol=1e-6)
    there = mlp.MLPClassifier.load(tmp_path / "net", backend=name)
    assert there.backend == name
    np.testing.assert_allclose(there.predict_proba(X), here.predict_proba(X), rtol=1e-6)
    assert there._engine.model.backend.name == get_backend(name).name


def test_names_of_columns_come_along(tmp_path):
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(X, columns=list("abcd"))
    estimator = mlp.MLPClassifier(**KW).fit(frame, Y)
    estimator.save(tmp_path / "net")
    loaded = mlp.MLPClassifier.load(tmp_path / "net")
    assert_same(loaded, estimator, frame)
    assert mlp.load_model(tmp_path / "net").columns == ("a", "b", "c", "d")
    with pytest.raises(ValueError, match="feature names should match"):
        loaded.predict(frame[["b", "a", "c", "d"]])


SETTINGS = [
    *({"activation": name} for name, f in ACTIVATIONS.items() if not learned(f, 1)),
    *({"solver": name} for name in OPTIMIZERS),
    *({"learning_rate": name, "solver": "momentum"} for name in SCHEDULES),
    *({"loss": name} for name in LOSSES if name not in ("gaussian", "ordinal")),
    {"loss": {"name": "binary_cross_entropy", "pos_weight": [1.0]}},
    {"activation": ["tanh", {"name": "leaky_relu", "slope": 0.2}], "dropout": [0.0, 0.25]},
    {"solver": {"name": "adamw"}, "n_iter_no_change": math.inf, "hidden_layer_sizes": [3, 2]},
    {"learning_rate": "invscaling", "solver": "sgd", "momentum": 0.5, "dtype": "float64"},
    {"class_weight": {0: 1.0, 1: 2.0, 2: 0.5}, "hidden_layer_sizes": ()},
    {"class_weight": "balanced", "hidden_layer_sizes": 5, "dropout": 0.1},
    {"early_stopping": True, "scoring": "f1_macro", "warm_start": True},
]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_every_parameter_that_is_data_comes_back(settings, tmp_path):
    y = Y
    cls = mlp.MLPClassifier
    loss = settings.get("loss")
    name = loss["name"] if isinstance(loss, dict) else loss
    kind = getattr(LOSSES.get(name), "targets", None)
    if kind == "labels":
        y = Y > 0
    elif kind in ("numbers", "counts"):
        y, cls = np.stack([Y + 1.0, Y + 2.0], axis=1), mlp.MLPRegressor
    estimator = cls(**{**KW, **settings}).fit(X, y)
    estimator.save(tmp_path / "net")
    assert_same(cls.load(tmp_path / "net"), estimator, X)


def test_objects_of_the_library_come_back_by_name(tmp_path):
    estimator = mlp.MLPClassifier(activation=[LeakyRelu(0.2), Elu()], **KW).fit(X, Y)
    estimator.set_params(solver=OPTIMIZERS["rmsprop"]()).save(tmp_path / "net")
    loaded = mlp.MLPClassifier.load(tmp_path / "net")
    assert loaded.activation == [{"name": "leaky_relu", "slope": 0.2}, "elu"]
    assert loaded.solver["name"] == "rmsprop"
    assert_same(loaded, estimator, X, but=("activation", "solver"))


def test_what_is_code_is_left_out(tmp_path):
    own = {
        "callbacks": [lambda estimator: None],
        "random_state": np.random.RandomState(0),
        "learning_rate": lambda step, steps_per_epoch: 1.0,
        "scoring": lambda estimator, X, y: 1.0,
        "early_stopping": True,
    }
    estimator = mlp.MLPClassifier(**{**KW, **own}).fit(X, Y)
    estimator.save(tmp_path / "net")
    loaded = mlp.MLPClassifier.load(tmp_path / "net")
    usual = mlp.MLPClassifier()
    for name in ("callbacks", "random_state", "learning_rate", "scoring"):
        assert getattr(loaded, name) == getattr(usual, name)
    assert_same(loaded, estimator, X, but=own)


class OwnTanh:
    def f(self, xp, z):
        return xp.tanh(z)

    def df(self, xp, v, z, a):
        return v * (1.0 - a * a)


class OwnLoss:
    def cost(self, xp, y, t):
        return (y - t) * (y - t)

    def derivative(self, xp, y, t):
        return 2.0 * (y - t)


@pytest.mark.parametrize(
    ("settings", "y", "said"),
    [
        ({"activation": OwnTanh()}, Y, "activation <.*OwnTanh.* is an object of your own"),
        ({"loss": OwnLoss()}, Y, "loss <.*OwnLoss.* is an object of your own"),
        ({}, np.array(["2024-01-01", "2025-01-01"], "M8[D]")[Y % 2], "datetime64.*cannot hold"),
        ({}, np.array([b"x", b"y", b"z"])[Y], "class b'x' is of dtype .*S1.*cannot hold"),
    ],
)
def test_what_no_file_can_hold_is_refused(settings, y, said, tmp_path):
    estimator = mlp.MLPClassifier(**{**KW, **settings})
    try:
        estimator.fit(X, y)
    except (TypeError, ValueError) as error:  # some scikit-learn takes no such labels at all
        pytest.skip(f"not a label: {error}")
    with pytest.raises(ValueError, match=said):
        estimator.save(tmp_path / "net")
    assert list(tmp_path.iterdir()) == []


def test_an_unfitted_estimator_is_not_saved(tmp_path):
    with pytest.raises(ValueError, match="not fitted yet"):
        mlp.MLPClassifier().save(tmp_path / "net")


@pytest.mark.parametrize(
    "value",
    [None, True, 3, "x", 0.1, math.inf, -math.inf, (1, (2,)), [], {}, {"a": {0: (1.5, None)}}],
    ids=repr,
)
def test_plain_data_survive_json(value):
    text = json.dumps(plain(value), allow_nan=False)
    found = unplain(json.loads(text))
    assert found == value
    assert type(found) is type(value)
    assert math.isnan(unplain(json.loads(json.dumps(plain(math.nan), allow_nan=False))))


# ------------------------------------------------------------------------- files that do not fit


def altered(path, change):
    """The file with its header changed, as of a writer that adds no checksum."""
    with safe_open(path, framework="numpy") as file:
        metadata, names = file.metadata(), list(file.keys())
        tensors = {name: file.get_tensor(name) for name in names}
    about = json.loads(metadata["about"])
    change(about)
    save_file(tensors, path, {"format": metadata["format"], "about": json.dumps(about)})


def rename(about, old, new):
    about["beside"]["parameters"][new] = about["beside"]["parameters"].pop(old)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda a: a["beside"].pop("parameters"), "net is damaged or of another version"),
        (lambda a: a["beside"].pop("estimator"), "net is damaged or of another version"),
        (lambda a: a["beside"]["records"].update(t_={"x": 1, "y": 2}), "net is damaged or of"),
        (lambda a: a["beside"]["parameters"].update(other=1), "net is damaged or of another"),
        (lambda a: rename(a, "alpha", "alfa"), "net is damaged or of another version"),
        (
            lambda a: a["beside"]["parameters"].update(activation="tanh"),
            "net: the parameters of the estimator are not those of the net",
        ),
        (
            lambda a: a["beside"]["classes"].update(values=[0, 1]),
            "net: the model has 3 outputs for 2 classes",
        ),
        (lambda a: a["beside"]["classes"].update(kind="other"), "net is damaged or of another"),
        (lambda a: a["beside"].update(estimator="MLPRegressor"), "holds an MLPRegressor"),
    ],
)
def test_a_file_that_does_not_fit_is_refused(change, said, tmp_path):
    path = tmp_path / "net"
    mlp.MLPClassifier(**KW).fit(X, Y).save(path)
    altered(path, change)
    with pytest.raises(ValueError, match=said):
        mlp.MLPClassifier.load(path)


def test_the_other_class_is_named(tmp_path):
    mlp.MLPRegressor(**KW).fit(X, Y).save(tmp_path / "net")
    with pytest.raises(ValueError, match=r"an MLPRegressor: MLPRegressor\.load reads it"):
        mlp.MLPClassifier.load(tmp_path / "net")
    (tmp_path / "net").write_bytes(b"no")
    with pytest.raises(ValueError, match="net is damaged or no safetensors file"):
        mlp.MLPRegressor.load(tmp_path / "net")
    with pytest.raises(ValueError, match="missing is not there"):
        mlp.to_estimator(tmp_path / "missing")


# ------------------------------------------------------------------------- models of any origin


def scaled(net, loss, targets=None, **options):
    """A model with a scaling of its inputs, which are far from 0, and maybe of its targets."""
    target_scaling = None if targets is None else mlp.Scaling.standard(targets)
    input_scaling = mlp.Scaling.standard(FAR)
    return mlp.Model(
        net, loss, seed=1, input_scaling=input_scaling, target_scaling=target_scaling, **options
    )


FAR = X + np.array([1e6, -3e5, 0.0, 1e-3])
ONE = FAR[:, :1] * 1e-3
DEEP = (mlp.Dense(5, "tanh", dropout=0.25), mlp.Dense(4, "leaky_relu", l2=0.1))
NAMES = np.array(["setosa", "versicolor", "virginica"])


def chain(outputs, activation="identity"):
    return mlp.Network(4, [*DEEP, mlp.Dense(outputs, activation)])


MODELS = {
    "numbers": lambda: scaled(chain(1), "mean_squared_error"),
    "scaled targets": lambda: scaled(chain(1), "mean_squared_error", ONE),
    "many scaled targets": lambda: scaled(chain(4), "half_squared_error", FAR),
    "counts": lambda: scaled(chain(2, "exp"), "poisson"),
    "counts by their loss": lambda: scaled(chain(2), "poisson"),
    "float64": lambda: scaled(chain(1), "mean_squared_error", ONE, dtype="float64"),
    "an output unit": lambda: scaled(chain(2, "tanh"), {"name": "mean_squared_error"}),
    "classes": lambda: scaled(chain(3, "softmax"), "cross_entropy", classes=NAMES),
    "class numbers": lambda: scaled(chain(3), "cross_entropy"),
    "two classes on two outputs": lambda: scaled(chain(2, "softmax"), "cross_entropy"),
    "two classes on one output": lambda: scaled(
        chain(1, "sigmoid"), "binary_cross_entropy", classes=["no", "yes"]
    ),
    "labels": lambda: scaled(chain(3, "sigmoid"), "binary_cross_entropy"),
    "no hidden layer": lambda: mlp.Model(
        mlp.Network(4, [mlp.Dense(3, "softmax", l2=0.5)]), "cross_entropy", shared_penalties=True
    ),
    "columns": lambda: mlp.Model(chain(1), "mean_squared_error", columns=tuple("abcd")),
}
COURSE = {
    "a course net": lambda: scaled(chain(3, "sigmoid"), "half_squared_error", classes=NAMES),
    "one output": lambda: scaled(chain(1, "sigmoid"), "half_squared_error", classes=[3, 7]),
}


def rows_for(model):
    """FAR, with its names where the model knows them."""
    if model.columns is None:
        return FAR
    return pytest.importorskip("pandas").DataFrame(FAR, columns=list(model.columns))


@pytest.mark.parametrize("case", [*MODELS, *COURSE])
@pytest.mark.parametrize("way", ["model", "file", "folder", "load"])
def test_an_estimator_of_a_model_predicts_what_it_does(case, way, tmp_path):
    model = {**MODELS, **COURSE}[case]()
    path = tmp_path / "model.safetensors"
    if way != "model":
        mlp.save_model(model, path)
    estimator = mlp.to_estimator({"model": model, "file": path, "folder": tmp_path}.get(way, path))
    if way == "load":
        estimator = type(estimator).load(str(path))
    rows = rows_for(model)
    outputs = model.predict(FAR)
    if is_classifier(estimator):
        shares = estimator.predict_proba(rows)
        np.testing.assert_array_equal(shares[:, -outputs.shape[1] :], outputs)
        np.testing.assert_array_equal(estimator.predict(rows), model.classify(FAR))
    else:
        np.testing.assert_array_equal(estimator.predict(rows), np.squeeze(outputs))
        assert estimator.predict(rows).dtype == outputs.dtype
    assert len(np.unique(estimator.activations(rows)[0] if case != "no hidden layer" else 1)) > 0


@pytest.mark.parametrize("case", [*MODELS, *COURSE])
def test_it_is_a_whole_estimator(case, tmp_path):
    """It is saved and pickled, goes on by partial_fit in its own units, and may be fitted anew."""
    model = {**MODELS, **COURSE}[case]()
    estimator, rows = mlp.to_estimator(model), rows_for(model)
    if is_classifier(estimator):
        rng = np.random.default_rng(0)
        labels = estimator._label_binarizer.y_type_.startswith("multilabel")
        y = rng.integers(0, 2, (len(X), 3)) if labels else rng.choice(estimator.classes_, len(X))
    else:
        y = FAR[:, : estimator.n_outputs_] * 1e-3
        y = np.abs(y) if "counts" in case else y
        y = np.squeeze(y)
    estimator.save(tmp_path / "net")
    loaded = type(estimator).load(tmp_path / "net")
    assert_same(loaded, estimator, rows)
    assert_same(pickle.loads(pickle.dumps(estimator)), estimator, rows)
    for again in (mlp.load_model(tmp_path / "net"), mlp.to_estimator(tmp_path / "net")):
        expected = model if isinstance(again, mlp.Model) else estimator
        np.testing.assert_array_equal(again.predict(rows), expected.predict(rows))
    before = estimator.predict(rows)
    estimator.set_params(learning_rate_init=1e-12)
    estimator.partial_fit(rows, y)
    np.testing.assert_allclose(
        *(np.asarray(p, float) if p.dtype.kind != "U" else p == p[0] for p in (
            estimator.predict(rows), before)), rtol=1e-5,
    )  # fmt: skip
    estimator.set_params(warm_start=True, early_stopping=True, max_iter=2).fit(rows, y)
    assert np.isfinite(estimator.validation_scores_).all()
    estimator.set_params(early_stopping=False, solver="lbfgs", dropout=0.0).fit(rows, y)
    assert np.isfinite(estimator.loss_)
    estimator.set_params(solver="sgd", warm_start=False, random_state=0)
    fresh = type(estimator)(**estimator.get_params())
    assert_same(estimator.fit(X, y), fresh.fit(X, y), X)


def test_training_goes_on_in_the_units_of_the_model():
    """One step of partial_fit is one of the model's own training, scalings and all."""
    y = FAR[:, 0] * 1e-3
    net = mlp.Network(4, [mlp.Dense(5, "tanh"), mlp.Dense(1)])
    model = scaled(net, "half_mean_squared_error", ONE, dtype="float64")
    estimator = mlp.to_estimator(model).set_params(
        solver={"name": "momentum"}, learning_rate_init=0.1, batch_size=len(X), shuffle=False
    )
    result = mlp.train(
        model, FAR, y, optimizer="momentum", learning_rate=0.1, epochs=1, batch_size=None
    )
    estimator.partial_fit(FAR, y)
    assert not np.array_equal(result.model.predict(FAR), model.predict(FAR))
    np.testing.assert_allclose(estimator.predict(FAR), result.model.predict(FAR)[:, 0], rtol=1e-12)


def test_a_scaled_model_keeps_the_digits_of_its_inputs():
    """Folded into the first layer, the shift would be taken off after X is rounded to float32."""
    seconds = 1.7e9 + np.arange(3600.0)[:, None]
    net = mlp.Network(1, [mlp.Dense(8, "tanh"), mlp.Dense(1)])
    model = mlp.Model(net, "mean_squared_error", input_scaling=mlp.Scaling.standard(seconds))
    found = mlp.to_estimator(model).predict(seconds)
    np.testing.assert_array_equal(found, model.predict(seconds)[:, 0])
    assert len(np.unique(found)) > 3000


def test_a_result_of_training_becomes_an_estimator():
    result = mlp.train(MODELS["classes"](), FAR, Y, epochs=2)
    estimator = mlp.to_estimator(result)
    np.testing.assert_array_equal(
        estimator.predict(FAR), NAMES[Y * 0 + estimator.predict_proba(FAR).argmax(1)]
    )
    np.testing.assert_array_equal(estimator.predict_proba(FAR), result.model.predict(FAR))


def test_the_backend_of_a_model_is_kept_and_may_be_chosen(tmp_path):
    pytest.importorskip("array_api_strict")
    model = MODELS["numbers"]().to("strict")
    assert mlp.to_estimator(model).backend == "strict"
    assert mlp.to_estimator(model, backend="numpy").backend == "numpy"
    mlp.save_model(model, tmp_path / "net")
    assert mlp.to_estimator(tmp_path / "net").backend is None
    assert mlp.to_estimator(tmp_path / "net", backend="strict").backend == "strict"


@pytest.mark.parametrize(
    ("layers", "loss", "said"),
    [
        ([mlp.Dense(3), mlp.Dense(1, sources=(0, 1))], None, "layer 2 is fed by layer 0 and layer"),
        ([mlp.Dense(3, bias=False), mlp.Dense(1)], None, "layer 1 has no bias"),
        ([mlp.Dense(3), mlp.Dropout(0.5), mlp.Dense(1)], None, "layer 2 is a Dropout"),
        ([mlp.Dense(3, OwnTanh()), mlp.Dense(1)], None, "activation <.*is an object of your own"),
        ([mlp.Dense(3), mlp.Dense(1, OwnTanh())], None, "activation <.*is an object of your own"),
        ([mlp.Dense(1)], OwnLoss(), "loss <.*is an object of your own"),
    ],
)
def test_a_net_that_no_estimator_has_is_refused_by_name(layers, loss, said):
    model = mlp.Model(mlp.Network(2, layers), loss or "mean_squared_error")
    with pytest.raises(mlp.InputError, match=said):
        mlp.to_estimator(model)


def test_what_is_no_model_is_refused(tmp_path):
    with pytest.raises(mlp.InputError, match=r"to_estimator takes a Model, a Result.*not dict"):
        mlp.to_estimator({})
    mlp.save_model(MODELS["numbers"](), tmp_path / "net")
    with pytest.raises(mlp.InputError, match=r"net: the model's outputs are numbers, not classes"):
        mlp.MLPClassifier.load(tmp_path / "net")
    estimator = mlp.to_estimator(MODELS["numbers"]())
    with pytest.raises(mlp.InputError, match=r"has the input_scaling_ or target_scaling_ of a"):
        estimator.to_sklearn()


@pytest.mark.parametrize("case", ["columns", "no hidden layer"])
def test_without_scalings_it_goes_on_to_scikit_learn(case):
    model = MODELS[case]() if case == "no hidden layer" else mlp.Model(
        mlp.Network(4, [mlp.Dense(3, "tanh"), mlp.Dense(1)]), "mean_squared_error"
    )  # fmt: skip
    estimator = mlp.to_estimator(model)
    np.testing.assert_allclose(estimator.to_sklearn().predict(X), estimator.predict(X), rtol=1e-5)


def test_settings_that_mean_the_same_are_taken_along():
    estimator = mlp.to_estimator(MODELS["no hidden layer"]())
    assert (estimator.hidden_layer_sizes, estimator.alpha, estimator.loss) == ((), 0.5, "log_loss")
    estimator = mlp.to_estimator(MODELS["numbers"]())
    assert estimator.activation == ["tanh", "leaky_relu"]
    assert estimator.dropout == [0.25, 0.0]
    assert estimator.alpha == mlp.MLPRegressor().alpha  # other penalties are not scikit-learn's
    net = mlp.Network(2, [mlp.Dense(3, "sigmoid"), mlp.Dense(2, "sigmoid"), mlp.Dense(1)])
    estimator = mlp.to_estimator(mlp.Model(net, "half_squared_error"))
    assert (estimator.activation, estimator.dropout, estimator.alpha) == ("logistic", 0.0, 0.0)
    assert estimator.loss == "squared_error"
    assert set(RECORDS) - {"loss_"} <= vars(estimator).keys()


# ----------------------------------------------------------------------------- whole numbers


WHOLE = {
    "hidden_layer_sizes": 6,
    "batch_size": 30,
    "max_iter": 4,
    "n_iter_no_change": 2,
    "max_fun": 50,
    "random_state": 3,
}


@pytest.mark.parametrize("kind", [np.int64, np.int32, np.uint8])
@pytest.mark.parametrize(
    "settings",
    [
        {"solver": "adam"},
        {"solver": "lbfgs"},
        {"learning_rate": "cosine"},
        {"learning_rate": {"name": "step", "every": 2}},
        {"learning_rate": {"name": "cosine", "epochs": 4}},
    ],
    ids=str,
)
def test_numpys_whole_numbers_are_whole_numbers(settings, kind, tmp_path):
    def spoken(value):
        return kind(value) if isinstance(value, int) else value

    theirs = {name: spoken(value) for name, value in WHOLE.items()}
    rate = settings.get("learning_rate")
    if isinstance(rate, dict):
        rate = {name: spoken(value) for name, value in rate.items()}
    theirs |= {**settings, "learning_rate": rate or "constant"}
    expected = mlp.MLPClassifier(**WHOLE, **settings).fit(X, Y)
    estimator = mlp.MLPClassifier(**theirs)
    assert estimator.get_params() == mlp.MLPClassifier(**WHOLE, **settings).get_params()
    assert all(type(getattr(estimator, name)) is kind for name in WHOLE)  # as they were given
    np.testing.assert_array_equal(estimator.fit(X, Y).coefs_[0], expected.coefs_[0])
    several = estimator.set_params(hidden_layer_sizes=(kind(3), kind(2)), class_weight={kind(0): 1})
    several.fit(X, Y).save(tmp_path / "net")
    loaded = mlp.MLPClassifier.load(tmp_path / "net")
    assert loaded.hidden_layer_sizes == (3, 2)
    assert loaded.get_params() == several.get_params()
