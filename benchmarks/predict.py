"""Predictions: rows a second at batch 1, 64, 4,096 and 10,000, and the latency of one row.

From a host array to a host array of probabilities or numbers; with --backend cupy from one on the
device to one there, but for ONNX Runtime, which takes and gives host arrays. The floor is the
products, by the same BLAS, all rows at once.
"""

from functools import partial
from typing import Any

import numpy as np

from benchmarks import nets, peers
from benchmarks.report import FLOOR, Options, Table, ratios, spread, style, summary
from benchmarks.worker import Absent, Contender, alternate
from mlp.data.scaling import Scaling

ROWS = (1, 64, 4096, 10_000)
QUICK_ROWS = (1, 64)


def _checked(units: list[int], rows: int, predict: Any, to_numpy: Any = np.asarray) -> float:
    """The first output's mean over the rows, by which contenders are seen to agree."""
    return float(np.abs(to_numpy(predict())[:, 0]).mean())


def floor(units: list[int], rows: int, backend: str) -> Contender:
    """The products alone."""
    from mlp.app.backend_times import predict_products

    chosen = nets.our_backend(backend)
    return nets.products_alone(chosen, predict_products(chosen, units, rows))


def ours(
    units: list[int], rows: int, backend: str, jit: bool | None = None, scaled: bool = False
) -> Contender:
    """`Model.predict`; scaled: of a model that scales its inputs, here to what they are."""
    from backends.instruments import instruments

    model = nets.our_model(units, backend, jit)
    if scaled:
        model.input_scaling = Scaling(np.zeros(units[0]), np.ones(units[0]))
    X = model.backend.asarray(nets.data(units, rows)[0])
    predict = partial(model.predict, X)
    check = partial(_checked, units, rows, predict, model.backend.to_numpy)
    wait, clock = model.backend.synchronize, instruments(model.backend).seconds
    return Contender(predict, wait, check=check, clock=clock)


def sklearn(units: list[int], rows: int, backend: str) -> Contender:
    """`predict_proba`, or `predict` of numbers."""
    estimator = peers.sklearn_estimator(units, 64, backend)
    X, t = nets.data(units, 64)
    classes = {} if units[-1] == 1 else {"classes": np.arange(units[-1])}
    estimator.partial_fit(X, t.ravel(), **classes)
    layers = nets.weights(units)
    estimator.coefs_, estimator.intercepts_ = (list(part) for part in zip(*layers, strict=True))
    method = estimator.predict if units[-1] == 1 else estimator.predict_proba
    predict = partial(method, nets.data(units, rows)[0])

    def check() -> float:
        return _checked(units, rows, lambda: predict().reshape(rows, -1))

    return Contender(predict, check=check)


def torch(units: list[int], rows: int, backend: str, compiled: bool = False) -> Contender:
    """PyTorch in inference mode."""
    import torch

    device = peers.torch_device(backend)
    net = peers.torch_net(units, device)[0].eval()
    if compiled:  # on a GPU replayed as CUDA graphs
        net = torch.compile(net, mode="reduce-overhead" if device.type == "cuda" else None)
    X = nets.data(units, rows)[0]
    on_device = torch.from_numpy(X).to(device)

    def predict() -> Any:
        with torch.inference_mode():
            y = net(torch.from_numpy(X) if device.type == "cpu" else on_device)
            y = y if units[-1] == 1 else y.softmax(dim=1)
            return y.numpy() if device.type == "cpu" else y

    check = partial(_checked, units, rows, predict, lambda y: np.asarray(torch.as_tensor(y).cpu()))
    wait, clock = peers.torch_wait(device), peers.torch_clock(device)
    return Contender(predict, wait, check=check, clock=clock)


def jax(units: list[int], rows: int, backend: str) -> Contender:
    """JAX, jitted; on a GPU the array stays there."""
    jax = peers.jax_on(backend)
    w = jax.tree.map(jax.numpy.array, nets.weights(units))
    X = nets.data(units, rows)[0]
    on_device = jax.numpy.asarray(X)

    def outputs(w: Any, x: Any) -> Any:
        z = peers.jax_outputs(jax, w, x)
        return z if units[-1] == 1 else jax.nn.softmax(z, axis=1)

    jitted = jax.jit(outputs)
    if nets.cuda_index(backend) is None:
        predict = lambda: np.asarray(jitted(w, X))  # noqa: E731
        return Contender(predict, check=partial(_checked, units, rows, predict))
    last = None

    def on_there() -> Any:
        nonlocal last
        last = jitted(w, on_device)
        return last

    check = partial(_checked, units, rows, on_there)
    return Contender(on_there, lambda: jax.block_until_ready(last), check=check)


def onnx(units: list[int], rows: int, backend: str) -> Contender:
    """ONNX Runtime as it comes, on a graph of Gemm, Relu and Softmax."""
    import onnxruntime
    from onnx import TensorProto, checker, helper, numpy_helper

    nodes, constants = [], []
    layers, source = nets.weights(units), "x"
    for l, (W, b) in enumerate(layers, start=1):
        constants += [numpy_helper.from_array(W, f"W{l}"), numpy_helper.from_array(b, f"b{l}")]
        nodes.append(helper.make_node("Gemm", [source, f"W{l}", f"b{l}"], [f"z{l}"]))
        source = f"z{l}"
        if l < len(layers):
            nodes.append(helper.make_node("Relu", [source], [f"a{l}"]))
            source = f"a{l}"
        elif units[-1] > 1:
            nodes.append(helper.make_node("Softmax", [source], ["y"], axis=1))
            source = "y"
    x, y = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["rows", m])
        for name, m in (("x", units[0]), (source, units[-1]))
    )
    graph = helper.make_graph(nodes, "mlp", [x], [y], constants)
    opset = [helper.make_opsetid("", 17)]
    model = helper.make_model(graph, opset_imports=opset, ir_version=8)
    checker.check_model(model)
    providers, index = ["CPUExecutionProvider"], nets.cuda_index(backend)
    if index is not None:
        if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
            raise Absent(f"ONNX Runtime {onnxruntime.__version__} is a build without CUDA")
        providers = [("CUDAExecutionProvider", {"device_id": index, "use_tf32": 0})]
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=providers)
    X = nets.data(units, rows)[0]

    def predict() -> np.ndarray:
        return session.run(None, {"x": X})[0]

    return Contender(predict, check=partial(_checked, units, rows, predict))


CONTENDERS = {
    FLOOR: floor,
    "array-mlp[jit]": partial(ours, jit=True),
    "array-mlp": partial(ours, jit=False),
    "array-mlp scaled": partial(ours, scaled=True),
    "ONNX Runtime": onnx,
    "PyTorch compiled": partial(torch, compiled=True),
    "PyTorch": torch,
    "JAX": jax,
    "scikit-learn": sklearn,
}
NEEDED = (FLOOR, "array-mlp")


def run(options: Options) -> dict[str, Any]:
    """Measure and print the chosen workloads."""
    known = nets.QUICK if options.quick else nets.WORKLOADS
    results = {}
    for workload in options.workloads or known:
        units, _ = known[workload]
        print(f"\npredict, {workload}: {'-'.join(map(str, units))}", flush=True)
        measured = {}
        for rows in QUICK_ROWS if options.quick else ROWS:
            arguments = {"units": units, "rows": rows, "backend": options.backend}
            names = options.chosen(list(CONTENDERS), NEEDED)
            times = alternate("benchmarks.predict", names, arguments, options.timing, NEEDED)
            measured[rows] = {
                "seconds": times,
                "over_floor": {n: summary(ratios(times[n], times[FLOOR])) for n in times},
            }
            print(table(rows, times), flush=True)
        results[workload] = {"units": units, "rows": measured}
    return results


def table(rows: int, times: dict[str, list[float]]) -> Table:
    """A row a contender: time of a call, rows a second, ratio to the floor, and ours to it."""
    best = next(n for n in ("array-mlp[jit]", "array-mlp") if n in times)
    made = Table([f"{rows} rows", "us", "quartiles", "rows/s", "/ floor", "quartiles", f"/ {best}"])
    for name, seconds in times.items():
        time, ratio = summary([s * 1e6 for s in seconds]), summary(ratios(seconds, times[FLOOR]))
        made.rows.append(
            [
                name,
                f"{time['median']:.1f}",
                spread(time, 1),
                f"{rows / time['median'] * 1e6:,.0f}",
                f"{ratio['median']:.2f}",
                spread(ratio),
                f"{summary(ratios(seconds, times[best]))['median']:.2f}",
            ]
        )
    return made


def draw(result: dict[str, Any], figure: Any) -> None:
    """A panel a workload: rows a second against rows at once."""
    workloads = result["results"]
    columns = min(3, len(workloads))
    lines = -(-len(workloads) // columns)
    figure.set_size_inches(3.2 * columns, 0.9 + 2.5 * lines)
    panels = figure.subplots(lines, columns, squeeze=False)
    for panel in panels.flat[len(workloads) :]:
        panel.remove()
    for panel, (name, measured) in zip(panels.flat, workloads.items(), strict=False):
        rows = list(measured["rows"])
        for contender in measured["rows"][rows[0]]["seconds"]:
            there = [r for r in rows if contender in measured["rows"][r]["seconds"]]
            medians = [summary(measured["rows"][r]["seconds"][contender])["median"] for r in there]
            look = style(contender) | ({"linestyle": ":"} if contender == FLOOR else {})
            speeds = [r / m for r, m in zip(there, medians, strict=True)]
            panel.plot(there, speeds, label=contender, markersize=4, linewidth=1.2, **look)
        panel.set_xscale("log")
        panel.set_yscale("log")
        panel.set_title(name, fontsize=9, loc="left")
        panel.grid(alpha=0.25)
    figure.supylabel("rows a second", fontsize=9)
    for panel in panels[-1]:
        panel.set_xlabel("rows at once")
    handles, labels = panels.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=6, frameon=False)
