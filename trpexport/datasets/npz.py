"""Anybody's images and labels in one file of ``numpy.savez``."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trpexport.arrays import check_unpacked
from trpexport.datasets.arrays import channels_of, planes
from trpexport.datasets.base import Dataset, Reader
from trpexport.datasets.labelled import array_split
from trpexport.datasets.locations import damaged, existing, unreadable
from trpexport.datasets.preprocessing import IMAGENET, Preprocessing, unchanged
from trpexport.datasets.registry import DATASETS
from trpexport.datasets.splits import ArraySplit
from trpexport.datasets.tensors import TARGET, TensorSet
from trpexport.errors import DataError
from trpexport.text import printable

USAGE = "npz:FILE"
# Of images and labels; the second line is how Keras names them, the first also how MedMNIST does.
_NAMES = {
    "train": (("train_images", "train_labels"), ("x_train", "y_train")),
    "test": (("test_images", "test_labels"), ("x_test", "y_test"), ("images", "labels")),
}
_CLASSES_LIMIT = 100_000
_MAX_PIXEL = 255
_ENTRY = ".npy"
_MAX_FLOAT = 50  # beyond any normalised pixel: 255 is not far
_IMAGES_RANK, _IMAGES_CHANNELS = 4, (1, 3)
_SETTINGS = {"classes", "mean", "std"}


def open_npz(location: str | None) -> Dataset | TensorSet:
    """Open a file with arrays ``images`` and ``labels``, or ``train_images`` and so on.

    Images are (n, channels, height, width), (n, height, width, channels) or (n, height, width): 1
    or 3 channels, else whichever axis is shorter; where both of the first two fit, it is the first.
    They are whole numbers from 0 to 255; or floats, a network's input as they are, of any shape,
    unless ``mean`` and ``std`` lie beside them: then they are pixels from 0 to 1. Labels are whole
    numbers, (n,) or (n, 1); to calibrate, none are needed. ``images`` alone are the split ``test``.
    Optional: ``classes``, (number of classes,) of strings, and ``mean`` and ``std``, (channels,),
    for pixels in 0..1.

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
        headers = [_header(path, images) for images, _ in keys.values()]
        are_inputs = not {"mean", "std"} <= {*arrays.files} and any(
            dtype.kind == "f" for _, dtype in headers
        )
        if are_inputs and not _are_images(keys, [shape for shape, _ in headers]):
            return _tensors(f"tensors:{location}", arrays, keys, path)
        channels = {_channels(shape, path) for shape, _ in headers}
        if len(channels) > 1:
            raise damaged(path, "its train and test images differ in channels")
        classes = _classes(arrays, [labels for _, labels in keys.values()], path)
        count = max(channels)
        preprocessing = unchanged(count) if are_inputs else _preprocessing(arrays, count)
    return Dataset(
        name=f"npz:{location}",
        classes=classes,
        channels=max(channels),
        preprocessing=preprocessing,
        readers={split: partial(_read, path, *pair, len(classes)) for split, pair in keys.items()},
        are_inputs=are_inputs,
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


def names_images(names: AbstractSet[str]) -> bool:
    """Whether arrays of these names are images, with labels or settings or without."""
    pairs = {name for split in _NAMES.values() for pair in split for name in pair}
    return bool(_keys({*names})) and names <= pairs | _SETTINGS


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


def _are_images(
    keys: Mapping[str, tuple[str, str | None]], shapes: Sequence[tuple[int, ...]]
) -> bool:
    """Whether floats are images for sure: with classes or in splits, of one channel or three."""
    sorted_in = len(keys) > 1 or any(labels is not None for _, labels in keys.values())
    return sorted_in and all(
        len(shape) == _IMAGES_RANK and channels_of(shape) in _IMAGES_CHANNELS for shape in shapes
    )


def _tensors(
    name: str, arrays: Any, keys: Mapping[str, tuple[str, str | None]], path: Path
) -> TensorSet:
    """Return floats that are no images: a network's input, of the split that there is.

    Raises:
        DataError: there are several splits, or not as many labels as samples.
    """
    if len(keys) > 1:
        raise damaged(path, "its arrays are no images, and of several splits: save one to a file")
    ((images, labels),) = keys.values()
    values = {images: arrays[images]}
    targets = {} if labels is None else {TARGET: arrays[labels]}
    return TensorSet(name, values, targets).checked(path)


def _header(path: Path, name: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Return shape and type of an array without reading it."""
    with zipfile.ZipFile(path) as file, file.open(f"{name}.npy") as array:
        version = np.lib.format.read_magic(array)
        read = (
            np.lib.format.read_array_header_1_0
            if version == (1, 0)
            else np.lib.format.read_array_header_2_0
        )
        shape, _, dtype = read(array)
        return shape, dtype


def _channels(shape: tuple[int, ...], path: Path) -> int:
    channels = channels_of(shape)
    if channels is None:
        raise damaged(path, f"its images are {shape}, not (n, channels, height, width)")
    return channels


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
    pixels = planes(_pixels(images, images_name, path))
    if labels is None:
        nobody = np.full(len(pixels), -1, np.int64)
        return ArraySplit(pixels, nobody, is_labelled=False)
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    return array_split(pixels, labels, classes, path)


def _pixels(images: NDArray[Any], name: str, path: Path) -> NDArray[Any]:
    """Return images as uint8 or float32."""
    low, high = images.min(initial=0), images.max(initial=0)
    if images.dtype.kind == "f":
        if not (np.isfinite(low) and np.isfinite(high)):
            raise DataError(f"{printable(path)}: its {name} hold NaN or infinity: leave them out")
        if high > _MAX_FLOAT:
            raise DataError(
                f"{printable(path)}: its {name} are floats up to {high:g}: save pixels as uint8; "
                f"what a network takes as it is goes by tensors:{printable(path.name)}"
            )
        return images.astype(np.float32)
    if images.dtype.kind not in "iu" or low < 0 or high > _MAX_PIXEL:
        raise damaged(path, f"its {name} are {images.dtype} from {low} to {high}, not uint8")
    return images.astype(np.uint8, copy=False)


DATASETS.register("npz", Reader(USAGE, "arrays images and labels in a NumPy file", open_npz))
