"""A step of `mlp.formulas.searches`: all rows at once, at as many points as it needs.

It is what `mlp.training.step.Step` is to the loop. Between its evaluations it reads numbers back
from the device, a few in an epoch, which is one step. Value and gradient at the end of a step are
those of the next one's start, unless somebody moved the weights meanwhile; a run that is gone on
with computes them again, to the same bits.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from backends import PRECISIONS, Array
from mlp.data.feed import Feed, Rows
from mlp.errors import InputError, shown
from mlp.formulas.searches import LBFGS, LevenbergMarquardt, direction, wolfe
from mlp.layers.dense import Dense
from mlp.layers.tape import Arena, add
from mlp.model import Model
from mlp.network.objective import Objective
from mlp.training.settings import Settings

AT_ONCE = 1 << 22  # numbers of J that are held
LARGEST = 1e20  # learning rate


class Search:
    """The steps of a model on a data set that is one batch.

    ``rate`` is the learning rate after the step, ``ended`` says why there is no further one.
    vectors: (state + 1, parameters), the rule's, one below the other, and a row for the gradient.
    weights: of the samples.
    """

    def __init__(
        self,
        model: Model,
        feed: Feed,
        n: int,
        rule: Any,
        vectors: Array,
        settings: Settings,
        weights: Any = None,
    ):
        self.model, self.backend, self.rule, self.vectors = model, model.backend, rule, vectors
        self.weights = weights
        _check(model, settings)
        backend, network = model.backend, model.network
        self.arena, self.n = Arena(backend, model.precision, n), n
        self.g = vectors[len(rule.state), :]
        arguments = backend, model.w, self.g, self.arena, n, feed.weighted
        self.evaluation = model.objective.gradient(*arguments)
        self.fill = feed.bind(self.evaluation)
        parts = network.update_parts(False, settings.rate_factors)
        ends = [0, *(x for part in parts for x in (part.part.start, part.part.stop))]
        ends.append(network.parameters)
        self.frozen = [slice(a, b) for a, b in zip(ends[::2], ends[1::2], strict=True) if a < b]
        self.zeros = backend.full((network.parameters,), 0.0, model.dtype)
        self.kept, self.kept_g, self.d = (self._like() for _ in range(3))
        self.at: Array = self._like()  # the weights of which E and g are known
        self.known = False
        self.value, self.rate, self.ended = math.nan, 0.0, ""
        self._begin()

    def _begin(self) -> None:
        """What the rule needs beside."""

    def _like(self) -> Array:
        return self.backend.empty(self.model.w.shape, self.model.dtype)

    # ------------------------------------------------------------------ what the loop asks for

    def rows_of(self, batch: slice, index: Rows | None) -> Rows:
        """As `Step`."""
        return batch if index is None else index[batch]

    def load(self, batch: slice) -> None:
        """The rows, which stay."""
        self.fill(batch)

    def ahead(self, feed: Feed, rows: Rows) -> None:
        """Nothing is ahead of the one batch."""

    def follow(self) -> None:
        """It looks itself whether the weights are those it left."""

    def __call__(
        self, n: int, rows: Any, eta: float, number: int, seed: int, losses: Array, *others: Any
    ) -> None:
        """As `Step`: losses gets loss and penalty before the step."""
        self.rate = eta
        same = self.known and bool(self._host(self.backend.xp.all(self.at == self.model.w)))
        value = self.value if same else self._evaluate()
        self.backend.copy(self.evaluation.sums, losses)
        if not math.isfinite(value):
            return
        self.backend.copy(self.model.w, self.kept)
        self.backend.copy(self.g, self.kept_g)
        if self._host(self.backend.xp.all(self.g == 0.0)):
            self.ended = "the gradient is 0"
            return
        self.ended = self._step(value, eta, number)
        if self.ended:
            self.backend.copy(self.kept, self.model.w)
            self.known = False
        else:
            self.backend.copy(self.model.w, self.at)
            self.known = True

    def _step(self, value: float, eta: float, number: int) -> str:
        """Move the weights to a point that was evaluated last; why not, if there is none."""
        raise NotImplementedError

    # ------------------------------------------------------------------ what rules ask for

    def _host(self, x: Array) -> np.ndarray:
        return self.backend.to_numpy(x)

    def _evaluate(self) -> float:
        """E at the weights as they are, and its gradient, 0 of what is frozen."""
        self.evaluation.run()
        for part in self.frozen:
            self.backend.copy(self.zeros[part], self.g[part])
        self.value = float(self._host(self.evaluation.sums).astype(np.float64).sum())
        return self.value

    def _bound(self, formula: Callable[..., Any], *arrays: Array, scalars: int = 0) -> Any:
        return self.backend.fuse(formula).bind(*arrays, scalars=scalars)


class LBFGSSearch(Search):
    """Steps of `LBFGS`; the pair of a step goes where the oldest is."""

    def _begin(self) -> None:
        backend, V = self.backend, self.vectors
        rows, dtype = V.shape[0], self.model.dtype
        reshape = backend.xp.reshape
        self.gram, self.c = (backend.empty(shape, dtype) for shape in ((rows, rows), (1, rows)))
        self.products = backend.product(V, V.T, self.gram)
        self.combine = backend.product(self.c, V, reshape(self.d, (1, -1)))
        slope = self.slope = backend.empty((1, 1), dtype)
        row, column = (reshape(x, shape) for x, shape in ((self.g, (1, -1)), (self.d, (-1, 1))))
        self.along = backend.product(row, column, slope)
        self.move = self._bound(moved, self.model.w, self.kept, self.d, scalars=1)
        self.differences = [
            [
                self._bound(difference, V[2 * i, :], self.model.w, self.kept),
                self._bound(difference, V[2 * i + 1, :], self.g, self.kept_g),
            ]
            for i in range(self.rule.memory)
        ]

    def _step(self, value: float, eta: float, number: int) -> str:
        memory = self.rule.memory
        newest_first = [(number - 2 - i) % memory for i in range(memory)]
        for again in (False, True):
            if again:  # without what is remembered
                for row in range(2 * memory):
                    self.backend.copy(self.zeros, self.vectors[row, :])
                self.backend.copy(self.kept, self.model.w)
                self._evaluate()
            self.products()
            gram = self._host(self.gram).astype(np.float64)
            c, used = direction(gram, newest_first)
            self.backend.upload(c[None, :].astype(self.model.dtype), self.c)
            self.combine()
            self.along()
            slope = float(self._host(self.slope)[0, 0])
            norm = math.sqrt(gram[-1, -1])
            first = eta if used else eta * min(1.0, 1.0 / norm)
            slack = 4.0 * float(np.finfo(self.model.dtype).eps) * abs(value)
            if slope < 0.0:
                alpha = wolfe(self._at, (0.0, value, slope), first, self.rule, slack)
                if alpha and self.value < value:
                    for call in self.differences[(number - 1) % memory]:
                        call()
                    return ""
            if not used:
                break
        return "no lower loss is found along the gradient: it is as low as its digits tell"

    def _at(self, alpha: float) -> tuple[float, float]:
        """E and the slope at w + α d."""
        self.move(alpha)
        value = self._evaluate()
        self.along()
        return value, float(self._host(self.slope)[0, 0])


class LevenbergMarquardtSearch(Search):
    """Steps of `LevenbergMarquardt`.

    A row of J is the derivative of one output of one sample by w: backpropagation's δ of each
    layer, times what comes in, with a cost y·v whose v is 1 in that output. v is √r, so that the
    sum of the rows' products is H.
    """

    def _begin(self) -> None:
        model, backend, dtype = self.model, self.backend, self.model.dtype
        network, P = model.network, model.network.parameters
        _check_net(model)
        size = max(1, min(self.n, AT_ONCE // P))
        self.chunks = [slice(i, min(i + size, self.n)) for i in range(0, self.n, size)]
        self.J = backend.full((size, P), 0.0, dtype)  # so it stays of what is frozen
        self.H, self.more = (backend.empty((P, P), dtype) for _ in range(2))
        self.add = self._bound(add, self.H, self.more)
        outputs = Objective(network, Outputs(), "sum")
        arena, unused = Arena(backend, model.precision, size), self._like()
        self.passes = {}
        for rows in {chunk.stop - chunk.start for chunk in self.chunks}:
            one = outputs.gradient(backend, model.w, unused, arena, rows)
            J = self.J[:rows, :]
            products = [backend.product(J.T, J, H) for H in (self.H, self.more)]
            self.passes[rows] = one, self._rows_of(J, one.places), products
        self.roots, samples = self._roots()
        self.pull = np.zeros(P)
        for part, _, l2 in network.penalties():
            self.pull[part] = l2 / (samples if model.objective.shared_penalties else 1.0)
        self.subtract = self._bound(difference, self.model.w, self.kept, self.d)
        index = np.arange(P, dtype=dtype)
        i, j = backend.asarray(index[:, None]), backend.asarray(index)
        self.diagonal = backend.empty((P,), dtype)
        self.damp = self._bound(damped, self.more, self.H, i, j, self.diagonal)

    def _roots(self) -> tuple[np.ndarray, float]:
        """√r of each sample, (n, 1), on the host, and the samples, or the sum of their weights."""
        objective, s = self.model.objective, self.weights
        s = np.ones(self.n) if s is None else np.asarray(s, float)
        total = float(s.sum()) or 1.0
        share = s / total if objective.reduction == "mean" else s
        curvature: float = objective.loss.curvature  # type: ignore[attr-defined]
        return np.sqrt(curvature * objective._share() * share)[:, None], total

    def _rows_of(self, J: Array, places: dict[int, Any]) -> list[Callable[[], None]]:
        """The calls that write J (rows, parameters) from the δ of all layers."""
        backend, reshape = self.backend, self.backend.xp.reshape
        calls: list[Callable[[], None]] = []
        for entry in self.model.network.layout:
            if any(part.start <= entry.part.start < part.stop for part in self.frozen):
                continue
            place, out = places[entry.layer], J[:, entry.part]
            rows, units = place.delta.shape
            if entry.parameter.source is None:
                calls.append(partial(backend.copy, place.delta, out))
                continue
            x = place.x[entry.parameter.source]
            factors = reshape(x, (rows, x.shape[1], 1)), reshape(place.delta, (rows, 1, units))
            out = reshape(out, (rows, x.shape[1], units))
            calls.append(backend.stack(*factors, out, "float32"))
        return calls

    def _curvature(self) -> None:
        """H <- Jᵀ diag(r) J, over chunks of rows and outputs, at the weights as they are."""
        backend, first, outputs = self.backend, True, self.model.network.outputs
        for chunk in self.chunks:
            n = chunk.stop - chunk.start
            one, rows, (begin, more) = self.passes[n]
            backend.copy(self.evaluation.x[chunk, :], one.x)
            assert one.t is not None
            for output in range(outputs):
                v = np.zeros((n, outputs), self.model.dtype)
                v[:, output] = self.roots[chunk, 0]
                backend.upload(v, one.t)
                one.run()
                for call in rows:
                    call()
                if first:
                    begin()
                else:
                    more()
                    self.add()
                first = False

    def _step(self, value: float, eta: float, number: int) -> str:
        """Eq. (3), with shorter steps until E is lower."""
        backend, rule, dtype = self.backend, self.rule, self.model.dtype
        self._curvature()
        while eta >= rule.smallest:
            backend.upload((self.pull + 1.0 / eta).astype(dtype), self.diagonal)
            self.damp()
            backend.copy(self._solved(), self.d)
            self.subtract()
            if self._evaluate() < value:
                self.rate = min(eta * rule.grow, LARGEST)
                return ""
            eta *= rule.shrink
        return f"no lower loss is found, with a damping up to {1.0 / eta:.0e}"

    def _solved(self) -> Array:
        """(H + I/η)⁻¹ g; NaN, with which E is not lower, where a library finds no solution."""
        try:
            return self.backend.xp.linalg.solve(self.more, self.kept_g)
        except Exception as error:
            if "LinAlgError" not in type(error).__name__:  # of each library's own
                raise
            return self.backend.full(self.d.shape, math.nan, self.model.dtype)


class Outputs:
    """The cost y·v, whose derivative by y is v."""

    def cost(self, xp: Any, y: Array, v: Array) -> Array:
        return y * v

    def derivative(self, xp: Any, y: Array, v: Array) -> Array:
        return v + 0.0 * y


SEARCH_OF: dict[type, type[Search]] = {
    LBFGS: LBFGSSearch,
    LevenbergMarquardt: LevenbergMarquardtSearch,
}


def moved(xp: Any, w: Array, start: Array, d: Array, alpha: Array) -> Array:
    """The point that is so far along a direction."""
    return start + alpha * d


def difference(xp: Any, out: Array, a: Array, b: Array) -> Array:
    """a - b."""
    return a - b


def damped(xp: Any, out: Array, H: Array, i: Array, j: Array, diagonal: Array) -> Array:
    """H and numbers on its diagonal."""
    return H + xp.where(i == j, diagonal, 0.0)


def _check(model: Model, settings: Settings) -> None:
    """InputError for a net whose E is not one and the same function of w, as a search needs."""
    network, said = model.network, f"optimizer {shown(settings.optimizer, 60)} compares losses, and"
    if PRECISIONS[model.precision].narrow:
        raise InputError(
            f"{said} precision {shown(model.precision)} has too few digits for that; use 'float32'"
        )
    if network.drawing:
        l = next(iter(network.drawing))
        raise InputError(f"{said} what layer {l} draws makes each another one; use 'rprop'")
    if network.statistics:
        l = network.statistic_layout[0][0]
        raise InputError(
            f"{said} the statistics of layer {l}, {network.layer(l).label}, would be of every "
            "point that is looked at; use layer_norm, or another optimizer"
        )
    if network.constraints():
        raise InputError(f"{said} max_norm would move the weights after it; use l2")


def _check_net(model: Model) -> None:
    """InputError for what Levenberg-Marquardt is not for."""
    said = "optimizer 'levenberg_marquardt'"
    if not hasattr(model.objective.loss, "curvature"):
        raise InputError(
            f"{said} is for squared errors, as 'mean_squared_error', not {shown(model.loss)}; use "
            "'lbfgs'"
        )
    for l in model.network.numbers():
        layer = model.network.layer(l)
        names = {e.parameter.name for e in model.network.layout if e.layer == l}
        if not isinstance(layer, Dense) or names - {"W", "b"}:
            raise InputError(
                f"{said} is for dense layers that learn W and b, and layer {l} is {layer.label}; "
                "use 'lbfgs'"
            )
        if layer.l1:
            raise InputError(f"{said}: layer {l} has l1, which is no square; use l2")
