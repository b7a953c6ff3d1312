"""Where a run stands: all that is needed to go on from it, as one record."""

import math
from dataclasses import dataclass, field

from backends import Array


@dataclass
class State:
    """The whole progress of a run; see `mlp.training.checkpoint` for its way to disk and back.

    w, vectors (the optimizer's), batch_losses and best_w are on the device. step counts updates
    from the start, epoch completed epochs, batch the completed batches of the epoch under way,
    whose losses are in batch_losses. best_w are the weights at the lowest watched loss, waited the
    epochs since. loss_scale, (2,), is that of mixed precision (`mlp.formulas.loss_scaling`).
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
