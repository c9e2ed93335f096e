"""What a page has beside tables and sentences: tiles, plots, and sections to fold away.

As in :mod:`.blocks`, values are raw; a renderer writes and draws them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from trpexport.report.blocks import Block, Kind, Phrase, Range, Tone


@dataclass(frozen=True)
class Tile:
    """One figure that the reader should see first.

    Attributes:
        label: what it is.
        figure: the figure.
        note: what has to be known beside it.
        tone: what it means.
    """

    label: str
    figure: Phrase
    note: Phrase = ""
    tone: Tone = Tone.PLAIN


@dataclass(frozen=True)
class Tiles:
    """Figures side by side."""

    tiles: tuple[Tile, ...]


@dataclass(frozen=True)
class Axis:
    """An axis of a plot.

    Attributes:
        title: what it shows.
        kind: what its values are.
        from_zero: whether it begins at zero, whatever the values.
    """

    title: str
    kind: Kind = Kind.NUMBER
    from_zero: bool = False


@dataclass(frozen=True)
class Point:
    """A point of a plot.

    Attributes:
        x: where it is along the first axis.
        y: where it is along the second.
        label: what it is called; empty for one of many.
        x_range: the interval of ``x``, if it is known to some precision only.
        y_range: that of ``y``.
    """

    x: float
    y: float
    label: str = ""
    x_range: Range | None = None
    y_range: Range | None = None


@dataclass(frozen=True)
class Series:
    """Points that belong together.

    Attributes:
        name: what they are.
        points: in the order in which a line goes through them.
        mark: how they are drawn.
    """

    name: str
    points: tuple[Point, ...]
    mark: Literal["line", "dots"] = "line"


@dataclass(frozen=True)
class Plot:
    """Series between two axes.

    Attributes:
        title: what it shows.
        x: the horizontal axis.
        y: the vertical axis.
        series: what is drawn.
        cut: where along ``x`` a line divides what is kept from what is not.
        note: what has to be known beside the title.
        is_small: whether it is one of many, drawn side by side.
    """

    title: str
    x: Axis
    y: Axis
    series: tuple[Series, ...]
    cut: float | None = None
    note: Phrase = ""
    is_small: bool = False


@dataclass(frozen=True)
class Lane:
    """A distribution, or a value with its interval.

    Attributes:
        label: whose.
        middle: the median, or the estimate.
        outer: from the least to nearly the largest, or the interval.
        inner: where about half of it is; None where that is not known.
        note: what to say of it.
    """

    label: str
    middle: float
    outer: Range
    inner: Range | None = None
    note: Phrase = ""


@dataclass(frozen=True)
class Lanes:
    """Distributions below each other, along one axis.

    Attributes:
        title: what it shows.
        axis: the axis.
        lanes: from top to bottom.
        reference: a value to compare with, drawn as a line.
    """

    title: str
    axis: Axis
    lanes: tuple[Lane, ...]
    reference: float | None = None


@dataclass(frozen=True)
class Part:
    """A part of a sum.

    Attributes:
        label: whose.
        size: how much of it.
        is_changed: whether it is a part that something was done to.
    """

    label: str
    size: float
    is_changed: bool = False


@dataclass(frozen=True)
class Stack:
    """Sums as bars on one scale, made up of their parts.

    Attributes:
        title: what it shows.
        kind: what sizes are.
        bars: a label and its parts each.
    """

    title: str
    kind: Kind
    bars: tuple[tuple[str, tuple[Part, ...]], ...]


Drawing = Plot | Lanes
PageBlock = Block | Tiles | Plot | Lanes | Stack


@dataclass(frozen=True)
class Section:
    """A part of a page.

    Attributes:
        title: its heading.
        blocks: what is in it.
        is_folded: whether readers open it first.
    """

    title: str
    blocks: tuple[PageBlock, ...]
    is_folded: bool = False


@dataclass(frozen=True)
class Chapter:
    """All about one bundle or record.

    Attributes:
        title: what it is called.
        lead: what is seen first.
        sections: the rest.
    """

    title: str
    lead: tuple[PageBlock, ...]
    sections: tuple[Section, ...] = ()


@dataclass(frozen=True)
class Page:
    """A page.

    Attributes:
        title: its title.
        chapters: from top to bottom.
        footer: what is said at its end.
    """

    title: str
    chapters: tuple[Chapter, ...]
    footer: str = ""
