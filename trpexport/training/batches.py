"""Batches of images on the device, in an order that depends on seed and epoch alone."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sized
from typing import Any

import torch
from torch import Tensor

from trpexport.datasets.preprocessing import Preprocessing
from trpexport.datasets.splits import Split
from trpexport.errors import DataError
from trpexport.training.augmentation import Augmentation
from trpexport.training.randomness import generator_at

# Inputs and labels: a tensor, or several by name; no labels are None.
Batch = tuple[Any, Any]


class Batches(ABC):
    """The training images of one worker, batch by batch.

    Every worker draws the same global batches and takes each ``workers``-th image of them, so a
    global batch holds the same images, changed in the same way, however many workers there are.
    What is left of an epoch after the last whole batch waits for another epoch.

    Args:
        split: the training images.
        batch_size: images of a global batch.
        seed: of the run.
        rank: number of this worker.
        workers: how many there are.

    Raises:
        DataError: there are fewer images than a batch takes, or a batch can't be shared out.
    """

    def __init__(self, split: Sized, batch_size: int, seed: int, rank: int, workers: int) -> None:
        if batch_size % workers:
            raise DataError(
                f"a batch of {batch_size} can't be shared out among {workers} workers: "
                "give a batch size that is a multiple",
                parameters=("batch_size",),
            )
        if len(split) < batch_size:
            raise DataError(
                f"there are {len(split)} training images, fewer than a batch of {batch_size}: "
                "give a smaller batch size",
                parameters=("batch_size",),
            )
        self.count = len(split)
        self.batch_size, self.seed = batch_size, seed
        self.rank, self.workers = rank, workers

    def __len__(self) -> int:
        """Return the number of steps of an epoch."""
        return self.count // self.batch_size

    def order(self, epoch: int) -> Tensor:
        """Return the images of an epoch's global batches, (steps, batch_size)."""
        shuffled = torch.randperm(self.count, generator=generator_at(self.seed, epoch))
        return shuffled[: len(self) * self.batch_size].reshape(len(self), self.batch_size)

    @abstractmethod
    def epoch(self, epoch: int, first: int = 0) -> Iterator[Batch]:
        """Yield (images, labels) of the steps of an epoch, from step ``first`` on."""


class ArrayBatches(Batches):
    """Batches of images that lie in memory, on the device itself.

    Args:
        split: the training images, all of one size.
        preprocessing: how they are normalised.
        augmentation: how they are changed at random; None to leave them.
        device: where the batches are wanted.
        batch_size, seed, rank, workers: as for :class:`Batches`.
    """

    def __init__(
        self,
        split: Split,
        preprocessing: Preprocessing,
        augmentation: Augmentation | None,
        device: torch.device,
        *,
        batch_size: int,
        seed: int,
        rank: int = 0,
        workers: int = 1,
    ) -> None:
        super().__init__(split, batch_size, seed, rank, workers)
        images = split.arrays()
        assert images is not None
        self.images = torch.from_numpy(images).to(device)
        self.labels = torch.from_numpy(split.labels).to(device)
        self.normaliser = Normaliser(preprocessing, device)
        self.augmentation = augmentation

    def epoch(self, epoch: int, first: int = 0) -> Iterator[Batch]:
        """Yield (images, labels) of the steps of an epoch, from step ``first`` on."""
        order = self.order(epoch).to(self.images.device)
        for step in range(first, len(self)):
            rows = order[step]
            images = self.images[rows]
            if self.augmentation:
                images = self.augmentation(images, generator_at(self.seed, epoch, step))
            mine = slice(self.rank, None, self.workers)
            yield self.normaliser(images[mine]), self.labels[rows[mine]]


class Normaliser:
    """Turns images into a network's input, on the device, as ``Preprocessing.normalise`` does.

    Args:
        preprocessing: mean and standard deviation.
        device: where the images are.
    """

    def __init__(self, preprocessing: Preprocessing, device: torch.device) -> None:
        self.mean = torch.tensor(preprocessing.mean, device=device)[:, None, None]
        self.std = torch.tensor(preprocessing.std, device=device)[:, None, None]

    def __call__(self, images: Tensor) -> Tensor:
        """Return float32 input of bytes, or of floats from 0 to 1, (n, channels, height, width)."""
        scaled = images.float() if images.is_floating_point() else images.float() / 255
        return (scaled - self.mean) / self.std
