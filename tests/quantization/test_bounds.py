"""What an error is below on other images."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import t as student

from trpexport.quantization.bounds import bound_factor, spread, student_quantile


@pytest.mark.parametrize("freedom", [2, 3, 5, 15, 31, 300])
def test_the_quantiles_are_those_of_students_t(freedom: int) -> None:
    assert student_quantile(0.95, freedom) == pytest.approx(student.ppf(0.95, freedom), rel=0.02)


def test_a_spread_is_what_repeated_draws_have() -> None:
    rng = np.random.default_rng(0)
    sizes = rng.gamma(4, size=(4000, 24))
    errors = 0.01 * sizes * rng.gamma(5, 1 / 5, size=sizes.shape)
    ratios = errors.sum(1) / sizes.sum(1)
    told = np.mean([spread(*one) for one in zip(errors, sizes, strict=True)])
    assert told == pytest.approx(ratios.std() / ratios.mean(), rel=0.08)


@pytest.mark.parametrize("images", [4, 8, 16])
def test_the_bound_holds_nearly_as_often_as_it_says(images: int) -> None:
    rng = np.random.default_rng(1)
    sizes = np.ones((4000, images))
    errors = rng.lognormal(sigma=0.5, size=sizes.shape)
    held = [
        one.mean() * bound_factor(one, size, is_root=False) >= math.exp(0.5**2 / 2)
        for one, size in zip(errors, sizes, strict=True)
    ]
    assert 0.88 < np.mean(held) < 0.97


def test_a_root_has_half_the_spread_and_one_image_tells_none() -> None:
    errors, sizes = np.array([1.0, 2.0, 4.0]), np.ones(3)
    plain = bound_factor(errors, sizes, is_root=False)
    assert bound_factor(errors, sizes, is_root=True) == pytest.approx(math.sqrt(plain))
    assert bound_factor(errors[:1], sizes[:1], is_root=True) == 1.0
    assert bound_factor(np.zeros(3), np.zeros(3), is_root=True) == 1.0
