"""How far outputs are apart: by hand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from trpexport.choose.distance import relative_distance
from trpexport.errors import DataError


def rows(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)[:, None]


@pytest.mark.parametrize(
    ("expected", "actual", "distance"),
    [
        ([1, 3], [1, 3], 0.0),
        # Off by 1 and 1; they vary by 1 and 1 around 2.
        ([1, 3], [2, 2], 1.0),
        ([101, 103], [102, 102], 1.0),
        ([0, 4], [1, 4], 8**-0.5),
        # Nothing varies: relative to the outputs themselves.
        ([2, 2], [3, 3], 0.5),
        ([0, 0], [0, 0], 0.0),
        ([0, 0], [0, 1], 1.0),
        ([], [], 0.0),
    ],
)
def test_by_hand(expected: list[float], actual: list[float], distance: float) -> None:
    for size in (1, 2):  # in one batch, in several
        batches = [
            [rows(*some[i : i + size]) for i in range(0, len(some), size)]
            for some in (expected, actual)
        ]
        assert relative_distance(*batches) == pytest.approx(distance)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_what_is_no_number_is_one_line(bad: float) -> None:
    with pytest.raises(DataError, match="the network gives NaN or infinity on cal") as caught:
        relative_distance([rows(1, bad)], [rows(1, 2)])
    assert "rewritten" not in str(caught.value)
    with pytest.raises(DataError, match="once layers are rewritten: leave some of them out"):
        relative_distance([rows(1, 2)], [rows(1, bad)])


def test_outputs_of_another_size_are_one_line() -> None:
    with pytest.raises(DataError, match="puts out 3 numbers an image, and 2 once"):
        relative_distance([torch.zeros(2, 3)], [torch.zeros(2, 2)])
