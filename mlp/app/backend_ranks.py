"""Whether several processes pay: what `mlp backends --check` says under `mpiexec`.

The passes and the sums are measured on the ranks that are there, all at once, as in training; from
them come the fewest rows a rank from which they gain (`mlp.parallel.cost`), and beside the step
that they predict stands the step that was measured.
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from backends import Backend
from mlp.app.backend_times import training_step
from mlp.layers.dense import Dense
from mlp.model import Model
from mlp.network.graph import Network
from mlp.parallel.cost import Costs, sum_seconds, together
from mlp.parallel.group import ALONE, Group
from mlp.training.settings import Settings
from mlp.training.setup import Setup

Nets = Sequence[tuple[Sequence[int], int]]  # units, and rows a rank
NETS: Nets = (((64, 100, 10), 128), ((784, 512, 512, 10), 256), ((784, 512, 512, 10), 1024))


def net(units: Sequence[int], rows: int, backend: Backend) -> tuple[Model, np.ndarray, np.ndarray]:
    """A classifier of relu layers, with so many rows."""
    hidden = [Dense(m, "relu") for m in units[1:-1]]
    layers = [*hidden, Dense(units[-1], "softmax")]
    model = Model(Network(units[0], layers), "cross_entropy", backend=backend)
    rng = np.random.default_rng(0)
    X = rng.standard_normal((rows, units[0]), dtype=np.float32)
    return model, X, rng.integers(0, units[-1], rows)


def step_of(
    model: Model, X: np.ndarray, t: np.ndarray, batch: int, group: Group
) -> Callable[[], None]:
    """A step of Adam on the first rows, of which each rank takes its part."""
    held = Setup(model, Settings(batch_size=batch), model.samples(X, t), group=group)
    held.begin(None)
    number = 0

    def run() -> None:
        nonlocal number
        number += 1
        rows = held.step.rows_of(slice(0, batch), held.feed.rows(np.arange(batch)))
        held.step(batch, rows, 1e-3, number, 0, held.places[0])

    return run


def costs(
    group: Group, backend: Backend, units: Sequence[int], rows: int, rounds: int
) -> tuple[Costs, float]:
    """What a pass and a sum of this net cost here, and the seconds of a step on all ranks."""
    group = group.on(backend)
    model, X, t = net(units, rows * group.size, backend)
    own = training_step(model, X[:rows], t[:rows], [np.arange(rows)])
    pass_s = together(group, backend, own, rounds)
    sum_s, one_s = (sum_seconds(group, backend, n, rounds) for n in (model.network.parameters, 1))
    step = step_of(model, X, t, rows * group.size, group)
    step_s = together(group, backend, step, rounds)
    found = Costs(model.network.parameters, rows, group.size, pass_s, sum_s, one_s)
    return found, step_s


def lines(group: Group, backend: Backend, nets: Nets = NETS, rounds: int = 20) -> Iterator[str]:
    """The table, on every rank, as they measure together."""
    if group.size == ALONE.size:
        return
    yield ""
    yield f"## {group.size} processes"
    yield ""
    yield "As many rows on each; they gain over one process from the fewest rows a rank on."
    yield ""
    head = [*("net", "rows a rank", "pass, ms", "sum, ms", "both, ms", "step measured, ms")]
    head += ["GFLOP/s a rank", "GB/s a rank", "fewest rows a rank"]
    yield f"| {' | '.join(head)} |"
    yield f"|{'---|' * len(head)}"
    for units, rows in nets:
        found, step_s = costs(group, backend, units, rows, rounds)
        times = (found.pass_s, found.sum_s, found.pass_s + found.sum_s, step_s)
        cells = ["-".join(map(str, units)), str(rows), *(f"{1e3 * x:.3f}" for x in times)]
        cells += [f"{found.flops / 1e9:.1f}", f"{found.bandwidth / 1e9:.2f}"]
        yield f"| {' | '.join([*cells, str(found.fewest_rows)])} |"
