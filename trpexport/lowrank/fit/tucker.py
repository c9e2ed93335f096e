"""Tucker-2 factors that reproduce a layer's outputs: an input-channel pair, cut once more."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from trpexport.lowrank.fit.moments import LayerMoments
from trpexport.lowrank.fit.patches import seen_through
from trpexport.lowrank.fit.regression import Factorization, Fit, Regression
from trpexport.lowrank.schemes import MatrixScheme, Scheme
from trpexport.lowrank.schemes.channel import Channel
from trpexport.lowrank.schemes.input_channel import InputChannel
from trpexport.lowrank.schemes.tucker2 import Tucker2
from trpexport.ops import LinearOp


class TuckerFactorization(Fit):
    """The 1x1 convolution that an input-channel pair begins with, and a channel pair behind it.

    On the channels that the first factor gives, the other two are a layer of their own with the
    same targets, for which channel-wise pairs have a closed form.
    """

    scheme: Tucker2

    def __init__(self, regression: Regression, scheme: Tucker2, op: LinearOp) -> None:
        super().__init__(regression, scheme, op)
        first = Factorization(regression, InputChannel(), op).first[:, 0]
        # Of nested spans: the leading columns are a basis of the leading first factors.
        self._basis = torch.linalg.qr(first)[0]

    def weights(self, rank: int, ridge: float | None = None) -> tuple[Tensor, ...]:
        """Return the kernels of the factors: 1x1, the core, 1x1."""
        basis, behind, outer = self._behind(rank)
        core, last = behind.weights(outer, ridge)
        shape = (len(basis), outer, basis.shape[2], -1)
        outputs = last.reshape(len(basis), -1, outer)
        return self.scheme.weights(basis, core.reshape(shape), outputs, self.op)

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
        op = replace(self.op, in_channels=inner * self.op.groups)
        return basis, Factorization(regression, Channel(), op), outer

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
    if isinstance(scheme, Tucker2):
        return TuckerFactorization(regression, scheme, op)
    assert isinstance(scheme, MatrixScheme)
    return Factorization(regression, scheme, op)
