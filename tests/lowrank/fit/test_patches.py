"""Patches times kernels are what PyTorch's layer computes; moments are sums over them."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.lowrank.summing import every_pixel, moments_of
from tests.strategies import input_size, linear_ops, random_layer
from trpexport.lowrank.fit import moments as moments_module
from trpexport.lowrank.fit.moments import Moments
from trpexport.lowrank.fit.patches import Patches, grouped, kernel_order
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
    some = every_pixel(expected, step)
    patches = Patches(x, conv).at(some)[:, :, kernel_order(conv)]
    product = patches @ grouped(kernel_of(module), conv).mT
    torch.testing.assert_close(product, some.outputs(expected, conv.groups))
    flat = expected.reshape(3, conv.out_channels, -1).permute(0, 2, 1).flatten(0, 1)[::step]
    by_group = flat.reshape(len(flat), conv.groups, -1).transpose(0, 1)
    torch.testing.assert_close(product, by_group)


def test_moments_in_another_order_are_those_of_reordered_patches() -> None:
    torch.manual_seed(3)
    p, y = torch.randn(2, 300, 150).double(), torch.randn(2, 300, 4).double()
    order = torch.randperm(150)
    ours, expected = moments_of(p, y).ordered(order), moments_of(p[:, :, order], y)
    for name in ("mean_p", "mean_y", "input_covariance", "cross_covariance", "target_covariance"):
        torch.testing.assert_close(getattr(ours, name), getattr(expected, name))


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
    for name in ("mean_p", "mean_y", "input_covariance", "cross_covariance", "target_covariance"):
        torch.testing.assert_close(getattr(both, name), getattr(whole, name))


@pytest.mark.parametrize("order", [1, -1])
def test_float32_loses_nothing_to_means_that_are_large(
    order: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Means a thousand times the variation: their squares alone would use up float32's digits.
    monkeypatch.setattr(moments_module, "BLOCK_ELEMENTS", 7 * 100)
    torch.manual_seed(2)
    variation = torch.randn(2, 3000, 7) @ torch.randn(7, 7)
    p = variation + 1000 * torch.randn(2, 1, 7)
    y = p @ torch.randn(7, 4) + torch.randn(2, 3000, 4)
    if order < 0:
        p, y = p.flip(1), y.flip(1)
    found, exact = moments_of(p, y, pieces=50), moments_of(p.double(), y.double())
    assert found.pp.dtype == torch.float64
    for name in ("mean_p", "mean_y", "input_covariance", "cross_covariance", "target_covariance"):
        ours, theirs = getattr(found, name), getattr(exact, name)
        assert float((ours - theirs).norm() / theirs.norm()) < 1e-6, name
    centred = p.double() - p.double().mean(1, keepdim=True)
    torch.testing.assert_close(exact.input_covariance, centred.mT @ centred / 3000)


def test_what_kernels_make_of_patches_needs_no_targets() -> None:
    torch.manual_seed(3)
    p, kernels, bias = torch.randn(2, 90, 6).double() + 2, torch.randn(2, 3, 6), torch.randn(2, 3)
    kernels, bias = kernels.double(), bias.double()
    y = p @ kernels.mT + bias[:, None]
    ours, seen = Moments.of_outputs(moments_of(p, y[..., :0]), kernels, bias), moments_of(p, y)
    for name in ("mean_p", "mean_y", "input_covariance", "cross_covariance", "target_covariance"):
        torch.testing.assert_close(getattr(ours, name), getattr(seen, name))
