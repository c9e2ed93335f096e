"""``trpexport flops``: MACs, parameters and activations of a network, layer by layer."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from . import options as opt
from .console import show, show_json
from .idle import refuse_typed

if TYPE_CHECKING:
    from trpexport.cost import Cost
    from trpexport.pipeline import Source


def flops(
    context: typer.Context,
    network: Annotated[
        Path, typer.Argument(metavar="X", help="An ONNX file, a bundle, or a checkpoint.")
    ],
    arch: opt.Arch = None,
    model: opt.Model = None,
    input_shape: opt.InputShape = None,
    unsafe_pickle: opt.UnsafePickle = False,
    as_json: opt.Json = False,
) -> None:
    """Count MACs, FLOPs (2 x MACs), parameters and activation bytes, layer by layer.

    Counts convolutions and matrix products; leaves out biases, activations and normalisation;
    lists operators that it does not know. Needs torch only for checkpoints.

    Example:
        trpexport flops network.onnx --input-shape 1x3x224x224
    """
    from trpexport.bundle import locate
    from trpexport.onnxfile.recognition import is_checkpoint
    from trpexport.report.views.cost import cost_view

    if is_checkpoint(network):
        source = opt.checkpoint_source(network, arch, model, input_shape, unsafe_pickle)
        cost = _count_checkpoint(source)
    else:
        from trpexport.onnxfile.counting import count_onnx

        idle = ("arch", "model", "unsafe_pickle")
        refuse_typed(context, idle, "for an ONNX file")
        file, _ = locate(network)
        cost = count_onnx(file, shapes=opt.parse_named_shapes(input_shape))
    if as_json:
        show_json(cost.to_json())
    else:
        show(*cost_view(cost))


def _count_checkpoint(source: Source) -> Cost:
    from trpexport.networks.torch.counting import count_module

    checkpoint = source.load()
    return count_module(checkpoint.module, checkpoint.known_inputs)
