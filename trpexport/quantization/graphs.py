"""ONNX graphs as ONNX Runtime's tools take them, and as they are left."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import onnx_ir as ir
from onnx_ir.passes.common import LiftConstantsToInitializersPass, NameFixPass

from trpexport.runtime.session import Session, open_session

WHOLE_BYTES = 1_900_000_000  # a protobuf message may be 2 GB
# Without them ONNX Runtime advises to prepare the file; its tools leave the second.
_PREPARED = "onnx.quant.pre_process"
_OF_TOOLS = (_PREPARED, "onnx.infer")


def read(path: Path) -> ir.Model:
    """Return a network whose weights are in memory, constants are weights, and nodes have names."""
    model = ir.load(path)
    ir.external_data.load_to_model(model)
    LiftConstantsToInitializersPass()(model)
    NameFixPass()(model)
    return model


def has_weight(node: ir.Node) -> bool:
    """Whether a node multiplies with stored float32 numbers."""
    weight = node.inputs[1] if len(node.inputs) > 1 else None
    return (
        weight is not None
        and weight.const_value is not None
        and weight.const_value.dtype == ir.DataType.FLOAT
    )


def write(model: ir.Model, path: Path, *, precision: str) -> None:
    """Write a network as one file, with weights in ``NAME.data`` if they must; it tells what it is.

    Args:
        model: the network.
        path: the file.
        precision: what to call its precision.
    """
    for key in _OF_TOOLS:
        model.metadata_props.pop(key, None)
    model.metadata_props["trpexport.precision"] = precision
    is_large = weight_bytes(model) > WHOLE_BYTES
    ir.save(model, path, external_data=f"{path.name}.data" if is_large else None)


def weight_bytes(model: ir.Model) -> int:
    """Return how large the stored tensors of a network are together."""
    return sum(
        value.const_value.nbytes
        for value in model.graph.initializers.values()
        if value.const_value is not None
    )


@contextmanager
def opened(model: ir.Model, provider: str = "cpu") -> Iterator[Session]:
    """Yield a network ready to run as it stands, nothing in it fused.

    Raises:
        ModelError: ONNX Runtime can't run it.
    """
    with TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        ir.save(model, path, external_data="model.data")
        yield open_session(path, provider=provider, graph_optimization="disable")


@contextmanager
def prepared(model: ir.Model) -> Iterator[tuple[Path, Path]]:
    """Yield a file that ONNX Runtime's quantizers take, and another for them to write.

    What they say of it is not shown while the block runs.
    """
    model.metadata_props[_PREPARED] = "onnxruntime.quant"
    was_disabled = logging.root.manager.disable
    with TemporaryDirectory() as folder:
        source, target = Path(folder) / "source.onnx", Path(folder) / "target.onnx"
        is_large = weight_bytes(model) > WHOLE_BYTES
        ir.save(model, source, external_data="source.data" if is_large else None)
        logging.disable(logging.WARNING)
        try:
            yield source, target
        finally:
            logging.disable(was_disabled)
