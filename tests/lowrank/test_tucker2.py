"""Tucker-2: against higher-order SVDs computed with numpy, and kernels that are known to be low."""

from __future__ import annotations

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
from trpexport.lowrank.fit.moments import LayerMoments
from trpexport.lowrank.fit.regression import Regression
from trpexport.lowrank.fit.three_factors import fit_of
from trpexport.lowrank.schemes import matrix_schemes
from trpexport.lowrank.schemes.tucker2 import Tucker2
from trpexport.networks.torch.network import TorchNetwork
from trpexport.ops import Call, LinearOp
from trpexport.training.trp import TrainedRankPruning

SCHEME = Tucker2()
CONV = conv_op(6, 8, (3, 3), (1, 1), (1, 1), (1, 1))


def higher_order_svd(weight: Tensor, conv: LinearOp, rank: int) -> NDArray[np.float64]:
    """Return the truncated higher-order SVD of a kernel: bases of both unfoldings, by numpy."""
    g = conv.groups
    kernels = weight.double().numpy().reshape(g, conv.out_channels // g, conv.in_channels // g, -1)
    found = []
    for kernel in kernels:
        outputs = np.linalg.svd(kernel.reshape(len(kernel), -1), full_matrices=False)[0]
        swapped = kernel.transpose(1, 0, 2)
        inputs = np.linalg.svd(swapped.reshape(len(swapped), -1), full_matrices=False)[0]
        o, i = outputs[:, :rank], inputs[:, :rank]
        found.append(np.einsum("oit,oa,ba,ic,dc->bdt", kernel, o, o, i, i))
    return np.stack(found).reshape(weight.shape)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_the_spectrum_is_the_error_of_the_higher_order_svd_and_iteration_is_no_worse(
    data: st.DataObject,
) -> None:
    conv = data.draw(convolutions(data.draw(st.sampled_from([1, 2, 3]))))
    assume(not SCHEME.unsupported_reason(conv))
    weight = torch.randn(conv.out_channels, conv.in_channels // conv.groups, *conv.kernel)
    full = SCHEME.full_rank(conv)
    rank = data.draw(st.integers(1, full))
    spectrum = SCHEME.spectrum(weight, conv)
    assert spectrum.shape == (conv.groups, full)
    expected = ((weight.double().numpy() - higher_order_svd(weight, conv, rank)) ** 2).sum()
    dropped = float(spectrum[:, rank:].square().sum())
    whole = float(weight.double().square().sum())
    assert dropped == pytest.approx(expected, rel=1e-6, abs=1e-9 * whole)
    kernel = SCHEME.product(SCHEME.truncate(weight, conv, rank), conv)
    assert float((kernel - weight).square().sum()) <= expected + 1e-9 * whole


def low(inner: int, outer: int) -> Tensor:
    """Return a kernel of CONV with these ranks."""
    torch.manual_seed(0)
    core = torch.randn(outer, inner, 3, 3, dtype=torch.float64)
    inputs, outputs = (torch.randn(n, r).double() for n, r in ((6, inner), (8, outer)))
    return torch.einsum("abhw,ia,ob->oihw", core.transpose(0, 1), inputs, outputs)


def test_a_kernel_of_low_rank_on_both_sides_is_found() -> None:
    kernel = low(2, 3)
    exact = SCHEME.product(SCHEME.truncate(kernel, CONV, 3), CONV)
    torch.testing.assert_close(exact, kernel)
    assert float((SCHEME.product(SCHEME.truncate(kernel, CONV, 2), CONV) - kernel).norm()) > 0.1
    weights = SCHEME.truncate(kernel, CONV, 3)
    assert [tuple(weight.shape) for weight in weights] == [(3, 6, 1, 1), (3, 3, 3, 3), (8, 3, 1, 1)]
    torch.testing.assert_close(weights[0].norm(), weights[1].norm())
    torch.testing.assert_close(weights[0].norm(), weights[2].norm())


def test_no_small_change_of_a_factor_helps() -> None:
    torch.manual_seed(0)
    kernel = torch.randn(8, 6, 3, 3, dtype=torch.float64)
    factors = SCHEME.truncate(kernel, CONV, 2)
    least = (SCHEME.product(factors, CONV) - kernel).norm()
    assert least < np.linalg.norm(kernel.numpy() - higher_order_svd(kernel, CONV, 2)) - 1e-3
    for place in range(3):
        for seed in range(5):
            torch.manual_seed(seed)
            changed = list(factors)
            changed[place] = factors[place] + 1e-3 * torch.randn_like(factors[place])
            assert (SCHEME.product(changed, CONV) - kernel).norm() > least


def test_a_zero_kernel_stays_one() -> None:
    zero = torch.zeros(8, 6, 3, 3)
    assert not SCHEME.spectrum(zero, CONV).any()
    assert not SCHEME.product(SCHEME.truncate(zero, CONV, 2), CONV).any()


def test_macs_by_hand() -> None:
    # 16 -> 32 channels, 3x3, stride 2, on 8x8: the output is 4x4.
    conv = conv_op(16, 32, (3, 3), (2, 2), (1, 1), (1, 1))
    expected = 5 * 16 * 8 * 8 + 5 * 5 * 9 * 4 * 4 + 32 * 5 * 4 * 4
    assert macs(SCHEME.factor_ops(conv, 5), [Call(1, (8, 8))]) == expected
    # A side with fewer channels than the rank keeps them all.
    assert SCHEME.ranks(conv, 20) == (16, 20)
    assert SCHEME.full_rank(conv) == 32


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
    problem = fit_of(Regression(moments, weight, 1e-9), SCHEME, CONV)
    (error,) = problem.errors([2])
    found = problem.kernels(problem.weights(2))
    assert moments.squared_error(found, problem.regression.bias(found)) < 1e-6 * moments.power()
    assert error < 1e-4 * moments.power()
    plain = SCHEME.product(SCHEME.truncate(weight.reshape(8, 6, 3, 3), CONV, 2), CONV)
    bias = torch.zeros(1, 8, dtype=torch.float64)
    assert moments.squared_error(plain.reshape(1, 8, 54), bias) > 0.05 * moments.power()
    held_out = LayerMoments(moments, moments, None)
    assert problem.best_ridge(2, held_out) == 1e-5


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3), nn.Flatten(), nn.Linear(8 * 16, 2))


def test_a_criterion_of_one_matrix_is_refused_in_one_line() -> None:
    shape = (1, 3, 8, 8)
    analysis = analyse(TorchNetwork(network(), shape), "tucker2")
    with pytest.raises(PlanError, match=r"vbmf judges one matrix.*energy:0.9"):
        analysis.plan(parse_criterion("vbmf"))
    criteria = [parse_criterion(text) for text in ("vbmf", "energy:0.9")]
    assert [choice.criterion for choice in survey(analysis, criteria)] == ["energy:0.9"]


def test_training_for_it_is_refused_in_one_line() -> None:
    with pytest.raises(TrainingError, match="train it for one of channel"):
        TrainedRankPruning(network(), scheme="tucker2")
    assert "tucker2" not in matrix_schemes()
