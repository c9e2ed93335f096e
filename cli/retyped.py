"""The command that was typed, with only what changes: what the next one to type is made of."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import typer

PROGRAM = "trpexport"
TYPED = f"{PROGRAM}.typed"  # under which a context knows all that was typed behind the program


@dataclass(frozen=True)
class _Word:
    """Something that was typed: an option with its value, or an argument.

    Attributes:
        parameter: name of the option's parameter; None for an argument.
        texts: what was typed.
    """

    parameter: str | None
    texts: tuple[str, ...]


def retyped(
    context: typer.Context, *, drop: Collection[str] = (), add: Mapping[str, object] | None = None
) -> str:
    """Return the command that was typed with some options changed, quoted for a shell.

    Args:
        context: of the command.
        drop: parameters whose options are left out.
        add: what to type instead of some, or besides: the value of an option, True for a flag.
    """
    added = dict(add or {})
    left_out = {*drop, *added}
    kept = [word for word in _words(context) if word.parameter not in left_out]
    texts = [text for word in kept for text in word.texts]
    return shlex.join([PROGRAM, *_before(context), *texts, *_options(context.command, added)])


def other(
    context: typer.Context,
    name: str,
    *arguments: object,
    keep: Collection[str] = (),
    add: Mapping[str, object] | None = None,
) -> str:
    """Return another command with some of the options that were typed, quoted for a shell.

    Args:
        context: of the command that was typed.
        name: of the other command.
        arguments: of the other command.
        keep: parameters whose options, where they were typed, say the same there.
        add: options of the other command besides, by what is typed for them.
    """
    kept = [text for word in _words(context) if word.parameter in keep for text in word.texts]
    more = [str(text) for flag, value in (add or {}).items() for text in (flag, *_values(value))]
    return shlex.join([PROGRAM, name, *map(str, arguments), *kept, *more])


def _typed(context: typer.Context) -> tuple[list[str], list[str]]:
    """Return what was typed up to the command's name, and behind it."""
    typed: Sequence[str] = context.meta.get(TYPED, ())
    name = context.info_name
    if name not in typed:
        return [] if name is None else [name], []
    place = typed.index(name) + 1
    return [*typed[:place]], [*typed[place:]]


def _before(context: typer.Context) -> list[str]:
    return _typed(context)[0]


def _words(context: typer.Context) -> Iterator[_Word]:
    """Return what was typed behind the command's name, word by word."""
    options: dict[str, Any] = {
        text: parameter
        for parameter in context.command.params
        for text in (*parameter.opts, *parameter.secondary_opts)
        if text.startswith("-")
    }
    rest = iter(_typed(context)[1])
    for text in rest:
        if text == "--":  # what follows are arguments, whatever they look like
            yield from (_Word(None, (one if one[:1] != "-" else f"./{one}",)) for one in rest)
            return
        is_long = text.startswith("--")
        head = text.partition("=")[0] if is_long else text[:2]
        option = options.get(head)
        if option is None:
            yield _Word(None, (text,))
            continue
        has_value = "=" in text if is_long else len(text) > len(head)
        values = () if option.is_flag or has_value else tuple(next(rest, "") for _ in "1")
        yield _Word(option.name, (text, *values))


def _options(command: Any, added: Mapping[str, object]) -> Iterator[str]:
    """Return what is typed for parameters of a command."""
    found = {parameter.name: parameter.opts[0] for parameter in command.params}
    for name, value in added.items():
        yield found[name]
        yield from _values(value)


def _values(value: object) -> tuple[str, ...]:
    return () if value is True else (f"{value:g}" if isinstance(value, float) else str(value),)
