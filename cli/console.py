"""What goes to the terminal: tables and JSON to standard output, progress to standard error."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from trpexport.stages import Stages

# Tables are made for this width where nobody watches: a pipe has no width of its own.
PIPE_WIDTH = 200


def console() -> Console:
    """Return where tables and sentences go."""
    from rich.console import Console

    width = None if sys.stdout.isatty() else PIPE_WIDTH
    return Console(width=width, highlight=False)


def show(*parts: RenderableType) -> None:
    """Print tables and sentences."""
    target = console()
    for part in parts:
        target.print(part)


def show_json(data: Any) -> None:
    """Print facts for machines."""
    print(json.dumps(data, indent=2, allow_nan=False))


def show_csv(text: str) -> None:
    """Print a table for machines."""
    print(text, end="")


@contextmanager
def progress() -> Iterator[Stages]:
    """Yield stages that say on standard error what is going on."""
    from trpexport.stages import Stages

    if not sys.stderr.isatty():
        yield Stages(lambda name: print(f"- {name}", file=sys.stderr, flush=True))
        return
    from rich.console import Console

    with Console(stderr=True).status("starting") as status:
        yield Stages(lambda name: status.update(f"{name} ..."))


class Advance(Protocol):
    """Moves a progress bar on."""

    def __call__(self, count: int = 1, text: str = "") -> None:
        """Add ``count`` to what is done, and show ``text`` beside it."""


@contextmanager
def bar(total: int, description: str, *, done: int = 0) -> Iterator[Advance]:
    """Yield a function that moves a progress bar on standard error; silent where nobody watches.

    Args:
        total: where it ends.
        description: what is going on.
        done: where it begins.
    """
    if not sys.stderr.isatty():
        yield lambda count=1, text="": None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
    from rich.progress import TimeRemainingColumn as Remaining

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), Remaining())
    watched = Console(stderr=True)
    with Progress(*columns, TextColumn("{task.fields[text]}"), console=watched) as shown:
        task = shown.add_task(description, total=total, completed=done, text="")

        def advance(count: int = 1, text: str = "") -> None:
            shown.update(task, advance=count, text=text)

        yield advance
