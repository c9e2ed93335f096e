"""An ONNX file through the whole job, by API and by CLI; broken ones in one line."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn
from typer.testing import CliRunner

import trpexport as tx
from cli.app import application
from tests.conftest import Run
from trpexport.errors import ModelError, NothingToDoError, PlanError, TrpexportError
from trpexport.networks.onnx.reading import read_model
from trpexport.networks.onnx_settings import OnnxSettings
from trpexport.networks.torch.network import TorchNetwork
from trpexport.runtime.verify import verify_bundle

SHAPE = (1, 3, 12, 12)
CHOOSER = tx.ByCriterion("spatial", "rank:4")


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(),
        nn.Conv2d(16, 16, 3, padding=1, stride=2, bias=False), nn.BatchNorm2d(16), nn.ReLU(),
        nn.Conv2d(16, 24, 3, padding=1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(24, 5),
    ).eval()  # fmt: skip


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("onnx") / "net.onnx"
    settings = OnnxSettings(opset=13, dynamic_batch=True, legacy_exporter=True)
    TorchNetwork(network(), SHAPE).write_onnx(path, settings)
    model = onnx.load(path)
    for names in (node.input for node in model.graph.node):
        names[:] = ["image" if name == "input" else name for name in names]
    model.graph.input[0].name = "image"
    onnx.save(model, path)
    return path


def test_an_onnx_file_gives_what_its_module_gives(file: Path, tmp_path: Path) -> None:
    ours, theirs = tx.decompose(file, CHOOSER), tx.decompose(network(), CHOOSER, example=SHAPE)
    assert (
        [x.rank for x in ours.plan.rewritten] == [x.rank for x in theirs.plan.rewritten] == [4, 4]
    )
    assert ours.plan.macs_after == theirs.plan.macs_after
    x = np.random.default_rng(0).standard_normal((3, *SHAPE[1:])).astype(np.float32)
    (expected,) = theirs.network.run({"input": x}).values()
    scores = ours.network.run({"image": x})["output"]
    assert np.abs(scores - expected).max() <= 1e-4 * np.abs(expected).max()


def test_a_file_with_its_norms_apart_has_the_ranks_of_the_checkpoint(
    run: Run, tmp_path: Path
) -> None:
    model = network()
    for norm in (m for m in model.modules() if isinstance(m, nn.BatchNorm2d)):
        nn.init.uniform_(norm.weight, 0.1, 3.0)  # other scales, other spectra
    torch.save(model.state_dict(), tmp_path / "w.pt")
    dense = ("export", tmp_path / "w.pt", "--model", "tests.test_onnx_files:network")
    shape = ("--input-shape", "1x3x12x12", "--verify-seconds", "0")
    chooser, ranks = tx.ByCriterion("spatial", "energy:0.8"), {}
    for name, how in (("apart", ["--keep-norms"]), ("folded", ["--legacy-exporter"])):
        result = run(*dense, *shape, *how, "-o", tmp_path / name)
        assert result.code == 0, result.err
        small = tx.decompose(
            tmp_path / name / "model.onnx", tx.ByCriterion("spatial", "energy:0.8")
        )
        ranks[name] = [layer.rank for layer in small.plan.layers]
    theirs = tx.decompose(model, chooser, example=SHAPE)
    assert ranks["apart"] == [layer.rank for layer in theirs.plan.layers] != ranks["folded"]
    refused = run(*dense, *shape, "--keep-norms", "--simplify", "-o", tmp_path / "other")
    assert "--simplify does nothing beside --keep-norms" in refused.error


def test_the_bundle_says_what_it_was_made_of(file: Path, tmp_path: Path) -> None:
    report = tx.export(
        tx.decompose(file, CHOOSER), tmp_path / "out", baseline=True, verify_seconds=0
    )
    names = {each.name for each in report.path.iterdir()}
    assert "model.safetensors" not in names
    assert {"model.onnx", "baseline.onnx", "plan.json", "golden.npz", "report.json"} <= names
    manifest = json.loads((report.path / "manifest.json").read_text())
    assert manifest["source"]["file"] == "net.onnx"
    assert len(manifest["source"]["sha256"]) == 64
    assert (manifest["exporter"], manifest["opset"], manifest["dynamic_batch"]) == (
        "onnx-ir", 13, True,
    )  # fmt: skip
    assert verify_bundle(report.path).is_equivalent
    old, new = onnx.load(file), onnx.load(report.path / "baseline.onnx")
    assert old.graph == new.graph
    steps = [step["name"] for step in report.data["steps"]]
    assert steps == ["decompose", "rewrite", "export", "annotate"]


def test_onnxsim_runs_where_it_is_asked_for(file: Path, tmp_path: Path) -> None:
    report = tx.export(
        tx.decompose(file, CHOOSER), tmp_path / "out", simplify=True, verify_seconds=0
    )
    assert "simplify" in [step["name"] for step in report.data["steps"]]


def test_commands_take_an_onnx_file(file: Path, tmp_path: Path) -> None:
    def run(*words: str) -> str:
        result = CliRunner().invoke(application(), list(words))
        assert result.exit_code == 0, result.output
        return result.stdout

    out = tmp_path / "out"
    found = json.loads(run("inspect", str(file), "--json"))
    assert found["architecture"] == "net"
    run("decompose", str(file), "--criterion", "rank:4", "--out", str(out), "--verify-seconds", "1")
    run("verify", str(out))
    run("flops", str(out))


@pytest.mark.parametrize("words", [
    ("decompose", "--arch", "resnet20"), ("decompose", "--model", "a:b"),
    ("decompose", "--unsafe-pickle"), ("decompose", "--opset", "17"), ("inspect", "--model", "a:b"),
    ("decompose", "--dynamic-batch"),
])  # fmt: skip
def test_what_says_how_a_checkpoint_is_read_is_refused(file: Path, words: tuple[str, ...]) -> None:
    result = CliRunner().invoke(application(), [words[0], str(file), *words[1:]])
    assert isinstance(result.exception, TrpexportError)
    assert "does nothing for an ONNX file: leave it out" in str(result.exception)


def test_an_onnx_file_needs_no_export(file: Path) -> None:
    result = CliRunner().invoke(application(), ["export", str(file)])
    assert "is an ONNX file, which needs no export" in str(result.exception)
    with pytest.raises(PlanError, match="which needs no export"):
        tx.export(file, "out")


def broken(kind: str, file: Path, folder: Path) -> Path:
    model, path = onnx.load(file), folder / "broken.onnx"
    graph = model.graph
    if kind == "cycle":
        graph.node[0].input[0] = graph.node[1].output[0]
    elif kind == "missing initializer":
        del graph.initializer[0]
    elif kind == "wrong shape":
        graph.initializer[0].CopyFrom(
            numpy_helper.from_array(np.ones((7, 5, 3, 3), np.float32), graph.initializer[0].name)
        )
    elif kind == "outside":
        tensor = graph.initializer[0]
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value="../outside.bin")
    elif kind == "cut weights":
        graph.initializer[0].raw_data = graph.initializer[0].raw_data[:-8]
    elif kind == "no graph":
        model.ClearField("graph")
    path.write_bytes(model.SerializeToString())
    return path


@pytest.mark.parametrize("kind", [
    "cycle", "missing initializer", "wrong shape", "outside", "cut weights", "no graph",
])  # fmt: skip
def test_a_broken_file_is_one_clear_line(kind: str, file: Path, tmp_path: Path) -> None:
    path = broken(kind, file, tmp_path)
    with pytest.raises(TrpexportError) as caught:
        tx.export(tx.decompose(path, CHOOSER), tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_damaged_bytes_are_one_clear_line(file: Path, tmp_path: Path) -> None:
    content, draw = file.read_bytes(), random.Random(0)
    path = tmp_path / "damaged.onnx"
    for length in (0, 1, 50, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:length])
        with pytest.raises(TrpexportError) as caught:
            tx.decompose(path, CHOOSER)
        assert "\n" not in str(caught.value)
    for _ in range(20):
        damaged = bytearray(content)
        for place in draw.sample(range(200), 3):
            damaged[place] = draw.randrange(256)
        path.write_bytes(damaged)
        try:
            tx.decompose(path, CHOOSER)
        except TrpexportError as error:
            assert "\n" not in str(error)


def test_weights_in_another_file_are_mapped_and_come_along(file: Path, tmp_path: Path) -> None:
    path = tmp_path / "outside.onnx"
    onnx.save(onnx.load(file), path, save_as_external_data=True, size_threshold=0)
    report = tx.export(tx.decompose(path, CHOOSER), tmp_path / "out", verify_seconds=0)
    assert verify_bundle(report.path).is_equivalent
    assert not list(report.path.glob("*.data"))
    (tmp_path / next(p.name for p in tmp_path.iterdir() if p.suffix not in (".onnx", ""))).unlink()
    with pytest.raises(ModelError, match="which is missing"):
        read_model(path)


def test_an_open_size_must_be_given(tmp_path: Path) -> None:
    weight = numpy_helper.from_array(np.ones((4, 3, 3, 3), np.float32), "w")
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", "w"], ["y"])], "net",
        [value("x", TensorProto.FLOAT, ["n", 3, "h", "w_"])],
        [value("y", TensorProto.FLOAT, [None] * 4)], [weight],
    )  # fmt: skip
    path = tmp_path / "open.onnx"
    onnx.save(helper.make_model(graph), path)
    with pytest.raises(ModelError, match="give its shape, as in x=1x3x224x224"):
        tx.decompose(path, CHOOSER)
    with pytest.raises(NothingToDoError):
        tx.decompose(path, CHOOSER, example=(1, 3, 8, 8))


def test_an_output_that_never_varies_proves_little(tmp_path: Path) -> None:
    last = nn.Conv2d(16, 4, 3)
    nn.init.constant_(last.get_parameter("bias"), -100.0)
    model = nn.Sequential(nn.Conv2d(3, 16, 3), nn.Conv2d(16, 16, 3), last, nn.ReLU())
    path = tmp_path / "still.onnx"
    TorchNetwork(model, SHAPE).write_onnx(path, OnnxSettings(17, legacy_exporter=True))
    small = tx.decompose(path, CHOOSER)
    said = "output does not vary over random inputs"
    report = tx.export(small, tmp_path / "out", verify_seconds=0)
    assert any(said in note for note in report.data["notes"])
    real = np.random.default_rng(0).standard_normal((8, *SHAPE[1:])).astype(np.float32)
    report = tx.export(small, tmp_path / "other", inputs=real, verify_seconds=0)
    assert not any(said in note for note in report.data["notes"])
