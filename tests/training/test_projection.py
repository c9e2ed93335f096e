"""The arithmetic of the TRP step against an exact SVD in float64."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import Tensor

import trpexport as tx
from trpexport.lowrank.criteria import parse_criterion
from trpexport.lowrank.schemes import matrix_schemes
from trpexport.lowrank.spectrum import svd
from trpexport.lowrank.subspace import leading, of_a_whole
from trpexport.networks.torch.trace import declared
from trpexport.training.projection import (
    STACK_ELEMENTS,
    exact_dtype,
    spectrum_of,
    stacks,
    truncate,
)


def exact(matrix: Tensor, energy: float) -> tuple[int, Tensor, Tensor]:
    """Return rank, truncation and U V^T by LAPACK's SVD, written out as the paper has it."""
    u, s, vt = torch.linalg.svd(matrix.double(), full_matrices=False)
    held, total, rank = 0.0, float((s**2).sum()), 0
    while held < energy * total:
        held += float(s[rank]) ** 2
        rank += 1
    u, s, vt = u[:, :rank], s[:rank], vt[:rank]
    return rank, (u * s) @ vt, u @ vt


def error(found: Tensor, true: Tensor) -> float:
    return float((found.double() - true).norm() / true.norm())


@given(
    batch=st.integers(1, 3),
    rows=st.integers(1, 12),
    columns=st.integers(1, 12),
    energy=st.floats(0.05, 0.999),
    seed=st.integers(0, 999),
)
def test_a_truncation_is_that_of_the_exact_svd(
    batch: int, rows: int, columns: int, energy: float, seed: int
) -> None:
    matrices = torch.randn(
        batch, rows, columns, generator=torch.Generator().manual_seed(seed), dtype=torch.float32
    )
    found = svd(matrices)
    ranks = [
        spectrum_of(found.values[i : i + 1], matrices[i : i + 1]).energy_rank(energy)
        for i in range(batch)
    ]
    low, both = truncate(found, ranks, torch.float32)
    for i in range(batch):
        rank, true, subgradient = exact(matrices[i], energy)
        assert ranks[i] == rank
        assert error(low[i], true) < 1e-5
        assert error(both[i], subgradient) < 1e-3


@given(
    values=st.lists(st.lists(st.floats(0, 10), min_size=4, max_size=4), min_size=1, max_size=3),
    energy=st.floats(0.05, 1.0),
)
def test_the_rank_is_the_largest_over_the_batch_as_the_planner_takes_it(
    values: list[list[float]], energy: float
) -> None:
    ordered = torch.tensor([sorted(row, reverse=True) for row in values], dtype=torch.float64)
    found = spectrum_of(ordered, torch.diag_embed(ordered))
    for criterion, rank in [
        (parse_criterion("value:0.05"), found.value_rank(0.05)),
        (parse_criterion(f"energy:{energy!r}"), found.energy_rank(energy)),
    ]:
        assert rank == max(criterion.rank(row, (4, 4)) for row in ordered.numpy())


def test_a_zero_matrix_has_rank_1_and_no_subgradient() -> None:
    zero = torch.zeros(1, 5, 7)
    found = svd(zero)
    assert spectrum_of(found.values, zero).energy_rank(0.9) == 1
    for result in truncate(found, [1], torch.float32):
        assert torch.equal(result, zero)


def test_directions_that_are_rounding_have_no_subgradient() -> None:
    matrix = torch.diag(torch.tensor([1.0, 0.5, 1e-9, 0.0], dtype=torch.float64))[None]
    _, both = truncate(svd(matrix), [4], torch.float64)
    assert torch.allclose(both[0], torch.diag(torch.tensor([1.0, 1.0, 0.0, 0.0]).double()))


def test_the_subgradient_supports_the_nuclear_norm() -> None:
    # <U V^T, W> = ||W||_*, and for any X: ||X||_* >= <U V^T, X>: the definition of a subgradient.
    torch.manual_seed(0)
    matrix = torch.randn(1, 9, 6, dtype=torch.float64)
    _, both = truncate(svd(matrix), [6], torch.float64)
    assert torch.isclose((both * matrix).sum(), torch.linalg.matrix_norm(matrix, "nuc")[0])
    for _ in range(20):
        other = torch.randn(9, 6, dtype=torch.float64)
        assert torch.linalg.matrix_norm(other, "nuc") >= (both[0] * other).sum()


def was_projected(
    rows: int, columns: int, rank: int, decay: float, *, noise: float, seed: int
) -> tuple[Tensor, Tensor]:
    """Return a matrix some steps after it was cut to ``rank``, and the U V^T of that cut."""
    generator = torch.Generator().manual_seed(seed)

    def orthonormal(size: int) -> Tensor:
        basis: Tensor = torch.linalg.qr(torch.randn(size, rank, generator=generator)).Q
        return basis

    left, right = orthonormal(rows), orthonormal(columns)
    values = torch.exp(-decay * torch.arange(rank) / rank)
    weight = (left * values) @ right.T
    step = torch.randn(rows, columns, generator=generator)
    return (weight + step * noise * weight.norm() / step.norm())[None], (left @ right.T)[None]


@pytest.mark.parametrize("shape", [(300, 300), (130, 192), (400, 260)])
@pytest.mark.parametrize("rank", [3, 25, 50])
@pytest.mark.parametrize("noise", [0.01, 0.1])
@pytest.mark.parametrize("decay", [0.5, 3.0])
@pytest.mark.parametrize("energy", [0.7, 0.9])
def test_subspace_iteration_finds_the_exact_truncation(
    shape: tuple[int, int], rank: int, noise: float, decay: float, energy: float
) -> None:
    matrix, before = was_projected(*shape, rank, decay, noise=noise, seed=rank)
    found = leading(matrix, before, rank, energy)
    assert found is not None
    true_rank, low, both = exact(matrix[0], energy)
    assert spectrum_of(found.values, matrix).energy_rank(energy) == true_rank
    results = truncate(found, [true_rank], torch.float32)
    assert error(results[0][0], low) < 1e-4
    assert error(results[1][0], both) < 1e-2  # only pulls: 3e-4 of this is added


@pytest.mark.parametrize("seed", range(5))
def test_subspace_iteration_vouches_for_nothing_without_a_gap(seed: int) -> None:
    # A random matrix holds 0.9 of its energy in more than half of its ranks.
    matrix, before = was_projected(300, 300, 60, 1.0, noise=3.0, seed=seed)
    assert leading(matrix, before, 60, 0.9) is None


def test_a_direction_outside_of_the_last_subspace_is_found() -> None:
    matrix, before = was_projected(300, 320, 40, 2.0, noise=0.05, seed=1)
    generator = torch.Generator().manual_seed(5)
    left, right = torch.randn(300, generator=generator), torch.randn(320, generator=generator)
    grown = torch.outer(left / left.norm(), right / right.norm()) * matrix.norm() * 0.6
    matrix = matrix + grown
    found = leading(matrix, before, 40, 0.9)
    assert found is not None
    rank, low, _ = exact(matrix[0], 0.9)
    assert error(truncate(found, [rank], torch.float32)[0][0], low) < 1e-4


def test_without_an_energy_as_many_as_last_time_are_found() -> None:
    matrix, before = was_projected(300, 200, 30, 1.0, noise=0.05, seed=2)
    found = leading(matrix, before, 30, None)
    assert found is not None
    u, s, vt = torch.linalg.svd(matrix[0].double(), full_matrices=False)
    low = truncate(found, [30], torch.float32)[0][0]
    assert error(low, (u[:, :30] * s[:30]) @ vt[:30]) < 1e-4
    # The rest is bounded by all that is left, as one singular value.
    spectrum = spectrum_of(found.values, matrix)
    assert spectrum.known == 30
    assert float(spectrum.values[30]) == pytest.approx(float(s[30:].norm()), rel=1e-3)
    assert float(spectrum.gains[30]) == pytest.approx(
        float(s[30:].square().sum() / s.square().sum()), rel=1e-3
    )


@given(
    batch=st.integers(1, 2),
    rows=st.integers(2, 90),
    columns=st.integers(2, 90),
    # One direction that dominates all others is where float32 has least digits left for them.
    dominance=st.sampled_from([1.0, 10.0, 100.0, 1e4]),
    energy=st.floats(0.05, 0.9999),
    seed=st.integers(0, 999),
)
def test_a_whole_matrix_in_float32_is_exact_or_refused(
    *, batch: int, rows: int, columns: int, dominance: float, energy: float, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    matrices = torch.randn(batch, rows, columns, generator=generator)
    matrices[:, 0] *= dominance
    found = of_a_whole(matrices, energy)
    assume(found is not None)
    assert found is not None
    each = [exact(matrix, energy)[0] for matrix in matrices]
    rank = max(each)
    assert spectrum_of(found.values, matrices).energy_rank(energy) == rank
    u, s, vt = torch.linalg.svd(matrices.double(), full_matrices=False)
    true = (u[:, :, :rank] * s[:, None, :rank]) @ vt[:, :rank]
    low, both = truncate(found, [rank] * batch, torch.float32)
    for i in range(batch):
        assert error(low[i], true[i]) < 1e-4
        assert error(both[i], u[i, :, :rank] @ vt[i, :rank]) < 1e-2


def test_a_whole_random_matrix_is_not_refused() -> None:
    matrix = torch.randn(1, 192, 192, generator=torch.Generator().manual_seed(0))
    assert of_a_whole(matrix, 0.9) is not None
    assert of_a_whole(torch.zeros(1, 5, 7), 0.9) is None
    equal = torch.eye(20)[None]  # any 18 of its directions are as good as others
    assert of_a_whole(equal, 0.9) is None


def test_float32_products_that_are_rounded_are_made_in_float64() -> None:
    assert exact_dtype(torch.float32) == exact_dtype(torch.bfloat16) == torch.float32
    assert exact_dtype(torch.float64) == torch.float64
    torch.set_float32_matmul_precision("high")
    try:
        assert exact_dtype(torch.float32) == torch.float64
    finally:
        torch.set_float32_matmul_precision("highest")


@pytest.mark.parametrize("scheme", matrix_schemes())
def test_real_weights(scheme: str, shared: Path) -> None:
    model = tx.load(shared / "checkpoints/resnet20-12fca82f.th").module
    chosen = matrix_schemes()[scheme]
    layers = [x for x in declared(model).layers if not chosen.unsupported_reason(x.op)]
    for stack in stacks(layers[1:], chosen):
        found, spectra = stack.decompose(0.9, {}, {})
        ranks = {name: spectrum.energy_rank(0.9) for name, spectrum in spectra.items()}
        kernels = stack.fold(stack.truncated(found, ranks)[0])
        for layer in stack.layers:
            matrices = chosen.unfold(layer.module.weight.detach(), layer.op)
            assert ranks[layer.name] == max(exact(matrix, 0.9)[0] for matrix in matrices)
            u, s, vt = torch.linalg.svd(matrices.double(), full_matrices=False)
            kept = torch.arange(s.shape[1]) < ranks[layer.name]
            true = (u * (s * kept)[:, None, :]) @ vt
            assert error(kernels[layer.name], chosen.fold(true, layer.op)) < 1e-5


def test_equal_shapes_are_stacked_as_far_as_that_pays() -> None:
    model = torch.nn.Sequential(
        *[torch.nn.Conv2d(16, 16, 3) for _ in range(19)], torch.nn.Conv2d(100, 100, 3)
    )
    found = stacks(declared(model).layers, matrix_schemes()["spatial"])
    room = STACK_ELEMENTS // 48**2
    assert [len(stack.layers) for stack in found] == [room, 19 - room, 1]
    assert np.isclose(found[0].cost, room * 48**3)
