"""Patches times kernels are what PyTorch's layer computes; moments are sums over them."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.strategies import input_size, linear_ops, random_layer
from trpexport.choose.gathering import _pixel_step
from trpexport.lowrank.fit.moments import Moments
from trpexport.lowrank.fit.patches import grouped, patches, pixels
from trpexport.networks.torch.modules import kernel_of


@settings(max_examples=80, deadline=None)
@given(data=st.data())
def test_patches_times_kernels_is_the_layer(data: st.DataObject) -> None:
    conv = data.draw(linear_ops())
    module = random_layer(conv)
    x = torch.randn(3, conv.in_channels, *input_size(conv), dtype=torch.float64)
    with torch.no_grad():
        expected = module(x)
        if module.bias is not None:
            expected -= module.bias.reshape(-1, *[1] * conv.ndim)
    step = data.draw(st.integers(1, 4))
    product = patches(x, conv, step) @ grouped(kernel_of(module), conv).mT
    torch.testing.assert_close(product, pixels(expected, conv.groups, step))
    used = -(-expected[0, 0].numel() // step)
    assert product.shape[1] == 3 * used


@settings(deadline=None)
@given(
    count=st.integers(1, 10**7), width=st.integers(1, 300), inputs=st.sampled_from([9, 576, 4608])
)
def test_pixels_enough_for_the_regression_and_of_every_column(
    count: int, width: int, inputs: int
) -> None:
    step = _pixel_step(count, width, inputs)
    assert count // step >= min(count, 64 * inputs)
    columns = {place % width for place in range(0, width * step, step)}
    assert len(columns) == width


def moments_of(p: torch.Tensor, y: torch.Tensor, pieces: int = 1) -> Moments:
    moments = Moments.zeros(len(p), p.shape[2], y.shape[2], p.device)
    for ps, ys in zip(p.chunk(pieces, 1), y.chunk(pieces, 1), strict=True):
        moments = moments.add(ps, ys)
    return moments


def test_squared_error_is_that_of_the_data() -> None:
    torch.manual_seed(0)
    p = torch.randn(2, 50, 7, dtype=torch.float64) + 3
    y = torch.randn(2, 50, 4, dtype=torch.float64) - 2
    kernels, bias = torch.randn(2, 4, 7).double(), torch.randn(2, 4).double()
    moments = moments_of(p, y, pieces=3)
    residual = y - p @ kernels.mT - bias[:, None]
    expected = residual.square().sum(2).mean(1).sum()
    assert abs(moments.squared_error(kernels, bias) - float(expected)) < 1e-9 * float(expected)
    metric = torch.diag_embed(torch.rand(2, 4).double())
    weighted = (residual.square() * torch.diagonal(metric, dim1=1, dim2=2)[:, None]).sum(2)
    expected = weighted.mean(1).sum()
    assert abs(moments.squared_error(kernels, bias, metric) - float(expected)) < 1e-9
    assert abs(moments.power() - float(y.square().sum(2).mean(1).sum())) < 1e-9
    assert abs(moments.variance() - float(y.var(1, correction=0).sum())) < 1e-9


def test_moments_of_two_halves_are_those_of_the_whole() -> None:
    torch.manual_seed(1)
    p, y = torch.randn(1, 20, 5).double(), torch.randn(1, 20, 3).double()
    whole = moments_of(p, y)
    both = moments_of(p[:, :8], y[:, :8]) + moments_of(p[:, 8:], y[:, 8:])
    assert both.count == whole.count == 20
    torch.testing.assert_close(both.pp.triu(), whole.pp.triu())
    for name in ("input_covariance", "cross_covariance", "target_covariance"):
        torch.testing.assert_close(getattr(both, name), getattr(whole, name))
