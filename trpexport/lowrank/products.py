"""Products of rows with rows, as fast as the processor multiplies."""

from __future__ import annotations

import torch
from torch import Tensor

# Edge of the blocks of a symmetric product: the smaller, the less is formed twice. All but the last
# are of one shape, for which oneDNN makes one program.
_BLOCK = 256


def row_products(left: Tensor, right: Tensor) -> Tensor:
    """Return the products of rows with rows, (batch, n, m), in their own precision.

    In float32 oneDNN multiplies on a CPU: MKL takes half as long as itself where it finds that the
    processor is Intel's, and AVX2 on any other.

    Args:
        left: (batch, n, elements).
        right: (batch, m, elements).
    """
    is_for_onednn = len(left) == 1 and left.dtype == torch.float32 and left.device.type == "cpu"
    is_empty = not (left.numel() and right.numel())
    if is_empty or not is_for_onednn or not _has_onednn():
        return left @ right.mT
    # Rows that do not lie one behind the other are multiplied a hundred times as slowly.
    rows = (left[0].contiguous(), right[0].contiguous())
    # What torch.compile makes of a linear layer.
    products: Tensor = torch.ops.mkldnn._linear_pointwise(*rows, None, "none", [], "")
    return products[None]


def _has_onednn() -> bool:
    return bool(torch.backends.mkldnn.is_available())  # type: ignore[no-untyped-call]


def add_square(total: Tensor, some: Tensor) -> None:
    """Add the products of rows with each other, but for blocks of the sum below its diagonal.

    Args:
        total: (batch, rows, rows), which is added to.
        some: (batch, rows, elements), multiplied in their own precision.
    """
    parts = torch.split(some, _BLOCK, dim=1)
    blocks = [torch.split(rows, _BLOCK, dim=2) for rows in torch.split(total, _BLOCK, dim=1)]
    for row, left in enumerate(parts):
        for column in range(row, len(parts)):
            blocks[row][column].add_(row_products(left, parts[column]))


def fill_square(total: Tensor) -> None:
    """Fill in the blocks that :func:`add_square` leaves out."""
    for start in range(_BLOCK, total.shape[2], _BLOCK):
        rows = slice(start, start + _BLOCK)
        total[:, rows, :start] = total[:, :start, rows].mT
