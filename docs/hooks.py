"""What the build of the site adds to the pages: the references, and equations as MathML."""

from __future__ import annotations

import ast
import html
import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

from latex2mathml.converter import convert

_ROOT = Path(__file__).resolve().parent.parent
_WIDTH = 76  # characters of a help page, as wide as the site's column
_EQUATION = re.compile(
    r'<(?P<tag>span|div) class="arithmatex">(?:\\\(|\\\[)(?P<tex>.*?)(?:\\\)|\\\])</(?P=tag)>',
    re.DOTALL,
)
# How docstrings name other objects, as Sphinx does: shown by the last part of the name.
_ROLE = re.compile(r":\w+:<code>~?(?:[\w.]+\.)?(\w+)</code>")


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Put the references where a page has their marks."""
    for mark, lines in _REFERENCES.items():
        if mark in markdown:
            markdown = markdown.replace(mark, "\n".join(lines()))
    return markdown


def on_page_content(content: str, **_: Any) -> str:
    """Write equations as MathML, which browsers show without scripts, and roles as names."""
    return _ROLE.sub(r"<code>\1</code>", _EQUATION.sub(_mathml, content))


def _mathml(found: re.Match[str]) -> str:
    display = "block" if found["tag"] == "div" else "inline"
    written = str(convert(html.unescape(found["tex"]).strip(), display=display))
    if "\\" in written or "&#x0005C;" in written:  # a command that the converter does not know
        raise ValueError(f"an equation that can't be written as MathML: {found['tex']}")
    return written


def _commands() -> Iterator[str]:
    """Give the help page of each command, as a terminal shows it."""
    group = import_module("trpexport.cli").app.command_line()
    context = group.make_context("trpexport", [], resilient_parsing=True)
    for name, command in group.commands.items():
        inner = command.make_context(
            name, [], parent=context, resilient_parsing=True, terminal_width=_WIDTH
        )
        yield f"## {name}\n\n```text\n{command.get_help(inner)}\n```\n"


def _public_names() -> Iterator[str]:
    """Tell of each public name, functions first, what its docstring does."""
    stub = ast.parse((_ROOT / "trpexport/__init__.pyi").read_text(encoding="utf-8"))
    places = [
        (alias.name, f"{node.module}.{alias.name}")
        for node in stub.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    ]
    library = import_module("trpexport")
    titles = {"functions": "Functions", "classes": "Classes", "values": "Values"}
    kinds = {name: _kind(getattr(library, name)) for name, _ in places}
    for kind, title in titles.items():
        yield f"## {title}\n"
        for name, place in places:
            if kinds[name] == kind and not name.startswith("_"):
                yield f"::: {place}\n    options:\n      heading: tx.{name}\n"


def _kind(value: Any) -> str:
    if isinstance(value, type):
        return "classes"
    return "functions" if callable(value) else "values"


_REFERENCES = {
    "<!-- reference: command line -->": _commands,
    "<!-- reference: public names -->": _public_names,
}
