"""bfloat16: the range of float32 in half the bits, where the provider computes in it."""

from __future__ import annotations

from pathlib import Path

from trpexport.artifact.passes import PRECISIONS
from trpexport.artifact.passes.base import PassResult
from trpexport.artifact.passes.precision import Precision
from trpexport.errors import ModelError
from trpexport.quantization.settings import QuantizationSettings
from trpexport.runtime.kernels import kernels_of


class BFloat16(Precision):
    """Computes in bfloat16; inputs, outputs and what the provider lacks stay in float32."""

    name = "bf16"
    title = "convert to bfloat16"

    def check(self, settings: QuantizationSettings) -> None:
        """Refuse a provider that does not multiply in it: nothing here could verify the file."""
        from trpexport.quantization.half import BFLOAT16

        super().check(settings)
        if not kernels_of(settings.provider, BFLOAT16.name).multiplies:
            raise ModelError(
                f"the provider {settings.provider} does not compute in bfloat16 here, so that such "
                "a file could not be verified: choose fp16 or int8, or a provider that does",
                parameters=("provider",),
            )

    def convert(self, file: Path, settings: QuantizationSettings) -> PassResult:
        """Convert the file."""
        from trpexport.quantization.half import BFLOAT16, convert

        found = convert(file, file, BFLOAT16, settings)
        return PassResult(found.note, found.facts)


PRECISIONS.register(BFloat16.name, BFloat16())
