"""Formulas written as Python loops that numba compiles: the text alone.

Every number has the dtype of the arrays. Elementwise formulas are one pass over the elements,
formulas with row reductions a pass a reduction over each row. exp and its like are NumPy's, which
for one number are the C library's, or the loops' own (`backends.elementary`), which are vectorised.
"""

from collections.abc import Callable, Iterable
from functools import cache

from backends.elementary import FUNCTIONS
from backends.formula import SCALAR, Program

TRANSCENDENTAL = ("exp", "expm1", "log", "log1p", "sin", "cos", "tanh")


@cache
def loop_source(program: Program, arrays: int, dtype: str, flat: bool, own: bool = False) -> str:
    """Python source of the loop over so many arrays, as vectors if flat, else row by row. own:
    whether it calls the functions of `backends.elementary`, by their names.

    >>> from backends.formula import FULL, SCALAR, trace
    >>> program = trace(lambda xp, w, g, eta: w - eta * g, [FULL, FULL, SCALAR])
    >>> print(loop_source(program, arrays=2, dtype="float32", flat=True))
    def kernel(x0, x1, s2):
        s2 = np.float32(s2)
        for i in range(x0.size):
            v0 = x0[i]
            v1 = x1[i]
            v3 = s2 * v1
            v4 = v0 - v3
            x0[i] = v4
    """
    return _Loop(program, arrays, dtype, flat, own).source()


class _Loop:
    def __init__(self, program: Program, arrays: int, dtype: str, flat: bool, own: bool):
        self.program, self.code = program, program.code
        self.arrays, self.dtype, self.flat, self.own = arrays, dtype, flat, own

    def source(self) -> str:
        scalars = [f"s{i}" for i in range(self.arrays, self.program.arguments)]
        names = [*(f"x{i}" for i in range(self.arrays)), *scalars]
        lines = [f"{name} = np.{self.dtype}({name})" for name in scalars]
        lines += self._elements() if self.flat else self._rows()
        return "\n".join([f"def kernel({', '.join(names)}):", *_indented(lines)])

    def _elements(self) -> list[str]:
        longest = next(n for n in range(self.arrays) if self.code[n].extent != SCALAR)
        body = self._lines(self.program.needed(self.program.results))
        body += [self._write(position, n) for position, n in self.program.targets]
        return [f"for i in range(x{longest}.size):", *_indented(body)]

    def _rows(self) -> list[str]:
        schedule = self.program.row_schedule()
        body: list[str] = []
        for n, anew in schedule.once:
            if self.code[n].op not in ("max", "sum"):
                body += self._lines([n])
                continue
            (operand,) = self.code[n].operands
            least = "-np.inf" if self.code[n].op == "max" else "0.0"
            value = self._name(operand)
            more = _larger(f"v{n}", value) if self.code[n].op == "max" else f"v{n} + {value}"
            body.append(f"v{n} = np.{self.dtype}({least})")
            body += ["for j in range(columns):", *_indented([*self._lines(anew), f"v{n} = {more}"])]
        if schedule.wide:
            last = self._lines(schedule.anew)
            last += [self._write(position, n) for position, n in schedule.wide]
            body += ["for j in range(columns):", *_indented(last)]
        body += [self._write(position, n) for position, n in schedule.narrow]
        sizes = f"rows, columns = {self._size(0)}, {self._size(1)}"
        return [sizes, "for i in range(rows):", *_indented(body)]

    def _size(self, axis: int) -> str:
        varying = (n for n in range(self.arrays) if self.code[n].extent[axis])
        return next((f"x{n}.shape[{axis}]" for n in varying), "1")

    def _lines(self, numbers: Iterable[int]) -> list[str]:
        """A line for each of these instructions that is not a constant or a scalar."""
        computed = (n for n in numbers if self.code[n].op != "constant" and not self._is_scalar(n))
        return [f"v{n} = {self._expression(n)}" for n in computed]

    def _is_scalar(self, n: int) -> bool:
        return self.arrays <= n < self.program.arguments

    def _write(self, position: int, n: int) -> str:
        return f"x{position}[{self._place(position)}] = {self._name(n)}"

    def _place(self, position: int) -> str:
        rows, columns = self.code[position].extent
        row = "i" if rows else "0"
        return row if self.flat else f"{row}, {'j' if columns else '0'}"

    def _name(self, n: int) -> str:
        if self.code[n].op == "constant":
            return f"np.{self.dtype}({self.code[n].value})"
        return f"s{n}" if self._is_scalar(n) else f"v{n}"

    def _expression(self, n: int) -> str:
        if self.code[n].op == "argument":
            return f"x{n}[{self._place(n)}]"
        op, operands = self.code[n].op, [self._name(i) for i in self.code[n].operands]
        if self.own and op in FUNCTIONS:
            return f"{op}({operands[0]})"
        return _PYTHON[op](*operands)


def _indented(lines: Iterable[str]) -> list[str]:
    return [f"    {line}" for line in lines]


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
