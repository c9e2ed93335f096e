"""How many channels ONNX Runtime's convolutions work on at a time."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from trpexport.runtime.session import open_session

_NCHWC = "com.microsoft.nchwc"


def nchwc_block() -> int | None:
    """Return the channel block of this ONNX Runtime on this processor; None where it has none.

    Where ONNX Runtime lays channels out in blocks, it pads the kernel of a convolution of one
    output channel to a whole block when it optimizes the graph.

    Raises:
        MissingDependencyError: onnxruntime is missing.
        ModelError: it can't be run.
    """
    import onnx

    with TemporaryDirectory() as folder:
        optimized = Path(folder, "optimized.onnx")
        open_session(_one_channel(), threads=1, optimized_path=optimized)
        graph = onnx.load(optimized, load_external_data=False).graph
    kernels = {node.input[1] for node in graph.node if node.domain == _NCHWC and node.input[1:]}
    return next((value.dims[0] for value in graph.initializer if value.name in kernels), None)


def _one_channel() -> bytes:
    """Return an ONNX file of one convolution with one output channel."""
    import numpy as np
    from onnx import TensorProto, helper, numpy_helper

    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", "kernel"], ["y"])],
        "convolution",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 1, 6, 6])],
        [numpy_helper.from_array(np.ones((1, 3, 3, 3), np.float32), "kernel")],
    )
    opsets = [helper.make_opsetid("", 17)]
    file: bytes = helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString()
    return file
