"""Networks in other precisions: written, named in every command, and refused in one line."""

from __future__ import annotations

import json
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from tests.conftest import ROOT, Run
from trpexport import bundle

CHECKPOINT = ROOT / "models_zoo" / "checkpoints" / "resnet20-trp-spatial.safetensors"
PRECISIONS = ("int8-dynamic", "fp16")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle in float32 and what needs no images."""
    import trpexport

    out = tmp_path_factory.mktemp("precisions") / "net"
    trpexport.export(CHECKPOINT, out, precisions=PRECISIONS, verify_seconds=0)
    return out


@pytest.fixture
def copy(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "net"))


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_variant_is_verified_and_named_in_the_manifest(made: Path, precision: str) -> None:
    entry = bundle.read_manifest(made)["variants"][precision]
    assert entry["claim"]["kind"] == "approximate"
    assert 0 < entry["outputs"]["output"]["variation_error"] < 0.3
    assert (made / entry["file"]).stat().st_size < 0.6 * (made / bundle.MODEL).stat().st_size
    steps = json.loads((made / bundle.REPORT).read_text())["steps"]
    assert precision in [step["name"] for step in steps]


@pytest.mark.parametrize("precision", PRECISIONS)
def test_every_command_takes_a_variant(run: Run, made: Path, precision: str) -> None:
    name = f"{made}@{precision}"
    assert run("verify", name).code == 0
    assert run("verify", name, "--tolerance", "1e-6").code == 4
    assert run("flops", name).code == 0
    quick = ("--min-time", "0", "--max-time", "0", "--min-runs", "1", "--warmup-seconds", "0")
    timed = run("bench", made, name, *quick, "--no-memory", "--json")
    labels = [one["label"] for one in json.loads(timed.out)["results"][0]["models"]]
    assert labels == ["net", f"net@{precision}"]
    gated = run("gate", "--baseline", made, "--candidate", name, "--max-file-size", "1MB")
    assert gated.code == 0


def test_a_variant_that_was_damaged_is_found(run: Run, copy: Path) -> None:
    file = copy / "model.fp16.onnx"
    model = onnx.load(file)
    weights = max(model.graph.initializer, key=lambda one: len(one.raw_data))
    values = -numpy_helper.to_array(weights)
    weights.CopyFrom(numpy_helper.from_array(values, weights.name))
    onnx.save(model, file)
    assert "was changed after the export" in run("verify", f"{copy}@fp16").error
    manifest = json.loads((copy / bundle.MANIFEST).read_text())
    del manifest["files"]
    bundle.write_manifest(copy, {k: v for k, v in manifest.items() if k != "schema_version"})
    done = run("verify", f"{copy}@fp16")
    assert (done.code, "than fp16 did when it was written" in done.err) == (4, True)


def no_such_variant(made: Path) -> tuple[object, ...]:
    return ("verify", f"{made}@int4")


CASES: dict[str, Callable[[Path], tuple[object, ...]]] = {
    "has no variant 'int4': it has fp32, int8-dynamic, fp16": no_such_variant,
    "takes its ranges from images: give some to calibrate on (--calib)": lambda made: (
        ("quantize", made, "--precision", "int8")
    ),
    "the provider cpu does not compute in bfloat16": lambda made: (
        ("quantize", made, "--precision", "bf16")
    ),
    "is in fp16 already: name the bundle": lambda made: (
        ("quantize", f"{made}@fp16", "--precision", "int8-dynamic")
    ),
    "has fp16 already: have it replaced": lambda made: ("quantize", made, "--precision", "fp16"),
    "unknown precision 'int9': choose from fp32, bf16, fp16, int8, int8-dynamic": lambda made: (
        ("export", CHECKPOINT, "--precision", "int9")
    ),
    "name each precision once": lambda made: ("export", CHECKPOINT, "--precision", "fp16,fp16"),
    "computes in float16: give the file in float32": lambda made: (
        ("quantize", made / "model.fp16.onnx", "--precision", "int8-dynamic")
    ),
    "is quantized already (it has a node DynamicQuantizeLinear)": lambda made: (
        ("decompose", made / "model.int8-dynamic.onnx")
    ),
    "--check does nothing without --target-ort: add --target-ort": lambda made: (
        ("export", CHECKPOINT, "--check")
    ),
    "unknown format 'tflite': choose from onnx, ort": lambda made: (
        ("export", CHECKPOINT, "--format", "tflite")
    ),
    "name one from 1.5 on, as in 1.16 or 1.16.3 (--target-ort)": lambda made: (
        ("quantize", made, "--precision", "fp16", "--target-ort", "16")
    ),
    "reads operator sets up to 17, not 20": lambda made: (
        ("decompose", CHECKPOINT, "--opset", "20", "--target-ort", "1.12")
    ),
    "--max-error does nothing without --precision": lambda made: (
        ("export", CHECKPOINT, "--max-error", "0.1")
    ),
}


@pytest.mark.parametrize("says", CASES)
def test_what_can_not_be_is_said_in_one_line(
    run: Run, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, says: str
) -> None:
    monkeypatch.chdir(tmp_path)
    done = run(*CASES[says](made))
    assert says in done.error
    assert (done.code, list(tmp_path.iterdir())) == (2, [])


def test_a_limit_that_can_not_be_met_leaves_the_bundle_as_it_was(
    run: Run, copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(copy.parent)
    Path("trpexport.toml").write_text("[quantize]\nverify-seconds = 0\n")
    before = {path.name: path.read_bytes() for path in copy.iterdir()}
    done = run("quantize", copy, "--precision", "fp16", "--force", "--max-error", "1e-9")
    assert (done.code, "more than the" in done.err) == (3, True)
    assert {path.name: path.read_bytes() for path in copy.iterdir()} == before
    assert f"  trpexport quantize {copy} --precision fp16 --force --max-error 2e-09\n" in done.out
    typed = ("quantize", copy, "--precision", "int8-dynamic", "--force", "--max-error", "1e-9")
    facts = json.loads(run(*typed, "--json").out)
    assert facts["exit_code"] == 3
    assert [shlex.split(command)[3:] for command in facts["next"]] == [
        ["--force", "--max-error", "1e-9", "--precision", "fp16"],
        ["--precision", "int8-dynamic", "--force", "--max-error", "2e-09"],
    ]


def test_the_next_command_is_told_to_machines_as_well(run: Run, copy: Path) -> None:
    typed = ("quantize", copy, "--precision", "fp16", "--force", "--verify-seconds", "0", "--json")
    (command,) = json.loads(run(*typed).out)["next"]
    assert command == f"trpexport bench {copy} {copy}@fp16"


def test_a_bare_file_is_written_beside_and_replaces_nothing(
    run: Run, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    typed = ("quantize", made / bundle.MODEL, "--precision", "fp16", "--verify-seconds", "0")
    assert run(*typed).code == 0
    assert [path.name for path in tmp_path.iterdir()] == ["model.fp16.onnx"]
    assert "exists: choose another place" in run(*typed).error


def test_a_gemm_weight_that_two_share_is_quantized_right(
    run: Run, write_onnx: Callable[..., Path], tmp_path: Path
) -> None:
    weight = np.random.default_rng(0).standard_normal((8, 8)).astype(np.float32)
    source = write_onnx(
        [
            helper.make_node("Gemm", ["x", "w"], ["h"], transB=1),
            helper.make_node("Gemm", ["h", "w"], ["y"], transB=1),
        ],
        {"x": (4, 8)},
        {"y": (4, 8)},
        {"w": weight},
    )
    out = tmp_path / "out.onnx"
    done = run("quantize", source, "--precision", "int8-dynamic", "--out", out, "--json")
    entry = json.loads(done.out)["variants"]["int8-dynamic"]
    assert entry["facts"]["nodes"] == {"MatMulInteger": 2}
    assert entry["outputs"]["y"]["variation_error"] < 0.05


def test_int8_is_calibrated_from_python_and_keeps_to_its_limits(copy: Path, tmp_path: Path) -> None:
    import trpexport
    from trpexport.datasets import Preprocessing

    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (40, 32, 32, 3), dtype=np.uint8)
    np.savez(tmp_path / "d.npz", images=pixels, labels=random.integers(0, 10, 40))
    how = Preprocessing((0.5,) * 3, (0.25,) * 3)
    data = f"npz:{tmp_path / 'd.npz'}"
    limits: dict[str, Any] = {"max_error": 0.5, "max_drop": 100.0}
    found = trpexport.quantize(copy, images=data, preprocessing=how, data=data, **limits)
    entry = found.data["variants"]["int8"]
    assert entry["outputs"]["output"]["variation_error"] <= 0.5
    assert entry["facts"]["drop"] <= 100
    assert set(bundle.read_manifest(copy)["variants"]) == {*PRECISIONS, "int8"}
    pair = [copy, found.paths["int8"]]
    once: dict[str, Any] = {"min_time": 0, "max_time": 0.1, "min_runs": 1, "warmup_seconds": 0}
    assert trpexport.bench(pair, memory=False, **once)
