"""Rows on disk: what streams from a file gives the numbers of what is in memory, bit for bit."""

import subprocess
import sys
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest

import mlp
from mlp import Dense, InputError, Model, Network, Scaling, open_rows, save_state, train
from mlp.data.finite import check_finite
from mlp.data.order import BLOCK, BUFFER, BlockOrder
from mlp.data.row_files import PIECE
from mlp.data.stored import larger_than
from mlp.memory import size_of
from mlp.training.checkpoint import load_state

pyarrow = pytest.importorskip("pyarrow")
from pyarrow import feather, parquet  # noqa: E402

FULL = BLOCK * BUFFER
N = 2 * FULL + 3 * BLOCK + 17  # two buffers, and one that ends with a short block
NAMES = [*"abcde", "y", "weight"]

rng = np.random.default_rng


# --- the order ---------------------------------------------------------------------------------

SIZES = (1, 2, BLOCK - 1, BLOCK, BLOCK + 1, FULL - 1, FULL, FULL + 1, N, 5 * FULL - 3)


@pytest.mark.parametrize("n", SIZES)
def test_an_order_in_blocks_has_every_row_once(n):
    for seed, epoch in ((0, 0), (0, 1), (7, 3)):
        order = np.asarray(BlockOrder(seed, epoch, n))
        assert order.dtype == np.int64
        np.testing.assert_array_equal(np.sort(order), np.arange(n))
        np.testing.assert_array_equal(order, np.asarray(BlockOrder(seed, epoch, n)))


def test_an_order_in_blocks_is_a_function_of_seed_and_epoch():
    orders = {tuple(BlockOrder(seed, epoch, 600)[:]) for seed in range(4) for epoch in range(4)}
    assert len(orders) == 16


@pytest.mark.parametrize("n", SIZES)
def test_the_rows_of_a_buffer_are_those_of_its_blocks_in_an_order_of_their_own(n):
    order, start = BlockOrder(1, 2, n), 0
    for number, end in enumerate(order.ends.tolist()):
        blocks = order.blocks[number * BUFFER : (number + 1) * BUFFER]
        rows = np.asarray(order)[start:end]
        assert set((rows // BLOCK).tolist()) == set(blocks.tolist())
        if len(rows) > 100:
            assert (np.diff(rows) == 1).mean() < 0.1
        start = end
    assert start == n


def test_slices_of_an_order_are_slices_of_its_array():
    for n in SIZES:
        order, draw = BlockOrder(3, 4, n), rng(n)
        array = np.asarray(order)
        for start, stop in draw.integers(0, n + 1, (30, 2)).tolist():
            np.testing.assert_array_equal(order[start:stop], array[start:stop])


# --- files -------------------------------------------------------------------------------------


def table(n=N, dtype="float32", seed=0):
    """Rows of five inputs, a target and a weight, of which columns are one array each."""
    X = rng(seed).normal(size=(n, len(NAMES))) * 20 + 100
    X[:, 5] = (X[:, 0] - X[:, 1]) / 20 + 3
    X[:, 6] = rng(seed).integers(0, 3, n)
    return X.astype(dtype)


def write(path, array, names=NAMES, **options):
    """The table as a file of the path's kind."""
    if path.suffix == ".npy":
        np.save(path, array, **options)
        return path
    columns = pyarrow.table({name: array[:, k] for k, name in enumerate(names)})
    if path.suffix == ".parquet":
        parquet.write_table(columns, path, **options)
    elif path.suffix == ".feather":
        feather.write_feather(columns, path, **options)
    else:
        with (
            pyarrow.OSFile(str(path), "wb") as file,
            pyarrow.ipc.new_file(file, columns.schema) as to,
        ):
            to.write_table(columns, **options)
    return path


def of_npy(name):
    """What a column is called in an .npy file."""
    return f"x_{NAMES.index(name)}"


def opened(path, weighted=False, **options):
    called = of_npy if Path(path).suffix == ".npy" else str
    return open_rows(
        path,
        inputs=[called(name) for name in "abcde"],
        target=called("y"),
        sample_weight=called("weight") if weighted else None,
        **options,
    )


FILES = {
    "npy": lambda to, x: write(to / "a.npy", x),
    "npy, columns first": lambda to, x: write(to / "a.npy", np.asfortranarray(x)),
    "npy, other bytes": lambda to, x: write(to / "a.npy", x.astype(x.dtype.newbyteorder(">"))),
    "parquet": lambda to, x: write(to / "a.parquet", x),
    "parquet, small groups": lambda to, x: write(to / "a.parquet", x, row_group_size=3001),
    "parquet, packed": lambda to, x: write(to / "a.parquet", x, compression="zstd"),
    "arrow": lambda to, x: write(to / "a.arrow", x, max_chunksize=1013),
    "feather": lambda to, x: write(to / "a.feather", x, compression="lz4", chunksize=777),
}


def model(loss="mean_squared_error", outputs=1, **options):
    return Model(Network(5, [Dense(6, "tanh", dropout=0.1), Dense(outputs)]), loss, **options)


def assert_same(one, other):
    """Two runs, bit for bit; metrics of rows on disk are added up in pieces."""
    np.testing.assert_array_equal(one.model.w, other.model.w)
    for name in one.history.keys() - {"seconds"}:
        exact = name in ("loss", "validation_loss", "train_loss", "learning_rate", "epoch")
        close = {"rtol": 0 if exact else 1e-9}
        np.testing.assert_allclose(one.history[name], other.history[name], **close)
    for name, vector in one.state.vectors.items():
        np.testing.assert_array_equal(vector, other.state.vectors[name])


@pytest.mark.parametrize("dtype", ["float32", "float64", "uint8", "int32"])
@pytest.mark.parametrize("kind", FILES)
def test_a_part_is_read_as_an_array_is(kind, dtype, tmp_path):
    X = table(dtype=dtype)
    rows = opened(FILES[kind](tmp_path, X), weighted=True)
    assert rows.X.shape == (N, 5)
    assert rows.X.dtype == X.dtype
    np.testing.assert_array_equal(np.asarray(rows.X), X[:, :5])
    np.testing.assert_array_equal(np.asarray(rows.t), X[:, 5])
    np.testing.assert_array_equal(np.concatenate(list(rows.s.pieces())), X[:, 6])
    for start, stop in rng(1).integers(0, N + 1, (9, 2)).tolist():
        np.testing.assert_array_equal(rows.X[start:stop], X[start:stop, :5])
    some = rng(2).integers(0, N, 40)
    np.testing.assert_array_equal(rows.X[some], X[some, :5])
    order = BlockOrder(1, 1, N)
    rows.X.file.expect(order)
    for start in range(0, N, 5000):
        at = order[start : start + 5000]
        np.testing.assert_array_equal(rows.X[at], X[at, :5])


@pytest.mark.parametrize("dtype", ["float32", "float64", "uint8"])
@pytest.mark.parametrize("kind", ["standard", "unit_range"])
def test_a_scaling_of_rows_on_disk_is_that_of_the_array(kind, dtype, tmp_path):
    X = table(3 * PIECE // 20 + 7, dtype)  # several pieces
    rows = opened(write(tmp_path / "a.npy", X))
    on_disk, in_memory = getattr(Scaling, kind)(rows.X), getattr(Scaling, kind)(X[:, :5])
    np.testing.assert_array_equal(on_disk.shift, in_memory.shift)
    np.testing.assert_array_equal(on_disk.scale, in_memory.scale)


# --- streamed is resident ----------------------------------------------------------------------

CASES = {
    "plain": {},
    "one batch a buffer": {"batch_size": FULL},
    "batches across buffers": {"batch_size": 5003},
    "a batch of three buffers": {"batch_size": 2 * FULL + 100},
    "full batch": {"batch_size": None},
    "weighted": {"weighted": True},
    "not shuffled": {"shuffle": False},
    "recorded": {"record_steps": True},
    "float64 throughout": {"dtype": "float64"},
    "measured": {"target_loss": 1e-9, "patience": 2, "watch": "loss"},
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(
    ("kind", "dtype"), [("npy", "float32"), ("npy", "uint8"), ("parquet", "float64")]
)
def test_streamed_is_resident(case, kind, dtype, tmp_path):
    given = {"batch_size": 3000, "epochs": 2, "shuffle": "blocks", "learning_rate": 0.01} | CASES[
        case
    ]
    weighted, of_model = given.pop("weighted", False), given.pop("dtype", None)
    X = table(dtype=dtype)
    rows = opened(FILES[kind](tmp_path, X), weighted)
    scaled = {
        "input_scaling": Scaling.standard(X[:, :5]),
        "target_scaling": Scaling.standard(X[:, 5:6]),
        "dtype": of_model,
    }
    held = X[:500, :5], X[:500, 5]
    s = X[:, 6] if weighted else None
    warnings.filterwarnings("ignore", "steps are not recorded")
    resident = train(model(**scaled), X[:, :5], X[:, 5], sample_weight=s, validation=held, **given)
    for shuffle in {given["shuffle"], given["shuffle"] and True}:  # on disk True means in blocks
        streamed = train(model(**scaled), rows, validation=held, **given | {"shuffle": shuffle})
        assert_same(streamed, resident)


def test_batches_beyond_those_that_are_kept_as_objects(tmp_path, monkeypatch):
    """There may be millions of them in a table on disk: they are made when it is their turn."""
    X = table()
    rows = opened(write(tmp_path / "a.npy", X), weighted=True)
    expected = train(model(), rows, batch_size=1000, epochs=2)
    monkeypatch.setattr("mlp.training.setup.KEPT", 3)
    assert_same(train(model(), rows, batch_size=1000, epochs=2), expected)


def labelled(path, labels, n=N):
    """A Parquet file of inputs and labels, sorted by label, and the same in memory."""
    X = table(n)[:, :5]
    t = np.sort(np.asarray(labels)[rng(5).integers(0, len(labels), n)])
    columns = {name: X[:, k] for k, name in enumerate("abcde")}
    parquet.write_table(pyarrow.table(columns | {"y": t}), path, row_group_size=5000)
    return X, t


@pytest.mark.parametrize(
    "labels", [["ant", "bee", "äö"], [3, 5, 11], [0, 1, 2], ["1_1", "11", "2"]]
)
def test_labels_on_disk_are_learned_as_in_memory(labels, tmp_path):
    X, t = labelled(tmp_path / "a.parquet", labels)
    rows = open_rows(tmp_path / "a.parquet", target="y")
    given = {"batch_size": 3000, "epochs": 2, "shuffle": "blocks"}
    named = None if isinstance(labels[0], str) or labels[0] == 0 else labels
    fresh = [model("cross_entropy", 3, classes=named) for _ in range(2)]
    resident, streamed = train(fresh[0], X, t, **given), train(fresh[1], rows, **given)
    assert_same(streamed, resident)
    assert str(streamed.model.classes) == str(resident.model.classes)
    np.testing.assert_array_equal(streamed.model.classify(rows), resident.model.classify(X))
    on_disk, in_memory = streamed.model.evaluate(rows), resident.model.evaluate(X, t)
    assert on_disk["loss"] == in_memory["loss"]
    assert on_disk["accuracy"] == pytest.approx(in_memory["accuracy"], rel=1e-12)


def test_labels_for_two_outputs_are_refused_where_there_are_three(tmp_path):
    labelled(tmp_path / "a.parquet", ["a", "b", "c"])
    rows = open_rows(tmp_path / "a.parquet", target="y")
    with pytest.raises(InputError, match="holds 3 classes, the last layer has 2 units"):
        train(model("cross_entropy", 2), rows)


def test_shares_between_0_and_1_are_no_labels_though_most_pieces_hold_only_0_and_1(tmp_path):
    X = table()
    X[:, 5] = X[:, 6] > 1
    X[-3:, 5] = 0.25
    rows = opened(write(tmp_path / "a.npy", X))
    net = Network(5, [Dense(1, "sigmoid")])
    given = {"batch_size": 3000, "epochs": 1, "shuffle": "blocks"}
    runs = [
        train(Model(net, "binary_cross_entropy", classes=["no", "yes"]), *data, **given)
        for data in ((X[:, :5], X[:, 5]), (rows,))
    ]
    assert_same(*runs)


@pytest.mark.parametrize("kind", ["npy", "parquet, small groups"])
def test_predictions_and_measures(kind, tmp_path):
    X = table()
    rows = opened(FILES[kind](tmp_path, X), weighted=True)
    one = model(
        input_scaling=Scaling.standard(X[:, :5]), target_scaling=Scaling.standard(X[:, 5:6])
    )
    np.testing.assert_array_equal(one.predict(rows), one.predict(X[:, :5]))
    pieces = [one.predict(piece) for piece in rows.pieces()]
    np.testing.assert_allclose(np.concatenate(pieces), one.predict(X[:, :5]), rtol=1e-5)
    on_disk, in_memory = one.evaluate(rows), one.evaluate(X[:, :5], X[:, 5], X[:, 6])
    assert on_disk["loss"] == in_memory["loss"]
    for name, value in in_memory.items():
        assert on_disk[name] == pytest.approx(value, rel=1e-9), name


def test_columns_are_chosen_by_the_names_of_the_model(tmp_path):
    X = table()
    rows = open_rows(write(tmp_path / "a.parquet", X), inputs=["e", "c", "a", "b", "d"], target="y")
    one = model(columns=tuple("abcde"))
    np.testing.assert_array_equal(one.predict(rows), one.predict(X[:, :5]))
    with pytest.raises(InputError, match="has no column 'f'"):
        model(columns=tuple("abcdf")).predict(rows)


def test_rows_are_held_out_in_whole_blocks(tmp_path):
    X = table()
    rows = opened(write(tmp_path / "a.npy", X), weighted=True)
    for seed in range(3):
        kept, held = rows.split(0.2, seed)
        assert len(kept) + len(held) == N
        both = np.concatenate([np.asarray(kept.X), np.asarray(held.X)])
        np.testing.assert_array_equal(np.sort(both, axis=0), np.sort(X[:, :5], axis=0))
        place = {tuple(x): i for i, x in enumerate(X[:, :5].tolist())}
        of_held = np.array([place[tuple(x)] for x in np.asarray(held.X).tolist()])
        assert len(set((of_held // BLOCK).tolist())) == -(-len(held) // BLOCK)
        np.testing.assert_array_equal(held.t[5:700], X[of_held[5:700], 5])
    given = {"batch_size": 3000, "epochs": 2, "seed": 3}
    kept, held = rows.split(0.2, 3)
    assert_same(
        train(model(), rows, validation=0.2, **given),
        train(model(), kept, validation=held, **given),
    )


def test_targets_in_a_file_of_their_own(tmp_path):
    X, t = table()[:, :5], table()[:, 5:]
    np.save(tmp_path / "X.npy", X)
    for name, targets in (("one", t[:, 0]), ("two", t)):
        np.save(tmp_path / f"{name}.npy", targets)
        rows = open_rows(tmp_path / "X.npy", targets_file=tmp_path / f"{name}.npy")
        np.testing.assert_array_equal(np.asarray(rows.t), targets)
        given = {"batch_size": 4000, "epochs": 1, "shuffle": "blocks"}
        outputs = 1 if targets.ndim == 1 else 2
        assert_same(
            train(model(outputs=outputs), rows, **given),
            train(model(outputs=outputs), X, targets, **given),
        )
    np.save(tmp_path / "few.npy", t[:9, 0])
    with pytest.raises(InputError, match=f"has {N} rows of inputs, .* has 9 targets"):
        open_rows(tmp_path / "X.npy", targets_file=tmp_path / "few.npy")


def test_a_memory_map_is_read_from_its_file(tmp_path):
    X = table()
    X.tofile(tmp_path / "raw.dat")
    np.asfortranarray(X).T.tofile(tmp_path / "columns.dat")
    mapped = np.load(write(tmp_path / "a.npy", X), mmap_mode="r")
    raw = [
        np.memmap(tmp_path / name, X.dtype, "r", shape=X.shape, order=order)
        for name, order in (("raw.dat", "C"), ("columns.dat", "F"))
    ]
    for given in (mapped, *raw):
        rows = open_rows(given, target="x_5")
        np.testing.assert_array_equal(rows.X[:], X[:, [0, 1, 2, 3, 4, 6]])
        np.testing.assert_array_equal(rows.t[:], X[:, 5])
    with pytest.raises(InputError, match="a part of a memory map"):
        open_rows(mapped[5:])


class Stop:
    def __init__(self, step):
        self.step = step

    def on_batch_end(self, run):
        if run.state.step == self.step:
            run.stop("here")


@pytest.mark.parametrize("steps", [(1, 2), (4, 9), (11, 13)])
@pytest.mark.parametrize("weighted", [False, True])
def test_a_run_goes_on_in_the_middle_of_an_epoch(steps, weighted, tmp_path):
    """Stopped while streaming, gone on with in memory, and back."""
    X = table()
    file, s = write(tmp_path / "a.npy", X), X[:, 6] if weighted else None

    def some(on_disk, state, *callbacks):
        given = {"batch_size": 3001, "epochs": 2, "shuffle": "blocks", "seed": 4}
        given |= {"state": state, "callbacks": callbacks}
        scaled = model(input_scaling=Scaling.standard(X[:, :5]))
        if on_disk:
            return train(scaled, opened(file, weighted), **given)
        return train(scaled, X[:, :5], X[:, 5], sample_weight=s, **given)

    first = some(True, None, Stop(steps[0]))
    save_state(first.state, tmp_path / "state", first.model.backend)
    second = some(False, load_state(tmp_path / "state"), Stop(steps[1]))
    last = some(True, second.state)
    assert (first.state.step, second.state.step) == steps
    assert_same(last, some(False, None))


# --- what cannot be used -----------------------------------------------------------------------


@pytest.mark.parametrize("kind", FILES)
def test_what_is_missing_late_in_the_file_is_named_as_in_memory(kind, tmp_path):
    X = table()
    X[-2:, 1] = np.nan
    X[N // 2, [1, 3]] = np.inf, np.nan
    path = FILES[kind](tmp_path, X)
    names = [of_npy(name) if path.suffix == ".npy" else name for name in "abcde"]
    with pytest.raises(InputError) as in_memory:
        check_finite(X[:, :5], names, str(path))
    with pytest.raises(InputError) as on_disk:
        opened(path)
    assert str(on_disk.value) == str(in_memory.value)


@pytest.mark.parametrize("values", [[1, None, 3], [True, None, False], [1.5, None, 2.5]])
def test_a_null_is_a_missing_value(values, tmp_path):
    parquet.write_table(pyarrow.table({"a": [1, 2, 3], "b": values}), tmp_path / "a.parquet")
    for given in ({"inputs": "b"}, {"inputs": "a", "target": "b"}):
        with pytest.raises(InputError, match=r"1 of 3 rows has a missing.* in column 'b' \(1\)"):
            open_rows(tmp_path / "a.parquet", **given)
    parquet.write_table(pyarrow.table({"a": [1, 2], "b": ["x", None]}), tmp_path / "a.parquet")
    with pytest.raises(InputError, match="1 of 2 rows have no value in the target column 'b'"):
        open_rows(tmp_path / "a.parquet", target="b")
    with pytest.raises(InputError, match="column 'b' holds string, not numbers; code it"):
        open_rows(tmp_path / "a.parquet")


def late(path, change):
    """A callback that changes the file in the middle of an epoch."""

    class Change:
        def on_batch_end(self, run):
            if run.state.step == 3:
                change(path)

    return Change()


def cut(path):
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size // 2)


def overwritten(path):
    with path.open("r+b") as file:
        file.seek(1000)
        file.write(b"1234")


@pytest.mark.parametrize("change", [cut, overwritten])
def test_a_file_that_changes_while_it_is_read_is_an_error_and_no_thread_stays(change, tmp_path):
    path = write(tmp_path / "a.npy", table(5 * FULL))
    rows, before = opened(path), threading.active_count()
    with pytest.raises(InputError, match=r"a\.npy has changed since it was opened; open it again"):
        train(model(), rows, batch_size=3000, epochs=3, callbacks=[late(path, change)])
    assert threads_left() == before


def threads_left():
    """How many there are when those that read ahead have had the time to end."""
    for thread in threading.enumerate():
        if thread.name.startswith("rows ahead"):
            thread.join(10)
    return threading.active_count()


def test_no_thread_stays_when_a_run_has_ended(tmp_path):
    rows, before = opened(write(tmp_path / "a.npy", table())), threading.active_count()
    train(model(), rows, batch_size=3000, epochs=2)
    assert threads_left() == before


def test_runs_in_several_threads_read_the_same_rows_each_in_its_order(tmp_path):
    rows = opened(write(tmp_path / "a.npy", table()), weighted=True)

    def run(seed):
        return train(model(), rows, batch_size=700, epochs=2, seed=seed)

    with ThreadPoolExecutor(3) as threads:
        together = list(threads.map(run, range(3)))
    for seed, found in enumerate(together):
        assert_same(found, run(seed))


@pytest.mark.parametrize("suffix", [".npy", ".parquet", ".arrow", ".feather"])
def test_any_damage_is_one_error_with_the_name_of_the_file(suffix, tmp_path):
    whole = write(tmp_path / f"whole{suffix}", table(3000)).read_bytes()
    path, draw, refused = tmp_path / f"damaged{suffix}", rng(0), 0
    for _ in range(100):
        content = bytearray(whole)
        places = draw.integers(0, len(content), 4).tolist() + draw.integers(0, 200, 2).tolist()
        for at in places:
            content[at] = draw.integers(0, 256)
        if draw.random() < 0.5:
            del content[draw.integers(0, len(content)) :]
        path.write_bytes(content)
        with suppress(InputError), naming(path):
            opened(path)
            refused -= 1
        refused += 1
    assert refused > 30


@contextmanager
def naming(path):
    """An InputError has the file's name in it."""
    try:
        yield
    except InputError as error:
        if str(path) not in str(error):
            pytest.fail(str(error))
        raise


def test_files_that_are_not_there_or_not_read_in_blocks(tmp_path):
    for name, message in (
        ("none.npy", "no file"),
        ("none.parquet", "no file"),
        ("none.arrow", "no file"),
        ("a.csv", r"rows are read in blocks from \.npy, \.parquet, .*, not from \.csv"),
    ):
        with pytest.raises(InputError, match=message):
            open_rows(tmp_path / name)
    np.save(tmp_path / "text.npy", np.array(["a", "b"]))
    with pytest.raises(InputError, match="holds a <U1 array of shape"):
        open_rows(tmp_path / "text.npy")
    with pytest.raises(InputError, match="no column 'z'"):
        open_rows(write(tmp_path / "a.parquet", table(9)), target="z")


# --- memory ------------------------------------------------------------------------------------


@pytest.mark.parametrize("unit", ["k", "M", "G", "T"])
def test_sizes_are_read_as_people_write_them(unit):
    power = "kMGT".index(unit) + 1
    for text, factor in (("2", 2), ("1.5", 1.5), (" 0.25 ", 0.25), (".5", 0.5)):
        for of, base in ((f"{unit}B", 1000), (f" {unit.lower()}b", 1000), (f"{unit}iB", 1024)):
            assert size_of(text + of) == factor * base**power
    for bad in ("", "GB", "2XB", "-1GB", "0", "two GB", True, None, "2 iB"):
        with pytest.raises(InputError, match=r"a size as '500MB', '2GB' or '1\.5 GiB'"):
            size_of(bad)


def test_memory_that_does_not_suffice_is_refused(tmp_path):
    for path in (write(tmp_path / "a.npy", table()), write(tmp_path / "a.parquet", table())):
        opened(path, memory="100MB")
        with pytest.raises(
            InputError, match=r"reading in blocks takes .* MB, memory is '5MB'; give"
        ):
            opened(path, memory="5MB")
        size = N * 7 * 4
        assert larger_than(path, size - 1)
        assert not larger_than(path, size)
    assert not larger_than(__file__, "1GB")
    with pytest.raises(InputError, match=r"not from \.py"):
        larger_than(__file__, "1kB")


PEAK = """
import sys, threading, time
import numpy as np
import pyarrow.parquet
import mlp

def held():
    with open("/proc/self/status") as file:
        return int(next(x for x in file if x.startswith("RssAnon")).split()[1]) * 1024

def net():
    return mlp.Network(28, [mlp.Dense(16, "relu"), mlp.Dense(1)])

mlp.train(mlp.Model(net(), "mean_squared_error"), np.ones((64, 28)), np.ones(64), epochs=1)
start = peak = held()
done = threading.Event()

def watch():
    global peak
    while not done.wait(0.005):
        peak = max(peak, held())

thread = threading.Thread(target=watch, daemon=True)
thread.start()
rows = mlp.open_rows(sys.argv[1], target=sys.argv[2], memory=sys.argv[3])
scaled = {"input_scaling": mlp.Scaling.standard(rows.X)}
model = mlp.Model(net(), "mean_squared_error", **scaled)
result = mlp.train(model, rows, epochs=1, batch_size=4096, validation=0.1)
result.model.evaluate(rows)
done.set()
thread.join()
print(peak - start)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the system does not count")
@pytest.mark.thorough
@pytest.mark.parametrize("kind", ["npy", "parquet"])
def test_the_memory_that_was_stated_holds(kind, tmp_path):
    """All that a run takes beside what the interpreter and the libraries have: scalings, training,
    validation and evaluation of a table of 230 MB within 140 MB."""
    path = tmp_path / f"a.{kind}"
    X = rng(0).standard_normal((2_000_000, 29), dtype=np.float32)
    write(path, X, [f"c{k}" for k in range(29)])
    del X
    target = "x_28" if kind == "npy" else "c28"
    done = subprocess.run(
        [sys.executable, "-c", PEAK, str(path), target, "140MB"],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(mlp.__file__).parent.parent,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < size_of("140MB")
