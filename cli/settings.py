"""Defaults of options from a TOML file: a section for each command; what is typed wins."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from trpexport.errors import TrpexportError

from . import aliases
from .commands import COMMANDS
from .console import note

_FILE, _SOURCE = "trpexport.file", "trpexport.source"
_OPTION = "config"


def configure(context: typer.Context, value: Path | None) -> Path | None:
    """Take the defaults of a command's options from a file: the callback of ``--config``.

    Raises:
        TrpexportError: it can't be read, or a key or its value is no option's.
    """
    if context.resilient_parsing:  # a shell asks for words
        return value
    if value is not None:
        context.meta[_FILE] = value
    if context.parent is None:
        return value
    from trpexport.sections import read_section

    name = str(context.info_name)
    section, source = read_section(name, chosen_file(context), beside=COMMANDS)
    context.meta[_SOURCE] = source
    context.default_map = _defaults(context, name, section, source)
    return value


Config = Annotated[
    Path | None,
    typer.Option(
        is_eager=True,
        callback=configure,
        help="TOML file with values for options, one section for each command. Default: "
        "trpexport.toml or pyproject.toml in the current directory.",
    ),
]


def chosen_file(context: typer.Context) -> Path | None:
    """Return the file that was typed; None where the usual ones are looked for."""
    found: Path | None = context.meta.get(_FILE)
    return found


def option_names(context: typer.Context) -> Collection[str]:
    """Return the keys that a command's section may have."""
    return _keys(context).keys()


def source_of(context: typer.Context | None, name: str | None) -> str | None:
    """Return the file that a parameter's value comes from; None for those that come from none."""
    if context is None or name is None:
        return None
    found = context.get_parameter_source(name)
    if found is None or found.name != "DEFAULT_MAP":
        return None
    source: str = context.meta[_SOURCE]
    return source


def given_options(context: typer.Context) -> str:
    """Return which options hold that are not as by default, and where they come from."""
    given = []
    for name, option in _keys(context).items():
        source = context.get_parameter_source(option.name)
        if (
            option.expose_value
            and source is not None
            and source.name in ("COMMANDLINE", "DEFAULT_MAP")
        ):
            where = source_of(context, option.name)
            value = context.params.get(option.name)
            given.append(f"{name}={value}" + ("" if where is None else f" ({where})"))
    return ", ".join(given)


def _keys(context: typer.Context) -> dict[str, Any]:
    """Return the options of a command by their long names."""
    return {
        name.removeprefix("--"): parameter
        for parameter in context.command.params
        if parameter.param_type_name == "option" and parameter.name != _OPTION
        for name in parameter.opts
        if name.startswith("--")
    }


def _defaults(
    context: typer.Context, command: str, section: Mapping[str, Any], source: str
) -> dict[str, Any]:
    """Return a section's values by parameter.

    Raises:
        TrpexportError: a key is unknown, or its value of the wrong kind.
    """
    from trpexport.sections import unknown_key

    known, found = _keys(context), {}
    for key, value in section.items():
        today = aliases.OPTIONS.get(command, {}).get(f"--{key}", f"--{key}").removeprefix("--")
        if today != key:
            note(f"{key} in {source} is called {today} now; the old name goes in the next version")
        if today not in known:
            raise unknown_key(key, source, known)
        option = known[today]
        found[option.name] = _value(option, value, f"{key} in {source}")
    return found


def _value(option: Any, value: Any, what: str) -> Any:
    """Return a value as the option takes it where it is typed."""
    if option.is_flag:
        if not isinstance(value, bool):
            raise TrpexportError(f"{what} can't be {value!r}: say true or false")
        return value
    values = value if isinstance(value, list) and option.multiple else [value]
    for one in values:
        if isinstance(one, bool) or not isinstance(one, str | int | float):
            kind = "text, a number or a list of them" if option.multiple else "text or a number"
            raise TrpexportError(f"{what} can't be {one!r}: give {kind}")
    texts = [str(one) for one in values]
    return texts if option.multiple else texts[0]
