"""Recorded steps: the same numbers as steps that are run call by call."""

import gc
import warnings
import weakref

import numpy as np
import pytest
from test_learning import CASES, rows

from backends import BackendError
from backends.numpy_backend import NumpyBackend
from mlp import Dense, Model, Network, train
from mlp.training.step import Recorded


def run(backend, case, recorded, callbacks=(), state=None, **more):
    network, (loss, kind), options = CASES[case]
    net = network()
    X, t = rows(44, 5, net.outputs, kind)
    model = Model(net, loss, seed=3, backend=backend)
    settings = {"batch_size": 7, "epochs": 8, "seed": 5} | options | more
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "steps are not recorded")
        return train(
            model, X, t, callbacks=callbacks, state=state, record_steps=recorded, **settings
        )


def same(a, b, backend):
    np.testing.assert_array_equal(backend.to_numpy(a.model.w), backend.to_numpy(b.model.w))
    for name in a.history.keys() - {"seconds"}:
        assert a.history[name] == b.history[name], name


@pytest.mark.thorough_on("strict:device1")
@pytest.mark.parametrize("case", CASES)
def test_the_same_bit_for_bit(backend, case):
    """Every optimizer; dropout, weights, penalties, schedules, validation, a shorter last batch.

    Where the backend cannot record, the tables are used all the same."""
    same(run(backend, case, True), run(backend, case, False), backend)


@pytest.mark.thorough_on("strict:device1")
@pytest.mark.parametrize("options", [{"shuffle": False}, {"batch_size": 1, "epochs": 2}])
def test_other_orders_and_sizes(backend, options):
    same(
        run(backend, "dropout", True, **options), run(backend, "dropout", False, **options), backend
    )


class StopAt:
    def __init__(self, step):
        self.step = step

    def on_batch_end(self, under_way):
        if under_way.state.step == self.step:
            under_way.stop("enough")


@pytest.mark.parametrize("recorded", [(True, True), (True, False), (False, True)])
def test_stopped_in_an_epoch_and_gone_on_with(backend, recorded):
    first, then = recorded
    whole = run(backend, "decay_and_validation", False)
    part = run(backend, "decay_and_validation", first, callbacks=[StopAt(17)])
    same(run(backend, "decay_and_validation", then, state=part.state), whole, backend)


class Recording(NumpyBackend):
    """The double: records by keeping the call, and counts."""

    def __init__(self, fails=False):
        super().__init__()
        self.recorded, self.replayed, self.fails = 0, 0, fails

    def record(self, call):
        if self.fails:
            raise BackendError("the device says no")
        self.recorded += 1

        def replay():
            self.replayed += 1
            call()

        return replay


def test_once_for_each_size_then_replayed():
    """44 rows in batches of 7: six and one of 2. The first of each size compiles the kernels."""
    backend = Recording()
    run(backend, "dropout", True, epochs=4)
    assert backend.recorded == 2
    assert backend.replayed == 4 * 7 - 2


def test_one_warning_where_it_fails():
    X, t = rows(44, 5, 2, "numbers")
    model = Model(Network(5, [Dense(2)]), "mean_squared_error", backend=Recording(fails=True))
    with pytest.warns(UserWarning, match="not recorded.*the device says no") as seen:
        train(model, X, t, epochs=3, batch_size=7, record_steps=True)
    assert len(seen) == 1


def test_a_rate_changed_in_an_epoch_counts_from_the_next(backend):
    """The tables are sent once an epoch (documented in `Settings`)."""

    class Halve:
        def on_batch_end(self, under_way):
            if under_way.state.step == 3:
                under_way.state.learning_rate /= 2

    class HalveLater:
        def on_epoch_end(self, under_way):
            if under_way.state.epoch == 1:
                under_way.state.learning_rate /= 2

    early = run(backend, "dropout", True, callbacks=[Halve()])
    late = run(backend, "dropout", False, callbacks=[HalveLater()])
    np.testing.assert_array_equal(backend.to_numpy(early.model.w), backend.to_numpy(late.model.w))


def test_a_run_leaves_nothing_behind(backend, monkeypatch):
    """No cycle of references holds its arrays, or on a device its graphs, until the collector comes
    by."""
    made = []

    def noted(*arguments):
        recorded = Recorded(*arguments)
        made.extend((weakref.ref(recorded), weakref.ref(recorded.step)))
        return recorded

    monkeypatch.setattr("mlp.training.setup.Recorded", noted)
    gc.collect()
    gc.disable()
    try:
        run(backend, "dropout", True, epochs=3)
        assert len(made) == 4  # of the plan, and of the run
        assert [reference() for reference in made] == [None] * 4
    finally:
        gc.enable()


def test_streamed_and_recorded_is_the_same(backend, monkeypatch):
    expected = run(backend, "dropout", False)
    monkeypatch.setattr(backend, "keeps", lambda size: False)
    same(run(backend, "dropout", True), expected, backend)


def test_out_of_memory_keeps_what_was_learned(backend):
    """Also with recordings, and without allocating: stopped there and gone on with, it is the run
    that never stopped."""
    whole = run(backend, "dropout", False)

    class Full:
        def on_batch_end(self, under_way):
            if under_way.state.step == 17:
                monkey.setattr(backend, "empty", fails)
                raise MemoryError("full")

    def fails(*arguments):
        raise MemoryError("nothing left")

    with pytest.MonkeyPatch.context() as monkey:
        part = run(backend, "dropout", True, callbacks=[Full()])
    assert part.out_of_memory
    assert (part.state.step, part.state.batch) == (17, 3)
    same(run(backend, "dropout", True, state=part.state), whole, backend)
