"""Network decoupling: a sum of pointwise-then-depthwise paths."""

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


class Decoupling(MatrixScheme):
    """Each output filter as an in x (kh·kw) matrix, a sum of p rank-1 terms.

    Guo et al., "Network Decoupling: From Regular to Depthwise Separable Convolutions"
    (arXiv 1808.05517), equation 5 (pointwise, then depthwise). The p <= min(in, kh·kw) paths of
    all filters are emitted as one pointwise convolution to out·p channels and one convolution
    with groups=out over the original geometry, whose p input channels a group sum the paths.
    A grouped convolution keeps its groups in the pointwise part.
    """

    name = "decoupling"
    regroups = True

    def unsupported_reason(self, op: LinearOp) -> str | None:
        """A 1x1 kernel is one path already."""
        return "a 1x1 kernel has nothing to decouple" if op.is_pointwise else None

    def matrix_shape(self, op: LinearOp) -> tuple[int, int, int]:
        """Return (out, in / groups, kernel)."""
        return op.out_channels, op.in_channels // op.groups, prod(op.kernel)

    def factor_ops(self, op: LinearOp, rank: int) -> tuple[LinearOp, ...]:
        """Return in -> out·R, 1x1, then out·R -> out with groups=out and the original geometry."""
        pointwise = restrict(op, [False] * op.ndim)
        middle = op.out_channels * rank
        return (
            replace(pointwise, out_channels=middle, bias=False),
            replace(op, in_channels=middle, groups=op.out_channels),
        )

    def factor_weights(self, left: Tensor, right: Tensor, op: LinearOp) -> tuple[Tensor, ...]:
        """Fold left (out, in, R) into the pointwise, and right (out, R, kernel) into the other."""
        rank = right.shape[1]
        first = left.transpose(1, 2).reshape(op.out_channels * rank, -1, *[1] * op.ndim)
        second = right.reshape(op.out_channels, rank, *op.kernel)
        return first, second

    def matrices_of(self, weights: Sequence[Tensor], op: LinearOp) -> tuple[Tensor, Tensor]:
        """Return (pointwise, depthwise), one pair an output filter."""
        first, second = weights
        out, rows, columns = self.matrix_shape(op)
        return first.reshape(out, -1, rows).transpose(1, 2), second.reshape(out, -1, columns)


SCHEMES.register(Decoupling.name, Decoupling())
