"""A sweep that is killed anywhere goes on to the same table."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.conftest import ROOT
from trpexport.files import read_json


def swept(things: Path, out: Path, *lines: int) -> list[dict[str, Any]]:
    """Return the cells of a sweep that was killed after so many lines each time."""
    command = [sys.executable, "-m", "tests.sweeps.killed"]
    command += map(str, (things, out, *lines))
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run(command, cwd=ROOT, env=environment, check=True, timeout=600)
    cells: list[dict[str, Any]] = read_json(out / "sweep.json")["cells"]
    return cells


def test_the_same_table_after_three_kills(things: Path, tmp_path: Path) -> None:
    whole = swept(things, tmp_path / "whole")
    assert len(whole) == 8
    assert not any(cell["failed"] for cell in whole)
    # Anywhere in the first half, so that each kill finds something to end.
    moments = [random.randrange(1, 40) for _ in range(3)]
    assert swept(things, tmp_path / "killed", *moments) == whole, moments
