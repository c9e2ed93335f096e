"""A bundle: verified at every step, whole or not at all."""

from __future__ import annotations

import json
import resource
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import safetensors.torch
import torch
from torch import nn

from tests.artifact.networks import SHAPE, tiny
from trpexport import bundle
from trpexport.artifact import build, simplify
from trpexport.artifact.build import ExportSettings, export_bundle
from trpexport.artifact.to_onnx import to_onnx
from trpexport.artifact.verification import ReferenceRuns
from trpexport.choose.planner import keep_all, make_plan
from trpexport.errors import ModelError, OutputError, VerificationError
from trpexport.lowrank.schemes import SCHEMES
from trpexport.lowrank.schemes.spatial import Spatial
from trpexport.networks.torch.factorize import factorize
from trpexport.plan import ConvSpec, Plan, read_plan
from trpexport.runtime.session import open_session
from trpexport.runtime.verify import verify_bundle
from trpexport.stages import Stages

QUICK = ExportSettings(verify_seconds=0, simplify=False)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Plan, nn.Module]:
    """A bundle made with every step on."""
    model = tiny()
    plan = make_plan(model, scheme="spatial", criterion="rank:4", input_shape=SHAPE)
    small = factorize(model, plan)
    out = tmp_path_factory.mktemp("made") / "bundle"
    export_bundle(small, plan, out, original=model, settings=ExportSettings(verify_seconds=0.5))
    return out, plan, small


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
    exact = report["equivalence"]
    assert exact["factorized_against_dense"]["output"]["max_error"] < 1e-4
    assert set(exact["onnx_against_torch"]) == {"exported", "simplified", "final"}
    for step in exact["onnx_against_torch"].values():
        assert step["output"]["max_error"] < 1e-4
        assert step["output"]["inputs"] >= 8
    assert report["approximation"]["factorized_against_original"]["output"]["rms_error"] > 1e-3
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
    plan = make_plan(model, scheme="spatial", criterion="rank:4", input_shape=SHAPE)
    settings = ExportSettings(verify_seconds=0, simplify=False, baseline=True)
    out = tmp_path / "out"
    export_bundle(factorize(model, plan), plan, out, original=model, settings=settings)
    assert bundle.read_manifest(out)["baseline"] == bundle.BASELINE
    x = torch.randn(SHAPE)
    baseline = open_session(out / bundle.BASELINE).run({"input": x.numpy()})["output"]
    with torch.no_grad():
        np.testing.assert_allclose(baseline, model(x).numpy(), rtol=1e-4, atol=1e-5)
    report = json.loads((out / bundle.REPORT).read_text())
    assert report["file_bytes"] == (out / bundle.MODEL).stat().st_size


def test_a_network_can_be_exported_as_it_is(tmp_path: Path) -> None:
    model = tiny()
    plan = keep_all(model, input_shape=SHAPE)
    report = export_bundle(model, plan, tmp_path / "plain", settings=QUICK)
    assert report.data["layers_rewritten"] == 0
    assert verify_bundle(tmp_path / "plain").is_equivalent


def test_real_inputs_are_what_is_compared(tmp_path: Path) -> None:
    model = tiny()
    images = np.random.default_rng(0).random((5, *SHAPE[1:]), dtype=np.float32)
    plan = keep_all(model, input_shape=SHAPE)
    export_bundle(model, plan, tmp_path / "out", settings=QUICK, inputs=images)
    with np.load(tmp_path / "out" / bundle.GOLDEN) as golden:
        np.testing.assert_array_equal(golden["input:input"], images)


@pytest.mark.parametrize("shape", [(4, 1, 16, 16), (3, 16, 16), (0, 3, 16, 16)])
def test_inputs_of_a_wrong_shape(tmp_path: Path, shape: tuple[int, ...]) -> None:
    model = tiny()
    plan = keep_all(model, input_shape=SHAPE)
    with pytest.raises(ModelError, match="inputs to verify on"):
        export_bundle(model, plan, tmp_path / "out", settings=QUICK, inputs=np.zeros(shape))
    assert not list(tmp_path.iterdir())


class Broken(Spatial):
    """Pads the wrong dimension: the weights are right, the network is not."""

    name = "broken"

    def factor_specs(self, conv: ConvSpec, rank: int) -> tuple[ConvSpec, ...]:
        first, second = super().factor_specs(conv, rank)
        swapped = ConvSpec(**{**vars(second), "dilation": (1, 2), "padding": (0, 2)})
        return first, swapped if conv.kernel_size == (3, 3) and conv.stride == (2, 2) else second


@pytest.fixture
def broken_scheme() -> Iterator[str]:
    SCHEMES.register("broken", Broken())
    yield "broken"
    del SCHEMES._entries["broken"]


def test_a_wrong_rewrite_is_named_and_nothing_is_written(
    tmp_path: Path, broken_scheme: str
) -> None:
    model = tiny()
    plan = make_plan(model, scheme=broken_scheme, criterion="rank:2", input_shape=SHAPE)
    with pytest.raises(VerificationError, match="conv2 drifts") as caught:
        export_bundle(
            factorize(model, plan), plan, tmp_path / "out", original=model, settings=QUICK
        )
    assert caught.value.exit_code == 4
    assert not list(tmp_path.iterdir())


def test_a_wrong_onnx_file_is_named_and_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = to_onnx

    def tampered(model: nn.Module, shape: Any, path: Path, **options: Any) -> str:
        exporter = written(model, shape, path, **options)
        network = onnx.load(path)
        for tensor in network.graph.initializer:
            if tensor.name == "conv2.weight":
                values = onnx.numpy_helper.to_array(tensor) * np.float32(1.1)
                tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
        onnx.save(network, path)
        return exporter

    monkeypatch.setattr(build, "to_onnx", tampered)
    model = tiny()
    with pytest.raises(VerificationError, match="conv2 drifts: the ONNX file is not"):
        export_bundle(model, keep_all(model, input_shape=SHAPE), tmp_path / "out", settings=QUICK)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("fault", ["crash", "hang", "missing", "wrong", "invalid"])
def test_export_goes_on_without_onnxsim(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    run = subprocess.run

    def faulty(command: list[str], **options: Any) -> Any:
        source, target = Path(command[-2]), Path(command[-1])
        if fault == "hang":
            raise subprocess.TimeoutExpired(command, options["timeout"])
        if fault == "crash":
            return run(["sh", "-c", "echo boom >&2; kill -SEGV $$"], **options)
        network = onnx.load(source)
        if fault == "wrong":
            network.graph.initializer[0].raw_data = bytes(
                len(network.graph.initializer[0].raw_data)
            )
        else:
            del network.graph.node[:]
        onnx.save(network, target)
        return run(["true"], **options)

    if fault == "missing":
        monkeypatch.setattr(simplify, "find_spec", lambda name: None)
    else:
        monkeypatch.setattr(subprocess, "run", faulty)
    model = tiny()
    plan = keep_all(model, input_shape=SHAPE)
    settings = ExportSettings(verify_seconds=0)
    report = export_bundle(model, plan, tmp_path / "out", settings=settings)
    (note,) = report.data["notes"]
    says = {
        "crash": "boom",
        "hang": "more than 120 seconds",
        "missing": "not installed",
        "wrong": "changed the output",
        "invalid": "does not run",
    }
    assert note.startswith("not simplified")
    assert says[fault] in note
    assert verify_bundle(tmp_path / "out").is_equivalent


def test_large_networks_are_exported_in_two_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trpexport.artifact.to_onnx.ONE_FILE_LIMIT", 1)
    model = tiny()
    plan = keep_all(model, input_shape=SHAPE)
    settings = ExportSettings(verify_seconds=0)
    report = export_bundle(model, plan, tmp_path / "out", settings=settings)
    assert "model.onnx.data" in bundle.read_manifest(tmp_path / "out")["files"]
    assert "2 GB" in report.data["notes"][0]
    assert verify_bundle(tmp_path / "out").is_equivalent


def test_an_existing_bundle_is_replaced_only_when_asked(tmp_path: Path) -> None:
    model = tiny()
    plan = keep_all(model, input_shape=SHAPE)
    out = tmp_path / "out"
    export_bundle(model, plan, out, settings=QUICK)
    before = (out / bundle.MANIFEST).read_bytes()
    with pytest.raises(OutputError, match="exists"):
        export_bundle(model, plan, out, settings=QUICK)
    assert (out / bundle.MANIFEST).read_bytes() == before
    export_bundle(
        model,
        plan,
        out,
        settings=ExportSettings(verify_seconds=0, simplify=False, dynamic_batch=True, replace=True),
    )
    assert open_session(out / bundle.MODEL).batch_size is None
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_full_disk_harms_nothing(tmp_path: Path) -> None:
    model = tiny()
    plan = keep_all(model, input_shape=SHAPE)
    out = tmp_path / "out"
    export_bundle(model, plan, out, settings=QUICK)
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises((OutputError, ModelError)):
            export_bundle(
                model,
                plan,
                out,
                settings=ExportSettings(verify_seconds=0, simplify=False, replace=True),
            )
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_trained_factors_stand_for_their_own_products(tmp_path: Path) -> None:
    """Fine-tuned factors are no truncations of anything: no original is asked for or claimed."""
    model = tiny()
    plan = make_plan(model, scheme="spatial", criterion="rank:4", input_shape=SHAPE)
    network = factorize(model, plan)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.01 * torch.randn(parameter.shape))
    report = export_bundle(network, plan, tmp_path / "out", settings=QUICK).data
    assert report["equivalence"]["factorized_against_dense"] is not None
    assert report["approximation"]["factorized_against_original"] is None
    assert report["parameters"]["before"] == sum(p.numel() for p in model.parameters())


def test_inputs_stop_at_the_time_but_not_before_eight() -> None:
    times = iter(range(10_000))
    network = nn.Conv2d(3, 1, 1)
    reference = ReferenceRuns(network, SHAPE, macs=10**9)
    runs = list(reference.runs(0, clock=lambda: float(next(times))))
    assert [len(batch) for batch, _ in runs] == [1, 3, 2, 2]
    reference = ReferenceRuns(network, SHAPE, macs=1)
    runs = list(reference.runs(1e9))
    assert sum(len(batch) for batch, _ in runs) == 1024
    assert not torch.equal(runs[2][0], runs[3][0])
    again = list(reference.runs(1e9))
    for (x, outputs), (same_x, same_outputs) in zip(runs, again, strict=True):
        assert torch.equal(x, same_x)
        assert same_outputs is outputs  # computed once
        with torch.no_grad():
            np.testing.assert_array_equal(outputs["output"], network(x).numpy())


def test_stages_are_announced_and_timed() -> None:
    said: list[str] = []
    stages = Stages(said.append)
    with stages("one"), stages("two"):
        pass
    with pytest.raises(ZeroDivisionError), stages("one"):
        raise ZeroDivisionError
    assert said == ["one", "two", "one"]
    assert set(stages.seconds) == {"one", "two"}
