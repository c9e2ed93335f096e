"""PyTorch to ONNX: the pass that writes the file."""

from __future__ import annotations

from pathlib import Path

from trpexport.artifact.passes import PASSES
from trpexport.artifact.passes.base import Context, Equivalent, Pass, PassResult


class Export(Pass):
    """Writes the network as ONNX; what comes before it is the PyTorch network."""

    name = "export"
    title = "export to ONNX"
    claim = Equivalent()
    advice = "try the other exporter (legacy_exporter) or another opset"

    def apply(self, file: Path, context: Context) -> PassResult:
        """Write the file."""
        settings = context.settings
        context.network.write_onnx(file, settings)
        notes = []
        if settings.is_legacy and not settings.legacy_exporter:
            notes.append(f"opset {settings.opset} was written by the legacy exporter")
        if settings.is_legacy and context.network.decides_by_values:
            notes.append(
                "the network decides by the values of its input, and the legacy exporter wrote "
                "what it does for one: right only where all inputs decide alike"
            )
        return PassResult("; ".join(notes) or None)


PASSES.register(Export.name, Export())
