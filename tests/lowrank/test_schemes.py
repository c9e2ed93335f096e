"""Every scheme of the registry, over every kind of linear operator."""

from __future__ import annotations

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.strategies import conv_op, input_size, linear_ops, random_layer
from trpexport.cost import macs, output_size
from trpexport.lowrank.chain import truncated
from trpexport.lowrank.schemes import SCHEMES, MatrixScheme, Scheme, matrix_schemes
from trpexport.networks.torch.modules import FactorChain, kernel_of, make_layer, op_of, set_kernel
from trpexport.ops import Call, LinearOp


def expected_kernel(scheme: Scheme, weight: Tensor, conv: LinearOp, rank: int) -> Tensor:
    """Return the truncated kernel, by torch's own SVD of the unfolded one."""
    scheme = scheme.form(conv)
    if isinstance(scheme, MatrixScheme):
        u, s, vh = torch.linalg.svd(scheme.unfold(weight, conv), full_matrices=False)
        return scheme.fold((u[:, :, :rank] * s[:, None, :rank]) @ vh[:, :rank], conv)
    # Of several matrices there is no closed form: see test_tucker2.py.
    return scheme.product(scheme.truncate(weight, conv, rank), conv)


@pytest.mark.parametrize("name", SCHEMES)
@pytest.mark.parametrize("level", ["one", "middle", "full"])
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_chain_is_the_convolution_of_its_product(
    name: str, level: str, data: st.DataObject
) -> None:
    conv = data.draw(linear_ops(), label="conv")
    scheme = SCHEMES[name]
    assume(not scheme.unsupported_reason(conv))
    full = scheme.full_rank(conv)
    rank = {"one": 1, "middle": (full + 1) // 2, "full": full}[level]
    torch.manual_seed(conv.in_channels * 31 + conv.out_channels)
    module = random_layer(conv)
    x = torch.randn(2, conv.in_channels, *input_size(conv), dtype=torch.float64)
    cut = truncated(kernel_of(module), module.bias, conv, scheme=name, rank=rank)
    chain = FactorChain.of(cut, module)

    dense = make_layer(conv).double()
    dense.load_state_dict(module.state_dict())
    set_kernel(dense, expected_kernel(scheme, kernel_of(module).detach(), conv, rank))

    with torch.no_grad():
        torch.testing.assert_close(chain(x), dense(x), rtol=1e-7, atol=1e-9)
        if rank == full:
            torch.testing.assert_close(chain(x), module(x), rtol=1e-7, atol=1e-9)
    assert [op_of(factor) for factor in chain] == list(cut.ops)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", matrix_schemes())
@settings(max_examples=50, deadline=None)
@given(data=st.data())
def test_fold_undoes_unfold(name: str, data: st.DataObject) -> None:
    conv = data.draw(linear_ops())
    scheme = matrix_schemes()[name]
    assume(scheme.form(conv) is scheme and not scheme.unsupported_reason(conv))
    weight = torch.randn(conv.out_channels, conv.in_channels // conv.groups, *conv.kernel)
    matrices = scheme.unfold(weight, conv)
    assert tuple(matrices.shape) == scheme.matrix_shape(conv)
    assert torch.equal(scheme.fold(matrices, conv), weight)


@pytest.mark.parametrize("name", SCHEMES)
@settings(max_examples=50, deadline=None)
@given(data=st.data())
def test_break_even_rank_is_the_last_cheaper_one(name: str, data: st.DataObject) -> None:
    conv = data.draw(linear_ops())
    scheme = SCHEMES[name]
    assume(not scheme.unsupported_reason(conv))
    calls = [Call(data.draw(st.integers(1, 3)), input_size(conv)), Call(1, input_size(conv))]
    dense = macs((conv,), calls)
    cheaper = [
        rank
        for rank in range(1, scheme.full_rank(conv) + 1)
        if macs(scheme.factor_ops(conv, rank), calls) < dense
    ]
    assert scheme.break_even_rank(conv, calls) == max(cheaper, default=0)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_output_size_is_what_torch_computes(data: st.DataObject) -> None:
    conv = data.draw(linear_ops())
    size = input_size(conv)
    y = random_layer(conv)(torch.zeros(1, conv.in_channels, *size, dtype=torch.float64))
    assert output_size(conv, size) == tuple(y.shape[2:])


def conv3x3(in_channels: int, out_channels: int, *, stride: int = 1, groups: int = 1) -> LinearOp:
    return conv_op(
        in_channels, out_channels, (3, 3), (stride, stride), (1, 1), (1, 1), groups=groups
    )


def test_macs_of_the_pairs_by_hand() -> None:
    # 16 -> 32 channels, 3x3, stride 2, on 8x8: the output is 4x4.
    conv = conv3x3(16, 32, stride=2)
    here = [Call(1, (8, 8))]
    assert macs((conv,), here) == 32 * 16 * 9 * 16
    # Channel, rank 4: 4 filters 3x3 on 4x4, then 1x1.
    assert macs(SCHEMES["channel"].factor_ops(conv, 4), here) == (4 * 16 * 9 + 32 * 4) * 16
    # Spatial, rank 4: the vertical pass gives 4x8 pixels, the horizontal one 4x4.
    spatial = macs(SCHEMES["spatial"].factor_ops(conv, 4), here)
    assert spatial == 4 * 16 * 3 * 4 * 8 + 32 * 4 * 3 * 4 * 4
    # Decoupling, 2 paths: pointwise to 64 channels on 8x8, then 3x3 with 32 groups of 2 on 4x4.
    decoupling = macs(SCHEMES["decoupling"].factor_ops(conv, 2), here)
    assert decoupling == 64 * 16 * 64 + 32 * 2 * 9 * 16


def test_full_ranks_by_hand() -> None:
    conv = conv3x3(16, 32)
    assert SCHEMES["channel"].full_rank(conv) == 32
    assert SCHEMES["spatial"].full_rank(conv) == 48
    assert SCHEMES["decoupling"].full_rank(conv) == 9
    depthwise = conv3x3(16, 16, groups=16)
    assert SCHEMES["channel"].full_rank(depthwise) == 1
    assert SCHEMES["spatial"].full_rank(depthwise) == 3
    assert SCHEMES["decoupling"].full_rank(depthwise) == 1


def test_one_column_kernels_stride_once() -> None:
    conv = conv_op(4, 8, (3, 1), (2, 2), (1, 0), (1, 1))
    first, second = SCHEMES["spatial"].factor_ops(conv, 2)
    assert (first.window.stride, second.window.stride) == ((2, 2), (1, 1))


def test_reasons_for_what_a_scheme_cannot_take() -> None:
    pointwise = conv_op(4, 8, (1, 1), (1, 1), (0, 0), (1, 1))
    line = conv_op(4, 8, (3,), (1,), (1,), (1,))
    assert "1x1" in (SCHEMES["decoupling"].unsupported_reason(pointwise) or "")
    assert SCHEMES["channel"].unsupported_reason(line) is None
    product = LinearOp(4, 8)
    assert {name for name, one in SCHEMES.items() if not one.unsupported_reason(product)} == {
        "channel",
        "spatial",
    }
