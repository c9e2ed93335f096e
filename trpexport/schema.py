"""JSON of strangers: parsed strictly, and compared once with the shape that it must have."""

from __future__ import annotations

import errno
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MAX_BYTES = 32 * 2**20  # of JSON: as Python objects it may take thirty times as much
_LARGEST = 1e300  # of a number, so that a sum or a product of two is one as well

Shape = Any
"""What :func:`check` compares with: a dict of shapes, a list of one, alternatives in a tuple, None,
or a function that says whether a value will do."""


@dataclass(frozen=True)
class MayLack:
    """The shape of an entry of an object that may be left out."""

    shape: Shape


def parse_json(text: str) -> Any:
    """Return what JSON text says; its numbers are finite.

    Raises:
        ValueError: it is no JSON, nested too deeply, or too long.
    """
    if len(text) > MAX_BYTES:
        raise ValueError(f"more than {MAX_BYTES >> 20} MiB of JSON")
    try:
        return json.loads(text, parse_constant=_refused, parse_float=_finite)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def read_text(path: Path, limit: int | None = None) -> str:
    """Return the text of a file of at most ``limit`` bytes, :data:`MAX_BYTES` if None.

    Raises:
        OSError: it can't be read, or is no regular file.
        ValueError: it is no text in UTF-8, or too long.
    """
    most = MAX_BYTES if limit is None else limit
    if path.exists() and not path.is_file():  # to open a pipe waits, and a device may never end
        raise OSError(errno.EINVAL, "it is not a regular file")
    with path.open("rb") as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise ValueError(f"more than {most >> 20} MiB")
    return content.decode()


def check(value: Any, shape: Shape, where: str = "") -> None:
    """Compare JSON data with a shape; what it has beyond that is not looked at.

    Raises:
        ValueError: it differs; the message names the first place where.
    """
    if isinstance(shape, dict):
        _expect(isinstance(value, dict), where)
        for key, inner in shape.items():
            place = f"{where}.{key}".lstrip(".")
            if key in value:
                check(value[key], inner.shape if isinstance(inner, MayLack) else inner, place)
            elif not isinstance(inner, MayLack):
                raise ValueError(f"it lacks {place}")
    elif isinstance(shape, list):
        _expect(isinstance(value, (list, tuple)), where)
        for index, item in enumerate(value):
            check(item, shape[0], f"{where}[{index}]")
    elif isinstance(shape, tuple):
        if not any(fits(value, alternative) for alternative in shape):
            check(value, shape[-1], where)
    elif shape is None:
        _expect(value is None, where)
    else:
        _expect(shape(value), where)


def fits(value: Any, shape: Shape) -> bool:
    """Whether JSON data has a shape."""
    try:
        check(value, shape)
    except ValueError:
        return False
    return True


def text(value: Any) -> bool:
    """Whether a value is text."""
    return isinstance(value, str)


def flag(value: Any) -> bool:
    """Whether a value is true or false."""
    return isinstance(value, bool)


def number(value: Any) -> bool:
    """Whether a value is a finite number."""
    return type(value) in (int, float) and -_LARGEST < value < _LARGEST


def not_negative(value: Any) -> bool:
    """Whether a value is a finite number from 0 on."""
    return number(value) and value >= 0


def positive(value: Any) -> bool:
    """Whether a value is a finite number above 0."""
    return number(value) and value > 0


def whole(low: int, high: int = 2**53) -> Callable[[Any], bool]:
    """Return what says whether a value is a whole number from ``low`` to ``high``."""
    return lambda value: type(value) is int and low <= value <= high


def each(shape: Shape) -> Callable[[Any], bool]:
    """Return what says whether a value is an object whose values have a shape."""
    return lambda value: isinstance(value, dict) and all(fits(v, shape) for v in value.values())


def _expect(is_right: bool, where: str) -> None:
    if not is_right:
        raise ValueError(f"{where or 'it'} is not what it must be")


def _refused(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def _finite(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise ValueError("a number is too large")
    return value
