"""A bundle or an ONNX file that stands, in further precisions."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from trpexport import bundle
from trpexport.artifact.build import ExportSettings
from trpexport.artifact.facts import preprocessing_of
from trpexport.artifact.mobile import write_mobile
from trpexport.artifact.passes import Context
from trpexport.artifact.reference import ReferenceRuns
from trpexport.artifact.targets import variant_facts
from trpexport.artifact.variants import Variant, write_variants
from trpexport.calibration_data import CalibrationData
from trpexport.choose.base import CalibrationImages
from trpexport.datasets.base import Dataset
from trpexport.datasets.preprocessing import Preprocessing
from trpexport.datasets.tensors import TensorSet
from trpexport.errors import ModelError, OccupiedError, TrpexportError
from trpexport.expectations import stored_preprocessing
from trpexport.files import read_json, staged_file, write_atomically, write_json, writing
from trpexport.golden import Golden, read_golden
from trpexport.inputs import Inputs, InputsLike
from trpexport.judge.metrics import Metric
from trpexport.networks.base import Origin
from trpexport.networks.onnx.network import OnnxNetwork
from trpexport.networks.onnx.reading import OnnxSource, read_model
from trpexport.onnxfile.external_data import external_files, external_paths
from trpexport.onnxfile.precision import check_float32
from trpexport.onnxfile.recognition import check_onnx_file
from trpexport.quantization.judging import FileJudge
from trpexport.shown import Shown
from trpexport.stages import Stages
from trpexport.verdict import Verdict, verdict_on_variant


@dataclass(frozen=True)
class Labelled:
    """Labelled samples that say how much worse a precision is by a metric.

    Attributes:
        data: images, or raw tensors with targets.
        split: which images of it.
        limit: how many samples; None for all.
        preprocessing: how images become input; None as the bundle says.
        metric: judges; None counts images whose class is right.
        max_drop: how much may be lost, in points of a share, else in the metric's own unit; None
            for any.
    """

    data: Dataset | TensorSet
    split: str = "test"
    limit: int | None = None
    preprocessing: Preprocessing | None = None
    metric: Metric | None = None
    max_drop: float | None = None

    def judge(self, model: Path, source: Origin, provider: str) -> FileJudge:
        """Return who holds files against a float32 one, which comes from somewhere."""
        how: dict[str, Any] = {"limit": self.limit, "provider": provider}
        if not isinstance(self.data, TensorSet):
            known = self.data.prepared_by(self.preprocessing)
            preprocessing = stored_preprocessing(source) if known is None else known
            how |= {"split": self.split, "preprocessing": preprocessing}
        return FileJudge(model, self.data, self.metric, **how)


@dataclass(frozen=True, repr=False)
class ConversionReport(Shown):
    """What was written.

    Attributes:
        paths: by precision, the files, or where they lie in a bundle as in ``DIR@int8``.
        data: JSON-ready facts: ``variants``, one entry each, as in a manifest.
        is_real: whether real inputs were there to compare the files on.
    """

    paths: Mapping[str, Path]
    data: Mapping[str, Any]
    is_real: bool = False

    def verdicts(self) -> dict[str, Verdict]:
        """Return by precision whether its file pays: what it saves against that in float32."""
        before = size_of(Path(self.data["model"]))
        return {
            name: verdict_on_variant(
                self.data["variants"][name], before / max(1, size_of(path)), is_real=self.is_real
            )
            for name, path in self.paths.items()
            if "made_of" not in self.data["variants"][name]["facts"]  # a format, no precision
        }

    def shown(self) -> dict[str, object]:
        """Return what to show of it in a session."""
        return dict(self.paths)


@dataclass(frozen=True)
class Conversion:
    """How a file is written in further precisions.

    Attributes:
        settings: the precisions, the error that they may have, whether to replace what stands in
            the place, and for how long each is compared.
        data: what they are calibrated on; None for nothing.
        labelled: labelled images; None where accuracy is not judged.
        provider: who will run them.
        inputs: shapes of the inputs of a file that leaves them open.
    """

    settings: ExportSettings
    data: CalibrationData | CalibrationImages | None = None
    labelled: Labelled | None = None
    provider: str = "cpu"
    inputs: InputsLike | None = None

    def __call__(
        self, model: Path, out: Path | None = None, stages: Stages | None = None
    ) -> ConversionReport:
        """Write a bundle or a file in further precisions, each verified against float32.

        Args:
            model: a bundle, to which they are added, or an ONNX file in float32.
            out: of a bundle, where a copy with them goes; of a file, the file to write if there is
                one precision, else a directory. None for the bundle itself, or files here that are
                named after the model.
            stages: times and announces the stages.

        Raises:
            OccupiedError: one stands there already and was not asked to be replaced.
            NothingToDoError: one can't be as near as was asked for; nothing is written.
            TrpexportError: the model, the images or the place can't be used.
        """
        stages = stages or Stages()
        named = bundle.split_name(model)
        if named is None:
            check_onnx_file(model)
        self.settings.check(has_images=self.data is not None, provider=self.provider)
        if not self._written_as:
            raise TrpexportError(
                "float32 is what the file is in: name another precision, or another format",
                parameters=("precision", "formats"),
            )
        if named is None:
            return self._convert_file(model, out, stages)
        directory, precision = named
        if precision != bundle.FLOAT32:
            raise ModelError(f"{model} is in {precision} already: name the bundle, {directory}")
        return self._convert_bundle(directory, out, stages)

    @property
    def _names(self) -> tuple[str, ...]:
        return tuple(name for name in self.settings.precisions if name != bundle.FLOAT32)

    @property
    def _also_model(self) -> bool:
        """Whether the float32 file is to be written in ONNX Runtime's format."""
        return self.settings.is_mobile and bundle.FLOAT32 in self.settings.precisions

    @property
    def _written_as(self) -> dict[str, str]:
        """What is written, by the name of the variant: how its file's name ends."""
        found = {name: f".{name}.onnx" for name in self._names}
        if self.settings.is_mobile:
            found |= {f"{name}-{bundle.ORT}": f".{name}.{bundle.ORT}" for name in self._names}
        return found | ({bundle.ORT: f".{bundle.ORT}"} if self._also_model else {})

    def _convert_bundle(
        self, directory: Path, out: Path | None, stages: Stages
    ) -> ConversionReport:
        manifest = bundle.read_manifest(directory)
        known = manifest.get("variants", {})
        if (
            out is None
            and not self.settings.replace
            and (there := known.keys() & {*self._written_as})
        ):
            raise OccupiedError(
                f"{directory} has {', '.join(sorted(there))} already: have it replaced, or choose "
                "another place"
            )
        replaces = out is None or self.settings.replace
        with bundle.staged_directory(out or directory, replace=replaces) as staging:
            with writing(staging):
                for name in manifest["files"]:
                    shutil.copyfile(directory / name, staging / name)
            metadata = {key: manifest[key] for key in ("preprocessing",) if key in manifest}
            metadata |= preprocessing_of(None, self.settings.preprocessing)
            golden = read_golden(staging / bundle.GOLDEN)
            inputs = self.inputs or Inputs.from_json(manifest)
            found, _ = self._write(staging / bundle.MODEL, staging, inputs, metadata, stages)
            entries = variant_facts(found, golden, self.settings, stages)
            _add_to_report(staging / bundle.REPORT, found)
            facts = {k: v for k, v in manifest.items() if k not in ("schema_version", "files")}
            told = {**facts, **metadata, "variants": {**known, **entries}}
            bundle.write_manifest(staging, told)
        place, is_real = out or directory, self.data is not None
        paths = {name: place.with_name(f"{place.name}@{name}") for name in entries}
        return ConversionReport(paths, {"model": str(place), "variants": entries}, is_real)

    def _convert_file(self, model: Path, out: Path | None, stages: Stages) -> ConversionReport:
        targets = self._targets(model, out)
        for target in targets.values():
            if target.exists() and not self.settings.replace:
                raise OccupiedError(f"{target} exists: choose another place, or have it replaced")
        check_float32(model)
        with TemporaryDirectory() as folder:
            staging = Path(folder)
            copy = staging / bundle.MODEL
            shutil.copyfile(model, copy)
            for file in external_files(model):
                (staging / file).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(model.resolve().parent / file, staging / file)
            found, golden = self._write(copy, staging, self.inputs, {}, stages, label=model)
            entries = variant_facts(found, golden, self.settings, stages)
            for one in found:
                _deliver(one.file, targets[one.precision])
                entries[one.precision]["file"] = str(targets[one.precision])
            if self.settings.is_mobile:
                place = targets[found[-1].precision]
                operators = (staging / bundle.OPERATORS).read_bytes()
                write_atomically(place.with_suffix(f".{bundle.OPERATORS}"), operators)
        is_real = self.data is not None
        return ConversionReport(targets, {"model": str(model), "variants": entries}, is_real)

    def _targets(self, model: Path, out: Path | None) -> dict[str, Path]:
        """Return where the files of a bare model go.

        Raises:
            TrpexportError: several can't go to one file.
        """
        written = self._written_as
        if out is not None and out.suffix in {".onnx", f".{bundle.ORT}"}:
            if len(written) > 1 or not next(iter(written.values())).endswith(out.suffix):
                raise TrpexportError(
                    f"{out} can't hold {' and '.join(written)}: name a directory",
                    parameters=("out",),
                )
            return dict.fromkeys(written, out)
        place = out or Path()
        return {name: place / f"{model.stem}{ending}" for name, ending in written.items()}

    def _write(
        self,
        model: Path,
        directory: Path,
        inputs: InputsLike | None,
        metadata: Mapping[str, Any],
        stages: Stages,
        *,
        label: Path | None = None,
    ) -> tuple[tuple[Variant, ...], Golden]:
        """Write the variants of a float32 file beside it; return them and what it gives itself."""
        check_float32(model)
        with stages("read the ONNX file"):
            source = OnnxSource(label or model, read_model(model), metadata=metadata)
            network = OnnxNetwork.open(source, inputs)
        images = None if isinstance(self.data, CalibrationData) else self.data
        if isinstance(self.data, CalibrationData):
            with stages("read calibration images"):
                images, facts = self.data.read_for(source, network.inputs)
            source = replace(source, metadata={**metadata, **facts})
        given = None if images is None else images.unseen()
        macs = network.cost.macs
        reference = ReferenceRuns.of(network, network.inputs, macs, given, network.dtype)
        quantization = replace(
            self.settings.quantization(images, network.inputs),
            provider=self.provider,
        )
        if self.labelled is not None:
            judge = self.labelled.judge(model, source, self.provider)
            quantization = replace(
                quantization, judge=judge, unit=judge.unit, max_drop=self.labelled.max_drop
            )
        context = Context(
            network=network,
            reference=reference,
            settings=self.settings.onnx(),
            stages=stages,
            quantization=quantization,
        )
        files = {name: directory / bundle.variant_name(name) for name in self._names}
        seconds = self.settings.verify_seconds / 4
        found = write_variants(self._names, model, files, context, seconds=seconds)
        if self.settings.is_mobile:
            found += write_mobile(
                model, found, context, seconds=seconds, also_model=self._also_model
            )
        feeds = reference.golden()
        return found, Golden(feeds, network.run(feeds))


def size_of(model: Path) -> int:
    """Return how many bytes a model takes, with the weights beside its file."""
    file, _ = bundle.locate(model)
    return sum(one.stat().st_size for one in (file, *external_paths(file)))


def _add_to_report(path: Path, variants: Sequence[Variant]) -> None:
    """Add what was done to the report of a bundle, in the place of what was there of it."""
    report = read_json(path)
    new = {variant.precision for variant in variants}
    steps = [step for step in report["steps"] if step["name"] not in new]
    report["steps"] = [*steps, *(variant.step.to_json() for variant in variants)]
    notes = [variant.step.note for variant in variants if variant.step.note is not None]
    report["notes"] = [*report["notes"], *(note for note in notes if note not in report["notes"])]
    write_json(path, report)


def _deliver(file: Path, target: Path) -> None:
    """Put a file into its place, with the weights beside it if there are any."""
    with writing(target):
        target.parent.mkdir(parents=True, exist_ok=True)
    for name in (file.name, *map(str, external_files(file))):
        place = target if name == file.name else target.with_name(name)
        with staged_file(place) as copy, (file.parent / name).open("rb") as content:
            shutil.copyfileobj(content, copy)
