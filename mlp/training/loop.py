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
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from backends import Array
from mlp.data.feed import Rows, slices
from mlp.data.order import order, split
from mlp.data.samples import Samples
from mlp.errors import InputError, did_you_mean
from mlp.formulas.loss_scaling import START
from mlp.memory import HOST, enough_memory, megabytes, shortage, shortages
from mlp.model import Evaluator, Model, mean_or_sum, shares
from mlp.threads import limited
from mlp.training.memory_plan import Plan, plan_for
from mlp.training.settings import Settings
from mlp.training.state import State
from mlp.training.step import Recorded, Step


@dataclass(frozen=True)
class Result:
    """What training leaves: the trained model, the history, why it stopped, and its state.

    history: a list for each quantity, one entry an epoch. diverged: the loss became non-finite and
    the model has the last finite weights. out_of_memory: memory ran out in the middle; the state
    can be gone on from.
    """

    model: Model
    history: dict[str, list[float]]
    stopped: str
    state: State
    diverged: bool = False
    out_of_memory: bool = False


class Run:
    """A run under way, as callbacks see it.

    A callback is any object with some of the methods ``on_run_start``, ``on_epoch_start``,
    ``on_batch_start``, ``on_batch_end``, ``on_epoch_end``, ``on_run_end``, each taking the run; a
    plain function is called when an epoch ends. `stop` ends the run after the batch under way.
    ``plan``: what the run takes of the device's memory.
    """

    def __init__(
        self,
        model: Model,
        settings: Settings,
        state: State,
        samples: int,
        batches: int,
        plan: Plan,
    ):
        self.model, self.settings, self.state = model, settings, state
        self.samples, self.batches, self.plan = samples, batches, plan
        self.stopping = ""
        self.last: dict[str, float] = {}

    def stop(self, reason: str) -> None:
        """End the run; the reason is what `Result.stopped` says."""
        self.stopping = self.stopping or reason


def train(
    model: Model,
    X: Any,
    t: Any,
    *,
    validation: float | tuple[Any, Any] | None = None,
    sample_weight: Any = None,
    callbacks: Iterable[Any] = (),
    state: State | None = None,
    threads: int | None = None,
    settings: Settings | None = None,
    **options: Any,
) -> Result:
    """Train a copy of the model on X (n, inputs) and t, and return it with its history.

    t: (n, outputs), or for cross_entropy (n,) class numbers too. validation: a share of the rows to
    hold out, or (X, t). sample_weight: (n,), 0 or above. state: of an earlier run, to go on from.
    threads: that products may use meanwhile, see `mlp.threads.limited`. settings, or its fields by
    name: see `Settings`.

    Ctrl-C ends the run after the batch under way and keeps what was learned; a second one raises.
    Raises InputError for data or settings that do not fit, also if the device's memory is too small
    for them. If the loss becomes non-finite, the run ends with the last finite weights and warns
    what to try. If memory runs out in the middle, the run ends as by Ctrl-C.
    """
    for name in options:
        if name not in Settings.__dataclass_fields__:
            hint = did_you_mean(name, Settings.__dataclass_fields__)
            raise InputError(f"train has no setting {name!r}{hint}")
    settings = replace(settings or Settings(), **options)
    with limited(threads), model.backend.scope():
        with enough_memory(model.backend, "training, before its first step"):
            parts = _checked(model, X, t, sample_weight, validation, settings.seed)
            plan = _plan(model, *parts, settings)
            plan.check()
            trainer = Trainer(model.to(), settings, *parts, list(callbacks), state, plan)
        with _interruptible(trainer.run):
            return trainer.train()


def plan_training(
    model: Model,
    X: Any,
    t: Any,
    *,
    validation: float | tuple[Any, Any] | None = None,
    sample_weight: Any = None,
    settings: Settings,
) -> Plan:
    """What `train` with the same arguments will ask of the device; nothing is refused."""
    with model.backend.scope():
        rows = _checked(model, X, t, sample_weight, validation, settings.seed)
        return _plan(model, *rows, settings)


def _plan(model: Model, samples: Samples, held_out: Samples | None, settings: Settings) -> Plan:
    return plan_for(
        model,
        samples,
        held_out,
        batch_size=settings.batch_size,
        optimizer=settings.make_optimizer(),
        patience=settings.patience is not None,
        target_loss=settings.target_loss is not None,
        shuffle=settings.shuffle,
        cuda_graphs=settings.cuda_graphs,
    )


def _checked(
    model: Model, X: Any, t: Any, sample_weight: Any, validation: Any, seed: int
) -> tuple[Samples, Samples | None]:
    """The samples to train on, and those to watch; InputError if they do not fit the model."""
    samples = model.samples(X, t, sample_weight)
    t = samples.t
    if model.objective.targets == "classes" and (t == t[0]).all():
        raise InputError("t holds only one class; a classifier needs at least two")
    if validation is None:
        return samples, None
    if isinstance(validation, (tuple, list)) and len(validation) == 2:
        return samples, model.samples(*validation, what="validation ")
    if not isinstance(validation, (int, float, np.number)):
        raise InputError(
            f"validation is the share of the rows to hold out or a pair (X, t), not {validation!r}"
        )
    kept, held_out = split(samples.n, validation, seed)
    return samples.rows(kept, model.backend), samples.rows(held_out, model.backend)


class Trainer:
    """One run: its data, its state, its loop. `train` makes one and runs it."""

    def __init__(
        self,
        model: Model,
        settings: Settings,
        samples: Samples,
        held_out: Samples | None,
        callbacks: list[Any],
        state: State | None,
        plan: Plan,
    ):
        self.model, self.settings, self.backend = model, settings, model.backend
        self.objective = model.objective
        self.optimizer, self.schedule = settings.make_optimizer(), settings.make_schedule()
        backend, dtype = self.backend, model.dtype

        streamed, streamed_held_out = plan.streamed
        self.feed = model.feed(samples, streamed)
        self.s, self.n = samples.s, self.feed.n
        size = min(settings.batch_size or self.n, self.n)
        self.rows = slices(self.n, size)
        self.state = self._start(state)
        vectors = [self.state.vectors[name] for name in self.optimizer.state]
        sizes = {rows.stop - rows.start for rows in self.rows}
        self.step = Step(model, self.feed, sizes, self.optimizer, vectors, self.state.loss_scale)
        self.shuffle = settings.shuffle and len(self.rows) > 1
        if len(self.rows) == 1:
            self.step.fill[self.n](self.rows[0])  # a full batch stays where it is
        self.losses = backend.full((len(self.rows), 2), 0.0, dtype)
        if self.state.batch_losses is not None:
            backend.copy(backend.asarray(self.state.batch_losses, dtype), self.losses)
        self.recorded: Recorded | None = None
        if settings.cuda_graphs:
            self.recorded = Recorded(self.step, self.feed, self.rows)
        self.checkpoint_w = backend.empty(model.w.shape, dtype)  # the last finite weights
        if settings.patience and self.state.best_w is None:
            self.best_w = backend.empty(model.w.shape, dtype)

        self.measure_train = None
        if settings.target_loss is not None:
            self.measure_train = Evaluator(model, self.feed, samples)
        self.measure_held_out = None
        if held_out:
            feed = model.feed(held_out, streamed_held_out)
            self.measure_held_out = Evaluator(model, feed, held_out)
        self.watch = settings.watch or ("validation_loss" if held_out else "loss")
        if self.watch == "validation_loss" and not held_out:
            raise InputError("watch = 'validation_loss' needs validation data")

        self.run = Run(model, settings, self.state, self.n, len(self.rows), plan)
        self.hooks = {name: _hooks(callbacks, name) for name in _EVENTS}

    # ------------------------------------------------------------------ what a run starts from

    def _start(self, state: State | None) -> State:
        """A fresh state, or the given one on this backend; the model's w is the state's."""
        model, backend, dtype = self.model, self.backend, self.model.dtype
        eta, shape = self.settings.rate(), model.w.shape
        loss_scale = None
        if model.precision == "mixed":
            given = None if state is None else state.loss_scale
            loss_scale = backend.empty((2,), dtype)
            backend.copy(
                backend.asarray(np.array([START, 0.0]) if given is None else given, dtype),
                loss_scale,
            )
        if state is None:
            vectors = {
                name: backend.full(shape, value, dtype)
                for name, value in zip(
                    self.optimizer.state, self.optimizer.initial(eta), strict=True
                )
            }
            return State(model.w, vectors, eta, loss_scale=loss_scale)
        if set(state.vectors) != set(self.optimizer.state):
            raise InputError(
                f"the state to go on from has optimizer vectors {sorted(state.vectors)}, "
                f"{self.settings.optimizer!r} has {sorted(self.optimizer.state)}"
            )
        if state.w.shape != shape:
            raise InputError(
                f"the state to go on from has {state.w.shape[0]} parameters, the network {shape[0]}"
            )
        if state.batch_losses is not None and state.batch_losses.shape[0] != len(self.rows):
            raise InputError(
                f"the state to go on from has {state.batch_losses.shape[0]} batches an epoch, "
                f"these data and batch_size have {len(self.rows)}; to begin that epoch again, "
                "give dataclasses.replace(state, batch=0, batch_losses=None)"
            )

        def mine(x: Any) -> Array:
            copied = backend.empty(shape, dtype)
            backend.copy(backend.asarray(x, dtype), copied)
            return copied

        model.w = state.w
        return replace(
            state,
            w=model.w,
            vectors={name: mine(x) for name, x in state.vectors.items()},
            best_w=None if state.best_w is None else mine(state.best_w),
            history={name: list(values) for name, values in state.history.items()},
            loss_scale=loss_scale,
        )

    # ------------------------------------------------------------------ the loop

    def train(self) -> Result:
        state, settings = self.state, self.settings
        diverged, memory_ended = False, None
        self._call("on_run_start")
        self.backend.copy(self.model.w, self.checkpoint_w)
        try:
            diverged = not self._epochs()
        except shortages(self.backend) as error:
            memory_ended = shortage(self.backend, error)
        self._give_back()
        if memory_ended:
            self.run.stopping = self._short_of_memory(*memory_ended)
            diverged = not np.isfinite(self.backend.to_numpy(self.model.w)).all()  # on the host
        if diverged:
            self._go_back()
            self.run.stopping = self._advice()
        stopped = self.run.stopping or f"all {settings.epochs} epochs are done"
        # The state keeps the weights of the last step. Nothing is allocated: memory may be short.
        model = self.model.copy_into(self.checkpoint_w)
        if settings.patience and settings.restore_best and state.best_w is not None:
            model.w = state.best_w
        result = Result(model, state.history, stopped, state, diverged, bool(memory_ended))
        self._call("on_run_end")
        if diverged:
            warnings.warn(stopped, RuntimeWarning, stacklevel=3)
        return result

    def _epochs(self) -> bool:
        """The epochs that are still to be done. False: the last one is not finite."""
        state, settings = self.state, self.settings
        if state.batch == 0:  # a run gone on with may be over already
            self._stop_on_target()
            self._stop_on_patience()
        while state.epoch < settings.epochs and not self.run.stopping:  # (1)
            self._call("on_epoch_start")
            started = time.perf_counter()
            self._epoch()
            if state.batch < len(self.rows) and self._finite():
                return True  # stopped within the epoch; its losses are in the state
            if not self._close_epoch(started):
                return False
            self._call("on_epoch_end")
        return True

    def _epoch(self) -> None:
        """The batches of one epoch that are still to be done."""
        state = self.state
        state.batch_losses = self.losses
        step: Step | Recorded = self.step
        order = self._order() if self.shuffle else None
        if self.recorded is not None:
            step = self.recorded
            ahead = range(state.step, state.step + len(self.rows) - state.batch)
            rates = [state.learning_rate * self.schedule(s, len(self.rows)) for s in ahead]
            step.begin(order, state.batch, state.step, rates)
        gathers = self.recorded is not None and self.recorded.gathers
        index = None if order is None or gathers else self.feed.rows(order)
        chosen = self._rows(state.batch, index)
        starts, ends = self.hooks["on_batch_start"], self.hooks["on_batch_end"]
        for i in range(state.batch, len(self.rows)):
            if self.run.stopping:
                return
            for hook in starts:
                hook(self.run)
            rows, losses = self.rows[i], self.losses[i : i + 1, :]
            eta = state.learning_rate * self.schedule(state.step, len(self.rows))
            n, number = rows.stop - rows.start, state.step + 1
            step(n, chosen, eta, number, self.settings.seed, losses)
            state.step, state.batch = number, i + 1  # a step that fails is none
            chosen = self._rows(i + 1, index)
            if chosen is not None:
                self.feed.ahead(chosen)
            for hook in ends:
                hook(self.run)

    def _rows(self, batch: int, index: Rows | None) -> Rows | None:
        """The rows of a batch of this epoch; None for a full batch, which stays where it is, and
        after the last one."""
        if len(self.rows) == 1 or batch >= len(self.rows):
            return None
        return self.rows[batch] if index is None else index[self.rows[batch]]

    def _order(self) -> np.ndarray:
        """The order of the samples in the epoch under way."""
        return order(self.settings.seed, self.state.epoch, self.n)

    # ------------------------------------------------------------------ at the end of an epoch

    def _close_epoch(self, started: float) -> bool:
        """Read the losses, write the history, decide whether to go on. False: not finite.

        The state changes when all is measured: until then the epoch can be closed again.
        """
        state, settings = self.state, self.settings
        sums = self.backend.to_numpy(self.losses).astype(np.float64)
        if not np.isfinite(sums).all() or not self._finite():
            return False
        self.backend.copy(self.model.w, self.checkpoint_w)
        s = self.s[self._order()] if self.s is not None and self.shuffle else self.s
        loss = mean_or_sum(self.objective, sums[:, 0], shares(self.rows, s))
        row = {"epoch": state.epoch + 1, "loss": loss + float(sums[:, 1].mean())}
        if self.measure_held_out:
            measured = self.measure_held_out()
            row |= {f"validation_{name}": value for name, value in measured.items()}
        row["learning_rate"] = state.learning_rate * self.schedule(
            max(state.step - 1, 0), len(self.rows)
        )
        self.run.last = row
        if self.measure_train:
            row["train_loss"] = self._stop_on_target()
        row["seconds"] = time.perf_counter() - started
        state.epoch, state.batch, state.batch_losses = state.epoch + 1, 0, None
        for name, value in row.items():
            state.history.setdefault(name, []).append(value)
        if settings.patience:
            self._wait(row[self.watch])
        return True

    def _stop_on_target(self) -> float:
        """E over the training set, eq. (1)."""
        if self.measure_train is None or self.settings.target_loss is None:
            return math.nan
        error = self.measure_train(penalty=True)["loss"]
        if error <= self.settings.target_loss:
            self.run.stop("the wanted loss is reached")
        return error

    def _wait(self, loss: float) -> None:
        """Patience: remember the best weights, stop when they are too old."""
        state, settings = self.state, self.settings
        if state.best_w is None or loss < state.best_loss - settings.min_delta:
            if state.best_w is None:
                state.best_w = self.best_w
            self.backend.copy(self.model.w, state.best_w)
            state.best_loss, state.best_epoch, state.waited = loss, state.epoch, 0
            return
        state.waited += 1
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

    def _go_back(self) -> None:
        """To the last finite weights, from before this epoch."""
        self.model.w = self.checkpoint_w
        self.state.batch, self.state.batch_losses = 0, None

    def _give_back(self) -> None:
        """Let go of what only further steps would need, before the result is copied."""
        del self.step, self.recorded, self.feed, self.measure_train, self.measure_held_out

    def _short_of_memory(self, where: str, cause: str) -> str:
        if where == HOST:
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
        mean = " or use reduction 'mean'" if self.objective.reduction == "sum" else ""
        return (
            f"the loss became non-finite in epoch {self.state.epoch + 1} (learning rate {eta:g}); "
            f"the weights from before that epoch are kept: try a learning rate of {eta / 10:g}, "
            f"scale the inputs and targets{mean}"
        )

    def _call(self, event: str) -> None:
        for hook in self.hooks[event]:
            hook(self.run)


_EVENTS = (
    "on_run_start",
    "on_epoch_start",
    "on_batch_start",
    "on_batch_end",
    "on_epoch_end",
    "on_run_end",
)


def _hooks(callbacks: list[Any], event: str) -> list[Callable[[Run], None]]:
    found = []
    for callback in callbacks:
        if hasattr(callback, event):
            found.append(getattr(callback, event))
        elif not any(hasattr(callback, name) for name in _EVENTS):
            if not callable(callback):
                raise InputError(
                    f"a callback is a function or has one of {', '.join(_EVENTS)}: {callback!r}"
                )
            if event == "on_epoch_end":
                found.append(callback)
    return found


@contextmanager
def _interruptible(run: Run) -> Iterator[None]:
    """The first Ctrl-C asks the run to stop after its batch, the second one raises."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def ask(number: int, frame: Any) -> None:
        if run.stopping:
            raise KeyboardInterrupt
        run.stop("interrupted; what was learned so far is kept")

    before = signal.getsignal(signal.SIGINT)
    signal.signal(signal.SIGINT, ask)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
