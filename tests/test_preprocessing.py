"""Preprocessing: what a table becomes, that it is fitted on its own rows alone, and undone."""

import json
import math
from datetime import datetime, timedelta

import numpy as np
import pandas as pd
import polars as pl
import pytest

import mlp
from mlp.data.preprocessing import KINDS, ColumnPlan, Preprocessing, kind_of_column
from mlp.data.scaling import SCALINGS, Scaling
from mlp.data.tables import Column, Table
from mlp.errors import InputError

rng = np.random.default_rng


def column(name, cells):
    """A column of Python values; None is a gap."""
    gaps = np.array([cell is None for cell in cells])
    there = [cell for cell in cells if cell is not None]
    blank = {str: "", bool: False, datetime: np.datetime64("NaT", "us"), float: math.nan}[
        type(there[0])
    ]
    filled = [blank if cell is None else cell for cell in cells]
    dtype = {str: object, datetime: "M8[us]"}.get(type(there[0]))
    return Column(name, np.array(filled, dtype), gaps if gaps.any() else None)


def random_table(seed, n=60, gaps=True):
    """A table of all kinds, every fifth cell a gap."""
    r = rng(seed)
    start = datetime(2020, 1, 1)
    cells = {
        "number": r.normal(1e3, 5, n).tolist(),
        "skewed": np.exp(r.normal(0, 3, n)).tolist(),
        "constant": [7.0] * n,
        "flag": (r.random(n) < 0.5).tolist(),
        "two": r.choice(["m", "f"], n).tolist(),
        "many": r.choice(["a", "b = c", "d,e", "ü"], n).tolist(),
        "when": [start + timedelta(hours=int(h)) for h in r.integers(0, 20_000, n)],
    }
    if gaps:
        for name in cells:
            cells[name] = [None if r.random() < 0.2 else cell for cell in cells[name]]
    return Table({name: column(name, values) for name, values in cells.items()})


def same(one, other, tolerance=1e-9):
    assert one.name == other.name
    gaps = np.zeros(len(one), bool) if one.gaps is None else one.gaps
    np.testing.assert_array_equal(
        gaps, np.zeros(len(one), bool) if other.gaps is None else other.gaps
    )
    a, b = one.values[~gaps], other.values[~gaps]
    if one.values.dtype.kind == "f":
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)
    elif one.values.dtype.kind == "M":
        assert abs(a - b).max() < np.timedelta64(1, "s")
    else:
        assert a.tolist() == b.tolist()


# --- laws ------------------------------------------------------------------------------------


@pytest.mark.parametrize("scaling", SCALINGS)
@pytest.mark.parametrize("gaps", [False, True])
@pytest.mark.parametrize("coding", ["one-hot", "ordinal"])
def test_undo_gives_the_table_back(scaling, gaps, coding):
    for seed in range(5):
        table = random_table(seed, gaps=gaps)
        plans = {name: ColumnPlan("category", coding=coding) for name in ("two", "many")}
        found = Preprocessing.fit(table, plans, scaling=scaling)
        X = found.apply(table)
        assert X.shape == (60, len(found.names))
        assert X.dtype == np.float64
        assert np.isfinite(X).all()
        again = found.undo(X)
        names = set(table.names)
        if scaling in ("robust", "quantile"):  # beyond their ends nothing tells values apart
            names -= {"number", "skewed", "when"}
        for name in names:
            same(table[name], again[name])


@pytest.mark.parametrize("scaling", SCALINGS)
def test_json_keeps_every_bit(scaling):
    for seed in range(5):
        table = random_table(seed)
        found = Preprocessing.fit(table, scaling=scaling)
        again = Preprocessing.from_json(found.to_json())
        np.testing.assert_array_equal(again.apply(table), found.apply(table))
        assert again.to_json() == found.to_json()
        assert again.names == found.names


@pytest.mark.parametrize("scaling", SCALINGS)
def test_other_rows_change_nothing(scaling):
    """It is fitted on its rows: what others hold changes neither them nor each other."""
    table, other = random_table(0), random_table(1)
    found = Preprocessing.fit(table, scaling=scaling)
    both = Table(
        {
            name: Column(
                name,
                np.concatenate([table[name].values, other[name].values]),
                np.concatenate([table[name].gaps, other[name].gaps]),
            )
            for name in table.names
        }
    )
    X = found.apply(both)
    np.testing.assert_array_equal(X[:60], found.apply(table))
    np.testing.assert_array_equal(X[60:], found.apply(other))


def test_the_order_of_columns_and_more_of_them_change_nothing():
    table = random_table(0)
    found = Preprocessing.fit(table)
    names = list(table.names)
    shuffled = {name: table[name] for name in rng(0).permutation(names)}
    shuffled["more"] = column("more", ["x"] * 60)
    np.testing.assert_array_equal(found.apply(Table(shuffled)), found.apply(table))


def test_frames_of_every_library_give_the_same():
    data = {"age": [20.0, None, 40.0, 30.0], "sex": ["m", "f", None, "m"], "ok": [True, False] * 2}
    frames = [pd.DataFrame(data), pl.DataFrame(data), pl.DataFrame(data).to_arrow()]
    found = Preprocessing.fit(frames[0])
    expected = found.apply(frames[0])
    for frame in frames[1:]:
        assert Preprocessing.fit(frame).to_json() == found.to_json()
        np.testing.assert_array_equal(found.apply(frame), expected)


# --- kinds -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cells", "kind", "why"),
    [
        ([1.0, 2.0, None], "number", "all numbers"),
        ([True, None, False], "yes/no", "True and False"),
        ([datetime(2020, 1, 1), None], "date-time", "all ISO dates"),
        (["a", "b", "a", None], "category", "text, 2 values in 3 rows"),
        (["a", "b", "c", "d"], "leave out", "text, 4 values in 4 rows"),
        (["a", "b"], "category", "text, 2 values in 2 rows"),
    ],
)
def test_the_kind_follows_from_the_values(cells, kind, why):
    assert kind_of_column(column("c", cells)) == (kind, why)


def test_a_typing_error_among_numbers_is_no_category():
    cells = [str(k) for k in range(40)]
    for odd in ("10_5", "3O", "1,5", "1.2.3", "0x10", "--1", "٣"):
        table = Table({"a": column("a", [*cells, odd])})
        with pytest.raises(InputError, match=r"row 40, column 'a': .* is not a number; correct it"):
            Preprocessing.fit(table)
    steps = ["0", "1", "2", "3+"] * 10  # few values, most of them numbers
    assert Preprocessing.fit(Table({"a": column("a", steps)})).codes[0].kind == "category"


def test_said_goes_before_seen():
    table = Table(
        {
            "zip": Column("zip", np.array([1234, 99, 1234, 7])),
            "flag": Column("flag", np.array([0, 1, 1, 0])),
            "when": column("when", ["2020-01-01", "2020-01-02", "2020-01-03", "2020-01-04"]),
            "lab_a": column("lab_a", ["1.5", "2", "3", "4"]),
        }
    )
    found = Preprocessing.fit(
        table,
        {"zip": "category", "flag": "yes/no", "when": "date-time", "lab_*": "number"},
        scaling="none",
    )
    assert found.names == (
        "zip = 1234",
        "zip = 7",
        "zip = 99",
        "flag",
        "when days",
        "when day",
        "when weekday",
        "lab_a",
    )
    assert found.apply(table)[0].tolist() == [1, 0, 0, 0, 18262, 1, 2, 1.5]


def test_a_name_goes_before_patterns_and_a_later_pattern_before_an_earlier_one():
    table = Table({name: Column(name, np.arange(4.0)) for name in ("lab_a", "lab_b", "lab_c")})
    found = Preprocessing.fit(
        table, {"lab_b": "category", "lab_*": "leave out", "lab_[bc]": "number"}, scaling="none"
    )
    assert [code.kind for code in found.codes] == ["leave out", "category", "number"]


@pytest.mark.parametrize(
    ("plans", "message"),
    [
        ({"ages": "number"}, r"no column 'ages'; did you mean 'age'\?"),
        ({"x*": "number"}, r"no column 'x\*'; known: age, name"),
        ({"age": "numbr"}, r"kind: unknown 'numbr'; did you mean 'number'\?"),
        (
            {"name": "number"},
            r"row 0, column 'name': 'Ada' is not a number; .*data\.columns.*category",
        ),
        ({"name": "date-time"}, "'Ada' is not an ISO date"),
        ({"name": "yes/no"}, "'Ada' is not yes/no"),
        ({"age": "date-time"}, "'20' is not an ISO date"),
        ({"*": "leave out"}, "no column is left to predict from; 'age' is left out"),
    ],
)
def test_bad_plans(plans, message):
    table = Table({"age": column("age", [20.0, 30.0]), "name": column("name", ["Ada", "Bo"])})
    with pytest.raises(InputError, match=message):
        Preprocessing.fit(table, plans)
    with pytest.raises(InputError, match=r"scaling: unknown 'standart'; did you mean 'standard'\?"):
        ColumnPlan(scaling="standart")
    with pytest.raises(InputError, match="coding: unknown 'hot'"):
        ColumnPlan(coding="hot")


# --- gaps and what is new --------------------------------------------------------------------


def test_gaps_get_the_median_of_the_rows_it_was_fitted_on():
    found = Preprocessing.fit(Table({"a": column("a", [1.0, 2.0, 30.0, None])}), scaling="none")
    X = found.apply(Table({"a": column("a", [None, 5.0])}))
    assert X.tolist() == [[2.0, 1.0], [5.0, 0.0]]
    strict = Preprocessing.fit(Table({"a": column("a", [1.0, 2.0])}), gaps="error")
    for again in (strict, Preprocessing.from_json(strict.to_json())):
        with pytest.raises(InputError, match=r"1 of 2 rows have a gap, in column 'a' \(1\)"):
            again.apply(Table({"a": column("a", [None, 2.0])}))
    with pytest.raises(
        InputError, match=r"1 of 2 rows have a gap, in column 'a' \(1\); fill them in"
    ):
        Preprocessing.fit(Table({"a": column("a", [None, 2.0])}), gaps="error")


def test_what_is_new_is_said_and_is_no_value():
    table = Table(
        {
            "a": column("a", [1.0, 2.0]),
            "c": column("c", ["x", "y"]),
            "d": column("d", [*"pqrpqr"][:2]),
        }
    )
    found = Preprocessing.fit(table, scaling="none")
    new = Table(
        {"a": column("a", [None, 5.0]), "c": column("c", ["z", None]), "d": column("d", ["p", "q"])}
    )
    with pytest.warns(
        UserWarning, match="1 gaps in 'a', which had none .*; 2 values of 'c' .*as 'z'"
    ):
        X = found.apply(new)
    assert X.tolist() == [[1.5, 0.0, 1.0], [5.0, 0.0, -1.0]]


def test_a_category_keeps_its_most_frequent_values():
    cells = [f"v{k}" for k in range(300) for _ in range(1 + (k < 256))] * 2
    found = Preprocessing.fit(Table({"c": column("c", cells)}), scaling="none")
    assert len(found.names) == 256
    new = Table({"c": column("c", ["v255", "v256"])})
    with pytest.warns(UserWarning, match="1 values of 'c' were not there in training .as 'v256'"):
        assert found.apply(new).sum(axis=1).tolist() == [1, 0]


def test_columns_that_are_missing_are_named():
    found = Preprocessing.fit(random_table(0))
    frame = pd.DataFrame({"number": [1.0], "fleg": [True]})
    with pytest.raises(
        InputError, match=r"no column 'skewed', .* and 1 more, which .*'fleg' beside"
    ):
        found.apply(frame)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"codes": [{}], "scaling": {}, "strict": false}',
        '{"codes": 3, "scaling": {}, "strict": 0}',
    ],
)
def test_other_json_is_refused(text):
    with pytest.raises(InputError, match="no preprocessing"):
        Preprocessing.from_json(text)
    found = json.loads(Preprocessing.fit(random_table(0)).to_json())
    found["scaling"] = {
        name: [*x, 1.0] for name, x in found["scaling"].items() if "knots" not in name
    }
    with pytest.raises(InputError, match="its scaling is of other columns"):
        Preprocessing.from_json(json.dumps(found))


# --- scalings --------------------------------------------------------------------------------


def test_scalings_are_their_formulas():
    x = rng(0).normal(50, 20, 501)
    X = x[:, None]
    low, middle, high = np.quantile(x, [0.25, 0.5, 0.75])
    u = (x - middle) / (high - low)
    logs = np.sign(x) * np.log1p(np.abs(x))
    expected = {
        "standard": (x - x.mean()) / x.std(),
        "range": (x - x.min()) / (x.max() - x.min()),
        "robust": u / np.sqrt(1 + (u / 3) ** 2),
        "log1p": (logs - logs.mean()) / logs.std(),
        "none": x,
    }
    for name, values in expected.items():
        found = Scaling.fit(X, [name]).apply(X, np.float64)[:, 0]
        np.testing.assert_allclose(found, values, rtol=1e-12, atol=1e-12, err_msg=name)
    z = Scaling.fit(X, ["quantile"]).apply(X, np.float64)[:, 0]
    assert abs(z.mean()) < 0.02
    assert abs(z.std() - 1) < 0.05
    np.testing.assert_array_equal(np.argsort(z[z < 2]), np.argsort(x[z < 2]))


@pytest.mark.parametrize("name", SCALINGS)
def test_a_scaling_on_a_device_is_that_of_the_host(name, backend):
    X = rng(0).normal(5, 3, (40, 3))
    scaling = Scaling.fit(X, [name] * 3)
    net = mlp.Network(3, [mlp.Dense(1)])
    model = mlp.Model(
        net, "mean_squared_error", backend=backend, dtype="float64", input_scaling=scaling, seed=1
    )
    expected = model.predict(X)
    x = model.backend.asarray(X)
    np.testing.assert_allclose(model.backend.to_numpy(model.predict(x)), expected, rtol=1e-12)
    small = X.astype(np.int8)  # kept narrow where the scaling is a line
    wide = model.predict(small.astype(np.float64))
    np.testing.assert_allclose(model.predict(small), wide, rtol=1e-12)


@pytest.mark.parametrize("name", ["standard", "range", "log1p", "quantile"])
def test_scaled_targets_are_undone(name):
    t = np.exp(rng(0).normal(3, 2, (200, 2)))
    scaling = Scaling.fit(t, [name] * 2)
    scaled = scaling.apply(t, np.float64)
    ends = (
        slice(None)
        if name != "quantile"
        else ((t > np.quantile(t, 0.01, axis=0)) & (t < np.quantile(t, 0.99, axis=0))).all(axis=1)
    )
    np.testing.assert_allclose(scaling.invert(scaled)[ends], t[ends], rtol=1e-9)


# --- with a model ----------------------------------------------------------------------------


@pytest.mark.parametrize("scaling", SCALINGS)
def test_a_model_predicts_the_same_after_it_was_saved(tmp_path, scaling):
    table = random_table(0)
    found = Preprocessing.fit(table, scaling=scaling)
    net = mlp.Network(len(found.names), [mlp.Dense(4, "tanh"), mlp.Dense(1)])
    model = mlp.Model(net, "mean_squared_error", preprocessing=found, dtype="float64")
    model.save(tmp_path / "a.safetensors")
    loaded = mlp.load(tmp_path / "a.safetensors")
    expected = model.predict(table)
    np.testing.assert_array_equal(loaded.predict(table), expected)
    reordered = Table({name: table[name] for name in sorted(table.names)})
    np.testing.assert_array_equal(loaded.predict(reordered), expected)
    assert loaded.preprocessing.to_json() == found.to_json()
    with pytest.raises(InputError, match="preprocessing has columns and a scaling; give it alone"):
        mlp.Model(net, "mean_squared_error", preprocessing=found, columns=("a",))
    with pytest.raises(InputError, match=r"makes \d+ columns, the network has 2 inputs"):
        mlp.Model(mlp.Network(2, [mlp.Dense(1)]), "mean_squared_error", preprocessing=found)


def test_every_kind_is_documented():
    from pathlib import Path

    text = (Path(__file__).parents[1] / "docs" / "tables.md").read_text(encoding="utf-8")
    for name in (*KINDS, *SCALINGS):
        assert f"| {name} |" in text or f"| `{name}` |" in text
