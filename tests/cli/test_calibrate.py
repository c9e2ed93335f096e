"""``decompose --calib`` on a real checkpoint, from typing to exit code."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.conftest import QUICK, Run
from trpexport import bundle
from trpexport.checkpoints import load_bundle

HOW = ("--mean", "0.485,0.456,0.406", "--std", "0.229,0.224,0.225")


def test_a_criterions_ranks(
    run: Run, checkpoint: Path, data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ("--criterion", "rank:6", "--include", "layer1.*", *QUICK)
    calib = ("--calib", data, "--images", "64", *HOW)
    result = run("decompose", checkpoint, *options, *calib, "-o", tmp_path / "a")
    assert result.code == 0, result.err
    assert re.search(r"layer1\.2\.conv2 +spatial +6 +[\d.]+ % +[\d.]+ % +[\d.]+ %", result.out)
    assert "Calibrated on 64 images of cifar10:cifar10-lossless (train)" in result.out
    assert re.search(r"- 2 of 6, \d+ (s|min) left: layer1\.0\.conv2: output error", result.err)
    report = json.loads((tmp_path / "a" / bundle.REPORT).read_text())
    for layer in report["calibration"]["layers"]:
        assert layer["error_after"] < layer["error_before"]
    manifest = json.loads((tmp_path / "a" / bundle.MANIFEST).read_text())
    assert manifest["preprocessing"]["mean"] == [0.485, 0.456, 0.406]

    assert run("decompose", checkpoint, *options, "-o", tmp_path / "svd").code == 0
    # Evaluated without being told how images become input: the calibrated bundle says so.
    facts = [
        json.loads(run("eval", tmp_path / name, "--data", data, *how, "--json").out)
        for name, how in (("a", ()), ("svd", HOW))
    ]
    assert facts[0]["top1"] > facts[1]["top1"] + 0.01

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "empty"))  # calculated again, not found
    other = run("decompose", checkpoint, *options, *calib, "-o", tmp_path / "b", "--json")
    assert json.loads(other.out)["calibration"] == report["calibration"]
    first, second = (load_bundle(tmp_path / name).module.state_dict() for name in "ab")
    assert all(torch.equal(tensor, second[name]) for name, tensor in first.items())


def test_unlike_the_svd_it_needs_to_know_how_images_become_input(
    run: Run, checkpoint: Path, data: str, tmp_path: Path
) -> None:
    out = ("-o", tmp_path / "out", "--criterion", "rank:2")
    result = run("decompose", checkpoint, "--calib", data, *out)
    assert result.code == 2
    assert "does not say how images become its input" in result.error
    assert not (tmp_path / "out").exists()


def test_an_impossible_target_says_the_best_and_exits_with_3(
    run: Run, checkpoint: Path, data: str, tmp_path: Path
) -> None:
    options = ("--include", "layer3.2.*", "--target-macs", "0.5", "--cache", tmp_path / "c")
    calib = ("--calib", data, "--images", "16", *HOW)
    result = run("decompose", checkpoint, *calib, *options, "-o", tmp_path / "out")
    assert result.code == 3
    best = re.search(r"target of 0\.5 of the macs can't be met: the best is (0\.\d+)", result.error)
    assert best is not None
    # Two of the layers' 2.36 M MACs each at rank 1 (24.6 k) of 40.55 M.
    assert float(best[1]) == pytest.approx(1 - 2 * (2_359_296 - 24_576) / 40_551_040, abs=1e-3)
    assert not list((tmp_path / "c").iterdir()), "it is known before anything is calibrated"
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--target-macs", "0.5"], "give some, as in --calib cifar10:DIR"),
        (["--calib", "digits", "--target-macs", "1.5"], "--target-macs 1.5 is out of range"),
        (["--calib", "digits", "--target-error", "nan"], "--target-error nan is out of range"),
        (["--calib", "digits", "--max-drop", "-1"], "--max-drop -1 is out of range"),
        (["--calib", "digits", "--target-macs", "0.5", "--max-drop", "1"], "exclude each other"),
        (
            ["--calib", "digits", "--target-macs", "0.5", "--criterion", "rank:4"],
            "--criterion and a target exclude each other",
        ),
        (
            ["--calib", "digits", "--target-macs", "0.5", "--keep-expensive"],
            "--keep-expensive and a target exclude each other",
        ),
        (
            ["--calib", "digits", "--target-macs", "0.5", "--plan", "plan.json"],
            "--plan and a target exclude each other",
        ),
        (["--calib", "digits", "--scheme", "auto"], "--scheme auto chooses by output error"),
        (["--scheme", "auto"], "--scheme auto chooses by output error"),
        (["--scheme", "autos"], "unknown scheme 'autos'"),
        (["--calib", "nothing:here"], "nothing"),
        (["--calib", "cifar10:/nowhere"], "/nowhere"),
        (["--calib", "digits", "--images", "0"], "--images"),
        (["--mean", "0.5"], "--mean and --std belong together: give both"),
        (["--size", "224"], "--size and --resize need --mean and --std with them"),
        (["--seed", "0"], "--seed does nothing without --calib"),
        (["--device", "cpu"], "--device does nothing without --calib"),
        (["--calib", "digits", "--device", "tpu"], "unknown device 'tpu': choose from auto, cpu"),
        (["--images", "9", "--seed", "1"], "--images, --seed do nothing without --calib"),
        (["--data-preprocessing"], "--data-preprocessing does nothing without --calib"),
        (["--cache", "x"], "--cache does nothing without --calib"),
        (["--plan", "p.json", "--scheme", "spatial"], "--scheme does nothing beside --plan"),
        (["--plan", "p.json", "--criterion", "rank:2"], "--criterion does nothing beside --plan"),
        (["--plan", "p.json", "--include", "a"], "--include does nothing beside --plan: leave it"),
        (["--plan", "p.json", "--exclude", "a"], "--exclude does nothing beside --plan"),
        (["--plan", "p.json", "--stride-1-only"], "--stride-1-only does nothing beside --plan"),
        (["--calib", "digits", "--mean", "0.5"], "--mean and --std belong together"),
        (["--plan", "p.json", "--rank-multiple", "8"], "--rank-multiple does nothing beside"),
        (["--rank-multiple", "sixteen"], "must be a number of at least 1, or auto"),
        (["--calib", "digits", "--metric", "miou"], "--metric does nothing without --max-drop"),
        (["--calib", "digits", "--max-drop", "1", "--metric", "x:f"], "no module x"),
        (["--calib", "digits", "--data", "digits"], "--data does nothing without --max-drop"),
        (["--calib", "digits", "--max-drop", "1", "--data", "nothing:here"], "nothing"),
        (
            ["--calib", "digits", "--target-macs", "0.5", "--rank-multiple", "0"],
            "must be a number of at least 1, or auto",
        ),
    ],
)
def test_misuse_is_one_line(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], says: str
) -> None:
    monkeypatch.chdir(tmp_path)
    result = run("decompose", "nowhere.pth", *arguments)
    assert result.code == 2
    assert says in result.error
    assert not list(tmp_path.iterdir())


def test_images_of_another_kind_are_one_line(run: Run, checkpoint: Path, tmp_path: Path) -> None:
    np.savez(
        tmp_path / "grey.npz", images=np.zeros((4, 28, 28), np.uint8), labels=np.zeros(4, np.int64)
    )
    options = ("--criterion", "rank:2", "--mean", "0.5", "--std", "0.5", "-o", tmp_path / "out")
    result = run("decompose", checkpoint, "--calib", f"npz:{tmp_path / 'grey.npz'}", *options)
    assert result.code == 2
    assert "the network takes 3 channels, the preprocessing has a mean for 1" in result.error


@pytest.fixture(scope="module")
def sensitivities(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where targets find what was calibrated for an earlier one."""
    return tmp_path_factory.mktemp("sensitivities")


@pytest.mark.slow
@pytest.mark.parametrize(
    "case",
    [
        ("--scheme spatial --target-macs 0.6666", 1.5, 0.8),
        ("--scheme spatial --target-macs 0.5", 2.0, 2.0),
        ("--scheme spatial --target-macs 0.4", 2.5, 4.0),
        ("--scheme channel --target-macs 0.6666", 1.5, 3.0),
        ("--scheme auto --target-macs 0.5", 2.0, 2.0),
    ],
)
def test_half_the_network_and_nearly_all_of_its_accuracy(
    run: Run,
    checkpoint: Path,
    data: str,
    tmp_path: Path,
    sensitivities: Path,
    case: tuple[str, float, float],
) -> None:
    options, ratio, lost = case
    out = ("--cache", sensitivities, "-o", tmp_path / "o")
    result = run("decompose", checkpoint, "--calib", data, *options.split(), *HOW, *QUICK, *out)
    assert result.code == 0, result.err
    report = json.loads((tmp_path / "o" / bundle.REPORT).read_text())
    assert report["macs"]["ratio"] >= ratio
    facts = json.loads(run("eval", tmp_path / "o", "--data", data, "--json").out)
    assert 100 * facts["top1"] >= 91.3 - lost


def test_refining_says_how_close_it_came_and_fits_into_a_verified_bundle(
    run: Run, checkpoint: Path, data: str, tmp_path: Path
) -> None:
    options = ("--criterion", "rank:6", "--include", "layer1.2.*", "--calib", data, *HOW)
    few = ("--images", "64", "--refine-images", "80", "--cache", tmp_path / "cache")
    bundled = tmp_path / "a"
    result = run("decompose", checkpoint, *options, *few, *QUICK, "--refine", "0.02", "-o", bundled)
    assert result.code == 0, result.err
    assert re.search(
        r"Refined on 80 images, \d+ steps in \d+\.\d minutes: on \d+ other train images the output "
        r"moves by [\d.]+ % of its variation, before that by [\d.]+ %",
        result.out,
    ) or re.search(r"Refined on 80 images, \d+ steps in \d+\.\d minutes, in vain", result.out)
    refined = json.loads((bundled / bundle.REPORT).read_text())["calibration"]["refined"]
    assert refined["after"]["output_error"] <= refined["before"]["output_error"]
    assert list((tmp_path / "cache" / "refining").iterdir())
    assert run("verify", bundled).code == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--refine", "1"), "--refine does nothing without --calib: add --calib"),
        (
            ("--refine-images", "9", "--calib", "x"),
            "--refine-images does nothing without --refine: add --refine",
        ),
        (("--refine", "0", "--calib", "x"), "0 minutes makes no sense: give a number above 0"),
    ],
)
def test_refining_that_can_not_be_is_refused(
    run: Run, checkpoint: Path, data: str, tmp_path: Path, options: tuple[str, ...], message: str
) -> None:
    typed = [data if option == "x" else option for option in options]
    result = run(
        "decompose", checkpoint, *typed, *HOW[: 4 if data in typed else 0], "-o", tmp_path / "out"
    )
    assert result.code == 2
    assert message in result.error
    assert not (tmp_path / "out").exists()
