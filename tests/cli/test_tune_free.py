"""``trpexport tune --precision free`` as it is typed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.conftest import Chained
from tests.conftest import Run
from tests.latency.networks import FakeStopwatch


@pytest.fixture
def typed(
    chained: Chained, smooth_tensors: Callable[[int], str], tmp_path: Path
) -> tuple[object, ...]:
    """What makes a bundle, but for the limit."""
    quick = ("--scheme", "channel", "--rank-multiple", 4, "--verify-seconds", 0)
    data = smooth_tensors(16)
    return ("tune", chained(24, 16), "--calib", data, *quick, "--cache", tmp_path / "cache")


def test_each_layer_gets_a_precision_of_its_own(
    run: Run, clock: FakeStopwatch, typed: tuple[object, ...], tmp_path: Path
) -> None:
    out, page = tmp_path / "out", tmp_path / "page.html"
    # In int8 the first convolution is slower.
    clock.int8 = {(24, 3, 3, 3): 2.0, (24, 24, 3, 3): 0.5, (24, 24, 1, 1): 0.5}
    typed = (*typed, "--max-error", 0.3, "--precision", "free", "-o", out)
    result = run(*typed, "--report", page, "--json")
    assert result.code == 0, result.err
    told = json.loads(result.out)
    latency, mixed = told["latency"], told["latency"]["mixed"]
    layers = {layer["name"]: layer["precision"] for layer in mixed["layers"]}
    assert layers["conv0"] == "fp32"
    assert "int8" in layers.values()
    assert mixed["error"] <= 0.3
    fast = latency["files"]["int8"]["seconds"]
    assert fast < min(latency["seconds"], latency["originals"]["int8"]["seconds"])
    assert run("verify", f"{out}@int8").code == 0
    # The report says it again, and what to type to make the bundle once more.
    shown = " ".join(run("report", out, "--format", "md").out.split())
    assert "as fast as int8 alone" in shown
    assert "--precision free" in shown
    assert "it is no faster in int8" in page.read_text()


def test_free_is_named_first_or_not_at_all(run: Run, typed: tuple[object, ...]) -> None:
    result = run(*typed, "--max-error", 0.3, "--precision", "fp32,free")
    assert result.code == 2
    assert "--precision names what is tuned for first: type free,fp32" in result.error


@pytest.mark.slow
def test_int8_alone_is_told_as_such(
    run: Run, clock: FakeStopwatch, typed: tuple[object, ...], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    clock.int8 = {(24, 3, 3, 3): 0.05, (24, 24, 3, 3): 0.05}
    result = run(*typed, "--max-error", 0.3, "--precision", "free", "-o", out)
    assert result.code == 0, result.err
    assert "int8 alone, at full rank" in " ".join(result.out.split())
    assert not (out / "baseline.onnx").exists()
    shown = run("report", out, "--format", "md")
    assert shown.code == 0, shown.err
    assert "trpexport tune" in shown.out
    assert run("verify", f"{out}@int8").code == 0
