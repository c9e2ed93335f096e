"""Options that several commands share."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from trpexport.errors import TrpexportError

from . import completion
from .console import claim
from .idle import refuse_typed

if TYPE_CHECKING:
    from trpexport.artifact.build import ExportSettings
    from trpexport.expectations import Expectation
    from trpexport.inputs import Inputs as NetworkInputs
    from trpexport.pipeline import Decomposable, Source

# Of options that have several types.
ARCH = (
    "Name of the architecture; for a checkpoint, only if it is not recognised. A wrong name lists "
    "similar ones."
)
OUT = (
    "Where to write. Default: a directory or file in the current one; quantize adds to the bundle."
)
OUTPUT = (
    "Name of the output to judge by, if there are several. decompose and tune also take globs, "
    "and take it repeatedly."
)
MAX_DROP = (
    "Largest accuracy drop allowed, in percentage points of top-1; with --metric, in points of "
    "top5 or miou, or in the metric's own unit. Needs labels."
)
MIN_SPEEDUP = "Smallest speed-up to accept, as measured: 1.6 is 1.6 times as fast."
CRITERION = (
    "How ranks are chosen, as NAME:VALUE, such as energy:0.9. A wrong name lists all; inspect "
    "compares several."
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
        help="Labelled images that the checkpoint should classify well, such as cifar10:DIR. If an "
        "architecture with the same weight shapes does clearly better, that one is used.",
        autocompletion=completion.data,
    ),
]
Model = Annotated[
    str | None, typer.Option(help="Function that builds your network, as package.module:function.")
]
InputShape = Annotated[
    list[str] | None,
    typer.Option(
        help="Shape of the input. Name each input if there are several (image=1x3x224x224); add "
        "the type if it holds integers (ids=1x128:int64). Repeatable.",
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
        help="How a layer is split: channel, spatial, input-channel, decoupling, tucker2 or "
        "spatial-channel; with a target also auto, which chooses for each layer.",
        autocompletion=completion.schemes,
    ),
]
Include = Annotated[
    list[str] | None,
    typer.Option(
        help="Rewrite only layers whose name matches this glob, even the first and the last one. "
        "Repeatable."
    ),
]
Exclude = Annotated[
    list[str] | None, typer.Option(help="Leave layers whose name matches this glob. Repeatable.")
]
Stride1Only = Annotated[
    bool, typer.Option("--stride-1-only", help="Leave strided layers as they are.")
]
Out = Annotated[
    Path | None,
    typer.Option("--out", "-o", help=OUT),
]
Force = Annotated[bool, typer.Option("--force", help="Replace an existing result.")]
Opset = Annotated[int, typer.Option(help="Version of the ONNX operator set.")]
DynamicBatch = Annotated[
    bool, typer.Option("--dynamic-batch", help="Leave the batch size of the ONNX file open.")
]
Dynamic = Annotated[
    list[str] | None,
    typer.Option(
        help="Leave further dimensions open: height,width, or one by its place, as in "
        "input:2=length. Repeatable.",
    ),
]
LegacyExporter = Annotated[
    bool,
    typer.Option("--legacy-exporter", help="Use PyTorch's older exporter, based on TorchScript."),
]
Simplify = Annotated[
    bool | None,
    typer.Option(
        "--simplify/--no-simplify",
        help="Whether to run onnxsim. Default: yes for a checkpoint, no for an ONNX file.",
    ),
]
VerifySeconds = Annotated[
    float,
    typer.Option(
        help="How long to compare networks, in seconds; a few inputs are always compared."
    ),
]
Precision = Annotated[
    list[str] | None,
    typer.Option(
        help="fp16, bf16, int8 (needs --calib) or int8-dynamic, in addition to fp32; of tune also "
        "free; separate several by commas. Repeatable.",
        autocompletion=completion.precisions,
    ),
]
Format = Annotated[
    list[str] | None,
    typer.Option(
        "--format",
        help="ort: also write ONNX Runtime's own format, which its builds for phones read, and a "
        "list of the operators used. For report: html, or md for a pull request.",
    ),
]
TargetOrt = Annotated[
    str | None,
    typer.Option(
        help="Oldest version of ONNX Runtime that must be able to read the files, as in 1.16; sets "
        "the operator set and the version of the format.",
        metavar="VERSION",
    ),
]
Check = Annotated[
    bool,
    typer.Option(
        "--check",
        help="Run the files in the ONNX Runtime of --target-ort, which pip installs into a virtual "
        "environment of its own, and compare the outputs.",
    ),
]
Calib = Annotated[
    str | None,
    typer.Option(
        help="Images to calibrate on (factors and int8), without labels: a folder, FILE.npy, "
        "imagelist:FILE.csv, cifar10:DIR.",
        autocompletion=completion.data,
    ),
]
Images = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Number of images to use, taken at even distances. Default: 512 to calibrate on, 64 "
        "random inputs to verify on, otherwise all.",
    ),
]
Seed = Annotated[
    int,
    typer.Option(
        min=0,
        max=2**63 - 1,
        help="Seed for everything random: inputs, choice of images, order of timings.",
    ),
]
Output = Annotated[str | None, typer.Option(help=OUTPUT)]
Outputs = Annotated[list[str] | None, typer.Option("--output", help=OUTPUT)]
Cache = Annotated[
    Path | None,
    typer.Option(help="Folder for results kept between runs. Default: in the user's cache folder."),
]
Device = Annotated[
    str,
    typer.Option(
        help="Where PyTorch computes: cpu, cuda or auto, which is CUDA where available.",
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
        help="Save as much as this output error on the images allows, as a share of the outputs' "
        "variation: 0.05 is 5 %."
    ),
]
MinSpeedup = Annotated[float | None, typer.Option(help=MIN_SPEEDUP)]
MaxLatency = Annotated[
    str | None, typer.Option(help="Longest latency to accept, as in 5ms or 800us.")
]
Inputs = Annotated[
    str | None,
    typer.Option(
        help="Real inputs to run on, instead of random ones: FILE.npy, FILE.npz with an array for "
        "each input, a folder of images, cifar10:DIR.",
        autocompletion=completion.data,
    ),
]
Json = Annotated[bool, typer.Option("--json", callback=claim, help="Print the result as JSON.")]


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
