"""What a report is made of before it is on a screen or a page: tables and sentences.

Values are raw: seconds, bytes, shares, counts. A :class:`Kind` says what a value is, and the
renderer how that is written.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any, Literal


class Kind(Enum):
    """What a value is; so how it is written, and to which side it is aligned."""

    NAME = auto()  # text that is not wrapped
    PROSE = auto()  # text that may be wrapped
    SHAPE = auto()  # dimensions of a tensor
    BARS = auto()  # a series of values, drawn
    WHOLE = auto()  # a whole number, in full
    COUNT = auto()  # a large number, with a prefix
    BYTES = auto()
    RATIO = auto()  # how many times
    SHARE = auto()  # of a whole, shown in percent
    SECONDS = auto()  # shown in milliseconds
    NUMBER = auto()  # any other number, with or without a unit

    @property
    def align(self) -> Literal["left", "right"]:
        """The side to which a column of such values is aligned: numbers to the right."""
        return "left" if self in {Kind.NAME, Kind.PROSE, Kind.SHAPE, Kind.BARS} else "right"


class Tone(Enum):
    """What a value or a sentence means to the reader."""

    PLAIN = auto()
    FAINT = auto()  # of less interest
    GOOD = auto()
    BAD = auto()


@dataclass(frozen=True, order=True)
class Portion:
    """A part of a whole number: a rank of the full one, the layers that were rewritten of all."""

    part: int
    whole: int


@dataclass(frozen=True, order=True)
class Range:
    """An interval."""

    low: float
    high: float


@dataclass(frozen=True)
class Curve:
    """A series of values, none negative, and after how many of them it is cut off.

    Attributes:
        values: the values.
        cut: how many of them are kept; None where nothing is cut.
    """

    values: tuple[float, ...]
    cut: int | None = None


@dataclass(frozen=True, order=True)
class Change:
    """A number before something was done and after it.

    Attributes:
        before: that before.
        after: that after.
        largest: the largest of its column, for bars.
    """

    before: float
    after: float
    largest: float = 0.0


# What a value that is not known exactly is known to be.
Bound = Literal["at least", "at most"] | None


@dataclass(frozen=True)
class Value:
    """A value that says itself what it is: one in a sentence, or in a column of several kinds.

    Attributes:
        raw: the value, or a :class:`Portion` or :class:`Range` of such.
        kind: what it is; that of its column where it is None.
        digits: decimals of a ratio or a share, significant digits of a number; the usual ones
            where it is None.
        unit: of a number.
        bound: whether it is only known to be at least, or at most, this.
        tone: what it means.
    """

    raw: Any
    kind: Kind | None = None
    digits: int | None = None
    unit: str = ""
    bound: Bound = None
    tone: Tone = Tone.PLAIN


# A sentence, or its parts: text, and values that the renderer writes.
Phrase = str | tuple[str | Value, ...]


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        key: what rows call it.
        title: what readers are shown.
        kind: what its values are.
        digits: as in :class:`Value`.
        optional: whether it may be left out where there is little room; the first goes first.
        absent: what stands for None. Where a row lacks the key, nothing stands.
    """

    key: str
    title: str
    kind: Kind
    digits: int | None = None
    optional: bool = False
    absent: str = ""


@dataclass(frozen=True)
class Table:
    """Rows of values under columns.

    Attributes:
        columns: from left to right; without a title in any of them, the table has no head.
        rows: a cell is a raw value of its column's kind, a :class:`Value`, a :data:`Phrase`, or
            None.
        totals: rows about all the others.
        title: what is above it.
        faint: indices of the rows that are of less interest.
    """

    columns: tuple[Column, ...]
    rows: tuple[Mapping[str, Any], ...]
    totals: tuple[Mapping[str, Any], ...] = ()
    title: Phrase = ""
    faint: frozenset[int] = frozenset()

    @property
    def has_head(self) -> bool:
        """Whether any column has a title."""
        return any(column.title for column in self.columns)


def filled(columns: Sequence[Column], rows: Sequence[Mapping[str, Any]]) -> tuple[Column, ...]:
    """Return the columns in which any row has a value."""
    return tuple(
        column for column in columns if any(row.get(column.key) is not None for row in rows)
    )


class Role(Enum):
    """What a sentence is for."""

    PLAIN = auto()
    NOTE = auto()
    WARNING = auto()
    VERDICT = auto()  # what came of it all
    COMMAND = auto()  # to be copied whole, so never wrapped


@dataclass(frozen=True)
class Text:
    """A sentence.

    Attributes:
        content: the sentence.
        role: what it is for.
        tone: what it means.
    """

    content: Phrase
    role: Role = Role.PLAIN
    tone: Tone = Tone.PLAIN


Block = Table | Text
