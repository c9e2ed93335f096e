"""Files of more than 2 GB under a limit of memory: what needs none works, the rest is one line."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from trpexport.errors import ModelError
from trpexport.networks.onnx import reading
from trpexport.networks.onnx.reading import check_memory

LIMIT = 4_000_000_000  # bytes of addresses, of which the libraries take half
ROOT = Path(__file__).parents[3]
LIMITED = f"""
import resource, runpy, sys
resource.setrlimit(resource.RLIMIT_AS, ({LIMIT}, {LIMIT}))
sys.argv[0] = "trpexport"
runpy.run_module("trpexport", run_name="__main__")
"""


def large(folder: Path, layers: int, width: int) -> Path:
    """Write products of matrices of zeros beside the file, which take no place on the disk."""
    stored, nodes, size = [], [], 4 * width * width
    for index in range(layers):
        weight = TensorProto(
            name=f"w{index}",
            data_type=TensorProto.FLOAT,
            dims=[width, width],
            data_location=TensorProto.EXTERNAL,
        )
        where = {"location": "weights.bin", "offset": index * size, "length": size}
        for key, value in where.items():
            weight.external_data.add(key=key, value=str(value))
        stored.append(weight)
        ends = [f"y{index}" if index else "x", f"w{index}"], [f"y{index + 1}"]
        nodes.append(helper.make_node("MatMul", *ends, name=f"product{index}"))
    with (folder / "weights.bin").open("wb") as file:
        file.truncate(layers * size)
    values = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, width])
        for name in ("x", f"y{layers}")
    ]
    graph = helper.make_graph(nodes, "large", values[:1], values[1:], stored)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path = folder / "large.onnx"
    onnx.save(model, path)
    return path


def limited(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run a command that may take no more than LIMIT."""
    command = [sys.executable, "-c", LIMITED, *map(str, arguments)]
    return subprocess.run(command, check=False, capture_output=True, text=True, cwd=ROOT)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="other systems limit no addresses")
def test_more_than_2_gb_under_a_limit_of_memory(tmp_path: Path) -> None:
    path = large(tmp_path, 129, 2048)
    assert (tmp_path / "weights.bin").stat().st_size > 2 << 30
    counted = limited("flops", path, "--json")
    assert counted.returncode == 0, counted.stderr
    assert json.loads(counted.stdout)["macs"] == 129 * 2048**2
    some = ("--include", "product7", "--criterion", "rank:8", "--json")
    shown = limited("inspect", path, *some)
    assert shown.returncode == 0, shown.stderr
    assert json.loads(shown.stdout)
    start = time.monotonic()
    refused = limited("decompose", path, "-o", tmp_path / "out")
    assert time.monotonic() - start < 60
    assert (refused.returncode, refused.stdout) == (2, "")
    (line,) = (one for one in refused.stderr.splitlines() if not one.startswith("- "))
    assert "2.2 GB of weights, which take at least 8.7 GB of memory to decompose" in line
    assert "raise its limit, or use a larger machine" in line
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("left", "is_enough"), [(None, True), (8_000, False), (80_000, True)])
def test_weights_beside_a_file_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, left: int | None, is_enough: bool
) -> None:
    path = large(tmp_path, 3, 32)
    monkeypatch.setattr(reading, "available_memory", lambda: left)
    if is_enough:
        check_memory(path)
    else:
        with pytest.raises(ModelError, match="memory to decompose, and this process may take"):
            check_memory(path)
