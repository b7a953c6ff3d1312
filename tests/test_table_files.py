"""Tables from files of every kind and frames of every library: the same values, or one error."""

import bz2
import decimal
import gzip
import io
import lzma
import pickle
import random
import sqlite3
import struct
import subprocess
import sys
import tracemalloc
import zipfile
from contextlib import suppress
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from mlp.app.cli import app
from mlp.data.array_files import IDX_TYPES
from mlp.data.columns import column
from mlp.data.frames import is_frame, table_of
from mlp.data.table_files import CONVERSIONS, WRITTEN, read_table, write_table
from mlp.data.tables import Column, Table
from mlp.errors import InputError

pa = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")

rng = np.random.default_rng
N = 37
WORDS = ["fern", "moss", "überwuchs", "羊歯", "a,b", 'say "x"', "two\nlines", "x" * 300]
FLOATS = [-0.0, 5e-324, 1.7e308, -1.7e308, np.inf, -np.inf, 0.1, 1e22]


def integers(dtype):
    limits = np.iinfo(dtype)

    def some(random):
        values = random.integers(limits.min, limits.max, N, dtype, endpoint=True)
        values[:2] = limits.min, limits.max
        return values

    return some


def floats(dtype):
    def some(random):
        values = random.normal(size=N).astype(dtype)
        with np.errstate(over="ignore"):
            values[: len(FLOATS)] = np.array(FLOATS).astype(dtype)
        return values

    return some


def dates(random):
    days = random.integers(-40_000, 40_000, N) * 86_400_000_000
    return (days + random.integers(0, 86_400_000_000, N)).view("M8[us]")


KINDS = {
    **{kind: integers(kind) for kind in ("i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8")},
    **{kind: floats(kind) for kind in ("f2", "f4", "f8")},
    "b": lambda random: random.integers(0, 2, N).astype(bool),
    "M": dates,
    "text": lambda random: np.array(random.choice(WORDS, N), object),
    "empty text": lambda random: np.array(random.choice(["", "a"], N), object),
}


def made(kind, seed, gaps=False):
    random = rng(seed)
    values = KINDS[kind](random)
    return column(f"{kind} ü{seed}", values, random.random(N) < 0.3 if gaps else None)


def table(kinds, gaps, seed=0):
    columns = [made(kind, seed + k, gaps) for k, kind in enumerate(kinds)]
    return Table({column.name: column for column in columns})


def assert_same(actual, expected, names=True):
    """The same columns, values bit for bit and gaps."""
    if names:
        assert actual.names == expected.names
    for one, other in zip(actual.columns.values(), expected.columns.values(), strict=True):
        assert_same_column(one, other)


def assert_same_column(one, other):
    assert one.values.dtype == other.values.dtype, other.name
    gaps = [np.zeros(len(c), bool) if c.gaps is None else c.gaps for c in (one, other)]
    np.testing.assert_array_equal(*gaps, err_msg=other.name)
    assert one.gaps is None or one.gaps.any()
    if other.values.dtype == object:
        assert one.values.tolist() == other.values.tolist(), other.name
        assert all(type(cell) is str for cell in one.values)
    else:
        np.testing.assert_array_equal(one.values, other.values, err_msg=other.name)
    if other.numeric:
        np.testing.assert_array_equal(np.signbit(one.values), np.signbit(other.values))


def written(path, table):
    write_table(table, path)
    return path


def write(path, content):
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


# --- writing and reading -----------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".parquet", ".feather", ".csv", ".npy"])
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind[0] not in "f"])
def test_a_column_without_any_value_is_numbers_in_every_format(tmp_path, kind, suffix):
    empty = column("a", KINDS[kind](rng(0)), np.ones(N, bool))
    both = Table({"a": empty, "b": Column("b", np.arange(N) + 0.5)})
    found = read_table(written(tmp_path / f"t{suffix}", both))
    assert_same(found, both, names=suffix != ".npy")
    assert np.isnan(empty.values).all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("gaps", [False, True])
@pytest.mark.parametrize("suffix", [".parquet", ".feather", ".arrow"])
def test_what_is_written_is_read(tmp_path, kind, gaps, suffix):
    expected = table([kind, "i4"], gaps)
    assert_same(read_table(written(tmp_path / f"t{suffix}", expected)), expected)


@pytest.mark.parametrize("gaps", [False, True])
def test_each_format_against_each(tmp_path, gaps):
    """From one to the next to the next, as many columns as CSV can give back."""
    kinds = ["f8" if gaps else "i8", "f8", "b", "M", "text"]
    expected = table(kinds, gaps)
    for names in (expected.names, expected.names[1:2]):
        last = current = expected.select(names)
        for k, suffix in enumerate([".parquet", ".csv", ".feather", ".csv", ".arrow", ".parquet"]):
            last = read_table(written(tmp_path / f"{k}{len(names)}{suffix}", last))
            assert_same(last, current)


CSV_KEEPS = [kind for kind in KINDS if kind not in ("i8", "u8", "empty text")]


@pytest.mark.parametrize("kind", CSV_KEEPS)
@pytest.mark.parametrize("gaps", [False, True])
def test_csv_gives_back_every_value(tmp_path, kind, gaps):
    expected = table([kind, "i1"], gaps)
    found = read_table(written(tmp_path / "t.csv", expected))
    assert found.names == expected.names
    for one, other in zip(found.columns.values(), expected.columns.values(), strict=True):
        np.testing.assert_array_equal(one.gaps, other.gaps)
        there = slice(None) if one.gaps is None else ~one.gaps
        assert one.values[there].tolist() == other.values[there].tolist()


@pytest.mark.parametrize(
    "cells", [["1", "2"], ["007", "1"], ["NA", "x"], [" a", "b"], ["True", "False"], ["", "x"]]
)
def test_text_that_csv_would_change_is_refused(tmp_path, cells):
    texts = Table({"a": Column("a", np.array(cells, object)), "b": Column("b", np.arange(2))})
    with pytest.raises(InputError, match=r"column 'a' would not be read .*; write \.parquet"):
        write_table(texts, tmp_path / "t.csv")
    assert_same(read_table(written(tmp_path / "t.parquet", texts)), texts)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind[0] in "iufb"])
def test_npy_of_one_dtype(tmp_path, kind):
    expected = table([kind, kind], False)
    found = read_table(written(tmp_path / "t.npy", expected))
    assert found.names == ("x_0", "x_1")
    assert_same(found, expected, names=False)
    np.testing.assert_array_equal(found.array[:, 1], found["x_1"].values)


def test_npy_holds_numbers_that_stay_what_they_are(tmp_path):
    mixed = table(["i2", "f4", "u1", "f8"], True)
    found = read_table(written(tmp_path / "a.npy", mixed))
    for one, other in zip(found.columns.values(), mixed.columns.values(), strict=True):
        np.testing.assert_array_equal(one.values, other.values)
    for kinds, name in ((["i8", "f8"], "i8"), (["i8", "u8"], "i8"), (["b", "f8"], "b")):
        with pytest.raises(InputError, match=rf"column '{name} ü0' has .*; write \.parquet"):
            write_table(table(kinds, False), tmp_path / "b.npy")
    for kinds in (["text"], ["M"]):
        with pytest.raises(InputError, match=r"has no numbers, and \.npy holds nothing else"):
            write_table(table(kinds, False), tmp_path / "b.npy")
    with pytest.raises(InputError, match=r"b\.ods: a table is written as \.npy, .*; name it so"):
        write_table(mixed, tmp_path / "b.ods")


def zstandard(content):
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(content)
    return sink.getvalue().to_pybytes()


PACK = {".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress, ".zst": zstandard}


@pytest.mark.parametrize("packing", PACK)
@pytest.mark.parametrize("suffix", [".csv", ".npy", ".parquet", ".feather"])
def test_packed_is_as_unpacked(tmp_path, packing, suffix):
    path = written(tmp_path / f"t{suffix}", table(["f8", "f4"], False))
    packed = PACK[packing](path.read_bytes())
    for name in (f"t{suffix}{packing}", f"T{suffix.upper()}{packing.upper()}", f"named{suffix}"):
        assert_same(read_table(write(tmp_path / name, packed)), read_table(path))
    for damaged in (packed[: len(packed) // 2], packed[:20] + packed[21:]):
        with pytest.raises(InputError, match="half"):
            read_table(write(tmp_path / f"half{suffix}{packing}", damaged))


def test_other_writers(tmp_path):
    """What pyarrow, pandas and polars write by themselves."""
    pandas, polars = pytest.importorskip("pandas"), pytest.importorskip("polars")
    expected = table(["i8", "f8", "b", "M", "text"], True)
    arrow = parquet.read_table(written(tmp_path / "t.parquet", expected))
    with pa.ipc.new_stream(str(tmp_path / "stream.arrow"), arrow.schema) as batches:
        batches.write_table(arrow)
    parquet.write_table(arrow, tmp_path / "groups.pq", row_group_size=5, data_page_version="2.0")
    polars.from_arrow(arrow).write_parquet(tmp_path / "polars.parquet")
    polars.from_arrow(arrow).write_ipc(tmp_path / "polars.feather", compression="zstd")
    polars.from_arrow(arrow).write_ipc(tmp_path / "plain.feather")
    frame = arrow.to_pandas(types_mapper=pandas.ArrowDtype)
    frame.to_parquet(tmp_path / "pandas.parquet")
    frame.to_feather(tmp_path / "pandas.feather")
    frame.index = [*range(1, N), 0]
    frame.to_parquet(tmp_path / "index.parquet")
    for path in tmp_path.iterdir():
        found = read_table(path)
        assert_same(found, expected)
        assert len(found.notes) == path.match("index.*")
    assert "'__index_level_0__' is left out" in read_table(tmp_path / "index.parquet").notes[0]


# --- Arrow's types -----------------------------------------------------------------------------

LEAP = datetime(1960, 2, 29, 12, 0, 0, 123456)
PARIS = timezone(timedelta(hours=1))


def times(*texts):
    return np.array(texts, "M8[us]")


ARROW = [
    (
        pa.array(np.array([1.5, 0], "f2"), mask=np.array([False, True])),
        np.array([1.5, np.nan], "f2"),
    ),
    (pa.array([-(2**53), None]), [-(2.0**53), np.nan]),
    (pa.array([2**53 + 1, None]), ["9007199254740993", ""]),
    (pa.array([2**64 - 1, None], pa.uint64()), ["18446744073709551615", ""]),
    (pa.array([2**64 - 1, 0], pa.uint64()), np.array([2**64 - 1, 0], "u8")),
    (pa.array([decimal.Decimal("0.1"), None]), [0.1, np.nan]),
    (pa.array([decimal.Decimal("1.23e-30"), None], pa.decimal256(60, 40)), [1.23e-30, np.nan]),
    (pa.array([LEAP.date(), None], pa.date32()), times("1960-02-29", "NaT")),
    (pa.array([LEAP.date(), None], pa.date64()), times("1960-02-29", "NaT")),
    *(
        (pa.array([datetime(1960, 2, 29), None], pa.timestamp(unit)), times("1960-02-29", "NaT"))
        for unit in ("s", "ms", "us", "ns")
    ),
    (
        pa.array([LEAP.replace(tzinfo=PARIS), None], pa.timestamp("us", "Asia/Tokyo")),
        times("1960-02-29T11:00:00.123456", "NaT"),
    ),
    (
        pa.array([-1, None], pa.int64()).cast(pa.timestamp("ns")),
        times("1969-12-31T23:59:59.999999", "NaT"),
    ),
    (pa.array(["é", "", None]), ["é", "", ""]),
    (pa.array(["é", "", None], pa.large_string()), ["é", "", ""]),
    (pa.array(["é", "", None], pa.string_view()), ["é", "", ""]),
    (pa.array(["é", "", None]).dictionary_encode(), ["é", "", ""]),
    (pa.array([7, None, 7]).dictionary_encode(), ["7", "", "7"]),
    (pa.array([True, None]).dictionary_encode(), [True, False]),
    (pa.DictionaryArray.from_arrays([0, 1, None], [7, None]), ["7", "", ""]),
    (pa.array([0.5, float("nan")]).dictionary_encode(), ["0.5", ""]),
    (pa.nulls(3), [np.nan] * 3),
    *(
        (pa.nulls(2, kind), [np.nan] * 2)
        for kind in (pa.string(), pa.bool_(), pa.int8(), pa.date32(), pa.decimal128(5))
    ),
    (pa.nulls(2, pa.dictionary(pa.int32(), pa.string())), [np.nan] * 2),
]


@pytest.mark.parametrize(("values", "expected"), ARROW, ids=lambda x: str(getattr(x, "type", "")))
def test_arrow_types(values, expected):
    found = table_of(pa.table({"a": pa.chunked_array([values[:1], values[1:]])}))["a"]
    expected = np.array(expected, object if isinstance(expected[0], str) else None)
    nulls = np.array([value is None or value != value for value in values.to_pylist()])
    assert_same_column(found, Column("a", expected, nulls if nulls.any() else None))


@pytest.mark.parametrize(
    ("values", "what"),
    [
        ([[1], None], "list<"),
        ([{"a": 1}, None], "struct<"),
        ([b"x", None], "binary"),
        ([timedelta(1), None], "duration"),
        ([LEAP.time(), None], "time64"),
    ],
)
def test_a_column_that_cannot_be_is_left_out_or_refused_if_wanted(tmp_path, values, what):
    path = tmp_path / "t.feather"
    arrow = pa.table({"odd": values, "a": [1, 2]})
    with pa.ipc.new_file(str(path), arrow.schema) as batches:
        batches.write_table(arrow)
    for found in (read_table(path, wanted=["a"]), table_of(arrow)):
        assert found.names == ("a",)
        (note,) = found.notes
        assert note.startswith(f"column 'odd' is left out: it holds {what}")
    with pytest.raises(InputError, match=rf"t\.feather: column 'odd' holds {what}.*; convert it"):
        read_table(path, wanted=["a", "odd"])


# --- frames ------------------------------------------------------------------------------------

CELLS = {
    "whole": [1, None, -3],
    "long": [2**53 + 1, None, 5],
    "number": [0.1, None, -0.0],
    "yes": [True, None, False],
    "word": ["fern", None, ""],
    "kind": ["b", None, "a"],
    "time": [LEAP, None, LEAP],
    "zoned": [LEAP.replace(tzinfo=UTC), None, LEAP.replace(tzinfo=UTC)],
    "price": [decimal.Decimal("0.10"), None, decimal.Decimal("3.00")],
}
GAPS = np.array([False, True, False])
MEANT = {
    "whole": np.array([1, np.nan, -3]),
    "long": np.array(["9007199254740993", "", "5"], object),
    "number": np.array([0.1, np.nan, -0.0]),
    "yes": np.array([True, False, False]),
    "word": np.array(["fern", "", ""], object),
    "kind": np.array(["b", "", "a"], object),
    "time": np.array([LEAP, "NaT", LEAP], "M8[us]"),
    "zoned": np.array([LEAP, "NaT", LEAP], "M8[us]"),
    "price": np.array([0.1, np.nan, 3]),
}


def frames():
    """The same values in every library's own types."""
    pandas, polars = pytest.importorskip("pandas"), pytest.importorskip("polars")
    arrow, of_polars = pa.table(CELLS), polars.DataFrame(CELLS)
    kind, zoned = polars.col("kind"), pandas.Series(CELLS["zoned"], dtype="datetime64[ns, UTC]")
    nullable = pandas.DataFrame(
        {
            "whole": pandas.array(CELLS["whole"], dtype="Int64"),
            "long": pandas.array(CELLS["long"], dtype="Int64"),
            "number": pandas.array(CELLS["number"], dtype="Float64"),
            "yes": pandas.array(CELLS["yes"], dtype="boolean"),
            "word": pandas.array(CELLS["word"], dtype="string"),
            "kind": pandas.Categorical(CELLS["kind"]),
            "time": pandas.to_datetime(pandas.Series(CELLS["time"])),
            "zoned": zoned.dt.tz_convert("Asia/Tokyo"),
            "price": CELLS["price"],
        }
    )
    objects = {name: pandas.Series(cells, dtype=object) for name, cells in CELLS.items()}
    return {
        "lists": CELLS,
        "pyarrow": arrow,
        "batch": arrow.to_batches()[0],
        "polars": of_polars.with_columns(kind.cast(polars.Categorical)),
        "enum": of_polars.with_columns(kind.cast(polars.Enum(["a", "b"]))),
        "lazy": of_polars.lazy(),
        "Arrow in pandas": arrow.to_pandas(types_mapper=pandas.ArrowDtype),
        "objects": pandas.DataFrame(objects),
        "nullable": nullable,
        "series": {name: nullable[name] for name in nullable},
    }


def test_frames_of_the_same_values_are_the_same_table():
    expected = Table({name: Column(name, values, GAPS) for name, values in MEANT.items()})
    for name, frame in frames().items():
        assert is_frame(frame), name
        found = table_of(frame)
        assert not found.notes, name
        assert_same(found, expected)


def test_what_is_no_frame():
    pandas, polars = pytest.importorskip("pandas"), pytest.importorskip("polars")
    series = pandas.Series([1.0]), polars.Series([1.0]), pa.array([1.0]), pa.chunked_array([[1.0]])
    for thing in (*series, np.eye(2), [[1.0]], "X.csv", 3, None, Path("X.csv"), object()):
        assert not is_frame(thing)


def test_what_is_no_frame_is_seen_without_a_library():
    code = (
        "import sys, numpy as np; from mlp.data.frames import is_frame, table_of\n"
        "is_frame([[1]]), is_frame(np.eye(2)), is_frame('a'), is_frame(sys)\n"
        "table_of({'a': [1]}); table_of(np.zeros(2, 'i4,i4')); \n"
        "table_of(np.ma.masked_equal([1], 1))\n"
        "print({m.partition('.')[0] for m in sys.modules} & {'pandas', 'polars', 'pyarrow',"
        " 'narwhals'})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_types_of_pandas_own():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(
        {
            0: pandas.Categorical([5, 3, None]),
            "sparse": pandas.arrays.SparseArray([1.0, 0.0, np.nan]),
            "u1": np.array([1, 2, 3], "u1"),
            "mixed": pandas.Series([1, "a", None], dtype=object),
            "numbers": pandas.Series([1, 2.5, decimal.Decimal("0.1")], dtype=object),
            "ones": pandas.Series([1, True, np.False_], dtype=object),
            "huge": pandas.Series([2**64, 1, None], dtype=object),
            "period": pandas.period_range("2020", periods=3),
            "span": pandas.to_timedelta(["1 s", "2 s", "3 s"]),
        }
    )
    found = table_of(frame, "X")
    assert found.names == ("0", "sparse", "u1", "numbers", "ones", "huge")
    assert found["ones"].values.tolist() == [1, 1, 0]
    assert found["0"].values.tolist() == ["5", "3", ""]
    assert found["numbers"].values.tolist() == [1, 2.5, 0.1]
    assert found["huge"].values.tolist() == ["18446744073709551616", "1", ""]
    assert found["u1"].values.dtype == np.uint8
    assert found["sparse"].gaps.tolist() == [False, False, True]
    assert [note.split("'")[1] for note in found.notes] == ["mixed", "period", "span"]
    with pytest.raises(
        InputError, match="X: column 'mixed' holds cells of the types int, str; mak"
    ):
        table_of(frame, "X", wanted=["mixed"])
    for names in (["1", 1], ["a", "a"]):
        with pytest.raises(InputError, match=r"X: .*; rename one"):
            table_of(pandas.DataFrame(np.eye(2), columns=names), "X")


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        ([1, "a"], "holds cells of the types int, str"),
        ([True, "a"], "holds cells of the types bool, str"),
        ([[1], [2]], "holds cells of the type list, which no column is"),
        ([2**53 + 1, 0.5], "holds 9007199254740993 among fractions, which float64 would round"),
        ([decimal.Decimal("1e999"), 0.5], "holds numbers beyond"),
        ([10**999, 0.5], "holds numbers beyond"),
        ([LEAP, LEAP.replace(tzinfo=UTC)], "holds times with and without a time zone"),
        (np.array(["3000000-01-01"] * 2, "M8[D]"), "holds the year 3000000"),
        (np.array([1j, 0]), "holds complex128"),
        (np.array([1, 2], "m8[s]"), r"holds timedelta64\[s\]"),
        (np.array([b"\xff", b""]), "holds bytes that are not UTF-8"),
        (np.array([0xD800, 0x110000], "u4").view("U1"), "holds codes that are no characters"),
        (np.eye(2), r"has the shape \(2, 2\)"),
        (3, "is a int; give an array or a list"),
    ],
)
def test_cells_that_no_column_is(cells, message):
    frame = {"a": cells, "b": [1, 2]}
    assert table_of(frame).names == ("b",)
    with pytest.raises(InputError, match=f"X: column 'a' {message}"):
        table_of(frame, "X", wanted=["a"])


def test_tables_without_rows_or_columns(tmp_path):
    for nothing in ({}, pa.table({})):
        with pytest.raises(InputError, match="has no columns; it needs some to be written"):
            write_table(table_of(nothing), tmp_path / "t.parquet")
    rows = table(list(KINDS), False).take(slice(0))
    for suffix in (".parquet", ".feather"):
        assert_same(read_table(written(tmp_path / f"t{suffix}", rows)), rows)
    write_table(table(["u8", "i8"], False).take(slice(0)), tmp_path / "t.npy")
    with pytest.raises(InputError, match=r"holds a float64 array of shape \(0, 2\)"):
        read_table(tmp_path / "t.npy")
    with pytest.raises(InputError, match="is too short"):
        write_table(rows, tmp_path / "t.csv")
    assert table_of(np.zeros(2, [("a", "i4"), ("t", "U0")]))["t"].values.tolist() == ["", ""]
    with pytest.raises(InputError, match="X: a Odd is no table"):
        table_of(type("Odd", (), {"__dataframe__": None})(), "X")


def test_columns_of_a_dictionary_agree_in_length():
    with pytest.raises(InputError, match="X: column 'a' has 2 rows, column 'b' has 1; they must"):
        table_of({"a": [1, 2], "b": np.ones(1)})


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind[0] in "iufbM"])
def test_masks_and_fields(kind):
    values, mask = KINDS[kind](rng(0)), rng(1).random(N) < 0.3
    expected = column("a", values, mask)
    masked = np.ma.array(values, mask=mask)
    assert_same_column(table_of({"a": masked})["a"], expected)
    for array in (masked, masked[:, None], np.ma.stack([masked, masked], axis=1)):
        assert is_frame(array)
        assert_same_column(table_of(array)["x_0"], expected)
    fields = np.zeros(N, [("a", values.dtype.newbyteorder(">")), ("t", "U3"), ("p", "f4", (2, 2))])
    fields["a"] = values
    found = table_of(fields)
    assert is_frame(fields)
    assert found.names == ("a", "t", "p_0_0", "p_0_1", "p_1_0", "p_1_1")
    assert_same_column(found["a"], column("a", values))
    with np.errstate(over="ignore"):  # NumPy's own default for what is masked is beyond float16
        hidden = np.ma.array(fields)
        hidden.mask["a"] = mask
        assert_same_column(table_of(hidden)["a"], expected)


# --- arrays ------------------------------------------------------------------------------------


def idx(array):
    codes = {np.dtype(dtype).newbyteorder("="): code for code, dtype in IDX_TYPES.items()}
    head = struct.pack(f">BBBB{array.ndim}I", 0, 0, codes[array.dtype], array.ndim, *array.shape)
    return head + array.astype(array.dtype.newbyteorder(">")).tobytes()


def npy(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def npz(**arrays):
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)
    return file.getvalue()


def test_arrays_of_a_file(tmp_path):
    images = rng(0).integers(0, 256, (5, 2, 2), dtype=np.uint8)
    t = np.array(["a", "b", "", "a", "é"])
    files = {
        "a.idx": idx(images),
        "b": gzip.compress(idx(images)),
        "c.npy": npy(images),
        "d.npz": npz(X=images, t=t),
        "e.npz": npz(only=images),
    }
    for name, content in files.items():
        found = read_table(write(tmp_path / name, content))
        assert found.names == ("x_0_0", "x_0_1", "x_1_0", "x_1_1")
        np.testing.assert_array_equal(found.array, images.reshape(5, 4))
    assert read_table(tmp_path / "d.npz", array="t")["x_0"].values.tolist() == t.tolist()


def test_fields_gaps_and_orders_of_bytes_in_a_file(tmp_path):
    fields = np.array([(1, "é", 0.5)], [("wüst", "i4"), ("t", "U3"), ("x", ">f8")])
    for name, content in {"f.npy": npy(fields), "f.npz": npz(a=fields)}.items():
        found = read_table(write(tmp_path / name, content))
        assert found.names == ("wüst", "t", "x")
        assert [c.values.tolist() for c in found.columns.values()] == [[1], ["é"], [0.5]]
    gaps = read_table(write(tmp_path / "g.npy", npy(np.array([[1, np.nan], [np.inf, 3]]))))
    assert gaps.array is None
    assert gaps["x_1"].gaps.tolist() == [True, False]
    assert gaps["x_0"].gaps is None
    foreign = np.asfortranarray(np.arange(6.0).reshape(2, 3).astype(">f4"))
    found = read_table(write(tmp_path / "h.npy", npy(foreign)))
    assert found.array.dtype.isnative
    np.testing.assert_array_equal(found.array, foreign)


def test_the_array_is_named(tmp_path):
    path = write(tmp_path / "a.npz", npz(x_train=np.eye(2), y_train=np.ones(2)))
    with pytest.raises(InputError, match=r"a\.npz holds 2 arrays: name one; known: x_train, y_tr"):
        read_table(path)
    with pytest.raises(InputError, match=r"no array 'x_tain'; did you mean 'x_train'\?"):
        read_table(path, array="x_tain")
    assert read_table(path, array="y_train").names == ("x_0",)
    for name, content in {"a.npy": npy(np.eye(2)), "a.csv": b"a,b\n1,2\n"}.items():
        with pytest.raises(InputError, match=r"`array` names an array in an \.npz file, which thi"):
            read_table(write(tmp_path / name, content), array="x")


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.array([1j]), r"a complex128 array of shape \(1,\); save rows"),
        (np.array(3.0), r"a float64 array of shape \(\)"),
        (np.empty((0, 10**12)), r"a float64 array of shape \(0, 1000000000000\)"),
        (np.empty((3, 2), "V0"), r"array of shape \(3, 2\)"),
        (np.array([1], "m8[s]"), r"a timedelta64\[s\] array"),
        (np.array([object()]), "holds Python objects, which could run code"),
    ],
)
def test_arrays_that_are_no_table(tmp_path, array, message):
    file = io.BytesIO()
    try:
        np.save(file, array, allow_pickle=True)
    except (TypeError, AttributeError, pickle.PicklingError):
        np.save(file, np.array([None]), allow_pickle=True)
    write(tmp_path / "a.npy", file.getvalue())
    write(tmp_path / "a.npz", npz_of(file.getvalue()))
    for name in ("a.npy", "a.npz"):
        with pytest.raises(InputError, match=message):
            read_table(tmp_path / name)


# --- LIBSVM ------------------------------------------------------------------------------------


@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize("labels", ["whole", "numbers", "text"])
def test_libsvm_is_as_scikit_learn_reads_it(tmp_path, first, labels):
    datasets = pytest.importorskip("sklearn.datasets")
    random = rng(0)
    X = random.normal(size=(30, 6)) * (random.random((30, 6)) < 0.4)
    X[0] = 1  # every column is there
    t = {
        "whole": random.integers(-1, 2, 30),
        "numbers": random.normal(size=30),
        "text": np.array(random.choice(["ham", "spam"], 30)),
    }[labels]
    lines = [
        f"{label} " + " ".join(f"{k + first}:{v!r}" for k, v in enumerate(row) if v)
        for label, row in zip(t.tolist(), X.tolist(), strict=True)
    ]
    path = write(tmp_path / "t.libsvm", "# a comment\n" + "  # more_of_it\r\n\n".join(lines))
    found = read_table(path)
    assert found.names == (*(f"x_{k + first}" for k in range(6)), "target")
    np.testing.assert_array_equal(np.stack([found[n].values for n in found.names[:-1]], 1), X)
    assert found["target"].values.tolist() == t.tolist()
    if labels != "text":
        theirs, target = datasets.load_svmlight_file(str(path), zero_based=first == 0)
        np.testing.assert_array_equal(theirs.toarray(), X)
        np.testing.assert_array_equal(target, t)
    more = read_table(path, wanted=["x_9", "target"])
    assert more.names[-2] == "x_9"
    assert not more["x_9"].values.any()


def test_libsvm_without_its_suffix(tmp_path):
    content = "+1 3:1 11:1 14:1 " + " ".join(f"{k}:0.5" for k in range(20, 900)) + "\n-1 5:1 7:1\n"
    for name in ("a9a", "a9a.t", "a9a.txt", "a.svm", "a.svmlight"):
        assert len(read_table(write(tmp_path / name, content))) == 2


NOT_LIBSVM = ["1:", ":2", "1:2:3", "1: 2", "a:2", "1:b", "1:1_0", "-1:2", "1:2 3", "qid:3 1:2"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("1 1:2\n1 2:3 2:4\n", "line 2 has two values for one column; keep one"),
        ("1 1:2\n\n1 1000000000:2\n", "has 2 rows of 1000000000 columns, .*16.0 GB.*load_svmlight"),
        ("1 1:2\n1,3 1:2\n", "'1,3' is several labels in a row; give each label a column"),
        ("1:2 3:4\n", "line 1 is not of LIBSVM's form"),
        ("# nothing\n", "has no rows"),
        *((f"1 1:2\n1 {row}\n", "line 2 is not of LIBSVM's form, as") for row in NOT_LIBSVM),
    ],
)
def test_libsvm_that_is_not(tmp_path, content, message):
    with pytest.raises(InputError, match=rf"t\.libsvm.*{message}"):
        read_table(write(tmp_path / "t.libsvm", content))


# --- kinds that are not read -------------------------------------------------------------------


def zip_of(*names):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name in names:
            archive.writestr(name, "")
    return file.getvalue()


ARFF = "% a comment\n@RELATION r\n@ATTRIBUTE a NUMERIC\n@ATTRIBUTE b {x,y}\n@DATA\n1,x\n2,y\n"
FOREIGN = {
    ".xlsx": zip_of("[Content_Types].xml", "xl/workbook.xml"),
    ".ods": zip_of("mimetype", "content.xml"),
    ".zip": zip_of("t.csv"),
    ".xls": b"\xd0\xcf\x11\xe0" + bytes(99),
    ".mat": b"MATLAB 5.0 MAT-file" + bytes(200),
    ".mat73": b"MATLAB 7.3 MAT-file" + bytes(200),
    ".h5": b"\x89HDF\r\n\x1a\n" + bytes(99),
    ".sqlite": b"SQLite format 3\0" + bytes(99),
    ".json": b'[{"a": 1, "b": "x"}, {"a": 2, "b": "y"}]',
    ".jsonl": b'{"a": 1, "b": "x"}\n{"a": 2, "b": "y"}\n',
    ".arff": ARFF.encode(),
    ".xml": b"<?xml version='1.0'?><d/>",
    ".html": b"<!DOCTYPE html><table>",
    ".dta": b"<stata_dta><header>",
    ".sav": b"$FL2@(#) SPSS",
    ".sas7bdat": bytes(12) + b"\xc2\xea\x81\x60" + bytes(99),
    ".pkl": pickle.dumps([1], protocol=4),
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_a_kind_that_is_not_read_is_known_by_its_content(tmp_path, kind):
    for name in (f"t{kind}", f"t{kind.upper()}", "t.csv", "t.txt", "t", "t.json", "t.parquet"):
        for content in (FOREIGN[kind], gzip.compress(FOREIGN[kind])):
            path = write(tmp_path / name, content)
            with pytest.raises(
                InputError, match=rf"is of the kind \{kind}, which is not read; "
            ) as e:
                read_table(path)
            assert "\n" not in str(e.value)


@pytest.mark.parametrize("kind", [*CONVERSIONS, ".db", ".hdf5", ".pickle", ".ndjson"])
def test_a_kind_that_is_not_read_is_known_by_its_suffix(tmp_path, kind):
    with pytest.raises(InputError, match=r"which is not read; (convert|unpack) it by "):
        read_table(write(tmp_path / f"t{kind}", "whatever"))


CONVERTED = [".jsonl", ".arff", ".mat", ".sqlite", ".dta", ".pkl"]


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        *((".json", name) for name in ("a b", "it's", '"$HOME`x`', "ü!")),
        *((kind, "it's \"$HOME`x` ü!") for kind in CONVERTED),
    ],
)
def test_the_command_converts(tmp_path, kind, name):
    """As it stands in the message, by a shell: the values come out, and no file is overwritten."""
    pandas, scipy_io = pytest.importorskip("pandas"), pytest.importorskip("scipy.io")
    frame = pandas.DataFrame({"a": [1, 2], "b": ["x", "y"]})
    path, taken = tmp_path / (name + kind), tmp_path / (name + ".csv")

    def to_sqlite():
        with sqlite3.connect(path) as connection:
            frame.to_sql("the table", connection, index=False)
        connection.close()

    {
        ".json": lambda: frame.to_json(path),
        ".jsonl": lambda: frame.to_json(path, orient="records", lines=True),
        ".arff": lambda: path.write_text(ARFF),
        ".mat": lambda: scipy_io.savemat(path, {"a": np.array([[1.0, 2.0]])}),
        ".sqlite": to_sqlite,
        ".dta": lambda: frame.to_stata(path, write_index=False),
        ".pkl": lambda: frame.to_pickle(path),
    }[kind]()
    write(taken, "what was there stays")
    with pytest.raises(InputError) as caught:
        read_table(path)
    command = str(caught.value).partition(" it by python ")[2].rpartition(" (with ")[0]
    subprocess.run(f"{sys.executable} {command}", shell=True, check=True, capture_output=True)
    assert taken.read_text() == "what was there stays"
    if kind == ".mat":
        assert read_table(path.with_suffix(".npz")).array.tolist() == [[1, 2]]
        return
    found = read_table(path.with_name(path.name + ".csv"))
    assert found["a"].values.tolist() == [1, 2]
    assert found["b"].values.tolist() == ["x", "y"]


def test_what_is_no_table(tmp_path):
    with pytest.raises(InputError, match="is too short"):  # at once, whatever is looked for
        read_table(write(tmp_path / "a", "%" * 4000))
    for content in (b"\x89PNG\r\n\x1a\n" + bytes(20), b"\x7fELF" + bytes(20), bytes(50)):
        with pytest.raises(
            InputError, match=r"is no table that is read: it starts with the bytes '"
        ):
            read_table(write(tmp_path / "a", content))
    for name in ("a.npy", "a.npz", "a.parquet", "a.feather"):
        with pytest.raises(InputError, match=r"is damaged or .*; write it again"):
            read_table(write(tmp_path / name, "a,b\n1,2\n"))
    with pytest.raises(InputError, match=r"no file .*; check the name"):
        read_table(tmp_path / "none.csv")
    with pytest.raises(InputError, match="is a directory; name a file in it"):
        read_table(tmp_path)


@pytest.mark.parametrize("suffix", [".parquet", ".feather", ".csv.zst"])
def test_without_pyarrow(tmp_path, suffix, monkeypatch):
    path = write(tmp_path / f"t{suffix}", zstandard(b"a\n1\n"))
    if suffix != ".csv.zst":
        write_table(table(["f8"], False), path)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(InputError, match=r"needs pyarrow: pip install 'array-mlp\[tables\]'"):
        read_table(path)


# --- mlp convert -------------------------------------------------------------------------------


def convert(*words):
    done = CliRunner().invoke(app, ["convert", *map(str, words)])
    return done.exit_code, done.stdout, done.stderr


def test_mlp_convert(tmp_path):
    """From each kind to each; what is there already stays."""
    names = [f"t{suffix}" for suffix in (".csv", ".parquet", ".feather", ".npy")]
    first = written(tmp_path / names[0], table(["f8", "f8"], True))
    expected = read_table(first)
    for name, new in zip(names, [*names[1:], "t2.csv"], strict=True):
        code, out, _ = convert(tmp_path / name, tmp_path / new)
        assert (code, out) == (0, f"{tmp_path / new} has {N} rows of 2 columns\n")
        found = read_table(tmp_path / new)
        assert_same(found, expected, names=not new.endswith((".npy", "2.csv")))
        before = (tmp_path / new).read_bytes()
        code, _, err = convert(first, tmp_path / new)
        assert (code, err.count("\n")) == (2, 1)
        assert "is there already and stays as it is; name another file" in err
        assert (tmp_path / new).read_bytes() == before


@pytest.mark.filterwarnings("default")  # as outside of tests
def test_mlp_convert_says_what_it_cannot(tmp_path):
    arrays = write(tmp_path / "a.npz", npz(a=np.eye(2), b=np.ones(3)))
    assert convert(arrays, tmp_path / "a.npy")[2].count("name one; known: a, b\n") == 1
    assert convert(arrays, tmp_path / "a.npy", "--array", "b")[0] == 0
    assert np.load(tmp_path / "a.npy").tolist() == [[1], [1], [1]]
    assert "is written as .npy, .parquet" in convert(arrays, tmp_path / "a.xlsx")[2]
    odd = tmp_path / "odd.parquet"
    parquet.write_table(pa.table({"a": [1], "l": [[1]]}), odd)
    code, _, err = convert(odd, tmp_path / "odd.csv")
    assert code == 0
    assert err.startswith("mlp: note: column 'l' is left out: it holds list<")


# --- bombs -------------------------------------------------------------------------------------

ZEROS = 250_000_000


def npy_head(*shape):
    head = {"descr": "<f8", "fortran_order": False, "shape": shape}
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, head)
    return file.getvalue()


def npz_of(content):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.writestr("X.npy", content)
    return file.getvalue()


def idx_head(*shape):
    return struct.pack(f">BBBB{len(shape)}I", 0, 0, 8, len(shape), *shape)


def long_parquet():
    file = io.BytesIO()
    parquet.write_table(pa.table({"a": pa.nulls(10**8, pa.int32())}), file)
    return file.getvalue()


def packed_feather():
    zeros = pa.record_batch({"a": np.zeros(1 << 20)})
    file, options = io.BytesIO(), pa.ipc.IpcWriteOptions(compression="zstd")
    with pa.ipc.new_file(file, zeros.schema, options=options) as batches:
        for _ in range(32):
            batches.write_batch(zeros)
    return file.getvalue()


def packed_parquet():
    file = io.BytesIO()
    words = pa.table({"a": ["\0" * ZEROS]})
    parquet.write_table(words, file, compression="zstd", write_statistics=False)
    return file.getvalue()


# What claims more than it holds, holds more than it claims, or both.
BOMBS = {
    "claim.npy": lambda zeros: npy_head(2**16, 2**16),
    "more.npy": lambda zeros: npy_head(1, 1) + bytes(9),
    "claim.npz": lambda zeros: npz_of(npy_head(2**16, 2**16)),
    "more.npz": lambda zeros: npz_of(npy_head(3, 5) + zeros),
    "both.npz": lambda zeros: npz_of(npy_head(ZEROS // 8, 1) + zeros),
    "claim.idx": lambda zeros: idx_head(2**31, 2**31),
    "claim.idx.gz": lambda zeros: gzip.compress(idx_head(2**31, 2**31)),
    "more.idx.gz": lambda zeros: gzip.compress(idx_head(3, 5) + zeros, 1),
    "both.idx.gz": lambda zeros: gzip.compress(idx_head(ZEROS) + zeros, 1),
    "zeros.csv.gz": lambda zeros: gzip.compress(zeros, 1),
    "zeros.csv.bz2": lambda zeros: bz2.compress(zeros, 1),
    "zeros.csv.xz": lambda zeros: lzma.compress(zeros, preset=0),
    "zeros.csv.zst": zstandard,
    "long.parquet": lambda zeros: long_parquet(),
    "zeros.parquet": lambda zeros: packed_parquet(),
    "zeros.feather": lambda zeros: packed_feather(),
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_refused_and_its_memory_never_asked_for(tmp_path, name):
    path = write(tmp_path / name, BOMBS[name](bytes(ZEROS)))
    tracemalloc.start()
    try:
        with pytest.raises(InputError, match=r"damaged|small and unpacks to more than"):
            read_table(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    limit = 300_000_000 if name.startswith(("both", "zeros")) else 2_000_000
    assert peak < limit


# --- any bytes ---------------------------------------------------------------------------------


def seeds(folder):
    """Small files of every kind."""
    whole = table(["i4", "f8", "b", "M", "text"], True)
    for suffix in WRITTEN:
        some = table(["f4", "f4"], False) if suffix == ".npy" else whole
        content = written(folder / f"seed{suffix}", some).read_bytes()
        yield suffix, content
        yield f"{suffix}.gz", gzip.compress(content)
    words = pa.table({"d": pa.array(WORDS).dictionary_encode(), "h": pa.nulls(8, pa.float16())})
    file = io.BytesIO()
    parquet.write_table(words, file)
    yield ".parquet", file.getvalue()
    for packing in ("lz4", "zstd"):
        file, options = io.BytesIO(), pa.ipc.IpcWriteOptions(compression=packing)
        with pa.ipc.new_file(file, words.schema, options=options) as batches:
            batches.write_table(words)
        yield ".feather", file.getvalue()
    file = io.BytesIO()
    with pa.ipc.new_stream(file, words.schema) as batches:
        batches.write_table(words)
    yield ".arrow", file.getvalue()
    for suffix, pack in PACK.items():
        yield f".csv{suffix}", pack(b"a,b\n1,2\n3,4\n")
    images = idx(np.arange(12, dtype=np.uint8).reshape(3, 4))
    yield from {".idx": images, ".idx.gz": gzip.compress(images)}.items()
    yield ".npz", npz(X=np.eye(3), t=np.arange(3))
    yield ".npy", npy(np.array([(1, "a")], "i4,U3"))
    yield ".libsvm", b"1 1:0.5 3:2\n-1 2:4\n"
    yield ".zip", zip_of("t.csv")


def mutated(content, chance):
    """Some bytes changed, cut out or doubled, or the end cut off."""
    content = bytearray(content)
    for _ in range(chance.randint(1, 4)):
        at, length = chance.randrange(len(content) + 1), chance.choice([1, 2, 4, 8, 64])
        new = {
            "random": chance.randbytes(length),
            "removed": b"",
            "doubled": 2 * content[at : at + length],
            "flipped": bytes(byte ^ 1 << chance.randrange(8) for byte in content[at : at + 1]),
        }
        kind = chance.choice([*new, "end"])
        if kind == "end":
            del content[at + chance.randrange(1 << 16) :]
        else:
            content[at : at + (1 if kind == "flipped" else length)] = new[kind]
    return bytes(content)


def fuzz(folder, rounds, seed):
    """Read mutated files of every kind; gives how many were tables."""
    chance, tables = random.Random(seed), 0
    for suffix, content in list(seeds(folder)):
        for _ in range(rounds):
            path = write(folder / f"mutated{suffix}", mutated(content, chance))
            with suppress(InputError):
                found = read_table(path)
                tables += 1
                assert {len(column) for column in found.columns.values()} <= {len(found)}
    return tables


def test_any_bytes_are_a_table_or_one_error(tmp_path):
    assert fuzz(tmp_path, rounds=100, seed=0) > 100
