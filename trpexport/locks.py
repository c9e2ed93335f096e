"""Locks between processes: the system lets go of one when its holder ends, however that happens."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from trpexport.errors import OutputError

_MAX_BYTES = 1000  # of what a lock says about its holder

_held: set[int] = set()  # descriptors of locks


def try_lock(descriptor: int, *, shared: bool = False) -> bool | None:
    """Lock an open file until it is closed; False where another holds it.

    Args:
        descriptor: the open file.
        shared: let others that ask for a shared lock have one at once.

    Returns:
        None where the system or the disk knows no locks, so that nobody can tell.
    """
    try:
        import fcntl

        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except (ImportError, OSError):
        return None
    return True


def lock(descriptor: int, *, shared: bool = False) -> None:
    """Wait for others that hold an open file, then lock it until it is closed, where that works."""
    with suppress(ImportError, OSError):
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)


@contextmanager
def locked(path: Path, place: Path) -> Iterator[None]:
    """Hold a lock file while the block runs; it says who holds it, and is gone afterwards.

    One that a killed process left is taken over.

    Args:
        path: the file.
        place: what it is the lock of, for the message.

    Raises:
        OutputError: another process holds it; the message says which.
        OSError: it can't be made.
    """
    descriptor = _acquire(path, place)
    _held.add(descriptor)
    try:
        yield
    finally:
        if descriptor in _held:  # else this is a forked process, and it is its parent's
            _held.remove(descriptor)
            with suppress(OSError):  # it may have gone with its folder
                path.unlink()
            os.close(descriptor)


def is_at(descriptor: int, path: Path) -> bool:
    """Tell whether an open file is the one that still has the name it was opened by."""
    with suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(descriptor), path.lstat())
    return False


def _acquire(path: Path, place: Path) -> int:
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
        try:
            if try_lock(descriptor) is False:
                raise OutputError(
                    f"{place} is in use by {_holder(descriptor)}: wait for it, or choose another "
                    "place",
                    parameters=("out",),
                )
            if is_at(descriptor, path):  # else its last holder took it away in between
                with suppress(OSError):  # on a full disk it says nothing
                    os.ftruncate(descriptor, 0)
                    os.pwrite(descriptor, _ourselves(), 0)
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _ourselves() -> bytes:
    since = datetime.now(UTC).isoformat(timespec="seconds")
    return json.dumps({"pid": os.getpid(), "host": platform.node(), "since": since}).encode()


def _holder(descriptor: int) -> str:
    try:
        said = json.loads(os.pread(descriptor, _MAX_BYTES, 0))
        since = datetime.fromisoformat(said["since"])
        host = "".join(filter(str.isprintable, said["host"]))
        return f"process {int(said['pid'])} on {host} since {since:%Y-%m-%d %H:%M:%S %Z}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"


def _forget() -> None:
    """Let go, in a forked process, of what is its parent's."""
    for descriptor in _held:
        os.close(descriptor)
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
