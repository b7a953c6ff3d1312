"""Formulas as ufuncs on blocks that stay in the cache, for the NumPy backend.

A traced formula (`backends.formula`) becomes a straight line of ufuncs with ``out=``, run over
blocks of rows small enough that a block and the scratch it needs stay in the L2 cache: one pass
over memory a formula, and nothing is allocated when it runs.
"""

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np

from backends.base import Array
from backends.formula import BINARY, COMPARE, FULL, REDUCE, UNARY, Extent, Program

BLOCK = 1 << 14  # elements of one block: with its scratch about a quarter megabyte of float32
SHORT = 128  # columns from which NumPy reduces a row at full speed


@cache
def _compiled(source: str) -> Any:
    return compile(source, "<formula on blocks>", "exec")


class BlockKernel:
    """Writes the straight line of ufuncs for one program on given arrays.

    Every step lives in a *place*: an argument, a constant, or a scratch block that is reused once
    nothing reads it any more. A step whose value is a result goes to its destination at once,
    unless the old value of the destination is still to be read. A comparison is kept as an integer
    mask of zeros and minus ones, and ``where`` selects by bits: exact for every value, and ten
    times faster than a masked copy.
    """

    def __init__(
        self,
        program: Program,
        into: Sequence[int],
        arrays: Sequence[Array],
        shape: tuple[int, ...],
    ):
        self.program, self.into, self.arrays, self.shape = program, into, arrays, shape
        self.dtype = np.result_type(*(x.dtype for x in arrays))
        self.integer = np.dtype(f"i{self.dtype.itemsize}")
        self.lines: list[str] = []
        self.constants: dict[str, np.ndarray] = {}  # 0-d, the same for every block
        self.scratch: dict[str, tuple[Extent, float | None]] = {}  # name -> extent, fill value
        self.free: dict[Extent, list[str]] = {}
        self.place: dict[int, str] = {}
        self._write()

    # -- which array a step lives in

    def _new(self, extent: Extent) -> str:
        pool = self.free.setdefault(extent, [])
        if pool:
            return pool.pop()
        name = f"t{len(self.scratch)}"
        self.scratch[name] = (extent, None)
        return name

    def _filled(self, value: float) -> str:
        name = f"t{len(self.scratch)}"
        self.scratch[name] = (FULL, value)
        return name

    def _destinations(self, last: list[int]) -> dict[int, str]:
        """The results that can be written straight into their argument."""
        address = [x.__array_interface__["data"][0] for x in self.arrays]
        direct: dict[int, str] = {}
        for position, number in zip(self.into, self.program.results, strict=True):
            step = self.program.steps[number]
            aliases = [i for i, a in enumerate(address) if a == address[position]]
            read_later = any(last[self._argument(i)] > number for i in aliases)
            overwritten = any(d == f"x{i}" for i in aliases for d in direct.values())
            one_column = len(self.shape) > 1 and self.shape[1] == 1
            fits = one_column or step.extent == self.program.steps[position].extent
            # A result that is read again must not sit where a later result goes.
            if (
                step.op not in ("argument", "constant")
                and fits
                and number not in direct
                and not read_later
                and not overwritten
                and not (len(aliases) > 1 and self.arrays[position].shape != self.shape)
            ):
                direct[number] = f"x{position}"
        return direct

    def _keep_overwritten(self) -> dict[int, str]:
        """Copies of the arguments that are results and which another result may overwrite."""
        kept: dict[int, str] = {}
        if len(self.into) > 1:
            for position, number in zip(self.into, self.program.results, strict=True):
                step = self.program.steps[number]
                if number < len(self.arrays) and number != position and number not in kept:
                    kept[number] = self._new(step.extent)
                    self.lines.append(f"copyto({kept[number]}, x{number})")
        return kept

    def _argument(self, position: int) -> int:
        return position  # `trace` records the arguments first, in their order

    # -- the lines

    def _write(self) -> None:
        last = self.program.last_use()
        direct = self._destinations(last)
        results = set(self.program.results)
        kept = self._keep_overwritten()
        for number, step in enumerate(self.program.steps):
            if step.op == "argument":
                position = step.operands[0]
                if position < len(self.arrays):
                    self.place[number] = f"x{position}"
                else:
                    self.place[number] = f"c{number}"
                    self.constants[f"c{number}"] = np.zeros((), self.dtype)
            elif step.op == "constant":
                self.place[number] = f"c{number}"
                self.constants[f"c{number}"] = np.array(float(step.value), self.dtype)
            else:
                operands = [self.place[i] for i in step.operands]
                dying = {
                    self.place[i]: self.program.steps[i].extent
                    for i in step.operands
                    if last[i] == number and i not in results and self.place[i].startswith("t")
                }
                out = direct.get(number) or self._new(step.extent)
                self._emit(number, step.op, operands, out)
                self.place[number] = out
                for name, extent in dying.items():
                    self.free.setdefault(extent, []).append(name)
        for position, number in zip(self.into, self.program.results, strict=True):
            place = kept.get(number) or self.place[number]
            if place != f"x{position}":
                self.lines.append(f"copyto(x{position}, {place})")

    def _emit(self, number: int, op: str, operands: list[str], out: str) -> None:
        say = self.lines.append
        step = self.program.steps[number]
        if op in UNARY:
            say(f"{op}({operands[0]}, {out})")
        elif op in ("minimum", "maximum"):
            for i in range(2):  # NumPy's loop for a scalar operand is 4x slower
                value = self.program.steps[step.operands[i]]
                if value.op == "constant" and step.extent == FULL:
                    operands[i] = self._filled(float(value.value))
            say(f"{op}({operands[0]}, {operands[1]}, out={out})")
        elif op in BINARY:
            say(f"{op}({operands[0]}, {operands[1]}, {out})")
        elif op in COMPARE:
            say(f"{op}({operands[0]}, {operands[1]}, {out}_b)")
            say(f"negative({out}_8, out={out}_i)")
        elif op in REDUCE:
            self._reduce(op, operands[0], out)
        else:  # where
            mask, a, b = operands
            if self._zero(step.operands[2]):
                say(f"bitwise_and({a}_i, {mask}_i, {out}_i)")
            elif self._zero(step.operands[1]):
                t = self._new(step.extent)
                say(f"invert({mask}_i, {t}_i)")
                say(f"bitwise_and({b}_i, {t}_i, {out}_i)")
                self.free.setdefault(step.extent, []).append(t)
            else:
                t = self._new(step.extent)
                say(f"bitwise_xor({a}_i, {b}_i, {t}_i)")
                say(f"bitwise_and({t}_i, {mask}_i, {t}_i)")
                say(f"bitwise_xor({t}_i, {b}_i, {out}_i)")
                self.free.setdefault(step.extent, []).append(t)

    def _zero(self, number: int) -> bool:
        step = self.program.steps[number]
        return step.op == "constant" and step.value == "0.0"

    def _reduce(self, op: str, x: str, out: str) -> None:
        """A row's maximum or sum. NumPy is slow on short rows; of a turned copy they are columns,
        which it reduces at full speed."""
        if self.shape[-1] >= SHORT:
            self.lines.append(f"{op}({x}, 1, None, {out}, True)")
        else:
            turned = self._new(FULL)
            self.lines.append(f"copyto({turned}_r, {x}_t)")
            self.lines.append(f"{op}({turned}_r, 0, None, {out}_c)")
            self.free[FULL].append(turned)

    # -- the blocks

    def _blocks(self) -> list[dict[str, np.ndarray]]:
        """For each block the arrays its lines name."""
        flat = is_flat(self.program, self.arrays, self.shape)
        width = 1 if flat else self.shape[-1]
        rows = int(np.prod(self.shape)) if flat else self.shape[0]
        height = max(1, min(rows, BLOCK // max(width, 1)))
        made: dict[str, np.ndarray] = {}
        for name, (extent, value) in self.scratch.items():
            size = (height, width) if extent == FULL else (height, 1) if extent[0] else (1, width)
            made[name] = np.empty((height,) if flat else size, self.dtype)
            if value is not None:
                made[name][...] = value
            if any(f"{name}_b)" in line for line in self.lines):
                made[f"{name}_bool"] = np.empty(made[name].shape, np.bool_)
        whole = [x.reshape(-1) if flat else x for x in self.arrays]
        blocks = []
        for start in range(0, rows, height):
            stop = min(start + height, rows)
            block = {
                name: scratch[: stop - start] if self.scratch[_bare(name)][0][0] else scratch
                for name, scratch in made.items()
            }
            for position, x in enumerate(whole):
                varies = self.program.steps[position].extent[0]
                block[f"x{position}"] = x[start:stop] if varies else x
            blocks.append(block)
        return blocks

    def _views(self, arrays: dict[str, np.ndarray], wanted: list[str]) -> tuple[np.ndarray, ...]:
        """The arrays under the names that the lines use: as they are, as bits, as booleans, with
        rows for columns (r), turned (t), their one column (c)."""
        found = []
        for name in wanted:
            x = arrays[_bare(name)]
            if name.endswith("_i"):
                x = x.view(self.integer)
            elif name.endswith(("_b", "_8")):
                x = arrays[f"{_bare(name)}_bool"]
                x = x.view(np.int8) if name.endswith("_8") else x
            elif name.endswith("_r"):
                x = x.reshape(x.shape[::-1])
            elif name.endswith("_t"):
                x = x.T
            elif name.endswith("_c"):
                x = x[:, 0]
            found.append(x)
        return tuple(found)

    def function(self) -> Callable[..., None]:
        """The kernel on its arrays, as a function of the scalars."""
        if not self.lines:  # every result is its own argument, as the identity's is
            return lambda *scalars: None
        names = sorted({w for line in self.lines for w in _words(line) if w[0] in "xtc"})
        names = [n for n in names if n[1:2].isdigit()]
        outer = [n for n in names if n.startswith("c")]
        inner = [n for n in names if not n.startswith("c")]
        blocks = [self._views(block, inner) for block in self._blocks()]
        first = len(self.arrays)
        scalars = range(first, self.program.arguments)
        body = [f"    c{i}[()] = s{i}" for i in scalars]
        body.append(f"    for {', '.join(inner)}, in blocks:")
        body += [f"        {line}" for line in self.lines]
        source = "\n".join([f"def run({', '.join(f's{i}' for i in scalars)}):", *body])
        space = {"blocks": blocks, **_UFUNCS, **self.constants}
        space |= dict(zip(outer, self._views(dict(self.constants), outer), strict=True))
        exec(_compiled(source), space)
        return space["run"]


def is_flat(program: Program, arrays: Sequence[Array], shape: tuple[int, ...]) -> bool:
    """Whether a kernel may run over the arrays as over vectors."""
    whole = all(x.shape == shape and x.flags.c_contiguous for x in arrays)
    return len(shape) < 2 or (whole and not program.reduces)


def _bare(name: str) -> str:
    return name.partition("_")[0]


def _words(line: str) -> list[str]:
    return "".join(c if c.isalnum() or c == "_" else " " for c in line).split()


_UFUNCS: dict[str, Any] = {op: getattr(np, op) for op in (*UNARY, *BINARY, *COMPARE)}
_UFUNCS |= {op: getattr(np, op) for op in ("bitwise_and", "bitwise_xor", "copyto", "invert")}
_UFUNCS |= {"abs": np.absolute, "max": np.maximum.reduce, "sum": np.add.reduce}
