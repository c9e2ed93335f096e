"""Input-channel decomposition: a 1x1 convolution to R channels, then full kernels on those."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import prod
from typing import TYPE_CHECKING

from trpexport.lowrank.schemes import SCHEMES
from trpexport.lowrank.schemes.base import MatrixScheme, restrict
from trpexport.ops import LinearOp

if TYPE_CHECKING:
    from torch import Tensor


class InputChannel(MatrixScheme):
    """The kernel as an in x (out·kh·kw) matrix: the mirror image of channel-wise pairs.

    One-sided Tucker decomposition over the input channels (Kim et al., "Compression of Deep
    Convolutional Neural Networks for Fast and Low Power Mobile Applications", arXiv 1511.06530,
    section 3.1). It is cheaper than channel-wise where a layer has more inputs than outputs, and
    closer where its inputs are the more redundant side. The 1x1 convolution has no bias, so that
    padding behind it is the same as before it, in every padding mode.
    """

    name = "input-channel"

    def unsupported_reason(self, op: LinearOp) -> str | None:
        """Of a 1x1 kernel the pair is the channel-wise one."""
        return "of a 1x1 kernel it is the same as channel" if op.is_pointwise else None

    def matrix_shape(self, op: LinearOp) -> tuple[int, int, int]:
        """Return (groups, in / groups, out / groups · kernel)."""
        g = op.groups
        return g, op.in_channels // g, op.out_channels // g * prod(op.kernel)

    def unfold(self, weight: Tensor, op: LinearOp) -> Tensor:
        """Turn a kernel into one matrix a group: rows in, columns (out, *kernel)."""
        g, rows, _ = self.matrix_shape(op)
        split = weight.reshape(g, op.out_channels // g, rows, prod(op.kernel))
        return split.transpose(1, 2).reshape(self.matrix_shape(op))

    def fold(self, matrices: Tensor, op: LinearOp) -> Tensor:
        """Turn the matrices back into a kernel."""
        g, rows, _ = self.matrix_shape(op)
        split = matrices.reshape(g, rows, op.out_channels // g, prod(op.kernel))
        return split.transpose(1, 2).reshape(op.out_channels, rows, *op.kernel)

    def factor_ops(self, op: LinearOp, rank: int) -> tuple[LinearOp, ...]:
        """Return in -> R·groups, 1x1, then R·groups -> out with the original geometry."""
        pointwise = restrict(op, [False] * op.ndim)
        middle = rank * op.groups
        return (
            replace(pointwise, out_channels=middle, bias=False),
            replace(op, in_channels=middle),
        )

    def factor_weights(self, left: Tensor, right: Tensor, op: LinearOp) -> tuple[Tensor, ...]:
        """Fold left (groups, in, R) into the 1x1 kernel, and right into the other."""
        g, rank = op.groups, right.shape[1]
        first = left.transpose(1, 2).reshape(g * rank, -1, *[1] * op.ndim)
        split = right.reshape(g, rank, op.out_channels // g, prod(op.kernel))
        second = split.transpose(1, 2).reshape(op.out_channels, rank, *op.kernel)
        return first, second

    def matrices_of(self, weights: Sequence[Tensor], op: LinearOp) -> tuple[Tensor, Tensor]:
        """Return (left, right), one pair a group."""
        first, second = weights
        g, rows, columns = self.matrix_shape(op)
        split = second.reshape(g, op.out_channels // g, -1, prod(op.kernel))
        return first.reshape(g, -1, rows).transpose(1, 2), split.transpose(1, 2).reshape(
            g, -1, columns
        )


SCHEMES.register(InputChannel.name, InputChannel())
