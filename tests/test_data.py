"""Data: labels keep their meaning, draws their laws, scaling its digits; mistakes get a cure."""

import enum
import re
import tracemalloc
from decimal import Decimal

import numpy as np
import pandas as pd
import polars as pl
import pytest
from sklearn.utils import compute_sample_weight

from mlp import Dense, Model, Network, gradient_check, load, read, train
from mlp.data.finite import check_finite
from mlp.data.labels import class_labels, class_weights, encode, learned_classes
from mlp.data.order import order, split
from mlp.data.preprocessing import by_name
from mlp.data.readers import Dataset
from mlp.data.scaling import Scaling
from mlp.data.tables import Table, matching
from mlp.errors import InputError

rng = np.random.default_rng


def test_check_finite_names_the_first_columns_and_passes_integers():
    X = np.full((3, 9), np.nan, np.float32)
    with pytest.raises(InputError, match=r"f: 3 of 3 rows .*'c0' \(3\), .*'c4' \(3\) and 4 more; "):
        check_finite(X, [f"c{k}" for k in range(9)], "f")
    check_finite(np.ones((3, 9)), "a" * 9, "f")
    check_finite(np.ones((3, 9), np.uint8), "a" * 9, "f")


# --- labels ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "t",
    [
        np.array([7, 3, 7, -1]),
        np.array([2.0, 1.0, 2.0]),
        np.array(["b", "a", "b"]),
        np.array(["b", "a", "bb"], object),
        np.array([True, False]),
        np.array([3, np.int64(2)], object),
    ],
)
def test_classes_and_indices_give_the_labels_back(t):
    classes, indices = class_labels(t)
    assert indices.dtype == np.int64
    assert (classes[indices] == t).all()
    assert (classes[:-1] < classes[1:]).all() or classes.dtype == bool
    np.testing.assert_array_equal(encode(t, classes, "f"), indices)
    np.testing.assert_array_equal(encode(t[:1], classes, "f"), indices[:1])


@pytest.mark.parametrize(
    ("t", "message"),
    [
        (np.array([4, 4]), "f holds only one class, 4; a classifier needs at least two"),
        (np.array([], int), "f holds no labels; a classifier"),
        (np.array([1.0, 2.5]), "f: 2.5 is not a class label; .* or a regression"),
        (np.array([1.0, np.nan]), "f: 1 of 2 values are missing; fill them in"),
        (np.array(["a", 1], object), r"f: labels are of mixed kinds \(int, str\); make"),
        (np.array(["a", None], object), "f: 1 of 2 values are missing; fill them in"),
        (np.ones((3, 2)), r"f: labels must be one column, these have shape \(3, 2\)"),
    ],
)
def test_bad_labels(t, message):
    with pytest.raises(InputError, match=message):
        class_labels(t, "f")


@pytest.mark.parametrize(
    ("t", "classes", "message"),
    [
        ([3, 8, 9], [3, 5], r"f: label 8 \(2 of 3 rows .* one of the 2 classes 3, 5; remove"),
        (["a", "c"], ["a", "b"], "label 'c' .* classes 'a', 'b';"),
        (["3"], [3, 5], "label '3' .* classes 3, 5;"),
        ([3], ["3", "5"], "label 3 .* classes '3', '5';"),
        ([-1], list(range(20)), r"label -1 .*20 classes 0, 1, .* 9, \.\.\.;"),
    ],
)
def test_unknown_label(t, classes, message):
    with pytest.raises(InputError, match=message):
        encode(np.array(t), np.array(classes), "f")


# Labels that are easily merged, cut or taken for numbers; of each kind some that differ.
DISTINCT = {
    "int64": np.array([2**53, 2**53 + 1, -(2**63), 2**63 - 1, 0]),
    "uint64": np.array([2**63, 2**63 + 1, 2**64 - 1, 2**53 + 1, 0], np.uint64),
    "int8": np.array([-128, 127, 0], np.int8),
    "bool": np.array([False, True]),
    "float64": np.array([2.0**53 - 1, 2.0**53 - 2, -3.0]),
    "float32": np.array([2.0**24 - 1, 2.0**24 - 2, -3.0], np.float32),
    "text": np.array(["1", "01", "1_1", "11", "1.0", "", " 1", "é", "True"]),
    "object text": np.array(["a", "b" * 99, "A"], object),
    "object int": np.array([3, np.int64(2), 2**62 + 1, 2**62], object),
    "object bool": np.array([True, np.False_], object),
}
SHAPES_OF_ONE = {
    "array": np.asarray,
    "list": lambda t: t.tolist(),
    "objects": lambda t: np.array(t.tolist(), object),
    "Series": pd.Series,
    "Series of objects": lambda t: pd.Series(t, dtype=object),
    "polars": lambda t: pl.Series(t.tolist()),
    "nothing masked": lambda t: np.ma.array(t, mask=np.zeros(len(t), bool)),
}


@pytest.mark.parametrize("given", SHAPES_OF_ONE)
@pytest.mark.parametrize("kind", DISTINCT)
def test_no_two_classes_are_merged_in_whatever_they_come(kind, given, tmp_path):
    """Nor in a file; and each is known again in whatever it comes then."""
    labels = DISTINCT[kind]
    drawn = rng(0).integers(0, len(labels), 50)
    t = SHAPES_OF_ONE[given](np.concatenate([labels, labels[drawn]]))
    classes, indices = class_labels(t)
    assert len(classes) == len(labels)
    plain = [*labels.tolist(), *labels[drawn].tolist()]
    assert classes[indices].tolist() == plain
    for other in SHAPES_OF_ONE.values():
        again = encode(other(np.array(plain, labels.dtype)), classes, "f")
        np.testing.assert_array_equal(again, indices)
    net = Network(1, [Dense(len(classes))])
    Model(net, "cross_entropy", classes=classes).save(tmp_path / "m.safetensors")
    loaded = load(tmp_path / "m.safetensors").classes
    assert loaded.tolist() == classes.tolist()
    assert loaded.dtype.kind in {classes.dtype.kind, "i"}


CLASSES = [DISTINCT[kind] for kind in DISTINCT if "text" not in kind]


@pytest.mark.parametrize("classes", CLASSES, ids=str)
@pytest.mark.parametrize("t", CLASSES, ids=str)
def test_a_label_is_known_if_python_says_that_it_is_equal(classes, t):
    """Python compares whole numbers of any size, and floats with them, exactly."""
    classes, t = (np.array(x.tolist()) if x.dtype == object else x for x in (classes, t))
    for label in t:
        if label.item() in classes.tolist():
            assert classes[encode(np.array([label]), classes, "f")[0]] == label
        else:
            with pytest.raises(InputError, match=re.escape(f"label {label.item()!r} (1 of 1")):
                encode(np.array([label]), classes, "f")


class Colour(enum.Enum):
    RED, BLUE = 1, 2


class Word(enum.StrEnum):
    CRIMSON, CRIMEAN = "crimson", "crimean"


NO_CLASSES = {
    "dates": np.array(["2020-01-01", "2021-01-01"], "M8[D]"),
    "timestamps": pd.Series(pd.to_datetime(["2020-01-01", "2021-01-01"])),
    "bytes": [b"a", b"b"],
    "members": list(Colour),
    "tuples": pd.Series([("a", 1), ("b", 2)]),
    "pairs": [("a", 1), ("b", 2)],
    "complex": np.array([1j, 2.0]),
    "mixed": ["1", 1],
    "true and 1": [True, 1, 2],
    "none": [None, "a"],
    "NaN": [np.nan, 1.0],
    "NA": pd.Series([1, pd.NA], dtype="Int64"),
    "no text": pd.Series(["a", pd.NA], dtype="string"),
    "NaT": pd.Series([pd.NaT, "a"], dtype=object),
    "null": pl.Series(["a", None]),
    "gaps of a Decimal": [Decimal("NaN"), Decimal(1)],
    "fractions": [0.5, 1.0],
    "too large for floats": [2**60 + 1, 1.0],
    "too large for any": [2**64, 1],
    "too large for float64": [10**400, 1],
    "too far apart": [2**63, -1],
    "float32": np.array([2.0**24, 1.0], np.float32),
    "cut by NumPy": np.array(["a\0", "a"], object),
    "masked": np.ma.masked_equal([1, 2], 2),
}


@pytest.mark.parametrize("what", NO_CLASSES)
def test_what_cannot_be_a_class_is_refused_when_the_model_is_made_and_when_labels_come(what):
    given = NO_CLASSES[what]
    with pytest.raises(InputError, match="classes"):
        Model(Network(1, [Dense(2)]), "cross_entropy", classes=given)
    with pytest.raises(InputError, match=r"^t"):
        class_labels(given)
    model = Model(Network(1, [Dense(2)]), "cross_entropy", classes=["a", "b"])
    with pytest.raises(InputError, match=r"^t"):
        model.samples(np.zeros((len(given), 1)), given)


@pytest.mark.parametrize("classes", [["ant", "bee"], [True, False], [2**63 + 1, 2**63], list(Word)])
def test_labels_are_taken_by_every_method_of_a_model(classes):
    model = Model(Network(1, [Dense(2)]), "cross_entropy", classes=classes, dtype="float64")
    X, index = np.arange(6.0)[:, None], np.array([0, 1, 1, 0, 1, 0])
    t = [classes[k] for k in index]
    expected = model.to("numpy")
    expected.classes = None
    assert model.evaluate(X, t) == expected.evaluate(X, index)
    assert model.value_and_gradient(X, t)[0] == expected.value_and_gradient(X, index)[0]
    assert (model.trace(X, t).delta[1] == expected.trace(X, index).delta[1]).all()
    assert gradient_check(model, X, t).passed
    result = train(model, X, t, validation=(X, t), epochs=1)
    assert set(result.model.classify(X).tolist()) <= set(classes)


def test_bad_labels_of_several_a_row_are_named_by_value_and_column():
    model = Model(Network(1, [Dense(3)]), "binary_cross_entropy")
    for bad in (2, -1, 1.5):
        t = np.zeros((4, 3))
        t[2, 1] = bad
        with pytest.raises(InputError, match=f"t: {float(bad)} in column 1 is not a label from 0"):
            model.samples(np.zeros((4, 1)), t)
    with pytest.raises(InputError, match="not 'yes'; several labels a row are 0 or 1 each"):
        model.samples(np.zeros((1, 1)), [["yes", "no", "no"]])
    yes = pd.DataFrame({name: pd.array([True, False], "boolean") for name in "abc"})
    assert model.samples(np.zeros((2, 1)), yes).t.tolist() == [[1, 1, 1], [0, 0, 0]]


@pytest.mark.parametrize("labels", [int, float, str])
def test_numbers_that_were_meant_as_such_are_answered_with_a_warning(labels):
    def learned(classes, rows):
        t = np.arange(rows) % classes
        return learned_classes(t.astype(labels), "classes", "p.csv")

    for classes, rows in ((51, 51), (51, 254), (300, 300)):
        if labels is str:
            learned(classes, rows)
            continue
        said = f"p.csv holds {classes} classes for {rows} rows, and all are numbers; .*squared"
        with pytest.warns(UserWarning, match=said):
            learned(classes, rows)
    for classes, rows in ((51, 255), (50, 50), (2, 3)):
        learned(classes, rows)


@pytest.mark.parametrize("seed", range(20))
def test_class_weights_are_scikit_learn_s(seed):
    draw = rng(seed)
    classes = [np.array(["a", "b", "cc"]), np.arange(4) - 1, np.array([False, True])][seed % 3]
    indices = draw.integers(0, draw.integers(1, len(classes) + 1), draw.integers(1, 30))
    t = classes[indices]
    given = {name: draw.random() for name in classes.tolist() if draw.random() < 0.7}
    ones = dict.fromkeys(classes.tolist(), 1.0)
    for spec, full in (("balanced", "balanced"), (given, ones | given)):
        np.testing.assert_allclose(
            class_weights(classes, indices, spec), compute_sample_weight(full, t), rtol=1e-15
        )
    as_text = {str(name): weight for name, weight in given.items()}
    np.testing.assert_array_equal(
        class_weights(classes, indices, as_text), class_weights(classes, indices, given)
    )


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"fren": 2}, "class_weight: no class 'fren'; did you mean 'fern'?"),
        ({"fern": -1}, "class_weight: 'fern' must be a number from 0 on, not -1"),
        ({"fern": np.nan}, "must be a number from 0 on, not nan"),
        ({"fern": "2"}, "must be a number from 0 on, not '2'"),
        ("even", "class_weight must be 'balanced' or a weight for each class, not 'even'"),
    ],
)
def test_class_weights_that_are_refused(spec, message):
    with pytest.raises(InputError, match=re.escape(message)):
        class_weights(np.array(["fern", "moss"]), np.array([0, 1]), spec)


# --- numbers in whatever they come ----------------------------------------------------------

FRAMES = {
    "bool beside int": pd.DataFrame({"a": [1, 2], "b": [True, False]}),
    "nullable": pd.DataFrame({"a": pd.array([1, 2], "Int64"), "b": pd.array([1, 0], "boolean")}),
    "objects": pd.DataFrame({"a": [1, 2.0], "b": [1, Decimal(0)]}, dtype=object),
    "polars": pl.DataFrame({"a": [1, 2], "b": [True, False]}),
    "lists": [[1, True], [2.0, False]],
    "nothing masked": np.ma.array([[1, 1], [2, 0]]),
}
GAPS = {
    "nullable": pd.DataFrame({"a": pd.array([1, None], "Int64"), "b": [True, False]}),
    "objects": pd.DataFrame({"a": [1, None], "b": [1, 2]}, dtype=object),
    "polars": pl.DataFrame({"a": [1, None], "b": [1, 2]}),
    "lists": [[1, 2], [None, 2]],
    "NaN": [[1, 2], [float("nan"), 2]],
}


def numbers_model():
    return Model(Network(2, [Dense(2)]), "mean_squared_error", columns=("a", "b"))


@pytest.mark.parametrize("what", FRAMES)
def test_cells_that_are_numbers_are_numbers(what):
    plain = np.array([[1.0, 1.0], [2.0, 0.0]])
    model, given = numbers_model(), FRAMES[what]
    np.testing.assert_array_equal(model.predict(given), model.predict(plain))
    assert model.evaluate(given, given) == model.evaluate(plain, plain)


@pytest.mark.parametrize("what", GAPS)
def test_cells_without_a_value_are_counted(what):
    model, given = numbers_model(), GAPS[what]
    with pytest.raises(InputError, match=r"X: (1 of .* 'a' \(1\)|column 'a' has 1 gaps)"):
        model.predict(given)
    with pytest.raises(InputError, match=r"t: 1 (of 4 values are missing|values are NaN)"):
        model.samples(np.zeros((2, 2)), given)


def test_masked_values_are_counted():
    model, given = numbers_model(), np.ma.masked_greater([[1.0, 2.0], [3.0, 4.0]], 2.0)
    for arguments, name in (
        ((np.zeros((2, 2)), given), "t"),
        ((np.zeros((2, 2)), np.zeros((2, 2)), given[1]), "sample_weight"),
    ):
        with pytest.raises(InputError, match=rf"^{name} has 2 masked values; fill them, {name}\.f"):
            model.samples(*arguments)
    for take in (model.predict, lambda X: model.evaluate(X, X)):
        with pytest.raises(InputError, match=r"^X has 2 masked values"):
            take(given)


def test_no_targets_and_numbers_of_any_size():
    model = numbers_model()
    with pytest.raises(InputError, match="X has 2 rows, t has 0"):
        model.samples(np.zeros((2, 2)), np.zeros((0, 2)))
    one = Model(Network(2, [Dense(1)]), "mean_squared_error")
    with pytest.raises(InputError, match="X has 2 rows, t has 0"):
        one.samples(np.zeros((2, 2)), [])
    assert one.samples(np.zeros((2, 2)), [2**70, -1]).t.tolist() == [[2.0**70], [-1.0]]
    for arguments in (([[10**400, 1]], [1.0]), ([[1, 1]], [10**400])):
        with pytest.raises(InputError):
            one.samples(*arguments)


def test_a_cell_that_is_no_number_is_named():
    frame = pd.DataFrame({"a": [1, 2], "b": [3, "much"]})
    with pytest.raises(InputError, match=r"X: .*'b' holds cells of the types int, str"):
        numbers_model().predict(frame)
    with pytest.raises(InputError, match=r"X: .* not 'much' in row 1, column 1"):
        numbers_model().predict(np.array(frame, object))


# --- many columns ---------------------------------------------------------------------------


class Counted(str):
    """A name that counts how often it is looked at."""

    looks = 0

    def __hash__(self):
        Counted.looks += 1
        return super().__hash__()

    def __eq__(self, other):
        Counted.looks += 1
        return super().__eq__(other)


def looks(work, d):
    """How often names are looked at while this works on d columns."""
    table = Table.of_array(np.ones((2, d)), [Counted(f"c{k}") for k in range(d)])
    asked = tuple(Counted(f"c{k}") for k in reversed(range(d)))
    Counted.looks = 0
    work(table, asked)
    return Counted.looks


def lacking(table, asked):
    with pytest.raises(InputError, match="'other', which the model was trained"):
        by_name(table, (*asked, "other"))


@pytest.mark.parametrize(
    "work",
    [
        lambda table, asked: Dataset(table.array, None, table.names, "f").inputs(asked),
        lambda table, asked: table.select(asked),
        lambda table, asked: by_name(table, asked),
        lacking,
        lambda table, asked: [matching(name, table.columns, "f") for name in asked],
    ],
)
def test_the_work_on_names_grows_as_the_names_do(work):
    assert looks(work, 400) < 3 * looks(work, 200)


@pytest.mark.parametrize("d", [2_000, pytest.param(20_000, marks=pytest.mark.thorough)])
def test_a_table_of_many_columns_is_read_and_goes_by_name(d, tmp_path):
    """Which takes no longer than a column for itself: not a minute."""
    names = [f"c{k}" for k in range(d)]
    for file, row in (("a.csv", names), ("b.csv", names[::-1])):
        lines = [",".join(row), *[",".join(f"{i}{name[1:]}" for name in row) for i in (1, 2)]]
        (tmp_path / file).write_text("\n".join(lines) + "\n")
    a, b = (read(tmp_path / file, inputs=names, need_targets=False) for file in ("a.csv", "b.csv"))
    assert a.columns == b.columns == tuple(names)
    np.testing.assert_array_equal(a.X, b.X)
    model = Model(Network(d, [Dense(1)]), "mean_squared_error", columns=tuple(names))
    whole = read(tmp_path / "b.csv", need_targets=False)
    np.testing.assert_array_equal(model.predict(a), model.predict(whole))


# --- order and split -------------------------------------------------------------------------


def test_order_is_a_permutation_and_a_function_of_seed_and_epoch():
    for seed, epoch in ((0, 0), (0, 1), (1, 0), (2**40, 7)):
        once = order(seed, epoch, 100)
        assert once.dtype == np.int64
        np.testing.assert_array_equal(np.sort(once), np.arange(100))
        np.testing.assert_array_equal(once, order(seed, epoch, 100))
    assert len({tuple(order(seed, epoch, 100)) for seed in range(5) for epoch in range(5)}) == 25


@pytest.mark.parametrize(("n", "fraction"), [(2, 0.5), (10, 0.3), (101, 0.1), (1000, 0.999)])
@pytest.mark.parametrize("stratified", [False, True])
def test_split_is_a_partition(n, fraction, stratified):
    labels = rng(0).integers(0, 3, n) if stratified else None
    train, held_out = split(n, fraction, 5, labels=labels)
    assert len(held_out) == round(n * fraction)
    np.testing.assert_array_equal(np.sort(np.concatenate([train, held_out])), np.arange(n))
    assert train.dtype == held_out.dtype == np.int64
    assert (np.diff(train) > 0).all()
    assert (np.diff(held_out) > 0).all()
    np.testing.assert_array_equal(split(n, fraction, 5, labels=labels)[0], train)


def test_split_draws_from_a_stream_of_its_own():
    _, held_out = split(1000, 0.5, 3)
    for epoch in range(3):
        half = np.sort(order(3, epoch, 1000)[:500])
        assert 150 < np.intersect1d(half, held_out).size < 350
    assert not np.array_equal(split(1000, 0.5, 4)[1], held_out)


@pytest.mark.parametrize("seed", range(5))
def test_stratified_split_keeps_each_share_to_less_than_a_row(seed):
    labels = rng(seed).choice(["a", "b", "c", "d"], 333, p=[0.6, 0.3, 0.08, 0.02])
    for fraction in (0.1, 0.25, 0.5, 0.77):
        _, held_out = split(333, fraction, seed, labels=labels)
        for label in "abcd":
            share = (labels == label).sum() * fraction
            assert abs((labels[held_out] == label).sum() - share) < 1


def test_bad_split():
    for fraction in (0, 1, -0.5, 2, float("nan")):
        with pytest.raises(InputError, match=f"must lie between 0 and 1, not be {fraction}"):
            split(10, fraction, 0)
    with pytest.raises(InputError, match=r"fraction 0\.01 of 9 rows leaves 9 .* 0 held out; each"):
        split(9, 0.01, 0)
    with pytest.raises(InputError, match="leaves 0 to train on and 9 held out; each needs"):
        split(9, 0.99, 0)
    with pytest.raises(InputError, match="a split of 9 rows needs 9 labels, not 8"):
        split(9, 0.5, 0, labels=np.zeros(8))


# --- scaling ---------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32, np.float64])
@pytest.mark.parametrize("kind", [Scaling.standard, Scaling.unit_range])
def test_scaling_laws(dtype, kind):
    X = rng(0).integers(0, 200, (5000, 70)).astype(dtype)  # several chunks
    scaling = kind(X)
    Y = scaling.apply(X, np.float64)
    assert scaling.shift.shape == scaling.scale.shape == (70,)
    if kind == Scaling.standard:
        np.testing.assert_allclose(Y.mean(axis=0), 0, atol=1e-12)
        np.testing.assert_allclose(Y.std(axis=0), 1)
    else:
        assert (Y.min(), Y.max()) == (0, 1)
        np.testing.assert_allclose(Y, X / 199, rtol=1e-6)
    np.testing.assert_allclose(scaling.invert(Y), X, atol=1e-10)
    for wanted in (np.float32, np.float64):
        assert scaling.apply(X, wanted).dtype == wanted
        assert scaling.invert(Y.astype(wanted)).dtype == wanted


def test_a_constant_column_is_only_shifted():
    X = np.column_stack([np.full(1001, 0.1), np.arange(1001.0)])
    scaling = Scaling.standard(X)
    assert scaling.scale[0] == 1
    assert (scaling.apply(X, np.float32)[:, 0] == 0).all()
    assert (Scaling.unit_range(np.full((4, 2), 7)).apply(np.full((4, 2), 7), float) == 0).all()


def test_scaling_keeps_the_digits_of_large_values():
    X = 1.7e9 + rng(0).normal(size=(1000, 1))  # seconds: float32 would keep none of them
    Y = Scaling.standard(X).apply(X, np.float32)
    np.testing.assert_allclose(Y, (X - X.mean()) / X.std(), atol=1e-6)


def test_scaling_widens_no_more_than_a_chunk():
    X = np.zeros((20_000, 400), np.uint8)  # 8 MB; 64 MB as float64
    tracemalloc.start()
    Scaling.standard(X)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 16e6


def test_scaling_of_other_columns():
    with pytest.raises(InputError, match=r"scaling is of \(3,\) columns, X of \(2,\)"):
        Scaling.standard(np.ones((4, 3))).apply(np.ones((4, 2)), float)
