"""How long it takes to open an ONNX file of 100 MB, rewrite it, and save it.

    python -m benchmarks.large_onnx

The file has products of 25 matrices of 1024 x 1024. Its network is opened, every layer gets the
factors of rank 128 (made before: what is timed is the file, not the mathematics), and is saved.
The median of five. Writes ``results/large_onnx.json``.
"""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import helper, numpy_helper

from benchmarks.environment import RESULTS, environment, run
from trpexport.lowrank.chain import Chain
from trpexport.lowrank.schemes import SCHEMES
from trpexport.networks.onnx.network import OnnxNetwork
from trpexport.networks.onnx.reading import OnnxSource, read_model
from trpexport.networks.onnx_settings import OnnxSettings

RESULT = RESULTS / "large_onnx.json"
LAYERS, WIDTH, RANK, ROUNDS = 25, 1024, 128, 5


def write(path: Path) -> None:
    """Write the file."""
    rng = np.random.default_rng(0)
    stored = [
        numpy_helper.from_array(rng.standard_normal((WIDTH, WIDTH), dtype=np.float32), f"w{index}")
        for index in range(LAYERS)
    ]
    nodes = [
        helper.make_node("MatMul", [f"y{index}" if index else "x", f"w{index}"], [f"y{index + 1}"])
        for index in range(LAYERS)
    ]
    ends = [
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["N", WIDTH])
        for name in ("x", f"y{LAYERS}")
    ]
    graph = helper.make_graph(nodes, "large", ends[:1], ends[1:], stored)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, path)


def rewritten(source: Path, target: Path) -> dict[str, float]:
    """Return the seconds of opening, rewriting and saving a file."""
    start = time.perf_counter()
    network = OnnxNetwork.open(OnnxSource(source, read_model(source)))
    layers = network.layers
    opened = time.perf_counter()
    chains = {
        layer.name: Chain(
            op=layer.op,
            scheme="channel",
            ops=SCHEMES["channel"].factor_ops(layer.op, RANK),
            kernels=(torch.zeros(RANK, WIDTH), torch.zeros(WIDTH, RANK)),
            bias=None,
            is_truncation=False,
        )
        for layer in layers
    }
    small = network.rewritten(chains)
    assert len(small.model.graph) == 2 * LAYERS
    changed = time.perf_counter()
    small.write_onnx(target, OnnxSettings())
    # The dense file once more: what is saved where few layers get cheaper.
    network.write_onnx(target, OnnxSettings())
    saved = time.perf_counter()
    return {"open": opened - start, "rewrite": changed - opened, "save": saved - changed}


def main() -> None:
    """Time it."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "large.onnx"
        write(source)
        rounds = [rewritten(source, Path(folder) / "small.onnx") for _ in range(ROUNDS)]
        result = {
            "file_bytes": source.stat().st_size,
            "seconds": {key: statistics.median(one[key] for one in rounds) for key in rounds[0]},
            "whole_seconds": statistics.median(sum(one.values()) for one in rounds),
            "rounds": rounds,
            "environment": environment(),
        }
    RESULT.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result["seconds"]), result["whole_seconds"])


if __name__ == "__main__":
    run(main)
