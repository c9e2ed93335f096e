"""Factors that reproduce a layer's outputs rather than its weights.

The factors of a scheme stand for a kernel W' of low rank. Its error on the data is a quadratic
form, ``tr G (W' - W*) A (W' - W*)ᵀ``, in the covariance A of the patches, a metric G on the output
channels, and the least-squares kernel W*. With G = A = 1 it is the weight error, which the SVD
minimises; channel-wise pairs have a closed form for every G and A (reduced-rank regression, Izenman
1975; the principal subspace of the responses of Zhang et al., arXiv 1505.06798, section 3.1). For
the other schemes the form is whitened by its nearest Kronecker product, which gives the first
factor of the chain; the second one is then a linear regression on what the first gives.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from trpexport.available import give_back
from trpexport.lowrank.fit.moments import LayerMoments, Moments
from trpexport.lowrank.schemes import MatrixScheme, Scheme
from trpexport.lowrank.spectrum import svd
from trpexport.ops import LinearOp

# Of the mean eigenvalue: keeps whitening and regression defined where an input is constant.
_FLOOR = 1e-9
# Likewise, where that is not enough: nothing first.
_FLOORS = (0.0, 1e-7, 1e-5, 1e-3, 1e-1)
# Of the mean square of an input: what rounding leaves of a covariance where a mean is subtracted.
_NOISE = 1e-11
RIDGES = (1e-5, 1e-3, 1e-2, 1e-1)
# The ridge of the first factor, and of tables.
TYPICAL_RIDGE = 1e-3
# Products of first factors with the covariance that are held at once, in elements.
_ELEMENTS = 32_000_000


@dataclass(frozen=True)
class Regression:
    """Ridge regression of targets on patches, towards the kernel that the layer has.

    ``min E |y - W'p - b|² + ridge · power · |W' - W|²``, where power is the mean variance of an
    input: where the images say nothing, as in a direction that no patch has, W stays.

    Attributes:
        moments: what the images say.
        weight: the original kernels (groups, O, K), float64.
        ridge: weight of the original kernel.
        metric: what counts as error, (groups, O, O), positive definite; the identity if None.
        inputs: moments of the inputs that the power is taken of; ``moments`` if None.
    """

    moments: Moments
    weight: Tensor
    ridge: float
    metric: Tensor | None = None
    inputs: Moments | None = None

    @cached_property
    def scale(self) -> Tensor:
        """What is added to the variance of each input, (groups,)."""
        inputs = self.inputs or self.moments
        power = torch.diagonal(inputs.pp, dim1=1, dim2=2).mean(1) / inputs.count
        noise = _NOISE * (power + inputs.mean_p.square().mean(1))
        scale = torch.maximum(self.ridge * power, noise)
        return torch.where(scale > 0, scale, torch.full_like(scale, self.ridge))

    @property
    def normal(self) -> tuple[Tensor, Tensor]:
        """The ridged covariances A (groups, K, K) and B (groups, O, K)."""
        a = self.moments.input_covariance
        a.diagonal(dim1=1, dim2=2).add_(self.scale[:, None])
        return a, self.moments.cross_covariance + self.scale[:, None, None] * self.weight

    @cached_property
    def kernels(self) -> Tensor:
        """The kernels of full rank that minimise the error, (groups, O, K)."""
        made_by = self.moments.kernels
        if made_by is not None and torch.equal(made_by, self.weight):
            return self.weight
        give_back()  # what follows is as large as all that is kept
        a, b = self.normal
        lower = cholesky(a)
        del a  # the solver copies the factor, which may be the largest of all
        return torch.cholesky_solve(b.mT, lower).mT

    def bias(self, kernels: Tensor) -> Tensor:
        """Return the bias (groups, O) with which the mean error is zero."""
        return self.moments.mean_y - (kernels @ self.moments.mean_p[:, :, None])[:, :, 0]


@dataclass(frozen=True)
class Equations:
    """Normal equations of the second factor, given the first: ``S P = T`` for each first factor.

    Attributes:
        p: covariance of its inputs, (groups, n, q, q): n first factors a group.
        t: covariance of targets and inputs, (groups, n, O / n, q).
    """

    p: Tensor
    t: Tensor

    @cached_property
    def lower(self) -> Tensor:
        """The Cholesky factor of ``p``."""
        return cholesky(_floored(self.p))

    @property
    def solution(self) -> Tensor:
        """The second factor, (groups, n, O / n, q)."""
        return torch.cholesky_solve(self.t.mT, self.lower).mT

    def plus(self, other: Equations, scale: Tensor) -> Equations:
        """Return the equations with ``scale`` (groups,) times others added."""
        scale = scale[:, None, None, None]
        return Equations(self.p + scale * other.p, self.t + scale * other.t)


class Fit(ABC):
    """Factors of one layer under one scheme, at any rank, that minimise a regression's error.

    Args:
        regression: what is minimised.
        scheme: how the layer is written.
        op: the layer.
    """

    def __init__(self, regression: Regression, scheme: Scheme, op: LinearOp) -> None:
        self.regression = regression
        self.scheme = scheme
        self.op = op

    @abstractmethod
    def weights(self, rank: int, ridge: float | None = None) -> tuple[Tensor, ...]:
        """Return the kernels of the factors, in float64.

        Args:
            rank: of the factors.
            ridge: of all but the first factor; the regression's where it is None.
        """

    @abstractmethod
    def errors(self, ranks: Sequence[int]) -> list[float]:
        """Return what is minimised, at each rank."""

    @abstractmethod
    def best_ridge(self, rank: int, moments: LayerMoments) -> float:
        """Return the ridge with which the factors do best on images they were not fitted to.

        Without images to fit to or to hold out, the largest.

        Args:
            rank: of the factors.
            moments: what the images say.
        """

    def kernels(self, weights: Sequence[Tensor]) -> Tensor:
        """Return the kernels (groups, O, K) that factors stand for."""
        return self.scheme.product(weights, self.op).reshape(self.regression.weight.shape)


class Factorization(Fit):
    """What factors of all ranks share: the whitened spectrum of a regression under a scheme.

    Unfolded kernels are oriented so that each column belongs to one output channel: the right
    factor is then that of the second operator, and without constraints. Which element is which
    output and input of the layer is read off an unfolded kernel of numbers, so that this
    works for every scheme.
    """

    scheme: MatrixScheme

    def __init__(self, regression: Regression, scheme: MatrixScheme, op: LinearOp) -> None:
        super().__init__(regression, scheme, op)
        self._transposed = False  # until it is known
        self._transposed, self._inputs, self._first_count = self._arrangement()
        self._in_order = torch.equal(self._inputs, torch.arange(len(self._inputs)).to(self._inputs))
        self._known: tuple[int, Equations] | None = None
        # Of full rank, (groups, n, rows, rank), the best ones first.
        self.first = self._first_factors()

    def _arrangement(self) -> tuple[bool, Tensor, int]:
        """Return how the elements of an unfolded kernel lie, read off a kernel of numbers.

        Returns:
            Whether it has to be transposed for each column to belong to one output channel, the
            input of the layer at (row, column of one output), (K,), and how many matrices a group
            unfolds to.
        """
        weight, is_transposed = self.regression.weight, False
        numbers = torch.arange(weight.numel(), device=weight.device)
        numbers = self._unfold(numbers.reshape(weight.shape))
        inputs = weight.shape[2]
        outputs = numbers // inputs
        if (outputs != outputs[:, :, :1]).any():
            is_transposed, numbers = True, numbers.mT
        some = numbers[0, 0, :, : inputs // numbers.shape[2]] % inputs
        return is_transposed, some.reshape(-1), numbers.shape[1]

    def weights(self, rank: int, ridge: float | None = None) -> tuple[Tensor, ...]:
        """Return the kernels of both factors, in float64."""
        return self.scheme.factor_weights(*self.factors(rank, ridge), self.op)

    def factors(self, rank: int, ridge: float | None = None) -> tuple[Tensor, Tensor]:
        """Return left (batch, rows, rank) and right (batch, rank, columns), as the scheme folds."""
        first = self.first[..., :rank]
        if ridge is None or ridge == self.regression.ridge:
            solution = self._minimised(rank).solution
        else:
            solution = self._ridged(replace(self.regression, ridge=ridge), first).solution
        # (groups, n, outputs, rank, columns of an output) -> (groups, n, rank, columns)
        second = solution.reshape(*solution.shape[:3], rank, -1).transpose(2, 3).flatten(3)
        left, right = first.flatten(0, 1), second.flatten(0, 1)
        return _balanced(right.mT, left.mT) if self._transposed else _balanced(left, right)

    def errors(self, ranks: Sequence[int]) -> list[float]:
        """Return what is minimised, at each rank.

        The Cholesky factor of a lower rank's equations is the corner of a higher one's, so that
        all ranks are solved for at once.
        """
        regression, most = self.regression, max(ranks)
        equations = self._minimised(most)
        half = torch.linalg.solve_triangular(equations.lower, equations.t.mT, upper=False)
        metric = self._blocks(regression.metric)
        gains = (half @ metric * half).sum((0, 1, 3))
        gained = gains.reshape(most, -1).sum(1).cumsum(0)
        weight = regression.weight
        scaled = regression.scale[:, None, None] * (weight @ weight.mT)
        whole = self._blocks(regression.moments.target_covariance + scaled)
        total = float((whole * metric).sum())
        return [max(0.0, total - float(gained[rank - 1])) for rank in ranks]

    def best_ridge(self, rank: int, moments: LayerMoments) -> float:
        """Return the ridge with which the second factor does best on images held out."""
        held_out = moments.held_out
        if held_out is None or not moments.fit.count or not held_out.count:
            return RIDGES[-1]
        first = self.first[..., :rank]
        fit, others = (self._equations(some, first) for some in (moments.fit, held_out))
        metric, weight = self._blocks(moments.metric), self._ridge(first)
        best, least = RIDGES[-1], math.inf
        for ridge in RIDGES:
            regression = replace(self.regression, moments=moments.fit, ridge=ridge)
            found = fit.plus(weight, regression.scale).solution
            loss = float(((metric @ found) * (found @ others.p - 2 * others.t)).sum())
            if loss < least:
                best, least = ridge, loss
        return best

    def _first_factors(self) -> Tensor:
        """Return the first factors of full rank, (groups, n, rows, rank), the best ones first."""
        whole = self._unfold(self.regression.kernels)
        rows, columns = (cholesky(_floored(metric))[:, None] for metric in self._kronecker(whole))
        whitened = rows.mT @ whole @ columns
        left = svd(whitened.flatten(0, 1)).left
        left = left.reshape(*whitened.shape[:3], -1)
        size = left.norm(dim=2, keepdim=True)
        left = left / torch.where(size > 0, size, 1.0)
        first: Tensor = torch.linalg.solve_triangular(rows.mT, left, upper=True)
        return first

    def _kronecker(self, kernels: Tensor) -> tuple[Tensor, Tensor]:
        """Return the metrics of rows and of columns that together are nearest to the error's.

        The error is a quadratic form over the elements of the unfolded kernel. Its restriction to
        one column, averaged over columns, is the metric of rows, (groups, rows, rows); and
        likewise. Up to a factor, since first factors have no length.

        Args:
            kernels: unfolded, (groups, n, rows, columns).
        """
        a = self._ordered(self.regression.normal[0], kernels.shape[2])
        metric = self._blocks(self.regression.metric)[:, 0]
        inputs = torch.diagonal(a, dim1=1, dim2=3).mean(-1)
        columns = metric[:, :, None, :, None] * inputs[:, None, :, None]
        groups, outputs, q = columns.shape[0], *columns.shape[1:3]
        columns = columns.reshape(groups, outputs * q, outputs * q)
        return torch.diagonal(a, dim1=2, dim2=4).mean(-1), columns

    def _ordered(self, a: Tensor, rows: int) -> Tensor:
        """Return a covariance of patches as (groups, rows, q, rows, q): q columns an output."""
        if not self._in_order:
            a = a[:, self._inputs[:, None], self._inputs]
        return a.reshape(len(a), rows, -1, rows, a.shape[2] // rows)

    def _minimised(self, rank: int) -> Equations:
        """Return the equations of what is minimised; those of a lower rank are a corner of them."""
        if self._known is None or self._known[0] < rank:
            self._known = rank, self._ridged(self.regression, self.first[..., :rank])
        most, equations = self._known
        corner = equations.p.shape[3] // most * rank
        return Equations(equations.p[..., :corner, :corner], equations.t[..., :corner])

    def _ridged(self, regression: Regression, first: Tensor) -> Equations:
        """Return the equations of second factors, the ridge included."""
        return self._equations(regression.moments, first).plus(self._ridge(first), regression.scale)

    def _equations(self, moments: Moments, first: Tensor) -> Equations:
        """Return the equations of second factors.

        Args:
            moments: of patches and targets.
            first: first factors (groups, n, rows, rank).
        """
        groups, _, rows, rank = first.shape
        shape = (rows, len(self._inputs) // rows)
        flat = self._ordered(moments.pp, rows).flatten(2)
        step = max(1, _ELEMENTS // (rank * flat.shape[2]))
        some = []
        for few in torch.split(first, step, dim=1):
            half = (few.mT.reshape(groups, -1, rows) @ flat).reshape(
                groups, few.shape[1], rank, shape[1], *shape
            )
            # One large product, not one for each column: a copy takes less than that saves.
            whole = (half.mT.flatten(2, 4) @ few).reshape(*half.mT.shape[:-1], rank)
            some.append(whole.mT.flatten(4).flatten(2, 3))
        p = torch.cat(some, dim=1) / moments.count
        return Equations(p, self._targets(moments.yp, first) / moments.count)

    def _ridge(self, first: Tensor) -> Equations:
        """Return what a ridge of 1 adds to the equations."""
        columns = len(self._inputs) // first.shape[2]
        eye = torch.eye(columns, dtype=first.dtype, device=first.device)
        p = torch.einsum("gnab,ce->gnacbe", first.mT @ first, eye).flatten(4).flatten(2, 3)
        return Equations(p, self._targets(self.regression.weight, first))

    def _targets(self, b: Tensor, first: Tensor) -> Tensor:
        groups, n, rows, _ = first.shape
        b = b if self._in_order else b[:, :, self._inputs]
        targets = b.reshape(groups, n, b.shape[1] // n, rows, -1).mT
        found = targets.flatten(2, 3) @ first
        return found.reshape(*targets.shape[:4], -1).mT.flatten(3)

    def _blocks(self, square: Tensor | None) -> Tensor:
        """Return what outputs with the same first factor share of (groups, O, O)."""
        if square is None:
            outputs = self.regression.weight.shape[1]
            square = torch.eye(outputs, dtype=torch.float64, device=self._inputs.device)[None]
        n = self._first_count
        split = square.reshape(len(square), n, square.shape[1] // n, n, -1)
        return torch.diagonal(split, dim1=1, dim2=3).movedim(-1, 1)

    def _unfold(self, kernels: Tensor) -> Tensor:
        op = self.op
        shape = (op.out_channels, op.in_channels // op.groups, *op.kernel)
        matrices = self.scheme.unfold(kernels.reshape(shape), op)
        matrices = matrices.reshape(op.groups, -1, *matrices.shape[1:])
        return matrices.mT if self._transposed else matrices


def cholesky(metric: Tensor) -> Tensor:
    """Return the lower Cholesky factors (..., n, n) of covariances, made definite where needed.

    A covariance that float32 summed may have eigenvalues below zero, by its rounding times the
    largest one, which may be n times the mean. What is added to the diagonals then is the least of
    growing shares of their means that leaves all definite.

    Raises:
        torch.linalg.LinAlgError: a covariance is not finite.
    """
    for floor in _FLOORS:
        factor: Tensor
        factor, failed = torch.linalg.cholesky_ex(_floored(metric, floor) if floor else metric)
        if not failed.any():
            break
    else:
        factor = torch.linalg.cholesky(metric)
    return factor


def _floored(metric: Tensor, floor: float = _FLOOR) -> Tensor:
    diagonal = torch.diagonal(metric, dim1=-2, dim2=-1)
    mean = diagonal.mean(-1, keepdim=True)
    added: Tensor = floor * torch.where(mean > 0, mean, torch.ones_like(mean))
    result: Tensor = metric + torch.diag_embed(added.expand_as(diagonal))
    return result


def _balanced(left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
    """Return factors of the same product that both carry the root of its singular values."""
    rank = left.shape[2]
    basis, core = torch.linalg.qr(left)
    middle = svd(core @ right).factors(rank)
    return basis @ middle[0], middle[1]
