"""Native code on foreign content: within limits of memory and time, and its crash in one line.

A library in C++ that meets a hostile or damaged file may end the process, allocate without end, or
never come back. Memory is limited around such a call. Crashes and time need another process: on
Linux, commands run in a child, and the parent, which only waits, tells what became of it.
"""

from __future__ import annotations

import mmap
import os
import re
import signal
import struct
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from trpexport.errors import TrpexportError

MEMORY_VARIABLE = "TRPEXPORT_MEMORY"
SECONDS = 40.0  # that native code may take of a file of no size worth speaking of
_GIB = 1 << 30
_TIMES_FILE = 10
_BYTES_PER_SECOND = 1e7  # that a slow disk reads
_IS_LINUX = sys.platform == "linux"
_CRASHES = frozenset(
    getattr(signal, name)
    for name in ("SIGSEGV", "SIGFPE", "SIGABRT", "SIGBUS", "SIGILL", "SIGSYS", "SIGTRAP")
    if hasattr(signal, name)
)
_PASSED_ON = ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2")
_POLL = 5.0  # seconds: the parent must not disturb what the child measures
_HEAD = struct.Struct("dH")  # the deadline on the monotonic clock, and the length of the text
_SIZE = 4096
_DIE_WITH_PARENT = 1  # prctl's PR_SET_PDEATHSIG


class _Notice:
    """What the child is at, in memory that the parent sees: writing to it takes no system call."""

    def __init__(self) -> None:
        self._block = mmap.mmap(-1, _SIZE)

    def read(self) -> tuple[str, float]:
        """Return what is going on, empty if nothing is, and until when it may."""
        deadline, length = _HEAD.unpack_from(self._block)
        return self._block[_HEAD.size : _HEAD.size + length].decode("utf-8", "ignore"), deadline

    def write(self, text: str, deadline: float) -> None:
        """Say what is going on and until when it may; never ending where that is 0."""
        content = text.encode("utf-8", "replace")[: _SIZE - _HEAD.size]
        self._block[_HEAD.size : _HEAD.size + len(content)] = content
        _HEAD.pack_into(self._block, 0, deadline, len(content))


_notices: list[_Notice] = []  # of this process, once it is supervised


def memory_allowance(file_bytes: int) -> int:
    """Return how many bytes handling a file may take: ten times its size and 1 GiB.

    Raises:
        TrpexportError: ``TRPEXPORT_MEMORY``, which replaces it, is no number of bytes.
    """
    chosen = os.environ.get(MEMORY_VARIABLE)
    if chosen is None:
        return _TIMES_FILE * file_bytes + _GIB
    match = re.fullmatch(r"([1-9]\d{0,5})G", chosen.strip())
    if match is None:
        raise TrpexportError(f"{MEMORY_VARIABLE}={chosen!r} must look like 8G")
    return int(match[1]) * _GIB


def time_allowance(file_bytes: int) -> float:
    """Return how many seconds handling a file may take."""
    return SECONDS + file_bytes / _BYTES_PER_SECOND


@contextmanager
def guarded(doing: str, *, memory: int | None, seconds: float | None) -> Iterator[None]:
    """Limit what native code may take in a block; a supervisor tells if it dies there.

    Beyond the memory its allocations fail. Beyond the time, under a supervisor, it is killed.

    Args:
        doing: what is going on, as in "opening net.onnx".
        memory: bytes beyond those in use; None for no limit.
        seconds: None for no limit.
    """
    notice = _notices[0] if _notices else None
    before = notice.read() if notice else ("", 0.0)
    if notice:
        notice.write(doing, time.monotonic() + seconds if seconds else 0.0)
    try:
        with _bounded(memory):
            yield
    finally:
        if notice:
            notice.write(*before)


@contextmanager
def _bounded(memory: int | None) -> Iterator[None]:
    if memory is None or not _IS_LINUX:
        yield
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    wanted = _data_bytes() + memory
    known = [limit for limit in (wanted, soft, hard) if limit != resource.RLIM_INFINITY]
    resource.setrlimit(resource.RLIMIT_DATA, (min(known), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def _data_bytes() -> int:
    """Return the size of this process's private writable memory, which Linux limits."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[5])
    return pages * mmap.PAGESIZE


def supervised(work: Callable[[], int]) -> int:
    """Do work in a child process and return its exit code; a crash is one line and code 2.

    Signals are passed on to the child, and it dies with its parent. Call it while there is no
    other thread. Both processes return from it. Where the system is not Linux there is no child.
    """
    if not _IS_LINUX:
        return work()
    passed_on = {getattr(signal, name) for name in _PASSED_ON}
    awaited = passed_on | {signal.SIGCHLD}
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, awaited)
    notice = _Notice()
    parent = os.getpid()
    child = os.fork()
    if child == 0:
        _notices.append(notice)
        die_with(parent)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        return work()
    while True:
        came = signal.sigtimedwait(awaited, _POLL)
        # A terminal sends its signals to both; those of other processes came to this one alone.
        if came is not None and came.si_signo in passed_on and came.si_code <= 0:
            os.kill(child, came.si_signo)
        ended, status = os.waitpid(child, os.WNOHANG)
        doing, deadline = notice.read()
        if ended:
            return _outcome(os.waitstatus_to_exitcode(status), doing)
        if deadline and time.monotonic() > deadline:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return _fail(
                f"{doing} did not end and was stopped: the file is damaged or asks for too much; "
                "export it again, or give smaller inputs"
            )


def _outcome(code: int, doing: str) -> int:
    """Return the exit code for what became of the child, and say it where it could not."""
    if code >= 0:
        return code
    number, during = -code, f" while {doing}" if doing else ""
    if number in _CRASHES:
        name = signal.Signals(number).name
        return _fail(
            f"a library crashed ({name}){during}: the file is damaged, or meets a bug of the "
            "library that reads it; export it again, or try another version"
        )
    if number == signal.SIGKILL:
        return _fail(
            f"the system ended this process{during}: there is not enough memory; give smaller "
            "inputs, or fewer at once"
        )
    return 128 + number  # as shells have it


def _fail(message: str) -> int:
    text = "".join(c if c.isprintable() else "?" for c in message)
    print(f"error: {text}", file=sys.stderr)
    return 2


def die_with(parent: int) -> None:
    """Have the kernel kill this process when its parent dies."""
    import ctypes

    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)
