"""Reading CSV: rows a second here, by pandas and by polars, alternating in one run.

    python -m benchmarks.csv_reading [--rounds 5] [--against CHECKOUT]

--against: another checkout of this library, whose `mlp.read` is timed beside; processor time of a
process of its own each, medians with the lowest and the highest.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

READERS = {
    "array-mlp": "from mlp import read; read(path, target='c0')",
    "pandas": "import pandas; pandas.read_csv(path)",
    "polars": "import polars; polars.read_csv(path)",
}
TIMED = """
import sys, time
path, code = sys.argv[1:]
first, _, rest = code.partition('; ')
exec(first)
start = time.process_time()
exec(rest)
print(time.process_time() - start)
"""


def tables(folder: Path) -> dict[str, tuple[Path, int]]:
    """By name a file and its rows: 28 columns of numbers, the same with a text, 785 of pixels."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(100_000, 28))
    images = rng.integers(0, 256, (5_000, 785)) * (rng.random((5_000, 785)) < 0.2)
    words = np.array(["ash", "birch", "cedar"])[rng.integers(0, 3, len(X))]
    found = {}
    for name, rows, fmt in (("28 numbers", X, "%.6f"), ("785 pixels", images, "%d")):
        path = folder / f"{name}.csv"
        head = ",".join(f"c{k}" for k in range(rows.shape[1]))
        np.savetxt(path, rows, fmt, ",", header=head, comments="")
        found[name] = path, len(rows)
    lines = found["28 numbers"][0].read_text().splitlines()
    path = folder / "28 and a text.csv"
    text = [f"{lines[0]},kind", *(f"{a},{b}" for a, b in zip(lines[1:], words, strict=True))]
    path.write_text("\n".join(text) + "\n")
    return found | {"28 and a text": (path, len(X))}


def seconds(path: Path, code: str, checkout: Path) -> float | None:
    """Processor time of reading, without that of imports; None where it cannot be read."""
    environment = os.environ | {"PYTHONPATH": str(checkout)}
    command = [sys.executable, "-W", "ignore", "-c", TIMED, str(path), code]
    done = subprocess.run(command, env=environment, cwd=checkout, capture_output=True, text=True)
    return float(done.stdout) if done.returncode == 0 else None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--against", type=Path)
    parser.add_argument("--out", type=Path, help="a JSON file for the times")
    given = parser.parse_args()
    here = Path(__file__).parents[1]
    contenders = {name: (code, here) for name, code in READERS.items()}
    if given.against:
        contenders["against"] = READERS["array-mlp"], given.against
    results: dict[str, dict[str, list[float]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, (path, rows) in tables(Path(folder)).items():
            times: dict[str, list[float]] = {contender: [] for contender in contenders}
            for _ in range(given.rounds):
                for contender, (code, checkout) in contenders.items():
                    taken = seconds(path, code, checkout)
                    if taken is not None:
                        times[contender].append(taken)
            results[name] = times
            print(f"{name}, {rows} rows")
            for contender, found in times.items():
                if found:
                    middle, low, high = np.median(found), min(found), max(found)
                    print(
                        f"  {contender:10s} {rows / middle:10,.0f} rows/s of processor time "
                        f"({rows / high:,.0f} to {rows / low:,.0f})"
                    )
                else:
                    print(f"  {contender:10s} cannot read it, or is not installed")
    if given.out:
        given.out.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
