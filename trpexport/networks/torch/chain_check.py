"""Is a chain the layer that its plan says? In float64, whoever holds the network.

Two comparisons that are never mixed up: **equivalence**, of a chain of factors with the one
operator that its product stands for, where any difference beyond rounding is a bug; and
**approximation**, of the chain with the original layer, which is reported and never passed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from trpexport.lowrank.chain import Chain, truncated
from trpexport.lowrank.schemes import SCHEMES, MatrixScheme
from trpexport.networks.torch.modules import make_layer, set_kernel
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
    whole = chain.product
    x = x.double()
    y = x
    for op, kernel in zip(chain.ops, chain.kernels, strict=True):
        y = _applied(op, kernel, chain.bias if op.bias else None, y)
    product = replace(chain.op, bias=chain.bias is not None)
    output_error = relative_rms(_applied(layer.op, weight, bias, x), y)
    return LayerCheck(
        name=layer.name,
        factor_error=_factor_error(layer, whole, weight) if chain.is_truncation else None,
        equivalence_error=relative_rms(_applied(product, whole, chain.bias, x), y),
        output_error=output_error if math.isfinite(output_error) else None,
    )


def _factor_error(layer: LayerPlan, kernel: Tensor, weight: Tensor) -> float:
    """Return how far a product of factors is from the truncated kernel, relative to this.

    Of one unfolded matrix the truncation is the closest product of its rank, and how close it is
    stands in the plan (Eckart and Young, "The approximation of one matrix by another of lower
    rank", 1936): factors that are as close are a truncation, and no SVD is computed once more.
    The squares of errors that lie within products of this rank add up nearly.
    """
    assert layer.scheme is not None
    assert layer.rank is not None
    if layer.weight_error is None or not isinstance(
        SCHEMES[layer.scheme].form(layer.op), MatrixScheme
    ):
        cut = truncated(weight, None, layer.op, scheme=layer.scheme, rank=layer.rank)
        return relative_rms(cut.product, kernel)
    original = weight.to(torch.float64)
    energy, lost = float(original.square().sum()), layer.weight_error**2
    distance = float((original - kernel).square().sum())
    if not energy:
        return math.sqrt(distance)
    return math.sqrt(abs(distance / energy - lost) / (1 - lost)) if lost < 1 else math.inf


def relative_rms(reference: Tensor, candidate: Tensor) -> float:
    """Return the RMS difference relative to the RMS of ``reference``; 0 if they are the same."""
    difference = float((candidate - reference).double().square().mean().sqrt())
    scale = float(reference.double().square().mean().sqrt())
    if difference == 0.0:
        return 0.0
    return difference / scale if scale else float("inf")


def _applied(op: LinearOp, kernel: Tensor, bias: Tensor | None, x: Tensor) -> Tensor:
    """Return what an operator makes of an input in float64."""
    module = make_layer(op).to(x)
    set_kernel(module, kernel)
    with torch.no_grad():
        if module.bias is not None and bias is not None:
            module.bias.copy_(bias)
        output: Tensor = module(x)
    return output
