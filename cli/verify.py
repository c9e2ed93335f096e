"""``trpexport verify``: do two ONNX files compute the same? Without torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from trpexport.errors import TrpexportError, VerificationError

from .console import show, show_json
from .options import Json, NamedShapes, parse_named_shapes, refuse_typed

if TYPE_CHECKING:
    from trpexport.compare import Tolerance
    from trpexport.runtime.verify import Verification
    from trpexport.tensors import Shapes


def verify(
    context: typer.Context,
    first: Annotated[Path, typer.Argument(metavar="A", help="A bundle, or an ONNX file.")],
    second: Annotated[
        Path | None, typer.Argument(metavar="[B]", help="An ONNX file or a bundle to compare with.")
    ] = None,
    count: Annotated[
        int, typer.Option(min=1, help="How many random inputs to compare two files on.")
    ] = 64,
    seconds: Annotated[
        float, typer.Option(min=0, help="Go on with random inputs for at least so long.")
    ] = 0.0,
    seed: Annotated[int, typer.Option(min=0, help="Of the random inputs.")] = 0,
    inputs: Annotated[
        Path | None,
        typer.Option(help="Real inputs for two files: a .npy, or a .npz by their inputs' names."),
    ] = None,
    shape: NamedShapes = None,
    tolerance: Annotated[
        float | None,
        typer.Option(
            min=0,
            help="Largest difference allowed, of the output's RMS; its RMS a tenth of that; so "
            "large a share of whole numbers may differ. 0.001 if not given.",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Compare a bundle with its golden outputs, or two ONNX files with each other.

    One bundle: its model.onnx against the outputs that PyTorch gave when it was exported. An ONNX
    file and a bundle: that file against the bundle's golden outputs. Two ONNX files, or two
    bundles: one against the other on the same random inputs, or on those of --inputs. Whole numbers
    go by how many are equal. Needs no torch. Exit code 4: they differ by more than float32
    rounding, or than --tolerance.
    """
    from trpexport.compare import FLOAT32, Tolerance
    from trpexport.report.views.verification import verification_view

    drawing = ("count", "seconds", "seed", "shape")
    if second is None or first.is_dir() != second.is_dir():
        idle = (*drawing, "inputs")
        refuse_typed(context, idle, "where a bundle's golden outputs are compared")
    if inputs is not None:
        refuse_typed(context, drawing, "beside --inputs")
    allowed = FLOAT32 if tolerance is None else Tolerance.of(tolerance)
    drawn = _Drawn(count, seconds, seed, parse_named_shapes(shape))
    result, what = _compare(first, second, drawn, inputs, allowed)
    if as_json:
        show_json({"compared": what, **result.to_json()})
    else:
        show(*verification_view(result, what))
    if not result.is_equivalent:
        limit = "float32 rounding" if tolerance is None else f"a tolerance of {tolerance:g}"
        raise VerificationError(f"not the same network: the outputs differ by more than {limit}")


@dataclass(frozen=True)
class _Drawn:
    """Which random inputs two files are compared on."""

    count: int
    seconds: float
    seed: int
    shapes: Shapes


def _compare(
    first: Path, second: Path | None, drawn: _Drawn, inputs: Path | None, tolerance: Tolerance
) -> tuple[Verification, str]:
    from trpexport.bundle import MODEL, is_directory, read_manifest
    from trpexport.measure.inputs import read_inputs
    from trpexport.runtime.verify import verify_against_golden, verify_bundle, verify_models

    if second is None:
        if not is_directory(first):
            raise TrpexportError(
                f"{first} is no bundle: give a bundle, or a second ONNX file to compare with"
            )
        return verify_bundle(first, tolerance=tolerance), f"{first} against its golden outputs"
    if is_directory(first) != is_directory(second):
        bundle, model = (first, second) if first.is_dir() else (second, first)
        return (
            verify_against_golden(model, bundle, tolerance=tolerance),
            f"{model} against the golden outputs of {bundle}",
        )
    what = f"{second} against {first} on {'random inputs' if inputs is None else inputs}"
    if first.is_dir():
        read_manifest(first)
        read_manifest(second)
        first, second = first / MODEL, second / MODEL
    result = verify_models(
        first,
        second,
        inputs=None if inputs is None else read_inputs(inputs),
        tolerance=tolerance,
        **vars(drawn),
    )
    return result, what
