"""Image files that a table lists, with their labels."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trpexport.datasets.base import Dataset, Reader
from trpexport.datasets.decoding import EncodedSplit
from trpexport.datasets.locations import existing, expanded, read_bytes
from trpexport.datasets.preprocessing import IMAGENET
from trpexport.datasets.registry import DATASETS
from trpexport.errors import DataError
from trpexport.text import printable

USAGE = "imagelist:FILE.csv"
SUFFIXES = (".csv", ".tsv")
_PATH, _LABEL, _SPLIT = "path", "label", "split"
# What the columns may be called, in lower case.
_COLUMNS = {
    _PATH: (_PATH, "file", "filename", "filepath", "file_name", "image", "image_path"),
    _LABEL: (_LABEL, "class", "target", "category", "class_id", "label_id"),
    _SPLIT: (_SPLIT, "subset", "set", "partition"),
}
_SPLITS = {
    "train": ("train", "training"),
    "test": ("test", "testing"),
    "val": ("val", "valid", "validation"),
}
_DELIMITERS = ",;\t"
_MAX_CLASS = 100_000


@dataclass(frozen=True)
class Row:
    """One line of a list.

    Attributes:
        line: its number in the file, from 1.
        path: of the image.
        label: class number or name; None where the list has no such column.
        split: which split it belongs to.
    """

    line: int
    path: Path
    label: str | None
    split: str


class ListedImages(EncodedSplit):
    """Image files of a list.

    Args:
        source: the list.
        rows: its lines.
        labels: class numbers, (n,); None where there are none.
    """

    def __init__(self, source: Path, rows: Sequence[Row], labels: NDArray[np.int64] | None) -> None:
        super().__init__(np.full(len(rows), -1, np.int64) if labels is None else labels)
        self.is_labelled = labels is not None
        self._source = source
        self._rows = rows

    def encoded(self, index: int) -> tuple[bytes, str]:
        """Return the bytes of an image file, and what to call it in a message."""
        row = self._rows[index]
        return read_bytes(row.path), f"{row.path} (line {row.line} of {self._source})"


def open_imagelist(location: str | None) -> Dataset:
    """Open a table of image files: columns path, label and split, of which the path is needed.

    The first line names the columns; without such names they are in that order. Values stand
    between commas, semicolons or tabs. Paths are relative to the table. Labels are all class
    numbers, from 0, or all names, whose order is that of the alphabet. The split is train, test or
    val, which counts as test where there is no test; without a split all images are test images.

    Raises:
        DataError: the table can't be read, or a line of it names no file, no label or no split.
    """
    path = existing(location, USAGE)
    rows = _rows(path)
    present = {row.split for row in rows}
    stands_in = "val" if "test" not in present else "test"
    named = {"train": "train", "test": stands_in}
    parts = {
        name: [row for row in rows if row.split == split]
        for name, split in named.items()
        if split in present
    }
    classes, numbers = _classes(path, rows)
    readers: Mapping[str, Callable[[], ListedImages]] = {
        name: partial(_read, path, part, numbers) for name, part in parts.items()
    }
    return Dataset(
        name=f"imagelist:{location}",
        classes=classes,
        channels=3,
        preprocessing=IMAGENET,
        readers=readers,
        labels_by="give the list a column label",
        files=[row.path for row in rows],
    )


def _read(path: Path, rows: Sequence[Row], numbers: Mapping[str, int]) -> ListedImages:
    labels = None
    if numbers:
        labels = np.array([numbers[row.label or ""] for row in rows], np.int64)
    return ListedImages(path, rows, labels)


def _rows(path: Path) -> list[Row]:
    """Read the lines of a list.

    Raises:
        DataError: it is no text, or a line makes no sense.
    """
    try:
        text = read_bytes(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{printable(path)} is no text in UTF-8 ({error.reason}): save it as CSV in UTF-8"
        ) from error
    first = text.partition("\n")[0]
    reader = csv.reader(
        io.StringIO(text), delimiter=max(_DELIMITERS, key=first.count), skipinitialspace=True
    )
    rows: list[Row] = []
    columns: dict[str, int] | None = None
    try:
        for cells in reader:
            if not any(cell.strip() for cell in cells):
                continue
            if columns is None:
                columns = _header(path, cells)
                if columns is not None:
                    continue
                columns = {name: i for i, name in enumerate(_COLUMNS) if i < len(cells)}
            rows.append(_row(path, reader.line_num, cells, columns))
    except csv.Error as error:
        raise _wrong(path, reader.line_num, f"can't be read ({error})", "correct it") from error
    if not rows:
        raise DataError(f"{printable(path)} lists no images: give a line for each, path,label")
    return rows


def _header(path: Path, cells: Sequence[str]) -> dict[str, int] | None:
    """Return the places of the columns that the first line names; None where it names none.

    Raises:
        DataError: it names columns, but none of paths.
    """
    names = [cell.strip().lower() for cell in cells]
    found = {
        column: next(names.index(name) for name in known if name in names)
        for column, known in _COLUMNS.items()
        if {*known} & {*names}
    }
    if found and _PATH not in found:
        raise _wrong(
            path, 1, f"names the columns {', '.join(names)}, none of them path", "add that column"
        )
    return found or None


def _row(path: Path, line: int, cells: Sequence[str], columns: Mapping[str, int]) -> Row:
    if len(cells) <= max(columns.values()):
        wanted = ", ".join(columns)
        raise _wrong(path, line, f"has {len(cells)} columns", f"give it all of {wanted}")
    given = {name: cells[place].strip() for name, place in columns.items()}
    if not given[_PATH]:
        raise _wrong(path, line, "names no image", "give it a path, or delete the line")
    image = path.parent / expanded(given[_PATH])
    try:
        there = image.is_file()
    except (OSError, ValueError):  # a name too long, a null byte
        there = False
    if not there:
        remedy = "correct the path" + (", or name the columns path,label,split" * (line == 1))
        raise _wrong(path, line, f"names {given[_PATH]}, and {image} is no file", remedy)
    label = given.get(_LABEL)
    if label == "":
        raise _wrong(path, line, "has no label", "give it one, or leave the whole column out")
    return Row(line, image, label, _split(path, line, given.get(_SPLIT)))


def _split(path: Path, line: int, given: str | None) -> str:
    if given is None:
        return "test"
    for name, known in _SPLITS.items():
        if given.lower() in known:
            return name
    choice = ", ".join(_SPLITS)
    raise _wrong(path, line, f"has the split {given or 'of no name'}", f"choose from {choice}")


def _classes(path: Path, rows: Sequence[Row]) -> tuple[tuple[str, ...], dict[str, int]]:
    """Return the names of the classes, and the number of each label as it is written.

    Raises:
        DataError: some labels are numbers and some are not, or a number makes no sense.
    """
    labels = {row.label: row for row in reversed(rows) if row.label is not None}
    if not labels:
        return (), {}
    if not all(map(_is_number, labels)):
        if odd := [row for label, row in labels.items() if _is_number(label)]:
            row = min(odd, key=lambda row: row.line)
            name = next(label for label in reversed(labels) if not _is_number(label))
            raise _wrong(
                path,
                row.line,
                f"has the label {row.label}, a number, and others are names, as {name} is",
                "give numbers alone, or names alone",
            )
        names = sorted(labels)
        return tuple(names), {name: number for number, name in enumerate(names)}
    for label, row in labels.items():
        if not 0 <= int(label) < _MAX_CLASS:
            raise _wrong(
                path, row.line, f"has the label {label}", "number the classes 0, 1, 2 and so on"
            )
    numbers = {label: int(label) for label in labels}
    return tuple(map(str, range(max(numbers.values()) + 1))), numbers


def _is_number(label: str) -> bool:
    return label.removeprefix("-").isdecimal()


def _wrong(path: Path, line: int, what: str, remedy: str) -> DataError:
    return DataError(f"line {line} of {printable(path)} {printable(what)}: {remedy}")


DATASETS.register(
    "imagelist", Reader(USAGE, "image files that a table lists, with labels", open_imagelist)
)
