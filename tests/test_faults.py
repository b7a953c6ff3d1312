"""Faults of what a run stands on, each made to happen: memory, files that change, the terminal, the
disk, the device. The rest is in test_checkpoints.py, test_going_on.py and test_memory.py."""

import errno
import os
import re
import signal
import subprocess
import sys
import threading
import warnings
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

import mlp
from backends import BackendError, Memory, get_backend
from backends.host_memory import host_memory
from mlp import Checkpoints, Dense, InputError, Model, Network, train
from mlp.app.config import load
from mlp.app.progress import progress
from mlp.app.runs import train_run
from mlp.sealed import read_manifest
from tests.kill import content, settle
from tests.plants import at_step, run, write_plants

resource = pytest.importorskip("resource", reason="limits of a process are Unix's")
LINUX = sys.platform.startswith("linux")
rng = np.random.default_rng(0)
X = rng.normal(size=(40, 3))
t = (X[:, 0] > 0).astype(int)
RUN = {"batch_size": 8, "epochs": 6}
GB = 1 << 30


def model(backend="numpy"):
    net = Network(3, [Dense(4, "tanh"), Dense(2, "softmax")])
    return Model(net, "cross_entropy", backend=backend)


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder to be in, with a table and the settings for it."""
    write_plants(tmp_path, 'epochs = 6\npatience = 20\ncheckpoint = "1 step"\n')
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLP_BACKEND", raising=False)
    return tmp_path


@pytest.fixture
def whole(here):
    """What an unbroken run comes to."""
    return content(train_run(load("plants.toml"), out=Path("whole")).folder)


settled = type("Settled", (), {"on_batch_end": staticmethod(settle)})()


# --- memory of the host --------------------------------------------------------------------------


@contextmanager
def limited(kind, more):
    """At most so much more than this process has."""
    before = resource.getrlimit(kind)
    place = {resource.RLIMIT_AS: 0, resource.RLIMIT_FSIZE: None}[kind]
    if place is not None:
        pages = int(Path("/proc/self/statm").read_text().split()[place])
        more += pages * resource.getpagesize()
    resource.setrlimit(kind, (more, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(kind, before)


STAT = "anon 5\ntotal_inactive_file 300\ntotal_active_file 100\ninactive_file 30\nactive_file 10\n"


def groups(root, lines, **files):
    """A machine's control groups: proc/self/cgroup, and by folder (limit, usage)."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(lines)
    for folder, (limit, usage) in files.items():
        old = folder.startswith("memory")
        place = root / "sys/fs/cgroup" / folder.replace("__", "/")
        place.mkdir(parents=True, exist_ok=True)
        names = ("limit_in_bytes", "usage_in_bytes") if old else ("max", "current")
        (place / f"memory.{names[0]}").write_text(f"{limit}\n")
        (place / f"memory.{names[1]}").write_text(f"{usage}\n")
        (place / "memory.stat").write_text(STAT)


@pytest.mark.parametrize(("lines", "files", "left"), [
    ("0::/job/step\n", {"job": ("max", 100), "job__step": (1000, 400)}, 640),
    ("0::/job/step\n", {"job": (500, 300), "job__step": (1000, 400)}, 240),
    ("0::/job/step\n", {"job__step": ("max", 400)}, None),
    ("0::/\n", {".": (1000, 900)}, 140),
    ("0::/../of/another\n", {".": (1000, 1200)}, 0),
    ("4:memory:/docker/a\n1:cpu:/x\n", {"memory": (1000, 600)}, 800),
    ("4:cpu,memory:/a\n0::/\n", {"memory": (2**63 - 4096, 5), "memory__a": (900, 700)}, 600),
    ("1:cpu:/x\n", {"memory": (10, 5)}, None),
    ("no such lines", {}, None),
])  # fmt: skip
def test_what_a_control_group_leaves(tmp_path, lines, files, left):
    """The least of the group and of those above it; page cache counts as free."""
    groups(tmp_path, lines, **files)
    found = host_memory(tmp_path)
    if left is not None:
        assert (found.left, found.limit) == (left, left)
        assert found.free <= left
    elif resource.getrlimit(resource.RLIMIT_AS)[0] == resource.RLIM_INFINITY:
        assert found.left is None
        assert found.limit == found.total


@pytest.mark.skipif(not LINUX, reason="the size of this process is read from /proc")
def test_a_limit_of_the_process_is_what_is_left(monkeypatch):
    """A plan that the machine has room for is refused where the process has not."""
    X, t = np.zeros((1000, 3)), np.zeros(1000)
    wide = Model(Network(3, [Dense(1000), Dense(4000), Dense(1)]), "mean_squared_error")
    with limited(resource.RLIMIT_AS, 50 << 20):
        assert host_memory().left <= 50 << 20
        with pytest.raises(InputError, match=r"has [\d.]+ MB left for this process \(ulimit"):
            train(wide, X, t, epochs=1)
    assert train(wide, X[:2], t[:2], epochs=1).state.epoch == 1


def sparse(path, n):
    """An array of n rows of 4 float64 in a file that takes no room."""
    with open(path, "wb") as file:
        about = {"descr": "<f8", "fortran_order": False, "shape": (n, 4)}
        np.lib.format.write_array_header_1_0(file, about)
        file.truncate(file.tell() + n * 32)


@pytest.mark.skipif(not LINUX, reason="the size of this process is read from /proc")
def test_files_that_memory_cannot_hold(tmp_path):
    """What a header says is not asked for; what cannot be had is said. Rows on disk need little."""
    sparse(tmp_path / "a.npy", 3 * GB // 32)
    sparse(tmp_path / "b.npy", 200_000)
    (tmp_path / "c.csv").write_text("a,b\n" + "1,2\n" * 8_000_000)
    with limited(resource.RLIMIT_AS, GB):
        with pytest.raises(InputError, match=r"a\.npy: reading it takes 3\.2 GB of memory, at mo"):
            mlp.read(tmp_path / "a.npy", need_targets=False)
        assert mlp.open_rows(tmp_path / "b.npy", target="x_3").X.shape == (200_000, 3)
    lacks = pytest.raises(InputError, match=r"c\.csv does not fit into memory")
    with limited(resource.RLIMIT_AS, 10 << 20), lacks:
        mlp.read(tmp_path / "c.csv", target="b")


def test_rows_that_memory_cannot_hold_twice(here, monkeypatch):
    """Those that are held out are a copy: refused before it is made."""
    sparse("a.npy", 20_000)
    left = iter([700_000, 400_000])
    monkeypatch.setattr("mlp.memory.host_memory", lambda: Memory(left=next(left)))
    settings = "data.file=a.npy", "data.target=x_3", "training.loss=mean_squared_error"
    sets = [word for setting in (*settings, "layers.1={}") for word in ("--set", setting)]
    message = run("train", "plants.toml", *sets, code=2)
    assert "a.npy: holding out some of its rows takes 480.0 kB of memory, at most 400.0" in message
    assert message.count("\n") == 1
    assert not Path("runs").exists()


@pytest.mark.skipif(not LINUX, reason="ulimit -v")
def test_three_gigabytes_under_four(tmp_path):
    """As a user sees it: one message and code 2."""
    write_plants(tmp_path, "epochs = 1\n")
    sparse(tmp_path / "a.npy", 3 * GB // 32)
    command = f"ulimit -v {3 << 20}; {sys.executable} -m mlp train plants.toml --set layers.1={{}}"
    command += " --set data.file=a.npy --set data.target=x_3 --set training.loss=mean_squared_error"
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}
    done = subprocess.run(
        ["sh", "-c", command], cwd=tmp_path, env=env, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(r"mlp: error: \S*a\.npy: reading it takes 3\.2 GB .*\n", done.stderr)


def test_memory_that_runs_out_in_a_command_is_one_message(here, monkeypatch):
    def fails(*arguments, **options):
        raise MemoryError("Unable to allocate 2 TiB")

    monkeypatch.setattr("mlp.app.prepare.learned_classes", fails)
    assert "out of memory (Unable to allocate 2 TiB); use" in run("train", "plants.toml", code=2)


def test_a_process_without_room_for_threads_writes_itself(tmp_path, monkeypatch):
    def no_room(thread):
        raise RuntimeError("can't start new thread")

    kept = Checkpoints(tmp_path, "1 step")
    monkeypatch.setattr(threading.Thread, "start", no_room)
    result = train(model(), X, t, checkpoint=kept, **RUN)
    assert kept.newest().step == result.state.step
    np.save(tmp_path / "a.npy", X)
    stored = mlp.open_rows(tmp_path / "a.npy", target="x_2")
    one = Model(Network(2, [Dense(1)]), "mean_squared_error")
    found = train(one, stored, epochs=2, shuffle="blocks")
    monkeypatch.undo()
    expected = train(one, stored, epochs=2, shuffle="blocks")
    np.testing.assert_array_equal(found.model.w, expected.model.w)


# --- files that change while they are read -------------------------------------------------------


def csv(path, X):
    path.write_text("a,b,c\n" + "\n".join(",".join(map(repr, row.tolist())) for row in X) + "\n")


def parquet(path, X):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    table = pyarrow.table({name: X[:, k] for k, name in enumerate("abc")})
    parquet.write_table(table, path, row_group_size=50)


def feather(path, X):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import feather

    feather.write_feather(pyarrow.table({n: X[:, k] for k, n in enumerate("abc")}), path)


def npz(path, X):
    np.savez(path, X=X[:, :2], t=X[:, 2])


def npy(path, X):
    np.save(path, X)


KINDS = {".csv": csv, ".parquet": parquet, ".feather": feather, ".npz": npz, ".npy": npy}
ONE, OTHER = (rng.normal(size=(300, 3)) + shift for shift in (0.0, 100.0))


def replaced(path, kind):
    """Another table in its place, as by a rename."""
    KINDS[kind](path.with_name(f"new{kind}"), OTHER)
    os.replace(path.with_name(f"new{kind}"), path)


def overwritten(path, kind):
    """Another table in the same file."""
    KINDS[kind](path.with_name(f"new{kind}"), OTHER)
    with open(path, "r+b") as file:
        file.truncate()
        file.write(path.with_name(f"new{kind}").read_bytes())
    os.utime(path, (1, 1))  # a clock that is too coarse to tell hides nothing here


def shortened(path, kind):
    os.truncate(path, path.stat().st_size // 2)


def gone(path, kind):
    path.unlink()


CHANGES = [replaced, overwritten, shortened, gone]


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("reader", ["read", "open_rows"])
def test_a_file_that_changes_while_it_is_read(tmp_path, monkeypatch, reader, kind, change):
    """At any of the reads of it that the operating system sees: it is named, or all is of one."""
    if reader == "open_rows" and kind in (".csv", ".npz"):
        pytest.skip("rows of this kind are not left on disk")
    path, target = tmp_path / f"a{kind}", {".npz": "t", ".npy": "x_2"}.get(kind, "c")
    calls, many = {name: getattr(os, name) for name in ("stat", "fstat", "open")}, 0

    def once(number):
        """Do it, and change the file before look number so many at a file."""
        nonlocal many
        many = 0
        KINDS[kind](path, ONE)

        def looks(name):
            def look(*arguments, **options):
                nonlocal many
                many += 1
                if many == number:
                    with monkeypatch.context() as inner:
                        for other, call in calls.items():
                            inner.setattr(os, other, call)
                        change(path, kind)
                return calls[name](*arguments, **options)

            return look

        with monkeypatch.context() as patch:
            for name in calls:
                patch.setattr(os, name, looks(name))
            data = getattr(mlp, reader)(path, target=target)
            return np.asarray(data.X)[:, :2], np.asarray(data.t)

    number = 0
    while number <= many:
        number += 1
        try:
            X, t = once(number)
        except InputError as error:
            named = str(path) in str(error)  # else X and t are of the attempt before
            X, t = (ONE[:, :2], ONE[:, 2]) if named else (ONE, ONE)
        of_one = [np.array_equal(X, x[:, :2]) and np.array_equal(t, x[:, 2]) for x in (ONE, OTHER)]
        assert any(of_one), number


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("kind", [".npy", ".parquet"])
def test_a_file_that_changes_while_it_is_trained_on(tmp_path, kind, change):
    """The rows of Parquet are in a file of our own by then. Those of NPY are named, and the state
    up to that batch is kept; without the file the run goes on: it is still open."""
    path = tmp_path / f"a{kind}"
    KINDS[kind](path, np.concatenate([ONE] * 200))
    stored = mlp.open_rows(path, target="x_2" if kind == ".npy" else "c")
    one = Model(Network(2, [Dense(1)]), "mean_squared_error")
    kept = Checkpoints(tmp_path / "kept", "1000 steps")
    options = {"batch_size": 100, "epochs": 2, "shuffle": "blocks", "checkpoint": kept}
    at = at_step(500, lambda run: change(path, kind))
    if kind == ".parquet" or change in (gone, replaced):
        assert train(one, stored, callbacks=[at], **options).state.epoch == 2
    else:
        with pytest.raises(InputError, match=r"a\.npy has changed since it was opened; open it ag"):
            train(one, stored, callbacks=[at], **options)
        assert 500 <= kept.newest().step < 1200


def test_arrays_of_one_file_in_several_parts_are_of_one_file(here, monkeypatch):
    """Those to train on are read, and then those to test on."""
    arrays = {"x": X, "y": t, "x_test": X + 1, "y_test": t}
    np.savez("a.npz", **arrays)
    settings = '[[layers]]\nunits = 2\n[training]\nloss = "cross_entropy"\nepochs = 1\n[data]\n'
    settings += 'file = "a.npz"\ninputs = ["x"]\ntarget = ["y"]\n'
    settings += 'test = {inputs = "x_test", target = "y_test"}\n'
    Path("t.toml").write_text(settings)
    from mlp.app import prepare

    read_rows = prepare.read_rows

    def then_replaced(*arguments, **options):
        found = read_rows(*arguments, **options)
        if not Path("b.npz").exists():
            np.savez("b.npz", **arrays | {"x_test": X + 2})
            os.replace("b.npz", "a.npz")
            Path("b.npz").touch()
        return found

    monkeypatch.setattr(prepare, "read_rows", then_replaced)
    assert "a.npz has changed since it was opened" in run("train", "t.toml", code=2)


# --- the terminal --------------------------------------------------------------------------------


class Closed:
    """A stream that is closed, or was never there."""

    encoding, closed = "utf-8", True

    def isatty(self):
        raise ValueError("I/O operation on closed file")

    write = flush = fileno = lambda self, *text: self.isatty()


@pytest.mark.parametrize("stream", [Closed(), None])
def test_a_stream_that_is_closed_does_not_end_a_run(stream, monkeypatch):
    monkeypatch.setattr(sys, "stdout", stream)
    with progress(stream=stream) as callbacks:
        result = train(model(), X, t, callbacks=callbacks, **RUN)
    assert result.state.epoch == 6


@pytest.mark.parametrize("streams", [">&-", ">&- 2>&-", "<&- >&- 2>&-", "> /dev/full 2>&1"])
def test_a_program_without_streams_trains(here, whole, streams):
    command = f"{sys.executable} -m mlp train plants.toml --out part {streams}"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert content(Path("part")) == whole


@pytest.mark.skipif(not LINUX, reason="terminals are Unix's")
@pytest.mark.parametrize("ignored", [True, False])
def test_a_terminal_that_is_closed_while_training(here, whole, ignored):
    """Under nohup the run goes on; else its hang-up ends it gently."""
    import pty

    master, slave = pty.openpty()
    epochs = 500 if ignored else 2000

    def begin():
        os.setsid()
        import fcntl
        import termios

        fcntl.ioctl(slave, termios.TIOCSCTTY, 0)
        if ignored:
            signal.signal(signal.SIGHUP, signal.SIG_IGN)

    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "mlp", "train", "plants.toml", "--out", "part"),
            *("--set", f"training.epochs={epochs}", "--set", "training.patience=3000"),
            *("--set", "training.checkpoint=100 steps"),
        ],
        stdin=slave, stdout=slave, stderr=slave, preexec_fn=begin,
    )  # fmt: skip
    os.close(slave)
    seen = b""
    while b"/%d" % epochs not in seen:  # the bar is there
        seen += os.read(master, 1 << 16)
    os.close(master)
    assert process.wait(60) == (0 if ignored else 128 + signal.SIGHUP)
    about = read_manifest(Path("part"))["about"]
    assert about["status"] == ("finished" if ignored else "interrupted")


# --- the disk ------------------------------------------------------------------------------------


def test_a_disk_that_takes_for_ever_holds_nothing_up(tmp_path, monkeypatch):
    """As a network file system that is away: training goes on while it waits, and is written when
    that is back."""
    fsync, back = os.fsync, threading.Event()

    def away(file):
        assert back.wait(60)
        fsync(file)

    monkeypatch.setattr(os, "fsync", away)
    kept = Checkpoints(tmp_path, "1 step")
    last = at_step(30, lambda run: back.set())
    result = train(model(), X, t, checkpoint=kept, callbacks=[last], **RUN)
    assert kept.newest().step == result.state.step == 30


def test_a_quota_in_the_middle_of_a_file(here, whole):
    """A limit of the system's: what is begun is removed, one warning, the next one is tried."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def at_most(size):
        return lambda run: resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))

    try:
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            steps = at_step(4, at_most(900)), at_step(12, at_most(soft))
            found = train_run(load("plants.toml"), out=Path("part"), callbacks=[settled, *steps])
    finally:
        at_most(soft)(None)
    told = [str(w.message) for w in said if "no checkpoint" in str(w.message)]
    assert len(told) == 1
    assert os.strerror(errno.EFBIG) in told[0]
    assert content(found.folder) == whole
    assert not list(Path("part/checkpoints").glob(".*"))


@pytest.mark.parametrize("what", ["another run", "a file", "a copy", "a link to nowhere"])
def test_a_folder_that_is_replaced_is_left_alone(here, whole, what):
    """While a run writes to it. The run goes on; whoever has the place now finds nothing of it."""

    def replace(_):
        os.rename("part", "moved")
        if what == "another run":
            train_run(load("plants.toml"), out=Path("part"))
        elif what == "a file":
            Path("part").write_text("mine")
        elif what == "a copy":
            import shutil

            shutil.copytree("moved", "part")
        else:
            os.symlink("nowhere", "part")
        seen.update(tree(Path("part")))

    def tree(place):
        files = [place, *place.rglob("*")]
        return {str(x): x.read_bytes() for x in files if x.is_file()}

    seen: dict[str, bytes] = {}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "part/checkpoints: no checkpoint could be written")
        at = at_step(7, replace)
        finished = train_run(load("plants.toml"), out=Path("part"), callbacks=[settled, at])
    assert tree(Path("part")) == seen
    assert finished.folder != Path("part")
    assert not finished.fault
    assert content(finished.folder) == whole


# --- the device ----------------------------------------------------------------------------------


class Gone(Exception):
    """What a device says that is lost."""


def lose(backend, patch, error):
    """From now on whatever is asked of the device fails."""

    def fails(*arguments, **options):
        raise error

    patch.setattr(type(backend), "lost", lambda self, found: isinstance(found, type(error)))
    for name in ("to_numpy", "copy", "synchronize", "upload"):
        patch.setattr(type(backend), name, fails)


def test_a_device_that_is_lost(backend, tmp_path, monkeypatch):
    """One message, which names the last checkpoint, and from that the run goes on."""
    expected = train(model(backend), X, t, **RUN)
    kept = Checkpoints(tmp_path, "4 steps")
    with monkeypatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("error")
        at = at_step(22, lambda run: lose(backend, patch, Gone("the bus is silent\nand more")))
        said = rf"^training: the device of backend '{backend.name}' is lost \(the bus is silent\); "
        with pytest.raises(
            BackendError, match=said + "the last checkpoint is .*-epoch-3.safetensors: a new pr"
        ):
            train(model(backend), X, t, checkpoint=kept, callbacks=[settled, at], **RUN)
    assert kept.newest().step == 20
    found = train(model(backend), X, t, state=kept.newest(), **RUN)
    np.testing.assert_array_equal(*(backend.to_numpy(x.model.w) for x in (found, expected)))


def test_a_device_that_is_lost_when_it_is_asked(backend, monkeypatch):
    one = model(backend)
    for name in ("predict", "evaluate", "value_and_gradient"):
        arguments = (X,) if name == "predict" else (X, t)
        with monkeypatch.context() as patch:
            lose(backend, patch, Gone("the bus is silent"))
            with pytest.raises(
                BackendError, match=r"^\S+( t)?: the device of .* is lost \(the bus"
            ):
                getattr(one, name)(*arguments)


def test_a_lost_device_is_one_message_of_the_command(here, whole, monkeypatch):
    backend = get_backend("numpy")
    with monkeypatch.context() as patch:
        at = at_step(10, lambda run: lose(backend, patch, Gone("the bus is silent")))
        with pytest.raises(BackendError, match="the last checkpoint is part/checkpoints/0"):
            train_run(load("plants.toml"), out=Path("part"), callbacks=[settled, at])
    about = read_manifest(Path("part"))["about"]
    assert about["status"] == "failed"
    run("train", "--resume", "part")
    assert content(Path("part")) == whole


@pytest.mark.parametrize("backend", ["cupy"], indirect=True)
def test_an_error_of_cuda_that_stays_is_a_lost_device(backend, monkeypatch):
    """One that goes by is none."""
    error = backend.cupy.cuda.runtime.CUDARuntimeError(719)
    assert not backend.lost(error)
    assert not backend.lost(ValueError("719"))

    def fails(self):
        raise error

    monkeypatch.setattr(type(backend), "synchronize", fails)
    assert backend.lost(error)
    assert not backend.lost(ValueError("719"))


def test_a_callback_that_ends_the_program_keeps_the_state(tmp_path):
    kept = Checkpoints(tmp_path)
    ends = at_step(7, lambda run: sys.exit(3))
    with pytest.raises(SystemExit):
        train(model(), X, t, checkpoint=kept, callbacks=[ends], **RUN)
    assert kept.newest().step == 7


@pytest.mark.parametrize("units", [10**10, 10**12])
def test_more_weights_than_memory_are_refused_before_they_are_drawn(units):
    network = mlp.Network(5, [mlp.Dense(units), mlp.Dense(1)])
    with pytest.raises(mlp.InputError, match=r"weights takes .* fewer units"):
        mlp.Model(network, "mean_squared_error")
