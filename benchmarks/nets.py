"""The same net, data and starting weights in each library.

Workloads are nets n_0-...-n_L with relu between the layers, at a batch size. With more than one
output they classify (softmax, cross-entropy), with one they fit numbers (squared error).
"""

import itertools
from typing import Any

import numpy as np

# units of each layer, batch
WORKLOADS = {
    "small": ([64, 32, 10], 32),
    "deep": ([64, *[64] * 16, 10], 128),
    "tabular": ([28, 300, 300, 300, 1], 1024),
    "medium": ([784, 512, 512, 10], 256),
    "large": ([1024, 2048, 2048, 2048, 10], 1024),
    "wide": ([4096, 4096, 10], 64),
}
QUICK = {"small": ([8, 8, 3], 16), "tabular": ([6, 8, 1], 16)}

Layers = list[tuple[np.ndarray, np.ndarray]]


def weights(units: list[int]) -> Layers:
    """(W, b) of each layer, float32."""
    rng = np.random.default_rng(1)
    return [
        (
            rng.standard_normal((m, k), dtype=np.float32) * np.float32((2.0 / m) ** 0.5),
            np.zeros(k, np.float32),
        )
        for m, k in itertools.pairwise(units)
    ]


def data(units: list[int], n: int) -> tuple[np.ndarray, np.ndarray]:
    """X (n, inputs) float32 and t: (n,) class numbers, or (n, 1) float32 for one output."""
    rng = np.random.default_rng(2)
    X = rng.standard_normal((n, units[0]), dtype=np.float32)
    if units[-1] == 1:
        return X, rng.standard_normal((n, 1), dtype=np.float32)
    return X, rng.integers(0, units[-1], n)


def orders(n: int, batch: int) -> list[np.ndarray]:
    """The rows of each batch, in an order drawn once."""
    return np.split(np.random.default_rng(3).permutation(n), n // batch)


def our_backend(name: str, jit: bool | None = None) -> Any:
    """The backend; on NumPy with formulas compiled by numba or not, as asked."""
    from backends import get_backend
    from backends.numpy_backend import NumpyBackend

    if jit:
        import numba  # noqa: F401, whether it is there
    return get_backend(name) if name != "numpy" or jit is None else NumpyBackend(jit=jit)


def our_model(units: list[int], backend: str, jit: bool | None = None) -> Any:
    """The net as a `mlp.Model`; jit: see `our_backend`."""
    import mlp

    hidden = [mlp.Dense(m, "relu") for m in units[1:-1]]
    last, loss = mlp.Dense(units[-1], "softmax"), "cross_entropy"
    if units[-1] == 1:
        last, loss = mlp.Dense(1), "mean_squared_error"
    layers = weights(units)
    w = np.concatenate([W.ravel() for W, _ in layers] + [b for _, b in layers])
    return mlp.Model(
        mlp.Network(units[0], [*hidden, last]), loss, w=w, backend=our_backend(backend, jit)
    )


def sklearn_estimator(units: list[int], batch: int) -> Any:
    """scikit-learn's estimator with its Adam, without a penalty."""
    from sklearn.neural_network import MLPClassifier, MLPRegressor

    estimator = MLPRegressor if units[-1] == 1 else MLPClassifier
    return estimator(hidden_layer_sizes=tuple(units[1:-1]), batch_size=batch, alpha=0.0, max_iter=1)


def torch_net(units: list[int], device: str) -> tuple[Any, Any]:
    """(net, loss) of PyTorch; the net gives raw outputs."""
    import torch
    from torch import nn

    layers: list[nn.Module] = []
    for W, b in weights(units):
        linear = nn.Linear(*W.shape)
        with torch.no_grad():
            linear.weight.copy_(torch.from_numpy(W.T))
            linear.bias.copy_(torch.from_numpy(b))
        layers += [linear, nn.ReLU()]
    loss = nn.MSELoss() if units[-1] == 1 else nn.CrossEntropyLoss()
    return nn.Sequential(*layers[:-1]).to(device), loss


def torch_device(backend: str) -> str:
    """PyTorch's device beside our backend: CUDA with cupy, where it has one."""
    import torch

    return "cuda" if backend != "numpy" and torch.cuda.is_available() else "cpu"


def torch_wait(device: str) -> Any:
    """A function that waits for the device."""
    import torch

    return torch.cuda.synchronize if device == "cuda" else lambda: None
