"""What a preset stands for, and that a file goes before it."""

import numpy as np
import pytest

from mlp import InputError
from mlp.app.cli import app
from mlp.app.config import load

typer_testing = pytest.importorskip("typer.testing")
RUN = typer_testing.CliRunner()
SHORT = """
[model]
preset = "tabular"
[data]
file = "t.csv"
target = "y"
test = 0.2
[training]
loss = "{loss}"
"""


def short(folder, loss="cross_entropy", more=""):
    path = folder / "short.toml"
    path.write_text(SHORT.format(loss=loss) + more)
    return path


def table(folder, n=120):
    rng = np.random.default_rng(0)
    a, c = rng.normal(size=n), rng.choice(["p", "q", "r"], n)
    y = np.where(a + (c == "p") > 0, "high", "low")
    rows = [f"{x:.4f},{k},{v},{x * 2:.4f}" for x, k, v in zip(a, c, y, strict=True)]
    (folder / "t.csv").write_text("\n".join(["a,c,y,z", *rows]) + "\n")


def test_what_init_writes_is_what_the_preset_stands_for(tmp_path):
    written = tmp_path / "t.toml"
    done = RUN.invoke(app, ["init", str(written), "--preset", "tabular"])
    assert done.exit_code == 0, done.output
    ours = load(written, [f"data.file={tmp_path / 't.csv'}", "data.target=y"])
    other = load(short(tmp_path))
    assert ours.model_dump(exclude={"model"}) == other.model_dump(exclude={"model"})
    assert ours.network(3, 2).units == other.network(3, 2).units == (3, 3, 128, 128, 128, 2)


@pytest.mark.parametrize("loss", ["cross_entropy", "mean_squared_error"])
def test_it_trains_from_three_lines(tmp_path, monkeypatch, loss):
    table(tmp_path)
    monkeypatch.chdir(tmp_path)
    target = "y" if loss == "cross_entropy" else "z"
    done = RUN.invoke(
        app,
        [
            *("train", str(short(tmp_path, loss)), "-q", "--out", "r"),
            *("--set", "training.epochs=8", "--set", f"data.target={target}"),
        ],
    )
    assert done.exit_code == 0, done.output
    again = load(tmp_path / "r" / "settings.json")  # as resolved
    assert again.training.epochs == 8
    assert again.data.scale_targets == ("none" if target == "y" else "standard")


def test_the_flag_is_the_setting_and_the_file_goes_before_the_preset(tmp_path):
    more = "learning_rate = 0.5\n[[layers]]\nunits = 7\n[[layers]]\nactivation = 'softmax'\n"
    config = load(short(tmp_path, more=more), ["training.batch_size=9"])
    assert [layer.units for layer in config.layers] == [7, None]
    assert (config.training.learning_rate, config.training.batch_size) == (0.5, 9)
    assert config.training.schedule == "coslog4"
    plain = tmp_path / "plain.toml"
    plain.write_text(SHORT.format(loss="cross_entropy").replace("[model]\npreset", "#"))
    set_by = load(plain, ["model.preset=tabular", "layers.1.units=5"])
    assert set_by.layers[1].units == 5


@pytest.mark.parametrize(
    "more",
    [
        "weight_decay = 0.0",
        "weight_decay = 0",
        "dropout_schedule = 'constant'",
        "[[layers]]\nunits = 7\n[[layers]]",
        "weight_decay = 0.0\n[[layers]]\nunits = 7\n[[layers]]",
        "[[layers]]\nkind = 'scale'\n[[layers]]\nunits = 7\ndropout = 0.1\n[[layers]]",
    ],
)
def test_what_a_file_takes_away_takes_its_schedules_with_it(tmp_path, monkeypatch, more):
    table(tmp_path)
    monkeypatch.chdir(tmp_path)
    path = str(short(tmp_path, more=more + "\n"))
    done = RUN.invoke(app, ["train", path, "-q", "--out", "r", "--set", "training.epochs=2"])
    assert done.exit_code == 0, done.output


def test_patience_is_as_long_as_the_epochs_are(tmp_path):
    plain, other = short(tmp_path), {"training.epochs=200": (200, 200), "seed=1": (60, 60)}
    for override, found in other.items():
        training = load(plain, [override]).training
        assert (training.epochs, training.patience) == found
    training = load(short(tmp_path, more="epochs = 90"), []).training
    assert (training.epochs, training.patience) == (90, 90)
    assert load(short(tmp_path, more="patience = 5"), ["training.epochs=9"]).training.patience == 5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("tabular", "tabulr"), "did you mean 'tabular'"),
        (('loss = "cross_entropy"', ""), "training.loss: the preset 'tabular' needs it"),
        (('preset = "tabular"', "presets = 1"), "presets"),
        (('"tabular"', "3"), "unknown 3"),
    ],
)
def test_what_cannot_be_is_refused(tmp_path, change, message):
    path = short(tmp_path)
    path.write_text(path.read_text().replace(*change))
    with pytest.raises(InputError, match=message):
        load(path)
