"""What a type checker finds in a user's program: names and types of options, names in tables."""

import subprocess
import sys
from dataclasses import fields
from importlib.util import find_spec
from pathlib import Path
from typing import get_type_hints

import pytest

from mlp import Settings
from mlp.training.settings import Options

START = """
import numpy as np
import mlp
X, t = np.ones((4, 2)), np.array([0, 1, 0, 1])
net = mlp.Network(2, [mlp.Dense(3, "tanh"), mlp.Dense(2, "softmax")])
model = mlp.Model(net, "cross_entropy")
"""
RIGHT = """
result = mlp.train(
    model, X, t, epochs=3, batch_size="full", optimizer="adamw", schedule="cosine", warmup=1,
    learning_rate=0.1, watch="loss", patience=3, record_steps=False, rate_factors={"bias": 0.5},
    weight_decay=0.1, clip_norm=1.0, accumulate=2, average="ema", time="10 min",
)
result = mlp.train(result.model, X, t, optimizer={"name": "adam", "beta_1": 0.8}, batch_size=None)
size: tuple[int, ...] = result.model.predict(X).shape
"""
WRONG = {
    "an option that is none": "mlp.train(model, X, t, epoch=3)",
    "an option of another type": "mlp.train(model, X, t, epochs='3')",
    "an option's other word": "mlp.train(model, X, t, batch_size='all')",
    "no optimizer": "mlp.train(model, X, t, optimizer='adem')",
    "no average": "mlp.train(model, X, t, average='emma')",
    "no schedule": "mlp.train(model, X, t, schedule='cosin')",
    "no activation": "mlp.Dense(3, 'tanhh')",
    "no loss": "mlp.Model(net, 'crossentropy')",
    "no initializer": "mlp.Dense(3, initializer='he')",
    "no shape": "model.predict(X).shap",
}


def test_the_options_of_train_are_the_settings():
    assert get_type_hints(Options) == get_type_hints(Settings)
    assert list(Options.__annotations__) == [field.name for field in fields(Settings)]


def found_by(command, folder, programs):
    """The lines that a checker complains of, by program."""
    for name, text in programs.items():
        (folder / f"{name}.py").write_text(START + text, encoding="utf-8")
    done = subprocess.run(
        [*command, *(f"{name}.py" for name in programs)],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode in (0, 1), done.stdout + done.stderr
    return {
        name: [
            line for line in done.stdout.splitlines() if f"{name}.py" in line and "error" in line
        ]
        for name in programs
    }


@pytest.mark.parametrize("checker", ["mypy", "pyright"])
def test_a_checker_finds_what_is_wrong_and_nothing_else(checker, tmp_path):
    if find_spec(checker) is None:
        pytest.skip(f"{checker} is not installed: pip install {checker}")
    root = Path(__file__).parent.parent
    command = [sys.executable, "-m", checker]
    if checker == "mypy":
        (tmp_path / "mypy.ini").write_text(
            f"[mypy]\nmypy_path = {root}\nignore_missing_imports = True"
        )
        command += ["--follow-imports=silent", f"--cache-dir={tmp_path / 'cache'}"]
    else:
        (tmp_path / "pyrightconfig.json").write_text(f'{{"extraPaths": ["{root}"]}}')
    names = {f"wrong_{i}": text for i, text in enumerate(WRONG.values())}
    found = found_by(command, tmp_path, {"right": RIGHT, **names})
    assert found["right"] == []
    missed = [text for name, text in names.items() if not found[name]]
    assert missed == []
