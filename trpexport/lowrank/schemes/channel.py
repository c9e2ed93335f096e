"""Channel-wise decomposition: R full kernels, then a 1x1 convolution that mixes them."""

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


class Channel(MatrixScheme):
    """The kernel as an out x (in·kh·kw) matrix: ``W = N C`` (TRP, arXiv 2004.14566, section 3.1).

    Zhang et al., "Accelerating Very Deep Convolutional Networks for Classification and Detection"
    (arXiv 1505.06798), equation 2. C becomes R filters of the original's kernel, stride, padding
    and dilation; N becomes a 1x1 convolution to the original's channels. A grouped convolution is
    one such matrix a group, and both factors keep the groups.
    """

    name = "channel"

    def matrix_shape(self, op: LinearOp) -> tuple[int, int, int]:
        """Return (groups, out / groups, in / groups · kernel)."""
        g = op.groups
        return g, op.out_channels // g, op.in_channels // g * prod(op.kernel)

    def factor_ops(self, op: LinearOp, rank: int) -> tuple[LinearOp, ...]:
        """Return in -> R·groups with the original geometry, then R·groups -> out, 1x1."""
        pointwise = restrict(op, [False] * op.ndim)
        middle = rank * op.groups
        return (
            replace(op, out_channels=middle, bias=False),
            replace(pointwise, in_channels=middle),
        )

    def factor_weights(self, left: Tensor, right: Tensor, op: LinearOp) -> tuple[Tensor, ...]:
        """Fold C = right into R filters a group, and N = left into a 1x1 kernel."""
        rank = right.shape[1]
        first = right.reshape(op.groups * rank, op.in_channels // op.groups, *op.kernel)
        second = left.reshape(op.out_channels, rank, *[1] * op.ndim)
        return first, second

    def matrices_of(self, weights: Sequence[Tensor], op: LinearOp) -> tuple[Tensor, Tensor]:
        """Return (N, C), one pair a group."""
        first, second = weights
        groups, rows, columns = self.matrix_shape(op)
        return second.reshape(groups, rows, -1), first.reshape(groups, -1, columns)


SCHEMES.register(Channel.name, Channel())
