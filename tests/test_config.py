"""The TOML file: what it means, and how each mistake in it is answered."""

import json
import re
from pathlib import Path

import pytest

import mlp
from mlp import Model, Network
from mlp.app.config import Config, Data, DenseLayer, ModelSection, Training, load
from mlp.errors import InputError
from mlp.layers import (
    LAYERS,
    Activation,
    Add,
    BatchNorm,
    Dense,
    Dropout,
    Embedding,
    Ensemble,
    Gated,
    GaussianNoise,
    LayerNorm,
    Maxout,
    Periodic,
    PiecewiseLinear,
    RMSNorm,
    Scale,
)
from mlp.training.settings import Settings

GOOD = """
[data]
file = "plants.csv"
target = "kind"

[[layers]]
units = 4
activation = "tanh"

[[layers]]
activation = "softmax"

[training]
loss = "cross_entropy"
epochs = 7
"""


@pytest.fixture
def write(tmp_path):
    """Writes a file of settings, the good one with some text replaced."""

    def write(*replacements, text=GOOD, name="plants.toml"):
        for old, new in replacements:
            assert old in text
            text = text.replace(old, new, 1)
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return path

    return write


def refusal(path, overrides=()):
    with pytest.raises(InputError) as caught:
        load(path, overrides)
    message = str(caught.value)
    assert message.startswith((str(path), "--set", "no file", "cannot read"))
    return message.removeprefix(f"{path}: ")


# --- what is read ----------------------------------------------------------------------------


def test_what_is_left_out_is_what_the_library_has_as_usual(write):
    config = load(write(("epochs = 7", "")))
    assert config.settings() == Settings()
    assert config.network(3, outputs=5).layers == (Dense(4, "tanh"), Dense(5, "softmax"))
    assert (config.seed, config.backend, config.precision) == (0, None, "float32")
    assert not config.validates


def test_every_setting_of_the_library_can_be_written():
    assert set(DenseLayer.model_fields) - {"kind"} == set(Dense.__dataclass_fields__)
    assert set(Training.model_fields) - {
        *("loss", "reduction", "class_weight", "checkpoint", "keep")
    } == (set(Settings.__dataclass_fields__) - {"seed"})


def test_everything_given_arrives(write):
    path = write(
        ("[data]", "seed = 3\nprecision = 'float64'\nbackend = 'torch'\n[data]\nvalidation = 0.25"),
        (
            "units = 4",
            "units = 4\nsources = [0]\nbias = false\ndropout = 0.5\nl1 = 1\n"
            "initializer = {name = 'normal', deviation = 0.1}",
        ),
        (
            "epochs = 7",
            "reduction = 'sum'\nbatch_size = 'full'\noptimizer = {name = 'adam', beta_1 = 0.8}\n"
            "learning_rate = 1\nschedule = 'cosine'\nwarmup = 2\npatience = 3\n"
            "watch = 'validation_loss'",
        ),
    )
    config = load(path)
    settings = config.settings()
    assert (settings.seed, settings.batch_size, settings.rate()) == (3, None, 1.0)
    assert settings.make_optimizer().beta_1 == 0.8
    assert config.layers[0].layer(9) == Dense(
        4, "tanh", (0,), False, 0.5, 1.0, 0.0, {"name": "normal", "deviation": 0.1}
    )
    assert config.validates


def test_paths_are_relative_to_the_file_and_those_of_set_to_here(write, tmp_path, monkeypatch):
    path = write()
    (tmp_path / "below").mkdir()
    monkeypatch.chdir(tmp_path / "below")
    assert Path(load("../plants.toml").data.file).resolve() == tmp_path / "plants.csv"
    config = load(path, ["data.file=my.csv", "data.test_file=t.csv"])
    assert config.data.file == str(tmp_path / "below" / "my.csv")
    assert config.data.test_file == str(tmp_path / "below" / "t.csv")


def test_json_of_the_same_layout_is_the_same(write):
    config = load(write())
    values = config.model_dump(exclude_none=True)
    again = load(write(text=json.dumps(values), name="settings.json"))
    assert again.model_dump() == config.model_dump()


def test_a_byte_order_mark_and_windows_line_ends_do_no_harm(tmp_path):
    path = tmp_path / "plants.toml"
    path.write_bytes(b"\xef\xbb\xbf" + GOOD.replace("\n", "\r\n").encode())
    assert load(path).training.epochs == 7


def test_the_starter_file_is_valid():
    path = Path(load.__code__.co_filename).with_name("starter.toml")
    config = load(path)
    assert config.network(5, 3).units == (5, 64, 3)
    known = {
        *Config.model_fields,
        *ModelSection.model_fields,
        *Data.model_fields,
        *DenseLayer.model_fields,
        *Training.model_fields,
    }
    for line in path.read_text(encoding="utf-8").splitlines():
        if "=" in line and not line.startswith("#   ") and not line.startswith("# or"):
            assert line.lstrip("# ").split(" =")[0] in known, line
            assert "#" in line[2:] or "seed" in line, f"{line}: say what it is for"


def test_the_starter_file_names_every_setting():
    text = Path(load.__code__.co_filename).with_name("starter.toml").read_text(encoding="utf-8")
    for section in (Config, ModelSection, Data, DenseLayer, Training):
        for name in section.model_fields:
            assert re.search(rf"\b{name}\b", text), name


@pytest.mark.parametrize("name", ["digits", "mnist"])
def test_the_examples_are_valid(name):
    path = Path(__file__).parent.parent / "examples" / f"{name}.toml"
    assert load(path).network(64, 10).outputs == 10


# --- --set -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("override", "key", "expected"),
    [
        ("training.epochs=5", "training.epochs", 5),
        ("training.learning_rate=.5", "training.learning_rate", 0.5),
        ("training.learning_rate=1e-3", "training.learning_rate", 0.001),
        ("training.batch_size=full", "training.batch_size", "full"),
        ("training.shuffle=false", "training.shuffle", False),
        ("training.optimizer=sgd", "training.optimizer", "sgd"),
        (
            "training.optimizer={name='adam', beta_1=0.5}",
            "training.optimizer",
            {"name": "adam", "beta_1": 0.5},
        ),
        ("layers.0.units=32", "layers.0.units", 32),
        (
            "layers.0.activation={name='elu', alpha=2.0}",
            "layers.0.activation",
            {"name": "elu", "alpha": 2.0},
        ),
        ("data.target=a = b", "data.target", ["a = b"]),
        ('data.inputs=["a", "b"]', "data.inputs", ["a", "b"]),
        ("seed=9", "seed", 9),
    ],
)
def test_set_changes_one_setting(write, override, key, expected):
    found = load(write(), [override])
    for step in key.split("."):
        found = found[int(step)] if step.isdecimal() else getattr(found, step)
    assert found == expected


def test_set_reaches_into_a_table_and_into_a_name_that_stands_for_one(write):
    path = write(("epochs = 7", "optimizer = 'adam'"))
    config = load(path, ["training.optimizer.beta_1=0.5", "layers.0.activation=elu"])
    assert config.training.optimizer == {"name": "adam", "beta_1": 0.5}
    config = load(path, ["layers.0.activation=elu", "layers.0.activation.alpha=2"])
    assert config.layers[0].activation == {"name": "elu", "alpha": 2}


@pytest.mark.parametrize(
    ("override", "parts"),
    [
        ("training.epoch=5", ["training.epoch (given by --set)", "did you mean 'epochs'?"]),
        ("trainin.epochs=5", ["trainin", "did you mean 'training'?"]),
        ("training.epochs=5.5", ["training.epochs (given by --set)", "a whole number", "5.5"]),
        ("training.epochs=five", ["a whole number", "'five'"]),
        ("layers.7.units=5", ["there is no layers.7", "0 to 1"]),
        ("layers.first.units=5", ["there is no layers.first"]),
        ("training.epochs.most=5", ["training.epochs is 7", "no further keys"]),
        ("training.epochs", ["expected key=value"]),
        ("=5", ["expected key=value"]),
        ("data=5", ["data (given by --set)", "a table of settings", "5"]),
    ],
)
def test_a_wrong_set_is_answered(write, override, parts):
    message = refusal(write(), [override])
    for part in parts:
        assert part in message


# --- mistakes in the file --------------------------------------------------------------------

SOFTMAX, LOSS, EPOCHS, UNITS = '"softmax"', '"cross_entropy"', "epochs = 7", "units = 4"
TANH, TARGET = '"tanh"', 'target = "kind"'


@pytest.mark.parametrize(
    ("old", "new", "parts"),
    [
        # unknown keys and names, with the nearest one
        (EPOCHS, "epoch = 7", ["training.epoch: unknown key", "did you mean 'epochs'?"]),
        ("[data]", "[dat]", ["dat: unknown key; did you mean 'data'?", "data: missing"]),
        (UNITS, "unit = 4", ["layers.0.unit: unknown key", "did you mean 'units'?"]),
        ("[data]", "epochs = 3\n[data]", ["epochs: unknown key; it belongs under [training]"]),
        (EPOCHS, "units = 3", ["training.units: unknown key; it belongs under [[layers]]"]),
        (TANH, '"tanhh"', ["layers.0.activation: unknown activation 'tanhh'", "'tanh'?"]),
        (LOSS, '"cross_entropi"', ["training.loss: unknown loss", "'cross_entropy'?"]),
        (EPOCHS, "optimizer = 'adan'", ["training.optimizer: unknown optimizer", "'adam'?"]),
        (EPOCHS, "schedule = 'cosinus'", ["training.schedule: unknown schedule", "'cosine'?"]),
        (UNITS, UNITS + "\ninitializer = 'he'", ["layers.0.initializer: unknown initializer"]),
        (TANH, "{name = 'elu', alfa = 1}", ["layers.0.activation", "'alfa'", "'alpha'?"]),
        (TARGET, "scale_inputs = 'standart'", ["data.scale_inputs", "'standard'?"]),
        (
            "[data]",
            "precision = 'float16'\n[data]",
            ["precision: expected 'float32', 'tf32', 'float64', 'mixed' or 'mixed_bfloat16'"],
        ),
        # wrong types
        (EPOCHS, "epochs = '7'", ["training.epochs: expected a whole number, not '7'"]),
        (EPOCHS, "epochs = 7.5", ["training.epochs: expected a whole number, not 7.5"]),
        (EPOCHS, "epochs = true", ["training.epochs: expected a whole number, not True"]),
        (EPOCHS, "warmup = 'a'", ["training.warmup: expected a number, not 'a'"]),
        (EPOCHS, "learning_rate = nan", ["training.learning_rate: expected a finite number"]),
        (
            EPOCHS,
            "shuffle = 1",
            ["training.shuffle: expected true, false, 'blocks' or"],
        ),
        (EPOCHS, "batch_size = 'all'", ["training.batch_size", "or 'full', not 'all'"]),
        (TARGET, "target = 3", ["data.target: expected a name or a list of names, not 3"]),
        (TARGET, "target = []", ["data.target: expected a name or a list of names"]),
        ('"plants.csv"', "3", ["data.file: expected text, not 3"]),
        ("[data]", "backend = 3\n[data]", ["backend: expected text, not 3"]),
        (TANH, "5", ["layers.0.activation: expected a name or a table with a name, not 5"]),
        (TANH, "{name = 'elu', alpha = 'x'}", ["alpha: expected a number, not 'x'"]),
        (UNITS, UNITS + "\nsources = ['a']", ["layers.0.sources.0: expected a whole number"]),
        ("[training]", "[[training]]", ["training: expected a table of settings"]),
        # bad values
        (EPOCHS, "epochs = -1", ["training.epochs: must be a whole number from 0 on, not -1"]),
        (EPOCHS, "batch_size = 0", ["training.batch_size", "from 1 on", "not 0"]),
        (EPOCHS, "learning_rate = 0", ["training.learning_rate: must be above 0, not 0"]),
        (EPOCHS, "watch = 'los'", ["training.watch", "did you mean 'loss'?"]),
        (EPOCHS, "watch = 'validation_loss'", ["training.watch", "data.validation"]),
        (EPOCHS, "schedule = {name = 'step', every = 0}", ["training.schedule", "every"]),
        (EPOCHS, "optimizer = 'rprop'\nwarmup = 1", ["training: ", "'rprop'", "remove"]),
        (UNITS, "units = 0", ["layers.0.units: must be a whole number from 1 on, not 0"]),
        (UNITS, "", ["layers.0.units: missing; only the last layer's"]),
        (UNITS, UNITS + "\ndropout = 1.0", ["layers.0.dropout: must be in [0, 1), not 1.0"]),
        (UNITS, UNITS + "\nl2 = -1", ["layers.0.l2: must be 0 or above, not -1"]),
        (UNITS, UNITS + "\nsources = [3]", ["layers: layer 1: source 3"]),
        (SOFTMAX, SOFTMAX + "\ndropout = 0.5", ["layers: the last layer is the output"]),
        (SOFTMAX, '"sigmoid"', ["training.loss: ", "'softmax'", "binary_cross_entropy"]),
        (TARGET, "test = 1.5", ["data.test: expected a number below 1, not 1.5"]),
        (TARGET, "test = 0.6\nvalidation = 0.5", ["data: ", "hold out 1.1"]),
        (TARGET, "test = 0.6\ntest_file = 'a.csv'", ["data: ", "test_file, not both"]),
        (TARGET, "test_targets_file = 'a'", ["data: test_targets_file needs test_file"]),
        (TARGET, "targets_file = 'a'\ntest_file = 'b'", ["data: give test_targets_file too"]),
        ("[data]", "seed = -1\n[data]", ["seed: expected a number from 0 on, not -1"]),
        # what is missing
        ('file = "plants.csv"', "", ["data.file: missing"]),
        ('loss = "cross_entropy"', "", ["training.loss: missing"]),
    ],
)
def test_a_mistake_is_answered_with_key_expectation_and_value(write, old, new, parts):
    message = refusal(write((old, new)))
    for part in parts:
        assert part in message
    assert message.count("\n") == (0 if len(parts) == 1 or "missing" not in parts[-1] else 2)


def test_all_mistakes_of_a_file_come_at_once(write):
    path = write((EPOCHS, "epochs = -1\nlr = 3"), (TANH, '"tanhh"'))
    message = refusal(path)
    assert message.startswith(f"{path} has 3 mistakes:\n  layers.0.activation: ")
    assert "\n  training.epochs: " in message
    assert "\n  training.lr: unknown key; did you mean 'learning_rate'?" in message


def test_no_layers(write):
    text = '[data]\nfile = "a.csv"\n[training]\nloss = "cross_entropy"\n'
    assert "layers: missing" in refusal(write(text=text))
    assert "layers: at least one" in refusal(write(text="layers = []\n" + text))
    assert "[[layers]]" in refusal(write(text=text + "[layers]\nunits = 1\n"))


@pytest.mark.parametrize(
    ("name", "content", "parts"),
    [
        ("a.toml", b"seed = \n", ["is not TOML", "line 1"]),
        ("a.toml", b"\xff\xfe", ["is not UTF-8 text"]),
        ("a.json", b"{", ["is not JSON", "line 1"]),
        ("a.json", b"[]", ["holds no settings"]),
    ],
)
def test_a_file_that_cannot_be_understood(tmp_path, name, content, parts):
    (tmp_path / name).write_bytes(content)
    message = refusal(tmp_path / name)
    for part in parts:
        assert part in message


def test_a_file_that_is_not_there(tmp_path):
    assert "mlp init" in refusal(tmp_path / "none.toml")
    assert "cannot read" in refusal(tmp_path)


# ------------------------------------------------------------------------------ layers by kind


# A table of each kind, and what it is in Python.
WRITTEN = {
    "dense": ("units = 3\ndropout = 0.5", Dense(3, dropout=0.5)),
    "activation": (
        "activation = {name = 'elu', alpha = 0.5}",
        Activation({"name": "elu", "alpha": 0.5}),
    ),
    "add": ("sources = [0, 1]", Add((0, 1))),
    "batch_norm": ("momentum = 0.99", BatchNorm(0.99)),
    "dropout": ("rate = 0.25", Dropout(0.25)),
    "embedding": (
        "size = 3\ncolumns = [0]\nvalues = [5]\nsources = [0]",
        Embedding(3, (0,), (5,)),
    ),
    "ensemble": (
        "units = 3\ncount = 4\nactivation = 'relu'\nadapters = false",
        Ensemble(3, 4, "relu", False),
    ),
    "gated": (
        "units = 3\ngate = {name = 'elu', alpha = 0.5}",
        Gated(3, {"name": "elu", "alpha": 0.5}),
    ),
    "periodic": (
        "size = 4\nfrequencies = 8\ndeviation = 0.5\ncolumns = [0, 1]",
        Periodic(4, 8, 0.5, (0, 1)),
    ),
    "piecewise_linear": (
        "size = 2\nbins = 9\ncolumns = [2, 0]\nedges = [[0, 0.1, 2.5], [0.5]]",
        PiecewiseLinear(2, 9, (2, 0), ((0.0, 0.1, 2.5), (0.5,))),
    ),
    "maxout": (
        "units = 3\npieces = 4\ninitializer = 'he_normal'",
        Maxout(3, 4, initializer="he_normal"),
    ),
    "gaussian_noise": ("deviation = 0.5", GaussianNoise(0.5)),
    "layer_norm": ("epsilon = 1e-3", LayerNorm(1e-3)),
    "rms_norm": ("", RMSNorm()),
    "scale": ("sources = [1]", Scale((1,))),
}


@pytest.mark.parametrize("kind", LAYERS)
def test_layers_of_every_kind(write, kind):
    """A layer that is listed in the library can be written with its own settings."""
    lines, expected = WRITTEN[kind]
    of_input = kind == "embedding"
    first = "" if of_input else "[[layers]]\nkind = 'layer_norm'\n\n"
    path = write(("[[layers]]", f"{first}[[layers]]\nkind = {kind!r}\n{lines}\n\n[[layers]]"))
    config = load(path)
    assert config.layers[not of_input].layer(9) == expected
    again = load(write(text=json.dumps(config.model_dump(exclude_none=True)), name="again.json"))
    assert again.layers == config.layers
    net = Network(3, [*([] if of_input else [LayerNorm()]), expected, Dense(1)])
    saved = path.with_name("a.safetensors")
    Model(net, "mean_squared_error").save(saved)
    assert mlp.load(saved).network.layers == net.layers


@pytest.mark.parametrize("last", ["activation", "batch_norm", "layer_norm", "rms_norm", "scale"])
def test_the_output_s_units_are_those_of_the_last_layer_that_has_any(write, last):
    more = "\nactivation = 'softmax'" if last == "activation" else ""
    path = write(('activation = "softmax"', f"[[layers]]\nkind = {last!r}{more}"))
    net = load(path).network(3, outputs=5)
    assert net.units == (3, 4, 5, 5)


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ("kind = 'dropuot'", "kind: unknown layer 'dropuot'; did you mean 'dropout'?"),
        ("kind = 'dropout'\nrate = 1.5", "rate must be in [0, 1), not 1.5"),
        ("kind = 'dropout'\nunits = 4", "layers.0.units: unknown key; known: kind, rate, sources"),
        ("kind = 'dropout'\nrat = 0.1", "layers.0.rat: unknown key; did you mean 'rate'?"),
        ("kind = 'dropout'\nrate = 'much'", "rate: expected a number, not 'much'"),
    ],
)
def test_layers_that_are_refused(write, lines, said):
    with pytest.raises(InputError, match=re.escape(said)):
        load(write(("[[layers]]", f"[[layers]]\n{lines}\n\n[[layers]]")))


def test_old_words_are_answered_with_the_new_ones(write):
    """And a run's own settings, written before, are read as they were meant."""
    path = write(("epochs = 7", "epochs = 7\ncuda_graphs = true"))
    with pytest.raises(InputError, match=r"training\.cuda_graphs: .*it is now record_steps"):
        load(path)
    with pytest.raises(InputError, match="cuda_graphs is now record_steps"):
        Settings.check_names(["cuda_graphs"])
    values = load(write()).model_dump(exclude_none=True)
    values["training"]["cuda_graphs"] = values["training"].pop("record_steps") or True
    assert load(write(text=json.dumps(values), name="settings.json")).training.record_steps


def test_gelu_in_settings_of_before_is_its_tanh_form(write):
    """In those of a run; in JSON that someone wrote it has to be said which is meant."""
    values = load(write()).model_dump(exclude_none=True)
    for given, now in (("gelu", "gelu_tanh"), ({"name": "gelu"}, {"name": "gelu_tanh"})):
        values["layers"][0]["activation"] = given
        text = json.dumps(values)
        assert load(write(text=text, name="settings.json")).layers[0].activation == now
        with pytest.raises(InputError, match=r'layers\.0\.activation: .*"version": 2 at the top'):
            load(write(text=text, name="mine.json"))
        text = json.dumps({"version": 2} | values)
        for name in ("settings.json", "mine.json"):
            assert load(write(text=text, name=name)).layers[0].activation == given


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("rate_factors = 3", "training.rate_factors: expected a table, not 3"),
        (
            "rate_factors = {bais = 1.0}",
            "training.rate_factors: no role 'bais'; did you mean 'bias'?",
        ),
        ("rate_factors = {bias = -1.0}", "bias must be 0 or above, not -1.0"),
        ("rate_factors = {bias = 0.5}\noptimizer = 'rprop'", "rate_factors can only freeze, bias"),
    ],
)
def test_rate_factors_that_are_refused(write, line, said):
    with pytest.raises(InputError, match=re.escape(said)):
        load(write(("epochs = 7", f"epochs = 7\n{line}")))


def test_rate_factors_arrive(write):
    config = load(write(("epochs = 7", "rate_factors = {bias = 0, weight = 2.5}")))
    assert config.settings().rate_factors == {"bias": 0.0, "weight": 2.5}


# ------------------------------------------------------------------------------ usual slips


WINDOWS = [r"C:\Users\me\t.csv", r"data\new\t.csv", r"C:\data" + "\\"]


@pytest.mark.parametrize("quoted", WINDOWS)
@pytest.mark.parametrize("key", ["file", "targets_file", "validation_file", "test_file"])
def test_a_path_with_backslashes_in_double_quotes(write, key, quoted):
    """Whether TOML refuses the escapes or reads control characters; in single quotes it is read."""
    path = write(('file = "plants.csv"', f'{key} = "{quoted}"'))
    assert "in double quotes a backslash begins an escape" in refusal(path)
    assert "single quotes, 'C:" in refusal(path)
    if key == "file":
        single = load(write(('file = "plants.csv"', f"file = '{quoted}'")))
        assert single.data.file.endswith(quoted)
        assert load(write(), [f"data.file={quoted}"]).data.file.endswith(quoted)


@pytest.mark.parametrize("quoted", WINDOWS)
def test_a_path_with_backslashes_in_json(tmp_path, quoted):
    path = tmp_path / "a.json"
    path.write_text(f'{{"data": {{"file": "{quoted}"}}}}')
    assert "write it twice, or write forward slashes" in refusal(path)


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("written", ["[layers]", "[ layers ]", "[[layers]"])
def test_layers_in_single_brackets(write, count, written):
    text = GOOD.replace("[[layers]]", written, count)
    assert "[[layers]]" in refusal(write(text=text))


@pytest.mark.parametrize(
    ("line", "cure"),
    [
        *((f"shuffle = {x}", "true or false, in small") for x in ("True", "FALSE", "yes", "Off")),
        *((f"patience = {x}", "leave the line out") for x in ("None", "null", "NULL")),
        *(
            (f"learning_rate = {x}", "both sides of the point")
            for x in (".5", "1.", "-.5", "1.e-3")
        ),
        ("learning_rate = 0,01", "a decimal point"),
        ("optimizer = adam", "text stands in quotes"),
        ("optimizer = “adam”", "plain quotes"),
        ("patience: 3", "write key = value"),
    ],
)
def test_values_as_other_languages_write_them(write, line, cure):
    said = refusal(write((EPOCHS, line)))
    assert "is not TOML" in said
    assert cure in said.rpartition("; ")[2]


def test_a_file_that_is_right_needs_no_cure(write):
    from mlp.app.config import SLIPS

    starter = (Path(mlp.__file__).parent / "app" / "starter.toml").read_text()
    lines = [line.partition("#")[0] for text in (GOOD, starter) for line in text.splitlines()]
    for line in lines:
        if line.strip() != "[[layers]]" and not re.search(r"= (true|false)", line):
            assert not any(re.match(slip, line) for slip in SLIPS), line


@pytest.mark.parametrize("table", ["data", "training"])
def test_a_table_in_double_brackets(write, table):
    said = refusal(write((f"[{table}]", f"[[{table}]]")))
    assert f"{table}: expected a table of settings (one: [...] in single brackets)" in said


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (EPOCHS, "lr = 0.1", "training.lr: unknown key; did you mean 'learning_rate'?"),
        (EPOCHS, "neurons = 5", "training.neurons: unknown key; did you mean 'units' under [[la"),
        (UNITS, "max_iter = 5", "max_iter: unknown key; did you mean 'epochs' under [training]"),
        ("[data]", "batch = 5\n[data]", "unknown key; did you mean 'batch_size' under [training]"),
        ("[data]", "random_state = 5\n[data]", "random_state: unknown key; did you mean 'seed'?"),
        ("[data]", "precision = 'double'\n[data]", "not 'double'; did you mean 'float64'?"),
    ],
)
def test_keys_that_have_other_names_elsewhere(write, old, new, said):
    assert said in refusal(write((old, new)))
