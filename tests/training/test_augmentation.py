"""What random changes make of images, pixel by pixel."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trpexport.training.augmentation import Augmentation, RandomResizedCrop
from trpexport.training.randomness import generator_at, numpy_generator_at


def test_shifted_images_are_windows_of_the_padded_ones() -> None:
    images = torch.randint(1, 256, (40, 3, 8, 8), dtype=torch.uint8)
    changed = Augmentation(shift=1, mirror=True)(images, generator_at(0))
    padded = torch.nn.functional.pad(images, (1, 1, 1, 1))
    seen = set()
    for before, after in zip(padded, changed, strict=True):
        found = [
            (dy, dx, mirrored)
            for dy in range(3)
            for dx in range(3)
            for mirrored in (False, True)
            if torch.equal(
                after,
                before[:, dy : dy + 8, dx : dx + 8].flip(2)
                if mirrored
                else before[:, dy : dy + 8, dx : dx + 8],
            )
        ]
        assert len(found) == 1
        seen.add(found[0])
    assert {place[0] for place in seen} == {place[1] for place in seen} == {0, 1, 2}
    assert {place[2] for place in seen} == {False, True}


def test_the_usual_shift_is_4_pixels_for_cifar_and_digits_are_not_mirrored() -> None:
    assert Augmentation.for_images(32, mirror=True) == Augmentation(4, True)
    images = torch.randint(1, 256, (40, 1, 8, 8), dtype=torch.uint8)
    assert torch.equal(Augmentation(0, False)(images, generator_at(0)), images)


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 600), st.integers(1, 600), st.integers(0, 99))
def test_a_cut_lies_within_the_image(height: int, width: int, seed: int) -> None:
    top, left, high, wide = RandomResizedCrop((8, 8), True).window(
        height, width, numpy_generator_at(seed)
    )
    assert high >= 1
    assert wide >= 1
    assert 0 <= top <= height - high
    assert 0 <= left <= width - wide


def test_cuts_have_the_area_and_ratio_that_they_should() -> None:
    crop, generator = RandomResizedCrop((8, 8), True), numpy_generator_at(1)
    cuts = np.array([crop.window(1000, 1000, generator) for _ in range(4000)])
    area, ratio = cuts[:, 2] * cuts[:, 3] / 1e6, cuts[:, 3] / cuts[:, 2]
    assert area.min() == pytest.approx(0.08, abs=0.01)
    assert 0.98 < area.max() <= 1
    assert ratio.min() == pytest.approx(3 / 4, abs=0.01)
    assert ratio.max() == pytest.approx(4 / 3, abs=0.01)
    assert np.log(ratio).mean() == pytest.approx(0, abs=0.02)
    # Cuts that do not fit are drawn again: an area a above 3/4 fits with probability
    # -ln a / ln 4/3, and the mean of areas weighted with that is 0.3770 / 0.7890.
    assert area.mean() == pytest.approx(0.4778, abs=0.012)


def test_a_very_long_image_is_cut_in_its_centre() -> None:
    crop = RandomResizedCrop((8, 8), True)
    assert crop.window(10, 1000, numpy_generator_at(0)) == (0, 493, 10, 13)
    assert crop.window(1000, 9, numpy_generator_at(0)) == (494, 0, 12, 9)
    assert crop.window(1, 1, numpy_generator_at(0)) == (0, 0, 1, 1)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_whole_image_stays_as_it_is(channels: int) -> None:
    image = np.random.default_rng(0).integers(0, 256, (12, 12, channels), dtype=np.uint8)
    whole = RandomResizedCrop((12, 12), mirror=True, area=(1, 1), ratio=(1, 1))
    results = [whole(image, numpy_generator_at(seed)) for seed in range(20)]
    planes = image.transpose(2, 0, 1)
    mirrored = [not np.array_equal(result, planes) for result in results]
    assert 2 < sum(mirrored) < 18
    for result, was_mirrored in zip(results, mirrored, strict=True):
        assert np.array_equal(result, planes[:, :, ::-1] if was_mirrored else planes)


def test_a_part_is_resized_as_pillow_does() -> None:
    images = pytest.importorskip("PIL.Image")
    image = np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8)
    crop = RandomResizedCrop((16, 20), mirror=False)
    top, left, high, wide = crop.window(50, 70, numpy_generator_at(5))
    part = images.fromarray(image).crop((left, top, left + wide, top + high))
    expected = np.asarray(part.resize((20, 16), images.Resampling.BILINEAR)).transpose(2, 0, 1)
    assert np.array_equal(crop(image, numpy_generator_at(5)), expected)
    assert math.isclose(crop.ratio[1], 4 / 3)
