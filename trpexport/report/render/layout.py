"""Which columns of a table stand side by side, and how wide, where there is only so much room."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

GAP = 2  # between two columns
_BROKEN = 12  # a column that does not fit is not made narrower than this


@dataclass(frozen=True)
class Extent:
    """How much room a column takes, in characters.

    Attributes:
        least: what it takes with its title wrapped, and its cells if they are prose.
        most: what it takes with nothing wrapped.
        optional: whether it may be left out.
        broken: what it takes with its names broken; None for a column of no names.
    """

    least: int
    most: int
    optional: bool = False
    broken: int | None = None


@dataclass(frozen=True)
class Layout:
    """What becomes of the columns of a table.

    Attributes:
        groups: the widths of the columns that stand side by side, by their indices. Where there
            are several, all begin with the first column.
        left_out: indices of the columns that are not shown.
    """

    groups: tuple[Mapping[int, int], ...]
    left_out: tuple[int, ...] = ()


def arrange(extents: Sequence[Extent], room: int) -> Layout:
    """Arrange columns: leave out optional ones, the first first, then go on below.

    Names are broken where fewer columns have to go on below then. Columns are made narrower than
    that only where not even two of them fit.
    """
    shown = list(range(len(extents)))
    left_out = []
    for index in [index for index in shown if extents[index].optional]:
        if _total(extents[index].least for index in shown) <= room:
            break
        shown.remove(index)
        left_out.append(index)
    groups = _split(shown, [extent.least for extent in extents], room)
    if len(groups) > 1:
        narrow = [
            extent if extent.broken is None else replace(extent, least=extent.broken)
            for extent in extents
        ]
        fewer = _split(shown, [extent.least for extent in narrow], room)
        if len(fewer) < len(groups):
            extents, groups = narrow, fewer
    widths = tuple(_widen(group, extents, room) for group in groups)
    return Layout(widths, tuple(left_out))


def _total(widths: Iterable[int]) -> int:
    found = list(widths)
    return sum(found) + GAP * (len(found) - 1)


def _split(shown: Sequence[int], least: Sequence[int], room: int) -> list[list[int]]:
    """Split columns into groups that fit, each with the first column."""
    first, *rest = shown
    groups = [[first]]
    for index in rest:
        if len(groups[-1]) > 1 and _total(least[i] for i in (*groups[-1], index)) > room:
            groups.append([first])
        groups[-1].append(index)
    return groups


def _widen(group: Sequence[int], extents: Sequence[Extent], room: int) -> dict[int, int]:
    """Give columns their least, and what room is left to one after the other."""
    widths = {index: extents[index].least for index in group}
    spare = room - _total(widths.values())
    for index in group:
        if spare < 0:
            change = -min(-spare, max(0, widths[index] - _BROKEN))
        else:
            change = min(spare, extents[index].most - widths[index])
        widths[index] += change
        spare -= change
    return widths
