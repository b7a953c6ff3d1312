"""Where a run stands: all that is needed to go on from it, as one record."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from numbers import Real

from backends import Array
from mlp.errors import InputError, check_is, check_whole, is_finite, shown

ARRAYS = ("batch_losses", "best_w", "loss_scale", "statistics", "best_statistics")
COUNTS = ("step", "epoch", "batch", "best_epoch", "waited")  # whole numbers from 0 on


@dataclass
class State:
    """The whole progress of a run; see `mlp.training.checkpoint` for its way to disk and back.

    w, statistics (of layers), vectors (the optimizer's), batch_losses and best_w are on the device.
    step counts updates from the start, epoch completed epochs, batch the completed batches of the
    epoch under way, whose losses are in batch_losses, seconds the time that training took. best_w
    and best_statistics are those at the lowest watched error, best_loss: the loss, or the metric,
    with the other sign where greater is better; waited: the epochs since it got better. loss_scale,
    (2,), is that of mixed precision (`mlp.formulas.loss_scaling`).
    """

    w: Array
    vectors: dict[str, Array]
    learning_rate: float
    step: int = 0
    epoch: int = 0
    batch: int = 0
    batch_losses: Array | None = None
    history: dict[str, list[float]] = field(default_factory=dict)
    best_loss: float = math.inf
    best_epoch: int = 0
    best_w: Array | None = None
    waited: int = 0
    loss_scale: Array | None = None
    statistics: Array | None = None
    best_statistics: Array | None = None
    seconds: float = 0.0

    def check(self) -> None:
        """InputError if its parts do not fit together; whose values they are is not looked at."""
        for name in COUNTS:
            check_whole(f"state: {name}", getattr(self, name), 0)
            if getattr(self, name) >= 2**53:
                raise InputError(f"state: {name} must be below 2^53, not {getattr(self, name)}")
        if not (_is_number(self.learning_rate) and 0.0 < self.learning_rate < math.inf):
            raise InputError(
                f"state: learning_rate must be above 0, not {shown(self.learning_rate)}"
            )
        if not (_is_number(self.seconds) and 0.0 <= self.seconds < math.inf):
            raise InputError(f"state: seconds must be 0 or above, not {shown(self.seconds)}")
        if not _is_number(self.best_loss):
            raise InputError(f"state: best_loss must be a number, not {shown(self.best_loss)}")
        check_is("state: vectors", self.vectors, Mapping)
        check_is("state: history", self.history, Mapping)
        for name, x in (
            ("w", self.w),
            *((f"vector {shown(name)}", x) for name, x in self.vectors.items()),
            *((name, getattr(self, name)) for name in ARRAYS if getattr(self, name) is not None),
        ):
            if not getattr(x, "shape", ()):
                raise InputError(f"state: {name} must be an array, not {shown(x, 60)}")
        length, under_way = self.w.shape, self.batch_losses
        batches = 0 if under_way is None else under_way.shape[0]
        if self.batch > batches:
            raise InputError(
                f"state: batch {self.batch} is under way, of {batches} batches whose losses it has"
            )
        statistics = None if self.statistics is None else self.statistics.shape
        for name, x, shape in (
            ("w", self.w, (math.prod(length),)),
            *((f"vector {shown(name)}", x, length) for name, x in self.vectors.items()),
            ("best_w", self.best_w, length),
            ("best_statistics", self.best_statistics, statistics),
            ("batch_losses", under_way, (batches, 2)),
            ("loss_scale", self.loss_scale, (2,)),
        ):
            if x is not None and tuple(x.shape) != shape:
                raise InputError(f"state: {name} has shape {tuple(x.shape)}, expected {shape}")
        for name, values in self.history.items():
            check_is(f"state: history of {shown(name)}", values, list)
            if len(values) > self.epoch:
                raise InputError(
                    f"state: the history of {shown(name)} has {len(values)} entries, {self.epoch} "
                    "epochs are done"
                )

    def is_past(self, epochs: int) -> bool:
        """Steps were taken that belong to no run of so many epochs."""
        return (self.epoch, self.batch) > (epochs, 0)

    def done(self) -> str:
        """Epochs, and batches of the next, in words."""
        return f"{self.epoch} epochs" + (f" and {self.batch} batches" if self.batch else "")

    def __repr__(self) -> str:
        under_way = f", {self.batch} batches of the next" if self.batch else ""
        return (
            f"State(after {self.step} steps, {self.epoch} epochs{under_way}; "
            f"{self.w.shape[0]} parameters, learning rate {self.learning_rate:g})"
        )


def _is_number(x: object) -> bool:
    return is_finite(x) or (isinstance(x, Real) and x in (math.inf, -math.inf))
