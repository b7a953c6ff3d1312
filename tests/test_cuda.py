"""What the CuPy adapter adds: bound calls that allocate nothing, several dtypes, staged copies,
recorded calls. Every law on each device that is visible."""

import gc
import re
import threading
import weakref
from types import SimpleNamespace

import ml_dtypes  # noqa: F401, which gives NumPy the name "bfloat16"
import numpy as np
import pytest
from conftest import ABSENT, assert_close, present

from backends import BackendError, get_backend
from backends.cuda_blas import (
    COMPUTE_32F,
    COMPUTE_32F_FAST_TF32,
    HANDLES,
    SUMS_AS_ASKED,
    Blas,
    Handle,
    _layout,
)
from backends.cuda_source import WARP_COLUMNS
from backends.cupy_backend import RESIDENT_SHARE, CupyBackend
from mlp.data.scaling import Scaling
from mlp.formulas.losses import LOSSES
from mlp.formulas.optimizers import OPTIMIZERS
from mlp.layers.dense import Dense
from mlp.model import Model
from mlp.network.graph import Network

if "cupy" in ABSENT:
    pytest.skip(ABSENT["cupy"], allow_module_level=True)


@pytest.fixture(params=present("cupy", "cupy:1"))
def backend(request):
    found = get_backend(request.param)
    with found.scope():
        yield found


def values(shape, dtype, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def bits(backend, x):
    return backend.to_numpy(x).tobytes()


def twice(backend, out, run):
    """The bits of ``out`` after each of two runs from the same start."""
    start = backend.asarray(backend.to_numpy(out))
    found = []
    for _ in range(2):
        backend.copy(start, out)
        run()
        found.append(bits(backend, out))
    return found


def test_rocm_is_refused_by_name(backend, monkeypatch):
    monkeypatch.setattr(backend.cupy.cuda.runtime, "is_hip", True)
    with pytest.raises(BackendError, match=r"'cupy:1': this CuPy is built for ROCm.*torch"):
        CupyBackend("1")


# ------------------------------------------------------------------ products

LAYOUTS = ["plain", "turned", "part", "turned part"]


def factor(backend, x, layout):
    """x on the device, as it stands, as a transposed view, or as a part of something wider."""
    turned = "turned" in layout
    x = np.ascontiguousarray(x.T if turned else x)
    if "part" in layout:
        whole = np.full((x.shape[0] + 2, x.shape[1] + 3), np.nan, x.dtype)
        whole[1:-1, 2:-1] = x
        there = backend.asarray(whole)[1:-1, 2:-1]
    else:
        there = backend.asarray(x)
    return there.T if turned else there


@pytest.mark.parametrize(("n", "k", "m"), [(5, 4, 3), (1, 4, 3), (5, 1, 3), (5, 4, 1), (1, 1, 1)])
@pytest.mark.parametrize("right", LAYOUTS)
@pytest.mark.parametrize("left", LAYOUTS)
def test_products(backend, dtype, left, right, n, k, m):
    a, b = values((n, k), dtype, 1), values((k, m), dtype, 2)
    flat = backend.full((2 + n * m + 2,), 9.0, dtype)
    out = flat[2 : 2 + n * m].reshape(n, m)
    one, other = factor(backend, a, left), factor(backend, b, right)
    assert None not in (_layout(one), _layout(other))
    run = backend.product(one, other, out)
    run()
    found = backend.to_numpy(flat)
    assert found[[0, 1, -2, -1]].tolist() == [9.0] * 4
    assert_close(found[2:-2].reshape(n, m), a @ b, units=4.0 * k)
    assert len(set(twice(backend, flat, run))) == 1


@pytest.mark.parametrize("shape", [(0, 4, 3), (5, 0, 3), (5, 4, 0)])
def test_products_without_elements(backend, dtype, shape):
    n, k, m = shape
    out = backend.full((n, m), 9.0, dtype)
    backend.product(backend.empty((n, k), dtype), backend.empty((k, m), dtype), out)()
    assert (backend.to_numpy(out) == 0.0).all()


def test_a_product_of_strides_that_cublas_does_not_take(backend, dtype):
    """By our own handle too: so it can be recorded, and is added up as it was asked for."""
    a, b = values((6, 8), dtype, 1), values((4, 3), dtype, 2)
    part = backend.asarray(a)[::2, ::2]
    assert _layout(part) is None
    out = backend.full((3, 6), 9.0, dtype)
    run = backend.product(part, backend.asarray(b), out[:, ::2])
    run()
    replay = backend.record(run)
    out.fill(9.0)
    replay()
    assert_close(backend.to_numpy(out)[:, ::2], a[::2, ::2] @ b, units=16.0)
    assert (backend.to_numpy(out)[:, 1::2] == 9.0).all()


def test_products_are_never_added_up_in_less_than_asked(backend):
    """cuBLAS may add up the parts of a float16 product in float16, unless it is told; CuPy's own
    handle stays as it was."""
    x = backend.asarray(values((4, 4), "float16"))
    own = backend.device.cublas_handle
    before = backend.blas.cublas.getMathMode(own)
    for precision in ("mixed", "tf32", "float32"):
        backend.product(x, x, backend.empty((4, 4), "float16"), precision)()
    assert backend.blas.cublas.getMathMode(backend.blas.handle().address) == SUMS_AS_ASKED == 16
    assert backend.blas.cublas.getMathMode(own) == before


def test_the_library_is_the_one_that_the_binding_calls(backend, monkeypatch):
    """Not one of its name, which may be of another CUDA: both are looked at by their addresses."""
    import ctypes

    binding = ctypes.CDLL(backend.blas.cublas.__file__)

    def address(function):
        return ctypes.cast(function, ctypes.c_void_p).value

    assert address(backend.blas.gemm) == address(binding.cublasGemmEx)
    opened = []
    monkeypatch.setattr(ctypes, "CDLL", lambda name: opened.append(name) or binding)
    Blas(backend.cupy)
    assert opened == [backend.blas.cublas.__file__]


NARROW = {"mixed": "float16", "mixed_bfloat16": "bfloat16"}


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("precision", NARROW)
@pytest.mark.parametrize("right", LAYOUTS)
@pytest.mark.parametrize("left", LAYOUTS)
def test_mixed_products_add_up_in_float32(backend, left, right, precision, wide):
    """The sum of 3000 products would be off by more than one in float16, by 16 in bfloat16."""
    n, k, m = 3, 3000, 2
    kind = NARROW[precision]
    a, b = ((1.0 + 0.1 * values(x, "float64", x[0])).astype(kind) for x in ((n, k), (k, m)))
    out = backend.empty((n, m), "float32" if wide else kind)
    backend.product(factor(backend, a, left), factor(backend, b, right), out, precision)()
    exact = a.astype("float64") @ b.astype("float64")
    error = abs(backend.to_numpy(out).astype("float64") - exact).max()
    rounded = {"float16": 1.1, "bfloat16": 8.1}[kind]
    assert error <= (k * 2.0**-24 * abs(exact).max() if wide else rounded)


def test_tf32_is_taken_only_where_it_is_asked_for(backend, monkeypatch):
    monkeypatch.setenv("CUPY_TF32", "1")
    used = []

    def gemm(handle, *arguments):
        used.append(arguments[-2].value)
        return 0

    monkeypatch.setattr(backend.blas, "gemm", gemm)
    x = {kind: backend.asarray(values((4, 4), kind)) for kind in ("float16", "float32")}
    for precision in ("float32", "tf32"):
        backend.product(x["float32"], x["float32"], backend.empty((4, 4), "float32"), precision)()
    backend.product(x["float16"], x["float16"], x["float16"], "mixed")()
    assert used == [COMPUTE_32F, COMPUTE_32F_FAST_TF32, COMPUTE_32F]


def test_cublas_says_what_it_cannot_do(backend, monkeypatch):
    x = backend.asarray(values((4, 4), "float32"))
    monkeypatch.setattr(backend.blas, "gemm", lambda *arguments: 15)
    with pytest.raises(RuntimeError, match="CUBLAS_STATUS_NOT_SUPPORTED"):
        backend.product(x, x, x)()


def test_products_follow_the_current_stream(backend):
    """Each stream has its handle, so that the work is in order with what else is asked of it."""
    a = backend.asarray(values((4, 4), "float32"))
    out = backend.empty((4, 4), "float32")
    run = backend.product(a, a, out)
    run()
    backend.synchronize()  # the stream does not wait for the one that wrote a
    stream = backend.cupy.cuda.Stream(non_blocking=True)
    with stream:
        out.fill(0.0)
        run()
        handle = backend.blas.handle()
    assert backend.blas.cublas.getStream(handle.address) == stream.ptr
    assert backend.blas.handle() is not handle
    stream.synchronize()
    assert_close(backend.to_numpy(out), values((4, 4), "float32") @ values((4, 4), "float32"))
    del backend.blas.handles[stream.ptr]


def test_a_stream_lasts_as_long_as_its_handle(backend):
    stream = backend.cupy.cuda.Stream(non_blocking=True)
    with stream:
        backend.blas.handle()
    number, alive = stream.ptr, weakref.ref(stream)
    del stream
    gc.collect()
    assert alive() is not None
    del backend.blas.handles[number]
    assert alive() is None


def test_a_handle_goes_on_its_own_device(backend):
    """It may be the last to be let go of, out of the backend's scope or in the collector."""
    cuda, where = backend.cupy.cuda, []
    if cuda.runtime.getDeviceCount() < 2:
        pytest.skip("there is one device, and a handle of another one needs two")
    handle = Handle(backend.blas, cuda.get_current_stream())
    destroy = handle.cublas.destroy
    handle.cublas = SimpleNamespace(
        destroy=lambda address: where.append(cuda.runtime.getDevice()) or destroy(address)
    )
    with cuda.Device(1 - backend.index):
        del handle
    assert where == [backend.index]


def test_each_thread_has_a_handle_for_its_own_default_stream(backend):
    """CUDA's per-thread default stream has one number in all threads and is another one in each;
    the handle goes with the thread."""
    found, handles = [], dict(backend.blas.handles)

    def ask():
        with backend.scope(), backend.cupy.cuda.Stream.ptds:
            handle = backend.blas.handle()
            assert backend.blas.handle() is handle
            found.append((id(handle), handle.workspace.ptr, weakref.ref(handle)))
            both.wait()

    both = threading.Barrier(2)
    threads = [threading.Thread(target=ask) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found[0][0] != found[1][0]
    assert found[0][1] != found[1][1]
    assert [alive() for *_, alive in found] == [None, None]
    assert backend.blas.handles == handles


def test_streams_that_come_and_go_leave_a_few_workspaces(backend):
    """A bound call still runs on each, also once its stream's handle was dropped."""
    a = backend.asarray(values((4, 4), "float32"))
    out, product = backend.empty((4, 4), "float32"), values((4, 4), "float32")
    run = backend.product(a, a, out)
    backend.synchronize()  # these streams do not wait for the one that wrote a
    streams = [backend.cupy.cuda.Stream(non_blocking=True) for _ in range(2 * HANDLES)]
    for stream in (*streams, streams[0]):
        with stream:
            out.fill(0.0)
            run()
            stream.synchronize()
            assert_close(backend.to_numpy(out), product @ product)
        assert len(backend.blas.handles) <= HANDLES
    assert len(backend.blas.handles) == HANDLES
    assert streams[1].ptr not in backend.blas.handles


# ------------------------------------------------------------------ sums, gathers, one-hot


@pytest.mark.parametrize(
    "shape", [(300_000,), (3_000, 3), (700, 40), (2, 1_000), (0, 3), (1,), (9_000, 33)]
)
def test_totals(backend, dtype, shape):
    x = values(shape, dtype)
    exact = np.atleast_1d(x.astype("longdouble").sum(axis=0))
    out = backend.full((exact.size + 2,), 9.0, dtype)
    run = backend.total(backend.asarray(x), out[1:-1])
    run()
    found = backend.to_numpy(out)
    assert found[[0, -1]].tolist() == [9.0, 9.0]
    depth = 64.0 + np.log2(1 + x.size)  # of the tree, with 32 rows or more a thread
    bound = depth * np.finfo(dtype).eps * abs(x).astype("longdouble").sum(axis=0)
    assert (abs(found[1:-1] - exact) <= bound + np.finfo(dtype).tiny).all()
    assert len(set(twice(backend, out, run))) == 1


@pytest.mark.parametrize("kind", ["float16", "bfloat16"])
def test_totals_of_narrow_numbers_in_float32(backend, kind):
    x = np.abs(values((5_000, 3), kind))
    out = backend.empty((3,), "float32")
    backend.total(backend.asarray(x), out)()
    assert_close(backend.to_numpy(out), x.astype("float64").sum(axis=0).astype("float32"), 64.0)


def test_totals_of_several_kinds_at_once(backend):
    kinds = ["float32", "float16", "float16", "bfloat16", "float64", "float32"]
    xs = [backend.asarray(values((700, 5 + i), kind)) for i, kind in enumerate(kinds)]
    outs = [backend.empty((5 + i,), "float32") for i in range(len(xs))]
    backend.totals(list(zip(xs, outs, strict=True)))()
    for x, out in zip(xs, outs, strict=True):
        alone = backend.empty(out.shape, "float32")
        backend.total(x, alone)()
        assert (backend.to_numpy(out) == backend.to_numpy(alone)).all()


def test_totals_of_parts(backend, dtype):
    x = values((50, 7), dtype)
    there = backend.asarray(x)
    for part, rows in ((there[:, 2:5], x[:, 2:5]), (there[::2], x[::2]), (there[:, 3], x[:, 3])):
        expected = np.atleast_1d(rows.sum(axis=0))
        out = backend.empty(expected.shape, dtype)
        backend.total(part, out)()
        assert_close(backend.to_numpy(out), expected, units=64.0)


REALS = ["float16", "bfloat16", "float32", "float64"]


@pytest.mark.parametrize("into", REALS)
@pytest.mark.parametrize("kind", ["bool", "uint8", "int8", "uint16", "int16", "int32", *REALS])
def test_gathers_cast(backend, kind, into):
    x = (100.0 * abs(values((8, 3), "float64"))).astype(kind)
    index = np.array([7, 0, 3, 3, 5], np.int64)
    out = backend.empty((5, 3), into)
    backend.take(backend.asarray(x), backend.asarray(index), out)
    assert (backend.to_numpy(out) == x[index].astype(into)).all()


def test_bound_gathers_read_whatever_index_they_are_given(backend):
    x, labels = values((9, 6), "float32"), np.arange(9) % 4
    index = np.array([[8, 1, 1], [0, 5, 7]], np.int64)
    out, spread = backend.empty((3, 6), "float64"), backend.empty((3, 4), "float32")
    both = [(backend.asarray(x), out), (backend.asarray(labels), spread)]
    take = backend.gathering(both)
    there = backend.asarray(index)
    for rows, i in zip(there, index, strict=True):
        take(rows)
        assert backend.to_numpy(out).tolist() == x[i].astype("float64").tolist()
        assert backend.to_numpy(spread).tolist() == np.eye(4)[labels[i]].tolist()


def test_gathers_of_parts_and_into_parts(backend):
    x = values((9, 6), "float32")
    there, index = backend.asarray(x), np.array([8, 1, 1], np.int64)
    for part, rows in ((there[:, 1:4], x[:, 1:4]), (there[:, ::2], x[:, ::2])):
        out = backend.full((3, 5), 9.0, "float64")
        backend.take(part, backend.asarray(index), out[:, 1:4])
        expected = np.full((3, 5), 9.0)
        expected[:, 1:4] = rows[index]
        assert backend.to_numpy(out).tolist() == expected.tolist()


def test_gathers_of_large_whole_numbers_are_exact(backend):
    x = np.array([2**62 + 1, -(2**53) - 1, 0], np.int64)
    out = backend.empty((3,), "int64")
    backend.take(backend.asarray(x), backend.asarray(np.array([2, 1, 0])), out)
    assert backend.to_numpy(out).tolist() == x[::-1].tolist()


@pytest.mark.parametrize("into", REALS)
@pytest.mark.parametrize("kind", ["uint8", "int32", "int64"])
def test_one_hot_of_every_kind(backend, kind, into):
    labels = np.array([2, 0, 1, 2], kind)
    out = backend.full((4, 3), 9.0, into)
    backend.one_hot(backend.asarray(labels), out)
    assert backend.to_numpy(out).tolist() == np.eye(3)[labels].tolist()


# ------------------------------------------------------------------ formulas of several dtypes


def affine(xp, z, a, b, scale):
    return xp.tanh(z * scale + b) * a


@pytest.mark.parametrize("z", REALS)
@pytest.mark.parametrize("a", REALS)
@pytest.mark.parametrize("b", ["float16", "float32", "float64"])
def test_a_formula_computes_in_the_widest_type_and_at_least_float32(backend, z, a, b):
    arrays = [values((6, 5), z, 1), values((6, 5), a, 2), values((5,), b, 3)]
    on_device = [backend.asarray(x.copy()) for x in arrays]
    backend.fuse(affine).bind(*on_device, scalars=1)(0.3)
    real = np.result_type("float32", *(x for x in (z, a, b) if x != "bfloat16"))
    wide = [x.astype(real) for x in arrays]
    exact = affine(np, *wide, real.type(0.3))
    # Stored in a narrower type, what is left is the rounding of the result.
    found = backend.to_numpy(on_device[0])
    if z == "bfloat16":
        np.testing.assert_allclose(found.astype("float64"), exact.astype(z).astype("float64"), 8e-3)
    else:
        assert_close(found, exact.astype(z), units=16.0 if z == real else 1.0)


def test_float16_alone_computes_in_float32(backend):
    """x + y - x loses y in float16; in float32 it does not."""

    def through(xp, x, y):
        return (x + y) - x

    x, y = (np.full(4, v, "float16") for v in (2048.0, 0.5))
    assert ((x + y) - x == 0.0).all()
    there = [backend.asarray(v) for v in (x, y)]
    backend.fuse(through).bind(*there)()
    assert backend.to_numpy(there[0]).tolist() == [0.5] * 4


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("shape", [(1,), (1, 1)])
def test_numbers_and_arrays_of_one_element_give_the_same_bits(backend, dtype, name, shape):
    rule = OPTIMIZERS[name]()
    start = [abs(values((501,), dtype, i)) + 0.1 for i in range(2 + len(rule.state))]
    constants = rule.constants(0.1, 3)
    kernel = backend.fuse(rule.update, (0, *range(2, 2 + len(rule.state))))
    by_value = [backend.asarray(x.copy()) for x in start]
    kernel.bind(*by_value, scalars=len(constants))(*constants)
    read = [backend.asarray(x.copy()) for x in start]
    if shape == (1, 1):  # the vectors as rows
        read = [x[None, :] for x in read]
    kernel.bind(*read, *(backend.full(shape, c, dtype) for c in constants))()
    for one, other in zip(by_value, read, strict=True):
        assert bits(backend, one) == bits(backend, other)


@pytest.mark.parametrize("columns", [2, 10, 32, 33, 100, WARP_COLUMNS, WARP_COLUMNS + 1, 10_000])
def test_softmax_with_cross_entropy_of_any_width(backend, dtype, columns):
    """One kernel that gives every row's cost and its derivative, however many classes."""
    loss = LOSSES["cross_entropy"]

    def output(xp, z, cost, t):
        return loss.derivative(xp, z, t), xp.sum(loss.cost(xp, z, t), axis=1, keepdims=True)

    n = 5 if columns > 1000 else 70
    z, t = 3.0 * values((n, columns), dtype), np.zeros((n, columns), dtype)
    t[np.arange(n), np.arange(n) % columns] = 1.0
    arrays = [backend.asarray(x) for x in (z, np.zeros((n, 1), dtype), t)]
    run = backend.fuse(output, (0, 1)).bind(*arrays)
    found = twice(backend, arrays[0], run)
    assert len(set(found)) == 1
    exact = output(np, z.astype("float64"), None, t.astype("float64"))
    for actual, e in zip(arrays, exact, strict=False):
        assert_close(backend.to_numpy(actual), e.astype(dtype), units=32.0)


@pytest.mark.parametrize("columns", [3, 40, WARP_COLUMNS + 1])
@pytest.mark.parametrize("place", [0, -1])
def test_the_maximum_of_a_row_with_nan_is_nan(backend, dtype, columns, place):
    def top(xp, x, c):
        return xp.max(x, axis=1, keepdims=True)

    x = values((6, columns), dtype)
    x[1, place], x[3] = np.nan, -np.inf
    c = backend.empty((6, 1), dtype)
    backend.fuse(top, (1,)).bind(backend.asarray(x), c)()
    assert_close(backend.to_numpy(c), x.max(axis=1, keepdims=True), units=0.0)


# ------------------------------------------------------------------ what running a call allocates


@pytest.fixture
def allocations(backend):
    """How often memory is asked for while the block runs, of the pool or of the device."""
    counted = []

    class Count(backend.cupy.cuda.MemoryHook):
        name = "count"

        def malloc_preprocess(self, **kwargs):
            counted.append(kwargs["size"])

    return SimpleNamespace(hook=Count(), counted=counted)


def test_bound_calls_allocate_nothing(backend, allocations, dtype):
    a, b = (backend.asarray(values((64, 64), dtype, seed)) for seed in (1, 2))
    out, column = backend.empty((64, 64), dtype), backend.empty((64, 1), dtype)
    bytes_ = backend.asarray(np.arange(64 * 64, dtype=np.uint8).reshape(64, 64))
    index = backend.asarray(np.arange(63, -1, -1, dtype=np.int64))
    long = backend.asarray(values((100_000,), dtype))
    host, loss = values((64, 64), dtype), LOSSES["cross_entropy"]

    def output(xp, z, cost, t):
        return loss.derivative(xp, z, t), xp.sum(loss.cost(xp, z, t), axis=1, keepdims=True)

    calls = {
        "product": backend.product(a, b.T, out),
        "total": backend.total(a, column[:, 0]),
        "long total": backend.total(long, column[:1, 0]),
        "elementwise": backend.fuse(lambda xp, x, p: x * p).bind(out, scalars=1),
        "rows": backend.fuse(output, (0, 1)).bind(out, column, a),
        "take": lambda: backend.take(bytes_, index, out),
        "one-hot": lambda: backend.one_hot(index, out),
        "copy": lambda: backend.copy(a, out),
        "cast": lambda: backend.copy(bytes_, out),
        "upload": lambda: backend.upload(host, out),
        "fill": lambda: out.__setitem__(..., 2.0),
    }
    arguments = {"elementwise": (0.5,)}
    for name, call in calls.items():
        call(*arguments.get(name, ()))  # the first time compiles
        with allocations.hook:
            call(*arguments.get(name, ()))
        assert allocations.counted == [], name
    with allocations.hook:
        backend.empty((3,), dtype)
    assert len(allocations.counted) == 1  # it does count


def test_bound_calls_keep_their_arrays(backend):
    """What was allocated since did not get their memory."""
    x, y, u, v, s = (values((64, 64), "float32", seed) for seed in range(5))
    out = backend.empty((64, 64), "float32")
    there = backend.asarray
    add = backend.fuse(lambda xp, out, x, y: x + y)
    calls = [
        backend.product(there(x), there(y), out),
        add.bind(out, there(u), there(v)),
        backend.total(there(s), out[0]),
    ]
    taken = [backend.full((64, 64), np.nan, "float32") for _ in range(20)]
    for call, expected in zip(calls, [x @ y, u + v, s.sum(axis=0)], strict=True):
        call()
        found = backend.to_numpy(out)
        assert_close(found[0] if expected.ndim == 1 else found, expected, units=512.0)
    assert len(taken) == 20


def test_upload(backend, dtype):
    x = values((6, 4), dtype)
    out = backend.full((8, 4), 9.0, dtype)
    backend.upload(x, out[1:-1])
    backend.upload(np.ascontiguousarray(x.T).T[:1], out[:1])
    found = backend.to_numpy(out)
    assert_close(found[1:-1], x, units=0.0)
    assert_close(found[:1], x[:1], units=0.0)
    assert (found[-1] == 9.0).all()


# ------------------------------------------------------------------ what fits, what is there


def test_free_memory_counts_what_the_pool_holds(backend):
    pool = backend.cupy.get_default_memory_pool()
    pool.free_all_blocks()
    before = backend.memory()
    x = backend.empty((1 << 20,), "float32")
    during = backend.memory()
    del x
    after = backend.memory()
    assert during.free <= before.free - (1 << 22)
    assert after.free >= before.free - (1 << 21)
    assert before.total == after.total >= before.free


def test_free_memory_counts_what_the_pool_may_take(backend):
    pool = backend.cupy.get_default_memory_pool()
    before = pool.get_limit()
    try:
        for more in (1 << 22, 0):
            pool.set_limit(size=pool.used_bytes() + more)
            assert backend.memory().free == more
    finally:
        pool.set_limit(size=before)
    assert backend.memory().free > 1 << 22


def test_a_data_set_stays_where_it_takes_at_most_its_share(backend, monkeypatch):
    monkeypatch.setattr(CupyBackend, "memory", lambda self: SimpleNamespace(free=1000, total=4000))
    share = int(1000 * RESIDENT_SHARE)
    assert backend.keeps(share)
    assert not backend.keeps(share + 1)


def test_memory_that_is_not_there_is_told_by_its_own_error(backend):
    with pytest.raises(backend.out_of_memory):
        backend.empty((1 << 40,), "float64")
    assert_close(backend.to_numpy(backend.full((2,), 1.0, "float32")), np.ones(2, "float32"))


def test_every_error_that_tells_of_memory_is_known_by_its_status(backend):
    """Streams, recordings, kernels and cuBLAS's handles take memory beside CuPy's pool."""
    cuda = backend.cupy.cuda
    kinds = cuda.runtime.CUDARuntimeError, cuda.driver.CUDADriverError, cuda.cublas.CUBLASError
    for kind, status in zip(kinds, (2, 2, 3), strict=True):
        assert backend.exhausted(kind(status))
        assert not backend.exhausted(kind(1))
    assert backend.exhausted(cuda.memory.OutOfMemoryError(12, 0))
    assert not backend.exhausted(RuntimeError("out of memory"))


@pytest.mark.parametrize(
    ("capability", "precision", "least"),
    [
        ("75", "tf32", "8.0"),
        ("61", "tf32", "8.0"),
        ("61", "mixed", "7.0"),
        ("75", "mixed_bfloat16", "8.0"),
    ],
)
def test_an_older_device_says_so(backend, monkeypatch, capability, precision, least):
    monkeypatch.setattr(backend, "device", SimpleNamespace(compute_capability=capability))
    cause = rf"precision '{precision}': .* \(backend '{backend.name}'\) has compute capability "
    shown = re.escape(f"{capability[0]}.{capability[1]}, it needs {least}")
    with pytest.raises(BackendError, match=cause + shown):
        backend.require(precision)


@pytest.mark.parametrize(
    ("capability", "precision"),
    [
        ("80", "tf32"),
        ("70", "mixed"),
        ("75", "mixed"),
        ("100", "tf32"),
        ("61", "float64"),
        ("80", "mixed_bfloat16"),
    ],
)
def test_a_device_that_can_is_taken(backend, monkeypatch, capability, precision):
    monkeypatch.setattr(backend, "device", SimpleNamespace(compute_capability=capability))
    backend.require(precision)


def test_a_precision_that_is_none(backend):
    with pytest.raises(BackendError, match="precision 'float8'"):
        backend.require("float8")


# ------------------------------------------------------------------ staged copies


def test_staged_rows_arrive_in_order(backend, dtype):
    """Two buffers in turn, each batch checked by what the device made of it."""
    rows, batches = 100, 30
    staged = [backend.staging((rows, 50), dtype) for _ in range(2)]
    sums = backend.full((batches, 50), 0.0, dtype)
    totals = {
        (i, n): backend.total(staged[i].device[:n], sums[i])
        for i in range(2)
        for n in (rows, rows // 2)
    }
    expected = []
    for batch in range(batches):
        buffer, n = staged[batch % 2], rows if batch % 3 else rows // 2
        x = values((n, 50), dtype, batch)
        buffer.wait()
        buffer.host[:n] = x
        buffer.send(n)
        buffer.receive()
        totals[batch % 2, n]()
        if batch >= 2:  # the sums' own places are 0 and 1
            backend.copy(sums[batch % 2], sums[batch])
        buffer.release()
        expected.append(x.sum(axis=0))
    found = backend.to_numpy(sums)
    assert_close(found[2:], np.array(expected[2:]), units=64.0)


def test_a_copy_waits_for_the_last_reader(backend):
    """The device copies out of the buffer many times; only then may the next rows come in."""
    staged = backend.staging((200_000,), "float32")
    kept = backend.empty((50, 200_000), "float32")
    for round_ in range(3):
        staged.wait()
        staged.host[:] = round_
        staged.send(200_000)
        staged.receive()
        for row in range(50):
            backend.copy(staged.device, kept[row])
        staged.release()
        staged.wait()
        staged.host[:] = -1.0  # the copy has left
        staged.send(200_000)
        backend.copy(kept[0], kept[1])
        found = backend.to_numpy(kept)
        assert (found == round_).all()
        staged.receive()
        staged.release()


@pytest.fixture
def locked(backend, monkeypatch):
    """Bytes of each piece of page-locked memory that is asked for, of CUDA or of CuPy's pool."""
    cuda, asked = backend.cupy.cuda, []
    memory, pool = cuda.PinnedMemory, cuda.alloc_pinned_memory
    monkeypatch.setattr(cuda, "PinnedMemory", lambda size: asked.append(size) or memory(size))
    monkeypatch.setattr(cuda, "alloc_pinned_memory", lambda size: asked.append(size) or pool(size))
    return asked


SENT = {
    "rows": lambda x: x,
    "columns first": np.asfortranarray,
    "every other": lambda x: np.repeat(x, 2, axis=0)[::2],
    "flat": np.ravel,
}


@pytest.mark.parametrize("layout", SENT)
@pytest.mark.parametrize("kind", ["float64", "float32", "uint8"])
def test_a_large_array_is_sent_through_a_bounded_buffer(backend, monkeypatch, locked, layout, kind):
    """In its own type or cast on the way, to an array of its own or to one that is there."""
    for module in ("cuda_stream", "cupy_backend"):
        monkeypatch.setattr(f"backends.{module}.BUFFER", 1000)
    x = SENT[layout](abs(100.0 * values((701, 3), "float64")).astype(kind))
    for dtype in (None, "float32"):
        found = backend.asarray(x, dtype)
        assert found.flags.c_contiguous
        assert (backend.to_numpy(found) == x.astype(dtype or kind)).all()
    there = backend.full((len(x) + 9, *x.shape[1:]), 9, kind)
    backend.upload(x, there[5 : 5 + len(x)])
    found = backend.to_numpy(there)
    assert (found[5 : 5 + len(x)] == x).all()
    assert (found[:5] == 9).all()
    assert (found[5 + len(x) :] == 9).all()
    assert locked
    assert max(locked) <= 500


def test_the_plan_counts_what_is_page_locked(backend, monkeypatch, locked):
    """Of a data set that stays on the device the buffer that it goes through, of one that streams
    the rows on their way; to the byte, and no more is asked for."""
    from mlp.training.memory_plan import plan

    for module in ("cuda_stream", "cupy_backend"):
        monkeypatch.setattr(f"backends.{module}.BUFFER", 1000)
    model = Model(Network(7, [Dense(3)]), "mean_squared_error", backend=backend)
    X, t = values((200, 7), "float64"), values((200, 3), "float64")
    for keeps in (True, False):
        monkeypatch.setattr(backend, "keeps", lambda size, keeps=keeps: keeps)
        locked.clear()
        feed = model.feed(model.samples(X, t))
        feed.make_room(30)
        found = plan(model, 200, batch_size=30)
        wanted = 1000 if keeps else 2 * 30 * (7 + 3) * 4
        assert found.locked == wanted
        assert sum(locked[:2] if keeps else locked) == pytest.approx(wanted, rel=0.1)
        assert re.search(rf"page-locked +{wanted / 1e3:.1f} kB  at most", str(found))


def test_page_locked_memory_that_is_not_there_is_a_memory_error(backend, monkeypatch):
    runtime = backend.cupy.cuda.runtime

    def fails(size, status=2):
        raise runtime.CUDARuntimeError(status)

    monkeypatch.setattr(backend.cupy.cuda, "PinnedMemory", fails)
    with pytest.raises(MemoryError, match=r"page-locked .* 12 bytes: cudaErrorMemoryAllocation"):
        backend.staging((3, 4), "uint8")
    monkeypatch.setattr(backend.cupy.cuda, "PinnedMemory", lambda size: fails(size, 1))
    with pytest.raises(runtime.CUDARuntimeError):
        backend.staging((3, 4), "uint8")


def test_staging_is_page_locked_and_of_its_shape(backend):
    staged = backend.staging((3, 4), "uint8")
    assert staged.host.shape == staged.device.shape == (3, 4)
    assert staged.host.dtype == staged.device.dtype == np.uint8
    attributes = backend.cupy.cuda.runtime.pointerGetAttributes(staged.host.ctypes.data)
    assert attributes.type == backend.cupy.cuda.runtime.memoryTypeHost
    assert staged.host.flags.writeable


@pytest.mark.parametrize("kind", ["float32", "uint8"])
def test_predictions_in_streams_that_do_not_wait_for_each_other(backend, kind):
    """The buffers that one call left to the next may still be read by the other stream."""
    model = Model(
        Network(6, [Dense(64, "tanh"), Dense(64, "tanh"), Dense(2)]),
        "mean_squared_error",
        backend=backend,
        input_scaling=Scaling(np.full(6, 0.1), np.full(6, 1.2)),
    )
    inputs = [(100.0 * abs(values((300 + i % 2, 6), "float64", i))).astype(kind) for i in range(8)]
    expected = [model.predict(x) for x in inputs]
    streams = [backend.cupy.cuda.Stream(non_blocking=True) for _ in inputs]
    there = [backend.asarray(x) for x in inputs]
    backend.synchronize()
    found = []
    for x, stream in zip(there, streams, strict=True):
        with stream:
            found.append(model.predict(x))
    backend.synchronize()
    for y, exact in zip(found, expected, strict=True):
        assert_close(backend.to_numpy(y), exact, units=64.0)


def test_a_mark_makes_other_streams_wait(backend):
    x, y = (backend.full((1000,), 1.0, "float32") for _ in range(2))
    backend.synchronize()
    one, other = (backend.cupy.cuda.Stream(non_blocking=True) for _ in range(2))
    for value in range(20):
        with one:
            x.fill(value)
            wait = backend.mark()
        with other:
            wait()
            y[...] = x
            backend.mark()()
            back = backend.mark()
        with one:
            back()
    other.synchronize()
    assert (backend.to_numpy(y) == 19.0).all()


# ------------------------------------------------------------------ recorded calls


def a_step(backend, dtype, net=(6, 16, 10)):
    """A whole training step on fixed buffers: gather, forward, loss, backward, Adam."""
    model = Model(
        Network(net[0], [Dense(net[1], "tanh"), Dense(net[2])]),
        "cross_entropy",
        backend=backend,
        dtype=dtype,
    )
    from mlp.data.feed import Feed
    from mlp.training.step import Step

    X, t = values((40, net[0]), "float64"), np.arange(40) % net[2]
    feed = Feed(backend, dtype, model.samples(X, t))
    rule = OPTIMIZERS["adam"]()
    vectors = [backend.full(model.w.shape, 0.0, dtype) for _ in rule.state]
    step = Step(model, feed, [20], rule, vectors)
    losses = backend.empty((1, 2), dtype)
    index = backend.asarray(np.arange(20, dtype=np.int64)[::-1].copy())
    return model, losses, lambda: step(20, index, 0.01, 1, 0, losses)


def test_a_recorded_step_gives_the_bits_of_the_step(backend, dtype):
    called, losses, step = a_step(backend, dtype)
    for _ in range(4):
        step()
    replayed, its_losses, its_step = a_step(backend, dtype)
    its_step()
    replay = backend.record(its_step)
    for _ in range(3):
        replay()
    assert bits(backend, replayed.w) == bits(backend, called.w)
    assert bits(backend, its_losses) == bits(backend, losses)


def test_recording_computes_nothing(backend):
    x = backend.full((3,), 1.0, "float32")
    double = backend.fuse(lambda xp, x: x + x).bind(x)
    double()
    replay = backend.record(double)
    assert backend.to_numpy(x).tolist() == [2.0] * 3
    replay()
    replay()
    assert backend.to_numpy(x).tolist() == [8.0] * 3


def test_a_recording_keeps_what_it_works_with(backend):
    """Temporary arrays of the call are not given to others as long as it can be replayed."""
    n = 1 << 20
    x, out = (backend.full((n,), 3.0, "float32") for _ in range(2))

    def call():
        backend.copy(backend.cupy.multiply(x, 2.0) + 1.0, out)

    call()
    pool = backend.cupy.get_default_memory_pool()
    pool.free_all_blocks()
    replay = backend.record(call)
    pool.free_all_blocks()
    taken = [backend.full((n,), 9.0, "float32") for _ in range(20)]
    replay()
    assert (backend.to_numpy(out) == 7.0).all()
    assert all((backend.to_numpy(y) == 9.0).all() for y in taken)


def reads_back(backend, x):
    return lambda: float(backend.cupy.sum(x))


def waits(backend, x):
    def call():
        x[...] = 3.0
        backend.cupy.cuda.get_current_stream().synchronize()

    return call


def asks_cublas_through_cupy(backend, x):
    return lambda: backend.cupy.matmul(x, x)


def runs_out_of_memory(backend, x):
    return lambda: backend.empty((1 << 40,), "float64")


def fails(backend, x):
    def call():
        x[...] = 4.0
        raise ValueError("not today")

    return call


@pytest.mark.parametrize(
    ("make", "cause"),
    [
        (reads_back, "D2H|captur"),
        (waits, "captur"),
        (asks_cublas_through_cupy, "NotImplementedError"),
        (runs_out_of_memory, "OutOfMemoryError"),
        (fails, "ValueError: not today"),
    ],
)
def test_what_cannot_be_recorded_leaves_the_backend_as_it_was(backend, monkeypatch, make, cause):
    x = backend.full((4, 4), 1.0, "float32")
    stream = backend.cupy.cuda.Stream(non_blocking=True)
    monkeypatch.setattr(backend.cupy.cuda, "Stream", lambda non_blocking: stream)
    with pytest.raises(BackendError, match=f"backend '{backend.name}' cannot record.*({cause})"):
        backend.record(make(backend, x))
    monkeypatch.undo()
    assert not stream.is_capturing()
    assert (backend.to_numpy(x) == 1.0).all()
    handles = len(backend.blas.handles)
    _, losses, step = a_step(backend, "float32")
    step()
    replay = backend.record(step)
    replay()
    assert np.isfinite(backend.to_numpy(losses)).all()
    assert len(backend.blas.handles) <= handles + 1  # those of recordings are not kept


@pytest.mark.parametrize("collects", [True, False])
def test_no_garbage_is_collected_while_a_call_is_recorded(backend, collects):
    """What a cycle holds may wait for the device when it goes, and spoil the recording."""

    class Cycle:
        def __init__(self):
            self.own = self

    gone = []

    def call():
        weakref.finalize(Cycle(), gone.append, None)
        for _ in range(20):
            Cycle()  # more than the threshold

    before, thresholds = gc.isenabled(), gc.get_threshold()
    gc.set_threshold(5)
    (gc.enable if collects else gc.disable)()
    try:

        def watched():
            call()
            assert gone == []

        backend.record(watched)
        assert gc.isenabled() == collects
    finally:
        gc.set_threshold(*thresholds)
        (gc.enable if before else gc.disable)()


def test_other_threads_compute_while_one_records(backend):
    """Their work is not recorded, and what they allocate is not the recording's."""
    x = backend.full((8,), 1.0, "float32")
    double = backend.fuse(lambda xp, x: x + x).bind(x)
    double()
    found = []

    def other():
        with backend.scope():
            y = backend.full((8,), 5.0, "float32")
            backend.fuse(lambda xp, y: y * 3.0).bind(y)()
            found.append(backend.to_numpy(y))

    def call():
        double()
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()

    replay = backend.record(call)
    assert found[0].tolist() == [15.0] * 8
    replay()
    assert backend.to_numpy(x).tolist() == [4.0] * 8
