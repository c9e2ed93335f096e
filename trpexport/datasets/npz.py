"""Anybody's images and labels in one file of ``numpy.savez``."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trpexport.arrays import check_unpacked
from trpexport.datasets.base import Dataset, Reader
from trpexport.datasets.labelled import array_split
from trpexport.datasets.locations import damaged, existing, unreadable
from trpexport.datasets.preprocessing import IMAGENET, Preprocessing
from trpexport.datasets.registry import DATASETS
from trpexport.datasets.splits import ArraySplit
from trpexport.errors import DataError
from trpexport.text import printable

USAGE = "npz:FILE"
# Of images and labels; the second line is how Keras names them, the first also how MedMNIST does.
_NAMES = {
    "train": (("train_images", "train_labels"), ("x_train", "y_train")),
    "test": (("test_images", "test_labels"), ("x_test", "y_test"), ("images", "labels")),
}
_CLASSES_LIMIT = 100_000
_CHANNELS = (1, 3)
_MAX_PIXEL = 255
_ENTRY = ".npy"
_MAX_FLOAT = 50  # beyond any normalised pixel: 255 is not far
_SETTINGS = {"classes", "mean", "std"}


def open_npz(location: str | None) -> Dataset:
    """Open a file with arrays ``images`` and ``labels``, or ``train_images`` and so on.

    Images are (n, channels, height, width), (n, height, width, channels) or (n, height, width): 1
    or 3 channels, else whichever axis is shorter; where both of the first two fit, it is the first.
    They are whole numbers from 0 to 255; or floats, pixels from 0 to 1, or where any is outside of
    that, normalised already. Labels are whole numbers, (n,) or (n, 1); to calibrate, none are
    needed. ``images`` alone are the split ``test``. Optional: ``classes``, (number of classes,) of
    strings, and ``mean`` and ``std``, (channels,), for pixels in 0..1.

    Raises:
        DataError: the file can't be read, or the arrays are missing or not as above.
    """
    path = existing(location, USAGE)
    with _opened(path) as arrays:
        entries = arrays.zip.namelist()
        keys = _keys({n.removesuffix(_ENTRY) for n in entries if n.endswith(_ENTRY)})
        if not keys:
            raise DataError(
                f"{printable(path)} has no array images, only "
                f"{printable(', '.join(arrays.files) or 'none')}: save it with "
                "numpy.savez(file, images=..., labels=...)"
            )
        channels = {_channels(_shape(path, images), path) for images, _ in keys.values()}
        if len(channels) > 1:
            raise damaged(path, "its train and test images differ in channels")
        classes = _classes(arrays, [labels for _, labels in keys.values()], path)
        preprocessing = _preprocessing(arrays, max(channels))
    return Dataset(
        name=f"npz:{location}",
        classes=classes,
        channels=max(channels),
        preprocessing=preprocessing,
        readers={split: partial(_read, path, *pair, len(classes)) for split, pair in keys.items()},
    )


def _keys(names: set[str]) -> dict[str, tuple[str, str | None]]:
    """Return the names of images and labels by split; those with labels come first.

    Without labels, a lone array is the images whatever its name.
    """
    for needed in (2, 1):
        found: dict[str, tuple[str, str | None]] = {
            split: (pair[0], pair[1] if needed == 2 else None)
            for split, pairs in _NAMES.items()
            for pair in reversed(pairs)  # of two that are there, the first stays
            if set(pair[:needed]) <= names
        }
        if found:
            return found
    labels = {pair[1] for pairs in _NAMES.values() for pair in pairs}
    images = names - _SETTINGS - labels
    return {"test": (images.pop(), None)} if len(images) == 1 else {}


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        if not zipfile.is_zipfile(path):
            raise ValueError("it is no whole .npz file, as numpy.savez writes it")
        with zipfile.ZipFile(path) as archive:
            check_unpacked(archive, path.stat().st_size)
        with np.load(path, allow_pickle=False) as arrays:
            yield arrays
    except DataError:
        raise
    except OSError as error:
        if error.errno is None:
            raise damaged(path, error) from error
        unreadable(error)
    except Exception as error:  # a damaged file fails in any way: BadZipFile, zlib.error, KeyError
        raise damaged(path, error) from error


def _shape(path: Path, name: str) -> tuple[int, ...]:
    """Return the shape of an array without reading it."""
    with zipfile.ZipFile(path) as file, file.open(f"{name}.npy") as array:
        version = np.lib.format.read_magic(array)
        read = (
            np.lib.format.read_array_header_1_0
            if version == (1, 0)
            else np.lib.format.read_array_header_2_0
        )
        return read(array)[0]


def _channels(shape: tuple[int, ...], path: Path) -> int:
    if len(shape) == 3:
        return 1
    if len(shape) == 4:
        for count in (shape[1], shape[3]):
            if count in _CHANNELS:
                return count
        return min(shape[1], shape[3])
    raise damaged(path, f"its images are {shape}, not (n, channels, height, width)")


def _classes(arrays: Any, names: list[str | None], path: Path) -> tuple[str, ...]:
    labels = [name for name in names if name is not None]
    if not labels:
        return ()
    if "classes" in arrays.files:
        return tuple(map(str, arrays["classes"].ravel()))
    highest = max(int(arrays[name].max(initial=0)) for name in labels)
    if highest >= _CLASSES_LIMIT:
        raise damaged(path, f"it has the label {highest}: number the classes 0, 1, 2 and so on")
    return tuple(map(str, range(highest + 1)))


def _preprocessing(arrays: Any, channels: int) -> Preprocessing:
    if {"mean", "std"} <= set(arrays.files):
        mean, std = (tuple(map(float, arrays[name].ravel())) for name in ("mean", "std"))
        return Preprocessing(mean, std)
    return IMAGENET if channels == 3 else Preprocessing((0.5,) * channels, (0.5,) * channels)


def _read(path: Path, images_name: str, labels_name: str | None, classes: int) -> ArraySplit:
    with _opened(path) as arrays:
        images: NDArray[Any] = arrays[images_name]
        labels: NDArray[Any] | None = None if labels_name is None else arrays[labels_name]
    pixels, is_normalised = _pixels(images, images_name, path)
    if images.ndim == 3:
        pixels = pixels[:, np.newaxis]
    elif images.shape[1] != _channels(images.shape, path):
        pixels = np.ascontiguousarray(pixels.transpose(0, 3, 1, 2))
    if labels is None:
        nobody = np.full(len(pixels), -1, np.int64)
        return ArraySplit(pixels, nobody, is_labelled=False, is_normalised=is_normalised)
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    return replace(array_split(pixels, labels, classes, path), is_normalised=is_normalised)


def _pixels(images: NDArray[Any], name: str, path: Path) -> tuple[NDArray[Any], bool]:
    """Return pixels as uint8 or float32, and whether they are normalised already."""
    low, high = images.min(initial=0), images.max(initial=0)
    if images.dtype.kind == "f":
        if not (np.isfinite(low) and np.isfinite(high)):
            raise DataError(f"{printable(path)}: its {name} hold NaN or infinity: leave them out")
        if high > _MAX_FLOAT:
            raise DataError(
                f"{printable(path)}: its {name} are floats up to {high:g}: save them as uint8, or "
                "divide them by 255"
            )
        return images.astype(np.float32), bool(low < 0 or high > 1)
    if images.dtype.kind not in "iu" or low < 0 or high > _MAX_PIXEL:
        raise damaged(path, f"its {name} are {images.dtype} from {low} to {high}, not uint8")
    return images.astype(np.uint8, copy=False), False


DATASETS.register("npz", Reader(USAGE, "arrays images and labels in a NumPy file", open_npz))
