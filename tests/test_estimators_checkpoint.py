"""A fit that ends anywhere goes on when it is called again, bit for bit as if never stopped."""

import copy
import pickle
import warnings
from pathlib import Path

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import GridSearchCV

import mlp
from mlp import Checkpoints, InputError
from mlp.estimators.stochastic import Epochs
from mlp.formulas.optimizers import OPTIMIZERS
from mlp.locks import take
from tests.plants import damage

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

rng = np.random.default_rng(0)
X = rng.normal(size=(50, 3))
Y = np.array(["a", "b", "c"])[(X[:, 0] > 0).astype(int) + (X[:, 1] > 0.5)]
KW = {"hidden_layer_sizes": (5,), "max_iter": 6, "batch_size": 16, "random_state": 0}


def classifier(**settings):
    return mlp.MLPClassifier(**KW | settings)


def regressor(**settings):
    return mlp.MLPRegressor(**KW | settings)


class Ended(Exception):
    """Of a fit, by something outside it."""


def ended(estimator, step, *data, **more):
    """A fit that ends after so many steps, each of which was kept."""
    whole = Epochs._count_step

    def count(self, batches, steps):
        whole(self, batches, steps)
        if steps == step:
            raise Ended

    Epochs._count_step = count
    try:
        with pytest.raises(Ended):
            estimator.fit(*data, **more)
    finally:
        Epochs._count_step = whole
    assert not hasattr(estimator, "coefs_")


def same(found, expected):
    """All that a fit leaves, but for the objects that compute."""
    a, b = (vars(copy.deepcopy(x)) for x in (found, expected))
    assert set(a) == set(b)
    for name in set(a) - {"_random_state", "_label_binarizer", "checkpoint", "random_state"}:
        if name in ("coefs_", "intercepts_"):
            for x, y in zip(a[name], b[name], strict=True):
                np.testing.assert_array_equal(np.asarray(x), np.asarray(y))
        elif name == "_solver_state":
            x, y = (found._solver_state.as_dict(), expected._solver_state.as_dict())
            np.testing.assert_array_equal(x.pop("vectors"), y.pop("vectors"))
            assert x == y
        elif not name.startswith("_engine"):
            np.testing.assert_array_equal(a[name], b[name])
    draws = [copy.deepcopy(x._random_state).randint(2**30) for x in (found, expected)]
    assert draws[0] == draws[1]


KINDS = {
    **{
        f"solver {name}": (classifier, {"solver": name, "hidden_layer_sizes": (4, 3)})
        for name in OPTIMIZERS
    },
    "early stopping": (classifier, {"early_stopping": True, "validation_fraction": 0.2}),
    "a scorer": (classifier, {"early_stopping": True, "scoring": "f1_macro"}),
    "adaptive": (classifier, {"solver": "sgd", "learning_rate": "adaptive", "tol": 9.0,
                              "n_iter_no_change": 1}),
    "invscaling": (classifier, {"solver": "sgd", "learning_rate": "invscaling"}),
    "a schedule": (regressor, {"learning_rate": "cosine"}),
    "dropout": (classifier, {"dropout": 0.3}),
    "no shuffle": (regressor, {"shuffle": False, "loss": "poisson"}),
    "float32": (regressor, {"dtype": "float32"}),
    "class weights": (classifier, {"class_weight": "balanced"}),
    "converged": (classifier, {"tol": 9.0, "n_iter_no_change": 1}),
    "patience is endless": (classifier, {"n_iter_no_change": np.inf}),
    "a generator": (classifier, {"random_state": np.random.RandomState(3)}),
    "two layers": (regressor, {"hidden_layer_sizes": (4, 3), "activation": ["tanh", "elu"]}),
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_a_fit_goes_on_bit_for_bit(kind, tmp_path):
    make, settings = KINDS[kind]
    data = X, Y if make is classifier else np.abs(X[:, :2])
    expected = make(**copy.deepcopy(settings)).fit(*data)
    for step in (1, 4, 6):
        folder = tmp_path / str(step)
        one = make(**copy.deepcopy(settings), checkpoint=folder)
        ended(one, step, *data)
        again = make(**copy.deepcopy(settings), checkpoint=str(folder)).fit(*data)
        same(again, expected)
        done = make(**copy.deepcopy(settings), checkpoint=folder).fit(*data)  # at once
        same(done, expected)


def test_a_fit_ends_twice_and_has_a_set_to_watch_and_weights(backend, tmp_path):
    weights = rng.uniform(0.5, 2.0, size=50)
    more = {"sample_weight": weights, "X_val": X[:9] + 1.0, "y_val": Y[:9]}
    settings = {"dtype": "float32", "backend": backend}
    expected = classifier(**settings).fit(X, Y, **more)
    kept = classifier(**settings, checkpoint=Checkpoints(tmp_path, "2 steps", keep=3))
    ended(kept, 5, X, Y, **more)
    ended(kept, 11, X, Y, **more)
    same(kept.fit(X, Y, **more), expected)


def test_with_no_random_state_it_is_the_same_fit(tmp_path):
    """Numbers from NumPy's global generator between the fits make no difference."""
    one = classifier(random_state=None, early_stopping=True, checkpoint=tmp_path / "a")
    whole = one.fit(X, Y)
    Path(tmp_path / "b").mkdir()
    for path in Checkpoints(tmp_path / "a", keep=9).found():
        path.rename(tmp_path / "b" / path.name)
    np.random.random(7)  # noqa: NPY002
    same(classifier(**{**one.get_params(), "checkpoint": tmp_path / "b"}).fit(X, Y), whole)


def test_ctrl_c_and_callbacks_are_no_end(tmp_path):
    expected = classifier().fit(X, Y)

    def interrupt(estimator):
        if estimator.n_iter_ == 2:
            raise KeyboardInterrupt

    with pytest.warns(UserWarning, match="interrupted"):
        one = classifier(callbacks=[interrupt], checkpoint=tmp_path).fit(X, Y)
    assert one.n_iter_ == 2
    stop = [lambda estimator: estimator.n_iter_ >= 4]
    for _ in range(2):  # asked again where the fit stands
        assert one.set_params(callbacks=stop).fit(X, Y).n_iter_ == 4
    same(one.set_params(callbacks=None).fit(X, Y), expected)


def test_a_callback_that_raises_leaves_where_the_fit_stood(tmp_path):
    def fail(estimator):
        raise Ended

    with pytest.raises(Ended):
        classifier(callbacks=[fail], checkpoint=tmp_path).fit(X, Y)
    assert Checkpoints(tmp_path).newest().epoch == 1
    same(classifier(checkpoint=tmp_path).fit(X, Y), classifier().fit(X, Y))


def test_more_epochs_may_be_asked_for_and_not_less(tmp_path):
    classifier(checkpoint=tmp_path).fit(X, Y)
    same(classifier(max_iter=9, checkpoint=tmp_path).fit(X, Y), classifier(max_iter=9).fit(X, Y))
    with pytest.raises(InputError, match="holds 9 epochs of this fit, max_iter is 6"):
        classifier(checkpoint=tmp_path).fit(X, Y)
    cosine = classifier(learning_rate="cosine", checkpoint=tmp_path / "cosine").fit(X, Y)
    with pytest.raises(InputError, match="max_iter = 6 there, 9 now"):
        cosine.set_params(max_iter=9).fit(X, Y)


def test_it_says_that_the_epochs_did_not_suffice_each_time(tmp_path):
    for _ in range(2):
        with pytest.warns(ConvergenceWarning, match=r"\(6\) reached"):
            classifier(checkpoint=tmp_path).fit(X, Y)


OTHER = {
    "alpha = 0.0001 there, 0.1 now": ({"alpha": 0.1}, {}),
    "hidden_layer_sizes = [5] there, [6] now": ({"hidden_layer_sizes": 6}, {}),
    "random_state = 0 there, 1 now": ({"random_state": 1}, {}),
    "solver = 'adam' there, 'sgd' now": ({"solver": "sgd"}, {}),
    "callable": ({"learning_rate": lambda step, n: 1.0}, {}),
    "X has other values": ({}, {"X": X + 1}),
    "X was (50, 3) of float64, is (40, 3) of float64; y was": ({}, {"X": X[:40], "y": Y[:40]}),
    "X was (50, 3) of float64, is (50, 3) of float32": ({}, {"X": X.astype(np.float32)}),
    "y has other values": ({}, {"y": Y[::-1]}),
    "classes has other values": ({}, {"y": np.char.add(Y, "!")}),
    "sample_weight was not given": ({}, {"sample_weight": np.arange(1.0, 51.0)}),
    "X_val was not given": ({}, {"X_val": X[:9], "y_val": Y[:9]}),
}


def test_another_fit_is_refused_by_the_name_of_what_differs(tmp_path):
    ended(classifier(checkpoint=tmp_path), 5, X, Y)
    for message, (settings, data) in OTHER.items():
        expected = "learning_rate = 'constant' there" if message == "callable" else message
        with pytest.raises(InputError) as caught:
            classifier(**settings, checkpoint=tmp_path).fit(**{"X": X, "y": Y} | data)
        assert f"{tmp_path} holds another fit: " in str(caught.value)
        assert expected in str(caught.value)
    with pytest.raises(InputError, match="it is of an MLPClassifier"):
        regressor(checkpoint=tmp_path).fit(X, X[:, 0])
    for same_ in ({"hidden_layer_sizes": 5}, {"alpha": np.float64(0.0001)}, {"verbose": True}):
        classifier(**same_, checkpoint=tmp_path).fit(X, Y)


def test_a_folder_of_something_else_is_refused(tmp_path):
    model = mlp.Model(mlp.Network(3, [mlp.Dense(1)]), "mean_squared_error")
    mlp.train(model, X, X[:, 0], epochs=1, checkpoint=tmp_path)
    with pytest.raises(InputError, match="holds checkpoints that no fit has written"):
        classifier(checkpoint=tmp_path).fit(X, Y)
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot be written"):
        classifier(checkpoint=tmp_path / "file").fit(X, Y)
    lock = take(tmp_path)
    with pytest.raises(InputError, match="is written to by another program"):
        classifier(checkpoint=tmp_path).fit(X, Y)
    lock.let_go()


@pytest.mark.parametrize(
    ("settings", "call", "message"),
    [
        ({"solver": "lbfgs"}, "fit", "checkpoint needs a stochastic solver, as 'adam'"),
        ({"warm_start": True}, "fit", "warm_start=True begins with the weights in the estimator"),
        ({}, "partial_fit", "checkpoint keeps a fit, partial_fit leaves nothing in a folder"),
        ({"checkpoint": ""}, "fit", "name a folder that is theirs alone"),
        ({"checkpoint": "a\0b"}, "fit", "a path holds no NUL"),
    ],
)
def test_what_cannot_go_on_is_refused(settings, call, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=message):
        getattr(regressor(**{"checkpoint": "kept"} | settings), call)(X, X[:, 0])
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_checkpoint_is_named_and_the_one_before_is_used(tmp_path):
    expected = classifier().fit(X, Y)
    kept = Checkpoints(tmp_path, "1 step", keep=2)
    ended(classifier(checkpoint=kept), 9, X, Y)
    newest = kept.found()[0]
    damage(newest, 1)
    with pytest.warns(UserWarning, match=f"{newest.name}.*; the checkpoint before it is used"):
        same(classifier(checkpoint=kept).fit(X, Y), expected)


def test_what_the_disk_refuses_is_one_warning(tmp_path, monkeypatch):
    def refuses(*given):
        raise OSError(28, "No space left on device")

    def full(estimator):
        monkeypatch.setattr("os.replace", refuses)

    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        one = classifier(checkpoint=Checkpoints(tmp_path, "1 step"), callbacks=[full]).fit(X, Y)
    monkeypatch.undo()
    assert [w for w in said if "no checkpoint could be written" in str(w.message)] != []
    same(one.set_params(callbacks=None), classifier().fit(X, Y))


def test_scikit_learns_contracts_hold(tmp_path):
    one = classifier(checkpoint=Checkpoints(tmp_path / "a", "1 step"))
    assert clone(one).get_params() == one.get_params()
    one.fit(X, Y)
    assert pickle.loads(pickle.dumps(one)).checkpoint == one.checkpoint
    one.save(tmp_path / "m.safetensors")  # where to write is not for a file to say
    assert mlp.MLPClassifier.load(tmp_path / "m.safetensors").checkpoint is None
    search = {"param_grid": {"alpha": [0.1, 0.2]}, "cv": 2, "error_score": "raise"}
    with pytest.raises(InputError, match="in a search every fit needs one of its own"):
        GridSearchCV(classifier(checkpoint=tmp_path / "b"), **search).fit(X, Y)
    found = GridSearchCV(classifier(), **search).fit(X, Y).best_estimator_
    kept = clone(found).set_params(checkpoint=tmp_path / "c").fit(X, Y)
    same(kept, found)
