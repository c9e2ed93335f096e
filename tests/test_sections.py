"""Sections of TOML files that several readers share."""

from __future__ import annotations

from pathlib import Path

import pytest

from trpexport.errors import TrpexportError
from trpexport.sections import read_section


@pytest.fixture(autouse=True)
def somewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_sections_stand_beside_each_other() -> None:
    Path("trpexport.toml").write_text("[bench]\nthreads = 2\n[gate]\nmax-drop = 1\n")
    beside = ("bench", "gate", "flops")
    assert read_section("bench", beside=beside) == ({"threads": 2}, "trpexport.toml")
    assert read_section("flops", beside=beside) == ({}, "")
    with pytest.raises(TrpexportError, match=r"unknown key 'bench' in trpexport\.toml"):
        read_section("gate")
    Path("pyproject.toml").write_text("[tool.trpexport.flops]\narch = 'a'\n[tool.trpexport.gate]")
    assert read_section("flops", beside=beside) == ({"arch": "a"}, "pyproject.toml")


def test_a_slip_in_a_section_s_name_is_told() -> None:
    Path("trpexport.toml").write_text("[bnch]\nthreads = 2\n")
    with pytest.raises(TrpexportError, match=r"'bnch' in trpexport\.toml: did you mean bench"):
        read_section("flops", beside=("bench", "flops"))
