"""Formulas written as CUDA C++: the text alone, so that it can be read and compiled without a GPU.

A traced formula (`backends.formula`) is one kernel in which every number is of one type T: float,
or double where an array is. Arrays keep their own types; float16 and bfloat16 are storage types
only, converted when they are read and written.

Elementwise formulas are one thread an element. Formulas that reduce along rows give each row a
group of threads: up to 32 of a warp, a block of 256 for rows above 1024 columns. Thread k of a
group holds columns k, k + group, ...; a reduction adds up what each thread found by shuffles, in
an order that only the group's size decides, so two runs agree to the bit.

An argument may be numbers that are nowhere stored (`backends.philox.Uniform`). In an elementwise
kernel each thread then draws the numbers of one block, and the threads share them: those next to
each other still read and write next to each other. Drawn where they are used, forward and backward,
they cost about 30 integer instructions each time and no memory; stored, 12 bytes of traffic and a
launch more: on an H100 both are about 13 us for 6 million (counted, not measured).

Cost: an elementwise kernel reads and writes every element once. A row kernel passes over its row
once a reduction and once to write: the first pass reads memory, the others what is still in the
cache (softmax with cross-entropy over 10,000 classes: 80 kB of float32 a row).
"""

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from backends.base import Native
from backends.formula import COLUMN, FULL, OWN, ROW, SCALAR, Program
from backends.philox import BLOCK, Uniform

THREADS = 256  # of a block of an elementwise kernel, and of a row that has a block of its own
ROW_THREADS = 128  # of a block that holds several rows
WARP = 32
WARP_COLUMNS = 32 * WARP  # above which a row gets a block

C_TYPES = {
    "float16": "__half",
    "bfloat16": "__nv_bfloat16",
    "float32": "float",
    "float64": "double",
    "bool": "bool",
    "int8": "signed char",
    "uint8": "unsigned char",
    "int16": "short",
    "uint16": "unsigned short",
    "int32": "int",
    "uint32": "unsigned int",
    "int64": "long long",
    "uint64": "unsigned long long",
}
# Types that are only stored: their headers, and the ways into float and out of it.
_OF = {"fp16": "__half", "bf16": "__nv_bfloat16"}
_TO_FLOAT = {"float16": "__half2float", "bfloat16": "__bfloat162float"}
_FROM_FLOAT = {"float16": "__float2half_rn", "bfloat16": "__float2bfloat16"}  # nearest, even


@dataclass(frozen=True)
class CudaSource:
    """A kernel's text and how it is launched.

    Its arguments are the arrays, the scalars of type ``real`` and then ``numbers``, each in 8
    bytes of which the kernel reads what it needs.
    """

    name: str
    text: str
    blocks: int
    threads: int
    real: str  # "float32" or "float64"
    numbers: tuple[int, ...]


def translation_unit(*texts: str) -> str:
    """Kernels as one source that stands on its own."""
    body = "".join(texts)
    drawn = _PHILOX if "uniform_" in body else ""
    headers = [f"#include <cuda_{name}.h>\n" for name in ("fp16", "bf16") if _OF[name] in body]
    return "".join(headers) + _HEADER + drawn + body


def formula_source(
    program: Program, arrays: Sequence[Native], shape: tuple[int, ...], name: str | None = None
) -> CudaSource:
    """The kernel of a program on arrays (of any library that knows their strides), which broadcast
    to ``shape``.

    >>> from backends.formula import FULL, ROW, trace
    >>> program = trace(lambda xp, z, b: xp.maximum(z + b, 0.0), [FULL, ROW])
    >>> z, b = np.zeros((5, 3), np.float32), np.zeros(3, np.float32)
    >>> print(formula_source(program, [z, b], (5, 3), "relu").text)
    extern "C" __global__ void __launch_bounds__(256)
    relu(float* x0, float* x1, unsigned int n, unsigned int columns) {
      const unsigned int i = (unsigned int)blockIdx.x * 256 + threadIdx.x;
      if (i >= n) return;
      const unsigned int c = i % columns;
      const float s0 = x0[i];
      const float s1 = x1[c];
      const float s2 = s0 + s1;
      const float s4 = max_(s2, 0.0f);
      x0[i] = s4;
    }
    <BLANKLINE>
    """
    return _Writer(program, arrays, shape, name).source()


def read(kind: str, value: str, wanted: str) -> str:
    """A stored value of dtype ``kind`` as a number of dtype ``wanted``."""
    if kind == wanted:
        return value
    if kind in _TO_FLOAT:
        return read("float32", f"{_TO_FLOAT[kind]}({value})", wanted)
    if wanted in _FROM_FLOAT:
        return f"{_FROM_FLOAT[wanted]}({read(kind, value, 'float32')})"
    return f"({C_TYPES[wanted]}){value}"


def power_of_two(count: int, most: int = WARP) -> int:
    """The least power of two that is not below ``count``, or ``most``."""
    return min(most, 1 << max(0, count - 1).bit_length())


class _Writer:
    def __init__(
        self,
        program: Program,
        arrays: Sequence[Native],
        shape: tuple[int, ...],
        name: str | None,
    ):
        self.program, self.code = program, program.code
        self.kinds = [str(x.dtype) for x in arrays]
        clean = "".join(c if c.isascii() else "_" for c in program.name)
        self.name = name or f"mlp_{clean}"
        self.real = "float64" if "float64" in self.kinds else "float32"
        self.T = C_TYPES[self.real]
        self.rows, self.columns = shape if len(shape) == 2 else (math.prod(shape), 1)
        self.by_rows = program.reduces or any(self.code[p].extent == COLUMN for p in program.into)
        self.drawn = {p: x for p, x in enumerate(arrays) if isinstance(x, Uniform)}
        self.blocks = -(-self.columns // BLOCK)  # of drawn numbers, in a row
        # Arrays that are not laid out as their extent says, by position: their two strides.
        self.strides: dict[int, tuple[int, int]] = {}
        for position, x in enumerate(arrays):
            if position in self.drawn:
                continue
            extent = self.code[position].extent
            found = self._matter(_strides(x, len(shape)), extent)
            if found != self._matter((self.columns if extent[1] else 1, 1), extent):
                self.strides[position] = found
        small = self.rows * self.blocks * BLOCK < 2**31 and not self.strides
        self.index = "unsigned int" if small else "long long"

    def _matter(self, strides: tuple[int, int], extent: tuple[bool, bool]) -> tuple[int, int]:
        """The strides, with 0 along an axis of one element, where any would do."""
        down, along = strides
        return (
            down if extent[0] and self.rows > 1 else 0,
            along if extent[1] and self.columns > 1 else 0,
        )

    def source(self) -> CudaSource:
        numbers = [self.rows if self.by_rows else self.rows * self.columns, self.columns]
        for pair in self.strides.values():
            numbers += pair
        for x in self.drawn.values():
            numbers += x.stream, x.samples
        if self.by_rows:
            group = THREADS if self.columns > WARP_COLUMNS else power_of_two(self.columns)
            threads = max(group, ROW_THREADS)
            blocks = -(-self.rows * group // threads)
            body = self._row_body(group, threads)
        else:
            threads = THREADS
            blocks = -(-self.rows * self.columns // threads)
            if self.drawn:
                blocks = -(-self.rows * self.blocks // threads)
            body = self._drawing_body() if self.drawn else self._element_body()
        text = "\n".join(
            [
                f'extern "C" __global__ void __launch_bounds__({threads})',
                f"{self.name}({', '.join(self._parameters())}) {{",
                *(f"  {line}" for line in body),
                "}\n",
            ]
        )
        return CudaSource(self.name, text, blocks, threads, self.real, tuple(numbers))

    def _parameters(self) -> list[str]:
        found = [
            f"const {_CLOCK} x{i}" if i in self.drawn else f"{C_TYPES[kind]}* x{i}"
            for i, kind in enumerate(self.kinds)
        ]
        found += [f"{self.T} x{i}" for i in range(len(self.kinds), self.program.arguments)]
        found += [f"{self.index} n", f"{self.index} columns"]
        found += [f"{self.index} {axis}{i}" for i in self.strides for axis in "pq"]
        whose = [f"long long {x}{i}" for i in self.drawn for x in ("stream", "samples")]
        return found + whose

    # ------------------------------------------------------------------ one thread an element

    def _element_body(self) -> list[str]:
        """Every argument is read before a result is written, which may overwrite it."""
        lines = [
            f"const {self.index} i = ({self.index})blockIdx.x * {THREADS} + threadIdx.x;",
            "if (i >= n) return;",
        ]
        body = self._element()
        for name, value in (("r", "i / columns"), ("c", "i % columns")):
            if any(re.search(rf"\[.*\b{name}\b.*\]", line) for line in body):
                lines.append(f"const {self.index} {name} = {value};")
        return lines + body

    def _element(self) -> list[str]:
        body = self._lines(self.program.needed(self.program.results))
        return body + [self._write(position, n) for position, n in self.program.targets]

    def _drawing_body(self) -> list[str]:
        """A thread draws a block of numbers for each drawn argument; then it turns to every
        THREADS-th element of what its block of threads drew, the columns of a row counted up to a
        multiple of BLOCK."""
        index, width = self.index, self.blocks * BLOCK
        lines = [f"const {index} first = ({index})blockIdx.x * {THREADS};"]
        for i in self.drawn:
            lines += [
                f"__shared__ unsigned int drawn{i}[{THREADS * BLOCK}];",
                f"philox_(x{i}, stream{i}, samples{i}, first + threadIdx.x, {self.blocks}, "
                f"drawn{i} + {BLOCK} * threadIdx.x);",
            ]
        lines += [
            "__syncthreads();",
            f"for (unsigned int k = threadIdx.x; k < {THREADS * BLOCK}; k += {THREADS}) {{",
            f"  const {index} at = first * {BLOCK} + k, r = at / {width}, c = at - r * {width};",
            f"  const {index} i = r * columns + c;",
            "  if (c >= columns || i >= n) continue;",
            *(f"  {line}" for line in self._element()),
        ]
        return [*lines, "}"]

    # ------------------------------------------------------------------ a group of threads a row

    def _row_body(self, group: int, threads: int) -> list[str]:
        """Reductions in their order, each a loop over the columns in which what varies along the
        row is computed anew; then a loop that writes the results.

        A thread reads and writes its own columns, and no column is written before the last loop.
        What a row has once is read by all its threads and written by one, behind a barrier.
        """
        schedule, T = self.program.row_schedule(), self.T
        lines = [
            f"const {self.index} i = ({self.index})blockIdx.x * {threads // group}"
            f" + threadIdx.x / {group};",
            f"const {self.index} first = threadIdx.x % {group};",
            "if (i >= n) return;",
        ]

        def loop(anew: Iterable[int], more: Iterable[str]) -> None:
            lines.append(f"for ({self.index} j = first; j < columns; j += {group}) {{")
            lines.extend(f"  {line}" for line in (*self._lines(anew), *more))
            lines.append("}")

        for n, anew in schedule.once:
            op = self.code[n].op
            if op not in ("max", "sum"):
                lines += self._lines([n])
                continue
            least = _LOWEST[self.real] if op == "max" else _literal("0.0", self.real)
            value = self._name(self.code[n].operands[0])
            more = f"max_(s{n}, {value})" if op == "max" else f"s{n} + {value}"
            lines.append(f"{T} s{n} = {least};")
            loop(anew, [f"s{n} = {more};"])
            lines.append(f"s{n} = row_{op}<{group}>(s{n});")
        if schedule.narrow:
            lines.append("__syncthreads();" if group > WARP else "__syncwarp();")
        if schedule.wide:
            loop(schedule.anew, [self._write(position, n) for position, n in schedule.wide])
        lines += [f"if (first == 0) {self._write(position, n)}" for position, n in schedule.narrow]
        return lines

    # ------------------------------------------------------------------ one instruction

    def _lines(self, numbers: Iterable[int]) -> list[str]:
        """A line for each of these instructions that is not a constant or a scalar."""
        found = []
        for n in numbers:
            if self.code[n].op != "constant" and not self._is_scalar(n):
                kind = "bool" if self.code[n].boolean else self.T
                found.append(f"const {kind} s{n} = {self._expression(n)};")
        return found

    def _is_scalar(self, n: int) -> bool:
        return len(self.kinds) <= n < self.program.arguments

    def _expression(self, n: int) -> str:
        if self.code[n].op == "argument":
            return read(self.kinds[n], self._stored(n), self.real)
        names = [self._name(operand) for operand in self.code[n].operands]
        suffix = "f" if self.real == "float32" else ""
        return _C[self.code[n].op].format(*names, f=suffix)

    def _stored(self, n: int) -> str:
        if n not in self.drawn:
            return f"x{n}[{self._place(n)}]"
        if not self.by_rows:
            return f"uniform_(drawn{n}[k])"
        return f"uniform_at_(x{n}, stream{n}, samples{n}, i, j, {self.blocks})"

    def _name(self, n: int) -> str:
        if self.code[n].op == "constant":
            return _literal(self.code[n].value, self.real)
        return f"x{n}" if self._is_scalar(n) else f"s{n}"

    def _write(self, position: int, n: int) -> str:
        value = read(self.real, self._name(n), self.kinds[position])
        return f"x{position}[{self._place(position)}] = {value};"

    def _place(self, position: int) -> str:
        row, column = ("i", "j") if self.by_rows else ("r", "c")
        whole = "i * columns + j" if self.by_rows else "i"
        if position in self.strides:
            row, column = f"{row} * p{position}", f"{column} * q{position}"
            whole = f"{row} + {column}"
        return {FULL: whole, ROW: column, COLUMN: row, SCALAR: "0"}[self.code[position].extent]


def _strides(x: Native, ndim: int) -> tuple[int, int]:
    """Elements from one row of x to the next and from one column to the next, in a kernel over
    ``ndim`` axes."""
    found = [stride // x.dtype.itemsize for stride in x.strides]
    if ndim < 2:
        found = [*found, 0]  # a flat vector is one column
    down, along = [0, 0, *found][-2:]
    return down, along


def _literal(value: str, real: str) -> str:
    """A constant in its type: the number that NumPy would use, not one rounded a second time."""
    with np.errstate(over="ignore"):
        number = np.dtype(real).type(float(value))
    if np.isinf(number):
        return ("-" if number > 0 else "") + _LOWEST[real]
    return f"{number!s}{'f' if real == 'float32' else ''}"


_LOWEST = {
    "float32": "__int_as_float(0xff800000)",  # minus infinity
    "float64": "__longlong_as_double(0xfff0000000000000)",
}

_C = {
    "add": "{} + {}",
    "subtract": "{} - {}",
    "multiply": "{} * {}",
    "divide": "{} / {}",
    "negative": "-{}",
    "less": "{} < {}",
    "less_equal": "{} <= {}",
    "greater": "{} > {}",
    "greater_equal": "{} >= {}",
    "equal": "{} == {}",
    "not_equal": "{} != {}",
    "where": "{} ? {} : {}",
    "minimum": "min_({}, {})",
    "maximum": "max_({}, {})",
    "abs": "fabs{f}({})",
    "sign": "sign_({})",
    **{
        name: f"{name}{{f}}({{}})"
        for name in ("exp", "expm1", "log", "log1p", "sqrt", "sin", "cos", "tanh", *OWN)
    },
}

# min_, max_ and sign_ as in the Array API standard: NaN where either operand is NaN, sign(0) = 0.
# row_max and row_sum give each of the row's threads what all of them hold, taken together.
_HEADER = """\
template <typename T> __device__ T min_(T a, T b) { return (a < b || a != a) ? a : b; }
template <typename T> __device__ T max_(T a, T b) { return (a > b || a != a) ? a : b; }
template <typename T> __device__ T sign_(T a) {
  return a != a ? a : (T)((a > (T)0) - (a < (T)0));
}
struct Max { template <typename T> static __device__ T of(T a, T b) { return max_(a, b); } };
struct Sum { template <typename T> static __device__ T of(T a, T b) { return a + b; } };
template <typename Op, int group, typename T> __device__ T reduce_row(T v) {
  for (int d = (group < 32 ? group : 32) / 2; d > 0; d /= 2)
    v = Op::of(v, __shfl_xor_sync(0xffffffff, v, d));
  if constexpr (group > 32) {
    __shared__ T parts[group / 32];
    __syncthreads();  // the last reduction's parts have been read
    if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = v;
    __syncthreads();
    v = parts[0];
    for (int k = 1; k < group / 32; ++k) v = Op::of(v, parts[k]);
  }
  return v;
}
template <int group, typename T> __device__ T row_max(T v) { return reduce_row<Max, group>(v); }
template <int group, typename T> __device__ T row_sum(T v) { return reduce_row<Sum, group>(v); }
"""

_CLOCK = "unsigned long long*"

# Eq. (1) and (2) of `backends.philox`: the halves of block ``block`` of an array, counted through
# its rows, and the numbers they are. NumPy counts on before each block, hence the 1.
_PHILOX = f"""\
__device__ void philox_(const {_CLOCK} now, long long stream, long long samples,
    long long block, long long blocks, unsigned int* halves) {{
  typedef unsigned long long word;
  const word m0 = 0xD2E7470EE14C6C93ull, m1 = 0xCA5A826395121157ull;
  const long long row = block / blocks, member = row / samples;
  word k0 = now[0], k1 = now[1], c2 = now[2], c3 = stream, c1 = member;
  word c0 = now[3] * blocks + (block - member * samples * blocks) + 1;
  #pragma unroll
  for (int round = 0; round < 10; ++round) {{
    const word h0 = __umul64hi(m0, c0), h1 = __umul64hi(m1, c2), l0 = m0 * c0, l1 = m1 * c2;
    c0 = h1 ^ c1 ^ k0; c1 = l1; c2 = h0 ^ c3 ^ k1; c3 = l0;
    k0 += 0x9E3779B97F4A7C15ull; k1 += 0xBB67AE8584CAA73Bull;
  }}
  halves[0] = (unsigned int)c0; halves[1] = (unsigned int)(c0 >> 32);
  halves[2] = (unsigned int)c1; halves[3] = (unsigned int)(c1 >> 32);
  halves[4] = (unsigned int)c2; halves[5] = (unsigned int)(c2 >> 32);
  halves[6] = (unsigned int)c3; halves[7] = (unsigned int)(c3 >> 32);
}}
__device__ float uniform_(unsigned int half) {{ return (half >> 8) * 5.9604644775390625e-8f; }}
__device__ __noinline__ float uniform_at_(const {_CLOCK} now, long long stream, long long samples,
    long long row, long long column, long long blocks) {{
  unsigned int halves[{BLOCK}];
  philox_(now, stream, samples, row * blocks + column / {BLOCK}, blocks, halves);
  unsigned int half = 0;  // chosen without an address: halves stay in registers
  #pragma unroll
  for (int k = 0; k < {BLOCK}; ++k) half = k == column % {BLOCK} ? halves[k] : half;
  return uniform_(half);
}}
"""
