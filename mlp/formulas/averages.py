"""Averages of the weights over the steps of training, which are predicted with in their place.

    ema    v <- v + (1 - decay) (w - v)        after each step                            (1)
    swa    v <- v + (w - v) / k                after each epoch, k = epochs - start + 1   (2)

v begins as w; in (2) it stays w until ``start`` epochs are done (k = 1), and is the mean of the
weights at the ends of the epochs from then on. What is predicted with, watched, held against the
best and saved as the model is v; training goes on from w.

Sources: (1) Polyak, Juditsky, SIAM J. Control Optim. 30 (1992), in its exponential form; (2)
Izmailov et al., arXiv:1803.05407, Algorithm 1, with a cycle of one epoch.

>>> average = AVERAGES["swa"](start=3)
>>> [round(average.share_of_epoch(done), 3) for done in (1, 2, 3, 4, 5)]
[1.0, 1.0, 1.0, 0.5, 0.333]
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

from mlp.names import check_settings


class Average(Protocol):
    """What training asks of one: the share of w in the mean, of a step or of an epoch."""

    @property
    def share(self) -> float:
        """Of each step; 0 where the mean is of epochs."""

    def share_of_epoch(self, done: int) -> float:
        """Of the epoch that ends, with which so many are done; 0 where the mean is of steps."""


@dataclass(frozen=True)
class ExponentialAverage:
    """The exponential moving average, eq. (1)."""

    decay: float = 0.99

    def __post_init__(self) -> None:
        check_settings(self, "average 'ema'", decay="(0, 1)")

    @property
    def share(self) -> float:
        return 1.0 - self.decay

    def share_of_epoch(self, done: int) -> float:
        return 0.0


@dataclass(frozen=True)
class StochasticAverage:
    """Stochastic weight averaging, eq. (2), from the end of epoch ``start`` on."""

    start: float
    share = 0.0

    def __post_init__(self) -> None:
        check_settings(self, "average 'swa'", start="[1, inf)")

    def share_of_epoch(self, done: int) -> float:
        return 1.0 / max(1.0, done - self.start + 1.0)


AVERAGES: dict[str, Callable[..., Average]] = {
    "ema": ExponentialAverage,
    "swa": StochasticAverage,
}
AverageName = Literal["ema", "swa"]
