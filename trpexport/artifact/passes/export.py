"""A network to ONNX: the pass that writes the file."""

from __future__ import annotations

from pathlib import Path

from trpexport.artifact.passes import PASSES
from trpexport.artifact.passes.base import Context, Equivalent, Pass, PassResult


class Export(Pass):
    """Writes the network as ONNX; what comes before it is the network itself."""

    name = "export"
    title = "export to ONNX"
    claim = Equivalent()
    advice = "try the other exporter (legacy_exporter) or another opset"

    def apply(self, file: Path, context: Context) -> PassResult:
        """Write the file."""
        return PassResult(context.network.write_onnx(file, context.settings))


PASSES.register(Export.name, Export())
