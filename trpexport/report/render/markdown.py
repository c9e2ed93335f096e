"""Blocks to Markdown, as GitHub shows it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from trpexport.report.blocks import Block, Column, Role, Table, Text, Tone
from trpexport.report.page import Chapter, Page, PageBlock, Section, Tiles
from trpexport.report.render.spans import Span, cell_spans, phrase_spans, plain, printable

_MARKUP = re.compile(r"[\\`*_\[\]<|~&]")
_BEGINNING = re.compile(r"^(?=[#+>-])|(?<=^\d)(?=[.)])")  # of a heading, a list, a quotation
_RULES = {"left": "---", "right": "---:"}


def markdown(blocks: Iterable[Block]) -> str:
    """Return blocks as Markdown: a verdict is a heading, a command is code, the rest as it is."""
    parts = [_table(block) if isinstance(block, Table) else _text(block) for block in blocks]
    return "\n\n".join(parts) + "\n"


def markdown_page(page: Page) -> str:
    """Return a page as Markdown for a pull request: figures first, the rest to be unfolded.

    What is drawn on a page is left out; the tables say the same.
    """
    return "\n".join(_chapter(chapter) for chapter in page.chapters)


def _chapter(chapter: Chapter) -> str:
    parts = [f"## {_plainly(chapter.title)}", *_written(chapter.lead)]
    for section in chapter.sections:
        parts += _section(section)
    return "\n\n".join(parts) + "\n"


def _section(section: Section) -> list[str]:
    if not (found := _written(section.blocks)):
        return []
    summary = f"<details><summary>{_plainly(section.title)}</summary>"
    return [summary, *found, "</details>"]


def _written(blocks: Iterable[PageBlock]) -> list[str]:
    """Return those of some blocks that can be written."""
    found = []
    for block in blocks:
        if isinstance(block, Tiles):
            found.append(_tiles(block))
        elif isinstance(block, Table | Text):
            found.append(markdown([block]).rstrip("\n"))
    return found


def _tiles(tiles: Tiles) -> str:
    lines = [_row(("", "", "")), _row(("---", "---", "---"))]
    for tile in tiles.tiles:
        figure, note = (_escaped(phrase_spans(part)) for part in (tile.figure, tile.note))
        lines.append(_row((f"**{_plainly(tile.label)}**", figure, note)))
    return "\n".join(lines)


def _plainly(text: str) -> str:
    return _escaped((Span(printable(text)),))


def _text(text: Text) -> str:
    spans = phrase_spans(text.content)
    if text.role is Role.COMMAND:
        return f"    {plain(spans)}"
    line = _BEGINNING.sub(r"\\", _escaped(spans))
    if text.role is Role.VERDICT:
        mark = {Tone.GOOD: "✅ ", Tone.BAD: "❌ "}.get(text.tone, "")
        return f"### {mark}{line}"
    if text.role is Role.WARNING:
        return f"**{line}**"
    return f"note: {line}" if text.role is Role.NOTE else line


def _table(table: Table) -> str:
    lines = [f"**{_escaped(phrase_spans(table.title))}**", ""] if table.title else []
    lines.append(_row(_escaped((Span(printable(column.title)),)) for column in table.columns))
    lines.append(_row(_RULES[column.kind.align] for column in table.columns))
    lines += [_row(_cells(row, table.columns)) for row in table.rows]
    lines += [
        _row(f"**{cell}**" if cell else "" for cell in _cells(row, table.columns))
        for row in table.totals
    ]
    return "\n".join(lines)


def _cells(row: Mapping[str, Any], columns: Iterable[Column]) -> list[str]:
    return [
        _escaped(cell_spans(row[column.key], column)) if column.key in row else ""
        for column in columns
    ]


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _escaped(spans: Iterable[Span]) -> str:
    """Return spans as Markdown that shows just their text; what is bad is bold."""
    text = ""
    for span in spans:
        escaped = _MARKUP.sub(r"\\\g<0>", span.text)
        text += f"**{escaped}**" if span.tone is Tone.BAD and escaped else escaped
    return text
