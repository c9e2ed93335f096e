"""What a command ends with: a verdict, and the next command as it was typed."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cli.app import command_line
from cli.endings import proposed
from tests.cli.conftest import Chained
from tests.conftest import QUICK, ROOT, Run
from tests.test_verdict import report as verdict_facts
from trpexport import bundle
from trpexport.errors import NothingToDoError

WIDE = 24
ONCE = ("--verify-seconds", 0)


@pytest.fixture
def network(chained: Chained, tmp_path: Path) -> Path:
    """Three convolutions, of which the SVD at rank 8 loses nothing; a name that needs quotes."""
    path = tmp_path / "my network's.onnx"
    path.write_bytes(chained(WIDE, 16).read_bytes())
    return path


def commands(out: str) -> list[str]:
    return re.findall(r"^  trpexport (.*)$", out, re.MULTILINE)


@pytest.mark.parametrize(
    "typed",
    [
        ("--scheme", "channel", "NETWORK", "--input-shape", "1x3x16x16"),
        ("NETWORK", "--scheme=channel", "--input-shape=1x3x16x16", "-o", "a b"),
        ("-oout", "--stride-1-only", "NETWORK", "--exclude", "conv0", "--exclude=conv1*"),
        ("--scheme", "channel", "--", "NETWORK"),
    ],
)
def test_the_next_command_is_the_one_that_was_typed(
    run: Run, network: Path, typed: tuple[str, ...]
) -> None:
    given = [str(network) if text == "NETWORK" else text for text in typed]
    result = run("decompose", "--dry-run", "--json", *given)
    assert result.code == 0, result.err
    facts = json.loads(result.out)
    program, *words = shlex.split(facts["next"][0])
    assert program == "trpexport"
    assert words == ["decompose", "--json", *(text for text in given if text != "--")]


def test_a_dry_run_says_what_can_be_won_and_writes_nothing(
    run: Run, network: Path, smooth_tensors: Callable[[int], str], tmp_path: Path
) -> None:
    images = ("--calib", smooth_tensors(16), "--target-macs", 0.5, "--scheme", "auto")
    before = sorted(tmp_path.iterdir())
    result = run("decompose", network, *images, "-o", tmp_path / "out", "--dry-run")
    assert result.code == 0, result.err
    assert re.search(r"3x3 convolutions +\d+\.\d % +\d+\.\d % +\d\.\d\dx", result.out)
    assert "Low rank can pay here" in result.out
    assert "Calibration takes about" in result.out
    (command,) = commands(result.out)
    assert "--dry-run" not in command
    assert sorted(tmp_path.iterdir()) == before
    # The same for the way that goes by time, which needs no timing for it.
    tuned = ("tune", network, *images[:2], "--min-speedup", 1.5, "--dry-run", "--json")
    facts = json.loads(run(*tuned).out)
    assert facts["pays"] is True
    assert facts["seconds"] > 0
    assert sorted(tmp_path.iterdir()) == before


def test_a_dry_run_refuses_what_can_not_be(run: Run, network: Path) -> None:
    assert run("decompose", network, "--scheme", "diagonal", "--dry-run").code == 2
    assert run("decompose", network, "--include", "nowhere", "--dry-run").code == 2
    assert run("decompose", network.with_name("none.onnx"), "--dry-run").code == 2


def test_what_is_destroyed_is_said_and_kept_only_without_a_limit(
    run: Run, network: Path, smooth_tensors: Callable[[int], str], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    ways = ("--scheme", "channel", "--include", "*", "--criterion", "rank:1")
    typed = ("decompose", network, *ways, "-o", out, *ONCE)
    result = run(*typed)
    assert result.code == 0, result.err
    assert "Destroyed: " in result.out
    report = json.loads((out / bundle.REPORT).read_text())
    assert report["verdict"]["outcome"] == "destroyed"
    # The next place is another one: this one is taken.
    first = shlex.split(commands(result.out)[1])
    assert first[first.index("--out") + 1] == f"{out}-calibrated"
    assert "--criterion" not in first
    other = tmp_path / "other"
    limited = (*typed[:-3], other, *ONCE, "--max-error", 0.1)
    refused = run(*limited)
    assert refused.code == NothingToDoError.exit_code
    assert "of its variation" in refused.error
    assert "0.1 is the limit" in refused.error
    assert not other.exists()
    facts = json.loads(run(*limited, "--json").out)
    assert facts["exit_code"] == 3
    assert shlex.split(facts["next"][0])[1] == "decompose"
    assert not other.exists()
    # At a rank where nothing is lost, the same limit is kept.
    near = [8 if text == "rank:1" else text for text in limited]
    kept = run(*(f"rank:{text}" if text == 8 else text for text in near), "--json")
    assert kept.code == 0, kept.err
    first = shlex.split(json.loads(kept.out)["next"][0])
    assert first[:3] == ["trpexport", "decompose", str(network)]
    assert "--calib" in first


@pytest.mark.parametrize(
    ("options", "code", "says"),
    [
        (("--min-agreement", 101), 2, "--min-agreement 101 is out of range"),
        (("--min-agreement", 90), 2, "no output tells classes, so there is no top-1"),
    ],
)
def test_limits_that_can_not_be(
    run: Run, network: Path, tmp_path: Path, options: tuple[Any, ...], code: int, says: str
) -> None:
    out = tmp_path / "out"
    cut = ("--scheme", "channel", "--criterion", "rank:4")
    result = run("decompose", network, *cut, "-o", out, *ONCE, *options)
    assert result.code == code
    assert says in result.error
    assert not out.exists()


def test_the_same_in_a_session(run: Run, shared: Path, tmp_path: Path) -> None:
    """A checkpoint of one's own: what says which network it is stays in the command."""
    (tmp_path / "homemade.py").write_text(
        "from torch import nn\n\n\ndef make():\n    return nn.Sequential(nn.Conv2d(3, 8, 3), "
        "nn.Conv2d(8, 8, 3), nn.Flatten(), nn.Linear(8 * 16, 4))\n"
    )
    checkpoint = tmp_path / "mine.pth"
    torch = pytest.importorskip("torch")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(tmp_path)
        patch.chdir(tmp_path)
        homemade = __import__("homemade")
        torch.save(homemade.make().state_dict(), checkpoint)
        typed = ("mine.pth", "--model", "homemade:make", "--input-shape", "1x3x8x8")
        result = run("decompose", *typed, "-o", "out")
        assert result.code == 3
        first, *others = commands(result.out)
        assert first == f"decompose {' '.join(typed)} -o out --calib imagefolder:DIR " + (
            "--target-macs 0.5 --scheme auto"
        )
        assert "TrainedRankPruning" in result.out
        assert not (tmp_path / "out").exists()
        for command in others:  # as printed, they work
            assert run(*shlex.split(command), *QUICK).code == 0


def test_of_the_zoo_training_is_a_command_even_where_a_limit_refused(
    run: Run, tmp_path: Path
) -> None:
    checkpoint = ROOT / "models_zoo/checkpoints/resnet20-plain.safetensors"
    out = tmp_path / "out"
    cut = ("--criterion", "energy:0.9", "--min-agreement", 100, "--max-error", 1e-6)
    result = run("decompose", checkpoint, *cut, "-o", out, *QUICK)
    assert result.code == 3
    first, second, *_ = commands(result.out)
    assert first.startswith(f"decompose {checkpoint} --min-agreement 100 --max-error 1e-06")
    assert second.startswith("train --arch resnet20 --init ")
    assert not out.exists()


@pytest.mark.parametrize("has_baseline", [False, True])
def test_the_original_to_compare_with_is_the_bundles_or_the_file(
    run: Run,
    network: Path,
    smooth_tensors: Callable[[int], str],
    tmp_path: Path,
    has_baseline: bool,
) -> None:
    out = tmp_path / "out"
    typed = ("--calib", smooth_tensors(16), "--target-macs", 0.6, "--include", "*", "-o", out)
    added = ("--add-baseline",) if has_baseline else ()
    result = run("decompose", network, *typed, *ONCE, *added)
    assert "Pays: " in result.out, result.err
    _, bench, gate = map(shlex.split, commands(result.out))
    assert bench == ["bench", *([] if has_baseline else [str(network)]), str(out)]
    assert ("--baseline" in gate) is not has_baseline
    judged = run(*gate)  # no classifier: its outputs are compared
    assert judged.code in (0, 1), judged.err
    assert "max-output-error" in judged.out


@pytest.mark.parametrize(("is_labelled", "command"), [(True, "eval"), (False, "gate")])
def test_answers_are_judged_by_labels_where_there_are_any(is_labelled: bool, command: str) -> None:
    facts = verdict_facts(calibration={"held_out": None, "is_labelled": is_labelled})
    decompose = command_line(["decompose"]).commands["decompose"]
    typed = ["net.onnx", "--calib", "photos"]
    with decompose.make_context("decompose", typed) as context:
        *_, (_, last) = proposed(context, facts, Path("out"))
    words = shlex.split(last or "")
    assert words[1] == command
    assert words[words.index("--data") + 1] == "photos"
    assert ("--min-agreement" in words) is not is_labelled
