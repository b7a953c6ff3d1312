"""scikit-learn's names replaced: in a program, for a whole script, and pickles across it."""

import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import sklearn.neural_network
from sklearn.datasets import load_iris
from sklearn.neural_network import MLPClassifier as Theirs
from sklearn.neural_network import _multilayer_perceptron as private

import mlp
from backends import BackendError, get_backend

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

X, Y = load_iris(return_X_y=True)
KW = {"max_iter": 5, "random_state": 0}


@pytest.fixture
def patched():
    mlp.patch_sklearn()
    yield
    mlp.unpatch_sklearn()


def test_patch_and_unpatch():
    for _ in range(2):  # a second call has no effect
        mlp.patch_sklearn()
    for module in (sklearn.neural_network, private):
        assert module.MLPClassifier is mlp.MLPClassifier
        assert module.MLPRegressor is mlp.MLPRegressor
    for _ in range(2):
        mlp.unpatch_sklearn()
    for module in (sklearn.neural_network, private):
        assert module.MLPClassifier is Theirs
        assert module.MLPRegressor.__module__ == private.__name__


def test_isinstance_holds_for_what_is_made_while_patched(patched):
    assert isinstance(mlp.MLPClassifier(), sklearn.neural_network.MLPClassifier)
    assert not isinstance(Theirs(), sklearn.neural_network.MLPClassifier)
    assert type(mlp.from_sklearn(Theirs())) is mlp.MLPClassifier
    assert type(mlp.MLPClassifier().to_sklearn()) is Theirs


def test_pickles_made_while_patched_load_without_the_patch():
    mlp.patch_sklearn()
    clf = sklearn.neural_network.MLPClassifier(**KW).fit(X, Y)
    text = pickle.dumps(clf)
    mlp.unpatch_sklearn()
    assert b"sklearn.neural_network" not in text
    np.testing.assert_array_equal(pickle.loads(text).predict_proba(X), clf.predict_proba(X))


@pytest.mark.parametrize("settings", [{"solver": "adam"}, {"solver": "sgd"}, {"solver": "lbfgs"}])
def test_pickles_of_scikit_learn_load_as_ours_while_patched(settings):
    theirs = Theirs(**KW, **settings).fit(X, Y)
    text = pickle.dumps(theirs)
    mlp.patch_sklearn()
    try:
        ours = pickle.loads(text)
    finally:
        mlp.unpatch_sklearn()
    assert type(ours) is mlp.MLPClassifier
    assert ours.get_params() == mlp.MLPClassifier(**KW, **settings).get_params()
    np.testing.assert_allclose(ours.predict_proba(X), theirs.predict_proba(X), rtol=1e-12)
    if settings["solver"] != "lbfgs":
        for estimator in (ours, theirs):
            estimator.partial_fit(X, Y).partial_fit(X, Y)
        np.testing.assert_allclose(ours.coefs_[0], theirs.coefs_[0], rtol=1e-9)
    assert type(pickle.loads(text)) is Theirs


SCRIPT = """
import sys
from helper import name                    # beside the script
from sklearn.datasets import load_iris
from sklearn.neural_network import MLPClassifier

class Own(MLPClassifier):                  # pickle finds it in __main__
    pass

if __name__ == "__main__":
    import pickle, warnings
    warnings.simplefilter("ignore")
    X, y = load_iris(return_X_y=True)
    clf = pickle.loads(pickle.dumps(Own(max_iter=5, random_state=0))).fit(X, y)
    print(clf.__class__.__mro__[1].__module__, sys.argv, name, __file__, clf.loss_)
    print(clf._engine.model.backend.name if hasattr(clf, "_engine") else "")
    sys.exit(3)
"""


def run(*arguments, cwd):
    command = [sys.executable, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd)


@pytest.fixture
def script(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "helper.py").write_text("name = 'found'\n")
    (tmp_path / "folder" / "script.py").write_text(SCRIPT)
    return "folder/script.py"


def test_a_script_runs_as_it_would_with_the_two_classes_replaced(script, tmp_path):
    arguments = [script, "--backend", "mine", "x y"]
    plain = run(*arguments, cwd=tmp_path)
    fast = run("-m", "mlp.accelerate", *arguments, cwd=tmp_path)
    assert (plain.returncode, fast.returncode) == (3, 3), plain.stderr + fast.stderr
    before, after = plain.stdout.split(" ", 1), fast.stdout.split(" ", 1)
    assert before[0] == "sklearn.neural_network._multilayer_perceptron"
    assert after[0] == "mlp.estimators"
    said = [text.split("\n")[0].rpartition(" ") for text in (before[1], after[1])]
    assert said[0][0] == said[1][0] == f"{arguments} found {said[0][0].rpartition(' ')[2]}"
    assert float(said[1][2]) == pytest.approx(float(said[0][2]), rel=1e-9)
    assert fast.stdout.splitlines()[1] == "numpy"


def test_the_flag_names_the_backend(script, tmp_path):
    try:
        get_backend("strict:device1")
    except BackendError as error:
        pytest.skip(str(error))
    done = run("-m", "mlp.accelerate", "--backend", "strict:device1", script, cwd=tmp_path)
    assert done.stdout.splitlines()[1] == "strict:device1", done.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["missing.py"], "there is no file 'missing.py'"),
        (["--backend", "cupi", "folder/script.py"], "did you mean 'cupy'"),
        ([], "required: script"),
    ],
)
def test_mistakes_are_one_line(arguments, said, script, tmp_path):
    done = run("-m", "mlp.accelerate", *arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert said in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("backend", [
    [], pytest.param([["-m", "mlp.accelerate", "--backend", "strict"]], marks=pytest.mark.thorough)
], ids=["", "on a backend"])  # fmt: skip
def test_the_examples_script_runs_in_all_ways(backend, tmp_path):
    """And knows nothing of this library."""
    example = Path(mlp.__file__).parent.parent / "examples" / "sklearn_digits.py"
    if not example.exists():
        pytest.skip("the examples are not beside the installed package")
    answers = []
    for prefix in ([], ["-m", "mlp.accelerate"], *backend):
        done = run(*prefix, str(example), "--epochs", "2", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        answers.append(done.stdout.split(" in ")[0].split(": ", 1))
    assert answers[0][0] == "sklearn"
    assert {said for _, said in answers} == {answers[0][1]}
