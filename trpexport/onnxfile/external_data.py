"""Which other files an ONNX file keeps weights in."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from trpexport.errors import MissingDependencyError, ModelError
from trpexport.onnxfile.recognition import check_onnx_file, not_onnx

if TYPE_CHECKING:
    from onnx import FunctionProto, GraphProto, TensorProto


def external_files(model: Path) -> tuple[PurePosixPath, ...]:
    """Return the files that hold weights of ``model``, relative to the directory it really lies in.

    A model that is reached through a link has its weights beside the file that this leads to.

    Raises:
        ModelError: it is no ONNX network; or names a file outside its directory, also by a link,
            or one that is missing or is no plain file.
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
        for graph in (content.graph, *content.functions)
        for tensor in _tensors(graph)
        for entry in tensor.external_data
        if entry.key == "location"
    }
    # A name that is damaged is no text: protobuf gives it as bytes.
    if not all(isinstance(location, str) for location in locations):
        raise not_onnx(str(model))
    files = {PurePosixPath(location) for location in locations}
    for file in files:
        _check(model, file)
    return tuple(sorted(files))


def external_paths(model: Path) -> tuple[Path, ...]:
    """Return where the files that :func:`external_files` names lie.

    Raises:
        ModelError, MissingDependencyError: as for :func:`external_files`.
    """
    home = _home(model)
    return tuple(home / file for file in external_files(model))


def _home(model: Path) -> Path:
    return Path(os.path.realpath(model)).parent


def _check(model: Path, file: PurePosixPath) -> None:
    """Refuse weights that are not the model's own: they are read, and copied to other machines."""
    home = _home(model)
    is_inside = not file.is_absolute() and ".." not in file.parts
    # A link may stand for the file or for a folder on the way to it.
    if not is_inside or not Path(os.path.realpath(home / file)).is_relative_to(home):
        raise ModelError(
            f"{model} keeps its weights in {file}, outside its own directory: save it again "
            "with its weights beside it"
        )
    if not (home / file).is_file():
        raise ModelError(
            f"{model} keeps its weights in {file}, which is missing: copy that file as well"
        )


def _tensors(graph: GraphProto | FunctionProto) -> Iterator[TensorProto]:
    """Yield all tensors of a graph or function and of the graphs inside its nodes."""
    yield from getattr(graph, "initializer", ())
    for sparse in getattr(graph, "sparse_initializer", ()):
        yield from (sparse.values, sparse.indices)
    for node in graph.node:
        for attribute in node.attribute:
            yield attribute.t
            yield from attribute.tensors
            for sparse in (attribute.sparse_tensor, *attribute.sparse_tensors):
                yield from (sparse.values, sparse.indices)
            for inner in (attribute.g, *attribute.graphs):
                yield from _tensors(inner)
