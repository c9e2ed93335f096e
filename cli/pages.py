"""Help pages: in groups, over the whole width of the terminal, and nothing cut."""

from __future__ import annotations

import inspect
import re
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from typer.core import TyperCommand, TyperGroup

from .panels import COMMANDS, OPTIONS, panel_of, panel_of_command

_EXAMPLE = "Example:"
_OTHERS = "Others"
_FIRST = next(iter(OPTIONS))  # the group of what has to be typed, too
_GAP = 2  # columns between names and what they are
_MAX_FIRST = 26  # columns of names
# Types as typer has them, and as they are shown.
_TYPE = re.compile(r"<([\w\[\] ]+)>")
# A range whose upper end nobody types.
_ENDLESS = re.compile(r"; \d+<=x<=\d{10,}")
_TYPES = {
    **{"str": "TEXT", "list[str]": "TEXT", "path": "PATH"},
    **{"int": "N", "int range": "N", "float": "NUMBER", "float range": "NUMBER"},
}
Rows = list[tuple[str, str]]


class Command(TyperCommand):
    """A command whose options are shown in groups, and whose examples are shown as typed."""

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """Return what follows the command's name; in brackets what may be missing."""
        arguments = (one for one in self.params if one.param_type_name == "argument")
        return [
            "[OPTIONS]",
            *(_metavar(one) if one.required else f"[{_metavar(one)}]" for one in arguments),
        ]

    def format_help_text(self, ctx: Any, formatter: Any) -> None:
        """Write what the command does: its docstring, wrapped, and its examples as they stand."""
        _write_text(self.help, formatter)

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write arguments, then options by group."""
        _write_parameters(self, ctx, formatter)


class Group(TyperGroup):
    """All commands, in groups, each with its whole summary."""

    def format_help_text(self, ctx: Any, formatter: Any) -> None:
        """Write what the program does."""
        _write_text(self.help, formatter)

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the commands by group, and then the options."""
        self.format_commands(ctx, formatter)
        _write_parameters(self, ctx, formatter)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the commands by group."""
        rows = {
            name: (name, summary(command.help))
            for name, command in self.commands.items()
            if not command.hidden
        }
        grouped = _grouped(COMMANDS, {name: panel_of_command(name) for name in rows})
        _write_sections(
            {panel: [rows[name] for name in names] for panel, names in grouped.items()}, formatter
        )


def summary(text: str | None) -> str:
    """Return the first paragraph of a docstring, on one line."""
    return " ".join(inspect.cleandoc(text or "").partition("\n\n")[0].split())


def examples(text: str | None) -> list[str]:
    """Return the command lines that a docstring gives as examples."""
    _, _, last = inspect.cleandoc(text or "").partition(f"\n{_EXAMPLE}\n")
    return [line.strip() for line in last.splitlines() if line.strip()]


def _write_text(text: str | None, formatter: Any) -> None:
    prose, _, _ = inspect.cleandoc(text or "").partition(f"\n{_EXAMPLE}\n")
    with formatter.indentation():
        for paragraph in prose.strip().split("\n\n"):
            formatter.write_paragraph()
            _write_lines(_wrapped(paragraph, formatter.width - formatter.current_indent), formatter)
    typed = examples(text)
    if typed:
        with formatter.section(_EXAMPLE.rstrip(":") + "s" * (len(typed) > 1)):
            _write_lines(typed, formatter)  # to be copied: never wrapped


def _write_parameters(command: Any, ctx: Any, formatter: Any) -> None:
    arguments: Rows = []
    options: dict[str, tuple[str, str]] = {}
    panels: dict[str, str | None] = {}
    needed: set[str] = set()
    for parameter in command.get_params(ctx):
        row = parameter.get_help_record(ctx)
        if row is None:
            continue
        if parameter.param_type_name == "argument":
            arguments.append((_metavar(parameter), row[1]))
        else:
            options[parameter.name] = (_TYPE.sub(_type_name, row[0]), _ENDLESS.sub("", row[1]))
            panels[parameter.name] = _FIRST if parameter.required else panel_of(parameter.name)
            needed |= {parameter.name} if parameter.required else set()
    sections = {"Arguments": arguments} if arguments else {}
    for panel, names in _grouped(OPTIONS, panels).items():
        names.sort(key=lambda name: name not in needed)
        sections[panel] = [options[name] for name in names]
    _write_sections(sections, formatter)


def _write_sections(sections: Mapping[str, Rows], formatter: Any) -> None:
    """Write rows below their titles, all with the same column for names."""
    names = [name for rows in sections.values() for name, _ in rows]
    first = max((len(name) for name in names if len(name) <= _MAX_FIRST), default=0) + _GAP
    for title, rows in sections.items():
        with formatter.section(title):
            _write_rows(rows, first, formatter)


def _write_rows(rows: Rows, first: int, formatter: Any) -> None:
    """Write names and what they are side by side; a name that is too long has a line of its own.

    Args:
        rows: the names, and what they are.
        first: columns for the names.
        formatter: what writes the page.
    """
    indent = formatter.current_indent
    for name, text in rows:
        lines = _wrapped(text, formatter.width - indent - first) or [""]
        if len(name) + _GAP > first:
            _write_lines([name], formatter)
        else:
            _write_lines([f"{name:{first}}{lines.pop(0)}".rstrip()], formatter)
        _write_lines([f"{'':{first}}{line}" for line in lines], formatter)


def _write_lines(lines: Iterable[str], formatter: Any) -> None:
    for line in lines:
        formatter.write(f"{'':{formatter.current_indent}}{line}\n")


def _wrapped(text: str, width: int) -> list[str]:
    """Return a paragraph in lines; names of options stay whole."""
    return textwrap.wrap(" ".join(text.split()), width, break_on_hyphens=False)


def _metavar(argument: Any) -> str:
    return str(argument.metavar or argument.name.upper()).strip("[]")


def _type_name(found: re.Match[str]) -> str:
    return _TYPES.get(found[1], found[1].upper())


def _grouped(
    order: Mapping[str, Sequence[str]], panels: Mapping[str, str | None]
) -> dict[str, list[str]]:
    """Return names by group, both in the order of a table; what has no group comes last.

    Args:
        order: the table.
        panels: the group of each name; None where it has none.
    """
    places = {name: place for place, name in enumerate(_all(order.values()))}
    found: dict[str, list[str]] = {panel: [] for panel in (*order, _OTHERS)}
    for name in sorted(panels, key=lambda name: places.get(name, len(places))):
        found[panels[name] or _OTHERS].append(name)
    return {panel: names for panel, names in found.items() if names}


def _all(groups: Iterable[Iterable[str]]) -> Iterable[str]:
    return (name for group in groups for name in group)
