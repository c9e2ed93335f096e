"""What a convolution costs: parameters, MACs, output sizes. Pure functions of shapes.

One MAC is one multiply-add; FLOPs are 2 x MACs. Biases, activations and normalisation are left
out of both, as in the papers that this project compares with.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import prod

from trpexport.plan import ConvSpec

FLOPS_PER_MAC = 2


def padding_amounts(conv: ConvSpec) -> tuple[tuple[int, int], ...]:
    """Return (before, after) padding in pixels for each spatial dimension of ``conv``.

    ``"same"`` pads ``dilation * (kernel - 1)`` in all, the odd pixel after, as PyTorch does.
    """
    if conv.padding == "same":
        totals = [d * (k - 1) for d, k in zip(conv.dilation, conv.kernel_size, strict=True)]
        return tuple((total // 2, total - total // 2) for total in totals)
    return tuple((p, p) for p in conv.padding)


def output_size(conv: ConvSpec, input_size: Sequence[int]) -> tuple[int, ...]:
    """Return the spatial size of the output of ``conv`` for a spatial ``input_size``, in pixels."""
    return tuple(
        (size + before + after - d * (k - 1) - 1) // s + 1
        for size, (before, after), d, k, s in zip(
            input_size,
            padding_amounts(conv),
            conv.dilation,
            conv.kernel_size,
            conv.stride,
            strict=True,
        )
    )


def weight_count(conv: ConvSpec) -> int:
    """Return the number of weights of ``conv``, without its bias."""
    return conv.out_channels * (conv.in_channels // conv.groups) * prod(conv.kernel_size)


def parameter_count(conv: ConvSpec) -> int:
    """Return the number of parameters of ``conv``, its bias included."""
    return weight_count(conv) + (conv.out_channels if conv.bias else 0)


def macs(convs: Iterable[ConvSpec], input_size: Sequence[int]) -> int:
    """Return the MACs for one image of the chain ``convs``, each fed by the one before.

    Args:
        convs: one convolution, or the factors that replace it.
        input_size: spatial size of the chain's input, in pixels.
    """
    total = 0
    size = tuple(input_size)
    for conv in convs:
        size = output_size(conv, size)
        total += weight_count(conv) * prod(size)
    return total
