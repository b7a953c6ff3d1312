"""The model that computes for an estimator, kept from one call to the next, never pickled."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from mlp.model import Model
from mlp.training.step import Step


@dataclass
class Engine:
    """The model made for these `coefs_` and `intercepts_`.

    shared: whether they are views of the model's own w. step: the training step of `partial_fit`,
    and what it was built for. The lock guards the copy of edited weights into the model: threads
    may predict at once.
    """

    model: Model
    parts: tuple[Any, ...] = ()
    shared: bool = False
    step: tuple[Any, Step] | None = None
    lock: Any = field(default_factory=threading.Lock)

    def serves(self, parts: Sequence[Any]) -> bool:
        """Whether these are the arrays it was made for."""
        return len(parts) == len(self.parts) and all(
            a is b for a, b in zip(parts, self.parts, strict=True)
        )
