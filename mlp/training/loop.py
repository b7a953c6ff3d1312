"""Training: gradient, update, and the question whether to go on (derivation 003, Algorithm 1).

    initialise w; compute E
    while E > epsilon (or another criterion holds):                                       (1)
        g = dE/dw over a batch                                                            (2)
        w <- update(w, g)                                                                 (3)
        compute E

The note writes "while E < epsilon", which is a slip: the loop runs while the error is above what is
wanted. A batch is one example (stochastic), some (mini-batch) or all (full batch). In epoch e the
samples come in an order that is a function of (seed, e) alone.

Nothing is read back from the device inside an epoch: the batch losses gather in a vector that is
read when the epoch ends. The whole progress is one `State`: saved after any step and resumed, on
this backend or another, the run goes on as if it had not stopped. So it does if memory ran out in
the middle, where `mlp.plan` could not foresee it.

>>> import numpy as np
>>> from mlp.layers.dense import Dense
>>> from mlp.model import Model
>>> from mlp.network.graph import Network
>>> X = np.array([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
>>> t = np.array([[0.0], [1.0], [1.0], [0.0]])
>>> model = Model(Network(2, [Dense(4, "tanh"), Dense(1, "sigmoid")]), "binary_cross_entropy")
>>> result = train(model, X, t, optimizer="rprop", batch_size=None, epochs=200, target_loss=0.01)
>>> result.model.classify(X).tolist(), result.stopped
([0, 1, 1, 0], 'the wanted loss is reached')
"""

import math
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any, Unpack

import numpy as np

from backends import Array, Backend
from mlp.data.feed import Feed, Rows
from mlp.data.order import BlockOrder, split
from mlp.data.readers import Dataset
from mlp.data.samples import Samples, constant
from mlp.data.stored import StoredDataset
from mlp.durations import seconds_of
from mlp.errors import InputError, check_is, is_finite, shown
from mlp.files import PathLike
from mlp.formulas.schedules import following
from mlp.memory import HOST, device_lost, enough_memory, is_short, megabytes, shortage
from mlp.model import Model, mean_or_sum
from mlp.parallel.crew import Crew, Threads, crew_for, one_by_one
from mlp.parallel.group import ALONE, Group, is_agreed
from mlp.threads import blas_threads, limited
from mlp.training.checkpoints import Checkpoints, Writer
from mlp.training.initial import from_data
from mlp.training.memory_plan import Plan, plan_for
from mlp.training.pace import Pace
from mlp.training.ranks import about_ranks, aligned
from mlp.training.run import EVENTS, Result, Run, hooks_of, interruptible, only_looks
from mlp.training.search import Search
from mlp.training.settings import Options, Settings
from mlp.training.setup import Setup, products
from mlp.training.state import State
from mlp.training.step import WHOLE, Recorded, Step, Turn

FAILED = "a callback failed"  # the reason that ranks give each other

Validation = float | tuple[Any, Any] | Dataset | StoredDataset | Samples | None


def train(
    model: Model,
    X: Any,
    t: Any = None,
    *,
    validation: Validation = None,
    sample_weight: Any = None,
    callbacks: Iterable[Any] = (),
    state: State | None = None,
    checkpoint: Checkpoints | PathLike | None = None,
    threads: int | None = None,
    group: Group = ALONE,
    settings: Settings | None = None,
    **options: Unpack[Options],
) -> Result:
    """Train a copy of the model on X (n, inputs) and t, and return it with its history.

    X may be what `mlp.read` or `mlp.open_rows` gives, with its targets. t: (n, outputs); for
    cross_entropy (n,) class numbers too; or labels (n,): of the model's classes, and where it has
    none they are learned. validation: a share of the rows to hold out (of rows on disk in blocks,
    `StoredDataset.split`), or (X, t), or what `mlp.read` or `mlp.open_rows` gives. sample_weight:
    (n,), 0 or above. state: of an earlier run, to go on from. checkpoint: a folder in which the
    state is kept while training, or `Checkpoints` that say how. threads: that products may use
    meanwhile, or that run the shards of `parallel`; None: with NumPy as many as gain by it
    (`mlp.threads.paying`, `shards_paying`), unless `mlp.threads.limited` or the environment says a
    number. group: the processes that train together, all of them by this call with the same
    arguments, as `mlp.parallel.world()`: each takes its part of every batch, and rank 0 alone calls
    callbacks (but those with ``every_rank = True``) and writes checkpoints; see docs/parallel.md.
    settings, or its fields by name: see `Settings`.

    Ctrl-C ends the run after the batch under way and keeps what was learned; a second one raises.
    If a callback raises, the state up to that batch is a checkpoint, where there are some.
    Raises InputError for data or settings that do not fit, also if the device's memory is too small
    for them; BackendError if the device is lost. If the loss becomes non-finite, the run ends with
    the last finite weights and warns what to try. If memory runs out in the middle, the run ends as
    by Ctrl-C.
    """
    check_is("train: model", model, Model)
    Settings.check_names(options)
    if settings is not None:
        check_is("train: settings", settings, Settings)
    settings = replace(settings or Settings(), **options)
    check_is("train: group", group, Group)
    try:
        callbacks = list(callbacks)
    except TypeError as error:
        raise InputError(
            f"train: callbacks is a list of them, not {shown(callbacks, 60)}"
        ) from error
    kept = None
    if checkpoint is not None:
        kept = checkpoint if isinstance(checkpoint, Checkpoints) else Checkpoints(checkpoint)
    if group.rank:
        kept = None  # rank 0's are those of all
    with limited(threads), _device_kept(model.backend, kept), model.backend.scope():
        group = group.on(model.backend)
        with group.together(), enough_memory(model.backend, "training, before its first step"):
            model = model.learns(X, t, group)
            parts = _checked(model, X, t, sample_weight, validation, settings.seed, group)
        group.same(about_ranks(model, settings, *parts) if group.size > 1 else {})
        with group.together(), enough_memory(model.backend, "training, before its first step"):
            plan = plan_for(model, *parts, settings, kept is not None, group)
            plan.check()
            rows = settings.rows_of_a_batch(parts[0].n)
            if plan.shards is not None:  # as the settings say, or left open, as many as pay
                settings = replace(settings, parallel={"shards": plan.shards})
            if settings.initialize == "data" and state is None:
                model = from_data(model, parts[0], settings.seed)
        if group.size > 1 and settings.initialize == "data":  # a copy, on this kind of CPU
            model.w = group.broadcast(model.backend.to_numpy(model.w))
        shards = None if settings.shards is None else settings.shards // group.size
        made = crew_for(model.backend, shards, products(model, rows // group.size))
        with ExitStack() as until_the_end, made as crew:
            with group.together(), enough_memory(model.backend, "training, before its first step"):
                if kept is not None:
                    until_the_end.enter_context(kept.alone())
                about = *parts, callbacks, state, plan, kept, group, crew
                trainer = Trainer(model, settings, *about)
            with interruptible(trainer.run):
                return trainer.train()


@contextmanager
def _device_kept(backend: Backend, kept: Checkpoints | None) -> Iterator[None]:
    """BackendError that names the last checkpoint if the device is lost."""
    try:
        yield
    except Exception as error:
        if not backend.lost(error):
            raise
        found = kept.found() if kept is not None else []
        raise device_lost(
            backend,
            "training",
            error,
            f"the last checkpoint is {found[0]}: a new process can go on from it (`mlp train "
            "--resume RUN`; in Python state=mlp.Checkpoints(folder).newest())"
            if found
            else "there is no checkpoint",
        ) from error


def plan_training(
    model: Model,
    X: Any,
    t: Any = None,
    *,
    validation: Validation = None,
    sample_weight: Any = None,
    settings: Settings,
    copies: bool = False,
) -> Plan:
    """What `train` with the same arguments will ask of the device; nothing is refused. copies:
    whether the state is kept while training."""
    model = model.learns(X, t)
    with model.backend.scope():
        parts = _checked(model, X, t, sample_weight, validation, settings.seed)
        return plan_for(model, *parts, settings, copies)


def _checked(
    model: Model,
    X: Any,
    t: Any,
    sample_weight: Any,
    validation: Any,
    seed: int,
    group: Group = ALONE,
) -> tuple[Samples, Samples | None]:
    """The samples to train on, and those to watch; InputError if they do not fit the model."""
    share = isinstance(validation, (int, float, np.number))
    if share and not is_finite(validation):
        raise InputError("validation is the share of the rows to hold out, between 0 and 1")
    if isinstance(X, StoredDataset) and share:
        X, validation = X.split(float(validation), seed)
    samples = model.samples(X, t, sample_weight, group=group)
    t = samples.t
    assert t is not None
    if model.objective.targets == "classes" and constant(t, group):
        raise InputError("t holds only one class; a classifier needs at least two")
    if validation is None:
        return samples, None
    if isinstance(validation, (Dataset, StoredDataset, Samples)):
        return samples, model.samples(validation, what="validation ", group=group)
    if isinstance(validation, (tuple, list)) and len(validation) == 2:
        X_v, t_v = validation
        return samples, model.samples(X_v, t_v, what="validation ")
    if not share:
        raise InputError(
            "validation is the share of the rows to hold out or a pair (X, t), not "
            f"{shown(validation)}"
        )
    kept, held_out = split(samples.n, float(validation), seed)
    return samples.rows(kept, model.backend), samples.rows(held_out, model.backend)


def epoch(
    step: Step | Recorded,
    feed: Feed,
    batches: Sequence[slice],
    losses: Sequence[Array],
    rate: Callable[[int], float],
    *,
    number: int,
    seed: int,
    order: np.ndarray | BlockOrder | None = None,
    first: int = 0,
    stays: bool = False,
    decay: Callable[[int], float] | None = None,
    turns: Sequence[Turn] | None = None,
    before: Callable[[], bool] | None = None,
    after: Callable[[int, int], None] | None = None,
) -> None:
    """The steps of one epoch, from batch ``first`` on: eq. (2) and (3) for each.

    batches: of rows in their order, (n,) on the host; without an order of the samples as they are.
    losses: (1, 2) for each batch. rate: the learning rate of a step, counted from 0; decay: the
    factor on its weight decay. number: steps done so far. seed: of dropout. turns: what each batch
    is of its step, where a step has several. stays: the one batch is in the buffers already.
    before: called before each step, False ends the epoch; after: with the batches and the steps
    done, when a step is, and before the rows of the next are asked for. A step that fails is none.
    """
    index = None if order is None else feed.rows(order)
    step.follow()

    def rows_of(batch: int) -> Rows | None:
        if stays or batch >= len(batches):
            return None
        return step.rows_of(batches[batch], index)

    chosen = rows_of(first)
    for batch in range(first, len(batches)):
        if before is not None and not before():
            return
        n, eta = batches[batch].stop - batches[batch].start, rate(number)
        decayed = 1.0 if decay is None else decay(number)
        turn = WHOLE if turns is None else turns[batch]
        step(n, chosen, eta, number + 1, seed, losses[batch], decayed, turn)
        number += turn.last
        if after is not None:
            after(batch + 1, number)
        chosen = rows_of(batch + 1)
        if chosen is not None:
            step.ahead(feed, chosen)


class Trainer:
    """One run: what it holds, its state, its loop. `train` makes one and runs it."""

    def __init__(
        self,
        model: Model,
        settings: Settings,
        samples: Samples,
        held_out: Samples | None,
        callbacks: list[Any],
        state: State | None,
        plan: Plan,
        checkpoints: Checkpoints | None = None,
        group: Group = ALONE,
        crew: Crew = one_by_one,
    ):
        self.group = group
        if group.rank:
            callbacks = [x for x in callbacks if getattr(x, "every_rank", False)]
        usual = "validation_loss" if held_out else "loss"
        self.watch, self.sign = str(settings.watch or usual), 1.0
        for metric in settings.watched:
            self.watch = f"validation_{metric.name}"
            self.sign = -1.0 if metric.greater_is_better else 1.0
        if self.watch != "loss" and not held_out:
            raise InputError(f"watch = {shown(settings.watch)} needs validation data")
        if settings.metrics and not held_out:
            raise InputError("metrics are of validation data, and there are none: give validation")
        self.held = held = Setup(
            model,
            settings,
            samples,
            held_out,
            streamed=plan.streamed,
            copies=checkpoints is not None,
            group=group,
            crew=crew,
        )
        self.state = held.begin(state)
        self.writer = None
        if checkpoints is not None:
            self.writer = Writer(checkpoints, held.backend, held.copied, self.watch, self.sign)
            self.writer.begin(self.state)
        self.model, self.settings, self.backend = held.model, settings, held.backend
        self.batches, self.schedule = held.batches, settings.make_schedule()
        self.decay_schedule, self.steps = settings.make_decay_schedule(), held.steps
        self.most_seconds = math.inf if settings.time is None else seconds_of(settings.time)
        self.began = time.monotonic() - self.state.seconds
        self._begin_schedules()
        if len(self.batches) == 1:
            held.step.load(self.batches[0])  # a full batch stays where it is
        threads = crew.size if isinstance(crew, Threads) else blas_threads()
        about = samples.n, len(self.batches), plan, threads
        self.run = Run(self.model, settings, self.state, *about)
        waiting = blas_threads() > 1 and self.backend.workers(2) > 1  # for each other's turn
        self.pace, self.started = Pace() if waiting else None, 0.0
        self.warned = False  # that the ranks' weights were not the same
        self.failed: Exception | None = None  # of a callback, until the ranks meet
        self._check_watched()
        self.hooks = {name: hooks_of(callbacks, name) for name in EVENTS}
        batch = [*self.hooks["on_batch_start"], *self.hooks["on_batch_end"]]
        self.touched = not all(map(only_looks, batch))  # weights between steps, perhaps

    # ------------------------------------------------------------------ the loop

    def train(self) -> Result:
        state, settings, held = self.state, self.settings, self.held
        diverged, memory_ended = False, None
        self._call("on_run_start")
        held.keep(held.finite)
        try:
            diverged = not self._epochs()
            self._stopping()
            self._align(warned=True)
        except (Exception, SystemExit) as error:
            if not is_short(self.backend, error):  # a callback's, or what reads the rows: it goes
                if not self.backend.lost(error):  # on up, and the state is kept
                    self._keep()
                raise
            if self.group.size > 1 and not is_agreed(error):
                raise
            memory_ended = shortage(self.backend, error)
        finally:
            if self.writer is not None:
                self.writer.wait()
        self.run.over = True
        held.give_back()
        if memory_ended:
            self.run.stopping = self._short_of_memory(*memory_ended)
            diverged = not np.isfinite(self.backend.to_numpy(self.model.w)).all()  # on the host
        if diverged:
            held.go_back(held.finite)
            held.average_back()
            state.batch, state.batch_losses = 0, None
            self.run.stopping = self._advice()
        elif self.writer is not None and self.writer.checkpoints.at_end:
            self._keep()
        stopped = self.run.stopping or f"all {settings.epochs} epochs are done"
        # The state keeps the weights of the last step. Nothing is allocated: memory may be short.
        model = self.model.copy_into(*held.finite)
        if held.shown is not self.model:
            self.backend.copy(held.shown.w, model.w)
        if settings.patience and settings.restore_best and state.best_w is not None:
            model.w = state.best_w
            if state.best_statistics is not None:
                model.statistics = state.best_statistics
        result = Result(model, state.history, stopped, state, diverged, bool(memory_ended))
        self._call("on_run_end")
        self.group.settle(self.failed, self.backend)
        if diverged and self.group.rank == 0:
            warnings.warn(stopped, RuntimeWarning, stacklevel=3)
        return result

    def _keep(self) -> None:
        """A checkpoint of what is now, where there are some."""
        if self.writer is not None:
            self.writer.end(self.state)

    def _look(self) -> None:
        """A checkpoint if one is due."""
        if self.writer is not None:
            self.writer.look(self.state)

    def _epochs(self) -> bool:
        """The epochs that are still to be done. False: the last one is not finite."""
        state, settings = self.state, self.settings
        self._stop_on_time()
        if state.batch == 0:  # a run gone on with may be over already
            self._stop_on_target()
            self._stop_on_patience()
        while state.epoch < settings.epochs and not self._stopping():  # (1)
            self._call("on_epoch_start")
            self._follow()
            started = time.perf_counter()
            self._epoch()
            if state.batch < len(self.batches) and self._finite():
                return True  # stopped within the epoch; its losses are in the state
            if not self._close_epoch(started):
                return False
            self._call("on_epoch_end")
            self._look()
        return True

    def _epoch(self) -> None:
        """The batches of one epoch that are still to be done."""
        state, held = self.state, self.held
        state.batch_losses = held.losses
        self._begin_schedules()
        step: Step | Recorded = held.step
        order = self.order = held.order(state.epoch)
        if held.recorded is not None:
            step = held.recorded
            ahead = range(state.step, state.step + len(self.batches) - state.batch)
            rates = [(self._rate(s), self.decay(s) if self.decay else 1.0) for s in ahead]
            step.begin(order, state.batch, state.step, rates)
            order = None if step.gathers else order

        def before() -> bool:
            if self._stopping():
                return False
            self._call("on_batch_start")
            if self.touched:
                step.follow()
            self.started = time.perf_counter()
            return True

        def after(batches: int, steps: int) -> None:
            state.batch, state.step = batches, steps
            if isinstance(step, Search):  # of any number of evaluations, at no pace of its own
                state.learning_rate = step.rate
                if step.ended:
                    self.run.stop(step.ended)
            else:
                self._look_at_pace(self.batches[batches - 1])
            self._call("on_batch_end")
            self._stop_on_time()
            self._look()

        epoch(
            step,
            held.feed,
            self.batches,
            held.places,
            self._rate,
            number=state.step,
            seed=self.settings.seed,
            order=order,
            first=state.batch,
            stays=len(self.batches) == 1,
            decay=self.decay,
            turns=self._turns(),
            before=before,
            after=after,
        )

    def _look_at_pace(self, batch: slice) -> None:
        """Say once that steps take many times what they took, where threads may be the cause."""
        if self.pace is None:
            return
        slow = self.pace.step(batch.stop - batch.start, time.perf_counter() - self.started)
        if slow:
            warnings.warn(
                f"{slow}: other programs want the cores, for which products in {self.run.threads} "
                "threads wait; --threads 1 (threads=1) may be many times faster",
                stacklevel=6,
            )

    def _stopping(self) -> bool:
        """Whether the run is to end: one answer for all ranks, in the same step. There an error of
        a callback is raised by all, so that none waits for another."""
        found = self.group.agree(FAILED if self.failed else self.run.stopping)
        if found == FAILED:
            self.group.settle(self.failed, self.backend)
        self.run.stopping = found or self.run.stopping  # a signal may have asked meanwhile
        return bool(found)

    def _follow(self) -> None:
        """What callbacks of rank 0 changed between epochs, all ranks have."""
        if self.group.size > 1 and self.group.broadcast(any(self.hooks.values())):
            self.state.learning_rate = self.group.broadcast(self.state.learning_rate)
            self._align(warned=True)

    def _align(self, warned: bool = False) -> None:
        """All ranks with the weights, vectors and statistics of rank 0."""
        if self.group.size == 1:
            return
        # A rank without rows in a batch has not seen it: the statistics are those of rank 0.
        statistics = self.model.statistics
        if statistics.shape[0]:
            values = self.group.broadcast(self.backend.to_numpy(statistics))
            self.backend.copy(self.backend.asarray(values), statistics)
        arrays = [self.model.w, *self.state.vectors.values()]
        again = aligned(self.group, self.backend, arrays, warned or self.warned)
        self.warned = self.warned or (again and not warned)

    def _rate(self, step: int) -> float:
        """The learning rate of a step, counted from 0."""
        return self.state.learning_rate * self.now(step, self.steps)

    def _watched(self) -> list[float]:
        """The watched error of the epochs so far: a loss, or a metric, with the other sign where
        greater is better."""
        return [self.sign * x for x in self.state.history.get(self.watch, [])]

    def _check_watched(self) -> None:
        """InputError for a metric that is not defined on the validation data."""
        for metric in self.settings.watched:
            assert self.held.measure_held_out is not None
            if math.isnan(self.held.measure_held_out()[metric.name]):
                raise InputError(
                    f"watch = {shown(metric.name)} is not a number on the validation data: a class "
                    "may "
                    "have no rows there, or all of them; hold out more rows, or watch another one"
                )

    def _begin_schedules(self) -> None:
        """The schedules of the epoch, after what was watched in the epochs so far."""
        watched = self._watched()
        self.now, self.decay = following(self.schedule, watched), None
        if self.decay_schedule is not None:
            now = following(self.decay_schedule, watched)
            self.decay = lambda step: now(step, self.steps)

    def _turns(self) -> list[Turn] | None:
        """What each batch is of its step, where a step has several."""
        size, batches = self.settings.accumulate, len(self.batches)
        if size == 1:
            return None
        weights = np.ones(batches)
        if self.model.objective.reduction == "mean":
            weights = self.held.shares(self.order)
            sums = np.add.reduceat(weights, np.arange(0, batches, size))
            weights = weights / np.repeat(np.where(sums == 0.0, 1.0, sums), size)[:batches]
        last = [(i + 1) % size == 0 or i + 1 == batches for i in range(batches)]
        return [Turn(i % size, float(weights[i]), last[i]) for i in range(batches)]

    def _stop_on_time(self) -> None:
        """Count the time, and stop when it is over."""
        self.state.seconds = time.monotonic() - self.began
        if self.state.seconds >= self.most_seconds:
            self.run.stop(f"the time is over ({self.settings.time})")

    # ------------------------------------------------------------------ at the end of an epoch

    def _close_epoch(self, started: float) -> bool:
        """Read the losses, write the history, decide whether to go on. False: not finite.

        The state changes when all is measured: until then the epoch can be closed again.
        """
        state, settings, held = self.state, self.settings, self.held
        self._align()
        sums = self.backend.to_numpy(held.losses).astype(np.float64)
        if not np.isfinite(sums).all() or not self._finite():
            return False
        held.keep(held.finite)
        share = 0.0 if held.average is None else held.average.share_of_epoch(state.epoch + 1)
        if share and held.average_epoch is not None:
            held.average_epoch(share)
        row = {"epoch": state.epoch + 1, "loss": self._loss(sums)}
        try:
            if held.measure_held_out:
                measured = held.measure_held_out()
                row |= {f"validation_{name}": value for name, value in measured.items()}
            row["learning_rate"] = self._rate(max(state.step - 1, 0))
            if held.measure_train:
                row["train_loss"] = self._stop_on_target()
        except BaseException:
            if share:
                held.average_back()
            raise
        self.run.last = row
        held.keep_average()
        self._stop_on_time()
        row["seconds"] = time.perf_counter() - started
        before = state.epoch
        state.epoch, state.batch, state.batch_losses = before + 1, 0, None
        for name in dict.fromkeys([*state.history, *row]):  # a run before may have measured others
            column = state.history.setdefault(name, [math.nan] * before)
            column.append(row.get(name, math.nan))
        if settings.patience:
            self._wait(self.sign * row[self.watch])
        return True

    def _loss(self, sums: np.ndarray) -> float:
        """The objective over the epoch, from its two terms on each batch, (batches, 2)."""
        objective = self.model.objective
        weights = self.held.shares(self.order)
        shared = weights if objective.shared_penalties else None  # a batch's share of the penalty
        penalty = float(np.average(sums[:, 1], weights=shared))
        return mean_or_sum(objective, sums[:, 0], weights) + penalty

    def _stop_on_target(self) -> float:
        """E over the training set, eq. (1)."""
        if self.held.measure_train is None or self.settings.target_loss is None:
            return math.nan
        error = self.held.measure_train(penalty=True)["loss"]
        if error <= self.settings.target_loss:
            self.run.stop("the wanted loss is reached")
        return error

    def _wait(self, error: float) -> None:
        """Patience: remember the best weights, stop when they are too old."""
        state, settings = self.state, self.settings
        error = math.inf if math.isnan(error) else error
        better = state.best_w is None or error < state.best_loss - settings.min_delta
        if better or (settings.best == "last" and error <= state.best_loss):
            assert self.held.best is not None  # there is patience
            self.held.keep(self.held.best, self.held.shown)
            state.best_w, statistics = self.held.best
            state.best_statistics = self.held.known(statistics)
            state.best_loss, state.best_epoch = error, state.epoch
        state.waited = 0 if better else state.waited + 1
        self._stop_on_patience()

    def _stop_on_patience(self) -> None:
        state, settings = self.state, self.settings
        if settings.patience and state.waited >= settings.patience:
            self.run.stop(
                f"no better {self.watch.replace('_', ' ')} for {state.waited} epochs "
                f"(the best was in epoch {state.best_epoch})"
            )

    def _finite(self) -> bool:
        """Whether all weights are finite."""
        xp = self.backend.xp
        return bool(self.backend.to_numpy(xp.all(xp.isfinite(self.model.w))))

    def _short_of_memory(self, where: str, cause: str) -> str:
        if where.startswith(HOST):
            return (
                f"out of memory on {where} in epoch {self.state.epoch + 1} ({cause}); end what "
                "else uses the memory, or use less data; what was learned is kept"
            )
        plan, free = self.run.plan, self.backend.memory().free
        now = "" if free is None else f", {megabytes(free)} are free now"
        return (
            f"out of memory on {where} in epoch {self.state.epoch + 1} ({cause}; "
            f"{megabytes(plan.needed)} were planned{now}); use a batch_size below "
            f"{plan.batch_size}, or end what else uses the memory; what was learned is kept"
        )

    def _advice(self) -> str:
        eta = self.state.learning_rate
        mean = " or use reduction 'mean'" if self.model.objective.reduction == "sum" else ""
        return (
            f"the loss became non-finite in epoch {self.state.epoch + 1} (learning rate {eta:g}); "
            f"the weights from before that epoch are kept: try a learning rate of {eta / 10:g}, "
            f"scale the inputs and targets{mean}"
        )

    def _call(self, event: str) -> None:
        try:
            for hook in self.hooks[event]:
                hook(self.run)
        except Exception as error:
            if self.group.size == 1:
                raise
            self.failed = error
