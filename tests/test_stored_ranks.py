"""Rows on disk and several ranks: each reads its part of the file, all find what one finds."""

import numpy as np
import pytest

import mlp
from mlp import Dense, InputError, Model, Network, Scaling, open_rows
from mlp.app.config import load
from mlp.app.fingerprint import differences, fingerprint
from mlp.app.prepare import new_model, read_parts, samples_of
from mlp.data.order import BLOCK, BUFFER, BlockOrder, Wanted
from mlp.data.row_files import OpenFile, Part
from mlp.data.stored import labels_of, opened
from mlp.data.stored_tables import _coded, code_stored, scaled
from mlp.parallel.group import ALONE
from tests.thread_group import on_ranks

pyarrow = pytest.importorskip("pyarrow")
from pyarrow import feather, parquet  # noqa: E402

D = 66
N = 2 * BLOCK * BUFFER + 5 * BLOCK + 17
rng = np.random.default_rng


def table(n=N):
    """Inputs, and among them a class and a weight."""
    X = rng(0).normal(size=(n, D)) * 20 + 100
    X[:, 4] = rng(1).integers(0, 3, n)
    X[:, 5] = rng(2).integers(1, 4, n)
    return X


def write(folder, ending, X, **columns):
    """The table as a file of a kind, an NPY file or one of groups of 5,000 rows."""
    path = folder / f"a.{ending}"
    if ending == "npy":
        np.save(path, X)
        return path
    made = {f"x_{k}": X[:, k] for k in range(X.shape[1])} | columns
    if ending == "parquet":
        parquet.write_table(pyarrow.table(made), path, row_group_size=5000)
    else:
        feather.write_feather(pyarrow.table(made), path, chunksize=5000)
    return path


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return write(tmp_path_factory.mktemp("rows"), "npy", table())


@pytest.fixture(scope="module")
def groups(tmp_path_factory):
    return write(tmp_path_factory.mktemp("rows"), "parquet", table()[:, :6])


def rows_of(path, group=ALONE, weighted=False):
    names = [f"x_{k}" for k in range(4)]
    weight = "x_5" if weighted else None
    return open_rows(path, inputs=names, target="x_4", sample_weight=weight, group=group)


def read(rows):
    return rows.X.file.file.done


# --- the order -----------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 7, BLOCK, 1000, BLOCK * BUFFER, 3 * BLOCK * BUFFER])
@pytest.mark.parametrize("n", [1, 300, N])
def test_a_batch_has_the_rows_that_are_drawn_for_it_in_the_order_of_the_file(n, size):
    drawn, order = np.asarray(BlockOrder(1, 2, n)), BlockOrder(1, 2, n, size)
    for start in range(0, n, size) if n / size < 200 else range(0, n - n % size, 50 * size):
        batch = order[start : start + size]
        np.testing.assert_array_equal(batch, np.sort(drawn[start : start + size]))
        np.testing.assert_array_equal(order[start + size // 2 : start + size], batch[size // 2 :])


def test_batches_have_as_many_rows_of_each_part_of_the_file():
    order = BlockOrder(3, 4, N, BLOCK)
    for start in range(0, 2 * BLOCK * BUFFER, BLOCK):
        part = order[start : start + BLOCK] * BUFFER // N
        assert np.bincount(part, minlength=BUFFER).max() <= 2 * BLOCK // BUFFER + 1
        half = np.count_nonzero(part < BUFFER // 2) / BLOCK
        assert abs(half - 0.5) < 0.02


@pytest.mark.parametrize("size", [32, 100, BLOCK, 5000, BLOCK * BUFFER + 1])
@pytest.mark.parametrize("ranks", [1, 2, 3, 4])
def test_the_blocks_that_are_wanted_are_those_of_the_rows(size, ranks):
    for rank in range(ranks):

        def own(batch, rank=rank):
            n = batch.stop - batch.start
            return slice(batch.start + n * rank // ranks, batch.start + n * (rank + 1) // ranks)

        order = BlockOrder(5, 6, N, size, own)
        rows = [order[own(slice(i, min(i + size, N)))] for i in range(0, N, size)]
        wanted = Wanted(order)
        found = [wanted.of(j) for j in range(len(order.ends) + 1)]
        assert set(np.concatenate(found)) == set(np.concatenate(rows) // BLOCK)
        assert wanted.of(1).tolist() == found[1].tolist()  # again, as of an epoch gone on with


# --- what is found out before training ----------------------------------------------------------


@pytest.mark.parametrize("kind", ["npy", "parquet", "feather"])
@pytest.mark.parametrize("ranks", [2, 3, 4])
def test_statistics_have_the_bits_of_one_process(tmp_path, ranks, kind):
    file = write(tmp_path, kind, table())

    def job(group):
        rows = rows_of(file, group)
        standard = Scaling.standard(rows.X, group)
        pre = mlp.Preprocessing.fit(rows.X[:9], scaling="none")
        unit = scaled(pre, rows.X, "range", group).scaling
        return [
            *(standard.shift, standard.scale, unit.shift, unit.scale),
            *(labels_of(rows.t, "t", group), rows.X[:7], rows.t[-3:]),
        ]

    one = job(ALONE)
    for found in on_ranks(ranks, job):
        for a, b in zip(found, one, strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("kind", ["npy", "parquet", "feather"])
def test_a_value_that_one_rank_finds_is_said_as_one_process_says_it(tmp_path, kind):
    X = table()
    X[N - 5, 2] = np.nan
    X[9, 1] = np.inf
    file = write(tmp_path, kind, X)

    def job(group):
        with pytest.raises(InputError) as caught, group.together():
            rows_of(file, group)
        return str(caught.value)

    one = job(ALONE)
    assert "2 of" in one
    assert on_ranks(2, job)[0] == one


@pytest.mark.parametrize("whose", [0, 1])
@pytest.mark.parametrize("what", ["the file", "the disk", "the sums"])
def test_a_rank_that_fails_alone_leaves_none_waiting(file, monkeypatch, whose, what):
    whole = OpenFile.read_into
    failing = []

    def fail(self, start, out):
        if self in failing:
            raise InputError("the disk fails")
        whole(self, start, out)

    monkeypatch.setattr(OpenFile, "read_into", fail)

    def prepares(group, mine):
        with group.together():
            rows = rows_of("nowhere.npy" if mine and what == "the file" else file, group)
            if mine and what == "the disk":
                failing.append(rows.X.file.file)
            Scaling.standard(rows.X, group)
            if mine and what == "the sums":
                raise InputError("the disk fails")
            Scaling.standard(rows.X, group)

    def job(group):
        with pytest.raises(InputError) as caught:
            prepares(group, group.rank == whose)
        return str(caught.value)

    for said in on_ranks(2, job):
        assert f"rank {whose} of 2, on thread {whose}: " in said
        assert ("nowhere.npy" if what == "the file" else "the disk fails") in said


@pytest.mark.parametrize("whose", [0, 1])
@pytest.mark.parametrize("batch_size", [512, "full"])
def test_a_disk_that_fails_a_rank_in_the_middle_ends_all(file, monkeypatch, whose, batch_size):
    """Also where it is found out as rows are read ahead."""
    whole, failing = OpenFile.read_into, []

    def fail(self, start, out):
        if self in failing:
            raise InputError("the disk fails")
        whole(self, start, out)

    monkeypatch.setattr(OpenFile, "read_into", fail)

    def job(group):
        rows = rows_of(file, group)

        class Fails:
            every_rank = True

            def on_batch_end(self, run):
                if group.rank == whose and run.state.step == 3:
                    failing.append(rows.X.file.file)

        model = Model(Network(4, [Dense(3)]), "cross_entropy")
        about = {"epochs": 9, "batch_size": batch_size, "target_loss": 1e-9}
        with pytest.raises(InputError) as caught:
            mlp.train(model, rows, group=group, callbacks=[Fails()], **about)
        return str(caught.value)

    for said in on_ranks(2, job):
        assert f"rank {whose} of 2, on thread {whose}: the disk fails" in said


# --- training ------------------------------------------------------------------------------------

OPTIONS = {
    "shuffled": {},
    "as they are": {"shuffle": False},
    "weights": {"weighted": True},
    "weights, accumulated": {"weighted": True, "accumulate": 2},
    "held out": {"validation": 0.2, "metrics": ["accuracy"], "target_loss": 1e-9},
    "three epochs, odd batches": {"epochs": 3, "batch_size": 1001},
    "batches beyond a buffer": {"batch_size": 20_000},
    "all in one batch": {"batch_size": "full"},
    "weights, shards without rows": {"weighted": True, "batch_size": N // 4},  # the last has one
}


def trained(path, group, options):
    options = {"epochs": 2, "batch_size": 512, "learning_rate": 0.01, "seed": 3} | options
    rows = rows_of(path, group, options.pop("weighted", False))
    layers = [Dense(8, "tanh", dropout=0.2), Dense(3)]
    model = Model(Network(4, layers), "cross_entropy", precision="float64")
    before = read(rows)
    found = mlp.train(model, rows, group=group, **options)
    return found, read(rows) - before


def test_ranks_unpack_the_groups_that_their_rows_are_in(groups):
    """Of seven groups, shuffled: where a group is in two parts, both ranks; the first rows, which
    they compare, all."""

    def job(group):
        rows = rows_of(groups, group, weighted=True)
        model = Model(Network(4, [Dense(3)]), "cross_entropy", precision="float64")
        result = mlp.train(model, rows, group=group, epochs=2, batch_size=512)
        return result.model.w, getattr(rows.X.file.file, "there", None)

    w, _ = job(ALONE)
    for rank, (there, unpacked) in enumerate(on_ranks(2, job)):
        np.testing.assert_allclose(there, w, rtol=0, atol=1e-10)
        first, *others = unpacked.tolist()
        assert first
        assert others[0] == others[1] == (rank == 0)
        assert others[-1] == others[-2] == (rank == 1)


def test_a_table_is_understood_as_by_one_process(tmp_path):
    """Kinds, categories, gaps and labels of a Parquet file; what the sample lacks is said once."""
    X = table(9000)[:, :3]
    X[::7, 1] = np.nan
    word, kind = (np.array(["a", "b", "c", "d"])[rng(k).integers(0, 3 + k, 9000)] for k in (0, 1))
    file = write(tmp_path, "parquet", X, word=word, kind=kind)
    (tmp_path / "a.toml").write_text(
        TOML.format(file=file.as_posix()).replace('"x_4"', '"kind"').replace('"x_5"', '"x_0"')
    )
    about = prepared(tmp_path / "a.toml", ALONE)
    for model, samples, _ in on_ranks(2, lambda group: prepared(tmp_path / "a.toml", group)):
        assert model.preprocessing.to_json() == about[0].preprocessing.to_json()
        assert model.classes.tolist() == list("abcd")
        for name, part in samples.items():
            for a, b in zip(vars(part).values(), vars(about[1][name]).values(), strict=True):
                if isinstance(a, Part):
                    np.testing.assert_array_equal(a[:], b[:])


def test_coding_rows_leaves_the_filters_of_warnings_to_others(tmp_path, monkeypatch):
    """They are the process's, and a thread codes rows ahead; what is new is said at the end."""
    X = table(3 * BLOCK)[:, :1]
    words = np.repeat(["a", "b", "c"], BLOCK)
    sample = mlp.Preprocessing.fit({"x_0": X[:, 0], "word": words}, scaling="none")
    packed = opened(write(tmp_path, "parquet", X, word=np.repeat("d", len(X))))
    with monkeypatch.context() as patch:
        patch.setattr("warnings.catch_warnings", lambda **about: pytest.fail("a filter"))
        rows = np.concatenate(list(_coded(packed, sample, new := [])))
    assert rows.shape == (len(X), len(sample.names))
    assert "'d'" in new[0]
    with pytest.warns(UserWarning, match="'d'.*, and maybe others"):
        code_stored(packed, sample)


@pytest.mark.parametrize("shards", [None, 4])
@pytest.mark.parametrize("name", OPTIONS)
def test_several_ranks_equal_one(file, name, shards):
    """To rounding, with shards bit for bit."""
    options = OPTIONS[name] | ({} if shards is None else {"parallel": {"shards": shards}})
    one, _ = trained(file, ALONE, options)
    for ranks in (2,) if shards is None else (2, 4):
        for several, _ in on_ranks(ranks, lambda group: trained(file, group, options)):
            close = {"rtol": 0, "atol": 1e-10 if shards is None else 0}
            np.testing.assert_allclose(several.model.w, one.model.w, **close)
            for column in one.history.keys() - {"seconds"}:
                np.testing.assert_allclose(
                    several.history[column], one.history[column], **close | {"rtol": 1e-10}
                )


@pytest.mark.parametrize("options", [{}, {"shuffle": False}, {"weighted": True}], ids=str)
@pytest.mark.parametrize("ranks", [2, 4])
def test_each_rank_reads_its_part_of_the_rows(file, ranks, options):
    """Of each epoch 1/N of the bytes; shuffled a few blocks more."""

    def job(group):
        one, three = (trained(file, group, options | {"epochs": n})[1] for n in (1, 3))
        return (three - one) / 2 / (8 * D * N)

    passes = 2 if "weighted" in options else 1  # their sums are taken at the end
    assert job(ALONE) == pytest.approx(passes, abs=0.01)
    for share in on_ranks(ranks, job):
        most = 1e-4 if "shuffle" in options else 0.05
        assert 1 / ranks - 1e-4 <= share / passes <= 1 / ranks + most


TOML = """
[data]
file = "{file}"
memory = "300kB"
target = "x_4"
sample_weight = "x_5"
validation = 0.1

[[layers]]
units = 4

[[layers]]
activation = "softmax"

[training]
loss = "cross_entropy"
"""


def prepared(path, group):
    config = load(path)
    with group.together():
        parts = read_parts(config, group)
        model = new_model(config, parts, mlp.get_backend("numpy"), group)
        samples = samples_of(model, parts, config, group)
    return model, samples, parts.train.X.file.file.done


def test_a_run_is_prepared_from_a_part_of_the_file_by_each_rank(file, tmp_path):
    path = tmp_path / "a.toml"
    path.write_text(TOML.format(file=file.as_posix()))
    one, _, everything = prepared(path, ALONE)
    found = on_ranks(4, lambda group: prepared(path, group))
    for model, _, count in found:
        assert model.preprocessing.to_json() == one.preprocessing.to_json()
        np.testing.assert_array_equal(model.w, one.w)
        assert count < 0.35 * everything
    assert sum(count for *_, count in found) < 1.1 * everything


def test_rows_are_known_again_in_another_file(tmp_path):
    """With other columns beside them, and in another format: what a run was of may move."""
    X = rng(4).normal(size=(1 << 16, 5))
    X[:, 4] = rng(5).integers(0, 3, len(X))
    path, found = tmp_path / "a.toml", []
    about = TOML.replace('sample_weight = "x_5"', "inputs = ['x_0', 'x_1', 'x_2', 'x_3']")
    wide = np.column_stack([X, X, X])
    for kind, x in (("npy", X), ("npy", wide), ("parquet", X)):
        path.write_text(about.format(file=write(tmp_path, kind, x).as_posix()))
        config = load(path)
        parts = read_parts(config)
        samples = samples_of(new_model(config, parts, mlp.get_backend("numpy")), parts, config)
        found.append(fingerprint(config, samples))
        assert not differences(found[0], found[-1])
        assert "blake2b of pieces" in found[-1]["rows"]["train"]
