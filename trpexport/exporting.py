"""A checkpoint to a bundle as it is: what the pipeline is without a decomposition."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from trpexport import bundle
from trpexport.artifact.build import BundleReport, ExportSettings, export_bundle
from trpexport.calibration_data import CalibrationData
from trpexport.choose.spectra import keep_all
from trpexport.networks.torch.network import TorchNetwork
from trpexport.pipeline import Source, default_directory
from trpexport.stages import Stages
from trpexport.tensors import Array, Arrays
from trpexport.timestamps import timestamp


def export_checkpoint(
    source: Source,
    out: Path | None = None,
    data: CalibrationData | None = None,
    *,
    settings: ExportSettings | None = None,
    inputs: Array | Arrays | CalibrationData | None = None,
    stages: Stages | None = None,
) -> BundleReport:
    """Load a checkpoint, export it as it is, verify: all of it or nothing.

    Args:
        source: the checkpoint.
        out: the bundle's directory; a name after the checkpoint where it is None.
        data: what other precisions are calibrated on.
        settings: how to export.
        inputs: real inputs to verify on; some of the data where it is None.
        stages: times and announces the stages.

    Raises:
        TrpexportError: as the steps themselves.
    """
    settings, stages = settings or ExportSettings(), stages or Stages()
    settings.check(has_images=data is not None)
    timestamp()  # a wrong one is said before any work is done
    out = out or default_directory(source.path, "onnx")
    with bundle.reserved(out, replace=settings.replace):
        with stages("load the checkpoint"):
            checkpoint = source.load()
        network = TorchNetwork(checkpoint.module, checkpoint.known_inputs)
        plan = checkpoint.plan or keep_all(network, architecture=checkpoint.label)
        images = None
        if isinstance(inputs, CalibrationData):
            inputs = inputs.inputs_for(checkpoint, network.inputs)
        if data is not None:
            with stages("read calibration images"):
                images, facts = data.read_for(checkpoint, network.inputs)
            checkpoint = replace(checkpoint, metadata={**checkpoint.metadata, **facts})
            inputs = images.unseen() if inputs is None else inputs
        return export_bundle(
            network,
            plan,
            out,
            source=checkpoint,
            settings=settings,
            inputs=inputs,
            quantization=settings.quantization(images, network.inputs),
            notes=() if images is None else tuple(images.notes),
            stages=stages,
        )
