"""Files of strangers are data: whatever they hold is a model, a state, or one InputError."""

import json
import os
import random
import stat
import struct
import threading
import tracemalloc
import warnings
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file
from sklearn.utils._param_validation import InvalidParameterError

import mlp
from backends import get_backend
from mlp import Dense, InputError, Model, Network, Preprocessing, Scaling, load_model, load_state
from mlp.data.tables import Column, Table
from mlp.files import read, write_atomically
from mlp.model_file import MODEL
from tests import fuzz

rng = np.random.default_rng(0)
X = rng.normal(size=(40, 3))
T = X[:, :2] ** 2


def model_of_all_parts():
    table = Table(
        {
            "age": Column("age", X[:, 0].copy(), X[:, 0] > 1.0),
            "kind": Column("kind", rng.choice(["fern", "moss", "yew"], 40).astype(object)),
            "day": Column("day", np.arange(40).astype("M8[D]")),
            "size": Column("size", np.exp(X[:, 1])),
        }
    )
    columns = {
        "age": mlp.ColumnPlan("number", "robust"),
        "size": mlp.ColumnPlan("number", "quantile"),
    }
    made = Preprocessing.fit(table, columns)
    net = Network(len(made.names), [Dense(4, "tanh"), Dense(2)])
    scaling = Scaling.fit(T, ["log1p", "range"])
    return Model(
        net, "mean_squared_error", preprocessing=made, target_scaling=scaling, classes=["a", "b"]
    )


class Stop:
    def on_batch_end(self, run):
        if run.state.step == 23:
            run.stop("here")


def trained(**options):
    model = Model(Network(3, [Dense(4, "tanh"), Dense(2)]), "mean_squared_error")
    return mlp.train(
        model, X, T, batch_size=4, epochs=5, validation=0.3, patience=3, learning_rate=0.01,
        **options,
    )  # fmt: skip


def state_of_all_parts():
    return trained(callbacks=[Stop()]).state


def use(found):
    """What was read predicts finite numbers or says why not, or is gone on from."""
    with suppress(InputError), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if isinstance(found, Model):
            assert np.isfinite(found.predict(table())).all()
        else:
            trained(state=found)


def write_model(path):
    model_of_all_parts().save(path)


def write_state(path):
    mlp.save_state(state_of_all_parts(), path, get_backend("numpy"))


FILES = {"model": (write_model, load_model), "state": (write_state, load_state)}


@pytest.fixture(params=FILES)
def file(request, tmp_path):
    """(path, what reads it, what is in it) of a file with everything that such a file may have."""
    write, load = FILES[request.param]
    path = tmp_path / "file.safetensors"
    write(path)
    return path, load


def content(path):
    """(format, about, tensors)"""
    with safe_open(path, framework="numpy") as opened:
        metadata = opened.metadata()
    return metadata["format"], json.loads(metadata["about"]), load_file(path)


def rewrite(path, kind, about, tensors):
    """As a program that adds no checksum would."""
    save_file(tensors, path, {"format": kind, "about": json.dumps(about)})


# ----------------------------------------------------------------------------- damage


def test_every_flipped_bit_is_found(file):
    path, load = file
    whole = path.read_bytes()
    load(path)
    for _ in range(300):
        flipped = bytearray(whole)
        flipped[random.randrange(len(whole))] ^= 1 << random.randrange(8)
        path.write_bytes(flipped)
        with pytest.raises(InputError, match=r"file\.safetensors"):
            load(path)


def test_files_of_earlier_versions_have_no_checksum_and_are_read(file):
    path, load = file
    before = load(path)
    rewrite(path, *content(path))
    found = load(path)
    assert (found.w == before.w).all()


def test_without_a_checksum_flipped_tensors_are_numbers_or_one_error(file):
    path, load = file
    kind, about, tensors = content(path)
    chance, refused = random.Random(0), 0
    for _ in range(300):
        name = chance.choice(list(tensors))
        flipped = bytearray(tensors[name].tobytes())
        flipped[chance.randrange(len(flipped))] ^= 1 << chance.randrange(8)
        x = np.frombuffer(flipped, tensors[name].dtype).reshape(tensors[name].shape)
        rewrite(path, kind, about, tensors | {name: x})
        try:
            found = load(path)
        except InputError as error:
            assert str(path) in str(error)  # noqa: PT017
            refused += 1
            continue
        if isinstance(found, Model):
            with suppress(InputError):  # of values that the net overflows on
                assert np.isfinite(found.predict(table())).all()
    assert refused > 5 or load is load_state


def table():
    return Table(
        {
            "age": Column("age", X[:, 0]),
            "kind": Column("kind", np.array(["fern"] * 40, object)),
            "day": Column("day", np.arange(40).astype("M8[D]")),
            "size": Column("size", np.exp(X[:, 1])),
        }
    )


ODD = [
    *(None, True, -1, 0, 1.5, 99, 2**31, 10**30, 1e308, "", "x", "\0", [], {}, [[]], [None]),
    *({"a": 1}, ["x"] * 3, [1, 2, 3]),
]


def paths_of(value, way=()):
    """The way to each value within a value of JSON, outermost first."""
    yield way
    if isinstance(value, (dict, list)):
        for key in value if isinstance(value, dict) else range(len(value)):
            yield from paths_of(value[key], (*way, key))


def put(value, way, new):
    """A copy of the value with another one at the end of the way."""
    if not way:
        return new
    copied = value.copy()
    copied[way[0]] = put(value[way[0]], way[1:], new)
    return copied


def test_every_field_with_odd_values_is_read_or_one_error(file):
    """And what is read predicts, or can be gone on from: nothing is found out later."""
    path, load = file
    kind, about, tensors = content(path)
    refused = 0
    for way in paths_of(about):
        for odd in ODD:
            rewrite(path, kind, put(about, way, odd), tensors)
            try:
                found = load(path)
            except InputError as error:
                assert str(path) in str(error), way  # noqa: PT017
                refused += 1
                continue
            use(found)
    assert refused > 100


def odd_arrays(x):
    """Arrays that could stand in the place of another one."""
    yield from (
        x[:-1],
        x[None],
        x[:0],
        np.array(1.0),
        np.ones(x.shape, int),
        np.concatenate([x, x]),
    )
    if x.dtype.kind == "f":
        yield from (np.full_like(x, bad) for bad in (np.nan, np.inf, -np.inf))
        yield x.astype(np.float64 if x.dtype == np.float32 else np.float32)
        yield np.where(np.arange(x.size).reshape(x.shape) == x.size - 1, np.nan, x)
    else:
        yield from (np.full_like(x, odd) for odd in (7, np.iinfo(x.dtype).max))


def test_every_tensor_with_odd_values_is_read_or_one_error(file):
    path, load = file
    kind, about, tensors = content(path)
    for name, x in tensors.items():
        for odd in odd_arrays(x):
            rewrite(path, kind, about, tensors | {name: np.ascontiguousarray(odd)})
            try:
                found = load(path)
            except InputError as error:
                assert str(path) in str(error)  # noqa: PT017
                continue
            use(found)
        rewrite(path, kind, about, {key: x for key, x in tensors.items() if key != name})
        with suppress(InputError):
            load(path)


@pytest.mark.parametrize("name", ["input_shift", "input_scale", "target_shift", "target_scale"])
@pytest.mark.parametrize("bad", [np.nan, np.inf, 0.0, "longer", "shorter"])
def test_scalings_that_cannot_be(tmp_path, name, bad):
    path = tmp_path / "m"
    write_model(path)
    kind, about, tensors = content(path)
    x = tensors[name].copy()
    if bad == "longer":
        x = np.append(x, 1.0)
    elif bad == "shorter":
        x = x[:-1]
    else:
        x[-1] = bad
    rewrite(path, kind, about, tensors | {name: x})
    if bad == 0.0 and name.endswith("shift"):
        load_model(path)
        return
    with pytest.raises(InputError, match=r"scaling"):
        load_model(path)


@pytest.mark.parametrize(
    "wrong",
    [
        *({"batch": 99}, {"batch": -3}, {"epoch": -1}, {"step": 2**60}, {"waited": 1.5}),
        *({"best_epoch": True}, {"learning_rate": 0.0}, {"learning_rate": "1"}),
        *({"best_loss": "nan"}, {"history": {"loss": ["1.0"] * 99}}, {"history": [1]}),
    ],
    ids=repr,
)
def test_states_that_cannot_be(tmp_path, wrong):
    path = tmp_path / "s"
    write_state(path)
    kind, about, tensors = content(path)
    rewrite(path, kind, about | wrong, tensors)
    with pytest.raises(InputError):
        load_state(path)


@pytest.mark.parametrize("name", ["w", "vector_m", "vector_v"])
def test_a_state_that_is_not_finite_is_not_gone_on_from(name):
    state = state_of_all_parts()
    (state.w if name == "w" else state.vectors[name.removeprefix("vector_")])[0] = np.nan
    with pytest.raises(InputError, match=r"NaN or infinite, as of a run that diverged"):
        trained(state=state)


# ----------------------------------------------------------------------------- bounds


def header(entries, data=b""):
    """A safetensors file of this header."""
    text = entries if isinstance(entries, bytes) else json.dumps(entries).encode()
    return struct.pack("<Q", len(text)) + text + data


def claims(shape, dtype="F32", end=None):
    about = {"format": MODEL, "about": "{}"}
    size = 4 * int(np.prod([float(n) for n in shape])) if end is None else end
    w = {"dtype": dtype, "shape": shape, "data_offsets": [0, size]}
    return header({"__metadata__": about, "w": w}, bytes(8))


BOMBS = {
    "a tensor larger than the file": claims([10**9]),
    "a shape whose product wraps": claims([2**32, 2**32], end=8),
    "a header larger than the file": struct.pack("<Q", 2**40) + b"{}",
    "a header of 2^63": struct.pack("<Q", 2**63) + b"{}",
    "nested JSON around the metadata": header(b"[" * 100_000 + b"]" * 100_000),
    "nested JSON in the metadata": header(
        {"__metadata__": {"format": MODEL, "about": "[" * 100_000 + "]" * 100_000}}
    ),
    "an integer of many digits": header(
        {"__metadata__": {"format": MODEL, "about": '{"inputs": ' + "9" * 5000 + "}"}}
    ),
    "much JSON": header({"__metadata__": {"format": MODEL, "about": "[" + "[]," * 12_000_000}}),
    "bf16": claims([4], "BF16", 8),
    "f16": claims([4], "F16", 8),
    "other metadata": header({"__metadata__": {"format": MODEL, "about": "{}", "more": "1"}}),
    "NaN in JSON": header({"__metadata__": {"format": MODEL, "about": '{"inputs": NaN}'}}),
}


@pytest.mark.parametrize("kind", BOMBS)
def test_what_a_header_claims_is_not_believed(tmp_path, kind):
    path = tmp_path / "m"
    path.write_bytes(BOMBS[kind])
    tracemalloc.start()
    with pytest.raises(InputError, match=r"m is damaged or no safetensors file"):
        load_model(path)
    assert tracemalloc.get_traced_memory()[1] < 4 * len(BOMBS[kind]) + 10_000_000
    tracemalloc.stop()


@pytest.mark.parametrize(
    "layers",
    [
        [{"units": 10**12}],
        [{"units": 10**30}],
        [{"units": 1}] * 200_000,
        [{"units": 1, "sources": list(range(10**6))}],
    ],
    ids=["wide", "wider", "many", "sources"],
)
def test_layers_are_not_made_before_they_are_told(tmp_path, layers):
    about = {
        **{"inputs": 3, "layers": layers, "loss": "mean_squared_error", "reduction": None},
        **{"shared_penalties": False, "dtype": "float32", "columns": None, "classes": None},
    }
    about["layers"] = [{"sources": None, "activation": "identity"} | layer for layer in layers]
    path = tmp_path / "m"
    rewrite(path, MODEL, about, {"w": np.zeros(4, np.float32)})
    with pytest.raises(InputError, match=r"m: "):
        load_model(path)


# ----------------------------------------------------------------------------- what is no file


def test_a_pipe_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "model.safetensors")
    for path in (tmp_path, tmp_path / "model.safetensors"):
        with pytest.raises(InputError, match=r"is a pipe or a device"):
            mlp.load(path)


def test_a_file_that_may_not_be_read_is_there(tmp_path, monkeypatch):
    path = tmp_path / "m"
    write_model(path)
    path.chmod(0)
    if os.access(path, os.R_OK):  # as root

        def refuse(path, *args):
            raise PermissionError(13, "Permission denied", str(path))

        monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(InputError, match=r"cannot read .*m: Permission denied"):
        load_model(path)


@pytest.mark.parametrize("path", [3, None, b"bytes", ["a"], "a\0b", 1.5], ids=repr)
def test_what_is_no_path(path):
    model = Model(Network(3, [Dense(2)]), "mean_squared_error")
    calls = (mlp.load, load_model, load_state, model.save, lambda p: write_atomically(p, b""))
    for call in calls:
        with pytest.raises(InputError, match=r"a path (is text or a pathlib\.Path|holds no NUL)"):
            call(path)


# ----------------------------------------------------------------------------- writing


def test_a_file_beside_the_place_is_never_touched(tmp_path):
    """A user's own X.partial, or a link in its place to another file."""
    other, place = tmp_path / "other", tmp_path / "answers.csv"
    other.write_text("precious")
    for name in ("answers.csv.partial", ".answers.csv.partial"):
        (tmp_path / name).symlink_to(other)
    (tmp_path / "mine.partial").write_text("mine")
    write_atomically(place, b"new")
    write_atomically(tmp_path / "mine", b"new")
    assert other.read_text() == "precious"
    assert (tmp_path / "mine.partial").read_text() == "mine"
    assert place.read_bytes() == b"new"


def test_threads_that_write_one_file(tmp_path):
    """Each time the file is one of those written, whole; nothing is left beside it."""
    place, contents = tmp_path / "m", [bytes([k]) * 50_000 for k in range(4)]
    start = threading.Barrier(4)

    def write(content):
        start.wait()
        for _ in range(50):
            write_atomically(place, content)
            assert place.read_bytes() in contents

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, contents))
    assert os.listdir(tmp_path) == ["m"]


def test_the_mode_of_a_new_file_is_the_usual_one(tmp_path):
    (tmp_path / "usual").write_bytes(b"")
    write_atomically(tmp_path / "m", b"")
    assert stat.S_IMODE(os.stat(tmp_path / "m").st_mode) == stat.S_IMODE(
        os.stat(tmp_path / "usual").st_mode
    )


def test_the_folder_is_flushed_after_the_file_is_moved(tmp_path, monkeypatch):
    calls = []
    for name in ("fsync", "replace"):
        call = getattr(os, name)
        monkeypatch.setattr(
            os, name, lambda *a, name=name, call=call: (calls.append(name), call(*a))[1]
        )
    write_atomically(tmp_path / "m", b"x")
    assert calls == ["fsync", "replace", "fsync"]


def test_what_is_written_is_what_can_be_read(tmp_path):
    """A description that no reader would take is refused by the writer, and the old file stays."""
    path = tmp_path / "m"
    write_model(path)
    before = path.read_bytes()
    with pytest.raises(InputError, match=r"what stands beside its tensors would take"):
        mlp.save_model(model_of_all_parts(), path, beside="x" * (1 << 25))
    assert path.read_bytes() == before
    assert read(path, MODEL)


@pytest.mark.parametrize("kind", ["MLPClassifier", "MLPRegressor"])
def test_what_an_estimators_file_says_beside_the_model_is_checked(tmp_path, kind):
    """A value somewhere in it replaced, removed or added: the file is named, or what is made of it
    is an estimator like any other, whose settings can be, which answers and learns on."""
    X = np.random.default_rng(0).normal(size=(20, 2))
    y = np.array(["n", "y"])[(X[:, 0] > 0).astype(int)] if kind == "MLPClassifier" else X[:, 0]
    short = {"hidden_layer_sizes": (3,), "max_iter": 2, "early_stopping": True}
    more = {"class_weight": {"n": 2.0}} if kind == "MLPClassifier" else {}
    path, bench = tmp_path / "m.safetensors", object.__new__(fuzz.Bench)
    named = read = 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = getattr(mlp, kind)(**short, **more).fit(X, y)
        made.save(path)
        with safe_open(path, framework="numpy") as file:
            metadata, tensors = file.metadata(), load_file(path)
        about = json.loads(metadata["about"])
        for seed in range(300):
            bench.chance = random.Random(seed)
            text = json.dumps(about | {"beside": bench.values(about["beside"])})
            save_file(tensors, path, {"format": metadata["format"], "about": text})
            try:
                found = type(made).load(path)
            except InputError as error:
                named += str(path) in str(error)
                continue
            read += 1
            found.predict(X)
            assert repr(found)
            classes = {"classes": found.classes_} if kind == "MLPClassifier" else {}
            with suppress(InvalidParameterError, InputError):
                found.set_params(early_stopping=False, batch_size=10).partial_fit(X, y, **classes)
    assert named + read == 300
    assert min(named, read) > 15
