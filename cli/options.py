"""Options that several commands share."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from trpexport.errors import TrpexportError

from . import completion
from .alignment import multiple
from .console import claim
from .idle import is_given, refuse_typed

if TYPE_CHECKING:
    from trpexport.artifact.build import ExportSettings
    from trpexport.expectations import Expectation
    from trpexport.inputs import Inputs as NetworkInputs
    from trpexport.pipeline import Decomposable, Source

# Of options that have several types.
ARCH = "Architecture; of a checkpoint, if it is not recognised. A wrong name lists the near ones."
OUT = "Where to write; if not given, in a directory here, or in place."
OUTPUT = (
    "The output to judge by, if there are several; decompose and tune take globs, and it is "
    "repeatable there."
)
MAX_DROP = (
    "What may be lost, in points of top-1; of --metric, points of top5 and miou, else its own "
    "unit. Needs labels."
)
MIN_SPEEDUP = "How many times faster at least, measured, as in 1.6."
CRITERION = (
    "How ranks are chosen, NAME:VALUE, as in energy:0.9; a wrong name lists all. inspect shows "
    "several."
)

CheckpointFile = Annotated[
    Path, typer.Argument(metavar="CHECKPOINT", help="A .pth, .th, .pt, .tar or .safetensors file.")
]
NetworkFile = Annotated[
    Path,
    typer.Argument(metavar="NETWORK", help="A .pth, .th, .pt, .tar, .safetensors or .onnx file."),
]
Arch = Annotated[
    str | None,
    typer.Option(help=ARCH, autocompletion=completion.architectures),
]
Expect = Annotated[
    str | None,
    typer.Option(
        help="Labelled images that the checkpoint should classify, as in cifar10:DIR; a look-alike "
        "of its architecture is taken if it does so better.",
        autocompletion=completion.data,
    ),
]
Model = Annotated[str | None, typer.Option(help="Your own network, as package.module:factory.")]
InputShape = Annotated[
    list[str] | None,
    typer.Option(
        help="Shape of the input; of several by name, as in image=1x3x224x224, of whole numbers "
        "as in ids=1x128:int64. Repeatable.",
        metavar="[NAME=]1x3x224x224",
    ),
]
UnsafePickle = Annotated[
    bool,
    typer.Option("--unsafe-pickle", help="Load a pickled module. This runs code from the file."),
]
Scheme = Annotated[
    str,
    typer.Option(
        help="channel, spatial, input-channel, decoupling, tucker2 or spatial-channel; where there "
        "is a target, auto chooses for each layer. A wrong name lists all.",
        autocompletion=completion.schemes,
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
    typer.Option("--out", "-o", help=OUT),
]
Force = Annotated[bool, typer.Option("--force", help="Replace what stands there.")]
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
    float, typer.Option(help="Seconds to compare networks for; a few inputs at least.")
]
Precision = Annotated[
    list[str] | None,
    typer.Option(
        help="fp16, bf16, int8 (needs --calib) or int8-dynamic, beside fp32; several by commas. "
        "Repeatable.",
        autocompletion=completion.precisions,
    ),
]
Format = Annotated[
    list[str] | None,
    typer.Option(
        "--format",
        help="ort: also ONNX Runtime's own format, which its builds for phones read, with a list "
        "of the operators in use. Of a report: html, or md for a pull request.",
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
    typer.Option(
        help="Unlabelled images that factors and int8 are fitted to: a folder, FILE.npy, "
        "imagelist:FILE.csv, cifar10:DIR.",
        autocompletion=completion.data,
    ),
]
Images = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="How many images, spread evenly over those there are: 512 to calibrate on if not "
        "given, 64 random ones to verify on, else all.",
    ),
]
Seed = Annotated[
    int,
    typer.Option(
        min=0, max=2**63 - 1, help="Of everything random: inputs, images that are chosen, turns."
    ),
]
Output = Annotated[str | None, typer.Option(help=OUTPUT)]
Outputs = Annotated[list[str] | None, typer.Option("--output", help=OUTPUT)]
Cache = Annotated[
    Path | None,
    typer.Option(help="Folder of what is kept between runs, as tables; else the user's cache."),
]
Device = Annotated[
    str,
    typer.Option(
        help="Where PyTorch computes: auto, cpu or cuda; auto takes CUDA where there is one.",
        autocompletion=completion.devices,
    ),
]
Criterion = Annotated[
    str | None,
    typer.Option(help=CRITERION, autocompletion=completion.criteria),
]
Criteria = Annotated[
    list[str] | None,
    typer.Option("--criterion", help=CRITERION, autocompletion=completion.criteria),
]
MaxDrop = Annotated[float | None, typer.Option(help=MAX_DROP)]
TargetMacs = Annotated[float | None, typer.Option(help="Share of the MACs to keep, as in 0.5.")]
TargetError = Annotated[
    float | None,
    typer.Option(
        help="Largest output error on the images, of the outputs' variation, as in 0.05: save "
        "what it allows."
    ),
]
MinSpeedup = Annotated[float | None, typer.Option(help=MIN_SPEEDUP)]
MaxLatency = Annotated[
    str | None, typer.Option(help="Longest time of one run, as in 5ms or 800us.")
]
Inputs = Annotated[
    str | None,
    typer.Option(
        help="Real inputs to run on: FILE.npy, FILE.npz with an array for each input, a folder of "
        "images, cifar10:DIR; else random ones.",
        autocompletion=completion.data,
    ),
]
Json = Annotated[bool, typer.Option("--json", callback=claim, help="Print the same facts as JSON.")]


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
    """Read ``1x3x224x224``, of the only input of ONNX files, or several of ``NAME=1x3x224x224``.

    Raises:
        TrpexportError: one is something else.
    """
    from trpexport.tensors import ONLY_INPUT

    shapes = {}
    for text in texts or ():
        name, equals, shape = text.rpartition("=")
        if bool(name) != bool(equals) or not re.fullmatch(_SHAPE, shape):
            raise TrpexportError(
                f"--input-shape {text!r} must look like 1x3x224x224 or input=1x3x224x224"
            )
        shapes[name or ONLY_INPUT] = tuple(map(int, shape.split("x")))
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


def selection(
    context: typer.Context,
    include: list[str] | None,
    exclude: list[str] | None,
    stride_1_only: bool,
    rank_multiple: str,
    provider: str,
) -> dict[str, Any]:
    """Return which layers may be rewritten and at which ranks, as choosers take it.

    Raises:
        TrpexportError: the multiple is neither a number nor auto.
    """
    return {
        "include": tuple(include or ()),
        "exclude": tuple(exclude or ()),
        "stride_1_only": stride_1_only,
        "rank_multiple": multiple(rank_multiple),
        "provider": provider if is_given(context, "provider") else None,
    }


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
