"""Files made for an older ONNX Runtime."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from trpexport.errors import ModelError, TrpexportError
from trpexport.onnxfile.targets import Target, lower, opset_of
from trpexport.runtime.session import open_session

Write = Callable[..., Path]
X = np.random.default_rng(0).normal(size=(2, 3, 4, 4)).astype(np.float32)


@pytest.mark.parametrize(
    ("version", "opset", "ir_version"),
    [("1.5", 12, 7), ("1.12.1", 17, 8), ("1.16", 19, 9), ("1.16.3", 19, 9), ("1.23", 23, 11)],
)
def test_what_a_version_reads(version: str, opset: int, ir_version: int) -> None:
    target = Target.of(version)
    assert (target.opset, target.ir_version) == (opset, ir_version)


def test_later_versions_read_as_much() -> None:
    known = [Target.of(f"1.{minor}") for minor in range(5, 60)]
    for earlier, later in itertools.pairwise(known):
        assert earlier.opset <= later.opset
        assert earlier.ir_version <= later.ir_version


@pytest.mark.parametrize("version", ["1.4", "2.0", "1", "1.16.x", "", "latest", "1.16 "])
def test_what_is_no_known_version_is_refused(version: str) -> None:
    with pytest.raises(TrpexportError, match=r"name one from 1\.5 on"):
        Target.of(version)


def network(write: Write, opset: int, ir_version: int, **options: Any) -> Path:
    """Write nodes that came before operator set 13, most of which later ones define anew."""
    kernel = np.random.default_rng(1).normal(size=(5, 3, 3, 3)).astype(np.float32)
    return write(
        [
            helper.make_node("Conv", ["x", "w"], ["a"], pads=[1, 1, 1, 1]),
            helper.make_node("Relu", ["a"], ["b"]),
            helper.make_node("ReduceMean", ["b", "axes"] if opset >= 18 else ["b"], ["c"]),
            helper.make_node("Add", ["b", "c"], ["d"]),
            helper.make_node("GlobalAveragePool", ["d"], ["e"]),
            helper.make_node("Flatten", ["e"], ["y"]),
        ],
        {"x": ("n", 3, 4, 4)},
        {"y": ("n", 5)},
        {"w": kernel, "axes": np.array([2, 3])} if opset >= 18 else {"w": kernel},
        opsets={"": opset},
        ir_version=ir_version,
        **options,
    )


@pytest.mark.parametrize("opset", [18, 21, 22])
@pytest.mark.parametrize("version", ["1.12", "1.16", "1.20"])
def test_a_file_is_lowered_and_computes_the_same(
    write_onnx: Write, opset: int, version: str
) -> None:
    path, target = network(write_onnx, opset, 10), Target.of(version)
    before = open_session(path).run({"x": X})["y"]
    note = lower(path, target)
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    assert opset_of(model) == min(opset, target.opset)
    assert model.ir_version == min(10, target.ir_version)
    assert (note is None) == (opset <= target.opset and target.ir_version >= 10)
    assert open_session(path).run({"x": X})["y"] == pytest.approx(before, abs=1e-6)
    content = path.read_bytes()
    assert lower(path, target) is None
    assert path.read_bytes() == content


def test_weights_in_other_files_and_metadata_stay(write_onnx: Write) -> None:
    kept: dict[str, Any] = {"save_as_external_data": True, "size_threshold": 100, "location": "w"}
    path = network(write_onnx, 18, 10, **kept)
    weights = (path.parent / "w").read_bytes()
    before = open_session(path).run({"x": X})["y"]
    assert lower(path, Target.of("1.16")) == "IR version 10 -> 9 for onnxruntime 1.16"
    assert (path.parent / "w").read_bytes() == weights
    assert np.array_equal(open_session(path).run({"x": X})["y"], before)
    path = network(write_onnx, 21, 10)
    model = onnx.load(path)
    helper.set_model_props(model, {"trpexport.version": "1"})
    onnx.save(model, path)
    assert lower(path, Target.of("1.16")) is not None
    assert [entry.key for entry in onnx.load(path).metadata_props] == ["trpexport.version"]


def test_functions_of_a_file_are_dissolved_where_the_target_has_none(write_onnx: Write) -> None:
    path = write_onnx(
        [helper.make_node("Twice", ["x"], ["y"], domain="own")],
        {"x": ("n", 3)},
        {"y": ("n", 3)},
        opsets={"": 14, "own": 1},
    )
    model = onnx.load(path)
    twice = helper.make_node("Add", ["a", "a"], ["b"])
    opset = [helper.make_opsetid("", 14)]
    model.functions.append(helper.make_function("own", "Twice", ["a"], ["b"], [twice], opset))
    onnx.save(model, path)
    lower(path, Target.of("1.8"))
    lowered = onnx.load(path)
    assert ([n.op_type for n in lowered.graph.node], len(lowered.functions)) == (["Add"], 0)
    assert lowered.ir_version == 7


def test_what_an_older_set_does_not_have_is_refused(write_onnx: Write) -> None:
    node = helper.make_node("Gelu", ["x"], ["y"])
    path = write_onnx([node], {"x": ("n", 3)}, {"y": ("n", 3)}, opsets={"": 20}, ir_version=9)
    content = path.read_bytes()
    with pytest.raises(ModelError, match=r"from operator set 20 to 19, the last that .*1\.16"):
        lower(path, Target.of("1.16"))
    assert path.read_bytes() == content
