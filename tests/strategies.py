"""Convolutions of every kind, for property tests."""

from __future__ import annotations

from math import prod
from typing import Literal

from hypothesis import strategies as st

from trpexport.plan import ConvSpec

PADDING_MODES = ("zeros", "reflect", "replicate", "circular")


@st.composite
def convolutions(draw: st.DrawFn, ndim: int = 2) -> ConvSpec:
    """Draw a convolution: shape, stride, padding, dilation, groups, bias, padding mode."""

    def sizes(low: int, high: int) -> tuple[int, ...]:
        return tuple(draw(st.integers(low, high)) for _ in range(ndim))

    groups = draw(st.sampled_from([1, 1, 2, 3]))
    padding: tuple[int, ...] | Literal["same"] = sizes(0, 2)
    stride = sizes(1, 3)
    if draw(st.booleans()):
        padding, stride = "same", (1,) * ndim
    return ConvSpec(
        in_channels=groups * draw(st.integers(1, 4)),
        out_channels=groups * draw(st.integers(1, 4)),
        kernel_size=sizes(1, 4),
        stride=stride,
        padding=padding,
        dilation=sizes(1, 2),
        groups=groups,
        bias=draw(st.booleans()),
        padding_mode=draw(st.sampled_from(PADDING_MODES)) if ndim == 2 else "zeros",
    )


def input_size(conv: ConvSpec) -> tuple[int, ...]:
    """Return a spatial size that every kernel and every padding mode fits."""
    return tuple(
        d * (k - 1) + 5 + axis
        for axis, (d, k) in enumerate(zip(conv.dilation, conv.kernel_size, strict=True))
    )


def weight_elements(conv: ConvSpec) -> int:
    """Return the number of weights, by the definition of a convolution."""
    return conv.out_channels * conv.in_channels * prod(conv.kernel_size) // conv.groups
