"""One backend on this machine: does it compute what NumPy computes, and how fast?

What `mlp backends --check NAME` prints: a report in Markdown that can be pasted into an issue. The
checks compare with NumPy and show the error that was measured beside the one that is allowed:

    kernel      a formula as one kernel against the formula in float64, relative
    products    A B, both factors plain or transposed: |error| / (|A| |B|), at most k eps for sums
                of k terms (Higham, Accuracy and Stability of Numerical Algorithms, eq. 3.13)
    gradient    backpropagation against central differences (`mlp.check_gradient`)
    training    the losses of 50 steps against NumPy's from the same seed, relative
    repeated    the weights of two runs from one seed, bit for bit
    recorded    the weights of a run whose steps are recorded and replayed, bit for bit
    moved       saved on this backend, gone on with on NumPy and then here again: the losses
                against those of a run on NumPy that never stopped, relative
    memory      bytes held at the end of epoch 2, 3, ..., where the library tells

The times are those of `mlp.app.backend_times`: the limit of the device, which is its large
products, and training steps beside their own products alone.
"""

import itertools
import os
import platform
import statistics
import tempfile
import tracemalloc
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from backends import Backend, BackendError
from backends.instruments import instruments
from mlp.app.backend_times import (
    PRECISIONS,
    Timing,
    can_record,
    has,
    in_turn,
    product_rates,
    recorded,
    step_products,
    training_step,
)
from mlp.check_gradient import gradient_check
from mlp.formulas.activations import ActivationName
from mlp.layers.dense import Dense
from mlp.memory import megabytes
from mlp.model import Model, load_model, save_model
from mlp.network.graph import Network
from mlp.training.checkpoint import load_state, save_state
from mlp.training.loop import train
from mlp.training.run import Result

DTYPES = ("float64", "float32")
# Of losses after 50 steps, relative; tf32 and mixed round factors to 10 bits in every product.
ALLOWED = {"float64": 1e-10, "float32": 1e-4, "tf32": 1e-2, "mixed": 1e-2, "mixed_bfloat16": 5e-2}
TF32 = 2.0**-10  # of a factor, relative: 10 bits of fraction, rounded or cut off
ENVIRONMENT = (
    *("CUDA_VISIBLE_DEVICES", "CUDA_LAUNCH_BLOCKING", "NVIDIA_TF32_OVERRIDE"),
    *("CUPY_ACCELERATORS", "CUPY_GPU_MEMORY_LIMIT", "CUPY_TF32"),
    *("MLP_BACKEND", "MLP_JIT", "OMP_NUM_THREADS", "OPENBLAS_CORETYPE", "OPENBLAS_NUM_THREADS"),
)


class CheckFailed(Exception):
    """An error above what is allowed; the arguments are the cells of the report's row."""


class NotChecked(Exception):
    """Something that this backend does not have; the message says what."""


@dataclass(frozen=True)
class Sizes:
    """What is timed. nets: (units, batch) of each. largest: of square matrices."""

    nets: Sequence[tuple[Sequence[int], int]] = (
        ((784, 512, 512, 10), 256),
        ((1024, 2048, 2048, 2048, 10), 1024),
    )
    largest: int = 8192
    timing: Timing = field(default_factory=Timing)


# The shortest that goes through everything; its times mean nothing.
QUICK = Sizes((((16, 12, 4), 16),), largest=128, timing=Timing(2, 0.001, 0.001))

Measure = Callable[[], Sequence[str]]  # the cells of a row
Column = tuple[str, int]  # name and width


class BackendCheck:
    """The report on a backend; ``failed`` names what has failed so far.

    >>> from backends import get_backend
    >>> check = BackendCheck(get_backend("numpy"), QUICK)
    >>> next(check.lines()), len(list(check.lines())) > 20, check.failed
    ('# Backend `numpy` on this machine', True, [])
    """

    def __init__(self, backend: Backend, sizes: Sizes | None = None):
        self.backend, self.sizes = backend, sizes or Sizes()
        self.failed: list[str] = []

    def lines(self) -> Iterator[str]:
        """The report, line by line as it comes about. What fails is shown, and the rest goes on."""
        name, rounds = self.backend.name, self.sizes.timing.rounds
        columns: dict[str, list[Column]] = {
            "check": [("check", 18), ("", 4), ("error", 9), ("allowed", 9)],
            "product": [("product", 18), ("", 4), ("GFLOP/s", 26), ("n", 5)],
            "step": [
                ("step", 55),
                ("", 4),
                ("ms", 24),
                ("products alone, ms", 24),
                ("they are", 12),
                ("products / step", 20),
            ],
        }
        with self.backend.scope():
            yield f"# Backend `{name}` on this machine"
            yield ""
            yield from self._facts()
            yield from ("", "## Checks", "")
            yield from self._table(columns["check"], checks(self.backend), "pass")
            yield from ("", "## Times", "")
            yield "Times are of this machine, with whatever else ran on it."
            yield f"Medians of up to {rounds} rounds; in brackets the lowest and the highest."
            yield ""
            yield from self._table(columns["product"], self._products())
            yield ""
            yield from self._table(columns["step"], self._steps())
            yield ""
            yield f"FAILED: {'; '.join(self.failed)}" if self.failed else "Nothing failed."

    def _facts(self) -> Iterator[str]:
        """Versions, device, memory, and what the environment says to the libraries."""
        import mlp

        backend, memory = self.backend, self.backend.memory()
        facts = {
            "array-mlp": mlp.__version__,
            "Python": platform.python_version(),
            "NumPy": np.__version__,
            "library": backend.version(),
            "system": platform.platform(),
            "device": backend.device_name(),
            "memory": f"{megabytes(memory.free)} free of {megabytes(memory.total)}",
        }
        try:
            facts |= instruments(backend).facts()
        except Exception as error:  # as in `_table`
            facts["not told"] = f"{type(error).__name__}: {error}"
        facts |= {name: os.environ[name] or "''" for name in ENVIRONMENT if name in os.environ}
        columns = [("", 22), ("", 40)]
        yield _row(columns, [])
        yield _row(columns, ["-" * width for _, width in columns])
        for name, value in facts.items():
            yield _row(columns, [name, value])

    def _table(
        self, columns: Sequence[Column], rows: Mapping[str, Measure], good: str = ""
    ) -> Iterator[str]:
        """Each row as soon as it is known, then the texts of what was raised."""
        texts: dict[str, str] = {}
        yield _row(columns, [name for name, _ in columns])
        yield _row(columns, ["-" * width for _, width in columns])
        for name, measure in rows.items():
            try:
                cells = [good, *measure()]
            except NotChecked as reason:
                cells = ["-", str(reason)]
            except CheckFailed as error:
                cells = ["FAIL", *error.args]
                self.failed.append(name)
            except Exception as error:  # whatever it is: it is shown whole, and the rest goes on
                cells = ["FAIL", "below"]
                self.failed.append(name)
                texts[name] = f"{type(error).__name__}: {error}"
            yield _row(columns, [name, *cells])
        for name, text in texts.items():
            yield from ("", f"{name}:", "")
            yield from (f"    {line}" for line in text.splitlines())

    # ------------------------------------------------------------------ times

    def _products(self) -> dict[str, Measure]:
        def rate(precision: str) -> Measure:
            def measure() -> Sequence[str]:
                found, n = product_rates(
                    self.backend, precision, self.sizes.largest, self.sizes.timing
                )
                return spread([rate / 1e9 for rate in found]), str(n)

            return measure

        return {name: rate(name) for name in PRECISIONS if has(self.backend, name)}

    def _steps(self) -> dict[str, Measure]:
        def step(units: Sequence[int], batch: int, precision: str, graphs: bool) -> Measure:
            def measure() -> Sequence[str]:
                backend = self.backend
                X, t = points(units, 4 * batch)
                orders = np.split(np.random.default_rng(3).permutation(4 * batch), 4)
                model = net(units, "relu", backend, precision)
                try:
                    run = training_step(model, X, t, orders, record_steps=graphs)
                except BackendError as error:
                    raise NotChecked(str(error)) from error
                alone_on = step_products(backend, units, batch, precision)
                products, eager = recorded(backend, alone_on)
                steps, alone = in_turn(backend, [run, products], self.sizes.timing)
                share = [a / s for a, s in zip(alone, steps, strict=True)]
                return (
                    spread([1e3 * seconds for seconds in steps]),
                    spread([1e3 * seconds for seconds in alone]),
                    "call by call" if eager else "recorded",
                    spread(share),
                )

            return measure

        rows = {}
        for units, batch in self.sizes.nets:
            for precision in ("float32", "tf32", "mixed", "mixed_bfloat16"):
                if has(self.backend, precision):
                    name = f"{'-'.join(map(str, units))}, batch {batch}, {precision}"
                    rows[name] = step(units, batch, precision, graphs=False)
                    if can_record(self.backend):
                        rows[f"{name}, recorded"] = step(units, batch, precision, graphs=True)
        return rows


# ------------------------------------------------------------------ the checks


def checks(backend: Backend) -> dict[str, Measure]:
    """What is checked, by name."""

    def row(check: Callable[..., Sequence[str]], *arguments: str) -> Measure:
        return lambda: check(backend, *arguments)

    rows = {f"kernel, {dtype}": row(kernel, dtype) for dtype in DTYPES}
    rows |= {f"products, {name}": row(products, name) for name in PRECISIONS}
    rows["gradient"] = row(gradient)
    for name, check in (("training", training), ("repeated", repeated), ("recorded", replayed)):
        rows |= {f"{name}, {precision}": row(check, precision) for precision in PRECISIONS}
    rows |= {f"moved, {dtype}": row(moved, dtype) for dtype in DTYPES}
    rows["memory"] = row(memory)
    return rows


def within(error: float, allowed: float) -> Sequence[str]:
    """Both as text. Raises CheckFailed with the same if the error is larger, or NaN."""
    cells = f"{error:.1e}", f"{allowed:.1e}"
    if not error <= allowed:
        raise CheckFailed(*cells)
    return cells


def kernel(backend: Backend, dtype: str) -> Sequence[str]:
    """A formula with most of what formulas are made of."""

    def formula(xp: Any, x: Any, y: Any, a: Any) -> Any:
        bent = xp.where(x > y, xp.sqrt(xp.abs(x)) * a, xp.expm1(xp.minimum(x, y)))
        return bent + xp.tanh(x) - xp.log1p(xp.exp(-xp.abs(y)))

    x, y = draw((300, 7), dtype), draw((7,), dtype, seed=1)
    expected = formula(np, x.astype("float64"), y.astype("float64"), 0.5)
    there = backend.asarray(x.copy())
    backend.fuse(formula).bind(there, backend.asarray(y), scalars=1)(0.5)
    error = abs(backend.to_numpy(there) - expected) / np.maximum(1.0, abs(expected))
    return within(float(error.max()), 16.0 * float(np.finfo(dtype).eps))


def products(backend: Backend, precision: str) -> Sequence[str]:
    """All four products of plain and transposed factors. Those of float16 and of bfloat16 are
    exact in float32, in which they are summed."""
    if not has(backend, precision):
        raise NotChecked("this backend has no such precision")
    n, k, m = 65, 130, 33
    dtype = PRECISIONS[precision]
    sums = "float64" if dtype == "float64" else "float32"
    a, b = draw((n, k), dtype), draw((k, m), dtype, seed=1)
    exact = a.astype("float64") @ b.astype("float64")
    size = abs(a).astype("float64") @ abs(b).astype("float64")
    errors = []
    for turn_a, turn_b in itertools.product((False, True), repeat=2):
        left = backend.asarray(np.ascontiguousarray(a.T)).T if turn_a else backend.asarray(a)
        right = backend.asarray(np.ascontiguousarray(b.T)).T if turn_b else backend.asarray(b)
        out = backend.full((n, m), 9.0, sums)
        backend.product(left, right, out, precision)()
        errors.append(abs(backend.to_numpy(out) - exact) / size)
    allowed = k * float(np.finfo(sums).eps) + (2.0 * TF32 if precision == "tf32" else 0.0)
    return within(float(np.max(errors)), allowed)


def gradient(backend: Backend) -> Sequence[str]:
    """`mlp.check_gradient` on a small net."""
    found = gradient_check(net(UNITS, "tanh", backend), *points(UNITS, 20))
    return within(found.error, found.tolerance)


def training(backend: Backend, precision: str) -> Sequence[str]:
    """10 epochs of 5 batches."""
    found = run(backend, precision).history["loss"]
    wide = "float64" if precision == "float64" else "float32"
    expected = run(plain(), wide).history["loss"]
    return within(difference(found, expected), ALLOWED[precision])


def repeated(backend: Backend, precision: str) -> Sequence[str]:
    """The same bits: sums on the device have one order."""
    return same_bits(*(backend.to_numpy(run(backend, precision).state.w) for _ in range(2)))


def replayed(backend: Backend, precision: str) -> Sequence[str]:
    """Steps that are recorded and replayed, against steps that are run call by call."""
    if not can_record(backend):
        raise NotChecked("this backend cannot record")
    recorded, eager = (run(backend, precision, record_steps=graphs) for graphs in (True, False))
    return same_bits(backend.to_numpy(recorded.state.w), backend.to_numpy(eager.state.w))


def same_bits(one: np.ndarray, other: np.ndarray) -> Sequence[str]:
    """Raises CheckFailed, with the largest relative difference, if one bit differs."""
    if one.tobytes() != other.tobytes():
        raise CheckFailed(f"{difference(one, other):.1e}", "the same bits")
    return "0", "the same bits"


def moved(backend: Backend, dtype: str) -> Sequence[str]:
    """2 epochs here, 2 on NumPy, 2 here, each from files."""
    host = plain()
    expected = run(host, dtype, epochs=6).history["loss"]
    result = run(backend, dtype, epochs=2)
    with tempfile.TemporaryDirectory() as folder:
        model_file, state_file = Path(folder) / "model", Path(folder) / "state"
        for epochs, there in ((4, host), (6, backend)):
            save_model(result.model, model_file)
            save_state(result.state, state_file, result.model.backend)
            model, state = load_model(model_file, there), load_state(state_file)
            result = run(there, dtype, model, epochs=epochs, state=state)
    return within(difference(result.history["loss"], expected), ALLOWED[dtype])


def memory(backend: Backend) -> Sequence[str]:
    """Nothing is left behind by an epoch. Of host arrays `tracemalloc` tells."""
    device, held, traced = instruments(backend), [], tracemalloc.is_tracing()
    if not traced:
        tracemalloc.start()
    try:
        run(backend, "float32", callbacks=[lambda _: held.append(device.held())])
    finally:
        if not traced:
            tracemalloc.stop()
    known = [size for size in held if size is not None]
    if len(known) < len(held):
        raise NotChecked("the library does not tell")
    growth = max(known[1:]) - min(known[1:])
    if growth:
        raise CheckFailed(f"{growth} B", "0 B")
    return "0 B", "0 B"


# ------------------------------------------------------------------ nets and data

UNITS = (12, 16, 9, 3)


def plain() -> Backend:
    """NumPy's own loops, with which the others are compared."""
    from backends.numpy_backend import NumpyBackend

    return NumpyBackend(jit=False)


def draw(shape: tuple[int, ...], dtype: str, seed: int = 0) -> np.ndarray:
    """Numbers of the standard normal distribution."""
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def points(units: Sequence[int], n: int) -> tuple[np.ndarray, np.ndarray]:
    """X (n, inputs) float32 and class numbers (n,)."""
    return draw((n, units[0]), "float32"), np.random.default_rng(1).integers(0, units[-1], n)


def net(
    units: Sequence[int], activation: ActivationName, backend: Backend, precision: str = "float32"
) -> Model:
    """A classifier of these units."""
    layers = [Dense(m, activation) for m in units[1:-1]]
    network = Network(units[0], [*layers, Dense(units[-1], "softmax")])
    return Model(network, "cross_entropy", seed=0, backend=backend, precision=precision)


def run(backend: Backend, precision: str, model: Model | None = None, **options: Any) -> Result:
    """A run of 5 batches an epoch, of this model or a new one. NotChecked if the backend does not
    have the precision."""
    if not has(backend, precision):
        raise NotChecked("this backend has no such precision")
    settings = {"epochs": 10, "batch_size": 50, "learning_rate": 0.01} | options
    return train(model or net(UNITS, "tanh", backend, precision), *points(UNITS, 250), **settings)


def difference(found: Any, expected: Any) -> float:
    """The largest |found - expected| / |expected|."""
    found, expected = np.asarray(found, dtype="float64"), np.asarray(expected, dtype="float64")
    size = np.maximum(abs(expected), np.finfo("float64").tiny)
    return float((abs(found - expected) / size).max())


# ------------------------------------------------------------------ text


def spread(values: Sequence[float]) -> str:
    """Median (lowest-highest), three digits each.

    >>> spread([0.051234, 1234.5, 7.0])
    '7 (0.0512-1234)'
    """
    middle, low, high = (
        f"{x:.3g}" if x < 100.0 else f"{x:.0f}"
        for x in (statistics.median(values), min(values), max(values))
    )
    return f"{middle} ({low}-{high})"


def _row(columns: Sequence[Column], cells: Sequence[str]) -> str:
    filled = [*cells, *[""] * (len(columns) - len(cells))]
    padded = [cell.ljust(width) for cell, (_, width) in zip(filled, columns, strict=True)]
    return f"| {' | '.join(padded)} |"
