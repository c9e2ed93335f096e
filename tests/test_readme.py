"""What the README says works as it stands."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from tests.conftest import ROOT, Run
from trpexport import bundle

README = (ROOT / "README.md").read_text()


@pytest.fixture
def workplace(shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a checkpoint of the name that the README uses."""
    shutil.copy(shared / "checkpoints/resnet20-12fca82f.th", tmp_path / "ckpt.pth")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_python_example_runs(workplace: Path) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    exec(compile(code, "README.md", "exec"), {})
    assert (workplace / "out" / bundle.MANIFEST).is_file()


def test_every_criterion_and_scheme_is_explained() -> None:
    from trpexport.lowrank.criteria import CRITERIA
    from trpexport.lowrank.schemes import SCHEMES

    for name in (*CRITERIA, *SCHEMES):
        assert f"`{name}" in README


@pytest.mark.usefixtures("workplace")
def test_the_commands_are_typed_right(run: Run) -> None:
    assert run("decompose", "ckpt.pth", "--scheme", "spatial").code == 3
    assert run("inspect", "ckpt.pth", "--scheme", "channel").code == 0
    assert run("export", "ckpt.pth").code == 0
    assert run("verify", "ckpt-onnx").code == 0
    assert run("verify", "ckpt-onnx/model.onnx", "ckpt-onnx/model.onnx").code == 0
    assert run("flops", "ckpt-onnx/model.onnx").code == 0


def test_every_command_in_the_readme_exists(run: Run) -> None:
    commands = set(re.findall(r"^    trpexport (\w+)", README, re.MULTILINE))
    assert commands
    for command in commands:
        assert run(command, "--help").code == 0
