"""Each benchmark runs through in its quick form, and leaves its table, JSON and chart."""

import json
import math

import pytest

from benchmarks import report, scaling, worker
from benchmarks.__main__ import BENCHMARKS, main


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch):
    """Spinning threads of the contenders and of the other tests would slow each other."""
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "1")


@pytest.mark.parametrize("name", BENCHMARKS)
def test_a_benchmark_runs(name, tmp_path, capsys):
    # One peer, where it costs least: libraries need seconds to start.
    only = ["array-mlp", "scikit-learn"] if name == "fit" else ["array-mlp"]
    main([name, "--quick", "--out", str(tmp_path), "--workloads", "small", "--only", *only])
    printed = capsys.readouterr().out
    assert all(contender in printed for contender in only)
    written = json.loads((tmp_path / f"{name}.json").read_text())
    assert written["machine"]["versions"]["numpy"]
    assert written["results"]
    assert (tmp_path / f"{name}.png").stat().st_size > 5000


def test_fit_needs_the_data_and_says_so(tmp_path, capsys):
    main(["fit", "--out", str(tmp_path)])
    assert "fit is left out: --mnist DIR" in capsys.readouterr().out


def test_an_unknown_name_is_an_error(capsys):
    with pytest.raises(SystemExit):
        main(["speed"])
    assert "unknown benchmark 'speed'; known: step" in capsys.readouterr().err


def test_a_contender_that_cannot_run_is_left_out_aloud(capsys):
    arguments = {"units": [4, 3], "batch": 2, "backend": "numpy"}
    names = ["products alone", "no such contender"]
    times = worker.alternate("benchmarks.step", names, arguments, worker.Timing(1, 0.0, 0.0, 0.0))
    assert list(times) == ["products alone"]
    assert "no such contender is left out" in capsys.readouterr().out


def test_contenders_must_do_the_same_work():
    worker._same_work({"a": 1.0, "b": 1.01, "c": None})
    with pytest.raises(RuntimeError, match="b does not do the same work as a"):
        worker._same_work({"a": 1.0, "b": 1.1})
    with pytest.raises(RuntimeError):
        worker._same_work({"a": 1.0, "b": math.nan})


def test_the_slope_is_the_exponent():
    points = {size: {"it": 3.0 * size**1.5} for size in (2, 8, 64)}
    assert scaling.slope(points, "it", [2, 8, 64]) == pytest.approx(1.5)


def test_the_table_is_aligned():
    made = report.Table(["name", "s"], [("a", 1.5), ("longer", 10)])
    assert str(made).splitlines() == ["name      s", "a       1.5", "longer   10"]
