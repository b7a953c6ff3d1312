"""Tables on disk with columns of any kind: streamed is resident, bit for bit."""

import warnings
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import mlp
from mlp.app.cli import app
from mlp.app.config import load
from mlp.app.prepare import read_parts
from mlp.data import stored_tables
from mlp.errors import InputError

pd = pytest.importorskip("pandas")
pytest.importorskip("pyarrow")

N = 5_000  # no multiple of a block
SETTINGS = """
[data]
file = "{file}"
target = "{target}"
{data}
[[layers]]
units = 5
activation = "tanh"
[[layers]]
activation = "{activation}"
[training]
loss = "{loss}"
epochs = 2
batch_size = 300
shuffle = "blocks"
"""


def frame(n=N):
    r = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "a": r.normal(1e3, 1, n),
            "gaps": np.where(r.random(n) < 0.1, np.nan, r.normal(size=n)),
            "whole": r.integers(0, 9, n),
            "kind": r.choice(["x", "y", None], n),
            "when": pd.to_datetime("2020-01-01") + pd.to_timedelta(r.integers(0, 9_000, n), "h"),
            "ok": r.random(n) < 0.5,
            "id": [f"n{k}" for k in range(n)],
            "w": r.uniform(1, 2, n),
            "price": r.normal(size=n),
            "label": r.choice(["no", "yes", "007"], n),
        }
    )


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    frame().to_parquet("t.parquet", row_group_size=700)
    frame().to_feather("t.feather")
    return tmp_path


def settings(data="", file="t.parquet", target="label"):
    numbers = target == "price"
    loss, activation = (
        ("mean_squared_error", "identity") if numbers else ("cross_entropy", "softmax")
    )
    text = SETTINGS.format(file=file, target=target, data=data, loss=loss, activation=activation)
    Path("t.toml").write_text(text)


def train(out, *more):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = CliRunner().invoke(app, ["train", "t.toml", "-q", "--out", out, *more])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return mlp.load(out)


@pytest.mark.parametrize("file", ["t.parquet", "t.feather"])
@pytest.mark.parametrize("target", ["label", "price"])
@pytest.mark.parametrize("more", ['sample_weight = "w"', 'exclude = ["w"]\nscale_inputs = "none"'])
def test_streamed_is_resident_bit_for_bit(here, file, target, more):
    aside = "label" if target == "price" else "price"
    settings(more + f"\ncolumns = {{{aside} = 'leave out'}}", file, target)
    resident = train("resident")
    streamed = train("streamed", "--set", "data.memory=200kB")
    assert streamed.preprocessing.to_json() == resident.preprocessing.to_json()
    np.testing.assert_array_equal(streamed.w, resident.w)
    run = CliRunner()
    for command in ("predict", "evaluate"):
        found = [run.invoke(app, [command, name, file]).stdout for name in ("streamed", "resident")]
        assert found[0]
        if command == "predict":
            assert found[0] == found[1]
        else:
            assert found[0].split()[:6] == found[1].split()[:6]


def test_no_row_is_in_two_parts(here):
    settings('inputs = ["a", "kind"]\nmemory = "50kB"\ntest = 0.2\nvalidation = "last 10%"')
    parts = read_parts(load("t.toml"))
    rows = {name: part.X[slice(0, len(part))][:, 0] for name, part in parts.by_name().items()}
    assert abs(len(rows["test"]) - 1000) <= 256
    last = len(rows["validation"])
    np.testing.assert_array_equal(rows["validation"], frame()["a"].to_numpy()[-last:])
    everything = np.concatenate(list(rows.values()))
    np.testing.assert_array_equal(np.sort(everything), np.sort(frame()["a"]))


def test_columns_are_understood_by_a_sample_of_the_rows_to_train_on(here, monkeypatch):
    monkeypatch.setattr(stored_tables, "SAMPLE", 1024)
    found = frame()
    found["rare"] = np.where(np.arange(N) == 4_000, "once", "often")
    found.to_parquet("t.parquet")
    settings('inputs = ["rare", "gaps"]\nmemory = "50kB"')
    for seed in range(9):  # until the block of the one row is not drawn
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            parts = read_parts(load("t.toml", [f"seed={seed}"]))
        if parts.preprocessing.codes[0].values == ("often",):
            break
    assert any("'rare' were not there in training (as 'once')" in str(w.message) for w in caught)
    assert parts.train.X[slice(4_000, 4_001)][0, 0] == 0.0
    assert parts.train.X[slice(0, 1)][0, 0] == 1.0


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ('groups = "kind"', "data.groups takes all rows in memory"),
        ('test = {column = "kind", is = "x"}', "data.test takes all rows in memory"),
        ('scale_inputs = "quantile"', "'quantile' needs all values of a column at once"),
        ("drop_rows_without_target = true", "drop_rows_without_target takes all rows"),
        ('inputs = ["b"]', "no column 'b'"),
        ('missing = "error"', r"'gaps' \(\d+\)"),
        ('memory = "1 cow"', "memory"),
    ],
)
def test_what_cannot_be_done_on_disk(here, data, message):
    settings(data if "memory" in data else f'{data}\nmemory = "50kB"')

    def parts():
        return read_parts(load("t.toml"))

    with pytest.raises(InputError, match=message):
        parts()


def test_other_formats_are_answered(here):
    frame(20).to_csv("t.csv", index=False)
    settings('memory = "1kB"', "t.csv")
    with pytest.raises(InputError, match=r"t\.csv: rows are read in blocks .*convert it"):
        read_parts(load("t.toml"))


@pytest.mark.parametrize("scaling", ["range", "standard"])
def test_numbers_and_codes_are_scaled_as_in_memory(here, scaling):
    settings(f'inputs = ["a", "kind", "gaps"]\nscale_inputs = "{scaling}"')
    resident = train("resident")
    streamed = train("streamed", "--set", "data.memory=50kB")
    assert streamed.preprocessing.to_json() == resident.preprocessing.to_json()
    np.testing.assert_array_equal(streamed.w, resident.w)


def test_targets_on_disk_are_scaled(here):
    settings('inputs = ["a"]\nscale_targets = "standard"', target="price")
    resident = train("resident")
    streamed = train("streamed", "--set", "data.memory=20kB")
    np.testing.assert_array_equal(streamed.target_scaling.shift, resident.target_scaling.shift)
    np.testing.assert_array_equal(streamed.w, resident.w)
    settings('inputs = ["a"]\nscale_targets = "quantile"\nmemory = "20kB"', target="price")
    run = CliRunner().invoke(app, ["train", "t.toml", "-q", "--out", "q"])
    assert run.exit_code == 2
    assert "'quantile' needs all targets at once" in run.stderr
    settings('missing = ["9"]\nmemory = "20kB"')
    with pytest.raises(InputError, match=r"data\.missing, as a list, takes all rows"):
        read_parts(load("t.toml"))
