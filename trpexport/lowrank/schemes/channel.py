"""Channel-wise decomposition: R full kernels, then a 1x1 convolution that mixes them."""

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


class Channel(MatrixScheme):
    """The kernel as an out x (in·kh·kw) matrix: ``W = N C`` (TRP, arXiv 2004.14566, section 3.1).

    Zhang et al., "Accelerating Very Deep Convolutional Networks for Classification and Detection"
    (arXiv 1505.06798), equation 2. C becomes R filters of the original's kernel, stride, padding
    and dilation; N becomes a 1x1 convolution to the original's channels. A grouped convolution is
    one such matrix a group, and both factors keep the groups.
    """

    name = "channel"

    def matrix_shape(self, conv: ConvSpec) -> tuple[int, int, int]:
        """Return (groups, out / groups, in / groups · kernel)."""
        g = conv.groups
        return g, conv.out_channels // g, conv.in_channels // g * prod(conv.kernel_size)

    def factor_specs(self, conv: ConvSpec, rank: int) -> tuple[ConvSpec, ...]:
        """Return in -> R·groups with the original geometry, then R·groups -> out, 1x1."""
        pointwise = restrict(conv, [False] * conv.ndim)
        middle = rank * conv.groups
        return (
            replace(conv, out_channels=middle, bias=False),
            replace(pointwise, in_channels=middle),
        )

    def factor_weights(self, left: Tensor, right: Tensor, conv: ConvSpec) -> tuple[Tensor, ...]:
        """Fold C = right into R filters a group, and N = left into a 1x1 kernel."""
        rank = right.shape[1]
        first = right.reshape(
            conv.groups * rank, conv.in_channels // conv.groups, *conv.kernel_size
        )
        second = left.reshape(conv.out_channels, rank, *[1] * conv.ndim)
        return first, second

    def matrices_of(self, weights: Sequence[Tensor], conv: ConvSpec) -> tuple[Tensor, Tensor]:
        """Return (N, C), one pair a group."""
        first, second = weights
        groups, rows, columns = self.matrix_shape(conv)
        return second.reshape(groups, rows, -1), first.reshape(groups, -1, columns)


SCHEMES.register(Channel.name, Channel())
