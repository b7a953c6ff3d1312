"""The scikit-learn examples and the benchmark run as their first lines say."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]


def run(*arguments):
    command = [sys.executable, "-W", "error", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def housing(path, n=400):
    """A small CSV with the columns of california_housing.csv, gaps and categories included."""
    rng = np.random.default_rng(0)
    income, rooms = rng.uniform(0.5, 15, n), rng.integers(10, 5000, n)
    place = rng.choice(["INLAND", "NEAR BAY", "<1H OCEAN", "ISLAND"], n, p=[0.4, 0.3, 0.29, 0.01])
    value = 40_000 * np.sqrt(income) + 50_000 * (place != "INLAND") + rng.normal(0, 5000, n)
    lines = [
        "longitude,latitude,housing_median_age,total_rooms,total_bedrooms,population,households,"
        "median_income,median_house_value,ocean_proximity"
    ]
    for i in range(n):
        bedrooms = "" if i % 50 == 3 else rooms[i] // 5
        lines.append(
            f"{-120 - i % 5}.5,{34 + i % 7}.25,{i % 50},{rooms[i]},{bedrooms},{rooms[i] // 2},"
            f"{rooms[i] // 6},{income[i]:.4f},{value[i]:.0f},{place[i]}"
        )
    path.write_text("\n".join(lines))


def test_california_housing(tmp_path):
    """Gaps and categories go through the pipeline, and the net explains most of the values."""
    pytest.importorskip("pandas", reason="the example reads its CSV with pandas: NOT TESTED")
    housing(tmp_path / "homes.csv")
    said = run(ROOT / "examples" / "california_housing.py", tmp_path / "homes.csv")
    first, line, net = said.splitlines()
    assert first == "400 districts, 8 missing values"
    assert float(net.split()[-1]) > 0.7
    assert line.startswith("R² of the linear model")


@pytest.mark.thorough
def test_the_benchmark_compares_the_same_training():
    said = run("-m", "benchmarks.sklearn_fit", "--rounds", "1")
    losses = [line.split(": ")[1].split(" and ") for line in said.splitlines() if "loss" in line]
    assert len(losses) == 2
    for theirs, ours in losses:
        assert float(ours) == pytest.approx(float(theirs), rel=1e-3)
