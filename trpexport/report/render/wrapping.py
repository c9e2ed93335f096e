"""Sentences broken into lines, between words and never inside of a value: ``84.5 %`` is one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

from trpexport.report.render.spans import Span, plain

Word = tuple[Span, ...]  # without a place to break it; of several tones at times
Measure = Callable[[str], int]  # how much room a text takes


def words(spans: Iterable[Span]) -> Iterator[Word]:
    """Yield the words of a sentence; a value is one, or a part of one."""
    word: list[Span] = []
    for span in spans:
        first, *rest = [span.text] if span.is_value else span.text.split(" ")
        word.append(replace(span, text=first))
        for piece in rest:
            yield tuple(word)
            word = [replace(span, text=piece)]
    yield tuple(word)


def wrapped(spans: Iterable[Span], width: int, measure: Measure) -> Iterator[Word]:
    """Yield the lines of a sentence; a word that is wider than a line stands alone.

    Args:
        spans: the sentence.
        width: of a line.
        measure: how much room a text takes.
    """
    line: Word = ()
    for word in words(spans):
        longer = (*line, Span(" "), *word) if line else word
        if line and measure(plain(longer)) > width:
            yield line
            longer = word
        line = longer
    yield line
