"""From an ONNX file to a decomposed network: what the pipeline is for a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from trpexport.choose.base import CalibrationImages, Chooser
from trpexport.datasets.calibration import DatasetImages
from trpexport.networks.onnx.network import OnnxNetwork
from trpexport.networks.onnx.reading import OnnxSource, read_model
from trpexport.pipeline import CalibrationData, Decomposed, decompose_network, stored_preprocessing
from trpexport.stages import Stages


@dataclass(frozen=True)
class OnnxFileSource:
    """An ONNX file to decompose.

    Attributes:
        path: the file.
        input_shape: shape of its input, or of its inputs by name; None where it says so itself.
    """

    path: Path
    input_shape: Sequence[int] | Mapping[str, tuple[int, ...]] | None = None

    def load(self) -> OnnxSource:
        """Read it.

        Raises:
            ModelError: it is no ONNX network, is not valid, or keeps weights outside its folder.
        """
        return OnnxSource(self.path, read_model(self.path))

    def decompose(
        self,
        chooser: Chooser,
        data: CalibrationData | CalibrationImages | None = None,
        *,
        stages: Stages | None = None,
    ) -> Decomposed[OnnxNetwork]:
        """Read it and decompose its network.

        Raises:
            NothingToDoError: no layer would get cheaper, or what was asked for can't be met.
            TrpexportError: as the steps themselves.
        """
        stages = stages or Stages()
        chooser.check()
        with stages("read the ONNX file"):
            source = self.load()
            network = OnnxNetwork.open(source, self.input_shape or chooser.input_shape)
        images = None if isinstance(data, CalibrationData) else data
        if isinstance(data, CalibrationData):
            preprocessing = data.preprocessing or stored_preprocessing(source)
            source = replace(source, metadata={"preprocessing": preprocessing.to_json()})
            with stages("read calibration images"):
                images = DatasetImages(
                    data.dataset,
                    preprocessing,
                    network.input_shape,
                    count=data.count,
                    seed=data.seed,
                )
        return decompose_network(
            network, chooser, images, label=source.label, source=source, stages=stages
        )
