"""Formulas as CUDA kernels, for the CuPy backend.

A traced formula (`backends.formula`) is written as one kernel in which every number is of the
arrays' type T. Elementwise formulas are one thread an element; formulas that reduce along rows are
one thread a row, with a loop for each reduction.
"""

from collections.abc import Callable, Sequence

import numpy as np

from backends.base import Array, TracedKernel
from backends.formula import COLUMN, FULL, ROW, SCALAR, Program, Step


class CudaKernel(TracedKernel):
    """A formula as one CUDA kernel."""

    def write(
        self, program: Program, arrays: Sequence[Array], shape: tuple[int, ...]
    ) -> Callable[..., None]:
        import cupy

        kernel = cupy.ElementwiseKernel(**cuda_source(program, self.into, len(arrays)))
        scalar_type = np.result_type(*(x.dtype for x in arrays)).type
        if _by_rows(program, self.into):
            rows, columns = shape
            flat = [x.reshape(-1) if x.flags.c_contiguous else x for x in arrays]

            def run_rows(*values: float) -> None:
                numbers = [scalar_type(v) for v in values]
                kernel(*flat, *numbers, np.int64(columns), *(flat[i] for i in self.into), size=rows)

            return run_rows
        written = [arrays[i] for i in self.into]

        def run(*values: float) -> None:
            kernel(*arrays, *(scalar_type(v) for v in values), *written)

        return run


def cuda_source(program: Program, into: Sequence[int], arrays: int) -> dict[str, str]:
    """Parameters and body of the kernel, as `cupy.ElementwiseKernel` takes them.

    The first ``arrays`` arguments are arrays, the others numbers passed by value.

    >>> from backends.formula import FULL, ROW, trace
    >>> program = trace(lambda xp, z, b: xp.maximum(z + b, 0.0), [FULL, ROW])
    >>> print(cuda_source(program, into=[0], arrays=2)["operation"])
    const T s2 = x0 + x1;
    const T s4 = max_(s2, (T)0.0);
    y0 = s4;
    """
    if _by_rows(program, into):
        return _row_kernel(program, into, arrays)
    # Arguments that are results are read first: another result may overwrite them.
    read = {n for n in program.results if program.steps[n].op == "argument"}
    lines = [
        f"const {_type(step)} s{n} = {_expression(program, n)};"
        for n, step in enumerate(program.steps)
        if step.op not in ("argument", "constant") or n in read
    ]
    lines += [f"y{i} = {_name(program, n, n in read)};" for i, n in enumerate(program.results)]
    return {
        "in_params": ", ".join(f"T x{i}" for i in range(program.arguments)),
        "out_params": ", ".join(f"T y{i}" for i in range(len(into))),
        "operation": "\n".join(lines),
        "name": f"mlp_{program.name}",
        "preamble": _PREAMBLE,
    }


def _by_rows(program: Program, into: Sequence[int]) -> bool:
    """Whether the kernel is one thread a row: it reduces rows, or writes to a column."""
    return program.reduces or any(program.steps[position].extent == COLUMN for position in into)


def _row_kernel(program: Program, into: Sequence[int], arrays: int) -> dict[str, str]:
    """One thread a row. Reductions in their order, each a loop over the columns in which what
    varies along the row is computed anew; then a loop that writes the results.

    Every read of an element comes before its write: the reductions read whole rows and nothing is
    written until the last loop, which reads and writes one column at a time.
    """
    lines: list[str] = []
    steps = program.steps

    def along(n: int) -> bool:
        return steps[n].extent[1]

    def needed(results: Sequence[int]) -> list[int]:
        """The steps that vary along the row and that these need, in order."""
        found: set[int] = set()
        stack = [n for n in results if along(n)]
        while stack:
            n = stack.pop()
            if n not in found:
                found.add(n)
                if steps[n].op not in ("argument", "constant"):
                    stack += [i for i in steps[n].operands if along(i)]
        return sorted(found)

    def loop(results: Sequence[int], body: list[str]) -> None:
        lines.append("for (long long j = 0; j < columns; ++j) {")
        for n in needed(results):
            if steps[n].op != "constant":
                lines.append(f"  const {_type(steps[n])} s{n} = {_expression(program, n, True)};")
        lines.extend(f"  {line}" for line in body)
        lines.append("}")

    for n, step in enumerate(steps):
        number = step.op == "argument" and step.operands[0] >= arrays
        if number:
            lines.append(f"const T s{n} = x{step.operands[0]};")
        if number or step.op == "constant" or along(n):
            continue
        if step.op in ("max", "sum"):
            (operand,) = step.operands
            value = _name(program, operand, True)
            if step.op == "max":
                lines.append(f"T s{n} = (T)0.0;")
                loop([operand], [f"s{n} = j == 0 ? {value} : max_(s{n}, {value});"])
            else:
                lines.append(f"T s{n} = (T)0.0;")
                loop([operand], [f"s{n} = s{n} + {value};"])
        else:
            lines.append(f"const {_type(step)} s{n} = {_expression(program, n, True)};")
    wide: list[tuple[int, str]] = []
    narrow: list[tuple[int, str]] = []
    for place, (position, n) in enumerate(zip(into, program.results, strict=True)):
        at_row = steps[n].extent == (True, False) and not steps[position].extent[1]
        target = f"y{place}[i]" if at_row else f"y{place}[i * columns + j]"
        (narrow if at_row else wide).append((n, f"{target} = {_name(program, n, True)};"))
    if wide:
        loop([n for n, _ in wide], [line for _, line in wide])
    lines += [line for _, line in narrow]
    parameters = [f"raw T x{i}" if i < arrays else f"T x{i}" for i in range(program.arguments)]
    return {
        "in_params": ", ".join([*parameters, "int64 columns"]),
        "out_params": ", ".join(f"raw T y{i}" for i in range(len(into))),
        "operation": "\n".join(lines),
        "name": f"mlp_{program.name}",
        "preamble": _PREAMBLE,
    }


def _type(step: Step) -> str:
    return "bool" if step.boolean else "T"


def _name(program: Program, n: int, in_row: bool = False) -> str:
    step = program.steps[n]
    if step.op == "constant":
        return f"(T){step.value}"
    if step.op == "argument" and not in_row:
        return f"x{step.operands[0]}"
    return f"s{n}"


def _expression(program: Program, n: int, in_row: bool = False) -> str:
    step = program.steps[n]
    if step.op == "argument":
        return f"x{step.operands[0]}{_INDEX[step.extent] if in_row else ''}"
    names = [_name(program, i, in_row) for i in step.operands]
    return _C[step.op].format(*names)


_INDEX = {FULL: "[i * columns + j]", ROW: "[j]", COLUMN: "[i]", SCALAR: "[0]"}

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
    "abs": "abs({})",
    "sign": "sign_({})",
} | {name: f"{name}({{}})" for name in ("exp", "expm1", "log", "log1p", "sqrt", "tanh")}

# As in the Array API standard: NaN where either operand is NaN, sign(0) = 0.
_PREAMBLE = """
template <typename T> __device__ T min_(T a, T b) { return (a < b || a != a) ? a : b; }
template <typename T> __device__ T max_(T a, T b) { return (a > b || a != a) ? a : b; }
template <typename T> __device__ T sign_(T a) {
  return a != a ? a : (T)((a > (T)0) - (a < (T)0));
}
"""
