"""Layers: what a layer is, and one file for each.

layer.py     what a layer is, what it may hold, and where it stands in a pass
tape.py      what layers write their calls on, and the buffers
dense.py     affine, activation, dropout
dropout.py   dropout as a layer of its own
"""

from mlp.layers.dense import Dense
from mlp.layers.dropout import Dropout
from mlp.layers.layer import ROLES, Layer, Parameter, Place, Role, Statistic

__all__ = [
    "LAYERS",
    "ROLES",
    "Dense",
    "Dropout",
    "Layer",
    "Parameter",
    "Place",
    "Role",
    "Statistic",
]

# By the names that files have for them.
LAYERS: dict[str, type[Layer]] = {"dense": Dense, "dropout": Dropout}
