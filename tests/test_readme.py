"""What README.md says to type works as it stands."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
from typer.testing import CliRunner

from mlp.app.cli import app

README = Path(__file__).parent.parent / "README.md"


def block(heading, language):
    """The first block of that language below the heading."""
    text = README.read_text(encoding="utf-8")
    found = re.search(
        rf"^### {heading}$.*?^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE
    )
    assert found, heading
    return found[1]


def test_the_python_snippet(tmp_path):
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", block("Python", "python")],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    accuracy = re.search(r"'accuracy': ([\d.]+)", done.stdout)
    assert accuracy, done.stdout
    assert float(accuracy[1]) > 0.9
    assert "backpropagation agrees with central differences" in done.stdout
    assert (tmp_path / "model.safetensors").exists()


def test_the_commands(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for name, rows in (("data", 200), ("test", 20), ("new", 20)):
        X = rng.normal(size=(rows, 2))
        lines = [f"{a:.3f},{b:.3f},{'far' if a * a + b * b > 1 else 'near'}" for a, b in X]
        (tmp_path / f"{name}.csv").write_text("\n".join(["a,b,target", *lines]) + "\n")
    commands = [
        shlex.split(line, comments=True) for line in block("The command line", "bash").splitlines()
    ]
    for command in commands:
        if "cupy" in command:  # shown to work where there is one, by the tests of the examples
            continue
        if "train" in command:
            command += ["--quiet"]
        assert command[0] == "mlp"
        done = CliRunner().invoke(app, command[1:])
        assert done.exit_code == 0, (command, done.output)
    assert (tmp_path / "runs" / "longer" / "metrics.json").exists()
    assert len((tmp_path / "answers.csv").read_text().splitlines()) == 21
