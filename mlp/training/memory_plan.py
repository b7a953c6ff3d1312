"""The memory plan of a training: set up on a device that only counts.

>>> from mlp.layers.dense import Dense
>>> from mlp.model import Model
>>> from mlp.network.graph import Network
>>> model = Model(Network(784, [Dense(512, "relu"), Dense(10, "softmax")]), "cross_entropy")
>>> found = plan(model, 60_000, batch_size=100, data_dtype="uint8", patience=True)
>>> {part: megabytes(size) for part, size in found.parts.items()}
{'weights': '5.3 MB', 'optimizer': '3.3 MB', 'data': '484.8 kB', 'step': '2.4 MB'}
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np

from backends import Memory
from backends.counting_backend import Count, shaped
from mlp.data.samples import Samples
from mlp.errors import InputError, check_is, check_switch, check_whole, shown
from mlp.formulas.averages import Average, AverageName
from mlp.formulas.optimizers import Optimizer, OptimizerName
from mlp.formulas.searches import SearchName
from mlp.memory import megabytes
from mlp.model import Model
from mlp.parallel.group import ALONE, Group
from mlp.training.search import LevenbergMarquardtSearch
from mlp.training.settings import Settings
from mlp.training.setup import Setup, with_shards


@dataclass(frozen=True)
class Plan:
    """What a training will ask of the device that is not taken yet, against what there is.

    ``parts``: bytes by heading; "weights" are those that are trained, their last finite values and
    with patience the best ones. streamed: whether the rows to train on, and the validation rows,
    stay on the host and are sent batch by batch. locked: bytes of the host's memory that are
    page-locked for copies, at most. at: the plan with another batch_size. whole: whether the rule
    needs all rows in one batch. shards: that a batch is cut into, None if it is not.
    """

    parts: dict[str, int]
    batch_size: int
    rows: int
    streamed: tuple[bool, bool]
    device: str
    memory: Memory
    locked: int
    at: Callable[[int], "Plan"] = field(repr=False, compare=False)
    whole: bool = False
    shards: int | None = None

    @property
    def needed(self) -> int:
        """Bytes in all."""
        return sum(self.parts.values())

    @property
    def fits(self) -> bool:
        """Whether there is as much. Of shared memory all of it counts (see `backends.Memory`);
        where nobody knows, it fits."""
        return self.memory.limit is None or self.needed <= self.memory.limit

    def largest(self) -> int:
        """The largest batch_size that fits, at most all rows; 0 if none does."""
        if self.at(self.rows).fits:
            return self.rows
        fits, too_large = 0, self.rows
        while too_large - fits > 1:
            middle = (fits + too_large) // 2
            fits, too_large = (middle, too_large) if self.at(middle).fits else (fits, middle)
        return fits

    def check(self) -> None:
        """InputError if it does not fit: what is needed, what there is, and what would fit."""
        if self.fits:
            return
        memory, limit = self.memory, megabytes(self.memory.limit or 0)
        there = f"has {limit} in all" if memory.shared else f"has {limit} free"
        if memory.limit == memory.left:
            there = f"has {limit} left for this process (ulimit, control group)"
        if self.whole:
            part, size = max(self.parts.items(), key=lambda entry: entry[1])
            raise InputError(
                f"this training needs {megabytes(self.needed)}, {self.device} {there}: the {part} "
                f"{_alone(part)} {megabytes(size)}, and its optimizer has all {self.rows} rows in "
                "one batch; train on fewer, make the net smaller, or use another optimizer"
            )
        if largest := self.largest():
            raise InputError(
                f"this training needs {megabytes(self.needed)}, {self.device} {there}: the largest "
                f"batch_size that fits is {largest}, not {self.batch_size}"
            )
        least = self.at(1)
        part, size = max(least.parts.items(), key=lambda entry: entry[1])
        raise InputError(
            f"this training needs {megabytes(least.needed)} even at batch_size 1, {self.device} "
            f"{there}: the {part} {_alone(part)} {megabytes(size)}; {_CURES.get(part, _CURES[''])}"
        )

    def line(self) -> str:
        """In one line: "memory: 12 MB of 8.0 GB free on DEVICE (data 3.1 MB, ...)"."""
        free = "" if self.memory.free is None else f" of {megabytes(self.memory.free)} free"
        parts = ", ".join(
            f"{name}{' streamed' if name == 'data' and self.streamed[0] else ''} {megabytes(size)}"
            for name, size in self.parts.items()
        )
        return f"memory: {megabytes(self.needed)}{free} on {self.device} ({parts})"

    def __str__(self) -> str:
        """A table: a line for each part, what is needed in all, and what is free."""
        notes = {
            "weights": "and copies of them: the last finite, with patience the best",
            "data": _where(self.streamed[0]),
            "validation": _where(self.streamed[1]),
            "checkpoint": "a copy of the state, written while training goes on",
            "step": f"gradient, activations and deltas of {self.batch_size} rows",
        }
        lines = [(name, size, notes.get(name, "")) for name, size in self.parts.items()]
        lines.append(("needed", self.needed, ""))
        if self.memory.free is not None:
            lines.append(("free", self.memory.free, self.device))
        if self.locked:
            lines.append(("page-locked", self.locked, "at most, of the host's memory, for copies"))
        return "\n".join(
            f"{name:<11}{megabytes(size):>9}  {note}".rstrip() for name, size, note in lines
        )


_CURES = {
    "weights": "make the net smaller, or use precision 'float32'",
    "data": "use less data, or leave the rows on disk (mlp.open_rows; in settings data.memory)",
    "optimizer": "use an optimizer with fewer vectors ('momentum' has one, 'sgd' none)",
    "": "make the net smaller, or use a device with more memory",
}


def _alone(part: str) -> str:
    return "take" if part in ("weights", "data") else "takes"


def _where(streamed: bool) -> str:
    return "streamed from the host batch by batch" if streamed else "on the device"


def plan(
    model: Model,
    samples: int,
    *,
    batch_size: int | Literal["full"] | None = 32,
    optimizer: OptimizerName | SearchName | Mapping[str, Any] | Optimizer = "adam",
    validation: int = 0,
    patience: bool = False,
    target_loss: bool = False,
    shuffle: bool | Literal["blocks"] = True,
    sample_weight: bool = False,
    data_dtype: str = "float64",
    record_steps: bool = False,
    accumulate: int = 1,
    clip_norm: float | None = None,
    clip_value: float | None = None,
    sam_radius: float | None = None,
    average: AverageName | Mapping[str, Any] | Average | None = None,
    mixup: float | None = None,
) -> Plan:
    """What `mlp.train` would ask of the device for so many samples that are on the host.

    Settings as in `mlp.Settings`; validation: rows, beside the samples; data_dtype: of X.
    Nothing is allocated, nothing is refused for its size: see `Plan.fits`, `Plan.check`,
    `str(plan)`.
    """
    check_is("plan: model", model, Model)
    check_whole("samples", samples, 1)
    check_whole("validation", validation, 0)
    for name, value in (
        ("patience", patience),
        ("target_loss", target_loss),
        ("sample_weight", sample_weight),
    ):
        check_switch(f"plan: {name}", value)
    try:
        numbers = np.dtype(data_dtype).kind in "biuf"
    except (TypeError, ValueError):  # no dtype at all
        numbers = False
    if not numbers:
        raise InputError(
            f"data_dtype must be a dtype of numbers, as 'uint8', not {shown(data_dtype)}"
        )

    def rows(n: int, weighted: bool = False) -> Samples:
        about = model.objective
        classes = about.targets == "classes" and not about.ordered
        t = shaped((n,), "int64") if classes else shaped((n, about.columns), "float64")
        s = shaped((n,), "float64") if weighted else None
        return Samples(shaped((n, model.network.inputs), data_dtype), t, s)

    settings = Settings(
        batch_size=batch_size,
        optimizer=optimizer,
        patience=1 if patience else None,
        target_loss=0.0 if target_loss else None,
        shuffle=shuffle,
        record_steps=record_steps,
        accumulate=accumulate,
        clip_norm=clip_norm,
        clip_value=clip_value,
        sam_radius=sam_radius,
        average=average,
        mixup=mixup,
    )
    held_out = rows(validation) if validation else None
    return plan_for(model, rows(samples, sample_weight), held_out, settings)


def plan_for(
    model: Model,
    samples: Samples,
    held_out: Samples | None,
    settings: Settings,
    copies: bool = False,
    group: Group = ALONE,
) -> Plan:
    """The plan for these rows; copies: with room for one of the state. Data that the backend would
    keep on the device, but that leave no room for the rest there, are streamed. Where nobody says
    a number of shards, batches are cut into as many as pay (`mlp.training.setup.with_shards`), but
    stay whole where those do not fit and a whole one does: each shard has a gradient of its own."""
    memory, device = model.backend.memory(), model.backend.device_name()

    def at(size: int) -> Plan:
        whole = replace(settings, batch_size=size)
        found = with_settings(with_shards(whole, model, size, group))
        if not found.fits and found.shards != whole.shards:
            one = with_settings(whole)
            found = one if one.fits else found
        return found

    def with_settings(settings: Settings) -> Plan:
        found = with_data(settings, None)
        if not found.fits and isinstance(samples.X, np.ndarray) and not found.streamed[0]:
            streamed = with_data(settings, True)
            found = streamed if streamed.fits else found
        return found

    def with_data(settings: Settings, streamed: bool | None) -> Plan:
        count = Count(model.backend)
        held = Setup(
            model,
            settings,
            samples,
            held_out,
            backend=count,
            streamed=(streamed, streamed),
            copies=copies,
            under=count.under,
            group=group,
        )
        with count.under("weights"):
            count.empty(model.w.shape, "bool")  # whether they are finite, asked once an epoch
        with count.under("step"):
            if isinstance(held.step, LevenbergMarquardtSearch):
                count.empty(held.step.H.shape, model.dtype)  # what solving takes
            for tape in held.recorded.tapes.values() if held.recorded else ():
                count.record(tape.run)
        watched = held.feed_held_out
        places = held.feed.stream is not None, watched is not None and watched.stream is not None
        parts = {name: found for name, found in count.bytes.items() if found}
        about = samples.n, places, device, memory, count.locked, at
        return Plan(parts, max(held.sizes), *about, settings.searches, settings.shards)

    return at(settings.rows_of_a_batch(samples.n))
