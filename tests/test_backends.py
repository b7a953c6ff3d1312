"""Every backend does the same with arrays; one that cannot be used says why and what to do."""

import re
import sys
from contextlib import nullcontext
from types import ModuleType, SimpleNamespace

import array_api_compat
import numpy as np
import pytest
from conftest import assert_close

import backends
from backends import Backend, BackendError, Memory, available, choose, get_backend
from backends.base import Kernel
from backends.cupy_backend import CupyBackend
from backends.numpy_backend import NumpyBackend
from mlp import Dense, Model, Network, train

# ------------------------------------------------------------------ names


def test_a_name_gives_the_same_backend_each_time():
    numpy = get_backend("numpy")
    assert get_backend("numpy") is numpy
    assert get_backend(numpy) is numpy
    assert get_backend() is numpy
    assert isinstance(numpy, Backend)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nunpy", "unknown backend 'nunpy'; did you mean 'numpy'?"),
        ("coda:1", "unknown backend 'coda:1'; did you mean 'cuda'?"),
        ("NumPy", "unknown backend 'NumPy'; did you mean 'numpy'?"),
        ("gpu", "unknown backend 'gpu'; did you mean 'cuda'?"),
        ("cpu", "unknown backend 'cpu'; did you mean 'numpy'?"),
        ("PyTorch:0", "unknown backend 'PyTorch:0'; did you mean 'torch'?"),
        ("", "unknown backend ''; known: numpy, cupy, cuda, torch, strict, auto"),
        (None, "a backend is named by text, as 'numpy' or 'cupy:1', not by None"),
        ("numpy:1", "backend 'numpy:1': NumPy has one device; write 'numpy'"),
        ("auto:1", "backend 'auto:1': auto takes no device; name it, as 'cupy:1'"),
    ],
)
def test_names_that_are_none(name, message):
    with pytest.raises(BackendError, match=re.escape(message)):
        get_backend(name)


def test_devices_that_a_library_lacks():
    pytest.importorskip("array_api_strict")
    with pytest.raises(BackendError, match="no device 'device9'; it has device1 and device2"):
        get_backend("strict:device9")
    pytest.importorskip("torch")
    with pytest.raises(BackendError, match=r"cannot use device 'nonsense' \(.*\); 'torch' is its"):
        get_backend("torch:nonsense")


@pytest.mark.parametrize("library", ["array_api_strict", "torch", "cupy"])
def test_package_missing(monkeypatch, library):
    monkeypatch.setitem(sys.modules, library, None)
    name = library.rpartition("_")[2]
    with pytest.raises(BackendError, match=rf"backend '{name}:7' needs the package .*pip install"):
        backends.BACKENDS[name]("7")


def test_package_that_cannot_be_imported(monkeypatch, tmp_path):
    """Told apart from one that is missing, by the first line of what it says."""
    (tmp_path / "cupy.py").write_text("raise ImportError('libcudart.so.13: no such file\\nmore')")
    monkeypatch.syspath_prepend(tmp_path)
    for name in [n for n in sys.modules if n.partition(".")[0] == "cupy" or n.endswith(".cupy")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delattr(array_api_compat, "cupy", raising=False)
    said = r"installed and cannot be imported \(libcudart\.so\.13: no such file\); install it again"
    with pytest.raises(BackendError, match=said):
        backends.BACKENDS["cupy"]("")


def test_choose_takes_the_first_name_given(monkeypatch):
    pytest.importorskip("array_api_strict")
    monkeypatch.setenv("MLP_BACKEND", "strict:device2")
    assert choose("strict", "numpy").name == "strict"  # the flag
    assert choose(None, "strict").name == "strict"  # the file or the argument
    assert choose(None, get_backend("numpy")).name == "numpy"
    assert choose(None, None).name == "strict:device2"  # the environment
    monkeypatch.setenv("MLP_BACKEND", "")
    assert choose(None).name == "numpy"
    monkeypatch.delenv("MLP_BACKEND")
    assert choose().name == "numpy"


def test_choose_does_not_hide_a_wrong_name(monkeypatch):
    monkeypatch.setenv("MLP_BACKEND", "numpi")
    with pytest.raises(BackendError, match="did you mean 'numpy'"):
        choose()


# ------------------------------------------------------------------ a CUDA that fails


class CudaError(RuntimeError):
    """Stands for cupy.cuda.runtime.CUDARuntimeError."""


def fails(message):
    def call(*arguments):
        raise CudaError(message)

    return call


@pytest.fixture
def fake_cupy(monkeypatch):
    """A CuPy whose runtime answers as told, in place of the one that may be installed."""

    def install(count, driver=13000, runtime=12090):
        cupy = ModuleType("cupy")
        answers = {"getDeviceCount": count, "driverGetVersion": driver}
        cupy.cuda = SimpleNamespace(
            runtime=SimpleNamespace(
                CUDARuntimeError=CudaError,
                is_hip=False,
                runtimeGetVersion=lambda: runtime,
                **{
                    name: answer if callable(answer) else lambda answer=answer: answer
                    for name, answer in answers.items()
                },
            ),
            Device=lambda index: SimpleNamespace(id=index),
        )
        compat = ModuleType("array_api_compat.cupy")
        monkeypatch.setitem(sys.modules, "cupy", cupy)
        monkeypatch.setitem(sys.modules, "array_api_compat.cupy", compat)
        monkeypatch.setattr(array_api_compat, "cupy", compat, raising=False)
        return cupy

    backends._made.cache_clear()
    yield install
    backends._made.cache_clear()


INSUFFICIENT = "cudaErrorInsufficientDriver: CUDA driver version is insufficient for CUDA runtime"
MISMATCH = "cudaErrorSystemDriverMismatch: system has unsupported display driver / cuda driver"
NO_DEVICE = "cudaErrorNoDevice: no CUDA-capable device is detected"


@pytest.mark.parametrize(
    ("device", "count", "driver", "visible", "parts"),
    [
        ("", fails(INSUFFICIENT), 0, None, ["no CUDA driver", "install NVIDIA's driver"]),
        ("", fails(INSUFFICIENT), fails("x"), None, ["no CUDA driver", "backend 'numpy'"]),
        (
            "",
            fails(INSUFFICIENT),
            11040,
            None,
            ["driver supports CUDA 11.4", "built for CUDA 12.9: update the driver"],
        ),
        (
            "",
            fails(INSUFFICIENT),
            12020,
            None,
            ["CUDA 12.2", "update the driver, or take", "pip install 'array-mlp[cuda12]'"],
        ),
        ("", fails(MISMATCH), 13000, None, ["driver was updated", "restart the machine"]),
        ("", 0, 13000, "", ["no CUDA device is visible", "CUDA_VISIBLE_DEVICES=''"]),
        ("", fails(NO_DEVICE), 13000, None, ["no CUDA device is visible", "nvidia-smi"]),
        ("", fails(NO_DEVICE), 13000, "", ["no CUDA device", "CUDA_VISIBLE_DEVICES=''"]),
        ("", fails(NO_DEVICE), 13000, "7", ["no CUDA device", "CUDA_VISIBLE_DEVICES='7'"]),
        ("1", 1, 13000, None, ["no device 1", "1 CUDA device visible", "choose one below 1"]),
        ("5", 2, 13000, "0,1", ["no device 5", "2 CUDA devices", "CUDA_VISIBLE_DEVICES='0,1'"]),
        ("x", 2, 13000, None, ["devices are numbers, as in 'cupy:1'"]),
        ("-1", 2, 13000, None, ["devices are numbers"]),
    ],
    ids=lambda x: None if callable(x) else "+".join(x) if isinstance(x, list) else repr(x),
)
def test_cuda_errors_are_told_apart(fake_cupy, monkeypatch, device, count, driver, visible, parts):
    fake_cupy(count, driver)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    name = f"cupy:{device}" if device else "cupy"
    with pytest.raises(BackendError) as caught:
        CupyBackend(device)
    assert str(caught.value).startswith(f"backend '{name}'")
    for part in parts:
        assert part in str(caught.value)


def test_the_first_cause_is_kept(fake_cupy):
    fake_cupy(fails(NO_DEVICE))
    with pytest.raises(BackendError) as caught:
        CupyBackend()
    assert isinstance(caught.value.__cause__, CudaError)


def test_cuda_is_another_name_for_cupy(fake_cupy, monkeypatch):
    fake_cupy(count=2)
    monkeypatch.setattr(backends, "_try_out", lambda backend: None)  # the fake cannot compute
    assert [get_backend(name).name for name in ("cuda", "cuda:1", "cupy")] == [
        "cupy",
        "cupy:1",
        "cupy",
    ]
    assert get_backend("cuda:1").index == 1


def test_a_device_that_does_not_compute_is_found_at_once(monkeypatch):
    class Broken(NumpyBackend):
        def product(self, a, b, out, precision="float32"):
            raise RuntimeError("failed to load libnvrtc.so.13\nand more")

    monkeypatch.setitem(backends.BACKENDS, "broken", lambda device: Broken())
    cause = r"'broken' is installed and does not compute \(RuntimeError: failed to load libnvrtc"
    with pytest.raises(BackendError, match=rf"{cause}\.so\.13\); .* use backend 'numpy'"):
        get_backend("broken")
    (row,) = available(("broken",))
    assert not row.usable
    assert "libnvrtc" in row.reason


def test_auto_is_numpy_where_cuda_does_not_compute(fake_cupy):
    fake_cupy(fails(INSUFFICIENT), driver=0)
    assert get_backend("auto").name == "numpy"
    backends._made.cache_clear()
    fake_cupy(count=1)  # found, and cannot make an array
    assert get_backend("auto").name == "numpy"


@pytest.fixture(params=["cudaErrorMemoryAllocation: out of memory", "CUBLAS_STATUS_ALLOC_FAILED"])
def full(request, fake_cupy, monkeypatch):
    """A CUDA device whose memory others have taken, found by an array or by cuBLAS."""
    fake_cupy(count=1)
    monkeypatch.setattr(CupyBackend, "scope", lambda self: nullcontext())
    monkeypatch.setattr(CupyBackend, "empty", fails(request.param))
    monkeypatch.setattr(CupyBackend, "memory", lambda self: Memory(3_000_000, 8_000_000_000))


def test_a_full_device_is_not_to_be_reinstalled(full, monkeypatch):
    said = r"'cupy': no memory .*\(CudaError: .*\); 3 MB of 8000 MB are free: end .*nvidia-smi"
    with pytest.raises(BackendError, match=said) as caught:
        get_backend("cupy")
    assert "reinstall" not in str(caught.value)
    monkeypatch.setattr(CupyBackend, "memory", fails("cudaErrorMemoryAllocation"))
    with pytest.raises(BackendError, match=r"\): end "):
        get_backend("cupy")


def test_auto_says_that_a_full_device_is_not_used(full):
    with pytest.warns(RuntimeWarning, match="computes on the CPU.*'cupy': no memory.*nvidia-smi"):
        assert get_backend("auto").name == "numpy"


def test_auto_is_cupy_where_cuda_computes():
    cuda = available(("cupy",))[0].usable
    assert get_backend("auto").name == ("cupy" if cuda else "numpy")


def test_available_says_why_not(fake_cupy):
    fake_cupy(fails(INSUFFICIENT), driver=0)
    numpy, cupy = available(("numpy", "cupy"))
    assert numpy.usable
    assert (numpy.reason, numpy.name) == ("", "numpy")
    assert numpy.device
    assert numpy.version == f"numpy {np.__version__}"
    assert not cupy.usable
    assert "no CUDA driver" in cupy.reason
    assert "install NVIDIA's driver" in cupy.reason
    assert cupy.memory == Memory()
    backends._made.cache_clear()
    fake_cupy(count=1)
    assert "is installed and does not compute" in available(("cupy",))[0].reason


def test_available_tries_every_library():
    rows = available()
    assert [row.name for row in rows] == ["numpy", "cupy", "torch", "strict"]
    for row in rows:
        assert bool(row.reason) != bool(row.device and row.version)


# ------------------------------------------------------------------ arrays in and out


def values(shape, dtype, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def shares_memory(backend, a, b):
    """Whether writing into a is seen in b."""
    a[...] = 7.0
    return bool((backend.to_numpy(backend.asarray(b)) == 7.0).all())


def test_round_trip(backend, dtype):
    for shape in [(), (0,), (5,), (3, 0), (4, 3)]:
        x = values(shape, dtype)
        there = backend.asarray(x)
        assert backend.owns(there)
        assert there.dtype == getattr(backend.xp, dtype)
        back = backend.to_numpy(there)
        assert isinstance(back, np.ndarray)
        assert_close(back, x, units=0.0)


@pytest.mark.parametrize("kind", ["uint8", "int64", "bool", "float32"])
def test_dtypes_of_data_are_kept_and_cast(backend, kind):
    x = (values((4, 3), "float64") > 0.0).astype(kind)
    there = backend.asarray(x)
    assert backend.to_numpy(there).dtype == x.dtype
    cast = backend.asarray(there, "float64")
    assert_close(backend.to_numpy(cast), x.astype("float64"), units=0.0)


@pytest.mark.parametrize(
    "x",
    [[1, 2.5], values((4, 6), "float64")[::2, 1::2], values((3, 2), "float64").T],
    ids=["list", "strided", "transposed"],
)
def test_asarray_of_what_numpy_takes(backend, x):
    np.testing.assert_array_equal(backend.to_numpy(backend.asarray(x, "float64")), np.asarray(x))


def test_asarray_of_a_read_only_array(backend, dtype):
    x = values((3, 2), dtype)
    x.flags.writeable = False
    assert_close(backend.to_numpy(backend.asarray(x)), x, units=0.0)


def test_asarray_does_not_copy_its_own(backend, dtype):
    x = backend.asarray(values((3, 2), dtype))
    for same in (backend.asarray(x), backend.asarray(x, dtype)):
        assert shares_memory(backend, same, x)
        x[...] = 0.0
    other = "float32" if dtype == "float64" else "float64"
    assert not shares_memory(backend, backend.asarray(x, other), x)


@pytest.mark.parametrize(("one", "other"), [("numpy", "torch"), ("torch", "numpy")])
def test_numpy_and_torch_share_memory(one, other):
    pytest.importorskip("torch")
    first, second = get_backend(one), get_backend(other)
    x = first.asarray(values((3, 2), "float32"))
    there = second.asarray(x)
    assert second.owns(there)
    assert not second.owns(x)
    assert shares_memory(second, there, x)


def assert_takes_over(backend, name):
    try:
        other = get_backend(name)
    except BackendError as error:
        pytest.skip(str(error))
    x = values((3, 2), "float32")
    theirs = other.asarray(x)
    assert backend.owns(theirs) == (backend.name == name)
    ours = backend.asarray(theirs)
    assert backend.owns(ours)
    assert_close(backend.to_numpy(ours), x, units=0.0)


@pytest.mark.parametrize("name", ["strict", "torch"])
def test_asarray_of_another_host_library(backend, name):
    assert_takes_over(backend, name)


@pytest.mark.parametrize("one", ["numpy", "cupy", "cupy:1"])
@pytest.mark.parametrize("other", ["cupy", "cupy:1"])
def test_asarray_of_another_device(one, other):
    try:
        backend = get_backend(one)
    except BackendError as error:
        pytest.skip(str(error))
    with backend.scope():
        assert_takes_over(backend, other)


def test_tensors_of_autograd_are_detached():
    torch = pytest.importorskip("torch")
    backend = get_backend("torch")
    x = torch.ones(2, requires_grad=True)
    assert not backend.asarray(x).requires_grad
    np.testing.assert_array_equal(backend.to_numpy(x), np.ones(2, np.float32))


def test_two_devices_are_told_apart():
    pytest.importorskip("array_api_strict")
    first, second = get_backend("strict"), get_backend("strict:device1")
    x = first.asarray(values((2,), "float32"))
    assert first.owns(x)
    assert not second.owns(x)
    assert second.owns(second.asarray(x))
    assert not first.owns(second.asarray(x))


# ------------------------------------------------------------------ what an adapter does


def test_make_fill_and_copy(backend, dtype):
    for kind in (dtype, getattr(backend.xp, dtype)):
        assert backend.empty((2, 3), kind).shape == (2, 3)
        x = backend.full((2, 3), 1.5, kind)
        assert_close(backend.to_numpy(x), np.full((2, 3), 1.5, dtype), units=0.0)
    x[1, :] = -2.0
    assert backend.to_numpy(x).tolist() == [[1.5] * 3, [-2.0] * 3]
    backend.copy(backend.asarray(np.arange(3, dtype=np.uint8)), x[0, :])
    assert backend.to_numpy(x).tolist() == [[0.0, 1.0, 2.0], [-2.0] * 3]
    assert backend.owns(x)


@pytest.mark.parametrize("turn_a", [False, True])
@pytest.mark.parametrize("turn_b", [False, True])
def test_product_into_a_part_of_a_flat_vector(backend, dtype, turn_a, turn_b):
    n, k, m = 5, 4, 3
    a, b = values((n, k), dtype, 1), values((k, m), dtype, 2)
    flat = backend.full((2 + n * m + 2,), 9.0, dtype)
    out = backend.xp.reshape(flat[2 : 2 + n * m], (n, m))
    left = backend.asarray(np.ascontiguousarray(a.T)).T if turn_a else backend.asarray(a)
    right = backend.asarray(np.ascontiguousarray(b.T)).T if turn_b else backend.asarray(b)
    backend.product(left, right, out)()
    found = backend.to_numpy(flat)
    assert found[[0, 1, -2, -1]].tolist() == [9.0] * 4
    assert_close(found[2:-2].reshape(n, m), a @ b, units=4.0 * k)


@pytest.mark.parametrize("shape", [(5, 3), (1, 3), (5, 1), (0, 3), (5,)])
def test_sum_over_the_first_axis(backend, dtype, shape):
    x = values(shape, dtype)
    flat = backend.full((6,), 9.0, dtype)
    expected = np.atleast_1d(x.sum(axis=0))
    backend.total(backend.asarray(x), flat[1 : 1 + expected.size])()
    found = backend.to_numpy(flat)
    assert_close(found[1 : 1 + expected.size], expected, units=8.0)
    assert (found[1 + expected.size :] == 9.0).all()


def test_totals_together_are_each_by_itself(backend, dtype):
    """More than one kernel takes, tall ones and narrow ones among them, to the bit."""
    shapes = [(7, 3), (9_000, 2), (40, 70), (5,), (0, 4), (3_000, 33)] * 4
    xs = [backend.asarray(values(shape, dtype, seed=i)) for i, shape in enumerate(shapes)]
    xs[2] = xs[2][:, 10:40]
    columns = [x.shape[1] if x.ndim == 2 else 1 for x in xs]
    apart, together = ([backend.full((m,), 9.0, dtype) for m in columns] for _ in range(2))
    for x, out in zip(xs, apart, strict=True):
        backend.total(x, out)()
    backend.totals(list(zip(xs, together, strict=True)))()
    for one, other in zip(apart, together, strict=True):
        np.testing.assert_array_equal(backend.to_numpy(one), backend.to_numpy(other))


@pytest.mark.parametrize("shape", [(700, 3), (600, 500)])
@pytest.mark.parametrize("strided", [False, True])
def test_total_is_the_sum_each_time(backend, dtype, shape, strided):
    """A bound sum reads what the array holds then, below and above the size that BLAS sums."""
    x = backend.asarray(np.zeros((shape[0], 2 * shape[1]), dtype))
    x = x[:, :: 2 if strided else 1]
    out = backend.full((x.shape[1],), 9.0, dtype)
    total = backend.total(x, out)
    for seed in range(2):
        numbers = np.random.default_rng(seed).normal(size=x.shape).astype(dtype)
        backend.copy(backend.asarray(numbers), x)
        total()
        # The rounding of a sum is of the size of its terms, added without their signs.
        error = abs(backend.to_numpy(out) - numbers.sum(axis=0, dtype="float64"))
        assert (error <= 8.0 * np.finfo(dtype).eps * abs(numbers).sum(axis=0)).all()


@pytest.mark.parametrize("kind", ["uint8", "float32", "float64"])
@pytest.mark.parametrize("shape", [(8, 3), (8,)])
def test_take_rows_and_cast_them(backend, dtype, kind, shape):
    x = (100.0 * abs(values(shape, "float64"))).astype(kind)
    index = np.array([7, 0, 3, 3], np.int64)
    out = backend.empty((4, *shape[1:]), dtype)
    backend.take(backend.asarray(x), backend.asarray(index), out)
    assert_close(backend.to_numpy(out), x[index].astype(dtype), units=0.0)


def test_take_labels(backend):
    labels = np.arange(9, dtype=np.int64)
    out = backend.empty((3,), "int64")
    backend.take(backend.asarray(labels), backend.asarray(np.array([8, 1, 4])), out)
    assert backend.to_numpy(out).tolist() == [8, 1, 4]


@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (3, 5, 4, 2), (2, 1, 3, 4), (4, 6, 1, 3)])
def test_stack(backend, dtype, shape):
    """A product for each member, of rows next to each other; either factor turned, or shared."""
    k, n, m, c = shape
    xp, rng = backend.xp, np.random.default_rng(0)
    X, W = rng.normal(size=(n, k, m)).astype(dtype), rng.normal(size=(k, m, c)).astype(dtype)

    def turned(x):
        return xp.permute_dims(x, (0, 2, 1))

    def of_members(x):
        return xp.permute_dims(x, (1, 0, 2))

    x, w = backend.asarray(X), backend.asarray(W)
    y = backend.full((n, k, c), np.nan, dtype)
    backend.stack(of_members(x), w, of_members(y))()
    Y = np.einsum("nkm,kmc->nkc", X, W)
    assert_close(backend.to_numpy(y), Y, units=8.0)
    g = backend.full((k, m, c), np.nan, dtype)
    backend.stack(turned(of_members(x)), of_members(y), g)()
    assert_close(backend.to_numpy(g), np.einsum("nkm,nkc->kmc", X, Y), units=32.0)
    back = backend.full((n, k, m), np.nan, dtype)
    backend.stack(of_members(y), turned(w), of_members(back))()
    assert_close(backend.to_numpy(back), np.einsum("nkc,kmc->nkm", Y, W), units=32.0)
    one = backend.asarray(np.ascontiguousarray(X[:, 0]))
    backend.stack(one, w, of_members(y))()
    assert_close(backend.to_numpy(y), np.einsum("nm,kmc->nkc", X[:, 0], W), units=8.0)
    backend.stack(one.T, of_members(y), g)()
    expected = np.einsum("nm,nkc->kmc", X[:, 0], backend.to_numpy(y))
    assert_close(backend.to_numpy(g), expected, units=32.0)


@pytest.mark.parametrize(("n", "classes", "columns"), [(1, 1, 1), (7, 3, 2), (300, 40, 8)])
def test_scatter(backend, dtype, n, classes, columns):
    """Sums of rows by their index, those without a row are 0; the same bits again; out may be part
    of a larger array, x of its columns."""
    rng = np.random.default_rng(0)
    wide, index = rng.normal(size=(n, columns + 2)).astype(dtype), rng.integers(0, classes, n)
    expected = np.zeros((classes, columns))
    np.add.at(expected, index, wide[:, 1:-1].astype(np.float64))
    flat = backend.full((classes * columns + 3,), np.nan, dtype)
    out = backend.xp.reshape(flat[3:], (classes, columns))
    call = backend.scatter(backend.asarray(wide)[:, 1:-1], backend.asarray(index), out)
    found = []
    for _ in range(2):
        call()
        found.append(backend.to_numpy(out).copy())
    np.testing.assert_array_equal(*found)
    assert_close(found[0], expected.astype(dtype), units=16.0)
    assert np.isnan(backend.to_numpy(flat)[:3]).all()


@pytest.mark.parametrize("width", [1, 7, 300])
def test_tables_turn_with_the_counter(backend, dtype, width):
    """What was found goes to its row; then comes the next row of each table, after the last one the
    first."""
    table = np.arange(4.0 * 3).reshape(4, 3).astype(dtype)
    order = np.arange(4 * width).reshape(4, width)
    tables = [backend.asarray(x) for x in (table, order)]
    places = [backend.full((1, 3), 9.0, dtype), backend.asarray(np.zeros((1, width), np.int64))]
    counter = backend.asarray(np.array([2]))
    found, kept = backend.full((1, 2), 0.0, dtype), backend.full((4, 2), 9.0, dtype)
    expected = np.full((4, 2), 9.0)
    turn = backend.turn(found, kept, tables, places, counter, 4)
    for b in (2, 3, 0, 2, 3):
        backend.upload(np.array([[b, -b]], dtype), found)
        backend.upload(np.array([b]), counter)
        turn()
        following, expected[b] = (b + 1) % 4, (b, -b)
        for place, x in zip(places, (table, order), strict=True):
            assert backend.to_numpy(place).tolist() == [x[following].tolist()]
        assert backend.to_numpy(counter).tolist() == [following]
        assert backend.to_numpy(kept).tolist() == expected.tolist()


@pytest.mark.parametrize("classes", [3, 1000])
def test_one_hot(backend, dtype, classes):
    labels = np.array([2, 0, 1, 2, classes - 1], np.int64)
    out = backend.full((5, classes), 9.0, dtype)
    backend.one_hot(backend.asarray(labels), out)
    if labels.size:
        rows = np.arange(2 * labels.size)[::-1] % labels.size  # some twice, in another order
        gathered = backend.full((rows.size, classes), 9.0, dtype)
        backend.one_hot(backend.asarray(labels), gathered, backend.asarray(rows))
        expected = np.eye(classes, dtype=dtype)[labels[rows]]
        assert_close(backend.to_numpy(gathered), expected, units=0.0)
    assert_close(backend.to_numpy(out), np.eye(classes, dtype=dtype)[labels], units=0.0)


def test_what_a_backend_says_of_itself(backend):
    memory = backend.memory()
    for size in (memory.free, memory.total):
        assert size is None or size > 0
    assert memory.total is None or memory.free <= memory.total
    assert backend.device_name()
    assert re.fullmatch(r"\S+ \d+\.\d+.*", backend.version())
    assert isinstance(backend.fuse(lambda xp, x: x + x), Kernel)
    backend.synchronize()


def test_the_list_of_what_an_adapter_gives_is_true():
    """The docstring of `backends.base` names all there is, but for what nobody has to give."""
    listed = re.findall(r"``(\w+)``", backends.base.__doc__)
    assert len(listed) == len(set(listed))
    has = {name for name in vars(Backend) if not name.startswith("_")}
    assert set(listed) == (has | {"name", "xp", "device"}) - {"full"}
    assert Backend.__abstractmethods__ == {"owns", "asarray", "to_numpy"}


def test_what_must_be_given_is_enough(dtype):
    """A new library's adapter passes the laws, and trains a net, before it has anything else."""
    pytest.importorskip("array_api_strict")
    given = get_backend("strict:device1")

    class Least(Backend):
        name, xp, device = "least", given.xp, given.device
        owns, asarray, to_numpy = given.owns, given.asarray, given.to_numpy

    least = Least()
    test_round_trip(least, dtype)
    test_make_fill_and_copy(least, dtype)
    test_product_into_a_part_of_a_flat_vector(least, dtype, True, False)
    test_sum_over_the_first_axis(least, dtype, (5, 3))
    test_take_rows_and_cast_them(least, dtype, "uint8", (8, 3))
    test_one_hot(least, dtype, 3)
    test_what_a_backend_says_of_itself(least)

    X, t = values((40, 3), dtype), np.arange(40) % 2
    net = Network(3, [Dense(4, "tanh"), Dense(2)])
    losses = [
        train(
            Model(net, "cross_entropy", backend=backend, dtype=dtype), X, t, epochs=3, batch_size=16
        ).history["loss"]
        for backend in (least, "numpy")
    ]
    np.testing.assert_allclose(*losses, rtol=1e-4)


def test_memory_that_is_not_there_is_told_by_what_the_backend_says(backend):
    with pytest.raises(backend.out_of_memory):
        backend.empty((1 << 52,), "float64")
    with pytest.raises(Exception) as found:  # noqa: PT011, whatever a library raises
        backend.empty((-1,), "float64")
    assert not isinstance(found.value, backend.out_of_memory)


def test_numpy_raises_nothing_within_its_scope():
    backend = get_backend("numpy")
    x = np.array([0.0, 1e38, 1.0], np.float32)
    with np.errstate(all="raise"), backend.scope():
        backend.fuse(lambda xp, x: x * 1e30 / x - x)(x)
    assert not np.isfinite(x).all()
