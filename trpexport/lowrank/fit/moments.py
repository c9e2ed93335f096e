"""All that least squares needs to know of a layer's inputs and targets, in constant memory."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from trpexport.lowrank.fit.narrowing import Narrowing
from trpexport.lowrank.fit.patches import seen_through
from trpexport.lowrank.products import add_square, fill_square, row_products
from trpexport.ops import LinearOp

# Elements of patches that are multiplied at once: 16 MB in float32, which malloc keeps and hands
# out again without asking the system for clean pages.
BLOCK_ELEMENTS = 4_000_000
_SCALE_FLOOR = 1e-6


@dataclass(frozen=True)
class Moments:
    """First and second moments of patches p (K values) and targets y (O values) over pixels.

    A layer is linear in its patches, so these determine its squared error for every kernel and
    bias: images are seen once, and no memory grows with their number. All are float64; products
    are of differences from the means, so that nothing cancels.

    Attributes:
        count: output pixels.
        mean_p: mean patch, (groups, K).
        mean_y: mean target, (groups, O).
        pp: sum of (p - mean_p) (p - mean_p)ᵀ, (groups, K, K).
        yp: sum of (y - mean_y) (p - mean_p)ᵀ, (groups, O, K).
        yy: sum of (y - mean_y) (y - mean_y)ᵀ, (groups, O, O).
        kernels: what makes the targets of the patches, (groups, O, K), where that is known.
    """

    count: int
    mean_p: Tensor
    mean_y: Tensor
    pp: Tensor
    yp: Tensor
    yy: Tensor
    kernels: Tensor | None = None

    @classmethod
    def of_outputs(cls, inputs: Moments, kernels: Tensor, bias: Tensor) -> Self:
        """Return the moments where the targets are what a layer makes of the patches.

        Args:
            inputs: moments of the patches; those of targets are not read.
            kernels: (groups, O, K).
            bias: (groups, O).
        """
        yp = kernels @ inputs.pp
        mean_y = (kernels @ inputs.mean_p[:, :, None])[:, :, 0] + bias
        yy = yp @ kernels.mT
        return cls(inputs.count, inputs.mean_p, mean_y, inputs.pp, yp, yy, kernels)

    def __add__(self, other: Moments) -> Moments:
        count = self.count + other.count
        share = other.count / max(1, count)
        p, y = other.mean_p - self.mean_p, other.mean_y - self.mean_y
        # Chan, Golub and LeVeque, "Updating formulae and a pairwise algorithm for computing sample
        # variances" (1979).
        weight = self.count * share
        return Moments(
            count,
            self.mean_p + share * p,
            self.mean_y + share * y,
            (self.pp + other.pp).baddbmm_(p[:, :, None], p[:, None], alpha=weight),
            (self.yp + other.yp).baddbmm_(y[:, :, None], p[:, None], alpha=weight),
            (self.yy + other.yy).baddbmm_(y[:, :, None], y[:, None], alpha=weight),
        )

    def seen_through(self, basis: Tensor) -> Moments:
        """Return the moments of patches of fewer channels.

        Args:
            basis: what each is made of, (groups, channels, fewer); K is channels times taps.
        """
        rows = seen_through(basis, self.pp)
        return replace(
            self,
            pp=seen_through(basis, rows.mT),
            yp=seen_through(basis, self.yp),
            mean_p=seen_through(basis, self.mean_p[:, None])[:, 0],
            kernels=None,
        )

    def ordered(self, order: Tensor) -> Moments:
        """Return the moments of patches whose elements are ordered otherwise.

        Args:
            order: which element is to be where, (K,).
        """
        order = order.to(self.pp.device)
        if torch.equal(order, torch.arange(len(order)).to(order)):
            return self
        return replace(
            self,
            mean_p=self.mean_p[:, order],
            pp=self.pp[:, order[:, None], order],
            yp=self.yp[:, :, order],
        )

    @property
    def is_finite(self) -> bool:
        """Whether no moment is NaN or infinite: then nothing that they are of was."""
        squares = (torch.diagonal(some, dim1=1, dim2=2) for some in (self.pp, self.yy))
        return all(bool(torch.isfinite(square).all()) for square in squares)

    @property
    def input_covariance(self) -> Tensor:
        """Covariance of (p, p), (groups, K, K): not kept, since it may be the largest of all."""
        return self.pp / self.count

    @property
    def target_covariance(self) -> Tensor:
        """Covariance of (y, y), (groups, O, O)."""
        return self.yy / self.count

    @property
    def cross_covariance(self) -> Tensor:
        """Covariance of (y, p), (groups, O, K)."""
        return self.yp / self.count

    def squared_error(self, kernels: Tensor, bias: Tensor, metric: Tensor | None = None) -> float:
        """Return the mean squared error of a kernel at a pixel, summed over its channels.

        Args:
            kernels: (groups, O, K).
            bias: (groups, O).
            metric: what counts as error, (groups, O, O); the identity where it is None.
        """
        offset = self.mean_y[:, :, None] - bias[:, :, None] - kernels @ self.mean_p[:, :, None]
        weighed, weighed_offset = (
            some if metric is None else metric @ some for some in (kernels, offset)
        )
        # Traces of products are sums over their elements: no square of all outputs is formed.
        explained = (weighed * (kernels @ self.pp - 2 * self.yp)).sum() / self.count
        total = explained + (weighed_offset * offset).sum() + self.variance(metric)
        return max(0.0, float(total))

    def power(self, metric: Tensor | None = None) -> float:
        """Return the mean square of the targets at a pixel, summed over channels."""
        square = self.yy / max(1, self.count)
        return _trace(square.baddbmm_(self.mean_y[:, :, None], self.mean_y[:, None]), metric)

    def variance(self, metric: Tensor | None = None) -> float:
        """Return the variance of the targets over pixels, summed over channels."""
        return _trace(self.target_covariance, metric)


class MomentSums:
    """Sums up patches and targets, block after block, to their moments.

    Blocks are multiplied in the precision that they come in, float32 at least, and summed in
    float64. What is multiplied are differences from the means of the first block, as a mean that
    is large beside the variation would use up the digits of float32.

    Args:
        groups: of the layer.
        inputs: K, elements of a patch.
        outputs: O, channels of a group.
        device: where the sums are kept.
    """

    def __init__(self, groups: int, inputs: int, outputs: int, device: torch.device) -> None:
        def zeros(*shape: int) -> Tensor:
            return torch.zeros(groups, *shape, dtype=torch.float64, device=device)

        self._count = 0
        self._waiting: list[tuple[Tensor, Tensor]] = []
        self._origin: tuple[Tensor, Tensor] | None = None
        self._p, self._y = zeros(inputs), zeros(outputs)
        self._pp = zeros(inputs, inputs)
        self._yp, self._yy = zeros(outputs, inputs), zeros(outputs, outputs)

    def add(self, p: Tensor, y: Tensor) -> None:
        """Take in some pixels.

        Args:
            p: patches (groups, pixels, K).
            y: targets (groups, pixels, O).
        """
        self._waiting.append((p, y))
        if sum(p.numel() for p, _ in self._waiting) >= BLOCK_ELEMENTS:
            self._add_block()

    def moments(self) -> Moments:
        """Return the moments of all that was taken in, and give up the sums."""
        self._add_block()
        pp, yp, yy = self._pp, self._yp, self._yy
        # Let go of: what is made of them takes as much memory again.
        self._pp = self._yp = self._yy = self._p.new_zeros(0)
        if self._origin is None:
            return Moments(0, self._p, self._y, pp, yp, yy)
        for square in (pp, yy):
            fill_square(square)
        p, y = self._p / self._count, self._y / self._count
        for square, left, right in ((pp, p, p), (yp, y, p), (yy, y, y)):
            square.baddbmm_(left[:, :, None], right[:, None], alpha=-self._count)
        at_p, at_y = (some[:, :, 0].to(torch.float64) for some in self._origin)
        return Moments(self._count, at_p + p, at_y + y, pp, yp, yy)

    def _add_block(self) -> None:
        """Add what waits: large blocks, as each is added to all of the sums."""
        if not any(p.shape[1] for p, _ in self._waiting):
            return
        # Transposed: what a value is over the pixels lies in one piece.
        p, y = (
            torch.cat([few.mT for few in some], dim=2) for some in zip(*self._waiting, strict=True)
        )
        self._waiting = []
        precision = torch.promote_types(p.dtype, torch.float32)
        p, y = p.to(precision), y.to(precision)
        if self._origin is None:
            self._origin = p.mean(2, keepdim=True), y.mean(2, keepdim=True)
        p.sub_(self._origin[0])
        y.sub_(self._origin[1])
        add_square(self._pp, p)
        self._yp.add_(row_products(y, p))
        add_square(self._yy, y)
        self._p.add_(p.sum(2))
        self._y.add_(y.sum(2))
        self._count += p.shape[2]


@dataclass(frozen=True)
class LayerMoments:
    """What the images say of one layer.

    Attributes:
        fit: moments over most images.
        held_out: over the others; None where nothing is chosen by them.
        metric: what counts as error, (groups, O, O), positive definite; the identity if None.
        narrowing: what the patches were made of where the layer has too many input channels.
    """

    fit: Moments
    held_out: Moments | None
    metric: Tensor | None
    narrowing: Narrowing | None = None

    @property
    def everything(self) -> Moments:
        """Over all images."""
        return self.fit if self.held_out is None else self.fit + self.held_out

    def seen_op(self, op: LinearOp) -> LinearOp:
        """Return the layer with the input channels that the patches have."""
        return op if self.narrowing is None else self.narrowing.op(op)

    def seen_kernels(self, kernels: Tensor) -> Tensor:
        """Return kernels (groups, n, elements) as those of the patches."""
        return kernels if self.narrowing is None else self.narrowing.kernels(kernels)

    def seen_through(self, basis: Tensor) -> LayerMoments:
        """Return the moments of patches of fewer channels: see :meth:`Moments.seen_through`."""
        held_out = None if self.held_out is None else self.held_out.seen_through(basis)
        return LayerMoments(self.fit.seen_through(basis), held_out, self.metric)


def scale_metric(scale: Tensor, groups: int) -> Tensor:
    """Return a metric in which each channel counts as much as is let through behind the layer.

    Args:
        scale: what the channels are multiplied with, (out_channels,).
        groups: of the layer.
    """
    weight = scale.to(torch.float64).square().reshape(groups, -1)
    largest = weight.amax(1, keepdim=True)
    weight = torch.where(largest > 0, weight / torch.where(largest > 0, largest, 1.0), 1.0)
    return torch.diag_embed(weight.clamp_min(_SCALE_FLOOR))


def _trace(square: Tensor, metric: Tensor | None) -> float:
    total = torch.diagonal(square, dim1=1, dim2=2) if metric is None else square * metric
    return max(0.0, float(total.sum()))
