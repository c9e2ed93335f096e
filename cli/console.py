"""What goes to the terminal: tables and JSON to standard output, progress to standard error."""

from __future__ import annotations

import errno
import json
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import typer

from trpexport.errors import OutputError
from trpexport.standard_output import claimed_output, give_up
from trpexport.text import printable

from .interrupts import reach

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

    from trpexport.report.blocks import Block
    from trpexport.stages import Stages

# Tables are made for this width where nobody watches: a pipe has no width of its own.
PIPE_WIDTH = 200
# Where JSON and CSV go once they have standard output to themselves.
_MAX_LINE = 4000  # characters on standard error
_claimed: ContextVar[TextIO | None] = ContextVar("claimed", default=None)
_has_facts: ContextVar[bool] = ContextVar("has_facts", default=False)


def console() -> Console:
    """Return where tables and sentences go."""
    from rich.console import Console

    width = None if sys.stdout.isatty() else PIPE_WIDTH
    return Console(width=width, highlight=False)


def show(*blocks: Block) -> None:
    """Print tables and sentences."""
    from trpexport.report.render.rich import print_blocks

    target = console()
    with target.capture() as text:
        print_blocks(blocks, target)
    _print(text.get(), sys.stdout)


def written(bundle: Path) -> tuple[Block, ...]:
    """Say where a bundle is, and how to check it."""
    from trpexport.report.blocks import Role, Text

    return (
        Text(f"Wrote {bundle}. Check it:", Role.COMMAND),
        Text(f"  trpexport verify {shlex.quote(str(bundle))}", Role.COMMAND),
    )


def show_json(data: Any) -> None:
    """Print facts for machines."""
    _has_facts.set(True)
    _print(json.dumps(data, indent=2, allow_nan=False) + "\n", _claimed.get() or sys.stdout)


@contextmanager
def errors_for_machines() -> Iterator[Callable[[str, int], None]]:
    """Yield what prints an error as facts, unless there were some: JSON is one document."""
    token = _has_facts.set(False)

    def tell(message: str, code: int) -> None:
        if not _has_facts.get():
            show_json({"error": message, "exit_code": code})

    try:
        yield tell
    finally:
        _has_facts.reset(token)


def show_csv(text: str) -> None:
    """Print a table for machines."""
    _print(text, _claimed.get() or sys.stdout)


def claim(context: typer.Context, wanted: bool) -> bool:
    """Keep standard output for machines until the command ends, if it is to print for them.

    The callback of the options that ask for that.
    """
    if wanted and _claimed.get() is None:
        whole = context.find_root()  # the context of a command whose options are wrong never closes
        token = _claimed.set(whole.with_resource(claimed_output()))
        whole.call_on_close(lambda: _claimed.reset(token))
    return wanted


def say(line: str) -> None:
    """Print a line on standard error."""
    _print(f"{printable(line, _MAX_LINE)}\n", sys.stderr)


def _print(text: str, stream: TextIO) -> None:
    """Print as long as somebody reads; the command goes on without, to its end and its code.

    Raises:
        OutputError: a standard output is full or closed; of standard error, nobody could be told.
    """
    try:
        stream.write(text.encode(errors="replace").decode())  # names may hold half a character
        stream.flush()
    except OSError as error:
        give_up(stream)
        if stream is not sys.stderr and not isinstance(error, BrokenPipeError):
            raise no_output(error) from error


def no_output(error: OSError) -> OutputError:
    """Return the error that says why standard output can't be written."""
    reason = "it is closed" if error.errno == errno.EBADF else error.strerror
    return OutputError(f"can't write to standard output ({reason}): send it somewhere else")


@contextmanager
def progress(heed: Callable[[], None] | None = None) -> Iterator[Stages]:
    """Yield stages that say on standard error what is going on; libraries print there as well.

    Args:
        heed: called where an interrupt leaves a job something to end with; None for jobs that end.
    """
    from trpexport.stages import Stages

    if not sys.stderr.isatty():
        with claimed_output():
            yield Stages(_reaching(lambda name: say(f"- {name}")), heed)
        return
    from rich.console import Console
    from rich.text import Text

    with claimed_output(), Console(stderr=True).status("starting") as status:
        announce = _reaching(lambda name: status.update(Text(f"{printable(name, 100)} ...")))
        remark = partial(status.console.print, markup=False, soft_wrap=True)
        yield Stages(announce, heed, remark=remark, interval=1)


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
        TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True)),
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
        yield partial(shown.advance, shown.add_task(printable(description, 100), total=total))
