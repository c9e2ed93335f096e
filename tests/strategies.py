"""Linear operators of every kind, for property tests."""

from __future__ import annotations

from dataclasses import replace
from math import prod
from typing import Literal

from hypothesis import strategies as st
from torch import nn

from trpexport.networks.torch.modules import LinearLayer, make_layer
from trpexport.ops import LinearOp, Window

PADDING_MODES = ("zeros", "reflect", "replicate", "circular")


def conv_op(
    in_channels: int,
    out_channels: int,
    kernel: tuple[int, ...],
    stride: tuple[int, ...] = (),
    padding: tuple[int, ...] | Literal["same"] = (),
    dilation: tuple[int, ...] = (),
    *,
    groups: int = 1,
    bias: bool = False,
    pad_mode: str = "zeros",
) -> LinearOp:
    """Return a convolution with PyTorch's words for its padding."""
    if padding == "same":
        totals = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
        pads = tuple((total // 2, total - total // 2) for total in totals)
    else:
        pads = tuple((p, p) for p in padding)
    window = Window(kernel, stride, pads, dilation, pad_mode)
    return LinearOp(in_channels, out_channels, groups, bias, window)


@st.composite
def convolutions(draw: st.DrawFn, ndim: int = 2) -> LinearOp:
    """Draw a convolution: shape, stride, padding, dilation, groups, bias, padding mode."""

    def sizes(low: int, high: int) -> tuple[int, ...]:
        return tuple(draw(st.integers(low, high)) for _ in range(ndim))

    groups = draw(st.sampled_from([1, 1, 2, 3]))
    padding: tuple[int, ...] | Literal["same"] = sizes(0, 2)
    stride = sizes(1, 3)
    if draw(st.booleans()):
        padding, stride = "same", (1,) * ndim
    return conv_op(
        in_channels=groups * draw(st.integers(1, 4)),
        out_channels=groups * draw(st.integers(1, 4)),
        kernel=sizes(1, 4),
        stride=stride,
        padding=padding,
        dilation=sizes(1, 2),
        groups=groups,
        bias=draw(st.booleans()),
        pad_mode=draw(st.sampled_from(PADDING_MODES)) if ndim == 2 else "zeros",
    )


@st.composite
def linear_ops(draw: st.DrawFn) -> LinearOp:
    """Draw any linear operator: of 0 to 3 axes, transposed or not, pads uneven or not."""
    ndim = draw(st.sampled_from([0, 1, 2, 2, 2, 3]))
    op = draw(convolutions(ndim))
    if not ndim:
        return LinearOp(op.in_channels, op.out_channels, bias=op.bias)

    def amounts() -> tuple[int, ...]:
        return tuple(draw(st.integers(0, 2)) for _ in range(ndim))

    window = op.window
    if draw(st.booleans()):
        window = replace(window, pads=tuple(zip(amounts(), amounts(), strict=True)))
    if draw(st.booleans()):
        window = replace(window, pad_mode="zeros", transposed=True, output_pads=amounts())
    return replace(op, window=window)


def input_size(conv: LinearOp) -> tuple[int, ...]:
    """Return a spatial size that every kernel and every padding mode fits."""
    return tuple(
        d * (k - 1) + 5 + axis
        for axis, (d, k) in enumerate(zip(conv.window.dilation, conv.kernel, strict=True))
    )


def random_layer(op: LinearOp) -> LinearLayer:
    """Return a float64 module of a linear operator with random weights and bias."""
    module = make_layer(op).double().eval()
    for parameter in module.parameters():
        nn.init.normal_(parameter)
    return module


def weight_elements(conv: LinearOp) -> int:
    """Return the number of weights, by the definition of a convolution."""
    return conv.out_channels * conv.in_channels * prod(conv.kernel) // conv.groups
