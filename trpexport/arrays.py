"""Named arrays in one file: NumPy's own ``.npz``, so that anybody can read it."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np

from trpexport.errors import ModelError, TrpexportError
from trpexport.files import staged_file
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
        with path.open("rb") as file:
            if file.read(len(np.lib.format.MAGIC_PREFIX)) == np.lib.format.MAGIC_PREFIX:
                file.seek(0)
                return {path.stem: np.lib.format.read_array(file, allow_pickle=False)}
            with zipfile.ZipFile(file) as archive:
                return {
                    name.removesuffix(_SUFFIX): _read_entry(archive, name)
                    for name in archive.namelist()
                }
    except OSError as refusal:
        raise error(f"can't read {path}: {refusal.strerror or refusal}") from None
    except Exception as damage:  # zipfile and numpy raise a dozen types
        raise error(f"{path} is damaged or holds no arrays: {remedy}") from damage


def _read_entry(archive: zipfile.ZipFile, name: str) -> Array:
    with archive.open(name) as entry:
        array: Array = np.lib.format.read_array(entry, allow_pickle=False)
        if entry.read(1):  # reading to the end is also what compares the checksum
            raise ValueError("something behind the array")
    return array
