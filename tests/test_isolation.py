"""Nothing that merely lies in the working directory is run, by a command or by its children."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT
from trpexport.measure import children

LIBRARIES = (
    "json",
    "numpy",
    "runpy",
    "onnx",
    "onnxruntime",
    "onnxsim",
    "pip",
    "safetensors",
    "torch",
)


def python_commands(path: Path) -> Iterator[tuple[int, object]]:
    """Yield (line, first argument) of each command in a file that starts a Python."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.List | ast.Tuple):
            for item, following in zip(node.elts, node.elts[1:], strict=False):
                if ast.unparse(item) == "sys.executable":
                    yield node.lineno, getattr(following, "value", None)


def test_children_do_not_begin_their_search_in_the_working_directory() -> None:
    found = {
        f"{path.relative_to(ROOT)}:{line}": option
        for folder in ("trpexport", "cli")
        for path in (ROOT / folder).rglob("*.py")
        for line, option in python_commands(path)
    }
    assert len(found) >= 3
    others = {place for place, option in found.items() if option not in ("-P", "-I")}
    # It takes the directory off its path before it imports anything, for Pythons without -P.
    assert {place.partition(":")[0] for place in others} == {"trpexport/measure/children.py"}
    assert children._RUN.startswith(
        "import sys\nsys.path = [entry for entry in sys.path if entry]\n"
    )


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    """A folder of modules that say that they were run."""
    folder = tmp_path / "hostile"
    folder.mkdir()
    for name in LIBRARIES:
        (folder / f"{name}.py").write_text(f"open({str(tmp_path / name)!r}, 'w')\n")
    return folder


@pytest.mark.parametrize(
    "command",
    [("bench", "--min-time", "0", "--min-runs", "1"), ("flops",), ("verify",)],
    ids=lambda command: command[0],
)
def test_modules_of_the_working_directory_are_not_run(
    hostile: Path, linear: Callable[..., Path], command: tuple[str, ...]
) -> None:
    name, *options = command
    files = [str(linear())] * (2 if name == "verify" else 1)
    # As the installed script starts, which does not have the working directory on its path.
    program = "from trpexport.__main__ import main; main()"
    done = subprocess.run(
        [sys.executable, "-P", "-c", program, name, *files, *options],
        cwd=hostile,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert [found for found in LIBRARIES if (hostile.parent / found).exists()] == []
