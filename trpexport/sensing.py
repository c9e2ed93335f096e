"""From a file to which of its layers costs what: in low rank, and in int8."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from trpexport.artifact.settings import ExportSettings
from trpexport.calibration_data import CalibrationData
from trpexport.choose.base import Ready
from trpexport.choose.sensitivity import Sensitivity, SensitivityJob, by_loss
from trpexport.errors import PlanError
from trpexport.pipeline import Decomposable
from trpexport.quantization.static import layer_errors
from trpexport.stages import Stages

_INT8 = "int8"


def sense(
    source: Decomposable,
    job: SensitivityJob,
    data: CalibrationData,
    *,
    precisions: Sequence[str] = (),
    stages: Stages | None = None,
) -> Sensitivity:
    """Say which layer of a network costs what.

    Args:
        source: the checkpoint or ONNX file.
        job: how layers are cut.
        data: what they are fitted to.
        precisions: ``"int8"`` to quantize each layer alone, too.
        stages: times and announces the stages.

    Raises:
        NothingToDoError: no layer gets cheaper, or the budget can't be met.
        TrpexportError: as the steps themselves.
    """
    stages = stages or Stages()
    job.check()
    if others := [name for name in precisions if name != _INT8]:
        raise PlanError(
            f"what a layer loses in {others[0]} is not told layer by layer: {_INT8} is",
            parameters=("precision",),
        )
    ready = source.ready(data, stages=stages)
    assert ready.images is not None
    found = job(ready.network, ready.images, stages, ready.label)
    if not precisions:
        return found
    with stages("quantize each layer alone"):
        errors = _errors(ready)
    layers = [replace(layer, precisions={_INT8: errors.get(layer.name)}) for layer in found.layers]
    return replace(found, layers=by_loss(layers))


def _errors(ready: Ready) -> dict[str, float]:
    """Return the output error of each layer that is in int8 alone."""
    settings = ExportSettings(precisions=(_INT8,))
    with TemporaryDirectory() as folder:
        file = Path(folder) / "model.onnx"
        ready.network.write_onnx(file, settings.onnx())
        return layer_errors(file, settings.quantization(ready.images, ready.network.inputs))
