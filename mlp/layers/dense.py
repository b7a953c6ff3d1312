"""A dense layer: affine in each of its sources, then an activation, then dropout."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from mlp.errors import InputError
from mlp.formulas.activations import Activation
from mlp.formulas.initializers import Initializer


@dataclass(frozen=True)
class Dense:
    """A layer of units, each connected to all units of its sources: affine, activation, dropout.

    units: number of units. activation: a name of `mlp.formulas.activations.ACTIVATIONS` or an own object.
    sources: numbers of the layers that feed it, 0 the input; None is the layer before. bias:
    whether z has b added. dropout: share of units set to zero in training, the others divided by
    1 - dropout (inverted dropout; Srivastava et al., JMLR 15, 2014, section 10). l1, l2: the
    objective gets l1 Σ|W| + ½ l2 ΣW² for this layer's weights, never its biases. initializer: a
    name of `mlp.formulas.initializers.INITIALIZERS`, "auto" (He for rectifiers, else Glorot), or a function.
    """

    units: int
    activation: str | Mapping[str, Any] | Activation = "identity"
    sources: tuple[int, ...] | None = None
    bias: bool = True
    dropout: float = 0.0
    l1: float = 0.0
    l2: float = 0.0
    initializer: str | Mapping[str, Any] | Initializer = "auto"

    def __post_init__(self) -> None:
        if isinstance(self.units, bool) or not isinstance(self.units, int) or self.units < 1:
            raise InputError(f"Dense: units must be a whole number from 1 on, not {self.units!r}")
        for name, value in (("dropout", self.dropout), ("l1", self.l1), ("l2", self.l2)):
            if isinstance(value, bool) or not isinstance(value, (int, float, np.number)):
                raise InputError(f"Dense: {name} must be a number, not {value!r}")
        if not 0.0 <= self.dropout < 1.0:
            raise InputError(f"Dense: dropout must be in [0, 1), not {self.dropout!r}")
        for name, value in (("l1", self.l1), ("l2", self.l2)):
            if not (value >= 0.0 and np.isfinite(value)):
                raise InputError(f"Dense: {name} must be 0 or above, not {value!r}")
        if not isinstance(self.bias, (bool, np.bool_)):
            raise InputError(f"Dense: bias must be True or False, not {self.bias!r}")
        if self.sources is not None:
            whole = isinstance(self.sources, Iterable) and not isinstance(self.sources, str)
            if not whole or not all(isinstance(k, (int, np.integer)) for k in self.sources):
                raise InputError(
                    f"Dense: sources must list numbers of layers, as (0, 1), not {self.sources!r}"
                )
            object.__setattr__(self, "sources", tuple(int(k) for k in self.sources))
