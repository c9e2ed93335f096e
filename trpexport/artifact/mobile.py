"""Finished files in ONNX Runtime's own format, verified against what they were made of."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from trpexport import bundle
from trpexport.artifact.passes import Approximate, Claim, Context, Equivalent, Step
from trpexport.artifact.passes.base import error_of
from trpexport.artifact.reference import OnnxFile
from trpexport.artifact.variants import MARGIN, Variant
from trpexport.errors import VerificationError
from trpexport.files import write_atomically
from trpexport.runtime.ort_format import required_operators, write_ort


def write_mobile(
    model: Path,
    variants: Iterable[Variant],
    context: Context,
    *,
    seconds: float,
    also_model: bool = True,
) -> tuple[Variant, ...]:
    """Write a float32 file and its variants in ONNX Runtime's format, each beside what it is of.

    The operators that a build needs to run all such files there go into a file of their own.

    Args:
        model: the float32 file, which all are compared with.
        variants: it in other precisions.
        context: as the passes before left it.
        seconds: how long each is compared.
        also_model: whether the float32 file is written so, too.

    Raises:
        VerificationError: one does not compute what it was made of.
        ModelError: one can't be written so.
    """
    reference = replace(context.reference, network=OnnxFile(model))
    context = replace(context, reference=reference)
    made = [_written(model, None, context, seconds)] if also_model else []
    made += [_written(one.file, one, context, seconds) for one in variants]
    operators = required_operators(model.parent.glob("*.ort"))
    write_atomically(model.with_name(bundle.OPERATORS), operators.encode())
    return tuple(made)


def _written(file: Path, variant: Variant | None, context: Context, seconds: float) -> Variant:
    """Write one file in ONNX Runtime's format, and check that it computes the same."""
    started = time.perf_counter()
    target = file.with_suffix(".ort")
    with context.stages("write ONNX Runtime's format"):
        write_ort(file, target)
    with context.stages("verify it"):
        outputs = context.reference.compare(OnnxFile(target), seconds=seconds)
    claim: Claim
    if variant is None:
        claim = Equivalent()
    else:  # a last bit may decide on a step of the quantizer: it is as near, not the same
        errors = [error_of(found) for found in variant.step.outputs.values()]
        claim = Approximate(MARGIN * max(errors))
    if (wrong := claim.broken_by(outputs)) is not None:
        raise VerificationError(
            f"{target.name} does not compute what {file.name} does ({wrong}: {outputs[wrong]}): "
            "nothing was written, please report this, and use the ONNX file"
        )
    name = bundle.ORT if variant is None else f"{variant.precision}-{bundle.ORT}"
    facts = {"made_of": file.name, "operators": bundle.OPERATORS}
    step = Step(name, claim, outputs, time.perf_counter() - started, facts=facts)
    return Variant(name, target, step)
