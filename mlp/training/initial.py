"""Weights that start from the data (`initialize = "data"`): each unit's deviation is 1 there.

Layer by layer, with x what comes in from the rows, in training with its dropout, and W ~ N(0, 1),

    W_·k <- W_·k / deviation over the rows of (x W)_k                                       (1)
    b_k  <- -Σ_{i=1..5} λ_ki z_r(k,i)k,      z = x W                                        (2)

where the five rows r are drawn for each unit and λ_k uniformly among five shares: the unit's kink
lies where data are. A unit whose z is the same in all rows keeps W_·k / √fan_in.

So start the dense layers whose initializer is "auto"; another one stays as it is drawn. All of it
is computed on the host in float64, so that every backend starts alike.

Source: Holzmüller, Grinsztajn, Steinwart, arXiv:2407.04491 (RealMLP), appendix A.
"""

import math

import numpy as np

from mlp.data.order import BlockOrder, order
from mlp.data.row_files import Part
from mlp.data.samples import Samples
from mlp.errors import InputError
from mlp.layers.dense import Dense
from mlp.layers.tape import Arena, Tape
from mlp.model import Model, draw
from mlp.network.backpropagation import Pass
from mlp.network.objective import Evaluation
from mlp.seeds import generator

ROWS = 2048  # of the data, at most: a deviation is then right to 2 %
POINTS = 5  # of eq. (2)


def from_data(model: Model, samples: Samples, seed: int) -> Model:
    """A copy of the model with weights by eq. (1) and (2); InputError if no layer starts so.

    The rows are the first ones of the first epoch's order.
    """
    network = model.network
    layers = {l: network.layer(l) for l in network.numbers()}
    own = [l for l, layer in layers.items() if isinstance(layer, Dense) and _is_auto(layer)]
    if not own:
        raise InputError(
            "initialize = 'data' would have no effect: every dense layer names its initializer; "
            "leave it out, or 'auto', in the layers that are to start from the data"
        )
    host = model.to("numpy", dtype="float64")
    evaluation = _on_rows(host, _some(model, samples, seed))
    draw(evaluation, seed)
    rng = generator(seed, "data weights")
    for l in own:
        evaluation.run()
        place = evaluation.places[l]
        z: np.ndarray = 0.0  # type: ignore[assignment]
        for k, x in place.x.items():
            place.p["W", k][...] = rng.normal(size=place.p["W", k].shape)
            z = z + x @ place.p["W", k]
        deviation = z.std(axis=0)
        flat = deviation <= 1e-12 * abs(z).max(axis=0)  # the same in all rows, but for rounding
        fan_in = sum(network.widths_into(l).values())
        divisor = np.where(flat, math.sqrt(fan_in), deviation)
        for k in place.x:
            place.p["W", k][...] /= divisor
        if "b" in place.p:
            rows = rng.integers(len(z), size=(POINTS, z.shape[1]))
            shares = rng.dirichlet(np.ones(POINTS), z.shape[1]).T
            place.p["b"][...] = (
                -(shares * np.take_along_axis(z, rows, axis=0)).sum(axis=0) / divisor
            )
    made = model.to()
    made.w = host.w
    return made


def _is_auto(layer: Dense) -> bool:
    return isinstance(layer.initializer, str) and layer.initializer == "auto"


def _some(model: Model, samples: Samples, seed: int) -> Samples:
    """Rows of X on the host."""
    X, backend, on_disk = samples.X, model.backend, isinstance(samples.X, Part)
    rows = (BlockOrder if on_disk else order)(seed, 0, samples.n)[: min(ROWS, samples.n)]
    if on_disk:
        return Samples(np.asarray(X[rows]), columns=samples.columns)
    found = samples.rows(rows, backend).X
    return Samples(backend.to_numpy(found) if backend.owns(found) else found)


def _on_rows(host: Model, samples: Samples) -> Evaluation:
    """Forward through all layers, as in training, on these rows."""
    backend, n = host.backend, samples.n
    host.network.check_rows(n, "the data")
    tape, arena = Tape(backend, host.precision), Arena(backend, host.precision, n)
    forward = Pass(host.network, tape, arena, n, host.w, host.statistics)
    forward.forward(training=True)
    y, sums = forward.last.y, backend.empty((1, 2), host.dtype)
    evaluation = Evaluation(
        n, forward.inputs, None, None, arena.noise, y, sums, tape.run, forward.places
    )
    host.feed(samples).bind(evaluation)(slice(0, n))
    return evaluation
