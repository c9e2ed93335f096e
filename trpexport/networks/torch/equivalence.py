"""Is each chain the layer that its plan says? Layer by layer, in float64.

Two comparisons that are never mixed up: **equivalence**, of a chain of factors with the one
layer that its product stands for, where any difference beyond rounding is a bug; and
**approximation**, of the chain with the original layer, which is reported and never passed.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

from torch import Tensor, nn

from trpexport.errors import PlanError
from trpexport.lowrank.chain import truncated
from trpexport.networks.torch.modules import LAYERS, FactorChain, LinearLayer, kernel_of
from trpexport.networks.torch.rewrite import dense_layer
from trpexport.networks.torch.running import argument, evaluating, noting, outputs_of
from trpexport.plan import LayerPlan, Plan

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
        factor_error: product of the factors against the truncated weight, Frobenius; None where
            they are no truncation, but calibrated.
        equivalence_error: output of the chain against the layer with the product as its
            weight, RMS over the layer's real inputs.
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


def check_layers(
    original: nn.Module, factorized: nn.Module, plan: Plan, x: Tensor
) -> tuple[LayerCheck, ...]:
    """Compare every rewritten layer with its plan, on the inputs that it gets in ``original``.

    Args:
        original: the network before the rewrite.
        factorized: the network after it.
        plan: the plan that was applied.
        x: input of the network, batch first.

    Returns:
        One check a rewritten layer, in the order in which they run.
    """
    layers = {layer.name: layer for layer in plan.rewritten}
    originals, chains = dict(original.named_modules()), dict(factorized.named_modules())
    with evaluating(original, factorized):
        found = []
        for name, run in _runs(original, layers, x).items():
            module, chain = originals[name], chains.get(name)
            assert isinstance(module, LAYERS)
            if not isinstance(chain, FactorChain):
                raise PlanError(f"the plan is for another network: {name} is no chain of factors")
            found.append(_check(module, chain, layers[name], run.input))
        return tuple(found)


def first_drift(
    reference: nn.Module, candidate: nn.Module, names: Sequence[str], x: Tensor, tolerance: float
) -> str | None:
    """Return the first of the modules ``names`` whose output differs between two networks.

    Args:
        reference: a network.
        candidate: another one, with modules of the same names.
        names: modules to compare, in the order in which they run.
        x: input of both, batch first.
        tolerance: largest relative RMS difference that is no drift.
    """
    with evaluating(reference, candidate):
        expected, actual = _runs(reference, names, x), _runs(candidate, names, x)
    for name in names:
        if not relative_rms(expected[name].output, actual[name].output) <= tolerance:
            return name
    return None


class _Run(NamedTuple):
    """What went into a module and what came out, at its first call."""

    input: Tensor
    output: Tensor


def _runs(model: nn.Module, names: Collection[str], x: Tensor) -> dict[str, _Run]:
    """Return the first run of each of the modules ``names``, in the order in which they ran."""
    runs: dict[str, _Run] = {}

    def keep(name: str, _: nn.Module, inputs: Any, keywords: Any, output: Tensor) -> None:
        # Copies, because a ReLU that follows may work in place.
        if name not in runs:
            runs[name] = _Run(argument(inputs, keywords).clone(), output.clone())

    modules = {
        module: partial(keep, name) for name, module in model.named_modules() if name in names
    }
    with noting(modules):
        outputs_of(model, x)
    return runs


def relative_rms(reference: Tensor, candidate: Tensor) -> float:
    """Return the RMS difference relative to the RMS of ``reference``; 0 if they are the same."""
    difference = float((candidate - reference).double().square().mean().sqrt())
    scale = float(reference.double().square().mean().sqrt())
    if difference == 0.0:
        return 0.0
    return difference / scale if scale else float("inf")


def _check(module: LinearLayer, chain: FactorChain, layer: LayerPlan, x: Tensor) -> LayerCheck:
    assert layer.scheme is not None
    assert layer.rank is not None
    factor_error = None
    if chain.is_truncation:
        cut = truncated(kernel_of(module), None, layer.op, scheme=layer.scheme, rank=layer.rank)
        factor_error = relative_rms(cut.product, chain.chain.product)
    exact = copy.deepcopy(chain).double()
    x = x.double()
    y = exact(x)
    output_error = relative_rms(copy.deepcopy(module).double()(x), y)
    return LayerCheck(
        name=layer.name,
        factor_error=factor_error,
        equivalence_error=relative_rms(dense_layer(exact)(x), y),
        output_error=output_error if math.isfinite(output_error) else None,
    )
