"""Backpropagation against central differences, on the user's own net, data and backend.

    (E(w + h e_i) - E(w - h e_i)) / 2h = ∂E/∂w_i + O(h²)                                  (1)

computed in float64 whatever the model's dtype, for all parameters or a random choice of them. The
error of a parameter is measured against the largest of both gradients,

    error_i = |backpropagation_i - difference_i| / max_j max(|b_j|, |d_j|)                 (2)

>>> import numpy as np
>>> from mlp.layers.dense import Dense
>>> from mlp.model import Model
>>> from mlp.network.graph import Network
>>> model = Model(Network(2, [Dense(3, "tanh"), Dense(1)]), "mean_squared_error")
>>> check = gradient_check(model, np.ones((4, 2)), np.zeros((4, 1)))
>>> check.passed, check.parameters
(True, 13)
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from mlp.errors import InputError, check_is, check_whole, is_finite
from mlp.layers.tape import Arena
from mlp.memory import enough_memory
from mlp.model import Model, draw
from mlp.seeds import generator


@dataclass(frozen=True)
class GradientCheck:
    """What `gradient_check` found.

    error: the largest of eq. (2), at the parameter named ``worst``, where backpropagation gave
    ``backpropagation`` and eq. (1) ``difference``. parameters: how many were checked.
    """

    error: float
    tolerance: float
    worst: str
    backpropagation: float
    difference: float
    parameters: int

    @property
    def passed(self) -> bool:
        """Whether the largest error is within the tolerance."""
        return self.error <= self.tolerance

    def __str__(self) -> str:
        verdict = "agrees with" if self.passed else "DIFFERS from"
        return (
            f"backpropagation {verdict} central differences on {self.parameters} parameters: "
            f"largest error {self.error:.1e} (allowed {self.tolerance:.0e}) at {self.worst}: "
            f"{self.backpropagation:.10g} against {self.difference:.10g}"
        )


def gradient_check(
    model: Model,
    X: Any,
    t: Any = None,
    *,
    sample_weight: Any = None,
    tolerance: float = 1e-6,
    most: int | None = 1000,
    h: float = 1e-5,
    seed: int = 0,
) -> GradientCheck:
    """Compare the gradient on these rows with central differences; what layers draw is held fixed.

    most: so many parameters, chosen at random, are checked; None is all. h: the step of eq. (1).
    A net with kinks (relu) can fail where a sample sits within h of one.
    """
    check_is("gradient_check: model", model, Model)
    backend, network = model.backend, model.network
    if not (is_finite(h) and is_finite(tolerance) and h > 0 and tolerance > 0):
        raise InputError("gradient_check: h and tolerance must be above 0")
    check_whole("gradient_check: seed", seed, 0)
    if most is not None:
        check_whole("gradient_check: most", most, 1)
    samples = model.samples(X, t, sample_weight)
    network.check_rows(samples.n, "X")
    with enough_memory(backend, "gradient_check"), backend.scope():
        exact = model.to(dtype="float64")
        g = backend.empty((network.parameters,), "float64")
        arena = Arena(backend, "float64", samples.n)
        weighted = samples.s is not None
        evaluation = exact.objective.gradient(
            backend, exact.w, g, arena, samples.n, weighted, statistics=exact.statistics
        )
        exact.feed(samples).bind(evaluation)(slice(None))
        draw(evaluation, seed)
        evaluation.run()
        propagated = backend.to_numpy(g).copy()

        def value(index: int, w_i: float) -> float:
            exact.w[int(index)] = w_i
            evaluation.run()
            return float(backend.to_numpy(evaluation.sums).sum())

        chosen = np.arange(network.parameters)
        if most is not None and most < network.parameters:
            rng = generator(seed, "order")
            chosen = np.sort(rng.choice(network.parameters, most, replace=False))
        w = backend.to_numpy(exact.w).copy()
        differences = np.empty(len(chosen))
        for place, index in enumerate(chosen):
            up, down = value(int(index), w[index] + h), value(int(index), w[index] - h)
            exact.w[int(index)] = w[index]
            differences[place] = (up - down) / (2.0 * h)
    propagated = propagated[chosen]
    largest = max(abs(propagated).max(), abs(differences).max(), np.finfo(float).tiny)
    errors = abs(propagated - differences) / largest
    worst = int(np.argmax(np.where(np.isnan(errors), np.inf, errors)))
    return GradientCheck(
        float(errors[worst]),
        tolerance,
        network.describe(int(chosen[worst])),
        float(propagated[worst]),
        float(differences[worst]),
        len(chosen),
    )
