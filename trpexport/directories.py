"""Directories that appear whole or not at all, and what a killed job left of them.

A job holds a lock beside the place of its directory. Who gets that lock knows that nobody else is
at work there: what lies beside the place under one of the names of this file is then left over.
"""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path

from trpexport.errors import OutputError
from trpexport.files import beside, leftovers, writing
from trpexport.locks import locked

_IS_LINUX = sys.platform == "linux"
_AT_FDCWD = -100  # of Linux: paths count from the working directory
_NO_REPLACE, _EXCHANGE = 1, 2  # of Linux: flags of renameat2
_NAMED = 3  # files of a directory that a message names
_OLD, _ASIDE = ".old", ".aside"  # what was replaced, and what is about to be

_reserved: ContextVar[frozenset[Path]] = ContextVar("reserved", default=frozenset())


def check_directory(target: Path, *, replaceable: Callable[[Path], bool]) -> None:
    """Refuse a place where :func:`staged_directory` could not write, before any work is done.

    Raises:
        OutputError: something else stands there, or the place can't be written.
    """
    with writing(target):
        free = not os.path.lexists(target) or _is_empty_directory(target)
        if not free and not (target.is_dir() and replaceable(target)):
            raise OutputError(f"{target} {_state(target)}: choose another place")
        parent = Path(os.path.realpath(target)).parent
        while not parent.exists():
            parent = parent.parent
        if not parent.is_dir():
            raise OutputError(f"can't write {target}: {parent} is not a directory")
        # Permissions do not tell the whole story: a disk may be read-only, or no disk at all.
        probe = beside(parent / target.name)
        probe.mkdir()
        with suppress(FileNotFoundError):  # somebody cleaned up
            probe.rmdir()


@contextmanager
def place_reserved(target: Path) -> Iterator[None]:
    """Keep other jobs from making a directory at the same place while the block runs.

    What a killed job left beside the place is removed; what it had moved aside is put back. A
    block within a block for the same place changes nothing.

    Raises:
        OutputError: another process is at work there, or the place can't be written.
    """
    place = Path(os.path.realpath(target))
    if place in _reserved.get():
        yield
        return
    with ExitStack() as stack:
        with writing(target):
            stack.enter_context(_parents_of(place))
            stack.enter_context(locked(_lock_of(place), target))
        restore(target)
        for path in leftovers(place, ".tmp", _OLD, _ASIDE):
            shutil.rmtree(path, ignore_errors=True)
        stack.callback(_reserved.reset, _reserved.set(_reserved.get() | {place}))
        yield


def restore(target: Path) -> None:
    """Put back what a job that was killed had moved aside to make room, if nothing is in its place.

    Raises:
        OutputError: it can't be put back.
    """
    place = Path(os.path.realpath(target))
    if os.path.lexists(place) or not place.parent.is_dir():
        return
    for path in leftovers(place, _ASIDE):
        with writing(target):
            path.rename(place)
        return


@contextmanager
def staged_directory(
    target: Path, *, replaceable: Callable[[Path], bool] = lambda directory: False
) -> Iterator[Path]:
    """Yield an empty directory that becomes ``target`` when the block ends without an error.

    It is made beside the target, so that the last step is a rename on one file system. On an
    error nothing is left, and what stood at ``target`` is untouched. So is what somebody else put
    there in the meantime, unless it may be replaced as well. Of a symbolic link, the directory
    behind it is replaced.

    Args:
        target: the directory to make; an empty one may stand there.
        replaceable: tells of a directory with files in it whether it may be replaced. It is asked
            before the work, and again of what is about to be deleted.

    Raises:
        OutputError: the place can't be written, is full, or holds something else; or another
            process is making a directory there.
    """
    check_directory(target, replaceable=replaceable)
    with place_reserved(target), writing(target):
        check_directory(target, replaceable=replaceable)  # something may have been put back
        place = Path(os.path.realpath(target))
        was_empty = _is_empty_directory(place)
        staging = beside(place)
        try:
            staging.mkdir()
            yield staging
            if not (_moved_to_nothing(staging, place) or (was_empty and _moved(staging, place))):
                _replace(staging, place, replaceable)
        finally:
            shutil.rmtree(staging, ignore_errors=True)


def _lock_of(place: Path) -> Path:
    return place.parent / f".{place.name[:40]}.trpexport-lock"


@contextmanager
def _parents_of(place: Path) -> Iterator[None]:
    """Make the directories above a place; those that stay empty are gone after the block."""
    made = [parent for parent in place.parents if not parent.exists()]
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        yield
    finally:
        with suppress(OSError):
            for parent in made:
                parent.rmdir()


def _is_empty_directory(path: Path) -> bool:
    return path.is_dir() and not any(path.iterdir())


def _state(path: Path) -> str:
    """Return what stands at ``path``, for a message."""
    if not path.is_dir():
        return "is not a directory"
    names = sorted(file.name for file in path.iterdir())
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f"holds {', '.join(names[:_NAMED])}{more}" if names else "is empty"


def _moved(staging: Path, place: Path) -> bool:
    """Rename a directory onto nothing or an empty one; False where there is anything else."""
    try:
        staging.rename(place)
    except OSError:
        if not os.path.lexists(place):
            raise
        return False
    return True


def _moved_to_nothing(staging: Path, place: Path) -> bool:
    """Rename a directory; False where anything has that name, an empty directory included."""
    try:
        if _renameat2(staging, place, _NO_REPLACE):
            return True
    except FileExistsError:
        return False
    return not os.path.lexists(place) and _moved(staging, place)


def _replace(staging: Path, place: Path, replaceable: Callable[[Path], bool]) -> None:
    """Put a directory in the place of one that may be replaced, and delete that.

    Raises:
        OutputError: what stands there may not be replaced, and stays.
    """
    if not _is_replaceable(place, replaceable):
        raise _appeared(place)
    _exchange(staging, place)
    old = staging.rename(staging.with_suffix(_OLD))  # whoever cleans up takes only what is ours
    if not _is_replaceable(old, replaceable):  # it came between the look and the exchange
        _exchange(old, place)
        old.rename(staging)
        raise _appeared(place)
    shutil.rmtree(old, ignore_errors=True)


def _is_replaceable(path: Path, replaceable: Callable[[Path], bool]) -> bool:
    return path.is_dir() and not path.is_symlink() and replaceable(path)


def _appeared(place: Path) -> OutputError:
    return OutputError(
        f"{place} {_state(place)}, made by somebody else in the meantime, and was left as it is: "
        "run again with another place"
    )


def _exchange(one: Path, other: Path) -> None:
    """Give two directories each other's name, at once where the system can."""
    if _renameat2(one, other, _EXCHANGE):
        return
    aside = other.rename(one.with_suffix(_ASIDE))
    try:
        one.rename(other)
    except BaseException:
        aside.rename(other)
        raise
    aside.rename(one)


def _renameat2(source: Path, target: Path, flag: int) -> bool:
    """Rename as Linux's renameat2; False where system, C library or file system don't know how.

    Raises:
        OSError: it failed.
    """
    call = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None) if _IS_LINUX else None
    if call is None:
        return False
    paths = (os.fsencode(source), os.fsencode(target))
    if call(_AT_FDCWD, paths[0], _AT_FDCWD, paths[1], flag) == 0:
        return True
    code = ctypes.get_errno()
    if code in (errno.ENOSYS, errno.EINVAL):
        return False
    raise OSError(code, os.strerror(code), str(target))
