"""Arrays in, arrays out: every kind of X gives the same net, and answers where X lives."""

import copy
import importlib.util
import json
import os
import pickle
import subprocess
import sys

import joblib
import numpy as np
import pytest
import scipy.sparse
from conftest import present
from sklearn.base import clone
from sklearn.datasets import load_iris
from sklearn.utils import get_tags

import mlp
from backends import BackendError, get_backend
from mlp.data.finite import check_finite
from mlp.data.scaling import dtype_name
from mlp.estimators import lbfgs
from mlp.estimators.arrays import to_host

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

X, Y = load_iris(return_X_y=True)
KW = {"hidden_layer_sizes": (8,), "max_iter": 5, "random_state": 0, "batch_size": 32}
ON_BACKENDS = present("torch", "strict", "strict:device1", "cupy", "cupy:1")


def on(name):
    """A function that puts a NumPy array where backend ``name`` computes."""
    try:
        return get_backend(name).asarray
    except BackendError as error:
        pytest.skip(str(error))


def frames(kind):
    if kind in ("pandas", "polars"):
        library = pytest.importorskip(kind)
        return lambda x: library.DataFrame(dict(zip("abcd", x.T, strict=True)))
    return {
        "lists": lambda x: x.tolist(),
        "csr": scipy.sparse.csr_array,
        "csc": scipy.sparse.csc_matrix,
        "fortran": np.asfortranarray,
        "float32": lambda x: x.astype(np.float32),
        "integers": lambda x: (10 * x).astype(np.int64),
    }[kind]


@pytest.mark.parametrize("name", ON_BACKENDS)
@pytest.mark.parametrize("solver", ["adam", "sgd", "lbfgs"])
def test_data_on_a_device_are_trained_and_answered_there(name, solver):
    put = on(name)
    backend, Z = get_backend(name), put(X)
    expected = mlp.MLPClassifier(solver=solver, **KW).fit(X, Y)
    found = mlp.MLPClassifier(solver=solver, **KW).fit(Z, put(Y))
    for x in (*found.coefs_, *found.intercepts_):
        assert backend.owns(x)
    for method in ("predict", "predict_proba", "predict_log_proba"):
        answer = getattr(found, method)(Z)
        assert backend.owns(answer)
        np.testing.assert_allclose(
            to_host(answer), getattr(expected, method)(X), rtol=1e-6, atol=1e-9
        )
    assert all(backend.owns(a) for a in found.activations(Z))
    assert found.score(Z, put(Y)) == found.score(Z, Y) == expected.score(X, Y)
    # Host data afterwards, and a net from the host on device data.
    np.testing.assert_allclose(found.predict_proba(X), expected.predict_proba(X), rtol=1e-6)
    assert backend.owns(expected.predict(Z))


@pytest.mark.parametrize("name", ON_BACKENDS)
def test_regression_on_a_device(name):
    put = on(name)
    backend = get_backend(name)
    expected = mlp.MLPRegressor(early_stopping=True, **KW).fit(X[:, :3], X[:, 3])
    found = mlp.MLPRegressor(early_stopping=True, **KW).fit(put(X[:, :3]), put(X[:, 3]))
    assert backend.owns(found.predict(put(X[:, :3])))
    np.testing.assert_allclose(found.validation_scores_, expected.validation_scores_, rtol=1e-6)
    score = found.score(put(X[:, :3]), put(X[:, 3]))
    assert score == pytest.approx(expected.score(X[:, :3], X[:, 3]))


@pytest.mark.parametrize("name", present("strict:device1", "cupy"))
def test_X_never_comes_to_the_host(name, monkeypatch):
    """Only targets, answers and weights do. strict:device1 refuses implicit conversion as well."""
    put = on(name)
    backend, seen = get_backend(name), []
    real = type(backend).to_numpy

    def counting(self, x):
        seen.append(tuple(x.shape))
        return real(self, x)

    monkeypatch.setattr(type(backend), "to_numpy", counting)
    wide = np.hstack([X, X[:, :3]])  # 7 columns, which no layer has
    Z = put(wide)
    settings = {**KW, "early_stopping": True, "scoring": "f1_macro", "backend": "auto"}
    clf = mlp.MLPClassifier(**settings).fit(Z, Y, X_val=Z, y_val=Y)
    mlp.MLPClassifier(**{**settings, "scoring": None}).fit(Z, Y)
    clf.set_params(early_stopping=False).partial_fit(Z, Y)
    clf.predict(Z), clf.predict_proba(Z), clf.score(Z, Y), clf.activations(Z)
    of_X = [shape for shape in seen if len(shape) == 2 and shape[1] == 7]
    assert of_X == []


@pytest.mark.parametrize(
    "kind", ["lists", "pandas", "polars", "csr", "csc", "fortran", "float32", "integers"]
)
@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
@pytest.mark.parametrize("early", [False, True])
def test_data_on_the_host(kind, solver, early):
    Z = frames(kind)(X)
    same = np.asarray(Z.toarray() if hasattr(Z, "toarray") else Z)
    settings = {"solver": solver, "early_stopping": early, **KW}
    expected = mlp.MLPClassifier(**settings).fit(same, Y)
    found = mlp.MLPClassifier(**settings).fit(Z, Y)
    assert isinstance(found.predict(Z), np.ndarray)
    np.testing.assert_allclose(found.predict_proba(Z), expected.predict_proba(same), rtol=1e-6)
    if kind in ("pandas", "polars"):
        assert list(found.feature_names_in_) == list("abcd")


def test_string_labels_stay_on_the_host():
    put = on("strict:device1")
    names = np.array(["setosa", "versicolor", "virginica"])[Y]
    clf = mlp.MLPClassifier(**KW).fit(put(X), names)
    assert isinstance(clf.predict(put(X)), np.ndarray)
    assert set(clf.predict(put(X))) <= set(names)


@pytest.mark.parametrize("name", present("strict:device1", "torch"))
def test_a_named_backend_answers_in_the_callers_namespace(name):
    put = on(name)
    backend, Z = get_backend(name), put(X)
    clf = mlp.MLPClassifier(backend="numpy", **KW).fit(Z, Y)
    assert isinstance(clf.coefs_[0], np.ndarray)
    assert backend.owns(clf.predict(Z))
    assert backend.owns(clf.predict_proba(Z))
    assert backend.owns(clf.activations(Z)[0])
    on_device = mlp.MLPClassifier(backend=name, **KW).fit(X, Y)
    assert isinstance(on_device.predict_proba(X), np.ndarray)
    np.testing.assert_allclose(on_device.predict_proba(X), to_host(clf.predict_proba(Z)), rtol=1e-6)
    on_device.coefs_[0][:] = 0.0  # a host copy: editing it takes effect all the same
    clf.coefs_[0][:] = 0.0
    np.testing.assert_allclose(on_device.predict_proba(X), to_host(clf.predict_proba(Z)), rtol=1e-6)


def test_another_librarys_arrays_are_answered_in_kind():
    class Foreign:
        """What the standard asks of an array, as far as it is needed here."""

        device = "there"

        def __init__(self, x):
            self.x, self.shape, self.dtype, self.ndim = x, x.shape, x.dtype, x.ndim

        def __array__(self, dtype=None, copy=None):
            return np.array(self.x, dtype=dtype)

        def __len__(self):
            return len(self.x)

        def __array_namespace__(self):
            return Foreign

        @staticmethod
        def asarray(x, device):
            assert device == "there"
            return Foreign(x)

    clf = mlp.MLPClassifier(**KW).fit(Foreign(X), Y)
    assert isinstance(clf.predict_proba(Foreign(X)), Foreign)
    assert isinstance(clf.predict(Foreign(X)), Foreign)


@pytest.mark.parametrize("weighted", [False, True])
def test_sparse_rows_become_dense_a_chunk_at_a_time(weighted, monkeypatch):
    monkeypatch.setattr(lbfgs, "CHUNK_BYTES", 8 * X.shape[1] * 40)
    weights = None
    if weighted:
        weights = np.random.default_rng(0).uniform(0.5, 2, len(X))
        weights[:60] = 0.0
    settings = {**KW, "solver": "lbfgs", "alpha": 0.1}
    expected = mlp.MLPClassifier(**settings).fit(X, Y, weights)
    found = mlp.MLPClassifier(**settings).fit(scipy.sparse.csr_array(X), Y, weights)
    assert found.loss_ == pytest.approx(expected.loss_, rel=1e-9)
    np.testing.assert_allclose(found.coefs_[0], expected.coefs_[0], rtol=1e-6)


@pytest.mark.parametrize("name", ["numpy", *ON_BACKENDS])
@pytest.mark.parametrize("copied", ["pickle", "deepcopy", "joblib", "copy"])
def test_copies_are_whole(name, copied, tmp_path):
    """They predict and go on training as the original does; the arrays are on the host."""
    Z = on(name)(X)
    original = mlp.MLPClassifier(**KW).partial_fit(Z, Y, classes=np.unique(Y))
    if copied == "joblib":
        joblib.dump(original, tmp_path / "clf")
        other = joblib.load(tmp_path / "clf")
    else:
        copies = {
            "pickle": lambda e: pickle.loads(pickle.dumps(e)),
            "deepcopy": copy.deepcopy,
            "copy": copy.copy,
        }
        other = copies[copied](original)
    assert isinstance(other.coefs_[0], np.ndarray)
    before = other.predict_proba(X)
    original.partial_fit(Z, Y)
    np.testing.assert_array_equal(other.predict_proba(X), before)  # nothing is shared
    other.partial_fit(Z, Y)
    np.testing.assert_allclose(other.predict_proba(X), original.predict_proba(X), rtol=1e-9)
    assert not hasattr(clone(original), "coefs_")


@pytest.mark.parametrize("name", present("strict:device1", "cupy", "torch"))
def test_fitted_on_a_device_it_loads_without_its_library(name, tmp_path):
    Z = on(name)(X)
    clf = mlp.MLPClassifier(**KW).fit(Z, Y)
    (tmp_path / "clf.pickle").write_bytes(pickle.dumps(clf))
    np.save(tmp_path / "expected.npy", clf.predict_proba(X))
    code = """
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("cupy", "torch", "array_api_strict"):
            raise ImportError(f"{name} is not here")
sys.meta_path.insert(0, Blocked())
import pickle, numpy as np
from sklearn.datasets import load_iris
X, y = load_iris(return_X_y=True)
clf = pickle.load(open(sys.argv[1] + "/clf.pickle", "rb"))
np.testing.assert_allclose(clf.predict_proba(X), np.load(sys.argv[1] + "/expected.npy"), rtol=1e-6)
clf.partial_fit(X, y)
print(clf.score(X, y))
"""
    command = [sys.executable, "-c", code, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_wrong_input_on_a_device_is_named():
    put = on("strict:device1")
    clf = mlp.MLPClassifier(**KW).fit(put(X), Y)
    with pytest.raises(ValueError, match="X has 3 features, but MLPClassifier is expecting 4"):
        clf.predict(put(X[:, :3]))
    with pytest.raises(ValueError, match=r"expected \(rows, 0 columns\)|one row is"):
        clf.fit(put(X[0]), Y[:1])
    with pytest.raises(ValueError, match="NaN or infinite"):
        clf.fit(put(np.where(X > 7, np.nan, X)), Y)
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        clf.fit(put(X), Y[:-1])
    with pytest.raises(BackendError, match="did you mean 'cupy'"):
        mlp.MLPClassifier(backend="cupi", **KW).fit(X, Y)


def test_the_environment_names_the_backend(monkeypatch):
    on("strict")
    monkeypatch.setenv("MLP_BACKEND", "strict")
    clf = mlp.MLPClassifier(**KW).fit(X, Y)
    assert clf._engine.model.backend.name == "strict"
    assert isinstance(clf.predict(X), np.ndarray)


@pytest.mark.parametrize("name", ON_BACKENDS)
def test_two_classes_on_a_device(name):
    put = on(name)
    backend, two = get_backend(name), Y > 0
    expected = mlp.MLPClassifier(**KW).fit(X, two)
    found = mlp.MLPClassifier(**KW).fit(put(X), put(two))
    for method in ("predict", "predict_proba", "predict_log_proba"):
        answer = getattr(found, method)(put(X))
        assert backend.owns(answer)
        np.testing.assert_allclose(
            to_host(answer), getattr(expected, method)(X), rtol=1e-6, atol=1e-9
        )


def test_large_numbers_are_finite_though_their_sum_is_not():
    huge = np.full((4, 2), 3e38, np.float32)
    check_finite(huge, None, "X")
    huge[2, 1] = np.inf
    with pytest.raises(ValueError, match="1 of 4 rows has"):
        check_finite(huge, ["a", "b"], "X")


def test_a_model_takes_sparse_rows_a_chunk_at_a_time(monkeypatch):
    rows = scipy.sparse.random_array((500, 40), density=0.1, random_state=0, format="csc")
    model = mlp.Model(mlp.Network(40, [mlp.Dense(3, "tanh"), mlp.Dense(1)]), "mean_squared_error")
    monkeypatch.setattr(mlp.Model, "_chunk", lambda self: 64)
    np.testing.assert_allclose(model.predict(rows), model.predict(rows.toarray()), rtol=1e-6)
    bad = rows.tolil()
    bad[0, 0] = np.nan
    with pytest.raises(ValueError, match="1 values are not finite"):
        model.predict(bad.tocsr())


# ------------------------------------------------ scikit-learn's dispatch by the array API standard

# scikit-learn's own checks, with the arguments that it runs them with, in a process of their own:
# SciPy has to be told before it is imported. Prints [check, arguments, what became of it] of each.
CHECKS = """
import json, sys, traceback, warnings
from functools import partial
from unittest import SkipTest
import _pytest.outcomes
from sklearn.utils import estimator_checks
from sklearn.utils._array_api import yield_namespace_device_dtype_combinations as combinations
import mlp

warnings.simplefilter("ignore")
name = sys.argv[1]
checks = list(estimator_checks._yield_array_api_checks(getattr(mlp, name)()))
for namespace, device, dtype in combinations():
    given = {"array_namespace": namespace, "device_name": device}
    given |= {} if dtype is None else {"dtype_name": dtype}
    values = estimator_checks.check_array_api_input_and_values
    checks += [partial(values, check_sample_weight=w, **given) for w in (False, True)]
for settings in {}, {"solver": "lbfgs"}, {"early_stopping": True}:
    estimator = getattr(mlp, name)(max_iter=5, **settings)
    for check in checks:
        try:
            check(name, estimator)
            became = "passed"
        except (SkipTest, _pytest.outcomes.Skipped) as error:
            became = f"skipped: {error}"
        except Exception:
            became = traceback.format_exc()
        print(json.dumps([check.func.__name__, f"{settings} {check.keywords}", became]))
"""


def run_with_dispatch(code, *arguments):
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"SCIPY_ARRAY_API": "1"},
    )


@pytest.mark.parametrize("name", ["MLPClassifier", "MLPRegressor"])
def test_scikit_learns_array_api_checks_pass(name):
    done = run_with_dispatch(CHECKS, name)
    assert done.returncode == 0, done.stderr
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert [one for one in found if not one[2].startswith(("passed", "skipped"))] == []
    passed = {(check, said.replace("'", "")) for check, said, became in found if became == "passed"}
    for library in ("numpy", "array_api_strict", "torch"):
        if importlib.util.find_spec(library) is None:
            continue
        of = {check for check, said in passed if f"array_namespace: {library}" in said}
        assert {"check_array_api_input", "check_array_api_input_and_values"} <= of, library
    if importlib.util.find_spec("array_api_strict"):
        assert "check_array_api_same_namespace" in {check for check, _ in passed}
        if importlib.util.find_spec("torch"):
            assert "check_array_api_mixed_inputs" in {check for check, _ in passed}


WITH_DISPATCH = """
import sys, warnings
import numpy as np
from sklearn import config_context
from sklearn.datasets import load_iris
from sklearn.utils._array_api import get_namespace_and_device, move_estimator_to
import mlp
from backends import get_backend

warnings.simplefilter("ignore")
X, Y = load_iris(return_X_y=True)
here = get_backend(sys.argv[1])
Z, y = here.asarray(X), here.asarray(Y)
settings = {"max_iter": 3, "random_state": 0, "early_stopping": True, "scoring": "f1_macro"}
clf = mlp.MLPClassifier((8,), callbacks=[lambda clf: None], **settings)
METHODS = "predict", "predict_proba", "predict_log_proba", "activations", "score"

def refused(method, *arguments):
    try:
        getattr(clf, method)(*arguments)
    except ValueError as error:
        said = str(error)
        assert f"MLPClassifier.{method}() must use the same namespace and the same device" in said
        return True

with config_context(array_api_dispatch=True):
    clf.set_params(backend=sys.argv[2] or None).fit(Z, y)
    assert all(here.owns(x) for x in (*clf.coefs_, *clf.intercepts_))
    expected = here.to_numpy(clf.predict_proba(Z))
    for method in METHODS:
        assert refused(method, *((X, Y) if method == "score" else (X,)))
    xp, _, device = get_namespace_and_device(X)
    moved = move_estimator_to(clf, xp, device)      # the cure that the message names
    assert all(isinstance(x, np.ndarray) for x in (*moved.coefs_, *moved.intercepts_))
    np.testing.assert_allclose(moved.predict_proba(X), expected, rtol=1e-6)
    xp, _, device = get_namespace_and_device(Z)
    back = move_estimator_to(moved, xp, device)
    assert here.owns(back.predict(Z))
    np.testing.assert_allclose(here.to_numpy(back.predict_proba(Z)), expected, rtol=1e-6)
    back.set_params(early_stopping=False, scoring=None).partial_fit(Z, y)
    np.testing.assert_allclose(moved.predict_proba(X), expected, rtol=1e-6)  # shares nothing
    assert not hasattr(move_estimator_to(mlp.MLPClassifier(), xp, device), "coefs_")
assert isinstance(clf.predict(X), np.ndarray)       # without dispatch each goes
"""


@pytest.mark.parametrize("name", ON_BACKENDS)
@pytest.mark.parametrize("backend", ["", "numpy"])
def test_with_dispatch_the_net_lives_with_the_data(name, backend):
    """Whatever computes it; X from elsewhere is refused, and may be moved to."""
    on(name)
    done = run_with_dispatch(WITH_DISPATCH, name, backend)
    assert done.returncode == 0, done.stderr


def test_support_is_declared():
    for cls in (mlp.MLPClassifier, mlp.MLPRegressor):
        assert get_tags(cls()).array_api_support


@pytest.mark.parametrize("backend", [None, "strict:no_float64"])
@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
@pytest.mark.parametrize("cls", [mlp.MLPClassifier, mlp.MLPRegressor])
def test_a_device_without_float64_computes_in_float32(cls, solver, backend):
    """Integers, and the host's float64, are taken as float32 there."""
    put = on("strict:no_float64")
    whole, labels = (10 * X).astype(np.int64), Y + 0.0  # float64 labels, answered as float32
    Z = whole if backend else put(whole)
    settings = {"solver": solver, "backend": backend, **KW}
    found = cls(**settings).fit(Z, labels)
    expected = cls(**{**settings, "backend": "numpy", "dtype": "float32"}).fit(whole, labels)
    assert {dtype_name(x) for x in (*found.coefs_, *found.intercepts_)} == {"float32"}
    np.testing.assert_allclose(to_host(found.coefs_[0]), expected.coefs_[0], rtol=1e-4, atol=1e-5)
    answers = to_host(found.predict(Z))
    np.testing.assert_allclose(answers, expected.predict(whole), rtol=1e-4, atol=1e-4)
    wide = cls(**{**settings, "backend": "numpy"}).fit(X, Y)  # and a net of the host is
    narrow = to_host(wide.set_params(backend=backend).predict(put(X.astype(np.float32))))
    np.testing.assert_allclose(
        narrow, wide.set_params(backend="numpy").predict(X), rtol=1e-4, atol=1e-6
    )
    assert dtype_name(wide.activations(put(X.astype(np.float32)))[0]) == "float32"
