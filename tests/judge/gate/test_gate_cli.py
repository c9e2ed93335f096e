"""``trpexport eval`` and ``trpexport gate`` as a user types them."""

from __future__ import annotations

import inspect
import json
import os
import re
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from tests.conftest import Run
from trpexport.judge.gate.rules import RULES

Make = Callable[..., Any]
HOW = ("--mean", "0", "--std", "1")


@pytest.fixture(autouse=True)
def somewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GITHUB_ACTIONS", raising=False)


@pytest.fixture
def pair(classifier: Make) -> tuple[Path, Path]:
    """A network that is always right, and one that mistakes 2 classes of 10."""
    matrix = np.eye(10)
    matrix[[0, 1]] = matrix[[1, 0]]
    return classifier(), classifier(matrix)


def test_every_rule_has_a_flag() -> None:
    parameters = inspect.signature(import_module("trpexport.cli.gate").gate).parameters
    assert {name.replace("-", "_") for name in RULES} <= parameters.keys()


def test_eval(run: Run, pair: tuple[Path, Path], images_npz: Make, tmp_path: Path) -> None:
    data = ("--data", f"npz:{images_npz(200, wrong=10)}")
    result = run("eval", pair[0], *data, *HOW, "--save", "base.npz", "--confusion")
    assert result.code == 0, result.err
    assert "top-1" in result.out and "95.0 %" in result.out
    assert result.err == ""  # no bar in a pipe
    result = run("eval", pair[1], *data, *HOW, "--against", "base.npz", "--json")
    facts = json.loads(result.out)
    assert facts["images"] == 200
    against = facts["against"]
    assert against["drop"] == pytest.approx((against["lost"] - against["won"]) / 200)
    assert against["drop_low"] < against["drop"] < against["drop_high"]
    result = run("eval", pair[1], *data, *HOW, "--against", "base.npz", "--images", "50")
    assert result.code == 2
    assert "are of other images" in result.error


def test_eval_against_pictures_of_the_same_labels(
    run: Run, pair: tuple[Path, Path], images_npz: Make
) -> None:
    clear, fog = images_npz(200), Path("fog.npz")
    with np.load(clear) as arrays:
        np.savez(fog, images=arrays["images"] // 2 + 99, labels=arrays["labels"])
    assert run("eval", pair[0], "--data", f"npz:{clear}", *HOW, "--save", "clear.npz").code == 0
    result = run("eval", pair[0], "--data", f"npz:{fog}", *HOW, "--against", "clear.npz")
    assert result.code == 2
    assert f"are of other images (200 of npz:{clear})" in result.error
    # Predictions of the version before, which did not know the pixels: refused before any work.
    with np.load("clear.npz") as archive:
        arrays = {name: archive[name] for name in archive.files if name != "pixels"}
    np.savez("old.npz", **arrays | {"kind": np.asarray("trpexport evaluation 1")})
    result = run("eval", "gone.onnx", "--data", f"npz:{clear}", *HOW, "--against", "old.npz")
    assert result.code == 2
    assert "can't be compared: they were saved by an earlier version" in result.error


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ((), "(--mean, --std, --size, --resize, --data-preprocessing)"),
        (("--mean", "0"), "belong together"),
        (("--mean", "0", "--std", "0"), "--std must be above 0"),
        (("--mean", "0", "--std", "1,1"), "as many numbers"),
        (("--mean", "x", "--std", "1"), "--mean 'x' must look like"),
        (("--mean", "nan", "--std", "1"), "--mean 'nan' must look like"),
        (("--size", "8"), "need --mean and --std"),
        ((*HOW, "--size", "8x"), "--size '8x' must look like"),
        ((*HOW, "--data-preprocessing"), "exclude each other"),
        ((*HOW, "--split", "tset"), "tset"),
        ((*HOW, "--output", "x"), "no output 'x'"),
        ((*HOW, "--provider", "cpuu"), "cpuu"),
        ((*HOW, "--against", "gone.npz"), "can't read gone.npz"),
    ],
)
def test_eval_misuse(
    run: Run, pair: tuple[Path, Path], images_npz: Make, options: tuple[str, ...], says: str
) -> None:
    result = run("eval", pair[0], "--data", f"npz:{images_npz(20)}", *options)
    assert result.code == 2
    assert says in result.error


def test_results_go_to_plain_files_alone(
    run: Run, pair: tuple[Path, Path], images_npz: Make, tmp_path: Path
) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    networks = ("--baseline", pair[0], "--candidate", pair[0], "--max-file-size", "1MB")
    for place in (pipe, ".", "x" * 300):
        for command in (
            ("eval", pair[0], "--data", f"npz:{images_npz(20)}", *HOW, "--save"),
            ("gate", *networks, "--save"),
            ("gate", *networks, "--junit"),
        ):
            result = run(*command, place)
            assert result.code == 2
            assert "can't write" in result.error
    assert pipe.is_fifo()


def test_eval_without_data(run: Run, pair: tuple[Path, Path], tmp_path: Path) -> None:
    assert "name a data set" in run("eval", pair[0]).error
    for data in ("npz:gone.npz", "cifer10:x", str(pair[0])):
        result = run("eval", pair[0], "--data", data, *HOW)
        assert result.code == 2
        assert result.error
    assert "unknown data set ''" in run("eval", pair[0], "--data", "", *HOW).error


def test_a_missing_network_is_named(run: Run, pair: tuple[Path, Path], images_npz: Make) -> None:
    data = ("--data", f"npz:{images_npz(20)}")  # how to prepare them is asked for later
    networks = ("--baseline", "gone.onnx", "--candidate", pair[0])
    for command in (("eval", "gone.onnx"), ("gate", *networks, "--max-drop", "1")):
        result = run(*command, *data)
        assert result.code == 2
        assert "there is no file gone.onnx: check the path" in result.error


def test_gate_everywhere_at_once(
    run: Run,
    pair: tuple[Path, Path],
    images_npz: Make,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "summary.md"))
    Path("trpexport.toml").write_text("[gate]\nmax-drop = 1\nmin-agreement = 50\n")
    networks = ("--baseline", pair[0], "--candidate", pair[1])
    options = (*networks, "--data", f"npz:{images_npz(200)}", *HOW)
    files = ("--junit", "gate.xml", "--save", "gate.json", "--history", "gate.jsonl", "--json")
    result = run("gate", *options, *files)
    assert result.code == 1
    facts = json.loads(result.out)  # nothing else on standard output
    assert facts == json.loads(Path("gate.json").read_text())
    assert facts == json.loads(Path("gate.jsonl").read_text())
    assert [rule["passed"] for rule in facts["rules"]] == [False, True]
    assert "::error title=trpexport gate%3A max-drop::over the limit" in result.err
    assert ElementTree.parse("gate.xml").getroot().get("failures") == "1"
    assert "❌ The gate failed: max-drop" in Path("summary.md").read_text()
    result = run("gate", *options, "--max-drop", "30", *files)  # what is typed wins
    assert result.code == 0, result.err
    lines = Path("gate.jsonl").read_text().splitlines()
    assert [json.loads(line)["accepted"] for line in lines] == [False, True]
    result = run("gate", *options, "--max-drop", "30")
    assert "The gate passed: 2 rules" in result.out


def test_gate_refuses_a_regression(run: Run, pair: tuple[Path, Path], images_npz: Make) -> None:
    base, worse = pair
    rules = ("--max-drop", "30", "--max-file-size", "1MB")
    options = ("--data", f"npz:{images_npz(400)}", *HOW, *rules, "--baseline", base)
    memory = ("--history", "gate.jsonl", "--compare-to", "gate.jsonl")
    first = run("gate", *options, "--candidate", base, *memory)
    assert first.code == 2
    assert (
        "run the gate once with the history gate.jsonl, without comparing to it (--history"
        in first.error
    )
    assert not Path("gate.jsonl").exists()
    assert run("gate", *options, "--candidate", base, "--history", "gate.jsonl").code == 0
    result = run("gate", *options, "--candidate", worse, *memory)
    assert result.code == 1
    assert "worse than the last accepted" in result.out
    # The refused one is not what the next is compared with.
    assert run("gate", *options, "--candidate", worse, *memory).code == 1
    assert run("gate", *options, "--candidate", base, *memory).code == 0
    fewer = (*options[:-4], *options[-2:], "--candidate", base)
    assert "--max-file-size" in run("gate", *fewer, *memory).error


def test_gate_measures_latency(run: Run, pair: tuple[Path, Path]) -> None:
    networks = ("--baseline", pair[0], "--candidate", pair[0], "--min-time", "0", "--max-time", "1")
    rules = ("--max-latency", "1000", "--min-speedup", "0.001", "--min-efficiency", "0.001")
    result = run("gate", *networks, *rules, "--min-macs-ratio", "1")
    assert result.code == 0, result.out + result.err
    assert len(re.findall(r" pass *$", result.out, re.MULTILINE)) == 4
    assert run("gate", *networks, "--max-latency", "0.000001").code == 1


def test_gate_measures_networks_of_two_sizes(run: Run, sized: Make) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (400, 3, 12, 12), np.uint8)
    np.savez("photos.npz", images=pixels, labels=np.arange(400) % 10)
    networks = ("--baseline", sized(12), "--candidate", sized(8))
    how = ("--data", "npz:photos.npz", "--mean", "0,0,0", "--std", "1,1,1")
    rules = ("--min-macs-ratio", "2.2", "--max-latency", "1000", "--max-drop", "50")
    quick = ("--min-time", "0", "--max-time", "1")
    result = run("gate", *networks, *how, *rules, *quick, "--json")
    assert result.code == 0, result.out + result.err
    found = {rule["name"]: rule["value"] for rule in json.loads(result.out)["rules"]}
    assert found["min-macs-ratio"] == 12**2 / 8**2
    for name in ("other", "input"):
        result = run("gate", *networks, *rules[:2], "--input-shape", f"{name}=1x3x9x9")
        assert result.code == 2
        assert name in result.error


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ((), "there is no limit"),
        (("--max-drop", "-1"), "max-drop can't be '-1': the drop of top-1"),
        (("--max-drop", "one"), "at most 50 points (--max-drop)"),
        (("--max-drop", "1"), "max-drop needs images: name them, as in cifar10:DIR (--data)"),
        (("--max-dorp", "1"), "max-dorp"),
        (("--max-drop", "1", "--config", "gone.toml"), "can't read gone.toml"),
        (("--max-file-size", "1MB", "--data", "npz:x.npz"), "--data does nothing where no limit"),
        (("--max-drop", "1", "--split", "train"), "--split does nothing without --data: add"),
        (("--max-drop", "1", "--mean", "0", "--std", "1"), "--mean, --std do nothing without"),
        (("--max-file-size", "1MB", "--threads", "1"), "--threads does nothing where no limit"),
        (("--min-macs-ratio", "1", "--max-time", "3"), "--max-time does nothing where no limit"),
        (
            ("--max-drop", "1", "--data", "x", "--input-shape", "a=1x1"),
            "--input-shape does nothing where",
        ),
        (("--max-file-size", "1MB", "--provider", "cpu"), "--provider does nothing where no"),
        (("--max-file-size", "1MB", "--batch", "2"), "--batch does nothing where no limit makes"),
        (("--max-drop", "1", "--data", "npz:gone.npz", *HOW), "gone.npz"),
        (("--max-file-size", "1MB", "--compare-to", "gone.jsonl"), "gone.jsonl does not exist"),
    ],
)
def test_gate_misuse(
    run: Run, pair: tuple[Path, Path], options: tuple[str, ...], says: str
) -> None:
    result = run("gate", "--baseline", pair[0], "--candidate", pair[1], *options)
    assert result.code == 2
    assert says in result.error


def test_more_than_the_memory_holds(run: Run, pair: tuple[Path, Path]) -> None:
    networks = ("--baseline", pair[0], "--candidate", pair[1])
    result = run("gate", *networks, "--max-latency", "1", "--batch", 10**13)
    assert result.code == 2
    assert "takes more memory than a network of this size" in result.error
    assert "give a smaller batch" in result.error


def test_a_missing_or_broken_network_never_passes(run: Run, pair: tuple[Path, Path]) -> None:
    rule = ("--max-file-size", "1MB")
    assert "--baseline" in run("gate", "--candidate", pair[0], *rule).error
    Path("broken.onnx").write_bytes(pair[0].read_bytes()[:60])
    for candidate in ("gone.onnx", "broken.onnx", "."):
        result = run("gate", "--baseline", pair[0], "--candidate", candidate, *rule)
        assert result.code == 2
        assert result.error
