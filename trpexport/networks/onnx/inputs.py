"""What an ONNX network takes: its inputs, with sizes for what the file leaves open."""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir

from trpexport.errors import ModelError
from trpexport.inputs import INPUT, Input, Inputs, InputsLike
from trpexport.networks.onnx.reading import OnnxSource
from trpexport.onnxfile.input_values import Choice, whole_numbers
from trpexport.tensors import UNNAMED, TensorInfo, resolve_shapes, with_usual_shapes


def inputs_of(source: OnnxSource, given: InputsLike | None) -> Inputs:
    """Return what a network takes.

    Args:
        source: its file.
        given: shapes of its inputs; a name may be left out where there is one. A first dimension
            that the file leaves open is 1 without them, others must be given.

    Raises:
        ModelError: the file does not say how large an input is, and nobody else does.
        DataError: its inputs have different numbers of images.
    """
    infos = taken(source.model)
    if not infos:
        raise ModelError(f"{source.path} takes no input: there is nothing to verify it on")
    shapes = {} if given is None else {name: one.shape for name, one in Inputs.of(given).items()}
    if list(shapes) == [INPUT] and len(infos) == 1:
        shapes = {infos[0].name: shapes[INPUT]}
    try:
        resolved = resolve_shapes(infos, shapes)
    except ModelError as error:
        raise ModelError(str(error), parameters=("input_shape",)) from None
    is_whole = any(info.dtype.kind in "iu" for info in infos)
    choices = whole_numbers(source.path) if is_whole else {}
    return Inputs({info.name: _input(info, resolved[info.name], choices) for info in infos})


def _input(info: TensorInfo, shape: tuple[int, ...], choices: Mapping[str, Choice]) -> Input:
    if info.dtype.kind not in "biu":
        return Input(shape)
    choice = choices.get(info.name)
    below = 2 if choice is None else max(2, max(choice.values) + 1)
    return Input(shape, str(info.dtype), below)


def taken(model: ir.Model) -> list[TensorInfo]:
    """Return what a network takes: its inputs that are not stored."""
    infos = (
        TensorInfo(value.name or "", _dimensions(value), value.dtype.numpy())
        for value in model.graph.inputs
        if not value.is_initializer() and value.dtype is not None
    )
    return with_usual_shapes(infos, model.metadata_props)


def open_axes(model: ir.Model) -> dict[str, dict[int, str]]:
    """Return by input the axes besides the first that a graph leaves open, and their names."""
    return {
        info.name: {
            axis: f"{info.name}:{axis}" if size == UNNAMED else size
            for axis, size in enumerate(info.shape)
            if axis and isinstance(size, str)
        }
        for info in taken(model)
    }


def _dimensions(value: ir.Value) -> tuple[int | str, ...]:
    if value.shape is None:
        raise ModelError(
            f"the input {value.name} has no shape: give it one, as in 1x3x224x224",
            parameters=("input_shape",),
        )
    sizes = (n if isinstance(n, int) else n.value or UNNAMED for n in value.shape)
    return tuple(UNNAMED if isinstance(n, int) and n < 0 else n for n in sizes)
