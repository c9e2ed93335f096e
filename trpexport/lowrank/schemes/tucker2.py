"""Tucker-2 decomposition: 1x1 to R channels, a kernel between R channels, 1x1 to the outputs."""

from __future__ import annotations

from dataclasses import replace
from math import prod

from torch import Tensor

from trpexport.lowrank.schemes import SCHEMES
from trpexport.lowrank.schemes.channel import Channel
from trpexport.lowrank.schemes.input_channel import InputChannel
from trpexport.lowrank.schemes.three_factors import ThreeFactors
from trpexport.ops import LinearOp


class Tucker2(ThreeFactors):
    """The kernel as a core between few channels, and a basis of few channels on either side.

    Kim et al., "Compression of Deep Convolutional Neural Networks for Fast and Low Power Mobile
    Applications" (arXiv 1511.06530), section 3.1, with one rank for both sides. The core has the
    original's kernel, stride, padding and dilation.
    """

    name = "tucker2"
    front = InputChannel()
    behind = Channel()

    def unsupported_reason(self, op: LinearOp) -> str | None:
        """Of a 1x1 kernel the core is a matrix, which the last factor takes up."""
        return "of a 1x1 kernel it is no better than channel" if op.is_pointwise else None

    def split(self, weight: Tensor, op: LinearOp) -> Tensor:
        """Return a kernel as (groups, out / groups, in / groups, kernel)."""
        return weight.reshape(op.groups, *self.sides(op))

    def sides(self, op: LinearOp) -> tuple[int, int, int]:
        """Return (out / groups, in / groups, elements of the kernel)."""
        return op.out_channels // op.groups, op.in_channels // op.groups, prod(op.kernel)

    def op_behind(self, op: LinearOp, inner: int) -> LinearOp:
        """Return the layer with ``inner`` input channels a group."""
        return replace(op, in_channels=inner * op.groups)

    def pair_behind(self, core: Tensor, outputs: Tensor, op: LinearOp) -> tuple[Tensor, ...]:
        """Fold the core into the original's kernel, and the basis into a 1x1 kernel."""
        return self.behind.factor_weights(outputs, core.flatten(2), op)


SCHEMES.register(Tucker2.name, Tucker2())
