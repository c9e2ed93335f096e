"""Network decoupling: a sum of pointwise-then-depthwise paths."""

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

    def unsupported_reason(self, conv: ConvSpec) -> str | None:
        """A 1x1 kernel is one path already."""
        return "a 1x1 kernel has nothing to decouple" if conv.is_pointwise else None

    def matrix_shape(self, conv: ConvSpec) -> tuple[int, int, int]:
        """Return (out, in / groups, kernel)."""
        return conv.out_channels, conv.in_channels // conv.groups, prod(conv.kernel_size)

    def factor_specs(self, conv: ConvSpec, rank: int) -> tuple[ConvSpec, ...]:
        """Return in -> out·R, 1x1, then out·R -> out with groups=out and the original geometry."""
        pointwise = restrict(conv, [False] * conv.ndim)
        middle = conv.out_channels * rank
        return (
            replace(pointwise, out_channels=middle, bias=False),
            replace(conv, in_channels=middle, groups=conv.out_channels),
        )

    def factor_weights(self, left: Tensor, right: Tensor, conv: ConvSpec) -> tuple[Tensor, ...]:
        """Fold left (out, in, R) into the pointwise, and right (out, R, kernel) into the other."""
        rank = right.shape[1]
        first = left.transpose(1, 2).reshape(conv.out_channels * rank, -1, *[1] * conv.ndim)
        second = right.reshape(conv.out_channels, rank, *conv.kernel_size)
        return first, second

    def matrices_of(self, weights: Sequence[Tensor], conv: ConvSpec) -> tuple[Tensor, Tensor]:
        """Return (pointwise, depthwise), one pair an output filter."""
        first, second = weights
        out, rows, columns = self.matrix_shape(conv)
        return first.reshape(out, -1, rows).transpose(1, 2), second.reshape(out, -1, columns)


SCHEMES.register(Decoupling.name, Decoupling())
