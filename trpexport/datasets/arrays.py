"""Arrays that are images, or a network's input as they are."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trpexport.datasets.base import Dataset, Reader
from trpexport.datasets.labelled import checked_labels
from trpexport.datasets.locations import existing
from trpexport.datasets.preprocessing import IMAGENET, Preprocessing
from trpexport.datasets.registry import DATASETS
from trpexport.datasets.splits import ArraySplit
from trpexport.datasets.tensors import TARGET, TensorSet, mapped
from trpexport.inputs import INPUT
from trpexport.tensors import Array, Arrays, laid_out

USAGE = "npy:FILE.npy"
_CHANNELS = (1, 3)
_PICTURE_CHANNELS = (1, 2, 3, 4)  # grey or colours, with transparency or without
_LAST_ONLY = (3, 4)  # as the last size of three: one image, its channels last


def channels_of(shape: Sequence[int]) -> int | None:
    """Return how many channels images of a shape have; None where it is none of images.

    Args:
        shape: (n, channels, height, width), (n, height, width, channels) or (n, height, width): 1
            or 3 channels, else whichever axis is shorter.
    """
    if len(shape) == 3:
        return 1
    if len(shape) != 4:
        return None
    return next((c for c in (shape[1], shape[3]) if c in _CHANNELS), min(shape[1], shape[3]))


def planes(images: NDArray[Any]) -> NDArray[Any]:
    """Return images of any shape that :func:`channels_of` knows as (n, channels, height, width)."""
    if images.ndim == 3:
        return images[:, np.newaxis]
    if images.shape[1] != channels_of(images.shape):
        return np.ascontiguousarray(images.transpose(0, 3, 1, 2))
    return images


def data_of(name: str, inputs: Arrays, targets: Arrays) -> Dataset | TensorSet:
    """Return arrays as data: one of uint8 that holds pictures as images, others as they are.

    Args:
        name: what they are called.
        inputs: by input (samples, *shape of one).
        targets: what should come out, by output, or under the name of a target.

    Raises:
        DataError: they are no numbers of several samples.
    """
    if len(inputs) == 1 and targets.keys() <= {TARGET}:
        images = _pictures(next(iter(inputs.values())))
        if images is not None:
            return _dataset(name, images, targets.get(TARGET))
    return TensorSet(f"tensors:{name}", inputs, targets).checked(name)


def pixels_as_input(dataset: Dataset, split: str, shape: Sequence[int]) -> TensorSet | None:
    """Return images in memory as the input of a network that takes bytes; None for image files.

    Args:
        dataset: where they come from.
        split: of which split.
        shape: of the network's input, batch first.
    """
    found = dataset.images(split)
    images = found.in_memory()
    if images is None:
        return None
    targets = {TARGET: found.labels} if found.is_labelled else {}
    return TensorSet(dataset.name, {INPUT: laid_out(images, shape)}, targets)


def _pictures(array: Array) -> NDArray[np.uint8] | None:
    """Return an array as images, (n, channels, height, width), if it holds bytes of such."""
    if array.dtype != np.uint8 or not array.size:
        return None
    if array.ndim == 3 and array.shape[-1] in _LAST_ONLY:
        array = array[np.newaxis]
    channels = channels_of(array.shape)
    return planes(array) if channels in _PICTURE_CHANNELS else None


def _dataset(name: str, images: NDArray[np.uint8], labels: Array | None) -> Dataset:
    classes: tuple[str, ...] = ()
    numbers = np.full(len(images), -1, np.int64)
    if labels is not None and (labels.ndim != 1 or labels.dtype.kind not in "iu"):
        labels = None  # boxes or masks, say, which are no classes
    if labels is not None:
        classes = tuple(map(str, range(int(labels.max(initial=0)) + 1)))
        numbers = checked_labels(labels, len(images), len(classes), name)
    channels = images.shape[1]
    split = ArraySplit(images, numbers, is_labelled=labels is not None)
    return Dataset(
        name=f"npy:{name}",
        classes=classes,
        channels=channels,
        preprocessing=IMAGENET
        if channels == len(IMAGENET.mean)
        else Preprocessing((0.5,) * channels, (0.5,) * channels),
        readers={"test": partial(_itself, split)},
        labels_by="give labels with the images, as in npz:FILE",
    )


def _itself(split: ArraySplit) -> ArraySplit:
    return split


def open_npy(location: str | None) -> Dataset | TensorSet:
    """Open an array of numpy.save: bytes of pictures as images, others as a network's input.

    Raises:
        DataError: it can't be read, or holds no numbers of several samples.
    """
    path = existing(location, USAGE)
    return data_of(str(location), {path.stem: mapped(path)}, {})


DATASETS.register(
    "npy", Reader(USAGE, "one array: uint8 as images, else a network's input", open_npy)
)
