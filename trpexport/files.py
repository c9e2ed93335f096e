"""Files that appear whole or not at all, and lines that are appended whole."""

from __future__ import annotations

import errno
import os
import uuid
from contextlib import suppress
from pathlib import Path

from trpexport.errors import OutputError


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file through a temporary one beside it; what stood there before stays on an error.

    Raises:
        OutputError: the place can't be written.
    """
    staging = path.parent / f".{path.name}.{uuid.uuid4().hex[:8]}.tmp"
    try:
        if path.exists() and not path.is_file():  # the rename would put a file in a device's place
            raise FileExistsError(errno.EEXIST, "it is no plain file")
        with staging.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        staging.replace(path)
    except OSError as error:
        raise _cannot_write(path, error) from error
    finally:
        with suppress(OSError):
            staging.unlink()


def append_text(path: Path, text: str) -> None:
    """Append lines in one write, so that jobs that append at the same time do not mix.

    Where an earlier write was cut short, the text begins on a line of its own.

    Args:
        path: the file, made if it is not there.
        text: whole lines.

    Raises:
        OutputError: the place can't be written.
    """
    try:
        with path.open("ab+", buffering=0) as file:
            torn = False
            if file.seek(0, os.SEEK_END):
                file.seek(-1, os.SEEK_END)
                torn = file.read(1) != b"\n"
            file.write(("\n" * torn + text).encode())
            os.fsync(file.fileno())
    except OSError as error:
        raise _cannot_write(path, error) from error


def _cannot_write(path: Path, error: OSError) -> OutputError:
    return OutputError(
        f"can't write {path} ({error.strerror or error}): name another place, or make room there"
    )


def cache_folder(given: Path | None = None) -> Path | None:
    """Return a folder that can be written; None where the user's cache folder can't."""
    text = os.environ.get("XDG_CACHE_HOME", "")
    home = Path(text) if Path(text).is_absolute() else Path.home() / ".cache"
    folder = given or home / "trpexport"
    folder.mkdir(parents=True, exist_ok=True)
    return folder
