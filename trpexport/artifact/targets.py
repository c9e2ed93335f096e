"""What is said of the ONNX Runtime that files are for, and whether they run there."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from trpexport.artifact.settings import ExportSettings
from trpexport.artifact.variants import Variant
from trpexport.compare import FLOAT32, Tolerance, compare_outputs
from trpexport.errors import VerificationError
from trpexport.golden import Golden
from trpexport.onnxfile.graph import load_proto
from trpexport.onnxfile.recognition import is_ort
from trpexport.onnxfile.targets import opset_of
from trpexport.runtime.releases import installed
from trpexport.stages import Stages


def variant_facts(
    variants: Iterable[Variant], golden: Golden, settings: ExportSettings, stages: Stages
) -> dict[str, dict[str, Any]]:
    """Return what a manifest says of variants, by precision; with the target, where there is one.

    Args:
        variants: they.
        golden: what the network gives for some inputs.
        settings: with the target.
        stages: times and announces the stages.

    Raises:
        TrpexportError: as :func:`target_facts`.
    """
    entries = {}
    for one in variants:
        entry = one.to_json(golden)
        tolerance = Tolerance(**entry["tolerance"])
        entries[one.precision] = entry | target_facts(one.file, golden, settings, stages, tolerance)
    return entries


def target_facts(
    file: Path,
    golden: Golden,
    settings: ExportSettings,
    stages: Stages,
    tolerance: Tolerance = FLOAT32,
) -> dict[str, Any]:
    """Return what a manifest says of a file's target, run there if that was asked for.

    Args:
        file: an ONNX file.
        golden: inputs, and what the network gives for them.
        settings: with the target.
        stages: times and announces the stages.
        tolerance: how far the file may be from the golden outputs.

    Returns:
        ``target``: its ``onnxruntime``, and of an ONNX file ``opset`` and ``ir_version``; where the
        file was run there, the exact version in ``checked`` and the comparison of its ``outputs``.
        Nothing without a target.

    Raises:
        VerificationError: it computes something else there.
        ModelError: it does not run there.
    """
    target = settings.target
    if target is None:
        return {}
    facts: dict[str, Any] = {"onnxruntime": target.version}
    if not is_ort(file):
        model = load_proto(file)
        facts |= {"opset": opset_of(model), "ir_version": model.ir_version}
    if settings.check_target:
        release = installed(target.version)
        with stages(f"run in {release}"):
            found = compare_outputs([(golden.outputs, release.run(file, golden.inputs))])
        for name, compared in found.items():
            if not compared.is_equivalent(tolerance):
                raise VerificationError(
                    f"{file.name} computes something else in {release} ({name}: {compared}): "
                    "nothing was written, name a later version"
                )
        outputs = {name: compared.to_json() for name, compared in found.items()}
        facts |= {"checked": release.version, "outputs": outputs}
    return {"target": facts}
