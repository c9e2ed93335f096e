"""Factors have the least output error: against closed forms, and against every other choice."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.strategies import convolutions, input_size
from trpexport.lowrank.calibration.fit import (
    RIDGES,
    Factorization,
    Regression,
    choose_ridge,
    fit_factors,
)
from trpexport.lowrank.calibration.layerwise import grouped
from trpexport.lowrank.calibration.moments import LayerMoments, Moments
from trpexport.lowrank.calibration.patches import patches, pixels
from trpexport.lowrank.factorize import make_conv
from trpexport.lowrank.schemes import SCHEMES
from trpexport.lowrank.spectrum import svd
from trpexport.plan import ConvSpec

CONV = ConvSpec(6, 8, (3, 3), (1, 1), (1, 1), (1, 1), bias=True)


def smooth_images(count: int, conv: ConvSpec, size: tuple[int, ...]) -> Tensor:
    """Return images whose pixels and channels are correlated, as those of real networks are."""
    x = torch.randn(count, conv.in_channels, *size, dtype=torch.float64)
    mixing = torch.randn(conv.in_channels, conv.in_channels, dtype=torch.float64)
    x = torch.einsum("oc,nc...->no...", mixing, x)
    for axis in range(2, x.ndim):
        x = x + 0.8 * x.roll(1, axis)
    return x


def regression_for(
    conv: ConvSpec, x: Tensor, ridge: float = 1e-8, metric: Tensor | None = None
) -> Regression:
    torch.manual_seed(5)
    module = make_conv(conv).double()
    with torch.no_grad():
        y = module(x)
    outputs = conv.out_channels // conv.groups
    p = patches(x, conv)
    moments = Moments.zeros(conv.groups, p.shape[2], outputs, x.device)
    moments = moments.add(p, pixels(y, conv.groups))
    return Regression(moments, grouped(module.weight, conv), conv, ridge, metric)


def test_the_best_kernel_of_full_rank_is_the_original_one() -> None:
    torch.manual_seed(0)
    regression = regression_for(CONV, smooth_images(8, CONV, (9, 9)))
    torch.testing.assert_close(regression.kernels, regression.weight, rtol=1e-6, atol=1e-8)
    assert regression.error(regression.kernels) < 1e-12


@pytest.mark.parametrize("rank", [1, 3, 6])
def test_channel_is_the_closed_form(rank: int) -> None:
    # Reduced-rank regression: the error left is the sum of the smallest eigenvalues of the
    # covariance of the (weighted) outputs.
    torch.manual_seed(0)
    metric = torch.diag(torch.rand(8).double() + 0.1)[None]
    regression = regression_for(CONV, smooth_images(8, CONV, (9, 9)), metric=metric)
    left, right = fit_factors(regression, SCHEMES["channel"], rank)
    root = metric.sqrt()
    values = torch.linalg.eigvalsh(root @ regression.moments.covariance[2] @ root)[0]
    error = regression.error((left @ right).reshape(regression.weight.shape))
    assert error == pytest.approx(float(values[: 8 - rank].sum()), rel=1e-5)


@pytest.mark.parametrize("name", SCHEMES)
@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_never_worse_than_the_svd_on_any_convolution(name: str, data: st.DataObject) -> None:
    conv = data.draw(convolutions(data.draw(st.sampled_from([1, 2, 2, 3]))))
    scheme = SCHEMES[name]
    if scheme.unsupported_reason(conv):
        return
    rank = data.draw(st.integers(1, scheme.full_rank(conv)))
    regression = regression_for(conv, smooth_images(4, conv, input_size(conv)), ridge=1e-6)
    problem = Factorization(regression, scheme)
    left, right = problem.factors(rank, sweeps=4, steps=20)
    assert torch.isfinite(left).all()
    assert torch.isfinite(right).all()
    kernel = regression.weight.reshape(conv.out_channels, -1, *conv.kernel_size)
    truncated = scheme.fold(svd(scheme.unfold(kernel, conv)).truncated(rank), conv)
    plain = regression.error(truncated.reshape(regression.weight.shape))
    scale = regression.moments.variance()
    assert regression.error(problem.kernels(left, right)) <= plain + 1e-4 * scale


@pytest.mark.parametrize("name", SCHEMES)
def test_no_small_change_of_a_factor_helps(name: str) -> None:
    torch.manual_seed(0)
    scheme = SCHEMES[name]
    regression = regression_for(CONV, smooth_images(8, CONV, (9, 9)), ridge=1e-6)
    problem = Factorization(regression, scheme)
    left, right = problem.factors(2, sweeps=60, steps=60)
    least = regression.error(problem.kernels(left, right))
    for seed in range(10):
        torch.manual_seed(seed)
        other = left + 1e-3 * torch.randn_like(left), right + 1e-3 * torch.randn_like(right)
        assert regression.error(problem.kernels(*other)) > least * (1 - 1e-6)


def test_both_factors_carry_the_root_of_each_singular_value() -> None:
    torch.manual_seed(0)
    regression = regression_for(CONV, smooth_images(8, CONV, (9, 9)))
    left, right = fit_factors(regression, SCHEMES["spatial"], 4)
    torch.testing.assert_close(left[0].norm(dim=0), right[0].norm(dim=1))


@pytest.mark.parametrize("name", SCHEMES)
@pytest.mark.parametrize("fill", [0.0, 3.0])
def test_constant_inputs_leave_finite_factors(name: str, fill: float) -> None:
    x = torch.full((2, 6, 9, 9), fill, dtype=torch.float64)
    left, right = fit_factors(regression_for(CONV, x, ridge=1e-5), SCHEMES[name], 3)
    assert torch.isfinite(left @ right).all()


def test_the_ridge_grows_where_images_are_few_and_noisy() -> None:
    torch.manual_seed(0)
    weight = torch.randn(1, 4, 30).double()
    truth = weight + torch.randn(1, 4, 30).double()

    def noisy(count: int) -> Moments:
        p = torch.randn(1, count, 30).double()
        y = p @ truth.mT + 5 * torch.randn(1, count, 4).double()
        return Moments.zeros(1, 30, 4, p.device).add(p, y)

    conv = ConvSpec(30, 4, (1,), (1,), (0,), (1,))
    channel = SCHEMES["channel"]

    def chosen(fit: Moments, held_out: Moments) -> float:
        moments = LayerMoments(fit, held_out, metric=None)
        return choose_ridge(moments, weight, conv, scheme=channel, rank=4)

    few, many = chosen(noisy(35), noisy(1000)), chosen(noisy(100_000), noisy(1000))
    assert few > many
    nothing_held_out = Moments.zeros(1, 30, 4, weight.device)
    assert chosen(noisy(35), nothing_held_out) == RIDGES[-1]
