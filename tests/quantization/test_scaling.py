"""The diagonal between two operators, against J written out again and against chance."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trpexport.quantization.scaling import Statistics, best_diagonal


def expected_error(
    kernel: Any, high: Any, low: Any, square: Any, d: Any, *, is_symmetric: bool
) -> float:
    """J of the module's docstring, value by value."""
    groups, outputs, inputs, taps = kernel.shape
    tops = [max(h * f, -low_ * f) for h, low_, f in zip(high, low, d, strict=True)]
    bottoms = [max(-h * f, low_ * f) for h, low_, f in zip(high, low, d, strict=True)]
    step = (max(tops) + max(bottoms)) / 255
    if is_symmetric:
        step = 2 * max(*tops, *bottoms) / 255
    total = 0.0
    for group in range(groups):
        for row in range(outputs):
            weights = kernel[group, row] / d[group * inputs : (group + 1) * inputs, None]
            weight_step = np.abs(weights).max() / 127
            total += step**2 / 12 * (weights**2).sum()
            powers = (d**2 * square)[group * inputs : (group + 1) * inputs]
            total += weight_step**2 / 12 * taps * powers.sum()
    return float(total)


def case(seed: int, groups: int = 1, inputs: int = 6, taps: int = 3) -> tuple[Any, Statistics]:
    rng = np.random.default_rng(seed)
    size = np.exp(rng.normal(size=groups * inputs))
    columns = np.exp(rng.normal(size=inputs))[:, None]
    kernel = rng.normal(size=(groups, 4, inputs, taps)) * columns
    share = rng.uniform(0, 1, groups * inputs)
    return kernel, Statistics(3 * size * share, 3 * size * (1 - share), size**2)


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 10_000),
    groups=st.sampled_from([1, 2, 3]),
    is_symmetric=st.booleans(),
)
def test_it_loses_less_than_before_and_than_any_other(
    seed: int, groups: int, is_symmetric: bool
) -> None:
    kernel, channels = case(seed, groups)
    known = (kernel, channels.high, channels.low, channels.square)
    found = best_diagonal(kernel, channels, is_symmetric=is_symmetric)
    ones = np.ones(len(found.factors))
    assert found.before == pytest.approx(expected_error(*known, ones, is_symmetric=is_symmetric))
    after = expected_error(*known, found.factors, is_symmetric=is_symmetric)
    assert found.after == pytest.approx(after)
    assert after <= found.before
    rng = np.random.default_rng(seed)
    for size in (0.01, 0.1, 0.5):
        other = found.factors * np.exp(rng.normal(size=len(ones)) * size)
        assert expected_error(*known, other, is_symmetric=is_symmetric) > 0.97 * after


def test_channels_that_the_second_operator_treats_alike_get_the_same_range() -> None:
    # Equal columns and one row: v_i = 1, t = max 1/d_i. Where ranges are 1, 2 and 4 and the mean
    # squares next to nothing, only the step of the activations counts: ranges become equal.
    kernel = np.ones((1, 1, 3, 1))
    channels = Statistics(np.array([1.0, 2, 4]), np.zeros(3), np.full(3, 1e-9))
    factors = best_diagonal(kernel, channels, is_symmetric=False).factors
    assert factors * channels.high == pytest.approx([4, 4, 4], rel=0.02)


def test_columns_become_equal_where_activations_are_hardly_rounded() -> None:
    # The other term alone: ranges next to nothing against the mean squares.
    kernel = np.array([1.0, 2, 4]).reshape(1, 1, 3, 1)
    channels = Statistics(np.full(3, 1e-6), np.zeros(3), np.ones(3))
    factors = best_diagonal(kernel, channels, is_symmetric=False).factors
    columns = kernel.reshape(3) / factors
    # sum_i d_i² / min d² with |B_i|/d_i <= 1 is least where every d_i is as small as it may be.
    assert columns / columns.max() == pytest.approx([1, 1, 1], rel=0.05)


def test_a_channel_below_zero_is_flipped_unless_ranges_are_symmetric() -> None:
    kernel = np.ones((1, 2, 2, 1))
    channels = Statistics(np.array([5.0, 0]), np.array([0, 5.0]), np.ones(2))
    found = best_diagonal(kernel, channels, is_symmetric=False)
    assert list(np.sign(found.factors)) == [1, -1]
    # The range is half as wide, so the first term is a quarter.
    assert found.after < 0.5 * found.before
    assert (best_diagonal(kernel, channels, is_symmetric=True).factors > 0).all()


@pytest.mark.parametrize("is_symmetric", [False, True])
def test_what_is_never_used_takes_part_in_nothing(is_symmetric: bool) -> None:
    kernel, channels = case(3)
    dead = np.array([True, False, False, False, False, False])
    silent = Statistics(
        *(np.where(dead, 0, values) for values in (channels.high, channels.low, channels.square))
    )
    kernel[:, :, 5] = 0
    found = best_diagonal(kernel, silent, is_symmetric=is_symmetric)
    assert np.isfinite(found.factors).all()
    assert (found.factors != 0).all()
    assert found.after <= found.before


def test_a_tensor_of_zeros_stays_as_it_is() -> None:
    zeros = np.zeros(3)
    found = best_diagonal(
        np.ones((1, 2, 3, 1)), Statistics(zeros, zeros, zeros), is_symmetric=False
    )
    assert list(found.factors) == [1, 1, 1]
