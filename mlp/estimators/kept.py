"""A fit that is kept while it runs, and goes on from there when it is called again.

Its checkpoints (`mlp.training.checkpoints`) say what they are of: the estimator's settings and the
data, by shapes, dtypes and checksums. Under others the fit is refused by the name of what differs.
The random numbers of a fit are a function of its ``random_state`` and of the epochs done: they are
drawn again rather than kept.
"""

import copy
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np

from backends import Array, Backend
from mlp.data.samples import checksum
from mlp.errors import InputError, shown
from mlp.estimators.arrays import FitRows, to_host
from mlp.estimators.models import RATE_MODES, plain
from mlp.formulas.schedules import get_schedule
from mlp.names import spelled
from mlp.training.checkpoints import Checkpoints
from mlp.training.state import State

# What may be other when a fit goes on: `max_iter` too, but for a rate that falls until then.
FREE = ("backend", "callbacks", "checkpoint", "max_iter", "verbose", "warm_start")


@dataclass(frozen=True)
class Kept:
    """Where a fit is kept, and where it stood; None at its beginning."""

    checkpoints: Checkpoints
    state: State | None

    def check(
        self,
        places: Mapping[str, Array],
        found: Mapping[str, Array],
        state: State,
        watched: bool,
    ) -> None:
        """InputError if what was read does not fit the places of a fit of these settings."""
        shapes = {name: tuple(x.shape) for name, x in places.items()}
        columns = {"loss", *(("validation_loss", "validation_score") if watched else ())}
        whole = (
            {name: tuple(x.shape) for name, x in found.items()} == shapes
            and set(state.history) == columns
            and all(len(values) == state.epoch for values in state.history.values())
        )
        if not whole:
            raise InputError(
                f"{self.checkpoints.folder} holds a state that is not of these settings and data; "
                "name another folder, or remove it"
            )


@contextmanager
def kept(estimator: Any, data: FitRows, held_out: FitRows | None) -> Iterator[Kept | None]:
    """The folder of a fit while it runs, for this one alone; None if there is none. Sets the
    random generator of the fit, which nobody else draws from."""
    given = estimator.checkpoint
    if given is None:
        yield None
        return
    checkpoints = given if isinstance(given, Checkpoints) else Checkpoints(given)
    folder = Path(checkpoints.folder)
    with checkpoints.alone("name another folder; in a search every fit needs one of its own"):
        generator, state = estimator.random_state, None
        now = _about(estimator, data, held_out)
        for before, said in checkpoints.whole():
            _check_same(folder, said.get("of"), now)
            state, now = before, said["of"]
            break
        own = isinstance(generator, np.random.RandomState)
        draws = copy.deepcopy(generator) if own else np.random.RandomState(now["seed"])
        estimator._random_state = draws
        if state is not None and state.epoch > estimator.max_iter:
            raise InputError(
                f"{folder} holds {state.epoch} epochs of this fit, max_iter is "
                f"{estimator.max_iter}; set max_iter={state.epoch}, or name another folder"
            )
        yield Kept(replace(checkpoints, of=now), state)
        if own:
            generator.set_state(draws.get_state())


def _about(estimator: Any, data: FitRows, held_out: FitRows | None) -> dict[str, Any]:
    """What a fit is of, as JSON gives it back. seed: of its random numbers; without a
    ``random_state`` one is drawn."""
    settings = estimator.get_params(deep=False)
    free = set(FREE) - ({"max_iter"} if _falls_until_max_iter(estimator.learning_rate) else set())
    settings = {name: _said(x) for name, x in settings.items() if name not in free}
    settings["hidden_layer_sizes"] = estimator._hidden_sizes()
    given = estimator.random_state
    seed = None if isinstance(given, np.random.RandomState) else given
    if given is None:
        seed = int(np.random.mtrand._rand.randint(2**31))
    rows = {"": data} | ({} if held_out is None else {"_val": held_out})
    found: dict[str, Any] = {"estimator": type(estimator).__name__, "seed": plain(seed)}
    found["settings"] = settings
    found["data"] = {
        f"{name}{part}": None if x is None else [list(x.shape), str(x.dtype), checksum(x)]
        for part, those in rows.items()
        for name, x in (
            ("X", to_host(those.X)), ("y", those.targets), ("sample_weight", those.weights)
        )
    }  # fmt: skip
    if hasattr(estimator, "classes_"):
        found["data"]["classes"] = [[], "", _digest(repr(estimator.classes_.tolist()))]
    return dict(json.loads(json.dumps(found)))


def _falls_until_max_iter(rate: Any) -> bool:
    """Whether a learning rate's course depends on how many epochs there are to be."""
    if isinstance(rate, str) and rate in RATE_MODES:
        return False
    one, two = (get_schedule(rate, epochs, "learning_rate") for epochs in (1.0, 2.0))
    return bool(one != two)


def _said(value: Any) -> Any:
    """A setting as JSON can hold it; what is code by its name, a generator by its state."""
    if isinstance(value, np.random.RandomState):
        return _digest(repr([np.asarray(part).tolist() for part in value.get_state()]))
    try:
        return plain(value)
    except TypeError:
        name = getattr(value, "__qualname__", None)
        return name or spelled(value)


def _digest(text: str) -> str:
    return blake2b(text.encode(), digest_size=16).hexdigest()


def _check_same(folder: Path, before: Any, now: Mapping[str, Any]) -> None:
    """InputError for another fit: the names of what differs."""
    if not isinstance(before, dict) or set(before) != set(now):
        raise InputError(f"{folder} holds checkpoints that no fit has written; name another folder")
    other = []
    if before["estimator"] != now["estimator"]:
        other.append(f"it is of an {before['estimator']}")
    for name in sorted({*before["settings"], *now["settings"]}):
        old, new = (x["settings"].get(name, "none") for x in (before, now))
        if old != new:
            other.append(f"{name} = {shown(old, 60)} there, {shown(new, 60)} now")
    for name in sorted({*before["data"], *now["data"]}):
        old, new = (x["data"].get(name) for x in (before, now))
        if old is None or new is None:
            other += [f"{name} was {'not ' if old is None else ''}given"] if old != new else []
        elif old[:2] != new[:2]:
            was, is_ = (f"{tuple(x[0])} of {x[1]}" for x in (old, new))
            other.append(f"{name} was {was}, is {is_}")
        elif old != new:
            other.append(f"{name} has other values")
    if other:
        raise InputError(
            f"{folder} holds another fit: {'; '.join(other)}; go on with the same settings and "
            "data, or name another folder (in a search every fit needs one of its own)"
        )


@dataclass
class Copies:
    """Copies of a state on its device, in room that the next copy takes again."""

    backend: Backend
    room: dict[str, Array] = field(default_factory=dict)

    def __call__(self, state: State) -> State:
        """The copy."""
        own = {name: self._copy(name, getattr(state, name)) for name in ("w", "best_w")}
        own["batch_losses"] = self._copy("batch_losses", state.batch_losses)
        vectors = {name: self._copy(f"vector {name}", x) for name, x in state.vectors.items()}
        return replace(state, vectors=vectors, **own)

    def _copy(self, name: str, x: Array | None) -> Any:
        if x is None:
            return None
        if name not in self.room:
            self.room[name] = self.backend.empty(x.shape, x.dtype)
        self.backend.copy(x, self.room[name])
        return self.room[name]
