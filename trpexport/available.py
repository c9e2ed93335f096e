"""How much memory and how many cores this process may take, as far as the system tells."""

from __future__ import annotations

import ctypes
import mmap
import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath

_STATM = Path("/proc/self/statm")
_MEMINFO = Path("/proc/meminfo")
_CGROUP = Path("/proc/self/cgroup")
_CGROUPS = Path("/sys/fs/cgroup")
_MOST_HELD = 2 << 30
_MMAP_THRESHOLD, _LARGE_BLOCK = -3, 16 << 20  # the first is a parameter of glibc's mallopt


def available_memory() -> int | None:
    """Return the bytes that this process may still take; None where nobody knows.

    The least of what the machine has left, swap included, of what the limits of the process allow
    (``ulimit -v``, ``ulimit -d``), and of those of its control group, as containers have them.
    """
    return max(0, min(found)) if (found := list(_limits())) else None


def give_back(most: int = _MOST_HELD) -> None:
    """Give freed memory back to the system, where the process holds more than ``most`` bytes.

    The allocator of glibc keeps what lies between blocks in use: of 4.5 GB that the calibration of
    a large U-Net held, 0.7 came back. From then on blocks of 16 MB come from the system and go back
    as soon as they are free, which glibc does from 32 MB on only. Elsewhere, or of less, nothing is
    given back, since to take it again costs time.
    """
    with suppress(OSError, ValueError, IndexError, AttributeError, TypeError):
        if int(_STATM.read_text().split()[1]) * mmap.PAGESIZE > most:
            allocator = ctypes.CDLL(None)
            allocator.mallopt(_MMAP_THRESHOLD, _LARGE_BLOCK)
            allocator.malloc_trim(0)


def usable_cores() -> int:
    """Return how many cores this process may compute on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _limits() -> Iterator[int]:
    # What is missing or reads otherwise limits nothing that is known here.
    with suppress(OSError, ValueError, KeyError):
        told = dict(line.split(":", 1) for line in _MEMINFO.read_text().splitlines())
        free = [int(told[key].split()[0]) << 10 for key in ("MemAvailable", "SwapFree")]
        yield sum(free)
    with suppress(OSError, ValueError, IndexError):
        yield from _process_limits()
    with suppress(OSError, ValueError):
        yield from _group_limits()


def _process_limits() -> Iterator[int]:
    if sys.platform == "win32":
        return
    import resource

    pages = [int(count) for count in _STATM.read_text().split()]
    for kind, used in ((resource.RLIMIT_AS, pages[0]), (resource.RLIMIT_DATA, pages[5])):
        limit = resource.getrlimit(kind)[0]
        if limit != resource.RLIM_INFINITY:
            yield limit - used * mmap.PAGESIZE


def _group_limits() -> Iterator[int]:
    """Yield what each control group that the process is in has left."""
    line = next(line for line in [*_CGROUP.read_text().splitlines(), ""] if line[:3] in ("0::", ""))
    place = PurePosixPath(line[3:] or "/").relative_to("/")
    for group in (place, *place.parents):
        with suppress(OSError, ValueError):  # "max" is no limit
            limit = int((_CGROUPS / group / "memory.max").read_text())
            yield limit - int((_CGROUPS / group / "memory.current").read_text())
