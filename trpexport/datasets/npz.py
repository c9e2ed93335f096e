"""Anybody's images and labels in one file of ``numpy.savez``."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trpexport.datasets.base import Dataset, Reader
from trpexport.datasets.labelled import array_split
from trpexport.datasets.locations import damaged, existing, printable, unreadable
from trpexport.datasets.preprocessing import IMAGENET, Preprocessing
from trpexport.datasets.registry import DATASETS
from trpexport.datasets.splits import ArraySplit
from trpexport.errors import DataError

USAGE = "npz:FILE"
# Of images and labels; the second line is how Keras names them, the first also how MedMNIST does.
_NAMES = {
    "train": (("train_images", "train_labels"), ("x_train", "y_train")),
    "test": (("test_images", "test_labels"), ("x_test", "y_test"), ("images", "labels")),
}
_CLASSES_LIMIT = 100_000
_CHANNELS = (1, 3)


def open_npz(location: str | None) -> Dataset:
    """Open a file with arrays ``images`` and ``labels``, or ``train_images`` and so on.

    Images are uint8: (n, channels, height, width), (n, height, width, channels) or (n, height,
    width), with 1 or 3 channels; where both of the first two fit, it is the first. Labels are
    whole numbers, (n,) or (n, 1). ``images`` alone are the split ``test``. Optional: ``classes``,
    (number of classes,) of strings, and ``mean`` and ``std``, (channels,), for pixels in 0..1.

    Raises:
        DataError: the file can't be read, or the arrays are missing or not as above.
    """
    path = existing(location, USAGE)
    with _opened(path) as arrays:
        keys = {
            split: pair
            for split, pairs in _NAMES.items()
            for pair in reversed(pairs)  # of two that are there, the first stays
            if set(pair) <= set(arrays.files)
        }
        if not keys:
            raise DataError(
                f"{printable(path)} has no arrays images and labels, only "
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


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        if not zipfile.is_zipfile(path):
            raise ValueError("it is no whole .npz file, as numpy.savez writes it")
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
    raise damaged(
        path, f"its images are {shape}, not (n, channels, height, width) with 1 or 3 channels"
    )


def _classes(arrays: Any, labels: list[str], path: Path) -> tuple[str, ...]:
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
    return IMAGENET if channels == 3 else Preprocessing((0.5,), (0.5,))


def _read(path: Path, images_name: str, labels_name: str, classes: int) -> ArraySplit:
    with _opened(path) as arrays:
        images: NDArray[Any] = arrays[images_name]
        labels: NDArray[Any] = arrays[labels_name]
    if images.dtype != np.uint8:
        raise damaged(path, f"its {images_name} are {images.dtype}, not uint8")
    if images.ndim == 3:
        images = images[:, np.newaxis]
    elif images.shape[1] not in _CHANNELS:
        images = np.ascontiguousarray(images.transpose(0, 3, 1, 2))
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    return array_split(images, labels, classes, path)


DATASETS.register("npz", Reader(USAGE, "arrays images and labels in a NumPy file", open_npz))
