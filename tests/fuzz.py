"""What nobody would write, by the thousand: python -m tests.fuzz --seconds 60

Settings as TOML and JSON, ``--set``, files of models and states, run folders, tables and arguments
of the Python API are made from a seed and given to the program. The law: each is used, or answered
by one message (`InputError`; the command line's exit codes are 0, 1, 2 and 130), within ten seconds
and without a traceback. What breaks it is a find: it is printed with its seed, and kept in --keep.

    python -m tests.fuzz --seconds 60 --seed 7 --only tables api
    python -m tests.fuzz --cases 10000 --only settings overrides folders api
"""

import argparse
import copy
import json
import math
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
import tracemalloc
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file
from typer.testing import CliRunner

import mlp
from backends import BackendError, get_backend
from mlp import Dense, Dropout, InputError, Model, Network, train
from mlp.app.cli import app
from mlp.data.table_files import read_table

LIMIT = 10  # seconds, of one case
TABLE_LIMIT = 5
ANSWERS = {0, 1, 2, 130}
ENTRIES: dict[str, Callable[["Bench"], None]] = {}


class Find(Exception):
    """What breaks the law."""


class Hang(BaseException):
    """The time of a case is over; no handler of ours may take it for an error."""


class Bench:
    """A folder with a run, and the chance of one case."""

    def __init__(self, folder: Path):
        self.folder, self.chance, self.case = folder, random.Random(), ""
        X = np.random.default_rng(0).normal(size=(30, 2))
        rows = [f"{a:.4f},{b:.4f},{'xyz'[k % 3]}" for k, (a, b) in enumerate(X)]
        (folder / "d.csv").write_text("\n".join(["a,b,kind", *rows]) + "\n")
        self.X, self.t = X, X[:, :1] * 2.0
        self.settings: dict[str, Any] = {
            "data": {"file": "d.csv", "target": "kind", "validation": 0.2},
            "layers": [{"units": 4, "activation": "tanh"}, {"activation": "softmax"}],
            "training": {"loss": "cross_entropy", "epochs": 2, "optimizer": {"name": "adam"}},
        }
        (folder / "s.toml").write_text(toml(self.settings))
        self.command("train", "s.toml", "--out", "run", "-q")
        assert (folder / "run" / "model.safetensors").is_file()
        self.tables = dict(whole_tables())

    def command(self, *arguments: str) -> None:
        """Run the command line in the folder. Find for an answer that is none."""
        self.case = f"mlp {' '.join(arguments)}"[:300]
        result = CliRunner().invoke(app, arguments)
        if isinstance(result.exception, (Hang, Find)):
            raise result.exception
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        if result.exit_code not in ANSWERS or "Traceback" in result.output:
            raise Find(f"exit code {result.exit_code}: {result.output[-200:]}")
        if result.exit_code == 2:
            raise InputError(result.output)

    def train(self, *arguments: str) -> None:
        """Train into a folder that is gone again."""
        try:
            self.command("train", *arguments, "-q", "--out", "out")
        finally:
            shutil.rmtree("out", ignore_errors=True)

    def write(self, name: str, content: bytes | str) -> Path:
        path = self.folder / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    # ------------------------------------------------------------------ what is odd

    def odd(self) -> Any:
        """A value that hardly anybody would give, as JSON and TOML can hold it."""
        chance = self.chance
        return chance.choice(
            [
                *(True, 0, -1, 1, 3, 1.5, -0.5, 1e308, 5e-324, 2**31, 2**63, 10**30, 10**400),
                *("", "x", "\0", "\x1b[31m", "é" * 300, "relu", "adam", "~nosuchuser/x", "../.."),
                *([], [1], [[]], [0, 1], ["a", "b"], {}, {"name": {}}, {"name": "elu"}, {"a": 1}),
                *({"name": "step", "epochs": 0}, {"column": "a", "is": "x"}, "last 20%", "/"),
                nested(chance.choice([5, 100])),
            ]
        )

    def bytes(self, content: bytes) -> bytes:
        """Some bytes changed, cut out or doubled, or the end cut off."""
        chance, found = self.chance, bytearray(content)
        for _ in range(chance.randint(1, 4)):
            at, length = chance.randrange(len(found) + 1), chance.choice([1, 2, 4, 8, 64])
            kind = chance.choice(["random", "removed", "doubled", "flipped", "end"])
            if kind == "end":
                del found[at:]
            elif kind == "flipped":
                found[at : at + 1] = bytes(x ^ 1 << chance.randrange(8) for x in found[at : at + 1])
            else:
                new = {"random": chance.randbytes(length), "removed": b""}
                found[at : at + length] = new.get(kind, 2 * found[at : at + length])
        return bytes(found)

    def values(self, values: Any) -> Any:
        """Some values somewhere in JSON replaced, removed or added."""
        values = copy.deepcopy(values)
        for _ in range(self.chance.randint(1, 3)):
            place = values
            while isinstance(place, (dict, list)) and place:
                key = self.chance.choice(
                    list(place) if isinstance(place, dict) else range(len(place))
                )
                if not isinstance(place[key], (dict, list)) or self.chance.random() < 0.3:
                    if self.chance.random() < 0.15:
                        del place[key]
                    else:
                        place[key] = self.odd()
                    break
                place = place[key]
        return values


def nested(depth: int) -> Any:
    found: Any = 1
    for _ in range(depth):
        found = [found]
    return found


def toml(values: Any) -> str:
    """Settings as TOML."""
    if not isinstance(values, dict):
        return inline(values)
    return "\n".join(f"{json.dumps(key)} = {inline(x)}" for key, x in values.items())


def inline(value: Any) -> str:
    if isinstance(value, dict):
        pairs = (f"{json.dumps(str(key))} = {inline(x)}" for key, x in value.items())
        return f"{{{', '.join(pairs)}}}"
    if isinstance(value, list):
        return f"[{', '.join(map(inline, value))}]"
    return json.dumps(value)


def entry(function: Callable[[Bench], None]) -> Callable[[Bench], None]:
    ENTRIES[function.__name__] = function
    return function


# ------------------------------------------------------------------------------ the command line


def short(values: Any) -> Any:
    """The same without what would only train for long."""
    training = values.get("training") if isinstance(values, dict) else None
    if isinstance(training, dict):
        epochs = training.get("epochs")
        if not isinstance(epochs, int) or epochs > 3:
            training["epochs"] = 1 if isinstance(epochs, int) else epochs
    return values


@entry
def settings(bench: Bench) -> None:
    """TOML whose values, or whose characters, are odd; `mlp train --plan` and `mlp check` too."""
    text = toml(short(bench.values(bench.settings)))
    if bench.chance.random() < 0.3:
        text = bench.bytes(toml(bench.settings).encode()).decode("latin-1")
        if 'epochs" = 2' not in text:
            return
    bench.write("t.toml", text)
    bench.train("t.toml", *(["--plan"] if bench.chance.random() < 0.3 else []))


@entry
def overrides(bench: Bench) -> None:
    keys = ["data.file", "data.target", "layers.0.units", "layers.0.activation", "layers.9.units"]
    keys += ["training.optimizer.name", "training.loss", "threads", "seed", "backend", "layers"]
    keys += ["data.columns.a.kind", "training.schedule", "training", "data", "x.y.z", "", "."]
    chance = bench.chance
    key = chance.choice(keys) if chance.random() < 0.8 else chance.randbytes(5).decode("latin-1")
    value = inline(bench.odd()) if chance.random() < 0.8 else chance.choice(["", "[", "9" * 5000])
    bench.train("s.toml", "--set", f"{key}={value}")


@entry
def folders(bench: Bench) -> None:
    """A file of a run damaged: predict, evaluate, resume, verify."""
    name = bench.chance.choice(sorted(os.listdir("run")))
    path = bench.folder / "run" / name
    if not path.is_file():
        path = bench.chance.choice([x for x in path.rglob("*") if x.is_file()] or [Path("s.toml")])
    whole = path.read_bytes()
    if path.suffix == ".json" and bench.chance.random() < 0.5:
        damaged = json.dumps(short(bench.values(json.loads(whole)))).encode()
    else:
        damaged = bench.bytes(whole)
    try:
        path.write_bytes(damaged)
        for command in (["predict", "run", "d.csv"], ["runs", "."], ["verify", "run"]):
            with suppress(InputError):
                bench.command(*command)
        bench.command("evaluate", "run", "d.csv")
    finally:
        path.write_bytes(whole)


# ------------------------------------------------------------------------------ files


def _content(path: Path) -> tuple[dict[str, str], dict[str, np.ndarray]]:
    from safetensors import safe_open

    with safe_open(path, framework="numpy") as file:
        return file.metadata(), load_file(path)


@entry
def models(bench: Bench) -> None:
    """A model or a state whose description, tensors or bytes are odd, without its checksum."""
    state = bench.chance.random() < 0.5
    path, model = bench.folder / "m.safetensors", _small()
    if state:
        numpy, result = get_backend("numpy"), train(model, bench.X, bench.t, epochs=1)
        mlp.save_state(result.state, path, numpy)
    else:
        model.save(path)
    if bench.chance.random() < 0.3:
        path.write_bytes(bench.bytes(path.read_bytes()))
    else:
        metadata, tensors = _content(path)
        about = bench.values(json.loads(metadata["about"]))
        name = bench.chance.choice(list(tensors))
        if bench.chance.random() < 0.5:
            x = tensors[name]
            tensors[name] = bench.chance.choice(
                [x[:-1], x[:0], x * np.nan, x[None], x.astype(np.int64), np.float16(x), -x]
            )
        text = json.dumps(about)
        save_file(
            {name: np.ascontiguousarray(x) for name, x in tensors.items()},
            path,
            {"format": metadata["format"], "about": text},
        )
    bench.case = f"a {'state' if state else 'model'} as kept"
    if state:
        train(model, bench.X, bench.t, epochs=2, state=mlp.load_state(path))
    else:
        mlp.load(path).predict(bench.X)


def whole_tables() -> Iterator[tuple[str, bytes]]:
    """A table of each kind of file, whole: those of the tests of tables."""
    from tests.test_table_files import seeds

    with tempfile.TemporaryDirectory() as folder:
        yield from seeds(Path(folder))


@entry
def tables(bench: Bench) -> None:
    """A table with bytes changed, in memory of at most 4 times its size and 200 MB."""
    suffix = bench.chance.choice(list(bench.tables))
    path = bench.write(f"table{suffix}", bench.bytes(bench.tables[suffix]))
    bench.case = path.name
    measured = bench.chance.random() < 0.1
    if measured:
        tracemalloc.start()
    try:
        read_table(path)
        most = tracemalloc.get_traced_memory()[1] if measured else 0
    finally:
        if measured:
            tracemalloc.stop()
    if most > 4 * path.stat().st_size + 200_000_000:
        raise Find(f"{most >> 20} MB for a file of {path.stat().st_size} bytes")


# ------------------------------------------------------------------------------ the Python API


def _small(**options: Any) -> Model:
    return Model(Network(2, [Dense(3, "tanh"), Dense(1)]), "mean_squared_error", **options)


class Own:
    """An activation and a loss whose formulas give what they please."""

    def __init__(self, given: Any):
        self.f = self.df = self.cost = self.derivative = given


FIELDS = {
    Dense: (
        *("units", "activation", "sources", "bias", "dropout", "l1", "l2", "initializer"),
        "max_norm",
    ),
    Model: (
        *("reduction", "shared_penalties", "w", "statistics", "dtype", "precision", "classes"),
        *("columns", "input_scaling", "target_scaling", "preprocessing", "seed", "backend"),
    ),
    train: (
        *("batch_size", "optimizer", "learning_rate", "schedule", "warmup", "shuffle", "seed"),
        *("target_loss", "patience", "min_delta", "restore_best", "best", "watch", "metrics"),
        *("record_steps", "weight_decay", "weight_decay_schedule", "decay_factors", "clip_norm"),
        *("clip_value", "accumulate", "sam_radius", "average", "time"),
        *("rate_factors", "initialize", "validation", "sample_weight", "state", "threads"),
    ),
}


@entry
def api(bench: Bench) -> None:
    """One argument of the library's own functions is odd."""
    chance, X, t = bench.chance, bench.X, bench.t
    odd = chance.choice(
        [
            bench.odd(),
            *(None, float("nan"), float("inf"), b"b", (), set(), object(), int, lambda: 1, X, t),
            *(np.zeros(3), np.array(2), np.array(["a"]), np.zeros((2, 2, 2)), X.astype(object)),
            *(lambda *given: None, lambda *given: 1.0, lambda *given: X, X.tolist(), Own(3)),
            *(Own(lambda *given: None), Own(lambda xp, z: z), Own(lambda *given: given[1][:1])),
        ]
    )
    kind = chance.choice(["Dense", "Model", "train", "call", "file", "Network"])
    bench.case = f"{kind} with {odd!r:.80}"
    if kind == "Dense":
        name = chance.choice(FIELDS[Dense])
        bench.case += f" as {name}"
        net = Network(2, [Dense(**({"units": 3} | {name: odd})), Dense(1)])
        if net.parameters < 10**6:
            train(Model(net, "mean_squared_error"), X, t, epochs=1)
    elif kind == "Network":
        layers = chance.choice([odd, [odd], [Dense(1), odd], [Dropout(0.5), Dense(1)]])
        Network(chance.choice([2, odd]), layers)
    elif kind == "Model":
        name = chance.choice(FIELDS[Model])
        bench.case += f" as {name}"
        _small(**{name: odd}).predict(X)
    elif kind == "train":
        name = chance.choice(FIELDS[train])
        bench.case += f" as {name}"
        train(_small(), X, t, **({"epochs": 1} | {name: odd}))
    elif kind == "call":
        name = chance.choice(["predict", "classify", "evaluate", "value_and_gradient", "trace"])
        bench.case += f" as X of {name}"
        getattr(_small(), name)(*((odd,) if name in ("predict", "classify") else (odd, t)))
    else:
        name = chance.choice(["load", "load_state", "read", "open_rows", "read_table"])
        bench.case += f" as path of {name}"
        getattr(mlp, name)(odd)


# ------------------------------------------------------------------------------ running


@contextmanager
def _within(seconds: int) -> Iterator[None]:
    """Hang if it takes longer, where the system can tell."""

    def over(number: int, frame: Any) -> None:
        raise Hang(f"more than {seconds} s")

    if not hasattr(signal, "SIGALRM"):
        yield
        return
    signal.signal(signal.SIGALRM, over)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)


def one(bench: Bench, name: str, seed: int, again: bool = True) -> str | None:
    """The case of a seed: None if it was used, "" if it was refused, else what was found. again:
    what hangs hangs twice; once it may have been the machine that was busy."""
    bench.chance.seed(f"{name} {seed}")
    bench.case = ""
    try:
        with _within(TABLE_LIMIT if name == "tables" else LIMIT), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with np.errstate(all="ignore"):
                ENTRIES[name](bench)
    except (InputError, BackendError):
        return ""
    except Hang as error:
        if again:
            return one(bench, name, seed, again=False)
        return f"{name}, seed {seed}: {bench.case}\n{''.join(traceback.format_exception(error))}"
    except Exception as error:
        return f"{name}, seed {seed}: {bench.case}\n{''.join(traceback.format_exception(error))}"
    return None


def run(
    seconds: float, seed: int, only: list[str], keep: Path | None, most: int | None = None
) -> list[str]:
    """The finds of so many seconds, or so many cases."""
    found: list[str] = []
    counts: Counter[str] = Counter()
    used: Counter[str] = Counter()
    before = os.getcwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            bench, until, k = Bench(Path(folder)), time.monotonic() + seconds, seed
            while time.monotonic() < until and (most is None or k < seed + most):
                name = only[k % len(only)]
                finding = one(bench, name, k)
                used[name] += finding is None
                if finding:
                    found.append(finding)
                    print(finding, flush=True)
                    if keep is not None:
                        _keep(keep / f"{name}-{k}", finding, bench.folder)
                counts[name] += 1
                k += 1
        finally:
            os.chdir(before)
    told = ", ".join(f"{name} {n} ({used[name]} used)" for name, n in counts.items())
    print(f"seeds {seed} to {k - 1}: {told}; {len(found)} finds")
    return found


def _keep(place: Path, finding: str, folder: Path) -> None:
    """The find, and the files that led to it."""
    place.mkdir(parents=True, exist_ok=True)
    (place / "find.txt").write_text(finding)
    for file in folder.iterdir():
        if file.is_file():
            (place / file.name).write_bytes(file.read_bytes())


def main() -> None:
    about = __doc__.split("\n")[0]
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=about)
    parser.add_argument("--seconds", type=float, help="default: 60, or as long as --cases take")
    parser.add_argument("--cases", type=int, help="so many, in place of seconds")
    parser.add_argument("--seed", type=int, help="the first; default: of the clock")
    parser.add_argument("--only", nargs="+", choices=sorted(ENTRIES), default=sorted(ENTRIES))
    parser.add_argument("--keep", type=Path, default=Path("fuzz-finds"), metavar="DIR")
    given = parser.parse_args()
    seed = int(time.time()) if given.seed is None else given.seed
    seconds = given.seconds or (60.0 if given.cases is None else math.inf)
    found = run(seconds, seed, given.only, given.keep.absolute(), given.cases)
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    main()
