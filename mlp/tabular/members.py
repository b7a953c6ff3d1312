"""Members: nets that learn from the same rows but one fold, by which each is judged.

Member m of M learns from the rows that are not in fold m, and its best epoch is that of the least
error on fold m. So every row is predicted once by a member that has not learned from it (with 5
members or more), which calibration, intervals and importances are found by; and all rows are
learned from, so that there is nothing to fit again at the end. What is predicted is

    y(x) = 1/M Σ_m y_m(x)                                                                 (1)

the mean of the members, whose error is below the mean of theirs by the spread between them (Krogh
and Vedelsby, "Neural network ensembles, cross validation, and active learning", NIPS 1994, eq. 4,
where these folds come from too).

Members learn side by side in threads, each with one thread for its products: how many there are
changes nothing in the results.
"""

import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from mlp.formulas.metrics import MetricSpec, get_metric
from mlp.model import Model
from mlp.tabular.recipe import Recipe
from mlp.threads import limited
from mlp.training.loop import train
from mlp.training.run import Run, interruptible

LEAST_EPOCHS = 20  # of a member, before there are fewer members for want of time
PILOT = 3  # epochs by which the time of one is found
MARGIN = 0.9  # of the time left, what is planned with
TRAINING = 0.9  # of the time limit; the rest is for what follows it
TIME_IS_UP = "the time limit is reached"
Maker = Callable[[Recipe, int, int, np.ndarray], Model]


@dataclass(frozen=True, eq=False)
class Rows:
    """What all members learn from: coded and scaled inputs (n, d), targets (n,), weights (n,) or
    None, and the fold of each row (n,)."""

    X: np.ndarray
    t: np.ndarray
    s: np.ndarray | None
    fold: np.ndarray

    def of(self, chosen: np.ndarray) -> tuple[Any, Any, Any]:
        """X, t and s of some rows."""
        return self.X[chosen], self.t[chosen], None if self.s is None else self.s[chosen]

    def judged(self, chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """t and s of some rows as metrics take them: class numbers (n,), or numbers (n, 1)."""
        t, s = self.t[chosen], None if self.s is None else self.s[chosen]
        return t if t.dtype.kind == "i" else t[:, None], s


@dataclass(frozen=True, eq=False)
class Member:
    """A trained net: its model, its fold, the rows of that fold and the outputs there, the watched
    figure by epoch, the best epoch (from 0 on) and its error (the figure, or less it where greater
    is better), the seconds it took and those of an epoch, and whether it diverged thereafter."""

    model: Model
    fold: int
    held_out: np.ndarray
    outputs: np.ndarray
    curve: tuple[float, ...]
    best: int
    error: float
    seconds: float
    of_epoch: float
    diverged: bool

    @property
    def score(self) -> float:
        """The watched figure of the best epoch."""
        return self.curve[self.best]


@dataclass
class Team:
    """Trains members on these rows by this recipe.

    makers: by name, each gives an untrained model of the recipe, a member's number, its seed and
    the targets that it learns from; where there are several, member 0 is trained by each, and the
    one whose is best makes the others. watch: a metric of `mlp.formulas.metrics.METRICS`. seed: of
    member 0, further ones follow. deadline: of `time.monotonic`, or None. workers: members that
    learn at once. say: is told how far it is. tried: {maker: the watched figure of its member 0}.
    stopped: why it ended before its time, "" where it did not.
    """

    rows: Rows
    recipe: Recipe
    makers: dict[str, Maker]
    watch: MetricSpec
    seed: int
    deadline: float | None = None
    workers: int = 1
    say: Callable[[str], None] = lambda text: None
    tried: dict[str, float] = field(default_factory=dict)
    stopped: str = ""
    over: bool = False
    only_looks = True

    def stop(self, reason: str) -> None:
        """End all members after the batch under way."""
        self.stopped = self.stopped or reason

    def train(self, members: int) -> list[Member]:
        """So many members. Ctrl-C and the time limit end it with those that are there, the last
        ones with their best epoch so far."""
        begun, found = time.monotonic(), []
        with interruptible(self), _alone(), ThreadPoolExecutor(self.workers) as pool:
            maker = next(iter(self.makers.values()))
            if len(self.makers) > 1:
                pilots = dict(
                    zip(self.makers, pool.map(self._first, self.makers.values()), strict=True)
                )
                self.tried = {name: pilot.score for name, pilot in pilots.items()}
                chosen = min(pilots, key=lambda name: pilots[name].error)
                maker = self.makers[chosen]
                found.append(pilots[chosen])
                self._tell(found, members, begun)
            left = range(len(found), members)
            for future in as_completed([pool.submit(self.member, m, maker) for m in left]):
                member = future.result()
                if member is not None:
                    found.append(member)
                    self._tell(found, members, begun)
            self.over = True
        return sorted(found, key=lambda member: member.fold)

    def _first(self, maker: Maker) -> Member:
        found = self.member(0, maker)
        assert found is not None  # member 0 always is
        return found

    def member(self, fold: int, maker: Maker, epochs: int | None = None) -> Member | None:
        """The member of a fold, by this maker; None where training was stopped before it began, but
        for the first one. epochs: in place of the recipe's."""
        self.on_batch_end(None)
        if self.stopped and fold:
            return None
        rows, seed, begun = self.rows, self.seed + fold, time.monotonic()
        held_out = np.flatnonzero(rows.fold == fold)
        X, t, s = rows.of(np.flatnonzero(rows.fold != fold))
        recipe = self.recipe if epochs is None else replace(self.recipe, epochs=epochs)
        model = maker(recipe, fold, seed, t)
        held = model.samples(*rows.of(held_out))
        result = train(
            model,
            X,
            t,
            sample_weight=s,
            validation=held,
            callbacks=[self],
            settings=recipe.settings(seed, watch=self.watch, metrics=[self.watch]),
        )
        metric = get_metric(self.watch)
        curve = result.history.get(f"validation_{metric.name}") or [
            result.model.evaluate(held, metrics=[self.watch])[metric.name]
        ]
        sign = -1.0 if metric.greater_is_better else 1.0
        errors = np.nan_to_num(sign * np.array(curve), nan=np.inf)
        best = len(curve) - 1 - int(errors[::-1].argmin())
        outputs = result.model.predict(rows.X[held_out])
        return Member(
            result.model,
            fold,
            held_out,
            outputs,
            tuple(curve),
            best,
            float(errors[best]),
            time.monotonic() - begun,
            float(np.min(result.history.get("seconds") or [time.monotonic() - begun])),
            result.diverged,
        )

    def on_batch_end(self, run: Run | None) -> None:
        """Ends a member whose time is up."""
        if self.deadline is not None and time.monotonic() >= self.deadline:
            self.stop(TIME_IS_UP)
        if run is not None and self.stopped:
            run.stop(self.stopped)

    def in_time(self, members: int) -> int:
        """How many members the time is enough for, the recipe's epochs being made fewer first."""
        if self.deadline is None:
            return members
        with _alone():
            pilot = self.member(min(1, members - 1), next(iter(self.makers.values())), PILOT)
        if pilot is None:
            return 1
        of_one = pilot.of_epoch
        possible = max(self.deadline - time.monotonic(), 0.0) * MARGIN / of_one * self.workers
        assert self.recipe.epochs is not None  # `Recipe.of` has found it
        fewest = min(LEAST_EPOCHS, self.recipe.epochs)
        more = len(self.makers) - 1  # that are trained beside
        members = int(np.clip(possible / fewest - more, 1, members))
        epochs = int(np.clip(possible / (members + more), 1, self.recipe.epochs))
        self.recipe = replace(self.recipe, epochs=epochs)
        return members

    def _tell(self, found: list[Member], of: int, begun: float) -> None:
        member, done, spent = found[-1], len(found), time.monotonic() - begun
        name = get_metric(self.watch).name
        self.say(
            f"member {member.fold + 1} of {of}: {name} {member.score:.4g} in "
            f"epoch {member.best + 1} of {len(member.curve)}, {member.seconds:.1f} s"
            + (f"; about {spent / done * (of - done):.0f} s left" if done < of else "")
        )


@contextmanager
def _alone() -> Iterator[None]:
    """One thread for products, and no word on a member that diverges: it has a best epoch. Set by
    the thread that waits, for all: Python's filters are not a thread's own."""
    with limited(1), warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        yield
