"""Folders of files, on disk or inside of a tar."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import tarfile
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, BinaryIO, Self, cast

from trpexport.datasets.locations import read_bytes, reason, unreadable
from trpexport.errors import DataError
from trpexport.supervision import memory_allowance
from trpexport.text import printable

_COMPRESSED_LIMIT = 4 << 30


class Tree(ABC):
    """Folders of files. Names are relative, with forward slashes; hidden ones are left out.

    A tree can be used by threads and by other processes, however these are started: a file is
    opened anew for each reading.

    Attributes:
        path: of the folder or tar.
    """

    path: Path

    @abstractmethod
    def folders(self, at: str) -> list[str]:
        """Return the names of the folders in a folder, sorted; ``at`` is "" at the top."""

    @abstractmethod
    def files(self, at: str) -> list[str]:
        """Return the files in a folder and those below it, sorted, by their names from the top."""

    @abstractmethod
    def read(self, name: str) -> bytes:
        """Read a file.

        Raises:
            DataError: it can't be read.
        """

    @abstractmethod
    def describe(self, name: str) -> str:
        """Return what to call a file or folder in a message."""


@dataclass(frozen=True)
class Directory(Tree):
    """A folder on disk."""

    path: Path

    def folders(self, at: str) -> list[str]:
        """Return the names of the folders in a folder, sorted."""
        try:
            with os.scandir(self.path / at) as entries:
                return sorted(e.name for e in entries if _is_visible(e.name) and e.is_dir())
        except OSError as error:
            unreadable(error)

    def files(self, at: str) -> list[str]:
        """Return the files in a folder and those below it, sorted, by their names from the top."""
        found = []
        for folder, inner, files in os.walk(self.path / at, onerror=unreadable):
            inner[:] = filter(_is_visible, inner)
            below = Path(folder).relative_to(self.path).as_posix()
            found += [f"{below}/{name}" for name in files if _is_visible(name)]
        return sorted(found)

    def read(self, name: str) -> bytes:
        """Read a file."""
        return read_bytes(self.path / name)

    def describe(self, name: str) -> str:
        """Return the path."""
        return str(self.path / name)


@dataclass(frozen=True)
class Tar(Tree):
    """A tar. Nothing is extracted from it: its files are read where they lie.

    Attributes:
        path: of the tar.
        places: offset and size in bytes of each file; or its content, where the tar is compressed.
        contents: the files in each folder, without those below it.
    """

    path: Path
    places: dict[str, tuple[int, int] | bytes] = field(default_factory=dict)
    contents: dict[str, list[str]] = field(default_factory=dict)

    def folders(self, at: str) -> list[str]:
        """Return the names of the folders in a folder, sorted."""
        return sorted(f.rpartition("/")[2] for f in self.contents if f and _parent(f) == at)

    def files(self, at: str) -> list[str]:
        """Return the files in a folder and those below it, sorted, by their names from the top."""
        below = (f for f in self.contents if not at or f == at or f.startswith(f"{at}/"))
        return sorted(name for folder in below for name in self.contents[folder])

    def read(self, name: str) -> bytes:
        """Read a file."""
        place = self.places[name]
        if isinstance(place, bytes):
            return place
        offset, size = place
        try:
            with self.path.open("rb") as file:
                file.seek(offset)
                return file.read(size)
        except OSError as error:
            unreadable(error)

    def describe(self, name: str) -> str:
        """Return the name of the tar and the name in it."""
        return f"{self.path}: {name}"


def open_tree(path: Path, suffixes: Iterable[str]) -> Tree:
    """Open a folder or a tar; a compressed tar is read as a whole.

    Args:
        path: of the folder or tar.
        suffixes: in lower case, of the files that matter.

    Raises:
        DataError: it can't be read, is no tar, is damaged, or is too large for being compressed.
    """
    return Directory(path) if path.is_dir() else _open_tar(path, tuple(suffixes))


def _open_tar(path: Path, suffixes: tuple[str, ...]) -> Tar:
    try:
        with path.open("rb") as file:
            stream = _decompressed(file)
            if stream is None:
                return _index(path, file, suffixes, keep=False)
            with stream:
                return _index(path, stream, suffixes, keep=True)
    except OSError as error:
        if error.errno is not None:
            unreadable(error)
        raise _no_tar(path, error) from error  # gzip.BadGzipFile, and what bz2 raises
    except (tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, ValueError) as error:
        raise _no_tar(path, error) from error


def _decompressed(file: BinaryIO) -> IO[bytes] | None:
    """Return what is in a compressed file, None where it is not compressed."""
    start = file.read(6)
    file.seek(0)
    if start.startswith(b"\x1f\x8b"):
        return cast("IO[bytes]", gzip.open(file))
    if start.startswith(b"BZh"):
        return bz2.open(file)
    if start.startswith(b"\xfd7zXZ\x00"):
        return lzma.open(file)
    return None


def _no_tar(path: Path, error: Exception) -> DataError:
    return DataError(
        f"{printable(path)} is no folder and can't be read as a tar ({reason(error)}): name a "
        "folder, or download or copy the tar again"
    )


class _StrictHeader(tarfile.TarInfo):
    """A header of a tar; where it is damaged or missing, that is not taken for the tar's end."""

    @classmethod
    def fromtarfile(cls, tar: tarfile.TarFile) -> Self:
        try:
            return super().fromtarfile(tar)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]
            raise
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(str(error)) from error


def _index(path: Path, stream: IO[bytes], suffixes: tuple[str, ...], *, keep: bool) -> Tar:
    """List the files of a tar; ``keep`` them in memory, where they can't be read again in place."""
    tree = Tar(path)
    limit = min(_COMPRESSED_LIMIT, memory_allowance(path.stat().st_size))
    with tarfile.open(fileobj=stream, mode="r:", tarinfo=_StrictHeader) as tar:
        while (member := tar.next()) is not None:
            tar.members = []  # type: ignore[attr-defined]  # else all headers stay in memory
            if keep and member.offset_data + member.size > limit:
                raise DataError(
                    f"{printable(path)} is compressed and holds over {limit / (1 << 30):.1f} GiB: "
                    "decompress it, a plain tar is read where it lies"
                )
            name = _normalised(member.name)
            if not name or not all(map(_is_visible, name.split("/"))):
                continue
            _add_folder(tree, name if member.isdir() else _parent(name))
            if member.isdir() or not name.lower().endswith(suffixes):
                continue
            if name not in tree.places:  # else a later version replaces it, as in extracting
                tree.contents.setdefault(_parent(name), []).append(name)
            tree.places[name] = _place(tree, member, stream if keep else None)
    while keep and stream.tell() < 2 * limit and stream.read(1 << 20):
        pass  # the checksum comes last, behind zeros
    return tree


def _place(tree: Tar, member: tarfile.TarInfo, stream: IO[bytes] | None) -> tuple[int, int] | bytes:
    linked = tree.places.get(_normalised(member.linkname)) if member.islnk() else None
    if linked is not None:
        return linked
    if not member.isreg() or member.issparse():
        raise DataError(
            f"{printable(tree.describe(member.name))} is a link or no plain file: pack the folder "
            "again with tar --dereference --hard-dereference"
        )
    return (member.offset_data, member.size) if stream is None else stream.read(member.size)


def _add_folder(tree: Tar, folder: str) -> None:
    while folder and folder not in tree.contents:
        tree.contents[folder] = []
        folder = _parent(folder)


def _parent(name: str) -> str:
    return name.rpartition("/")[0]


def _normalised(name: str) -> str:
    """Return the name of a member without a leading ``./`` or ``/``."""
    return "/".join(part for part in name.split("/") if part not in ("", "."))


def _is_visible(name: str) -> bool:
    """Say whether a file or folder is the user's: no .DS_Store, no ._name that macOS adds."""
    return not name.startswith(".") and name != "__MACOSX"
