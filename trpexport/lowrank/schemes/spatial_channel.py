"""Spatial and channel-wise decomposition together: k x 1 to R channels, 1 x k, then 1x1."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from trpexport.lowrank.schemes import SCHEMES
from trpexport.lowrank.schemes.base import restrict
from trpexport.lowrank.schemes.channel import Channel
from trpexport.lowrank.schemes.spatial import LastAxis
from trpexport.lowrank.schemes.three_factors import ThreeFactors
from trpexport.ops import LinearOp


class SpatialChannel(ThreeFactors):
    """The kernel as a core of kw taps between a basis of (in · kh) and one of the outputs.

    Zhang et al., "Accelerating Very Deep Convolutional Networks for Classification and Detection"
    (arXiv 1505.06798), section 3.5 ("asym. 3d"), with one rank for both sides: filters kh x 1 to R
    channels, filters 1 x kw between R channels, 1x1 to the outputs. Each has the original's stride,
    padding and dilation along its own axes.
    """

    name = "spatial-channel"
    front = LastAxis()
    behind = Channel()

    def unsupported_reason(self, op: LinearOp) -> str | None:
        """Of taps along one axis a pair is as good."""
        if sum(taps > 1 for taps in op.kernel) > 1:
            return None
        return "of taps along fewer than two axes it is no better than a pair"

    def split(self, weight: Tensor, op: LinearOp) -> Tensor:
        """Return a kernel as (groups, out / groups, in / groups · kh, kw)."""
        outputs, inputs, taps = self.sides(op)
        matrices = self.front.unfold(weight, op)
        return matrices.reshape(op.groups, inputs, outputs, taps).transpose(1, 2)

    def sides(self, op: LinearOp) -> tuple[int, int, int]:
        """Return (out / groups, in / groups · kh, kw)."""
        _, inputs, columns = self.front.matrix_shape(op)
        outputs = op.out_channels // op.groups
        return outputs, inputs, columns // outputs

    def op_behind(self, op: LinearOp, inner: int) -> LinearOp:
        """Return the layer along the last axis, with ``inner`` input channels a group."""
        return replace(restrict(op, self.front.behind(op)), in_channels=inner * op.groups)

    def pair_behind(self, core: Tensor, outputs: Tensor, op: LinearOp) -> tuple[Tensor, ...]:
        """Fold the core into 1 x kw filters, and the basis into a 1x1 kernel."""
        return self.behind.factor_weights(outputs, core.flatten(2), op)


SCHEMES.register(SpatialChannel.name, SpatialChannel())
