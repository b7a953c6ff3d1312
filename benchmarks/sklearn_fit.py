"""Time and memory of `fit` and `predict`: scikit-learn's estimator against this library's.

    python -m benchmarks.sklearn_fit [--mnist FOLDER] [--rows 60000] [--rounds 5] [--backend numpy]

Each contender runs in a process of its own, so that neither has the other's threads or memory; the
two alternate, and medians and the spread of the ratios are printed. A process fits once on a part
of the data to warm up (imports, thread pools, compiled kernels), then measures `fit`, five times
`predict` (the median), and its peak resident memory.

    digits   1,797 x 64, hidden 100, the defaults, 50 epochs; float64 as loaded, and float32
    mnist    60,000 x 784, hidden 512-512, batches of 256, Adam, 5 epochs, float32

FOLDER holds MNIST's files train-images-idx3-ubyte and train-labels-idx1-ubyte, plain or .gz.
"""

import argparse
import gzip
import json
import os
import resource
import statistics
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np

CONTENDERS = ("sklearn", "mlp")
SETTINGS = {
    "digits": {"max_iter": 50, "n_iter_no_change": 50},
    "mnist": {"hidden_layer_sizes": (512, 512), "batch_size": 256, "max_iter": 5},
}


def read_idx(folder: Path, name: str, header: int) -> np.ndarray:
    """The bytes of an IDX file after its header."""
    plain, packed = folder / name, folder / f"{name}.gz"
    data = plain.read_bytes() if plain.exists() else gzip.decompress(packed.read_bytes())
    return np.frombuffer(data, np.uint8, offset=header)


def load(case: str, folder: str, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """X and y of a workload."""
    if case == "mnist":
        images = read_idx(Path(folder), "train-images-idx3-ubyte", 16).reshape(-1, 784)[:rows]
        labels = read_idx(Path(folder), "train-labels-idx1-ubyte", 8)[:rows]
        return images.astype(np.float32) / np.float32(255), labels
    from sklearn.datasets import load_digits

    X, y = load_digits(return_X_y=True)
    return X.astype(np.float32 if case == "digits-float32" else np.float64), y


def measure(contender: str, case: str, folder: str, rows: int, backend: str | None) -> None:
    """One contender's figures as a line of JSON."""
    warnings.simplefilter("ignore")
    settings = {**SETTINGS[case.partition("-")[0]], "random_state": 0}
    if contender == "mlp":
        from mlp import MLPClassifier

        settings["backend"] = backend
    else:
        from sklearn.neural_network import MLPClassifier
    X, y = load(case, folder, rows)
    part = max(600, len(X) // 20)
    MLPClassifier(**{**settings, "max_iter": 1}).fit(X[:part], y[:part]).predict(X[:part])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    net = MLPClassifier(**settings).fit(X, y)
    fit = time.perf_counter() - start
    predict = []
    for _ in range(5):
        start = time.perf_counter()
        net.predict(X)
        predict.append(time.perf_counter() - start)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    figures = {"fit": fit, "predict": statistics.median(predict), "peak": peak / 1024}
    print(json.dumps({**figures, "growth": (peak - before) / 1024, "loss": float(net.loss_)}))


def run(contender: str, case: str, options: argparse.Namespace) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.sklearn_fit", "--measure", contender, case]
    command += ["--rows", str(options.rows)]
    if options.mnist:
        command += ["--mnist", options.mnist]
    if options.backend:
        command += ["--backend", options.backend]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return figures


def report(case: str, found: dict[str, list[dict[str, float]]]) -> None:
    print(f"\n{case}")
    print(f"{'':<16}{'sklearn':>10}{'mlp':>10}{'ratio':>8}   lowest-highest ratio")
    for key, unit, scale in (("fit", "s", 1), ("predict", "ms", 1e3), ("peak", "MiB", 1)):
        theirs, ours = ([row[key] for row in found[name]] for name in CONTENDERS)
        ratios = sorted(b / a for a, b in zip(theirs, ours, strict=True))
        medians = [statistics.median(x) * scale for x in (theirs, ours)]
        print(
            f"{f'{key} ({unit})':<16}{medians[0]:>10.3f}{medians[1]:>10.3f}"
            f"{statistics.median(ratios):>8.2f}   {ratios[0]:.2f}-{ratios[-1]:.2f}"
        )
    losses = {name: found[name][0]["loss"] for name in CONTENDERS}
    print(f"last loss: {losses['sklearn']:.6f} and {losses['mlp']:.6f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mnist", help="the folder of MNIST's files; without it digits only")
    parser.add_argument("--rows", type=int, default=60_000, help="of MNIST")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--backend", help="of this library's estimator")
    parser.add_argument("--measure", nargs=2, metavar=("CONTENDER", "CASE"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        measure(*options.measure, options.mnist, options.rows, options.backend)
        return
    threads = os.environ.get("OPENBLAS_NUM_THREADS", "as many as BLAS takes")
    print(f"{os.cpu_count()} cores, BLAS threads: {threads}; {options.rounds} rounds")
    for case in ("digits-float64", "digits-float32", *(["mnist"] if options.mnist else [])):
        found: dict[str, list[dict[str, float]]] = {name: [] for name in CONTENDERS}
        for number in range(options.rounds):
            # The order turns, so that neither always runs second.
            for name in CONTENDERS if number % 2 == 0 else CONTENDERS[::-1]:
                found[name].append(run(name, case, options))
        report(case, found)


if __name__ == "__main__":
    main()
