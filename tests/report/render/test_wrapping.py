"""Sentences in lines."""

from __future__ import annotations

import pytest

from trpexport.report.blocks import Kind, Tone, Value
from trpexport.report.render.spans import Span, phrase_spans, plain
from trpexport.report.render.wrapping import words, wrapped

PHRASE = ("top-1 ", Value(0.845, Kind.SHARE), " -> ", Value(0.9, Kind.SHARE), "; no change (", "p)")


@pytest.mark.parametrize(
    ("width", "lines"),
    [
        (100, ["top-1 84.5 % -> 90.0 %; no change (p)"]),
        (22, ["top-1 84.5 % ->", "90.0 %; no change (p)"]),
        (15, ["top-1 84.5 % ->", "90.0 %; no", "change (p)"]),
        (6, ["top-1", "84.5 %", "->", "90.0 %;", "no", "change", "(p)"]),
    ],
)
def test_a_value_is_never_broken(width: int, lines: list[str]) -> None:
    found = wrapped(phrase_spans(PHRASE), width, len)
    assert [plain(line) for line in found] == lines


def test_tones_survive() -> None:
    spans = (Span("a b", Tone.BAD), Span("c"))
    assert list(words(spans)) == [(Span("a", Tone.BAD),), (Span("b", Tone.BAD), Span("c"))]


def test_no_words_are_one_empty_line() -> None:
    assert [plain(line) for line in wrapped((), 10, len)] == [""]
