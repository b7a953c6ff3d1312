"""Training on a table that is larger than the memory it may take, against one in memory.

    python -m benchmarks data --gb 6 --memory 2GB

28-300-300-1 at batch 1024, float32, inputs scaled. Steps of `mlp.train` on rows that stream from an
NPY and from a Parquet file, which are put out of the page cache first, and on 2^20 rows in memory,
in turn. Then in a fresh process all that comes before and a part of an epoch, and the most
anonymous memory that the process has meanwhile beside what it had at the start (Linux counts it).

At last what the order is good for: the accuracy after three epochs on a file sorted by its label,
with all rows permuted, in blocks, and in a window of as many rows as a buffer has.
"""

import os
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import nets
from benchmarks.report import Options, Table, ratios, spread, summary
from benchmarks.worker import Contender, alternate, once

UNITS, BATCH = [28, 300, 300, 1], 1024
TARGET = {"NPY": "x_28", "Parquet": "c28"}
FILE = {"NPY": "table.npy", "Parquet": "table.parquet"}
MEMORY = "in memory"
RESIDENT = 1 << 20  # rows in memory
AT_ONCE = 1 << 18  # rows that are made together
STEPS = 64  # that are timed together, four buffers
PART = 512  # steps of the run whose memory is looked at
SORTED = 1 << 18  # rows of the file that is sorted by its label


# ---------------------------------------------------------------------------- the table


def make(folder: Path, n: int) -> None:
    """n rows of 28 inputs and a target, float32, in both files."""
    import pyarrow
    import pyarrow.parquet

    width, rng = UNITS[0] + 1, np.random.default_rng(0)
    names = [f"c{k}" for k in range(width)]
    npy = np.lib.format.open_memmap(folder / FILE["NPY"], "w+", np.float32, (n, width))
    schema = pyarrow.schema([(name, pyarrow.float32()) for name in names])
    path = folder / FILE["Parquet"]
    with pyarrow.parquet.ParquetWriter(path, schema, use_dictionary=False) as parquet:
        for start in range(0, n, AT_ONCE):
            X = rng.standard_normal((min(AT_ONCE, n - start), width), dtype=np.float32)
            X[:, -1] = X[:, 0] * X[:, 1] + X[:, 2]
            npy[start : start + len(X)] = X
            parquet.write_table(pyarrow.table(list(X.T.copy()), schema))
    npy.flush()


def opened(folder: str, kind: str, memory: str | None = None) -> Any:
    """The rows of one of the files."""
    import mlp

    return mlp.open_rows(Path(folder) / FILE[kind], target=TARGET[kind], memory=memory)


def from_disk(rows: Any) -> None:
    """Put the rows out of the page cache, where the system can: they come from the disk then."""
    if hasattr(os, "posix_fadvise"):
        for part in (rows.X, rows.t):
            descriptor = part.file.file.file.fileno()
            os.fsync(descriptor)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)


# ---------------------------------------------------------------------------- rows a second


def steps(rows: Any, backend: str, many: int) -> Contender:
    """So many steps of `mlp.train`, one after the other, epoch after epoch."""
    import mlp
    from mlp.training.loop import epoch
    from mlp.training.setup import Setup

    model = nets.our_model(UNITS, backend)
    model.input_scaling = mlp.Scaling.standard(rows[0] if isinstance(rows, tuple) else rows.X)
    samples = model.samples(*rows) if isinstance(rows, tuple) else model.samples(rows)
    held = Setup(model, mlp.Settings(batch_size=BATCH, learning_rate=1e-3), samples)
    held.begin(None)
    if not isinstance(rows, tuple):
        from_disk(rows)
    done, at, order = 0, 0, held.order(0)

    def run() -> None:
        nonlocal done, at, order
        left = many
        while left:
            if at == len(held.batches):
                at, order = 0, held.order(1 + done // len(held.batches))
            stop = min(at + left, len(held.batches))
            epoch(held.step, held.feed, held.batches[:stop], held.places, lambda step: 1e-3,
                  number=done, seed=0, order=order, first=at)  # fmt: skip
            left, done, at = left - (stop - at), done + stop - at, stop

    return Contender(run, model.backend.synchronize, steps=many)


def in_memory(folder: str, backend: str, memory: str, many: int = STEPS) -> Contender:
    """Rows in memory, all of them permuted."""
    mapped = np.load(Path(folder) / FILE["NPY"], mmap_mode="r")
    X = np.array(mapped[:RESIDENT])
    return steps((X[:, :-1].copy(), X[:, -1].copy()), backend, many)


def streamed(folder: str, backend: str, memory: str, kind: str, many: int = STEPS) -> Contender:
    """Rows on disk, in blocks."""
    return steps(opened(folder, kind, memory), backend, many)


# ---------------------------------------------------------------------------- memory


def anonymous() -> int:
    """The bytes of this process that no file stands for."""
    with open("/proc/self/status") as status:
        return int(next(x for x in status if x.startswith("RssAnon")).split()[1]) * 1024


@contextmanager
def watched(found: dict[str, Any]) -> Any:
    """found["peak"]: the most anonymous memory within, over what there was before."""
    before, done, most = anonymous(), threading.Event(), [anonymous()]

    def watch() -> None:
        while not done.wait(0.005):
            most[0] = max(most[0], anonymous())

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    yield
    done.set()
    thread.join()
    found |= {"peak": most[0] - before, "start": before}


def held(folder: str, backend: str, memory: str, kind: str) -> dict[str, Any]:
    """What a run takes: its seconds by part, and its peak."""
    import mlp

    def training(model: Any, rows: Any, *t: Any) -> None:
        def stop(run: Any) -> None:
            if run.state.step >= PART:
                run.stop("a part of an epoch")

        callback = type("Stop", (), {"on_batch_end": staticmethod(stop)})()
        mlp.train(model, rows, *t, epochs=1, batch_size=BATCH, callbacks=[callback])

    training(nets.our_model(UNITS, backend), *nets.data(UNITS, 4 * BATCH))  # what is loaded once
    found: dict[str, Any] = {}
    with watched(found):
        found["open"], rows = timed(lambda: opened(folder, kind, memory))
        model = nets.our_model(UNITS, backend)
        found["scaling"], model.input_scaling = timed(lambda: mlp.Scaling.standard(rows.X))
        found["training"], _ = timed(lambda: training(model, rows))
    return found


def timed(call: Callable[[], Any]) -> tuple[float, Any]:
    """(seconds, what it returns)."""
    start = time.perf_counter()
    result = call()
    return time.perf_counter() - start, result


# ---------------------------------------------------------------------------- the order


def accuracies(n: int, backend: str) -> dict[str, float]:
    """Accuracy on other rows after three epochs on rows that are sorted by their label."""
    import mlp
    from mlp.data.order import BLOCK, BUFFER, BlockOrder, order
    from mlp.training.loop import epoch
    from mlp.training.setup import Setup

    rng = np.random.default_rng(0)
    X = rng.standard_normal((n + 16384, UNITS[0]), dtype=np.float32)
    score = X[:, 0] * X[:, 1] + np.sin(2 * X[:, 2]) + 0.4 * rng.standard_normal(len(X))
    t = (score > 0).astype(np.int64)
    at = np.argsort(t[:n], kind="stable")
    samples, window = (X[:n][at], t[:n][at]), BLOCK * BUFFER

    def in_a_window(seed: int, number: int, n: int) -> np.ndarray:
        rng = np.random.default_rng((seed, number))
        parts = [np.arange(i, min(i + window, n)) for i in range(0, n, window)]
        return np.concatenate([rng.permutation(rows) for rows in parts])

    found = {}
    orders = {"all rows": order, "blocks": BlockOrder, "window": in_a_window}
    for name, ordered in orders.items():
        net = mlp.Network(UNITS[0], [mlp.Dense(64, "relu"), mlp.Dense(2, "softmax")])
        model = mlp.Model(net, "cross_entropy", seed=0, backend=backend)
        held = Setup(model, mlp.Settings(batch_size=256), model.samples(*samples))
        held.begin(None)
        for number in range(3):
            before, rows = number * len(held.batches), ordered(0, number, n)
            epoch(held.step, held.feed, held.batches, held.places, lambda step: 1e-3,
                  number=before, seed=0, order=rows)  # fmt: skip
        found[name] = held.model.evaluate(X[n:], t[n:])["accuracy"]
    return found


CONTENDERS: dict[str, Any] = {
    MEMORY: in_memory,
    **{kind: partial(streamed, kind=kind) for kind in FILE},
    **{f"{kind}, memory": partial(held, kind=kind) for kind in FILE},
}


def run(options: Options) -> dict[str, Any]:
    """Make the table, measure, and print."""
    row = 4 * (UNITS[0] + 1)
    n = 8 * BATCH if options.quick else max(STEPS * BATCH, int(options.gb * 1e9 / row))
    results: dict[str, Any] = {"rows": n, "bytes": n * row, "memory": options.memory}
    print(f"\ndata: {n} rows, {n * row / 1e9:.2f} GB, memory {options.memory}", flush=True)
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR", "/var/tmp")) as folder:
        make(Path(folder), n)
        arguments = {"folder": folder, "backend": options.backend, "memory": options.memory}
        names, module = [MEMORY, *FILE], "benchmarks.data"
        many = {"many": 4 if options.quick else STEPS}
        times = alternate(module, names, arguments | many, options.timing, [MEMORY])
        results["rows_per_second"] = {
            name: summary([BATCH / s for s in seconds]) for name, seconds in times.items()
        }
        results["of_memory"] = {n: summary(ratios(times[MEMORY], times[n])) for n in times}
        print(table(results), flush=True)
        results["held"] = {
            kind: once(module, f"{kind}, memory", arguments) for kind in FILE if kind in times
        }
        print(f"\n{held_table(results)}", flush=True)
    results["accuracy"] = accuracies(n if options.quick else SORTED, options.backend)
    said = ", ".join(f"{name} {value:.3f}" for name, value in results["accuracy"].items())
    print(f"\naccuracy after 3 epochs on a file sorted by its label: {said}", flush=True)
    return results


def table(results: dict[str, Any]) -> Table:
    """Rows a second, and as a share of what they are in memory."""
    made = Table(["", "rows/s", "quartiles", "/ in memory", "quartiles"])
    for name, rate in results["rows_per_second"].items():
        share = results["of_memory"][name]
        cells = [f"{rate['median']:.0f}", spread(rate, 0), f"{share['median']:.3f}"]
        made.rows.append([name, *cells, spread(share, 3)])
    return made


def held_table(results: dict[str, Any]) -> Table:
    """What a run takes of memory, and its seconds."""
    made = Table(["", "peak, MB", "of the stated", "s to open", "to scale", f"{PART} steps"])
    from mlp.memory import size_of

    for name, found in results["held"].items():
        share = found["peak"] / size_of(results["memory"])
        seconds = [f"{found[part]:.1f}" for part in ("open", "scaling", "training")]
        made.rows.append([name, f"{found['peak'] / 1e6:.0f}", f"{share:.2f}", *seconds])
    return made


def draw(result: dict[str, Any], figure: Any) -> None:
    """A bar a source: rows a second as a share of what they are in memory."""
    shares = result["results"]["of_memory"]
    figure.set_size_inches(5, 2.4)
    axes = figure.add_subplot()
    axes.barh(list(shares), [share["median"] for share in shares.values()], color="#c1272d")
    axes.invert_yaxis()
    axes.axvline(1.0, color="#555", linewidth=1)
    axes.set_xlabel("rows a second / those in memory")
