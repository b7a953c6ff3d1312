"""Formulas as ufuncs on blocks that stay in the cache, for the NumPy backend.

A traced formula (`backends.formula`) becomes a straight line of ufuncs with ``out=``, run over
blocks of rows small enough that a block and the scratch it needs stay in the L2 cache: one pass
over memory a formula, and nothing is allocated when it runs.
"""

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np

from backends.base import Native
from backends.blocks import LONG_ROW, Blocks
from backends.formula import BINARY, COMPARE, FULL, REDUCE, UNARY, Extent, Program


@cache
def _compiled(source: str) -> Any:
    return compile(source, "<formula on blocks>", "exec")


class BlockKernel:
    """Writes the straight line of ufuncs for one program on given arrays.

    Every value lives in a *place*: an argument, a constant, or a scratch block that is reused once
    nothing reads it any more. A value that is a result goes to its destination at once, unless the
    old value of the destination is still to be read. A comparison is kept as an integer mask of
    zeros and minus ones, and ``where`` selects by bits: exact for every value, and ten times faster
    than a masked copy.
    """

    def __init__(self, program: Program, arrays: Sequence[Native], shape: tuple[int, ...]):
        self.program, self.code = program, program.code
        self.arrays, self.shape = arrays, shape
        self.dtype = np.result_type(*(x.dtype for x in arrays))
        self.integer = np.dtype(f"i{self.dtype.itemsize}")
        self.lines: list[str] = []
        self.constants: dict[str, np.ndarray] = {}  # 0-d, the same for every block
        self.scratch: dict[str, tuple[Extent, float | None]] = {}  # name -> extent, fill value
        self.free: dict[Extent, list[str]] = {}
        self.place: dict[int, str] = {}
        self._write()

    # -- where a value lives

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
        for position, n in self.program.targets:
            aliases = [i for i, a in enumerate(address) if a == address[position]]
            read_later = any(last[i] > n for i in aliases)
            overwritten = any(d == f"x{i}" for i in aliases for d in direct.values())
            one_column = len(self.shape) > 1 and self.shape[1] == 1
            fits = one_column or self.code[n].extent == self.code[position].extent
            # A result that is read again must not sit where a later result goes.
            if (
                self.code[n].op not in ("argument", "constant")
                and fits
                and n not in direct
                and not read_later
                and not overwritten
                and not (len(aliases) > 1 and self.arrays[position].shape != self.shape)
            ):
                direct[n] = f"x{position}"
        return direct

    def _keep_overwritten(self) -> dict[int, str]:
        """Copies of the arguments that are results and which another result may overwrite."""
        kept: dict[int, str] = {}
        if len(self.program.results) > 1:
            for position, n in self.program.targets:
                if n < len(self.arrays) and n != position and n not in kept:
                    kept[n] = self._new(self.code[n].extent)
                    self.lines.append(f"copyto({kept[n]}, x{n})")
        return kept

    # -- the lines

    def _write(self) -> None:
        last = self.program.last_use()
        direct = self._destinations(last)
        results = set(self.program.results)
        kept = self._keep_overwritten()
        for n in self.program.needed(self.program.results):
            instruction = self.code[n]
            if n < len(self.arrays):
                self.place[n] = f"x{n}"
            elif instruction.op in ("argument", "constant"):
                self.place[n] = f"c{n}"
                number = float(instruction.value) if instruction.op == "constant" else 0.0
                self.constants[f"c{n}"] = np.array(number, self.dtype)
            else:
                operands = [self.place[i] for i in instruction.operands]
                dying = {
                    self.place[i]: self.code[i].extent
                    for i in instruction.operands
                    if last[i] == n and i not in results and self.place[i].startswith("t")
                }
                out = direct.get(n) or self._new(instruction.extent)
                self._emit(n, operands, out)
                self.place[n] = out
                for name, extent in dying.items():
                    self.free.setdefault(extent, []).append(name)
        for position, n in self.program.targets:
            place = kept.get(n) or self.place[n]
            if place != f"x{position}":
                self.lines.append(f"copyto(x{position}, {place})")

    def _emit(self, n: int, operands: list[str], out: str) -> None:
        say = self.lines.append
        op, numbers, extent = self.code[n].op, self.code[n].operands, self.code[n].extent
        if op in UNARY:
            say(f"{op}({operands[0]}, {out})")
        elif op in ("minimum", "maximum"):
            for i in range(2):  # NumPy's loop for a scalar operand is 4x slower
                other = self.code[numbers[i]]
                if other.op == "constant" and extent == FULL:
                    operands[i] = self._filled(float(other.value))
            say(f"{op}({operands[0]}, {operands[1]}, out={out})")
        elif op in BINARY:
            say(f"{op}({operands[0]}, {operands[1]}, {out})")
        elif op in COMPARE:
            say(f"{op}({operands[0]}, {operands[1]}, {out}_b)")
            say(f"negative({out}_8, out={out}_i)")
        elif op in REDUCE:
            self._reduce(op, operands[0], self.code[numbers[0]].extent, out)
        else:  # where
            mask, a, b = operands
            if self._zero(numbers[2]):
                say(f"bitwise_and({a}_i, {mask}_i, {out}_i)")
            elif self._zero(numbers[1]):
                t = self._new(extent)
                say(f"invert({mask}_i, {t}_i)")
                say(f"bitwise_and({b}_i, {t}_i, {out}_i)")
                self.free.setdefault(extent, []).append(t)
            else:
                t = self._new(extent)
                say(f"bitwise_xor({a}_i, {b}_i, {t}_i)")
                say(f"bitwise_and({t}_i, {mask}_i, {t}_i)")
                say(f"bitwise_xor({t}_i, {b}_i, {out}_i)")
                self.free.setdefault(extent, []).append(t)

    def _zero(self, number: int) -> bool:
        return self.code[number].op == "constant" and self.code[number].value == "0.0"

    def _reduce(self, op: str, x: str, extent: Extent, out: str) -> None:
        """A row's maximum or sum. NumPy is slow on short rows; of a turned copy they are columns,
        which it reduces at full speed."""
        if extent != FULL or self.shape[-1] >= LONG_ROW:
            self.lines.append(f"{op}({x}, 1, None, {out}, True)")
        else:
            turned = self._new(FULL)
            self.lines.append(f"copyto({turned}_r, {x}_t)")
            self.lines.append(f"{op}({turned}_r, 0, None, {out}_c)")
            self.free[FULL].append(turned)

    # -- the blocks

    def _blocks(self) -> list[dict[str, np.ndarray]]:
        """For each block the arrays its lines name."""
        blocks = Blocks(self.program, self.arrays, self.shape)
        made: dict[str, np.ndarray] = {}
        for name, (extent, value) in self.scratch.items():
            made[name] = blocks.scratch(extent, self.dtype)
            if value is not None:
                made[name][...] = value
            if any(f"{name}_b)" in line for line in self.lines):
                made[f"{name}_bool"] = np.empty(made[name].shape, np.bool_)
        found = []
        for rows in blocks:
            count = rows.stop - rows.start
            block = {name: scratch[:count] for name, scratch in made.items()}
            for n in range(len(self.arrays)):
                block[f"x{n}"] = blocks.argument(n, self.code[n].extent, rows)
            found.append(block)
        return found

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


def _bare(name: str) -> str:
    return name.partition("_")[0]


def _words(line: str) -> list[str]:
    return "".join(c if c.isalnum() or c == "_" else " " for c in line).split()


_UFUNCS: dict[str, Any] = {op: getattr(np, op) for op in (*UNARY, *BINARY, *COMPARE)}
_UFUNCS |= {op: getattr(np, op) for op in ("bitwise_and", "bitwise_xor", "copyto", "invert")}
_UFUNCS |= {"abs": np.absolute, "max": np.maximum.reduce, "sum": np.add.reduce}
