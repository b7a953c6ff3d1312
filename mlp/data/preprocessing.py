"""From a table to the numbers that a network takes, and back: kinds, gaps, codings, scalings.

Each column of a table is of a kind, which follows from its values unless it is said:

    number      its values are numbers
    yes/no      they are True and False
    date-time   they are points in time
    category    they are text of few values
    leave out   they are text that is nearly unique (more than half as many values as rows), or
                there are none at all

and becomes columns of numbers, in float64:

    number      x, a gap by the median of the rows it was fitted on; if they had gaps, another
                column that is 1 in a gap, else 0
    yes/no      1 and 0, gaps as of numbers
    date-time   days since 1970, then month, day, weekday (Monday is 0) and hour, as far as they
                change; gaps as of numbers
    category    of two values one column: +1 for the first, -1 for the second; of more (a gap is a
                value) a column each that is 1 for its value, else 0; as "ordinal" their number from
                1 on; as "embedding" the same number, unscaled, for a layer that has a row of a
                table for each. What is none of the values, as in new rows, is 0 in all of them

Then each column is scaled (`mlp.data.scaling`). All of it is fitted on rows to train on alone, and
is kept with the model. A category has at most 256 values, those of most rows (as "embedding",
65,536).
"""

import json
import re
import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, get_args

import numpy as np

from mlp.data.finite import check_finite
from mlp.data.frames import is_frame, table_of
from mlp.data.readers import Dataset, numbers
from mlp.data.scaling import SCALINGS, Scaling, ScalingName
from mlp.data.tables import Column, Names, Table, made_up, matching
from mlp.data.text_columns import BOOLEANS, is_number, typed
from mlp.errors import (
    InputError,
    check_is,
    check_names,
    check_one_of,
    check_switch,
    did_you_mean,
    shown,
)

Kind = Literal["number", "category", "yes/no", "date-time", "leave out"]
KINDS: tuple[Kind, ...] = get_args(Kind)
Coding = Literal["one-hot", "ordinal", "embedding"]
MOST_VALUES = 256
MOST_EMBEDDED = 1 << 16  # values of a category that is coded for an embedding
MOST_ONE_HOT = 8  # of one whose coding is not said, where there is an embedding
PARTS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "month": lambda days: days.astype("datetime64[M]").astype(np.int64) % 12 + 1,
    "day": lambda days: (days - days.astype("datetime64[M]")).astype(np.int64) + 1,
    "weekday": lambda days: (days.astype(np.int64) + 3) % 7,
}
DAY = 86_400_000_000  # microseconds
PLURAL = {"number": "numbers", "category": "categories", "date-time": "dates"}
MARKED_NUMBER = re.compile(r"[$€£¥]? ?[+-]?\d[\d.,]* ?(%|[$€£¥]|[a-zA-Z°µ]{1,4})?")  # $3, 5 kg
TRUE = {"true", "yes", "y", "1"}
FALSE = {"false", "no", "n", "0"}


@dataclass(frozen=True)
class ColumnPlan:
    """What to do with the columns of a name: the settings of one entry of `[data.columns]`.

    kind : None finds out.  scaling : of its numbers; None is the one of all.  coding : of a
    category; None is "one-hot", or where there is an embedding and it has more than 8 values,
    "embedding". Raises InputError for other names.

    >>> ColumnPlan("category", coding="ordinal")
    ColumnPlan(kind='category', scaling=None, coding='ordinal')
    """

    kind: Kind | None = None
    scaling: ScalingName | None = None
    coding: Coding | None = None

    def __post_init__(self) -> None:
        for what, value, known in (
            ("kind", self.kind, KINDS),
            ("scaling", self.scaling, SCALINGS),
            ("coding", self.coding, get_args(Coding)),
        ):
            if value is not None and not (isinstance(value, str) and value in known):
                raise InputError(f"{what}: unknown {shown(value, 60)}{did_you_mean(value, known)}")


@dataclass(frozen=True)
class ColumnCode:
    """How one column is coded.

    kind, why : what it is taken for, and by what.  fill : what stands for a gap.  gaps : whether
    gaps have a column.  values : of a category, "" for a gap.  parts : of a date-time.
    """

    name: str
    kind: Kind
    why: str
    fill: float = 0.0
    gaps: bool = False
    values: tuple[str, ...] = ()
    parts: tuple[str, ...] = ()
    coding: Coding = "one-hot"

    @property
    def rare(self) -> bool:
        """Whether it is a category of more values than are kept."""
        return self.kind == "category" and self.why.endswith("are kept")

    @property
    def names(self) -> Names:
        """Of the columns it becomes."""
        found: list[str] = []
        if self.kind == "category" and self.coding == "one-hot":
            if len(self.values) <= 2:
                return (self.name,)
            return tuple(f"{self.name} = {value or 'missing'}" for value in self.values)
        if self.kind == "date-time":
            found = [f"{self.name} {part}" for part in ("days", *self.parts)]
        elif self.kind != "leave out":
            found = [self.name]
        return (*found, *([f"{self.name} is missing"] if self.gaps else []))

    @property
    def numbers(self) -> int:
        """How many of the columns it becomes are numbers; these are the first."""
        return (len(self.names) - self.gaps) * (self.kind in ("number", "date-time"))

    def encode(
        self, column: Column, source: str, lines: np.ndarray | None
    ) -> tuple[np.ndarray, str | None]:
        """The columns it becomes, (n, len(names)) float64, and in words what stands there that it
        was not fitted on.

        Raises InputError for a value that its kind does not have.
        """
        if self.kind == "category":
            return self._of_texts(texts_of(column))
        column, new = as_kind(column, self.kind, source, lines), None
        gaps = column.gaps
        x = _numbers(column, self.parts)
        if gaps is not None:
            x[gaps] = self.fill if self.kind != "date-time" else self._of_days(self.fill)
        if self.gaps:
            x = np.column_stack([x, np.zeros(len(x)) if gaps is None else gaps])
        elif gaps is not None:
            many = np.count_nonzero(gaps)
            new = f"{many} gaps in {self.name!r}, which had none in training, get its median"
        return x, new

    def _of_days(self, days: float) -> np.ndarray:
        moment = np.array([round(days * DAY)], "datetime64[us]")
        return _numbers(Column(self.name, moment), self.parts)[0]

    def _of_texts(self, texts: np.ndarray) -> tuple[np.ndarray, str | None]:
        place = {value: k for k, value in enumerate(self.values)}
        code = np.array([place.get(text, -1) for text in texts], np.int64)
        many, new = np.count_nonzero(code < 0), None
        if many:
            first = texts[(code < 0).argmax()]
            what = f"as {first!r}" if first else "gaps"
            new = f"{many} values of {self.name!r} were not there in training ({what})"
        if self.coding != "one-hot":
            return (code + 1.0)[:, None], new
        if len(self.values) <= 2:
            return np.select([code == 0, code == 1], [1.0, -1.0], 0.0)[:, None], new
        return (code[:, None] == np.arange(len(self.values))).astype(np.float64), new

    def decode(self, x: np.ndarray) -> Column:
        """The column of its numbers, (n, len(names)), as near as they tell."""
        gaps = x[:, -1] > 0.5 if self.gaps else np.zeros(len(x), bool)
        if self.kind == "category":
            if self.coding != "one-hot":
                code = np.clip(np.rint(x[:, 0]), 0, len(self.values)).astype(np.int64) - 1
            elif len(self.values) <= 2:
                code = np.select([x[:, 0] > 0.5, x[:, 0] < -0.5], [0, 1], -1)
            else:
                code = np.where(x.max(axis=1) > 0.5, x.argmax(axis=1), -1)
            values = np.array([*self.values, ""], object)[code]
            gaps = values == ""
        elif self.kind == "date-time":
            values = np.rint(x[:, 0] * DAY).astype(np.int64).astype("datetime64[us]")
            values[gaps] = np.datetime64("NaT", "us")
        elif self.kind == "yes/no":
            values = x[:, 0] > 0.5
        else:
            values = np.where(gaps, np.nan, x[:, 0])
        return Column(self.name, values, gaps if gaps.any() else None)


@dataclass(frozen=True, eq=False)
class Preprocessing:
    """The columns of a table, how each is coded, and how the numbers are scaled.

    codes : in the order of the table it was fitted on.  scaling : of the coded columns, or None.
    strict : whether gaps are refused.  missing : cells that are gaps too, beside those of the file.

    >>> table = Table({
    ...     "age": Column("age", np.array([20.0, np.nan, 40.0]), np.array([False, True, False])),
    ...     "sex": Column("sex", np.array(["m", "f", "m"], object)),
    ... })
    >>> found = Preprocessing.fit(table, scaling="none")
    >>> found.names
    ('age', 'age is missing', 'sex')
    >>> found.apply(table).tolist()
    [[20.0, 0.0, -1.0], [30.0, 1.0, 1.0], [40.0, 0.0, -1.0]]
    >>> Preprocessing.from_json(found.to_json()).undo(found.apply(table))["age"].values.tolist()
    [20.0, nan, 40.0]
    """

    codes: tuple[ColumnCode, ...]
    scaling: Scaling | None = None
    strict: bool = False
    missing: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        listed = isinstance(self.codes, (tuple, list))
        if not listed or not all(isinstance(code, ColumnCode) for code in self.codes):
            raise InputError(
                f"Preprocessing: codes are what Preprocessing.fit makes, not {shown(self.codes)}"
            )
        if self.scaling is not None:
            check_is("Preprocessing: scaling", self.scaling, Scaling)
        check_switch("Preprocessing: strict", self.strict)
        check_names("Preprocessing: missing", self.missing)

    @classmethod
    def fit(
        cls,
        table: Any,
        columns: Mapping[str, str | ColumnPlan] | None = None,
        *,
        scaling: ScalingName = "standard",
        gaps: Literal["fill", "error"] = "fill",
        missing: Sequence[str] | None = None,
        embeds: bool = False,
    ) -> "Preprocessing":
        """How to code and scale these rows, which are those to train on.

        table : a `Table`, a data frame of any library, or an array (n, d).  columns : by name or
        pattern ("lab_*"), a kind or a `ColumnPlan`; a name goes before patterns, a later pattern
        before an earlier one.  scaling : of all numbers that have none of their own; "range" has
        one minimum and maximum for all of them.  gaps : "error" refuses them.  missing : cells
        that are gaps too, in these rows and in others.  embeds : whether categories of more than 8
        values, whose coding is not said, are coded for an embedding.

        Raises InputError for a name that is not there, for a column that is not of the kind that it
        should be, for values that are not finite, and if no column is left.
        """
        check_one_of("gaps", gaps, ("fill", "error"))
        check_one_of("scaling", scaling, SCALINGS)
        check_switch("embeds", embeds)
        table = as_table(table)
        table = table if missing is None else table.with_gaps(missing)
        if columns is not None:
            check_is("columns", columns, Mapping)
        plans = _plans(table, columns or {})
        _check_finite(table)
        if gaps == "error":
            refuse_gaps(table, [name for name in table.names if plans[name].kind != "leave out"])
        codes = tuple(
            _code(table, column, plans[name], embeds) for name, column in table.columns.items()
        )
        words = None if missing is None else tuple(missing)
        found = cls(codes, strict=gaps == "error", missing=words)
        if not found.names:
            raise InputError(
                f"{table.source}: no column is left to predict from; "
                + "; ".join(f"{shown(code.name)} is left out ({code.why})" for code in codes[:5])
            )
        if scaling == "none" and not any(plan.scaling for plan in plans.values()):
            return found
        return replace(found, scaling=found._fit_scaling(found.encode(table), plans, scaling))

    def _fit_scaling(
        self, X: np.ndarray, plans: Mapping[str, ColumnPlan], scaling: ScalingName
    ) -> Scaling:
        names: list[ScalingName] = []
        shared: list[int] = []  # the columns of numbers of the one range
        of_codes: ScalingName = scaling if scaling in ("standard", "robust") else "none"
        for code in self.codes:
            own = plans[code.name].scaling or scaling
            if own == "range" and plans[code.name].scaling is None:
                shared += range(len(names), len(names) + code.numbers)
            others: ScalingName = "none" if code.coding == "embedding" else of_codes
            names += [own] * code.numbers + [others] * (len(code.names) - code.numbers)
        found = Scaling.fit(X, names)
        if shared:
            low, high = float(X[:, shared].min()), float(X[:, shared].max())
            found.shift[shared], found.scale[shared] = low, (high - low) or 1.0
        return found

    @property
    def of_numbers(self) -> list[int]:
        """Which of the columns that they become are numbers, not codes."""
        found: list[int] = []
        start = 0
        for code in self.codes:
            found += range(start, start + code.numbers)
            start += len(code.names)
        return found

    @property
    def embedded(self) -> dict[int, int]:
        """Which of them are codes for an embedding, and how many codes each has."""
        found: dict[int, int] = {}
        start = 0
        for code in self.codes:
            if code.kind == "category" and code.coding == "embedding":
                found[start] = len(code.values) + 1
            start += len(code.names)
        return found

    @property
    def columns(self) -> Names:
        """The columns of the table that are used."""
        return tuple(code.name for code in self.codes if code.kind != "leave out")

    @property
    def names(self) -> Names:
        """Of the columns that they become."""
        return tuple(name for code in self.codes for name in code.names)

    @property
    def plain(self) -> bool:
        """Whether the columns are numbers and stay what they are, but for the scaling."""
        return all(code.kind == "number" and not code.gaps for code in self.codes)

    def __repr__(self) -> str:
        """How many columns of each kind, and what they become."""
        kinds = Counter(code.kind for code in self.codes)
        about = ", ".join(f"{often} {kind}" for kind, often in kinds.items())
        return f"Preprocessing({about}: {len(self.names)} columns)"

    def summary(self) -> str:
        """How many columns of each kind, which of them had gaps and what is left out, in a line.

        >>> table = Table({
        ...     "id": Column("id", np.array(["a", "b", "c"], object)),
        ...     "age": Column("age", np.array([20.0, np.nan, 4.0]), np.array([False, True, False])),
        ... })
        >>> Preprocessing.fit(table).summary()
        "1 number (gaps in 'age'), 'id' left out: 2 inputs"
        """
        kinds = Counter(code.kind for code in self.codes)
        gaps = [code.name for code in self.codes if code.gaps or "" in code.values]
        out = [code.name for code in self.codes if code.kind == "leave out"]
        parts = [
            f"{often} {PLURAL.get(kind, kind) if often > 1 else kind}"
            for kind, often in kinds.items()
            if kind != "leave out"
        ]
        if gaps:
            parts[-1] += f" (gaps in {_listed(gaps)})"
        if out:
            parts.append(f"{_listed(out)} left out")
        return f"{', '.join(parts)}: {len(self.names)} inputs"

    def encode(self, table: Any) -> np.ndarray:
        """The columns as numbers, before they are scaled: (n, len(names)), float64, or as they are
        in a table of plain numbers.

        A table has its columns in any order; an array in that of `columns`. Raises InputError
        naming columns that are missing, and values that cannot be coded.
        """
        X, new = self._coded(table)
        if new:
            warnings.warn(new, stacklevel=3)
        return X

    def _coded(self, table: Any) -> tuple[np.ndarray, str]:
        """What `encode` gives and what it warns of, "" if there is nothing."""
        table = by_name(as_table(table, self.columns), self.columns)
        if self.missing is not None:
            table = table.with_gaps(self.missing)
        if not len(table):
            return np.empty((0, len(self.names))), ""
        if self.plain and table.array is not None:
            return table.array, ""
        if self.strict:
            refuse_gaps(table, self.columns)
        used = [code for code in self.codes if code.kind != "leave out"]
        parts = [code.encode(table[code.name], table.source, table.lines) for code in used]
        new = [text for _, text in parts if text is not None]
        X = np.concatenate([x.reshape(len(table), -1) for x, _ in parts], axis=1)
        check_finite(X, self.names, table.source)
        return X, f"{table.source}: {'; '.join(new)}" if new else ""

    def apply(self, table: Any) -> np.ndarray:
        """The columns as numbers, scaled: (n, len(names)) float64."""
        X = self.encode(table)
        return X.astype(np.float64) if self.scaling is None else self.scaling.forward(X)

    def undo(self, X: np.ndarray) -> Table:
        """The table that these numbers, (n, len(names)), are of, as near as they tell."""
        if self.scaling is not None:
            X = self.scaling.invert(X)
        columns, start = {}, 0
        for code in self.codes:
            width = len(code.names)
            if width:
                columns[code.name] = code.decode(X[:, start : start + width])
            start += width
        return Table(columns)

    def to_json(self) -> str:
        """All of it as text, every digit of it."""
        tensors = {} if self.scaling is None else self.scaling.tensors()
        scaling = {name: x.tolist() for name, x in tensors.items()}
        return json.dumps({**self.about(), "scaling": scaling})

    @classmethod
    def from_json(cls, text: str) -> "Preprocessing":
        """The one of `to_json`. Raises InputError for any other text."""
        try:
            about = json.loads(text)
            tensors = {name: np.array(x) for name, x in about["scaling"].items()}
            return cls.of_about(about, Scaling.from_tensors(tensors) if tensors else None)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(f"this is no preprocessing: {error}") from error

    def about(self) -> dict[str, Any]:
        """All but the scaling, as JSON can hold it."""
        about = {"codes": [asdict(code) for code in self.codes], "strict": self.strict}
        return about if self.missing is None else {**about, "missing": self.missing}

    @classmethod
    def of_about(cls, about: Mapping[str, Any], scaling: Scaling | None) -> "Preprocessing":
        """The one of `about`. Raises InputError where it does not fit together."""
        codes = tuple(map(_code_of, about["codes"]))
        names = [code.name for code in codes]
        if len(set(names)) < len(names):
            raise InputError("this is no preprocessing: two of its columns have one name")
        if not isinstance(about["strict"], bool):
            raise InputError(f"strict must be true or false, not {shown(about['strict'])}")
        missing = about.get("missing")
        if missing is not None and not _texts(missing):
            raise InputError(f"missing must be texts, not {shown(missing)}")
        words = None if missing is None else tuple(missing)
        found = cls(codes, scaling, about["strict"], words)
        if scaling is not None and len(scaling.shift) != len(found.names):
            raise InputError("this is no preprocessing: its scaling is of other columns")
        return found


def _code_of(entry: Mapping[str, Any]) -> ColumnCode:
    """The code of a column as a file has it. InputError for what `_code` does not make."""
    code = ColumnCode(**entry)
    ColumnPlan(code.kind, coding=code.coding)  # knows their names
    fill, largest = code.fill, float(np.finfo(np.float64).max)
    if code.kind == "date-time":
        largest = 2**62 / DAY
    for what, good in (
        ("name", isinstance(code.name, str)),
        ("kind", code.kind is not None),
        ("why", isinstance(code.why, str)),
        ("fill", type(fill) in (int, float) and abs(fill) < largest),
        ("gaps", isinstance(code.gaps, bool)),
        ("values", _texts(code.values) and len(code.values) <= _most(code.coding)),
        ("parts", _texts(code.parts) and {*code.parts} <= {*PARTS, "hour"}),
        ("coding", code.coding is not None),
        ("values", bool(code.values) == (code.kind == "category")),
        ("parts", not code.parts or code.kind == "date-time"),
        ("gaps", not code.gaps or code.kind in ("number", "yes/no", "date-time")),
    ):
        if not good:
            found = getattr(code, what)
            raise InputError(f"column {shown(code.name)}: {what} cannot be {shown(found, 60)}")
    return replace(code, values=tuple(code.values), parts=tuple(code.parts))


def _most(coding: Coding) -> int:
    """The values that a category has at most."""
    return MOST_EMBEDDED if coding == "embedding" else MOST_VALUES


def _texts(values: Any) -> bool:
    """Whether it is a list of texts, each of them once."""
    listed = isinstance(values, (list, tuple)) and all(isinstance(text, str) for text in values)
    return listed and len(set(values)) == len(values)


# ------------------------------------------------------------------------------ kinds


def as_table(X: Any, names: Sequence[str] = ()) -> Table:
    """A table of a table, a data frame, or an array (n, d), whose columns have these names."""
    X = table_of(X, "X", names) if is_frame(X) else X
    if isinstance(X, Table):
        by_place = made_up(X.names) and len(names) == len(X.names) and set(names) != set(X.names)
        if not by_place:
            return X
        if X.array is not None:
            return replace(Table.of_array(X.array, names, X.source), lines=X.lines)
        columns = zip(names, X.columns.values(), strict=True)
        return replace(X, columns={name: replace(column, name=name) for name, column in columns})
    X = np.asarray(X)
    if X.ndim != 2:
        raise InputError(f"X has shape {X.shape}; a table has rows and columns")
    if names and len(names) != X.shape[1]:
        raise InputError(f"X has {X.shape[1]} columns, expected are the {len(names)} of the model")
    if X.dtype.kind == "O":
        names = names or [f"x_{k}" for k in range(X.shape[1])]
        return table_of({name: X[:, k] for k, name in enumerate(names)}, "X", names)
    return Table.of_array(X, names or [f"x_{k}" for k in range(X.shape[1])], "X")


def by_name(table: Table, names: Names) -> Table:
    """The columns of these names. InputError naming those that are missing, and those beside."""
    missing = [name for name in names if name not in table.columns]
    if missing:
        wanted = set(names)
        more = [name for name in table.names if name not in wanted]
        raise InputError(
            f"{table.source} has no column {_listed(missing)}, which the model was trained with"
            + (f"; it has {_listed(more)} beside" if more else "")
        )
    return table.select(names)


def kind_of_column(column: Column) -> tuple[Kind, str]:
    """The kind of a column by its values, and why, in words.

    >>> kind_of_column(Column("id", np.array(["a1", "a2", "a3", "a4"], object)))
    ('leave out', 'text, 4 values in 4 rows')
    """
    values, gaps = column.values, column.gaps
    kind = values.dtype.kind
    if gaps is not None and gaps.all():
        return "leave out", "no values"
    if kind in "fiu":
        return "number", "all numbers"
    if kind == "b":
        return "yes/no", "True and False"
    if kind == "M":
        return "date-time", "all ISO dates"
    present = values if gaps is None else values[~gaps]
    different = len(set(present))
    about = f"text, {different} value{'s' * (different != 1)} in {len(present)} rows"
    if different <= max(2, len(present) / 2):
        return "category", about
    marked = [text for text in present[:100] if MARKED_NUMBER.fullmatch(text)]
    if 2 * len(marked) > len(present[:100]):
        about += f", which seem to be numbers with something beside, as {marked[0]!r}"
    return "leave out", about


def odd_cell(column: Column) -> int | None:
    """The first row whose text is no number in a column of text that seems to be of numbers: most
    of its different values are, and they are more than 20 or nearly unique. None if it is none.

    >>> ages = [*map(str, range(30)), "3O"]
    >>> odd_cell(Column("age", np.array(ages, object)))
    30
    """
    present = column.values if column.gaps is None else column.values[~column.gaps]
    different = set(present)
    numbers_in_it = {text for text in different if is_number(text)}
    many = len(different) > 20 or len(different) > max(2, len(present) / 2)
    if not many or len(numbers_in_it) <= len(different) / 2:
        return None
    other = [text not in numbers_in_it and text != "" for text in column.values]
    return other.index(True) if any(other) else None


def _plans(table: Table, given: Mapping[str, str | ColumnPlan]) -> dict[str, ColumnPlan]:
    """The plan of each column."""
    plans = {name: ColumnPlan() for name in table.names}
    exact = [name for name in given if name in plans]
    for pattern in [*(name for name in given if name not in plans), *exact]:
        plan = given[pattern]
        plan = plan if isinstance(plan, ColumnPlan) else ColumnPlan(plan)  # type: ignore[arg-type]
        for name in matching(pattern, table.columns, table.source):
            plans[name] = plan
    return plans


def _check_finite(table: Table) -> None:
    """InputError for numbers that are not finite and no gaps."""
    if table.array is not None:
        check_finite(table.array, table.names, table.source)


def refuse_gaps(table: Table, names: Sequence[str]) -> None:
    """InputError if one of these columns has gaps, naming them."""
    columns = map(table.__getitem__, names)
    holes = {column.name: column.gaps for column in columns if column.gaps is not None}
    if not holes:
        return
    rows = np.count_nonzero(np.any(list(holes.values()), axis=0))
    first = list(holes.items())[:5]
    where = ", ".join(f"{name!r} ({np.count_nonzero(gaps)})" for name, gaps in first)
    raise InputError(
        f"{table.source}: {rows} of {len(table)} rows have a gap, in column"
        f"{'s' * (len(holes) > 1)} {where}{' and more' * (len(holes) > 5)}; fill them in, or let "
        "data.missing be other than 'error'"
    )


def _code(table: Table, column: Column, plan: ColumnPlan, embeds: bool = False) -> ColumnCode:
    """How a column is coded, from the rows to train on."""
    kind, why = kind_of_column(column)
    if plan.kind is not None:
        kind, why = plan.kind, "as asked"
    elif column.values.dtype.kind == "O" and (odd := odd_cell(column)) is not None:
        raise _not_of_kind(column, "number", odd, table.source, table.lines)
    if kind == "leave out":
        return ColumnCode(column.name, kind, why)
    if kind == "category":
        often = Counter(texts_of(column).tolist())
        values = [value for value, _ in sorted(often.items(), key=lambda pair: -pair[1])]
        many = embeds and len(values) > MOST_ONE_HOT
        coding: Coding = plan.coding or ("embedding" if many else "one-hot")
        most = _most(coding)
        if len(values) > most:
            why += f"; the {most} of most rows are kept"
        values = sorted(values[:most], key=lambda value: (value == "", value))
        return ColumnCode(column.name, kind, why, values=tuple(values), coding=coding)
    column = as_kind(column, kind, table.source, table.lines)
    gaps = column.gaps
    present = column if gaps is None else column.take(~gaps)
    parts: tuple[str, ...] = ()
    if kind == "date-time" and len(present):
        every = _numbers(present, (*PARTS, "hour"))[:, 1:]
        parts = tuple(
            part for k, part in enumerate((*PARTS, "hour")) if (every[:, k] != every[0, k]).any()
        )
    fill = float(np.median(_numbers(present, ())[:, 0])) if len(present) else 0.0
    return ColumnCode(column.name, kind, why, fill, gaps is not None, parts=parts)


# ------------------------------------------------------------------------------ values


def as_kind(column: Column, kind: Kind, source: str, lines: np.ndarray | None = None) -> Column:
    """A column with the values of a kind. InputError for the first that has none."""
    dtype, values = column.values.dtype.kind, column.values
    if kind == "number" and dtype in "fiub":
        return Column(column.name, values.astype(np.uint8) if dtype == "b" else values, column.gaps)
    if column.gaps is not None and column.gaps.all():
        empty = {"date-time": np.full(len(column), np.datetime64("NaT", "us"), "datetime64[us]")}
        return Column(column.name, empty.get(kind, np.full(len(column), np.nan)), column.gaps)
    if kind == "yes/no" and dtype in "fiubO":
        known = {**dict.fromkeys(TRUE, True), **dict.fromkeys(FALSE, False)}
        texts = [text.lower() for text in texts_of(column)]
        bad = [text not in known and text != "" for text in texts]
        if not any(bad):
            found = np.array([known.get(text, False) for text in texts])
            return Column(column.name, found, column.gaps)
        raise _not_of_kind(column, kind, bad.index(True), source, lines)
    if kind == "date-time" and dtype == "O":
        column = typed(column)
        dtype, values = column.values.dtype.kind, column.values
    if (kind, dtype) == ("date-time", "M"):
        return column
    if kind == "number" and dtype == "O":
        texts = ["nan" if text == "" else BOOLEANS.get(text, text) for text in values]
        for i, text in enumerate(texts):
            if isinstance(text, str) and text != "nan" and not is_number(text):
                raise _not_of_kind(column, kind, i, source, lines)
        found = np.array(list(map(float, texts)))
        return Column(column.name, found, column.gaps)
    first = 0 if column.gaps is None else int(np.argmin(column.gaps))
    raise _not_of_kind(column, kind, first, source, lines)


def _not_of_kind(
    column: Column, kind: Kind, row: int, source: str, lines: np.ndarray | None
) -> InputError:
    place = f"row {row}" if lines is None else f"line {lines[row]}"
    what = {"number": "not a number", "date-time": "not an ISO date"}.get(kind, f"not {kind}")
    return InputError(
        f"{source}, {place}, column {column.name!r}: {texts_of(column)[row]!r} is {what}; correct "
        f"it, or say in data.columns what the column is: {', '.join(KINDS)}"
    )


def texts_of(column: Column) -> np.ndarray:
    """The values as text, (n,) of str, as they would be written; "" for a gap."""
    values, dtype = column.values, column.values.dtype.kind
    if dtype == "O":
        found = np.empty(len(values), object)
        found[:] = [text.strip() for text in values]
    elif dtype == "M":
        found = np.datetime_as_string(values).astype(object)
    else:
        found = np.empty(len(values), object)
        found[:] = list(map(_text_of, values.tolist()))
    if column.gaps is not None:
        found[column.gaps] = ""
    return found


def _text_of(value: Any) -> str:
    """A number as text; a whole one as such, whatever its dtype."""
    whole = isinstance(value, float) and abs(value) < 2.0**53 and value == int(value)
    return str(int(value) if whole else value)


def _numbers(column: Column, parts: Sequence[str]) -> np.ndarray:
    """A column that is no category as numbers, (n, 1 + parts), float64."""
    values = column.values
    if values.dtype.kind != "M":
        return values.astype(np.float64)[:, None]
    moment = np.where(np.isnat(values), np.datetime64(0, "us"), values.astype("datetime64[us]"))
    whole = moment.astype("datetime64[D]")
    time = (moment - whole).astype(np.int64)
    of_parts = [time / (DAY / 24) if part == "hour" else PARTS[part](whole) for part in parts]
    return np.column_stack([moment.astype(np.int64) / DAY, *of_parts]).astype(np.float64)


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(map(repr, names[:5])) + more


# ------------------------------------------------------------------------------ a model's inputs


def inputs_of(X: Any, columns: Names | None, preprocessing: Preprocessing | None) -> Any:
    """X as a model takes it: what has names by the model's own, coded; an array as it is.

    columns : the names of a model that has no preprocessing.  Raises InputError for names that are
    missing, and for columns of another kind than the model's.
    """
    coded = preprocessing is not None and not preprocessing.plain
    if isinstance(X, Dataset):
        if not coded and not isinstance(X.X, Table):
            return X
        table = X.table()
        names = preprocessing.names if preprocessing is not None else columns or table.names
        made = preprocessing.encode(table) if preprocessing else numbers(table.select(names))
        return replace(X, X=made, columns=names)
    if isinstance(X, Table) or (is_frame(X) and not isinstance(X, np.ma.MaskedArray)):
        table = as_table(X, columns or ())
        if preprocessing is not None:
            return preprocessing.encode(table)
        return numbers(table if columns is None else by_name(table, columns))
    if coded and preprocessing is not None:
        return preprocessing.encode(X)
    return X
