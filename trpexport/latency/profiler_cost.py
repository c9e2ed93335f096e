"""What ONNX Runtime's profiler adds to the time of each node."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

from trpexport.latency.folding import trimmed
from trpexport.latency.stopwatch import Stopwatch

# Convolutions in a row, in the two networks whose difference in time counts.
_FEW, _MANY = 40, 240
_CHANNELS = 16
_RUNS = 60
_RACE_SECONDS = 0.3


def profiler_cost(stopwatch: Stopwatch) -> float:
    """Return by how many seconds the profiler's time of a node is more than it adds to a run.

    The profiler writes down what a node got before it looks at the clock again: microseconds, as
    much as a small convolution takes; on the other hand, what lies between nodes is in no node's
    time. Found on rows of convolutions that compute next to nothing.

    Args:
        stopwatch: times networks; on one image at a time.

    Raises:
        TrpexportError: the networks can't be run there.
    """
    with tempfile.TemporaryDirectory(prefix="trpexport-latency-") as name:
        files = [Path(name) / f"{count}.onnx" for count in (_FEW, _MANY)]
        for file, count in zip(files, (_FEW, _MANY), strict=True):
            _write_row(file, count)
        few, many = stopwatch.race(files, _RACE_SECONDS)
        (profile,) = stopwatch.profiles(files[1:], _RUNS)
    added = (few.seconds / many.speedup.mid - few.seconds) / (_MANY - _FEW)
    samples = [node.samples for node in profile.nodes if "Conv" in node.operator]
    told = trimmed(np.array(samples).mean(axis=0))[0]
    return max(0.0, told - added)


def _write_row(file: Path, count: int) -> None:
    """Write a network of 1x1 convolutions of one pixel, one after another."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    shape = ("n", _CHANNELS, 1, 1)
    weight = np.eye(_CHANNELS, dtype=np.float32).reshape(_CHANNELS, _CHANNELS, 1, 1)
    stored = [
        numpy_helper.from_array(weight, "weight"),
        numpy_helper.from_array(np.zeros(_CHANNELS, np.float32), "bias"),
    ]
    nodes = [
        helper.make_node("Conv", [f"x{i}", "weight", "bias"], [f"x{i + 1}"], name=f"conv{i}")
        for i in range(count)
    ]
    graph = helper.make_graph(
        nodes,
        "row",
        [helper.make_tensor_value_info("x0", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(f"x{count}", TensorProto.FLOAT, shape)],
        stored,
    )
    opsets = [helper.make_opsetid("", 13)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), file)
