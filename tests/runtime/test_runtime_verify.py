from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper

from trpexport.bundle import GOLDEN, MODEL, write_manifest
from trpexport.compare import Tolerance
from trpexport.errors import ModelError
from trpexport.golden import write_golden
from trpexport.runtime import verify
from trpexport.runtime.session import open_session
from trpexport.runtime.verify import verify_against_golden, verify_bundle, verify_models

WriteOnnx = Callable[..., Path]
WEIGHT = np.random.default_rng(1).standard_normal((3, 4)).astype(np.float32)


def test_a_model_agrees_with_itself_under_other_names_and_batch_sizes(linear: WriteOnnx) -> None:
    other = linear(batch=3, input_name="x", output_name="y")
    result = verify_models(linear(), other, count=10)
    assert result.is_equivalent
    assert list(result.outputs) == ["output"]
    assert result.outputs["output"].inputs == 10
    assert result.outputs["output"].top1_agreement == 1.0
    backwards = verify_models(other, linear(), count=10)
    assert list(backwards.outputs) == ["y"]
    assert backwards.outputs["y"].inputs == 12  # the fixed batch of 3, four times


def test_a_scaled_model_differs_by_its_scale(linear: WriteOnnx) -> None:
    result = verify_models(linear(), linear(1.01))
    assert not result.is_equivalent
    assert result.outputs["output"].rms_error == pytest.approx(0.01, rel=1e-3)
    assert result.outputs["output"].cosine == pytest.approx(1)
    loose = verify_models(linear(), linear(1.01), tolerance=Tolerance(0.1, 0.02))
    assert loose.is_equivalent
    assert json.loads(json.dumps(loose.to_json())) == {
        "is_equivalent": True,
        "tolerance": {"max_error": 0.1, "rms_error": 0.02, "agreement": 0.999},
        "outputs": {"output": loose.outputs["output"].to_json()},
        "note": None,
    }
    assert str(loose) == f"output: {loose.outputs['output']}"


def test_the_seed_decides_the_inputs(linear: WriteOnnx) -> None:
    first, again, other = (
        verify_models(linear(), linear(1.01), seed=seed).outputs["output"] for seed in (0, 0, 1)
    )
    assert first == again
    assert first != other


def test_given_inputs_are_used(linear: WriteOnnx) -> None:
    inputs = {"input": np.eye(3, dtype=np.float32)[:1]}
    result = verify_models(linear(), linear(2.0), inputs=inputs).outputs["output"]
    assert result.inputs == 1
    row = WEIGHT[0]
    assert result.max_error == pytest.approx(abs(row).max() / np.sqrt((row**2).mean()), rel=1e-5)
    both = {"image": inputs["input"], "mask": inputs["input"]}
    with pytest.raises(ModelError, match=r"nothing for the input 'input' .* but 'image', 'mask'"):
        verify_models(linear(), linear(), inputs=both)


def test_seconds_add_fresh_inputs(linear: WriteOnnx) -> None:
    result = verify_models(linear(), linear(), count=1, seconds=0.2)
    assert result.outputs["output"].inputs > 9


def test_comparing_nothing_is_an_error(linear: WriteOnnx) -> None:
    with pytest.raises(ModelError, match="nothing was compared"):
        verify_models(linear(), linear(), count=0)


def test_several_outputs_are_matched_by_name(write_onnx: WriteOnnx) -> None:
    def write(*order: str) -> Path:
        nodes = [helper.make_node("Neg", ["x"], ["a"]), helper.make_node("Abs", ["x"], ["b"])]
        return write_onnx(nodes, {"x": ("n", 2)}, dict.fromkeys(order, ("n", 2)))

    assert verify_models(write("a", "b"), write("b", "a")).is_equivalent


def test_free_sizes_are_given_as_shapes(write_onnx: WriteOnnx) -> None:
    path = write_onnx(
        [helper.make_node("Relu", ["x"], ["y"])], {"x": ("n", "c")}, {"y": ("n", "c")}
    )
    with pytest.raises(ModelError, match="as in x="):
        verify_models(path, path)
    assert verify_models(path, path, shapes={"x": (2, 7)}).outputs["y"].inputs == 8


@pytest.mark.parametrize("dtype", [TensorProto.DOUBLE, TensorProto.INT32])
def test_inputs_of_another_type_can_not_be_compared(
    linear: WriteOnnx, write_onnx: WriteOnnx, dtype: int
) -> None:
    other = write_onnx(
        [helper.make_node("Identity", ["input"], ["output"])],
        {"input": ("n", 3)},
        {"output": ("n", 3)},
        types={"input": dtype, "output": dtype},
    )
    with pytest.raises(ModelError, match=r"needs the input input .* but was given float32"):
        verify_models(linear(), other)


def test_what_can_not_be_compared_is_refused(linear: WriteOnnx, write_onnx: WriteOnnx) -> None:
    with pytest.raises(ModelError, match=r"outputs can't be compared: .*8x4.* and .*8x5"):
        verify_models(linear(), linear(columns=5))
    two_outputs = write_onnx(
        [helper.make_node("Relu", ["input"], ["a"]), helper.make_node("Abs", ["input"], ["b"])],
        {"input": ("n", 3)},
        {"a": ("n", 3), "b": ("n", 3)},
    )
    with pytest.raises(ModelError, match=r"its outputs are a, b, those of the reference output$"):
        verify_models(linear(), two_outputs)
    two_inputs = write_onnx(
        [helper.make_node("Add", ["a", "b"], ["y"])], {"a": (1, 3), "b": (1, 3)}, {"y": (1, 3)}
    )
    with pytest.raises(ModelError, match=r"its inputs are a, b, those of the reference input$"):
        verify_models(linear(), two_inputs)
    labels = write_onnx(
        [helper.make_node("Cast", ["input"], ["output"], to=TensorProto.INT64)],
        {"input": ("n", 3)},
        {"output": ("n", 3)},
        types={"output": TensorProto.INT64},
    )
    with pytest.raises(ModelError, match=r"float32\[8x3\] and int64\[8x3\]"):
        verify_models(linear(columns=3), labels)


# --- bundles -------------------------------------------------------------------------------


@pytest.fixture
def bundle(tmp_path: Path, linear: WriteOnnx) -> Callable[..., Path]:
    """Writes a bundle of 5 golden images whose outputs numpy computed."""

    def write(scale: float = 1.0, **changes: Any) -> Path:
        (tmp_path / MODEL).write_bytes(linear(scale, **changes).read_bytes())
        x = np.random.default_rng(2).standard_normal((5, 3)).astype(np.float32)
        write_golden(tmp_path / GOLDEN, {"input": x}, {"output": x @ WEIGHT})
        write_manifest(tmp_path, {})
        return tmp_path

    return write


@pytest.mark.parametrize("batch", ["batch", 1, 2, 5, 8])
def test_a_bundle_verifies_with_any_batch_size(
    bundle: Callable[..., Path], batch: int | str
) -> None:
    result = verify_bundle(bundle(batch=batch))
    assert result.is_equivalent
    assert result.outputs["output"].inputs == 5


@pytest.mark.parametrize(("provider", "used"), [("cpu", {"memory_pattern": False}), ("cuda", {})])
def test_a_bundle_is_verified_as_it_is_to_run(
    bundle: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    provider: str,
    used: dict[str, bool],
) -> None:
    out = bundle()
    advice = {"provider": provider, "threads": 4, "options": {"memory_pattern": False}}
    write_manifest(out, {"session": {"file": MODEL, **advice}})
    seen: list[dict[str, Any]] = []

    def spy(model: Path, **options: Any) -> Any:
        seen.append(options)
        return open_session(model, **options)

    monkeypatch.setattr(verify, "open_session", spy)
    assert verify_bundle(out).is_equivalent
    assert seen == [used]


def test_a_bundle_with_the_wrong_network_fails(bundle: Callable[..., Path]) -> None:
    result = verify_bundle(bundle(1.01))
    assert not result.is_equivalent
    assert result.outputs["output"].rms_error == pytest.approx(0.01, rel=1e-3)
    assert verify_bundle(bundle(1.01), tolerance=Tolerance(0.1, 0.02)).is_equivalent


def test_another_network_against_golden_arrays(
    bundle: Callable[..., Path], linear: WriteOnnx
) -> None:
    directory = bundle(1.01)
    renamed = linear(batch=1, input_name="x", output_name="y")
    result = verify_against_golden(renamed, directory)
    assert result.is_equivalent
    assert list(result.outputs) == ["output"]
    assert not verify_against_golden(linear(1.01), directory).is_equivalent


@pytest.mark.parametrize("name", [MODEL, GOLDEN])
def test_a_changed_bundle_is_refused(bundle: Callable[..., Path], name: str) -> None:
    directory = bundle()
    with (directory / name).open("ab") as file:
        file.write(b"\0")
    with pytest.raises(ModelError, match=f"{name} was changed after the export"):
        verify_bundle(directory)


def test_damaged_golden_arrays_are_refused(bundle: Callable[..., Path]) -> None:
    directory = bundle()
    (directory / GOLDEN).write_bytes((directory / GOLDEN).read_bytes()[:100])
    write_manifest(directory, {})
    with pytest.raises(ModelError, match=r"golden\.npz is damaged"):
        verify_bundle(directory)


def test_a_directory_that_is_no_bundle(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="is not a bundle"):
        verify_bundle(tmp_path)


@pytest.mark.parametrize("candidate_is_random", [False, True])
def test_a_random_network_is_said_to_be_random(
    write_onnx: WriteOnnx, candidate_is_random: bool
) -> None:
    def write(random: bool) -> Path:
        noise = helper.make_node("RandomNormalLike", ["x"], ["n"])
        nodes = [noise if random else helper.make_node("Neg", ["x"], ["n"])]
        nodes.append(helper.make_node("Add", ["x", "n"], ["y"]))
        return write_onnx(nodes, {"x": ("batch", 3)}, {"y": ("batch", 3)})

    reference, candidate = write(True), write(candidate_is_random)
    with pytest.raises(ModelError, match=r"is random: y differs between two runs"):
        verify_models(reference, candidate)
    with pytest.raises(ModelError, match=f"^{re.escape(str(reference))} is random"):
        verify_models(write(False), reference)


def test_nan_says_nothing_of_a_network(write_onnx: WriteOnnx) -> None:
    def write() -> Path:
        return write_onnx(
            [helper.make_node("Sqrt", ["x"], ["y"])], {"x": ("batch", 3)}, {"y": ("batch", 3)}
        )

    with pytest.raises(ModelError, match="puts out NaN in y"):
        verify_models(write(), write())
    positive = {"x": np.ones((20, 3), np.float32)}
    found = verify_models(write(), write(), inputs=positive)
    assert found.is_equivalent
    assert found.outputs["y"].inputs == 20


def test_places_of_maxima_are_compared_by_agreement(write_onnx: WriteOnnx) -> None:
    def write(scale: float) -> Path:
        return write_onnx(
            [
                helper.make_node("Mul", ["x", "scale"], ["s"]),
                helper.make_node("ArgMax", ["s"], ["y"], axis=1),
            ],
            {"x": ("batch", 3)},
            {"y": ("batch", 1)},
            {"scale": np.array([scale], np.float32)},
            types={"y": TensorProto.INT64},
        )

    assert verify_models(write(1), write(2)).is_equivalent
    found = verify_models(write(1), write(-1)).outputs["y"]
    assert found.agreement == 0  # the largest is nowhere the smallest
