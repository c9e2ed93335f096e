"""Which kind of data lies at a path."""

from __future__ import annotations

import zipfile
from pathlib import Path

from trpexport.datasets.imagelist import SUFFIXES as LISTS
from trpexport.datasets.npz import names_images
from trpexport.datasets.tensors import is_target


def kind_of(path: Path) -> str | None:
    """Return by which name of the registry data at a path are read; None where nothing is there.

    Files go by their suffix; of ``.npz`` by what the arrays are called; a folder of ``.npy`` files
    holds tensors, any other folder or file images.
    """
    try:
        if not path.exists():
            return None
        if path.is_dir():
            return "tensors" if any(path.glob("*.npy")) else "imagefolder"
    except (OSError, ValueError):  # no right to look, a null byte
        return None
    suffix = path.suffix.lower()
    if suffix in LISTS:
        return "imagelist"
    if suffix == ".npy":
        return "npy"
    if suffix == ".npz":
        return "npz" if _holds_images(path) else "tensors"
    return "imagefolder"


def _holds_images(path: Path) -> bool:
    """Whether the arrays of a file are called as images and labels are, or there is only one."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = {name.removesuffix(".npy") for name in archive.namelist()}
    except (OSError, ValueError, zipfile.BadZipFile, NotImplementedError):
        return True  # its reader says what is wrong
    return not any(map(is_target, names)) and (len(names) == 1 or names_images(names))
