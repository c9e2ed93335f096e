"""Which other files an ONNX file keeps weights in."""

from __future__ import annotations

import os
from collections.abc import Iterator
from math import prod
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from trpexport.errors import MissingDependencyError, ModelError
from trpexport.installing import install_command
from trpexport.onnxfile.recognition import check_onnx_file, is_ort, not_onnx

if TYPE_CHECKING:
    from onnx import FunctionProto, GraphProto, TensorProto

# Bits of the element types that share bytes: 4-bit, 2-bit and 6-bit numbers of onnx.TensorProto.
_PACKED_BITS = {21: 4, 22: 4, 23: 4, 25: 2, 26: 2, 27: 6, 28: 6}


def external_files(model: Path) -> tuple[PurePosixPath, ...]:
    """Return the files that hold weights of ``model``, relative to the directory it really lies in.

    A model that is reached through a link has its weights beside the file that this leads to.

    Raises:
        ModelError: it is no ONNX network; or names a file outside its directory, also by a link,
            or one that is missing, is no plain file, or ends before a weight does.
        MissingDependencyError: the package onnx is not installed.
    """
    check_onnx_file(model)
    if is_ort(model):
        return ()  # it holds its weights itself
    try:
        import onnx
    except ImportError as error:
        raise MissingDependencyError(
            f"onnx can't be imported ({error}): {install_command('edge')}"
        ) from None
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    try:
        content = onnx.load(model, format="protobuf", load_external_data=False)
    except DecodeError:
        raise not_onnx(str(model)) from None
    tensors = [
        tensor
        for graph in (content.graph, *content.functions)
        for tensor in _tensors(graph)
        if tensor.external_data
    ]
    entries = [(entry.key, entry.value) for tensor in tensors for entry in tensor.external_data]
    # What is damaged is no text: protobuf gives it as bytes.
    if not all(isinstance(some, str) for entry in entries for some in entry):
        raise not_onnx(str(model))
    files = {PurePosixPath(value) for key, value in entries if key == "location"}
    for file in files:
        _check(model, file)
    for tensor in tensors:
        _check_extent(model, tensor)
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


def _check_extent(model: Path, tensor: TensorProto) -> None:
    """Refuse a weight that does not lie whole within its file."""
    told = {entry.key: entry.value for entry in tensor.external_data}
    if "location" not in told:
        return
    try:
        offset, length = (int(told.get(key, 0)) for key in ("offset", "length"))
        needed = max(length, _bytes(tensor))
    except ValueError:
        offset, needed = -1, 0
    file = _home(model) / told["location"]
    size = file.stat().st_size
    if min(offset, needed, *tensor.dims, 0) < 0 or ("length" in told and length < needed):
        raise ModelError(
            f"{model} says nothing that makes sense of where {tensor.name} lies in {file.name} "
            f"(offset {told.get('offset', 0)}, length {told.get('length', 'unsaid')}, shape "
            f"{list(tensor.dims)}): the file is damaged, export it again"
        )
    if offset + needed > size:
        raise ModelError(
            f"{model} keeps {tensor.name} in bytes {offset} to {offset + needed} of {file.name}, "
            f"which has {size}: that file is cut short or another one, copy it again"
        )


def _bytes(tensor: TensorProto) -> int:
    """Return how many bytes a tensor's numbers take; 0 where its type is not known."""
    from onnx.helper import tensor_dtype_to_np_dtype

    try:
        packed = _PACKED_BITS.get(tensor.data_type)
        width: int = packed or 8 * tensor_dtype_to_np_dtype(tensor.data_type).itemsize
    except (KeyError, TypeError):
        return 0
    return -(-prod(map(int, tensor.dims)) * width // 8)


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
