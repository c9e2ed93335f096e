"""Products of rows: whatever multiplies them, they are those of float64 up to rounding."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from trpexport.lowrank.products import add_square, fill_square, row_products


def random(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0)).to(dtype)


def assert_products(found: Tensor, left: Tensor, right: Tensor) -> None:
    assert found.dtype == left.dtype
    expected = torch.einsum("bnk,bmk->bnm", left.double(), right.double())
    # Rounding of a sum of as many products, of numbers of about one.
    digits = torch.finfo(left.dtype).eps * max(1, left.shape[2])
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=8 * digits)


@settings(deadline=None)
@given(
    batch=st.integers(1, 3),
    rows=st.integers(0, 9),
    others=st.integers(0, 40),
    elements=st.integers(0, 70),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
def test_they_are_those_of_float64(
    batch: int, rows: int, others: int, elements: int, dtype: torch.dtype
) -> None:
    left, right = (
        random(batch, rows, elements, dtype=dtype),
        random(batch, others, elements, dtype=dtype),
    )
    assert_products(row_products(left, right), left, right)


def test_rows_need_not_lie_one_behind_the_other() -> None:
    columns = random(1, 30, 17)
    left, right = columns[:, :, 2:9].mT, columns[:, :, ::2].mT
    assert_products(row_products(left, right), left, right)


def test_a_build_without_onednn_multiplies_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    left = random(1, 5, 12)
    assert_products(row_products(left, left), left, left)


@pytest.mark.parametrize("rows", [1, 256, 257, 600])
def test_a_square_is_summed_up_by_blocks(rows: int) -> None:
    total = torch.zeros(2, rows, rows, dtype=torch.float64)
    parts = random(2, rows, 20), random(2, rows, 33)
    for part in parts:
        add_square(total, part)
    fill_square(total)
    whole = torch.cat([part.double() for part in parts], dim=2)
    torch.testing.assert_close(total, whole @ whole.mT, rtol=0, atol=1e-4)
