"""Options that were typed, or given by a file; those that would do nothing are refused."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import typer

from trpexport.errors import TrpexportError


@dataclass(frozen=True)
class Idle:
    """Options that do nothing where another one is given, or where it is not.

    All are named by their parameters.

    Attributes:
        options: those that do nothing.
        beside: the one beside which they do nothing; None where ``without`` says it.
        without: the one without which they do nothing.
    """

    options: tuple[str, ...]
    beside: str | None = None
    without: str | None = None


CHECKING = Idle(("check",), without="target_ort")
REFINING = Idle(("refine_images",), without="refine")


def refuse_idle(context: typer.Context, *table: Idle) -> None:
    """Refuse options that would be ignored.

    Raises:
        TrpexportError: one was typed.
    """
    for row in table:
        if row.beside is not None and is_given(context, row.beside):
            refuse_typed(context, row.options, f"beside {flag(context, row.beside)}")
        if row.without is not None and not is_given(context, row.without):
            missing = flag(context, row.without)
            refuse_typed(context, row.options, f"without {missing}", add=missing)


def refuse_typed(
    context: typer.Context, options: Iterable[str], where: str, *, add: str | None = None
) -> None:
    """Refuse options that do nothing where a command is used in one of its ways.

    Args:
        context: what was typed.
        options: their parameters.
        where: the way, for the message.
        add: what would give them something to do, if there is such a thing.

    Raises:
        TrpexportError: one was typed.
    """
    typed = [flag(context, name) for name in options if is_typed(context, name)]
    if typed:
        verb, them = ("does", "it") if len(typed) == 1 else ("do", "them")
        remedy = f"leave {them} out" if add is None else f"add {add}, or leave {them} out"
        raise TrpexportError(f"{', '.join(typed)} {verb} nothing {where}: {remedy}")


def at_most_one(context: typer.Context, *options: str) -> None:
    """Refuse options that exclude each other, named by their parameters.

    Raises:
        TrpexportError: several were given.
    """
    given = [flag(context, name) for name in options if is_given(context, name)]
    if len(given) > 1:
        raise TrpexportError(f"{' and '.join(given)} exclude each other: give one of them")


def is_typed(context: typer.Context, name: str) -> bool:
    """Whether a parameter's option was typed; no default counts, not that of a file either."""
    return _source(context, name) == "COMMANDLINE"


def is_given(context: typer.Context, name: str) -> bool:
    """Whether a parameter's option was typed, or given by a file."""
    return _source(context, name) in ("COMMANDLINE", "DEFAULT_MAP")


def _source(context: typer.Context, name: str) -> str | None:
    source = context.get_parameter_source(name)
    return None if source is None else source.name


def flag(context: typer.Context, name: str) -> str:
    """Return the option of a parameter, as it was typed or would be."""
    (option,) = (found for found in context.command.params if found.name == name)
    is_off = context.params[name] is False and option.secondary_opts
    return (option.secondary_opts if is_off else option.opts)[0]
