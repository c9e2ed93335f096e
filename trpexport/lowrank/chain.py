"""What stands in for a layer: two factors or three."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from trpexport.lowrank.schemes import SCHEMES
from trpexport.ops import LinearOp


@dataclass(frozen=True)
class Chain:
    """Operators that one after the other compute what a layer does, or nearly so.

    Attributes:
        op: the layer.
        scheme: name of the scheme that multiplies the factors out.
        ops: the factors, in the order in which they run.
        kernels: one a factor, (out_channels, in_channels / groups, *kernel).
        bias: that of the last factor, (out_channels,), or None.
        is_truncation: whether the factors are the layer's kernel, cut; else they were fitted to
            outputs, or trained.
    """

    op: LinearOp
    scheme: str
    ops: tuple[LinearOp, ...]
    kernels: tuple[Tensor, ...]
    bias: Tensor | None
    is_truncation: bool

    @property
    def product(self) -> Tensor:
        """The dense kernel that the factors stand for, in float64."""
        kernels = [kernel.to(torch.float64) for kernel in self.kernels]
        return SCHEMES[self.scheme].product(kernels, self.op)


def truncated(
    weight: Tensor, bias: Tensor | None, op: LinearOp, *, scheme: str, rank: int
) -> Chain:
    """Return the factors of a layer's kernel, cut to ``rank``.

    Args:
        weight: the kernel.
        bias: the layer's bias, which the last factor takes over.
        op: the layer.
        scheme: name of the scheme.
        rank: at least 1.

    Raises:
        PlanError: the kernel holds NaN or infinity.
    """
    chosen = SCHEMES[scheme]
    return Chain(
        op=op,
        scheme=scheme,
        ops=chosen.factor_ops(op, rank),
        kernels=chosen.truncate(weight, op, rank),
        bias=bias,
        is_truncation=True,
    )
