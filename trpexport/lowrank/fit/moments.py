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
_SIZES = 8  # of the last block of a layer
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

    def without(self, part: Moments) -> Moments:
        """Return the moments of the pixels that are not in a part of them: undoes a sum."""
        count = self.count - part.count
        rest = max(1, count)
        p, y = self.mean_p - part.mean_p, self.mean_y - part.mean_y
        # The means of part and rest lie apart by what each is off the mean of all, together.
        weight = -part.count * self.count / rest
        return Moments(
            count,
            self.mean_p + part.count / rest * p,
            self.mean_y + part.count / rest * y,
            (self.pp - part.pp).baddbmm_(p[:, :, None], p[:, None], alpha=weight),
            (self.yp - part.yp).baddbmm_(y[:, :, None], p[:, None], alpha=weight),
            (self.yy - part.yy).baddbmm_(y[:, :, None], y[:, None], alpha=weight),
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

        # Blocks are of one size, as oneDNN keeps what it makes for each size that it ever sees.
        self._most = max(1, BLOCK_ELEMENTS // (groups * max(inputs, outputs)))
        self._block: tuple[Tensor, ...] = ()
        self._filled = 0
        self._count = 0
        self._origin: tuple[Tensor, ...] = ()
        self._p, self._y = zeros(inputs), zeros(outputs)
        self._pp = zeros(inputs, inputs)
        self._yp, self._yy = zeros(outputs, inputs), zeros(outputs, outputs)

    def add(self, p: Tensor, y: Tensor) -> None:
        """Take in some pixels.

        Args:
            p: patches (groups, pixels, K).
            y: targets (groups, pixels, O).
        """
        if not self._block:
            # Transposed: what a value is over the pixels lies in one piece.
            precision = torch.promote_types(p.dtype, torch.float32)
            shapes = ((len(some), some.shape[2], self._most) for some in (p, y))
            self._block = tuple(p.new_empty(shape, dtype=precision) for shape in shapes)
        start = 0
        while start < p.shape[1]:
            stop = min(p.shape[1], start + self._most - self._filled)
            filled = self._filled + stop - start
            for block, some in zip(self._block, (p, y), strict=True):
                block[:, :, self._filled : filled] = some[:, start:stop].mT
            start, self._filled = stop, filled
            if filled == self._most:
                self._add_block(*self._block)

    def moments(self) -> Moments:
        """Return the moments of all that was taken in, and give up the sums."""
        if self._filled:
            # What is left, in one of a few sizes.
            step = -(-self._most // _SIZES)
            size = min(self._most, -(-self._filled // step) * step)
            p, y = (block[:, :, :size].contiguous() for block in self._block)
            self._add_block(p, y)
        pp, yp, yy = self._pp, self._yp, self._yy
        # Let go of: what is made of them takes as much memory again.
        self._pp = self._yp = self._yy = self._p.new_zeros(0)
        self._block = ()
        if not self._origin:
            return Moments(0, self._p, self._y, pp, yp, yy)
        for square in (pp, yy):
            fill_square(square)
        p, y = self._p / self._count, self._y / self._count
        for square, left, right in ((pp, p, p), (yp, y, p), (yy, y, y)):
            square.baddbmm_(left[:, :, None], right[:, None], alpha=-self._count)
        at_p, at_y = (some[:, :, 0].to(torch.float64) for some in self._origin)
        return Moments(self._count, at_p + p, at_y + y, pp, yp, yy)

    def _add_block(self, p: Tensor, y: Tensor) -> None:
        """Add the pixels that a block (groups, values, pixels) is filled with, and empty it."""
        seen = slice(self._filled)
        if not self._origin:
            self._origin = tuple(some[:, :, seen].mean(2, keepdim=True) for some in (p, y))
        for some, mean in zip((p, y), self._origin, strict=True):
            some.sub_(mean)
            some[:, :, self._filled :] = 0.0
        add_square(self._pp, p)
        self._yp.add_(row_products(y, p))
        add_square(self._yy, y)
        self._p.add_(p.sum(2))
        self._y.add_(y.sum(2))
        self._count += self._filled
        self._filled = 0


@dataclass(frozen=True)
class LayerMoments:
    """What the images say of one layer.

    Attributes:
        fit: moments over most images.
        everything: over all; the same where no ridge is chosen by the others.
        metric: what counts as error, (groups, O, O), positive definite; the identity if None.
        narrowing: what the patches were made of where the layer has too many input channels.
    """

    fit: Moments
    everything: Moments
    metric: Tensor | None
    narrowing: Narrowing | None = None

    @property
    def held_out(self) -> Moments | None:
        """Over the others, not kept, as they may be large; None where there are none."""
        if self.everything.count == self.fit.count:
            return None
        return self.everything.without(self.fit)

    def seen_op(self, op: LinearOp) -> LinearOp:
        """Return the layer with the input channels that the patches have."""
        return op if self.narrowing is None else self.narrowing.op(op)

    def seen_kernels(self, kernels: Tensor) -> Tensor:
        """Return kernels (groups, n, elements) as those of the patches."""
        return kernels if self.narrowing is None else self.narrowing.kernels(kernels)

    def seen_through(self, basis: Tensor) -> LayerMoments:
        """Return the moments of patches of fewer channels: see :meth:`Moments.seen_through`."""
        fit, everything = (some.seen_through(basis) for some in (self.fit, self.everything))
        return LayerMoments(fit, everything, self.metric)


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
