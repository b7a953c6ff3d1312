"""The estimators' `fit` on several ranks: what one process comes to, and one decision by all."""

import numpy as np
import pytest

import mlp
from mlp.errors import InputError
from tests.thread_group import on_ranks

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

rng = np.random.default_rng(0)
X = rng.normal(size=(43, 4))
Y = np.array(["a", "b", "c"])[(X[:, 0] > 0).astype(int) + (X[:, 1] > 0.5)]
WEIGHTS = rng.uniform(0.5, 2.0, 43)
KW = {"hidden_layer_sizes": (5,), "max_iter": 4, "batch_size": 8, "random_state": 0}


def classifier(**settings):
    return mlp.MLPClassifier(**KW | settings)


def regressor(**settings):
    return mlp.MLPRegressor(**KW | settings)


CASES = {
    "adam": (classifier, {}, {}),
    "sgd, adaptive": (classifier, {"solver": "sgd", "learning_rate": "adaptive", "tol": 9.0,
                                   "n_iter_no_change": 1}, {}),
    "lion": (regressor, {"solver": "lion"}, {}),
    "early stopping": (classifier, {"early_stopping": True, "validation_fraction": 0.2}, {}),
    "converged": (classifier, {"tol": 9.0, "n_iter_no_change": 1}, {}),
    "dropout": (classifier, {"dropout": 0.3}, {}),
    "no shuffle": (regressor, {"shuffle": False, "loss": "poisson"}, {}),
    "weights": (classifier, {"class_weight": "balanced"}, {"sample_weight": WEIGHTS}),
    "a set to watch": (classifier, {}, {"X_val": X[:9] + 1.0, "y_val": Y[:9]}),
    "fewer rows than ranks": (regressor, {"batch_size": 2}, {}),
    "around": (regressor, {"weight_decay": 0.1, "clip_norm": 1.0,
                           "average": {"name": "swa", "start": 1}}, {}),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_several_ranks_equal_one(case):
    make, settings, more = CASES[case]
    y = Y if make is classifier else np.abs(X[:, :2])
    one = make(**settings).fit(X, y, **more)
    several = on_ranks(3, lambda group: make(**settings).fit(X, y, group=group, **more))
    for found in several:
        for a, b in zip(
            found.coefs_ + found.intercepts_, one.coefs_ + one.intercepts_, strict=True
        ):
            np.testing.assert_allclose(a, b, rtol=0, atol=1e-10)
        np.testing.assert_allclose(found.loss_curve_, one.loss_curve_, rtol=1e-10)
        assert found.n_iter_ == one.n_iter_
        np.testing.assert_array_equal(found.coefs_[0], several[0].coefs_[0])


def test_the_draws_are_rank_0s():
    """Whatever the generators of the others are."""
    one = classifier(random_state=np.random.RandomState(3)).fit(X, Y)

    def job(group):
        random = np.random.RandomState(3 + group.rank)
        return classifier(random_state=random, early_stopping=True).fit(X, Y, group=group)

    found = on_ranks(2, job)
    np.testing.assert_array_equal(found[0].coefs_[0], found[1].coefs_[0])
    assert found[0].coefs_[0].shape == one.coefs_[0].shape


def test_rank_0_alone_prints_and_calls_and_all_stop_when_it_asks(capsys):
    calls = []

    def job(group):
        def callback(estimator):
            calls.append(group.rank)
            return estimator.n_iter_ == 2

        return classifier(callbacks=[callback], verbose=True).fit(X, Y, group=group)

    assert [one.n_iter_ for one in on_ranks(2, job)] == [2, 2]
    assert calls == [0, 0]
    assert capsys.readouterr().out.count("Iteration 2, ") == 1


def test_what_a_callback_changes_all_ranks_have():
    def halve(estimator):
        estimator.coefs_[0] *= 0.5

    def job(group):
        return classifier(callbacks=[halve], solver="sgd").fit(X, Y, group=group)

    one = classifier(callbacks=[halve], solver="sgd").fit(X, Y)
    with pytest.warns(UserWarning, match="the weights of rank 1"):
        found = on_ranks(2, job)
    for estimator in found:
        np.testing.assert_allclose(estimator.coefs_[0], one.coefs_[0], rtol=0, atol=1e-10)


@pytest.mark.filterwarnings("ignore:Training interrupted")
def test_an_interrupt_of_one_ends_all_in_the_same_step(monkeypatch):
    """Between steps, as Ctrl-C asks for it."""
    from mlp.estimators.stochastic import Epochs

    whole = Epochs._count_step

    def count(self, batches, steps):
        whole(self, batches, steps)
        if steps == 9 and self.group.rank == 1:
            self.stop("interrupted")

    monkeypatch.setattr(Epochs, "_count_step", count)
    found = on_ranks(2, lambda group: classifier().fit(X, Y, group=group))
    assert [one._solver_state.step for one in found] == [9, 9]
    np.testing.assert_array_equal(found[0].coefs_[0], found[1].coefs_[0])


FAULTS = {
    "'mine'": ({"callbacks": ["fails"]}, X, 0),
    "power_t is '0.1' there": ({"power_t": 0.1}, X, 1),
    "the checksum of the training rows is": ({}, X + 1.0, 1),
    "Input X contains NaN": ({}, np.where(X > 1.0, np.nan, X), 1),
    "solver": ({"solver": "lbfgs"}, X, None),
    "checkpoint keeps the fit of one process": ({"checkpoint": "somewhere"}, X, None),
}


@pytest.mark.parametrize("said", FAULTS)
def test_a_fault_of_one_rank_is_raised_by_all(said):
    settings, given, whose = FAULTS[said]

    def fails(estimator):
        raise KeyError("mine")

    def job(group):
        mine = whose is None or group.rank == whose
        own = settings if "callbacks" not in settings else {"callbacks": [fails]}
        estimator = classifier(**own if mine else {})
        with pytest.raises((KeyError, ValueError)) as caught:
            estimator.fit(given if mine else X, Y, group=group)
        assert not hasattr(estimator, "coefs_")
        return str(caught.value)

    assert all(said in message for message in on_ranks(2, job))


def test_a_group_is_named():
    with pytest.raises(InputError, match="group"):
        classifier().fit(X, Y, group=2)
