"""What the law tests share: the backends that are present, both dtypes, a measure of closeness."""

from collections import Counter

import numpy as np
import pytest

from backends import BackendError, get_backend, numba_kernel
from backends.numpy_backend import NumpyBackend
from mlp.formulas.activations import learned

JIT = "numpy with numba"
BACKENDS = ("numpy", JIT, "strict", "strict:device1", "torch", "cupy", "cupy:1")
EVERY = "--every-backend"


def pytest_addoption(parser):
    parser.addoption(
        EVERY,
        action="store_true",
        help="array-api-strict's first device too; its second refuses more, and is always tested",
    )


@pytest.fixture(params=BACKENDS)
def backend(request):
    """Each backend in turn, within its scope; one that cannot run here is skipped and says why."""
    if request.param == "strict" and not request.config.getoption(EVERY):
        pytest.skip(f"array-api-strict's first device is tested with {EVERY}, and its second here")
    try:
        if request.param in ("numpy", JIT):
            if request.param == JIT and not numba_kernel.available():
                raise BackendError("numba is not installed: pip install 'array-mlp[jit]'")
            found = NumpyBackend(jit=request.param == JIT)
        else:
            found = get_backend(request.param)
    except BackendError as error:
        pytest.skip(str(error))
    if hasattr(found, "torch"):
        found.torch.set_num_threads(1)  # its spinning threads and the other tests' slow each other
    with found.scope():
        yield found


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
