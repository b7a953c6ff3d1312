"""Readers: every format reads back what was written, and every mistake is answered by a cure."""

import gzip
import os
import struct
from pathlib import Path

import numpy as np
import pytest

from mlp.data.array_files import IDX_TYPES
from mlp.data.readers import read
from mlp.errors import InputError

rng = np.random.default_rng
FLOWERS = "height,width,weight,kind\n1.5,2,3e-1,fern\n2.5,3,-4,moss\n\n3.5,4,5,fern\n"


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def idx(array: np.ndarray) -> bytes:
    """An array as the bytes of an IDX file."""
    codes = {np.dtype(dtype).newbyteorder("="): code for code, dtype in IDX_TYPES.items()}
    head = struct.pack(f">BBBB{array.ndim}I", 0, 0, codes[array.dtype], array.ndim, *array.shape)
    return head + array.astype(array.dtype.newbyteorder(">")).tobytes()


# --- CSV -------------------------------------------------------------------------------------


def test_csv_round_trip(tmp_path):
    X = rng(0).normal(size=(9000, 3))  # more rows than are read at a time
    lines = [",".join([*map(repr, row), str(k)]) for k, row in enumerate(X.tolist())]
    path = write(tmp_path / "a.csv", "\n".join(["a,b,c,k", *lines]))
    data = read(path, target="k")
    np.testing.assert_array_equal(data.X, X)
    np.testing.assert_array_equal(data.t, np.arange(9000))
    assert (data.X.dtype, data.t.dtype, len(data)) == (np.float64, np.int64, 9000)
    assert data.columns == ("a", "b", "c")
    assert data.source == str(path)


def test_csv_text_labels_blank_lines_and_byte_order_mark(tmp_path):
    data = read(write(tmp_path / "a.csv", "\ufeff" + FLOWERS), target="kind")
    assert data.columns == ("height", "width", "weight")
    assert data.X.tolist() == [[1.5, 2, 0.3], [2.5, 3, -4], [3.5, 4, 5]]
    assert data.t.tolist() == ["fern", "moss", "fern"]


def test_csv_columns_come_in_the_order_asked_for(tmp_path):
    path = write(tmp_path / "a.csv", FLOWERS)
    data = read(path, inputs=["weight", "height"], target=["width", "height"])
    assert data.columns == ("weight", "height")
    assert data.X.tolist() == [[0.3, 1.5], [-4, 2.5], [5, 3.5]]
    assert data.t.tolist() == [[2, 1.5], [3, 2.5], [4, 3.5]]


@pytest.mark.parametrize(
    ("cells", "dtype"),
    [(["1", "2"], np.int64), (["1", "2.0"], np.float64), (["1", "b"], "U"), (["1", 2**70], "U")],
)
def test_csv_target_has_the_type_its_cells_allow(tmp_path, cells, dtype):
    path = write(tmp_path / "a.csv", f"a,t\n1,{cells[0]}\n2,{cells[1]}\n")
    assert np.issubdtype(read(path, target="t").t.dtype, np.dtype(dtype).type)


def test_predict_needs_no_target_and_leaves_it_out(tmp_path):
    path = write(tmp_path / "a.csv", FLOWERS)
    data = read(path, target="kind", need_targets=False)
    assert data.t is None
    assert data.columns == ("height", "width", "weight")
    without = write(tmp_path / "b.csv", "a,b\n1,2\n")
    assert read(without, target="kind", need_targets=False).columns == ("a", "b")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a,b,t\n1,2,3\n4,5\n", "line 3 has 2 cells, the header has 3; complete the row"),
        ("a,b,t\n1,inf,3\n", r"1 of 1 rows has .* 'b' \(1\)"),
        ("a,b,t\n1,2,\n4,5,\n7,8,9\n", "2 of 3 rows have no value in the target column 't'; fill"),
        ("a,b,t\n1,2,nan\n", "1 of 1 rows have no value in the target column 't'"),
        ("a,b,t\n", "is too short; it needs a row of column names and rows"),
        ("t\n5\n", "no column of inputs beside t; add one"),
        ("", "is too short; it needs a row of column names and rows of values"),
        ("1,2,3\n4,5,6\n", "the first row is all numbers; put a row of column names above"),
        ("a,a,t\n1,2,3\n", "two columns are named 'a'; rename one"),
        ("a,b,target\n1,2,3\n", "no column 't'; known: a, b, target"),
        ("a,b,tt\n1,2,3\n", "no column 't'; did you mean 'tt'?"),
        (b"a,b,t\n\xff\0,2,3\n", "not text: it holds bytes that are 0; save it as CSV in UTF-8"),
        ("a,b,t\n" + "1" * 200_000 + ",2,3\n", "line 2 is not CSV: field larger"),
    ],
)
def test_bad_csv(tmp_path, content, message):
    path = write(tmp_path / "bad.csv", content)
    with pytest.raises(InputError, match=rf"(?s)bad\.csv.*{message}"):
        read(path, target="t")


def test_csv_asks_for_the_target(tmp_path):
    path = write(tmp_path / "a.csv", FLOWERS)
    with pytest.raises(
        InputError, match=r"a\.csv: name the column to predict in `target`; known: h"
    ):
        read(path)
    with pytest.raises(InputError, match="of 2 columns of targets all must be numbers, not text"):
        read(path, inputs=["height"], target=["width", "kind"])
    with pytest.raises(InputError, match=r"no column 'hight'; did you mean 'height'\?"):
        read(path, inputs=["hight"], target="kind")


def test_unknown_name_among_many_shows_the_first_and_the_last(tmp_path):
    names = [f"pixel{k}" for k in range(99)] + ["digit"]
    path = write(tmp_path / "a.csv", ",".join(names) + "\n" + ",".join("1" * 100).replace(" ", ""))
    with pytest.raises(InputError, match=r"'QQ'; known: pixel0, .*pixel3, \.\.\., .*digit$"):
        read(path, target="QQ")


# --- arrays ----------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["u1", "<f4", ">f8", ">i2", "<i8", "?", "f2"])
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("key", ["t", "y"])
def test_npz_round_trip(tmp_path, dtype, save, key):
    X, t = rng(0).integers(0, 2, (7, 3, 2)).astype(dtype), np.arange(7)
    save(tmp_path / "a.npz", X=X, **{key: t})
    data = read(tmp_path / "a.npz")
    np.testing.assert_array_equal(data.X, X.reshape(7, 6))
    np.testing.assert_array_equal(data.t, t)
    assert data.X.dtype == X.dtype.newbyteorder("=")
    assert data.X.dtype.isnative
    assert data.columns[:3] == ("x_0_0", "x_0_1", "x_1_0")


def test_npz_names_its_arrays(tmp_path):
    X, T = rng(0).normal(size=(4, 2)), rng(1).normal(size=(4, 3))
    np.savez(tmp_path / "a.npz", train=X, goals=T)
    for inputs in ("train", ["train"]):
        data = read(tmp_path / "a.npz", inputs=inputs, target="goals")
        np.testing.assert_array_equal(data.X, X)
        np.testing.assert_array_equal(data.t, T)
    assert read(tmp_path / "a.npz", inputs="train", target="no", need_targets=False).t is None
    with pytest.raises(
        InputError, match=r"a\.npz has no array 'X'; known: train, goals .*`inputs`"
    ):
        read(tmp_path / "a.npz", target="goals")
    with pytest.raises(InputError, match=r"a\.npz has no array 't'; known: train, goals"):
        read(tmp_path / "a.npz", inputs="train")
    with pytest.raises(InputError, match=r"no array 'goal'; did you mean 'goals'\?"):
        read(tmp_path / "a.npz", inputs="train", target="goal")
    with pytest.raises(InputError, match="name one array of targets, not 2; it can be 2-d"):
        read(tmp_path / "a.npz", inputs="train", target=["goals", "train"])


def test_npy_takes_targets_from_any_second_file(tmp_path):
    X, t = rng(0).normal(size=(3, 2)).astype(np.float32), np.array([3, 1, 2], np.int32)
    np.save(tmp_path / "X.npy", X)
    np.save(tmp_path / "t.npy", t.reshape(3, 1))  # one column is 1-d
    np.savez(tmp_path / "any.npz", whatever=t)
    np.savez(tmp_path / "two.npz", other=X, chosen=t)
    write(tmp_path / "t.csv", "k\n3\n1\n2\n")
    write(tmp_path / "two.csv", "other,chosen\na,3\nb,1\nc,2\n")
    write(tmp_path / "t.idx", idx(t))
    for name in ("t.npy", "any.npz", "t.csv", "t.idx"):
        data = read(tmp_path / "X.npy", targets_file=tmp_path / name)
        np.testing.assert_array_equal(data.t, t)
        np.testing.assert_array_equal(data.X, X)
        assert data.X.dtype == np.float32
    for name in ("two.npz", "two.csv"):
        data = read(tmp_path / "X.npy", targets_file=tmp_path / name, target="chosen")
        np.testing.assert_array_equal(data.t, t)
    assert read(tmp_path / "X.npy", targets_file=tmp_path / "no", need_targets=False).t is None
    with pytest.raises(InputError, match=r"X\.npy holds the inputs alone; .*`targets_file`"):
        read(tmp_path / "X.npy")


def test_arrays_have_no_names_and_take_those_given(tmp_path):
    X = np.arange(6.0).reshape(2, 3)
    np.save(tmp_path / "X.npy", X)
    data = read(tmp_path / "X.npy", inputs=["a", "b", "c"], need_targets=False)
    assert data.columns == ("a", "b", "c")
    np.testing.assert_array_equal(data.X, X)
    data = read(tmp_path / "X.npy", inputs=["x_2", "x_0"], need_targets=False)
    assert data.X.tolist() == [[2, 0], [5, 3]]
    with pytest.raises(
        InputError, match=r"X\.npy has 3 columns without names, but 2 inputs .*a, b"
    ):
        read(tmp_path / "X.npy", inputs=["a", "b"], need_targets=False)


def test_names_of_columns_that_are_names_of_arrays(tmp_path):
    X = np.arange(6.0).reshape(3, 2)
    np.savez(tmp_path / "a.npz", X=X, Y=X)
    data = read(tmp_path / "a.npz", inputs=["X", "Y"], need_targets=False)
    assert data.columns == ("X", "Y")
    np.save(tmp_path / "a.npy", X[:, :1])
    assert read(tmp_path / "a.npy", inputs=[""], need_targets=False).columns == ("",)
    np.savez(tmp_path / "b.npz", T=X)
    with pytest.raises(InputError, match=r"no array 'Z'; known: T"):
        read(tmp_path / "b.npz", inputs="Z", need_targets=False)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.array([[1, "a"]], object), "Python objects, .*; save it again with a plain dtype"),
        (np.array([[1j]]), r"a complex128 array of shape \(1, 1\); save rows of real"),
        (np.empty((0, 10**12)), r"a float64 array of shape \(0, 1000000000000\); save rows"),
        (np.array([[1, np.inf], [-np.inf, 2]]), r"2 of 2 rows have .*'x_0' \(1\), 'x_1' \(1\)"),
    ],
)
@pytest.mark.parametrize("name", ["bad.npy", "bad.npz"])
def test_bad_array(tmp_path, name, array, message):
    if name == "bad.npy":
        np.save(tmp_path / name, array, allow_pickle=True)
    else:
        np.savez(tmp_path / name, X=array)
    with pytest.raises(InputError, match=rf"bad\.np..*{message}"):
        read(tmp_path / name, need_targets=False)


@pytest.mark.parametrize("name", ["bad.npy", "bad.npz"])
def test_damaged_array_file(tmp_path, name):
    X = rng(0).normal(size=(50, 4))
    path = tmp_path / name
    np.save(path, X) if name == "bad.npy" else np.savez_compressed(path, X=X)
    whole = path.read_bytes()
    for content in (b"", b"hello", whole[:20], whole[:-100], whole[:300] + whole[400:]):
        with pytest.raises(InputError, match=r"bad\.np. is damaged or .*write it again"):
            read(write(path, content), need_targets=False)


@pytest.mark.parametrize("name", ["a.npy", "a.npz"])
def test_lack_of_memory_is_no_damage(tmp_path, name, monkeypatch):
    def refuse(*args, **kwargs):
        raise MemoryError("Unable to allocate 1 TiB")

    path = tmp_path / name
    np.save(path, np.ones((3, 2))) if name == "a.npy" else np.savez(path, X=np.ones((3, 2)))
    monkeypatch.setattr(np.lib.format, "read_array", refuse)
    monkeypatch.setattr(np.lib.npyio.NpzFile, "__getitem__", refuse)
    with pytest.raises(InputError, match=r"does not fit into memory \(.* 1 TiB\); use less data"):
        read(path, need_targets=False)


def test_columns_of_an_array_that_are_no_inputs(tmp_path):
    """The target, and what is excluded; under names of the user's too."""
    X = rng(0).normal(size=(5, 4))
    np.save(tmp_path / "a.npy", X)
    data = read(tmp_path / "a.npy", target="x_2")
    assert data.columns == ("x_0", "x_1", "x_3")
    np.testing.assert_array_equal(data.X, X[:, [0, 1, 3]])
    np.testing.assert_array_equal(data.t, X[:, 2])
    assert read(tmp_path / "a.npy", target=["x_2", "x_0"], exclude="x_3").columns == ("x_1",)
    assert read(tmp_path / "a.npy", need_targets=False, exclude="x_*1").columns[1] == "x_2"
    names = ["p", "q", "r", "s"]
    data = read(tmp_path / "a.npy", need_targets=False, inputs=names, exclude=["p"])
    assert data.columns == ("q", "r", "s")
    with pytest.raises(InputError, match=r"has no column of inputs beside"):
        read(tmp_path / "a.npy", target=["x_0", "x_1", "x_2", "x_3"])


# --- IDX -------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", IDX_TYPES)
@pytest.mark.parametrize("name", ["a-idx3-ubyte", "a.idx", "a-idx3-ubyte.gz", "a.idx.gz", "a.dat"])
def test_idx_round_trip(tmp_path, code, name):
    dtype = np.dtype(IDX_TYPES[code]).newbyteorder("=")
    X, t = rng(0).integers(0, 100, (5, 3, 4)).astype(dtype), np.arange(5, dtype=np.uint8)
    content = idx(X)
    path = write(tmp_path / name, gzip.compress(content) if name.endswith("gz") else content)
    data = read(path, targets_file=write(tmp_path / "t-idx1-ubyte.gz", gzip.compress(idx(t))))
    np.testing.assert_array_equal(data.X, X.reshape(5, 12))
    np.testing.assert_array_equal(data.t, t)
    assert data.X.dtype == dtype
    assert data.X.dtype.isnative


def test_truncated_idx_counts_its_bytes(tmp_path):
    whole = idx(np.ones((5, 3, 4), np.int16))  # 16 + 120 bytes
    for size in (135, 16):
        match = rf"136 bytes are expected \(header: 5 x 3 x 4 of int16\), {size} are there; fetch"
        with pytest.raises(InputError, match=match):
            read(write(tmp_path / "a.idx", whole[:size]), need_targets=False)
    with pytest.raises(InputError, match=r"136 bytes .*, 137 are there"):
        read(write(tmp_path / "a.idx", whole + b"\0"), need_targets=False)
    with pytest.raises(InputError, match=r"damaged: 16 bytes .* its header alone, 10 are there"):
        read(write(tmp_path / "a.idx", whole[:10]), need_targets=False)


def test_damaged_gzip_counts_its_bytes(tmp_path):
    X = rng(0).integers(0, 256, (500, 20, 20), dtype=np.uint8)
    zipped = gzip.compress(idx(X))
    match = r"a\.gz is damaged: 200016 bytes .*, \d+ are there \(gzip: .*fetch the file again"
    flipped = bytearray(zipped)
    flipped[-8] ^= 1  # the checksum
    for content in (zipped[: len(zipped) // 2], zipped[:-3], bytes(flipped), zipped + b"junk"):
        with pytest.raises(InputError, match=match) as caught:
            read(write(tmp_path / "a.gz", content), need_targets=False)
        assert caught.value.__cause__ is not None


@pytest.mark.parametrize(
    "content",
    [
        b"\x89PNG rest",
        b"\0\0\x07\1" + bytes(9),  # no such type
        struct.pack(">BBBB65IB", 0, 0, 8, 65, *[1] * 65, 7),  # 65 dimensions
        b"\0\0\x08",
        b"",
    ],
)
@pytest.mark.parametrize("name", ["a-ubyte", "a.txt", "a.gz"])
def test_not_an_idx_file_nor_a_table(tmp_path, content, name):
    path = write(tmp_path / name, gzip.compress(content) if name == "a.gz" else content)
    with pytest.raises(InputError, match=r"is (no table that is read|not text|too short)"):
        read(path, need_targets=False)


def test_idx_of_64_dimensions(tmp_path):
    data = read(write(tmp_path / "a.idx", idx(np.full((1,) * 64, 7, np.uint8))), need_targets=False)
    assert data.X.tolist() == [[7]]


@pytest.mark.parametrize("shape", [(0,), (0, 2**32 - 1), (0, *[2**32 - 1] * 3), (5, 0, 2**32 - 1)])
def test_idx_without_values(tmp_path, shape):
    path = write(
        tmp_path / "a.idx", struct.pack(f">BBBB{len(shape)}I", 0, 0, 8, len(shape), *shape)
    )
    with pytest.raises(
        InputError, match=r"a\.idx holds no values \(header: .* of uint8\); it needs"
    ):
        read(path, need_targets=False)


# --- files -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["no.csv", "no.npy", "no.npz", "no.idx", "no.gz", "no"])
def test_missing_file_and_directory(tmp_path, name, monkeypatch):
    with pytest.raises(InputError, match=f"no file .*{name}; check the name") as caught:
        read(tmp_path / name, need_targets=False)
    assert isinstance(caught.value.__cause__, FileNotFoundError)
    (tmp_path / name).mkdir()
    with pytest.raises(InputError, match=f"{name} is a directory; name a file in it") as caught:
        read(tmp_path / name, need_targets=False)
    assert isinstance(caught.value.__cause__, OSError)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=rf"no file {tmp_path}.other\.csv; check the name"):
        read("other.csv")


def test_the_disk_s_own_words_are_kept(tmp_path, monkeypatch):
    def refuse(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    path = write(tmp_path / "a.csv", FLOWERS)
    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(InputError, match=r"cannot read .*a\.csv: Permission denied") as caught:
        read(path, target="kind")
    assert isinstance(caught.value.__cause__, PermissionError)


def test_rows_of_inputs_and_targets_must_match(tmp_path):
    np.savez(tmp_path / "a.npz", X=np.ones((4, 2)), t=np.ones(3))
    with pytest.raises(InputError, match=r"has 4 rows of inputs, .*a\.npz has 3 targets; each row"):
        read(tmp_path / "a.npz")


def test_targets_are_checked_too(tmp_path):
    X = np.ones((2, 2))
    np.savez(tmp_path / "a.npz", X=X, t=np.array([[1.0, 2], [3, np.nan]]))
    with pytest.raises(InputError, match=r"a\.npz: 1 of 2 rows have no value .*'target 1'"):
        read(tmp_path / "a.npz")
    np.savez(tmp_path / "a.npz", X=X, t=np.float64(3))
    with pytest.raises(InputError, match=r"holds a float64 array of shape \(\); save rows"):
        read(tmp_path / "a.npz")


# --- the data of the examples ----------------------------------------------------------------


def test_the_digits_of_the_examples():
    path = Path(__file__).parents[1] / "examples" / "data" / "digits.csv"
    digits = read(path, target="digit")
    assert digits.X.shape == (1797, 64)
    assert (digits.X.min(), digits.X.max()) == (0, 16)
    assert (digits.columns[0], digits.columns[-1]) == ("pixel_0_0", "pixel_7_7")
    assert np.bincount(digits.t).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
