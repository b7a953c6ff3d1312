"""How to train: one frozen record, checked when it is made."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from numbers import Integral
from typing import Any, Literal, TypedDict

import numpy as np

from mlp.durations import seconds_of
from mlp.errors import (
    InputError,
    check_switch,
    check_takes,
    check_whole,
    did_you_mean,
    is_finite,
    shown,
)
from mlp.formulas.averages import AVERAGES, Average, AverageName
from mlp.formulas.metrics import METRICS, Metric, MetricSpec, get_metric
from mlp.formulas.optimizers import OPTIMIZERS, Averaged, Decayed, Optimizer, OptimizerName
from mlp.formulas.schedules import SCHEDULES, Constant, Schedule, ScheduleName, Warmup, get_schedule
from mlp.formulas.searches import SEARCHES, SearchName
from mlp.layers.layer import ROLES
from mlp.names import make

RULES: dict[str, Any] = {**OPTIMIZERS, **SEARCHES}
WATCHED = ("loss", "validation_loss")  # beside metrics
RENAMED = {"cuda_graphs": "record_steps"}


def _share(schedule: Schedule) -> Schedule:
    """The schedule; InputError where it is not from 0 to 1."""

    def checked(step: int, steps_per_epoch: int) -> float:
        factor = schedule(step, steps_per_epoch)
        if not 0.0 <= factor <= 1.0:
            raise InputError(
                f"dropout_schedule: {shown(schedule)} gives {shown(factor)} in step {step}; a "
                "factor on dropout is from 0 to 1"
            )
        return factor

    return checked


def own_schedule(schedule: Any) -> Schedule:
    """A schedule of the user's own; InputError if it takes or gives another thing."""
    check_takes("a schedule", schedule, "step", "steps_per_epoch")

    def checked(step: int, steps_per_epoch: int) -> float:
        try:
            factor = schedule(step, steps_per_epoch)
        except (TypeError, ValueError) as error:
            raise InputError(
                f"the schedule {shown(schedule)} fails in step {step}: {error}"
            ) from error
        if not is_finite(factor):
            raise InputError(
                f"the schedule {shown(schedule)} gives {shown(factor)}, which is no number"
            )
        return float(factor)

    return checked


class Options(TypedDict, total=False):
    """The fields of `Settings` as keywords of `mlp.train`, for type checkers and editors."""

    epochs: int
    batch_size: int | Literal["full"] | None
    optimizer: OptimizerName | SearchName | Mapping[str, Any] | Optimizer
    learning_rate: float | None
    schedule: ScheduleName | Mapping[str, Any] | Schedule
    warmup: float
    dropout_schedule: ScheduleName | Mapping[str, Any] | Schedule
    mixup: float | None
    shuffle: bool | Literal["blocks", "balanced"]
    target_loss: float | None
    patience: int | None
    min_delta: float
    restore_best: bool
    best: Literal["first", "last"]
    watch: Literal["loss", "validation_loss"] | MetricSpec | None
    metrics: Sequence[MetricSpec] | None
    seed: int
    record_steps: bool
    initialize: Literal["data"] | None
    parallel: Mapping[str, int]
    rate_factors: Mapping[Any, Any]
    weight_decay: float | None
    weight_decay_schedule: ScheduleName | Mapping[str, Any] | Schedule
    decay_factors: Mapping[Any, Any]
    clip_norm: float | None
    clip_value: float | None
    accumulate: int
    sam_radius: float | None
    average: AverageName | Mapping[str, Any] | Average | None
    time: str | float | None


@dataclass(frozen=True)
class Settings:
    """How to train.

    epochs: passes over the data, at most. batch_size: 1 is stochastic, "full" (or None) the full
    batch. optimizer: a name of `mlp.formulas.optimizers.OPTIMIZERS`, or on full batches of
    `mlp.formulas.searches.SEARCHES`, a mapping with its settings, or an object. learning_rate: None
    is the optimizer's usual one. rate_factors: what the rate of
    some parameters is multiplied by, 0 freezes them: by role (`mlp.layers.ROLES`, as "bias"), by
    name ("W[1, 2]") or by number of a layer; "ntk" is 1/√d for weights of layers with d inputs.
    weight_decay: w <- (1 - rate weight_decay) w before each update, on weights and tables, by any
    rule; its factor over the run is weight_decay_schedule; decay_factors as rate_factors, on any
    parameters ("ntk" is √d). clip_norm, clip_value: the largest gradient, as a whole or each number
    of it (`mlp.formulas.clipping`). accumulate: so many batches make one step, as if they were one,
    but for batch_norm, whose mean is that of each. sam_radius: of sharpness-aware minimisation, two
    gradients a step. average: "ema", {"name": "swa", "start": 75}: what is predicted with, watched
    and saved is then the average of the weights (`mlp.formulas.averages`). initialize: "data" lets
    a fresh run start from weights with which each unit varies alike over the rows
    (`mlp.training.initial`), whatever the model's are.
    schedule: a name of `mlp.formulas.schedules.SCHEDULES`, a mapping, or a function; warmup: epochs
    of linear warm-up before it. dropout_schedule: as schedule, the factor on the rate of every
    layer's dropout and on the deviation of its noise. mixup: α of `mlp.training.mixup`, as 0.2;
    None: rows are not mixed. The loss of an epoch is then that of the mixes. shuffle: a new order
    each epoch: of all rows where they are in memory, in blocks where they are on disk
    (`mlp.data.order.BlockOrder`); "blocks": in blocks wherever they are; "balanced": all classes
    equally often, in epochs of as many rows as there are (`mlp.data.order.balanced`). time: stop
    after so long, "10 min" or seconds, what a run before took included. target_loss: stop once E
    over the training set is not above it (eq. 1; costs one more forward pass an epoch). patience:
    stop after so many epochs in which what is watched got no better by more than min_delta, and go
    back to the best weights (restore_best), of epochs that are as good the "first" or the "last"
    (best); watch: "validation_loss", "loss", or a metric of the validation data
    (`mlp.formulas.metrics`), None is the validation loss where there is one. metrics: what is
    measured on the validation data, None are the usual ones. seed: of the order, the validation
    split and dropout. record_steps: record the step on the device once and replay it, which spares
    the time that starting its kernels takes; a learning rate that a callback changes then counts
    from the next epoch on. parallel: {"shards": 4} cuts each batch into so many shards, a power of
    two, whose gradients are added in a fixed tree, so that 1, 2 and 4 processes, each of any number
    of threads, give the same weights to the last bit (on one kind of CPU); without it they agree to
    rounding. With NumPy the shards run in threads of their own, and a large net on one process is
    cut into as many as pay, unless this says {"shards": "none"} (docs/parallel.md).

    >>> settings = Settings(epochs=50, optimizer="rprop")
    >>> settings, settings.rate()
    (Settings(epochs=50, optimizer='rprop'), 0.1)
    >>> Settings(warmup=2, schedule="cosine").make_schedule()(0, steps_per_epoch=10)
    0.05
    """

    epochs: int = 100
    batch_size: int | Literal["full"] | None = 32
    optimizer: OptimizerName | SearchName | Mapping[str, Any] | Optimizer = "adam"
    learning_rate: float | None = None
    schedule: ScheduleName | Mapping[str, Any] | Schedule = "constant"
    warmup: float = 0.0
    dropout_schedule: ScheduleName | Mapping[str, Any] | Schedule = "constant"
    mixup: float | None = None
    shuffle: bool | Literal["blocks", "balanced"] = True
    target_loss: float | None = None
    patience: int | None = None
    min_delta: float = 0.0
    restore_best: bool = True
    best: Literal["first", "last"] = "first"
    watch: Literal["loss", "validation_loss"] | MetricSpec | None = None
    metrics: Sequence[MetricSpec] | None = None
    seed: int = 0
    record_steps: bool = False
    initialize: Literal["data"] | None = None
    parallel: Mapping[str, int] = field(default_factory=dict)
    rate_factors: Mapping[Any, Any] = field(default_factory=dict)
    weight_decay: float | None = None
    weight_decay_schedule: ScheduleName | Mapping[str, Any] | Schedule = "constant"
    decay_factors: Mapping[Any, Any] = field(default_factory=dict)
    clip_norm: float | None = None
    clip_value: float | None = None
    accumulate: int = 1
    sam_radius: float | None = None
    average: AverageName | Mapping[str, Any] | Average | None = None
    time: str | float | None = None

    def __post_init__(self) -> None:
        if isinstance(self.batch_size, str) and self.batch_size == "full":
            object.__setattr__(self, "batch_size", None)
        for name, value, least, optional in (
            ("epochs", self.epochs, 0, False),
            ("batch_size", self.batch_size, 1, True),
            ("patience", self.patience, 1, True),
            ("seed", self.seed, 0, False),
            ("accumulate", self.accumulate, 1, False),
        ):
            if value is not None or not optional:
                check_whole(name, value, least)
        by_name = isinstance(self.shuffle, str) and self.shuffle in ("blocks", "balanced")
        if not (by_name or isinstance(self.shuffle, (bool, np.bool_))):
            raise InputError(
                f"shuffle must be True, False, 'blocks' or 'balanced', not {shown(self.shuffle)}"
            )
        for name in ("record_steps", "restore_best"):
            check_switch(name, getattr(self, name))
        for name in ("learning_rate", "target_loss", "min_delta", "warmup"):
            number = getattr(self, name)
            if number is None and name in ("learning_rate", "target_loss"):
                continue
            if not is_finite(number):
                raise InputError(f"{name} must be a number, not {shown(number)}")
        if self.learning_rate is not None and not self.learning_rate > 0:
            raise InputError(f"learning_rate must be above 0, not {shown(self.learning_rate)}")
        if self.min_delta < 0:
            raise InputError(f"min_delta must be 0 or above, not {shown(self.min_delta)}")
        if self.warmup < 0:
            raise InputError(f"warmup must be 0 epochs or more, not {shown(self.warmup)}")
        self._check_metrics()
        named = isinstance(self.initialize, str) and self.initialize == "data"
        if self.initialize is not None and not named:
            raise InputError(f"initialize must be 'data' or None, not {shown(self.initialize)}")
        self._check_parallel()
        self.make_schedule()
        self._check_factors()
        self._check_decay()
        self._check_gradient()
        self.make_average()
        self.make_dropout_schedule()
        self._check_mixup()
        if self.time is not None:
            seconds_of(self.time)
        if getattr(self._rule(), "own_rate", False) and (
            self.schedule != "constant" or self.warmup
        ):
            raise InputError(
                f"optimizer {shown(self.optimizer)} finds its own step sizes: remove the schedule "
                "and the warm-up"
            )

    def __repr__(self) -> str:
        """What is not as usual."""
        usual = Settings()
        given = {field.name: getattr(self, field.name) for field in fields(self)}
        said = [f"{name}={x!r}" for name, x in given.items() if x != getattr(usual, name)]
        return f"Settings({', '.join(said)})"

    @classmethod
    def check_names(cls, names: Iterable[str]) -> None:
        """InputError for a name that is no setting, with the nearest one."""
        for name in names:
            if name in RENAMED:
                raise InputError(f"{name} is now {RENAMED[name]}")
            if name not in cls.__dataclass_fields__:
                hint = did_you_mean(name, cls.__dataclass_fields__)
                raise InputError(f"train has no setting {shown(name)}{hint}")

    def _check_metrics(self) -> None:
        if not (isinstance(self.best, str) and self.best in ("first", "last")):
            raise InputError(f"best must be 'first' or 'last', not {shown(self.best)}")
        if self.best == "last" and not (self.patience and self.restore_best):
            raise InputError("best = 'last' is of the epochs that patience compares; give patience")
        if isinstance(self.watch, str) and self.watch not in (*WATCHED, *METRICS):
            own = self.watch.removeprefix("validation_")
            hint = f"; write {own!r}" if own in METRICS else None
            hint = hint or did_you_mean(self.watch, (*WATCHED, *METRICS))
            raise InputError(f"watch is a loss or a metric, not {shown(self.watch)}{hint}")
        listed = isinstance(self.metrics, (list, tuple))
        if self.metrics is not None and not listed:
            raise InputError(
                f"metrics must be a list, as ['roc_auc'], not {shown(self.metrics, 60)}"
            )
        for metric in (*(self.metrics or ()), *self.watched):
            get_metric(metric)

    @property
    def watched(self) -> list[Metric]:
        """The metric that is watched; none, where it is a loss."""
        loss = self.watch is None or (isinstance(self.watch, str) and self.watch in WATCHED)
        return [] if loss else [get_metric(self.watch)]  # type: ignore[arg-type]

    def _check_factors(self) -> None:
        for what in ("rate_factors", "decay_factors"):
            factors = getattr(self, what)
            if not isinstance(factors, Mapping):
                raise InputError(f"{what} is a mapping from roles to numbers, not {shown(factors)}")
            for key, factor in factors.items():
                named = isinstance(key, str) and re.fullmatch(r"\d+|.+\[[\d, ]+\]", key)
                if not (named or key in ROLES or (isinstance(key, int) and key > 0)):
                    raise InputError(f"{what}: no role {shown(key)}{did_you_mean(key, ROLES)}")
                if isinstance(factor, str) and factor == "ntk":
                    continue
                if not (is_finite(factor) and factor >= 0):
                    must = "a number or 'ntk'" if isinstance(factor, str) else "0 or above"
                    raise InputError(f"{what}: {key} must be {must}, not {shown(factor)}")
        if getattr(self._rule(), "own_rate", False):
            for key, factor in self.rate_factors.items():
                if factor not in (0, 1):
                    raise InputError(
                        f"optimizer {shown(self.optimizer)} finds its own step sizes: rate_factors "
                        f"can only freeze, {key} = 0, not {shown(factor)}"
                    )

    def _check_decay(self) -> None:
        rule, decay = self._rule(), self.weight_decay
        if decay is not None:
            if not (is_finite(decay) and decay >= 0):
                raise InputError(f"weight_decay must be 0 or above, not {shown(decay)}")
            own = hasattr(rule, "weight_decay")
            if own and not isinstance(self.optimizer, str):
                raise InputError(
                    f"weight_decay is {shown(decay)} and that of the optimizer "
                    f"{shown(rule.weight_decay)}: give one of them"
                )
            if getattr(rule, "own_rate", False) or (getattr(rule, "decays", False) and not own):
                raise InputError(
                    f"optimizer {shown(self.optimizer)} cannot have weight_decay; use l2 of the "
                    "layers"
                )
        self.make_decay_schedule()
        for name, usual in (("weight_decay_schedule", "constant"), ("decay_factors", {})):
            if getattr(self, name) != usual and not self.decays:
                raise InputError(f"{name} has no effect without weight_decay")

    def _check_gradient(self) -> None:
        """What is done with the gradient before the update."""
        for name in ("clip_norm", "clip_value", "sam_radius"):
            value = getattr(self, name)
            if value is not None and not (is_finite(value) and value > 0):
                raise InputError(f"{name} must be above 0, not {shown(value)}")
        clips = [name for name in ("clip_norm", "clip_value") if getattr(self, name) is not None]
        rule, several = self._rule(), self.accumulate > 1
        for wrong, cure in (
            (len(clips) > 1, "clip_norm and clip_value are two ways to one end: give one"),
            (
                clips and (getattr(rule, "own_rate", False) or getattr(rule, "matrices", False)),
                f"optimizer {shown(self.optimizer)} takes steps whatever the gradient's size: "
                f"remove {' '.join(clips)}",
            ),
            (several and self.batch_size is None, "accumulate has no effect on full batches"),
            (
                several and self.sam_radius is not None,
                "accumulate and sam_radius do not go together",
            ),
            (several and self.record_steps, "accumulate and record_steps do not go together"),
            *self._of_searches(),
        ):
            if wrong:
                raise InputError(cure)

    @property
    def searches(self) -> bool:
        """Whether the rule looks at several points in a step."""
        return type(self._rule()) in SEARCHES.values()

    def _of_searches(self) -> list[tuple[Any, str]]:
        """What rules that look at several points cannot have."""
        if not self.searches:
            return []
        alone = f"optimizer {shown(self.optimizer, 60)} takes its steps by itself: remove "
        average = self.make_average()
        return [
            (self.sam_radius is not None, alone + "sam_radius"),
            (self.accumulate > 1, alone + "accumulate"),
            (self.record_steps, alone + "record_steps"),
            (self.shards, alone + "parallel"),
            (average is not None and average.share, alone + "the average, or use 'swa'"),
        ]

    def _check_parallel(self) -> None:
        if not isinstance(self.parallel, Mapping):
            raise InputError(
                f"parallel is a mapping, as {{'shards': 4}}, not {shown(self.parallel)}"
            )
        for name in self.parallel:
            if name != "shards":
                raise InputError(
                    f"parallel: no setting {shown(name)}{did_you_mean(name, ['shards'])}"
                )
        shards = self.parallel.get("shards")
        if isinstance(shards, str) and shards != "none":
            raise InputError(f"parallel: shards is a number or 'none', not {shown(shards)}")
        if self.shards is not None:
            check_whole("parallel: shards", self.shards, 1)
            if self.shards & (self.shards - 1):
                raise InputError(
                    f"parallel: shards must be a power of two, as 4, not {self.shards}"
                )
            if self.record_steps:
                raise InputError("record_steps records one pass a step; leave it or shards out")

    @property
    def shards(self) -> int | None:
        """The shards of a batch; None: one for each process."""
        shards = self.parallel.get("shards")
        return None if shards == "none" else shards

    def rows_of_a_batch(self, n: int) -> int:
        """How many of n rows a batch has; the last one may have fewer."""
        size = self.batch_size
        return min(int(size), n) if isinstance(size, Integral) else n

    def _rule(self) -> Any:
        """The update rule alone."""
        made = make(RULES, self.optimizer, "optimizer")
        if type(made) in SEARCHES.values():
            return made
        if not all(hasattr(made, name) for name in ("state", "initial", "constants", "update")):
            raise InputError(
                "an optimizer is a name or an object with state, initial, constants and update, "
                f"not {shown(self.optimizer)}"
            )
        return made

    @property
    def decays(self) -> bool:
        """Whether some weight decay is on."""
        if self.weight_decay is None:
            return bool(getattr(self._rule(), "decays", False))
        return self.weight_decay > 0

    def make_optimizer(self) -> Optimizer:
        """The update rule, with weight decay and an average of each step where they are wanted."""
        made = self._rule()
        if self.weight_decay is not None and hasattr(made, "weight_decay"):
            made = replace(made, weight_decay=float(self.weight_decay))
        elif self.weight_decay:
            made = Decayed(made, float(self.weight_decay))
        average = self.make_average()
        return Averaged(made, average.share) if average is not None and average.share else made

    def make_average(self) -> Average | None:
        """The average of the weights that is predicted with."""
        if self.average is None:
            return None
        made: Average = make(AVERAGES, self.average, "average")
        if not all(hasattr(made, name) for name in ("share", "share_of_epoch")):
            raise InputError(
                "an average is a name or an object with share and share_of_epoch, not "
                f"{shown(made)}"
            )
        return made

    def make_decay_schedule(self) -> Schedule | None:
        """The factor on the weight decay; None where it is 1."""
        if isinstance(self.weight_decay_schedule, str) and self.weight_decay_schedule == "constant":
            return None
        kind = "weight_decay_schedule"
        schedule = get_schedule(self.weight_decay_schedule, max(self.epochs, 1), kind)
        return schedule if type(schedule) in SCHEDULES.values() else own_schedule(schedule)

    def make_schedule(self) -> Schedule:
        """The factor on the learning rate as a function of (step, steps per epoch)."""
        schedule = get_schedule(self.schedule, max(self.epochs - self.warmup, 1))
        if type(schedule) not in SCHEDULES.values():
            schedule = own_schedule(schedule)
        return Warmup(self.warmup, schedule) if self.warmup else schedule

    def make_dropout_schedule(self) -> Schedule | None:
        """The factor on dropout and noise as a function of (step, steps per epoch); None: 1."""
        schedule = get_schedule(self.dropout_schedule, max(self.epochs, 1), "dropout_schedule")
        if hasattr(schedule, "after"):
            raise InputError(
                f"dropout_schedule: {shown(self.dropout_schedule)} depends on how training goes, "
                "which is for the learning rate alone; use one that depends on the step"
            )
        if isinstance(schedule, Constant):
            return None
        return _share(schedule if type(schedule) in SCHEDULES.values() else own_schedule(schedule))

    def _check_mixup(self) -> None:
        if self.mixup is None:
            return
        if not (is_finite(self.mixup) and self.mixup > 0):
            raise InputError(
                f"mixup must be above 0, as 0.2, or None for no mixes, not {shown(self.mixup)}"
            )
        if not self.shuffle:
            raise InputError("mixup without shuffle mixes the same rows in each epoch: shuffle")
        if self.shards is not None:
            raise InputError("mixup mixes the rows of whole batches: it is not for shards")

    def rate(self) -> float:
        """The learning rate, or what is usual for the optimizer."""
        if self.learning_rate is not None:
            return self.learning_rate
        usual = getattr(self.make_optimizer(), "learning_rate", None)
        if usual is None:
            raise InputError(
                "an optimizer of your own needs learning_rate, in the settings or as its attribute"
            )
        return usual
