"""Somebody's own function or class, named as ``package.module:function``."""

from __future__ import annotations

import importlib
import operator
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import chdir, contextmanager
from pathlib import Path
from types import ModuleType

from trpexport.foreign import told

Refuse = Callable[[str], Exception]  # the error for a reason


@contextmanager
def importable_working_directory() -> Iterator[None]:
    """Let modules in the current directory be imported, as ``python -m`` does."""
    directory = str(Path.cwd())
    sys.path.insert(0, directory)
    try:
        yield
    finally:
        if directory in sys.path:
            sys.path.remove(directory)


@contextmanager
def started_in(directory: str) -> Iterator[None]:
    """Work in the directory that a job was started in, if it is here, as ``python -m`` does."""
    with (
        chdir(directory if Path(directory).is_dir() else os.curdir),
        importable_working_directory(),
    ):
        yield


def imported(text: str, refused: Refuse, usage: str) -> Callable[..., object]:
    """Import what ``package.module:function`` names.

    Args:
        text: the name.
        refused: makes the error that is raised, of a reason.
        usage: what it should look like, for the message.

    Raises:
        Exception: that of ``refused``, where the name, the module or what it has can't be used.
    """
    module_name, _, attribute = text.partition(":")
    if not all(part.isidentifier() for part in f"{module_name}.{attribute}".split(".")):
        raise refused(f"it must be {usage}")
    found = _attribute(_import(module_name, refused), attribute, refused)
    if not callable(found):
        raise refused(f"{attribute} is a {type(found).__name__}, not a function or class")
    return found


def _import(name: str, refused: Refuse) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        missing = error.name or name
        if f"{name}.".startswith(f"{missing}."):
            remedy = "run from the folder that has it, or install it"
            raise refused(f"there is no module {missing}: {remedy}") from error
        raise refused(f"{name} needs the module {missing}: install it") from error
    except (Exception, SystemExit) as error:  # foreign code; a script may also exit
        raise refused(
            f"importing {name} raised {told(error)}; "
            "keep what runs a training behind if __name__ == '__main__'"
        ) from error


def _attribute(module: ModuleType, attribute: str, refused: Refuse) -> object:
    try:
        return operator.attrgetter(attribute)(module)
    except AttributeError as error:
        public = [n for n, v in vars(module).items() if callable(v) and not n.startswith("_")]
        choice = f"it has {', '.join(sorted(public)[:8])}" if public else "it has no functions"
        raise refused(f"{module.__name__} has no {attribute}; {choice}") from error
