"""``trpexport verify``: do two ONNX files compute the same? Without torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from trpexport.errors import TrpexportError, VerificationError

from . import options as opt
from .console import show, show_json
from .eval import PREPARING, DataPreprocessing, Mean, Resize, Size, Std, prepared_inputs
from .idle import Idle, refuse_idle, refuse_typed

if TYPE_CHECKING:
    from trpexport.compare import Tolerance
    from trpexport.runtime.verify import Verification
    from trpexport.tensors import Shapes

_COUNT = 64  # random inputs that two files are compared on


def verify(
    context: typer.Context,
    first: Annotated[Path, typer.Argument(metavar="A", help="A bundle, or an ONNX file.")],
    second: Annotated[
        Path | None, typer.Argument(metavar="[B]", help="An ONNX file or a bundle to compare with.")
    ] = None,
    images: opt.Images = None,
    verify_seconds: opt.VerifySeconds = 0.0,
    seed: opt.Seed = 0,
    inputs: opt.Inputs = None,
    mean: Mean = None,
    std: Std = None,
    size: Size = None,
    resize: Resize = None,
    data_preprocessing: DataPreprocessing = False,
    input_shape: opt.InputShape = None,
    tolerance: Annotated[
        float | None,
        typer.Option(
            min=0,
            help="Largest difference to accept, as a share of the output's RMS (the RMS of the "
            "differences may be a tenth of it); of integer outputs, the share that may differ. "
            "Default: 0.001.",
        ),
    ] = None,
    as_json: opt.Json = False,
) -> None:
    """Compare a bundle with its golden outputs, or two ONNX files with each other.

    A bundle: compares its model.onnx with the outputs that PyTorch gave at export; BUNDLE@int8 is
    its network in another precision, which may be off by twice its error when it was written. An
    ONNX file and a bundle: compares the file with the bundle's golden outputs. Two ONNX files, or
    two bundles: compares them on the same random inputs, or on those of --inputs. Integer outputs
    are compared by the share of equal numbers. Needs no torch. Exit code 4: they differ by more
    than float32 rounding, or than --tolerance.

    Example:
        trpexport verify out
        trpexport verify network.onnx out/model.onnx --images 256
    """
    from trpexport.compare import Tolerance
    from trpexport.report.views.verification import verification_view

    drawing = ("images", "verify_seconds", "seed", "input_shape")
    if second is None or _is_golden(first) != _is_golden(second):
        idle = (*drawing, "inputs")
        refuse_typed(context, idle, "where a bundle's golden outputs are compared")
    refuse_idle(context, Idle(drawing, beside="inputs"), Idle(PREPARING, without="inputs"))
    how = (mean, std, size, resize, data_preprocessing)
    allowed = None if tolerance is None else Tolerance.of(tolerance)
    drawn = _Drawn(
        images or _COUNT,
        opt.checked_seconds(verify_seconds),
        seed,
        opt.parse_named_shapes(input_shape),
    )
    result, what, limit = _compare(first, second, drawn, inputs, how, allowed)
    if tolerance is not None:
        limit = f"a tolerance of {tolerance:g}"
    if as_json:
        show_json({"compared": what, **result.to_json()})
    else:
        show(*verification_view(result, what))
    if not result.is_equivalent:
        raise VerificationError(f"not the same network: the outputs differ by more than {limit}")


@dataclass(frozen=True)
class _Drawn:
    """Which random inputs two files are compared on."""

    count: int
    seconds: float
    seed: int
    shapes: Shapes


def _is_golden(path: Path) -> bool:
    """Whether a path names a bundle, and so its golden outputs."""
    from trpexport.bundle import FLOAT32, split_name

    named = split_name(path)
    return named is not None and named[1] == FLOAT32


def _compare(
    first: Path,
    second: Path | None,
    drawn: _Drawn,
    inputs: str | None,
    how: tuple[str | None, str | None, str | None, int | None, bool],
    tolerance: Tolerance | None,
) -> tuple[Verification, str, str]:
    """Return the outcome, what was compared, and what was allowed."""
    from trpexport.bundle import FLOAT32, locate, split_name
    from trpexport.compare import FLOAT32 as ROUNDING
    from trpexport.judge.real_inputs import real_inputs
    from trpexport.onnxfile.recognition import check_onnx_file
    from trpexport.runtime.verify import verify_against_golden, verify_bundle, verify_models

    rounding = "float32 rounding"
    if second is None:
        named = split_name(first)
        if named is None:
            check_onnx_file(first)
            raise TrpexportError(
                f"{first} is no bundle: give a bundle, or a second ONNX file to compare with"
            )
        limit = rounding if named[1] == FLOAT32 else f"{named[1]} did when it was written"
        what = f"{first} against its golden outputs"
        return verify_bundle(first, tolerance=tolerance), what, limit
    allowed = tolerance or ROUNDING
    if _is_golden(first) != _is_golden(second):
        bundle, model = (first, second) if _is_golden(first) else (second, first)
        file, _ = locate(model)
        what = f"{model} against the golden outputs of {bundle}"
        return verify_against_golden(file, bundle, tolerance=allowed), what, rounding
    what = f"{second} against {first} on {'random inputs' if inputs is None else inputs}"
    (truth, _), (suspect, _) = locate(first), locate(second)
    given = None
    if inputs is not None:
        given = real_inputs(inputs, [first, second], prepared_inputs(inputs, how))
    result = verify_models(
        truth,
        suspect,
        inputs=given,
        tolerance=allowed,
        **vars(drawn),
    )
    return result, what, rounding
