"""Files that are broken in every way of ``benchmarks/mutations.py``: one line each, no crash."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from trpexport.networks.onnx.reading import read_model

ROOT = Path(__file__).parents[3]


@pytest.fixture
def sound(tmp_path: Path) -> Path:
    """A small network with a layer of each kind."""
    rng = np.random.default_rng(0)
    shapes = {
        "stem.weight": (6, 3, 3, 3),
        "conv.weight": (8, 6, 3, 3),
        "up.weight": (8, 6, 2, 2),
        "mixed.weight": (6, 12),
        "head.weight": (5, 12),
    }
    stored = [
        numpy_helper.from_array(rng.standard_normal(shape, dtype=np.float32), name)
        for name, shape in shapes.items()
    ]
    nodes = [
        helper.make_node("Conv", ["x", "stem.weight"], ["a"], name="stem", pads=[1] * 4),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node(
            "Conv", ["b", "conv.weight"], ["c"], pads=[1] * 4, strides=[2, 2], dilations=[1, 1]
        ),
        helper.make_node("ConvTranspose", ["c", "up.weight"], ["d"], strides=[2, 2]),
        helper.make_node("GlobalAveragePool", ["d"], ["e"]),
        helper.make_node("Flatten", ["e"], ["f"]),
        helper.make_node("MatMul", ["f", "mixed.weight"], ["g"]),
        helper.make_node("Gemm", ["g", "head.weight"], ["y"], transB=1),
    ]
    inputs = [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["N", 3, 8, 8])]
    outputs = [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["N", 5])]
    graph = helper.make_graph(nodes, "graph", inputs, outputs, stored)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path = tmp_path / "sound.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def fuzzed(file: Path, *commands: str) -> list[dict[str, Any]]:
    """Return what became of each command on each broken file, run by a process of its own."""
    done = subprocess.run(
        [
            *(sys.executable, "-m", "benchmarks.fuzz_onnx", str(file), "--print"),
            *("--commands", *commands),
        ],
        check=True,
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize(
    "command",
    [
        "flops",
        pytest.param("inspect", marks=pytest.mark.slow),
        pytest.param("verify", marks=pytest.mark.slow),
        pytest.param("decompose", marks=pytest.mark.slow),
    ],
)
def test_a_broken_file_is_one_line(sound: Path, command: str) -> None:
    found = fuzzed(sound, command)
    assert len(found) > 60
    assert not [one for one in found if one["verdict"].startswith("bad")]
    ways = {one["mutation"]: one["verdict"] for one in found}
    for way in ("empty", "truncated", "no opset"):
        assert ways[way] == "refused"
    if command != "flops":  # which needs no weights
        elsewhere = [way for way in ways if way.startswith("weights ")]
        assert len(elsewhere) > 6
        assert {ways[way] for way in elsewhere} == {"refused"}


def test_weights_of_a_file_are_read_one_by_one(sound: Path, tmp_path: Path) -> None:
    """Mapped, the whole file would be in memory once for each weight."""
    path = tmp_path / "outside.onnx"
    onnx.save(
        onnx.load(sound), path, save_as_external_data=True, location="w.data", size_threshold=0
    )
    stored = {one.name: numpy_helper.to_array(one) for one in onnx.load(sound).graph.initializer}
    values = read_model(path).graph.initializers
    assert set(values) == set(stored)
    for name, value in values.items():
        assert value.const_value is not None
        assert np.array_equal(value.const_value.numpy(), stored[name])
    maps = Path("/proc/self/maps")
    if maps.exists():
        assert str(tmp_path / "w.data") not in maps.read_text()
