"""Image files sorted into folders, one a class; on disk or in a tar."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from trpexport.datasets.base import Dataset, Reader
from trpexport.datasets.decoding import SUFFIXES, EncodedSplit
from trpexport.datasets.locations import existing
from trpexport.datasets.preprocessing import IMAGENET
from trpexport.datasets.registry import DATASETS
from trpexport.datasets.trees import Tree, open_tree
from trpexport.errors import DataError
from trpexport.text import printable

USAGE = "imagefolder:DIR"
# What the folders above the classes may be called. ImageNet's own test set has no labels, so that
# its val is what networks are tested on.
_TRAIN = ("train",)
_TEST = ("test", "val", "valid", "validation")


class ImageFiles(EncodedSplit):
    """Image files in folders or a tar.

    Args:
        tree: where they lie.
        names: of the files.
        labels: class numbers, (n,); None where there are none.
    """

    def __init__(
        self, tree: Tree, names: Sequence[str], labels: NDArray[np.int64] | None = None
    ) -> None:
        super().__init__(np.full(len(names), -1, np.int64) if labels is None else labels)
        self.is_labelled = labels is not None
        self._tree = tree
        self._names = names

    def encoded(self, index: int) -> tuple[bytes, str]:
        """Return the bytes of an image file, and what to call it in a message."""
        name = self._names[index]
        return self._tree.read(name), self._tree.describe(name)


def open_imagefolder(location: str | None) -> Dataset:
    """Open ``[train|test]/CLASS/FILE``, in a folder or a tar (compressed or not).

    ``val`` counts as ``test`` where there is no ``test`` with classes. Without such a level all
    images are one split, ``test``: as ``train`` they would be tested on what was trained on. A
    single folder around it all is passed through. Classes are in the order of their names. Where
    images do not lie in folders of classes, they have no labels, which to calibrate takes none.

    Raises:
        DataError: there is no such folder or tar, it is damaged or has no images, or the classes
            of train and test differ.
    """
    path = existing(location, USAGE)
    tree = open_tree(path, SUFFIXES)
    top = _top(tree)
    levels = _levels(tree, top)
    classes = {name: tree.folders(level) for name, level in levels.items()}
    first = next(iter(classes.values()))
    if not all(_are_classes(tree, level) for level in levels.values()):
        return _unlabelled(tree, location, levels)
    for name, others in classes.items():
        for odd in sorted(set(first) ^ set(others)):
            lacking = name if odd in first else next(iter(classes))
            raise DataError(
                f"{printable(path)}: train and test must have the same class folders, but "
                f"{printable(odd)} is missing in {printable(levels[lacking])}"
            )
    return _dataset(
        location,
        tuple(first),
        {name: partial(_read, tree, level, first) for name, level in levels.items()},
    )


def _are_classes(tree: Tree, level: str) -> bool:
    """Whether the folders of a level are classes: they hold images, most of all there are."""
    folders = [f"{level}/{name}" if level else name for name in tree.folders(level)]
    sorted_in = sum(len(_images(tree, folder)) for folder in folders)
    return 2 * sorted_in > len(_images(tree, level))


def _unlabelled(tree: Tree, location: str | None, levels: dict[str, str]) -> Dataset:
    """Return images wherever they lie.

    Raises:
        DataError: there are none.
    """
    found = {name: _images(tree, level) for name, level in levels.items()}
    if not all(found.values()):
        raise DataError(
            f"{printable(tree.path)} has no images: name a folder with files that end in "
            f"{', '.join(SUFFIXES[:4])} or the like"
        )
    readers: dict[str, Callable[[], ImageFiles]] = {
        name: partial(ImageFiles, tree, images) for name, images in found.items()
    }
    return _dataset(location, (), readers)


def _dataset(
    location: str | None, classes: tuple[str, ...], readers: dict[str, Callable[[], ImageFiles]]
) -> Dataset:
    return Dataset(
        name=f"imagefolder:{location}",
        classes=classes,
        channels=3,
        preprocessing=IMAGENET,
        readers=readers,
        labels_by="arrange its images as train/CLASS/FILE.jpg and test/CLASS/FILE.jpg",
    )


def _top(tree: Tree) -> str:
    """Return the folder that holds train and test, or else the classes."""
    folders = tree.folders("")
    if len(folders) == 1 and {*_TRAIN, *_TEST} & set(tree.folders(folders[0])):
        return folders[0]
    return ""


def _levels(tree: Tree, top: str) -> dict[str, str]:
    """Return the folder of each split."""
    prefix = f"{top}/" if top else ""
    present = set(tree.folders(top))
    levels = {}
    for split, names in (("train", _TRAIN), ("test", _TEST)):
        there = [f"{prefix}{name}" for name in names if name in present]
        if there:
            levels[split] = next((level for level in there if tree.folders(level)), there[0])
    # Among other folders, one called train that holds no folders is a class of vehicles.
    is_level = any(map(tree.folders, levels.values())) or present <= {*_TRAIN, *_TEST}
    return levels if levels and is_level else {"test": top}


def _images(tree: Tree, folder: str) -> list[str]:
    return [file for file in tree.files(folder) if file.lower().endswith(SUFFIXES)]


def _read(tree: Tree, level: str, classes: Sequence[str]) -> ImageFiles:
    names: list[str] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        folder = f"{level}/{name}" if level else name
        images = _images(tree, folder)
        if not images:
            raise DataError(
                f"{tree.describe(folder)} has no images: add some, or delete the class everywhere"
            )
        names += images
        labels += [label] * len(images)
    return ImageFiles(tree, names, np.array(labels, np.int64))


DATASETS.register(
    "imagefolder", Reader(USAGE, "images in folders, one a class, or a tar of it", open_imagefolder)
)
