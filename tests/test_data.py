"""Data: labels keep their meaning, draws their laws, scaling its digits; mistakes get a cure."""

import tracemalloc

import numpy as np
import pytest

from mlp.data.finite import check_finite
from mlp.data.labels import class_labels, encode
from mlp.data.order import order, split
from mlp.data.scaling import Scaling
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
        (np.array([1.0, np.nan]), "f: nan is not a class label"),
        (np.array(["a", 1], object), r"f: labels are of mixed kinds \(int, str\); make"),
        (np.array(["a", None], object), r"mixed kinds \(NoneType, str\)"),
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
