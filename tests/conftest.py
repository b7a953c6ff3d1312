"""What the law tests share: the backends that are present, both dtypes, a measure of closeness."""

import os
import sys
from collections import Counter

import numpy as np
import pytest

from backends import BackendError, get_backend, numba_kernel
from backends.numpy_backend import NumpyBackend
from mlp.formulas.activations import learned

JIT = "numpy with numba"
BACKENDS = ("numpy", JIT, "strict", "strict:device1", "torch", "cupy", "cupy:1")
THOROUGH = "--thorough"


def pytest_addoption(parser):
    parser.addoption(
        THOROUGH,
        action="store_true",
        help="also what takes long, marked thorough; with -m thorough that alone",
    )


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config, items):
    """What is thorough only where it is asked for; a test may be so on some backends."""
    for item in items:
        slow = item.get_closest_marker("thorough_on")
        if slow and item.callspec.params.get("backend") in slow.args:
            item.add_marker("thorough")
    left_out = [item for item in items if item.get_closest_marker("thorough")]
    if left_out and not config.getoption(THOROUGH):
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if not item.get_closest_marker("thorough")]


def found(name):
    """The backend of that name."""
    if name == "numpy":
        return NumpyBackend(jit=False)
    if name != JIT:
        return get_backend(name)
    if not numba_kernel.available():
        raise BackendError("numba is not installed: pip install 'array-mlp[jit]'")
    return NumpyBackend(jit=True)


def why_not(name):
    """Why it cannot run here; nothing if it can."""
    try:
        found(name)
    except BackendError as error:
        return str(error)
    return ""


ABSENT = {name: reason for name in BACKENDS if (reason := why_not(name))}


def present(*names):
    """Those backends that can run here, as parameters; the others are named when all is over.

    array-api-strict's first device is thorough: its second refuses more.
    """
    marks = {"strict": [pytest.mark.thorough]}
    return [pytest.param(name, marks=marks.get(name, [])) for name in names if name not in ABSENT]


@pytest.fixture(params=present(*BACKENDS))
def backend(request):
    """Each backend in turn, within its scope."""
    if request.param in ABSENT:  # a test's own parameter
        pytest.skip(ABSENT[request.param])
    adapter = found(request.param)
    if hasattr(adapter, "torch"):
        adapter.torch.set_num_threads(
            1
        )  # its spinning threads and the other tests' slow each other
    with adapter.scope():
        yield adapter


@pytest.fixture(scope="session")
def without_matplotlib(tmp_path_factory):
    """A folder for PYTHONPATH."""
    folder = tmp_path_factory.mktemp("without")
    (folder / "matplotlib.py").write_text("raise ImportError('left out by the tests')")
    return folder


@pytest.fixture(autouse=True)
def _no_pictures(request, monkeypatch, without_matplotlib):
    """A picture takes longer than the runs of the tests: here and in the programs that they start
    there is none, but where a test is marked ``pictures``."""
    if request.node.get_closest_marker("pictures"):
        return
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    paths = (str(without_matplotlib), os.environ.get("PYTHONPATH", ""))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, paths)))


@pytest.fixture(params=["float64", "float32"])
def dtype(request):
    """The name of a working dtype."""
    return request.param


def numbers_of(activation, units, seed=7):
    """Values for what an activation learns, near where they start."""
    rng = np.random.default_rng(seed)
    found = learned(activation, units).values()
    return [start + 0.2 * rng.standard_normal(size) for size, start in found]


def assert_close(actual, expected, units=4.0, what=""):
    """Same dtype and shape, NaN where NaN and infinities where they are expected, and elsewhere

        |actual - expected| <= units · eps · max(1, |expected|)

    with eps of the dtype: numbers in the tests are of order one, and a sum that cancels to less
    still carries the rounding of its terms.
    """
    assert actual.dtype == expected.dtype, what
    assert actual.shape == expected.shape, what
    finite = np.isfinite(expected)
    np.testing.assert_array_equal(actual[~finite], expected[~finite], err_msg=what)
    error = np.abs(actual[finite] - expected[finite]) / np.maximum(1.0, np.abs(expected[finite]))
    worst = float(error.max(initial=0.0)) / np.finfo(expected.dtype).eps
    assert worst <= units, f"{what}: off by {worst:.1f} units of rounding, allowed are {units}"


def pytest_terminal_summary(terminalreporter):
    """What was not tested, aloud: one line for each reason, not one for each test."""
    reports = terminalreporter.stats.get("skipped", [])
    reasons = Counter(report.longrepr[2].removeprefix("Skipped: ") for report in reports)
    for reason, count in sorted(reasons.items()):
        terminalreporter.write_line(f"NOT TESTED ({count} tests): {reason}", yellow=True)
    for name, reason in ABSENT.items():
        terminalreporter.write_line(f"NOT TESTED, backend {name!r}: {reason}", yellow=True)
    if not terminalreporter.config.getoption(THOROUGH):
        terminalreporter.write_line(f"NOT TESTED without {THOROUGH}: what takes long", yellow=True)
