"""CIFAR-10 and CIFAR-100 (Krizhevsky 2009), in their binary and their Python version."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trpexport.datasets.base import Dataset, Reader
from trpexport.datasets.labelled import checked_labels
from trpexport.datasets.locations import damaged, existing, read_bytes
from trpexport.datasets.numpy_pickle import read_pickle
from trpexport.datasets.preprocessing import Preprocessing
from trpexport.datasets.registry import DATASETS
from trpexport.datasets.splits import ArraySplit
from trpexport.errors import DataError
from trpexport.text import printable

_SHAPE = (3, 32, 32)
_PIXELS = 3 * 32 * 32
_CLASSES = "airplane automobile bird cat deer dog frog horse ship truck"
_FINE_CLASSES = """
apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus
butterfly camel can castle caterpillar cattle chair chimpanzee clock cloud cockroach couch
crab crocodile cup dinosaur dolphin elephant flatfish forest fox girl hamster house kangaroo
keyboard lamp lawn_mower leopard lion lizard lobster man maple_tree motorcycle mountain
mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree plain
plate poppy porcupine possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk
skyscraper snail snake spider squirrel streetcar sunflower sweet_pepper table tank telephone
television tiger tractor train trout tulip turtle wardrobe whale willow_tree wolf woman worm
"""


@dataclass(frozen=True)
class _Kind:
    """What sets one of the two apart.

    Attributes:
        name: in the registry.
        classes: class names.
        preprocessing: how it is usually normalised.
        folders: what the official archives unpack to.
        files: of each split; the binary version adds ``.bin``.
        label_bytes: before the pixels of a record; the last is the label.
        label_key: in a pickle.
    """

    name: str
    classes: tuple[str, ...]
    preprocessing: Preprocessing
    folders: tuple[str, ...]
    files: Mapping[str, tuple[str, ...]]
    label_bytes: int
    label_key: str

    @property
    def usage(self) -> str:
        """What a user types."""
        return f"{self.name}:DIR"


_CIFAR10 = _Kind(
    name="cifar10",
    classes=tuple(_CLASSES.split()),
    # The std of the original TRP code and most others: the mean of the images' own, where the one
    # over all pixels is 0.247.
    preprocessing=Preprocessing((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),
    folders=("cifar-10-batches-bin", "cifar-10-batches-py"),
    files={"train": tuple(f"data_batch_{i}" for i in range(1, 6)), "test": ("test_batch",)},
    label_bytes=1,
    label_key="labels",
)
_CIFAR100 = _Kind(
    name="cifar100",
    classes=tuple(_FINE_CLASSES.split()),
    preprocessing=Preprocessing((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
    folders=("cifar-100-binary", "cifar-100-python"),
    files={"train": ("train",), "test": ("test",)},
    label_bytes=2,  # the coarse label comes first
    label_key="fine_labels",
)


def _open(kind: _Kind, location: str | None) -> Dataset:
    """Open the files of either version in a folder, or in the official one below it.

    A split may have fewer images than the official one, but no file of it may be missing.

    Raises:
        DataError: there are none, or some are missing.
    """
    path = existing(location, kind.usage)
    if path.is_file():
        raise DataError(
            f"{printable(path)} is a file: unpack it (tar -xf), and name the folder it unpacks to"
        )
    folder, suffix = _layout(kind, path)
    files = {
        split: [folder / f"{stem}{suffix}" for stem in stems] for split, stems in kind.files.items()
    }
    present = {split: paths for split, paths in files.items() if any(p.is_file() for p in paths)}
    for lacking in (p for paths in present.values() for p in paths if not p.is_file()):
        raise DataError(f"{printable(lacking)} is missing: unpack the archive of {kind.name} again")
    return Dataset(
        name=f"{kind.name}:{location}",
        classes=kind.classes,
        channels=3,
        preprocessing=kind.preprocessing,
        readers={split: partial(_read, kind, paths) for split, paths in present.items()},
    )


def _layout(kind: _Kind, path: Path) -> tuple[Path, str]:
    """Return the folder that has the files, and their suffix."""
    stems = [stem for stems in kind.files.values() for stem in stems]
    for folder in (path, *(path / name for name in kind.folders)):
        for suffix in (".bin", ""):
            if any((folder / f"{stem}{suffix}").is_file() for stem in stems):
                return folder, suffix
    raise DataError(
        f"{printable(path)} has neither {stems[0]}.bin nor {stems[0]} nor a folder "
        f"{' or '.join(kind.folders)}: name the folder that the archive of {kind.name} unpacks to"
    )


def _read(kind: _Kind, paths: list[Path]) -> ArraySplit:
    read = _read_binary if paths[0].suffix else _read_python
    images, labels = zip(*(read(kind, path) for path in paths), strict=True)
    return ArraySplit(np.concatenate(images), np.concatenate(labels))


def _read_binary(kind: _Kind, path: Path) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Read records of one or two label bytes and 3,072 pixels."""
    values = np.frombuffer(read_bytes(path), np.uint8)
    record = kind.label_bytes + _PIXELS
    if len(values) % record:
        raise damaged(path, f"its {len(values)} bytes are no multiple of a record's {record}")
    records = values.reshape(-1, record)
    images = records[:, kind.label_bytes :].reshape(-1, *_SHAPE)
    labels = records[:, kind.label_bytes - 1]
    return images, checked_labels(labels, len(images), len(kind.classes), path)


def _read_python(kind: _Kind, path: Path) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Read a pickled dict of pixels, (n, 3072), and a list of labels."""
    batch = read_pickle(read_bytes(path), path)
    if not isinstance(batch, dict) or not {"data", kind.label_key} <= batch.keys():
        raise damaged(path, f"it is no dict with data and {kind.label_key}")
    data = batch["data"]
    if not (isinstance(data, np.ndarray) and data.dtype == np.uint8 and data.ndim == 2):
        raise damaged(path, "its data are no matrix of bytes")
    if data.shape[1] != _PIXELS:
        raise damaged(path, f"its images have {data.shape[1]} values, not {_PIXELS}")
    try:
        labels = np.asarray(batch[kind.label_key])
    except ValueError as error:
        raise damaged(path, error) from error
    return data.reshape(-1, *_SHAPE), checked_labels(labels, len(data), len(kind.classes), path)


for _kind, _summary in ((_CIFAR10, "32x32, 10 classes"), (_CIFAR100, "32x32, 100 fine classes")):
    DATASETS.register(_kind.name, Reader(_kind.usage, _summary, partial(_open, _kind)))
