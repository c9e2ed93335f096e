"""The images with text that a detector's maps are shown of."""

from __future__ import annotations

import numpy as np

from benchmarks.text_maps import inputs, scenes


def test_scenes_are_the_same_each_time_and_become_inputs() -> None:
    first, second = scenes(), scenes()
    assert first.shape == (3, 224, 224, 3)
    np.testing.assert_array_equal(first, second)
    given = inputs(first)
    assert given.shape == (3, 3, 224, 224)
    red = (first[0, 5, 7, 0] / 255 - 0.485) / 0.229
    assert abs(given[0, 0, 5, 7] - red) < 1e-5
