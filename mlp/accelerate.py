"""scikit-learn's MLPClassifier and MLPRegressor replaced by this library's, with no change of code.

In a program: call `patch_sklearn` before it imports the two names. For a whole script:

    python -m mlp.accelerate [--backend cupy] script.py [arguments]

Both replace the names in `sklearn.neural_network` and in the private module where scikit-learn
defines them. What has been imported before keeps the class it has: patch first. In detail:

- while patched, ``isinstance(x, sklearn.neural_network.MLPClassifier)`` holds for this library's
  estimators, and not for scikit-learn's made before;
- pickles of estimators made while patched name `mlp.estimators` and load with or without the
  patch, where this library is installed;
- a pickle of scikit-learn's own estimator loads as this library's while patched, with its weights
  and state; one of its objects made before cannot be pickled until `unpatch_sklearn`, as pickle
  finds another class under its name;
- worker processes that receive estimators (``n_jobs``) compute with them; those that import a
  script anew are not patched.

--backend sets MLP_BACKEND, which workers inherit.
"""

import argparse
import os
import sys
from pathlib import Path
from types import ModuleType

MODULES = ("sklearn.neural_network", "sklearn.neural_network._multilayer_perceptron")


def patch_sklearn() -> None:
    """Put this library's two estimators in the place of scikit-learn's.

    >>> patch_sklearn()
    >>> from sklearn.neural_network import MLPClassifier
    >>> MLPClassifier.__module__
    'mlp.estimators'
    >>> unpatch_sklearn()
    >>> from sklearn.neural_network import MLPClassifier
    >>> MLPClassifier.__module__
    'sklearn.neural_network._multilayer_perceptron'
    """
    from mlp.estimators import MLPClassifier, MLPRegressor

    _replace({"MLPClassifier": MLPClassifier, "MLPRegressor": MLPRegressor})


def unpatch_sklearn() -> None:
    """Put scikit-learn's own two estimators back."""
    from mlp.estimators.exchange import SKLEARN

    _replace(SKLEARN)


def _replace(classes: dict[str, type]) -> None:
    for module in MODULES:
        for name, cls in classes.items():
            setattr(sys.modules[module], name, cls)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m mlp.accelerate",
        description="Run a script with scikit-learn's MLPs replaced by array-mlp's.",
    )
    parser.add_argument("--backend", help="where to compute, as numpy, cupy or auto")
    parser.add_argument("script", help="the script to run")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help="what the script is given")
    options = parser.parse_args()
    if not Path(options.script).is_file():
        parser.error(f"there is no file {options.script!r}")
    if options.backend:
        from backends import BackendError, get_backend

        try:
            get_backend(options.backend)
        except BackendError as error:
            parser.error(str(error))
        os.environ["MLP_BACKEND"] = options.backend
    try:
        patch_sklearn()
    except ImportError as error:
        parser.error(str(error))
    run_script(options.script, options.arguments)


def run_script(script: str, arguments: list[str]) -> None:
    """Run a file as ``python script arguments`` does: its `__main__`, argv and import path.

    Not by runpy, which names the script in argv by its `__file__`, and takes `__main__` away when
    the script's last line is done, before its threads and exit functions are.
    """
    path = os.path.abspath(script)
    code = compile(Path(path).read_bytes(), path, "exec")
    sys.argv = [script, *arguments]
    if not sys.flags.safe_path:
        sys.path[0] = os.path.dirname(os.path.realpath(path))
    sys.modules["__main__"] = main_module = ModuleType("__main__")
    main_module.__file__ = path
    exec(code, vars(main_module))


if __name__ == "__main__":
    main()
