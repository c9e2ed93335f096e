"""From an ONNX file to a decomposed network: what the pipeline is for a checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from trpexport.calibration_data import CalibrationData
from trpexport.choose.base import CalibrationImages, Chooser, Ready
from trpexport.inputs import Inputs, InputsLike
from trpexport.networks.onnx.network import OnnxNetwork
from trpexport.networks.onnx.reading import OnnxSource, check_memory, read_model
from trpexport.networks.torch.devices import AUTO, device_named
from trpexport.onnxfile.precision import check_unquantized
from trpexport.pipeline import Decomposed, decompose_network
from trpexport.refining.refinement import Refinement
from trpexport.stages import Stages


@dataclass(frozen=True)
class OnnxFileSource:
    """An ONNX file to decompose.

    Attributes:
        path: the file.
        inputs: shapes of its inputs; None where it says them itself.
        outputs: globs of the names of the outputs whose errors count; all where there are none.
    """

    path: Path
    inputs: InputsLike | None = None
    outputs: Sequence[str] = ()

    def open(self, stages: Stages) -> tuple[OnnxSource, OnnxNetwork]:
        """Read it; return where its network comes from, and that.

        Raises:
            ModelError: it is no ONNX network, is not valid, or keeps weights outside its folder;
                it is quantized; or nobody says how large an input is.
        """
        with stages("read the ONNX file"):
            source = OnnxSource(self.path, read_model(self.path))
            check_unquantized(self.path, (node.op_type for node in source.model.graph.all_nodes()))
            return source, OnnxNetwork.open(source, self.inputs, self.outputs)

    def ready(
        self,
        data: CalibrationData | CalibrationImages | None,
        *,
        inputs: Inputs | None = None,
        outputs: Sequence[str] = (),
        stages: Stages,
    ) -> Ready[OnnxNetwork, OnnxSource]:
        """Read it, and the images that its network is calibrated on.

        Raises:
            ModelError: as :meth:`open`.
            TrpexportError: the images can't be used.
        """
        check_memory(self.path)
        chosen = replace(self, inputs=self.inputs or inputs, outputs=tuple(outputs))
        source, network = chosen.open(stages)
        images = None if isinstance(data, CalibrationData) else data
        if isinstance(data, CalibrationData):
            with stages("read calibration images"):
                images, facts = data.read_for(source, network.inputs)
            source = replace(source, metadata=facts)
        return Ready(network, images, source, source.label)

    def decompose(
        self,
        chooser: Chooser,
        data: CalibrationData | CalibrationImages | None = None,
        *,
        outputs: Sequence[str] = (),
        refinement: Refinement | None = None,
        device: str = AUTO,
        stages: Stages | None = None,
    ) -> Decomposed[OnnxNetwork]:
        """Read it and decompose its network.

        Raises:
            NothingToDoError: no layer would get cheaper, or what was asked for can't be met.
            TrpexportError: as the steps themselves.
        """
        stages = stages or Stages()
        chooser.check()
        device_named(device)
        ready = self.ready(data, inputs=chooser.inputs, outputs=outputs, stages=stages)
        return decompose_network(
            ready.network,
            chooser,
            ready.images,
            label=ready.label,
            source=ready.source,
            refinement=refinement,
            device=device,
            stages=stages,
        )
