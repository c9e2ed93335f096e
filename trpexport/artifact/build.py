"""One export: everything that goes into a bundle, each step verified before the next."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from trpexport import bundle
from trpexport.artifact.facts import (
    manifest_facts,
    preprocessing_of,
    provenance,
    report_facts,
)
from trpexport.artifact.mobile import write_mobile
from trpexport.artifact.passes import Context, Step, run_passes
from trpexport.artifact.reference import ReferenceRuns
from trpexport.artifact.settings import ExportSettings
from trpexport.artifact.targets import target_facts, variant_facts
from trpexport.artifact.variants import Variant, check_precisions, write_variants
from trpexport.artifact.verification import FactorizationCheck, verify_factorization
from trpexport.checkpoints import save_checkpoint
from trpexport.choose.spectra import keep_all
from trpexport.compare import note_on_still
from trpexport.errors import NothingToDoError
from trpexport.files import write_files, write_json
from trpexport.golden import Golden, write_golden
from trpexport.networks.base import Network, Origin
from trpexport.networks.dynamic import dimensions, parse_dynamic
from trpexport.networks.onnx_settings import OnnxSettings
from trpexport.networks.torch.running import one_thread
from trpexport.plan import CALIBRATION, Plan
from trpexport.quantization.settings import QuantizationSettings
from trpexport.shown import Shown
from trpexport.stages import Stages
from trpexport.tensors import Array, Arrays
from trpexport.timestamps import is_fixed
from trpexport.verdict import RANDOM, REAL, Limits, lost_by, verdict_of

__all__ = ["BundleReport", "ExportSettings", "export_bundle"]

N = TypeVar("N", bound=Network)


@dataclass(frozen=True, repr=False)
class BundleReport(Shown):
    """What an export did: the content of ``report.json``, and where the bundle is.

    Attributes:
        path: the bundle.
        plan: what happened to each layer.
        data: JSON-ready facts.
    """

    path: Path
    plan: Plan
    data: Mapping[str, Any]

    def shown(self) -> dict[str, object]:
        """Return what to show of it in a session."""
        return {"path": self.path, **self.plan.shown()}


def export_bundle(
    network: N,
    plan: Plan,
    out: str | Path,
    *,
    original: N | None = None,
    source: Origin | None = None,
    settings: ExportSettings | None = None,
    inputs: Array | Arrays | None = None,
    quantization: QuantizationSettings | None = None,
    baseline: Mapping[str, bytes] | None = None,
    notes: Sequence[str] = (),
    stages: Stages | None = None,
) -> BundleReport:
    """Verify a factorized network, export it as ONNX, verify that, and write a bundle.

    A network in less than single precision is verified and written in float32. One whose outputs
    depend on the batch is compared at the batch size of the plan's input alone.

    Args:
        network: a network with chains in the place of the layers that ``plan`` rewrites, or one to
            export as it is, with a plan that rewrites nothing.
        plan: the plan.
        out: the directory to write; it appears whole or not at all.
        original: the network before the rewrite; None where the factors were trained since.
        source: where the network comes from, for the bundle's provenance.
        settings: how to export; the defaults where it is None.
        inputs: real inputs (images, channels, height, width) to verify on, by name where there are
            several; standard normal ones where it is None.
        quantization: on what other precisions are calibrated, and how much they may lose.
        baseline: content of the files, by name, that an export of the same kind wrote of the
            original network; None to write them anew where the settings ask for them.
        notes: what the reader of the report should know besides.
        stages: times and announces the stages.

    Raises:
        VerificationError: the rewrite or the ONNX file is not equivalent; nothing is written.
        NothingToDoError: the network, or one of its precisions, is not as near to the original as
            was asked for; nothing is written.
        ModelError: the network can't be exported.
        OutputError: the place can't be written.
    """
    settings = settings or ExportSettings()
    out = Path(out)
    if settings.preprocessing is not None:
        settings.preprocessing.check_input(plan.inputs.first.shape, plan.architecture)
    quantization = quantization or settings.quantization()
    has_images = bool(quantization.calibration)
    check_precisions(settings.precisions, quantization, has_images=has_images)
    bundle.check_target(out, replace=settings.replace)
    reference = ReferenceRuns.of(network, plan.inputs, plan.macs_after, inputs, network.dtype)
    notes = (*notes, *_notes(network, reference, is_dynamic=settings.dynamic_batch))
    is_dynamic = settings.dynamic_batch and reference.takes_others
    dynamic = parse_dynamic(settings.dynamic, plan.inputs)
    tried = dynamic or network.dynamic
    if dimensions(tried):
        reference = reference.at_other_sizes(tried)
        names = settings.dynamic if dynamic else dimensions(tried)
        notes = (*notes, *_note_on_sizes(reference, names, is_open=not dynamic))
        dynamic = dynamic if reference.others else {}
    job = _Job(
        network=network,
        original=original,
        plan=plan,
        source=source,
        settings=settings,
        onnx=settings.onnx(dynamic, dynamic_batch=is_dynamic),
        reference=reference,
        notes=notes,
        stages=stages or Stages(),
        quantization=quantization,
    )
    check = job.verify_rewrite()
    job.check_limits(check)
    with bundle.staged_directory(out, replace=settings.replace) as staging:
        steps = job.write_onnx(staging / bundle.MODEL)
        if settings.baseline and plan.rewritten and original is not None:
            job.write_baseline(staging / bundle.BASELINE, baseline)
        variants = job.write_variants(staging)
        report = job.write_rest(staging, check, steps, variants)
    return BundleReport(out, plan, report)


def _notes(network: Network, reference: ReferenceRuns, *, is_dynamic: bool) -> Iterator[str]:
    """Say what is done otherwise than a user may expect."""
    yield from network.notes
    if reference.batch is not None:
        reason = (
            "what the network makes of an image depends on the others in its batch"
            if reference.takes_others
            else f"the network is made for batches of {reference.batch}"
        )
        yield f"{reason}: verified at a batch size of {reference.batch} alone"
        if is_dynamic and not reference.takes_others:
            yield f"the ONNX file takes batches of {reference.batch}, not any, as the network does"


def _note_on_sizes(
    reference: ReferenceRuns, names: Sequence[str], *, is_open: bool
) -> Iterator[str]:
    """Say at which other sizes the file is verified, or that there are none.

    Args:
        reference: what it is compared with.
        names: of the dimensions.
        is_open: whether the file leaves them open even then.
    """
    if reference.others:
        yield f"verified at {'; '.join(map(str, reference.others))} as well"
    elif is_open:
        yield (
            f"verified at {reference.inputs} alone: the file leaves {', '.join(names)} open, but "
            "none of the other sizes that were tried runs"
        )
    elif names:
        yield (
            f"the ONNX file takes {reference.inputs}, and {', '.join(names)} are not open in it: "
            "the network runs at no other size"
        )


@dataclass(frozen=True)
class _Job:
    """One export on its way into a bundle.

    Attributes:
        network: the network to export.
        original: what it was before the rewrite; None where nobody has it.
        plan: the plan.
        source: where the network comes from.
        settings: how to export.
        onnx: how ONNX is written, of what the network can do.
        reference: what the file has to compute.
        notes: what the reader of the report should know besides.
        stages: times and announces the stages.
        quantization: on what other precisions are calibrated.
    """

    network: Network
    original: Network | None
    plan: Plan
    source: Origin | None
    settings: ExportSettings
    onnx: OnnxSettings
    reference: ReferenceRuns
    notes: tuple[str, ...]
    stages: Stages
    quantization: QuantizationSettings | None = None

    def verify_rewrite(self) -> FactorizationCheck:
        """Check the factorized network against its plan; there is no check of a plan of nothing."""
        if not self.plan.rewritten:
            return FactorizationCheck((), ())
        with self.stages("verify the rewrite"):
            return verify_factorization(
                self.original,
                self.network,
                self.plan,
                self.reference,
                seconds=self.settings.verify_seconds / 2,
            )

    def check_limits(self, check: FactorizationCheck) -> None:
        """Refuse a network that is too far from the original one.

        Raises:
            NothingToDoError: it is.
            TrpexportError: it has no top-1 to agree on.
        """
        facts = {
            "steps": [step.to_json() for step in check.steps],
            "calibration": self.plan.options.get(CALIBRATION),
            "verified_on": self._verified_on,
        }
        try:
            Limits(self.settings.min_agreement, self.settings.max_error).check(lost_by(facts))
        except NothingToDoError as error:
            error.architecture = self.plan.architecture
            raise

    @property
    def _verified_on(self) -> str:
        return RANDOM if self.reference.given is None else REAL

    def write_onnx(self, path: Path) -> tuple[Step, ...]:
        """Write the ONNX file, pass by pass."""
        share = 2 if self.plan.rewritten else 1  # the rewrite had its half
        seconds = self.settings.verify_seconds / share
        return run_passes(self.settings.passes(self.network), path, self._context, seconds=seconds)

    @property
    def _context(self) -> Context:
        return Context(
            network=self.network,
            reference=self.reference,
            settings=self.onnx,
            metadata=provenance(self.plan, self.source),
            stages=self.stages,
            quantization=self.quantization,
        )

    def write_variants(self, directory: Path) -> tuple[Variant, ...]:
        """Write the network in the other precisions and formats that were asked for."""
        names = self.settings.precisions
        files = {name: directory / bundle.variant_name(name) for name in names}
        seconds = self.settings.verify_seconds / 4 if names else 0.0
        model = directory / bundle.MODEL
        found = write_variants(names, model, files, self._context, seconds=seconds)
        if self.settings.is_mobile:
            found += write_mobile(model, found, self._context, seconds=seconds)
        return found

    def write_baseline(self, path: Path, known: Mapping[str, bytes] | None = None) -> None:
        """Write the original network in the same way, for benchmarks to compare with.

        Args:
            path: its file.
            known: content of the files that it comes to, by name, where that is known already.
        """
        assert self.original is not None
        if known is not None:
            write_files(known, path.parent)
            return
        with self.stages("export the baseline"):
            plan = keep_all(self.original, architecture=self.plan.architecture)
            replace(
                self,
                network=self.original,
                plan=plan,
                settings=replace(self.settings, verify_seconds=0),
                reference=replace(self.reference, network=self.original, macs=plan.macs_after),
                stages=Stages(),
            ).write_onnx(path)

    def write_rest(
        self,
        directory: Path,
        check: FactorizationCheck,
        passes: Sequence[Step],
        variants: Sequence[Variant],
    ) -> dict[str, Any]:
        """Write all other files of the bundle and return the report."""
        source, module = self.source, self.network.module
        preprocessing = preprocessing_of(source, self.settings.preprocessing)
        with self.stages("write the bundle"):
            inputs = self.reference.golden()
            with one_thread():
                outputs = self.network.run(inputs)
            write_golden(directory / bundle.GOLDEN, inputs, outputs)
            if module is not None:
                save_checkpoint(
                    directory / bundle.WEIGHTS,
                    module,
                    architecture=source.architecture if source else None,
                    plan=self.plan,
                    metadata={**self.plan.inputs.to_json(), **preprocessing},
                )
            write_json(directory / bundle.PLAN, self.plan.to_json())
        size = sum(file.stat().st_size for file in directory.glob(f"{bundle.MODEL}*"))
        steps = (*check.steps, *passes, *(variant.step for variant in variants))
        seconds = self.stages.seconds
        if is_fixed():
            steps, seconds = tuple(replace(step, seconds=0.0) for step in steps), {}
        inputs_are = RANDOM if self.reference.given is None else "the inputs given"
        notes = [*(step.note for step in steps), note_on_still(passes[-1].outputs, inputs_are)]
        report = {
            **report_facts(self.plan, check.layers, steps, size),
            "parameters": {
                "before": self._parameters_before(),
                "after": self.network.parameters,
            },
            "notes": [
                *(source.notes if source else ()),
                *self.notes,
                *(note for note in notes if note is not None),
            ],
            "seconds": {name: round(s, 3) for name, s in seconds.items()},
            "verified_on": self._verified_on,
        }
        verdict = verdict_of(report)
        report["verdict"] = None if verdict is None else verdict.to_json()
        facts = manifest_facts(self.plan, source, self.network.written_as(self.onnx))
        facts |= preprocessing
        if (directory / bundle.BASELINE).exists():
            facts["baseline"] = bundle.BASELINE
        golden = Golden(inputs, outputs)
        facts |= target_facts(directory / bundle.MODEL, golden, self.settings, self.stages)
        if variants:
            facts["variants"] = variant_facts(variants, golden, self.settings, self.stages)
        report |= {key: facts[key] for key in ("target",) if key in facts}
        write_json(directory / bundle.REPORT, report)
        bundle.write_manifest(directory, facts)
        return report

    def _parameters_before(self) -> int:
        if self.original is not None:
            return self.original.parameters
        added = [  # the biases that calibration gave to layers without one
            layer.op.out_channels
            for layer in self.plan.rewritten
            if layer.factors[-1].bias and not layer.op.bias
        ]
        return self.network.dense().parameters - sum(added)
