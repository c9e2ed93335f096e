from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import helper

from trpexport.errors import MissingDependencyError, ModelError
from trpexport.onnxfile.counting import count_onnx
from trpexport.onnxfile.external_data import external_files

WriteOnnx = Callable[..., Path]
node = helper.make_node


def weights(*shape: int) -> np.ndarray[Any, np.dtype[Any]]:
    return np.ones(shape, np.float32)


@pytest.fixture(scope="module")
def dynamic(write_onnx: WriteOnnx) -> Path:
    return write_onnx(
        [node("Conv", ["x", "w"], ["y"])],
        {"x": ("n", 3, "h", "w_")},
        {"y": ("n", 2, "h", "w_")},
        {"w": weights(2, 3, 1, 1)},
    )


def test_free_sizes_need_a_shape(dynamic: Path) -> None:
    with pytest.raises(ModelError, match="as in x=1x3x224x224"):
        count_onnx(dynamic)
    assert count_onnx(dynamic, shapes={"x": (1, 3, 5, 7)}).macs == 2 * 35 * 3
    assert count_onnx(dynamic, shapes={"x": (4, 3, 5, 7)}).macs == 4 * 2 * 35 * 3
    with pytest.raises(ModelError, match="no input 'image'"):
        count_onnx(dynamic, shapes={"image": (1, 3, 5, 7)})
    with pytest.raises(ModelError, match="can't have the shape 1x4x5x7"):
        count_onnx(dynamic, shapes={"x": (1, 4, 5, 7)})


def test_an_input_without_a_shape_needs_one(write_onnx: WriteOnnx) -> None:
    path = write_onnx(
        [node("Conv", ["x", "w"], ["y"])], {"x": None}, {"y": None}, {"w": weights(2, 3, 1, 1)}
    )
    with pytest.raises(ModelError, match=r"x has no shape: .* x="):
        count_onnx(path)
    assert count_onnx(path, shapes={"x": (1, 3, 5, 7)}).macs == 2 * 35 * 3


def test_a_fixed_batch_counts_whole(write_onnx: WriteOnnx) -> None:
    path = write_onnx(
        [node("Gemm", ["x", "w"], ["y"])], {"x": (8, 3)}, {"y": None}, {"w": weights(3, 2)}
    )
    assert count_onnx(path).macs == 8 * 3 * 2


def test_weights_in_a_second_file_are_not_read(write_onnx: WriteOnnx) -> None:
    path = write_onnx(
        [node("Gemm", ["x", "fc.weight"], ["y"])],
        {"x": ("n", 3)},
        {"y": None},
        {"fc.weight": weights(3, 2)},
        save_as_external_data=True,
        location="weights.data",
        size_threshold=0,
    )
    (path.parent / "weights.data").unlink()
    result = count_onnx(path)
    assert (result.macs, result.parameters, result.layers[0].name) == (6, 6, "fc")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "there is no file"),
        (b"", "is empty"),
        (b"\x80\x02}q\x00.", "is a checkpoint, not an ONNX file"),
        (b"hello, this is text\n", "is not an ONNX file"),
        (b"\x08\x08", "is not an ONNX file"),  # a version and nothing else
        (b"\x3a\x06\x0a\x04\x22\x02no", "is not an ONNX file"),  # a node without outputs
    ],
)
def test_bad_files(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "model.json"  # onnx.load would go by the suffix
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ModelError, match=message):
        count_onnx(path)


def test_a_name_that_is_no_text(dynamic: Path, tmp_path: Path) -> None:
    content, path = dynamic.read_bytes(), tmp_path / "model.onnx"
    name = b"\x0a\x01x"  # the field's tag, its length, the letter
    assert name in content
    path.write_bytes(content.replace(name, name[:2] + b"\x80"))
    with pytest.raises(ModelError, match="is not an ONNX file"):
        count_onnx(path, shapes={"x": (1, 3, 5, 7)})


def test_a_second_file_whose_name_is_no_text(write_onnx: WriteOnnx) -> None:
    path = write_onnx(
        [node("Gemm", ["x", "w"], ["y"])],
        {"x": ("n", 3)},
        {"y": None},
        {"w": weights(3, 2)},
        save_as_external_data=True,
        location="weights.data",
        size_threshold=0,
    )
    assert [str(file) for file in external_files(path)] == ["weights.data"]
    path.write_bytes(path.read_bytes().replace(b"weights.data", b"weights\x80data"))
    with pytest.raises(ModelError, match="is not an ONNX file"):
        external_files(path)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_damaged_file_is_an_error_of_ours(
    dynamic: Path, tmp_path: Path, data: st.DataObject
) -> None:
    content = bytearray(dynamic.read_bytes())
    place = data.draw(st.integers(0, len(content) - 1))
    if data.draw(st.booleans()):
        content[place] = data.draw(st.integers(0, 255))
    else:
        del content[place:]
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    with suppress(ModelError):
        assert count_onnx(path, shapes={"x": (1, 3, 5, 7)}).macs >= 0


def test_missing_onnx_names_the_command(dynamic: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnx.shape_inference", None)
    with pytest.raises(MissingDependencyError, match=r"pip install .*\[edge\]"):
        count_onnx(dynamic)
