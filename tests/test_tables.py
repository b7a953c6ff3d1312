"""Tables through the command line: kinds, parts, balance; what is saved is applied again."""

import re
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pytest
from typer.testing import CliRunner

import mlp
from mlp.app.cli import app
from mlp.app.config import load
from mlp.app.prepare import read_parts
from mlp.data.labels import class_weights
from mlp.data.parts import rows_where, split_groups
from mlp.data.table_files import write_table
from mlp.data.tables import Column, Table
from mlp.errors import InputError, Note
from mlp.formulas.metrics import evaluate

SETTINGS = """
[data]
file = "t.csv"
target = "y"
{data}
[[layers]]
units = 4
activation = "tanh"
[[layers]]
activation = "softmax"
[training]
loss = "cross_entropy"
epochs = 2
{training}
"""


def people(n=80, seed=0):
    """A frame with a column of each kind, gaps, an identifier and a rare class."""
    r = np.random.default_rng(seed)
    age = r.integers(18, 90, n).astype(float)
    age[r.random(n) < 0.2] = np.nan
    return pd.DataFrame(
        {
            "id": [f"A{k}" for k in range(n)],
            "age": age,
            "sex": r.choice(["m", "f"], n),
            "job": r.choice(["cook", "judge", None], n),
            "since": pd.to_datetime("2020-01-01") + pd.to_timedelta(r.integers(0, 900, n), "D"),
            "zip": r.choice(["01234", "99999"], n),
            "ok": r.random(n) < 0.5,
            "patient": np.arange(n) // 4,
            "split": np.where(np.arange(n) % 4 == 3, "test", "train"),
            "w": r.uniform(1, 2, n),
            "y": np.where(np.arange(n) % 10 == 0, "1_1", "11"),
        }
    )


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    people().to_csv("t.csv", index=False)
    settings()
    return tmp_path


def settings(data="", training=""):
    text = SETTINGS.format(data=data, training=training)
    Path("t.toml").write_text(text, encoding="utf-8")
    return load("t.toml")


def run(*arguments, code=0):
    """(standard output, standard error) of a command."""
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    return result.stdout, result.stderr


def said(function, *arguments):
    """What a function gives, and its notes."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = function(*arguments)
    return found, [str(w.message) for w in caught if issubclass(w.category, Note)]


# --- the main job ----------------------------------------------------------------------------


def test_a_table_is_trained_on_as_it_is(here):
    out, err = run("train", "t.toml", "--out", "r")
    assert "column 'id' is left out: text, 80 values in 80 rows" in err
    kinds = "4 numbers, 3 categories, 1 date-time, 1 yes/no (gaps in 'age', 'job')"
    assert f"\ncolumns  {kinds}, 'id' left out: 15 inputs\n" in out
    model = mlp.load("r")
    kinds = {code.name: code.kind for code in model.preprocessing.codes}
    assert kinds == {
        "id": "leave out",
        "age": "number",
        "sex": "category",
        "job": "category",
        "since": "date-time",
        "zip": "number",
        "ok": "yes/no",
        "patient": "number",
        "split": "category",
        "w": "number",
    }
    assert model.classes.tolist() == ["11", "1_1"]
    out, _ = run("predict", "r", "t.csv")
    assert out.startswith("label,probability_11,probability_1_1\n")


FORMATS = ("csv", "csv.gz", "tsv", "parquet", "feather", "semicolon.csv")


def save(frame, name):
    if name.endswith("parquet"):
        frame.to_parquet(name)
    elif name.endswith("feather"):
        frame.to_feather(name)
    else:
        frame.to_csv(name, index=False, sep={"tsv": "\t", "semicolon.csv": ";"}.get(name[2:], ","))


@pytest.mark.parametrize("form", FORMATS)
def test_predictions_are_those_of_the_model_in_every_format_and_order(here, form):
    if form in ("parquet", "feather"):
        pytest.importorskip("pyarrow")
    settings('columns = {zip = "category"}')
    run("train", "t.toml", "-q", "--out", "r")
    expected, _ = run("predict", "r", "t.csv")
    frame = people()
    shuffled = frame[list(np.random.default_rng(1).permutation(frame.columns))]
    save(shuffled.assign(more="x").drop(columns=["y", "id"]), f"n.{form}")
    assert run("predict", "r", f"n.{form}")[0] == expected
    save(frame, f"t.{form}")
    assert (
        run("evaluate", "r", f"t.{form}")[0].split()[5:]
        == run("evaluate", "r", "t.csv")[0].split()[5:]
    )


def test_frames_give_what_the_file_gives(here):
    settings('columns = {zip = "category"}')
    run("train", "t.toml", "-q", "--out", "r")
    model, frame = mlp.load("r"), people()
    table = mlp.read_table("t.csv", as_text=["zip"])
    expected = model.predict(table)
    for given in (frame, frame[frame.columns[::-1]], pl.from_pandas(frame)):
        np.testing.assert_array_equal(model.predict(given), expected)
    assert model.evaluate(frame, frame["y"]) == model.evaluate(table, frame["y"].to_numpy())
    with pytest.raises(InputError, match="no column 'sex', which the model was trained with"):
        model.predict(frame.drop(columns="sex"))


def test_a_run_s_settings_can_be_trained_again(here):
    settings(
        'columns = {zip = "category", "a*" = {scaling = "robust"}}\nexclude = ["split"]\n'
        'test = {column = "split", is = "test"}\nmissing = ["", "NA"]\nsample_weight = "w"',
        'class_weight = {"1_1" = 3, "11" = 1}',
    )
    run("train", "t.toml", "-q", "--out", "r")
    run("train", "r/settings.json", "-q", "--out", "again")
    one, other = mlp.load("r"), mlp.load("again")
    np.testing.assert_array_equal(one.w, other.w)
    assert one.preprocessing.to_json() == other.preprocessing.to_json()
    assert one.preprocessing.names == other.preprocessing.names
    assert "split = test" not in one.preprocessing.names
    assert not {"w", "y"} & set(one.preprocessing.columns)


def test_inputs_by_pattern_and_what_is_left_out(here):
    parts, _ = said(read_parts, settings('inputs = ["s*", "age"]\nexclude = ["split"]'))
    assert parts.train.columns == ("sex", "since", "age")
    with pytest.raises(InputError, match=r"no column 'q\*'; known: id, "):
        read_parts(settings('inputs = ["q*"]'))


# --- targets ---------------------------------------------------------------------------------


def test_rows_without_a_target_are_refused_or_counted(here):
    frame = people()
    frame.loc[:4, "y"] = None
    frame.to_csv("t.csv", index=False)
    with pytest.raises(InputError, match="5 of 80 rows have no value in the target column 'y'"):
        read_parts(settings())
    parts, notes = said(read_parts, settings("drop_rows_without_target = true"))
    assert len(parts.train) == 75
    assert any("5 rows without a target are left out" in note for note in notes)
    assert parts.classes.tolist() == ["11", "1_1"]


@pytest.mark.parametrize("spelling", ["1.50", "2e3", "+3", "007"])
def test_a_loss_of_numbers_reads_any_spelling(here, spelling):
    Path("t.csv").write_text(f"x,y\n1,{spelling}\n2,4\n3,5\n")
    config = load("t.toml", ["training.loss=mean_squared_error", "layers.1.activation=identity"])
    assert read_parts(config).train.t.tolist() == [float(spelling), 4, 5]
    data = mlp.read("t.csv", target="y")
    net = mlp.Network(1, [mlp.Dense(1)])
    found = mlp.train(mlp.Model(net, "mean_squared_error"), data, epochs=1)
    assert found.history["loss"]


def test_the_model_s_classes_decide_not_the_new_file(here):
    """A file whose labels are all numbers, of a model whose classes are text."""
    run("train", "t.toml", "-q", "--out", "r")
    people().query("y == '11'").to_csv("n.csv", index=False)
    out, _ = run("evaluate", "r", "n.csv")
    assert out.split()[4:6] == ["n.csv", "72"]


# --- parts -----------------------------------------------------------------------------------


def identifiers(part):
    return set(part.table()["id"].values)


@pytest.mark.parametrize(
    ("test", "rows"),
    [
        ("test = 0.25", None),
        ('test = "last 25%"', range(60, 80)),
        ('test = {column = "split", is = "test"}', range(3, 80, 4)),
        ('test = 0.25\ngroups = "patient"', None),
        ('test = 0.25\nvalidation = 0.25\ngroups = "patient"', None),
        ('test = "last 25%"\nvalidation = "last 25%"', range(60, 80)),
    ],
)
def test_no_row_is_in_two_parts(here, test, rows):
    parts, _ = said(read_parts, settings(test))
    named = parts.by_name()
    found = {name: identifiers(part) for name, part in named.items()}
    assert set.union(*found.values()) == {f"A{k}" for k in range(80)}
    assert sum(map(len, found.values())) == 80
    assert abs(len(found["test"]) - 20) <= 4
    if rows is not None:
        assert found["test"] == {f"A{k}" for k in rows}
    elif "groups" not in test:  # each class its share
        assert np.count_nonzero(named["test"].t == "1_1") == 2
    if "groups" in test:
        groups = [set(part.beside["patient"].values.tolist()) for part in named.values()]
        assert not set.intersection(*groups)
        assert sum(map(len, groups)) == 20


def test_groups_come_near_to_the_share_and_are_whole():
    for seed in range(20):
        r = np.random.default_rng(seed)
        column = Column("g", r.integers(0, r.integers(2, 30), 200))
        kept, held = split_groups(column, 0.3, seed)
        assert sorted([*kept, *held]) == list(range(200))
        assert len(kept)
        assert len(held)
        assert not set(column.values[kept].tolist()) & set(column.values[held].tolist())


def test_bad_parts(here):
    for data, message in (
        (
            'test = "last 20"',
            "data.test: expected a share of the rows or 'last 20%', not 'last 20'",
        ),
        ('test = "last 0%"', "expected a share of the rows or 'last 20%'"),
        ('test = "last 60%"\nvalidation = 0.5', "hold out 1.1 of the rows"),
        ('test = "last 20%"\ngroups = "patient"', "cuts through groups"),
        ("train = 0.5", r"train is \{column = ..., is = ...\}"),
        ('exclude = ["age"]\ninputs = ["age"]', "'age' is in inputs and in exclude"),
        ("missing = 3", "data.missing: expected a list of the texts"),
        ('columns = {age = "nummer"}', "kind: .*'nummer'"),
        ('scale_targets = "robust"', "smooth clip"),
    ):
        with pytest.raises(InputError, match=message):
            settings(data)
    for data, message in (
        ('test = {column = "split", is = "tset"}', "'tset' in column 'split'; did you mean 'test'"),
        ('test = {column = "spilt", is = "test"}', "no column 'spilt'; did you mean 'split'"),
        ('test = 0.2\ngroups = "job"', "have no value in the column of groups, 'job'"),
        ('sample_weight = "sex"', "the column of weights, 'sex', is not of numbers"),
        ('sample_weight = "age"', "the column of weights, 'age', has gaps"),
    ):
        with pytest.raises(InputError, match=message):
            read_parts(settings(data))
    with pytest.raises(InputError, match="all rows have 'a' in column 'c'"):
        rows_where(Column("c", np.array(["a", "a"], object)), "a")


def test_rows_that_are_trained_on_are_no_test(here):
    with pytest.raises(InputError, match=r"data\.test_file is data\.file, the rows that are"):
        read_parts(load("t.toml", ["data.test_file=t.csv"]))
    numbers = people()[["age", "w", "patient", "y"]].dropna()
    numbers.to_csv("t.csv", index=False)
    numbers[10:20].to_csv("copy.csv", index=False)
    with pytest.raises(InputError, match=r"copy\.csv: all 10 rows of data\.test are rows that are"):
        read_parts(load("t.toml", ["data.test_file=copy.csv"]))
    half = pd.concat([numbers[10:20], numbers[:10].assign(w=7.0)])
    half.to_csv("half.csv", index=False)
    with pytest.warns(UserWarning, match="10 of 20 rows of data.test are trained on too"):
        read_parts(load("t.toml", ["data.test_file=half.csv"]))


def test_arrays_for_each_part(here):
    r = np.random.default_rng(0)
    arrays = {"x_train": r.random((30, 3)), "x_test": r.random((8, 3))}
    arrays |= {"y_train": r.integers(0, 2, 30), "y_test": r.integers(0, 2, 8)}
    np.savez("t.npz", **arrays)
    text = SETTINGS.replace('file = "t.csv"\ntarget = "y"', 'file = "t.npz"')
    parts = "\n".join(
        f'{name} = {{inputs = "x_{name}", target = "y_{name}"}}' for name in ("train", "test")
    )
    Path("t.toml").write_text(text.format(data=parts, training=""))
    found = read_parts(load("t.toml"))
    np.testing.assert_array_equal(found.train.X, arrays["x_train"])
    np.testing.assert_array_equal(found.test.X, arrays["x_test"])
    np.testing.assert_array_equal(found.test.t, arrays["y_test"])
    run("train", "t.toml", "-q", "--out", "r")
    assert run("evaluate", "r", "t.npz")[0].split()[4:6] == ["t.npz", "8"]
    named = run("evaluate", "r", "t.npz", "--inputs", "x_train", "--target", "y_train")[0]
    assert named.split()[4:6] == ["t.npz", "30"]
    Path("t.toml").write_text(text.format(data=parts.split("\n")[0], training=""))
    run("train", "t.toml", "-q", "--out", "q")
    _, err = run("evaluate", "q", "t.npz", code=2)
    assert "was trained on; name others by --inputs NAME and --target NAME" in err


# --- balance ---------------------------------------------------------------------------------


def test_weights_of_classes_and_rows_are_those_of_training(here):
    """The same net, trained with the product of both as sample weights."""
    frame = people()
    settings('sample_weight = "w"\ninputs = ["age", "w2"]', 'class_weight = "balanced"')
    frame.assign(age=frame["age"].fillna(30), w2=frame["w"] * 2).to_csv("t.csv", index=False)
    run("train", "t.toml", "-q", "--out", "r")
    frame = pd.read_csv("t.csv", dtype={"y": str})
    X, y = frame[["age", "w2"]].to_numpy(), frame["y"].to_numpy(str)
    classes, indices = mlp.class_labels(y)
    s = class_weights(classes, indices, "balanced") * frame["w"].to_numpy()
    net = mlp.Network(2, [mlp.Dense(4, "tanh"), mlp.Dense(2, "softmax")])
    scaling = mlp.Scaling.standard(X)
    model = mlp.Model(net, "cross_entropy", classes=classes, input_scaling=scaling)
    expected = mlp.train(model, X, y, sample_weight=s, epochs=2, batch_size=32).model
    np.testing.assert_array_equal(mlp.load("r").w, expected.w)
    with pytest.raises(InputError, match="class_weight: expected 'balanced' or a table of weights"):
        settings(training='class_weight = "balance"')


def test_a_net_that_always_answers_the_same_is_seen():
    t = np.arange(100) % 10 == 0
    for answer in (0, 1):
        found = evaluate("classes", np.eye(2)[[answer] * 100], t.astype(int))
        assert found == {"accuracy": [0.9, 0.1][answer], "balanced_accuracy": 0.5}


# --- what is said ----------------------------------------------------------------------------


def test_inspect_shows_what_is_made_of_a_table(here):
    frame = people().assign(constant=7, copy=lambda f: f["w"], n=range(80))
    frame.to_csv("t.csv", index=False)
    out, err = run("inspect", "t.csv")
    lines = {line.split()[0]: line for line in out.splitlines() if line}
    assert lines["t.csv:"] == "t.csv: 80 rows, 14 columns"
    assert "leave out  text, 80 values in 80 rows" in lines["id"]
    assert "category   text, 2 values in 80 rows" in lines["sex"]
    assert "%)" in lines["age"]
    assert re.search(r"date-time  all ISO dates +2020-\d\d-\d\d \.\.\. 2022-", lines["since"])
    for doubt in ("'constant' is constant", "'copy' is a copy of 'w'", "'n' counts the rows"):
        assert doubt in err
    out, _ = run("inspect", "t.toml")
    assert "target" in next(line for line in out.splitlines() if line.startswith("y "))


def test_write_then_read_is_the_identity(tmp_path):
    table = Table.of_array(np.random.default_rng(0).normal(size=(9, 3)), ["a", "b", "c"])
    for name in ("t.csv", "t.npy"):
        write_table(table, tmp_path / name)
        again = mlp.read_table(tmp_path / name)
        np.testing.assert_array_equal(
            np.column_stack([c.values for c in again.columns.values()]), table.array
        )


# --- no silent wrong number ------------------------------------------------------------------


@pytest.mark.parametrize("rows", [60, 12_000])
def test_words_for_gaps_may_be_numbers(here, rows):
    """In inputs and targets, whatever the other cells are and wherever the first other gap is."""
    a = [str([1, 99, 3][k % 3]) for k in range(rows)]
    a[rows * 3 // 4] = ""
    Path("t.csv").write_text("a,y\n" + "".join(f"{x},{k % 2}\n" for k, x in enumerate(a)))
    pd.DataFrame({"a": [int(x or 1) for x in a], "y": np.arange(rows) % 2}).to_parquet("t.parquet")
    for file in ("t.csv", "t.parquet"):
        data = mlp.read(file, target="y", missing=["99"])
        assert data.X["a"].gaps.sum() >= rows // 3 - 1
        assert np.nanmax(data.X["a"].values) == 3
    with pytest.raises(InputError, match=f"{rows // 2} of {rows} rows have no value"):
        mlp.read("t.csv", target="y", missing=["1"])


def test_a_copy_of_the_rows_is_no_test_whatever_their_columns(here):
    frame = people().assign(job=lambda f: f["job"].fillna("none")).drop(columns="zip")
    frame.to_csv("t.csv", index=False)
    shuffled = frame.sample(frac=1, random_state=0)
    shuffled.to_csv("copy.csv.gz", index=False)
    shuffled.to_parquet("copy.parquet", index=False)
    for copy in ("copy.csv.gz", "copy.parquet"):
        with pytest.raises(InputError, match=r"all 80 rows of data\.test are rows that"):
            read_parts(load("t.toml", [f"data.test_file={copy}"]))
    swapped = frame.assign(y=np.where(frame["y"] == "11", "1_1", "11"))
    swapped.to_csv("other.csv", index=False)
    assert len(read_parts(load("t.toml", ["data.test_file=other.csv"])).test) == 80


def test_few_discrete_rows_may_be_in_both_parts(here):
    for name in ("t", "s"):
        rows = "".join(f"{k % 2},{k // 2 % 2},{k % 3 % 2}\n" for k in range(40))
        Path(f"{name}.csv").write_text("a,b,y\n" + rows)
    with pytest.warns(UserWarning, match="40 of 40 rows of data.test are trained on too"):
        read_parts(load("t.toml", ["data.test_file=s.csv"]))


@pytest.mark.parametrize("spelling", ["{:.4f}", "{:03.0f}", "{:+.0f}"])
def test_targets_of_two_files_may_be_spelled_differently(here, spelling):
    Path("t.csv").write_text("a,y\n" + "".join(f"{k},{k % 2}\n" for k in range(20)))
    rows = "".join(f"{k}.5,{spelling.format(k % 2)}\n" for k in range(9))
    Path("s.csv").write_text("a,y\n" + rows)
    more = ["training.loss=mean_squared_error", "layers.1.activation=identity"]
    parts = read_parts(load("t.toml", ["data.test_file=s.csv", *more]))
    assert parts.test.t.tolist() == [k % 2 for k in range(9)]


def test_gaps_in_labels_do_not_rename_the_others(here):
    Path("t.csv").write_text("a,y\n" + "".join(f"{k},{['0', '1', ''][k % 3]}\n" for k in range(30)))
    people(30).assign(y=pd.array([0, 1, None] * 10, "Int64")).to_parquet("t.parquet")
    for file in ("t.csv", "t.parquet"):
        config = load("t.toml", [f"data.file={file}", "data.drop_rows_without_target=true"])
        parts, _ = said(read_parts, config)
        assert parts.classes.tolist() == [0, 1]
        assert parts.classes.dtype.kind == "i"


def test_rows_that_are_paired_by_their_place_are_not_passed_over(here):
    rows = [str(k) for k in range(30)]
    x, y = rows.copy(), [str(k % 2) for k in range(30)]
    x[5], y[25] = ",", ""
    Path("x.csv").write_text("a,b\n" + "".join(f"{v if v == ',' else v + ',1'}\n" for v in x))
    Path("y.csv").write_text("y\n" + "".join(f"{v}\n" for v in y))
    with pytest.raises(InputError, match=r"x\.csv: 1 blank rows lie between others"):
        mlp.read("x.csv", targets_file="y.csv")
    with pytest.raises(InputError, match=r"x\.csv: 1 blank rows .* a prediction for each row"):
        mlp.read("x.csv", need_targets=False)
    Path("x.csv").write_text("a\n1\n\n3\n\n\n")
    assert mlp.read("x.csv", need_targets=False).X["a"].gaps.tolist() == [False, True, False]
    pd.DataFrame({"a": [1.0, None, 3.0, None]}).to_csv("q.csv", index=False)
    assert len(mlp.read("q.csv", need_targets=False)) == 4


def test_a_row_of_one_cell_more_is_no_row_name(here):
    for text in (
        "x,y\n3,0,1\n4,7,0\n5,4,1\n",
        "name,age\nDoe0, John,20\nDoe1, Ann,30\n",
        "age,y\n0.5,Doe, J0\n0.7,Doe, J1\n",
    ):
        Path("t.csv").write_text(text)
        with pytest.raises(InputError, match="line 2 has 3 cells, the header has 2"):
            mlp.read_table("t.csv")


def test_thousands_are_asked_about():
    from mlp.data.text_tables import read_text_table

    for cells_, mark in ((["975", "1.000", "1.025"], "points"), (["1,234", "2,345"], "commas")):
        text = "a;b\n" + "".join(f"{cell};1\n" for cell in cells_)
        notes = read_text_table(Path("t.csv"), text.encode()).notes
        assert any(f"{mark} in 'a'" in note and "separate thousands" in note for note in notes)


def test_weights_that_are_all_zero_are_refused(here):
    settings(training='class_weight = {"1_1" = 0, "11" = 0}')
    _, err = run("train", "t.toml", "-q", code=2)
    assert "not all 0" in err
    with pytest.raises(InputError, match="the weight of '11' must be a number from 0 on, not -1"):
        settings(training='class_weight = {"11" = -1}')


def test_arrays_of_objects_are_tables():
    X = np.array([[1, "a", True], [2, "b", None], [3.5, "a", False], [None, "b", True]], object)
    found = mlp.Preprocessing.fit(X)
    assert [code.kind for code in found.codes] == ["number", "category", "yes/no"]
    np.testing.assert_array_equal(found.apply(X.tolist()), found.apply(X))
    assert found.apply(np.empty((0, 3), object)).shape == (0, len(found.names))


def test_a_structured_array_has_columns(here):
    rows = np.zeros(20, [("a", "f8"), ("b", "i4"), ("y", "U3")])
    rows["a"], rows["y"] = np.arange(20), np.where(np.arange(20) % 2, "yes", "no")
    np.save("t.npy", rows)
    parts, _ = said(read_parts, load("t.toml", ["data.file=t.npy"]))
    assert parts.train.columns == ("a", "b")
    assert parts.classes.tolist() == ["no", "yes"]


@pytest.mark.parametrize("memory", [None, "4kB"])
def test_a_column_of_true_and_false_names_its_classes_alike(here, memory):
    people(2_000).assign(y=np.arange(2_000) % 3 == 0).drop(columns="id").to_parquet("t.parquet")
    more = [] if memory is None else ["--set", f"data.memory={memory}"]
    run("train", "t.toml", "-q", "--out", "r", "--set", "data.file=t.parquet", *more)
    assert run("predict", "r", "t.parquet")[0].startswith(
        "label,probability_False,probability_True"
    )


@pytest.mark.parametrize("names", [("x_1", "x_0"), ("2021", "2019"), ("b", "a")])
def test_columns_go_by_name_whatever_the_names_are(here, names):
    r = np.random.default_rng(0)
    frame = pd.DataFrame({names[0]: r.normal(size=60), names[1]: r.normal(size=60) + 9})
    frame["y"] = np.where(frame[names[0]] > 0, "yes", "no")
    frame.to_csv("t.csv", index=False)
    frame[[names[1], names[0], "y"]].to_csv("s.csv", index=False)
    run("train", "t.toml", "-q", "--out", "r")
    assert run("predict", "r", "s.csv")[0] == run("predict", "r", "t.csv")[0]
    model = mlp.load("r")
    np.testing.assert_array_equal(
        model.predict(frame[[names[1], names[0]]]), model.predict(frame[list(names)])
    )
    swapped = mlp.read("s.csv", target="y", header=True)
    assert model.evaluate(swapped) == model.evaluate(mlp.read("t.csv", target="y", header=True))
    frame[[names[1], names[0]]].to_csv("n.csv", index=False)
    assert run("predict", "r", "n.csv")[0] == run("predict", "r", "t.csv")[0]


def test_a_category_is_one_in_every_file(here):
    """A file in which all its cells happen to be numbers, dates or True and False."""
    codes = np.array(["7", "007", "a", "TRUE", "2020-01-01"])[np.arange(60) % 5]
    frame = pd.DataFrame({"code": codes, "y": np.where(codes == "007", "p", "q")})
    frame.to_csv("t.csv", index=False)
    run("train", "t.toml", "-q", "--out", "r", "--set", "training.epochs=30")
    whole = run("predict", "r", "t.csv")[0].splitlines()[1:6]
    for code, expected in zip(codes[:5], whole, strict=True):
        Path("n.csv").write_text(f"code\n{code}\n")
        out, err = run("predict", "r", "n.csv")
        found, shares = (line.split(",") for line in (out.splitlines()[1], expected))
        assert found[0] == shares[0]
        np.testing.assert_allclose(
            np.array(found[1:], float), np.array(shares[1:], float), rtol=1e-5
        )
        assert "not there in training" not in err


@pytest.mark.parametrize("gaps", [5, 70])
@pytest.mark.parametrize("label", ["2024-05-01", "TRUE", "a"])
def test_labels_are_spelled_alike_wherever_their_gaps_are(here, gaps, label):
    rows = "".join(f"{k},{'' if k < gaps else [label, 'other'][k % 2]}\n" for k in range(120))
    Path("t.csv").write_text("a,y\n" + rows)
    parts, _ = said(read_parts, load("t.toml", ["data.drop_rows_without_target=true"]))
    assert parts.classes.tolist() == sorted([label, "other"])


def test_words_for_gaps_go_with_the_model(here):
    Path("t.csv").write_text("a,y\n" + "".join(f"{[1, 99, 3][k % 3]},{k % 2}\n" for k in range(60)))
    settings('missing = ["99"]')
    run("train", "t.toml", "-q", "--out", "r")
    model = mlp.load("r")
    assert model.preprocessing.names == ("a", "a is missing")
    frame = pd.DataFrame({"a": [99, 1, 3]})
    frame.to_csv("n.csv", index=False)
    shares = [line.split(",")[1:] for line in run("predict", "r", "n.csv")[0].splitlines()[1:]]
    np.testing.assert_allclose(model.predict(frame), np.array(shares, float), rtol=1e-6)
    floats = pd.DataFrame({"a": [99.0, 1.0, 3.0]})
    np.testing.assert_array_equal(model.predict(floats), model.predict(frame))


def test_other_files_are_weighted_too(here):
    people().to_csv("s.csv", index=False)
    settings('sample_weight = "w"')
    run("train", "t.toml", "-q", "--out", "r")
    out = run("evaluate", "r", "t.csv")[0].split()
    trained = mlp.load("r")
    data = mlp.read("t.csv", target="y", sample_weight="w", exclude=["id"])
    assert float(out[6]) == pytest.approx(trained.evaluate(data)["loss"], rel=1e-3)


def test_a_part_by_column_reads_it_as_text(here):
    frame = people().assign(split=np.where(np.arange(80) % 2, "01", "1"))
    frame.to_csv("t.csv", index=False)
    parts, _ = said(read_parts, settings('test = {column = "split", is = "01"}'))
    assert len(parts.test) == 40


def test_texts_and_numbers_of_any_dtype_are_one_value(here):
    strips = pd.DataFrame({"c": ["a ", "a", "b"] * 4, "f": [1.0, 1.5, 2.0] * 4})
    found = mlp.Preprocessing.fit(strips, {"f": "category"}, scaling="none")
    assert found.codes[0].values == ("a", "b")
    np.testing.assert_array_equal(found.apply(strips[:1])[:, 1:], found.apply(strips)[:1, 1:])
    whole = mlp.Preprocessing.fit(np.array([[-100], [100]], np.int8), scaling="range")
    assert whole.scaling.scale.tolist() == [200.0]


def test_ragged_rows_are_named_wherever_they_begin(here):
    for more in ("1,2,3\n", "1\n"):
        Path("t.csv").write_text("a,b\n" + "1,2\n" * 64 + more * 5)
        with pytest.raises(InputError, match=r"line 66 has . cells, the header has 2"):
            mlp.read_table("t.csv")
    Path("t.csv").write_text("d,e\n0001-01-01T00:00+02:00,1\n2020-01-01T00:00Z,2\n")
    assert mlp.read_table("t.csv")["d"].values.dtype == object
