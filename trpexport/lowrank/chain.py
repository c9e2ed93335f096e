"""What stands in for a layer: two factors or three."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from trpexport.lowrank.schemes import SCHEMES, MatrixScheme
from trpexport.lowrank.spectrum import Basis
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

    def distance(self, kernel: Tensor) -> float:
        """Return the squared distance of the product from a kernel, relative to that's square.

        Of a kernel of zeros it is 0, or 1 where the product is something else.
        """
        # In place: one of 25088 x 4096 takes 800 MB in float64.
        square = float(self.product.sub_(kernel).square_().sum())
        whole = float(torch.linalg.vector_norm(kernel, dtype=torch.float64)) ** 2
        return square / whole if whole else float(square > 0)


def moved(chains: Mapping[str, Chain], device: torch.device) -> dict[str, Chain]:
    """Return chains whose tensors are on a device; those that share a kernel share it there."""
    kernels = {id(one): one.to(device) for chain in chains.values() for one in chain.kernels}
    return {
        name: replace(
            chain,
            kernels=tuple(kernels[id(one)] for one in chain.kernels),
            bias=None if chain.bias is None else chain.bias.to(device),
        )
        for name, chain in chains.items()
    }


def truncated(
    weight: Tensor,
    bias: Tensor | None,
    op: LinearOp,
    *,
    scheme: str,
    rank: int,
    basis: Basis | None = None,
) -> Chain:
    """Return the factors of a layer's kernel, cut to ``rank``.

    Args:
        weight: the kernel.
        bias: the layer's bias, which the last factor takes over.
        op: the layer.
        scheme: name of the scheme.
        rank: at least 1.
        basis: of the unfolded kernel, where it is known.

    Raises:
        PlanError: the kernel holds NaN or infinity.
    """
    chosen = SCHEMES[scheme]
    form = chosen.form(op)
    if basis is not None and isinstance(form, MatrixScheme):
        kernels = form.truncate_by(basis, weight, op, rank)
    else:
        kernels = chosen.truncate(weight, op, rank)
    return Chain(
        op=op,
        scheme=scheme,
        ops=chosen.factor_ops(op, rank),
        kernels=kernels,
        bias=bias,
        is_truncation=True,
    )
