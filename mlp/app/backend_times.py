"""How long a device takes: large products, a training step, and the products of that step alone.

A step is: gather a batch by row numbers, forward, backward, Adam. Its own products are a_k W_kl,
a_kᵀ δ_l and, but for the input, δ_l W_klᵀ; no step can be faster than they are. Times are taken by
the device's clock where it has one (`backends.instruments`), of calls that are warmed up and take
turns, so that what slows the machine for a while slows them all.
"""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from backends import Backend, BackendError
from backends.instruments import instruments
from mlp.model import Model
from mlp.parallel.crew import Crew, one_by_one
from mlp.training.settings import Settings
from mlp.training.setup import Setup
from mlp.training.step import Recorded, Step

# The dtype of the factors in each precision.
PRECISIONS = {
    "float64": "float64",
    "float32": "float32",
    "tf32": "float32",
    "mixed": "float16",
    "mixed_bfloat16": "bfloat16",
}


@dataclass(frozen=True)
class Timing:
    """rounds: measurements of a call. seconds: of each. patience: seconds that a product may take
    before no larger one is tried. longest: seconds for all rounds, at the price of rounds."""

    rounds: int = 7
    seconds: float = 0.2
    patience: float = 0.05
    longest: float = 20.0


def has(backend: Backend, precision: str) -> bool:
    """Whether the backend computes in that precision.

    >>> from backends import get_backend
    >>> [name for name in PRECISIONS if has(get_backend("numpy"), name)]
    ['float64', 'float32']
    """
    try:
        backend.require(precision)
    except BackendError:
        return False
    return True


def can_record(backend: Backend) -> bool:
    """Whether the backend records anything at all."""
    x, y = (backend.full((1,), 0.0, "float32") for _ in range(2))
    return not recorded(backend, lambda: backend.copy(x, y))[1]


def in_turn(
    backend: Backend, calls: Sequence[Callable[[], None]], timing: Timing
) -> list[list[float]]:
    """Seconds of each call, one number a round."""
    clock = instruments(backend)
    once = []
    for call in calls:
        if clock.seconds(call) < timing.seconds:
            clock.seconds(call, 3)
        once.append(max(clock.seconds(call), 1e-7))
    times = [max(1, min(1000, round(timing.seconds / seconds))) for seconds in once]
    a_round = sum(n * seconds for n, seconds in zip(times, once, strict=True))
    found: list[list[float]] = [[] for _ in calls]
    for _ in range(max(1, min(timing.rounds, int(timing.longest / a_round)))):
        for call, n, seconds in zip(calls, times, found, strict=True):
            seconds.append(clock.seconds(call, n))
    return found


def product_rates(
    backend: Backend, precision: str, largest: int, timing: Timing
) -> tuple[list[float], int]:
    """(operations a second, n) of products of n x n matrices, n as large as time and memory let
    it be: 2 n³ operations each."""
    dtype, n = PRECISIONS[precision], 64
    clock = instruments(backend)
    while True:
        a, b, out = (backend.full((n, n), 0.5, dtype) for _ in range(3))
        product = backend.product(a, b, out, precision)
        clock.seconds(product)  # what is set up once
        free, larger = backend.memory().free, 2 * n
        fits = free is None or 3 * larger**2 * np.dtype(dtype).itemsize < free / 4
        once = min(clock.seconds(product) for _ in range(3))
        if once > timing.patience or larger > largest or not fits:
            break
        n = larger
    (seconds,) = in_turn(backend, [product], timing)
    return [2.0 * n**3 / s for s in seconds], n


def training_step(*given: Any, **about: Any) -> Callable[[], None]:
    """`trained_step` without its model."""
    return trained_step(*given, **about)[0]


def trained_step(
    model: Model,
    X: Any,
    t: np.ndarray | None,
    orders: Sequence[np.ndarray],
    eta: float = 1e-3,
    record_steps: bool = False,
    shards: int | None = None,
    crew: Crew = one_by_one,
) -> tuple[Callable[[], None], Model]:
    """A step of Adam as `mlp.train` makes it; each call takes the rows of the next batch of
    ``orders``, round and round. With record_steps it is recorded; BackendError if the backend
    records nothing. shards: of a batch, whose passes ``crew`` makes. X: an array, with t, or
    samples. With it the model that it trains, a copy."""
    backend, batch = model.backend, len(orders[0])
    if record_steps and not can_record(backend):
        raise BackendError(f"backend '{backend.name}' cannot record steps")
    parallel = {} if shards is None else {"shards": shards}
    settings = Settings(batch_size=batch, record_steps=record_steps, parallel=parallel)
    held = Setup(model, settings, model.samples(X, t), crew=crew)
    held.begin(None)
    step: Step | Recorded = held.recorded or held.step
    if held.recorded is not None:
        held.recorded.begin(np.concatenate(orders), 0, 0, [(eta, 1.0)] * len(orders))
    order = held.feed.rows(np.concatenate(orders))  # they share one place on the device
    rows = itertools.cycle([step.rows_of(some, order) for some in held.batches])
    numbers = itertools.count(1)

    def run() -> None:
        step(batch, next(rows), eta, next(numbers), 0, held.places[0])

    return run, held.model


def step_products(
    backend: Backend, units: Sequence[int], batch: int, precision: str = "float32"
) -> Callable[[], None]:
    """The products of a training step alone, on arrays that exist already."""
    dtype, pairs = PRECISIONS[precision], list(itertools.pairwise(units))
    a = [backend.full((batch, m), 0.01, dtype) for m in units]
    W = [backend.full((m, k), 0.01, dtype) for m, k in pairs]
    out = [backend.full((batch, m), 0.0, dtype) for m in units]
    gW = [backend.full((m, k), 0.0, dtype) for m, k in pairs]
    calls = [backend.product(a[l], W[l], out[l + 1], precision) for l in range(len(W))]
    for l in reversed(range(len(W))):
        calls.append(backend.product(a[l].T, a[l + 1], gW[l], precision))
        if l:
            calls.append(backend.product(a[l + 1], W[l].T, out[l], precision))
    return _one_after_another(calls)


def predict_products(backend: Backend, units: Sequence[int], rows: int) -> Callable[[], None]:
    """The products of a prediction alone, all rows at once."""
    a = [backend.full((rows, m), 0.01, "float32") for m in units]
    W = [backend.full((m, k), 0.01, "float32") for m, k in itertools.pairwise(units)]
    return _one_after_another(
        [backend.product(a[l], W[l], a[l + 1], "float32") for l in range(len(W))]
    )


def _one_after_another(calls: Sequence[Callable[[], None]]) -> Callable[[], None]:
    def run() -> None:
        for call in calls:
            call()

    return run


def recorded(backend: Backend, run: Callable[[], None]) -> tuple[Callable[[], None], str]:
    """(the recorded call, ""), or (the call itself, why it cannot be recorded)."""
    run()
    backend.synchronize()
    try:
        return backend.record(run), ""
    except BackendError as error:
        return run, str(error)
