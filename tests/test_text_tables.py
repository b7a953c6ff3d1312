"""CSV as people write it: however a table is written, it is read as the same table."""

import csv
import io
import json
import math
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from mlp.data import text_tables
from mlp.data.tables import GAPS, Table
from mlp.data.text_tables import DELIMITERS, read_text_table
from mlp.errors import InputError

rng = np.random.default_rng


def read(text, path="t.csv", **settings):
    content = text if isinstance(text, bytes) else text.encode()
    return read_text_table(Path(path), content, **settings)


def cells(table):
    """By column the values as Python's, None for a gap; NaN is never a value."""
    found = {}
    for name, column in table.columns.items():
        values = column.values.tolist()
        if column.gaps is not None:
            values = [None if gap else x for x, gap in zip(values, column.gaps, strict=True)]
        found[name] = values
    return found


def numbers_as_people_write_them(seed, n):
    """Texts of numbers of all sizes and spellings, and what they are."""
    r = rng(seed)
    texts = []
    for _ in range(n):
        x = float(r.normal() * 10.0 ** r.integers(-300, 300))
        forms = [repr(x), f"{x:.3e}", f"{x:.17g}", f"+{abs(x)!r}", f"{r.normal():.4f}", ".5", "5."]
        texts.append(str(r.choice([*forms, f"{r.integers(-9, 9)}", f" {r.normal():.2f} ", "007"])))
    return texts


# --- one table, however it is written --------------------------------------------------------


def written(rows, delimiter=",", quote=csv.QUOTE_MINIMAL, end="\n", blank="", trailing=""):
    text = io.StringIO()
    writer = csv.writer(text, delimiter=delimiter, quoting=quote, lineterminator=end)
    writer.writerows(rows)
    lines = text.getvalue().split(end)[:-1]
    return end.join(line.replace(delimiter, delimiter + blank) + trailing for line in lines) + end


ROWS = [
    ["name", "size", "share", "ok", "day"],
    *(
        [f"n {k % 5}", str(k), f"{k / 7:.6f}", str(k % 2 == 0), f"2020-01-{k % 28 + 1:02}"]
        for k in range(200)
    ),
]


@pytest.mark.parametrize("delimiter", DELIMITERS)
@pytest.mark.parametrize("quote", [csv.QUOTE_MINIMAL, csv.QUOTE_ALL])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_delimiters_quotes_line_ends_and_blanks(delimiter, quote, end):
    expected = cells(read(written(ROWS)))
    assert [type(values[0]) for values in expected.values()][:4] == [str, int, float, bool]
    text = written(ROWS, delimiter, quote, end)
    assert cells(read(text)) == expected
    assert cells(read("\ufeff" + text)) == expected
    assert cells(read(f"sep={delimiter}{end}" + text)) == expected
    assert cells(read(text.encode("utf-16"))) == expected
    assert cells(read(text.rstrip(end))) == expected
    assert cells(read(end + text + end + end)) == expected
    if delimiter != "\t":
        assert cells(read(written(ROWS, delimiter, quote, end, blank=" "))) == expected
    assert cells(read(written(ROWS, delimiter, quote, end, trailing=delimiter))) == expected
    assert cells(read(written(ROWS, delimiter, quote, end, trailing=delimiter * 3))) == expected
    many = text + 2 * (delimiter * 4 + end) + "   " + end
    with_blanks = read(many)
    assert cells(with_blanks) == expected
    assert any("3 blank rows are passed over" in note for note in with_blanks.notes)


@pytest.mark.parametrize("seed", range(5))
def test_numbers_are_what_python_reads(seed):
    """By NumPy's parser, by Python's and in quotes: each to the last bit."""
    texts = numbers_as_people_write_them(seed, 500)
    expected = np.array([float(text) for text in texts])
    for text in ("\n".join(["x,y", *(f"{t},{t}" for t in texts)]), "\n".join(['"x"', *texts])):
        values = read(text)["x"].values
        np.testing.assert_array_equal(values, expected)
        assert (np.signbit(values) == np.signbit(expected)).all()


@pytest.mark.parametrize("seed", range(4))
def test_how_many_rows_are_read_at_a_time_changes_nothing(seed, monkeypatch):
    r = rng(seed)
    late = ["1"] * 50
    columns = {
        "int": [str(k) for k in r.integers(-9, 9, 50)],
        "then float": [*late[:49], "0.5"],
        "then text": [*late[:30], "007", *late[31:49], "a"],
        "then big": [*late[:49], str(2**64 - 1)],
        "gaps": [str(r.choice(["1", "", "NA", "?"])) for _ in late],
        "big, then a gap": [str(2**53 + 1), *late[:48], ""],
        "text": [str(r.choice(["a", "b", "1"])) for _ in late],
        "bool": [str(r.choice(["True", "FALSE", "-"])) for _ in late],
    }
    text = written([list(columns), *zip(*columns.values(), strict=True)])
    expected = read(text)
    assert expected["then text"].values.tolist() == columns["then text"]
    assert expected["then big"].values.tolist() == [*[1] * 49, 2**64 - 1]
    assert expected["big, then a gap"].values.dtype == object
    for first, size in product([1, 2, 7], [16, 31]):
        monkeypatch.setattr(text_tables, "FIRST", first)
        monkeypatch.setattr(text_tables, "ROWS", size)
        found = read(text)
        assert json.dumps(cells(found)) == json.dumps(cells(expected))
        assert found.lines.tolist() == expected.lines.tolist() == list(range(2, 52))
        assert [c.values.dtype for c in found.columns.values()] == [
            c.values.dtype for c in expected.columns.values()
        ]


def test_lines_are_those_of_the_file():
    text = 'a,b\n1,"x\ny"\n\n2,z\n'
    table = read(text)
    assert table.lines.tolist() == [2, 5]
    assert cells(table) == {"a": [1, 2], "b": ["x\ny", "z"]}


# --- gaps and kinds --------------------------------------------------------------------------


@pytest.mark.parametrize("gap", ["", " ", *GAPS])
@pytest.mark.parametrize(("one", "two"), [("1", "2"), ("1.5", "2"), ("a", "b"), ("True", "False")])
def test_a_gap_is_a_gap_in_every_kind(gap, one, two):
    plain = cells(read(f"x,y\n{one},1\n{two},1\n"))["x"]
    found = cells(read(f"x,y\n{one},1\n{gap},1\n{two},1\n"))["x"]
    assert found == [plain[0], None, plain[1]]


def test_gaps_can_be_named():
    text = "x,y\nNA,1\n99,2\n,3\n"
    assert cells(read(text, missing=["99"]))["x"] == ["NA", None, None]
    assert cells(read(text, missing=[]))["x"] == ["NA", "99", None]


@pytest.mark.parametrize("cell", ["1_1", "0x10", "١٢", "1,5", "1 2", "1e", "--1", "inf1", "1.2.3"])
def test_what_is_no_number_is_text(cell):
    assert cells(read(f'x;y\n"{cell}";1\n3.5;2\n'))["x"] == [cell, "3.5"]
    assert cells(read(f"x\n3\n{cell}\n" if "," not in cell else f'x\n3\n"{cell}"\n'))["x"] == [
        "3",
        cell,
    ]


def test_labels_keep_their_spelling():
    for texts in (["007", "7"], ["1e3", "1000"], ["+1", "-1"], ["1.0", "1.50"], [str(2**70), "1"]):
        found = read("x,t\n" + "".join(f"1,{text}\n" for text in texts), as_text=["t"])
        assert found["t"].values.tolist() == texts
    for texts, values in (
        (["7", "12"], [7, 12]),
        (["0.5", "2.0"], [0.5, 2.0]),
        (["-3", "0"], [-3, 0]),
    ):
        found = read("x,t\n" + "".join(f"1,{text}\n" for text in texts), as_text=["t*"])
        assert found["t"].values.tolist() == values
    assert read("x,t\n1,TRUE\n2,FALSE\n", as_text=["t"])["t"].values.tolist() == ["TRUE", "FALSE"]


def test_dates_are_utc():
    for text, expected in (
        (
            "d\n2020-02-29T23:30:00-01:00\n2020-01-01T10:00Z\n",
            ["2020-03-01T00:30", "2020-01-01T10"],
        ),
        ("d\n1969-12-31\n\n2020-01-01 10:00\n", ["1969-12-31", None, "2020-01-01T10:00"]),
    ):
        times = [None if t is None else np.datetime64(t, "us").item() for t in expected]
        assert cells(read(text))["d"] == times
    mixed = read("d,e\n2020-01-01T10:00Z,1\n2020-01-01T10:00,2\n")["d"]
    assert mixed.values.dtype == object
    assert read("d,e\n2020-13-01,1\n2020-01-01,1\n")["d"].values.dtype == object


def test_decimal_commas():
    table = read("a;b;c\n1,5;2;x\n-0,25;3;y\n,5;4;z\n")
    assert cells(table) == {"a": [1.5, -0.25, 0.5], "b": [2, 3, 4], "c": ["x", "y", "z"]}
    assert table.notes == ["numbers have a decimal comma in 'a'"]
    table = read("a;b\n1,234;2.5\n2,345;3.5\n")  # thousands
    assert cells(table)["a"] == ["1,234", "2,345"]
    assert "'a' has commas in its numbers and 'b' has points; 'a' is taken as text" in table.notes


# --- names -----------------------------------------------------------------------------------


def test_an_unnamed_first_column_is_left_out_and_said():
    for text in (
        ",a,b\n0,1,2\n1,3,4\n",
        '"",a,b\nr1,1,2\nr2,3,4\n',
        "a,b\n1,1,2\n2,3,4\n",
        '"a","b"\n"r1",1,2\n"r2",3,4\n',
    ):
        table = read(text)
        assert cells(table) == {"a": [1, 3], "b": [2, 4]}
        assert "the first column has no name" in table.notes[0]


@pytest.mark.parametrize(
    "text", ["1100,1102,1104\n.3,.2,.5\n.4,.1,.7\n", "400.5,401.5\n2,1\n", "0,1,2\n.1,.2,.3\n"]
)
def test_numbers_that_rise_are_names(text):
    assert read(text).names == tuple(text.split("\n")[0].split(","))
    assert read(text, header=False).names[0] == "x_0"


def test_whether_there_is_a_header_is_said_or_asked():
    text = "1,2,3\n4,5,6\n7,8,9\n"
    with pytest.raises(InputError, match=r"the first row is all numbers; .*data\.header = true"):
        read(text)
    assert read(text, header=True).names == ("1", "2", "3")
    assert read(text, wanted=["2"]).names == ("1", "2", "3")
    assert read(text, header=False).names == read(text, wanted=["x_0", "x_2"]).names
    assert len(read(text, header=False)) == 3
    flowers = "5.1,3.5,setosa\n4.9,3,virginica\n4.7,3.2,setosa\n"
    for wanted in ([], ["setosa"], ["species"]):
        with pytest.raises(
            InputError, match=r"looks like values, not names \('setosa' stands below"
        ):
            read(flowers, wanted=wanted)
    assert len(read(flowers, header=False)) == 3
    table = read("id,2019,2020\na,1.5,2.5\nb,2.5,3.5\n")
    assert table.names == ("id", "2019", "2020")
    assert "looks like values and is taken as names" in table.notes[0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("Report,,\n,,\na,b,y\n1,2,3\n", r"line 1 names 1 of 3 columns \('Report'\): .* a title"),
        ("My data\na,b\n1,2\n", "line 2 has 2 cells, the header has 1"),
        ("a,b\n1,2\n3,4,5\n", "line 3 has 3 cells, the header has 2"),
        ("a,b\n1,2\n3\n", "line 3 has 1 cells, the header has 2; complete the row"),
        ('a,b\n1,2\n"3,4\n5,6\n', "a quote that is opened in line 1 or after it is never closed"),
        ('a,b\n1,"2"x\n', "line 2 is not CSV: .*; a quote inside a quoted cell is doubled"),
        ("a,b,a\n1,2,3\n", "two columns are named 'a'; rename one"),
        ("a,b\n1,\0\n", "not text: it holds bytes that are 0"),
        ("a\n", "too short; it needs a row of column names and rows of values"),
        ("a,b\n,\n\n", "too short"),
    ],
)
def test_bad_text(text, message):
    with pytest.raises(InputError, match=r"t\.csv.*" + message):
        read(text)


def test_latin_1_is_said():
    table = read("Größe,b\n1,2\n".encode("cp1252"))
    assert table.names == ("Größe", "b")
    assert "is not UTF-8 (byte 2); it is read as Latin-1" in table.notes[0]


def test_a_comment_above_is_passed_over_and_a_name_may_begin_so():
    assert read("# exported by hand\na,b\n1,2\n").names == ("a", "b")
    assert read("#a,b\n1,2\n").names == ("#a", "b")


# --- sizes -----------------------------------------------------------------------------------


def test_columns_are_read_in_linear_time():
    """Twice the columns are not four times the calls."""
    calls = []
    for width in (2_000, 4_000):
        text = (
            ",".join(f"c{k}" for k in range(width))
            + "\n"
            + "\n".join([",".join(["1.5"] * width)] * 2)
        )
        import cProfile
        import pstats

        profile = cProfile.Profile()
        table = profile.runcall(read, text)
        assert isinstance(table, Table)
        assert len(table.names) == width
        calls.append(pstats.Stats(profile).total_calls)
    assert calls[1] < 2.5 * calls[0]


# --- any bytes -------------------------------------------------------------------------------

SEEDS = [
    written(ROWS[:20]).encode(),
    written(ROWS[:20], ";", csv.QUOTE_ALL).encode(),
    b"a;b\n1,5;2\n3,25;NA\n",
    'ä,ö\n1,\'x\'\n"q""q",2\n'.encode(),
    b"1,2\n3,4\n",
    b"sep=|\na|b\n1|2\n",
]


@pytest.mark.parametrize("seed", range(len(SEEDS)))
def test_any_bytes_are_a_table_or_one_error(seed):
    r = rng(seed)
    extra = [
        b'"',
        b",",
        b";",
        b"\n",
        b"\r",
        b"\0",
        b"\xff",
        b"\xef\xbb\xbf",
        b"_",
        b"1e999",
        b"\t",
        b"|",
    ]
    for _ in range(400):
        content = bytearray(SEEDS[seed])
        for _ in range(int(r.integers(1, 6))):
            at, width = (int(x) for x in r.integers(0, len(content) + 1, 2))
            piece = extra[int(r.integers(len(extra)))] if r.random() < 0.7 else bytes(r.bytes(3))
            content[at : at + width % 4] = piece
        header = [None, True, False][int(r.integers(3))]
        try:
            table = read(bytes(content), header=header)
        except InputError:
            continue
        assert len(table) > 0
        for column in table.columns.values():
            assert len(column) == len(table) == len(table.lines)
            assert column.values.dtype.kind in "fiubMO"
            if column.values.dtype.kind == "f":
                gaps = np.zeros(len(column), bool) if column.gaps is None else column.gaps
                assert not np.isnan(column.values[~gaps]).any()
                assert all(math.isnan(x) for x in column.values[gaps])
