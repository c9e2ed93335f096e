"""Which images a batch holds, whoever draws it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from trpexport.datasets.preprocessing import Preprocessing
from trpexport.datasets.splits import ArraySplit
from trpexport.errors import DataError
from trpexport.training.augmentation import Augmentation
from trpexport.training.batches import ArrayBatches, Normaliser

CPU = torch.device("cpu")
PREPROCESSING = Preprocessing((0.4, 0.5, 0.6), (0.2, 0.3, 0.1))


def split(count: int = 37) -> ArraySplit:
    images = np.random.default_rng(0).integers(0, 256, (count, 3, 8, 8), dtype=np.uint8)
    return ArraySplit(images, np.arange(count))  # an image's class is its number


def batches(rank: int = 0, workers: int = 1, augment: bool = True, seed: int = 0) -> ArrayBatches:
    return ArrayBatches(
        split(), PREPROCESSING, Augmentation(1, True) if augment else None, CPU,
        batch_size=8, seed=seed, rank=rank, workers=workers,
    )  # fmt: skip


def test_an_epoch_takes_each_image_at_most_once() -> None:
    labels = torch.cat([labels for _, labels in batches().epoch(0)])
    assert len(batches()) == 4
    assert len(labels) == len(set(labels.tolist())) == 32
    others = torch.cat([labels for _, labels in batches().epoch(1)])
    assert not torch.equal(labels, others)
    assert not torch.equal(labels, torch.cat([y for _, y in batches(seed=1).epoch(0)]))


@pytest.mark.parametrize("workers", [2, 4])
def test_workers_share_out_what_one_would_take(workers: int) -> None:
    alone = list(batches().epoch(3))
    shares = [list(batches(rank, workers).epoch(3)) for rank in range(workers)]
    for step, (images, labels) in enumerate(alone):
        for rank in range(workers):
            mine, classes = shares[rank][step]
            assert torch.equal(mine, images[rank::workers])
            assert torch.equal(classes, labels[rank::workers])


def test_going_on_within_an_epoch_gives_the_same_batches() -> None:
    whole, rest = list(batches().epoch(2)), list(batches().epoch(2, first=3))
    assert len(rest) == 1
    assert torch.equal(rest[0][0], whole[3][0])


def test_images_are_normalised_as_elsewhere() -> None:
    images, labels = next(batches(augment=False).epoch(0))
    expected = PREPROCESSING.normalise(split().images[labels.numpy()])
    assert np.array_equal(images.numpy(), expected)
    assert torch.equal(
        Normaliser(PREPROCESSING, CPU)(torch.from_numpy(split().images)),
        torch.from_numpy(PREPROCESSING.normalise(split().images)),
    )


def test_batches_that_can_not_be() -> None:
    with pytest.raises(DataError, match="37 training images, fewer than a batch of 64"):
        ArrayBatches(split(), PREPROCESSING, None, CPU, batch_size=64, seed=0)
    with pytest.raises(DataError, match="8 can't be shared out among 3 workers"):
        batches(workers=3)
