"""Which whole numbers a network is fed with."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from onnx import NodeProto, TensorProto, helper

from trpexport.errors import ModelError
from trpexport.onnxfile.input_values import whole_numbers
from trpexport.runtime.session import open_session
from trpexport.runtime.verify import verify_models
from trpexport.tensors import Array

WriteOnnx = Callable[..., Path]
node = helper.make_node
TABLE = np.random.default_rng(0).standard_normal((100, 4)).astype(np.float32)
# how the rows reach the table
WAYS: dict[str, list[NodeProto]] = {
    "as they are": [node("Identity", ["tokens"], ["i"])],
    "cast": [node("Cast", ["tokens"], ["i"], to=TensorProto.INT32)],
    "another shape": [node("Reshape", ["tokens", "flat"], ["i"])],
}


def embedding(
    write_onnx: WriteOnnx, table: Array = TABLE, way: str = "as they are"
) -> Path:  # fmt: skip
    return write_onnx(
        [*WAYS[way], node("Gather", ["table", "i"], ["e"]), node("Relu", ["e"], ["y"])],
        {"tokens": (1, 32)},
        {"y": None},
        {"table": table, "flat": np.array([-1])},
        types={"tokens": TensorProto.INT64},
    )


@pytest.mark.parametrize("way", WAYS)
def test_rows_of_a_table_are_all_drawn_from(write_onnx: WriteOnnx, way: str) -> None:
    path = embedding(write_onnx, way=way)
    assert whole_numbers(path)["tokens"].values == range(100)
    session = open_session(path)
    drawn = np.concatenate([session.random_inputs(seed=s)["tokens"].ravel() for s in range(50)])
    assert set(drawn.tolist()) == set(range(100))


def test_the_smallest_table_decides(write_onnx: WriteOnnx) -> None:
    path = write_onnx(
        [node("Gather", ["a", "t"], ["x"]), node("Gather", ["b", "t"], ["z"], axis=1)],
        {"t": (4,)},
        {"x": None, "z": None},
        {"a": np.ones((9, 2), np.float32), "b": np.ones((2, 5), np.float32)},
        types={"t": TensorProto.INT64},
    )
    assert whole_numbers(path)["t"].values == range(5)


def test_a_table_of_other_rows_is_another_network(write_onnx: WriteOnnx) -> None:
    shuffled = TABLE.copy()
    shuffled[1:] = TABLE[1:][::-1]
    same, other = embedding(write_onnx), embedding(write_onnx, shuffled)
    assert verify_models(same, embedding(write_onnx)).is_equivalent
    assert not verify_models(same, other).is_equivalent


def test_a_number_that_is_compared_is_one_that_it_is_compared_with(write_onnx: WriteOnnx) -> None:
    path = write_onnx(
        [node("Equal", ["rate", "sixteen"], ["y"])],
        {"rate": ()},
        {"y": ()},
        {"sixteen": np.array(16000)},
        types={"rate": TensorProto.INT64, "y": TensorProto.BOOL},
    )
    assert whole_numbers(path)["rate"].values == (16000,)
    session = open_session(path)
    assert session.run(session.random_inputs())["y"]


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        (TensorProto.BOOL, {0, 1}),
        (TensorProto.INT64, {0, 1}),
        (TensorProto.UINT8, set(range(256))),
        (TensorProto.INT8, set(range(-128, 128))),
    ],
)
def test_what_a_network_does_not_say_varies(
    write_onnx: WriteOnnx, kind: int, values: set[int]
) -> None:
    path = write_onnx(
        [node("Cast", ["x"], ["y"], to=TensorProto.FLOAT)],
        {"x": (20_000,)},
        {"y": (20_000,)},
        types={"x": kind},
    )
    assert set(open_session(path).random_inputs()["x"].tolist()) == values


def test_a_guess_that_fails_is_named(write_onnx: WriteOnnx) -> None:
    path = write_onnx(
        [node("Reshape", ["x", "size"], ["y"])],
        {"x": (1, 6), "size": (2,)},
        {"y": None},
        types={"size": TensorProto.INT64},
    )
    session = open_session(path)
    with pytest.raises(ModelError, match=r"if size int64\[2\] can't be any number, give real") as e:
        session.run(session.random_inputs())
    assert e.value.parameters == ("inputs", "data")
