"""Other versions of ONNX Runtime, without and with the network."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from onnx import helper

from trpexport.errors import ModelError, TrpexportError
from trpexport.runtime import releases
from trpexport.runtime.releases import Release, installed
from trpexport.runtime.session import open_session

Write = Callable[..., Path]
Done = subprocess.CompletedProcess[str]


@pytest.fixture
def here() -> Release:
    """What runs these tests, as if it had been installed."""

    return Release(onnxruntime.__version__, Path(sys.executable))


def linear(write: Write, batch: int | str, opset: int = 17) -> Path:
    return write(
        [helper.make_node("MatMul", ["the/x", "w"], ["y"]), helper.make_node("Neg", ["y"], ["z"])],
        {"the/x": (batch, 3)},
        {"z": (batch, 4), "y": (batch, 4)},
        {"w": np.arange(12, dtype=np.float32).reshape(3, 4)},
        opsets={"": opset},
    )


@pytest.mark.parametrize("batch", ["n", 2, 5])
def test_a_network_gives_there_what_it_gives_here(
    here: Release, write_onnx: Write, batch: int | str
) -> None:
    path = linear(write_onnx, batch)
    x = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    expected = open_session(linear(write_onnx, "n")).run({"the/x": x})
    outputs = here.run(path, {"the/x": x})
    assert list(outputs) == ["z", "y"]
    for name, array in expected.items():
        assert outputs[name] == pytest.approx(array, rel=1e-6)


def test_what_it_does_not_read_is_one_line(here: Release, write_onnx: Write) -> None:
    path = linear(write_onnx, "n", opset=99)
    with pytest.raises(ModelError, match=rf"onnxruntime {here.version} can't run model.onnx") as no:
        here.run(path, {"the/x": np.ones((1, 3), np.float32)})
    assert "\n" not in str(no.value)
    assert "Opset 99 is under development" in str(no.value)


class Commands:
    """Stands in for pip: knows one version, in one Python."""

    def __init__(self, version: str = "1.16.3", python: str = "right") -> None:
        self.version, self.python = version, python
        self.wanted: list[list[str]] = []

    def __call__(self, command: list[Any], seconds: float) -> Done:
        words = [str(word) for word in command]
        if "venv" in words:
            self.current = words[0]
            return subprocess.CompletedProcess(words, 0, "", "")
        if "install" in words:
            packages = [word for word in words if "onnxruntime==" in word or "numpy" in word]
            self.wanted.append(packages)
            wanted = packages[0].removeprefix("onnxruntime==").removesuffix(".*")
            has_it = self.current == self.python and self.version.startswith(wanted)
            said = "" if has_it else f"ERROR: No matching distribution found for {packages[0]}\n"
            return subprocess.CompletedProcess(words, not has_it, "", f"notice\n{said}")
        return subprocess.CompletedProcess(words, 0, f"{self.version}\n", "")


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> Commands:
    found = Commands()
    monkeypatch.setattr(releases, "_process", found)
    monkeypatch.setattr(releases, "_pythons", lambda: ["wrong", "right"])
    installed.cache_clear()
    return found


@pytest.mark.parametrize("version", ["1.16", "1.16.3", "1.16.9"])
def test_the_nearest_patch_is_installed_by_a_python_that_has_it(
    commands: Commands, version: str
) -> None:
    release = installed(version)
    assert (release.version, str(release)) == ("1.16.3", "onnxruntime 1.16.3")
    assert commands.wanted[-1][1:] == ["numpy<2"]
    assert installed(version) is release
    installed.cache_clear()


def test_newer_wheels_take_any_numpy(commands: Commands) -> None:
    commands.version = "1.20.1"
    installed("1.20")
    assert commands.wanted[-1] == ["onnxruntime==1.20.*"]
    installed.cache_clear()


def test_a_wheel_that_is_not_to_be_had_is_one_line_and_leaves_nothing(
    commands: Commands, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.raises(TrpexportError, match=r"1\.99 can't be installed .*No matching") as refusal:
        installed("1.99")
    assert refusal.value.parameters == ("check", "target_ort")
    assert "\n" not in str(refusal.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_wheel_is_really_installed_and_runs(write_onnx: Write) -> None:
    installed.cache_clear()
    release = installed("1.16")
    assert release.version.startswith("1.16.")
    x = np.ones((2, 3), np.float32)
    path = linear(write_onnx, "n")
    assert release.run(path, {"the/x": x})["y"] == pytest.approx(
        open_session(path).run({"the/x": x})["y"]
    )
    with pytest.raises(ModelError, match=r"can't run .*[Oo]pset"):
        release.run(linear(write_onnx, "n", opset=20), {"the/x": x})
