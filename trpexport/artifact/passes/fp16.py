"""float16: half the size, and faster where the device computes in it."""

from __future__ import annotations

from pathlib import Path

from trpexport.artifact.passes import PRECISIONS
from trpexport.artifact.passes.base import PassResult
from trpexport.artifact.passes.precision import Precision
from trpexport.quantization.settings import QuantizationSettings


class Float16(Precision):
    """Computes in float16; inputs, outputs and what overflows stay in float32."""

    name = "fp16"
    title = "convert to float16"

    def warning(self, settings: QuantizationSettings) -> str | None:
        """Return that it will be slower, where it will."""
        from trpexport.quantization.half import FLOAT16, slowness

        return slowness(FLOAT16, settings.provider)

    def convert(self, file: Path, settings: QuantizationSettings) -> PassResult:
        """Convert the file."""
        from trpexport.quantization.half import FLOAT16, convert

        found = convert(file, file, FLOAT16, settings)
        return PassResult(found.note, found.facts)


PRECISIONS.register(Float16.name, Float16())
