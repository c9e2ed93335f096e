"""Text from files and foreign code, made fit for a one-line message."""

from __future__ import annotations

from collections.abc import Sequence

from trpexport.text import printable

_NAMES_SHOWN = 3
_MAX_LENGTH = 200


def one_line(message: object) -> str:
    """Return the first line of a message, without control characters, cut where it is long."""
    return printable(next(iter(str(message).splitlines()), ""), _MAX_LENGTH)


def shorten(names: Sequence[str]) -> str:
    """Return the first few names, and how many follow."""
    shown = ", ".join(map(one_line, names[:_NAMES_SHOWN]))
    rest = len(names) - _NAMES_SHOWN
    return f"{shown} and {rest} more" if rest > 0 else shown
