"""The pass that has an older ONNX Runtime read the file."""

from __future__ import annotations

from pathlib import Path

from trpexport.artifact.passes import PASSES
from trpexport.artifact.passes.base import Context, Equivalent, Pass, PassResult
from trpexport.onnxfile.targets import lower


class Lower(Pass):
    """Lowers the operator set and the version of the format to what the target reads."""

    name = "lower"
    title = "lower for the target"
    claim = Equivalent()
    advice = "export with a lower operator set, or for a later version"

    def apply(self, file: Path, context: Context) -> PassResult:
        """Lower the file; without a target it stays as it is."""
        target = context.settings.target
        return PassResult(None if target is None else lower(file, target))


PASSES.register(Lower.name, Lower())
