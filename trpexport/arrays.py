"""Named arrays in one file: NumPy's own ``.npz``, so that anybody can read it."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np

from trpexport.errors import ModelError, TrpexportError
from trpexport.files import check_plain, staged_file
from trpexport.supervision import MEMORY_VARIABLE, memory_allowance
from trpexport.tensors import Array, Arrays

_SUFFIX = ".npy"  # of every entry, by NumPy's own format


def write_arrays(path: Path, arrays: Arrays, *, compressed: bool = False) -> None:
    """Write named arrays to one ``.npz`` file; the same arrays are the same bytes.

    Args:
        path: the file, which appears whole or not at all.
        arrays: any names will do, also those that numpy.savez takes for its own arguments.
        compressed: take longer for a smaller file.

    Raises:
        OutputError: the place can't be written.
        ValueError: an array holds Python objects (a programming error).
    """
    method = zipfile.ZIP_DEFLATED if compressed else zipfile.ZIP_STORED
    with staged_file(path) as file, zipfile.ZipFile(file, "w", method) as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}{_SUFFIX}", "w", force_zip64=True) as entry:
                np.lib.format.write_array(entry, np.asanyarray(array), allow_pickle=False)


def read_arrays(
    path: Path, *, remedy: str = "run again", error: type[TrpexportError] = ModelError
) -> dict[str, Array]:
    """Read all arrays of a file; nothing in it is executed.

    Args:
        path: a file of :func:`write_arrays` or numpy.savez; or one of numpy.save, whose array
            then has the file's name.
        remedy: what to do about another file, for the message.
        error: what is raised.

    Raises:
        TrpexportError: ``error``, for a file that can't be read, is damaged or something else.
    """
    try:
        check_plain(path)
        with path.open("rb") as file:
            if file.read(len(np.lib.format.MAGIC_PREFIX)) == np.lib.format.MAGIC_PREFIX:
                file.seek(0)
                return {path.stem: np.lib.format.read_array(file, allow_pickle=False)}
            with zipfile.ZipFile(file) as archive:
                check_unpacked(archive, path.stat().st_size)
                return {
                    name.removesuffix(_SUFFIX): _read_entry(archive, name)
                    for name in archive.namelist()
                }
    except TrpexportError as refusal:
        raise error(str(refusal)) from None
    except OSError as refusal:
        raise error(f"can't read {path}: {refusal.strerror or refusal}") from None
    except Exception as damage:  # zipfile and numpy raise a dozen types
        raise error(f"{path} is damaged or holds no arrays: {remedy}") from damage


def check_unpacked(archive: zipfile.ZipFile, file_bytes: int) -> None:
    """Refuse an archive that unpacks to far more than it is.

    Args:
        archive: the archive.
        file_bytes: size of its file.

    Raises:
        ModelError: it does.
    """
    unpacked = sum(entry.file_size for entry in archive.infolist())
    if unpacked > memory_allowance(file_bytes):
        raise ModelError(
            f"{archive.filename} unpacks to {unpacked / (1 << 30):.1f} GiB, far more than it is: "
            f"save it uncompressed, or allow more memory, as in {MEMORY_VARIABLE}=16G"
        )


def _read_entry(archive: zipfile.ZipFile, name: str) -> Array:
    with archive.open(name) as entry:
        array: Array = np.lib.format.read_array(entry, allow_pickle=False)
        if entry.read(1):  # reading to the end is also what compares the checksum
            raise ValueError("something behind the array")
    return array
