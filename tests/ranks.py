"""Runs on several processes, for `test_mpi.py`, and by hand:

mpiexec -n 4 python -m tests.ranks laws          N ranks against one, 50 steps each
mpiexec -n 2 python -m tests.ranks laws cupy     the same on a CUDA device each
mpiexec -n 4 python -m tests.ranks reads         what each rank reads of a file in blocks
python -m tests.ranks kills 50                   kill -9 of any rank at random instants
"""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import nullcontext
from pathlib import Path

import numpy as np

import mlp
from mlp.formulas.losses import LOSSES
from mlp.formulas.optimizers import OPTIMIZERS
from mlp.parallel import Group, world

ON_DEVICES = ("adam", "cross_entropy, weights", "batch_size 3", "statistics, shards")
SHARDS = {"parallel": {"shards": 4}}


def mpiexec(*programs, timeout=120, start=False):
    """A run of (ranks, arguments of Python) each; or the process of it. Its output is text."""
    command = [shutil.which("mpiexec") or str(Path(sys.executable).with_name("mpiexec"))]
    for ranks, arguments in programs:
        command += [*([":"] if len(command) > 1 else []), "-n", str(ranks), sys.executable]
        command += map(str, arguments)
    environment = (
        os.environ
        | {
            **dict.fromkeys(("OMPI_ALLOW_RUN_AS_ROOT", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM"), "1"),
            "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe",  # more ranks than cores
            "PRTE_MCA_hwloc_default_binding_policy": "none",
            "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent.parent), *sys.path[1:]]),
            "OPENBLAS_NUM_THREADS": "1",
            "MPLBACKEND": "Agg",
        }
    )
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    if start:
        return subprocess.Popen(command, env=environment, **pipes)
    return subprocess.run(command, env=environment, timeout=timeout, check=False, **pipes)


# --- laws ----------------------------------------------------------------------------------------


def cases(quick):
    """(name, model, targets, options of `mlp.train`)."""
    from tests.test_parallel import DEEP, NORMALISED, TARGETS, S, model_for, model_of, targets_for

    t, steps = TARGETS["numbers"], {"epochs": 2 if quick else 9}
    for name, rule in OPTIMIZERS.items():
        rate = {} if getattr(rule, "own_rate", False) else {"learning_rate": 0.01}
        yield name, model_of(layers=DEEP), t, {"optimizer": name, **rate, **steps}
    for name in LOSSES:
        about = {"learning_rate": 0.001, **steps}
        yield name, model_for(name), targets_for(name), about
        yield f"{name}, weights", model_for(name), targets_for(name), {"weights": S, **about}
    for size in (1, 3, 42, None):
        yield f"batch_size {size}", model_of(), t, {"batch_size": size, **steps}
    normalised = model_of(layers=NORMALISED)
    about = {"validation": 0.3, **steps}
    for name, more in {"": {}, ", weights": {"weights": S}, ", shards": SHARDS}.items():
        yield f"statistics{name}", normalised, t, {**about, **more}
    for dtype in ("float32", "float64"):
        model = model_of("cross_entropy", dtype=dtype)
        yield f"shards {dtype}", model, TARGETS["classes"], {**about, **SHARDS}
    yield "patience", model_of(), t, {"validation": 0.3, "patience": 1, "epochs": 30}


def laws(group, backend):
    """{case: the largest difference of the weights; exactly 0 with shards}, on rank 0."""
    from tests.test_parallel import trained

    found = {}
    on_host = backend == "numpy"
    for name, model, t, options in cases(quick=not on_host):
        if not on_host and name not in ON_DEVICES:  # each has kernels to be compiled
            continue
        device = backend if backend == "numpy" else f"{backend}:{group.local}"
        model = model.to(device)
        one = trained(Group(), model, t, **options)
        several = trained(group, model, t, **options)
        w, there = (model.backend.to_numpy(x.model.w) for x in (one, several))
        found[name] = max(group.gather(float(abs(w - there).max())))
        assert group.same({"stopped": several.stopped, "w": there.tobytes()}) is None
        assert np.allclose(one.history["loss"], several.history["loss"], rtol=1e-5)
    if group.rank == 0:
        print(json.dumps(found))


def sums(group):
    """Sums over any number of ranks, of any length: right, and the same bits on all."""
    backend = mlp.get_backend("numpy")
    for n in (1, 2, 3, 5, 64, 1000):
        mine = np.random.default_rng(group.rank).normal(size=n)
        x = mine.copy()
        group.sum(backend, x)()
        assert np.allclose(x, np.sum(group.gather(mine), axis=0), rtol=1e-13)
        group.same({"bits": x.tobytes()})
    assert group.agree("") == ""
    assert group.agree("late" if group.rank else "") == ("late" if group.size > 1 else "")
    assert group.broadcast(group.rank) == 0
    if group.rank == 0:
        print(json.dumps({"ranks": group.size}))


# --- rows on disk --------------------------------------------------------------------------------

STORED = """
[data]
file = "rows.npy"
memory = "2MB"
target = "x_0"
validation = 0.1

[[layers]]
units = 4

[[layers]]
activation = "identity"

[training]
loss = "mean_squared_error"
epochs = 2
batch_size = 256
"""


def write_rows(folder, n, columns=32):
    """rows.npy, n rows of numbers, and rows.toml."""
    np.save(folder / "rows.npy", np.random.default_rng(0).normal(size=(n, columns)))
    (folder / "rows.toml").write_text(STORED)


def reads(group):
    """What each rank reads of a file of 51 MB, in files: to prepare a run, and in an epoch of
    batches of 256 rows."""
    from mlp.app.config import load
    from mlp.app.fingerprint import fingerprint
    from mlp.app.prepare import new_model, read_parts, samples_of

    with tempfile.TemporaryDirectory() if group.rank == 0 else nullcontext() as folder:
        folder = Path(group.broadcast(folder))
        if group.rank == 0:
            write_rows(folder, 200_000)
        group.wait()
        os.chdir(folder)
        config = load("rows.toml")
        with group.together():
            parts = read_parts(config, group)
            file = parts.train.X.file.file
            model = new_model(config, parts, mlp.get_backend("numpy"), group)
            samples = samples_of(model, parts, config, group)
            fingerprint(config, samples, group)
        found = {"to prepare": file.done / file.size}
        rows = {"validation": samples["validation"], "group": group, "batch_size": 256}
        for shuffle in (True, False):
            for epochs in (1, 2):
                before = file.done
                mlp.train(model, samples["train"], epochs=epochs, shuffle=shuffle, **rows)
                found[epochs] = file.done - before
            name = "an epoch" + ", not shuffled" * (not shuffle)
            found[name] = (found.pop(2) - found.pop(1)) / file.size
        for name in found:
            found[name] = [round(x, 4) for x in group.gather(found[name])]
        os.chdir("/")
        group.wait()
    if group.rank == 0:
        print(json.dumps(found))


# --- kills ---------------------------------------------------------------------------------------

LONG = 'epochs = 40\ncheckpoint = "1 epoch"\nparallel = {shards = 4}\nbatch_size = 4\n'


def children(process):
    """The ranks of a run, by their numbers."""
    found = {}
    for entry in Path("/proc").iterdir():
        try:
            about = (entry / "environ").read_bytes().split(b"\0")
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
        except (OSError, ValueError, IndexError):
            continue
        if parent == process.pid:
            ranks = [x.partition(b"=")[2] for x in about if x.startswith(b"OMPI_COMM_WORLD_RANK=")]
            if ranks:
                found[int(ranks[0])] = int(entry.name)
    return found


def wait_for(ranks):
    """Until these processes are over: mpiexec may end some milliseconds before them."""
    until = time.monotonic() + 30
    while any(Path(f"/proc/{pid}/exe").exists() for pid in ranks.values()):
        assert time.monotonic() < until, "a rank outlives mpiexec"
        time.sleep(0.005)


def killed(folder, ranks, whom, after):
    """Seconds between the kill of a rank, so long after its run's first checkpoint, and the end of
    all; what the run said; None where it had ended before."""
    arguments = ["-m", "mlp", "train", "plants.toml", "--out", "run", "--resume", "auto", "-q"]
    process = mpiexec((ranks, arguments), start=True)
    until = time.monotonic() + 60
    while not any(Path(folder, "run", "checkpoints").glob("0*")) and process.poll() is None:
        assert time.monotonic() < until, "no checkpoint in a minute"
        time.sleep(0.01)
    time.sleep(after)
    there = children(process)
    if process.poll() is not None or whom not in there:
        process.communicate()
        return None
    os.kill(there[whom], signal.SIGKILL)
    began = time.monotonic()
    process.communicate(timeout=30)
    wait_for(there)
    return time.monotonic() - began


def kills(times, seed=0):
    """Runs that lose a rank each, and then go on with other numbers of ranks to their end."""
    from tests.plants import write_plants

    draw, longest, hit = random.Random(seed), 0.0, 0
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        write_plants(Path(folder), LONG)
        whole = mpiexec((1, ["-m", "mlp", "train", "plants.toml", "--out", "whole", "-q"]))
        assert whole.returncode == 0, whole.stderr
        w = np.asarray(mlp.load("whole").w)
        while hit < times:
            ranks = draw.choice([2, 4])
            seconds = killed(folder, ranks, draw.randrange(ranks), draw.uniform(0.0, 0.5))
            if seconds is not None:
                hit, longest = hit + 1, max(longest, seconds)
            arguments = ["-m", "mlp", "train", "plants.toml", "--out", "run", "--resume", "auto"]
            done = mpiexec((draw.choice([1, 2, 4]), [*arguments, "-q"]))
            assert done.returncode == 0, done.stderr
            assert (np.asarray(mlp.load("run").w) == w).all(), "another result"
            shutil.rmtree("run")
        os.chdir("/")
    return {"kills": hit, "longest": round(longest, 2)}


if __name__ == "__main__":
    what, *rest = sys.argv[1:]
    if what == "laws":
        laws(world(), *(rest or ["numpy"]))
    elif what == "sums":
        sums(world())
    elif what == "reads":
        reads(world())
    else:
        print(json.dumps(kills(int(rest[0]))))
