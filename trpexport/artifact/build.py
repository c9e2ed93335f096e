"""One export: everything that goes into a bundle, each step verified before the next."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from trpexport import bundle
from trpexport.artifact.facts import (
    ExportedFile,
    manifest_facts,
    preprocessing_of,
    provenance,
    report_facts,
)
from trpexport.artifact.simplify import simplify
from trpexport.artifact.to_onnx import DEFAULT_OPSET, annotate, to_onnx
from trpexport.artifact.verification import (
    Comparisons,
    FactorizationCheck,
    ReferenceRuns,
    compare_onnx,
    is_equivalent,
    verify_factorization,
    verify_onnx,
)
from trpexport.checkpoints import Checkpoint, save_checkpoint
from trpexport.choose.spectra import keep_all
from trpexport.errors import ModelError
from trpexport.files import write_json
from trpexport.golden import write_golden
from trpexport.networks.torch.network import TorchNetwork
from trpexport.networks.torch.outputs import INPUT, run
from trpexport.networks.torch.rewrite import dense
from trpexport.plan import Plan
from trpexport.stages import Stages


@dataclass(frozen=True)
class ExportSettings:
    """How a network is exported and how long it is verified.

    Attributes:
        opset: ONNX operator set to write.
        dynamic_batch: leave the batch size of the ONNX file open.
        legacy_exporter: use the TorchScript-based exporter.
        simplify: run onnxsim on the file.
        baseline: write the original network into the bundle as well, to bench against.
        verify_seconds: how long whole networks are compared, all comparisons together.
        replace: replace a bundle that stands in the place.
    """

    opset: int = DEFAULT_OPSET
    dynamic_batch: bool = False
    legacy_exporter: bool = False
    simplify: bool = True
    baseline: bool = False
    verify_seconds: float = 20.0
    replace: bool = False


@dataclass(frozen=True)
class BundleReport:
    """What an export did: the content of ``report.json``, and where the bundle is.

    Attributes:
        path: the bundle.
        plan: what happened to each layer.
        data: JSON-ready facts.
    """

    path: Path
    plan: Plan
    data: Mapping[str, Any]


def export_bundle(
    network: nn.Module,
    plan: Plan,
    out: str | Path,
    *,
    original: nn.Module | None = None,
    checkpoint: Checkpoint | None = None,
    settings: ExportSettings | None = None,
    inputs: NDArray[np.floating[Any]] | None = None,
    notes: Sequence[str] = (),
    stages: Stages | None = None,
) -> BundleReport:
    """Verify a factorized network, export it as ONNX, verify that, and write a bundle.

    Args:
        network: what :func:`trpexport.factorize` returned for ``plan``, or a network to export as
            it is, with a plan that rewrites nothing.
        plan: the plan.
        out: the directory to write; it appears whole or not at all.
        original: the network before the rewrite; None where the factors were trained since.
        checkpoint: where the network comes from, for the bundle's provenance.
        settings: how to export; the defaults where it is None.
        inputs: real inputs (images, channels, height, width) to verify on; standard normal ones
            where it is None.
        notes: what the reader of the report should know besides.
        stages: times and announces the stages.

    Raises:
        VerificationError: the rewrite or the ONNX file is not equivalent; nothing is written.
        ModelError: the network can't be exported.
        OutputError: the place can't be written.
    """
    settings = settings or ExportSettings()
    out = Path(out)
    bundle.check_target(out, replace=settings.replace)
    job = _Job(
        original=original,
        plan=plan,
        checkpoint=checkpoint,
        settings=settings,
        reference=ReferenceRuns(network, plan.input_shape, plan.macs_after, _given(plan, inputs)),
        notes=tuple(notes),
        stages=stages or Stages(),
    )
    check = job.verify_rewrite()
    with bundle.staged_directory(out, replace=settings.replace) as staging:
        exported = job.export_onnx(staging / bundle.MODEL)
        if settings.baseline and plan.rewritten and original is not None:
            job.export_baseline(original, staging / bundle.BASELINE)
        report = job.write_rest(staging, check, exported)
    return BundleReport(out, plan, report)


def _given(plan: Plan, inputs: NDArray[np.floating[Any]] | None) -> Tensor | None:
    if inputs is None:
        return None
    if inputs.ndim != len(plan.input_shape) or inputs.shape[1:] != plan.input_shape[1:]:
        wanted = "x".join(map(str, plan.input_shape[1:]))
        raise ModelError(
            f"the inputs to verify on have shape {'x'.join(map(str, inputs.shape))}, "
            f"the network takes (images, {wanted})"
        )
    if not len(inputs):
        raise ModelError("there are no inputs to verify on")
    return Tensor(np.ascontiguousarray(inputs, dtype=np.float32))


@dataclass(frozen=True)
class _Job:
    """One export on its way into a bundle."""

    original: nn.Module | None
    plan: Plan
    checkpoint: Checkpoint | None
    settings: ExportSettings
    reference: ReferenceRuns
    notes: tuple[str, ...]
    stages: Stages

    @property
    def network(self) -> nn.Module:
        """The network to export."""
        return self.reference.network

    def verify_rewrite(self) -> FactorizationCheck | None:
        """Check the factorized network against its plan; None where nothing was rewritten."""
        if not self.plan.rewritten:
            return None
        with self.stages("verify the rewrite"):
            return verify_factorization(
                self.original,
                self.plan,
                self.reference,
                seconds=self.settings.verify_seconds / 2,
            )

    def export_onnx(self, path: Path) -> ExportedFile:
        """Write the ONNX file; every step is compared with the PyTorch network."""
        settings, notes = self.settings, []
        steps: dict[str, Comparisons] = {}
        with self.stages("export to ONNX"):
            exporter = to_onnx(
                self.network,
                self.plan.input_shape,
                path,
                opset=settings.opset,
                dynamic_batch=settings.dynamic_batch,
                legacy_exporter=settings.legacy_exporter,
            )
            if exporter == "legacy" and not settings.legacy_exporter:
                notes.append(f"opset {settings.opset} was written by the legacy exporter")
        with self.stages("verify the export"):
            steps["exported"] = verify_onnx(path, self.reference, seconds=0)
        if settings.simplify:
            with self.stages("simplify"):
                note = self._simplify(path, steps)
                notes.extend([note] if note else [])
        with self.stages("verify the ONNX file"):
            annotate(path, provenance(self.plan, self.checkpoint))
            _check_with_onnx(path)
            share = 2 if self.plan.rewritten else 1  # the rewrite had its half
            seconds = settings.verify_seconds / share
            steps["final"] = verify_onnx(path, self.reference, seconds=seconds)
        size = sum(file.stat().st_size for file in path.parent.glob(f"{path.name}*"))
        return ExportedFile(
            exporter, settings.opset, settings.dynamic_batch, size, steps, tuple(notes)
        )

    def export_baseline(self, original: nn.Module, path: Path) -> None:
        """Write the original network in the same way, for benchmarks to compare with."""
        with self.stages("export the baseline"):
            network = TorchNetwork(original, self.plan.input_shape)
            plan = keep_all(network, architecture=self.plan.architecture)
            replace(
                self,
                plan=plan,
                settings=replace(self.settings, verify_seconds=0),
                reference=ReferenceRuns(
                    original, plan.input_shape, plan.macs_after, self.reference.given
                ),
                stages=Stages(),
            ).export_onnx(path)

    def _simplify(self, path: Path, steps: dict[str, Comparisons]) -> str | None:
        """Put a simplified file in the place of ``path`` if it is equivalent; else say why not."""
        if path.with_name(f"{path.name}.data").exists():
            return "not simplified: onnxsim can't take a file of 2 GB and more"
        simplified = path.with_name("simplified.onnx")
        reason = simplify(path, simplified)
        if reason is not None:
            return f"not simplified: {reason}"
        try:
            comparisons = compare_onnx(simplified, self.reference, seconds=0)
        except ModelError as error:
            simplified.unlink()
            return f"not simplified: the simplified file does not run ({error})"
        if not is_equivalent(comparisons):
            simplified.unlink()
            return "not simplified: onnxsim changed the output of the network"
        steps["simplified"] = comparisons
        simplified.replace(path)
        return None

    def write_rest(
        self, directory: Path, check: FactorizationCheck | None, exported: ExportedFile
    ) -> dict[str, Any]:
        """Write all other files of the bundle and return the report."""
        checkpoint = self.checkpoint
        preprocessing = preprocessing_of(checkpoint)
        with self.stages("write the bundle"):
            x = self.reference.golden()
            inputs = {INPUT: x.cpu().numpy()}
            write_golden(directory / bundle.GOLDEN, inputs, run(self.network, x))
            save_checkpoint(
                directory / bundle.WEIGHTS,
                self.network,
                architecture=checkpoint.architecture if checkpoint else None,
                plan=self.plan,
                metadata={"input_shape": self.plan.input_shape, **preprocessing},
            )
            write_json(directory / bundle.PLAN, self.plan.to_json())
        report = {
            **report_facts(self.plan, check, exported),
            "parameters": {
                "before": self._parameters_before(),
                "after": _parameter_count(self.network),
            },
            "notes": [*(checkpoint.notes if checkpoint else ()), *self.notes, *exported.notes],
            "seconds": {name: round(s, 3) for name, s in self.stages.seconds.items()},
        }
        write_json(directory / bundle.REPORT, report)
        facts = manifest_facts(self.plan, checkpoint, exported) | preprocessing
        if (directory / bundle.BASELINE).exists():
            facts["baseline"] = bundle.BASELINE
        bundle.write_manifest(directory, facts)
        return report

    def _parameters_before(self) -> int:
        if self.original is not None:
            return _parameter_count(self.original)
        added = [  # the biases that calibration gave to layers without one
            layer.op.out_channels
            for layer in self.plan.rewritten
            if layer.factors[-1].bias and not layer.op.bias
        ]
        return _parameter_count(dense(self.network)) - sum(added)


def _parameter_count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def _check_with_onnx(path: Path) -> None:
    import onnx

    try:
        onnx.checker.check_model(str(path), full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ModelError(
            f"the exported file is no valid ONNX ({reason}): try --legacy-exporter"
        ) from error
