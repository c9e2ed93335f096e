"""What goes to the terminal: tables and JSON to standard output, progress to standard error."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .interrupts import reach

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

    from trpexport.report.blocks import Block
    from trpexport.stages import Stages

# Tables are made for this width where nobody watches: a pipe has no width of its own.
PIPE_WIDTH = 200


def console() -> Console:
    """Return where tables and sentences go."""
    from rich.console import Console

    width = None if sys.stdout.isatty() else PIPE_WIDTH
    return Console(width=width, highlight=False)


def show(*blocks: Block) -> None:
    """Print tables and sentences."""
    from trpexport.report.render.rich import print_blocks

    print_blocks(blocks, console())


def written(bundle: Path) -> tuple[Block, ...]:
    """Say where a bundle is, and how to check it."""
    from trpexport.report.blocks import Role, Text

    return (
        Text(f"Wrote {bundle}. Check it:", Role.COMMAND),
        Text(f"  trpexport verify {shlex.quote(str(bundle))}", Role.COMMAND),
    )


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
        yield Stages(_reaching(lambda name: print(f"- {name}", file=sys.stderr, flush=True)))
        return
    from rich.console import Console

    with Console(stderr=True).status("starting") as status:
        yield Stages(_reaching(lambda name: status.update(f"{name} ...")))


def _reaching(announce: Callable[[str], None]) -> Callable[[str], None]:
    """Return what announces a stage, and has an interrupt say which it was."""

    def announced(name: str) -> None:
        reach(name)
        announce(name)

    return announced


def progress_bar() -> Progress:
    """Return what shows a bar on standard error: one line, that fills the terminal's width."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
    from rich.progress import TimeRemainingColumn as Remaining
    from rich.table import Column

    # The bar takes what the rest leaves.
    return Progress(
        TextColumn("{task.description}", table_column=Column(no_wrap=True)),
        BarColumn(bar_width=None, table_column=Column(ratio=1)),
        MofNCompleteColumn(table_column=Column(no_wrap=True)),
        Remaining(compact=True, table_column=Column(no_wrap=True)),
        console=Console(stderr=True, highlight=False),
        expand=True,
    )


@contextmanager
def bar(total: int, description: str) -> Iterator[Callable[[int], None]]:
    """Yield a function that moves a progress bar on standard error; silent where nobody watches.

    Args:
        total: where it ends.
        description: what is going on.
    """
    reach(description)
    if not sys.stderr.isatty():
        yield lambda count: None
        return
    with progress_bar() as shown:
        yield partial(shown.advance, shown.add_task(description, total=total))
