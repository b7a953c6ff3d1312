"""N ranks are one: the same weights to rounding, with shards to the last bit; one decision by all.

Ranks are threads here, which need no MPI; `test_mpi.py` has the same laws on processes.
"""

import signal
import threading
import time
from functools import partial

import numpy as np
import pytest
import scipy.sparse

import mlp
from backends.numpy_backend import NumpyBackend
from mlp.errors import InputError
from mlp.formulas.losses import LOSSES
from mlp.formulas.optimizers import OPTIMIZERS
from mlp.parallel.crew import crew_of
from mlp.parallel.group import Group
from mlp.parallel.shards import check_shards, cut
from mlp.training.run import EVENTS
from tests.thread_group import on_ranks

pytestmark = pytest.mark.filterwarnings("ignore:the loss became non-finite")

rng = np.random.default_rng(0)
N, D, C = 43, 5, 3
X = rng.normal(size=(N, D))
TARGETS = {
    "numbers": rng.normal(size=(N, C)),
    "classes": rng.integers(0, C, N),
    "labels": rng.integers(0, 2, (N, C)).astype(float),
    "counts": rng.poisson(2.0, (N, C)).astype(float),
}
S = rng.uniform(0.0, 2.0, N)


def model_of(loss="mean_squared_error", layers=(), **about):
    layers = layers or [
        mlp.Dense(6, "tanh", l2=0.01, dropout=0.3),
        mlp.Dense(C, "identity", l1=0.001),
    ]
    about = {"dtype": "float64", "seed": 3} | about
    return mlp.Model(mlp.Network(D, layers), loss, **about)


def trained(group, model, t, weights=None, **options):
    options = {"batch_size": 8, "epochs": 3, "seed": 5} | options
    return mlp.train(model, X, t, sample_weight=weights, group=group, **options)


def differ(a, b):
    return float(abs(np.asarray(a.model.w) - np.asarray(b.model.w)).max())


def check_same(size, model, t, bound=1e-10, **options):
    one = trained(Group(), model, t, **options)
    for several in on_ranks(size, lambda group: trained(group, model, t, **options)):
        assert several.stopped == one.stopped
        assert differ(one, several) <= bound
        for name in one.history:
            if name != "seconds":
                assert np.allclose(one.history[name], several.history[name], rtol=1e-9, atol=bound)
    return one


def model_for(loss, **about):
    heads = len(getattr(LOSSES[loss], "names", ())) if loss == "gaussian" else 1
    layers = [mlp.Dense(6, "tanh", l2=0.01, dropout=0.3), mlp.Dense(C * heads, l1=0.001)]
    return model_of(loss, layers, **about)


def targets_for(loss):
    t = TARGETS[getattr(LOSSES[loss], "targets", "numbers")]
    return abs(t) + 0.5 if getattr(LOSSES[loss], "positive", False) else t


DEEP = [  # with a matrix between hidden layers
    mlp.Dense(6, "tanh", l2=0.01, dropout=0.3),
    mlp.Dense(5, "tanh"),
    mlp.Dense(C, l1=0.001),
]


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_every_optimizer(optimizer):
    rate = {} if getattr(OPTIMIZERS[optimizer], "own_rate", False) else {"learning_rate": 0.01}
    check_same(3, model_of(layers=DEEP), TARGETS["numbers"], optimizer=optimizer, epochs=9, **rate)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("loss", LOSSES)
def test_every_loss(loss, weighted):
    t, weights = targets_for(loss), S if weighted else None
    for reduction in ("mean", "sum"):
        model = model_for(loss, reduction=reduction)
        check_same(2, model, t, weights=weights, learning_rate=0.001, epochs=2)


NORMALISED = [
    mlp.Dense(6, "tanh"),
    mlp.layers.BatchNorm(),
    mlp.Dense(4, "relu", dropout=0.2),
    mlp.layers.BatchNorm(0.5),
    mlp.Dense(C),
]


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("options", [{}, {"batch_size": 6}, {"parallel": {"shards": 4}}], ids=str)
def test_layers_with_statistics(options, weighted):
    """They are those of the whole batch, also on ranks that have no rows of it."""
    weights = S if weighted else None
    about = {"weights": weights, "validation": 0.3, **options}
    model = model_of(layers=NORMALISED)
    one = check_same(4, model, TARGETS["numbers"], epochs=5, **about)
    there = on_ranks(4, lambda group: trained(group, model, TARGETS["numbers"], epochs=5, **about))
    for several in there:
        assert np.allclose(one.model.statistics, several.model.statistics, atol=1e-12)


@pytest.mark.parametrize("options", [{}, {"parallel": {"shards": 4}}], ids=str)
def test_embeddings_of_numbers_and_max_norm(options):
    layers = [
        mlp.Periodic(2, 4, columns=(0, 3)),
        mlp.PiecewiseLinear(3, columns=(1,), edges=((-1.0, -0.2, 0.3, 1.0),)),
        mlp.Dense(6, "tanh", max_norm=0.5),
        mlp.Dense(C),
    ]
    check_same(2, model_of(layers=layers), TARGETS["numbers"], **options)


@pytest.mark.parametrize("size", [2, 3, 4])
@pytest.mark.parametrize("batch_size", [1, 2, 7, 42, None])
def test_uneven_batches_and_fewer_rows_than_ranks(size, batch_size):
    check_same(size, model_of(), TARGETS["numbers"], batch_size=batch_size, epochs=2)


@pytest.mark.parametrize("options", [{}, {"parallel": {"shards": 4}}, {"batch_size": 3}])
@pytest.mark.parametrize("shuffle", [True, False])
def test_rows_that_stream(options, shuffle):
    sparse = scipy.sparse.csr_array(np.where(abs(X) > 0.5, X, 0.0))
    model, options = model_of("cross_entropy"), {"epochs": 2, "shuffle": shuffle, **options}

    options = {"batch_size": 8, **options}

    def job(group):
        return mlp.train(model, sparse, TARGETS["classes"], group=group, **options)

    one = job(Group())
    assert all(differ(one, x) < 1e-12 for x in on_ranks(2, job))


@pytest.mark.parametrize("weighted", [False, True])
def test_penalties_that_the_samples_share(weighted):
    weights = S if weighted else None
    model = model_of(shared_penalties=True)
    check_same(3, model, TARGETS["numbers"], weights=weights, epochs=2)


@pytest.mark.parametrize("options", [
    {"validation": 0.3, "patience": 1, "epochs": 30, "learning_rate": 0.1},
    {"target_loss": 0.9, "epochs": 40},
    {"schedule": "cosine", "warmup": 1, "shuffle": "blocks"},
    {"optimizer": "sgd", "learning_rate": 1e300, "epochs": 5},
    {"shuffle": False, "rate_factors": {"bias": 0}},
    {"initialize": "data"},
    {"accumulate": 3, "batch_size": 5, "clip_norm": 0.1},
    {"average": "ema", "validation": 0.3},
    {"time": 1e-9},
], ids=str)  # fmt: skip
def test_one_decision_by_all(options):
    check_same(3, model_of(), TARGETS["numbers"], **options)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("options", [{}, {"validation": 0.3}, {"weights": S}, {"batch_size": 3}])
def test_with_shards_bit_for_bit(dtype, options):
    """On 1, 2 and 4 ranks, and on 1 whose shards run in threads."""
    options = {"parallel": {"shards": 4}, **options}
    model = model_of("cross_entropy", dtype=dtype)
    t = TARGETS["classes"]
    one = trained(Group(), model, t, **options)
    assert differ(one, trained(Group(), model, t, **options | {"parallel": {}})) < 1e-3
    for size in (2, 4):
        for several in on_ranks(size, lambda group: trained(group, model, t, **options)):
            assert (several.model.w == one.model.w).all()
            assert several.history["loss"] == one.history["loss"]


SPARSE = scipy.sparse.csr_array(np.where(abs(X) > 0.5, X, 0.0))


@pytest.mark.parametrize("options", [
    {"dtype": "float32"}, {"jit": False}, {"weights": S}, {"layers": NORMALISED}, {"X": SPARSE},
    {"batch_size": 3}, {"batch_size": None}, {"accumulate": 3}, {"clip_norm": 0.1},
    {"validation": 0.3}, {"layers": DEEP, "optimizer": "muon"}, {"optimizer": "rprop"},
], ids=str)  # fmt: skip
def test_the_number_of_threads_changes_no_bit(options):
    about = {"epochs": 2, "batch_size": 8, "parallel": {"shards": 4}} | options
    layers, dtype = about.pop("layers", ()), about.pop("dtype", "float64")
    rows, weights = about.pop("X", X), about.pop("weights", None)
    backend = NumpyBackend(jit=about.pop("jit", None))
    model, found = model_of(layers=layers, dtype=dtype, backend=backend), []
    for threads in (1, 2, 3):
        run = {"threads": threads, "sample_weight": weights, "seed": 5, **about}
        found.append(mlp.train(model, rows, TARGETS["numbers"], **run))
    for other in found[1:]:
        assert (other.model.w == found[0].model.w).all()
        assert (other.model.statistics == found[0].model.statistics).all()
        for name in found[0].history.keys() - {"seconds"}:
            assert other.history[name] == found[0].history[name]


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_a_crew_makes_every_call_once(threads):
    before = threading.active_count()  # those that other tests left
    with mlp.threads.limited(threads), crew_of(NumpyBackend(), 8) as crew:
        assert threading.active_count() == before + threads - 1
        for n in (0, 1, 2, 3, 8):
            done, scopes = [], []

            def call(i, done=done, scopes=scopes):
                done.append(i)
                scopes.append(np.geterr()["over"])

            crew([partial(call, i) for i in range(n)])
            assert sorted(done) == list(range(n))
    assert threading.active_count() == before


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_an_error_is_raised_when_no_thread_is_at_work(error):
    done = []

    def late(i):
        time.sleep(0.01)
        done.append(i)

    def fail(i):
        raise error(i)

    with mlp.threads.limited(3), crew_of(NumpyBackend(), 8) as crew:
        for _ in range(2):  # and it goes on afterwards
            done.clear()
            calls = [late, fail, late, fail, late]
            with pytest.raises(error, match="1"):
                crew([partial(call, i) for i, call in enumerate(calls)])
            assert sorted(done) == [0, 2, 4]


def test_ctrl_c_waits_for_the_threads():
    before = threading.active_count()
    done = []

    def late():
        time.sleep(0.05)
        done.append(1)

    with mlp.threads.limited(2), crew_of(NumpyBackend(), 2) as crew:
        alarm = threading.Timer(0.02, signal.raise_signal, [signal.SIGINT])
        alarm.start()
        with pytest.raises(KeyboardInterrupt):
            crew([late, late])
        alarm.join()
    assert len(done) >= 1
    assert threading.active_count() == before


@pytest.mark.parametrize("error", [OSError("the disk fails"), MemoryError("no room")])
def test_what_fails_in_a_thread_ends_the_run(monkeypatch, error):
    before = threading.active_count()
    from mlp.data.feed import Feed

    bind = Feed.bind

    def failing(self, evaluation, place=0):
        fill, steps = bind(self, evaluation, place), []

        def run(rows):
            steps.append(1)
            if place == 1 and len(steps) == 3:
                raise error
            fill(rows)

        return run

    monkeypatch.setattr(Feed, "bind", failing)
    about = {"parallel": {"shards": 2}, "threads": 2, "epochs": 1, "batch_size": 8}
    if isinstance(error, MemoryError):
        found = mlp.train(model_of(), X, TARGETS["numbers"], **about)
        assert found.out_of_memory
        assert found.state.step == 2
    else:
        with pytest.raises(OSError, match="the disk fails"):
            mlp.train(model_of(), X, TARGETS["numbers"], **about)
    assert threading.active_count() == before


@pytest.mark.parametrize("shards", [1, 2, 3, 8])
def test_the_shards_are_the_batch(shards):
    for n in (1, 2, 7, 8, 100):
        parts = cut(n, shards)
        assert [i for part in parts for i in range(n)[part]] == list(range(n))
        sizes = [part.stop - part.start for part in parts]
        assert max(sizes) - min(sizes) <= 1
        assert sizes[0] == max(sizes)


@pytest.mark.parametrize(("shards", "size"), [(4, 3), (2, 4), (1, 2)])
def test_shards_that_the_ranks_cannot_share(shards, size):
    with pytest.raises(InputError, match=f"not for {size}"):
        check_shards(shards, size)


@pytest.mark.parametrize("options", [{"sam_radius": 0.1}, {"record_steps": True}], ids=str)
def test_what_several_ranks_cannot_do(options):
    def job(group):
        with pytest.raises(InputError, match="one process"):
            trained(group, model_of(), TARGETS["numbers"], **options)

    on_ranks(2, job)


def test_a_rate_and_weights_that_rank_0_changes_between_epochs_are_those_of_all():
    def change(run):
        run.state.learning_rate = 0.5 * run.state.learning_rate
        run.model.w = 0.9 * run.model.w

    check_same(2, model_of(), TARGETS["numbers"], callbacks=[change], optimizer="sgd", epochs=4)


@pytest.mark.parametrize(("parallel", "said"), [
    ({"shards": 3}, "power of two"), ({"shard": 4}, "did you mean 'shards'"),
    ({"shards": 0}, "from 1 on"), ("4", "mapping"), ({"shards": 2.0}, "whole"),
])  # fmt: skip
def test_settings_that_cannot_be(parallel, said):
    with pytest.raises(InputError, match=said):
        mlp.Settings(parallel=parallel)


def test_rank_0_alone_calls_back_unless_all_are_asked_for():
    calls = []

    class All:
        every_rank = True

        def on_epoch_end(self, run):
            calls.append("all")

    def own(run):
        calls.append("own")

    def job(group):
        return trained(group, model_of(), TARGETS["numbers"], callbacks=[own, All()])

    on_ranks(3, job)
    assert calls.count("own") == 3
    assert calls.count("all") == 9


@pytest.mark.parametrize("rank", [0, 2])
def test_who_stops_one_stops_all_in_the_same_step(rank):
    class Stop:
        every_rank = True

        def __init__(self, group):
            self.group = group

        def on_batch_end(self, run):
            if self.group.rank == rank and run.state.step == 4:
                run.stop("enough")

    def job(group):
        return trained(group, model_of(), TARGETS["numbers"], callbacks=[Stop(group)])

    found = on_ranks(3, job)
    assert {(x.stopped, x.state.step) for x in found} == {("enough", 4)}
    assert differ(found[0], found[2]) == 0


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("event", EVENTS)
def test_an_error_of_a_callback_is_raised_by_all(event, rank):
    """A caller that catches it leaves no rank waiting for the others."""

    def fail(run):
        raise KeyError("mine")

    def job(group):
        fails = type("Fails", (), {event: staticmethod(fail), "every_rank": True})()
        with pytest.raises((KeyError, InputError)) as caught:
            trained(
                group,
                model_of(),
                TARGETS["numbers"],
                callbacks=[fails] if group.rank == rank else [],
            )
        return caught.value

    found = on_ranks(2, job)
    assert type(found[rank]) is KeyError
    assert f"rank {rank} of 2, on thread {rank}: KeyError: 'mine'" in str(found[1 - rank])


class DeviceFull(RuntimeError):
    """What a device's library raises that has no memory left, which is no MemoryError."""


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("error", [
    OSError("the disk fails"), MemoryError("no room"), DeviceFull("no room"),
], ids=repr)  # fmt: skip
def test_what_fails_in_a_shard_fails_on_all_ranks(monkeypatch, rank, error):
    """Each ends in the same step; of memory with what was learned, and the first ranks say whose
    fault it is."""
    from mlp.parallel.shards import Batch

    monkeypatch.setattr(NumpyBackend, "out_of_memory", (MemoryError, DeviceFull))
    loads = Batch.loads

    def failing(self, rows):
        self.steps = getattr(self, "steps", 0) + 1
        if self.group.rank == rank and self.steps == 3 and self.n == 8:
            raise error
        return loads(self, rows)

    monkeypatch.setattr(Batch, "loads", failing)

    def job(group):
        try:
            return trained(group, model_of(), TARGETS["numbers"])
        except Exception as found:
            return found

    found = on_ranks(2, job)
    if not isinstance(error, OSError):
        assert all(x.out_of_memory and x.state.step == 2 for x in found)
        assert differ(*found) == 0
        assert f"of rank {rank}, on thread {rank} in epoch 1 (no room" in found[1 - rank].stopped
    else:
        assert found[rank] is error
        assert f"rank {rank} of 2, on thread {rank}: OSError: the disk fails" in str(
            found[1 - rank]
        )


@pytest.mark.parametrize(("change", "said"), [
    ({"learning_rate": 0.5}, "the setting learning_rate is '0.5' there and '0.001' on rank 0"),
    ({"model": model_of(seed=4)}, "the checksum of the initial weights"),
    ({"model": model_of(layers=[mlp.Dense(C)])}, "the network"),
    ({"weights": S}, "the checksum of the training rows"),
    ({"validation": 7}, "held-out fraction"),
], ids=str)  # fmt: skip
def test_ranks_that_differ_are_refused_before_training(change, said):
    def job(group):
        about = {"model": model_of(), "learning_rate": 0.001}
        if group.rank == 1:
            about |= change
        try:
            trained(group, t=TARGETS["numbers"], callbacks=[refuse], **about)
        except InputError as error:
            return str(error)
        return ""

    def refuse(run):
        raise AssertionError("it trained")

    found = on_ranks(2, job)
    assert all(said in x and "rank 1 of 2, on thread 1" in x for x in found), found


def test_a_state_of_some_ranks_is_gone_on_from_by_others():
    model, t = model_of("cross_entropy", dtype="float32"), TARGETS["classes"]
    options = {"parallel": {"shards": 4}, "validation": 0.3}
    whole = trained(Group(), model, t, epochs=4, **options)

    class Stop:
        every_rank = True

        def on_batch_end(self, run):
            if run.state.step == 7:
                run.stop("later")

    def first(group):
        return trained(group, model, t, epochs=4, callbacks=[Stop()], **options).state

    state = on_ranks(4, first)[0]
    for size in (1, 2, 4):
        gone_on = on_ranks(size, lambda g: trained(g, model, t, epochs=4, state=state, **options))
        assert (gone_on[0].model.w == whole.model.w).all()
        assert gone_on[0].history["validation_loss"] == whole.history["validation_loss"]


def test_what_asks_for_the_end_while_ranks_agree_is_heard():
    """A signal comes while a rank waits for the others' answer, which is that of before."""

    class Waiting(Group):
        calls = 0

        def agree(self, reason):
            self.calls += 1
            if self.calls == 7:
                self.run.stop("asked meanwhile")
            return reason

    class Seen:
        def on_run_start(self, run):
            group.run = run

    group = Waiting()
    net = mlp.Network(2, [mlp.Dense(1)])
    X, t = np.ones((20, 2)), np.ones((20, 1))
    result = mlp.train(
        mlp.Model(net, "mean_squared_error"), X, t, batch_size=2, epochs=50,
        group=group, callbacks=[Seen()],
    )  # fmt: skip
    assert result.stopped == "asked meanwhile"
    assert result.state.step < 10
