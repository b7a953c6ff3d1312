"""A step on a GPU on paper: launches, bytes and operations, counted, and what they take at least.

    python -m benchmarks.gpu_model > benchmarks/gpu_model.md

No GPU is needed, and nothing here was measured on one. A step is written down by the code that
trains (`mlp.training.setup`), on a backend that notes each call it would make on the device.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from backends import PRECISIONS
from backends.base import Kernel, Native, TracedKernel, check_known, spreads
from backends.counting_backend import Count, shaped
from backends.cuda_rows import at_once, parts_of
from backends.formula import OWN, Formula, Program
from backends.philox import Clock, Uniform
from benchmarks.nets import WORKLOADS
from mlp.data.samples import Samples
from mlp.layers.dense import Dense
from mlp.model import Model
from mlp.network.graph import Network
from mlp.training.settings import Settings
from mlp.training.setup import Setup

BATCHES = 4  # of an epoch


@dataclass(frozen=True)
class Node:
    """A call of the device's work: a kernel, a product, a copy. size: bytes read and written, each
    array once. operations: of a product, two a multiplication. bound: whether everything about it
    is settled before it is made."""

    name: str
    size: int
    operations: int = 0
    bound: bool = True


class Ledger(Count):
    """A device that computes nothing and notes in ``nodes`` what it is asked. It takes any
    precision, and draws in its kernels, as CUDA devices do."""

    name = "ledger"

    def __init__(self) -> None:
        super().__init__()
        self.nodes: list[Node] = []

    def note(self, name: str, *arrays: Native, **about: Any) -> None:
        self.nodes.append(Node(name, sum(x.size * x.itemsize for x in arrays), **about))

    def later(self, name: str, *arrays: Native, **about: Any) -> Callable[[], None]:
        """A call that is bound, and noted when it is made."""
        return lambda: self.note(name, *arrays, **about)

    def product(
        self, a: Native, b: Native, out: Native, precision: str = "float32"
    ) -> Callable[[], None]:
        return self.later("product", a, b, out, operations=2 * out.size * a.shape[-1])

    stack = product

    def total(self, x: Native, out: Native) -> Callable[[], None]:
        return self.totals([(x, out)])

    def totals(self, pairs: Sequence[tuple[Native, Native]]) -> Callable[[], None]:
        whole, of_parts = [], []
        for x, out in pairs:
            parts = parts_of(*(x.shape if x.ndim == 2 else (x.shape[0], 1)))
            sums = out if parts == 1 else shaped((parts, out.size), out.dtype)
            whole.append((x, sums))
            if parts > 1:
                of_parts.append((sums, out))
        calls = [
            self.later("totals", *itertools.chain(*some))
            for sums in (whole, of_parts)
            for some in at_once(sums)
        ]

        def run() -> None:
            for call in calls:
                call()

        return run

    def scatter(self, x: Native, index: Native, out: Native) -> Callable[[], None]:
        return self.later("scatter", x, index, out)

    def fuse(self, formula: Formula, into: Sequence[int] = (0,)) -> Kernel:
        return _Noted(self, formula, into)

    def copy(self, source: Native, out: Native) -> None:
        self.note("copy", source, out, bound=False)

    def copying(self, source: Native) -> Callable[[Native], None]:
        return lambda out: self.note("copy", source, out)

    def upload(self, x: np.ndarray, out: Native) -> None:
        self.note("upload", out, bound=False)

    def take(self, x: Native, index: Native, out: Native) -> None:
        read = shaped(out.shape, x.dtype)
        self.note("take", read, index, out, bound=False)

    def gathering(self, pairs: Sequence[tuple[Native, Native]]) -> Callable[[Native], None]:
        arrays: list[Native] = []
        for x, out in pairs:
            read = out.shape[:1] if spreads(x, out) else out.shape
            arrays += shaped(read, x.dtype), out
        return lambda index: self.note("gather", index, *arrays)

    def one_hot(self, labels: Native, out: Native, rows: Native | None = None) -> None:
        read = shaped(out.shape[:1], labels.dtype)
        self.note("one_hot", read, out, *(() if rows is None else (rows,)), bound=False)

    def turn(
        self,
        found: Native,
        kept: Native,
        tables: Sequence[Native],
        places: Sequence[Native],
        counter: Native,
        count: int,
    ) -> Callable[[], None]:
        return self.later("turn", *[found, *places, counter] * 2)

    def clock(self) -> Clock:
        ledger = self

        class Noted(Clock):
            def set(self, key: Sequence[int], step: int, first_row: int = 0) -> None:
                super().set(key, step, first_row)
                ledger.nodes.append(Node("clock", 32))

        return Noted()

    def uniform(
        self,
        clock: Clock,
        stream: int,
        shape: tuple[int, int],
        samples: int,
        room: Callable[[], Native],
    ) -> tuple[Any, None]:
        return Uniform(None, stream, samples, shape), None


class _Noted(TracedKernel):
    own = OWN

    def __init__(self, ledger: Ledger, formula: Formula, into: Sequence[int]):
        super().__init__(ledger.xp, formula, into)
        self.ledger = ledger

    def write(
        self, program: Program, arrays: Sequence[Native], shape: tuple[int, ...]
    ) -> Callable[..., None]:
        read = [n for n in program.needed(program.results) if n < len(arrays)]
        touched = [arrays[n] for n in (*read, *program.into)]
        kept = [x for x in touched if not isinstance(x, Uniform)]  # those are nowhere stored
        note = self.ledger.later(program.name, *kept)
        return lambda *scalars: note()


def step(
    units: Sequence[int],
    batch: int,
    precision: str = "float32",
    recorded: bool = True,
    optimizer: str = "adam",
    dropout: float = 0.0,
) -> list[Node]:
    """The nodes of one step of a workload; recorded: of the graph that is replayed, else of the
    calls that are made one by one.

    >>> nodes = step([64, 32, 10], 32)
    >>> sum(node.name == "product" for node in nodes)
    5
    """
    check_known(precision)
    ledger = Ledger()
    last, loss = Dense(units[-1], "softmax"), "cross_entropy"
    t: Any = shaped((BATCHES * batch,), "int64")
    if units[-1] == 1:
        last, loss = Dense(1), "mean_squared_error"
        t = shaped((BATCHES * batch, 1), "float32")
    layers = [*(Dense(m, "relu", dropout=dropout) for m in units[1:-1]), last]
    model = Model(Network(units[0], layers), loss, backend=ledger, precision=precision)
    X = shaped((BATCHES * batch, units[0]), "float32")
    settings = Settings(batch_size=batch, record_steps=recorded, optimizer=optimizer)
    held: Any = Setup(model, settings, Samples(X, t))
    ledger.nodes.clear()
    if recorded:
        held.recorded.tapes[batch].run()
    else:
        held.step(batch, held.feed.make_order()[:batch], 1e-3, 1, 0, held.places[0])
    return ledger.nodes


@dataclass(frozen=True)
class Card:
    """As remembered of NVIDIA's data sheets, dense: bytes a second of its memory, operations a
    second of products in float32, and of float16 summed in float32."""

    name: str
    bandwidth: float
    float32: float
    half: float


CARDS = (
    Card("T4", 320e9, 8.1e12, 65e12),
    Card("L4", 300e9, 30.3e12, 121e12),
    Card("RTX 4090", 1008e9, 82.6e12, 165e12),
    Card("A100 40 GB", 1555e9, 19.5e12, 312e12),
    Card("H100 SXM", 3350e9, 67e12, 989e12),
)
NODE = (1.0e-6, 2.3e-6)  # seconds that a node of a recorded graph takes at least
BOUND, UNBOUND = (1.0e-6, 2.0e-6), (6.0e-6, 10.0e-6)  # that the host takes to ask for one


def seconds(node: Node, card: Card, precision: str = "float32") -> float:
    """By the roofline: the larger of its operations and its bytes."""
    rate = card.half if PRECISIONS[precision].narrow else card.float32
    return max(node.operations / rate, node.size / card.bandwidth)


def predicted(
    nodes: Sequence[Node], card: Card, precision: str = "float32"
) -> tuple[float, float, float]:
    """Seconds of the products alone, without any cost of a node, and of the whole recorded step:
    with the least and the largest cost of a node."""
    alone = sum(seconds(node, card, precision) for node in nodes if node.operations)
    least, most = (sum(max(seconds(x, card, precision), c) for x in nodes) for c in NODE)
    return alone, least, most


def asking(nodes: Sequence[Node]) -> tuple[float, float]:
    """Seconds that the host takes to ask for a step call by call, at least and at most."""
    cost = [BOUND if node.bound else UNBOUND for node in nodes]
    return sum(c[0] for c in cost), sum(c[1] for c in cost)


def floor_bytes(units: Sequence[int], batch: int, precision: str = "float32") -> int:
    """Bytes that no step of Adam can do without: each factor and result of each product once, what
    the optimizer reads and writes of each parameter (w, m and v both ways, the gradient once; it is
    written by the products), and a batch where it is gathered."""
    about = PRECISIONS[precision]
    narrow, wide = (2 if about.narrow else 4), 4
    parameters = sum(m * k + k for m, k in itertools.pairwise(units))
    size = 7 * wide * parameters + (wide + narrow) * batch * units[0]
    for l, (m, k) in enumerate(itertools.pairwise(units)):
        forward = narrow * (batch * m + m * k + batch * k)
        weights = narrow * (batch * m + batch * k) + wide * m * k
        size += forward + weights + (forward if l else 0)
    return size


# ------------------------------------------------------------------------------ the page

ASSUMED = """\
# A step on a GPU, on paper

Counted by `python -m benchmarks.gpu_model`, which writes this page; **nothing here was measured on
a GPU**. It is to be held against the first measurement: where they differ, one of them is wrong.

What is counted: the calls of one step of Adam, as training writes them down, on a device that only
notes them. A node is a kernel, a product or a copy; its bytes are those of its arrays, each read or
written once.

What is assumed:

- a node of a recorded graph takes {0:.1f} to {1:.1f} us or, if that is longer, what its bytes or
  its operations take at the full rates of the data sheet, which no real kernel reaches;
- nodes follow one another: nothing overlaps;
- everything comes from the card's memory and goes there. What is in the L2 cache (4 MB on a T4, 40
  on an A100, 50 on an H100, 72 on an RTX 4090) comes faster, so that small and medium nets may be
  below what their bytes take here;
- a product is one kernel: cuBLAS may take two, where it cuts the inner side;
- call by call, the host takes {2[0]:.0f} to {2[1]:.0f} us to ask for a node that is bound, and
  {3[0]:.0f} to {3[1]:.0f} for one that is not.

Cards as remembered of NVIDIA's data sheets, which were not at hand (check them before use), without
sparsity: memory in GB/s, products in float32 and of float16
summed in float32, in TFLOP/s.

| card | memory | float32 | float16 |
|---|---|---|---|
"""


def page() -> str:
    """The whole of it, as Markdown."""
    us = [[1e6 * c for c in pair] for pair in (NODE, BOUND, UNBOUND)]
    lines = [ASSUMED.format(*us[0], *us[1:])]
    lines += [
        f"| {c.name} | {c.bandwidth / 1e9:.0f} | {c.float32 / 1e12:.1f} | {c.half / 1e12:.0f} |\n"
        for c in CARDS
    ]
    for precision in ("float32", "mixed"):
        lines.append(f"\n## {precision}\n\n")
        lines.append(
            "| workload | nodes recorded (products) | MB | MB no step can do without | GFLOP "
            "| nodes call by call (bound) | the host asks, us |\n|---|---|---|---|---|---|---|\n"
        )
        for name, (units, batch) in WORKLOADS.items():
            nodes, eager = (step(units, batch, precision, recorded) for recorded in (True, False))
            products = sum(node.operations > 0 for node in nodes)
            asked = [f"{1e6 * x:.0f}" for x in asking(eager)]
            lines.append(
                f"| {name}: {'-'.join(map(str, units)) if len(units) < 8 else _short(units)} at "
                f"{batch} | {len(nodes)} ({products}) | {_mega(sum(n.size for n in nodes))} | "
                f"{_mega(floor_bytes(units, batch, precision))} | "
                f"{sum(n.operations for n in nodes) / 1e9:.3g} | "
                f"{len(eager)} ({sum(n.bound for n in eager)}) | {'-'.join(asked)} |\n"
            )
        lines.append(
            "\nA recorded step in us, at least, over the two costs of a node; in brackets the "
            "products alone, were nodes free.\n\n"
        )
        lines.append(f"| workload | {' | '.join(card.name for card in CARDS)} |\n")
        lines.append(f"|---|{'---|' * len(CARDS)}\n")
        for name, (units, batch) in WORKLOADS.items():
            nodes = step(units, batch, precision)
            cells = []
            for card in CARDS:
                alone, least, most = (1e6 * x for x in predicted(nodes, card, precision))
                cells.append(f"{_three(least)}-{_three(most)} ({_three(alone)})")
            lines.append(f"| {name} | {' | '.join(cells)} |\n")
    lines.append("\n## Node by node\n\nsmall in float32, as it is replayed.\n\n")
    lines.append("| node | bytes |\n|---|---|\n")
    lines += [f"| {node.name} | {node.size:,} |\n" for node in step(*WORKLOADS["small"])]
    return "".join(lines)


def _short(units: Sequence[int]) -> str:
    return f"{units[0]}-{units[1]}x{len(units) - 2}-{units[-1]}"


def _mega(size: int) -> str:
    return _three(size / 1e6)


def _three(value: float) -> str:
    """Three digits."""
    digits = max(0, 2 - math.floor(math.log10(value)))
    return f"{value:.{digits}f}"


if __name__ == "__main__":
    print(page(), end="")
