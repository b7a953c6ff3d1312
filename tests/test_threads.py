"""The setting `threads`: what the BLAS of a run uses, and what it uses afterwards."""

import os

import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from backends import get_backend
from mlp import Dense, InputError, Model, Network, threads, train
from mlp.threads import limited, share_of_cores

X = np.random.default_rng(0).normal(size=(300, 20))
T = (X[:, :1] > 0.0).astype(float)


def in_use():
    """Threads of the BLAS that NumPy multiplies with."""
    return max(pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas")


@pytest.fixture(autouse=True)
def _two_threads():
    """So that one thread is another number, whatever the machine and the tests before."""
    before = in_use()
    with threadpool_limits(2):
        yield
    assert in_use() == before


@pytest.fixture
def four_cores(monkeypatch):
    """A machine of four cores in whose environment nothing is said about threads."""
    for name in (*threads.RANKS, *threads.SAID):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(threads, "usable_cores", lambda: 4)
    monkeypatch.setattr(os, "cpu_count", lambda: 4)


def model(**options):
    net = Network(20, [Dense(30, "tanh"), Dense(1, "sigmoid")])
    return Model(net, "binary_cross_entropy", dtype="float64", **options)


def test_within_and_afterwards():
    assert in_use() == 2
    with limited(1):
        assert in_use() == 1
        with limited():
            assert in_use() == 1
    assert in_use() == 2


def test_afterwards_when_the_run_raises():
    def fail(run):
        assert in_use() == 1
        raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough"):
        train(model(), X, T, epochs=3, threads=1, callbacks=[fail])
    assert in_use() == 2


def test_a_run_has_the_threads_it_asks_for():
    """And learns the same in one thread as in two, but for rounding."""
    seen, results = [], []
    for number in (1, 2):
        result = train(
            model(), X, T, epochs=3, threads=number, callbacks=[lambda run: seen.append(in_use())]
        )
        results.append(result.model.w)
        assert in_use() == 2
    assert seen == [1, 1, 1, 2, 2, 2]
    np.testing.assert_allclose(*results, rtol=1e-10)


def test_pytorch_has_them_too():
    torch = get_backend("torch").torch if _has("torch") else pytest.skip("no torch")
    before = torch.get_num_threads()
    with limited(1):
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == before


def _has(name):
    from importlib.util import find_spec

    return find_spec(name) is not None


@pytest.mark.parametrize("wrong", [0, -1, 1.5, "2", True])
def test_what_is_no_number_of_threads(wrong):
    with pytest.raises(InputError, match="threads must be a whole number from 1 on"):
        train(model(), X, T, threads=wrong)


# ------------------------------------------------------------------ processes that share a node


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, None),
        ({"OMPI_COMM_WORLD_LOCAL_SIZE": "2"}, 2),
        ({"MPI_LOCALNRANKS": "3"}, 1),
        ({"MV2_COMM_WORLD_LOCAL_SIZE": "4"}, 1),
        ({"PMI_LOCAL_SIZE": "1"}, None),
        ({"OMPI_COMM_WORLD_LOCAL_SIZE": "0"}, None),
        ({"SLURM_STEP_TASKS_PER_NODE": "2(x16)"}, 2),
        ({"SLURM_STEP_TASKS_PER_NODE": "1,4(x3)"}, 1),
        ({"SLURM_NTASKS_PER_NODE": "4"}, None),
        ({"OMPI_COMM_WORLD_LOCAL_SIZE": "2", "OMP_NUM_THREADS": "4"}, None),
        ({"OMPI_COMM_WORLD_LOCAL_SIZE": "2", "OPENBLAS_NUM_THREADS": "4"}, None),
    ],
    ids=str,
)
def test_the_share_of_a_rank(four_cores, environment, expected):
    assert share_of_cores(environment) == expected


def test_a_rank_with_cores_of_its_own(four_cores, monkeypatch):
    """The launcher bound it to them; they are not divided again."""
    monkeypatch.setattr(threads, "usable_cores", lambda: 2)
    assert share_of_cores({"OMPI_COMM_WORLD_LOCAL_SIZE": "2"}) is None


def test_a_rank_trains_on_its_share(four_cores, monkeypatch):
    """Unless the run says more or less, or there are fewer already."""
    seen = []

    def look(run):
        seen.append(in_use())

    monkeypatch.setenv("OMPI_COMM_WORLD_LOCAL_SIZE", "4")
    train(model(), X, T, epochs=1, callbacks=[look])
    train(model(), X, T, epochs=1, threads=2, callbacks=[look])
    monkeypatch.setenv("OMPI_COMM_WORLD_LOCAL_SIZE", "2")
    with limited(1):
        train(model(), X, T, epochs=1, callbacks=[look])
    assert seen == [1, 2, 1]
    assert in_use() == 2


def test_workers_of_a_search_share_the_cores():
    """joblib gives each of its workers a part of them, and a fit there takes no more."""
    model_selection = pytest.importorskip("sklearn.model_selection")
    from mlp import MLPClassifier

    def look(clf):
        clf.threads_seen = in_use()

    def threads_seen(clf, X, y):
        assert in_use() == clf.threads_seen
        return clf.threads_seen

    clf = MLPClassifier(5, tol=1e9, n_iter_no_change=1, callbacks=[look])
    search = model_selection.GridSearchCV(
        clf, {"alpha": [0.1, 0.2]}, scoring=threads_seen, cv=2, n_jobs=2, refit=False
    )
    search.fit(X, T.ravel().astype(int))
    assert search.cv_results_["mean_test_score"].max() <= max(1, (os.cpu_count() or 1) // 2)
