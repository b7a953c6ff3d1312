"""Formulas as serial loops compiled by numba (extra ``jit``), for the NumPy backend.

A traced formula (`backends.formula`) is written as one Python loop in which every number has the
arrays' dtype, and compiled: elementwise formulas in one pass over the elements, formulas with row
reductions in a pass a reduction over each row. The source is kept in a file named by its content,
so that numba's cache on disk serves the next process.

Loops are serial: BLAS owns the threads. LLVM vectorises arithmetic, but not exp, tanh or log, for
which NumPy's own loops are faster on large arrays; `worthwhile` decides by that.
"""

import hashlib
import importlib.util
import math
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from functools import cache, partial
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from backends.base import Array
from backends.block_kernel import is_flat
from backends.formula import FULL, SCALAR, Program

TRANSCENDENTAL = {"exp", "expm1", "log", "log1p", "tanh"}
SMALL = 1 << 8  # elements below which the calls of ufuncs cost more than the arithmetic


@cache
def available() -> bool:
    """Whether numba can be imported and is not switched off by MLP_JIT=0."""
    return os.environ.get("MLP_JIT", "1") != "0" and importlib.util.find_spec("numba") is not None


def worthwhile(program: Program, shape: tuple[int, ...]) -> bool:
    """Whether one compiled loop is faster than NumPy's ufuncs on arrays of this shape."""
    slow = any(step.op in TRANSCENDENTAL and step.extent == FULL for step in program.steps)
    return math.prod(shape) <= SMALL or not slow


def bind(
    program: Program, into: Sequence[int], arrays: Sequence[Array], shape: tuple[int, ...]
) -> Callable[..., None]:
    """The program on its arrays, as a function of the scalars."""
    dtype = np.result_type(*(x.dtype for x in arrays))
    flat = is_flat(program, arrays, shape)
    source = loop_source(program, tuple(into), len(arrays), str(dtype), flat)
    kernel = _compiled(source)
    operands = [x.reshape(-1) if flat else x.reshape(-1, x.shape[-1]) for x in arrays]
    return partial(kernel, *operands)


# ------------------------------------------------------------------------------- the loop's source


@cache
def loop_source(
    program: Program, into: tuple[int, ...], arrays: int, dtype: str, flat: bool
) -> str:
    """Python source of the loop.

    >>> from backends.formula import FULL, SCALAR, trace
    >>> program = trace(lambda xp, w, g, eta: w - eta * g, [FULL, FULL, SCALAR])
    >>> print(loop_source(program, (0,), arrays=2, dtype="float32", flat=True))
    def kernel(x0, x1, s2):
        s2 = np.float32(s2)
        for i in range(x0.size):
            v0 = x0[i]
            v1 = x1[i]
            v3 = s2 * v1
            v4 = v0 - v3
            x0[i] = v4
    """
    return _Loop(program, into, arrays, dtype, flat).source()


class _Loop:
    def __init__(self, program: Program, into: Sequence[int], arrays: int, dtype: str, flat: bool):
        self.steps, self.program, self.into = program.steps, program, into
        self.arrays, self.dtype, self.flat = arrays, dtype, flat

    def source(self) -> str:
        names = [f"x{i}" for i in range(self.arrays)]
        names += [f"s{i}" for i in range(self.arrays, self.program.arguments)]
        lines = [f"def kernel({', '.join(names)}):"]
        lines += [f"    {name} = np.{self.dtype}({name})" for name in names if name.startswith("s")]
        if self.flat:
            lines.append(f"    for i in range(x{self._longest()}.size):")
            lines += self._block(self.program.results, 2, flat=True)
            return "\n".join(lines)
        lines.append(f"    rows, columns = {self._extent(0)}, {self._extent(1)}")
        lines.append("    for i in range(rows):")
        lines += self._rows()
        return "\n".join(lines)

    def _varies(self, n: int, axis: int) -> bool:
        return self.steps[n].extent[axis]

    def _longest(self) -> int:
        return next(n for n in range(self.arrays) if self.steps[n].extent != SCALAR)

    def _extent(self, axis: int) -> str:
        for n in range(self.arrays):
            if self._varies(n, axis):
                return f"x{n}.shape[{axis}]"
        return "1"

    def _rows(self) -> list[str]:
        """The body of the loop over rows: reductions in their order, then the results."""
        lines: list[str] = []
        for n, step in enumerate(self.steps):
            if step.op == "constant" or step.extent[1] or self._is_number(n):
                continue
            if step.op not in ("max", "sum"):
                lines.append(f"        v{n} = {self._expression(n)}")
                continue
            (operand,) = step.operands
            start = "-np.inf" if step.op == "max" else "0.0"
            lines.append(f"        v{n} = np.{self.dtype}({start})")
            lines.append("        for j in range(columns):")
            lines += self._block([operand], 3, write=False)
            value = self._name(operand)
            combine = f"v{n} + {value}" if step.op == "sum" else _larger(f"v{n}", value)
            lines.append(f"            v{n} = {combine}")
        wide = [n for n in self.program.results if self._along(n)]
        targets = list(zip(self.into, self.program.results, strict=True))
        if wide or any(self._varies(p, 1) for p, _ in targets):
            lines.append("        for j in range(columns):")
            lines += self._block(self.program.results, 3)
        for position, n in targets:
            if not self._varies(position, 1):
                lines.append(f"        x{position}[i, 0] = {self._name(n)}")
        return lines

    def _along(self, n: int) -> bool:
        return self.steps[n].extent[1]

    def _is_number(self, n: int) -> bool:
        return self.steps[n].op == "argument" and n >= self.arrays

    def _block(
        self, results: Sequence[int], depth: int, flat: bool = False, write: bool = True
    ) -> list[str]:
        """The steps of one element that these results need, and the writing of the results."""
        pad = "    " * depth
        needed: set[int] = set()
        stack = list(results)
        while stack:
            n = stack.pop()
            step = self.steps[n]
            inner = flat or step.extent[1]
            if n in needed or not inner or step.op == "constant" or self._is_number(n):
                continue
            needed.add(n)
            stack += [] if step.op == "argument" else step.operands
        lines = [f"{pad}v{n} = {self._expression(n)}" for n in sorted(needed)]
        if write:
            for position, n in zip(self.into, self.program.results, strict=True):
                if flat or self._varies(position, 1):
                    index = "[i]" if flat else self._index(position)
                    lines.append(f"{pad}x{position}{index} = {self._name(n)}")
        return lines

    def _index(self, position: int) -> str:
        if self.flat:
            return "[0]" if self.steps[position].extent == SCALAR else "[i]"
        rows, columns = self.steps[position].extent
        return f"[{'i' if rows else 0}, {'j' if columns else 0}]"

    def _name(self, n: int) -> str:
        step = self.steps[n]
        if step.op == "constant":
            return f"np.{self.dtype}({step.value})"
        return f"s{step.operands[0]}" if self._is_number(n) else f"v{n}"

    def _expression(self, n: int) -> str:
        step = self.steps[n]
        if step.op == "argument":
            return f"x{n}{self._index(n)}"
        return _PYTHON[step.op](*(self._name(i) for i in step.operands))


def _larger(a: str, b: str) -> str:
    return f"({a} if ({a} > {b} or {a} != {a}) else {b})"


def _smaller(a: str, b: str) -> str:
    return f"({a} if ({a} < {b} or {a} != {a}) else {b})"


def _operator(sign: str) -> Callable[[str, str], str]:
    return lambda a, b: f"{a} {sign} {b}"


def _function(name: str) -> Callable[[str], str]:
    return lambda a: f"np.{name}({a})"


_PYTHON: dict[str, Callable[..., str]] = {
    "add": _operator("+"),
    "subtract": _operator("-"),
    "multiply": _operator("*"),
    "divide": _operator("/"),
    "less": _operator("<"),
    "less_equal": _operator("<="),
    "greater": _operator(">"),
    "greater_equal": _operator(">="),
    "equal": _operator("=="),
    "not_equal": _operator("!="),
    "negative": lambda a: f"-{a}",
    "where": lambda c, a, b: f"({a} if {c} else {b})",
    "minimum": _smaller,
    "maximum": _larger,
    **{name: _function(name) for name in (*TRANSCENDENTAL, "abs", "sqrt", "sign")},
}


# -------------------------------------------------------------------------------------- compiling


def _folder() -> Path:
    """Where sources and numba's cache are kept."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(base) / "array-mlp" / "kernels"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if os.access(folder, os.W_OK):
            return folder
    except OSError:
        pass
    return Path(tempfile.mkdtemp(prefix="array-mlp-"))


@cache
def _compiled(source: str) -> Any:
    # No fast-math: every operation is rounded as NumPy rounds it, and sums keep their order.
    options = 'cache=True, error_model="numpy"'
    text = f"import numpy as np\nfrom numba import njit\n\n\n@njit({options})\n{source}\n"
    name = "mlp_" + hashlib.sha256(text.encode()).hexdigest()[:20]
    path = _folder() / f"{name}.py"
    if not path.exists():
        partial = path.with_suffix(f".{os.getpid()}.partial")
        partial.write_text(text, encoding="utf-8")
        os.replace(partial, path)
    module = ModuleType(name)
    module.__file__ = str(path)
    sys.modules[name] = module  # numba's cache looks the function up by its module
    exec(compile(text, str(path), "exec"), module.__dict__)
    return module.kernel
