"""Is a chain the layer that its plan says? In float64, whoever holds the network.

Two comparisons that are never mixed up: **equivalence**, of a chain of factors with the one
operator that its product stands for, where any difference beyond rounding is a bug; and
**approximation**, of the chain with the original layer, which is reported and never passed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from trpexport.lowrank.chain import Chain, truncated
from trpexport.lowrank.schemes import SCHEMES, MatrixScheme
from trpexport.networks.torch.modules import make_layer, weight_of
from trpexport.ops import LinearOp
from trpexport.plan import LayerPlan

# The factors are rounded to float32, whose unit roundoff is 6e-8; a sum of many such errors
# stays well below this.
FACTOR_TOLERANCE = 1e-5
# Both sides run in float64 on the same factors: only the order of summation differs.
OUTPUT_TOLERANCE = 1e-9


@dataclass(frozen=True)
class LayerCheck:
    """How a chain of factors compares with what it stands for. All errors are relative.

    Attributes:
        name: the layer.
        factor_error: product of the factors against the truncated weight, Frobenius, as
            :func:`_factor_error` has it; None where they are no truncation, but calibrated.
        equivalence_error: output of the chain against the operator with the product as its weight,
            RMS over the layer's real inputs.
        output_error: output of the chain against the original layer: the approximation, RMS;
            None where the original one's is zero everywhere.
    """

    name: str
    factor_error: float | None
    equivalence_error: float
    output_error: float | None

    @property
    def is_equivalent(self) -> bool:
        """Whether the chain is what it stands for, up to rounding. NaN is not."""
        if self.factor_error is not None and not self.factor_error <= FACTOR_TOLERANCE:
            return False
        return self.equivalence_error <= OUTPUT_TOLERANCE


def check_chain(
    layer: LayerPlan, chain: Chain, weight: Tensor, bias: Tensor | None, x: Tensor
) -> LayerCheck:
    """Compare a chain with its plan.

    Args:
        layer: what was planned.
        chain: what stands in for the layer.
        weight: the original kernel.
        bias: the original bias.
        x: an input of the layer.
    """
    assert layer.scheme is not None
    assert layer.rank is not None
    # One dense kernel in float64 at a time: that of a wide layer takes 800 MB.
    factor_error = _factor_error(layer, chain, weight) if chain.is_truncation else None
    x = x.double()
    y = x
    for op, kernel in zip(chain.ops, chain.kernels, strict=True):
        y = _applied(op, kernel, chain.bias if op.bias else None, y)
    output_error = relative_rms(_applied(layer.op, weight, bias, x), y)
    product = replace(chain.op, bias=chain.bias is not None)
    expected = _applied(product, chain.product, chain.bias, x)
    return LayerCheck(
        name=layer.name,
        factor_error=factor_error,
        equivalence_error=relative_rms(expected, y),
        output_error=output_error if math.isfinite(output_error) else None,
    )


def _factor_error(layer: LayerPlan, chain: Chain, weight: Tensor) -> float:
    """Return how far a product of factors is from the truncated kernel, relative to this.

    Of one unfolded matrix the truncation is the closest product of its rank, and how close it is
    stands in the plan (Eckart and Young, "The approximation of one matrix by another of lower
    rank", 1936): factors that are as close are a truncation, and no SVD is computed once more.
    The squares of errors that lie within products of this rank add up nearly. Where they are not as
    close, the plan may be of other weights, as that of factors that were trained since.
    """
    assert layer.scheme is not None
    assert layer.rank is not None
    lost = layer.weight_error
    is_one_matrix = isinstance(SCHEMES[layer.scheme].form(layer.op), MatrixScheme)
    if is_one_matrix and lost is not None and lost < 1:
        excess = math.sqrt(abs(chain.distance(weight) - lost**2) / (1 - lost**2))
        if excess <= FACTOR_TOLERANCE:
            return excess
    cut = truncated(weight, None, layer.op, scheme=layer.scheme, rank=layer.rank)
    return relative_rms(cut.product, chain.product)


def relative_rms(reference: Tensor, candidate: Tensor) -> float:
    """Return the RMS difference relative to the RMS of ``reference``; 0 if they are the same."""
    difference = float((candidate - reference).double().square().mean().sqrt())
    scale = float(reference.double().square().mean().sqrt())
    if difference == 0.0:
        return 0.0
    return difference / scale if scale else float("inf")


def _applied(op: LinearOp, kernel: Tensor, bias: Tensor | None, x: Tensor) -> Tensor:
    """Return what an operator makes of an input in float64."""
    module = make_layer(op)
    module.weight = nn.Parameter(weight_of(kernel, op).to(x))  # no copy of one in float64
    if module.bias is not None and bias is not None:
        module.bias = nn.Parameter(bias.to(x))
    with torch.no_grad():
        output: Tensor = module(x)
    return output
