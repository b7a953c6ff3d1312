"""Cost against rows, width, depth and batch: slopes on log axes, ours beside the products alone.

rows: a whole `mlp.train` of one epoch, so that what grows faster than the data would be seen; the
others: one step. A slope of 1 is proportional growth, of 2 the square (width, once it is large).
"""

import math
from dataclasses import replace
from functools import partial
from typing import Any

from benchmarks import nets, step
from benchmarks.report import FLOOR, Options, Table, style, summary
from benchmarks.worker import Contender, alternate

SIZES = {
    "rows": [2**k for k in range(11, 19)],
    "width": [2**k for k in range(5, 12)],
    "depth": [2**k for k in range(1, 8)],
    "batch": [2**k for k in range(3, 14)],
}
QUICK_SIZES = {"rows": [256, 512], "batch": [8, 16]}


def workload(axis: str, size: int) -> dict[str, Any]:
    """Units and batch at a place on an axis, and the rows of an epoch on the first."""
    if axis == "rows":
        return {"units": [32, 64, 64, 10], "batch": 128, "rows": size}
    if axis == "width":
        return {"units": [64, size, size, 10], "batch": 128}
    if axis == "depth":
        return {"units": [64] * size + [10], "batch": 128}
    return {"units": [64, 128, 128, 10], "batch": size}


def epoch(units: list[int], batch: int, rows: int, backend: str, jit: bool = False) -> Contender:
    """`mlp.train` for one epoch."""
    import mlp

    X, t = nets.data(units, rows)
    model = nets.our_model(units, backend, jit)
    return Contender(
        lambda: mlp.train(model, X, t, batch_size=batch, epochs=1), model.backend.synchronize
    )


def ours(rows: int = 0, **arguments: Any) -> Contender:
    """An epoch, or one step."""
    return epoch(rows=rows, **arguments) if rows else step.ours(**arguments)


def floor(batch: int, rows: int = 0, **arguments: Any) -> Contender:
    """The products of a step, or of an epoch."""
    products = step.floor(batch=batch, **arguments)

    def run() -> None:
        for _ in range(max(1, rows // batch)):
            products.run()

    return Contender(run, products.wait)


CONTENDERS = {
    FLOOR: floor,
    "array-mlp[jit]": partial(ours, jit=True),
    "array-mlp": partial(ours, jit=False),
}
NEEDED = (FLOOR, "array-mlp")


def run(options: Options) -> dict[str, Any]:
    """Measure and print each axis."""
    results: dict[str, Any] = {}
    timing = replace(options.timing, rounds=max(2, options.timing.rounds // 3))
    for axis, sizes in (QUICK_SIZES if options.quick else SIZES).items():
        print(f"\nscaling, {axis}", flush=True)
        points: dict[int, dict[str, float]] = {}
        names = options.chosen(list(CONTENDERS), NEEDED)
        for size in sizes:
            arguments = workload(axis, size) | {"backend": options.backend}
            times = alternate("benchmarks.scaling", names, arguments, timing, NEEDED)
            points[size] = {name: summary(seconds)["median"] for name, seconds in times.items()}
        results[axis] = points
        print(table(axis, points), flush=True)
    return results


def slope(points: dict[int, dict[str, float]], name: str, sizes: list[int]) -> float:
    """The exponent of the growth: a straight line through the logarithms, by least squares."""
    x = [math.log(size) for size in sizes]
    y = [math.log(points[size][name]) for size in sizes]
    mean_x, mean_y = sum(x) / len(x), sum(y) / len(y)
    above = sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True))
    return above / sum((a - mean_x) ** 2 for a in x)


def table(axis: str, points: dict[int, dict[str, float]]) -> Table:
    """A row a size, and the slopes over all sizes and over the upper half."""
    sizes = list(points)
    names = list(points[sizes[0]])
    made = Table([axis, *(f"{name}, us" for name in names)])
    for size in sizes:
        made.rows.append([size, *(f"{points[size][name] * 1e6:.1f}" for name in names)])
    upper = sizes[min(len(sizes) // 2, len(sizes) - 2) :]
    for label, part in (("slope", sizes), (f"from {upper[0]} on", upper)):
        made.rows.append([label, *(f"{slope(points, name, part):.2f}" for name in names)])
    return made


def draw(result: dict[str, Any], figure: Any) -> None:
    """A panel an axis, both scales logarithmic, a straight line of slope 1 to compare."""
    axes = result["results"]
    figure.set_size_inches(8, 0.4 + 1.3 * len(axes))
    panels = figure.subplots(len(axes) // 2, 2, squeeze=False)
    for panel, (axis, points) in zip(panels.flat, axes.items(), strict=True):
        sizes = list(points)
        for name in points[sizes[0]]:
            values = [1e3 * points[size][name] for size in sizes]
            upper = sizes[min(len(sizes) // 2, len(sizes) - 2) :]
            label = f"{name}, slope {slope(points, name, upper):.2f}"
            look = style(name) | ({"linestyle": ":"} if name == FLOOR else {})
            panel.plot(sizes, values, label=label, markersize=4, linewidth=1.2, **look)
        last = 1e3 * points[sizes[-1]]["array-mlp"] * 1.5
        ends = [sizes[0], sizes[-1]]
        line = [last * size / sizes[-1] for size in ends]
        panel.plot(ends, line, color="#bbb", linewidth=0.8, label="slope 1")
        panel.set_xscale("log", base=2)
        panel.set_yscale("log")
        panel.set_xlabel(axis)
        panel.set_ylabel("ms an epoch" if axis == "rows" else "ms a step")
        panel.legend(frameon=False, fontsize=7)
        panel.grid(alpha=0.25)
