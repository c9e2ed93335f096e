"""The application: all commands, and how errors become one line and an exit code."""

from __future__ import annotations

import errno
import os
import sys
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib import import_module
from typing import Annotated, Any

import typer

import trpexport
from trpexport.errors import OutputError, TrpexportError
from trpexport.standard_output import give_up

from .aliases import modern
from .commands import COMMANDS
from .console import complain, end, errors_for_machines, no_output, note, say, say_notes, say_origin
from .interrupts import InterruptedCommand, ended_by_signals
from .pages import Command, Group
from .retyped import TYPED
from .settings import Config, given_options, source_of
from .voice import LogFile, Quiet, Verbose, speaking, voice

_NAME, _COMPLETION = "trpexport", "_TRPEXPORT_COMPLETE"

_MAX_WIDTH = 10_000  # of help pages: that of the terminal

# The base of everything that the parser raises about what was typed; typer exports no more of it.
_UsageError: Any = typer.BadParameter.__base__

# Parameters of the library that commands call by another name.
_OTHER_NAMES = {
    "shapes": ("input_shape",),
    "outputs": ("output",),
    "replace": ("force",),
    "decoders": ("workers",),
    "batch_size": ("batch",),
    "limit": ("data_images", "images"),
    "data": ("inputs",),
    "error": ("target_error", "max_error"),
    "speedup": ("min_speedup",),
    "seconds": ("max_latency",),
    "drop": ("max_drop",),
}

# What the extras bring: a command that needs one of them says so.
_OPTIONAL = {"torch", "onnx", "onnxruntime", "onnxscript", "safetensors", "scipy"}

# What a write to standard output fails with.
_OUTPUT_ERRORS = (errno.EPIPE, errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EBADF)

# Options of every command, typed before its name or behind it, and those of them with a value.
_SHARED = ("quiet", "verbose", "log_file", "config")
_VALUED = ("--log-file", "--config")


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"trpexport {trpexport.__version__}")
        raise typer.Exit


def _root(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
    log_file: LogFile = None,
    config: Config = None,
) -> None:
    """Low-rank CNNs from training to the edge: decompose, verify, export, measure.

    trpexport COMMAND --help explains a command and its options.

    Example:
        trpexport inspect network.pth
        trpexport decompose network.pth --calib cifar10:DIR --target-macs 0.5
        trpexport bench network-spatial
    """


class _Command(Command):
    """A command that says what there is to say before its work."""

    def invoke(self, ctx: Any) -> Any:
        """Run it."""
        say_notes()
        if voice().is_verbose:
            say(f"options: {given_options(ctx) or 'all as by default'}")
        return super().invoke(ctx)


def application(names: Iterable[str] = COMMANDS) -> typer.Typer:
    """Return the command line with some commands: what others import and declare takes time."""
    # Plain help pages: rich ones would double the time that --help takes.
    app = typer.Typer(
        name=_NAME,
        add_completion=True,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        cls=Group,
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": _MAX_WIDTH},
    )
    app.callback()(_root)
    for name in names:
        module, _, function = COMMANDS[name].partition(":")
        settings = {"max_content_width": _MAX_WIDTH}
        command = getattr(import_module(f".{module}", __package__), function)
        app.command(name, cls=_Command, context_settings=settings)(command)
    return app


def run(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code; errors are one line on standard error.

    Args:
        arguments: what was typed after ``trpexport``; the process's own arguments where None.
    """
    typed = list(sys.argv[1:] if arguments is None else arguments)
    with speaking(typed) as own, errors_for_machines() as tell_machines:
        message, code = _run(typed)
        if message is not None:
            message = " ".join(message.split())
            say_notes()
            complain(f"error: {message}")
            if own.is_for_machines or "--json" in typed:  # behind what could not be read, too
                with suppress(OutputError):  # of which standard error was told
                    tell_machines(message, code)
    return code


def _run(typed: list[str]) -> tuple[str | None, int]:
    """Run a command and return what it failed by, if it did, and its exit code."""
    # Of a damaged image: what matters of it becomes an error.
    warnings.filterwarnings("ignore", module=r"PIL\.")
    try:
        place = _place(typed)
        typed[place:] = modern(typed[place:], note)
        with ended_by_signals(), _traced():
            code = _invoke(typed or ["--help"])
            end()
            return None, code
    except InterruptedCommand as error:
        return str(error), error.exit_code
    except TrpexportError as error:
        return f"{error}{_options(error, typed)}", error.exit_code
    except _UsageError as error:
        context = error.ctx.command_path if error.ctx else "trpexport"
        source = source_of(error.ctx, getattr(getattr(error, "param", None), "name", None))
        where = "" if source is None else f" in {source}"
        return f"{error.format_message().rstrip('.')}{where}: see {context} --help", 2
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] not in _OPTIONAL:
            raise
        from trpexport.installing import install_command

        return f"{error.name} is not installed: {install_command('cpu')}", 2
    except OSError as error:
        if error.errno in _OUTPUT_ERRORS and error.filename is None:  # as of a help page
            give_up(sys.stdout)
            return (None, 0) if error.errno == errno.EPIPE else (str(no_output(error)), 2)
        if error.filename is None:
            raise
        # A path that can't even be asked about: too long, or not ours to see.
        return f"can't use {error.filename}: {error.strerror}; check the path", 2
    except MemoryError:
        return "there is not enough memory: give a smaller batch, or smaller images", 2


@contextmanager
def _traced() -> Iterator[None]:
    """Have verbose commands say where an error comes from, unless it is of what was typed."""
    try:
        yield
    except _UsageError:
        raise
    except Exception as error:
        say_origin(error)
        raise


def _invoke(typed: list[str]) -> int:
    """Run a command and return its exit code."""
    if _COMPLETION in os.environ:  # a shell asks for words
        command_line().main(typed, prog_name=_NAME)
    command = _group(typed)
    # What main() does else, but that it answers interrupts and closed pipes in a way of its own.
    try:
        with command.make_context(_NAME, [*typed]) as context:
            context.meta[TYPED] = typed
            command.invoke(context)
    except typer.Exit as ended:
        return ended.exit_code
    return 0


def command_line(names: Iterable[str] = COMMANDS) -> Any:
    """Return some commands, each with the options that all have."""
    group: Any = typer.main.get_command(application(names))
    shared = [one for one in group.params if one.name in _SHARED]
    for one in shared:
        one.expose_value = False  # their callbacks do all there is to do
    for command in group.commands.values():
        command.params += shared
    return group


def _group(typed: list[str]) -> Any:
    """Return the command that was typed, or all where none was: for help, or for near names."""
    chosen = typed[_place(typed) :][:1]
    return command_line(chosen if chosen and chosen[0] in COMMANDS else COMMANDS)


def _place(typed: list[str]) -> int:
    """Return where the command's name stands among what was typed: behind options of all."""
    place = 0
    while place < len(typed) and typed[place].startswith("-"):
        place += 2 if typed[place] in _VALUED else 1
    return place


def _options(error: TrpexportError, typed: list[str]) -> str:
    """Return the options of the command that mend an error, in brackets; empty if it has none."""
    group = _group(typed)
    command = group.commands.get("".join(typed[_place(typed) :][:1]), group)
    known = {
        parameter.name: parameter.opts[0]
        for parameter in command.params
        if parameter.param_type_name == "option"
    }
    options = [
        next(known[own] for own in names if own in known)
        for name in error.parameters
        if known.keys() & (names := (name.replace("-", "_"), *_OTHER_NAMES.get(name, ())))
    ]
    return f" ({', '.join(options)})" if options else ""
