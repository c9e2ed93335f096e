"""Sentences broken into lines, between words and never inside of a value: ``84.5 %`` is one."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

from trpexport.report.render.spans import Span, plain

_PARTS = re.compile(r"[^._/:-]*[._/:-]+|[^._/:-]+")  # of a name, each with what joins the next
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

    A name that is wider is broken behind what joins its parts.

    Args:
        spans: the sentence.
        width: of a line.
        measure: how much room a text takes.
    """
    line: Word = ()
    for word in words(spans):
        first, *rest = _pieces(word, width, measure)
        longer = (*line, Span(" "), *first) if line else first
        if line and measure(plain(longer)) > width:
            yield line
            longer = first
        line = longer
        for piece in rest:
            yield line
            line = piece
    yield line


def _pieces(word: Word, width: int, measure: Measure) -> Iterator[Word]:
    """Yield a word, or the parts of a name that is wider than a line, as many as fit in each."""
    if len(word) != 1 or not word[0].is_name or measure(word[0].text) <= width:
        yield word
        return
    line = ""
    for part in _PARTS.findall(word[0].text):
        if line and measure(line + part) > width:
            yield (replace(word[0], text=line),)
            line = ""
        line += part
    yield (replace(word[0], text=line),)
