"""Opening data by their name or their path."""

from __future__ import annotations

from pathlib import Path

from trpexport.datasets.base import Dataset
from trpexport.datasets.kinds import kind_of
from trpexport.datasets.locations import expanded
from trpexport.datasets.registry import DATASETS
from trpexport.datasets.tensors import TensorSet
from trpexport.errors import DataError


def open_data(text: str) -> Dataset | TensorSet:
    """Open the data that ``NAME`` or ``NAME:PATH`` names, as in ``cifar10:DIR``; or a path alone.

    A path alone is a folder or tar of images, a list of them, or a file of NumPy: see
    :func:`~trpexport.datasets.kinds.kind_of`.
    Its files are looked for; what images hold is read by :meth:`Dataset.split`.

    Raises:
        TrpexportError: the name is unknown.
        DataError: there are no data at the path, or the path is missing or not wanted.
        MissingDependencyError: a package that reads it is not installed.
    """
    name, colon, location = text.partition(":")
    if text and name not in DATASETS and (kind := kind_of(expanded(text))) is not None:
        return DATASETS[kind].open(text)
    if name not in DATASETS and not colon and _is_path(text):
        raise DataError(f"there is nothing to read at {text}: check the path")
    return DATASETS[name].open(location if colon else None)


def _is_path(text: str) -> bool:
    """Whether a text can't be meant as the name of a data set."""
    return "/" in text or bool(Path(text).suffix)


def open_dataset(text: str) -> Dataset:
    """Open images, with classes where they have labels, as in ``cifar10:DIR``.

    Raises:
        TrpexportError: as :func:`open_data`, or it holds no images.
    """
    data = open_data(text)
    if isinstance(data, TensorSet):
        raise DataError(f"{text} holds raw tensors, images are needed here: save them for npz:FILE")
    return data
