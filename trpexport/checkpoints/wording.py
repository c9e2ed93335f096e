"""Text from files and foreign code, made fit for a one-line message."""

from __future__ import annotations

from collections.abc import Sequence

_NAMES_SHOWN = 3
_MAX_LENGTH = 200


def one_line(message: object) -> str:
    """Return the first line of a message, without control characters, cut where it is long."""
    first = next(iter(str(message).splitlines()), "")
    shown = first if len(first) <= _MAX_LENGTH else f"{first[:_MAX_LENGTH]}..."
    return "".join(c if c.isprintable() else "?" for c in shown)


def shorten(names: Sequence[str]) -> str:
    """Return the first few names, and how many follow."""
    shown = ", ".join(map(one_line, names[:_NAMES_SHOWN]))
    rest = len(names) - _NAMES_SHOWN
    return f"{shown} and {rest} more" if rest > 0 else shown
