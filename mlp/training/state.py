"""Where a run stands: all that is needed to go on from it, as one record."""

import math
from dataclasses import dataclass, field

from backends import Array


@dataclass
class State:
    """The whole progress of a run; see `mlp.training.checkpoint` for its way to disk and back.

    w, statistics (of layers), vectors (the optimizer's), batch_losses and best_w are on the device.
    step counts updates from the start, epoch completed epochs, batch the completed batches of the
    epoch under way, whose losses are in batch_losses. best_w and best_statistics are those at the
    lowest watched loss, waited the epochs since. loss_scale, (2,), is that of mixed precision
    (`mlp.formulas.loss_scaling`).
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

    def __repr__(self) -> str:
        under_way = f", {self.batch} batches of the next" if self.batch else ""
        return (
            f"State(after {self.step} steps, {self.epoch} epochs{under_way}; "
            f"{self.w.shape[0]} parameters, learning rate {self.learning_rate:g})"
        )
