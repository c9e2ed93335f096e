"""``trpexport train``: from typing to checkpoints, through kills, full disks and wrong settings."""

from __future__ import annotations

import json
import os
import random
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.conftest import QUICK, Run
from tests.training.processes import Started, start, start_workers, write_digits
from trpexport import bundle
from trpexport.checkpoints import load_bundle, load_checkpoint
from trpexport.lowrank.schemes import matrix_schemes
from trpexport.networks.torch.rewrite import dense

LOW_RANK = {
    "plain": (),
    "nuclear": ("--nuclear-weight", "3e-4", "--trp-period", "2"),
    "trp": ("--trp", "--trp-period", "2"),
    "both": ("--trp", "--nuclear-weight", "3e-4", "--trp-period", "2"),
    "steered": ("--trp", "--target-macs", "0.5", "--trp-period", "2"),
    "aligned": ("--trp", "--target-macs", "0.5", "--trp-period", "2", "--rank-multiple", "8"),
}


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_digits(tmp_path_factory.mktemp("digits") / "digits.npz")


def command(digits: str, out: Path, *options: object, epochs: int = 3) -> tuple[object, ...]:
    return (
        "train", "--arch", "resnet20", "--data", digits, "--epochs", epochs, "--batch", 32,
        "-o", out, "--save-seconds", 0, *options,
    )  # fmt: skip


def metrics(out: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    for line in lines:
        del line["seconds"]
    return lines


def assert_same_run(first: Path, second: Path) -> None:
    assert metrics(first) == metrics(second)
    for name in ("last.safetensors", "best.safetensors"):
        one, two = load_file(first / name), load_file(second / name)
        assert one.keys() == two.keys()
        assert all(torch.equal(one[key], two[key]) for key in one), name


def test_a_dry_run_says_what_would_be_trained_and_writes_nothing(
    run: Run, digits: str, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    typed = command(digits, out, "--trp", "--target-macs", 0.5, "--rank-multiple", 1, "--dry-run")
    facts = json.loads(run(*typed, "--json").out)
    # 128 images in batches of 32, three times.
    assert (facts["steps_per_epoch"], facts["steps"]) == (4, 12)
    # Rank 1 leaves (in + out) * 3 of in * out * 9 MACs, with 16 channels at least: a 24th. The stem
    # and the classifier stay: a 90th.
    assert 0.011 < facts["low_rank"]["least_macs_ratio"] < 1 / 24 + 1 / 80
    assert facts["low_rank"]["layers"] == 18 + 2  # two shortcuts are 1x1 convolutions
    shown = run(*typed)
    assert shown.code == 0, shown.err
    assert "12 in all" in shown.out
    assert re.search(r"Low rank can win at best \d+\.\d+x fewer MACs", shown.out)
    (again,) = re.findall(r"^  trpexport (.*)$", shown.out, re.MULTILINE)
    assert again == shlex.join(map(str, typed[:-1]))
    plain = json.loads(run(*command(digits, out), "--dry-run", "--json").out)
    assert plain["low_rank"] is None
    refused = run(*command(digits, out, "--trp", "--target-macs", 0.001), "--dry-run")
    assert refused.code == 2
    assert not out.exists()


def test_what_was_lost_against_the_first_network_is_said(
    run: Run, digits: str, tmp_path: Path
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    assert run(*command(digits, first, epochs=1)).code == 0
    began = metrics(first)[-1]["test_top1"]
    result = run(*command(digits, second, "--init", first / "last.safetensors", epochs=1))
    assert result.code == 0, result.err
    now = metrics(second)[-1]["test_top1"]
    said = f"points of top-1 {'lost' if now <= began else 'won'} against the original"
    assert f"{said} ({began:.1f} % -> {now:.1f} %)" in result.out


@pytest.mark.parametrize(
    "mode",
    [
        pytest.param("nuclear", marks=pytest.mark.slow),
        pytest.param("trp", marks=pytest.mark.slow),
        "both",
    ],
)
@pytest.mark.parametrize("scheme", matrix_schemes())
def test_each_way_trains_goes_on_decomposes_and_exports(
    run: Run, tmp_path: Path, digits: str, scheme: str, mode: str
) -> None:
    out = tmp_path / "run"
    small = ("--arch", "resnet20(depth=8)")
    trained = command(digits, out, *small, "--scheme", scheme, *LOW_RANK[mode], epochs=1)
    result = run(*trained)
    assert result.code == 0, result.err
    assert "epoch 1 of 1: loss" in result.err
    assert f"  trpexport decompose {out / 'last.safetensors'} --scheme {scheme}" in result.out
    weights = (out / "last.safetensors").read_bytes()
    again = run(*trained)
    assert (again.code, "is finished" in again.err) == (0, True)
    assert (out / "last.safetensors").read_bytes() == weights
    (line,) = metrics(out)
    assert (line["epoch"], line["step"], line["test_images"]) == (1, 4, 100)
    assert 0 < line["mean_rank_share"] <= 1
    decomposed = run(
        "decompose", out / "last.safetensors", "--scheme", scheme, "--criterion", "energy:0.5",
        *QUICK, "-o", tmp_path / "bundle",
    )  # fmt: skip
    assert decomposed.code == 0, decomposed.err
    assert (tmp_path / "bundle" / bundle.MODEL).is_file()
    assert run("verify", tmp_path / "bundle").code == 0


def test_the_multiple_of_a_run_is_that_of_its_checkpoints_on_any_processor(
    run: Run, tmp_path: Path, digits: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    monkeypatch.setenv("TRPEXPORT_CHANNEL_BLOCK", "8")
    assert run(*command(digits, out, *LOW_RANK["steered"], epochs=1)).code == 0
    monkeypatch.setenv("TRPEXPORT_CHANNEL_BLOCK", "16")
    again = run(*command(digits, out, *LOW_RANK["steered"], epochs=1))
    assert (again.code, "is finished" in again.err) == (0, True)
    (line,) = metrics(out)

    def decomposed(*options: object) -> dict[str, Any]:
        result = run("decompose", out / "last.safetensors", *QUICK, "-o", tmp_path / "b", *options)
        assert result.code == 0, result.err
        plan: dict[str, Any] = json.loads((tmp_path / "b" / bundle.PLAN).read_text())
        return plan

    plan = decomposed()
    assert plan["options"]["rank_multiple"] == 8
    assert plan["options"]["rank_multiple_reason"] == "auto: 8, as the checkpoint was trained"
    ranks = [layer["rank"] for layer in plan["layers"] if layer["rank"]]
    assert ranks and all(rank % 8 == 0 for rank in ranks)
    macs = json.loads((tmp_path / "b" / bundle.REPORT).read_text())["macs"]
    assert macs["after"] / macs["before"] == line["macs_ratio"]
    assert decomposed("--force", "--rank-multiple", 16)["options"]["rank_multiple"] == 16


def test_a_target_that_no_whole_blocks_reach_is_one_line(
    run: Run, tmp_path: Path, digits: str
) -> None:
    typed = ("--trp", "--target-macs", "0.3", "--rank-multiple", "16")
    result = run(*command(digits, tmp_path / "run", *typed))
    assert result.code == 2
    assert "no multiples of 16 reach 0.3 of the MACs: the lowest leave" in result.error
    assert result.error.endswith("(--target-macs, --rank-multiple)")
    assert not (tmp_path / "run").exists()


def test_a_bundle_to_start_from(run: Run, tmp_path: Path, digits: str) -> None:
    first, low = tmp_path / "first", tmp_path / "bundle"
    assert run(*command(digits, first, epochs=1)).code == 0
    calib = ("--calib", digits, "--images", 32, "--criterion", "rank:4")
    assert run("decompose", first / "last.safetensors", *calib, *QUICK, "-o", low).code == 0
    still = ("--lr", 1e-12, "--weight-decay", 0, "--no-augment")
    result = run(*command(digits, tmp_path / "second", "--init", low, *still, epochs=1))
    assert result.code == 0, result.err
    # The kernels are those that the factors stood for: of rank 4, in the dense shape.
    start, end = load_bundle(low), load_checkpoint(tmp_path / "second" / "last.safetensors")
    assert end.plan is None
    assert start.plan is not None
    products = dense(start.module)
    for layer in start.plan.rewritten:
        kernel = end.module.get_submodule(layer.name).get_parameter("weight")
        expected = products.get_submodule(layer.name).get_parameter("weight")
        torch.testing.assert_close(kernel, expected, rtol=0, atol=1e-6)
    other = run(*command(digits, tmp_path / "third", "--arch", "resnet32", "--init", low))
    assert other.code == 2
    assert "resnet32" in other.error
    assert not (tmp_path / "third").exists()


def killed_again_and_again(started: list[Started], at: float, state: Path) -> bool:
    """Kill processes a while after their first sign of progress; say whether they still ran."""
    before = state.stat().st_mtime_ns if state.is_file() else 0
    while all(one.process.is_alive() for one in started):
        if state.is_file() and state.stat().st_mtime_ns != before:
            break
        time.sleep(0.002)
    time.sleep(at)
    running = [one for one in started if one.process.is_alive()]
    for one in running:
        assert one.process.pid is not None
        os.kill(one.process.pid, signal.SIGKILL)
    for one in started:
        one.process.join(60)
    return bool(running)


@pytest.mark.parametrize(
    "mode",
    [
        pytest.param("plain", marks=pytest.mark.slow),
        pytest.param("both", marks=pytest.mark.slow),
        pytest.param("steered", marks=pytest.mark.slow),
        "aligned",
    ],
)
def test_a_run_that_is_killed_goes_on_to_the_same_bits(
    tmp_path: Path, digits: str, mode: str
) -> None:
    whole = start(command(digits, tmp_path / "whole", *LOW_RANK[mode]), tmp_path / "whole.err")
    assert whole.wait().code == 0
    moments, killed = random.Random(mode), 0
    for attempt in range(4):
        one = start(command(digits, tmp_path / "run", *LOW_RANK[mode]), tmp_path / f"{attempt}.err")
        killed += killed_again_and_again([one], moments.random() * 0.15, tmp_path / "run/state.pt")
    assert killed >= 2
    last = start(command(digits, tmp_path / "run", *LOW_RANK[mode]), tmp_path / "last.err").wait()
    assert last.code == 0, last.err
    assert_same_run(tmp_path / "whole", tmp_path / "run")


@pytest.mark.slow
@pytest.mark.parametrize("options", [("--sync-bn", *LOW_RANK["both"]), LOW_RANK["plain"]])
def test_workers_that_are_killed_go_on_to_the_same_bits(
    tmp_path: Path, digits: str, options: tuple[str, ...]
) -> None:
    typed = command(digits, tmp_path / "whole", *options)
    assert all(one.wait().code == 0 for one in start_workers(typed, tmp_path / "whole.err"))
    typed, moments, killed = command(digits, tmp_path / "run", *options), random.Random(1), 0
    for attempt in range(3):
        workers = start_workers(typed, tmp_path / f"{attempt}.err")
        killed += killed_again_and_again(workers, moments.random() * 0.3, tmp_path / "run/state.pt")
    assert killed >= 2
    for one in start_workers(typed, tmp_path / "last.err"):
        ended = one.wait()
        assert ended.code == 0, ended.err
    assert_same_run(tmp_path / "whole", tmp_path / "run")


@pytest.mark.slow
def test_torchrun(tmp_path: Path, digits: str) -> None:
    """The real thing: it goes on, and what is wrong is one line of ours."""
    torchrun = (sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}

    def call(*typed: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*torchrun, "-m", "trpexport", *map(str, typed)],
            capture_output=True, text=True, env=environment, timeout=280, check=False,
        )  # fmt: skip

    done = call(*command(digits, tmp_path / "run", "--sync-bn", epochs=1))
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("  trpexport decompose") == 1
    for options in (("--data", "digitz"), ("--device", "tpu")):
        failed = call(*command(digits, tmp_path / "other", *options))
        assert failed.returncode != 0
        assert failed.stderr.count("error: ") == 1


def test_a_loss_that_is_no_number_leaves_the_last_checkpoint(
    run: Run, tmp_path: Path, digits: str
) -> None:
    out = tmp_path / "run"
    result = run(*command(digits, out, "--lr", "1e6"))
    assert result.code == 2
    assert "error: the loss became nan at step 4 (epoch 1)" in result.err
    assert run(*command(digits, out, "--restart", epochs=1)).code == 0
    failed = run(*command(digits, out, "--restart", "--lr", "1e6"))
    assert failed.code == 2
    assert str(load_checkpoint(out / "last.safetensors").architecture) == "resnet20"


def test_a_truncated_state_is_one_line(run: Run, tmp_path: Path, digits: str) -> None:
    out = tmp_path / "run"
    assert run(*command(digits, out, epochs=1)).code == 0
    state = out / "state.pt"
    state.write_bytes(state.read_bytes()[:-1000])
    weights = (out / "last.safetensors").read_bytes()
    result = run(*command(digits, out, epochs=1))
    assert result.code == 2
    assert "damaged" in result.error
    assert (out / "last.safetensors").read_bytes() == weights
    assert run(*command(digits, out, "--restart", epochs=1)).code == 0
    assert (out / "last.safetensors").read_bytes() != b""


def test_other_settings_are_another_run(run: Run, tmp_path: Path, digits: str) -> None:
    out = tmp_path / "run"
    assert run(*command(digits, out, epochs=1)).code == 0
    result = run(*command(digits, out, "--seed", 1, epochs=1))
    assert result.code == 2
    assert "seed 0 then, 1 now" in result.error
    (tmp_path / "full").mkdir()
    (tmp_path / "full/thesis.tex").write_text("x")
    assert "no training run" in run(*command(digits, tmp_path / "full")).error


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ("--arch resnet21x", "unknown architecture 'resnet21x'"),
        ("--arch alexnet-imagenet", "can't take the 8x8 images"),
        ("--recipe slow", "unknown recipe 'slow'"),
        ("--trp --scheme diagonal", "unknown scheme 'diagonal'"),
        ("--data digitz", "unknown data set 'digitz'"),
        ("--data npz:/nowhere.npz", "/nowhere.npz"),
        ("--data cifar10", "cifar10:DIR"),
        ("--device tpu", "unknown device 'tpu'"),
        ("--batch 129", "128 training images, fewer than a batch of 129"),
        ("--batch 0", "--batch"),
        ("--epochs 0", "epochs 0"),
        ("--lr nan", "learning rate nan"),
        ("--nuclear-weight -1", "nuclear_weight -1"),
        ("--nuclear-weight nan", "nuclear_weight nan"),
        ("--trp --trp-energy 1.5", "energy 1.5"),
        ("--trp --trp-energy 0", "energy 0"),
        ("--trp --trp-period 0", "period 0"),
        ("--trp --target-macs 0", "target_macs 0"),
        ("--trp --target-macs 2", "target_macs 2"),
        ("--trp --target-macs 0.001", "no ranks reach 0.001"),
        ("--target-macs 0.5", "--target-macs does nothing without --trp: add --trp"),
        ("--save-seconds nan", "save seconds nan"),
        ("--save-seconds inf", "save seconds inf"),
        ("--save-seconds -1", "save seconds -1.0"),
        ("--seed -1", "--seed"),
        ("--seed 9223372036854775808", "--seed"),
        ("--size 0", "--size"),
        ("--workers -1", "--workers"),
        ("--size 16 --resize 10", "smaller than the 16x16"),
    ],
)
def test_settings_that_can_not_be(
    run: Run, tmp_path: Path, digits: str, options: str, line: str
) -> None:
    out = tmp_path / "run"
    # What stands last wins.
    result = run(*command(digits, out, "--workers", 0, *options.split(), epochs=1))
    assert result.code == 2
    assert line in result.error
    # So that the right command finds the place free; the last one is seen only at the test images.
    assert not out.exists() or "--resize" in options


@pytest.mark.parametrize("workers", [0, 2])
def test_images_that_are_cut_and_resized(
    run: Run, tmp_path: Path, digits: str, workers: int
) -> None:
    sizes = ("--size", 16, "--resize", 17)
    result = run(*command(digits, tmp_path / "run", *sizes, "--workers", workers, epochs=1))
    assert result.code == 0, result.err
    preprocessing = load_checkpoint(tmp_path / "run/last.safetensors").metadata["preprocessing"]
    assert (preprocessing["size"], preprocessing["resize"]) == ([16, 16], 17)


def test_a_full_disk_is_one_line_and_the_run_goes_on(
    run: Run, tmp_path: Path, small_disk: Path, digits: str
) -> None:
    assert run(*command(digits, tmp_path / "whole", epochs=2)).code == 0
    out = small_disk / "run"
    failed = run(*command(digits, out, epochs=2))
    assert failed.code == 2
    assert failed.err.count("error: ") == 1
    assert "no space left" in failed.err
    assert torch.load(out / "state.pt", weights_only=True)["step"] == 1
    subprocess.run(["mount", "-o", "remount,size=40m", str(small_disk)], check=True)
    assert run(*command(digits, out, epochs=2)).code == 0
    assert_same_run(tmp_path / "whole", out)
