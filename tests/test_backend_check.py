"""`mlp backends --check`: a right backend passes, each kind of wrong one is found and shown."""

import re
import tracemalloc
from functools import partial

import numpy as np
import pytest
from typer.testing import CliRunner

import backends
from backends import get_backend
from backends.instruments import instruments
from backends.numpy_backend import NumpyBackend
from mlp.app import backend_times
from mlp.app.backend_report import QUICK, BackendCheck, CheckFailed, checks, within
from mlp.app.backend_times import Timing
from mlp.app.cli import app


def report(backend):
    """(lines, check) of the short report."""
    check = BackendCheck(backend, QUICK)
    return list(check.lines()), check


def rows(lines):
    """{name: the other cells} of all tables."""
    found = {}
    for line in lines:
        if line.startswith("|"):
            name, *cells = (cell.strip() for cell in line.strip("|").split("|"))
            found[name] = cells
    return found


def test_a_backend_passes(backend):
    """Every check, and every time is above zero; memory is told by some."""
    lines, check = report(backend)
    found = rows(lines)
    assert check.failed == []
    assert lines[-1] == "Nothing failed."
    assert "Times are of this machine, with whatever else ran on it." in lines
    for name in checks(backend):
        assert found[name][0] in ("pass", "-"), (name, found[name])
    for name in ("kernel", "products", "training", "repeated", "moved"):
        for dtype in ("float64", "float32"):
            assert found[f"{name}, {dtype}"][0] == "pass"
    assert found["library"][0] == backend.version()
    assert found["device"][0] == backend.device_name()
    times = [found["float32"][1], *found["16-12-4, batch 16, float32"][1:3]]
    if backend.name.startswith("cupy"):
        for name in ("training, tf32", "training, mixed", "recorded, float32", "recorded, mixed"):
            assert found[name][0] == "pass"
        times.append(found["16-12-4, batch 16, mixed, recorded"][1])
    assert all(float(re.match(r"[\d.e-]+", text)[0]) > 0.0 for text in times)
    told = instruments(backend).held() is not None
    assert told == backend.name.startswith("cupy")  # NumPy tells while tracemalloc traces
    cells = found["memory"]
    if told or backend.name == "numpy":
        assert cells == ["pass", "0 B", "0 B"]
    else:
        assert cells[:2] == ["-", "the library does not tell"]


# ------------------------------------------------------------------ backends that are wrong


class Wrong(NumpyBackend):
    """The doubles: NumPy with one thing wrong."""

    name = "wrong"

    def __init__(self):
        super().__init__(jit=False)

    def product(self, a, b, out, precision="float32"):
        return partial(self.multiply, a, b, out)

    def multiply(self, a, b, out):
        np.dot(a, b, out)

    def total(self, x, out):
        return partial(self.add_up, super().total(x, out), out)

    def add_up(self, right, out):
        right()


class WrongKernel(Wrong):
    """Formulas of two arrays are off by a thousandth."""

    def fuse(self, formula, into=(0,)):
        kernel = super().fuse(formula, into)
        bind = kernel.bind

        def off(*arrays, scalars=0):
            run = bind(*arrays, scalars=scalars)

            def run_and_spoil(*scalars):
                run(*scalars)
                if len(arrays) == 2:
                    arrays[0][...] *= 1.001

            return run_and_spoil

        kernel.bind = off
        return kernel


class WrongProduct(Wrong):
    """The transposed right factor is taken as it lies."""

    def multiply(self, a, b, out):
        turned = b.shape[0] > 1 and b.strides[0] < b.strides[1]
        np.dot(a, np.reshape(b.T, b.shape) if turned else b, out)


class Rounding(Wrong):
    """Products with factors rounded to 10 bits, which nobody asked for."""

    def multiply(self, a, b, out):
        np.dot(a.astype(np.float16).astype(a.dtype), b, out)


class Drifting(Wrong):
    """Each run has another rounding."""

    runs = 0

    def add_up(self, right, out):
        right()
        Drifting.runs += 1
        out *= 1.0 + 1e-6 * (Drifting.runs % 7)


class Leaking(NumpyBackend):
    """Every batch's rows are kept."""

    def __init__(self):
        super().__init__(jit=False)
        self.kept = []

    def take(self, x, index, out):
        self.kept.append(x[index])
        super().take(x, index, out)


class Raising(Wrong):
    """A library that breaks in the middle."""

    def one_hot(self, labels, out, rows=None):
        raise RuntimeError("cudaErrorIllegalAddress: an illegal memory access\nwas encountered")


@pytest.mark.parametrize(
    ("wrong", "failed", "passed"),
    [
        (WrongKernel, ["kernel, float64", "kernel, float32", "gradient"], ["products, float32"]),
        (WrongProduct, ["products, float64", "products, float32"], ["kernel, float32"]),
        (Rounding, ["products, float32", "training, float64"], ["kernel, float32"]),
        (Drifting, ["repeated, float64", "repeated, float32"], ["products, float64"]),
        (Leaking, ["memory"], ["kernel, float64", "training, float64", "repeated, float32"]),
        (Raising, ["gradient", "training, float32", "moved, float64"], ["kernel, float32"]),
    ],
)
def test_what_is_wrong_is_found(wrong, failed, passed):
    lines, check = report(wrong())
    found = rows(lines)
    for name in failed:
        assert found[name][0] == "FAIL", name
    for name in passed:
        assert found[name][0] == "pass", name
    assert set(check.failed) >= set(failed)
    assert lines[-1].startswith("FAILED: ")
    assert all(name in lines[-1] for name in failed)


def test_what_was_raised_is_shown_whole():
    lines, _ = report(Raising())
    text = "\n".join(lines)
    assert "\ngradient:\n\n    RuntimeError: cudaErrorIllegalAddress: an illegal memory acc" in text
    assert "\n    was encountered\n" in text
    assert "\n| products, float32  | pass |" in text  # the rest went on
    assert "\n| float32            |      |" in text


def test_a_device_that_tells_nothing_is_checked_all_the_same(monkeypatch):
    def broken(self):
        raise OSError("no such counter")

    monkeypatch.setattr("backends.instruments.NumpyInstruments.facts", broken)
    lines, check = report(get_backend("numpy"))
    assert rows(lines)["not told"] == ["OSError: no such counter"]
    assert check.failed == []


def test_nan_is_no_small_error():
    assert within(0.5, 1.0) == ("5.0e-01", "1.0e+00")
    for error in (2.0, np.nan, np.inf):
        with pytest.raises(CheckFailed):
            within(error, 1.0)


# ------------------------------------------------------------------ times


def test_a_product_grows_until_it_takes_long_or_does_not_fit(monkeypatch):
    host = get_backend("numpy")
    patient = Timing(1, 0.0, patience=100.0)
    assert backend_times.product_rates(host, "float32", 256, patient)[1] == 256
    assert backend_times.product_rates(host, "float32", 256, Timing(1, 0.0, 0.0))[1] == 64
    small = backends.Memory(4 * 3 * 128**2 * 8, 2**30)
    monkeypatch.setattr(NumpyBackend, "memory", lambda self: small)
    assert backend_times.product_rates(host, "float64", 256, patient)[1] == 64
    assert backend_times.product_rates(host, "float32", 256, patient)[1] == 128


def test_calls_take_turns():
    calls = []
    found = backend_times.in_turn(
        get_backend("numpy"),
        [lambda: calls.append("a"), lambda: calls.append("b")],
        Timing(3, 0.0),
    )
    assert [len(seconds) for seconds in found] == [3, 3]
    assert "".join(calls)[-6:] == "ababab"


def test_the_products_are_those_of_the_step():
    """The shapes that a step multiplies, counted on a step."""

    class Noting(NumpyBackend):
        def __init__(self):
            super().__init__(jit=False)
            self.shapes = []

        def multiply(self, a, b, out):
            self.shapes.append((a.shape, b.shape, a.flags.c_contiguous, b.flags.c_contiguous))
            np.dot(a, b, out)

        def product(self, a, b, out, precision="float32"):
            return partial(self.multiply, a, b, out)

    from mlp.app.backend_report import net, points

    units, batch = (7, 5, 6, 3), 4
    host = Noting()
    backend_times.step_products(host, units, batch)()
    alone, host.shapes = host.shapes, []
    X, t = points(units, batch)
    backend_times.training_step(net(units, "relu", host), X, t, [np.arange(batch)])()
    assert sorted(alone) == sorted(host.shapes)
    assert len(alone) == 3 * 3 - 1


def test_the_timed_steps_take_their_batches_in_turn(backend, monkeypatch):
    """The rows gathered are those of `orders`, batch after batch, round and round."""
    from mlp.app.backend_report import net
    from mlp.data.feed import Feed

    seen = []

    class Noting(Feed):
        def bind(self, evaluation):
            fill = super().bind(evaluation)

            def noting(rows):
                fill(rows)
                seen.append(backend.to_numpy(evaluation.x)[:, 0].tolist())

            return noting

    monkeypatch.setattr("mlp.model.Feed", Noting)
    X = np.arange(24.0, dtype="float32").reshape(12, 2)  # row i starts with 2 i
    t = np.arange(12) % 2
    orders = np.random.default_rng(0).permutation(12).reshape(3, 4)
    run = backend_times.training_step(net((2, 3, 2), "tanh", backend), X, t, list(orders))
    for _ in range(4):
        run()
    assert seen == [(2 * orders[i]).tolist() for i in (0, 1, 2, 0)]


def test_a_call_is_recorded_where_it_can_be():
    class Recording(NumpyBackend):
        def record(self, call):
            return lambda: calls.append("replayed")

    calls = []
    replay, why = backend_times.recorded(Recording(), lambda: calls.append("made"))
    replay()
    assert (calls, why) == (["made", "replayed"], "")
    eager, why = backend_times.recorded(get_backend("numpy"), lambda: calls.append("again"))
    eager()
    assert calls[2:] == ["again", "again"]
    assert "cannot record" in why


def test_numpy_tells_of_its_arrays_alone():
    tell = instruments(get_backend("numpy"))
    assert tell.held() is None
    tracemalloc.start()
    try:
        before = tell.held()
        kept = [np.ones(1000), ["no array"] * 1000]
        assert tell.held() - before == kept[0].nbytes
    finally:
        tracemalloc.stop()


# ------------------------------------------------------------------ the command


def command(*arguments):
    return CliRunner().invoke(app, ["backends", *arguments])


def test_the_command_prints_the_report():
    done = command("--check", "numpy", "--quick")
    assert done.exit_code == 0, done.output
    assert done.output.startswith("# Backend `numpy` on this machine\n")
    assert "\x1b" not in done.output
    assert "Nothing failed." in done.output


def test_the_command_fails_with_the_check(monkeypatch):
    monkeypatch.setitem(backends.BACKENDS, "wrong", lambda device: WrongKernel())
    backends._made.cache_clear()
    try:
        done = command("wrong", "--check", "--quick")
    finally:
        backends._made.cache_clear()
    assert done.exit_code == 1
    assert re.search(r"^\| kernel, float64 +\| FAIL \|", done.output, re.M)


def test_a_backend_that_cannot_be_had_is_a_mistake():
    done = command("--check", "nunpy")
    assert done.exit_code == 2
    assert "did you mean 'numpy'" in done.output


def test_one_backend_is_listed_alone():
    done = command("numpy")
    assert done.exit_code == 0
    assert [line.split()[0] for line in done.output.splitlines()] == ["backend", "numpy"]
