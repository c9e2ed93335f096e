"""How much memory a process may take: by the machine, its limits, its control groups."""

from __future__ import annotations

import ctypes
import mmap
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from trpexport import available
from trpexport.available import available_memory, give_back

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="nobody tells elsewhere")

of_glibc = pytest.mark.skipif(
    not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="the C library has none"
)


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with 3 GiB left and 1 GiB of swap, and a process that takes little of it."""
    (tmp_path / "meminfo").write_text(
        "MemTotal: 8388608 kB\nMemAvailable: 3145728 kB\nSwapFree: 1048576 kB\n"
    )
    (tmp_path / "statm").write_text("1000 200 50 1 0 100 0\n")
    (tmp_path / "cgroup").write_text("0::/one/two\n")
    for name in ("meminfo", "statm", "cgroup"):
        monkeypatch.setattr(available, f"_{name.upper()}", tmp_path / name)
    monkeypatch.setattr(available, "_CGROUPS", tmp_path)
    limits = {resource.RLIMIT_AS: -1, resource.RLIMIT_DATA: -1}
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (limits[kind], -1))
    return tmp_path


def limit(place: Path, most: str, used: int) -> None:
    place.mkdir(parents=True, exist_ok=True)
    (place / "memory.max").write_text(f"{most}\n")
    (place / "memory.current").write_text(f"{used}\n")


def test_what_a_machine_has_left(machine: Path) -> None:
    assert available_memory() == 4 << 30


def test_control_groups_above_limit_as_well(machine: Path) -> None:
    limit(machine / "one" / "two", "max", 5)
    limit(machine / "one", str(3 << 30), 1 << 30)
    assert available_memory() == 2 << 30
    limit(machine, str(1 << 30), 2 << 30)
    assert available_memory() == 0


@pytest.mark.parametrize(("kind", "pages"), [("RLIMIT_AS", 1000), ("RLIMIT_DATA", 100)])
def test_the_limits_of_the_process(
    machine: Path, monkeypatch: pytest.MonkeyPatch, kind: str, pages: int
) -> None:
    chosen = getattr(resource, kind)
    monkeypatch.setattr(
        resource, "getrlimit", lambda asked: (1 << 30 if asked == chosen else -1, -1)
    )
    assert available_memory() == (1 << 30) - pages * mmap.PAGESIZE


def test_where_nobody_tells_there_is_no_limit(machine: Path) -> None:
    for name in ("meminfo", "statm", "cgroup"):
        (machine / name).write_text("something else\n")
    assert available_memory() is None
    for name in ("meminfo", "statm", "cgroup"):
        (machine / name).unlink()
    assert available_memory() is None


def test_this_process_may_take_some() -> None:
    found = available_memory()
    assert found is not None
    assert 1 << 20 < found < 1 << 46


@of_glibc
def test_freed_memory_is_given_back_where_much_is_held() -> None:
    def held() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * mmap.PAGESIZE

    # Every second one of many blocks that are too small to be mapped one by one.
    blocks = [bytearray(64 << 10) for _ in range(4000)]
    del blocks[::2]
    before = held()
    give_back(before + (1 << 30))
    assert held() > before - (8 << 20)
    give_back(before // 2)
    assert held() < before - (64 << 20)
    del blocks


@of_glibc
def test_large_blocks_go_back_at_once_from_then_on() -> None:
    """In another process: what it is about lasts as long as the process does."""
    subprocess.run([sys.executable, "-c", _LARGE_BLOCKS], check=True, timeout=60)


_LARGE_BLOCKS = """
from mmap import PAGESIZE
from pathlib import Path
from trpexport.available import give_back

def held():
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGESIZE

def comes_back(size):
    block = bytearray(b"x") * size
    behind = [bytearray(64 << 10) for _ in range(50)]  # nothing goes back that has this behind it
    with_it = held()
    del block
    return with_it - held() > size // 2

block = bytearray(b"x") * (31 << 20)  # after which glibc keeps what is smaller
del block
assert not comes_back(18 << 20)
give_back(0)
assert comes_back(30 << 20)  # more than the hole that the one before left
"""


def test_where_the_system_does_not_tell_nothing_is_given_back(machine: Path) -> None:
    (machine / "statm").unlink()
    give_back(0)
