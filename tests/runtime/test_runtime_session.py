from __future__ import annotations

import importlib.abc
import os
import pickle
import re
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper

from trpexport.errors import MissingDependencyError, ModelError, TrpexportError
from trpexport.onnxfile.recognition import is_checkpoint
from trpexport.runtime.session import import_onnxruntime, open_session, run_in_batches

ROOT = Path(__file__).resolve().parents[2]
WriteOnnx = Callable[..., Path]


class BrokenOnnxruntime(importlib.abc.MetaPathFinder):
    """Stands in for an onnxruntime that can't be imported, and says what it saw."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
        if name == "onnxruntime":
            raise ImportError(f"telemetry={os.environ.get('ORT_DISABLE_TELEMETRY')}")


@pytest.mark.parametrize(("set_by_user", "expected"), [(None, "1"), ("0", "0")])
def test_telemetry_is_off_before_the_import_unless_the_user_decided(
    monkeypatch: pytest.MonkeyPatch, set_by_user: str | None, expected: str
) -> None:
    monkeypatch.delitem(sys.modules, "onnxruntime", raising=False)
    monkeypatch.setattr(sys, "meta_path", [BrokenOnnxruntime(), *sys.meta_path])
    monkeypatch.setenv("ORT_DISABLE_TELEMETRY", "")
    if set_by_user is None:
        monkeypatch.delenv("ORT_DISABLE_TELEMETRY")
    else:
        monkeypatch.setenv("ORT_DISABLE_TELEMETRY", set_by_user)
    with pytest.raises(MissingDependencyError, match=rf"telemetry={expected}\b"):
        import_onnxruntime()


def test_missing_onnxruntime_names_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingDependencyError, match=r"pip install .*\[edge\]"):
        import_onnxruntime()


def test_every_import_of_onnxruntime_turns_telemetry_off_first() -> None:
    files = [
        path
        for folder in ("trpexport", "cli", "models_zoo", "benchmarks")
        for path in (ROOT / folder).rglob("*.py")
        if re.search(
            r"""^\s*(import|from) onnxruntime\b|import_module\("onnxruntime""",
            path.read_text(),
            re.MULTILINE,
        )
    ]
    assert ROOT / "trpexport/runtime/session.py" in files
    # A process of its own gets it in its environment.
    ways = ("import_onnxruntime(", '"ORT_DISABLE_TELEMETRY": "1"')
    assert [path for path in files if not any(way in path.read_text() for way in ways)] == []


def test_describes_inputs_and_outputs(write_onnx: WriteOnnx) -> None:
    session = open_session(
        write_onnx(
            [helper.make_node("Add", ["a", "c"], ["y"]), helper.make_node("Not", ["b"], ["z"])],
            {"a": ("batch", None, 4), "b": (2,)},
            {"y": ("batch", None, 4), "z": (2,)},
            {"c": np.ones(4, np.float16)},
            types=dict.fromkeys("ay", TensorProto.FLOAT16) | dict.fromkeys("bz", TensorProto.BOOL),
        )
    )
    assert [(i.name, i.shape, i.dtype) for i in session.inputs] == [
        ("a", ("batch", "?", 4), np.dtype("float16")),
        ("b", (2,), np.dtype("bool")),
    ]
    assert [str(o) for o in session.outputs] == ["y float16[batchx?x4]", "z bool[2]"]


@pytest.mark.parametrize("threads", [None, 1])
def test_runs_a_file_and_its_content(linear: WriteOnnx, threads: int | None) -> None:
    path = linear()
    x = np.eye(3, dtype=np.float32)
    from_file = open_session(path, threads=threads).run({"input": x})
    from_bytes = open_session(path.read_bytes(), threads=threads).run({"input": x})
    weight = np.random.default_rng(1).standard_normal((3, 4)).astype(np.float32)
    assert list(from_file) == ["output"]
    np.testing.assert_allclose(from_file["output"], weight, rtol=1e-6)
    np.testing.assert_array_equal(from_bytes["output"], from_file["output"])


@pytest.mark.parametrize("threads", [0, 10**12])
def test_refuses_senseless_numbers_of_threads(linear: WriteOnnx, threads: int) -> None:
    with pytest.raises(TrpexportError, match="choose 1 to 4096"):
        open_session(linear(), threads=threads)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({}, "was given none"),
        ({"image": np.zeros((1, 3), np.float32)}, r"inputs input float32\[batchx3\].* given image"),
        ({"input": np.zeros((1, 3))}, r"float32\[batchx3\], but was given float64\[1x3\]"),
        ({"input": np.zeros((1, 3), ">f4")}, r"float32\[batchx3\], but was given >f4\[1x3\]"),
        ({"input": np.zeros((1, 4), np.float32)}, r"but was given float32\[1x4\]"),
        ({"input": np.zeros((1, 3, 1), np.float32)}, r"but was given float32\[1x3x1\]"),
    ],
)
def test_refuses_inputs_that_do_not_fit(
    linear: WriteOnnx, inputs: dict[str, Any], message: str
) -> None:
    with pytest.raises(ModelError, match=message):
        open_session(linear()).run(inputs)


def test_a_failure_while_running_is_one_line(
    write_onnx: WriteOnnx, capfd: pytest.CaptureFixture[str]
) -> None:
    path = write_onnx(
        [helper.make_node("Reshape", ["x", "shape"], ["y"])],
        {"x": ("n",), "shape": (1,)},
        {"y": None},
        types={"shape": TensorProto.INT64},
    )
    with pytest.raises(ModelError, match=r"failed while running: .*Reshape") as caught:
        open_session(path).run({"x": np.zeros(3, np.float32), "shape": np.array([5])})
    assert "\n" not in str(caught.value)
    assert capfd.readouterr().err == ""


def test_random_inputs_are_seeded_and_shaped(write_onnx: WriteOnnx) -> None:
    session = open_session(
        write_onnx(
            [helper.make_node("Gather", ["x", "index"], ["y"], axis=1)],
            {"x": ("n", 2000), "index": (2,)},
            {"y": ("n", 2)},
            types={"index": TensorProto.INT64},
        )
    )
    inputs = session.random_inputs(batch=5, seed=3)
    assert inputs["x"].shape == (5, 2000)
    assert inputs["x"].dtype == np.float32
    assert abs(inputs["x"].mean()) < 0.05  # 5 standard deviations of the mean of 10,000
    assert abs(inputs["x"].std() - 1) < 0.05
    assert all(0 <= index < 2000 for index in inputs["index"])
    assert len(set(inputs["index"].tolist())) == 2
    np.testing.assert_array_equal(inputs["x"], session.random_inputs(5, 3)["x"])
    assert (inputs["x"] != session.random_inputs(5, 4)["x"]).any()
    assert session.run(inputs)["y"].shape == (5, 2)


@pytest.fixture(scope="module")
def image_model(write_onnx: WriteOnnx) -> Path:
    return write_onnx(
        [helper.make_node("Add", ["image", "other"], ["y"])],
        {"image": ("n", 3, "h", None), "other": ("n", 3, "h", 1)},
        {"y": None},
    )


def test_dynamic_sizes_come_from_overrides(image_model: Path) -> None:
    inputs = open_session(image_model).random_inputs(overrides={"image": (2, 3, 8, 9)})
    assert inputs["image"].shape == (2, 3, 8, 9)
    assert inputs["other"].shape == (2, 3, 8, 1)  # n and h are the same dimensions


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({}, r"image float32\[nx3xhx\?\] has dynamic .* as in image=1x3x224x224"),
        ({"imaeg": (1, 3, 8, 8)}, "no input 'imaeg' .* choose from image, other"),
        ({"image": (1, 4, 8, 8)}, "can't have the shape 1x4x8x8"),
        ({"image": (1, 3, 8)}, "can't have the shape 1x3x8"),
        ({"image": (1, 3, 8, 0)}, "none can be below 1"),
        (
            {"image": (1, 3, 8, 8), "other": (1, 3, 9, 1)},
            "dimension h can't be both 8 and 9",
        ),
    ],
)
def test_overrides_must_fit(
    image_model: Path, overrides: dict[str, tuple[int, ...]], message: str
) -> None:
    with pytest.raises(ModelError, match=message):
        open_session(image_model).random_inputs(overrides=overrides)


# --- files that can't be used ---------------------------------------------------------------


def corrupt(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def relu_model(write_onnx: WriteOnnx, **options: Any) -> Path:
    return write_onnx([helper.make_node("Relu", ["x"], ["y"])], {"x": (1,)}, {"y": (1,)}, **options)


def torch_zip(path: Path, linear: WriteOnnx) -> Path:
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("archive/data.pkl", b"")
    return path


def lone_external(path: Path, write_onnx: WriteOnnx) -> Path:
    path = write_onnx(
        [helper.make_node("Add", ["x", "w"], ["y"])],
        {"x": (1,)},
        {"y": (1,)},
        {"w": np.ones(1, np.float32)},
        save_as_external_data=True,
        location="weights.data",
        size_threshold=0,
    )
    (path.parent / "weights.data").unlink()
    return path


def cut_external(path: Path, write_onnx: WriteOnnx) -> Path:
    path = lone_external(path, write_onnx)
    (path.parent / "weights.data").write_bytes(b"\0\0")
    return path


def custom(write_onnx: WriteOnnx, domain: str, opsets: dict[str, int]) -> Path:
    node = helper.make_node("FancyPool", ["x"], ["y"], domain=domain)
    return write_onnx([node], {"x": (1,)}, {"y": (1,)}, opsets=opsets)


def wrong_type(path: Path, write_onnx: WriteOnnx) -> Path:
    node = helper.make_node("Identity", ["x"], ["y"])
    return write_onnx(
        [node], {"x": (1,)}, {"y": (1,)}, types=dict.fromkeys("xy", TensorProto.STRING)
    )


BAD_FILES: dict[str, tuple[Callable[[Path, WriteOnnx], Path], str]] = {
    "missing": (lambda path, _: path, "there is no file"),
    "directory": (lambda path, _: path.parent, "is a directory"),
    "empty": (lambda path, _: corrupt(path, b""), "is empty"),
    "text": (lambda path, _: corrupt(path, b"hello, this is text\n"), "is not an ONNX file"),
    "zeros": (lambda path, _: corrupt(path, bytes(100)), "is not an ONNX file"),
    "truncated": (
        lambda path, write: corrupt(path, relu_model(write).read_bytes()[:-5]),
        "was cut short",
    ),
    "only a header": (
        lambda path, write: corrupt(path, relu_model(write).read_bytes()[:2]),
        "was cut short",
    ),
    "torch zip": (torch_zip, "is a checkpoint, not an ONNX file; make one with trpexport export"),
    "torch pickle": (
        lambda path, _: corrupt(path, pickle.dumps({"a": 1}, protocol=2)),
        "is a checkpoint",
    ),
    "safetensors": (
        lambda path, _: corrupt(path, (2).to_bytes(8, "little") + b"{}"),
        "is a checkpoint",
    ),
    "external data missing": (lone_external, r"its weights in .*weights\.data, which is missing"),
    "external data cut short": (
        cut_external,
        "keeps w in bytes 0 to 4 of weights.data, which has 2: that file is cut",
    ),
    "custom domain": (
        lambda _, write: custom(write, "my.ops", {"": 17, "my.ops": 1}),
        "operator FancyPool of the domain 'my.ops'",
    ),
    "undeclared domain": (
        lambda _, write: custom(write, "my.ops", {"": 17}),
        "operator FancyPool of the domain 'my.ops'",
    ),
    "unknown standard operator": (
        lambda _, write: custom(write, "", {"": 17}),
        "operator FancyPool of the domain ''",
    ),
    "later opset": (
        lambda _, write: relu_model(write, opsets={"": 99}),
        r"opset 99 of ai\.onnx, onnxruntime \S+ runs up to \d+: update it",
    ),
    "later IR": (
        lambda _, write: relu_model(write, ir_version=99),
        r"IR version 99, onnxruntime \S+ reads up to \d+: update it",
    ),
    "invalid graph": (
        lambda _, write: write(
            [helper.make_node("Relu", ["nowhere"], ["y"])], {"x": (1,)}, {"y": (1,)}
        ),
        "can't load .*: .*nowhere",
    ),
    "name that is no text": (
        lambda path, write: corrupt(
            path, relu_model(write).read_bytes().replace(b"\x01x", b"\x01\xff")
        ),
        "can't load .*: .*utf-8",
    ),
    "type that numpy lacks": (wrong_type, r"x is a tensor\(string\), which numpy does not have"),
}


@pytest.mark.parametrize("kind", BAD_FILES)
def test_a_bad_file_is_one_clear_line(
    kind: str, tmp_path: Path, write_onnx: WriteOnnx, capfd: pytest.CaptureFixture[str]
) -> None:
    make, message = BAD_FILES[kind]
    path = make(tmp_path / "model.onnx", write_onnx)
    with pytest.raises(ModelError, match=message) as caught:
        open_session(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("kind", [*BAD_FILES, "good"])
def test_checkpoints_are_told_from_networks(
    kind: str, tmp_path: Path, write_onnx: WriteOnnx, linear: WriteOnnx
) -> None:
    path = linear() if kind == "good" else BAD_FILES[kind][0](tmp_path / "model.onnx", write_onnx)
    assert is_checkpoint(path) == (kind in {"torch zip", "torch pickle", "safetensors"})


def test_bad_content_is_named_too() -> None:
    with pytest.raises(ModelError, match="the network is empty"):
        open_session(b"")
    with pytest.raises(ModelError, match="the network is a checkpoint"):
        open_session(pickle.dumps(1))


# --- batches -------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 2, 4, 5])
@pytest.mark.parametrize("batch", ["n", 1, 2])
def test_any_number_of_images_runs_through_any_batch_size(
    linear: WriteOnnx, batch: int | str, count: int
) -> None:
    session = open_session(linear(batch=batch))
    assert session.batch_size == (None if batch == "n" else batch)
    x = np.random.default_rng(0).standard_normal((count, 3)).astype(np.float32)
    weight = np.random.default_rng(1).standard_normal((3, 4)).astype(np.float32)
    output = run_in_batches(session, {"input": x})["output"]
    np.testing.assert_allclose(output, x @ weight, rtol=1e-5, atol=1e-6)


def test_what_can_not_be_split_is_refused(linear: WriteOnnx, write_onnx: WriteOnnx) -> None:
    with pytest.raises(ModelError, match="takes 2 images at a time, not input 0x3"):
        run_in_batches(open_session(linear(batch=2)), {"input": np.zeros((0, 3), np.float32)})
    total = write_onnx([helper.make_node("ReduceSum", ["x"], ["y"])], {"x": (2, 3)}, {"y": None})
    with pytest.raises(ModelError, match="does not have one entry an image: run exactly 2"):
        run_in_batches(open_session(total), {"x": np.zeros((4, 3), np.float32)})
    pair = write_onnx(
        [helper.make_node("Add", ["a", "b"], ["y"])],
        {"a": (2, 3), "b": (2, 3)},
        {"y": (2, 3)},
    )
    arrays = {"a": np.zeros((4, 3), np.float32), "b": np.zeros((6, 3), np.float32)}
    with pytest.raises(ModelError, match="takes 2 images at a time, not a 4x3, b 6x3"):
        run_in_batches(open_session(pair), arrays)
