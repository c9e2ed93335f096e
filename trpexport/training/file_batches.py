"""Batches of images that lie in files and differ in size, decoded by processes beside the run."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from trpexport.available import usable_cores
from trpexport.datasets.preprocessing import Preprocessing
from trpexport.datasets.splits import Split
from trpexport.errors import DataError, TrpexportError
from trpexport.training.augmentation import RandomResizedCrop
from trpexport.training.batches import Batch, Batches, Normaliser
from trpexport.training.randomness import numpy_generator_at


class FileBatches(Batches):
    """Batches of images that are decoded, cropped and resized when their turn comes.

    What becomes of an image depends on the seed, the epoch and its position in it: not on how many
    processes decode, nor on how many workers train, nor on where a run was taken up again.

    Args:
        split: the training images.
        preprocessing: how they are normalised, and cut where ``crop`` is None.
        crop: how they are cut at random, else.
        device: where the batches are wanted.
        decoders: processes that decode; 0 to decode in this one.
        batch_size, seed, rank, workers: as for :class:`Batches`.
    """

    def __init__(
        self,
        split: Split,
        preprocessing: Preprocessing,
        crop: RandomResizedCrop | None,
        device: torch.device,
        *,
        decoders: int,
        batch_size: int,
        seed: int,
        rank: int = 0,
        workers: int = 1,
    ) -> None:
        super().__init__(split, batch_size, seed, rank, workers)
        self.split, self.preprocessing, self.crop = split, preprocessing, crop
        self.device, self.decoders = device, decoders

    def epoch(self, epoch: int, first: int = 0) -> Iterator[Batch]:
        """Yield (images, labels) of the steps of an epoch, from step ``first`` on."""
        order = self.order(epoch).numpy()
        decoding = _TrainingBatches(
            self.split, self.preprocessing, self.crop, order, (self.seed, epoch), self.rank,
            self.workers,
        )  # fmt: skip
        steps = range(first, len(self))
        return _loaded(decoding, steps, self.preprocessing, self.device, self.decoders)


def file_test_batches(
    split: Split,
    preprocessing: Preprocessing,
    device: torch.device,
    *,
    decoders: int,
    rank: int = 0,
    workers: int = 1,
    batch_size: int = 100,
) -> Iterator[Batch]:
    """Yield (images, labels) of one worker's share of the test images, prepared one by one.

    Raises:
        DataError: an image can't be decoded, or is smaller than what is cut from it.
    """
    indices = np.arange(rank, len(split), workers)
    shares = [indices[at : at + batch_size] for at in range(0, len(indices), batch_size)]
    decoding = _TestBatches(split, preprocessing, shares)
    return _loaded(decoding, range(len(shares)), preprocessing, device, decoders)


def default_decoders() -> int:
    """Return the number of cores that this worker has to itself."""
    together = os.environ.get("LOCAL_WORLD_SIZE", "1")
    return max(1, usable_cores() // max(1, int(together)))


# An error travels as a value: a DataLoader would wrap it in its worker's traceback.
_Decoded = tuple[Tensor, Tensor] | TrpexportError


class _Decoding(TorchDataset[_Decoded]):
    """Decodes a whole batch in one process; what is handed on is bytes, four times less."""

    split: Split

    def prepared(self, batch: int) -> tuple[NDArray[np.int64], list[NDArray[np.uint8]]]:
        """Return the numbers of a batch's images, and what became of them, all of one shape."""
        raise NotImplementedError

    def __getitem__(self, batch: int) -> _Decoded:
        try:
            indices, images = self.prepared(batch)
        except TrpexportError as error:
            return error
        return torch.from_numpy(np.stack(images)), torch.from_numpy(self.split.labels[indices])


@dataclass(frozen=True, eq=False)
class _TrainingBatches(_Decoding):
    split: Split
    preprocessing: Preprocessing
    crop: RandomResizedCrop | None
    order: NDArray[np.int64]
    place: tuple[int, int]
    rank: int
    workers: int

    def prepared(self, batch: int) -> tuple[NDArray[np.int64], list[NDArray[np.uint8]]]:
        size = self.order.shape[1]
        mine = range(self.rank, size, self.workers)
        images = [
            self.changed(self.split.image(int(self.order[batch, at])), batch * size + at)
            for at in mine
        ]
        return self.order[batch, mine], images

    def changed(self, image: NDArray[np.uint8], position: int) -> NDArray[np.uint8]:
        if self.crop is None:
            return self.preprocessing.prepare(image)
        return self.crop(image, numpy_generator_at(*self.place, position))


@dataclass(frozen=True, eq=False)
class _TestBatches(_Decoding):
    split: Split
    preprocessing: Preprocessing
    shares: Sequence[NDArray[np.int64]]

    def prepared(self, batch: int) -> tuple[NDArray[np.int64], list[NDArray[np.uint8]]]:
        indices = self.shares[batch]
        return indices, [self.preprocessing.prepare(self.split.image(int(i))) for i in indices]


def _loaded(
    decoding: _Decoding,
    batches: Sequence[int],
    preprocessing: Preprocessing,
    device: torch.device,
    decoders: int,
) -> Iterator[Batch]:
    normaliser = Normaliser(preprocessing, device)
    with warnings.catch_warnings():
        # More processes than cores: somebody wanted them.
        warnings.filterwarnings("ignore", "This DataLoader will create", UserWarning)
        loader = iter(
            DataLoader(
                decoding,
                batch_size=None,  # an item is a batch already
                sampler=batches,
                num_workers=min(decoders, len(batches)),
                pin_memory=device.type == "cuda",
            )
        )
    try:
        for decoded in loader:
            if isinstance(decoded, TrpexportError):
                raise decoded
            images, labels = decoded
            images = images.to(device, non_blocking=True)
            images = images.contiguous(memory_format=torch.channels_last)
            yield normaliser(images), labels.to(device, non_blocking=True)
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise DataError(
            "a process that decodes images was killed, for want of memory perhaps: give fewer "
            "decoders, 0 for none",
            parameters=("decoders",),
        ) from error
