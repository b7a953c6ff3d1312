"""Formulas with exp, tanh or log on large arrays: numba's loops, with NumPy's ufuncs between them.

LLVM vectorises arithmetic but not exp, tanh and log, which NumPy's ufuncs have vectorised; and
NumPy is slow where it reduces or repeats short rows, which a compiled loop is not. So a program is
cut at its exps, tanhs and logs: in each *stage* one compiled loop writes what they are taken of
into scratch blocks, and a ufunc each replaces it by its value. The last stage writes the results.

A stage computes what it needs again from the arguments, which costs less than to keep it; only
reductions of rows are kept.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from backends import numba_kernel
from backends.base import Array
from backends.block_kernel import BLOCK, is_flat
from backends.formula import FULL, REDUCE, Program, Step

WIDE = 128  # columns from which NumPy reduces a row faster than a loop that keeps the order


def worthwhile(program: Program, arrays: int, shape: tuple[int, ...]) -> bool:
    """Whether stages are faster than ufuncs alone on so many arrays, of this shape. Formulas with
    scalar arguments have no exps to cut at, so they are left out."""
    wide = program.reduces and shape[-1] >= WIDE
    cut = any(_is_cut(step) for step in program.steps)
    return cut and not wide and program.arguments == arrays


def _is_cut(step: Step) -> bool:
    return step.op in numba_kernel.TRANSCENDENTAL and step.extent == FULL


@dataclass(frozen=True)
class Stage:
    """A loop and the ufuncs after it. ``arrays``: what the loop is given, as numbers of steps of
    the whole program: an argument is the array itself, any other step its scratch. ``into`` counts
    among them. ``ufuncs``: (name, step it is taken of, its own step)."""

    program: Program
    arrays: tuple[int, ...]
    into: tuple[int, ...]
    ufuncs: tuple[tuple[str, int, int], ...]


def stages(program: Program, into: Sequence[int]) -> list[Stage]:
    """The stages of a program.

    >>> from backends.formula import trace
    >>> def softplus(xp, z):
    ...     return xp.log1p(xp.exp(-z))
    >>> program = trace(softplus, [FULL], [0])
    >>> for stage in stages(program, [0]):
    ...     print([step.op for step in stage.program.steps], [name for name, *_ in stage.ufuncs])
    ['argument', 'argument', 'negative'] ['exp']
    [] ['log1p']
    ['argument', 'argument'] []
    """
    steps = program.steps
    level: list[int] = []  # the stage in which a step is computed; a cut's value is there from then
    for step in steps:
        operands = () if step.op in ("argument", "constant") else step.operands
        level.append(max((level[i] for i in operands), default=0) + _is_cut(step))

    kept: set[int] = set()  # reductions that a later stage reads

    def needed(targets: Sequence[int], stage: int) -> set[int]:
        """The steps that a stage computes or reads for its targets."""
        found: set[int] = set()
        stack = list(targets)
        while stack:
            n = stack.pop()
            if n in found:
                continue
            found.add(n)
            if steps[n].op in REDUCE and level[n] < stage:
                kept.add(n)
            elif steps[n].op not in ("argument", "constant") and not _is_cut(steps[n]):
                stack += steps[n].operands
        return found

    last = max(level)
    plans = []
    for stage in reversed(range(last + 1)):
        cuts = [n for n, step in enumerate(steps) if _is_cut(step) and level[n] == stage + 1]
        reductions = sorted(n for n in kept if level[n] == stage)
        # What a cut is taken of goes into the cut's own scratch, unless it lies in an array.
        arrayed = {n for n in cuts if _in_array(steps[steps[n].operands[0]])}
        targets = {n: steps[n].operands[0] for n in cuts if n not in arrayed}
        targets |= {n: n for n in reductions}
        if stage == last:
            targets |= dict(zip(into, program.results, strict=True))
        used = needed(list(targets.values()), stage)
        ufuncs = tuple((steps[n].op, steps[n].operands[0] if n in arrayed else n, n) for n in cuts)
        plans.append((stage, targets, used, ufuncs))
    return [_stage(program, *plan, level) for plan in reversed(plans)]


def _in_array(step: Step) -> bool:
    return (step.op == "argument" and step.extent == FULL) or _is_cut(step)


def _stage(
    program: Program,
    stage: int,
    targets: dict[int, int],
    used: set[int],
    ufuncs: tuple[tuple[str, int, int], ...],
    level: list[int],
) -> Stage:
    """The steps in use, numbered anew with the arrays first."""
    steps = program.steps

    def given(n: int) -> bool:
        early = steps[n].op in REDUCE and level[n] < stage
        return steps[n].op == "argument" or _is_cut(steps[n]) or early

    arrays = sorted({n for n in used if given(n)} | set(targets))
    number = {n: i for i, n in enumerate(arrays)}
    made = [Step("argument", (i,), steps[n].extent) for i, n in enumerate(arrays)]
    for n in sorted(used):
        if given(n):
            continue
        operands = () if steps[n].op == "constant" else steps[n].operands
        renumbered = tuple(number[i] for i in operands)
        # A reduction that is kept is an array too; as a step it is what is written there.
        number[n] = len(made)
        made.append(
            Step(steps[n].op, renumbered, steps[n].extent, steps[n].boolean, steps[n].value)
        )
    positions = {n: i for i, n in enumerate(arrays)}
    into = tuple(positions[n] for n in targets)
    results = tuple(number[n] for n in targets.values())
    return Stage(
        Program(f"{program.name}_{stage}", tuple(made), results, len(arrays)),
        tuple(arrays),
        into,
        ufuncs,
    )


def bind(
    program: Program, into: Sequence[int], arrays: Sequence[Array], shape: tuple[int, ...]
) -> Callable[..., None]:
    """The program on its arrays, block after block."""
    flat = is_flat(program, arrays, shape)
    dtype = np.result_type(*(x.dtype for x in arrays))
    width = 1 if flat else shape[-1]
    rows = int(np.prod(shape)) if flat else shape[0]
    height = max(1, min(rows, BLOCK // max(width, 1)))
    parts = stages(program, into)

    scratch: dict[int, np.ndarray] = {}
    for stage in parts:
        for n in (*stage.arrays, *(own for *_, own in stage.ufuncs)):
            if program.steps[n].op != "argument" and n not in scratch:
                columns = width if program.steps[n].extent[1] else 1
                scratch[n] = np.empty(height if flat else (height, columns), dtype)

    whole = [x.reshape(-1) if flat else x for x in arrays]
    calls: list[Callable[[], None]] = []
    for start in range(0, rows, height):
        stop = min(start + height, rows)

        def view(n: int, start: int = start, stop: int = stop) -> Array:
            if n in scratch:
                return scratch[n][: stop - start]
            return whole[n][start:stop] if program.steps[n].extent[0] else whole[n]

        for stage in parts:
            if stage.into:
                block = (stop - start,) if flat else (stop - start, width)
                views = [view(n) for n in stage.arrays]
                calls.append(numba_kernel.bind(stage.program, stage.into, views, block))
            for name, operand, own in stage.ufuncs:
                calls.append(partial(getattr(np, name), view(operand), view(own)))

    def run() -> None:
        for call in calls:
            call()

    return run
