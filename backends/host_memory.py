"""What a process may take of the memory of its machine.

Beside what is there, two limits hold: that of the process (`ulimit -v`, `ulimit -d`), and that of
its control group and of every group above it, as a container, a batch job or a service has them. A
group counts the page cache among what it uses; that gives way and counts as free here.
"""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from backends.base import Memory

# Of a group: its limit, what it uses, and what of that is page cache.
GROUPS_2 = "memory.max", "memory.current", ("active_file", "inactive_file")
GROUPS_1 = (
    *("memory.limit_in_bytes", "memory.usage_in_bytes"),
    ("total_active_file", "total_inactive_file"),
)


def host_memory(root: Path = Path("/")) -> Memory:
    """Free and total memory of this machine, shared with all that runs on it, and what is left to
    this process. root: where `proc` and `sys` are.

    Free is what the system says is available, page cache included (MemAvailable of Linux), where it
    says so; else the pages that nobody uses.
    """
    left = min((*_of_process(), *_of_groups(root)), default=None)
    try:
        page = os.sysconf("SC_PAGE_SIZE")
        total = os.sysconf("SC_PHYS_PAGES") * page
        free = _available(root) or os.sysconf("SC_AVPHYS_PAGES") * page
    except (AttributeError, ValueError, OSError):  # not on this operating system
        return Memory(left, None, shared=True, left=left)
    return Memory(free if left is None else min(free, left), total, shared=True, left=left)


def _available(root: Path) -> int | None:
    with suppress(OSError), open(root / "proc/meminfo", encoding="ascii") as lines:
        for line in lines:
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return None


def _of_process() -> Iterator[int]:
    """Bytes that are left within the limits of this process."""
    with suppress(ImportError, OSError):  # Windows; a system without /proc
        import resource

        sizes = Path("/proc/self/statm").read_text(encoding="ascii").split()
        for limit, place in ((resource.RLIMIT_AS, 0), (resource.RLIMIT_DATA, 5)):
            most, _ = resource.getrlimit(limit)
            if most != resource.RLIM_INFINITY:
                yield max(0, most - int(sizes[place]) * resource.getpagesize())


def _of_groups(root: Path) -> Iterator[int]:
    """Bytes that are left in the control group of this process and in those above it."""
    with suppress(OSError, ValueError):
        for line in (root / "proc/self/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers and "memory" not in controllers.split(","):
                continue
            top = root / "sys/fs/cgroup" / ("memory" if controllers else "")
            place = top / path.lstrip("/")
            for folder in (place, *place.parents):
                if folder == top or top in folder.parents:
                    yield from _of_group(folder, *(GROUPS_1 if controllers else GROUPS_2))


def _of_group(folder: Path, limit: str, usage: str, cache: tuple[str, ...]) -> Iterator[int]:
    """Bytes that are left in one group; nothing where it has no limit, or is not to be seen."""
    with suppress(OSError, ValueError):  # "max" is no number
        most, used = (int((folder / name).read_text()) for name in (limit, usage))
        lines = map(str.split, (folder / "memory.stat").read_text().splitlines())
        used -= sum(int(number) for name, number in lines if name in cache)
        yield max(0, most - used)
