"""Mixed precision: float16 activations and deltas, float32 weights, a loss scale that adapts."""

import sys
from dataclasses import replace

import ml_dtypes  # noqa: F401, which gives NumPy the name "bfloat16"
import numpy as np
import pytest
from conftest import present

from backends import PRECISIONS, BackendError, get_backend
from backends.base import Backend
from backends.counting_backend import Count
from backends.numpy_backend import NumpyBackend
from mlp import Dense, InputError, Model, Network, Scaling, train
from mlp.data.samples import Samples
from mlp.formulas.loss_scaling import GROWS_AFTER, LEAST, MOST, START, guarded, judge
from mlp.formulas.optimizers import OPTIMIZERS
from mlp.layers.tape import Arena
from mlp.training.checkpoint import load_state, save_state


class Halves(NumpyBackend):
    """The double: NumPy that stores float16 and computes products and formulas in float32."""

    def require(self, precision):
        pass

    def product(self, a, b, out, precision="float32"):
        assert PRECISIONS[precision].narrow == (a.dtype.itemsize == b.dtype.itemsize == 2)

        def run():
            out[...] = a.astype(np.float32) @ b.astype(np.float32)

        return run

    def stack(self, a, b, out, precision="float32"):
        return self.product(a, b, out, precision)

    def total(self, x, out):
        return lambda: np.add.reduce(x.astype(np.float32), 0, np.float32, out, x.ndim == 1)

    def fuse(self, formula, into=(0,)):
        return Backend.fuse(self, formula, into)


@pytest.fixture(params=present("the double", "cupy", "cupy:1"))
def halves(request):
    """What has mixed precision: the double everywhere, and CUDA devices."""
    try:
        found = Halves() if request.param == "the double" else get_backend(request.param)
        found.require("mixed")
    except BackendError as error:
        pytest.skip(str(error))
    with found.scope():
        yield found


def data(n=50, inputs=6, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, inputs)).astype(np.float32)
    return X, (X[:, 0] * X[:, 1] > 0).astype(np.int64)


def network(dropout=0.0, l2=0.0):
    return Network(
        6,
        [
            Dense(16, "relu", dropout=dropout, l2=l2),
            Dense(12, "gelu", sources=(0, 1)),
            Dense(2, "softmax", sources=(1, 2)),
        ],
    )


def model_of(backend, precision="mixed", **options):
    net = network(**options)
    return Model(net, "cross_entropy", seed=2, backend=backend, precision=precision)


# ------------------------------------------------------------------------------- the loss scale


def one(backend, value):
    return backend.full((1,), value, "float32")


@pytest.mark.parametrize(
    ("total", "scale", "good", "fine", "next_scale", "next_good"),
    [
        (1.5, 8.0, 5.0, 1.0, 8.0, 6.0),
        (1.5, 8.0, GROWS_AFTER - 1, 1.0, 16.0, 0.0),
        (1.5, MOST, GROWS_AFTER - 1, 1.0, MOST, 0.0),
        (np.inf, 8.0, 5.0, 0.0, 4.0, 0.0),
        (-np.inf, 8.0, 5.0, 0.0, 4.0, 0.0),
        (np.nan, 8.0, GROWS_AFTER - 1, 0.0, 4.0, 0.0),
        (np.nan, LEAST, 5.0, 0.0, LEAST, 0.0),
    ],
)
def test_the_scale_halves_at_once_and_doubles_slowly(
    backend, total, scale, good, fine, next_scale, next_good
):
    arrays = [one(backend, x) for x in (7.0, scale, good, total)]
    backend.fuse(judge, into=(0, 1, 2))(*arrays)
    found = [float(backend.to_numpy(x)[0]) for x in arrays[:3]]
    assert found == [fine, next_scale, next_good]


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("fine", [0.0, 1.0])
def test_a_step_is_taken_whole_or_left_out_whole(backend, name, fine):
    """With fine = 1 it is the optimizer's own; with 0 nothing changes, whatever is in g."""
    rng, rule = np.random.default_rng(0), OPTIMIZERS[name]()
    w, g, *state = (rng.normal(size=9).astype(np.float32) for _ in range(2 + len(rule.state)))
    state = [np.abs(x) for x in state]
    if not fine:
        g[:3] = np.nan, np.inf, -np.inf
    into, constants = (0, *range(2, 2 + len(rule.state))), rule.constants(0.1, 3)
    found = [backend.asarray(x.copy()) for x in (w, g, *state)]
    backend.fuse(guarded(rule.update, len(rule.state)), into=into)(
        *found, one(backend, fine), *constants
    )
    expected = [backend.asarray(x.copy()) for x in (w, g, *state)]
    if fine:
        backend.fuse(rule.update, into=into)(*expected, *constants)
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_array_equal(backend.to_numpy(a), backend.to_numpy(b))


@pytest.mark.parametrize(
    "options",
    [
        {"sam_radius": 0.05},
        {"average": {"name": "ema", "decay": 0.5}},
        {"average": {"name": "swa", "start": 2}},
        {"sam_radius": 0.05, "average": "ema", "clip_norm": 1.0},
    ],
)
def test_what_is_around_the_rule_is_float32_s_to_the_rounding(halves, options):
    """Two gradients a step, averages and norms, of gradients that were scaled."""
    X, t = data()
    options = {"optimizer": "momentum", "batch_size": 25, "epochs": 3, "seed": 1} | options
    found, exact = (
        halves.to_numpy(train(model_of(halves, p), X, t, **options).model.w)
        for p in ("mixed", "float64")
    )
    start = halves.to_numpy(model_of(halves, "float64").w)
    assert np.linalg.norm(found - exact) < 2e-2 * np.linalg.norm(exact - start)


@pytest.mark.parametrize("options", [{"sam_radius": 0.05}, {"average": "ema"}])
def test_a_step_that_overflows_leaves_weights_and_averages(halves, options):
    """With a scale that is too large nothing moves, and nothing is left at a far point."""
    (X, t), before = data(), model_of(halves)
    options = options | {"batch_size": 50, "optimizer": "momentum"}
    state = train(before, X, t, **options, epochs=0).state
    state = replace(state, loss_scale=np.array([MOST, 0.0]))
    found = train(before, X, t, **options, epochs=2, state=state).state
    assert halves.to_numpy(found.loss_scale).tolist() == [MOST / 4, 0.0]
    for x, start in (
        (found.w, state.w),
        *((x, state.vectors[k]) for k, x in found.vectors.items()),
    ):
        np.testing.assert_array_equal(halves.to_numpy(x), halves.to_numpy(start))
    assert np.isfinite(found.history["loss"]).all()


# -------------------------------------------------------------------------------- the gradient


@pytest.mark.parametrize("options", [{}, {"l2": 0.01}], ids=["plain", "l2"])
def test_the_gradient_is_float32s_to_the_rounding_of_float16(halves, options):
    """2^-11 a number, some of it in each of three layers; the loss is of float32's own."""
    X, t = data()
    E, g = model_of(halves, **options).value_and_gradient(X, t)
    exact, h = model_of(halves, "float64", **options).value_and_gradient(X, t)
    g, h = halves.to_numpy(g), halves.to_numpy(h)
    assert g.dtype == np.float32
    assert abs(E - exact) < 1e-2 * exact
    assert np.linalg.norm(g - h) < 5e-3 * np.linalg.norm(h)
    assert np.linalg.norm(g - h) > 1e-6 * np.linalg.norm(h)  # it was float16 indeed


@pytest.mark.parametrize("streamed", [False, True])
def test_inputs_are_rounded_once_and_to_float16(halves, streamed):
    """In half the memory, scaled before; and what float16 cannot hold is said."""
    X = 1.7e9 + np.random.default_rng(0).uniform(0, 3600, (20, 3))
    scaling = Scaling.standard(X)
    one = Model(
        Network(3, [Dense(2)]), "mean_squared_error", backend=halves, precision="mixed",
        input_scaling=scaling,
    )  # fmt: skip
    feed = one.feed(Samples(X), streamed)
    assert feed.kind.x_dtype == "float16"
    e = one.objective.predict(halves, one.w, Arena(halves, "mixed", 20), 20)
    feed.bind(e)(slice(0, 20))
    x = halves.to_numpy(e.x)
    np.testing.assert_array_equal(x, scaling.apply(X, "float16"))
    assert x.dtype == "float16"
    plain = Model(one.network, "mean_squared_error", backend=halves, precision="mixed")
    with pytest.raises(InputError, match=r"beyond the range of float16, 6\.6e.* scale the inputs"):
        plain.predict(X)


def test_predictions_are_float32s_to_the_rounding_of_float16(halves):
    X, _ = data()
    y = model_of(halves).predict(X)
    assert y.dtype == np.float32
    np.testing.assert_allclose(y, model_of(halves, "float64").predict(X), atol=5e-3)


def test_small_deltas_do_not_vanish(halves):
    """Deltas that float16 rounds to zero give a gradient all the same."""
    net, X = Network(3, [Dense(1)]), np.arange(24.0, dtype=np.float32).reshape(8, 3)
    model = Model(net, "mean_squared_error", w=np.zeros(4), backend=halves, precision="mixed")
    delta = -2e-8 * np.ones((8, 1))
    assert (delta.astype(np.float16) == 0.0).all()
    _, g = model.value_and_gradient(X, -4.0 * delta)  # 2 (y - t) / 8, at y = 0
    expected = [*(X.T @ delta)[:, 0], delta.sum()]
    np.testing.assert_allclose(halves.to_numpy(g), expected, rtol=1e-2)


# -------------------------------------------------------------------------------------- training


def run(backend, precision="mixed", callbacks=(), state=None, **options):
    X, t = data()
    settings = {"epochs": 15, "batch_size": 8, "learning_rate": 0.01, "seed": 1} | options
    model = model_of(backend, precision, dropout=0.2)
    return train(model, X, t, callbacks=callbacks, state=state, **settings)


def same(a, b, backend):
    np.testing.assert_array_equal(backend.to_numpy(a.model.w), backend.to_numpy(b.model.w))
    assert a.history["loss"] == b.history["loss"]


@pytest.mark.parametrize("optimizer", ["adam", "adamw"])
def test_it_learns_as_float32_does(halves, optimizer):
    mixed = run(halves, optimizer=optimizer)
    plain = run(halves, "float32", optimizer=optimizer)
    assert mixed.history["loss"][-1] < 0.7 * mixed.history["loss"][0]
    np.testing.assert_allclose(mixed.history["loss"], plain.history["loss"], rtol=0.05)
    assert halves.to_numpy(mixed.state.loss_scale).tolist()[0] in (START, START / 2, START / 4)


def test_it_is_the_same_twice(halves):
    same(run(halves), run(halves), halves)


@pytest.mark.parametrize("optimizer", ["adam", "sgd", "adamw"])
def test_the_update_undoes_the_scale_to_the_bit(halves, optimizer):
    """As where it is undone before, since more than the update reads the gradient; through changes
    of the scale and steps that are left out."""
    start = run(halves, optimizer=optimizer, epochs=0).state
    start.loss_scale = np.array([2.0**24, GROWS_AFTER - 5.0], np.float32)
    inside, before = (
        run(halves, optimizer=optimizer, epochs=3, state=start, clip_norm=limit)
        for limit in (None, 1e30)
    )
    same(inside, before, halves)
    scales = (halves.to_numpy(x.state.loss_scale).tolist() for x in (inside, before))
    assert len({tuple(scale) for scale in scales}) == 1


FREE = 1e30  # a max_norm that nothing reaches, with which the copy is made anew in each run


@pytest.mark.parametrize("precision", ["mixed", "mixed_bfloat16"])
@pytest.mark.parametrize(
    "options",
    [
        {"optimizer": "adam"},
        {"optimizer": "adamw", "accumulate": 2},
        {"optimizer": "momentum", "rate_factors": {1: 0.0}},
        {"optimizer": "sgd", "clip_value": 0.1},
        {"optimizer": "muon"},
        {"record_steps": True},
    ],
    ids=str,
)
def test_the_copy_that_the_update_writes_is_the_weights_rounded(
    halves, monkeypatch, options, precision
):
    """What products read of w; also where a callback moves w between two steps, and in a run that
    is gone on with."""
    if isinstance(halves, Halves):
        monkeypatch.setattr(halves, "record", lambda call: call)
    X, t = data()

    class Shrinks:
        def on_batch_end(self, under_way):
            if under_way.state.step % 3 == 1:
                under_way.model.w = 0.9 * under_way.model.w

    def trained(most):
        layers = [Dense(16, "relu"), Dense(16, "gelu", max_norm=most), Dense(2, "softmax")]
        model = Model(
            Network(6, layers), "cross_entropy", seed=2, backend=halves, precision=precision
        )
        about = {"batch_size": 8, "seed": 1} | options
        first = train(model, X, t, epochs=2, **about)
        return train(model, X, t, epochs=4, callbacks=[Shrinks()], state=first.state, **about)

    same(trained(None), trained(FREE), halves)


def test_a_step_that_overflows_is_left_out(halves):
    """With a scale of 2^24 the deltas do not fit float16: it is halved until they do."""
    start = run(halves, epochs=0).state
    start.loss_scale = np.array([2.0**24, 0.0], np.float32)
    seen = []

    def watch(under_way):
        w = halves.to_numpy(under_way.state.w).copy()
        seen.append((w, float(halves.to_numpy(under_way.state.loss_scale)[0])))

    class EachBatch:
        on_batch_start = on_batch_end = staticmethod(watch)

    result = run(halves, epochs=3, state=start, callbacks=[EachBatch()])
    left_out = [
        (a[0] == b[0]).all() for a, b in zip(seen[::2], seen[1::2], strict=True) if b[1] < a[1]
    ]
    assert left_out
    assert all(left_out)
    assert np.isfinite(halves.to_numpy(result.model.w)).all()
    assert not result.diverged


def test_resumed_is_as_never_stopped(halves, tmp_path):
    """The loss scale is part of the state, on disk too; stopped in the middle of an epoch."""

    class Stop:
        def on_batch_end(self, under_way):
            if under_way.state.step == 17:
                under_way.stop("enough")

    whole = run(halves)
    part = run(halves, callbacks=[Stop()])
    save_state(part.state, tmp_path / "state", halves)
    found = load_state(tmp_path / "state")
    assert found.loss_scale.tolist() == halves.to_numpy(part.state.loss_scale).tolist()
    same(run(halves, state=found), whole, halves)


def test_recorded_steps_are_the_same(halves, monkeypatch):
    if isinstance(halves, Halves):
        monkeypatch.setattr(halves, "record", lambda call: call)
    same(run(halves, record_steps=True), run(halves), halves)


def test_a_float32_state_goes_on_in_mixed(halves):
    """And back: the weights are float32 in both."""
    start = run(halves, "float32", epochs=2).state
    there = run(halves, "mixed", epochs=4, state=start)
    assert there.state.epoch == 4
    back = run(halves, "float32", epochs=6, state=there.state)
    assert (back.state.epoch, back.state.loss_scale) == (6, None)


# ------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize("precision", ["tf32", "mixed", "mixed_bfloat16"])
def test_numpy_refuses_by_name(precision):
    with pytest.raises(BackendError, match=f"precision '{precision}': backend 'numpy' has float32"):
        model_of("numpy", precision)
    with pytest.raises(BackendError, match=precision):
        model_of("numpy", "float32").to(precision=precision)


# ------------------------------------------------------------------------------------ bfloat16


BFLOAT = "mixed_bfloat16"


@pytest.mark.parametrize("options", [{}, {"l2": 0.01}], ids=["plain", "l2"])
def test_the_gradient_is_float32s_to_the_rounding_of_bfloat16(halves, options):
    """2^-8 a number, some of it in each of three layers; the loss is of float32's own."""
    X, t = data()
    E, g = model_of(halves, BFLOAT, **options).value_and_gradient(X, t)
    exact, h = model_of(halves, "float64", **options).value_and_gradient(X, t)
    g, h = halves.to_numpy(g), halves.to_numpy(h)
    assert g.dtype == np.float32
    assert abs(E - exact) < 3e-2 * exact
    assert np.linalg.norm(g - h) < 4e-2 * np.linalg.norm(h)
    assert np.linalg.norm(g - h) > 1e-5 * np.linalg.norm(h)  # it was bfloat16 indeed


@pytest.mark.parametrize("size", [1e-20, 2e-8, 1e10])
def test_bfloat16_needs_no_scale(halves, size):
    """Deltas far below and above what float16 has give a gradient."""
    net, X = Network(3, [Dense(1)]), np.arange(24.0, dtype=np.float32).reshape(8, 3)
    model = Model(net, "mean_squared_error", w=np.zeros(4), backend=halves, precision=BFLOAT)
    delta = -size * np.ones((8, 1))
    _, g = model.value_and_gradient(X, -4.0 * delta)  # 2 (y - t) / 8, at y = 0
    expected = [*(X.T @ delta)[:, 0], delta.sum()]
    np.testing.assert_allclose(halves.to_numpy(g), expected, rtol=1e-2)
    assert model._delta_scale(8.0) is None


def test_bfloat16_takes_inputs_beyond_float16(halves):
    model = Model(Network(3, [Dense(2)]), "mean_squared_error", backend=halves, precision=BFLOAT)
    X = 1e6 * np.random.default_rng(0).normal(size=(20, 3))
    exact = model.to("numpy", "float64").predict(X)
    assert abs(model.predict(X) - exact).max() < 2e-2 * abs(exact).max()
    with pytest.raises(InputError, match=r"beyond the range of bfloat16, 3\.4e\+38"):
        model.predict(X * 1e34)


def test_bfloat16_learns_as_float32_does(halves, tmp_path):
    """The same twice, recorded, and resumed from disk, with no scale in the state."""

    class Stop:
        def on_batch_end(self, under_way):
            if under_way.state.step == 17:
                under_way.stop("enough")

    found, plain = run(halves, BFLOAT), run(halves, "float32")
    assert found.history["loss"][-1] < 0.7 * found.history["loss"][0]
    np.testing.assert_allclose(found.history["loss"], plain.history["loss"], rtol=0.1)
    assert found.state.loss_scale is None
    same(run(halves, BFLOAT), found, halves)
    with pytest.MonkeyPatch.context() as patch:
        if isinstance(halves, Halves):
            patch.setattr(halves, "record", lambda call: call)
        same(run(halves, BFLOAT, record_steps=True), found, halves)
    save_state(run(halves, BFLOAT, callbacks=[Stop()]).state, tmp_path / "state", halves)
    same(run(halves, BFLOAT, state=load_state(tmp_path / "state")), found, halves)


def test_bfloat16_needs_a_package_that_names_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "ml_dtypes", None)
    with pytest.raises(BackendError, match=r"'mixed_bfloat16' needs .* pip install ml_dtypes"):
        Count().require(BFLOAT)


def test_names_and_contradictions_are_refused():
    with pytest.raises(InputError, match=f"precision must be one of {', '.join(PRECISIONS)}"):
        model_of("numpy", "half")
    with pytest.raises(InputError, match="precision 'float64' has weights in float64, not in flo"):
        Model(network(), "cross_entropy", precision="float64", dtype="float32")


def test_moved_to_numpy_it_predicts_in_float32(halves):
    model = model_of(halves)
    moved = model.to("numpy")
    assert (moved.precision, moved.dtype) == ("float32", "float32")
    np.testing.assert_allclose(moved.predict(data()[0]), model.predict(data()[0]), atol=5e-3)
    assert model.to().precision == "mixed"
