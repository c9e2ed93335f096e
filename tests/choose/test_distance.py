"""How far outputs are apart: by hand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from trpexport.choose.distance import relative_distance


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
