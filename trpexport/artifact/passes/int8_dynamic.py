"""int8 weights, and activations that are quantized while the network runs: without calibration."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from trpexport.artifact.passes import PRECISIONS
from trpexport.artifact.passes.base import PassResult
from trpexport.artifact.passes.precision import Precision
from trpexport.quantization.settings import QuantizationSettings


class Int8Dynamic(Precision):
    """Quantizes by ONNX Runtime's dynamic quantizer."""

    name = "int8-dynamic"
    title = "quantize, ranges found while it runs"
    keeps_names: ClassVar[bool] = False

    def convert(self, file: Path, settings: QuantizationSettings) -> PassResult:
        """Quantize the file."""
        from trpexport.quantization.dynamic import quantize_dynamic

        found = quantize_dynamic(file, file, settings)
        return PassResult(found.note, found.facts)


PRECISIONS.register(Int8Dynamic.name, Int8Dynamic())
