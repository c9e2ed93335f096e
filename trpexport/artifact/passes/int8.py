"""int8 weights and activations, whose ranges come from images."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from trpexport.artifact.passes import PRECISIONS
from trpexport.artifact.passes.base import PassResult
from trpexport.artifact.passes.precision import Precision
from trpexport.measure.machine import instruction_sets
from trpexport.quantization.formats import number_format
from trpexport.quantization.settings import QuantizationSettings


class Int8(Precision):
    """Quantizes by ONNX Runtime's static quantizer, in pairs of QuantizeLinear and its inverse."""

    name = "int8"
    title = "quantize"
    needs_images: ClassVar[bool] = True

    def check(self, settings: QuantizationSettings) -> None:
        """Refuse what can't be before any work is done.

        Raises:
            ModelError: there are no images, or the provider has no int8.
        """
        super().check(settings)
        number_format(settings.provider, instruction_sets())

    def convert(self, file: Path, settings: QuantizationSettings) -> PassResult:
        """Quantize the file."""
        from trpexport.quantization.static import quantize_static

        found = quantize_static(file, file, settings)
        return PassResult(found.note, found.facts)

    def convert_blank(self, file: Path, settings: QuantizationSettings) -> None:
        """Quantize all of the file, by the ranges of its inputs alone."""
        from trpexport.quantization.static import quantize_blank

        quantize_blank(file, settings)


PRECISIONS.register(Int8.name, Int8())
