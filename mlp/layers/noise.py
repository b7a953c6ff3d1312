"""What layers draw in training: numbers for each step and layer, and how strong their noise is.

The uniform numbers of layer l in a step are a function of (seed, step, l) and, for each of them, of
the number of its row in the batch, its member and its column (`backends.philox`, eq. 2): the same
on every backend, in a resumed run, and where several processes share a batch.

How strong a layer's noise is are numbers on the device, `Layer.strengths`; so what is bound once
follows a schedule.
"""

from collections.abc import Mapping
from typing import Any

from backends import Array, Backend
from mlp.seeds import key


class Noise:
    """What the passes of an arena draw: which numbers, and how strong.

    layers: those that draw, by number. ``clock`` and ``values`` (1, k), the strengths of all of
    them, are on the device. It begins with every layer at its full strength.
    """

    def __init__(self, backend: Backend, layers: Mapping[int, Any], dtype: str):
        self.backend, self.layers = backend, layers
        self.clock = backend.clock()
        self.places: dict[int, slice] = {}
        stop = 0
        for l, layer in layers.items():
            start, stop = stop, stop + len(layer.strengths(1.0))
            self.places[l] = slice(start, stop)
        self.values = backend.empty((1, stop), dtype)
        entries = [self.values[0, i : i + 1] for i in range(self.values.shape[1])]
        into = tuple(range(len(entries)))
        self.write = backend.fuse(given(len(entries)), into).bind(*entries, scalars=len(entries))
        self.factor: float | None = None
        self.strengthen(1.0)

    def of(self, number: int) -> list[Array]:
        """The strengths of a layer, each (1,)."""
        place = self.places[number]
        return [self.values[0, i : i + 1] for i in range(place.start, place.stop)]

    def strengthen(self, factor: float) -> None:
        """Each layer's full strength multiplied by a factor from here on; 0: no noise."""
        if factor != self.factor:
            self.factor = factor
            self.write(*(x for layer in self.layers.values() for x in layer.strengths(factor)))

    def begin(self, seed: int, step: int, first_row: int = 0, factor: float = 1.0) -> None:
        """The numbers of a step. first_row: the place in the batch of the first row here. factor:
        on the strength of all layers."""
        self.strengthen(factor)
        self.clock.set(key(seed, "dropout"), step, first_row)


def given(count: int) -> Any:
    """The formula that leaves its last ``count`` arguments, numbers, in its first ones, arrays."""

    def last(xp: Any, *arguments: Any) -> Any:
        return arguments[count:]

    return last
