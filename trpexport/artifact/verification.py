"""Is a factorized network what its plan says? Layer by layer, then whole networks on inputs."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from trpexport.artifact.drift import remedy
from trpexport.artifact.passes.base import Approximate, Equivalent, Step
from trpexport.artifact.reference import Comparisons, ReferenceRuns, Runnable
from trpexport.compare import OutputComparer
from trpexport.errors import VerificationError
from trpexport.inputs import rows
from trpexport.networks.base import Network
from trpexport.networks.torch.chain_check import LayerCheck
from trpexport.plan import Plan

DECOMPOSE, REWRITE = "decompose", "rewrite"
N = TypeVar("N", bound=Network)


@dataclass(frozen=True)
class FactorizationCheck:
    """What the verification of a rewrite found.

    Attributes:
        layers: one check a rewritten layer.
        steps: ``decompose`` compares the factorized network with the original, where somebody has
            that, and ``rewrite`` with the dense network of its products.
    """

    layers: tuple[LayerCheck, ...]
    steps: tuple[Step, ...]

    @property
    def equivalence(self) -> Comparisons:
        """The factorized network against the dense network of its products, by output."""
        return next(step.outputs for step in self.steps if step.name == REWRITE)


def verify_factorization(
    original: N | None,
    factorized: N,
    plan: Plan,
    reference: ReferenceRuns,
    *,
    seconds: float,
) -> FactorizationCheck:
    """Check that a factorized network computes what its plan says.

    Args:
        original: the network before the rewrite; None where the factors were trained since, and
            stand for nothing but their own products.
        factorized: the network after it.
        plan: the plan that was applied.
        reference: inputs, and what the factorized network makes of them.
        seconds: how long whole networks are compared.

    Raises:
        VerificationError: it does not; the first layer that drifts is named.
    """
    started = time.perf_counter()
    twin = factorized.dense()
    before = twin if original is None else original
    few = rows(reference.golden(), slice(reference.batch or 1))
    layers = factorized.check_layers(before, plan, few)
    for layer in layers:
        if not layer.is_equivalent:
            raise VerificationError(
                f"{layer.name} drifts: its factors do not compute {_drift(layer)}; nothing was "
                "written, please report this"
            )
    claim = Equivalent(factorized.tolerance)
    outputs, *others = _against(
        [twin] if original is None else [twin, original], reference, seconds
    )
    wrong = claim.broken_by(outputs)
    if wrong is not None:
        limit = claim.tolerance.rms_error
        where = twin.first_drift(factorized, plan, reference.golden(), limit)
        advice = remedy(twin, reference.golden(), outputs[wrong], "please report this")
        raise VerificationError(
            f"{where or 'the network'} drifts: the factorized network is not the dense one that "
            f"its factors stand for ({outputs[wrong]}); nothing was written, {advice}"
        )
    rewrite = Step(REWRITE, claim, outputs, time.perf_counter() - started)
    # Both were compared in one go: it counts as the rewrite's.
    decompose = tuple(Step(DECOMPOSE, Approximate(), found, 0.0) for found in others)
    return FactorizationCheck(layers, (*decompose, rewrite))


def _against(
    truths: Sequence[Runnable], reference: ReferenceRuns, seconds: float
) -> list[Comparisons]:
    """Compare the factorized network with each of some that are the truth here.

    At other sizes with the first alone: no error over the variation could be told of several sizes.
    """
    comparers = [OutputComparer() for _ in truths]
    for feeds, outputs in reference.runs(seconds):
        for truth, comparer in zip(truths, comparers, strict=True):
            comparer.update(truth.run(feeds), outputs)
    for feeds, outputs in reference.resized_runs():
        comparers[0].update(truths[0].run(feeds), outputs)
    return [comparer.result() for comparer in comparers]


def _drift(layer: LayerCheck) -> str:
    """Say what a layer should compute, and how far it is from that."""
    error = f"output error {layer.equivalence_error:.2g}"
    if layer.factor_error is None:
        return f"the layer with their product as its weight ({error})"
    return f"the truncated layer (weight error {layer.factor_error:.2g}, {error})"
