"""Three factors that reproduce a layer's outputs: the first of a pair, and a pair behind it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from trpexport.lowrank.fit.moments import LayerMoments
from trpexport.lowrank.fit.patches import seen_through
from trpexport.lowrank.fit.regression import Factorization, Fit, Regression
from trpexport.lowrank.schemes import MatrixScheme, Scheme
from trpexport.lowrank.schemes.three_factors import ThreeFactors
from trpexport.ops import LinearOp


class NestedFactorization(Fit):
    """The factor that the pair in front begins with, and the pair behind it.

    On the channels that the first factor gives, the other two are a layer of their own with the
    same targets, to which a pair is fitted.
    """

    scheme: ThreeFactors

    def __init__(self, regression: Regression, scheme: ThreeFactors, op: LinearOp) -> None:
        super().__init__(regression, scheme, op)
        first = Factorization(regression, scheme.front, op).first[:, 0]
        # Of nested spans: the leading columns are a basis of the leading first factors.
        self._basis = torch.linalg.qr(first)[0]

    def weights(self, rank: int, ridge: float | None = None) -> tuple[Tensor, ...]:
        """Return the kernels of the factors, of equal norms."""
        basis, behind, outer = self._behind(rank)
        return self.scheme.weights(basis, behind.weights(outer, ridge), self.op)

    def errors(self, ranks: Sequence[int]) -> list[float]:
        """Return what is minimised, at each rank."""
        found = []
        for rank in ranks:
            _, behind, outer = self._behind(rank)
            found.append(behind.errors([outer])[0] + self._lost(behind.regression.weight))
        return found

    def best_ridge(self, rank: int, moments: LayerMoments) -> float:
        """Return the ridge with which the last two factors do best on images held out."""
        basis, behind, outer = self._behind(rank)
        return behind.best_ridge(outer, moments.seen_through(basis))

    def _behind(self, rank: int) -> tuple[Tensor, Factorization, int]:
        """Return the first factor's basis, the problem behind it, and the rank there."""
        inner, outer = self.scheme.ranks(self.op, rank)
        basis, whole = self._basis[:, :, :inner], self.regression
        regression = replace(
            whole,
            moments=whole.moments.seen_through(basis),
            weight=seen_through(basis, whole.weight),
            inputs=whole.moments,
        )
        op = self.scheme.op_behind(self.op, inner)
        return basis, Factorization(regression, self.scheme.behind, op), outer

    def _lost(self, weight: Tensor) -> float:
        """Return the ridge's share in the error of a kernel without what the basis leaves out."""
        whole = self.regression
        lost = whole.weight @ whole.weight.mT - weight @ weight.mT
        if whole.metric is not None:
            lost = lost * whole.metric
        else:
            lost = torch.diagonal(lost, dim1=1, dim2=2)
        return float((whole.scale * lost.flatten(1).sum(1)).sum())


def fit_of(regression: Regression, scheme: Scheme, op: LinearOp) -> Fit:
    """Return the fit of a layer's factors under any scheme."""
    scheme = scheme.form(op)
    if isinstance(scheme, ThreeFactors):
        return NestedFactorization(regression, scheme, op)
    assert isinstance(scheme, MatrixScheme)
    return Factorization(regression, scheme, op)
