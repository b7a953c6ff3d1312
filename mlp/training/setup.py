"""What a run holds on its device, written once.

To train, a `Setup` is made on the model's backend; to plan, on the device that only counts
(`mlp.training.memory_plan`). The same code asks for the same arrays, so the plan is what training
takes.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from backends import PRECISIONS, Array, Backend
from backends.counting_backend import Count, shaped
from mlp.data.order import BlockOrder, balanced, classes_of, order
from mlp.data.row_files import Part
from mlp.data.samples import Samples
from mlp.errors import InputError, check_is, check_whole, shown
from mlp.formulas.loss_scaling import START
from mlp.formulas.optimizers import Optimizer, OptimizerName, towards
from mlp.model import Evaluator, Model, shares
from mlp.network.graph import Network
from mlp.parallel.crew import Crew, one_by_one
from mlp.parallel.group import ALONE, Group
from mlp.threads import shards_paying
from mlp.training.search import SEARCH_OF
from mlp.training.settings import Settings
from mlp.training.state import State
from mlp.training.step import Recorded, Step

Under = Callable[[str], AbstractContextManager[Any]]


KEPT = 1 << 16  # batches whose rows and places are held as objects, 300 bytes each


@dataclass(frozen=True)
class Batches(Sequence[slice]):
    """n rows cut into batches of so many; the last may be shorter. They are made when asked for.

    >>> cut = Batches(5, 2)
    >>> list(cut), cut.sizes
    ([slice(0, 2, None), slice(2, 4, None), slice(4, 5, None)], {1, 2})
    """

    n: int
    size: int

    def __len__(self) -> int:
        return -(-self.n // self.size)

    def __getitem__(self, batch: Any) -> Any:
        start = range(0, self.n, self.size)[batch]
        return slice(start, min(start + self.size, self.n))

    @property
    def sizes(self) -> set[int]:
        """The numbers of rows that occur."""
        return {rows.stop - rows.start for rows in (self[0], self[-1])}


@dataclass(frozen=True)
class Places(Sequence[Array]):
    """The rows of losses (batches, 2), each as (1, 2): where a batch's goes."""

    losses: Array

    def __len__(self) -> int:
        return self.losses.shape[0]

    def __getitem__(self, batch: Any) -> Any:
        batch = range(len(self))[batch]
        return self.losses[batch : batch + 1, :]


def few(made: Sequence[Any]) -> Sequence[Any]:
    """A list of what is made when asked for, unless there is much of it."""
    return made if len(made) > KEPT else [made[i] for i in range(len(made))]


def with_shards(settings: Settings, model: Model, rows: int, group: Group) -> Settings:
    """The settings for batches of so many rows, with as many shards as pay where they leave the
    number open and may: with NumPy on one process, and steps of one pass over a batch each."""
    one_pass = settings.accumulate == 1 and settings.sam_radius is None and not settings.searches
    whole = settings.mixup is None and not settings.record_steps
    if settings.parallel or group.size > 1 or not (one_pass and whole):
        return settings
    if model.backend.workers(2) == 1:
        return settings
    shards = shards_paying(rows, products(model, rows))
    return settings if shards == 1 else replace(settings, parallel={"shards": shards})


def products(model: Model, rows: int) -> list[int]:
    """Multiply-adds of each product of a pass on so many rows."""
    return [rows * size for size in model.network.matrices]


class Setup:
    """The arrays and the calls of one run.

    ``model`` is a copy of the model, which the run trains; ``finite`` and ``best`` are places for
    its last finite and its best weights; ``vectors`` the optimizer's. ``feed`` has the rows,
    ``batches`` cuts them, ``losses`` (batches, 2) gets each batch's, at ``places``. ``step`` and
    where wanted ``recorded`` run them; ``measure_train``, ``measure_held_out`` measure.

    backend: another one than the model's, to count on. streamed: whether the rows to train on, and
    those held out, stay on the host; None asks the backend. copies: whether there is room for a
    copy of the state, `copied`. under: the heading of what follows. group: the ranks of the run;
    crew: who runs the shards of this one.
    """

    def __init__(
        self,
        model: Model,
        settings: Settings,
        samples: Samples,
        held_out: Samples | None = None,
        *,
        backend: Backend | None = None,
        streamed: tuple[bool | None, bool | None] = (None, None),
        copies: bool = False,
        under: Under = lambda heading: nullcontext(),
        group: Group = ALONE,
        crew: Crew = one_by_one,
    ):
        self.group, self.crew = group, crew
        self.backend, self.dtype = backend or model.backend, model.dtype
        samples, held_out = samples.own(), held_out and held_out.own()
        self.settings, self.samples, self.held_out = settings, samples, held_out
        self.optimizer: Optimizer = settings.make_optimizer()
        cut = Batches(samples.n, settings.rows_of_a_batch(samples.n))
        self.batches, self.sizes = few(cut), cut.sizes
        self.steps = -(-len(self.batches) // settings.accumulate)  # of an epoch
        if backend is None:  # else it is planned with, for any number of rows
            self._check_rows(model.network)
            self._check_drawn(model)
            if settings.searches:
                self._check_search()
        self.shuffle = bool(settings.shuffle) and len(self.batches) > 1
        with under("weights"):
            self._weights(model)
        self._check_accumulation()
        with under("optimizer"):
            self._vectors()
        with under("data"):
            self._data(streamed[0])
        with under("step"):
            self._step()
        parts = settings.shards or 1
        with under("evaluation"):
            self.measure_train = None
            if settings.target_loss is not None:
                self.measure_train = Evaluator(
                    self.shown, self.feed, samples, (), (), group, crew, parts
                )
        with under("validation"):
            self.feed_held_out = self.measure_held_out = None
            if held_out is not None:
                self.feed_held_out = self.model.feed(held_out, streamed[1])
                chosen = settings.metrics, settings.watched
                self.measure_held_out = Evaluator(
                    self.shown, self.feed_held_out, held_out, *chosen, group, crew, parts
                )
        self.room: dict[str, Array] = {}
        if copies:
            with under("checkpoint"):
                self._room()

    def _check_search(self) -> None:
        """InputError for a search without all rows in one batch, or with several processes."""
        said = f"optimizer {shown(self.settings.optimizer, 60)}"
        if len(self.batches) > 1:
            raise InputError(
                f"{said} takes all rows in one batch: batch_size = 'full', not "
                f"{self.settings.batch_size}"
            )
        if self.group.size > 1:
            raise InputError(f"{said} is for one process; use 'rprop', or start one")

    def _check_rows(self, network: Network) -> None:
        """InputError if a batch has fewer rows than a layer needs, with a batch_size that cures."""
        n, size = self.samples.n, self.settings.rows_of_a_batch(self.samples.n)
        for least in sorted(self.sizes):
            what = f"the last batch of {n} rows at batch_size {size}"
            try:
                network.check_rows(least, what if least < size else f"a batch of batch_size {size}")
            except InputError as error:
                most = max(layer.least_rows for layer in network.layers)
                fits = [b for b in range(max(size, most), n + 1) if not 0 < n % b < most]
                cure = f"; use batch_size {fits[0]}" if fits else "; train on more rows"
                raise InputError(f"{error}{cure}") from None

    # ------------------------------------------------------------------ what is held

    def _weights(self, model: Model) -> None:
        self.model = model.copy_into(*self._like(model), self.backend)
        self.finite = self._like(model)
        self.best = self._like(model) if self.settings.patience else None

    def _like(self, model: Model) -> tuple[Array, Array]:
        """Room for weights and statistics."""
        w, statistics = model.w.shape, model.statistics.shape
        return self.backend.empty(w, self.dtype), self.backend.empty(statistics, self.dtype)

    def _vectors(self) -> None:
        initial = self.optimizer.initial(self.settings.rate())
        self.rows = None  # of a search: its vectors below each other, and a gradient
        if self.settings.searches:
            shape = len(initial) + 1, *self.model.w.shape
            self.rows = self.backend.full(shape, 0.0, self.dtype)
        self.vectors = {
            name: self.backend.full(self.model.w.shape, value, self.dtype)
            if self.rows is None
            else self.rows[i, :]
            for i, (name, value) in enumerate(zip(self.optimizer.state, initial, strict=True))
        }
        average, self.average_epoch = self.settings.make_average(), None
        self.average = average
        if average is not None and self.model.network.statistics and not average.share:
            raise InputError(
                f"average {shown(self.settings.average)}: the running statistics of this network "
                "are not those of averaged weights; use 'ema'"
            )
        others = {"average": average is not None, "accumulated": self.settings.accumulate > 1}
        for name in (name for name, wanted in others.items() if wanted):
            if name not in self.vectors:
                self.vectors[name] = self.backend.full(self.model.w.shape, 0.0, self.dtype)
        self.shown, self.finite_average = self.model, None
        if average is not None:
            mean, self.finite_average = self.vectors["average"], self._like(self.model)[0]
            self.shown = self.model.copy_into(mean, self.model.statistics)
            arrays = mean, self.finite_average, self.model.w
            self.average_epoch = self.backend.fuse(closed).bind(*arrays, scalars=1)

    def _check_accumulation(self) -> None:
        """Several batches are as one only where a penalty counts once."""
        objective = self.model.objective
        several = self.settings.accumulate > 1 and self.model.network.penalties()
        if several and (objective.reduction == "sum" or objective.shared_penalties):
            raise InputError(
                "accumulate: penalties (l1, l2) would count once a batch with reduction 'sum' or "
                "shared_penalties; use weight_decay, or reduction 'mean'"
            )

    def _data(self, streamed: bool | None) -> None:
        self.feed = self.model.feed(self.samples, streamed)
        if self.shuffle and not self.settings.record_steps:  # recorded steps have it in a table
            self.feed.make_order()
        measured = self.settings.target_loss is not None
        chunk = min(self.model._chunk(), self.feed.n) if measured else 0
        self.feed.make_room(max(*self.sizes, chunk))
        self.losses = self.backend.full((len(self.batches), 2), 0.0, self.dtype)
        self.places = few(Places(self.losses))

    def _step(self) -> None:
        self.loss_scale = None
        if PRECISIONS[self.model.precision].scaled:
            self.loss_scale = self.backend.empty((2,), self.dtype)
        self.step: Any
        self.recorded = None
        if self.rows is not None:
            s = self.samples.s
            arguments = self.model, self.feed, max(self.sizes), self.optimizer, self.rows
            self.step = SEARCH_OF[type(self.optimizer)](*arguments, self.settings, s)
            return
        self.step = Step(
            self.model,
            self.feed,
            self.sizes,
            self.optimizer,
            [self.vectors[name] for name in self.optimizer.state],
            self.loss_scale,
            self.settings,
            self.vectors.get("accumulated"),
            self.group,
            self._strength(),
            self.crew,
        )
        if self.settings.record_steps:
            self.recorded = Recorded(self.step, self.feed, self.batches, self.losses)

    def _strength(self) -> Callable[[int], float] | None:
        """The factor on dropout and noise, of the step counted from 0."""
        schedule = self.settings.make_dropout_schedule()
        return schedule and partial(schedule, steps_per_epoch=self.steps)

    def _check_drawn(self, model: Model) -> None:
        """InputError if what is to be mixed, balanced or scheduled cannot be or is not there."""
        settings, samples, network = self.settings, self.samples, model.network
        ordered = getattr(model.objective.loss, "ordered", False)
        if settings.dropout_schedule != "constant" and not network.drawing:
            raise InputError("dropout_schedule has no effect: no layer has dropout or noise")
        if settings.shuffle == "balanced":
            if isinstance(samples.X, Part):
                raise InputError("shuffle = 'balanced' is for rows in memory, these are on disk")
            if len(self.batches) == 1:
                raise InputError(
                    "shuffle = 'balanced' has no effect with all rows in one batch; use a smaller "
                    "batch_size"
                )
            t = np.asarray(samples.t)
            self.classes = classes_of(t.ravel() if ordered else t)
        if settings.mixup is None:
            return
        if len(self.batches) == 1:
            raise InputError(
                "mixup with all rows in one batch mixes the same ones each time; use a smaller "
                "batch_size"
            )
        if samples.s is not None:
            raise InputError("mixup takes no weights of rows: a mix of two has none of its own")
        if self.group.size > 1:
            raise InputError("mixup mixes the rows of whole batches: it is for one process")
        if ordered:
            raise InputError("mixup: between ordered classes there are no mixes")
        for number in network.numbers():
            if network.layer(number).integers:
                raise InputError(
                    f"mixup: layer {number} reads whole numbers, as codes of categories, which "
                    "cannot be mixed"
                )

    def _room(self) -> None:
        """Room for a copy of all that a state has on the device."""
        model = self.model
        arrays = {"w": model.w, "statistics": model.statistics, "batch_losses": self.losses}
        arrays |= {f"vector_{name}": x for name, x in self.vectors.items()}
        if self.best is not None:
            arrays["best_w"], arrays["best_statistics"] = self.best
        if self.loss_scale is not None:
            arrays["loss_scale"] = self.loss_scale
        self.room = {name: self.backend.empty(x.shape, x.dtype) for name, x in arrays.items()}

    def copied(self, state: State) -> State:
        """A copy of the state, until the next one takes its room."""

        def copy(name: str, x: Array | None) -> Any:
            if x is None or name not in self.room:  # best weights of a run before, which stay
                return x
            self.backend.copy(x, self.room[name])
            return self.room[name]

        names = ("w", "statistics", "batch_losses", "best_w", "best_statistics", "loss_scale")
        return replace(
            state,
            **{name: copy(name, getattr(state, name)) for name in names},
            vectors={name: copy(f"vector_{name}", x) for name, x in state.vectors.items()},
            history={name: list(values) for name, values in state.history.items()},
        )

    def keep(self, place: tuple[Array, Array], model: Model | None = None) -> None:
        """The model's weights and statistics, or those of another, into a place for them."""
        model = model or self.model
        self.backend.copy(model.w, place[0])
        self.backend.copy(model.statistics, place[1])

    def keep_average(self) -> None:
        """The average, where there is one, as that of the last finite epoch."""
        if self.finite_average is not None:
            self.backend.copy(self.shown.w, self.finite_average)

    def go_back(self, place: tuple[Array, Array]) -> None:
        """The model's weights and statistics from there."""
        self.backend.copy(place[0], self.model.w)
        self.backend.copy(place[1], self.model.statistics)

    def average_back(self) -> None:
        """The average of the last finite epoch."""
        if self.finite_average is not None:
            self.backend.copy(self.finite_average, self.shown.w)

    def give_back(self) -> None:
        """Let go of what only further steps would need."""
        del self.step, self.recorded, self.feed, self.measure_train, self.measure_held_out
        del self.feed_held_out

    def order(self, epoch: int) -> np.ndarray | BlockOrder | None:
        """The order of the samples in an epoch; None as they are."""
        if not self.shuffle:
            return None
        if self.settings.shuffle == "balanced":
            return balanced(self.settings.seed, epoch, self.classes)
        about = self.settings.seed, epoch, self.samples.n
        if self.settings.shuffle != "blocks" and not isinstance(self.samples.X, Part):
            return order(*about)
        # Mixup mixes rows that follow each other, so they stay in random order; it has no ranks.
        size = None if self.settings.mixup is not None else self.batches[0].stop
        shards = getattr(self.step, "shards", None)
        return BlockOrder(*about, size, shards and shards.part_of)

    def shares(self, order: np.ndarray | BlockOrder | None) -> np.ndarray:
        """The weight of each batch in a mean over samples, as `mlp.model.shares`; where weights are
        on disk each rank sums up those of its own rows."""
        s = self.samples.s
        if isinstance(s, Part):
            s.file.expect(order if isinstance(order, BlockOrder) else None)
        if not isinstance(s, Part) or not isinstance(self.step, Step) or not self.step.shards:
            return shares(self.batches, s, order)

        def own() -> np.ndarray:
            parts = (self.step.rows_of(batch, order) for batch in self.batches)
            return np.array([[s[rows].sum(dtype=np.float64) for rows in part] for part in parts])

        return np.concatenate(self.group.every(own), axis=1).sum(axis=1)

    # ------------------------------------------------------------------ where it begins

    def begin(self, state: State | None) -> State:
        """A fresh state, or the given one, in the arrays held here. InputError if the state is of
        another net, optimizer or number of batches."""
        model = self.model
        if self.loss_scale is not None:
            given = None if state is None else state.loss_scale
            self._fill(self.loss_scale, np.array([START, 0.0]) if given is None else given)
        if state is None:
            state = State(model.w, self.vectors, self.settings.rate())
        else:
            self._check(state)
            model.w = state.w
            if state.statistics is not None:
                model.statistics = state.statistics
            for name, vector in self.vectors.items():
                self._fill(vector, state.vectors[name])
        self.step.follow()
        self.keep_average()
        best: tuple[Any, Any] = None, None
        if state.best_w is not None:
            self.best = best = self.best or self._like(model)
            given_best = state.best_w, state.best_statistics
            for place, x in zip(best, given_best, strict=True):
                if x is not None:
                    self._fill(place, x)
        if state.batch_losses is not None:
            self._fill(self.losses, state.batch_losses)
        return replace(
            state,
            w=model.w,
            statistics=self.known(model.statistics),
            vectors=self.vectors,
            best_w=best[0],
            best_statistics=self.known(best[1]),
            history={name: list(values) for name, values in state.history.items()},
            loss_scale=self.loss_scale,
        )

    def known(self, statistics: Array | None) -> Array | None:
        """None for a net that has no statistics."""
        return statistics if self.model.network.statistics else None

    def _fill(self, place: Array, x: Any) -> None:
        self.backend.copy(self.backend.asarray(x, self.dtype), place)

    def _check(self, state: State) -> None:
        check_is("the state to go on from", state, State)
        state.check()
        if set(state.vectors) != set(self.vectors):
            raise InputError(
                f"the state to go on from has optimizer vectors {sorted(state.vectors)}, "
                f"{shown(self.settings.optimizer)} has {sorted(self.vectors)} with these settings"
            )
        shape = self.model.w.shape
        if state.w.shape != shape:
            raise InputError(
                f"the state to go on from has {state.w.shape[0]} parameters, the network {shape[0]}"
            )
        if state.is_past(self.settings.epochs):
            raise InputError(
                f"the state to go on from has {state.done()}, epochs={self.settings.epochs} are "
                "asked for in all: ask for more"
            )
        if state.batch_losses is not None and state.batch_losses.shape[0] != len(self.batches):
            raise InputError(
                f"the state to go on from has {state.batch_losses.shape[0]} batches an epoch, "
                f"these data and batch_size have {len(self.batches)}; to begin that epoch again, "
                "give dataclasses.replace(state, batch=0, batch_losses=None)"
            )
        for name, x in (("w", state.w), ("statistics", state.statistics), *state.vectors.items()):
            values = () if x is None else self.backend.to_numpy(self.backend.asarray(x))
            if not np.isfinite(values).all():
                raise InputError(
                    f"the state to go on from has {name} with values that are NaN or infinite, as "
                    "of a run that diverged; train anew with a smaller learning rate"
                )


def closed(xp: Any, mean: Array, before: Array, w: Array, share: Array) -> Array:
    """The mean at the end of an epoch, from that of the epoch before: made anew if it is closed
    again."""
    return towards(xp, before, w, share)


def step_memory(
    network: Network,
    batch_size: int,
    precision: str = "float32",
    optimizer: OptimizerName | Mapping[str, Any] | Optimizer = "adam",
) -> dict[str, int]:
    """Bytes of a step of training on so many rows, by what they are for: what the network alone
    knows of. The data, the loss and what is measured come to it; `mlp.plan` has it all.

    >>> from mlp.layers import Dense
    >>> step_memory(Network(9, [Dense(2)]), 100)
    {'weights': 80, 'gradient': 80, 'optimizer': 160, 'activations and deltas': 4400}
    """
    check_whole("batch_size", batch_size, 1)
    model = Model(network, "half_squared_error", backend=Count(), precision=precision)
    X, t = (shaped((batch_size, width), "float64") for width in (network.inputs, network.outputs))
    settings = Settings(batch_size="full", optimizer=optimizer)
    held: Any = Setup(model, settings, Samples(X, t))  # whose arrays say how many bytes
    return {
        "weights": held.model.w.nbytes,
        "gradient": held.step.g.nbytes,
        "optimizer": sum(vector.nbytes for vector in held.vectors.values()),
        "activations and deltas": held.step.arena.layer_bytes,
    }
