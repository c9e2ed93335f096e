"""``trpexport report``: bundles and records as one page, or as Markdown. Without torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from trpexport.errors import TrpexportError

from . import options as opt
from .console import say, show_text
from .drawing import Plot, draw
from .interrupts import tell_written

if TYPE_CHECKING:
    from trpexport.report.documents import Document
    from trpexport.report.page import Page

_DEFAULT = Path("report.html")
_HTML, _MARKDOWN = "html", "md"
_SUFFIXES = {".html": _HTML, ".htm": _HTML, ".md": _MARKDOWN, ".markdown": _MARKDOWN}


def _checked(place: Path | None) -> Path | None:
    """Refuse a page that can't be written, before any work.

    Raises:
        TrpexportError: its name does not say of which kind it is.
        MissingDependencyError: what makes pages is not installed.
    """
    if place is None:
        return None
    form = _SUFFIXES.get(place.suffix.lower())
    if form is None:
        raise TrpexportError(f"--report {place} must end in .html or .md: it says what is written")
    if form == _HTML:
        from trpexport.report.render.html import check_html

        check_html()
    return place


ReportTo = Annotated[
    Path | None,
    typer.Option(
        "--report", callback=_checked, help="Also write the result as a page, .html or .md."
    ),
]


def report(
    documents: Annotated[
        list[Path],
        typer.Argument(
            metavar="BUNDLE|RECORD...",
            help="Bundles, training runs, and JSON files of bench, profile, gate, ...",
        ),
    ],
    out: opt.Out = None,
    formats: opt.Format = None,
    plot: Plot = None,
) -> None:
    """Write a page about bundles and results: verdicts, layers, spectra, errors, times.

    The page is one HTML file that loads nothing from elsewhere: report.html, or --out. With
    --format md, Markdown is printed, or written to an --out that ends in .md. Several bundles are
    plotted by what they save and what they lose. --plot draws the plots of the page, as of a
    training run, into a picture. Needs no torch.

    Example:
        trpexport report out bench.json -o report.html
        trpexport report run --plot training.png
    """
    from trpexport.report.documents import read_document
    from trpexport.report.views.chapters import drawings

    form = _form(opt.names(formats), out)
    if form == _HTML:
        out = out or _DEFAULT
    tell_written(out)
    found = [read_document(path) for path in documents]
    if plot is not None:
        draw(plot, drawings(_page(found)))
    if out is None:
        show_text(_rendered(found, form))
    else:
        _write(found, out, form)
        say(f"Wrote {out}")


def write_report(place: Path | None, *documents: Path | Document) -> None:
    """Write a page about what a command has just found; nothing where none was asked for.

    Args:
        place: the file.
        documents: what it is about, or where that lies.

    Raises:
        OutputError: the place can't be written.
    """
    if place is None:
        return
    from trpexport.report.documents import read_document

    found = [read_document(one) if isinstance(one, Path) else one for one in documents]
    _write(found, place, _form((), place))
    say(f"Wrote {place}")


def _form(formats: Sequence[str], out: Path | None) -> str:
    """Return which kind of page is asked for, by name or by that of the file.

    Raises:
        TrpexportError: there is no such kind, or there are several.
    """
    if not formats:
        return _HTML if out is None else _SUFFIXES.get(out.suffix.lower(), _HTML)
    if len(formats) > 1 or formats[0] not in (_HTML, _MARKDOWN):
        raise TrpexportError(f"--format {','.join(formats)} is no page: give html or md")
    return formats[0]


def _write(documents: Sequence[Document], out: Path, form: str) -> None:
    from trpexport.files import write_atomically

    write_atomically(out, _rendered(documents, form).encode(errors="replace"))


def _page(documents: Sequence[Document]) -> Page:
    from trpexport.report.views.chapters import page_of

    from .again import commands

    return page_of(documents, commands)


def _rendered(documents: Sequence[Document], form: str) -> str:
    page = _page(documents)
    if form == _MARKDOWN:
        from trpexport.report.render.markdown import markdown_page

        return markdown_page(page)
    from trpexport.report.render.html import html

    return html(page)
