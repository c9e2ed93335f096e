"""Which other files an ONNX file keeps weights in."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from trpexport.errors import MissingDependencyError, ModelError
from trpexport.onnxfile.recognition import check_onnx_file, not_onnx

if TYPE_CHECKING:
    from onnx import GraphProto, TensorProto


def external_files(model: Path) -> tuple[PurePosixPath, ...]:
    """Return the files that hold weights of ``model``, relative to its directory.

    Raises:
        ModelError: it is no ONNX network, or names a file outside its directory, or a missing one.
        MissingDependencyError: the package onnx is not installed.
    """
    check_onnx_file(model)
    try:
        import onnx
    except ImportError as error:
        raise MissingDependencyError(
            f'onnx can\'t be imported ({error}): pip install "trpexport[edge]"'
        ) from None
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    try:
        content = onnx.load(model, format="protobuf", load_external_data=False)
    except DecodeError:
        raise not_onnx(str(model)) from None
    locations = {
        entry.value
        for tensor in _tensors(content.graph)
        for entry in tensor.external_data
        if entry.key == "location"
    }
    # A name that is damaged is no text: protobuf gives it as bytes.
    if not all(isinstance(location, str) for location in locations):
        raise not_onnx(str(model))
    files = {PurePosixPath(location) for location in locations}
    for file in files:
        # The file is copied elsewhere by this name: it must not lead out of the directory.
        if file.is_absolute() or ".." in file.parts:
            raise ModelError(
                f"{model} keeps its weights in {file}, outside its own directory: save it again "
                "with its weights beside it"
            )
        if not (model.parent / file).is_file():
            raise ModelError(
                f"{model} keeps its weights in {file}, which is missing: copy that file as well"
            )
    return tuple(sorted(files))


def _tensors(graph: GraphProto) -> Iterator[TensorProto]:
    """Yield all tensors of a graph and of the graphs inside its nodes."""
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            yield attribute.t
            yield from attribute.tensors
            for inner in (attribute.g, *attribute.graphs):
                yield from _tensors(inner)
