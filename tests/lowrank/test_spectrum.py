"""Singular values and factors against torch's own SVD."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trpexport.errors import PlanError
from trpexport.lowrank.spectrum import relative_error, svd


@settings(max_examples=60, deadline=None)
@given(
    batch=st.integers(1, 4),
    rows=st.integers(1, 12),
    columns=st.integers(1, 12),
    inner=st.integers(0, 12),
    seed=st.integers(0, 2**20),
)
def test_agrees_with_lapack(batch: int, rows: int, columns: int, inner: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    a = torch.randn(batch, rows, inner, generator=generator) @ torch.randn(
        batch, inner, columns, generator=generator
    )
    found = svd(a)
    exact = torch.linalg.svdvals(a.double())
    # Below the root of float64's rounding, values near each other may be mixed.
    torch.testing.assert_close(found.values, exact, rtol=1e-7, atol=2e-8 * float(exact.max()))
    torch.testing.assert_close(found.left @ found.right, a.double(), rtol=1e-9, atol=1e-9)
    full = min(rows, columns)
    for rank in {1, full}:
        left, right = found.factors(rank)
        error = float(torch.linalg.norm(left @ right - a))
        total = float(torch.linalg.norm(a.double()))
        expected = error / total if total else 0.0
        assert relative_error(found.values.numpy(), rank) == pytest.approx(expected, abs=1e-7)


def test_both_factors_carry_the_root_of_each_singular_value() -> None:
    a = torch.diag(torch.tensor([9.0, 4.0, 1.0]))[None]
    for matrix in (
        a,
        torch.cat([a, torch.zeros(1, 3, 2)], 2),
        torch.cat([a, torch.zeros_like(a)], 1),
    ):
        left, right = svd(matrix).factors(2)
        roots = torch.tensor([[3.0, 2.0]], dtype=torch.float64)
        torch.testing.assert_close(left.norm(dim=1), roots)
        torch.testing.assert_close(right.norm(dim=2), roots)


def test_near_degenerate_spectra_stay_exact() -> None:
    """Float32 can't tell these columns apart; float64 can."""
    a = torch.randn(20, 20, generator=torch.Generator().manual_seed(0))
    a[:, 1] = a[:, 0] * (1 + 2**-23)
    found = svd(a[None])
    exact = torch.linalg.svdvals(a.double())
    assert exact[-1] < 1e-5
    torch.testing.assert_close(found.values[0], exact, rtol=1e-6, atol=1e-12)


def test_another_solver_takes_over_where_the_first_does_not_converge(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    a = torch.randn(3, 6, 4)
    expected = svd(a)

    def fail(*args: object) -> None:
        raise torch.linalg.LinAlgError("did not converge")  # type: ignore[attr-defined]

    monkeypatch.setattr(torch.linalg, "eigh", fail)
    found = svd(a)
    torch.testing.assert_close(found.values, expected.values)
    left, right = found.factors(2)
    first, second = expected.factors(2)
    torch.testing.assert_close(left @ right, first @ second)


def test_nan_has_no_spectrum() -> None:
    with pytest.raises(PlanError, match="NaN or infinity"):
        svd(torch.full((1, 2, 2), float("nan")))


def test_error_of_nothing_is_nothing() -> None:
    assert relative_error(np.zeros((2, 3)), 1) == 0.0
