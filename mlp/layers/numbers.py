"""What embeddings of numbers share: which columns of their source they take, and those as a stack.

The d columns, (n, d) or with m numbers for each (n, d m), are a stack of d matrices, (d, n, 1) or
(d, n, m), so that what each column has of its own is one call for all of them: x_j times its m
numbers is a product of (n, 1) and (1, m).
"""

from collections.abc import Iterator, Sequence

from array_api_compat import array_namespace

from backends import Array
from mlp.errors import InputError
from mlp.layers.layer import Columns, Place, runs


def number_columns(name: str, columns: Columns) -> tuple[int, ...] | None:
    """Those that are numbers, of what reaches a layer; None where nothing is known of it."""
    if not columns.inputs:
        return None
    found = tuple(j for j, k in enumerate(columns.inputs) if k in columns.numbers)
    if not found:
        raise InputError(
            f"{name}: no column that reaches it is a number (codes of categories are none); leave "
            "the layer out"
        )
    return found


def taken(name: str, columns: Sequence[int] | None, width: int) -> tuple[int, ...]:
    """The columns of so many; all where they are None. InputError for one beyond."""
    if columns is None:
        return tuple(range(width))
    if max(columns) >= width:
        raise InputError(
            f"{name}: there is no column {max(columns)} in the {width} that reach it; they count "
            "from 0"
        )
    return tuple(columns)


def numbers_of(at: Place, columns: Sequence[int]) -> Array:
    """x (n, d): these columns of the source, in the dtype of the loss."""
    (x,), found = at.x.values(), at.buffer("numbers", len(columns), wide=True)
    for there, here in places(columns):
        at.tape.copy(x[:, there], found[:, here])
    return found


def places(columns: Sequence[int]) -> Iterator[tuple[slice, slice]]:
    """(there, here): runs of neighbours among the columns, and where they are side by side."""
    start = 0
    for run in runs(columns):
        end = start + run.stop - run.start
        yield run, slice(start, end)
        start = end


def stacked(x: Array, d: int) -> Array:
    """x (n, d m) as (d, n, m)."""
    xp = array_namespace(x)
    return xp.permute_dims(xp.reshape(x, (x.shape[0], d, x.shape[1] // d)), (1, 0, 2))


def turned(x: Array) -> Array:
    """Each matrix of a stack, transposed."""
    return array_namespace(x).permute_dims(x, (0, 2, 1))


def in_a_row(p: Array) -> Array:
    """p (d, m) as (d m,)."""
    return array_namespace(p).reshape(p, (-1,))
