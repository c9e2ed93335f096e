"""Limits from files and flags: what is wrong is named, with what was probably meant."""

from __future__ import annotations

from pathlib import Path

import pytest

from trpexport.errors import TrpexportError
from trpexport.judge.gate.config import read_limits
from trpexport.judge.gate.rules import RULES


@pytest.fixture(autouse=True)
def somewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(name: str, text: str) -> Path:
    Path(name).write_text(text)
    return Path(name)


def test_flags_override_files() -> None:
    write("pyproject.toml", "[tool.trpexport.gate]\nmax-drop = 2\nconfident = true\n")
    found = read_limits({"max-drop": None, "min-speedup": "1.5"})
    assert (dict(found.limits), found.confident) == ({"max-drop": 2, "min-speedup": 1.5}, True)
    assert read_limits({"max-drop": "1"}, confident=False).limits == {"max-drop": 1}
    assert read_limits({"max-drop": "1"}, confident=False).confident is False
    write("trpexport.toml", '[gate]\nmax-file-size = "1.5 MB"\n')  # goes before the project's
    assert read_limits({}).limits == {"max-file-size": 1_500_000}
    other = write("other.toml", "[gate]\nmin-agreement = 95.5\n")
    assert read_limits({}, config=other).limits == {"min-agreement": 95.5}
    assert list(read_limits({n: 2 for n in RULES if n != "min-agreement"}).limits) == [
        name for name in RULES if name != "min-agreement"
    ]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[gate]\nmax-dorp = 1", "unknown key 'max-dorp' in trpexport.toml: did you mean max-drop"),
        ("[gate]\nmax_drop = 1", "did you mean max-drop"),
        ("[gate]\nconfidence = true", "did you mean confident"),
        ("[gate]\nmax-drop = -1", "max-drop in trpexport.toml can't be -1: .*above 0"),
        ("[gate]\nmax-drop = 0", "can't be 0"),
        ("[gate]\nmax-drop = nan", "can't be nan"),
        ("[gate]\nmax-drop = inf", "can't be inf"),
        ("[gate]\nmax-drop = true", "can't be True"),
        ("[gate]\nmax-drop = [1]", r"can't be \[1\]"),
        (f"[gate]\nmax-drop = 1{'0' * 400}", "can't be 10"),
        (f"[gate]\nmax-drop = {'[' * 10_000}", "not valid TOML"),
        ("[gate]\nmax-drop = 51", "at most 50 points"),
        ('[gate]\nmax-drop = "one"', "can't be 'one'"),
        ('[gate]\nmax-drop = "1k"', "can't be '1k'"),
        ("[gate]\nmin-agreement = 100", "can't be 100"),
        ("[gate]\nconfident = 1", "true or false"),
        ("gate = 3", "must be a section"),
        ("[gates]\nmax-drop = 1", "unknown key 'gates' in trpexport.toml: did you mean gate"),
        ("[gate]\nmax-drop = 1\n[extra]\n", "unknown key 'extra'"),
        ("[gate]\nmax-drop =", "not valid TOML"),
        ("[gate]", "there is no limit"),
        ("", "there is no limit"),
    ],
)
def test_slips_are_named(text: str, says: str) -> None:
    write("trpexport.toml", text)
    with pytest.raises(TrpexportError, match=says) as error:
        read_limits({})
    assert "\n" not in str(error.value)
    assert error.value.exit_code == 2


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            "[tool.trpexprot.gate]\nmax-drop = 1",
            "unknown key 'trpexprot' .* did you mean trpexport",
        ),
        ("[tool.trpexport.gat]\nmax-drop = 1", "did you mean gate"),
        ("[tool.ruff]\nline-length = 100", "there is no limit"),
        ("[tool]\ntrpexport = 1", "must be a section"),
    ],
)
def test_slips_in_the_project_file(text: str, says: str) -> None:
    write("pyproject.toml", text)
    with pytest.raises(TrpexportError, match=says):
        read_limits({})


def test_a_named_file_has_to_be_there_and_have_the_section(somewhere: Path) -> None:
    with pytest.raises(TrpexportError, match=r"can't read gone\.toml"):
        read_limits({"max-drop": 1}, config=Path("gone.toml"))
    empty = write("empty.toml", "")
    with pytest.raises(TrpexportError, match=r"no section \[gate\]"):
        read_limits({"max-drop": 1}, config=empty)
    binary = somewhere / "binary.toml"
    binary.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(TrpexportError, match="not valid TOML"):
        read_limits({}, config=binary)


@pytest.mark.parametrize("name", list(RULES))
def test_no_rule_takes_a_limit_of_the_wrong_sign(name: str) -> None:
    wrong: object
    for wrong in (-1, 0, "-2", "1e999", "nan", "", "1.2.3", {}):
        with pytest.raises(TrpexportError, match=f"{name} can't be"):
            read_limits({name: wrong})
