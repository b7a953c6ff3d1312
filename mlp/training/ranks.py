"""What the ranks of a run have to have in common, and how they keep it."""

import platform
import warnings
import zlib
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np

from backends import Array, Backend
from mlp.data.row_files import Part
from mlp.data.samples import Samples, checksum
from mlp.model import Model
from mlp.names import spelled
from mlp.parallel.group import Group
from mlp.training.settings import Settings


def about_ranks(
    model: Model, settings: Settings, samples: Samples, held_out: Samples | None
) -> dict[str, Any]:
    """What must be alike on all ranks, by the name that a message calls it: versions, settings, the
    net and its weights, rows."""
    backend, network = model.backend, model.network
    about: dict[str, Any] = {
        "the version of array-mlp": _version(),
        "the version of Python": ".".join(platform.python_version_tuple()[:2]),
        "the version of NumPy": np.__version__,
        "the backend": backend.version(),
        "the precision": model.precision,
        "the network": repr(network),
        "the loss": (repr(model.loss), model.objective.reduction),
    }
    for name, value in vars(settings).items():
        about[f"the setting {name}"] = spelled(value)
    about["the checksum of the initial weights"] = _bits(
        backend.to_numpy(model.w), backend.to_numpy(model.statistics)
    )
    for name, part in (("training", samples), ("validation", held_out)):
        if part is not None:
            about[f"the number of {name} rows"] = part.n
            about[f"the checksum of the {name} rows"] = _of_rows(part, backend)
    return about


def _version() -> str:
    with suppress(PackageNotFoundError):  # run from its sources
        return version("array-mlp")
    return ""


def _bits(*arrays: np.ndarray) -> int:
    """A checksum of the bits of host arrays, fast enough for the weights after each epoch."""
    found = 0
    for x in arrays:
        found = zlib.crc32(np.ascontiguousarray(x).reshape(-1).view(np.uint8).data, found)
    return found


LOOKED_AT = 4096  # rows of those on disk


def _of_rows(samples: Samples, backend: Backend) -> str:
    """Of all rows that are in memory, of the first of those on disk."""

    def on_the_host(x: Any) -> Any:
        if isinstance(x, Part):
            return x[slice(0, LOOKED_AT)]
        return backend.to_numpy(x) if backend.owns(x) else x

    return checksum(*map(on_the_host, (samples.X, samples.t, samples.s)))


def aligned(group: Group, backend: Backend, arrays: list[Array], warned: bool) -> bool:
    """Give every rank what rank 0 has in these arrays, where theirs differ: by rounding, of other
    kinds of CPU, or by what a callback did. Whether they did; then there is a warning, once."""
    mine = [backend.to_numpy(x) for x in arrays]
    sums = group.gather((group.host, _bits(*mine)))
    other = [rank for rank, (_, found) in enumerate(sums) if found != sums[0][1]]
    if not other:
        return warned
    for x, values in zip(arrays, group.broadcast(mine if group.rank == 0 else None), strict=True):
        backend.copy(backend.asarray(values), x)
    if not warned and group.rank == 0:
        warnings.warn(
            f"the weights of rank {other[0]}, on {sums[other[0]][0]}, are no longer those of rank "
            f"0, on {sums[0][0]}: other kinds of CPU round in other ways, or a callback changed "
            "them within an epoch; all ranks go on with rank 0's",
            stacklevel=4,
        )
    return True
