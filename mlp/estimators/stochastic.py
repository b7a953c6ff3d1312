"""The epochs of the stochastic solvers, in scikit-learn's order of draws, records and decisions."""

import math
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import wraps
from operator import is_
from typing import Any

import numpy as np
from sklearn.base import is_classifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import accuracy_score, get_scorer, r2_score
from sklearn.model_selection import train_test_split
from sklearn.utils import gen_batches

from backends import Array, Backend
from mlp.durations import seconds_of
from mlp.estimators.arrays import FitRows, home, to_host
from mlp.estimators.callbacks import Tasks
from mlp.estimators.engine import Engine
from mlp.estimators.kept import Copies, Kept
from mlp.estimators.models import RATE_MODES
from mlp.formulas.optimizers import OPTIMIZERS, Adam, Momentum, Nesterov, Optimizer, towards
from mlp.formulas.schedules import SCHEDULES, Schedule, following, get_schedule
from mlp.model import Evaluator, Model
from mlp.names import make, spelled
from mlp.parallel.crew import Crew, crew_for
from mlp.parallel.group import ALONE, Group
from mlp.training.checkpoints import Writer
from mlp.training.loop import epoch
from mlp.training.ranks import about_ranks, aligned
from mlp.training.run import INTERRUPTED, interruptible
from mlp.training.settings import Settings, own_schedule
from mlp.training.setup import products, with_shards
from mlp.training.state import State
from mlp.training.step import Step


@dataclass
class SolverState:
    """What a stochastic solver remembers; it lives on through `partial_fit` and pickling."""

    rule: Optimizer
    vectors: list[Any]
    learning_rate: float
    step: int = 0

    def as_dict(self) -> dict[str, Any]:
        """For a pickle: arrays on the host and numbers; the rule follows from the settings."""
        vectors = [np.array(to_host(v)) for v in self.vectors]
        return {"vectors": vectors, "learning_rate": self.learning_rate, "step": self.step}

    @classmethod
    def of(cls, estimator: Any, found: dict[str, Any]) -> "SolverState":
        """From what `as_dict` gave."""
        return cls(update_rule(estimator), **found)


ENOUGH = "enough"  # the reason that ranks give each other

AROUND = ("weight_decay", "rate_factors", "clip_norm", "clip_value", "average", "time")


def around(estimator: Any) -> Settings:
    """The rule and what is done around it, as `mlp.Settings` has it; InputError for what does not
    go together."""
    given = {name: getattr(estimator, name) for name in AROUND}
    given["rate_factors"] = given["rate_factors"] or {}
    return Settings(optimizer=_alone(estimator), **given)


def update_rule(estimator: Any) -> Optimizer:
    """The solver's rule with its weight decay. An average is no part of what a solver remembers."""
    return replace(around(estimator), average=None).make_optimizer()


def _alone(estimator: Any) -> Any:
    """The solver's rule, with scikit-learn's settings for its own two."""
    if estimator.solver == "sgd":
        # scikit-learn lets momentum be 1; the rule wants less, here by one unit of rounding.
        momentum = min(estimator.momentum, float(np.nextafter(1.0, 0.0)))
        return (Nesterov if estimator.nesterovs_momentum else Momentum)(momentum)
    if estimator.solver == "adam":
        return Adam(estimator.beta_1, estimator.beta_2, estimator.epsilon, corrected=False)
    make(OPTIMIZERS, estimator.solver, "solver")
    return estimator.solver


def fit_stochastic(
    estimator: Any,
    backend: Backend,
    data: FitRows,
    held_out: FitRows | None,
    incremental: bool,
    kept: Kept | None = None,
    group: Group = ALONE,
) -> Model:
    """Run the epochs (one, if incremental) and return the model; sets the records of the fit."""
    group = group.on(backend)
    with group.together():
        if estimator.early_stopping and held_out is None:
            data, held_out = split(estimator, backend, data)
        engine = estimator._engine = _engine(estimator, backend, incremental)
        solver = estimator._solver_state = _solver(estimator, engine.model, incremental)
    model, settings = engine.model, around(estimator)
    rows = batch_rows(estimator.batch_size, data.samples.n)
    if not incremental:
        settings = with_shards(settings, model, rows, group)
    rows //= group.size
    with crew_for(backend, settings.shards, products(model, rows)) as crew:
        about = settings, crew, kept, group
        if group.size > 1:
            group.same(_about(estimator, model, data, held_out))
            with group.together():
                epochs = Epochs(estimator, engine, data, held_out, incremental, *about)
            with interruptible(epochs):
                epochs.run(estimator.max_iter)
        elif incremental:
            # Weights and vectors go on in place, as scikit-learn's do.
            with _restored_on_error(backend, [model.w, *solver.vectors]):
                Epochs(estimator, engine, data, None, incremental, *about).run(1)
        else:
            Epochs(estimator, engine, data, held_out, incremental, *about).run(estimator.max_iter)
    return model


def _about(
    estimator: Any, model: Model, data: FitRows, held_out: FitRows | None
) -> dict[str, object]:
    """What all ranks must have alike, by the name that a message calls it."""
    watched = None if held_out is None else held_out.samples
    about: dict[str, object] = about_ranks(model, around(estimator), data.samples, watched)
    own = {"backend", "callbacks", "random_state", "verbose"}
    for name, value in estimator.get_params(deep=False).items():
        if name not in own:
            about[name] = spelled(value)
    return about


def _engine(estimator: Any, backend: Backend, incremental: bool) -> Engine:
    """A model of its own for `fit`; in `partial_fit` the one before, if the settings still hold."""
    if incremental and estimator._engine is not None:
        engine: Engine = estimator._engine_on(backend)
        network, loss = estimator._design(estimator.alpha)
        if engine.model.network.layers == network.layers and engine.model.loss == loss:
            return engine
    return Engine(estimator._build(backend, estimator.alpha))


def _solver(estimator: Any, model: Model, incremental: bool) -> SolverState:
    """A fresh solver, or in `partial_fit` the one before, with its vectors beside the model."""
    backend, dtype, before = model.backend, model.dtype, estimator._solver_state
    if not incremental or before is None:
        rule, rate = update_rule(estimator), float(estimator.learning_rate_init)
        vectors = [backend.full(model.w.shape, x, dtype) for x in rule.initial(rate)]
        return SolverState(rule, vectors, rate)
    if all(backend.owns(v) for v in before.vectors):
        return replace(before)
    return replace(
        before, vectors=[backend.asarray(np.array(to_host(v)), dtype) for v in before.vectors]
    )


def batch_rows(batch_size: Any, n: int) -> int:
    """The rows of a batch, of n rows: scikit-learn's rule."""
    return int(min(200 if batch_size == "auto" else batch_size, n))


@contextmanager
def _restored_on_error(backend: Backend, arrays: Sequence[Array]) -> Iterator[None]:
    kept = []
    for x in arrays:
        kept.append(backend.empty(x.shape, x.dtype))
        backend.copy(x, kept[-1])
    try:
        yield
    except BaseException:
        for x, before in zip(arrays, kept, strict=True):
            backend.copy(before, x)
        raise


def split(estimator: Any, backend: Backend, data: FitRows) -> tuple[FitRows, FitRows]:
    """Rows to train on, and rows held out for early stopping."""
    single = is_classifier(estimator) and estimator.n_outputs_ == 1
    train, held_out = train_test_split(
        np.arange(data.samples.n),
        random_state=estimator._random_state,
        test_size=estimator.validation_fraction,
        stratify=data.targets.astype(bool) if single else None,
    )
    if len(held_out) < 2:
        raise ValueError(
            "The validation set is too small. Increase 'validation_fraction' "
            "or the size of your dataset."
        )
    return data.rows(train, backend), data.rows(held_out, backend)


class Epochs:
    """One run of a stochastic solver: its data, its step, its loop."""

    def __init__(
        self,
        estimator: Any,
        engine: Engine,
        data: FitRows,
        held_out: FitRows | None,
        incremental: bool,
        settings: Settings,
        crew: Crew,
        kept: Kept | None = None,
        group: Group = ALONE,
    ):
        self.settings, self.crew = settings, crew
        self.group, self.over, self.asked, self.aligned = group, False, "", False
        self.estimator, self.model, self.incremental = estimator, engine.model, incremental
        self.says = bool(estimator.verbose) and group.rank == 0
        self.solver: SolverState = estimator._solver_state
        self.backend, self.n = engine.model.backend, data.samples.n
        self.batches = list(gen_batches(self.n, self._batch_size()))
        self.counts = [rows.stop - rows.start for rows in self.batches]
        self.index = np.arange(self.n, dtype=np.int64)
        _, self.feed = data.fed_to(self.model)
        self.average, self.shown = self.settings.make_average(), self.model
        self.mean: list[Array] = []  # the average, where there is one
        if self.average is not None:
            self.mean = [self.backend.empty(self.model.w.shape, self.model.dtype)]
            self.shown = self.model.copy_into(self.mean[0], self.model.statistics)
        self.most_seconds, self.began = math.inf, time.monotonic()
        if estimator.time is not None:
            self.most_seconds = seconds_of(estimator.time)
        self.step = self._step(engine)
        self.losses = self.backend.full((len(self.batches), 2), 0.0, self.model.dtype)
        self.places = [self.losses[i : i + 1, :] for i in range(len(self.batches))]
        self.schedule = self.now = self._schedule()
        self.dropout_seed = 0
        if np.any(estimator.dropout):
            self.dropout_seed = int(estimator._random_state.randint(2**31))
        self.tasks = Tasks(estimator, self.shown, data, heard=group.rank == 0)
        self.best: Array | None = None  # the weights of the best epoch, for early stopping
        self.done = self.batch = 0  # epochs, and batches of the next
        # Records grow in lists of this run, so that a failing fit leaves the old ones.
        estimator.loss_curve_ = [*estimator.loss_curve_]
        self.watch = None
        if held_out is not None:
            self.watch = Watch(estimator, self.shown, held_out, crew, settings.shards or 1)
            estimator.validation_losses_ = [*(estimator.validation_losses_ or ())]
            estimator.validation_scores_ = [*(estimator.validation_scores_ or ())]
        self.kept, self.writer = kept, None
        if kept is not None:
            watch = "loss" if self.watch is None else "validation_loss"
            self.writer = Writer(kept.checkpoints, self.backend, Copies(self.backend), watch)

    def _batch_size(self) -> int:
        size = self.estimator.batch_size
        if size != "auto" and size > self.n:
            warnings.warn(
                "Got `batch_size` less than 1 or larger than "
                "sample size. It is going to be clipped",
                stacklevel=2,
            )
        return batch_rows(size, self.n)

    def _step(self, engine: Engine) -> Step:
        """The step on these data; `partial_fit` goes on with the one before if it is the like."""
        vectors, feed = self.solver.vectors, self.feed
        likeness = self.settings, set(self.counts), feed.weighted, feed.labels
        if self.incremental and engine.step is not None:
            before, step = engine.step
            if before[0] == likeness and all(map(is_, before[1], vectors)):
                step.fill = {n: feed.bind(e) for n, e in step.evaluations.items()}
                return step
        rule, of_steps = self.settings.make_optimizer(), self.average and self.average.share
        all_vectors = [*vectors, *self.mean] if of_steps else vectors
        about = self.model, feed, self.counts, rule, all_vectors
        step = Step(*about, settings=self.settings, group=self.group, crew=self.crew)
        if self.incremental:
            engine.step = (likeness, vectors), step
        return step

    def _schedule(self) -> Schedule | None:
        """A schedule of this library; scikit-learn's own are in `_close_epoch`."""
        spec = self.estimator.learning_rate
        if isinstance(spec, str) and spec in RATE_MODES:
            return None
        found = get_schedule(spec, self.estimator.max_iter, "learning_rate")
        return found if type(found) in SCHEDULES.values() else own_schedule(found)

    # ------------------------------------------------------------------ the loop

    def run(self, epochs: int) -> None:
        """So many epochs, or fewer if they no longer improve or a callback asks to stop."""
        estimator = self.estimator
        if estimator.n_iter_ == 0:
            # Without a better epoch the first fit ends with the weights that it began with, a warm
            # start with its last, as in scikit-learn.
            self._keep_best()
        estimator.n_iter_ = 0
        stop = self._begin_keeping()
        try:
            while not stop and self.done < epochs:
                with self.group.together():
                    self.tasks.begin()
                self._epoch()
                stop = self._end_epoch()
                self._look()
            if not (stop or self.incremental or self.group.rank):
                warnings.warn(
                    f"Stochastic Optimizer: Maximum iterations ({epochs}) reached and the "
                    "optimization hasn't converged yet.",
                    ConvergenceWarning,
                    stacklevel=2,
                )
        except KeyboardInterrupt:
            if self.group.rank == 0:
                warnings.warn("Training interrupted by user.", stacklevel=2)
        finally:
            self.over = True
            if self.writer is not None:
                self.writer.end(self._state())
        for ends_with in [self.best] if self.best is not None else self.mean:
            self.backend.copy(ends_with, self.model.w)
        self.step.fill.clear()  # the step may be kept, the data not

    def _epoch(self) -> None:
        estimator, solver = self.estimator, self.solver
        if self.schedule is not None:
            watched = estimator.validation_losses_ if self.watch else estimator.loss_curve_
            self.now = following(self.schedule, watched)
        if estimator.shuffle:
            self._shuffle()
        epoch(
            self.step,
            self.feed,
            self.batches,
            self.places,
            self._rate,
            number=solver.step,
            seed=self.dropout_seed,
            order=self.index if estimator.shuffle else None,
            first=self.batch,
            before=self._goes_on if self.group.size > 1 else None,
            after=self._count_step,
        )
        if self.batch < len(self.batches):
            raise KeyboardInterrupt  # of one rank, and all have left the epoch

    def _end_epoch(self) -> bool:
        """Records, callbacks and decisions; whether to stop: one answer for all ranks."""
        stop = False
        with self.group.together():
            try:
                stop = self._close_epoch()
                self.done, self.batch = self.done + 1, 0
                stop = self.tasks.end() or self._time_is_over() or stop
            except KeyboardInterrupt:
                if self.group.size == 1:
                    raise
                self.stop(INTERRUPTED)
        if self.group.size == 1:
            return stop
        arrays = [self.model.w, *self._vectors().values()]
        self.aligned = aligned(self.group, self.backend, arrays, self.aligned)
        answer = self.group.agree(self.asked or (ENOUGH if stop else ""))
        if answer not in ("", ENOUGH):
            raise KeyboardInterrupt
        return bool(answer)

    def _goes_on(self) -> bool:
        """Whether there is another step, for all ranks."""
        return not self.group.agree(self.asked)

    def stop(self, reason: str) -> None:
        """End the fit of all ranks before its next step."""
        self.asked = reason

    def _time_is_over(self) -> bool:
        """Whether the fit, with what it took before, has had its time."""
        return time.monotonic() - self.began >= self.most_seconds

    def _shuffle(self) -> None:
        """The draws of sklearn.utils.shuffle: an order of the order before."""
        drawn = np.arange(self.n)
        self.estimator._random_state.shuffle(drawn)
        self.index = self.index[drawn]

    def _rate(self, step: int) -> float:
        """The learning rate of a step, counted from 0."""
        eta = self.solver.learning_rate
        return eta if self.now is None else eta * self.now(step, len(self.batches))

    def _count_step(self, batches: int, steps: int) -> None:
        self.solver.step, self.batch = steps, batches
        self._look()

    # ------------------------------------------------------------------ what is kept meanwhile

    def _look(self) -> None:
        """A checkpoint if one is due."""
        if self.writer is not None and self.writer.is_due(self.done, self.solver.step):
            self.writer.look(self._state())

    def _state(self) -> State:
        """Where the fit stands. The order of the rows is no part of it: it is drawn again."""
        estimator, solver, done = self.estimator, self.solver, self.done
        history = {"loss": estimator.loss_curve_[:done]}
        if self.watch is not None:
            history["validation_loss"] = estimator.validation_losses_[:done]
            history["validation_score"] = estimator.validation_scores_[:done]
        return State(
            self.model.w,
            self._vectors(),
            solver.learning_rate,
            solver.step,
            done,
            self.batch,
            self.losses if self.batch else None,
            history,
            best_w=self.best,
            waited=estimator._no_improvement_count,
            seconds=time.monotonic() - self.began,
        )

    def _vectors(self) -> dict[str, Array]:
        """The solver's, and the average."""
        found = dict(zip(self.solver.rule.state, self.solver.vectors, strict=True))
        return found | dict.fromkeys(["average"], *self.mean) if self.mean else found

    def _begin_keeping(self) -> bool:
        """Go on from what was kept, if something was; whether the fit is over there."""
        if self.kept is None or self.writer is None:
            return False
        state, estimator = self.kept.state, self.estimator
        if state is not None:
            self._go_on(self.kept, state)
        self.writer.begin(self._state())
        if state is None or self.batch:
            return False
        return estimator._no_improvement_count > estimator.n_iter_no_change or self.tasks.asked()

    def _go_on(self, kept: Kept, state: State) -> None:
        """As if the epochs of the state had been done here."""
        estimator, solver = self.estimator, self.solver
        places = {"w": self.model.w, **self._vectors()}
        found = {"w": state.w, **state.vectors}
        if state.batch_losses is not None:
            places["losses"], found["losses"] = self.losses, state.batch_losses
        if self.best is not None and state.best_w is not None:
            places["best weights"], found["best weights"] = self.best, state.best_w
        kept.check(places, found, state, self.watch is not None)
        for name, place in places.items():
            self.backend.copy(self.backend.asarray(found[name], self.model.dtype), place)
        self.done, self.batch, solver.step = state.epoch, state.batch, state.step
        self.began -= state.seconds
        estimator.loss_curve_ = list(state.history["loss"])
        scores: list[Any] = [None] * self.done
        if self.watch is not None:
            estimator.validation_losses_ = list(state.history["validation_loss"])
            estimator.validation_scores_ = scores = list(state.history["validation_score"])
        for loss, score in zip(estimator.loss_curve_, scores, strict=True):
            estimator.loss_ = loss
            self._count(score)
        estimator._no_improvement_count, solver.learning_rate = state.waited, state.learning_rate
        estimator.n_iter_, estimator.t_ = self.done, self.done * self.n
        for _ in range(self.done if estimator.shuffle else 0):
            self._shuffle()

    # ------------------------------------------------------------------ at the end of an epoch

    def _close_epoch(self) -> bool:
        """Records and decisions; whether to stop."""
        estimator, solver = self.estimator, self.solver
        estimator.n_iter_ += 1
        if self.average is not None and (share := self.average.share_of_epoch(self.done + 1)):
            mean, w = *self.mean, self.model.w
            self.backend.fuse(towards)(mean, w, share)
        self._record()
        estimator.t_ += self.n
        score = None
        if self.watch is not None:
            loss, score = self.watch()
            estimator.validation_losses_.append(loss)
            estimator.validation_scores_.append(score)
            if self.says:
                print(f"Validation score: {score:f}")
        if self._count(score):
            self._keep_best()
        if estimator.learning_rate == "invscaling" and estimator.solver != "adam":
            decay = (estimator.t_ + 1) ** estimator.power_t
            solver.learning_rate = float(estimator.learning_rate_init) / decay
        return estimator._no_improvement_count > estimator.n_iter_no_change and self._give_up()

    def _record(self) -> None:
        """The epoch's loss: each batch's with its penalty, weighed by its rows."""
        estimator = self.estimator
        data, penalty = self.backend.to_numpy(self.losses).astype(np.float64).T
        if estimator._is_squared_error():
            data = data / estimator.n_outputs_  # reported as the mean over outputs
        estimator.loss_ = float(np.dot(data + penalty, self.counts) / self.n)
        estimator.loss_curve_.append(estimator.loss_)
        if self.says:
            print(f"Iteration {estimator.n_iter_}, loss = {estimator.loss_:.8f}")

    def _count(self, score: float | None) -> bool:
        """Count the epochs without improvement; whether this one has the best score so far."""
        estimator = self.estimator
        best = None if score is None else estimator.best_validation_score_
        if estimator.early_stopping:
            worse = best is not None and score < best + estimator.tol
        else:
            lowest = np.inf if estimator.best_loss_ is None else estimator.best_loss_
            worse = estimator.loss_ > lowest - estimator.tol
            estimator.best_loss_ = min(lowest, estimator.loss_)
        estimator._no_improvement_count = estimator._no_improvement_count + 1 if worse else 0
        is_best = score is not None and (best is None or score > best)
        if is_best:
            estimator.best_validation_score_ = score
        return is_best

    def _keep_best(self) -> None:
        """The weights as they are, to end with if training stops early."""
        if self.estimator.early_stopping:
            if self.best is None:
                self.best = self.backend.empty(self.model.w.shape, self.model.dtype)
            self.backend.copy(self.shown.w, self.best)

    def _give_up(self) -> bool:
        """Whether training ends now that it no longer improves; adaptive rates first shrink."""
        estimator, solver = self.estimator, self.solver
        what = "Validation score did" if estimator.early_stopping else "Training loss did"
        say = print if self.says else _nothing
        message = (
            f"{what} not improve more than tol={estimator.tol:f} for "
            f"{estimator.n_iter_no_change} consecutive epochs."
        )
        if estimator.learning_rate != "adaptive" or estimator.solver == "adam":
            say(f"{message} Stopping.")
            return True
        if solver.learning_rate <= 1e-6:
            say(f"{message} Learning rate too small. Stopping.")
            return True
        solver.learning_rate /= 5.0
        estimator._no_improvement_count = 0
        say(f"{message} Setting learning rate to {solver.learning_rate:f}")
        return False


def _nothing(message: str) -> None:
    """In place of print, where nothing is to be said."""


class Watch:
    """Loss and score on held-out rows, with the weights as they are."""

    def __init__(self, estimator: Any, model: Model, data: FitRows, crew: Crew, parts: int):
        self.estimator, self.model, self.data = estimator, model, data
        samples, feed = data.fed_to(model, "y_val")
        self.evaluate = Evaluator(model, feed, samples, (), crew=crew, parts=parts)
        self.over = estimator.n_outputs_ if estimator._is_squared_error() else 1
        self.scorer = estimator.scoring
        if isinstance(self.scorer, str):
            self.scorer = get_scorer(self.scorer)

    def __call__(self) -> tuple[float, float]:
        """(loss without penalties, score)."""
        loss = self.evaluate()["loss"] / self.over
        if self.scorer is not None:
            return loss, self._asked()
        outputs: Any = self.evaluate.predictions
        if self.model.target_scaling is not None:
            outputs = self.model.target_scaling.invert(outputs.astype(np.float64))
        answers = self.estimator._answers(outputs)
        if answers.dtype.kind == "f" and not np.isfinite(answers).all():
            return loss, float("nan")
        metric = accuracy_score if is_classifier(self.estimator) else r2_score
        return loss, float(metric(self.data.y, answers, sample_weight=self.data.weights))

    def _asked(self) -> float:
        """The score by ``scoring``."""
        data, estimator = self.data, self.estimator
        estimator._take_over(self.model, data.X)
        seen = estimator if home(data.X) is None else _AnswersOnHost(estimator)
        options = {} if data.weights is None else {"sample_weight": data.weights}
        return float(self.scorer(seen, data.named_X, data.y, **options))


class _AnswersOnHost:
    """An estimator for a scorer: X stays on its device, what is predicted comes to the host."""

    def __init__(self, estimator: Any):
        self._estimator = estimator

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._estimator, name)
        if not name.startswith("predict"):
            return found

        @wraps(found)  # scorers look for the method by its name
        def on_host(X: Any) -> Any:
            return to_host(found(X))

        return on_host
