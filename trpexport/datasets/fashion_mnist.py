"""Fashion-MNIST (Xiao et al., arXiv 1708.07747): 28x28 grey images in IDX files."""

from __future__ import annotations

import gzip
import math
import zlib
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trpexport.datasets.base import Dataset, Reader
from trpexport.datasets.labelled import array_split
from trpexport.datasets.locations import damaged, existing, read_bytes
from trpexport.datasets.preprocessing import Preprocessing
from trpexport.datasets.registry import DATASETS
from trpexport.datasets.splits import ArraySplit
from trpexport.errors import DataError
from trpexport.supervision import memory_allowance
from trpexport.text import printable

USAGE = "fashion-mnist:DIR"
DEBIAN = Path("/usr/share/datasets/fashion-mnist")
_CLASSES = (
    *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
    *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
)
_FILES = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}
_UNSIGNED_BYTE = 8  # in the third byte of an IDX file, the type of its values


def open_fashion_mnist(location: str | None) -> Dataset:
    """Open the four IDX files, plain or gzipped, in a folder or in ``FashionMNIST/raw`` below it.

    Without a path they are looked for where Debian's package dataset-fashion-mnist puts them.

    Raises:
        DataError: they are not there.
    """
    if location is None and not DEBIAN.is_dir():
        raise DataError(
            f"there is no {DEBIAN}: install the Debian package dataset-fashion-mnist, or write "
            f"{USAGE}"
        )
    path = DEBIAN if location is None else existing(location, USAGE)
    raw = path / "FashionMNIST/raw"
    folder = raw if raw.is_dir() else path
    files = {split: [_find(folder, name) for name in names] for split, names in _FILES.items()}
    return Dataset(
        name="fashion-mnist" if location is None else f"fashion-mnist:{location}",
        classes=_CLASSES,
        channels=1,
        preprocessing=Preprocessing((0.286,), (0.353,)),
        readers={split: partial(_read, *paths) for split, paths in files.items()},
    )


def _find(folder: Path, name: str) -> Path:
    for path in (folder / name, folder / f"{name}.gz"):
        if path.is_file():
            return path
    raise DataError(
        f"{printable(folder)} has no {name} and no {name}.gz: name the folder with the four files "
        "of Fashion-MNIST"
    )


def _read(images: Path, labels: Path) -> ArraySplit:
    pixels = read_idx(images, 3)
    return array_split(pixels[:, np.newaxis], read_idx(labels, 1), len(_CLASSES), labels)


def read_idx(path: Path, dimensions: int) -> NDArray[np.uint8]:
    """Read unsigned bytes from an IDX file, plain or gzipped.

    Two zero bytes, the type, the number of dimensions, each dimension as a big-endian 32-bit
    number, and the values (http://yann.lecun.com/exdb/mnist).

    Args:
        path: of the file.
        dimensions: how many it should have.

    Raises:
        DataError: it can't be read, is no such file, or is damaged.
    """
    data = read_bytes(path)
    if data.startswith(b"\x1f\x8b"):
        try:
            data = _decompressed(path)
        except (OSError, EOFError, zlib.error) as error:
            raise damaged(path, error) from error
    start = 4 + 4 * dimensions
    if data[:4] != bytes((0, 0, _UNSIGNED_BYTE, dimensions)) or len(data) < start:
        raise damaged(path, f"it is no IDX file of {dimensions} dimensions")
    shape: tuple[Any, ...] = tuple(map(int, np.frombuffer(data, ">u4", dimensions, 4)))
    if len(data) - start != math.prod(shape):
        raise damaged(
            path, f"it says {'x'.join(map(str, shape))} bytes, and {len(data) - start} follow"
        )
    return np.frombuffer(data, np.uint8, offset=start).reshape(shape).copy()  # so: writable


def _decompressed(path: Path) -> bytes:
    """Return what is in a gzipped file, up to what handling it may take.

    Raises:
        OSError, EOFError, zlib.error: it is damaged, or holds more.
    """
    limit = memory_allowance(path.stat().st_size)
    with gzip.open(path) as file:
        data = file.read(limit)
        if file.read(1):
            raise OSError("it unpacks to far more than it is")
    return data


DATASETS.register(
    "fashion-mnist", Reader(USAGE, "28x28 clothes; Debian's copy without DIR", open_fashion_mnist)
)
