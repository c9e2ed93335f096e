"""What goes to the terminal: tables and JSON to standard output, progress to standard error."""

from __future__ import annotations

import errno
import json
import os
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, TextIO

import typer

from trpexport.errors import OutputError
from trpexport.standard_output import claimed_output, give_up
from trpexport.text import printable

from .heartbeat import Heartbeat
from .interrupts import reach
from .voice import origin, voice

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
    return _console(width=None if sys.stdout.isatty() else PIPE_WIDTH)


def _console(**options: Any) -> Console:
    """Return a console of rich; one without any styles, bold ones too, where NO_COLOR is set."""
    from rich.console import Console

    if os.environ.get("NO_COLOR"):
        options["color_system"] = None
    return Console(highlight=False, **options)


def show(*blocks: Block) -> None:
    """Print tables and sentences."""
    from trpexport.report.render.rich import print_blocks

    target = console()
    with target.capture() as text:
        print_blocks(blocks, target)
    voice().log(text.get())
    if voice().is_quiet:
        voice().last = _last_line(blocks, target)
    else:
        _print(text.get(), sys.stdout)


def _last_line(blocks: Sequence[Block], target: Console) -> str:
    """Return what is said of blocks in one line: the verdict, else the last there is."""
    from trpexport.report.blocks import Role, Text
    from trpexport.report.render.rich import print_blocks

    verdicts = [one for one in blocks if isinstance(one, Text) and one.role is Role.VERDICT]
    aside = (Role.NOTE, Role.COMMAND)
    found = [one for one in blocks if not (isinstance(one, Text) and one.role in aside)]
    with target.capture() as text:
        print_blocks(verdicts[-1:] or found or blocks, target)
    lines = [line for line in text.get().splitlines() if line.strip()]
    return f"{lines[-1]}\n" if lines else ""


def end() -> None:
    """Print the last line of a quiet command, if it has one."""
    if voice().last:
        _print(voice().last or "", sys.stdout)


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
    text = json.dumps(data, indent=2, allow_nan=False) + "\n"
    voice().log(text)
    _print(text, _claimed.get() or sys.stdout)


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


def show_text(text: str) -> None:
    """Print text for machines: CSV, Markdown."""
    voice().log(text)
    _print(text, _claimed.get() or sys.stdout)


def claim(context: typer.Context, option: typer.CallbackParam, wanted: bool) -> bool:
    """Keep standard output for machines until the command ends, if it is to print for them.

    The callback of the options that ask for that.
    """
    voice().is_for_machines |= wanted and option.name == "as_json"
    if wanted and _claimed.get() is None:
        whole = context.find_root()  # the context of a command whose options are wrong never closes
        token = _claimed.set(whole.with_resource(claimed_output()))
        whole.call_on_close(lambda: _claimed.reset(token))
    return wanted


def say(line: str) -> None:
    """Print a line on standard error, if the command is not to be quiet."""
    line = printable(line, _MAX_LINE)
    voice().log(f"{voice().timed(line)}\n")
    if not voice().is_quiet:
        _print(f"{voice().timed(line) if voice().is_verbose else line}\n", sys.stderr)


def note(text: str) -> None:
    """Have a line printed once it is known how much the command is to say."""
    voice().notes.append(text)


def say_notes() -> None:
    """Print the lines that waited for that."""
    while voice().notes:
        say(f"note: {voice().notes.pop(0)}")


def complain(text: str) -> None:
    """Print a line on standard error, also if the command is to be quiet."""
    line = f"{printable(text, _MAX_LINE)}\n"
    voice().log(line)
    _print(line, sys.stderr)


def say_origin(error: BaseException) -> None:
    """Print where an error comes from on standard error, if the command is to be verbose."""
    text = origin(error)
    voice().log(text)
    if voice().is_verbose:
        _print("".join(f"{printable(line)}\n" for line in text.splitlines()), sys.stderr)


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
    from trpexport.stages import Stages, steps_in

    if not watched():
        heartbeat = Heartbeat(lambda line: say(f"- {line}"))

        def said(name: str) -> None:
            heartbeat.heard(name)
            say(f"- {name}")

        with claimed_output(), heartbeat.beating():
            yield Stages(_reaching(said), heed)
        return
    with claimed_output(), _stage_bar() as shown:
        shown.add_task("starting", total=None)

        turn = Lock()  # jobs may have threads, each of which says what is going on

        def announce(name: str) -> None:
            voice().log(f"{voice().timed(printable(name))}\n")
            done = steps_in(name)
            text = printable(name, 100)
            with turn:
                if done is None:  # its time begins now
                    for old in shown.task_ids:
                        shown.remove_task(old)
                    shown.add_task(text, total=None)
                else:
                    (task,) = shown.task_ids
                    shown.update(task, description=text, completed=done[0], total=done[1])

        def remark(line: str) -> None:
            voice().log(f"{voice().timed(printable(line))}\n")
            shown.console.print(printable(line), markup=False, soft_wrap=True)

        yield Stages(_reaching(announce), heed, remark=remark, interval=1)


def watched() -> bool:
    """Whether somebody watches something move on standard error."""
    return sys.stderr.isatty() and not (voice().is_quiet or voice().is_verbose)


def _reaching(announce: Callable[[str], None]) -> Callable[[str], None]:
    """Return what announces a stage, and has an interrupt say which it was."""

    def announced(name: str) -> None:
        reach(name)
        announce(name)

    return announced


def _stage_bar() -> Progress:
    """Return what shows a stage on standard error: its name, how long it takes, a bar if known."""
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Task as Shown
    from rich.table import Column
    from rich.text import Text

    class KnownBar(BarColumn):
        def render(self, task: Shown) -> Any:
            return Text("") if task.total is None else super().render(task)

    return Progress(
        SpinnerColumn(),
        KnownBar(bar_width=20),
        TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True)),
        TimeElapsedColumn(),
        console=_console(stderr=True),
        transient=True,
    )


def progress_bar() -> Progress:
    """Return what shows a bar on standard error: one line, that fills the terminal's width."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
    from rich.progress import TimeRemainingColumn as Remaining
    from rich.table import Column

    # The bar takes what the rest leaves.
    return Progress(
        TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True)),
        BarColumn(bar_width=None, table_column=Column(ratio=1)),
        MofNCompleteColumn(table_column=Column(no_wrap=True)),
        Remaining(compact=True, table_column=Column(no_wrap=True)),
        console=_console(stderr=True),
        expand=True,
    )


@contextmanager
def bar(total: int, description: str) -> Iterator[Callable[[int], None]]:
    """Yield a function that moves a progress bar on standard error; a line now and then in a log.

    Args:
        total: where it ends.
        description: what is going on.
    """
    reach(description)
    if not watched():
        from trpexport.stages import Countdown, Stages

        countdown, stages = Countdown(total), Stages(lambda line: say(f"- {line}"))
        yield lambda count: stages.progress(f"{description}: {countdown.step(count)}")
        return
    with progress_bar() as shown:
        yield partial(shown.advance, shown.add_task(printable(description, 100), total=total))
