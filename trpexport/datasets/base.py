"""What a data set is: named classes, and splits of images with labels. No torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from trpexport.datasets.preprocessing import Preprocessing
from trpexport.datasets.splits import Split
from trpexport.errors import DataError

if TYPE_CHECKING:
    from trpexport.datasets.tensors import TensorSet


@dataclass(frozen=True)
class Dataset:
    """A data set whose splits are read when they are asked for.

    Attributes:
        name: what the user typed, as in ``cifar10:DIR``.
        classes: class names, in the order of the labels.
        channels: of its images.
        preprocessing: how its images become input, unless a checkpoint says otherwise.
        readers: reads a split, by name: ``train`` and ``test``, or ``test`` alone.
        mirror: whether an image's mirror image is of the same class; not so for digits.
        are_inputs: whether its images are floats, which are a network's input as they are, with
            nothing to normalise.
        labels_by: how labels would be given, where it has none.
        files: that it is read from, beside those under the path in its name.
    """

    name: str
    classes: tuple[str, ...]
    channels: int
    preprocessing: Preprocessing
    readers: Mapping[str, Callable[[], Split]]
    mirror: bool = True
    are_inputs: bool = False
    labels_by: str = "save them with it"
    files: Sequence[Path] = ()

    def split(self, name: str) -> Split:
        """Read a split of images with labels.

        Raises:
            DataError: as for :meth:`images`; or they have no labels.
        """
        split = self.images(name)
        if not split.is_labelled:
            raise DataError(f"{self.name} has no labels, which are needed here: {self.labels_by}")
        return split

    def prepared_by(self, known: Preprocessing | None) -> Preprocessing | None:
        """Return how its images become input: as is known, but of floats, which are it already."""
        return self.preprocessing if self.are_inputs else known

    def images(self, name: str) -> Split:
        """Read a split, which may have no labels.

        Raises:
            DataError: there is no such split, or its files are missing or damaged.
        """
        if name not in self.readers:
            raise DataError(f"{self.name} has no {name} images, only {', '.join(self.readers)}")
        return self.readers[name]()


@dataclass(frozen=True)
class Reader:
    """A kind of data set, as the registry holds it.

    Attributes:
        usage: what a user types, as in ``cifar10:DIR``.
        summary: what it is, in a few words.
        open: opens it from the text after the colon, None where there is none; raises a DataError
            where its files are missing. It reads no more than it takes to know the classes.
    """

    usage: str
    summary: str
    open: Callable[[str | None], Dataset | TensorSet]
