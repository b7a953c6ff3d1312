"""Learning-rate schedules: the factor by which the learning rate is multiplied at a step.

A schedule is a function of the step's number s (from 0) and the steps of an epoch S; e = s / S is
the time in epochs.

    constant      1
    step          factor ^ floor(e / every)                                               (1)
    exponential   factor ^ e                                                              (2)
    cosine        floor + (1 - floor) (1 + cos(π e / epochs)) / 2, then floor             (3)
    warm-up       (s + 1) / (epochs S) up to 1, before any of them                        (4)

Your own is any such function; one with a name is a row of `SCHEDULES` and of `ScheduleName`.

Source of (3): Loshchilov, Hutter, arXiv:1608.03983, eq. (5).

>>> cosine = Cosine(epochs=10)
>>> [round(cosine(step, steps_per_epoch=1), 3) for step in (0, 5, 10)]
[1.0, 0.5, 0.0]
>>> Warmup(epochs=2)(step=0, steps_per_epoch=2)
0.25
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from mlp.names import check_settings

Schedule = Callable[[int, int], float]


@dataclass(frozen=True)
class Constant:
    """The learning rate as it is."""

    def __call__(self, step: int, steps_per_epoch: int) -> float:
        return 1.0


@dataclass(frozen=True)
class StepDecay:
    """Multiplied by ``factor`` every ``every`` epochs, eq. (1)."""

    every: float = 10.0
    factor: float = 0.5

    def __post_init__(self) -> None:
        check_settings(self, "step schedule", every="(0, inf)", factor="(0, 1]")

    def __call__(self, step: int, steps_per_epoch: int) -> float:
        return float(self.factor ** math.floor(step / steps_per_epoch / self.every))


@dataclass(frozen=True)
class Exponential:
    """Multiplied by ``factor`` over each epoch, eq. (2)."""

    factor: float = 0.95

    def __post_init__(self) -> None:
        check_settings(self, "exponential schedule", factor="(0, 1]")

    def __call__(self, step: int, steps_per_epoch: int) -> float:
        return float(self.factor ** (step / steps_per_epoch))


@dataclass(frozen=True)
class Cosine:
    """Half a cosine from 1 down to ``floor`` within ``epochs``, eq. (3)."""

    epochs: float
    floor: float = 0.0

    def __post_init__(self) -> None:
        check_settings(self, "cosine schedule", epochs="(0, inf)", floor="[0, 1]")

    def __call__(self, step: int, steps_per_epoch: int) -> float:
        time = min(1.0, step / steps_per_epoch / self.epochs)
        return self.floor + (1.0 - self.floor) * 0.5 * (1.0 + math.cos(math.pi * time))


@dataclass(frozen=True)
class Warmup:
    """Linear from (almost) nothing to 1 within ``epochs``, eq. (4), times another schedule, whose
    time begins when the warm-up has ended."""

    epochs: float = 1.0
    then: Schedule = field(default_factory=Constant)

    def __post_init__(self) -> None:
        check_settings(self, "warm-up", epochs="(0, inf)")

    def __call__(self, step: int, steps_per_epoch: int) -> float:
        steps = max(1, round(self.epochs * steps_per_epoch))
        if step < steps:
            return (step + 1) / steps
        return self.then(step - steps, steps_per_epoch)


SCHEDULES: dict[str, Callable[..., Schedule]] = {
    "constant": Constant,
    "step": StepDecay,
    "exponential": Exponential,
    "cosine": Cosine,
}
ScheduleName = Literal["constant", "step", "exponential", "cosine"]
