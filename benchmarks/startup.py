"""Start and size: import times in fresh processes, `mlp --help`, bytes on disk.

An import's time is that of a whole interpreter that does nothing else; what a library adds is the
difference to a bare one, or to NumPy's import for a library that needs NumPy.
"""

import os
import re
import subprocess
import sys
import time
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from benchmarks.report import Options, Table, spread, style, summary

BASE = "import numpy"
STARTS = {
    "python": ["-c", "pass"],
    BASE: ["-c", BASE],
    "import mlp": ["-c", "import mlp"],
    "import mlp; Model, train": ["-c", "import mlp; mlp.Model, mlp.train"],
    "import mlp; MLPClassifier": ["-c", "import mlp; mlp.MLPClassifier"],
    "mlp --help": ["-m", "mlp", "--help"],
    "scikit-learn": ["-c", "import sklearn.neural_network"],
    "PyTorch": ["-c", "import torch"],
    "JAX": ["-c", "import jax"],
}
MODULES = {"scikit-learn": "sklearn", "PyTorch": "torch", "JAX": "jax"}
# The peer that a start needs.
LIBRARIES = {name: name for name in MODULES} | {"import mlp; MLPClassifier": "scikit-learn"}
DISTRIBUTIONS = {"scikit-learn": "scikit-learn", "PyTorch": "torch", "JAX": "jax"}


def run(options: Options) -> dict[str, Any]:
    """Measure and print."""
    print("\nstartup", flush=True)
    starts = {}
    for name, arguments in STARTS.items():
        library = LIBRARIES.get(name)
        if library and options.only and library not in options.only:
            continue
        if library and find_spec(MODULES[library]) is None:
            print(f"  {name} is left out: No module named {MODULES[library]!r}")
        else:
            starts[name] = [sys.executable, *arguments]
    times: dict[str, list[float]] = {name: [] for name in starts}
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    for turn in range(options.timing.rounds + 1):
        for name, command in starts.items():
            begin = time.perf_counter()
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=environment)
            if turn:  # the first start reads the disk and writes byte code
                times[name].append(time.perf_counter() - begin)
    sizes = {"array-mlp": _own_size(), "array-mlp and dependencies": _own_size()}
    sizes["array-mlp and dependencies"] += sum(map(size, dependencies("array-mlp")))
    for name, distribution in DISTRIBUTIONS.items():
        if name in times:
            needed = {distribution, *dependencies(distribution)}
            sizes[f"{name} and dependencies"] = sum(map(size, needed))

    made = Table(["", "ms", "quartiles", "over numpy"])
    for name, seconds in times.items():
        taken = summary([1e3 * s for s in seconds])
        over = summary([1e3 * (s - b) for s, b in zip(seconds, times[BASE], strict=True)])
        row = [name, f"{taken['median']:.0f}", spread(taken, 0), f"{over['median']:+.0f}"]
        made.rows.append(row)
    print(made)
    print(Table(["on disk", "MB"], [(name, f"{size / 1e6:.1f}") for name, size in sizes.items()]))
    return {"seconds": times, "bytes": sizes}


def dependencies(distribution: str) -> set[str]:
    """What is installed of all that it needs, without extras."""
    found: set[str] = set()
    waiting = [distribution]
    while waiting:
        for requirement in metadata.requires(waiting.pop()) or []:
            name = re.match(r"[A-Za-z0-9._-]+", requirement)[0].lower()
            if "extra ==" in requirement or name in found or not _installed(name):
                continue
            found.add(name)
            waiting.append(name)
    return found


def _installed(distribution: str) -> bool:
    try:
        metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return False
    return True


def size(distribution: str) -> int:
    """Bytes of its files, without compiled copies of the sources."""
    files = metadata.files(distribution) or []
    paths = {Path(f.locate()).resolve() for f in files if "__pycache__" not in f.parts}
    return sum(path.stat().st_size for path in paths if path.is_file())


def _own_size() -> int:
    """Bytes of the packages themselves, wherever they are imported from."""
    folders = [Path(find_spec(name).origin).parent for name in ("mlp", "backends")]
    paths = [p for folder in folders for p in folder.rglob("*") if "__pycache__" not in p.parts]
    return sum(path.stat().st_size for path in paths if path.is_file())


def draw(result: dict[str, Any], figure: Any) -> None:
    """Bars: milliseconds of a start, megabytes on disk."""
    measured = result["results"]
    names, sizes = list(measured["seconds"]), list(measured["bytes"])
    figure.set_size_inches(8, 1.2 + 0.28 * max(len(names), len(sizes)))
    left, right = figure.subplots(1, 2)
    times = {name: summary(measured["seconds"][name]) for name in names}
    _bars(left, {name: 1e3 * stats["median"] for name, stats in times.items()}, "{:.0f}")
    for row, stats in enumerate(times.values()):
        left.plot([1e3 * stats["q1"], 1e3 * stats["q3"]], [row, row], color="#222", linewidth=1)
    left.set_xlabel("ms from start to end of the process")
    _bars(right, {name: value / 1e6 for name, value in measured["bytes"].items()}, "{:.1f}")
    right.set_xlabel("MB on disk, of what is installed here")


def _bars(axes: Any, values: dict[str, float], text: str) -> None:
    for row, (name, value) in enumerate(values.items()):
        library = name.removesuffix(" and dependencies")
        mine = "mlp" in name
        axes.barh(row, value, color="#c1272d" if mine else style(library)["color"], height=0.65)
        axes.annotate(
            text.format(value), (value, row), xytext=(4, 0), textcoords="offset points", va="center"
        )
    axes.set_yticks(range(len(values)), values)
    axes.invert_yaxis()
    axes.margins(x=0.15)
