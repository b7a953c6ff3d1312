"""One training step, built once: gather a batch, gradient, update (derivation 003, Algorithm 1).

Names, shapes and kernels are settled here; a running step is calls on fixed buffers and reads
nothing back from the device. A shorter last batch runs on views of the same buffers.
"""

from collections.abc import Iterable, Sequence

from backends import Array
from mlp.feed import Feed, Rows
from mlp.model import Model, fill_masks
from mlp.network import Arena
from mlp.optimizers import Optimizer


class Step:
    """The steps of a model on a data set, for batches of the given sizes.

    The model's w is updated in place, and so are the optimizer's state vectors, one an entry of
    ``optimizer.state``. ``g`` is the gradient of the last step, ``sums`` (of the evaluation of n
    rows) the loss and the penalty.
    """

    def __init__(
        self,
        model: Model,
        feed: Feed,
        sizes: Iterable[int],
        optimizer: Optimizer,
        vectors: Sequence[Array],
    ):
        self.model, self.optimizer, self.backend = model, optimizer, model.backend
        backend, network, weighted = model.backend, model.network, feed.weighted
        sizes = sorted(set(sizes), reverse=True)
        self.g = backend.full((network.parameters,), 0.0, model.dtype)
        arena = Arena(backend, model.xp_dtype, sizes[0])
        self.evaluations, self.fill = {}, {}
        for n in sizes:
            self.evaluations[n] = model.objective.gradient(
                backend, model.w, self.g, arena, n, weighted
            )
            self.fill[n] = feed.bind(self.evaluations[n])

        kernel = backend.fuse(optimizer.update, into=("w", *optimizer.state))
        parts = [(slice(0, network.parameters), False)]
        if getattr(optimizer, "spares_biases", False):
            parts = [
                (slice(0, network.weights), False),
                (slice(network.weights, network.parameters), True),
            ]
        self.updates = [
            (kernel.bind(model.w[part], self.g[part], *(v[part] for v in vectors)), bias)
            for part, bias in parts
            if part.stop > part.start
        ]

    def __call__(
        self, n: int, rows: Rows | None, eta: float, number: int, seed: int, losses: Array
    ) -> None:
        """Step ``number`` (from 1) on n rows, or on what the buffers hold if rows is None.

        eta: the learning rate. seed: of the dropout masks. losses: (1, 2), gets loss and penalty.
        """
        evaluation = self.evaluations[n]
        if rows is not None:
            self.fill[n](rows)
        if evaluation.masks:
            fill_masks(self.backend, self.model.network, evaluation, seed, number)
        evaluation.run()  # training eq. (2)
        self.backend.copy(evaluation.sums, losses)
        for update, bias in self.updates:
            update(*self.optimizer.constants(eta, number, bias))  # training eq. (3)
