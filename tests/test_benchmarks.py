"""Each benchmark runs through in its quick form, and leaves its table, JSON and chart."""

import json
import math
import shutil

import numpy as np
import pytest

from backends import BackendError, get_backend
from benchmarks import nets, peers, report, scaling, sklearn_fit, step, worker
from benchmarks.__main__ import BENCHMARKS, main

pytestmark = pytest.mark.pictures


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch):
    """Spinning threads of the contenders and of the other tests would slow each other."""
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "1")


ELSEWHERE = ("parallel", "threads")  # test_mpi.py, and below


@pytest.mark.parametrize("name", [
    pytest.param(name, marks=[] if name == "step" else pytest.mark.thorough)
    for name in BENCHMARKS if name not in ELSEWHERE
])  # fmt: skip
def test_a_benchmark_runs(name, tmp_path, capsys):
    # One peer, where it costs least: libraries need seconds to start.
    only = ["array-mlp", "scikit-learn"] if name == "fit" else ["array-mlp"]
    main([name, "--quick", "--out", str(tmp_path), "--workloads", "small", "--only", *only])
    printed = capsys.readouterr().out
    shown = ["NPY", "Parquet"] if name == "data" else only
    assert all(contender in printed for contender in shown)
    written = json.loads((tmp_path / f"{name}.json").read_text())
    assert written["machine"]["versions"]["numpy"]
    assert written["results"]
    assert (tmp_path / f"{name}.png").stat().st_size > 5000


def test_fit_needs_the_data_and_says_so(tmp_path, capsys):
    main(["fit", "--out", str(tmp_path)])
    assert "fit is left out: --mnist DIR" in capsys.readouterr().out


@pytest.mark.parametrize("name", nets.KINDS)
def test_contenders_of_a_step_do_the_same_work(name):
    """Where a net has neither dropout, nor statistics, nor weights."""
    torch, (_, batch, about) = pytest.importorskip("torch"), nets.KINDS[name]
    batch, kind = min(batch, 6), nets.Kind(**about)
    ours = step.ours([5, 4, 4, 3], batch, "numpy", **about)
    ours.run()
    if kind.weights:
        with pytest.raises(worker.Absent):
            step.torch([5, 4, 4, 3], batch, "numpy", **about)
        return
    before = torch.get_num_threads()
    theirs = step.torch([5, 4, 4, 3], batch, "numpy", **about)
    theirs.run()
    assert torch.get_num_threads() == before
    assert (ours.check is None, theirs.check is None) == (not kind.plain,) * 2
    if kind.plain:
        assert ours.check() == pytest.approx(theirs.check(), rel=0.02)


def test_the_work_of_one_core_on_more_cores():
    times = {"products alone": [1.0, 1.0], "array-mlp": [1.25, 1.25]}
    assert step.serial(times, "array-mlp") == pytest.approx(0.2)
    assert "20% in one core; MODEL" in step.modelled({"array-mlp": 0.2})


def test_threads_and_a_busy_process():
    """Its parts: threads that stay limited are for a process of their own."""
    from benchmarks import threads
    from mlp.threads import limited

    with threads.busy(), limited(1):
        made = threads.ours(*nets.QUICK["small"], "numpy", threads=1)
        assert made.note == "1 thread"
        assert made.seconds(2, cpu=True) > 0.0
        sharded = threads.ours(*nets.QUICK["small"], "numpy", threads=1, shards=True)
        assert "shards, 1 thread" in sharded.note
        assert sharded.seconds(2, cpu=True) > 0.0
        nets.HELD.close()
    times = {name: [k + 1.0, k + 1.0] for k, name in enumerate(threads.CONTENDERS)}
    assert threads.table(16, times, times).rows[0][:3] == ["those that pay", "16", "0.50"]


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


def test_what_cannot_be_recorded_is_said(capsys):
    """A reader of the floor has to know whether it is a graph."""

    class Device(type(get_backend("numpy"))):
        name = "cuda"

    found = nets.products_alone(Device(), lambda: None)
    assert "call by call, not as a graph: backend 'cuda' cannot record" in found.note
    assert nets.products_alone(get_backend("numpy"), lambda: None).note == ""


@pytest.mark.parametrize("name", ["step", "fit", "predict"])
def test_a_benchmark_runs_on_cupy(name, tmp_path, capsys):
    """Ours is timed by the device's events; scikit-learn, which has no GPU, is left out aloud."""
    try:
        get_backend("cupy")
    except BackendError as error:
        pytest.skip(str(error))
    only = ["array-mlp", "scikit-learn"]
    arguments = [name, "--quick", "--backend", "cupy", "--out", str(tmp_path)]
    main([*arguments, "--workloads", "small", "--only", *only])
    printed = capsys.readouterr().out
    assert "scikit-learn is left out: scikit-learn's MLP runs on the CPU alone" in printed
    written = json.loads((tmp_path / f"{name}.json").read_text())
    assert "cupy" in written["machine"]["device"]
    assert written["results"]


def test_a_peer_without_a_gpu_is_left_out():
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        pytest.skip("PyTorch has a GPU here")
    with pytest.raises(worker.Absent, match=r"PyTorch .* has no CUDA device here"):
        peers.torch_device("cupy")
    assert peers.torch_device("numpy").type == "cpu"
    with pytest.raises(worker.Absent, match="CUDA graphs need a CUDA device"):
        step.torch([4, 3, 2], 4, "numpy", how="graph")


def test_which_device_a_backend_is_on():
    names = ("numpy", "torch", "strict:device1", "cupy", "cuda:1", "torch:cuda:2", "torch:cuda")
    assert [nets.cuda_index(name) for name in names] == [None, None, None, 0, 1, 2, 0]


def test_graphs_are_for_a_gpu_and_compiled_formulas_for_numpy():
    names = ["array-mlp[jit]", "array-mlp", "array-mlp recorded", "PyTorch CUDA graph", "PyTorch"]
    assert report.Options("numpy").chosen(names) == ["array-mlp[jit]", "array-mlp", "PyTorch"]
    assert report.Options("cupy").chosen(names) == names[1:]


def test_the_devices_clock_is_used():
    """It gets the call and how often to make it; without one the host waits for the device."""
    seen = []

    def clock(call, times):
        seen.append((call, times))
        return 0.25

    done = worker.Contender(seen.clear, clock=clock)
    assert done.seconds(3) == 0.25
    assert seen == [(done.run, 3)]
    calls = []
    plain = worker.Contender(lambda: calls.append("run"), lambda: calls.append("wait"))
    assert plain.seconds(2) > 0.0
    assert calls == ["run", "run", "wait"]


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


def test_a_step_is_compared_with_another_checkout(tmp_path, capsys):
    """Before and after from two checkouts, in the same rounds."""
    arguments = ["step", "--quick", "--out", str(tmp_path), "--workloads", "small"]
    main([*arguments, "--only", "array-mlp", "--against", str(worker.ROOT)])
    printed = capsys.readouterr().out
    written = json.loads((tmp_path / "step.json").read_text())["results"]["small"]
    assert list(written["seconds"]) == ["products alone", "array-mlp", "array-mlp before"]
    after, before = (written["seconds"][name] for name in ("array-mlp", "array-mlp before"))
    ratio = written["after_over_before"]["array-mlp"]
    assert ratio["highest"] == max(report.ratios(after, before))
    assert f"{ratio['median']:.3f}" in printed.split("after / before")[1]


def test_the_other_checkout_runs_its_own_code(tmp_path, capsys):
    """Whatever is installed: its `mlp` is the one that is imported."""
    shutil.copytree(worker.ROOT / "benchmarks", tmp_path / "benchmarks")
    (tmp_path / "mlp").mkdir()
    (tmp_path / "mlp" / "__init__.py").write_text("raise ImportError('the other mlp')")
    arguments = {"units": [4, 3], "batch": 2, "backend": "numpy"}
    elsewhere = {"before": ("array-mlp", tmp_path)}
    names = ["products alone", "before"]
    timing = worker.Timing(1, 0.0, 0.0, 0.0)
    times = worker.alternate("benchmarks.step", names, arguments, timing, elsewhere=elsewhere)
    assert list(times) == ["products alone"]
    assert "before is left out: the other mlp" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("names", "message"),
    [(["fit"], "--against DIR goes with step alone"), (["step"], "has no benchmarks/step.py")],
)
def test_a_checkout_to_compare_with(names, message, tmp_path, capsys):
    with pytest.raises(SystemExit):
        main([*names, "--against", str(tmp_path)])
    assert message in capsys.readouterr().err


def test_a_loss_in_float32_is_written(monkeypatch, capsys):
    """The figures of a fit are JSON, whatever number the estimator's loss is."""

    class Estimator:
        loss_ = np.float32(0.25)

        def __init__(self, **settings):
            pass

        def fit(self, X, y):
            return self

        def predict(self, X):
            return X

    monkeypatch.setattr("sklearn.neural_network.MLPClassifier", Estimator)
    sklearn_fit.measure("sklearn", "digits-float32", "", 0, None)
    assert json.loads(capsys.readouterr().out)["loss"] == 0.25
