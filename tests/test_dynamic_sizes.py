"""Files with open sizes: they compute what the network does at sizes that it was not traced at."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

import trpexport
from tests.networks.torch.several import Detector, Pyramid, Square
from trpexport.artifact.reference import ReferenceRuns
from trpexport.artifact.verification import _against
from trpexport.errors import ModelError
from trpexport.inputs import Inputs
from trpexport.networks.torch.network import TorchNetwork
from trpexport.tensors import Arrays

RANK = trpexport.ByCriterion("spatial", "rank:3")


@pytest.mark.parametrize(
    ("network", "legacy"), [(Detector, False), (Pyramid, False), (Pyramid, True)]
)
def test_a_file_runs_at_other_sizes(tmp_path: Path, network: type[nn.Module], legacy: bool) -> None:
    small = trpexport.decompose(network(), RANK, example=(1, 3, 16, 16))
    out = tmp_path / "out"
    report = trpexport.export(
        small, out, dynamic=["height", "width"], dynamic_batch=True, legacy_exporter=legacy,
        verify_seconds=0,
    )  # fmt: skip
    assert "verified at 1x3x24x24; 1x3x12x12; 1x3x12x24 as well" in report.data["notes"]
    facts = json.loads((out / "manifest.json").read_text())
    assert facts["dynamic"] == {"input": {"2": "height", "3": "width"}}
    file = onnxruntime.InferenceSession(out / "model.onnx", providers=["CPUExecutionProvider"])
    assert file.get_inputs()[0].shape == ["batch", 3, "height", "width"]
    x = torch.randn(2, 3, 40, 28)
    expected = small.module(x)
    first = expected["boxes"][0] if isinstance(expected, dict) else expected
    np.testing.assert_allclose(
        file.run(None, {"input": x.numpy()})[0], first.detach().numpy(), rtol=1e-4, atol=1e-5
    )
    assert trpexport.verify(out).is_equivalent
    assert trpexport.verify(out / "model.onnx", out).is_equivalent
    costs = [
        trpexport.count(out / "model.onnx", shapes={"input": (1, 3, size, size)}).macs
        for size in (16, 32)
    ]
    assert costs[1] == 4 * costs[0]


def test_a_network_of_one_size_is_exported_at_that_size(tmp_path: Path) -> None:
    small = trpexport.decompose(Square(), RANK, example=(1, 3, 6, 6))
    report = trpexport.export(small, tmp_path / "out", dynamic=["height"], verify_seconds=0)
    assert any(
        "height are not open in it: the network runs at no other size" in note
        for note in report.data["notes"]
    )
    file = onnxruntime.InferenceSession(tmp_path / "out" / "model.onnx")
    assert file.get_inputs()[0].shape == [1, 3, 6, 6]
    with pytest.raises(ModelError, match="names no dimension") as caught:
        trpexport.export(small, tmp_path / "other", dynamic=["depth"], verify_seconds=0)
    assert caught.value.parameters == ("dynamic",)
    assert not (tmp_path / "other").exists()


def test_sizes_are_multiples_of_what_runs() -> None:
    network = TorchNetwork.open(Pyramid(), (1, 3, 10, 10))
    reference = ReferenceRuns(network, Inputs.of((1, 3, 10, 10)), macs=1)
    sized = reference.at_other_sizes({"input": {2: "height", 3: "width"}})
    # 15 and 8, which is 7.5 rounded, at multiples of one: 15 is odd, so 16 is taken.
    assert [one.first.shape[2:] for one in sized.others] == [(16, 16), (8, 8), (8, 16)]


class Stiff:
    """A file that is right at the size of its export alone."""

    def run(self, feeds: Arrays) -> dict[str, Any]:
        x = feeds["input"]
        return {"output": x if x.shape[-1] == 4 else 2 * x}


class Same:
    """What the file has to compute."""

    def run(self, feeds: Arrays) -> dict[str, Any]:
        return {"output": feeds["input"]}


def test_a_file_that_is_wrong_at_another_size_is_found_out() -> None:
    reference = ReferenceRuns(Same(), Inputs.of((1, 3, 4, 4)), macs=1)
    assert reference.compare(Stiff(), seconds=0)["output"].is_equivalent()
    sized = reference.at_other_sizes({"input": {3: "width"}})
    assert not sized.compare(Stiff(), seconds=0)["output"].is_equivalent()


# --- ONNX files with open sizes of their own --------------------------------------------------


def onnx_file(folder: Path, network: nn.Module, size: int = 16, **settings: Any) -> Path:
    """The dense network, written with its sizes open."""
    small = trpexport.decompose(network, RANK, example=(1, 3, size, size))
    how: dict[str, Any] = {"dynamic": ["height", "width"], "baseline": True, "verify_seconds": 0}
    how |= {"opset": 17, "legacy_exporter": True, "simplify": False}
    return trpexport.export(small, folder, **(how | settings)).path / "baseline.onnx"


@pytest.mark.parametrize("network", [Detector, Pyramid])
def test_an_onnx_file_is_verified_at_other_sizes_by_itself(
    tmp_path: Path, network: type[nn.Module]
) -> None:
    file = onnx_file(tmp_path / "dense", network())
    small = trpexport.decompose(file, RANK, example=(1, 3, 16, 16))
    report = trpexport.export(small, tmp_path / "out", verify_seconds=0)
    assert "verified at 1x3x24x24; 1x3x12x12; 1x3x12x24 as well" in report.data["notes"]
    session = onnxruntime.InferenceSession(tmp_path / "out" / "model.onnx")
    assert session.get_inputs()[0].shape[2:] == ["height", "width"]
    seen = {s["name"]: s["outputs"].popitem()[1]["inputs"] for s in report.data["steps"]}
    # One of each other size; the error over the variation is of one size alone.
    assert seen["annotate"] == seen["rewrite"] == seen["decompose"] + 3


def test_a_rewrite_that_is_wrong_at_another_size_is_found_out() -> None:
    reference = ReferenceRuns(Same(), Inputs.of((1, 3, 4, 4)), macs=1)
    assert _against([Stiff()], reference, 0)[0]["output"].is_equivalent()
    sized = reference.at_other_sizes({"input": {3: "width"}})
    first, second = _against([Stiff(), Stiff()], sized, 0)
    assert not first["output"].is_equivalent()
    assert second["output"].is_equivalent()  # what it is to be like, not what it is


def test_an_onnx_file_whose_open_sizes_run_at_one_size_alone_says_so(tmp_path: Path) -> None:
    file = onnx_file(tmp_path / "dense", Square(), 6, dynamic=[])
    model = onnx.load(file)
    model.graph.input[0].type.tensor_type.shape.dim[2].dim_param = "height"
    onnx.save(model, file)
    small = trpexport.decompose(file, RANK, example=(1, 3, 6, 6))
    report = trpexport.export(small, tmp_path / "out", verify_seconds=0)
    (note,) = report.data["notes"]
    assert note.startswith("verified at 1x3x6x6 alone: the file leaves height open, but")


def test_sizes_that_give_no_numbers_are_not_taken() -> None:
    class Brittle:
        def run(self, feeds: Arrays) -> dict[str, Any]:
            x = feeds["input"]
            return {"output": x if x.shape[-1] <= 4 else x * np.nan}

    reference = ReferenceRuns(Brittle(), Inputs.of((1, 3, 4, 4)), macs=1)
    sized = reference.at_other_sizes({"input": {3: "width"}})
    assert [one.first.shape for one in sized.others] == [(1, 3, 4, 3)]


def open_file(path: Path, usual: str | None = None) -> Path:
    """Write a network whose height and width are open, with what its metadata say of them."""
    weight = numpy_helper.from_array(np.full((8, 3, 3, 3), 0.1, np.float32), "w")
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", "w"], ["y"], kernel_shape=[3, 3])], "net",
        [value("x", TensorProto.FLOAT, ["n", 3, "h", "w_"])],
        [value("y", TensorProto.FLOAT, ["n", 8, None, None])], [weight],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    if usual is not None:
        helper.set_model_props(model, {"trpexport.input_shapes": usual})
    onnx.save(model, path)
    return path


def test_a_bundle_remembers_the_size_that_it_was_made_at(tmp_path: Path) -> None:
    path = open_file(tmp_path / "open.onnx")
    kept = trpexport.ByCriterion("spatial", "rank:3", include=("*",))
    small = trpexport.decompose(path, kept, example=(1, 3, 20, 12))
    out = tmp_path / "out"
    trpexport.export(small, out, baseline=True, verify_seconds=0)
    before, after = (trpexport.count(out / name).macs for name in ("baseline.onnx", "model.onnx"))
    assert before == 8 * 3 * 9 * 18 * 10
    assert after == 3 * (3 * 3) * 18 * 12 + 8 * (3 * 3) * 18 * 10
    record = trpexport.bench([out], threads=(1,), min_time=0, min_runs=1, memory=False)
    shapes = [entry["inputs"] for entry in record["results"][0]["models"]]
    assert shapes == [{"x": [1, 3, 20, 12]}] * 2
    assert trpexport.count(out / "model.onnx", shapes={"x": (1, 3, 4, 4)}).macs < after
    assert trpexport.decompose(out / "baseline.onnx", kept).plan.inputs["x"].shape == (1, 3, 20, 12)


@pytest.mark.parametrize(
    "usual",
    ["no JSON", "[1]", '{"x": "1x3x8x8"}', '{"x": [1, 4, 8, 8]}', '{"x": [1, 3, 8]}',
     '{"x": [1, 3, 0, 8]}', '{"x": []}', '{"y": [1, 3, 8, 8]}', "[" * 100_000],
    ids=str.split("text list string channels rank zero empty other nested"),
)  # fmt: skip
def test_sizes_that_do_not_fit_are_asked_for(tmp_path: Path, usual: str) -> None:
    path = open_file(tmp_path / "open.onnx", usual)
    with pytest.raises(ModelError, match="give its shape"):
        trpexport.count(path)
    with pytest.raises(ModelError, match="give its shape"):
        trpexport.bench([path], threads=(1,), min_time=0, min_runs=1, memory=False)
    with pytest.raises(ModelError, match="give its shape"):
        trpexport.decompose(path, RANK)
