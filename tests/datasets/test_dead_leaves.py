"""Artificial images with the statistics of photographs."""

from __future__ import annotations

import numpy as np
import pytest

from trpexport.datasets.dead_leaves import dead_leaves


@pytest.mark.parametrize(("channels", "height", "width"), [(3, 32, 32), (1, 8, 40), (4, 5, 1)])
def test_shape_and_scale(channels: int, height: int, width: int) -> None:
    images = dead_leaves(6, channels, height, width)
    assert images.shape == (6, channels, height, width)
    assert images.dtype == np.float32
    assert float(images.mean()) == pytest.approx(0, abs=1e-5)
    assert float(images.std()) == pytest.approx(1, abs=1e-5)


def test_a_seed_gives_the_same_images() -> None:
    assert np.array_equal(dead_leaves(2, 3, 16, 16), dead_leaves(2, 3, 16, 16))
    assert not np.array_equal(dead_leaves(2, 3, 16, 16), dead_leaves(2, 3, 16, 16, seed=1))


def test_the_spectrum_falls_as_that_of_photographs() -> None:
    """Power falls with frequency to the power -2, within a half (van der Schaaf and Hateren)."""
    power = np.abs(np.fft.rfft(dead_leaves(32, 1, 64, 64)[:, 0], axis=-1)) ** 2
    frequencies = np.arange(2, 24)
    slope = np.polyfit(np.log(frequencies), np.log(power.mean((0, 1))[2:24]), 1)[0]
    assert slope == pytest.approx(-2, abs=0.5)
