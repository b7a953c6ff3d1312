"""Schedules: the factor by which a number, as the learning rate, is multiplied at a step.

A schedule is a function of the step's number s (from 0, so that the first step has the factor at
0) and the steps of an epoch S; e = s / S is the time in epochs, and t = e / epochs, at most 1.

    constant          1
    step              factor ^ floor(e / every)                                           (1)
    exponential       factor ^ e                                                          (2)
    cosine            floor + (1 - floor) (1 + cos(π t)) / 2                              (3)
    warm-up           (s + 1) / (epochs S) up to 1, before any of them                    (4)
    inverse_scaling   (1 + rate e) ^ -power                                               (5)
    polynomial        floor + (1 - floor) (1 - t) ^ power                                 (6)
    cosine_restarts   (3) anew in cycles of epochs, epochs growth, epochs growth², ...    (7)
    one_cycle         from start to 1 at t = rise, from there to end, half a cosine each  (8)
    coslog4           (1 - cos(2π log2(1 + 15 t))) / 2: four cycles, each twice as long   (9)
    flat_cosine       1 up to t = flat, then half a cosine down to 0                      (10)
    plateau           factor ^ (times that the watched loss stood still for patience)     (11)

What has ``epochs`` falls, where they are not given, over the whole run.

Your own is any such function; one with a name is a row of `SCHEDULES` and of `ScheduleName`. One
that depends on how training goes has a method ``after``, which gives the function for the coming
epoch, of the watched losses so far: it has no state, so that a run can be gone on with.

Sources: (3), (7) Loshchilov, Hutter, arXiv:1608.03983, eq. (5); (5) scikit-learn's "invscaling",
which counts samples: rate is their number; (8) Smith, Topin, arXiv:1708.07120, section 3; (9) and
(10) Holzmüller, Grinsztajn, Steinwart, arXiv:2407.04491, appendix A; (11) as PyTorch's
ReduceLROnPlateau.

>>> cosine = Cosine(epochs=10)
>>> [round(cosine(step, steps_per_epoch=1), 3) for step in (0, 5, 10)]
[1.0, 0.5, 0.0]
>>> Warmup(epochs=2)(step=0, steps_per_epoch=2)
0.25
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields, replace
from typing import Any, Literal

from mlp.names import check_settings, make

Schedule = Callable[..., float]


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
        return _between(1.0, self.floor, _time(step, steps_per_epoch, self.epochs))


def _time(step: int, steps_per_epoch: int, epochs: float) -> float:
    """t, from 0 to 1."""
    return min(1.0, step / steps_per_epoch / epochs)


def _between(start: float, end: float, t: float) -> float:
    """Half a cosine from start at t = 0 to end at t = 1."""
    return end + (start - end) * 0.5 * (1.0 + math.cos(math.pi * t))


@dataclass(frozen=True)
class InverseScaling:
    """A power of the time that has passed, eq. (5)."""

    power: float = 0.5
    rate: float = 1.0

    def __post_init__(self) -> None:
        check_settings(self, "inverse_scaling schedule", power="(0, inf)", rate="(0, inf)")

    def __call__(self, step: int, steps_per_epoch: int) -> float:
        return float((1.0 + self.rate * (step / steps_per_epoch)) ** -self.power)


@dataclass(frozen=True)
class Polynomial:
    """A power of the time that is left, from 1 down to ``floor``, eq. (6); 1 is a straight line."""

    epochs: float
    power: float = 1.0
    floor: float = 0.0

    def __post_init__(self) -> None:
        ranges = {"epochs": "(0, inf)", "power": "(0, inf)", "floor": "[0, 1]"}
        check_settings(self, "polynomial schedule", **ranges)

    def __call__(self, step: int, steps_per_epoch: int) -> float:
        left = 1.0 - _time(step, steps_per_epoch, self.epochs)
        return float(self.floor + (1.0 - self.floor) * left**self.power)


@dataclass(frozen=True)
class CosineRestarts:
    """Half cosines from 1 down to ``floor``, eq. (7): the first within ``epochs``, each of the next
    ``growth`` times as long as the one before."""

    epochs: float = 10.0
    growth: float = 1.0
    floor: float = 0.0

    def __post_init__(self) -> None:
        ranges = {"epochs": "(0, inf)", "growth": "[1, inf)", "floor": "[0, 1]"}
        check_settings(self, "cosine_restarts schedule", **ranges)

    def __call__(self, step: int, steps_per_epoch: int) -> float:
        cycles, growth = step / steps_per_epoch / self.epochs, self.growth
        if growth == 1.0:
            return _between(1.0, self.floor, math.fmod(cycles, 1.0))
        # After n cycles (growth^n - 1) / (growth - 1) first ones are over.
        n = math.floor(math.log1p(cycles * (growth - 1.0)) / math.log(growth) + 1e-12)
        begun = (growth**n - 1.0) / (growth - 1.0)
        return _between(1.0, self.floor, max(0.0, cycles - begun) / growth**n)


@dataclass(frozen=True)
class OneCycle:
    """Up from ``start`` to 1 within the share ``rise`` of the epochs, down to ``end``, eq. (8)."""

    epochs: float
    rise: float = 0.3
    start: float = 0.04
    end: float = 4e-6

    def __post_init__(self) -> None:
        ranges = {"epochs": "(0, inf)", "rise": "(0, 1)", "start": "[0, 1]", "end": "[0, 1]"}
        check_settings(self, "one_cycle schedule", **ranges)

    def __call__(self, step: int, steps_per_epoch: int) -> float:
        t = _time(step, steps_per_epoch, self.epochs)
        if t < self.rise:
            return _between(self.start, 1.0, t / self.rise)
        return _between(1.0, self.end, (t - self.rise) / (1.0 - self.rise))


@dataclass(frozen=True)
class Coslog4:
    """Four cycles of doubling length, from 0 to 1 and back in each, eq. (9)."""

    epochs: float

    def __post_init__(self) -> None:
        check_settings(self, "coslog4 schedule", epochs="(0, inf)")

    def __call__(self, step: int, steps_per_epoch: int) -> float:
        t = _time(step, steps_per_epoch, self.epochs)
        return 0.5 * (1.0 - math.cos(2.0 * math.pi * math.log2(1.0 + 15.0 * t)))


@dataclass(frozen=True)
class FlatCosine:
    """1 for the share ``flat`` of the epochs, then half a cosine down to 0, eq. (10)."""

    epochs: float
    flat: float = 0.5

    def __post_init__(self) -> None:
        check_settings(self, "flat_cosine schedule", epochs="(0, inf)", flat="[0, 1)")

    def __call__(self, step: int, steps_per_epoch: int) -> float:
        t = _time(step, steps_per_epoch, self.epochs)
        return _between(1.0, 0.0, max(0.0, (t - self.flat) / (1.0 - self.flat)))


@dataclass(frozen=True)
class Plateau:
    """Multiplied by ``factor`` when the watched loss has not fallen for more than ``patience``
    epochs in a row, eq. (11), down to ``floor``.

    It has fallen if it is below (1 - ``threshold``) of the lowest so far, or where that is negative
    below (1 + threshold) of it.

    >>> schedule = Plateau(factor=0.5, patience=1)
    >>> schedule.after([3.0, 2.0, 2.0, 2.5, 1.0])(step=50, steps_per_epoch=10)
    0.5
    """

    factor: float = 0.1
    patience: float = 10.0
    threshold: float = 1e-4
    floor: float = 0.0

    def __post_init__(self) -> None:
        ranges = {"factor": "(0, 1)", "patience": "[0, inf)", "threshold": "[0, 1)"}
        check_settings(self, "plateau schedule", **ranges, floor="[0, 1]")

    def __call__(self, step: int, steps_per_epoch: int) -> float:
        return 1.0

    def after(self, watched: Sequence[float]) -> Schedule:
        """What it is in the epoch after these."""
        lowest, waited, reached = math.inf, 0, 1.0
        for loss in watched:
            if math.isnan(loss):  # not measured, by a run before
                continue
            margin = self.threshold * abs(lowest) if lowest < math.inf else 0.0
            lowest, waited = (loss, 0) if loss < lowest - margin else (lowest, waited + 1)
            if waited > self.patience:
                reached, waited = max(reached * self.factor, self.floor), 0
        return lambda step, steps_per_epoch: reached


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

    def after(self, watched: Sequence[float]) -> Schedule:
        """With what follows it, after what was watched."""
        return replace(self, then=following(self.then, watched))


def following(schedule: Schedule, watched: Sequence[float]) -> Schedule:
    """The schedule for the epoch after those in which this was watched."""
    after = getattr(schedule, "after", None)
    return schedule if after is None else after(watched)


SCHEDULES: dict[str, Callable[..., Schedule]] = {
    "constant": Constant,
    "step": StepDecay,
    "exponential": Exponential,
    "inverse_scaling": InverseScaling,
    "polynomial": Polynomial,
    "cosine": Cosine,
    "cosine_restarts": CosineRestarts,
    "flat_cosine": FlatCosine,
    "one_cycle": OneCycle,
    "coslog4": Coslog4,
    "plateau": Plateau,
}
ScheduleName = Literal[
    "constant",
    "step",
    "exponential",
    "inverse_scaling",
    "polynomial",
    "cosine",
    "cosine_restarts",
    "flat_cosine",
    "one_cycle",
    "coslog4",
    "plateau",
]


def get_schedule(spec: Any, epochs: float, kind: str = "schedule") -> Schedule:
    """The schedule of a name, a mapping or a function. epochs: of the whole run, over which it
    falls where it has ``epochs`` and they are not given.

    >>> get_schedule("cosine", epochs=50)
    Cosine(epochs=50, floor=0.0)
    """
    given = {"name": spec} if isinstance(spec, str) else spec
    if isinstance(given, Mapping) and "epochs" not in given:
        entry: Any = SCHEDULES.get(str(given.get("name")))
        needed = [x.name for x in fields(entry) if x.default is MISSING] if entry else []
        if "epochs" in needed:
            spec = {**given, "epochs": epochs}
    made: Schedule = make(SCHEDULES, spec, kind)
    return made
