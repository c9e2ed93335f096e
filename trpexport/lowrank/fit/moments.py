"""All that least squares needs to know of a layer's inputs and targets, in constant memory."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from trpexport.lowrank.fit.narrowing import Narrowing
from trpexport.lowrank.fit.patches import seen_through
from trpexport.lowrank.spectrum import add_square, whole_square
from trpexport.ops import LinearOp

_SCALE_FLOOR = 1e-6


@dataclass(frozen=True)
class Moments:
    """Sums over output pixels of products of patches p (K values) and targets y (O values).

    A layer is linear in its patches, so these sums determine its squared error for every
    kernel and bias: images are seen once, and no memory grows with their number. Sums are float64.

    Attributes:
        count: output pixels summed over.
        pp: p pᵀ, (groups, K, K), in blocks; those below the diagonal are of no account: see
            :attr:`whole_pp`.
        yp: y pᵀ, (groups, O, K).
        yy: y yᵀ, (groups, O, O), in blocks likewise.
        p: (groups, K).
        y: (groups, O).
    """

    count: int
    pp: Tensor
    yp: Tensor
    yy: Tensor
    p: Tensor
    y: Tensor

    @classmethod
    def zeros(cls, groups: int, inputs: int, outputs: int, device: torch.device) -> Self:
        """Return the sums over nothing."""

        def empty(*shape: int) -> Tensor:
            return torch.zeros(groups, *shape, dtype=torch.float64, device=device)

        return cls(
            0,
            empty(inputs, inputs),
            empty(outputs, inputs),
            empty(outputs, outputs),
            empty(inputs),
            empty(outputs),
        )

    def add(self, p: Tensor, y: Tensor) -> Self:
        """Return the sums with more pixels in them; the old ones are overwritten.

        Args:
            p: patches (groups, pixels, K).
            y: targets (groups, pixels, O).
        """
        p, y = p.to(torch.float64), y.to(torch.float64)
        add_square(self.pp, p)
        self.yp.baddbmm_(y.mT, p)
        add_square(self.yy, y)
        self.p.add_(p.sum(1))
        self.y.add_(y.sum(1))
        return replace(self, count=self.count + p.shape[1])

    @classmethod
    def of_outputs(cls, inputs: Moments, kernels: Tensor, bias: Tensor) -> Self:
        """Return the sums where the targets are what a layer makes of the patches.

        Args:
            inputs: sums over patches; those with targets are not read.
            kernels: (groups, O, K).
            bias: (groups, O).
        """
        count, pp, p = inputs.count, inputs.whole_pp, inputs.p[:, :, None]
        bias = bias[:, :, None]
        y = kernels @ p + count * bias
        yp = (kernels @ pp).baddbmm_(bias, p.mT)
        yy = (yp @ kernels.mT).baddbmm_(y, bias.mT)
        return cls(count, pp, yp, yy, inputs.p, y[:, :, 0])

    def __add__(self, other: Moments) -> Moments:
        return Moments(
            self.count + other.count,
            self.pp + other.pp,
            self.yp + other.yp,
            self.yy + other.yy,
            self.p + other.p,
            self.y + other.y,
        )

    def seen_through(self, basis: Tensor) -> Moments:
        """Return the moments of patches of fewer channels.

        Args:
            basis: what each is made of, (groups, channels, fewer); K is channels times taps.
        """
        rows = seen_through(basis, self.whole_pp)
        return replace(
            self,
            pp=seen_through(basis, rows.mT),
            yp=seen_through(basis, self.yp),
            p=seen_through(basis, self.p[:, None])[:, 0],
        )

    @property
    def whole_pp(self) -> Tensor:
        """Sum of p pᵀ with the blocks below the diagonal, (groups, K, K)."""
        return whole_square(self.pp)

    @property
    def mean_p(self) -> Tensor:
        """Mean patch, (groups, K)."""
        return self.p / self.count

    @property
    def mean_y(self) -> Tensor:
        """Mean target, (groups, O)."""
        return self.y / self.count

    @property
    def is_finite(self) -> bool:
        """Whether no sum is NaN or infinite: then none of their terms was."""
        squares = (torch.diagonal(some, dim1=1, dim2=2) for some in (self.pp, self.yy))
        return all(bool(torch.isfinite(square).all()) for square in squares)

    @property
    def input_covariance(self) -> Tensor:
        """Covariance of (p, p), (groups, K, K): not kept, since it may be the largest of all."""
        p = self.mean_p
        return (self.whole_pp / self.count).baddbmm_(p[:, :, None], p[:, None], alpha=-1)

    @property
    def target_covariance(self) -> Tensor:
        """Covariance of (y, y), (groups, O, O)."""
        y = self.mean_y
        return whole_square(self.yy / self.count).baddbmm_(y[:, :, None], y[:, None], alpha=-1)

    @property
    def cross_covariance(self) -> Tensor:
        """Covariance of (y, p), (groups, O, K)."""
        yp = self.yp / self.count
        return yp.baddbmm_(self.mean_y[:, :, None], self.mean_p[:, None], alpha=-1)

    def squared_error(self, kernels: Tensor, bias: Tensor, metric: Tensor | None = None) -> float:
        """Return the mean squared error of a kernel at a pixel, summed over its channels.

        Args:
            kernels: (groups, O, K).
            bias: (groups, O).
            metric: what counts as error, (groups, O, O); the identity where it is None.
        """
        mean = (kernels @ self.mean_p[:, :, None])[:, :, 0]
        # Means are subtracted behind the kernels, where matrices are small.
        error = kernels @ self.whole_pp @ kernels.mT / self.count
        error = error.baddbmm_(mean[:, :, None], mean[:, None], alpha=-1)
        error = error - 2 * kernels @ self.cross_covariance.mT + self.target_covariance
        offset = self.mean_y - bias - mean
        error = error + offset[:, :, None] * offset[:, None]
        return _trace(error, metric)

    def power(self, metric: Tensor | None = None) -> float:
        """Return the mean square of the targets at a pixel, summed over channels."""
        return _trace(whole_square(self.yy / max(1, self.count)), metric)

    def variance(self, metric: Tensor | None = None) -> float:
        """Return the variance of the targets over pixels, summed over channels."""
        return _trace(self.target_covariance, metric)


@dataclass(frozen=True)
class LayerMoments:
    """What the images say of one layer.

    Attributes:
        fit: moments over most images.
        held_out: over the others.
        metric: what counts as error, (groups, O, O), positive definite; the identity if None.
        narrowing: what the patches were made of where the layer has too many input channels.
    """

    fit: Moments
    held_out: Moments
    metric: Tensor | None
    narrowing: Narrowing | None = None

    def seen_op(self, op: LinearOp) -> LinearOp:
        """Return the layer with the input channels that the patches have."""
        return op if self.narrowing is None else self.narrowing.op(op)

    def seen_kernels(self, kernels: Tensor) -> Tensor:
        """Return kernels (groups, n, elements) as those of the patches."""
        return kernels if self.narrowing is None else self.narrowing.kernels(kernels)

    def seen_through(self, basis: Tensor) -> LayerMoments:
        """Return the moments of patches of fewer channels: see :meth:`Moments.seen_through`."""
        fit, held_out = self.fit.seen_through(basis), self.held_out.seen_through(basis)
        return LayerMoments(fit, held_out, self.metric)


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
