"""Factors have the least output error: against closed forms, and against every other choice."""

from __future__ import annotations

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.lowrank.summing import every_pixel, moments_of
from tests.strategies import conv_op, input_size, linear_ops, random_layer
from trpexport.lowrank.fit.moments import LayerMoments, Moments
from trpexport.lowrank.fit.patches import Patches, grouped, kernel_order
from trpexport.lowrank.fit.regression import (
    RIDGES,
    Factorization,
    Regression,
    cholesky,
)
from trpexport.lowrank.fit.three_factors import fit_of
from trpexport.lowrank.schemes import SCHEMES
from trpexport.lowrank.schemes.channel import Channel
from trpexport.lowrank.schemes.spatial import Spatial
from trpexport.networks.torch.modules import kernel_of
from trpexport.ops import LinearOp

CONV = conv_op(6, 8, (3, 3), (1, 1), (1, 1), (1, 1), bias=True)


def smooth_images(count: int, conv: LinearOp, size: tuple[int, ...]) -> Tensor:
    """Return images whose pixels and channels are correlated, as those of real networks are."""
    x = torch.randn(count, conv.in_channels, *size, dtype=torch.float64)
    mixing = torch.randn(conv.in_channels, conv.in_channels, dtype=torch.float64)
    x = torch.einsum("oc,nc...->no...", mixing, x)
    for axis in range(2, x.ndim):
        x = x + 0.8 * x.roll(1, axis)
    return x


def regression_for(
    conv: LinearOp, x: Tensor, ridge: float = 1e-8, metric: Tensor | None = None
) -> Regression:
    torch.manual_seed(5)
    module = random_layer(conv)
    with torch.no_grad():
        y = module(x)
    some = every_pixel(y)
    patches = Patches(x, conv).at(some)[:, :, kernel_order(conv)]
    moments = moments_of(patches, some.outputs(y, conv.groups))
    return Regression(moments, grouped(kernel_of(module), conv), ridge, metric)


def error(regression: Regression, kernels: Tensor) -> float:
    """Return the mean squared error with the best bias."""
    bias = regression.bias(kernels)
    return regression.moments.squared_error(kernels, bias, regression.metric)


def minimised(regression: Regression, kernels: Tensor) -> float:
    """Return the error and the ridge's share, by their definitions."""
    away = kernels - regression.weight
    square = away @ away.mT if regression.metric is None else regression.metric * (away @ away.mT)
    trace = (
        square.diagonal(dim1=1, dim2=2).sum() if regression.metric is None else square.sum((1, 2))
    )
    return error(regression, kernels) + float((regression.scale * trace).sum())


def test_the_best_kernel_of_full_rank_is_the_original_one() -> None:
    torch.manual_seed(0)
    regression = regression_for(CONV, smooth_images(8, CONV, (9, 9)))
    torch.testing.assert_close(regression.kernels, regression.weight, rtol=1e-6, atol=1e-8)
    assert error(regression, regression.kernels) < 1e-12


@pytest.mark.parametrize("rank", [1, 3, 6])
def test_channel_is_the_closed_form(rank: int) -> None:
    # Reduced-rank regression: the error left is the sum of the smallest eigenvalues of the
    # covariance of the (weighted) outputs.
    torch.manual_seed(0)
    root = torch.randn(1, 8, 8).double()
    root = root @ root.mT / 8 + 0.1 * torch.eye(8).double()
    regression = regression_for(CONV, smooth_images(8, CONV, (9, 9)), metric=root @ root)
    problem = Factorization(regression, Channel(), CONV)
    values = torch.linalg.eigvalsh(root @ regression.moments.target_covariance @ root)[0]
    found = error(regression, problem.kernels(problem.weights(rank)))
    assert found == pytest.approx(float(values[: 8 - rank].sum()), rel=1e-5)
    assert problem.errors([rank]) == pytest.approx([found], rel=1e-5)


@pytest.mark.parametrize("rank", [1, 4, 11])
def test_spatial_is_the_closed_form_where_the_error_is_a_kronecker_product(rank: int) -> None:
    # Patches whose rows (channel, kh) and columns (kw) are independent: the error of an unfolded
    # kernel M is |Lr' M (Lm x Lc)|², so the truncated SVD of that is the best (Eckart and Young).
    torch.manual_seed(0)

    def positive(size: int) -> Tensor:
        root = torch.randn(size, size, dtype=torch.float64)
        return root @ root.mT / size + 0.1 * torch.eye(size, dtype=torch.float64)

    rows, columns, metric = positive(18), positive(3), positive(8)
    covariance = torch.kron(rows, columns)[None]
    weight = torch.randn(1, 8, 54, dtype=torch.float64)
    zero = torch.zeros(1, 54, dtype=torch.float64)
    yp = weight @ covariance
    moments = Moments(1, zero, zero[:, :8], covariance, yp, yp @ weight.mT)
    problem = Factorization(Regression(moments, weight, 1e-11, metric[None]), Spatial(), CONV)
    unfolded = weight.reshape(8, 18, 3).permute(1, 0, 2).reshape(18, 24)
    both = torch.linalg.cholesky(rows).mT @ unfolded
    both = both @ torch.kron(torch.linalg.cholesky(metric), torch.linalg.cholesky(columns))
    tail = torch.linalg.svdvals(both)[rank:].square().sum()
    found = error(problem.regression, problem.kernels(problem.weights(rank)))
    assert found == pytest.approx(float(tail), rel=1e-6)


@pytest.mark.parametrize("name", SCHEMES)
@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_errors_are_what_the_factors_leave(name: str, data: st.DataObject) -> None:
    conv = data.draw(linear_ops())
    scheme = SCHEMES[name]
    assume(scheme.unsupported_reason(conv) is None)
    full = scheme.full_rank(conv)
    outputs = conv.out_channels // conv.groups
    metric = torch.diag_embed(torch.rand(conv.groups, outputs).double() + 0.1)
    x = smooth_images(4, conv, input_size(conv))
    regression = regression_for(conv, x, ridge=1e-3, metric=metric)
    problem = fit_of(regression, scheme, conv)
    ranks = sorted({1, (full + 1) // 2, full})
    errors = problem.errors(ranks)
    whole = minimised(regression, torch.zeros_like(regression.weight))
    for rank, found in zip(ranks, errors, strict=True):
        weights = problem.weights(rank)
        assert all(torch.isfinite(weight).all() for weight in weights)
        expected = minimised(regression, problem.kernels(weights))
        assert found == pytest.approx(expected, rel=1e-3, abs=1e-6 * whole)
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] <= 1e-6 * whole


@pytest.mark.parametrize("name", SCHEMES)
def test_better_than_the_svd(name: str) -> None:
    torch.manual_seed(0)
    scheme = SCHEMES[name]
    regression = regression_for(CONV, smooth_images(8, CONV, (9, 9)), ridge=1e-6)
    problem = fit_of(regression, scheme, CONV)
    kernel = regression.weight.reshape(8, 6, 3, 3)
    for rank in range(1, scheme.full_rank(CONV)):
        truncated = scheme.product(scheme.truncate(kernel, CONV, rank), CONV)
        plain = error(regression, truncated.reshape(regression.weight.shape))
        assert error(regression, problem.kernels(problem.weights(rank))) < plain


@pytest.mark.parametrize("name", SCHEMES)
def test_no_small_change_of_the_last_factor_helps(name: str) -> None:
    torch.manual_seed(0)
    regression = regression_for(CONV, smooth_images(8, CONV, (9, 9)), ridge=1e-3)
    problem = fit_of(regression, SCHEMES[name], CONV)
    *others, last = problem.weights(2)
    least = minimised(regression, problem.kernels((*others, last)))
    for seed in range(10):
        torch.manual_seed(seed)
        other = last + 1e-3 * torch.randn_like(last)
        assert minimised(regression, problem.kernels((*others, other))) > least


def test_both_factors_carry_the_root_of_each_singular_value() -> None:
    torch.manual_seed(0)
    regression = regression_for(CONV, smooth_images(8, CONV, (9, 9)))
    left, right = Factorization(regression, Spatial(), CONV).factors(4)
    torch.testing.assert_close(left[0].norm(dim=0), right[0].norm(dim=1))


@pytest.mark.parametrize("name", SCHEMES)
@pytest.mark.parametrize("fill", [0.0, 3.0])
def test_constant_inputs_leave_finite_factors(name: str, fill: float) -> None:
    x = torch.full((2, 6, 9, 9), fill, dtype=torch.float64)
    problem = fit_of(regression_for(CONV, x, ridge=1e-5), SCHEMES[name], CONV)
    assert torch.isfinite(problem.kernels(problem.weights(3))).all()


def test_the_ridge_grows_where_images_are_few_and_noisy() -> None:
    torch.manual_seed(0)
    weight = torch.randn(1, 4, 30).double()
    truth = weight + torch.randn(1, 4, 30).double()

    def noisy(count: int) -> Moments:
        p = torch.randn(1, count, 30).double()
        y = p @ truth.mT + 5 * torch.randn(1, count, 4).double()
        return moments_of(p, y)

    conv = conv_op(30, 4, (1,), (1,), (0,), (1,))

    def chosen(fit: Moments, held_out: Moments | None) -> float:
        everything = fit if held_out is None else fit + held_out
        moments = LayerMoments(fit, everything, metric=None)
        regression = Regression(moments.everything, weight, ridge=1e-3)
        return Factorization(regression, Channel(), conv).best_ridge(4, moments)

    few, many = chosen(noisy(35), noisy(1000)), chosen(noisy(100_000), noisy(1000))
    assert few > many
    nothing = moments_of(weight[:, :0], weight[:, :0, :4])
    for held_out in (nothing, None):
        assert chosen(noisy(35), held_out) == RIDGES[-1]


def test_covariances_that_float32_left_indefinite_are_factored() -> None:
    torch.manual_seed(0)
    few = torch.randn(60, 400, dtype=torch.float64) + 30 * torch.randn(60, 1, dtype=torch.float64)
    exact = few.mT @ few
    rounded = (few.float().mT @ few.float()).double()
    indefinite = torch.stack([rounded, exact])
    assert torch.linalg.eigvalsh(rounded)[0] < 0

    lower = cholesky(indefinite)

    error = (lower @ lower.mT - indefinite).abs().amax((1, 2))
    largest = torch.linalg.eigvalsh(exact)[-1]
    assert (error < 1e-6 * largest).all()
    definite = exact + torch.eye(400, dtype=torch.float64)
    assert torch.equal(cholesky(definite), torch.linalg.cholesky(definite))
    with pytest.raises(RuntimeError, match="cholesky"):
        cholesky(torch.full((2, 2), torch.nan))
