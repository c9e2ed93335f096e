"""A page as one HTML file that loads nothing, and in which nothing of strangers is run.

Text is escaped wherever it comes from. The page's own policy allows its one style sheet and its
one script, by their hashes, and nothing else.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from functools import cache
from importlib.resources import files
from itertools import count, groupby
from typing import TYPE_CHECKING, Any

from trpexport.errors import MissingDependencyError
from trpexport.installing import install_command
from trpexport.report.blocks import (
    Change,
    Column,
    Curve,
    Kind,
    Portion,
    Range,
    Role,
    Table,
    Text,
    Tone,
    Value,
)
from trpexport.report.page import Lanes, Page, PageBlock, Plot, Stack, Tiles
from trpexport.report.render.spans import Span, cell_spans, phrase_spans, plain, printable

if TYPE_CHECKING:
    from jinja2 import Template

_MANY_ROWS = 8  # from which on a table can be filtered
_MARKS = {Tone.GOOD: "✓", Tone.BAD: "✗"}
_UNSORTED = {Kind.BARS}
_UNBROKEN = 18  # characters of a name that stays on one line, also where there is little room
_QUANTITY = re.compile(r"[≥≤]? ?-?[\d.,]+ \S{1,3}")  # a number and its unit, which stay together


def html(page: Page) -> str:
    """Return a page as HTML.

    Raises:
        MissingDependencyError: jinja2 is not installed.
    """
    check_html()
    from markupsafe import Markup

    style, script = _part("page.css"), _part("page.js")
    policy = (
        f"default-src 'none'; style-src {_hash(style)}; script-src {_hash(script)}; "
        "base-uri 'none'; form-action 'none'"
    )
    whole = _template().render(
        page=_shown(page), policy=policy, style=Markup(style), script=Markup(script)
    )
    return str(whole)


@cache
def _template() -> Template:
    from jinja2 import Environment, StrictUndefined

    return Environment(autoescape=True, undefined=StrictUndefined).from_string(
        _part("page.html.j2")
    )


def check_html() -> None:
    """Refuse pages where what makes them is missing, before any work.

    Raises:
        MissingDependencyError: jinja2 is not installed.
    """
    try:
        import jinja2  # noqa: F401
    except ImportError as error:
        raise MissingDependencyError(
            f"a page needs jinja2, which is not installed: {install_command('page')}"
        ) from error


@cache
def _part(name: str) -> str:
    return files(__package__).joinpath(name).read_text(encoding="utf-8")


def _hash(content: str) -> str:
    digest = hashlib.sha256(content.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


def _shown(page: Page) -> dict[str, Any]:
    """Return a page as its template takes it."""
    ids = (f"table-{number}" for number in count(1))
    return {
        "title": printable(page.title),
        "footer": printable(page.footer),
        "chapters": [
            {
                "title": printable(chapter.title),
                "lead": _blocks(chapter.lead, ids, chapter.title),
                "sections": [
                    {
                        "title": printable(section.title),
                        "is_folded": section.is_folded,
                        "blocks": _blocks(section.blocks, ids, section.title),
                    }
                    for section in chapter.sections
                ],
            }
            for chapter in page.chapters
        ],
    }


def _blocks(
    blocks: Iterable[PageBlock], ids: Iterator[str], heading: str
) -> list[Mapping[str, Any]]:
    """Return blocks; plots that follow each other stand side by side where there is room."""
    found: list[Mapping[str, Any]] = []
    for kind, group in groupby(blocks, key=_kind_of_plots):
        shown = [_block(block, ids, heading) for block in group]
        found += [{"type": "plots", "kind": kind, "plots": shown}] if kind else shown
    return found


def _kind_of_plots(block: PageBlock) -> str:
    """Return the style of a row of such plots; empty for what is none."""
    if not isinstance(block, Plot | Lanes):
        return ""
    return "plots" if isinstance(block, Plot) and block.is_small else "figures"


def _spans(spans: Iterable[Span]) -> list[Span]:
    """Return spans in which no line is broken between a number and its unit."""
    return [
        replace(span, text=span.text.replace(" ", "\u00a0"))
        if span.is_value and _QUANTITY.fullmatch(span.text)
        else span
        for span in spans
    ]


def _block(block: PageBlock, ids: Iterator[str], heading: str) -> dict[str, Any]:
    if isinstance(block, Table):
        return _table(block, next(ids), heading)
    if isinstance(block, Text):
        return _text(block)
    if isinstance(block, Tiles):
        return {"type": "tiles", "tiles": [_tile(tile) for tile in block.tiles]}
    return _drawing(block)


def _tile(tile: Any) -> dict[str, Any]:
    return {
        "label": printable(tile.label),
        "figure": _spans(phrase_spans(tile.figure)),
        "note": _spans(phrase_spans(tile.note)),
        "tone": tile.tone.name.lower(),
    }


def _drawing(block: Plot | Lanes | Stack) -> dict[str, Any]:
    from trpexport.report.render import svg

    title = printable(block.title)
    if isinstance(block, Stack):
        sums = [
            (label, phrase_spans((Value(sum(part.size for part in parts), block.kind),)))
            for label, parts in block.bars
        ]
        return {"type": "stack", "title": title, "sums": sums, "drawing": svg.stack_svg(block)}
    plot = {"type": "plot", "title": title, "note": (), "names": (), "kind": "large"}
    if isinstance(block, Lanes):
        return plot | {"drawing": svg.lanes_svg(block)}
    return plot | {
        "kind": "small" if block.is_small else "large",
        "note": phrase_spans(block.note) if block.note else (),
        "names": [printable(series.name) for series in block.series],
        "drawing": svg.plot_svg(block),
    }


def _text(text: Text) -> dict[str, Any]:
    spans = _spans(phrase_spans(text.content))
    if text.role is Role.COMMAND:
        return {"type": "command", "spans": spans}
    tone = "" if text.tone is Tone.PLAIN else text.tone.name.lower()
    mark = _MARKS.get(text.tone, "") if text.role is Role.VERDICT else ""
    kind = f"{text.role.name.lower()} {tone}".strip()
    return {"type": "text", "kind": kind, "mark": mark, "spans": spans}


def _table(table: Table, identifier: str, heading: str) -> dict[str, Any]:
    columns, can_sort = table.columns, table.has_head and len(table.rows) > 1
    title = phrase_spans(table.title)
    heads = [
        {
            "title": printable(column.title),
            "kind": _kind(column),
            "can_sort": can_sort and column.kind not in _UNSORTED and bool(column.title),
        }
        for column in columns
    ]
    return {
        "type": "table",
        "id": identifier,
        "title": title if plain(title) else (),
        "label": plain(title) or f"{printable(heading)}, table",
        "heads": heads if table.has_head else [],
        "can_filter": table.has_head and len(table.rows) >= _MANY_ROWS,
        "rows": [
            (_row(row, columns), "faint" if number in table.faint else "")
            for number, row in enumerate(table.rows)
        ],
        "totals": [_row(row, columns) for row in table.totals],
    }


def _row(row: Mapping[str, Any], columns: Iterable[Column]) -> list[dict[str, Any]]:
    return [_cell(row, column) for column in columns]


def _cell(row: Mapping[str, Any], column: Column) -> dict[str, Any]:
    from trpexport.report.render import svg

    cell: dict[str, Any] = {"kind": _kind(column), "spans": (), "sort": "", "drawing": None}
    if column.key not in row:
        return cell
    found = row[column.key]
    raw = found.raw if isinstance(found, Value) else found
    if isinstance(raw, Curve):
        return cell | {"drawing": svg.spark_svg(raw), "sort": None}
    if isinstance(raw, Change):
        cell["drawing"] = svg.change_svg(raw) if raw.largest else None
    spans = _spans(cell_spans(found, column))
    if column.kind is Kind.NAME and len(plain(spans)) <= _UNBROKEN:
        cell["kind"] += " unbroken"
    return cell | {"spans": spans, "sort": _sort_key(found)}


def _kind(column: Column) -> str:
    return column.kind.name.lower() + (" right" if column.kind.align == "right" else "")


def _sort_key(cell: Any) -> str | None:
    """Return the number that a cell is sorted by, None for its text; empty where it is missing."""
    if cell is None:
        return ""
    if isinstance(cell, Value):
        return _sort_key(cell.raw)
    if isinstance(cell, Portion):
        return _sort_key(cell.part)
    if isinstance(cell, Range):
        return _sort_key(cell.low)
    if isinstance(cell, Change):
        return _sort_key(cell.after)
    if isinstance(cell, tuple):
        values = [part for part in cell if isinstance(part, Value)]
        return _sort_key(values[0]) if values else None
    return repr(float(cell)) if isinstance(cell, int | float) else None
