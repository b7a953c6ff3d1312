"""The CUDA source of every formula: its arithmetic is in one type, it compiles, nothing spills.

No GPU and no CuPy is needed; without a CUDA compiler the compilation is skipped, aloud.
"""

import re
import subprocess
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from backends.cuda_source import WARP_COLUMNS, formula_source, read, translation_unit
from backends.formula import FULL, ROW, SCALAR, trace
from benchmarks import cuda_registers
from benchmarks.cuda_registers import KINDS, architectures
from mlp.formulas.activations import ACTIVATIONS
from mlp.formulas.losses import LOSSES
from mlp.formulas.optimizers import OPTIMIZERS

kinds = pytest.mark.parametrize("kind", KINDS)

LITERAL = re.compile(r"(?<![\w.])(?:\d+\.\d*|\d+e[+-]?\d+)(?:e[+-]?\d+)?(\w*)")
FUNCTION = r"\b(?:exp|expm1|log|log1p|sqrt|sin|cos|tanh|erf|fabs)"


def strangers(kind, text):
    """What the text says that is not arithmetic in the kind's type."""
    found = re.findall(r"\b(?:char|short|int8_t|int16_t|__half2|__nv_bfloat162)\b", text)
    if kind == "mixed_bfloat16":  # the same with other words
        words = ("nv_bfloat16", "half"), ("bfloat162float", "half2float")
        for theirs, ours in (*words, ("__float2bfloat16(", "__float2half_rn(")):
            text = text.replace(theirs, ours)
        kind = "mixed"
    if kind == "float64":
        found += re.findall(rf"\bfloat\b|\w*half\w*|{FUNCTION}f\(", text)
        return found + [m[0] for m in LITERAL.finditer(text) if m[1]]
    found += re.findall(rf"\bdouble\b|{FUNCTION}\(", text)
    found += [m[0] for m in LITERAL.finditer(text) if m[1] != "f"]
    if kind == "mixed":  # storage: what is read and written, and no arithmetic in between
        text = re.sub(r"__half\* x\d+|= __half2float\(x\d+\[[^]]*\]\)", "", text)
        text = re.sub(r"\] = __float2half_rn\([^()]*\);", "", text)
    return found + re.findall(r"\w*half\w*", text)


@kinds
def test_every_formula_computes_in_the_type_of_its_arrays(kind):
    for kernel in cuda_registers.kernels(kind):
        assert strangers(kind, kernel.text.replace(kernel.name, "kernel")) == [], kernel.text
        assert kernel.real == ("float64" if kind == "float64" else "float32")


@pytest.mark.parametrize(
    ("kind", "line"),
    [
        ("float32", "const float s2 = s1 * 0.5;"),
        ("float32", "const float s2 = s1 * 1e-08;"),
        ("float32", "const double s2 = s1;"),
        ("float32", "const float s2 = exp(s1);"),
        ("float32", "const float s2 = __half2float(x0[i]);"),
        ("float64", "const double s2 = s1 * 0.5f;"),
        ("float64", "const double s2 = expf(s1);"),
        ("float64", "const float s2 = s1;"),
        ("mixed", "const __half s2 = x0[i];"),
        ("mixed", "const float s2 = __half2float(__hmul(s0, s1));"),
        ("mixed", "x0[i] = __float2half_rn(s0) * __float2half_rn(s1);"),
        ("mixed", "const short s2 = 1;"),
        ("mixed_bfloat16", "const __nv_bfloat16 s2 = x0[i];"),
        ("mixed_bfloat16", "x0[i] = __float2bfloat16(s0) * __float2bfloat16(s1);"),
        ("mixed_bfloat16", "const __nv_bfloat162 s2 = x0[i];"),
    ],
)
def test_a_stranger_is_found(kind, line):
    assert strangers(kind, line)


def test_the_formulas_come_from_every_table_and_from_training():
    labels = [label for label, *_ in cuda_registers.collected("mixed")]
    owns = ["activate", "delta", "output", "copied_update", "judge", "rescale"]
    owns += ["kept_update", "ascended", "shrinkage", "closed", "polynomial", "disturbed", "mixed"]
    for own in owns:
        assert any(f"_{own}_" in label for label in labels), own
    for table in (ACTIVATIONS, LOSSES, OPTIMIZERS):
        for name in table:
            assert any(label.startswith(f"{name}_") for label in labels), name
    drawn = [k.text for k in cuda_registers.kernels("mixed") if "uniform_" in k.text]
    for call in ("uniform_(drawn", "uniform_at_("):  # a block of threads draws, or each for itself
        assert any(call in text for text in drawn), call


def test_kernels_are_compiled_as_cupy_does(monkeypatch):
    """With its -ftz=true (cupy/cuda/compiler.py), by either compiler."""
    asked = []

    class Library:
        def __getattr__(self, name):
            return lambda *arguments: 0

        def nvrtcCompileProgram(self, program, count, options):
            asked.append([options[i].decode() for i in range(count)])
            return 0

    cuda_registers._by_nvrtc(Library(), Path("headers"), "", "90")
    done = SimpleNamespace(returncode=0, stdout="", stderr="")
    monkeypatch.setattr(subprocess, "run", lambda command, **how: asked.append(command) or done)
    cuda_registers._by_nvcc("", "90")
    assert all("-ftz=true" in options for options in asked)
    assert len(asked) == 2


def source_of(formula, into, arrays, shape):
    extents = [FULL if x.shape == shape else ROW if x.ndim else SCALAR for x in arrays]
    return formula_source(trace(formula, extents, into), arrays, shape)


@pytest.mark.parametrize("value", [0.1, 1e-8, 3.0, 1.0 / 3.0, 1e300, -1e300, -0.0])
@pytest.mark.parametrize("kind", ["float32", "float64"])
def test_constants_are_the_numbers_that_numpy_uses(kind, value):
    x = np.ones(3, kind)
    text = source_of(lambda xp, x: xp.where(x > 0.0, value, x), [0], [x], (3,)).text
    with np.errstate(over="ignore"):
        expected = np.dtype(kind).type(value)
    (written,) = re.findall(r"\? (\S+) :", text)
    if np.isinf(expected):
        assert written == ("-" if expected > 0 else "") + "__int_as_float(0xff800000)"
    else:
        found = np.dtype(kind).type(written.removesuffix("f"))
        assert (found, np.signbit(found)) == (expected, np.signbit(expected))


@pytest.mark.parametrize(
    ("kind", "wanted", "text"),
    [
        ("float32", "float32", "v"),
        ("uint8", "float32", "(float)v"),
        ("float16", "float64", "(double)__half2float(v)"),
        ("uint8", "float16", "__float2half_rn((float)v)"),
        ("float64", "float16", "__float2half_rn((float)v)"),
        ("bfloat16", "float64", "(double)__bfloat162float(v)"),
        ("float16", "bfloat16", "__float2bfloat16(__half2float(v))"),
        ("int64", "int64", "v"),
    ],
)
def test_stored_values_are_converted(kind, wanted, text):
    assert read(kind, "v", wanted) == text


def row_sum(xp, x):
    return x - xp.sum(x, axis=1, keepdims=True)


@pytest.mark.parametrize("columns", [1, 2, 3, 32, 33, WARP_COLUMNS, WARP_COLUMNS + 1, 10_000])
@pytest.mark.parametrize("rows", [1, 7, 1000])
def test_every_row_has_its_threads(rows, columns):
    x = np.broadcast_to(np.float32(0), (rows, columns))
    x = np.lib.stride_tricks.as_strided(x, strides=(4 * columns, 4))
    found = source_of(row_sum, [0], [x], x.shape)
    group = int(re.search(r"row_sum<(\d+)>", found.text)[1])
    assert group <= max(32, found.threads)
    assert group >= min(columns, 32)
    assert group < 2 * columns
    assert found.blocks * found.threads >= rows * group > (found.blocks - 1) * found.threads


def test_large_arrays_are_indexed_in_64_bits():
    def doubled(xp, x):
        return x + x

    for rows, index in ((2**15, "unsigned int"), (2**16, "long long")):
        x = np.broadcast_to(np.float32(0), (rows, 2**15))
        x = np.lib.stride_tricks.as_strided(x, strides=(4 * 2**15, 4))
        assert f"const {index} i = " in source_of(doubled, [0], [x], x.shape).text


# ------------------------------------------------------------------ compiled, without a GPU


needs_compiler = pytest.mark.skipif(
    cuda_registers.compiler() is None,
    reason="neither nvcc nor the wheel nvidia-cuda-nvrtc is here: CUDA kernels were not compiled",
)


@needs_compiler
@pytest.mark.thorough
@pytest.mark.parametrize(
    ("architecture", "kind"), [(a, kind) for kind in KINDS for a in architectures(kind)]
)
def test_every_kernel_compiles_and_nothing_spills(architecture, kind):
    """Nor has any kernel a stack: no function it calls needs memory of its own, but CUDA's sine and
    cosine, for the digits of π that a huge angle takes."""
    found = cuda_registers.compiled(cuda_registers.unit(kind), architecture)
    kernels = list(cuda_registers.kernels(kind))
    assert len(found) == len(kernels) + len(cuda_registers.row_kernels(kind))
    turning = {k.name for k in kernels if re.search(r"\b(?:sin|cos)f?\(", k.text)}
    for kernel in found:
        assert kernel.spills == 0, kernel
        assert kernel.stack <= (40 if kernel.kernel in turning else 0), kernel
        assert kernel.registers <= 64, kernel  # a block of 256 fits four times on any of them


@needs_compiler
def test_the_compiler_says_what_is_wrong():
    with pytest.raises(RuntimeError, match="undefined_name"):
        cuda_registers.compiled(translation_unit("__device__ int x = undefined_name;"), "90")


@needs_compiler
def test_a_stack_is_seen():
    """A kernel with an array indexed at run time has one."""
    text = """extern "C" __global__ void k(float* x, int n) {
        float held[64];
        for (int i = 0; i < n; ++i) held[(i * n) & 63] = x[i];
        x[0] = held[n & 63];
    }
    """
    (found,) = cuda_registers.compiled(text, "80")
    assert found.stack >= 256
