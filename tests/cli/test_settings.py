"""Defaults of options from a file: for any command; what is typed wins, slips are told."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from onnx import helper

from tests.conftest import Run


@pytest.fixture
def network(
    write_onnx: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """Write a network whose sizes are open, and go to an empty directory."""
    monkeypatch.chdir(tmp_path)
    shape = ("n", 3, "h", "w")
    node = helper.make_node("Conv", ["x", "w"], ["y"])
    weight = np.ones((1, 3, 1, 1), np.float32)
    return write_onnx([node], {"x": shape}, {"y": None}, {"w": weight})


def macs(run: Run, *typed: object) -> int:
    result = run("flops", *typed, "--json")
    assert result.code == 0, result.err
    return int(json.loads(result.out)["macs"])


def test_what_is_typed_wins_over_a_file(run: Run, network: Path) -> None:
    Path("trpexport.toml").write_text("[flops]\ninput-shape = ['1x3x8x8']\n")
    assert macs(run, network) == 3 * 8 * 8
    assert macs(run, network, "--input-shape", "1x3x4x4") == 3 * 4 * 4
    Path("other.toml").write_text("[flops]\ninput-shape = 'x=1x3x2x2'\n")
    assert macs(run, network, "--config", "other.toml") == 3 * 2 * 2
    before = run("--config", "other.toml", "flops", network, "--json")
    assert json.loads(before.out)["macs"] == 3 * 2 * 2


def test_the_project_s_file_will_do(run: Run, network: Path) -> None:
    Path("pyproject.toml").write_text("[tool.trpexport.flops]\ninput-shape = '1x3x5x5'\n")
    assert macs(run, network) == 3 * 5 * 5


@pytest.mark.parametrize(
    ("text", "typed", "says"),
    [
        ("[eval]\nthread = 2", ("eval", "x"), "unknown key 'thread' in trpexport.toml: did you"),
        ("[evil]\nthreads = 2", ("eval", "x"), "unknown key 'evil' in trpexport.toml: did you"),
        ("[eval]\nimages = 0", ("eval", "x"), "'--images'"),
        ("[eval]\nimages = 0", ("eval", "x"), "in trpexport.toml"),
        (
            "[eval]\nconfusion = 1",
            ("eval", "x"),
            "confusion in trpexport.toml can't be 1: say true",
        ),
        ("[eval]\nsplit = true", ("eval", "x"), "split in trpexport.toml can't be True: give text"),
        ("[eval]\nsplit = ['a']", ("eval", "x"), "can't be ['a']: give text or a number"),
        ("[tune]\ninclude = [true]", ("tune", "x"), "can't be True: give text, a number or a list"),
        ("[eval]\nconfig = 'x'", ("eval", "x"), "unknown key 'config'"),
        ("[bench]\njson = true\ncsv = true", ("bench", "x"), "--json and --csv exclude each other"),
        ("[gate]\nmax-drop = 0", ("gate", "--candidate", "x"), "max-drop in trpexport.toml can't"),
        ("[gate]\nmax-dorp = 1", ("gate", "--candidate", "x"), "did you mean max-drop"),
        ("gate = 1", ("gate", "--candidate", "x"), "must be a section"),
        ("[eval]\n", ("eval", "x", "--config", "gone.toml"), "can't read gone.toml"),
        ("[eval]\n", ("gate", "--config", "trpexport.toml"), "no section [gate]: add it"),
    ],
)
def test_slips_are_one_line(
    run: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    text: str,
    typed: tuple[str, ...],
    says: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("trpexport.toml").write_text(text)
    result = run(*typed)
    assert result.code == 2
    # A JSON document that a file asked for stands on standard output alone.
    assert says in result.error


def test_errors_are_facts_where_a_file_asks_for_them(run: Run, network: Path) -> None:
    Path("trpexport.toml").write_text("[flops]\njson = true\n")
    assert "macs" in json.loads(run("flops", network, "--input-shape", "1x3x4x4").out)
    assert json.loads(run("flops", "gone.onnx").out)["exit_code"] == 2


def test_required_options_may_stand_in_the_file(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("trpexport.toml").write_text("[gate]\ncandidate = 'gone.onnx'\nmax-file-size = '1MB'\n")
    assert "gone.onnx" in run("gate").error


def test_a_conditional_option_of_a_file_is_no_slip(run: Run, network: Path) -> None:
    Path("trpexport.toml").write_text("[bench]\npython = 'python3'\nmin-time = 0\n")
    result = run("bench", network, "--no-memory", "--min-runs", 1, "--input-shape", "1x3x4x4")
    assert result.code == 0, result.err


def test_old_names_work_in_files_too(run: Run, network: Path) -> None:
    Path("trpexport.toml").write_text("[flops]\nshape = '1x3x8x8'\n")
    result = run("flops", network, "--json")
    assert json.loads(result.out)["macs"] == 3 * 8 * 8
    assert "note: shape in trpexport.toml is called input-shape now" in result.err
