"""The paper model of a step on a GPU: what it counts is what CuPy is asked, and the page is new."""

import itertools
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from backends import BackendError, get_backend
from backends.cuda_kernel import Launch
from benchmarks import gpu_model
from benchmarks.gpu_model import CARDS, WORKLOADS, floor_bytes, predicted, step
from mlp.layers.dense import Dense
from mlp.model import Model
from mlp.network.graph import Network
from mlp.training.settings import Settings
from mlp.training.setup import Setup

# Of a recorded step of each workload, in float32 and in mixed: no change may add to them unseen.
NODES = {
    "small": (12, 15),
    "deep": (88, 92),
    "tabular": (23, 27),
    "medium": (17, 21),
    "large": (23, 27),
    "wide": (12, 16),
}


def test_the_page_is_what_the_script_writes():
    page = Path(gpu_model.__file__).with_name("gpu_model.md").read_text(encoding="utf-8")
    assert page == gpu_model.page(), "python -m benchmarks.gpu_model > benchmarks/gpu_model.md"


@pytest.mark.parametrize("name", WORKLOADS)
def test_the_nodes_of_a_step(name):
    found = tuple(len(step(*WORKLOADS[name], precision)) for precision in ("float32", "mixed"))
    assert found == NODES[name]


@pytest.mark.parametrize("precision", ["float32", "mixed", "mixed_bfloat16"])
@pytest.mark.parametrize("name", WORKLOADS)
def test_no_step_is_below_its_floors(name, precision):
    """The products of the step are those of its net; bytes and times are above what none can do
    without."""
    units, batch = WORKLOADS[name]
    nodes = step(units, batch, precision)
    products = (
        2
        * batch
        * sum(m * k * (3 if l else 2) for l, (m, k) in enumerate(itertools.pairwise(units)))
    )
    assert sum(node.operations for node in nodes) == products
    assert sum(node.size for node in nodes) >= floor_bytes(units, batch, precision)
    for card in CARDS:
        alone, least, most = predicted(nodes, card, precision)
        assert alone < least < most


@pytest.mark.parametrize("name", WORKLOADS)
def test_all_is_bound_call_by_call(name):
    """What is not costs the host several times as much."""
    for precision in ("float32", "mixed"):
        assert all(node.bound for node in step(*WORKLOADS[name], precision, recorded=False))


def test_the_update_of_mixed_passes_over_34_bytes_a_parameter():
    """w, m and v both ways, g, the float16 copy of w that products read; and g once more before, in
    the sum that says whether it is finite."""
    units, batch = WORKLOADS["wide"]
    parameters = sum(m * k + k for m, k in itertools.pairwise(units))
    nodes = step(units, batch, "mixed")
    start = max(i for i, x in enumerate(nodes) if x.name == "product")
    size = sum(x.size for x in nodes[start + 1 :] if x.size > parameters)
    assert 34 * parameters <= size <= 34.01 * parameters
    assert "copy" not in {x.name for x in nodes}


@pytest.mark.parametrize("name", ["small", "medium", "tabular"])
def test_dropout_is_in_the_kernels_that_are_there(name):
    """Its masks are drawn where they are used. A narrow activation is stored before it is dropped,
    by one kernel more."""
    units, batch = WORKLOADS[name]
    for precision, more in (("float32", 0), ("mixed", len(units) - 2)):
        plain, dropped = (step(units, batch, precision, dropout=share) for share in (0.0, 0.5))
        assert len(dropped) == len(plain) + more


def test_what_is_passed_over_twice_is_counted_once():
    (node,) = [x for x in step([64, 32, 10], 32) if x.name == "update"]
    parameters = 64 * 32 + 32 + 32 * 10 + 10
    assert 28 * parameters <= node.size <= 28 * parameters + 100  # w, m and v both ways, and g


@pytest.mark.parametrize("recorded", [True, False])
@pytest.mark.parametrize(
    ("units", "batch", "precision"),
    [([6, 5, 3], 4, "float32"), ([6, 5, 4, 1], 8, "float32"), ([6, 5, 3], 4, "mixed")],
)
def test_what_is_counted_is_what_cupy_is_asked(monkeypatch, units, batch, precision, recorded):
    """Kernels, gathers, products, copies of one step, call by call."""
    try:
        backend = get_backend("cupy")
    except BackendError as error:
        pytest.skip(str(error))
    asked = Counter()

    def counted(owner, name, kind):
        call = getattr(owner, name)

        def also(*arguments, **options):
            asked[kind] += 1
            return call(*arguments, **options)

        monkeypatch.setattr(owner, name, also)

    gemm = backend.blas.gemm
    monkeypatch.setattr(backend.blas, "gemm", lambda *x: asked.update(["product"]) or gemm(*x))
    for name in ("copy", "upload"):
        counted(type(backend), name, name)
    copying = backend.copying

    def noted(source):
        copy = copying(source)
        return lambda out: asked.update(["copy"]) or copy(out)

    monkeypatch.setattr(backend, "copying", noted)
    counted(Launch, "__call__", "kernel")
    last, loss = Dense(units[-1], "softmax"), "cross_entropy"
    n = gpu_model.BATCHES * batch
    t = np.arange(n) % units[-1]
    if units[-1] == 1:
        last, loss, t = Dense(1), "mean_squared_error", np.zeros((n, 1))
    layers = [*(Dense(m, "relu") for m in units[1:-1]), last]
    with backend.scope():
        net = Network(units[0], layers)
        model = Model(net, loss, backend=backend, precision=precision)
        samples = model.samples(np.zeros((n, units[0]), "float32"), t)
        held = Setup(model, Settings(batch_size=batch, record_steps=recorded), samples)
        held.begin(None)
        if recorded:
            held.recorded.begin(np.arange(n), 0, 0, [(1e-3, 1.0)] * gpu_model.BATCHES)
        order = None if recorded else held.feed.rows(np.arange(n))
        asked.clear()
        if recorded:
            held.recorded.tapes[batch].run()
        else:
            held.step(batch, order[:batch], 1e-3, 1, 0, held.places[0])
        backend.synchronize()
    own = {"product", "copy", "upload"}
    nodes = step(units, batch, precision, recorded)
    expected = Counter(x.name if x.name in own else "kernel" for x in nodes)
    assert asked == expected
