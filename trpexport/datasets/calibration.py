"""Images of a data set for calibration, and others of it to verify on and to judge by."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import PurePath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trpexport.datasets.base import Dataset
from trpexport.datasets.preprocessing import Preprocessing
from trpexport.datasets.splits import Split
from trpexport.errors import DataError
from trpexport.inputs import images_of, rows
from trpexport.tensors import Array, Arrays, laid_out

# Images that a network is verified on, and samples with labels that it is judged by.
_VERIFIED = 256
MOST_LABELLED = 2000
_BATCH = 50
# Where fewer than these would be left, one image in so many is held out, of as many at least.
_HELD_OUT, _MIN_SPLIT = 5, 20


@dataclass(frozen=True)
class LabelledPixels:
    """Images whose classes are known.

    Attributes:
        data: the data set as the user typed it.
        name: which part of it, for the reader.
        classes: number of classes of the data.
        pixels: (images, channels, height, width).
        labels: (images,).
        preprocessing: how pixels become input.
        shape: of the network's input, batch first.
    """

    data: str
    name: str
    classes: int
    pixels: NDArray[Any]
    labels: NDArray[np.int64]
    preprocessing: Preprocessing
    shape: Sequence[int]

    def batches(self) -> Iterator[tuple[NDArray[np.float32], NDArray[np.int64]]]:
        """Yield inputs of the network and their classes."""
        for start in range(0, len(self.pixels), _BATCH):
            some = slice(start, start + _BATCH)
            yield self.preprocessing.inputs(self.pixels[some], self.shape), self.labels[some]

    def taken(self, which: NDArray[np.int64]) -> LabelledPixels:
        """Return some of them, by their numbers."""
        return replace(self, pixels=self.pixels[which], labels=self.labels[which])


@dataclass(frozen=True)
class LabelledTensors:
    """Raw tensors with targets.

    Attributes:
        data: what the user typed.
        name: which part of them, for the reader.
        inputs: by input, or of the only one (samples, *shape of one).
        targets: likewise by output.
        classes: None: targets may be anything.
    """

    data: str
    name: str
    inputs: Array | Arrays
    targets: Array | Arrays
    classes: None = None

    def batches(self) -> Iterator[tuple[Array | Arrays, Array | Arrays]]:
        """Yield inputs of the network and their targets."""
        for start in range(0, images_of(self.inputs), _BATCH):
            some = slice(start, start + _BATCH)
            yield rows(self.inputs, some), rows(self.targets, some)

    def taken(self, which: NDArray[np.int64]) -> LabelledTensors:
        """Return some of them, by their numbers."""
        return replace(self, inputs=rows(self.inputs, which), targets=rows(self.targets, which))


class DatasetImages:
    """Images of a data set: of its training split, else of its only one.

    Args:
        dataset: where they come from.
        preprocessing: how they become input.
        input_shape: shape of the network's input, batch first.
        count: how many to calibrate on, spread evenly over the split.
        seed: which ones.

    Attributes:
        notes: what the reader of a report should know.

    Raises:
        DataError: the images can't be read, or do not fit the network.
    """

    def __init__(
        self,
        dataset: Dataset,
        preprocessing: Preprocessing,
        input_shape: Sequence[int],
        *,
        count: int = 512,
        seed: int = 0,
    ) -> None:
        preprocessing.check_input(input_shape, "the network")
        self._dataset = dataset
        self._preprocessing = preprocessing
        self._shape = tuple(input_shape)
        self._seed = seed
        self._name = "train" if "train" in dataset.readers else next(iter(dataset.readers))
        self._split = self._read(self._name)
        total = len(self._split)
        self._chosen = spread(total, min(count, total), seed)
        if total - count < _MIN_SPLIT:  # what is left is too little to measure on
            self._chosen = fitted_to(self._chosen)
        self.notes: list[str] = []
        if dataset.are_inputs:
            self._preprocessing = dataset.preprocessing
            self.notes.append(
                "the images are floats, which are taken as the network's input as they are"
            )
        elif (converted := preprocessing.conversion(dataset.channels)) is not None:
            self.notes.append(f"of the images: {converted}")
        if len(self._chosen) < count:
            these = f"{len(self._chosen)} of" if len(self._chosen) < total else "all"
            self.notes.append(f"calibrated on {these} {total} images, fewer than {count}")

    @cached_property
    def inputs(self) -> NDArray[np.float32]:
        """Inputs of the network to calibrate on, (images, *input shape)."""
        return self._inputs(self._split, self._chosen)

    def facts(self) -> dict[str, Any]:
        """Return where they come from, JSON-ready."""
        return {
            "data": public_name(self._dataset.name),
            "split": self._name,
            "seed": self._seed,
            "is_labelled": self._split.is_labelled,
        }

    def held_out(self) -> tuple[str, NDArray[np.float32]]:
        """Return what images that are not calibrated on are, and inputs made of them.

        They are of the same split if there are enough: what is chosen by them is not chosen by test
        images.
        """
        rest = self._left
        chosen = spread(len(rest), min(_VERIFIED, len(rest)), self._seed)
        name, split, indices = f"other {self._name}", self._split, rest[chosen]
        if len(indices) < _MIN_SPLIT:
            others = self._others(_VERIFIED)
            if len(others[2]) > len(indices):
                name, split, indices = others
        if not len(indices):
            return name, self.inputs[:0]
        return name, self._inputs(split, indices)

    def to_train_on(self, count: int) -> NDArray[np.float32]:
        """Return at most ``count`` inputs to train on, none held out or judged by."""
        is_judged_by = self._split.is_labelled and not self._has_test
        kept = (_VERIFIED, MOST_LABELLED) if is_judged_by else (_VERIFIED,)
        some = _trained_on(self._chosen, self._left, count, kept, self._seed)
        return self._inputs(self._split, some)

    def unseen(self) -> NDArray[np.float32]:
        """Return inputs to verify on, none of them calibrated on if there are others."""
        name, split, indices = self._others(_VERIFIED)
        if not len(indices):
            return self.inputs[:_VERIFIED]
        note = f"verified on {name} images; golden.npz holds the first of them"
        self.notes += [] if note in self.notes else [note]
        return self._inputs(split, indices)

    def labelled(self, count: int = MOST_LABELLED) -> LabelledPixels:
        """Return images whose classes are known, at most ``count``, none of them calibrated on.

        Raises:
            DataError: there are none.
        """
        name, split, indices = self._others(count)
        if not (split.is_labelled and len(indices)):
            raise DataError(
                f"{self._dataset.name} has no labelled images besides those to calibrate on, whose "
                "labels could be gone by: calibrate on fewer of them, or save labels with them"
            )
        return LabelledPixels(
            data=self._dataset.name,
            name=name,
            classes=len(self._dataset.classes),
            pixels=self._pixels(split, indices),
            labels=np.asarray(split.labels)[indices],
            preprocessing=self._preprocessing,
            shape=self._shape,
        )

    def _others(self, count: int) -> tuple[str, Split, NDArray[np.int64]]:
        """Return test images, or of the only split those that are not calibrated on."""
        if self._has_test:
            split = self._read("test")
            return "test", split, spread(len(split), min(count, len(split)), self._seed)
        rest = self._left
        chosen = spread(len(rest), min(count, len(rest)), self._seed)
        return f"other {self._name}", self._split, rest[chosen]

    @property
    def _has_test(self) -> bool:
        """Whether there are test images besides the split that is calibrated on."""
        return self._name != "test" and "test" in self._dataset.readers

    @property
    def _left(self) -> NDArray[np.int64]:
        """Numbers of the images of the split that are not calibrated on."""
        return np.setdiff1d(np.arange(len(self._split)), self._chosen)

    def _read(self, name: str) -> Split:
        split = self._dataset.images(name)
        if not len(split):
            raise DataError(f"{self._dataset.name} has no {name} images: check the path")
        return split

    def _inputs(self, split: Split, indices: NDArray[np.int64]) -> NDArray[np.float32]:
        return self._preprocessing.inputs(self._pixels(split, indices), self._shape)

    def _pixels(self, split: Split, indices: NDArray[np.int64]) -> NDArray[Any]:
        pixels = self._preprocessing.prepare_split(split, indices)
        self._preprocessing.check_channels(pixels.shape[1])
        new = [f"of the images: {remark}" for remark in split.remarks()]
        self.notes += [note for note in new if note not in self.notes]
        shape = laid_out(pixels[:1], self._shape).shape
        if shape[1:] != self._shape[1:]:
            found, wanted = ("x".join(map(str, s[1:])) for s in (shape, self._shape))
            raise DataError(
                f"{self._dataset.name} gives images of {found}, the network takes {wanted}: choose "
                "size and resize, or the data set that it was trained on"
            )
        return pixels


class ArrayImages:
    """Images that are at hand: of those that are not calibrated on, some are held out.

    Args:
        inputs: inputs of the network: by name, or of the only one (images, *input shape).
        name: what they are, as the user typed it.
        count: how many to calibrate on, spread evenly; all but a fifth where that is as many as
            there are, or None. Of few none are held out.
        seed: which ones.
        targets: what the network should make of them, by output, or of the only one.

    Attributes:
        inputs: those to calibrate on, as they were given.
        notes: what the reader of a report should know.
    """

    def __init__(
        self,
        inputs: Array | Arrays,
        *,
        name: str = "array",
        count: int | None = None,
        seed: int = 0,
        targets: Array | Arrays | None = None,
    ) -> None:
        self._name = name
        self._given, self._targets = inputs, targets
        self._seed, self._drawn_by = None if count is None else seed, seed
        total = images_of(inputs)
        everything = np.arange(total)
        drawn = count is not None and count < total
        chosen = spread(total, count, seed) if drawn and count else fitted_to(everything)
        self._chosen = chosen
        self.inputs: Any = inputs if len(chosen) == total else rows(inputs, chosen)
        self._left = np.setdiff1d(everything, chosen)
        self._others = rows(inputs, self._drawn(_VERIFIED))
        self.notes = (
            f"verified on {images_of(self._others)} images that it was not calibrated on"
            if images_of(self._others)
            else "verified on the images that it was calibrated on",
        )

    def facts(self) -> dict[str, Any]:
        """Return where they come from, JSON-ready."""
        return {
            "data": public_name(self._name),
            "split": None,
            "seed": self._seed,
            "is_labelled": self._targets is not None,
        }

    def held_out(self) -> tuple[str, Any]:
        """Return what images that are not calibrated on are, and they: none of few."""
        return "held-out", self._others

    def to_train_on(self, count: int) -> Any:
        """Return at most ``count`` inputs to train on, none held out or judged by."""
        kept = (_VERIFIED,) if self._targets is None else (_VERIFIED, MOST_LABELLED)
        some = _trained_on(self._chosen, self._left, count, kept, self._drawn_by)
        return rows(self._given, some)

    def unseen(self) -> Any:
        """Return inputs to verify on."""
        return rows(self._others if images_of(self._others) else self.inputs, slice(_VERIFIED))

    def labelled(self) -> LabelledTensors:
        """Return samples whose targets are known, none of them calibrated on.

        Raises:
            DataError: there are none.
        """
        if self._targets is None:
            raise DataError(
                "an accuracy drop needs labels: give a data set, tensors with targets, or a budget "
                "that needs none"
            )
        which = self._drawn(MOST_LABELLED)
        if not len(which):
            raise DataError(
                f"{self._name} has no samples besides those to calibrate on, to measure the drop "
                "on: give more, or calibrate on fewer of them"
            )
        return LabelledTensors(
            self._name, "held-out", rows(self._given, which), rows(self._targets, which)
        )

    def _drawn(self, count: int) -> NDArray[np.int64]:
        """Return the numbers of some samples that are not calibrated on."""
        left = self._left
        drawn: NDArray[np.int64] = left[spread(len(left), min(count, len(left)), self._drawn_by)]
        return drawn


def public_name(name: str) -> str:
    """Return what data are called, of their path the last part alone: a bundle travels."""
    kind, _, place = name.partition(":")
    return f"{kind}:{PurePath(place).name}" if place else kind


def fitted_to(indices: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return which of all images to calibrate on: four in five, and all of few."""
    if len(indices) < _MIN_SPLIT:
        return indices
    held_out = indices[_HELD_OUT - 1 :: _HELD_OUT][:_VERIFIED]
    return np.setdiff1d(indices, held_out)


def _trained_on(
    chosen: NDArray[np.int64], left: NDArray[np.int64], count: int, kept: Sequence[int], seed: int
) -> NDArray[np.int64]:
    """Return the numbers of ``count`` images to train on, or of as many as there are.

    Args:
        chosen: those to calibrate on, which come first.
        left: all others.
        count: how many.
        kept: how many of the others are drawn to be held out, and to be judged by.
        seed: of all that is drawn.
    """
    if count <= len(chosen):
        return chosen[spread(len(chosen), count, seed)]
    drawn = [spread(len(left), min(some, len(left)), seed) for some in kept]
    free = np.delete(left, np.concatenate(drawn))
    others = spread(len(free), min(count - len(chosen), len(free)), seed)
    return np.concatenate([chosen, free[others]])


def spread(total: int, count: int, seed: int) -> NDArray[np.int64]:
    """Return the numbers of ``count`` of ``total`` images: one of each of as many equal stretches.

    Many data sets are sorted by class: so all classes are among them.
    """
    edges = np.arange(count + 1, dtype=np.int64) * total // max(1, count)
    drawn: NDArray[np.int64] = edges[:-1] + np.random.default_rng(seed).integers(0, np.diff(edges))
    return drawn
