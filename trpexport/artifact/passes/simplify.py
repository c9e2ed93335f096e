"""The pass that folds constants."""

from __future__ import annotations

from pathlib import Path

from trpexport.artifact.passes import PASSES
from trpexport.artifact.passes.base import Context, Equivalent, Pass, PassResult
from trpexport.networks.onnx.simplifying import simplify_in_place


class Simplify(Pass):
    """Folds constants and removes what has no effect, by onnxsim."""

    name = "simplify"
    title = "simplify"
    claim = Equivalent()
    is_optional = True

    def apply(self, file: Path, context: Context) -> PassResult:
        """Simplify the file."""
        simplify_in_place(file)
        return PassResult()


PASSES.register(Simplify.name, Simplify())
