"""Ends runs of `mlp train` without a word, and looks whether each goes on to the end that an
unbroken one has: weights, state, history and metrics, bit for bit.

    python -m tests.kill --runs 200          kill -9 at random instants, up to three times a run
    python -m tests.kill --operations        kill -9 before and after every operation on a file
    python -m tests.kill --power 200         power cuts: what was not flushed is lost
    python -m tests.kill --damages 1000      files of runs' folders with bits flipped, cut, gone

Each run is a child of this process, so that a kill costs milliseconds. Exit code 1 if one is lost.
--backend cupy: on that backend.
"""

import argparse
import importlib
import json
import os
import pickle
import random
import shutil
import signal
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import mlp
from mlp.app.config import load
from mlp.app.run_folder import is_run
from mlp.app.run_list import verified
from mlp.app.runs import load_run, train_run
from mlp.app.standing import Over
from mlp.errors import InputError
from mlp.sealed import MANIFEST, damages, read_manifest
from mlp.training.checkpoints import STATE_FILE
from mlp.training.run import Run
from tests.plants import damage, settle, write_plants

WHOLE = Path("whole")  # the unbroken run
OPERATIONS = ("open", "fsync", "replace", "rename", "mkdir", "unlink", "rmdir")


def prepare(folder: Path) -> None:
    """A table and the settings for it."""
    write_plants(folder, 'epochs = 5\npatience = 20\ncheckpoint = "1 step"\n')


class Settled:
    """A callback that waits for each checkpoint."""

    on_batch_end = staticmethod(settle)


def begin_or_go_on(place: Path, *callbacks: object) -> None:
    """As `mlp train plants.toml --resume auto --out PLACE`, without a picture."""
    config = load("plants.toml")
    with suppress(Over):
        if is_run(place):
            train_run(config, resume=place, callbacks=[Settled, *callbacks])
        else:
            train_run(config, out=place, callbacks=[Settled, *callbacks])


def content(folder: Path) -> tuple[object, ...]:
    """All that the end of a run is, but for times and where it was gone on from."""
    model, state = load_run(folder, "numpy")[0], mlp.load_state(folder / STATE_FILE)
    metrics = json.loads((folder / "metrics.json").read_text())
    for name in ("seconds", "samples_per_second", "epochs_before"):
        del metrics[name]
    lines = [line.split(",") for line in (folder / "history.csv").read_text().splitlines()]
    seconds = lines[0].index("seconds")
    history = [line[:seconds] + line[seconds + 1 :] for line in lines]
    vectors = [x.tobytes() for x in (state.w, state.best_w, *state.vectors.values())]
    return model.w.tobytes(), vectors, metrics, history


def child(do: Callable[[], None]) -> int:
    """The process that does it, and then ends with code 0; with 1 if there is an error."""
    pid = os.fork()
    if pid:
        return pid
    try:
        do()
    except BaseException:
        import traceback

        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def outcome(pid: int) -> int:
    """What the process ended with; below 0: the signal."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def compared(place: Path, whole: tuple[object, ...], what: str) -> bool:
    """Go on to the end; whether it is that of the unbroken run."""
    if outcome(child(lambda: begin_or_go_on(place))) != 0:
        print(f"{what}: does not go on", flush=True)
        return False
    if damages(place) or {x.name for x in place.iterdir()} != {x.name for x in WHOLE.iterdir()}:
        print(f"{what}: not whole", flush=True)
        return False
    if content(place) != whole:
        print(f"{what}: another end", flush=True)
        return False
    return True


# --- at random instants ------------------------------------------------------------------------


def at_random(runs: int, whole: tuple[object, ...], seconds: float, seed: int) -> int:
    """How many of so many runs are lost; each is killed up to three times."""
    draw, lost = random.Random(seed), 0
    for number in range(runs):
        place, kills = Path(f"random-{number}"), 0
        for _ in range(draw.randint(1, 3)):
            pid = child(lambda place=place: begin_or_go_on(place))
            time.sleep(draw.uniform(0.0, seconds))
            os.kill(pid, signal.SIGKILL)
            kills += outcome(pid) < 0
        lost += not compared(place, whole, f"run {number}, {kills} kills, seed {seed}")
        shutil.rmtree(place)
    return lost


# --- at every operation --------------------------------------------------------------------------


@contextmanager
def killed_at(number: int, after: bool) -> Iterator[list[int]]:
    """Operations on files are counted; the process ends at this one."""
    counted, originals = [0], {name: getattr(os, name) for name in OPERATIONS}

    def wrapped(original: Callable[..., object]) -> Callable[..., object]:
        def call(*arguments: object, **options: object) -> object:
            counted[0] += 1
            here = counted[0] == number
            if here and not after:
                os.kill(os.getpid(), signal.SIGKILL)
            result = original(*arguments, **options)
            if here:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        return call

    try:
        for name, original in originals.items():
            setattr(os, name, wrapped(original))
        yield counted
    finally:
        for name, original in originals.items():
            setattr(os, name, original)


def operations() -> int:
    """How many operations on files an unbroken run makes."""

    def count() -> None:
        with killed_at(0, False) as counted:
            begin_or_go_on(Path("counted"))
        Path("count").write_text(str(counted[0]))

    assert outcome(child(count)) == 0
    return int(Path("count").read_text())


def at_operations(every: int, whole: tuple[object, ...]) -> tuple[int, int]:
    """How many of how many runs are lost, each killed at one operation, every so many of them."""
    numbers = range(1, operations() + 1, every)
    lost = 0
    for number in numbers:
        for after in (False, True):
            place = Path(f"operation-{number}-{after}")

            def die(place: Path = place, number: int = number, after: bool = after) -> None:
                with killed_at(number, after):
                    begin_or_go_on(place)

            outcome(child(die))
            lost += not compared(
                place, whole, f"operation {number}, {'after' if after else 'before'}"
            )
            shutil.rmtree(place, ignore_errors=True)
    return lost, 2 * len(numbers)


# --- power cuts ----------------------------------------------------------------------------------


@contextmanager
def recorded(log: list[tuple[object, ...]]) -> Iterator[None]:
    """Operations on files, as they succeed: ("new", path), ("flush", path, content or None for a
    folder), ("rename", path, path), ("mkdir", path), ("gone", path)."""
    originals = {name: getattr(os, name) for name in OPERATIONS}

    def at(path: object, dir_fd: int | None = None) -> str:
        base = os.getcwd() if dir_fd is None else os.readlink(f"/proc/self/fd/{dir_fd}")
        return os.path.normpath(os.path.join(base, os.fspath(path)))  # type: ignore[call-overload]

    def opened(path: object, flags: int, *rest: object, **options: object) -> object:
        new = bool(flags & os.O_CREAT) and not os.path.exists(path)  # type: ignore[arg-type]
        result = originals["open"](path, flags, *rest, **options)
        if new:
            log.append(("new", at(path)))
        return result

    def flushed(fd: int) -> None:
        originals["fsync"](fd)
        path = os.readlink(f"/proc/self/fd/{fd}")
        log.append(("flush", path, None if os.path.isdir(path) else Path(path).read_bytes()))

    def moved(name: str) -> Callable[..., None]:
        def call(a: object, b: object) -> None:
            originals[name](a, b)
            log.append(("rename", at(a), at(b)))

        return call

    def one(name: str, what: str) -> Callable[..., None]:
        def call(path: object, *rest: object, dir_fd: int | None = None) -> None:
            originals[name](path, *rest, dir_fd=dir_fd)
            log.append((what, at(path, dir_fd)))

        return call

    patched = {
        "open": opened,
        "fsync": flushed,
        "replace": moved("replace"),
        "rename": moved("rename"),
        "mkdir": one("mkdir", "mkdir"),
        "unlink": one("unlink", "gone"),
        "rmdir": one("rmdir", "gone"),
    }
    try:
        for name, function in patched.items():
            setattr(os, name, function)
        yield
    finally:
        for name, original in originals.items():
            setattr(os, name, original)


def after_cut(log: list[tuple[object, ...]], draw: random.Random) -> dict[str, bytes | None]:
    """What is on the disk when the power goes after these operations: path to content, None for a
    folder.

    A name is there for sure once its folder was flushed; of the changes of names after that a first
    part, as drawn. Of a file there is what was flushed; else nothing but its name.
    """

    def folders(entry: tuple[object, ...]) -> set[str]:
        return {os.path.dirname(str(path)) for path in entry[1:]}

    sure: dict[str, int] = {}
    for i, (what, path, *content) in enumerate(log):
        if what == "flush" and content == [None]:
            sure[str(path)] = i
    reach = {
        folder: draw.randint(sure.get(folder, 0), len(log))
        for folder in sorted({f for entry in log if entry[0] != "flush" for f in folders(entry)})
    }
    tree: dict[str, bytes | None] = {}
    content_of: dict[str, bytes] = {}  # by the name that a file has for the programs
    for i, (what, path, *more) in enumerate(log):
        path = str(path)
        if what == "flush":
            if more != [None]:
                content_of[path] = more[0]  # type: ignore[assignment]
                if path in tree:
                    tree[path] = content_of[path]
            continue
        came = all(i <= reach[folder] for folder in folders((what, path, *more)))
        if what == "rename":
            b = str(more[0])
            for names, moves in ((content_of, True), (tree, came)):
                inside = [x for x in names if x == path or x.startswith(path + os.sep)]
                for x in inside if moves else ():
                    names[b + x[len(path) :]] = names.pop(x)  # type: ignore[index, assignment]
        elif what == "gone":
            content_of.pop(path, None)
            if came:
                tree.pop(path, None)
        elif came:
            tree[path] = None if what == "mkdir" else b""
    return tree


def at_power_cuts(cuts: int, whole: tuple[object, ...], seed: int) -> int:
    """How many of so many runs are lost, each with the power cut at an operation of its own."""
    draw, lost = random.Random(seed), 0

    def record() -> None:
        log: list[tuple[object, ...]] = []
        with recorded(log):
            begin_or_go_on(Path("powered"))
        Path("log").write_bytes(pickle.dumps(log))

    assert outcome(child(record)) == 0
    log = pickle.loads(Path("log").read_bytes())
    root = os.path.abspath("powered")
    log = [entry for entry in log if str(entry[1]).startswith(root)]
    for number in range(cuts):
        end = draw.randint(0, len(log))
        place = Path(f"cut-{number}")
        for path, data in sorted(after_cut(log[:end], draw).items()):
            target = place / os.path.relpath(path, root)
            if data is None:
                target.mkdir(parents=True, exist_ok=True)
            elif target.parent.is_dir():
                target.write_bytes(data)
        lost += not compared(place, whole, f"power cut {number} after operation {end}, seed {seed}")
        shutil.rmtree(place, ignore_errors=True)
    return lost


# --- damages -------------------------------------------------------------------------------------


class DiesAt:
    """A callback that kills the process after so many steps."""

    def __init__(self, step: int):
        self.step = step

    def on_batch_end(self, run: Run) -> None:
        if run.state.step == self.step:
            os.kill(os.getpid(), signal.SIGKILL)


def at_damages(number_of: int, whole: tuple[object, ...], seed: int) -> int:
    """How many of so many damages are not named, or read as if the file were whole.

    One file of a run that was killed is damaged, or of one that has ended. `mlp verify` names it;
    and to go on is refused by a message that names it, or comes to the end of the unbroken run.
    """
    killed, lost, used = Path("killed"), 0, 0
    assert outcome(child(lambda: begin_or_go_on(killed, DiesAt(10)))) == -signal.SIGKILL
    for number in range(seed, seed + number_of):
        run, place = (killed, WHOLE)[number % 2], Path(f"damage-{number}")
        shutil.copytree(run, place)
        listed = [place / name for name in read_manifest(place)["files"]]
        files = [place / MANIFEST, *listed, *sorted(place.glob("checkpoints/*.safetensors"))]
        path = files[number // 2 % len(files)]
        damage(path, number)
        gone = path.parent.name == "checkpoints" and not path.exists()  # and nothing is read of it
        what = f"damage {number} of {path.relative_to(place)} of a run that {run}"
        with suppress(InputError):
            said = [f"{name}: {wrong}" for name, wrong in verified(place) if wrong]
            if len(said) != (not gone) or not all(path.name in text for text in said):
                print(f"{what}: not named ({said})", flush=True)
                lost += 1
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            try:
                begin_or_go_on(place)
                used += 1
                fine = run == WHOLE or content(place) == whole
                if run == killed and path == files[-1] and not gone:  # the newest checkpoint
                    fine = fine and any(path.name in str(w.message) for w in told)
            except InputError as error:
                fine = path.name in str(error)
        if not fine:
            print(f"{what}: not found in going on", flush=True)
            lost += 1
        shutil.rmtree(place)
    print(f"{used} of {number_of} damaged runs went on, the others were refused", flush=True)
    return lost


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m tests.kill", description=__doc__)
    parser.add_argument("--runs", type=int, default=0, help="so many, killed at random instants")
    parser.add_argument("--operations", action="store_true", help="killed at every operation")
    parser.add_argument("--every", type=int, default=1, help="of the operations, every so many")
    parser.add_argument("--power", type=int, default=0, help="so many power cuts")
    parser.add_argument("--damages", type=int, default=0, help="of files in runs' folders")
    parser.add_argument("--backend", default="numpy")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    os.environ["MLP_BACKEND"] = given.backend
    if given.backend.startswith("cupy"):
        importlib.import_module("cupy")  # once, and not in every child; it touches no device yet
    warnings.simplefilter("ignore")
    lost = 0
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        prepare(Path(folder))
        started = time.perf_counter()
        assert outcome(child(lambda: begin_or_go_on(WHOLE))) == 0
        seconds = time.perf_counter() - started
        whole = content(WHOLE)
        if given.runs:
            found = at_random(given.runs, whole, 1.1 * seconds, given.seed)
            print(f"{given.runs} runs killed at random instants, {found} lost", flush=True)
            lost += found
        if given.operations:
            found, runs = at_operations(given.every, whole)
            print(f"{runs} runs killed at operations on files, {found} lost", flush=True)
            lost += found
        if given.power:
            found = at_power_cuts(given.power, whole, given.seed)
            print(f"{given.power} power cuts, {found} lost", flush=True)
            lost += found
        if given.damages:
            found = at_damages(given.damages, whole, given.seed)
            print(f"{given.damages} damages, {found} lost", flush=True)
            lost += found
        os.chdir("/")
    return 1 if lost else 0


if __name__ == "__main__":
    sys.exit(main())
