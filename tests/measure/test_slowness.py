"""Why networks of fewer bits are slower."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.quantization.networks import classifier, images
from trpexport.measure.settings import BenchSettings, ModelFile
from trpexport.measure.slowness import explained, why_slow
from trpexport.quantization.dynamic import quantize_dynamic
from trpexport.quantization.half import FLOAT16, convert
from trpexport.quantization.settings import QuantizationSettings
from trpexport.quantization.static import quantize_static
from trpexport.runtime.kernels import Kernels

Write = Callable[..., Path]
SETTINGS = QuantizationSettings(calibration={"x": images(40)})


@pytest.fixture
def source(write_onnx: Write) -> Path:
    return classifier(write_onnx, trap=True)


def test_nothing_is_said_of_float32_and_of_what_is_no_network(source: Path, tmp_path: Path) -> None:
    (tmp_path / "other.onnx").write_bytes(b"no network")
    assert why_slow(source, "cpu") is None
    assert why_slow(tmp_path / "other.onnx", "cpu") is None


@pytest.mark.parametrize("has_kernels", [False, True])
def test_missing_kernels_are_named(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_kernels: bool
) -> None:
    convert(source, tmp_path / "half.onnx", FLOAT16, SETTINGS)
    kernels = Kernels({("", "Conv"): ((1, 99),)} if has_kernels else {})
    monkeypatch.setattr("trpexport.measure.slowness.kernels_of", lambda *_: kernels)
    reason = why_slow(tmp_path / "half.onnx", "cpu")
    if has_kernels:
        assert reason is None
    else:
        assert str(reason).startswith("CPUExecutionProvider has no float16 kernels on this machine")


def test_ranges_that_are_found_in_each_run_are_named(source: Path, tmp_path: Path) -> None:
    quantize_dynamic(source, tmp_path / "dynamic.onnx", SETTINGS)
    assert "found anew in each run" in str(why_slow(tmp_path / "dynamic.onnx", "cpu"))


@pytest.mark.parametrize(
    ("max_error", "says"),
    [(None, "operators in 8 bits has so little to do"), (0.3, "are computed in float32, ")],
)
def test_what_is_not_in_8_bits_is_counted(
    write_onnx: Write, tmp_path: Path, max_error: float | None, says: str
) -> None:
    source = classifier(write_onnx, trap=max_error is not None)
    file = tmp_path / "int8.onnx"
    quantize_static(source, file, QuantizationSettings({"x": images(80)}, max_error=max_error))
    assert says in str(why_slow(file, "cpu"))


def test_the_slower_ones_of_a_record_have_a_reason(source: Path, tmp_path: Path) -> None:
    file = tmp_path / "dynamic.onnx"
    quantize_dynamic(source, file, SETTINGS)
    settings = BenchSettings((ModelFile(str(source), "a"), ModelFile(str(file), "b")))

    def entry(verdict: str | None) -> dict[str, Any]:
        return {"ratio": None if verdict is None else {"verdict": verdict}}

    record = {"results": [{"models": [entry(None), entry(v)]} for v in ("faster", "slower")]}
    told = explained(record, settings)
    reasons = [[one.get("reason") for one in result["models"]] for result in told["results"]]
    assert reasons == [[None, None], [None, "the range of every tensor is found anew in each run"]]
    assert "reason" not in record["results"][1]["models"][1]
