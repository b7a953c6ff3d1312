"""A fused kernel equals its plain formula, in value and in dtype, on every backend."""

import inspect
import warnings
from functools import partial

import numpy as np
import pytest
from conftest import assert_close

from backends import get_backend
from backends.base import Kernel
from backends.blocks import BLOCK
from backends.elementary import FUNCTIONS
from backends.formula import COLUMN, FULL, ROW, SCALAR, NotFusable, extent_of, trace
from backends.numpy_backend import NumpyBackend
from mlp.formulas.activations import ACTIVATIONS, learned
from mlp.formulas.losses import LOSSES, rows_of
from mlp.formulas.optimizers import OPTIMIZERS

SHAPES = [(7, 5), (1, 5), (7, 1), (1, 1), (BLOCK // 4 + 1, 4), (3, BLOCK - 1), (2, BLOCK + 1)]
LENGTHS = [1, 7, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK + 3]

# Units of rounding: two libraries' exp, log1p and tanh, a fused multiply-add, another order of a
# row's sum (most in gelu's derivative, the longest formula: 6). On NumPy both sides call the same
# ufuncs, or the same functions of compiled loops (`functions`), but the remainder of a vector loop
# may go another way.
UNITS = {"numpy": 2.0}
UNITS_ELSEWHERE = 16.0


def units(backend):
    return UNITS.get(backend.name, UNITS_ELSEWHERE)


def further(name, shape):
    """How many times further apart: exps of logs; sums of a row, one order and another."""
    loss = name.partition(".")[0]
    if loss in ("multiclass_hinge", "multiclass_squared_hinge"):
        return max(1.0, 4.0 * shape[-1] ** 0.5)  # the sum stands as it is, not under a log
    return 2.0 if loss in ("focal", "gaussian") else 1.0


def table_formulas():
    """(formula, positions it writes into, numbers it takes), by a name for the test."""
    found = {}
    for name, activation in ACTIVATIONS.items():
        found[f"{name}.f"] = (activation.f, (0,), ())
        found[f"{name}.df"] = (activation.df, (0,), ())
        if learned(activation, 1):
            found[f"{name}.dp"] = (activation.dp, (0,), ())
    for name, loss in LOSSES.items():
        found[f"{name}.cost"] = (loss.cost, (0,), ())
        found[f"{name}.derivative"] = (loss.derivative, (0,), ())
    for name, rule in OPTIMIZERS.items():
        made = rule()
        into = (0, *range(2, 2 + len(made.state)))  # w, g, the state vectors
        found[name] = (made.update, into, made.constants(0.1, 3))
    return found


FORMULAS = table_formulas()
formulas = pytest.mark.parametrize("name", FORMULAS)


def arrays_for(name, shape, dtype):
    """Arrays of order one for the array arguments of a formula, as training has them."""
    formula, into, _ = FORMULAS[name]
    shape = (shape[0], 2) if name.startswith("gaussian") else shape  # a mean and a variance
    rng = np.random.default_rng(5)
    names = list(inspect.signature(formula).parameters)[1:]
    count = 1 + len(into) if name in OPTIMIZERS else len(names)  # w, g, the state vectors
    arrays = {key: rng.standard_normal(shape) for key in names[:count]}
    if "a" in arrays:
        own = [x for key, x in arrays.items() if key not in "vza"]  # what is learned
        arrays["a"] = ACTIVATIONS[name.partition(".")[0]].f(np, arrays["z"], *own)
    if "t" in arrays:
        arrays["t"] = np.where(arrays["t"] < 0.0, 0.0, np.minimum(arrays["t"], 1.0))
        loss = LOSSES[name.partition(".")[0]]
        if getattr(loss, "targets", None) == "classes":  # shares, of which there is one at least
            arrays["t"][..., 0] = 1.0
            arrays["t"] /= arrays["t"].sum(axis=-1, keepdims=True)
        for key, row in zip(names[2:], rows_of(loss, shape[1]), strict=False):
            arrays[key] = np.array(row)
        if getattr(loss, "positive", False):
            arrays["t"] += 0.1
    for key in ("step", *(("v", "u") if name in OPTIMIZERS else ())):
        if key in arrays:  # sizes of steps and means of squares
            arrays[key] = abs(arrays[key]) + 0.1
    if name == "quickprop":  # a move goes against the slope it started from
        arrays["previous"] = -np.sign(arrays["move"]) * (abs(arrays["previous"]) + 0.1)
    return [x.astype(dtype) for x in arrays.values()]


class Compiled:
    """NumPy, but for the functions that compiled loops have of their own: each a loop of itself,
    whose last places are tests/test_elementary.py's."""

    def __init__(self, backend):
        self.backend = backend

    def __getattr__(self, name):
        if name not in FUNCTIONS:
            return getattr(np, name)

        def call(x):
            out = np.empty_like(x)
            self.backend.fuse(lambda xp, out, x: getattr(xp, name)(x)).bind(out, x)()
            return out

        return call


def functions(backend, formula, arrays, numbers):
    """The namespace whose functions the backend's kernel calls, as far as NumPy is concerned."""
    try:
        program = trace(formula, [FULL] * len(arrays) + [SCALAR] * len(numbers))
    except NotFusable:
        return np
    return Compiled(backend) if getattr(backend, "jit", False) and not program.reduces else np


def plainly(formula, into, arrays, numbers=(), xp=np):
    """What the arrays should hold afterwards: the formula on NumPy, then the assignments."""
    results = formula(xp, *arrays, *numbers)
    results = results if isinstance(results, tuple) else (results,)
    expected = [x.copy() for x in arrays]
    for position, result in zip(into, results, strict=True):
        expected[position][...] = result
    return expected


def fused(backend, formula, into, arrays, numbers=()):
    """What the arrays do hold after the backend's kernel has run on them."""
    on_device = [backend.asarray(x.copy()) for x in arrays]
    backend.fuse(formula, into).bind(*on_device, scalars=len(numbers))(*numbers)
    return [backend.to_numpy(x) for x in on_device]


def assert_equal_runs(backend, formula, into, arrays, numbers=(), allowed=None):
    xp = functions(backend, formula, arrays, numbers)
    expected = plainly(formula, into, arrays, numbers, xp)
    actual = fused(backend, formula, into, arrays, numbers)
    for position, (a, e) in enumerate(zip(actual, expected, strict=True)):
        where = f"argument {position} {e.shape}"
        assert_close(a, e, units(backend) if allowed is None else allowed, where)


# ------------------------------------------------------------------ the formulas of the tables


@formulas
def test_fused_equals_plain(backend, dtype, name):
    formula, into, numbers = FORMULAS[name]
    shapes = [(n,) for n in LENGTHS] if name in OPTIMIZERS else SHAPES
    for shape in shapes:
        allowed = units(backend) * further(name, shape)
        assert_equal_runs(backend, formula, into, arrays_for(name, shape, dtype), numbers, allowed)


@formulas
@pytest.mark.parametrize("library", ["numpy", "strict"])
def test_plain_formula_keeps_its_dtype(name, library, dtype):
    """Also where dtypes may not be mixed, as on array-api-strict."""
    backend = pytest.importorskip("array_api_strict") and get_backend(library)
    formula, into, numbers = FORMULAS[name]
    shape = (6,) if name in OPTIMIZERS else (3, 2)
    arrays = [backend.asarray(x) for x in arrays_for(name, shape, dtype)]
    results = formula(backend.xp, *arrays, *numbers)
    results = results if isinstance(results, tuple) else (results,)
    assert len(results) == len(into)
    for result in results:
        assert (result.dtype, result.shape) == (getattr(backend.xp, dtype), shape)


# ------------------------------------------------------------------ extents and reductions


def mixed(xp, x, y, p, q):
    return xp.where(x < p, x * q + p, xp.maximum(p - q, xp.minimum(y, 0.25)) - x)


EXTENTS = {"full": (9, 4), "row": (4,), "one row": (1, 4), "column": (9, 1), "scalar": (1, 1)}


@pytest.mark.parametrize("first", EXTENTS)
def test_extents_broadcast(backend, dtype, first):
    rng = np.random.default_rng(1)
    for second in EXTENTS:
        if (first, second) != ("scalar", "scalar"):
            shapes = [(9, 4), (9, 4), EXTENTS[first], EXTENTS[second]]
            arrays = [rng.standard_normal(shape).astype(dtype) for shape in shapes]
            assert_equal_runs(backend, mixed, (0,), arrays)


@pytest.mark.parametrize("rows", [1, BLOCK // 4 + 1])
@pytest.mark.parametrize("formula", [mixed, lambda xp, x, y, p, q: x * xp.tanh(p) + q])
def test_a_row_that_all_share_is_read_whole_in_a_block_of_one_row(backend, dtype, formula, rows):
    """Where it has the shape of the block."""
    rng = np.random.default_rng(9)
    for shared in ((4,), (1, 4)):
        shapes = [(rows, 4), (rows, 4), shared, shared]
        arrays = [rng.standard_normal(shape).astype(dtype) for shape in shapes]
        assert_equal_runs(backend, formula, (0,), arrays)


def test_extents_are_told_from_shapes():
    whole = (9, 4)
    found = [extent_of(shape, whole) for shape in EXTENTS.values()]
    assert found == [FULL, ROW, ROW, COLUMN, SCALAR]
    assert [extent_of((9,), (9,)), extent_of((1,), (9,))] == [FULL, SCALAR]


def row_max(xp, x):
    return xp.max(x, axis=1, keepdims=True)


def row_sum(xp, x):
    return xp.sum(x, axis=1, keepdims=True)


def swapped(xp, x, y):
    return y, x


def rotated(xp, x, y, u):
    return y, u, x


def sum_and_old_value(xp, x, y):
    return x + y, x


def old_value_and_sum(xp, x, y):
    return y, x + y


def itself(xp, x):
    return x


def another(xp, x, y):
    return y


def a_number(xp, x):
    return 1.5


def twice_the_same(xp, x, y):
    s = x * y
    return s, s


def read_after_its_place_is_known(xp, x, y):
    s = x + y
    return s, xp.where(x > 0.0, s, y)


def chained(xp, x, y, u):
    u = x * u
    y = u - y
    return x + y * u, y, u


def centred(xp, x):
    return x - 0.2 * row_sum(xp, x)


def scaled_rows(xp, x):
    total = row_sum(xp, xp.abs(x))
    return x / xp.where(total < 2.0, 1.0, total)


def column_result(xp, x, y):
    return row_max(xp, x) - row_sum(xp, x)


def full_and_column_results(xp, x, c):
    top = row_max(xp, x)
    return x - top, row_sum(xp, xp.exp(x - top))


def column_twice(xp, x, c):
    top = row_max(xp, x)
    return top, top + c


def column_without_reduction(xp, x, c):
    return x + c, xp.where(c > 0.0, 1.0, c)


def column_spread_then_used(xp, x, y, c):
    top = row_max(xp, y)
    return top, 2.0 * top + c


# Formula, the positions it writes into, the shapes of its arguments.
WIDE, TALL = (9, 4), (9, 1)
STRUCTURES = [
    (swapped, (0, 1), (WIDE, WIDE)),
    (rotated, (0, 1, 2), (WIDE, WIDE, WIDE)),
    (sum_and_old_value, (0, 1), (WIDE, WIDE)),
    (old_value_and_sum, (0, 1), (WIDE, WIDE)),
    (itself, (0,), (WIDE,)),
    (another, (0,), (WIDE, WIDE)),
    (another, (0,), (WIDE, TALL)),
    (a_number, (0,), (WIDE,)),
    (twice_the_same, (0, 1), (WIDE, WIDE)),
    (read_after_its_place_is_known, (1, 0), (WIDE, WIDE)),
    (chained, (0, 1, 2), (WIDE, WIDE, WIDE)),
    (centred, (0,), (WIDE,)),
    (scaled_rows, (0,), (WIDE,)),
    (column_result, (1,), (WIDE, WIDE)),
    (column_result, (1,), (WIDE, TALL)),
    (full_and_column_results, (0, 1), (WIDE, TALL)),
    (column_twice, (0, 1), (WIDE, TALL)),
    (column_without_reduction, (0, 1), (WIDE, TALL)),
    (column_spread_then_used, (0, 2), (WIDE, WIDE, TALL)),
]
structures = pytest.mark.parametrize(
    ("formula", "into", "shapes"), STRUCTURES, ids=lambda x: getattr(x, "__name__", None)
)


@structures
def test_results_are_computed_before_they_are_written(backend, dtype, formula, into, shapes):
    rng = np.random.default_rng(2)
    for rows in (9, 1, 0, BLOCK // 4 + 1):
        arrays = [rng.standard_normal((rows, columns)).astype(dtype) for _, columns in shapes]
        assert_equal_runs(backend, formula, into, arrays)


@structures
def test_one_column(backend, formula, into, shapes):
    """Where a full array and a column have the same shape."""
    rng = np.random.default_rng(3)
    assert_equal_runs(backend, formula, into, [rng.standard_normal(TALL) for _ in shapes])


@structures
def test_arrays_with_strides(backend, formula, into, shapes):
    """Columns of a wider array: the kernel writes into them and leaves the others alone."""
    rng = np.random.default_rng(4)
    whole = [rng.standard_normal((9, 8)) for _ in shapes]
    parts = [x[:, 1 : 1 + columns] for x, (_, columns) in zip(whole, shapes, strict=True)]
    on_device = [backend.asarray(x.copy()) for x in whole]
    views = [x[:, 1 : 1 + columns] for x, (_, columns) in zip(on_device, shapes, strict=True)]
    expected = plainly(formula, into, parts)
    backend.fuse(formula, into).bind(*views)()
    for part, value in zip(parts, expected, strict=True):
        part[...] = value
    for a, e in zip(on_device, whole, strict=True):
        assert_close(backend.to_numpy(a), e, units(backend))


def rescaled_by_a_row(xp, x, r):
    return xp.exp(x) * row_sum(xp, r) - row_max(xp, r)


@pytest.mark.parametrize("rows", [9, 1, BLOCK // 4 + 1])
def test_what_all_rows_share_is_reduced_too(backend, dtype, rows):
    rng = np.random.default_rng(8)
    arrays = [rng.standard_normal(shape).astype(dtype) for shape in ((rows, 4), (1, 4))]
    assert_equal_runs(backend, rescaled_by_a_row, (0,), arrays)


def sum_and_twice(xp, x, y, u):
    return x + y, 2.0 * y + u


def test_one_array_given_twice(backend, dtype):
    """Every read of it comes before its write."""
    x, u = (np.random.default_rng(7).standard_normal(WIDE).astype(dtype) for _ in range(2))
    x_there, u_there = backend.asarray(x.copy()), backend.asarray(u.copy())
    backend.fuse(sum_and_twice, (0, 2)).bind(x_there, x_there, u_there)()
    assert_close(backend.to_numpy(x_there), x + x, units(backend))
    assert_close(backend.to_numpy(u_there), 2.0 * x + u, units(backend))


def test_kernel_runs_again_and_takes_new_numbers(backend, dtype):
    def decay(xp, w, v, rate):
        v = 0.5 * v
        return w - rate * v, v

    w, v = (backend.asarray(np.full(3, x, dtype)) for x in (1.0, 4.0))
    step = backend.fuse(decay, (0, 1)).bind(w, v, scalars=1)
    step(0.25)
    step(1.0)
    backend.fuse(decay, (0, 1))(w, v, 2.0)
    assert backend.to_numpy(w).tolist() == [-1.5] * 3
    assert backend.to_numpy(v).tolist() == [0.5] * 3


# ------------------------------------------------------------------ exact values


SPECIAL = [0.0, -0.0, 1.0, -1.5, np.inf, -np.inf, np.nan, 5e-324, 1e-45, 1e30, -1e-30]


def bits(x):
    return x.view(f"u{x.dtype.itemsize}")


@pytest.mark.parametrize(
    "formula",
    [
        lambda xp, x, y: xp.where(x < y, x, y),
        lambda xp, x, y: xp.where(x == y, y, 0.0),
        lambda xp, x, y: xp.where(x != y, y, -0.0),
        lambda xp, x, y: xp.where(x >= y, 0.0, y),
        lambda xp, x, y: xp.where(x > y, -0.0, 0.0),
        lambda xp, x, y: xp.where(x <= 0.0, y, 1.5),
    ],
    ids=["both", "else 0", "else -0", "then 0", "both 0", "number"],
)
def test_where_is_exact(dtype, formula):
    """On NumPy, where it selects by bits: NaN, infinities and the sign of zero included."""
    with np.errstate(over="ignore", under="ignore"):
        x, y = (grid.reshape(-1).astype(dtype) for grid in np.meshgrid(SPECIAL, SPECIAL))
    with np.errstate(invalid="ignore"):
        (expected, _) = plainly(formula, (0,), [x, y])
        (actual, _) = fused(get_backend("numpy"), formula, (0,), [x, y])
    np.testing.assert_array_equal(bits(actual), bits(expected))


@pytest.mark.parametrize("op", ["minimum", "maximum", "sign", "abs", "sqrt", "exp", "tanh"])
def test_special_values(backend, dtype, op):
    """NaN stays NaN and infinities are met as in the standard (the sign of a zero is left open)."""

    def formula(xp, x, y):
        return getattr(xp, op)(x, y) if op in ("minimum", "maximum") else getattr(xp, op)(x)

    with np.errstate(all="ignore"):
        normal = [x for x in SPECIAL if x == 0.0 or not abs(x) < 1e-40]
        x, y = (grid.reshape(-1).astype(dtype) for grid in np.meshgrid(normal, normal))
        assert_equal_runs(backend, formula, (0,), [x, y])


def test_row_maximum_meets_nan(backend, dtype):
    x = np.array([[1.0, np.nan, 2.0], [np.nan, 0.0, 0.0], [-np.inf, -1.0, -2.0]], dtype)
    with np.errstate(all="ignore"):
        assert_equal_runs(backend, column_result, (1,), [x, np.zeros_like(x)])


# ------------------------------------------------------------------ outside the language


def branch(xp, x, p):
    return x if x > 0.0 else p * x


def scalar_arithmetic(xp, x, p):
    return x * (1.0 - p)


def scalar_function(xp, x, p):
    return x * xp.sqrt(p)


def two_numbers(xp, x, p):
    return x * xp.maximum(1.0, 2.0)


def comparison_as_number(xp, x, p):
    return x * (x > 0.0)


def comparison_as_result(xp, x, p):
    return x > 0.0


def number_as_condition(xp, x, p):
    return xp.where(x, x, p)


def unknown_function(xp, x, p):
    return xp.floor(x)


def whole_sum(xp, x, p):
    return x - xp.sum(x)


def an_array_of_its_own(xp, x, p):
    return x * np.ones(3, np.float32)


def infinite_number(xp, x, p):
    return xp.minimum(x, float("inf"))


def a_power(xp, x, p):
    return x**2


OUTSIDE = [
    branch,
    scalar_arithmetic,
    scalar_function,
    two_numbers,
    comparison_as_number,
    comparison_as_result,
    number_as_condition,
    unknown_function,
    whole_sum,
    an_array_of_its_own,
    infinite_number,
    a_power,
]


@pytest.mark.parametrize("formula", OUTSIDE, ids=lambda f: f.__name__)
def test_trace_refuses(formula):
    with pytest.raises(NotFusable):
        trace(formula, [FULL, SCALAR])


def test_trace_refuses_to_write_to_what_all_rows_share():
    for extent in (ROW, SCALAR):
        with pytest.raises(NotFusable, match="all rows share"):
            trace(swapped, [FULL, extent], into=[0, 1])


def unfused(backend):
    """The context in which a kernel that is not fused is bound: it says so where it matters."""
    if backend.fuse(swapped, (0, 1)).__class__ is Kernel:
        return warnings.catch_warnings()
    return pytest.warns(UserWarning, match="runs unfused")


def floor_and_sum(xp, x, y):
    return xp.floor(x), x + y


def row_is_doubled(xp, x, y):
    return x + y, 2.0 * y


@pytest.mark.parametrize(
    ("formula", "shapes"),
    [(floor_and_sum, ((9, 4), (9, 4))), (row_is_doubled, ((BLOCK, 4), (4,)))],
    ids=["floor", "row"],
)
def test_outside_the_language_runs_unfused_with_the_same_numbers(backend, dtype, formula, shapes):
    rng = np.random.default_rng(6)
    arrays = [rng.standard_normal(shape).astype(dtype) for shape in shapes]
    with unfused(backend):
        assert_equal_runs(backend, formula, (0, 1), arrays, allowed=1.0)


# ------------------------------------------------------------------ the traced program


def test_program_has_each_distinct_step_once():
    def formula(xp, z):
        return xp.exp(-z) / (1.0 + xp.exp(-z)) + 0.0 * z - -0.0 * z

    ops = [instruction.op for instruction in trace(formula, [FULL]).code]
    assert [ops.count(op) for op in ("negative", "exp", "constant")] == [1, 1, 3]


def test_program_takes_the_name_of_its_formula():
    assert trace(swapped, [FULL, FULL]).name == "swapped"
    assert trace(lambda xp, x: -x, [FULL]).name == "_lambda_"
    assert trace(partial(centred), [FULL]).name == "partial"


def test_nothing_is_allocated_when_a_block_kernel_runs():
    import tracemalloc

    backend = NumpyBackend(jit=False)
    name = "rprop"
    formula, into, numbers = FORMULAS[name]
    arrays = arrays_for(name, (20 * BLOCK,), "float32")
    run = backend.fuse(formula, into).bind(*arrays, scalars=len(numbers))
    run(*numbers)
    tracemalloc.start()
    run(*numbers)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < BLOCK
