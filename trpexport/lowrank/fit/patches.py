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

    def patches(self, x: Tensor, op: LinearOp) -> Tensor:
        """Return what ``op`` multiplies its kernels with for these pixels of its output.

        Args:
            x: input (batch, in_channels, *size).
            op: any convolution: stride, dilation, groups and padding of every mode; transposed, or
                a matrix product.

        Returns:
            (groups, pixels, in_channels / groups · kernel), whose columns are ordered as the
            elements of one kernel are.
        """
        if op.window.transposed:
            return self.patches(_stuffed(x, op), _plain(op))[..., _flipped(op)]
        seen = _windows(x, op)
        size = seen.shape[1 : 1 + op.ndim]
        places = torch.unravel_index(self.places, size) if size else ()
        index = tuple(some.to(x.device) for some in (self.rows, *places))
        return seen[index].reshape(len(self), op.groups, -1).transpose(0, 1)

    def outputs(self, y: Tensor, groups: int) -> Tensor:
        """Return outputs (batch, channels, *size) as (groups, pixels, channels / groups)."""
        rows, places = self.rows.to(y.device), self.places.to(y.device)
        some = y.flatten(2)[rows, :, places] if y.ndim > 2 else y[rows]
        return some.reshape(len(self), groups, y.shape[1] // groups).transpose(0, 1)


def _windows(x: Tensor, op: LinearOp) -> Tensor:
    """Return the input as each output pixel sees it, (batch, *pixels, channels, *kernel): a view.

    Args:
        x: input (batch, in_channels, *size).
        op: any convolution that is not transposed, or a matrix product.
    """
    window, n = op.window, op.ndim
    padding = [amount for pair in reversed(window.pads) for amount in pair]
    if any(padding):
        mode = "constant" if window.pad_mode == "zeros" else window.pad_mode
        x = functional.pad(x, padding, mode=mode)
    for axis, (k, s, d) in enumerate(
        zip(window.kernel, window.stride, window.dilation, strict=True), start=2
    ):
        x = x.unfold(axis, d * (k - 1) + 1, s)[..., ::d]
    return x.permute(0, *range(2, 2 + n), 1, *range(2 + n, 2 + 2 * n))


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
