"""Options that several commands share."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from trpexport.errors import TrpexportError

from .console import claim

if TYPE_CHECKING:
    from trpexport.artifact.build import ExportSettings
    from trpexport.expectations import Expectation
    from trpexport.inputs import Inputs as NetworkInputs
    from trpexport.pipeline import Decomposable, Source


CheckpointFile = Annotated[
    Path, typer.Argument(metavar="CHECKPOINT", help="A .pth, .th, .pt, .tar or .safetensors file.")
]
NetworkFile = Annotated[
    Path,
    typer.Argument(metavar="NETWORK", help="A .pth, .th, .pt, .tar, .safetensors or .onnx file."),
]
Arch = Annotated[
    str | None,
    typer.Option(help="Architecture, if it is not recognised; a wrong name lists the near ones."),
]
Expect = Annotated[
    str | None,
    typer.Option(
        help="Labelled images that the checkpoint should classify, as in cifar10:DIR; a look-alike "
        "of its architecture is taken if it does so better."
    ),
]
Model = Annotated[str | None, typer.Option(help="Your own network, as package.module:factory.")]
InputShape = Annotated[
    list[str] | None,
    typer.Option(
        help="Shape of the input, as in 1x3x224x224; of several by name, as in "
        "image=1x3x224x224 or ids=1x128:int64. Repeatable.",
        metavar="NxCxHxW",
    ),
]
UnsafePickle = Annotated[
    bool,
    typer.Option("--unsafe-pickle", help="Load a pickled module. This runs code from the file."),
]
Scheme = Annotated[
    str,
    typer.Option(
        help="channel, spatial, input-channel or decoupling; tucker2 or spatial-channel, not for "
        "training. A wrong name lists all."
    ),
]
Include = Annotated[
    list[str] | None,
    typer.Option(help="Only layers whose name matches this glob; the stem too. Repeatable."),
]
Exclude = Annotated[
    list[str] | None, typer.Option(help="No layers whose name matches this glob. Repeatable.")
]
Stride1Only = Annotated[
    bool, typer.Option("--stride-1-only", help="Leave strided layers as they are.")
]
Out = Annotated[
    Path | None,
    typer.Option("--out", "-o", help="Directory to write; else named after the checkpoint."),
]
Force = Annotated[bool, typer.Option("--force", help="Replace a bundle that stands there.")]
Opset = Annotated[int, typer.Option(help="ONNX operator set.")]
DynamicBatch = Annotated[
    bool, typer.Option("--dynamic-batch", help="Leave the batch size of the ONNX file open.")
]
Dynamic = Annotated[
    list[str] | None,
    typer.Option(
        help="Leave other dimensions open too: height,width, or as in input:2=length. Repeatable.",
    ),
]
LegacyExporter = Annotated[
    bool, typer.Option("--legacy-exporter", help="Use the TorchScript-based exporter.")
]
Simplify = Annotated[
    bool | None,
    typer.Option(
        "--simplify/--no-simplify",
        help="Run onnxsim, or do not; by default for a checkpoint, not for an ONNX file.",
    ),
]
VerifySeconds = Annotated[
    float, typer.Option(help="Time to spend on comparing networks; at least 8 inputs are run.")
]
Precision = Annotated[
    list[str] | None,
    typer.Option(
        help="fp16, bf16, int8 (needs --calib) or int8-dynamic, beside fp32; several by commas. "
        "Repeatable."
    ),
]
MaxError = Annotated[
    float | None,
    typer.Option(min=0, help="Largest output error of --precision, of its variation, as in 0.05."),
]
Format = Annotated[
    list[str] | None,
    typer.Option(
        "--format",
        help="ort: also ONNX Runtime's own format, which its builds for phones read, with a list "
        "of the operators in use.",
    ),
]
TargetOrt = Annotated[
    str | None,
    typer.Option(
        help="Oldest ONNX Runtime that has to read the files, as in 1.16: its operator set, its "
        "version of the format.",
        metavar="VERSION",
    ),
]
Check = Annotated[
    bool,
    typer.Option(
        "--check",
        help="Run the files in the ONNX Runtime of --target-ort, installed by pip into a virtual "
        "environment for it, and compare the outputs.",
    ),
]
Calib = Annotated[
    str | None,
    typer.Option(help="Unlabelled images that int8 is calibrated on, as in cifar10:DIR."),
]
CalibImages = Annotated[int, typer.Option(min=1, help="How many images to calibrate on.")]
CalibSeed = Annotated[int, typer.Option(min=0, help="Which of them.")]
Inputs = Annotated[
    Path | None,
    typer.Option(
        help="A .npy array of real inputs to verify on, or several by name as .npz; else random."
    ),
]
NamedShapes = Annotated[
    list[str] | None,
    typer.Option(help="Shape of a dynamic ONNX input, as in input=1x3x224x224. Repeatable."),
]
Json = Annotated[bool, typer.Option("--json", callback=claim, help="Print the same facts as JSON.")]


@dataclass(frozen=True)
class Idle:
    """Options that do nothing where another one is given, or where it is not.

    All are named by their parameters.

    Attributes:
        options: those that do nothing.
        beside: the one beside which they do nothing; None where ``without`` says it.
        without: the one without which they do nothing.
    """

    options: tuple[str, ...]
    beside: str | None = None
    without: str | None = None


CHECKING = Idle(("check",), without="target_ort")


def refuse_idle(context: typer.Context, *table: Idle) -> None:
    """Refuse options that would be ignored.

    Raises:
        TrpexportError: one was typed.
    """
    for row in table:
        if row.beside is not None and is_typed(context, row.beside):
            refuse_typed(context, row.options, f"beside {flag(context, row.beside)}")
        if row.without is not None and not is_typed(context, row.without):
            missing = flag(context, row.without)
            refuse_typed(context, row.options, f"without {missing}", add=missing)


def refuse_typed(
    context: typer.Context, options: Iterable[str], where: str, *, add: str | None = None
) -> None:
    """Refuse options that do nothing where a command is used in one of its ways.

    Args:
        context: what was typed.
        options: their parameters.
        where: the way, for the message.
        add: what would give them something to do, if there is such a thing.

    Raises:
        TrpexportError: one was typed.
    """
    typed = [flag(context, name) for name in options if is_typed(context, name)]
    if typed:
        verb, them = ("does", "it") if len(typed) == 1 else ("do", "them")
        remedy = f"leave {them} out" if add is None else f"add {add}, or leave {them} out"
        raise TrpexportError(f"{', '.join(typed)} {verb} nothing {where}: {remedy}")


def at_most_one(context: typer.Context, *options: str) -> None:
    """Refuse options that exclude each other, named by their parameters.

    Raises:
        TrpexportError: several were typed.
    """
    typed = [flag(context, name) for name in options if is_typed(context, name)]
    if len(typed) > 1:
        raise TrpexportError(f"{' and '.join(typed)} exclude each other: give one of them")


def is_typed(context: typer.Context, name: str) -> bool:
    """Whether a parameter's option was typed; its default does not count."""
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def flag(context: typer.Context, name: str) -> str:
    """Return the option of a parameter, as it was typed or would be."""
    (option,) = (found for found in context.command.params if found.name == name)
    is_off = context.params[name] is False and option.secondary_opts
    return (option.secondary_opts if is_off else option.opts)[0]


_SHAPE = r"[1-9]\d{0,8}(x[1-9]\d{0,8})+"


def parse_inputs(texts: list[str] | None) -> NetworkInputs | None:
    """Read ``1x3x224x224``, or several of ``image=1x3x224x224`` and ``ids=1x128:int64``.

    Raises:
        TrpexportError: one is something else.
    """
    if not texts:
        return None
    from trpexport.inputs import INPUT, Input
    from trpexport.inputs import Inputs as NetworkInputs

    found: dict[str, Input] = {}
    for text in texts:
        parts = re.fullmatch(rf"((?P<name>[^=]+)=)?(?P<shape>{_SHAPE})(:(?P<dtype>\w+))?", text)
        if parts is None:
            raise TrpexportError(
                f"--input-shape {text!r} must look like 1x3x224x224 or image=1x3x224x224"
            )
        name = parts["name"] or INPUT
        if name in found or (parts["name"] is None and len(texts) > 1):
            raise TrpexportError(
                f"--input-shape {text!r} is one of several: name each, as in image=1x3x224x224"
            )
        found[name] = Input(tuple(map(int, parts["shape"].split("x"))), parts["dtype"])
    return NetworkInputs(found)


def parse_named_shapes(texts: list[str] | None) -> dict[str, tuple[int, ...]]:
    """Read ``input=1x3x224x224``, several of them.

    Raises:
        TrpexportError: one is something else.
    """
    shapes = {}
    for text in texts or ():
        name, _, shape = text.rpartition("=")
        if not name or not re.fullmatch(_SHAPE, shape):
            raise TrpexportError(f"--shape {text!r} must look like input=1x3x224x224")
        shapes[name] = tuple(map(int, shape.split("x")))
    return shapes


# What is asked of the way from a checkpoint to ONNX: an ONNX file is on its far side.
_FOR_CHECKPOINTS = (
    *("arch", "model", "expect", "unsafe_pickle"),
    *("opset", "dynamic_batch", "dynamic", "legacy_exporter"),
)


def source(
    context: typer.Context,
    path: Path,
    arch: str | None,
    model: str | None,
    input_shape: list[str] | None,
    unsafe: bool,
    expect: Expectation | None = None,
) -> Decomposable:
    """Say which checkpoint or ONNX file to read, and how.

    Raises:
        TrpexportError: something was typed that does nothing for an ONNX file.
    """
    from trpexport.onnxfile.recognition import is_onnx

    if is_onnx(path):
        from trpexport.onnx_files import OnnxFileSource

        refuse_typed(context, _FOR_CHECKPOINTS, "for an ONNX file")
        return OnnxFileSource(path, parse_inputs(input_shape))
    return checkpoint_source(path, arch, model, input_shape, unsafe, expect)


def checkpoint_source(
    path: Path,
    arch: str | None,
    model: str | None,
    input_shape: list[str] | None,
    unsafe: bool,
    expect: Expectation | None = None,
) -> Source:
    """Say which checkpoint to read, and how.

    Raises:
        TrpexportError: it is an ONNX file.
    """
    from trpexport.onnxfile.recognition import is_onnx
    from trpexport.pipeline import Source

    if is_onnx(path):
        raise TrpexportError(
            f"{path} is an ONNX file, which needs no export: trpexport decompose makes it smaller, "
            "bench times it"
        )

    return Source(path, arch, model, parse_inputs(input_shape), unsafe, expect)


def settings(
    *,
    opset: int,
    dynamic_batch: bool,
    dynamic: list[str] | None,
    legacy: bool,
    simplify: bool | None,
    seconds: float,
    force: bool,
    precision: list[str] | None = None,
    max_error: float | None = None,
    **others: Any,
) -> ExportSettings:
    """Say how to export.

    Raises:
        TrpexportError: the time is not a number of seconds.
    """
    from trpexport.artifact.build import ExportSettings

    return ExportSettings(
        opset=opset,
        dynamic_batch=dynamic_batch,
        dynamic=[one for text in dynamic or () for one in text.split(",")],
        legacy_exporter=legacy,
        simplify=simplify,
        verify_seconds=checked_seconds(seconds),
        replace=force,
        precisions=names(precision),
        max_error=max_error,
        **others,
    )


def checked_seconds(seconds: float) -> float:
    """Return the time to spend on comparing networks.

    Raises:
        TrpexportError: it is not a number of seconds.
    """
    if not 0 <= seconds < float("inf"):
        raise TrpexportError(f"--verify-seconds {seconds:g} must be a number of seconds")
    return seconds


def names(texts: list[str] | None) -> tuple[str, ...]:
    """Return the names that were typed, by commas or one by one."""
    return tuple(one.strip() for text in texts or () for one in text.split(","))


def read_inputs(path: Path | None) -> Any:
    """Read an array of inputs, or several by name; None for none.

    Raises:
        TrpexportError: the file is missing or holds no arrays of numbers.
    """
    if path is None:
        return None
    from trpexport.arrays import read_arrays

    remedy = "give one array saved by numpy.save, or several by name, by numpy.savez"
    arrays = read_arrays(path, remedy=remedy)
    if not arrays or any(a.dtype.kind not in "fiub" or not a.ndim for a in arrays.values()):
        raise TrpexportError(f"{path} holds no array of numbers: {remedy}")
    return arrays if len(arrays) > 1 else next(iter(arrays.values()))
