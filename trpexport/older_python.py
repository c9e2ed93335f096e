"""What Pythons before 3.11 lack of what runs on a device, for the device's app alone.

Boards stay with the Python that their maker put on them. The library is written for 3.11; the part
of it that is copied to a device needs few things that are newer than 3.9, and gets them here.
"""

from __future__ import annotations

import builtins
import datetime
import hashlib
import sys
import typing
from collections.abc import Iterator
from typing import Any

_CHUNK = 65536
_PLAIN_ZIP: Any = zip


def complete() -> None:
    """Add to the modules of Python what they lack; nothing where they are new enough."""
    _lend(datetime, "UTC", datetime.timezone.utc)  # noqa: UP017
    _lend(hashlib, "file_digest", _file_digest)
    _lend(typing, "Self", typing.Any)  # only ever annotates
    _lend(sys, "stdlib_module_names", frozenset(sys.builtin_module_names))
    try:
        zip(strict=True)
    except TypeError:
        builtins.zip = _Zip  # type: ignore[misc]


def _lend(module: Any, name: str, value: Any) -> None:
    if not hasattr(module, name):
        setattr(module, name, value)


def _file_digest(file: Any, name: str) -> Any:
    """Return the digest of what is left to read of a file."""
    digest = hashlib.new(name)
    while chunk := file.read(_CHUNK):
        digest.update(chunk)
    return digest


class _Zip:
    """``zip`` that knows ``strict``; a class, as ``zip`` is."""

    def __new__(cls, *values: Any, strict: bool = False) -> Any:
        return _strictly(values) if strict and values else _PLAIN_ZIP(*values)


def _strictly(values: tuple[Any, ...]) -> Iterator[tuple[Any, ...]]:
    """Yield what ``zip`` does, and refuse values of different lengths.

    Raises:
        ValueError: they have.
    """
    absent, iterators = object(), [iter(value) for value in values]
    while True:
        found = tuple(next(iterator, absent) for iterator in iterators)
        if all(one is absent for one in found):
            return
        if any(one is absent for one in found):
            raise ValueError("zip() has arguments of different lengths")
        yield found
