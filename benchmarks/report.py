"""What all benchmarks share once they have measured: statistics, table, machine, JSON, chart."""

import json
import os
import platform
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from benchmarks.worker import Timing

VERSIONS = (
    *("array-mlp", "numpy", "numba", "scikit-learn", "torch", "jax", "jaxlib", "onnxruntime"),
    *("cupy-cuda12x", "cupy-cuda13x", "onnxruntime-gpu", "jax-cuda12-plugin", "jax-cuda13-plugin"),
)
FLOOR = "products alone"
# One colour and marker a contender, in every chart.
STYLES = {
    "array-mlp[jit]": ("#c1272d", "o"),
    "array-mlp recorded": ("#c1272d", "P"),
    "array-mlp": ("#e8888c", "o"),
    "array-mlp scaled": ("#c1272d", "v"),
    "array-mlp[jit] before": ("#c1272d", "x"),
    "array-mlp recorded before": ("#c1272d", "+"),
    "array-mlp before": ("#e8888c", "x"),
    "PyTorch CUDA graph": ("#4b2a8c", "P"),
    "PyTorch compiled": ("#7a4fbf", "s"),
    "PyTorch": ("#b59be0", "s"),
    "PyTorch DataLoader": ("#d9cdf0", "s"),
    "JAX": ("#1f77b4", "^"),
    "ONNX Runtime": ("#1f77b4", "^"),
    "scikit-learn": ("#e08a1e", "D"),
    FLOOR: ("#555555", "|"),
}


@dataclass(frozen=True)
class Options:
    """What the command line asks for. only: contenders to run; empty is all of them. against:
    another checkout, whose array-mlp runs too. gb, memory: of the table larger than memory. tables,
    rows, without: of tabular."""

    backend: str = "numpy"
    quick: bool = False
    workloads: Sequence[str] = ()
    only: Sequence[str] = ()
    timing: Timing = field(default_factory=Timing)
    repeats: int = 5
    mnist: str | None = None
    against: Path | None = None
    gb: float = 0.25
    memory: str = "2GB"
    tables: Path | None = None
    rows: Sequence[int] = (10_000, 2_000)
    without: Sequence[str] = ()

    def chosen(self, contenders: Sequence[str], needed: Sequence[str] = ()) -> list[str]:
        """The contenders to run. Compiled formulas are a matter of NumPy, CUDA graphs of a GPU."""
        graphs = ("PyTorch CUDA graph", "array-mlp recorded")
        elsewhere = graphs if self.backend == "numpy" else ("array-mlp[jit]",)
        names = [n for n in contenders if n not in elsewhere]
        return [n for n in names if not self.only or n in self.only or n in needed]


@dataclass(frozen=True)
class Table:
    """A table for the terminal; the first column is text."""

    headers: Sequence[str]
    rows: list[Sequence[Any]] = field(default_factory=list)

    def __str__(self) -> str:
        lines = [[str(cell) for cell in row] for row in [self.headers, *self.rows]]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        return "\n".join(
            row[0].ljust(widths[0])
            + "".join(f"  {cell:>{width}}" for cell, width in zip(row[1:], widths[1:], strict=True))
            for row in lines
        )


def summary(values: Sequence[float]) -> dict[str, float]:
    """Median, quartiles and extremes."""
    median = statistics.median(values)
    low, high = median, median
    if len(values) > 2:
        low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return {
        "median": median,
        "q1": low,
        "q3": high,
        "lowest": min(values),
        "highest": max(values),
    }


def ratios(values: Sequence[float], base: Sequence[float]) -> list[float]:
    """Round by round, so that what slows a whole round cancels."""
    return [a / b for a, b in zip(values, base, strict=True)]


def spread(stats: dict[str, float], digits: int = 2) -> str:
    """The quartiles, for a table."""
    return f"{stats['q1']:.{digits}f}-{stats['q3']:.{digits}f}"


def machine() -> dict[str, Any]:
    """Where and with what it was measured."""
    versions = {}
    for name in VERSIONS:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    return {
        "cpu": cpu(),
        "cores": os.cpu_count(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": versions,
        "environment": environment(),
        "load": load,
        "time": time.strftime("%Y-%m-%d %H:%M:%S"),
    }


def environment() -> dict[str, str]:
    """Variables that tell the numerical libraries how to compute, OPENBLAS_CORETYPE above all."""
    start = ("OPENBLAS_", "OMP_", "MKL_", "GOTO_", "MLP_", "NUMBA_", "XLA_", "JAX_", "TORCH_")
    start += ("CUDA_", "CUPY_", "NVIDIA_TF32_")
    return {name: value for name, value in sorted(os.environ.items()) if name.startswith(start)}


def cpu() -> str:
    """The processor's name and its widest vectors."""
    info = Path("/proc/cpuinfo")
    if not info.exists():
        return platform.processor() or platform.machine()
    lines = dict(
        (part.strip() for part in line.split(":", 1))
        for line in info.read_text().splitlines()
        if ":" in line
    )
    flags = set(lines.get("flags", "").split())
    vectors = [name for name in ("avx512f", "avx2") if name in flags]
    return " ".join([lines.get("model name", platform.machine()), *vectors[:1]])


def device(backend: str) -> str:
    """The backend's library and device in words."""
    from backends import get_backend

    chosen = get_backend(backend)
    return f"{chosen.version()} on {chosen.device_name()}"


def save(out: Path, name: str, result: dict[str, Any], draw: Any) -> None:
    """The result as JSON, and as a chart where matplotlib is installed."""
    out.mkdir(parents=True, exist_ok=True)
    path = out / f"{name}.json"
    path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    try:
        import matplotlib
    except ImportError as error:
        print(f"{path}; no chart: {error} (pip install 'array-mlp[plot]')")
        return
    from matplotlib.figure import Figure  # not pyplot: no window, no global state

    settings = {"font.size": 9, "axes.spines.top": False, "axes.spines.right": False}
    with matplotlib.rc_context(settings):
        figure = Figure(layout="constrained", dpi=150)
        draw(result, figure)
        where = result["machine"]
        figure.supxlabel(
            f"{where['cpu']}, {where['cores']} cores, {where['time'][:10]}",
            fontsize=7,
            color="#777",
        )
        figure.savefig(out / f"{name}.png")
    print(f"{path}, {out / f'{name}.png'}")


def style(name: str) -> dict[str, Any]:
    """Colour and marker of a contender."""
    colour, marker = STYLES.get(name, ("#2a9d5c", "v"))
    return {"color": colour, "marker": marker}
