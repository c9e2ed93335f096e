"""The pass that has an older ONNX Runtime read the file, on its way into a bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
import pytest

from tests.artifact.networks import export_modules, kept, tiny
from trpexport import bundle
from trpexport.artifact.build import ExportSettings
from trpexport.errors import ModelError, VerificationError
from trpexport.onnxfile.targets import Target, opset_of
from trpexport.runtime.session import open_session

QUICK: dict[str, Any] = {"simplify": False, "verify_seconds": 0}


@pytest.mark.parametrize("version", ["1.12", "1.16"])
@pytest.mark.parametrize("precision", ["fp16", "int8-dynamic"])
def test_every_file_of_a_bundle_is_what_the_target_reads(
    tmp_path: Path, version: str, precision: str
) -> None:
    settings = ExportSettings(target_ort=version, precisions=[precision], baseline=True, **QUICK)
    model = tiny()
    report = export_modules(model, kept(model), tmp_path / "out", settings=settings).data
    manifest = bundle.read_manifest(tmp_path / "out")
    target = Target.of(version)
    for path in (tmp_path / "out").glob("*.onnx"):
        file = onnx.load(path)
        assert opset_of(file) <= target.opset
        assert file.ir_version <= target.ir_version
    told = {"onnxruntime": version, "opset": min(18, target.opset), "ir_version": target.ir_version}
    assert manifest["target"] == report["target"] == told
    assert manifest["variants"][precision]["target"] == told
    assert manifest["opset"] == told["opset"]
    assert "lower" in [step["name"] for step in report["steps"]]


class Elsewhere:
    """Another version that runs files as this one does, or is off by a share."""

    version = "1.16.3"

    def __init__(self, off: float = 0.0) -> None:
        self.off = off
        self.ran: list[str] = []

    def __str__(self) -> str:
        return f"onnxruntime {self.version}"

    def run(self, path: Path, inputs: Any) -> Any:
        self.ran.append(path.name)
        outputs = open_session(path).run(inputs)
        return {name: array * (1 + self.off) for name, array in outputs.items()}


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> Elsewhere:
    found = Elsewhere()
    for where in ("trpexport.artifact.settings", "trpexport.artifact.targets"):
        monkeypatch.setattr(f"{where}.installed", lambda _: found)
    return found


def test_files_are_run_in_the_target_and_compared(tmp_path: Path, elsewhere: Elsewhere) -> None:
    settings = ExportSettings(
        target_ort="1.16", check_target=True, precisions=["fp16"], dynamic_batch=True, **QUICK
    )
    model, out = tiny(), tmp_path / "out"
    report = export_modules(model, kept(model), out, settings=settings).data
    assert elsewhere.ran == ["model.onnx", "model.fp16.onnx"]
    assert report["target"]["checked"] == "1.16.3"
    outputs = bundle.read_manifest(out)["variants"]["fp16"]["target"]["outputs"]
    assert [0 < found["rms_error"] < 0.01 for found in outputs.values()] == [True]


def test_a_file_that_computes_something_else_there_is_not_written(
    tmp_path: Path, elsewhere: Elsewhere
) -> None:
    elsewhere.off = 0.01
    settings = ExportSettings(target_ort="1.16", check_target=True, dynamic_batch=True, **QUICK)
    model = tiny()
    with pytest.raises(VerificationError, match=r"something else in onnxruntime 1\.16\.3"):
        export_modules(model, kept(model), tmp_path / "out", settings=settings)
    assert not list(tmp_path.iterdir())


def test_an_operator_set_that_the_target_does_not_read_is_refused_first() -> None:
    with pytest.raises(ModelError, match="operator sets up to 19, not 20"):
        ExportSettings(20, target_ort="1.16").check(has_images=False)
    assert ExportSettings(target_ort="1.12").onnx().opset == 17
    assert ExportSettings(13, target_ort="1.16").onnx().opset == 13
