"""A cluster of two Ray nodes gives what one process gives, whatever is killed in the middle."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT
from tests.sweeps.test_killed import request_of, swept
from trpexport.files import read_json

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(find_spec("ray") is None, reason="needs Ray"),
]


@pytest.fixture(scope="module")
def here(things: Path, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What one process says of the cells."""
    return swept(request_of(things), tmp_path_factory.mktemp("here") / "out")[0]


@pytest.mark.parametrize("kind", ["whole", "worker", "driver"])
def test_a_cluster_gives_the_same(
    kind: str, here: list[dict[str, Any]], things: Path, tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "tests.sweeps.clustered"]
    command += map(str, (things, tmp_path / "out", kind))
    environment = {**os.environ, "RAY_DEDUP_LOGS": "0"}
    subprocess.run(command, cwd=ROOT, env=environment, check=True, timeout=800)
    cells = read_json(tmp_path / "out/sweep.json")["cells"]
    assert [cell["failed"] for cell in cells] == [None] * 8
    for cell, expected in zip(cells, here, strict=True):
        assert cell["time"]["speedup"]["mid"] > 0
        for name in ("label", "macs", "parameters", "bundle"):
            assert cell[name] == expected[name]
        assert cell["error"]["value"] == pytest.approx(expected["error"]["value"], rel=1e-3)
        assert cell["judged"]["after"] == pytest.approx(expected["judged"]["after"], rel=1e-3)
