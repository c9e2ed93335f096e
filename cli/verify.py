"""``trpexport verify``: do two ONNX files compute the same? Without torch."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from trpexport.errors import TrpexportError, VerificationError

from .console import show, show_json
from .options import Json, NamedShapes, parse_named_shapes, refuse_typed

if TYPE_CHECKING:
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
    shape: NamedShapes = None,
    as_json: Json = False,
) -> None:
    """Compare a bundle with its golden outputs, or two ONNX files with each other.

    One bundle: its model.onnx against the outputs that PyTorch gave when it was exported. An ONNX
    file and a bundle: that file against the bundle's golden outputs. Two ONNX files, or two
    bundles: one against the other on the same random inputs. Needs no torch. Exit code 4: they
    differ by more than float32 rounding.
    """
    from trpexport.report.views.verification import verification_view

    if second is None or first.is_dir() != second.is_dir():
        refuse_typed(context, ("count", "shape"), "where a bundle's golden outputs are compared")
    result, what = _compare(first, second, count, parse_named_shapes(shape))
    if as_json:
        show_json({"compared": what, **result.to_json()})
    else:
        show(*verification_view(result, what))
    if not result.is_equivalent:
        raise VerificationError(
            "not the same network: the outputs differ by more than float32 rounding"
        )


def _compare(
    first: Path, second: Path | None, count: int, shapes: Shapes
) -> tuple[Verification, str]:
    from trpexport.bundle import MODEL, read_manifest
    from trpexport.runtime.verify import verify_against_golden, verify_bundle, verify_models

    if second is None:
        if not first.is_dir():
            raise TrpexportError(
                f"{first} is no bundle: give a bundle, or a second ONNX file to compare with"
            )
        return verify_bundle(first), f"{first} against its golden outputs"
    if first.is_dir() != second.is_dir():
        bundle, model = (first, second) if first.is_dir() else (second, first)
        return (
            verify_against_golden(model, bundle),
            f"{model} against the golden outputs of {bundle}",
        )
    what = f"{second} against {first} on random inputs"
    if first.is_dir():
        read_manifest(first)
        read_manifest(second)
        first, second = first / MODEL, second / MODEL
    return verify_models(first, second, count=count, shapes=shapes), what
