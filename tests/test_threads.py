"""The setting `threads`: what the BLAS of a run uses, and what it uses afterwards."""

import os
import subprocess
import sys
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager

import numpy as np
import pytest
from threadpoolctl import ThreadpoolController, threadpool_info, threadpool_limits

from backends import Memory
from backends.numpy_backend import NumpyBackend
from mlp import Dense, InputError, MLPRegressor, Model, Network, threads, train
from mlp.layers.tape import Tape
from mlp.threads import limited, share_of_cores
from mlp.training.pace import Pace

X = np.random.default_rng(0).normal(size=(300, 20))
T = (X[:, :1] > 0.0).astype(float)


def in_use():
    """Threads of the BLAS that NumPy multiplies with."""
    return max(pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas")


@pytest.fixture(autouse=True)
def _two_threads():
    """So that one thread is another number, whatever the machine and the tests before."""
    before = in_use()
    numbers = ThreadpoolController().limit()
    threadpool_limits(2)
    with ThreadpoolController().limit():  # so that other Python threads may set it too
        pass
    yield
    assert in_use() == 2
    with numbers:
        pass
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


def test_limits_within_each_other():
    with limited(1):
        with limited(2):
            assert in_use() == 2
        assert in_use() == 1
    assert in_use() == 2


@pytest.mark.parametrize("first", ["a", "b"])
def test_limits_that_overlap(first):
    """The last one set counts while it holds, then the one before; none is left over."""
    with overlapping(3, 1) as leave:
        assert in_use() == 1
        leave(first)
        assert in_use() == (1 if first == "a" else 3)
    assert in_use() == 2


@contextmanager
def overlapping(a, b):
    """Two threads with limits of their own, a's set first; gives what makes one of them leave."""
    limits = {"a": limited(a), "b": limited(b)}
    with ThreadPoolExecutor(1) as one, ThreadPoolExecutor(1) as other:
        pools = {"a": one, "b": other}

        def leave(name):
            pools[name].submit(limits.pop(name).__exit__, None, None, None).result()

        for name in ("a", "b"):
            pools[name].submit(limits[name].__enter__).result()
        yield leave
        for name in sorted(limits):
            leave(name)


def test_pytorch_has_them_too():
    """Also where PyTorch has done nothing yet, in the thread of the limit or one started within it:
    there it takes its own number first."""
    torch = pytest.importorskip("torch")

    def within():
        with limited(1), ThreadPoolExecutor(1) as another:
            return torch.get_num_threads(), another.submit(torch.get_num_threads).result()

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with ThreadPoolExecutor(1) as thread:
            assert thread.submit(within).result() == (1, 1)
            assert thread.submit(torch.get_num_threads).result() == 2
        assert within() == (1, 1)
        assert torch.get_num_threads() == 2
        for first in ("a", "b"):
            with overlapping(3, 1) as leave:
                leave(first)
            with ThreadPoolExecutor(1) as thread:
                assert thread.submit(torch.get_num_threads).result() == 2
    finally:
        torch.set_num_threads(before)


def test_a_number_of_numpy():
    with limited(np.int64(1)):
        assert in_use() == 1


@pytest.mark.parametrize("wrong", [0, -1, 1.5, "2", True, np.True_, np.int64(0)])
def test_what_is_no_number_of_threads(wrong):
    with pytest.raises(InputError, match="threads must be a whole number from 1 on"):
        train(model(), X, T, threads=wrong)


@pytest.mark.parametrize("wrong", [2**20 + 1, 2**31, 2**32 + 1, 2**64, 10**30, np.uint64(2**63)])
def test_more_threads_than_a_library_can_count(wrong):
    with pytest.raises(InputError, match=r"threads must be at most 2\^20"):
        train(model(), X, T, threads=wrong)
    assert in_use() == 2


FORKS = """
import os, signal, threading, time
import numpy as np
from mlp.threads import limited

def set_limits():
    while not over:
        with limited(1):
            pass

def reaped(pid):
    for _ in range(5000):
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return status == 0
        time.sleep(0.002)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return False

over = False
others = [threading.Thread(target=set_limits) for _ in range(2)]
for thread in others:
    thread.start()
good = 0
for _ in range(60):
    with limited(2):
        pid = os.fork()
        if not pid:
            with limited(1):
                np.ones((200, 200)) @ np.ones((200, 200))
            os._exit(0)
    good += reaped(pid)
over = True
for thread in others:
    thread.join()
print(good)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are not forked here")
def test_a_process_forked_while_other_threads_set_limits_can_set_its_own():
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FORKS], capture_output=True, text=True, timeout=300
    )
    assert (done.stdout.strip(), done.stderr) == ("60", "")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are not forked here")
def test_limits_of_other_threads_end_in_a_forked_process():
    script = """
import os, threading
import numpy
from threadpoolctl import ThreadpoolController, threadpool_info, threadpool_limits
from mlp.threads import limited
def in_use():
    return max(x["num_threads"] for x in threadpool_info() if x["user_api"] == "blas")
threadpool_limits(2)
with ThreadpoolController().limit():  # so that other Python threads may set it too
    pass
inside, leave = threading.Event(), threading.Event()
def other():
    with limited(1):
        inside.set()
        leave.wait()
thread = threading.Thread(target=other)
thread.start()
inside.wait()
if not os.fork():
    print(in_use(), flush=True)
    os._exit(0)
os.wait()
print(in_use())
leave.set()
thread.join()
"""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script], capture_output=True, text=True, timeout=60
    )
    assert (done.stdout.split(), done.stderr) == (["2", "1"], "")


# ------------------------------------------------------------------ no more threads than pay


@pytest.fixture
def nothing_said(monkeypatch):
    for name in (*threads.RANKS, *threads.SAID):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(("units", "rows", "expected"), [
    ((26, 64, 64, 1), 128, 1), ((64, 100, 10), 200, 1), ((64, 32, 10), 32, 1),
    ((28, 300, 300, 300, 1), 1024, 29), ((784, 512, 512, 10), 256, 29), ((784, 100, 10), 200, 4),
    ((4096, 4096, 10), 1, 5), ((1, 1), 1, 1),
], ids=str)  # fmt: skip
def test_threads_by_sizes(units, rows, expected):
    net = Network(units[0], [Dense(m) for m in units[1:]])
    assert abs(threads.paying(rows * size for size in net.matrices) - expected) <= 1
    more = [threads.paying(k * rows * size for size in net.matrices) for k in (1, 2, 10)]
    assert more == sorted(more)


def seen_in(**options):
    seen = []
    train(model(), X, T, epochs=1, callbacks=[lambda run: seen.append(in_use())], **options)
    assert in_use() == 2
    return seen[0]


@pytest.mark.usefixtures("nothing_said")
def test_a_run_takes_no_more_than_pay(monkeypatch):
    assert seen_in() == 1
    assert seen_in(threads=2) == 2
    with limited(2):
        assert seen_in() == 2
    monkeypatch.setattr(threads, "PAYS", 10)
    assert seen_in() == 2
    assert seen_in(threads=1) == 1
    monkeypatch.undo()
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert seen_in() == 2


@pytest.mark.usefixtures("nothing_said")
@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
@pytest.mark.parametrize("method", ["fit", "partial_fit"])
def test_estimators_take_no_more_than_pay(monkeypatch, solver, method):
    seen, run = [], Tape.run

    def look(self):
        seen.append(in_use())
        run(self)

    monkeypatch.setattr(Tape, "run", look)
    about = {"solver": solver, "hidden_layer_sizes": (5,), "max_iter": 2}
    for given, expected in (({}, 1), ({"threads": 2}, 2)):
        estimator = MLPRegressor(random_state=1, **about)
        if solver == "lbfgs" and method == "partial_fit":
            return
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with limited(**given):
                getattr(estimator, method)(X, T.ravel())
        assert set(seen) == {expected}
        assert in_use() == 2
        seen.clear()


# ------------------------------------------------------------------ shards of large nets


@pytest.mark.parametrize("there", [1, 2, 3, 6, 16])
def test_shards_by_sizes(there):
    """A power of two, as many as there are threads at most, more for larger nets and batches."""
    most = 1 << (there.bit_length() - 1)
    with limited(there):
        found = [threads.shards_paying(4096, [threads.CUT_PAYS * k // 2] * 2) for k in range(40)]
        rows = [threads.shards_paying(k * threads.ROWS_PAY - 1, [10**12]) for k in (1, 2, 3, 5)]
    assert found == sorted(found)
    assert found[:4] == [1, 1, min(2, most), min(2, most)]
    assert found[-1] == most
    assert all(k & (k - 1) == 0 for k in found)
    assert rows == [1, 1, min(2, most), min(4, most)]


def cut_from(monkeypatch, size):
    """Batches are cut from so many multiply-adds a shard on, however few their rows."""
    monkeypatch.setattr(threads, "CUT_PAYS", size)
    monkeypatch.setattr(threads, "ROWS_PAY", 1)


def cut(also=(), **options):
    """The shards that a run's batches are cut into, and its result."""
    seen = []
    done = train(
        model(), X, T, epochs=2, callbacks=[lambda run: seen.append(run), *also], **options
    )
    return seen[0].settings.shards, done


def test_large_nets_are_cut_by_themselves(monkeypatch):
    cut_from(monkeypatch, 1000)
    about = {"batch_size": 50, "validation": 0.3, "target_loss": 1e-9}
    shards, done = cut(**about)
    assert shards == 2
    for wanted in (2, "none"):
        other = cut(**about, parallel={"shards": wanted})[1]
        equal = (done.model.w == other.model.w).all()
        assert equal == (wanted == 2)
        np.testing.assert_allclose(done.model.w, other.model.w, rtol=1e-10, atol=1e-12)
        for name in set(done.history) - {"seconds"}:
            np.testing.assert_allclose(done.history[name], other.history[name], rtol=1e-10)
    assert cut(**about, threads=1)[0] is None
    monkeypatch.undo()
    assert cut(**about)[0] is None


def test_runs_in_several_threads_of_python_are_cut_alike(monkeypatch):
    cut_from(monkeypatch, 1000)
    alone = cut(batch_size=50)
    with ThreadPoolExecutor(3) as pool:
        for found in pool.map(lambda _: cut(batch_size=50), range(6)):
            assert found[0] == alone[0] == 2
            assert (found[1].model.w == alone[1].model.w).all()


def test_a_batch_stays_whole_where_its_shards_do_not_fit(monkeypatch):
    cut_from(monkeypatch, 1000)
    plans = []

    def shards(**about):
        looks = [lambda run: plans.append(run.plan)]
        return cut(batch_size=50, validation=0.3, also=looks, **about)[0]

    assert [shards(), shards(parallel={"shards": "none"})] == [2, None]
    in_shards, whole = plans[0].needed, plans[-1].needed
    assert whole < in_shards
    for free, expected in ((in_shards, 2), (in_shards - 1, None), (whole, None)):
        monkeypatch.setattr(NumpyBackend, "memory", lambda self, free=free: Memory(free))
        assert shards() == expected
        assert plans[-1].needed == (in_shards if expected else whole)
    with pytest.raises(InputError, match="the largest batch_size that fits"):
        shards(parallel={"shards": 2})


@pytest.mark.usefixtures("nothing_said")
def test_what_there_is_is_asked_while_no_other_thread_limits_it():
    """Not between the limit of one that begins and the account of it."""
    there = threads.threads_there()
    with ThreadPoolExecutor(1) as pool:
        with threads._lock:
            found = pool.submit(threads.threads_there)
            time.sleep(0.05)
            held = ExitStack()
            held.enter_context(threads.one_each())
        assert found.result() == there
        held.close()


@pytest.mark.parametrize("options", [
    {"accumulate": 2}, {"sam_radius": 0.1}, {"mixup": 0.2}, {"optimizer": "lbfgs"},
    {"parallel": {"shards": "none"}},
], ids=str)  # fmt: skip
def test_what_needs_whole_batches_has_them(monkeypatch, options):
    cut_from(monkeypatch, 1000)
    size = "full" if options.get("optimizer") == "lbfgs" else 50
    assert cut(batch_size=size, **options)[0] is None


def test_a_fit_is_cut_and_a_partial_fit_is_not(monkeypatch):
    about = {"random_state": 1, "hidden_layer_sizes": (9,), "early_stopping": True}
    found = {}
    for cuts in (1000, 10**12):
        cut_from(monkeypatch, cuts)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            fitted = MLPRegressor(max_iter=4, **about).fit(X, T.ravel())
        parts = MLPRegressor(random_state=1).partial_fit(X, T.ravel())
        found[cuts] = [fitted.coefs_[0], fitted.validation_scores_, parts.coefs_[0]]
    whole, sharded = found[10**12], found[1000]
    assert (whole[2] == sharded[2]).all()
    assert (whole[0] != sharded[0]).any()
    for one, other in zip(whole[:2], sharded[:2], strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-9)


@pytest.mark.parametrize("wrong", ["all", "2", 3, 0, 1.5])
def test_shards_are_a_number_or_none(wrong):
    with pytest.raises(InputError, match="parallel: shards"):
        cut(parallel={"shards": wrong})


@pytest.mark.usefixtures("nothing_said")
def test_a_rule_within_another_has_all_threads_to_choose_from():
    large, small = [10**9], [10]
    with threads.as_pays(small):
        assert in_use() == 1
        with threads.as_pays(large):
            assert in_use() == 2
        with limited(1), threads.as_pays(large):
            assert in_use() == 1
        assert in_use() == 1


@pytest.mark.usefixtures("four_cores")
def test_a_rule_within_a_share_of_the_cores(monkeypatch):
    monkeypatch.setenv("OMPI_COMM_WORLD_LOCAL_SIZE", "4")
    with limited(), threads.as_pays([10**9]):
        assert in_use() == 1


def test_steps_that_take_many_times_what_they_took_are_said_once():
    pace = Pace()
    said = [pace.step(10, seconds) for seconds in [1.5, 1.0] * 5 + [3.0] * 9 + [9.0] * 9]
    assert [x is None for x in said] == [True] * 19 + [False] + [True] * 8
    assert said[19] == "steps take 9 times as long as before (1 s for 10 rows, now 9 s)"


@pytest.mark.parametrize("number", [1, 2])
def test_a_slow_run_names_the_threads(monkeypatch, number):
    monkeypatch.setattr(Pace, "step", lambda self, rows, seconds: f"{rows} rows took long")
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        train(model(), X, T, epochs=1, batch_size=300, threads=number)
    said = [str(x.message) for x in found]
    assert [("300 rows took long" in x, "--threads 1" in x) for x in said] == [(True, True)] * (
        number - 1
    )


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
    monkeypatch.setenv("OMPI_COMM_WORLD_LOCAL_SIZE", "4")
    with limited(2):  # nor does a run within another limit take a share
        train(model(), X, T, epochs=1, callbacks=[look])
    assert seen == [1, 2, 1, 2]
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
