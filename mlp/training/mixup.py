"""Mixup: a batch is trained on mixes of its rows with each other.

    x_i <- λ x_i + (1 - λ) x_{i+1}        t_i <- λ t_i + (1 - λ) t_{i+1}                    (1)

with the row after each, the first after the last, and λ ~ Beta(α, α) once a batch, a function of
(seed, step). The rows of a batch are in random order, so the row after is a random one. Class
numbers are mixed as shares; all kinds of targets are intervals, so that a mix is a target too.

Source: Zhang, Cisse, Dauphin, Lopez-Paz, arXiv:1710.09412, section 2; figure 1 for λ once a batch.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

from backends import Array, Backend
from mlp.layers.noise import given
from mlp.layers.tape import Arena
from mlp.network.objective import Evaluation
from mlp.seeds import generator


class Mixup:
    """Eq. (1) on the device, in the buffers of evaluations. ``share``, (1,), is λ."""

    def __init__(self, backend: Backend, dtype: str, alpha: float):
        self.backend, self.alpha = backend, alpha
        self.share = backend.full((1,), 1.0, dtype)
        self.write = backend.fuse(given(1)).bind(self.share, scalars=1)

    def begin(self, seed: int, step: int) -> None:
        """λ of a step, on its way by value: nothing waits for it."""
        self.write(generator(seed, "mixup", step).beta(self.alpha, self.alpha))

    def bind(self, evaluation: Evaluation, arena: Arena) -> list[Callable[[], None]]:
        """The calls that mix what the evaluation's buffers hold."""
        n = evaluation.n
        calls: list[Callable[[], None]] = []
        for name, x in (("x", evaluation.x), ("t", evaluation.t)):
            if x is None or n == 1:
                continue
            after = arena.get((f"mixed {name}",), n, x.shape[1], str(x.dtype).rpartition(".")[2])
            calls += [
                partial(self.backend.copy, x[1:, :], after[: n - 1, :]),
                partial(self.backend.copy, x[:1, :], after[n - 1 :, :]),
                self.backend.fuse(mixed).bind(x, after, self.share),
            ]
        return calls


def mixed(xp: Any, x: Array, after: Array, share: Array) -> Array:
    """Eq. (1)."""
    return after + share * (x - after)
