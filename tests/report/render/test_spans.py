"""Values as they are written."""

from __future__ import annotations

from typing import Any

import pytest

from trpexport.report.blocks import Column, Kind, Portion, Range, Tone, Value
from trpexport.report.render.spans import Span, cell_spans, phrase_spans, plain

EXAMPLES: dict[Kind, tuple[Any, str]] = {
    Kind.NAME: ("layer1.0.conv1", "layer1.0.conv1"),
    Kind.PROSE: ("no measurable difference", "no measurable difference"),
    Kind.SHAPE: ((1, 3, 224, 224), "1x3x224x224"),
    Kind.BARS: ((4.0, 2.0), "█▅"),
    Kind.WHOLE: (1092, "1092"),
    Kind.COUNT: (40_551_040, "40.6 M"),
    Kind.BYTES: (385_126, "385 kB"),
    Kind.RATIO: (2.8571, "2.86x"),
    Kind.SHARE: (0.8453, "84.5 %"),
    Kind.SECONDS: (0.000472, "0.472 ms"),
    Kind.NUMBER: (0.44491, "0.445"),
}


def written(cell: Any, kind: Kind, **options: Any) -> str:
    return plain(cell_spans(cell, Column("key", "title", kind, **options)))


@pytest.mark.parametrize("kind", Kind)
def test_every_kind(kind: Kind) -> None:
    raw, text = EXAMPLES[kind]
    assert written(raw, kind) == text
    assert written(Value(raw, kind), Kind.NAME) == text  # a value's own kind is before its column's
    assert plain(phrase_spans(("is ", Value(raw, kind)))) == f"is {text}"


@pytest.mark.parametrize(
    ("cell", "kind", "options", "text"),
    [
        (None, Kind.RATIO, {}, ""),
        (None, Kind.RATIO, {"absent": "baseline"}, "baseline"),
        (0, Kind.COUNT, {"absent": "baseline"}, "0"),
        (1.6134, Kind.RATIO, {"digits": 3}, "1.613x"),
        (Value(1.6134, digits=1), Kind.RATIO, {"digits": 3}, "1.6x"),
        (Value(40e6, bound="at least"), Kind.COUNT, {}, "≥ 40 M"),
        (Value(2.86, bound="at most"), Kind.RATIO, {}, "≤ 2.86x"),
        (Portion(9, 48), Kind.WHOLE, {}, "9 of 48"),
        (Range(1.575, 1.652), Kind.RATIO, {"digits": 3}, "1.575 to 1.652x"),
        (Range(0.812, 0.874), Kind.SHARE, {}, "81.2 to 87.4 %"),
        (Range(0.0005, 0.12), Kind.SECONDS, {}, "0.5 to 120 ms"),
        (Range(900, 1e6), Kind.COUNT, {}, "900 to 1 M"),
        (Value(Range(1, 3.09), unit="points"), Kind.NUMBER, {}, "1 point to 3.09 points"),
        (("at most ", Value(5, Kind.NUMBER, unit="ms")), Kind.NUMBER, {}, "at most 5 ms"),
    ],
)
def test_cells(cell: Any, kind: Kind, options: dict[str, Any], text: str) -> None:
    assert written(cell, kind, **options) == text


def test_tones_are_kept() -> None:
    column = Column("key", "title", Kind.PROSE)
    assert cell_spans((Value("FAIL", tone=Tone.BAD), " at last"), column) == (
        Span("FAIL", Tone.BAD),
        Span(" at last"),
    )
    assert cell_spans(Value("faster", tone=Tone.GOOD), column)[0].tone is Tone.GOOD


@pytest.mark.parametrize("name", ["a\x1b[31mb", "a\x00b", "a\x9bb", "a\x7f\x08b"])
def test_no_name_steers_the_terminal(name: str) -> None:
    for text in (written(name, Kind.NAME), plain(phrase_spans(name)), written(name, Kind.PROSE)):
        assert text.isprintable()
        assert text.startswith("a") and text.endswith("b")


def test_a_name_is_one_line() -> None:
    assert written("a\r\nb\u2028c", Kind.NAME) == "a b c"
