"""When something was made: now, or when a reproducible build says."""

from __future__ import annotations

import os
from datetime import UTC, datetime

from trpexport.errors import TrpexportError

_VARIABLE = "SOURCE_DATE_EPOCH"  # https://reproducible-builds.org/specs/source-date-epoch/


def is_fixed() -> bool:
    """Tell whether the environment fixes the time, so that the same input makes the same bytes."""
    return _VARIABLE in os.environ


def timestamp() -> str:
    """Return the time, in UTC.

    Raises:
        TrpexportError: the environment fixes it, to what is no time.
    """
    if not is_fixed():
        return datetime.now(UTC).isoformat(timespec="seconds")
    text = os.environ[_VARIABLE]
    try:
        if not (text.isascii() and text.isdecimal()):
            raise ValueError(text)
        return datetime.fromtimestamp(int(text), UTC).isoformat(timespec="seconds")
    except (ValueError, OverflowError, OSError):
        raise TrpexportError(
            f"{_VARIABLE} is {text[:40]!r}: give whole seconds since 1970, or unset it"
        ) from None
