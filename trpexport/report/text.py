"""Numbers and small pictures as text."""

from __future__ import annotations

from collections.abc import Sequence

_UNITS = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))
_BLOCKS = "▁▂▃▄▅▆▇█"


def quantity(number: float) -> str:
    """Return a count with three significant digits and a unit prefix: ``40.6 M``."""
    rounded = float(f"{number:.3g}")
    for size, prefix in _UNITS:
        if abs(rounded) >= size:
            return f"{rounded / size:.3g} {prefix}"
    return f"{rounded:g} "


def percent(share: float) -> str:
    """Return a share as a percentage with one decimal."""
    return f"{100 * share:.1f} %"


def ratio(before: float, after: float) -> str:
    """Return how many times smaller ``after`` is: ``1.45x``."""
    return f"{before / after:.2f}x" if after else "-"


def bar(values: Sequence[float], width: int = 24) -> str:
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


def milliseconds(seconds: float) -> str:
    """Return a time in milliseconds with three significant digits."""
    value = 1e3 * seconds
    return f"{value:.0f} ms" if value >= 100 else f"{value:.3g} ms"
