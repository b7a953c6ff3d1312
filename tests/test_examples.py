"""Every example runs as its first lines say, and prints what it claims."""

import gzip
import os
import re
import subprocess
import sys
import tomllib
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from conftest import present

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = ROOT / "examples"
SCRIPTS = sorted(path.name for path in EXAMPLES.glob("*.py"))


def python(*arguments, cwd, **environment):
    """What a Python process prints; it must end well and say nothing on stderr."""
    paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    done = subprocess.run(
        [sys.executable, "-W", "error", *map(str, arguments)],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths)), **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture
def example(tmp_path):
    """Runs a script in an empty folder; nothing may be left there."""

    def run(script, *arguments):
        out = python(EXAMPLES / script, *arguments, cwd=tmp_path)
        assert list(tmp_path.iterdir()) == []
        return out

    return run


def numbers(line):
    return [float(x) for x in re.findall(r"-?\d+\.\d+(?:e[-+]\d+)?", line)]


def test_every_script_has_a_test():
    tests = "".join(path.read_text() for path in Path(__file__).parent.glob("test_*.py"))
    assert SCRIPTS
    assert [name for name in SCRIPTS if f'"{name}"' not in tests] == []


def test_xor_2_2_1(example):
    """The equations' gradient and the library's side by side; then XOR is learned."""
    out = example("xor_2_2_1.py")
    rows = [numbers(line) for line in out.splitlines() if line.startswith("dC/dw")]
    assert len(rows) == 9
    for by_equation, by_library in rows:
        assert by_equation == pytest.approx(by_library, abs=2e-10)
    (largest,) = re.findall(r"largest difference (\S+)", out)
    assert float(largest) < 1e-14
    assert "the wanted loss is reached" in out
    outputs = re.findall(r"(\d) xor (\d) = (\d)   h = (\S+)", out)
    assert [round(float(h)) for *_, h in outputs] == [0, 1, 1, 0]


def test_by_hand_2_4_3_2(example):
    """35 derivatives and the loss, the same by hand and by the library."""
    out = example("by_hand_2_4_3_2.py")
    rows = [numbers(line) for line in out.splitlines() if line.startswith(("L ", "dL/d"))]
    assert len(rows) == 36
    assert all(hand == pytest.approx(found, abs=2e-12) for hand, found in rows)
    (largest,) = re.findall(r"largest difference of the 35 derivatives: (\S+)", out)
    assert float(largest) < 1e-14


def test_outputs_and_likelihoods(example):
    """delta = o - y for the three pairs, and each of the three problems is learned."""
    out = example("outputs_and_likelihoods.py")
    assert re.findall(r"^(\w+ \+ \w+):", out, re.M) == [
        "identity + Gaussian",
        "sigmoid + Bernoulli",
        "softmax + categorical",
    ]
    differences = re.findall(r"differ by (\S+)", out)
    assert len(differences) == 3
    assert all(float(d) < 1e-14 for d in differences)
    (r2,) = re.findall(r"r2 (\S+)", out)
    accuracies = re.findall(r"accuracy ([\d.]+)", out)
    assert min(float(r2), *map(float, accuracies)) > 0.9


@pytest.mark.pictures
@pytest.mark.parametrize("device", present("numpy", "cupy"))
def test_update_rules(device, tmp_path):
    """Quickprop and Rprop need a tenth of the epochs in batch version, and fail in the other; the
    curves are drawn where they are asked for."""
    pytest.importorskip("matplotlib")
    options = ("--backend", device, "--plot", "curves.png")
    out = python(EXAMPLES / "update_rules.py", *options, cwd=tmp_path)
    assert "error curves in curves.png" in out
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert len(list(tmp_path.iterdir())) == 1
    epochs = {}
    for name, batch, stochastic in re.findall(r"^(\w+) +(.+?) \(E_tot.+?\) +(.+?) \(", out, re.M):
        epochs[name] = batch, stochastic
    assert list(epochs) == ["standard", "momentum", "Quickprop", "Rprop", "Adam"]
    standard = int(epochs["standard"][0])
    for name in ("Quickprop", "Rprop"):
        assert int(epochs[name][0]) < standard / 3
        assert epochs[name][1] == "> 300"
    for name in ("standard", "momentum", "Adam"):
        assert int(epochs[name][1]) < 300


def test_skip_connections(example):
    """One hidden unit: no chain solves XOR, (nearly) every net with a skip does."""
    out = example("skip_connections.py")
    (difference,) = re.findall(r"differ by (\S+)", out)
    assert float(difference) < 1e-14
    solved = dict(re.findall(r"^(chain|skip) +(\d+) of 20", out, re.M))
    assert int(solved["chain"]) == 0
    assert int(solved["skip"]) >= 18


def test_depth(example):
    """The recursion holds at every depth; sigmoid's first layer gets less at each, tanh's not."""
    out = example("depth.py")
    rows = [line.split() for line in out.splitlines() if re.match(r" +\d ", line)]
    assert [int(row[0]) for row in rows] == list(range(1, 9))
    assert all(float(row[1]) < 1e-12 for row in rows)
    sigmoid, tanh = ([float(row[i]) for row in rows] for i in (2, 3))
    assert all(b < a for a, b in pairwise(sigmoid))
    assert sigmoid[-1] < 1e-5 < 0.1 < min(tanh)
    assert all(int(row[5].rstrip("%")) > 90 for row in rows)


@pytest.mark.parametrize("device", present("strict:device1", "cupy"))
@pytest.mark.parametrize("script", [
    "by_hand_2_4_3_2.py",
    pytest.param("xor_2_2_1.py", marks=pytest.mark.thorough),
    pytest.param("outputs_and_likelihoods.py", marks=pytest.mark.thorough),
    pytest.param("skip_connections.py", marks=pytest.mark.thorough),
])  # fmt: skip
def test_another_backend(script, device, example):
    """The one flag moves an example to a device: the same lines, and the same numbers but for
    those that are nothing but rounding."""
    expected, found = (example(script, "--backend", name) for name in ("numpy", device))
    words = [re.split(r"([\d.e+-]*\d)", text) for text in (expected, found)]
    assert words[0][::2] == words[1][::2]
    for one, other in zip(words[0][1::2], words[1][1::2], strict=True):
        assert float(other) == pytest.approx(float(one), rel=1e-6, abs=1e-9)


# ---------------------------------------------------------------------------------- the TOML files


def write_idx(path, array):
    """An IDX file of bytes: magic number with the number of axes, sizes, data."""
    header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
    path.write_bytes(gzip.compress(header + array.astype(np.uint8).tobytes()))


def test_mnist_with_a_few_images(tmp_path):
    """The file as it stands, on a handful of made-up images in the four files it names."""
    settings = EXAMPLES / "mnist.toml"
    data = tomllib.loads(settings.read_text())["data"]
    rng = np.random.default_rng(0)
    options = []
    for key, rows in (("", 60), ("test_", 20)):
        images = tmp_path / Path(data[f"{key}file"]).name
        labels = tmp_path / Path(data[f"{key}targets_file"]).name
        write_idx(images, rng.integers(0, 256, (rows, 28, 28)))
        write_idx(labels, np.arange(rows) % 10)
        options += [
            "--set",
            f"data.{key}file={images}",
            "--set",
            f"data.{key}targets_file={labels}",
        ]
    out = python(
        "-m", "mlp", "train", settings, "--out", tmp_path / "run", "--set", "training.epochs=1",
        *options, cwd=tmp_path,
    )  # fmt: skip
    assert (tmp_path / "run" / "model.safetensors").exists(), out


# ------------------------------------------------------------------------------------- the GPU page


def test_the_python_on_the_gpu_page(tmp_path):
    """Its program runs; a device of array-api-strict stands in for the GPU."""
    pytest.importorskip("array_api_strict")
    page = (ROOT / "docs" / "on_a_gpu.md").read_text()
    program = "\n".join(re.findall(r"```python\n(.*?)```", page, re.S))
    assert 'backend="cupy"' in program
    program = program.replace('backend="cupy"', 'backend="strict:device1"')
    program += (
        "assert isinstance(shares, np.ndarray) and model.backend.owns(y_device)\n"
        "assert abs(on_cpu.predict(X) - shares).max() < 1e-5\n"
    )
    python("-c", program, cwd=tmp_path)


def test_the_commands_on_the_gpu_page():
    """Each command, option and extra that the page names is there."""
    page = (ROOT / "docs" / "on_a_gpu.md").read_text()
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = extras["optional-dependencies"]
    assert set(re.findall(r"\.\[(\w+)\]", page)) == {"cuda12", "cuda13"}
    assert extras.keys() >= {"cuda12", "cuda13"}
    help_of = {}
    for command, options in re.findall(r"^mlp (\w+)([^#\n]*)", page, re.M):
        if command not in help_of:
            help_of[command] = python("-m", "mlp", command, "--help", cwd=ROOT)
        for option in re.findall(r"--\w+", options):
            assert option in help_of[command], (command, option)
    assert set(help_of) == {"backends", "train"}
