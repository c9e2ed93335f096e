"""How far outputs are apart: by hand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from trpexport.choose.distance import output_errors, worst
from trpexport.errors import DataError


def relative_distance(expected: list[Tensor], actual: list[Tensor]) -> float:
    """Return the distance of networks of one output."""
    both = ([{"output": some} for some in batches] for batches in (expected, actual))
    return worst(output_errors(*both))


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


def test_each_output_counts_by_its_own_variation() -> None:
    """A large output that stays, or moves a little, hides nothing of a small one."""
    logits, feature = rows(1, 3), 1000 * rows(1, 3)
    expected = [{"logits": logits, "feature": feature}]
    still = [{"logits": rows(2, 2), "feature": feature}]
    # Off by 1 and 1 of a variation of 1 and 1; off by 100 of one of 1000.
    assert output_errors(expected, still) == {"logits": 1.0, "feature": 0.0}
    moved = [{"logits": logits, "feature": feature + 100}]
    assert output_errors(expected, moved) == {"logits": 0.0, "feature": pytest.approx(0.1)}
    assert worst(output_errors(expected, still)) == pytest.approx(1)


def test_outputs_that_come_and_go_are_one_line() -> None:
    with pytest.raises(DataError, match="puts out a, b, and a once layers are rewritten"):
        output_errors([{"a": rows(1), "b": rows(1)}], [{"a": rows(1)}])
