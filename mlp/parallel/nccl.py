"""Ranks whose CUDA devices add up among themselves, by NVIDIA's NCCL through `cupy.cuda.nccl`.

    sum         ncclAllReduce in place, on the stream of what computes: nothing comes to the host

MPI starts it, by giving NCCL's identifier from rank 0 to all, and does everything else. NCCL adds
in an order of its own: where the bits are to be fixed (`Group.sum`, fixed) it is not asked.

This has not run on devices yet: its calls are held against CuPy's own signatures by a stand-in.
"""

from collections.abc import Callable
from functools import partial
from importlib import import_module
from typing import Any

from backends import Array, Backend
from mlp.parallel.group import Group


def nccl_of(group: Any, backend: Backend) -> "NcclGroup | None":
    """The ranks of an MPI group for the arrays of a CuPy backend; None where there is no NCCL for
    all of them, or two of them share a device, which NCCL refuses."""
    native: Any = backend
    nccl: Any = None
    device = ""
    if hasattr(backend, "cupy"):
        nccl = import_module("cupy.cuda.nccl")
        device = native.cupy.cuda.runtime.deviceGetPCIBusId(native.index)
    found = group.gather((group.host, device, nccl is not None and bool(nccl.available)))
    devices = {(host, device) for host, device, _ in found}
    if len(devices) < group.size or not all(available for *_, available in found):
        return None
    return NcclGroup(group, backend, nccl)


class NcclGroup(Group):
    """The ranks of an MPI group, each with a device of its own."""

    def __init__(self, group: Any, backend: Backend, nccl: Any):
        self.mpi, self.nccl, self.backend = group, nccl, backend
        self.rank, self.size = group.rank, group.size
        self.local, self.host = group.local, group.host
        self.dtypes = {"float32": nccl.NCCL_FLOAT32, "float64": nccl.NCCL_FLOAT64}
        identifier = self.broadcast(nccl.get_unique_id() if self.rank == 0 else None)
        with backend.scope():
            self.comm = nccl.NcclCommunicator(self.size, identifier, self.rank)

    def broadcast(self, value: Any) -> Any:
        return self.mpi.broadcast(value)

    def gather(self, value: Any) -> list[Any]:
        return self.mpi.gather(value)

    def agree(self, reason: str) -> str:
        return self.mpi.agree(reason)

    def wait(self) -> None:
        self.mpi.wait()

    def abort(self, code: int) -> None:
        self.mpi.abort(code)

    def sum(self, backend: Backend, x: Array, fixed: bool = False) -> Callable[[], None]:
        if fixed or backend is not self.backend:
            return self.mpi.sum(backend, x, fixed)
        native: Any = x
        count, dtype, op = int(native.size), self.dtypes[str(native.dtype)], self.nccl.NCCL_SUM
        place, cupy = int(native.data.ptr), backend.cupy  # type: ignore[attr-defined]
        reduce = partial(self.comm.allReduce, place, place, count, dtype, op)

        def run() -> None:
            assert native.data.ptr == place  # and x lasts as long as the call
            reduce(cupy.cuda.get_current_stream().ptr)

        return run
