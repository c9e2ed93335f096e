"""Input-channel decomposition: a 1x1 convolution to R channels, then full kernels on those."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import prod
from typing import TYPE_CHECKING

from trpexport.lowrank.schemes import SCHEMES
from trpexport.lowrank.schemes.base import MatrixScheme, restrict
from trpexport.plan import ConvSpec

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

    def unsupported_reason(self, conv: ConvSpec) -> str | None:
        """Of a 1x1 kernel the pair is the channel-wise one."""
        return "of a 1x1 kernel it is the same as channel" if conv.is_pointwise else None

    def matrix_shape(self, conv: ConvSpec) -> tuple[int, int, int]:
        """Return (groups, in / groups, out / groups · kernel)."""
        g = conv.groups
        return g, conv.in_channels // g, conv.out_channels // g * prod(conv.kernel_size)

    def unfold(self, weight: Tensor, conv: ConvSpec) -> Tensor:
        """Turn a kernel into one matrix a group: rows in, columns (out, *kernel)."""
        g, rows, _ = self.matrix_shape(conv)
        split = weight.reshape(g, conv.out_channels // g, rows, prod(conv.kernel_size))
        return split.transpose(1, 2).reshape(self.matrix_shape(conv))

    def fold(self, matrices: Tensor, conv: ConvSpec) -> Tensor:
        """Turn the matrices back into a kernel."""
        g, rows, _ = self.matrix_shape(conv)
        split = matrices.reshape(g, rows, conv.out_channels // g, prod(conv.kernel_size))
        return split.transpose(1, 2).reshape(conv.out_channels, rows, *conv.kernel_size)

    def factor_specs(self, conv: ConvSpec, rank: int) -> tuple[ConvSpec, ...]:
        """Return in -> R·groups, 1x1, then R·groups -> out with the original geometry."""
        pointwise = restrict(conv, [False] * conv.ndim)
        middle = rank * conv.groups
        return (
            replace(pointwise, out_channels=middle, bias=False),
            replace(conv, in_channels=middle),
        )

    def factor_weights(self, left: Tensor, right: Tensor, conv: ConvSpec) -> tuple[Tensor, ...]:
        """Fold left (groups, in, R) into the 1x1 kernel, and right into the other."""
        g, rank = conv.groups, right.shape[1]
        first = left.transpose(1, 2).reshape(g * rank, -1, *[1] * conv.ndim)
        split = right.reshape(g, rank, conv.out_channels // g, prod(conv.kernel_size))
        second = split.transpose(1, 2).reshape(conv.out_channels, rank, *conv.kernel_size)
        return first, second

    def matrices_of(self, weights: Sequence[Tensor], conv: ConvSpec) -> tuple[Tensor, Tensor]:
        """Return (left, right), one pair a group."""
        first, second = weights
        g, rows, columns = self.matrix_shape(conv)
        split = second.reshape(g, conv.out_channels // g, -1, prod(conv.kernel_size))
        return first.reshape(g, -1, rows).transpose(1, 2), split.transpose(1, 2).reshape(
            g, -1, columns
        )


SCHEMES.register(InputChannel.name, InputChannel())
