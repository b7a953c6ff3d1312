"""One writer a folder: on systems with locks and without, and whatever ended the one before."""

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from mlp import locks
from mlp.errors import InputError
from mlp.locks import LOCK, WRITER, is_held, take

try:
    import fcntl
except ImportError:
    fcntl = None

HOLDS = """
import sys, time
from pathlib import Path
from mlp import locks
for name in sys.argv[1:]:
    sys.modules[name] = None
lock = locks.take(Path("."))
print("held", flush=True)
time.sleep(60)
"""
SYSTEMS = {"flock": [], "nothing": ["fcntl", "msvcrt"]}


class Refuses:
    """A file system that has no locks, as fcntl and msvcrt say it."""

    LOCK_EX = LOCK_SH = LOCK_NB = LOCK_UN = LK_NBLCK = 0

    def flock(self, *given):
        raise OSError(38, "Function not implemented")


class Windows:
    """msvcrt, by the locks of this system."""

    LK_NBLCK = 0

    def locking(self, file, mode, size):
        if fcntl is None:
            pytest.skip("no locks to play them with")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise PermissionError(13, "Permission denied") from error


@pytest.fixture(params=["flock", "msvcrt", "nothing", "no locks on this file system"])
def system(request, monkeypatch):
    if request.param != "flock":
        monkeypatch.setitem(sys.modules, "fcntl", None)
        monkeypatch.setitem(sys.modules, "msvcrt", None)
    if request.param == "msvcrt":
        monkeypatch.setitem(sys.modules, "msvcrt", Windows())
    if "file system" in request.param:
        monkeypatch.setitem(sys.modules, "fcntl", Refuses())
    return request.param


def test_a_second_writer_is_refused_until_the_first_lets_go(system, tmp_path):
    assert not is_held(tmp_path)
    lock = take(tmp_path)
    assert lock.is_there()
    assert is_held(tmp_path)
    with pytest.raises(InputError, match=r"is written to by another program.*or name another fol"):
        take(tmp_path)
    assert lock.is_there()
    lock.let_go()
    lock.let_go()
    assert not is_held(tmp_path)
    assert not lock.is_there()
    take(tmp_path).let_go()


def test_a_folder_that_is_replaced_is_another(system, tmp_path):
    (tmp_path / "a").mkdir()
    lock = take(tmp_path / "a")
    (tmp_path / "a").rename(tmp_path / "b")
    assert not lock.is_there()
    (tmp_path / "a").mkdir()
    other = take(tmp_path / "a")
    lock.let_go()
    assert other.is_there()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_child_of_the_writer_neither_holds_the_lock_nor_lets_go_of_it(tmp_path):
    """It has the same open file, from a fork in the middle of training."""
    lock = take(tmp_path)
    goes, end = os.pipe()
    child = os.fork()
    if not child:
        os.close(end)
        lock.let_go()
        os.read(goes, 1)  # until the parent closes its end
        os._exit(0)
    bystander = os.fork()
    if not bystander:
        os.close(end)
        os.read(goes, 1)
        os._exit(0)
    assert is_held(tmp_path)
    lock.let_go()
    assert not is_held(tmp_path)
    os.close(end)
    for process in (child, bystander):
        os.waitpid(process, 0)


@pytest.mark.parametrize("kind", SYSTEMS)
def test_the_lock_goes_with_the_process(kind, tmp_path, monkeypatch):
    command = [sys.executable, "-c", HOLDS, *SYSTEMS[kind]]
    environment = os.environ | {"PYTHONPATH": str(Path(locks.__file__).parent.parent)}
    with subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE) as other:
        assert other.stdout.readline() == b"held\n"
        for name in SYSTEMS[kind]:
            monkeypatch.setitem(sys.modules, name, None)
        assert is_held(tmp_path)
        who = f"process {other.pid} on" if SYSTEMS[kind] else "another program;"
        with pytest.raises(InputError, match=who):
            take(tmp_path)
        other.kill()
        other.wait()
        assert not is_held(tmp_path)
        take(tmp_path)


def test_a_file_of_a_writer_holds_where_there_are_locks_too(tmp_path):
    """One folder, seen from two machines."""
    (tmp_path / f"{WRITER}1").write_text(
        json.dumps({"host": "elsewhere", "pid": 1, "began": "then"})
    )
    assert is_held(tmp_path)
    with pytest.raises(InputError, match=rf"process 1 on elsewhere.*remove .*{WRITER}1"):
        take(tmp_path)


@pytest.mark.parametrize("content", [
    "", "{", "[]", "3", "null", '{"host": 1}', "[" * 9999, '{"host": {}, "pid": "x", "began": 0}',
])  # fmt: skip
def test_a_file_that_names_no_program_holds_nothing(content, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "fcntl", None)
    (tmp_path / f"{WRITER}1").write_text(content)
    take(tmp_path)
    assert not (tmp_path / f"{WRITER}1").exists()


def test_another_process_of_the_same_number_does_not_hold(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "fcntl", None)
    path = take(tmp_path).writer
    about = json.loads(path.read_text())
    path.write_text(json.dumps(about | {"began": "another boot 1"}))
    assert not is_held(tmp_path)


def test_of_many_who_come_at_once_after_a_dead_one_one_writes(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "fcntl", None)
    taken = 0
    for _ in range(3):
        (tmp_path / f"{WRITER}1").write_text("dead")
        found, barrier = [], threading.Barrier(3)

        def begin(found=found, barrier=barrier):
            barrier.wait()
            try:
                found.append(take(tmp_path))
            except InputError:
                found.append(None)

        threads = [threading.Thread(target=begin) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        locks_taken = [lock for lock in found if lock is not None]
        assert len(locks_taken) <= 1
        taken += len(locks_taken)
        for lock in locks_taken:
            lock.let_go()
    assert taken


def test_a_folder_that_may_not_be_written(tmp_path):
    with pytest.raises(InputError, match="cannot be written: No such file"):
        take(tmp_path / "nowhere")
    assert not is_held(tmp_path / "nowhere")
    assert LOCK not in [path.name for path in tmp_path.iterdir()]
