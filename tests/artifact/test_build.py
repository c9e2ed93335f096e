"""A bundle: verified at every step, whole or not at all."""

from __future__ import annotations

import json
import random
import resource
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from tests.artifact.networks import (
    SHAPE,
    BatchNormed,
    export_modules,
    kept,
    rewritten,
    state_of,
    tiny,
)
from trpexport import bundle
from trpexport.artifact.build import ExportSettings
from trpexport.errors import ModelError, OutputError, VerificationError
from trpexport.golden import read_golden
from trpexport.lowrank.schemes import SCHEMES
from trpexport.lowrank.schemes.spatial import Spatial
from trpexport.ops import LinearOp
from trpexport.plan import Plan, read_plan
from trpexport.runtime.session import open_session
from trpexport.runtime.verify import verify_bundle
from trpexport.stages import Stages

QUICK = ExportSettings(17, legacy_exporter=True, verify_seconds=0, simplify=False)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Plan, nn.Module]:
    """A bundle made with every step on."""
    model = tiny()
    small = rewritten(model)
    out = tmp_path_factory.mktemp("made") / "bundle"
    settings = ExportSettings(verify_seconds=0.5)
    export_modules(small.module, small.plan, out, original=model, settings=settings)
    return out, small.plan, small.module


@pytest.mark.parametrize(
    ("given", "inputs"), [(False, "random inputs"), (True, "the inputs given")]
)
def test_outputs_that_never_vary_are_noted(tmp_path: Path, given: bool, inputs: str) -> None:
    still = nn.Sequential(tiny(), nn.Hardtanh(1e6, 2e6)).eval()  # a million, whatever comes
    x = np.random.default_rng(0).random((9, *SHAPE[1:]), dtype=np.float32) if given else None
    found = export_modules(still, kept(still), tmp_path / "b", settings=QUICK, inputs=x)
    assert found.data["steps"][-1]["outputs"]["output"]["varies"] is False
    (note,) = found.data["notes"]
    assert f"output does not vary over {inputs}" in note


def test_a_bundle_is_complete(made: tuple[Path, Plan, nn.Module]) -> None:
    out, plan, small = made
    assert {path.name for path in out.iterdir()} == {
        bundle.MODEL,
        bundle.WEIGHTS,
        bundle.PLAN,
        bundle.GOLDEN,
        bundle.REPORT,
        bundle.MANIFEST,
    }
    manifest = bundle.read_manifest(out)
    assert set(manifest["files"]) == {path.name for path in out.iterdir()} - {bundle.MANIFEST}
    assert manifest["opset"] == 18
    assert manifest["versions"]["torch"] == torch.__version__
    assert verify_bundle(out).is_equivalent
    assert read_plan(out / bundle.PLAN).macs_after == plan.macs_after
    weights = safetensors.torch.load_file(out / bundle.WEIGHTS)
    assert weights.keys() == small.state_dict().keys()
    onnx.checker.check_model(str(out / bundle.MODEL), full_check=True)


def test_the_report_keeps_the_two_comparisons_apart(made: tuple[Path, Plan, nn.Module]) -> None:
    report = json.loads((made[0] / bundle.REPORT).read_text())
    assert report["schema_version"] == 3
    decompose, *steps = report["steps"]
    assert decompose["claim"] == {"kind": "approximate", "tolerance": None}
    assert decompose["outputs"]["output"]["rms_error"] > 1e-3
    assert [step["name"] for step in steps] == ["rewrite", "export", "simplify", "annotate"]
    for step in steps:
        tolerance = {"max_error": 1e-3, "rms_error": 1e-4, "agreement": 0.999}
        assert step["claim"] == {"kind": "equivalent", "tolerance": tolerance}
        assert step["outputs"]["output"]["max_error"] < 1e-4
        assert step["outputs"]["output"]["inputs"] >= 8
        assert step["seconds"] > 0
        assert step["note"] is None
    rewritten = [layer for layer in report["layers"] if layer["scheme"]]
    assert [layer["name"] for layer in rewritten] == ["conv1", "conv2", "conv3"]
    assert all(layer["equivalence_error"] < 1e-9 for layer in rewritten)
    assert set(report["seconds"]) >= {"verify the rewrite", "export to ONNX", "simplify"}


def test_the_file_says_where_it_comes_from(made: tuple[Path, Plan, nn.Module]) -> None:
    props = {p.key: p.value for p in onnx.load(made[0] / bundle.MODEL).metadata_props}
    assert json.loads(props["trpexport.ranks"])["conv1"] == ["spatial", 4]
    assert props["trpexport.criterion"] == "rank:4"


def test_a_bundle_may_hold_its_baseline(tmp_path: Path) -> None:
    model = tiny()
    small = rewritten(model)
    settings = replace(QUICK, baseline=True)
    out = tmp_path / "out"
    export_modules(small.module, small.plan, out, original=model, settings=settings)
    assert bundle.read_manifest(out)["baseline"] == bundle.BASELINE
    x = torch.randn(SHAPE)
    baseline = open_session(out / bundle.BASELINE).run({"input": x.numpy()})["output"]
    with torch.no_grad():
        np.testing.assert_allclose(baseline, model(x).numpy(), rtol=1e-4, atol=1e-5)
    report = json.loads((out / bundle.REPORT).read_text())
    assert report["file_bytes"] == (out / bundle.MODEL).stat().st_size


def test_a_network_can_be_exported_as_it_is(tmp_path: Path) -> None:
    model = tiny()
    plan = kept(model)
    report = export_modules(model, plan, tmp_path / "plain", settings=QUICK)
    assert report.data["layers_rewritten"] == 0
    assert verify_bundle(tmp_path / "plain").is_equivalent


def test_real_inputs_are_what_is_compared(tmp_path: Path) -> None:
    model = tiny()
    images = np.random.default_rng(0).random((5, *SHAPE[1:]), dtype=np.float32)
    plan = kept(model)
    export_modules(model, plan, tmp_path / "out", settings=QUICK, inputs=images)
    with np.load(tmp_path / "out" / bundle.GOLDEN) as golden:
        np.testing.assert_array_equal(golden["input:input"], images)


@pytest.mark.parametrize("shape", [(4, 1, 16, 16), (3, 16, 16), (0, 3, 16, 16)])
def test_inputs_of_a_wrong_shape(tmp_path: Path, shape: tuple[int, ...]) -> None:
    model = tiny()
    plan = kept(model)
    with pytest.raises(ModelError, match="inputs to verify on"):
        export_modules(model, plan, tmp_path / "out", settings=QUICK, inputs=np.zeros(shape))
    assert not list(tmp_path.iterdir())


class Broken(Spatial):
    """Pads the wrong dimension: the weights are right, the network is not."""

    name = "broken"

    def factor_ops(self, op: LinearOp, rank: int) -> tuple[LinearOp, ...]:
        first, second = super().factor_ops(op, rank)
        wider = replace(second.window, dilation=(1, 2), pads=((0, 0), (2, 2)))
        return first, replace(second, window=wider) if op.window.stride == (2, 2) else second


@pytest.fixture
def broken_scheme() -> Iterator[str]:
    SCHEMES.register("broken", Broken())
    yield "broken"
    del SCHEMES._entries["broken"]


def test_a_wrong_rewrite_is_named_and_nothing_is_written(
    tmp_path: Path, broken_scheme: str
) -> None:
    model = tiny()
    made = rewritten(model, scheme=broken_scheme, criterion="rank:2")
    with pytest.raises(VerificationError, match="conv2 drifts") as caught:
        export_modules(made.module, made.plan, tmp_path / "out", original=model, settings=QUICK)
    assert caught.value.exit_code == 4
    assert not list(tmp_path.iterdir())


def test_large_networks_are_exported_in_two_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trpexport.networks.torch.to_onnx.ONE_FILE_LIMIT", 1)
    model = tiny()
    plan = kept(model)
    settings = ExportSettings(verify_seconds=0)
    report = export_modules(model, plan, tmp_path / "out", settings=settings)
    assert "model.onnx.data" in bundle.read_manifest(tmp_path / "out")["files"]
    assert "2 GB" in report.data["notes"][0]
    assert verify_bundle(tmp_path / "out").is_equivalent


def test_an_existing_bundle_is_replaced_only_when_asked(tmp_path: Path) -> None:
    model = tiny()
    plan = kept(model)
    out = tmp_path / "out"
    export_modules(model, plan, out, settings=QUICK)
    before = (out / bundle.MANIFEST).read_bytes()
    with pytest.raises(OutputError, match="exists"):
        export_modules(model, plan, out, settings=QUICK)
    assert (out / bundle.MANIFEST).read_bytes() == before
    anew = replace(QUICK, dynamic_batch=True, replace=True)
    export_modules(model, plan, out, settings=anew)
    assert open_session(out / bundle.MODEL).batch_size is None
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_full_disk_harms_nothing(tmp_path: Path) -> None:
    model = tiny()
    plan = kept(model)
    out = tmp_path / "out"
    export_modules(model, plan, out, settings=QUICK)
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises((OutputError, ModelError)):
            export_modules(model, plan, out, settings=replace(QUICK, replace=True))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_trained_factors_stand_for_their_own_products(tmp_path: Path) -> None:
    """Fine-tuned factors are no truncations of anything: no original is asked for or claimed."""
    model = tiny()
    made = rewritten(model)
    network, plan = made.module, made.plan
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.01 * torch.randn(parameter.shape))
    report = export_modules(network, plan, tmp_path / "out", settings=QUICK).data
    assert [step["name"] for step in report["steps"]] == ["rewrite", "export", "annotate"]
    assert report["parameters"]["before"] == sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("legacy", [False, True])
def test_everything_is_left_as_it_was(tmp_path: Path, legacy: bool) -> None:
    model = tiny()
    made = rewritten(model)
    small, plan = made.module, made.plan
    for network in (model, small):
        network.train().get_submodule("bn").eval()  # a frozen norm in a network that trains
        network.requires_grad_(False)
    before = state_of(model), state_of(small)

    def draw() -> tuple[object, ...]:
        return random.random(), float(np.random.rand()), float(torch.rand(1))

    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    drawn = draw()
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    settings = ExportSettings(verify_seconds=0, baseline=True, legacy_exporter=legacy)
    export_modules(small, plan, tmp_path / "out", original=model, settings=settings)
    assert draw() == drawn
    assert (state_of(model), state_of(small)) == before


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("batch", [1, 4])
def test_a_network_that_depends_on_its_batch_is_compared_at_its_own(
    tmp_path: Path, batch: int, dynamic: bool
) -> None:
    model = BatchNormed().eval()
    made = rewritten(model, (batch, 3, 8, 8), include=["conv"], criterion="rank:2")
    small, plan = made.module, made.plan
    settings = ExportSettings(verify_seconds=0, legacy_exporter=not dynamic, dynamic_batch=dynamic)
    out = tmp_path / "out"
    report = export_modules(small, plan, out, original=model, settings=settings).data
    (note,) = report["notes"]
    assert f"depends on the others in its batch: verified at a batch size of {batch} alone" in note
    assert [step["outputs"]["output"]["inputs"] for step in report["steps"]] == [8] * 5
    assert len(read_golden(out / bundle.GOLDEN).inputs["input"]) == batch
    assert verify_bundle(out).is_equivalent
    x = torch.randn(batch, 3, 8, 8)
    with torch.no_grad():
        expected = small(x).numpy()
    actual = open_session(out / bundle.MODEL).run({"input": x.numpy()})["output"]
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5)


def test_whole_batches_of_real_inputs_are_compared(tmp_path: Path) -> None:
    model = BatchNormed().eval()
    plan = kept(model, (4, 3, 8, 8))
    images = np.random.default_rng(0).random((10, 3, 8, 8), dtype=np.float32)
    settings = replace(QUICK, verify_seconds=1)
    report = export_modules(model, plan, tmp_path / "out", settings=settings, inputs=images).data
    assert report["steps"][-1]["outputs"]["output"]["inputs"] == 8
    with pytest.raises(ModelError, match="3 inputs to verify on are not enough: give at least 4"):
        export_modules(model, plan, tmp_path / "more", settings=settings, inputs=images[:3])


HALF_SHAPE = (1, 3, 8, 8)


class Half(nn.Module):
    """Two convolutions; its forward asks for the type of its weights, or insists on half."""

    def __init__(self, dtype: torch.dtype | None = None) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1)
        self.conv2 = nn.Conv2d(16, 16, 3, padding=1)
        self.dtype = dtype

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv2(self.conv1(x.to(self.dtype or x.dtype)).relu())
        return y


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_exported_in_float32(tmp_path: Path, dtype: torch.dtype) -> None:
    model = Half().eval().to(dtype)
    before = state_of(model)
    out = tmp_path / "out"
    report = export_modules(model, kept(Half(), HALF_SHAPE), out, settings=QUICK).data
    assert state_of(model) == before
    name = str(dtype).removeprefix("torch.")
    assert report["notes"] == [f"the network is in {name}: verified and written in float32"]
    tensors = onnx.load(out / bundle.MODEL).graph.initializer
    assert {tensor.data_type for tensor in tensors} == {onnx.TensorProto.FLOAT}
    weights = safetensors.torch.load_file(out / bundle.WEIGHTS)
    for key, value in model.state_dict().items():
        assert torch.equal(weights[key], value.float())
    assert verify_bundle(out).is_equivalent


def test_factors_of_a_network_in_half_precision_are_truncations_in_float32(tmp_path: Path) -> None:
    model = Half().eval().half()
    made = rewritten(model, HALF_SHAPE, criterion="rank:2", include=["conv*"])
    settings = replace(QUICK, baseline=True)
    report = made.export(tmp_path / "out", settings=settings).data
    assert all(row["factor_error"] < 1e-6 for row in report["layers"] if row["scheme"])
    assert report["steps"][0]["name"] == "decompose"
    assert verify_bundle(tmp_path / "out").is_equivalent


def test_factors_that_were_rounded_to_half_precision_stand_for_their_own_products(
    tmp_path: Path,
) -> None:
    model = Half().eval().half()
    made = rewritten(model, HALF_SHAPE, criterion="rank:2", include=["conv*"])
    small = made.module
    assert {parameter.dtype for parameter in small.parameters()} == {torch.float16}
    out = tmp_path / "out"
    report = export_modules(small, made.plan, out, original=model, settings=QUICK).data
    assert [step["name"] for step in report["steps"]][:2] == ["decompose", "rewrite"]
    assert verify_bundle(out).is_equivalent
    chain = small.get_submodule("conv2")
    chain.get_submodule("0").padding, chain.get_submodule("1").padding = (0, 1), (1, 0)  # type: ignore[assignment]
    with pytest.raises(VerificationError, match="conv2 drifts"):
        export_modules(small, made.plan, tmp_path / "wrong", original=model, settings=QUICK)


def test_a_network_that_runs_in_half_precision_only_is_refused_before_any_work(
    tmp_path: Path,
) -> None:
    model = Half(torch.float16).eval().half()
    plan = kept(Half(), HALF_SHAPE)
    said: list[str] = []
    with pytest.raises(ModelError, match=r"can't run an input of shape 1x3x8x8") as caught:
        export_modules(model, plan, tmp_path / "out", settings=QUICK, stages=Stages(said.append))
    assert "\n" not in str(caught.value)
    assert not said
    assert not list(tmp_path.iterdir())


def test_stages_are_announced_and_timed() -> None:
    said: list[str] = []
    stages = Stages(said.append)
    with stages("one"), stages("two"):
        pass
    with pytest.raises(ZeroDivisionError), stages("one"):
        raise ZeroDivisionError
    assert said == ["one", "two", "one"]
    assert set(stages.seconds) == {"one", "two"}
