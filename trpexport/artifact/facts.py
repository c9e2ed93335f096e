"""What a bundle says about itself: provenance, manifest, report. Facts only, no work."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

from trpexport._version import __version__
from trpexport.artifact.passes import Step
from trpexport.artifact.verification import DECOMPOSE
from trpexport.bundle import REPORT_VERSION
from trpexport.cost import FLOPS_PER_MAC
from trpexport.datasets.preprocessing import Preprocessing
from trpexport.networks.base import Origin
from trpexport.networks.torch.chain_check import LayerCheck
from trpexport.plan import CALIBRATION, LayerPlan, Plan
from trpexport.tensors import USUAL_SHAPES
from trpexport.timestamps import timestamp
from trpexport.verdict import macs_by_kind

PACKAGES = (
    "torch",
    "onnx",
    "onnx-ir",
    "onnxscript",
    "onnxruntime",
    "onnxsim",
    "numpy",
    "safetensors",
)


def provenance(plan: Plan, source: Origin | None) -> dict[str, str]:
    """Return what the ONNX file itself says about where it comes from."""
    ranks = {layer.name: [layer.scheme, layer.rank] for layer in plan.rewritten}
    facts = {
        "trpexport.version": __version__,
        "trpexport.torch_version": version("torch"),
        "trpexport.scheme": plan.scheme,
        "trpexport.criterion": plan.criterion,
        "trpexport.ranks": json.dumps(ranks),
        USUAL_SHAPES: json.dumps({name: one.shape for name, one in plan.inputs.items()}),
    }
    if plan.architecture is not None:
        facts["trpexport.architecture"] = plan.architecture
    if source is not None:
        facts["trpexport.source_sha256"] = source.sha256
    return facts


def manifest_facts(
    plan: Plan, source: Origin | None, written_as: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the manifest's facts, but for the files, which :mod:`trpexport.bundle` adds."""
    file = None if source is None else {"file": source.path.name, "sha256": source.sha256}
    return {
        "created": timestamp(),
        "versions": versions(),
        # Sums over images depend in their last bits on how many threads share them.
        **({"threads": torch.get_num_threads()} if CALIBRATION in plan.options else {}),
        "source": file,
        "architecture": plan.architecture,
        **plan.inputs.to_json(),
        **written_as,
    }


def preprocessing_of(source: Origin | None, known: Preprocessing | None) -> dict[str, Any]:
    """Return how images become input, as is known, or as a source's metadata say; else nothing.

    Raises:
        DataError: what they say makes no sense.
    """
    if known is not None:
        return {"preprocessing": known.to_json()}
    data = source.metadata.get("preprocessing") if source else None
    if source is None or data is None:
        return {}
    found = Preprocessing.from_json(data, str(source.path))
    return {"preprocessing": found.to_json()}


def versions() -> dict[str, str]:
    """Return the versions of this project, of Python and of the packages that shape an export."""
    found = {"trpexport": __version__, "python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def report_facts(
    plan: Plan, layers: Sequence[LayerCheck], steps: Sequence[Step], file_bytes: int
) -> dict[str, Any]:
    """Return what the plan, the verification and the export say for ``report.json``.

    Args:
        plan: what happened to each layer.
        layers: the checks of those that were rewritten.
        steps: all that was done to the network, in order.
        file_bytes: size of the ONNX file, external data included.
    """
    checks = {layer.name: layer for layer in layers}
    # Factors that were trained since are no longer those that were calibrated.
    is_as_decomposed = not plan.rewritten or any(step.name == DECOMPOSE for step in steps)
    before, after = plan.macs_before, plan.macs_after
    return {
        "schema_version": REPORT_VERSION,
        "architecture": plan.architecture,
        "scheme": plan.scheme,
        "criterion": plan.criterion,
        **plan.inputs.to_json(),
        "macs": {
            "before": before,
            "after": after,
            "ratio": before / after if after else None,
            "uncounted": dict(plan.uncounted),
            "kinds": [asdict(kind) for kind in macs_by_kind(plan)] if plan.rewritten else [],
        },
        "flops": {"before": FLOPS_PER_MAC * before, "after": FLOPS_PER_MAC * after},
        "file_bytes": file_bytes,
        "layers_rewritten": len(plan.rewritten),
        "layers": [_layer_report(layer, checks.get(layer.name)) for layer in plan.layers],
        "calibration": plan.options.get(CALIBRATION) if is_as_decomposed else None,
        "steps": [step.to_json() for step in steps],
    }


def _layer_report(layer: LayerPlan, check: LayerCheck | None) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "name": layer.name,
        "operator": str(layer.op),
        "scheme": layer.scheme,
        "rank": layer.rank,
        "full_rank": layer.full_rank,
        "macs": {"before": layer.macs, "after": layer.factor_macs},
        "weight_error": layer.weight_error,
        "reason_kept": layer.reason,
    }
    if check is not None:
        facts |= {key: value for key, value in asdict(check).items() if key != "name"}
    return facts
