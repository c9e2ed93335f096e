"""Modules whose kernels hang on the size of their input, written so that a file may leave it open.

The exporters write an adaptive pooling as a plain one, with the kernel that fits the size of one
example: at another size the file would give another number of pixels, or none at all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

_POOLS = (nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d)


def size_free_forwards(model: nn.Module) -> dict[nn.Module, Callable[..., Tensor]]:
    """Return by module another forward that computes the same at any size, in a file as well.

    Of poolings to one pixel there is none: those are means, in files too.
    """
    found: dict[nn.Module, Callable[..., Tensor]] = {}
    for module in model.modules():
        if isinstance(module, _POOLS):
            axes = _POOLS.index(type(module)) + 1 if type(module) in _POOLS else 0
            size = module.output_size
            sizes = (size,) * axes if not isinstance(size, tuple | list) else tuple(size)
            if axes and set(sizes) != {1}:
                found[module] = _averaging(sizes)
    return found


def _averaging(sizes: Sequence[int | None]) -> Callable[[Tensor], Tensor]:
    """Return what averages the last axes of a tensor to ``sizes``; None leaves one as it is.

    A product with a matrix for each axis: row i of n averages the pixels from ``floor(i size / n)``
    to below ``ceil((i + 1) size / n)``, as PyTorch does.
    """

    def forward(input: Tensor) -> Tensor:  # noqa: A002 - as the modules call it
        x, last = input, input.ndim - 1
        for axis, count in enumerate(sizes, start=input.ndim - len(sizes)):
            if count is None:
                continue
            size = x.shape[axis]
            pixels = torch.arange(size, device=x.device)[:, None]
            rows = torch.arange(count, device=x.device)
            first, end = rows * size // count, ((rows + 1) * size + count - 1) // count
            weights = ((pixels >= first) & (pixels < end)).to(x.dtype) / (end - first)
            x = (x.transpose(axis, last) @ weights).transpose(axis, last)
        return x

    return forward
