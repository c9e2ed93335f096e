"""Means and covariances of what a layer sees."""

from __future__ import annotations

import pytest
import torch

from tests.lowrank.summing import moments_of
from trpexport.lowrank.fit.moments import LayerMoments, Moments, MomentSums

NAMES = ("mean_p", "mean_y", "pp", "yp", "yy")


def drawn(count: int, mean: float) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(count)
    p = mean + torch.randn(2, count, 5, dtype=torch.float64)
    return p, p[..., :3] + torch.randn(2, count, 3, dtype=torch.float64)


def assert_same(found: Moments, expected: Moments) -> None:
    assert found.count == expected.count
    for name in NAMES:
        torch.testing.assert_close(getattr(found, name), getattr(expected, name))


@pytest.mark.parametrize("part", [1, 30, 99])
def test_what_is_held_out_is_all_but_what_is_fitted_to(part: int) -> None:
    p, y = drawn(100, mean=10.0)
    p[:, :part] += 3.0  # so that the means of both parts are apart
    fit, rest = moments_of(p[:, :part], y[:, :part]), moments_of(p[:, part:], y[:, part:])
    whole = moments_of(p, y)
    assert_same(fit + rest, whole)
    assert_same(whole.without(fit), rest)
    found = LayerMoments(fit, whole, None).held_out
    assert found is not None
    assert_same(found, rest)


def test_nothing_is_held_out_where_all_is_fitted_to() -> None:
    whole = moments_of(*drawn(20, mean=0.0))
    assert LayerMoments(whole, whole, None).held_out is None
    nothing = whole.without(whole)
    assert nothing.count == 0
    assert all(torch.isfinite(getattr(nothing, name)).all() for name in NAMES)


def test_products_are_of_few_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    """OneDNN keeps memory for each size that it ever multiplied."""
    monkeypatch.setattr("trpexport.lowrank.fit.moments.BLOCK_ELEMENTS", 1000)
    sizes = []

    def noting(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        sizes.append(left.shape[2])
        return left @ right.mT

    monkeypatch.setattr("trpexport.lowrank.products.row_products", noting)
    p, y = drawn(1000, mean=1.0)
    sums = MomentSums(2, 5, 3, p.device)
    for start, stop in ((0, 7), (7, 7), (7, 350), (350, 351), (351, 980), (980, 1000)):
        sums.add(p[:, start:stop].float(), y[:, start:stop].float())
    found = sums.moments()
    assert set(sizes) == {100}  # of 5 values, in 2 groups: 1,000 elements
    for name in NAMES:
        expected = getattr(moments_of(p, y), name)
        torch.testing.assert_close(getattr(found, name), expected, rtol=1e-4, atol=1e-2)
    sums = MomentSums(2, 5, 3, p.device)
    sums.add(p[:, :130], y[:, :130])
    assert sums.moments().count == 130
    assert sizes[-1] == 39  # 30, in eighths of 100
