"""What code of others raised, told in one line: its kind, its own words, and where."""

from __future__ import annotations

import re
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path

from trpexport.text import printable

# What a user's own code is not, by the top of a module's name.
_MACHINERY = frozenset(
    ("trpexport", "torch", "torchgen", "functorch", "onnx", "onnxscript", "onnx_ir", "onnxruntime")
)
_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]")
_LONGEST = 300  # characters of a message: some print a whole graph in one line


def told(error: BaseException) -> str:
    """Return what an exception is and says, and where: ``KeyError: 'width', nets.py:12``."""
    kind, text, place = type(error).__name__, first_line(error), place_of(error)
    said = f"{kind}: {text}" if text else kind
    return f"{said}, {place}" if place else said


def cause_of(error: BaseException) -> BaseException:
    """Return the exception that an exception was raised from first: what really went wrong."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def first_line(message: object) -> str:
    """Return the first line that says something: without control characters, and not too long."""
    plain = _ESCAPES.sub("", str(message))
    line = next((line.strip() for line in plain.splitlines() if line.strip()), "")
    return printable(line, _LONGEST)


def place_of(error: BaseException) -> str | None:
    """Return file and line in the user's own code that an exception went through last, or None.

    Where it went through installed packages alone, it is the place in those.
    """
    installed = None
    for file, line in reversed(list(_places(error))):
        place = f"{_short(file)}:{line}"
        if "site-packages" not in file.parts and "dist-packages" not in file.parts:
            return place
        installed = installed or place
    return installed


def _places(error: BaseException) -> Iterator[tuple[Path, int]]:
    """Yield file and line of each frame that is not of the machinery, from the outside in."""
    for frame, line in traceback.walk_tb(error.__traceback__):
        top = str(frame.f_globals.get("__name__", "")).partition(".")[0]
        file = frame.f_code.co_filename
        if top not in _MACHINERY and top not in sys.stdlib_module_names and file[:1] != "<":
            yield Path(file), line


def _short(file: Path) -> Path:
    """Return a file's path as it is from here, or its last two parts."""
    try:
        return file.relative_to(Path.cwd())
    except ValueError:
        return Path(*file.parts[-2:])
