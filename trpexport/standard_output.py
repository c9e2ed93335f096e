"""Standard output for a record alone: whatever libraries print goes to standard error."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TextIO

_OUTPUT, _ERROR = 1, 2  # file descriptors


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
        with suppress(BrokenPipeError):
            sys.stdout.flush()
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
