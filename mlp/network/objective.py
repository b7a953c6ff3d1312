"""The objective: what training descends, its value and its gradient.

    E(w) = Σ_p r_p Σ_k c(y_pk, t_pk) + Σ_l (l1_l Σ|W_l| + ½ l2_l ΣW_l²)                   (1)

with the loss's cost c (derivation 001 eq. 2), and for each sample the share r_p: its weight s_p
(1 if none is given), divided by Σ s_p for the mean over samples, and by the number of outputs c if
the loss averages over them. So the sum convention of 001, 003 and 004 has r = 1, and 000's is
r = 1/(cN) with cost ½ (y - t)². Derivatives of the penalties:

    ∂E/∂W += l1 sign(W) + l2 W                                                            (2)

The last layer is one formula: bias, activation, cost and δ_L (eq. 3 of
`mlp.network.backpropagation`) in one pass over memory. A loss that names its output unit
(`mlp.formulas.losses`) takes that unit's place in training. Where the output has several rows a
sample (members), E is the mean of theirs, and the prediction is the mean of their predictions.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np

from backends import Array, Backend
from mlp.errors import InputError, check_switch, shown
from mlp.formulas.activations import Activation, Identity, get_activation, learned
from mlp.formulas.losses import (
    Loss,
    LossName,
    Reduction,
    fits,
    fitting,
    get_loss,
    heads_of,
    rows_of,
)
from mlp.formulas.target_kinds import TARGET_KINDS, TargetKind
from mlp.layers.dense import shifted
from mlp.layers.layer import Place
from mlp.layers.noise import Noise
from mlp.layers.tape import Arena, Slot, Tape, repeated
from mlp.network.backpropagation import Pass
from mlp.network.graph import Network

REDUCTIONS = get_args(Reduction)
AT_ONCE = 8  # members that one kernel adds up
TINY = 1e-37  # the least that float32 holds, but for its last digits


@dataclass(frozen=True)
class Evaluation:
    """One evaluation of the objective on ``n`` rows, ready to be run on what its buffers hold.

    Fill ``x`` (n, inputs), ``t`` (n, outputs) and, where there are sample weights, ``s`` (n, 1)
    before each run, and begin a step of ``noise`` where layers draw. After a run: ``sums`` (1, 2),
    the two terms of eq. (1); ``y`` (n, outputs): predictions, or δ_L if this evaluation computes
    the gradient. Where there is an ``input``, the products read what is in it, which is x unless it
    is replaced. ``places``: of the layers, by number. ``tape``: what `run` runs. ``weight``: (1,),
    where a mean is taken, the sum of s over the batch.
    """

    n: int
    x: Array
    t: Array | None
    s: Array | None
    noise: Noise | None
    y: Array
    sums: Array
    run: Callable[[], None]
    places: dict[int, Place]
    input: Slot | None = None
    tape: Tape | None = None
    weight: Array | None = None


class Objective:
    """Network and loss; weights and data are arguments.

    loss: a name of `mlp.formulas.losses.LOSSES`, a mapping or an own object. reduction: "sum" or
    "mean" over samples, None is what the loss has as usual ("sum" for half_squared_error, else
    "mean"). shared_penalties: divide the penalties too by the samples of the batch, or the sum of
    their weights, where the mean is taken; scikit-learn's convention.
    """

    def __init__(
        self,
        network: Network,
        loss: LossName | Mapping[str, Any] | Loss,
        reduction: Reduction | None = None,
        shared_penalties: bool = False,
    ):
        self.network, self.loss = network, get_loss(loss)
        if reduction is not None and not (isinstance(reduction, str) and reduction in REDUCTIONS):
            raise InputError(f"reduction must be 'sum' or 'mean', not {shown(reduction)}")
        check_switch("shared_penalties", shared_penalties)
        usual: Reduction = getattr(self.loss, "reduction", "mean")
        self.reduction = usual if reduction is None else reduction
        self.shared_penalties = shared_penalties and self.reduction == "mean"
        self.targets: TargetKind = getattr(self.loss, "targets", "numbers")
        name = loss if isinstance(loss, str) else type(loss).__name__
        last = network.activations[network.depth]
        unit = getattr(self.loss, "unit", None)
        if not fits(self.loss, last):
            raise InputError(
                f"loss {shown(name)} includes the output unit {shown(unit)}: the last layer's "
                f"activation must be {shown(unit)} or 'identity', not "
                f"{shown(network.layers[-1].label)}; with this activation use one of "
                f"{', '.join(fitting(last))}"
            )
        if learned(last, network.outputs):
            raise InputError(
                f"the last layer's activation, {shown(network.layers[-1].label)}, is one that "
                "learns, which hidden layers alone have; put a layer behind it, as Dense("
                f"{network.outputs}), for the output"
            )
        # The output unit f_L in training and in predictions.
        self.inner: Activation = last if unit is None else Identity()
        self.unit: Activation = last if unit is None else get_activation(unit)
        self.ordered = bool(getattr(self.loss, "ordered", False))
        self.heads = heads_of(self.loss, network.outputs)
        if network.outputs % self.heads:
            names = ", ".join(getattr(self.loss, "names", ()))
            raise InputError(
                f"loss {shown(name)} needs {self.heads} outputs for each target ({names}), the "
                f"last layer has {network.outputs} units; give it {self.heads} times the targets"
            )
        if self.heads > 1 and network.members[-1] > 1:
            raise InputError(
                f"loss {shown(name)} makes its predictions of several outputs, and the mean of "
                "members' outputs is none of them; use it on a network without an ensemble"
            )
        # Columns of t, and how many classes the outputs can tell apart.
        self.columns = network.outputs // self.heads
        self.classes = network.outputs + 1 if self.ordered else max(network.outputs, 2)
        try:
            self.rows = rows_of(self.loss, network.outputs if self.heads == 1 else self.heads)
        except InputError as error:
            raise InputError(f"the last layer has {network.outputs} units: {error}") from error
        fewest = getattr(self.loss, "fewest", 1)
        if self.targets != "classes" and network.outputs < fewest:
            raise InputError(
                f"loss {shown(name)} compares the outputs of a row and needs at least {fewest}, "
                f"the last layer has {network.outputs}"
            )
        if self.targets == "classes" and network.outputs < 2 and not self.ordered:
            raise InputError(
                f"loss {shown(name)} needs one output for each class, the last layer has "
                f"{network.outputs}; for two classes on one output use 'binary_cross_entropy'"
            )

    # ------------------------------------------------------------------ evaluations, written down

    def gradient(
        self,
        backend: Backend,
        w: Array,
        g: Array,
        arena: Arena,
        n: int,
        weighted: bool = False,
        scale: Array | None = None,
        statistics: Array | None = None,
        keeps: bool = False,
        whole: int | None = None,
        unscales: bool = True,
        narrow: Array | None = None,
    ) -> Evaluation:
        """The evaluation that computes the value and writes the gradient into g.

        scale: (1,) on the device, for mixed precision. unscales: see `Pass.backward`; what adds to
        g has to find it so. statistics: of the layers, changed in each run. keeps, narrow: see
        `mlp.network.backpropagation.Pass`. whole: the rows of the batch of which these n are a
        shard: then value and gradient are its share of them, without penalties.
        """
        tape = Tape(backend, arena.precision)
        s = arena.get(("s",), n, 1) if weighted else None
        about: Any = {"weights": s, "keeps": keeps, "whole": whole, "narrow": narrow}
        network = Pass(self.network, tape, arena, n, w, statistics, **about)
        network.forward(training=True)
        sums, t, s, delta, weight = self._output(
            network, weighted, self._delta_formula, keeps, whole
        )
        network.last.delta = delta
        network.backward(g, scale, unscales)
        if whole is None:
            self.penalty(tape, w, n, None if s is None else s[:, 0], sums, g)
        return Evaluation(
            n,
            network.inputs,
            t,
            s,
            arena.noise,
            delta,
            sums,
            tape.run,
            network.places,
            tape=tape,
            weight=weight,
        )

    def measure(
        self,
        backend: Backend,
        w: Array,
        arena: Arena,
        n: int,
        weighted: bool = False,
        statistics: Array | None = None,
    ) -> Evaluation:
        """The evaluation that computes the value and the predictions, as in predictions: without
        dropout, statistics as they are."""
        tape = Tape(backend, arena.precision)
        network = Pass(self.network, tape, arena, n, w, statistics)
        network.forward()
        sums, t, s, y, _ = self._output(network, weighted, self._measure_formula)
        tape.end()
        self.penalty(tape, w, n, None if s is None else s[:, 0], sums)
        y = self._mean_of_members(tape, arena, y, n)
        return Evaluation(n, network.inputs, t, s, None, y, sums, tape.run, network.places)

    def predict(
        self,
        backend: Backend,
        w: Array,
        arena: Arena,
        n: int,
        slot: bool = False,
        statistics: Array | None = None,
        members: bool = False,
    ) -> Evaluation:
        """The evaluation that computes the predictions alone; with ``slot`` it has `input`, where
        products alone read the inputs. members: each member's, (n, members · outputs), in place of
        their mean."""
        tape, unit = Tape(backend, arena.precision), self.unit
        network = Pass(self.network, tape, arena, n, w, statistics, slot=slot)
        network.forward()

        def output(xp: Any, z: Array, *b: Array) -> Array:
            return unit.f(xp, shifted(z, *b))

        y = network.last.y
        tape.apply(output, (0,), y, *(network.last.ending or ()))
        mean = self._mean_of_members
        y = self.of_members(tape, y, n) if members else mean(tape, arena, y, n)
        sums = backend.full((1, 2), 0.0, arena.dtype)
        x, places = network.inputs, network.places
        return Evaluation(n, x, None, None, None, y, sums, tape.run, places, network.slot)

    def _mean_of_members(self, tape: Tape, arena: Arena, y: Array, n: int) -> Array:
        """The predictions (n, outputs) of outputs that have several rows a sample, over them."""
        members, c = self.network.members[-1], self.network.outputs

        def mean(xp: Any, out: Array, *y: Array) -> Array:
            return (1.0 / members) * sum(y[1:], y[0])

        def more(xp: Any, out: Array, *y: Array) -> Array:
            return out + mean(xp, out, *y)

        if members == 1:
            return y
        of_members = self.of_members(tape, y, n)
        found = arena.get(("mean of members",), n, c)
        each = [of_members[:, m * c : (m + 1) * c] for m in range(members)]
        for m in range(0, members, AT_ONCE):
            tape.apply(more if m else mean, (0,), found, *each[m : m + AT_ONCE])
        return found

    def of_members(self, tape: Tape, y: Array, n: int) -> Array:
        """Outputs as (n, members · outputs)."""
        return tape.backend.xp.reshape(y, (n, self.network.members[-1] * self.network.outputs))

    # ------------------------------------------------------------------ the last layer

    def _delta_formula(self, xp: Any, z: Array, t: Array, r: Array, *rows: Array) -> Any:
        """δ_L and the sample's share of E, from z_L with its bias."""
        y = self.inner.f(xp, z)
        cost = xp.sum(self.loss.cost(xp, y, t, *rows), axis=1, keepdims=True)  # (1)
        v = self.loss.derivative(xp, y, t, *rows) * r
        return self.inner.df(xp, v, z, y), cost * r  # network eq. (3)

    def _measure_formula(self, xp: Any, z: Array, t: Array, r: Array, *rows: Array) -> Any:
        """The prediction and the sample's share of E."""
        y = self.inner.f(xp, z)
        cost = xp.sum(self.loss.cost(xp, y, t, *rows), axis=1, keepdims=True)
        return self.unit.f(xp, z), cost * r

    def _output(
        self,
        network: Pass,
        weighted: bool,
        formula: Callable[..., Any],
        keeps: bool = False,
        whole: int | None = None,
    ) -> tuple[Array, Array, Array | None, Array, Array | None]:
        """The last layer's kernel on the tape; (sums, t, s, what the formula gives first, Σ s)."""
        n, c, last = network.n, self.columns, network.last
        tape, arena, members = network.tape, network.arena, last.members
        backend = tape.backend
        t = arena.get(("t",), n, c)
        apart = c if self.heads > 1 else 1  # rows of the formula for each row of the output
        cost = arena.get(("cost",), n, 1, members=members * apart)
        sums = backend.full((1, 2), 0.0, arena.dtype)
        s = weight = None
        if weighted:
            s = arena.get(("s",), n, 1)
            r, weight = self._shares(tape, arena, s, members)
        else:
            samples = (whole or n) if self.reduction == "mean" else 1
            r = backend.full((1, 1), self._share(members) / samples, arena.dtype)

        rows = [backend.asarray(np.asarray(row), arena.dtype) for row in self.rows]

        def output(xp: Any, out: Array | None, cost: Array, z: Array, *rest: Array) -> Any:
            t, r, *more = rest
            return formula(xp, shifted(z, *more[len(rows) :]), t, r, *more[: len(rows)])

        def output_over_z(xp: Any, z: Array, cost: Array, *rest: Array) -> Any:
            return output(xp, None, cost, z, *rest)

        arrays = [*(repeated(tape, x, members) for x in (t, r)), *rows]
        if apart > 1:
            return sums, t, s, self._apart(network, formula, arrays, cost, sums), weight
        if last.ending is not None and not keeps:
            y = last.y
            tape.apply(output_over_z, (0, 1), y, cost, *arrays, *last.ending)
        else:
            y = last.buffer("output", wide=True)
            tape.apply(output, (0, 1), y, cost, last.y, *arrays, *(last.ending or ()))
        tape.total_late(cost, sums[0, :1])
        return sums, t, s, y, weight

    def _apart(
        self,
        network: Pass,
        formula: Callable[..., Any],
        arrays: list[Array],
        cost: Array,
        sums: Array,
    ) -> Array:
        """`_output` of several targets with heads each, what the formula gives first. y (rows,
        targets · heads) is the same memory as (rows · targets, heads): a row for each target."""
        last, tape, reshape = network.last, network.tape, network.tape.backend.xp.reshape
        t, r, *rows = arrays

        def biased(xp: Any, out: Array, z: Array, *b: Array) -> Array:
            return shifted(z, *b)

        def output(xp: Any, y: Array, cost: Array, t: Array, r: Array, *rows: Array) -> Any:
            return formula(xp, y, t, r, *rows)

        y = last.buffer("output", wide=True)
        tape.apply(biased, (0,), y, last.y, *(last.ending or ()))
        if r.shape[0] > 1:
            index = np.repeat(np.arange(r.shape[0]), self.columns)
            each = tape.backend.empty((len(index), 1), network.arena.dtype)
            tape.take(r, tape.backend.asarray(index, "int64"), each)
            r = each
        flat = (y.shape[0] * self.columns, self.heads)
        tape.apply(output, (0, 1), reshape(y, flat), cost, reshape(t, (-1, 1)), r, *rows)
        tape.total_late(cost, sums[0, :1])
        return y

    def _share(self, members: int = 1) -> float:
        """What a sample's cost is divided by beside the samples: outputs and members."""
        averaged = self.columns if getattr(self.loss, "average", False) else 1
        return 1.0 / (averaged * members)

    def _shares(
        self, tape: Tape, arena: Arena, s: Array, members: int
    ) -> tuple[Array, Array | None]:
        """r_p of eq. (1) from the sample weights s, on the device; and Σ s, where the mean is
        taken."""

        def shares(xp: Any, r: Array, s: Array, per_output: Array) -> Array:
            return s * per_output

        def mean_shares(xp: Any, r: Array, s: Array, total: Array, per_output: Array) -> Array:
            # A batch whose weights are all zero has shares of zero, not 0/0.
            return s * per_output / xp.where(total == 0.0, 1.0, total)

        r, scalars = arena.get(("r",), s.shape[0], 1), (self._share(members),)
        if self.reduction == "sum":
            tape.apply(shares, (0,), r, s, scalars=scalars)
            return r, None
        total = tape.backend.full((1, 1), 0.0, arena.dtype)
        tape.total(s, total[0, :])
        tape.sum_shards(total[0, :])
        tape.apply(mean_shares, (0,), r, s, total, scalars=scalars)
        return r, total[0, :]

    # ------------------------------------------------------------------ penalties

    def penalty(
        self,
        tape: Tape,
        w: Array,
        n: int,
        s: Array | None,
        sums: Array,
        g: Array | None = None,
    ) -> None:
        """The second term of eq. (1) into sums[0, 1], and eq. (2) added to g, on the tape. n: the
        rows. s: their weights, (n,) or the sum of them, (1,), where there are such."""

        def cost(xp: Any, cost: Array, w: Array, n: Array, l1: Array, half_l2: Array) -> Array:
            return (l1 * xp.abs(w) + half_l2 * w * w) / n

        def or_one(xp: Any, n: Array) -> Array:
            return xp.where(n == 0.0, 1.0, n)  # weights all zero, as in `_shares`

        def pull(xp: Any, g: Array, w: Array, n: Array, l1: Array, l2: Array) -> Array:
            return g + (l1 * xp.sign(w) + l2 * w) / n  # (2)

        parts = self.network.penalties()
        if not parts:
            return
        backend = tape.backend
        shared_by = backend.full((1,), n if self.shared_penalties else 1.0, w.dtype)
        if self.shared_penalties and s is not None:
            tape.total(s, shared_by)
            tape.apply(or_one, (0,), shared_by)
        # Every part writes its costs into their place; weights without a penalty keep cost 0.
        costs = backend.full((parts[-1][0].stop,), 0.0, w.dtype)
        for part, l1, l2 in parts:
            arrays = costs[part], w[part], shared_by
            tape.apply(cost, (0,), *arrays, scalars=(l1, 0.5 * l2))
            if g is not None:
                tape.apply(pull, (0,), g[part], w[part], shared_by, scalars=(l1, l2))
        tape.total(costs, sums[0, 1:])

    # ------------------------------------------------------------------ answers

    def answer(self, xp: Any, y: Array) -> Array:
        """What is predicted, of the outputs (n, outputs), in scaled units."""
        loss: Any = self.loss
        return loss.answer(xp, y) if hasattr(loss, "answer") else y

    def point(self, y: Array) -> Array:
        """Of predictions those that metrics of numbers measure, (n, targets)."""
        if self.heads == 1 or self.ordered:
            return y
        return y[:, getattr(self.loss, "point", 0) :: self.heads]

    # ------------------------------------------------------------------ targets

    @property
    def asked(self) -> tuple[str, int]:
        """What `check_targets` asks for: targets that have passed fit any objective that asks the
        same."""
        if self.ordered:
            return "ordered classes", self.classes
        above = " above 0" * bool(getattr(self.loss, "positive", False))
        return f"{self.targets}{above}", self.columns

    def check_targets(self, t: np.ndarray, what: str = "t") -> np.ndarray:
        """Host targets as (n, targets) numbers, or class numbers, (n,) int64 or (n, 1) where they
        are ordered; InputError if they do not fit the loss."""
        if self.ordered:
            return self._check_ranks(np.asarray(t), what)
        c, kind = self.columns, self.targets
        t = np.asarray(t)
        if t.dtype.kind not in "biuf":
            shown = repr(t.ravel()[0].tolist()) if t.dtype.kind == "U" and t.size else t.dtype
            cure = "encode the labels"
            if kind == "labels" and c > 1:
                cure = "several labels a row are 0 or 1 each"
            raise InputError(f"{what}: targets must be numbers, not {shown}; {cure}")
        if kind == "classes" and t.ndim == 1:
            with np.errstate(invalid="ignore"):  # NaN becomes some number unequal to it
                numbers = t.astype(np.int64)
            if (numbers != t).any() or (numbers < 0).any() or (numbers >= c).any():
                wrong = t[(numbers != t) | (numbers < 0) | (numbers >= c)][0]
                raise InputError(
                    f"{what}: {wrong} is not a class number from 0 to {c - 1} (the last layer has "
                    f"{c} units, one a class)"
                )
            return numbers
        t = t[:, None] if t.ndim == 1 else t
        if t.ndim != 2:
            raise InputError(f"{what} has shape {t.shape}, expected (rows, {c} columns)")
        if t.shape[1] != c:
            cure = f"; give class numbers as one axis, {what}[:, 0]" if kind == "classes" else ""
            units = f"the last layer has {self.network.outputs} units"
            units += f", {self.heads} for each target" * (self.heads > 1)
            raise InputError(f"{what} has {t.shape[1]} columns, {units}{cure}")
        if not np.isfinite(t).all():
            raise InputError(f"{what}: {int((~np.isfinite(t)).sum())} values are NaN or infinite")
        least, most = TARGET_KINDS[kind]
        outside = np.argwhere((t < least) | (t > most))
        if kind in ("labels", "counts") and len(outside):
            row, k = outside[0]
            found = f"{what}: {t[row, k]}" + f" in column {k}" * (c > 1)
            if kind == "counts":
                raise InputError(f"{found} is below 0, which this loss cannot take")
            raise InputError(
                f"{found} is not a label from 0 to 1, which this loss needs; "
                "for numbers of any size use 'mean_squared_error'"
            )
        if getattr(self.loss, "positive", False) and (t < TINY).any():
            row, k = np.argwhere(t < TINY)[0]
            raise InputError(
                f"{what}: {t[row, k]} in row {row}, column {k} is not above 0, as this loss needs; "
                "of amounts that may be 0 'tweedie' takes all, 'poisson' counts"
            )
        if kind == "classes" and ((t < least).any() or abs(t.sum(axis=1) - 1.0).max() > 1e-5):
            raise InputError(
                f"{what}: rows of class shares must be 0 or above and sum to 1 (one-hot), or give "
                "class numbers"
            )
        return t

    def _check_ranks(self, t: np.ndarray, what: str) -> np.ndarray:
        """Numbers of ordered classes as (n, 1)."""
        ranks = t[:, 0] if t.ndim == 2 and t.shape[1] == 1 else t
        if ranks.ndim != 1 or ranks.dtype.kind not in "biuf":
            raise InputError(f"{what}: this loss needs the number of each row's class, (rows,)")
        wrong = ranks[~((ranks >= 0) & (ranks < self.classes) & (ranks == np.floor(ranks)))]
        if len(wrong):
            raise InputError(
                f"{what}: {wrong[0]} is not a class number from 0 to {self.classes - 1} (the last "
                f"layer has {self.network.outputs} units, one less than there are classes)"
            )
        return ranks.astype(np.float64)[:, None]
