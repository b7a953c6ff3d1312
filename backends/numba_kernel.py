"""Formulas as serial loops compiled by numba (extra ``jit``), for the NumPy backend.

A traced formula is written as one Python loop (`backends.numba_source`) and compiled. What numba
made of it is kept on disk for the next process (`backends.kernel_cache`). Loops are serial: BLAS
owns the threads.

LLVM vectorises arithmetic but not calls of the C library's exp, tanh and log. In a formula without
row reductions they are the loop's own (`backends.elementary`): one loop, with nothing to cut. A
row's sum is taken in order, which is not vectorised, and neither is what is computed between its
terms: in a formula with reductions NumPy's ufuncs take the exps, and in all of them sin and cos. On
all but small arrays a program is cut at these: in each *stage* one loop writes what they are taken
of into scratch blocks, and a ufunc each replaces it by its value. The last stage writes the
results.

A stage computes what it needs again from the arguments, which costs less than to keep it; only
reductions of rows are kept.
"""

import hashlib
import importlib.util
import math
import os
import sys
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from types import ModuleType
from typing import Any

import numpy as np

from backends.base import Native
from backends.blocks import BLOCK, LONG_ROW, Blocks, is_flat
from backends.elementary import CALLS, FUNCTIONS, source
from backends.formula import FULL, REDUCE, Instruction, Program
from backends.kernel_cache import cached
from backends.numba_source import TRANSCENDENTAL, loop_source

ALONE = 1 << 10  # elements up to which a loop is over before another thread could take its turn
SMALL = 1 << 8  # elements below which the calls of ufuncs cost more than the arithmetic


@cache
def available() -> bool:
    """Whether numba can be imported and is not switched off by MLP_JIT=0."""
    return os.environ.get("MLP_JIT", "1") != "0" and importlib.util.find_spec("numba") is not None


def worthwhile(program: Program, arrays: int, shape: tuple[int, ...]) -> bool:
    """Whether loops are faster than ufuncs alone on so many arrays, of this shape. Formulas with
    scalar arguments have no exps to cut at, so they are left out there."""
    long = program.reduces and shape[-1] >= LONG_ROW
    return not cuts(program, shape) or (not long and program.arguments == arrays)


def cuts(program: Program, shape: tuple[int, ...]) -> list[int]:
    """The instructions that are left to ufuncs on arrays of this shape."""
    if math.prod(shape) <= SMALL:
        return []
    ufuncs = {*TRANSCENDENTAL} if program.reduces else {*TRANSCENDENTAL}.difference(FUNCTIONS)
    return [
        n
        for n, instruction in enumerate(program.code)
        if instruction.op in ufuncs and instruction.extent == FULL
    ]


def bind(program: Program, arrays: Sequence[Native], shape: tuple[int, ...]) -> Callable[..., None]:
    """The program on its arrays, as a function of the scalars."""
    cut = cuts(program, shape)
    blocks = Blocks(program, arrays, shape, BLOCK if cut else None)
    dtype = np.result_type(*(x.dtype for x in arrays))
    parts = stages(program, len(arrays), cut)
    room = {n for part in parts for n in part.operands if program.code[n].op != "argument"}
    scratch = {n: blocks.scratch(program.code[n].extent, dtype) for n in room.union(cut)}

    own = not program.reduces
    calls: list[Callable[..., None]] = []
    for rows in blocks:
        count = rows.stop - rows.start
        block = (count,) if blocks.flat else (count, blocks.width)

        def view(n: int, rows: slice = rows, count: int = count) -> np.ndarray:
            if n in scratch:
                return scratch[n][:count]
            return blocks.argument(n, program.code[n].extent, rows)

        for part in parts:
            if part.program.results:
                calls.append(_loop(part.program, [view(n) for n in part.operands], block, own))
            for name, operand, place in part.ufuncs:
                calls.append(partial(getattr(np, name), view(operand), view(place)))
    if len(calls) == 1:  # itself, with nothing between it and the caller
        return calls[0]

    def run(*scalars: float) -> None:  # there are none where there is more than one call
        for call in calls:
            call()

    return run


def _loop(
    program: Program, arrays: Sequence[np.ndarray], shape: tuple[int, ...], own: bool
) -> Callable[..., None]:
    """The program as one loop over these arrays; own: with exp and its like of its own."""
    flat = is_flat(program, arrays, shape)
    dtype = str(np.result_type(*(x.dtype for x in arrays)))
    text = loop_source(program, len(arrays), dtype, flat, own)
    called = tuple(f for f in FUNCTIONS if own and any(x.op == f for x in program.code))
    kernel = _compiled(text, math.prod(shape) > ALONE, called, dtype)
    return partial(kernel, *(x.reshape(-1) if flat else x.reshape(-1, x.shape[-1]) for x in arrays))


# ---------------------------------------------------------------------------------------- stages


@dataclass(frozen=True)
class Stage:
    """A loop and the ufuncs after it. operands: what the loop's arrays hold, by the numbers of the
    whole program: an argument is the array itself, anything else its scratch. ufuncs: (name, what
    it is taken of, its own number)."""

    program: Program
    operands: tuple[int, ...]
    ufuncs: tuple[tuple[str, int, int], ...]


def stages(program: Program, arrays: int, cut: Collection[int]) -> list[Stage]:
    """The stages of a program on so many arrays that is cut at these instructions.

    >>> from backends.formula import trace
    >>> def wave(xp, z):
    ...     return xp.cos(xp.sin(-z))
    >>> program = trace(wave, [FULL])
    >>> for stage in stages(program, 1, cuts(program, (1000,))):
    ...     print([x.op for x in stage.program.code], [name for name, *_ in stage.ufuncs])
    ['argument', 'argument', 'negative'] ['sin']
    [] ['cos']
    ['argument', 'argument'] []
    """
    if not cut:
        return [Stage(program, tuple(range(arrays)), ())]
    code = program.code
    level: list[int] = []  # the stage in which a value is computed; a cut's is there from then on
    for n, instruction in enumerate(code):
        level.append(max((level[i] for i in instruction.operands), default=0) + (n in cut))

    kept: set[int] = set()  # reductions that a later stage reads
    found = []
    for stage in reversed(range(max(level) + 1)):
        early = {n for n, x in enumerate(code) if x.op in REDUCE and level[n] < stage}.union(cut)
        ends = [n for n in cut if level[n] == stage + 1]
        # What a cut is taken of goes into the cut's own scratch, unless it lies in an array.
        arrayed = {n for n in ends if _in_array(program, code[n].operands[0], cut)}
        targets = {n: code[n].operands[0] for n in ends if n not in arrayed}
        targets |= {n: n for n in sorted(kept) if level[n] == stage}
        if stage == max(level):
            targets |= dict(program.targets)
        used = program.needed(targets.values(), early.__contains__)
        kept |= {n for n in used if n in early and n not in cut}
        ufuncs = tuple((code[n].op, code[n].operands[0] if n in arrayed else n, n) for n in ends)
        found.append(_stage(program, f"{program.name}_{stage}", targets, used, early, ufuncs))
    return found[::-1]


def _in_array(program: Program, n: int, cut: Collection[int]) -> bool:
    return n in cut or (program.code[n].op == "argument" and program.code[n].extent == FULL)


def _stage(
    program: Program,
    name: str,
    targets: dict[int, int],
    used: Sequence[int],
    early: Collection[int],
    ufuncs: tuple[tuple[str, int, int], ...],
) -> Stage:
    """The code in use, numbered anew with the arrays first. targets: what is written, by the
    array that it is written to."""

    def given(n: int) -> bool:
        return n in early or program.code[n].op == "argument"

    operands = sorted({n for n in used if given(n)}.union(targets))
    place = {n: i for i, n in enumerate(operands)}
    code = [
        Instruction("argument", (), program.code[n].extent, value=str(i))
        for i, n in enumerate(operands)
    ]
    # A reduction that is kept has two numbers: of the array, and of what is written there.
    number = dict(place)
    for n in used:
        if not given(n):
            number[n] = len(code)
            old = program.code[n]
            code.append(replace(old, operands=tuple(number[i] for i in old.operands)))
    results = tuple(number[n] for n in targets.values())
    into = tuple(place[n] for n in targets)
    return Stage(Program(name, tuple(code), results, into, len(operands)), tuple(operands), ufuncs)


# ------------------------------------------------------------------------------------- compiling


@cache
def _compiled(loop: str, shared: bool, functions: tuple[str, ...] = (), dtype: str = "") -> Any:
    """The loop, with those functions of its own that it calls; shared: with other threads."""
    # No fast-math: every operation is rounded as NumPy rounds it, and sums keep their order.
    module, name = _module("nogil=True" if shared else "", loop, functions, dtype)
    return cached(module.kernel, name)


@cache
def _function(name: str, dtype: str) -> Any:
    """A function of `backends.elementary`. Products and sums in it may be one operation, rounded
    once, which makes it faster and no less accurate."""
    options = 'forceinline=True, fastmath={"contract"}'
    return getattr(_module(options, source(name, dtype), CALLS.get(name, ()), dtype)[0], name)


def _module(
    options: str, text: str, functions: tuple[str, ...], dtype: str
) -> tuple[ModuleType, str]:
    """A module with what is to be compiled, and a name that is another one for another text, also
    of the functions that it calls."""
    options = ", ".join(['error_model="numpy"', *filter(None, [options])])
    called = "".join(
        f"{source(other, dtype)}\n" for f in functions for other in (*CALLS.get(f, ()), f)
    )
    text = f"import numpy as np\nfrom numba import njit\n\n\n@njit({options})\n{text}\n"
    name = "mlp_" + hashlib.sha256((called + text).encode()).hexdigest()[:20]
    module = ModuleType(name)
    sys.modules[name] = module  # a kernel from the cache looks the function up by its module
    module.__dict__.update({f: _function(f, dtype) for f in functions})
    exec(compile(text, f"<{name}>", "exec"), module.__dict__)
    return module, name
