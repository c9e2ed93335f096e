"""The pass that lets a file say where it comes from."""

from __future__ import annotations

from pathlib import Path

from trpexport.artifact.passes import PASSES
from trpexport.artifact.passes.base import Context, Equivalent, Pass, PassResult

_OWN = "trpexport."


class Annotate(Pass):
    """Replaces what the file says of trpexport; the rest stays byte for byte the same."""

    name = "annotate"
    title = "annotate the file"
    claim = Equivalent()

    def apply(self, file: Path, context: Context) -> PassResult:
        """Replace the entries of this project among the metadata."""
        import onnx

        model = onnx.load(file, load_external_data=False)
        kept = {
            entry.key: entry.value
            for entry in model.metadata_props
            if not entry.key.startswith(_OWN)
        }
        onnx.helper.set_model_props(model, kept | dict(context.metadata))
        onnx.save(model, file)
        return PassResult()


PASSES.register(Annotate.name, Annotate())
