"""Chains of a matrix product that sees few rows: reduced-rank regression in their span.

The kernel of full rank that is fitted is the layer's own and a correction in the span of the rows,
``W* = W + E P``, by ridge regression of what is missing of the targets. What is cut from it is what
its outputs vary by least, in the metric G and under the covariance A of the inputs: the principal
subspace of ``G^½ W* A W*ᵀ G^½``, which takes matrices of the rows and of the outputs alone, however
many inputs there are. A is the covariance of the rows, drawn to the identity as far as so few rows
call for (:func:`~trpexport.lowrank.fit.rows.shrinkage`), so that no rank is spent on what is chance
and directions that no row has count as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from trpexport.lowrank.chain import Chain
from trpexport.lowrank.fit.base import LayerFit, fitted_chain, relative
from trpexport.lowrank.fit.regression import cholesky
from trpexport.lowrank.fit.rows import LayerRows, Products, Rows, mean_square, shrinkage
from trpexport.lowrank.schemes import SCHEMES
from trpexport.ops import LinearOp

# Relative to the mean square of a row. The largest leaves the kernel nearly as it is.
_RIDGES = (1e-3, 1e-2, 1e-1, 1.0, 10.0)
# Rows that go through a chain at once.
_ROWS = 512


class RowsFit(LayerFit):
    """Chains of one matrix product, fitted to few rows.

    Args:
        kernel: of the layer, (O, K).
        op: the layer.
        scheme: name of the scheme.
        rows: what the images say.
    """

    def __init__(self, kernel: Tensor, op: LinearOp, scheme: str, rows: LayerRows) -> None:
        self._op, self._scheme = op, SCHEMES[scheme].form(op)
        self._rows, self._metric = rows, rows.metric
        self._everything = Rows.joined([rows.fit, rows.held_out])
        self._products = Products.of(self._everything.p, kernel)
        self._shrinkage, self._scale = shrinkage(self._products.pp, op.in_channels)

    @cached_property
    def variance(self) -> float:
        """What the outputs vary by under the covariance that is fitted to."""
        ww, metric = self._products.ww, self._metric
        total = torch.diagonal(ww) if metric is None else ww * metric
        seen = mean_square(self._targets, metric)
        return (1 - self._shrinkage) * seen + self._shrinkage * self._scale * float(total.sum())

    def is_seen(self, rank: int) -> bool:
        """The error of any rank is known."""
        return True

    def can_take(self, rank: int) -> bool:
        """There is a chain of any rank."""
        return True

    def errors(self, ranks: Sequence[int]) -> list[float]:
        """Return what the cut to each rank loses under the covariance that is fitted to."""
        lost = self._subspace[1].flip(0).cumsum(0).flip(0)
        return [float(lost[rank]) if rank < len(lost) else 0.0 for rank in ranks]

    def best_ridge(self, rank: int) -> float:
        """Return the ridge with which the kernel of full rank does best on images held out."""
        return self._ridge * self._op.in_channels / self._everything.count

    def chain(self, rank: int, ridge: float | None = None) -> Chain:
        """Return the fitted chain, of the best ridge.

        Both factors carry the root of each singular value of their product.
        """
        whole, half = self._whole, self._half
        vectors = self._subspace[0][:, :rank]
        if half is None:
            left, right = vectors, vectors.mT
        else:
            left = torch.linalg.solve_triangular(half.mT, vectors, upper=True)
            right = (half @ vectors).mT
        basis, core = torch.linalg.qr(left)
        right = core @ right
        square, turn = torch.linalg.eigh(right @ whole.square @ right.mT)
        square, turn = square.flip(0).clamp_min(0), turn.flip(1)
        root = square.sqrt().sqrt()
        root = torch.where(root > torch.finfo(root.dtype).eps ** 0.5 * root[:1], root, 1.0)
        right = (turn / root).mT @ right
        first = self._products.combined(right, right @ whole.correction)
        second = basis @ turn * root
        mean = self._everything.y.mean(0) - second @ (first @ self._products.mean)
        ops = self._scheme.factor_ops(self._op, rank)
        return fitted_chain(self._op, self._scheme.name, ops, (first, second), mean)

    def relative_error(self, chain: Chain, bias: Tensor | None) -> float:
        """Return the RMS error of what a chain gives, relative to what the layer should give."""
        square = 0.0
        everything = self._everything
        for p, y in zip(
            *(torch.split(some, _ROWS) for some in (everything.p, everything.y)), strict=True
        ):
            found = p.to(torch.float64)
            for kernel in chain.kernels:
                found = found @ kernel.to(found).mT
            missing = y - found if bias is None else y - found - bias
            square += mean_square(missing, self._metric) * len(p) / everything.count
        return relative(square, everything.power(self._metric))

    @cached_property
    def _half(self) -> Tensor | None:
        """C of the metric ``C Cᵀ``; None where that is the identity."""
        return None if self._metric is None else cholesky(self._metric)

    @cached_property
    def _targets(self) -> Tensor:
        """The targets, their mean subtracted."""
        return self._everything.y - self._everything.y.mean(0)

    @cached_property
    def _ridge(self) -> float:
        count, rest = self._rows.fit.count, self._rows.held_out.count
        if count < 2 or not rest:
            return _RIDGES[-1]
        pp, missing = self._products.pp, self._targets - self._products.wp
        among, towards = pp[:count, :count], pp[count:, :count]
        # Centred once more, by the mean of the rows that are fitted to.
        mean = among.mean(0)
        towards = towards - towards.mean(1, keepdim=True) - mean + mean.mean()
        among = among - mean - mean[:, None] + mean.mean()
        centre = missing[:count].mean(0)
        losses = []
        for ridge in _RIDGES:
            found = _solved(among, ridge, missing[:count] - centre)
            losses.append(mean_square(missing[count:] - centre - towards @ found, self._metric))
        return min(zip(losses, _RIDGES, strict=True), key=lambda each: (each[0], -each[1]))[1]

    @cached_property
    def _whole(self) -> _Whole:
        products = self._products
        correction = _solved(products.pp, self._ridge, self._targets - products.wp).mT
        crossed = correction @ products.wp
        seen = correction @ products.pp
        return _Whole(
            correction,
            outputs=products.wp + seen.mT,
            square=products.ww + crossed + crossed.mT + seen @ correction.mT,
        )

    @cached_property
    def _subspace(self) -> tuple[Tensor, Tensor]:
        """What to keep first of the outputs, (O, O) by columns, and what each of it is, (O,)."""
        whole, half = self._whole, self._half
        square = (1 - self._shrinkage) / len(whole.outputs) * (whole.outputs.mT @ whole.outputs)
        square += self._shrinkage * self._scale * whole.square
        if half is not None:
            square = half.mT @ square @ half
        values, vectors = torch.linalg.eigh(square)
        return vectors.flip(1), values.flip(0).clamp_min(0)


@dataclass(frozen=True)
class _Whole:
    """The kernel of full rank W* = W + E P, of centred rows P.

    Attributes:
        correction: E, (O, rows).
        outputs: P W*ᵀ, (rows, O).
        square: W* W*ᵀ, (O, O).
    """

    correction: Tensor
    outputs: Tensor
    square: Tensor


def _solved(pp: Tensor, ridge: float, y: Tensor) -> Tensor:
    """Return the weights (rows, O) of rows in a ridge regression on them.

    Args:
        pp: products of centred rows.
        ridge: relative to their mean square.
        y: targets (rows, O).
    """
    scale = float(torch.diagonal(pp).mean())
    ridged = pp.clone()
    ridged.diagonal().add_(ridge * scale if scale > 0 else 1.0)
    found: Tensor = torch.linalg.solve(ridged, y)
    return found
