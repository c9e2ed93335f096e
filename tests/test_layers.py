"""The contract of imports holds, and would be noticed if it did not."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

PROGRAM = """
import sys
from importlinter.cli import lint_imports

sys.path.insert(0, "")
sys.exit(lint_imports(no_cache=True, no_logo=True))
"""

DOWNWARD = "Imports run downward only"
CIRCLES = "No circle among siblings, at any depth"
TORCH = "What runs on a device, or only knows shapes and files, never needs torch"
INSIDE = "Inside the library nobody imports its root"
OUTSIDE = "The library knows the command line and the zoo by name only"
ZOO = "The zoo takes errors and the registry from the library"


def broken(folder: Path) -> set[str]:
    """Return the contracts that the packages in a folder break."""
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=folder, capture_output=True, text=True, check=False
    )
    verdicts = dict(re.findall(r"^(.+) (KEPT|BROKEN)\b", result.stdout, re.MULTILINE))
    assert set(verdicts) == {DOWNWARD, CIRCLES, TORCH, INSIDE, OUTSIDE, ZOO}, result.stdout
    found = {name for name, verdict in verdicts.items() if verdict == "BROKEN"}
    assert result.returncode == bool(found)
    return found


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("copy")
    for name in ("trpexport", "cli", "models_zoo"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    return folder


def test_the_contract_holds() -> None:
    assert broken(ROOT) == set()


@pytest.mark.parametrize(
    ("module", "line", "names"),
    [
        ("trpexport/plan.py", "from trpexport.choose.spectra import analyse", {DOWNWARD, TORCH}),
        ("trpexport/errors.py", "from trpexport import registry", {DOWNWARD}),
        ("trpexport/onnxfile/graph.py", "import trpexport.runtime.session", {DOWNWARD}),
        ("trpexport/judge/paired.py", "from trpexport.device.ssh import connect", {DOWNWARD}),
        ("trpexport/measure/timing.py", "def late(): import trpexport.pipeline", {DOWNWARD, TORCH}),
        ("trpexport/lowrank/spectrum.py", "import trpexport.lowrank.fit.three_factors", {CIRCLES}),
        ("trpexport/runtime/verify.py", "def late(): import torch", {TORCH}),
        ("trpexport/tensors.py", "from trpexport import __version__", {INSIDE}),
        ("trpexport/training/loop.py", "import trpexport.cli", {INSIDE}),
        ("trpexport/checkpoints/identify.py", "from models_zoo import vgg", {OUTSIDE}),
        ("models_zoo/vgg.py", "from trpexport.tensors import Array", {ZOO}),
        ("trpexport/attic/__init__.py", "", {DOWNWARD}),  # a room without a place
    ],
)
def test_what_breaks_it_is_found(copy: Path, module: str, line: str, names: set[str]) -> None:
    path = copy / module
    before = path.read_text() if path.exists() else None
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"{before or ''}\n{line}\n")
    try:
        found = broken(copy)
    finally:
        if before is None:
            shutil.rmtree(path.parent)
        else:
            path.write_text(before)
    # An import of what stands above closes a circle as well, wherever there is a way down.
    assert names <= found <= names | {CIRCLES}


def test_an_import_for_types_alone_may_point_anywhere(copy: Path) -> None:
    path = copy / "trpexport" / "plan.py"
    before = path.read_text()
    lines = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import trpexport.pipeline\n"
    path.write_text(before + lines)
    try:
        assert broken(copy) == set()
    finally:
        path.write_text(before)
