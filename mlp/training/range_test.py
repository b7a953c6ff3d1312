"""A range test of the learning rate: how the loss falls while the rate grows, batch by batch.

    rate_s = lowest (highest / lowest)^(s / (steps - 1))                                  (1)
    m_s = 0.9 m_(s-1) + 0.1 E_s,   smoothed loss m_s / (1 - 0.9^s)                        (2)

It ends early where the smoothed loss is four times its lowest. Suggested is a tenth of the rate at
which (2) is lowest after a fifth of the steps, where it is lower there than in those, which change
next to nothing, by more than twice the deviation among them.

Source: Smith, "Cyclical learning rates for training neural networks", arXiv:1506.01186, section
3.3; smoothing and choice as in fastai.
"""

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Unpack

import numpy as np

from mlp.errors import InputError, check_is, check_whole, is_finite, shown
from mlp.model import Model
from mlp.training.loop import train
from mlp.training.settings import Options, Settings

SMOOTH, TOO_HIGH = 0.9, 4.0


@dataclass(frozen=True)
class RateSearch:
    """The rates that were tried, the loss at each, smoothed; and the one that is suggested, None if
    the loss never fell."""

    rates: list[float] = field(repr=False)
    losses: list[float] = field(repr=False)
    suggestion: float | None

    def __str__(self) -> str:
        tried = f"tried {self.rates[0]:.3g} to {self.rates[-1]:.3g} in {len(self.rates)} steps"
        if self.suggestion is None:
            return f"{tried}: the loss never fell; scale the data, or begin with a lower rate"
        return f"{tried}: a learning rate of {self.suggestion:.2g} (a tenth of the lowest loss's)"


def find_learning_rate(
    model: Model,
    X: Any,
    t: Any = None,
    *,
    sample_weight: Any = None,
    lowest: float = 1e-7,
    highest: float = 10.0,
    steps: int = 100,
    settings: Settings | None = None,
    **options: Unpack[Options],
) -> RateSearch:
    """Train a copy of the model for some steps whose learning rate grows, eq. (1); the model stays.

    X, t, sample_weight, settings and options as of `mlp.train`; what is about the rate, its course
    and the end of a run is not used. It looks at the loss of each step, and so waits for the
    device. InputError for an optimizer that finds its own step sizes.

    >>> from mlp import Dense, Network
    >>> rng = np.random.default_rng(0)
    >>> X = rng.normal(size=(200, 3))
    >>> model = Model(Network(3, [Dense(8, "tanh"), Dense(1)]), "mean_squared_error", seed=1)
    >>> found = find_learning_rate(model, X, X[:, 0] - X[:, 1])
    >>> 1e-3 < found.suggestion < 1.0
    True
    """
    check_whole("steps", steps, 10)
    if not (is_finite(lowest) and is_finite(highest) and 0.0 < lowest < highest):
        raise InputError(f"0 < lowest < highest, not {shown(lowest)} and {shown(highest)}")
    Settings.check_names(options)
    if settings is not None:
        check_is("find_learning_rate: settings", settings, Settings)
    growth = (highest / lowest) ** (1.0 / (steps - 1))

    def rate(step: int, steps_per_epoch: int = 0) -> float:
        return lowest * growth**step  # (1)

    settings = replace(
        replace(settings or Settings(), **options),
        learning_rate=1.0,
        schedule=rate,
        warmup=0.0,
        epochs=steps,
        time=None,
        average=None,
        patience=None,
        target_loss=None,
        watch=None,
        record_steps=False,
        initialize=None,
    )
    search = _Search(rate, steps)
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.filterwarnings("ignore", "the loss became non-finite", RuntimeWarning)
        train(model, X, t, sample_weight=sample_weight, callbacks=[search], settings=settings)
    return search.found()


class _Search:
    """The callback that looks at the loss of each batch."""

    only_looks = True

    def __init__(self, rate: Callable[[int], float], steps: int):
        self.rate, self.steps = rate, steps
        self.rates: list[float] = []
        self.losses: list[float] = []
        self.mean = 0.0

    def on_batch_end(self, run: Any) -> None:
        state, batch = run.state, run.state.batch
        loss = float(run.model.backend.to_numpy(state.batch_losses[batch - 1 : batch, :]).sum())
        if not math.isfinite(loss):
            return run.stop("the loss is not finite")
        self.mean = SMOOTH * self.mean + (1.0 - SMOOTH) * loss  # (2)
        self.rates.append(self.rate(max(state.step - 1, 0)))
        self.losses.append(self.mean / (1.0 - SMOOTH ** (len(self.losses) + 1)))
        if state.step >= self.steps:
            run.stop("all steps are done")
        elif len(self.losses) > 1 and self.losses[-1] > TOO_HIGH * abs(min(self.losses)):
            run.stop("the loss has grown")
        return None

    def found(self) -> RateSearch:
        if not self.losses:
            raise InputError("the loss is not finite in the first step; scale the data")
        still = self.steps // 5  # so many steps change nothing
        first, later = np.asarray(self.losses[:still]), self.losses[still:]
        suggestion = None
        if later and min(later) < first.mean() - 2.0 * first[len(first) // 2 :].std():
            suggestion = self.rates[still + int(np.argmin(later))] / 10.0
        return RateSearch(self.rates, self.losses, suggestion)
