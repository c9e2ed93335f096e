"""The one place that writes: files that appear whole or not at all, and whole lines.

Nothing here replaces what it was not told to: a symbolic link stays a link, a pipe stays a pipe.
What a job that was killed left beside a file, the next one that writes it removes.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import stat
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from trpexport.errors import OutputError
from trpexport.locks import is_at, lock, try_lock
from trpexport.schema import parse_json, read_text

_NAME_LENGTH = 40  # of a place, in the name of what lies beside it
_CHUNK = 65536  # bytes to read at a time
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file as hexadecimal text."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_plain(path: Path) -> None:
    """Refuse a pipe, a socket or a device, which may never end.

    Raises:
        OSError: it is one, or is not there.
    """
    mode = path.stat().st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise OSError(errno.EINVAL, "it is no plain file", str(path))


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn what the file system says against writing ``path`` into one line.

    Raises:
        OutputError: the block raised an OSError.
    """
    try:
        yield
    except OSError as error:
        raise cannot_write(path, error) from error


def cannot_write(path: Path, error: OSError) -> OutputError:
    """Return the error that says why ``path`` can't be written, and what to do."""
    if error.errno in FULL:
        return OutputError(f"can't write {path}: no space left there; free some and run again")
    return OutputError(f"can't write {path}: {error.strerror or error}; choose another place")


@contextmanager
def staged_file(path: Path) -> Iterator[IO[bytes]]:
    """Yield a file that takes the place of ``path`` when the block ends without an error.

    It is written beside that place, and is on the disk before it gets the name. A file that it
    replaces hands on its mode; of a symbolic link, the file behind it is replaced. On an error
    what stood there stays, and nothing else is left.

    Raises:
        OutputError: the place can't be written, is full, or is no plain file.
    """
    with writing(path):
        place = Path(os.path.realpath(path))
        mode = _mode_of_plain_file(place)
        sweep(place)
        staging, file = _new_file(place)
        try:
            with file:
                if mode is not None:
                    staging.chmod(mode)
                yield file
                file.flush()
                os.fsync(file.fileno())  # else the name may outlive a power cut, and not the bytes
                staging.replace(place)
        finally:
            staging.unlink(missing_ok=True)


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file as :func:`staged_file` does.

    Raises:
        OutputError: the place can't be written, is full, or is no plain file.
    """
    with staged_file(path) as file:
        file.write(content)


def files_of(paths: Iterable[Path]) -> dict[str, bytes]:
    """Return the content of files by name, without their folders."""
    return {path.name: path.read_bytes() for path in paths}


def write_files(files: Mapping[str, bytes], folder: Path) -> None:
    """Write files by name into a folder, which is made where there is none."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / Path(name).name).write_bytes(content)


def append_text(path: Path, text: str, *, json_lines: bool = False) -> None:
    """Append lines, so that those of jobs that append at the same time do not mix.

    Where an earlier write was cut short, the text begins on a line of its own.

    Args:
        path: the file, made if it is not there.
        text: whole lines.
        json_lines: each line is a JSON value; half of one, which a kill left, is taken away.

    Raises:
        OutputError: the place can't be written, or is full; no half line is left.
    """
    with writing(path), path.open("ab+", buffering=0) as file:
        lock(file.fileno())
        torn = _last_line(file)
        if torn and json_lines and not is_json(torn):
            file.truncate(file.seek(-len(torn), os.SEEK_END))
            torn = b""
        content = ("\n" * bool(torn) + text).encode()
        written = file.write(content)
        if written < len(content):  # the disk took a part, and would take no more
            file.truncate(file.tell() - written)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        os.fsync(file.fileno())


def is_json(text: str | bytes) -> bool:
    """Tell whether a text is one JSON value."""
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def write_json(path: Path, data: Any) -> None:
    """Write ``data`` as indented JSON, as :func:`staged_file` does.

    Raises:
        OutputError: the place can't be written, is full, or is no plain file.
        ValueError: the data hold NaN or infinity, which JSON has not (a programming error).
    """
    text = json.dumps(data, indent=2, allow_nan=False)
    write_atomically(path, f"{text}\n".encode())


def read_json(path: Path) -> Any:
    """Read a file of JSON.

    Raises:
        OSError: it can't be read, or is no regular file.
        ValueError: as :func:`trpexport.schema.parse_json`.
    """
    return parse_json(read_text(path))


def user_cache() -> Path:
    """Return this library's folder in the user's cache folder, whether or not it is there.

    Raises:
        OutputError: the user has no home.
    """
    # The XDG Base Directory Specification: a relative path is to be ignored.
    chosen = Path(os.environ.get("XDG_CACHE_HOME", ""))
    if chosen.is_absolute():
        return chosen / "trpexport"
    import platformdirs

    with suppress(RuntimeError):  # a user without a home
        found = platformdirs.user_cache_path("trpexport", appauthor=False)
        if found.is_absolute():
            return found
    raise OutputError("this user has no home for a cache folder: set XDG_CACHE_HOME")


def cache_folder(given: Path | None = None) -> Path | None:
    """Return a folder that can be written, for what is worth keeping from run to run.

    Args:
        given: the folder that the user wants; :func:`user_cache` if None.

    Returns:
        The folder; None where the user's cache folder can't be written: that is no reason to stop.

    Raises:
        OutputError: ``given`` can't be written.
    """
    if given is not None:
        return writable_folder(given)
    with suppress(OutputError):
        return writable_folder(user_cache())
    return None


def writable_folder(folder: Path) -> Path:
    """Return ``folder``, which is made if it is not there.

    Raises:
        OutputError: it can't be made or written.
    """
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    return folder


def _last_line(file: IO[bytes]) -> bytes:
    """Return what follows the last newline of a file."""
    line, start = b"", file.seek(0, os.SEEK_END)
    while start and b"\n" not in line:
        size = min(start, _CHUNK)
        start = file.seek(start - size)
        line = file.read(size) + line
    return line.rpartition(b"\n")[2]


def beside(place: Path) -> Path:
    """Return a new hidden name beside ``place``, which tells whose it is if it is ever left."""
    return place.parent / f".{place.name[:_NAME_LENGTH]}.{uuid.uuid4().hex[:8]}.tmp"


def leftovers(place: Path, *suffixes: str) -> list[Path]:
    """Return what lies beside ``place`` under names of :func:`beside`, with one of some suffixes.

    Whether a living process still needs it is for the caller to find out.
    """
    suffix = "|".join(map(re.escape, suffixes))
    ours = re.compile(rf"\.{re.escape(place.name[:_NAME_LENGTH])}\.[0-9a-f]{{8}}({suffix})")
    with suppress(PermissionError):  # a folder may be written, and not listed
        return [path for path in place.parent.iterdir() if ours.fullmatch(path.name)]
    return []


def sweep(place: Path) -> None:
    """Remove the files that killed processes left beside ``place``; living ones hold a lock."""
    for path in leftovers(place, ".tmp"):
        with suppress(OSError):  # it is no file, not ours, or gone
            descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                if try_lock(descriptor) and is_at(descriptor, path):
                    path.unlink()
            finally:
                os.close(descriptor)


def _new_file(place: Path) -> tuple[Path, IO[bytes]]:
    """Return a new file beside ``place``, and its name: locked, so that nobody sweeps it away."""
    while True:
        staging = beside(place)
        file = staging.open("xb")
        if try_lock(file.fileno()) is not False and is_at(file.fileno(), staging):
            return staging, file
        file.close()


def _mode_of_plain_file(place: Path) -> int | None:
    """Return the mode of a file; None if there is none yet.

    Raises:
        OSError: there is something else, whose place a file must not take: a pipe, a device.
    """
    try:
        mode = place.stat().st_mode
    except FileNotFoundError:
        return None
    if not stat.S_ISREG(mode):
        raise FileExistsError(errno.EEXIST, "it is no plain file")
    return stat.S_IMODE(mode)
