"""From a data set to batches: which way is taken, and what becomes of images of differing sizes."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from trpexport.datasets.preprocessing import Preprocessing
from trpexport.datasets.splits import Split
from trpexport.errors import DataError
from trpexport.training.augmentation import RandomResizedCrop
from trpexport.training.batches import ArrayBatches
from trpexport.training.data import TrainingData
from trpexport.training.distributed import Workers
from trpexport.training.file_batches import FileBatches, default_decoders, file_test_batches

CPU = torch.device("cpu")
ALONE = Workers(0, 1, CPU)
PREPROCESSING = Preprocessing((0.4, 0.5, 0.6), (0.2, 0.3, 0.1), size=(12, 12), resize=14)


@dataclass
class Pictures(Split):
    """Images of differing sizes that note which were decoded."""

    count: int = 26
    broken: int | None = None
    decoded: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.labels = np.arange(self.count)

    def image(self, index: int) -> NDArray[np.uint8]:
        if index == self.broken:
            raise DataError("a.jpg can't be decoded: replace it")
        self.decoded.append(index)
        generator = np.random.default_rng(index)
        return generator.integers(0, 256, (16 + index, 40 - index, 3), dtype=np.uint8)


def batches(split: Split, decoders: int = 0, rank: int = 0, workers: int = 1) -> FileBatches:
    return FileBatches(
        split, PREPROCESSING, RandomResizedCrop((12, 12), True), CPU,
        decoders=decoders, batch_size=8, seed=0, rank=rank, workers=workers,
    )  # fmt: skip


def test_neither_decoders_nor_workers_change_an_image() -> None:
    alone = list(batches(Pictures()).epoch(1))
    assert len(alone) == 3
    assert alone[0][0].shape == (8, 3, 12, 12)
    for (images, labels), (same, classes) in zip(
        alone, batches(Pictures(), decoders=2).epoch(1), strict=True
    ):
        assert torch.equal(images, same)
        assert torch.equal(labels, classes)
    for rank in range(2):
        for (images, labels), (mine, classes) in zip(
            alone, batches(Pictures(), rank=rank, workers=2).epoch(1), strict=True
        ):
            assert torch.equal(images[rank::2], mine)
            assert torch.equal(labels[rank::2], classes)
    other = next(batches(Pictures()).epoch(2))
    assert not torch.equal(alone[0][0], other[0])


def test_going_on_decodes_nothing_that_was_done() -> None:
    pictures = Pictures()
    whole = list(batches(pictures).epoch(0))
    pictures.decoded.clear()
    (images, labels), *more = batches(pictures).epoch(0, first=2)
    assert not more
    assert torch.equal(images, whole[2][0])
    assert sorted(pictures.decoded) == sorted(labels.tolist())


def test_what_an_image_becomes_is_the_cut_of_its_own_position() -> None:
    from trpexport.training.randomness import numpy_generator_at

    pictures = Pictures()
    made = batches(pictures)
    images, labels = list(made.epoch(1))[1]
    crop = RandomResizedCrop((12, 12), True)
    expected = [
        crop(pictures.image(int(label)), numpy_generator_at(0, 1, 8 + at))
        for at, label in enumerate(labels)
    ]
    assert np.array_equal(images.numpy(), PREPROCESSING.normalise(np.stack(expected)))


@pytest.mark.parametrize("decoders", [0, 2])
def test_an_image_that_can_not_be_decoded_is_one_line(decoders: int) -> None:
    with pytest.raises(DataError) as caught:
        list(batches(Pictures(broken=3, count=8), decoders).epoch(0))
    assert str(caught.value) == "a.jpg can't be decoded: replace it"


@pytest.mark.parametrize(("decoders", "workers"), [(0, 1), (2, 1), (0, 3)])
def test_test_images_are_prepared_as_at_evaluation(decoders: int, workers: int) -> None:
    pictures = Pictures()
    expected = PREPROCESSING.normalise(
        np.stack([PREPROCESSING.prepare(pictures.image(i)) for i in range(26)])
    )
    seen = []
    for rank in range(workers):
        for images, labels in file_test_batches(
            pictures,
            PREPROCESSING,
            CPU,
            decoders=decoders,
            rank=rank,
            workers=workers,
            batch_size=4,
        ):
            assert np.array_equal(images.numpy(), expected[labels.numpy()])
            seen += labels.tolist()
    assert sorted(seen) == list(range(26))


def test_fewer_test_images_than_workers() -> None:
    assert not list(
        file_test_batches(Pictures(2), PREPROCESSING, CPU, decoders=2, rank=2, workers=3)
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two classes with photographs of differing sizes."""
    images = pytest.importorskip("PIL.Image")
    generator = np.random.default_rng(0)
    for split in ("train", "test"):
        for name in ("cat", "dog"):
            place = tmp_path / split / name
            place.mkdir(parents=True)
            for i in range(4):
                pixels = generator.integers(0, 256, (20 + i, 30 - i, 3), dtype=np.uint8)
                images.fromarray(pixels).save(place / f"{i}.png")
    return tmp_path


def test_images_of_differing_sizes_are_cut_to_what_the_architecture_takes(folder: Path) -> None:
    data = TrainingData.open(f"imagefolder:{folder}", default_size=(16, 16))
    assert (data.preprocessing.size, data.preprocessing.resize) == ((16, 16), 18)  # 16 / 0.875
    assert data.input_shape == (1, 3, 16, 16)
    found = data.batches(4, 0, True, ALONE, decoders=0)
    assert isinstance(found, FileBatches)
    assert next(found.epoch(0))[0].shape == (4, 3, 16, 16)
    tested = list(data.test_batches(ALONE, decoders=0)())
    assert sum(len(labels) for _, labels in tested) == 8
    with pytest.raises(DataError, match="differ in size: say which size to cut"):
        TrainingData.open(f"imagefolder:{folder}")


def test_sizes_that_a_user_asks_for(folder: Path, digits: str) -> None:
    place = f"imagefolder:{folder}"
    data = TrainingData.open(place, size=12, resize=13, default_size=(16, 16))
    assert (data.preprocessing.size, data.preprocessing.resize) == ((12, 12), 13)
    data = TrainingData.open(place, size=224)
    assert data.preprocessing.resize == 256
    larger = TrainingData.open(digits, size=16)
    assert not larger.lies_in_memory
    images, _ = next(larger.batches(32, 0, False, ALONE, decoders=0).epoch(0))
    assert images.shape == (32, 1, 16, 16)


def test_channels_that_the_preprocessing_does_not_have(digits: str) -> None:
    with pytest.raises(DataError, match="have 1 channel, the preprocessing has a mean for 3"):
        TrainingData.open(digits, Preprocessing((0.5,) * 3, (0.5,) * 3))


def test_images_of_one_size_stay_in_memory(digits: str) -> None:
    data = TrainingData.open(digits, default_size=(32, 32))
    assert data.input_shape == (1, 1, 8, 8)
    assert data.preprocessing.size is None
    assert isinstance(data.batches(32, 0, True, ALONE), ArrayBatches)
    # A checkpoint that says the same size changes nothing.
    said = Preprocessing((0.5,), (0.5,), size=(8, 8))
    assert isinstance(TrainingData.open(digits, said).batches(32, 0, True, ALONE), ArrayBatches)
    tested = list(data.test_batches(ALONE)())
    assert sum(len(labels) for _, labels in tested) == 100


def test_workers_share_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    alone = default_decoders()
    assert alone >= 1
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(alone))
    assert default_decoders() == 1
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4000")
    assert default_decoders() == 1
