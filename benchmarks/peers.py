"""The peers' nets and training steps, on the device beside ours.

With --backend cupy each peer has to run on that CUDA device too, or it is left out and says so:
PyTorch and JAX need their CUDA builds, scikit-learn has none. What is written for PyTorch's CUDA
graphs and JAX on a GPU follows their documentation and has not been run on one.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

from benchmarks import nets
from benchmarks.worker import Absent

B1, B2, EPSILON = 0.9, 0.999, 1e-8
Run = Callable[[Any], Any]  # a step on the given row numbers


# ------------------------------------------------------------------ scikit-learn


def sklearn_estimator(
    units: list[int], batch: int, backend: str = "numpy", kind: nets.Kind = nets.USUAL
) -> Any:
    """scikit-learn's estimator with its Adam, without a penalty."""
    activations = {"relu": "relu", "tanh": "tanh", "sigmoid": "logistic"}
    if not kind.plain or kind.activation not in activations:
        raise Absent(f"scikit-learn's MLP has no such layers: {kind}")
    if nets.cuda_index(backend) is not None:
        raise Absent("scikit-learn's MLP runs on the CPU alone")
    from sklearn.neural_network import MLPClassifier, MLPRegressor

    estimator = MLPRegressor if units[-1] == 1 else MLPClassifier
    return estimator(
        hidden_layer_sizes=tuple(units[1:-1]), activation=activations[kind.activation],
        batch_size=batch, alpha=0.0, max_iter=1,
    )  # fmt: skip


# ------------------------------------------------------------------ PyTorch


def torch_device(backend: str) -> Any:
    """PyTorch's device beside our backend."""
    import torch

    index = nets.cuda_index(backend)
    if index is None:
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise Absent(f"PyTorch {torch.__version__} has no CUDA device here")
    torch.cuda.set_device(index)
    return torch.device("cuda", index)


def torch_wait(device: Any) -> Callable[[], None]:
    """A function that waits for the device."""
    import torch

    return torch.cuda.synchronize if device.type == "cuda" else lambda: None


def torch_clock(device: Any) -> Callable[[Callable[[], Any], int], float]:
    """Seconds of one call among so many: by events on a CUDA device."""
    from backends import get_backend
    from backends.instruments import instruments

    return instruments(get_backend(f"torch:{device}")).seconds


def torch_net(units: list[int], device: Any, kind: nets.Kind = nets.USUAL) -> tuple[Any, Any]:
    """(net, loss) of PyTorch; the net gives raw outputs."""
    import torch
    from torch import nn

    if kind.weights:
        raise Absent("weights of samples are this library's alone here")
    activations = {"relu": nn.ReLU, "tanh": nn.Tanh, "silu": nn.SiLU, "gelu": nn.GELU}
    activation = (activations | {"sigmoid": nn.Sigmoid})[kind.activation]
    layers: list[nn.Module] = []
    for W, b in nets.weights(units):
        linear = nn.Linear(*W.shape)
        with torch.no_grad():
            linear.weight.copy_(torch.from_numpy(W.T))
            linear.bias.copy_(torch.from_numpy(b))
        layers += [linear, activation()]
        if kind.dropout:
            layers.append(nn.Dropout(kind.dropout))
        if kind.batch_norm:
            layers.append(nn.BatchNorm1d(W.shape[1], momentum=0.1))
    loss = nn.MSELoss() if units[-1] == 1 else nn.CrossEntropyLoss()
    while not isinstance(layers[-1], nn.Linear):
        layers.pop()
    return nn.Sequential(*layers).to(device, getattr(torch, kind.dtype)), loss


def torch_step(net: Any, cost: Any, X: Any, t: Any, eta: float, how: str, batch: int) -> Run:
    """A step of fused Adam on the rows of X and t at given numbers. how: "eager", "compiled" (net
    and loss), or "graph" (the whole step as one CUDA graph; other sizes than ``batch`` eagerly).

    Source: pytorch.org/docs, "CUDA semantics", whole-network capture.
    """
    import torch

    graph = how == "graph"
    optimizer = torch.optim.Adam(net.parameters(), lr=eta, fused=True, capturable=graph)

    def objective(x: Any, t: Any) -> Any:
        return cost(net(x), t)

    if how == "compiled":
        mode = "reduce-overhead" if X.is_cuda else None
        objective = torch.compile(objective, mode=mode)

    def step(rows: Any) -> None:
        optimizer.zero_grad()
        objective(X[rows], t[rows]).backward()
        optimizer.step()

    return _torch_graph(net, optimizer, step, X, batch) if graph else step


def _torch_graph(net: Any, optimizer: Any, step: Run, X: Any, batch: int) -> Run:
    import torch

    if not X.is_cuda:
        raise Absent("CUDA graphs need a CUDA device")
    start = [p.detach().clone() for p in net.parameters()]
    rows = torch.arange(batch, device=X.device)  # what the graph reads
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            step(rows)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    optimizer.zero_grad(set_to_none=True)
    with torch.cuda.graph(graph):
        step(rows)
    with torch.no_grad():  # as if no step had been made, in the arrays that the graph knows
        for p, value in zip(net.parameters(), start, strict=True):
            p.copy_(value)
        for state in optimizer.state.values():
            for value in state.values():
                value.zero_()

    def run(given: Any) -> None:
        if len(given) != batch:
            step(given)
            return
        rows.copy_(given)
        graph.replay()

    return run


# ------------------------------------------------------------------ JAX


def jax_on(backend: str, kind: nets.Kind = nets.USUAL) -> Any:
    """JAX with our backend's device as its default, and products in full float32."""
    import jax

    if not kind.plain:
        raise Absent(f"not written for JAX: {kind}")
    jax.config.update("jax_enable_x64", kind.dtype == "float64")

    index = nets.cuda_index(backend)
    try:
        device = jax.devices("cpu")[0] if index is None else jax.devices("cuda")[index]
    except (RuntimeError, IndexError) as error:
        raise Absent(f"JAX {jax.__version__} has no CUDA device here") from error
    jax.config.update("jax_default_device", device)
    jax.config.update("jax_default_matmul_precision", "highest")  # not TF32
    return jax


def jax_outputs(jax: Any, w: Any, x: Any, activation: str = "relu") -> Any:
    """The raw outputs of the net with weights [(W, b), ...]."""
    f = getattr(jax.nn, activation)
    f = partial(f, approximate=False) if activation == "gelu" else f
    for W, b in w[:-1]:
        x = f(x @ W + b)
    return x @ w[-1][0] + w[-1][1]


def jax_step(jax: Any, w: nets.Layers, eta: float, activation: str = "relu") -> tuple[Any, Any]:
    """(step, state) with step(state, X, t, rows) jitted, its state donated; Adam by hand. state[0]
    are the weights."""
    from jax import numpy as jnp

    def objective(w: Any, x: Any, t: Any) -> Any:
        z = jax_outputs(jax, w, x, activation)
        if z.shape[1] == 1:
            return ((z - t) ** 2).mean()
        shares = jax.nn.log_softmax(z)
        return -jnp.take_along_axis(shares, t[:, None], axis=1).mean()

    def update(state: Any, g: Any) -> Any:
        w, m, v, k = state
        k = k + 1
        m = jax.tree.map(lambda m, g: B1 * m + (1 - B1) * g, m, g)
        v = jax.tree.map(lambda v, g: B2 * v + (1 - B2) * g * g, v, g)

        def move(w: Any, m: Any, v: Any) -> Any:
            return w - eta * (m / (1 - B1**k)) / (jnp.sqrt(v / (1 - B2**k)) + EPSILON)

        return jax.tree.map(move, w, m, v), m, v, k

    def step(state: Any, X: Any, t: Any, rows: Any) -> Any:
        return update(state, jax.grad(objective)(state[0], X[rows], t[rows]))

    start = jax.tree.map(jnp.array, w)
    m, v = (jax.tree.map(jnp.zeros_like, start) for _ in range(2))
    return jax.jit(step, donate_argnums=0), (start, m, v, jnp.zeros((), start[0][0].dtype))
