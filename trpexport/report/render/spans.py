"""How values are written, in every kind of output."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from trpexport import text
from trpexport.report.blocks import (
    Change,
    Column,
    Curve,
    Kind,
    Phrase,
    Portion,
    Range,
    Tone,
    Value,
)

_BOUNDS = {None: "", "at least": "≥ ", "at most": "≤ "}

_MAX_NAME, _MAX_PROSE = 200, 2000  # characters


@dataclass(frozen=True)
class Span:
    """A piece of text.

    Attributes:
        text: the text.
        tone: what it means.
        is_value: whether it is a value as a whole, and not to be broken.
        is_name: whether it may be, behind a dot and the like, where it is wider than a line.
    """

    text: str
    tone: Tone = Tone.PLAIN
    is_value: bool = False
    is_name: bool = False


def cell_spans(cell: Any, column: Column) -> tuple[Span, ...]:
    """Write a cell of a table."""
    if cell is None:
        return (Span(column.absent),)
    if isinstance(cell, tuple) and column.kind not in {Kind.SHAPE, Kind.BARS}:
        return phrase_spans(cell)
    value = cell if isinstance(cell, Value) else Value(cell)
    digits = column.digits if value.digits is None else value.digits
    return (_span(value, value.kind or column.kind, digits),)


def phrase_spans(phrase: Phrase) -> tuple[Span, ...]:
    """Write a sentence."""
    parts = (phrase,) if isinstance(phrase, str) else phrase
    return tuple(
        _span(part, part.kind or Kind.PROSE, part.digits)
        if isinstance(part, Value)
        else Span(printable(part))
        for part in parts
    )


def printable(value: object) -> str:
    """Return text that fits a table or a sentence."""
    return text.printable(value, _MAX_PROSE)


def plain(spans: Iterable[Span]) -> str:
    """Return the text of spans."""
    return "".join(span.text for span in spans)


def _span(value: Value, kind: Kind, digits: int | None) -> Span:
    written = _write(value.raw, kind, digits, value.unit)
    is_value, is_name = kind is not Kind.PROSE, kind is Kind.NAME
    return Span(_BOUNDS[value.bound] + written, value.tone, is_value, is_name)


def _write(raw: Any, kind: Kind, digits: int | None, unit: str) -> str:
    if isinstance(raw, Portion):
        return " of ".join(_write(part, kind, digits, unit) for part in (raw.part, raw.whole))
    if isinstance(raw, Range):
        low, high = (_write(end, kind, digits, unit) for end in (raw.low, raw.high))
        return f"{low.removesuffix(_unit_of(high))} to {high}"
    if isinstance(raw, Change):
        ends = [raw.before] if raw.before == raw.after else [raw.before, raw.after]
        return " -> ".join(_write(one, kind, digits, unit) for one in ends)
    if isinstance(raw, Curve):
        raw = raw.values
    options: dict[str, Any] = {} if digits is None else {"digits": digits}
    if unit:
        options["unit"] = unit
    return _WRITERS[kind](raw, **options)


def _unit_of(written: str) -> str:
    """Return what stands behind the last digit."""
    found = re.search(r"\D*$", written)
    assert found is not None
    return found[0]


def _shape(raw: tuple[int, ...]) -> str:
    return "x".join(map(str, raw))


_WRITERS: Mapping[Kind, Callable[..., str]] = {
    Kind.NAME: partial(text.printable, limit=_MAX_NAME),
    Kind.PROSE: printable,
    Kind.SHAPE: _shape,
    Kind.BARS: text.bar,
    Kind.WHOLE: str,
    Kind.COUNT: text.quantity,
    Kind.BYTES: partial(text.quantity, unit="B"),
    Kind.RATIO: text.times,
    Kind.SHARE: text.percent,
    Kind.SECONDS: text.milliseconds,
    Kind.NUMBER: text.with_unit,
}
