"""Tucker-2 decomposition: 1x1 to R channels, a kernel between R channels, 1x1 to the outputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import prod

import torch
from torch import Tensor

from trpexport.lowrank.schemes import SCHEMES
from trpexport.lowrank.schemes.base import Scheme, restrict
from trpexport.lowrank.spectrum import svd
from trpexport.ops import LinearOp

# Alternations end when one adds less than this share of the energy.
_CONVERGED = 1e-9
_MOST_ALTERNATIONS = 50


class Tucker2(Scheme):
    """The kernel as a core between few channels, and a basis of few channels on either side.

    Kim et al., "Compression of Deep Convolutional Neural Networks for Fast and Low Power Mobile
    Applications" (arXiv 1511.06530), section 3.1, with one rank for both sides: a side that has
    fewer channels than R keeps them all. The factors are found by higher-order orthogonal iteration
    (De Lathauwer, De Moor and Vandewalle, "On the best rank-1 and rank-(R1, R2, ..., RN)
    approximation of higher-order tensors", 2000). A grouped convolution keeps its groups in all
    three, with R channels a group.
    """

    name = "tucker2"

    def unsupported_reason(self, op: LinearOp) -> str | None:
        """Of a 1x1 kernel the core is a matrix, which the last factor takes up."""
        return "of a 1x1 kernel it is no better than channel" if op.is_pointwise else None

    def full_rank(self, op: LinearOp) -> int:
        """Return the larger of the full ranks of both sides."""
        return max(_full_ranks(op))

    def ranks(self, op: LinearOp, rank: int) -> tuple[int, int]:
        """Return how many channels a group there are on the side of the inputs and the outputs."""
        inner, outer = _full_ranks(op)
        return min(rank, inner), min(rank, outer)

    def factor_ops(self, op: LinearOp, rank: int) -> tuple[LinearOp, ...]:
        """Return in -> R·groups, 1x1, the core with the original geometry, R·groups -> out, 1x1."""
        inner, outer = (side * op.groups for side in self.ranks(op, rank))
        pointwise = restrict(op, [False] * op.ndim)
        return (
            replace(pointwise, out_channels=inner, bias=False),
            replace(op, in_channels=inner, out_channels=outer, bias=False),
            replace(pointwise, in_channels=outer),
        )

    def spectrum(self, weight: Tensor, op: LinearOp) -> Tensor:
        """Return what each rank adds to the core of the higher-order SVD, (groups, full rank).

        That is the exact error of its truncation; iteration can only lower it.
        """
        kernel = _split(weight, op)
        core = _onto(_basis(kernel), kernel).transpose(1, 2)
        core = _onto(_basis(kernel.transpose(1, 2)), core)
        sums = core.square().sum(3).cumsum(1).cumsum(2)
        places = torch.arange(self.full_rank(op))
        held = sums[:, places.clamp(max=sums.shape[1] - 1), places.clamp(max=sums.shape[2] - 1)]
        return held.diff(dim=1, prepend=held.new_zeros(len(held), 1)).clamp_min(0).sqrt()

    def truncate(self, weight: Tensor, op: LinearOp, rank: int) -> tuple[Tensor, ...]:
        """Return the factors that higher-order orthogonal iteration ends at, of equal norms."""
        kernel = _split(weight, op)
        inner, outer = self.ranks(op, rank)
        inputs = _basis(kernel.transpose(1, 2))[:, :, :inner]
        before = 0.0
        for _ in range(_MOST_ALTERNATIONS):
            seen = _onto(inputs, kernel.transpose(1, 2)).transpose(1, 2)
            outputs = _basis(seen)[:, :, :outer]
            seen = _onto(outputs, kernel).transpose(1, 2)
            inputs = _basis(seen)[:, :, :inner]
            core = _onto(inputs, seen).transpose(1, 2)
            energy = float(core.square().sum())
            if energy - before <= _CONVERGED * energy:
                break
            before = energy
        return self.weights(inputs, core, outputs, op)

    def weights(
        self, inputs: Tensor, core: Tensor, outputs: Tensor, op: LinearOp
    ) -> tuple[Tensor, ...]:
        """Fold bases and core into the kernels of the factors, of equal norms.

        Args:
            inputs: (groups, in / groups, R).
            core: (groups, R, R, kernel), outputs first.
            outputs: (groups, out / groups, R).
            op: the convolution.
        """
        ones = [1] * op.ndim
        kernels = (
            inputs.mT.reshape(-1, inputs.shape[1], *ones),
            core.reshape(-1, core.shape[2], *op.kernel),
            outputs.reshape(op.out_channels, -1, *ones),
        )
        norms = [float(kernel.norm()) for kernel in kernels]
        mean = prod(norms) ** (1 / 3)
        if not mean:
            return kernels
        return tuple(kernel * (mean / norm) for kernel, norm in zip(kernels, norms, strict=True))

    def product(self, weights: Sequence[Tensor], op: LinearOp) -> Tensor:
        """Return the dense kernel that the factors with these kernels stand for."""
        first, core, last = weights
        g = op.groups
        inputs = first.reshape(g, -1, op.in_channels // g)
        outputs = last.reshape(g, op.out_channels // g, -1)
        middle = core.reshape(g, outputs.shape[2], inputs.shape[1], -1)
        dense = outputs @ (middle.mT @ inputs[:, None]).mT.flatten(2)
        return dense.reshape(op.out_channels, op.in_channels // g, *op.kernel)


def _full_ranks(op: LinearOp) -> tuple[int, int]:
    """Return the full ranks of both sides: inputs, outputs."""
    inner, outer = op.in_channels // op.groups, op.out_channels // op.groups
    taps = prod(op.kernel)
    return min(inner, outer * taps), min(outer, inner * taps)


def _split(weight: Tensor, op: LinearOp) -> Tensor:
    """Return a kernel as (groups, out / groups, in / groups, kernel), in float64."""
    shape = (op.groups, op.out_channels // op.groups, op.in_channels // op.groups, -1)
    return weight.detach().to(torch.float64).reshape(shape)


def _basis(kernel: Tensor) -> Tensor:
    """Return an orthonormal basis of the first channels of (groups, channels, ...), best first."""
    basis: Tensor = torch.linalg.qr(svd(kernel.flatten(2)).left)[0]
    return basis


def _onto(basis: Tensor, kernel: Tensor) -> Tensor:
    """Return a kernel (groups, n, ...) in a basis (groups, n, R): (groups, R, ...)."""
    return (basis.mT @ kernel.flatten(2)).reshape(len(kernel), -1, *kernel.shape[2:])


SCHEMES.register(Tucker2.name, Tucker2())
