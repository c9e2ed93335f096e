"""Paths that the operating system does not even look for."""

from __future__ import annotations

import pytest

from tests.conftest import Run

LONG = "x" * 300  # 255 is the most that file systems take


@pytest.mark.parametrize(
    "command",
    [
        ("finetune", LONG, "--data", "digits"),
        ("train", "--arch", "resnet20", "--data", f"imagefolder:{LONG}"),
        ("train", "--arch", "resnet20", "--data", "digits", "--epochs", 1, "-o", LONG),
        ("eval", LONG, "--data", "digits"),
        ("gate", "--candidate", LONG, "--max-file-size", "1MB"),
        ("bench", LONG),
        ("verify", LONG),
        ("flops", LONG),
        ("inspect", LONG),
        ("decompose", LONG),
        ("export", LONG),
    ],
    ids=lambda command: command[0],
)
def test_a_name_that_is_too_long_is_one_line(run: Run, command: tuple[object, ...]) -> None:
    result = run(*command)
    assert result.code == 2
    assert LONG in result.error
    assert "File name too long" in result.error
