"""What the passes that write a network in numbers of fewer bits have in common."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import replace
from pathlib import Path
from typing import ClassVar, final

from trpexport.artifact.passes.base import Approximate, Claim, Context, Pass, PassResult
from trpexport.artifact.reference import OnnxFile
from trpexport.onnxfile.targets import lower
from trpexport.quantization.settings import QuantizationSettings


class Precision(Pass):
    """Writes the network in another precision, into a file of its own beside the float32 one.

    Attributes:
        needs_images: whether it is calibrated.
        keeps_names: whether what computes a layer is called as it was.
    """

    claim = Approximate()
    needs_images: ClassVar[bool] = False
    keeps_names: ClassVar[bool] = True

    @final
    def claim_in(self, context: Context) -> Claim:
        """Return that it is near, as near as was asked for."""
        return Approximate(_settings(context).max_error)

    @final
    def apply(self, file: Path, context: Context) -> PassResult:
        """Change a copy of the float32 file, beside which weights outside of it still lie."""
        settings = _settings(context)
        self.check(settings)
        if warning := self.warning(settings):
            context.stages.say(warning)
        if not settings.calibration:
            settings = replace(settings, calibration=context.reference.golden())
        target = context.settings.target
        if target is None:
            return self.convert(file, settings)
        notes = [lower(file, target)]
        result = self.convert(file, settings)
        notes += [lower(file, target), result.note]
        return replace(result, note="; ".join(note for note in notes if note) or None)

    @final
    def opened(self, file: Path, context: Context) -> OnnxFile:
        """Return the file, run by the provider that it is for."""
        return OnnxFile(file, _settings(context).provider)

    def warning(self, settings: QuantizationSettings) -> str | None:
        """Return what a user should know before it is written; None for nothing."""
        return None

    def check(self, settings: QuantizationSettings) -> None:
        """Refuse what can't be before any work is done.

        Raises:
            ModelError: the provider can't run it.
        """

    def convert_blank(self, file: Path, settings: QuantizationSettings) -> None:
        """Change an ONNX file with made-up weights, of which nothing counts but how fast it is.

        Raises:
            ModelError: it can't be written so.
        """
        self.convert(file, settings)

    @abstractmethod
    def convert(self, file: Path, settings: QuantizationSettings) -> PassResult:
        """Change an ONNX file in its place.

        Raises:
            ModelError: it can't be written so.
            NothingToDoError: it can't be as near as was asked for.
        """


def _settings(context: Context) -> QuantizationSettings:
    return context.quantization or QuantizationSettings()
