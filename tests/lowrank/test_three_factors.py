"""Schemes of three factors: against higher-order SVDs and least squares computed with numpy."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor, nn

from tests.lowrank.summing import moments_of
from tests.strategies import conv_op, convolutions
from trpexport.choose.spectra import analyse
from trpexport.choose.survey import survey
from trpexport.cost import macs
from trpexport.errors import PlanError, TrainingError
from trpexport.lowrank.criteria import parse_criterion
from trpexport.lowrank.fit.moments import LayerMoments, Moments
from trpexport.lowrank.fit.regression import Regression
from trpexport.lowrank.fit.three_factors import fit_of
from trpexport.lowrank.schemes import SCHEMES, matrix_schemes
from trpexport.lowrank.schemes.spatial_channel import SpatialChannel
from trpexport.lowrank.schemes.three_factors import ThreeFactors
from trpexport.lowrank.schemes.tucker2 import Tucker2
from trpexport.networks.torch.network import TorchNetwork
from trpexport.ops import Call, LinearOp
from trpexport.training.trp import TrainedRankPruning

TUCKER2, SPATIAL_CHANNEL = Tucker2(), SpatialChannel()
BOTH = (TUCKER2, SPATIAL_CHANNEL)
CONV = conv_op(6, 8, (3, 3), (1, 1), (1, 1), (1, 1))

by_scheme = pytest.mark.parametrize("scheme", BOTH, ids=lambda scheme: str(scheme.name))


def split(kernel: NDArray[np.float64], scheme: ThreeFactors) -> NDArray[np.float64]:
    """Return the kernel of one group as (outputs, what the first factor sees at once, taps)."""
    out, inputs, *taps = kernel.shape
    if scheme is TUCKER2:
        return kernel.reshape(out, inputs, -1)
    # Along the last axis with taps; those behind it have one.
    last = [k for k in taps if k > 1][-1]
    return kernel.reshape(out, -1, last)


def higher_order_svd(
    weight: Tensor, conv: LinearOp, ranks: tuple[int, int], scheme: ThreeFactors
) -> NDArray[np.float64]:
    """Return the truncated higher-order SVD of a kernel: bases of both unfoldings, by numpy.

    Args:
        weight: the kernel.
        conv: the layer.
        ranks: how many directions are kept of the inputs and of the outputs.
        scheme: says what the inputs are.
    """
    found = []
    for kernel in np.split(weight.double().numpy(), conv.groups):
        tensor = split(kernel, scheme)
        outputs = np.linalg.svd(tensor.reshape(len(tensor), -1), full_matrices=False)[0]
        swapped = tensor.transpose(1, 0, 2)
        inputs = np.linalg.svd(swapped.reshape(len(swapped), -1), full_matrices=False)[0]
        i, o = inputs[:, : ranks[0]], outputs[:, : ranks[1]]
        found.append(np.einsum("oit,oa,ba,ic,dc->bdt", tensor, o, o, i, i).reshape(kernel.shape))
    return np.concatenate(found)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_the_spectrum_is_the_error_of_the_higher_order_svd_and_iteration_is_no_worse(
    data: st.DataObject,
) -> None:
    scheme = data.draw(st.sampled_from(BOTH))
    conv = data.draw(convolutions(data.draw(st.sampled_from([1, 2, 3]))))
    assume(not scheme.unsupported_reason(conv))
    weight = torch.randn(conv.out_channels, conv.in_channels // conv.groups, *conv.kernel)
    full = scheme.full_rank(conv)
    rank = data.draw(st.integers(1, full))
    spectrum = scheme.spectrum(weight, conv)
    assert spectrum.shape == (conv.groups, full)
    cut = higher_order_svd(weight, conv, (rank, rank), scheme)
    expected = ((weight.double().numpy() - cut) ** 2).sum()
    dropped = float(spectrum[:, rank:].square().sum())
    whole = float(weight.double().square().sum())
    assert dropped == pytest.approx(expected, rel=1e-6, abs=1e-9 * whole)
    kernel = scheme.product(scheme.truncate(weight, conv, rank), conv)
    assert float((kernel - weight).square().sum()) <= expected + 1e-9 * whole


def low(inner: int, outer: int, scheme: ThreeFactors) -> Tensor:
    """Return a kernel of CONV with these ranks."""
    torch.manual_seed(0)
    outer_basis = torch.randn(8, outer).double()
    if scheme is TUCKER2:
        core, basis = torch.randn(outer, inner, 3, 3).double(), torch.randn(6, inner).double()
        return torch.einsum("abhw,ib,oa->oihw", core, basis, outer_basis)
    line, columns = torch.randn(outer, inner, 3).double(), torch.randn(6, 3, inner).double()
    return torch.einsum("abw,ihb,oa->oihw", line, columns, outer_basis)


SHAPES = {
    "tucker2": [(3, 6, 1, 1), (3, 3, 3, 3), (8, 3, 1, 1)],
    "spatial-channel": [(3, 6, 3, 1), (3, 3, 1, 3), (8, 3, 1, 1)],
}


@by_scheme
def test_a_kernel_of_low_rank_on_both_sides_is_found(scheme: ThreeFactors) -> None:
    kernel = low(2, 3, scheme)
    exact = scheme.product(scheme.truncate(kernel, CONV, 3), CONV)
    torch.testing.assert_close(exact, kernel)
    assert float((scheme.product(scheme.truncate(kernel, CONV, 2), CONV) - kernel).norm()) > 0.1
    weights = scheme.truncate(kernel, CONV, 3)
    assert [tuple(weight.shape) for weight in weights] == SHAPES[scheme.name]
    torch.testing.assert_close(weights[0].norm(), weights[1].norm())
    torch.testing.assert_close(weights[0].norm(), weights[2].norm())


def test_the_product_is_what_the_factors_are_one_after_the_other() -> None:
    torch.manual_seed(0)
    columns, lines, mixing = (
        torch.randn(shape).double() for shape in ((4, 6, 3, 1), (5, 4, 1, 3), (8, 5, 1, 1))
    )
    expected = np.einsum("aih,baw,ob->oihw", columns[..., 0], lines[:, :, 0], mixing[:, :, 0, 0])
    product = SPATIAL_CHANNEL.product((columns, lines, mixing), CONV)
    np.testing.assert_allclose(product.numpy(), expected)


@by_scheme
def test_no_small_change_of_a_factor_helps(scheme: ThreeFactors) -> None:
    torch.manual_seed(0)
    kernel = torch.randn(8, 6, 3, 3, dtype=torch.float64)
    factors = scheme.truncate(kernel, CONV, 2)
    least = (scheme.product(factors, CONV) - kernel).norm()
    cut = higher_order_svd(kernel, CONV, (2, 2), scheme)
    assert least < np.linalg.norm(kernel.numpy() - cut) - 1e-3
    for place in range(3):
        for seed in range(5):
            torch.manual_seed(seed)
            changed = list(factors)
            changed[place] = factors[place] + 1e-3 * torch.randn_like(factors[place])
            assert (scheme.product(changed, CONV) - kernel).norm() > least


@by_scheme
def test_a_zero_kernel_stays_one(scheme: ThreeFactors) -> None:
    zero = torch.zeros(8, 6, 3, 3)
    assert not scheme.spectrum(zero, CONV).any()
    assert not scheme.product(scheme.truncate(zero, CONV, 2), CONV).any()


def test_macs_by_hand() -> None:
    # 16 -> 32 channels, 3x3, stride 2, on 8x8: the output is 4x4.
    conv = conv_op(16, 32, (3, 3), (2, 2), (1, 1), (1, 1))
    here = [Call(1, (8, 8))]
    expected = 5 * 16 * 8 * 8 + 5 * 5 * 9 * 4 * 4 + 32 * 5 * 4 * 4
    assert macs(TUCKER2.factor_ops(conv, 5), here) == expected
    # The first pass gives 4x8 pixels.
    expected = 5 * 16 * 3 * 4 * 8 + 5 * 5 * 3 * 4 * 4 + 32 * 5 * 4 * 4
    assert macs(SPATIAL_CHANNEL.factor_ops(conv, 5), here) == expected
    # A side with fewer directions than the rank keeps them all.
    assert TUCKER2.ranks(conv, 20) == (16, 20)
    assert TUCKER2.full_rank(conv) == 32
    assert SPATIAL_CHANNEL.ranks(conv, 40) == (40, 32)
    assert SPATIAL_CHANNEL.full_rank(conv) == 48


def test_what_has_taps_along_one_axis_is_left_to_pairs() -> None:
    for kernel in ((), (1, 1), (3,), (3, 1), (1, 3), (1, 1, 5)):
        assert "fewer than two axes" in str(
            SPATIAL_CHANNEL.unsupported_reason(conv_op(6, 8, kernel))
        )
    first, second, third = SPATIAL_CHANNEL.factor_ops(conv_op(6, 8, (3, 1, 5), groups=2), 2)
    assert [op.kernel for op in (first, second, third)] == [(3, 1, 1), (1, 1, 5), (1, 1, 1)]
    assert [op.groups for op in (first, second, third)] == [2, 2, 2]


def test_a_calibrated_layer_that_is_low_on_the_images_is_found() -> None:
    # The kernel itself has full rank; on inputs of two directions it acts like one of rank 2.
    torch.manual_seed(0)
    kernel = torch.randn(8, 6, 9, dtype=torch.float64)
    seen = torch.kron(torch.randn(2, 6).double(), torch.eye(9).double())
    outputs = torch.randn(8, 2, dtype=torch.float64) @ torch.randn(2, 8, dtype=torch.float64)
    p = torch.randn(4000, 18, dtype=torch.float64) @ seen
    y = p @ kernel.flatten(1).T @ outputs.T
    weight = (outputs @ kernel.flatten(1))[None]
    weight = weight + torch.randn_like(weight) @ (torch.eye(54) - torch.linalg.pinv(seen) @ seen)
    moments = moments_of(p[None], y[None])
    problem = fit_of(Regression(moments, weight, 1e-9), TUCKER2, CONV)
    (error,) = problem.errors([2])
    found = problem.kernels(problem.weights(2))
    assert moments.squared_error(found, problem.regression.bias(found)) < 1e-6 * moments.power()
    assert error < 1e-4 * moments.power()
    plain = TUCKER2.product(TUCKER2.truncate(weight.reshape(8, 6, 3, 3), CONV, 2), CONV)
    bias = torch.zeros(1, 8, dtype=torch.float64)
    assert moments.squared_error(plain.reshape(1, 8, 54), bias) > 0.05 * moments.power()
    twice = LayerMoments(moments, moments + moments, None)
    assert problem.best_ridge(2, twice) == 1e-5


def alternated(
    moments: Moments, kernels: Sequence[NDArray[np.float64]], turns: int
) -> NDArray[np.float64]:
    """Return the kernel that least squares for one factor after the other comes to, by numpy."""
    covariance = moments.pp[0].numpy() / moments.count
    target = moments.yp[0].numpy() / moments.count
    columns, lines, mixing = kernels  # (a, i, h), (b, a, w), (o, b)
    for _ in range(turns):
        for place in range(3):
            parts = [columns, lines, mixing]
            shape = parts[place].shape
            basis = []
            for unit in np.eye(parts[place].size):
                parts[place] = unit.reshape(shape)
                basis.append(np.einsum("aih,baw,ob->oihw", *parts).reshape(8, 54))
            design = np.array(basis)
            flat = design.reshape(len(design), -1)
            normal = (design @ covariance).reshape(flat.shape) @ flat.T
            found = np.linalg.lstsq(normal, flat @ target.reshape(-1), rcond=1e-12)[0].reshape(
                shape
            )
            columns, lines, mixing = (
                found if at == place else part for at, part in enumerate((columns, lines, mixing))
            )
    product: NDArray[np.float64] = np.einsum("aih,baw,ob->oihw", columns, lines, mixing)
    return product.reshape(8, 54)


@pytest.mark.parametrize("rank", [2, 4])
def test_the_closed_form_is_near_the_best_that_alternating_least_squares_finds(rank: int) -> None:
    generator = np.random.default_rng(0)
    images = generator.standard_normal((40, 6, 9, 9)).cumsum(2).cumsum(3)
    patches = np.lib.stride_tricks.sliding_window_view(images, (3, 3), axis=(2, 3))
    p = torch.from_numpy(patches.transpose(0, 2, 3, 1, 4, 5).reshape(1, -1, 54).copy())
    weight = torch.from_numpy(generator.standard_normal((1, 8, 54)))
    moments = moments_of(p, p @ weight.mT)

    def error(kernels: Tensor) -> float:
        bias = moments.mean_y - (kernels @ moments.mean_p[:, :, None])[:, :, 0]
        return moments.squared_error(kernels, bias)

    problem = fit_of(Regression(moments, weight, 1e-9), SPATIAL_CHANNEL, CONV)
    found = error(problem.kernels(problem.weights(rank)))
    assert problem.errors([rank])[0] == pytest.approx(found, rel=1e-3)
    starts = [
        [generator.standard_normal(shape) for shape in ((rank, 6, 3), (rank, rank, 3), (8, rank))]
        for _ in range(2)
    ]
    least = min(error(torch.from_numpy(alternated(moments, one, 15)[None])) for one in starts)
    assert found < 1.25 * least
    plain = SPATIAL_CHANNEL.truncate(weight.reshape(8, 6, 3, 3), CONV, rank)
    assert error(SPATIAL_CHANNEL.product(plain, CONV).reshape(1, 8, 54)) > 1.5 * least


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3), nn.Flatten(), nn.Linear(8 * 16, 2))


@by_scheme
def test_a_criterion_of_one_matrix_is_refused_in_one_line(scheme: ThreeFactors) -> None:
    shape = (1, 3, 8, 8)
    analysis = analyse(TorchNetwork(network(), shape), scheme.name)
    with pytest.raises(PlanError, match=r"vbmf judges one matrix.*energy:0.9"):
        analysis.plan(parse_criterion("vbmf"))
    criteria = [parse_criterion(text) for text in ("vbmf", "energy:0.9")]
    assert [choice.criterion for choice in survey(analysis, criteria)] == ["energy:0.9"]


@by_scheme
def test_training_for_it_is_refused_in_one_line(scheme: ThreeFactors) -> None:
    with pytest.raises(TrainingError, match="train it for one of channel"):
        TrainedRankPruning(network(), scheme=scheme.name)
    assert scheme.name in SCHEMES
    assert scheme.name not in matrix_schemes()
