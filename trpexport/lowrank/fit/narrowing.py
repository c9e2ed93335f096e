"""Wide layers seen through fewer input channels, so that their moments fit into memory."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import isqrt, prod
from typing import Self

import torch
from torch import Tensor

from trpexport.lowrank.fit.patches import seen_through
from trpexport.ops import LinearOp

# Elements of a patch up to which all of them are unknowns: a matrix of moments takes 170 MB, and
# what is done with it 20 s. Those of 3x3 kernels over 512 channels are just within.
MAX_UNKNOWNS = 4608
# Relative to the mean of a diagonal: directions that no input or no kernel has come last.
_FLOOR = 1e-6


@dataclass(frozen=True)
class Narrowing:
    """The input channels of a layer cut to those combinations that its outputs hang on most.

    All schemes begin with a factor that mixes input channels freely, so that one which was fitted
    to fewer channels becomes one of all of them by a matrix product.

    Attributes:
        encode: (groups, fewer, channels).
        decode: (groups, channels, fewer); ``decode @ encode`` is a projection.
    """

    encode: Tensor
    decode: Tensor

    @classmethod
    def onto_rows(cls, kernels: Tensor) -> Self:
        """Return the cut to what the outputs see at all: the span of the kernels' rows.

        It leaves out nothing, where there are fewer rows than channels.

        Args:
            kernels: of a matrix product, (groups, O, channels), O below the channels.
        """
        basis = torch.linalg.qr(kernels.mT)[0]
        return cls(basis.mT, basis)

    @classmethod
    def of(cls, kernels: Tensor, squares: Tensor, metric: Tensor | None, op: LinearOp) -> Self:
        """Return the cut that changes the outputs least, as if they were made pixel by pixel.

        With inputs of covariance S, and M the sum over the kernel's elements of ``Wᵀ G W``, the
        error of a projection of the inputs is ``tr M (1 - P) S (1 - P)ᵀ``; its minimum is spanned
        by the leading eigenvectors of ``M^½ S M^½``.

        Args:
            kernels: (groups, O, K).
            squares: sums of products of input channels, (groups, channels, channels).
            metric: what counts as error in the outputs, (groups, O, O); the identity if None.
            op: the layer.
        """
        channels = op.in_channels // op.groups
        rows = kernels.reshape(*kernels.shape[:2], channels, -1)
        weighted = rows if metric is None else torch.einsum("gop,gpct->goct", metric, rows)
        values, vectors = torch.linalg.eigh(
            _floored(torch.einsum("goct,godt->gcd", rows, weighted))
        )
        root = values.clamp_min(values.amax() * torch.finfo(values.dtype).eps).sqrt()[:, None]
        importance, inverse = (vectors * root) @ vectors.mT, (vectors / root) @ vectors.mT
        fewer = max_channels(op)
        leading = torch.linalg.eigh(importance @ _floored(squares) @ importance)[1]
        leading = leading[:, :, channels - fewer :]
        return cls(leading.mT @ importance, inverse @ leading)

    @property
    def rest(self) -> Self:
        """What this cut leaves out: both projections add up to the identity.

        Its channels are orthonormal combinations, so that the SVD of a kernel of them is that of
        the kernel which it stands for.
        """
        fewer = self.encode.shape[1]
        basis = torch.linalg.qr(self.decode, mode="complete")[0][:, :, fewer:]
        return replace(self, encode=basis.mT, decode=basis - self.decode @ (self.encode @ basis))

    def op(self, op: LinearOp) -> LinearOp:
        """Return the layer with the fewer channels."""
        return replace(op, in_channels=self.encode.shape[1] * op.groups)

    def inputs(self, x: Tensor) -> Tensor:
        """Return inputs (batch, groups · channels, *size) as (batch, groups · fewer, *size)."""
        groups = len(self.encode)
        split = x.reshape(len(x), groups, self.encode.shape[2], -1)
        return (self.encode.to(x) @ split).reshape(len(x), -1, *x.shape[2:])

    def kernels(self, kernels: Tensor) -> Tensor:
        """Return kernels (groups, n, channels · taps) as those of the fewer channels."""
        return seen_through(self.decode, kernels)

    def widened(self, kernel: Tensor) -> Tensor:
        """Return a kernel (n, fewer, *size) of all channels again: (n, channels, *size)."""
        groups, fewer, channels = self.encode.shape
        split = kernel.reshape(groups, -1, fewer, prod(kernel.shape[2:]))
        wide: Tensor = self.encode.mT[:, None] @ split
        return wide.reshape(len(kernel), channels, *kernel.shape[2:])


def max_channels(op: LinearOp) -> int:
    """Return how many input channels a group may have for its moments to be kept whole."""
    return max(1, isqrt(MAX_UNKNOWNS**2 // op.groups) // prod(op.kernel))


def is_fitted(op: LinearOp) -> bool:
    """Say whether a layer is narrow enough, on one side at least, for its factors to be fitted."""
    inputs, outputs = op.in_channels // op.groups, op.out_channels // op.groups
    return outputs <= MAX_UNKNOWNS and (inputs <= MAX_UNKNOWNS or sees_few(op))


def sees_few(op: LinearOp) -> bool:
    """Say whether all that a layer sees of its inputs are so few combinations that all are kept."""
    return op.out_channels // op.groups * prod(op.kernel) <= max_channels(op)


def is_wide(op: LinearOp) -> bool:
    """Say whether a layer has more input channels than that."""
    return op.in_channels // op.groups > max_channels(op)


def _floored(square: Tensor) -> Tensor:
    mean = torch.diagonal(square, dim1=1, dim2=2).mean(1)
    floor = torch.where(mean > 0, _FLOOR * mean, torch.ones_like(mean))
    eye = torch.eye(square.shape[1], dtype=square.dtype, device=square.device)
    return square + floor[:, None, None] * eye
