"""A finished ONNX file in other precisions, each verified against it."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from trpexport.artifact.passes import PRECISIONS, Context, Precision, Step
from trpexport.artifact.reference import OnnxFile
from trpexport.bundle import FLOAT32
from trpexport.compare import FLOAT32 as ROUNDING
from trpexport.compare import Comparison, Tolerance, compare_outputs
from trpexport.errors import ModelError, NothingToDoError, TrpexportError
from trpexport.golden import Golden
from trpexport.quantization.settings import QuantizationSettings
from trpexport.runtime.session import open_session

# What another machine or version of ONNX Runtime may round otherwise.
MARGIN = 2.0


@dataclass(frozen=True)
class Variant:
    """A network in another precision.

    Attributes:
        precision: the precision.
        file: its file.
        step: what was done, and how far the outputs are from those of the float32 file.
        provider: who runs it.
    """

    precision: str
    file: Path
    step: Step
    provider: str = "cpu"

    def to_json(self, golden: Golden) -> dict[str, Any]:
        """Return what a manifest says of it.

        Args:
            golden: what the network gives for some inputs, which the file is compared with now, so
                that its errors may be known again elsewhere.
        """
        outputs = OnnxFile(self.file, self.provider).run(golden.inputs)
        found = compare_outputs([(golden.outputs, outputs)])
        step = self.step.to_json()
        return {
            "file": self.file.name,
            "claim": step["claim"],
            "outputs": step["outputs"],
            "facts": dict(self.step.facts),
            "note": self.step.note,
            "tolerance": asdict(_tolerance(found)),
        }


def check_precisions(
    names: Sequence[str], settings: QuantizationSettings, *, has_images: bool
) -> None:
    """Refuse precisions that can't be written, before any work is done.

    Args:
        names: the precisions.
        settings: who will run them.
        has_images: whether there are images to calibrate on.

    Raises:
        ModelError: one needs images, or the provider can't run it.
        TrpexportError: one is unknown, or twice there.
    """
    if len(set(names)) < len(names):
        raise TrpexportError(f"{', '.join(names)}: name each precision once")
    for name in names:
        if name == FLOAT32:
            continue
        one = precision_of(name)
        if one.needs_images and not has_images:
            raise ModelError(
                f"{name} takes its ranges from images: give some to calibrate on",
                parameters=("calib",),
            )
        one.check(settings)


@dataclass(frozen=True)
class BlankForm:
    """Writes networks whose weights are made up in another precision, so that they can be timed.

    Attributes:
        name: the precision.
        layers: which layers are to be in it, as :class:`QuantizationSettings` has it.

    Raises:
        TrpexportError: there is no such precision, or layers can't be told from each other in it.
    """

    name: str
    layers: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse a precision in which no layer could be timed."""
        if not precision_of(self.name).keeps_names:
            raise ModelError(
                f"ranks can't be chosen to be fast in {self.name}, in which layers lose their "
                f"names: name another precision first, as in {FLOAT32},{self.name}",
                parameters=("precision",),
            )

    def __call__(self, file: Path) -> None:
        """Change an ONNX file of float32 in its place.

        Raises:
            ModelError: it can't be written so.
        """
        inputs = open_session(file).random_inputs()
        drawn = QuantizationSettings(calibration=inputs, layers=self.layers)
        precision_of(self.name).convert_blank(file, drawn)


def precision_of(name: str) -> Precision:
    """Return the pass that writes a precision other than float32.

    Raises:
        TrpexportError: there is none; the message names all.
    """
    if name not in PRECISIONS:
        known = ", ".join((FLOAT32, *sorted(PRECISIONS)))
        raise TrpexportError(f"unknown precision {name!r}: choose from {known}")
    return PRECISIONS[name]


def write_variants(
    names: Sequence[str],
    model: Path,
    files: Mapping[str, Path],
    context: Context,
    *,
    seconds: float,
) -> tuple[Variant, ...]:
    """Write a float32 file in other precisions, one after the other, and verify each against it.

    Args:
        names: the precisions; what stands for float32 is passed over.
        model: the float32 file.
        files: by precision, the file to write, in the directory of ``model``.
        context: as the passes before left it.
        seconds: how long each is compared.

    Raises:
        NothingToDoError: one can't be as near as was asked for.
        TrpexportError: one is unknown or can't be written, or gives NaN or infinities.
    """
    reference = replace(context.reference, network=OnnxFile(model))
    context = replace(context, reference=reference)
    provider = (context.quantization or QuantizationSettings()).provider
    found = []
    for name in names:
        if name == FLOAT32:
            continue
        shutil.copyfile(model, files[name])
        step = precision_of(name)(files[name], context, seconds=seconds)
        _check_finite(name, step)
        step = _judged(step, files[name], context.quantization)
        found.append(Variant(name, files[name], step, provider))
    return tuple(found)


def _judged(step: Step, file: Path, settings: QuantizationSettings | None) -> Step:
    """Return a step with how much worse the file is by a metric, where there are labels.

    Raises:
        NothingToDoError: it is by more than was asked for.
    """
    if settings is None or settings.judge is None:
        return step
    drop = settings.judge(file)
    if settings.max_drop is not None and not drop <= settings.max_drop:
        raise NothingToDoError(
            f"{step.name} costs {drop:.3g} {settings.unit}, more than the {settings.max_drop:g} "
            "allowed: nothing was written, allow more, or choose another precision",
            parameters=("max_drop", "precision"),
        )
    return replace(step, facts={**step.facts, "drop": drop, "unit": settings.unit})


def _check_finite(name: str, step: Step) -> None:
    """Refuse a file that is broken, not only less exact.

    Raises:
        ModelError: it gives NaN or infinities where the float32 one does not.
    """
    for output, compared in step.outputs.items():
        if compared.cosine != compared.cosine:  # NaN: one of them is not finite
            raise ModelError(
                f"{name} makes NaN or infinities of {output}: nothing was written, choose another "
                "precision"
            )


def _tolerance(found: Mapping[str, Comparison]) -> Tolerance:
    """Return how far a variant may be off elsewhere: what it is here, and a margin."""
    numbers = [one for one in found.values() if one.agreement is None]
    wholes = [one.agreement for one in found.values() if one.agreement is not None]
    return Tolerance(
        max([ROUNDING.max_error, *(one.max_error * MARGIN for one in numbers)]),
        max([ROUNDING.rms_error, *(one.rms_error * MARGIN for one in numbers)]),
        min([ROUNDING.agreement, *(max(0.0, 1 - MARGIN * (1 - share)) for share in wholes)]),
    )
