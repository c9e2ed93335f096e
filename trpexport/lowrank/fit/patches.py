"""A convolution as a matrix product: the pixels that each output sees, one row an output."""

from __future__ import annotations

from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from trpexport.ops import LinearOp


def patches(x: Tensor, op: LinearOp, step: int = 1) -> Tensor:
    """Return what ``op`` multiplies its kernels with.

    Args:
        x: input (batch, in_channels, *size).
        op: any convolution: stride, dilation, groups and padding of every mode.
        step: of the output pixels of each image, every so many are used.

    Returns:
        (groups, batch · used pixels, in_channels / groups · kernel), whose columns are ordered
        as the elements of one kernel are.
    """
    window = op.window
    padding = [amount for pair in reversed(window.pads) for amount in pair]
    if any(padding):
        mode = "constant" if window.pad_mode == "zeros" else window.pad_mode
        x = functional.pad(x, padding, mode=mode)
    for axis, (k, s, d) in enumerate(
        zip(window.kernel, window.stride, window.dilation, strict=True), start=2
    ):
        x = x.unfold(axis, d * (k - 1) + 1, s)[..., ::d]
    n = op.ndim
    # (batch, groups, channels, *pixels, *kernel)
    x = x.reshape(len(x), op.groups, -1, *x.shape[2:])
    pixels, kernel = range(3, 3 + n), range(3 + n, 3 + 2 * n)
    columns = op.in_channels // op.groups * prod(op.kernel)
    x = x.permute(1, 0, *pixels, 2, *kernel)
    if step > 1:
        size = x.shape[2 : 2 + n]
        every = torch.arange(0, prod(size), step, device=x.device)
        index: tuple[Any, ...] = (slice(None), slice(None), *torch.unravel_index(every, size))
        x = x[index]
    return x.reshape(op.groups, -1, columns)


def pixels(y: Tensor, groups: int, step: int = 1) -> Tensor:
    """Return outputs (batch, channels, *size) as (groups, batch · used pixels, channels / groups).

    The pixels are those of :func:`patches`.
    """
    split = y.reshape(len(y), groups, y.shape[1] // groups, prod(y.shape[2:]))[..., ::step]
    return split.permute(1, 0, 3, 2).flatten(1, 2)


def grouped(weight: Tensor, op: LinearOp) -> Tensor:
    """Return a kernel as (groups, out_channels / groups, elements of one filter), in float64."""
    shape = (op.groups, op.out_channels // op.groups, -1)
    return weight.detach().to(torch.float64).reshape(shape)


def linear_map(weight: Tensor, bias: Tensor | None, op: LinearOp) -> tuple[Tensor, Tensor]:
    """Return what a convolution makes of patches, in float64.

    Returns:
        Kernels (groups, out_channels / groups, elements of one filter), and bias (groups,
        out_channels / groups).
    """
    kernels = grouped(weight, op)
    if bias is None:
        return kernels, kernels.new_zeros(kernels.shape[:2])
    return kernels, grouped(bias, op)[:, :, 0]


def seen_through(basis: Tensor, rows: Tensor) -> Tensor:
    """Return rows over patches as rows over patches of fewer channels.

    Args:
        basis: (groups, channels, fewer).
        rows: (groups, n, channels · taps).
    """
    split = rows.reshape(*rows.shape[:2], basis.shape[1], -1)
    seen: Tensor = (split.mT @ basis[:, None]).mT.flatten(2)
    return seen
