"""From a data set to the batches that a run trains and is tested on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import numpy as np
import torch

from trpexport.datasets import open_dataset
from trpexport.datasets.base import Dataset
from trpexport.datasets.calibration import fitted_to
from trpexport.datasets.preprocessing import Preprocessing
from trpexport.datasets.splits import Split, Subset
from trpexport.errors import DataError
from trpexport.training.augmentation import Augmentation, RandomResizedCrop
from trpexport.training.batches import ArrayBatches, Batch, Batches, Normaliser
from trpexport.training.distributed import Workers
from trpexport.training.file_batches import FileBatches, default_decoders, file_test_batches

_TEST_BATCH = 500
# The edge of what is cut from a test image, of the image's shorter edge: 224 of 256.
_CUT_SHARE = 0.875


@dataclass(frozen=True)
class TrainingData:
    """The images of a run.

    Attributes:
        dataset: where they come from.
        train: the training images.
        test: the test images.
        preprocessing: how they become input.
    """

    dataset: Dataset
    train: Split
    test: Split
    preprocessing: Preprocessing

    @classmethod
    def open(
        cls,
        text: str,
        preprocessing: Preprocessing | None = None,
        *,
        size: int | None = None,
        resize: int | None = None,
        default_size: tuple[int, int] | None = None,
        labelled: bool = True,
    ) -> TrainingData:
        """Read the training and test images of a data set.

        Args:
            text: ``NAME`` or ``NAME:PATH``.
            preprocessing: how they become input; the data set's own way where it is None.
            size: height and width of the input, instead of what ``preprocessing`` says.
            resize: length of the shorter edge of a test image before its centre is cut out; the
                ImageNet habit, size / 0.875, where a size is given and this is not.
            default_size: (height, width) to cut from images that differ in size.
            labelled: whether labels are needed. Where not, one image in five of an only split is
                tested on.

        Raises:
            DataError: they can't be read, differ in size and nothing says what to cut out, or have
                other channels than the preprocessing.
        """
        dataset = open_dataset(text)
        train, test = _splits(dataset, labelled=labelled)
        for split in (train, test):
            if len(split) == 0:
                raise DataError(f"{text} has no images: check the path")
        found = dataset.prepared_by(preprocessing) or dataset.preprocessing
        if size is not None:
            found = replace(found, size=(size, size), resize=resize or _usual_resize((size, size)))
        elif resize is not None:
            found = replace(found, resize=resize)
        if found.size is None and (found.resize is not None or _one_size(train, test) is None):
            if default_size is None:
                raise DataError(
                    f"the images of {text} differ in size: say which size to cut",
                    parameters=("size",),
                )
            resize = found.resize or _usual_resize(default_size)
            found = replace(found, size=default_size, resize=resize)
        found.check_channels(dataset.channels)
        return cls(dataset, train, test, found)

    @property
    def has_labels(self) -> bool:
        """Whether the images have labels."""
        return self.train.is_labelled

    @property
    def has_classes(self) -> bool:
        """Whether these are one class an image."""
        return self.train.is_labelled

    def facts(self) -> dict[str, Any]:
        """Return what a checkpoint says of them, JSON-ready."""
        return {
            "input_shape": list(self.input_shape),
            "dataset": self.dataset.name.partition(":")[0],
            "preprocessing": self.preprocessing.to_json(),
        }

    @cached_property
    def lies_in_memory(self) -> bool:
        """Whether the images are all of the size that the network takes, and few enough."""
        wanted = self.preprocessing
        if wanted.resize is not None:
            return False
        found = _one_size(self.train, self.test)
        return found is not None and wanted.size in (None, found)

    @property
    def input_shape(self) -> tuple[int, int, int, int]:
        """Shape of one input, batch first."""
        size = self.preprocessing.size or _one_size(self.train, self.test)
        assert size is not None
        return (1, self.dataset.channels, *size)

    def batches(
        self,
        batch_size: int,
        seed: int,
        augment: bool,
        workers: Workers,
        decoders: int | None = None,
    ) -> Batches:
        """Return the training batches of one worker.

        Args:
            batch_size: images of a global batch.
            seed: of the run.
            augment: whether images are changed at random: shifted and mirrored, or, where they are
                cut out of larger ones, cut and mirrored.
            workers: the processes that train together.
            decoders: processes that decode image files, for each worker; None for one a core.

        Raises:
            DataError: a batch is larger than the data set, or can't be shared out.
        """
        _, _, *size = self.input_shape
        mirror = self.dataset.mirror
        if self.lies_in_memory:
            return ArrayBatches(
                self.train,
                self.preprocessing,
                Augmentation.for_images(size[0], mirror) if augment else None,
                workers.device,
                batch_size=batch_size,
                seed=seed,
                rank=workers.rank,
                workers=workers.count,
            )
        return FileBatches(
            self.train,
            self.preprocessing,
            RandomResizedCrop((size[0], size[1]), mirror) if augment else None,
            workers.device,
            decoders=default_decoders() if decoders is None else decoders,
            batch_size=batch_size,
            seed=seed,
            rank=workers.rank,
            workers=workers.count,
        )

    def test_batches(
        self, workers: Workers, decoders: int | None = None
    ) -> Callable[[], Iterator[Batch]]:
        """Return what yields one worker's share of the test images, each time from the start."""
        if self.lies_in_memory:
            return self._test_arrays(workers)
        return partial(
            file_test_batches,
            self.test,
            self.preprocessing,
            workers.device,
            decoders=default_decoders() if decoders is None else decoders,
            rank=workers.rank,
            workers=workers.count,
        )

    def _test_arrays(self, workers: Workers) -> Callable[[], Iterator[Batch]]:
        images = self.test.arrays()
        assert images is not None
        mine = slice(workers.rank, None, workers.count)
        x = torch.from_numpy(images[mine].copy()).to(workers.device)
        y = torch.from_numpy(self.test.labels[mine].copy()).to(workers.device)
        normaliser = Normaliser(self.preprocessing, workers.device)

        def batches() -> Iterator[Batch]:
            for start in range(0, len(y), _TEST_BATCH):
                rows = slice(start, start + _TEST_BATCH)
                yield normaliser(x[rows]), y[rows]

        return batches


def _splits(dataset: Dataset, *, labelled: bool) -> tuple[Split, Split]:
    """Return the images to train on, and those to test on."""
    if labelled:
        return dataset.split("train"), dataset.split("test")
    if len(dataset.readers) > 1:
        return dataset.images("train"), dataset.images("test")
    (name,) = dataset.readers
    split = dataset.images(name)
    everything = np.arange(len(split))
    fitted = fitted_to(everything)
    left = np.setdiff1d(everything, fitted)
    return Subset(split, fitted), Subset(split, left if len(left) else everything)


def _one_size(train: Split, test: Split) -> tuple[int, int] | None:
    """Return the (height, width) that all images have; None where they differ or are too many."""
    sizes = set()
    for split in (train, test):
        images = split.arrays()
        if images is None:
            return None
        sizes.add((images.shape[2], images.shape[3]))
    return sizes.pop() if len(sizes) == 1 else None


def _usual_resize(size: tuple[int, int]) -> int:
    return round(min(size) / _CUT_SHARE)
