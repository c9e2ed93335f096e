"""Data sets of the Hugging Face hub, or local ones of its library ``datasets``."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trpexport.datasets.base import Dataset, Reader
from trpexport.datasets.decoding import EncodedSplit
from trpexport.datasets.labelled import checked_labels
from trpexport.datasets.locations import existing, expanded, read_bytes, reason
from trpexport.datasets.packages import require
from trpexport.datasets.preprocessing import IMAGENET
from trpexport.datasets.registry import DATASETS
from trpexport.errors import DataError
from trpexport.text import printable

USAGE = "hf:NAME_OR_PATH"
_SPLITS = {"train": ("train",), "test": ("test", "validation", "valid", "val")}
# Where several columns could be meant.
_IMAGE_NAMES = ("image", "img")
_LABEL_NAMES = ("label", "labels", "fine_label")
_SAVED = ("dataset_dict.json", "state.json")  # what save_to_disk leaves in a folder


class HubImages(EncodedSplit):
    """Images of a table of ``datasets``.

    Args:
        table: a ``datasets.Dataset`` whose images are not decoded.
        column: where its images are.
        labels: class numbers, (n,).
        source: where it comes from, for messages.
    """

    def __init__(self, table: Any, column: str, labels: NDArray[np.int64], source: str) -> None:
        super().__init__(labels)
        self._table = table
        self._column = column
        self._source = source

    def encoded(self, index: int) -> tuple[bytes, str]:
        """Return the bytes of an image file, and what to call it in a message."""
        name = f"{self._source}: image {index}"
        image = self._table[index][self._column]
        if image is None:
            raise DataError(f"{printable(name)} is missing: filter such rows out")
        if image["bytes"] is None:
            return read_bytes(Path(image["path"])), name
        return image["bytes"], name


def open_hub(location: str | None) -> Dataset:
    """Open ``NAME`` or ``NAME:CONFIGURATION`` of the hub, or a local data set.

    A local one is a folder written by ``save_to_disk``, a folder of parquet or image files, or a
    parquet or arrow file. The image column and the label column are found by their types. The
    split ``validation`` counts as ``test`` where there is none with labels; a table without splits
    is ``test``. Images become RGB.

    Raises:
        DataError: it can't be found or loaded, or has no image or label column.
        MissingDependencyError: the package datasets is not installed.
    """
    if not location:
        raise DataError(f"hf needs to know which data set: write {USAGE}")
    source = f"hf:{location}"
    library = require("datasets", "datasets", source)
    loaded = _load(library, location)
    tables = dict(loaded) if isinstance(loaded, Mapping) else {"test": loaded}
    found = {
        split: [tables[name] for name in names if name in tables]
        for split, names in _SPLITS.items()
    }
    first = next((table for choice in found.values() for table in choice), None)
    if first is None:
        raise DataError(f"{source} has no split train or test, only {', '.join(tables)}")
    image, label = _columns(library, first, source)
    splits = {
        split: next((table for table in choice if _is_labelled(table, label)), choice[0])
        for split, choice in found.items()
        if choice
    }
    if any({image, label} - set(table.column_names) for table in splits.values()):
        raise DataError(f"{source}: its splits differ in their columns")
    classes = _classes(list(splits.values()), label)
    return Dataset(
        name=source,
        classes=classes,
        channels=3,
        preprocessing=IMAGENET,
        readers={
            split: partial(_read, table, (image, label), len(classes), source)
            for split, table in splits.items()
        },
    )


def _load(library: Any, location: str) -> Any:
    if not sys.stderr.isatty():
        library.disable_progress_bars()
    path = expanded(location)
    is_local = path.exists() or location.startswith(("/", ".", "~"))
    try:
        with _quiet("datasets", "huggingface_hub"):
            if not is_local:
                name, _, configuration = location.partition(":")
                return library.load_dataset(name, configuration or None)
            existing(location, USAGE)
            if any((path / name).is_file() for name in _SAVED):
                return library.load_from_disk(str(path))
            if path.is_file():
                kind = "arrow" if path.suffix == ".arrow" else "parquet"
                return library.load_dataset(kind, data_files=str(path))
            return library.load_dataset(str(path))
    except DataError:
        raise
    except Exception as error:  # the hub, the network, the disk, and many formats
        advice = (
            "name a folder written by save_to_disk, or one with parquet or image files"
            if is_local
            else "check the name and the network, or name a local folder"
        )
        raise DataError(
            f"can't load hf:{printable(location)} ({reason(error)}): {advice}"
        ) from error


@contextmanager
def _quiet(*names: str) -> Iterator[None]:
    """Keep libraries from logging what becomes an error anyway."""
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _columns(library: Any, table: Any, source: str) -> tuple[str, str]:
    """Return the names of the image and the label column."""
    types = table.features
    images = [name for name, kind in types.items() if isinstance(kind, library.Image)]
    labels = [name for name, kind in types.items() if isinstance(kind, library.ClassLabel)]
    if not labels:
        labels = [
            name
            for name in _LABEL_NAMES
            if "int" in getattr(types.get(name), "dtype", "")  # numbers without class names
        ]
    return (
        _one("image", images, _IMAGE_NAMES, table, source),
        _one("label", labels, _LABEL_NAMES, table, source),
    )


def _one(kind: str, columns: list[str], usual: tuple[str, ...], table: Any, source: str) -> str:
    if len(columns) == 1:
        return columns[0]
    chosen = next((name for name in usual if name in columns), None)
    if chosen is not None:
        return chosen
    raise DataError(
        f"{source} has {len(columns)} {kind} columns, not one, among "
        f"{printable(', '.join(table.column_names))}: rename the one that is meant to {usual[0]}"
    )


def _labels(table: Any, column: str) -> NDArray[Any]:
    return np.asarray(table.select_columns([column]).with_format("numpy")[:][column])


def _is_labelled(table: Any, column: str) -> bool:
    """Say whether a split has labels: those that the hub keeps back are -1."""
    return column in table.column_names and bool((_labels(table, column) >= 0).all())


def _classes(tables: list[Any], label: str) -> tuple[str, ...]:
    names = getattr(tables[0].features[label], "names", None)
    if names is None:
        highest = max(int(_labels(table, label).max(initial=0)) for table in tables)
        names = map(str, range(highest + 1))
    return tuple(names)


def _read(table: Any, columns: tuple[str, str], classes: int, source: str) -> HubImages:
    image, label = columns
    labels = checked_labels(_labels(table, label), len(table), classes, source)
    library = require("datasets", "datasets", source)
    encoded = table.select_columns([image]).cast_column(image, library.Image(decode=False))
    return HubImages(encoded, image, labels, source)


DATASETS.register(
    "hf", Reader(USAGE, "a data set of the Hugging Face hub, or a local one of its kind", open_hub)
)
