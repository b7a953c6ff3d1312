"""The settings of a net for a table, each of them visible, each of them to be changed.

    x'   = robust scaling and smooth clip of the coded columns      (`mlp.data.scaling`, eq. 4)
    a_0  = x' ⊙ s                                                   (`mlp.layers.scale`)
    a_l  = dropout(f(a_{l-1} W_l + b_l)),  l = 1..L                 f: selu for classes, mish
    y    = a_L W + b                                                softmax for classes

In every other member the numbers of x' go through learned curves of straight pieces first
(`mlp.layers.piecewise_linear`): they follow what jumps or bends at some value, as places and prices
do, and do harm where nothing does; nets that err differently are better together.

Hidden weights begin as N(0, 1/d), the last layer as zeros. Adam with β2 = 0.95 and a rate that
rises and falls four times (coslog4), multiplied by 6 for s, by 1/√d for the weights of d inputs
("ntk") and by 0.1 for biases; dropout and decay are as given for half of the run and fall to 0 in
the other half (flat_cosine). Of the epochs the last best one counts, by rows that were held out.

Source: D. Holzmüller, L. Grinsztajn, I. Steinwart, "Better by default: strong pre-tuned MLPs and
boosted trees on tabular data", arXiv:2407.04491 (RealMLP), from which sizes, lengths and members
differ.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from mlp.layers import Dense, PiecewiseLinear, Scale
from mlp.network.graph import Network
from mlp.training.settings import Settings

Task = Literal["classes", "numbers"]
# Up to so many rows: passes over them, and rows of a batch. Beyond: the last.
LENGTHS = {2_000: (100, 256), 10_000: (60, 256), 50_000: (30, 256), 200_000: (15, 512)}
LONGEST = (10, 1024)
ACTIVATIONS = {"classes": "selu", "numbers": "mish"}
BINS = 48  # straight pieces of a curve at most, each of 160 rows or more
SCALE = 6.0  # of its rate, and of its decay
RATES = {"classes": 0.04, "numbers": 0.07}


@dataclass(frozen=True)
class Recipe:
    """What one member of `mlp.TabularClassifier` or `mlp.TabularRegressor` is and how it learns.

    hidden_layer_sizes, activation, learning_rate, batch_size, epochs, dropout, weight_decay,
    label_smoothing: as elsewhere in this library. embedding: numbers that a column becomes in every
    other member, 0 for none; bins: its pieces at most. Of None, `of` finds what suits.

    >>> Recipe().of("numbers", rows=5_000).epochs
    60
    """

    hidden_layer_sizes: tuple[int, ...] = (128, 128, 128)
    activation: Any = None
    learning_rate: float | None = None
    batch_size: int | None = None
    epochs: int | None = None
    dropout: float = 0.15
    weight_decay: float = 0.02
    label_smoothing: float = 0.0
    embedding: int = 12
    bins: int | None = None

    def of(self, task: Task, rows: int) -> "Recipe":
        """The same with what is None by the task and the number of rows to train on."""
        lengths = next((at for most, at in LENGTHS.items() if rows <= most), LONGEST)
        usual: dict[str, Any] = {
            "activation": ACTIVATIONS[task],
            "learning_rate": RATES[task],
            "epochs": lengths[0],
            "batch_size": lengths[1],
            "bins": min(BINS, max(8, rows // 160)),
        }
        missing = {name: x for name, x in usual.items() if getattr(self, name) is None}
        return replace(self, **missing)

    def curves(self, X: np.ndarray, numbers: Sequence[int]) -> PiecewiseLinear | None:
        """The embedding of these columns of X (n, d), coded and scaled; None where there is none,
        or no number has three values."""
        numbers = [j for j in numbers if len(np.unique(X[:, j])) > 2]
        if not (self.embedding and numbers):
            return None
        return PiecewiseLinear(self.embedding, bins=self.bins or BINS, columns=tuple(numbers)).fit(
            X
        )

    def network(
        self, inputs: int, outputs: int, task: Task, curves: PiecewiseLinear | None = None
    ) -> Network:
        """The network of so many coded columns and outputs."""
        hidden = [
            Dense(units, self.activation, initializer="lecun_normal", dropout=self.dropout)
            for units in self.hidden_layer_sizes
        ]
        last = Dense(outputs, "softmax" if task == "classes" else "identity", initializer="zeros")
        embedded = [] if curves is None else [curves]
        return Network(inputs, [*embedded, Scale(), *hidden, last])

    def training(self) -> dict[str, Any]:
        """How it is trained, as fields of `mlp.Settings`."""
        decay: dict[str, Any] = {
            "weight_decay": self.weight_decay,
            "weight_decay_schedule": "flat_cosine",
            "decay_factors": {"scale": SCALE},
        }
        return {
            "epochs": self.epochs,
            "batch_size": self.batch_size,
            "optimizer": {"name": "adam", "beta_2": 0.95},
            "learning_rate": self.learning_rate,
            "schedule": "coslog4",
            "rate_factors": {"scale": SCALE, "weight": "ntk", "bias": 0.1},
            "dropout_schedule": "flat_cosine" if self.dropout else "constant",
            **(decay if self.weight_decay else {}),
            "patience": self.epochs,
            "best": "last",
        }

    def settings(self, seed: int, **more: Any) -> Settings:
        """The same with a seed; more: further fields."""
        return Settings(**self.training(), seed=seed, **more)

    def file(self, task: Task) -> dict[str, Any]:
        """What a TOML file says of one member without an embedding: its data, layers, training.

        >>> Recipe().of("classes", rows=5_000).file("classes")["layers"][-1]
        {'activation': 'softmax', 'initializer': 'zeros'}
        """
        hidden = {
            "activation": self.activation,
            "initializer": "lecun_normal",
            "dropout": self.dropout,
        }
        last = {
            "activation": "softmax" if task == "classes" else "identity",
            "initializer": "zeros",
        }
        return {
            "data": {
                "validation": 0.2,
                "scale_inputs": "robust",
                "scale_targets": "none" if task == "classes" else "standard",
            },
            "layers": [
                {"kind": "scale"},
                *({"units": units, **hidden} for units in self.hidden_layer_sizes),
                last,
            ],
            "training": self.training(),
        }
