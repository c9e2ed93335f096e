"""``trpexport bench`` as a user types it. No time is asserted: machines are what they are."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path

import pytest

from tests.conftest import Run
from trpexport import bundle

QUICK = (
    *("--min-time", "0.05", "--max-time", "0.5", "--min-runs", "5"),
    *("--warmup-seconds", "0.2", "--no-memory"),
)


@pytest.fixture(scope="module")
def decomposed(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real bundle with its baseline."""
    from trpexport.artifact.build import ExportSettings
    from trpexport.choose.by_criterion import ByCriterion
    from trpexport.pipeline import Source, decompose_to_bundle

    out = tmp_path_factory.mktemp("bench") / "spatial"
    decompose_to_bundle(
        Source(shared / "checkpoints/resnet20-12fca82f.th"),
        ByCriterion(criterion="energy:0.9"),
        out,
        settings=ExportSettings(
            17, legacy_exporter=True, verify_seconds=0, simplify=False, baseline=True
        ),
    )
    return out


def test_a_bundle_knows_its_baseline(run: Run, decomposed: Path) -> None:
    result = run("bench", decomposed, "--provider", "cpu", *QUICK)
    assert result.code == 0, result.err
    assert re.search(r"baseline\.onnx +40\.6 M +[\d.]+ ms", result.out)
    # Never a latency without MACs, nor MACs saved without the measured speed-up.
    row = r"spatial +27\.9 M .* [\d.]+x +[\d.]+ to [\d.]+x +1\.45x +[\d.]+ % +\w"
    assert re.search(row, result.out)


def test_one_file_exactly_as_typed_in_the_readme(run: Run, decomposed: Path) -> None:
    result = run("bench", decomposed / bundle.MODEL, "--provider", "cpu", *QUICK)
    assert result.code == 0, result.err
    assert "nothing to compare with" in result.out


@pytest.mark.slow
def test_threads_are_swept_and_records_compared(run: Run, decomposed: Path, tmp_path: Path) -> None:
    options = ("--threads", "1,2", "--json", *QUICK)
    result = run("bench", decomposed, *options)
    record = json.loads(result.out)
    assert [entry["threads"] for entry in record["results"]] == [1, 2]
    for entry in record["results"]:
        base, other = entry["models"]
        assert (base["macs"], other["macs"]) == (40_551_040, 27_943_552)
        speedup = other["ratio"]["mid"]
        assert other["efficiency"] == pytest.approx(speedup / other["macs_ratio"])
    assert record["machine"]["cpu"]
    old = tmp_path / "old.json"
    old.write_text(result.out)
    result = run("compare", old, old)
    assert result.code == 0, result.err
    assert result.out.count("no measurable difference") == 4
    record["machine"]["cpu"] = "another one"
    (tmp_path / "new.json").write_text(json.dumps(record))
    result = run("compare", old, tmp_path / "new.json")
    assert result.code == 2
    assert "different machines" in result.error
    allowed = run("compare", "--allow-other-machine", old, tmp_path / "new.json")
    assert allowed.code == 0
    assert run("compare", old).code == 2


def test_csv(run: Run, decomposed: Path) -> None:
    rows = list(csv.DictReader(io.StringIO(run("bench", decomposed, "--csv", *QUICK).out)))
    assert [row["label"] for row in rows] == ["baseline.onnx", "spatial"]
    assert float(rows[1]["macs_ratio"]) == pytest.approx(40_551_040 / 27_943_552)


def test_the_profile_shows_every_original_convolution(run: Run, decomposed: Path) -> None:
    result = run("profile", decomposed, "--min-runs", "8")
    assert result.code == 0, result.err
    assert re.search(r"conv1 .* kept; ", result.out)
    assert len(re.findall(r"^layer\d\.\d\.conv\d +[\d.]+ ms", result.out, re.MULTILINE)) == 18
    assert "no latency" in result.out
    facts = json.loads(run("profile", decomposed, "--min-runs", "8", "--json").out)
    assert len(facts["comparison"]) == 20
    for model in facts["models"]:
        rows = [*model["layers"], *model["others"]]
        assert sum(row["seconds"] for row in rows) == pytest.approx(model["seconds"])
    plain = run("profile", decomposed / bundle.MODEL, "--min-runs", "4")
    assert "layer1.0.conv1" in plain.out


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--provider", "cuda"), "onnxruntime-gpu"),
        (("--provider", "xnnpack"), "build onnxruntime from source"),
        (("--provider", "cdua"), "did you mean cuda"),
        (("--provider-option", "x"), "key=value"),
        (("--threads", "none"), "must look like 1 or 1,2,4"),
        (("--threads", "0"), "must look like 1 or 1,2,4"),
        (("--graph-optimization", "most"), "choose from"),
        (("--input-shape", "input=1x3x32"), "input"),
        (("--input-shape", "1x3x32"), "can't have the shape 1x3x32"),
        (("--batch", "2"), "1"),
        (("--inputs", "none.npy"), "none.npy"),
        (("--emulate", "cortex-a72", "--profile"), "--emulate and --profile exclude each other"),
        (("--json", "--csv"), "--json and --csv exclude each other"),
        (("--host", "-oProxyCommand=x"), "host"),
    ],
)
def test_misuse(run: Run, decomposed: Path, options: tuple[str, ...], says: str) -> None:
    result = run("bench", decomposed, *options, *QUICK)
    assert result.code == 2
    assert says in result.error


@pytest.mark.parametrize(
    ("command", "says"),
    [
        (("bench", "gone.onnx", "--python", "python3"), "--python does nothing without --host"),
        (("profile", "gone.onnx", "--csv"), "No such option: --csv"),
        (("profile", "gone.onnx", "--threads", "1,2"), "--threads 1,2 is several numbers"),
        (("emulate", "gone.onnx", "--threads", "2"), "No such option: --threads"),
        (("emulate", "gone.onnx", "--cpu", "cortex-a999"), "did you mean cortex-a"),
        (("compare", "gone.json"), "Missing argument 'NEW'"),
        (("compare", "gone.json", "also.json"), "gone.json"),
    ],
)
def test_what_was_typed_is_looked_at_before_any_work(
    run: Run, command: tuple[str, ...], says: str
) -> None:
    result = run(*command)
    assert result.code == 2
    assert says in result.error


def test_a_batch_that_is_fixed_or_follows_from_a_shape(run: Run, decomposed: Path) -> None:
    for command, options in (("bench", QUICK), ("profile", ())):
        result = run(command, decomposed, "--batch", "2", *options)
        assert result.code == 2
        assert "runs 1 images at a time, not 2" in result.error


def test_arm_needs_arm(run: Run, decomposed: Path) -> None:
    import platform

    result = run("bench", decomposed, "--provider", "arm", *QUICK)
    if platform.machine() in ("aarch64", "arm64"):
        assert result.code == 0
    else:
        assert result.code == 2
        for choice in ("aarch64 machine", "user@device", "cortex-a72", "(--host)"):
            assert choice in result.error


def test_broken_files(run: Run, decomposed: Path, shared: Path, tmp_path: Path) -> None:
    content = (decomposed / bundle.MODEL).read_bytes()
    (tmp_path / "cut.onnx").write_bytes(content[: len(content) // 2])
    for path in (tmp_path / "cut.onnx", tmp_path, shared / "checkpoints/resnet20-12fca82f.th"):
        result = run("bench", path, *QUICK)
        assert result.code == 2
        assert str(path) in result.error
