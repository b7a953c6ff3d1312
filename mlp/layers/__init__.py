"""Layers: what a layer is, and one file for each.

layer.py          what a layer is, what it may hold, and where it stands in a pass
tape.py           what layers write their calls on, and the buffers
dense.py          affine, activation, dropout
dropout.py        dropout as a layer of its own
gaussian_noise.py normal noise added in training
noise.py          what layers draw, and how strong it is
activation.py     an activation as a layer of its own
add.py            the sum of earlier layers: residual connections
scale.py          a factor for each column
batch_norm.py     normalisation over the rows of a batch
embedding.py      a row of a table for each value of a column
numbers.py        what embeddings of numbers begin with
periodic.py       learned cosines of each number
piecewise_linear.py  learned curves of straight pieces of each number
ensemble.py       units of several members, by adapters or on their own
affine.py         what dense, gated and maxout layers begin with
gated.py          units with a gate: GLU, SwiGLU
maxout.py         the largest of several affine functions
layer_norm.py     normalisation of each row, by mean and variance or by root mean square
"""

from mlp.layers.activation import Activation
from mlp.layers.add import Add
from mlp.layers.batch_norm import BatchNorm
from mlp.layers.dense import Dense
from mlp.layers.dropout import Dropout
from mlp.layers.embedding import Embedding
from mlp.layers.ensemble import Ensemble
from mlp.layers.gated import Gated
from mlp.layers.gaussian_noise import GaussianNoise
from mlp.layers.layer import ROLES, Columns, Layer, Parameter, Place, Role, Statistic
from mlp.layers.layer_norm import LayerNorm, RMSNorm
from mlp.layers.maxout import Maxout
from mlp.layers.periodic import Periodic
from mlp.layers.piecewise_linear import PiecewiseLinear
from mlp.layers.scale import Scale

__all__ = [
    "LAYERS",
    "ROLES",
    "Activation",
    "Add",
    "BatchNorm",
    "Columns",
    "Dense",
    "Dropout",
    "Embedding",
    "Ensemble",
    "Gated",
    "GaussianNoise",
    "Layer",
    "LayerNorm",
    "Maxout",
    "Parameter",
    "Periodic",
    "PiecewiseLinear",
    "Place",
    "RMSNorm",
    "Role",
    "Scale",
    "Statistic",
]

# By the names that files have for them.
LAYERS: dict[str, type[Layer]] = {
    "dense": Dense,
    "activation": Activation,
    "add": Add,
    "batch_norm": BatchNorm,
    "dropout": Dropout,
    "embedding": Embedding,
    "ensemble": Ensemble,
    "gated": Gated,
    "gaussian_noise": GaussianNoise,
    "layer_norm": LayerNorm,
    "maxout": Maxout,
    "periodic": Periodic,
    "piecewise_linear": PiecewiseLinear,
    "rms_norm": RMSNorm,
    "scale": Scale,
}
