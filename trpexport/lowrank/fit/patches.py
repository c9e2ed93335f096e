"""A linear operator as a matrix product: the pixels that each output sees, one row an output."""

from __future__ import annotations

from dataclasses import replace
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from trpexport.ops import LinearOp, Window


def patches(x: Tensor, op: LinearOp, step: int = 1) -> Tensor:
    """Return what ``op`` multiplies its kernels with.

    Args:
        x: input (batch, in_channels, *size).
        op: any convolution: stride, dilation, groups and padding of every mode; transposed, or a
            matrix product.
        step: of the output pixels of each image, every so many are used.

    Returns:
        (groups, batch · used pixels, in_channels / groups · kernel), whose columns are ordered
        as the elements of one kernel are.
    """
    if op.window.transposed:
        return patches(_stuffed(x, op), _plain(op), step)[..., _flipped(op)]
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
    if step > 1 and n:
        size = x.shape[2 : 2 + n]
        every = torch.arange(0, prod(size), step, device=x.device)
        index: tuple[Any, ...] = (slice(None), slice(None), *torch.unravel_index(every, size))
        x = x[index]
    return x.reshape(op.groups, -1, columns)


def _stuffed(x: Tensor, op: LinearOp) -> Tensor:
    """Return the input over which a transposed convolution is a plain one of stride 1, unpadded.

    Zeros between its pixels make up for the stride, those around it for the kernel's reach, less
    what is cut off.
    """
    window = op.window
    places = [slice(None), slice(None)]
    places += [slice(None, None, stride) for stride in window.stride]
    spread = [(n - 1) * s + 1 for n, s in zip(x.shape[2:], window.stride, strict=True)]
    stuffed = x.new_zeros(*x.shape[:2], *spread)
    stuffed[tuple(places)] = x
    around = [
        (d * (k - 1) - before, d * (k - 1) - after + more)
        for d, k, (before, after), more in zip(
            window.dilation, window.kernel, window.pads, window.output_pads, strict=True
        )
    ]
    return functional.pad(stuffed, [amount for pair in reversed(around) for amount in pair])


def _plain(op: LinearOp) -> LinearOp:
    window = op.window
    return replace(op, window=Window(window.kernel, dilation=window.dilation))


def _flipped(op: LinearOp) -> Tensor:
    """Return which element of a patch of flipped taps each element of a kernel meets."""
    axes = tuple(range(1, 1 + op.ndim))
    elements = torch.arange(op.in_channels // op.groups * prod(op.kernel))
    return elements.reshape(-1, *op.kernel).flip(axes).flatten()


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
    """Return what a layer makes of patches, in float64.

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
