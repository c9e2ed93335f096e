"""Chains of three factors: a core between two bases, found by alternating between these."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from math import prod
from typing import ClassVar

import torch
from torch import Tensor

from trpexport.lowrank.schemes.base import MatrixScheme, Scheme
from trpexport.lowrank.spectrum import svd
from trpexport.ops import LinearOp

# Alternations end when one adds less than this share of the energy.
_CONVERGED = 1e-9
_MOST_ALTERNATIONS = 50


class ThreeFactors(Scheme):
    """A scheme that sees a kernel as (outputs, inputs, taps) and cuts the first two.

    One rank for both sides: a side that has fewer than R keeps them all. The factors are found by
    higher-order orthogonal iteration (De Lathauwer, De Moor and Vandewalle, "On the best rank-1 and
    rank-(R1, R2, ..., RN) approximation of higher-order tensors", 2000). A grouped convolution
    keeps its groups in all three, with R channels a group.

    Attributes:
        front: the pair whose first factor is that of the chain.
        behind: the pair that the other two factors are, of what the first one gives.
    """

    front: ClassVar[MatrixScheme]
    behind: ClassVar[MatrixScheme]

    @abstractmethod
    def split(self, weight: Tensor, op: LinearOp) -> Tensor:
        """Return a kernel as (groups, outputs, inputs, taps)."""

    @abstractmethod
    def sides(self, op: LinearOp) -> tuple[int, int, int]:
        """Return how many outputs, inputs and taps there are, of one group."""

    @abstractmethod
    def op_behind(self, op: LinearOp, inner: int) -> LinearOp:
        """Return the layer that the last two factors stand for, of ``inner`` channels a group."""

    @abstractmethod
    def pair_behind(self, core: Tensor, outputs: Tensor, op: LinearOp) -> tuple[Tensor, ...]:
        """Fold a core and a basis into the kernels of the last two factors.

        Args:
            core: (groups, R, R, taps), outputs first.
            outputs: (groups, outputs, R).
            op: the layer that they stand for.
        """

    def full_ranks(self, op: LinearOp) -> tuple[int, int]:
        """Return the full ranks of both sides: inputs, outputs."""
        outer, inner, taps = self.sides(op)
        return min(inner, outer * taps), min(outer, inner * taps)

    def full_rank(self, op: LinearOp) -> int:
        """Return the larger of the full ranks of both sides."""
        return max(self.full_ranks(op))

    def ranks(self, op: LinearOp, rank: int) -> tuple[int, int]:
        """Return how many channels a group there are on the side of the inputs and the outputs."""
        inner, outer = self.full_ranks(op)
        return min(rank, inner), min(rank, outer)

    def factor_ops(self, op: LinearOp, rank: int) -> tuple[LinearOp, ...]:
        """Return the first factor of the pair in front, and both of the pair behind it."""
        inner, outer = self.ranks(op, rank)
        first, _ = self.front.factor_ops(op, inner)
        return (first, *self.behind.factor_ops(self.op_behind(op, inner), outer))

    def spectrum(self, weight: Tensor, op: LinearOp) -> Tensor:
        """Return what each rank adds to the core of the higher-order SVD, (groups, full rank).

        That is the exact error of its truncation; iteration can only lower it.
        """
        kernel = self._doubled(weight, op)
        core = _onto(_basis(kernel), kernel).transpose(1, 2)
        core = _onto(_basis(kernel.transpose(1, 2)), core)
        sums = core.square().sum(3).cumsum(1).cumsum(2)
        places = torch.arange(self.full_rank(op))
        held = sums[:, places.clamp(max=sums.shape[1] - 1), places.clamp(max=sums.shape[2] - 1)]
        return held.diff(dim=1, prepend=held.new_zeros(len(held), 1)).clamp_min(0).sqrt()

    def truncate(self, weight: Tensor, op: LinearOp, rank: int) -> tuple[Tensor, ...]:
        """Return the factors that higher-order orthogonal iteration ends at, of equal norms."""
        kernel = self._doubled(weight, op)
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
        pair = self.pair_behind(core, outputs, self.op_behind(op, inner))
        return self.weights(inputs, pair, op)

    def weights(self, inputs: Tensor, pair: Sequence[Tensor], op: LinearOp) -> tuple[Tensor, ...]:
        """Return the kernels of the factors, of equal norms.

        Args:
            inputs: what the first factor gives, (groups, inputs, R).
            pair: kernels of the other two.
            op: the layer.
        """
        first, _ = self.front.factor_ops(op, inputs.shape[2])
        shape = (first.out_channels, first.in_channels // first.groups, *first.kernel)
        kernels = (inputs.mT.reshape(shape), *pair)
        norms = [float(kernel.norm()) for kernel in kernels]
        mean = prod(norms) ** (1 / 3)
        if not mean:
            return kernels
        return tuple(kernel * (mean / norm) for kernel, norm in zip(kernels, norms, strict=True))

    def product(self, weights: Sequence[Tensor], op: LinearOp) -> Tensor:
        """Return the dense kernel that the factors with these kernels stand for."""
        first, *pair = weights
        inner = first.shape[0] // op.groups
        return self.front.product((first, self.behind.product(pair, self.op_behind(op, inner))), op)

    def _doubled(self, weight: Tensor, op: LinearOp) -> Tensor:
        return self.split(weight.detach().to(torch.float64), op)


def _basis(kernel: Tensor) -> Tensor:
    """Return an orthonormal basis of the first channels of (groups, channels, ...), best first."""
    basis: Tensor = torch.linalg.qr(svd(kernel.flatten(2)).left)[0]
    return basis


def _onto(basis: Tensor, kernel: Tensor) -> Tensor:
    """Return a kernel (groups, n, ...) in a basis (groups, n, R): (groups, R, ...)."""
    return (basis.mT @ kernel.flatten(2)).reshape(len(kernel), -1, *kernel.shape[2:])
