"""Blocks to the terminal, with rich: the only file of the library that imports it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from operator import attrgetter

from rich import table as tables
from rich.cells import cell_len
from rich.console import Console
from rich.segment import Segment, Segments
from rich.style import Style
from rich.text import Text as Line

from trpexport.report.blocks import Block, Column, Kind, Role, Table, Text, Tone
from trpexport.report.render.layout import GAP, Extent, arrange
from trpexport.report.render.spans import Span, cell_spans, phrase_spans, plain, printable
from trpexport.report.render.wrapping import words, wrapped

Row = Sequence[tuple[Span, ...]]  # a cell a column

_STYLES = {Tone.PLAIN: "none", Tone.FAINT: "dim", Tone.GOOD: "green", Tone.BAD: "bold red"}
_ROLE_STYLES = {Role.WARNING: "yellow", Role.VERDICT: "bold"}

_LONG_WORD = 24  # one in a column of prose may be broken where there is little room
_LONG_NAME = 28  # likewise one in a column of names


def print_blocks(blocks: Iterable[Block], console: Console) -> None:
    """Print blocks, an empty line before each table but a first one."""
    for index, block in enumerate(blocks):
        if isinstance(block, Text):
            _print_text(block, console)
            continue
        if index:
            console.print()
        _print_table(block, console)


def _print_text(text: Text, console: Console) -> None:
    note = "note: " if text.role is Role.NOTE else ""
    style = Style.parse(_ROLE_STYLES.get(text.role, "none")) + Style.parse(_STYLES[text.tone])
    spans = (Span(note), *phrase_spans(text.content))
    _print_sentence(spans, console, style, wrap=text.role is not Role.COMMAND)


def _print_sentence(
    spans: Iterable[Span], console: Console, style: Style, *, wrap: bool = True
) -> None:
    # In a pipe a sentence stays one line, whatever its length.
    line = _lines(spans, console.width) if wrap and console.is_terminal else _line(spans)
    line.stylize_before(style)
    console.print(line, soft_wrap=True)


def _print_table(table: Table, console: Console) -> None:
    if table.title:
        _print_sentence(phrase_spans(table.title), console, Style(bold=True))
    rows = [
        [
            cell_spans(row[column.key], column) if column.key in row else ()
            for column in table.columns
        ]
        for row in (*table.rows, *table.totals)
    ]
    layout = arrange(_extents(table.columns, rows), console.width)
    for number, widths in enumerate(layout.groups):
        if number:
            console.print()
        _print_grid(_grid(table, rows, widths), console)
    if layout.left_out:
        titles = ", ".join(printable(table.columns[index].title) for index in layout.left_out)
        text = f"(no room at {console.width} columns for: {titles})"
        _print_sentence((Span(text),), console, Style(dim=True))


def _print_grid(grid: tables.Table, console: Console) -> None:
    """Print a table without the spaces that rich fills its lines with."""
    for line in console.render_lines(grid, pad=False):
        while line and not line[-1].text.strip():
            line.pop()
        if line:
            line[-1] = Segment(line[-1].text.rstrip(), line[-1].style)
        console.print(Segments([*line, Segment.line()]), end="")


def _extents(columns: Sequence[Column], rows: Sequence[Row]) -> list[Extent]:
    """Measure columns."""
    extents = []
    for index, column in enumerate(columns):
        title = printable(column.title)
        full = [plain(row[index]) for row in rows]
        least = _widest(full)
        if column.kind is Kind.PROSE:
            parts = _widest(plain(word) for row in rows for word in words(row[index]))
            least = min(_LONG_WORD, parts)
        least = max(least, heading := _widest(title.split()))
        broken = max(heading, min(least, _LONG_NAME)) if column.kind is Kind.NAME else None
        extents.append(Extent(least, _widest([title, *full]), column.optional, broken))
    return extents


def _widest(texts: Iterable[str]) -> int:
    return max(map(cell_len, texts), default=0)


def _grid(table: Table, rows: Sequence[Row], widths: Mapping[int, int]) -> tables.Table:
    """Return columns of a table side by side."""
    grid = tables.Table(
        box=None,
        pad_edge=False,
        padding=(0, GAP, 0, 0),
        show_header=table.has_head,
        header_style="bold",
    )
    for index, width in widths.items():
        column = table.columns[index]
        title = Line(printable(column.title))
        grid.add_column(title, justify=column.kind.align, width=width, overflow="fold")
    for number, row in enumerate(rows):
        style = "bold" if number >= len(table.rows) else "dim" if number in table.faint else None
        grid.add_row(*(_lines(row[index], width) for index, width in widths.items()), style=style)
    return grid


def _lines(spans: Iterable[Span], width: int) -> Line:
    """Return a sentence, wrapped."""
    return Line("\n").join(map(_line, wrapped(spans, width, cell_len)))


def _line(spans: Iterable[Span]) -> Line:
    parts = groupby(spans, key=attrgetter("tone"))
    return Line.assemble(*((plain(part), _STYLES[tone]) for tone, part in parts))
