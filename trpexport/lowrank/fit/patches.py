"""A linear operator as a matrix product: the pixels that each output sees, one row an output."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import prod

import torch
from torch import Tensor
from torch.nn import functional

from trpexport.ops import LinearOp, Window


@dataclass(frozen=True)
class Pixels:
    """Some output pixels of a batch.

    Attributes:
        rows: which row of the batch each is of, (pixels,).
        places: which pixel of that row, counted along the last axis first, (pixels,).
    """

    rows: Tensor
    places: Tensor

    def __len__(self) -> int:
        return len(self.rows)

    def split(self, count: int) -> Iterator[Pixels]:
        """Yield them, ``count`` at a time."""
        for start in range(0, len(self), count):
            some = slice(start, start + count)
            yield Pixels(self.rows[some], self.places[some])

    def outputs(self, y: Tensor, groups: int) -> Tensor:
        """Return outputs (batch, channels, *size) as (groups, pixels, channels / groups)."""
        rows, places = self.rows.to(y.device), self.places.to(y.device)
        some = y.flatten(2)[rows, :, places] if y.ndim > 2 else y[rows]
        return some.reshape(len(self), groups, y.shape[1] // groups).transpose(0, 1)


class Patches:
    """What an operator multiplies its kernels with, for each pixel of its output.

    The elements of a patch are ordered by tap, then by channel: so they lie in memory, where what
    a tap sees is one piece to copy. :func:`kernel_order` tells where those of a kernel are.

    Args:
        x: input (batch, in_channels, *size).
        op: any convolution: stride, dilation, groups and padding of every mode; transposed, or a
            matrix product.
    """

    def __init__(self, x: Tensor, op: LinearOp) -> None:
        if op.window.transposed:
            x, op = _stuffed(x, op), _plain(op)
        window = op.window
        padding = [amount for pair in reversed(window.pads) for amount in pair]
        x = x.movedim(1, -1).contiguous().movedim(-1, 1)  # padding leaves the channels last
        if any(padding):
            mode = "constant" if window.pad_mode == "zeros" else window.pad_mode
            x = functional.pad(x, padding, mode=mode)
        size = x.shape[2:]
        self._channels = x.movedim(1, -1).reshape(-1, op.groups, x.shape[1] // op.groups)
        # How far apart neighbours along each axis are, the rows of the batch first.
        self._steps = [prod(size[axis:]) for axis in range(op.ndim + 1)]
        self._strides = window.stride
        self._taps = torch.zeros(1, dtype=torch.long)
        for step, taps, dilation in zip(
            self._steps[1:], window.kernel, window.dilation, strict=True
        ):
            self._taps = (self._taps[:, None] + torch.arange(taps) * (dilation * step)).flatten()
        self._size = [
            (n - d * (k - 1) - 1) // s + 1
            for n, k, d, s in zip(size, window.kernel, window.dilation, window.stride, strict=True)
        ]

    def at(self, pixels: Pixels) -> Tensor:
        """Return the patches of some output pixels, (groups, pixels, elements)."""
        places = torch.unravel_index(pixels.places, self._size) if self._size else ()
        first = pixels.rows * self._steps[0]
        for place, step, stride in zip(places, self._steps[1:], self._strides, strict=True):
            first = first + place * (step * stride)
        index = (first[:, None] + self._taps).flatten().to(self._channels.device)
        some = self._channels.index_select(0, index)
        some = some.reshape(len(pixels), len(self._taps), *some.shape[1:])
        patches: Tensor = some.permute(2, 0, 1, 3).flatten(2)
        return patches


def kernel_order(op: LinearOp) -> Tensor:
    """Return which element of a patch each element of a kernel is multiplied with."""
    channels = op.in_channels // op.groups
    elements = torch.arange(channels * prod(op.kernel)).reshape(*op.kernel, channels)
    if op.window.transposed:
        elements = elements.flip(tuple(range(op.ndim)))
    return elements.movedim(-1, 0).flatten()


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
