"""A formula read once with symbols in place of arrays: what it computes, as a short program.

A *formula* is a pure function ``formula(xp, *arguments)`` whose first argument is an array
namespace. Its language is small so that every backend can turn it into one pass over memory:

- the operators ``+ - * / -x < <= > >= == !=`` and
  ``xp.where abs exp expm1 log log1p sqrt sin cos tanh sign minimum maximum``,
- ``xp.max(x, axis=1, keepdims=True)`` and ``xp.sum(x, axis=1, keepdims=True)``, which turn the
  rows of an (n, m) array into an (n, 1) column (what softmax needs),
- ``xp.erf`` where a library has one of its own (``hasattr(xp, "erf")``), as CUDA does; the standard
  has none,
- no shapes, no branches, no other keywords; arithmetic between two scalars is done before.

`trace` runs the formula on symbols and returns a `Program`: instructions in the order they were
met, each distinct expression once. The adapters write their kernels from it, as ufuncs on blocks
that stay in the cache, as compiled loops, as a kernel of a device. All arithmetic of a kernel is in
the dtype of its arrays; a Python number in a formula has that dtype too.

Arguments come in four extents, by whether they vary along rows (axis 0) and columns (axis 1):
"full" (n, m), "row" (m,), "column" (n, 1) and "scalar". Flat vectors count as full.
"""

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from math import isfinite
from types import SimpleNamespace
from typing import Any

Extent = tuple[bool, bool]  # varies along rows, varies along columns
FULL: Extent = (True, True)
ROW: Extent = (False, True)
COLUMN: Extent = (True, False)
SCALAR: Extent = (False, False)

Formula = Callable[..., Any]

UNARY = ("negative", "abs", "exp", "expm1", "log", "log1p", "sqrt", "sin", "cos", "tanh", "sign")
OWN = ("erf",)  # of one argument too, in the libraries that have them
BINARY = ("add", "subtract", "multiply", "divide", "minimum", "maximum")
COMPARE = ("less", "less_equal", "greater", "greater_equal", "equal", "not_equal")
REDUCE = ("max", "sum")


class NotFusable(TypeError):
    """The formula leaves the language above; it can still be run as it stands."""


@dataclass(frozen=True)
class Instruction:
    """One operation. ``op`` is "argument", "constant", "where" or a name of the lists above."""

    op: str
    operands: tuple[int, ...]  # numbers of earlier instructions
    extent: Extent
    boolean: bool = False
    value: str = ""  # a constant as text, since 0.0 and -0.0 are two; the position of an argument


@dataclass(frozen=True)
class RowSchedule:
    """A row at a time: what a row has once, then a loop over its columns that writes the results.

    once: instructions in order, each with those that it needs anew in every column, which a
    reduction loops over. anew: those of the last loop. wide, narrow: (argument, result) pairs that
    are written there, and that are written once a row.
    """

    once: tuple[tuple[int, tuple[int, ...]], ...]
    anew: tuple[int, ...]
    wide: tuple[tuple[int, int], ...]
    narrow: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Program:
    """A traced formula. An instruction goes by its number, its place in ``code``; the arguments
    come first, so that their numbers are their positions.

    results: the instructions whose values are written. into: the arguments they are written to.
    """

    name: str
    code: tuple[Instruction, ...]
    results: tuple[int, ...]
    into: tuple[int, ...]
    arguments: int

    @property
    def targets(self) -> tuple[tuple[int, int], ...]:
        """(argument, result) for each result."""
        return tuple(zip(self.into, self.results, strict=True))

    @property
    def reduces(self) -> bool:
        """Whether some instruction turns rows into a column."""
        return any(instruction.op in REDUCE for instruction in self.code)

    def needed(
        self, results: Iterable[int], given: Callable[[int], bool] = lambda n: False
    ) -> tuple[int, ...]:
        """The instructions that these results are computed from, themselves among them, in order;
        of what is given, nothing that is before it.

        >>> program = trace(lambda xp, z, b: xp.exp(xp.exp(b)), [FULL, ROW])
        >>> program.needed(program.results)
        (1, 2, 3)
        >>> program.needed(program.results, given=lambda n: n == 2)
        (2, 3)
        """
        found: set[int] = set()
        stack = list(results)
        while stack:
            n = stack.pop()
            if n not in found:
                found.add(n)
                stack += () if given(n) else self.code[n].operands
        return tuple(sorted(found))

    def last_use(self) -> list[int]:
        """For each instruction the number of the last one needed that reads it (itself, if none
        does)."""
        last = list(range(len(self.code)))
        for n in self.needed(self.results):
            for operand in self.code[n].operands:
                last[operand] = n
        return last

    def row_schedule(self) -> RowSchedule:
        """The program for one row after another.

        >>> def centred(xp, x, c):
        ...     mean = 0.5 * xp.sum(x, axis=1, keepdims=True)
        ...     return x - mean, mean
        >>> program = trace(centred, [FULL, COLUMN], into=(0, 1))
        >>> [instruction.op for instruction in program.code]
        ['argument', 'argument', 'sum', 'constant', 'multiply', 'subtract']
        >>> schedule = program.row_schedule()
        >>> schedule.once, schedule.anew
        (((2, (0,)), (3, ()), (4, ())), (0, 5))
        >>> schedule.wide, schedule.narrow
        (((0, 5),), ((1, 4),))
        """

        def along(n: int) -> bool:
            return self.code[n].extent[1]

        def anew(results: Iterable[int]) -> tuple[int, ...]:
            return tuple(filter(along, self.needed(results, given=lambda n: not along(n))))

        once = tuple(n for n in self.needed(self.results) if not along(n))
        wide = tuple((argument, n) for argument, n in self.targets if along(argument))
        narrow = tuple((argument, n) for argument, n in self.targets if not along(argument))
        return RowSchedule(
            tuple((n, anew(self.code[n].operands)) for n in once),
            anew(n for _, n in wide),
            wide,
            narrow,
        )


class _Symbol:
    """An instruction in the making; operators and `_NAMESPACE` append to the code it is part of."""

    __array_ufunc__ = None  # NumPy scalars on the left leave the operation to the symbol
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, code: dict[Instruction, int], number: int, instruction: Instruction):
        self.code, self.number, self.instruction = code, number, instruction

    def __add__(self, other: Any) -> "_Symbol":
        return _binary("add", self, other)

    def __radd__(self, other: Any) -> "_Symbol":
        return _binary("add", other, self)

    def __sub__(self, other: Any) -> "_Symbol":
        return _binary("subtract", self, other)

    def __rsub__(self, other: Any) -> "_Symbol":
        return _binary("subtract", other, self)

    def __mul__(self, other: Any) -> "_Symbol":
        return _binary("multiply", self, other)

    def __rmul__(self, other: Any) -> "_Symbol":
        return _binary("multiply", other, self)

    def __truediv__(self, other: Any) -> "_Symbol":
        return _binary("divide", self, other)

    def __rtruediv__(self, other: Any) -> "_Symbol":
        return _binary("divide", other, self)

    def __neg__(self) -> "_Symbol":
        return _append(self.code, "negative", (self,))

    def __lt__(self, other: Any) -> "_Symbol":
        return _binary("less", self, other)

    def __le__(self, other: Any) -> "_Symbol":
        return _binary("less_equal", self, other)

    def __gt__(self, other: Any) -> "_Symbol":
        return _binary("greater", self, other)

    def __ge__(self, other: Any) -> "_Symbol":
        return _binary("greater_equal", self, other)

    def __eq__(self, other: Any) -> "_Symbol":  # type: ignore[override]
        return _binary("equal", self, other)

    def __ne__(self, other: Any) -> "_Symbol":  # type: ignore[override]
        return _binary("not_equal", self, other)

    def __bool__(self) -> bool:
        raise NotFusable("a formula has no branches: use xp.where")


def _record(code: dict[Instruction, int], instruction: Instruction) -> _Symbol:
    return _Symbol(code, code.setdefault(instruction, len(code)), instruction)


def _symbol(code: dict[Instruction, int], x: Any) -> _Symbol:
    if isinstance(x, _Symbol):
        return x
    if isinstance(x, (int, float)) and not isinstance(x, bool) and isfinite(x):
        return _record(code, Instruction("constant", (), SCALAR, value=repr(float(x))))
    raise NotFusable(
        "a formula combines its arguments and finite Python numbers, not "
        f"{x if isinstance(x, float) else type(x).__name__}"
    )


def _append(code: dict[Instruction, int], op: str, operands: Sequence[Any]) -> _Symbol:
    symbols = [_symbol(code, x) for x in operands]
    extents = [s.instruction.extent for s in symbols]
    extent = (any(e[0] for e in extents), any(e[1] for e in extents))
    if extent == SCALAR:
        raise NotFusable("arithmetic between scalars comes before the formula, as an argument")
    boolean = op in COMPARE
    wants_boolean = [op == "where" and i == 0 for i in range(len(symbols))]
    if [s.instruction.boolean for s in symbols] != wants_boolean:
        raise NotFusable(f"{op} of a comparison: use xp.where(condition, a, b)")
    return _record(code, Instruction(op, tuple(s.number for s in symbols), extent, boolean))


def _binary(op: str, a: Any, b: Any) -> _Symbol:
    code = a.code if isinstance(a, _Symbol) else b.code
    return _append(code, op, (a, b))


def _reduction(op: str) -> Callable[..., _Symbol]:
    def reduce(x: _Symbol, /, *, axis: int | None = None, keepdims: bool = False) -> _Symbol:
        rows, columns = x.instruction.extent
        if axis not in (1, -1) or not keepdims or not columns or x.instruction.boolean:
            raise NotFusable(f"xp.{op} in a formula is along a row: axis=1, keepdims=True")
        return _record(x.code, Instruction(op, (x.number,), (rows, False)))

    return reduce


def _elementwise(op: str) -> Callable[..., _Symbol]:
    def call(*operands: Any) -> _Symbol:
        code = next((x.code for x in operands if isinstance(x, _Symbol)), None)
        if code is None:
            raise NotFusable("arithmetic between scalars comes before the formula")
        return _append(code, op, operands)

    return call


def _functions(names: Iterable[str]) -> dict[str, Callable[..., _Symbol]]:
    return {op: _elementwise(op) for op in names}


_NAMESPACE = _functions((*UNARY, *BINARY, *COMPARE, "where")) | {
    op: _reduction(op) for op in REDUCE
}


def extent_of(shape: tuple[int, ...], whole: tuple[int, ...]) -> Extent:
    """The extent of an array in a kernel over ``whole``, from their shapes."""
    if len(whole) < 2:
        return FULL if shape == whole else SCALAR
    if len(shape) < 2:
        return (False, bool(shape) and shape[0] == whole[1])
    return (shape[0] == whole[0], shape[1] == whole[1])


def trace(
    formula: Formula,
    extents: Sequence[Extent],
    into: Sequence[int] = (0,),
    own: Collection[str] = (),
) -> Program:
    """The program of a formula for arguments of these extents; NotFusable if it has none.

    into: positions of the arguments that the results are written to. own: those of `OWN` that are
    instructions where the kernel is to run.

    >>> program = trace(lambda xp, z, b: xp.maximum(z + b, 0.0), [FULL, ROW])
    >>> [instruction.op for instruction in program.code]
    ['argument', 'argument', 'add', 'constant', 'maximum']
    """
    code: dict[Instruction, int] = {}
    arguments = [
        _record(code, Instruction("argument", (), extent, value=str(position)))
        for position, extent in enumerate(extents)
    ]
    name = getattr(formula, "__name__", type(formula).__name__)
    try:
        results = formula(SimpleNamespace(**_NAMESPACE, **_functions(own)), *arguments)
    except (AttributeError, TypeError) as error:
        raise NotFusable(f"formula {name!r}: {error}") from error
    results = results if isinstance(results, tuple) else (results,)
    symbols = [_symbol(code, result) for result in results]
    if any(symbol.instruction.boolean for symbol in symbols):
        raise NotFusable(f"formula {name!r}: a result is a comparison; use xp.where(it, 1.0, 0.0)")
    if not all(extents[position][0] for position in into):
        raise NotFusable(f"formula {name!r}: a result is written to an argument all rows share")
    numbers = tuple(symbol.number for symbol in symbols)
    clean = "".join(c if c.isalnum() else "_" for c in name)
    return Program(clean, tuple(code), numbers, tuple(into), len(arguments))
