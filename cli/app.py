"""The application: all commands, and how errors become one line and an exit code."""

from __future__ import annotations

import errno
import os
import sys
import warnings
from collections.abc import Iterable, Sequence
from contextlib import suppress
from importlib import import_module
from typing import Annotated, Any

import typer

import trpexport
from trpexport.errors import OutputError, TrpexportError
from trpexport.standard_output import give_up

from .console import errors_for_machines, no_output, say
from .interrupts import InterruptedCommand, ended_by_signals
from .retyped import TYPED

_NAME, _COMPLETION = "trpexport", "_TRPEXPORT_COMPLETE"

# The base of everything that the parser raises about what was typed; typer exports no more of it.
_UsageError: Any = typer.BadParameter.__base__

# Parameters of the library that commands call by another name.
_OTHER_NAMES = {"shapes": "shape", "outputs": "output", "replace": "force", "decoders": "workers"}

# What the extras bring: a command that needs one of them says so.
_OPTIONAL = {"torch", "onnx", "onnxruntime", "onnxscript", "safetensors", "scipy"}

# What a write to standard output fails with.
_OUTPUT_ERRORS = (errno.EPIPE, errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EBADF)

# Where each command is: module and function.
_COMMANDS = {
    "train": "train:train",
    "inspect": "inspect:inspect",
    "decompose": "decompose:decompose",
    "finetune": "finetune:finetune",
    "export": "export:export",
    "tune": "tune:tune",
    "quantize": "quantize:quantize",
    "verify": "verify:verify",
    "flops": "flops:flops",
    "bench": "bench:bench",
    "eval": "eval:eval_",
    "gate": "gate:gate",
    "arm-setup": "arm_setup:arm_setup",
    "doctor": "doctor:doctor",
}


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
) -> None:
    """Low-rank CNNs from training to the edge: decompose, verify, export, measure."""


def application(names: Iterable[str] = _COMMANDS) -> typer.Typer:
    """Return the command line with some commands: what others import and declare takes time."""
    # Plain help pages: rich ones would double the time that --help takes.
    app = typer.Typer(
        name=_NAME,
        add_completion=True,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_root)
    for name in names:
        module, _, function = _COMMANDS[name].partition(":")
        app.command(name)(getattr(import_module(f".{module}", __package__), function))
    return app


def run(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code; errors are one line on standard error.

    Args:
        arguments: what was typed after ``trpexport``; the process's own arguments where None.
    """
    typed = list(sys.argv[1:] if arguments is None else arguments)
    with errors_for_machines() as tell_machines:
        message, code = _run(typed)
        if message is not None:
            message = " ".join(message.split())
            say(f"error: {message}")
            if "--json" in typed:
                with suppress(OutputError):  # of which standard error was told
                    tell_machines(message, code)
    return code


def _run(typed: list[str]) -> tuple[str | None, int]:
    """Run a command and return what it failed by, if it did, and its exit code."""
    # Of a damaged image: what matters of it becomes an error.
    warnings.filterwarnings("ignore", module=r"PIL\.")
    try:
        with ended_by_signals():
            return None, _invoke(typed or ["--help"])
    except InterruptedCommand as error:
        return str(error), error.exit_code
    except TrpexportError as error:
        return f"{error}{_options(error, typed)}", error.exit_code
    except _UsageError as error:
        context = error.ctx.command_path if error.ctx else "trpexport"
        return f"{error.format_message().rstrip('.')}: see {context} --help", 2
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] not in _OPTIONAL:
            raise
        return f'{error.name} is not installed: pip install "trpexport[cpu]"', 2
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


def _invoke(typed: list[str]) -> int:
    """Run a command and return its exit code."""
    if _COMPLETION in os.environ:  # a shell asks for words
        typer.main.get_command(application()).main(typed, prog_name=_NAME)
    command = _group(typed)
    # What main() does else, but that it answers interrupts and closed pipes in a way of its own.
    try:
        with command.make_context(_NAME, [*typed]) as context:
            context.meta[TYPED] = typed
            command.invoke(context)
    except typer.Exit as ended:
        return ended.exit_code
    return 0


def _group(typed: list[str]) -> Any:
    """Return the command that was typed, or all where none was: for help, or for near names."""
    chosen = [name for name in typed[:1] if name in _COMMANDS]
    return typer.main.get_command(application(chosen or _COMMANDS))


def _options(error: TrpexportError, typed: list[str]) -> str:
    """Return the options of the command that mend an error, in brackets; empty if it has none."""
    names = [_OTHER_NAMES.get(name, name.replace("-", "_")) for name in error.parameters]
    command = _group(typed).commands[typed[0]]
    known = {
        parameter.name: parameter.opts[0]
        for parameter in command.params
        if parameter.param_type_name == "option"
    }
    options = [known[name] for name in names if name in known]
    return f" ({', '.join(options)})" if options else ""
