"""The chains of one layer that keep its outputs: what is fitted, at which rank, how well."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from trpexport.lowrank.chain import Chain
from trpexport.lowrank.fit.base import LayerFit, fitted_chain, relative
from trpexport.lowrank.fit.moments import LayerMoments
from trpexport.lowrank.fit.patches import grouped, linear_map
from trpexport.lowrank.fit.regression import TYPICAL_RIDGE, Regression
from trpexport.lowrank.fit.rows import LayerRows
from trpexport.lowrank.fit.rows_fit import RowsFit
from trpexport.lowrank.fit.three_factors import fit_of
from trpexport.lowrank.schemes import SCHEMES, MatrixScheme
from trpexport.ops import LinearOp


def layer_fit(
    kernel: Tensor, op: LinearOp, scheme: str, evidence: LayerMoments | LayerRows
) -> LayerFit:
    """Return the fit of a layer's chains under a scheme to what images say of the layer."""
    if isinstance(evidence, LayerRows):
        return RowsFit(kernel, op, scheme, evidence)
    return MomentsFit(kernel, op, scheme, evidence)


class MomentsFit(LayerFit):
    """Chains of one layer under one scheme, fitted to its moments.

    Args:
        kernel: of the layer.
        op: the layer.
        scheme: name of the scheme.
        moments: what the images say.
    """

    def __init__(self, kernel: Tensor, op: LinearOp, scheme: str, moments: LayerMoments) -> None:
        self._moments = moments
        self._everything = moments.everything
        self._kernel, self._op, self._scheme = kernel, op, SCHEMES[scheme].form(op)
        self._seen_op = moments.seen_op(op)
        weight = moments.seen_kernels(grouped(kernel, op))
        self._regression = Regression(self._everything, weight, TYPICAL_RIDGE, moments.metric)
        self._problem = fit_of(self._regression, self._scheme, self._seen_op)

    @property
    def variance(self) -> float:
        """The variance of the targets over pixels, summed over channels."""
        return self._everything.variance(self._moments.metric)

    def is_seen(self, rank: int) -> bool:
        """Say whether factors of this rank are a matter of the input channels that are seen."""
        if self._seen_op == self._op:
            return True
        seen, whole = (self._scheme.factor_ops(op, rank) for op in (self._seen_op, self._op))
        widths = ([op.out_channels for op in ops] for ops in (seen, whole))
        first, second = widths
        return first == second and rank <= self._scheme.full_rank(self._seen_op)

    def errors(self, ranks: Sequence[int]) -> list[float]:
        """Return the mean squared error of the outputs at a pixel, at each rank."""
        return self._problem.errors(ranks)

    def best_ridge(self, rank: int) -> float:
        """Return the ridge with which the factors do best on images they were not fitted to."""
        return self._problem.best_ridge(self._fitted_rank(rank), self._moments)

    def relative_error(self, chain: Chain, bias: Tensor | None) -> float:
        """Return the RMS error of what a chain gives, relative to what the layer should give."""
        op, metric = self._op, self._moments.metric
        kernels, biases = linear_map(chain.product, bias, op)
        seen = self._moments.seen_kernels(kernels)
        square = self._everything.squared_error(seen, biases, metric)
        return relative(square, self._everything.power(metric))

    def can_take(self, rank: int) -> bool:
        """Say whether there is a chain of this rank."""
        return self.is_seen(rank) or isinstance(self._scheme, MatrixScheme)

    def chain(self, rank: int, ridge: float | None = None) -> Chain:
        """Return the fitted chain; the last factor has a bias, which corrects the mean error.

        What a rank has left over, once all that is seen of the inputs is fitted, goes to the rest.
        """
        fitted = self._fitted_rank(rank)
        factors = self._problem.weights(fitted, TYPICAL_RIDGE if ridge is None else ridge)
        bias = self._regression.bias(self._problem.kernels(factors))
        if self._moments.narrowing is not None:
            factors = (self._moments.narrowing.widened(factors[0]), *factors[1:])
        if fitted < rank:
            factors = self._with_unseen(factors, rank - fitted)
        ops = self._scheme.factor_ops(self._op, rank)
        return fitted_chain(self._op, self._scheme.name, ops, factors, bias)

    def _fitted_rank(self, rank: int) -> int:
        return rank if self.is_seen(rank) else self._scheme.full_rank(self._seen_op)

    def _with_unseen(self, factors: tuple[Tensor, ...], rank: int) -> tuple[Tensor, ...]:
        """Return factors and, beside them, the SVD's of what the kernel makes of unseen inputs.

        Those are zero on all inputs that are seen, at any rank: each of their input directions is
        one of the unseen.
        """
        scheme, narrowing = self._scheme, self._moments.narrowing
        assert isinstance(scheme, MatrixScheme)
        assert narrowing is not None
        rest = narrowing.rest
        op = rest.op(self._op)
        kernel = rest.kernels(grouped(self._kernel, self._op))
        kernel = kernel.reshape(op.out_channels, -1, *op.kernel)
        first, *others = scheme.truncate(kernel, op, rank)
        unseen = (rest.widened(first), *others)
        both = (scheme.matrices_of(some, self._op) for some in (factors, unseen))
        left, right = zip(*both, strict=True)
        return scheme.factor_weights(torch.cat(left, dim=2), torch.cat(right, dim=1), self._op)
