"""What nobody would write is used or answered by one message: some of `python -m tests.fuzz`."""

import io
import os
import subprocess
import sys

import numpy as np
import pytest
from typer.testing import CliRunner

import mlp
from mlp import Dense, InputError, Model, Network, train
from mlp.app.cli import app
from mlp.app.progress import progress
from tests import fuzz

X = np.random.default_rng(0).normal(size=(12, 2))
T = X[:, :1]


def test_a_little_of_everything():
    assert fuzz.run(seconds=60, seed=0, only=sorted(fuzz.ENTRIES), keep=None, most=150) == []


@pytest.mark.parametrize("error", [KeyError("x"), fuzz.Hang("over"), RecursionError()], ids=repr)
def test_what_breaks_the_law_is_found_with_its_seed(error, tmp_path, monkeypatch):
    def fail(bench):
        bench.write("culprit", "of the find")
        raise error

    monkeypatch.setitem(fuzz.ENTRIES, "api", fail)
    (found,) = fuzz.run(seconds=60, seed=5, only=["api"], keep=tmp_path, most=1)
    assert found.startswith("api, seed 5")
    assert type(error).__name__ in (tmp_path / "api-5" / "find.txt").read_text()
    assert (tmp_path / "api-5" / "culprit").read_text() == "of the find"


# ------------------------------------------------------------------------------ the command line

SETTINGS = """
[data]
file = "d.csv"
target = "y"
[[layers]]
units = 4
activation = "tanh"
[[layers]]
[training]
loss = "mean_squared_error"
epochs = 1
"""
DEEP, DIGITS = 5000, "9" * 5000
ODD = {
    "a list nested deep": lambda s: f"x = {'[' * DEEP}{']' * DEEP}\n{s}",
    "a table nested deep": lambda s: f"x = {'{a=' * DEEP}1{'}' * DEEP}\n{s}",
    "digits": lambda s: s.replace("epochs = 1", f"epochs = {DIGITS}"),
    "epochs": lambda s: s.replace("epochs = 1", f"epochs = {10**30}"),
    "units": lambda s: s.replace("units = 4", "units = 1000000000000"),
    "more units": lambda s: s.replace("units = 4", f"units = {10**30}"),
    "threads": lambda s: f"threads = {2**31}\n{s}",
    "more threads": lambda s: f"threads = {2**64}\n{s}",
    "activation": lambda s: s.replace('"tanh"', "{name = {}}"),
    "optimizer": lambda s: s + "optimizer = {name = {}}\n",
    "kind": lambda s: s.replace("units = 4", "units = 4\nkind = {}"),
    "kinds": lambda s: s.replace("units = 4", "units = 4\nkind = []"),
    "user": lambda s: s.replace("d.csv", "~nosuchuser/d.csv"),
    "NUL": lambda s: s.replace("d.csv", "d\\u0000.csv"),
    "a long name": lambda s: s.replace("d.csv", "d" * 5000),
    "weights": lambda s: s + f"class_weight = {{x = {10**400}}}\n",
    "memory": lambda s: s.replace("[[layers]]", f'memory = "{"9" * 400} GB"\n[[layers]]', 1),
    "a rate": lambda s: s + f"learning_rate = {10**400}\n",
}


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = [f"{a:.3f},{b:.3f},{a - b:.3f}" for a, b in X]
    (tmp_path / "d.csv").write_text("\n".join(["a,b,y", *rows]) + "\n")
    (tmp_path / "s.toml").write_text(SETTINGS)
    return tmp_path


def refused(*arguments):
    """The one message of a command."""
    result = CliRunner().invoke(app, arguments)
    assert (result.exit_code, type(result.exception)) == (2, SystemExit)
    assert result.stderr.startswith("mlp: error: ")
    return result.stderr


@pytest.mark.parametrize("kind", ODD)
def test_settings_that_cannot_be(here, kind):
    (here / "s.toml").write_text(ODD[kind](SETTINGS))
    refused("train", "s.toml", "-q")


@pytest.mark.parametrize(
    "text", ['{"data":' * DEEP + "}" * DEEP, "[" * 100_000, DIGITS, f'{{"a": {DIGITS}}}']
)
def test_json_that_cannot_be(here, text):
    (here / "s.json").write_text(text)
    assert "s.json" in refused("train", "s.json", "-q")


@pytest.mark.parametrize(
    "text",
    [f"training.epochs={DIGITS}", f"layers.0={'[' * DEEP}", f"x={'[' * DEEP}{']' * DEEP}"],
    ids=["digits", "open", "deep"],
)
def test_set_that_cannot_be(here, text):
    refused("train", "s.toml", "-q", "--set", text)


@pytest.mark.parametrize("number", [2**20 + 1, 2**31, 2**64])
def test_threads_that_cannot_be(here, number):
    assert "at most 2^20" in refused("train", "s.toml", "-q", "--threads", str(number))


def test_a_pipe_is_no_settings_and_no_table(here):
    os.mkfifo("pipe.toml")
    os.mkfifo("pipe.csv")
    for arguments in (["train", "pipe.toml"], ["inspect", "pipe.csv"], ["inspect", "pipe.toml"]):
        assert "is a pipe or a device" in refused(*arguments)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="there is no /dev/full here")
@pytest.mark.parametrize("arguments", ["predict run d.csv", "inspect d.csv", "--help", "backends"])
def test_an_output_that_is_full(here, arguments):
    if "run" in arguments:
        assert CliRunner().invoke(app, ["train", "s.toml", "-q", "--out", "run"]).exit_code == 0
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "mlp", *arguments.split()],
            stdout=full, stderr=subprocess.PIPE, text=True, check=False, timeout=60,
        )  # fmt: skip
    message = "mlp: error: the output: No space left on device\n"
    assert (done.returncode, done.stderr) == (2, message)


class LostTerminal(io.StringIO):
    def isatty(self):
        return True

    def write(self, text=""):
        raise OSError(5, "Input/output error")

    flush = write


@pytest.mark.parametrize("terminal", [True, False])
def test_a_lost_terminal_does_not_end_a_run(terminal):
    stream = LostTerminal()
    stream.isatty = lambda: terminal
    with progress(stream=stream) as callbacks:
        model = Model(Network(2, [Dense(1)]), "mean_squared_error")
        result = train(model, X, T, epochs=3, callbacks=callbacks)
    assert result.state.epoch == 3


# ------------------------------------------------------------------------------ the Python API


class Own:
    """An activation and a loss of these formulas."""

    def __init__(self, f, df=None):
        self.f = self.cost = f
        self.df = self.derivative = df or (lambda xp, v, z, *a: v)


FORMULAS = {
    "no function": Own(3),
    "too few arguments": Own(lambda xp: 1.0),
    "nothing": Own(lambda *given: None),
    "text": Own(lambda *given: "x"),
    "another shape": Own(lambda xp, *given: given[0][:1]),
    "an error": Own(lambda *given: 1 / 0),
    "a derivative of nothing": Own(lambda xp, z, *t: z, lambda *given: None),
    "a derivative of rows": Own(lambda xp, z, *t: z, lambda xp, v, *a: xp.sum(v, axis=1)),
    "a derivative of too few": Own(lambda xp, z, *t: z, lambda xp: 1.0),
}


@pytest.mark.parametrize("kind", FORMULAS)
def test_formulas_of_ones_own_are_tried_at_the_door(kind):
    with pytest.raises(InputError, match=r"(f|df) of .*Own"):
        Network(2, [Dense(3, FORMULAS[kind]), Dense(1)])
    with pytest.raises(InputError, match=r"(cost|derivative) of .*Own"):
        Model(Network(2, [Dense(3)]), FORMULAS[kind])


def model():
    return Model(Network(2, [Dense(3, "tanh"), Dense(1)]), "mean_squared_error")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Network(layers=3, inputs=2), "layers must be a list of them, as [Dense(3),"),
        (lambda: Network(2, [4, 3, 2]), "layer 1 must be a Dense or another Layer, not 4: write"),
        (lambda: Network(2, "relu"), "layers must be a list of them"),
        (lambda: Model(3, "mean_squared_error"), "Model: network must be a Network, not 3"),
        (lambda: Model(model().network, "mean_squared_error", w="x"), "w must be an array of"),
        (lambda: mlp.save_model(3, "m"), "save_model: model must be a Model, not 3"),
        (lambda: mlp.save_state(3, "m", None), "save_state: state must be a State, not 3"),
        (lambda: mlp.write_table(3, "m.csv"), "write_table: table must be a Table, not 3"),
        (lambda: mlp.gradient_check(3, X, T), "gradient_check: model must be a Model, not 3"),
        (lambda: train(model(), X, T, state=3), "the state to go on from must be a State, not 3"),
        (lambda: train(model(), X, T, schedule=3), "a schedule must be a function, not 3"),
        (lambda: train(model(), X, T, schedule=lambda s: 1.0), "is called with (step, steps_per_"),
        (lambda: train(model(), X, T, schedule=lambda s, n: None), "gives None, which is no num"),
        (lambda: train(model(), X, T, callbacks=[lambda: 1]), "a callback is called with (run):"),
        (lambda: train(model(), X, T, callbacks=[3]), "a callback is a function or has one of"),
        (lambda: train(model(), X, T, learning_rate=10**400), "learning_rate must be a number"),
        (lambda: train(model(), X, T, batch_size=X), "batch_size must be a whole number"),
        (lambda: train(model(), X, T, restore_best=3), "restore_best must be True or False"),
        (lambda: Model(Network(2, [Dense(1, initializer=lambda: 1)]), "poisson"), "an initializer"),
        (
            lambda: Model(Network(2, [Dense(1, initializer=lambda *a: X)]), "poisson"),
            "the initializer of W[0, 1] gives shape (12, 2), expected (2, 1)",
        ),
        (lambda: mlp.Scaling(np.ones(2), np.zeros(2)), "scale must be finite and not 0, not 0.0"),
        (lambda: mlp.Scaling.standard([1, 2]), "a scaling needs rows and columns, (n, d)"),
        (lambda: mlp.Preprocessing.fit(X, "x"), "columns must be a Mapping, not 'x'"),
        (lambda: model().network.pack(3), "pack: W must be a Mapping, not 3"),
        (lambda: model().predict([[1, 2], [3]]), "X is no array: its rows differ in length"),
        (lambda: model().classify(fuzz.nested(100)), "X is no array: its rows differ in length"),
        (lambda: model().evaluate(X, [[1], [2, 3]]), "t is no array: its rows differ in length"),
        (lambda: mlp.read(3), "a path is text or a pathlib.Path, not 3"),
        (lambda: mlp.open_rows(None), "a path is text or a pathlib.Path, not None"),
    ],
)
def test_arguments_of_the_wrong_kind_are_named(call, message):
    with pytest.raises(InputError) as caught:
        call()
    assert message in str(caught.value)


@pytest.mark.parametrize("name", ["input_scaling", "target_scaling", "columns"])
def test_what_is_beside_the_weights_is_as_wide_as_the_network(name):
    wide = ("a", "b", "c") if name == "columns" else mlp.Scaling(np.zeros(3), np.ones(3))
    with pytest.raises(InputError, match=name.replace("_", ".")):
        Model(model().network, "mean_squared_error", **{name: wide})
