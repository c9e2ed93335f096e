"""Numbers, small pictures and text of strangers as people read them."""

from __future__ import annotations

import re
from collections.abc import Sequence

_PREFIXES = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))
_LEFT_OUT = " ... "
_OTHER_SPACE = re.compile(r"[^\S ]+")  # tabs, ends of lines, spaces of other widths
_BLOCKS = "▁▂▃▄▅▆▇█"


def printable(value: object, limit: int | None = None) -> str:
    r"""Return text of strangers, fit for a terminal and a line.

    Nothing in it moves the cursor, colours the screen, turns the direction of writing or ends the
    line: other space becomes a space, and what is no printable character is escaped, ``\x1b``.

    Args:
        value: the text, or what is to be written as text.
        limit: number of characters from which on the middle is left out.
    """
    text = _shortened(str(value), limit)
    if text.isprintable():
        return text
    spaced = _OTHER_SPACE.sub(" ", text)
    return _shortened("".join(c if c.isprintable() else _escaped(c) for c in spaced), limit)


def _shortened(text: str, limit: int | None) -> str:
    if limit is None or len(text) <= limit:
        return text
    kept = limit - len(_LEFT_OUT)
    return text[: kept - kept // 3] + _LEFT_OUT + text[len(text) - kept // 3 :]


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


def quantity(count: float, unit: str = "") -> str:
    """Return a count with three significant digits and a prefix: ``40.6 M``, ``385 kB``."""
    rounded = float(f"{count:.3g}")
    for size, prefix in _PREFIXES:
        if abs(rounded) >= size:
            return f"{rounded / size:.3g} {prefix}{unit}"
    return f"{rounded:g} {unit}".rstrip()


def number(value: float, digits: int = 3) -> str:
    """Return a number with so many significant digits, and with all digits before the point."""
    if float(value).is_integer():
        return f"{value:,.0f}"
    if abs(value) < 100:
        return f"{value:.{digits}g}"
    return f"{value:.1f}" if abs(value) < 1000 else f"{value:,.0f}"


def with_unit(value: float, unit: str = "", digits: int = 3) -> str:
    """Return a number and its unit: ``1.5x``, ``1 point``, ``1,234 B``."""
    text = number(value, digits)
    unit = "point" if unit == "points" and text == "1" else unit
    return f"{text}{'' if unit in {'x', ''} else ' '}{unit}"


def percent(share: float, digits: int = 1) -> str:
    """Return a share as a percentage with so many decimals."""
    return f"{100 * share:.{digits}f} %"


def times(ratio: float, digits: int = 2) -> str:
    """Return a ratio with so many decimals: ``1.45x``."""
    return f"{ratio:.{digits}f}x"


def milliseconds(seconds: float) -> str:
    """Return a time in milliseconds with three significant digits."""
    value = 1e3 * seconds
    return f"{value:.0f} ms" if value >= 100 else f"{value:.3g} ms"


def bar(values: Sequence[float], width: int = 16) -> str:
    """Draw values, none negative, as a row of blocks relative to the largest.

    Where there are more values than columns, each column shows the largest of its share; a value
    of zero is blank.
    """
    top = max(values, default=0.0)
    columns = min(width, len(values))
    if not top:
        return " " * columns
    text = ""
    for column in range(columns):
        start, end = column * len(values) // columns, (column + 1) * len(values) // columns
        height = max(values[start:end]) / top
        text += _BLOCKS[min(7, int(height * 8))] if height > 0 else " "
    return text
