"""Where a data set lies, and words for what was found there."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NoReturn

from trpexport.errors import DataError
from trpexport.files import check_plain
from trpexport.text import printable


def expanded(text: str) -> Path:
    """Return a path with ``~`` made the home directory, where there is one."""
    return Path(os.path.expanduser(text))  # noqa: PTH111  Path.expanduser fails on ~nobody


def existing(location: str | None, usage: str) -> Path:
    """Return the path that the text after the colon names.

    Args:
        location: the text, None where there is none.
        usage: what should have been typed, as in ``cifar10:DIR``.

    Raises:
        DataError: there is no text, or nothing at that path.
    """
    name, _, _ = usage.partition(":")
    if not location:
        raise DataError(f"{name} needs to know where the data are: write {usage}")
    path = expanded(location)
    try:
        check_plain(path)
    except (OSError, ValueError) as error:  # ValueError: a null byte
        raise DataError(f"can't open {printable(path)} ({reason(error)}): write {usage}") from error
    return path


def read_bytes(path: Path) -> bytes:
    """Read a file.

    Raises:
        DataError: it can't be read.
    """
    try:
        check_plain(path)
        return path.read_bytes()
    except OSError as error:
        unreadable(error)


def unreadable(error: OSError) -> NoReturn:
    """Raise what an error of the operating system means for a data set."""
    raise DataError(f"can't read {printable(error.filename)}: {reason(error)}") from error


def damaged(path: object, error: object) -> DataError:
    """Return the error of a file that does not hold what it should."""
    why = reason(error) if isinstance(error, BaseException) else error
    return DataError(f"{printable(path)} is damaged ({why}): download or copy it again")


def reason(error: BaseException) -> str:
    """Return what an error says, in one line."""
    text = getattr(error, "strerror", None) or str(error)
    return printable(next(iter(text.splitlines()), "") or type(error).__name__)
