"""Images to calibrate on, and others to verify on and to judge by."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.artifact.networks import SHAPE
from tests.made_data import BOTH, HOW, made_dataset, pixels
from trpexport.datasets.base import Dataset
from trpexport.datasets.calibration import ArrayImages, DatasetImages, spread
from trpexport.datasets.splits import ArraySplit
from trpexport.errors import DataError


def drawn(dataset: Dataset, count: int, seed: int = 0) -> DatasetImages:
    return DatasetImages(dataset, HOW, SHAPE, count=count, seed=seed)


def rows(images: NDArray[np.float32]) -> set[bytes]:
    return {image.tobytes() for image in images}


def test_images_come_from_the_training_split_and_others_from_the_test_split() -> None:
    images = drawn(BOTH, 16)
    assert images.inputs.shape == (16, *SHAPE[1:])
    assert rows(images.inputs) < rows(HOW.normalise(pixels(24)))
    made = {"data": "made:up", "split": "train", "seed": 0, "is_labelled": True}
    assert images.facts() == made
    assert not images.notes
    assert rows(images.unseen()) == rows(HOW.normalise(pixels(16, seed=1)))
    assert images.notes == ["verified on test images; golden.npz holds the first of them"]
    labelled = images.labelled()
    assert (labelled.name, labelled.classes) == ("test", 5)
    batches = list(labelled.batches())
    assert rows(np.concatenate([inputs for inputs, _ in batches])) == rows(images.unseen())
    assert sum(len(labels) for _, labels in batches) == 16


def test_channels_are_last_where_the_network_takes_them_so() -> None:
    _, channels, height, width = SHAPE
    images, usual = (
        DatasetImages(BOTH, HOW, shape, count=16) for shape in ((1, height, width, channels), SHAPE)
    )
    for last, first in (
        (images.inputs, usual.inputs),
        (images.held_out()[1], usual.held_out()[1]),
        (images.unseen(), usual.unseen()),
        *(
            (one[0], other[0])
            for one, other in zip(
                images.labelled().batches(), usual.labelled().batches(), strict=True
            )
        ),
    ):
        assert np.array_equal(last, first.transpose(0, 2, 3, 1))
    with pytest.raises(DataError, match=f"images of {height}x{width}x3, the network takes 9x9x3"):
        _ = DatasetImages(BOTH, HOW, (1, 9, 9, 3), count=16).inputs


def test_of_an_only_split_others_are_those_that_are_left() -> None:
    images = drawn(made_dataset(test=pixels(24)), 16)
    whole = rows(HOW.normalise(pixels(24)))
    assert len(rows(images.inputs)) == 16
    assert rows(images.unseen()) == whole - rows(images.inputs)
    assert images.labelled().name == "other test"
    assert len(images.labelled().labels) == 8


def test_where_all_could_be_calibrated_on_a_fifth_is_held_out() -> None:
    images = drawn(made_dataset(test=pixels(24)), 512)
    assert images.notes == ["calibrated on 20 of 24 images, fewer than 512"]
    name, others = images.held_out()
    assert name == "other test"
    assert (len(images.inputs), len(others)) == (20, 4)
    assert rows(others) == rows(HOW.normalise(pixels(24))) - rows(images.inputs)
    assert rows(images.unseen()) == rows(others)


def test_of_few_images_none_is_held_out() -> None:
    images = drawn(made_dataset(test=pixels(16)), 512)
    assert images.notes == ["calibrated on all 16 images, fewer than 512"]
    assert len(images.held_out()[1]) == 0
    assert rows(images.unseen()) == rows(images.inputs)
    with pytest.raises(
        DataError, match="no labelled images besides those to calibrate on"
    ) as caught:
        images.labelled()
    assert "\n" not in str(caught.value)
    assert "--" not in str(caught.value)


@pytest.mark.parametrize(("count", "name", "held_out"), [(16, "test", 16), (4, "other train", 20)])
def test_errors_are_measured_on_the_kind_that_there_is_more_of(
    count: int, name: str, held_out: int
) -> None:
    images = drawn(BOTH, count)
    found, inputs = images.held_out()
    assert (found, len(inputs)) == (name, held_out)
    assert not rows(inputs) & rows(images.inputs)


@pytest.mark.parametrize(("count", "held_out"), [(512, 24), (120, 24), (110, 22), (80, 40)])
def test_what_is_chosen_by_is_never_the_test_images_where_there_are_others(
    count: int, held_out: int
) -> None:
    images = drawn(made_dataset(train=pixels(120), test=pixels(240)), count)
    name, others = images.held_out()
    assert name == "other train"
    assert len(others) >= held_out
    assert not rows(others) & rows(images.inputs)


def test_labels_go_with_their_images() -> None:
    values = pixels(24)
    labels = np.arange(24)
    split = ArraySplit(values, labels)
    dataset = replace(
        BOTH, readers={"train": lambda: ArraySplit(values[:1], labels[:1]), "test": lambda: split}
    )
    wanted = {HOW.normalise(values[i : i + 1]).tobytes(): i for i in range(24)}
    for inputs, found in drawn(dataset, 1).labelled().batches():
        assert [wanted[image.tobytes()] for image in inputs] == found.tolist()


GREY = replace(BOTH, readers={"test": lambda: ArraySplit(pixels(8)[:, :1], np.zeros(8, np.int64))})
EMPTY = replace(BOTH, readers={"test": lambda: ArraySplit(pixels(0), np.zeros(0, np.int64))})


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        (
            made_dataset(train=pixels(8)[:, :, :8]),
            "gives images of 3x8x16, the network takes 3x16x16",
        ),
        (EMPTY, "has no test images: check the path"),
    ],
)
def test_images_that_do_not_fit_are_one_line(dataset: Dataset, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        _ = drawn(dataset, 4).inputs
    assert "\n" not in str(caught.value)


def test_images_are_spread_over_the_split() -> None:
    chosen = spread(1000, 10, seed=3)
    assert [index // 100 for index in chosen] == list(range(10))
    assert not np.array_equal(chosen, spread(1000, 10, seed=4))
    assert spread(5, 5, seed=0).tolist() == [0, 1, 2, 3, 4]
    assert spread(0, 0, seed=0).tolist() == []


def test_the_seed_chooses_which_images() -> None:
    one, same, other = (drawn(BOTH, 8, seed).inputs for seed in (1, 1, 2))
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)


def test_of_an_array_a_fifth_is_held_out() -> None:
    values = HOW.normalise(pixels(32))
    images = ArrayImages(values)
    _, others = images.held_out()
    assert (len(images.inputs), len(others)) == (26, 6)
    assert rows(images.inputs) | rows(others) == rows(values)
    assert rows(images.unseen()) == rows(others)
    assert images.notes == ("verified on 6 images that it was not calibrated on",)


def test_a_small_array_has_no_others() -> None:
    values = HOW.normalise(pixels(4))
    images = ArrayImages(values)
    assert np.array_equal(images.inputs, values)
    assert np.array_equal(images.unseen(), values)
    assert images.facts()["data"] == "array"
    assert images.notes == ("verified on the images that it was calibrated on",)
    with pytest.raises(DataError, match="give a data set, tensors with targets"):
        images.labelled()


def test_grey_images_get_three_equal_channels_and_that_is_said_once() -> None:
    grey = replace(GREY, channels=1)
    images = drawn(grey, 8)
    plain = (images.inputs * np.reshape(HOW.std, (3, 1, 1))) + np.reshape(HOW.mean, (3, 1, 1))
    np.testing.assert_allclose(plain[:, 1], pixels(8)[:, 0] / 255, atol=1e-6)
    np.testing.assert_allclose(plain[:, 2], plain[:, 0], atol=1e-6)
    _ = images.unseen(), images.inputs
    assert sum("three equal channels" in note for note in images.notes) == 1


def test_a_mean_for_another_number_of_channels_than_the_network_has_is_named() -> None:
    with pytest.raises(DataError, match="takes 1 channel, the preprocessing has a mean for 3"):
        DatasetImages(BOTH, HOW, (1, 1, 16, 16))


MANY = pixels(3000)


@pytest.mark.parametrize(
    ("dataset", "most"),
    [
        # Of 3,000, 256 are held out; of an only split with labels 2,000 may be judged by as well.
        (made_dataset(train=MANY, test=pixels(16, seed=1)), 2744),
        (made_dataset(test=MANY), None),
    ],
)
def test_nothing_is_trained_on_that_is_held_out_or_judged_by(
    dataset: Dataset, most: int | None
) -> None:
    images = drawn(dataset, 64)
    given = images.to_train_on(10_000)
    found, chosen = rows(given), rows(images.inputs)
    assert len(given) == len(found)
    assert most in (None, len(given))
    assert np.array_equal(given[:64], images.inputs)
    assert len(found) > len(chosen)
    labelled = [inputs for inputs, _ in images.labelled().batches()]
    for others in (images.held_out()[1], images.unseen(), np.concatenate(labelled)):
        assert not rows(others) & found
    assert rows(images.to_train_on(100)) > chosen
    assert len(images.to_train_on(100)) == 100
    assert len(rows(images.to_train_on(10))) == 10
    assert rows(images.to_train_on(10)) < chosen


@pytest.mark.parametrize("targets", [None, np.zeros(3000, np.int64)])
@pytest.mark.parametrize("count", [None, 64])
def test_of_an_array_nothing_is_trained_on_that_is_held_out_or_judged_by(
    targets: NDArray[np.int64] | None, count: int | None
) -> None:
    images = ArrayImages(HOW.normalise(MANY), count=count, targets=targets)
    given = images.to_train_on(10_000)
    assert rows(images.inputs) <= rows(given)
    assert (len(given) > len(images.inputs)) is (count is not None)
    others = [images.held_out()[1], images.unseen()]
    if targets is not None:
        others += [inputs for inputs, _ in images.labelled().batches()]
    assert not any(rows(some) & rows(given) for some in others)


def test_where_all_are_calibrated_on_all_are_trained_on() -> None:
    images = drawn(made_dataset(test=pixels(24)), 512)
    assert np.array_equal(images.to_train_on(512), images.inputs)
