"""Sentences in lines."""

from __future__ import annotations

import pytest

from trpexport.report.blocks import Column, Kind, Tone, Value
from trpexport.report.render.spans import Span, cell_spans, phrase_spans, plain
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


@pytest.mark.parametrize(
    ("name", "width", "lines"),
    [
        ("layer1.0.conv1", 14, ["layer1.0.conv1"]),
        ("layer1.0.conv1", 10, ["layer1.0.", "conv1"]),
        ("layer1.0.conv1", 4, ["layer1.", "0.", "conv1"]),
        ("a_b/c:d-e", 2, ["a_", "b/", "c:", "d-", "e"]),
        ("..//conv__x", 6, ["..//", "conv__", "x"]),
        ("convolution", 4, ["convolution"]),
    ],
)
def test_a_name_is_broken_behind_what_joins_its_parts(
    name: str, width: int, lines: list[str]
) -> None:
    (span,) = cell_spans(name, Column("name", "layer", Kind.NAME))
    found = [plain(line) for line in wrapped((span,), width, len)]
    assert found == lines
    assert "".join(found) == name


def test_a_number_is_no_name() -> None:
    (span,) = cell_spans(12.3456, Column("x", "x", Kind.NUMBER))
    assert len([*wrapped((span,), 2, len)]) == 1
