"""Handwritten digits by scikit-learn's MLPClassifier: a script that knows nothing of this library.

    python examples/sklearn_digits.py                                        # scikit-learn, CPU
    python -m mlp.accelerate examples/sklearn_digits.py                      # array-mlp, CPU
    python -m mlp.accelerate --backend cupy examples/sklearn_digits.py       # array-mlp, GPU

All three print the same accuracy and loss.
"""

import argparse
import time
import warnings

from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

parser = argparse.ArgumentParser()
parser.add_argument("--epochs", type=int, default=50)
options = parser.parse_args()
warnings.simplefilter("ignore", ConvergenceWarning)

X, y = load_digits(return_X_y=True)
X_train, X_test, y_train, y_test = train_test_split(X, y, random_state=0, stratify=y)
model = make_pipeline(
    StandardScaler(), MLPClassifier(random_state=0, max_iter=options.epochs, tol=0.0)
)
start = time.perf_counter()
model.fit(X_train, y_train)
seconds = time.perf_counter() - start
net = model[-1]
print(
    f"{type(net).__module__.split('.')[0]}: accuracy {model.score(X_test, y_test):.4f}, "
    f"loss {net.loss_:.6f} in {seconds:.2f} s"
)
