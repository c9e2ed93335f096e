"""Reading an ONNX file to rewrite it: large weights stay in the files that they lie in."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from trpexport.available import available_memory
from trpexport.errors import ModelError
from trpexport.foreign import first_line
from trpexport.networks.onnx.saving import content_of, model_of
from trpexport.onnxfile.external_data import external_files, external_paths
from trpexport.onnxfile.graph import load_proto
from trpexport.onnxfile.recognition import check_onnx_file
from trpexport.supervision import guarded, memory_allowance, time_allowance

_CHUNK = 1 << 24
# Memory that a file takes at least while it is decomposed, relative to its size: it is run as it
# was, decomposed, and with the products of the factors. 11 were measured, of 25 layers.
_TIMES_FILE = 4


@dataclass(frozen=True)
class OnnxSource:
    """An ONNX file that a network comes from, as a bundle tells of it.

    Attributes:
        path: the file.
        model: what is in it.
        notes: what the reader of a report should know.
        metadata: facts that go with it, JSON-ready.
    """

    path: Path
    model: ir.Model
    notes: tuple[str, ...] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)
    architecture: None = None

    def __reduce__(self) -> tuple[Any, ...]:
        """Be pickled with all weights, wherever they lie."""
        return _unpickled, (self.path, content_of(self.model), self.notes, dict(self.metadata))

    @property
    def label(self) -> str:
        """What the network is called."""
        return self.path.stem

    @cached_property
    def sha256(self) -> str:
        """SHA-256 of the file."""
        digest = sha256()
        with self.path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
        return digest.hexdigest()


def _unpickled(path: Path, files: Mapping[str, bytes], *facts: Any) -> OnnxSource:
    return OnnxSource(path, model_of(files), *facts)


def check_memory(path: Path) -> None:
    """Refuse to decompose a file that can't fit into memory: that is seen an hour later otherwise.

    Raises:
        ModelError: it can't, is no ONNX network, or keeps weights outside its own folder.
        MissingDependencyError: a package that reads it is not installed.
    """
    check_onnx_file(path)
    size, left = path.stat().st_size, available_memory()
    if left is None:
        return
    if _TIMES_FILE * size <= left:  # else not even what stands in it is read
        size += sum(file.stat().st_size for file in external_paths(path))
    if _TIMES_FILE * size > left:
        raise ModelError(
            f"{path} has {size / 1e9:.1f} GB of weights, which take at least "
            f"{_TIMES_FILE * size / 1e9:.1f} GB of memory to decompose, and this process may take "
            f"{left / 1e9:.1f} GB: raise its limit, or use a larger machine"
        )


def read_model(path: Path) -> ir.Model:
    """Read an ONNX file; tensors in other files are read each time that they are used.

    Raises:
        ModelError: it is no ONNX network, is not valid, or keeps weights outside its own folder.
        MissingDependencyError: a package that reads it is not installed.
    """
    external_files(path)
    size = path.stat().st_size
    with guarded(f"reading {path}", memory=memory_allowance(size), seconds=time_allowance(size)):
        _check(path)
        try:
            model = ir.from_proto(load_proto(path))
            assert isinstance(model, ir.Model)
        except ModelError:
            raise
        except Exception as error:  # onnx_ir raises a dozen types for what it can't make sense of
            raise _invalid(path, error) from error
    home = Path(os.path.realpath(path)).parent
    ir.external_data.set_base_dir(model.graph, home)
    for graph in (model.graph, *model.graph.subgraphs()):
        for value in graph.initializers.values():
            if isinstance(value.const_value, ir.ExternalTensor):
                value.const_value = _unmapped(value.const_value, home)
    return model


def _unmapped(tensor: ir.ExternalTensor, home: Path) -> ir.TensorProtocol:
    """Return a tensor that reads its own bytes, where onnx_ir would map the whole file.

    Each tensor would map it once more, and never let go: a file of 2 GB takes 70 GB of addresses.
    """
    if tensor.dtype.bitwidth % 8:
        return tensor
    dtype = tensor.dtype.numpy()

    def read() -> ir.Tensor[Any]:
        count, offset = tensor.nbytes, tensor.offset or 0
        data = np.fromfile(home / tensor.location, np.uint8, count=count, offset=offset)
        values = data.view(dtype.newbyteorder("<")).reshape(tensor.shape.numpy())
        return ir.Tensor(values, tensor.dtype, name=tensor.name)

    return ir.LazyTensor(
        read,
        tensor.dtype,
        tensor.shape,
        name=tensor.name,
        doc_string=tensor.doc_string,
        metadata_props=dict(tensor.metadata_props),
    )


def _check(path: Path) -> None:
    """Refuse a file that breaks the rules of ONNX: cycles, missing tensors, unknown attributes."""
    import onnx

    try:
        onnx.checker.check_model(str(path))
    except Exception as error:  # a ValidationError, or whatever the native code raises
        raise _invalid(path, error) from error


def _invalid(path: Path, error: Exception) -> ModelError:
    return ModelError(
        f"{path} is no valid ONNX network ({first_line(error)}): copy it again, or export it again"
    )
