"""Singular values and factors against torch's own SVD."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trpexport.errors import PlanError
from trpexport.lowrank import spectrum
from trpexport.lowrank.spectrum import Basis, relative_error, svd


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


@pytest.mark.parametrize("shape", [(3, 7, 30), (2, 30, 7), (1, 9, 9)])
@pytest.mark.parametrize("elements", [1, 1 << 24])
def test_a_basis_gives_values_and_truncations_of_the_svd(
    shape: tuple[int, int, int], elements: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spectrum, "_PART_ELEMENTS", elements)
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(*shape, generator=generator)
    a[:, :, 0] *= 1e4  # so that some values are small beside the largest
    basis = Basis.of(a)
    u, s, vh = torch.linalg.svd(a.double(), full_matrices=False)
    torch.testing.assert_close(basis.values, s, rtol=1e-9, atol=0)
    left, right = basis.truncated(a, 3).factors(3)
    torch.testing.assert_close(left @ right, (u[:, :, :3] * s[:, None, :3]) @ vh[:, :3])


@pytest.mark.parametrize("level", [1e-3, 1e-6, 1e-9, 1e-12])
def test_small_values_of_a_basis_are_the_errors_of_its_truncations(level: float) -> None:
    """Eigenvalues of the Gram matrix are lost below 1e-8 of the largest singular value."""
    generator = torch.Generator().manual_seed(0)
    u = torch.linalg.qr(torch.randn(12, 12, generator=generator, dtype=torch.float64))[0]
    v = torch.linalg.qr(torch.randn(40, 12, generator=generator, dtype=torch.float64))[0]
    s = torch.cat([torch.ones(6), torch.full((6,), level)]).double()
    a = ((u * s) @ v.mT)[None]
    basis = Basis.of(a)
    left, right = basis.truncated(a, 6).factors(6)
    lost = float(torch.linalg.norm(a - left @ right))
    assert float(basis.values[0, 6:].norm()) == pytest.approx(lost, rel=1e-4, abs=1e-15)
    assert lost == pytest.approx(level * 6**0.5, rel=1e-3, abs=1e-15)
