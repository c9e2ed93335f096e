"""Standard output for a record alone, and standard streams that are full, closed or unread."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TextIO

_INPUT, _OUTPUT, _ERROR = 0, 1, 2  # file descriptors


def open_missing_streams() -> None:
    """Open the standard streams that this process was started without.

    Else the next file that is opened gets such a descriptor, and what is printed goes into it. An
    output that is missing stays one that can't be written, so that nobody takes it for printed;
    what goes to a missing standard error is lost.
    """
    for number, name in ((_INPUT, "stdin"), (_OUTPUT, "stdout"), (_ERROR, "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_WRONLY if number == _ERROR else os.O_RDONLY)  # the lowest free
            mode = "r" if number == _INPUT else "w"
            setattr(sys, name, open(number, mode, closefd=False))  # noqa: SIM115


def give_up(stream: TextIO) -> None:
    """Have nothing go where nothing can be written any more; what waits to be is lost."""
    with open(os.devnull, "wb") as nowhere:  # noqa: PTH123 - no path of a file
        os.dup2(nowhere.fileno(), stream.fileno())


@contextmanager
def claimed_output() -> Iterator[TextIO]:
    """Yield standard output, which until the block ends takes what is written to this alone.

    Libraries in C buffer what they print on a pipe: it is pushed out before the block ends.
    """
    usual = sys.stdout
    if usual is None:  # the process was started without one
        yield io.StringIO()
        return
    usual.flush()
    kept = os.dup(_OUTPUT)
    _point_at_error()
    sys.stdout = sys.stderr
    try:
        if _descriptor(usual) == _OUTPUT:
            with os.fdopen(os.dup(kept), "w", encoding="utf-8") as output:
                yield output
        else:  # Python's own is somewhere else already, as in a notebook
            yield usual
    finally:
        _flush_c()
        sys.stdout = usual
        os.dup2(kept, _OUTPUT)
        os.close(kept)


def end_output() -> None:
    """Have all that is printed from now on, at the end of the process, go to standard error."""
    if sys.stdout is not None:
        try:
            sys.stdout.flush()
        except OSError:
            give_up(sys.stdout)
        _point_at_error()


def _point_at_error() -> None:
    if sys.stderr is not None:
        os.dup2(_ERROR, _OUTPUT)
        return
    with open(os.devnull, "wb") as nowhere:  # noqa: PTH123 - no path of a file
        os.dup2(nowhere.fileno(), _OUTPUT)


def _descriptor(stream: TextIO) -> int | None:
    try:
        return stream.fileno()
    except (OSError, ValueError):
        return None


def _flush_c() -> None:
    """Push out what the C library still holds back of its standard output."""
    import ctypes  # takes its time

    with suppress(OSError, TypeError, AttributeError):  # a system whose C library has no name
        ctypes.CDLL(None).fflush(None)
