"""The same net, data and starting weights for each contender, and the net as ours.

Workloads are nets n_0-...-n_L with relu between the layers, at a batch size. With more than one
output they classify (softmax, cross-entropy), with one they fit numbers (squared error). Those of
`step` have other activations, dtypes and layers too: what is unlike the usual is named (`Kind`).
"""

import itertools
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.worker import Contender

# units of each layer, batch
WORKLOADS = {
    "small": ([64, 32, 10], 32),
    "deep": ([64, *[64] * 16, 10], 128),
    "tabular": ([28, 300, 300, 300, 1], 1024),
    "medium": ([784, 512, 512, 10], 256),
    "large": ([1024, 2048, 2048, 2048, 10], 1024),
    "wide": ([4096, 4096, 10], 64),
}
# Other kinds of steps: units, batch, and what `Kind` has.
KINDS: dict[str, tuple[list[int], int, dict[str, Any]]] = {
    "tanh": ([100, 800, 400, 5], 512, {"activation": "tanh"}),
    "tanh float64": ([100, 800, 400, 5], 512, {"activation": "tanh", "dtype": "float64"}),
    "silu": ([256, 1024, 1024, 10], 2048, {"activation": "silu"}),
    "gelu": ([784, 512, 512, 10], 256, {"activation": "gelu"}),
    "sigmoid": ([784, 512, 512, 10], 256, {"activation": "sigmoid"}),
    "float64": ([784, 512, 512, 10], 256, {"dtype": "float64"}),
    "dropout": ([784, 512, 512, 10], 256, {"dropout": 0.5}),
    "batch norm": ([784, 512, 512, 10], 256, {"batch_norm": True}),
    "sample weights": ([784, 512, 512, 10], 256, {"weights": True}),
    "stochastic": ([64, 32, 10], 1, {}),
}
QUICK = {"small": ([8, 8, 3], 16), "tabular": ([6, 8, 1], 16)}


@dataclass(frozen=True)
class Kind:
    """What a step has beside units and batch. activation: of the hidden layers; dropout: after
    them; batch_norm: of a hidden layer's outputs; weights: of the samples."""

    activation: str = "relu"
    dtype: str = "float32"
    dropout: float = 0.0
    batch_norm: bool = False
    weights: bool = False

    @property
    def plain(self) -> bool:
        """Whether it is an activation and a dtype alone."""
        return not (self.dropout or self.batch_norm or self.weights)


USUAL = Kind()
HELD = ExitStack()  # crews and their threads, as long as the process lives
Layers = list[tuple[np.ndarray, np.ndarray]]


def weights(units: list[int], seed: int = 1) -> Layers:
    """(W, b) of each layer, float32: He's normal distribution, biases zero."""
    rng = np.random.default_rng(seed)
    return [
        (
            rng.standard_normal((m, k), dtype=np.float32) * np.float32((2.0 / m) ** 0.5),
            np.zeros(k, np.float32),
        )
        for m, k in itertools.pairwise(units)
    ]


def data(units: list[int], n: int, dtype: str = "float32") -> tuple[np.ndarray, np.ndarray]:
    """X (n, inputs) and t: (n,) class numbers, or (n, 1) in X's dtype for one output."""
    rng = np.random.default_rng(2)
    X = rng.standard_normal((n, units[0]), dtype=np.float32).astype(dtype)
    if units[-1] == 1:
        return X, rng.standard_normal((n, 1), dtype=np.float32).astype(dtype)
    return X, rng.integers(0, units[-1], n)


def sample_weights(n: int, dtype: str) -> np.ndarray:
    """Weights of the samples, (n,)."""
    return np.random.default_rng(4).uniform(0.5, 1.5, n).astype(dtype)


def orders(n: int, batch: int) -> list[np.ndarray]:
    """The rows of each batch, in an order drawn once."""
    return np.split(np.random.default_rng(3).permutation(n), n // batch)


def cuda_index(backend: str) -> int | None:
    """Which CUDA device a backend of ours is on, None if it is on the CPU.

    >>> [cuda_index(name) for name in ("numpy", "cupy", "cuda:1", "torch:cuda:2", "torch")]
    [None, 0, 1, 2, None]
    """
    library, _, device = backend.removeprefix("torch:").partition(":")
    return int(device or 0) if library in ("cupy", "cuda") else None


def our_backend(name: str, jit: bool | None = None) -> Any:
    """The backend, within its scope for as long as the process lives; on NumPy with formulas
    compiled by numba or not, as asked."""
    from backends import get_backend
    from backends.numpy_backend import NumpyBackend

    if jit:
        import numba  # noqa: F401, whether it is there
    chosen = get_backend(name) if name != "numpy" or jit is None else NumpyBackend(jit=jit)
    chosen.scope().__enter__()
    return chosen


def shards_of_run(model: Any, rows: int) -> dict[str, Any]:
    """What `mlp.train` cuts batches of so many rows into and who runs the shards, or products in
    as many threads as pay, for as long as the process lives; as `trained_step` takes it."""
    from mlp.parallel.crew import crew_for
    from mlp.parallel.group import ALONE
    from mlp.training.settings import Settings
    from mlp.training.setup import products, with_shards

    shards = with_shards(Settings(), model, rows, ALONE).shards
    crew = HELD.enter_context(crew_for(model.backend, shards, products(model, rows)))
    return {"shards": shards, "crew": crew}


def products_alone(backend: Any, run: Callable[[], None]) -> Contender:
    """The floor: products, recorded as one graph where the backend can."""
    from backends.instruments import instruments
    from mlp.app.backend_times import recorded

    run, eager = recorded(backend, run)
    gpu = cuda_index(backend.name) is not None
    note = f"call by call, not as a graph: {eager}" if eager and gpu else ""
    return Contender(run, backend.synchronize, clock=instruments(backend).seconds, note=note)


def our_model(units: list[int], backend: str, jit: bool | None = None, kind: Kind = USUAL) -> Any:
    """The net as a `mlp.Model`; jit: see `our_backend`."""
    import mlp

    hidden: list[Any] = []
    for m in units[1:-1]:
        about = {} if kind.batch_norm else {"dropout": kind.dropout}
        hidden.append(mlp.Dense(m, kind.activation, **about))
        if kind.batch_norm:
            hidden.append(mlp.layers.BatchNorm())
    last, loss = mlp.Dense(units[-1], "softmax"), "cross_entropy"
    if units[-1] == 1:
        last, loss = mlp.Dense(1), "mean_squared_error"
    chosen = our_backend(backend, jit)
    net = mlp.Network(units[0], [*hidden, last])
    model = mlp.Model(net, loss, backend=chosen, dtype=kind.dtype)
    W, b = net.unpack(model.w)
    for (k, l), (own, bias) in zip(sorted(W), weights(units), strict=True):
        W[k, l][...], b[l][...] = (chosen.asarray(x, kind.dtype) for x in (own, bias))
    return model
