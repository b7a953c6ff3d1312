"""NCCL's path on emulated devices: CuPy's own binding of NCCL on a stand-in for NVIDIA's library.

It shows that the calls are those that the binding takes and what they add up to; NCCL itself, its
streams and its speed need GPUs.
"""

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.ranks import mpiexec
from tests.test_mpi import HAVE, answer, cupy_devices

SOURCE = Path(__file__).with_name("nccl_stand_in.c")


def test_calls_of_nccl_are_those_of_cupys_binding_cupy(tmp_path, monkeypatch):
    if not HAVE or cupy_devices() < 2 or not shutil.which("gcc"):
        pytest.skip("NCCL's calls need MPI, CuPy on two emulated CUDA devices, and gcc")
    if "emulated" not in cupy_name():
        pytest.skip("the stand-in for NCCL reads the memory of emulated devices alone")
    library = tmp_path / "libnccl.so.2"
    command = ["gcc", "-shared", "-fPIC", "-O1", "-Wl,-soname,libnccl.so.2", "-o", str(library)]
    subprocess.run([*command, str(SOURCE), "-lrt"], check=True)
    monkeypatch.setenv("LD_LIBRARY_PATH", str(tmp_path))
    try:
        done = mpiexec((2, ["-m", "tests.ranks", "laws", "cupy"]), timeout=300)
    finally:
        for left in Path("/dev/shm").glob("nccl-stand-in-*"):
            left.unlink()
    found = answer(done)
    assert {name: x for name, x in found.items() if not x <= 1e-10} == {}
    assert {name: x for name, x in found.items() if "shards" in name and x} == {}
    assert done.stderr.count("NCCL stand-in: rank 0 adds") == len(found) - 1  # but with shards


def cupy_name():
    from backends import get_backend

    return get_backend("cupy").device_name()
