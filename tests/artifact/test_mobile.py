"""Bundles and files in ONNX Runtime's own format."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from tests.artifact.networks import export_modules, kept, tiny
from trpexport import bundle
from trpexport.artifact import mobile
from trpexport.artifact.build import ExportSettings
from trpexport.conversion import Conversion
from trpexport.errors import ModelError, OccupiedError, TrpexportError, VerificationError
from trpexport.onnxfile.counting import count_onnx
from trpexport.onnxfile.external_data import external_files
from trpexport.runtime.ort_format import write_ort
from trpexport.runtime.session import open_session
from trpexport.runtime.verify import verify_bundle

QUICK: dict[str, Any] = {"simplify": False, "verify_seconds": 0}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle with what is written of it for phones."""
    out = tmp_path_factory.mktemp("mobile") / "net"
    settings = ExportSettings(precisions=["int8-dynamic"], formats=["ort"], **QUICK)
    model = tiny()
    export_modules(model, kept(model), out, settings=settings)
    return out


@pytest.mark.parametrize(
    ("name", "file"), [("ort", "model.ort"), ("int8-dynamic-ort", "model.int8-dynamic.ort")]
)
def test_a_file_for_phones_is_a_variant(made: Path, name: str, file: str) -> None:
    manifest = bundle.read_manifest(made)
    entry = manifest["variants"][name]
    assert (entry["file"], entry["facts"]["made_of"]) == (file, file.replace(".ort", ".onnx"))
    assert {file, bundle.OPERATORS} <= manifest["files"].keys()
    path, _ = bundle.locate(made.with_name(f"net@{name}"))
    assert bundle.label_of(path) == f"net@{name}"
    assert verify_bundle(made.with_name(f"net@{name}")).is_equivalent
    assert bundle.other_files(made) == []


def test_it_computes_what_it_was_made_of(made: Path) -> None:
    one, other = (open_session(made / f"model.{ending}") for ending in ("onnx", "ort"))
    inputs = one.random_inputs(1)
    for name, array in one.run(inputs).items():
        assert other.run(inputs)[name] == pytest.approx(array, abs=1e-5)


def test_the_operators_that_a_build_needs_are_those_of_all_such_files(made: Path) -> None:
    first, *lines = (made / bundle.OPERATORS).read_text().splitlines()
    assert first == "# Generated from model.int8-dynamic.ort, model.ort"
    found = {
        (domain, name)
        for domain, opset, names in (line.split(";") for line in lines)
        for name in names.split(",")
        if opset.isdigit()
    }
    # A convolution and its activation are one operator of ONNX Runtime's own.
    assert {("com.microsoft", "FusedConv"), ("ai.onnx", "ConvInteger")} <= found


def test_a_file_that_computes_something_else_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = write_ort

    def tampered(source: Path, target: Path) -> None:
        model = onnx.load(source)
        weights = max(model.graph.initializer, key=lambda one: len(one.raw_data))
        values = onnx.numpy_helper.to_array(weights) * np.float32(1.1)
        weights.CopyFrom(onnx.numpy_helper.from_array(values, weights.name))
        other = source.with_name("other.onnx")
        onnx.save(model, other)
        write(other, target)

    monkeypatch.setattr(mobile, "write_ort", tampered)
    model, settings = tiny(), ExportSettings(formats=["ort"], **QUICK)
    with pytest.raises(VerificationError, match=r"model\.ort does not compute what model\.onnx"):
        export_modules(model, kept(model), tmp_path / "out", settings=settings)
    assert not list(tmp_path.iterdir())


def test_a_standing_file_is_written_so(made: Path, tmp_path: Path) -> None:
    settings = ExportSettings(precisions=["fp32"], formats=["ort"], verify_seconds=0)
    found = Conversion(settings)(made / bundle.MODEL, tmp_path / "new")
    assert found.paths == {"ort": tmp_path / "new" / "model.ort"}
    files = sorted(path.name for path in (tmp_path / "new").iterdir())
    assert files == ["model.ort", "model.required_operators.config"]
    both = ExportSettings(precisions=["fp16"], formats=["ort"], verify_seconds=0)
    found = Conversion(both)(made / bundle.MODEL, tmp_path / "other")
    assert [path.name for path in found.paths.values()] == ["model.fp16.onnx", "model.fp16.ort"]
    with pytest.raises(TrpexportError, match="can't hold fp16 and fp16-ort: name a directory"):
        Conversion(both)(made / bundle.MODEL, tmp_path / "one.onnx")
    with pytest.raises(OccupiedError, match="has ort already"):
        Conversion(settings)(made)


@pytest.mark.parametrize("use", [count_onnx, Conversion(ExportSettings(precisions=["fp16"]))])
def test_where_a_graph_is_needed_it_says_which_file_has_it(
    made: Path, use: Callable[..., Any]
) -> None:
    options: dict[str, Any] = {"shapes": {}} if use is count_onnx else {}
    with pytest.raises(ModelError, match=r"can be run and nothing else: name the \.onnx file"):
        use(made / "model.ort", **options)
    assert external_files(made / "model.ort") == ()


def test_an_unknown_format_is_refused_first() -> None:
    with pytest.raises(TrpexportError, match="unknown format 'tflite': choose from onnx, ort"):
        ExportSettings(formats=["tflite"]).check(has_images=False)
