"""scikit-learn's own tests of its MLPs, and its estimator checks, on this library's estimators.

The installed scikit-learn's test file is read, its import of the two classes rewritten, and run in
a process of its own from a temporary folder; nothing of it is kept here.
"""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest
from sklearn.utils.estimator_checks import check_estimator

import mlp

# Tests of what scikit-learn keeps private, with what they reach for.
EXCLUDED = {
    "test_gradient": "calls _loss_grad_lbfgs with buffers; here gradients are in test_gradients.py",
}

FIXTURES = """
import pytest

@pytest.fixture
def global_random_seed():
    return 42
"""


@pytest.mark.thorough
def test_scikit_learns_own_tests_pass(tmp_path):
    where = importlib.util.find_spec("sklearn.neural_network.tests.test_mlp")
    if where is None or not Path(where.origin).exists():
        pytest.skip("this scikit-learn was installed without its tests")
    source = Path(where.origin).read_text(encoding="utf-8")
    swapped, count = re.subn(
        r"^from sklearn\.neural_network import MLPClassifier, MLPRegressor$",
        "from mlp import MLPClassifier, MLPRegressor",
        source,
        flags=re.MULTILINE,
    )
    assert count == 1, "scikit-learn's test_mlp.py imports its classes in another way now"
    for name in EXCLUDED:
        assert f"def {name}(" in source, f"{name} is excluded and no longer there"
    (tmp_path / "test_mlp.py").write_text(swapped, encoding="utf-8")
    (tmp_path / "conftest.py").write_text(FIXTURES, encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--no-header"]
    command += ["-o", "addopts=", "--rootdir", str(tmp_path), str(tmp_path)]
    command += ["-k", " and ".join(f"not {name}" for name in EXCLUDED)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert int(re.search(r"(\d+) passed", done.stdout)[1]) > 50


@pytest.mark.parametrize("name", ["MLPClassifier", "MLPRegressor"])
@pytest.mark.filterwarnings("ignore")
def test_check_estimator_passes(name):
    results = check_estimator(getattr(mlp, name)(max_iter=30), on_fail=None)
    assert [r["check_name"] for r in results if r["status"] == "failed"] == []
    skipped = {r["check_name"] for r in results if r["status"] == "skipped"}
    # The first three need SciPy to be told of other libraries before it is imported, and run in a
    # process of their own (test_estimators_arrays.py); the last is for a decision_function.
    assert skipped <= {
        "check_array_api_input",
        "check_array_api_mixed_inputs",
        "check_array_api_same_namespace",
        "check_classifiers_multilabel_output_format_decision_function",
    }
    assert len(results) > 50
