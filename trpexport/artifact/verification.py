"""Nothing is exported that was not verified: whole networks, on as many inputs as time allows."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain, repeat
from math import prod
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from trpexport.artifact.drift import first_drifting_conv
from trpexport.compare import FLOAT32, Comparison, OutputComparer
from trpexport.errors import VerificationError
from trpexport.networks.torch.equivalence import LayerCheck, check_layers, first_drift
from trpexport.networks.torch.outputs import INPUT, run
from trpexport.networks.torch.rewrite import dense
from trpexport.networks.torch.running import example_input
from trpexport.plan import Plan
from trpexport.runtime.session import open_session, run_in_batches

LEAST_INPUTS = 8
MOST_INPUTS = 1024
# What one batch may cost: enough to keep the cores busy, little enough to fit in memory.
_BATCH_MACS = 2_000_000_000
_BATCH_ELEMENTS = 4_000_000
_LARGEST_BATCH = 64
_REMEMBERED_ELEMENTS = 1_000_000  # of one batch: the outputs of classifiers, not of segmentation

Comparisons = dict[str, Comparison]
Outputs = dict[str, NDArray[np.generic]]


@dataclass(frozen=True)
class ReferenceRuns:
    """Inputs, and what the network that is being verified makes of them: the same every time.

    Several files and networks are compared with it, so its outputs are remembered.

    Attributes:
        network: the network.
        shape: shape of its input, batch first.
        macs: its MACs for one image, which set the batch size.
        given: real inputs (images, *shape[1:]); standard normal ones are drawn where it is None.
    """

    network: nn.Module
    shape: Sequence[int]
    macs: int
    given: Tensor | None = None
    _remembered: dict[int, Outputs] = field(default_factory=dict, repr=False, compare=False)

    def golden(self) -> Tensor:
        """Return the first inputs, at least 1 and at most 8 of them."""
        return self._batch(0, max(1, min(LEAST_INPUTS, _BATCH_ELEMENTS // self._elements)))

    def runs(
        self, seconds: float, clock: Callable[[], float] = time.monotonic
    ) -> Iterator[tuple[Tensor, Outputs]]:
        """Yield (inputs, outputs) for ``seconds``, but at least 8 images and at most 1,024 in all.

        The first two batches hold 1 and 3 images, so that a batch size that is said to be open is.
        """
        most = min(_LARGEST_BATCH, _BATCH_ELEMENTS // self._elements)
        size = max(1, min(most, _BATCH_MACS // max(1, self.macs)))
        total = MOST_INPUTS if self.given is None else min(MOST_INPUTS, len(self.given))
        end = clock() + seconds
        start = 0
        sizes = chain((1, 3), repeat(size))
        while start < total and (start < LEAST_INPUTS or clock() < end):
            batch = self._batch(start, min(next(sizes), total - start))
            yield batch, self._outputs(start, batch)
            start += len(batch)

    @property
    def _elements(self) -> int:
        return max(1, prod(self.shape[1:]))

    def _batch(self, start: int, size: int) -> Tensor:
        if self.given is None:
            return example_input(self.network, (size, *self.shape[1:]), seed=start)
        return self.given[start : start + size].to(next(self.network.parameters()))

    def _outputs(self, start: int, batch: Tensor) -> Outputs:
        if start in self._remembered:
            return self._remembered[start]
        outputs = run(self.network, batch)
        if sum(array.size for array in outputs.values()) <= _REMEMBERED_ELEMENTS:
            self._remembered[start] = outputs
        return outputs


@dataclass(frozen=True)
class FactorizationCheck:
    """What the verification of a rewrite found.

    Attributes:
        layers: one check a rewritten layer.
        equivalence: factorized against the dense network of its products, by output.
        approximation: factorized against the original, by output; empty where nobody has it.
    """

    layers: tuple[LayerCheck, ...]
    equivalence: Comparisons
    approximation: Comparisons


def verify_factorization(
    original: nn.Module | None, plan: Plan, reference: ReferenceRuns, *, seconds: float
) -> FactorizationCheck:
    """Check that a factorized network computes what its plan says.

    Args:
        original: the network before the rewrite; None where the factors were trained since, and
            stand for nothing but their own products.
        plan: the plan that was applied.
        reference: the factorized network and its inputs.
        seconds: how long whole networks are compared.

    Raises:
        VerificationError: it does not; the first layer that drifts is named.
    """
    factorized, x = reference.network, reference.golden()
    twin = dense(factorized)
    layers = check_layers(original or twin, factorized, plan, x[:1])
    for layer in layers:
        if not layer.is_equivalent:
            raise VerificationError(
                f"{layer.name} drifts: its factors do not compute {_drift(layer)}; nothing was "
                "written, please report this"
            )
    equivalence, approximation = OutputComparer(), OutputComparer()
    for batch, outputs in reference.runs(seconds):
        equivalence.update(run(twin, batch), outputs)
        if original is not None:
            approximation.update(run(original, batch), outputs)
    check = FactorizationCheck(
        layers, equivalence.result(), approximation.result() if original else {}
    )
    wrong = _first_unequal(check.equivalence)
    if wrong is not None:
        names = [layer.name for layer in plan.rewritten]
        where = first_drift(twin, factorized, names, x, FLOAT32.rms_error)
        raise VerificationError(
            f"{where or 'the network'} drifts: the factorized network is not the dense one that "
            f"its factors stand for ({check.equivalence[wrong]}); nothing was written"
        )
    return check


def _drift(layer: LayerCheck) -> str:
    """Say what a layer should compute, and how far it is from that."""
    error = f"output error {layer.equivalence_error:.2g}"
    if layer.factor_error is None:
        return f"the convolution with their product as its weight ({error})"
    return f"the truncated convolution (weight error {layer.factor_error:.2g}, {error})"


def compare_onnx(path: Path, reference: ReferenceRuns, *, seconds: float) -> Comparisons:
    """Compare an ONNX file, run by ONNX Runtime, with the network it was made from, by output."""
    session = open_session(path)
    comparer = OutputComparer()
    for batch, outputs in reference.runs(seconds):
        comparer.update(outputs, run_in_batches(session, {INPUT: batch.cpu().numpy()}))
    return comparer.result()


def verify_onnx(path: Path, reference: ReferenceRuns, *, seconds: float) -> Comparisons:
    """Check that an ONNX file computes what the network it was made from computes.

    Raises:
        VerificationError: it does not; the first layer that drifts is named.
    """
    comparisons = compare_onnx(path, reference, seconds=seconds)
    wrong = _first_unequal(comparisons)
    if wrong is not None:
        network, x = reference.network, reference.golden()
        where = first_drifting_conv(network, path, x, FLOAT32.rms_error)
        raise VerificationError(
            f"{where or 'the network'} drifts: the ONNX file is not the PyTorch network "
            f"({wrong}: {comparisons[wrong]}); nothing was written, try the other exporter "
            "(--legacy-exporter) or another --opset"
        )
    return comparisons


def is_equivalent(comparisons: Comparisons) -> bool:
    """Whether every output agrees within float32 tolerance."""
    return _first_unequal(comparisons) is None


def _first_unequal(comparisons: Comparisons) -> str | None:
    return next((name for name, c in comparisons.items() if not c.is_equivalent()), None)
