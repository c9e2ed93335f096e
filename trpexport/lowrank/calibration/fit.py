"""Factors that reproduce a layer's outputs rather than its weights.

The factors of a scheme stand for a kernel W' of low rank. Its error on the data is a quadratic
form, ``tr G (W' - W*) A (W' - W*)ᵀ``, in the covariance A of the patches, a metric G on the output
channels, and the least-squares kernel W*. With G = A = 1 it is the weight error, which the SVD
minimises; channel-wise pairs have a closed form for every G and A (reduced-rank regression, Izenman
1975; the principal subspace of the responses of Zhang et al., arXiv 1505.06798, section 3.1); for
the other schemes the form is whitened by its nearest Kronecker product, and the factors are then
refined in turn, each by a linear least-squares problem.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from trpexport.lowrank.calibration.moments import LayerMoments, Moments
from trpexport.lowrank.schemes import Scheme
from trpexport.lowrank.spectrum import svd
from trpexport.plan import ConvSpec

# Of the mean eigenvalue: keeps whitening and preconditioning defined where an input is constant.
_FLOOR = 1e-9
# Of the mean square of an input: what float64 leaves of a covariance where a mean is subtracted.
_NOISE = 1e-11
# The metric of rows is averaged over this many columns, and the other way round.
_SAMPLES = 16
RIDGES = (1e-5, 1e-3, 1e-2, 1e-1)
_RIDGE_STEPS = 4


@dataclass(frozen=True)
class Regression:
    """Ridge regression of targets on patches, towards the kernel that the layer has.

    ``min E |y - W'p - b|² + ridge · power · |W' - W|²``, where power is the mean variance of an
    input: where the images say nothing, as in a direction that no patch has, W stays.

    Attributes:
        moments: what the images say.
        weight: the original kernels (groups, O, K), float64.
        conv: the convolution.
        ridge: weight of the original kernel.
        metric: what counts as error, (groups, O, O), positive definite; the identity if None.
    """

    moments: Moments
    weight: Tensor
    conv: ConvSpec
    ridge: float
    metric: Tensor | None = None

    @cached_property
    def normal(self) -> tuple[Tensor, Tensor]:
        """The ridged covariances A (groups, K, K) and B (groups, O, K)."""
        a, b, _ = self.moments.covariance
        power = torch.diagonal(a, dim1=1, dim2=2).mean(1)
        square = torch.diagonal(self.moments.pp, dim1=1, dim2=2).mean(1) / self.moments.count
        scale = torch.maximum(self.ridge * power, _NOISE * square)
        scale = torch.where(scale > 0, scale, torch.full_like(scale, self.ridge))
        a.diagonal(dim1=1, dim2=2).add_(scale[:, None])
        return a, b + scale[:, None, None] * self.weight

    @cached_property
    def kernels(self) -> Tensor:
        """The kernels of full rank that minimise the error, (groups, O, K)."""
        a, b = self.normal
        return torch.cholesky_solve(b.mT, torch.linalg.cholesky(a)).mT

    def gradient(self, kernels: Tensor) -> Tensor:
        """Return half the gradient of the quadratic part of the error."""
        return self.weighted(kernels @ self.normal[0])

    def weighted(self, kernels: Tensor) -> Tensor:
        """Apply the metric."""
        return kernels if self.metric is None else self.metric @ kernels

    def bias(self, kernels: Tensor) -> Tensor:
        """Return the bias (groups, O) with which the mean error is zero."""
        return self.moments.mean_y - (kernels @ self.moments.mean_p[:, :, None])[:, :, 0]

    def error(self, kernels: Tensor) -> float:
        """Return the mean squared error of ``kernels`` with the best bias, in the metric."""
        return self.moments.squared_error(kernels, self.bias(kernels), self.metric)


def choose_ridge(
    moments: LayerMoments,
    weight: Tensor,
    conv: ConvSpec,
    *,
    scheme: Scheme,
    rank: int,
) -> float:
    """Return the ridge whose factors do best on images that they were not fitted to.

    From the smallest on, until a larger one does worse. Without images to fit to or to hold out,
    the largest.

    Args:
        moments: what the images say.
        weight: the original kernels (groups, O, K), float64.
        conv: the convolution.
        scheme: how kernels unfold.
        rank: rank of the factors.
    """
    fit, held_out, metric = moments.fit, moments.held_out, moments.metric
    if not fit.count or not held_out.count:
        return RIDGES[-1]
    best, least = RIDGES[-1], math.inf
    for ridge in RIDGES:
        problem = Factorization(Regression(fit, weight, conv, ridge, metric), scheme)
        kernels = problem.kernels(*problem.factors(rank, sweeps=1, steps=_RIDGE_STEPS))
        error = held_out.squared_error(kernels, problem.regression.bias(kernels), metric)
        if not error < least:
            break
        best, least = ridge, error
    return best


def fit_factors(
    regression: Regression, scheme: Scheme, rank: int, *, sweeps: int = 4, steps: int = 8
) -> tuple[Tensor, Tensor]:
    """Return left (batch, rows, rank) and right (batch, rank, columns) of the least error.

    Args:
        regression: the problem.
        scheme: how kernels unfold.
        rank: rank of the factors.
        sweeps: how often the right factor is solved for; the left one once less.
        steps: conjugate-gradient steps of each solution.
    """
    return Factorization(regression, scheme).factors(rank, sweeps=sweeps, steps=steps)


class Factorization:
    """What factors of all ranks share: the whitened spectrum of a regression under a scheme."""

    def __init__(self, regression: Regression, scheme: Scheme) -> None:
        self.regression = regression
        self.scheme = scheme
        self.conv = regression.conv
        rows, columns = _kronecker(regression, scheme)
        self._rows, self._columns = _floored(rows), _floored(columns)
        row_root, self._row_inverse = _roots(self._rows)
        column_root, self._column_inverse = _roots(self._columns)
        self._svd = svd(row_root @ self._unfold(regression.kernels) @ column_root)
        self._target = self._unfold(regression.weighted(regression.normal[1]))

    def kernels(self, left: Tensor, right: Tensor) -> Tensor:
        """Return the kernels (groups, O, K) that two factors stand for."""
        return self.scheme.fold(left @ right, self.conv).reshape(self.regression.weight.shape)

    def factors(self, rank: int, *, sweeps: int, steps: int) -> tuple[Tensor, Tensor]:
        """Return the factors of a rank, as :func:`fit_factors`."""
        left, right = self._svd.factors(rank)
        left, right = self._row_inverse @ left, right @ self._column_inverse
        for sweep in range(sweeps):
            right = self._solve_right(left, right, steps)
            if sweep + 1 < sweeps:
                left = self._solve_left(left, right, steps)
        return _balanced(left, right)

    def _solve_right(self, left: Tensor, right: Tensor, steps: int) -> Tensor:
        inner = _cholesky(left.mT @ self._rows @ left)
        outer = _cholesky(self._columns)
        return _conjugate_gradients(
            lambda r: left.mT @ self._curvature(left @ r),
            left.mT @ self._target,
            right,
            lambda r: torch.cholesky_solve(torch.cholesky_solve(r, inner).mT, outer).mT,
            steps,
        )

    def _solve_left(self, left: Tensor, right: Tensor, steps: int) -> Tensor:
        inner = _cholesky(right @ self._columns @ right.mT)
        outer = _cholesky(self._rows)
        return _conjugate_gradients(
            lambda v: self._curvature(v @ right) @ right.mT,
            self._target @ right.mT,
            left,
            lambda v: torch.cholesky_solve(torch.cholesky_solve(v, outer).mT, inner).mT,
            steps,
        )

    def _curvature(self, matrices: Tensor) -> Tensor:
        kernels = self.scheme.fold(matrices, self.conv).reshape(self.regression.weight.shape)
        return self._unfold(self.regression.gradient(kernels))

    def _unfold(self, kernels: Tensor) -> Tensor:
        conv = self.conv
        shape = (conv.out_channels, conv.in_channels // conv.groups, *conv.kernel_size)
        return self.scheme.unfold(kernels.reshape(shape), conv)


def _kronecker(regression: Regression, scheme: Scheme) -> tuple[Tensor, Tensor]:
    """Return the metrics of rows and of columns that together are nearest to the error's.

    The error is a quadratic form over the elements of the unfolded kernel. Its restriction to one
    column, averaged over columns, is the metric of rows, (batch or 1, rows, rows); and likewise.
    Which element is which output and input of the convolution is read off an unfolded kernel of
    numbers, so that this works for every scheme.
    """
    conv, a = regression.conv, regression.normal[0]
    groups, outputs, inputs = regression.weight.shape
    metric = regression.metric
    if metric is None:
        metric = torch.eye(outputs, dtype=a.dtype, device=a.device).expand(groups, -1, -1)
    numbers = torch.arange(groups * outputs * inputs, device=a.device)
    kernel = (conv.out_channels, conv.in_channels // conv.groups, *conv.kernel_size)
    numbers = scheme.unfold(numbers.reshape(kernel), conv)
    # Matrices of the same group (the filters of network decoupling) share the metrics.
    per_group = len(numbers) // groups
    numbers = numbers[::per_group]

    def averaged(lines: Tensor) -> Tensor:
        """Return the mean metric of lines of numbers (groups, lines, elements)."""
        count = lines.shape[1]
        chosen = torch.linspace(0, count - 1, min(count, _SAMPLES)).round().long()
        total = torch.zeros(groups, lines.shape[2], lines.shape[2], dtype=a.dtype, device=a.device)
        for line in lines[:, chosen].unbind(1):
            i, o, g = line % inputs, line // inputs % outputs, line // (inputs * outputs)
            g = g[:, :, None]
            total += metric[g, o[:, :, None], o[:, None]] * a[g, i[:, :, None], i[:, None]]
        total /= len(chosen)
        return total if groups == 1 else total.repeat_interleave(per_group, 0)

    return averaged(numbers.mT), averaged(numbers)


def _floored(metric: Tensor) -> Tensor:
    diagonal = torch.diagonal(metric, dim1=1, dim2=2)
    mean = diagonal.mean(1, keepdim=True)
    floor: Tensor = _FLOOR * torch.where(mean > 0, mean, torch.ones_like(mean))
    result: Tensor = metric + torch.diag_embed(floor.expand_as(diagonal))
    return result


def _roots(metric: Tensor) -> tuple[Tensor, Tensor]:
    """Return the square root of a positive definite metric, and its inverse."""
    values, vectors = torch.linalg.eigh(metric)
    root = values.clamp_min(_FLOOR * values[:, -1:]).sqrt()
    return (
        (vectors * root[:, None]) @ vectors.mT,
        (vectors / root[:, None]) @ vectors.mT,
    )


def _cholesky(matrix: Tensor) -> Tensor:
    lower: Tensor = torch.linalg.cholesky(_floored(matrix))
    return lower


def _conjugate_gradients(
    apply: Callable[[Tensor], Tensor],
    target: Tensor,
    start: Tensor,
    precondition: Callable[[Tensor], Tensor],
    steps: int,
) -> Tensor:
    """Solve ``apply(x) = target`` from ``start``, for a symmetric positive semidefinite map."""
    x = start
    residual = target - apply(x)
    direction = correction = precondition(residual)
    slope = first = float((residual * correction).sum())
    for _ in range(steps):
        image = apply(direction)
        curvature = float((direction * image).sum())
        if not (slope > 1e-14 * first and curvature > 0):
            break
        step = slope / curvature
        x = x + step * direction
        residual = residual - step * image
        correction = precondition(residual)
        before, slope = slope, float((residual * correction).sum())
        direction = correction + (slope / before) * direction
    return x


def _balanced(left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
    """Return factors of the same product that both carry the root of its singular values."""
    rank = left.shape[2]
    basis, core = torch.linalg.qr(left)
    middle = svd(core @ right).factors(rank)
    return basis @ middle[0], middle[1]
