"""Networks that ask for more than they should, each in one line."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from onnx import NodeProto, helper

from trpexport.errors import ModelError
from trpexport.measure.memory import _own_peak
from trpexport.onnxfile.counting import count_onnx
from trpexport.runtime.session import open_session

WriteOnnx = Callable[..., Path]
node = helper.make_node
# name: what makes 16 GiB of next to nothing, from x or from a constant
BOMBS: dict[str, list[NodeProto]] = {
    "a constant": [node("ConstantOfShape", ["flat"], ["c"])],
    "copies": [node("Tile", ["x", "rows"], ["c"])],
    "a wide view": [node("Expand", ["x", "rows"], ["c"])],
    "padding": [node("Pad", ["x", "pads"], ["c"])],
    "a range": [
        node("Range", ["nothing", "end", "step"], ["r"]),
        node("Cast", ["r"], ["c"], to=1),
    ],
}
CONSTANTS = {
    **{"flat": np.array([2**32]), "rows": np.array([2**30, 1]), "nothing": np.array(0)},
    **{"pads": np.array([2**30, 0, 0, 0]), "end": np.array(2**31), "step": np.array(1)},
}


@pytest.mark.skipif(sys.platform != "linux", reason="memory is limited on Linux alone")
@pytest.mark.parametrize("bomb", BOMBS)
def test_a_bomb_takes_no_memory(write_onnx: WriteOnnx, bomb: str) -> None:
    path = write_onnx(
        [*BOMBS[bomb], node("ReduceSum", ["c"], ["s"], keepdims=0), node("Add", ["x", "s"], ["y"])],
        {"x": (1, 4)},
        {"y": None},
        CONSTANTS,
    )
    before = _own_peak()
    with pytest.raises(ModelError, match=r"more memory than .* as in TRPEXPORT_MEMORY=16G"):
        session = open_session(path, threads=1)
        session.run(session.random_inputs())
    assert _own_peak() - before < 1 << 30


def test_inputs_beyond_all_measure_are_not_drawn(write_onnx: WriteOnnx) -> None:
    path = write_onnx([node("Relu", ["x"], ["y"])], {"x": (1, 3, 2**31, 2**31)}, {"y": None})
    with pytest.raises(ModelError, match=r"the input x .* takes more memory"):
        open_session(path).random_inputs()


def test_more_may_be_allowed(write_onnx: WriteOnnx, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRPEXPORT_MEMORY", "1G")
    path = write_onnx([node("Relu", ["x"], ["y"])], {"x": (1, 2**28)}, {"y": None})
    with pytest.raises(ModelError, match="takes more memory"):
        open_session(path).random_inputs()
    monkeypatch.setenv("TRPEXPORT_MEMORY", "3G")
    assert open_session(path)._allowance.memory == 3 << 30


@pytest.mark.skipif(sys.platform == "win32", reason="it has no such files")
@pytest.mark.parametrize("read", [count_onnx, open_session])
def test_a_pipe_is_refused_at_once(tmp_path: Path, read: Callable[[Path], object]) -> None:
    path = tmp_path / "model.onnx"
    os.mkfifo(path)
    with pytest.raises(ModelError, match="is no plain file"):
        read(path)
