"""Static int8 from a file to a file."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from tests.quantization.networks import classifier, images, operators
from trpexport.compare import compare_outputs
from trpexport.errors import DataError, ModelError, TrpexportError
from trpexport.quantization import static
from trpexport.quantization.settings import QuantizationSettings
from trpexport.quantization.static import quantize_static
from trpexport.runtime.session import open_session

Write = Callable[..., Path]


def on(count: int = 80, **options: Any) -> QuantizationSettings:
    return QuantizationSettings(calibration={"x": images(count)}, **options)


def error(path: Path, other: Path, inputs: Any) -> float:
    expected, given = (open_session(one).run({"x": inputs}) for one in (path, other))
    return compare_outputs([(expected, given)])["y"].variation_error


def test_a_file_becomes_one_of_int8(write_onnx: Write, tmp_path: Path) -> None:
    path, target = classifier(write_onnx), tmp_path / "int8.onnx"
    found = quantize_static(path, target, on())
    onnx.checker.check_model(str(target), full_check=True)
    assert "QuantizeLinear" in operators(target)
    assert [value.name for value in onnx.load(target).graph.output] == ["y"]
    assert error(path, target, images(50, seed=2)) < 0.25  # of noise, which hardly varies
    facts = found.facts
    assert facts["images"] == {"calibration": 40, "held_out": 40}
    assert facts["method"] == min(facts["methods"], key=facts["methods"].get)
    # Half of what is held out chooses the method, the other half tells the error.
    assert facts["error"] == pytest.approx(error(path, target, images(80)[1::2][1::2]), rel=1e-3)
    assert facts["methods"][facts["method"]] == pytest.approx(
        error(path, target, images(80)[1::2][::2]), rel=1e-3
    )
    assert [link["error_ratio"] < 1 for link in facts["chains"]] == [True]
    assert len(facts["ranking"]) == 6
    assert (facts["excluded"], facts["drop"], found.note) == ([], None, None)


def test_held_out_images_decide_where_they_are_given(write_onnx: Write, tmp_path: Path) -> None:
    path, target = classifier(write_onnx), tmp_path / "int8.onnx"
    others = images(9, seed=5)
    found = quantize_static(path, target, on(held_out={"x": others}))
    assert found.facts["images"] == {"calibration": 80, "held_out": 9}
    assert found.facts["error"] == pytest.approx(error(path, target, others), rel=1e-3)


def test_a_limit_keeps_nodes_in_float(write_onnx: Write, tmp_path: Path) -> None:
    path, target = classifier(write_onnx, trap=True), tmp_path / "int8.onnx"
    found = quantize_static(path, target, on(max_error=0.09))
    assert "trap" in found.facts["excluded"]
    assert found.note is not None
    assert found.note.startswith("stays in float32: ")
    assert "trap" in found.note
    assert "trap.weight" in {tensor.name for tensor in onnx.load(target).graph.initializer}
    assert found.facts["error"] < found.facts["error_bound"] <= 0.09
    assert error(path, target, images(200, seed=9)) <= 0.09


@pytest.mark.parametrize(
    ("given", "held_out"), [(1, 1), (2, 1), (8, 4), (32, 16), (80, 40), (200, 64), (500, 100)]
)
def test_a_small_set_keeps_back_what_an_error_can_be_told_by(given: int, held_out: int) -> None:
    fitted, others = static._divided({"x": images(given)})
    assert len(others["x"]) == held_out
    if given > 1:
        together = np.concatenate([fitted["x"], others["x"]])
        assert np.array_equal(np.sort(together.ravel()), np.sort(images(given).ravel()))


@pytest.mark.parametrize("seed", range(3))
def test_the_diagonal_makes_the_error_smaller(
    seed: int, write_onnx: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A chain as a decomposition leaves it, but for its first channel, which is large.
    rng = np.random.default_rng(seed)
    first = rng.normal(size=(6, 3, 1, 1)) * np.array([20, 1, 1, 1, 1, 1]).reshape(6, 1, 1, 1)
    second = rng.normal(size=(5, 6, 1, 1)) / np.array([20, 1, 1, 1, 1, 1]).reshape(1, 6, 1, 1)
    path = write_onnx(
        [helper.make_node("Conv", ["x", "a"], ["h"]), helper.make_node("Conv", ["h", "b"], ["y"])],
        {"x": ("n", 3, 8, 8)},
        {"y": ("n", 5, 8, 8)},
        {"a": first.astype(np.float32), "b": second.astype(np.float32)},
    )
    with_it = quantize_static(path, tmp_path / "with.onnx", on())
    monkeypatch.setattr(static, "find_links", lambda _: [])
    without = quantize_static(path, tmp_path / "without.onnx", on())
    assert with_it.facts["error"] < 0.7 * without.facts["error"]
    assert with_it.facts["chains"][0]["error_ratio"] < 0.5


def test_a_file_takes_its_own_place_and_nothing_is_said(
    write_onnx: Write,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    path = classifier(write_onnx, save_as_external_data=True, size_threshold=0, location="w")
    handlers = list(logging.getLogger().handlers)
    quantize_static(path, path, on())
    assert capfd.readouterr() == ("", "")
    assert logging.getLogger().handlers == handlers
    assert sorted(file.name for file in path.parent.iterdir()) == ["model.onnx", "w"]
    (path.parent / "w").unlink()  # the weights stand in the file itself
    assert open_session(path).run({"x": images(2)})["y"].shape == (2, 10)
    assert list(tmp_path.iterdir()) == []


def test_a_network_of_several_inputs(write_onnx: Write, tmp_path: Path) -> None:
    path = write_onnx(
        [
            helper.make_node("MatMul", ["x", "w"], ["h"]),
            helper.make_node("Gather", ["table", "ids"], ["e"]),
            helper.make_node("Add", ["h", "e"], ["y"]),
        ],
        {"x": ("n", 3), "ids": ("n",)},
        {"y": ("n", 4)},
        {"w": np.ones((3, 4), np.float32), "table": np.eye(4, dtype=np.float32)},
        types={"ids": onnx.TensorProto.INT64},
    )
    rng = np.random.default_rng(0)
    inputs: dict[str, Any]
    inputs = {"x": rng.normal(size=(400, 3)).astype(np.float32), "ids": rng.integers(0, 4, 400)}
    found = quantize_static(path, tmp_path / "q.onnx", QuantizationSettings(calibration=inputs))
    assert found.facts["error"] < 0.07


def test_what_touches_infinite_values_stays_in_float(write_onnx: Write, tmp_path: Path) -> None:
    path = write_onnx(
        [
            helper.make_node("MatMul", ["x", "w"], ["h"]),
            helper.make_node("Add", ["h", "mask"], ["m"], name="masking"),
            helper.make_node("Softmax", ["m"], ["y"], axis=-1, name="attention"),
        ],
        {"x": ("n", 3)},
        {"y": ("n", 4)},
        {
            "w": np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32),
            "mask": np.array([0, 0, 0, -np.inf], np.float32),
        },
    )
    inputs = {"x": np.random.default_rng(1).normal(size=(20, 3)).astype(np.float32)}
    target = tmp_path / "q.onnx"
    found = quantize_static(path, target, QuantizationSettings(calibration=inputs))
    assert "attention" in found.facts["excluded"]
    assert open_session(target).run(inputs)["y"][:, 3] == pytest.approx(np.zeros(20))


def refuse(path: Path, settings: QuantizationSettings, kind: type[TrpexportError]) -> str:
    content = path.read_bytes()
    with pytest.raises(kind) as refusal:
        quantize_static(path, path, settings)
    assert "\n" not in str(refusal.value)
    assert refusal.value.exit_code == 2
    assert path.read_bytes() == content
    return str(refusal.value)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (np.full((1, 3, 8, 8), 0.5), "each of a single value"),
        (np.ones((4, 3, 8, 8)) * np.arange(4).reshape(4, 1, 1, 1), "each of a single value"),
        (np.where(images(4) > 2.5, np.nan, images(4)), "hold NaN or infinite values"),
        (np.zeros((0, 3, 8, 8)), "are none"),
    ],
    ids=["one constant", "constants", "NaN", "none"],
)
def test_images_that_say_nothing_are_refused(inputs: Any, message: str, write_onnx: Write) -> None:
    settings = QuantizationSettings(calibration={"x": inputs.astype(np.float32)})
    assert message in refuse(classifier(write_onnx), settings, DataError)


def test_images_of_another_size_are_refused(write_onnx: Write) -> None:
    settings = QuantizationSettings(calibration={"x": np.ones((4, 3, 9, 8), np.float32)})
    settings.calibration["x"][0, 0] = 2
    assert "needs the input x" in refuse(classifier(write_onnx), settings, ModelError)


def test_a_quantized_file_and_a_provider_without_int8_are_refused(write_onnx: Write) -> None:
    path = classifier(write_onnx)
    assert "no int8" in refuse(path, on(provider="coreml"), ModelError)
    quantize_static(path, path, on())
    assert "is quantized already" in refuse(path, on(), ModelError)
