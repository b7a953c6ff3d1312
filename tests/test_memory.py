"""The memory plan is what training takes; what does not fit is refused; running out is no loss."""

import gc
import re
import weakref

import numpy as np
import pytest

import mlp
from backends import PRECISIONS, Memory, get_backend
from backends.counting_backend import Count, shaped
from backends.cuda_kernel import Launch
from backends.host_memory import host_memory
from backends.numpy_backend import NumpyBackend
from mlp import Dense, InputError, Model, Network, train
from mlp.data.feed import Stream
from mlp.layers.noise import Noise
from mlp.memory import megabytes
from mlp.model import Evaluator
from mlp.training.checkpoint import load_state, save_state
from mlp.training.setup import step_memory

N = 50


def rows(n=N, kind="float64", seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, 6)).astype(kind), rng.integers(0, 3, n)


def model(backend="numpy", dropout=0.0, **options):
    layers = [Dense(40, "gelu", dropout=dropout, l2=0.01), Dense(30, "relu"), Dense(3)]
    net = Network(6, [*layers[:2], Dense(3, sources=(0, 2))])
    return Model(net, "cross_entropy", seed=1, backend=backend, **options)


def assert_same_run(one, other, backend):
    pairs = [(one.model.w, other.model.w)]
    pairs += [(one.state.vectors[name], v) for name, v in other.state.vectors.items()]
    for a, b in pairs:
        np.testing.assert_array_equal(backend.to_numpy(a), backend.to_numpy(b))
    assert one.history.keys() == other.history.keys()
    for name in other.history.keys() - {"seconds"}:
        assert one.history[name] == other.history[name], name


# -------------------------------------------------------------------------------- what is planned


class Living(NumpyBackend):
    """NumPy, with a count of the bytes of all arrays it has made and that are still in use."""

    def __init__(self, kept=True):
        super().__init__(jit=False)
        self.bytes, self.kept = 0, kept

    def counted(self, x):
        self.bytes += x.nbytes
        weakref.finalize(x, self.forget, x.nbytes)
        return x

    def forget(self, size):
        self.bytes -= size

    def empty(self, shape, dtype):
        return self.counted(super().empty(shape, dtype))

    def asarray(self, x, dtype=None):
        made = super().asarray(x, dtype)
        return made if np.shares_memory(made, x) else self.counted(made)

    def staging(self, shape, dtype):
        made = super().staging(shape, dtype)
        self.counted(made.host)
        return made

    def keeps(self, size):
        return self.kept


CASES = {
    "plain": {},
    "bytes": {"kind": "uint8"},
    "data in the working dtype": {"kind": "float32"},
    "float64": {"dtype": "float64"},
    "dropout": {"dropout": 0.5},
    "no shorter batch": {"batch_size": 10},
    "full batch": {"batch_size": None},
    "stochastic": {"batch_size": 1},
    "not shuffled": {"shuffle": False},
    "patience": {"patience": 3},
    "momentum": {"optimizer": "momentum"},
    "a rule that spares biases": {"optimizer": "adamw"},
    "matrices": {"optimizer": "muon"},
    "clipped": {"clip_norm": 1.0, "weight_decay": 0.1},
    "averaged": {"average": "ema", "patience": 2},
    "averaged by epochs": {"average": {"name": "swa", "start": 1}, "target_loss": 1e-9},
    "accumulated": {"accumulate": 2, "batch_size": 4},
    "sharpness-aware": {"sam_radius": 0.1},
    "target": {"target_loss": 1e-9},
    "validation": {"validation": rows(20, seed=1)},
    "sample weights": {"sample_weight": np.linspace(1, 2, N)},
    "all": {"target_loss": 1e-9, "validation": rows(20, seed=1), "patience": 2, "dropout": 0.5},
}


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_the_plan_is_exact(case, streamed):
    """Byte for byte what is in use while a batch runs, and the P bytes of the test for NaN."""
    given = {"batch_size": 8, "epochs": 2} | CASES[case]
    about = {name: given.pop(name) for name in {"dropout", "dtype"} & given.keys()}
    X, t = rows(kind=given.pop("kind", "float64"))
    backend = Living(kept=not streamed)
    one = model(backend, **about)
    before, found = backend.bytes, {}

    def note(run):
        found["used"], found["plan"] = backend.bytes - before, run.plan

    train(one, X, t, callbacks=[type("Note", (), {"on_batch_end": staticmethod(note)})()], **given)
    plan = found["plan"]
    assert plan.needed == found["used"] + one.network.parameters
    assert plan.streamed[0] is streamed


def test_the_plan_of_data_that_are_not_there_yet():
    """`mlp.plan` for so many samples is the plan of such samples."""
    seen = []
    note = type("Note", (), {"on_run_start": staticmethod(lambda run: seen.append(run.plan))})()
    options = {"batch_size": 8, "validation": rows(20, "uint8"), "epochs": 1, "callbacks": [note]}
    train(model(), *rows(kind="uint8"), patience=2, **options)
    asked = mlp.plan(model(), N, batch_size=8, patience=True, data_dtype="uint8", validation=20)
    assert (asked.parts, asked.streamed, asked.batch_size) == (seen[0].parts, (False, False), 8)


@pytest.mark.parametrize(("given", "said"), [
    ({"samples": 0}, "samples must be a whole number from 1 on, not 0"),
    ({"batch_size": 0}, "batch_size must be a whole number from 1 on, not 0"),
    ({"batch_size": 2.0}, "batch_size must be a whole number from 1 on, not 2.0"),
    ({"validation": -1}, "validation must be a whole number from 0 on, not -1"),
    ({"data_dtype": "unit8"}, "data_dtype must be a dtype of numbers, as 'uint8', not 'unit8'"),
    ({"data_dtype": "U5"}, "data_dtype must be a dtype of numbers, as 'uint8', not 'U5'"),
])  # fmt: skip
def test_settings_that_no_plan_has(given, said):
    with pytest.raises(InputError, match=f"^{said}$"):
        mlp.plan(model(), **{"samples": N} | given)


@pytest.mark.parametrize(("given", "said"), [
    ({"precision": "half"}, f"precision must be one of {', '.join(PRECISIONS)}, not 'half'"),
    ({"batch_size": 0}, "batch_size must be a whole number from 1 on, not 0"),
    ({"optimizer": "adem"}, "unknown optimizer 'adem'; did you mean 'adam'?"),
])  # fmt: skip
def test_settings_that_no_step_has(given, said):
    with pytest.raises(InputError, match=f"^{re.escape(said)}$"):
        model().network.summary(**{"batch_size": 8} | given)


def test_a_plan_takes_no_memory():
    """A net and data far too large for any machine are planned all the same."""
    count = Count()
    huge = Network(10**6, [Dense(10**6), Dense(10**6)])
    assert "memory of a step on 1000000 rows: weights 8000.0 GB" in huge.summary(10**6)
    assert shaped((10**9, 10**9), "float32").base.nbytes <= 8
    assert count.asked == 0
    plan = mlp.plan(model(), 10**12, batch_size=10**9)
    assert not plan.fits


@pytest.mark.parametrize("record_steps", [False, True])
@pytest.mark.parametrize("precision", ["float32", "mixed"])
@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("backend", ["cupy"], indirect=True)
def test_the_plan_is_what_the_pool_of_a_cuda_device_gives(
    backend, streamed, precision, record_steps, monkeypatch
):
    """What CuPy's pool has in use between two epochs, but for the P bytes of the test for NaN,
    which are back by then, and for blocks that are larger than their array."""
    import cupy

    monkeypatch.setattr(backend, "keeps", lambda size: not streamed)
    pool, found = cupy.get_default_memory_pool(), []
    net = Network(300, [Dense(400, "relu", dropout=0.2), Dense(300, "tanh"), Dense(10)])
    one = Model(net, "cross_entropy", backend=backend, precision=precision)
    X = np.random.default_rng(0).integers(0, 256, (5000, 300)).astype("uint8")
    gc.collect()  # what runs before this one had, and what goes in cycles
    before = pool.used_bytes()

    def note(run):
        found.append((run.plan.needed, pool.used_bytes() - before))

    train(
        one, X, np.arange(5000) % 10, batch_size=512, epochs=3, patience=2, validation=0.2,
        callbacks=[note], record_steps=record_steps,
    )  # fmt: skip
    for needed, used in found[1:]:  # the shorter batch comes once an epoch: recorded in the second
        assert used - 64 * 512 <= needed - net.parameters <= used


def test_a_table_and_a_line():
    backend = get_backend("numpy")
    plan = mlp.plan(model(backend), 10**6, batch_size=10_000, validation=1000)
    lines = str(plan).splitlines()
    names = ["weights", "optimizer", "data", "step", "validation", "needed", "free"]
    assert [line.split()[0] for line in lines] == names
    assert "10000 rows" in lines[3]
    for part, size in plan.parts.items():
        assert f"{part} {megabytes(size)}" in plan.line()
    assert plan.line().startswith(f"memory: {megabytes(plan.needed)} of ")
    assert sum(plan.parts.values()) == plan.needed


def test_summary_with_the_memory_of_a_step():
    net = Network(64, [Dense(32, "relu"), Dense(10, "softmax")])
    assert net.summary(256).startswith(net.summary() + "\nmemory of a step on 256 rows: weights ")
    parts = step_memory(net, 256, "float64", "momentum")
    # z is over a, and over delta in the last layer: the input, z and delta of 32, z of 10.
    assert parts == {
        "weights": 2410 * 8,
        "gradient": 2410 * 8,
        "optimizer": 2410 * 8,
        "activations and deltas": 256 * (64 + 32 + 32 + 10) * 8,
    }


# -------------------------------------------------------------------------------- what is refused


def limit(backend, free, monkeypatch):
    """A device with so many bytes free."""
    monkeypatch.setattr(backend, "memory", lambda: Memory(free, None))


@pytest.mark.parametrize("share", [0.2, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("streamed", [False, True])
def test_the_largest_batch_is_the_largest(backend, monkeypatch, share, streamed):
    """It fits and one row more does not; training says so before it starts, and then does it."""
    monkeypatch.setattr(backend, "keeps", lambda size: not streamed)
    X, t = rows(300)
    one = model(backend)
    limit(backend, None, monkeypatch)
    least, most = (mlp.plan(one, 300, batch_size=size).needed for size in (1, 300))
    limit(backend, int(least + share * (most - least)), monkeypatch)
    plan = mlp.plan(one, 300, batch_size=300)
    largest = plan.largest()
    assert 1 <= largest < 300
    assert plan.at(largest).fits
    assert not plan.at(largest + 1).fits
    events = []
    said = rf"needs [\d.]+ .B, .* has [\d.]+ .B free: the largest batch_size .* is {largest}, not 3"
    with pytest.raises(InputError, match=said):
        train(one, X, t, batch_size=300, epochs=1, callbacks=[events.append])
    assert events == []
    assert train(one, X, t, batch_size=largest, epochs=1).state.epoch == 1


def test_no_batch_fits(backend, monkeypatch):
    """What is too large is named, and what helps."""
    one = model(backend)
    limit(backend, 20_000, monkeypatch)
    with pytest.raises(
        InputError, match=r"even at batch_size 1, .* free: the \w+ takes? [\d.]+ .B"
    ):
        train(one, *rows(), epochs=1)
    assert mlp.plan(one, N).largest() == 0


@pytest.mark.thorough_on("strict:device1")
def test_data_that_leave_no_room_are_streamed(backend, monkeypatch):
    """They would fit on the device, but nothing beside them: the same run, by streaming."""
    X, t = rows(1000)
    expected = train(model(backend), X, t, batch_size=8, epochs=1)
    resident = mlp.plan(model(backend), 1000, batch_size=8)
    limit(backend, resident.needed - 1, monkeypatch)
    plan = mlp.plan(model(backend), 1000, batch_size=8)
    assert (resident.streamed[0], plan.streamed[0], plan.fits) == (False, True, True)
    result = train(model(backend), X, t, batch_size=8, epochs=1)
    assert_same_run(result, expected, backend)


def test_a_data_set_stays_whatever_the_weights_take(monkeypatch):
    """Half of what is free is for data, however large the net is; and for all data together."""
    backend = get_backend("numpy")
    size = N * (6 * 4 + 8)  # of the inputs and the class numbers on the device
    weights = 100 * size  # as if the net were much larger than the data
    asked = []
    monkeypatch.setattr(backend, "keeps", lambda size: asked.append(size) or size <= weights)
    assert mlp.plan(model(backend), N, validation=20).streamed == (False, False)
    assert asked == [size, size + 20 * (6 * 4 + 8)]
    monkeypatch.setattr(backend, "keeps", lambda asked: asked <= size)
    assert mlp.plan(model(backend), N, validation=20).streamed == (False, True)


def test_shared_memory_is_refused_only_above_all_there_is(monkeypatch):
    backend = get_backend("numpy")
    for memory, fits in (
        (Memory(1, 10**12, shared=True), True),
        (Memory(1, 1000, shared=True), False),
        (Memory(1, 10**12), False),
        (Memory(None, None), True),
        (Memory(None, None, shared=True), True),
    ):
        monkeypatch.setattr(backend, "memory", lambda memory=memory: memory)
        assert mlp.plan(model(backend), N).fits is fits
    monkeypatch.setattr(backend, "memory", lambda: Memory(1, 1000, shared=True))
    with pytest.raises(InputError, match=r"has 1\.0 kB in all"):
        train(model(backend), *rows())


def test_the_memory_of_this_machine():
    memory = host_memory()
    assert memory.shared
    assert 0 < memory.free <= memory.total == memory.limit


# ----------------------------------------------------------------------------- out of memory


def shortage(backend):
    """What the backend's library raises."""
    kind = backend.out_of_memory[-1]
    if backend.name.startswith("cupy"):
        return kind(12, 0)  # asked for 12 bytes
    return kind("no room for 12 bytes\nand more")


def failing(owner, patch, name, error, at=1):
    """Call number ``at`` of this method finds no memory."""
    call, calls = getattr(owner, name), [0]

    def fails(*arguments, **options):
        calls[0] += 1
        if calls[0] == at:
            raise error
        return call(*arguments, **options)

    patch.setattr(owner, name, fails)


# What a call is on a CUDA device once it is bound.
BOUND = {
    "take": lambda backend: (Launch, "__call__"),
    "copy": lambda backend: (backend.cupy.cuda.runtime, "memcpyAsync"),
}


def before_step(number, do):
    """A callback."""

    def look(run):
        if run.state.step + 1 == number:
            do()

    return type("Before", (), {"on_batch_start": staticmethod(look)})()


RUN = {"batch_size": 8, "epochs": 2, "validation": rows(20, seed=1), "patience": 5}
SAID = (
    r"out of memory on .* in epoch \d \(.* 12 bytes.*; [\d.]+ .B were planned.*\); use a "
    r"batch_size below 8, or end what else uses the memory; what was learned is kept"
)


@pytest.mark.thorough_on("strict:device1")
@pytest.mark.parametrize("step", [1, 7, 8, 14])
@pytest.mark.parametrize("name", ["take", "begin", "copy"])  # rows, what dropout draws, losses
def test_out_of_memory_in_a_step(backend, tmp_path, step, name):
    """The run ends like an interrupted one, with the weights of the last finished update; gone on
    with, it is the run that never stopped."""
    X, t = rows()
    expected = train(model(backend, 0.3), X, t, **RUN)
    one = model(backend, 0.3)
    weights = {0: backend.to_numpy(one.w).copy()}

    def note(run):
        weights[run.state.step] = backend.to_numpy(run.model.w).copy()

    noted = type("Note", (), {"on_batch_end": staticmethod(note)})()
    with pytest.MonkeyPatch.context() as patch:
        error = shortage(backend)
        owner = Noise if name == "begin" else backend
        if name in BOUND and backend.name.startswith("cupy"):
            owner, name = BOUND[name](backend)
        at_step = before_step(step, lambda: failing(owner, patch, name, error))
        ended = train(one, X, t, callbacks=[at_step, noted], **RUN)
    assert ended.out_of_memory
    assert not ended.diverged
    assert re.fullmatch(SAID, ended.stopped)
    assert ended.state.step == step - 1
    np.testing.assert_array_equal(backend.to_numpy(ended.state.w), weights[step - 1])
    save_state(ended.state, tmp_path / "state", backend)
    resumed = train(model(backend, 0.3), X, t, state=load_state(tmp_path / "state"), **RUN)
    assert_same_run(resumed, expected, backend)


@pytest.mark.parametrize("backend", ["cupy"], indirect=True)
@pytest.mark.parametrize("kind", ["CUDARuntimeError", "CUDADriverError", "CUBLASError"])
def test_cudas_own_errors_of_memory_end_a_run_the_same(backend, kind):
    """Not only those of CuPy's pool."""
    cuda, (X, t) = backend.cupy.cuda, rows()
    owner = next(x for x in (cuda.runtime, cuda.driver, cuda.cublas) if hasattr(x, kind))
    error = getattr(owner, kind)(3 if kind == "CUBLASError" else 2)
    with pytest.MonkeyPatch.context() as patch:
        at = before_step(3, lambda: failing(cuda.runtime, patch, "memcpyAsync", error))
        ended = train(model(backend), X, t, callbacks=[at], **RUN)
    assert ended.out_of_memory
    assert f"out of memory on {backend.device_name()} in epoch 1 (" in ended.stopped
    with pytest.MonkeyPatch.context() as patch:
        failing(backend, patch, "empty", error)
        with pytest.raises(InputError, match=r"^the weights: out of memory on .*; use smaller"):
            model(backend)


@pytest.mark.thorough_on("strict:device1")
@pytest.mark.parametrize(("owner", "name", "at"), [
    (Stream, "send", 1), (Stream, "send", 5), (Stream, "send", 8), (Evaluator, "__call__", 1),
    (Evaluator, "__call__", 2), (Evaluator, "__call__", 3), (Evaluator, "__call__", 4),
])  # fmt: skip
def test_out_of_memory_beside_the_steps(backend, monkeypatch, owner, name, at):
    """Where rows are sent, also those of the next step, and where an epoch is measured."""
    monkeypatch.setattr(backend, "keeps", lambda size: False)
    X, t = rows()
    options = RUN | {"target_loss": 1e-9}
    expected = train(model(backend), X, t, **options)
    with pytest.MonkeyPatch.context() as patch:
        failing(owner, patch, name, shortage(backend), at)
        ended = train(model(backend), X, t, **options)
    assert ended.out_of_memory
    resumed = train(model(backend), X, t, state=ended.state, **options)
    assert_same_run(resumed, expected, backend)


def test_out_of_memory_before_the_first_step(backend, monkeypatch):
    """In making a model, in setting up and in asking it: a message, no run."""
    X, t = rows()
    one = model(backend)
    error = shortage(backend)
    said = r"out of memory on .* \(.* 12 bytes.*\); use smaller batches"
    for what, call in (
        ("the weights", lambda: model(backend)),
        ("training, before its first step", lambda: train(one, X, t)),
        ("predict", lambda: one.predict(X)),
        ("evaluate", lambda: one.evaluate(X, t)),
        ("value_and_gradient", lambda: one.value_and_gradient(X, t)),
        ("gradient_check", lambda: mlp.gradient_check(one, X, t)),
    ):
        with monkeypatch.context() as patch:
            failing(backend, patch, "empty", error)
            with pytest.raises(InputError, match=f"^{what}: {said}"):
                call()


class Device(NumpyBackend):
    """NumPy as a device that has an error of its own for its memory."""

    out_of_memory = (type("DeviceFull", (MemoryError,), {}),)


def test_the_host_that_is_out_of_memory_is_named(monkeypatch):
    """Not the device: a smaller batch helps only the device."""
    backend, (X, t) = Device(jit=False), rows()
    monkeypatch.setattr(backend, "keeps", lambda size: False)
    for error, where in (
        (MemoryError("no room for 12 bytes"), "the host"),
        (backend.out_of_memory[0]("no room for 12 bytes"), backend.device_name()),
    ):
        with monkeypatch.context() as patch:
            failing(Stream, patch, "send", error, 3)
            ended = train(model(backend), X, t, batch_size=8, epochs=1)
        assert ended.out_of_memory
        assert f"out of memory on {where} in epoch 1 (no room for 12 bytes" in ended.stopped
        assert ("batch_size below 8" in ended.stopped) == (where != "the host")
        assert ended.stopped.endswith("; what was learned is kept")
        with monkeypatch.context() as patch:
            failing(backend, patch, "empty", error)
            with pytest.raises(InputError, match=f"^the weights: out of memory on {where} "):
                model(backend)


@pytest.mark.thorough_on("strict:device1")
@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
def test_out_of_memory_in_an_estimator(backend, solver):
    """A message, and the estimator as it was."""
    X, t = rows()
    one = mlp.MLPClassifier(
        (4,), solver=solver, max_iter=2000, backend=backend.name, tol=1e-2, random_state=0
    )
    before = [w.copy() for w in one.fit(X, t).coefs_]
    with pytest.MonkeyPatch.context() as patch:
        owner, name = type(backend), "copy"
        if solver == "adam" and backend.name.startswith("cupy"):
            owner, name = BOUND[name](backend)
        failing(owner, patch, name, shortage(backend), at=6)
        with pytest.raises(InputError, match=r"^fit: out of memory on .* \(.* 12 bytes"):
            one.fit(X, t)
    for w, kept in zip(one.coefs_, before, strict=True):
        np.testing.assert_array_equal(w, kept)
