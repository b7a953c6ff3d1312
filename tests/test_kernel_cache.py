"""Compiled kernels on disk are code: read only from where no one else can write, and only whole."""

import os
import pickle
import random
import subprocess
import sys
from pathlib import Path

import pytest

from backends.kernel_cache import is_own

pytest.importorskip("numba")
if not hasattr(os, "getuid"):
    pytest.skip("folders have no modes here", allow_module_level=True)

RUN = """
import numpy as np, sys
import mlp
from backends import kernel_cache
model = mlp.Model(mlp.Network(2, [mlp.Dense(3, "tanh"), mlp.Dense(1)]), "mean_squared_error")
result = mlp.train(model, np.eye(2), np.ones(2), epochs=2)
print(kernel_cache.folder(), float(np.asarray(result.model.w).sum()).hex())
"""


def run(cache, **environment):
    """(folder of the kernels, sum of the weights) of a process that trains."""
    done = subprocess.run(
        [sys.executable, "-c", RUN],
        env={**os.environ, "XDG_CACHE_HOME": str(cache), **environment},
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    assert done.stderr == ""
    folder, total = done.stdout.split()
    return Path(folder), total


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    """A cache that a run has filled, and that run's weights."""
    cache = tmp_path_factory.mktemp("cache").resolve()
    folder, total = run(cache)
    assert folder == cache / "array-mlp" / "kernels"
    assert any(folder.iterdir())
    return folder, total


class Planted:
    """A pickle that leaves a mark when it is read."""

    def __init__(self, mark):
        self.mark = str(mark)

    def __reduce__(self):
        return os.mkdir, (self.mark,)


def with_mode(mode):
    return lambda folder: folder.chmod(mode)


def given_away(folder):
    if os.getuid() != 0:
        pytest.skip("only root can give a folder away")
    os.chown(folder, 12345, 12345)


SHARED = {
    "the cache": lambda kernels: with_mode(0o777)(kernels.parents[1]),
    "the folder in it": lambda kernels: with_mode(0o777)(kernels.parent),
    "the kernels": lambda kernels: with_mode(0o777)(kernels),
    "the kernels, sticky": lambda kernels: with_mode(0o1777)(kernels),
    "another's group": lambda kernels: (os.chown(kernels, -1, 54321), kernels.chmod(0o770)),
    "another's cache": lambda kernels: given_away(kernels.parents[1]),
    "another's kernels": lambda kernels: given_away(kernels),
}


@pytest.mark.parametrize("kind", SHARED)
def test_where_others_can_write_nothing_is_read(kind, tmp_path, filled):
    """Every file that a run would look for is there, whole, and would do harm."""
    import hashlib

    kernels, mark = tmp_path.resolve() / "cache" / "array-mlp" / "kernels", tmp_path / "mark"
    kernels.mkdir(parents=True)
    made = pickle.dumps(Planted(mark))
    for file in filled[0].iterdir():
        digest = hashlib.blake2b(made, digest_size=32).digest()
        (kernels / file.name).write_bytes(digest + made)
    if kind == "another's group" and os.getuid() != 0:
        pytest.skip("only root can give a folder to any group")
    SHARED[kind](kernels)
    folder, total = run(kernels.parents[1])
    assert total == filled[1]
    assert not mark.exists()
    assert folder != kernels
    assert not folder.exists()  # it was this process's, and went with it


def test_a_link_to_where_others_can_write_is_no_way_around(tmp_path, filled):
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o777)
    (tmp_path / "cache").symlink_to(shared)
    folder, total = run(tmp_path / "cache")
    assert total == filled[1]
    assert shared not in folder.parents


def test_a_sticky_folder_above_is_safe(tmp_path):
    tmp_path = tmp_path.resolve()
    kernels = tmp_path / "kernels"
    kernels.mkdir(mode=0o700)
    tmp_path.chmod(0o1777)
    assert is_own(kernels)
    tmp_path.chmod(0o777)
    assert not is_own(kernels)


@pytest.mark.parametrize("seed", range(3))
def test_what_is_damaged_is_compiled_anew(seed, tmp_path, filled):
    """Bits flipped, the end cut off, other content: the same weights, and a whole cache again."""
    chance = random.Random(seed)
    kernels = tmp_path.resolve() / "array-mlp" / "kernels"
    kernels.mkdir(parents=True)
    whole = {file.name: file.read_bytes() for file in filled[0].iterdir()}
    for name, content in whole.items():
        damaged = bytearray(content)
        kind = chance.choice(["flipped", "cut", "empty", "other"])
        if kind == "flipped":
            damaged[chance.randrange(len(damaged))] ^= 1 << chance.randrange(8)
        elif kind == "cut":
            del damaged[chance.randrange(len(damaged)) :]
        else:
            damaged = bytearray() if kind == "empty" else bytearray(chance.randbytes(1000))
        (kernels / name).write_bytes(damaged)
    folder, total = run(tmp_path)
    assert (folder, total) == (kernels, filled[1])
    assert {file.name for file in kernels.iterdir()} == set(whole)
    assert run(tmp_path) == (kernels, total)


def test_a_cache_is_used_again(filled):
    before = {file.name: file.stat().st_mtime_ns for file in filled[0].iterdir()}
    assert run(filled[0].parents[1]) == filled
    assert {file.name: file.stat().st_mtime_ns for file in filled[0].iterdir()} == before


NO_ROOM = """
import builtins, errno, os
real = builtins.open
def full(path, mode="r", *args, **kwargs):
    if str(path).endswith(".partial"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    return real(path, mode, *args, **kwargs)
builtins.open = full
"""


def test_a_full_disk_is_no_obstacle(tmp_path, filled, monkeypatch):
    monkeypatch.setitem(globals(), "RUN", NO_ROOM + RUN)
    folder, total = run(tmp_path)
    assert total == filled[1]
    assert list(folder.iterdir()) == []


def test_no_place_at_all_is_no_obstacle(tmp_path, filled, monkeypatch):
    """The cache is a file, and there is no folder for what is temporary."""
    (tmp_path / "file").write_text("")
    fail = "import tempfile\ndef none(*a, **k): raise FileNotFoundError('none')\n"
    fail += "tempfile.mkdtemp = none\n"
    ending = "print('none', float(np.asarray(result.model.w).sum()).hex())\n"
    monkeypatch.setitem(globals(), "RUN", fail + RUN.rsplit("print", 1)[0] + ending)
    assert run(tmp_path / "file") == (Path("none"), filled[1])


def test_a_folder_that_cannot_be_written_is_not_used(tmp_path, filled, monkeypatch):
    kernels = tmp_path / "array-mlp" / "kernels"
    kernels.mkdir(parents=True)
    kernels.chmod(0o500)
    if os.access(kernels, os.W_OK):  # root writes everywhere
        monkeypatch.setitem(globals(), "RUN", "import os\nos.access = lambda *a: False\n" + RUN)
    folder, total = run(tmp_path)
    assert folder != kernels
    assert total == filled[1]
