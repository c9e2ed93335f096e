"""Spatial-wise decomposition: a vertical convolution, then a horizontal one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from trpexport.lowrank.schemes import SCHEMES
from trpexport.lowrank.schemes.base import MatrixScheme, restrict
from trpexport.ops import LinearOp

if TYPE_CHECKING:
    from torch import Tensor


class Spatial(MatrixScheme):
    """The kernel as an (in·kh) x (out·kw) matrix: ``W = V H`` (TRP, arXiv 2004.14566, section 3.1).

    Jaderberg et al., "Speeding up Convolutional Neural Networks with Low Rank Expansions"
    (arXiv 1405.3866), scheme 2. V becomes R filters kh x 1 with the vertical stride, padding and
    dilation; H becomes filters 1 x kw with the horizontal ones. Padding acts on rows and columns
    independently in every padding mode, so each factor pads its own dimension. A kernel one
    column wide has no horizontal pass: the first factor then takes the horizontal stride and
    padding as well, which is the same function at fewer MACs.
    """

    name = "spatial"

    def unsupported_reason(self, op: LinearOp) -> str | None:
        """Only images have rows and columns."""
        return None if op.ndim == 2 else f"spatial pairs need a 2-D convolution, not {op.ndim}-D"

    def matrix_shape(self, op: LinearOp) -> tuple[int, int, int]:
        """Return (groups, in / groups · kh, out / groups · kw)."""
        (kh, kw), g = op.kernel, op.groups
        return g, op.in_channels // g * kh, op.out_channels // g * kw

    def unfold(self, weight: Tensor, op: LinearOp) -> Tensor:
        """Turn a kernel into one matrix a group: rows (in, kh), columns (out, kw)."""
        split = weight.reshape(op.groups, -1, *weight.shape[1:])
        return split.permute(0, 2, 3, 1, 4).reshape(self.matrix_shape(op))

    def fold(self, matrices: Tensor, op: LinearOp) -> Tensor:
        """Turn the matrices back into a kernel."""
        (kh, kw), g = op.kernel, op.groups
        split = matrices.reshape(g, op.in_channels // g, kh, op.out_channels // g, kw)
        return split.permute(0, 3, 1, 2, 4).reshape(op.out_channels, -1, kh, kw)

    def factor_ops(self, op: LinearOp, rank: int) -> tuple[LinearOp, ...]:
        """Return in -> R·groups with a kh x 1 kernel, then R·groups -> out with a 1 x kw kernel."""
        has_columns = op.kernel[1] > 1
        vertical = restrict(op, [True, not has_columns])
        horizontal = restrict(op, [False, has_columns])
        middle = rank * op.groups
        return (
            replace(vertical, out_channels=middle, bias=False),
            replace(horizontal, in_channels=middle),
        )

    def factor_weights(self, left: Tensor, right: Tensor, op: LinearOp) -> tuple[Tensor, ...]:
        """Fold V = left into kh x 1 filters, and H = right into 1 x kw filters."""
        (kh, kw), g, rank = op.kernel, op.groups, right.shape[1]
        first = left.reshape(g, -1, kh, rank).permute(0, 3, 1, 2)
        second = right.reshape(g, rank, -1, kw).permute(0, 2, 1, 3)
        return (
            first.reshape(g * rank, -1, kh, 1),
            second.reshape(op.out_channels, rank, 1, kw),
        )

    def matrices_of(self, weights: Sequence[Tensor], op: LinearOp) -> tuple[Tensor, Tensor]:
        """Return (V, H), one pair a group."""
        first, second = weights
        (kh, kw), (g, rows, columns) = op.kernel, self.matrix_shape(op)
        left = first.reshape(g, -1, rows // kh, kh).permute(0, 2, 3, 1)
        right = second.reshape(g, columns // kw, -1, kw).permute(0, 2, 1, 3)
        return left.reshape(g, rows, -1), right.reshape(g, -1, columns)


SCHEMES.register(Spatial.name, Spatial())
