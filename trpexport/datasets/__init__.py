"""Data sets: one file each, found by being in this folder. No torch."""

from __future__ import annotations

import importlib
import pkgutil

from trpexport.datasets.base import Dataset, Reader
from trpexport.datasets.locations import expanded
from trpexport.datasets.preprocessing import Preprocessing
from trpexport.datasets.registry import DATASETS
from trpexport.datasets.splits import ArraySplit, Split
from trpexport.datasets.tensors import TensorSet
from trpexport.errors import DataError

__all__ = [
    "DATASETS",
    "ArraySplit",
    "Dataset",
    "Preprocessing",
    "Reader",
    "Split",
    "TensorSet",
    "open_data",
    "open_dataset",
]

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")


def open_data(text: str) -> Dataset | TensorSet:
    """Open the data that ``NAME`` or ``NAME:PATH`` names, as in ``cifar10:DIR``.

    Its files are looked for; what images hold is read by :meth:`Dataset.split`.

    Raises:
        TrpexportError: the name is unknown.
        DataError: there are no data at the path, or the path is missing or not wanted.
        MissingDependencyError: a package that reads it is not installed.
    """
    name, colon, location = text.partition(":")
    path = expanded(text)
    if text and name not in DATASETS and path.exists():
        kind = "npz" if path.suffix == ".npz" else "imagefolder"
        raise DataError(f"{text} says where the data are, not what they are: try {kind}:{text}")
    return DATASETS[name].open(location if colon else None)


def open_dataset(text: str) -> Dataset:
    """Open images, with classes where they have labels, as in ``cifar10:DIR``.

    Raises:
        TrpexportError: as :func:`open_data`, or it holds no images.
    """
    data = open_data(text)
    if isinstance(data, TensorSet):
        raise DataError(f"{text} holds raw tensors, images are needed here: save them for npz:FILE")
    return data
