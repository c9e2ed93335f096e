"""Rank criteria against ranks counted by hand, and EVBMF against planted ranks."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from trpexport.errors import TrpexportError
from trpexport.lowrank.criteria import CRITERIA, DEFAULT, parse_criterion

# Squares 16, 9, 4, 1, 0.25, 0: sum 30.25. Plain sum: 10.5.
SPECTRUM: NDArray[np.float64] = np.array([4.0, 3.0, 2.0, 1.0, 0.5, 0.0])


@pytest.mark.parametrize(
    ("text", "rank"),
    [
        ("value:0.05", 5),
        ("value:0.5", 5),  # a singular value of exactly the threshold is kept
        ("value:0.51", 4),
        ("value:100", 1),
        ("value:0", 6),
        ("relative:0.25", 4),
        ("relative:1", 1),
        ("energy:0.5", 1),  # 16 / 30.25 = 0.529
        ("energy:0.8", 2),  # 25 / 30.25 = 0.826
        ("energy:0.9", 3),  # 29 / 30.25 = 0.959
        ("energy:0.96", 4),
        ("energy:1", 5),  # the zero adds nothing
        ("energy1:0.6", 2),  # 7 / 10.5 = 0.667
        ("energy1:0.9", 4),  # 10 / 10.5 = 0.952
        ("fraction:0.5", 3),
        ("fraction:0.49", 2),  # rounded down
        ("fraction:0.01", 1),
        ("fraction:1", 6),
        ("rank:2", 2),
        ("rank:99", 99),  # the planner says what becomes of a rank above the full one
    ],
)
def test_rank_by_hand(text: str, rank: int) -> None:
    assert parse_criterion(text).rank(SPECTRUM, (6, 8)) == rank


def test_fraction_is_not_fooled_by_binary_fractions() -> None:
    assert parse_criterion("fraction:0.29").rank(np.ones(100), (100, 100)) == 29


@pytest.mark.parametrize("name", CRITERIA)
def test_a_zero_matrix_keeps_one(name: str) -> None:
    kind = CRITERIA[name]
    for value in kind.suggestions:
        criterion = kind.parse(None if value is None else f"{value:g}")
        if name not in ("rank", "fraction"):
            assert criterion.rank(np.zeros(5), (5, 7)) == 1


@pytest.mark.parametrize("name", CRITERIA)
@settings(max_examples=40, deadline=None)
@given(
    values=arrays(np.float64, st.integers(1, 30), elements=st.floats(0, 1e3)),
    columns=st.integers(0, 10),
)
def test_every_criterion_keeps_at_least_one(
    name: str, values: NDArray[np.float64], columns: int
) -> None:
    kind = CRITERIA[name]
    spectrum = np.sort(values)[::-1]
    for value in kind.suggestions:
        criterion = kind.parse(None if value is None else f"{value:g}")
        rank = criterion.rank(spectrum, (len(spectrum), len(spectrum) + columns))
        assert rank >= 1
        assert name == "rank" or rank <= len(spectrum)
        assert parse_criterion(str(criterion)) == criterion


@pytest.mark.parametrize("planted", [1, 3, 8])
@pytest.mark.parametrize("shape", [(60, 60), (40, 200), (200, 40)])
def test_vbmf_finds_a_planted_rank(planted: int, shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(planted)
    signal = rng.standard_normal((shape[0], planted)) @ rng.standard_normal((planted, shape[1]))
    noisy = signal + 0.1 * rng.standard_normal(shape)
    spectrum = np.linalg.svd(noisy, compute_uv=False).astype(np.float64)
    assert parse_criterion("vbmf").rank(spectrum, shape) == planted
    # The scale of a weight says nothing about its rank.
    assert parse_criterion("vbmf").rank(1e-4 * spectrum, shape) == planted


def test_vbmf_sees_no_signal_in_noise() -> None:
    noise = np.random.default_rng(0).standard_normal((80, 120))
    spectrum = np.linalg.svd(noise, compute_uv=False).astype(np.float64)
    assert parse_criterion("vbmf").rank(spectrum, (80, 120)) == 1


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("energy", "needs a number, as in energy:0.95"),
        ("energy:", "needs a number"),
        ("energy:much", "not a number"),
        ("energy:0", "above 0 and at most 1"),
        ("energy:1.5", "at most 1"),
        ("energy:nan", "out of range"),
        ("value:-1", "at least 0"),
        ("value:inf", "out of range"),
        ("fraction:0", "above 0"),
        ("relative:2", "at most 1"),
        ("rank:0", "whole number from 1 up"),
        ("rank:-3", "whole number"),
        ("rank:2.5", "whole number"),
        ("rank", "whole number"),
        ("vbmf:3", "takes no number"),
        ("enrgy:0.9", "did you mean energy"),
    ],
)
def test_bad_criteria_say_what_to_type(text: str, says: str) -> None:
    with pytest.raises(TrpexportError, match=says) as caught:
        parse_criterion(text)
    assert "\n" not in str(caught.value)


def test_the_default_is_the_papers() -> None:
    assert str(parse_criterion(DEFAULT)) == "value:0.05"
