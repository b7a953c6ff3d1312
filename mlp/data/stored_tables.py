"""Tables on disk that are larger than memory and have columns of any kind.

What the columns are is found out by a sample: whole blocks of 256 rows, drawn at random by the
seed, at most a million rows (all of them, where there are no more). Then the file is read once
more, some rows at a time; each is coded as it comes and goes into a file of numbers, which is read
in blocks from then on (`mlp.data.stored`). The standard scaling is that of all rows to train on.
"""

import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from math import inf

import numpy as np

from mlp.data.columnar_files import arrow_table
from mlp.data.order import BLOCK
from mlp.data.preprocessing import ColumnPlan, Preprocessing, texts_of
from mlp.data.row_files import Part, RowFile, spool
from mlp.data.scaling import Scaling, ScalingName
from mlp.data.stored import Npy, Packed, StoredDataset
from mlp.data.tables import Column, Names, Table
from mlp.errors import InputError, shown
from mlp.parallel.group import ALONE, Group
from mlp.seeds import generator

SAMPLE = 1 << 20  # rows by which columns are understood


def fit_stored(
    table: Npy | Packed,
    names: Names,
    blocks: np.ndarray,
    plans: Mapping[str, str | ColumnPlan],
    *,
    seed: int = 0,
    gaps: str = "fill",
    embeds: bool = False,
    group: Group = ALONE,
) -> Preprocessing:
    """How to code these columns of a file, without a scaling, from the rows of these blocks; group:
    as of `open_rows`."""
    if isinstance(table, Npy):
        first = Table.of_array(table.unsearched(names)[slice(0, BLOCK)], names, table.name)
        return Preprocessing.fit(first, plans, scaling="none")
    if len(blocks) * BLOCK > SAMPLE:
        drawn = generator(seed, "blocks").choice(len(blocks), SAMPLE // BLOCK, replace=False)
        blocks = blocks[np.sort(drawn)]
    chosen = np.zeros(-(-table.n // BLOCK), bool)
    chosen[blocks] = True

    def own() -> list[Table]:
        groups = group.share(len(table.sizes))
        start, found = sum(table.sizes[: groups.start]), []
        for piece in _pieces(table, names, groups):
            rows = np.flatnonzero(chosen[np.arange(start, start + len(piece)) // BLOCK])
            start += len(piece)
            if len(rows):
                found.append(piece.take(rows))
        return found

    found = [piece for pieces in group.every(own) for piece in pieces]
    sample = Table({name: _joined([piece[name] for piece in found]) for name in names}, table.name)
    strict = "error" if gaps == "error" else "fill"
    return Preprocessing.fit(
        sample,
        plans,
        scaling="none",
        gaps=strict,  # type: ignore[arg-type]
        embeds=embeds,
    )


def code_stored(
    table: Npy | Packed,
    preprocessing: Preprocessing,
    target: Sequence[str] = (),
    sample_weight: str | None = None,
    group: Group = ALONE,
) -> StoredDataset:
    """The data set of a file whose columns are coded so, not yet scaled; group: as of `open_rows`.

    Raises InputError for columns that are missing and values that cannot be coded.
    """
    names = preprocessing.columns
    if preprocessing.plain:
        X = table.part(names, group)
    elif isinstance(table, Npy):
        raise InputError(f"{table.name} holds numbers alone, the model was trained on a table")
    else:
        X = Part(_spooled(table, preprocessing, group), slice(0, len(preprocessing.names)))
    t = table.targets(tuple(target), group) if target else None
    s = table.targets((sample_weight,), group) if sample_weight else None
    return StoredDataset(X, t, s, preprocessing.names, table.name)


def scaled(
    preprocessing: Preprocessing, X: Part, scaling: ScalingName, group: Group = ALONE
) -> Preprocessing:
    """The same with this scaling, fitted on rows on disk, of which each rank reads its share.
    Raises InputError for one that needs all values of a column at once."""
    if scaling == "none":
        return preprocessing
    if scaling == "range":
        numbers = preprocessing.of_numbers
        found = Scaling(np.zeros(X.shape[1]), np.ones(X.shape[1]))
        if numbers:

            def own() -> tuple[float, float]:
                ends = [(x.min(), x.max()) for x in (r[:, numbers] for r in X.pieces(group))]
                return min((a for a, _ in ends), default=inf), max(
                    (b for _, b in ends), default=-inf
                )

            lows, highs = zip(*group.every(own), strict=True)
            low, high = float(min(lows)), float(max(highs))
            found.shift[numbers], found.scale[numbers] = low, (high - low) or 1.0
        return replace(preprocessing, scaling=found)
    if scaling != "standard":
        raise InputError(
            f"the scaling {shown(scaling)} needs all values of a column at once, these rows stay "
            "on disk; use 'standard', 'range' or 'none', or give more memory"
        )
    standard = Scaling.standard(X, group)
    codes = list(preprocessing.embedded)
    standard.shift[codes], standard.scale[codes] = 0.0, 1.0
    return replace(preprocessing, scaling=standard)


def _pieces(table: Packed, names: Names, groups: Iterable[int] | None = None) -> Iterator[Table]:
    """The rows of these columns in their order, some at a time; of these groups, or all."""
    for batch in table.batches(names, groups):
        yield arrow_table(batch, table.name, wanted=names)


def _spooled(table: Packed, preprocessing: Preprocessing, group: Group) -> RowFile:
    """The rows as numbers, of which each rank codes its share of the groups, and later those that
    its rows are in; what the sample did not have is said once."""
    new: list[str] = []
    if group.size == 1:
        file = spool(_coded(table, preprocessing, new), table.name)
    else:

        def coded(number: int) -> Iterator[np.ndarray]:
            return _coded(table, preprocessing, new, [number])

        file = table.by_groups(coded, np.float64, len(preprocessing.names), group)
    first = [text for texts in group.gather(new[:1]) for text in texts]
    if first:
        warnings.warn(f"{first[0]}, and maybe others", stacklevel=2)
    return file


def _coded(
    table: Packed,
    preprocessing: Preprocessing,
    new: list[str],
    groups: Iterable[int] | None = None,
) -> Iterator[np.ndarray]:
    """The rows of these groups, or all, as numbers, some at a time. new: gets what the sample did
    not have."""
    for piece in _pieces(table, preprocessing.columns, groups):
        X, text = preprocessing._coded(piece)  # no filter of warnings: a thread may read ahead
        if text and not new:
            new.append(text)
        yield np.ascontiguousarray(X, np.float64)


def _joined(pieces: Sequence[Column]) -> Column:
    """The pieces of one column, one after the other."""
    kinds = {piece.values.dtype.kind for piece in pieces if not _empty(piece)}
    if len(kinds - {"f", "i", "u"}) > 0 and "O" in kinds:
        pieces = [Column(c.name, texts_of(c), c.gaps) for c in pieces]
    elif kinds:
        some = next(piece for piece in pieces if not _empty(piece)).values.dtype
        pieces = [
            Column(c.name, np.zeros(len(c), some), c.gaps) if _empty(c) else c for c in pieces
        ]
    gaps = np.concatenate([np.zeros(len(c), bool) if c.gaps is None else c.gaps for c in pieces])
    values = np.concatenate([piece.values for piece in pieces])
    if gaps.any() and values.dtype.kind in "iu":
        values = values.astype(np.float64)
    if values.dtype.kind == "f":
        values = np.where(gaps, np.nan, values)
    return Column(pieces[0].name, values, gaps if gaps.any() else None)


def _empty(column: Column) -> bool:
    return column.gaps is not None and bool(column.gaps.all())
