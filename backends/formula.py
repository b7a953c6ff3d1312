"""A formula read once with symbols in place of arrays: what it computes, as a short list of steps.

A *formula* is a pure function ``formula(xp, *arguments)`` whose first argument is an array
namespace. Its language is small so that every backend can turn it into one pass over memory:

- the operators ``+ - * / -x < <= > >= == !=`` and
  ``xp.where abs exp expm1 log log1p sqrt tanh sign minimum maximum``,
- ``xp.max(x, axis=1, keepdims=True)`` and ``xp.sum(x, axis=1, keepdims=True)``, which turn the
  rows of an (n, m) array into an (n, 1) column (what softmax needs),
- no shapes, no branches, no other keywords; arithmetic between two scalars is done before.

`trace` runs the formula on symbols and returns a `Program`: steps in the order they were taken,
each distinct expression once. The adapters write their kernels from it: NumPy a straight line of
ufuncs on cache-sized blocks, CuPy one CUDA kernel. All arithmetic of a kernel is in the dtype of
its arrays; a Python number in a formula has that dtype too.

Arguments come in four extents, by whether they vary along rows (axis 0) and columns (axis 1):
"full" (n, m), "row" (m,), "column" (n, 1) and "scalar". Flat vectors count as full.
"""

from collections.abc import Callable, Sequence
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

UNARY = ("negative", "abs", "exp", "expm1", "log", "log1p", "sqrt", "tanh", "sign")
BINARY = ("add", "subtract", "multiply", "divide", "minimum", "maximum")
COMPARE = ("less", "less_equal", "greater", "greater_equal", "equal", "not_equal")
REDUCE = ("max", "sum")


class NotFusable(TypeError):
    """The formula leaves the language above; it can still be run as it stands."""


@dataclass(frozen=True)
class Step:
    """One operation. ``op`` is "argument", "constant", "where" or a name of the lists above."""

    op: str
    operands: tuple[int, ...]  # numbers of earlier steps; for an argument its position
    extent: Extent
    boolean: bool = False
    value: str = ""  # of a constant, as text: 0.0 and -0.0 are two numbers


@dataclass(frozen=True)
class Program:
    """The steps of a traced formula and the numbers of those that are its results."""

    name: str
    steps: tuple[Step, ...]
    results: tuple[int, ...]
    arguments: int

    @property
    def reduces(self) -> bool:
        """Whether some step turns rows into a column."""
        return any(step.op in REDUCE for step in self.steps)

    def last_use(self) -> list[int]:
        """For each step the number of the last step that reads it (itself, if none does)."""
        last = list(range(len(self.steps)))
        for number, step in enumerate(self.steps):
            if step.op not in ("argument", "constant"):
                for operand in step.operands:
                    last[operand] = number
        return last


class _Symbol:
    """A step in the making; operators and `_NAMESPACE` append to the tape it lives on."""

    __array_ufunc__ = None  # NumPy scalars on the left leave the operation to the symbol
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, tape: dict[Step, int], number: int, step: Step):
        self.tape, self.number, self.step = tape, number, step

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
        return _append(self.tape, "negative", (self,))

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


def _record(tape: dict[Step, int], step: Step) -> _Symbol:
    return _Symbol(tape, tape.setdefault(step, len(tape)), step)


def _symbol(tape: dict[Step, int], x: Any) -> _Symbol:
    if isinstance(x, _Symbol):
        return x
    if isinstance(x, (int, float)) and not isinstance(x, bool) and isfinite(x):
        return _record(tape, Step("constant", (), SCALAR, value=repr(float(x))))
    raise NotFusable(
        "a formula combines its arguments and finite Python numbers, not "
        f"{x if isinstance(x, float) else type(x).__name__}"
    )


def _append(tape: dict[Step, int], op: str, operands: Sequence[Any]) -> _Symbol:
    symbols = [_symbol(tape, x) for x in operands]
    extents = [s.step.extent for s in symbols]
    extent = (any(e[0] for e in extents), any(e[1] for e in extents))
    if extent == SCALAR:
        raise NotFusable("arithmetic between scalars comes before the formula, as an argument")
    boolean = op in COMPARE
    wants_boolean = [op == "where" and i == 0 for i in range(len(symbols))]
    if [s.step.boolean for s in symbols] != wants_boolean:
        raise NotFusable(f"{op} of a comparison: use xp.where(condition, a, b)")
    return _record(tape, Step(op, tuple(s.number for s in symbols), extent, boolean))


def _binary(op: str, a: Any, b: Any) -> _Symbol:
    tape = a.tape if isinstance(a, _Symbol) else b.tape
    return _append(tape, op, (a, b))


def _reduction(op: str) -> Callable[..., _Symbol]:
    def reduce(x: _Symbol, /, *, axis: int | None = None, keepdims: bool = False) -> _Symbol:
        if axis not in (1, -1) or not keepdims or not x.step.extent[1] or x.step.boolean:
            raise NotFusable(f"xp.{op} in a formula is along a row: axis=1, keepdims=True")
        extent = (x.step.extent[0], False)
        return _record(x.tape, Step(op, (x.number,), extent))

    return reduce


def _elementwise(op: str) -> Callable[..., _Symbol]:
    def call(*operands: Any) -> _Symbol:
        tape = next((x.tape for x in operands if isinstance(x, _Symbol)), None)
        if tape is None:
            raise NotFusable("arithmetic between scalars comes before the formula")
        return _append(tape, op, operands)

    return call


_NAMESPACE = SimpleNamespace(
    **{op: _elementwise(op) for op in (*UNARY, *BINARY, *COMPARE, "where")},
    **{op: _reduction(op) for op in REDUCE},
)


def extent_of(shape: tuple[int, ...], whole: tuple[int, ...]) -> Extent:
    """The extent of an array in a kernel over ``whole``, from their shapes."""
    if len(whole) < 2:
        return FULL if shape == whole else SCALAR
    if len(shape) < 2:
        return (False, bool(shape) and shape[0] == whole[1])
    return (shape[0] == whole[0], shape[1] == whole[1])


def trace(formula: Formula, extents: Sequence[Extent], into: Sequence[int] = ()) -> Program:
    """The program of a formula for arguments of these extents; NotFusable if it has none.

    ``into`` are the positions of the arguments that the results are written to.

    >>> program = trace(lambda xp, z, b: xp.maximum(z + b, 0.0), [FULL, ROW])
    >>> [step.op for step in program.steps]
    ['argument', 'argument', 'add', 'constant', 'maximum']
    """
    tape: dict[Step, int] = {}
    arguments = [
        _record(tape, Step("argument", (position,), extent))
        for position, extent in enumerate(extents)
    ]
    name = getattr(formula, "__name__", type(formula).__name__)
    try:
        results = formula(_NAMESPACE, *arguments)
    except (AttributeError, TypeError) as error:
        raise NotFusable(f"formula {name!r}: {error}") from error
    results = results if isinstance(results, tuple) else (results,)
    symbols = [_symbol(tape, result) for result in results]
    if any(symbol.step.boolean for symbol in symbols):
        raise NotFusable(f"formula {name!r}: a result is a comparison; use xp.where(it, 1.0, 0.0)")
    if not all(extents[position][0] for position in into):
        raise NotFusable(f"formula {name!r}: a result is written to an argument all rows share")
    numbers = tuple(symbol.number for symbol in symbols)
    clean = "".join(c if c.isalnum() else "_" for c in name)
    return Program(clean, tuple(tape), numbers, len(arguments))
