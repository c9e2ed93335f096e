"""Limits from files and flags: what is wrong is named, with what was probably meant."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from trpexport.datasets.tensors import TensorSet
from trpexport.errors import TrpexportError
from trpexport.judge.gate.config import read_limits, with_usual_metric
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


def test_a_metric_stands_in_the_file_or_is_typed() -> None:
    Path("ownrules.py").write_text("def gap(p, t):\n    return 0.0\n")
    own = "metric = 'ownrules:gap'\nmetric-lower-is-better = true\n"
    write("trpexport.toml", f"[gate]\n{own}max-drop = 70\n")
    found = read_limits({}, data="tensors:x.npz")
    assert found.metric is not None
    assert (found.metric.name, found.metric.lower_is_better) == ("ownrules:gap", True)
    assert found.limits == {"max-drop": 70}  # in a unit of its own
    # What is typed replaces all that the file says of a metric.
    typed = read_limits({"max-drop": 1}, config=write("a.toml", f"[gate]\n{own}"), metric="miou")
    assert typed.metric is not None and not typed.metric.lower_is_better
    lower = write("b.toml", "[gate]\nmetric = 'ownrules:gap'\nmax-drop = 1\n")
    found = read_limits({}, config=lower, lower_is_better=True)
    assert found.metric is not None and found.metric.lower_is_better
    classes = write("c.toml", "[gate]\nmax-drop = 1\n")
    assert read_limits({}, config=classes).metric is None
    limits = read_limits({}, config=classes, data="tensors:x.npz")
    values = np.zeros((4, 2))
    classed = TensorSet("tensors:x.npz", {"x": values}, {"target": np.arange(4)})
    usual = with_usual_metric(limits, classed).metric
    assert usual is not None
    assert usual.name == "top1"
    other = TensorSet("tensors:x.npz", {"x": values}, {"target": values})
    with pytest.raises(TrpexportError, match="no metric is given for tensors:x"):
        with_usual_metric(limits, other)


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
        ("[gate]\nmetric = 1\nmax-drop = 1", "metric in trpexport.toml can't be 1: give its name"),
        ("[gate]\nmetric = ['miou']\nmax-drop = 1", "give its name"),
        ("[gate]\nmetric = 'mious'\nmax-drop = 1", "in trpexport.toml: .* did you mean miou"),
        ("[gate]\nmetric = 'no_such:f'\nmax-drop = 1", "there is no module no_such"),
        ("[gate]\nmetrics = 'miou'", "did you mean metric"),
        ("[gate]\nmetric = 'miou'\nmax-drop = 51", "the drop of miou is at most .* 50 points"),
        ("[gate]\nmetric = 'miou'\nmax-top5-drop = 5", "needs classes, miou tells none"),
        ("[gate]\nmetric-lower-is-better = 'yes'\nmax-drop = 1", "true or false"),
        ("[gate]\nmetric-lower-is-better = true\nmax-drop = 1", "is of no metric"),
        (
            "[gate]\nmetric = 'miou'\nmetric-lower-is-better = true\nmax-drop = 1",
            "of miou more is better",
        ),
        ("[gate]\nmetric = 'miou'", "there is no limit"),
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


@pytest.mark.parametrize(
    ("text", "milliseconds"), [("5", 5), ("5ms", 5), ("800us", 0.8), ("0.1 s", 100)]
)
def test_latencies_have_units(text: str, milliseconds: float) -> None:
    assert read_limits({"max-latency": text}).limits == {"max-latency": pytest.approx(milliseconds)}
