"""Networks of ONNX as files and as content: weights beside the file from 2 GB on."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx_ir as ir

from trpexport.files import files_of, write_files
from trpexport.runtime.session import Session, open_session

# A protobuf message may be 2 GB; the graph beside the weights needs some of that.
_WHOLE_BYTES = 1_900_000_000
# Tensors up to here may be sizes and axes, whose values shapes depend on.
_SMALL_BYTES = 16_384
_NAME = "model.onnx"


def save(model: ir.Model, path: Path) -> None:
    """Write a network as one file; its weights go to ``<name>.data`` beside it if they must."""
    if weight_bytes(model) > _WHOLE_BYTES:
        ir.save(model, path, external_data=f"{path.name}.data")
    else:
        path.write_bytes(_content(model))


def content_of(model: ir.Model) -> dict[str, bytes]:
    """Return the files of a network by name, the weights in other files included."""
    with tempfile.TemporaryDirectory() as folder:
        save(model, Path(folder) / _NAME)
        return files_of(Path(folder).iterdir())


def model_of(files: Mapping[str, bytes]) -> ir.Model:
    """Return the network that :func:`content_of` gave the files of; it needs them no longer."""
    with tempfile.TemporaryDirectory() as folder:
        write_files(files, Path(folder))
        model = ir.load(Path(folder) / _NAME)
        ir.external_data.load_to_model(model)
        return model


def open_model(
    model: ir.Model,
    outputs: Sequence[ir.Value] = (),
    *,
    only: bool = False,
    graph_optimization: str = "all",
) -> Session:
    """Return a network ready to run, with some of its values as further outputs.

    Args:
        model: the network.
        outputs: values of its main graph.
        only: leave its own outputs out, and with them all that no value asked for needs.
        graph_optimization: as for :func:`~trpexport.runtime.session.open_session`.

    Raises:
        ModelError: ONNX Runtime can't run it.
    """
    own = list(model.graph.outputs)
    kept = [] if only else own
    known = {value.name for value in kept}
    added = [value for value in dict.fromkeys(outputs) if value.name not in known]
    model.graph.outputs[:] = [*kept, *added]
    try:
        if weight_bytes(model) <= _WHOLE_BYTES:
            return open_session(_content(model), graph_optimization=graph_optimization)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / _NAME
            save(model, path)
            return open_session(path, graph_optimization=graph_optimization)
    finally:
        model.graph.outputs[:] = own


def skeleton(model: ir.Model) -> Any:
    """Return a network as a protobuf message without its large weights."""
    stored = {
        value: value.const_value
        for value in model.graph.initializers.values()
        if value.const_value is not None and value.const_value.nbytes > _SMALL_BYTES
    }
    for value, tensor in stored.items():
        value.const_value = ir.ExternalTensor(
            "elsewhere",
            0,
            tensor.nbytes,
            tensor.dtype,
            shape=ir.Shape(tensor.shape.numpy()),
            name=value.name or "",
        )
    try:
        return ir.to_proto(model)
    finally:
        for value, tensor in stored.items():
            value.const_value = tensor


def weight_bytes(model: ir.Model) -> int:
    """Return how large the stored tensors of a network are together."""
    graphs = [model.graph, *model.graph.subgraphs()]
    return sum(
        value.const_value.nbytes
        for graph in graphs
        for value in graph.initializers.values()
        if value.const_value is not None
    )


def _content(model: ir.Model) -> bytes:
    """Return a network as the content of one file, the tensors of other files in it."""
    message = ir.to_proto(model)
    # onnx_ir tells the types of stored tensors twice.
    told = [
        value for value in message.graph.value_info if value.name not in model.graph.initializers
    ]
    del message.graph.value_info[:]
    message.graph.value_info.extend(told)
    content: bytes = message.SerializeToString()
    return content
